"""Sends objects to an archive: C-STORE on one association, and what each answer means. All of it blocks.

Success is status 0000H, or a warning of the storage service (PS3.4 B.2.3), which the archive gives of objects that it
has kept. Nothing else counts as delivered, least of all an association that ended in between.
"""

import io
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    EncapsulatedPDFStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)
from pynetdicom import AE, evt
from pynetdicom.sop_class import StorageCommitmentPushModel  # type: ignore[attr-defined]

from fr_twisted.pacs import commitment_data
from fr_twisted.pacs.commitment_data import COMMITMENT_INSTANCE as COMMITMENT_INSTANCE
from fr_twisted.pacs.dicom import IMPLEMENTATION_UID
from fr_twisted.setting_dicom import Archive

SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
CLASSES: Mapping[UID, str] = {
    SegmentationStorage: "Segmentation",
    Comprehensive3DSRStorage: "Comprehensive 3D SR",
    SecondaryCaptureImageStorage: "Secondary Capture Image",
    EncapsulatedPDFStorage: "Encapsulated PDF",
}

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 60.0
"""For the answer to an association, an object or a release; archives that write to tape need long."""

COMMIT_SECONDS = 10.0
"""For which the report of a commitment is awaited on the same association; many archives call back instead."""


class Fate(StrEnum):
    """What became of one object, or of all."""

    DELIVERED = "delivered"
    LATER = "later"
    """Not now; the same bytes may be taken another time."""
    REFUSED = "refused"
    """The archive will never take it as it is; a person must look."""


@dataclass(frozen=True)
class Answer:
    """What an archive said of one object."""

    fate: Fate
    status: int | None
    """None: none came, or the object was not sent at all."""
    text: str
    """For people and the log; quotes nothing that the archive said in words."""


@dataclass(frozen=True)
class Commitment:
    """What an archive said of its duty to keep objects; by SOP instance UID."""

    transaction: str
    asked: bool
    """Whether it took the request."""
    kept: frozenset[str] = frozenset()
    failed: Mapping[str, int] | None = None
    """The reason codes of those that it does not keep; None: no report came."""


@dataclass(frozen=True)
class Sent:
    """How an association went. ``trouble``: why there was none, or it ended early."""

    answers: dict[str, Answer]
    trouble: str | None = None
    commitment: Commitment | None = None


_MEANINGS = {
    0x0000: "success",
    0x0111: "it has an object of this UID already",
    0x0110: "processing failure",
    0x0117: "invalid object instance",
    0x0122: "it does not support this SOP class",
    0x0124: "not authorized",
    0x0210: "duplicate invocation",
    0x0211: "unrecognized operation",
    0x0212: "mistyped argument",
    0x0213: "resource limitation",
    0xB000: "it coerced data elements",
    0xB006: "it discarded elements",
    0xB007: "it finds that the data set does not match its SOP class",
}
_LATER = {0x0110, 0x0210, 0x0213}
_KEPT_WITH_WARNING = range(0xB000, 0xC000)


def judge(status: int) -> Answer:
    """Return what a C-STORE status means (PS3.4 B.2.3, PS3.7 C)."""
    text = _MEANINGS.get(status, _range_meaning(status))
    shown = f"{status:04X}H: {text}"
    # Our UIDs are made of content: what an archive has under one is what it was sent before.
    if status in (0x0000, 0x0111) or status in _KEPT_WITH_WARNING:
        return Answer(Fate.DELIVERED, status, shown)
    if status in _LATER or 0xA700 <= status <= 0xA7FF:
        return Answer(Fate.LATER, status, shown)
    return Answer(Fate.REFUSED, status, shown)


def _range_meaning(status: int) -> str:
    if 0xA700 <= status <= 0xA7FF:
        return "out of resources"
    if 0xA900 <= status <= 0xA9FF:
        return "the data set does not match its SOP class"
    if 0xC000 <= status <= 0xCFFF:
        return "it cannot understand the object"
    return "a warning" if status in _KEPT_WITH_WARNING else "an unknown status"


class Sender:
    """Sends to one archive, one association at a time; `abort` ends that from another thread."""

    def __init__(self, archive: Archive, calling: str) -> None:
        """Take the archive, and the AE title that we call ourselves."""
        self.archive, self._calling = archive, calling
        self._lock = threading.Lock()
        self._ae: Any = None
        self._heard = _Heard(None)
        self._over = False

    def send(self, objects: Mapping[str, bytes], transaction: str | None = None) -> Sent:
        """Send Part 10 files, named by SOP instance UID, in order; with ``transaction``, ask for commitment too."""
        heard = self._heard = _Heard(transaction)
        association = self._associate(objects, transaction is not None, heard)
        if isinstance(association, str):
            return Sent({}, association)
        answers: dict[str, Answer] = {}
        try:
            for number, (uid, data) in enumerate(objects.items(), start=1):
                answer = self._store(association, data, number % 65536)
                if answer is None:
                    return Sent(answers, "the association ended before the answer")
                answers[uid] = answer
            commitment = None
            if transaction is not None and all(a.fate is Fate.DELIVERED for a in answers.values()):
                commitment = _commit(association, objects, transaction, heard)
            return Sent(answers, None, commitment)
        finally:
            self._end(association)

    def report_came(self, word: Commitment) -> None:
        """Wait no longer for the report on a commitment: it came on an association of the archive's own."""
        self._heard.take(word)

    def abort(self) -> None:
        """End the association that there is, and have no more."""
        with self._lock:
            self._over, ae = True, self._ae
        for association in [] if ae is None else ae.active_associations:
            # An A-ABORT would wait until the archive, which does not answer, has closed the connection.
            association.dul.socket.close()

    def _associate(self, objects: Mapping[str, bytes], commit: bool, heard: "_Heard") -> Any:
        """Return an association, or why there is none."""
        ae = AE(ae_title=self._calling)
        ae.implementation_class_uid, ae.implementation_version_name = UID(IMPLEMENTATION_UID), "FR-PACS"
        ae.connection_timeout, ae.acse_timeout = CONNECT_SECONDS, ANSWER_SECONDS
        ae.dimse_timeout = ae.network_timeout = ANSWER_SECONDS
        for kind in CLASSES:
            ae.add_requested_context(kind, SYNTAXES)
        if commit:
            ae.add_requested_context(StorageCommitmentPushModel, SYNTAXES)
        with self._lock:
            if self._over:
                return "this node stops"
            self._ae = ae
        host, port, title = self.archive.host, self.archive.port, self.archive.title
        association = ae.associate(
            host, port, ae_title=title, evt_handlers=[(evt.EVT_N_EVENT_REPORT, heard.report)]
        )
        return association if association.is_established else _why_not(association)

    def _store(self, association: Any, data: bytes, message: int) -> Answer | None:
        """Return the answer to one object; None: there is no association any more."""
        if not association.is_established:
            return None
        dataset = pydicom.dcmread(io.BytesIO(data))
        try:
            status = association.send_c_store(dataset, msg_id=message)
        except ValueError:
            name = CLASSES.get(dataset.SOPClassUID, "this class")
            return Answer(Fate.REFUSED, None, f"it takes no {name} objects")
        except RuntimeError:
            return None
        return judge(int(status.Status)) if "Status" in status else None

    def _end(self, association: Any) -> None:
        with self._lock:
            self._ae = None
        if association.is_established:
            association.release()


def _why_not(association: Any) -> str:
    if association.is_rejected:
        answer = association.acceptor.primitive
        reasons = {
            (1, 3): "it does not know our AE title",
            (1, 7): "it is not the AE title that is called there",
        }
        known = reasons.get((answer.result_source, answer.diagnostic))
        return f"it rejected the association: {known or answer.reason_str}"
    if association.is_aborted:
        return "it cannot be reached, or ended the association at once"
    return "it accepted nothing of what was proposed"


class _Heard:
    """Takes the report of one commitment, on our own association or from elsewhere."""

    def __init__(self, transaction: str | None) -> None:
        self._transaction = transaction
        self._came = threading.Event()
        self._mutex = threading.Lock()
        self._report: Commitment | None = None
        self._over = False

    def report(self, event: Any) -> tuple[int, None]:
        """Take it; one on another request, or too late, is refused, so that the archive tells it at our port."""
        return (0x0000 if self.take(read_report(event.event_information)) else 0x0110), None

    def take(self, word: Commitment) -> bool:
        """Take it, if it is the awaited one and still awaited."""
        with self._mutex:
            if self._over or word.transaction != self._transaction:
                return False
            self._report = word
        self._came.set()
        return True

    def wait(self) -> Commitment | None:
        """Return the report, if it comes in time."""
        self._came.wait(COMMIT_SECONDS)
        with self._mutex:
            self._over = True
            return self._report


def read_report(information: Dataset) -> Commitment:
    """Return what an N-EVENT-REPORT of storage commitment says (PS3.4 J.3.3)."""
    transaction, kept, failed = commitment_data.read_report(information)
    return Commitment(transaction, True, kept, failed)


def _commit(association: Any, objects: Mapping[str, bytes], transaction: str, heard: _Heard) -> Commitment:
    """Ask the archive to commit to objects, and wait a while for its word."""
    request = commitment_data.make_request(transaction, map(_reference, objects.values()))
    try:
        status, _ = association.send_n_action(
            request,
            1,
            StorageCommitmentPushModel,
            commitment_data.COMMITMENT_INSTANCE,
            msg_id=len(objects) + 1,
        )
    except (ValueError, RuntimeError):
        return Commitment(transaction, False)
    if int(status.get("Status", 0xFFFF)) != 0x0000:
        return Commitment(transaction, False)
    return heard.wait() or Commitment(transaction, True)


def _reference(data: bytes) -> commitment_data.Reference:
    meta = pydicom.dcmread(io.BytesIO(data), specific_tags=["SOPClassUID", "SOPInstanceUID"])
    return str(meta.SOPClassUID), str(meta.SOPInstanceUID)
