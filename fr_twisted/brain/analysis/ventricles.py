"""Finds the ventricles: deep fluid that hangs together with the template's ventricles, and is nearer to them than to
any of its other fluid. So wide ventricles are followed, and the cisterns and the velum interpositum beside them are
not.
"""

import numpy as np
from numpy.typing import NDArray

from fr_twisted.brain.analysis.anatomy import Label
from fr_twisted.brain.analysis.template import Template
from fr_twisted.brain.analysis.volume import Array, Mask, Volume, ndimage
from fr_twisted.brain.analysis.warp import Warp

CORE = 0.5
"""Least value of the warped template's map of a seed."""

REACH_MM = 6.0
"""How far fluid may lie from the template's ventricles to count."""

FLUID = 0.5
"""Least value of the warped template's map of other fluid."""

DEPTH_MM = 8.0
"""Least distance from the surface of the intracranial space."""

GRID_MM = 2.0
"""Distances are found on about this grid, and linearly in between."""


def ventricles(labels: NDArray[np.uint8], brain: Volume, warp: Warp, template: Template) -> Mask:
    """Return the lateral, third and fourth ventricles (i, j, k).

    Args:
        labels: `Label` of each voxel in the box around the brain.
        brain: its grid.
        warp: of the template to it.
        template: whose ventricles are the seeds.
    """
    expected = warp.warped(template.ventricles)
    reach = _reach(expected, warp.warped(template.fluid), template.volume(expected).spacing)
    fluid = labels == Label.FLUID
    fluid &= warp.placed(reach, brain, "nearest") > 0
    fluid &= _depth(labels != Label.OUTSIDE, brain) > DEPTH_MM
    seeds = fluid & (warp.placed(expected, brain, "nearest") > CORE)
    parts, count = ndimage.label(fluid)
    keep = np.zeros(count + 1, bool)
    keep[np.unique(parts[seeds])] = True
    keep[0] = False
    return np.asarray(keep[parts])


def _reach(expected: Array, fluid: Array, spacing: tuple[float, float, float]) -> Array:
    """Return, on the template's grid, by how many mm a point is nearer to the ventricles than to what bounds them.

    Bounds are `REACH_MM`, and other fluid of the template: that which does not touch the ventricles.
    """
    other = (fluid > FLUID) & ~ndimage.binary_dilation(expected > CORE - 0.1)
    away = ndimage.distance_transform_edt(expected <= CORE, sampling=spacing)
    elsewhere = ndimage.distance_transform_edt(~other, sampling=spacing)
    return np.asarray(np.minimum(REACH_MM, elsewhere) - away, np.float32)


def _depth(inside: Mask, brain: Volume) -> Array:
    """Return the distance of each voxel from the surface of ``inside``, mm, 0 outside."""
    every = [max(1, round(GRID_MM / size)) for size in brain.spacing]
    coarse = inside[tuple(slice(None, None, n) for n in every)]
    sampling = [n * size for n, size in zip(every, brain.spacing, strict=True)]
    depth = ndimage.distance_transform_edt(np.pad(coarse, 1), sampling=sampling)[1:-1, 1:-1, 1:-1]
    scale = [1 / n for n in every]
    return np.asarray(
        ndimage.affine_transform(
            depth.astype(np.float32),
            scale,
            output_shape=inside.shape,
            order=1,
            mode="nearest",
            output=np.float32,
        ),
        np.float32,
    )
