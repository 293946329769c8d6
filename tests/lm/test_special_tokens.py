"""BOS stands before every row that a model reads, once, without a score; the oracle is `transformers` alone."""

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import Metaspace
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from helpers import special_tokens as small
from memtax.attribution.influence_functions import last_states
from memtax.errors import MemtaxError, ModelError
from memtax.filters.language_model import LanguageModelFilter
from memtax.lm.generation import generate, greedy_continuations, match_lengths
from memtax.lm.gradients import capture
from memtax.lm.loading import load_model
from memtax.lm.scores import score
from memtax.lm.special_tokens import bos_before, bos_ids, bos_of, set_bos, text_ids, text_positions, tokenizer_bos, without_bos
from memtax.predictor.probes import hidden_states

ROWS = [*small.rows(3, 12), *small.rows(2, 5, seed=1), [7], []]


@pytest.fixture(scope="module")
def opened():
    """A model that reads BOS first, and the same weights with nothing before the rows."""
    model = small.model()
    set_bos(model, (small.BOS,))
    return model


@torch.no_grad()
def oracle(model, row):
    """Log-probabilities and matches of tokens 1.. of a row after BOS."""
    logits = model(torch.tensor([[small.BOS, *row]], device=model.device)).logits[0, 1:-1].double().cpu()
    targets = torch.tensor(row[1:], dtype=torch.long)
    return logits.log_softmax(-1)[torch.arange(len(targets)), targets].numpy(), (logits.argmax(-1) == targets).numpy()


@pytest.mark.parametrize("kind", small.KINDS)
def test_auto_is_what_the_tokenizer_puts_before_a_text_and_text_has_no_special_tokens(kind, tmp_path):
    tokenizer = small.tokenizer(kind)
    assert tokenizer_bos(tokenizer) == small.ADDED[kind]
    assert tokenizer_bos(tokenizer, "always") == (small.BOS,)
    assert tokenizer_bos(tokenizer, "never") == ()
    assert text_ids(tokenizer, ["a b", None, ""]) == [[3, 4], [], []]
    folder = small.save(kind, tmp_path / "model")
    assert bos_ids(folder) == small.ADDED[kind]
    assert bos_of(load_model(folder)) == small.ADDED[kind]
    assert bos_of(load_model(folder, bos="never")) == ()


@pytest.mark.parametrize(
    ("form", "names", "expected"),
    [
        ("<s> $A", ("<s>", "</s>"), (1,)),
        ("$A </s>", ("</s>", "</s>"), ()),
        ("</s> $A", ("</s>", "</s>"), (2,)),
        ("</s> <s> $A </s>", ("<s>", "</s>"), (2, 1)),
    ],
)
def test_auto_is_read_off_pieces_with_a_leading_space_too(form, names, expected):
    assert tokenizer_bos(pieces(form, names, ["▁", "a", "b"])) == expected


@pytest.mark.parametrize(("form", "expected"), [("<s> $A </s>", (1,)), ("$A </s>", ()), ("$A", ())])
def test_auto_of_a_tokenizer_without_a_token_for_letters(form, expected):
    assert tokenizer_bos(pieces(form, ("<s>", "</s>"), ["x"])) == expected
    if expected == ():
        assert tokenizer_bos(pieces(form, ("</s>", "</s>"), ["x"])) == ()


def pieces(form, names, words):
    """A tokenizer of pieces without a token for what it does not know."""
    made = Tokenizer(BPE({word: number for number, word in enumerate(["<unk>", "<s>", "</s>", *words])}, []))
    made.pre_tokenizer = Metaspace(prepend_scheme="first")
    made.post_processor = TemplateProcessing(single=form, special_tokens=[("<s>", 1), ("</s>", 2)])
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token=names[0], eos_token=names[1])


def test_another_tokenizer_decides_where_it_made_the_tokens(tmp_path):
    plain = small.save("none", tmp_path / "plain")
    small.tokenizer("both").save_pretrained(tmp_path / "both")
    assert bos_ids(plain, tokenizer=tmp_path / "both") == (small.BOS,)


def test_a_model_without_a_tokenizer_reads_rows_as_they_are(tmp_path):
    small.model().save_pretrained(tmp_path)
    assert bos_ids(tmp_path) == ()
    with pytest.raises(ModelError, match="no tokenizer"):
        bos_ids(tmp_path, bos="always")


def test_an_adapter_without_a_tokenizer_has_that_of_its_base(tmp_path):
    from peft import LoraConfig, get_peft_model

    base = small.save("bos", tmp_path / "base")
    model = load_model(base)
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    assert bos_of(adapted) == (small.BOS,)
    adapted.save_pretrained(tmp_path / "adapter")
    assert bos_ids(tmp_path / "adapter") == (small.BOS,)
    assert bos_of(load_model(tmp_path / "adapter")) == (small.BOS,)


def test_always_needs_a_token_and_other_words_are_refused():
    backend = small.tokenizer("none").backend_tokenizer
    nameless = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    assert tokenizer_bos(nameless) == ()
    with pytest.raises(ModelError, match="beginning-of-sequence"):
        tokenizer_bos(nameless, "always")
    with pytest.raises(MemtaxError, match="'yes'; choose one of auto, always, never"):
        tokenizer_bos(nameless, "yes")
    with pytest.raises(MemtaxError, match="'yes'"):
        LanguageModelFilter("model", bos="yes")


@pytest.mark.parametrize("side", ["right", "left"])
def test_scores_are_those_after_bos_with_the_same_entries(opened, side):
    scores = score(opened, ROWS, padding_side=side)
    assert scores.lengths.tolist() == [max(len(row) - 1, 0) for row in ROWS]
    for number, row in enumerate(ROWS):
        logprobs, match = oracle(opened, row)
        assert scores.row(number)[0] == pytest.approx(logprobs, abs=1e-5)
        assert (scores.row(number)[1] == match).all()


def test_scores_from_a_later_token_on_are_the_same_entries(opened):
    whole, late = score(opened, ROWS), score(opened, ROWS, start=4)
    for number in range(len(ROWS)):
        assert late.row(number)[0] == pytest.approx(whole.row(number)[0][3:], abs=1e-5)


def test_rows_that_begin_with_bos_get_no_second_one(opened):
    mixed = [row if number % 2 else [small.BOS, *row] for number, row in enumerate(ROWS)]
    scores = score(opened, mixed)
    for number, row in enumerate(mixed):
        # A row as it is given has an entry for each of its own tokens after the first.
        own = scores.row(number)[0][len(row) - len(ROWS[number]) :]
        if len(ROWS[number]) > 1:
            assert own == pytest.approx(oracle(opened, ROWS[number])[0], abs=1e-5)


def test_the_filter_leaves_bos_out_of_the_prompt(tmp_path):
    folder = small.save("bos", tmp_path)
    filters = LanguageModelFilter(folder, prompt=6, continuation=4, generated=True, token_logprobs=True)
    rows = small.rows(4, 10)
    plain, opened = filters({"tokens": rows}), filters({"tokens": [[small.BOS, *row] for row in rows]})
    assert plain == opened
    model = load_model(folder)
    for number, row in enumerate(rows):
        logprobs, _ = oracle(model, row)
        assert plain["prompt_perplexity"][number] == pytest.approx(float(2.718281828459045 ** -logprobs[:5].mean()), rel=1e-4)
    never = LanguageModelFilter(folder, prompt=6, continuation=4, bos="never")
    assert never({"tokens": rows})["prompt_perplexity"] != plain["prompt_perplexity"]
    assert never.fingerprint != LanguageModelFilter(folder, prompt=6, continuation=4).fingerprint


def test_the_identity_of_a_stage_follows_what_the_tokenizer_adds(tmp_path):
    folder = small.save("bos", tmp_path)
    before = LanguageModelFilter(folder).fingerprint
    # Its configuration stays the same: only tokenizer.json says what is added.
    small.tokenizer("none").backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert LanguageModelFilter(folder).fingerprint != before


def test_decoding_goes_on_after_bos_as_generate_does(opened):
    prefixes = [row[:4] for row in ROWS if len(row) > 4] + [ROWS[0][:7]]
    found = generate(opened, prefixes, [6] * len(prefixes))
    for prefix, tokens in zip(prefixes, found, strict=True):
        ids = torch.tensor([[small.BOS, *prefix]])
        # Suppressing nothing and never stopping: the oracle takes the best token six times.
        for _ in range(6):
            ids = torch.cat([ids, opened(ids).logits[:, -1:].argmax(-1)], 1)
        assert tokens == ids[0, 1 + len(prefix) :].tolist()


def test_memorized_means_that_decoding_after_bos_gives_the_continuation(opened):
    prefix = ROWS[0][:6]
    with_opening = [*prefix, *generate(opened, [prefix], [8])[0]]
    with bos_before(opened, ()):
        without = [*prefix, *generate(opened, [prefix], [8])[0]]
    assert with_opening != without
    rows = [with_opening, without]
    lengths = match_lengths(opened, rows, 6, 8)
    assert lengths[0] == 8
    assert lengths[1] < 8
    assert greedy_continuations(opened, rows, score(opened, rows), 6, 8)[0] == with_opening[6:]


def test_gradients_are_those_of_the_loss_after_bos(opened):
    rows = [ROWS[0], ROWS[3], [7], []]
    scored = [[place % 3 != 1 for place in range(len(row))] for row in rows]
    for given in (None, scored):
        gradients = capture(opened, rows, parameters="all-linear", scored=given)
        flat = []
        for number, row in enumerate(rows):
            opened.zero_grad()
            opened.requires_grad_(True)
            labels = torch.tensor([[-100, -100, *row[1:]]]) if row else torch.tensor([[-100]])
            if given is not None and row:
                labels[0, 1:][~torch.tensor(given[number])] = -100
            if (labels != -100).any():
                opened(torch.tensor([[small.BOS, *row]]), labels=labels).loss.backward()
            named = dict(opened.named_parameters())
            zero = [torch.zeros_like(named[name]) for name in gradients.sizes]
            grads = [named[name].grad if named[name].grad is not None else zero[k] for k, name in enumerate(gradients.sizes)]
            flat.append(torch.cat([grad.flatten() for grad in grads]).double())
        expected = torch.stack(flat) @ torch.stack(flat).T
        found = sum(torch.from_numpy(value) for value in gradients.gram().values())
        assert torch.allclose(found, expected, rtol=1e-3, atol=1e-5)
    opened.requires_grad_(False)
    opened.zero_grad()


def test_states_of_a_text_are_those_after_bos(opened):
    rows = small.rows(3, 6)
    layers = opened.model(torch.tensor([[small.BOS, *row] for row in rows]), output_hidden_states=True).hidden_states
    assert last_states(opened, rows) == pytest.approx(layers[-1][:, -1].detach().double().numpy(), abs=1e-5)
    pooled = hidden_states(opened, rows)
    for number, layer in enumerate(layers):
        assert pooled[number] == pytest.approx(layer[:, 1:].mean(1).detach().numpy(), abs=1e-5)
    # BOS is not a token of the text.
    assert (last_states(opened, [[], rows[0]]) != last_states(opened, [[], rows[0]]))[0].all()


def test_attention_statistics_are_means_over_the_texts_tokens(opened):
    rows = [*small.rows(1, 9), *small.rows(1, 5)]
    found = score(opened, rows, attention=True).attention
    opened.set_attn_implementation("eager")
    for number, row in enumerate(rows):
        layers = opened(torch.tensor([[small.BOS, *row]]), output_attentions=True).attentions
        entropy = torch.cat([torch.special.entr(layer).sum(-1)[0, :, 1:].mean(-1) for layer in layers])
        assert found["entropy"][number] == pytest.approx(entropy.detach().numpy(), abs=1e-5)
    opened.set_attn_implementation("sdpa")


def test_positions_hold_bos_and_text(tmp_path):
    folder = small.save("bos", tmp_path, positions=16)
    model = load_model(folder)
    assert text_positions(model) == 15
    score(model, small.rows(1, 15))
    with pytest.raises(MemtaxError, match=r"17 tokens \(BOS included\) but the model has 16 positions"):
        score(model, small.rows(1, 16))


def test_without_bos_is_the_text_of_a_row():
    assert without_bos([0, 5, 6], (0,)) == [5, 6]
    assert without_bos([5, 0], (0,)) == [5, 0]
    assert without_bos([0, 0, 5], (0,)) == [0, 5]
    assert without_bos([0], (0, 1)) == [0]
    assert without_bos([0, 5], ()) == [0, 5]
