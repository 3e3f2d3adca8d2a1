"""Scans on their way in: an upload document, chunks under its payload id, one insert that makes the scan visible."""

import math
from typing import Any
from uuid import uuid4

from pymongo.errors import DuplicateKeyError

from fr_twisted.model import CHUNK_SIZE, ScanState, chunk_count
from fr_twisted.store.connection import DoubtfulError, Mongo
from fr_twisted.store.documents import Scribe
from fr_twisted.store.garbage import GRACE_SECONDS, Garbage
from fr_twisted.store.indexes import SCANS, UPLOADS
from fr_twisted.store.interfaces import ConflictError, NewScan, PayloadMissingError, StoreError, Upload
from fr_twisted.store.payloads import MongoPayloads, Tally

Doc = dict[str, Any]

MOST_RACES = 16
"""Times that another receiver of the same scan may come between; then the store is said to be busy."""


_STATE = {"payload_id": 1, "payload_broken_at": 1, "report_generated": 1}


def _is_broken(kept: Doc) -> bool:
    """Tell whether the bytes of a scan were found missing or changed, and are still those."""
    return kept.get("payload_broken_at") is not None and kept["report_generated"] != ScanState.DONE.value


class Uploads:
    """Uploads in ``brain_uploads``: ``_id`` (scan id), ``payload_id``, ``token``, ``sha256``, ``size``, ``kept``..."""

    def __init__(self, mongo: Mongo, scribe: Scribe, payloads: MongoPayloads, garbage: Garbage) -> None:
        self._mongo = mongo
        self._scribe = scribe
        self._payloads = payloads
        self._garbage = garbage

    # --- begin

    async def begin(self, scan: NewScan) -> Upload | None:
        """Open, take over or supersede, as `IScans.begin_upload` says."""
        for _ in range(MOST_RACES):
            kept = await self._kept(scan)
            if kept is not None and not _is_broken(kept):
                return None
            broken = None if kept is None else kept["payload_id"]
            document = await self._mongo.find_one("begin an upload", UPLOADS, {"_id": scan.scan_id})
            upload = await (self._open(scan) if document is None else self._take_over(scan, document, broken))
            if upload is not None:
                return upload
        raise StoreError(f"{scan.scan_id}: too many receivers at once")

    async def peek(self, scan: NewScan) -> int | None:
        """Look for what is there, as `IScans.peek_upload` says."""
        kept = await self._kept(scan)
        if kept is not None and not _is_broken(kept):
            return None
        facts = {"payload_id": 1, "sha256": 1, "size": 1, "kept": 1}
        found = await self._mongo.find_one("look for an upload", UPLOADS, {"_id": scan.scan_id}, facts)
        if found is None or (found["sha256"], found["size"]) != (scan.sha256, scan.size):
            return 0
        if kept is not None and kept["payload_id"] == found["payload_id"]:
            return 0
        tally = Tally(scan.scan_id, -math.inf)
        await self._payloads.count_on(tally, found["payload_id"], found.get("kept", 0))
        return min(tally.count(scan.size) * CHUNK_SIZE, scan.size)

    async def _is_kept(self, scan: NewScan) -> bool:
        kept = await self._kept(scan)
        return kept is not None and not _is_broken(kept)

    async def _kept(self, scan: NewScan) -> Doc | None:
        facts = {"sha256": 1, "size": 1, **_STATE}
        kept = await self._mongo.find_one("look for a scan", SCANS, {"_id": scan.scan_id}, facts)
        if kept is not None and (kept["sha256"], kept["size"]) != (scan.sha256, scan.size):
            raise ConflictError(f"{scan.scan_id} is kept with other content")
        return kept

    async def _facts(self, scan: NewScan) -> Doc:
        return {
            "sha256": scan.sha256,
            "size": scan.size,
            "source": scan.source,
            "meta": scan.meta.model_dump(mode="json"),
            "touched_at": await self._mongo.now(),
        }

    async def _open(self, scan: NewScan) -> Upload | None:
        payload_id, begun = uuid4().hex, self._mongo.monotonic()
        document = {"_id": scan.scan_id, "payload_id": payload_id, "token": 1, "kept": 0}
        try:
            await self._mongo.insert("begin an upload", UPLOADS, {**document, **await self._facts(scan)})
        except DuplicateKeyError:
            return None
        self._payloads.opened(scan.scan_id, payload_id, begun)
        return Upload(scan, payload_id, 1, 0)

    async def _take_over(self, scan: NewScan, document: Doc, broken: str | None) -> Upload | None:
        payload_id, token = document["payload_id"], document["token"]
        unchanged = {"_id": scan.scan_id, "payload_id": payload_id, "token": token}
        begun = self._mongo.monotonic()
        facts = await self._facts(scan)
        same = (document["sha256"], document["size"]) == (scan.sha256, scan.size)
        if same and payload_id != broken:
            change = {"$set": {**facts, "token": token + 1}}
            if not await self._mongo.compare_and_set("take over an upload", UPLOADS, unchanged, change):
                return None
            tally = await self._payloads.counted(scan.scan_id, payload_id, document.get("kept", 0), begun)
            return Upload(scan, payload_id, token + 1, tally.count(scan.size))
        # Other bytes under the same id, of which no one was told that they are kept; or those of the scan itself,
        # found broken before this upload, which became the scan, was closed.
        await self._garbage.add(payload_id)
        fresh = uuid4().hex
        change = {"$set": {**facts, "token": token + 1, "payload_id": fresh, "kept": 0}}
        if not await self._mongo.compare_and_set("supersede an upload", UPLOADS, unchanged, change):
            return None
        self._payloads.opened(scan.scan_id, fresh, begun)
        return Upload(scan, fresh, token + 1, 0)

    # --- end

    async def commit(self, upload: Upload) -> None:
        """Make the scan visible, as `IScans.commit` says: one write when all chunks are accounted for here."""
        try:
            await self._insert(upload)
            if not self._is_fresh(self._payloads.tally(upload.payload_id)):
                await self._look_back(upload)
        except DuplicateKeyError:
            await self._check_same(upload.scan)
            await self._mend(upload)
        finally:
            self._mongo.in_background("close an upload", self._settle(upload))

    async def _insert(self, upload: Upload) -> None:
        """Check, and insert; once more whenever the server was away in between, or we were stopped for long."""
        tried = False
        while True:
            connections = self._mongo.connections
            try:
                if await self._check(upload):
                    raise DuplicateKeyError("another receiver was faster")
            except PayloadMissingError:
                if tried:
                    await self._take_back(upload)
                raise

            def doubtful(seen: int = connections) -> bool:
                fresh = self._is_fresh(self._payloads.tally(upload.payload_id))
                return seen != self._mongo.connections or not fresh

            tried = True
            try:
                await self._mongo.insert("keep a scan", SCANS, self._scan(upload), unless=doubtful)
                return
            except DoubtfulError:
                continue

    async def _check(self, upload: Upload) -> bool:
        """Raise unless every chunk is there; tell whether the scan is kept already, by another receiver."""
        tally = self._payloads.tally(upload.payload_id)
        size, scan_id = upload.scan.size, upload.scan.scan_id
        if tally is None or not self._is_fresh(tally):
            # After a long silence the cleaner may be at work: it spares an upload that was touched just now.
            tally = tally or Tally(scan_id, -math.inf, self._mongo.connections)
            if not await self._payloads.touch(upload.payload_id, tally):
                if await self._is_kept(upload.scan):
                    return True
                raise PayloadMissingError(f"{scan_id}: the upload was given up meanwhile")
        if not tally.complete(size) or tally.connections != self._mongo.connections:
            # Another process wrote some of it, it is an old upload, or the server may have come back without what it
            # had acknowledged: see for ourselves.
            tally = await self._payloads.counted(scan_id, upload.payload_id, 0, tally.touched)
        missing = tally.count(size)
        if missing < chunk_count(size):
            wanted = min(CHUNK_SIZE, size - missing * CHUNK_SIZE)
            raise PayloadMissingError(f"{scan_id}: chunk {missing} of {wanted} bytes is missing")
        return False

    def _is_fresh(self, tally: Tally | None) -> bool:
        return tally is not None and self._mongo.monotonic() - tally.touched <= GRACE_SECONDS / 2

    async def _look_back(self, upload: Upload) -> None:
        """Make sure of the chunks once more: we were stopped for long in the very moment of the commit."""
        scan_id = upload.scan.scan_id
        tally = await self._payloads.counted(scan_id, upload.payload_id, 0, self._mongo.monotonic())
        if not tally.complete(upload.scan.size):
            reason = await self._take_back(upload)
            raise PayloadMissingError(f"{scan_id}: {reason}")

    async def _take_back(self, upload: Upload) -> str:
        """Note that the bytes of a scan are gone, if it was made visible; return why."""
        scan_id, payload_id = upload.scan.scan_id, upload.payload_id
        reason = "its bytes were gone before it was committed; sent once more, it is received anew"
        # A BRAIN may have claimed it since: then it finds for itself that it is Failed. Whoever offers it is not told
        # that it is kept, whatever its state; only a scan that is Done needs its bytes no more.
        ours = {"_id": scan_id, "payload_id": payload_id}
        undone = {**ours, "report_generated": {"$ne": ScanState.DONE.value}}
        broken = {"$currentDate": {"payload_broken_at": True}}
        await self._mongo.update("note that bytes are gone", SCANS, undone, broken)
        change = {
            "$set": {"report_generated": ScanState.FAILED.value, "error": reason},
            "$push": self._scribe.push(await self._mongo.now(), "failed", reason),
        }
        waiting = {**ours, "report_generated": ScanState.TO_DO.value}
        await self._mongo.compare_and_set("take back a commit", SCANS, waiting, change)
        return reason

    def _scan(self, upload: Upload) -> Doc:
        scan, now = upload.scan, self._mongo.estimated_now()
        return {
            "_id": scan.scan_id,
            "patient_id": scan.meta.patient_id,
            "source": scan.source,
            "report_generated": ScanState.TO_DO.value,
            "meta": scan.meta.model_dump(mode="json"),
            "payload_id": upload.payload_id,
            "size": scan.size,
            "sha256": scan.sha256,
            "priority": scan.meta.priority,
            "received_at": now,
            "lease": None,
            "token": 0,
            "attempts": 0,
            "error": None,
            "history": [self._scribe.entry(now, "received")],
        }

    async def _check_same(self, scan: NewScan) -> None:
        # A write that changes nothing is acknowledged once the majority has what it found, another's insert.
        same = {"_id": scan.scan_id, "sha256": scan.sha256, "size": scan.size}
        if not await self._mongo.update("confirm a scan", SCANS, same, {"$set": {"sha256": scan.sha256}}):
            await self._mongo.check_there("confirm a scan", SCANS, scan.scan_id)
            raise ConflictError(f"{scan.scan_id} is kept with other content")

    async def _mend(self, upload: Upload) -> None:
        """Put the upload's bytes in the place of those that the scan is kept with, if they were found broken."""
        scan_id = upload.scan.scan_id
        kept = await self._mongo.find_one("look for a scan", SCANS, {"_id": scan_id}, _STATE)
        if kept is None or not _is_broken(kept):
            return
        if kept["payload_id"] != upload.payload_id:
            await self._garbage.add(kept["payload_id"])
            now = await self._mongo.now()
            waiting = {"$in": [ScanState.FAILED.value, ScanState.TO_DO.value]}
            change = {
                "$set": {
                    "report_generated": ScanState.TO_DO.value,
                    "payload_id": upload.payload_id,
                    "payload_broken_at": None,
                    "attempts": 0,
                    "given_back": 0,
                    "error": None,
                    "lease": None,
                },
                "$push": self._scribe.push(now, "received anew"),
            }
            unchanged = {**kept, "report_generated": waiting}
            if await self._mongo.compare_and_set("keep a scan anew", SCANS, unchanged, change):
                return
        raise StoreError(f"{scan_id}: its bytes were found broken, and it is being tried again just now")

    async def _settle(self, upload: Upload) -> None:
        """Remove the upload's document once the scan is kept; its chunks too if they are not the scan's."""
        kept = await self._mongo.find_one("look for a scan", SCANS, {"_id": upload.scan.scan_id}, _STATE)
        if kept is None or _is_broken(kept):
            return
        if kept["payload_id"] != upload.payload_id:
            await self._garbage.add(upload.payload_id)
        ours = {"_id": upload.scan.scan_id, "payload_id": upload.payload_id}
        await self._mongo.delete("close an upload", UPLOADS, ours)
        self._payloads.closed(upload.payload_id)

    async def discard(self, upload: Upload) -> None:
        """Forget it, as `IScans.discard_upload` says."""
        same = {"_id": upload.scan.scan_id, "payload_id": upload.payload_id}
        found = await self._mongo.find_one("discard an upload", UPLOADS, same, {"token": 1})
        if found is None:
            # It was given up before, and what we wrote since then with nobody's knowledge is given up now.
            await self._garbage.add(upload.payload_id)
        if found is None or found["token"] != upload.token:
            return
        # Whoever takes it over just now keeps it though it is listed: the cleaner looks for its use, and un-lists it.
        # Were it un-listed here, another's listing of it, a moment ago, could go with ours, and its chunks stay.
        await self._garbage.add(upload.payload_id)
        if await self._mongo.delete("discard an upload", UPLOADS, {**same, "token": upload.token}):
            self._payloads.closed(upload.payload_id)
