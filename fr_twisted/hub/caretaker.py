"""What a HUB does every minute beside taking scans and bringing reports."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from fr_twisted.store.interfaces import StoreError
from fr_twisted.store.ioperators import RECENT

SECONDS_OF_DAY = 86400.0


class CaretakerService(Service):
    """Shows reports that no configured node gets; mends, empties and cleans the store."""

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
        if not failure.check(CancelledError):
            self._log.failure("caretaker", failure, event="hub.defect")

    async def one_round(self) -> None:
        """Do everything once; what does not work holds up nothing else."""
        for step in (self.repair, self.show_unroutable, self.show_unserved, self.retire, self.clean):
            try:
                await step()
            except StoreError:
                continue  # the units that need the store say so
            except CancelledError:
                raise
            except Exception:
                self._log.failure("caretaker", event="hub.defect")

    async def repair(self) -> None:
        """Finish what a crash left between a scan and its report."""
        await self._store.scans().repair()

    async def clean(self) -> None:
        """Remove payloads that belong to nothing."""
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
        unknown = await self._store.reports().waiting(besides=self._nodes.keys())
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
