"""The label head: the data file that scripts/make_pacs_data.py makes of a real person's scan, loaded once."""

import functools
import io
import lzma
import math
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

ndimage: Any = scipy.ndimage  # whose names are made at run time, unseen by type checkers

DATA_FILE = Path(__file__).parent.parent / "data" / "colin27_labels.npz.xz"
"""Labels of the Colin27 head; (C) McGill University, see LICENSE.colin27.txt beside it."""

Codes = NDArray[np.uint8]
"""One `Tissue` a voxel, plus `RIGHT` on the right side of the head."""

RIGHT = 16
"""Added to the tissue of voxels to the right of the midline."""


class Tissue(IntEnum):
    """What the label head is made of. Outside the brain: classes of brightness, the darkest first."""

    AIR = 0
    FLUID = 1
    GREY = 2
    WHITE = 3
    DEEP_GREY = 4
    VENTRICLE = 5
    HEAD_1 = 6
    HEAD_2 = 7
    HEAD_3 = 8
    HEAD_4 = 9
    HEAD_5 = 10
    HEAD_6 = 11
    HEAD_7 = 12


CENTRE = np.array((0.5, -16.5, 12.5))
"""What lies in the middle of a scan's field of view, stereotaxic mm."""

FIRST_OUTSIDE = Tissue.HEAD_1
"""Tissues from this on are outside the skull."""

NECK = 32
"""Voxels added below the labels, where the scan of the real head ends: its mirror image, in soft tissue."""


@dataclass(frozen=True)
class Head:
    """The label head on its 1 mm grid, axes to the right, front, top, with margins of air and a neck added.

    ``codes``: uint8 (X, Y, Z). ``origin``: stereotaxic mm of the voxel (0, 0, 0). ``midline``: float32 (Y, Z), index
    along x of the plane between the halves of the brain. ``brain``: the box around the brain.
    """

    codes: Codes
    origin: NDArray[np.float64]
    midline: NDArray[np.float32]
    brain: tuple[slice, ...]

    @property
    def centre(self) -> NDArray[np.float64]:
        """The index that lies in the middle of a scan's field of view.

        Between voxels, so that those of a field of view of an even number of millimetres meet the label head's when
        nothing is moved.
        """
        return CENTRE - self.origin


@functools.cache
def load_head() -> Head:
    """Return the label head; read once a process (about a tenth of a second)."""
    with np.load(io.BytesIO(lzma.decompress(DATA_FILE.read_bytes()))) as data:
        labels, origin = data["labels"], data["origin"].astype(np.float64)
        midline = data["midline"].astype(np.float32) / 10 - np.float32(origin[0])
    inside = [
        np.flatnonzero(((labels > 0) & (labels < FIRST_OUTSIDE)).any(axes))
        for axes in ((1, 2), (0, 2), (0, 1))
    ]
    brain = tuple(
        slice(int(index[0]) + margin, int(index[-1]) + margin + 1)
        for index, margin in zip(inside, (1, 1, NECK), strict=True)
    )
    codes = np.pad(labels, ((1, 1), (1, 1), (NECK, 1)))
    codes[:, :, :NECK] = _below()[codes[:, :, 2 * NECK - 1 : NECK - 1 : -1]]
    midline = np.pad(midline, ((1, 1), (NECK, 1)), mode="edge") + 1
    right = np.arange(codes.shape[0], dtype=np.float32)[:, None, None] > midline
    codes += np.uint8(RIGHT) * right
    codes.setflags(write=False)
    return Head(codes, origin - (1, 1, NECK), midline, brain)


def _below() -> Codes:
    """Return what stands below the labels for each tissue above their edge: for brain and bone, muscle.

    A mirrored brain in a mirrored skull would be a second one.
    """
    table = np.arange(len(Tissue), dtype=np.uint8)
    table[Tissue.FLUID : Tissue.HEAD_3] = Tissue.HEAD_4
    return table


@functools.cache
def cortex_depth() -> NDArray[np.uint8]:
    """Return how deep each voxel of the brain's box lies under the fluid around the brain, in 1/64 mm, 255 at most.

    The border's place within a voxel is read off the smoothed fluid: where the share of fluid under a Gaussian of 1 mm
    is P, a flat border is -z(P) mm away, z being the normal quantile. So fluid eats crowns first and in small steps.
    """
    head = load_head()
    grown = tuple(slice(max(0, side.start - 4), side.stop + 4) for side in head.brain)
    tissue = head.codes[grown] & (RIGHT - 1)
    fluid = (tissue == Tissue.FLUID) | (tissue == Tissue.AIR) | (tissue >= FIRST_OUTSIDE)
    share = ndimage.gaussian_filter(fluid.astype(np.float32), 1.0, truncate=3.5)
    inner = tuple(
        slice(side.start - big.start, side.stop - big.start)
        for side, big in zip(head.brain, grown, strict=True)
    )
    limits = np.array([_normal(-step / 64) for step in range(1, 256)])
    depth: NDArray[np.int64] = 255 - np.searchsorted(limits[::-1], share[inner], side="right")
    return depth.astype(np.uint8)


def _normal(value: float) -> float:
    """Return the normal distribution function."""
    return 0.5 * (1 + math.erf(value / math.sqrt(2)))


VENTRICLE_REACH = 6
"""How far ventricles can grow, mm."""

MIDDLE_SHARE = 0.4
"""Growth of the ventricles near the midline (third, fourth) against that of the lateral ones, when both sides grow."""


@functools.cache
def ventricle_depth(one_sided: bool) -> tuple[tuple[slice, ...], NDArray[np.uint8]]:
    """Return a box around the ventricles and, in 1/32 mm (255 at most), by how much they must grow to reach a voxel.

    Where a growth is ``one_sided`` it is the lateral ventricle's alone: third and fourth have no sides, and the septum
    between the lateral ones does not dissolve.
    """
    head = load_head()
    tissue = head.codes & (RIGHT - 1)
    places = [np.flatnonzero((tissue == Tissue.VENTRICLE).any(axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    margin = VENTRICLE_REACH + 2
    box = tuple(slice(max(0, int(p[0]) - margin), int(p[-1]) + margin + 1) for p in places)
    inside = tissue[box] == Tissue.VENTRICLE
    # The border runs half way between a voxel of the ventricles and its neighbour.
    outwards, inwards = (ndimage.distance_transform_edt(part) - 0.5 for part in (~inside, inside))
    signed = np.where(inside, -inwards, outwards)
    distance = ndimage.gaussian_filter(signed.astype(np.float32), 0.7)
    x = np.arange(box[0].start, box[0].stop, dtype=np.float32)[:, None, None]
    aside = np.clip((np.abs(x - head.midline[box[1:]]) - 4) / 8, 0, 1)
    middle = 0.0 if one_sided else MIDDLE_SHARE
    ease = middle + (1 - middle) * aside * aside * (3 - 2 * aside)
    steps = np.ceil(distance / np.maximum(ease, np.float32(1e-3)) * 32)
    depth = np.where(ease > 0, np.clip(steps, 0, 255), 255).astype(np.uint8)
    return box, depth
