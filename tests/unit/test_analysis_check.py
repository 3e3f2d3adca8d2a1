"""What cannot be a head is refused before any work is done on it, with numbers and what to do."""

from typing import Any

import numpy as np
from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.brain.analysis.check import check_geometry
from fr_twisted.brain.analysis.volume import Volume
from fr_twisted.brain.interfaces import UnusableScanError

SHAPE = (48, 50, 44)
BALL = ((np.indices(SHAPE) - 22.0) ** 2).sum(0) < 18**2
VALUES = np.where(BALL, 800, 20) + np.random.default_rng(3).normal(0, 10, SHAPE)


def scan(values: Any = VALUES, spacing: tuple[float, float, float] = (4.0, 4.0, 4.0)) -> Volume:
    """Return a scan of a bright ball with noise, centred about zero."""
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -90
    return Volume(np.asarray(values, np.float32), affine)


def with_one(value: float) -> Any:
    """Return the usual values but for one voxel."""
    values = VALUES.copy()
    values[30, 30, 30] = value
    return values


def far(distance: float) -> Any:
    """Return what moves a grid to the right."""
    shift = np.zeros((4, 4))
    shift[0, 3] = distance
    return shift


BAD_VALUES: dict[str, tuple[Any, str]] = {
    "not a number": (with_one(np.nan), "1 voxels are not finite numbers"),
    "infinite": (with_one(-np.inf), "1 voxels are not finite numbers"),
    "constant": (VALUES * 0 + 7, "every voxel has the value 7"),
    "beyond single precision": (VALUES * 1e28, "beyond what a scanner gives"),
    "next to nothing": (VALUES * 1e-35, "beyond what a scanner gives"),
    "a mask": (BALL, "only 2 different values"),
    "a map of labels": (np.round(VALUES / 100), "different values: it is a mask, a map of labels"),
    "one voxel that hides all others": (with_one(1e9), "a few voxels have values up to 1e+09"),
    "one voxel far below": (with_one(-1e9), "a few voxels have values up to 1e+09"),
    "no picture": (VALUES / 2000 + 1000, "all values are within 0.1% of 1e+03"),
}


class CheckTests(SynchronousTestCase):
    """`check_geometry`."""

    def assert_refused(self, found: Volume, words: str) -> None:
        """A scan is refused with a reason that has the ``words`` and says what to do."""
        reason = str(self.assertRaises(UnusableScanError, check_geometry, found))
        self.assertIn(words, reason)
        self.assertRegex(reason, "[;:] (send|export|check)")

    def test_values(self) -> None:
        """Values that are no picture of anything are refused."""
        for values, words in BAD_VALUES.values():
            self.assert_refused(scan(values), words)

    def test_anyScale(self) -> None:
        """Any scale that single precision holds, values below zero, padding and a hot voxel are no reason."""
        for values in (VALUES, VALUES * 1e20, VALUES * 1e-20, -VALUES, VALUES - 500, with_one(30000)):
            check_geometry(scan(values))
        stripped = np.zeros((100, 100, 100))
        stripped[40:62, 40:62, 40:62] = VALUES[12:34, 12:34, 12:34]
        check_geometry(scan(stripped, (5.0, 5.0, 5.0)))

    def test_grid(self) -> None:
        """Few slices, odd voxels, odd fields and odd places are refused."""
        for found, words in (
            (scan(VALUES[:, :, :8]), "only 8 slices"),
            (scan(VALUES, (0.004, 0.004, 0.004)), "voxels of 0.004 x 0.004 x 0.004 mm"),
            (scan(VALUES, (4.0, 4.0, 10.0)), "voxels of 4 x 4 x 10 mm"),
            (scan(VALUES[:, :, :20], (4.0, 4.0, 4.0)), "field of view of 192 x 200 x 80 mm"),
            (scan(np.tile(VALUES, (3, 1, 1))), "field of view of 576"),
            (Volume(scan().data, scan().affine + far(1e30)), "1e+30 mm from the"),
        ):
            self.assert_refused(found, words)
