"""How much darker or brighter each voxel of a brain is than the white matter about it, finely and on a lattice."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fr_twisted.brain.analysis.anatomy import Label
from fr_twisted.brain.analysis.mixture import WHITE, Mixture
from fr_twisted.brain.analysis.volume import Array, Mask, ndimage

Triple = tuple[float, float, float]
Steps = tuple[int, int, int]

SMOOTHING_MM = 0.6
"""Standard deviation of the Gaussian that is applied first, along axes with voxels finer than `COARSE_MM`."""

COARSE_MM = 1.5

LATTICE_MM = 2.0
"""Distance of the lattice's points, or the voxels' along a coarser axis."""

BLOCK_MM = 4.0
"""The brightness of white matter, which is smooth, is computed on points of about this distance."""

REACH_MM = 12.0
"""Standard deviation of the Gaussian that weights the white matter about a voxel."""

NEAR_MM = 4.0
"""The same for the share of white matter about a point of the lattice."""

LEAST_NOISE = 0.004
"""Of the contrast: on scans without noise."""


@dataclass(frozen=True)
class Lattice:
    """The scene in blocks of ``strides`` voxels, ``spacing`` mm apart, all (a, b, c).

    ``contrast``: mean. ``inside``: mostly brain. ``depth``: mm from the brain's surface. ``white``: share of white
    matter within some 8 mm.
    """

    strides: Steps
    spacing: Triple
    contrast: Array
    inside: Mask
    depth: Array
    white: Array

    def voxels(self, points: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the middles of blocks (n, 3), in voxels."""
        return np.asarray(points * self.strides + (np.array(self.strides) - 1) / 2)


@dataclass(frozen=True)
class Scene:
    """What is known of every voxel in the box around a brain, all (i, j, k).

    ``contrast``: brightness relative to the white matter about the voxel, minus 1, slightly smoothed: 0 in white
    matter, -0.2 a fifth darker. ``noise``: its standard deviation in white matter. ``labels``: uint8 of `Label`.
    ``priors`` (3, i, j, k): of fluid, grey, white by the warped template. ``spacing``: mm.
    """

    contrast: Array
    noise: float
    labels: NDArray[np.uint8]
    priors: NDArray[np.float32]
    spacing: Triple
    lattice: Lattice

    @property
    def voxel_mm3(self) -> float:
        """Volume of a voxel."""
        return float(np.prod(self.spacing))

    @property
    def one(self) -> Steps:
        """One voxel along each axis, none along one with much thicker voxels than the others."""
        i, j, k = (int(size <= 2 * min(self.spacing)) for size in self.spacing)
        return i, j, k

    def steps(self, millimetres: float) -> Steps:
        """Return how many whole voxels ``millimetres`` are along each axis."""
        i, j, k = (int(millimetres / size + 0.01) for size in self.spacing)
        return i, j, k


def survey(
    values: Array,
    labels: NDArray[np.uint8],
    priors: NDArray[np.float32],
    mixture: Mixture,
    spacing: Triple,
) -> Scene | None:
    """Return the scene of a brain; None if it has no white matter to compare with.

    Args:
        values: intensity without bias (i, j, k).
        labels: of `Label` (i, j, k).
        priors: fluid, grey, white by the warped template (3, i, j, k).
        mixture: of the tissues' intensities.
        spacing: mm.
    """
    white = labels == Label.WHITE
    core = eroded(white, (1, 1, 1))
    if not core.any():
        return None
    contrast = _smoothed(values, spacing)
    contrast /= local_white(values, core, spacing, float(mixture.means[WHITE]))
    sample = contrast[core]
    middle = np.median(sample)
    contrast -= middle
    noise = 1.4826 * float(np.median(np.abs(sample - middle)))
    lattice = _lattice(contrast, labels, white, spacing)
    return Scene(contrast, max(noise, LEAST_NOISE), labels, priors, spacing, lattice)


def _smoothed(values: Array, spacing: Triple) -> Array:
    sigma = [SMOOTHING_MM / size if size < COARSE_MM else 0.0 for size in spacing]
    return np.asarray(ndimage.gaussian_filter(values, sigma, truncate=2.5, output=np.float32), np.float32)


def _lattice(contrast: Array, labels: NDArray[np.uint8], white: Mask, spacing: Triple) -> Lattice:
    strides = _strides(LATTICE_MM, spacing)
    i, j, k = (n * size for n, size in zip(strides, spacing, strict=True))
    middles = [
        np.minimum(np.arange(0, size, n) + n // 2, size - 1)
        for size, n in zip(labels.shape, strides, strict=True)
    ]
    inside = labels[np.ix_(*middles)] != Label.OUTSIDE
    depth = ndimage.distance_transform_edt(np.pad(inside, 1), sampling=(i, j, k))[1:-1, 1:-1, 1:-1]
    near = ndimage.gaussian_filter(block_means(white, strides), NEAR_MM / np.array([i, j, k]), truncate=2.5)
    means = block_means(contrast, strides)
    return Lattice(strides, (i, j, k), means, inside, depth.astype(np.float32), near)


def _strides(millimetres: float, spacing: Triple) -> Steps:
    i, j, k = (max(1, round(millimetres / size)) for size in spacing)
    return i, j, k


def local_white(values: Array, white: Mask, spacing: Triple, usual: float) -> Array:
    """Return the weighted mean of ``values`` over the ``white`` voxels about each voxel (i, j, k).

    The weight is a Gaussian of `REACH_MM`; where no white matter is near, ``usual`` takes over.
    """
    strides = _strides(BLOCK_MM, spacing)
    sigma = [REACH_MM / (n * size) for n, size in zip(strides, spacing, strict=True)]
    weight = ndimage.gaussian_filter(_block_sums(white, strides), sigma, truncate=2.5, mode="constant")
    level = ndimage.gaussian_filter(
        _block_sums(values * white, strides), sigma, truncate=2.5, mode="constant"
    )
    little = np.float32(1e-3) * weight.max()
    level = (level + little * np.float32(usual)) / (weight + little)
    for axis in (2, 1, 0):  # the largest product last, and in memory order
        spread = _interpolation(values.shape[axis], level.shape[axis], strides[axis])
        level = np.moveaxis(np.tensordot(spread, level, (1, axis)), 0, axis)
    return np.ascontiguousarray(level, np.float32)


def block_means(data: Array | Mask, strides: Steps) -> Array:
    """Return the mean of each block of ``strides`` voxels; the last along an axis may be smaller."""
    sums = _block_sums(data, strides)
    for axis, stride in enumerate(strides):
        count = np.diff(np.append(np.arange(0, data.shape[axis], stride), data.shape[axis]))
        sums /= count.astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
    return sums


def _block_sums(data: Array | Mask, strides: Steps) -> Array:
    """Return the sum of each block; by strided slices, some ten times as fast as ``np.add.reduceat``."""
    source = np.asarray(data)
    for axis, stride in enumerate(strides):
        along = np.moveaxis(source, axis, 0)
        total = along[::stride].astype(np.float32)
        for offset in range(1, stride):
            part = along[offset::stride].astype(np.float32)
            total[: len(part)] += part
        source = np.moveaxis(total, 0, axis)
    return np.asarray(source, np.float32)


def _interpolation(size: int, blocks: int, stride: int) -> Array:
    """Return the weights (size, blocks) of linear interpolation between the middles of blocks of ``stride`` voxels."""
    place = np.clip((np.arange(size) + 0.5) / stride - 0.5, 0, blocks - 1)
    low = np.minimum(place.astype(int), max(blocks - 2, 0))
    part = place - low
    weights = np.zeros((size, blocks), np.float32)
    weights[np.arange(size), low] = 1 - part
    weights[np.arange(size), np.minimum(low + 1, blocks - 1)] += part
    return weights


def eroded(mask: Mask, steps: Steps) -> Mask:
    """Return the voxels of ``mask`` whose face neighbours are in it too, ``steps`` times along each axis.

    By shifted copies, some ten times as fast as scipy's; what lies beyond the edge is not in the mask.
    """
    for count in range(max(steps)):
        result = mask.copy()
        for axis in (axis for axis in range(3) if steps[axis] > count):
            to, source = np.moveaxis(result, axis, 0), np.moveaxis(mask, axis, 0)
            to[1:] &= source[:-1]
            to[:-1] &= source[1:]
            to[[0, -1]] = False
        mask = result
    return mask


def dilated(mask: Mask, steps: Steps) -> Mask:
    """Return the voxels of ``mask`` and their face neighbours, ``steps`` times along each axis."""
    for count in range(max(steps)):
        result = mask.copy()
        for axis in (axis for axis in range(3) if steps[axis] > count):
            to, source = np.moveaxis(result, axis, 0), np.moveaxis(mask, axis, 0)
            to[1:] |= source[:-1]
            to[:-1] |= source[1:]
        mask = result
    return mask
