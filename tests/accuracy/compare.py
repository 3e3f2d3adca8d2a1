"""How far two labellings of one grid agree."""

import numpy as np
from numpy.typing import NDArray

from fr_twisted.brain.analysis.anatomy import Anatomy
from fr_twisted.pacs.generator.truth import Label

Labels = NDArray[np.uint8]
"""One `Label` a voxel; those of the analysis have the same numbers."""

REGIONS = {
    "skull": (Label.FLUID, Label.GREY, Label.WHITE, Label.VENTRICLE),
    "brain": (Label.GREY, Label.WHITE),
    "gm": (Label.GREY,),
    "wm": (Label.WHITE,),
    "csf": (Label.FLUID, Label.VENTRICLE),
    "ventricles": (Label.VENTRICLE,),
}
"""What is compared, and the labels that make it: ``skull`` is all inside the skull, the mask of a skull strip."""

MASK = "skull"


def dice(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Return 2 |A and B| / (|A| + |B|), 0 to 1 (L.R. Dice, Ecology 26, 1945); 1 for two empty sets."""
    both = int(np.count_nonzero(first)) + int(np.count_nonzero(second))
    return 2 * int(np.count_nonzero(first & second)) / both if both else 1.0


def region(labels: Labels, name: str) -> NDArray[np.bool_]:
    """Return the voxels of one of `REGIONS`."""
    return np.asarray(np.isin(labels, [int(label) for label in REGIONS[name]]))


def agreement(found: Labels, true: Labels) -> dict[str, float]:
    """Return the Dice of each of `REGIONS` that there is in ``true``.

    Raises:
        ValueError: they are not of one grid.
    """
    if found.shape != true.shape:
        raise ValueError(f"labels of {found.shape} voxels cannot be compared with labels of {true.shape}")
    parts = {name: (region(found, name), region(true, name)) for name in REGIONS}
    return {name: dice(ours, theirs) for name, (ours, theirs) in parts.items() if theirs.any()}


def on_head(anatomy: Anatomy) -> Labels:
    """Return the labels of an analysis on the whole grid of the head."""
    whole = np.zeros(anatomy.head.data.shape, np.uint8)
    whole[anatomy.box] = anatomy.labels
    return whole
