"""Compares left and right: the middle of the symmetric template, bent to the brain, parts the hemispheres."""

from dataclasses import dataclass

import numpy as np

from fr_twisted.brain.analysis.midline import Plane
from fr_twisted.brain.analysis.template import Template
from fr_twisted.brain.analysis.volume import Array, Mask, Volume
from fr_twisted.brain.analysis.warp import Warp


@dataclass(frozen=True)
class Sides:
    """A structure's volume on each side, mL; the patient's left and right."""

    left: float
    right: float

    @property
    def index(self) -> float:
        """200 (left - right) / (left + right): per cent of the mean of both; 0 for none."""
        both = self.left + self.right
        return 200 * (self.left - self.right) / both if both else 0.0


def rightward(middle: Plane, brain: Volume, warp: Warp, template: Template) -> Array:
    """Return how far right of the middle between the hemispheres each voxel of ``brain`` lies, mm (i, j, k).

    ``middle``: as `fr_twisted.brain.analysis.midline.midline` gives it.
    """
    x = np.arange(template.t1.shape[0]) * template.affine[0, 0] + template.affine[0, 3]
    across = x[:, None, None] - middle[None]
    return warp.placed(across.astype(np.float32), brain, "nearest")


def sides(structure: Mask | Array, right: Array, brain: Volume) -> Sides:
    """Return the volume of ``structure`` left and right of the middle.

    Args:
        structure: a mask, or parts 0..1, on the grid of ``brain``.
        right: as `rightward` gives it; a voxel that the middle cuts counts on both sides, by its parts.
        brain: the grid.
    """
    part = np.clip(np.float32(0.5) - right / np.float32(brain.spacing[0]), 0, 1)
    left = float((part * structure).sum(dtype=np.float64))
    whole = float(structure.sum(dtype=np.float64))
    return Sides(left * brain.voxel_ml, (whole - left) * brain.voxel_ml)
