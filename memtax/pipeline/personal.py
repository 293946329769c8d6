"""Personal data in a run's sequences: detected in whole documents, mapped to windows, masked in published data."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from memtax import privacy
from memtax.corpus.sequences import Document, documents
from memtax.corpus.sources import Source
from memtax.engine import once
from memtax.files import write_parquet
from memtax.hub.folder import Config, ParquetFiles
from memtax.lm.loading import load_tokenizer
from memtax.pipeline.config import RunConfig
from memtax.pipeline.stages import answer_windows
from memtax.privacy import Finding
from memtax.progress import progress_bar
from memtax.provenance import fingerprint_dataset

FOLDER = "personal_data"
"""Directory of the stage inside the run's directory."""
VERSION = 6
"""Increased whenever the same texts would give other findings."""
_DERIVED = ("prompt_text", "paraphrases", "neighbour_texts", "place_document", "place_source")
"""Columns derived from a window's text, or from names of documents and files."""


@dataclass(frozen=True)
class PersonalData:
    """The personal data in each sequence.

    Attributes:
        hidden: `sequence_id` to the parts of its text to mask, in order and without overlap.
        kinds: `sequence_id` to the kinds of valid personal data in its window, even if the window's edge cuts them; only
            sequences that have any.
    """

    hidden: Mapping[int, Sequence[Finding]]
    kinds: Mapping[int, frozenset[str]]


def personal_data(config: RunConfig) -> PersonalData:
    """Find the personal data of a run's sequences, once.

    Args:
        config: configuration of the run, whose sequences are already cut.

    Raises:
        StaleOutputError: the output contains the findings of other sequences.
    """
    output = Path(config.output)
    sequences = pq.read_table(output / "sequences" / "train.parquet", columns=["sequence_id", "tokens", "text"])
    missing = privacy.missing_packages()
    identity = {
        "stage": "personal data",
        "version": VERSION,
        "sequences": fingerprint_dataset(sequences, ("sequence_id", "tokens")),
        "region": config.region,
        "packages": {name: None if name in missing else version(name) for name in privacy.PACKAGES.values()},
    }

    def make(folder: Path) -> None:
        ids = sequences.column("sequence_id").to_pylist()
        write_parquet(folder / "findings.parquet", _table(ids, _findings(config, len(ids)), not missing))

    once(output / FOLDER, identity, make)
    return _read(output / FOLDER / "findings.parquet")


def _findings(config: RunConfig, rows: int) -> Iterator[tuple[list[Finding], list[Finding]]]:
    """Findings to mask in each window, and the valid ones among them; of answers, those in the answer."""
    tokenizer = load_tokenizer(config.tokenizer or config.model, None if config.tokenizer else config.revision)
    sources = [config.sequence_source, *([config.held_out] if config.held_out is not None else [])]
    with progress_bar("personal data", rows) as bar:
        for source in sources:
            reading = Source.parse(source, column=config.column)
            options = {"window": config.window, **answer_windows(config)}
            for document in documents(reading, tokenizer=tokenizer, bos=config.opening, **options):
                yield from _of_windows(document, config.region)
                bar.update(len(document.windows))


def _of_windows(document: Document, region: str) -> Iterator[tuple[list[Finding], list[Finding]]]:
    valid = [] if privacy.missing_packages() else privacy.find(document.text, region)
    hidden = privacy.cover(document.text, valid, open_ends=not document.whole)
    if document.prompts is None:
        places = privacy.locate(document.text, document.windows)
    else:
        places = [privacy.locate(document.text, [window])[0] for window in document.windows]
    starts = document.prompts or [0] * len(document.windows)
    for window, place, start in zip(document.windows, places, starts, strict=True):
        if place is None:
            # Its text is not the document's, so only the window itself is known.
            alone = [] if privacy.missing_packages() else privacy.find(window, region)
            yield privacy.cover(window, alone, open_ends=True), _from(alone, start)
        else:
            yield privacy.cover(window, privacy.window_spans(hidden, place)), _from(privacy.window_spans(valid, place), start)


def _from(findings: Sequence[Finding], start: int) -> list[Finding]:
    """Those that end after a character: what stands in a prompt is given to the model, not taken from it."""
    return [finding for finding in findings if finding.end > start]


def _table(ids: Sequence[int], findings: Iterator[tuple[list[Finding], list[Finding]]], measurable: bool) -> pa.Table:
    rows: list[tuple[int, str, int, int, bool]] = []
    for sequence_id, (hidden, valid) in zip(ids, findings, strict=True):
        rows += [(sequence_id, each.kind, each.start, each.end, False) for each in hidden]
        rows += [(sequence_id, each.kind, each.start, each.end, True) for each in valid]
    kinds = {"sequence_id": pa.int64(), "kind": pa.string(), "start": pa.int32(), "end": pa.int32(), "valid": pa.bool_()}
    columns = zip(*rows, strict=True) if rows else [()] * len(kinds)
    return pa.table([pa.array(column, kind) for column, kind in zip(columns, kinds.values(), strict=True)], list(kinds))


def _read(path: Path) -> PersonalData:
    hidden: dict[int, list[Finding]] = {}
    kinds: dict[int, set[str]] = {}
    for row in pq.read_table(path).to_pylist():
        if row["valid"]:
            kinds.setdefault(row["sequence_id"], set()).add(row["kind"])
        else:
            hidden.setdefault(row["sequence_id"], []).append(Finding(row["kind"], row["start"], row["end"]))
    return PersonalData(hidden, {sequence_id: frozenset(found) for sequence_id, found in kinds.items()})


def masked(table: pa.Table, found: PersonalData) -> pa.Table:
    """A table of sequences that may be published.

    Args:
        table: `sequence_id`, and any of `text`, `document`, `tokens`, `token_texts` and columns derived from a text.
        found: personal data of the sequences.

    Returns:
        The table with personal data masked in its texts, and null for tokens that contain any of it.
    """
    names = [name for name in ("text", "document", "tokens", "token_texts", *_DERIVED) if name in table.column_names]
    ids = table.column("sequence_id").to_pylist()
    rows = table.select(names).to_pylist()
    for sequence_id, row in zip(ids, rows, strict=True):
        _mask_row(row, found.hidden.get(sequence_id, ()))
    for name in names:
        place, field = table.column_names.index(name), table.schema.field(name)
        table = table.set_column(place, field, pa.array([row[name] for row in rows], field.type))
    return table


def _mask_row(row: dict[str, Any], hidden: Sequence[Finding]) -> None:
    if row.get("document"):
        # Document names often contain names of people and customers.
        row["document"] = privacy.mask_text(row["document"])
    for name in set(_DERIVED) & row.keys():
        row[name] = _mask_value(row[name])
    text = row.get("text")
    if text is None or not hidden:
        return
    row["text"] = privacy.mask(text, hidden)
    if row.get("token_texts") is not None:
        row["token_texts"], gone = privacy.mask_pieces(text, row["token_texts"], hidden)
        if row.get("tokens") is not None:
            row["tokens"] = [None if masked else token for token, masked in zip(row["tokens"], gone, strict=True)]


def mask_attached(config: Config) -> Config:
    """A config from another verb, with personal data masked in its texts."""
    splits = {}
    for split, data in config.splits.items():
        table = pq.read_table(list(data.paths)) if isinstance(data, ParquetFiles) else data
        for place, field in enumerate(table.schema):
            if field.name in ("text", "document", *_DERIVED):
                values = [_mask_value(value) for value in table.column(place).to_pylist()]
                table = table.set_column(place, field, pa.array(values, field.type))
        splits[split] = table
    return replace(config, splits=splits)


def _mask_value(value: Any) -> Any:
    """Mask one or several texts about which nothing is known, except that a window's ends may have cut them."""
    texts = value if isinstance(value, list) else [value]
    masked_texts = [privacy.mask_text(each, open_ends=True) for each in texts]
    return masked_texts if isinstance(value, list) else masked_texts[0]
