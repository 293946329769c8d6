"""The exceptions that users may see. Each message gives the offending value and the solution, on one line."""


class MemtaxError(ValueError):
    """Bad input or configuration; the command prints the message and exits with status 2."""


class ModelError(MemtaxError):
    """A model or tokenizer cannot be loaded, or its output is unusable (NaN logits, a vocabulary that does not fit)."""


class RowError(ModelError):
    """A row that a model cannot process, or for which it returns NaN; callers that know the row replace its name.

    Args:
        message: message with `{row}` in place of the row's name.
        row: index among the given rows.
        name: name of the row.
    """

    def __init__(self, message: str, row: int, name: str | None = None) -> None:
        super().__init__(message, row, name)
        self.message, self.row, self.name = message, row, name

    def __str__(self) -> str:
        """The message with the row's name."""
        return self.message.replace("{row}", self.name or f"row {self.row}")

    def at(self, row: int, name: str | None = None) -> "RowError":
        """The same error with another index or name for the row."""
        return RowError(self.message, row, name)


class MissingExtraError(MemtaxError, ImportError):
    """An optional part of the installation is missing; the message contains the command that installs it."""


class StaleOutputError(MemtaxError):
    """An output directory contains results of other inputs or of another configuration."""
