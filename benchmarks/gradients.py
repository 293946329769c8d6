"""Gradient kernels against full parameter gradients, one backward pass per text.

    python benchmarks/gradients.py [--groups 16] [--rounds 3] [--train 1000] [--test 200] [--only alignment|influence]

Alignment: a GPT-NeoX of Pythia-70m's shape (vocabulary 50,304, width 512, 6 layers) with random weights, texts of 64 tokens
with 3 paraphrases each, input embedding and head, float32. The reference keeps the text's gradients of both tensors and runs
one backward pass per paraphrase, as Paramem does (without its copies to the CPU). The bare pass is one batched forward and
backward to the input embeddings' output with all weights frozen, at the batch size that is fastest for it. Memory is the
process's peak above what it held with the model loaded, in a process of its own for each way.

Influence: DataInf over LoRA adapters (rank 8, query_key_value of 4 layers) of a GPT-NeoX of width 256 and vocabulary 8,192,
texts of 64 tokens, against one backward pass per example and the formula as a loop over pairs, as DataInf's own code does
(the loop is timed on the first 10 test examples and scaled).
"""

import argparse
import functools
import gc
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from memtax.attribution.alignment import align
from memtax.attribution.influence_functions import from_products, influence
from memtax.lm.gradients import capture

TEXTS = 4
"""A text and three paraphrases."""


def pythia_70m(device: str) -> Any:
    """Pythia-70m's shape with random weights."""
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=50_304,
        hidden_size=512,
        num_hidden_layers=6,
        num_attention_heads=8,
        intermediate_size=2048,
        max_position_embeddings=2048,
    )
    return GPTNeoXForCausalLM(config).eval().requires_grad_(False).to(device)


def texts(groups: int, length: int = 64) -> list[list[list[int]]]:
    """Groups of a text and its paraphrases: random tokens, as many as in the original."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(50_000, (groups, TEXTS, length), generator=generator).tolist()


def reference(model: Any, groups: list[list[list[int]]]) -> list[float]:
    """One backward pass per text, full gradients kept, cosine per tensor, mean: the reference's way."""
    tensors = [model.get_input_embeddings().weight, model.get_output_embeddings().weight]
    for tensor in tensors:
        tensor.requires_grad_(True)

    def gradients(tokens: list[int]) -> list[torch.Tensor]:
        ids = torch.tensor([tokens], device=model.device)
        return list(torch.autograd.grad(model(input_ids=ids, labels=ids).loss, tensors))

    found = []
    for text, *paraphrases in groups:
        ours, cosines = gradients(text), []
        for paraphrase in paraphrases:
            theirs = gradients(paraphrase)
            cosines.append(
                [
                    torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0).item()
                    for a, b in zip(ours, theirs, strict=True)
                ]
            )
        found.append(float(np.mean(cosines)))
    for tensor in tensors:
        tensor.requires_grad_(False)
    return found


def kernels(model: Any, groups: list[list[list[int]]]) -> list[float]:
    """The same by memtax."""
    return [one.cosine or 0.0 for one in align(model, [(text, paraphrases) for text, *paraphrases in groups])]


def bare(model: Any, groups: list[list[list[int]]], batch: int) -> None:
    """A batched forward and backward to the input embeddings' output, nothing else."""
    flat = torch.tensor([text for group in groups for text in group], device=model.device)
    for ids in flat.split(batch):
        embedded = model.get_input_embeddings()(ids).requires_grad_()
        model(inputs_embeds=embedded, labels=ids).loss.backward()


def timed(ways: dict[str, Callable[[], Any]], rounds: int) -> tuple[dict[str, float], dict[str, Any]]:
    """The least time of each way over several rounds in which they take turns, so that a busy moment hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    results = {}
    for _ in range(rounds):
        for name, way in ways.items():
            synchronize()
            started = time.perf_counter()
            results[name] = way()
            synchronize()
            times[name].append(time.perf_counter() - started)
    return {name: min(values) for name, values in times.items()}, results


def synchronize() -> None:
    """Wait for the accelerator, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak(way: str, groups: int, batch: int, send: Any) -> None:
    """Peak memory of one way above the loaded model, in this process (or on the GPU)."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, data = pythia_70m(device), texts(groups)
    gc.collect()
    function, arguments = {"reference": (reference, ()), "memtax": (kernels, ()), "bare": (bare, (batch,))}[way]
    # Libraries allocate on their first use: a tiny model's pass comes first.
    function(pythia_tiny(device), [[one[:8] for one in data[0]]], *arguments)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function(model, data, *arguments)
        send.send(torch.cuda.max_memory_allocated() - before)
        return
    before, seen, done = _resident(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.001):
            seen.append(_resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    function(model, data, *arguments)
    done.set()
    watcher.join()
    send.send(max(seen) - before)


def pythia_tiny(device: str) -> Any:
    """A model of the same kind with the same vocabulary, but narrow."""
    config = GPTNeoXConfig(vocab_size=50_304, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    return GPTNeoXForCausalLM(config).eval().requires_grad_(False).to(device)


def measure_peak(way: str, groups: int, batch: int) -> float:
    """Peak memory of one way in MiB, from a process of its own."""
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(False)
    process = context.Process(target=peak, args=(way, groups, batch, send))
    process.start()
    found = receive.recv()
    process.join()
    return found / 2**20


def alignment(groups: int, rounds: int) -> None:
    """Time and memory of the three ways."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, data = pythia_70m(device), texts(groups)
    sizes = (4, 16) if device == "cpu" else (64, 256)
    ways: dict[str, Callable[[], Any]] = {f"bare {size}": functools.partial(bare, model, data, size) for size in sizes}
    ways |= {"memtax": lambda: kernels(model, data), "reference": lambda: reference(model, data)}
    for way in ways.values():
        way()
    seconds, results = timed(ways, rounds)
    batch = min(sizes, key=lambda size: seconds[f"bare {size}"])
    slow, fast, least = seconds["reference"], seconds["memtax"], seconds[f"bare {batch}"]
    memory = {way: measure_peak(way, groups, TEXTS) for way in ("reference", "memtax", "bare")}
    print(
        f"Alignment: {groups} texts of 64 tokens with 3 paraphrases each, on {device} with {torch.get_num_threads()} threads;"
    )
    print(f"least of {rounds} rounds, in which the ways take turns.\n")
    print("| | seconds | texts/s | peak memory above the weights (MiB) |")
    print("|---|---|---|---|")
    rows = (
        ("full gradients, a backward pass per text", slow, "reference"),
        ("memtax", fast, "memtax"),
        (f"bare forward and backward to the inputs, batch {batch} (memory: batch {TEXTS})", least, "bare"),
    )
    for name, taken, way in rows:
        print(f"| {name} | {taken:.2f} | {groups * TEXTS / taken:.1f} | {memory[way]:.0f} |")
    ours, theirs = memory["memtax"] - memory["bare"], memory["reference"] - memory["bare"]
    print()
    print(f"- memtax against full gradients: {slow / fast:.2f}x faster (bar: 2.5 on a CPU, 20 on a GPU)")
    print(f"- memtax against the bare pass: {fast / least:.2f}x its time (bar: 1.3)")
    print(
        f"- memory above weights and bare pass: {theirs:.0f} MiB for full gradients, {ours:.0f} MiB for memtax (bar: a tenth)"
    )
    print(f"- largest difference of an alignment: {np.abs(np.subtract(results['memtax'], results['reference'])).max():.1e}")


def adapted(device: str) -> Any:
    """A small GPT-NeoX with LoRA adapters that do something."""
    torch.manual_seed(0)
    config = GPTNeoXConfig(vocab_size=8192, hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024)
    lora = LoraConfig(task_type="CAUSAL_LM", r=8, target_modules=["query_key_value"], init_lora_weights=False)
    return get_peft_model(GPTNeoXForCausalLM(config), lora).eval().requires_grad_(False).to(device)


def backward_passes(model: Any, rows: list[list[int]]) -> dict[str, torch.Tensor]:
    """Gradients of the adapters, one example after the other: name to (examples, numbers)."""
    tensors = {name: tensor.requires_grad_(True) for name, tensor in model.named_parameters() if "lora_" in name}
    found: dict[str, list[torch.Tensor]] = {name: [] for name in tensors}
    for row in rows:
        ids = torch.tensor([row], device=model.device)
        gradients = torch.autograd.grad(model(input_ids=ids, labels=ids).loss, list(tensors.values()))
        for name, gradient in zip(tensors, gradients, strict=True):
            found[name].append(gradient.flatten())
    for tensor in tensors.values():
        tensor.requires_grad_(False)
    return {name: torch.stack(values) for name, values in found.items()}


def pair_loop(train: dict[str, torch.Tensor], test: dict[str, torch.Tensor], columns: int) -> torch.Tensor:
    """DataInf, vector by vector, for the first `columns` test examples: (train, columns)."""
    n = len(next(iter(train.values())))
    found = torch.zeros(n, columns)
    for name, ours in train.items():
        weight = ours.square().sum() / (10 * n * ours.shape[1])
        for column in range(columns):
            v, solved = test[name][column], torch.zeros_like(test[name][column])
            for g in ours:
                solved += v - (v @ g) / (weight + g @ g) * g
            solved /= n * weight
            for row, g in enumerate(ours):
                found[row, column] -= (solved @ g).item()
    return found


def influences(train_count: int, test_count: int) -> None:
    """DataInf end to end, both ways."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = adapted(device)
    generator = torch.Generator().manual_seed(2)
    rows = torch.randint(8192, (train_count + test_count, 64), generator=generator).tolist()
    train, test = rows[:train_count], rows[train_count:]
    influence(model, train[:8], test[:8], methods=["datainf"])
    started = time.perf_counter()
    captured = capture(model, train, parameters="lora"), capture(model, test, parameters="lora")
    batched = time.perf_counter() - started
    groups = [[row] for row in rows]
    least = min(timed({f"{size}": functools.partial(bare, model, groups, size) for size in (4, 16, 64)}, 1)[0].values())
    started = time.perf_counter()
    has = np.ones(train_count, bool), np.ones(test_count, bool)
    cross, gram = captured[0].gram(captured[1]), captured[0].gram()
    found = from_products(["datainf"], gram, cross, captured[0].sizes, has)["datainf"].values
    fast = time.perf_counter() - started
    started = time.perf_counter()
    ours, theirs = backward_passes(model, train), backward_passes(model, test)
    passes = time.perf_counter() - started
    columns = min(10, test_count)
    started = time.perf_counter()
    expected = pair_loop(ours, theirs, columns).numpy()
    loop = (time.perf_counter() - started) * test_count / columns
    shapes = {name: value.shape[1] for name, value in ours.items()}
    print(f"\nInfluence: DataInf of {train_count} on {test_count} texts of 64 tokens, {len(shapes)} LoRA tensors of ", end="")
    print(f"{min(shapes.values()):,} to {max(shapes.values()):,} numbers, on {device}.\n")
    print("| | gradients (s) | influences (s) | together (s) |")
    print("|---|---|---|---|")
    print(f"| a backward pass per example, a loop over pairs | {passes:.1f} | {loop:.1f} | {passes + loop:.1f} |")
    print(f"| memtax | {batched:.1f} | {fast:.2f} | {batched + fast:.1f} |")
    print(f"| bare forward and backward to the inputs, in the best of batches of 4, 16, 64 | {least:.1f} | | |")
    worst = np.abs(found[:, :columns] - expected).max() / np.abs(expected).max()
    print(f"\n- influences from gradients, memtax against the loop: {loop / fast:.0f}x faster (bar: 10)")
    print(f"- gradients included: {(passes + loop) / (batched + fast):.1f}x faster")
    print(f"- gradients against the bare pass, which no way can do without: {batched / least:.2f}x its time")
    print(f"- largest difference of an influence, over the largest influence: {worst:.1e}")


def main() -> None:
    """Run the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--train", type=int, default=1000)
    parser.add_argument("--test", type=int, default=200)
    parser.add_argument("--only", choices=("alignment", "influence"))
    arguments = parser.parse_args()
    if arguments.only != "influence":
        alignment(arguments.groups, arguments.rounds)
    if arguments.only != "alignment":
        influences(arguments.train, arguments.test)


if __name__ == "__main__":
    main()
