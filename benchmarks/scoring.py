"""The forward pass beside what else one could do: its bare parts, cached generation, and the reference's way.

    python benchmarks/scoring.py                     # CPU, Pythia-70m shape, float32
    python benchmarks/scoring.py --shape 410m --batch 1024   # a GPU, where there is one

Weights are random: time does not depend on them, except where it is said. The fast ones are measured in turns on the same
rows, and the median of the rounds is shown; the slow ones run once. Peak memory is the growth of the process's resident peak
(CPU) or the allocator's peak (GPU) while it ran, each in a process of its own.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GPTNeoXConfig

from memtax.lm import extraction
from memtax.lm.decoding import Decoding
from memtax.lm.generation import match_lengths
from memtax.lm.head import decompose
from memtax.lm.scores import score

SHAPES = {
    "70m": {"hidden_size": 512, "num_hidden_layers": 6, "num_attention_heads": 8},
    "410m": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16},
    "tiny": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
}
PROMPT = CONTINUATION = 32
SLOW = ("the reference", "generate")


def build(shape: str, device: str, dtype: torch.dtype = torch.float32) -> Any:
    """A GPT-NeoX of Pythia's shape with random weights; "tiny" is for checks of the scripts."""
    torch.manual_seed(0)
    sizes = SHAPES[shape]
    vocabulary = 512 if shape == "tiny" else 50_304
    config = GPTNeoXConfig(vocab_size=vocabulary, intermediate_size=4 * sizes["hidden_size"], **sizes)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    # Logits spread like a trained model's: a nearly uniform next token would make top-p sort the whole vocabulary.
    model.get_output_embeddings().weight.mul_(8)
    return model.to(device=device, dtype=dtype)


def memorize(model: Any, rows: list[list[int]], share: float) -> list[list[int]]:
    """Replace the continuations of some rows by the model's own greedy ones: those are memorized, the others are not."""
    count = int(len(rows) * share)
    if count:
        own = generated(model, [row[:PROMPT] for row in rows[:count]])
        rows[:count] = [row[:PROMPT] + tokens for row, tokens in zip(rows[:count], own, strict=True)]
    return rows


@torch.inference_mode()
def bare(model: Any, rows: list[list[int]], batch: int) -> None:
    """The least that log-probabilities take: backbone, head at the needed positions, logsumexp."""
    parts = decompose(model)
    assert parts is not None
    for start in range(0, len(rows), batch):
        ids = torch.tensor(rows[start : start + batch], device=model.device)
        hidden = parts.backbone(input_ids=ids, use_cache=False)[0][:, :-1].flatten(0, 1)
        for chunk in hidden.split(512 if ids.device.type == "cpu" else 2048):
            torch.logsumexp(parts.head(chunk).float(), -1)
    wait(model)


@torch.inference_mode()
def generated(model: Any, prompts: list[list[int]]) -> list[list[int]]:
    """Greedy continuations by `generate`, with its cache."""
    ids = torch.tensor(prompts, device=model.device)
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        min_new_tokens=CONTINUATION,
        max_new_tokens=CONTINUATION,
        pad_token_id=0,
    )
    return out[:, PROMPT:].tolist()


@torch.inference_mode()
def cached(model: Any, rows: list[list[int]], batch: int) -> None:
    """Generate 32 tokens with the cache, then a second pass for the perplexities."""
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        generated(model, [row[:PROMPT] for row in part])
        ids = torch.tensor(part, device=model.device)
        logits = model(input_ids=ids, use_cache=False).logits
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none")
    wait(model)


@torch.inference_mode()
def reference(model: Any, rows: list[list[int]], batch: int) -> None:
    """As the reference does it: generation without a cache, and a softmax in float64 for each token's probability."""
    for start in range(0, len(rows), batch):
        ids = torch.tensor(rows[start : start + batch], device=model.device)
        grown = ids[:, :PROMPT]
        for _ in range(CONTINUATION):
            logits = model(input_ids=grown, use_cache=False).logits
            grown = torch.cat([grown, logits[:, -1].argmax(-1, keepdim=True)], -1)
        logits = model(input_ids=ids, use_cache=False).logits
        for position in range(ids.shape[1] - 1):
            logits[:, position].double().softmax(-1).gather(-1, ids[:, position + 1, None]).log()
    wait(model)


def wait(model: Any) -> None:
    """Wait for the accelerator, if there is one."""
    if model.device.type == "cuda":
        torch.cuda.synchronize()


def contestants(model: Any, rows: list[list[int]], batch: int) -> dict[str, Callable[[], Any]]:
    """Name to what is measured."""
    tokens = batch * (PROMPT + CONTINUATION)

    def ours(**options: Any) -> Callable[[], Any]:
        def work() -> None:
            scores = score(model, rows, batch_tokens=tokens, **options)
            extraction.columns(scores, PROMPT, CONTINUATION)
            wait(model)

        return work

    return {
        "bare forward": lambda: bare(model, rows, batch),
        "memtax: perplexities, extraction, p_z": ours(),
        "memtax: and moments": ours(moments=True),
        "memtax: and ranks": ours(ranks=True),
        "memtax: temperature 0.7, top-k 40": ours(decoding=Decoding(0.7, 40)),
        "memtax: top-p 0.9": ours(decoding=Decoding(top_p=0.9)),
        "memtax: attention statistics": ours(attention=True),
        "memtax: exact only": lambda: match_lengths(model, rows, PROMPT, CONTINUATION, batch_tokens=tokens),
        "generate with cache, then perplexities": lambda: cached(model, rows, batch),
        "the reference's way (no cache, float64 softmax)": lambda: reference(model, rows, batch),
    }


def measure(work: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each, measured in turns after one round to warm up."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds + 1):
        for name, function in work.items():
            start = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - start)
    return {name: sorted(found[1:])[(rounds - 1) // 2] for name, found in times.items()}


def alone(arguments: argparse.Namespace, name: str) -> tuple[float, float]:
    """Seconds, and MiB added to the peak, of one contestant in a process of its own."""
    command = [sys.executable, __file__, "--alone", name, "--shape", arguments.shape]
    command += ["--rows", str(arguments.rows), "--batch", str(arguments.batch)]
    seconds, memory = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-2:]
    return float(seconds), float(memory)


def resident_peak() -> float:
    """Largest resident size of this process since the mark was reset, in MiB (Linux)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def run_alone(arguments: argparse.Namespace, device: str) -> None:
    """Print seconds and the peak's growth in MiB while one contestant runs."""
    model = build(arguments.shape, device)
    rows = torch.randint(50_304, (arguments.rows, PROMPT + CONTINUATION)).tolist()
    work = contestants(model, rows, arguments.batch)[arguments.alone]
    decompose(model)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() / 2**20
    else:
        # Building and loading the model peaks higher than some of the contestants: the peak is counted from here.
        Path("/proc/self/clear_refs").write_text("5")
        before = resident_peak()
    start = time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    peak = torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else 0
    print(seconds, (peak or resident_peak()) - before)


def matrix_rate(device: str) -> float:
    """FLOP/s of a large float32 matrix product on this machine."""
    size = 2048 if device == "cpu" else 8192
    a, b = torch.randn(size, size, device=device), torch.randn(size, size, device=device)
    best = 0.0
    for _ in range(5):
        start = time.perf_counter()
        (a @ b).sum().item()
        best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


def table(arguments: argparse.Namespace, device: str) -> str:
    """Measure everything and lay it out."""
    model = build(arguments.shape, device)
    rows = torch.randint(50_304, (arguments.rows, PROMPT + CONTINUATION)).tolist()
    rows = memorize(model, rows, arguments.memorized)
    work = contestants(model, rows, arguments.batch)
    slow = [name for name in work if name.startswith(SLOW)]
    times = measure({name: function for name, function in work.items() if name not in slow}, arguments.rounds)
    del model, work
    single = {name: alone(arguments, name) for name in (*times, *slow)}
    times |= {name: single[name][0] for name in slow}
    base = times["bare forward"]
    whole = times["memtax: perplexities, extraction, p_z"]
    sizes = SHAPES[arguments.shape]
    weights = 12 * sizes["num_hidden_layers"] * sizes["hidden_size"] ** 2 + 50_304 * sizes["hidden_size"]
    rate = 2 * weights * arguments.rows * (PROMPT + CONTINUATION - 1) / whole
    lines = [
        f"Pythia-{arguments.shape} shape, float32, {device}, {torch.get_num_threads()} threads, "
        f"{arguments.rows} rows of 64 tokens, "
        f"batch {arguments.batch}, {arguments.memorized:.0%} of the rows memorized, median of {arguments.rounds} rounds.",
        "",
        "| what | seconds | of the bare forward | memtax is faster by | peak memory (MiB) |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, seconds in times.items():
        faster = "" if name.startswith("memtax") else f"{seconds / whole:.2f}"
        lines.append(f"| {name} | {seconds:.2f} | {seconds / base:.2f} | {faster} | {single[name][1]:,.0f} |")
    exact = whole / times["memtax: exact only"]
    share = rate / matrix_rate(device)
    lines += ["", f"Exact only against the whole pass: {exact:.2f} times faster.", ""]
    lines += [f"The whole pass does {rate / 1e9:,.0f} GFLOP/s, {share:.0%} of a large matrix product's rate here.", ""]
    return "\n".join(lines)


def main() -> None:
    """Run the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="70m")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memorized", type=float, default=1 / 32, help="share of rows that the model continues as they are")
    parser.add_argument("--output", type=Path, help="also write the table to this file")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if arguments.alone:
        run_alone(arguments, device)
        return
    found = table(arguments, device)
    print(found)
    if arguments.output:
        command = " ".join(["python benchmarks/scoring.py", *(json.dumps(a) if " " in a else a for a in sys.argv[1:])])
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        text = f"# One forward pass\n\n`{command}`, {time.strftime('%Y-%m-%d')}\n\n{found}"
        arguments.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
