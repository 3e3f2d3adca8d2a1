"""Planes in space to one volume: every DICOM plane knows its place in the patient (PS3.3 C.7.6.2.1.1)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fr_twisted.brain.analysis.read_dicom_pixels import Scale
from fr_twisted.brain.analysis.volume import Affine, Mask, Volume
from fr_twisted.brain.interfaces import UnusableScanError

TOLERANCE = 0.02
"""Share of the slice distance by which the distance of two slices may differ from it."""

SHIFT_TOLERANCE = 0.05
"""Share of the slice distance by which slices may lie beside a straight line."""

TILT_TOLERANCE = 0.02
"""Cosine between the slices' plane and the way they are stacked, as of one degree."""

ORIENTATION_TOLERANCE = 1e-3
"""By which direction cosines may differ between slices, and from right angles: they are decimal text."""

SAME_MM = 0.01

Positions = NDArray[np.float64]


@dataclass(frozen=True)
class Plane:
    """One slice: where it lies, and its values.

    Millimetres are DICOM's: x to the left, y to the back, z to the top.
    """

    position: tuple[float, ...]
    """Of the centre of the first pixel (Image Position (Patient))."""
    orientation: tuple[float, ...]
    """Direction cosines of the row and of the column (Image Orientation (Patient))."""
    spacing: tuple[float, ...]
    """Distance of rows, distance of columns (Pixel Spacing)."""
    pixels: NDArray[Any]
    """As stored (rows, columns)."""
    scale: Scale
    padding: Mask | None = None
    """Pixels without a measurement."""
    inverted: bool = False
    """Whether low values are bright."""


Excuse = Callable[[], str]
"""Asked what tells slices apart that lie in one place: ``2 echo times``."""


def stack(planes: Sequence[Plane], excuse: Excuse) -> Volume:
    """Return the volume of evenly spaced planes of one size, in whatever order they are given.

    Its axes run along the rows (column by column), along the columns, and from slice to slice.

    Raises:
        UnusableScanError: they are not such planes; says what is wrong, in mm.
    """
    order, affine = grid(planes, excuse)
    rows, columns = planes[0].pixels.shape
    data = np.empty((len(planes), rows, columns), np.float32)
    blank = None
    for k, number in enumerate(order):
        plane = planes[number]
        data[k] = plane.pixels * np.float64(plane.scale.slope) + plane.scale.intercept
        if plane.padding is not None:
            blank = np.zeros(data.shape, bool) if blank is None else blank
            blank[k] = plane.padding
    _to_brightness(data, blank, planes[0].inverted)
    return Volume(data.transpose(2, 1, 0), affine)


def _to_brightness(data: NDArray[np.float32], blank: Mask | None, inverted: bool) -> None:
    """Make high values bright, and padding air."""
    if inverted:
        highest = data.max() if blank is None else data.max(initial=-np.inf, where=~blank)
        np.subtract(highest, data, out=data)
    if blank is not None:
        data[blank] = min(0.0, float(data.min(initial=np.inf, where=~blank)))


def grid(planes: Sequence[Plane], excuse: Excuse) -> tuple[NDArray[np.int64], Affine]:
    """Return the order in which planes follow each other, and the map from (column, row, slice) to RAS millimetres.

    Raises:
        UnusableScanError: they are no even stack.
    """
    if len(planes) < 2:
        raise UnusableScanError("the series has only one slice; send the full series")
    orientation, spacing = _common_frame(planes)
    positions = np.array([plane.position for plane in planes])
    normal = np.cross(orientation[:3], orientation[3:])
    order = np.argsort(positions @ normal, kind="stable")
    positions = positions[order]
    _check_places(positions @ normal, excuse)
    step = (positions[-1] - positions[0]) / (len(planes) - 1)
    _check_line(positions, step, orientation)
    affine = np.eye(4)
    affine[:3, 0] = orientation[:3] * spacing[1]
    affine[:3, 1] = orientation[3:] * spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = positions[0]
    return order, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def _common_frame(planes: Sequence[Plane]) -> tuple[Positions, Positions]:
    """Return the orientation (6,) and pixel spacing (2,) that all planes have, the first with cosines of length 1."""
    orientations = np.array([plane.orientation for plane in planes])
    spacings = np.array([plane.spacing for plane in planes])
    if np.abs(orientations - orientations[0]).max() > ORIENTATION_TOLERANCE:
        raise UnusableScanError(
            "the slices do not have the same orientation (a localiser or several stacks); send one 3-D series"
        )
    axes = orientations[0].reshape(2, 3)
    if np.abs(axes @ axes.T - np.eye(2)).max() > 2 * ORIENTATION_TOLERANCE:
        raise UnusableScanError(
            "the slices' orientation (ImageOrientationPatient) is not valid: two directions at right angles are needed;"
            " export the series again"
        )
    if spacings.min() <= 0:
        raise UnusableScanError("the slices have no valid PixelSpacing; export the series again")
    if np.abs(spacings / spacings[0] - 1).max() > ORIENTATION_TOLERANCE:
        raise UnusableScanError(
            "the slices do not have the same pixel spacing; send one series as it was acquired"
        )
    axes = axes / np.linalg.norm(axes, axis=1, keepdims=True)
    return axes.ravel(), spacings[0]


def _check_places(places: Positions, excuse: Excuse) -> None:
    """Refuse slices at uneven ``places`` (n,), mm along the normal, in order."""
    gaps = np.diff(places)
    # of the slices that do not lie in one place
    step = float(np.median(gaps[gaps > SAME_MM])) if (gaps > SAME_MM).any() else 0.0
    doubled = int((gaps < max(SAME_MM, 0.1 * step)).sum())
    if doubled:
        raise UnusableScanError(
            f"{doubled} slices lie where another lies already ({excuse()}); send one of them"
        )
    uneven = np.abs(gaps - step) > max(TOLERANCE * step, SAME_MM)
    if not uneven.any():
        return
    ratio = gaps[uneven] / step
    if np.all(np.abs(ratio - np.round(ratio)) < 0.1):
        missing = int((np.round(ratio) - 1).sum())
        raise UnusableScanError(
            f"{missing} of {len(places) + missing} slices are missing: slices are {step:.3g} mm apart, but"
            f" {float(gaps.max()):.3g} mm at {int(uneven.sum())} places; send the full series"
        )
    raise UnusableScanError(
        f"the slices are not evenly spaced: {float(gaps.min()):.3g} to {float(gaps.max()):.3g} mm apart;"
        " send a 3-D series"
    )


def _check_line(positions: Positions, step: Positions, orientation: Positions) -> None:
    """Refuse slices that are shifted against each other, or stacked at a slant."""
    distance = float(np.linalg.norm(step))
    beside = positions - positions[0] - np.outer(np.arange(len(positions)), step)
    slant = np.abs(orientation.reshape(2, 3) @ step).max() / distance
    if np.linalg.norm(beside, axis=1).max() > SHIFT_TOLERANCE * distance + SAME_MM or slant > TILT_TOLERANCE:
        raise UnusableScanError(
            "the slices are shifted against each other (a tilted gantry or stack); send the scan as acquired"
        )
