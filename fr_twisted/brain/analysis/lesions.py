"""Finds lesion candidates: places that stand out, darker or brighter, from the white matter about them.

In four steps, each a module: how each voxel compares with the white matter about it (`lesion_map`), blobs of 2 to 6
mm (`lesion_blobs`), the region of each promising blob (`lesion_regions`), and how much it looks like a lesion
(`lesion_score`). What is listed has a score of at least `GATE`. Whether it is a lesion is for a physician to say.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fr_twisted.brain.analysis.anatomy import Lesion
from fr_twisted.brain.analysis.lesion_blobs import find_blobs
from fr_twisted.brain.analysis.lesion_map import Scene, survey
from fr_twisted.brain.analysis.lesion_regions import Region, grow, outline
from fr_twisted.brain.analysis.lesion_score import (
    BRIGHT,
    DARK,
    Model,
    least_blob,
    logits,
    region_features,
    score,
)
from fr_twisted.brain.analysis.mixture import Mixture
from fr_twisted.brain.analysis.schema import LesionKind
from fr_twisted.brain.analysis.volume import Affine, Array, Volume

GATE = 0.5
"""Least score of a listed candidate; the constants of the models put it where few candidates are false."""

MOST_BLOBS = 120
"""Of each kind that are looked at, the most promising first: bounds the time that a strange scan takes."""

APART = 0.8
"""Two candidates are one if their centres are nearer than this part of their radii's sum; the higher score is kept."""

Points = NDArray[np.float64]


@dataclass(frozen=True)
class _Candidate:
    """``voxels`` (n, 3) of the box; ``centre``, mm (RAS); ``volume``, mm3; ``radius`` of a ball of that volume, mm."""

    kind: LesionKind
    score: float
    contrast: float
    voxels: NDArray[np.int64]
    centre: Points
    volume: float

    @property
    def radius(self) -> float:
        return float((3 * self.volume / (4 * np.pi)) ** (1 / 3))


def find(
    values: Array,
    labels: NDArray[np.uint8],
    priors: NDArray[np.float32],
    mixture: Mixture,
    grid: Volume,
    to_template: Callable[[Points], Points],
) -> tuple[Lesion, ...]:
    """Return the lesion candidates of a brain, by falling score.

    Args:
        values: intensity without bias, in the box around the brain (i, j, k).
        labels: of `fr_twisted.brain.analysis.anatomy.Label` (i, j, k).
        priors: probability of fluid, grey and white matter by the warped template (3, i, j, k).
        mixture: of the tissues' intensities.
        grid: the box: its affine is used.
        to_template: from patient to template millimetres (n, 3), RAS.
    """
    scene = survey(values, labels, priors, mixture, grid.spacing)
    if scene is None:
        return ()
    found = [
        *_candidates(scene, -1, DARK, LesionKind.HYPOINTENSE, grid.affine),
        *_candidates(scene, 1, BRIGHT, LesionKind.HYPERINTENSE, grid.affine),
    ]
    kept = _apart(sorted(found, key=lambda one: -one.score))
    if not kept:
        return ()
    places = to_template(np.array([one.centre for one in kept]))
    return tuple(_lesion(one, place) for one, place in zip(kept, places, strict=True))


def _candidates(
    scene: Scene, sign: int, model: Model, kind: LesionKind, affine: Affine
) -> Iterable[_Candidate]:
    """Yield the regions of one kind that reach the gate."""
    blobs = find_blobs(scene, sign)
    blob_logits, least = logits(blobs.features, model.blob), least_blob(scene, model)
    for number in np.argsort(-blob_logits, kind="stable")[:MOST_BLOBS]:
        blob = float(blob_logits[number])
        if blob < least:
            break
        for region in grow(scene, sign, blobs.centres[number], float(blobs.radii[number])):
            features = region_features(scene, region, blob, model)
            if features is None:
                continue
            likeness = score(float(logits(features, model.region)))
            if likeness >= GATE:
                yield _candidate(region, kind, likeness, scene, affine)


def _candidate(region: Region, kind: LesionKind, score: float, scene: Scene, affine: Affine) -> _Candidate:
    mask, weights, contrast = outline(scene, region)
    voxels = np.argwhere(mask) + [side.start for side in region.window]
    centre = affine[:3, :3] @ np.average(voxels, 0, weights) + affine[:3, 3]
    sign = -1 if kind is LesionKind.HYPOINTENSE else 1
    return _Candidate(kind, score, sign * contrast, voxels, centre, len(voxels) * scene.voxel_mm3)


def _apart(candidates: Iterable[_Candidate]) -> list[_Candidate]:
    """Return the candidates, given by falling score, without those that an earlier one has found already."""
    kept: list[_Candidate] = []
    for one in candidates:
        if all(np.linalg.norm(one.centre - o.centre) > APART * (one.radius + o.radius) for o in kept):
            kept.append(one)
    return kept


def _lesion(one: _Candidate, place: Points) -> Lesion:
    x, y, z = one.centre.tolist()
    u, v, w = place.tolist()
    return Lesion(
        kind=one.kind,
        voxels=one.voxels,
        volume_mm3=one.volume,
        centroid_patient_mm=(x, y, z),
        centroid_template_mm=(u, v, w),
        contrast_percent=100 * one.contrast,
        score=one.score,
    )
