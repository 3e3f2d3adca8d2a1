"""The stages of the analysis, each on small arrays whose answer is known."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.brain.analysis import mixture, orient, skullstrip, template, tissues, volume
from fr_twisted.brain.analysis.align import align
from fr_twisted.brain.analysis.bias import BiasField
from fr_twisted.brain.analysis.mixture import DEEP, GREY, WHITE, Mixture
from fr_twisted.brain.analysis.volume import Volume
from tests.builders import ball, small_affine, small_volume


class VolumeTests(SynchronousTestCase):
    """Grids and moving between them."""

    def test_geometry(self) -> None:
        """Spacing, voxel volume and orientation follow from the affine."""
        grid = Volume(np.zeros((4, 4, 4), np.float32), small_affine() @ np.diag([-1.0, -1.0, 1.0, 1.0]))
        self.assertEqual(grid.spacing, (1.0, 1.5, 2.0))
        self.assertAlmostEqual(grid.voxel_ml, 0.003)
        self.assertEqual(grid.orientation, "LPS")

    def test_resampleKeepsPlaceAndMean(self) -> None:
        """A ramp resampled to other voxels still has at each millimetre the value it had."""
        i, j, k = np.indices((24, 20, 18), dtype=np.float32)
        affine = small_affine((1.0, 1.0, 1.0))
        found = volume.resample(Volume(i + 2 * j - k, affine), (2.0, 1.0, 3.0))
        self.assertEqual(found.data.shape, (12, 20, 6))
        where = np.argwhere(np.ones((8, 20, 2))) + np.array([2, 0, 2])
        mm = where @ found.affine[:3, :3].T + found.affine[:3, 3] - affine[:3, 3]
        np.testing.assert_allclose(found.data[tuple(where.T)], mm @ [1, 2, -1], atol=0.02)

    def test_transferAlongAShift(self) -> None:
        """A volume read through a shift of whole voxels is the volume shifted; outside is zero."""
        source = Volume(small_volume((6, 6, 6)).astype(np.float32), np.eye(4))
        shift = np.eye(4)
        shift[0, 3] = 2
        found = volume.transfer(source, source, shift)
        np.testing.assert_allclose(found[:4], source.data[2:], atol=1e-4)
        self.assertEqual(float(np.abs(found[4:]).max()), 0.0)

    def test_boxAndLargestPart(self) -> None:
        """The bounding box holds the mask and its margin, inside the grid; the largest part is kept alone."""
        mask = np.zeros((9, 9, 9), bool)
        mask[0:3, 4:6, 2] = True
        self.assertEqual(volume.bounding_box(mask, 2), (slice(0, 5), slice(2, 8), slice(0, 5)))
        speck = mask.copy()
        speck[8, 8, 8] = True
        np.testing.assert_array_equal(volume.largest_component(speck), mask)


class OrientTests(SynchronousTestCase):
    """One form for all storage orders and scales."""

    @settings(deadline=None, max_examples=40, database=None)
    @given(st.permutations([0, 1, 2]), st.lists(st.booleans(), min_size=3, max_size=3), st.floats(-25, 25))
    def test_storageDoesNotMatter(self, order: list[int], flips: list[bool], degrees: float) -> None:
        """Any permutation and flip of the axes comes out as the same array in the same place."""
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        affine = np.array([[c, -s, 0, 3], [s, c, 0, -5], [0, 0, 1.5, 9], [0, 0, 0, 1]])
        data = small_volume().astype(np.float32)
        wanted = orient.to_ras(Volume(data, affine))
        stored, moved = data.transpose(order), affine[:, [*order, 3]]
        for axis in (k for k in range(3) if flips[k]):
            moved[:3, 3] += moved[:3, axis] * (stored.shape[axis] - 1)
            moved[:3, axis] *= -1
            stored = np.flip(stored, axis)
        found = orient.to_ras(Volume(stored, moved))
        np.testing.assert_array_equal(found.data, wanted.data)
        np.testing.assert_allclose(found.affine, wanted.affine, atol=2e-6)

    def test_scaleDoesNotMatter(self) -> None:
        """Thirty times the intensities gives the same bits; a negative air is brought to zero."""
        data = small_volume((12, 12, 12)).astype(np.float32)
        once = orient.scaled(Volume(data, np.eye(4)))
        np.testing.assert_array_equal(once.data, orient.scaled(Volume(data * 30, np.eye(4))).data)
        self.assertGreaterEqual(float(orient.scaled(Volume(data - 300, np.eye(4))).data.min()), 0.0)

    def test_onlyFineAxesAreResampled(self) -> None:
        """Voxels of 0.5 mm become 1 mm; coarser axes stay as they are."""
        scan = Volume(small_volume((20, 20, 20)).astype(np.float32), np.diag([0.5, 0.9, 5.0, 1.0]))
        found = orient.standard_form(scan)
        np.testing.assert_allclose(found.spacing, (1.0, 0.9, 5.0))
        self.assertEqual(found.data.shape, (10, 20, 20))


class SkullStripTests(SynchronousTestCase):
    """What surrounds the nets."""

    def test_resizing(self) -> None:
        """The nearest voxel centre is taken, and enlarging goes edge to edge."""
        line = np.arange(4, dtype=np.float32).reshape(4, 1, 1)
        np.testing.assert_array_equal(skullstrip.nearest(line, (2, 1, 1)).ravel(), [1, 3])
        np.testing.assert_array_equal(skullstrip.nearest(line, (8, 1, 1)).ravel(), [0, 0, 1, 1, 2, 2, 3, 3])
        np.testing.assert_allclose(
            skullstrip.enlarged(line, (8, 1, 1)).ravel()[1:-1], np.arange(6) / 2 + 0.25
        )

    def test_box(self) -> None:
        """The box is that of the largest part, a tenth larger on each side; nothing seen is no box."""
        seen = np.zeros((40, 40, 40), np.float32)
        seen[10:30, 15:25, 10:30] = 1
        box = skullstrip.brain_box(seen, (80, 40, 40))
        self.assertEqual(box, (slice(16, 64), slice(14, 26), slice(8, 32)))
        self.assertIsNone(skullstrip.brain_box(seen * 0, seen.shape))

    def test_constant(self) -> None:
        """An image of one value has no brain, and the nets are not asked."""
        head = Volume(np.ones((20, 20, 20), np.float32), np.eye(4))
        self.patch(skullstrip, "_session", self.fail)
        seen = skullstrip.glimpse(head)
        self.assertFalse(seen.mask(head.data.shape).any())
        self.assertFalse(skullstrip.brain_mask(head, seen).any())

    def test_glimpse(self) -> None:
        """What the first net sees lies where it is in the patient, whatever the voxels."""
        blob = np.zeros((skullstrip.BOX_GRID,) * 3, np.float32)
        blob[32:64, 64:96, :64] = 1
        self.patch(skullstrip, "_run", lambda *_: blob)
        affine = np.diag([2.0, 1.0, 3.0, 1.0])
        affine[:3, 3] = (-64, 10, 5)
        head = Volume(np.random.default_rng(1).random((64, 96, 40), np.float32), affine)
        seen = skullstrip.glimpse(head)
        places = [
            (volume.affine @ [*np.argwhere(inside).mean(0), 1])[:3]
            for volume, inside in ((seen.brain, blob > 0), (head, seen.mask(head.data.shape)))
        ]
        np.testing.assert_allclose(places[0], places[1], atol=0.5)
        np.testing.assert_allclose(
            places[0], (-64 - 1 + 32 * 3 / 2, 10 - 0.5 + 96 * 5 / 8, 5 - 1.5 + 30), atol=0.5
        )


class AlignTests(SynchronousTestCase):
    """Alignment of the template with itself, moved."""

    def test_findsAKnownPose(self) -> None:
        """A template that was turned, scaled and shifted is found to within a millimetre."""
        average = template.load()
        turn = np.radians(9)
        pose = np.eye(4)
        pose[:3, :3] = (
            np.array([[1, 0, 0], [0, np.cos(turn), -np.sin(turn)], [0, np.sin(turn), np.cos(turn)]]) * 0.93
        )
        pose[:3, 3] = (4, -3, 6)
        grid = average.volume(average.t1)
        back = np.asarray(np.linalg.inv(pose), np.float64)
        brain = grid.with_data(volume.transfer(grid, grid, back) * 3 + 0.2)
        mask = grid.with_data(volume.transfer(average.volume(average.mask), grid, back))
        found = align(brain.with_data(brain.data * (mask.data > 0.5)), mask, average)
        points = np.c_[np.random.default_rng(0).uniform(-60, 60, (50, 3)), np.ones(50)]
        error = np.linalg.norm((points @ (found.matrix - pose).T)[:, :3], axis=1)
        self.assertLess(float(error.max()), 1.0)
        self.assertGreater(found.score, 0.98)


class BiasTests(SynchronousTestCase):
    """The polynomial field."""

    def test_recoversAPolynomial(self) -> None:
        """A field of order 6 is recovered at the points and everywhere, but for its mean."""
        shape = (15, 14, 13)
        x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
        true = 0.2 * x - 0.1 * y * z + 0.15 * x**2 * y**2 - 0.1 * z**6
        points = np.argwhere(ball(shape, 6))
        field = BiasField(shape, points)
        field.fit(true[tuple(points.T)] + 5.0, np.full(len(points), 1e4))
        error = field.everywhere() - true
        self.assertLess(float(np.ptp(error[tuple(points.T)])), 0.01)
        np.testing.assert_allclose(field.everywhere()[tuple(points.T)], field.at_points(), atol=1e-5)
        self.assertAlmostEqual(float(field.at_points().mean()), 0.0)


class MixtureTests(SynchronousTestCase):
    """Components on intensities that were drawn from them."""

    def test_recoversMeansThroughPartialVolumes(self) -> None:
        """Pure means are found within 3 % though a third of the voxels are mixed, with flat priors of the tissues."""
        rng = np.random.default_rng(3)
        truth = np.array([0.35, 0.75, 1.0, 0.87])
        pure = rng.integers(0, 4, 12000)
        values = truth[pure]
        mixed = rng.random(12000) < 0.33
        pairs = np.array(mixture.PAIRS)[rng.integers(0, len(mixture.PAIRS), 12000)]
        part = rng.random(12000)
        values = np.where(mixed, truth[pairs[:, 0]] * (1 - part) + truth[pairs[:, 1]] * part, values)
        likely = np.full((4, 12000), 0.05)
        likely[pure, np.arange(12000)] = 0.85
        field = BiasField((40, 40, 40), np.argwhere(ball((40, 40, 40), 15))[:12000])
        noisy = np.maximum(values + rng.normal(0, 0.03, 12000), 0.01)
        found = mixture.fit(np.log(noisy), likely, field)
        np.testing.assert_allclose(found.means / found.means[WHITE], truth, rtol=0.03)

    def test_components(self) -> None:
        """A mixed component lies between its tissues, as wide as a uniform mixture of them; priors sum to one."""
        pure = Mixture(np.array([1.0, 3.0, 4.0, 3.6]), np.array([0.1, 0.2, 0.3, 0.4]))
        means, variances = pure.components()
        np.testing.assert_allclose(means[mixture.PURE :], [2, 3.5, 2.5, 3.8, 2.3])
        np.testing.assert_allclose(variances[mixture.PURE], 0.15 + 4 / 12)
        priors = mixture.component_priors(np.array([[0.2], [0.5], [0.3], [0.0]]))
        np.testing.assert_allclose(priors.sum(), 1.0)


class TissueTests(SynchronousTestCase):
    """Shares of tissue in voxels."""

    def setUp(self) -> None:
        """A mixture without a field."""
        self.mixture = Mixture(np.array([0.4, 0.8, 1.0, 0.9]), np.full(4, 0.02**2))

    def shares(
        self, values: np.ndarray[tuple[int, ...], np.dtype[np.float32]], deep: float = 0.0
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        """Return the shares in a grid of ``values`` with flat priors; ``deep``: prior of deep grey matter."""
        priors = np.full((4, *values.shape), 1 / 3, np.float32)
        priors[DEEP] = deep
        priors[GREY] *= 1 - deep
        return tissues.tissue_shares(values, np.ones(values.shape, bool), priors, self.mixture, (1, 1, 1))

    def test_pureAndMixed(self) -> None:
        """Pure intensities are one tissue, and half way between two is half of each."""
        for value, wanted in ((0.4, (1, 0, 0)), (0.8, (0, 1, 0)), (1.0, (0, 0, 1)), (0.9, (0, 0.5, 0.5))):
            found = self.shares(np.full((5, 5, 5), value, np.float32))
            np.testing.assert_allclose(found[:, 2, 2, 2], wanted, atol=0.12)
            np.testing.assert_allclose(found.sum(0), 1.0, atol=1e-5)

    def test_deepGreyIsGrey(self) -> None:
        """The brightness of deep grey matter is grey where that is expected, and half white elsewhere."""
        values = np.full((5, 5, 5), 0.9, np.float32)
        self.assertGreater(float(self.shares(values, deep=0.3)[GREY, 2, 2, 2]), 0.9)
        self.assertLess(float(self.shares(values)[GREY, 2, 2, 2]), 0.65)

    def test_fluidHasMoreThanHalf(self) -> None:
        """A voxel is fluid where fluid has more than half, else the larger of grey and white, though fluid has most."""
        parts = [[0.55, 0.45, 0.45, 0.2], [0.45, 0.35, 0.2, 0.4], [0.0, 0.2, 0.35, 0.4]]
        shares = np.array(parts, np.float32).reshape(3, 4, 1, 1)
        labels = tissues.Tissues(shares, shares[0], shares[0], self.mixture).labels()
        self.assertEqual(labels.ravel().tolist(), [1, 2, 3, 2])
        nothing = np.zeros((3, 1, 1, 1), np.float32)
        self.assertEqual(tissues.Tissues(nothing, nothing[0], nothing[0], self.mixture).labels().item(), 0)

    def test_neighboursDecideDoubt(self) -> None:
        """A voxel between grey and white in a block of white holds more white than one in a block of grey."""
        self.mixture = Mixture(self.mixture.means, np.full(4, 0.08**2))
        block = np.full((5, 5, 5), 1.0, np.float32)
        block[2, 2, 2] = 0.9
        among_white = self.shares(block)[WHITE, 2, 2, 2]
        among_grey = self.shares(np.where(block == 1, np.float32(0.8), block))[WHITE, 2, 2, 2]
        self.assertGreater(float(among_white), float(among_grey) + 0.05)

    def test_slabsHaveNoSeams(self) -> None:
        """Working plane by plane gives what working on the whole grid gives."""
        values = np.random.default_rng(1).uniform(0.3, 1.1, (11, 6, 6)).astype(np.float32)
        whole = self.shares(values)
        self.patch(tissues, "SLAB", 3)
        np.testing.assert_array_equal(self.shares(values), whole)

    def test_outsideIsEmpty(self) -> None:
        """Outside the mask there is no tissue, and labels are zero."""
        mask = ball((7, 7, 7), 2.5)
        priors = np.full((4, 7, 7, 7), 0.25, np.float32)
        found = tissues.tissue_shares(np.ones((7, 7, 7), np.float32), mask, priors, self.mixture, (1, 1, 1))
        self.assertEqual(float(found[:, ~mask].max()), 0.0)
        labels = tissues.Tissues(found, found[0], found[0], self.mixture).labels()
        np.testing.assert_array_equal(labels, mask * 3)
