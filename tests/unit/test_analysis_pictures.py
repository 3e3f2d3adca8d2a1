"""The pictures of a report: convention, aspect, colours, lesions that can be found."""

import io
from typing import Any

import numpy as np
from PIL import Image
from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.brain.analysis import pictures, slices
from fr_twisted.brain.analysis.anatomy import Anatomy, Box
from fr_twisted.brain.analysis.slices import COLOURS, LESION, PLANES, Slicer, Window
from fr_twisted.brain.analysis.volume import Volume
from tests.report_builders import some_head

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Places = np.ndarray[Any, np.dtype[np.intp]]


def pixels(png: bytes) -> Pixels:
    """Return the colours of a picture."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def coloured(picture: Pixels, colour: slices.Colour, tolerance: int = 30) -> Places:
    """Return (row, column) of the pixels that have about this colour, below the legend."""
    near = np.asarray(np.abs(picture.astype(int) - colour) <= tolerance).all(2)
    places = np.argwhere(near)
    return places[places[:, 0] >= pictures.HEADER]


def bare(data: Pixels | np.ndarray[Any, Any], box: Box = ()) -> Anatomy:
    """Return an anatomy of 2 mm without any label."""
    return Anatomy(
        Volume(data.astype(np.float32), np.diag([2.0, 2.0, 2.0, 1.0])), box, np.zeros((0, 0, 0), np.uint8)
    )


class OverlayTests(SynchronousTestCase):
    """`pictures.overlay`."""

    def test_radiologicalConvention(self) -> None:
        """The patient's right is on the left, the front of axial slices and the top of the others at the top."""
        data = np.full((80, 80, 80), 0.3, np.float32)
        data[40:, 40:, 40:] = 1  # right, front, top
        slicer = Slicer(bare(data))
        for plane in PLANES:
            picture = slicer.grey(Window(plane, 60, (39.5, 39.5), (80, 80), 2.0))
            middle = len(picture) // 2
            quarters = [picture[:middle, :middle], picture[:middle, middle:], picture[middle:]]
            self.assertGreater(float(quarters[0].mean()), 0.9, plane.name)
            self.assertLess(max(float(quarter.mean()) for quarter in quarters[1:]), 0.4, plane.name)
        self.assertEqual([plane.marks for plane in PLANES], [("R", "L"), ("R", "L"), ("A", "P")])

    def test_aspectOfThickSlices(self) -> None:
        """A head of 2 x 2 x 5 mm is drawn with the shape of one of 2 x 2 x 2 mm."""
        thin, thick = (Slicer(some_head(spacing=spacing)) for spacing in ((2.0, 2.0, 2.0), (2.0, 2.0, 5.0)))
        shapes = []
        for slicer in (thin, thick):
            middle = [(n - 1) / 2 for n in slicer.head.data.shape]
            window = Window(PLANES[1], round(middle[1]), (middle[0], middle[2]), (180, 180), 1.0)
            shapes.append(slicer.tissue(window) > 0)
        agreement = 2 * (shapes[0] & shapes[1]).sum() / (shapes[0].sum() + shapes[1].sum())
        self.assertGreater(float(agreement), 0.97)
        self.assertLess(abs(float(shapes[0].sum()) / 4 - np.pi * 70 * 65), 400)

    def test_sameBytes(self) -> None:
        """The same anatomy gives the same bytes, and a light file."""
        one, other = (pictures.overlay(some_head(((45, 60, 45),))) for _ in range(2))
        self.assertEqual(one, other)
        self.assertLess(len(one), 600_000)
        self.assertEqual(pixels(one).shape[1], pictures.WIDTH)

    def test_tissuesAreColoured(self) -> None:
        """Each tissue has its tint and its colour in the legend, exactly; without labels there is neither."""
        picture, plain = (pixels(pictures.overlay(some_head(labelled=flag))) for flag in (True, False))
        for _, colour in COLOURS.values():
            legend = (picture[: pictures.HEADER] == colour).all(2)
            self.assertGreater(int(legend.sum()), 100)
            self.assertFalse((plain[: pictures.HEADER] == colour).all(2).any())
        saturation = np.ptp(plain[pictures.HEADER : -pictures.FOOTER].astype(int), axis=2)
        self.assertLess(int(saturation.max()), 20)

    def test_paletteFits(self) -> None:
        """The fixed colours are no more than a PNG palette holds, lesions' and legend's among them."""
        palette = np.array(pictures._palette().getpalette()).reshape(-1, 3).tolist()
        self.assertLessEqual(len(palette), 256)
        for colour in (LESION, *(colour for _, colour in COLOURS.values())):
            self.assertIn(list(colour), palette)

    def test_withoutABrain(self) -> None:
        """An empty box, a box without length, and an empty image show what there is, without colours."""
        data = some_head().head.data
        for box in ((), (slice(0, 0),) * 3):
            picture = pixels(pictures.overlay(bare(data, box)))
            self.assertGreater(float(picture[pictures.HEADER : -pictures.FOOTER].mean()), 20)
        self.assertEqual(pixels(pictures.overlay(bare(np.zeros((20, 20, 20))))).shape[1], pictures.WIDTH)

    def test_everyLesionIsRinged(self) -> None:
        """Lesions that no evenly spread slice cuts move a slice to themselves; each has a ring about its place."""
        places = ((31, 40, 30), (58, 61, 52), (45, 75, 61))
        for place in places:
            picture = pixels(pictures.overlay(some_head((place,))))
            self.assertGreater(len(coloured(picture, LESION)), 40, place)
        none = pixels(pictures.overlay(some_head()))
        self.assertEqual(len(coloured(none, LESION)), 0)

    def test_ringIsAboutTheLesion(self) -> None:
        """The middle of a ring has the lesion's brightness, between fluid and white matter."""
        head = some_head(((52, 60, 50),))
        picture = pixels(
            pictures.overlay(Anatomy(head.head, head.box, np.zeros_like(head.labels), head.lesions))
        )
        first_row = coloured(picture, LESION)
        top = first_row[first_row[:, 0] < pictures.HEADER + 250]
        row, column = (int((top[:, axis].min() + top[:, axis].max()) / 2) for axis in (0, 1))
        inside = float(picture[row, column].mean())
        around = float(picture[row - 15, column].mean())
        self.assertLess(abs(inside / around - 0.6), 0.05)

    def test_moreLesionsThanSlices(self) -> None:
        """Any number of lesions is drawn."""
        places = tuple((30 + n % 30, 40 + n, 25 + n % 40) for n in range(40))
        self.assertGreater(len(coloured(pixels(pictures.overlay(some_head(places))), LESION)), 500)


class PositionTests(SynchronousTestCase):
    """Where a slice lies."""

    def test_wholeMillimetres(self) -> None:
        """It is told in whole millimetres with a sign, that of the middle being +0 from both sides."""
        shift = np.eye(4)
        shift[:3, 3] = (-2.4, 0.0, 0.0)
        head = Volume(np.zeros((6, 4, 4), np.float32), shift)
        sagittal = next(plane for plane in PLANES if plane.across == 0)
        told = [slices.position(head, sagittal, index) for index in range(5)]
        self.assertEqual(told, ["R -2 mm", "R -1 mm", "R +0 mm", "R +1 mm", "R +2 mm"])


class CloseUpTests(SynchronousTestCase):
    """`pictures.lesion_pictures`."""

    def test_oneForEachOfTheFirst(self) -> None:
        """Each listed lesion has a picture, the first twelve at most, and nothing is drawn for none."""
        places = tuple((30 + 2 * n, 50, 45) for n in range(14))
        self.assertEqual(len(pictures.lesion_pictures(some_head(places))), pictures.MOST_LESIONS)
        self.assertEqual(pictures.lesion_pictures(some_head()), ())

    def test_lesionIsInTheMiddleOfThreePlanes(self) -> None:
        """Each plane shows the lesion in its middle, with a line about it, at 40 mm across."""
        (png,) = pictures.lesion_pictures(some_head(((52, 60, 50),)))
        picture, side = pixels(png), pictures.CLOSE_PIXELS
        self.assertEqual(picture.shape[:2], (side, 3 * side + 2 * pictures.GAP))
        for plane in range(3):
            panel = picture[:, plane * (side + pictures.GAP) :][:, :side]
            middle = float(panel[side // 2, side // 2].mean())
            self.assertLess(abs(middle / float(panel[side // 2, side // 4].mean()) - 0.6), 0.05)
            line = np.argwhere((np.abs(panel.astype(int) - LESION) < 40).all(2))
            # the lesion has 6 mm, and lines are drawn about it
            self.assertLess(abs(np.ptp(line[:, 0]) * pictures.CLOSE_MM / side - 6.5), 0.7)

    def test_rightIsLeft(self) -> None:
        """What lies to the patient's right of a lesion is on the left of its axial and coronal pictures."""
        head = some_head(((52, 60, 50),))
        head.head.data[55:58, 59:62, 49:52] = 3  # 8 mm to the right
        (png,) = pictures.lesion_pictures(head)
        for plane in range(2):
            left = plane * (pictures.CLOSE_PIXELS + pictures.GAP)
            line = pixels(png)[pictures.CLOSE_PIXELS // 2, left : left + pictures.CLOSE_PIXELS].mean(1)[
                20:-20
            ]
            bright = np.flatnonzero(line == line.max()).mean() + 20
            expected = pictures.CLOSE_PIXELS / 2 - 8 / pictures.CLOSE_MM * pictures.CLOSE_PIXELS
            self.assertLess(abs(bright - expected), 3)

    def test_lesionAtTheEdge(self) -> None:
        """A lesion at the edge of the image is drawn, with nothing beyond."""
        corner = [side.start + 1 for side in some_head().box]
        (png,) = pictures.lesion_pictures(some_head(((corner[0], corner[1], corner[2]),)))
        self.assertGreater(len(coloured(pixels(png), LESION, 60)), 0)
