"""Lesion candidates in small made-up brains of which everything is known."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.brain.analysis import lesion_map, lesion_score, lesions
from fr_twisted.brain.analysis.anatomy import Label, Lesion
from fr_twisted.brain.analysis.mixture import Mixture
from fr_twisted.brain.analysis.schema import LesionKind
from fr_twisted.brain.analysis.volume import Volume, ndimage

DARK, BRIGHT = LesionKind.HYPOINTENSE, LesionKind.HYPERINTENSE
FLUID, GREY = 0.3, 0.78
SHIFT = np.array([3.0, -2.0, 40.0])
Mask = NDArray[np.bool_]
Triple = tuple[float, float, float]


def to_template(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return places in a template that lies a little beside the patient."""
    return np.asarray(places + SHIFT)


@dataclass
class Brain:
    """A block of white matter, 56 x 60 x 54 mm, with air about it; the middle of the grid is at 0 mm."""

    spacing: Triple = (1.0, 1.0, 1.0)
    noise: float = 0.02
    seed: int = 1

    def __post_init__(self) -> None:
        shape = tuple(round(size / edge) for size, edge in zip((56, 60, 54), self.spacing, strict=True))
        self.affine = np.diag((*self.spacing, 1.0))
        self.affine[:3, 3] = -(np.array(shape) - 1) / 2 * self.spacing
        self.values = np.ones(shape, np.float32)
        self.labels = np.full(shape, Label.WHITE, np.uint8)
        for axis, edge in enumerate(self.spacing):
            border = np.moveaxis(self.labels, axis, 0)
            count = max(1, round(3 / edge))
            border[:count] = border[-count:] = Label.OUTSIDE
        self.values[self.labels == Label.OUTSIDE] = 0.1

    def places(self) -> list[NDArray[np.float64]]:
        """Return x, y and z of all voxels, mm, to be broadcast."""
        index = np.ogrid[tuple(slice(0, n) for n in self.labels.shape)]
        return [i * e + o for i, e, o in zip(index, self.spacing, self.affine[:3, 3], strict=True)]

    def within(self, centre: Triple, radii: Triple) -> Mask:
        """Return the voxels of an ellipsoid, mm."""
        axes = zip(self.places(), centre, radii, strict=True)
        return np.asarray(sum(((along - c) / r) ** 2 for along, c, r in axes) <= 1)

    def paint(self, where: Mask, value: float, label: Label) -> Mask:
        """Give voxels of the brain a brightness and a label."""
        where = where & (self.labels != Label.OUTSIDE)
        self.values[where], self.labels[where] = value, label
        return where

    def lesion(self, centre: Triple, radius: float, contrast: float) -> Mask:
        """Add a ball, which the segmentation takes for grey matter where it is dark."""
        label = Label.GREY if contrast < -0.1 else Label.WHITE
        return self.paint(self.within(centre, (radius,) * 3), 1 + contrast, label)

    def find(self) -> tuple[Lesion, ...]:
        """Return what is found in it, after a point spread of half a millimetre and noise."""
        blurred = ndimage.gaussian_filter(self.values, [0.5 / edge for edge in self.spacing])
        rng = np.random.default_rng(self.seed)
        values = (blurred + self.noise * rng.standard_normal(blurred.shape)).astype(np.float32)
        priors = np.stack([np.full(values.shape, p, np.float32) for p in (0.01, 0.05, 0.94)])
        mixture = Mixture(np.array([FLUID, GREY, 1.0, 0.86]), np.full(4, 0.03**2))
        grid = Volume(values, self.affine)
        return lesions.find(values, self.labels, priors, mixture, grid, to_template)


class FindTests(SynchronousTestCase):
    """What is found, and where."""

    def check(self, found: Lesion, centre: Triple, truth: float, contrast: float) -> None:
        """Check place, volume (mm3) and contrast (per cent) of one candidate."""
        np.testing.assert_allclose(found.centroid_patient_mm, centre, atol=0.3)
        np.testing.assert_allclose(found.centroid_template_mm, np.array(centre) + SHIFT, atol=0.3)
        self.assertLess(abs(found.volume_mm3 / truth - 1), 0.2)
        self.assertLess(abs(found.contrast_percent - contrast), 3)
        self.assertTrue(lesions.GATE <= found.score <= 1)

    def test_darkEllipsoid(self) -> None:
        """A dark ellipsoid is found once, in its place, with its volume and its contrast."""
        brain = Brain()
        inside = brain.paint(brain.within((4.0, -3.0, 2.0), (5.0, 4.0, 3.5)), 0.75, Label.GREY)
        (found,) = brain.find()
        self.assertIs(found.kind, DARK)
        self.check(found, (4.0, -3.0, 2.0), float(inside.sum()), -25)
        self.assertGreater(inside[tuple(found.voxels.T)].mean(), 0.85)
        self.assertEqual(found.volume_mm3, len(found.voxels))

    def test_brightEllipsoid(self) -> None:
        """So is a bright one, which the segmentation calls white matter."""
        brain = Brain()
        inside = brain.paint(brain.within((-5.0, 6.0, 0.0), (3.5, 4.0, 5.0)), 1.2, Label.WHITE)
        (found,) = brain.find()
        self.assertIs(found.kind, BRIGHT)
        self.check(found, (-5.0, 6.0, 0.0), float(inside.sum()), 20)

    def test_millimetresOfThickSlices(self) -> None:
        """On voxels of 1 x 1 x 3 mm, places and volumes are in millimetres too."""
        brain = Brain((1.0, 1.0, 3.0))
        inside = brain.lesion((4.0, 5.0, -1.5), 6.0, -0.3)
        (found,) = brain.find()
        self.check(found, (4.0, 5.0, -1.5), float(inside.sum()) * 3, -30)

    def test_againstTheWhiteMatterAbout(self) -> None:
        """Where the whole neighbourhood is darker, the contrast is that to the neighbourhood."""
        brain = Brain()
        inside = brain.lesion((10.0, 0.0, 0.0), 4.0, -0.3)
        brain.values *= 1 - 0.1 * np.tanh(brain.places()[0] / 20).astype(np.float32)
        (found,) = brain.find()
        self.check(found, (10.0, 0.0, 0.0), float(inside.sum()), -30)

    def test_fallingScore(self) -> None:
        """Several candidates, dark and bright, come by falling score."""
        brain = Brain(noise=0.01)
        brain.lesion((14.0, 10.0, 0.0), 3.0, -0.14)
        brain.lesion((-10.0, -8.0, 3.0), 5.0, -0.35)
        brain.lesion((0.0, 14.0, -10.0), 4.0, 0.25)
        found = brain.find()
        self.assertEqual(len(found), 3)
        scores = [one.score for one in found]
        self.assertEqual(scores, sorted(scores, reverse=True))
        dark = sorted(one.centroid_patient_mm[0] for one in found if one.kind is DARK)
        np.testing.assert_allclose(dark, [-10, 14], atol=0.5)

    def test_lesionAtTheVentricle(self) -> None:
        """A lesion that touches a ventricle is told from it."""
        brain = Brain()
        inside = brain.lesion((6.0, 0.0, 0.0), 4.0, -0.3)
        brain.paint(brain.within((-4.0, 0.0, 0.0), (6.5, 14.0, 6.0)), FLUID, Label.VENTRICLE)
        (found,) = brain.find()
        self.assertLess(abs(found.volume_mm3 / inside.sum() - 1), 0.3)
        np.testing.assert_allclose(found.centroid_patient_mm, (6.0, 0.0, 0.0), atol=0.6)

    def test_sameTwice(self) -> None:
        """The same brain gives the same candidates, to the last bit."""
        first, second = (self.pair().find() for _ in range(2))
        self.assertEqual(len(first), 2)
        self.assertEqual([repr(one) for one in first], [repr(one) for one in second])

    def pair(self) -> Brain:
        """Return a brain with two lesions."""
        brain = Brain()
        brain.lesion((8.0, 8.0, 0.0), 4.0, -0.25)
        brain.lesion((-8.0, -8.0, 5.0), 3.5, 0.25)
        return brain


class NotFoundTests(SynchronousTestCase):
    """What is no lesion."""

    def test_noise(self) -> None:
        """Uniform tissue with noise has none, whatever the noise."""
        for seed, noise in enumerate((0.0, 0.01, 0.03, 0.06)):
            self.assertEqual(Brain(noise=noise, seed=seed).find(), ())

    def test_sulcus(self) -> None:
        """A sheet of grey matter with fluid in it, from the surface to the depth, is none; a ball beside it is one."""
        brain = Brain()
        x, _, z = brain.places()
        brain.paint((np.abs(x) < 4) & (z > 0), GREY, Label.GREY)
        brain.paint((np.abs(x) < 1) & (z > 3), FLUID, Label.FLUID)
        self.assertEqual(brain.find(), ())
        brain.lesion((14.0, 0.0, 0.0), 4.0, GREY - 1)
        self.assertEqual([one.kind for one in brain.find()], [DARK])

    def test_rimOfTheVentricle(self) -> None:
        """A ventricle and the dark rim about it are none."""
        brain = Brain()
        brain.paint(brain.within((0.0, 0.0, 0.0), (8.0, 15.0, 8.0)), 0.8, Label.GREY)
        brain.paint(brain.within((0.0, 0.0, 0.0), (6.0, 13.0, 6.0)), FLUID, Label.VENTRICLE)
        self.assertEqual(brain.find(), ())

    def test_noWhiteMatter(self) -> None:
        """Without white matter there is nothing to compare with, and none is found."""
        brain = Brain()
        brain.lesion((0.0, 0.0, 0.0), 4.0, -0.3)
        brain.labels[brain.labels == Label.WHITE] = Label.GREY
        self.assertEqual(brain.find(), ())


class PartTests(SynchronousTestCase):
    """What the stage is made of."""

    def test_shiftedCopies(self) -> None:
        """Erosion and dilation are scipy's, along the axes that are asked for."""
        mask = np.random.default_rng(5).random((9, 8, 7)) < 0.6
        cross = ndimage.generate_binary_structure(3, 1)
        np.testing.assert_array_equal(
            lesion_map.eroded(mask, (2, 2, 2)), ndimage.binary_erosion(mask, cross, 2)
        )
        np.testing.assert_array_equal(
            lesion_map.dilated(mask, (2, 2, 2)), ndimage.binary_dilation(mask, cross, 2)
        )
        flat = cross & (np.arange(3) == 1)
        np.testing.assert_array_equal(
            lesion_map.dilated(mask, (1, 1, 0)), ndimage.binary_dilation(mask, flat)
        )

    def test_blockMeans(self) -> None:
        """Blocks that the edge cuts are means of what they have."""
        data = np.arange(5 * 4 * 3, dtype=np.float32).reshape(5, 4, 3)
        means = lesion_map.block_means(data, (2, 2, 3))
        self.assertEqual(means.shape, (3, 2, 1))
        self.assertAlmostEqual(float(means[0, 0, 0]), float(data[:2, :2].mean()), places=4)
        self.assertAlmostEqual(float(means[2, 1, 0]), float(data[4:, 2:].mean()), places=4)

    def test_localWhite(self) -> None:
        """The white matter's brightness follows a slope, takes nothing from other tissue, and is the usual far away."""
        x = np.linspace(0.9, 1.1, 120, dtype=np.float32)[:, None, None]
        values = np.broadcast_to(x, (120, 40, 40)).copy()
        white = np.ones(values.shape, bool)
        white[:, 15:25, 15:25] = False
        values[~white] = 0.2
        found = lesion_map.local_white(values, white, (1.0, 1.0, 1.0), 5.0)
        middle = slice(30, 90)
        np.testing.assert_allclose(found[middle], np.broadcast_to(x, values.shape)[middle], atol=0.01)
        white[:60] = False
        found = lesion_map.local_white(values, white, (1.0, 1.0, 1.0), 5.0)
        np.testing.assert_allclose(found[:10], 5.0, rtol=0.01)

    def test_deviations(self) -> None:
        """An ellipsoid's half axes are the square root of five times its deviations, in millimetres."""
        brain = Brain((1.0, 1.0, 2.0))
        mask = brain.within((0.0, 0.0, 0.0), (12.0, 8.0, 10.0))
        axes = lesion_score.deviations(mask, brain.spacing) * 5**0.5
        np.testing.assert_allclose(axes, (8, 10, 12), rtol=0.03)
