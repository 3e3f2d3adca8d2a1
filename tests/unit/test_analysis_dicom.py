"""Reading DICOM: one MR series, slices by position, rescaled; all else is refused with a reason."""

import io

import highdicom
import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import (
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from fr_twisted.brain.analysis.orient import scaled
from tests.builders import dicom_series, small_affine, small_volume
from tests.odd_files import as_text, changed, compressed, enhanced, jpeg2000, oblique, series, stored_anyhow
from tests.reading import SeriesTestCase

VOLUME, AFFINE = small_volume(), small_affine()


class ReadTests(SeriesTestCase):
    """Series that are good."""

    def test_allOrientations(self) -> None:
        """All 48 ways to stack slices, straight and oblique, the files in any order, are the same upright volume."""
        for degrees in (0.0, 12.0):
            affine = oblique(AFFINE, degrees)
            for stored, moved in stored_anyhow(VOLUME, affine):
                files = dicom_series(stored, moved)
                self.assert_same(self.read_files(files[1::2] + files[::2]), VOLUME, affine)

    def test_asHighdicomHasIt(self) -> None:
        """Values and place are those that the highdicom library finds."""
        files = dicom_series(
            VOLUME, oblique(AFFINE, -25), RescaleSlope="3", RescaleIntercept="-7", RescaleType="US"
        )
        wanted = highdicom.get_volume_from_series([pydicom.dcmread(io.BytesIO(data)) for data in files])
        found = self.read_files(files)
        self.assert_same(found, wanted.array, wanted.get_affine("RAS"))

    def test_spacing(self) -> None:
        """Voxels of 0.7 to 5 mm are told as they are."""
        for spacing in ((0.7, 0.7, 0.7), (0.94, 0.94, 1.2), (1.0, 1.0, 5.0), (3.0, 2.0, 4.5)):
            found = self.read_files(dicom_series(VOLUME, oblique(small_affine(spacing), 20)))
            np.testing.assert_allclose(found.spacing, spacing, rtol=1e-5)

    def test_roundedDirections(self) -> None:
        """Direction cosines of four digits, and spacings that only look different, are good enough."""
        files = dicom_series(VOLUME, oblique(AFFINE, 12))

        def edit(image: Dataset) -> None:
            image.ImageOrientationPatient = [round(float(n), 4) for n in image.ImageOrientationPatient]
            image.PixelSpacing = ["1.50" if image.InstanceNumber % 2 else "1.5", "1"]

        np.testing.assert_allclose(
            self.read_files(changed(files, edit)).affine, self.read_files(files).affine, atol=1e-3
        )

    def test_rescaleOfEachSlice(self) -> None:
        """Slope and intercept are applied slice by slice; empty ones mean nothing."""
        files = series(RescaleSlope=lambda k: str(k + 1), RescaleIntercept="-5", RescaleType="US")
        self.assert_same(self.read_files(files), VOLUME * np.arange(1, 5) - 5, AFFINE)
        self.assert_same(self.read_files(series(RescaleSlope="", RescaleIntercept="")), VOLUME, AFFINE)

    def test_scaleDoesNotMatter(self) -> None:
        """Thirty times the values, stored or by the slope, are the same once brought to one scale."""
        wanted = scaled(self.read_files(series())).data
        for files in (dicom_series(VOLUME.astype("i4") * 30, AFFINE), series(RescaleSlope="30")):
            np.testing.assert_array_equal(scaled(self.read_files(files)).data, wanted)

    def test_typesOfPixel(self) -> None:
        """Pixels of 8, 16 and 32 bits, signed and not, are read; so are negative values and a negative intercept."""
        for kind in ("u1", "i1", "u2", "i2", "u4", "i4"):
            values = (VOLUME % 120).astype(kind)
            self.assert_same(self.read_files(dicom_series(values, AFFINE)), values, AFFINE)
        lower = dicom_series((VOLUME - 500).astype("i2"), AFFINE, RescaleIntercept="500")
        raised = dicom_series((VOLUME + 1024).astype("u2"), AFFINE, RescaleIntercept="-1024")
        for files in (lower, raised):
            self.assert_same(self.read_files(files), VOLUME, AFFINE)

    def test_overlayBits(self) -> None:
        """Bits above Bits Stored are no part of the value, signed or not."""
        for values in ((VOLUME | 0x7000).astype("u2"), (VOLUME.astype("u2") | 0xF000).view("i2")):
            self.assert_same(
                self.read_files(dicom_series(values, AFFINE, BitsStored=12, HighBit=11)), VOLUME, AFFINE
            )

    def test_padding(self) -> None:
        """Padding is air: zero, or the lowest value where there are values below zero."""
        values = VOLUME.copy()
        values[0] = -32768
        wanted = np.where(values < 0, 0, values)
        self.assert_same(
            self.read_files(dicom_series(values, AFFINE, PixelPaddingValue=-32768)), wanted, AFFINE
        )
        scale = {"RescaleSlope": "2", "RescaleIntercept": "-300", "PixelPaddingValue": -32768}
        lowest = int(VOLUME[1:].min()) * 2 - 300
        wanted = np.where(values < 0, lowest, values * 2.0 - 300)
        self.assert_same(self.read_files(dicom_series(values, AFFINE, **scale)), wanted, AFFINE)
        limits = {"PixelPaddingValue": -32768, "PixelPaddingRangeLimit": 99}
        self.assert_same(
            self.read_files(dicom_series(values, AFFINE, **limits)), np.where(values < 100, 0, values), AFFINE
        )

    def test_lowIsBright(self) -> None:
        """MONOCHROME1 is turned round over the whole volume, its padding left air."""
        wanted = int(VOLUME.max()) - VOLUME
        for kind in ("i2", "u2"):
            files = dicom_series(VOLUME.astype(kind), AFFINE, PhotometricInterpretation="MONOCHROME1")
            self.assert_same(self.read_files(files), wanted, AFFINE)
        values = VOLUME.copy()
        values[0] = 4095
        tags = {"PhotometricInterpretation": "MONOCHROME1", "PixelPaddingValue": 4095}
        wanted = np.where(values == 4095, 0, VOLUME[1:].max() - values)
        self.assert_same(self.read_files(dicom_series(values, AFFINE, **tags)), wanted, AFFINE)

    def test_multiFrame(self) -> None:
        """An enhanced multi-frame image is the same volume, each frame with its scale."""
        self.assert_same(self.read_files(enhanced(affine=oblique(AFFINE, -8))), VOLUME, oblique(AFFINE, -8))

        def edit(image: Dataset) -> None:
            for frame in image.PerFrameFunctionalGroupsSequence:
                height = float(frame.PlanePositionSequence[0].ImagePositionPatient[2])
                scale = Dataset()
                scale.RescaleSlope, scale.RescaleIntercept, scale.RescaleType = str(height), "-5", "US"
                frame.PixelValueTransformationSequence = [scale]

        heights = AFFINE[2, 3] + AFFINE[2, 2] * np.arange(4)
        self.assert_same(self.read_files(enhanced(edit)), VOLUME * heights - 5, AFFINE)

    def test_codings(self) -> None:
        """Series in the usual transfer syntaxes, also compressed ones that can be decoded, are the same volume."""
        files = series()
        for syntax in (RLELossless, JPEGLSLossless):

            def compress(image: Dataset, syntax: str = syntax) -> None:
                image.compress(syntax)

            self.assert_same(self.read_files(changed(files, compress, syntax)), VOLUME, AFFINE)
        unsigned = dicom_series(VOLUME.astype("u2"), AFFINE)
        self.assert_same(self.read_files(compressed(unsigned, jpeg2000, JPEG2000Lossless)), VOLUME, AFFINE)
        for syntax, swapped in ((ImplicitVRLittleEndian, False), (ExplicitVRBigEndian, True)):
            coded = []
            for data in files:
                image, out = pydicom.dcmread(io.BytesIO(data)), io.BytesIO()
                image.file_meta.TransferSyntaxUID = syntax
                if swapped:
                    image.PixelData = np.frombuffer(image.PixelData, "<i2").astype(">i2").tobytes()
                pydicom.dcmwrite(
                    out, image, implicit_vr=not swapped, little_endian=not swapped, force_encoding=True
                )
                coded.append(out.getvalue())
            self.assert_same(self.read_files(coded), VOLUME, AFFINE)

    def test_valuesOfAnotherKind(self) -> None:
        """Numbers that are written as text are numbers all the same."""
        files = changed(series(), as_text("Rows", "5"))
        first = pydicom.dcmread(io.BytesIO(files[0]))
        files[0] = changed(files[:1], as_text("ImagePositionPatient", *map(str, first.ImagePositionPatient)))[
            0
        ]
        self.assert_same(self.read_files(files), VOLUME, AFFINE)


class SeriesRefusalTests(SeriesTestCase):
    """Images that are good each, but are no series."""

    def test_missingSlices(self) -> None:
        """A gap is named with its size, and how many slices are missing."""
        files = dicom_series(small_volume((4, 4, 12)), AFFINE)
        self.assert_files_refused(files[:4] + files[6:], "2 of 12 slices are missing", "2 mm apart", "6 mm")

    def test_unevenSpacing(self) -> None:
        """Uneven distances are named in mm."""
        files = series(ImagePositionPatient=lambda k: ["0", "0", str([0, 2, 4, 5.1][k])])
        self.assert_files_refused(files, "not evenly", "1.1 to 2 mm")

    def test_slicesInOnePlace(self) -> None:
        """Slices in one place are told with what tells them apart."""
        files = series()
        self.assert_files_refused(
            files + files, "4 slices lie where another lies", "files that are there twice"
        )
        self.assert_files_refused(
            files + files[:1], "1 slices lie where another lies", "files that are there twice"
        )
        other = {"SOPInstanceUID": lambda _: generate_uid()}
        for tags, words in (
            ({"EchoTime": "30"}, "2 echo times"),
            ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "INV2"]}, "2 types of image"),
            ({"TemporalPositionIdentifier": 2}, "2 time points"),
            ({"AcquisitionTime": "101500"}, "2 acquisition times"),
            ({}, "several time points, echoes or a doubled export"),
        ):
            self.assert_files_refused(files + series(**other, **tags), "4 slices lie", words)

    def test_mixed(self) -> None:
        """Two series, patients, sizes and orientations are refused as such."""
        files = series()
        for others, words in (
            (series(SeriesInstanceUID=generate_uid()), "mixes 2 series"),
            (series(PatientID="P2"), "mixes 2 patients"),
            (series(FrameOfReferenceUID=generate_uid()), "mixes 2 frames of reference"),
            (dicom_series(VOLUME[:4], AFFINE), "mixes 2 numbers of columns"),
            (series(PhotometricInterpretation="MONOCHROME1"), "mixes 2 meanings of bright"),
            (dicom_series(VOLUME, oblique(AFFINE, 30)), "same orientation"),
            (series(PixelSpacing=["2", "1"]), "same pixel spacing"),
        ):
            self.assert_files_refused(files[:2] + others[2:], words)

    def test_tilted(self) -> None:
        """Slices that are shifted against each other, all alike or one of them, are refused."""
        for places in ((0, 0.5, 1.0, 1.5), (0, 0, 0.3, 0)):
            files = series(ImagePositionPatient=lambda k, at=places: ["0", str(at[k]), str(2 * k)])
            self.assert_files_refused(files, "shifted against each other")

    def test_oneSlice(self) -> None:
        """One slice is no volume."""
        self.assert_files_refused(series()[:1], "only one slice")

    def test_multiFrame(self) -> None:
        """Two multi-frame images, and one with others, are no series."""
        self.assert_files_refused(enhanced() * 2, "2 multi-frame images")
        self.assert_files_refused(enhanced() + series(), "mixes 2 series")

        def keep_one(image: Dataset) -> None:
            image.NumberOfFrames, image.PixelData = 1, image.PixelData[:60]
            image.PerFrameFunctionalGroupsSequence = image.PerFrameFunctionalGroupsSequence[:1]

        self.assert_files_refused(enhanced(keep_one), "only one slice")
