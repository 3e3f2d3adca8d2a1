"""What is kept of a DICOM series when it is sent, so that its results can be filed beside it: headers, no pixels.

They hold the patient's name, for objects of another patient module would be filed as another patient's. So they are
files of this user alone, kept only where results are sent to an archive, and never logged. All of it blocks.
"""

import gzip
import json
import os
import re
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from twisted.logger import Logger

from fr_twisted.model import PayloadFormat
from fr_twisted.pacs.report_files import sync_folder
from fr_twisted.pacs.scans import Prepared

PATIENT = (
    *("PatientName", "PatientID", "IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence"),
    *("PatientBirthDate", "PatientSex", "OtherPatientIDsSequence", "PatientIdentityRemoved"),
    *(
        "DeidentificationMethod",
        "DeidentificationMethodCodeSequence",
        "PatientAge",
        "PatientSize",
        "PatientWeight",
    ),
)
STUDY = (
    *("StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "StudyDescription", "AccessionNumber"),
    *("IssuerOfAccessionNumberSequence", "ReferringPhysicianName", "TimezoneOffsetFromUTC"),
)
"""What the objects that are made say as the series does."""

EMPTY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
)
"""Those that must be there, if only empty (type 2: PS3.3 C.7.1.1, C.7.2.1)."""

GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
GEOMETRY = (
    *("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence", "FrameContentSequence"),
)
"""Functional groups of multi-frame images that are kept."""

TAGS = (
    *("SpecificCharacterSet", *PATIENT, *STUDY, *GROUPS),
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "Modality", "InstanceNumber"),
    *(
        "FrameOfReferenceUID",
        "PositionReferenceIndicator",
        "BodyPartExamined",
        "PatientPosition",
        "ImageType",
    ),
    *("Rows", "Columns", "NumberOfFrames", "PixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
    *("ImagePositionPatient", "ImageOrientationPatient"),
)

DAYS = 400
"""Days for which headers are kept: a report of the same scan by a later version of the analysis needs them again."""

_FORM = 1
_SCAN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")


@dataclass(frozen=True)
class SourceSeries:
    """The images of a series, in the order of their payload: as pydicom reads them, without pixels."""

    scan_id: str
    images: tuple[Dataset, ...]

    @property
    def first(self) -> Dataset:
        """The first image."""
        return self.images[0]

    @property
    def frames(self) -> int:
        """Planes in all."""
        return sum(int(image.get("NumberOfFrames") or 1) for image in self.images)


class HeaderStore:
    """A folder of headers, a compressed file for each scan."""

    _log = Logger()

    def __init__(self, root: Path) -> None:
        self.root = root

    def make(self) -> None:
        """Make the folder, for this user alone, and remove what was left unfinished."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in self.root.glob(".part-*"):
            left.unlink()

    def remember(self, prepared: Prepared) -> None:
        """Keep the headers of a scan that is about to be offered, once; of what is no DICOM series nothing.

        Headers that cannot be read are no reason to keep a scan back: that is logged.

        Raises:
            OSError: they cannot be written; the scan should wait.
        """
        scan_id = prepared.item.id
        path = self._path(scan_id)
        if prepared.item.meta.get("format") != PayloadFormat.DICOM_TAR.value or path.exists():
            return
        try:
            headers = _split([_json(image) for image in read_tar(prepared.path)])
        except OSError:
            raise
        except (
            Exception
        ) as error:  # pydicom raises whatever a file leads it to; its messages may quote the file
            self._log.warn(
                "{scan_id}: its headers cannot be kept ({reason}); its results go to no archive",
                scan_id=scan_id,
                reason=type(error).__name__,
                event="dicom.no-headers",
            )
            return
        self._write(path, {"form": _FORM, "scan_id": scan_id, **headers})

    def find(self, scan_id: str) -> SourceSeries | None:
        """Return the headers of a scan; None: there are none.

        Raises:
            OSError: they cannot be read.
            ValueError: the file is damaged.
        """
        try:
            data = json.loads(gzip.decompress(self._path(scan_id).read_bytes()))
        except FileNotFoundError:
            return None
        if data.get("form") != _FORM or not data.get("instances"):
            raise ValueError("headers of another form")
        images = (Dataset.from_json({**data["common"], **own}) for own in data["instances"])
        return SourceSeries(scan_id, tuple(images))

    def knows(self, scan_id: str) -> bool:
        """Return whether there are headers of a scan."""
        return self._path(scan_id).exists()

    def prune(self, now: float | None = None) -> None:
        """Forget what is older than `DAYS`."""
        limit = (time.time() if now is None else now) - DAYS * 86400
        for path in self.root.glob("*.json.gz"):
            if path.stat().st_mtime < limit:
                path.unlink(missing_ok=True)

    def _path(self, scan_id: str) -> Path:
        if not _SCAN_ID.match(scan_id):
            raise ValueError("not the id of a scan")
        return self.root / f"{scan_id}.json.gz"

    def _write(self, path: Path, data: dict[str, Any]) -> None:
        part = path.with_name(f".part-{path.name}")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(gzip.compress(json.dumps(data).encode(), 6, mtime=0))
            stream.flush()
            os.fsync(stream.fileno())
        part.rename(path)
        sync_folder(self.root)


def read_tar(path: Path) -> Iterator[Dataset]:
    """Yield the header of each image in a payload."""
    with tarfile.open(path, "r:") as tar:
        for entry in tar:
            stream = tar.extractfile(entry)
            if stream is not None:
                yield pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=[*TAGS])


def _json(image: Dataset) -> dict[str, Any]:
    """Return an image in DICOM's JSON form (PS3.18 F), of functional groups only `GEOMETRY`."""
    for name in GROUPS:
        for group in image.get(name) or ():
            for element in list(group):
                if element.keyword not in GEOMETRY:
                    del group[element.tag]
    found: dict[str, Any] = image.to_json_dict(suppress_invalid_tags=True)
    # Texts are decoded by it; the objects that are made say themselves how theirs are encoded.
    found.pop("00080005", None)
    return found


def _split(images: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what all images say alike, once, and what each says itself."""
    first = images[0]
    common = {tag: value for tag, value in first.items() if all(i.get(tag) == value for i in images)}
    return {
        "common": common,
        "instances": [{t: v for t, v in image.items() if t not in common} for image in images],
    }
