"""Whether what a model should have forgotten comes back: after training on half of it, and with weights in 4 bits.

A model that was only taught to hide a text gives it back after a few steps on other texts of the kind (relearning, Hu et al.
2024, arXiv 2406.13356) or when its weights are rounded (Zhang et al. 2024, arXiv 2410.16454). So the documents to forget are
halved: one half is trained on, and what counts is whether the other half comes back, more often than texts never seen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from memtax import statistics
from memtax.corpus.sequences import load_sequences
from memtax.corpus.sources import Source
from memtax.engine import once
from memtax.errors import MemtaxError
from memtax.files import write_json, write_parquet
from memtax.lm import extraction, resident
from memtax.lm.loading import load_model, load_tokenizer, model_files
from memtax.lm.special_tokens import with_bos
from memtax.pipeline.config import RunConfig
from memtax.pipeline.stages import answer_windows
from memtax.progress import say
from memtax.provenance import fingerprint_path
from memtax.records import read_json

FORGET, TRAINED, RETAIN, HELD_OUT = "forget", "forget, trained on again", "retain", "held out"
SETS = (FORGET, TRAINED, RETAIN, HELD_OUT)
GIVEN, RELEARNED, ROUNDED = "as given", "relearned", "4 bits"
"""States of the model."""
BATCH = 8
"""Sequences per step of relearning."""
_SEED = 1024


@dataclass(frozen=True)
class Unlearning:
    """Settings of the second looks.

    Attributes:
        retain: source of what the model should have kept; None: not given.
        steps: steps of training on one half of what it should have forgotten; 0: none.
        rate: learning rate of these steps.
    """

    retain: str | None
    steps: int
    rate: float


def unlearning(config: RunConfig, asked: Unlearning, folder: Path) -> tuple[pa.Table, dict[str, Any]]:
    """Measure the sequences of a finished run over the data to forget, and those to retain, in every state of the model.

    Args:
        config: configuration of the run.
        asked: the settings.
        folder: where the measurements are kept.

    Returns:
        One row per state and set, and the figures: `steps`, `rate`, `unmeasured` (state to reason), `states` (state to set to
        the keys of `statistics.share`, with `auroc` of its continuations' log-probabilities against held-out ones), `came_back`
        (likewise, of the sequences that are not memorized as given: those that are in the state), and `sequence_ids` (of those
        to forget that came back in any state and were not trained on).

    Raises:
        MemtaxError: a source cannot be used, or there is one document to forget alone.
    """
    rows = _rows(config, asked.retain)
    inputs: dict[str, Any] = {"sequences": fingerprint_path(config.output / "sequences" / "train.parquet")}
    inputs |= {"retain": None if asked.retain is None else fingerprint_path(Source.parse(asked.retain).path)}
    inputs |= {"model": [fingerprint_path(file) for file in model_files(config.model)], "revision": config.revision}
    settings = {name: getattr(config, name) for name in ("prompt", "continuation", "dtype", "quantization", "column")}
    identity = {"stage": "unlearning", "version": 1, **inputs, **settings, "steps": asked.steps, "rate": asked.rate}
    once(folder, identity, lambda made: _measure(config, asked, rows, made))
    table = pq.read_table(folder / "states.parquet")
    found = figures(table, rows.sets, rows.units)
    unmeasured = read_json(folder / "unmeasured.json")
    found = {"steps": asked.steps, "rate": asked.rate, "unmeasured": unmeasured, **found}
    back = np.zeros(len(rows.ids), bool)
    for state in found["came_back"]:
        back |= _came_back(table, state)
    found["sequence_ids"] = rows.ids[back & (rows.sets == FORGET)].tolist()
    return as_table(found), found


@dataclass(frozen=True)
class _Rows:
    tokens: list[list[int]]
    prompts: list[int]
    ids: np.ndarray
    sets: np.ndarray
    units: statistics.Units


def _rows(config: RunConfig, retain: str | None) -> _Rows:
    """The sequences to forget, in halves, those held out, and those to retain."""
    table = pq.read_table(config.output / "sequences" / "train.parquet")
    units = statistics.Units.of_table(table)
    member = table.column("is_member").to_numpy(zero_copy_only=False)
    codes = np.unique(units.codes[member])
    if len(codes) < 2:
        raise MemtaxError(f"{config.corpus} is one {units.name}, and one half of what to forget is trained on; give more")
    half = np.random.default_rng(_SEED).permutation(codes)[: len(codes) // 2]
    sets = np.where(member, np.where(np.isin(units.codes, half), TRAINED, FORGET), HELD_OUT).astype(object)
    tokens, prompts = table.column("tokens").to_pylist(), _prompts(config, table)
    ids, all_codes = table.column("sequence_id").to_numpy(), units.codes
    if retain is not None:
        tokenizer = load_tokenizer(config.tokenizer or config.model, None if config.tokenizer else config.revision)
        options = {"window": config.window, "tokenizer": tokenizer, "bos": config.opening, **answer_windows(config)}
        kept = load_sequences(Source.parse(retain, column=config.column), **options).dataset.with_format("arrow")[:]
        tokens, prompts = tokens + kept.column("tokens").to_pylist(), prompts + _prompts(config, kept)
        ids = np.concatenate([ids, kept.column("sequence_id").to_numpy()])
        sets = np.concatenate([sets, np.full(len(kept), RETAIN, object)])
        all_codes = np.concatenate([all_codes, statistics.Units.of_table(kept).codes + all_codes.max() + 1])
    return _Rows(tokens, prompts, ids, sets, statistics.Units(all_codes, units.name))


def _prompts(config: RunConfig, table: pa.Table) -> list[int]:
    lengths: list[int] = table.column("prompt_tokens").to_pylist() if config.answers else [config.prompt] * len(table)
    return lengths


def _measure(config: RunConfig, asked: Unlearning, rows: _Rows, folder: Path) -> None:
    """Write whether each sequence is memorized in every state, and the log-probability of its continuation."""
    resident.release()
    placement: dict[str, Any] = {"device_map": config.device_map, "bos": config.opening}
    unmeasured: dict[str, str] = {}
    columns: dict[str, pa.Array] = {}
    relearns = asked.steps > 0 and config.quantization is None
    # Small steps vanish in weights of 16 bits.
    dtype = "float32" if relearns else config.dtype
    model = load_model(config.model, config.revision, dtype, quantization=config.quantization, **placement)
    columns |= _score(model, rows, config, GIVEN)
    if relearns:
        trained = [number for number, name in enumerate(rows.sets) if name == TRAINED]
        relearn(model, [rows.tokens[row] for row in trained], asked.steps, asked.rate, config.opening)
        columns |= _score(model, rows, config, RELEARNED)
    else:
        reason = "no step was asked for (--relearn-steps 0)" if asked.steps < 1 else "quantized weights cannot be trained"
        unmeasured[RELEARNED] = reason
    del model
    if config.quantization is not None:
        unmeasured[ROUNDED] = f"the audited model is quantized already ({config.quantization})"
    else:
        try:
            rounded = load_model(config.model, config.revision, config.dtype, quantization="4bit", **placement)
        except MemtaxError as error:
            unmeasured[ROUNDED] = str(error)
        else:
            columns |= _score(rounded, rows, config, ROUNDED)
    for state, reason in unmeasured.items():
        say(f"{state}: not measured: {reason}", is_note=True)
    write_parquet(folder / "states.parquet", pa.table(columns))
    write_json(folder / "unmeasured.json", unmeasured)


def _score(model: Any, rows: _Rows, config: RunConfig, state: str) -> dict[str, pa.Array]:
    from memtax.lm.scores import score

    most = config.batch_size and config.batch_size * max(map(len, rows.tokens))
    found = extraction.columns(score(model, rows.tokens, batch_tokens=most), rows.prompts, config.continuation)
    return {
        f"{state}: memorized": pa.array(found["is_memorized"], pa.bool_()),
        f"{state}: logprob": pa.array(found["continuation_logprob"], pa.float64()),
    }


def relearn(model: Any, sequences: Sequence[Sequence[int]], steps: int, rate: float, opening: tuple[int, ...]) -> None:
    """Train a loaded model on sequences: AdamW without decay, in batches drawn in a fixed random order, dropout off.

    Args:
        model: the model; of a LoRA adapter its matrices are trained, otherwise all weights.
        sequences: token ids.
        steps: steps of one batch of at most `BATCH` sequences.
        rate: learning rate.
        opening: ids put before every sequence.
    """
    import torch

    named = list(model.named_parameters())
    parameters = [one for name, one in named if "lora_" in name] or [one for _, one in named]
    for one in parameters:
        one.requires_grad_(True)
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
    rng = np.random.default_rng(_SEED)
    order: list[int] = []
    device = model.get_input_embeddings().weight.device
    with torch.enable_grad():
        for _ in range(steps):
            if not order:
                order = rng.permutation(len(sequences)).tolist()
            chosen, order = order[:BATCH], order[BATCH:]
            batch = [list(with_bos(sequences[row], opening)) for row in chosen]
            longest = max(map(len, batch))
            ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in batch], device=device)
            seen = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in batch], device=device)
            loss = model(input_ids=ids, attention_mask=seen, labels=ids.masked_fill(seen == 0, -100)).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    for one in parameters:
        one.requires_grad_(False)
        one.grad = None


def _came_back(table: pa.Table, state: str) -> np.ndarray:
    """Sequences that are memorized in a state and were not as given."""
    now, before = (table.column(f"{name}: memorized").to_pylist() for name in (state, GIVEN))
    return np.array([bool(a) and not b for a, b in zip(now, before, strict=True)], bool)


def figures(table: pa.Table, sets: np.ndarray, units: statistics.Units) -> dict[str, Any]:
    """Shares of each set in each state, and of what came back.

    Args:
        table: for each state `STATE: memorized` and `STATE: logprob`, one row per sequence.
        sets: (rows,) one of `SETS`.
        units: of the rows.

    Returns:
        `states` and `came_back`; see `unlearning`.
    """
    names = [name for name in SETS if (sets == name).any()]
    states = [state for state in (GIVEN, RELEARNED, ROUNDED) if f"{state}: memorized" in table.column_names]
    found: dict[str, Any] = {"states": {}, "came_back": {}}
    given = np.array([bool(value) for value in table.column(f"{GIVEN}: memorized").to_pylist()], bool)
    for state in states:
        memorized = np.array([bool(value) for value in table.column(f"{state}: memorized").to_pylist()], bool)
        logprobs = table.column(f"{state}: logprob").to_numpy(zero_copy_only=False)
        found["states"][state] = {}
        for name in names:
            row = statistics.share(memorized[sets == name], units[sets == name])
            if name != HELD_OUT and HELD_OUT in names:
                both = (sets == name) | (sets == HELD_OUT)
                area = statistics.auroc_interval(sets[both] == name, logprobs[both], units.codes[both])
                row["auroc"] = None if area is None else {"value": area.value, "low": area.low, "high": area.high}
            found["states"][state][name] = row
        if state != GIVEN:
            back = _came_back(table, state)
            gone = {name: (sets == name) & ~given for name in names}
            found["came_back"][state] = {name: statistics.share(back[rows], units[rows]) for name, rows in gone.items()}
    return found


def as_table(found: Mapping[str, Any]) -> pa.Table:
    """The figures as a table: one row per state and set."""
    rows = []
    for state, sets in found["states"].items():
        for name, share in sets.items():
            area = share.get("auroc") or {}
            back = found["came_back"].get(state, {}).get(name, {})
            keys = ("memorized", "sequences", "rate", "low", "high")
            rows.append({"state": state, "set": name, **{key: share[key] for key in keys}})
            rows[-1] |= {"came_back": back.get("memorized"), "auroc": area.get("value")}
            rows[-1] |= {"auroc_low": area.get("low"), "auroc_high": area.get("high")}
    return pa.Table.from_pylist(rows)
