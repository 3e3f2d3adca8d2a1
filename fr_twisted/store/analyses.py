"""Which analyses BRAINs run, noted while they claim and renew: people see what waits for a BRAIN that is not there."""

from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime

from pymongo.errors import DuplicateKeyError

from fr_twisted.store.connection import Mongo
from fr_twisted.store.indexes import ANALYSES

NOTED_EVERY = 60.0
"""Seconds between two notes of one process."""


class Analyses:
    """``brain_analyses``: when a BRAIN with an analysis was last seen."""

    def __init__(self, mongo: Mongo) -> None:
        self._mongo = mongo
        self._noted: dict[str, float] = {}

    def note(self, analysis: str | None = None) -> None:
        """Note soon that a BRAIN runs ``analysis``; None: that those which this process named before are still run."""
        if analysis is not None:
            self._noted.setdefault(analysis, -NOTED_EVERY)
        now = self._mongo.monotonic()
        for name, noted in self._noted.items():
            if now - noted >= NOTED_EVERY:
                self._noted[name] = now
                self._mongo.in_background("note an analysis", self._write(name))

    async def _write(self, name: str) -> None:
        change = {"$max": {"seen_at": await self._mongo.now()}}
        # Another BRAIN may have made the document at the same moment.
        with suppress(DuplicateKeyError):
            await self._mongo.update("note an analysis", ANALYSES, {"_id": name}, change, upsert=True)


async def last_seen(mongo: Mongo, names: Iterable[str]) -> dict[str, datetime]:
    """Return when a BRAIN with each of the analyses was last seen; one that never was is left out."""
    found = {}
    for name in names:
        document = await mongo.find_one("look for an analysis", ANALYSES, {"_id": name})
        if document is not None and isinstance(document.get("seen_at"), datetime):
            found[name] = document["seen_at"]
    return found
