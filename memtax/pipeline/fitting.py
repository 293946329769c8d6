"""The jobs of `memtax fit` and `memtax search`: from a table of sequences to models, tests and figures in a folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from memtax import schema
from memtax.checksums import seal
from memtax.corpus.sources import Source
from memtax.engine.once import MANIFEST, check
from memtax.errors import MemtaxError
from memtax.files import write_json
from memtax.predictor import factors as declared
from memtax.predictor import greedy as growing
from memtax.predictor.copies import COLUMN, split_groups
from memtax.predictor.correlations import correlations
from memtax.predictor.inference import infer
from memtax.predictor.partition_search import SearchConfig, claim, conclude, finished, merge, search_slice
from memtax.predictor.partitions import SPLIT_FACTORS
from memtax.predictor.predictor import Predictor
from memtax.predictor.source_tables import TAXONOMY_INPUTS, read_table
from memtax.predictor.usable_rows import usable
from memtax.progress import say, skipped
from memtax.provenance import digest, fingerprint_path, write_record
from memtax.report import model_figures, saving

if TYPE_CHECKING:
    from memtax.lm.resident import Placement


def fit(
    source: str,
    output: Path,
    *,
    factors: Sequence[str] | None = None,
    before_training: bool = False,
    target: str = "is_memorized",
    category: str = "taxonomy",
    memorized_only: str | None = None,
    calibration: str = "prior",
    seed: int = 1024,
    resamples: int = 1000,
    explain: bool = True,
) -> Predictor:
    """Fit a predictor; explain it with tests and correlations.

    Args:
        source: dataset of sequences with their factors, in memtax's layout or the published one.
        output: folder of the predictor; `inference.json`, `correlations.json` and `figures/` are written into it.
        factors: None uses the published factors that the table has.
        before_training: use the factors that are known before a model exists instead.
        target: boolean column.
        category: column of categories; computed from counts and templates if missing.
        memorized_only: dataset of additional memorized sequences, for training only.
        calibration: see `Predictor.fit`.
        seed: random seed of split and bootstrap.
        resamples: number of resamples per interval.
        explain: whether to compute tests and correlations as well.

    Raises:
        MemtaxError: an input cannot be used.
        StaleOutputError: the folder contains a predictor of other data or other options.
    """
    if factors is not None and before_training:
        raise MemtaxError("give the factors or ask for those before training, not both")
    inputs = {name: _identify(name) for name in (source, memorized_only) if name is not None}
    identity: dict[str, Any] = {"stage": "fit", "version": 2, "inputs": list(inputs.values())}
    identity |= {"factors": None if factors is None else list(factors), "before_training": before_training, "target": target}
    identity |= {"category": category, "calibration": calibration, "seed": seed, "resamples": resamples, "explain": explain}
    if (output / MANIFEST).exists():
        check(output, identity)
    table = read_table(source)
    _check_category(table, category, source)
    wanted = declared.BEFORE_TRAINING if before_training else declared.PUBLISHED
    chosen = tuple(factors) if factors is not None else declared.available(table.column_names, wanted)
    more = None if memorized_only is None else read_table(memorized_only)
    predictor = Predictor.fit(
        table,
        target=target,
        factors=chosen,
        category=category,
        seed=seed,
        resamples=resamples,
        memorized_only=more,
        calibration=calibration,  # type: ignore[arg-type]
    )
    _say_dropped(predictor.metrics["dropped"], source)
    # Written after fitting, so that options that cannot be fitted do not block later runs with others.
    claim(output, identity)
    tests, found = _explain(table, chosen, target, category, output) if explain else (None, [])
    predictor.save_pretrained(output)
    model_figures.write_fit(predictor.metrics, tests, found, output / "figures")
    settings = {"source": source, "factors": list(chosen), "target": target, "category": category, "seed": seed}
    settings |= {"memorized_only": memorized_only, "calibration": calibration, "resamples": resamples}
    write_record(output / "run.yaml", "fit", settings, inputs)
    names = ("predictor.json", "model.safetensors", "README.md", "inference.json", "correlations.json", "run.yaml")
    seal(output, "the same memtax fit command", identity, [name for name in names if (output / name).exists()])
    return predictor


def _check_category(table: pa.Table, category: str, source: str) -> None:
    """Reject a table that has neither categories nor the columns to compute them."""
    missing = [name for name in TAXONOMY_INPUTS if name not in table.column_names]
    if category == "taxonomy" and category not in table.column_names and missing:
        raise MemtaxError(
            f"{source} has no column 'taxonomy' and, to compute it, no {' and no '.join(missing)}; "
            "add them with memtax filter, or give another column of categories"
        )


def _explain(
    table: pa.Table, factors: Sequence[str], target: str, category: str, output: Path
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Compute and write tests and correlations, on the representative sample only."""
    tests = infer(table, factors, target, category)
    found = correlations(table, factors, target, category)
    write_json(output / "inference.json", tests)
    write_json(output / "correlations.json", {"correlations": found})
    return tests, found


def _identify(name: str) -> str:
    source = Source.parse(name)
    return digest(fingerprint_path(source.path), source.name, source.split)[:32]


def probe_layers(
    source: str,
    model: str,
    predictor: Predictor,
    output: Path,
    *,
    most: int = 20_000,
    bos: str = "auto",
    placement: "Placement | None" = None,
    batch_size: int | None = None,
) -> list[dict[str, Any]]:
    """Probe a model's layers for the target and for the category, with controls.

    Args:
        source: dataset of sequences of one length, with tokens in addition to the predictor's inputs.
        model: folder or Hub name of the language model.
        predictor: provides the factors for the control without layers, and the target and category to probe.
        output: folder of `probes.json` and `figures/probes_*`.
        most: number of sequences to read from the start of the dataset: states of all layers are in memory at once.
        bos: tokens put before each sequence, one of `memtax.lm.special_tokens.BOS`.
        placement: dtype and devices of the language model.
        batch_size: sequences per forward pass; None: 64.

    Returns:
        The rows of both probes.

    Raises:
        MemtaxError: there are no tokens, or a class has too few rows.
    """
    from memtax.lm import resident
    from memtax.lm.loading import split_revision
    from memtax.lm.special_tokens import bos_of, without_bos
    from memtax.predictor.probes import hidden_states, probe

    chosen = declared.resolve(predictor.factors, predictor.target)
    sources = [name for factor in chosen for name in factor.sources]
    table = read_table(source, ["tokens", "document", predictor.target, predictor.category, *sources]).slice(0, most)
    schema.require(table.column_names, ["tokens"], source)
    rows = usable(table, chosen, predictor.target, predictor.category, source)
    groups = split_groups(table)[rows.kept]
    language_model = resident.get(*split_revision(model), placement, bos)
    opening = bos_of(language_model)
    tokens = [without_bos(row, opening) for row in table.column("tokens").filter(rows.kept).to_pylist()]
    states = hidden_states(language_model, tokens, batch=batch_size or 64)
    found = []
    for name, labels in (("memorized", rows.labels.astype(np.int64)), ("category", rows.categories)):
        # Classes that do not occur, such as a category, get no number.
        classes = np.unique(labels, return_inverse=True)[1]
        own = probe(states, classes, rows.values, name=name, groups=groups)
        title = f"What each layer knows: {name}"
        saving.save(model_figures.probe_layers(own), output / "figures", f"probes_{name}", title)
        found += own
    write_json(output / "probes.json", {"model": model, "bos": list(opening), "rows": len(tokens), "probes": found})
    return found


def search(
    source: str,
    output: Path,
    config: SearchConfig | None = None,
    *,
    start: int = 0,
    stop: int | None = None,
    merged: Sequence[Path] = (),
    greedy: bool = False,
    **settings: Any,
) -> dict[str, Any] | None:
    """Search partitions, or a slice of them; conclude when all are scored.

    Args:
        source: dataset of sequences with their factors.
        output: folder of the results; finished partitions in it are kept.
        config: None uses the published factors that the table has.
        start: first partition of the slice.
        stop: end of the slice; None for all.
        merged: folders with other slices, whose partitions are included.
        greedy: also grow a partition rule by rule.
        settings: fields of `SearchConfig`, if no config is given; None values are ignored.

    Returns:
        The result (see `memtax.predictor.partition_search.conclude`); None while partitions are missing.

    Raises:
        MemtaxError: an input cannot be used.
        StaleOutputError: a folder belongs to another search.
    """
    table = read_table(source)
    config = config or _config(table, settings)
    problem = config.prepare(table)
    _say_dropped(problem.dropped, source)
    identity = {"stage": "search", "version": 2, "config": _plain(config), "table": _fingerprint(table, config)}
    if merged:
        merge(output, merged, identity)
    claim(output, identity)
    stop = len(config.partitions) if stop is None else stop
    search_slice(problem, config, output, identity, start, stop)
    found = conclude(problem, config, output, identity)
    if found is None:
        missing = len(config.partitions) - len(finished(output, identity))
        say(f"{missing} of {len(config.partitions)} partitions are not scored yet; merge the other slices with --merge")
        return None
    model_figures.write_search(found, output / "figures")
    if greedy:
        grid = SearchConfig(**{**config.__dict__, "quantiles": growing.GRID})
        grown = growing.grow(grid.prepare(table), grid)
        growing.save(grown, output)
        found["greedy"] = grown
    write_record(
        output / "run.yaml",
        "search",
        {"source": source, **_plain(config)},
        {source: fingerprint_path(Source.parse(source).path)},
    )
    names = ("search.json", "partitions.parquet", "greedy.json", "run.yaml")
    seal(output, "the same memtax search command", identity, [name for name in names if (output / name).exists()])
    return found


def _say_dropped(dropped: Mapping[str, int], source: str) -> None:
    for reason, rows in dropped.items():
        skipped(rows, f"{reason}, in {source}")


def _config(table: pa.Table, settings: dict[str, Any]) -> SearchConfig:
    given = {name: value for name, value in settings.items() if value is not None}
    names = table.column_names
    # By default, rules use the published ten factors; a Huffman length replaces a missing Shannon length.
    split = ["huffman_coding_length" if name == "shannon_coding_length" else name for name in SPLIT_FACTORS]
    factors = given.pop("factors", None) or declared.available(names)
    given.setdefault("category", "taxonomy" if "taxonomy" in names else None)
    return SearchConfig(factors=factors, split_on=given.pop("split_on", None) or declared.available(names, split), **given)


def _plain(config: SearchConfig) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in config.__dict__.items()}


def _fingerprint(table: pa.Table, config: SearchConfig) -> str:
    """Digest of the values that the search reads, since slices from other machines must use the same data."""
    from memtax.provenance import fingerprint_dataset

    sources = [source for factor in declared.resolve(config.factors, config.target) for source in factor.sources]
    sources += [source for factor in declared.resolve(config.split_on, config.target) for source in factor.sources]
    wanted = dict.fromkeys([*sources, config.target, config.category, "document", COLUMN])
    names = [name for name in wanted if name is not None and name in table.column_names]
    return digest(names, fingerprint_dataset(table, names))
