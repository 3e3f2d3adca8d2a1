"""Takes noise off flat tissue and leaves borders: nonlinear diffusion, as strong as the noise that is measured.

P. Perona and J. Malik, IEEE PAMI 12, 1990; for MR images G. Gerig et al., IEEE TMI 11, 1992. A difference between
neighbours far above the noise is a border and stays. Without it white matter lost 4 to 9 points
of Dice at 9 % noise, on two kinds of generated scans for development.
"""

import numpy as np

from fr_twisted.brain.analysis.volume import Array, Mask, ndimage

STEPS = 3
EDGE = 2.0
"""A difference of this many standard deviations of the noise flows most; four times that no longer flows at all."""

RATE = np.float32(1 / 7)
"""Per step and neighbour; stable below 1/6 in three dimensions (Gerig 1992)."""

INSIDE = 3
"""Voxels from the edge of a mask where noise is measured."""


def noise(data: Array, mask: Mask) -> float:
    """Return the standard deviation of the noise inside ``mask``, in units of ``data``; 0 where it cannot be told.

    From pseudo-residuals, (x[i-1] - 2 x[i] + x[i+1]) / sqrt(6), along the axis where they are least (T. Gasser et
    al., Biometrika 73, 1986), by their median absolute value, which borders hardly touch.
    """
    core = ndimage.binary_erosion(mask, iterations=INSIDE)
    if not core.any():
        core = mask
    found = []
    for axis in range(3):
        values, inside = np.moveaxis(data, axis, 0), np.moveaxis(core, axis, 0)[1:-1]
        residual = np.diff(values, 2, axis=0)[inside]
        if residual.size:
            found.append(1.4826 * float(np.median(np.abs(residual))) / np.sqrt(6))
    return float(min(found, default=0.0))


def denoised(data: Array, deviation: float) -> Array:
    """Return ``data`` (i, j, k) without most of noise of standard deviation ``deviation``."""
    result = data.astype(np.float32)
    if deviation <= 0:
        return result
    edge = np.float32(EDGE * deviation)
    for _ in range(STEPS):
        change = np.zeros_like(result)
        for axis in range(3):
            flow = np.diff(result, axis=axis)
            flow *= np.exp(-np.square(flow / edge))
            along, moved = np.moveaxis(change, axis, 0), np.moveaxis(flow, axis, 0)
            along[:-1] += moved
            along[1:] -= moved
        result += RATE * change
    return result
