"""The exceptions a user can meet. Each message names the offending value and the way out, on one line."""


class MemtaxError(ValueError):
    """Bad input or configuration; the command prints the message and exits with status 2."""


class ModelError(MemtaxError):
    """A model or tokenizer cannot be loaded, or its output cannot be used (NaN logits, a vocabulary that does not fit)."""


class StaleOutputError(MemtaxError):
    """An output directory holds results of other inputs or of another configuration."""
