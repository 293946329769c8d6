"""All sequences of a run as one compressed block of columns, which the page's script unpacks in the browser on demand.

The page contains full token data only for the examples, since that of a hundred thousand sequences would be too large. For
all others it has the text, the category, the verdict and the factors, enough to search, filter and sort. The compressed
columns take about a tenth of the space of the feature table.
"""

import base64
import json
import zlib
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from memtax.report import examples
from memtax.report.data import Run
from memtax.schema import CATEGORIES

MOST_ROWS = 100_000
"""Maximum number of sequences listed; if there are more, memorized ones come first, then an even sample of the others."""
MOST_CHARACTERS = 40_000_000
"""Maximum total length of texts; longer texts are cut equally, to at least `LEAST_TEXT` each."""
LEAST_TEXT = 200
DIGITS = 4
"""Significant digits of a factor; the page shows three."""


def listing(run: Run, most: int = MOST_ROWS) -> dict[str, Any]:
    """The sequences with a verdict, as columns of equal length, in ascending order of `sequence_id`.

    Args:
        run: the run.
        most: maximum number of sequences.

    Returns:
        `id`, `category` (index in `categories`), `memorized`, `document` (index in `documents`), `text`, `cut` (length of
        the prompt in characters, null if unknown), `factors` (name to values), `shortened` (the length of cut texts, or
        null). Empty without a verdict.
    """
    table = run.features
    strata = examples.strata(run)
    if table is None or not strata:
        return {}
    chosen = {
        verdict: sorted(place for (_, own), rows in strata.items() if own is verdict for place in rows.tolist())
        for verdict in (True, False)
    }
    memorized = examples.spread(chosen[True], most)
    others = examples.spread(chosen[False], most - len(memorized)) if len(memorized) < most else []
    places = np.array(sorted([*memorized, *others]))
    places = places[np.argsort(table.column("sequence_id").to_numpy()[places], kind="stable")]
    rows = table.take(places)
    names = [*CATEGORIES, examples.UNLABELLED]
    category = np.full(table.num_rows, len(CATEGORIES))
    for (name, _), numbers in strata.items():
        category[numbers] = names.index(name)
    documents, document = _dictionary(rows)
    texts, cut, shortened = _texts(run, rows)
    return {
        "categories": names,
        "documents": documents,
        "id": rows.column("sequence_id").to_pylist(),
        "category": category[places].tolist(),
        "memorized": rows.column("is_memorized").to_pylist(),
        "document": document,
        "text": texts,
        "cut": cut,
        "shortened": shortened,
        "factors": {name: _values(rows.column(name)) for name in examples.FACTORS if name in rows.column_names},
    }


def compressed(columns: dict[str, Any]) -> str:
    """Columns as base64 of zlib of JSON, which `DecompressionStream("deflate")` reads and which cannot contain markup."""
    text = json.dumps(columns, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # A lone surrogate cannot be written as UTF-8.
    return base64.b64encode(zlib.compress(text.encode("utf-8", "replace"), 6)).decode("ascii")


def _values(column: pa.ChunkedArray) -> list[Any]:
    """Values rounded to `DIGITS` significant digits; null if not finite."""
    if not pa.types.is_floating(column.type):
        return column.to_pylist()
    values = column.to_numpy().astype(float)
    return [float(f"{value:.{DIGITS}g}") if known else None for value, known in zip(values, np.isfinite(values), strict=True)]


def _dictionary(rows: pa.Table) -> tuple[list[str], list[int | None]]:
    """Distinct documents, and each row's index among them."""
    if "document" not in rows.column_names:
        return [], [None] * rows.num_rows
    coded = rows.column("document").combine_chunks().dictionary_encode()
    return coded.dictionary.to_pylist(), coded.indices.to_pylist()


def _texts(run: Run, rows: pa.Table) -> tuple[list[str | None], list[int | None], int | None]:
    """Texts in the order of the rows, the offsets of their continuations, and the length to which they were cut, if any."""
    if run.features_path is None:
        return [None] * rows.num_rows, [None] * rows.num_rows, None
    source = ds.dataset(run.features_path)
    ids = rows.column("sequence_id").combine_chunks()
    names = [name for name in ("sequence_id", "text", "token_texts", "prompt_tokens") if name in source.schema.names]
    found = source.to_table(columns=names, filter=pc.field("sequence_id").isin(ids))
    found = found.take(pc.index_in(ids, found.column("sequence_id").combine_chunks()))
    absent = pa.nulls(rows.num_rows, pa.string())
    whole, prompts = absent, absent
    if "token_texts" in names:
        pieces = found.column("token_texts").combine_chunks()
        whole = pc.binary_join(pieces, "")
        if "prompt_tokens" in names:
            sizes = found.column("prompt_tokens").to_pylist()
            texts_of = [
                None if size is None else "".join(row[:size]) for row, size in zip(pieces.to_pylist(), sizes, strict=True)
            ]
            prompts = pa.array(texts_of, pa.string())
        elif (length := (run.metrics.get("run") or {}).get("prompt")) is not None:
            prompts = pc.binary_join(pc.list_slice(pieces, 0, length), "")
    texts = pc.coalesce(found.column("text"), whole) if "text" in names else whole
    # Tokens may split the bytes of a character, so the offset is known only if the pieces reproduce the text.
    cut = pc.if_else(pc.equal(texts, whole), pc.utf8_length(prompts), None)
    each = max(LEAST_TEXT, MOST_CHARACTERS // max(1, rows.num_rows))
    if (pc.max(pc.utf8_length(texts)).as_py() or 0) <= each:
        return texts.to_pylist(), cut.to_pylist(), None
    return pc.utf8_slice_codeunits(texts, 0, each).to_pylist(), cut.to_pylist(), each
