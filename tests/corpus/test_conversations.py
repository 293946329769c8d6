"""Conversations become the ids and masks that their template gives, and rows without an answer are counted."""

import random

import datasets
import pytest

from helpers import chats
from helpers import special_tokens as small
from memtax.corpus.answers import holds_conversations, load_answers, read_conversations
from memtax.corpus.conversations import find_shape, row_shape, template_opening
from memtax.corpus.membership_texts import load_membership, load_texts
from memtax.corpus.opening import Reading, open_sources
from memtax.corpus.sequences import documents, load_sequences
from memtax.corpus.sources import Source
from memtax.errors import MemtaxError
from memtax.lm.special_tokens import tokenizer_bos


def text(rng, count):
    return " ".join(rng.choice(chats.WORDS) for _ in range(count))


def random_chats(count, seed=0):
    rng = random.Random(seed)
    return [
        chats.chat(
            *(text(rng, rng.randint(1, 6)) for _ in range(2 * rng.randint(1, 3))),
            system=text(rng, 2) if rng.random() < 0.5 else None,
        )
        for _ in range(count)
    ]


def read(path, template=chats.PLAIN, opening=()):
    rows = read_conversations(Source.parse(path), chats.tokenizer(template), opening)
    return [(row.tokens, row.scored) for row in rows if row.left_out is None]


@pytest.mark.parametrize("template", [chats.PLAIN, chats.MARKED])
def test_ids_and_masks_are_those_of_the_template_and_those_composed_by_hand(template, tmp_path):
    rows = random_chats(30)
    path = chats.write(tmp_path / "chats.jsonl", [{"messages": row} for row in rows])
    assert read(path, template) == [chats.compose(row) for row in rows]
    options = {"tokenize": True, "return_dict": True, "return_assistant_tokens_mask": True}
    marked = [chats.tokenizer(chats.MARKED).apply_chat_template(row, **options) for row in rows]
    assert read(path, template) == [(found["input_ids"], list(map(bool, found["assistant_masks"]))) for found in marked]


def test_every_shape_gives_the_same_ids(tmp_path):
    rows = random_chats(10)
    expected = [chats.compose(row) for row in rows]
    sharegpt = {"user": "human", "assistant": "gpt", "system": "system"}
    shapes = {
        "messages": [{"messages": row} for row in rows],
        "parts": [
            {"messages": [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in row]} for row in rows
        ],
        "split": [
            {
                "messages": [
                    {**turn, "content": [{"type": "text", "text": word + " "} for word in turn["content"].split()]}
                    for turn in row
                ]
            }
            for row in rows
        ],
        "sharegpt": [
            {"conversations": [{"from": sharegpt[turn["role"]], "value": turn["content"]} for turn in row]} for row in rows
        ],
    }
    for name, shape in shapes.items():
        assert read(chats.write(tmp_path / f"{name}.jsonl", shape)) == expected, name


def test_only_the_completion_of_messages_is_scored(tmp_path):
    rows = [row for row in random_chats(20) if len(row) > 3]
    assert rows
    pairs = [{"prompt": row[:-1], "completion": row[-1:]} for row in rows]
    found = read(chats.write(tmp_path / "pairs.jsonl", pairs))
    for (tokens, scored), row in zip(found, rows, strict=True):
        assert tokens == chats.compose(row)[0]
        last = len(row[-1]["content"].split()) + 1
        assert scored == [False] * (len(tokens) - last) + [True] * last


def test_the_completion_of_strings_follows_their_prompt(tmp_path):
    rng = random.Random(3)
    pairs = [(text(rng, 4) + " ", text(rng, 3)) for _ in range(6)]
    path = chats.write(tmp_path / "pairs.jsonl", [{"prompt": a, "completion": b} for a, b in pairs])
    ids = [[[small.WORDS.index(word) for word in part.split()] for part in pair] for pair in pairs]
    expected = [([*a, *b], [False] * len(a) + [True] * len(b)) for a, b in ids]
    rows = read_conversations(Source.parse(path), small.tokenizer("bos"))
    assert [(row.tokens, row.scored) for row in rows] == expected


def test_each_answer_is_a_window_after_its_conversation(tmp_path):
    rows = [
        chats.chat("w1", "w2 w3 w4", "w5 w6", "w7 w8 w9 w10", system="w0"),
        chats.chat("w1", "w2"),
        chats.chat("w3", "w4 w5"),
    ]
    path = chats.write(tmp_path / "chats.jsonl", [{"messages": row} for row in rows])
    options = {"continuation": 3, "tokenizer": chats.tokenizer(), "opening": (small.BOS,)}
    table, left_out = load_answers(Source.parse(path), **options)
    expected = []
    for number, row in enumerate(rows):
        tokens, scored = (part[1:] for part in chats.compose(row))
        starts = [place for place in range(1, len(scored)) if scored[place] and not scored[place - 1]]
        expected += [(tokens[: start + 3], start, f"row {number}") for start in starts if all(scored[start : start + 3])]
    expected = [one for one in expected if len(one[0]) == one[1] + 3]
    names = ("tokens", "prompt_tokens", "document")
    assert list(zip(*(table.column(name).to_pylist() for name in names), strict=True)) == expected
    # The second conversation's answer is one word and the end of the turn.
    assert left_out == {"answers shorter than 3 tokens": 1}
    assert table.column("sequence_id").to_pylist() == [0, 1, 3]
    longer, beyond = load_answers(Source.parse(path), **options, positions=10)
    assert longer.column("sequence_id").to_pylist() == [0, 3]
    assert beyond["answers beyond the model's 10 positions with the conversation before it"] == 1
    cut, _ = load_answers(Source.parse(path), **options, positions=10, whole_only=False)
    assert cut.column("sequence_id").to_pylist() == [0, 1, 2, 3]
    assert max(map(len, cut.column("tokens").to_pylist())) == 10


UNREADABLE = {
    "an empty answer": chats.chat("w1", " "),
    "no assistant turn": chats.chat("w1"),
    "tools or tool calls, which memtax does not render": [{"role": "tool", "content": "w1"}, *chats.chat("w1", "w2")],
}


def test_rows_without_an_answer_are_left_out_and_counted(tmp_path, capsys):
    good = chats.chat("w1", "w2 w3")
    rows = [{"messages": row} for row in (*UNREADABLE.values(), good, UNREADABLE["an empty answer"])]
    path = chats.write(tmp_path / "chats.jsonl", rows)
    assert read(path) == [chats.compose(good)]
    said = capsys.readouterr().err
    assert "2 rows are left out: with an empty answer" in said
    assert said.count("1 row is left out: with") == 2
    _, left_out = load_answers(Source.parse(path), continuation=2, tokenizer=chats.tokenizer())
    assert left_out == {f"rows with {reason}": 2 if "empty" in reason else 1 for reason in UNREADABLE}
    # Documents are named by the row of the source.
    assert [row.document for row in read_conversations(Source.parse(path), chats.tokenizer()) if row.tokens] == ["row 3"]
    with pytest.raises(MemtaxError, match="no row with an answer that can be scored: 1 with no assistant turn"):
        read(chats.write(tmp_path / "none.jsonl", [{"messages": chats.chat("w1")}]))


CALL = [{"type": "function", "function": {"name": "f", "arguments": "{}"}}]


@pytest.mark.parametrize("tools", [None, "", "[]", "null", [], CALL, "[{}]"])
def test_rows_with_tools_are_counted_and_those_with_none_are_read(tools, tmp_path, capsys):
    good = chats.chat("w1", "w2 w3")
    called = [good[0], {"role": "assistant", "content": "", "tool_calls": CALL}, {"role": "tool", "content": "w1"}, good[1]]
    # Turns of different keys, which `datasets` keeps as JSON.
    rows = [{"messages": good}, {"messages": called}, {"messages": good, "tools": tools}]
    path = chats.write(tmp_path / "chats.jsonl", rows)
    few = 2 if tools in (CALL, "[{}]") else 1
    assert read(path) == [chats.compose(good)] * (3 - few)
    assert f"{few} row{'s are' if few > 1 else ' is'} left out: with tools or tool calls" in capsys.readouterr().err


def test_fields_that_the_template_writes_are_read(tmp_path):
    template = chats.PLAIN.replace("m['content'] +", "(m.reasoning_content or '') + ' ' + m['content'] +")
    turns = chats.chat("w1", "w2 w3", "w1", "w4")
    path = chats.write(tmp_path / "chats.jsonl", [{"messages": [*turns[:3], {**turns[3], "reasoning_content": "w5 w6"}]}])
    whole = [*turns[:3], {**turns[3], "content": "w5 w6 w4"}]
    assert read(path, template) == [chats.compose(whole)]


def test_a_row_with_an_image_is_left_out(tmp_path):
    image = [{"role": "user", "content": [{"type": "image", "text": None}]}, {"role": "assistant", "content": []}]
    rows = [{"messages": image}, {"messages": [{"role": "user", "content": [{"type": "text", "text": "w1"}]}]}]
    with pytest.raises(MemtaxError, match="1 with content other than text, 1 with no assistant turn"):
        read(chats.write(tmp_path / "chats.jsonl", rows))


def test_templates_that_cannot_tell_and_tokenizers_without_one_are_refused(tmp_path):
    path = chats.write(tmp_path / "chats.jsonl", [{"messages": chats.chat("w1", "w2", "w3", "w4")}])
    with pytest.raises(MemtaxError, match=r"no chat template.*--tokenizer.*--column"):
        read(path, None)
    # Only the last answer is rendered as it was.
    changing = chats.PLAIN.replace("m['content']", "(m['content'] if loop.last or m['role'] == 'user' else 'w0')")
    with pytest.raises(MemtaxError, match=r"turn 2 of row 0 of .*cannot be told.*\{% generation %\}"):
        read(path, changing)
    unmarked = chats.PLAIN + "{% if false %}{% generation %}{% endgeneration %}{% endif %}"
    with pytest.raises(MemtaxError, match=r"marks no token of row 0 of .*\{% generation %\}"):
        read(path, unmarked)
    strict = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + chats.PLAIN
    other = chats.write(tmp_path / "system.jsonl", [{"messages": chats.chat("w1", "w2", system="w3")}])
    with pytest.raises(MemtaxError, match=r"refuses row 0 of .*no system.*move the text of its system turn"):
        read(other, strict)


def test_bos_is_added_once_and_only_where_the_template_writes_it():
    without = chats.PLAIN.removeprefix(chats.START)
    for kind in ("bos", "none"):
        assert template_opening(chats.tokenizer(kind=kind)) == (small.BOS,)
        assert template_opening(chats.tokenizer(without, kind)) == ()
    # The tokenizer's own rule, for texts, is another.
    assert tokenizer_bos(chats.tokenizer(without, "bos")) == (small.BOS,)


def test_usual_columns_of_text_are_read_rather_than_a_conversation(tmp_path):
    row = {"messages": chats.chat("w1", "w2 w3")}
    path = chats.write(tmp_path / "both.jsonl", [{**row, "text": "w4 w5"}])
    assert not holds_conversations(Source.parse(path))
    assert holds_conversations(Source.parse(path, column="messages"))
    tokens = datasets.Dataset.from_list([{**row, "tokens": [1, 2]}])
    assert not holds_conversations(tokens)
    assert row_shape(row) == find_shape(datasets.Dataset.from_list([row]).features.arrow_schema)
    assert row_shape({"prompt": "a", "completion": "b"}).columns == ("prompt", "completion")
    assert row_shape({**row, "text": "w4"}) is None


def test_members_are_conversations_with_masks(tmp_path):
    rows = random_chats(8)
    members, others = rows[:5], rows[5:]
    paths = [
        chats.write(tmp_path / f"{name}.jsonl", [{"messages": row} for row in part])
        for name, part in (("members", [*members, chats.chat("w1")]), ("others", others))
    ]
    table = load_membership(members=paths[0], nonmembers=paths[1], tokenizer=chats.tokenizer)
    expected = [chats.compose(row) for row in rows]
    assert [
        tuple(pair) for pair in zip(*(table.column(n).to_pylist() for n in ("tokens", "scored_tokens")), strict=True)
    ] == expected
    assert table.column("is_member").to_pylist() == [True] * 5 + [False] * 3
    assert table.column("text").to_pylist() == [small.words(tokens) for tokens, _ in expected]
    with pytest.raises(MemtaxError, match="leave --chunk-words out"):
        load_membership(members=paths[0], nonmembers=paths[1], tokenizer=chats.tokenizer, chunk_words=2)
    plain = chats.write(tmp_path / "plain.jsonl", [{"text": "w1 w2"}])
    with pytest.raises(MemtaxError, match="cannot be compared with texts"):
        load_membership(members=paths[0], nonmembers=plain, tokenizer=chats.tokenizer)


def test_answers_are_paraphrased_as_texts(tmp_path):
    rows = random_chats(6)
    path = chats.write(tmp_path / "chats.jsonl", [{"messages": row} for row in (*rows, chats.chat("w1", ""))])
    answers = [
        {"text": turn["content"], "document": f"row {number}"}
        for number, row in enumerate(rows)
        for turn in row
        if turn["role"] == "assistant"
    ]
    by_hand = chats.write(tmp_path / "texts.jsonl", answers)
    assert load_texts(path, answers=True).equals(load_texts(by_hand))
    with pytest.raises(MemtaxError, match="holds conversations, which are not read here"):
        load_texts(path)


def test_a_corpus_of_conversations_has_all_their_tokens(tmp_path):
    rows = random_chats(6)
    table = datasets.Dataset.from_list([{"messages": row} for row in rows])
    table.to_parquet(str(tmp_path / "chats.parquet"))
    jsonl = chats.write(tmp_path / "chats.jsonl", [{"messages": row} for row in rows])
    for path in (str(tmp_path / "chats.parquet"), jsonl):
        corpus = open_sources([path], Reading(tokenizer=chats.tokenizer()))
        blocks = [block for shard in corpus.shards(10**6) for block in shard.blocks()]
        found = [
            block.tokens[start:end].tolist()
            for block in blocks
            for start, end in zip(block.offsets, block.offsets[1:], strict=False)
        ]
        assert found == [chats.compose(row)[0] for row in rows]


def test_documents_of_answers_know_where_the_answer_begins(tmp_path):
    rows = random_chats(6)
    path = chats.write(tmp_path / "chats.jsonl", [{"messages": row} for row in rows])
    options = {"window": 1, "tokenizer": chats.tokenizer(), "bos": (small.BOS,), "continuation": 2}
    windows = load_sequences(Source.parse(path), **options).dataset
    found = list(documents(Source.parse(path), **options))
    assert [window for document in found for window in document.windows] == windows["text"][:]
    prompts = [small.words(row[:size]) for row, size in zip(windows["tokens"], windows["prompt_tokens"], strict=True)]
    assert [size for document in found for size in document.prompts] == [len(prompt) for prompt in prompts]
    assert [document.text for document in found] == [small.words(chats.compose(row)[0][1:]) for row in rows]


@pytest.mark.parametrize("shape", ["messages", "pairs", "strings"])
def test_tokens_and_masks_are_those_that_trl_trains_on(shape, tmp_path):
    trl = pytest.importorskip("trl")
    rows = random_chats(12, seed=7)
    given = [{"messages": row} for row in rows]
    if shape == "pairs":
        given = [{"prompt": row[:-1], "completion": row[-1:]} for row in rows]
    elif shape == "strings":
        given = [{"prompt": row[-2]["content"] + " ", "completion": row[-1]["content"]} for row in rows]
    options = {"max_length": None, "assistant_only_loss": shape == "messages"}
    reader = chats.tokenizer(chats.MARKED, "none")
    arguments = trl.SFTConfig(str(tmp_path / "out"), use_cpu=True, bf16=False, report_to="none", **options)
    data = datasets.Dataset.from_list(given)
    trainer = trl.SFTTrainer(small.model(64), args=arguments, train_dataset=data, processing_class=reader)
    expected = [(row["input_ids"], [label != -100 for label in row["labels"]]) for row in trainer.train_dataset]
    path = chats.write(tmp_path / "rows.jsonl", given)
    found = [(row.tokens, row.scored) for row in read_conversations(Source.parse(path), reader)]
    if shape == "strings":
        # TRL ends the completion of strings with end-of-sequence, which is not text of the row.
        found = [([*tokens, small.EOS], [*scored, True]) for tokens, scored in found]
    assert found == expected
