"""Where the voxels of a scan lie in the label head: pose, size and a smooth warp."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fr_twisted.pacs.generator.fields import Field, random_field
from fr_twisted.pacs.generator.head import Head
from fr_twisted.pacs.generator.recipe import Recipe, Triple

FIELD_OF_VIEW = (176, 224, 192)
"""Of a scan, mm along x, y, z."""

WARP_KNOTS = 7
"""The warp has structures of some 50 mm and more."""


@dataclass(frozen=True)
class Grid:
    """The voxels of a scan, and the finer ones that they are the means of: ``blocks`` along each axis."""

    shape: tuple[int, int, int]
    blocks: tuple[int, int, int]
    spacing: Triple

    @property
    def fine_shape(self) -> tuple[int, int, int]:
        """Fine voxels along each axis."""
        x, y, z = (count * block for count, block in zip(self.shape, self.blocks, strict=True))
        return x, y, z

    @property
    def fine_spacing(self) -> NDArray[np.float64]:
        """Distance of fine voxels, mm (3)."""
        return np.array(self.spacing) / self.blocks

    @property
    def affine(self) -> NDArray[np.float64]:
        """4 x 4, voxel to scanner mm (RAS); the middle of the grid is at 0."""
        return _centred(self.shape, np.array(self.spacing))

    @property
    def fine_places(self) -> list[NDArray[np.float64]]:
        """Where the fine voxels lie in the field of view, 0 to 1, along each axis."""
        counts, affine = self.fine_shape, self.fine_affine
        return [
            (np.arange(counts[axis]) * affine[axis, axis] + affine[axis, 3]) / FIELD_OF_VIEW[axis] + 0.5
            for axis in range(3)
        ]

    @property
    def fine_affine(self) -> NDArray[np.float64]:
        """The same of the fine voxels."""
        return _centred(self.fine_shape, self.fine_spacing)


def _centred(shape: tuple[int, ...], spacing: NDArray[np.float64]) -> NDArray[np.float64]:
    affine = np.diag((*spacing, 1.0))
    affine[:3, 3] = -(np.array(shape) - 1) / 2 * spacing
    return affine


def grid_of(spacing: Triple) -> Grid:
    """Return the grid that fills the field of view at ``spacing`` mm; what is above 1.5 mm is made of finer voxels.

    Raises:
        ValueError: a spacing is not within 0.5 to 10 mm.
    """
    if not all(0.5 <= edge <= 10 for edge in spacing):
        raise ValueError(f"a spacing of {spacing} mm is not within 0.5 to 10 mm")
    x, y, z = (round(size / edge) for size, edge in zip(FIELD_OF_VIEW, spacing, strict=True))
    a, b, c = (max(1, round(edge)) for edge in spacing)
    return Grid((x, y, z), (a, b, c), spacing)


@dataclass(frozen=True)
class Pose:
    """From scanner millimetres p (3) to indices of the label head: ``matrix @ p + offset + warp(p)``."""

    matrix: NDArray[np.float64]
    offset: NDArray[np.float64]
    warp: tuple[Field, Field, Field] | None

    def to_scan(self, index: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the scanner mm (3) of an index of the label head.

        By iteration, for the warp is given the other way; it moves less than a fifth of what its argument does.
        """
        inverse = np.linalg.inv(self.matrix)
        point = inverse @ (index - self.offset)
        for _ in range(12 if self.warp else 0):
            point = inverse @ (index - self.offset - self._displacement(point))
        return np.asarray(point)

    def _displacement(self, point: NDArray[np.float64]) -> NDArray[np.float64]:
        within = point / FIELD_OF_VIEW + 0.5
        return np.array([field.at(within) for field in self.warp or ()])


def pose_of(recipe: Recipe, head: Head) -> Pose:
    """Return the pose of a recipe: the head scaled along its own axes, turned about x, y and z, then shifted."""
    angles = np.radians(recipe.rotation)
    cx, cy, cz = np.cos(angles)
    sx, sy, sz = np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    turned = about_z @ about_y @ about_x @ np.diag(recipe.scale)
    matrix = np.linalg.inv(turned)
    offset = head.centre - matrix @ np.array(recipe.shift)
    if not recipe.warp:
        return Pose(matrix, offset, None)
    rng = np.random.default_rng((0x5741, recipe.fields_seed))
    x, y, z = (random_field(rng, WARP_KNOTS, -recipe.warp, recipe.warp) for _ in range(3))
    return Pose(matrix, offset, (x, y, z))
