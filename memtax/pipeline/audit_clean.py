"""The training set of an audited model without what is worrying, and with copies thinned."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from memtax.corpus.columns import find_column
from memtax.corpus.conversations import find_shape
from memtax.corpus.sequences import window_rows
from memtax.corpus.sources import Source, open_dataset
from memtax.lm.loading import load_tokenizer
from memtax.pipeline.config import RunConfig
from memtax.pipeline.stages import answer_windows
from memtax.provenance import digest

ROW = "One row of the training set, unchanged; rows with a worrying sequence and copies of other rows are left out."


def clean(config: RunConfig, worrying: Sequence[int]) -> tuple[pa.Table, dict[str, int]]:
    """The rows to keep.

    A row is left out if one of its sequences has the tokens of a worrying one, if it equals an earlier row that is kept, or if
    each of its sequences occurs in earlier rows that are kept. A row too short for a sequence is judged by its content alone.

    Args:
        config: configuration of the finished run over the training set.
        worrying: `sequence_id` of the worrying sequences.

    Returns:
        The rows with all their columns, and the counts `rows`, `worrying`, `copies`, `kept`, and `short` (kept rows without a
        sequence, which the audit did not measure).
    """
    source = Source.parse(config.corpus, column=config.column)
    table = open_dataset(source).with_format("arrow")[:].replace_schema_metadata(None)
    tokenizer = load_tokenizer(config.tokenizer or config.model, None if config.tokenizer else config.revision)
    options = {"window": config.window, **answer_windows(config)}
    owners = window_rows(source, tokenizer=tokenizer, bos=config.opening, **options)
    sequences = pq.read_table(config.output / "sequences" / "train.parquet", columns=["sequence_id", "tokens", "is_member"])
    sequences = sequences.filter(sequences.column("is_member"))
    if sequences.num_rows != len(owners):
        raise AssertionError("the sequences are not those of the training set")
    tokens = [np.asarray(row, np.int32).tobytes() for row in sequences.column("tokens").to_pylist()]
    unwanted = set(worrying)
    bad = {row for row, at in zip(tokens, sequences.column("sequence_id").to_pylist(), strict=True) if at in unwanted}
    windows: defaultdict[int, list[bytes]] = defaultdict(list)
    for owner, row in zip(owners.tolist(), tokens, strict=True):
        windows[owner].append(row)
    shape = find_shape(table.schema, config.column)
    read = shape.columns if shape is not None else (find_column(table.column_names, config.column, source.label),)
    if shape is not None and "tools" in table.column_names:
        read = (*read, "tools")
    contents = zip(*(table.column(name).to_pylist() for name in read), strict=True)
    kept, counts = _kept([digest(*values) for values in contents], windows, bad)
    # Columns that were joined to be read, as `question,answer`, are there twice.
    own = [name for name in table.column_names if name != config.column or "," not in name]
    return table.select(own).take(pa.array(kept, pa.int64())), counts


def _kept(contents: Sequence[str], windows: Mapping[int, Sequence[bytes]], bad: set[bytes]) -> tuple[list[int], dict[str, int]]:
    """Rows to keep, in order, and the counts."""
    kept: list[int] = []
    seen: set[bytes | str] = set()
    counts = {"rows": len(contents), "worrying": 0, "copies": 0, "kept": 0, "short": 0}
    for row, content in enumerate(contents):
        own = windows.get(row, ())
        if not bad.isdisjoint(own):
            counts["worrying"] += 1
        elif content in seen or (own and seen.issuperset(own)):
            counts["copies"] += 1
        else:
            kept.append(row)
            seen |= {content, *own}
            counts["short"] += not own
    counts["kept"] = len(kept)
    return kept, counts


def facts(counts: Mapping[str, int]) -> dict[str, str]:
    """The counts as rows of the card's table."""
    return {
        "rows of the training set": f"{counts['rows']:,}",
        "left out: worrying": f"{counts['worrying']:,}, with a rare sequence or personal data that the model gives away",
        "left out: copies": f"{counts['copies']:,}, equal to another row or made of passages of others",
        "kept": f"{counts['kept']:,}, of which {counts['short']:,} not measured (too short, or without an answer to score)",
        "not looked for": "passages that rows share at other places than the audit's windows, and personal data that the model "
        "does not give away",
    }
