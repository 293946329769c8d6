"""Rows that cannot be used are counted and shown by every verb that reads rows, and are errors with `--strict`."""

import json
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from memtax import cli
from memtax.progress import set_quiet, set_strict

WORDS = ["<end>", *(f"w{number}" for number in range(31))]


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A model, and for each verb an input with exactly one row that it cannot use."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("strict")
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "eos_token_id": 0}
    GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=32, max_position_embeddings=64, **shape)).save_pretrained(folder / "model")
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<end>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>").save_pretrained(folder / "model")
    rng = np.random.default_rng(0)
    ids = [*rng.integers(1, 32, (19, 16)).tolist(), [5]]
    lines(folder / "tokens.jsonl", ({"sequence_id": i, "tokens": row} for i, row in enumerate(ids)))
    texts = [" ".join(rng.choice(WORDS[1:], 12)) for _ in range(23)]
    lines(folder / "texts.jsonl", ({"text": text, "label": i % 2} for i, text in enumerate([*texts, ""])))
    lines(folder / "null.jsonl", ({"text": text} for text in [*texts[:7], None]))
    pairs = [{"text": text, "paraphrases": [texts[-1]]} for text in texts[:6]]
    lines(folder / "pairs.jsonl", [*pairs, {"text": "w1 w2", "paraphrases": [None]}])
    rows = 400
    a, b = rng.normal(size=(2, rows))
    table = {
        "sequence_id": np.arange(rows),
        "a": pa.array([None, *a[1:]], pa.float64()),
        "b": b,
        "taxonomy": pa.array(rng.integers(0, 3, rows), pa.int64()),
        "is_memorized": rng.random(rows) < 1 / (1 + np.exp(1 - a + b)),
    }
    pq.write_table(pa.table(table), folder / "table.parquet")
    return folder


def words(verb, given):
    model, few = ("--model", given / "model"), given / "null.jsonl"
    tokens, table = given / "tokens.jsonl", given / "table.parquet"
    return {
        "count": ("count", tokens, "--window", "4:8", "--threads", 1),
        "score": ("score", tokens, *model, "--prompt", 4, "--continuation", 4),
        "score --stride": ("score", tokens, *model, "--prompt", 4, "--continuation", 4, "--stride", 2),
        "filter": ("filter", "templates", few),
        "fit": ("fit", table, "--factors", "a,b", "--resamples", 5, "--no-explain"),
        "search": ("search", table, "--factors", "a,b", "--split-on", "a,b", "--resamples", 5),
        "predict": ("predict", given / "predictor", table),
        "paraphrase": ("paraphrase", few, *model, "--count", 1),
        "counterfactual": ("counterfactual", few, *model, "--models", 4, "--epochs", 1, "--full"),
        "align": ("align", given / "pairs.jsonl", *model),
        "mia": ("mia", given / "texts.jsonl", *model, "--attack", "loss", "--resamples", 5),
        "influence": ("influence", tokens, given / "pairs.jsonl", *model, "--parameters", "head", "--method", "gradient_match"),
    }[verb]


VERBS = ("count", "score", "score --stride", "filter", "fit", "search", "predict", "paraphrase", "counterfactual", "align")
VERBS += ("mia", "influence")


@pytest.fixture(autouse=True)
def _afterwards():
    yield
    set_strict(False)
    set_quiet(False)


def command(monkeypatch, capsys, *given):
    """Exit status, and what was said on the standard error."""
    monkeypatch.setattr(sys, "argv", ["memtax", *map(str, given)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code or 0, capsys.readouterr().err


@pytest.mark.parametrize("verb", VERBS)
def test_one_row_is_counted_shown_and_refused(verb, given, tmp_path, monkeypatch, capsys):
    if verb == "predict" and not (given / "predictor").exists():
        assert command(monkeypatch, capsys, *words("fit", given), "--output", given / "predictor")[0] == 0
    code, said = command(monkeypatch, capsys, "--quiet", *words(verb, given), "--output", tmp_path / "out")
    assert code == 0, said
    assert said.count("1 row is left out: ") == 1, said
    code, said = command(monkeypatch, capsys, "--quiet", "--strict", *words(verb, given), "--output", tmp_path / "strict")
    assert code == 2
    complaint = [line for line in said.splitlines() if line.startswith("memtax: ")]
    assert len(complaint) == 1, said
    assert complaint[0].startswith("memtax: 1 row is left out (")
    assert complaint[0].endswith("), and --strict allows none; fix or drop them")
    # No result: shards of filters at most, which a run without --strict goes on with.
    left = {path.relative_to(tmp_path / "strict").parts[0] for path in (tmp_path / "strict").rglob("*") if path.is_file()}
    assert not left & {"dataset", "summary.json", "run.yaml"}, left
    # On a finished output too.
    code, said = command(monkeypatch, capsys, "--quiet", "--strict", *words(verb, given), "--output", tmp_path / "out")
    assert (code, "--strict allows none" in said) == (2, True)


def test_a_whole_run_is_strict_too(given, tmp_path, monkeypatch, capsys):
    config = (
        f"model: {given / 'model'}\ncorpus: {given / 'tokens.jsonl'}\noutput: {tmp_path / 'out'}\nprompt: 4\ncontinuation: 4\n"
    )
    (tmp_path / "config.yaml").write_text(config)
    code, said = command(monkeypatch, capsys, "--quiet", "--strict", "run", tmp_path / "config.yaml")
    assert (code, "--strict allows none" in said) == (2, True), said
