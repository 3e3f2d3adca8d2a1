"""The label head of the scan generator is the one that the script made, with its notice, and is a head."""

import hashlib
from typing import Any

import numpy as np
import scipy.ndimage
from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.pacs.generator.head import (
    DATA_FILE,
    FIRST_OUTSIDE,
    RIGHT,
    Tissue,
    cortex_depth,
    load_head,
    ventricle_depth,
)

ndimage: Any = scipy.ndimage  # whose names are made at run time, unseen by type checkers

DATA = DATA_FILE.parent


class DataTests(SynchronousTestCase):
    """What lies in ``fr_twisted/pacs/data``."""

    def test_checksums(self) -> None:
        """Every file that SHA256SUMS names has the sum it names, and nothing else lies there."""
        lines = (DATA / "SHA256SUMS").read_text().splitlines()
        sums = {name: digest for digest, name in (line.split("  ") for line in lines)}
        for name, digest in sums.items():
            self.assertEqual(hashlib.sha256((DATA / name).read_bytes()).hexdigest(), digest, name)
        self.assertEqual({path.name for path in DATA.iterdir()}, {*sums, "SHA256SUMS"})
        self.assertEqual(set(sums), {DATA_FILE.name, "LICENSE.colin27.txt"})

    def test_noticeNamesItsOwners(self) -> None:
        """The notice names who holds the rights and carries the terms."""
        notice = (DATA / "LICENSE.colin27.txt").read_text(encoding="utf-8")
        for words in (
            "McGill",
            "for any purpose and\nwithout fee",
            "Chris Rorden",
            "EVEN IF ADVISED OF THE POSSIBILITY",
        ):
            self.assertIn(words, notice)

    def test_small(self) -> None:
        """The data file is below half a megabyte."""
        self.assertLess(DATA_FILE.stat().st_size, 500_000)


class HeadTests(SynchronousTestCase):
    """The label head."""

    def test_everyTissueIsThere(self) -> None:
        """All tissues, on both sides, and nothing else."""
        found = set(np.unique(load_head().codes).tolist())
        self.assertEqual(found, {int(tissue) + side for tissue in Tissue for side in (0, RIGHT)})

    def test_volumes(self) -> None:
        """Tissues have the volumes of Colin27 in stereotaxic space, which is larger than life."""
        tissue = load_head().codes & (RIGHT - 1)
        volumes = np.bincount(tissue.reshape(-1)) / 1000
        brain = volumes[Tissue.FLUID : FIRST_OUTSIDE]
        self.assertLess(abs(float(brain.sum()) - 1956.5), 1)
        self.assertTrue(850 < volumes[Tissue.GREY] < 1000)
        self.assertTrue(580 < volumes[Tissue.WHITE] < 700)
        self.assertTrue(20 < volumes[Tissue.VENTRICLE] < 35)

    def test_ventriclesBorderOnWhiteMatter(self) -> None:
        """Most of what touches the ventricles is white or deep grey matter: mixed voxels are not taken for cortex."""
        tissue = load_head().codes & (RIGHT - 1)
        inside = tissue == Tissue.VENTRICLE
        around = tissue[ndimage.binary_dilation(inside) & ~inside]
        self.assertGreater(float((around == Tissue.WHITE).mean()), 0.5)
        self.assertLess(float((around == Tissue.GREY).mean()), 0.2)

    def test_brainBox(self) -> None:
        """The box around the brain holds all of it and is no larger."""
        head = load_head()
        tissue = head.codes & (RIGHT - 1)
        inside = (tissue > 0) & (tissue < FIRST_OUTSIDE)
        found = np.argwhere(inside)
        self.assertEqual([side.start for side in head.brain], found.min(0).tolist())
        self.assertEqual([side.stop for side in head.brain], (found.max(0) + 1).tolist())

    def test_sides(self) -> None:
        """The halves of the brain meet within 6 mm of x = 0, and have grey matter alike within 3 %."""
        head = load_head()
        within = head.midline[head.brain[1:]] + head.origin[0]
        self.assertLess(float(np.abs(within).max()), 6)
        grey = np.bincount(head.codes.reshape(-1), minlength=2 * RIGHT)
        left, right = int(grey[Tissue.GREY]), int(grey[Tissue.GREY + RIGHT])
        self.assertLess(abs(left - right) / (left + right), 0.015)
        x = np.arange(head.codes.shape[0]) + head.origin[0]
        self.assertTrue(np.all(head.codes[x > 8] >= RIGHT))
        self.assertTrue(np.all(head.codes[x < -8] < RIGHT))

    def test_cortexDepthGrowsInwards(self) -> None:
        """Fluid has no depth; white matter lies deeper under it than grey matter."""
        head, depth = load_head(), cortex_depth()
        tissue = head.codes[head.brain] & (RIGHT - 1)
        means = [
            float(depth[tissue == int(label)].mean()) for label in (Tissue.FLUID, Tissue.GREY, Tissue.WHITE)
        ]
        self.assertTrue(means[0] < 10 < means[1] < means[2], means)

    def test_ventricleDepth(self) -> None:
        """The ventricles lie in their box, at no depth; lateral ones reach tissue 3 mm away by growing some 3 mm."""
        head = load_head()
        box, depth = ventricle_depth(one_sided=False)
        whole = (head.codes & (RIGHT - 1)) == Tissue.VENTRICLE
        inside = whole[box]
        self.assertEqual(int(inside.sum()), int(whole.sum()))
        self.assertLess(float((depth[inside] > 16).mean()), 0.06)
        away = ndimage.distance_transform_edt(~inside)
        x = np.arange(box[0].start, box[0].stop)[:, None, None]
        lateral = (np.abs(x - head.midline[box[1:]]) > 14) & (away == 3)
        self.assertApproximates(float(depth[lateral].mean()) / 32, 2.5, 0.4)

    def test_oneSidedGrowthSparesTheMiddle(self) -> None:
        """A ventricle that grows alone leaves third, fourth and septum as they are, and else grows as both would."""
        head = load_head()
        (box, both), (_, alone) = ventricle_depth(one_sided=False), ventricle_depth(one_sided=True)
        solid = (head.codes[box] & (RIGHT - 1)) != Tissue.VENTRICLE
        x = np.arange(box[0].start, box[0].stop)[:, None, None]
        aside = np.abs(x - head.midline[box[1:]])
        self.assertTrue(np.all(alone[solid & (aside < 4)] == 255))
        np.testing.assert_array_equal(alone[aside > 12], both[aside > 12])
