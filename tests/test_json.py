"""`--json` on every verb: one document on standard output, with the figures that the verb prints for people."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from helpers.report_run import make_run
from memtax.cli import app

WORDS = ["<end>", *(f"word{number}" for number in range(60))]
VERBS = {
    "count": "train.jsonl --tokenizer model --window 8:16 --output counts",
    "score": "train.jsonl --model model --prompt 8 --continuation 8 --output scores",
    "filter": "templates compressibility train.jsonl --output filtered",
    "fit": "factors.parquet --factors sequence_duplicates,avg_frequency --resamples 5 --no-explain --output fitted",
    "search": "factors.parquet --factors sequence_duplicates,avg_frequency --split-on sequence_duplicates,avg_frequency "
    "--resamples 5 --output searched",
    "predict": "fitted factors.parquet --output predicted",
    "paraphrase": "few.jsonl --model model --count 1 --column text --output paraphrased",
    "align": "pairs.jsonl --model model --output aligned",
    "mia": "--members train.jsonl --nonmembers unseen.jsonl --model model --attack loss,zlib --resamples 20 --output mia",
    "influence": "few.jsonl unseen.jsonl --model model --parameters head --class-column topic --output influenced",
    "counterfactual": "few.jsonl --model model --models 4 --epochs 1 --full --output counterfactual",
    "compare": "run run --output compared",
    "push": "run --repo-id org/name --part dataset --dry-run",
    "env": "",
}
"""In the order in which one needs what another made."""
ELSEWHERE = {"run", "audit", "report", "explore", "demo"}
"""The README's test reads the JSON of `run` and `audit`, those of the pages `report` and `explore`; `demo` is a `run`."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with texts, a table of factors, and a random model of one layer."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder, rng = tmp_path_factory.mktemp("verbs"), np.random.default_rng(0)
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token=WORDS[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=WORDS[0]).save_pretrained(folder / "model")
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = LlamaConfig(vocab_size=len(WORDS), max_position_embeddings=64, bos_token_id=None, eos_token_id=0, **sizes)
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    texts = [" ".join(rng.choice(WORDS[1:], 20)) for _ in range(60)]
    parts = {"train": texts[:40], "unseen": texts[40:], "few": texts[:8]}
    for name, part in parts.items():
        rows = [{"text": text, "topic": text.split()[0][-1]} for text in part]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = [{"text": text, "paraphrases": [" ".join(text.split()[::-1])]} for text in texts[:8]]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    duplicates = rng.integers(0, 12, 400)
    columns = {"sequence_duplicates": duplicates, "avg_frequency": rng.uniform(1, 1000, 400)}
    columns |= {"is_memorized": rng.uniform(size=400) < duplicates / 12, "taxonomy": np.where(duplicates > 5, 0, 2)}
    pq.write_table(pa.table(columns), folder / "factors.parquet")
    make_run(folder / "run", rows=60)
    (folder / "run/dataset/README.md").write_text("---\n---\n# A run\n")
    return folder


def numbers(value):
    """All numbers and counts of a document."""
    if isinstance(value, dict):
        return [number for one in value.values() for number in numbers(one)]
    if isinstance(value, list):
        return [len(value), *(number for one in value for number in numbers(one))]
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else []


def said(value):
    """How lines for people may say a number."""
    forms = (",", ",.0f", ",.1f", ",.3f", ".4f", ".1%", ".2%", ".0%", "g")
    return {f"{value:{form}}" for form in forms} | {f"{abs(100 * value):.1f}"}


def test_the_verbs_are_there():
    assert set(VERBS) | ELSEWHERE <= set(typer.main.get_command(app).commands)


@pytest.mark.parametrize("verb", VERBS)
def test_one_document_with_the_figures_for_people(verb, place, monkeypatch):
    monkeypatch.chdir(place)
    words = [verb, *VERBS[verb].split(), "--json"]
    # What the verb returned holds the lines for people as well.
    done = CliRunner().invoke(app, words, catch_exceptions=False, standalone_mode=False)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)  # which allows nothing before or after it
    assert isinstance(found, dict)
    if verb in ("env", "push"):  # the same keys in YAML; a card
        return
    assert Path(found["output"]).exists()
    lines = " ".join(word for line in done.return_value.lines for word in line.split() if "/" not in word)
    assert lines
    number = r"(?<![\w.])\d(?:[\d,.]*\d)?%?(?!\w)"
    known = {form for value in numbers(found) for form in said(value)}
    # A reason is a sentence in both; the lines also repeat what was asked for.
    known |= set(re.findall(number, json.dumps(found))) | set(re.findall(number, VERBS[verb]))
    assert set(re.findall(number, lines)) <= known, lines
