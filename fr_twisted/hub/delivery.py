"""Brings reports to the nodes they belong to: one outbox a node, fed from the store, over the node's link."""

from collections.abc import Callable
from random import random
from typing import Any

from twisted.application.internet import backoffPolicy
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from fr_twisted.link.interfaces import IOutbox, Item
from fr_twisted.model import CHUNK_SIZE, REPORT_KIND, BrainReport, ReportMeta
from fr_twisted.ops.outage import Outage, patient_policy
from fr_twisted.store.interfaces import IStore, StoreError

LEASE = 120.0
"""Seconds for which a HUB has a report to itself; a second delivery after it is recognised by the node."""

MAX_POLL = 2.0
MAX_STORE_WAIT = 5.0
"""Seconds between two tries of a store that fails, at most."""

MAX_RETRY = 300.0
"""Seconds between two offers of a report that its node refuses for now, at most."""

_CUTS = 3
"""Cuts of the link that delay a report by nothing but the link's own backoff; later ones may be the report's doing."""

_PLAIN_ENDS = frozenset({"connection-lost", "shutdown", "done"})


@implementer(IOutbox)
class ReportOutbox:
    """The unsent reports of one destination, oldest first. It looks only while a connected sender asks."""

    _log = Logger()

    def __init__(
        self,
        store: Any,
        destination: str,
        owner: str,
        clock: IReactorTime,
        *,
        lease: float = LEASE,
        jitter: Callable[[], float] = random,
    ) -> None:
        IStore(store)
        self._store = store
        self._reports = store.reports()
        self.destination = destination
        self._owner = owner
        self._clock = clock
        self._lease = lease
        self._jitter = jitter
        self._retry = backoffPolicy(1.0, MAX_RETRY, 2.0, lambda: 0.0)
        self._poll = backoffPolicy(0.1, MAX_POLL, 2.0, lambda: 0.0)
        self._wanted: Deferred[Item | None] | None = None
        self._looking = False
        self._nap: Deferred[None] | None = None
        self._woken = False
        self._taken: dict[str, tuple[BrainReport, float]] = {}
        self._under_way: set[Deferred[None]] = set()
        self._outage = Outage(
            f"the store of reports for {destination}", clock, patient_policy(limit=MAX_STORE_WAIT)
        )

    # -- IOutbox

    def next_item(self) -> Deferred[Item | None]:
        """Fire with the next report that is due, once there is one."""
        wanted: Deferred[Item | None] = Deferred(self._give_up)
        self._wanted = wanted
        if not self._looking:
            self._looking = True
            looking = Deferred.fromCoroutine(self._look())
            looking.addErrback(
                lambda f: self._log.failure("looking for reports", f, event="report.look-failed")
            )
            self._follow(looking)
        return wanted

    def read(self, item: Item, offset: int, size: int) -> Deferred[bytes]:
        """Return bytes of the bundle."""
        return Deferred.fromCoroutine(self._read(self._taken[item.id][0], offset, size))

    def progress(self, item: Item, kept: int) -> None:
        """Reports are small: nothing to tell."""

    def acknowledged(self, item: Item, duplicate: bool) -> Deferred[None]:
        """Set the report's ``status``."""
        return Deferred.fromCoroutine(self._delivered(item, duplicate))

    def refused(self, item: Item, code: str, reason: str) -> Deferred[None]:
        """Keep the report aside for a person."""
        report, _ = self._taken.pop(item.id)
        self._log.error(
            "{peer} refuses {report_id} for good: {code}: {reason}",
            event="report.refused",
            peer=self.destination,
            report_id=item.id,
            scan_id=report.scan_id,
            code=code,
            reason=reason,
        )
        return self._noted(self._reports.refused(report, f"{code}: {reason}"))

    def deferred(self, item: Item, code: str, reason: str) -> Deferred[None]:
        """Offer the report again after a pause that grows each time."""
        return self._later(item, code, reason, self._taken[item.id][0].attempts)

    def interrupted(self, item: Item, code: str, reason: str) -> Deferred[None]:
        """Offer the report again when the link is up; one that is cut again and again lets others pass."""
        attempts = self._taken[item.id][0].attempts
        plain = code in _PLAIN_ENDS and attempts < _CUTS
        return self._later(item, code, reason, None if plain else attempts)

    def _later(self, item: Item, code: str, reason: str, attempts: int | None) -> Deferred[None]:
        report, _ = self._taken.pop(item.id)
        delay = 0.0
        if attempts is not None:
            delay = float(self._retry(attempts)) * (1.0 - 0.25 * self._jitter())
            self._log.warn(
                "{peer} did not take {report_id}: {code}: {reason}; again in {seconds:.0f} s",
                event="report.deferred",
                peer=self.destination,
                report_id=item.id,
                code=code,
                reason=reason,
                seconds=delay,
            )
        return self._noted(self._reports.put_back(report, f"{code}: {reason}", delay))

    def when_settled(self) -> Deferred[None]:
        """Fire when nothing is being asked of, or told to, the store: no report is left leased that is not offered."""
        return DeferredList(list(self._under_way)).addCallback(lambda _: None)

    def _follow(self, work: Deferred[Any]) -> Deferred[Any]:
        """Count ``work`` as under way until it is over; return it."""
        under_way: Deferred[None] = Deferred()
        self._under_way.add(under_way)

        def over(result: Any) -> Any:
            self._under_way.discard(under_way)
            under_way.callback(None)
            return result

        return work.addBoth(over)

    # -- the way from the store

    def wake(self) -> None:
        """Look now: something may be due."""
        nap, self._nap = self._nap, None
        if nap is not None:
            nap.callback(None)
        else:
            self._woken = True

    def _give_up(self, wanted: Deferred[Item | None]) -> None:
        if self._wanted is wanted:
            self._wanted = None
        self.wake()

    async def _look(self) -> None:
        end_watch = self._reports.on_report(self.wake)
        misses = 0
        try:
            while self._wanted is not None:
                self._woken = False
                try:
                    report = await self._reports.take(self.destination, self._owner, self._lease)
                    due = None if report is not None else await self._reports.next_due(self.destination)
                except StoreError as error:
                    await self._sleep(self._outage.failed(str(error)))
                    continue
                except Exception as error:  # a defect must not end the deliveries to this node
                    self._log.failure(
                        "looking for reports for {peer}", peer=self.destination, event="hub.defect"
                    )
                    await self._sleep(self._outage.failed(type(error).__name__))
                    continue
                self._outage.over()
                if report is not None:
                    misses = 0
                    await self._hand_over(report)
                    continue
                await self._sleep(min(self._poll(misses), due if due else MAX_POLL))
                misses += 1
        finally:
            end_watch()
            self._looking = False

    async def _hand_over(self, report: BrainReport) -> None:
        wanted, self._wanted = self._wanted, None
        if wanted is None:  # the connection went while we took it
            await self._noted(self._reports.put_back(report, "connection-lost: before it was offered", 0.0))
            return
        self._taken[report.report_id] = (report, self._clock.seconds())
        meta = ReportMeta(
            scan_id=report.scan_id,
            patient_id=report.patient_id,
            analysis=report.analysis,
            analysis_version=report.analysis_version,
            created_at=report.created_at,
        )
        members = meta.model_dump(mode="json", exclude_none=True)
        wanted.callback(Item(report.report_id, REPORT_KIND, report.size, report.sha256, members))

    async def _sleep(self, seconds: float) -> None:
        if self._woken:  # while we asked the store
            return
        nap: Deferred[None] = Deferred()
        self._nap = nap
        call: IDelayedCall = self._clock.callLater(seconds, self.wake)
        try:
            await nap
        finally:
            if call.active():
                call.cancel()

    async def _read(self, report: BrainReport, offset: int, size: int) -> bytes:
        first, last = offset // CHUNK_SIZE, (offset + size - 1) // CHUNK_SIZE
        chunks = await self._store.payloads().read_chunks(report.payload_id, first, last - first + 1)
        start = offset - first * CHUNK_SIZE
        return b"".join(chunks)[start : start + size]

    async def _delivered(self, item: Item, duplicate: bool) -> None:
        report, since = self._taken.pop(item.id)
        await self._noted(self._reports.delivered(report))
        self._log.info(
            "{peer} has the report of {scan_id}",
            event="report.delivered",
            peer=self.destination,
            report_id=report.report_id,
            scan_id=report.scan_id,
            duplicate=duplicate,
            seconds=round(self._clock.seconds() - since, 3),
        )

    def _noted(self, writing: Deferred[None]) -> Deferred[None]:
        """A store that fails now does no harm: the lease ends, and the report is offered and answered once more."""

        def failed(failure: Any) -> None:
            failure.trap(StoreError)
            self._outage.failed(str(failure.value))

        return self._follow(writing.addErrback(failed))
