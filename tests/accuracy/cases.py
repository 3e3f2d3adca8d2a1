"""What is measured: a `Case` is one scan to make and to analyse, a `Plan` says which seeds may be used."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from fr_twisted.pacs.generator.recipe import Recipe, Triple, draw_recipe
from tests.accuracy.seeds import FIRST_SET_ASIDE, set_aside

FIRST_DEVELOPMENT = 50_000
"""The first development seed that stands for a set-aside one."""

PLAIN_NOISE = 0.03
PLAIN_BIAS = 0.05


class Table(IntEnum):
    """Tables of seeds: no two experiments look at the same heads."""

    FINE = 0
    COARSE = 1
    THICK = 2
    CHANGES = 3
    NOT_BRAINS = 4
    LESIONS = 5
    CLEAN = 6
    ASYMMETRY = 7
    QUALITY = 8
    COST = 9
    FINER = 10
    COARSER = 11
    COARSE_LESIONS = 12
    COARSE_CLEAN = 13


@dataclass(frozen=True)
class Plan:
    """``development``: seeds for development in place of those set aside. ``short``: a few coarse scans, of those."""

    development: bool = False
    short: bool = False

    def seeds(self, table: Table, count: int) -> list[int]:
        """Return ``count`` seeds of a table."""
        seeds = set_aside(int(table), count)
        if self.development or self.short:
            return [seed - FIRST_SET_ASIDE + FIRST_DEVELOPMENT for seed in seeds]
        return seeds


class Form(StrEnum):
    """How a scan is written for the analysis."""

    NIFTI = "nifti"
    DICOM = "dicom"


@dataclass(frozen=True)
class Change:
    """Something that is done to a scan: a function of `tests.accuracy.changes` by name, and its argument."""

    name: str
    value: float | str = 0


@dataclass(frozen=True)
class Case:
    """One scan to make and to analyse.

    ``label`` and ``head`` name it in tables. ``subject``: a recipe for the generator, or a name that
    `tests.accuracy.subjects` knows. ``changes`` are done to it in order. ``ideal``: whether to tell as well how an
    ideal threshold does (`tests.accuracy.ideal`).
    """

    label: str
    head: str
    subject: Recipe | str
    changes: tuple[Change, ...] = ()
    form: Form = Form.NIFTI
    ideal: bool = False

    @property
    def recipe(self) -> Recipe:
        """The recipe of a generated scan."""
        assert isinstance(self.subject, Recipe), self.subject
        return self.subject

    def key(self, state: str) -> str:
        """Return a name for the scan and what ``state`` stands for; other labels of the same scan share it."""
        told = dataclasses.asdict(dataclasses.replace(self, label="", head=""))
        return hashlib.sha256(json.dumps([state, told], sort_keys=True).encode()).hexdigest()[:32]


def plain(seed: int, spacing: Triple = (1.0, 1.0, 1.0)) -> Recipe:
    """Return the head of a seed as it is compared with its changed versions.

    Its anatomy, size, warp, contrast and texture are drawn; it lies straight, has no lesions and no ghost,
    `PLAIN_NOISE` and `PLAIN_BIAS`.
    """
    return dataclasses.replace(
        draw_recipe(seed, spacing),
        rotation=(0.0, 0.0, 0.0),
        shift=(0.0, 0.0, 0.0),
        lesion_count=0,
        ghost=0.0,
        noise=PLAIN_NOISE,
        bias=PLAIN_BIAS,
    )
