"""Covariance of logistic coefficients whose rows come in units, and tests that hold with few and unequal units."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from memtax.predictor.logistic import Array

SMALL = 0.01
"""Leverage of a unit up to which two terms of a series stand for a solve: the error is below its third power."""
LARGEST = 0.999
"""Largest share of what a coefficient rests on that one unit may hold; one that holds more gets a huge variance instead."""
FEWEST_FREEDOM = 1.0


@dataclass(frozen=True, eq=False)
class RobustFit:
    """A maximum-likelihood fit with the jackknife covariance over units (CR3; Bell & McCaffrey 2002).

    Leaving unit g out moves the estimate, to first order, by (H - A_g)^-1 s_g, H the information of all rows, A_g that of
    the unit and s_g the sum of its scores; the covariance is (G - 1) / G times the sum of their outer products. With each row
    its own unit this is HC3 (MacKinnon & White 1985), up to the factor.

    Attributes:
        estimate: (columns,) coefficients.
        design: (rows, columns), the intercept among them.
        labels: (rows,) the target.
        units: (rows,) codes from 0 without gaps.
    """

    estimate: Array
    design: Array
    labels: NDArray[np.bool_]
    units: NDArray[np.int64]

    @cached_property
    def number(self) -> int:
        """Number of units."""
        return int(self.units.max()) + 1

    @cached_property
    def _fitted(self) -> tuple[Array, Array, Array]:
        """Weights and residuals (rows,) and the inverse of the information (columns, columns)."""
        from scipy.special import expit

        p = expit(self.design @ self.estimate)
        weights = p * (1 - p)
        inverse: Array = np.linalg.inv((self.design.T * weights) @ self.design).astype(np.float64)
        return weights, self.labels - p, inverse

    @cached_property
    def covariance(self) -> Array:
        """(columns, columns)."""
        moves = self._moves()
        result: Array = (moves.T @ moves) * ((self.number - 1) / self.number)
        return result

    def freedom(self, contrast: Array) -> float:
        """Degrees of freedom of the variance of a contrast (columns,) of the coefficients.

        (sum v)^2 / sum v^2 - 1 (Satterthwaite), v_g the variance of what unit g adds to the contrast where Pearson residuals
        of one unit correlate by r, estimated by their moments (Imbens & Kolesar 2016).
        """
        weights, _, inverse = self._fitted
        pull = (self.design @ (inverse @ contrast)) * np.sqrt(weights)
        own = np.bincount(self.units, pull**2, self.number)
        shared = np.bincount(self.units, pull, self.number) ** 2
        parts = own * (1 - self._correlation) + shared * self._correlation
        return max(FEWEST_FREEDOM, float(parts.sum() ** 2 / (parts**2).sum()) - 1)

    def wald(self, restrictions: NDArray[np.int64]) -> tuple[float, float, float]:
        """F test that the coefficients of the given columns are all 0.

        Args:
            restrictions: column numbers, at least one.

        Returns:
            The statistic F, its denominator's degrees of freedom (0 or less: the units are too few), and p. With v degrees
            of freedom of the variances, Hotelling's T^2: F = W (v - q + 1) / (v q) on q and v - q + 1.
        """
        from scipy.stats import f

        size, columns = len(restrictions), self.design.shape[1]
        # The least sure of the variances decides.
        freedom = min(self.freedom(np.eye(columns)[column]) for column in restrictions)
        below = freedom - size + 1
        if below <= 0:
            return float("nan"), below, float("nan")
        block = self.covariance[np.ix_(restrictions, restrictions)]
        part = self.estimate[restrictions]
        statistic = max(0.0, float(part @ np.linalg.solve(block, part))) * below / (freedom * size)
        return statistic, below, float(f.sf(statistic, size, below))

    @cached_property
    def _correlation(self) -> float:
        """Correlation of Pearson residuals within units, between 0 and 1."""
        weights, residuals, _ = self._fitted
        pearson = residuals / np.sqrt(np.maximum(weights, 1e-12))
        # A rare row of tiny probability would decide alone.
        pearson = np.clip(pearson, -5, 5)
        sums = np.bincount(self.units, pearson, self.number)
        sizes = np.bincount(self.units, minlength=self.number).astype(np.float64)
        spread, pairs = float((pearson**2).mean()), float((sizes * (sizes - 1)).sum())
        if pairs * spread == 0:
            return 0.0
        return min(max(float((sums**2).sum() - (pearson**2).sum()) / (pairs * spread), 0.0), 1.0)

    def _moves(self) -> Array:
        """(units, columns): how far the estimate moves when the unit is left out."""
        weights, residuals, inverse = self._fitted
        leverage = np.bincount(self.units, ((self.design @ inverse) * self.design).sum(axis=1) * weights, self.number)
        first = self._sum(residuals) @ inverse
        second = self._sum(weights * (self.design * first[self.units]).sum(axis=1)) @ inverse
        moves = first + second
        large = np.flatnonzero(leverage > SMALL)
        order = np.argsort(self.units, kind="stable")
        ends = np.cumsum(np.bincount(self.units, minlength=self.number))
        root = np.linalg.cholesky(inverse)
        for unit in large:
            rows = order[ends[unit - 1] if unit else 0 : ends[unit]]
            scaled = self.design[rows] @ root
            # In the basis where the information is the identity, eigenvalues are shares of it.
            shares, basis = np.linalg.eigh((scaled.T * weights[rows]) @ scaled)
            kept = 1 - np.minimum(shares, LARGEST)
            moves[unit] = root @ (basis @ ((basis.T @ (scaled.T @ residuals[rows])) / kept))
        return moves

    def _sum(self, factor: Array) -> Array:
        """(units, columns) sums of the rows of the design times a factor (rows,)."""
        columns = (np.bincount(self.units, column * factor, self.number) for column in self.design.T)
        return np.stack(list(columns), axis=1)
