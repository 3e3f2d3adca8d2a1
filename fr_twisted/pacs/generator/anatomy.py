"""What becomes of the label head before it is scanned: thinned cortex, grown ventricles."""

import numpy as np
from numpy.typing import NDArray

from fr_twisted.pacs.generator.fields import random_field
from fr_twisted.pacs.generator.head import RIGHT, Codes, Head, Tissue, cortex_depth, ventricle_depth
from fr_twisted.pacs.generator.recipe import Recipe

FIELD_KNOTS = 9
"""Atrophy and ventricles vary over some 25 mm and more."""


def shape_anatomy(head: Head, recipe: Recipe) -> Codes:
    """Return the codes of the head with the recipe's atrophy and ventricles; millimetres are those of the scan."""
    codes = head.codes
    size = float(np.prod(recipe.scale)) ** (1 / 3)
    if recipe.atrophy > 0:
        codes = _thin(head, recipe, recipe.atrophy / size)
    if recipe.ventricles > 0:
        codes = _grow(codes, recipe, recipe.ventricles / size)
    return codes


def _thin(head: Head, recipe: Recipe, thickness: float) -> Codes:
    """Return a copy where grey matter up to half to one and a half times ``thickness`` under the fluid is fluid."""
    rng = np.random.default_rng((0x4154, recipe.fields_seed))
    codes = head.codes.copy()
    part, depth = codes[head.brain], cortex_depth()
    planes = random_field(rng, FIELD_KNOTS, 0.5, 1.5).over(part.shape)
    for index in range(part.shape[0]):
        limit = planes.plane(index) * np.float32(64 * thickness)
        plane = part[index]
        grey = (plane == Tissue.GREY) | (plane == Tissue.GREY + RIGHT)
        gone = grey & (depth[index] <= np.minimum(limit, np.float32(254)))
        plane -= np.uint8(Tissue.GREY - Tissue.FLUID) * (gone & _on_side(plane, recipe.atrophy_side))
    return codes


def _grow(codes: Codes, recipe: Recipe, growth: float) -> Codes:
    """Return a copy where tissue within ``growth``, give or take a fifth, of the ventricles is ventricle."""
    rng = np.random.default_rng((0x5645, recipe.fields_seed))
    codes = codes.copy()
    box, depth = ventricle_depth(recipe.ventricle_side != 0)
    part = codes[box]
    limit = random_field(rng, FIELD_KNOTS, 0.8, 1.2).over(part.shape).whole() * np.float32(32 * growth)
    tissue = part & (RIGHT - 1)
    solid = (tissue == Tissue.GREY) | (tissue == Tissue.WHITE) | (tissue == Tissue.DEEP_GREY)
    gone = solid & (depth <= np.minimum(limit, np.float32(254))) & _on_side(part, recipe.ventricle_side)
    part[gone] = (part[gone] & RIGHT) + np.uint8(Tissue.VENTRICLE)
    return codes


def _on_side(codes: Codes, side: int) -> NDArray[np.bool_]:
    right = codes >= RIGHT
    return right if side > 0 else ~right if side < 0 else np.ones(codes.shape, bool)
