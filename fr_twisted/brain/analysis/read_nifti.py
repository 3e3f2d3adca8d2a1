"""Reads a NIfTI file: one 3-D image with a place in the patient."""

import gzip
import zlib
from typing import IO, Any, cast

import nibabel
import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from fr_twisted.brain.analysis.volume import Affine, Volume
from fr_twisted.brain.interfaces import UnusableScanError

MAX_VOXELS = 100_000_000
"""Of one scan: 0.5 mm voxels over 256 x 256 x 190 mm."""

MAX_OFFSET = 64 * 1024 * 1024
"""Bytes of header extensions before the first voxel."""

PART = 16 * 1024 * 1024
"""Bytes read at a time."""

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
        affine = patient_affine(header)
        return Volume(_values(content, header, shape), affine)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UnusableScanError(
            "the compressed file is cut short or damaged; copy or export it again"
        ) from error


def read_header(content: IO[bytes]) -> Header:
    """Return the header at the start of ``content``; reads 540 bytes at most."""
    first = content.read(4)
    if len(first) < 4:
        raise UnusableScanError("the file is empty; export the series again")
    sizes = {int.from_bytes(first, order) for order in ("little", "big")}
    if not sizes & {348, 540}:
        raise UnusableScanError("the file is not NIfTI; send .nii, .nii.gz or a DICOM series")
    kind = nibabel.Nifti2Header if 540 in sizes else nibabel.Nifti1Header
    block = first + content.read(kind.template_dtype.itemsize - 4)
    if len(block) < kind.template_dtype.itemsize:
        raise UnusableScanError("the file ends inside its header; copy or export it again")
    header = kind(block, check=False)
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
    if voxels > MAX_VOXELS:
        raise UnusableScanError(
            f"the header declares {voxels} voxels, over the limit of {MAX_VOXELS}; send a scan of about 1 mm"
        )
    return shape[0], shape[1], shape[2]


def patient_affine(header: Header) -> Affine:
    """Return the map from voxel index to patient millimetres.

    The sform is preferred to the qform, as NIfTI-1 advises, unless its voxel sizes are not those of ``pixdim``:
    then it leads to a template's space, where volumes are not the patient's.
    """
    unit = UNIT_MM.get(int(header["xyzt_units"]) & 7, 1.0)
    pixdim = np.abs(np.asarray(header["pixdim"][1:4], np.float64))
    candidates = []
    if int(header["sform_code"]) > 0:
        candidates.append(np.asarray(header.get_sform(), np.float64))
    if int(header["qform_code"]) > 0:
        try:
            candidates.append(np.asarray(header.get_qform(), np.float64))
        except (HeaderDataError, ValueError, np.linalg.LinAlgError) as error:
            raise UnusableScanError(
                "the header's orientation (qform) is not valid; export the series again"
            ) from error
    if not candidates:
        raise UnusableScanError(
            "the header has no orientation (sform and qform codes are 0), so left and right cannot be told;"
            " convert the DICOM series again with dcm2niix"
        )
    sizes = [np.linalg.norm(affine[:3, :3], axis=0) for affine in candidates]
    for affine, size in zip(candidates, sizes, strict=True):
        if np.all(np.abs(size - pixdim) <= 0.01 * pixdim + 1e-4):
            return _checked(affine, unit)
    raise UnusableScanError(
        f"the header gives two voxel sizes, pixdim {_numbers(pixdim)} and sform or qform {_numbers(sizes[0])}: it was"
        " resampled or changed by hand; convert the DICOM series again"
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
    try:
        dtype: np.dtype[Any] = header.get_data_dtype()
    except (HeaderDataError, KeyError) as error:
        raise UnusableScanError("the header's data type is not known; export the series again") from error
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise UnusableScanError(f"voxels of type {dtype} (colour, complex or symbols) are no T1 intensities")
    skip = max(int(header["vox_offset"]) if np.isfinite(header["vox_offset"]) else -1, header.sizeof_hdr)
    if skip > MAX_OFFSET:
        raise UnusableScanError("the header's voxel offset is not valid; export the series again")
    content.seek(skip)
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    raw = _read(content, size)
    if len(raw) < size:
        raise UnusableScanError(
            f"the file is cut short: its header declares {size} bytes of voxels, {len(raw)} are there;"
            " copy or export it again"
        )
    values = np.frombuffer(raw, dtype).reshape(shape, order="F").astype(np.float32)
    slope, intercept = (float(header[name]) for name in ("scl_slope", "scl_inter"))
    if np.isfinite(slope) and slope not in (0.0, 1.0):
        values *= np.float32(slope)
    if np.isfinite(slope) and slope != 0 and np.isfinite(intercept) and intercept:
        values += np.float32(intercept)
    return values
