"""Commitments that were asked for, of which archives have not said yet what became of them."""

from collections.abc import Iterable
from dataclasses import dataclass

from fr_twisted.pacs.dicom_out.jobs import Job
from fr_twisted.pacs.dicom_out.scu import Commitment, Fate
from fr_twisted.setting_dicom import Archive

OVERDUE = 86400.0
"""Seconds after which people are told that an archive has not said whether it keeps the results."""

AWAITED = 30 * 86400.0
"""Seconds after which its word is awaited no more: nothing may be remembered for ever."""


@dataclass(frozen=True)
class Promise:
    """A request for commitment; ``since``: when it was made, seconds since 1970."""

    report_id: str
    archive: Archive
    since: float


class Promises:
    """Open requests, by Transaction UID. An archive may report on its own association, at any time."""

    def __init__(self) -> None:
        self._open: dict[str, Promise] = {}
        self._last: dict[tuple[str, Archive], str] = {}
        """The open transaction of a report at an archive."""
        self._told: set[str] = set()
        """Those that people were told of."""
        self._under_way: set[str] = set()
        self._early: dict[str, Commitment] = {}

    def __len__(self) -> int:
        return len(self._open)

    def take_up(self, job: Job, archives: Iterable[Archive], now: float) -> None:
        """Add what an earlier run asked for."""
        for archive in archives:
            delivery = job.deliveries.get(str(archive))
            if delivery is None or delivery.transaction is None or not delivery.is_awaited:
                continue
            if delivery.fate is Fate.DELIVERED:
                since = now if delivery.asked_at is None else delivery.asked_at
                self._add(delivery.transaction, Promise(job.report_id, archive, since))
                if delivery.warned:
                    self._told.add(delivery.transaction)

    def asking(self, transaction: str, report_id: str, archive: Archive, now: float) -> None:
        """A request is on its way: the answer to it may come before we know that it was taken."""
        self._add(transaction, Promise(report_id, archive, now))
        self._under_way.add(transaction)

    def _add(self, transaction: str, promise: Promise) -> None:
        """Add a request; it takes the place of an earlier one for the same report and archive."""
        place = promise.report_id, promise.archive
        if (former := self._last.get(place)) is not None:
            self.close(former)
        self._open[transaction], self._last[place] = promise, transaction

    def asked(self, transaction: str, word: Commitment | None) -> Commitment | None:
        """Return what is known, ``word`` or a report that came early; a request that was taken stays open without."""
        self._under_way.discard(transaction)
        early = self._early.pop(transaction, None)
        known = early if early is not None and word is not None else word
        if known is None or not known.asked or known.failed is not None:
            self.close(transaction)
        return known

    def find(self, transaction: str, title: str) -> Promise | None:
        """Return the open request; None: there is none that was made to an archive of this AE title."""
        found = self._open.get(transaction)
        return found if found is not None and found.archive.title == title else None

    def came_early(self, word: Commitment) -> bool:
        """Tell whether the request is still on its way: then the report is kept for `asked`."""
        if word.transaction not in self._under_way:
            return False
        self._early[word.transaction] = word
        return True

    def overdue(self, now: float) -> list[Promise]:
        """Return, once, those awaited for longer than `OVERDUE`; close those of more than `AWAITED`."""
        late = {uid: one for uid, one in self._open.items() if now - one.since >= OVERDUE}
        found = [one for uid, one in late.items() if uid not in self._told]
        self._told |= late.keys()
        for transaction, one in late.items():
            if now - one.since >= AWAITED and transaction not in self._under_way:
                self.close(transaction)
        return found

    def close(self, transaction: str) -> None:
        """The report was noted, or is not awaited any more."""
        self._told.discard(transaction)
        promise = self._open.pop(transaction, None)
        if promise is not None:
            place = promise.report_id, promise.archive
            if self._last.get(place) == transaction:
                del self._last[place]
