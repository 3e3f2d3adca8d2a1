"""The source of series that came by DICOM: from the spool to the outbox, and what became of them into the ledger."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.python.failure import Failure

from fr_twisted.model import ScanMeta
from fr_twisted.pacs.arrivals import ASKED, Arrival, Arrivals
from fr_twisted.pacs.files import Skipped, Stamp
from fr_twisted.pacs.instances import Instance, InstanceSpool
from fr_twisted.pacs.interfaces import Candidate
from fr_twisted.pacs.ledger import Ledger, Revision, State
from fr_twisted.pacs.marks import changed, mark_of_all
from fr_twisted.pacs.outbox import Run
from fr_twisted.pacs.revisions import ReceivedCandidate
from fr_twisted.pacs.rules import Rules
from fr_twisted.pacs.scans import Drop, classify
from fr_twisted.pacs.sources import Queue, SkipLog
from fr_twisted.pacs.trouble import log_trouble

LOOK = 1.0
"""Seconds between two looks at what people ask for."""

_BEFORE = "it was complete before the restart"
_MOMENT = 1.0

TIDY = 60.0
"""Seconds between two looks for what can be removed."""

CROWDED = 0.8
"""Share of the spool's limit from which on series that are done with are removed at once."""

REMEMBER = 90 * 86400.0
"""Seconds for which the ledger tells what became of an instance."""


@dataclass(frozen=True)
class _Outcome:
    """What a series that counts as complete has become: a revision to be sent, or none."""

    state: State
    number: int
    reason: str = ""
    drop: Drop | None = None
    skipped: tuple[Skipped, ...] = ()
    changed: str | None = None
    """How images changed under their UIDs, which no sender should do to them."""


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
        self.rules = rules
        self._node, self._work, self._clock = node, work, clock
        self._keep, self._patience, self._patient_id, self._run = keep, patience, patient_id, run
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
        noting = self._run(self.ledger.came_changed, series, sop, ", ".join(what))

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
                self._send(series, _BEFORE, True)
                continue
            if latest is None or latest.sops != whole:
                self._arrivals.found(series)
            # What came after it may be no part of a scan: that must not keep it from being sent.
            awaited = await self._run(self.ledger.awaited, series)
            if awaited is not None:
                self._put(series, partial(self._revive, awaited), _BEFORE)

    def _complete(self, series: str, why: str) -> None:
        self._send(series, why, False)

    def _send(self, series: str, why: str, unsent: bool) -> None:
        """Send what is there of a series, if it is news; ``unsent``: also if it is the last revision again."""
        self._put(series, lambda: self._revise(series, why, unsent), why)

    def _put(self, series: str, make: Callable[[], _Outcome | None], why: str) -> None:
        sending = self._turn.run(lambda: Deferred.fromCoroutine(self._judge(series, make)))

        def failed(failure: Failure) -> None:
            self._trouble(failure, "a received series could not be looked at, and will be again")
            self._again(series, why)

        sending.addErrback(failed)

    async def _judge(self, series: str, make: Callable[[], _Outcome | None]) -> None:
        if not self._running:
            return
        outcome = await self._run(make)
        if outcome is None or not self._running:
            return
        self._skips.say(outcome.skipped)
        if outcome.changed is not None:
            text = "series {series} {reason}; it is sent as another scan"
            self._log.warn(text, series=series, reason=outcome.changed, event="series.changed")
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

    def _revise(self, series: str, why: str, unsent: bool) -> _Outcome | None:
        """Note a revision of all instances that are there, and judge it; None: it is on its way already. Blocks.

        What was settled before and came again, or a person asks for, is judged and sent again: the HUB knows its own.
        """
        instances = self.spool.instances(series)
        latest = self.ledger.latest(series)
        whole = frozenset(instance.sop for instance in instances)
        waiting = latest is not None and latest.sops == whole and latest.state is State.COMPLETE
        if not instances or (waiting and not unsent):
            return None
        if latest is not None and latest.state is State.KEPT and whole < latest.sops and why != ASKED:
            # A sender began it once more and broke off. Were it whole it would be sent: the HUB may miss its bytes.
            self.spool.remove(series, whole)
            return _Outcome(State.KEPT, latest.number, "it is part of what the HUB has", None, ())
        drops, skipped = classify([instance.stamp for instance in instances], self._patient_id)
        note = None
        if latest is not None and latest.state is State.KEPT and latest.sops == whole:
            news, note = self._again_kept(latest, drops[0].files if drops else [i.stamp for i in instances])
            if not news and note is not None and why != ASKED:
                self.ledger.came_again(series, latest.number, note, self.now())
                return _Outcome(State.KEPT, latest.number, note, None, ())
        number = self._number(series, instances, drops, latest, whole, why, note)
        return self._outcome(series, number, drops, skipped, why, note)

    def _again_kept(self, latest: Revision, files: Sequence[Stamp]) -> tuple[bool, str | None]:
        """Return whether a series that the HUB has came again with other images, and what is to be told of it.

        Nothing is to be told of the same bytes: they are offered, for the HUB may miss them and else knows them.
        """
        mark = mark_of_all(sorted(stamp.path for stamp in files))
        if latest.mark is None or latest.mark.data == mark.data:
            return False, None
        if what := changed(latest.mark, mark):
            return True, f"came again with {' and '.join(what)} changed, under the same UIDs"
        compared = (
            "" if latest.mark.pixels and mark.pixels else ", which were not compared: some are compressed"
        )
        return False, f"came again in another encoding; the HUB has these images{compared}"

    def _revive(self, revision: Revision) -> _Outcome:
        """Judge once more a revision that was on its way when we were killed. Blocks."""
        stamps = [i.stamp for i in self.spool.instances(revision.series) if i.sop in revision.sops]
        drops, skipped = classify(stamps, self._patient_id)
        return self._outcome(revision.series, revision.number, drops, skipped, _BEFORE)

    def _outcome(
        self,
        series: str,
        number: int,
        drops: Sequence[Drop],
        skipped: Sequence[Skipped],
        why: str,
        note: str | None = None,
    ) -> _Outcome:
        if not drops:
            reason = skipped[0].reason if skipped else "there is nothing in it to send"
            return self._done(series, number, State.UNUSABLE, reason, skipped)
        decision = self.rules.decide(drops[0].meta)
        if not decision.send:
            return self._done(series, number, State.IGNORED, decision.reason, [])
        more: dict[str, object] = {"priority": decision.priority}
        if decision.analysis is not None:
            more["analysis"] = decision.analysis
        meta = ScanMeta.model_validate({**drops[0].meta.model_dump(), **more})
        drop = Drop(drops[0].files, drops[0].entries, drops[0].others, meta)
        return _Outcome(State.COMPLETE, number, f"{why}; {decision.reason}", drop, tuple(skipped), note)

    def _number(
        self,
        series: str,
        instances: Sequence[Instance],
        drops: Sequence[Drop],
        latest: Revision | None,
        whole: frozenset[str],
        why: str,
        note: str | None,
    ) -> int:
        if latest is not None and latest.sops == whole and note is None:
            if latest.state is not State.KEPT:
                self.ledger.settle(series, latest.number, State.COMPLETE, None, None)
            return latest.number
        sent = frozenset(stamp.path.stem for drop in drops[:1] for stamp in drop.files)
        members = [(instance.sop, instance.kind) for instance in instances]
        return self.ledger.add(series, members, sent, why, self.now(), note)

    def _done(
        self, series: str, number: int, state: State, reason: str, skipped: Sequence[Skipped]
    ) -> _Outcome:
        self.ledger.settle(series, number, state, reason, self.now())
        return _Outcome(state, number, reason, None, tuple(skipped))

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
