"""The data files of the analysis are the ones that the script made, with their notices."""

import hashlib
from importlib.resources import files

import numpy as np
from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.brain.analysis import template

DATA = files("fr_twisted.brain.analysis") / "data"


class DataTests(SynchronousTestCase):
    """What lies in ``fr_twisted/brain/analysis/data``."""

    def test_checksums(self) -> None:
        """Every file that SHA256SUMS names has the sum it names, and nets, template and notices are all named."""
        lines = (DATA / "SHA256SUMS").read_text().splitlines()
        sums = {name: digest for digest, name in (line.split("  ") for line in lines)}
        for name, digest in sums.items():
            self.assertEqual(hashlib.sha256((DATA / name).read_bytes()).hexdigest(), digest, name)
        needed = {"bbox.onnx", "brain.onnx", "template_2mm.npz", "LICENSE.deepbet.txt", "LICENSE.icbm152.txt"}
        self.assertEqual(set(sums), needed)

    def test_noticesNameTheirOwners(self) -> None:
        """The licence notices beside the data name who holds the rights."""
        self.assertIn("University of Münster", (DATA / "LICENSE.deepbet.txt").read_text(encoding="utf-8"))
        self.assertIn("McGill", (DATA / "LICENSE.icbm152.txt").read_text(encoding="utf-8"))

    def test_templateIsABrainInPlace(self) -> None:
        """The template has the volume of the ICBM152 brain, probabilities for maps, and lies about x = 0."""
        average = template.load()
        volume = average.volume(average.mask)
        self.assertLess(abs(float(average.mask.sum()) * volume.voxel_ml - 1887), 10)
        self.assertEqual(volume.orientation, "RAS")
        self.assertLessEqual(float((average.grey + average.white).max()), 1.02)
        x = np.argwhere(average.mask > 0.5)[:, 0].mean() * 2 + average.affine[0, 3]
        self.assertLess(abs(float(x)), 1.0)
