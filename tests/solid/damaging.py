"""Damage finished and unfinished outputs, give the command again, and compare with what nobody disturbed.

    python tests/solid/damaging.py FOLDER --flips 1000               # all verbs
    python tests/solid/damaging.py FOLDER --flips 8 --verb count --seed 3

Each attempt restores an undisturbed output, finished or as a killed job left it, changes one thing in it (one bit of one file,
its time kept; or a file that is deleted, cut, or replaced by another), and runs the command in a fork of this process. It must
end in the undisturbed bytes, or be refused in one line. Verbs that read another's output must refuse it or give the undisturbed
result. Foreign files lie in every output and must survive. Prints one JSON line per verb, and at the end what went wrong.
"""

import argparse
import contextlib
import importlib
import itertools
import json
import os
import random
import re
import shutil
import sys
import time
from collections import Counter
from pathlib import Path

from killing import content, end, material, start, verbs

LIMIT = 300
FOREIGN = (
    ".bashrc.20250101.old",
    "project/deep/.env.backup01.old",
    ".config.20250101.old/settings",
    ".tmpAb12Cd",
    ".x.memtax-99999999-0123456789abcdef-0.tmp/x",
    "part-99999.parquet.tmp",
)
"""Files of the user's in an output, by names that look as if a program had left them."""
FOREIGN_EVERYWHERE = ("notes.txt", ".notes.draft_01.tmp")
"""Likewise, in every folder of it."""

wrong: list[str] = []
"""What should not have happened."""


def small_parts():
    """Batches and parts so small that each verb writes several."""
    from memtax.attribution import alignment, influence_table
    from memtax.counting import resume
    from memtax.membership import measure as membership
    from memtax.paraphrasing import paraphraser as paraphrase
    from memtax.pipeline import filtering, scoring, stages
    from memtax.predictor import prediction as predict
    from memtax.predictor import source_tables as tables

    scoring.ROWS_PER_BATCH = 64
    filtering.ROWS_PER_BATCH = stages.ROWS_PER_BATCH = 4
    membership.ROWS_PER_BATCH = 16
    alignment.ROWS_PER_BATCH = 4
    paraphrase.ROWS_PER_BATCH = 8
    influence_table.ROWS_PER_PART = 16
    tables.BATCH, predict.PART = 128, 2
    resume.FileCheckpoint.seconds = resume.FileCheckpoint.SHARE = 0


def draw_nothing():
    """Drawing takes most of the time of some verbs; the files of figures appear, and are damaged, without it."""
    from matplotlib.figure import Figure

    def save(self, file, **options):
        file.write("<svg ></svg>" if options["format"] == "svg" else b"no picture")

    Figure.savefig = save


def inputs(folder):
    """The inputs of `killing`, cut to what takes little time."""
    material(folder, 1000)
    for name, rows in (("rows.jsonl", 300), ("texts.jsonl", 120), ("few.jsonl", 24), ("pairs.jsonl", 40)):
        lines = (folder / name).read_text().splitlines(True)[:rows]
        (folder / name).write_text("".join(lines))


def commands(given, out):
    """Verb to its words: those of `killing`, and a run."""
    table, to = verbs(given, out), ("--output", out)
    table["count"] = (*table["count"][:4], "--window", "8:16", "--shard-tokens", 1000, "--threads", 1)
    table["run"] = ("run", given / "run.yaml")
    configuration = {"model": given / "model", "corpus": given / "train.jsonl", "held_out": given / "test.jsonl", "output": out}
    lines = [f"{name}: {value}\n" for name, value in {**configuration, "prompt": 8, "continuation": 8}.items()]
    (given / "run.yaml").write_text("".join(lines))
    table["compare"] = ("compare", given / "before.parquet", given / "other.parquet", *to)
    table["report"] = ("report", out)
    return {name: words for name, words in table.items() if name not in ("push", "demo")}


def readers(verb, given, kept, result):
    """Commands that read what a verb wrote into `kept`, and write into `result`."""
    model, to = ("--model", given / "model"), ("--output", result)
    mia = ("mia", given / "few_labeled.jsonl", *model, *to, "--resamples", 10)
    found = {
        "fit": [("predict", kept, given / "many.parquet", *to), ("push", kept, "--repo-id", "org/name", "--dry-run")],
        "count": [("filter", "duplicates", given / "rows.jsonl", "--counts", kept, *to)],
        "score": [("compare", kept, given / "other.parquet", *to)],
        "predict": [("predict", given.parent / "fitted", kept, *to)],
        "audit": [("report", kept / "run")],
        "run": [("report", kept), ("push", kept, "--repo-id", "org/name", "--dry-run"), ("compare", kept, kept, *to)],
        "counterfactual": [(*mia, "--attack", "lira", "--references", kept)],
    }
    return found.get(verb, [])


def run(words, log, prepare=lambda: None):
    """Exit status and what was printed."""
    child, began = start(words, log, 0, prepare), time.monotonic()
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() - began > LIMIT:
            end(child)
            raise SystemExit(f"{words[0]} hangs: {log.read_text()[-3000:]}")
        time.sleep(0.002)
    return os.waitstatus_to_exitcode(ended[1]), log.read_text(errors="replace")


def at_renames(out, act):
    """Call `act` with the number of each file or directory that appears by rename in an output, before it appears."""
    rename, numbers = os.replace, itertools.count(1)

    def replace(source, to, **named):
        # Not in caches, which only the first run fills.
        if Path(to).is_relative_to(out):
            act(next(numbers))
        rename(source, to, **named)

    os.replace = replace


def at_exit(act):
    """Call `act` when the process ends."""
    leave = os._exit

    def left(code):
        act()
        leave(code)

    os._exit = left


def unfinished(words, out, log, begin):
    """What a job leaves that is killed at the first third of its renames, at the second, and at the last."""
    notes, modules = out.parent / "renames", out.parent / "modules"
    notes.write_bytes(b"")

    def note(number):
        with notes.open("ab") as file:
            file.write(b".")

    begin()
    status, printed = run(
        words, log, lambda: (at_renames(out, note), at_exit(lambda: modules.write_text("\n".join(sys.modules))))
    )
    if status:
        raise SystemExit(f"{words[0]} undisturbed: {printed}")
    # Once for all forks.
    for name in modules.read_text().splitlines():
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    total = notes.stat().st_size
    for number in sorted({max(1, total // 3), max(1, 2 * total // 3), total}):
        begin()
        run(words, log, lambda number=number: at_renames(out, lambda n: os._exit(9) if n == number else None))
        base = out.parent / f"{words[0]}.unfinished{number}"
        shutil.rmtree(base, ignore_errors=True)
        shutil.copytree(out, base)
        yield base


def restore(pristine, out):
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(pristine, out)


def files(folder):
    """Files that memtax wrote and that hold anything."""
    every = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    return [path for path in every if not is_foreign(path.relative_to(folder))]


def is_foreign(name):
    return str(name) in FOREIGN or name.name in FOREIGN_EVERYWHERE


def plant(folder):
    """Put foreign files into an output, also into its folders, but for temporary ones, which go with what made them."""
    from memtax.journal import is_temporary

    folders = [path for path in folder.rglob("*") if path.is_dir() and not any(map(is_temporary, path.parts))]
    for path in [*(folder / name for name in FOREIGN), *(one / name for one in folders for name in FOREIGN_EVERYWHERE)]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"foreign {path.name}")


def survivors(folder):
    """Foreign files with what they should hold."""
    every = (path for path in folder.rglob("*") if path.is_file() and is_foreign(path.relative_to(folder)))
    return {str(path.relative_to(folder)) for path in every if path.read_text() == f"foreign {path.name}"}


def flip(path, chance):
    """One bit of a file, its modification time kept."""
    stat, changed = path.stat(), bytearray(path.read_bytes())
    place, bit = chance.randrange(len(changed)), chance.randrange(8)
    changed[place] ^= 1 << bit
    path.write_bytes(changed)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    return f"bit {bit} of byte {place} of {path.name}"


def faults_of(out):
    """What can be done to each file: parts, which have a record of their own, and final files."""
    chosen = [path for path in files(out) if not path.name.startswith(".")]
    for file in chosen:
        name, record = file.relative_to(out), file.with_name(f".{file.name}.sum")
        yield f"{name} deleted", file.unlink
        yield f"{name} cut", lambda file=file: os.truncate(file, file.stat().st_size // 2)
        if record.exists():
            yield f"{name} emptied", lambda file=file: os.truncate(file, 0)
            yield f"{name} without its record", record.unlink
        others = [other for other in chosen if other.suffix == file.suffix and other != file]
        for other in others[: 2 if record.exists() else 1]:
            yield f"{name} replaced by {other.relative_to(out)}", lambda file=file, other=other: shutil.copy(other, file)
            theirs = other.with_name(f".{other.name}.sum")
            if record.exists() and theirs.exists():

                def both(file=file, other=other, record=record, theirs=theirs):
                    shutil.copy(other, file)
                    shutil.copy(theirs, record)

                yield f"{name} and its record replaced by those of {other.name}", both


def judge(what, status, printed, same):
    """`same`, `again` or `refused`; anything else is `wrong`."""
    if "Traceback" in printed:
        wrong.append(f"{what}: traceback\n{printed[-4000:]}")
        return "wrong"
    lines = [line for line in printed.splitlines() if line.startswith("memtax: ")]
    again = [line for line in lines if re.search("again$|from the start$|as it is$", line)]
    if status == 0:
        if not same:
            wrong.append(f"{what}: another result\n{printed[-2000:]}")
            return "wrong"
        return "again" if again else "same"
    if status != 2 or len(lines) - len(again) != 1:
        wrong.append(f"{what}: ended with {status}\n{printed[-2000:]}")
        return "wrong"
    return "refused"


def visible(found, verb=""):
    """Without foreign files, and without records, which may differ in what does not count (white space)."""
    shown = {name: data for name, data in found.items() if not any(part.startswith(".") for part in name.split("/"))}
    # The report neither writes nor reads the parts of a run.
    shown = {name: data for name, data in shown.items() if verb != "report" or name.startswith("report/")}
    return {name: data for name, data in shown.items() if not is_foreign(Path(name))}


def undamaged(verb, words, out, log):
    """Its whole output, its output at points of its work (foreign files in each), and what is to come of them."""
    pristine = out.parent / f"{verb}.whole"

    def begin():
        shutil.rmtree(out, ignore_errors=True)
        if verb == "report":
            shutil.copytree(out.parent / "run.done", out)

    bases = [*unfinished(words, out, log, begin)]
    status, printed = run(words, log)
    if status:
        raise SystemExit(f"{verb} does not go on: {printed}")
    once = visible(content(out), verb)
    begin()
    status, printed = run(words, log)
    if status or visible(content(out), verb) != once:
        raise SystemExit(f"{verb} undisturbed: {printed}")
    shutil.rmtree(pristine, ignore_errors=True)
    shutil.copytree(out, pristine)
    for base in (pristine, *bases):
        plant(base)
    return pristine, bases, once


def matrix(verb, words, given, out, flips, faults, chance):
    log = out.parent / f"{verb}.log"
    pristine, bases, once = undamaged(verb, words, out, log)
    counts = Counter()

    def attempt(what, base, damage):
        restore(base, out)
        foreign = survivors(out)
        done = damage()
        status, printed = run(words, log)
        what = f"{verb}, {base.name}, {what or done}"
        counts[judge(what, status, printed, visible(content(out), verb) == once)] += 1
        if lost := foreign - survivors(out):
            wrong.append(f"{what}: lost {sorted(lost)}")

    attempt("undisturbed among foreign files", pristine, lambda: None)
    for number in range(flips):
        base = bases[number // 3 % len(bases)] if number % 3 == 2 else pristine
        place = chance.choice([path.relative_to(base) for path in files(base)])
        attempt("", base, lambda place=place: flip(out / place, chance))
    for base in (pristine, bases[-1]):
        restore(base, out)
        every = list(faults_of(out))
        for what, damage in chance.sample(every, min(faults, len(every))) if faults is not None else every:
            attempt(what, base, damage)
    figures = {"verb": verb, "files": len(files(pristine)), "parts": len(list(pristine.rglob(".*.sum"))), **counts}
    return figures | {"readers": dict(read(verb, given, out, pristine, flips, chance))}


def read(verb, given, out, pristine, flips, chance):
    """Damage what other verbs read: refused, or the same result as without."""
    result, counts = out.parent / "result", Counter()
    log = out.parent / "reader.log"
    for words in readers(verb, given, out, result):
        restore(pristine, out)
        shutil.rmtree(result, ignore_errors=True)
        status, printed = run(words, log)
        if status:
            raise SystemExit(f"{words[0]} after {verb}: {printed}")
        undisturbed = seen(words, out, result, printed)
        for _ in range(max(1, flips // 3)):
            restore(pristine, out)
            shutil.rmtree(result, ignore_errors=True)
            done = flip(chance.choice(recorded(out)), chance)
            status, printed = run(words, log)
            same = status or seen(words, out, result, printed) == undisturbed or "used as it is" in printed
            counts[judge(f"{words[0]} after {verb}, {done}", status, printed, same)] += 1
    return counts


def recorded(out):
    """Files that readers may look at, and the record of them."""
    others = ("stage.json", "index.html")
    found = [path for path in files(out) if path.name not in others and "figures" not in path.parts]
    return [path for path in found if not path.name.startswith(".") or "checksums" in path.name]


def seen(words, out, result, printed):
    """What a reader gave: its page, its lines, or its output without records: they hold the digest of what was read."""
    if words[0] == "report":
        return (words[1] / "report" / "index.html").read_bytes()
    if not result.exists():
        return printed
    return {name: data for name, data in visible(content(result)).items() if Path(name).name not in ("run.yaml", "stage.json")}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--flips", type=int, default=300)
    parser.add_argument("--faults", type=int, help="files deleted, cut or swapped, per verb and base; all if not given")
    parser.add_argument("--verb", action="append")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    import memtax

    folder = options.folder.absolute()
    shutil.rmtree(folder, ignore_errors=True)
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "cache")}
    prepare()
    inputs(folder / "given")
    more_inputs(folder / "given")
    chance, out = random.Random(options.seed), folder / "out"
    table = commands(folder / "given", out)
    chosen = options.verb or list(table)
    small_parts()
    draw_nothing()
    # Here and not in a fork: what is compiled and looked up once is then there for all forks.
    memtax.count(corpus=[str(folder / "given" / "rows.jsonl")], window=["8:16"], output=str(folder / "first"), threads=1)
    if "predict" in chosen:
        words = (*table["fit"][:2], "--output", folder / "fitted", *table["fit"][4:])
        run(words, folder / "fit.log")
    if "report" in chosen:
        run(table["run"], folder / "run.log")
        shutil.copytree(out, folder / "run.done")
    for number, verb in enumerate(chosen):
        share = options.flips // len(chosen) + (number < options.flips % len(chosen))
        began = time.monotonic()
        found = matrix(verb, table[verb], folder / "given", out, share, options.faults, chance)
        sys.stdout.write(json.dumps({**found, "seconds": round(time.monotonic() - began)}) + "\n")
        sys.stdout.flush()
    if wrong:
        raise SystemExit("\n\n".join(wrong))


def more_inputs(given):
    """What readers need besides."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    other = pa.table({"sequence_id": range(300), "is_memorized": [i % 3 == 0 for i in range(300)]})
    pq.write_table(other, given / "other.parquet")
    pq.write_table(other.set_column(1, "is_memorized", [[i % 5 == 0 for i in range(300)]]), given / "before.parquet")
    texts = [json.loads(line) for line in (given / "few.jsonl").read_text().splitlines()]
    rows = (json.dumps({**row, "sequence_id": i, "label": i % 2}) + "\n" for i, row in enumerate(texts))
    (given / "few_labeled.jsonl").write_text("".join(rows))


def prepare():
    """Import what is heavy once."""
    import threading

    import datasets  # noqa: F401
    import sklearn.linear_model  # noqa: F401
    import torch
    import tqdm
    import transformers.models.gpt_neox.modeling_gpt_neox  # noqa: F401

    from memtax.provenance import git_commit

    # Once for all forks: what is edited meanwhile makes no difference.
    git_commit()
    torch.set_num_threads(1)
    tqdm.tqdm.set_lock(threading.RLock())


if __name__ == "__main__":
    main()
