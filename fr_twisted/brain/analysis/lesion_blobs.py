"""Blobs: places where a ball of some millimetres stands out from its surroundings, at the size at which it does most.

Differences of Gaussians over a ladder of sizes; a blob is a maximum in space of the largest of them (T. Lindeberg,
International Journal of Computer Vision 30, 1998: scale-space blobs). A ball of radius r answers most to the Gaussian
of r / sqrt(3). All this is on the 2 mm lattice of the scene.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fr_twisted.brain.analysis.lesion_map import Lattice, Scene
from fr_twisted.brain.analysis.mixture import WHITE
from fr_twisted.brain.analysis.volume import Array, ndimage

RADII = (2.0, 2.8, 4.0, 5.6)
"""mm; by factors of the square root of 2."""

FULL = {-1: 0.2, 1: 0.15}
"""The contrast, darker and brighter, from which on a voxel stands out fully: about grey matter's in most T1 scans."""

LEAST_ANSWER = {-1: 0.1, 1: 0.06}
"""Of 1; a ball of radius r mm and full contrast answers its own size with about 0.25."""

LEAST_DEPTH_MM, DEEP_MM = 5.0, 20.0
"""Distance from the brain's surface: nearer there are no blobs, and further it does not matter any more."""

LEAST_WHITE = 0.2
"""Share of white matter near a blob."""

FORM_MM = 2.5
"""A blob and so much about it is what the form is told from."""

FEATURES = ("answer", "elongation", "depth", "white near", "white expected", "radius", "shift")
"""`Blobs.features`: strength of the answer, 0..1; longest over shortest deviation of what stands out; mm from the
brain's surface, at most `DEEP_MM`; share of white matter near; prior of white matter; mm; distance from the blob to the
centre of what stands out, mm.
"""


@dataclass(frozen=True)
class Blobs:
    """``centres`` (n, 3), voxels; ``radii`` (n,), mm; ``features`` (n, 7), see `FEATURES`."""

    centres: NDArray[np.float64]
    radii: NDArray[np.float64]
    features: NDArray[np.float64]


def find_blobs(scene: Scene, sign: int) -> Blobs:
    """Return the blobs of a scene, ``sign`` -1: darker, 1: brighter than white matter; in the order of their places."""
    lattice = scene.lattice
    standing = np.clip(lattice.contrast * np.float32(sign / FULL[sign]), 0, 1)
    standing[~lattice.inside] = 1 if sign < 0 else 0
    answer, size = _answers(standing, lattice)
    peaks = answer > LEAST_ANSWER[sign]
    peaks &= (lattice.depth > LEAST_DEPTH_MM) & (lattice.white > LEAST_WHITE)
    peaks &= answer == ndimage.maximum_filter(answer, size=3)
    points = np.argwhere(peaks)
    radii = np.array(RADII)[size[peaks]]
    centres = lattice.voxels(points)
    nearest = np.minimum(np.round(centres).astype(int), np.array(scene.labels.shape) - 1)
    features = np.empty((len(points), len(FEATURES)))
    features[:, 0] = answer[peaks]
    features[:, [1, 6]] = _forms(standing, lattice, points, radii)
    features[:, 2] = np.minimum(lattice.depth[peaks], DEEP_MM)
    features[:, 3] = lattice.white[peaks]
    features[:, 4] = scene.priors[WHITE][tuple(nearest.T)]
    features[:, 5] = radii
    return Blobs(centres, radii, features)


def _answers(standing: Array, lattice: Lattice) -> tuple[Array, NDArray[np.int8]]:
    """Return the largest difference of Gaussians at each point, and which of `RADII` gave it."""
    spacing = np.array(lattice.spacing)
    sigmas = [RADII[0] / 3**0.5 * 2 ** (step / 2 - 0.25) for step in range(len(RADII) + 1)]
    blurred = ndimage.gaussian_filter(standing, sigmas[0] / spacing, truncate=3)
    best = np.full(standing.shape, -1, np.float32)
    size = np.zeros(standing.shape, np.int8)
    for number, (narrow, wide) in enumerate(pairwise(sigmas)):
        more = ndimage.gaussian_filter(blurred, (wide**2 - narrow**2) ** 0.5 / spacing, truncate=3)
        answer = blurred - more
        better = answer > best
        best[better], size[better] = answer[better], number
        blurred = more
    return best, size


def _forms(
    standing: Array, lattice: Lattice, points: NDArray[np.int64], radii: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return of each blob (n, 2) the elongation and the shift of what stands out in and about it."""
    spacing = np.array(lattice.spacing)
    reach = ((RADII[-1] + FORM_MM) / spacing).astype(int)
    offsets = np.argwhere(np.ones(2 * reach + 1)) - reach
    far = np.linalg.norm(offsets * spacing, axis=1)
    padded = np.pad(standing, [(int(n), int(n)) for n in reach], mode="edge")
    strides = np.array([padded.shape[1] * padded.shape[2], padded.shape[2], 1])
    middles = (points + reach) @ strides
    found = np.zeros((len(points), 2))
    for radius in RADII:
        mine, near = np.flatnonzero(radii == radius), offsets[far <= radius + FORM_MM]
        weights = padded.reshape(-1)[middles[mine][:, None] + near @ strides]
        found[mine] = _form(weights.astype(np.float64), near * spacing)
    return found


def _form(weights: NDArray[np.float64], places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return elongation and shift (n, 2) of ``weights`` (n, m) at ``places`` (m, 3) about the middle."""
    total = weights.sum(1)[:, None] + 1e-6
    centre = weights @ places / total
    products = (places[:, :, None] * places[:, None, :]).reshape(-1, 9)
    spread = (weights @ products / total).reshape(-1, 3, 3) - centre[:, :, None] * centre[:, None, :]
    axes = np.sqrt(np.maximum(np.linalg.eigvalsh(spread), 0.1))
    return np.stack([axes[:, 2] / axes[:, 0], np.linalg.norm(centre, axis=1)], 1)
