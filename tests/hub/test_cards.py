import json
from pathlib import Path

import pyarrow as pa
import pytest
from datasets import load_dataset
from huggingface_hub import DatasetCard, ModelCard

from memtax import schema
from memtax.errors import MemtaxError
from memtax.hub.cards import finish, plain, render
from memtax.hub.folder import Config, size_category, write_dataset
from memtax.hub.publish import plan
from memtax.results import envelope


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<script>", "&lt;script&gt;"),
        ("a | b\n# c", r"a \| b \# c"),
        ("[x](http://y)", r"\[x\]\(http://y\)"),
        ("a\x1b[31mb\u202ec", r"a\[31mbc"),
        ("AT&T", "AT&amp;T"),
    ],
)
def test_foreign_text_is_inert_in_markdown(text, expected):
    assert plain(text) == expected


def test_front_matter_is_yaml_whatever_the_values():
    card = render(
        "dataset.md.j2",
        {"pretty_name": "a: b\n---\n!!python/object:x", "license": None},
        here="org/name",
        title="t",
        summary={},
        configs=[Config("c", "row", {"train": pa.table({"sequence_id": [1]})})],
        columns={"c": []},
        categories=(),
        notes=None,
        version="0",
    )
    # Read as the Hub reads it.
    assert DatasetCard(card).data.to_dict() == {"pretty_name": "a: b\n---\n!!python/object:x"}


def test_a_folder_loads_with_its_splits_and_class_names(tmp_path):
    splits = {
        "train": pa.table({"sequence_id": [1, 2], "taxonomy": [0, None]}),
        "test": pa.table({"sequence_id": [3], "taxonomy": [2]}),
    }
    write_dataset(tmp_path / "d", [Config("first", "A row.", splits)], "title", {"a": 1})
    loaded = load_dataset(str(tmp_path / "d"), "first", cache_dir=str(tmp_path / "cache"))
    assert {name: split.num_rows for name, split in loaded.items()} == {"train": 2, "test": 1}
    assert loaded["train"].features["taxonomy"].int2str(0) == "recitation"
    assert loaded["train"]["taxonomy"] == [0, None]


def test_a_folder_written_again_loads_the_new_rows(tmp_path):
    for values in ([1, 2], [3, 4]):
        configs = [Config("first", "A row.", {"train": pa.table({"sequence_id": values})})]
        write_dataset(tmp_path / "d", configs, "title", {})
        loaded = load_dataset(str(tmp_path / "d"), "first", split="train", cache_dir=str(tmp_path / "cache"))
        assert loaded["sequence_id"][:] == values


@pytest.mark.parametrize(
    ("threshold", "rule"),
    [
        (12, "more than 12 occurrences"),
        (0, "more than 0 occurrences"),
        (None, f"threshold (usually {schema.RECITATION_THRESHOLD})"),
    ],
)
def test_a_card_says_the_threshold_of_the_taxonomy(tmp_path, threshold, rule):
    configs = [Config("c", "A row.", {"train": pa.table({"sequence_id": [1], "taxonomy": [0]})})]
    write_dataset(tmp_path / "d", configs, "title", {}, recitation_threshold=threshold)
    assert rule in (tmp_path / "d" / "README.md").read_text()


def test_tables_of_verbs_explain_their_own_columns(tmp_path):
    table = pa.table({"model": ["baseline"], "metric": ["ece"], "value": [0.5]})
    write_dataset(tmp_path / "d", [Config("evaluation", "A row.", {"train": table})], "title", {})
    card = (tmp_path / "d" / "README.md").read_text()
    assert "a column of the input" not in card
    assert "| `model` | string | name | the model of the predictor" in card
    # In a table of sequences the same names are those of the schema, or the user's.
    assert schema.described(table.schema.field("model")).meaning == schema.COLUMNS["model"].meaning
    assert schema.described(table.schema.field("value")).meaning == "a column of the input"


def test_a_column_that_is_not_declared_is_said_to_be_the_inputs(tmp_path):
    write_dataset(tmp_path / "d", [Config("c", "row", {"train": pa.table({"mystery": [1]})})], "title", {})
    assert "| `mystery` | int64 | - | a column of the input | as in the input |" in (tmp_path / "d" / "README.md").read_text()


def code(card):
    """The card's Python block."""
    return card.split("```python\n")[1].split("```")[0]


@pytest.mark.parametrize("output", ["runs/demo", 'it\'s a "run" -->`<b>'])
def test_the_load_line_of_a_local_card_works_as_it_stands(tmp_path, monkeypatch, output):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = Path(output) / "dataset"
    write_dataset(folder, [Config("first", "A row.", {"test": pa.table({"sequence_id": [5, 6]})})], "title", {})
    card = (folder / "README.md").read_text()
    found = {}
    exec(code(card), found)
    assert found["dataset"]["sequence_id"][:] == [5, 6]
    published = finish(card, "org/name", {}, {})
    assert 'load_dataset("org/name", "first", split="test")' in published
    assert "<!--" not in published
    assert output.split("/")[-1] not in published


def test_a_card_written_into_an_unfinished_folder_names_the_finished_one(tmp_path, monkeypatch):
    from memtax.engine import once

    monkeypatch.chdir(tmp_path)
    configs = [Config("first", "A row.", {"train": pa.table({"sequence_id": [1]})})]
    once("runs/data", {}, lambda folder: write_dataset(folder / "dataset", configs, "title", {}))
    assert 'load_dataset("runs/data/dataset",' in (tmp_path / "runs/data/dataset/README.md").read_text()


def test_a_foreign_card_is_published_as_it_is():
    text = finish('---\nlicense: mit\n---\n\n# Mine\n\n`load("x/y")`\n', "org/name", {}, {})
    assert '# Mine\n\n`load("x/y")`\n' in text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("/home/someone/models/lm", "lm"),
        ("runs/demo/models/lm", "lm"),
        ("../corpus.parquet:text:train", "corpus.parquet:text:train"),
        ("runs/demo/corpus/texts::held_out", "texts::held_out"),
        ("org/name:config:train", "org/name:config:train"),
        ("org/name@main", "org/name@main"),
        ("float32", "float32"),
    ],
)
def test_a_published_card_has_no_paths_of_the_machine(value, shown):
    # Written elsewhere: nothing of it exists here.
    run = {"memtax": "run", "config": {"corpus": value}, "inputs": {}, "versions": {}, "commit": None, "finished": "now"}
    assert f"| corpus | {plain(shown)} |" in finish("# Mine", "org/name", run, {})


@pytest.mark.parametrize(("rows", "size"), [(999, "n<1K"), (10**7 - 1, "1M<n<10M"), (10**7, "10M<n<100M")])
def test_size_categories_are_those_of_the_hub(rows, size):
    assert size_category(rows) == size


def test_models_tell_their_own_figures(tmp_path):
    # By the rates of `summary.json` and of `evaluation.json`.
    language_model, classifier = tmp_path / "models" / "lm", tmp_path / "models" / "code"
    for folder in (language_model, classifier):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text('{"model_type": "gpt_neox", "architectures": ["GPTNeoXForCausalLM"]}')
    write_dataset(tmp_path / "dataset", [Config("c", "A row.", {"train": pa.table({"sequence_id": [1]})})], "t", {})
    rates = {"all": {"rate": 0.25}, "held_out": {"rate": 0.125}, "recitation": {"rate": None}}
    figures = envelope("run", {"run": {"model": "lm"}, "extraction": rates})
    (tmp_path / "summary.json").write_text(json.dumps(figures))
    evaluation = {"roc_auc": {"value": 0.75}, "pr_auc_code": 0.5, "pr_auc_natural_language": 0.625, "best_f1": 1.0}
    (classifier / "evaluation.json").write_text(json.dumps({"labels": evaluation}))
    (classifier / "README.md").write_text("---\nbase_model: org/base\n---\n\n# Code\n")
    record = {
        "memtax": "run",
        "config": {"model": "lm", "license": "mit"},
        "inputs": {},
        "versions": {},
        "commit": None,
        "finished": "now",
    }
    (tmp_path / "run.yaml").write_text(json.dumps(record))

    _, code, lm = (ModelCard(repository.card) for repository in plan(tmp_path, "org/name"))
    assert {(each.dataset_name, each.metric_name, each.metric_value) for each in lm.data.eval_results} == {
        ("org/name", "share memorized (all)", 0.25),
        ("org/name", "share memorized (held out)", 0.125),
    }
    assert (lm.data.license, lm.data.datasets) == ("mit", ["org/name"])
    assert "| architectures | GPTNeoXForCausalLM |" in lm.text
    # The classifier was trained on something else: neither the run's dataset nor its model is said of it.
    assert [each.metric_value for each in code.data.eval_results] == [0.75, 0.5, 0.625, 1.0]
    assert (code.data.base_model, code.data.datasets, code.data.license) == ("org/base", None, None)
    assert "| model | lm |" in lm.text
    assert "| model |" not in code.text


@pytest.mark.parametrize("spoil", ["{", "[]", "[" * 10**5, '{"metrics": {}, "weights_sha256": "other"}'])
def test_half_a_predictor_is_not_published(tmp_path, spoil):
    (tmp_path / "predictor.json").write_text(spoil)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "README.md").write_text("# Mine")
    with pytest.raises(MemtaxError, match=r"predictor\.json (is not JSON|holds a list|is not a record)|no complete predictor"):
        plan(tmp_path, "org/name")
