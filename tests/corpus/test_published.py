"""The published datasets through `load_dataset` and a loopback Hub, with the published files, splits and columns."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from helpers.hub import HubServer
from helpers.processes import python
from memtax.errors import MemtaxError
from memtax.published.sequences import load_published

ROOT = Path(__file__).parent.parent.parent
SIZES = ("70M", "160M", "410M", "1B", "1.4B", "2.8B", "6.9B", "12B")


def tokens(rows, length=64, low=1):
    return np.random.default_rng(rows).integers(low, 50_000, (rows, length)).tolist()


def write(folder, splits):
    """A dataset repository: one Parquet file a split under `data/`, and a card that names them."""
    for split, columns in splits.items():
        (folder / "data").mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), folder / "data" / f"{split}-00000-of-00001.parquet")
    files = [{"split": split, "path": f"data/{split}-*"} for split in splits]
    card = yaml.safe_dump({"configs": [{"config_name": "default", "data_files": files}]})
    (folder / "README.md").write_text(f"---\n{card}---\n")


def filters(rows=6):
    """Rows of the table of every factor, with what the reference's code does to some of them."""
    table = {
        "sequence_id": list(range(100, 100 + rows)),
        "tokens": tokens(rows),
        "text": ["plain"] * rows,
        "sequence_duplicates": [3] * rows,
        "max_frequency": [9] * rows,
        "avg_frequency": [2.5] * rows,
        "min_frequency": [1] * rows,
        "median_frequency": [2.0] * rows,
        "p25_frequency": [1] * rows,
        "p75_frequency": [4] * rows,
        "frequencies": [[1, 2]] * rows,
        "is_incrementing": [False] * rows,
        "is_repeating": [True] * rows,
        "huffman_coding_length": [4.5] * rows,
        "0_8_snowclones": [5] * rows,
        "0_9_snowclones": [1] * rows,
        "0_8_templates": [2] * rows,
        "0_9_templates": [0] * rows,
        "nl_scores": [0.75] * rows,
        "prompt_perplexity": [2.0] * rows,
        "generation_perplexity": [3.0] * rows,
        "sequence_perplexity": [6.0] * rows,
        "memorization_score": [1.0, 0.5, 1.0, 0.0, 1.0, -1.0],
    }
    table["tokens"][1][40] = 0  # taken for padding by the reference
    table["prompt_perplexity"][2] = table["generation_perplexity"][2] = table["sequence_perplexity"][2] = -1.0  # failed
    table["text"][3] = "caf\N{LATIN SMALL LETTER E WITH ACUTE}"
    return table


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    root = tmp_path_factory.mktemp("hub")
    evals = {
        f"{scheme}.{size.lower()}": {"index": [7, 3], "tokens": tokens(2)} for scheme in ("duped", "deduped") for size in SIZES
    }
    write(root / "datasets" / "EleutherAI" / "pythia-memorized-evals", evals)
    scores = {size: [1.0, 0.25 + i / 100, -1.0] for i, size in enumerate(SIZES)}
    for scheme in ("duped", "deduped"):
        name = f"pile-{scheme}-pythia-random-sampled"
        rows = {"Index": [5, 1, 2], "Tokens": tokens(3), **scores}
        write(root / "datasets" / "EleutherAI" / name, {"train": rows})
    write(root / "datasets" / "usvsnsp" / "pile-test-sampled", {"train": {"sequence_id": [9, 8], "tokens": tokens(2)}})
    splits = {f"{kind}_{scheme}_70m": filters() for kind in ("pile", "memories") for scheme in ("duped", "deduped")}
    write(root / "datasets" / "usvsnsp" / "semantic-filters", splits)
    write(root / "datasets" / "someone" / "texts", {"validation": {"content": ["alpha beta", "gamma"]}})
    with HubServer() as server:
        for folder in sorted((root / "datasets").glob("*/*")):
            server.add_folder("dataset", f"{folder.parent.name}/{folder.name}", folder)
        yield root, server


def ask(hub, code, tmp_path):
    """Run code in a child that may talk to the loopback Hub; what it prints as JSON."""
    child = python("-c", code, env=hub[1].environment(tmp_path / "home", token=None))
    assert child.returncode == 0, child.stderr[-3000:]
    return json.loads(child.stdout.splitlines()[-1])


def test_all_of_them_by_name_from_the_hub(hub, tmp_path):
    code = """
import json
from memtax.published.sequences import load_published
from memtax.corpus.rows import load_rows
from memtax.corpus.sources import Source
asked = [
    ("EleutherAI/pythia-memorized-evals", "deduped.1.4b", None),
    ("EleutherAI/pile-deduped-pythia-random-sampled", "train", "1.4b"),
    ("EleutherAI/pile-duped-pythia-random-sampled", "train[:2]", None),
    ("usvsnsp/pile-test-sampled", "train", None),
    ("usvsnsp/semantic-filters", "pile_deduped_70m", None),
    ("usvsnsp/semantic-filters", "memories_duped_70m", None),
]
found = [load_published(name, split, model=model).to_dict() for name, split, model in asked]
rows = load_rows(Source.parse("EleutherAI/pythia-memorized-evals::duped.12b"), length=40)
print(json.dumps([*found, rows.to_dict()]))
"""
    evals, sampled, plain, test, pile, memories, rows = ask(hub, code, tmp_path)
    assert evals == {
        "sequence_id": [7, 3],
        "tokens": tokens(2),
        "is_memorized": [True, True],
        "memorization_score": [1.0, 1.0],
    }
    assert sampled["sequence_id"] == [5, 1, 2]
    assert sampled["tokens"] == tokens(3)
    assert sampled["memorization_score_1.4b"] == sampled["memorization_score"] == [1.0, pytest.approx(0.29), None]
    assert sampled["is_memorized"] == [True, False, None]
    assert set(plain) == {"sequence_id", "tokens", *(f"memorization_score_{size.lower()}" for size in SIZES)}
    assert plain["sequence_id"] == [5, 1]
    assert test == {"sequence_id": [9, 8], "tokens": tokens(2)}
    assert rows == {"sequence_id": [7, 3], "tokens": [row[:40] for row in tokens(2)]}

    # prompt: 2 = exp(loss of 31 tokens / 63), so the true one is 2^(63/31). Over all 63 tokens the halves give the whole:
    # (31 ln a + 32 ln b) / 63 = ln(2) + ln(3) = ln 6, the sequence's.
    a, b = 2 ** (63 / 31), 3 ** (63 / 32)
    assert (a**31 * b**32) ** (1 / 63) == pytest.approx(6)
    assert pile["prompt_perplexity"] == [pytest.approx(a), None, None, *[pytest.approx(a)] * 3]
    assert pile["continuation_perplexity"] == [pytest.approx(b), None, None, *[pytest.approx(b)] * 3]
    assert pile["sequence_perplexity"] == [6.0, None, None, 6.0, 6.0, 6.0]
    # Every Pile sequence matched itself; memorized ones that are not of the sample did not.
    assert (pile["semantic_matches_0_8"][0], pile["semantic_matches_0_9"][0]) == (4, 0)
    assert (memories["semantic_matches_0_8"][0], memories["semantic_matches_0_9"][0]) == (5, 1)
    assert pile["textual_matches_0_8"] == [2] * 6
    assert pile["textual_matches_0_9"] == [0, 0, 0, None, 0, 0]  # 0 is not known for text beyond ASCII
    assert pile["shannon_coding_length"] == [4.5] * 6
    assert pile["nl_score"] == [0.75] * 6
    assert pile["memorization_score"] == [1.0, 0.5, 1.0, 0.0, 1.0, None]
    assert pile["is_memorized"] == [True, False, True, False, True, None]
    assert not {"frequencies", "huffman_coding_length", "generation_perplexity"} & set(pile)


def test_any_other_dataset_and_what_goes_wrong(hub, tmp_path):
    code = """
import json
from memtax.published.sequences import load_published
from memtax.corpus.rows import holds_text, load_rows
from memtax.corpus.sources import Source
from memtax.errors import MemtaxError
found = [holds_text(Source.parse("someone/texts:default:validation"))]
for ask in (
    lambda: load_rows(Source.parse("someone/texts:default:train")),
    lambda: load_published("EleutherAI/pythia-memorized-evals"),
    lambda: load_published("EleutherAI/pile-duped-pythia-random-sampled", model="3B"),
    lambda: load_rows(Source.parse("someone/missing")),
):
    try:
        ask()
        found.append("no error")
    except MemtaxError as error:
        found.append(str(error))
print(json.dumps(found))
"""
    text, split, evals, model, missing = ask(hub, code, tmp_path)
    assert text is True
    assert "train" in split
    assert "deduped.12b" in evals  # the message lists the splits
    assert model.endswith("has no scores of a model '3B'; it has 70M, 160M, 410M, 1B, 1.4B, 2.8B, 6.9B, 12B")
    assert "someone/missing exists neither locally nor" in missing


def test_revisions_of_a_model_on_the_hub_are_the_checkpoints_of_a_series(hub, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, GPTNeoXConfig

    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    models = {}
    for seed, revision in enumerate(("", "@step1000", "@step143000")):
        torch.manual_seed(seed)
        models[revision] = AutoModelForCausalLM.from_config(GPTNeoXConfig(vocab_size=97, max_position_embeddings=16, **shape))
        models[revision].save_pretrained(tmp_path / f"pythia-tiny{revision}")
        hub[1].add_folder("model", "org/pythia-tiny", tmp_path / f"pythia-tiny{revision}", revision.strip("@") or "main")
    code = """
import json
from memtax.filters.language_model import LanguageModelFilter
from memtax.lm.loading import check_model, parameter_count
from memtax.pipeline.series import Member
found = []
for text in ("org/pythia-tiny", "org/pythia-tiny@step1000", "@step143000"):
    member = Member.parse(text, "org/pythia-tiny")
    check_model(member.path, member.revision, 16)
    scores = LanguageModelFilter(member.path, member.revision, prompt=4, continuation=4)
    batch = scores({"tokens": [[5, 6, 7, 8, 9, 10, 11, 12]]})
    count = parameter_count(member.path, member.revision)
    found.append([member.checkpoint, member.step, count, batch["sequence_perplexity"][0]])
try:
    check_model("org/pythia-tiny", "step7", 16)
except ValueError as error:
    found.append(str(error))
print(json.dumps(found))
"""
    *rows, missing = ask(hub, code, tmp_path)
    ids = torch.tensor([[5, 6, 7, 8, 9, 10, 11, 12]])
    names = [("pythia-tiny", None), ("pythia-tiny@step1000", 1000), ("pythia-tiny@step143000", 143_000)]
    for row, (name, step), model in zip(rows, names, models.values(), strict=True):
        with torch.no_grad():
            perplexity = model(input_ids=ids, labels=ids).loss.exp().item()
        assert row == [name, step, model.num_parameters(), pytest.approx(perplexity, rel=1e-4)]
    assert "org/pythia-tiny (revision step7)" in missing


def test_a_folder_that_holds_the_files_works_offline(hub):
    found = load_published(str(hub[0] / "datasets" / "usvsnsp" / "pile-test-sampled"))
    assert found["sequence_id"] == [9, 8]


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(MemtaxError, match=r"org/other is not one of the published .*pythia-memorized-evals.*semantic-filters"):
        load_published("org/other")
