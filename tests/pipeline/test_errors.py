"""What a user sees when something is wrong: one line, exit status 2, and nothing half-written."""

import json
import os
import sys

import pytest
import yaml

from helpers.processes import python
from memtax import cli


def command(monkeypatch, capsys, *arguments):
    """Exit status and standard error of the command, run in this process."""
    monkeypatch.setattr(sys, "argv", ["memtax", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return stopped.value.code, capsys.readouterr().err


def last_line(text):
    return text.replace("\r", "\n").strip().splitlines()[-1]


def leftovers(folder):
    return [path for path in folder.rglob("*") if path.name.endswith(".tmp")]


@pytest.fixture
def base(material, tmp_path):
    return {
        "model": str(material / "model"),
        "corpus": str(material / "docs.jsonl"),
        "output": str(tmp_path / "run"),
        "prompt": 8,
        "continuation": 8,
    }


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "/no/such/model"}, "/no/such/model does not exist"),
        ({"model": "DATA"}, "contains no config.json"),
        ({"checkpoints": ["/no/such/checkpoint"]}, "/no/such/checkpoint does not exist"),
        ({"tokenizer": "/no/such/tokenizer"}, "/no/such/tokenizer does not exist"),
        ({"corpus": "/no/such/corpus"}, "/no/such/corpus does not exist"),
        ({"column": "txet"}, "column 'txet'"),
        ({"corpus": "OTHER"}, "its columns are: title, year"),
        ({"corpus": "SHORT"}, "16 tokens that a sequence needs (the longest has"),
        ({"corpus": "EMPTY"}, "empty"),
        ({"continuation": 9}, "17 tokens are longer than the 16 positions"),
        ({"modle": "x"}, "config.yaml; did you mean 'model'?"),
        ({"prompt": "eight"}, "prompt expects a whole number, got 'eight'"),
        ({"prompt": 0}, "prompt is 0; it must be at least 1"),
        ({"model": None}, "missing option '--model'"),
        ({"dtype": "float8"}, "'float8'"),
    ],
)
def test_bad_input_is_one_line(base, change, message, tmp_path, monkeypatch, capsys):
    replaced = {
        "DATA": str(tmp_path),
        "OTHER": jsonl(tmp_path / "other.jsonl", [{"title": "a", "year": 1}]),
        "SHORT": jsonl(tmp_path / "short.jsonl", [{"text": "too short"}] * 3),
        "EMPTY": jsonl(tmp_path / "empty.jsonl", []),
    }
    change = {name: replaced.get(value, value) if isinstance(value, str) else value for name, value in change.items()}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**base, **change}))
    code, error = command(monkeypatch, capsys, "run", tmp_path / "config.yaml")
    assert code == 2
    assert last_line(error).startswith("memtax: ")
    assert message in last_line(error)
    assert "Traceback" not in error
    assert not leftovers(tmp_path)
    assert not (tmp_path / "run" / "dataset").exists()


@pytest.mark.parametrize(
    ("text", "message"), [("a: [1", "is not YAML"), ("- a", "keys and values"), ("!!python/object:os.system x", "YAML")]
)
def test_a_file_that_is_no_configuration(text, message, tmp_path, monkeypatch, capsys):
    (tmp_path / "config.yaml").write_text(text)
    code, error = command(monkeypatch, capsys, "run", tmp_path / "config.yaml")
    assert (code, message in last_line(error)) == (2, True)


def test_an_output_that_is_a_file(base, tmp_path, monkeypatch, capsys):
    (tmp_path / "run").write_text("in the way")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(base))
    code, error = command(monkeypatch, capsys, "run", tmp_path / "config.yaml")
    assert code == 2
    assert str(tmp_path / "run") in last_line(error)


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(base, tmp_path):
    # A limit on file sizes makes writes fail half-way, as a full disk does.
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(base))
    program = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "from memtax.cli import main\n"
        "main()\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "NUMBA_CACHE_DIR": str(tmp_path / "numba")}
    environment |= {"HF_DATASETS_CACHE": str(tmp_path / "cache")}
    done = python("-c", program, "run", tmp_path / "config.yaml", env=environment)
    assert done.returncode == 2, done.stderr[-2000:]
    assert last_line(done.stderr).startswith("memtax: ")
    assert "too large" in last_line(done.stderr)
    assert "Traceback" not in done.stderr
    assert not leftovers(tmp_path / "run")


def test_the_traceback_of_debug_shows_no_secret(tmp_path):
    given = {**os.environ, "HUB_PASSWORD": "s3cret-Passw0rd"}
    done = python("-m", "memtax", "--debug", "run", tmp_path / "s3cret-Passw0rd.yaml", env=given)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "(HUB_PASSWORD).yaml" in done.stderr
    assert "s3cret" not in done.stderr


def test_debug_shows_the_traceback(tmp_path, monkeypatch, capsys):
    from memtax.errors import MemtaxError

    monkeypatch.setattr(sys, "argv", ["memtax", "--debug", "run", str(tmp_path / "missing.yaml")])
    with pytest.raises(MemtaxError):
        cli.main()
    monkeypatch.setattr(cli.base, "_debug", False)
