"""Kill verbs at random moments until they are through, and compare with a run that nobody disturbed.

    python tests/solid/killing.py FOLDER --kills 100            # all verbs
    python tests/solid/killing.py FOLDER --kills 8 --verb count --seed 3
    python tests/solid/killing.py FOLDER --minutes 60 --memory 6  # soak, with an address space limit in GiB

The heavy modules are imported once; each attempt is a fork of this process, killed with its children by SIGKILL. Half of the
kills come after a random time, half as soon as a further name appears in the output. Prints one JSON line per verb.
"""

import argparse
import faulthandler
import json
import os
import random
import resource
import shutil
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
# Seconds until a run counts as hanging; before that it says where it stands. Wide, as a busy machine may let one wait for long.
LIMIT = 900
TIMES = (b"finished:", b"seconds:")


def serve():
    """The loopback Hub in a process of its own; returns its address and process id."""
    from helpers.hub import HubServer

    reader, writer = os.pipe()
    if not (child := os.fork()):
        with HubServer() as hub:
            os.write(writer, hub.url.encode())
            os.close(writer)
            signal.pause()
    os.close(writer)
    return os.read(reader, 1000).decode(), child


def material(folder, rows_to_predict=600_000):
    """A model, and inputs for every verb; the default makes three parts of `predict`."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    from helpers.small import WORDS, random_texts, word_tokenizer

    folder.mkdir(parents=True)
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "eos_token_id": 0}
    GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=len(WORDS), max_position_embeddings=64, **shape)).save_pretrained(
        folder / "model"
    )
    word_tokenizer().save_pretrained(folder / "model")
    rng = np.random.default_rng(0)

    def lines(name, rows):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    ids = rng.integers(1, len(WORDS), (40_000, 32))
    lines("rows.jsonl", ({"sequence_id": i, "tokens": row} for i, row in enumerate(ids.tolist())))
    texts = random_texts(240, 24)
    lines("texts.jsonl", ({"text": text, "label": i % 2} for i, text in enumerate(texts)))
    lines("few.jsonl", ({"text": text} for text in texts[:24]))
    pairs = ({"text": text, "paraphrases": [texts[-1 - i], None]} for i, text in enumerate(texts[:120]))
    lines("pairs.jsonl", pairs)
    lines("train.jsonl", ({"text": text} for text in texts[:60]))
    lines("test.jsonl", ({"text": text} for text in texts[60:80]))
    rows = 2000
    a, b = rng.normal(size=(2, rows))
    table = {
        "sequence_id": np.arange(rows),
        "a": a,
        "b": b,
        "sequence_duplicates": rng.integers(0, 12, rows),
        "taxonomy": pa.array(rng.integers(0, 3, rows), pa.int64()),
        "is_memorized": rng.random(rows) < 1 / (1 + np.exp(1 - a + b)),
    }
    pq.write_table(pa.table(table), folder / "table.parquet")
    a, b = rng.normal(size=(2, rows_to_predict))
    categories = pa.array(rng.integers(0, 3, len(a)), pa.int64())
    many = {"sequence_id": np.arange(len(a)), "a": a, "b": b, "taxonomy": categories}
    pq.write_table(pa.table(many), folder / "many.parquet")


def verbs(given, out):
    """Verb to its words."""
    model, few = ("--model", given / "model"), given / "few.jsonl"
    to, own = ("--output", out), "a:linear,b:linear"
    audited = ("--train", given / "train.jsonl", "--held-out", given / "test.jsonl")
    return {
        "count": ("count", given / "rows.jsonl", *to, "--window", "8:16", "--shard-tokens", 100_000, "--threads", 1),
        "score": ("score", given / "rows.jsonl", *model, *to, "--prompt", 8, "--continuation", 8, "--batch-size", 64),
        "filter": ("filter", "templates", "compressibility", given / "texts.jsonl", *to),
        "fit": ("fit", given / "table.parquet", *to, "--factors", own, "--resamples", 20),
        "search": ("search", given / "table.parquet", *to, "--factors", own, "--split-on", own, "--resamples", 20),
        "predict": ("predict", out.parent / "fitted", given / "many.parquet", *to),
        "paraphrase": ("paraphrase", few, *model, *to, "--count", 2, "--beams", 2, "--batch-size", 4),
        "align": ("align", given / "pairs.jsonl", *model, *to),
        "mia": ("mia", given / "texts.jsonl", *model, *to, "--attack", "loss", "--attack", "min_k", "--resamples", 50),
        "influence": ("influence", given / "train.jsonl", given / "test.jsonl", *model, *to, "--parameters", "head"),
        "audit": ("audit", *model, *audited, *to, "--prompt", 8, "--continuation", 8, "--resamples", 20),
        "counterfactual": ("counterfactual", few, *model, *to, "--models", 4, "--epochs", 2, "--full"),
        "push": ("push", out.parent / "fitted", "--repo-id", "org/pushed"),
        "demo": ("demo", *to),
    }


def small_demo():
    """The demo with a smaller preset: the same steps in half a minute."""
    from memtax import demo

    demo.PER_DOCUMENT = 6
    demo.TRAINING |= {"num_train_epochs": 2, "warmup_steps": 2}
    demo.MODEL |= {"hidden_size": 64, "num_layers": 1}
    demo.CHECKPOINTS, demo.STOP_AT_RATE = 2, 1.0
    demo.can_embed = lambda: False


def start(words, log, memory, prepare=lambda: None):
    """Fork: the child prepares itself, then runs the command as if typed."""
    if child := os.fork():
        return child
    try:
        os.setsid()
        prepare()
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        faulthandler.dump_traceback_later(LIMIT - 20)
        if memory:
            resource.setrlimit(resource.RLIMIT_AS, (int(memory * 2**30),) * 2)
        sys.argv = ["memtax", "--quiet", *map(str, words)]
        from memtax import cli

        cli.main()
        code = 0
    except SystemExit as ended:
        code = ended.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stderr.flush()
    sys.stdout.flush()
    os._exit(code)


def names(out):
    return sum(len(files) + len(folders) for _, folders, files in os.walk(out))


def end(child):
    """SIGKILL for the child and its children."""
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:
        # It has not come to `setsid` yet, and has no children.
        os.kill(child, signal.SIGKILL)


def attempt(words, out, log, memory=0, delay=None, further=None):
    """One run, killed after `delay` seconds or once `further` names have appeared. Returns whether it came to its end."""
    child, began, before = start(words, log, memory), time.monotonic(), names(out)
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            if status:
                raise SystemExit(f"{words[0]} ended with {status}: {log.read_text()[-3000:]}")
            return True
        passed = time.monotonic() - began
        if (delay is not None and passed > delay) or (further is not None and names(out) >= before + further):
            end(child)
            os.waitpid(child, 0)
            return False
        if passed > LIMIT:
            end(child)
            raise SystemExit(f"{words[0]} hangs: {log.read_text()[-5000:]}")
        time.sleep(0.001 if further is not None else 0.003)


def content(out):
    """Relative name to bytes; of `run.yaml` all but its times."""
    found = {}
    for path in sorted(out.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            if path.name == "run.yaml":
                data = b"".join(line for line in data.splitlines(True) if not line.startswith(TIMES))
            found[str(path.relative_to(out))] = data
    return found


def entries(name, data):
    """Entries of the metadata of a safetensors file."""
    if not name.endswith(".safetensors"):
        return 0
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return len(header.get("__metadata__", ()))


def pushed():
    """Name of each file on the loopback Hub to its object id."""
    from huggingface_hub import HfApi

    found = {}
    for name, kind in (("org/pushed", "dataset"), ("org/pushed-predictor", "model")):
        tree = HfApi().list_repo_tree(name, repo_type=kind, recursive=True)
        found |= {f"{name}/{each.path}": each.blob_id for each in tree if hasattr(each, "blob_id")}
    return found


def clean(verb, out):
    shutil.rmtree(out, ignore_errors=True)
    if verb == "push":
        from huggingface_hub import HfApi

        HfApi().delete_repo("org/pushed", repo_type="dataset", missing_ok=True)
        HfApi().delete_repo("org/pushed-predictor", missing_ok=True)


def result(verb, out):
    return pushed() if verb == "push" else content(out)


def matrix(verb, words, out, kills, chance, memory):
    """Kill one verb so many times; return the figures."""
    log = out.parent / f"{verb}.log"
    # The first run fills the caches of readers and compilers; the second tells how long one takes.
    for _ in range(2):
        clean(verb, out)
        began = time.monotonic()
        attempt(words, out, log, memory)
    took, wanted = time.monotonic() - began, result(verb, out)
    total = names(out)
    # The order of several entries is random from process to process, but the forks of this one may agree.
    if verb != "push" and (several := [name for name, data in wanted.items() if entries(name, data) > 1]):
        raise SystemExit(f"{verb} writes metadata of more than one entry: {several}")
    clean(verb, out)
    done, rounds, fresh = 0, 0, True
    while done < kills or not fresh:
        if done >= kills:
            over = attempt(words, out, log, memory)
        elif total and chance.random() < 0.5:
            over = attempt(words, out, log, memory, further=chance.randint(1, max(1, total // 2)))
        else:
            over = attempt(words, out, log, memory, delay=chance.uniform(0.02, took))
        done += not over
        fresh = over
        if over:
            rounds += 1
            found = result(verb, out)
            different = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
            if different:
                raise SystemExit(f"{verb} after {done} kills differs in {different[:8]}")
            if left := [path.name for path in out.parent.glob(".*") if out.name in path.name]:
                raise SystemExit(f"{verb} left {left}")
            clean(verb, out)
    return {"verb": verb, "kills": done, "runs": rounds, "files": len(wanted), "undisturbed_seconds": round(took, 1)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=0)
    parser.add_argument("--memory", type=float, default=0)
    parser.add_argument("--verb", action="append")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    # The matrix owns this folder.
    folder = options.folder.absolute()
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("HF_HUB_OFFLINE", "HF_EVALUATE_OFFLINE"):
        os.environ.pop(name, None)
    url, server = serve()
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_ENDPOINT": url, "HF_TOKEN": "hf_loopback", "HF_HOME": str(folder / "cache")}
    os.environ |= {"HF_HUB_DISABLE_XET": "1", "HF_UPDATE_DOWNLOAD_COUNTS": "0", "HF_HUB_DISABLE_TELEMETRY": "1"}
    try:
        _run(options, folder)
    finally:
        os.kill(server, signal.SIGKILL)


def _run(options, folder):
    import datasets  # noqa: F401
    import sklearn.linear_model  # noqa: F401
    import torch
    import tqdm
    import transformers.models.gpt_neox.modeling_gpt_neox  # noqa: F401

    import memtax.cli
    import memtax.counting.kernels
    import memtax.pipeline.fitting  # noqa: F401

    torch.set_num_threads(1)
    # The lock of tqdm's own is a semaphore that forks share: one killed while holding it stops all later ones.
    tqdm.tqdm.set_lock(threading.RLock())
    small_demo()
    chance, out = random.Random(options.seed), folder / "out"
    table = verbs(folder / "given", out)
    chosen = options.verb or list(table)
    material(folder / "given", 600_000 if "predict" in chosen else 1)
    if {"push", "predict"} & {*chosen}:
        fit = (*table["fit"][:2], "--output", folder / "fitted", *table["fit"][4:])
        attempt(fit, folder / "fitted", folder / "fit.log")
    until, number = time.monotonic() + 60 * options.minutes, 0
    while True:
        for verb in chosen:
            # The remainder of the division goes to the first ones.
            share = options.kills // len(chosen) + (chosen.index(verb) < options.kills % len(chosen))
            found = matrix(verb, table[verb], out, share, chance, options.memory)
            sys.stdout.write(json.dumps({"seed": options.seed, **found}) + "\n")
            sys.stdout.flush()
            if options.minutes and time.monotonic() > until:
                return
        number += 1
        if not options.minutes:
            return


if __name__ == "__main__":
    main()
