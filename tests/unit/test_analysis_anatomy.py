"""Noise, warp, ventricles, sides and quality, each on volumes whose answer is known."""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.brain.analysis import (
    asymmetry,
    denoise,
    midline,
    quality,
    rim,
    template,
    upright,
    ventricles,
)
from fr_twisted.brain.analysis.align import Alignment
from fr_twisted.brain.analysis.anatomy import Label
from fr_twisted.brain.analysis.mixture import Mixture
from fr_twisted.brain.analysis.skullstrip import Glimpse
from fr_twisted.brain.analysis.volume import Mask, Volume, ndimage
from fr_twisted.brain.analysis.warp import Warp, warp
from tests.builders import ball

Floats = NDArray[np.float32]


def noisy(values: NDArray[Any], deviation: float, seed: int = 0) -> Floats:
    """Return values with Gaussian noise."""
    return (values + np.random.default_rng(seed).normal(0, deviation, values.shape)).astype(np.float32)


@cache
def average() -> template.Template:
    """Return the template."""
    return template.load()


def unwarped() -> Warp:
    """Return the warp of a brain that is the template itself."""
    return Warp(np.eye(4), average().affine, np.zeros((3, *average().t1.shape), np.float32))


def labelled() -> NDArray[np.uint8]:
    """Return the `Label` of each voxel of the template, its ventricles as fluid."""
    maps = np.stack([average().fluid, average().grey, average().white])
    return np.where(average().mask > 0.5, maps.argmax(0) + 1, 0).astype(np.uint8)


class DenoiseTests(SynchronousTestCase):
    """Nonlinear diffusion."""

    def test_measuresTheNoise(self) -> None:
        """Noise is measured within 4 %, on a step and a slope as well, and is zero where there is none."""
        step = np.where(np.arange(40) < 20, 0.5, 1.0)[:, None, None] + np.zeros((40, 40, 40))
        slope = step + np.linspace(0, 0.5, 40)[None, :, None]
        inside = np.ones(slope.shape, bool)
        for deviation in (0.01, 0.1):
            found = denoise.noise(noisy(slope, deviation), inside)
            self.assertLess(abs(found / deviation - 1), 0.04)
        self.assertEqual(denoise.noise(step.astype(np.float32), inside), 0.0)
        self.assertEqual(denoise.noise(step.astype(np.float32), ~inside), 0.0)

    def test_flattensTissueAndKeepsBorders(self) -> None:
        """Noise falls to less than half, a border of six deviations keeps its place and height."""
        step = np.where(np.arange(40) < 20, 0.4, 1.0)[:, None, None] + np.zeros((40, 40, 40))
        found = denoise.denoised(noisy(step, 0.1), 0.1)
        self.assertLess(float(found[5:15].std()), 0.05)
        self.assertLess(abs(float(found[20:22].mean() - found[18:20].mean()) - 0.6), 0.04)

    def test_withoutNoiseNothingChanges(self) -> None:
        """A scan without noise comes back as it is, in an array of its own."""
        data = np.random.default_rng(1).random((6, 6, 6)).astype(np.float32)
        found = denoise.denoised(data, 0.0)
        np.testing.assert_array_equal(found, data)
        self.assertIsNot(found, data)


class WarpTests(SynchronousTestCase):
    """The template warped to itself, bent in a known way."""

    def test_followsAKnownBend(self) -> None:
        """Of a smooth bend of 6 mm, what is left in the brain after warping is less than half."""
        grid = average().volume(average().t1 * (average().mask > 0.5))
        x, y, z = np.indices(grid.data.shape)
        bend = (3 * np.sin(np.pi * y / 116) * np.sin(np.pi * z / 94)).astype(np.float32)
        bent = ndimage.map_coordinates(grid.data, (x + bend, y, z), order=1, mode="constant")
        found = warp(grid.with_data(bent), Alignment(np.eye(4), 1.0), average())
        inside = ndimage.map_coordinates(average().mask, (x + bend, y, z), order=1) > 0.9
        before = np.sqrt((bend[inside] ** 2).mean())
        left = np.sqrt(((found.field[0] - bend)[inside] ** 2).mean())
        self.assertLess(float(left), 0.5 * float(before))

    def test_pointsAndMapsAgree(self) -> None:
        """A point is sent to the place of the template that the warped map shows there."""
        field = np.zeros((3, *average().t1.shape), np.float32)
        field[1] = 2.5
        shifted = Warp(np.diag([1.1, 1.1, 1.1, 1.0]), average().affine, field)
        place = shifted.to_template(np.array([[11.0, -22.0, 33.0]]))
        np.testing.assert_allclose(place, [[10.0, -15.0, 30.0]], atol=1e-9)
        y = np.indices(average().t1.shape)[1].astype(np.float32)
        seen = shifted.warped(y)
        np.testing.assert_allclose(seen[50, 20:80, 40], np.arange(20, 80) + 2.5, atol=1e-4)

    def test_ontoAnotherGrid(self) -> None:
        """A map is read on the grid of a scan, zero outside the template."""
        grid = Volume(np.zeros((60, 60, 60), np.float32), np.diag([4.0, 4.0, 4.0, 1.0]))
        far = unwarped().onto(average().mask, grid)
        self.assertEqual(float(far[40:].max()), 0.0)
        self.assertGreater(float(far[5, 5, 5]), 0.9)


class VentricleTests(SynchronousTestCase):
    """Ventricles of the template and of one whose ventricles are wider."""

    def found(self, labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Return the ventricles of a brain that lies as the template does."""
        return ventricles.ventricles(labels, average().volume(average().t1), unwarped(), average())

    def test_allFour(self) -> None:
        """The template's ventricles are the lateral ones, the third between the thalami and the fourth (MNI mm)."""
        to_index = np.linalg.inv(average().affine)
        for place in ((-14, 10, 16), (14, 10, 16), (0, -10, 0), (0, -48, -32)):
            i, j, k = np.round((to_index @ [*place, 1])[:3]).astype(int)
            here = average().ventricles[i - 1 : i + 2, j - 1 : j + 2, k - 1 : k + 2]
            self.assertGreater(float(here.max()), ventricles.CORE, place)

    def test_ownVentricles(self) -> None:
        """Those of the template are found with a Dice above 0.85, and nothing else."""
        true = average().ventricles > 0.5
        found = self.found(labelled())
        self.assertGreater(2 * (true & found).sum() / (true.sum() + found.sum()), 0.85)

    def test_wideVentriclesAreFollowed(self) -> None:
        """Lateral ventricles that are 4 mm wider all around are found whole."""
        wide = ndimage.binary_dilation(average().ventricles > 0.5, iterations=2)
        labels = labelled()
        labels[wide] = Label.FLUID
        found = self.found(labels)
        self.assertGreater((found & wide).sum() / wide.sum(), 0.9)

    def test_surfaceFluidIsNone(self) -> None:
        """Fluid that does not hang together with the ventricles, or lies near the surface, is not taken."""
        labels = labelled()
        deep = ball(labels.shape, 60) & (labels > 0)
        labels[average().ventricles > 0.1] = Label.WHITE
        self.assertFalse(self.found(np.where(deep, labels, labels).astype(np.uint8)).any())


class RimTests(SynchronousTestCase):
    """What ventricle and white matter share, in a head of layers along the first axis."""

    MIXTURE = Mixture(np.array([0.2, 0.6, 1.0, 0.7]), np.full(4, 0.01))
    HALF = 0.2 + rim.HALF * 0.8

    def settled(self, *layers: tuple[Label, int], rim_values: float) -> NDArray[np.uint8]:
        """Return the labels of one line through the layers; grey ones have the value of the rim."""
        line = np.concatenate([np.full(count, label, np.uint8) for label, count in layers])
        labels = np.ascontiguousarray(np.broadcast_to(line[:, None, None], (len(line), 8, 8)))
        values = np.where(labels == Label.GREY, rim_values, 0.2).astype(np.float32)
        rim.settle(labels, values, self.MIXTURE)
        self.assertTrue(np.all(labels == labels[:, :1, :1]))
        return labels[:, 0, 0]

    def test_sheetIsWhatItHoldsMoreOf(self) -> None:
        """A grey sheet between ventricle and white matter is ventricle where dark, white matter where bright."""
        layers = ((Label.VENTRICLE, 5), (Label.GREY, 1), (Label.WHITE, 5))
        dark, bright = (self.settled(*layers, rim_values=self.HALF + step) for step in (-0.01, 0.01))
        self.assertEqual(dark.tolist(), [Label.VENTRICLE] * 6 + [Label.WHITE] * 5)
        self.assertEqual(bright.tolist(), [Label.VENTRICLE] * 5 + [Label.WHITE] * 6)

    def test_greyMatterStays(self) -> None:
        """Grey matter two voxels thick stays (the caudate), as does a sheet without white matter behind it, or without
        ventricle before it."""
        for layers in (
            ((Label.VENTRICLE, 5), (Label.GREY, 2), (Label.WHITE, 5)),
            ((Label.VENTRICLE, 5), (Label.GREY, 1), (Label.VENTRICLE, 5)),
            ((Label.FLUID, 5), (Label.GREY, 1), (Label.WHITE, 5), (Label.VENTRICLE, 5)),
            ((Label.FLUID, 5), (Label.GREY, 1), (Label.WHITE, 5)),
        ):
            found = self.settled(*layers, rim_values=0.3)
            self.assertEqual(found.tolist(), [label for label, count in layers for _ in range(count)])


class AsymmetryTests(SynchronousTestCase):
    """Left and right."""

    def right(self, middle: float = 0.0) -> Floats:
        """Return how far right of a flat middle each voxel of the template lies."""
        plane = np.full(average().t1.shape[1:], middle)
        return asymmetry.rightward(plane, average().volume(average().t1), unwarped(), average())

    def test_symmetricTemplate(self) -> None:
        """In the symmetric template, grey matter and ventricles are within 1 % and 3 % of even."""
        grid = average().volume(average().t1)
        grey = asymmetry.sides(average().grey, self.right(), grid)
        self.assertLess(abs(grey.index), 1.0)
        self.assertLess(abs(asymmetry.sides(average().ventricles, self.right(), grid).index), 3.0)
        self.assertAlmostEqual(grey.left + grey.right, float(average().grey.sum()) * 0.008, 1)

    def test_leftIsThePatientsLeft(self) -> None:
        """What lies at negative x is left; the index is positive when there is more of it, and 0 for nothing."""
        grid = average().volume(average().t1)
        only = np.zeros(grid.data.shape, bool)
        only[20:30, 50:60, 40:50] = True  # x from -58 to -38 mm
        found = asymmetry.sides(only, self.right(), grid)
        np.testing.assert_allclose((found.left, found.right, found.index), (8.0, 0.0, 200.0), atol=1e-9)
        self.assertEqual(asymmetry.Sides(0.0, 0.0).index, 0.0)

    def test_theMiddleOfAVoxel(self) -> None:
        """A voxel that the middle cuts counts on both sides by its parts."""
        grid = average().volume(average().t1)
        only = np.zeros(grid.data.shape, bool)
        only[49, 50, 40] = True  # x from -0.5 to 1.5 mm
        found = asymmetry.sides(only, self.right(0.0), grid)
        self.assertAlmostEqual(found.left / (found.left + found.right), 0.25, 5)


class MidlineTests(SynchronousTestCase):
    """The middle between the hemispheres."""

    def found(self, data: Floats, field: Floats | None = None) -> NDArray[np.float64]:
        """Return the middle of a brain on the template's grid."""
        bent = unwarped() if field is None else Warp(np.eye(4), average().affine, field)
        return midline.midline(average().volume(data), bent, average())

    def brain(self) -> Floats:
        """Return the template's brain, stripped."""
        return np.asarray(average().t1 * (average().mask > 0.5), np.float32)

    def test_templateIsSymmetric(self) -> None:
        """The middle of the template is within half a millimetre of x = 0, everywhere in the brain."""
        inside = average().mask[49] > 0.5
        self.assertLess(float(np.abs(self.found(self.brain())[inside]).max()), 0.5)

    def test_findsAShift(self) -> None:
        """A brain that lies 2 mm further right than the warp says has its middle there, to half a millimetre."""
        moved = np.roll(self.brain(), 1, axis=0)
        inside = average().mask[49] > 0.5
        self.assertLess(abs(float(np.median(self.found(moved)[inside])) - 2.0), 0.5)

    def test_aPushedVentricleDoesNotMoveTheStart(self) -> None:
        """A warp that moves all about the ventricles by 8 mm moves the middle there by less than 2 mm."""
        field = np.zeros((3, *average().t1.shape), np.float32)
        near = ndimage.binary_dilation(average().ventricles > 0.2, iterations=2)
        field[0][near] = 4
        inside = near[49] & (average().mask[49] > 0.5)
        self.assertLess(float(np.abs(self.found(self.brain(), field)[inside]).max()), 2.0)


class QualityTests(SynchronousTestCase):
    """Readings without a reference."""

    def head(self, deviation: float = 0.0, ghost: float = 0.0) -> Volume:
        """Return a bright ball with a dark shell in Rician noise and a ghost along the second axis."""
        shape = (90, 110, 90)
        clean = ball(shape, 30) * 0.9 + (ball(shape, 36) & ~ball(shape, 33)) * 0.6
        clean = clean + ghost * np.roll(clean, 55, 1)
        rng = np.random.default_rng(5)
        data = np.hypot(clean + rng.normal(0, deviation, shape), rng.normal(0, deviation, shape))
        return Volume(data.astype(np.float32), np.diag([2.0, 2.0, 2.0, 1.0]))

    def test_airIsToldAtAnyNoise(self) -> None:
        """The share of air is the same from 1 % to 15 % noise, and noise is not taken for a head."""
        shares = [quality.background(self.head(deviation)).air for deviation in (0.01, 0.05, 0.10, 0.15)]
        self.assertLess(max(shares) - min(shares), 0.03)
        self.assertGreater(min(shares), 0.5)

    def test_ghosts(self) -> None:
        """A ghost is seen along its own axis, the more the brighter it is, and not along the others."""
        found = [quality.background(self.head(0.03, ghost)).ghost for ghost in (0.0, 0.05, 0.10)]
        along = [axes[1] or 0.0 for axes in found]
        self.assertLess(abs(along[0]), 0.002)
        self.assertGreater(along[1], 0.01)
        self.assertGreater(along[2], 2 * along[1])
        self.assertLess(max(axes[0] or 0.0 for axes in found), 0.005)

    def test_airOfZeros(self) -> None:
        """Air that is exactly zero is told apart from air with noise; a filled field has none."""
        masked = self.head()
        self.assertTrue(quality.background(masked).zeroed)
        self.assertEqual(quality.background(masked).ghost, (None, None, None))
        filled = masked.crop((slice(30, 60), slice(40, 70), slice(30, 60)))
        self.assertLess(quality.background(filled).air, quality.LEAST_AIR)

    def test_otsu(self) -> None:
        """The threshold lies between two classes."""
        values = np.concatenate([noisy(np.full(900, 0.1), 0.02), noisy(np.full(300, 0.8), 0.1)])
        self.assertTrue(0.2 < quality.otsu(values) < 0.6)

    def test_signal(self) -> None:
        """SNR and CNR follow from the noise in white matter; non-uniformity from the bias."""
        white = ball((40, 40, 40), 15)
        brain = noisy(white * 0.8, 0.04)
        bias = np.where(np.arange(40) < 20, 0.0, np.log(1.3))[:, None, None] + np.zeros((40, 40, 40))
        mixture = Mixture(np.array([0.2, 0.6, 0.8, 0.7]), np.full(4, 0.01))
        found = quality.signal(brain, bias.astype(np.float32), white, white, mixture)
        self.assertLess(abs((found.snr or 0) / 20 - 1), 0.05)
        self.assertLess(abs((found.cnr or 0) / 5 - 1), 0.05)
        self.assertAlmostEqual(found.non_uniformity, 0.3, 2)
        silent = quality.signal(white * np.float32(0.8), bias.astype(np.float32), white, white, mixture)
        self.assertIsNone(silent.snr)


class UprightTests(SynchronousTestCase):
    """Tilted heads."""

    def test_angle(self) -> None:
        """The tilt is that of the template against the grid, whatever its size and the patient's obliquity."""
        for degrees, oblique in ((12.0, 0.0), (0.0, 20.0)):
            head = Volume(np.zeros((4, 4, 4), np.float32), turned(oblique) @ np.diag([1.0, 1.0, 1.5, 1.0]))
            alignment = Alignment(turned(degrees + oblique) * 1.1, 0.9)
            turn, found = upright.tilt(alignment, head)
            self.assertAlmostEqual(found, degrees, 5)
            np.testing.assert_allclose(turn, turned(degrees)[:3, :3], atol=1e-9)

    def test_theMaskComesBack(self) -> None:
        """What is found on the turned grid is put back in its place on the scan's."""
        shape = (50, 50, 50)
        data = np.zeros(shape, np.float32)
        data[10:25, 20:40, 15:35] = 1.0
        glimpses: list[Volume] = []

        def see(straight: Volume, seen: Glimpse) -> Mask:
            glimpses.append(seen.brain)
            return np.asarray(straight.data > 0.5)

        self.patch(upright, "brain_mask", see)
        head = Volume(data, np.diag([2.0, 2.0, 2.0, 1.0]))
        rough = Volume(data[::2, ::2, ::2], np.diag([4.0, 4.0, 4.0, 1.0]))
        found = upright.straight_mask(head, Glimpse(rough, 0.0, 1.0), turned(15.0)[:3, :3])
        true = data > 0
        centre = [np.argwhere(volume.data > 0.5).mean(0) for volume in (head, glimpses[0])]
        moved = glimpses[0].affine @ np.array([*centre[1], 1])
        np.testing.assert_allclose(moved[:3], centre[0] * 2, atol=1.5)
        self.assertGreater(2 * (found & true).sum() / (found.sum() + true.sum()), 0.97)


def turned(degrees: float) -> NDArray[np.float64]:
    """Return a rotation about x, 4 x 4."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[1.0, 0, 0, 0], [0, c, -s, 0], [0, s, c, 0], [0, 0, 0, 1]])
