"""The stages before a model is needed: sequences, counts, property filters, taxonomy. Finished stages are reused."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from memtax import schema
from memtax.corpus.answers import holds_conversations
from memtax.corpus.sequences import load_sequences, window_rows
from memtax.corpus.sources import Source, open_dataset
from memtax.counting.count_tables import (
    DUPLICATES_FILE,
    FREQUENCIES_FILE,
    is_index,
    location,
    read_duplicates,
    read_frequencies,
)
from memtax.counting.counter import count, write_counts
from memtax.counting.large_ids import TokenTable
from memtax.counting.places import write_places
from memtax.engine import World, once
from memtax.engine import run as run_stage
from memtax.errors import MemtaxError
from memtax.files import write_json, write_parquet
from memtax.filters import Filter
from memtax.filters.compressibility import CompressibilityFilter
from memtax.filters.duplicates import DuplicateFilter
from memtax.filters.taxonomy import TaxonomyFilter
from memtax.filters.templates import TemplateFilter
from memtax.filters.token_frequencies import TokenFrequencyFilter
from memtax.lm.chats import positions_for_text
from memtax.lm.loading import load_tokenizer, split_revision
from memtax.pipeline.config import RunConfig
from memtax.pipeline.series import Member
from memtax.progress import silence_libraries
from memtax.provenance import digest, fingerprint_dataset, fingerprint_path, fingerprint_table
from memtax.record_shapes import SKIPPED
from memtax.records import read_json

TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt"),
    *("*.model", "*.tiktoken"),
)
"""Tokenizer files in a model's folder."""
_NOT_TOKENIZING = ("chat_template", "transformers_version", "name_or_path", "model_max_length")
COLUMN_PREFIX = "column:"
"""Start of `counts` if a column of the sequences contains them."""
ROWS_PER_BATCH = 256
"""Rows per filter call. Part of a stage's identity, so that no result depends on the number of processes."""


@dataclass(frozen=True)
class Described:
    """Sequences with the factors that need no model.

    Attributes:
        dataset: one row per sequence: keys, `is_member`, counts, properties, `taxonomy`.
        skipped: for each reason, the number of source rows that gave no sequence.
        inputs: name to fingerprint of each input.
        further_factors: columns of `filters` that can be factors.
    """

    dataset: datasets.Dataset
    skipped: dict[str, int]
    inputs: dict[str, str]
    further_factors: tuple[str, ...] = ()

    @property
    def members(self) -> datasets.Dataset:
        """The sequences that the model was trained on."""
        return self.dataset.select([row for row, member in enumerate(self.dataset["is_member"]) if member])


def describe(config: RunConfig) -> Described:
    """Cut the sequences, count them over the corpus, and apply every filter that needs no model.

    Args:
        config: configuration of the run; finished stages in its output are reused.

    Returns:
        Members first, then the held-out sequences, whose ids follow the members' largest id.

    Raises:
        MemtaxError: an input cannot be used.
        StaleOutputError: the output contains stages of another configuration or input.
    """
    silence_libraries()
    world = World.current()
    output = Path(config.output)
    filters, further = _filters(config)
    inputs = {name: fingerprint_path(Source.parse(source).path) for name, source in _sources(config).items()}
    inputs["tokenizer"] = fingerprint_tokenizer(config.tokenizer or config.model)

    identity = {"stage": "sequences", "version": 1, "window": config.window, "column": config.column}
    identity |= inputs
    if config.answers:
        reader = load_tokenizer(config.tokenizer or config.model, None if config.tokenizer else config.revision)
        identity |= {"template": digest(reader.chat_template), **answer_windows(config)}
    on_main(world, lambda: once(output / "sequences", identity, lambda folder: _write_sequences(config, folder)))
    dataset = _open(output / "sequences" / "train.parquet")

    identity = {
        "stage": "counts",
        "version": 1,
        "corpus": inputs["corpus"],
        "tokenizer": inputs["tokenizer"],
        "sequences": fingerprint_dataset(dataset, ("sequence_id", "tokens")),
        "window": [config.prompt, config.window],
        **({"places": config.places} if config.places else {}),
    }
    given = {name: source for name in ("counts", "frequencies") if (source := getattr(config, name)) is not None}
    for name, source in given.items():
        inputs[name] = fingerprint_path(location(source))
        identity[name] = [source, inputs[name]]
    on_main(world, lambda: once(output / "counts", identity, lambda folder: _write_counts(config, dataset, folder)))

    for each in filters:
        dataset = join(dataset, run_stage(dataset, each, output / "filters" / each.name, ROWS_PER_BATCH))
    for each in filters:
        if each.name in config.filters:
            paths = [str(path) for path in each.inputs() if Path(path).parent != output / "counts"]
            inputs |= {f"filter {each.name} {number}": fingerprint_path(path) for number, path in enumerate(paths)}
    dataset = _add_what_was_asked_for(config, dataset)
    inputs |= {name: fingerprint_path(location(source)) for name, source in config.given.items()}
    taxonomy = TaxonomyFilter(threshold=config.recitation_threshold)
    dataset = join(dataset, run_stage(dataset, taxonomy, output / "filters" / taxonomy.name, ROWS_PER_BATCH))
    skipped = read_json(output / "sequences" / "skipped.json", SKIPPED)
    return Described(dataset, skipped, inputs, further)


def _filters(config: RunConfig) -> tuple[list[Filter], tuple[str, ...]]:
    """Filters that need no model, in execution order, and the factors among them that not every run has."""
    counts = str(Path(config.output) / "counts")
    own: list[Filter] = [DuplicateFilter(counts), TokenFrequencyFilter(counts), TemplateFilter(), CompressibilityFilter()]
    if not config.filters:
        return own, ()
    from memtax.pipeline.further_filters import further_factors, with_further

    filters = with_further(config, own)
    return filters, further_factors(filters, own)


def _add_what_was_asked_for(config: RunConfig, dataset: datasets.Dataset) -> datasets.Dataset:
    """Add factors for which the configuration names a model or a table."""
    if config.code_model is not None:
        from memtax.filters.code_vs_nl import CodeFilter

        each = CodeFilter(config.code_model, verdict=True)
        dataset = join(dataset, run_stage(dataset, each, config.output / "filters" / each.name, ROWS_PER_BATCH))
    if config.embedding_model is not None:
        from memtax.pipeline.neighbors import match_columns

        dataset = join(dataset, *match_columns(config, dataset, ROWS_PER_BATCH))
    if config.given:
        from memtax.pipeline.given import given_columns

        dataset = join(dataset, *given_columns(config, dataset))
    return dataset


def fingerprint_tokenizer(path: str) -> str:
    """Digest of the tokenizer in a folder, from the files that define tokenization only.

    Chat templates and the version of the saving library do not count. Other paths and names: as `fingerprint_path`.
    """
    folder = Path(path)
    files = [file for pattern in TOKENIZER_FILES for file in sorted(folder.glob(pattern))]
    if not files:
        return fingerprint_path(path)
    parts: list[Any] = []
    for file in files:
        if file.name == "tokenizer_config.json":
            settings = read_json(file, finite=False)
            parts.append([file.name, {name: value for name, value in settings.items() if name not in _NOT_TOKENIZING}])
        else:
            parts.append([file.name, fingerprint_path(file)])
    return digest("tokenizer", *parts)


def on_main(world: World, work: Callable[[], Any]) -> None:
    """Run something on the main process only; the others wait for it."""
    if world.is_main:
        work()
    world.wait()


def join(dataset: datasets.Dataset, *tables: pa.Table) -> datasets.Dataset:
    """Add the columns of stages to the dataset, in the same row order.

    Raises:
        AssertionError: the keys differ.
    """
    for added in tables:
        table = dataset.with_format("arrow")[:]
        if table.column("sequence_id").combine_chunks() != added.column("sequence_id").combine_chunks():
            raise AssertionError("a stage's rows are not those of its input")
        columns = {name: each.column(name) for each in (added, table) for name in each.column_names}
        table = pa.table({name: columns[name] for name in dict.fromkeys([*table.column_names, *added.column_names])})
        fingerprint = digest(dataset._fingerprint, fingerprint_table(added))
        dataset = datasets.Dataset(table.cast(schema.features(table.column_names).arrow_schema), fingerprint=fingerprint)
    return dataset


def token_texts(tokens: "Sequence[Sequence[int]]", tokenizer: Any) -> list[list[str]]:
    """Each token decoded separately; a token that is part of a character becomes the replacement character."""
    distinct = sorted({token for row in tokens for token in row})
    pieces = dict(zip(distinct, tokenizer.batch_decode([[token] for token in distinct]), strict=True))
    return [[pieces[token] for token in row] for row in tokens]


def _sources(config: RunConfig) -> dict[str, str]:
    sources = {"corpus": config.corpus, "sequences": config.sequences, "held_out": config.held_out}
    return {name: source for name, source in sources.items() if source is not None}


def _open(path: Path) -> datasets.Dataset:
    table = pq.read_table(path, memory_map=True)
    typed = table.cast(schema.features(table.column_names).arrow_schema)
    return datasets.Dataset(typed, fingerprint=fingerprint_path(path))


def _write_sequences(config: RunConfig, folder: Path) -> None:
    tokenizer = load_tokenizer(config.tokenizer or config.model, None if config.tokenizer else config.revision)
    source = Source.parse(config.sequence_source, column=config.column)
    options = {"tokenizer": tokenizer, "bos": config.opening, "window": config.window, **answer_windows(config)}
    members = load_sequences(source, **options)
    tables = [_with_membership(members.dataset, True)]
    skipped = dict(members.skipped)
    if config.held_out is not None:
        control = Source.parse(config.held_out, column=config.column)
        if holds_conversations(control) != config.answers:
            raise MemtaxError(
                f"held_out: {config.held_out} and {config.sequence_source} must both hold conversations, or neither"
            )
        others = load_sequences(control, **options)
        table = _with_membership(others.dataset, False)
        _check_apart(config, tables[0], table)
        # Unnamed documents of both sources are numbered from 0 but are different documents.
        at = table.column_names.index("document")
        names = pc.replace_substring_regex(table.column("document"), r"^row (\d+)$", r"held-out row \1")
        table = table.set_column(at, table.schema.field(at), names)
        first = pc.max(tables[0].column("sequence_id")).as_py() + 1
        ids = pa.array(range(first, first + table.num_rows), pa.int64())
        tables.append(table.set_column(table.column_names.index("sequence_id"), "sequence_id", ids))
        skipped |= {f"held out: {reason}": rows for reason, rows in others.skipped.items()}
    table = pa.concat_tables(tables)
    write_parquet(folder / "train.parquet", schema.validate(table, table.column_names, "the sequences"))
    write_json(folder / "skipped.json", skipped)


def answer_windows(config: RunConfig) -> dict[str, Any]:
    """Arguments of `load_sequences` for conversations: tokens of an answer, and positions of all models of the run."""
    if not config.answers:
        return {}
    others = [split_revision(config.reference_model)] if config.reference_model is not None else []
    series = [Member.parse(text, config.model) for text in (*config.checkpoints, *config.models)]
    models = [(config.model, config.revision), *others, *((member.path, member.revision) for member in series)]
    limits = [positions_for_text(*model, config.opening) for model in dict.fromkeys(models)]
    return {"continuation": config.continuation, "positions": min((one for one in limits if one is not None), default=None)}


def _check_apart(config: RunConfig, members: pa.Table, others: pa.Table) -> None:
    """Reject a control that is the training data: the same file, or a copy of it."""
    kinds = [{tuple(row) for row in table.column("tokens").to_pylist()} for table in (members, others)]
    shared = kinds[0] & kinds[1]
    for kind, name, other in ((1, config.held_out, config.sequence_source), (0, config.sequence_source, config.held_out)):
        if shared and shared == kinds[kind]:
            raise MemtaxError(
                f"held_out: all {len(shared):,} sequences of {name} are in {other} too; give texts that the model was not "
                "trained on, or leave the key out"
            )


def _with_membership(dataset: datasets.Dataset, member: bool) -> pa.Table:
    table = dataset.with_format("arrow")[:]
    flags = pa.array([member] * table.num_rows, pa.bool_())
    return pa.table({**{name: table.column(name) for name in table.column_names}, "is_member": flags})


def _write_counts(config: RunConfig, dataset: datasets.Dataset, folder: Path) -> None:
    if is_index(config.counts):
        _ask_index(config, dataset, folder)
        return
    if config.counts is not None and config.counts.startswith(COLUMN_PREFIX):
        _read_column(config, dataset, folder)
        return
    if config.counts is not None:
        _take_counts(config.counts, config.frequencies or config.counts, dataset, folder)
        return
    from memtax.corpus.opening import Reading, open_sources

    tokenizer = load_tokenizer(config.tokenizer or config.model, None if config.tokenizer else config.revision)
    corpus = open_sources([config.corpus], Reading(column=config.column, tokenizer=tokenizer))
    counts = count(corpus, continuations(config, dataset), vocabulary_size=len(tokenizer), places=config.places)
    ids = np.asarray(dataset.with_format("numpy")["sequence_id"])
    write_counts(folder, ids, counts)
    if config.places:
        write_places(folder, [("", ids)], counts, corpus)
    write_json(folder / "totals.json", {"tokens": counts.tokens, "sequences": counts.sequences})


def prompt_lengths(config: RunConfig, table: Any) -> list[int]:
    """Tokens of the prompt of each sequence: the run's, or of answers those of the conversation before them."""
    return list(table["prompt_tokens"]) if "prompt_tokens" in table.column_names else [config.prompt] * len(table)


def continuations(config: RunConfig, dataset: datasets.Dataset) -> np.ndarray:
    """The continuation of each sequence: (sequences, continuation)."""
    if not config.answers:
        tokens = np.asarray(dataset.with_format("numpy")["tokens"], np.int32).reshape(len(dataset), config.window)
        return tokens[:, config.prompt :]
    rows = dataset.with_format(None)["tokens"]
    return np.array([tokens[-config.continuation :] for tokens in rows], np.int32).reshape(len(dataset), config.continuation)


def _ask_index(config: RunConfig, dataset: datasets.Dataset, folder: Path) -> None:
    """Counts of all sequences from an index; token frequencies as given, or of the corpus, which may be a sample."""
    from memtax.counting.infini_gram import count_windows

    assert config.counts is not None
    tokenizer = load_tokenizer(config.tokenizer or config.model, None if config.tokenizer else config.revision)
    found = count_windows(config.counts, continuations(config, dataset), tokenizer)
    _write_given(config, dataset, pa.array(found.counts, pa.int64()), found.figures(config.counts), folder)


def _read_column(config: RunConfig, dataset: datasets.Dataset, folder: Path) -> None:
    """Counts of all sequences from a column of their sources, where each row has the number of times it was inserted."""
    assert config.counts is not None
    if config.answers:
        raise MemtaxError(f"counts: {config.counts} cannot be used for conversations; leave it out to count their answers")
    name = config.counts.removeprefix(COLUMN_PREFIX)
    tokenizer = load_tokenizer(config.tokenizer or config.model, None if config.tokenizer else config.revision)
    counts: list[int | None] = []
    for text in (config.sequence_source, config.held_out):
        if text is None:
            continue
        source = Source.parse(text, column=config.column)
        opened: Any = open_dataset(source)
        if name not in opened.column_names:
            raise MemtaxError(
                f"counts: {source.label} has no column {name!r}; its columns are: {', '.join(opened.column_names)}"
            )
        values = opened.select_columns([name]).with_format("arrow")[:].column(name)
        if not pa.types.is_integer(values.type) or (pc.min(values).as_py() or 0) < 0:
            raise MemtaxError(f"counts: the column {name!r} of {source.label} must contain whole numbers of at least 0")
        rows = window_rows(source, window=config.window, tokenizer=tokenizer, bos=config.opening)
        counts += values.take(pa.array(rows)).to_pylist()
    _write_given(config, dataset, pa.array(counts, pa.int64()), {"source": config.counts}, folder)


def _write_given(config: RunConfig, dataset: datasets.Dataset, counts: pa.Array, figures: dict[str, Any], folder: Path) -> None:
    """Write counts of all sequences, and token frequencies as given or of the corpus."""
    if config.frequencies is not None:
        table = read_frequencies(config.frequencies)
    else:
        from memtax.corpus.opening import Reading, open_sources

        tokenizer = load_tokenizer(config.tokenizer or config.model, None if config.tokenizer else config.revision)
        corpus = open_sources([config.corpus], Reading(column=config.column, tokenizer=tokenizer))
        counted = count(corpus, [], vocabulary_size=len(tokenizer))
        table = TokenTable(
            np.concatenate([np.arange(len(counted.token_frequencies)), counted.large_ids]),
            np.concatenate([counted.token_frequencies, counted.large_frequencies]),
        )
    columns = {"sequence_id": np.asarray(dataset.with_format("numpy")["sequence_id"]), "sequence_duplicates": counts}
    frequencies = {"token_id": table.ids, "token_frequency": table.frequencies}
    for name, each in ((DUPLICATES_FILE, columns), (FREQUENCIES_FILE, frequencies)):
        write_parquet(folder / name, schema.validate(pa.table(each), each, name))
    write_json(folder / "totals.json", {"tokens": table.total, "sequences": None, **figures})


def _take_counts(counts: str, frequencies: str, dataset: datasets.Dataset, folder: Path) -> None:
    """Use existing counts for the members; held-out sequences have generated ids, which mean nothing in that table."""
    known, values = read_duplicates(counts)
    rows = dataset.with_format("numpy")
    asked = np.asarray(rows["sequence_id"])[np.asarray(rows["is_member"])]
    missing = asked[~np.isin(asked, known)]
    if len(missing):
        raise MemtaxError(
            f"{counts} has no count of {len(missing):,} of {len(asked):,} sequences, the first is sequence_id {missing[0]}; "
            "give counts of these sequences, or leave the key out to count over the corpus"
        )
    at = np.searchsorted(known, asked)
    table = read_frequencies(frequencies)
    tables = {
        DUPLICATES_FILE: {"sequence_id": asked, "sequence_duplicates": values[at]},
        FREQUENCIES_FILE: {"token_id": table.ids, "token_frequency": table.frequencies},
    }
    for name, columns in tables.items():
        write_parquet(folder / name, schema.validate(pa.table(columns), columns, name))
    write_json(folder / "totals.json", {"tokens": table.total, "sequences": None})
