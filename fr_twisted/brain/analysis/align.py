"""Aligns the template to a scan: twelve degrees of freedom, by Gauss-Newton on the correlation of the two brains."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fr_twisted.brain.analysis.template import Template
from fr_twisted.brain.analysis.volume import Affine, Mask, Volume, ndimage, resample

GRID_MM = 2.0

STAGES = ((8, 12.0, 12), (6, 8.0, 12), (4, 6.0, 8))
"""Coarse to fine: distance of the sampled points (mm), smoothing of both images (FWHM, mm), most steps."""

LEVER_MM = 60.0
"""The linear part is solved in units of the shift it makes at this distance, which conditions the normal equations."""

LEAST_BRIGHT = 1e-3
"""Of a brain, in units of a scan in standard form."""

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Alignment:
    """How the template lies in the scan: ``matrix`` from template to scan millimetres, and how alike they then are."""

    matrix: Affine
    score: float
    """Correlation of the smoothed brains, -1..1; 0.92 to 0.96 for a whole T1 brain."""


def brain_at_2mm(scan: Volume, mask: Mask) -> tuple[Volume, Volume]:
    """Return the stripped brain, 1 at its 95th percentile, and its mask, both resampled to 2 mm."""
    # in a scan in standard form tissue is near 1; a mask over darkness has nothing to be relative to
    bright = np.float32(max(float(np.percentile(scan.data[mask], 95)), LEAST_BRIGHT))
    brain = scan.with_data(np.clip(scan.data / bright, 0, 1.6) * mask)
    spacing = (GRID_MM,) * 3
    return resample(brain, spacing), resample(scan.with_data(mask.astype(np.float32)), spacing)


def align(brain: Volume, mask: Volume, template: Template) -> Alignment:
    """Return the alignment of ``template`` with a stripped ``brain`` and its ``mask``, both at 2 mm."""
    matrix = moments(mask, template)
    score = -1.0
    for step, fwhm, rounds in STAGES:
        matrix, score = refine(matrix, brain, template, step, fwhm, rounds)
    return Alignment(matrix, score)


def moments(mask: Volume, template: Template) -> Affine:
    """Return the start: the template's brain on the scan's centre of mass, scaled to its volume, not turned."""
    target = template.volume(template.mask)
    size = np.cbrt(_millilitres(mask) / _millilitres(target))
    matrix = np.diag([size, size, size, 1.0])
    matrix[:3, 3] = _centre(mask) - size * _centre(target)
    return matrix


def _millilitres(mask: Volume) -> float:
    return float((mask.data > 0.5).sum()) * mask.voxel_ml


def _centre(mask: Volume) -> Vector:
    index = np.argwhere(mask.data > 0.5).mean(0)
    return np.asarray(mask.affine[:3, :3] @ index + mask.affine[:3, 3])


def smooth(volume: Volume, fwhm: float) -> Volume:
    """Return ``volume`` smoothed by a Gaussian of ``fwhm`` mm."""
    sigma = [fwhm / np.sqrt(8 * np.log(2)) / size for size in volume.spacing]
    return volume.with_data(ndimage.gaussian_filter(volume.data, sigma, output=np.float32))


def refine(
    matrix: Affine, brain: Volume, template: Template, step: int, fwhm: float, rounds: int
) -> tuple[Affine, float]:
    """Return a better alignment and its correlation.

    Each round linearises the scan's intensity about the present place and solves for the twelve parameters, the
    scale and offset between the two intensities projected out (so that least squares is correlation). It ends when
    the correlation rises by less than 1e-5.
    """
    points, wanted = _template_points(template, step, fwhm)
    moving = smooth(brain, fwhm)
    gradient = [np.asarray(part, np.float32) for part in np.gradient(moving.data)]
    to_index = np.linalg.inv(brain.affine)
    centre = points.mean(0)
    lever = np.c_[(points - centre) / LEVER_MM, np.ones(len(points))]
    last = -1.0
    for count in range(rounds):
        where = (to_index @ matrix)[:3] @ np.c_[points, np.ones(len(points))].T
        found, slope = _sample(moving.data, where), np.stack([_sample(g, where) for g in gradient], 1)
        spread = found.std() + 1e-9
        seen = (found - found.mean()) / spread
        score = float((seen * wanted).mean())
        if count > 3 and score - last < 1e-5:
            break
        last = score
        slope = slope @ to_index[:3, :3] / spread
        matrix = matrix + _update(_solve(slope, lever, seen, wanted), centre)
    return matrix, score


def _template_points(template: Template, step: int, fwhm: float) -> tuple[Vector, Vector]:
    """Return where the template's brain is sampled (n, 3; mm) and its smoothed, standardised intensity there (n,)."""
    every = (slice(None, None, round(step / GRID_MM)),) * 3
    near = ndimage.gaussian_filter(template.mask, 1.5)[every] > 0.05
    index = np.argwhere(near) * round(step / GRID_MM)
    points = index @ template.affine[:3, :3].T + template.affine[:3, 3]
    values = smooth(template.volume(template.t1), fwhm).data[every][near].astype(np.float64)
    return points, (values - values.mean()) / values.std()


def _sample(data: NDArray[np.float32], where: Vector) -> Vector:
    return np.asarray(ndimage.map_coordinates(data, where, order=1, mode="nearest"), np.float64)


def _solve(slope: Vector, lever: Vector, seen: Vector, wanted: Vector) -> Vector:
    """Return the parameters (3, 4): for each direction the linear part, per `LEVER_MM`, and the shift (mm)."""
    jacobian = np.concatenate([slope[:, [axis]] * lever for axis in range(3)], 1)
    basis = np.linalg.qr(np.c_[seen, np.ones(len(seen))])[0]
    jacobian -= basis @ (basis.T @ jacobian)
    residual = wanted - basis @ (basis.T @ wanted)
    normal = jacobian.T @ jacobian
    if not np.trace(normal) > 0:
        return np.zeros((3, 4))  # no structure under the template: nothing to follow
    normal += 1e-4 * np.trace(normal) / 12 * np.eye(12)
    return np.asarray(np.linalg.solve(normal, jacobian.T @ residual).reshape(3, 4))


def _update(step: Vector, centre: Vector) -> Affine:
    change = np.zeros((4, 4))
    change[:3, :3] = step[:, :3] / LEVER_MM
    change[:3, 3] = step[:, 3] - change[:3, :3] @ centre
    return change
