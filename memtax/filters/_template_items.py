"""A text as items: words, numbers and other single characters, each with its possible readings as the value of a counter.

White space only separates, so a table with different wrapping or indentation gives the same items. Words are split at capitals
(`itemA` gives `item`, `A`; `HTMLPage` gives `HTML`, `Page`), `Thirty-one` is one item, and letters other than a-z are separate
items. Words of more than 24 letters, numbers of more than 18 digits (15 hexadecimal digits, so that they fit 64 bits) and
texts of fewer than `FEW` items are split into single characters, so that patterns without spaces are found too.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from memtax.compiled import kernel
from memtax.filters._template_words import (
    HASH_FACTOR,
    HEX,
    LOWER,
    NUMBER,
    ROMAN,
    SPELLED,
    UPPER,
    Array,
    word_table,
)

LONGEST_WORD, LONGEST_NUMBER, LONGEST_HEX = 24, 18, 15
FEW = 4

WEIGHT, KIND, VALUE, OTHER_KIND, OTHER_VALUE, SHAPE, START = range(7)
"""Columns of the vocabulary: an item's length in characters, up to two readings as the value of a counter (kind 0: none), its
shape (shared by all items that could be values of one counter), and its first position."""

_WORDS, _WORD_SLOTS = word_table()
_ZERO, _BACKSLASH, _PLUS, _AMPERSAND, _NUMBER_SIGN = (ord(character) for character in "0\\+&#")
_X, _U, _Y, _JOINTS = ((ord(pair[0]), ord(pair[1])) for pair in ("xX", "uU", "yY", "- "))
_SUFFIXES = tuple((ord(pair[0]), ord(pair[1])) for pair in ("st", "nd", "rd", "th"))
_MARKS = (_ZERO, _BACKSLASH, _AMPERSAND, _U[1])
_SPACES = (0x85, 0xA0, 0x1680, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000)


@kernel()
def _is_space(code: int) -> bool:
    """Same as `str.isspace`."""
    if code < 128:
        return code <= 32 and (code == 32 or 9 <= code <= 13 or 28 <= code <= 31)
    return code in _SPACES or 0x2000 <= code <= 0x200A


@kernel()
def _is_digit(code: int) -> bool:
    """Whether a code point is 0-9."""
    return 48 <= code <= 57


@kernel()
def _is_lower(code: int) -> bool:
    """Whether a code point is a-z."""
    return 97 <= code <= 122


@kernel()
def _is_upper(code: int) -> bool:
    """Whether a code point is A-Z."""
    return 65 <= code <= 90


@kernel()
def _is_word(code: int) -> bool:
    """Whether a code point is 0-9, a-z or A-Z."""
    return _is_digit(code) or _is_lower(code) or _is_upper(code)


@kernel()
def _at(codes: Array, place: int, high: int) -> int:
    """The code point at a position, 0 beyond the end."""
    return int(codes[place]) if place < high else 0


@kernel()
def _hex(codes: Array, place: int, high: int) -> tuple[int, int]:
    """End and value of the hexadecimal number that starts at `place`; the end is `place` if there is none."""
    value, end = 0, place
    while end < high and end - place <= LONGEST_HEX:
        code = int(codes[end])
        if _is_digit(code):
            digit = code - 48
        elif 65 <= code <= 70 or 97 <= code <= 102:
            digit = (code | 32) - 87
        else:
            break
        value = value * 16 + digit
        end += 1
    if end - place > LONGEST_HEX or _is_word(_at(codes, end, high)):
        return place, 0
    return end, value


@kernel()
def _marked_hex(codes: Array, place: int, high: int) -> tuple[int, int]:
    r"""The number after a prefix of hexadecimal notation at `place` (`0x`, `\x`, `\u`, `U+`, `&#x`), returned as by `_hex`."""
    first, second = _at(codes, place, high), _at(codes, place + 1, high)
    digits = place
    if (
        (first == _ZERO and second in _X)
        or (first == _BACKSLASH and (second in _U or second == _X[0]))
        or (first == _U[1] and second == _PLUS)
    ):
        digits = place + 2
    elif first == _AMPERSAND and second == _NUMBER_SIGN and _at(codes, place + 2, high) == _X[0]:
        digits = place + 3
    if digits == place:
        return place, 0
    end, value = _hex(codes, digits, high)
    return (place, 0) if end == digits else (end, value)


@kernel()
def _decimal(codes: Array, place: int, high: int) -> tuple[int, int, bool]:
    """The run of digits at `place`: its end (after st, nd, rd or th), its value, and whether it is too long for one number."""
    value, end = 0, place
    while end < high and _is_digit(codes[end]):
        if end - place < LONGEST_NUMBER:
            value = value * 10 + codes[end] - 48
        end += 1
    if end - place > LONGEST_NUMBER:
        return end, 0, True
    if (_at(codes, end, high), _at(codes, end + 1, high)) in _SUFFIXES and not _is_word(_at(codes, end + 2, high)):
        end += 2
    return end, value, False


@kernel()
def _letters(codes: Array, place: int, high: int) -> tuple[int, bool]:
    """The word that starts at `place`: its end, and whether it is too long for one item."""
    end = place
    while end < high and _is_upper(codes[end]):
        end += 1
    capitals = end - place
    if capitals >= 2:
        if _is_lower(_at(codes, end, high)):
            end -= 1
        return end, end - place > LONGEST_WORD
    while end < high and _is_lower(codes[end]):
        end += 1
    return end, end - place - capitals > LONGEST_WORD


@kernel()
def _look_up(codes: Array, start: int, end: int) -> int:
    """The row of a word in the table of number-like words, -1 if it is not in the table."""
    code = np.uint64(0)
    for place in range(start, end):
        letter = codes[place]
        code = (code ^ np.uint64(letter + 32 if _is_upper(letter) else letter)) * np.uint64(HASH_FACTOR)
    slot = np.int64(code) & 4095
    while _WORD_SLOTS[slot] >= 0 and _WORDS[_WORD_SLOTS[slot], 0] != np.int64(code):
        slot = (slot + 1) & 4095
    return int(_WORD_SLOTS[slot])


@kernel()
def _compound(codes: Array, start: int, end: int, high: int) -> tuple[int, int]:
    """If the word [start, end) is a multiple of ten followed by a unit (`forty two`): their end and sum, otherwise (end, 0)."""
    if not 5 <= end - start <= 7 or codes[end - 1] not in _Y:
        return end, 0
    ten = _look_up(codes, start, end)
    following = end + 1 if _at(codes, end, high) in _JOINTS else end
    if ten < 0 or _WORDS[ten, 1] != SPELLED or following >= high:
        return end, 0
    last, _ = _letters(codes, following, high)
    unit = _look_up(codes, following, last)
    if unit < 0 or _WORDS[unit, 1] != SPELLED or not 1 <= _WORDS[unit, 2] <= 9:
        return end, 0
    return last, _WORDS[ten, 2] + _WORDS[unit, 2]


@kernel()
def _next(codes: Array, place: int, high: int) -> tuple[int, int, int, int]:
    """The item that starts at `place`.

    Returns:
        Its end, its kind and value if digits or two words determine them, and the end of a region of single characters.
    """
    code = codes[place]
    if code in _MARKS:
        end, value = _marked_hex(codes, place, high)
        if end > place:
            return end, HEX, value, place
    if _is_digit(code):
        end, value, long = _decimal(codes, place, high)
        return (place + 1, 0, 0, end) if long else (end, NUMBER, value, place)
    if _is_lower(code) or _is_upper(code):
        end, long = _letters(codes, place, high)
        if long:
            return place + 1, 0, 0, end
        end, value = _compound(codes, place, end, high)
        return end, SPELLED if value else 0, value, place
    return place + 1, 0, 0, place


@kernel()
def _enter(codes: Array, start: int, end: int, kind: int, value: int, key: int, table: Array) -> None:
    """Add an item to the vocabulary."""
    code = int(codes[start])
    other_kind = other_value = 0
    if kind == 0 and end - start == 1 and _is_digit(code):
        kind, value = NUMBER, code - 48
    elif kind == 0 and (_is_lower(code) or _is_upper(code)):
        word = _look_up(codes, start, end)
        if end - start == 1:
            kind, value = LOWER if _is_lower(code) else UPPER, code
            if word >= 0:
                other_kind, other_value = ROMAN, _WORDS[word, 2]
        elif word >= 0:
            kind, value = _WORDS[word, 1], _WORDS[word, 2]
            other_kind, other_value = _WORDS[word, 3], _WORDS[word, 4]
            if _is_upper(code) and _is_lower(codes[start + 1]):  # Roman numerals are never written like this
                other_kind = other_value = 0
                if kind == ROMAN:
                    kind = value = 0
    shape = key
    if kind:
        shape = -SPELLED if kind == SPELLED else -kind if kind <= HEX or kind > SPELLED else -LOWER
    table[key, WEIGHT], table[key, SHAPE], table[key, START] = end - start, shape, start
    table[key, KIND], table[key, VALUE] = kind, value
    table[key, OTHER_KIND], table[key, OTHER_VALUE] = other_kind, other_value


@kernel()
def _slot(codes: Array, start: int, end: int, slots: Array, mask: int, table: Array, oldest: int) -> int:
    """The slot of the hash table that contains an item or is free for it: slots with keys below `oldest` are free."""
    code = np.uint64(end - start)
    for place in range(start, end):
        code = (code ^ np.uint64(codes[place])) * np.uint64(HASH_FACTOR)
    slot = int(np.int64(code ^ (code >> np.uint64(32)))) & mask
    while slots[slot] >= oldest:
        key = slots[slot]
        if table[key, WEIGHT] == end - start:
            first, same = table[key, START] - start, True
            for place in range(start, end):
                same &= codes[first + place] == codes[place]
            if same:
                break
        slot = (slot + 1) & mask
    return slot


@kernel()
def _read(codes: Array, borders: Array) -> tuple[Array, Array, Array]:
    """See `encode`; `borders` contains the end of each text's code points."""
    keys, ends = np.empty(len(codes), np.int32), np.empty(len(borders), np.int64)
    table = np.empty((len(codes) + FEW * len(borders), 7), np.int64)  # memory that is never written is not allocated
    slots = np.full(1, -1, np.int32)
    known = np.full(128, -1, np.int32)  # fast path to the keys of the most frequent items
    nothing: Any = np.int64(0)  # a literal would have its own type, and its callees would be compiled again
    low = size = count = nothing
    for text in range(len(borders)):
        high, oldest, mask = borders[text], size, len(slots) - 1
        while mask < 2 * (high - low):
            mask = 2 * mask + 1
        if mask >= len(slots):
            slots = np.full(mask + 1, -1, np.int32)
        place, single, first, skip_spaces = low, low, count, True
        while place < high:
            code = codes[place]
            end, kind, value = place + 1, nothing, nothing
            if not (skip_spaces and _is_space(code)):
                if place >= single:
                    end, kind, value, single = _next(codes, place, high)
                short = code if end == place + 1 and code < 128 else 0
                key = known[short] if short else -1
                if key < oldest:
                    slot = _slot(codes, place, end, slots, mask, table, oldest)
                    if slots[slot] < oldest:
                        _enter(codes, place, end, kind, value, size, table)
                        slots[slot] = size
                        size += 1
                    key = slots[slot]
                    known[short] = key
                keys[count] = key
                count += 1
            place = end
            if place == high and single < high and count - first < FEW:  # start over, with single characters
                place, single, count, skip_spaces = low, high, first, count > first
        ends[text] = count
        low = high
    return keys[:count], table[:size], ends


def encode(texts: Sequence[str]) -> tuple[Array, Array, Array]:
    """All items of a batch of texts.

    Returns:
        keys: int32, shape (items of all texts,); equal items of one text have equal keys.
        table: int64, shape (keys, 7): properties of the item of each key, see the columns above.
        ends: int64, shape (texts,): end of each text's items.
    """
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32)
    return _read(codes, np.cumsum(np.array([len(text) for text in texts], np.int64)))


def split(text: str) -> list[str]:
    """The items of a text."""
    keys, table, _ = encode([text])
    return [text[start : start + length] for length, start in table[keys][:, [WEIGHT, START]].tolist()]
