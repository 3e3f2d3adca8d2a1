"""What the stages of the analysis hand on of a scan's anatomy: labels of its voxels, and lesion candidates."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from fr_twisted.brain.analysis.schema import LesionKind
from fr_twisted.brain.analysis.volume import Volume

Box = tuple[slice, ...]


class Label(IntEnum):
    """Of one voxel."""

    OUTSIDE = 0
    FLUID = 1
    GREY = 2
    WHITE = 3
    VENTRICLE = 4


@dataclass(frozen=True)
class Lesion:
    """A lesion candidate. Millimetres are RAS, of the patient or of the template."""

    kind: LesionKind
    voxels: NDArray[np.int64]
    """Indices (n, 3) in the box around the brain."""
    volume_mm3: float
    centroid_patient_mm: tuple[float, float, float]
    centroid_template_mm: tuple[float, float, float]
    contrast_percent: float
    """Of the white matter around; negative: darker."""
    score: float
    """0..1."""


@dataclass(frozen=True)
class Anatomy:
    """What is drawn of a scan.

    ``head``: the whole scan, axes right, anterior, superior, 0 at air, about 1 at bright tissue. ``box``: where the
    brain is in it; empty for none. ``labels``: uint8 (i, j, k) of `Label` inside the box. ``lesions``: by falling
    score.
    """

    head: Volume
    box: Box
    labels: NDArray[np.uint8]
    lesions: tuple[Lesion, ...] = ()
