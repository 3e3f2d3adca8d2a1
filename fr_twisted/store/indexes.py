"""Collections, indexes and hot queries, all in this one place; a test lets the server explain each query.

Indexes are created at start, while the collections of a new database are empty.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

SCANS = "brain_scans"
REPORTS = "brain_reports"
CHUNKS = "brain_chunks"
UPLOADS = "brain_uploads"
GARBAGE = "brain_garbage"
ANALYSES = "brain_analyses"
"""A small document for each analysis that a BRAIN ever ran: when one was last seen. Found by ``_id`` alone."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""Before every date: ``{"$gt": EPOCH}`` selects the documents that have one, and may use a sparse index."""

Keys = Sequence[tuple[str, int]]
Doc = dict[str, Any]

ARRIVAL: Keys = (("received_at", 1),)
QUEUE_ORDER: Keys = (("priority", -1), *ARRIVAL)
REPORT_ORDER: Keys = (("created_at", 1),)
NEWEST: Keys = (("received_at", -1),)


@dataclass(frozen=True)
class Index:
    """An index of a collection."""

    collection: str
    keys: Keys
    sparse: bool = False

    @property
    def name(self) -> str:
        """Return the name that MongoDB itself would give it."""
        return "_".join(f"{key}_{direction}" for key, direction in self.keys)

    def document(self) -> Doc:
        """Return its part of a ``createIndexes`` command."""
        spec: Doc = {"key": dict(self.keys), "name": self.name}
        if self.sparse:
            spec["sparse"] = True
        return spec


INDEXES: Sequence[Index] = (
    # The queue of each analysis, and of scans for any (None), so that a claim never meets what others wait for, and
    # the leases of each that ended.
    Index(SCANS, (("report_generated", 1), ("meta.analysis", 1), *QUEUE_ORDER)),
    Index(SCANS, (("report_generated", 1), ("meta.analysis", 1), ("lease.expires_at", 1))),
    # For people: scans in a state, and leases.
    Index(SCANS, (("report_generated", 1), *QUEUE_ORDER)),
    Index(SCANS, (("report_generated", 1), ("lease.expires_at", 1))),
    # For people: what was received lately, and the scans of a patient.
    Index(SCANS, (("received_at", 1),)),
    Index(SCANS, (("patient_id", 1), ("received_at", 1))),
    # Done, the report not yet in its collection.
    Index(SCANS, (("pending_at", 1),), sparse=True),
    Index(SCANS, (("pending_report.payload_id", 1),), sparse=True),
    Index(SCANS, (("payload_id", 1),)),
    # Done, the payload still kept, by when to look whether it is still needed.
    Index(SCANS, (("payload_since", 1),), sparse=True),
    # What is to be sent, by age, and when something will be due.
    Index(REPORTS, (("status", 1), ("refused", 1), ("destination", 1), *REPORT_ORDER)),
    Index(REPORTS, (("status", 1), ("refused", 1), ("destination", 1), ("next_attempt_at", 1))),
    Index(REPORTS, (("scan_id", 1),)),
    Index(REPORTS, (("payload_id", 1),)),
    # What was done lately.
    Index(REPORTS, (("created_at", 1),)),
    Index(REPORTS, (("delivered_at", 1),)),
    # What became of a report, its scan not yet told.
    Index(REPORTS, (("untold_at", 1),), sparse=True),
    # With the size in it MongoDB tells which chunks there are without reading them.
    Index(CHUNKS, (("files_id", 1), ("n", 1), ("size", 1))),
    Index(UPLOADS, (("touched_at", 1),)),
    Index(UPLOADS, (("payload_id", 1),)),
    Index(GARBAGE, (("since", 1),)),
)


def create_commands() -> list[Doc]:
    """Return a ``createIndexes`` command for each collection."""
    collections = dict.fromkeys(index.collection for index in INDEXES)
    return [
        {
            "createIndexes": name,
            "indexes": [index.document() for index in INDEXES if index.collection == name],
            "writeConcern": {"w": "majority"},
        }
        for name in collections
    ]


def to_do(analysis: str | None) -> Doc:
    """Scans that wait for an analysis; None: for any."""
    return {"report_generated": "To Do", "meta.analysis": analysis}


def to_do_before(analysis: str | None, priority: int, before: datetime | None) -> Doc:
    """Those of one priority, that came before a time."""
    query: Doc = {**to_do(analysis), "priority": priority}
    return query if before is None else {**query, "received_at": {"$lt": before}}


def to_do_named() -> Doc:
    """Scans that wait for an analysis that they name."""
    return {"report_generated": "To Do", "meta.analysis": {"$gt": ""}}


def lease_ended(analysis: str | None, now: datetime) -> Doc:
    """Scans for an analysis, or for any (None), whose worker did not come back."""
    return {
        "report_generated": "In Progress",
        "meta.analysis": analysis,
        "lease.expires_at": {"$lt": now},
    }


def pending() -> Doc:
    """Scans whose report stands in their own document still."""
    return {"pending_at": {"$gt": EPOCH}}


def pending_payload(payload_id: str) -> Doc:
    """The scan in whose document the report with this payload stands still."""
    return {"pending_report.payload_id": payload_id}


def payload_kept(before: datetime) -> Doc:
    """Done scans whose payload has been kept for long, as far as was known when they were last looked at."""
    return {"payload_since": {"$gt": EPOCH, "$lte": before}}


def in_state(state: str) -> Doc:
    """Scans in a state."""
    return {"report_generated": state}


def unsent(destination: str) -> Doc:
    """Reports that their destination has neither taken nor refused."""
    return {"status": False, "refused": False, "destination": destination}


def due(destination: str, now: datetime) -> Doc:
    """Reports to be sent now."""
    return {**unsent(destination), "next_attempt_at": {"$lte": now}}


def due_undated(destination: str) -> Doc:
    """Reports that are unsent but have no date to be sent at: a person took back their refusal."""
    return {**unsent(destination), "next_attempt_at": None}


def untold() -> Doc:
    """Reports with lines for the history of their scan."""
    return {"untold_at": {"$gt": EPOCH}}


def received(since: datetime, before: datetime | None = None) -> Doc:
    """Scans by arrival."""
    return {"received_at": {"$gte": since, **({} if before is None else {"$lt": before})}}


def created(since: datetime) -> Doc:
    """Reports by age."""
    return {"created_at": {"$gte": since}}


def delivered(since: datetime) -> Doc:
    """Reports by delivery."""
    return {"delivered_at": {"$gte": since}}


def in_progress() -> Doc:
    """Scans under a lease."""
    return in_state("In Progress")


def chunk_window(payload_id: str, first: int, count: int) -> Doc:
    """Chunks by number."""
    return {"files_id": payload_id, "n": {"$gte": first, "$lt": first + count}}


def payloads_between(low: str, high: str | None) -> Doc:
    """Chunks by the id of their payload, from ``low`` on and before ``high``."""
    return {"files_id": {"$gte": low, **({} if high is None else {"$lt": high})}}


def untouched(before: datetime) -> Doc:
    """Uploads that nobody wrote to since."""
    return {"touched_at": {"$lt": before}}


def touched() -> Doc:
    """All uploads."""
    return {"touched_at": {"$gt": EPOCH}}


def garbage(before: datetime) -> Doc:
    """Payloads that were given up so long ago."""
    return {"since": {"$lt": before}}


@dataclass(frozen=True)
class Query:
    """A query that is asked often, or of a collection that grows, and the names of the indexes that may answer it.

    Each of them holds what is compared for equality first, then the order, so that nothing is sorted. There are two
    where it matters not which. Compare-and-sets name the ``_id`` beside their conditions, and use its index.
    """

    name: str
    collection: str
    filter: Mapping[str, Any]
    indexes: tuple[str, ...]
    sort: Keys = ()


_BY_ID = ("_id_",)
_QUEUE = "report_generated_1_meta.analysis_1_priority_-1_received_at_1"
_STATES = "report_generated_1_priority_-1_received_at_1"
_ENDED = "report_generated_1_meta.analysis_1_lease.expires_at_1"
_LEASES = "report_generated_1_lease.expires_at_1"
_BY_AGE = "status_1_refused_1_destination_1_created_at_1"
_BY_DATE = "status_1_refused_1_destination_1_next_attempt_at_1"
_BY_NUMBER = "files_id_1_n_1_size_1"
_BY_PATIENT = "patient_id_1_received_at_1"
_BY_PAYLOAD = ("payload_id_1",)

QUERIES: Sequence[Query] = (
    *(
        query
        for name, analysis in (("for any analysis", None), ("for an analysis", "x"))
        for query in (
            Query(f"queue {name}", SCANS, to_do(analysis), (_QUEUE,), QUEUE_ORDER),
            Query(f"queue {name}, a priority", SCANS, to_do_before(analysis, 5, None), (_QUEUE,), ARRIVAL),
            Query(f"queue {name}, its oldest part", SCANS, to_do_before(analysis, 5, EPOCH), (_QUEUE,)),
            Query(
                f"leases {name} that ended",
                SCANS,
                lease_ended(analysis, EPOCH),
                (_ENDED,),
                (("lease.expires_at", 1),),
            ),
        )
    ),
    Query("scans for named analyses", SCANS, to_do_named(), (_QUEUE, _ENDED)),
    Query("pending reports", SCANS, pending(), ("pending_at_1",)),
    Query("old payloads", SCANS, payload_kept(EPOCH), ("payload_since_1",), (("payload_since", 1),)),
    Query("a scan", SCANS, {"_id": "x"}, _BY_ID),
    Query("scans in a state", SCANS, in_state("Done"), (_STATES, _QUEUE, _ENDED, _LEASES)),
    Query("leases", SCANS, in_progress(), (_LEASES,), (("lease.expires_at", 1),)),
    Query("recent scans", SCANS, received(EPOCH), ("received_at_1",), NEWEST),
    Query(
        "recent scans in a state",
        SCANS,
        {**in_state("Done"), "priority": 5, **received(EPOCH)},
        (_STATES,),
        NEWEST,
    ),
    Query("scans of a patient", SCANS, {"patient_id": "x", **received(EPOCH)}, (_BY_PATIENT,), NEWEST),
    Query("scan of a payload", SCANS, {"payload_id": "x"}, _BY_PAYLOAD),
    Query("pending report of a payload", SCANS, pending_payload("x"), ("pending_report.payload_id_1",)),
    Query("due reports", REPORTS, due("x", EPOCH), (_BY_AGE,), REPORT_ORDER),
    Query("undated reports", REPORTS, due_undated("x"), (_BY_DATE, _BY_AGE)),
    Query("next due report", REPORTS, unsent("x"), (_BY_DATE,), (("next_attempt_at", 1),)),
    Query("waiting reports", REPORTS, {"status": False, "refused": False}, (_BY_AGE, _BY_DATE)),
    Query("reports of a scan", REPORTS, {"scan_id": "x"}, ("scan_id_1",)),
    Query("a report", REPORTS, {"_id": "x"}, _BY_ID),
    Query("report of a payload", REPORTS, {"payload_id": "x"}, _BY_PAYLOAD),
    Query("recent reports", REPORTS, created(EPOCH), ("created_at_1",)),
    Query("recent deliveries", REPORTS, delivered(EPOCH), ("delivered_at_1",)),
    Query("undelivered reports", REPORTS, {"status": False}, (_BY_AGE, _BY_DATE)),
    Query("untold reports", REPORTS, untold(), ("untold_at_1",)),
    Query("chunks there are", CHUNKS, chunk_window("x", 0, 64), (_BY_NUMBER,), (("n", 1),)),
    Query(
        "chunks of some payloads",
        CHUNKS,
        payloads_between("0", "1"),
        (_BY_NUMBER,),
        (("files_id", 1), ("n", 1)),
    ),
    Query("a chunk", CHUNKS, {"_id": "x:0"}, _BY_ID),
    Query("chunks to remove", CHUNKS, {"files_id": "x"}, (_BY_NUMBER,)),
    Query("an upload", UPLOADS, {"_id": "x"}, _BY_ID),
    Query("untouched uploads", UPLOADS, untouched(EPOCH), ("touched_at_1",), (("touched_at", 1),)),
    Query("recent uploads", UPLOADS, touched(), ("touched_at_1",), (("touched_at", -1),)),
    Query("upload of a payload", UPLOADS, {"payload_id": "x"}, _BY_PAYLOAD),
    Query("old garbage", GARBAGE, garbage(EPOCH), ("since_1",), (("since", 1),)),
)
