"""Names under which a structure of a patient is found again in later reports."""

from fr_twisted.pacs.dicom_out.headers import SourceSeries
from fr_twisted.pacs.dicom_out.report import Report
from fr_twisted.pacs.encode import make_uid


def tracking(report: Report, source: SourceSeries, structure: str, side: str = "") -> tuple[str, str]:
    """Return Tracking Identifier and UID of a structure: the same in every scan of this patient, by any version.

    The patient is told by patient id and its issuer, if that is given: two hospitals that give out the same ids
    without naming themselves have the same tracking UIDs, which a reader never sees side by side.
    """
    issuer = str(source.first.get("IssuerOfPatientID") or "")
    words = " ".join(filter(None, (structure.replace("_", " "), side)))
    uid = make_uid("tracking", issuer, report.written.patient_id, report.written.analysis, structure, side)
    return f"{report.written.analysis} {words}", uid
