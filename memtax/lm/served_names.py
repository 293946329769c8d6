"""Names of served models: `openai:http://host:8000/v1#NAME`, where NAME is the model's name at the server."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from memtax.errors import ModelError

PREFIX = "openai:"
EXAMPLE = "openai:http://localhost:8000/v1#NAME"

_NO_DISTRIBUTION = "a server gives no distribution over the vocabulary"
NOT_GIVEN = {
    "token_means": _NO_DISTRIBUTION,
    "token_variances": _NO_DISTRIBUTION,
    "token_ranks": "the server gives no ranks (vLLM's prompt_logprobs have them)",
    "decoding_logprob": _NO_DISTRIBUTION,
    "extraction_queries": _NO_DISTRIBUTION,
    "attention_entropy": "a server gives no attention",
    "attention_gini": "a server gives no attention",
    "near_ties": _NO_DISTRIBUTION,
    "memorization_score": "free-running decoding is not asked of a server",
    "continuation_edit_distance": "free-running decoding is not asked of a server",
    "longest_common_block": "free-running decoding is not asked of a server",
    "block_recall": "free-running decoding is not asked of a server",
    "near_verbatim_recall": "free-running decoding is not asked of a server",
    "near_logprob": _NO_DISTRIBUTION,
    "near_logprob_most": _NO_DISTRIBUTION,
}
"""Columns that a served model may leave null, and why."""
OF_ARGMAX = ("is_memorized", "match_length", "exact_memorization", "extraction_strength")
"""Columns that need the most likely token of every position."""


class Served(ABC):
    """Base class of served models, by which they are told from loaded ones without importing what asks servers."""

    @property
    @abstractmethod
    def vocabulary(self) -> int:
        """Number of token ids."""

    @abstractmethod
    def score(self, sequences: Sequence[Sequence[int]]) -> dict[str, Any]:
        """Values of the tokens after the first of every sequence; see `memtax.lm.served`."""


@dataclass(frozen=True)
class ServedName:
    """A model at a server.

    Attributes:
        address: address of the API, without user and password.
        model: the model's name at the server.
    """

    address: str
    model: str


def is_served(name: str | Path) -> bool:
    """Whether a name is that of a served model."""
    return isinstance(name, str) and name.startswith(PREFIX)


def parse(name: str) -> ServedName:
    """The parts of a served model's name.

    Raises:
        ModelError: it has no http address or no model.
    """
    address, _, model = name.removeprefix(PREFIX).partition("#")
    try:
        parts = urlsplit(address)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_address = False
    if not is_address or not model:
        raise ModelError(f"{name} names no served model; write {EXAMPLE}")
    return ServedName(address.rstrip("/"), model)


def reason(column: str) -> str | None:
    """Why a column of a served model may be null; None if for no reason of its own."""
    if column.startswith(OF_ARGMAX):
        return (
            "the sequence is too short, its tokens cannot be asked for, or the server does not say which token is most likely"
        )
    return NOT_GIVEN.get(column)
