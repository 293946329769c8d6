"""A text as items: words, numbers and single other characters, each with the counters that it may belong to.

White space only separates, so a table that is wrapped at another column, or indented otherwise, gives the same items.
Words are split where capitals start (`itemA` gives `item`, `A`), and words and numbers longer than `LONGEST` characters
fall into single characters, so that a pattern without spaces is still seen.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]

LONGEST_WORD = 24
LONGEST_NUMBER = 18
"""Digits that fit a signed 64-bit integer."""

NUMBER, LOWER, UPPER, HEX, SPELLED, ROMAN, WEEKDAY, MONTH, GREEK = range(1, 10)
"""Kinds of counter: two items can be successive values of one counter only if they share a kind."""

_UNITS = "one two three four five six seven eight nine".split()
_TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_ORDINAL_UNITS = "first second third fourth fifth sixth seventh eighth ninth".split()
_ORDINAL_TEENS = ["tenth", "eleventh", "twelfth", *(f"{word}th" for word in _TEENS[3:])]
_ORDINAL_TENS = [f"{word[:-1]}ieth" for word in _TENS]
_WEEKDAYS = "monday tuesday wednesday thursday friday saturday sunday".split()
_MONTHS = "january february march april may june july august september october november december".split()
_GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma tau upsilon phi chi psi omega"
).split()


def _roman(number: int) -> str:
    """A number below 400 in Roman numerals."""
    numeral = ""
    for value, letters in (
        (100, "c"),
        (90, "xc"),
        (50, "l"),
        (40, "xl"),
        (10, "x"),
        (9, "ix"),
        (5, "v"),
        (4, "iv"),
        (1, "i"),
    ):
        numeral += letters * (number // value)
        number %= value
    return numeral


def _spelled() -> dict[str, tuple[int, int]]:
    """Lower-case words that count: number words and ordinals to 99, week days, months and Greek letters."""
    words: dict[str, tuple[int, int]] = {"zero": (SPELLED, 0)}
    small = [*_UNITS, *_TEENS]
    for names in (small, [*_ORDINAL_UNITS, *_ORDINAL_TEENS]):
        words |= {name: (SPELLED, value) for value, name in enumerate(names, 1)}
    for names in (_TENS, _ORDINAL_TENS):
        words |= {name: (SPELLED, 10 * value) for value, name in enumerate(names, 2)}
    for ten, name in enumerate(_TENS, 2):
        for units in (_UNITS, _ORDINAL_UNITS):
            words |= {f"{name}-{unit}": (SPELLED, 10 * ten + value) for value, unit in enumerate(units, 1)}
    for kind, names, short in ((WEEKDAY, _WEEKDAYS, 3), (MONTH, _MONTHS, 3)):
        words |= {name[:short]: (kind, value) for value, name in enumerate(names)}
        words |= {name: (kind, value) for value, name in enumerate(names)}
    words |= {"sept": (MONTH, 8), "tues": (WEEKDAY, 1), "thur": (WEEKDAY, 3), "thurs": (WEEKDAY, 3)}
    words |= {name: (GREEK, value) for value, name in enumerate(_GREEK, 1)}
    return words


_COUNTING_WORDS = _spelled()
_ROMAN_NUMERALS = {_roman(number): number for number in range(1, 400)}

_ITEM = re.compile(
    r"""
    (?:0[xX]|\\[xuU]|U\+|&\#x)[0-9a-fA-F]{1,8}(?![0-9a-zA-Z])     # a number in hexadecimal notation
    | [0-9]{1,18}(?:st|nd|rd|th)(?![0-9a-zA-Z])                   # an ordinal
    | (?<![0-9])[0-9]{1,18}(?![0-9])
    | (?i:twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety)[- ]
      (?i:one|two|three|four|five|six|seven|eight|nine|first|second|third|fourth|fifth|sixth|seventh|eighth|ninth)(?![a-z])
    | [A-Z][a-z]{1,24}(?![a-z]) | (?<![A-Za-z])[a-z]{1,24}(?![a-z]) | (?<![A-Z])[A-Z]{2,24}(?:(?![A-Za-z])|(?=[A-Z][a-z]))
    | \S
    """,
    re.VERBOSE,
)


class Item(NamedTuple):
    """What is known of an item: its length, up to two readings as a counter's value, and its shape.

    Items whose first readings are of one kind share a shape; every other item has its own.
    """

    weight: int
    kind: int
    value: int
    other_kind: int
    other_value: int
    shape: int


class Vocabulary(dict[str, int]):
    """Item texts to keys, filled as items are met; `items_by_key` says what they are."""

    def __init__(self) -> None:
        super().__init__()
        self.items_by_key: list[Item] = []

    def __missing__(self, text: str) -> int:
        """Enter a new item."""
        key = self[text] = len(self)
        readings = _readings(text)
        self.items_by_key.append(Item(len(text), *readings, shape=-readings[0] if readings[0] else key))
        return key


def _readings(text: str) -> tuple[int, int, int, int]:
    """The values that an item can have in counters: (kind, value, other kind, other value), 0 for none."""
    first = text[0]
    if "0" <= first <= "9":
        if text[1:2] in ("x", "X"):
            return HEX, int(text[2:], 16), 0, 0
        return NUMBER, int(text.rstrip("stndrh")), 0, 0
    if first in "\\&U" and len(text) > 2 and not text.isalpha():
        return HEX, int(text.lstrip("\\xuU+&#"), 16), 0, 0
    lower = text.lower().replace(" ", "-")
    kind = value = other_kind = other_value = 0
    if len(text) == 1:
        if "a" <= text <= "z":
            kind, value = LOWER, ord(text)
        elif "A" <= text <= "Z":
            kind, value = UPPER, ord(text)
    else:
        kind, value = _COUNTING_WORDS.get(lower, (0, 0))
    if lower in _ROMAN_NUMERALS and (text.islower() or text.isupper()):
        other_kind, other_value = ROMAN, _ROMAN_NUMERALS[lower]
        if not kind:
            kind, value, other_kind, other_value = other_kind, other_value, 0, 0
    return kind, value, other_kind, other_value


def split(text: str) -> list[str]:
    """The items of a text, in order; a text of white space only gives its characters."""
    return _ITEM.findall(text) or list(text)


def encode(texts: Sequence[str]) -> tuple[Array, Array, Array]:
    """All items of a batch of texts.

    Returns:
        keys: int32, shape (items of all texts,).
        table: int64, shape (keys, 6): the fields of `Item` for each key.
        ends: int64, shape (texts,): where each text's items end.
    """
    vocabulary = Vocabulary()
    keys: list[int] = []
    ends = []
    for text in texts:
        keys.extend(map(vocabulary.__getitem__, split(text)))
        ends.append(len(keys))
    table = np.array(vocabulary.items_by_key, np.int64).reshape(-1, len(Item._fields))
    return np.array(keys, np.int32), table, np.array(ends, np.int64)
