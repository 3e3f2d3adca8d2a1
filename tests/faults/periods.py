"""How long what nobody needs is kept: Fr's own periods, or, in every other world, periods of some seconds.

Then the cleaner, the end of uploads that nobody continues, and retention are at work while faults are. What Fr compares
with each other keeps its order: an operation of the store lasts at most `MONGO_TIMEOUT`, a frame is held back for
some ten seconds at most, and a lease is far shorter than the grace.
"""

from dataclasses import dataclass

SECONDS_OF_DAY = 86_400

PERIODS = "FR_TEST_FAULTS_PERIODS"
"""Environment of HUBs and BRAINs: the periods, for ``sitecustomize_units.py``."""


@dataclass(frozen=True)
class Periods:
    """Seconds."""

    grace: float = 15.0
    """From the decision to remove chunks to their removal,"""
    upload_ttl: float = 12.0
    """of an upload that nobody continues,"""
    touch: float = 1.0
    """between two notes that one goes on,"""
    round: float = 1.0
    """between two rounds of a HUB's caretaker,"""
    keep: float = 6.0
    """of a scan's payload after its last report was delivered."""

    def environment(self) -> dict[str, str]:
        """Return what tells a unit."""
        return {PERIODS: f"{self.grace} {self.upload_ttl} {self.touch} {self.round}"}

    def of_hub(self) -> dict[str, str]:
        """Return the settings of a HUB alone: retention can be set to seconds without our help."""
        return {"FR_KEEP_PAYLOAD_DAYS": f"{self.keep / SECONDS_OF_DAY:.9f}"}

    @property
    def overdue(self) -> float:
        """Return the seconds after a decision to remove in which a HUB that is well has done it."""
        return self.grace + 5 * self.round

    @property
    def all_over(self) -> float:
        """Return the seconds in which everything is removed that ever will be, when nothing happens any more."""
        return self.keep + self.upload_ttl + 2 * self.grace + 20 * self.round


SHORT = Periods()
