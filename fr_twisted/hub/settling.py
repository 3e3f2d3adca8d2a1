"""The end of deliveries when a HUB stops: what the store is still to be told."""

from collections.abc import Sequence

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime

from fr_twisted.hub.delivery import ReportOutbox


class SettlingService(Service):
    """Lets outboxes, when their links have ended, tell the store so: else a stop would leave reports under a lease.

    Add it before the links' services, to be stopped after them, and after the store's.
    """

    def __init__(self, outboxes: Sequence[ReportOutbox], seconds: float, clock: IReactorTime) -> None:
        """Take the ``seconds`` that this may take."""
        self._outboxes, self._seconds, self._clock = outboxes, seconds, clock

    def stopService(self) -> Deferred[None]:
        """Fire when the store has been told, or when the time is over."""
        super().stopService()
        over: Deferred[None] = Deferred()

        def end(_: object = None) -> None:
            if timer.active():
                timer.cancel()
            if not over.called:
                over.callback(None)

        timer = self._clock.callLater(self._seconds, end)
        DeferredList([outbox.when_settled() for outbox in self._outboxes]).addCallback(end)
        return over
