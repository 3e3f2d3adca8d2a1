"""Smooth random fields over a grid: cubic B-splines of few coefficients, evaluated plane by plane.

Everything is elementwise arithmetic in single precision in a fixed order, without a linear algebra library: the same
bits on every machine.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def basis(points: NDArray[np.floating], knots: int) -> Floats:
    """Return the weights (n, knots) of uniform cubic B-splines at ``points`` (n) of the interval 0 to 1.

    With P = knots - 3 spans, the point t lies in span floor(t P) and has four weights other than zero (de Boor 1978, A
    Practical Guide to Splines; written out for equal spans). They sum to 1, so a field stays within its coefficients.
    """
    spans = knots - 3
    place = np.clip(np.asarray(points, np.float64), 0, 1) * spans
    first = np.minimum(place.astype(int), spans - 1)
    t = place - first
    weights = np.zeros((len(place), knots))
    rows = np.arange(len(place))
    parts = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    for offset, part in enumerate(parts):
        weights[rows, first + offset] = part / 6
    return weights.astype(np.float32)


@dataclass(frozen=True)
class Field:
    """A smooth field over the unit cube. ``coefficients``: float32 (k, k, k)."""

    coefficients: Floats

    @property
    def knots(self) -> int:
        """Coefficients along each axis."""
        return int(self.coefficients.shape[0])

    def on(self, points: Sequence[NDArray[np.float64]]) -> "Planes":
        """Return the field on the grid of these places along x, y and z, each 0 to 1."""
        return Planes(self.coefficients, [basis(along, self.knots) for along in points])

    def over(self, shape: tuple[int, ...]) -> "Planes":
        """Return the field on the middles of ``shape`` voxels that fill the cube."""
        return self.on([(np.arange(count) + 0.5) / count for count in shape])

    def at(self, point: NDArray[np.float64]) -> float:
        """Return the value at ``point`` (3), each coordinate 0 to 1."""
        weights = [basis(point[axis : axis + 1], self.knots)[0] for axis in range(3)]
        return float(np.einsum("i,j,k,ijk", *weights, self.coefficients))


class Planes:
    """A field on a grid."""

    def __init__(self, coefficients: Floats, weights: list[Floats]) -> None:
        self._coefficients, self._weights = coefficients, weights

    def plane(self, index: int) -> Floats:
        """Return the field (Y, Z) in the plane ``index`` of the first axis."""
        along_x, along_y, along_z = self._weights
        square = _sum(along_x[index][:, None, None] * self._coefficients)
        rows = _sum(along_y.T[:, :, None] * square[:, None, :])
        out = rows[:, :1] * along_z[:, 0]
        part = np.empty_like(out)
        for knot in range(1, rows.shape[1]):
            np.multiply(rows[:, knot : knot + 1], along_z[:, knot], out=part)
            out += part
        return out

    def whole(self) -> Floats:
        """Return the field (X, Y, Z)."""
        return np.stack([self.plane(index) for index in range(len(self._weights[0]))])


def _sum(parts: Floats) -> Floats:
    """Return the sum over the first axis, from first to last."""
    out: Floats = parts[0].copy()
    for part in parts[1:]:
        out += part
    return out


def random_field(rng: np.random.Generator, knots: int, low: float, high: float) -> Field:
    """Return a field between ``low`` and ``high``, of which it reaches one at least: drawn and stretched."""
    coefficients = rng.uniform(-1, 1, (knots,) * 3).astype(np.float32)
    reached = np.abs(Field(coefficients).over((4 * knots,) * 3).whole()).max()
    middle, half = (low + high) / 2, (high - low) / 2
    return Field((coefficients / reached * np.float32(half) + np.float32(middle)).astype(np.float32))
