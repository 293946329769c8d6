"""Settings of a verb: fields of a frozen dataclass, from which options, help, validation and records are derived."""

import contextlib
import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from memtax import credentials
from memtax.errors import MemtaxError

S = TypeVar("S")
Dtype = Literal["auto", "saved", "float32", "bfloat16", "float16"]
Bos = Literal["auto", "always", "never"]
COMMAND_LINE = "the command line"
"""Name of the source of settings for which errors show flags."""
_EXPECTED = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}


def option(
    help: str,  # noqa: A002 - the word of every command-line library
    default: Any = dataclasses.MISSING,
    *,
    short: str | None = None,
    least: float | None = None,
    most: float | None = None,
    source: bool = False,
    choices: tuple[str, ...] = (),
) -> Any:
    """A field set by `--name`.

    Args:
        help: one sentence, shown by `--help` and in the documentation.
        default: default value; without one, the option is required.
        short: a one-letter form, as in `-o`.
        least: minimum.
        most: maximum.
        source: whether it is an input, whose fingerprint is recorded.
        choices: values that a shell completes.
    """
    metadata: dict[str, Any] = {"help": help, "short": short, "least": least, "most": most, "source": source}
    metadata |= {"argument": False, "choices": choices}
    return dataclasses.field(default=default, metadata=metadata)


def argument(help: str, default: Any = dataclasses.MISSING, *, source: bool = True) -> Any:  # noqa: A002
    """A field set by a positional argument; see `option`."""
    metadata = {"help": help, "short": None, "least": None, "most": None, "source": source, "argument": True, "choices": ()}
    return dataclasses.field(default=default, metadata=metadata)


def flag_of(name: str) -> str:
    """Command-line flag of a field."""
    return f"--{name.rstrip('_').replace('_', '-')}"


def fields(kind: type) -> dict[str, tuple["dataclasses.Field[Any]", Any]]:
    """Name to field and type of every setting: positional, required, the verb's own, then shared ones."""
    hints = typing.get_type_hints(kind)
    declared = {
        name: depth for depth, base in reversed([*enumerate(kind.__mro__)]) for name in vars(base).get("__annotations__", ())
    }
    found = [field for field in dataclasses.fields(kind) if "help" in field.metadata]
    found.sort(key=lambda field: (not field.metadata["argument"], has_default(field), declared[field.name]))
    return {field.name: (field, hints[field.name]) for field in found}


def optional(hint: Any) -> tuple[Any, bool]:
    """A type without None, and whether None is allowed."""
    if typing.get_origin(hint) in (Union, types.UnionType):
        kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
        return kinds[0], len(kinds) < len(typing.get_args(hint))
    return hint, False


def from_values(kind: type[S], values: Mapping[str, Any], where: str = "the configuration") -> S:
    """Settings from the values of a YAML file, a command line or a call.

    Args:
        kind: the dataclass.
        values: by field name; numbers may be strings, and lists one string separated by commas.
        where: name of the source in errors about unknown names.

    Raises:
        MemtaxError: a value is missing, or `check_values` finds a fault.
    """
    given = check_values(kind, values, where)
    for name, (field, _) in fields(kind).items():
        if name not in given and not has_default(field):
            text = field.metadata["help"]
            raise MemtaxError(f"{label(field, where)} is missing: {text[:1].lower()}{text[1:]}")
    return kind(**given)


def check_values(kind: type, values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Values converted to the settings' types; None means the default if the setting cannot be None.

    Raises:
        MemtaxError: a name is unknown (the closest one is suggested), or a value has the wrong type or is out of range.
    """
    known = fields(kind)
    given = {}
    for name, value in values.items():
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise MemtaxError(f"unknown key {name!r} in {where}; {hint}")
        field, hint = known[name]
        if value is not None or optional(hint)[1]:
            given[name] = _checked(field, hint, value, label(field, where))
    return given


def has_default(field: "dataclasses.Field[Any]") -> bool:
    """Whether a setting is optional."""
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def to_values(settings: Any) -> dict[str, Any]:
    """The settings as values for YAML and JSON; `from_values` of the result gives the same settings."""
    return {name: _plain(getattr(settings, name)) for name in fields(type(settings))}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def label(field: "dataclasses.Field[Any]", where: str) -> str:
    """Name of a setting in errors, as written in its source."""
    if where != COMMAND_LINE:
        return field.name
    return field.name.upper() if field.metadata["argument"] else flag_of(field.name)


def _checked(field: "dataclasses.Field[Any]", hint: Any, value: Any, name: str) -> Any:
    if field.metadata["argument"] and isinstance(value, list | tuple):
        # A path may contain a comma.
        checked: Any = tuple(_converted(item, typing.get_args(hint)[0], name) for item in value)
    else:
        checked = _converted(value, hint, name)
    for number in checked if isinstance(checked, tuple) else (checked,):
        if isinstance(number, int | float) and not isinstance(number, bool):
            least, most = field.metadata["least"], field.metadata["most"]
            if least is not None and not number >= least:
                raise MemtaxError(f"{name} is {number}; it must be at least {least}")
            if most is not None and not number <= most:
                raise MemtaxError(f"{name} is {number}; it must be at most {most}")
    return checked


def _converted(value: Any, hint: Any, name: str) -> Any:
    kind, may_be_none = optional(hint)
    if value is None and may_be_none:
        return None
    if typing.get_origin(kind) is tuple:
        return tuple(_converted(item, typing.get_args(kind)[0], name) for item in _listed(value, name))
    if typing.get_origin(kind) is Literal:
        if value not in typing.get_args(kind):
            choices = ", ".join(map(str, typing.get_args(kind)))
            raise MemtaxError(f"{name} expects one of {choices}, got {value!r}")
        return value
    value = _read(value, kind)
    if isinstance(value, str):
        value = credentials.without_login(value)
    fits = isinstance(value, kind) and (kind is not float or math.isfinite(value))
    if not fits or (isinstance(value, bool) and kind is not bool):
        raise MemtaxError(f"{name} expects {_EXPECTED[kind]}, got {value!r}")
    if isinstance(value, str) and not value.strip():
        raise MemtaxError(f"{name} is empty; give a value or leave it out")
    return value


def _read(value: Any, kind: Any) -> Any:
    """A value converted to the type if it means the same; otherwise unchanged."""
    if isinstance(value, bool):
        return value
    if isinstance(value, Path):
        return str(value) if kind is str else value
    if (isinstance(value, str) and kind in (int, float, Path)) or (isinstance(value, int) and kind is float):
        with contextlib.suppress(ValueError):
            return kind(value)
    return value


def _listed(value: Any, name: str) -> list[Any]:
    """The items of a list; in strings they may be separated by commas."""
    if isinstance(value, str | int | float | Path):
        value = [value]
    if not isinstance(value, list | tuple):
        raise MemtaxError(f"{name} expects a list, got {value!r}")
    items: list[Any] = []
    for item in value:
        items += [part.strip() for part in item.split(",") if part.strip()] if isinstance(item, str) else [item]
    return items
