"""What is done to scans: cuts, other storage, wrong headers, other contrasts. Each takes a `Subject` and gives one."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from nibabel import orientations
from numpy.typing import NDArray

from fr_twisted.brain.analysis.volume import ndimage
from tests.accuracy.compare import MASK, region
from tests.accuracy.subjects import UNKNOWN, Subject

MUSCLE = 0.55
"""Brightness of muscle relative to white matter."""


def cut_top(subject: Subject, depth: float) -> Subject:
    """Take away what is above a plane ``depth`` mm below the top of the brain."""
    planes = np.flatnonzero(_inside(subject).any((0, 1)))
    step = float(subject.affine[2, 2])
    return _kept(subject, slice(0, int(planes[-1]) + 1 - round(depth / step)))


def cut_bottom(subject: Subject, depth: float) -> Subject:
    """Take away what is below a plane ``depth`` mm above the bottom of the brain."""
    planes = np.flatnonzero(_inside(subject).any((0, 1)))
    step = float(subject.affine[2, 2])
    return _kept(subject, slice(int(planes[0]) + round(depth / step), subject.data.shape[2]))


def _inside(subject: Subject) -> NDArray[np.bool_]:
    assert subject.labels is not None
    return region(subject.labels, MASK)


def _kept(subject: Subject, planes: slice) -> Subject:
    assert subject.labels is not None
    affine = subject.affine.copy()
    affine[:3, 3] += affine[:3, 2] * planes.start
    labels = subject.labels[:, :, planes]
    share = 100 * np.count_nonzero(labels) / np.count_nonzero(subject.labels)
    known = subject.known.model_copy(update={"coverage": share})
    return replace(
        subject, data=subject.data[:, :, planes], affine=affine, labels=labels, known=known, scan=None
    )


def times_integer(subject: Subject, factor: float) -> Subject:
    """Store the values times ``factor`` as int32."""
    return replace(subject, data=subject.data.astype(np.int32) * np.int32(factor), scan=None)


def times_float(subject: Subject, factor: float) -> Subject:
    """Store the values times ``factor`` as float32."""
    return replace(subject, data=subject.data.astype(np.float32) * np.float32(factor), scan=None)


def eight_bits(subject: Subject, _: object) -> Subject:
    """Store the values as 0 to 255."""
    top = np.percentile(subject.data, 99.9)
    data = np.clip(np.round(subject.data * (255 / top)), 0, 255).astype(np.uint8)
    return replace(subject, data=data, scan=None)


def orientation(subject: Subject, axes: str) -> Subject:
    """Store the axes in another order and direction, such as LPS; the affine tells."""
    there = orientations.axcodes2ornt(axes)
    turn = orientations.ornt_transform(orientations.io_orientation(subject.affine), there)
    data = np.ascontiguousarray(orientations.apply_orientation(subject.data, turn))
    affine = subject.affine @ orientations.inv_ornt_aff(turn, subject.data.shape)
    return replace(subject, data=data, affine=affine, scan=None)


def unit_code(subject: Subject, code: float) -> Subject:
    """Have the header say another unit (NIfTI-1: 1 metre, 2 millimetre, 3 micrometre) for numbers in mm."""
    return replace(subject, header={"xyzt_units": int(code)}, labels=None, known=UNKNOWN, scan=None)


def told_larger(subject: Subject, factor: float) -> Subject:
    """Have the header say that voxels are ``factor`` times as large along each axis."""
    affine = subject.affine.copy()
    affine[:3] *= factor
    return replace(subject, affine=affine, labels=None, known=UNKNOWN, scan=None)


def upside_down(subject: Subject, _: object) -> Subject:
    """Have the affine say that the feet are at the top; data as they are."""
    affine = np.diag([1.0, 1.0, -1.0, 1.0]) @ subject.affine
    return replace(subject, affine=affine, labels=None, known=UNKNOWN, scan=None)


def time_points(subject: Subject, count: float) -> Subject:
    """Store the scan several times along a fourth axis."""
    data = np.stack([subject.data] * int(count), 3)
    return replace(subject, data=data, labels=None, known=UNKNOWN, scan=None)


def t2_contrast(subject: Subject, _: object) -> Subject:
    """Make fluid the brightest and white matter the darkest tissue of the brain, as in a T2-weighted scan."""
    white = _white(subject)
    inverted = np.where(_inside(subject), 1.4 * white - subject.data, 0.6 * subject.data)
    data = np.clip(inverted, 0, 4095).astype(np.int16)
    return replace(subject, data=data, labels=None, known=UNKNOWN, scan=None)


def no_brain(subject: Subject, _: object) -> Subject:
    """Fill the inside of the skull with what looks like muscle."""
    rng = np.random.default_rng(7)
    white = _white(subject)
    muscle = rng.normal(MUSCLE * white, 0.03 * white, subject.data.shape)
    data = np.where(_inside(subject), muscle, subject.data).astype(np.int16)
    return replace(subject, data=data, labels=None, known=UNKNOWN, scan=None)


HOUNSFIELD = {"air": -1000, "fluid": 8, "grey": 37, "white": 30, "bone": 1000, "muscle": 55, "fat": -90}
"""What CT shows; a brain is nearly flat beside bone. Levels as in textbooks, to tens."""


def computed_tomography(subject: Subject, _: object) -> Subject:
    """Return a CT-like head: bone the brightest, soft tissue nearly flat, air far below zero."""
    assert subject.labels is not None
    white = _white(subject)
    smooth = ndimage.gaussian_filter(subject.data.astype(np.float32), 0.7) / np.float32(white)
    head = ndimage.binary_fill_holes(ndimage.binary_opening((smooth > 0.15) | _inside(subject), iterations=2))
    levels = HOUNSFIELD
    outside = np.select([smooth < 0.33, smooth > 0.95], [levels["bone"], levels["fat"]], levels["muscle"])
    table = np.array([0, levels["fluid"], levels["grey"], levels["white"], levels["fluid"]])
    image = np.where(_inside(subject), table[subject.labels], np.where(head, outside, levels["air"]))
    rng = np.random.default_rng(8)
    data = np.round(image + rng.normal(0, 8, image.shape)).astype(np.int16)
    return replace(subject, data=data, labels=None, known=UNKNOWN, modality="CT", scan=None)


def _white(subject: Subject) -> float:
    assert subject.labels is not None
    return float(np.median(subject.data[region(subject.labels, "wm")]))


CHANGES: dict[str, Callable[[Subject, Any], Subject]] = {
    "cut top": cut_top,
    "cut bottom": cut_bottom,
    "times, integer": times_integer,
    "times, float": times_float,
    "8 bits": eight_bits,
    "orientation": orientation,
    "unit code": unit_code,
    "told larger": told_larger,
    "upside down": upside_down,
    "time points": time_points,
    "T2 contrast": t2_contrast,
    "no brain": no_brain,
    "CT": computed_tomography,
}
"""By the name that `tests.accuracy.cases.Change` has."""
