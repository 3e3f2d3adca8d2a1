"""Cuts the region of a blob out of the scan: the voxels beyond a threshold that follows the blob's own contrast."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fr_twisted.brain.analysis.anatomy import Box, Label
from fr_twisted.brain.analysis.lesion_map import Scene, dilated, eroded
from fr_twisted.brain.analysis.volume import Array, Mask, ndimage

PARTS = (0.5, 0.7)
"""Thresholds that are tried, as a part of the blob's contrast. Half is the border of a blurred object; at more, a
lesion darker than grey matter comes loose from the cortex.
"""

ISOLATION = 0.88
"""At this part of its contrast a lesion stands alone, and a fold of the cortex hangs together with the rest of it."""

CLEAR_OF_NOISE = 1.5
"""Least threshold, in standard deviations of the noise."""

CORE, LEAST_CORE_MM = 0.6, 1.3
"""The middle of a blob, of which its region must have a part: this part of its radius, so much at least."""

REACH, SLACK_MM = 1.5, 1.5
"""A region ends at this many radii of its blob, and so much more."""

MARGIN_MM = 5.0
"""Of surroundings that a window holds about the farthest region."""

OPENINGS_MM, LARGE_MM = (2.0, 1.0, 0.0), 3.5
"""What hangs on a region is stripped by the widest opening that it survives; the first is for radii from ``LARGE_MM``
on.
"""

LEVEL = 70
"""Percentile of the excess that stands for a region while it is cut out: above the half-way voxels of its border."""

STEADY = 0.02
"""A region is not cut again for a smaller relative change of its level."""

FLUID = 0.45
"""Excess from which on a voxel of a ventricle is fluid, and no dark lesion that was taken for a part of the
ventricle.
"""

SMALLEST_MM3, FEWEST = 12.0, 4
"""Of a region: volume and voxels."""

PLATEAU, BORDER = 90, 0.4
"""Percentile of a region's excess that is its contrast in the end, and the part of that where it ends. On generated
lesions the volumes are then right in the median; half would be the place, did smoothing not lower small ones'
contrast."""


@dataclass(frozen=True)
class Region:
    """A candidate in a ``window`` of the box around the brain; masks and ``excess`` have the window's shape.

    ``excess``: contrast in the direction of the blob. ``beyond``: voxels beyond the region's threshold.
    ``elsewhere``: how much of what hangs together at `ISOLATION` is outside the region, 0..1.
    """

    window: Box
    mask: Mask
    beyond: Mask
    excess: Array
    elsewhere: float


def grow(scene: Scene, sign: int, centre: NDArray[np.float64], radius: float) -> Iterator[Region]:
    """Yield the regions of a blob, one for each of `PARTS` or none.

    Args:
        scene: where it is.
        sign: -1 for a darker blob, 1 for a brighter one.
        centre: of the blob, voxels (3).
        radius: of the blob, mm.
    """
    window, distance = _window(scene, centre, REACH * radius + SLACK_MM)
    excess = scene.contrast[window] * np.float32(sign)
    tissue = _tissue(scene.labels[window], excess)
    core = (distance <= max(LEAST_CORE_MM, CORE * radius)) & tissue
    if not core.any():
        return
    ball = (distance <= REACH * radius + SLACK_MM) & tissue
    for part in PARTS:
        mask, level = core, float(np.percentile(excess[core], LEVEL))
        for _ in range(2):
            beyond = excess > max(part * level, CLEAR_OF_NOISE * scene.noise)
            mask = _component(beyond & ball, core, scene, radius)
            before, level = level, _level(excess[mask & (distance <= radius)], level)
            if abs(level - before) <= STEADY * before:
                break
        if mask.sum() >= max(FEWEST, SMALLEST_MM3 / scene.voxel_mm3):
            alone = excess > max(ISOLATION * level, CLEAR_OF_NOISE * scene.noise)
            yield Region(window, mask, beyond, excess, _elsewhere(alone & tissue, mask))


def _level(excess: Array, otherwise: float) -> float:
    return float(np.percentile(excess, LEVEL)) if excess.size else otherwise


def _window(scene: Scene, centre: NDArray[np.float64], reach: float) -> tuple[Box, Array]:
    """Return the window around a ball, and each of its voxels' distance from the centre, mm."""
    window, squares = [], []
    for middle, size, count in zip(centre.tolist(), scene.spacing, scene.labels.shape, strict=True):
        half = int(np.ceil((reach + MARGIN_MM) / size))
        side = slice(max(0, round(middle) - half), min(count, round(middle) + half + 1))
        window.append(side)
        squares.append((((np.arange(side.start, side.stop) - middle) * size) ** 2).astype(np.float32))
    return tuple(window), np.sqrt(squares[0][:, None, None] + squares[1][:, None] + squares[2])


def _component(field: Mask, core: Mask, scene: Scene, radius: float) -> Mask:
    """Return the part of ``field`` with most of the ``core``, opened as far as it survives; empty: there is none."""
    for opening in OPENINGS_MM if radius >= LARGE_MM else OPENINGS_MM[1:]:
        steps = scene.steps(opening)
        part = _main_part(eroded(field, steps), core)
        if part.any():
            for count in range(max(steps)):
                i, j, k = (int(n > count) for n in steps)
                part = dilated(part, (i, j, k)) & field
            return part
    return np.zeros_like(field)


def _main_part(mask: Mask, where: Mask) -> Mask:
    """Return the connected part of ``mask`` with most voxels in ``where``; empty: none has any."""
    parts, count = ndimage.label(mask)
    shares = np.bincount(parts[where], minlength=count + 1)
    shares[0] = 0
    number = int(shares.argmax())
    return np.asarray(parts == number) if number else np.zeros_like(mask)


def _elsewhere(mask: Mask, region: Mask) -> float:
    part = _main_part(mask, region)
    return float(1 - (part & region).sum() / part.sum()) if part.any() else 0.0


def outline(scene: Scene, region: Region) -> tuple[Mask, Array, float]:
    """Return a region's final mask, the weight of each voxel in it, 0..1, and its contrast, above 0.

    The mask is at most one voxel wider than the region and ends at `BORDER` of the contrast.
    """
    contrast = float(np.percentile(region.excess[region.mask], PLATEAU))
    mask = dilated(region.mask, scene.one) & (region.excess > BORDER * contrast)
    mask &= _tissue(scene.labels[region.window], region.excess)
    return mask, np.clip(region.excess[mask] / np.float32(contrast), 0, 1), contrast


def _tissue(labels: NDArray[np.uint8], excess: Array) -> Mask:
    """Return what may be part of a lesion: brain, but no ventricle, unless it is too bright for fluid."""
    return np.asarray((labels != Label.OUTSIDE) & ~((labels == Label.VENTRICLE) & (excess > FLUID)))
