"""How good the scan is, without a reference: noise, contrast, ghosts, coil brightness, from the air and the brain.

After the no-reference measures of O. Dietrich et al., JMRI 26, 2007 (noise), and of MRIQC (O. Esteban et al., PLoS
ONE 12, 2017: ghosting after M.C. Giannelli 2010, coil non-uniformity), simplified where noted.
"""

from dataclasses import dataclass

import numpy as np

from fr_twisted.brain.analysis.denoise import noise
from fr_twisted.brain.analysis.mixture import GREY, WHITE, Mixture
from fr_twisted.brain.analysis.volume import Array, Mask, Volume, ndimage

GRID_MM = 2.0
"""The air is looked at on about this grid: picked voxels, not averaged ones, so that their noise is the scan's."""

LEAST_AIR = 0.05
"""Share of the field; with less, nothing is measured in the air."""

ZEROED = 0.5
"""With more of the air exactly zero, a mask or a brain extraction has taken the noise away."""

FEWEST = 500
"""Picked voxels that a mean in the air is taken of."""


@dataclass(frozen=True)
class Background:
    """What the air tells. ``air``: share of the field. ``ghost``: brightness where a ghost would lie (axis by axis,
    relative to bright tissue = 1), None where it cannot be measured.
    """

    air: float
    zeroed: bool
    ghost: tuple[float | None, float | None, float | None]


@dataclass(frozen=True)
class Signal:
    """What the segmented brain tells; noise, white and grey matter in units of the scan in standard form."""

    noise: float
    white: float
    grey: float
    non_uniformity: float

    @property
    def snr(self) -> float | None:
        """White matter over noise; None without noise."""
        return self.white / self.noise if self.noise > 0 else None

    @property
    def cnr(self) -> float | None:
        """Difference of white and grey matter over noise."""
        return abs(self.white - self.grey) / self.noise if self.noise > 0 else None


def background(head: Volume) -> Background:
    """Return what the air about a head in standard form tells."""
    every = tuple(slice(None, None, max(1, round(GRID_MM / size))) for size in head.spacing)
    smooth = np.asarray(ndimage.uniform_filter(head.data, 3)[every], np.float32)
    picked = head.data[every]
    tissue = head_mask(smooth)
    air = ~tissue
    share = float(air.mean())
    if share < LEAST_AIR:
        return Background(share, False, (None, None, None))
    zeroed = float((picked[air] == 0).mean()) > ZEROED
    ghosts = tuple(None if zeroed else ghost(picked, tissue, axis) for axis in range(3))
    return Background(share, zeroed, (ghosts[0], ghosts[1], ghosts[2]))


def head_mask(smooth: Array) -> Mask:
    """Return the head in a smoothed scan, with the air inside it and a margin of 2 voxels.

    The threshold lies between Otsu's and the air's own level and spread, so that neither noise nor dark bone decides.
    """
    upper = otsu(smooth)
    dark = smooth[smooth < upper / 2]
    level = float(np.median(dark)) if dark.size else 0.0
    spread = 1.4826 * float(np.median(np.abs(dark - level))) if dark.size else 0.0
    threshold = min(max(level + 4 * spread, upper / 4), upper)
    solid = ndimage.binary_opening(smooth > threshold)
    solid = ndimage.binary_dilation(solid, iterations=2)
    filled = [ndimage.binary_fill_holes(plane) for plane in np.moveaxis(solid, 2, 0)]
    return np.asarray(np.stack(filled, 2) | ndimage.binary_fill_holes(solid))


def otsu(values: Array, bins: int = 128) -> float:
    """Return the threshold that parts ``values`` into two classes best (N. Otsu, IEEE SMC 9, 1979); of several, the
    middle one.
    """
    counts, edges = np.histogram(values, bins)
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1].astype(np.float64)
    above = counts.sum() - below
    sums = np.cumsum(counts * centres)
    apart = sums[:-1] / below.clip(1) - (sums[-1] - sums[:-1]) / above.clip(1)
    between = below * above * apart**2
    best = np.flatnonzero(between >= between.max() * (1 - 1e-9))
    return float(edges[1 + best].mean())


def ghost(picked: Array, tissue: Mask, axis: int) -> float | None:
    """Return how much brighter the air is half a field away from the head than elsewhere; None with too little air.

    A ghost of every other line lies half a field of view off along the phase axis; which axis that is, is not known.
    """
    air = ~tissue
    shifted = np.roll(tissue, tissue.shape[axis] // 2, axis) & air
    rest = air & ~shifted
    if min(np.count_nonzero(shifted), np.count_nonzero(rest)) < FEWEST:
        return None
    return float(picked[shifted].mean(dtype=np.float64) - picked[rest].mean(dtype=np.float64))


def signal(brain: Array, bias: Array, white: Mask, inside: Mask, mixture: Mixture) -> Signal:
    """Return what the brain tells.

    Args:
        brain: as measured, not denoised (i, j, k).
        bias: logarithm of the coil's brightness.
        white: white matter; noise is measured in it.
        inside: the brain; the 2nd and 98th percentile of the bias in it make the non-uniformity.
        mixture: of the bias-corrected brain.
    """
    low, high = np.percentile(bias[inside], [2, 98]).tolist()
    return Signal(
        noise(brain, white),
        float(mixture.means[WHITE]),
        float(mixture.means[GREY]),
        float(np.exp(high - low)) - 1,
    )
