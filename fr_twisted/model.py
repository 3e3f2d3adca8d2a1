"""The vocabulary of Fr: what a scan and a report are. Pydantic models only; no input or output.

Field names are those of the stored documents (docs/architecture.md). Times are timezone-aware UTC.
"""

import hashlib
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

ItemId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
"""An id of a scan or report: safe as a file name and in a log line."""

NodeName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
"""The name of one installation of a unit, such as ``pacs-radiology``."""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""A SHA-256 digest in lower-case hexadecimal (FIPS 180-4)."""

CHUNK_SIZE = 1024 * 1024
"""Bytes of payload in one stored chunk, and in one DATA frame unless the receiver says less."""

SCAN_KIND = "scan"
REPORT_KIND = "report"


class ScanState(StrEnum):
    """The values of ``brain_scans.report_generated``."""

    TO_DO = "To Do"
    IN_PROGRESS = "In Progress"
    DONE = "Done"
    FAILED = "Failed"


class PayloadFormat(StrEnum):
    """How the bytes of a scan are to be read."""

    NIFTI = "nifti"
    """One ``.nii`` file."""
    NIFTI_GZ = "nifti-gz"
    """One ``.nii.gz`` file."""
    DICOM_TAR = "dicom-tar"
    """An uncompressed POSIX tar of the Part 10 files of one MR series."""


class ScanMeta(BaseModel):
    """What is known of a scan beside its bytes; travels in the OFFER of a scan.

    Further members are allowed and kept as they are. A patient's name or birth date has no place here.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    patient_id: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    format: PayloadFormat
    modality: str = "MR"
    acquired_at: AwareDatetime | None = None
    priority: int = Field(default=5, ge=0, le=9, description="9 is claimed first")
    analysis: str | None = Field(
        default=None,
        min_length=1,
        max_length=64,
        description="only a BRAIN that runs the analysis of this name claims it; None: any BRAIN",
    )
    study_instance_uid: str | None = None
    series_instance_uid: str | None = None
    series_description: str | None = None
    facts: dict[str, str | int | float | None] = Field(
        default_factory=dict, description="modality facts: field strength, sequence, slices, ..."
    )


class Lease(BaseModel):
    """Who works on a document, until when, under which fencing token."""

    model_config = ConfigDict(frozen=True)

    owner: str
    token: int = Field(
        ge=1, description="rises by one with every claim; a write under an older token is refused"
    )
    expires_at: AwareDatetime


class HistoryEntry(BaseModel):
    """One change of state of a scan."""

    model_config = ConfigDict(frozen=True)

    at: AwareDatetime
    event: str
    unit: str
    node: str
    detail: str | None = None


class PayloadRef(BaseModel):
    """Where the bytes of a scan or report are kept: chunks ``n = 0, 1, ...`` of ``CHUNK_SIZE`` under ``payload_id``."""

    model_config = ConfigDict(frozen=True)

    payload_id: str
    size: int = Field(ge=0)
    sha256: Sha256


class BrainScan(BaseModel):
    """A document of ``brain_scans``."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    scan_id: ItemId = Field(alias="_id")
    patient_id: str
    source: NodeName
    report_generated: ScanState
    meta: ScanMeta
    payload_id: str
    size: int = Field(ge=0)
    sha256: Sha256
    priority: int
    received_at: AwareDatetime
    lease: Lease | None = None
    attempts: int = 0
    given_back: int = Field(
        default=0,
        description="times that it was released without counting the attempt, nothing speaking against it",
    )
    error: str | None = None
    history: list[HistoryEntry] = Field(default_factory=list)
    payload_broken_at: AwareDatetime | None = Field(
        default=None,
        description="when its bytes were found missing or changed: whoever still has it may send it",
    )
    payload_removed_at: AwareDatetime | None = Field(
        default=None, description="when its bytes were given up, long after its reports were delivered"
    )

    @property
    def payload(self) -> PayloadRef:
        """Where the bytes are."""
        return PayloadRef(payload_id=self.payload_id, size=self.size, sha256=self.sha256)


class BrainReport(BaseModel):
    """A document of ``brain_reports``; ``status`` is False until the destination acknowledged the report."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    report_id: ItemId = Field(alias="_id")
    scan_id: ItemId
    patient_id: str
    destination: NodeName
    status: bool = False
    analysis: str
    analysis_version: str
    findings: dict[str, Any]
    payload_id: str
    size: int = Field(ge=0)
    sha256: Sha256
    created_at: AwareDatetime
    attempts: int = 0
    next_attempt_at: AwareDatetime | None = None
    lease: Lease | None = None
    delivered_at: AwareDatetime | None = None
    error: str | None = None
    refused: bool = Field(
        default=False, description="the destination refused it for good; a person must look"
    )
    resent_after: int | None = Field(
        default=None,
        description="the token when a person asked for it once more: earlier deliveries are not that",
    )

    @property
    def payload(self) -> PayloadRef:
        """Where the bytes of the report bundle are."""
        return PayloadRef(payload_id=self.payload_id, size=self.size, sha256=self.sha256)


class ReportMeta(BaseModel):
    """What travels in the OFFER of a report. Its payload is the bundle of `fr_twisted.bundle`."""

    model_config = ConfigDict(extra="allow", frozen=True)

    scan_id: ItemId
    patient_id: str
    analysis: str
    analysis_version: str
    created_at: AwareDatetime
    sent_at: AwareDatetime | None = Field(default=None, description="when the HUB had acknowledged the scan")


def make_scan_id(node: str, patient_id: str, sha256: str) -> str:
    """Return the id of a scan: the same bytes of the same patient from the same node have the same id.

    So a file that is sent again, after a crash or by hand, is recognised as kept already; the same bytes sent by
    another node are another scan, whose report goes to that node.
    """
    digest = hashlib.sha256("\0".join((node, patient_id, sha256)).encode()).hexdigest()
    return f"scan-{digest[:24]}"


def make_report_id(scan_id: str, analysis: str, analysis_version: str) -> str:
    """Return the one id that the report of this scan by this version of the analysis can have."""
    digest = hashlib.sha256("\0".join((scan_id, analysis, analysis_version)).encode()).hexdigest()
    return f"report-{digest[:24]}"


def chunk_count(size: int) -> int:
    """Return how many chunks a payload of ``size`` bytes has; an empty payload has none."""
    return -(-size // CHUNK_SIZE)


def utc_text(moment: datetime) -> str:
    """Return ``moment`` as ISO 8601 with milliseconds, for documents that people read."""
    return moment.isoformat(timespec="milliseconds")
