"""What a received series that counts as complete has become: a revision to be sent, or none. All of it blocks."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fr_twisted.model import ScanMeta
from fr_twisted.pacs.arrivals import ASKED
from fr_twisted.pacs.files import Skipped
from fr_twisted.pacs.instances import Instance, InstanceSpool
from fr_twisted.pacs.ledger import Ledger, Revision, State
from fr_twisted.pacs.marks import compare, marks_of
from fr_twisted.pacs.rules import Rules
from fr_twisted.pacs.scans import Drop, classify

BEFORE = "it was complete before the restart"


@dataclass(frozen=True)
class Outcome:
    """What a series that counts as complete has become: a revision to be sent, or none."""

    state: State
    number: int
    reason: str = ""
    drop: Drop | None = None
    skipped: tuple[Skipped, ...] = ()
    odd: str | None = None
    """What people should know: images that the HUB has came again, and were other images."""


class Judge:
    """Decides what becomes of a series, and notes it.

    Args:
        spool: where its instances are.
        ledger: what became of it before.
        rules: which are sent; may be set to others.
        patient_id: of series that name no patient.
        now: returns the time, for the ledger.
    """

    def __init__(
        self,
        spool: InstanceSpool,
        ledger: Ledger,
        rules: Rules,
        patient_id: str | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.rules = rules
        self._spool, self._ledger, self._patient_id, self._now = spool, ledger, patient_id, now

    def revise(self, series: str, why: str, unsent: bool) -> Outcome | None:
        """Note a revision of all instances that are there, and judge it; None: it is on its way already.

        What was settled before and came again, or a person asks for, is judged and sent again: the HUB knows its own.
        """
        instances = self._spool.instances(series)
        latest = self._ledger.latest(series)
        whole = frozenset(instance.sop for instance in instances)
        waiting = latest is not None and latest.sops == whole and latest.state is State.COMPLETE
        if not instances or (waiting and not unsent):
            return None
        note = None
        if latest is not None and latest.state is State.KEPT and whole <= latest.sops:
            if whole < latest.sops and why != ASKED:
                return self._part(latest, instances)
            if whole == latest.sops:
                is_news, note = self._again(latest, instances)
                if note is not None and not is_news and why != ASKED:
                    self._ledger.came_again(series, latest.number, note, self._now())
                    return Outcome(State.KEPT, latest.number, note)
        drops, skipped = classify([instance.stamp for instance in instances], self._patient_id)
        if latest is not None and latest.sops == whole and note is None:
            number = latest.number
            if latest.state is not State.KEPT:
                self._ledger.settle(series, number, State.COMPLETE, None, None)
        else:
            number = self._add(series, instances, drops, why, note)
        return self._outcome(series, number, drops, skipped, why, note)

    def revive(self, revision: Revision) -> Outcome:
        """Judge once more a revision that was on its way when we were killed."""
        stamps = [i.stamp for i in self._spool.instances(revision.series) if i.sop in revision.sops]
        drops, skipped = classify(stamps, self._patient_id)
        return self._outcome(revision.series, revision.number, drops, skipped, BEFORE, None)

    def _part(self, latest: Revision, instances: Sequence[Instance]) -> Outcome:
        """Take no part of a series for the whole: a sender began it once more and broke off.

        Were it whole it would be sent: the HUB may miss its bytes.
        """
        reason, odd = "it is part of what the HUB has", None
        found = compare(self._ledger.marks(latest.series, latest.number), marks_of(instances))
        for sop, what in found.changed.items():
            self._ledger.came_changed(latest.series, sop, ", ".join(what))
        if found.changed:
            odd = (
                f"came again with {found.words} changed, and not whole: send all of it, or it stays as it was"
            )
        self._spool.remove(latest.series, frozenset(instance.sop for instance in instances))
        return Outcome(State.KEPT, latest.number, reason, odd=odd)

    def _again(self, latest: Revision, instances: Sequence[Instance]) -> tuple[bool, str | None]:
        """Return whether a series that the HUB has came again with other images, and what is to be told of it.

        Nothing is to be told of the same bytes: they are offered, for the HUB may miss them and else knows them.
        """
        found = compare(self._ledger.marks(latest.series, latest.number), marks_of(instances))
        if found.changed:
            return True, f"came again with {found.words} changed, under the same UIDs"
        if found.same_bytes:
            return False, None
        blind = ", which were not all compared: some are compressed" if found.blind else ""
        return False, f"came again in another encoding; the HUB has these images{blind}"

    def _outcome(
        self,
        series: str,
        number: int,
        drops: Sequence[Drop],
        skipped: Sequence[Skipped],
        why: str,
        note: str | None,
    ) -> Outcome:
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
        odd = None if note is None else f"{note}; it is sent as another scan"
        return Outcome(State.COMPLETE, number, f"{why}; {decision.reason}", drop, tuple(skipped), odd)

    def _add(
        self, series: str, instances: Sequence[Instance], drops: Sequence[Drop], why: str, note: str | None
    ) -> int:
        sent = frozenset(stamp.path.stem for drop in drops[:1] for stamp in drop.files)
        members = [(instance.sop, instance.kind) for instance in instances]
        return self._ledger.add(series, members, sent, why, self._now(), note)

    def _done(
        self, series: str, number: int, state: State, reason: str, skipped: Sequence[Skipped]
    ) -> Outcome:
        """Note that it is not sent; where the HUB has it since other rules were, that stays so."""
        latest = self._ledger.latest(series)
        if latest is not None and latest.number == number and latest.state is State.KEPT:
            return Outcome(State.KEPT, number, f"the HUB has it; now {reason}", None, tuple(skipped))
        self._ledger.settle(series, number, state, reason, self._now())
        return Outcome(state, number, reason, None, tuple(skipped))
