"""Tells fluid, grey and white matter apart in every voxel of the brain.

The components of `fr_twisted.brain.analysis.mixture` are fitted on a sample; each voxel's tissues follow from its
intensity, the template's maps, and its neighbours: a Markov random field, solved by mean-field sweeps.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fr_twisted.brain.analysis import mixture as model
from fr_twisted.brain.analysis.bias import BiasField
from fr_twisted.brain.analysis.mixture import DEEP, GREY, PAIRS, PURE, Mixture
from fr_twisted.brain.analysis.volume import Array, Mask

SAMPLE_MM = 4.0
"""The mixture is fitted on a lattice of about this distance, or on every voxel along a coarser axis."""

FLOOR = 0.02
"""Least prior of each tissue: the template's maps are no law."""

COUPLING = 0.6
"""Weight of one face neighbour in the random field, for isotropic voxels."""

SWEEPS = 2

SLAB = 16
"""Planes that are worked on at a time: their arrays stay in the processor's cache."""

Spacing = tuple[float, float, float]


@dataclass(frozen=True)
class Tissues:
    """What each voxel holds.

    ``shares`` (3, i, j, k): part of fluid, grey and white matter, sums to 1 in the brain and is 0 outside. ``bias``:
    natural logarithm of the coil's brightness. ``values``: intensity without it. ``mixture``: the pure tissues'
    intensities.
    """

    shares: NDArray[np.float32]
    bias: Array
    values: Array
    mixture: Mixture

    def labels(self) -> NDArray[np.uint8]:
        """Return what each voxel mostly is: 1 fluid, 2 grey, 3 white, 0 outside (i, j, k).

        Fluid where it has more than half, else the larger part of the tissue: a voxel that grey and white matter share
        is no fluid because each of them has less than the fluid beside them.
        """
        fluid, grey, white = self.shares
        tissue = np.where(grey >= white, np.uint8(2), np.uint8(3))
        tissue[fluid > 0.5] = 1
        tissue[self.shares.sum(0) <= 0.5] = 0
        return tissue


def segment(
    intensity: Array, mask: Mask, priors: NDArray[np.float32], deep: Array, spacing: Spacing
) -> Tissues:
    """Return the tissues of a brain.

    Args:
        intensity: (i, j, k), at least 0.
        mask: the brain; not empty.
        priors: (3, i, j, k), probability of fluid, grey, white by the aligned template.
        deep: (i, j, k), how much of the grey matter there is deep grey matter, 0..1.
        spacing: mm, for the sampling and the random field.
    """
    least = np.float32(max(1e-3 * float(np.median(intensity[mask])), 1e-6))
    logs = np.log(np.maximum(intensity, least))
    priors = priors + np.float32(FLOOR)
    priors /= priors.sum(0)
    priors = np.concatenate([priors, priors[[GREY]] * deep])
    priors[GREY] -= priors[DEEP]
    lattice = tuple(slice(None, None, max(1, round(SAMPLE_MM / size))) for size in spacing)
    inside = mask[lattice]
    field = BiasField(logs.shape, np.argwhere(inside) * np.array([side.step for side in lattice]))
    sample = priors[(slice(None), *lattice)][:, inside].astype(np.float64)
    mixture = model.fit(logs[lattice][inside].astype(np.float64), sample, field)
    bias = field.everywhere()
    np.exp(np.subtract(logs, bias, out=logs), out=logs)
    return Tissues(tissue_shares(logs, mask, priors, mixture, spacing), bias, logs, mixture)


def tissue_shares(
    values: Array, mask: Mask, priors: NDArray[np.float32], mixture: Mixture, spacing: Spacing
) -> NDArray[np.float32]:
    """Return the part of fluid, grey and white (3, i, j, k) by bias-free intensity, prior (4, i, j, k) and, after the
    first pass, neighbours.

    A neighbour further away counts less, in proportion to its distance.
    """
    weights = [np.float32(COUPLING * min(spacing) / size) for size in spacing]
    shares = np.zeros_like(priors)
    for sweep in range(SWEEPS + 1):
        before, shares = shares, np.zeros_like(priors)
        for planes in _slabs(mask.shape[0]):
            inside = mask[planes]
            support = _support(before, planes, weights)[:, inside] if sweep else None
            shares[:, planes][:, inside] = _voxel_shares(
                values[planes][inside], priors[:, planes][:, inside], mixture, support
            )
    shares[GREY] += shares[DEEP]
    return shares[:DEEP]


def _slabs(planes: int) -> Iterator[slice]:
    return (slice(start, min(start + SLAB, planes)) for start in range(0, planes, SLAB))


def _support(shares: NDArray[np.float32], planes: slice, weights: list[np.float32]) -> NDArray[np.float32]:
    """Return the weighted sum of the six face neighbours' shares (4, planes, j, k)."""
    low, high = max(0, planes.start - 1), min(shares.shape[1], planes.stop + 1)
    around = shares[:, low:high]
    total = np.zeros_like(around)
    for axis, weight in enumerate(weights):
        to, by = np.moveaxis(total, axis + 1, 0), np.moveaxis(around * weight, axis + 1, 0)
        to[1:] += by[:-1]
        to[:-1] += by[1:]
    return total[:, planes.start - low : total.shape[1] - (high - planes.stop)]


def _voxel_shares(
    values: Array, priors: NDArray[np.float32], mixture: Mixture, support: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """Return the part of each tissue (4, n) in voxels of intensity ``values`` (n,)."""
    means, variances = (column.astype(np.float32) for column in mixture.components())
    logs = np.log(np.maximum(priors, np.float32(1e-6)))
    joint = np.empty((len(means), len(values)), np.float32)
    for k in range(PURE):
        joint[k] = 2 * logs[k] if support is None else 2 * logs[k] + support[k]
    for k, (a, b) in enumerate(PAIRS, start=PURE):
        joint[k] = (joint[a] + joint[b]) / 2 + np.float32(np.log(2))
    for k in range(len(means)):
        joint[k] -= (values - means[k]) ** 2 / (2 * variances[k]) + np.float32(0.5) * np.log(variances[k])
    joint -= joint.max(0)
    np.exp(joint, out=joint)
    joint /= joint.sum(0)
    shares = joint[:PURE].copy()
    for k, (a, b) in enumerate(PAIRS, start=PURE):
        part = second_part(values, means[b] - means[a], means[k], variances[k])
        shares[b] += joint[k] * part
        shares[a] += joint[k] * (1 - part)
    return shares


def second_part(values: Array, step: np.float32, mean: np.float32, variance: np.float32) -> Array:
    """Return the expected part of the second tissue in a mixed voxel: linear regression on its intensity, in 0..1.

    The covariance of part and intensity is step / 12, the variance of a uniform part being 1 / 12.
    """
    part = np.float32(0.5) + step / 12 / variance * (values - mean)
    return np.asarray(np.clip(part, 0, 1), np.float32)
