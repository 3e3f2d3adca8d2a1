"""Reading DICOM: one MR series, slices by position, rescaled; all else is refused with a reason."""

import io
import tarfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
    generate_uid,
)
from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.brain.analysis.orient import to_ras
from fr_twisted.brain.analysis.read import read
from fr_twisted.brain.analysis.volume import Volume
from fr_twisted.brain.interfaces import UnusableScanError
from fr_twisted.model import PayloadFormat
from tests.builders import dicom_series, dicom_tar, multi_frame, part10, small_affine, small_volume

VOLUME, AFFINE = small_volume(), small_affine()


def turned(degrees: float) -> Any:
    """Return `AFFINE` turned about the left-right axis."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.array([[1, 0, 0, 0], [0, c, -s, 0], [0, s, c, 0], [0, 0, 0, 1]])
    return turn @ AFFINE


class _SeriesTestCase(SynchronousTestCase):
    def read(self, files: list[bytes]) -> Volume:
        """Return what `read` makes of a tar of ``files``."""
        return self.read_tar(dicom_tar(files))

    def read_tar(self, content: bytes) -> Volume:
        """Return what `read` makes of the tar ``content``."""
        path = Path(self.mktemp())
        path.write_bytes(content)
        return read(path, PayloadFormat.DICOM_TAR)

    def assert_refused(self, files: list[bytes], *words: str) -> None:
        """``files`` are refused with a reason that has all the ``words``, and nothing of the patient."""
        reason = str(self.assertRaises(UnusableScanError, self.read, files))
        for word in words:
            self.assertIn(word, reason)
        for private in ("Doe", "1970"):
            self.assertNotIn(private, reason)

    def assert_same(self, found: Volume, values: Any, affine: Any) -> None:
        """``found`` holds ``values`` in the place of ``affine``, in whatever storage order."""
        upright, wanted = to_ras(found), to_ras(Volume(np.asarray(values, np.float32), affine))
        np.testing.assert_array_equal(upright.data, wanted.data)
        np.testing.assert_allclose(upright.affine, wanted.affine, atol=1e-5)


class ReadTests(_SeriesTestCase):
    """Series that are good."""

    def test_stacksOfAllOrientations(self) -> None:
        """Axial, sagittal, coronal and oblique stacks come out in their place, the files in any order."""
        for axes in ((0, 1, 2), (1, 2, 0), (0, 2, 1), (2, 1, 0)):
            volume, affine = VOLUME.transpose(axes), turned(12)[:, [*axes, 3]]
            files = dicom_series(volume, affine)
            self.assert_same(self.read(files[::-1]), volume, affine)
            self.assert_same(self.read(files[1::2] + files[::2]), volume, affine)

    def test_rescaleOfEachSlice(self) -> None:
        """Slope and intercept are applied slice by slice."""
        files = dicom_series(
            VOLUME, AFFINE, RescaleSlope=lambda k: str(k + 1), RescaleIntercept="-5", RescaleType="US"
        )
        self.assert_same(self.read(files), VOLUME * np.arange(1, 5) - 5, AFFINE)

    def test_typesOfPixel(self) -> None:
        """Pixels of 8, 16 and 32 bits, signed and not, are read."""
        for kind in ("u1", "u2", "i2", "u4"):
            values = (VOLUME % 200).astype(kind)
            self.assert_same(self.read(dicom_series(values, AFFINE)), values, AFFINE)

    def test_multiFrame(self) -> None:
        """An enhanced multi-frame image is the same volume."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = multi_frame(dicom_series(VOLUME, turned(-8)))
        self.assert_same(self.read([image]), VOLUME, turned(-8))

    def test_runLengthEncoded(self) -> None:
        """A compressed series that can be decoded is read."""
        files = []
        for data in dicom_series(VOLUME, AFFINE):
            image = pydicom.dcmread(io.BytesIO(data))
            image.compress(pydicom.uid.RLELossless)
            files.append(part10(image, pydicom.uid.RLELossless))
        self.assert_same(self.read(files), VOLUME, AFFINE)


class RefusalTests(_SeriesTestCase):
    """Series that are not good."""

    def test_missingSlices(self) -> None:
        """A gap is named with its size, and how many slices are missing."""
        files = dicom_series(small_volume((4, 4, 12)), AFFINE)
        self.assert_refused(files[:4] + files[6:], "2 of 12 slices are missing", "2 mm apart", "6 mm")

    def test_unevenSpacing(self) -> None:
        """Uneven distances are named in mm."""

        def place(k: int) -> list[str]:
            return ["0", "0", str([0, 2, 4, 5.1][k])]

        self.assert_refused(
            dicom_series(VOLUME, AFFINE, ImagePositionPatient=place), "not evenly", "1.1 to 2 mm"
        )

    def test_twoTimePoints(self) -> None:
        """Two images at each position are several time points or echoes."""
        files = dicom_series(VOLUME, AFFINE)
        self.assert_refused(files + files, "4 slices lie where another lies")

    def test_mixed(self) -> None:
        """Two series, two sizes and two orientations are refused as such."""
        files = dicom_series(VOLUME, AFFINE)
        other = dicom_series(VOLUME, AFFINE, SeriesInstanceUID=generate_uid())
        self.assert_refused(files[:2] + other[2:], "2 series")
        self.assert_refused(files[:2] + dicom_series(VOLUME[:4], AFFINE)[2:], "columns")
        self.assert_refused(files[:2] + dicom_series(VOLUME, turned(30))[2:], "same orientation")
        spaced = dicom_series(VOLUME, AFFINE, PixelSpacing=lambda k: [str(1 + k), "1"])
        self.assert_refused(spaced, "same pixel spacing")

    def test_tilted(self) -> None:
        """Slices that are shifted against each other are refused."""

        def place(k: int) -> list[str]:
            return ["0", str(k * 0.5), str(k * 2)]

        self.assert_refused(dicom_series(VOLUME, AFFINE, ImagePositionPatient=place), "tilted")

    def test_notMr(self) -> None:
        """Another modality or kind of object is named."""
        self.assert_refused(
            dicom_series(VOLUME, AFFINE, Modality="CT", SOPClassUID=CTImageStorage), "modality is CT"
        )
        capture = dicom_series(VOLUME, AFFINE, SOPClassUID=SecondaryCaptureImageStorage)
        self.assert_refused(capture, "Secondary Capture Image Storage")
        self.assert_refused(dicom_series(VOLUME, AFFINE, Modality=None), "modality is missing")

    def test_missingAttributes(self) -> None:
        """An image without what places it is refused with the attribute's name."""
        for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "PixelData"):
            self.assert_refused(dicom_series(VOLUME, AFFINE, **{name: None}), name)

    def test_oneSlice(self) -> None:
        """One slice is no volume."""
        self.assert_refused(dicom_series(VOLUME, AFFINE)[:1], "only one slice")

    def test_shortPixels(self) -> None:
        """Pixels that are cut short are refused."""
        self.assert_refused(dicom_series(VOLUME, AFFINE, PixelData=bytes(10)), "cannot be read")

    def test_hugeSize(self) -> None:
        """Rows and columns that no scan has are refused before a pixel is decoded."""
        self.assert_refused(dicom_series(VOLUME, AFFINE, Rows=60000, Columns=60000), "3600000000 voxels")

    def test_deflated(self) -> None:
        """A deflated file is refused, for it could unpack to any size."""
        image = pydicom.dcmread(io.BytesIO(dicom_series(VOLUME, AFFINE)[0]))
        self.assert_refused([part10(image, DeflatedExplicitVRLittleEndian)], "deflated")

    def test_otherFiles(self) -> None:
        """What is not DICOM, an empty archive, no archive, and links are refused."""
        self.assert_refused([b"hello" * 100], "file 1 of the archive is not DICOM")
        self.assert_refused([], "no DICOM file")
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            entry = tarfile.TarInfo("a")
            entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(entry)
        reason = str(self.assertRaises(UnusableScanError, self.read_tar, out.getvalue()))
        self.assertIn("no plain file", reason)
        for content in (b"", b"x" * 5000):
            self.assertRaises(UnusableScanError, self.read_tar, content)


class FuzzTests(_SeriesTestCase):
    """Whatever an archive holds, it is read or refused; nothing else."""

    def setUp(self) -> None:
        """Make a small archive to damage."""
        self.path = Path(self.mktemp())
        self.content = dicom_tar(dicom_series(VOLUME[:, :, :3], AFFINE))

    @settings(deadline=None, max_examples=150, database=None)
    @given(st.data())
    def test_changedAndCut(self, data: st.DataObject) -> None:
        """An archive with bytes changed anywhere, cut anywhere, is read or refused."""
        content = bytearray(self.content)
        for _ in range(data.draw(st.integers(1, 8))):
            # headers, more often than padding and pixels
            start = 512 if data.draw(st.booleans()) else 0
            content[data.draw(st.integers(start, min(start + 1800, len(content) - 1)))] = data.draw(
                st.integers(0, 255)
            )
        end = len(content) if data.draw(st.booleans()) else data.draw(st.integers(0, len(content)))
        self.path.write_bytes(bytes(content[:end]))
        try:
            self.assertEqual(read(self.path, PayloadFormat.DICOM_TAR).data.ndim, 3)
        except UnusableScanError as error:
            self.assertTrue(str(error))
