"""What `wheels.py` runs in each environment: `python -I wheel_checks.py EXTRA` in an empty folder.

Prints one line per check; the first failure ends it with a traceback.
"""

import importlib.util
import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

import memtax
from memtax.extras import EXTRAS, command

IMPORT_SECONDS = 2.0
"""Longest `import memtax`; about 0.1 s, and more when the disk is cold."""
MISSING = {
    "lm": ("score", "rows.jsonl", "--model", "model", "--output", "refused"),
    "report": ("report", "mapped"),
    "stats": ("fit", "mapped/dataset", "--output", "refused"),
    "explore": ("explore", "mapped"),
    "spark": ("filter", "templates", "rows.jsonl", "--engine", "spark", "--output", "refused"),
    "index": (
        "count",
        "infini-gram:folder",
        "--sequences",
        "rows.jsonl",
        "--window",
        "0:2",
        "--tokenizer",
        "model",
        "--output",
        "refused",
    ),
    "demo": ("filter", "embeddings", "rows.jsonl", "--output", "refused"),
}
"""A command that needs an extra. Without `pii`, an audit goes on and says so in its figures."""


def run(*words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the installed command, which must end with a status."""
    done = subprocess.run([*COMMAND, *words], capture_output=True, text=True)
    assert done.returncode == code, f"memtax {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done


COMMAND = (str(Path(sys.executable).with_name("memtax")),)


def timed(*words: str) -> float:
    """Seconds of a process, the quicker of two."""
    seconds = []
    for _ in range(2):
        began = time.monotonic()
        subprocess.run(words, check=True, capture_output=True)
        seconds.append(time.monotonic() - began)
    return min(seconds)


def core() -> None:
    """Import, help, one filter, one metric, counts, and a mapped dataset written as an output."""
    assert Path(memtax.__file__).is_relative_to(sys.prefix), memtax.__file__
    empty = timed(sys.executable, "-I", "-c", "")
    seconds = timed(sys.executable, "-I", "-c", "import memtax") - empty
    assert seconds < IMPORT_SECONDS, f"import memtax took {seconds:.1f} s"
    helped = timed(*COMMAND, "--help")
    version = run("--version").stdout.strip()
    print(f"   {version}; import {seconds:.2f} s; memtax --help {helped:.2f} s")

    texts = [
        f"item {n}, item {n + 1}, item {n + 2}, item {n + 3}" if n % 3 else f"word {n} and other words" for n in range(120)
    ]
    rows = [
        {
            "sequence_id": n,
            "document": n,
            "text": text,
            "tokens": [n % 5, n % 7, 3, 4, n % 11, 6, 7, n % 2],
            "is_memorized": n * 7 % 13 < (8 if n % 3 else 4),
        }
        for n, text in enumerate(texts)
    ]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = json.loads(run("filter", "templates", "compressibility", "rows.jsonl", "--output", "filtered", "--json").stdout)
    assert done["rows"] == len(rows), done
    counts = json.loads(
        run("count", "rows.jsonl", "--column", "tokens", "--window", "0:4", "--output", "counts", "--json").stdout
    )
    assert counts["tokens"] == 8 * len(rows), counts

    import datasets
    import evaluate

    from memtax.filters import CompressibilityFilter, DuplicateFilter, TemplateFilter

    mapped = datasets.Dataset.from_json("rows.jsonl", cache_dir="cache")
    for each in (TemplateFilter(), CompressibilityFilter(), DuplicateFilter("counts")):
        mapped = mapped.map(each, batched=True)
    memtax.write(mapped, "mapped")
    assert memtax.metrics.k_extractability([[1, 2]], [[1, 2]])["k_extractable"] == 1
    assert evaluate.load(memtax.metric_path("templating")).compute(predictions=texts[:2])["templated"] == 0.5
    print("   filter, count, write, metric")


def report() -> None:
    """A page with its figures from a mapped dataset."""
    run("report", "mapped")
    page = Path("mapped/report/index.html").read_text(encoding="utf-8")
    assert "<svg" in page
    assert list(Path("mapped/report/figures").iterdir())


def stats() -> None:
    """The predictor with tests of its factors."""
    run("fit", "mapped/dataset", "--factors", "is_incrementing", "--factors", "huffman_coding_length", "--output", "fit")
    tests = json.loads(Path("fit/models/predictor/inference.json").read_text())
    assert tests["models"]["baseline"]["coefficients"], tests["models"]["baseline"]["reason"]


def tiny_model() -> None:
    """A random GPT-NeoX with a tokenizer of words."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

    words = {"<end>": 0, **{f"w{number}": number for number in range(1, 20)}}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<end>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>").save_pretrained("model")
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=20, max_position_embeddings=64, **shape)).save_pretrained("model")


def lm() -> None:
    """Scores by a model from its files."""
    tiny_model()
    sequences = [{"sequence_id": n, "tokens": [(n * step) % 19 + 1 for step in range(16)]} for n in range(10)]
    Path("tokens.jsonl").write_text("".join(json.dumps(row) + "\n" for row in sequences))
    options = ("--model", "model", "--prompt", "8", "--continuation", "8", "--output", "scores", "--json")
    assert json.loads(run("score", "tokens.jsonl", *options).stdout)["sequences"] == len(sequences)


def explore() -> None:
    """The explorer answers on its port until it is ended."""
    served = subprocess.Popen([*COMMAND, "explore", "mapped", "--no-browser"], stdout=subprocess.PIPE, text=True)
    try:
        line = next(line for line in served.stdout if "http://" in line)
        with urllib.request.urlopen(re.search(r"http://\S+?(?=;|\s)", line)[0], timeout=60) as page:
            assert b"gradio" in page.read().lower()
        served.terminate()
        served.wait(60)
    finally:
        served.kill()


def pii() -> None:
    """Telephone numbers, e-mail addresses and accounts are found."""
    from memtax import privacy

    assert not privacy.missing_packages()
    text = "Call +49 30 901820 or write to ann.lee@example.org; account DE89 3704 0044 0532 0130 00."
    assert {each.kind for each in privacy.find(text)} >= {"email", "telephone", "bank account"}, privacy.find(text)


def spark() -> None:
    """A filter as a Spark job."""
    if subprocess.run(["java", "-version"], capture_output=True).returncode:
        print("   no Java here: Spark is not tried")
        return
    run("filter", "templates", "rows.jsonl", "--engine", "spark", "--master", "local[1]", "--output", "spark")
    local, remote = (memtax.results.read_table(folder, "features") for folder in ("filtered", "spark"))
    assert remote.column("is_incrementing").equals(local.column("is_incrementing"))


def index() -> None:
    """Counts from an index on this disk, written here: the corpus, its suffix array, and where its documents begin."""
    import numpy as np

    tiny_model()
    documents = [[1, 2, 3, 4, 5, 6], [2, 3, 4, 2, 3, 9]]
    corpus = b"".join(b"\xff\xff" + np.array(each, "<u2").tobytes() for each in documents)
    suffixes = sorted(range(0, len(corpus), 2), key=lambda at: corpus[at:])
    Path("index").mkdir()
    Path("index/tokenized.0").write_bytes(corpus)
    Path("index/table.0").write_bytes(b"".join(at.to_bytes(1, "little") for at in suffixes))
    Path("index/offset.0").write_bytes(np.array([0, 2 * (1 + len(documents[0]))], "<u8").tobytes())
    Path("windows.jsonl").write_text('{"sequence_id": 0, "tokens": [2, 3]}\n{"sequence_id": 1, "tokens": [9, 9]}\n')
    run(
        "count",
        "infini-gram:index",
        "--sequences",
        "windows.jsonl",
        "--window",
        "0:2",
        "--tokenizer",
        "model",
        "--output",
        "asked",
    )
    assert memtax.results.read_table("asked", "num_duplicates").column("sequence_duplicates").to_pylist() == [3, 0]


def demo() -> None:
    """Embeddings with the weights that come as a package."""
    run("filter", "embeddings", "rows.jsonl", "--output", "embedded")
    column = memtax.results.read_table("embedded", "features").column("embedding")
    assert len(column[0].as_py()) == 384


CHECKS: dict[str, Callable[[], None]] = {each.__name__: each for each in (lm, report, stats, explore, pii, spark, index, demo)}


def installed(extra: str) -> bool:
    """Whether every module of an extra is there."""
    return all(importlib.util.find_spec(module) is not None for module in EXTRAS[extra])


def missing(extras: Sequence[str]) -> None:
    """What an extra is missing for ends in one line with the command that installs it."""
    Path("folder").mkdir()  # an index on this disk
    if importlib.util.find_spec("transformers") and not Path("model").exists():
        tiny_model()
    for extra in extras:
        if extra == "pii":
            from memtax.pipeline.audit_texts import personal_figures

            line = personal_figures([])["reason"]
        else:
            (line,) = run(*MISSING[extra], code=2).stderr.splitlines()
        wanted = re.search(r"pip install 'memtax\[([a-z,]+)\]'$", line)
        assert wanted, f"{extra}: {line}"
        assert extra in wanted[1].split(",") or not all(map(installed, wanted[1].split(","))), f"{extra}: {line}"
        assert not Path("refused").exists(), extra
    if extras:
        print(f"   one line each without {', '.join(extras)}, such as {command(extras[0])}")


def main(name: str) -> None:
    """Run the checks of one environment."""
    core()
    for extra in CHECKS if name == "all" else [name] * (name != "core"):
        began = time.monotonic()
        CHECKS[extra]()
        print(f"   {extra}: {CHECKS[extra].__doc__} {time.monotonic() - began:.0f} s".replace("\n", " "), flush=True)
    missing([extra for extra in EXTRAS if not installed(extra)])


if __name__ == "__main__":
    main(sys.argv[1])
