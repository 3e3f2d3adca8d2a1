"""The numbers that make one generated scan, and how they are drawn from a seed.

A recipe whose numbers are left at their defaults is the label head as it is: no pose, no disease, no noise.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

Triple = tuple[float, float, float]
"""Of the axes x (to the right), y (to the front), z (to the top)."""

HEAD_VOLUME_ML = 1956.0
"""Intracranial volume of the label head as it is."""

SEXES = {"M": (1469.0, 102.0), "F": (1289.0, 111.0)}
"""Intracranial volume of men and women, mean and standard deviation, mL (Matsumae et al. 1996,
doi:10.3171/jns.1996.84.6.0982)."""

SMALLEST, LARGEST = 1150.0, 1750.0
"""Intracranial volumes that are drawn, mL."""


class LesionKind(StrEnum):
    """Against the white matter around."""

    HYPOINTENSE = "hypointense"
    HYPERINTENSE = "hyperintense"


@dataclass(frozen=True)
class Lesion:
    """An ellipsoid in the brain, axes within 18 % of each other.

    ``radius``: of the ball of the same volume, mm in the scan. ``contrast``: against white matter, -0.3 is 30 % darker.
    ``place``: its centre in the label head, mm (RAS, stereotaxic space); None: drawn in deep white matter.
    """

    radius: float
    contrast: float
    place: Triple | None = None

    @property
    def kind(self) -> LesionKind:
        """Darker or brighter than white matter."""
        return LesionKind.HYPERINTENSE if self.contrast > 0 else LesionKind.HYPOINTENSE


@dataclass(frozen=True)
class Recipe:
    """All numbers of one scan. Angles in degrees, lengths in mm; sides: 0 both, -1 the left, +1 the right only."""

    seed: int
    """Of what is drawn while the scan is made: lesions, noise, and all fields unless ``base_seed`` is given."""
    base_seed: int | None = None
    """Of the fields that related scans share: warp, thinning, contrast, texture, receive field. None: ``seed``."""
    spacing: Triple = (1.0, 1.0, 1.0)
    """Distance of voxels. Thick slices are the means of thin ones."""
    rotation: Triple = (0.0, 0.0, 0.0)
    shift: Triple = (0.0, 0.0, 0.0)
    scale: Triple = (1.0, 1.0, 1.0)
    """Size against the label head along its own axes."""
    warp: float = 0.0
    """Largest displacement along an axis of the smooth warp."""
    atrophy: float = 0.0
    """Thickness of cortex that gave way to fluid; on the average of places."""
    atrophy_side: int = 0
    ventricles: float = 0.0
    """Growth of the lateral ventricles into the tissue around; the third and fourth grow by less, of one side not."""
    ventricle_side: int = 0
    lesion_count: int = 0
    """Lesions that are drawn when ``lesions`` is None."""
    lesion_radius: tuple[float, float] = (2.5, 6.0)
    dark_contrast: tuple[float, float] = (-0.40, -0.18)
    bright_contrast: tuple[float, float] = (0.15, 0.30)
    bright_share: float = 0.0
    """Share of the drawn lesions that are hyperintense, 0 to 1."""
    lesions: tuple[Lesion, ...] | None = None
    """Exactly these lesions instead of drawn ones."""
    contrast_spread: float = 0.0
    """Standard deviation of the tissues' brightness from scan to scan, relative."""
    texture: float = 0.0
    """Standard deviation of the brightness within a tissue of the brain, relative."""
    bias: float = 0.0
    """Largest relative deviation of the receive field."""
    noise: float = 0.0
    """Standard deviation of each channel's noise, relative to white matter."""
    ghost: float = 0.0
    """Brightness of the ghost, relative to the image, half a field of view away along ``ghost_axis``."""
    ghost_axis: int = 1
    mixed: bool = True
    """Whether a voxel at a border holds parts of several tissues, as in a patient; else the nearest tissue alone."""
    blur: float = 0.5
    """Standard deviation of the point spread."""
    gain: float = 1.0
    """Stored values of white matter are about 1000 times this."""
    sex: str = "M"
    """``M`` or ``F``."""
    age_years: int = 40

    @property
    def fields_seed(self) -> int:
        """The seed of the fields: ``base_seed``, or ``seed``."""
        return self.seed if self.base_seed is None else self.base_seed


def draw_recipe(seed: int, spacing: Triple = (1.0, 1.0, 1.0)) -> Recipe:
    """Return the recipe of this seed; all but ``spacing`` follows from the seed alone.

    Head size is drawn by sex (`SEXES`), so large heads are more often male. One scan in three has no atrophy and one in
    two its own ventricles, as a set of patients and healthy people would have; the rest has more often little atrophy
    than much (1.6 mm takes brain to two thirds of the intracranial volume, as advanced dementia does). Age follows from
    the anatomy, so that atrophy and wide ventricles are of old people: 25 + 30 atrophy + 5 ventricles years, with a
    spread of 7 years, 18 to 95. Where no source is named, the distributions are our choice.
    """
    rng = np.random.default_rng((0x4652, seed))
    sex = str(rng.choice(("M", "F")))
    mean, deviation = SEXES[sex]
    size = (float(np.clip(rng.normal(mean, deviation), SMALLEST, LARGEST)) / HEAD_VOLUME_ML) ** (1 / 3)
    stretch = np.clip(rng.normal(0, 0.02, 3), -0.04, 0.04)
    scale = size * np.exp(stretch - stretch.mean())
    atrophy = float(1.6 * rng.random() ** 1.5 * (rng.random() < 2 / 3))
    ventricles = float(rng.uniform(0, 4) * (rng.random() < 1 / 2))
    age = 25 + 30 * atrophy + 5 * ventricles + rng.normal(0, 7)
    return Recipe(
        seed=seed,
        spacing=spacing,
        rotation=_triple(rng.uniform(-12, 12, 3)),
        shift=_triple(rng.uniform(-6, 6, 3)),
        scale=_triple(scale),
        warp=float(rng.uniform(0, 5)),
        atrophy=atrophy,
        atrophy_side=int(rng.choice((0, 0, 0, -1, 1))),
        ventricles=ventricles,
        ventricle_side=int(rng.choice((0, 0, 0, -1, 1))),
        lesion_count=int(rng.integers(0, 6)),
        bright_share=float(rng.choice((0.0, 0.0, 0.5))),
        contrast_spread=0.02,
        texture=float(rng.uniform(0.005, 0.015)),
        bias=float(rng.uniform(0.05, 0.30)),
        noise=float(rng.uniform(0.01, 0.04)),
        ghost=float(rng.uniform(0, 0.02)),
        blur=float(rng.uniform(0.4, 0.65)),
        gain=float(rng.uniform(0.6, 1.4)),
        sex=sex,
        age_years=int(np.clip(round(age), 18, 95)),
    )


def _triple(values: NDArray[np.float64]) -> Triple:
    x, y, z = values.tolist()
    return x, y, z
