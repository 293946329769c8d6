"""The contract of every verb: options from settings, a record that replays, one summary, a dataset that loads."""

import json

import pyarrow as pa
import pytest
import yaml
from datasets import Dataset, load_dataset
from typer.main import get_command
from typer.testing import CliRunner

import memtax
from helpers.processes import python
from memtax.checksums import verify
from memtax.cli import app
from memtax.errors import MemtaxError
from memtax.files import write_text
from memtax.jobs import VERBS, job_class
from memtax.jobs.base import Job, Result, Rows
from memtax.results import read_summary, read_table
from memtax.settings import fields, flag_of

PLACEMENT = ("device_map", "quantization", "batch_size")
SHARED = {"model": "-m", "output": "-o"}


@pytest.fixture
def texts(tmp_path):
    rows = [{"text": "a b a b", "other": 1}, {"text": "1. one\n2. two\n3. three", "other": 2}, {"text": None, "other": 3}]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.mark.parametrize("verb", VERBS)
def test_every_setting_is_an_option_and_a_key(verb):
    options = {name: parameter for parameter in get_command(app).commands[verb].params for name in parameter.opts}
    for name, (field, _) in fields(job_class(verb)).items():
        shown = options[name if field.metadata["argument"] else flag_of(name)]
        assert shown.help.startswith(field.metadata["help"])
        if name in SHARED and not field.metadata["argument"]:
            assert SHARED[name] in shown.opts
    assert "--config" in options


def test_verbs_are_functions():
    # memtax.demo and memtax.report are modules.
    assert all(callable(getattr(memtax, verb)) for verb in {*VERBS} - {"demo", "report"})
    assert {*VERBS} <= {*dir(memtax)}


def test_options_of_the_same_name_mean_the_same_everywhere():
    seen = {}
    for verb in VERBS:
        for name, (field, hint) in fields(job_class(verb)).items():
            if name in ("column", "bos", "dtype", "show_personal_data", "resamples"):
                seen.setdefault(name, set()).add((str(hint), field.default))
            if name in PLACEMENT and verb != "counterfactual":  # which trains: its batches are steps
                seen.setdefault(name, set()).add((str(hint), field.default, field.metadata["help"]))
    assert {name: kinds for name, kinds in seen.items() if len(kinds) > 1} == {}


def test_every_verb_that_reads_a_model_says_where_it_lies():
    models = {verb: fields(job_class(verb)).keys() for verb in VERBS if "dtype" in fields(job_class(verb))} | {
        "filter": fields(job_class("filter")).keys()
    }
    assert {*models} >= {"run", "score", "filter", "fit", "paraphrase", "align", "mia", "influence", "audit", "explore"}
    lacking = {verb: missing for verb, names in models.items() if (missing := {"device_map", "quantization"} - names)}
    assert lacking.keys() <= {"counterfactual"}  # which trains whole models
    for verb in ("run", "score", "filter", "paraphrase", "align", "mia", "influence", "audit"):
        assert "batch_size" in models[verb]


def test_gradients_of_quantized_weights_are_refused_before_anything_is_read(tmp_path, texts):
    for verb, sources in (("align", [texts]), ("influence", [texts, texts])):
        options = ("--model", tmp_path, "--output", tmp_path / "out", "--quantization", "4bit")
        done = CliRunner().invoke(app, [str(part) for part in (verb, *sources, *options)])
        assert isinstance(done.exception, MemtaxError) or done.exit_code == 2
        assert "quantized weights have no gradients" in str(done.exception) + done.output


def test_the_record_replays_to_the_same_bytes(texts, tmp_path):
    assert invoke("filter", "templates", texts, "--output", tmp_path / "one").exit_code == 0
    assert invoke("filter", "--config", tmp_path / "one" / "run.yaml", "--output", tmp_path / "two").exit_code == 0
    for name in ("dataset/features/train.parquet", "summary.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    record = yaml.safe_load((tmp_path / "one" / "run.yaml").read_text())
    assert (record["memtax"], record["config"]["names"]) == ("filter", ["templates", str(texts)])
    verify(tmp_path / "one")


def test_a_file_of_settings_gives_way_to_the_command_line(texts, tmp_path):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"names": ["compressibility", str(texts)], "output": str(tmp_path / "a")}))
    assert invoke("filter", "--config", tmp_path / "c.yaml").exit_code == 0
    assert invoke("filter", "--config", tmp_path / "c.yaml", "templates", texts, "-o", tmp_path / "b").exit_code == 0
    assert read_summary(tmp_path / "a", "filter")["filters"] == ["compressibility"]
    assert read_summary(tmp_path / "b", "filter")["filters"] == ["templates"]
    (tmp_path / "c.yaml").write_text("namse: [x]\n")
    with pytest.raises(MemtaxError, match=r"unknown key 'namse' in .*c\.yaml; did you mean 'names'"):
        invoke("filter", "--config", tmp_path / "c.yaml")
    with pytest.raises(MemtaxError, match="is the record of memtax filter, not of memtax count"):
        invoke("count", "--config", tmp_path / "a" / "run.yaml")


def test_the_output_loads_and_answers_in_python_as_on_the_terminal(texts, tmp_path):
    done = memtax.filter(names=["templates", str(texts)], output=tmp_path / "out")
    assert done.figures["nulls"] == {"is_incrementing": 1, "is_repeating": 1, "template_period": 2}
    loaded = load_dataset(str(tmp_path / "out" / "dataset"), "features", split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded["is_incrementing"] == [False, True, None]
    # A column of the user's stays, and the card says whose it is.
    assert loaded["other"] == [1, 2, 3]
    assert "a column of the input" in (tmp_path / "out" / "dataset" / "README.md").read_text()
    said = json.loads(invoke("filter", "templates", texts, "-o", tmp_path / "out", "--json").stdout)
    assert said == {"output": str(tmp_path / "out"), **done.figures}
    with pytest.raises(MemtaxError, match="is the output of memtax filter, not of memtax score"):
        read_summary(tmp_path / "out", "score")
    with pytest.raises(MemtaxError, match="has no table 'scores'; it has: features"):
        read_table(tmp_path / "out", "scores")


def test_a_mapped_dataset_gets_the_same_end(tmp_path):
    rows = Dataset.from_dict({"text": ["a b a b", None], "nl_score": [0.5, None], "mine": [[1], []]})
    done = memtax.write(rows, tmp_path / "out", title="Mine")
    loaded = load_dataset(str(tmp_path / "out" / "dataset"), "features", split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded["mine"] == [[1], []]
    assert loaded["sequence_id"] == [0, 1]
    assert done.table().column("nl_score").type == pa.float32()
    assert done.figures["features"]["nulls"] == {"text": 1, "nl_score": 1}
    with pytest.raises(MemtaxError, match="column 'nl_score' of features/train is string, not float"):
        memtax.write(Dataset.from_dict({"nl_score": ["x"]}), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_what_is_damaged_in_a_job_inside_a_job_is_made_again(tmp_path):
    class Inner(Job):
        verb = "inner"

        def make(self, work):
            return Result("Rows", [Rows("rows", "One row.", pa.table({"value": [1]}))], {"count": 1}, page=draw)

    class Outer(Job):
        verb = "outer"

        def make(self, work):
            made = Inner(output=work.output / "inner").run()
            return Result("Sums", [Rows("sums", "One row.", pa.table({"value": [2]}))], made.figures, files=["inner"])

    def draw(folder):
        verify(folder)  # as a report does
        return write_text(folder / "report" / "index.html", "page") or folder / "report" / "index.html"

    names = ("report/index.html", "summary.json", ".memtax-checksums.json")
    Outer(output=tmp_path / "out").run()
    for path in [tmp_path / "out" / "inner" / name for name in names] + [tmp_path / "out" / names[-1]]:
        before = path.read_bytes()
        path.write_bytes(before[:-1] + b"?")
        with pytest.raises(MemtaxError, match="again"):
            verify(tmp_path / "out")
            verify(tmp_path / "out" / "inner")
        Outer(output=tmp_path / "out").run()
        assert path.read_bytes() == before
        verify(tmp_path / "out")


def test_a_file_in_the_folder_is_a_verb_without_an_entry_elsewhere(tmp_path):
    (tmp_path / "newest.py").write_text(
        """
from dataclasses import dataclass
import pyarrow as pa
from memtax.jobs.base import Job, Result, Rows
from memtax.settings import argument


@dataclass(frozen=True, kw_only=True)
class Newest(Job):
    "Say a word."

    word: str = argument("The word.")

    def make(self, work):
        table = pa.table({"sequence_id": [0], "text": [self.word]})
        return Result("Newest", [Rows("words", "One row per word.", table)], {"word": self.word}, lines=[self.word])
"""
    )
    # A package's `__path__` is where its modules are looked for.
    script = f"""
import sys
import memtax, memtax.jobs
memtax.jobs.__path__.append({str(tmp_path)!r})
memtax.jobs.__spec__.loader.exec_module(memtax.jobs)
sys.argv = ["memtax", "newest", "hello", "--output", {str(tmp_path / "out")!r}]
from memtax.cli import main
main()
"""
    done = python("-c", script)
    assert done.returncode == 0, done.stderr
    assert "hello" in done.stdout + done.stderr
    assert read_summary(tmp_path / "out", "newest") == {"word": "hello"}
    assert load_dataset(str(tmp_path / "out/dataset"), split="train")["text"][:] == ["hello"]
