"""The average brain that a scan is compared with, and its tissue maps."""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from fr_twisted.brain.analysis.volume import Affine, Array, Volume, ndimage

DEEP_MM = ((-34.0, 34.0), (-38.0, 26.0), (-14.0, 24.0))
"""Where thalamus and basal ganglia lie, MNI mm, x, y, z."""

MOST_DEEP = np.float32(0.9)

DATA = files("fr_twisted.brain.analysis") / "data"


@dataclass(frozen=True)
class Template:
    """The MNI ICBM152 2009a symmetric brain at 2 mm, axes right, anterior, superior.

    ``t1`` has 1 at the 95th percentile of the brain; the others are probabilities, 0..1. ``ventricles``: lateral,
    third and fourth; ``fluid`` holds them too;
    ``deep``: of grey matter, to be deep.
    """

    affine: Affine
    t1: Array
    grey: Array
    white: Array
    mask: Array
    fluid: Array
    deep: Array
    ventricles: Array

    def volume(self, data: Array) -> Volume:
        """Return one of the maps in its place (MNI millimetres)."""
        return Volume(data, self.affine)


def _deep(shape: tuple[int, ...], affine: Affine) -> Array:
    """Return how likely grey matter is deep grey matter: `MOST_DEEP` inside `DEEP_MM`, less near its sides."""
    axes = [np.arange(n) * affine[k, k] + affine[k, 3] for k, n in enumerate(shape)]
    within = [(axis >= low) & (axis <= high) for axis, (low, high) in zip(axes, DEEP_MM, strict=True)]
    box = within[0][:, None, None] & within[1][:, None] & within[2]
    return np.asarray(MOST_DEEP * ndimage.gaussian_filter(box.astype(np.float32), 1.0), np.float32)


@cache
def load() -> Template:
    """Return the template, read once a process."""
    with (DATA / "template_2mm.npz").open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
        names = ("mask", "gm", "wm", "csf", "vent", "vent4")
        mask, grey, white, fluid, *cavities = (stored[name].astype(np.float32) / 255 for name in names)
        t1 = stored["t1"].astype(np.float32)
        affine = stored["affine"]
    bright = np.percentile(t1[mask > 0.5], 95).astype(np.float32)
    return Template(
        affine, t1 / bright, grey, white, mask, fluid, _deep(mask.shape, affine), np.maximum(*cavities)
    )
