"""A 3-D image with its place in the patient, and moving it between grids."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.ndimage
from nibabel import orientations
from numpy.typing import NDArray

ndimage: Any = scipy.ndimage
"""Its names are made at run time, unseen by type checkers."""

Array = NDArray[np.float32]
"""Voxel values, axes (i, j, k)."""

Mask = NDArray[np.bool_]
"""A set of voxels, axes (i, j, k)."""

Affine = NDArray[np.float64]
"""4 x 4, homogeneous."""


@dataclass(frozen=True)
class Volume:
    """A 3-D image: ``data`` by voxel index (i, j, k), ``affine`` from index to millimetres.

    Millimetres are those of NIfTI's patient space: x to the right, y to the front, z to the top (RAS+).
    """

    data: Array
    affine: Affine

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between voxel centres along each axis, mm."""
        i, j, k = np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        return i, j, k

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel, mL."""
        return abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    @property
    def orientation(self) -> str:
        """Where each axis points, to the nearest of R/L, A/P and S/I (superior, inferior): ``RAS``, ``LPS``, ..."""
        return "".join(orientations.aff2axcodes(self.affine))

    def with_data(self, data: Array) -> "Volume":
        """Return other values on this grid."""
        return Volume(np.asarray(data, np.float32), self.affine)

    def crop(self, box: tuple[slice, ...]) -> "Volume":
        """Return the part inside ``box``, in its place."""
        return Volume(self.data[box], translated(self.affine, [side.start or 0 for side in box]))


def translated(affine: Affine, offset: list[float] | NDArray[np.float64]) -> Affine:
    """Return the affine of a grid whose first voxel is at index ``offset`` of the grid of ``affine``."""
    moved = affine.copy()
    moved[:3, 3] += affine[:3, :3] @ np.asarray(offset, np.float64)
    return moved


def bounding_box(mask: Mask, margin: int = 0) -> tuple[slice, ...]:
    """Return the smallest box around ``mask`` and ``margin`` voxels about it, inside the grid."""
    box = []
    for axis, size in enumerate(mask.shape):
        hit = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        box.append(slice(max(0, int(hit[0]) - margin), min(size, int(hit[-1]) + 1 + margin)))
    return tuple(box)


def largest_component(mask: Mask, structure: NDArray[np.bool_] | None = None) -> Mask:
    """Return the largest connected part of ``mask``; ``structure`` says which voxels touch (default: by faces)."""
    labels, count = ndimage.label(mask, structure)
    if count < 2:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(labels == sizes.argmax())


def resample(volume: Volume, spacing: tuple[float, float, float]) -> Volume:
    """Return ``volume`` with other voxel sizes (mm) along its own axes, covering the same field.

    Linear interpolation. An axis that becomes coarser by more than 1.3 is first smoothed by a Gaussian of 0.42 of the
    new voxel (its response is then near that of a voxel of that size); an axis within 2 % of the wanted size is kept.
    """
    old = np.array(volume.spacing)
    step = np.asarray(spacing, np.float64) / old
    step[np.abs(step - 1) < 0.02] = 1.0
    if np.all(step == 1.0):
        return volume
    data = volume.data
    for axis in np.flatnonzero(step > 1.3):
        data = ndimage.gaussian_filter1d(data, 0.42 * step[axis], axis=axis, output=np.float32)
    shape = tuple(max(1, round(n / s)) for n, s in zip(data.shape, step, strict=True))
    offset = (step - 1) / 2
    moved = ndimage.affine_transform(
        data, step, offset, output_shape=shape, order=1, mode="nearest", output=np.float32
    )
    affine = translated(volume.affine, offset)
    affine[:3, :3] = volume.affine[:3, :3] * step
    return Volume(moved, affine)


def transfer(volume: Volume, target: Volume, target_to_volume_mm: Affine, mode: str = "constant") -> Array:
    """Return ``volume`` on the grid of ``target`` by linear interpolation.

    Args:
        volume: what is read.
        target: its shape and affine are those of the result.
        target_to_volume_mm: from millimetres of the target to millimetres of the volume.
        mode: what lies outside, as in `scipy.ndimage.affine_transform`; ``constant`` is zero.
    """
    index = np.linalg.inv(volume.affine) @ target_to_volume_mm @ target.affine
    moved = ndimage.affine_transform(
        volume.data,
        index[:3, :3],
        index[:3, 3],
        output_shape=target.data.shape,
        order=1,
        mode=mode,
        output=np.float32,
    )
    return np.asarray(moved, np.float32)
