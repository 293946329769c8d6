"""Shapes of records: the type and range of every value that is used, checked where a record is read.

A shape is a `Number`, a `Text`, a type, None, a tuple of shapes (any of them), a `Rows` (a list), `Columns`
(lists side by side) or a dict. In a dict,
`"key?"` may be missing and `"*"` stands for all keys that are not named; without it, other keys are not looked at.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from memtax.errors import MemtaxError

_HALF = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Number:
    """A number within limits; a whole one where `whole` is set."""

    least: float
    most: float
    whole: bool = False

    def __str__(self) -> str:
        return f"a {'whole ' if self.whole else ''}number from {self.least:g} to {self.most:g}"

    def fits(self, value: Any) -> bool:
        """Whether a value is one; true and false are not numbers."""
        types = (int,) if self.whole else (int, float)
        return isinstance(value, types) and not isinstance(value, bool) and self.least <= value <= self.most


@dataclass(frozen=True)
class Text:
    """A text of at most so many characters, or one of some words."""

    most: int = 10_000
    words: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"one of {', '.join(self.words)}" if self.words else f"text of at most {self.most:,} characters"

    def fits(self, value: Any) -> bool:
        """Whether a value is one; half of a surrogate pair, which no file can hold, is no text."""
        fits = isinstance(value, str) and len(value) <= self.most and (not self.words or value in self.words)
        return fits and (value.isascii() or not _HALF.search(value))


@dataclass(frozen=True)
class Rows:
    """A list of `least` to `most` values of one shape."""

    shape: Any
    most: int = 100_000
    least: int = 0

    def __str__(self) -> str:
        return f"a list of {self.least:,} to {self.most:,} values"


@dataclass(frozen=True)
class Columns:
    """Lists of the same length, by name, with the shape of the values of each."""

    shapes: Mapping[str, Any]


COUNT = Number(0, 2**63 - 1, whole=True)
SHARE = Number(0, 1)
REAL = Number(-1e100, 1e100)
NAME = Text(200)
TEXT = Text()

_NAMES: dict[Any, str] = {dict: "keys and values", list: "a list", bool: "true or false", str: "text", None: "null"}


def check(value: Any, shape: Any, name: object) -> None:
    """Refuse a record that does not have a shape.

    Args:
        value: the record, as it was read.
        shape: see the module.
        name: how errors call the record: its path.

    Raises:
        MemtaxError: a key is missing, or a value is of another type or out of range.
    """
    reason = next(_differences(value, shape, ()), None)
    if reason is not None:
        raise MemtaxError(f"{name}: {reason}; run the command that writes it again")


def _differences(value: Any, shape: Any, keys: tuple[str, ...]) -> Iterator[str]:
    """The fault of a value, with the keys that lead to it."""
    if isinstance(shape, tuple):
        alternatives = [list(_differences(value, one, keys)) for one in shape]
        if all(alternatives):
            yield _wrong(value, shape, keys) if not isinstance(value, dict | list) else max(alternatives, key=_depth)[0]
    elif isinstance(shape, dict):
        yield from _of_mapping(value, shape, keys)
    elif isinstance(shape, Columns):
        yield from _of_mapping(value, {name: Rows(one) for name, one in shape.shapes.items()}, keys)
        lists = [value.get(name) for name in shape.shapes] if isinstance(value, dict) else []
        if len({len(entries) for entries in lists if isinstance(entries, list)}) > 1:
            yield f"the lists of {_path(keys)} have different lengths"
    elif isinstance(shape, Rows):
        if not isinstance(value, list) or not shape.least <= len(value) <= shape.most:
            yield _wrong(value, shape, keys)
        else:
            for number, entry in enumerate(value):
                yield from _differences(entry, shape.shape, (*keys, str(number)))
    elif not (shape.fits(value) if isinstance(shape, Number | Text) else _is(value, shape)):
        yield _wrong(value, shape, keys)


def _of_mapping(value: Any, shape: Mapping[str, Any], keys: tuple[str, ...]) -> Iterator[str]:
    if not isinstance(value, dict):
        yield _wrong(value, dict, keys)
        return
    named = {key.removesuffix("?"): one for key, one in shape.items() if key != "*"}
    for key, one in named.items():
        if key in value:
            yield from _differences(value[key], one, (*keys, key))
        elif f"{key}?" not in shape:
            yield f"{_path((*keys, key))} is missing"
    if "*" in shape:
        for key in value.keys() - named.keys():
            if not NAME.fits(key):
                yield f"{_path((*keys, str(key)[:50]))} is not a name of at most {NAME.most} characters"
            yield from _differences(value[key], shape["*"], (*keys, key))


def _is(value: Any, kind: Any) -> bool:
    return value is None if kind is None else isinstance(value, kind)


def _depth(reasons: list[str]) -> int:
    """How far a value followed an alternative before it differed."""
    return reasons[0].partition(" is ")[0].count(": ")


def _path(keys: tuple[str, ...]) -> str:
    return ": ".join(str(key)[:50] for key in keys) or "the record"


def _wrong(value: Any, shape: Any, keys: tuple[str, ...]) -> str:
    shapes = shape if isinstance(shape, tuple) else (shape,)
    shown = "null" if value is None else repr(value)[:50]
    if isinstance(value, dict | list):
        shown = "keys and values" if isinstance(value, dict) else "a list"
    return f"{_path(keys)} is {shown}, not {' or '.join(map(_say, shapes))}"


def _say(shape: Any) -> str:
    """A shape in words."""
    if isinstance(shape, dict | Columns):
        return "keys and values"
    return _NAMES[shape] if shape is None or isinstance(shape, type) else str(shape)
