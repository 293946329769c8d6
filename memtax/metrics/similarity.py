"""Agreement of given gradient vectors, for the module `gradient_alignment`; whole models use gradient kernels."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from memtax.errors import MemtaxError


def agreements(
    paraphrases: Sequence[Sequence[Any] | None], gradients: Sequence[Sequence[float]] | None, tensors: Sequence[int] | None
) -> dict[str, list[float | None]]:
    """Alignment of each text with its paraphrases.

    Args:
        paraphrases: for each text, the cosines of its paraphrases, or their gradient vectors.
        gradients: the texts' own gradient vectors, if paraphrases are vectors.
        tensors: sizes of the tensors in a vector; None: one tensor.

    Returns:
        `alignment` (mean cosine, over paraphrases and tensors) and, from gradients, `inner_product` (its mean over
        paraphrases): one value per text, None without paraphrases.

    Raises:
        MemtaxError: a cosine is outside [-1, 1] or NaN, vectors differ in length or are zero, or gradients are missing.
    """
    vectors = any(isinstance(value, list) for row in paraphrases for value in row or ())
    if vectors and gradients is None:
        raise MemtaxError("predictions are gradients; gradients of the texts themselves are needed as well")
    if gradients is not None and not vectors and any(paraphrases):
        raise MemtaxError("predictions are cosines already; leave gradients out")
    alignment: list[float | None] = []
    products: list[float | None] = []
    for number, row in enumerate(paraphrases):
        if not row:
            alignment.append(None)
            products.append(None)
        elif gradients is not None:
            cosine, product = _compare(number, np.asarray(gradients[number], np.float64), row, tensors)
            alignment.append(cosine)
            products.append(product)
        else:
            alignment.append(float(np.mean([_cosine(number, value) for value in row])))
    return {"alignment": alignment, **({"inner_product": products} if gradients is not None else {})}


def mean(column: Sequence[float | None]) -> float | None:
    """Mean of the known values, None if there are none."""
    known = [value for value in column if value is not None]
    return float(np.mean(known)) if known else None


def _cosine(number: int, value: float | None) -> float:
    # Rounding may put cosines of float32 gradients slightly above 1.
    if value is None or not abs(value) <= 1 + 1e-5:
        raise MemtaxError(f"predictions contain {value} in row {number}; a cosine must be in [-1, 1]")
    return value


def _compare(number: int, own: Any, rows: Sequence[Sequence[float]], tensors: Sequence[int] | None) -> tuple[float, float]:
    sizes = list(tensors) if tensors is not None else [len(own)]
    if own.ndim != 1 or not len(own) or sum(sizes) != len(own) or any(size < 1 for size in sizes):
        raise MemtaxError(f"the gradient in row {number} has {own.size} values, tensors of {sizes} need {sum(sizes)}")
    if any(len(row) != len(own) for row in rows):
        raise MemtaxError(f"gradients in row {number} differ in length: {len(own)} and {[len(row) for row in rows]}")
    others = np.asarray(rows, np.float64)
    if not (np.isfinite(own).all() and np.isfinite(others).all()):
        raise MemtaxError(f"gradients in row {number} contain NaN or infinity")
    cosines = []
    for part in np.split(np.arange(len(own)), np.cumsum(sizes)[:-1]):
        norms = np.linalg.norm(own[part]) * np.linalg.norm(others[:, part], axis=1)
        if not norms.all():
            raise MemtaxError(f"a gradient in row {number} is zero; it has no direction")
        cosines.append(others[:, part] @ own[part] / norms)
    return float(np.mean(cosines)), float(np.mean(others @ own))


def levels(values: Sequence[float], low: float, high: float) -> dict[str, list[bool]]:
    """Whether each alignment is above `high`, below `low`, or between (Paramem's levels)."""
    above, below = [value > high for value in values], [value < low for value in values]
    return {"high": above, "low": below, "medium": [not (one or other) for one, other in zip(above, below, strict=True)]}
