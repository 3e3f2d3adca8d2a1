"""Reading DICOM: JPEG Lossless and 12-bit JPEG, where their decoder is installed, and which decoder is asked at all."""

import io
import random
import sys
from types import ModuleType
from typing import Any
from unittest import skipUnless

import numpy as np
import pydicom
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
)

from fr_twisted.brain.analysis import jpeg_plugin, read_dicom_pixels
from fr_twisted.brain.interfaces import UnusableScanError
from tests.builders import dicom_series, small_affine, small_volume
from tests.jpeg_coder import jpeg_lossless
from tests.odd_files import compressed, jpeg2000, series
from tests.reading import SeriesTestCase

VOLUME, AFFINE = small_volume(), small_affine()

needs_decoder = skipUnless(
    jpeg_plugin.is_available(JPEGLossless), "imagecodecs is not installed: pip install fr-twisted[jpeg]"
)


@needs_decoder
class LosslessTests(SeriesTestCase):
    """JPEG Lossless."""

    def test_everyValue(self) -> None:
        """Signed and unsigned values of any depth are what they were, in both transfer syntaxes."""
        chance = np.random.default_rng(5)
        for sign, stored, low, high in (
            (0, 16, 0, 65535),
            (0, 12, 0, 4095),
            (1, 16, -32768, 32767),
            (1, 12, -2048, 2047),
            (0, 8, 0, 255),
        ):
            kind = np.int16 if sign else np.uint16
            volume = chance.integers(low, high, VOLUME.shape, endpoint=True).astype(kind)
            volume.flat[:2] = low, high
            tags = {"PixelRepresentation": sign, "BitsStored": stored, "HighBit": stored - 1}
            files = dicom_series(volume, AFFINE, **tags)
            for syntax in (JPEGLossless, JPEGLosslessSV1):
                for bits in {stored, 16}:

                    def encode(pixels: Any, bits: int = bits) -> bytes:
                        return jpeg_lossless(pixels, bits)

                    self.assert_same(self.read_files(compressed(files, encode, syntax)), volume, AFFINE)

    def test_damaged(self) -> None:
        """A frame that ends early, or is of another size or depth than its image, is refused; none is filled up."""

        def bad(edit: Any) -> Any:
            return lambda pixels: edit(jpeg_lossless(pixels))

        for encode, words in (
            (bad(lambda frame: frame[:-2]), "cannot be decoded"),
            (bad(lambda frame: frame[: len(frame) // 2]), "cannot be decoded"),
            (bad(lambda frame: frame[:2]), "its size is not that of the image"),
            (bad(lambda frame: frame.replace(b"\xff\xc3", b"\xff\xc9")), "cannot be decoded"),
            (lambda pixels: jpeg_lossless(pixels[:-1]), "its size is not that of the image"),
            (lambda pixels: jpeg_lossless(np.tile(pixels, (1, 2))), "its size is not that of the image"),
        ):
            reason = self.reason(compressed(series(), encode, JPEGLosslessSV1))
            self.assertRegex(reason, words)
            self.assertIn("image 1", reason)
        shallow = series(BitsAllocated=8, BitsStored=8, HighBit=7, PixelData=bytes(30))
        self.assertRegex(
            self.reason(compressed(shallow, lambda p: jpeg_lossless(p, 12), JPEGLossless)),
            "cannot be decoded",
        )

    def test_broken(self) -> None:
        """Frames with broken bytes are read or refused, and nothing else: the process lives, and takes no memory."""
        chance, outcomes = random.Random(7), set[Any]()
        image = series()[0]
        for _ in range(400):

            def encode(pixels: Any) -> bytes:
                frame = bytearray(jpeg_lossless(pixels))
                for _ in range(chance.randrange(1, 5)):
                    frame[chance.randrange(len(frame))] = chance.randrange(256)
                return bytes(frame)

            (broken,) = compressed([image], encode, JPEGLosslessSV1)
            dataset = pydicom.dcmread(io.BytesIO(broken))
            try:
                read_dicom_pixels.check_pixels(dataset, 1, "image 1")
                outcomes.add(read_dicom_pixels.decode(dataset, 1, "image 1").shape)
            except UnusableScanError:
                outcomes.add("refused")
        self.assertEqual(outcomes, {"refused", (1, 5, 6)})

    def reason(self, files: list[bytes]) -> str:
        """Return why files are refused."""
        return str(self.assertRaises(UnusableScanError, self.read_files, files))


class DecoderTests(SeriesTestCase):
    """Which decoder is asked."""

    def test_withoutIt(self) -> None:
        """Without the decoder such images are named as what they are, not as damaged."""
        self.patch(jpeg_plugin, "is_available", lambda _: False)
        for syntax, name in (
            (JPEGLossless, "JPEG Lossless"),
            (JPEGLosslessSV1, "JPEG Lossless"),
            (JPEGExtended12Bit, "JPEG Extended"),
        ):
            files = compressed(series(), jpeg_lossless, syntax)
            self.assert_files_refused(files, name, "not decoded here", "Explicit VR Little Endian")

    def test_noOther(self) -> None:
        """A decoder that happens to be installed beside ours is not asked, neither first nor after ours has failed."""
        asked: list[str] = []
        other: Any = ModuleType("other_decoder")
        other.is_available = lambda _: True
        other.decode = lambda _source, _runner: asked.append("asked")
        sys.modules["other_decoder"] = other
        self.addCleanup(sys.modules.pop, "other_decoder")
        for syntax in (JPEG2000Lossless, JPEGLosslessSV1):
            get_decoder(syntax).add_plugin("other", ("other_decoder", "decode"))
            self.addCleanup(get_decoder(syntax).remove_plugin, "other")
        files = dicom_series(VOLUME.astype(np.uint16), AFFINE, PixelRepresentation=0)
        self.assert_same(self.read_files(compressed(files, jpeg2000, JPEG2000Lossless)), VOLUME, AFFINE)
        cut = compressed(files, lambda pixels: jpeg2000(pixels)[:100], JPEG2000Lossless)
        self.assert_files_refused(cut, "the pixels of image 1 cannot be decoded")
        self.patch(jpeg_plugin, "is_available", lambda _: False)
        self.assert_files_refused(compressed(files, jpeg_lossless, JPEGLosslessSV1), "not decoded here")
        self.assertEqual(asked, [])
