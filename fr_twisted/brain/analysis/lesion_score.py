"""How much a blob, and the region cut out for it, look like a lesion: two small logistic models in a row.

Their weights were fitted by logistic regression on generated scans of 1 mm (seeds below 100,000, see `DARK`), each
kept to the sign that its feature suggests, so that no accident of the one anatomy behind those scans turns a feature
round.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fr_twisted.brain.analysis.anatomy import Label
from fr_twisted.brain.analysis.lesion_map import Scene, Triple, dilated
from fr_twisted.brain.analysis.lesion_regions import Region
from fr_twisted.brain.analysis.mixture import CSF
from fr_twisted.brain.analysis.volume import Mask

Vector = NDArray[np.float64]

FEATURES = ("blob", "open", "solidity", "size", "contrast", "fluid", "elsewhere", "thickness")
"""Of a region: the logit of its blob; share of the voxels at its border that are beyond its threshold too; its volume
over that of the ellipsoid with its moments; natural logarithm of its mm3; mean excess; share of fluid in it;
`Region.elsewhere`; shortest standard deviation, mm.
"""

LOWEST = np.array([-np.inf, 0, 0, 2.5, 0, 0, 0, 0])
HIGHEST = np.array([np.inf, 1, 1, 6.5, 0.35, 0.3, 1, 2.5])
"""Features are cut off here: beyond, they say nothing more."""

COARSER = 1.8
"""By how much `Model.least_blob` is higher for voxels of twice the edge, from 1 mm on; from generated scans of 2 mm."""

SOFTNESS = 2.0
"""Patients are less alike than the scans that the weights were fitted on: no candidate is as sure as those say."""

RING_MM = 2.0
"""Thickness of a region's ring, which begins one voxel from it."""

LEAST_RING = 8
"""Voxels."""

GREY_LIKE = 0.15
"""Excess of voxels in the ring that stand out themselves, as grey matter does."""

WHITER_ABOUT_FLUID = 0.2
"""By how much more of the ring of fluid must be white matter: a sulcus may end in a pit of fluid."""

MOST_ELONGATED, LEAST_SOLID, MOST_FLUID = 3.0, 0.65, 0.15
"""Longest over shortest deviation, solidity, template's probability of fluid: beyond these a region is no lesion."""


@dataclass(frozen=True)
class Model:
    """Weights of `fr_twisted.brain.analysis.lesion_blobs.FEATURES` and of `FEATURES`, each with its constant last.

    ``least_blob``: blobs with a lower logit are not looked at. ``least_white``, ``most_grey``: shares of a region's
    ring that are white matter at least, and that stand out at most.
    """

    blob: Vector
    region: Vector
    least_blob: float
    least_white: float
    most_grey: float


DARK = Model(
    blob=np.array([18.6, -6.00, 0.0421, 17.3, 3.96, 0.985, -2.70, -7.61]),
    region=np.array([1.39, -17.7, 30.3, -1.42, 5.07, -2.99, -4.80, 1.85, -14.65]),
    least_blob=-1.5,
    least_white=0.5,
    most_grey=0.4,
)
"""For darker lesions. Fitted on 156 of them (radius 2 to 6 mm, -12 to -40 %) in 48 scans, 36 without any, and Colin27
and MNI152 themselves; a third of the scans was held back. The constant puts the gate at about 0.05 false candidates a
scan.
"""

BRIGHT = Model(
    blob=np.array([84.8, -1.28, 0.424, 0.0, 0.667, -1.44, -0.751, -15.2]),
    region=np.array([0.720, -0.192, 12.6, -0.874, 18.6, 0.0, -13.4, 0.0, -5.52]),
    least_blob=-4.0,
    least_white=0.3,
    most_grey=1.0,
)
"""For brighter lesions, on the 167 of the same scans (+15 to +30 %). Nothing else in a brain is as bright: all were
found, without a false one.
"""


def logits(features: Vector, weights: Vector) -> Vector:
    """Return the logit (n,) of ``features`` (n, m) with ``weights`` (m + 1,), the constant last."""
    return np.asarray(features @ weights[:-1] + weights[-1])


def least_blob(scene: Scene, model: Model) -> float:
    """Return the least logit of a blob that is looked at: more in coarse voxels, where many a fold has its form."""
    return model.least_blob + COARSER * max(0.0, float(np.log2(scene.voxel_mm3)) / 3)


def score(logit: float) -> float:
    """Return the score, 0..1: the logistic function of ``logit``, softened."""
    return float(1 / (1 + np.exp(-logit / SOFTNESS)))


def region_features(scene: Scene, region: Region, blob: float, model: Model) -> Vector | None:
    """Return the `FEATURES` of a region whose blob has the logit ``blob``; None: by form or ring it is no lesion."""
    mask, labels = region.mask, scene.labels[region.window]
    near = dilated(mask, scene.one)
    if not _in_white_matter(scene, region, near, model):
        return None
    axes = deviations(mask, scene.spacing)
    volume = float(mask.sum()) * scene.voxel_mm3
    solidity = volume / (4 / 3 * np.pi * 5**1.5 * np.prod(axes))
    fluid = scene.priors[CSF][region.window][mask].mean()
    if axes[2] > MOST_ELONGATED * axes[0] or solidity < LEAST_SOLID or fluid > MOST_FLUID:
        return None
    found = [
        blob,
        region.beyond[near & ~mask].mean(),
        solidity,
        np.log(volume),
        region.excess[mask].mean(),
        (labels[mask] == Label.FLUID).mean(),
        region.elsewhere,
        axes[0],
    ]
    return np.asarray(np.clip(found, LOWEST, HIGHEST))


def _in_white_matter(scene: Scene, region: Region, near: Mask, model: Model) -> bool:
    """Whether the ring, which begins at the border of ``near``, is that of a lesion."""
    labels = scene.labels[region.window]
    i, j, k = (round(RING_MM / size) for size in scene.spacing)
    ring = dilated(near, (i, j, k)) & ~near & (labels != Label.OUTSIDE)
    if ring.sum() < LEAST_RING:
        return False
    white, grey = (labels[ring] == Label.WHITE).mean(), (region.excess[ring] > GREY_LIKE).mean()
    fluid = (labels[region.mask] == Label.FLUID).mean()
    return bool(white >= model.least_white + WHITER_ABOUT_FLUID * fluid and grey <= model.most_grey)


def deviations(mask: Mask, spacing: Triple) -> Vector:
    """Return the standard deviations (3,) of a mask along its own axes, mm, the shortest first.

    Voxels count as boxes, so that a plane has half its thickness over sqrt(3). A solid ellipsoid's half axes are
    sqrt(5) times its deviations.
    """
    place = np.argwhere(mask) * spacing
    place -= place.mean(0)
    spread = place.T @ place / len(place) + np.diag(np.square(spacing) / 12)
    return np.asarray(np.sqrt(np.linalg.eigvalsh(spread)))
