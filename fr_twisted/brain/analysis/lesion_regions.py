"""Cuts the region of a blob out of the scan: the voxels beyond a threshold that follows the blob's own contrast."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fr_twisted.brain.analysis.anatomy import Box, Label
from fr_twisted.brain.analysis.lesion_map import Scene, Steps, dilated, eroded
from fr_twisted.brain.analysis.volume import Array, Mask, ndimage

PARTS = (0.5, 0.7)
"""Thresholds that are tried, as a part of the blob's contrast. Half is the border of a blurred object; at more, a lesion
darker than grey matter comes loose from the cortex."""

ISOLATION = 0.88
"""At this part of its contrast a lesion stands alone, and a fold of the cortex hangs together with the rest of it."""

CLEAR_OF_NOISE = 1.5
"""Least threshold, in standard deviations of the noise."""

REACH = 1.5
SLACK_MM = 1.5
"""A region ends at this many radii of its blob, and so much more."""

MARGIN_MM = 5.0
"""Of surroundings that a window holds about the farthest region."""

LARGE_MM = 3.5
"""From this radius on an opening of 2 mm strips what hangs on a region, below it one of 1 mm."""

LEVEL = 70
"""Percentile of a region's contrast that stands for it: above the half-way voxels of its border."""

FLUID = 0.45

SMALLEST_MM3 = 12.0


@dataclass(frozen=True)
class Region:
    """A candidate in a ``window`` of the box around the brain; masks and ``excess`` have the window's shape.

    ``excess``: contrast in the direction of the blob, above 0. ``level``: the region's. ``beyond``: voxels beyond its
    threshold. ``elsewhere``: how much of what hangs together at `ISOLATION` is outside the region, 0..1.
    """

    window: Box
    mask: Mask
    beyond: Mask
    excess: Array
    level: float
    elsewhere: float


def grow(scene: Scene, sign: int, centre: NDArray[np.float64], radius: float) -> Iterator[Region]:
    """Yield the regions of a blob (``centre`` in voxels, ``radius`` in mm), one for each of `PARTS` or none."""
    window, distance = _window(scene, centre, REACH * radius + SLACK_MM)
    excess = scene.contrast[window] * np.float32(sign)
    labels = scene.labels[window]
    inside = (labels != Label.OUTSIDE) & ~((labels == Label.VENTRICLE) & (excess > FLUID))
    core = (distance <= max(1.3, 0.6 * radius)) & inside
    ball = (distance <= REACH * radius + SLACK_MM) & inside
    if not core.any():
        return
    for part in PARTS:
        level, mask, beyond = float(np.percentile(excess[core], LEVEL)), None, inside
        for _ in range(2):
            beyond = excess > max(part * level, CLEAR_OF_NOISE * scene.noise)
            mask = _component(beyond & ball, core, scene, radius)
            if mask is None:
                break
            before, level = level, float(np.percentile(excess[mask & (distance <= radius)], LEVEL)) if (mask & (distance <= radius)).any() else level
            if abs(level - before) < 0.02 * before:
                break
        if mask is not None and mask.sum() * scene.voxel_mm3 >= SMALLEST_MM3:
            alone = max(ISOLATION * level, CLEAR_OF_NOISE * scene.noise)
            yield Region(window, mask, beyond, excess, level, _elsewhere((excess > alone) & inside, mask))


def _window(scene: Scene, centre: NDArray[np.float64], reach: float) -> tuple[Box, Array]:
    """Return the window around a ball, and each of its voxels' distance from the centre, mm."""
    half = np.ceil((reach + MARGIN_MM) / np.array(scene.spacing)).astype(int)
    middle = np.round(centre).astype(int)
    window, squares = [], []
    for axis, size in enumerate(scene.labels.shape):
        side = slice(max(0, int(middle[axis] - half[axis])), min(size, int(middle[axis] + half[axis] + 1)))
        along = ((np.arange(side.start, side.stop) - centre[axis]) * scene.spacing[axis]) ** 2
        window.append(side)
        squares.append(along.astype(np.float32))
    distance = np.sqrt(squares[0][:, None, None] + squares[1][:, None] + squares[2])
    return tuple(window), distance


def _component(field: Mask, core: Mask, scene: Scene, radius: float) -> Mask | None:
    """Return the part of ``field`` that has most of the ``core``, opened as far as it survives; None: there is none."""
    for opening in (2.0, 1.0, 0.0) if radius >= LARGE_MM else (1.0, 0.0):
        steps = scene.steps(opening)
        part = _main_part(eroded(field, steps), core)
        if part is not None:
            for count in range(max(steps)):
                i, j, k = (int(n > count) for n in steps)
                part = dilated(part, (i, j, k)) & field
            return part
    return None


def _main_part(mask: Mask, where: Mask) -> Mask | None:
    """Return the connected part of ``mask`` with most voxels in ``where``; None: none has any."""
    parts, count = ndimage.label(mask)
    shares = np.bincount(parts[where], minlength=count + 1)
    shares[0] = 0
    number = int(shares.argmax())
    return np.asarray(parts == number) if shares[number] else None


def _elsewhere(mask: Mask, region: Mask) -> float:
    part = _main_part(mask, region)
    return 0.0 if part is None else float(1 - (part & region).sum() / part.sum())


def touching(region: Region, steps: Steps) -> Mask:
    """Return the voxels outside a region within ``steps`` of it."""
    return dilated(region.mask, steps) & ~region.mask
