"""Damage finished and unfinished outputs, give the command again, and compare with what nobody disturbed.

    python tests/solid/damaging.py FOLDER --flips 1000               # all verbs
    python tests/solid/damaging.py FOLDER --flips 8 --verb count --seed 3

Each attempt restores the undisturbed output, changes one thing in it (one bit of one file, its time kept; or a part that is
deleted, cut, or replaced by another's), and runs the command in a fork of this process. It must end in the undisturbed bytes,
or be refused in one line. Verbs that read another's output must refuse it or give the undisturbed result. Prints one JSON line
per verb.
"""

import argparse
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


def inputs(folder):
    """The inputs of `killing`, cut to what takes little time."""
    import pyarrow.parquet as pq

    material(folder)
    for name, rows in (("rows.jsonl", 300), ("texts.jsonl", 120), ("few.jsonl", 24), ("pairs.jsonl", 40)):
        lines = (folder / name).read_text().splitlines(True)[:rows]
        (folder / name).write_text("".join(lines))
    pq.write_table(pq.read_table(folder / "many.parquet").slice(0, 1000), folder / "many.parquet")


def commands(given, out):
    """Verb to its words: those of `killing`, and a run."""
    table = verbs(given, out)
    table["count"] = (*table["count"][:4], "--window", "8:16", "--shard-tokens", 1000, "--threads", 1)
    table["run"] = ("run", given / "run.yaml")
    configuration = {"model": given / "model", "corpus": given / "train.jsonl", "held_out": given / "test.jsonl", "output": out}
    lines = [f"{name}: {value}\n" for name, value in {**configuration, "prompt": 8, "continuation": 8}.items()]
    (given / "run.yaml").write_text("".join(lines))
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
        "run": [("report", kept), ("push", kept, "--repo-id", "org/name", "--dry-run"), ("compare", kept, kept, *to)],
        "counterfactual": [(*mia, "--attack", "lira", "--references", kept)],
    }
    return found.get(verb, [])


def run(words, log, before=None):
    """Exit status and what was printed."""
    child = start(words, log, 0) if before is None else start_after(before, words, log)
    began = time.monotonic()
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() - began > LIMIT:
            end(child)
            raise SystemExit(f"{words[0]} hangs: {log.read_text()[-3000:]}")
        time.sleep(0.002)
    return os.waitstatus_to_exitcode(ended[1]), log.read_text(errors="replace")


def start_after(before, words, log):
    if child := os.fork():
        return child
    before()
    # The grandchild runs the command; this process passes its status on.
    status = os.waitpid(start(words, log, 0), 0)[1]
    os._exit(os.waitstatus_to_exitcode(status))


def die_before_the_end():
    """Let the process end where final files begin to be written."""
    from memtax import checksums
    from memtax.counting import count_job as job

    def die(*_, **__):
        os._exit(9)

    checksums.seal = die
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("memtax.") and hasattr(module, "seal"):
            module.seal = die
    job.write_counts = die


def restore(pristine, out):
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(pristine, out)


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)


def flip(path, chance):
    """One bit of a file, its modification time kept."""
    stat, changed = path.stat(), bytearray(path.read_bytes())
    place, bit = chance.randrange(len(changed)), chance.randrange(8)
    changed[place] ^= 1 << bit
    path.write_bytes(changed)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    return f"bit {bit} of byte {place} of {path.name}"


def part_faults(out):
    """Name of a fault to what makes it, for each part: the files with a record of their own."""
    records = sorted(out.rglob(".*.sum"))
    parts = [record.with_name(record.name[1:-4]) for record in records]
    parts += sorted(out.rglob("models/*/adapter_model.safetensors")) + sorted(out.rglob("models/*/model.safetensors"))
    parts = [part for part in parts if part.exists()]
    for part in parts:
        name = part.relative_to(out)
        record = part.with_name(f".{part.name}.sum")
        yield f"{name} deleted", lambda part=part: part.unlink()
        yield f"{name} cut", lambda part=part: os.truncate(part, part.stat().st_size // 2)
        yield f"{name} emptied", lambda part=part: os.truncate(part, 0)
        if record.exists():
            yield f"{name} without its record", lambda record=record: record.unlink()
        for other in [other for other in parts if other.suffix == part.suffix and other != part][:2]:
            yield f"{name} replaced by {other.name}", lambda part=part, other=other: shutil.copy(other, part)
            theirs = other.with_name(f".{other.name}.sum")
            if record.exists() and theirs.exists():

                def both(part=part, other=other, record=record, theirs=theirs):
                    shutil.copy(other, part)
                    shutil.copy(theirs, record)

                yield f"{name} and its record replaced by those of {other.name}", both


def judge(what, status, printed, same):
    """`same`, `again` or `refused`; anything else ends the test."""
    if "Traceback" in printed:
        raise SystemExit(f"{what}: traceback\n{printed[-4000:]}")
    lines = [line for line in printed.splitlines() if line.startswith("memtax: ")]
    again = [line for line in lines if re.search("again$|from the start$|as it is$", line)]
    if status == 0:
        if not same:
            raise SystemExit(f"{what}: another result\n{printed[-2000:]}")
        return "again" if again else "same"
    if status != 2 or len(lines) - len(again) != 1:
        raise SystemExit(f"{what}: ended with {status}\n{printed[-2000:]}")
    return "refused"


def visible(found):
    """Without records, which may differ in what does not count (white space)."""
    return {name: data for name, data in found.items() if not any(part.startswith(".") for part in name.split("/"))}


def matrix(verb, words, given, out, flips, faults, chance):
    log, pristine, unfinished = (out.parent / f"{verb}{end}" for end in (".log", ".whole", ".unfinished"))
    for folder in (out, pristine, unfinished):
        shutil.rmtree(folder, ignore_errors=True)
    run(words, log, die_before_the_end)
    shutil.copytree(out, unfinished)
    status, printed = run(words, log)
    if status:
        raise SystemExit(f"{verb} does not go on: {printed}")
    wanted = visible(content(out))
    shutil.rmtree(out)
    status, printed = run(words, log)
    if status or visible(content(out)) != wanted:
        raise SystemExit(f"{verb} undisturbed: {printed}")
    shutil.copytree(out, pristine)
    counts = Counter()

    def attempt(what, base, damage):
        restore(base, out)
        done = damage()
        status, printed = run(words, log)
        counts[judge(f"{verb}, {what or done}", status, printed, visible(content(out)) == wanted)] += 1

    for number in range(flips):
        base = unfinished if number % 3 == 2 and files(unfinished) else pristine
        place = chance.choice([path.relative_to(base) for path in files(base)])
        attempt("", base, lambda place=place: flip(out / place, chance))
    restore(pristine, out)
    every = list(part_faults(out))
    for what, damage in chance.sample(every, min(faults, len(every))) if faults is not None else every:
        attempt(what, pristine, damage)
    figures = {"verb": verb, "files": len(files(pristine)), "parts": len(list(pristine.rglob(".*.sum"))), **counts}
    return figures | {"readers": dict(read(verb, given, out, pristine, wanted, flips, chance))}


def read(verb, given, out, pristine, wanted, flips, chance):
    """Damage what other verbs read: refused, or the same result as without."""
    result, counts = out.parent / "result", Counter()
    log = out.parent / "reader.log"
    for words in readers(verb, given, out, result):
        restore(pristine, out)
        shutil.rmtree(result, ignore_errors=True)
        status, printed = run(words, log)
        if status:
            raise SystemExit(f"{words[0]} after {verb}: {printed}")
        undisturbed = seen(words, out, result, printed, wanted)
        for _ in range(max(1, flips // 3)):
            restore(pristine, out)
            shutil.rmtree(result, ignore_errors=True)
            done = flip(chance.choice(recorded(out)), chance)
            status, printed = run(words, log)
            same = status or seen(words, out, result, printed, wanted) == undisturbed or "used as it is" in printed
            counts[judge(f"{words[0]} after {verb}, {done}", status, printed, same)] += 1
    return counts


def recorded(out):
    """Files that readers may look at, and the record of them."""
    others = ("stage.json", "index.html")
    found = [path for path in files(out) if path.name not in others and "figures" not in path.parts]
    return [path for path in found if not path.name.startswith(".") or "checksums" in path.name]


def seen(words, out, result, printed, wanted):
    """What a reader gave: its output, its page or its lines."""
    if words[0] == "report":
        return (out / "report" / "index.html").read_bytes()
    return visible(content(result)) if result.exists() else printed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--flips", type=int, default=300)
    parser.add_argument("--faults", type=int, help="parts that are damaged, a verb; all if not given")
    parser.add_argument("--verb", action="append")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
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
    if "predict" in chosen:
        words = (*table["fit"][:2], "--output", folder / "fitted", *table["fit"][4:])
        run(words, folder / "fit.log")
    for number, verb in enumerate(chosen):
        share = options.flips // len(chosen) + (number < options.flips % len(chosen))
        began = time.monotonic()
        found = matrix(verb, table[verb], folder / "given", out, share, options.faults, chance)
        sys.stdout.write(json.dumps({**found, "seconds": round(time.monotonic() - began)}) + "\n")
        sys.stdout.flush()


def more_inputs(given):
    """What readers need besides."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    other = pa.table({"sequence_id": range(300), "is_memorized": [i % 3 == 0 for i in range(300)]})
    pq.write_table(other, given / "other.parquet")
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
