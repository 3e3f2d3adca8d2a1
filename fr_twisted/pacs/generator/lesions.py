"""Lesions: where they are, how they change the image, and what is true of them."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fr_twisted.pacs.generator.geometry import Grid
from fr_twisted.pacs.generator.head import RIGHT, Codes, Head, Tissue
from fr_twisted.pacs.generator.recipe import Lesion, Recipe
from fr_twisted.pacs.generator.truth import LesionTruth

Floats = NDArray[np.float32]

DEEP = 3
"""Around the centre of a drawn lesion all is white matter, this many voxels of the label head far."""

GAP = 4.0
"""Between the surfaces of two drawn lesions, mm at least."""

SHELL = 2.0
"""Thickness of the shell whose white matter is `LesionTruth.ring`, mm."""

PARTS = 3
"""Points along each axis of a voxel at which the share of a lesion in it is counted."""

UNEVEN = 0.18
"""Largest relative deviation of an axis of the ellipsoid."""

_TRIES = 20_000


def white_matter(head: Head, codes: Codes) -> NDArray[np.int64]:
    """Return the indices of white matter in the flattened box around the brain."""
    brain = codes[head.brain]
    return np.flatnonzero((brain == Tissue.WHITE) | (brain == Tissue.WHITE + RIGHT))


def place_lesions(
    head: Head, codes: Codes, recipe: Recipe, white: NDArray[np.int64] | None = None
) -> tuple[Lesion, ...]:
    """Return the recipe's lesions, each with a place; those that had none are in deep white matter of ``codes``.

    ``white``: `white_matter`, if it is known already.

    Raises:
        ValueError: there is no room for so many.
    """
    rng = np.random.default_rng((0x4C45, recipe.seed))
    wanted = list(_drawn(rng, recipe) if recipe.lesions is None else recipe.lesions)
    if all(lesion.place is not None for lesion in wanted):
        return tuple(wanted)
    white = white_matter(head, codes) if white is None else white
    shape = codes[head.brain].shape
    corner = np.array([side.start for side in head.brain])
    size = float(np.prod(recipe.scale)) ** (1 / 3)
    for number, lesion in enumerate(wanted):
        if lesion.place is not None:
            continue
        for _ in range(_TRIES):
            index = corner + np.unravel_index(white[rng.integers(len(white))], shape)
            x, y, z = (head.origin + index).tolist()
            spot = replace(lesion, place=(x, y, z))
            if _is_deep(codes, index) and all(_apart(spot, other, size) for other in wanted):
                wanted[number] = spot
                break
        else:
            raise ValueError(f"the white matter has no room for {len(wanted)} such lesions")
    return tuple(wanted)


def _drawn(rng: np.random.Generator, recipe: Recipe) -> list[Lesion]:
    lesions = []
    for _ in range(recipe.lesion_count):
        bright = rng.random() < recipe.bright_share
        radius = rng.uniform(*recipe.lesion_radius)
        contrast = rng.uniform(*(recipe.bright_contrast if bright else recipe.dark_contrast))
        lesions.append(Lesion(float(radius), float(contrast)))
    return lesions


def _is_deep(codes: Codes, index: NDArray[np.int64]) -> bool:
    box = tuple(slice(int(i) - DEEP, int(i) + DEEP + 1) for i in index)
    x, y, z = np.ogrid[-DEEP : DEEP + 1, -DEEP : DEEP + 1, -DEEP : DEEP + 1]
    return bool(((codes[box] & (RIGHT - 1)) == Tissue.WHITE)[x * x + y * y + z * z <= DEEP * DEEP].all())


def _apart(lesion: Lesion, other: Lesion, size: float) -> bool:
    if lesion.place is None or other.place is None:
        return True
    return bool(
        size * np.linalg.norm(np.subtract(lesion.place, other.place)) > lesion.radius + other.radius + GAP
    )


@dataclass(frozen=True)
class Patch:
    """The change of an image in a box of its fine voxels, and what is true of the lesion that makes it."""

    box: tuple[slice, ...]
    change: Floats
    truth: LesionTruth


def make_patch(
    lesion: Lesion,
    axes: NDArray[np.float64],
    centre: NDArray[np.float64],
    grid: Grid,
    codes: Codes,
    image: Floats,
) -> Patch:
    """Return the patch of one lesion: an ellipsoid, of which voxels at the border have a share, inside brain tissue.

    The box begins and ends with voxels of the scan and has a margin of three fine voxels at least that do not change.

    Args:
        lesion: what to paint.
        axes: of the ellipsoid, along x, y, z, mm.
        centre: in the scan, mm (RAS).
        grid: of the scan.
        codes: of the fine voxels.
        image: fine voxels before blur, white matter at 1.

    Raises:
        ValueError: none of it lies in brain tissue.
    """
    spacing, first = grid.fine_spacing, grid.fine_affine[:3, 3]
    box = _box(grid, (centre - first) / spacing, axes / spacing)
    offsets = [
        np.arange(side.start, side.stop) * edge + start - middle
        for side, edge, start, middle in zip(box, spacing, first, centre, strict=True)
    ]
    tissue = codes[box] & np.uint8(RIGHT - 1)
    solid = (tissue == Tissue.GREY) | (tissue == Tissue.WHITE) | (tissue == Tissue.DEEP_GREY)
    share = _share(offsets, axes, spacing) * solid
    total = float(share.sum(dtype=np.float64))
    if not total:
        raise ValueError(f"a lesion at {np.round(centre, 1).tolist()} mm of the scan is not in brain tissue")
    x, y, z = (
        float((share.sum(other, dtype=np.float64) * offset).sum() / total + middle)
        for other, offset, middle in zip(((1, 2), (0, 2), (0, 1)), offsets, centre, strict=True)
    )
    truth = LesionTruth(
        kind=lesion.kind,
        radius=lesion.radius,
        contrast=lesion.contrast,
        volume_mm3=total * float(np.prod(spacing)),
        centroid_mm=(x, y, z),
        ring=_ring(offsets, axes, tissue),
    )
    return Patch(box, share * (np.float32(1 + lesion.contrast) - image[box]), truth)


def draw_axes(recipe: Recipe, number: int, lesion: Lesion) -> NDArray[np.float64]:
    """Return the axes (3) of the recipe's lesion ``number``, mm: uneven, of the volume of a ball of its radius."""
    rng = np.random.default_rng((0x4C53, recipe.seed, number))
    uneven = rng.uniform(1 - UNEVEN, 1 + UNEVEN, 3)
    return np.asarray(lesion.radius * uneven / np.prod(uneven) ** (1 / 3))


def _box(grid: Grid, centre: NDArray[np.float64], axes: NDArray[np.float64]) -> tuple[slice, ...]:
    """Return the box around an ellipsoid and its shell; ``centre`` and ``axes`` in fine voxels."""
    reach = axes + SHELL / grid.fine_spacing + 3
    sides = []
    for middle, half, block, count in zip(centre, reach, grid.blocks, grid.fine_shape, strict=True):
        low, high = (
            int(np.floor(middle - half)) // block * block,
            -(-int(np.ceil(middle + half + 1)) // block) * block,
        )
        sides.append(slice(max(0, low), min(count, high)))
    return tuple(sides)


def _share(
    offsets: list[NDArray[np.float64]], axes: NDArray[np.float64], spacing: NDArray[np.float64]
) -> Floats:
    """Return the share of each voxel that is inside the ellipsoid around 0, counted at ``PARTS`` points an axis."""
    points = (np.arange(PARTS) + 0.5) / PARTS - 0.5
    x, y, z = (
        (((offset[:, None] + edge * points) / axis) ** 2).reshape(-1)
        for offset, edge, axis in zip(offsets, spacing, axes, strict=True)
    )
    inside = x[:, None, None] + y[:, None] + z <= 1
    counts = inside.reshape(len(x) // PARTS, PARTS, len(y) // PARTS, PARTS, -1, PARTS).sum(
        (1, 3, 5), dtype=np.uint8
    )
    share: Floats = counts.astype(np.float32) / np.float32(PARTS**3)
    return share


def _ring(offsets: list[NDArray[np.float64]], axes: NDArray[np.float64], tissue: Codes) -> float:
    """Return the share of white matter among the voxels between the ellipsoid and one that is ``SHELL`` mm larger."""

    def within(radii: NDArray[np.float64]) -> NDArray[np.bool_]:
        x, y, z = ((offset / radius) ** 2 for offset, radius in zip(offsets, radii, strict=True))
        return np.asarray(x[:, None, None] + y[:, None] + z <= 1)

    shell = within(axes + SHELL) & ~within(axes)
    return float((tissue[shell] == Tissue.WHITE).mean()) if shell.any() else 0.0
