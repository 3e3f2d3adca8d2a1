"""The data sets of storage commitment (PS3.4 J.3), whether we ask for it or are asked."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from fr_twisted.pacs.instances import UID

COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"
"""Storage Commitment Push Model SOP Instance (PS3.4 J.3.5)."""

Reference = tuple[str, str]
"""SOP Class and Instance UIDs."""


def make_request(transaction: str, items: Iterable[Reference]) -> Dataset:
    """Return the Action Information of a request (PS3.4 J.3.2)."""
    information: Any = Dataset()
    information.TransactionUID = transaction
    information.ReferencedSOPSequence = _sequence(items, {})
    return information  # type: ignore[no-any-return]


def read_request(information: Dataset) -> tuple[str, list[Reference]]:
    """Return the Transaction UID of a request, or nothing, and what it lists: nothing, if a UID is missing or wrong."""
    return _text(information.get("TransactionUID")), _references(information.get("ReferencedSOPSequence"))


def make_report(
    transaction: str, items: Sequence[Reference], failed: Mapping[str, int]
) -> tuple[int, Dataset]:
    """Return the Event Type ID, 1 or with failures 2, and the Event Information (PS3.4 J.3.3).

    ``failed``: of instances that are not committed, by their UIDs, the reasons.
    """
    information: Any = Dataset()
    information.TransactionUID = transaction
    good = [pair for pair in items if pair[1] not in failed]
    bad = [pair for pair in items if pair[1] in failed]
    if good:
        information.ReferencedSOPSequence = _sequence(good, {})
    if bad:
        information.FailedSOPSequence = _sequence(bad, failed)
    return (2 if bad else 1), information


def read_report(information: Dataset) -> tuple[str, frozenset[str], dict[str, int]]:
    """Return the Transaction UID of a report, the UIDs of the committed instances, and of failed ones the reasons.

    Raises:
        AttributeError: an instance has no UID.
    """
    kept = (_text(item.ReferencedSOPInstanceUID) for item in information.get("ReferencedSOPSequence") or ())
    failed = {
        _text(item.ReferencedSOPInstanceUID): int(item.get("FailureReason") or 0)
        for item in information.get("FailedSOPSequence") or ()
    }
    return _text(information.get("TransactionUID")), frozenset(kept), failed


def _references(sequence: Any) -> list[Reference]:
    try:
        pairs = [
            (_text(item.ReferencedSOPClassUID), _text(item.ReferencedSOPInstanceUID))
            for item in sequence or ()
        ]
    except Exception:  # pydicom raises whatever broken data lead it to
        return []
    return pairs if all(UID.match(uid) for pair in pairs for uid in pair) else []


def _text(uid: Any) -> str:
    return str(uid or "").strip("\0 ")


def _sequence(pairs: Iterable[Reference], reasons: Mapping[str, int]) -> Items:
    found = []
    for kind, sop in pairs:
        item: Any = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = kind, sop
        if sop in reasons:
            item.FailureReason = reasons[sop]
        found.append(item)
    return Items(found)
