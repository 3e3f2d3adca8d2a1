"""The pixels of one DICOM image: decoded within limits, and what turns them into values (PS3.3 C.7.6.3, C.11.1)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    UID,
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLELossless,
)

from fr_twisted.brain.analysis import jpeg_plugin
from fr_twisted.brain.analysis.volume import Mask
from fr_twisted.brain.interfaces import UnusableScanError

EXPORT = "export the series again"
UNCOMPRESSED = "send it uncompressed (Explicit VR Little Endian)"

MAX_EXPANSION = 2
"""Times the size of its pixels that compressed data may have; run lengths expand up to 128 times (PS3.5 annex G)."""

MAX_OVERHEAD = 64 * 1024
"""Bytes of headers of one compressed frame."""

_J2K_SIZE = b"\xff\x4f\xff\x51"
"""Start of codestream and the marker of its size (ISO/IEC 15444-1 A.4.1, A.5.1)."""

_NO_FRAME = {0xC4, 0xC8, 0xCC}
"""Markers among 0xC0 to 0xCF that start no frame (ISO/IEC 10918-1 table B.1)."""

_JPEG_LS_FRAME = 0xF7
"""ISO/IEC 14495-1 C.2.2."""

_DECODERS: Mapping[str, str] = {
    RLELossless: "pydicom",
    JPEGBaseline8Bit: "pillow",
    **dict.fromkeys(JPEGLSTransferSyntaxes, "pyjpegls"),
    **dict.fromkeys(JPEG2000TransferSyntaxes, "pillow"),
}
"""pydicom's decoders by name: it would rather take others that happen to be installed, and some of those do not
survive damaged frames."""

jpeg_plugin.register()


def is_given(image: Dataset, name: str, where: str) -> bool:
    """Return whether an attribute is there and not empty; ``where`` names the image in the reason."""
    try:
        return name in image and not image[name].is_empty
    except Exception as error:  # pydicom raises whatever a broken value leads it to
        raise _not_valid(name, where) from error


def number_of(image: Dataset, name: str, where: str, least: int = 0) -> int:
    """Return an attribute that holds one whole number, at least ``least``."""
    try:
        value = float(image[name].value)
        if value == int(value) >= least:
            return int(value)
    except Exception as error:
        raise _not_valid(name, where) from error
    raise _not_valid(name, where)


def numbers_of(image: Dataset, name: str, where: str, count: int) -> tuple[float, ...]:
    """Return an attribute that holds ``count`` finite numbers."""
    try:
        values = image[name].value
        numbers = tuple(float(value) for value in ([values] if count == 1 else values))
    except Exception as error:
        raise _not_valid(name, where) from error
    if len(numbers) != count or not all(map(isfinite, numbers)):
        raise _not_valid(name, where)
    return numbers


def _not_valid(name: str, where: str) -> UnusableScanError:
    return UnusableScanError(f"{where} has no valid {name}; {EXPORT}")


@dataclass(frozen=True)
class Scale:
    """From stored to measured values: slope and intercept (PS3.3 C.11.1.1.2)."""

    slope: float = 1.0
    intercept: float = 0.0


def scale_of(item: Dataset, where: str) -> Scale:
    """Return the scale of an image or functional group; that of 1 where there is none or an empty one."""
    slope, intercept = (
        numbers_of(item, name, where, 1)[0] if is_given(item, name, where) else usual
        for name, usual in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0))
    )
    if slope == 0 or max(abs(slope), abs(intercept)) > 1e20:
        raise _not_valid("RescaleSlope", where)
    return Scale(slope, intercept)


def check_pixels(image: Dataset, frames: int, where: str) -> None:
    """Refuse pixels that cannot be decoded within the limits, before they are.

    Raises:
        UnusableScanError: with what is wrong, and what to do.
    """
    samples = number_of(image, "SamplesPerPixel", where) if is_given(image, "SamplesPerPixel", where) else 1
    if samples != 1 or image.PhotometricInterpretation not in ("MONOCHROME1", "MONOCHROME2"):
        raise UnusableScanError(f"{where} is in colour; send the original MR images")
    if "ModalityLUTSequence" in image:
        raise UnusableScanError(
            f"{where} has a table for its values (Modality LUT); send the original MR images"
        )
    allocated = number_of(image, "BitsAllocated", where)
    stored = number_of(image, "BitsStored", where)
    if number_of(image, "PixelRepresentation", where) > 1:
        raise _not_valid("PixelRepresentation", where)
    if allocated not in (8, 16, 32) or not 1 <= stored <= allocated:
        raise UnusableScanError(
            f"{where} has {stored} bits stored in {allocated} a pixel; images of 8, 16 or 32 can be read; {EXPORT}"
        )
    if is_given(image, "HighBit", where) and number_of(image, "HighBit", where) != stored - 1:
        # PS3.5 8.1.1: High Bit shall be one less than Bits Stored
        raise UnusableScanError(
            f"{where} has pixels in the upper bits (High Bit), as only old formats do; {EXPORT}"
        )
    _check_amount(image, frames, allocated // 8, where)


def _check_amount(image: Dataset, frames: int, depth: int, where: str) -> None:
    syntax = image.file_meta.get("TransferSyntaxUID") if "file_meta" in dir(image) else None
    if not isinstance(syntax, UID):
        raise UnusableScanError(f"{where} does not say how it is coded (TransferSyntaxUID); {EXPORT}")
    pixels = image.PixelData
    frame = image.Rows * image.Columns * depth
    if not isinstance(pixels, bytes):
        raise _not_valid("PixelData", where)
    if syntax.is_transfer_syntax and not syntax.is_encapsulated:
        if len(pixels) < frames * frame:
            raise UnusableScanError(
                f"{where} is cut short: {len(pixels)} of {frames * frame} bytes of pixels are there; copy or {EXPORT}"
            )
        return
    if decoder_of(syntax, image.BitsStored) is None:
        name = syntax.name if syntax.is_valid and syntax.name != syntax else "in an unknown way"
        raise UnusableScanError(f"{where} is compressed ({name}), which is not decoded here; {UNCOMPRESSED}")
    if len(pixels) > MAX_EXPANSION * frames * frame + frames * MAX_OVERHEAD:
        raise _damaged(where, "there is too much of it")
    if syntax in _JPEG_FAMILY:
        _check_coded_sizes(image, frames, where)


_JPEG_FAMILY = {*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes, *JPEG2000TransferSyntaxes}


def decoder_of(syntax: UID, stored: int) -> str | None:
    """Return the name of the decoder for compressed pixels of so many bits; None: there is none."""
    name = _DECODERS.get(syntax)
    if jpeg_plugin.is_available(syntax):
        name = jpeg_plugin.LABEL
    elif syntax == JPEGExtended12Bit and stored == 8:
        name = "pillow"
    return name if name is not None and name in get_decoder(syntax).available_plugins else None


def _check_coded_sizes(image: Dataset, frames: int, where: str) -> None:
    """Refuse compressed frames that say they are larger than the image: decoders take memory for what they say."""
    try:
        coded = [coded_size(frame) for frame in generate_frames(image.PixelData, number_of_frames=frames)]
    except MemoryError:
        raise
    except Exception as error:
        raise _damaged(where, type(error).__name__) from error
    if set(coded) != {(image.Rows, image.Columns)}:
        raise _damaged(where, "its size is not that of the image")


def coded_size(frame: bytes) -> tuple[int, int] | None:
    """Return the rows and columns that a JPEG, JPEG-LS or JPEG 2000 frame says it has; None if it does not say."""
    start = frame.find(_J2K_SIZE, 0, 256)
    if start >= 0:
        field = [int.from_bytes(frame[start + at : start + at + 4]) for at in (8, 12, 16, 20)]
        return field[1] - field[3], field[0] - field[2]
    place = 2
    while place + 9 <= len(frame) and frame[place] == 0xFF:
        marker = frame[place + 1]
        if marker == _JPEG_LS_FRAME or (marker & 0xF0 == 0xC0 and marker not in _NO_FRAME):
            return int.from_bytes(frame[place + 5 : place + 7]), int.from_bytes(frame[place + 7 : place + 9])
        # fill bytes before a marker, or a segment with its length
        place += 1 if marker == 0xFF else 2 + int.from_bytes(frame[place + 2 : place + 4])
    return None


def decode(image: Dataset, frames: int, where: str) -> NDArray[Any]:
    """Return the stored values (frames, rows, columns) of an image that `check_pixels` let pass."""
    try:
        syntax = image.file_meta.TransferSyntaxUID
        if syntax.is_encapsulated:
            image.pixel_array_options(decoding_plugin=decoder_of(syntax, image.BitsStored) or "")
        pixels: NDArray[Any] = image.pixel_array
    except MemoryError:
        raise
    except Exception as error:
        raise _damaged(where, type(error).__name__) from error
    if pixels.size != frames * image.Rows * image.Columns:
        raise _damaged(where, "its size is not that of the image")
    return pixels.reshape(frames, image.Rows, image.Columns)


def _damaged(where: str, what: str) -> UnusableScanError:
    return UnusableScanError(
        f"the pixels of {where} cannot be decoded ({what}): it is damaged; copy or {EXPORT}"
    )


def padding_of(image: Dataset, where: str) -> tuple[float, float] | None:
    """Return the lowest and highest stored value that marks pixels without a measurement (PS3.3 C.7.5.1.1.2)."""
    if not is_given(image, "PixelPaddingValue", where):
        return None
    first = numbers_of(image, "PixelPaddingValue", where, 1)[0]
    last = first
    if is_given(image, "PixelPaddingRangeLimit", where):
        last = numbers_of(image, "PixelPaddingRangeLimit", where, 1)[0]
    return min(first, last), max(first, last)


def padded(pixels: NDArray[Any], padding: tuple[float, float] | None) -> Mask | None:
    """Return where ``pixels`` are padding; None for nowhere."""
    if padding is None:
        return None
    found = (pixels >= padding[0]) & (pixels <= padding[1])
    return found if found.any() else None


def is_inverted(image: Dataset) -> bool:
    """Return whether low values are bright (PS3.3 C.7.6.3.1.2)."""
    return bool(image.PhotometricInterpretation == "MONOCHROME1")


def words_of(image: Dataset, name: str) -> Sequence[str]:
    """Return the values of a text attribute; none where there is none that can be read."""
    try:
        value = image.get(name)
    except Exception:
        return ()
    if value is None or value == "":
        return ()
    return [str(part) for part in value] if not isinstance(value, (str, float, int)) else [str(value)]
