"""Commitments that were asked for, of which archives have not said yet what became of them."""

from collections.abc import Iterable
from dataclasses import dataclass

from fr_twisted.pacs.dicom_out.jobs import Job
from fr_twisted.pacs.dicom_out.scu import Commitment, Fate
from fr_twisted.setting_dicom import Archive


@dataclass(frozen=True)
class Promise:
    """A request for commitment."""

    report_id: str
    archive: Archive


class Promises:
    """Open requests, by Transaction UID. An archive may report on its own association, at any time."""

    def __init__(self) -> None:
        self._open: dict[str, Promise] = {}
        self._under_way: set[str] = set()
        self._early: dict[str, Commitment] = {}

    def take_up(self, job: Job, archives: Iterable[Archive]) -> None:
        """Add what an earlier run asked for."""
        for archive in archives:
            delivery = job.deliveries.get(str(archive))
            if delivery is None or delivery.transaction is None or delivery.fate is not Fate.DELIVERED:
                continue
            if delivery.committed is None and delivery.asked:
                self._open[delivery.transaction] = Promise(job.report_id, archive)

    def asking(self, transaction: str, report_id: str, archive: Archive) -> None:
        """A request is on its way: the answer to it may come before we know that it was taken."""
        self._open[transaction] = Promise(report_id, archive)
        self._under_way.add(transaction)

    def asked(self, transaction: str, word: Commitment | None) -> Commitment | None:
        """Return what is known, ``word`` or a report that came early; a request that was taken stays open without."""
        self._under_way.discard(transaction)
        early = self._early.pop(transaction, None)
        known = early if early is not None and word is not None else word
        if known is None or not known.asked or known.failed is not None:
            self._open.pop(transaction, None)
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

    def close(self, transaction: str) -> None:
        """The report was noted."""
        self._open.pop(transaction, None)
