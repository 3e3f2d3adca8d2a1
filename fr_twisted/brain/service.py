"""Fr-BRAIN's loop: whenever a slot is free, claim a scan and have it analysed."""

import random
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.application.internet import backoffPolicy
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList, TimeoutError
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from fr_twisted.brain.attempt import Attempt, Rules
from fr_twisted.brain.ipool import IPool, ISlot, PoolError
from fr_twisted.brain.put_off import PutOff
from fr_twisted.brain.tenure import Surroundings
from fr_twisted.ops.logs import describe_exception
from fr_twisted.ops.outage import Outage
from fr_twisted.ops.services import IReady, Ready, StartError
from fr_twisted.ops.workdir import WorkDirError
from fr_twisted.store.interfaces import Claim, StoreError

T = TypeVar("T")

# Of the time for a stop, what running attempts may take to give their scans back, and what the pool may take to end.
_ATTEMPTS_SHARE = 0.55
_POOL_SHARE = 0.15


def idle_policy(jitter: Callable[[], float] = lambda: random.uniform(0.0, 0.2)) -> Callable[[int], float]:
    """Return the seconds between two looks at an empty queue: from 0.1 s on, up to 2 s."""
    return backoffPolicy(0.1, 1.8, 1.6, jitter)


@implementer(IReady)
class BrainService(Service):
    """Claims scans, never more than there are slots, and sees each through an `Attempt`.

    Ready when the pool can work and the store could be asked; a pool or work folder that cannot be used as configured
    fails the unit.
    """

    name = "brain"
    _log = Logger()

    def __init__(
        self,
        pool: IPool,
        rules: Rules,
        around: Surroundings,
        *,
        stop_timeout: float,
        store_ready: Callable[[], Deferred[None]],
        idle: Callable[[int], float] | None = None,
    ) -> None:
        """Make the service.

        Args:
            pool: runs the analyses; started and stopped with the service.
            rules: how scans are worked on.
            around: store, clock, threads and work folder.
            stop_timeout: seconds that `stopService` may take.
            store_ready: as `fr_twisted.store.service.StoreService.when_ready`.
            idle: seconds to wait after the n-th look in a row at an empty queue, n from 0.
        """
        self._pool = pool
        self._rules = rules
        self._around = around
        self._scans = around.store.scans()
        self._stop_timeout = stop_timeout
        self._store_ready = store_ready
        self._idle = idle or idle_policy()
        self._ready = Ready()
        self._claiming = Outage("the queue of scans", around.clock, around.policy)
        self._trouble = Outage("this BRAIN", around.clock, around.policy)
        self._trouble_until = 0.0
        self._put_off = PutOff(around.clock, around.policy)
        self._attempts: set[Attempt] = set()
        self._loop_over = Ready()
        self._waiting: Deferred[Any] | None = None
        self._nap: Deferred[None] | None = None
        self._woken = False
        self._stopping = False
        self._unwatch: Callable[[], None] | None = None
        self._repairing: LoopingCall | None = None

    def when_ready(self) -> Deferred[None]:
        """Fire when scans are being claimed; errback with `StartError` when that can never be."""
        return self._ready.when()

    @property
    def working_on(self) -> list[str]:
        """The ids of the scans that are being worked on."""
        return sorted(attempt.scan_id for attempt in self._attempts)

    def startService(self) -> None:
        """Start the pool, then claim."""
        super().startService()
        self._stopping = False
        self._loop_over = over = Ready()
        loop = Deferred.fromCoroutine(self._run()).addErrback(self._failed)
        loop.addBoth(lambda _: over.succeed())

    def stopService(self) -> Deferred[None]:
        """Claim no more, kill what runs and give it back; fire within the stop timeout."""
        super().stopService()
        self._stopping = True
        self._wake()
        if self._waiting is not None:
            self._waiting.cancel()
        for attempt in list(self._attempts):
            attempt.stop()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._unwatch is not None:
            self._unwatch()
        if self._repairing is not None and self._repairing.running:
            self._repairing.stop()
        endings = [self._loop_over.when(), *(attempt.when_over() for attempt in self._attempts)]
        if not await self._within(DeferredList(endings, consumeErrors=True), _ATTEMPTS_SHARE):
            self._log.warn(
                "{waiting} did not end in time", waiting=", ".join(self.working_on), event="brain.late"
            )
        await self._within(self._pool.stop(), _POOL_SHARE)
        await self._within(self._around.in_thread(self._around.work.close), _POOL_SHARE)

    async def _within(self, deferred: Deferred[Any], share: float) -> bool:
        """Await ``deferred`` for a share of the stop timeout; return whether it fired."""
        try:
            await deferred.addTimeout(share * self._stop_timeout, self._around.clock)
        except TimeoutError:
            return False
        except Exception:
            self._log.failure("stopping Fr-BRAIN", event="brain.unclean")
        return True

    async def _run(self) -> None:
        try:
            removed = await self._interruptible(self._around.in_thread(self._around.work.open))
            if removed:
                self._log.info(
                    "removed {count} work folders of killed BRAINs", count=removed, event="brain.swept"
                )
            await self._interruptible(self._pool.start())
            await self._interruptible(self._store_ready())
        except (PoolError, WorkDirError) as error:
            self._ready.fail(StartError(str(error)))
            return
        except CancelledError:
            return
        self._unwatch = self._scans.on_work(self._wake)
        self._repairing = LoopingCall(self._repair)
        self._repairing.clock = self._around.clock
        self._repairing.start(self._rules.lease).addErrback(self._failed)
        self._ready.succeed()
        while not self._stopping:
            await self._claim_one()

    async def _claim_one(self) -> None:
        """Wait for a slot, then for a scan, and begin the work on it."""
        try:
            slot: ISlot = await self._interruptible(self._pool.acquire())
        except CancelledError:
            return
        claim = await self._next_claim()
        if claim is None:
            slot.release()
        elif self._stopping:
            slot.release()
            await self._return(claim)
        else:
            attempt = Attempt(claim, slot, self._rules, self._around)
            self._attempts.add(attempt)
            attempt.when_over().addCallback(lambda _: self._ended(attempt)).addErrback(self._failed)
            attempt.start()

    async def _next_claim(self) -> Claim | None:
        """Return the next scan that is due, however long that takes; None when the service stops."""
        looks = 0
        while not self._stopping:
            pause = self._trouble_until - self._around.clock.seconds()
            if pause > 0:
                await self._sleep(pause, wakeful=False)
                continue
            self._woken = False
            try:
                claim = await self._claim()
            except Exception as error:
                reason = str(error)
                if not isinstance(error, StoreError):
                    self._log.failure("claiming", event="brain.error")
                    reason = f"no scan can be claimed: {describe_exception(error)}"
                await self._sleep(self._claiming.failed(reason), wakeful=False)
                continue
            self._claiming.over()
            if claim is not None:
                return claim
            if self._woken:
                looks = 0
            else:
                await self._sleep(self._idle(looks))
                looks = 0 if self._woken else looks + 1
        return None

    async def _claim(self) -> Claim | None:
        """Claim the scan that is due; those that we could not do lately only when no other is."""
        rules = self._rules
        for besides in self._put_off.choices(self._trouble.lasts):
            claim: Claim | None = await self._scans.claim(rules.owner, rules.lease, rules.analysis, besides)
            if claim is not None:
                return claim
        return None

    async def _return(self, claim: Claim) -> None:
        """Give back what was claimed while the stop began."""
        try:
            await self._scans.release(claim, None, False)
        except Exception:
            self._log.failure("giving {scan_id} back", scan_id=claim.scan.scan_id, event="scan.left")

    def _ended(self, attempt: Attempt) -> None:
        self._attempts.discard(attempt)
        if attempt.trouble is None:
            self._trouble.over()
            self._put_off.over(attempt.scan_id)
        else:
            self._put_off.failed(attempt.scan_id)
            self._trouble_until = self._around.clock.seconds() + self._trouble.failed(attempt.trouble)

    def _repair(self) -> Deferred[None]:
        def repaired(count: int) -> None:
            if count:
                self._log.info(
                    "mended {count} reports that a crash left open", count=count, event="brain.repaired"
                )

        def not_repaired(failure: Failure) -> None:
            # A store that does not answer is told of by the loop, which asks it all the time.
            if not failure.check(StoreError):
                self._log.failure("repairing", failure, event="brain.error")

        return self._scans.repair().addCallbacks(repaired, not_repaired)

    def _wake(self) -> None:
        """Look at the queue now."""
        self._woken = True
        if self._nap is not None and not self._nap.called:
            self._nap.callback(None)

    async def _sleep(self, seconds: float, wakeful: bool = True) -> None:
        """Wait; ended early by `_wake`, or when not ``wakeful`` by the stop alone."""
        clock = self._around.clock
        end = clock.seconds() + seconds
        while not self._stopping and clock.seconds() < end:
            self._nap = Deferred()
            call = clock.callLater(end - clock.seconds(), self._nap.callback, None)
            await self._nap
            if call.active():
                call.cancel()
                if wakeful:
                    break
        self._nap = None

    async def _interruptible(self, deferred: Deferred[T]) -> T:
        """Await ``deferred``; `stopService` cancels it."""
        if self._stopping:
            deferred.cancel()
        self._waiting = deferred
        try:
            return await deferred
        finally:
            self._waiting = None

    def _failed(self, failure: Failure) -> None:
        self._log.failure("Fr-BRAIN came upon an error", failure, event="brain.error")
        self._ready.fail(failure)
