"""The data, clock and knobs of the store in memory."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from fr_twisted.model import BrainReport, BrainScan, HistoryEntry, PayloadRef, chunk_count
from fr_twisted.store.documents import LONGEST_HISTORY, shorten
from fr_twisted.store.interfaces import NewScan, Room, StoreError

T = TypeVar("T")

START = datetime(2026, 1, 1, tzinfo=UTC)
"""What the store's clock says when the test's Clock is at 0."""


@dataclass
class UploadDoc:
    """A scan that is being received."""

    scan: NewScan
    payload_id: str
    token: int
    touched_at: datetime


@dataclass
class _Held:
    deferred: Deferred[Any]
    run: Callable[[], Any]
    cancelled: bool = False


@dataclass
class Watchers:
    """Those who wait for a change."""

    clock: IReactorTime
    wakes: list[Callable[[], None]] = field(default_factory=list)

    def add(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Wake someone more; return a function that ends it."""
        self.wakes.append(wake)
        return partial(self._remove, wake)

    def _remove(self, wake: Callable[[], None]) -> None:
        if wake in self.wakes:
            self.wakes.remove(wake)

    def fire(self) -> None:
        """Wake everyone, a moment later."""
        for wake in list(self.wakes):
            self.clock.callLater(0, self._call, wake)

    def _call(self, wake: Callable[[], None]) -> None:
        if wake in self.wakes:
            wake()


class MemoryState:
    """What `MemoryStore` holds, its clock and its knobs."""

    def __init__(
        self, clock: IReactorTime, *, node: str = "node", unit: str = "test", grace_seconds: float = 600
    ) -> None:
        self.clock = clock
        self.node = node
        self.unit = unit
        self.grace_seconds = grace_seconds
        self.down = False
        self.streams = True
        self.room_told = Room()
        self.opened = False
        self.calls: list[str] = []
        self.chunk_docs: dict[tuple[str, int], bytes] = {}
        self.scan_docs: dict[str, BrainScan] = {}
        self.tokens: dict[str, int] = {}
        self.analyses_seen: dict[str, datetime] = {}
        self.upload_docs: dict[str, UploadDoc] = {}
        self.report_docs: dict[str, BrainReport] = {}
        self.garbage: dict[str, datetime] = {}
        self.work = Watchers(clock)
        self.due = Watchers(clock)
        self._held: deque[_Held] | None = None
        self._held_op: str | None = None
        self._failures: deque[tuple[str | None, Exception]] = deque()

    # --- knobs

    def hold(self, op: str | None = None) -> None:
        """Let operations (all, or those named ``op``) wait until `release`."""
        self._held = deque()
        self._held_op = op

    @property
    def held(self) -> int:
        """How many operations wait."""
        return len(self._held or ())

    def release(self, count: int | None = None) -> None:
        """Run the waiting operations in order: the first ``count``, or all and hold no longer."""
        held = self._held or deque()
        if count is None:
            self._held = None
        for _ in range(len(held) if count is None else min(count, len(held))):
            waiting = held.popleft()
            if not waiting.cancelled:
                self._run(waiting.run).chainDeferred(waiting.deferred)

    def fail_next(self, error: Exception | None = None, *, times: int = 1, op: str | None = None) -> None:
        """Fail the next ``times`` operations (only those named ``op``) with ``error``, a `StoreError` by default."""
        failure = StoreError("the store does not answer") if error is None else error
        self._failures.extend([(op, failure)] * times)

    # --- for the three parts

    def time(self) -> datetime:
        """Return the time of the Clock, to the millisecond as MongoDB keeps it."""
        return START + timedelta(milliseconds=round(self.clock.seconds() * 1000))

    def do(self, op: str, run: Callable[[], T]) -> Deferred[T]:
        """Run an operation, subject to the knobs."""
        self.calls.append(op)
        if self.down:
            return fail(StoreError("the store cannot be reached"))
        for index, (only, error) in enumerate(self._failures):
            if only in (None, op):
                del self._failures[index]
                return fail(error)
        if self._held is not None and self._held_op in (None, op):
            deferred: Deferred[T] = Deferred(lambda _: setattr(waiting, "cancelled", True))
            waiting = _Held(deferred, run)
            self._held.append(waiting)
            return deferred
        return self._run(run)

    def _run(self, run: Callable[[], T]) -> Deferred[T]:
        if self.down:
            return fail(StoreError("the store cannot be reached"))
        try:
            return succeed(run())
        except Exception:
            return fail(Failure())

    def notify(self, watchers: Watchers) -> None:
        """Call those who wait for a change, if there are change streams."""
        if self.streams:
            watchers.fire()

    def entry(self, event: str, detail: str | None = None) -> HistoryEntry:
        """Return a line of history."""
        kept = shorten(detail)
        return HistoryEntry(at=self.time(), event=event, unit=self.unit, node=self.node, detail=kept)

    def tell(self, scan_id: str, event: str, detail: str) -> None:
        """Append a line to the history of a scan, if the scan is there."""
        scan = self.scan_docs.get(scan_id)
        if scan is not None:
            history = [*scan.history, self.entry(event, detail)][-LONGEST_HISTORY:]
            self.scan_docs[scan_id] = scan.model_copy(update={"history": history})

    def chunk_numbers(self, payload_id: str) -> dict[int, int]:
        """Return the sizes of the chunks of a payload by number."""
        return {n: len(data) for (owner, n), data in self.chunk_docs.items() if owner == payload_id}

    def read(self, payload: PayloadRef) -> bytes:
        """Return the whole of a payload, for assertions."""
        return b"".join(self.chunk_docs[payload.payload_id, n] for n in range(chunk_count(payload.size)))
