"""Newton's method for many penalized logistic regressions on subsets of the same rows.

One pass over the chosen rows gives the loss, its gradient and its Hessian. Rows are gathered into blocks that stay in the
first-level cache, where everything is a loop over contiguous numbers that the compiler turns into vector instructions.
The compiled passes release the interpreter lock: threads share out the fits, and each fit is the same to the bit whatever
their number.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memtax.compiled import kernel
from memtax.errors import MemtaxError

Array = NDArray[np.float64]

FAST = {"reassoc", "contract", "arcp", "nsz"}
"""Compiler flags that allow sums to be reordered; values that are not finite are kept."""
BLOCK = 256
"""Rows gathered at once: with fifteen columns, about the size of the first-level cache."""
BLOCKS = 16
"""Blocks summed by one task."""

TOLERANCE = 1e-6
"""Largest last step of a coefficient. Convergence is quadratic, so what is left after it is about its square."""
MOST_STEPS = 100


@dataclass(frozen=True, eq=False)
class Fit:
    """Coefficients (columns,), intercept, and the number of Newton steps.

    Attributes:
        coefficients: one per column.
        intercept: in log odds.
        steps: Newton steps that were made.
    """

    coefficients: Array
    intercept: float
    steps: int


def fit(
    values: Array,
    labels: NDArray[np.uint8],
    rows: NDArray[np.int64],
    start: Fit | None = None,
    penalty: float = 1.0,
    most: int = MOST_STEPS,
) -> Fit:
    """The optimum that scikit-learn's `LogisticRegression(C=1 / penalty)` approaches; the intercept is not penalized.

    Args:
        values: (all rows, columns) float64, contiguous, standardized.
        labels: (all rows,) 0 or 1.
        rows: the rows to fit, both classes among them.
        start: where to start; None starts at 0.
        penalty: the L2 penalty is half of this times the sum of squared coefficients.
        most: steps after which there is no convergence.

    Raises:
        MemtaxError: a class is missing, or the method does not converge (values that are not finite or far from standardized).
    """
    positives = int(labels[rows].sum())
    if not 0 < positives < len(rows):
        raise MemtaxError(f"{positives} of {len(rows)} rows are positive; rows of both classes are needed")
    columns = values.shape[1]
    beta = np.zeros(columns + 1) if start is None else np.append(start.coefficients, start.intercept)
    ridge = np.append(np.full(columns, penalty), 0.0)
    loss, gradient, hessian = _derivatives(values, labels, rows, beta, ridge)
    for count in range(1, most + 1 if np.isfinite(loss) else 1):
        step = np.linalg.solve(hessian, gradient)
        length = 1.0
        while True:
            candidate = beta - length * step
            new_loss, new_gradient, new_hessian = _derivatives(values, labels, rows, candidate, ridge)
            # Rounding of a sum of n terms must not look like a step uphill.
            if new_loss <= loss + 1e-12 * abs(loss) or length < 1e-6:
                break
            length /= 2
        beta, loss, gradient, hessian = candidate, new_loss, new_gradient, new_hessian
        if not np.isfinite(loss):
            break
        if length * np.abs(step).max() <= TOLERANCE:
            return Fit(beta[:-1], float(beta[-1]), count)
    raise MemtaxError(f"a logistic regression on {len(rows)} rows does not converge; are the columns finite and standardized?")


def logits(values: Array, rows: NDArray[np.int64], fitted: Fit) -> Array:
    """Log odds (rows,) of the chosen rows."""
    return _logits(values, rows, np.append(fitted.coefficients, fitted.intercept))


def _derivatives(
    values: Array, labels: NDArray[np.uint8], rows: NDArray[np.int64], beta: Array, ridge: Array
) -> tuple[float, Array, Array]:
    sums = _sums(values, labels, rows, beta).sum(axis=0)
    size = len(beta)
    gradient = sums[1 : 1 + size] + ridge * beta
    hessian = np.zeros((size, size))
    hessian[np.tril_indices(size)] = sums[1 + size :]
    hessian += np.tril(hessian, -1).T
    hessian[np.diag_indices(size)] += ridge
    return float(sums[0] + (ridge * beta * beta).sum() / 2), gradient, hessian


@kernel(fastmath=FAST, error_model="numpy")
def _sums(values: Array, labels: NDArray[np.uint8], rows: NDArray[np.int64], beta: Array) -> Array:
    """Loss, gradient and lower triangle of the Hessian, summed by task: (tasks, 1 + size + size (size + 1) / 2)."""
    size = len(beta)
    per_task = BLOCK * BLOCKS
    tasks = (len(rows) + per_task - 1) // per_task
    result = np.zeros((tasks, 1 + size + size * (size + 1) // 2))
    block = np.ones((size, BLOCK))  # the last column stays 1: the intercept's
    eta, error, weight, product = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
    bits = np.empty(BLOCK, np.int64)
    for task in range(tasks):
        sums = result[task]
        for first in range(task * per_task, min((task + 1) * per_task, len(rows)), BLOCK):
            used = min(BLOCK, len(rows) - first)
            for i in range(used):
                row = rows[first + i]
                eta[i], error[i] = 0.0, labels[row]
                for j in range(size - 1):
                    block[j, i] = values[row, j]
            for j in range(size):
                for i in range(used):
                    eta[i] += beta[j] * block[j, i]
            sums[0] += _link(eta, error, weight, bits, used)
            place = 1 + size
            for j in range(size):
                total = 0.0
                for i in range(used):
                    product[i] = weight[i] * block[j, i]
                    total += error[i] * block[j, i]
                sums[1 + j] += total
                for other in range(j + 1):
                    sums[place] += _dot(product, block[other], used)
                    place += 1
    return result


@kernel(fastmath=FAST, error_model="numpy")
def _dot(a: Array, b: Array, used: int) -> float:
    total = 0.0
    for i in range(used):
        total += a[i] * b[i]
    return total


@kernel(fastmath=FAST, error_model="numpy")
def _link(eta: Array, error: Array, weight: Array, bits: NDArray[np.int64], used: int) -> float:
    """The block's log loss; turns labels in `error` into p - label, and fills `weight` with p (1 - p)."""
    power = bits.view(np.float64)
    # exp(-|eta|) = 2^k exp(r), |r| <= ln(2) / 2: a series to the last bit, and k put into the exponent.
    for i in range(used):
        x = max(-abs(eta[i]), -700.0)
        k = np.floor(x * 1.4426950408889634 + 0.5)
        r = (x - k * 0.693147180369123816490) - k * 1.90821492927058770002e-10
        bits[i] = (np.int64(k) + 1023) << 52
        p = 1.0 / 6227020800.0
        for inverse in (
            1.0 / 479001600.0, 1.0 / 39916800.0, 1.0 / 3628800.0, 1.0 / 362880.0, 1.0 / 40320.0, 1.0 / 5040.0,
            1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0,
        ):  # fmt: skip
            p = p * r + inverse
        weight[i] = p
    loss, factor = 0.0, 1.0
    for i in range(used):
        e = weight[i] * power[i]
        loss += max(eta[i], 0.0) - error[i] * eta[i]
        factor *= 1.0 + e  # at most 2^256: the logarithm is taken once per block
        inverse = 1.0 / (1.0 + e)
        weight[i] = e * inverse * inverse
        error[i] = (inverse if eta[i] >= 0 else e * inverse) - error[i]
    return loss + np.log(factor)


@kernel()
def _logits(values: Array, rows: NDArray[np.int64], beta: Array) -> Array:
    columns = len(beta) - 1
    result = np.empty(len(rows))
    for i in range(len(rows)):
        total = beta[columns]
        for j in range(columns):
            total += beta[j] * values[rows[i], j]
        result[i] = total
    return result
