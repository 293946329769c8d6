"""Gradient alignment against autograd on plain `transformers`, and `memtax align` on files."""

import json
import math
from dataclasses import replace

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, GPTNeoXConfig, LlamaConfig, PreTrainedTokenizerFast

from helpers.processes import python, torchrun
from memtax import schema
from memtax.attribution.alignment import Alignment, AlignmentFilter, align
from memtax.attribution.alignment_pairs import load_pairs
from memtax.corpus.sources import Source
from memtax.errors import MemtaxError, ModelError
from memtax.jobs.align import Align
from memtax.results import read_summary

SIZE = 60
COMMON = {
    "vocab_size": SIZE,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
    "initializer_range": 0.3,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}


def build(tied=False):
    torch.manual_seed(0)
    config = LlamaConfig(**COMMON, tie_word_embeddings=True) if tied else GPTNeoXConfig(**COMMON)
    return AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)


def tokens(length, seed):
    return torch.randint(SIZE, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def gradient(model, sequence):
    """Gradients of the mean loss with respect to the input embedding and the head (one tensor if tied)."""
    tensors = {id(t): t for t in (model.get_input_embeddings().weight, model.get_output_embeddings().weight)}
    for tensor in tensors.values():
        tensor.requires_grad_(True)
    # transformers shifts the labels itself, and computes the loss in float32 whatever the model's type.
    loss = model(input_ids=torch.tensor([sequence]), labels=torch.tensor([sequence])).loss
    found = torch.autograd.grad(loss, list(tensors.values()))
    for tensor in tensors.values():
        tensor.requires_grad_(False)
    return [part.flatten().double() for part in found]


@pytest.mark.parametrize("tied", [False, True])
def test_alignment_equals_autograd(tied):
    model = build(tied).double()
    text, paraphrases = tokens(20, 0), [tokens(18, 1), None, tokens(23, 2), [4], []]
    found = align(model, [(text, paraphrases), (paraphrases[0], [text])])[0]
    ours = gradient(model, text)
    assert len(ours) == 1 if tied else 2
    for place, paraphrase in enumerate(paraphrases):
        if paraphrase is None or len(paraphrase) < 2:
            assert found.cosines[place] is None
            assert found.inner_products[place] is None
            continue
        theirs = gradient(model, paraphrase)
        cosines = [torch.cosine_similarity(a, b, dim=0).item() for a, b in zip(ours, theirs, strict=True)]
        assert found.cosines[place] == pytest.approx(np.mean(cosines), abs=1e-6)
        products = sum((a @ b).item() for a, b in zip(ours, theirs, strict=True))
        assert found.inner_products[place] == pytest.approx(products, rel=1e-5)
    assert found.used == 2
    assert found.cosine == pytest.approx((found.cosines[0] + found.cosines[2]) / 2)
    assert found.inner_product == pytest.approx((found.inner_products[0] + found.inner_products[2]) / 2)
    assert found.norm == pytest.approx(math.sqrt(sum((a @ a).item() for a in ours)), rel=1e-6)


@given(lengths=st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=4), min_size=1, max_size=5), seed=st.integers(0, 999))
@settings(max_examples=15, deadline=None)
def test_a_text_does_not_see_what_else_is_in_the_batch(lengths, seed):
    model = build()
    groups = [
        (tokens(group[0], seed + row), [tokens(length, seed + 7 * row + place) for place, length in enumerate(group[1:])])
        for row, group in enumerate(lengths)
    ]
    together = align(model, groups)
    for group, one in zip(groups, together, strict=True):
        alone = align(model, [group])[0]
        assert (one.norm is None) == (alone.norm is None) == (len(group[0]) < 2)
        for ours, theirs in zip(one.cosines, alone.cosines, strict=True):
            assert (ours is None) == (theirs is None)
            assert ours is None or (ours == pytest.approx(theirs, abs=1e-5) and -1 <= ours <= 1)


def test_the_same_text_aligns_fully_and_nothing_aligns_with_no_paraphrase():
    model = build()
    same, none = align(model, [(tokens(12, 0), [tokens(12, 0)]), (tokens(12, 0), [])])
    assert same.cosine == pytest.approx(1, abs=1e-6)
    assert same.inner_product == pytest.approx(same.norm**2, rel=1e-5)
    assert (none.cosine, none.inner_product, none.used) == (None, None, 0)
    assert none.norm == pytest.approx(same.norm, rel=1e-5)
    assert align(model, []) == []


def test_nan_names_the_row():
    model = build()
    with torch.no_grad():
        model.get_input_embeddings().weight[7] = math.nan
    with pytest.raises(ModelError, match="row 1 are not numbers"):
        align(model, [([1, 2, 3], [[3, 4]]), ([1, 7, 3], [[3, 4]])])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    build().save_pretrained(path)
    words = Tokenizer(models.WordLevel({"[UNK]": 0} | {f"w{i}": i for i in range(1, SIZE)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]").save_pretrained(path)
    return str(path)


def words(sequence):
    return " ".join(f"w{max(token, 1)}" for token in sequence)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    rows = []
    for row in range(70):
        text = words(tokens(10 + row % 5, row))
        paraphrases = [words(tokens(10, 100 + row)), None, words(tokens(12, 200 + row))]
        rows.append({"sequence_id": 500 + row, "text": text, "paraphrases": paraphrases, "is_member": row % 2 == 0})
    rows[3]["paraphrases"] = [None, None, None]
    rows[4]["paraphrases"] = [rows[4]["text"], words(tokens(9, 1)), ""]
    rows[5]["text"] = "w1"
    rows[6]["text"] = words(tokens(90, 6))  # the model has 40 positions
    rows[7]["paraphrases"] = []
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_table_of_pairs(folder, pairs, tmp_path):
    job = Align(pairs=str(pairs), model=folder, output=tmp_path / "out")
    done = job.run()
    table, summary = done.table("alignment"), done.figures
    rows = table.to_pylist()
    assert [row["sequence_id"] for row in rows] == list(range(500, 570))
    assert rows[0]["is_member"] is True  # the source's columns stay
    for name in AlignmentFilter.columns:
        assert table.schema.field(name).type == schema.arrow_schema([name]).field(name).type
    for row in rows:
        known = [value for value in row["paraphrase_alignments"] if value is not None]
        assert row["paraphrases_used"] == len(known)
        assert (row["gradient_alignment"] is None) == (not known)
        if known:
            assert row["gradient_alignment"] == pytest.approx(np.mean(known), abs=1e-6)
    assert rows[0]["paraphrase_alignments"][1] is None
    assert rows[3]["gradient_alignment"] is None
    assert rows[3]["gradient_norm"] > 0
    # Identical to the text, valid, empty.
    assert [value is None for value in rows[4]["paraphrase_alignments"]] == [True, False, True]
    assert rows[5]["gradient_norm"] is None
    assert [row["is_cut"] for row in rows] == [row == 6 for row in range(70)]
    # 70 texts: one with all paraphrases missing, one without any, one of one token.
    assert summary["aligned"] == 67
    assert sum(summary["levels"].values()) == 67
    assert summary["paraphrases"]["identical_to_the_text"] == 1
    # 67 usual rows have one missing each, row 3 has three; rows 4 and 7 none.
    assert summary["paraphrases"]["missing"] == 67 + 3
    told = [(row["is_member"], row["gradient_alignment"]) for row in rows if row["gradient_alignment"] is not None]
    wins = [(a > b) + (a == b) / 2 for member, a in told if member for other, b in told if not other]
    found = summary["membership"]
    assert found["auroc"]["value"] == pytest.approx(np.mean(wins))
    assert found["auroc"]["low"] <= found["auroc"]["value"] <= found["auroc"]["high"]
    assert found["members"] + found["non-members"] == 67
    assert read_summary(tmp_path / "out", "align") == summary
    assert job.run().figures == summary
    # The record has the dtype that was used.
    assert Align.load(tmp_path / "out" / "run.yaml") == replace(job, dtype="float32")


def test_one_row_a_paraphrase_and_other_column_names(folder, pairs, tmp_path):
    whole = load_pairs(Source.parse(str(pairs)))
    long = [
        {"sequence_id": row["sequence_id"], "content": row["text"], "paraphrase": one}
        for row in whole
        for one in row["paraphrases"]
    ]
    path = tmp_path / "long.parquet"
    datasets.Dataset.from_list(long).to_parquet(path)
    found = load_pairs(Source.parse(str(path)))
    kept = [row for row in whole if row["paraphrases"]]
    assert [row["paraphrases"] for row in found] == [row["paraphrases"] for row in kept]
    assert [row["text"] for row in found] == [row["text"] for row in kept]


def test_a_head_of_its_own_is_a_set_of_its_own(folder):
    batch = {"text": ["w1 w2 w3"], "paraphrases": [["w3 w2 w1"]]}
    head = AlignmentFilter(folder, parameters="head")(batch)
    both = AlignmentFilter(folder)(batch)
    assert head["gradient_norm"][0] < both["gradient_norm"][0]
    assert AlignmentFilter(folder, parameters="head").fingerprint != AlignmentFilter(folder).fingerprint


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": "w1"}], "has no column 'paraphrases'"),
        ([{"paraphrases": ["w1"]}], "no column of tokens or text"),
        ([{"text": "a", "paraphrases": [1, 2]}], r"column 'paraphrases' of .* must contain list"),
        ([{"sequence_id": 1, "text": "a", "paraphrases": ["b"]}] * 2, "sequence_id occurs twice"),
    ],
)
def test_bad_tables_are_named(rows, message, tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(MemtaxError, match=message):
        load_pairs(Source.parse(str(path)))


def test_bad_settings_are_named(folder):
    with pytest.raises(MemtaxError, match="length=1"):
        AlignmentFilter(folder, length=1)
    with pytest.raises(MemtaxError, match="unknown dtype 'int3'"):
        AlignmentFilter(folder, dtype="int3")
    with pytest.raises(ModelError, match="unknown parameter set 'everything'"):
        AlignmentFilter(folder, parameters="everything")({"text": ["w1 w2"], "paraphrases": [["w2 w1"]]})


def test_means_leave_out_what_is_missing():
    one = Alignment((0.5, None, 0.1), (2.0, None, 4.0), 1.0)
    assert (one.cosine, one.inner_product, one.used) == (pytest.approx(0.3), 3.0, 2)
    assert Alignment((None,), (None,), None).cosine is None


def test_two_processes_write_what_one_writes(folder, pairs, tmp_path):
    command = ["memtax", "align", str(pairs), "--model", folder, "--output"]
    one = python("-m", *command, tmp_path / "one")
    assert one.returncode == 0, one.stderr[-2000:]
    assert "67 of 70 texts aligned" in one.stdout
    two = torchrun("-m", *command, tmp_path / "two")
    assert two.returncode == 0, two.stderr[-2000:]
    # 70 rows in batches of 16, 4 batches per part: two parts, one per process.
    assert len(list((tmp_path / "two" / "parts").glob("part-*.parquet"))) == 2
    for name in ("dataset/alignment/train.parquet", "summary.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert two.stdout.count("texts aligned") == 1


def test_an_error_is_one_line(folder, tmp_path):
    done = python("-m", "memtax", "align", tmp_path / "none.jsonl", "--model", folder, "--output", tmp_path / "o")
    assert done.returncode == 2
    assert done.stderr.strip().count("\n") == 0
    assert "none.jsonl does not exist" in done.stderr
