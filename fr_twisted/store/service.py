"""The store as a service: opened with patience, closed at the end."""

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

from fr_twisted.ops.outage import Outage, RetryPolicy
from fr_twisted.ops.services import IReady, Ready
from fr_twisted.store.interfaces import IStore, StoreError


@implementer(IReady)
class StoreService(Service):
    """Opens ``store`` at the start, trying again until it can be used, and closes it at the stop.

    Why it cannot be used is logged in one line when it begins and whenever the reason changes. Add it to the unit
    first: then it is stopped last.
    """

    name = "store"

    def __init__(self, store: IStore, clock: IReactorTime, policy: RetryPolicy | None = None) -> None:
        """Take the store and, for tests, the ``policy`` of waiting (0.5 s, doubling up to 30 s)."""
        self._store = store
        self._clock = clock
        self._outage = Outage("the store", clock, policy)
        self._ready = Ready()
        self._opening: Deferred[None] | None = None

    @property
    def store(self) -> IStore:
        """The store."""
        return self._store

    def when_ready(self) -> Deferred[None]:
        """Fire when the store is open; errback only for an error that waiting does not mend."""
        return self._ready.when()

    def startService(self) -> None:
        """Begin to open the store."""
        super().startService()
        opening = Deferred.fromCoroutine(self._open())
        self._opening = opening.addErrback(self._cannot)

    def stopService(self) -> Deferred[None]:
        """Open no more, and close."""
        super().stopService()
        if self._opening is not None:
            self._opening.cancel()
        return self._store.close()

    async def _open(self) -> None:
        while True:
            try:
                await self._store.open()
                break
            except StoreError as error:
                if not self.running:
                    return
                await deferLater(self._clock, self._outage.failed(str(error)))
        self._outage.over()
        self._ready.succeed()

    def _cannot(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._ready.fail(failure)
