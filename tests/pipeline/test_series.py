"""Series of models and checkpoints, and the reference model, in a whole run: against scoring each model by hand."""

import json

import pyarrow.parquet as pq
import pytest
import torch
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, GPTNeoXConfig
from typer.testing import CliRunner

from memtax.cli import app
from memtax.errors import MemtaxError
from memtax.jobs.run import Run
from memtax.pipeline.series import Member
from memtax.schema import CATEGORIES


def attachments(model, folder):
    """What the other verbs say of the model, as keys of a run."""
    texts = ["the quick brown fox", "<script>alert(7)</script> a journey", "row 1 row 2 row 3", "a single step they say"]
    rows = [
        {"text": text, "paraphrases": [" ".join(reversed(text.split())), None], "is_member": row % 2 == 0, "extra": "not ours"}
        for row, text in enumerate(texts)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    commands = {
        "paraphrases": ["paraphrase", str(folder / "texts.jsonl"), "--prompts", "bare", "--count", "1"],
        "alignment": ["align", str(folder / "pairs.jsonl")],
        "influence": [
            "influence",
            str(folder / "texts.jsonl"),
            str(folder / "pairs.jsonl"),
            "--parameters",
            "head",
            "--top",
            "2",
        ],
    }
    for name, command in commands.items():
        whole = [*command, "--model", model, "--output", str(folder / name)]
        assert CliRunner().invoke(app, whole, catch_exceptions=False).exit_code == 0
    return {name: str(folder / name) for name in commands}


@pytest.fixture(scope="module")
def result(material, config, tmp_path_factory):
    """The small run again, with a reference that learned the repeated documents' start, and a smaller model."""
    folder = tmp_path_factory.mktemp("series")
    size = len(AutoTokenizer.from_pretrained(material / "tokenizer"))
    for name, width, seed in (("reference", 64, 1), ("small", 32, 2)):
        torch.manual_seed(seed)
        shape = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 2 * width}
        model = AutoModelForCausalLM.from_config(
            GPTNeoXConfig(vocab_size=size, hidden_size=width, max_position_embeddings=16, **shape)
        )
        model.save_pretrained(folder / name)
    # The reference completes what an earlier checkpoint of the very model completes.
    values = {**config.to_dict(), "output": str(folder / "run"), "models": [str(folder / "small")]}
    values["reference_model"] = str(material / "model" / "checkpoint-40")
    values |= attachments(str(material / "model"), folder)
    return Run.from_dict(values).run(), folder


def extracted(model, table):
    """Whether greedy generation gives each row's last 8 tokens from its first 8."""
    tokens = torch.tensor(table.column("tokens").to_pylist())
    model = AutoModelForCausalLM.from_pretrained(model).eval()
    with torch.no_grad():
        new = model.generate(tokens[:, :8], max_new_tokens=8, min_new_tokens=8, do_sample=False, eos_token_id=None)
    return (new[:, 8:] == tokens[:, 8:]).all(1).tolist()


def test_the_reference_tells_the_predictable_apart(result, material):
    found, _ = result
    table = pq.read_table(found.output / "dataset" / "features" / "train.parquet")
    theirs = extracted(material / "model" / "checkpoint-40", table)
    assert table.column("is_memorized_by_reference").to_pylist() == theirs
    ours, categories = table.column("is_memorized").to_pylist(), table.column("taxonomy").to_pylist()
    for name, code in (("all", None), *((name, code) for code, name in enumerate(CATEGORIES))):
        rows = [row for row, category in enumerate(categories) if code in (None, category)]
        row = found.figures["reference"][name]
        assert row["sequences"] == len(rows)
        assert row["model_memorized"] == sum(ours[i] for i in rows)
        assert row["reference_memorized"] == sum(theirs[i] for i in rows)
        assert row["predictable"] == sum(ours[i] and theirs[i] for i in rows)
        assert row["memorized"] == sum(ours[i] and not theirs[i] for i in rows)
    predictable = found.figures["reference"]["all"]["predictable"]
    assert f"the reference model completes {predictable} (" in found.page.read_text()


def test_growth_by_size_and_by_time(result, config):
    found, folder = result
    table = pq.read_table(found.output / "dataset" / "features" / "train.parquet")
    sizes = {row["checkpoint"]: row for row in found.figures["growth_by_size"] if row["category"] == "all"}
    assert list(sizes) == ["model", "small"]
    assert sizes["small"]["memorized"] == sum(extracted(folder / "small", table))
    assert sizes["model"]["memorized"] == sum(table.column("is_memorized").to_pylist())
    for name, path in (("model", config.model), ("small", folder / "small")):
        assert sizes[name]["parameters"] == AutoModelForCausalLM.from_pretrained(path).num_parameters()
    steps = [row for row in found.figures["growth"] if row["category"] == "all"]
    assert [(row["checkpoint"], row["step"]) for row in steps] == [(f"checkpoint-{step}", step) for step in (20, 40, 60)]
    assert {row["model"] for row in steps} == {"model"}
    for row, checkpoint in zip(steps, config.checkpoints, strict=True):
        assert row["memorized"] == sum(extracted(checkpoint, table))
    series = pq.read_table(found.output / "dataset" / "models" / "train.parquet")
    assert series.num_rows == 2 * table.num_rows
    figures = {path.name for path in (found.output / "report" / "figures").iterdir()}
    assert {"growth.svg", "growth_by_size.svg", "beyond_reference.svg"} <= figures


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("org/pythia-70m@step1000", ("pythia-70m", "pythia-70m@step1000", 1000)),
        ("@step143000", ("pythia-12b", "pythia-12b@step143000", 143_000)),
        ("org/pythia-1b", ("pythia-1b", "pythia-1b", None)),
        ("org/pythia-1b@main", ("pythia-1b", "pythia-1b@main", None)),
    ],
)
def test_names_of_models_and_checkpoints(text, expected):
    member = Member.parse(text, "org/pythia-12b")
    assert (member.model, member.checkpoint, member.step) == expected


def test_a_missing_model_of_the_series_stops_the_run_before_it_starts(config, tmp_path):
    values = {**config.to_dict(), "output": str(tmp_path / "run"), "models": ["/no/such/model"]}
    with pytest.raises(MemtaxError, match="/no/such/model does not exist"):
        Run.from_dict(values).run()
    assert not (tmp_path / "run").exists()


def test_what_other_verbs_found_is_part_of_dataset_and_report(result, tmp_path):
    found, folder = result
    configs = {
        name: load_dataset(str(found.output / "dataset"), name, split="train", cache_dir=str(tmp_path))
        for name in ("paraphrases", "alignment", "influence")
    }
    written = pq.read_table(folder / "paraphrases" / "dataset" / "paraphrases" / "train.parquet")
    assert configs["paraphrases"]["paraphrase_reasons"][:] == written.column("paraphrase_reasons").to_pylist()
    assert configs["alignment"]["gradient_alignment"][0] == pytest.approx(
        pq.read_table(folder / "alignment" / "dataset" / "alignment" / "train.parquet").column("gradient_alignment")[0].as_py()
    )
    assert configs["alignment"]["is_member"][:] == [True, False, True, False]
    # Columns that a source brought and the schema does not know stay out.
    assert "extra" not in configs["alignment"].column_names
    # Every training example with every test example.
    assert len(configs["influence"]) == 16
    assert {"train_id", "test_id", "datainf", "repsim"} <= set(configs["influence"].column_names)
    page = found.page.read_text()
    for anchor in ("paraphrases", "alignment", "influence"):
        assert f'<section id="{anchor}">' in page
    assert "4 of 4 texts have a valid paraphrase" in page
    assert "4 paraphrases by model (" in page
    assert "&lt;script&gt;alert(7)" in page
    assert "<script>alert(7)" not in page
    top = found.figures["influence"]["top"]
    assert [(row["test_id"], row["rank"]) for row in top] == [(test, rank) for test in range(4) for rank in (1, 2)]


def test_a_directory_that_the_verb_did_not_write_is_refused_at_once(config, tmp_path):
    values = {**config.to_dict(), "output": str(tmp_path / "run"), "alignment": str(tmp_path / "nothing")}
    with pytest.raises(MemtaxError, match=r"alignment: .*nothing has no summary\.json; give the output of memtax align"):
        Run.from_dict(values).run()
    assert not (tmp_path / "run").exists()
