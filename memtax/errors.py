"""The exceptions a user can meet. Each message names the offending value and the way out, on one line."""


class MemtaxError(ValueError):
    """Bad input or configuration; the command prints the message and exits with status 2."""


class ModelError(MemtaxError):
    """A model or tokenizer cannot be loaded, or its output cannot be used (NaN logits, a vocabulary that does not fit)."""


class RowError(ModelError):
    """A row that a model cannot take, or gives no numbers for; whoever knows more of the row names it better.

    Args:
        message: with `{row}` where the row is named.
        row: its number among the rows that were given.
        name: what it is called.
    """

    def __init__(self, message: str, row: int, name: str | None = None) -> None:
        super().__init__(message, row, name)
        self.message, self.row, self.name = message, row, name

    def __str__(self) -> str:
        """The message with the row's name in it."""
        return self.message.replace("{row}", self.name or f"row {self.row}")

    def at(self, row: int, name: str | None = None) -> "RowError":
        """The same of the row by its number, or its name, among more rows."""
        return RowError(self.message, row, name)


class StaleOutputError(MemtaxError):
    """An output directory holds results of other inputs or of another configuration."""
