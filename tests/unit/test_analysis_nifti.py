"""Reading NIfTI: what is right is read as it is, and all else is refused with a reason."""

import gzip
from itertools import product
from typing import Any

import numpy as np

from fr_twisted.brain.analysis.orient import scaled
from tests.builders import nifti_bytes, small_affine, small_volume
from tests.odd_files import edited, oblique, stored_anyhow, typed
from tests.reading import ReadingTestCase

VOLUME, AFFINE = small_volume(), small_affine()

Fields = dict[str, Any]


class ReadTests(ReadingTestCase):
    """Files that are good."""

    def test_valuesAndPlace(self) -> None:
        """Values, spacing and affine are those that were written, packed or not, in NIfTI-1 and -2."""
        for packed in (False, True):
            for version in (1, 2):
                found = self.read(nifti_bytes(VOLUME, AFFINE, packed=packed, version=version))
                np.testing.assert_array_equal(found.data, VOLUME)
                np.testing.assert_allclose(found.affine, AFFINE)
                np.testing.assert_allclose(found.spacing, (1.0, 1.5, 2.0))

    def test_typesOfVoxel(self) -> None:
        """Integers of 8 to 64 bits, signed or not, and floats are read as they are, in both byte orders."""
        for order, kind in product("<>", ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")):
            np.testing.assert_array_equal(self.read(typed(order + kind)).data, VOLUME % 120)

    def test_slopeAndIntercept(self) -> None:
        """The header's slope and intercept are applied, to all types; without a slope there is no intercept."""
        for kind in ("u1", "i2", "i4", "f4", "f8"):
            values = (VOLUME % 200).astype(kind)
            found = self.read(edited(values, scl_slope=2.5, scl_inter=-10))
            np.testing.assert_array_equal(found.data, (VOLUME % 200) * 2.5 - 10)
        for slope in (0, np.nan):
            np.testing.assert_array_equal(self.read(edited(scl_slope=slope, scl_inter=5)).data, VOLUME)

    def test_scaleDoesNotMatter(self) -> None:
        """Thirty times the values, stored or by the slope, are the same once brought to one scale."""
        wanted = scaled(self.read(nifti_bytes(VOLUME, AFFINE))).data
        for content in (nifti_bytes(VOLUME.astype("i4") * 30, AFFINE), edited(scl_slope=30)):
            np.testing.assert_array_equal(scaled(self.read(content)).data, wanted)

    def test_spacing(self) -> None:
        """Voxels of 0.7 to 5 mm are told as they are."""
        for spacing in ((0.7, 0.7, 0.7), (0.94, 0.94, 1.2), (1.0, 1.0, 5.0), (3.0, 2.0, 4.5)):
            found = self.read(nifti_bytes(VOLUME, oblique(small_affine(spacing), 20)))
            np.testing.assert_allclose(found.spacing, spacing, rtol=1e-5)

    def test_allOrientations(self) -> None:
        """All 48 ways to store a volume, straight and oblique, by qform and by sform, are the same upright volume."""
        for degrees, code in product((0.0, 14.0), ("sform_code", "qform_code")):
            affine = oblique(AFFINE, degrees)
            for stored, moved in stored_anyhow(VOLUME, affine):
                self.assert_same(self.read(edited(stored, moved, **{code: 0})), VOLUME, affine)

    def test_qfac(self) -> None:
        """By the qform alone a negative first pixdim reverses the third axis; 0, which should not occur, means 1."""
        for qfac, axes in ((-1, "RAI"), (1, "RAS"), (0, "RAS")):
            found = self.read(edited(sform_code=0, pixdim=(0, qfac)))
            self.assertEqual(found.orientation, axes)

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

    def test_oneOrientationIsBroken(self) -> None:
        """Where one of sform and qform holds no numbers, the other is believed."""
        for fields in (
            {"quatern_b": np.nan},
            {"quatern_b": 2},
            {"srow_x": np.nan},
            {"srow_y": 0},
            {"pixdim": (1, -1)},
        ):
            np.testing.assert_allclose(self.read(edited(**fields)).affine, AFFINE)

    def test_packedInPieces(self) -> None:
        """Several gzip members, and zeros after them, are one file."""
        content = nifti_bytes(VOLUME, AFFINE)
        packed = gzip.compress(content[:400]) + gzip.compress(content[400:]) + bytes(64)
        np.testing.assert_array_equal(self.read(packed).data, VOLUME)

    def test_extensions(self) -> None:
        """What stands between header and voxels is passed over."""
        content = edited(vox_offset=352 + 4096)
        np.testing.assert_array_equal(self.read(content[:352] + bytes(4096) + content[352:]).data, VOLUME)


PICTURE = np.zeros(VOLUME.shape, [("R", "u1"), ("G", "u1"), ("B", "u1")])

BAD_HEADERS: dict[str, tuple[Fields, str]] = {
    "no orientation": ({"sform_code": 0, "qform_code": 0}, "no orientation"),
    "quaternion is no number": (
        {"quatern_b": np.nan, "sform_code": 0},
        "orientation (sform, qform) is not valid",
    ),
    "row of the matrix is zero": (
        {"srow_x": 0, "qform_code": 0},
        "orientation (sform, qform) is not valid",
    ),
    "matrix is infinite": ({"srow_x": np.inf, "qform_code": 0}, "orientation (sform, qform) is not valid"),
    "a length is negative": ({"pixdim": (1, -1), "sform_code": 0}, "orientation (sform, qform) is not valid"),
    "a length is zero": ({"pixdim": (2, 0)}, "voxel size (pixdim) is not valid, 1 x 0 x 2"),
    "a length is no number": ({"pixdim": (2, np.nan)}, "voxel size (pixdim) is not valid, 1 x nan x 2"),
    "qform mirrors sform": ({"pixdim": (0, -1)}, "mirrored against each other"),
    "voxels begin in the header": ({"vox_offset": 0}, "vox_offset"),
    "voxels begin in the flags": ({"vox_offset": 348}, "vox_offset"),
    "voxels begin before the file": ({"vox_offset": -5}, "vox_offset"),
    "voxels begin nowhere": ({"vox_offset": np.nan}, "vox_offset"),
    "extensions are huge": ({"vox_offset": 1e9}, "vox_offset"),
    "extensions are cut": ({"vox_offset": 5000}, "cut short"),
    "slope is infinite": ({"scl_slope": np.inf}, "scaling (scl_slope, scl_inter)"),
    "slope is huge": ({"scl_slope": 1e38}, "scaling (scl_slope, scl_inter)"),
    "intercept is no number": ({"scl_slope": 1, "scl_inter": np.nan}, "scaling (scl_slope, scl_inter)"),
    "labels": ({"intent_code": 1002}, "labels, statistics or vectors (intent code 1002)"),
    "z scores": ({"intent_code": 5}, "labels, statistics or vectors (intent code 5)"),
    "unknown type": ({"datatype": 77}, "data type is not known"),
    "bits": ({"datatype": 1}, "type binary"),
    "long doubles": ({"datatype": 1536}, "type float128"),
    "no axes": ({"dim": (0, 0)}, "impossible shape"),
    "too many axes": ({"dim": (0, 8)}, "impossible shape"),
    "negative axis": ({"dim": (1, -6)}, "impossible shape"),
    "empty axis": ({"dim": (3, 0)}, "impossible shape"),
    "endless axis": ({"dim": (1, 32767)}, "32767 x 5 x 4 voxels"),
    "one axis": ({"dim": (0, 1)}, "1-D"),
}


class RefusalTests(ReadingTestCase):
    """Files that are not good."""

    def test_headers(self) -> None:
        """Every field that makes no sense is named."""
        for fields, words in BAD_HEADERS.values():
            self.assert_refused(edited(**fields), words)

    def test_headersOfNifti2(self) -> None:
        """So are the wider fields of NIfTI-2."""
        for fields, words in (
            ({"dim": (1, 2**62)}, "4611686018427387904 x 5 x 4 voxels"),
            ({"dim": (1, -(2**62))}, "impossible shape"),
            ({"vox_offset": 2**62}, "vox_offset"),
            ({"vox_offset": 540}, "vox_offset"),
            ({"scl_slope": 1e300}, "scaling"),
        ):
            self.assert_refused(edited(version=2, **fields), words)

    def test_notNifti(self) -> None:
        """Nothing, text, and an Analyze header are named as what they are."""
        self.assert_refused(b"", "empty")
        self.assert_refused(gzip.compress(b""), "empty")
        self.assert_refused(b"not an image at all" * 50, "not NIfTI")
        self.assert_refused(nifti_bytes(VOLUME, AFFINE)[:200], "ends inside its header")
        self.assert_refused(edited(magic=b"ni1"), "single-file")

    def test_truncated(self) -> None:
        """A file that is cut short says how much is missing; packed or not."""
        self.assert_refused(nifti_bytes(VOLUME, AFFINE)[:-7], "cut short", "240", "233")
        packed = nifti_bytes(VOLUME, AFFINE, packed=True)
        for end in (len(packed) // 2, -8, -1):
            self.assert_refused(packed[:end], "cut short or damaged")

    def test_checkSum(self) -> None:
        """A packed file is not read when its check sum shows a changed voxel, nor with other bytes after it."""
        for place in (-20, -6):
            stored = bytearray(gzip.compress(nifti_bytes(VOLUME, AFFINE), 0))
            stored[place] ^= 1
            self.assert_refused(bytes(stored), "damaged")
        self.assert_refused(nifti_bytes(VOLUME, AFFINE, packed=True) + b"and more", "damaged")

    def test_goesOn(self) -> None:
        """A file that holds much more than its header declares is refused; a little padding is none of our business."""
        content = nifti_bytes(VOLUME, AFFINE)
        self.assert_refused(content + bytes(2_000_000), "goes on after the voxels")
        np.testing.assert_array_equal(self.read(content + bytes(1000)).data, VOLUME)

    def test_severalTimePoints(self) -> None:
        """Two time points, vectors, and a single slice, are not one 3-D image."""
        self.assert_refused(nifti_bytes(np.stack([VOLUME, VOLUME], -1), AFFINE), "4-D", "6 x 5 x 4 x 2")
        vectors = np.stack([VOLUME] * 3, -1)[:, :, :, None]
        self.assert_refused(nifti_bytes(vectors, AFFINE), "5-D", "6 x 5 x 4 x 1 x 3")
        self.assert_refused(nifti_bytes(VOLUME[:, :, 0], AFFINE), "2-D")

    def test_twoVoxelSizesInMetres(self) -> None:
        """The same where lengths are in metres, in which all of them are small."""

        def edit(header: Any) -> None:
            header["xyzt_units"] = 1
            header["pixdim"][1:4] = 0.001
            header["qform_code"] = 0
            header.set_sform(np.diag([0.00109, 0.00109, 0.00109, 1.0]), 1)

        self.assert_refused(nifti_bytes(VOLUME, AFFINE, edit=edit), "two voxel sizes")

    def test_twoVoxelSizes(self) -> None:
        """A header whose only orientation contradicts its voxel size is refused with both."""

        def edit(header: Any) -> None:
            header["qform_code"] = 0
            header.set_sform(np.diag([1.3, 1.5, 2.0, 1.0]), 4)

        self.assert_refused(
            nifti_bytes(VOLUME, AFFINE, edit=edit), "two voxel sizes", "1 x 1.5 x 2", "1.3 x 1.5 x 2"
        )

    def test_twoOrientations(self) -> None:
        """A sform that is mirrored or turned against the qform is refused: left and right would be a guess."""
        for turn in ((-1, 1, 1), (-1, -1, 1), (1, -1, -1)):

            def edit(header: Any, turn: tuple[int, ...] = turn) -> None:
                header.set_sform(AFFINE @ np.diag([*turn, 1]), 1)

            self.assert_refused(nifti_bytes(VOLUME, AFFINE, edit=edit), "left and right cannot be told")

    def test_sheared(self) -> None:
        """Axes that are not at right angles are refused."""
        sheared = np.eye(4)
        sheared[:3, 1] = (np.sin(0.2), np.cos(0.2), 0)

        def edit(header: Any) -> None:
            header["qform_code"] = 0

        self.assert_refused(nifti_bytes(VOLUME, sheared, edit=edit), "right angles")

    def test_colour(self) -> None:
        """Colour and complex voxels are refused."""
        self.assert_refused(nifti_bytes(VOLUME.astype(np.complex64), AFFINE), "type complex64")
        self.assert_refused(nifti_bytes(PICTURE, AFFINE), "type RGB")

    def test_bomb(self) -> None:
        """A small packed file that declares a huge image, or holds one, is refused."""
        header = edited(dim=(slice(1, 4), 30000))
        self.assert_refused(gzip.compress(header + bytes(10_000_000)), "30000 x 30000 x 30000 voxels")
        self.assert_refused(gzip.compress(nifti_bytes(VOLUME, AFFINE) + bytes(10_000_000)), "goes on")
