"""Finds the middle between the hemispheres: the warped template's, then where the brain is most like its mirror image.

The template is symmetric about its plane x = 0. The warp bends that plane to the brain, to a millimetre or so; half
a millimetre of it is three points of the index of the template's own ventricles. So each place of the middle is moved
to where what lies left and right of it within a few millimetres is most alike (the local symmetry of Y. Liu et al.,
IEEE TMI 20, 2001, as a sum of squared differences).
"""

import numpy as np
from numpy.typing import NDArray

from fr_twisted.brain.analysis.template import Template
from fr_twisted.brain.analysis.volume import Array, Volume, ndimage, transfer
from fr_twisted.brain.analysis.warp import Warp, standardised

BAND_MM = 6.0
"""On each side of the middle, where the warp is asked how it bends."""

CLEAR_MM = 6.0
"""Distance from the ventricles from which on its answer counts: one wide ventricle pushes the warp, not the septum."""

BRIDGE_MM = 10.0
"""Standard deviation of the Gaussian that bridges the rest."""

STEP_MM = 0.5
FURTHEST_MM = 4.0
"""How far the middle may be moved."""

REACH_MM = 4.0
"""How far from the middle left and right are compared: further out hemispheres and ventricles truly differ."""

LARGEST = np.float32(0.6)
"""Squared differences count up to this, in units of `fr_twisted.brain.analysis.warp.standardised`."""

STAY = 0.001
"""Cost of a move, per mm squared."""

WINDOW_MM, SMOOTH_MM = 4.0, 3.0
"""Gaussians over which differences are collected, and the moves are smoothed."""

Plane = NDArray[np.float64]
"""A number for each (y, z) of the template's grid."""


def midline(brain: Volume, warp: Warp, template: Template) -> Plane:
    """Return the x of the middle, mm, for each (y, z) of the template's grid, where the brain lies as aligned.

    Args:
        brain: stripped, 2 mm, 0 outside.
        warp: of the template to it.
        template: symmetric about x = 0.
    """
    seen = transfer(brain, template.volume(template.t1), warp.matrix)
    start = _bridged(warp, template)
    return _moved(start, standardised(seen, seen > 0, template), seen > 0, template)


def _bridged(warp: Warp, template: Template) -> Plane:
    """Return where the warp bends the plane x = 0 to."""
    step = float(template.affine[0, 0])
    x = np.arange(template.t1.shape[0]) * step + template.affine[0, 3]
    band = np.abs(x) <= BAND_MM
    near = warp.warped(template.ventricles) > 0.2
    away = ndimage.distance_transform_edt(~near) * step > CLEAR_MM
    weight = (away & (template.mask > 0.5))[band].astype(np.float64)
    return -_averaged((warp.field[0][band] * step * weight).sum(0), weight.sum(0), BRIDGE_MM / step)


def _averaged(sums: Plane, weights: Plane, sigma: float) -> Plane:
    """Return the weighted means under a Gaussian of ``sigma`` grid steps; 0 where there is no weight."""
    above, below = (ndimage.gaussian_filter(part, sigma, mode="constant") for part in (sums, weights))
    return np.asarray(above / (below + 1e-6))


def _moved(start: Plane, intensity: Array, inside: NDArray[np.bool_], template: Template) -> Plane:
    """Return ``start`` moved to where ``intensity`` is most symmetric."""
    step, origin = float(template.affine[0, 0]), float(template.affine[0, 3])
    most, reach = round(FURTHEST_MM / STEP_MM), round(REACH_MM / STEP_MM)
    places = np.arange(-(most + reach), most + reach + 1) * STEP_MM
    band = np.stack([_at(intensity, (start + place - origin) / step) for place in places])
    weight = (ndimage.gaussian_filter(_at(inside, (start - origin) / step), 1.0) > 0.3).astype(np.float64)
    costs = []
    for shift in range(-most, most + 1):
        middle = most + reach + shift
        pairs = (band[middle + k] - band[middle - k] for k in range(1, reach + 1))
        unlike = sum(np.minimum(pair**2, LARGEST) for pair in pairs) / reach
        alike = _averaged(unlike * weight, weight, WINDOW_MM / step)
        costs.append(alike + STAY * (shift * STEP_MM) ** 2)
    shifts, sharpness = _lowest(np.stack(costs), most)
    return start + _averaged(shifts * sharpness * weight, sharpness * weight, SMOOTH_MM / step)


def _at(data: NDArray[np.generic], x: Plane) -> Plane:
    y, z = np.indices(x.shape)
    values = np.asarray(data, np.float32)
    return np.asarray(ndimage.map_coordinates(values, (x, y, z), order=1, mode="nearest"), np.float64)


def _lowest(costs: NDArray[np.float64], most: int) -> tuple[Plane, Plane]:
    """Return the shift (mm) of the lowest cost, between steps by a parabola, and that parabola's curvature."""
    index = np.clip(costs.argmin(0), 1, len(costs) - 2)
    before, here, after = (np.take_along_axis(costs, (index + k)[None], 0)[0] for k in (-1, 0, 1))
    curvature = np.maximum(before - 2 * here + after, 1e-9)
    part = np.clip((before - after) / (2 * curvature), -1, 1)
    return (index - most + part) * STEP_MM, curvature
