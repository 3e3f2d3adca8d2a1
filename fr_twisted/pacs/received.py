"""The source of series that came by DICOM: from the spool to the outbox, and what became of them into the ledger."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.python.failure import Failure

from fr_twisted.pacs.arrivals import Arrival, Arrivals
from fr_twisted.pacs.instances import InstanceSpool
from fr_twisted.pacs.interfaces import Candidate
from fr_twisted.pacs.judging import BEFORE, Judge, Outcome
from fr_twisted.pacs.ledger import Ledger, State
from fr_twisted.pacs.outbox import Run
from fr_twisted.pacs.revisions import ReceivedCandidate
from fr_twisted.pacs.rules import Rules
from fr_twisted.pacs.sources import Queue, SkipLog
from fr_twisted.pacs.trouble import log_trouble

LOOK = 1.0
"""Seconds between two looks at what people ask for."""

_MOMENT = 1.0

TIDY = 60.0
"""Seconds between two looks for what can be removed."""

CROWDED = 0.8
"""Share of the spool's limit from which on series that are done with are removed at once."""

REMEMBER = 90 * 86400.0
"""Seconds for which the ledger tells what became of an instance."""


class ReceivedSource:
    """Sends the series of a spool as they become complete.

    Args:
        spool: where the instances are; open.
        ledger: what became of them.
        rules: which are sent.
        node: the name of this node.
        work: returns the folder for tars.
        clock: measures the waiting.
        quiet, patience: as `Arrivals` takes them.
        keep: seconds for which a series that is done with stays in the spool.
        patient_id: of series that name no patient.
        run: runs what blocks.
        now: returns the time, for the ledger.
    """

    _log = Logger()

    def __init__(
        self,
        spool: InstanceSpool,
        ledger: Ledger,
        rules: Rules,
        node: str,
        work: Callable[[], Path],
        clock: IReactorTime,
        *,
        quiet: float,
        patience: float,
        keep: float,
        patient_id: str | None = None,
        run: Run = deferToThread,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.spool, self.ledger, self.now = spool, ledger, now
        self._judge = Judge(spool, ledger, rules, patient_id, now)
        self._node, self._work, self._clock = node, work, clock
        self._keep, self._patience, self._run = keep, patience, run
        self._arrivals = Arrivals(clock, quiet, patience, self._complete)
        self._queue = Queue()
        self._skips = SkipLog()
        self._calls: dict[str, IDelayedCall] = {}
        self._turn = DeferredLock()
        self._tidy_at = 0.0
        self._running = False
        self.recovered: Deferred[None] = Deferred()
        """Fires when what a predecessor left is taken up."""
        self.on_settled: Callable[[], None] = lambda: None
        """Called when something became of a series."""

    @property
    def rules(self) -> Rules:
        """Which series are sent."""
        return self._judge.rules

    @rules.setter
    def rules(self, rules: Rules) -> None:
        self._judge.rules = rules

    # -- Source

    def start(self) -> None:
        """Take up what is in the spool."""
        self._running = True
        taking = Deferred.fromCoroutine(self._take_up())
        taking.addErrback(self._trouble, "the spool could not be looked through")
        taking.addCallback(lambda _: self.recovered.callback(None))
        self._later("look", LOOK, self._look)

    def stop(self) -> None:
        """Take up nothing more."""
        self._running = False
        self._arrivals.stop()
        for call in self._calls.values():
            call.cancel()
        self._calls.clear()

    def when_quiet(self) -> Deferred[None]:
        """Fire when nothing is at work on spool and ledger."""
        return self._turn.run(lambda: None)

    def next_candidate(self) -> Deferred[Candidate | None]:
        """Fire with the next series; never with None."""
        return self._queue.get()

    # -- what the SCP tells

    def arrived(self, association: int, arrival: Arrival) -> None:
        """An instance was stored."""
        if self._running:
            self._arrivals.arrived(association, arrival)

    def changed(self, series: str, sop: str, what: Sequence[str]) -> None:
        """An instance came again under the UID of another image; that one is kept, and people are told."""
        if not self._running:
            return
        # In its turn, so that nobody closes the ledger meanwhile.
        noting: Deferred[int] = self._turn.run(
            self._run, self.ledger.came_changed, series, sop, ", ".join(what)
        )

        def noted(count: int) -> None:
            if count == 1:
                text = "instances of series {series} came again with {reason} changed; the first are kept"
                self._log.warn(text, series=series, reason=" and ".join(what), event="dicom.differs")

        noting.addCallback(noted).addErrback(self._trouble, "the ledger could not be written")

    def closed(self, association: int, released: bool) -> None:
        """An association is over."""
        if self._running:
            self._arrivals.closed(association, released)

    def disconnected(self, association: int) -> None:
        """The connection of an association is closed; how it ended may be told in a moment."""
        self._later(f"disconnected {association}", _MOMENT, lambda: self.closed(association, False))

    # -- from complete to the outbox

    async def _take_up(self) -> None:
        for series in self.spool.series():
            latest = await self._run(self.ledger.latest, series)
            whole = frozenset(instance.sop for instance in self.spool.instances(series))
            if latest is not None and latest.sops == whole and latest.state is State.COMPLETE:
                self._send(series, BEFORE, True)
                continue
            if latest is None or latest.sops != whole:
                self._arrivals.found(series)
            # What came after it may be no part of a scan: that must not keep it from being sent.
            awaited = await self._run(self.ledger.awaited, series)
            if awaited is not None:
                self._put(series, partial(self._judge.revive, awaited), BEFORE)

    def _complete(self, series: str, why: str) -> None:
        self._send(series, why, False)

    def _send(self, series: str, why: str, unsent: bool) -> None:
        """Send what is there of a series, if it is news; ``unsent``: also if it is the last revision again."""
        self._put(series, lambda: self._judge.revise(series, why, unsent), why)

    def _put(self, series: str, make: Callable[[], Outcome | None], why: str) -> None:
        sending = self._turn.run(lambda: Deferred.fromCoroutine(self._note(series, make)))

        def failed(failure: Failure) -> None:
            self._trouble(failure, "a received series could not be looked at, and will be again")
            self._again(series, why)

        sending.addErrback(failed)

    async def _note(self, series: str, make: Callable[[], Outcome | None]) -> None:
        if not self._running:
            return
        outcome = await self._run(make)
        if outcome is None or not self._running:
            return
        self._skips.say(outcome.skipped)
        if outcome.odd is not None:
            text = "series {series} {reason}"
            self._log.warn(text, series=series, reason=outcome.odd, event="series.changed")
        self._log.info(
            "series {series}, revision {count}: {state}: {reason}",
            series=series,
            count=outcome.number,
            state=outcome.state.value,
            reason=outcome.reason,
            event="series.complete",
        )
        if outcome.drop is None:
            self.on_settled()
            return
        self._queue.put(
            ReceivedCandidate(series, outcome.number, outcome.drop, self, self._node, self._work())
        )

    # -- what became of them

    def settled(self) -> None:
        """The HUB has a series, or refused it."""
        self.on_settled()

    def again(self, candidate: ReceivedCandidate, why: str) -> None:
        """Send what is there of a series, in a while."""
        self._again(candidate.series, why)

    def _again(self, series: str, why: str) -> None:
        self._later(f"again {series}", self._patience, lambda: self._send(series, why, True))

    def superseded(self, candidate: ReceivedCandidate, reason: str) -> None:
        """A later revision is sent instead."""
        series, number = candidate.series, candidate.number
        noting = self._run(self.ledger.settle, series, number, State.SUPERSEDED, reason, self.now())
        noting.addErrback(self._trouble, "the ledger could not be written")

    # -- housekeeping

    def _later(self, name: str, seconds: float, what: Callable[[], None]) -> None:
        call = self._calls.pop(name, None)
        if call is not None and call.active():
            call.cancel()

        def now() -> None:
            del self._calls[name]
            what()

        if self._running:
            self._calls[name] = self._clock.callLater(seconds, now)

    def _look(self) -> None:
        looking: Deferred[None] = self._turn.run(lambda: Deferred.fromCoroutine(self._look_once()))
        looking.addErrback(self._trouble, "the spool could not be tidied")
        looking.addCallback(lambda _: self._later("look", LOOK, self._look))

    async def _look_once(self) -> None:
        if not self._running:
            return
        for series in await self._run(lambda: list(self.spool.asked())):
            self._arrivals.ask(series)
        if self._clock.seconds() >= self._tidy_at:
            self._tidy_at = self._clock.seconds() + TIDY
            await self._run(self._tidy)

    def _tidy(self) -> None:
        """Remove what is done with, the oldest first: after its time, or at once where room is scarce. Blocks."""
        now = self.now()
        settled = ((self.ledger.settled(series), series) for series in self.spool.series())
        for at, series in sorted((at, series) for at, series in settled if at is not None):
            if now - at >= self._keep or self.spool.over(CROWDED):
                latest = self.ledger.latest(series)
                assert latest is not None
                self.spool.remove(series, latest.sops)
        self.ledger.forget(now - REMEMBER)

    def _trouble(self, failure: Failure, text: str) -> None:
        log_trouble(self._log, text, failure, "spool.defect")
