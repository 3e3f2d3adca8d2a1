"""The report bundle: a few named files in one deterministic tar, as it travels from BRAIN to the PACS."""

import io
import re
import tarfile
from collections.abc import Mapping

MAX_BUNDLE = 64 * 1024 * 1024
"""Bytes; a bundle is a page, some pictures and JSON, commonly about 1 MB."""

MAX_FILES = 64

REPORT_JSON = "report.json"
REPORT_HTML = "report.html"
REPORT_PDF = "report.pdf"
OVERLAY_PNG = "overlay.png"
LABELS_NII = "labels.nii.gz"
"""Which tissue each voxel was counted as; absent where the numbers are withheld, and from analyses that make none."""
LESIONS_NII = "lesions.nii.gz"
"""On the same grid, the number of the lesion candidate that each voxel belongs to; absent where there is none."""

LABELS = {1: "fluid", 2: "grey matter", 3: "white matter", 4: "ventricle"}
"""The values of `LABELS_NII`; 0 is outside. Fluid and ventricles together are the cerebrospinal fluid."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\.(json|html|png|pdf|dcm|csv|txt|nii\.gz)\Z")


class BundleError(ValueError):
    """The bytes are not a report bundle."""


def pack(files: Mapping[str, bytes]) -> bytes:
    """Return a tar of ``files`` (name to content): the same files give the same bytes.

    Raises:
        BundleError: a name is not a plain file name of a known kind, or `REPORT_JSON` is missing.
    """
    _check(files)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in sorted(files):
            entry = tarfile.TarInfo(name)
            entry.size = len(files[name])
            entry.mode = 0o644
            tar.addfile(entry, io.BytesIO(files[name]))
    return out.getvalue()


def unpack(data: bytes) -> dict[str, bytes]:
    """Return the files of a bundle.

    Nothing of the archive but names and contents is believed: no folders, links, devices or unexpected names.

    Raises:
        BundleError: not a tar, too large, or anything in it that `pack` would not have written.
    """
    if len(data) > MAX_BUNDLE:
        raise BundleError(f"a bundle of {len(data)} bytes is over the limit of {MAX_BUNDLE}")
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            for entry in tar:
                # A sparse file of a few bytes may claim to be gigabytes of zeros.
                plain = entry.isreg() and not entry.issparse()
                content = tar.extractfile(entry) if plain else None
                if content is None or entry.name in files or len(files) >= MAX_FILES:
                    raise BundleError("the archive holds something that is no report file")
                files[entry.name] = content.read()
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise BundleError(f"not a report bundle: {error}") from error
    _check(files)
    return files


def _check(files: Mapping[str, bytes]) -> None:
    for name in files:
        if not _NAME.match(name):
            raise BundleError(f"{name!r} is not the name of a report file")
    if REPORT_JSON not in files:
        raise BundleError(f"{REPORT_JSON} is missing")
