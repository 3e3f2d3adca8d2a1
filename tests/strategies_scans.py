"""Hypothesis strategies for damaged files and strange scans."""

import gzip
import io
import math
import warnings
from collections.abc import Sequence
from typing import Any

import nibabel
import numpy as np
import pydicom
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.builders import dicom_tar, nifti_bytes, template_head
from tests.odd_files import AFFINE, VOLUME, as_text, changed, edited, enhanced, series

_EXTREME_BYTES = (0x00, 0x01, 0x7F, 0x80, 0xFF)
_EXTREMES = {
    "i": (0, 1, -1, 2, 7, 255, 348, 30000),
    "u": (0, 1, 2, 7, 255),
    "f": (0.0, 1.0, -1.0, 0.5, 1e-45, 1e-6, 1e6, 1e30, 3e38, -3e38, math.inf, -math.inf, math.nan),
}


@st.composite
def damaged(draw: st.DrawFn, content: bytes, places: Sequence[int] = (0,)) -> bytes:
    """Return ``content`` with up to five injuries: bytes changed, spans lost, doubled or filled, the end cut.

    Most of them are near one of ``places``, where the structure is.
    """
    result = bytearray(content)
    for _ in range(draw(st.integers(1, 5))):
        if not result:
            break
        near = draw(st.sampled_from(places)) + draw(st.integers(0, 400))
        at = min(near if draw(st.booleans()) else draw(st.integers(0, len(content))), len(result) - 1)
        end = at + draw(st.integers(1, 16) | st.integers(1, 2000))
        match draw(st.sampled_from(("change", "extreme", "lose", "double", "fill", "cut"))):
            case "change":
                result[at] ^= draw(st.integers(1, 255))
            case "extreme":
                result[at] = draw(st.sampled_from(_EXTREME_BYTES))
            case "lose":
                del result[at:end]
            case "double":
                result[at:at] = result[at:end]
            case "fill":
                result[at:end] = bytes([draw(st.sampled_from(_EXTREME_BYTES))]) * len(result[at:end])
            case _:
                del result[at:]
    return bytes(result)


@st.composite
def nifti_fields(draw: st.DrawFn, header: np.dtype[Any]) -> dict[str, Any]:
    """Return some fields of a NIfTI ``header`` with extreme values; ``(index, value)`` for one of several."""
    names = [name for name in header.names or () if header[name].base.kind in "iuf"]
    result: dict[str, Any] = {}
    for name in draw(st.lists(st.sampled_from(names), min_size=1, max_size=4, unique=True)):
        base = header[name].base
        values: list[Any] = list(_EXTREMES[base.kind])
        if base.kind in "iu":
            ends = np.iinfo(base)
            values = [ends.min, ends.max, *(min(value, int(ends.max)) for value in values)]
        value = draw(st.sampled_from(values))
        many = header[name].shape
        result[name] = (draw(st.integers(0, many[0] - 1)), value) if many else value
    return result


NIFTI = nifti_bytes(VOLUME, AFFINE)
HEADERS = {1: nibabel.Nifti1Header.template_dtype, 2: nibabel.Nifti2Header.template_dtype}

FILES = series()
ENHANCED = enhanced()
ARCHIVE = dicom_tar(FILES)
READ_TAGS = (
    *(
        "Modality",
        "SeriesInstanceUID",
        "Rows",
        "Columns",
        "BitsAllocated",
        "BitsStored",
        "HighBit",
    ),
    *(
        "PixelRepresentation",
        "PhotometricInterpretation",
        "SamplesPerPixel",
        "ImagePositionPatient",
        "PixelData",
    ),
    *("ImageOrientationPatient", "PixelSpacing", "ImageType", "EchoTime", "FrameOfReferenceUID"),
)
WORDS = ("", "0", "1", "-1", "16", "65535", "1e400", "nan", "abc", "1.2.840.10008.1.2.4.90", "\x00", "é" * 50)


def lengths(data: bytes) -> list[int]:
    """Return where the values of a DICOM file begin; the length stands in the two or four bytes before."""
    image = pydicom.dcmread(io.BytesIO(data))
    return [element.value_tell for element in image._dict.values() if hasattr(element, "value_tell")]


LENGTHS = lengths(FILES[0])


@st.composite
def nifti_files(draw: st.DrawFn) -> bytes:
    """Return a NIfTI file with extreme fields, or damaged, or both; packed or not, and damaged once more."""
    version = draw(st.sampled_from((1, 2)))
    content = NIFTI
    with warnings.catch_warnings():
        # numpy warns of what does not fit
        warnings.simplefilter("ignore")
        if draw(st.booleans()):
            content = edited(version=version, **draw(nifti_fields(HEADERS[version])))
    if draw(st.booleans()):
        content = draw(damaged(content))
    if draw(st.booleans()):
        content = gzip.compress(content, draw(st.sampled_from((0, 1, 9))), mtime=0)
        if draw(st.booleans()):
            content = draw(damaged(content))
    return content


@st.composite
def archives(draw: st.DrawFn) -> bytes:
    """Return a tar of a series, classic or enhanced, with odd attributes, lengths and bytes, or itself damaged."""
    files = list(ENHANCED if draw(st.booleans()) else FILES)
    at = draw(st.integers(0, len(files) - 1))
    match draw(st.sampled_from(("text", "length", "bytes", "archive"))):
        case "text":
            name = draw(st.sampled_from(READ_TAGS))
            words = draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=6))
            files[at : at + 1] = changed(files[at : at + 1], as_text(name, *words))
        case "length":
            data, place = bytearray(files[at]), draw(st.sampled_from(LENGTHS))
            size = draw(st.sampled_from((2, 4)))
            data[place - size : place] = draw(st.binary(min_size=size, max_size=size))
            files[at] = bytes(data)
        case "bytes":
            files[at] = draw(damaged(files[at], (128, 300, *LENGTHS[::6])))
        case _:
            return draw(damaged(ARCHIVE, (0, 512 + 128, 2048)))
    return dicom_tar(files)


HEAD_KINDS = ("head", "noisy head", "head times noise", "inverted head", "few values", "head of one tissue")
SCAN_KINDS = ("blocks", "noise", "halves", "spike", "range", "ball", "ramp", *HEAD_KINDS)


def coarse_head() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the average brain at 4 mm, values 0..972, and its affine."""
    head, affine = template_head()
    return head[::2, ::2, ::2].astype(np.float64), affine @ np.diag([2.0, 2.0, 2.0, 1.0])


@st.composite
def strange_scans(draw: st.DrawFn) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return a scan that passes for one by its grid of 4 mm, whatever is in it, and its affine."""
    data = strange_content(
        draw(st.sampled_from(SCAN_KINDS)), draw(st.integers(0, 2**32 - 1)), draw(st.integers(0, 2))
    )
    data *= draw(st.sampled_from((1.0, 1.0, -1.0))) * 10.0 ** draw(st.integers(-25, 25))
    data += draw(st.sampled_from((0.0, 0.0, 0.0, 0.0, 1.0, -1.0, 1000.0))) * np.abs(data).max()
    if draw(st.integers(0, 4)) == 4:
        data[tuple(draw(st.integers(0, n - 1)) for n in data.shape)] = draw(
            st.sampled_from((1e29, -1e29, 0.0))
        )
    box = tuple(slice(0, draw(st.integers(24, n)) if draw(st.booleans()) else n) for n in data.shape)
    grid = coarse_head()[1]
    for axis in range(3):
        if draw(st.booleans()):
            grid[:3, axis] *= -1
    return data[box].astype(np.float32), grid


def strange_content(kind: str, seed: int = 0, axis: int = 0) -> NDArray[np.float64]:
    """Return the values of one of `SCAN_KINDS` on the grid of `coarse_head`."""
    rng, head = np.random.default_rng(seed), coarse_head()[0]
    shape, inside = head.shape, head > 0
    place = np.indices(shape) - (np.array(shape).reshape(3, 1, 1, 1) - 1) / 2
    cells = rng.uniform(0, 1000, [-(-n // 6) for n in shape])
    made = {
        "blocks": np.kron(cells, np.ones((6, 6, 6)))[tuple(slice(n) for n in shape)],
        "noise": rng.normal(0, 100, shape),
        "halves": (place[axis] > 0) * 1000.0 + rng.normal(0, 1, shape),
        "spike": rng.uniform(0, 1, shape) ** 200 * 1000,
        "range": 10.0 ** rng.uniform(-28, 4, shape),
        "ball": (np.sqrt((place**2).sum(0)) < 19) * 1000.0 + rng.uniform(0, 20, shape),
        "ramp": place[axis] + rng.uniform(0, 1e-3, shape),
        "head": head,
        "noisy head": head + rng.normal(0, 200, shape),
        "head times noise": head * rng.uniform(0, 3, shape),
        "inverted head": np.where(inside, head.max() - head, 0) + rng.uniform(0, 1, shape),
        "few values": np.round(head / 55) * 55,
        "head of one tissue": inside * 500.0 + rng.uniform(0, 5, shape),
    }
    return np.array(made[kind], np.float64)


MASK_KINDS = ("ball", "slab", "line", "speckle", "all", "blobs")


@st.composite
def strange_masks(draw: st.DrawFn, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return what no skull strip should ever find."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    place = np.indices(shape)
    centre = np.array([draw(st.integers(0, n - 1)) for n in shape]).reshape(3, 1, 1, 1)
    axis, size = draw(st.integers(0, 2)), draw(st.integers(1, 25))
    away = np.abs(place - centre)
    other = np.abs(place - np.roll(centre, 1, 0) % np.array(shape).reshape(3, 1, 1, 1))
    made = {
        "ball": (away**2).sum(0) <= size**2,
        "slab": away[axis] < size,
        "line": np.delete(away, axis, 0).max(0) < 1 + size // 8,
        "speckle": rng.uniform(0, 1, shape) < size / 50,
        "all": np.ones(shape, bool),
        "blobs": ((away**2).sum(0) <= size**2) | ((other**2).sum(0) <= size**2),
    }
    return np.asarray(made[draw(st.sampled_from(MASK_KINDS))], bool)
