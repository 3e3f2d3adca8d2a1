"""What HUB and BRAIN may ask of the store. `fr_twisted.store.mongo` keeps it in MongoDB; tests use a memory twin.

Every operation has a deadline and errbacks with a `StoreError`. Writes are durable (``w: majority, j: true``) when
their Deferred fires. Times of leases come from the store's clock, never from the node's.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import Interface

from fr_twisted.model import BrainReport, BrainScan, ScanMeta
from fr_twisted.store.ioperators import IOperators


class StoreError(Exception):
    """The store could not do it; nothing is known to be wrong with the request. Safe to try again later."""


class StoreUnusableError(StoreError):
    """The store cannot be used as configured (host, TLS, password, rights): one line that says what to mend."""


class StoreFullError(StoreError):
    """The store has no room for it: true of everything that is written, whatever it is, until there is room."""


class ConflictError(Exception):
    """The id is taken by other content, for good."""


class StaleTokenError(Exception):
    """The caller's lease was taken over: its write changed nothing."""


class PayloadMissingError(Exception):
    """Chunks of a payload are missing or have the wrong size."""


@dataclass(frozen=True)
class NewScan:
    """The facts of an offered scan."""

    scan_id: str
    source: str
    size: int
    sha256: str
    meta: ScanMeta


@dataclass(frozen=True)
class Upload:
    """A scan that is being received: its chunks stand under ``payload_id``; ``token`` fences older receivers.

    ``chunks`` are there already, from the first on without a gap.
    """

    scan: NewScan
    payload_id: str
    token: int
    chunks: int


@dataclass(frozen=True)
class Claim:
    """A scan under our lease. Every write made for it carries ``token``."""

    scan: BrainScan
    owner: str
    token: int

    @property
    def attempt(self) -> int:
        """The number of this attempt, from 1."""
        return self.scan.attempts


@dataclass(frozen=True)
class NewReport:
    """A finished report, its payload not yet stored."""

    report_id: str
    analysis: str
    analysis_version: str
    findings: dict[str, Any]
    bundle: bytes


@dataclass(frozen=True)
class Room:
    """What a store tells of its room, in bytes; None: it does not tell."""

    free: int | None = None
    """Of the file system that holds its data."""
    used: int | None = None
    """By our documents and their indexes."""


class IPayloads(Interface):
    """Bytes, in chunks of `fr_twisted.model.CHUNK_SIZE`."""

    def write_chunk(payload_id: str, n: int, data: bytes) -> Deferred[None]:
        """Keep chunk ``n``; writing the same chunk again is done already, not an error.

        ``data`` is `CHUNK_SIZE` bytes, or fewer for the last chunk. Errback with `ConflictError` when chunk ``n`` is
        kept with other bytes (the upload is spoilt: discard it), with `PayloadMissingError` when its upload is known to
        have been given up, and with ``ValueError`` when it is too large.
        """

    def read_chunks(payload_id: str, first: int, count: int) -> Deferred[list[bytes]]:
        """Fire with chunks ``first .. first + count - 1``, in order.

        Ask for a few at a time. Errback with `PayloadMissingError` when one is not there.
        """


class IScans(Interface):
    """Scans on their way in, and the queue of those to be analysed."""

    def begin_upload(scan: NewScan) -> Deferred[Upload | None]:
        """Open (or take over, with a higher token) the upload of ``scan``; None: it is kept already.

        A scan whose kept bytes were found broken is received anew, and is ``To Do`` again when it is committed.

        Errback with `ConflictError` when the id is kept with another digest or size, and with ``ValueError`` when its
        facts cannot be stored. An unfinished upload of other content under the same id is superseded: the new one
        begins without chunks, and whichever is committed first is the scan.
        """

    def peek_upload(scan: NewScan) -> Deferred[int | None]:
        """Fire with how many bytes of it are durable, from the first on without a gap; None: the scan is kept already.

        Nothing is written. Errback with `ConflictError` as `begin_upload`.
        """

    def commit(upload: Upload) -> Deferred[None]:
        """Make the scan visible as ``To Do``, all of its chunks being durable. A second commit is done already.

        Errback with `PayloadMissingError` when a chunk is missing or has the wrong size, and with `ConflictError` when
        the id was kept with other content meanwhile.
        """

    def discard_upload(upload: Upload) -> Deferred[None]:
        """Forget the upload unless another receiver took it over; its chunks are removed by `clean`."""

    def claim(
        owner: str, lease_seconds: float, analysis: str | None = None, besides: Collection[str] = ()
    ) -> Deferred[Claim | None]:
        """Take the scan that is due (To Do, or In Progress with a lease that ended), by priority, then arrival.

        Only scans that name no analysis (`ScanMeta.analysis`) or the one called ``analysis``; all others keep their
        place for whoever runs theirs. None of ``besides``, a few that the owner has just given back: others come first.

        Sets it ``In Progress`` with a new token and one attempt more; None when nothing is due. The claim's scan comes
        without its history. That a BRAIN runs ``analysis`` is noted, for `last_seen`, now and then.
        """

    def last_seen(analyses: Collection[str]) -> Deferred[dict[str, datetime]]:
        """Fire with when a BRAIN that runs each of them claimed or renewed, to a minute; none for one never seen."""

    def renew(claim: Claim, lease_seconds: float) -> Deferred[None]:
        """Lengthen the lease; errback with `StaleTokenError` when it was taken over."""

    def release(claim: Claim, error: str | None, count_attempt: bool) -> Deferred[None]:
        """Give it back as ``To Do``; without ``count_attempt`` (a clean stop) the attempt does not count.

        Errback with `StaleTokenError` when the lease was taken over.
        """

    def fail(claim: Claim, error: str, payload_broken: bool = False) -> Deferred[None]:
        """Set it ``Failed`` with the reason; errback with `StaleTokenError` when the lease was taken over.

        With ``payload_broken`` its bytes are missing or changed: offered again, it is received anew.
        """

    def complete(claim: Claim, report: NewReport) -> Deferred[BrainReport]:
        """Store the report and set the scan ``Done``: one compare-and-set decides, a crash after it is repaired.

        Safe to call again after a `StoreError`. Errback with `StaleTokenError` when the lease was taken over; then
        nothing is visible. Errback with ``ValueError`` when the findings cannot be stored.
        """

    def repair() -> Deferred[int]:
        """Finish what a crash left between ``Done`` and the report; fire with how many were mended.

        What became of reports is told in the history of their scans, where that was not done.
        """

    def clean(upload_ttl_seconds: float) -> Deferred[int]:
        """Remove uploads untouched for so long, and chunks that belong to nothing; fire with payloads removed."""

    def retire(keep_seconds: float) -> Deferred[int]:
        """Give up the payloads of Done scans whose reports were all delivered so long ago; fire with how many.

        The scans and reports stay, and such a scan is kept already for all who offer it again. `clean` removes the
        bytes.
        """

    def get(scan_id: str) -> Deferred[BrainScan | None]:
        """Fire with the scan."""

    def count_by_state() -> Deferred[dict[str, int]]:
        """Fire with the number of scans in each state (for people; not for hot paths)."""

    def on_work(wake: Callable[[], None]) -> Callable[[], None]:
        """Call ``wake`` soon after a scan became To Do (change stream); return a function that ends it.

        May call ``wake`` for nothing, and without change streams never: poll as well.
        """


class IReports(Interface):
    """Reports on their way out. What becomes of one is told in the history of its scan, soon after."""

    def take(destination: str, owner: str, lease_seconds: float) -> Deferred[BrainReport | None]:
        """Lease the oldest report for ``destination`` that is unsent, not refused, due and not leased by another."""

    def delivered(report: BrainReport) -> Deferred[None]:
        """Set ``status`` True; a report that is so already is left as it is.

        Whoever holds the lease by now, the destination has the report: that is a fact, and no second holder undoes it.
        """

    def put_back(report: BrainReport, error: str, delay_seconds: float) -> Deferred[None]:
        """Release the lease and let it be due again after ``delay_seconds``, one attempt more.

        A report that another took over, or that was delivered or refused, is left as it is.
        """

    def refused(report: BrainReport, error: str) -> Deferred[None]:
        """The destination refused it for good: keep it, do not offer it again.

        A report that another took over, or that was delivered, is left as it is.
        """

    def next_due(destination: str) -> Deferred[float | None]:
        """Fire with the seconds until the next unsent report is due or its lease ends (0: now), None: no report."""

    def waiting(besides: Collection[str] = ()) -> Deferred[dict[str, int]]:
        """Fire with the number of unsent reports, but for refused ones, by destination; not of those ``besides``."""

    def get(report_id: str) -> Deferred[BrainReport | None]:
        """Fire with the report."""

    def of_scan(scan_id: str) -> Deferred[list[BrainReport]]:
        """Fire with every report of the scan."""

    def on_report(wake: Callable[[], None]) -> Callable[[], None]:
        """Like `IScans.on_work`, for reports that became due."""


class IStore(Interface):
    """The whole store: `payloads`, `scans`, `reports`, and its own life."""

    def payloads() -> IPayloads:
        """Return the payloads."""

    def scans() -> IScans:
        """Return the scans."""

    def reports() -> IReports:
        """Return the reports."""

    def operators() -> IOperators:
        """Return what people may ask."""

    def open() -> Deferred[str]:
        """Connect, prove that it can be used, create the indexes; fire with one line about the server.

        Errback with `StoreUnusableError`.
        """

    def close() -> Deferred[None]:
        """Close every connection."""

    def now() -> Deferred[datetime]:
        """Fire with the store's clock."""

    def room(used: bool) -> Deferred[Room]:
        """Fire with the room there is; what is ``used`` only if asked for: some servers read everything to tell."""
