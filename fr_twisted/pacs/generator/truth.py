"""What is true of a generated scan: volumes, sides, lesions; and the scan that carries it."""

from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fr_twisted.pacs.generator.recipe import LesionKind, Recipe, Triple


class Label(IntEnum):
    """What a voxel of a scan mostly is. White matter includes the lesions in it, grey matter the deep nuclei."""

    OUTSIDE = 0
    FLUID = 1
    """Around the brain, not in the ventricles."""
    GREY = 2
    WHITE = 3
    VENTRICLE = 4


@dataclass(frozen=True)
class Sides:
    """A volume of the two sides of the head, mL."""

    left: float
    right: float

    @property
    def index(self) -> float:
        """200 (left - right) / (left + right), per cent; 0 when there is nothing."""
        total = self.left + self.right
        return 200 * (self.left - self.right) / total if total else 0.0


@dataclass(frozen=True)
class LesionTruth:
    """One lesion as it was painted.

    ``radius`` (mm) and ``contrast`` as in the recipe; ``volume_mm3``: of what lies in brain tissue; ``centroid_mm``: in
    the scan (RAS); ``ring``: share of white matter in the shell of 2 mm around it (deep in white matter: 0.8 and more).
    """

    kind: LesionKind
    radius: float
    contrast: float
    volume_mm3: float
    centroid_mm: Triple
    ring: float


@dataclass(frozen=True)
class Truth:
    """Volumes in mL. ``csf`` includes ``ventricles`` (lateral, third and fourth)."""

    gm: float
    wm: float
    csf: float
    ventricles: float
    gm_sides: Sides
    ventricle_sides: Sides
    lesions: tuple[LesionTruth, ...] = ()

    @property
    def brain(self) -> float:
        """Grey and white matter."""
        return self.gm + self.wm

    @property
    def icv(self) -> float:
        """All inside the skull: brain and fluid."""
        return self.brain + self.csf

    @property
    def bpf(self) -> float:
        """Brain parenchymal fraction: brain over intracranial volume."""
        return self.brain / self.icv


@dataclass(frozen=True)
class GeneratedScan:
    """``volume``: int16 (X, Y, Z), to the right, front, top; ``affine``: 4 x 4, voxel to scanner mm (RAS).

    ``labels``: uint8 of `Label` on the grid of ``volume``; of thick slices, what most of a voxel is.
    """

    volume: NDArray[np.int16]
    affine: NDArray[np.float64]
    truth: Truth
    recipe: Recipe
    labels: NDArray[np.uint8]

    def record(self) -> dict[str, Any]:
        """Return truth and recipe as JSON-able data, for the record on this side; it never travels."""
        truth = self.truth
        names = ("icv", "brain", "gm", "wm", "csf", "ventricles")
        sides = {"gm": truth.gm_sides, "ventricles": truth.ventricle_sides}
        return {
            "volumes_ml": {name: getattr(truth, name) for name in names},
            "bpf": truth.bpf,
            "sides_ml": {name: asdict(side) | {"index": side.index} for name, side in sides.items()},
            "lesions": [asdict(lesion) for lesion in truth.lesions],
            "recipe": asdict(self.recipe),
        }
