"""Words with a numeric value: number words, ordinals, Roman numerals, weekdays, months and Greek letters.

Numba's cache tracks only the file of a compiled function: after changing names that `_template_items` imports from here, or
`_template_search` from `_template_items`, delete `__pycache__` (released versions install into fresh files).
"""

from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]

NUMBER, HEX, LOWER, UPPER, ROMAN, SPELLED, WEEKDAY, MONTH, GREEK = range(1, 10)
"""Kinds of counter; two items can be successive values of one counter only if they share a kind."""

HASH_FACTOR = 1099511628211
"""FNV's 64-bit prime."""

_UNITS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TEENS = ("ten", "eleven", "twelve", *(f"{root}teen" for root in ("thir", "four", "fif", "six", "seven", "eigh", "nine")))
_TENS = tuple(f"{root}ty" for root in ("twen", "thir", "for", "fif", "six", "seven", "eigh", "nine"))
_NTH_UNITS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth")
_NTH_TEENS = ("tenth", "eleventh", "twelfth", *(f"{word}th" for word in _TEENS[3:]))
_NTH_TENS = tuple(f"{word[:-1]}ieth" for word in _TENS)
_WEEKDAYS = tuple(f"{root}day" for root in ("mon", "tues", "wednes", "thurs", "fri", "satur", "sun"))
_MONTHS: tuple[str, ...] = ("january", "february", "march", "april", "may", "june", "july", "august")
_MONTHS = (*_MONTHS, *(f"{root}ber" for root in ("septem", "octo", "novem", "decem")))
_GREEK: tuple[str, ...] = (
    "alpha",
    "beta",
    "gamma",
    "delta",
    "epsilon",
    "zeta",
    "eta",
    "theta",
    "iota",
    "kappa",
    "lambda",
    "mu",
)
_GREEK += ("nu", "xi", "omicron", "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega")
_ROMAN = ((100, "c"), (90, "xc"), (50, "l"), (40, "xl"), (10, "x"), (9, "ix"), (5, "v"), (4, "iv"), (1, "i"))


def _roman(number: int) -> str:
    """Roman numeral of a number below 400."""
    numeral = ""
    for value, letters in _ROMAN:
        numeral += letters * (number // value)
        number %= value
    return numeral


def _spelled() -> dict[str, tuple[int, int]]:
    """Lower-case words to kind and value; only single words, since `_template_items` joins `thirty-one`."""
    words: dict[str, tuple[int, int]] = {"zero": (SPELLED, 0)}
    for units, teens, tens in ((_UNITS, _TEENS, _TENS), (_NTH_UNITS, _NTH_TEENS, _NTH_TENS)):
        words |= {word: (SPELLED, value) for value, word in enumerate(units + teens, 1)}
        words |= {word: (SPELLED, 10 * value) for value, word in enumerate(tens, 2)}
    for kind, names in ((WEEKDAY, _WEEKDAYS), (MONTH, _MONTHS)):
        words |= {name[:3]: (kind, value) for value, name in enumerate(names)}
        words |= {name: (kind, value) for value, name in enumerate(names)}
    words |= {"sept": (MONTH, 8), "tues": (WEEKDAY, 1), "thur": (WEEKDAY, 3), "thurs": (WEEKDAY, 3)}
    words |= {name: (GREEK, value) for value, name in enumerate(_GREEK, 1)}
    return words


def word_hash(word: str) -> int:
    """Hash of a word's code points as a signed 64-bit integer, equal to the hash in the compiled item reader."""
    code = 0
    for character in word:
        code = ((code ^ ord(character)) * HASH_FACTOR) & 0xFFFFFFFFFFFFFFFF
    return code - (1 << 64) if code >> 63 else code


def word_table() -> tuple[Array, Array]:
    """The words, in lower case, as a hash table with open addressing.

    Returns:
        rows: int64, shape (words, 5): hash, kind, value, other kind, other value.
        slots: int16, shape (4096,): row of a word, probed from the low bits of its hash; -1 ends the search.
    """
    romans = {_roman(number): number for number in range(1, 400)}
    spelled = _spelled()
    rows = [(word_hash(word), ROMAN, number, 0, 0) for word, number in romans.items() if word not in spelled]
    for word, reading in spelled.items():
        rows.append((word_hash(word), *reading, ROMAN if word in romans else 0, romans.get(word, 0)))
    slots = np.full(4096, -1, np.int16)
    for index, row in enumerate(rows):
        slot = row[0] & 4095
        while slots[slot] >= 0:
            slot = (slot + 1) & 4095
        slots[slot] = index
    return np.array(rows, np.int64), slots
