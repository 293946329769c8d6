"""Texts of a run as reports may quote them: masked as the run published them, or as they are where that was asked for."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from memtax import privacy
from memtax.results import SUMMARY, read_summary


def shows_personal_data(folder: Path) -> bool:
    """Whether a directory is an audit that shows personal data."""
    return (folder / SUMMARY).is_file() and read_summary(folder).get("personal_data_shown") is True


def complete(table: pa.Table, run: Path, *, texts: bool) -> pa.Table:
    """A run's features with the tokens and names of documents, which a masked run leaves out where they hold personal data.

    Args:
        table: with `sequence_id`, and `tokens` or `text`.
        run: the run's directory, which keeps its sequences as they were cut.
        texts: also the texts as they are.

    Returns:
        The table; unchanged where nothing was masked or the sequences are not there.
    """
    file = run / "sequences" / "train.parquet"
    masked = "tokens" in table.column_names and table.column("tokens").combine_chunks().flatten().null_count
    if not masked or not file.is_file():
        return table
    whole = pq.read_table(file, columns=["sequence_id", "text", "tokens", "document"])
    places = pc.index_in(table.column("sequence_id"), whole.column("sequence_id"))
    if places.null_count:
        return table
    wanted = ("tokens", "document", *(("text",) if texts else ()))
    for name in (name for name in wanted if name in table.column_names):
        table = table.set_column(table.column_names.index(name), name, whole.column(name).take(places))
    return table


def quotable(texts: Sequence[str | None], *, show: bool) -> list[str | None]:
    """Texts of windows as they may be quoted; nothing is known here of what their ends cut."""
    return [text if show else privacy.mask_text(text, open_ends=True) for text in texts]
