"""A store in memory with the behaviour of the real one, for unit tests: no reactor, no network, a Clock for time."""

from collections import Counter
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from fr_twisted.model import CHUNK_SIZE, BrainReport, Lease
from fr_twisted.store.documents import is_told, put_back_detail, shorten
from fr_twisted.store.interfaces import (
    ConflictError,
    IPayloads,
    IReports,
    IStore,
    PayloadMissingError,
    Room,
)
from tests.fakes_store_operators import MemoryOperators
from tests.fakes_store_scans import MemoryScans
from tests.fakes_store_state import START, MemoryState

__all__ = ["START", "MemoryPayloads", "MemoryReports", "MemoryScans", "MemoryStore"]


@implementer(IStore)
class MemoryStore(MemoryState):
    """The whole store in memory.

    Operations take effect, and their Deferreds fire, at once, unless a test says otherwise:

    - `hold` makes operations wait (they take effect at `release`), `hold("commit")` only those of that name;
    - `fail_next` makes the next operations fail without effect;
    - ``down = True`` makes every operation errback with a `StoreError`;
    - ``room_told`` is the room that it tells of;
    - ``streams = False``: `on_work` and `on_report` never call, as on a server without change streams.

    ``calls`` lists the names of all operations asked for. Time is ``clock``: nothing expires until it is advanced.
    """

    def __init__(
        self, clock: IReactorTime, *, node: str = "node", unit: str = "test", grace_seconds: float = 600
    ) -> None:
        super().__init__(clock, node=node, unit=unit, grace_seconds=grace_seconds)
        self._payloads = MemoryPayloads(self)
        self._scans = MemoryScans(self)
        self._reports = MemoryReports(self)
        self._operators = MemoryOperators(self)

    def payloads(self) -> "MemoryPayloads":
        """Return the payloads."""
        return self._payloads

    def scans(self) -> "MemoryScans":
        """Return the scans."""
        return self._scans

    def reports(self) -> "MemoryReports":
        """Return the reports."""
        return self._reports

    def operators(self) -> "MemoryOperators":
        """Return what people may ask."""
        return self._operators

    def open(self) -> Deferred[str]:
        """Open; refused while ``down``."""
        return self.do("open", self._open)

    def close(self) -> Deferred[None]:
        """Close."""
        self.opened = False
        return succeed(None)

    def now(self) -> Deferred[datetime]:
        """Fire with the time of the Clock."""
        return self.do("now", self.time)

    def room(self, used: bool) -> Deferred[Room]:
        """Fire with ``room_told``."""
        told = self.room_told
        return self.do("room", lambda: told if used else Room(told.free))

    def _open(self) -> str:
        self.opened = True
        return "memory"


@implementer(IPayloads)
class MemoryPayloads:
    """Chunks in a dict."""

    def __init__(self, store: MemoryState) -> None:
        self._store = store

    def write_chunk(self, payload_id: str, n: int, data: bytes) -> Deferred[None]:
        """Keep a chunk."""
        content = bytes(data)

        def write() -> None:
            if not 0 < len(content) <= CHUNK_SIZE:
                raise ValueError(f"a chunk has 1 to {CHUNK_SIZE} bytes, not {len(content)}")
            if self._store.chunk_docs.setdefault((payload_id, n), content) != content:
                raise ConflictError(f"chunk {n} of {payload_id} is kept with other bytes")
            for upload in self._store.upload_docs.values():
                if upload.payload_id == payload_id:
                    upload.touched_at = self._store.time()

        return self._store.do("write_chunk", write)

    def read_chunks(self, payload_id: str, first: int, count: int) -> Deferred[list[bytes]]:
        """Return chunks."""

        def read() -> list[bytes]:
            try:
                return [self._store.chunk_docs[payload_id, n] for n in range(first, first + count)]
            except KeyError as error:
                raise PayloadMissingError(f"chunk {error.args[0][1]} of {payload_id} is missing") from None

        return self._store.do("read_chunks", read)


@implementer(IReports)
class MemoryReports:
    """Reports on their way out."""

    def __init__(self, store: MemoryState) -> None:
        self._store = store

    def _set(self, report_id: str, **changes: Any) -> BrainReport:
        report = self._store.report_docs[report_id].model_copy(update=changes)
        self._store.report_docs[report_id] = report
        return report

    def _unsent(self, destination: str) -> list[BrainReport]:
        return [
            report
            for report in self._store.report_docs.values()
            if report.destination == destination and not report.status and not report.refused
        ]

    def take(self, destination: str, owner: str, lease_seconds: float) -> Deferred[BrainReport | None]:
        """Lease the oldest report that is due."""

        def take() -> BrainReport | None:
            now = self._store.time()
            due = [r for r in self._unsent(destination) if (r.next_attempt_at or now) <= now]
            if not due:
                return None
            report_id = min(due, key=lambda report: report.created_at).report_id
            token = self._store.tokens[report_id] = self._store.tokens.get(report_id, 0) + 1
            until = now + timedelta(seconds=lease_seconds)
            lease = Lease(owner=owner, token=token, expires_at=until)
            return self._set(report_id, lease=lease, next_attempt_at=until)

        return self._store.do("take", take)

    def delivered(self, report: BrainReport) -> Deferred[None]:
        """Set ``status``."""

        def deliver() -> None:
            kept = self._store.report_docs[report.report_id]
            late = (
                report.lease is not None
                and kept.resent_after is not None
                and report.lease.token <= kept.resent_after
            )
            if not kept.status and not late:
                self._set(
                    report.report_id,
                    status=True,
                    delivered_at=self._store.time(),
                    lease=None,
                    next_attempt_at=None,
                    error=None,
                    refused=False,
                )
                self._store.tell(report.scan_id, "delivered", report.report_id)

        return self._store.do("delivered", deliver)

    def put_back(self, report: BrainReport, error: str, delay_seconds: float) -> Deferred[None]:
        """Release the lease; a lease that another took over is left as it is."""

        def put_back() -> None:
            current = self._store.report_docs[report.report_id]
            if report.lease is None or current.lease is None or current.lease.token != report.lease.token:
                return
            due = self._store.time() + timedelta(seconds=delay_seconds)
            attempts = current.attempts + 1
            self._set(
                report.report_id, lease=None, error=shorten(error), attempts=attempts, next_attempt_at=due
            )
            if is_told(attempts):
                detail = put_back_detail(report.report_id, attempts, error)
                self._store.tell(report.scan_id, "put back", detail)

        return self._store.do("put_back", put_back)

    def refused(self, report: BrainReport, error: str) -> Deferred[None]:
        """Keep it and do not offer it again."""

        def refuse() -> None:
            token = None if report.lease is None else report.lease.token
            taken_over = token not in (None, self._store.tokens.get(report.report_id))
            if not taken_over and not self._store.report_docs[report.report_id].status:
                self._set(
                    report.report_id, refused=True, error=shorten(error), lease=None, next_attempt_at=None
                )
                self._store.tell(report.scan_id, "refused", f"{report.report_id}: {error}")

        return self._store.do("refused", refuse)

    def next_due(self, destination: str) -> Deferred[float | None]:
        """Return the seconds until a report is due."""

        def next_due() -> float | None:
            now = self._store.time()
            dues = [report.next_attempt_at or now for report in self._unsent(destination)]
            return max(0.0, (min(dues) - now).total_seconds()) if dues else None

        return self._store.do("next_due", next_due)

    def waiting(self, besides: Collection[str] = ()) -> Deferred[dict[str, int]]:
        """Count the unsent reports."""

        def count() -> dict[str, int]:
            unsent = [r for r in self._store.report_docs.values() if not r.status and not r.refused]
            return dict(Counter(r.destination for r in unsent if r.destination not in besides))

        return self._store.do("waiting", count)

    def get(self, report_id: str) -> Deferred[BrainReport | None]:
        """Return a report."""
        return self._store.do("get", lambda: self._store.report_docs.get(report_id))

    def of_scan(self, scan_id: str) -> Deferred[list[BrainReport]]:
        """Return the reports of a scan."""

        def of_scan() -> list[BrainReport]:
            return [report for report in self._store.report_docs.values() if report.scan_id == scan_id]

        return self._store.do("of_scan", of_scan)

    def on_report(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call ``wake`` when a report became due."""
        return self._store.due.add(wake)
