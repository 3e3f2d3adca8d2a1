"""Warps the aligned template to a brain: what twelve numbers cannot follow, such as large ventricles.

Demons (J.-P. Thirion, Medical Image Analysis 2, 1998) with the symmetric force and additive update of T. Vercauteren
et al., NeuroImage 45, 2009, on the template's grid: every point of the aligned brain is told which point of the
template it corresponds to, so that the template's maps can be read through the field without inverting it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fr_twisted.brain.analysis.align import Alignment
from fr_twisted.brain.analysis.template import Template
from fr_twisted.brain.analysis.volume import Affine, Array, Volume, ndimage, transfer

LEVELS = ((4.0, 12), (3.0, 8))
"""Coarse to fine: distance of the lattice (mm) and number of steps. A step of 8 mm before these changed nothing, one
of 2 mm took twice the time.
"""

FLUID_SIGMA, ELASTIC_SIGMA = 1.0, 1.0
"""Gaussians (lattice steps) that smooth each update and the whole field."""

LONGEST_STEP = 1.2
"""Of one update, lattice steps."""

OUTSIDE = -2.0
"""Standardised intensity of what lies outside the brain; grey matter is near 0."""

Field = NDArray[np.float32]


@dataclass(frozen=True)
class Warp:
    """From the brain to the template: an affine alignment and a field.

    ``matrix``: from template to patient millimetres. ``field`` (3, i, j, k): on the template's grid, where the brain
    lies as aligned, how many voxels further on the corresponding point of the template is.
    """

    matrix: Affine
    affine: Affine
    field: Field

    def warped(self, data: Array) -> Array:
        """Return a map of the template as it lies in the aligned brain (i, j, k), on the template's grid."""
        place = _grid(data.shape)
        place += self.field
        return np.asarray(
            ndimage.map_coordinates(data, place, order=1, mode="nearest", output=np.float32), np.float32
        )

    def placed(self, data: Array, target: Volume, mode: str = "constant") -> Array:
        """Return what is `warped` already on the grid of ``target``; ``mode`` as in `transfer`."""
        back = np.asarray(np.linalg.inv(self.matrix), np.float64)
        return transfer(Volume(data, self.affine), target, back, mode)

    def onto(self, data: Array, target: Volume) -> Array:
        """Return a map of the template as it lies in the brain, on the grid of ``target``."""
        return self.placed(self.warped(data), target)

    def to_template(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the template's millimetres of patient millimetres ``points`` (n, 3)."""
        inverse = np.linalg.inv(self.matrix @ self.affine)
        index = np.atleast_2d(points) @ inverse[:3, :3].T + inverse[:3, 3]
        shift = [ndimage.map_coordinates(part, index.T, order=1, mode="nearest") for part in self.field]
        return np.asarray((index + np.stack(shift, 1)) @ self.affine[:3, :3].T + self.affine[:3, 3])


def warp(brain: Volume, alignment: Alignment, template: Template) -> Warp:
    """Return the warp of ``template`` to a stripped ``brain`` (2 mm, 0 outside) that it is aligned with."""
    target = template.volume(template.t1)
    seen = transfer(brain, target, alignment.matrix)
    fixed = standardised(seen, seen > 0, template)
    moving = standardised(template.t1, template.mask > 0.05, template)
    field = np.zeros((3, *target.data.shape), np.float32)
    for step, rounds in LEVELS:
        field = _refined(field, fixed, moving, step / target.spacing[0], rounds)
    return Warp(alignment.matrix, template.affine, field)


def standardised(data: Array, inside: NDArray[np.bool_], template: Template) -> Array:
    """Return intensities with 0 at the median and 1 from the 10th to the 90th percentile of the template's brain."""
    low, middle, high = np.percentile(data[template.mask > 0.5], [10, 50, 90]).astype(np.float32)
    scaled = np.clip((data - middle) / (high - low), OUTSIDE, 1.5)
    scaled[~inside] = OUTSIDE
    return np.asarray(ndimage.gaussian_filter(scaled, 0.6, output=np.float32), np.float32)


def _grid(shape: tuple[int, ...]) -> Field:
    return np.indices(shape, dtype=np.float32)


def _resized(data: Array, shape: tuple[int, ...]) -> Array:
    zoom = [n / size for n, size in zip(shape, data.shape, strict=True)]
    return np.asarray(
        ndimage.zoom(data, zoom, order=1, mode="nearest", grid_mode=True, output=np.float32), np.float32
    )


def _refined(field: Field, fixed: Array, moving: Array, step: float, rounds: int) -> Field:
    """Return a better field: demons on a lattice of ``step`` voxels."""
    shape = tuple(round(n / step) for n in fixed.shape)
    still, moved = (_resized(ndimage.gaussian_filter(v, 0.5 * step), shape) for v in (fixed, moving))
    u = np.stack([_resized(part, shape) for part in field]) / np.float32(step)
    place = _grid(shape)
    gradient = _gradient(still)
    for _ in range(rounds):
        seen = ndimage.map_coordinates(moved, place + u, order=1, mode="nearest", output=np.float32)
        u += _smoothed(_force(still, gradient, seen), FLUID_SIGMA)
        u = _smoothed(u, ELASTIC_SIGMA)
    return np.stack([_resized(part, fixed.shape) for part in u]) * np.float32(step)


def _force(still: Array, gradient: Field, seen: Array) -> Field:
    """Return the demons' update (3, i, j, k), lattice steps: Vercauteren 2009, eq. 5, with both gradients' mean."""
    slope = (gradient + _gradient(seen)) / 2
    difference = still - seen
    update = slope * (difference / ((slope * slope).sum(0) + difference * difference / 4 + np.float32(1e-4)))
    length = np.sqrt((update * update).sum(0)) + np.float32(1e-6)
    return np.asarray(update * np.minimum(1, LONGEST_STEP / length), np.float32)


def _gradient(data: Array) -> Field:
    return np.stack([np.asarray(part, np.float32) for part in np.gradient(data)])


def _smoothed(field: Field, sigma: float) -> Field:
    return np.stack([ndimage.gaussian_filter(part, sigma, output=np.float32, truncate=2.5) for part in field])
