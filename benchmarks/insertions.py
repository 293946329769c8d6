"""Membership attacks and counts against the known truth of texts inserted at random, each a known number of times (Hubble).

    python benchmarks/insertions.py                                              # a small model, trained here
    python benchmarks/insertions.py --preset hubble:1b-100b-wikipedia [--corpus 'tokens/*.bin']

Hubble (Wei et al. 2025, arXiv 2510.19811) inserts each text of a kind 0, 1, 4, 16, 64 or 256 times, chosen at random, so that
inserted and other texts differ in nothing else. Printed are, per number of insertions, the AUROC of every attack against the
texts that were not inserted, the share of texts whose tokens 32 to 63 the model recites, and the share whose count in the
corpus is the known one.

Without --preset two models of one shape are trained on the Python standard library, in one pass, like Hubble's: one with the
insertions, and one without, the reference. The inserted texts are written in Hubble's layout: splits `train` and `test`,
columns `text` and `duplicates`.
"""

import argparse
import importlib.util
import random
import sys
import sysconfig
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from transformers import TrainingArguments

import memtax
from memtax import demo, progress
from memtax.corpus.sources import Source, open_dataset
from memtax.files import asset
from memtax.membership.attacks import choose
from memtax.membership.estimates import attack_metrics
from memtax.published.presets import preset_settings
from memtax.results import read_table

LEVELS = (1, 4, 16, 64)
ATTACKS = ("loss", "zlib", "min_k", "min_k_plus_plus", "reference", "ez", "wbc")
SHARE = "0.2"
"""The share of the tokens whose Min-K% is printed."""
CHARACTERS, WINDOW = 360, 64


def write(path: Path, **columns: Sequence[Any]) -> None:
    """Write a table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def make_texts(folder: Path, per_level: int, documents: int, seed: int) -> None:
    """Passages with random numbers of insertions, a corpus without them, and one with them as documents among its own."""
    draw = random.Random(seed)
    root = Path(sysconfig.get_paths()["stdlib"])
    files = [path for name in ("*.py", "asyncio/*.py", "email/*.py", "idlelib/*.py") for path in sorted(root.glob(name))]
    draw.shuffle(files)
    texts = [path.read_text(encoding="utf-8", errors="ignore") for path in files]
    pieces = [[text[at : at + CHARACTERS] for at in range(0, len(text) - CHARACTERS, CHARACTERS)] for text in texts]
    base = [piece for file in pieces[::2] for piece in file][:documents]
    passages = draw.sample([piece for file in pieces[1::2] for piece in file], 2 * per_level * len(LEVELS))
    counts = [count for count in LEVELS for _ in range(per_level)]
    write(folder / "passages" / "train-0.parquet", text=passages[: len(counts)], duplicates=counts)
    write(folder / "passages" / "test-0.parquet", text=passages[len(counts) :], duplicates=[0] * len(counts))
    inserted = [text for text, count in zip(passages, counts, strict=False) for _ in range(count)]
    write(folder / "standard" / "rows.parquet", text=draw.sample(base, len(base)))
    write(folder / "perturbed" / "rows.parquet", text=draw.sample([*base, *inserted], len(base) + len(inserted)))
    demo._write_tokenizer({"train": dict(enumerate(base))}, folder / "tokenizer")  # type: ignore[dict-item]


def train(folder: Path, name: str, seed: int) -> str:
    """One pass over a corpus with the training script; the folder of the model."""
    output = folder / f"{name}-hf"
    if (output / "model.safetensors").exists():
        return str(output)
    specification = importlib.util.spec_from_file_location("train_lm", asset("training/train_lm.py"))
    assert specification is not None
    assert specification.loader is not None
    script = sys.modules["train_lm"] = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)
    shape = script.ModelArguments(str(folder / "tokenizer"), hidden_size=128, num_layers=2, num_heads=4, context_length=192)
    arguments = TrainingArguments(
        str(output),
        num_train_epochs=1,
        learning_rate=2e-3,
        lr_scheduler_type="cosine",
        warmup_steps=20,
        per_device_train_batch_size=8,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        seed=seed,
    )
    script.train(shape, script.DataArguments(str(folder / name), watch_every=None), arguments, watched=[[0] * WINDOW])
    return str(output)


def column(name: str, sources: Sequence[str]) -> list[Any]:
    """A column of all sources, in order."""
    return [value for source in sources for value in open_dataset(Source.parse(source))[name][:]]


def by_id(folder: Path, table: str, name: str) -> dict[int, Any]:
    """A column of a verb's output by `sequence_id`."""
    rows = read_table(folder, table)
    return dict(zip(rows.column("sequence_id").to_pylist(), rows.column(name).to_pylist(), strict=True))


def measure(
    given: Mapping[str, Any], corpus: str | None, attacks: Sequence[str], output: Path
) -> tuple[list[int], dict[str, list[Any]]]:
    """Insertions of each text, and by name: scores of every attack, `recited`, and `count`; null where there is none.

    Args:
        given: settings as in a preset: `model`, `revision`, `reference_model`, `corpus` (texts with `duplicates`), `held_out`.
        corpus: the corpus to count in.
        attacks: names of attacks.
        output: folder of the results.
    """
    sources = [given["corpus"], given["held_out"]]
    known = column("duplicates", sources)
    model = given["model"] + (f"@{given['revision']}" if given.get("revision") else "")
    memtax.mia(
        members=sources[0],
        nonmembers=sources[1],
        model=model,
        reference_model=given["reference_model"],
        attack=attacks,
        resamples=100,
        output=output / "mia",
    )
    values: dict[str, list[Any]] = {}
    names = [name for name in read_table(output / "mia", "scores").column_names if name.startswith("attack_")]
    for name in names:
        if name.startswith("attack_min_k") and not name.endswith(SHARE):
            continue
        scores = by_id(output / "mia", "scores", name)
        # Texts that an attack uses for itself have no score.
        values[name] = [scores.get(row) for row in range(len(known))]
    values |= {"recited": [], "count": []}
    for place, source in enumerate(sources):
        memtax.score(sequences=source, model=model, exact_only=True, output=output / f"score{place}")
        rows = range(len(column("duplicates", [source])))
        recited = by_id(output / f"score{place}", "scores", "is_memorized")
        values["recited"] += [recited.get(row) for row in rows]
        if corpus is not None:
            options = {"window": (f"0:{WINDOW}",), "tokenizer": given.get("tokenizer", given["model"])}
            memtax.count(corpus=(corpus,), sequences=(source,), **options, output=output / f"count{place}")
            found = by_id(output / f"count{place}", "num_duplicates", "sequence_duplicates")
            values["count"] += [found.get(row) for row in rows]
    return known, values


def report(known: Sequence[int], values: Mapping[str, Sequence[Any]]) -> None:
    """Print a row per number of insertions."""
    attacks = [name for name in values if name.startswith("attack_")]
    print(
        "| insertions | texts |", " | ".join(name.removeprefix("attack_") for name in attacks), "| recited | counts as known |"
    )
    print("|---" * (4 + len(attacks)) + "|")
    counts = np.array(known)
    for level in np.unique(counts).tolist():
        own = np.flatnonzero(counts == level)
        cells = []
        for name in attacks if level else ():
            rows = np.concatenate([own, np.flatnonzero(counts == 0)])
            area = attack_metrics(list(counts[rows] > 0), [values[name][row] for row in rows], 100)["auroc"]
            cells.append(
                f"{area['value']:.3f}" + ("" if area["low"] is None else f" ({area['low']:.3f} to {area['high']:.3f})")
            )
        cells += [""] * (len(attacks) - len(cells))
        recited = [values["recited"][row] for row in own if values["recited"][row] is not None]
        same = [values["count"][row] == level for row in own if values["count"] and values["count"][row] is not None]
        shares = [f"{sum(each)} of {len(each)}" if each else "" for each in (recited, same)]
        print(f"| {level} | {len(own)} |", " | ".join([*cells, *shares]), "|")


def main() -> None:
    """Train if no preset is given, measure, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--preset", help="A preset hubble:...; its models and texts come from the Hub.")
    parser.add_argument("--corpus", help="With --preset: the corpus to count in.")
    parser.add_argument("--attack", action="append", help=f"An attack; default: {', '.join(ATTACKS)}.")
    parser.add_argument("--texts", type=int, default=24, help="Without: texts per number of insertions.")
    parser.add_argument("--documents", type=int, default=800, help="Without: other documents.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="Keeps texts, models and results.")
    given = parser.parse_args()
    attacks = tuple(given.attack or ATTACKS)
    choose(attacks)
    progress.set_quiet(True)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        if given.preset:
            settings, corpus = preset_settings(given.preset), given.corpus
        else:
            make_texts(folder, given.texts, given.documents, given.seed)
            passages, corpus = str(folder / "passages"), str(folder / "perturbed")
            settings = {"corpus": passages, "held_out": f"{passages}::test"}
            settings |= {
                "model": train(folder, "perturbed", given.seed),
                "reference_model": train(folder, "standard", given.seed),
            }
        report(*measure(settings, corpus, attacks, folder / "out"))
    print(f"\n{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
