"""Answers of `/v1/completions`: log-probabilities of the prompt's tokens, in the forms that servers have.

- `prompt_logprobs` (vLLM): for each token of the prompt, the log-probabilities and ranks of the token and of the most likely
  one, by token id.
- `echo` with `logprobs` (vLLM, SGLang, llama-cpp-python): the prompt's tokens come before the generated ones; the log-
  probabilities of the most likely tokens are by text, or by `token_id:ID`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from memtax import http_json

EXCLUDED = -9998.0
"""vLLM writes -9999 for minus infinity, which JSON does not have."""
_NAMED = "token_id:"


class UnusableError(ValueError):
    """An answer without usable log-probabilities of the prompt."""


@dataclass
class Answer:
    """Values of the tokens of a prompt, the first of which has none, and of the generated ones.

    Attributes:
        logprobs: log-probability of each token of the prompt, in nats.
        best: log-probability of the most likely token at each place; NaN if it is not known.
        ranks: number of tokens before each token; None if they are not given.
        generated: text of each generated token, or `token_id:ID`.
        generated_logprobs: log-probability of each generated token.
        prompt_tokens: number of tokens that the server counted in the prompt; None if it does not say.
    """

    logprobs: list[float]
    best: list[float]
    ranks: list[int] | None = None
    generated: list[str] = field(default_factory=list)
    generated_logprobs: list[float] = field(default_factory=list)
    prompt_tokens: int | None = None


def choice_of(content: bytes) -> tuple[dict[str, Any] | None, str]:
    """The choice in an answer, with the answer's `usage`; or None and what is wrong."""
    answer, wrong = http_json.read_object(content)
    if answer is None:
        return None, wrong
    if "error" in answer and not answer.get("choices"):
        return None, http_json.error_of(answer)
    choices = answer.get("choices")
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        return None, "the answer has no choice"
    usage = answer.get("usage")
    return {**choices[0], "usage": usage if isinstance(usage, dict) else {}}, ""


def read_prompt_logprobs(choice: Mapping[str, Any], ids: Sequence[int]) -> Answer:
    """Values from `prompt_logprobs`.

    Args:
        choice: from `choice_of`.
        ids: the tokens that were sent.

    Raises:
        UnusableError: they are missing, or not of these tokens.
    """
    places = choice.get("prompt_logprobs")
    if not isinstance(places, list):
        raise UnusableError("it returns no prompt_logprobs")
    if len(places) != len(ids):
        raise UnusableError(f"it returns {len(places)} prompt_logprobs for {len(ids)} tokens")
    logprobs, best, ranks = [math.nan], [math.nan], [0]
    for number, (place, token) in enumerate(zip(places[1:], ids[1:], strict=True), 1):
        own = place.get(str(token)) if isinstance(place, dict) else None
        if not isinstance(own, dict):
            raise UnusableError(f"token {number} of the prompt is not among its log-probabilities")
        logprobs.append(_number(own.get("logprob"), number))
        known = [_number(each.get("logprob"), number) for each in place.values() if isinstance(each, dict)]
        best.append(max(known) if len(known) > 1 or own.get("rank") == 1 else math.nan)
        ranks.append(own["rank"] - 1 if type(own.get("rank")) is int else -1)
    given = None if any(rank < 0 for rank in ranks) else ranks
    return _with_generated(choice, Answer(logprobs, best, given), 0)


def read_echo(choice: Mapping[str, Any], ids: Sequence[int], bos: int, tokenizer: Any) -> Answer:
    """Values from an echoed prompt; servers may leave out the BOS tokens that they put before a text.

    Args:
        choice: from `choice_of`.
        ids: the tokens that the server has read, with BOS.
        bos: number of BOS tokens among them.
        tokenizer: to compare tokens by text.

    Raises:
        UnusableError: they are missing, or not of these tokens.
    """
    columns = choice.get("logprobs")
    tokens = columns.get("tokens") if isinstance(columns, dict) else None
    if not isinstance(columns, dict) or not isinstance(tokens, list):
        raise UnusableError("it returns no logprobs")
    made = choice["usage"].get("completion_tokens")
    prompt = len(tokens) - made if type(made) is int and 0 <= made <= len(tokens) else len(tokens) - 1
    dropped = len(ids) - prompt
    if dropped not in (0, bos):
        raise UnusableError(f"it returns {prompt} tokens for {len(ids)} of the prompt")
    values, tops = columns.get("token_logprobs"), columns.get("top_logprobs")
    if not isinstance(values, list) or len(values) != len(tokens):
        raise UnusableError("it returns tokens without log-probabilities")
    logprobs, best = [math.nan] * dropped, [math.nan] * dropped
    for number in range(prompt):
        _same(tokens[number], ids[dropped + number], number, tokenizer)
        first = not number and not dropped
        logprobs.append(math.nan if values[number] is None and not number else _number(values[number], number))
        top = tops[number] if isinstance(tops, list) and len(tops) == len(tokens) else None
        best.append(math.nan if first else _best(top, tokens[number], logprobs[-1], number))
    return _with_generated(choice, Answer(logprobs, best), prompt)


def _with_generated(choice: Mapping[str, Any], answer: Answer, prompt: int) -> Answer:
    columns = choice.get("logprobs")
    counted = choice["usage"].get("prompt_tokens")
    answer.prompt_tokens = counted if type(counted) is int else None
    if isinstance(columns, dict) and isinstance(columns.get("tokens"), list):
        values = columns.get("token_logprobs")
        for number, token in enumerate(columns["tokens"][prompt:], prompt):
            if not isinstance(values, list) or number >= len(values) or not isinstance(values[number], int | float):
                break
            answer.generated.append(str(token))
            answer.generated_logprobs.append(float(values[number]))
    return answer


def _number(value: Any, number: int) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise UnusableError(f"token {number} of the prompt has no log-probability")
    if value > 1e-3:
        raise UnusableError(f"token {number} of the prompt has the log-probability {value:g}, which is above 0")
    return -math.inf if value <= EXCLUDED else min(float(value), 0.0)


def _best(top: Any, token: str, own: float, number: int) -> float:
    """Log-probability of the most likely token; NaN if it is not given.

    Tokens of bytes that are no text by themselves share one text, so their equality with the most likely token says nothing.
    """
    if not isinstance(top, dict) or not top:
        return math.nan
    most = max(_number(value, number) for value in top.values())
    if own < most or str(token).startswith(_NAMED):
        return most
    return math.nan if not token or "\ufffd" in token else own


def _same(piece: Any, token: int, number: int, tokenizer: Any) -> None:
    """Check that a token's text is that of the id, as far as it can be compared."""
    if not isinstance(piece, str):
        raise UnusableError(f"token {number} of the prompt is {piece!r}, not text")
    if piece.startswith(_NAMED):
        if piece != f"{_NAMED}{token}":
            raise UnusableError(f"token {number} of the prompt is {piece}, but {token} was sent")
        return
    text = tokenizer.decode([token])
    name = tokenizer.convert_ids_to_tokens(token)
    if not piece or "\ufffd" in piece or "\ufffd" in text or piece.startswith(("bytes:", "<0x")):
        return
    if piece.strip() != text.strip() and piece != name:
        raise UnusableError(f"token {number} of the prompt is {piece!r} at the server, {text!r} for the tokenizer")
