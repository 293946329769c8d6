"""Exposure and extraction of planted canaries by number of repetitions.

`memtax.canaries.plant` and `training/finetune_lora.py` plant random sequences in a training set, hold out others of the same
kind, and record both.
A canary's exposure (Carlini et al. 2019, arXiv 1802.08232) is log2 of the number of candidates minus log2 of the canary's
rank among them by likelihood. The candidates are the canary itself and all held-out sequences, so exposure lies between 0
and log2(held out + 1) bits; canaries that the model has not learned average about 1 / ln 2 = 1.44 bits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from memtax import statistics
from memtax.errors import MemtaxError
from memtax.membership.epsilon import from_one_run
from memtax.records import read_json_lines
from memtax.shapes import COUNT, Number, Rows

if TYPE_CHECKING:
    from memtax.lm.special_tokens import BosIds

_AT_MOST = 1e-9
"""Rounding tolerance, in bits, for an exposure to count as the maximum."""
FILES = {True: "canaries.member.jsonl", False: "canaries.nonmember.jsonl"}

_CANARY = {"tokens": Rows(Number(0, 2**31 - 1, whole=True)), "repetitions": COUNT, "coin?": bool, "start?": COUNT}
"""One line of the record."""


@dataclass(frozen=True)
class Canary:
    """A sequence whose number of repetitions in the training set is known.

    Attributes:
        tokens: its token ids.
        repetitions: number of times it occurs in the training set; 0 if it was held out.
        coin: whether a fair coin of its own decided if it was planted, once.
        start: place of the first token that is trained on, if the tokens before it are a prompt, BOS included; None: the tokens
            are a text without BOS.
    """

    tokens: tuple[int, ...]
    repetitions: int
    coin: bool = False
    start: int | None = None

    @property
    def scored(self) -> slice:
        """The tokens that are trained on, as far as they have a token before them."""
        return slice(max(1, self.start or 0), len(self.tokens))


def exposure(planted: npt.ArrayLike, held_out: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Exposure of each planted canary in bits: log2(candidates) - log2(rank).

    Args:
        planted: likelihood of each planted canary, on any scale (larger: more likely).
        held_out: likelihood of each held-out canary, on the same scale.

    Returns:
        One value per planted canary, from 0 to log2(held out + 1). A tie counts against the canary.

    Raises:
        MemtaxError: there are no held-out canaries, or a likelihood is NaN.
    """
    own, others = np.asarray(planted, float), np.sort(np.asarray(held_out, float))
    if not len(others):
        raise MemtaxError("no canary was held out, so the planted canaries cannot be ranked")
    if np.isnan(own).any() or np.isnan(others).any():
        raise MemtaxError("a canary's likelihood is NaN; the model's output cannot be used")
    rank = 1 + len(others) - np.searchsorted(others, own, side="left")
    return np.asarray(np.log2(len(others) + 1) - np.log2(rank))


def chance_exposure(held_out: int) -> float:
    """Mean exposure in bits of canaries that the model never saw, for which all ranks are equally likely."""
    return float(np.log2(held_out + 1) - np.log2(np.arange(1, held_out + 2)).mean())


def find_record(folder: Path | str) -> Path | None:
    """The folder with the plant record: `folder` itself or its subfolder `canaries`; None if neither has one."""
    for place in (Path(folder), Path(folder) / "canaries"):
        if (place / FILES[True]).is_file():
            return place
    return None


def read_record(folder: Path | str) -> list[Canary]:
    """Read the planted and then the held-out canaries.

    Args:
        folder: output folder of `training/finetune_lora.py`, or its subfolder `canaries`.

    Raises:
        MemtaxError: the record is missing, or one of its lines is invalid.
    """
    place = find_record(folder)
    if place is None:
        raise MemtaxError(f"{folder} has no record of planted canaries ({FILES[True]}); plant some with memtax.canaries.plant")
    found = []
    for member, name in FILES.items():
        if not (place / name).is_file():
            raise MemtaxError(f"{place / name} is missing: planted canaries are ranked among the held-out ones")
        for number, row in enumerate(read_json_lines(place / name, _CANARY), 1):
            canary = Canary(tuple(row["tokens"]), row["repetitions"], bool(row.get("coin")), row.get("start"))
            if canary.scored.start >= len(canary.tokens) or (canary.repetitions > 0) is not member:
                raise MemtaxError(
                    f"{place / name}, line {number}: {len(canary.tokens)} tokens, planted {canary.repetitions} times"
                )
            found.append(canary)
    return found


def read_out(
    canaries: Sequence[Canary],
    model: str,
    revision: str | None = None,
    dtype: str = "float32",
    bos: str | tuple[int, ...] = "auto",
    base: str | None = None,
    tokenizer: str | None = None,
) -> dict[str, Any]:
    """Exposure and extraction of every planted canary under a model, and the bound on epsilon if coins decided.

    A canary is extracted if greedy decoding from its prompt and its first half yields its second half. Canaries are ranked by
    the mean log-probability of their tokens after the prompt or else the first, minus that under the base model if it is known.

    Args:
        canaries: planted and held-out canaries, from `read_record`.
        model: folder or Hub name of a model or adapter.
        revision: branch, tag or commit on the Hub.
        dtype: number format of the weights.
        bos: one of `memtax.lm.special_tokens.BOS`, or token ids; canaries with a `start` are scored as recorded.
        base: the model before fine-tuning, with the same tokenizer, NAME@REVISION for a revision.
        tokenizer: tokenizer of a served model.

    Returns:
        As `summarize`, and `base` if it is given.

    Raises:
        MemtaxError: the model cannot be loaded, or cannot score a canary.
    """
    from memtax.filters.language_model import LanguageModelFilter
    from memtax.lm.loading import split_revision
    from memtax.lm.served_names import is_served

    if any(canary.start is not None for canary in canaries):
        bos = ()
    options: dict[str, Any] = {"dtype": dtype, "token_logprobs": True}
    scorer = LanguageModelFilter(model, revision, 1, 1, ranks=True, bos=bos, tokenizer=tokenizer, **options)
    rows = {"tokens": [list(canary.tokens) for canary in canaries]}
    if is_served(model):
        logprobs, missed = _of_server(model, rows["tokens"], scorer.opening, tokenizer)
    else:
        found = scorer(rows)
        # The most likely token has rank 0.
        logprobs, missed = found["token_logprobs"], found["token_ranks"]
    if any(not row for row in logprobs):
        raise MemtaxError(f"{model} cannot score a canary; were they planted with another tokenizer?")
    likelihood = _means(logprobs, canaries)
    if base is not None:
        name, base_revision = split_revision(base)
        untuned = LanguageModelFilter(name, base_revision, 1, 1, bos=scorer.opening, **options)
        likelihood = likelihood - _means(untuned(rows)["token_logprobs"], canaries)
    extracted = []
    for canary, row in zip(canaries, missed, strict=True):
        begin = canary.start or 0
        # Index i belongs to token i + 1.
        extracted.append(not any(row[max(canary.scored.start, begin + (len(canary.tokens) - begin) // 2) - 1 :]))
    return summarize(canaries, likelihood.tolist(), extracted) | ({} if base is None else {"base": base})


def _of_server(
    model: str, rows: list[list[int]], bos: "BosIds", tokenizer: str | None
) -> tuple[list[list[float]], list[list[bool]]]:
    """Log-probability of every token after the first of each row, and whether another one is more likely."""
    from memtax.lm import resident
    from memtax.lm.scores import score

    scores = score(resident.scorer(model, bos=bos, tokenizer=tokenizer), rows)
    if scores.unknown is not None and scores.unknown.any():
        raise MemtaxError(f"{model} does not say which token of a canary is the most likely one")
    logprobs = [[] if np.isnan(row).any() else row.tolist() for row in scores.split(scores.logprobs)]
    return logprobs, [(~row).tolist() for row in scores.split(scores.match)]


def _means(rows: Sequence[Sequence[float]], canaries: Sequence[Canary]) -> npt.NDArray[np.float64]:
    """Mean log-probability of each canary's tokens that are trained on; entry i of a row belongs to token i + 1."""
    pairs = zip(rows, canaries, strict=True)
    return np.array([np.mean(row[canary.scored.start - 1 :]) for row, canary in pairs])


def summarize(canaries: Sequence[Canary], likelihood: Sequence[float], extracted: Sequence[bool]) -> dict[str, Any]:
    """Exposure and extraction by number of repetitions.

    Args:
        canaries: planted and held-out canaries.
        likelihood: likelihood of each canary; larger is more likely.
        extracted: whether each canary was extracted.

    Returns:
        `planted` and `held_out` (counts), `most_bits` and `chance_bits` (maximum exposure, and mean exposure by chance),
        `by_repetitions` (one row per number of `repetitions`: `canaries`, `exposure` with mean, least and most, and
        `memorized`, `rate`, `low`, `high` with an exact interval; `low` and `high` of `exposure` bound its mean over canaries
        and are null with fewer than 10), `candidates` (held-out canaries and the canary itself),
        `held_out_extracted` (count), `each` (one row per canary), `epsilon` (of `memtax.membership.epsilon.from_one_run` over
        the canaries with a coin; null below 2 of them).
    """
    times = np.array([canary.repetitions for canary in canaries])
    score, hit = np.asarray(likelihood, float), np.asarray(extracted, bool)
    bits = exposure(score[times > 0], score[times == 0])
    planted, hits = times[times > 0], hit[times > 0]
    held_out = int((times == 0).sum())
    most = float(np.log2(held_out + 1))
    rows = []
    for repetitions in sorted(set(planted.tolist())):
        own = planted == repetitions
        rate = statistics.clopper_pearson(int(hits[own].sum()), int(own.sum()))
        # Canaries are drawn independently, so each is its own unit.
        mean = statistics.bounded_mean(bits[own], np.arange(own.sum()), 0.0, most)
        rows.append(
            {
                "repetitions": repetitions,
                "canaries": int(own.sum()),
                "exposure": {
                    "mean": float(bits[own].mean()),
                    "least": float(bits[own].min()),
                    "most": float(bits[own].max()),
                    "low": None if mean is None else mean.low,
                    "high": None if mean is None else mean.high,
                },
                "memorized": int(hits[own].sum()),
                "rate": rate.value,
                "low": rate.low,
                "high": rate.high,
            }
        )
    return {
        "planted": len(planted),
        "held_out": held_out,
        "candidates": held_out + 1,
        "most_bits": most,
        "chance_bits": chance_exposure(held_out),
        "by_repetitions": rows,
        "held_out_extracted": int(hit[times == 0].sum()),
        "epsilon": _epsilon(canaries, score.tolist()),
        "each": [
            {"repetitions": int(count), "exposure": float(value), "extracted": bool(yes)}
            for count, value, yes in zip(planted, bits, hits, strict=True)
        ],
    }


def _epsilon(canaries: Sequence[Canary], scores: Sequence[float]) -> dict[str, Any] | None:
    """The bound on epsilon over the canaries with a coin; None below 2 of them.

    The record lists planted canaries first, so equal scores are ordered by tokens, which do not depend on the coins.
    """
    tossed = sorted((c.tokens, score, c.repetitions > 0) for c, score in zip(canaries, scores, strict=True) if c.coin)
    if len(tossed) < 2:
        return None
    return from_one_run([score for _, score, _ in tossed], [planted for _, _, planted in tossed])


def conclusion(found: Mapping[str, Any]) -> str:
    """Summary sentences: which canaries are extracted, and the mean exposure for each number of repetitions."""
    rows, most = found["by_repetitions"], found["most_bits"]
    extracted = [f"{row['memorized']:,} of {row['canaries']:,} planted {_times(row)}" for row in rows if row["memorized"]]
    first = f"Canaries are extracted: {', '.join(extracted)}" if extracted else "No canary is extracted"
    stand = []
    for row in rows:
        mean, number = row["exposure"]["mean"], row["canaries"]
        top = most - row["exposure"]["least"] < _AT_MOST
        share = (
            f"all {number:,} at the maximum" if top and number > 1 else "1 canary" if number == 1 else f"{number:,} canaries"
        )
        stand.append(f"{mean:.1f} bits planted {_times(row)} ({share})")
    return (
        f"{first}. Mean exposure: {', '.join(stand)}; {found['chance_bits']:.1f} is expected by chance, and {most:.1f} is the "
        f"maximum with {found['candidates']:,} candidates"
    )


def _times(row: Mapping[str, Any]) -> str:
    return "once" if row["repetitions"] == 1 else f"{row['repetitions']:,} times"
