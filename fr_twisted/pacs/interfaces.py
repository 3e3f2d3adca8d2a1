"""What the outbox asks of the places that scans come from."""

from typing import Protocol

from twisted.internet.defer import Deferred

from fr_twisted.pacs.scans import Payload, Prepared


class Candidate(Protocol):
    """One scan that is to be sent. It is asked to `prepare`, then told how it ended: by exactly one of the others.

    `prepare`, `open`, `kept` and `refused` block and are called in threads, one at a time.
    """

    def prepare(self) -> Prepared:
        """Return the item and its bytes; again after each deferral, with the same result while nothing changed.

        Raises:
            ChangedError: what it was made of has changed; `changed` follows.
            NotUsableError: it is not to be sent; `skipped` follows.
            OSError: not now.
        """

    def open(self, prepared: Prepared) -> Payload:
        """Open the bytes to be sent; raises as `prepare` does."""

    def kept(self, prepared: Prepared) -> None:
        """The HUB keeps it."""

    def refused(self, prepared: Prepared, code: str, reason: str) -> None:
        """The HUB refuses it for good."""

    def ended(self) -> None:
        """It was kept or refused, and that was noted; or was to be noted and could not be. In the reactor's thread."""

    def changed(self) -> None:
        """It has changed and is dropped; what is there now may be another. In the reactor's thread."""

    def skipped(self, reason: str) -> None:
        """It is not sent. In the reactor's thread."""


class Source(Protocol):
    """A place that scans come from."""

    def start(self) -> None:
        """Begin to look."""

    def stop(self) -> None:
        """Look no more; requests under way are cancelled by who made them."""

    def next_candidate(self) -> Deferred[Candidate | None]:
        """Fire with a scan when there is one; None: there will be no more. One request at a time."""
