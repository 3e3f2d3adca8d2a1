"""Decodes JPEG Lossless and JPEG Extended for pydicom, by libjpeg-turbo; only with ``fr-twisted[jpeg]``.

Of the decoders with a licence that Fr can use, it is the one that survives damaged frames: others end the process.
"""

from importlib.util import find_spec
from typing import Any

from numpy.typing import NDArray
from pydicom.pixels.decoders.base import DecodeRunner, get_decoder
from pydicom.uid import JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1

LABEL = "imagecodecs"
"""The name of this decoder, and of the package that it needs."""

SYNTAXES = (JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1)

_END = b"\xff\xd9"
"""End of image (ISO/IEC 10918-1 B.1.1.3)."""


def is_available(uid: str) -> bool:
    """Return whether this decoder can be used for a transfer syntax."""
    return uid in SYNTAXES and find_spec(LABEL) is not None


def register() -> None:
    """Make this decoder known to pydicom, once."""
    for syntax in SYNTAXES:
        decoder = get_decoder(syntax)
        if is_available(syntax) and LABEL not in decoder.available_plugins:
            decoder.add_plugin(LABEL, (__name__, "decode_frame"))


def decode_frame(source: bytes, runner: DecodeRunner) -> bytes:
    """Return the pixels of one frame, as pydicom asks for them.

    Raises:
        ValueError: it is cut short, or is no image of grey values of the size and depth that its header says.
    """
    # Of a frame that ends early libjpeg-turbo returns what there is, and zeros for the rest.
    if not source.rstrip(b"\0").endswith(_END):
        raise ValueError("it is cut short")
    import imagecodecs

    pixels: NDArray[Any] = imagecodecs.jpeg8_decode(source)
    allocated = runner.bits_allocated
    if pixels.shape != (runner.rows, runner.columns):
        raise ValueError("its size is not that of the image")
    if pixels.dtype.itemsize * 8 > allocated:
        raise ValueError("its depth is not that of the image")
    # JPEG knows no sign: pydicom makes it of the bits that are stored, as it does for all codings.
    return pixels.astype(f"<u{allocated // 8}").tobytes()
