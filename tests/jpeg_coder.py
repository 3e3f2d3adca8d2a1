"""Writes JPEG Lossless (ISO/IEC 10918-1 annex H), first-order prediction, for tests: small, and nobody else's code."""

from collections.abc import Iterator
from typing import Any

import numpy as np

_CATEGORIES = 17
"""Lengths of a difference, 0 to 16 bits; all have codes of `_CODE` bits here."""

_CODE = 5


def jpeg_lossless(pixels: Any, bits: int = 16) -> bytes:
    """Return an image of grey values (rows, columns), of which the lowest ``bits`` are coded."""
    values = pixels.astype(np.int64) & ((1 << bits) - 1)
    rows, columns = values.shape
    frame = bytes([bits, *divmod(rows, 256), *divmod(columns, 256), 1, 1, 0x11, 0])
    table = bytes([0, *(0,) * (_CODE - 1), _CATEGORIES, *(0,) * (16 - _CODE), *range(_CATEGORIES)])
    scan = bytes([1, 1, 0, 1, 0, 0])
    parts = ((0xC3, frame), (0xC4, table), (0xDA, scan))
    head = b"".join(bytes([0xFF, marker, *divmod(len(part) + 2, 256)]) + part for marker, part in parts)
    return b"\xff\xd8" + head + _packed("".join(_codes(values, bits))) + b"\xff\xd9"


def _codes(values: Any, bits: int) -> Iterator[str]:
    """Yield the code of each difference from its neighbour on the left; the first ones of rows, from that above."""
    guess = np.empty_like(values)
    guess[:, 1:] = values[:, :-1]
    guess[1:, 0] = values[:-1, 0]
    guess[0, 0] = 1 << (bits - 1)
    for difference in ((values - guess + 32767) % 65536 - 32767).ravel().tolist():
        size = abs(difference).bit_length()
        yield f"{size:0{_CODE}b}"
        if 0 < size < 16:  # of 32768 there is but one
            yield f"{difference if difference > 0 else difference + (1 << size) - 1:0{size}b}"


def _packed(code: str) -> bytes:
    whole = code + "1" * (-len(code) % 8)
    return int(whole, 2).to_bytes(len(whole) // 8).replace(b"\xff", b"\xff\x00")
