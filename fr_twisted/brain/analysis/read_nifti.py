"""Reads a NIfTI file: one 3-D image with a place in the patient."""

import gzip
import zlib
from math import isfinite
from typing import IO, Any, cast

import nibabel
import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from fr_twisted.brain.analysis.check import MAX_SIDE, MAX_VOXELS
from fr_twisted.brain.analysis.volume import Affine, Volume
from fr_twisted.brain.interfaces import UnusableScanError

MAX_OFFSET = 64 * 1024 * 1024
"""Bytes of header extensions before the first voxel."""

MAX_REST = 1024 * 1024
"""Bytes after the last voxel: more of them, and the header does not tell what the file holds."""

PART = 16 * 1024 * 1024
"""Bytes read at a time."""

MOST_TURNED = 60.0
"""Degrees between the orientations of sform and qform; mirrored or turned further, they do not tell left from right."""

LARGEST = 1e30
"""Of scaled values: beyond, single precision comes to its end in later steps."""

NO_INTENSITIES = {*range(2, 25), *range(1002, 1011), *range(2002, 2019)}
"""Intent codes of statistics; of labels, matrices, vectors and points; of colours, shapes and fields (nifti1.h)."""

UNIT_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
"""Millimetres in NIfTI's space unit codes: unknown (taken as mm), metre, millimetre, micrometre."""

Header = nibabel.Nifti1Header


def read_nifti(stream: IO[bytes]) -> Volume:
    """Return the image of a ``.nii`` or ``.nii.gz`` stream, values scaled as its header says.

    The header is checked before any voxel is read or decompressed, and no more is read than it declares.

    Raises:
        UnusableScanError: not NIfTI, cut short, too large, not 3-D, not numbers, or without orientation.
    """
    packed = stream.read(2) == b"\x1f\x8b"
    stream.seek(0)
    content = cast(IO[bytes], gzip.GzipFile(fileobj=stream)) if packed else stream
    try:
        header = read_header(content)
        shape = image_shape(header)
        check_meaning(header)
        affine = patient_affine(header)
        values = _values(content, header, shape)
        _check_end(content)
        return Volume(values, affine)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UnusableScanError(
            "the compressed file is cut short or damaged; copy or export it again"
        ) from error


def read_header(content: IO[bytes]) -> Header:
    """Return the header at the start of ``content``; reads 540 bytes at most."""
    first = content.read(4)
    if len(first) < 4:
        raise UnusableScanError("the file is empty; export the series again")
    kinds = {348: nibabel.Nifti1Header, 540: nibabel.Nifti2Header}
    little, big = int.from_bytes(first, "little"), int.from_bytes(first, "big")
    kind = kinds.get(little) or kinds.get(big)
    if kind is None:
        raise UnusableScanError("the file is not NIfTI; send .nii, .nii.gz or a DICOM series")
    block = first + content.read(kind.template_dtype.itemsize - 4)
    if len(block) < kind.template_dtype.itemsize:
        raise UnusableScanError("the file ends inside its header; copy or export it again")
    header = kind(block, "<" if little in kinds else ">", check=False)
    if bytes(header["magic"])[:2] != b"n+":
        raise UnusableScanError(
            "the file is not single-file NIfTI (an Analyze header or .hdr/.img pair); convert it to .nii"
        )
    return header


def image_shape(header: Header) -> tuple[int, int, int]:
    """Return the shape of the one 3-D image that ``header`` declares."""
    count = int(header["dim"][0])
    shape = [int(n) for n in header["dim"][1 : 1 + max(0, min(count, 7))]]
    if not 1 <= count <= 7 or min(shape) < 1:
        raise UnusableScanError("the header declares an impossible shape; export the series again")
    if len(shape) < 3 or any(n > 1 for n in shape[3:]):
        more = f"{len(shape)}-D with shape {' x '.join(map(str, shape))}"
        raise UnusableScanError(f"the image is {more}; one 3-D image is needed: send one time point or echo")
    voxels = shape[0] * shape[1] * shape[2]
    if voxels > MAX_VOXELS or max(shape) > MAX_SIDE:
        raise UnusableScanError(
            f"the header declares {' x '.join(map(str, shape[:3]))} voxels, over the limits of {MAX_SIDE} along a side"
            f" and {MAX_VOXELS} in all; send a scan of about 1 mm"
        )
    return shape[0], shape[1], shape[2]


def check_meaning(header: Header) -> None:
    """Refuse an image that says itself that its values are no intensities."""
    intent = int(header["intent_code"])
    if intent in NO_INTENSITIES:
        raise UnusableScanError(
            f"the header says that the values are labels, statistics or vectors (intent code {intent}), no intensities;"
            " send the T1-weighted scan itself"
        )


def patient_affine(header: Header) -> Affine:
    """Return the map from voxel index to patient millimetres.

    The sform is preferred to the qform, as NIfTI-1 advises, unless its voxel sizes are not those of ``pixdim``:
    then it leads to a template's space, where volumes are not the patient's.
    """
    unit = UNIT_MM.get(int(header["xyzt_units"]) & 7, 1.0)
    pixdim = np.abs(np.asarray(header["pixdim"][1:4], np.float64))
    if not (pixdim > 0).all() or not np.isfinite(pixdim).all():
        raise UnusableScanError(
            f"the header's voxel size (pixdim) is not valid, {_numbers(pixdim)}; convert the DICOM series again"
        )
    found = _orientations(header)
    if not found:
        raise UnusableScanError(
            "the header has no orientation (sform and qform codes are 0), so left and right cannot be told;"
            " convert the DICOM series again with dcm2niix"
        )
    sizes = [np.linalg.norm(affine[:3, :3], axis=0) for affine in found]
    pairs = zip(found, sizes, strict=True)
    good = [affine for affine, size in pairs if np.all(np.abs(size - pixdim) <= 0.01 * pixdim)]
    if not good:
        raise UnusableScanError(
            f"the header gives two voxel sizes, pixdim {_numbers(pixdim)} and sform or qform {_numbers(sizes[0])}: it"
            " was resampled or changed by hand; convert the DICOM series again"
        )
    checked = [_checked(affine, unit) for affine in good]
    _check_agreement(checked)
    return checked[0]


def _orientations(header: Header) -> list[Affine]:
    """Return what the sform and the qform say, those that have a code and are numbers.

    Raises:
        UnusableScanError: there are codes, but no numbers.
    """
    found = []
    if int(header["sform_code"]) > 0:
        found.append(np.asarray(header.get_sform(), np.float64))
    if int(header["qform_code"]) > 0:
        # nifti1.h, method 2: a negative pixdim[0] reverses the third axis, and 0, which should not occur, means 1;
        # other negative lengths are not allowed: some programs mean a flip by them, some nothing
        plain = header.copy()
        plain["pixdim"][0] = -1 if header["pixdim"][0] < 0 else 1
        try:
            found.append(np.asarray(plain.get_qform(), np.float64))
        except (HeaderDataError, ValueError, np.linalg.LinAlgError):
            found.append(np.full((4, 4), np.nan))
    valid = [affine for affine in found if np.isfinite(affine).all() and affine[:3, :3].any(0).all()]
    if found and not valid:
        raise UnusableScanError(
            "the header's orientation (sform, qform) is not valid; export the series again"
        )
    return valid


def _check_agreement(affines: list[Affine]) -> None:
    """Refuse two orientations of which at least one must be wrong."""
    axes = [affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0) for affine in affines]
    # of a rotation the trace is 1 + 2 cos(angle); of a reflection it is 1 at most
    if np.trace(axes[0] @ axes[-1].T) < 1 + 2 * np.cos(np.radians(MOST_TURNED)):
        raise UnusableScanError(
            "the header gives two orientations, sform and qform, that are turned or mirrored against each other, so"
            " left and right cannot be told; convert the DICOM series again with dcm2niix"
        )


def _checked(affine: Affine, unit: float) -> Affine:
    affine = np.vstack([affine[:3] * unit, [0.0, 0.0, 0.0, 1.0]])
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.all(np.isfinite(affine)) or np.any(sizes < 1e-6):
        raise UnusableScanError("the header's orientation is not valid; export the series again")
    axes = affine[:3, :3] / sizes
    if np.abs(axes.T @ axes - np.eye(3)).max() > 0.02:
        raise UnusableScanError(
            "the header's axes are not at right angles (a sheared image, as after gantry tilt or affine registration);"
            " send the scan as it was acquired"
        )
    return affine


def _numbers(values: NDArray[np.float64]) -> str:
    return " x ".join(f"{value:.3g}" for value in values)


def _read(content: IO[bytes], size: int) -> bytearray:
    """Return up to ``size`` bytes; takes no more memory than there are, whatever a header declares."""
    raw = bytearray()
    while len(raw) < size and (part := content.read(min(PART, size - len(raw)))):
        raw += part
    return raw


def _values(content: IO[bytes], header: Header, shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """Return the voxels after ``vox_offset``, scaled by slope and intercept where the header has them."""
    dtype = voxel_type(header)
    slope, intercept = scaling(header, dtype)
    start = float(header["vox_offset"])
    # the least offset: nifti1.h, vox_offset; 4 bytes after the header say whether extensions follow
    if not header.sizeof_hdr + 4 <= start <= MAX_OFFSET:
        raise UnusableScanError(
            "the header's offset of the first voxel (vox_offset) is not valid; export the series again"
        )
    content.seek(int(start))
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    raw = _read(content, size)
    if len(raw) < size:
        raise UnusableScanError(
            f"the file is cut short: its header declares {size} bytes of voxels, {len(raw)} are there;"
            " copy or export it again"
        )
    stored = np.frombuffer(raw, dtype).reshape(shape, order="F")
    values = np.empty(shape, np.float32, order="F")
    for k in range(shape[2]):
        # in double precision, slice by slice: all at once would take eight bytes a voxel
        values[..., k] = stored[..., k] * np.float64(slope) + intercept
    return values


def voxel_type(header: Header) -> np.dtype[Any]:
    """Return the type of the voxels as stored."""
    try:
        dtype: np.dtype[Any] = header.get_data_dtype()
    except (HeaderDataError, KeyError) as error:
        raise UnusableScanError("the header's data type is not known; export the series again") from error
    if dtype.kind in "iuf" and dtype.itemsize <= 8:
        return dtype
    label = nibabel.nifti1.data_type_codes.label[int(header["datatype"])]
    raise UnusableScanError(
        f"voxels of type {label} (colour, complex or symbols) are no T1 intensities; send the T1-weighted scan as"
        " 16-bit integers or 32-bit floats"
    )


def scaling(header: Header, dtype: np.dtype[Any]) -> tuple[float, float]:
    """Return slope and intercept; 1 and 0 where the header has none: a slope of 0, or not a number."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or slope != slope:
        return 1.0, 0.0
    most = float(np.iinfo(dtype).max) if dtype.kind in "iu" else 1.0
    if not (isfinite(intercept) and abs(slope) * most + abs(intercept) < LARGEST):
        raise UnusableScanError(
            "the header's intensity scaling (scl_slope, scl_inter) is not valid; export the series again"
        )
    return slope, intercept


def _check_end(content: IO[bytes]) -> None:
    """Refuse a file that goes on long after its voxels; the check sum of a packed one is looked at on the way."""
    if len(_read(content, MAX_REST + 1)) > MAX_REST:
        raise UnusableScanError(
            "the file goes on after the voxels that its header declares: the header is damaged, or there are several"
            " images; send one 3-D image"
        )
