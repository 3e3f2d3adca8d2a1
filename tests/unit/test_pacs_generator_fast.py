"""The fast way to many scans: distinct, valid, and of the same truth as the slow way."""

import functools
import io
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pydicom
from highdicom import get_volume_from_series
from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.pacs.encode import to_dicom
from fr_twisted.pacs.generator import GeneratedScan, generate
from fr_twisted.pacs.generator.fast import FastGenerator
from fr_twisted.pacs.generator.imaging import WHITE

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)


@functools.cache
def generator() -> FastGenerator:
    """Return one for all tests: two patients, 1.4 mm."""
    return FastGenerator(2, (1.4, 1.4, 1.4))


@functools.cache
def scan(seed: int) -> GeneratedScan:
    """Return the fast scan of a seed."""
    return generator().scan(seed)


class FastTests(SynchronousTestCase):
    """`FastGenerator` beside `generate`."""

    def test_sameTruthAsTheSlowWay(self) -> None:
        """The slow way with the scan's recipe has the same truth and labels, lesions included."""
        lesions = 0
        for seed in (20, 21, 23):
            fast, slow = scan(seed), generate(scan(seed).recipe)
            self.assertEqual(fast.truth, slow.truth)
            np.testing.assert_array_equal(fast.labels, slow.labels)
            np.testing.assert_array_equal(fast.affine, slow.affine)
            lesions += len(fast.truth.lesions)
        self.assertGreater(lesions, 2)

    def test_sameImageButForTheNoise(self) -> None:
        """What differs from the slow way's image is noise of its size, in the lesions as elsewhere."""
        fast = next(scan(seed) for seed in range(20, 40) if scan(seed).truth.lesions)
        slow = generate(fast.recipe)
        level = WHITE * fast.recipe.gain
        difference = (fast.volume - slow.volume.astype(float)) / level
        brain = fast.labels > 0
        self.assertApproximates(float(difference[brain].std()), fast.recipe.noise * np.sqrt(2), 0.001)
        self.assertApproximates(float(difference.mean()), 0.0, 0.0005)
        inverse = np.linalg.inv(fast.affine)
        for lesion in fast.truth.lesions:
            low = np.rint(inverse @ [*lesion.centroid_mm, 1])[:3].astype(int) - 2
            box = tuple(slice(start, start + 5) for start in low)
            limit = 4 * fast.recipe.noise * np.sqrt(2 / 125)
            self.assertLess(abs(float(difference[box].mean())), limit)

    def test_distinct(self) -> None:
        """Each seed has other voxels and UIDs, also of the same patient; a seed again, the same."""
        first, second = scan(20), scan(22)
        self.assertEqual(first.truth.icv, second.truth.icv)
        self.assertGreater(float(np.abs(first.volume - second.volume.astype(float)).mean()), 5)
        files = [list(to_dicom(each, "FAST", NOON)) for each in (first, second, generator().scan(20))]
        self.assertFalse({uid for uid, _ in files[0]} & {uid for uid, _ in files[1]})
        self.assertEqual(files[0], files[2])

    def test_validSeries(self) -> None:
        """pydicom reads the files, and highdicom makes one volume of them with the scan's voxels."""
        fast = scan(21)
        pieces = [pydicom.dcmread(io.BytesIO(data)) for _, data in to_dicom(fast, "FAST", NOON)]
        self.assertEqual(len(pieces), fast.volume.shape[0])
        volume: Any = get_volume_from_series(pieces)
        placed = np.linalg.inv(fast.affine) @ np.diag((-1.0, -1.0, 1.0, 1.0)) @ volume.affine
        order = np.abs(placed[:3, :3]).argmax(0)
        stored = np.transpose(volume.array, np.argsort(order))
        flipped = tuple(axis for axis in range(3) if placed[axis, int(np.argsort(order)[axis])] < 0)
        np.testing.assert_array_equal(np.flip(stored, flipped), fast.volume)
