"""What conversations need of a model before it is loaded: the BOS of its chat template, and its positions."""

from collections.abc import Sequence
from pathlib import Path

from memtax.corpus.answers import holds_messages
from memtax.corpus.conversations import template_opening
from memtax.corpus.sources import Source
from memtax.errors import MemtaxError
from memtax.lm.folders import base_model
from memtax.lm.loading import load_tokenizer
from memtax.lm.served_names import is_served
from memtax.lm.special_tokens import BosIds, bos_ids, position_limit


def source_bos(
    source: Source,
    path: str | Path,
    revision: str | None = None,
    bos: str | Sequence[int] = "auto",
    tokenizer: str | Path | None = None,
) -> BosIds:
    """The ids put before every row of a source: for messages, `auto` follows the chat template instead of the tokenizer.

    A template writes BOS itself, or the model was fine-tuned without it; either way a row is shown as it was trained on.

    Args:
        source: the rows.
        path: as for `memtax.lm.special_tokens.bos_ids`, like the other arguments.
        revision: as there.
        bos: as there.
        tokenizer: as there.

    Raises:
        MemtaxError: as there; or the rows are messages and the tokenizer has no chat template.
    """
    if bos == "auto" and _holds_messages(source):
        return template_opening(load_tokenizer(tokenizer or path, None if tokenizer else revision))
    return bos_ids(path, revision, bos, tokenizer)


def _holds_messages(source: Source) -> bool:
    if source.streaming:
        return False
    try:
        return holds_messages(source)
    except MemtaxError:
        # Reading the rows raises the error in its place.
        return False


def positions_for_text(path: str | Path, revision: str | None, opening: BosIds) -> int | None:
    """Positions that a model, or an adapter's base model, has after the opening, from its configuration; None if unlimited."""
    from transformers import AutoConfig

    if is_served(path):
        return None
    name, version = base_model(path, revision) or (str(path), revision)
    try:
        limit = position_limit(AutoConfig.from_pretrained(str(name), revision=version, trust_remote_code=False))
    except Exception:  # load_model raises the specific error
        return None
    return None if limit is None else limit - len(opening)
