"""Reading two runs and pairing the sequences that both scored."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from memtax import schema, statistics
from memtax.checksums import verify
from memtax.errors import MemtaxError
from memtax.report.quoting import complete, is_masked, shows_personal_data
from memtax.results import read_summary

_COLUMNS = ("sequence_id", "is_memorized", "taxonomy", "text", "tokens", "document")


@dataclass(frozen=True)
class ScoredRun:
    """A run's verdicts, in ascending order of id.

    Attributes:
        about: description for the page: name and number of sequences.
        ids: (rows,) sequence ids, ascending.
        memorized: (rows,) whether each sequence is memorized.
        taxonomy: (rows,) codes of the categories.
        texts: (rows,) texts of the sequences; None: the run has none.
        tokens: tokens of the sequences, to match runs with other ids; None: the run has none.
        documents: (rows,) documents that the sequences were cut from, None if unknown.
        shown: whether it is an audit that shows personal data.
        masked: whether its texts were masked when it was made.
    """

    about: dict[str, Any]
    ids: np.ndarray
    memorized: np.ndarray
    taxonomy: np.ndarray
    texts: np.ndarray | None
    tokens: pa.ChunkedArray | None
    documents: np.ndarray
    shown: bool = False
    masked: bool = False

    def by_tokens(self) -> dict[bytes, int]:
        """The first row with each sequence of tokens."""
        if self.tokens is None:
            return {}
        rows = self.tokens.to_pylist()
        return {np.array(tokens or [], np.int32).tobytes(): len(rows) - 1 - at for at, tokens in enumerate(reversed(rows))}

    def distinct(self, matched_by: str) -> int:
        """Sequences that count."""
        return len(self.ids) if matched_by == "sequence_id" else len(self.by_tokens())


def _came_back(path: Path) -> dict[str, Any]:
    """Of an audit of unlearning, what came back in each state of the model; empty for others."""
    if not (path / "unlearning").is_dir():
        return {}
    found = (read_summary(path, "audit").get("unlearning") or {}).get("came_back") or {}
    return {
        "came_back": {state: {key: sets["forget"][key] for key in ("memorized", "sequences")} for state, sets in found.items()}
    }


def read_run(path: Path, show_personal_data: bool = False) -> ScoredRun:
    """Verdicts of a run, of an audit's run, or of a Parquet file.

    Args:
        path: path of the run, audit or file.
        show_personal_data: use an audit's unmasked texts instead of the masked ones.

    Raises:
        MemtaxError: there is no table, it cannot be read, or its ids are not unique.
    """
    features = Path("dataset", "features", "train.parquet")
    # An audit keeps its run in a folder of that name.
    scores = Path("dataset", "scores", "train.parquet")
    places = (path / features, path / "run" / features, path / scores, path)
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise MemtaxError(f"{path} contains no table of sequences; give the directory of a finished run, or a Parquet file")
    verify(file)
    try:
        known = pq.read_schema(file).names
        schema.require(known, ("sequence_id", "is_memorized"), str(file))
        table = pq.read_table(file, columns=[name for name in known if name in _COLUMNS])
    except (OSError, ValueError) as error:
        if isinstance(error, MemtaxError):
            raise
        raise MemtaxError(f"{file} cannot be read: {error}") from error
    run = file.parent.parent.parent
    table = complete(table, run, texts=show_personal_data).sort_by("sequence_id")
    ids = table.column("sequence_id").to_numpy()
    if len(ids) > 1 and (ids[1:] == ids[:-1]).any():
        raise MemtaxError(f"{file} has sequence_id {ids[1:][ids[1:] == ids[:-1]][0]} more than once; ids must be unique")
    return ScoredRun(
        {"name": str(path), "sequences": table.num_rows, **_came_back(path)},
        ids,
        np.array(table.column("is_memorized").to_pylist(), object),
        _categories(table),
        np.array(table.column("text").to_pylist(), object) if "text" in known else None,
        table.column("tokens") if "tokens" in known else None,
        np.array(table.column("document").to_pylist() if "document" in known else [None] * table.num_rows, object),
        shows_personal_data(path),
        is_masked(run),
    )


def shared_units(one: ScoredRun, two: ScoredRun, at_one: np.ndarray, at_two: np.ndarray) -> statistics.Units:
    """Units of the shared sequences: documents of the first run, or else of the second, or else equal text."""
    old, new = one.documents[at_one], two.documents[at_two]
    documents = [b if a is None else a for a, b in zip(old, new, strict=True)]
    columns = {"document": pa.array(documents, pa.string())}
    texts = one.texts[at_one] if one.texts is not None else two.texts[at_two] if two.texts is not None else None
    if texts is not None:
        columns["text"] = pa.array(texts.tolist(), pa.string())
    if one.tokens is not None:
        columns["tokens"] = one.tokens.take(at_one)
    elif two.tokens is not None:
        columns["tokens"] = two.tokens.take(at_two)
    return statistics.Units.of_table(pa.table(columns))


def _categories(table: pa.Table) -> np.ndarray:
    """Category names; None for missing ones."""
    if "taxonomy" not in table.column_names:
        return np.full(table.num_rows, None, object)
    values = table.column("taxonomy").to_pylist()
    return np.array([schema.CATEGORIES[value] if isinstance(value, int) else value for value in values], object)


def pair_rows(one: ScoredRun, two: ScoredRun) -> tuple[np.ndarray, np.ndarray, str]:
    """Rows of the shared sequences in both runs, and the property that matched them."""
    ids = np.intersect1d(one.ids, two.ids)
    places = np.searchsorted(one.ids, ids), np.searchsorted(two.ids, ids)
    if len(ids) and _same_tokens(one, two, *places):
        return *places, "sequence_id"
    rows, others = one.by_tokens(), two.by_tokens()
    shared = [(row, others[tokens]) for tokens, row in rows.items() if tokens in others]
    if not shared:
        raise MemtaxError(
            f"{one.about['name']} and {two.about['name']} share no sequence, neither by sequence_id nor by tokens; compare "
            "runs over the same sequences and tokenizer"
        )
    at_one, at_two = np.array(sorted(shared)).T
    return at_one, at_two, "tokens"


def _same_tokens(one: ScoredRun, two: ScoredRun, at_one: np.ndarray, at_two: np.ndarray) -> bool:
    """Whether shared ids mean shared sequences; assumed if a table has no tokens."""
    if one.tokens is None or two.tokens is None:
        return True
    starts = range(0, len(at_one), 4096)
    pieces = ((one.tokens.take(at_one[at : at + 4096]), two.tokens.take(at_two[at : at + 4096])) for at in starts)
    return all(left.to_pylist() == right.to_pylist() for left, right in pieces)
