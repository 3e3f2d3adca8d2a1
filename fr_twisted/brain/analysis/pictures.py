"""Draws the segmented brain: axial, coronal and sagittal slices in radiological convention, with marks and a legend."""

import io
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fr_twisted.brain.analysis.mixture import CSF, GREY, WHITE
from fr_twisted.brain.analysis.volume import Array, Volume, ndimage

WIDTH = 1200
"""Pixels."""

COLUMNS = 4
GAP = 6
PANEL = (WIDTH - GAP * (COLUMNS + 1)) // COLUMNS
OVERSAMPLE = 2
"""Slices are drawn at twice their size and then reduced, which smooths lines."""

MARGIN_MM = 10.0
"""Shown about the brain."""

TINT = 0.2
"""Opacity of the colour inside a tissue; its outline is drawn with `LINE`."""

LINE = 0.9

Colour = tuple[int, int, int]
Box = tuple[slice, ...]

COLOURS: dict[int, tuple[str, Colour]] = {
    CSF: ("Cerebrospinal fluid", (86, 180, 233)),
    GREY: ("Grey matter", (240, 170, 40)),
    WHITE: ("White matter", (0, 190, 140)),
}
"""From the palette of M. Okabe and K. Ito, which colour-blind readers can tell apart."""

INK: Colour = (225, 229, 235)
GROUND: Colour = (13, 16, 22)


@dataclass(frozen=True)
class Plane:
    """How one orientation is drawn: along which axis it cuts, which axes run right and down, and its marks."""

    name: str
    across: int
    right: int
    down: int
    marks: tuple[str, str]
    """At the left and right edge."""
    span: tuple[float, float]
    """Of the brain's extent, where the first and last slice lie."""


PLANES = (
    Plane("Axial", across=2, right=0, down=1, marks=("R", "L"), span=(0.28, 0.85)),
    Plane("Coronal", across=1, right=0, down=2, marks=("R", "L"), span=(0.22, 0.80)),
    Plane("Sagittal", across=0, right=1, down=2, marks=("A", "P"), span=(0.24, 0.76)),
)
"""In RAS order every axis shown runs from high to low index: to the patient's left, back and feet."""


def overlay(head: Volume, shares: NDArray[np.float32], box: Box) -> bytes:
    """Return the picture as PNG, `WIDTH` pixels wide.

    Args:
        head: the scan in RAS axis order.
        shares: (3, i, j, k) part of fluid, grey, white inside ``box``; 0 outside the brain.
        box: where the brain is in ``head``.
    """
    extent = max((side.stop - side.start) * size for side, size in zip(box, head.spacing, strict=True))
    scale = (extent + 2 * MARGIN_MM) / (PANEL * OVERSAMPLE)
    brightest = float(np.percentile(head.data[box][shares[WHITE] > 0.5], 99)) * 1.15
    header, row = 34, PANEL + GAP
    canvas = Image.new("RGB", (WIDTH, header + row * len(PLANES) + 46), GROUND)
    draw = ImageDraw.Draw(canvas)
    for number, plane in enumerate(PLANES):
        for column, index in enumerate(_slices(box[plane.across], plane.span)):
            panel = _panel(head.data / brightest, shares, _Viewer(head, plane, index, box, scale))
            x, y = GAP + column * (PANEL + GAP), header + number * row
            canvas.paste(panel, (x, y))
            _marks(
                draw,
                plane,
                x,
                y,
                f"{plane.name} {_label(head, plane, index)}" if not column else _label(head, plane, index),
            )
    _legend(draw, canvas.height)
    out = io.BytesIO()
    # 256 fixed colours make a third of the size, and the legend's colours stay what they are
    canvas.quantize(palette=_palette(), dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return out.getvalue()


@cache
def _palette() -> Image.Image:
    """Return up to 256 colours: greys, greys under each tint, and lines over greys."""
    colours = [np.array(colour) for _, colour in COLOURS.values()]
    ramp = np.linspace(0, 255, 52)[:, None] * np.ones(3)
    rows = [np.array([INK, GROUND]), np.array(colours), np.linspace(0, 255, 62)[:, None] * np.ones(3)]
    rows += [ramp[8:] * (1 - TINT) + colour * TINT for colour in colours]
    rows += [ramp[::6] * (1 - part) + colour * part for colour in colours for part in (LINE, LINE / 2)]
    table = np.round(np.concatenate(rows)).astype(np.uint8)[:256]
    image = Image.new("P", (1, 1))
    image.putpalette(table.tobytes())
    return image


def _slices(side: slice, span: tuple[float, float]) -> list[int]:
    places = np.linspace(*span, COLUMNS)
    return [int(side.start + share * (side.stop - 1 - side.start) + 0.5) for share in places]


def _panel(head: Array, shares: NDArray[np.float32], view: "_Viewer") -> Image.Image:
    """Return one slice with its tissues: a square of `PANEL` pixels."""
    grey = np.clip(view.of_head(head), 0, 1)
    parts = np.stack([view.of_box(part) for part in shares])
    total = parts.sum(0)
    label = np.where(total > 0.5, parts.argmax(0), -1)
    picture = np.repeat(grey[:, :, None] * 255, 3, 2)
    for tissue, (_, colour) in COLOURS.items():
        inside = label == tissue
        edge = inside & ~ndimage.binary_erosion(inside)
        opacity = np.where(edge, LINE, TINT * inside)[:, :, None]
        picture = picture * (1 - opacity) + np.array(colour) * opacity
    image = Image.fromarray(np.round(picture).astype(np.uint8))
    return image.resize((PANEL, PANEL), Image.Resampling.LANCZOS)


class _Viewer:
    """Samples one slice of the head, and of what lies in the brain's box, at the pixels of one panel.

    ``scale`` is the size of a pixel before reduction, mm.
    """

    def __init__(self, head: Volume, plane: Plane, index: int, box: Box, scale: float) -> None:
        self._across = plane.across
        self._index = index
        self._first = box[plane.across].start
        steps = (np.arange(PANEL * OVERSAMPLE) - (PANEL * OVERSAMPLE - 1) / 2) * scale
        # the two axes of the slice in rising order, as they remain when it is cut out: to the right, down
        sides = [(box[axis], head.spacing[axis]) for axis in (plane.right, plane.down)]
        self._in_box = [(side.stop - 1 - side.start) / 2 - steps / size for side, size in sides]
        self._in_head = [place + side.start for place, (side, _) in zip(self._in_box, sides, strict=True)]

    def of_head(self, data: Array) -> Array:
        """Return a slice of the head (rows, columns)."""
        return self._sample(data, self._index, self._in_head)

    def of_box(self, data: Array) -> Array:
        """Return the same slice of a volume that fills the box."""
        return self._sample(data, self._index - self._first, self._in_box)

    def _sample(self, data: Array, index: int, places: list[NDArray[np.float64]]) -> Array:
        right, down = np.meshgrid(*places)
        flat = np.take(data, index, axis=self._across)
        return np.asarray(ndimage.map_coordinates(flat, (right, down), order=1, mode="constant"), np.float32)


def _label(head: Volume, plane: Plane, index: int) -> str:
    """Return where a slice lies: its patient coordinate across the plane, mm."""
    centre = [(n - 1) / 2 for n in head.data.shape]
    centre[plane.across] = index
    place = head.affine[:3, :3] @ centre + head.affine[:3, 3]
    return f"{'RAS'[plane.across]} {place[plane.across]:+.0f} mm"


@cache
def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def _marks(draw: ImageDraw.ImageDraw, plane: Plane, x: int, y: int, caption: str) -> None:
    left, right = plane.marks
    for place, text, size, anchor in (
        ((x + 8, y + PANEL // 2), left, 18, "lm"),
        ((x + PANEL - 8, y + PANEL // 2), right, 18, "rm"),
        ((x + 8, y + 8), caption, 15, "lt"),
    ):
        draw.text(place, text, INK, _font(size), anchor, stroke_width=2, stroke_fill=GROUND)


def _legend(draw: ImageDraw.ImageDraw, height: int) -> None:
    x = GAP + 2
    for name, colour in COLOURS.values():
        draw.rectangle((x, 11, x + 14, 25), fill=colour)
        draw.text((x + 22, 18), name, INK, _font(16), anchor="lm")
        x += 22 + int(draw.textlength(name, _font(16))) + 30
    draw.text(
        (WIDTH - GAP - 2, 18),
        "Radiological convention: patient's right on the left",
        INK,
        _font(15),
        anchor="rm",
    )
    draw.text((GAP + 2, height - 22), "Decision support only", INK, _font(16), anchor="lm")
    note = "R right   L left   A front   P back"
    draw.text((WIDTH - GAP - 2, height - 22), note, INK, _font(15), anchor="rm")
