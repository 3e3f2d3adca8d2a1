"""Reading NIfTI: what is right is read as it is, and all else is refused with a reason."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.brain.analysis.read import read
from fr_twisted.brain.analysis.volume import Volume
from fr_twisted.brain.interfaces import UnusableScanError
from fr_twisted.model import PayloadFormat
from tests.builders import nifti_bytes, small_affine, small_volume

VOLUME, AFFINE = small_volume(), small_affine()


class _ReaderTestCase(SynchronousTestCase):
    def read(self, content: bytes, kind: PayloadFormat = PayloadFormat.NIFTI) -> Volume:
        """Return what `read` makes of ``content``."""
        path = Path(self.mktemp())
        path.write_bytes(content)
        return read(path, kind)

    def assert_refused(self, content: bytes, *words: str) -> None:
        """``content`` is refused with a reason that has all the ``words``."""
        reason = str(self.assertRaises(UnusableScanError, self.read, content))
        for word in words:
            self.assertIn(word, reason)
        self.assertNotIn("\n", reason)


class ReadTests(_ReaderTestCase):
    """Files that are good."""

    def test_valuesAndPlace(self) -> None:
        """Values, spacing and affine are those that were written, packed or not, in NIfTI-1 and -2."""
        for packed in (False, True):
            for version in (1, 2):
                kind = PayloadFormat.NIFTI_GZ if packed else PayloadFormat.NIFTI
                found = self.read(nifti_bytes(VOLUME, AFFINE, packed=packed, version=version), kind)
                np.testing.assert_array_equal(found.data, VOLUME)
                np.testing.assert_allclose(found.affine, AFFINE)
                np.testing.assert_allclose(found.spacing, (1.0, 1.5, 2.0))

    def test_typesOfVoxel(self) -> None:
        """Integers of 8, 16 and 32 bits, signed or not, and floats are read as they are, in both byte orders."""
        for kind in ("u1", "i2", ">i2", "u2", "i4", "f4", ">f4", "f8"):
            values = (VOLUME % 200).astype(kind)
            np.testing.assert_array_equal(self.read(nifti_bytes(values, AFFINE)).data, values)

    def test_slopeAndIntercept(self) -> None:
        """The header's slope and intercept are applied."""

        def edit(header: Any) -> None:
            header["scl_slope"], header["scl_inter"] = 2.5, -10

        found = self.read(nifti_bytes(VOLUME, AFFINE, edit=edit))
        np.testing.assert_allclose(found.data, VOLUME * 2.5 - 10)

    def test_fourthAxisOfOne(self) -> None:
        """A fourth axis of length one is no other time point."""
        self.assertEqual(self.read(nifti_bytes(VOLUME[..., None], AFFINE)).data.shape, VOLUME.shape)

    def test_metres(self) -> None:
        """A header in metres gives millimetres."""

        def edit(header: Any) -> None:
            header.set_xyzt_units("meter")

        small = AFFINE.copy()
        small[:3] /= 1000
        np.testing.assert_allclose(self.read(nifti_bytes(VOLUME, small, edit=edit)).affine, AFFINE, rtol=1e-5)

    def test_sformOfATemplate(self) -> None:
        """Where the sform leads to another space, of other voxel sizes, the qform is believed."""

        def edit(header: Any) -> None:
            header.set_sform(np.diag([1.3, 1.5, 2.0, 1.0]), 4)

        np.testing.assert_allclose(self.read(nifti_bytes(VOLUME, AFFINE, edit=edit)).spacing, (1.0, 1.5, 2.0))


class RefusalTests(_ReaderTestCase):
    """Files that are not good."""

    def test_notNifti(self) -> None:
        """Nothing, text, and an Analyze header are named as what they are."""
        self.assert_refused(b"", "empty")
        self.assert_refused(b"not an image at all" * 50, "not NIfTI")
        self.assert_refused(nifti_bytes(VOLUME, AFFINE)[:200], "ends inside its header")

        def edit(header: Any) -> None:
            header["magic"] = b"ni1"

        self.assert_refused(nifti_bytes(VOLUME, AFFINE, edit=edit), "single-file")

    def test_truncated(self) -> None:
        """A file that is cut short says how much is missing; packed or not."""
        self.assert_refused(nifti_bytes(VOLUME, AFFINE)[:-7], "cut short", "240", "233")
        packed = nifti_bytes(VOLUME, AFFINE, packed=True)
        self.assert_refused(packed[: len(packed) // 2], "cut short")

    def test_severalTimePoints(self) -> None:
        """Two time points, and a single slice, are not one 3-D image."""
        self.assert_refused(nifti_bytes(np.stack([VOLUME, VOLUME], -1), AFFINE), "4-D", "6 x 5 x 4 x 2")
        self.assert_refused(nifti_bytes(VOLUME[:, :, 0], AFFINE), "2-D")

    def test_noOrientation(self) -> None:
        """A header without sform and qform is refused, for left and right would be a guess."""

        def edit(header: Any) -> None:
            header["sform_code"] = header["qform_code"] = 0

        self.assert_refused(nifti_bytes(VOLUME, AFFINE, edit=edit), "no orientation")

    def test_twoVoxelSizes(self) -> None:
        """A header whose only orientation contradicts its voxel size is refused with both."""

        def edit(header: Any) -> None:
            header["qform_code"] = 0
            header.set_sform(np.diag([1.3, 1.5, 2.0, 1.0]), 4)

        self.assert_refused(
            nifti_bytes(VOLUME, AFFINE, edit=edit), "two voxel sizes", "1 x 1.5 x 2", "1.3 x 1.5 x 2"
        )

    def test_sheared(self) -> None:
        """Axes that are not at right angles are refused."""
        sheared = np.eye(4)
        sheared[:3, 1] = (np.sin(0.2), np.cos(0.2), 0)

        def edit(header: Any) -> None:
            header["qform_code"] = 0

        self.assert_refused(nifti_bytes(VOLUME, sheared, edit=edit), "right angles")

    def test_colour(self) -> None:
        """Colour and complex voxels are refused."""
        self.assert_refused(nifti_bytes(VOLUME.astype(np.complex64), AFFINE), "complex64")

    def test_bomb(self) -> None:
        """A small packed file that declares a huge image is refused by its header."""

        def edit(header: Any) -> None:
            header["dim"][1:4] = 30000, 30000, 30000

        content = gzip.compress(nifti_bytes(VOLUME, AFFINE, edit=edit) + bytes(10_000_000))
        self.assert_refused(content, "27000000000000 voxels", "over the limit")


def _edited(change: Callable[[bytearray], None]) -> bytes:
    content = bytearray(nifti_bytes(VOLUME, AFFINE))
    change(content)
    return bytes(content)


class FuzzTests(_ReaderTestCase):
    """Whatever a file holds, it is read or refused; nothing else."""

    def setUp(self) -> None:
        """Make a place for the files."""
        self.path = Path(self.mktemp())

    def read_or_refuse(self, content: bytes) -> None:
        """``content`` is read or refused."""
        self.path.write_bytes(content)
        try:
            self.assertEqual(read(self.path, PayloadFormat.NIFTI).data.ndim, 3)
        except UnusableScanError as error:
            self.assertTrue(str(error))

    @settings(deadline=None, max_examples=150, database=None)
    @given(st.binary(max_size=600))
    def test_garbage(self, content: bytes) -> None:
        """Any bytes are refused."""
        self.read_or_refuse(content)

    @settings(deadline=None, max_examples=300, database=None)
    @given(
        st.lists(st.tuples(st.integers(0, 351), st.integers(0, 255)), min_size=1, max_size=6), st.booleans()
    )
    def test_changedHeader(self, changes: list[tuple[int, int]], packed: bool) -> None:
        """A header with any bytes changed is read or refused."""

        def change(content: bytearray) -> None:
            for place, value in changes:
                content[place] = value

        content = _edited(change)
        self.read_or_refuse(gzip.compress(content, 1) if packed else content)

    @settings(deadline=None, max_examples=100, database=None)
    @given(st.data())
    def test_packedAndDamaged(self, data: st.DataObject) -> None:
        """A packed file that is cut anywhere or changed anywhere is read or refused."""
        content = bytearray(nifti_bytes(VOLUME, AFFINE, packed=True))
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(0, 255))
        self.read_or_refuse(bytes(content[: data.draw(st.integers(0, len(content)))]))
