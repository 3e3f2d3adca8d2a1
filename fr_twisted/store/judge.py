"""What is wrong with a document or the chunks of a payload: judgements alone, nothing is asked of the store."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from pydantic import BaseModel, ValidationError

from fr_twisted.model import CHUNK_SIZE, BrainReport, BrainScan, PayloadRef, ScanState, chunk_count, utc_text
from fr_twisted.store.analyses import NOTED_EVERY
from fr_twisted.store.documents import faults
from fr_twisted.store.ioperators import Finding, FindingKind

Doc = Mapping[str, Any]
Head = tuple[int, int]
"""Number and size of a chunk."""

SHOWN_NUMBERS = 3

LEAST_UNSEEN = timedelta(seconds=2 * NOTED_EVERY)
"""A BRAIN that lives is noted more often."""


def damage(model: type[BaseModel], document: Doc, kind: FindingKind) -> Finding | None:
    """Return what makes a document none of ``model``."""
    try:
        model.model_validate(document)
    except ValidationError as error:
        return Finding(kind, str(document["_id"]), f"the document is damaged: {faults(error)}")
    return None


def scan_damage(document: Doc) -> Finding | None:
    """Return what makes a document no scan."""
    return damage(BrainScan, document, FindingKind.SCAN_DAMAGED)


def report_damage(document: Doc) -> Finding | None:
    """Return what makes a document no report."""
    return damage(BrainReport, document, FindingKind.REPORT_DAMAGED)


def payload_of(document: Doc) -> PayloadRef:
    """Return where the bytes of an undamaged document are."""
    return PayloadRef.model_validate({name: document[name] for name in ("payload_id", "size", "sha256")})


def stuck(document: Doc, now: datetime, grace: timedelta) -> Finding | None:
    """Return what keeps an undamaged scan In Progress though nobody works on it."""
    if document["report_generated"] != ScanState.IN_PROGRESS:
        return None
    lease = document.get("lease")
    if lease is None:
        return Finding(
            FindingKind.STUCK, document["_id"], "In Progress without a lease: no BRAIN will take it"
        )
    ended: datetime = lease["expires_at"]
    if ended >= now - grace:
        return None
    words = f"In Progress, but the lease of {lease['owner']} ended at {utc_text(ended)}: does a BRAIN run?"
    return Finding(FindingKind.STUCK, document["_id"], words)


def unserved(document: Doc, seen: datetime | None, now: datetime, grace: timedelta) -> Finding | None:
    """Return what an undamaged scan waits for, if no BRAIN that runs its analysis was ``seen`` for so long."""
    analysis, before = document["meta"].get("analysis"), now - max(grace, LEAST_UNSEEN)
    if document["report_generated"] != ScanState.TO_DO or analysis is None:
        return None
    if document["received_at"] >= before or (seen is not None and seen >= before):
        return None
    when = "never seen" if seen is None else f"last seen at {utc_text(seen)}"
    words = f"To Do, but a BRAIN that runs its analysis {analysis} was {when}"
    return Finding(FindingKind.UNSERVED, document["_id"], words)


def without_report(document: Doc, has_report: bool, now: datetime, grace: timedelta) -> Finding | None:
    """Return what is wrong with the report of an undamaged scan that is Done."""
    if document["report_generated"] != ScanState.DONE:
        return None
    if "pending_report" in document:
        since = document.get("pending_at")
        if isinstance(since, datetime) and since >= now - grace:
            return None
        words = "its report stands in the scan's own document still: does a HUB run?"
        return Finding(FindingKind.REPORT_PENDING, document["_id"], words)
    if has_report:
        return None
    return Finding(FindingKind.DONE_WITHOUT_REPORT, document["_id"], "Done, but there is no report of it")


def stale(document: Doc, before: datetime) -> Finding | None:
    """Return what is wrong with an upload that nobody wrote to since ``before``."""
    touched = document.get("touched_at")
    if isinstance(touched, datetime) and touched >= before:
        return None
    when = utc_text(touched) if isinstance(touched, datetime) else "an unknown time"
    words = f"nobody wrote to this upload since {when}, and it was not given up: does a HUB run?"
    return Finding(FindingKind.UPLOAD_STALE, str(document["_id"]), words)


def chunks(item_id: str, size: int, heads: Iterable[Head]) -> list[Finding]:
    """Return what is wrong with the chunks of a payload of ``size`` bytes."""
    there = dict(heads)
    count = chunk_count(size)
    inside = sorted(n for n in there if 0 <= n < count)
    # A damaged size may want more chunks than there is memory for their numbers.
    missing = list(islice((n for n in range(count) if n not in there), SHOWN_NUMBERS))
    wrong = [n for n in inside if there[n] != min(CHUNK_SIZE, size - n * CHUNK_SIZE)]
    extra = sorted(n for n in there if not 0 <= n < count)
    parts = (
        (FindingKind.CHUNK_MISSING, missing, count - len(inside), f"missing, of {count}"),
        (FindingKind.CHUNK_SIZE, wrong, len(wrong), "of the wrong size"),
        (FindingKind.CHUNK_EXTRA, extra, len(extra), f"behind the end, of {count}"),
    )
    return [
        Finding(kind, item_id, f"{_numbers(numbers, many)}: {words}")
        for kind, numbers, many, words in parts
        if numbers
    ]


def _numbers(numbers: list[int], many: int) -> str:
    """Return ``chunks 3, 4, 7 and 12 more``: the first of so many."""
    shown = ", ".join(map(str, numbers[:SHOWN_NUMBERS]))
    more = many - SHOWN_NUMBERS
    return f"chunk{'s' if many > 1 else ''} {shown}" + (f" and {more} more" if more > 0 else "")
