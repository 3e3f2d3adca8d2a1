"""The smooth brightness of receive coils: a polynomial in the logarithm of intensity."""

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from fr_twisted.brain.analysis.volume import Array

ORDER = 6
"""Highest total degree: 83 terms without the constant. At 40 % non-uniformity order 4 leaves 1 point of Dice."""

RIDGE = 1e-3
"""Ridge penalty a sample: keeps terms that the brain hardly constrains near zero."""

Vector = NDArray[np.float64]


def exponents(order: int = ORDER) -> list[tuple[int, int, int]]:
    """Return the powers of (i, j, k) of every term up to ``order``, the constant left out."""
    powers = product(range(order + 1), repeat=3)
    return [(i, j, k) for i, j, k in powers if 0 < i + j + k <= order]


@dataclass
class BiasField:
    """A field over a grid of ``shape``, axes scaled to -1..1; zero on average over the points it is fitted on.

    Args:
        shape: of the whole grid.
        points: indices (n, 3) of the samples it is fitted on.
    """

    shape: tuple[int, ...]
    points: NDArray[np.int64]

    def __post_init__(self) -> None:
        self._axes = [np.linspace(-1, 1, n) for n in self.shape]
        x, y, z = (axis[self.points[:, k]] for k, axis in enumerate(self._axes))
        basis = np.stack([x**i * y**j * z**k for i, j, k in exponents()], 1)
        self._means = basis.mean(0)
        self._basis = basis - self._means
        self._coefficients = np.zeros(basis.shape[1])

    def fit(self, target: Vector, weight: Vector) -> None:
        """Fit the field to ``target`` (n,), log intensities, by least squares with ``weight`` (n,)."""
        weighted = self._basis * weight[:, None]
        normal = self._basis.T @ weighted + RIDGE * len(target) * np.eye(self._basis.shape[1])
        level = (weight * target).sum() / weight.sum()
        self._coefficients = np.linalg.solve(normal, weighted.T @ (target - level))

    def at_points(self) -> Vector:
        """Return the field at the points it is fitted on (n,)."""
        return np.asarray(self._basis @ self._coefficients)

    def everywhere(self) -> Array:
        """Return the field on the whole grid, natural logarithm of the brightness."""
        powers = [np.stack([axis**n for n in range(ORDER + 1)]) for axis in self._axes]
        table = np.zeros((ORDER + 1,) * 3)
        for (i, j, k), value in zip(exponents(), self._coefficients, strict=True):
            table[i, j, k] = value
        table[0, 0, 0] = -(self._coefficients @ self._means)
        # axis by axis: from powers to positions, the cheapest first
        field = np.tensordot(table, powers[0], (0, 0))
        field = np.tensordot(field, powers[1], (0, 0))
        return np.tensordot(powers[2].T, field, (1, 0)).transpose(1, 2, 0).astype(np.float32)
