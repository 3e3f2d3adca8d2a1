"""Payloads that were given up. Their chunks are deleted later, and only if nothing refers to them by then.

A payload is listed here before it is given up, and a report's payload even before it is written, so that a crash leaves
nothing unlisted. So what is listed may be in use: a receiver that goes on with a listed payload, or commits it, wins.
The list is compared with the uploads, scans and reports after the grace period, when any such write has long been
decided. A worker may be stopped for longer than that and still finish: the payload of its report stays as long as its
claim does.
"""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

from fr_twisted.store.claims import Claims
from fr_twisted.store.connection import Mongo
from fr_twisted.store.indexes import GARBAGE, REPORTS, SCANS, UPLOADS, garbage, pending_payload, untouched
from fr_twisted.store.interfaces import Claim
from fr_twisted.store.payloads import MongoPayloads

Doc = dict[str, Any]

GRACE_SECONDS = 600.0
"""Between the listing of a payload and the deletion of its chunks; no operation lasts a tenth as long."""

BATCH = 100
"""Documents that are fetched at a time."""


async def in_order(
    mongo: Mongo, what: str, collection: str, query: Doc, by: str, projection: Doc | None = None
) -> AsyncIterator[Doc]:
    """Yield what matches, the lowest ``by`` first, a batch at a time.

    Each batch is asked for anew: whoever takes a document sees to it that it matches no more before the next one.
    """
    while True:
        found = await mongo.find(what, collection, query, limit=BATCH, projection=projection, sort=((by, 1),))
        for document in found:
            yield document
        if len(found) < BATCH:
            return


class Garbage:
    """The list ``brain_garbage``: ``_id`` (payload id), ``since``; of a report its claim, ``scan_id`` and ``token``."""

    def __init__(self, mongo: Mongo, payloads: MongoPayloads, grace_seconds: float) -> None:
        self._mongo = mongo
        self._payloads = payloads
        self._grace = grace_seconds

    async def add(self, payload_id: str, claim: Claim | None = None) -> None:
        """List a payload, or list it anew; that of a report which is being written for ``claim``, as such."""
        of_claim = None if claim is None else {"scan_id": claim.scan.scan_id, "token": claim.token}
        await self._payloads.give_up(payload_id, of_claim)

    async def drop(self, payload_id: str) -> None:
        """Take a payload off the list."""
        await self._mongo.delete("keep a payload", GARBAGE, {"_id": payload_id})

    async def clean(self, upload_ttl_seconds: float) -> int:
        """Give up old uploads, delete what nothing refers to; return how many payloads were deleted."""
        await self._expire_uploads(upload_ttl_seconds)
        before = await self._mongo.now() - timedelta(seconds=self._grace)
        removed = 0
        async for document in in_order(self._mongo, "look for garbage", GARBAGE, garbage(before), "since"):
            payload_id = document["_id"]
            if await self._is_held(document):
                await self.add(payload_id)
                continue
            if not await self._is_used(payload_id) and await self._is_unchanged(document):
                await self._payloads.remove(payload_id)
                removed += 1
            await self._mongo.delete("remove garbage", GARBAGE, document)
        return removed

    async def _expire_uploads(self, ttl_seconds: float) -> None:
        before = await self._mongo.now() - timedelta(seconds=ttl_seconds)
        projection = {"payload_id": 1, "token": 1, "touched_at": 1}
        what = "look for old uploads"
        async for document in in_order(
            self._mongo, what, UPLOADS, untouched(before), "touched_at", projection
        ):
            await self.add(document["payload_id"])
            await self._mongo.delete("give up an upload", UPLOADS, document)

    async def _is_held(self, document: Doc) -> bool:
        """Tell whether the claim for which a report is being written may still be completed.

        Once it may not, it never may: nobody claims a scan under a token of the past.
        """
        if "scan_id" not in document:
            return False
        claimed = Claims.ours(document["scan_id"], document["token"])
        return await self._mongo.find_one("look for a claim", SCANS, claimed, {"_id": 1}) is not None

    async def _is_unchanged(self, document: Doc) -> bool:
        # A payload that was given up between the look at the list and the look at its use was listed anew before that.
        return await self._mongo.find_one("look for garbage", GARBAGE, document, {"_id": 1}) is not None

    async def _is_used(self, payload_id: str) -> bool:
        # In the order in which a payload moves: what leaves one place before it is looked at is in the next by then.
        queries: tuple[tuple[str, Doc], ...] = (
            (UPLOADS, {"payload_id": payload_id}),
            (SCANS, {"payload_id": payload_id, "payload_removed_at": None}),
            (SCANS, pending_payload(payload_id)),
            (REPORTS, {"payload_id": payload_id}),
        )
        for collection, query in queries:
            if await self._mongo.find_one("look for a payload's use", collection, query, {"_id": 1}):
                return True
        return False
