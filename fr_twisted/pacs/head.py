"""The template head of the scan generator: the data file that scripts/make_pacs_data.py makes, loaded once."""

import functools
import io
import lzma
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import numpy as np
import numpy.typing as npt

DATA_FILE = Path(__file__).parent / "data" / "mni152_head.npz.xz"
"""MNI152 template and head labels; (C) McGill University, see LICENSE.mni152.txt beside it."""


class Tissue(IntEnum):
    """Labels of the head grid."""

    AIR = 0
    MENINGES = 1
    BONE = 2
    MARROW = 3
    MUSCLE = 4
    FAT = 5
    SKIN = 6
    VITREOUS = 7
    FLUID = 8
    CORD = 9
    BRAIN = 10


@dataclass(frozen=True)
class Head:
    """The template, on 1 mm grids with axes x to the right, y to the front, z up.

    ``t1``, ``gm``, ``wm``: uint8 (X, Y, Z), intensity and probabilities times 255, zero outside the brain.
    ``labels``: uint8 (X', Y', Z') of `Tissue`. The origins are the MNI coordinates of the first voxels, mm.
    """

    t1: npt.NDArray[np.uint8]
    gm: npt.NDArray[np.uint8]
    wm: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]
    brain_origin: npt.NDArray[np.float32]
    head_origin: npt.NDArray[np.float32]


@functools.cache
def load_head() -> Head:
    """Return the template head; read once a process (about a third of a second)."""
    with np.load(io.BytesIO(lzma.decompress(DATA_FILE.read_bytes()))) as data:
        return Head(
            t1=data["t1"],
            gm=data["gm"],
            wm=data["wm"],
            labels=data["head"],
            brain_origin=data["brain_origin"],
            head_origin=data["head_origin"],
        )
