"""Finds the brain with the two nets of deepbet (L. Fisch et al., arXiv 2308.07003): first a box, then the mask."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from fr_twisted.brain.analysis.nets import runtime
from fr_twisted.brain.analysis.template import DATA
from fr_twisted.brain.analysis.volume import (
    Array,
    Mask,
    Volume,
    bounding_box,
    largest_component,
    ndimage,
    translated,
)

BOX_GRID = 128
"""Voxels a side at which the first net looks at the whole field (as published)."""

BRAIN_GRID = 192
"""Voxels a side at which the second net looks at the box. Published with 256; on Colin27 192 has the same Dice within
.001, at under half the time and memory."""

BOX_MARGIN = 0.1
"""Share of the box's size added on each side (as published)."""

THRESHOLD = 0.2
"""Least probability of a voxel of the mask. At the published 0.5 the nets leave out fluid at the skull, the more the
more a brain has shrunk: 2 to 5 % of the intracranial volume of generated scans. At 0.2 it is 0 to 3 %, and on the
real Colin27 the mask is 1.5 % larger than that of the published 256 grid at 0.5; lower, the two part further.
"""

TOUCHING = np.ones((3, 3, 3), bool)
"""Voxels that share a corner are connected."""


@cache
def _session(name: str) -> Any:
    """Return a net on one thread, without the arena that would keep its peak memory for good."""
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    content = (DATA / name).read_bytes()
    return runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _run(name: str, image: Array, low: float, high: float) -> Array:
    """Return a net's probability of brain for each voxel of ``image``, normalised as in deepbet's training."""
    x = np.clip((image - np.float32(low)) / np.float32(high - low), 0, 1)
    x = 0.226 * (x - x.mean()) / x.std(ddof=1) + 0.449
    output = _session(name).run(["y"], {"x": x.astype(np.float32)[None, None]})[0]
    return np.asarray(output[0, 1], np.float32)


def nearest(data: Array, shape: tuple[int, ...]) -> Array:
    """Return ``data`` resized to ``shape`` by the nearest voxel centre (torch's ``nearest-exact``)."""
    index = [((np.arange(n) + 0.5) * size / n).astype(int) for n, size in zip(shape, data.shape, strict=True)]
    return np.ascontiguousarray(data[np.ix_(*index)])


def enlarged(data: Array, shape: tuple[int, ...]) -> Array:
    """Return ``data`` resized to ``shape`` by linear interpolation, edge to edge."""
    zoom = [n / size for n, size in zip(shape, data.shape, strict=True)]
    return np.asarray(
        ndimage.zoom(data, zoom, order=1, mode="nearest", grid_mode=True, output=np.float32), np.float32
    )


@dataclass(frozen=True)
class Glimpse:
    """What the first net sees of a whole field. ``brain``: probability, on a grid of `BOX_GRID` over the field.

    ``low``, ``high``: between which the nets take brightness.
    """

    brain: Volume
    low: float
    high: float

    def mask(self, shape: tuple[int, ...]) -> Mask:
        """Return the rough brain on the grid of the field, which has this ``shape``."""
        return nearest(_largest(self.brain.data).astype(np.float32), shape) > 0.5


def glimpse(head: Volume) -> Glimpse:
    """Return what the first net sees in a head in RAS axis order; in a field of one brightness, nothing."""
    small = nearest(head.data, (BOX_GRID,) * 3)
    low, high = np.quantile(small, [0.005, 0.995]).tolist()
    brain = _run("bbox.onnx", small, low, high) if high > low else np.zeros_like(small)
    step = np.array(head.data.shape) / BOX_GRID
    affine = translated(head.affine, (step - 1) / 2)
    affine[:3, :3] = head.affine[:3, :3] * step
    return Glimpse(Volume(brain, affine), low, high)


def brain_box(probability: Array, shape: tuple[int, ...]) -> tuple[slice, ...] | None:
    """Return the box around the brain that the first net saw, with its margin, in voxels of a field of ``shape``.

    It spans the planes of which the largest connected part covers more than 2 % (as published); None: there are none.
    """
    seen = _largest(probability)
    box = []
    for axis, size in enumerate(shape):
        share = seen.mean(axis=tuple(a for a in range(3) if a != axis))
        planes = np.flatnonzero(share > 0.02)
        if not planes.size:
            return None
        scale = size / seen.shape[axis]
        centre = round((planes[0] + planes[-1] + 1) / 2 * scale)
        half = round((planes[-1] + 1 - planes[0]) * scale * (1 + 2 * BOX_MARGIN)) / 2
        box.append(slice(max(0, int(centre - half)), min(size, int(centre + half))))
    return tuple(box)


def _largest(probability: Array) -> Mask:
    return largest_component(probability > 0.5, TOUCHING)


def brain_mask(head: Volume, seen: Glimpse) -> Mask:
    """Return the brain with the fluid about it, inside the skull; empty when no brain is seen.

    Args:
        head: T1-weighted, in RAS axis order; a brain without its skull does as well.
        seen: of it.
    """
    data = head.data
    mask = np.zeros(data.shape, bool)
    box = brain_box(seen.brain.data, data.shape)
    if box is None:
        return mask
    probability = _run("brain.onnx", nearest(data[box], (BRAIN_GRID,) * 3), seen.low, seen.high)
    mask[box] = enlarged(probability, data[box].shape) > THRESHOLD
    if mask.any():
        mask = largest_component(mask, TOUCHING)
        inside = bounding_box(mask, margin=2)
        mask[inside] = ndimage.binary_fill_holes(mask[inside]) & not_blank(data[inside])
    return mask


def not_blank(data: Array) -> Mask:
    """Return where something was measured: not in the zeros around a brain that was stripped before."""
    return np.asarray(ndimage.binary_fill_holes(data > 0))
