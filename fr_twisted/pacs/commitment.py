"""Storage commitment: requests are kept, decided when the HUB has the instances, and answered until that is heard.

An instance is committed when the HUB has acknowledged a scan that holds it, so that it is durable in the store; that it
lies in the spool is not enough. While something that was asked for is still on its way, the answer waits.
"""

import threading
import time
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Any, Protocol

from pydicom.dataset import Dataset
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from fr_twisted.pacs.commitment_data import make_report, read_request
from fr_twisted.pacs.instances import UID, InstanceSpool
from fr_twisted.pacs.ledger import Ledger, Request, State
from fr_twisted.pacs.outbox import Run
from fr_twisted.pacs.trouble import log_trouble

COMMITTED = 0
FIRST_DELAY = 5.0
MAX_DELAY = 600.0
"""Seconds between two attempts to deliver an answer, at first and at most."""

GIVE_UP = 7 * 86400.0
"""Seconds after a request for which its answer is tried to be delivered."""

SILENT = 1.0
"""Seconds that a failed attempt took, from which on the peer is taken to be away."""

LOOK = 30.0
"""Seconds between two looks at what is not decided."""

MAX_ITEMS = 100_000
"""Instances of one request."""


class Reason(IntEnum):
    """Failure Reason (0008,1197), PS3.3 C.14."""

    PROCESSING_FAILURE = 0x0110
    NO_SUCH_INSTANCE = 0x0112
    CLASS_CONFLICT = 0x0119


def judge(ledger: Ledger, spool: InstanceSpool, kind: str, sop: str) -> int | None:
    """Return `COMMITTED` or a `Reason`; None: it is on its way to the HUB. Blocks."""
    known = ledger.memberships(sop)
    kept = next((member for member in known if member.sent and member.state is State.KEPT), None)
    if kept is not None:
        return COMMITTED if kept.kind == kind else Reason.CLASS_CONFLICT
    here = spool.find(sop)
    kinds = {member.kind for member in known} | ({here[1].kind} if here else set())
    if not kinds:
        return Reason.NO_SUCH_INSTANCE
    if kind not in kinds:
        return Reason.CLASS_CONFLICT
    if any(member.sent and member.state is State.COMPLETE for member in known):
        return None
    if here is None:
        return Reason.PROCESSING_FAILURE
    last = known[0] if known else None
    if last is None or (last.state is State.COMPLETE and last.sent):
        return None
    return None if last.state is State.SUPERSEDED else Reason.PROCESSING_FAILURE


class Deliver(Protocol):
    """Delivers an answer; blocks."""

    def __call__(self, association: Any, peer: str, kind: int, information: Dataset) -> str | None:
        """Return None, or why it was not delivered."""


class CommitmentBook:
    """The requests. `requested` is called in threads, everything else in the reactor's.

    Args:
        ledger: keeps them.
        spool: knows what is on its way.
        deliver: sends an answer.
        clock: measures the waiting.
        wait: seconds after which what is still on its way counts as failed.
        call: runs something in the reactor's thread.
        run: runs what blocks.
        now: returns the time, for the ledger.
    """

    _log = Logger()

    def __init__(
        self,
        ledger: Ledger,
        spool: InstanceSpool,
        deliver: Deliver,
        clock: IReactorTime,
        wait: float,
        call: Callable[..., None],
        *,
        run: Run = deferToThread,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._ledger, self._spool, self._deliver, self._clock = ledger, spool, deliver, clock
        self._wait, self._call, self._run, self._now = wait, call, run, now
        self._associations: dict[int, Any] = {}
        self._mutex = threading.Lock()
        self._not_before: dict[int, float] = {}
        self._timer: IDelayedCall | None = None
        self._working: Deferred[None] | None = None
        self._again = self._running = False

    def start(self) -> None:
        """Take up the requests of before."""
        self._running = True
        self.look()

    def stop(self) -> Deferred[None]:
        """Decide and deliver nothing more; fire when nothing is at work."""
        self._running = False
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        done: Deferred[None] = Deferred()
        if self._working is None:
            done.callback(None)
        else:
            self._working.addBoth(lambda _: done.callback(None))
        return done

    def requested(self, association: Any, peer: str, information: Dataset) -> tuple[int, str]:
        """Keep a request before its N-ACTION is answered; return the status and a comment."""
        uid, items = read_request(information)
        if not UID.match(uid):
            return 0x0120 if not uid else 0x0106, "no valid Transaction UID"
        if not items:
            return 0x0120, "no valid Referenced SOP Sequence"
        if len(items) > MAX_ITEMS:
            return 0x0110, f"more than {MAX_ITEMS} instances"
        request = self._ledger.request(uid, peer, items, self._now())
        if request is None:
            return 0x0110, "another request has its Transaction UID"
        with self._mutex:
            self._associations[request.id] = association
        self._call(self.look)
        return 0, ""

    def look(self) -> None:
        """See what can be decided and delivered now."""
        if not self._running:
            return
        if self._working is not None:
            self._again = True
            return
        self._again = False
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        working = self._working = Deferred.fromCoroutine(self._look())
        working.addErrback(
            lambda failure: log_trouble(
                self._log, "commitments could not be seen to", failure, "commit.defect"
            )
        )
        working.addCallback(lambda _: self._over())

    def _over(self) -> None:
        self._working = None
        if self._again:
            self.look()
        elif self._running:
            due = min(self._not_before.values(), default=float("inf")) - self._clock.seconds()
            self._timer = self._clock.callLater(max(0.1, min(LOOK, due)), self.look)

    async def _look(self) -> None:
        silent: dict[str, float] = {}
        for request in await self._run(self._ledger.requests):
            result = request.result
            if result is None:
                result = await self._run(self._decide, request)
            due = self._not_before.get(request.id, 0.0) <= self._clock.seconds()
            if result is None or not due or not self._running:
                continue
            if request.peer in silent:
                # One that is switched off costs its time once a round, whatever it asked for: others wait.
                self._not_before[request.id] = silent[request.peer]
                continue
            began = self._clock.seconds()
            await self._answer(request, result)
            again = self._not_before.get(request.id)
            if again is not None and self._clock.seconds() - began >= SILENT:
                silent[request.peer] = again

    def _decide(self, request: Request) -> Mapping[str, int] | None:
        """Return what failed and why, and note it; None: it is not all decided. Blocks."""
        found = {sop: judge(self._ledger, self._spool, kind, sop) for kind, sop in request.items}
        if None in found.values() and self._now() - request.at < self._wait:
            return None
        result = {
            sop: int(Reason.PROCESSING_FAILURE if reason is None else reason)
            for sop, reason in found.items()
            if reason != COMMITTED
        }
        self._ledger.decide(request.id, result)
        return result

    async def _answer(self, request: Request, result: Mapping[str, int]) -> None:
        with self._mutex:
            association = self._associations.get(request.id)
        kind, information = make_report(request.uid, request.items, result)
        problem = await self._run(self._deliver, association, request.peer, kind, information)
        if problem is None or self._now() - request.at > GIVE_UP:
            await self._run(self._ledger.answered, request.id)
            self._not_before.pop(request.id, None)
            with self._mutex:
                self._associations.pop(request.id, None)
        else:
            await self._run(self._ledger.tried, request.id)
            delay = min(MAX_DELAY, FIRST_DELAY * 2.0 ** min(request.attempts, 16))
            self._not_before[request.id] = self._clock.seconds() + delay
        self._tell(request, result, problem)

    def _tell(self, request: Request, result: Mapping[str, int], problem: str | None) -> None:
        count = len(request.items)
        if problem is None:
            text = "told {peer}: {count} of {size} instances committed"
            self._log.info(
                text, peer=request.peer, count=count - len(result), size=count, event="commit.reported"
            )
        else:
            text = "{peer} could not be told of a commitment, attempt {attempts}: {reason}"
            self._log.warn(
                text,
                peer=request.peer,
                attempts=request.attempts + 1,
                reason=problem,
                event="commit.not-reported",
            )
