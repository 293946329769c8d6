"""Optional parts of the installation, and the one line about a part that is missing."""

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from memtax.errors import MissingExtraError

EXTRAS = {
    "lm": ("torch", "transformers", "accelerate", "peft", "tokenizers", "httpx"),
    "report": ("matplotlib",),
    "stats": ("statsmodels",),
    "explore": ("gradio",),
    "pii": ("phonenumbers", "email_validator", "stdnum"),
    "spark": ("pyspark",),
    "index": ("infini_gram",),
    "demo": ("sentence_transformers",),
}
"""Extra to the modules that the core does not install."""
_OF_MODULE = {module: extra for extra, modules in EXTRAS.items() for module in modules}


def command(*extras: str) -> str:
    """The command that installs extras."""
    return f"pip install 'memtax[{','.join(extras)}]'"


def require(what: str, *extras: str) -> None:
    """Check that extras are installed, without importing them.

    Args:
        what: what needs them, for the message.
        extras: names in `EXTRAS`.

    Raises:
        MissingExtraError: a module of one of them is not installed.
    """
    missing = [module for extra in extras for module in EXTRAS[extra] if importlib.util.find_spec(module) is None]
    if missing:
        raise _error(f"{what} needs", missing)


def explain(error: BaseException) -> MissingExtraError | None:
    """The same error for a failed import, or None if no extra installs the module."""
    module = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    # A module that is installed may itself lack a part.
    if module not in _OF_MODULE or importlib.util.find_spec(module) is not None:
        return None
    return _error("this needs", [module])


@contextmanager
def explained() -> Iterator[None]:
    """Explain an import that fails because an extra is not installed.

    Raises:
        MissingExtraError: in place of the import's own error.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (explanation := explain(error)) is None:
            raise
        raise explanation from error


def _error(subject: str, modules: Sequence[str]) -> MissingExtraError:
    extras = dict.fromkeys(_OF_MODULE[module] for module in modules)
    which = "which is not installed" if len(modules) == 1 else "which are not installed"
    return MissingExtraError(f"{subject} {', '.join(modules)}, {which}; {command(*extras)}")
