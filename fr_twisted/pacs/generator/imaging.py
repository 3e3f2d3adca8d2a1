"""From tissues to the stored image: brightness, point spread, thick slices, receive field, ghost, noise, gain."""

from typing import Any

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from fr_twisted.pacs.generator.fields import Field, Floats, random_field
from fr_twisted.pacs.generator.head import RIGHT, Codes, Tissue
from fr_twisted.pacs.generator.recipe import Recipe
from fr_twisted.pacs.generator.truth import Label

ndimage: Any = scipy.ndimage  # whose names are made at run time, unseen by type checkers

WHITE = 1000.0
"""Stored value of white matter at a gain of 1, in the middle of the receive field's range."""

MAX_VALUE = 4095
"""The largest stored value: 12 bits, as MR scanners store."""

LEVELS = {
    Tissue.AIR: 0.0,
    Tissue.FLUID: 0.32,
    Tissue.GREY: 0.775,
    Tissue.WHITE: 1.0,
    Tissue.DEEP_GREY: 0.865,
    Tissue.VENTRICLE: 0.29,
    Tissue.HEAD_1: 0.09,
    Tissue.HEAD_2: 0.20,
    Tissue.HEAD_3: 0.51,
    Tissue.HEAD_4: 0.75,
    Tissue.HEAD_5: 1.07,
    Tissue.HEAD_6: 1.44,
    Tissue.HEAD_7: 1.86,
}
"""Brightness relative to white matter: medians of the labels' voxels in Colin27, of the fluids somewhat less, since the
border's partial volume is painted again."""

BIAS_KNOTS = 5
"""The receive field has structures of some 90 mm and more."""

TILE = 64
"""Edge of the texture within tissues, fine voxels; it repeats."""

LABELS = {
    Tissue.FLUID: Label.FLUID,
    Tissue.GREY: Label.GREY,
    Tissue.WHITE: Label.WHITE,
    Tissue.DEEP_GREY: Label.GREY,
    Tissue.VENTRICLE: Label.VENTRICLE,
}


def palette(recipe: Recipe) -> Floats:
    """Return the brightness of each code, float32 (32), white matter at 1; the others spread from scan to scan.

    Outside the brain twice as far, for fat and marrow vary more.
    """
    rng = np.random.default_rng((0x5041, recipe.fields_seed))
    levels = np.array([LEVELS[tissue] for tissue in Tissue])
    spread = recipe.contrast_spread * np.where(
        levels == 1, 0, np.where(np.array(Tissue) >= Tissue.HEAD_1, 2, 1)
    )
    levels *= 1 + spread * np.clip(rng.standard_normal(len(levels)), -2.5, 2.5)
    table = np.zeros(2 * RIGHT, np.float32)
    table[: len(levels)] = table[RIGHT : RIGHT + len(levels)] = levels
    return table


def label_table() -> NDArray[np.uint8]:
    """Return the `Label` of each code, uint8 (32)."""
    table = np.zeros(2 * RIGHT, np.uint8)
    for tissue, label in LABELS.items():
        table[[tissue, tissue + RIGHT]] = label
    return table


def add_texture(image: Floats, codes: Codes, recipe: Recipe) -> None:
    """Make tissues uneven, in place: a texture of some 3 mm, four times as strong outside the brain.

    ``image`` and ``codes``: of the fine voxels.
    """
    if not recipe.texture:
        return
    rng = np.random.default_rng((0x5445, recipe.fields_seed))
    tile = ndimage.gaussian_filter(rng.standard_normal((TILE,) * 3, dtype=np.float32), 1.2, mode="wrap")
    tile *= np.float32(recipe.texture) / tile.std()
    strength = np.zeros(2 * RIGHT, np.float32)
    for tissue in Tissue:
        strength[[tissue, tissue + RIGHT]] = 4.0 if tissue >= Tissue.HEAD_1 else 1.0
    strength[[Tissue.AIR, Tissue.AIR + RIGHT]] = 0
    repeats = [-(-count // TILE) for count in image.shape[1:]]
    for index, (plane, code) in enumerate(zip(image, codes, strict=True)):
        texture = np.tile(tile[index % TILE], repeats)[: plane.shape[0], : plane.shape[1]]
        texture *= strength[code]
        texture += 1
        plane *= texture


def soften(image: Floats, blur: float, spacing: NDArray[np.float64], blocks: tuple[int, ...]) -> Floats:
    """Return ``image`` after the point spread (a Gaussian of ``blur`` mm) and the averaging of blocks of fine voxels.

    ``spacing``: of the fine voxels, mm (3).
    """
    for axis, (edge, block) in enumerate(zip(spacing, blocks, strict=True)):
        if blur > 0:
            image = ndimage.gaussian_filter1d(
                image, blur / edge, axis, output=np.float32, mode="nearest", truncate=3.0
            )
        if block > 1:
            shape = (*image.shape[:axis], -1, block, *image.shape[axis + 1 :])
            image = image.reshape(shape).mean(axis + 1, dtype=np.float32)
    return image


def majority(labels: NDArray[np.uint8], blocks: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return the label that most voxels of each block have; the smallest of several."""
    if max(blocks) == 1:
        return labels
    best = _block_sum(labels == 0, blocks)
    out = np.zeros(best.shape, np.uint8)
    for label in list(Label)[1:]:
        votes = _block_sum(labels == label, blocks)
        out[votes > best] = label
        np.maximum(best, votes, out=best)
    return out


def _block_sum(mask: NDArray[np.bool_], blocks: tuple[int, ...]) -> NDArray[np.uint16]:
    counts: NDArray[Any] = mask.view(np.uint8)
    for axis, block in enumerate(blocks):
        shape = (*counts.shape[:axis], -1, block, *counts.shape[axis + 1 :])
        counts = counts.reshape(shape).sum(axis + 1, dtype=np.uint16)
    return counts


def receive_field(recipe: Recipe) -> Field | None:
    """Return the factor of the receive field over the field of view, or None for an even one."""
    if not recipe.bias:
        return None
    rng = np.random.default_rng((0x4249, recipe.fields_seed))
    return random_field(rng, BIAS_KNOTS, 1 - recipe.bias, 1 + recipe.bias)


def receive(image: Floats, recipe: Recipe) -> None:
    """Apply the receive field and the ghost, in place.

    The ghost of a scan whose every second line is off lies half a field of view away (N/2 ghost).
    """
    field = receive_field(recipe)
    if field is not None:
        planes = field.over(image.shape)
        for index, plane in enumerate(image):
            plane *= planes.plane(index)
    if recipe.ghost:
        image += np.float32(recipe.ghost) * np.roll(
            image, image.shape[recipe.ghost_axis] // 2, recipe.ghost_axis
        )


def store(image: Floats, recipe: Recipe) -> NDArray[np.int16]:
    """Return the magnitude image with its noise, int16, 0 to `MAX_VALUE`."""
    rng = np.random.default_rng((0x4E4F, recipe.seed))
    out = np.empty(image.shape, np.int16)
    real, imaginary = np.zeros(image.shape[1:], np.float32), np.zeros(image.shape[1:], np.float32)
    for plane, stored in zip(image, out, strict=True):
        if recipe.noise:
            rng.standard_normal(dtype=np.float32, out=real)
            rng.standard_normal(dtype=np.float32, out=imaginary)
        store_magnitude(plane, (real, imaginary), recipe, stored)
    return out


def store_magnitude(
    image: Floats, channels: tuple[Floats, Floats], recipe: Recipe, out: NDArray[np.int16]
) -> None:
    """Write the magnitude image to ``out``, scaled by the gain and rounded; ``channels``: noise of deviation 1 in each.

    A magnitude image has Rician noise: the modulus of two channels with Gaussian noise each (Gudbjartsson and Patz
    1995, doi:10.1002/mrm.1910340618).
    """
    deviation = np.float32(recipe.noise)
    power, other = (channel * deviation for channel in channels)
    power += image
    power *= power
    other *= other
    power += other
    np.sqrt(power, out=power)
    power *= np.float32(WHITE * recipe.gain)
    power += np.float32(0.5)
    np.minimum(power, np.float32(MAX_VALUE), out=power)
    np.copyto(out, power, casting="unsafe")


def tissue_volumes(counts: NDArray[np.float64], voxel_ml: float) -> NDArray[np.float64]:
    """Return the mL of each label on each side, float64 (2, labels): left, right. ``counts``: voxels of each code."""
    sides = counts.reshape(2, RIGHT)
    volumes = np.zeros((2, len(Label)))
    for tissue, label in LABELS.items():
        volumes[:, label] += sides[:, tissue] * voxel_ml
    return volumes
