"""What is wrong with a document or the chunks of a payload: judgements alone, nothing is asked of the store."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from pydantic import BaseModel, ValidationError

from fr_twisted.model import CHUNK_SIZE, BrainReport, BrainScan, PayloadRef, ScanState, chunk_count, utc_text
from fr_twisted.store.documents import FIRST_ATTEMPTS, faults
from fr_twisted.store.ioperators import RECENT, Finding, FindingKind

Doc = Mapping[str, Any]
Head = tuple[int, int]
"""Number and size of a chunk."""

SHOWN_NUMBERS = 3

WAITS_LONG = timedelta(days=1)
"""After which a report that its node did not get is told of: a node may be away for a night."""


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


def given_back(document: Doc) -> Finding | None:
    """Return how often an undamaged scan that waits was released though nothing speaks against it."""
    times = document.get("given_back") or 0
    if document["report_generated"] != ScanState.TO_DO or times <= FIRST_ATTEMPTS:
        return None
    words = f"To Do, but BRAINs that could not do it gave it back {times} times: {document.get('error')}"
    return Finding(FindingKind.GIVEN_BACK, document["_id"], words)


def analysis_of(document: Doc) -> str | None:
    """Return the analysis that an undamaged scan which waits asks for."""
    waits = document["report_generated"] == ScanState.TO_DO
    found = document["meta"].get("analysis") if waits else None
    return found if isinstance(found, str) else None


def unserved(document: Doc, seen: datetime | None, now: datetime) -> Finding | None:
    """Return that no BRAIN was seen of late which runs what a scan that waits asks for."""
    if seen is not None and now - seen <= RECENT:
        return None
    when = "was ever seen" if seen is None else f"was seen since {utc_text(seen)}"
    words = f"To Do, and no BRAIN that runs {analysis_of(document)} {when}"
    return Finding(FindingKind.UNSERVED, document["_id"], words)


def waiting(document: Doc, now: datetime) -> Finding | None:
    """Return that an undamaged report waits for its node for very long."""
    if document.get("status") or document.get("refused") or document["created_at"] > now - WAITS_LONG:
        return None
    words = f"waits for {document['destination']} since {utc_text(document['created_at'])}: {document.get('error')}"
    return Finding(FindingKind.REPORT_WAITING, document["_id"], words)


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


def kept_chunks(document: Doc, heads: Iterable[Head]) -> list[Finding]:
    """Return what is wrong with the chunks of an upload, of which those said to be kept alone must be there."""
    size, kept = document.get("size"), document.get("kept") or 0
    if not isinstance(size, int) or size < 0:
        return []
    there, item_id = dict(heads), str(document["_id"])
    found = [one for one in chunks(item_id, size, there.items()) if one.kind is not FindingKind.CHUNK_MISSING]
    gone = [n for n in range(min(kept, chunk_count(size))) if n not in there]
    if gone:
        words = f"{_numbers(gone, len(gone))}: missing, of {kept} of an upload that a HUB had said to be kept"
        found.append(Finding(FindingKind.CHUNK_MISSING, item_id, words))
    return found


def _numbers(numbers: list[int], many: int) -> str:
    """Return ``chunks 3, 4, 7 and 12 more``: the first of so many."""
    shown = ", ".join(map(str, numbers[:SHOWN_NUMBERS]))
    more = many - SHOWN_NUMBERS
    return f"chunk{'s' if many > 1 else ''} {shown}" + (f" and {more} more" if more > 0 else "")
