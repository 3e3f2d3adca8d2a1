"""Lesions by design: each radius with each contrast equally often, spread over heads, far from each other."""

import functools
from dataclasses import replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from fr_twisted.pacs.generator.head import RIGHT, Codes, Head, Tissue, load_head
from fr_twisted.pacs.generator.recipe import Lesion, Recipe, Triple

RADII = (2.0, 3.0, 4.0, 5.0, 6.0)
DARK = (-0.12, -0.20, -0.30, -0.40)
BRIGHT = (0.15, 0.22, 0.30)

DEEP_RING = 0.8
"""From this share of white matter in the shell of 2 mm around it on, a lesion is deep."""

DEEP = (0.9, 1.0)
NEAR_CORTEX = (0.3, 0.7)
"""Shares of white matter around the two kinds of places that are drawn, in the label head."""

SHELL_MM = 2.0
GAP_MM = 10.0
"""Between the surfaces of two lesions, in the label head, at least."""

TRIES = 200_000

Offsets = NDArray[np.int64]


def deal(hands: int, deep: int, near: int) -> list[tuple[list[Lesion], list[Lesion]]]:
    """Return for each of ``hands`` heads its ``deep`` and ``near`` lesions, without places.

    All pairs of radius and contrast come equally often, or once more, over the heads; in an order that is drawn once.
    """
    pairs = list(product(RADII, DARK + BRIGHT))
    rng = np.random.default_rng(0x4C44)

    def deck(count: int) -> list[Lesion]:
        rounds = [rng.permutation(len(pairs)) for _ in range(-(-count // len(pairs)))]
        order = np.concatenate(rounds).tolist()[:count] if count else []
        return [Lesion(*pairs[int(number)]) for number in order]

    first, second = deck(hands * deep), deck(hands * near)
    return [
        (first[hand * deep : (hand + 1) * deep], second[hand * near : (hand + 1) * near])
        for hand in range(hands)
    ]


def with_lesions(recipe: Recipe, deep: list[Lesion], near: list[Lesion]) -> Recipe:
    """Return the recipe with these lesions at drawn places: deep in white matter, and near the cortex.

    Raises:
        ValueError: there is no room.
    """
    rng = np.random.default_rng((0x4C50, recipe.seed))
    head = load_head()
    size = float(np.prod(recipe.scale)) ** (1 / 3)
    wanted = [(lesion, DEEP) for lesion in deep] + [(lesion, NEAR_CORTEX) for lesion in near]
    placed: list[Lesion] = []
    for lesion, ring in sorted(wanted, key=lambda pair: -pair[0].radius):
        placed.append(replace(lesion, place=_place(rng, head, lesion.radius / size, ring, placed)))
    return replace(recipe, lesions=tuple(placed))


def _place(
    rng: np.random.Generator, head: Head, radius: float, ring: tuple[float, float], others: list[Lesion]
) -> Triple:
    """Return a place in white matter, stereotaxic mm; ``radius`` in the label head."""
    white = _white_matter()
    shell = _shell(radius)
    for _ in range(TRIES):
        index = white[rng.integers(len(white))]
        mm = head.origin + index
        near = any(
            np.linalg.norm(mm - np.array(other.place)) < radius + other.radius + GAP_MM for other in others
        )
        if not near and ring[0] <= ring_share(head.codes, index, shell) <= ring[1]:
            x, y, z = (float(value) for value in mm)
            return x, y, z
    raise ValueError(f"there is no room for a lesion of {radius:.1f} mm beside {len(others)}")


@functools.cache
def _white_matter() -> Offsets:
    """Return the indices (n, 3) of white matter in the label head."""
    head = load_head()
    index = np.argwhere(_white(head.codes[head.brain])) + [side.start for side in head.brain]
    return np.asarray(index, np.int64)


def ring_share(codes: Codes, index: NDArray[np.int64], shell: Offsets) -> float:
    """Return the share of white matter in a shell around a voxel."""
    return float(_white(codes[tuple((index + shell).T)]).mean())


def _white(codes: Codes) -> NDArray[np.bool_]:
    return np.asarray((codes & (RIGHT - 1)) == Tissue.WHITE)


def _shell(radius: float) -> Offsets:
    reach = int(np.ceil(radius + SHELL_MM))
    offsets = np.argwhere(np.ones((2 * reach + 1,) * 3)) - reach
    far = np.linalg.norm(offsets, axis=1)
    return np.asarray(offsets[(far > radius) & (far <= radius + SHELL_MM)])
