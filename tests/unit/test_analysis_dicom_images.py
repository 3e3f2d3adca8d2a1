"""Reading DICOM: an image that cannot be used is named, with what is wrong with it."""

import io
from collections.abc import Callable
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    GrayscaleSoftcopyPresentationStateStorage,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from tests.builders import part10, small_affine, small_volume
from tests.odd_files import as_text, changed, compressed, enhanced, series
from tests.reading import SeriesTestCase

VOLUME, AFFINE = small_volume(), small_affine()


_ODD: dict[str, Any] = {
    "not MR": ({"Modality": "CT", "SOPClassUID": CTImageStorage}, "modality is CT"),
    "a screenshot": ({"SOPClassUID": SecondaryCaptureImageStorage}, "Secondary Capture Image Storage"),
    "a name for a modality": ({"Modality": "DOE JANE"}, "its modality is not a known one"),
    "two modalities": ({"Modality": ["MR", "CT"]}, "its modality is not a known one"),
    "a phase image": ({"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]}, "phase image"),
    "a localiser": ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localiser"),
    "colour": ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "in colour"),
    "palette": ({"PhotometricInterpretation": "PALETTE COLOR"}, "in colour"),
    "frames": ({"NumberOfFrames": 2}, "has 2 frames but is no enhanced"),
    "no frames": ({"NumberOfFrames": 0}, "no valid NumberOfFrames"),
    "huge": ({"Rows": 60000, "Columns": 60000}, "60000 x 60000 pixels"),
    "empty": ({"Rows": 0}, "no valid Rows"),
    "cut": ({"PixelData": bytes(10)}, "image 1 is cut short: 10 of 60 bytes"),
    "12 bits": ({"BitsAllocated": 12, "BitsStored": 12, "HighBit": 11}, "12 bits stored in 12 a pixel"),
    "64 bits": ({"BitsAllocated": 64, "BitsStored": 64, "HighBit": 63}, "64 bits stored in 64 a pixel"),
    "one bit": ({"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}, "1 bits stored in 1 a pixel"),
    "more stored than allocated": ({"BitsStored": 20}, "20 bits stored in 16 a pixel"),
    "left-aligned": ({"BitsStored": 12, "HighBit": 15}, "upper bits"),
    "odd sign": ({"PixelRepresentation": 7}, "no valid PixelRepresentation"),
    "slope of zero": ({"RescaleSlope": "0"}, "no valid RescaleSlope"),
    "huge slope": ({"RescaleSlope": "1e38"}, "no valid RescaleSlope"),
    "zero spacing": ({"PixelSpacing": ["0", "0"]}, "no valid PixelSpacing"),
    "negative spacing": ({"PixelSpacing": ["-1", "1"]}, "no valid PixelSpacing"),
    "one spacing": ({"PixelSpacing": "1"}, "no valid PixelSpacing"),
    "no directions": ({"ImageOrientationPatient": ["0"] * 6}, "(ImageOrientationPatient) is not valid"),
    "long directions": (
        {"ImageOrientationPatient": ["2", "0", "0", "0", "2", "0"]},
        "(ImageOrientationPatient) is not valid",
    ),
    "a plane of one coordinate": ({"ImagePositionPatient": ["1", "2"]}, "no valid ImagePositionPatient"),
}


class ImageRefusalTests(SeriesTestCase):
    """Images that are not good."""

    def test_tags(self) -> None:
        """Every attribute that makes no sense is named."""
        for tags, words in _ODD.values():
            self.assert_files_refused(series(**tags), words)

    def test_missingAttributes(self) -> None:
        """An image without what it needs is refused with the attribute's name."""
        for name in (
            *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "FrameOfReferenceUID"),
            *(
                "PixelData",
                "Modality",
                "Rows",
                "BitsStored",
                "PixelRepresentation",
                "PhotometricInterpretation",
            ),
        ):
            self.assert_files_refused(series()[:2] + series(**{name: None})[2:], f"image 3 has no {name}")

    def test_text(self) -> None:
        """Text in place of numbers is refused with the attribute's name, never quoted."""
        for name, count in (
            ("Rows", 1),
            ("ImagePositionPatient", 3),
            ("PixelSpacing", 2),
            ("RescaleSlope", 1),
        ):
            for value in ("Doe", "nan", "inf"):
                files = changed(series(RescaleSlope="1"), as_text(name, *[value] * count))
                self.assert_files_refused(files, f"image 1 has no valid {name}")

    def test_otherObjects(self) -> None:
        """What is in the series but no image is named."""
        state = {
            "SOPClassUID": GrayscaleSoftcopyPresentationStateStorage,
            "Modality": "PR",
            "PixelData": None,
        }
        self.assert_files_refused(
            series() + series(**state)[:1], "object 5 is no MR image (Grayscale Softcopy"
        )

    def test_cutFiles(self) -> None:
        """A file that is cut anywhere is the one that is named."""
        files = series()
        for end in (len(files[1]) - 7, len(files[1]) - 65, 700, 400):
            self.assert_files_refused([files[0], files[1][:end], *files[2:]], "2", "cut short")
        self.assert_files_refused(
            [files[0], files[1][:100], *files[2:]], "file 2 of the archive is not DICOM"
        )

    def test_deflated(self) -> None:
        """A deflated file is refused, for it could unpack to any size."""
        image = pydicom.dcmread(io.BytesIO(series()[0]))
        self.assert_files_refused([part10(image, DeflatedExplicitVRLittleEndian)], "deflated", "uncompressed")

    def test_compressedOtherwise(self) -> None:
        """Codings that cannot be decoded here are named, and what to send instead."""
        for syntax, name in ((HTJ2KLossless, "High-Throughput JPEG 2000"), ("1.2.3.4", "an unknown way")):
            files = compressed(series(), lambda _: b"\xff\xd8\xff\xc3" + bytes(60), syntax)
            self.assert_files_refused(files, name, "not decoded here", "Explicit VR Little Endian")

    def test_damagedCodings(self) -> None:
        """Frames that are damaged, endless or larger than they may be are refused, before they take memory."""
        huge_jls = b"\xff\xd8\xff\xf7\x00\x0b\x10\xff\xff\xff\xff\x01\x01\x11\x00" + bytes(60)
        wide_j2k = b"\xff\x4f\xff\x51\x00\x29\x00\x00" + b"\x7f\xff\xff\xff" * 2 + bytes(100)
        runs = (1).to_bytes(4, "little") + (64).to_bytes(4, "little") + bytes(56) + b"\x81\x00" * 100_000
        for syntax, frame, words in (
            (JPEGLSLossless, huge_jls, "size is not that of the image"),
            (JPEG2000Lossless, wide_j2k, "size is not that of the image"),
            (JPEG2000Lossless, bytes(200), "size is not that of the image"),
            (RLELossless, runs, "too much of it"),
            (RLELossless, bytes(64), "cannot be decoded"),
            (RLELossless, b"\x01\x02", "cannot be decoded"),
        ):

            def encode(_: Any, frame: bytes = frame) -> bytes:
                return frame

            self.assert_files_refused(compressed(series(), encode, syntax), "image 1", words)

    def test_framesWithoutPlace(self) -> None:
        """A multi-frame image that does not say where each frame lies is refused."""

        def shorten(image: Dataset) -> None:
            image.PerFrameFunctionalGroupsSequence = image.PerFrameFunctionalGroupsSequence[:3]

        edits: dict[str, Callable[[Dataset], None]] = {
            "functional groups": lambda image: delattr(image, "PerFrameFunctionalGroupsSequence"),
            "no ImageOrientationPatient of each": lambda image: delattr(
                image, "SharedFunctionalGroupsSequence"
            ),
            "4 frames but tells the place of 3": shorten,
            "cut short: 240 of 300": lambda image: setattr(image, "NumberOfFrames", 5),
            "3 frames but tells the place of 4": lambda image: setattr(image, "NumberOfFrames", 3),
        }
        for words, edit in edits.items():
            self.assert_files_refused(enhanced(edit), words)
