"""Commands derived from the settings of jobs: options, help, `--config`, and the output on the terminal."""

import inspect
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from memtax.cli.outcome import Outcome
from memtax.jobs import job_class
from memtax.settings import COMMAND_LINE, check_values, fields, flag_of, has_default, optional

_CONFIG = "YAML file of these options by name, or the run.yaml of a finished job; options given here come first."


_FILES = ("config", "config_file")
"""Parameters that take a file of settings."""


def command(verb: str) -> Callable[..., Outcome]:
    """A function from which Typer builds a command."""
    kind: Any = job_class(verb)
    parameters = [_parameter(kind, name, field, hint) for name, (field, hint) in fields(kind).items()]
    parameters += _config_parameters(kind)

    def run(**values: Any) -> Outcome:
        given = {name: value for name, value in values.items() if name not in _FILES and value is not None}
        done = kind.begin(given, COMMAND_LINE)
        paths = {name: path for name, path in (("output", done.output), ("page", done.page)) if path is not None}
        return Outcome({**paths, **done.figures}, done.lines, done.then, done.code)

    # Typer reads a command's options from the signature and annotations of its function.
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters} | {"return": Outcome}
    run.__doc__, run.__name__ = inspect.cleandoc(kind.__doc__), verb
    return run


def _parameter(owner: Any, name: str, field: Any, hint: Any) -> inspect.Parameter:
    """A setting of the verb `owner` as a Typer parameter; None means "not given", so that defaults stay in the settings."""
    kind, _ = optional(hint)
    is_list = typing.get_origin(kind) is tuple
    # Literals and numbers are checked with the settings, so that files, calls and command lines give the same errors.
    shown = kind if kind in (bool, Path) or typing.get_origin(kind) is typing.Literal else _base(kind)
    meta = field.metadata
    default = None if is_list else field.default
    required = not has_default(field)
    if meta["argument"]:
        metavar = f"{name.upper()}..." if is_list else name.upper()
        info: Any = typer.Argument(help=meta["help"], metavar=metavar, show_default=False)
    else:
        flag = flag_of(name)
        names = [f"{flag}/--no-{flag[2:]}" if kind is bool else flag, *([meta["short"]] if meta["short"] else [])]
        text = meta["help"]
        if is_list and field.default:
            text += f" Default: {','.join(map(str, field.default))}."
        if is_list:
            text += " May be repeated."
        more: dict[str, Any] = {"show_default": default not in (None, False, "")}
        if choices := meta["choices"]:
            more["autocompletion"] = lambda incomplete: [each for each in choices if each.startswith(incomplete)]
        if name == "preset":
            more |= {"is_eager": True, "callback": _expander(owner)}
        info = typer.Option(*names, help=text, metavar=_metavar(kind, meta["choices"]), **more)
    annotation = list[str] | None if is_list else (shown if shown is bool else shown | None)
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if required else default,
        annotation=Annotated[annotation, info],
    )


_VALUES = {bool: "", int: "INTEGER", float: "NUMBER", str: "TEXT", Path: "PATH"}
_LONGEST = 40
"""Characters of a list of choices in the help; a longer one is completed by the shell, and named in an error."""


def _metavar(kind: Any, choices: Sequence[str] | None) -> str:
    """What stands for an option's value in the help; nothing for a switch."""
    if typing.get_origin(kind) is tuple:
        # Values in one option are separated by commas.
        return f"{_metavar(typing.get_args(kind)[0], choices)},..."
    names = "|".join(choices or (typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else ()))
    return names if 0 < len(names) <= _LONGEST else _VALUES.get(kind, "TEXT")


def _expander(kind: Any) -> Callable[[typer.Context, str | None], str | None]:
    """What `--preset NAME` does: its settings are defaults, after those of a file. A file's own preset is expanded with it."""

    def expand(ctx: typer.Context, value: str | None) -> str | None:
        if value is not None and (ctx.default_map or {}).get("preset") != value:
            ctx.default_map = {**kind.expand({"preset": value}), **(ctx.default_map or {})}
        return value

    return expand


def _base(kind: Any) -> Any:
    return kind if kind in (int, float, str) else str


def _config_parameters(kind: Any) -> list[inspect.Parameter]:
    """`--config FILE`, and for `memtax run FILE` the file as a positional argument."""

    def read(ctx: typer.Context, path: Path | None) -> Path | None:
        if path is not None:
            from memtax.jobs.base import read_settings

            values = kind.expand(read_settings(path, kind.verb))
            check_values(kind, values, str(path))
            ctx.default_map = {
                **(ctx.default_map or {}),
                **{name: value for name, value in values.items() if value is not None},
            }
        return path

    positional = kind.config_is_positional
    said = "The same file as CONFIG." if positional else _CONFIG
    infos: list[Any] = [typer.Option("--config", metavar="FILE", help=said, is_eager=True, callback=read)]
    if positional:
        infos.append(typer.Argument(help=_CONFIG, metavar="CONFIG", is_eager=True, callback=read, show_default=False))
    return [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[Path | None, info])
        for name, info in zip(_FILES, infos, strict=False)
    ]
