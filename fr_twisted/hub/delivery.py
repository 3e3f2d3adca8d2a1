"""Brings reports to the nodes they belong to: one outbox a node, fed from the store, over the node's link."""

from collections.abc import Callable, Collection, Mapping
from random import random
from typing import Any

from twisted.application.internet import backoffPolicy
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from zope.interface import implementer

from fr_twisted.link.interfaces import IOutbox, Item
from fr_twisted.model import CHUNK_SIZE, REPORT_KIND, BrainReport, ReportMeta
from fr_twisted.ops.outage import Outage, patient_policy
from fr_twisted.store.interfaces import IStore, StoreError
from fr_twisted.store.ioperators import RECENT

LEASE = 120.0
"""Seconds for which a HUB has a report to itself; a second delivery after it is recognised by the node."""

MAX_POLL = 2.0
MAX_STORE_WAIT = 5.0
"""Seconds between two tries of a store that fails, at most."""

MAX_RETRY = 300.0
"""Seconds between two offers of a report that its node refuses for now, at most."""

SECONDS_OF_DAY = 86400.0

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


class CaretakerService(Service):
    """What a HUB does every minute: shows reports that no configured node gets; mends, empties and cleans the store."""

    _log = Logger()

    def __init__(
        self,
        store: Any,
        nodes: Mapping[str, str],
        upload_ttl: float,
        clock: Any,
        store_ready: Callable[[], Deferred[None]],
        interval: float = 60.0,
        keep_payload_days: float = 0.0,
        wanted: Collection[str] = (),
    ) -> None:
        """Take ``wanted``: analyses that scans which came in name."""
        self._wanted = wanted
        self._wanted_before: set[str] = set()
        self._unserved: set[str] = set()
        self._store_ready = store_ready
        self._store = store
        self._nodes = nodes
        self._upload_ttl = upload_ttl
        self._keep_payload_days = keep_payload_days
        self._interval = interval
        self._shown: dict[str, int] = {}
        self._round: Deferred[None] | None = None
        self._loop = LoopingCall(self._start_round)
        self._loop.clock = clock

    def startService(self) -> None:
        """Begin; the first round comes when the store is open."""
        super().startService()
        ready = self._store_ready().addCallback(lambda _: self._begin())
        ready.addErrback(lambda failure: self._log.failure("caretaker", failure, event="hub.defect"))

    def _begin(self) -> None:
        if self.running:
            looping = self._loop.start(self._interval)
            looping.addErrback(lambda failure: self._log.failure("caretaker", failure, event="hub.defect"))

    def stopService(self) -> None:
        """End, in the middle of a round too: each of its steps can be done again."""
        super().stopService()
        if self._loop.running:
            self._loop.stop()
        if self._round is not None:
            self._round.cancel()

    def _start_round(self) -> Deferred[None]:
        self._round = Deferred.fromCoroutine(self.one_round())
        return self._round.addErrback(self._failed)

    def _failed(self, failure: Any) -> None:
        if failure.check(StoreError, CancelledError):
            return  # the units that need the store say so
        self._log.failure("caretaker", failure, event="hub.defect")

    async def one_round(self) -> None:
        """Do everything once."""
        await self._store.scans().repair()
        await self.show_unroutable()
        await self.show_unserved()
        await self.retire()
        removed = await self._store.scans().clean(self._upload_ttl)
        if removed:
            self._log.info(
                "removed {count} payloads that belong to nothing", event="store.cleaned", count=removed
            )

    async def retire(self) -> None:
        """Give up the bytes of scans whose reports were delivered long ago, if they are not to be kept for ever."""
        if not self._keep_payload_days:
            return
        retired = await self._store.scans().retire(self._keep_payload_days * SECONDS_OF_DAY)
        if retired:
            self._log.info(
                "the bytes of {count} scans are removed: all reports delivered {limit:g} days ago",
                event="scan.payload-removed",
                count=retired,
                limit=self._keep_payload_days,
            )

    async def show_unroutable(self) -> None:
        """Log the reports that wait for nodes that FR_HUB_NODES does not name, when their number changes."""
        waiting = await self._store.reports().waiting()
        unknown = {node: count for node, count in waiting.items() if node not in self._nodes}
        for node, count in unknown.items():
            if self._shown.get(node) != count:
                self._log.warn(
                    "{count} reports wait for node {peer}: FR_HUB_NODES does not say where it is",
                    event="report.unroutable",
                    count=count,
                    peer=node,
                )
        self._shown = unknown

    async def show_unserved(self) -> None:
        """Log, once, an analysis that scans name and no BRAIN ran lately; a name is looked at a round after it came."""
        names, self._wanted_before = sorted(self._wanted_before), set(self._wanted)
        if not names:
            return
        now = await self._store.now()
        seen = await self._store.scans().last_seen(names)
        unserved = {name for name in names if name not in seen or now - seen[name] > RECENT}
        for name in sorted(unserved - self._unserved):
            self._log.warn(
                "scans wait for the analysis {analysis}, and no BRAIN that runs it was seen {reason}: start one with "
                "FR_BRAIN_ANALYSIS={analysis}, or mend the series rule that names it",
                event="scan.unserved",
                analysis=name,
                reason="in the last hour" if name in seen else "yet",
            )
        self._unserved = unserved
