"""Influence with the exact inverse of the damped Gauss-Newton Hessian, in the span of the training gradients.

H = G^T G / n + lambda I, for n training gradients G (n, numbers), is the matrix whose inverse DataInf and LiSSA approximate.
By the push-through identity, V H^-1 G^T = n K_vt (n lambda I + K)^-1, with K = G G^T the training Gram matrix and K_vt the
inner products of test and training gradients: one Cholesky solve of (train, train), and H itself is never formed (Koh & Liang
2017, arXiv 1703.04730, equation 2, for this H; the same identity as in kernel ridge regression).
"""

import math

import numpy as np
import numpy.typing as npt

from memtax.errors import MemtaxError, ModelError

Matrix = npt.NDArray[np.float64]

RESOLUTION = 1e-6
"""Minimum default n lambda as a share of the trace of K, the precision of inner products of float32 gradients."""


def exact_damping(gram: Matrix, datainf_damping: float) -> float:
    """The default lambda: DataInf's, but n lambda is at least `RESOLUTION` times the trace of K.

    Without this floor, rounding would determine the influence along directions that no training gradient has: DataInf's lambda
    is a fraction 1 / (10 n D) of the trace for D numbers, which is below the precision of float32 for large tensors.

    Args:
        gram: (train, train), inner products of the training gradients of one tensor.
        datainf_damping: lambda of DataInf and LiSSA for the tensor.
    """
    return max(datainf_damping, RESOLUTION * float(np.trace(gram)) / max(len(gram), 1))


def check_damping(damping: float) -> None:
    """Check a lambda.

    Raises:
        MemtaxError: lambda is not a finite number above 0.
    """
    if not math.isfinite(damping) or damping <= 0:
        raise MemtaxError(f"damping={damping} must be a finite number above 0: without it H has no inverse")


def exact(gram: Matrix, cross: Matrix, damping: float) -> Matrix:
    """-<H^-1 g_j, g_i> = -n ((n lambda I + K)^-1 C)_ij.

    Args:
        gram: (train, train) K, inner products of the training gradients of one tensor.
        cross: (train, test) C, their inner products with the test gradients.
        damping: lambda.

    Returns:
        (train, test); negative is helpful.

    Raises:
        MemtaxError: lambda is not a finite number above 0, or too small for the precision of the inner products.
        ModelError: an inner product is not finite.
    """
    from scipy.linalg import LinAlgError, cho_factor, cho_solve

    check_damping(damping)
    if not (np.isfinite(gram).all() and np.isfinite(cross).all()):
        raise ModelError("the gradients' inner products are not finite; check the weights, or try dtype float32")
    n = len(gram)
    # K is symmetric up to rounding.
    matrix = (gram + gram.T) / 2
    matrix[np.diag_indices(n)] += n * damping
    try:
        factor = cho_factor(matrix, lower=True, check_finite=False)
    except LinAlgError as error:
        raise MemtaxError(
            f"damping={damping:g} is below the precision of the gradients' inner products; "
            f"use at least {RESOLUTION * float(np.trace(gram)) / n:.3g}, or dtype float32"
        ) from error
    influence: Matrix = -n * cho_solve(factor, cross, check_finite=False)
    return influence
