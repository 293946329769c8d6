"""Presets: every name in them is loaded by the real loaders, from a Hub on loopback with the published layouts."""

import dataclasses
import gzip
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer.main
import yaml

from helpers.hub import HubServer, parquet, split
from helpers.processes import python
from helpers.small import VOCABULARY, bigram_model, save, transitions, word_tokenizer
from memtax.cli import app
from memtax.errors import MemtaxError
from memtax.jobs.run import Run
from memtax.pipeline.config import RunConfig
from memtax.pipeline.series import Member
from memtax.pipeline.stages import describe
from memtax.published.presets import PRESETS, preset_settings
from memtax.results import read_table

ROWS, LENGTH = 60, 64


def rows(seed, length=LENGTH):
    """Tokens of texts, every second one continued as the model does."""
    rng, best = np.random.default_rng(seed), transitions()[:, 1:].argmax(1) + 1
    made = rng.integers(1, VOCABULARY, (ROWS, length))
    for at in range(1, length):
        made[::2, at] = best[made[::2, at - 1]]
    return made


IDS = np.arange(ROWS) * 1000


def pile(server, scheme):
    sizes = {size: np.full(ROWS, 0.5) for size in ("70M", "12B")}
    server.add(
        "dataset",
        f"EleutherAI/pile-{scheme}-pythia-random-sampled",
        {split("train"): parquet(Index=IDS, Tokens=rows(1).tolist(), **sizes)},
    )
    every = {name: np.arange(VOCABULARY) for name in ("TokenID", "Frequency")}
    files = {split(name): parquet(**every) for name in ("memorized", "non_memorized")}
    server.add("dataset", f"usvsnsp/{scheme}-num-frequencies", files)


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save(bigram_model(transitions()), folder)
    with HubServer() as server:
        for preset in PRESETS.values():
            given = preset.settings
            own = Member(given["model"], given.get("revision", "main"))
            others = [
                Member.parse(text, own.path) for text in (*given.get("checkpoints", ()), given.get("reference_model", ""))
            ]
            for member in dict.fromkeys([own, *(each for each in others if each.revision)]):
                server.add_folder("model", member.path, folder, member.revision)
        for scheme in ("duped", "deduped"):
            pile(server, scheme)
        counts = {split(scheme): parquet(sequence_id=IDS, counts=np.arange(ROWS)) for scheme in ("duped", "deduped")}
        server.add("dataset", "usvsnsp/generation-num-duplicates", counts)
        scores = {split(name): parquet(sequence_id=IDS, nl_scores=np.linspace(0, 1, ROWS)) for name in ("standard", "deduped")}
        server.add("dataset", "usvsnsp/pile-pythia-code-vs-nl-scores", scores)
        matches = {"0.8_frequencies": np.full(ROWS, 3), "0.9_frequencies": np.full(ROWS, 2)}
        names = [f"{scheme}_{kind}" for scheme in ("duped", "deduped") for kind in ("snowclones", "templates")]
        server.add("dataset", "usvsnsp/semantic-duplicates", {split(name): parquet(index=IDS, **matches) for name in names})
        texts = word_tokenizer().batch_decode(rows(2, 2 * LENGTH))
        lines = "".join(json.dumps({"id": str(at), "text": text}) + "\n" for at, text in enumerate(texts)).encode()
        card = b"---\nconfigs:\n- config_name: wiki\n  data_files: data/wiki/*.json.gz\n---\n"
        files = {"README.md": card, "data/wiki/wiki-0000.json.gz": gzip.compress(lines)}
        server.add("dataset", "allenai/olmo-mix-1124", files)
        for name in ("gutenberg_popular", "gutenberg_unpopular", "wikipedia"):
            inserted = parquet(text=texts, duplicates=4 ** (np.arange(ROWS) % 5))
            other = parquet(text=word_tokenizer().batch_decode(rows(3)), duplicates=np.zeros(ROWS, int))
            server.add("dataset", f"allegrolab/passages_{name}", {split("train"): inserted, split("test"): other})
        yield server


def child(hub, cache, *arguments):
    done = python(*map(str, arguments), env=hub.environment(cache, None), cwd=cache)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def cache(hub, tmp_path_factory):
    """A working directory in which everything was loaded and a preset was run."""
    folder = tmp_path_factory.mktemp("cache")
    runs = """
import memtax
memtax.run(preset="pythia:70m-deduped")
"""
    (folder / "said").write_text(child(hub, folder, "-c", LOADERS + runs))
    return folder


LOADERS = """
from memtax.corpus.sequences import load_sequences
from memtax.corpus.sources import Source
from memtax.counting.count_tables import read_duplicates, read_frequencies
from memtax.lm.loading import check_model, load_tokenizer
from memtax.pipeline.given import COLUMNS
from memtax.pipeline.run import _members
from memtax.jobs.run import Run
from memtax.published.lookup import look_up
from memtax.published.presets import PRESETS
from memtax.settings import from_values

done, read, tokenizer = set(), 0, None
def once(*what):
    new = what not in done
    done.add(what)
    return new
for name in PRESETS:
    config = from_values(Run, Run.expand({"preset": name}))
    for member in _members(config):
        # Every model, and every revision of a suite.
        if once(member.path) | once(member.revision):
            check_model(member.path, member.revision, config.window, 0)
    tokenizer = tokenizer or load_tokenizer(config.model, config.revision)
    for source in filter(None, (config.corpus, config.held_out)):
        if once(source):
            loaded = load_sequences(Source.parse(source), window=config.window, tokenizer=tokenizer)
            assert len(loaded.dataset) and not loaded.skipped, source
            ids = loaded.dataset["sequence_id"][:3]
    if config.counts.startswith("usvsnsp") and once(config.counts):
        assert len(read_duplicates(config.counts)[0])
        assert read_frequencies(config.frequencies).total
    for key, source in config.given.items():
        if once(source):
            found = look_up(source, COLUMNS[key], ids, None)
            assert None not in found[COLUMNS[key][0]], source
    read += 1
print(read, *sorted(str(key) for (key,) in done))
"""


def test_every_name_is_loaded_by_the_real_loaders(cache):
    said = (cache / "said").read_text().split()
    assert int(said[0]) == len(PRESETS) == 32
    for kind in ("corpus", "held_out", "code_scores", "semantic_matches", "textual_matches"):
        assert {preset.settings[kind] for preset in PRESETS.values() if kind in preset.settings} <= set(said)


def test_a_preset_needs_no_other_word_and_its_record_replays_it(cache):
    output = cache / "runs" / "pythia-70m-deduped"
    table = read_table(output, "features").to_pydict()
    assert table["sequence_id"] == IDS.tolist()
    assert table["sequence_duplicates"] == list(range(ROWS))
    assert table["last_seen_step"] == [1 + 1000 * row // 1024 for row in range(ROWS)]
    assert table["semantic_matches_0_8"] == [2] * ROWS
    steps = read_table(output, "checkpoints").to_pydict()["step"]
    assert list(dict.fromkeys(steps)) == [23000, 43000, 63000, 83000, 103000, 123000, 143000]
    record = yaml.safe_load((output / "run.yaml").read_text())
    assert record["config"]["preset"] == "pythia:70m-deduped"
    assert record["config"]["model"] == "EleutherAI/pythia-70m-deduped"
    assert Run.load(output / "run.yaml").to_dict() == record["config"]


def test_insertions_are_the_counts_of_every_window_of_a_text(tmp_path):
    word_tokenizer().save_pretrained(tmp_path / "model")
    texts = {"in": [" ".join(["w1"] * length) for length in (9, 3, 4)], "out": ["w2 w3 w4 w5"]}
    for name, counts in (("in", [16, 4, 1]), ("out", [0])):
        pq.write_table(pa.table({"text": texts[name], "duplicates": counts}), tmp_path / f"{name}.parquet")
    config = RunConfig(
        model=str(tmp_path / "model"),
        corpus=str(tmp_path / "in.parquet"),
        held_out=str(tmp_path / "out.parquet"),
        counts="column:duplicates",
        output=tmp_path,
        prompt=2,
        continuation=2,
        bos="never",
    )
    found = describe(config).dataset.to_dict()
    # Two windows of the first text, none of the second, one of the third; then the held-out one.
    assert found["sequence_duplicates"] == [16, 16, 1, 0]
    assert found["is_member"] == [True] * 3 + [False]
    assert found["max_frequency"] == [16] * 3 + [0]
    for name, message in (("nothing", "has no column 'nothing'; its columns are: text, duplicates"), ("text", "whole numbers")):
        changed = dataclasses.replace(config, counts=f"column:{name}", output=tmp_path / name)
        with pytest.raises(MemtaxError, match=message):
            describe(changed)


def test_options_and_files_come_before_a_preset(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("preset: pythia:1b\ncode_scores: null\nprompt: 16\n")
    mine = Run.load(file, continuation=8)
    assert (mine.model, mine.code_scores, mine.prompt, mine.continuation) == ("EleutherAI/pythia-1b", None, 16, 8)
    command = typer.main.get_command(app).commands["run"]
    words = [str(file), "--preset", "pythia:70m", "--seed", "3"]
    given = command.make_context("run", words).params
    # The file's settings come before those of a preset on the command line.
    assert (given["model"], given["prompt"], given["seed"]) == ("EleutherAI/pythia-1b", 16, 3)
    given = command.make_context("run", ["--model", "org/other", "--preset", "hubble:8b-500b-wikipedia"]).params
    assert (given["model"], given["revision"]) == ("org/other", "step238500")


def test_unknown_presets_are_one_line_and_known_ones_complete():
    with pytest.raises(MemtaxError, match=r"no preset 'pythia:71m'; did you mean '.*'\? known: .*pythia:12b$"):
        preset_settings("pythia:71m")
    with pytest.raises(MemtaxError, match=r"no preset 'llama'; known: pythia:\.\.\., olmo:\.\.\., hubble:\.\.\.$"):
        preset_settings("llama")
    command = typer.main.get_command(app).commands["run"]
    (option,) = [each for each in command.params if each.name == "preset"]
    completed = option.shell_complete(typer.Context(command), "olmo:")
    assert [item.value for item in completed] == [name for name in PRESETS if name.startswith("olmo:")]


def test_every_preset_says_where_its_names_are_from():
    for preset in PRESETS.values():
        assert preset.notes
        assert preset.sources
        assert all(re.fullmatch(r"https://\S+", source) for source in preset.sources)


@pytest.mark.long
def test_the_recipe_for_insertions_reads_a_preset_from_the_hub(cache, hub):
    script = Path(__file__).parents[2] / "benchmarks" / "insertions.py"
    said = child(hub, cache, script, "--preset", "hubble:1b-100b-wikipedia", "--attack", "loss", "--attack", "reference")
    rows = [line.split("|")[1:3] for line in said.splitlines() if line.startswith("|")]
    # 60 texts that were not inserted, and 12 of each of five numbers of insertions.
    assert [[int(cell) for cell in row] for row in rows[2:]] == [[0, 60], *([4**power, 12] for power in range(5))]
