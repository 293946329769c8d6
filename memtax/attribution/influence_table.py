"""`memtax influence`: influence between two datasets, in parts that processes share and that interrupted runs reuse."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from memtax import schema, statistics
from memtax.attribution.influence_exact import check_damping
from memtax.attribution.influence_examples import Examples, load_examples
from memtax.attribution.influence_functions import (
    CURVED,
    ITERATIONS,
    METHODS,
    Influence,
    check_methods,
    default_parameters,
    delta,
    from_products,
    last_states,
)
from memtax.attribution.influence_top import top_table
from memtax.checksums import Parts
from memtax.corpus.sources import Source
from memtax.engine import World
from memtax.engine.stage import claim
from memtax.errors import MemtaxError, RowError
from memtax.files import atomic_path
from memtax.lm import resident
from memtax.lm.chats import source_bos
from memtax.lm.loading import model_files
from memtax.lm.placement import check_gradients, settled_dtype
from memtax.lm.special_tokens import bos_of, check_bos, text_positions
from memtax.progress import progress_bar
from memtax.provenance import digest, fingerprint_path

MATRICES = "matrix.safetensors"
ROWS_PER_PART = 64
"""Examples per part, independent of the number of processes."""
VERSION = 2
"""Increased whenever the same settings would give other values."""


@dataclass(frozen=True)
class InfluenceSettings:
    """Settings of `influence_table`.

    Attributes:
        model: folder or Hub name of a model or adapter.
        revision: branch, tag or commit on the Hub.
        methods: some of `METHODS`.
        parameters: one of `memtax.lm.gradients.PARAMETERS`; None takes LoRA adapters if any, otherwise embeddings and head.
        prompt_column: text before each example that is excluded from the loss.
        class_column: a label of train and test examples, for accuracy and coverage.
        tokenizer: folder or Hub name; None takes the model's.
        length: maximum tokens in an example; None uses the model's positions.
        top: number of training examples listed for each test example.
        iterations: number of LiSSA iterations.
        scale: scale of LiSSA; None chooses one that converges.
        damping: lambda of DataInf, LiSSA and the exact inverse; None computes one per tensor from its gradients.
        per_tensor: also keep the matrix of every tensor.
        dtype: dtype of the weights.
        bos: one of `memtax.lm.special_tokens.BOS`.
        device_map: `auto` spreads a model over several devices; None uses one device.
        quantization: one of `memtax.lm.placement.QUANTIZATIONS`; only RepSim supports it.
        batch_size: examples per pass; None finds what fits.
        show_personal_data: list texts unmasked; otherwise personal data in them is masked.
    """

    model: str
    revision: str | None = None
    methods: tuple[str, ...] = METHODS
    parameters: str | None = None
    prompt_column: str | None = None
    class_column: str | None = None
    tokenizer: str | None = None
    length: int | None = None
    top: int = 10
    iterations: int = ITERATIONS
    scale: float | None = None
    damping: float | None = None
    per_tensor: bool = False
    dtype: str = "float32"
    bos: str = "auto"
    device_map: str | None = None
    quantization: str | None = None
    batch_size: int | None = None
    show_personal_data: bool = False

    def __post_init__(self) -> None:
        check_methods(self.methods)
        object.__setattr__(self, "dtype", settled_dtype(self.dtype))
        check_bos(self.bos)
        if set(self.methods) - {"repsim"}:
            check_gradients(self.quantization)
        if self.length is not None and self.length < 2:
            raise MemtaxError(f"length={self.length} leaves no token to predict; it must be at least 2")
        if self.damping is not None:
            check_damping(self.damping)
        if self.top < 1:
            raise MemtaxError(f"top={self.top} must be at least 1")


def influence_table(
    train: Source, test: Source, settings: InfluenceSettings, output: Path | str
) -> tuple[pa.Table, pa.Table, dict[str, Any]]:
    """Influence of every row of `train` on every row of `test`; finished parts in `output` are reused.

    Under `accelerate launch` or `torchrun` the parts are shared among the processes.

    Args:
        train: rows with tokens or text, and the prompt and class columns of the settings.
        test: rows with the same columns.
        settings: model and values to compute.
        output: the directory of `parts/` and `matrix.safetensors` (for each method (train, test), and `train_ids`,
            `test_ids`).

    Returns:
        The influences, one row per pair; the most influential training examples of each test example; and the figures.

    Raises:
        MemtaxError: an input cannot be used.
        StaleOutputError: the output contains parts from another input or other settings.
    """
    world, output = World.current(), Path(output)
    bos = source_bos(train, settings.model, settings.revision, settings.bos, settings.tokenizer)
    placement = resident.Placement(settings.dtype, settings.device_map, settings.quantization)
    model = resident.get(settings.model, settings.revision, placement, bos)
    limits = [limit for limit in (settings.length, text_positions(model)) if limit is not None]
    longest = min(limits, default=None)
    sets = {name: load_examples(source, settings, longest, bos) for name, source in (("train", train), ("test", test))}
    parameters = settings.parameters or default_parameters(model)
    inputs = {name: digest(examples.ids, examples.tokens, examples.scored) for name, examples in sets.items()}
    inputs["model"] = digest([fingerprint_path(file) for file in model_files(settings.model)], settings.revision, bos)
    identity = {"stage": "influence", "version": VERSION, **inputs, "dtype": settings.dtype, "parameters": parameters}
    identity |= {"methods": list(settings.methods)}
    parts = Parts.of(output / "parts", identity)
    if world.is_main:
        claim(parts.folder, identity)
    world.wait()
    gradients = bool(set(settings.methods) - {"repsim"})
    _capture(model, sets, parameters, settings, parts, world)
    world.wait()
    if gradients:
        _products(model, sets, settings, parts, world)
        world.wait()
    found = _collect(sets, settings, parts.folder, gradients)
    summary = summarize(found, sets, settings, parameters, model)
    summary = {**summary, "personal_data_shown": settings.show_personal_data}
    summary["bos"] = list(bos)
    sides = (sets["train"].ids, sets["train"].texts), (sets["test"].ids, sets["test"].texts)
    top = top_table(found, *sides, settings.top, mask=not settings.show_personal_data)
    if world.is_main:
        _write_matrices(found, sets, settings, output / MATRICES)
    return _pairs(found, sets["train"], sets["test"]), top, summary


def _parts(examples: Examples) -> list[slice]:
    count = len(examples.ids)
    return [slice(start, min(start + ROWS_PER_PART, count)) for start in range(0, count, ROWS_PER_PART)]


def _part(name: str, number: int) -> str:
    return f"{name}-{number:05d}.safetensors"


def _capture(
    model: Any, sets: Mapping[str, Examples], parameters: str, settings: InfluenceSettings, parts: Parts, world: World
) -> None:
    """Compute and write the gradients and hidden states of this process's parts."""
    from memtax.lm.gradient_files import save_gradients
    from memtax.lm.gradients import Gradients, capture

    every = [(name, number, rows) for name, examples in sets.items() for number, rows in enumerate(_parts(examples))]
    mine = every[world.rank :: world.size]
    with progress_bar("gradients", sum(rows.stop - rows.start for _, _, rows in mine)) as bar:
        for name, number, rows in mine:
            part, examples, sequences = _part(name, number), sets[name], sets[name].tokens[rows]
            if not parts.is_usable(part):
                found = Gradients({}, {}, tuple(sum(one[1:]) for one in examples.scored[rows]))
                try:
                    if set(settings.methods) - {"repsim"}:
                        longest = max(map(len, sequences), default=0) + len(bos_of(model))
                        most = settings.batch_size and settings.batch_size * max(longest, 1)
                        scored = examples.scored[rows]
                        found = capture(model, sequences, parameters=parameters, scored=scored, batch_tokens=most)
                    states = last_states(model, sequences) if "repsim" in settings.methods else None
                except RowError as error:
                    named = f"the {name} example with sequence_id {examples.ids[rows][error.row]}"
                    raise error.at(error.row, named) from error
                with parts.writing(part) as path:
                    save_gradients(path, found, None if states is None else {"states": torch.from_numpy(states)})
            bar.update(rows.stop - rows.start)


def _products(model: Any, sets: Mapping[str, Examples], settings: InfluenceSettings, parts: Parts, world: World) -> None:
    """Compute and write the inner products of this process's training parts with all examples."""
    from safetensors.torch import save_file

    from memtax.lm.gradient_files import load_gradients

    train = _parts(sets["train"])
    others = [("test", number) for number in range(len(_parts(sets["test"])))]
    if set(settings.methods) & CURVED:
        others = [("train", number) for number in range(len(train))] + others
    mine = [number for number in range(len(train)) if number % world.size == world.rank]
    with progress_bar("inner products", len(mine) * len(others), "blocks") as bar:
        for number in mine:
            part = _part("products", number)
            if parts.is_usable(part):
                bar.update(len(others))
                continue
            ours, _ = load_gradients(parts.folder / _part("train", number), model)
            blocks: dict[str, list[npt.NDArray[np.float64]]] = {}
            for name, other in others:
                same = name == "train" and other == number
                theirs = ours if same else load_gradients(parts.folder / _part(name, other), model)[0]
                for tensor, values in ours.gram(theirs).items():
                    blocks.setdefault(f"{name}|{tensor}", []).append(values)
                bar.update(1)
            tensors = {key: torch.from_numpy(np.concatenate(values, axis=1)) for key, values in blocks.items()}
            with parts.writing(part) as path:
                save_file(tensors, path)


def _collect(sets: Mapping[str, Examples], settings: InfluenceSettings, folder: Path, gradients: bool) -> dict[str, Influence]:
    """The influences, from all parts."""
    from safetensors import safe_open

    from memtax.lm.gradient_files import facts_of

    counts = {name: len(_parts(examples)) for name, examples in sets.items()}
    states: dict[str, list[npt.NDArray[np.float64]]] = {"train": [], "test": []}
    sizes: dict[str, int] = {}
    for name, count in counts.items():
        for number in range(count):
            with safe_open(str(folder / _part(name, number)), "numpy") as file:
                sizes = facts_of(file)["sizes"]
                if "|states" in file.keys():  # noqa: SIM118 (it is not a mapping)
                    states[name].append(file.get_tensor("|states"))
    blocks: dict[str, list[npt.NDArray[np.float64]]] = {}
    for number in range(counts["train"] if gradients else 0):
        with safe_open(str(folder / _part("products", number)), "numpy") as file:
            for key in file.keys():  # noqa: SIM118
                blocks.setdefault(key, []).append(file.get_tensor(key))
    whole = {key: np.concatenate(values) for key, values in blocks.items()}
    gram, cross = (
        {key.split("|", 1)[1]: value for key, value in sorted(whole.items()) if key.startswith(f"{name}|")}
        for name in ("train", "test")
    )
    train, test = (np.array([any(one[1:]) for one in sets[name].scored]) for name in ("train", "test"))
    both = (_stack(states["train"]), _stack(states["test"])) if "repsim" in settings.methods else None
    options: dict[str, Any] = {"iterations": settings.iterations, "scale": settings.scale, "weight": settings.damping}
    return from_products(settings.methods, gram, cross, sizes, (train, test), both, **options)


def _stack(parts: Sequence[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    # A part whose examples all have no tokens does not know the width of the states.
    width = max((part.shape[1] for part in parts), default=0)
    return np.concatenate([part if part.shape[1] else np.full((len(part), width), np.nan) for part in parts])


def summarize(
    found: Mapping[str, Influence], sets: Mapping[str, Examples], settings: InfluenceSettings, parameters: str, model: Any
) -> dict[str, Any]:
    """Counts, the change of weights by LoRA adapters, and each method's accuracy and coverage if there are classes."""
    train, test = sets["train"], sets["test"]
    summary: dict[str, Any] = {
        "model": settings.model,
        "parameters": parameters,
        "train": len(train.ids),
        "test": len(test.ids),
        "without_a_token_to_predict": {name: sum(not any(one[1:]) for one in sets[name].scored) for name in sets},
        "cut": {name: examples.cut for name, examples in sets.items()},
    }
    if default_parameters(model) == "lora":
        summary["delta"] = delta(model)
    summary["methods"] = {method: _classes(one, train, test) for method, one in found.items()}
    return summary


def _classes(one: Influence, train: Examples, test: Examples) -> dict[str, Any]:
    if train.classes is None or test.classes is None:
        return {}
    hits, shares = one.class_accuracy(train.classes, test.classes), one.coverage(train.classes, test.classes)
    return {
        "accuracy": statistics.mean_over_units(hits, test.units),
        "coverage": statistics.mean_over_units(shares, test.units),
    }


def _write_matrices(
    found: Mapping[str, Influence], sets: Mapping[str, Examples], settings: InfluenceSettings, path: Path
) -> None:
    from safetensors.torch import save_file

    tensors = {method: torch.from_numpy(one.values.astype(np.float32)) for method, one in found.items()}
    if settings.per_tensor:
        for method, one in found.items():
            named = {f"{method}|{name}": value for name, value in one.tensors.items()}
            tensors |= {name: torch.from_numpy(value.astype(np.float32)) for name, value in named.items()}
    tensors |= {f"{name}_ids": torch.tensor(sets[name].ids) for name in ("train", "test")}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary)


def _pairs(found: Mapping[str, Influence], train: Examples, test: Examples) -> pa.Table:
    """One row per pair, grouped by test example."""
    table = {
        "train_id": pa.array(np.tile(np.array(train.ids, np.int64), len(test.ids))),
        "test_id": pa.array(np.repeat(np.array(test.ids, np.int64), len(train.ids))),
    }
    for method, one in found.items():
        table[method] = pa.array(one.values.T.ravel().astype(np.float32), from_pandas=True)  # NaN is null
    return schema.validate(pa.table(table), list(table), "the influences")
