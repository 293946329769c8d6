"""The rule for special tokens: counted and scored tokens are text, and only BOS is put before it.

A text's token ids never contain the special tokens that a tokenizer adds (`text_ids`): counts, windows, prompts and scores
refer to the text. A model pretrained with a beginning-of-sequence token before every sequence (Llama, Mistral, Gemma) expects
it, so this token is put before every row that the model reads: once, not scored, and not counted as part of the prompt.
Windows from the middle of a document are treated like all rows. End-of-sequence is never added.

The first token of a row has no score in either case, so that results with and without BOS cover the same tokens.

`auto` follows the tokenizer's own behavior. GPT-NeoX (Pythia), GPT-2 and Qwen add nothing, even if a `bos_token` is defined.
"""

import contextlib
import functools
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from memtax.errors import MemtaxError, ModelError
from memtax.lm.folders import base_model
from memtax.lm.loading import load_tokenizer
from memtax.lm.served_names import is_served

BOS = ("auto", "always", "never")
"""Values of `--bos`: the tokenizer's own behavior, its `bos_token` in any case, or none."""

BosIds = tuple[int, ...]
"""Token ids put before every row; empty for none."""

_PROBE = "a b"
_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")


def text_ids(tokenizer: Any, texts: Sequence[str | None]) -> list[list[int]]:
    """Token ids of each text, without special tokens; a missing text has none."""
    if not len(texts):
        return []
    encoded = tokenizer(
        [text or "" for text in texts], add_special_tokens=False, return_attention_mask=False, truncation=False, verbose=False
    )
    return [list(ids) for ids in encoded["input_ids"]]


def check_bos(bos: str | Sequence[int]) -> None:
    """Check a value of `bos`.

    Raises:
        MemtaxError: it is neither one of `BOS` nor token ids.
    """
    if isinstance(bos, str) and bos not in BOS:
        raise MemtaxError(f"unknown bos {bos!r}; choose one of {', '.join(BOS)}")
    if not isinstance(bos, str) and not all(isinstance(token, int) and token >= 0 for token in bos):
        raise MemtaxError(f"bos holds {list(bos)!r}; token ids are whole numbers of at least 0")


def tokenizer_bos(tokenizer: Any, bos: str | Sequence[int] = "auto") -> BosIds:
    """The ids put before every row, from a tokenizer.

    Args:
        tokenizer: a `transformers` tokenizer.
        bos: one of `BOS`, or the ids themselves.

    Raises:
        MemtaxError: the value is unknown.
        ModelError: the value is `always`, but the tokenizer defines no beginning-of-sequence token.
    """
    check_bos(bos)
    if not isinstance(bos, str):
        return tuple(bos)
    if bos == "never":
        return ()
    token = getattr(tokenizer, "bos_token_id", None)
    if bos == "always":
        if token is None:
            name = getattr(tokenizer, "name_or_path", "") or "it"
            raise ModelError(f"the tokenizer ({name}) defines no beginning-of-sequence token; use --bos auto or --bos never")
        return (int(token),)
    plain = list(tokenizer(_PROBE, add_special_tokens=False)["input_ids"])
    whole = list(tokenizer(_PROBE)["input_ids"])
    for start in range(len(whole) - len(plain) + 1 if plain else 0):
        if whole[start : start + len(plain)] == plain:
            return tuple(whole[:start])
    # An empty encoding leaves only the added tokens; a token that is both BOS and EOS may be the one at the end.
    ends = len(whole) == 1 and token == getattr(tokenizer, "eos_token_id", None)
    return (int(token),) if token is not None and whole[:1] == [token] and not ends else ()


def bos_ids(
    path: str | Path, revision: str | None = None, bos: str | Sequence[int] = "auto", tokenizer: str | Path | None = None
) -> BosIds:
    """The ids put before every row of a model, from its tokenizer and without loading the model.

    An adapter without its own tokenizer uses that of its base model. Without any tokenizer, `auto` adds nothing.

    Args:
        path: the model's folder or Hub name.
        revision: branch, tag or commit on the Hub.
        bos: one of `BOS`, or the ids themselves.
        tokenizer: folder or Hub name of another tokenizer to use instead.

    Raises:
        MemtaxError: the value is unknown.
        ModelError: the value is `always`, but no beginning-of-sequence token is defined.
    """
    check_bos(bos)
    if not isinstance(bos, str):
        return tuple(bos)
    if bos == "never":
        return ()
    if tokenizer is None and is_served(path):
        return tokenizer_bos(load_tokenizer(path), bos)
    where = (str(tokenizer), None) if tokenizer is not None else (str(path), revision)
    return _bos_ids(*where, bos, _stamp(where[0]))


@functools.lru_cache(maxsize=16)
def _bos_ids(path: str, revision: str | None, bos: str, stamp: tuple[tuple[str, int, int], ...]) -> BosIds:
    if Path(path).is_dir() and not stamp:
        base = base_model(path, revision)
        if base is not None:
            return bos_ids(*base, bos)
        if bos == "always":
            raise ModelError(f"{path} has no tokenizer that defines a beginning-of-sequence token; give one with --tokenizer")
        return ()
    try:
        found = load_tokenizer(path, revision)
    except ModelError:
        if bos == "always":
            raise
        base = base_model(path, revision)
        return bos_ids(*base, bos) if base is not None else ()
    return tokenizer_bos(found, bos)


def _stamp(path: str) -> tuple[tuple[str, int, int], ...]:
    """Sizes and times of a folder's tokenizer files; empty for a Hub name."""
    files = [Path(path) / name for name in _FILES]
    status = [(file.name, file.stat()) for file in files if file.is_file()]
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in status)


_MODELS: "weakref.WeakKeyDictionary[Any, BosIds]" = weakref.WeakKeyDictionary()


def set_bos(model: Any, ids: Sequence[int]) -> None:
    """Put these ids before every row that memtax passes to this model from now on; called by `load_model`."""
    _MODELS[model] = tuple(ids)


def bos_of(model: Any) -> BosIds:
    """The ids put before every row of a loaded model; none if `set_bos` was never called for it or the model it wraps."""
    if model in _MODELS:
        return _MODELS[model]
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return _MODELS.get(inner, ())


@contextlib.contextmanager
def bos_before(model: Any, ids: Sequence[int]) -> Iterator[None]:
    """Call `set_bos` temporarily."""
    before = _MODELS.get(model)
    set_bos(model, ids)
    try:
        yield
    finally:
        if before is None:
            del _MODELS[model]
        else:
            _MODELS[model] = before


def with_bos(row: Sequence[int], ids: BosIds) -> Sequence[int]:
    """The row with the ids before it; a row that already starts with them is unchanged."""
    return row if not ids or starts_with_bos(row, ids) else [*ids, *row]


def without_bos(row: Sequence[int], ids: BosIds) -> Sequence[int]:
    """The text of a row that may start with the ids, which are not part of its prompt."""
    return row[len(ids) :] if ids and starts_with_bos(row, ids) else row


def starts_with_bos(row: Sequence[int], ids: BosIds) -> bool:
    """Whether a row begins with the ids."""
    return len(row) >= len(ids) and all(int(row[place]) == token for place, token in enumerate(ids))


def positions(model: Any) -> int | None:
    """Positions for BOS and text; None if the configuration gives no limit (XLNet says -1).

    A prompt adapter's virtual tokens reduce them. (A prefix is in the cache, and counts too.)
    """
    longest = position_limit(model.config)
    return longest if longest is None else longest - virtual_tokens(model)


def position_limit(config: Any) -> int | None:
    """Maximum positions in a configuration; None if it gives none, or a value that is not a length."""
    longest = getattr(config.get_text_config(), "max_position_embeddings", None)
    return longest if isinstance(longest, int) and longest > 0 else None


def virtual_tokens(model: Any) -> int:
    """Number of tokens that a prompt adapter puts before every text."""
    config = getattr(model, "active_peft_config", None) if hasattr(model, "get_base_model") else None
    return int(getattr(config, "num_virtual_tokens", None) or 0)


def text_positions(model: Any) -> int | None:
    """Positions that a model has for text, without BOS; None if its configuration gives no limit."""
    longest = positions(model)
    return longest if longest is None else longest - len(bos_of(model))
