"""What the tests of reading share: files are read from disk, and refused with reasons for a technician."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.brain.analysis.orient import to_ras
from fr_twisted.brain.analysis.read import read
from fr_twisted.brain.analysis.volume import Volume
from fr_twisted.brain.interfaces import UnusableScanError
from fr_twisted.model import PayloadFormat
from tests.builders import dicom_tar


class ReadingTestCase(SynchronousTestCase):
    """Reads files of one format."""

    kind = PayloadFormat.NIFTI

    def read(self, content: bytes) -> Volume:
        """Return what `read` makes of a file."""
        path = Path(self.mktemp())
        path.write_bytes(content)
        return read(path, self.kind)

    def assert_refused(self, content: bytes, *words: str) -> None:
        """``content`` is refused with a reason that has all the ``words``, on one line, and says what to do.

        Nothing stands there of the patient of `tests.builders.dicom_series`.
        """
        reason = str(self.assertRaises(UnusableScanError, self.read, content))
        for word in (*words, ";"):
            self.assertIn(word, reason)
        for private in ("Doe", "Jane", "1970", "\n"):
            self.assertNotIn(private, reason)

    def assert_same(self, found: Volume, values: Any, affine: Any) -> None:
        """``found`` holds ``values`` in the place of ``affine``, in whatever storage order."""
        upright, wanted = to_ras(found), to_ras(Volume(np.asarray(values, np.float32), affine))
        np.testing.assert_array_equal(upright.data, wanted.data)
        np.testing.assert_allclose(upright.affine, wanted.affine, atol=1e-5)


class SeriesTestCase(ReadingTestCase):
    """Reads tars of DICOM files."""

    kind = PayloadFormat.DICOM_TAR

    def read_files(self, files: Sequence[bytes]) -> Volume:
        """Return what `read` makes of a tar of ``files``."""
        return self.read(dicom_tar(files))

    def assert_files_refused(self, files: Sequence[bytes], *words: str) -> None:
        """So is a tar of ``files``."""
        self.assert_refused(dicom_tar(files), *words)
