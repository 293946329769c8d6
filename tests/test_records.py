"""Records are data: bounded before they are interpreted, and what is wrong with one is said in one line."""

import json
import time

import pytest
import yaml

from memtax import records
from memtax.corpus.folder_cards import check_folder
from memtax.corpus.sources import Source, open_dataset
from memtax.errors import MemtaxError, ModelError
from memtax.jobs.run import Run
from memtax.record_shapes import METRICS, PREDICTOR
from memtax.results import envelope
from memtax.shapes import COUNT, NAME, SHARE, Columns, Rows, check

CONFIG = {"model": "m", "corpus": "c", "output": "o"}
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)
HOSTILE = {
    "bomb": (BOMB, "more than 50,000 values"),
    "merged": ("a: &a {x: 1}\n" + "".join(f"b{n}: {{<<: *a}}\n" for n in range(30_000)), "more than 50,000 values"),
    "itself": ("model: &a [*a]\n", "contains itself"),
    "itself deeper": ("config: &a {b: {c: [*a]}}\n", "contains itself"),
    "deep": ("model: " + "[" * 100_000, "nested more than 64"),
    "keys": ("".join(f"k{n}: 1\n" for n in range(60_000)), "more than 50,000 values"),
    "large": ("model: " + "x" * 2**21, "bytes"),
    "tag": ("model: !!python/object/apply:os.system [true]\n", "not YAML"),
    "binary": ("\x00\x01", "not YAML"),
    "empty number": ('model: !!int ""\n', "not YAML"),
    "no time": ('model: !!timestamp "x"\n', "not YAML"),
    "undefined": ("model: *b\n", "not YAML"),
    "twice": ("model: 1\nmodel: 2\n", "gives model more than once"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_yaml_is_refused_at_once(tmp_path, name):
    text, reason = HOSTILE[name]
    (tmp_path / "run.yaml").write_text(text)
    started = time.process_time()
    for read in (records.read_yaml, records.read_run, Run.load):
        with pytest.raises(MemtaxError, match=reason) as error:
            read(tmp_path / "run.yaml")
        assert len(str(error.value)) < 1000
    assert time.process_time() - started < 5


def test_aliases_that_stay_small_are_values():
    text = "a: &a [1, 2]\nb: *a\nc: {<<: &m {x: 1}, y: *a}\n"
    assert records.parse_yaml(text, "x") == {"a": [1, 2], "b": [1, 2], "c": {"x": 1, "y": [1, 2]}}
    # Counted as they expand: 4 levels of 10 are 11,111 values with their lists, 5 are ten times as many.
    levels = BOMB.splitlines(keepends=True)
    assert len(records.parse_yaml("".join(levels[:3]), "x")["a2"]) == 10
    with pytest.raises(MemtaxError):
        records.parse_yaml("".join(levels[:5]), "x")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": NaN}', "NaN is not a finite"),
        ('{"a": -Infinity}', "not a finite"),
        ('{"a": 1e999}', "not a finite"),
        ('{"a": 1' + "0" * 30 + "}", "out of range"),
        ('{"a": ' + "9" * 5000 + "}", "not JSON"),
        ('{"a": [', "not JSON"),
        ("[1]", "holds a list"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested more than 64"),
        ("\x00", "not JSON"),
        ("", "not JSON"),
    ],
)
def test_hostile_json_is_refused(tmp_path, text, reason):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(MemtaxError, match=reason):
        records.read_json(tmp_path / "x.json")
    (tmp_path / "x.json").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(MemtaxError, match="not JSON"):
        records.read_json(tmp_path / "x.json")


def test_json_that_is_fine_is_read(tmp_path):
    value = {"a": ["[" * 100, '"}\\', 1.5e300, -(2**63), None, True], "b": {"": {}}}
    (tmp_path / "x.json").write_text(json.dumps(value))
    assert records.read_json(tmp_path / "x.json") == value
    (tmp_path / "x.json").write_text('{"a": Infinity, "b": 1000000000000000019884624838656}')
    assert records.read_json(tmp_path / "x.json", finite=False) == {"a": float("inf"), "b": 1000000000000000019884624838656}


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("recitation_threshold", 10**30, "recitation_threshold is .*; it must be at most"),
        ("seed", 10**30, "seed is .*; it must be at most 4294967295"),
        ("prompt", 10**9, "prompt is .*; it must be at most"),
        ("seed", -1, "seed is -1; it must be at least 0"),
        ("seed", 1.5, "seed expects a whole number, got 1.5"),
        ("seed", True, "seed expects a whole number, got True"),
        ("corpus", ["a"], "corpus expects text, got"),
        ("model", {"a": 1}, "model expects text, got"),
        ("checkpoints", {"a": 1}, "checkpoints expects a list, got"),
        ("prompt", "many", "prompt expects a whole number, got 'many'"),
    ],
)
def test_a_value_of_a_wrong_type_or_range_is_named(tmp_path, key, value, reason):
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({"memtax": "run", "config": {**CONFIG, key: value}}))
    with pytest.raises(MemtaxError, match=reason):
        Run.load(tmp_path / "run.yaml")


@pytest.mark.parametrize(
    "change",
    [{"config": [1]}, {"versions": "x"}, {"inputs": {"a": [1]}}, {"commit": 1}, {"versions": {1: "x"}}, {"memtax": None}],
)
def test_a_record_of_wrong_types_is_refused(tmp_path, change):
    whole = {"memtax": "run", "config": CONFIG, "inputs": {}, "commit": None, "versions": {}, "finished": "x"}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(whole))
    assert records.read_run(tmp_path / "run.yaml") == whole
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({**whole, **change}))
    with pytest.raises(MemtaxError, match=next(iter(change))):
        records.read_run(tmp_path / "run.yaml")


CARDS = ["/etc/x.parquet", "../x.parquet", "a/../../x.parquet", "file:///x.parquet", "file:x.parquet", "~/x.parquet"]
CARDS += [
    "*/../../x.parquet",
    "//x.parquet",
    "file:../x.parquet",
    "local:///x.parquet",
    "HTTP://localhost:1/x",
    "filecache::/x.jsonl",
]
CARDS += ["http://localhost:1/x.parquet", "zip://x.parquet::http://localhost:1/x.zip", "hf://datasets/a/b/x.parquet"]


@pytest.mark.parametrize("name", CARDS)
def test_a_card_that_leads_out_of_its_folder_is_refused(tmp_path, name):
    folder = tmp_path / "data"
    folder.mkdir()
    for made in (folder / "in.jsonl", tmp_path / "x.jsonl"):
        made.write_text('{"a": 1}\n')
    forms = [
        name,
        [name],
        {"train": name},
        [{"split": "train", "path": name}],
        [{"split": "train", "path": ["in.jsonl", name]}],
    ]
    for card in ("README.md", ".huggingface.yaml"):
        for form in forms:
            text = yaml.safe_dump({"configs": [{"config_name": "default", "data_files": form}]})
            (folder / card).write_text(f"---\n{text}---\n" if card == "README.md" else text)
            with pytest.raises(MemtaxError, match="is outside its folder"):
                open_dataset(Source(str(folder)))
        (folder / card).unlink()
    (folder / "README.md").write_text("---\nconfigs:\n- config_name: default\n  data_files: in.jsonl\n---\n")
    assert open_dataset(Source(str(folder)))["a"] == [1]


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe\x00",
        b"---\na: !!python/name:os.system\n---\n",
        b"---\nconfigs: 3\n---\n",
        b"---\nconfigs:\n- config_name: default\n  data_files:\n---\n",
        b"---\n" + BOMB.encode() + b"---\n",
    ],
)
def test_a_card_that_is_no_card_is_one_line(tmp_path, content):
    (tmp_path / "README.md").write_bytes(content)
    with pytest.raises(MemtaxError):
        check_folder(tmp_path)


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_the_front_matter_of_a_card_is_found_wherever_it_ends(tmp_path, line_end):
    """As the client of the Hub finds it, which is what `datasets` goes by."""
    from huggingface_hub import DatasetCard

    lines = ("---", "configs:", "- config_name: default", "  data_files: ../x.jsonl", "---")
    (tmp_path / "README.md").write_bytes(line_end.join(lines).encode())
    assert DatasetCard.load(tmp_path / "README.md").data.to_dict()["configs"][0]["data_files"] == "../x.jsonl"
    with pytest.raises(MemtaxError, match="is outside its folder"):
        check_folder(tmp_path)
    (tmp_path / "README.md").write_text("---\nx: '" + "y" * 2**20 + "'\nconfigs: []\n---\n")
    with pytest.raises(MemtaxError, match="bytes"):
        check_folder(tmp_path)


@pytest.mark.parametrize("pattern", ["link.jsonl", "*.jsonl", "**", "sub/a.jsonl", "*/a.jsonl", ["in.jsonl", "s*/**"]])
def test_a_pattern_that_meets_a_link_out_of_the_folder_is_refused(tmp_path, pattern):
    folder, away = tmp_path / "data", tmp_path / "away"
    for made in (folder, away):
        made.mkdir()
        (made / "in.jsonl").write_text('{"a": 1}\n')
    (away / "a.jsonl").write_text('{"a": 2}\n')
    (folder / "link.jsonl").symlink_to("../away/a.jsonl")
    (folder / "sub").symlink_to(away)
    for key in ("data_files", "data_dir") if pattern == "sub/a.jsonl" else ("data_files",):
        value = {"config_name": "default", key: pattern.partition("/")[0] if key == "data_dir" else pattern}
        (folder / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': [value]})}---\n")
        with pytest.raises(MemtaxError, match=r"a link to .*away.*, which is outside its folder"):
            open_dataset(Source(str(folder)))
    # Other files, links within the folder, and the Hub's own cache are fine.
    (folder / "README.md").write_text("---\nconfigs:\n- config_name: default\n  data_files: [in.jsonl, to.jsonl]\n---\n")
    (folder / "to.jsonl").symlink_to("in.jsonl")
    assert open_dataset(Source(str(folder)))["a"] == [1, 1]
    snapshot = tmp_path / "cache" / "snapshots" / "rev"
    (tmp_path / "cache" / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    (tmp_path / "cache" / "blobs" / "ab12").write_text('{"a": 3}\n')
    (snapshot / "x.jsonl").symlink_to("../../blobs/ab12")
    (snapshot / "README.md").write_text("---\nconfigs:\n- config_name: default\n  data_files: '*.jsonl'\n---\n")
    assert open_dataset(Source(str(snapshot)))["a"] == [3]


@pytest.mark.parametrize("record", ["state.json", "dataset_dict.json"])
def test_a_saved_dataset_that_leads_out_of_its_folder_is_refused(tmp_path, record):
    state = {"_data_files": [{"filename": "../x.arrow"}], "_format_kwargs": {}, "_output_all_columns": False}
    state |= dict.fromkeys(("_fingerprint", "_format_columns", "_format_type", "_split"))
    value = state if record == "state.json" else {"splits": ["../x"]}
    (tmp_path / record).write_text(json.dumps(value))
    with pytest.raises(MemtaxError, match="is outside its folder"):
        open_dataset(Source(str(tmp_path)))
    for key in value:
        for wrong in (7, [{"filename": "\ud800"}], {"a": 1} if key != "_format_kwargs" else None):
            (tmp_path / record).write_text(json.dumps({**value, key: wrong}))
            with pytest.raises(MemtaxError, match=f"{record}: .*{key}"):
                open_dataset(Source(str(tmp_path)))


def test_a_model_whose_record_does_not_end_is_refused_at_once(tmp_path):
    from transformers import AutoModelForCausalLM  # noqa: F401 - what it costs to import is not measured

    from memtax.lm.loading import check_model, load_model, model_files

    started = time.process_time()
    layers, itself, deep = (tmp_path / name for name in ("layers", "itself", "deep"))
    for folder in (layers, itself, deep):
        folder.mkdir()
        (folder / "model.safetensors").touch()
        (folder / "adapter_model.safetensors").touch()
    (layers / "config.json").write_text(json.dumps({"model_type": "qwen2", "num_hidden_layers": 10**8}))
    (itself / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(itself), "peft_type": "LORA"}))
    (deep / "adapter_config.json").write_text('{"base_model_name_or_path": ' + "[" * 100_000)
    with pytest.raises(ModelError, match="num_hidden_layers is 100000000"):
        check_model(layers, None, 1)
    with pytest.raises(ModelError, match="is itself an adapter"):
        load_model(itself)
    with pytest.raises(ModelError, match="is itself an adapter"):
        model_files(itself)
    with pytest.raises(ModelError, match="nested more than"):
        load_model(deep)
    assert time.process_time() - started < 20


SHAPE = {
    "name": NAME,
    "rate": (SHARE, None),
    "rows?": Rows(COUNT, 3, 1),
    "parts?": {"*": COUNT},
    "curve?": Columns({"x": SHARE, "y": SHARE}),
}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"name": 1}, "name is 1, not text of at most 200 characters"),
        ({"name": "x" * 201}, "not text of at most 200 characters"),
        ({"rate": 1.5}, "rate is 1.5, not a number from 0 to 1 or null"),
        ({"rate": True}, "rate is True, not a number"),
        ({"rate": [1]}, "rate is a list, not a number from 0 to 1"),
        ({"rows": []}, "rows is a list, not a list of 1 to 3 values"),
        ({"rows": [1, 2, 3, 4]}, "not a list of 1 to 3 values"),
        ({"rows": [1, -1]}, "rows: 1 is -1, not a whole number from 0"),
        ({"rows": [2**63]}, "not a whole number"),
        ({"parts": {"a": 1.5}}, "parts: a is 1.5, not a whole number"),
        ({"parts": {"x" * 300: 1}}, "is not a name of at most 200 characters"),
        ({"parts": 3}, "parts is 3, not keys and values"),
        ({"curve": {"x": [0, 1], "y": [0]}}, "the lists of curve have different lengths"),
        ({"curve": {"x": [0, 1]}}, "curve: y is missing"),
    ],
)
def test_a_value_that_does_not_fit_its_shape_is_named(change, reason):
    whole = {"name": "a", "rate": None, "rows": [1], "parts": {"b": 2}, "curve": {"x": [0.5], "y": [1]}, "other": object()}
    check(whole, SHAPE, "x.json")
    check({"name": "a", "rate": 0}, SHAPE, "x.json")
    with pytest.raises(MemtaxError, match=reason) as error:
        check({**whole, **change}, SHAPE, "x.json")
    assert str(error.value).startswith("x.json: ")
    assert len(str(error.value)) < 400
    with pytest.raises(MemtaxError, match="name is missing"):
        check({"rate": 0}, SHAPE, "x.json")


RATES = {"sequences": 9, "memorized": 3, "rate": 0.3, "low": 0.1, "high": 0.6}
PART = {"sequences": 9, "memorized": 3, "rate": 0.3, "low": 0.1, "high": 0.6, "unit": "document", "units": 4}
KIND = {**PART, "checkpoint": None, "category": "all", "kind": "code", "part": PART}
AREA = {"n": 9, "positives": 3, "units": 4, "value": 0.7, "low": None, "high": None, "reason": "few"}
WEIGHT = {"model": "baseline", "factor": "a", "coefficient": 0.5}
MEMBER_FIT = {"checkpoint": "a", "rows": {"test": 9}, "coefficients": [WEIGHT], "auc": {"aggregate": AREA}}
BIN = {"perplexity": "prompt_perplexity", "from": 1, "to": 1, "unit": "document", "units": 4, "low": 1.5, "high": 3.5}
MEDIAN = {**BIN, "reason": None, "group": "rest", "sequences": 9, "median": 2.5}
ALIGNMENT = {"parameters": "all", "aligned": 1, "texts": 2, "mean": None, "levels": {"high": 1, "medium": 0, "low": 0}}
AGREEMENT = {
    "score": "a",
    "texts": 9,
    "unit": "document",
    "units": 4,
    "spearman": 0.5,
    "low": None,
    "high": None,
    "reason": "few",
}
TESTED = {"rows": 9, "dropped": {}, "unit": "document", "units": 4, "models": {}, "tests": []}
CROSSED = {"threshold": 5, "overlap": 0.5, "by_overlap": {"all": {"guess": 1}}, "by_duplicates": {}}
RIGHT = {
    "kinds": {"model": [KIND], "checkpoints": []},
    "fits": {"checkpoints": [MEMBER_FIT, {"checkpoint": "b", "reason": "few"}], "models": []},
    "perplexities": {"medians": [MEDIAN], "divergence": []},
    "alignment": {**ALIGNMENT, "membership": None, "memorization": AGREEMENT},
    "inference": TESTED,
    "guess_recall": CROSSED,
}
WRONG = [
    {"kinds": []},
    {"kinds": {"model": {}}},
    {"kinds": {"model": [{**KIND, "kind": "verse"}]}},
    {"kinds": {"checkpoints": [{**KIND, "part": None}]}},
    {"fits": {"checkpoints": {}}},
    {"fits": {"models": [{"checkpoint": "a", "reason": 3}]}},
    {"fits": {"models": [{**MEMBER_FIT, "auc": {}}]}},
    {"fits": {"models": [{**MEMBER_FIT, "coefficients": [{**WEIGHT, "coefficient": "a"}]}]}},
    {"perplexities": {"medians": [MEDIAN]}},
    {"perplexities": {"medians": [{**MEDIAN, "units": None}], "divergence": []}},
    {"perplexities": {"medians": [{**MEDIAN, "median": "a"}], "divergence": []}},
    {"perplexities": {"medians": [], "divergence": [MEDIAN]}},
    {"alignment": {**ALIGNMENT, "membership": None, "memorization": {**AGREEMENT, "spearman": 2}}},
    {"alignment": {**ALIGNMENT, "membership": None, "memorization": {"texts": 9}}},
    {"inference": {**TESTED, "models": {"baseline": {"n": "a"}}}},
    {"inference": {**TESTED, "tests": {}}},
    {"guess_recall": {**CROSSED, "overlap": 7}},
    {"guess_recall": {**CROSSED, "by_overlap": {"all": {"guess": -1}}}},
    {"run": []},
    {"run": {"title": 3}},
    {"run": {"prompt": 10**12}},
    {"extraction": [RATES]},
    {"extraction": {"all": {**RATES, "rate": 7}}},
    {"extraction": {"all": {**RATES, "sequences": "9"}}},
    {"extraction": {"all": {"rate": 0.3}}},
    {"growth": {"all": RATES}},
    {"growth": [{**RATES, "checkpoint": ["a"], "category": "all"}]},
    {"correlations": [{"factor": "a", "group": "all", "spearman": 2}]},
    {"correlations": [{"factor": "a" * 1000, "group": "all"}]},
    {"correlations": [{"factor": "a", "group": "all"}] * 5000},
    {"predictor": {"models": {"baseline": {}}}},
    {"predictor": {"models": {"baseline": {"aggregate": {"roc_auc": 0.5}}}}},
    {"nulls": {"a": "many"}},
    {"membership": {"attacks": {}}},
    {"sliding": {"texts": []}},
    {"influence": {"train": None}},
]


@pytest.mark.parametrize("metrics", WRONG, ids=lambda value: next(iter(value)))
def test_metrics_of_wrong_types_are_refused_before_anything_is_drawn(tmp_path, metrics):
    from memtax.report.data import Run

    right = {"extraction": {"all": RATES}, **RIGHT}
    (tmp_path / "summary.json").write_text(json.dumps(envelope("run", right)))
    assert Run.read(tmp_path).metrics == right
    (tmp_path / "summary.json").write_text(json.dumps(envelope("run", {"extraction": {"all": RATES}, **metrics})))
    with pytest.raises(MemtaxError, match=next(iter(metrics))):
        Run.read(tmp_path)


def test_lines_of_a_record_are_checked_one_by_one(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "a"}\n\n{"text": "b"}\n')
    assert records.read_json_lines(path, {"text": str}) == [{"text": "a"}, {"text": "b"}]
    for line in ('{"text": 1}', "[1]", "{", '{"text": ' + "[" * 100_000, '{"text": "a", "b": Infinity}'):
        path.write_text('{"text": "a"}\n' + line + "\n")
        with pytest.raises(MemtaxError, match="line 2 of"):
            records.read_json_lines(path, {"text": str})


def test_a_predictor_of_wrong_types_is_named():
    for key in PREDICTOR:
        with pytest.raises(MemtaxError, match=key):
            check(dict.fromkeys(PREDICTOR), {key: PREDICTOR[key]}, "predictor.json")
    assert "run?" in METRICS
