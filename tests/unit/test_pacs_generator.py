"""Generated scans: repeatable, different, and of exact truth."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import scipy.ndimage
from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.pacs.generator import (
    Label,
    Sides,
    draw_recipe,
    generate,
)
from fr_twisted.pacs.generator.geometry import pose_of
from fr_twisted.pacs.generator.head import RIGHT, Tissue, load_head
from fr_twisted.pacs.generator.imaging import MAX_VALUE, WHITE, palette
from fr_twisted.pacs.generator.scan import set_scene
from tests.generated_scans import DEEP, PLAIN, POSED, QUICK, scan_of

ndimage: Any = scipy.ndimage  # whose names are made at run time, unseen by type checkers


class RecipeTests(SynchronousTestCase):
    """What is drawn from a seed."""

    def test_seedDecides(self) -> None:
        """A seed gives one recipe whatever the spacing, another seed another one."""
        self.assertEqual(draw_recipe(7), draw_recipe(7))
        self.assertEqual(draw_recipe(7), replace(draw_recipe(7, (1.0, 1.0, 5.0)), spacing=(1.0, 1.0, 1.0)))
        self.assertNotEqual(replace(draw_recipe(7), seed=8), draw_recipe(8))

    def test_ranges(self) -> None:
        """Recipes are within what they are said to be, and reach widely in it."""
        recipes = [draw_recipe(seed) for seed in range(300)]
        ranges: dict[str, tuple[float, float]] = {
            "warp": (0, 5),
            "atrophy": (0, 1.6),
            "ventricles": (0, 4),
            "lesion_count": (0, 5),
            "bias": (0.05, 0.3),
            "noise": (0.01, 0.04),
            "ghost": (0, 0.02),
            "age_years": (18, 95),
        }
        for name, (low, high) in ranges.items():
            values = np.array([getattr(recipe, name) for recipe in recipes])
            self.assertTrue(low <= values.min() and values.max() <= high, name)
            self.assertGreater(np.ptp(values), 0.8 * (high - low), name)
        self.assertLessEqual(max(abs(angle) for recipe in recipes for angle in recipe.rotation), 12)
        self.assertEqual({recipe.atrophy_side for recipe in recipes}, {-1, 0, 1})
        self.assertEqual({recipe.bright_share > 0 for recipe in recipes}, {True, False})

    def test_sexAndAgeMatchTheAnatomy(self) -> None:
        """Men's heads are larger, and atrophy and wide ventricles are of the old."""
        recipes = [draw_recipe(seed) for seed in range(400)]
        sizes = {sex: [np.prod(r.scale) * 1956 for r in recipes if r.sex == sex] for sex in "MF"}
        self.assertLess(abs(float(np.mean(sizes["M"])) - 1469), 25)
        self.assertLess(abs(float(np.mean(sizes["F"])) - 1289), 25)
        ages = [recipe.age_years for recipe in recipes]
        self.assertGreater(np.corrcoef(ages, [recipe.atrophy for recipe in recipes])[0, 1], 0.7)
        self.assertGreater(np.corrcoef(ages, [recipe.ventricles for recipe in recipes])[0, 1], 0.2)


class GenerateTests(SynchronousTestCase):
    """Volumes and truth."""

    def test_sameSeedSameScan(self) -> None:
        """A seed gives one scan, bytes and truth."""
        first, second = generate(5, QUICK), generate(5, QUICK)
        self.assertEqual(first.volume.tobytes(), second.volume.tobytes())
        self.assertEqual(first.record(), second.record())

    def test_otherSeedOtherScan(self) -> None:
        """Another seed gives another head."""
        first, second = (scan_of(draw_recipe(seed, QUICK)) for seed in (2, 3))
        self.assertNotEqual(first.truth, second.truth)
        self.assertGreater(abs(first.volume.astype(float) - second.volume).mean(), 20)

    def test_truthAddsUp(self) -> None:
        """Volumes are sums of each other, and of their sides."""
        truth = scan_of(draw_recipe(2, QUICK)).truth
        self.assertAlmostEqual(truth.brain, truth.gm + truth.wm)
        self.assertAlmostEqual(truth.icv, truth.brain + truth.csf)
        self.assertAlmostEqual(truth.bpf, truth.brain / truth.icv)
        for whole, sides in ((truth.gm, truth.gm_sides), (truth.ventricles, truth.ventricle_sides)):
            self.assertAlmostEqual(whole, sides.left + sides.right)

    def test_truthIsWhatWasPainted(self) -> None:
        """The brightness of all voxels is that of the tissues that the truth counts, parts of voxels as parts."""
        fine, levels = set_scene(POSED).fine, palette(POSED)
        self.assertAlmostEqual(float(fine.counts.sum()), fine.image.size, 1)
        self.assertLess(abs(fine.image.sum(dtype=float) / float(fine.counts @ levels) - 1), 1e-6)
        truth, voxel = scan_of(POSED).truth, float(np.prod(QUICK)) / 1000
        white = fine.counts[[Tissue.WHITE, Tissue.WHITE + RIGHT]].sum() * voxel
        self.assertAlmostEqual(truth.wm, float(white))

    def test_labelsAgreeWithTheTruth(self) -> None:
        """The labels of a scan count up to its volumes, but for the borders' rounding to whole voxels."""
        scan = scan_of(draw_recipe(2, QUICK))
        counts = np.bincount(scan.labels.reshape(-1), minlength=len(Label)) * float(np.prod(QUICK)) / 1000
        truth = scan.truth
        for volume, label in (
            (truth.gm, Label.GREY),
            (truth.wm, Label.WHITE),
            (truth.ventricles, Label.VENTRICLE),
        ):
            self.assertLess(abs(counts[label] / volume - 1), 0.01, label)
        self.assertLess(abs(counts[1:].sum() / truth.icv - 1), 0.002)

    def test_labelsAreWhatMostOfAVoxelIs(self) -> None:
        """With two tissues in a voxel, the label is the one that its brightness is nearer to."""
        fine, levels = set_scene(POSED).fine, palette(POSED)
        grey, white = float(levels[Tissue.GREY]), float(levels[Tissue.WHITE])
        inside = ndimage.binary_erosion(
            np.isin(fine.codes & (RIGHT - 1), (Tissue.GREY, Tissue.WHITE)), np.ones((3, 3, 3))
        )
        brighter = fine.image[inside] > (grey + white) / 2
        self.assertGreater(float((brighter == (fine.labels[inside] == Label.WHITE)).mean()), 0.99)
        nearest = fine.codes[inside] & (RIGHT - 1)
        self.assertLess(float((brighter == (nearest == Tissue.WHITE)).mean()), 0.985)

    def test_truthIsOfAPerson(self) -> None:
        """Volumes are within what patients have."""
        for seed in range(2, 8):
            truth = scan_of(draw_recipe(seed, QUICK)).truth
            self.assertTrue(1100 < truth.icv < 1850, truth)
            self.assertTrue(0.6 < truth.bpf < 0.86, truth)
            self.assertTrue(0.8 < truth.gm / truth.wm < 1.8, truth)
            self.assertTrue(8 < truth.ventricles < 120, truth)

    def test_truthFollowsTheScale(self) -> None:
        """The intracranial truth is the label head's times the scale, whatever the pose; a warp changes it little."""
        plain = scan_of(PLAIN).truth
        turned = generate(replace(POSED, warp=0.0)).truth
        self.assertLess(abs(plain.icv - 1956.5), 4)
        self.assertLess(abs(turned.icv / plain.icv / np.prod(POSED.scale) - 1), 0.003)
        self.assertLess(abs(turned.gm_sides.index - plain.gm_sides.index), 0.5)
        self.assertLess(abs(scan_of(POSED).truth.icv / turned.icv - 1), 0.1)

    def test_truthDoesNotDependOnTheSpacing(self) -> None:
        """The same head in thick slices has the same truth."""
        recipe = draw_recipe(4)
        thin, thick = generate(recipe, (2.0, 2.0, 2.0)), generate(recipe, (2.0, 2.0, 6.0))
        self.assertEqual(thin.truth, thick.truth)

    def test_thickSlicesAreMeansOfThinOnes(self) -> None:
        """Without noise, a slice of 6 mm is the mean of three of 2 mm, and its label what most of them are."""
        thin, thick = (scan_of(replace(POSED, spacing=(2.0, 2.0, z))) for z in (2.0, 6.0))
        mean = thin.volume.reshape(*thin.volume.shape[:2], -1, 3).mean(3)
        self.assertLess(float(np.abs(mean - thick.volume).max()), 1.01)
        stacked = thin.labels.reshape(*thin.labels.shape[:2], -1, 3)
        same = (stacked == stacked[..., :1]).all(3)
        self.assertGreater(float((thick.labels == stacked[..., 0])[same].mean()), 0.998)

    def test_volumeAndAffine(self) -> None:
        """Spacing is as asked, the grid is centred, values fit 12 bits and use them."""
        scan = generate(2, (3.0, 4.0, 5.0))
        np.testing.assert_allclose(np.diag(scan.affine)[:3], (3, 4, 5))
        centre = scan.affine @ [*((np.array(scan.volume.shape) - 1) / 2), 1]
        np.testing.assert_allclose(centre[:3], 0, atol=1e-9)
        self.assertEqual(scan.volume.dtype, np.int16)
        self.assertEqual(scan.labels.shape, scan.volume.shape)
        self.assertGreaterEqual(int(scan.volume.min()), 0)
        self.assertTrue(1000 < int(scan.volume.max()) <= MAX_VALUE)

    def test_looksLikeT1(self) -> None:
        """White matter is brighter than grey, grey than fluid, fluid than air."""
        scan = scan_of(draw_recipe(4, QUICK))
        means = [
            float(scan.volume[scan.labels == int(label)].mean()) / (WHITE * scan.recipe.gain)
            for label in (Label.WHITE, Label.GREY, Label.FLUID, Label.VENTRICLE)
        ]
        self.assertTrue(0.85 < means[0] < 1.15, means)
        self.assertTrue(0.65 < means[1] / means[0] < 0.9, means)
        self.assertTrue(means[2] / means[0] < 0.55, means)
        self.assertTrue(means[3] / means[0] < 0.5, means)
        self.assertLess(float(scan.volume[:4, :4, -4:].mean()), 0.1 * WHITE * scan.recipe.gain)

    def test_spacingIsChecked(self) -> None:
        """A spacing that no scanner has is refused."""
        self.assertRaises(ValueError, generate, 1, (0.1, 1.0, 1.0))
        self.assertRaises(ValueError, generate, 1, (1.0, 1.0, 20.0))

    def test_recordIsJson(self) -> None:
        """The record for this side is plain data with everything in it."""
        scan = scan_of(draw_recipe(2, QUICK))
        record = json.loads(json.dumps(scan.record()))
        self.assertEqual(record["volumes_ml"]["icv"], scan.truth.icv)
        self.assertEqual(record["sides_ml"]["ventricles"]["index"], scan.truth.ventricle_sides.index)
        self.assertEqual(len(record["lesions"]), scan.recipe.lesion_count)
        self.assertEqual(record["recipe"]["seed"], 2)

    def test_index(self) -> None:
        """The index is 200 (left - right) / (left + right), and 0 of nothing."""
        self.assertAlmostEqual(Sides(left=6.0, right=4.0).index, 40.0)
        self.assertEqual(Sides(left=0.0, right=0.0).index, 0.0)


class AnatomyTests(SynchronousTestCase):
    """Atrophy and ventricles."""

    def _truth(self, **changes: Any) -> Any:
        return scan_of(replace(PLAIN, **changes)).truth

    def test_atrophyTurnsGreyIntoFluid(self) -> None:
        """The more atrophy, the less grey matter and the more fluid; the rest stays."""
        truths = [self._truth(atrophy=atrophy) for atrophy in (0.0, 0.3, 0.8, 1.6)]
        for less, more in zip(truths[1:], truths[:-1], strict=True):
            self.assertLess(less.gm, more.gm - 20)
            self.assertAlmostEqual(less.gm + less.csf, more.gm + more.csf)
            self.assertEqual((less.wm, less.ventricles), (more.wm, more.ventricles))

    def test_atrophyOfOneSide(self) -> None:
        """One-sided atrophy leaves the other side as it is."""
        plain = self._truth()
        left, right = self._truth(atrophy=1.0, atrophy_side=-1), self._truth(atrophy=1.0, atrophy_side=1)
        self.assertEqual(left.gm_sides.right, plain.gm_sides.right)
        self.assertEqual(right.gm_sides.left, plain.gm_sides.left)
        self.assertLess(left.gm_sides.index, plain.gm_sides.index - 15)
        self.assertGreater(right.gm_sides.index, plain.gm_sides.index + 15)

    def test_ventriclesGrow(self) -> None:
        """Ventricles grow into brain; one alone on its side, and there the lateral one only."""
        plain, wide = self._truth(), self._truth(ventricles=3.0)
        self.assertGreater(wide.ventricles, 1.6 * plain.ventricles)
        self.assertAlmostEqual(wide.brain + wide.ventricles, plain.brain + plain.ventricles)
        left = self._truth(ventricles=3.0, ventricle_side=-1)
        self.assertEqual(left.ventricle_sides.right, plain.ventricle_sides.right)
        self.assertLess(left.ventricle_sides.left, wide.ventricle_sides.left)
        self.assertGreater(left.ventricle_sides.left, 1.5 * plain.ventricle_sides.left)

    def test_millimetresAreOfTheScan(self) -> None:
        """The same growth in a smaller head takes more of the label head's layers: the volume is larger than scaled."""
        scale = 0.85
        small = self._truth(ventricles=2.0, scale=(scale,) * 3)
        self.assertGreater(small.ventricles, 1.05 * scale**3 * self._truth(ventricles=2.0).ventricles)


class PoseTests(SynchronousTestCase):
    """From the label head to the scan and back."""

    def test_roundTrip(self) -> None:
        """A place of the label head, taken to the scan, is where the scan reads that place of the label head."""
        head, pose = load_head(), pose_of(POSED, load_head())
        for place in (DEEP, (-40.0, 20.0, 0.0), (0.0, -60.0, -30.0)):
            index = np.array(place) - head.origin
            point = pose.to_scan(index)
            within = point / (176, 224, 192) + 0.5
            warp = np.array([field.at(within) for field in pose.warp or ()])
            self.assertGreater(float(np.abs(warp).max()), 0.01)
            np.testing.assert_allclose(pose.matrix @ point + pose.offset + warp, index, atol=1e-3)

    def test_warpIsAsLargeAsSaid(self) -> None:
        """The largest displacement along each axis is the recipe's, and neighbours stay neighbours."""
        for field in pose_of(POSED, load_head()).warp or ():
            values = field.over((40, 40, 40)).whole()
            self.assertApproximates(float(np.abs(values).max()), POSED.warp, 0.15)
            steps = [np.abs(np.diff(values, axis=axis)).max() for axis in range(3)]
            self.assertLess(max(steps) / (176 / 40), 0.5)
