"""Neighbors of a text: copies with some tokens replaced by a masked language model's predictions."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from memtax.errors import ModelError
from memtax.lm.loading import load_tokenizer, split_revision
from memtax.provenance import digest

SHARE = 0.15
"""Share of tokens replaced in each neighbor."""
_BATCH = 32


def neighbours(texts: Sequence[str], model: str, count: int = 10, share: float = SHARE) -> list[list[str]]:
    """Neighbors of each text (Mattern et al. 2023), the same on every call.

    Each neighbor masks its own random tokens and replaces each with the most likely different token; all other characters
    stay unchanged. Tokens beyond the masked model's positions are never replaced.

    Args:
        texts: the texts.
        model: folder or Hub name of a masked language model, `NAME@REVISION` for a revision.
        count: number of neighbors per text.
        share: share of the tokens to replace; at least one token is replaced.

    Returns:
        One list per text; empty if the text has no token to replace.

    Raises:
        ModelError: the model cannot be loaded or has no fast tokenizer.
    """
    network, tokenizer = _load(model)
    # RoBERTa's position ids start at 2.
    longest = min(int(tokenizer.model_max_length), network.config.max_position_embeddings - 2)
    jobs = [
        (row, spans, ids, places)
        for row, text in enumerate(texts)
        for spans, ids, places in _plan(tokenizer, text, count, share, longest)
    ]
    found: list[list[str]] = [[] for _ in texts]
    for start in range(0, len(jobs), _BATCH):
        batch = jobs[start : start + _BATCH]
        for (row, spans, _, places), words in zip(batch, _fill(network, tokenizer, batch), strict=True):
            found[row].append(_replace(texts[row], [spans[place] for place in places], words))
    return found


def _plan(
    tokenizer: Any, text: str, count: int, share: float, longest: int
) -> list[tuple[list[tuple[int, int]], list[int], list[int]]]:
    """Spans, ids and masked positions of each neighbor of one text."""
    encoded = tokenizer(text, return_offsets_mapping=True, return_special_tokens_mask=True, truncation=True, max_length=longest)
    spans, ids = encoded["offset_mapping"], encoded["input_ids"]
    special = encoded["special_tokens_mask"]
    free = [place for place, (start, end) in enumerate(spans) if end > start and not special[place]]
    rng = np.random.default_rng(int(digest("neighbours", text)[:16], 16))
    size = max(1, math.floor(share * len(free)))
    return [(spans, ids, sorted(rng.choice(free, size, replace=False).tolist())) for _ in range(count if free else 0)]


def _fill(network: Any, tokenizer: Any, batch: Sequence[tuple[int, Any, list[int], list[int]]]) -> list[list[str]]:
    """Predicted words for the masked positions of each neighbor."""
    import torch

    ids = torch.full((len(batch), max(len(job[2]) for job in batch)), tokenizer.pad_token_id or 0)
    mask = torch.zeros_like(ids)
    for row, (_, _, tokens, places) in enumerate(batch):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        ids[row, places] = tokenizer.mask_token_id
        mask[row, : len(tokens)] = 1
    masked = [(row, place, tokens[place]) for row, (_, _, tokens, places) in enumerate(batch) for place in places]
    rows, columns, old = (torch.tensor(values, device=network.device) for values in zip(*masked, strict=True))
    with torch.no_grad():
        # Keep only the logits at masked positions: the logits at all positions are gigabytes.
        scores = network(input_ids=ids.to(network.device), attention_mask=mask.to(network.device)).logits[rows, columns]
    scores[:, tokenizer.all_special_ids] = -math.inf
    scores[torch.arange(len(old), device=old.device), old] = -math.inf
    chosen = iter(scores.argmax(-1).tolist())
    return [[tokenizer.decode([next(chosen)]).removeprefix("##").strip() for _ in places] for _, _, _, places in batch]


def _replace(text: str, spans: Sequence[tuple[int, int]], words: Sequence[str]) -> str:
    pieces, last = [], 0
    for (start, end), word in zip(spans, words, strict=True):
        # Byte-level tokens include the space before the word, which is not part of the word.
        old = text[start:end]
        pieces += [text[last:start], old[: len(old) - len(old.lstrip())], word]
        last = end
    return "".join([*pieces, text[last:]])


def _load(name: str) -> tuple[Any, Any]:
    from memtax.lm import resident

    path, revision = split_revision(name)
    tokenizer = load_tokenizer(path, revision)
    if tokenizer.mask_token_id is None or not tokenizer.is_fast:
        raise ModelError(f"the tokenizer of {name} has no mask token or is not fast; choose a masked language model")
    return resident.masked(path, revision), tokenizer
