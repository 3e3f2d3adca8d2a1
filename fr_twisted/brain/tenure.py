"""The time for which a scan is ours: its lease is renewed, and the store is asked with patience."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from fr_twisted.brain.fetch import InThread
from fr_twisted.ops.outage import Outage, RetryPolicy, patient_policy
from fr_twisted.ops.workdir import WorkDir
from fr_twisted.store.interfaces import (
    Claim,
    IStore,
    StaleTokenError,
    StoreError,
    StoreFullError,
)

T = TypeVar("T")

RENEWALS_PER_LEASE = 3
"""So that two renewals in a row may be lost."""

RESULT_PATIENCE = 300.0
"""Seconds, or two leases if that is more, for which a store that does renew the lease may refuse to give the scan or
to take its report."""

VERDICT_PATIENCE = 60.0
"""Seconds, or one lease if that is more, for which it may refuse to be told how an attempt without a report ended.
Less is lost by leaving it."""


@dataclass(frozen=True)
class Surroundings:
    """What an attempt works with."""

    store: IStore
    clock: IReactorTime
    in_thread: InThread
    work: WorkDir
    policy: RetryPolicy = field(default_factory=patient_policy)
    """When to try again what the store could not do."""


class RefusedError(StoreError):
    """The store will not do this, although it is there; the message says what and why."""


class Tenure:
    """Holds one claim from `start` to `end`; `patiently` asks the store on its behalf meanwhile.

    ``lost``: a renewal told that the lease was taken over. ``stopping``: `stop` was called.
    """

    _log = Logger()

    def __init__(self, claim: Claim, lease: float, around: Surroundings) -> None:
        """Take the length of the ``lease`` in seconds."""
        self._claim = claim
        self._lease = lease
        self._clock = around.clock
        self._scans = around.store.scans()
        self._outage = Outage("the store", around.clock, around.policy)
        self._renewing = LoopingCall(self._renew)
        self._renewing.clock = around.clock
        self._renewed_at = self._silent_at = around.clock.seconds()
        self._cancel: Callable[[], None] = lambda: None
        self._reporting = False
        self._stale = False
        self._ended = False
        self.stopping = False
        self.lost = False

    def start(self) -> None:
        """Renew the lease from now on."""
        self._renewing.start(self._lease / RENEWALS_PER_LEASE, now=False).addErrback(self._unexpected)

    def stop(self) -> None:
        """Break off what can be; try nothing again."""
        self.stopping = True
        self._cancel()

    def end(self) -> None:
        """Renew no more."""
        self._ended = True
        if self._renewing.running:
            self._renewing.stop()

    async def cancellable(self, deferred: Deferred[T]) -> T:
        """Await ``deferred``; `stop` and the loss of the lease cancel it, which operations of the store are spared."""
        outer, self._cancel = self._cancel, deferred.cancel
        try:
            return await deferred
        finally:
            self._cancel = outer

    async def ask(self, operation: Callable[[], Deferred[T]]) -> T:
        """Return the answer to a question, asked as patiently as a result is told; raise what `tell_result` raises."""
        return await self._patiently(operation, max(2 * self._lease, RESULT_PATIENCE))

    async def tell_result(self, operation: Callable[[], Deferred[T]]) -> T:
        """Write, and return what the store says; ``operation`` is one that the claim's token fences.

        Raises:
            RefusedError: the store would not for too long, though it renewed the lease.
            StoreError: it could not, and we are to stop, or the lease is gone.
            CancelledError: we are to stop, or the lease was lost, between two tries.
            Exception: whatever else the operation errbacks with.
        """
        self._reporting = True
        return await self.ask(operation)

    async def tell_verdict(self, operation: Callable[[], Deferred[T]]) -> T:
        """Do as `tell_result`, with less patience."""
        self._reporting = True
        return await self._patiently(operation, max(self._lease, VERDICT_PATIENCE))

    async def _patiently(self, operation: Callable[[], Deferred[T]], patience: float) -> T:
        began: float | None = None
        while True:
            stale = self._stale
            try:
                result = await operation()
            except StoreError as error:
                if self.stopping or self.lost or stale:
                    raise
                began = self._clock.seconds() if began is None else began
                self._check_refused(error, began, patience)
                await self._pause(self._outage.failed(str(error)))
            else:
                self._outage.over()
                return result

    def _check_refused(self, error: StoreError, began: float, patience: float) -> None:
        """Raise `RefusedError` when the store did nothing but renew the lease for too long.

        By that, a write like the others, a store that refuses this one thing is told from one that is away, or has no
        room or right to write anything: such a one is waited for, or scan after scan would fail for it.
        """
        seconds = self._renewed_at - max(began, self._silent_at)
        if seconds >= patience and not isinstance(error, StoreFullError):
            raise RefusedError(
                f"{error}; so for {seconds:.0f} s, while the store renews the lease"
            ) from error

    async def _pause(self, seconds: float) -> None:
        try:
            await self.cancellable(deferLater(self._clock, seconds))
        except CancelledError:
            if self.stopping or self.lost:
                raise

    def _renew(self) -> Deferred[None]:
        renewal = self._scans.renew(self._claim, self._lease).addCallback(self._renewed)
        return renewal.addErrback(self._not_renewed)

    def _renewed(self, _: None) -> None:
        self._renewed_at = self._clock.seconds()

    def _not_renewed(self, failure: Failure) -> None:
        self._silent_at = self._clock.seconds()
        if failure.check(StaleTokenError):
            if not self._ended:
                self._is_stale()
        # A store that does not answer is told of where its answer is needed; the next renewal may succeed.
        elif not failure.check(StoreError):
            self._unexpected(failure)

    def _is_stale(self) -> None:
        """End the work; but once it is being reported, that very report may be what ended the lease.

        Then the operation, which knows its own earlier success, is to tell, and is asked at once if it is waiting.
        """
        if self._reporting:
            self._stale = True
        else:
            self.lost = True
        self._cancel()

    def _unexpected(self, failure: Failure) -> None:
        scan_id = self._claim.scan.scan_id
        self._log.failure("the lease of {scan_id}", failure, scan_id=scan_id, event="scan.error")
