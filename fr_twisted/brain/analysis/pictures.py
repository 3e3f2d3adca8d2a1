"""The report's pictures: slices of the whole brain with its tissues, and each lesion candidate close up.

All are in radiological convention, hold no text of the patient's, and are the same bytes for the same anatomy.
"""

import io
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from fr_twisted.brain.analysis.anatomy import Anatomy, Lesion
from fr_twisted.brain.analysis.schema import DECISION_SUPPORT
from fr_twisted.brain.analysis.slices import (
    COLOURS,
    GROUND,
    INK,
    LESION,
    LINE,
    PLANES,
    TINT,
    Plane,
    Slicer,
    Window,
    font,
    position,
    reduced,
    tinted,
    write,
)

WIDTH = 1500
"""Pixels of the overlay."""

COUNTS = (6, 6, 5)
"""Slices of each plane; a head is longer than wide, so fewer sagittal ones fill a row."""

GAP = 6
HEADER = 40
FOOTER = 40

MARGIN_MM = 8.0
"""Shown about the brain."""

MOST_LESIONS = 12
"""That get a picture of their own."""

CLOSE_MM = 40.0
CLOSE_PIXELS = 150
"""Side of each of the three pictures of a lesion."""

RING = 9
"""Least radius of the ring about a lesion, pixels."""


def overlay(anatomy: Anatomy) -> bytes:
    """Return axial, coronal and sagittal slices as PNG, `WIDTH` pixels wide.

    Tissues are coloured where there are labels. Slices are spread evenly over the brain, and moved to where the lesion
    candidates are, as far as there are slices for them; every candidate that a slice cuts is ringed and numbered.
    """
    slicer = Slicer(anatomy)
    extents = [
        (side.stop - side.start) * size for side, size in zip(slicer.box, slicer.head.spacing, strict=True)
    ]
    shown = [extent + 2 * MARGIN_MM for extent in extents]
    pixel = max(
        shown[plane.right] * count / (WIDTH - GAP * (count + 1))
        for plane, count in zip(PLANES, COUNTS, strict=True)
    )
    spots = [_spot(anatomy, number, lesion) for number, lesion in enumerate(anatomy.lesions, start=1)]
    sizes = [(int(shown[plane.right] / pixel), int(shown[plane.down] / pixel)) for plane in PLANES]
    canvas = Image.new("RGB", (WIDTH, HEADER + FOOTER + sum(size[1] + GAP for size in sizes)), GROUND)
    draw = ImageDraw.Draw(canvas)
    top, unseen = HEADER, spots
    for plane, count, size in zip(PLANES, COUNTS, sizes, strict=True):
        indices, unseen = _slices(slicer, plane, count, unseen)
        left = (WIDTH - count * (size[0] + GAP) + GAP) // 2
        for column, index in enumerate(indices):
            window = Window(plane, index, _middle(slicer, plane), size, pixel)
            place = left + column * (size[0] + GAP), top
            _paste(canvas, slicer, window, place, f"{plane.name}  " if not column else "")
            _rings(draw, slicer, window, place, spots)
        top += size[1] + GAP
    _legend(draw, slicer.labelled, bool(spots), canvas.height)
    return _png(canvas)


def lesion_pictures(anatomy: Anatomy) -> tuple[bytes, ...]:
    """Return one PNG for each of the first `MOST_LESIONS` candidates: three planes through its middle, outlined."""
    slicer = Slicer(anatomy)
    spots = [
        _spot(anatomy, number, lesion)
        for number, lesion in enumerate(anatomy.lesions[:MOST_LESIONS], start=1)
    ]
    return tuple(_close_up(slicer, anatomy, spot) for spot in spots)


@dataclass(frozen=True)
class _Spot:
    """A lesion in voxel indices of the head."""

    number: int
    lesion: Lesion
    middle: list[float]
    first: list[int]
    last: list[int]

    def cut_by(self, plane: Plane, index: int) -> bool:
        return self.first[plane.across] <= index <= self.last[plane.across]


def _spot(anatomy: Anatomy, number: int, lesion: Lesion) -> _Spot:
    places = lesion.voxels + [side.start for side in anatomy.box]
    return _Spot(number, lesion, places.mean(0).tolist(), places.min(0).tolist(), places.max(0).tolist())


def _slices(slicer: Slicer, plane: Plane, count: int, unseen: list[_Spot]) -> tuple[list[int], list[_Spot]]:
    """Return the indices to draw, and the spots that none of them cuts.

    The slice that lies nearest to a spot is moved to it, unless it was moved to another one already.
    """
    side = slicer.box[plane.across]
    shares = np.linspace(*plane.span, count)
    indices = [int(side.start + share * (side.stop - 1 - side.start) + 0.5) for share in shares]
    free = set(range(count))
    for spot in unseen:
        if not any(spot.cut_by(plane, index) for index in indices) and free:
            wanted = round(spot.middle[plane.across])
            nearest = min(free, key=lambda place: (abs(indices[place] - wanted), place))
            indices[nearest] = wanted
        # a slice that shows a spot stays where it is
        free -= {place for place in free if spot.cut_by(plane, indices[place])}
    indices.sort()
    return indices, [spot for spot in unseen if not any(spot.cut_by(plane, index) for index in indices)]


def _middle(slicer: Slicer, plane: Plane) -> tuple[float, float]:
    right, down = (
        (slicer.box[axis].start + slicer.box[axis].stop - 1) / 2 for axis in (plane.right, plane.down)
    )
    return right, down


def _paste(canvas: Image.Image, slicer: Slicer, window: Window, place: tuple[int, int], name: str) -> None:
    tissue = slicer.tissue(window) if slicer.labelled else None
    canvas.paste(reduced(tinted(slicer.grey(window), tissue), window.size), place)
    (x, y), (width, height) = place, window.size
    draw = ImageDraw.Draw(canvas)
    write(draw, (x + 5, y + 5), name + position(slicer.head, window.plane, window.index), 15, "lt")
    for mark, edge, anchor in zip(window.plane.marks, (x + 5, x + width - 5), ("lm", "rm"), strict=True):
        write(draw, (edge, y + height // 2), mark, 18, anchor)


def _rings(
    draw: ImageDraw.ImageDraw, slicer: Slicer, window: Window, place: tuple[int, int], spots: list[_Spot]
) -> None:
    plane = window.plane
    for spot in spots:
        if not spot.cut_by(plane, window.index):
            continue
        centre, radius = [], float(RING)
        for axis, middle, pixels in zip((plane.right, plane.down), window.centre, window.size, strict=True):
            scale = slicer.head.spacing[axis] / window.pixel
            centre.append(pixels / 2 - (spot.middle[axis] - middle) * scale)
            radius = max(radius, (spot.last[axis] - spot.first[axis] + 1) / 2 * scale + 5)
        x, y = place[0] + centre[0], place[1] + centre[1]
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=LESION, width=2)
        # beside the ring, on the side that is farther from the edge
        side = 1 if centre[0] < window.size[0] * 0.75 else -1
        write(
            draw,
            (x + side * (radius + 3), y),
            str(spot.number),
            17,
            "lm" if side > 0 else "rm",
            (255, 255, 255),
        )


def _close_up(slicer: Slicer, anatomy: Anatomy, spot: _Spot) -> bytes:
    inside = np.zeros(anatomy.labels.shape, np.bool_)
    inside[tuple(spot.lesion.voxels.T)] = True
    canvas = Image.new("RGB", (3 * CLOSE_PIXELS + 2 * GAP, CLOSE_PIXELS), GROUND)
    draw = ImageDraw.Draw(canvas)
    for column, plane in enumerate(PLANES):
        window = Window(
            plane,
            min(max(round(spot.middle[plane.across]), spot.first[plane.across]), spot.last[plane.across]),
            (spot.middle[plane.right], spot.middle[plane.down]),
            (CLOSE_PIXELS, CLOSE_PIXELS),
            CLOSE_MM / CLOSE_PIXELS,
        )
        picture = tinted(slicer.grey(window), None)
        picture[slicer.outline(inside, window)] = LESION
        x = column * (CLOSE_PIXELS + GAP)
        canvas.paste(reduced(picture, window.size), (x, 0))
        write(draw, (x + 4, CLOSE_PIXELS // 2), plane.marks[0], 14, "lm")
        write(draw, (x + CLOSE_PIXELS - 4, CLOSE_PIXELS // 2), plane.marks[1], 14, "rm")
        write(draw, (x + 4, CLOSE_PIXELS - 4), position(slicer.head, plane, window.index), 12, "lb")
    write(draw, (4, 3), str(spot.number), 20, "lt", (255, 255, 255))
    return _png(canvas)


def _legend(draw: ImageDraw.ImageDraw, labelled: bool, lesions: bool, height: int) -> None:
    x, y = float(GAP + 2), HEADER // 2
    entries = list(COLOURS.values()) if labelled else []
    for name, colour in entries:
        draw.rectangle((x, y - 8, x + 16, y + 8), fill=colour)
        draw.text((x + 24, y), name, INK, font(18), anchor="lm")
        x += 24 + draw.textlength(name, font(18)) + 30
    if lesions:
        draw.ellipse((x, y - 9, x + 18, y + 9), outline=LESION, width=2)
        draw.text((x + 26, y), "Lesion candidate", INK, font(18), anchor="lm")
    if not labelled:
        draw.text((x, y), "No tissue was measured", INK, font(18), anchor="lm")
    convention = "Radiological convention: patient's right on the left"
    draw.text((WIDTH - GAP - 2, y), convention, INK, font(18), anchor="rm")
    low = height - FOOTER // 2
    draw.text((GAP + 2, low), "Decision support only", INK, font(18), anchor="lm")
    note = "R right  L left  A front  P back;  positions in mm to the right (R), front (A), top (S)"
    draw.text((WIDTH - GAP - 2, low), note, INK, font(16), anchor="rm")


def _png(canvas: Image.Image) -> bytes:
    """Return the picture in the fixed palette: a third of the size, and the legend's colours stay what they are."""
    out = io.BytesIO()
    words = PngInfo()
    words.add_text("Comment", DECISION_SUPPORT)
    quantised = canvas.quantize(palette=_palette(), dither=Image.Dither.NONE)
    quantised.save(out, "PNG", pnginfo=words)
    return out.getvalue()


@cache
def _palette() -> Image.Image:
    """Return up to 256 colours: greys, greys under each tint, and lines over greys."""
    colours = [np.array(colour) for _, colour in COLOURS.values()]
    lines = [*colours, np.array(LESION)]
    ramp = np.linspace(0, 255, 40)[:, None] * np.ones(3)
    rows = [
        np.array([INK, GROUND, (255, 255, 255)]),
        np.array(lines),
        np.linspace(0, 255, 62)[:, None] * np.ones(3),
    ]
    rows += [ramp[6:] * (1 - TINT) + colour * TINT for colour in colours]
    rows += [ramp[::9] * (1 - part) + colour * part for colour in lines for part in (LINE, LINE / 2)]
    table = np.round(np.concatenate(rows)).astype(np.uint8)
    image = Image.new("P", (1, 1))
    image.putpalette(table[:256].tobytes())
    return image
