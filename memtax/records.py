"""Read YAML and JSON records as untrusted data: bounded before they are parsed, then checked."""

import errno
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any

from memtax.errors import MemtaxError
from memtax.shapes import check

LARGEST = {"YAML": 1 << 20, "JSON": 1 << 26}
"""Bytes of a record at most."""
DEEPEST = 64
"""Levels to which a record may be nested."""
_DEEP = f"{{}} is not a record: it is nested more than {DEEPEST} levels deep"
MOST = 50_000
"""Values of a YAML record at most, with what its aliases stand for. A run's own record has fewer than 200."""
LARGEST_INTEGER = 2**64
"""Absolute value that integers of a JSON record stay below."""

_JSON = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[{]|[\]}]', re.DOTALL)
_WRONG = (AttributeError, TypeError, LookupError, ValueError, ArithmeticError, RecursionError, AssertionError)
"""Exceptions of code that reads a record of another shape than expected."""


def read_yaml(path: Path | str) -> Any:
    """Read a YAML file.

    Raises:
        MemtaxError: it is too large, too deeply nested, not UTF-8 or not YAML.
        OSError: it cannot be read.
    """
    return parse_yaml(_read(Path(path), "YAML"), str(path))


def parse_yaml(text: str | bytes, name: str) -> Any:
    """Interpret YAML of standard types only.

    Args:
        text: the document.
        name: how errors call it.

    Raises:
        MemtaxError: it is too large, too deeply nested, a value contains itself, a key occurs twice, or it is not YAML.
    """
    import yaml

    if len(text) > LARGEST["YAML"]:
        raise MemtaxError(f"{name} is not a record: it has {len(text):,} bytes, more than {LARGEST['YAML']:,}")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        text = text.decode("utf-8") if isinstance(text, bytes) else text
        _check_events(yaml.parse(text, loader), name)
        value, node = yaml.load(text, loader), yaml.compose(text, loader)  # noqa: S506 - a safe loader
    except MemtaxError:
        raise
    except (yaml.YAMLError, *_WRONG) as error:
        if "maximum nesting depth" in str(error):  # PyYAML from 6.0.4 on has a limit of its own
            raise MemtaxError(_DEEP.format(name)) from error
        raise MemtaxError(f"{name} is not YAML: {_line(error)}") from error
    keys = Counter(str(key.value) for key, _ in node.value) if isinstance(node, yaml.MappingNode) else Counter()
    if twice := sorted(key for key, count in keys.items() if count > 1):
        raise MemtaxError(f"{name} gives {', '.join(twice[:5])} more than once; YAML would take the last: keep one")
    return value


def _check_events(events: Iterator[Any], name: str) -> None:
    """Count the values of a document, with aliases expanded, without building them."""
    import yaml

    sizes: dict[str, int] = {}
    waiting: list[tuple[str | None, int]] = []  # the collections around the event: anchor, and values before it
    total = 0
    for event in events:
        if isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, _ in waiting):
                raise MemtaxError(f"{name} is not a record: the value {event.anchor!r} contains itself")
            total += sizes.get(str(event.anchor), 1)
        elif isinstance(event, yaml.CollectionStartEvent):
            waiting.append((event.anchor, total))
            total += 1
            if len(waiting) > DEEPEST:
                raise MemtaxError(_DEEP.format(name))
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = waiting.pop()
            sizes[str(anchor)] = total - before
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
            sizes[str(event.anchor)] = 1
        if total > MOST:
            raise MemtaxError(f"{name} is not a record: it has more than {MOST:,} values")


def read_json(path: Path | str, shape: Any = None, *, finite: bool = True) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: the file.
        shape: what it must hold, as in `memtax.shapes`; None: any object.
        finite: refuse NaN and infinity, and integers of `LARGEST_INTEGER` or more. Configurations of models have them.

    Raises:
        MemtaxError: it is too large, too deeply nested, not a JSON object, or does not have the shape.
        OSError: it cannot be read.
    """
    value = parse_json(_read(Path(path), "JSON"), str(path), finite=finite)
    if not isinstance(value, dict):
        raise MemtaxError(f"{path} holds a {type(value).__name__}, not an object; run the stage that writes it again")
    if shape is not None:
        check(value, shape, path)
    return value


def parse_json(text: bytes, name: str, *, finite: bool = True) -> Any:
    """Interpret JSON; see `read_json`.

    Args:
        text: the document.
        name: how errors call it.
        finite: refuse NaN, infinity and huge integers.

    Raises:
        MemtaxError: it is too deeply nested, or not JSON.
    """
    depth = 0
    for token in _JSON.finditer(text):
        start = text[token.start()]
        depth += (start in b"[{") - (start in b"]}")
        if depth > DEEPEST:
            raise MemtaxError(_DEEP.format(name))
    numbers: dict[str, Any] = {"parse_int": _integer, "parse_float": _float, "parse_constant": _float} if finite else {}
    try:
        return json.loads(text.decode("utf-8"), **numbers)
    except (ValueError, RecursionError) as error:
        raise MemtaxError(f"{name} is not JSON ({_line(error)}); run the stage that writes it again") from error


def read_json_lines(path: Path | str, shape: Any) -> list[dict[str, Any]]:
    """Read a file of JSON objects, one per line; empty lines are passed over.

    Args:
        path: the file.
        shape: what each line must hold, as in `memtax.shapes`.

    Raises:
        MemtaxError: a line is too long, too deeply nested, not JSON, or does not have the shape.
        OSError: the file cannot be read.
    """
    rows = []
    with open_file(Path(path)) as file:
        for number, line in enumerate(iter(lambda: file.readline(LARGEST["JSON"] + 1), b""), 1):
            if len(line) > LARGEST["JSON"]:
                raise MemtaxError(f"line {number} of {path} has more than {LARGEST['JSON']:,} bytes")
            if line.strip():
                row = parse_json(line, f"line {number} of {path}")
                check(row, shape, f"line {number} of {path}")
                rows.append(row)
    return rows


def _integer(text: str) -> int:
    value = int(text)
    if abs(value) >= LARGEST_INTEGER:
        raise ValueError(f"{text[:20]} is out of range")
    return value


def _float(text: str) -> float:
    value = float(text.replace("Infinity", "inf"))
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is not a finite number")
    return value


def open_file(path: Path) -> BufferedReader:
    """Open a file to read its bytes.

    Raises:
        OSError: it cannot be read, or is a pipe or a device, which may never end.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
    return path.open("rb")


def _read(path: Path, kind: str) -> bytes:
    if path.exists() and not path.is_file():
        raise MemtaxError(f"{path} is not a file; a record of {kind} is expected there")
    with path.open("rb") as file:
        text = file.read(LARGEST[kind] + 1)
    if len(text) > LARGEST[kind]:
        raise MemtaxError(f"{path} is not a record: it has more than {LARGEST[kind]:,} bytes")
    return text


def read_text(path: Path | str) -> str:
    """Read a text, such as a card, of at most as many bytes as a JSON record.

    Raises:
        MemtaxError: it is too large, or not UTF-8.
        OSError: it cannot be read.
    """
    try:
        return _read(Path(path), "JSON").decode("utf-8")
    except UnicodeDecodeError as error:
        raise MemtaxError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); write it again") from None


RUN: Mapping[str, tuple[type, ...]] = {
    "memtax": (str,),
    "config": (dict,),
    "inputs": (dict,),
    "versions": (dict,),
    "commit": (str, type(None)),
    "seconds": (int, float),
}
"""Keys of `run.yaml` and the types of their values."""


def read_run(path: Path | str) -> dict[str, Any]:
    """Read a `run.yaml`; the keys that are there have the types that memtax writes.

    Raises:
        MemtaxError: it is not YAML, or a value has another type.
        OSError: it cannot be read.
    """
    record = read_yaml(path)
    if not isinstance(record, dict):
        raise MemtaxError(f"{path} is not a record of a run: it holds {_kind(record)}, not keys and values")
    for key, types in RUN.items():
        if key in record and not isinstance(record[key], types):
            raise MemtaxError(f"{path}: {key} is {_kind(record[key])}, not {_NAMES[types[0]]}; restore it or remove the file")
    for key in ("inputs", "versions", "config"):
        for name, value in record.get(key, {}).items():
            if not isinstance(name, str) or not (isinstance(value, str) or key == "config"):
                raise MemtaxError(f"{path}: {key}: {str(name)[:50]} is {_kind(value)}; restore it or remove the file")
    return record


def whole_number(record: Mapping[str, Any], key: str, name: Path | str, default: int, least: int, most: int) -> int:
    """A whole number of a record.

    Raises:
        MemtaxError: it is something else, or out of range.
    """
    value = record.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise MemtaxError(f"{name}: {key} is {str(value)[:50]!r}, not a whole number from {least} to {most}")
    return value


_NAMES = {str: "text", dict: "keys and values", int: "a number", float: "a number", list: "a list", bool: "true or false"}


def _kind(value: Any) -> str:
    return "nothing" if value is None else _NAMES.get(type(value), f"a {type(value).__name__}")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
