"""Finding the column to read, checking it, and converting it to flat token ids with row offsets."""

import difflib
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from memtax.errors import MemtaxError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CANDIDATES = ("tokens", "Tokens", "input_ids", "text", "content")
"""Column names to try, in this order, if none is given."""

MAX_TOKEN_ID = 2**31 - 1

Kind = Literal["tokens", "text"]
Tokens = npt.NDArray[np.int32] | npt.NDArray[np.uint16]
"""Token ids are uint16 if the source has that dtype, and int32 otherwise: with two dtypes, few kernels are compiled."""


DOCUMENT_COLUMNS = ("document", "path", "name", "url")
"""Text columns that name a row's document; the first that exists is used."""


def document_column(schema: pa.Schema, column: str) -> str | None:
    """The text column that names a row's document, other than the column that is read; None if there is none."""
    for name in DOCUMENT_COLUMNS:
        if name in schema.names and name != column and is_text(schema.field(name).type):
            return name
    return None


def is_text(dtype: pa.DataType) -> bool:
    """Whether a type is one of Arrow's types of strings, also dictionary-encoded."""
    if pa.types.is_dictionary(dtype):
        return is_text(dtype.value_type)
    return bool(pa.types.is_string(dtype) or pa.types.is_large_string(dtype) or pa.types.is_string_view(dtype))


def is_list(dtype: pa.DataType) -> bool:
    """Whether a type is one of Arrow's types of lists."""
    return bool(pa.types.is_list(dtype) or pa.types.is_large_list(dtype) or pa.types.is_fixed_size_list(dtype))


def plain_text(batch: pa.RecordBatch, name: str) -> pa.RecordBatch:
    """The batch with a column of plain strings, which all functions of Arrow know, instead of views or dictionaries."""
    dtype = batch.schema.field(name).type
    if not is_text(dtype) or pa.types.is_string(dtype) or pa.types.is_large_string(dtype):
        return batch
    place = batch.schema.get_field_index(name)
    return batch.set_column(place, name, batch.column(name).cast(pa.large_string()))


def find_column(names: list[str], wanted: str | None, what: str) -> str:
    """The name of the column to read.

    Raises:
        MemtaxError: the column is missing, or none is given and no usual name exists.
    """
    for candidate in (wanted,) if wanted is not None else CANDIDATES:
        if candidate in names:
            return candidate
    missing = f"column {wanted!r}" if wanted is not None else f"column of tokens or text ({', '.join(CANDIDATES)})"
    if wanted is not None:
        near = difflib.get_close_matches(wanted, names, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
    else:
        near = [name for name in names if difflib.get_close_matches(name, CANDIDATES, 1)]
        hint = f"; did you mean --column {near[0]}?" if near else ""
    raise MemtaxError(f"{what} has no {missing}{hint}; its columns are: {', '.join(names) or 'none'}")


def column_kind(dtype: pa.DataType, name: str, what: str) -> Kind:
    """Whether a column contains token ids or text.

    Raises:
        MemtaxError: it contains anything else.
    """
    if is_text(dtype):
        return "text"
    # A JSON file whose lists are all empty is read as lists of nulls.
    if is_list(dtype) and (pa.types.is_integer(dtype.value_type) or pa.types.is_null(dtype.value_type)):
        return "tokens"
    raise MemtaxError(f"column {name!r} of {what} contains {dtype}; tokens must be lists of integers, and text strings")


ID_COLUMNS = ("sequence_id", "index", "Index")
"""Columns that identify rows, in the order of preference."""


def id_column(schema: pa.Schema, what: str) -> str | None:
    """The column that identifies rows. A column named `index` can be anything, so it counts only if it contains integers.

    Raises:
        MemtaxError: `sequence_id` does not contain integers.
    """
    for name in ID_COLUMNS:
        if name in schema.names:
            if pa.types.is_integer(schema.field(name).type):
                return name
            if name == "sequence_id":
                raise MemtaxError(f"column 'sequence_id' of {what} contains {schema.field(name).type}, not integers; rename it")
    return None


def row_ids(column: pa.Array, name: str, what: str) -> npt.NDArray[np.int64]:
    """Ids as int64.

    Raises:
        MemtaxError: one is null or too large.
    """
    if column.null_count:
        raise MemtaxError(f"column {name!r} of {what} has rows without an id; fill it, or drop it to number the rows")
    try:
        ids: npt.NDArray[np.int64] = column.cast(pa.int64()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid as error:
        raise MemtaxError(f"column {name!r} of {what} contains ids beyond 2^63: {str(error).splitlines()[0]}") from error
    return ids


def check_unique(ids: npt.NDArray[np.int64], name: str, what: str) -> None:
    """Reject ids that occur more than once.

    Raises:
        MemtaxError: an id occurs more than once; the message gives the id, the column and the source.
    """
    ordered = np.sort(ids)
    again = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(again):
        raise MemtaxError(f"column {name!r} of {what} is not unique: {again[0]} occurs more than once; fix or drop it")


def flatten(column: pa.Array) -> tuple[pa.Array, npt.NDArray[np.int64]]:
    """Values and row offsets of a list column. A null row counts as empty; without null rows, nothing is copied.

    Returns:
        The child values, and offsets of shape (rows + 1) that start at 0.
    """
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    offsets = np.zeros(len(column) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return column.flatten(), offsets


def token_ids(
    values: pa.Array, offsets: npt.NDArray[np.int64], vocabulary_size: int | None, what: str, first_row: int
) -> Tokens:
    """Check token ids and convert them to uint16 or int32; zero-copy if they already have that dtype.

    Args:
        values: flat integers.
        offsets: shape (rows + 1), start of each row in `values`.
        vocabulary_size: ids must be smaller; None allows all below 2^31.
        what: the source, for messages.
        first_row: number of the first row in the source, for messages.

    Raises:
        MemtaxError: an id is null, negative, too large or outside the vocabulary.
    """
    if values.null_count:
        at = values.is_null().index(pa.scalar(True)).as_py()
        raise MemtaxError(f"a token id in {_row(at, offsets, first_row)} of {what} is null; drop or fix that row")
    if len(values) == 0:
        return np.zeros(0, np.int32)
    array = values.to_numpy()
    low, high = int(array.min()), int(array.max())
    limit = MAX_TOKEN_ID + 1 if vocabulary_size is None else min(vocabulary_size, MAX_TOKEN_ID + 1)
    if low < 0 or high >= limit:
        at = int(np.argmax((array < 0) | (array >= limit)))
        found = f"token id {int(array[at])} in {_row(at, offsets, first_row)} of {what}"
        if array[at] < 0:
            raise MemtaxError(f"{found} is negative; padding or ignored positions (-100) must be removed first")
        if vocabulary_size is not None:
            raise MemtaxError(f"{found} is outside the vocabulary of {vocabulary_size}; was another tokenizer used?")
        raise MemtaxError(f"{found} is too large; token ids must be below 2^31")
    return array if array.dtype in (np.uint16, np.int32) else array.astype(np.int32)


def _row(at: int, offsets: npt.NDArray[np.int64], first_row: int) -> str:
    return f"row {first_row + int(np.searchsorted(offsets, at, side='right')) - 1}"


def drop_opening(
    tokens: Tokens, offsets: npt.NDArray[np.int64], opening: Sequence[int]
) -> tuple[Tokens, npt.NDArray[np.int64]]:
    """Strip the opening ids (BOS), which are not text, from the rows that start with them.

    Args:
        tokens: flat ids.
        offsets: shape (rows + 1).
        opening: the ids; if empty, rows stay unchanged.
    """
    lengths = np.diff(offsets)
    begins = lengths >= len(opening)
    for place, token in enumerate(opening):
        begins[begins] = tokens[offsets[:-1][begins] + place] == token
    if not len(opening) or not begins.any():
        return tokens, offsets
    places = np.arange(len(tokens)) - np.repeat(offsets[:-1], lengths)
    kept = tokens[places >= np.repeat(begins * len(opening), lengths)]
    return kept, np.concatenate([[0], np.cumsum(lengths - begins * len(opening))])


def tokenize(tokenizer: "PreTrainedTokenizerBase", texts: list[str | None]) -> tuple[Tokens, npt.NDArray[np.int64]]:
    """Token ids and row offsets of texts, without special tokens. A missing text gives an empty row."""
    encoded: Any = tokenizer(
        [text or "" for text in texts], add_special_tokens=False, return_attention_mask=False, truncation=False, verbose=False
    )
    rows: list[list[int]] = encoded["input_ids"]
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(row) for row in rows], out=offsets[1:])
    return np.fromiter(chain.from_iterable(rows), np.int32, count=int(offsets[-1])), offsets


def decode(tokenizer: "PreTrainedTokenizerBase", windows: npt.NDArray[np.int32]) -> list[str]:
    """Text of each row of `windows` (rows, tokens), including special tokens."""
    return decode_rows(tokenizer, windows.tolist())


def decode_rows(tokenizer: "PreTrainedTokenizerBase", rows: list[list[int]]) -> list[str]:
    """Text of each row, of any length, including special tokens."""
    if tokenizer.is_fast:
        # The backend decodes a batch on all cores; `batch_decode` is a Python loop.
        texts: list[str] = tokenizer.backend_tokenizer.decode_batch(rows, skip_special_tokens=False)
        return texts
    return tokenizer.batch_decode(rows, skip_special_tokens=False, clean_up_tokenization_spaces=False)
