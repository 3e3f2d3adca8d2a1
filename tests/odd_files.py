"""Builds scans that are stored in unusual ways, or wrongly, for tests of reading."""

import io
import tarfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import permutations, product
from typing import Any

import nibabel
import numpy as np
import pydicom
from PIL import Image as Picture
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from tests.builders import dicom_series, multi_frame, nifti_bytes, part10, small_affine, small_volume

VOLUME, AFFINE = small_volume(), small_affine()


def edited(volume: Any = VOLUME, affine: Any = AFFINE, version: int = 1, **fields: Any) -> bytes:
    """Return a file with header fields changed: ``name=value``, or ``name=(index, value)`` for one of several."""

    def edit(header: Any) -> None:
        for name, value in fields.items():
            if isinstance(value, tuple):
                header[name][value[0]] = value[1]
            else:
                header[name] = value

    return nifti_bytes(volume, affine, edit=edit, version=version)


def typed(kind: str) -> bytes:
    """Return a file of voxels of any numpy type that NIfTI has, in its byte order."""
    order = "<" if np.dtype(kind).byteorder in "<=|" else ">"
    header = nibabel.Nifti1Header(endianness=order)
    header.set_data_dtype(kind)
    header.set_data_shape(VOLUME.shape)
    header.set_sform(AFFINE, 1)
    header.set_qform(AFFINE, 1)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    return bytes(header.binaryblock) + bytes(4) + (VOLUME % 120).astype(kind).tobytes(order="F")


def stored_anyhow(volume: Any, affine: Any) -> Iterator[tuple[Any, Any]]:
    """Yield ``volume`` and its affine with the axes in all 48 orders and directions."""
    for order, flips in product(permutations(range(3)), product((False, True), repeat=3)):
        stored, moved = volume.transpose(order), affine[:, [*order, 3]].copy()
        for axis in (k for k in range(3) if flips[k]):
            moved[:3, 3] += moved[:3, axis] * (stored.shape[axis] - 1)
            moved[:3, axis] *= -1
            stored = np.flip(stored, axis)
        yield stored, moved


def oblique(affine: Any, degrees: float) -> Any:
    """Return ``affine`` turned about an axis between all three."""
    x, y, z = np.ones(3) / np.sqrt(3)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.radians(degrees)
    turn = np.eye(4)
    turn[:3, :3] = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return turn @ affine


def changed(
    files: Sequence[bytes], edit: Callable[[Dataset], None], syntax: str | None = None
) -> list[bytes]:
    """Return DICOM files after ``edit``, which may change anything; ``syntax``: the transfer syntax they then claim."""
    result = []
    for data in files:
        image = pydicom.dcmread(io.BytesIO(data))
        edit(image)
        result.append(part10(image, syntax or image.file_meta.TransferSyntaxUID))
    return result


def compressed(files: Sequence[bytes], encode: Callable[[Any], bytes], syntax: str) -> list[bytes]:
    """Return DICOM files whose frame is what ``encode`` makes of the pixels (rows, columns)."""

    def edit(image: Dataset) -> None:
        image.PixelData = encapsulate([encode(image.pixel_array)])
        image["PixelData"].VR = "OB"
        image["PixelData"].is_undefined_length = True

    return changed(files, edit, syntax)


def series(**tags: Any) -> list[bytes]:
    """Return the usual series with tags changed, as `dicom_series` takes them."""
    return dicom_series(VOLUME, AFFINE, **tags)


def enhanced(edit: Callable[[Dataset], None] = lambda _: None, affine: Any = AFFINE) -> list[bytes]:
    """Return the usual series as one multi-frame image, after ``edit``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return changed([multi_frame(dicom_series(VOLUME, affine))], edit)


def as_text(name: str, *values: str) -> Callable[[Dataset], None]:
    """Return an edit that makes an attribute text (VR LO), whatever it ought to be, in the image and its sequences."""

    def edit(image: Dataset) -> None:
        def write(item: Dataset, element: DataElement) -> None:
            if element.keyword == name:
                item[element.tag] = DataElement(element.tag, "LO", list(values))

        image.walk(write)

    return edit


def jpeg2000(pixels: Any) -> bytes:
    """Return an image as a lossless JPEG 2000 codestream."""
    out = io.BytesIO()
    Picture.fromarray(pixels.astype("u2")).save(out, "JPEG2000", irreversible=False, no_jp2=True)
    return out.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, **fields: Any) -> tarfile.TarInfo:
    """Return the header of an entry of a tar."""
    result = tarfile.TarInfo(name)
    result.type = kind
    for field, value in fields.items():
        setattr(result, field, value)
    return result


def tar_of(entries: Sequence[tuple[tarfile.TarInfo, bytes]], form: int = tarfile.GNU_FORMAT) -> bytes:
    """Return a tar of entries and their contents."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for header, content in entries:
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return out.getvalue()


def with_size(archive: bytes, number: int, field: bytes) -> bytes:
    """Return a tar whose entry ``number``, from 0, has other bytes (12) for its size, and a good check sum."""
    result = bytearray(archive)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        place = tar.getmembers()[number].offset
    result[place + 124 : place + 136] = field
    result[place + 148 : place + 156] = b" " * 8
    result[place + 148 : place + 156] = b"%06o\0 " % sum(result[place : place + 512])
    return bytes(result)
