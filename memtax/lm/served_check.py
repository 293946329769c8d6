"""The self-check of a served model: are its log-probabilities those of the tokens sent?

Each of the checks finds a fault that some servers have: log-probabilities of generated tokens only, of other tokens than
those sent (another tokenizer, a BOS that was added or left out), shifted by one place, or of the most likely tokens only.
"""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from memtax import http_json
from memtax.errors import ModelError
from memtax.lm.served_answers import Answer, UnusableError

if TYPE_CHECKING:
    from memtax.lm.served import Form, ServedModel

TOKENS = 16
"""Tokens of a probe."""
GENERATED = 8
ATTEMPTS = 6
"""Generations, until enough tokens are compared."""
COMPARED = 4
"""Fewest generated tokens to compare."""
TOLERANCE = 0.1
"""Median difference in nats between a generated token's log-probability and that of the same token in a prompt; decoding and
reading use other kernels, in 16-bit formats."""
_TRIES = 200
_FLOOR = -20.0


def choose_form(model: "ServedModel") -> None:
    """Set `model.form` to the first form that the server has, and check its values.

    Raises:
        ModelError: the server has none, or fails a check.
    """
    from memtax.lm.served import FORMS, check_key

    reasons: dict[Form, str] = {}
    for form in FORMS:
        model.form = form
        probe = _probe(model, 0)
        try:
            answer = model.ask(probe)
        except (UnusableError, http_json.RefusedError, http_json.UnansweredError) as error:
            if isinstance(error, http_json.RefusedError):
                check_key(model.name, error)
            reasons[form] = str(error)
            continue
        if answer is None:
            reasons[form] = "no text gives the tokens of a probe"
            continue
        try:
            _check(model, probe, answer)
        except (UnusableError, http_json.RefusedError, http_json.UnansweredError) as error:
            raise ModelError(f"{model.name} failed the self-check ({form}): {error}") from error
        return
    told = "; ".join(f"{form}: {reason}" for form, reason in reasons.items())
    raise ModelError(f"{model.name} gives no usable log-probabilities of a prompt: {told}")


def _probe(model: "ServedModel", seed: int) -> list[int]:
    """Unlikely tokens whose text has the same tokens."""
    rng = np.random.default_rng(seed)
    tokenizer = model.tokenizer
    special = set(tokenizer.all_special_ids)
    probe: list[int] = []
    for token in rng.permutation(len(tokenizer))[:_TRIES].tolist():
        text = tokenizer.decode([token])
        if token not in special and text.isascii() and text.strip() and model.text_of([*probe, token]) is not None:
            probe.append(token)
        if len(probe) == TOKENS:
            break
    return (
        probe if len(probe) > 2 else list(tokenizer("A lazy dog sleeps; 13 foxes run.", add_special_tokens=False)["input_ids"])
    )


def _check(model: "ServedModel", probe: list[int], answer: Answer) -> None:
    _check_bos(model, probe, answer)
    _check_values(probe, answer)
    _check_ends(model, probe, answer)
    _check_generation(model, probe)


def _check_bos(model: "ServedModel", probe: list[int], answer: Answer) -> None:
    from memtax.lm.special_tokens import bos_of

    bos = len(bos_of(model))
    if answer.prompt_tokens is None:
        if model.sends_text and len(answer.logprobs) != len(probe):
            raise UnusableError("it does not say how many tokens it read, so a BOS cannot be accounted for")
        return
    more = answer.prompt_tokens - len(probe) - bos
    if more and model.sends_text and answer.prompt_tokens == len(probe):
        raise UnusableError("it puts no BOS before a text, but the tokenizer does; use --bos never")
    if more > 0 and model.sends_text and not bos:
        raise UnusableError("it puts a BOS before every text, but the tokenizer does not; use --bos always")
    if more:
        raise UnusableError(f"it read {answer.prompt_tokens} tokens where {len(probe) + bos} were sent (with BOS)")


def _own(probe: list[int], values: list[float]) -> np.ndarray:
    """Values of the probe's tokens after its first."""
    return np.array(values[len(values) - len(probe) + 1 :], np.float64)


def _check_values(probe: list[int], answer: Answer) -> None:
    values, best = _own(probe, answer.logprobs), _own(probe, answer.best)
    if np.isinf(values).any():
        raise UnusableError(f"{int(np.isinf(values).sum())} of {len(values)} tokens have no log-probability")
    lowest = values.min()
    if lowest < _FLOOR and (values == lowest).sum() > 1:
        raise UnusableError(f"{int((values == lowest).sum())} of {len(values)} tokens have the same log-probability {lowest:g}")
    if len(values) > 3 and (values >= best).all():
        raise UnusableError("it calls every token of a random sequence the most likely one")


def _check_ends(model: "ServedModel", probe: list[int], answer: Answer) -> None:
    """Another last token changes its own log-probability, and no other."""
    values = _own(probe, answer.logprobs)
    differs = False
    for other in probe[:3]:
        changed = [*probe[:-1], other]
        found = model.ask(changed) if other != probe[-1] else None
        if found is None:
            continue
        theirs = _own(changed, found.logprobs)
        if not np.allclose(theirs[:-1], values[:-1], rtol=0.02, atol=TOLERANCE):
            raise UnusableError("the last token of a prompt changes the log-probabilities of those before it")
        differs |= bool(abs(theirs[-1] - values[-1]) > 1e-6)
    if not differs:
        raise UnusableError("the log-probability of the last token does not depend on that token; they are shifted or missing")


def _check_generation(model: "ServedModel", probe: list[int]) -> None:
    """Tokens that the server generated have the same log-probabilities when they are read."""
    differences: list[float] = []
    for seed in range(ATTEMPTS):
        start = probe[: TOKENS // 2 + seed]
        made = model.ask(start, GENERATED, seed)
        if made is None or not made.generated:
            continue
        differences += _differences(model, start, made)
        if len(differences) >= COMPARED and seed >= 1:
            break
    if len(differences) < COMPARED:
        raise UnusableError("too few generated tokens could be read again to compare their log-probabilities")
    median = float(np.median(differences))
    if median > TOLERANCE:
        raise UnusableError(
            f"generated tokens have other log-probabilities when they are read (median difference {median:.2g})"
        )


def _differences(model: "ServedModel", start: list[int], made: Answer) -> list[float]:
    """Absolute differences for the generated tokens that can be read again."""
    for count in range(len(made.generated), 0, -1):
        ids = _ids(model, start, made.generated[:count])
        if ids is None:
            continue
        read = model.ask([*start, *ids])
        if read is None:
            continue
        again = np.array(read.logprobs[-count:], np.float64)
        ours = np.array(made.generated_logprobs[:count], np.float64)
        return [min(float(value), math.inf) for value in np.abs(again - ours)]
    return []


def _ids(model: "ServedModel", start: list[int], pieces: list[str]) -> list[int] | None:
    """Token ids of generated tokens; None if their text has other tokens."""
    if all(piece.startswith("token_id:") for piece in pieces):
        return [int(piece.removeprefix("token_id:")) for piece in pieces]
    before: Any = model.text_of(start)
    if before is None or any("\ufffd" in piece or not piece for piece in pieces):
        return None
    ids = list(model.tokenizer(before + "".join(pieces), add_special_tokens=False)["input_ids"])
    return ids[len(start) :] if ids[: len(start)] == start and len(ids) == len(start) + len(pieces) else None
