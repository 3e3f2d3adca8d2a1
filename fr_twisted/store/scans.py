"""`IScans` over MongoDB: uploads, the queue and the end of an analysis, each in its own module."""

from collections.abc import Callable, Collection
from datetime import datetime

from twisted.internet.defer import Deferred
from zope.interface import implementer

from fr_twisted.model import BrainReport, BrainScan, ScanState
from fr_twisted.store.analyses import last_seen
from fr_twisted.store.chronicle import Chronicle
from fr_twisted.store.claims import Claims
from fr_twisted.store.completion import Completion
from fr_twisted.store.connection import Mongo
from fr_twisted.store.documents import Scribe, read
from fr_twisted.store.garbage import Garbage
from fr_twisted.store.indexes import SCANS, in_state
from fr_twisted.store.interfaces import Claim, IScans, NewReport, NewScan, Upload
from fr_twisted.store.payloads import MongoPayloads
from fr_twisted.store.retention import Retention
from fr_twisted.store.uploads import Uploads
from fr_twisted.store.watch import Watch

COUNT_TIMEOUT = 60.0
"""Seconds; counting is for people, who wait longer than a daemon may."""


@implementer(IScans)
class MongoScans:
    """Scans in ``brain_scans``."""

    def __init__(
        self,
        mongo: Mongo,
        scribe: Scribe,
        payloads: MongoPayloads,
        garbage: Garbage,
        chronicle: Chronicle,
        watch: Watch,
    ) -> None:
        self._mongo = mongo
        self._chronicle = chronicle
        self._garbage = garbage
        self._uploads = Uploads(mongo, scribe, payloads, garbage)
        self._claims = Claims(mongo, scribe)
        self._completion = Completion(mongo, scribe, payloads, garbage)
        self._retention = Retention(mongo, scribe, garbage)
        self._watch = watch

    def begin_upload(self, scan: NewScan) -> Deferred[Upload | None]:
        """Open or take over an upload."""
        return Deferred.fromCoroutine(self._uploads.begin(scan))

    def peek_upload(self, scan: NewScan) -> Deferred[int | None]:
        """Look for what is there of a scan."""
        return Deferred.fromCoroutine(self._uploads.peek(scan))

    def commit(self, upload: Upload) -> Deferred[None]:
        """Make the scan visible."""
        return Deferred.fromCoroutine(self._commit(upload))

    async def _commit(self, upload: Upload) -> None:
        await self._uploads.commit(upload)
        self._claims.something_new()

    def discard_upload(self, upload: Upload) -> Deferred[None]:
        """Forget an upload that is still ours."""
        return Deferred.fromCoroutine(self._uploads.discard(upload))

    def claim(
        self, owner: str, lease_seconds: float, analysis: str | None = None, besides: Collection[str] = ()
    ) -> Deferred[Claim | None]:
        """Claim the scan that is due."""
        return Deferred.fromCoroutine(self._claims.claim(owner, lease_seconds, analysis, besides))

    def last_seen(self, analyses: Collection[str]) -> Deferred[dict[str, datetime]]:
        """Tell when BRAINs were last seen."""
        return Deferred.fromCoroutine(last_seen(self._mongo, analyses))

    def renew(self, claim: Claim, lease_seconds: float) -> Deferred[None]:
        """Lengthen the lease."""
        return Deferred.fromCoroutine(self._claims.renew(claim, lease_seconds))

    def release(self, claim: Claim, error: str | None, count_attempt: bool) -> Deferred[None]:
        """Give the scan back."""
        return Deferred.fromCoroutine(self._claims.release(claim, error, count_attempt))

    def fail(self, claim: Claim, error: str, payload_broken: bool = False) -> Deferred[None]:
        """Give the scan up."""
        return Deferred.fromCoroutine(self._claims.fail(claim, error, payload_broken))

    def complete(self, claim: Claim, report: NewReport) -> Deferred[BrainReport]:
        """Store the report and end the scan."""
        return Deferred.fromCoroutine(self._completion.complete(claim, report))

    def repair(self) -> Deferred[int]:
        """Finish what a crash left."""
        return Deferred.fromCoroutine(self._repair())

    async def _repair(self) -> int:
        mended = await self._completion.repair()
        await self._chronicle.repair()
        return mended

    def clean(self, upload_ttl_seconds: float) -> Deferred[int]:
        """Remove what belongs to nothing."""
        return Deferred.fromCoroutine(self._garbage.clean(upload_ttl_seconds))

    def retire(self, keep_seconds: float) -> Deferred[int]:
        """Give up what nobody will need."""
        return Deferred.fromCoroutine(self._retention.retire(keep_seconds))

    def get(self, scan_id: str) -> Deferred[BrainScan | None]:
        """Return a scan."""
        return Deferred.fromCoroutine(self._get(scan_id))

    async def _get(self, scan_id: str) -> BrainScan | None:
        document = await self._mongo.find_one(
            "look for a scan", SCANS, {"_id": scan_id}, {"pending_report": 0}
        )
        return None if document is None else read(BrainScan, document)

    def count_by_state(self) -> Deferred[dict[str, int]]:
        """Count the scans."""
        return Deferred.fromCoroutine(self._count())

    async def _count(self) -> dict[str, int]:
        counts = {}
        for state in ScanState:
            command = {"count": SCANS, "query": in_state(state.value)}
            reply = await self._mongo.command("count scans", command, timeout=COUNT_TIMEOUT)
            counts[state.value] = int(reply["n"])
        return counts

    def on_work(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call ``wake`` when a scan became To Do."""

        def look_anew() -> None:
            self._claims.something_new()
            wake()

        return self._watch.add(look_anew)
