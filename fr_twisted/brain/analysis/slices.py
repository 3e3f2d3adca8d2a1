"""Draws single slices of a head: planes in radiological convention, tissue colours, outlines, marks."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fr_twisted.brain.analysis.anatomy import Anatomy, Box, Label
from fr_twisted.brain.analysis.volume import Array, Mask, Volume, bounding_box, ndimage

Colour = tuple[int, int, int]
Pixels = NDArray[np.float32]
"""(rows, columns, 3), 0..255."""

OVERSAMPLE = 2
"""Slices are drawn at twice their size and then reduced, which smooths lines."""

TINT = 0.22
"""Opacity of the colour inside a tissue; its outline is drawn with `LINE`."""

LINE = 0.85

COLOURS: dict[Label, tuple[str, Colour]] = {
    Label.FLUID: ("Cerebrospinal fluid", (86, 180, 233)),
    Label.VENTRICLE: ("Ventricles", (60, 100, 245)),
    Label.GREY: ("Grey matter", (240, 170, 40)),
    Label.WHITE: ("White matter", (0, 190, 140)),
}
"""After the palette of M. Okabe and K. Ito, which colour-blind readers can tell apart."""

LESION: Colour = (255, 60, 120)
INK: Colour = (225, 229, 235)
GROUND: Colour = (13, 16, 22)

AIR = 0.15
"""Darker than any tissue of a head, whose bright tissue has about 1."""


@dataclass(frozen=True)
class Plane:
    """How one orientation is drawn: along which axis it cuts, which axes run right and down, and its marks.

    In RAS order every axis shown runs from high to low index: to the patient's left, back and feet.
    """

    name: str
    across: int
    right: int
    down: int
    marks: tuple[str, str]
    """At the left and right edge."""
    span: tuple[float, float]
    """Of the brain's extent, where the first and last slice lie."""


PLANES = (
    Plane("Axial", across=2, right=0, down=1, marks=("R", "L"), span=(0.25, 0.90)),
    Plane("Coronal", across=1, right=0, down=2, marks=("R", "L"), span=(0.16, 0.84)),
    Plane("Sagittal", across=0, right=1, down=2, marks=("A", "P"), span=(0.20, 0.80)),
)


@dataclass(frozen=True)
class Window:
    """A part of one slice: the plane, its index across, the centre (voxel indices of the head) and size in mm.

    ``pixel`` is the side of a pixel of the finished picture, mm; ``size`` its (width, height) in pixels.
    """

    plane: Plane
    index: int
    centre: tuple[float, float]
    """Along the axes to the right and down."""
    size: tuple[int, int]
    pixel: float


class Slicer:
    """Samples slices of an anatomy at the pixels of a window, twice as fine as they are shown."""

    def __init__(self, anatomy: Anatomy) -> None:
        self.head = anatomy.head
        self.box = drawn_box(anatomy)
        self.labelled = bool(anatomy.labels.size) and bool(anatomy.labels.any())
        self._labels = anatomy.labels
        self._brightest = np.float32(brightest(anatomy))

    def grey(self, window: Window) -> Array:
        """Return brightness 0..1."""
        flat = np.take(self.head.data, window.index, axis=window.plane.across)
        return np.asarray(np.clip(self._sample(flat, window, (0, 0)) / self._brightest, 0, 1), np.float32)

    def tissue(self, window: Window) -> NDArray[np.uint8]:
        """Return the `Label` that most of each pixel has."""
        shares = np.stack([self._of_box(self._labels, window, label) for label in Label])
        return np.asarray(shares.argmax(0), np.uint8)

    def outline(self, inside: Mask, window: Window) -> Mask:
        """Return a line of two fine pixels just around what is ``inside``, a mask of the brain's box."""
        flat = self._of_box(inside, window, True) > 0.5
        return np.asarray(ndimage.binary_dilation(flat, iterations=2) & ~flat)

    def _of_box(self, data: NDArray[np.generic], window: Window, value: int) -> Array:
        """Return how far each pixel has ``value`` in what fills the box, 0..1; what lies about the box has 0."""
        plane = window.plane
        first = [side.start for side in self.box]
        at = window.index - first[plane.across]
        inside = 0 <= at < data.shape[plane.across]
        flat = np.take(data, at if inside else 0, axis=plane.across) == value
        grown = np.pad(flat & inside, 1, constant_values=value == 0)
        return self._sample(grown, window, (first[plane.right] - 1, first[plane.down] - 1))

    def _sample(self, flat: NDArray[np.generic], window: Window, first: tuple[int, int]) -> Array:
        """Interpolate a slice whose axes run to the right and down, from ``first`` on, at the pixels of a window."""
        plane = window.plane
        places = []
        for axis, start, centre, pixels in zip(
            (plane.right, plane.down), first, window.centre, window.size, strict=True
        ):
            steps = np.arange(pixels * OVERSAMPLE) - (pixels * OVERSAMPLE - 1) / 2
            places.append(centre - start - steps * (window.pixel / OVERSAMPLE / self.head.spacing[axis]))
        return _between(_between(flat.astype(np.float32), places[0], 0), places[1], 1).T


def _between(data: Array, places: NDArray[np.floating[Any]], axis: int) -> Array:
    """Return ``data`` at fractional indices along an axis, by linear interpolation; 0 outside."""
    low = np.floor(places).astype(np.intp)
    share = (places - low).astype(np.float32)
    share = share[:, None] if axis == 0 else share
    # all that lies outside reads one more line, of zeros
    padded = np.concatenate([data, np.zeros_like(data.take([0], axis))], axis)
    n = data.shape[axis]
    first, second = (np.where((at >= 0) & (at < n), at, n) for at in (low, low + 1))
    return np.asarray(padded.take(first, axis) * (1 - share) + padded.take(second, axis) * share, np.float32)


def brightest(anatomy: Anatomy) -> float:
    """Return what is drawn white: a little above white matter, or above most tissue where none is labelled."""
    data = anatomy.head.data
    if anatomy.labels.size:
        white = data[anatomy.box][anatomy.labels == Label.WHITE]
        if white.size:
            return float(np.percentile(white, 99)) * 1.15
    tissue = data[data > AIR]
    return float(np.percentile(tissue, 99)) if tissue.size else 1.0


def drawn_box(anatomy: Anatomy) -> Box:
    """Return the box around the brain, or around the head where there is none."""
    if anatomy.box and all(side.stop > side.start for side in anatomy.box):
        return anatomy.box
    tissue = np.asarray(anatomy.head.data > AIR)
    if tissue.any():
        return bounding_box(tissue)
    return tuple(slice(0, n) for n in anatomy.head.data.shape)


def tinted(grey: Array, tissue: NDArray[np.uint8] | None) -> Pixels:
    """Return a slice in colour: each tissue tinted, with a line inside its edge."""
    picture = np.repeat(grey[:, :, None] * np.float32(255), 3, 2)
    if tissue is None:
        return picture
    rim = np.pad(tissue, 1, mode="edge")
    neighbours = (rim[:-2, 1:-1], rim[2:, 1:-1], rim[1:-1, :-2], rim[1:-1, 2:])
    edge = np.any([tissue != other for other in neighbours], axis=0)
    opacity = np.where(tissue == Label.OUTSIDE, 0, np.where(edge, LINE, TINT)).astype(np.float32)[:, :, None]
    colours = np.zeros((len(Label), 3), np.float32)
    for label, (_, colour) in COLOURS.items():
        colours[label] = colour
    return np.asarray(picture * (1 - opacity) + colours[tissue] * opacity, np.float32)


def reduced(picture: Pixels, size: tuple[int, int]) -> Image.Image:
    """Return the finished picture of a window of ``size``."""
    return Image.fromarray(np.round(picture).astype(np.uint8)).resize(size, Image.Resampling.LANCZOS)


def position(head: Volume, plane: Plane, index: int) -> str:
    """Return where a slice lies: its patient coordinate across the plane, mm."""
    centre = [(n - 1) / 2 for n in head.data.shape]
    centre[plane.across] = index
    place = head.affine[:3, :3] @ centre + head.affine[:3, 3]
    return f"{'RAS'[plane.across]} {round(float(place[plane.across])):+d} mm"


@cache
def font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """Return the font that comes with Pillow."""
    return ImageFont.load_default(size)


def write(
    draw: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    size: int,
    anchor: str,
    colour: Colour = INK,
) -> None:
    """Write on a picture, with a dark rim; ``anchor`` as Pillow has it."""
    draw.text(place, text, colour, font(size), anchor, stroke_width=2, stroke_fill=GROUND)
