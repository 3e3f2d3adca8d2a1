"""What the analysis finds, as models: the published form of ``findings`` in a report."""

from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from fr_twisted.brain.analysis.align import Alignment
from fr_twisted.brain.analysis.identity import NAME, VERSION
from fr_twisted.brain.analysis.mixture import CSF, GREY, WHITE
from fr_twisted.brain.analysis.tissues import Tissues
from fr_twisted.brain.analysis.volume import Mask, Volume

METHOD = (
    "Skull strip with the nets of deepbet 1.0.2 on a grid of 192 voxels a side; affine alignment (12 parameters) of the"
    " MNI ICBM152 2009a template; grey matter, white matter and cerebrospinal fluid from bias-corrected intensity, the"
    " template's tissue maps and neighbouring voxels (Gaussian mixture with partial volumes, Markov random field). The"
    " template is not warped beyond the affine alignment; ventricles, lesions and regions are not measured."
    " Intracranial volume is that of the stripped brain with the fluid about it; what the net leaves out at the skull"
    " is missing from the fluid. Its accuracy was not yet measured on data set aside for that."
)

BY_VOXEL = "Each voxel is counted as the tissue that fills most of it."
BY_PART = "Each voxel is counted by the parts of tissue in it, because the slices are thick."

DECISION_SUPPORT = (
    "Decision support only. Not a diagnosis: to be read by a physician together with the images."
)

THICK_MM = 3.0
"""With a side longer than this, voxels are counted by parts. On generated scans of 1 to 3 mm whole voxels are
nearer to the truth (grey and white within 1 %, against 2 to 3 %), at 4 and 5 mm parts are (white within 2 %,
against 5 %)."""

FAIR_SCORE = 0.90
FULL_COVERAGE = 0.99
FAIR_CONTRAST = 2.5

Millilitres = Annotated[FiniteFloat, Field(ge=0, description="mL")]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AnalysisInfo(_Model):
    """Which analysis found this, and how."""

    name: str
    version: str
    method: str


class Volumes(_Model):
    """Volumes in millilitres; brain = grey + white matter, intracranial = brain + csf."""

    intracranial: Millilitres
    brain: Millilitres
    grey_matter: Millilitres
    white_matter: Millilitres
    csf: Millilitres = Field(description="cerebrospinal fluid, about the brain and in the ventricles")


class Quality(_Model):
    """How far the volumes can be trusted."""

    alignment_score: FiniteFloat = Field(
        description="correlation with the aligned template; above 0.92 is usual"
    )
    coverage: FiniteFloat = Field(description="part of the template's brain inside the field of view, 0..1")
    grey_white_cnr: FiniteFloat = Field(
        description="contrast to noise: difference of the means of white and grey matter over their standard deviation"
    )
    non_uniformity: FiniteFloat = Field(
        description="coil brightness in the brain, 98th over 2nd percentile less 1; corrected before measuring"
    )


class Geometry(_Model):
    """The scan as it was stored."""

    shape: tuple[int, int, int]
    spacing_mm: tuple[FiniteFloat, FiniteFloat, FiniteFloat]
    orientation: str = Field(description="where each axis points: R/L, A/P, S/I; RAS, LPS, ...")


class Findings(_Model):
    """All that one analysis found in one scan."""

    analysis: AnalysisInfo
    volumes_ml: Volumes
    brain_parenchymal_fraction: FiniteFloat = Field(description="brain over intracranial volume, 0..1")
    quality: Quality
    geometry: Geometry
    notes: list[str] = Field(description="what to keep in mind with this scan, for people")
    decision_support_only: str = DECISION_SUPPORT


def measure(tissues: Tissues, brain: Volume) -> Volumes:
    """Return the volumes, to 0.01 mL; how voxels are counted depends on their size (`THICK_MM`)."""
    if by_part(brain):
        counts = tissues.shares.sum((1, 2, 3), dtype=np.float64)
    else:
        counts = np.bincount(tissues.labels().ravel(), minlength=4)[1:].astype(np.float64)
    fluid, grey, white = (round(float(counts[k]) * brain.voxel_ml, 2) for k in (CSF, GREY, WHITE))
    return Volumes(
        intracranial=round(fluid + grey + white, 2),
        brain=round(grey + white, 2),
        grey_matter=grey,
        white_matter=white,
        csf=fluid,
    )


def by_part(scan: Volume) -> bool:
    """Return whether voxels are so long that each is counted by its parts of tissue."""
    return max(scan.spacing) > THICK_MM


def assess(tissues: Tissues, mask: Mask, alignment: Alignment, covered: float) -> Quality:
    """Return the quality figures of a segmented brain."""
    means, variances = tissues.mixture.means, tissues.mixture.variances
    noise = float(np.sqrt((variances[GREY] + variances[WHITE]) / 2))
    low, high = np.percentile(tissues.bias[mask], [2, 98]).tolist()
    return Quality(
        alignment_score=round(alignment.score, 3),
        coverage=round(covered, 3),
        grey_white_cnr=round(float(means[WHITE] - means[GREY]) / noise, 2),
        non_uniformity=round(float(np.exp(high - low)) - 1, 3),
    )


def geometry(scan: Volume) -> Geometry:
    """Return the geometry of a scan as read."""
    i, j, k = scan.data.shape
    x, y, z = (round(size, 4) for size in scan.spacing)
    return Geometry(shape=(i, j, k), spacing_mm=(x, y, z), orientation=scan.orientation)


def notes(found: Quality, stored: Geometry) -> list[str]:
    """Return what a reader should keep in mind with this scan."""
    result = []
    longest = max(stored.spacing_mm)
    if longest > THICK_MM:
        result.append(
            f"Slices of {longest:.3g} mm: the cortex is thinner than a voxel, volumes are less certain than at 1 mm."
        )
    if found.alignment_score < FAIR_SCORE:
        result.append(
            f"The brain is unlike the template (score {found.alignment_score:.2f}): look at the picture with care."
        )
    if found.coverage < FULL_COVERAGE:
        result.append(f"About {1 - found.coverage:.1%} of the brain may lie outside the field of view.")
    if found.grey_white_cnr < FAIR_CONTRAST:
        result.append(
            f"Noise is high against the contrast of grey and white matter ({found.grey_white_cnr:.1f})."
        )
    return result


def collect(volumes: Volumes, quality: Quality, stored: Geometry) -> Findings:
    """Return the findings."""
    counting = BY_PART if max(stored.spacing_mm) > THICK_MM else BY_VOXEL
    return Findings(
        analysis=AnalysisInfo(name=NAME, version=VERSION, method=f"{METHOD} {counting}"),
        volumes_ml=volumes,
        brain_parenchymal_fraction=round(volumes.brain / volumes.intracranial, 4),
        quality=quality,
        geometry=stored,
        notes=notes(quality, stored),
    )
