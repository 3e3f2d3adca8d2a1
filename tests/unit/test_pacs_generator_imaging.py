"""Lesions, noise, receive field and ghost of generated scans are what their truth and recipe say."""

from dataclasses import replace
from typing import Any

import numpy as np
import scipy.ndimage
from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.pacs.generator import Label, Lesion, LesionKind, generate
from fr_twisted.pacs.generator.imaging import WHITE
from tests.generated_scans import DEEP, PLAIN, POSED, QUICK, scan_of

ndimage: Any = scipy.ndimage  # whose names are made at run time, unseen by type checkers


class LesionTests(SynchronousTestCase):
    """Lesions: painted as the truth says."""

    def _change(self, lesion: Lesion) -> tuple[Any, Any]:
        """Return what the lesion changes in the image, relative to white matter, and the truth of it."""
        with_lesion = generate(replace(POSED, lesions=(lesion,)))
        change = (with_lesion.volume - scan_of(POSED).volume.astype(float)) / WHITE
        (truth,) = with_lesion.truth.lesions
        return change, truth

    def test_imageShowsTheTruth(self) -> None:
        """Volume, contrast and centroid of the change in the image are those of the truth, in deep white matter."""
        for lesion in (Lesion(4.0, -0.3, DEEP), Lesion(5.0, 0.2, DEEP)):
            change, truth = self._change(lesion)
            weight = change / lesion.contrast
            self.assertLess(abs(weight.sum() * np.prod(QUICK) / truth.volume_mm3 - 1), 0.03)
            centroid = (np.argwhere(weight > -1) * weight.reshape(-1, 1)).sum(0) / weight.sum()
            placed = scan_of(POSED).affine @ [*centroid, 1]
            np.testing.assert_allclose(placed[:3], truth.centroid_mm, atol=0.1)
            self.assertLess(abs(truth.volume_mm3 / (4 / 3 * np.pi * lesion.radius**3) - 1), 0.03)
            self.assertEqual((truth.radius, truth.contrast), (lesion.radius, lesion.contrast))
            self.assertGreater(truth.ring, 0.8)

    def test_kind(self) -> None:
        """Darker than white matter is hypointense, brighter is hyperintense."""
        self.assertIs(Lesion(3.0, -0.3).kind, LesionKind.HYPOINTENSE)
        self.assertIs(Lesion(3.0, 0.3).kind, LesionKind.HYPERINTENSE)

    def test_onlyInTissue(self) -> None:
        """A lesion beside the ventricles stays out of them, and its ring tells that it is not deep in white matter."""
        change, truth = self._change(Lesion(6.0, -0.3, (22.0, -20.0, 20.0)))
        fluid = ndimage.binary_erosion(scan_of(POSED).labels == Label.VENTRICLE)
        self.assertGreater(int(fluid.sum()), 500)
        self.assertEqual(float(np.abs(change[fluid]).max()), 0.0)
        self.assertLess(truth.volume_mm3, 0.97 * 4 / 3 * np.pi * 6**3)
        self.assertLess(truth.ring, 0.8)

    def test_outsideTheBrain(self) -> None:
        """A lesion outside the brain is refused."""
        self.assertRaises(
            ValueError, generate, replace(PLAIN, lesions=(Lesion(3.0, -0.3, (0.0, -120.0, -60.0)),))
        )

    def test_drawnLesionsAreDeepAndApart(self) -> None:
        """Drawn lesions are as many as wanted, begin in white matter, within their ranges, and do not touch."""
        recipe = replace(
            POSED, seed=2, base_seed=1, lesion_count=8, bright_share=0.5, lesion_radius=(2.5, 4.0)
        )
        scan = generate(recipe)
        found = scan.truth.lesions
        self.assertEqual(len(found), 8)
        self.assertEqual({lesion.kind for lesion in found}, set(LesionKind))
        self.assertGreater(min(lesion.ring for lesion in found), 0.4)
        inverse = np.linalg.inv(scan.affine)
        for number, lesion in enumerate(found):
            low, high = recipe.bright_contrast if lesion.contrast > 0 else recipe.dark_contrast
            self.assertTrue(low <= lesion.contrast <= high)
            voxel = np.rint(inverse @ [*lesion.centroid_mm, 1])[:3].astype(int)
            self.assertEqual(scan.labels[tuple(voxel)], Label.WHITE)
            for other in found[:number]:
                apart = float(np.linalg.norm(np.subtract(lesion.centroid_mm, other.centroid_mm)))
                self.assertGreater(apart, lesion.radius + other.radius)

    def test_volumesAreOfTheHost(self) -> None:
        """A lesion in white matter leaves the truth of white matter as it was."""
        self.assertEqual(
            generate(replace(POSED, lesions=(Lesion(4.0, -0.3, DEEP),))).truth.wm, scan_of(POSED).truth.wm
        )

    def test_noRoom(self) -> None:
        """More lesions than white matter has room for are refused."""
        self.assertRaises(ValueError, generate, replace(PLAIN, lesion_count=500, lesion_radius=(20.0, 20.0)))


class ImagingTests(SynchronousTestCase):
    """Noise, receive field, ghost."""

    def _values(self, **changes: Any) -> Any:
        return scan_of(replace(PLAIN, **changes)).volume.astype(float) / WHITE

    def test_noiseIsRician(self) -> None:
        """In white matter the noise has the recipe's deviation; in air its mean is that of a Rayleigh distribution."""
        clean, noisy = self._values(), self._values(noise=0.03)
        white = scan_of(PLAIN).labels == Label.WHITE
        self.assertApproximates(float((noisy - clean)[white].std()), 0.03, 0.001)
        self.assertApproximates(float((noisy - clean)[white].mean()), 0.03**2 / 2, 0.001)
        air = noisy[:5, :5, -20:]
        self.assertApproximates(float(air.mean()), 0.03 * np.sqrt(np.pi / 2), 0.002)

    def test_receiveField(self) -> None:
        """The receive field multiplies the image, by up to the recipe's share and not by more."""
        clean = self._values()
        ratio = self._values(bias=0.2)[clean > 0.3] / clean[clean > 0.3]
        self.assertTrue(0.79 < ratio.min() < 1.0 < ratio.max() < 1.21)
        self.assertGreater(float(np.abs(ratio - 1).max()), 0.08)

    def test_ghost(self) -> None:
        """The ghost is the image again, weaker, half a field of view away along its axis."""
        clean = self._values()
        for axis in (1, 2):
            ghost = self._values(ghost=0.05, ghost_axis=axis) - clean
            expected = 0.05 * np.roll(clean, clean.shape[axis] // 2, axis)
            self.assertLess(float(np.abs(ghost - expected).max()), 0.0025)

    def test_gain(self) -> None:
        """The gain scales the stored values."""
        self.assertApproximates(float(self._values(gain=0.5).mean() / self._values().mean()), 0.5, 0.002)

    def test_blurKeepsTheSum(self) -> None:
        """The point spread smooths and keeps brightness."""
        sharp, soft = self._values(blur=0.0), self._values(blur=0.8)
        self.assertApproximates(float(soft.mean() / sharp.mean()), 1.0, 0.002)
        self.assertLess(
            float(np.abs(np.diff(soft, axis=0)).mean()), 0.9 * float(np.abs(np.diff(sharp, axis=0)).mean())
        )

    def test_contrastAndTextureSpread(self) -> None:
        """Contrasts differ from scan to scan where asked to; texture makes a tissue uneven by its deviation."""
        white = scan_of(PLAIN).labels == Label.WHITE
        grey = scan_of(PLAIN).labels == Label.GREY
        textured = self._values(blur=0.0, texture=0.02) - self._values(blur=0.0)
        self.assertApproximates(float(textured[white].std()), 0.02, 0.003)
        means = {
            round(float(self._values(contrast_spread=0.03, seed=seed)[grey].mean()), 3) for seed in (1, 2, 3)
        }
        self.assertEqual(len(means), 3)
