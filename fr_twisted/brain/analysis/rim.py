"""Settles the rim of the ventricles: voxels that ventricle and white matter share are as bright as grey matter.

Every classification by intensity draws a sheet of grey there, one voxel thick (J. Tohka et al., NeuroImage 23, 2004);
the ependyma that is really there is thinner than a tenth of a millimetre. Such a voxel is counted as what it holds
more of.
"""

import numpy as np
from numpy.typing import NDArray

from fr_twisted.brain.analysis.anatomy import Label
from fr_twisted.brain.analysis.mixture import CSF, WHITE, Mixture
from fr_twisted.brain.analysis.volume import Array, Mask, bounding_box, ndimage

HALF = 0.45
"""Between the brightness of fluid (0) and of white matter (1): less is ventricle. On development seeds ventricles are
then right in the mean; at a true half they are 1 % large, for where grey matter is near, half of that is at a third.
"""

_CORNERS = np.ones((3, 3, 3), bool)
"""A voxel and the 26 that share a corner with it."""

_THICK = np.ones((2, 2, 2), bool)
"""Grey matter that holds no such block is a sheet or a thread of one voxel."""


def settle(labels: NDArray[np.uint8], values: Array, mixture: Mixture) -> None:
    """Count the grey voxels of sheets between ventricle and white matter, in place, as the one or the other.

    Args:
        labels: `Label` of each voxel in the box around the brain, the ventricles found (i, j, k).
        values: intensity without bias (i, j, k).
        mixture: of the tissues' intensities.
    """
    cavity = labels == Label.VENTRICLE
    if not cavity.any():
        return
    box = bounding_box(cavity, 3)
    part = labels[box]
    sheet = _sheet(part)
    fluid, white = mixture.means[CSF], mixture.means[WHITE]
    dark = values[box] < fluid + HALF * (white - fluid)
    part[sheet] = np.where(dark[sheet], np.uint8(Label.VENTRICLE), np.uint8(Label.WHITE))


def _sheet(labels: NDArray[np.uint8]) -> Mask:
    """Return grey voxels one voxel thick that touch, at least at a corner, both ventricle and white matter."""
    grey = labels == Label.GREY
    sheet = grey & ~ndimage.binary_opening(grey, _THICK)
    for tissue in (Label.VENTRICLE, Label.WHITE):
        sheet &= ndimage.binary_dilation(labels == tissue, _CORNERS)
    return np.asarray(sheet)
