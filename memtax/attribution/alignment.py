"""Gradient alignment: similarity of the gradients at a text and at its paraphrases (Paramem).

If a model has learned the meaning of a text rather than its wording, its paraphrases change the model in the same direction.
The cosine between the two gradients is computed for every tensor of a parameter set and averaged over the tensors; the inner
product of the definition is summed over them. Larger means more likely a member.
"""

import functools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import datasets
import numpy as np
import pyarrow as pa

from memtax import statistics
from memtax.attribution.alignment_memorization import agreement
from memtax.errors import MemtaxError, RowError
from memtax.filters.base import Batch, Filter
from memtax.lm.loading import load_tokenizer, model_files
from memtax.lm.placement import check_gradients, settled_dtype
from memtax.lm.special_tokens import BosIds, bos_ids, bos_of, check_bos, text_ids, text_positions, without_bos
from memtax.membership.estimates import attack_metrics
from memtax.provenance import digest

ROWS_PER_BATCH = 16
"""Texts per filter call, independent of the number of processes."""
BATCHES_PER_PART = 4

HIGH, LOW = 0.7, 0.3
"""Levels used in reports (Paramem): above .7 high, below .3 low, between medium."""


@dataclass(frozen=True)
class Alignment:
    """Alignment of one text; None if it, or a paraphrase, is missing or has no token to predict.

    Attributes:
        cosines: for each paraphrase, the mean over tensors of the cosine with the text's gradient.
        inner_products: for each paraphrase, the inner product with the text's gradient, over all tensors.
        norm: norm of the text's gradient, over all tensors.
    """

    cosines: tuple[float | None, ...]
    inner_products: tuple[float | None, ...]
    norm: float | None

    @property
    def used(self) -> int:
        """Number of paraphrases that have a cosine."""
        return sum(value is not None for value in self.cosines)

    @property
    def cosine(self) -> float | None:
        """Mean over the valid paraphrases."""
        return _mean(self.cosines)

    @property
    def inner_product(self) -> float | None:
        """Mean over the valid paraphrases."""
        return _mean(self.inner_products)


Group = tuple[Sequence[int], Sequence[Sequence[int] | None]]
"""Tokens of a text, and of each of its paraphrases (None: missing)."""


def align(
    model: Any, groups: Sequence[Group], *, parameters: str = "embeddings+head", batch_size: int | None = None
) -> list[Alignment]:
    """Alignment of each text with its paraphrases.

    Args:
        model: a `transformers` causal language model, or a PEFT model around one.
        groups: texts with their paraphrases, as tokens.
        parameters: one of `memtax.lm.gradients.PARAMETERS`.
        batch_size: sequences per pass, at least 1; None finds what fits.

    Returns:
        One result per group, in order.

    Raises:
        ModelError: a text is invalid for the model, the parameters are missing, or gradients are NaN.
    """
    from memtax.lm.gradients import BATCH_TOKENS, capture

    found: list[Alignment] = []
    longest = max((len(tokens) for text, given in groups for tokens in (text, *_present(given))), default=1)
    fixed = None if batch_size is None else batch_size * max(longest + len(bos_of(model)), 1)
    most = fixed or BATCH_TOKENS["cpu" if model.device.type == "cpu" else "accelerator"]
    for pack in _packs(groups, most):
        sequences = [tokens for text, paraphrases in pack for tokens in (text, *_present(paraphrases))]
        try:
            gradients = capture(model, sequences, parameters=parameters, keep_errors=batch_size is None, batch_tokens=fixed)
        except RowError as error:
            owners = [number for number, (_, given) in enumerate(pack) for _ in range(1 + len(_present(given)))]
            raise error.at(len(found) + owners[error.row]) from error
        start, stars = 0, []
        for _, paraphrases in pack:
            part = gradients.part(start, start + 1 + len(_present(paraphrases)))
            stars.append((part.begin_star(), part.targets, paraphrases))
            start += len(part)
        found += [_align_one(star(), targets, paraphrases) for star, targets, paraphrases in stars]
    for row, one in enumerate(found):
        if any(value is not None and not math.isfinite(value) for value in (one.norm, *one.inner_products)):
            raise RowError("the gradients at {row} are not numbers (NaN); check the weights, or try dtype float32", row)
    return found


def _align_one(
    star: tuple[dict[str, Any], dict[str, Any]], targets: Sequence[int], paraphrases: Sequence[Sequence[int] | None]
) -> Alignment:
    """The alignment of the first example with the others, from `Gradients.star` and their numbers of targets."""
    norms, first = star
    squares, products = np.stack(list(norms.values())), np.stack(list(first.values()))
    scales = np.sqrt(np.maximum(squares, 0) * np.maximum(squares[:, :1], 0))
    has = np.array(targets) > 0
    cosines: list[float | None] = []
    inner: list[float | None] = []
    place = 0
    for tokens in paraphrases:
        place += tokens is not None
        valid = tokens is not None and has[0] and has[place]
        moved = scales[:, place] != 0
        inner.append(float(products[:, place].sum()) if valid else None)
        # A tensor with zero gradient has no direction.
        ratios = products[moved, place] / scales[moved, place]
        cosines.append(float(np.clip(ratios, -1, 1).mean()) if valid and moved.any() else None)
    norm = float(np.sqrt(max(squares[:, 0].sum(), 0))) if has[0] else None
    return Alignment(tuple(cosines), tuple(inner), norm)


@dataclass(frozen=True)
class AlignmentFilter(Filter):
    """Gradient alignment of each text with its paraphrases, and the norm of its gradient.

    Args:
        model: folder or Hub name of the model.
        revision: branch, tag or commit on the Hub.
        parameters: one of `memtax.lm.gradients.PARAMETERS`.
        tokenizer: folder or Hub name; None takes the model's.
        length: maximum tokens in a text or paraphrase; None uses the model's positions.
        dtype: dtype of the weights, one of `memtax.lm.placement.DTYPES`.
        bos: one of `memtax.lm.special_tokens.BOS`, or token ids.
        device_map: `auto` spreads a model over several devices; None uses one device.
        quantization: None; quantized weights have no gradients.
        batch_size: texts and paraphrases per pass; None finds what fits.
    """

    model: str
    revision: str | None = None
    parameters: str = "embeddings+head"
    tokenizer: str | None = None
    length: int | None = None
    dtype: str = "float32"
    bos: str | tuple[int, ...] = "auto"
    device_map: str | None = None
    quantization: str | None = None
    batch_size: int | None = None

    name: ClassVar[str] = "alignment"
    requires: ClassVar[tuple[str, ...]] = ("text", "paraphrases")
    columns: ClassVar[tuple[str, ...]] = (
        "gradient_alignment",
        "gradient_inner_product",
        "paraphrase_alignments",
        "paraphrase_inner_products",
        "paraphrases_used",
        "gradient_norm",
        "is_cut",
    )
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", settled_dtype(self.dtype))
        if self.length is not None and self.length < 2:
            raise MemtaxError(f"length={self.length} leaves no token to predict; it must be at least 2")
        check_bos(self.bos)
        check_gradients(self.quantization)

    @property
    def opening(self) -> BosIds:
        """Token ids put before every row."""
        return bos_ids(self.model, self.revision, self.bos, self.tokenizer)

    def inputs(self) -> Iterable[str]:
        """The model's configuration and weights, and the tokenizer."""
        return [*model_files(self.model), *_tokenizer_files(self.tokenizer or self.model)]

    @functools.cached_property
    def weights(self) -> str:
        """Digest of the weights, cached so that all batches share it."""
        from memtax.lm import resident

        return resident.weights_digest(self.model)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Same as for every filter, with the BOS in use; cached, because the weights may be many gigabytes."""
        _ = self.weights
        return digest(super().fingerprint, self.opening)

    def compute(self, batch: Batch) -> Batch:
        """Align a batch of texts; a paraphrase that is null, or equals the text, has no alignment."""
        from memtax.lm import resident

        opening = self.opening
        placement = resident.Placement(self.dtype, self.device_map, self.quantization)
        model = resident.get(self.model, self.revision, placement, opening, expected=self.weights)
        tokenizer = load_tokenizer(self.tokenizer or self.model, None if self.tokenizer else self.revision)
        longest = min((most for most in (self.length, text_positions(model)) if most is not None), default=None)

        def encode(text: str) -> list[int]:
            return list(without_bos(text_ids(tokenizer, [text])[0], opening))

        groups, cut = [], []
        for text, paraphrases in zip(batch["text"], batch["paraphrases"], strict=True):
            tokens = [None if one is None or one == text else encode(one) for one in paraphrases or ()]
            whole = encode(text or "")
            cut.append(longest is not None and any(len(one) > longest for one in (whole, *_present(tokens))))
            groups.append((whole[:longest], [None if one is None else one[:longest] for one in tokens]))
        found = align(model, groups, parameters=self.parameters, batch_size=self.batch_size)
        return {
            "gradient_alignment": [one.cosine for one in found],
            "gradient_inner_product": [one.inner_product for one in found],
            "paraphrase_alignments": [list(one.cosines) for one in found],
            "paraphrase_inner_products": [list(one.inner_products) for one in found],
            "paraphrases_used": [one.used for one in found],
            "gradient_norm": [one.norm for one in found],
            "is_cut": cut,
        }


def summarize(rows: datasets.Dataset, table: pa.Table, function: AlignmentFilter) -> dict[str, Any]:
    """Counts of texts and paraphrases, the mean, texts per level; association of alignment with membership and memorization."""
    values = [value for value in table.column("gradient_alignment").to_pylist() if value is not None]
    pairs = list(zip(rows["text"], rows["paraphrases"], strict=True))
    given = [(text, one) for text, paraphrases in pairs for one in paraphrases or ()]
    return {
        "model": function.model,
        "parameters": function.parameters,
        "bos": list(function.opening),
        "texts": len(pairs),
        "aligned": len(values),
        "mean": _mean(values),
        "levels": {
            "high": sum(value > HIGH for value in values),
            "medium": sum(LOW <= value <= HIGH for value in values),
            "low": sum(value < LOW for value in values),
        },
        "paraphrases": {
            "given": len(given),
            "used": sum(table.column("paraphrases_used").to_pylist()),
            "missing": sum(one is None for _, one in given),
            "identical_to_the_text": sum(one is not None and one == text for text, one in given),
        },
        "cut": sum(table.column("is_cut").to_pylist()),
        "membership": _membership(rows, table),
        "memorization": agreement(rows.data.table.append_column("gradient_alignment", table.column("gradient_alignment"))),
    }


def _membership(rows: datasets.Dataset, table: pa.Table) -> dict[str, Any]:
    """How well alignment separates members from non-members, with intervals over documents or texts; empty without both."""
    if "is_member" not in rows.column_names:
        return {}
    values = [*zip(rows["is_member"], table.column("gradient_alignment").to_pylist(), strict=True)]
    kept = [place for place, (label, value) in enumerate(values) if label is not None and value is not None]
    labels, scores = [bool(values[place][0]) for place in kept], [values[place][1] for place in kept]
    if len(set(labels)) < 2:
        return {}
    documents = rows["document"] if "document" in rows.column_names else None
    texts = rows["text"] if "text" in rows.column_names else None
    codes = statistics.unit_codes(documents, texts, rows=len(rows))[kept]
    unit = "texts" if documents is None or all(name is None for name in documents) else "documents"
    metrics = attack_metrics(labels, scores, units=codes, unit=unit)
    found: dict[str, Any] = {"members": sum(labels), "non-members": len(labels) - sum(labels)}
    found["units"] = {"name": unit, **metrics["units"]}
    return found | {name: metrics[name] for name in ("auroc", "fpr_at_tpr_0.95", "tpr_at_fpr_0.05")}


def _packs(groups: Sequence[Group], most: int) -> Iterator[list[Group]]:
    """Batches of consecutive groups; a larger group forms its own batch."""
    pack: list[Group] = []
    count = longest = 0
    for group in groups:
        length = max(map(len, sequences := (group[0], *_present(group[1]))))
        if pack and (count + len(sequences)) * max(longest, length) > most:
            yield pack
            pack, count, longest = [], 0, 0
        pack.append(group)
        count, longest = count + len(sequences), max(longest, length)
    if pack:
        yield pack


def _present(paraphrases: Sequence[Sequence[int] | None]) -> list[Sequence[int]]:
    return [tokens for tokens in paraphrases if tokens is not None]


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _tokenizer_files(path: str) -> list[str]:
    folder = Path(path)
    return sorted(str(file) for file in folder.glob("token*.json")) if folder.is_dir() else [path]
