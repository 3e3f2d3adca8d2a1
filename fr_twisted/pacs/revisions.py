"""One revision of a received series on its way through the outbox, and into the ledger."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from fr_twisted.model import ScanMeta
from fr_twisted.pacs.files import NotUsableError
from fr_twisted.pacs.ledger import Ledger, State
from fr_twisted.pacs.marks import mark_of
from fr_twisted.pacs.scans import Drop, Payload, Prepared, prepare


class RevisionSource(Protocol):
    """What a `ReceivedCandidate` tells its source, in the reactor's thread, and asks of it."""

    ledger: Ledger
    now: Callable[[], float]

    def settled(self) -> None:
        """Something became of it."""

    def again(self, candidate: "ReceivedCandidate", why: str) -> None:
        """Its series is to be sent once more."""

    def superseded(self, candidate: "ReceivedCandidate", reason: str) -> None:
        """A later revision is sent instead."""


class ReceivedCandidate:
    """A revision of a received series."""

    def __init__(
        self, series: str, number: int, drop: Drop, source: RevisionSource, node: str, work: Path
    ) -> None:
        self.series, self.number, self.drop = series, number, drop
        self._source, self._node, self._work = source, node, work
        self._noted = False

    def prepare(self) -> Prepared:
        """Write the tar, with the relation to the scan of the revision before; not if a later revision is complete."""
        ledger = self._source.ledger
        latest = ledger.latest(self.series)
        together = latest is not None and latest.state not in (State.UNUSABLE, State.IGNORED)
        if latest is not None and latest.number > self.number and together:
            raise NotUsableError(
                "more instances of its series came before it was sent; they are sent together"
            )
        more: dict[str, object] = {"revision": self.number}
        if (before := ledger.before(self.series, self.number)) is not None:
            more["supersedes"] = before
        meta = ScanMeta.model_validate({**self.drop.meta.model_dump(), **more})
        drop = Drop(self.drop.files, self.drop.entries, self.drop.others, meta)
        prepared = prepare(drop, self._node, self._work)
        try:
            marks = {stamp.path.stem: mark_of(stamp.path.read_bytes()) for stamp in drop.files}
            ledger.named(self.series, self.number, prepared.item.id, marks)
        except BaseException:
            prepared.discard()
            raise
        return prepared

    def open(self, prepared: Prepared) -> Payload:
        """Open the tar."""
        return Payload(prepared)

    def kept(self, prepared: Prepared) -> None:
        """Note that the HUB has these instances."""
        self._settle(State.KEPT, None)

    def refused(self, prepared: Prepared, code: str, reason: str) -> None:
        """Note why it has not."""
        self._settle(State.REFUSED, f"{code}: {reason}")

    def _settle(self, state: State, reason: str | None) -> None:
        self._source.ledger.settle(self.series, self.number, state, reason, self._source.now())
        self._noted = True

    def ended(self) -> None:
        """Tell the source; what could not be noted is to be offered again, for the HUB to say the same."""
        if self._noted:
            self._source.settled()
        else:
            self._source.again(self, "what became of it could not be noted")

    def changed(self) -> None:
        """Somebody changed the spool: look at the series again."""
        self._source.again(self, "its files were changed")

    def skipped(self, reason: str) -> None:
        """A later revision has its instances."""
        self._source.superseded(self, reason)
