"""Looks at everything that is kept: bytes against their digests, documents against each other.

Units go on working meanwhile, so whatever looks wrong is read again before it is told of; and the places in which a
payload may be referred to are searched in the order in which it moves from one to the next.
"""

import hashlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import Any, Protocol

from pydantic import ValidationError
from twisted.internet.defer import Deferred, DeferredList

from fr_twisted.model import ScanState, chunk_count, utc_text
from fr_twisted.store import judge
from fr_twisted.store.garbage import GRACE_SECONDS
from fr_twisted.store.indexes import GARBAGE, REPORTS, SCANS, UPLOADS
from fr_twisted.store.interfaces import PayloadMissingError
from fr_twisted.store.ioperators import Check, Checked, Finding, FindingKind, Progress

Doc = Mapping[str, Any]

AT_ONCE = 4
"""Payloads that are checked at a time,"""

CHUNKS_AT_ONCE = 4
"""and chunks of one that are held."""


class Shelves(Protocol):
    """Where the documents and chunks are: MongoDB, or memory in tests."""

    async def now(self) -> datetime:
        """Return the store's clock."""

    async def count(self, collection: str) -> int:
        """Return about how many documents there are."""

    def documents(self, collection: str) -> AsyncIterator[Sequence[Doc]]:
        """Give all documents, some at a time; of scans without what their pending report found."""

    async def document(self, collection: str, item_id: str) -> Doc | None:
        """Return one of them as it is now."""

    async def reported(self, scan_ids: Sequence[str]) -> set[str]:
        """Return those of the scans that have a report."""

    async def seen(self, analysis: str) -> datetime | None:
        """Return when a BRAIN that runs it was last seen."""

    async def heads(self, payload_id: str) -> list[judge.Head]:
        """Return number and size of every chunk of a payload."""

    async def read(self, payload_id: str, first: int, count: int) -> list[bytes]:
        """Return chunks, or raise a `PayloadMissingError`."""

    def payloads_with_chunks(self) -> AsyncIterator[tuple[int, Sequence[str]]]:
        """Give the ids of payloads that have chunks, some at a time, each with how many chunks those are."""

    async def referred_to(self, payload_ids: Sequence[str]) -> set[str]:
        """Return those that the list of garbage, an upload, a scan or a report refers to, in that order and again.

        A scan whose payload was removed on purpose does not refer to it any more.
        """

    async def missing_indexes(self) -> list[str]:
        """Return the names of indexes that are not there."""


class Verifier:
    """One look at everything."""

    def __init__(
        self, shelves: Shelves, check: Check, found: Callable[[Finding], None], progress: Progress
    ) -> None:
        self._shelves = shelves
        self._check = check
        self._found = found
        self._progress = progress
        self._grace = timedelta(seconds=check.grace_seconds)
        self._now = datetime.min
        self._checked = Checked()
        self._seen: dict[str, datetime | None] = {}
        """When a BRAIN that runs an analysis was last seen."""

    async def run(self) -> Checked:
        """Look at everything; return how much that was."""
        for name in await self._shelves.missing_indexes():
            self._tell(
                Finding(FindingKind.INDEX_MISSING, name, "the index is not there: restart a HUB or BRAIN")
            )
        self._checked.scans = await self._walk("scans", SCANS, self._scans)
        self._checked.reports = await self._walk("reports", REPORTS, self._reports)
        self._checked.uploads = await self._walk("uploads", UPLOADS, self._uploads)
        await self._garbage()
        await self._orphans()
        return self._checked

    def _tell(self, finding: Finding) -> None:
        findings = self._checked.findings
        findings[finding.kind] = findings.get(finding.kind, 0) + 1
        self._found(finding)

    async def _walk(self, what: str, collection: str, look: Callable[[Sequence[Doc]], Any]) -> int:
        total, done = await self._shelves.count(collection), 0
        self._progress(what, 0, total)
        async with aclosing(self._shelves.documents(collection)) as all_of_them:  # type: ignore[type-var]
            async for documents in all_of_them:
                self._now = await self._shelves.now()
                for first in range(0, len(documents), AT_ONCE):
                    few = documents[first : first + AT_ONCE]
                    await look(few)
                    done += len(few)
                    self._progress(what, done, max(done, total))
        return done

    # --- scans

    async def _scans(self, documents: Sequence[Doc]) -> None:
        done = [doc["_id"] for doc in documents if doc.get("report_generated") == ScanState.DONE]
        reported = await self._shelves.reported(done) if done else set()
        await _together([self._scan(document, document["_id"] in reported) for document in documents])

    async def _scan(self, document: Doc, has_report: bool) -> None:
        findings = self._of_scan(document, has_report)
        if findings:
            again = await self._shelves.document(SCANS, document["_id"])
            if again is None:
                return
            has_report = bool(await self._shelves.reported([document["_id"]]))
            findings = self._of_scan(again, has_report)
        for finding in findings:
            self._tell(finding)
        if document.get("payload_removed_at") is not None:
            self._checked.removed += 1
        elif judge.scan_damage(document) is None:
            await self._payload(SCANS, document)
            await self._waits(document)
        if isinstance(document.get("pending_report"), Mapping):
            await self._pending(document["_id"], document["pending_report"])

    async def _waits(self, document: Doc) -> None:
        """Look for what an undamaged scan waits for in vain."""
        found, analysis = judge.given_back(document), judge.analysis_of(document)
        if found is not None:
            self._tell(found)
        if analysis is not None:
            if analysis not in self._seen:
                self._seen[analysis] = await self._shelves.seen(analysis)
            found = judge.unserved(document, self._seen[analysis], self._now)
            if found is not None:
                self._tell(found)

    async def _pending(self, scan_id: str, report: Doc) -> None:
        """Look at the payload of a report that stands in the document of its scan still."""
        try:
            payload_id = judge.payload_of(report).payload_id
        except (KeyError, ValidationError):
            words = "the report in its document does not say where its bytes are"
            self._tell(Finding(FindingKind.REPORT_DAMAGED, scan_id, words))
            return
        self._checked.payloads += 1
        findings = await self._of_payload({"_id": scan_id, **report})
        again = await self._shelves.document(SCANS, scan_id) if findings else None
        left = None if again is None else again.get("pending_report")
        if isinstance(left, Mapping) and left.get("payload_id") == payload_id:
            for finding in findings:
                self._tell(finding)

    def _of_scan(self, document: Doc, has_report: bool) -> list[Finding]:
        damaged = judge.scan_damage(document)
        if damaged is not None:
            return [damaged]
        found = (
            judge.stuck(document, self._now, self._grace),
            judge.without_report(document, has_report, self._now, self._grace),
        )
        return [finding for finding in found if finding is not None]

    # --- reports

    async def _reports(self, documents: Sequence[Doc]) -> None:
        await _together([self._report(document) for document in documents])

    async def _report(self, document: Doc) -> None:
        damaged = judge.report_damage(document)
        if damaged is not None:
            self._tell(damaged)
            return
        if await self._shelves.document(SCANS, document["scan_id"]) is None:
            words = f"there is no scan {document['scan_id']}"
            self._tell(Finding(FindingKind.REPORT_WITHOUT_SCAN, document["_id"], words))
        waits = judge.waiting(document, self._now)
        if waits is not None:
            self._tell(waits)
        await self._payload(REPORTS, document)

    # --- payloads

    async def _payload(self, collection: str, document: Doc) -> None:
        self._checked.payloads += 1
        findings = await self._of_payload(document)
        if not findings:
            return
        again = await self._shelves.document(collection, document["_id"])
        if again is None or again.get("payload_removed_at") is not None:
            return  # removed on purpose, while we looked
        if again.get("payload_id") != document["payload_id"]:
            return  # received anew, while we looked
        for finding in findings:
            self._tell(finding)

    async def _of_payload(self, document: Doc) -> list[Finding]:
        item_id, payload = str(document["_id"]), judge.payload_of(document)
        findings = judge.chunks(item_id, payload.size, await self._shelves.heads(payload.payload_id))
        if not self._check.payloads or any(
            finding.kind is not FindingKind.CHUNK_EXTRA for finding in findings
        ):
            return findings
        try:
            digest = await self._digest(payload.payload_id, payload.size)
        except PayloadMissingError as error:
            return [*findings, Finding(FindingKind.CHUNK_MISSING, item_id, str(error))]
        if digest != payload.sha256:
            words = f"its bytes have the sha256 {digest}, not {payload.sha256}"
            findings.append(Finding(FindingKind.DIGEST, item_id, words))
        return findings

    async def _digest(self, payload_id: str, size: int) -> str:
        digest, count = hashlib.sha256(), chunk_count(size)
        for first in range(0, count, CHUNKS_AT_ONCE):
            for chunk in await self._shelves.read(payload_id, first, min(CHUNKS_AT_ONCE, count - first)):
                digest.update(chunk)
                self._checked.bytes_hashed += len(chunk)
        return digest.hexdigest()

    # --- what belongs to nothing

    async def _uploads(self, documents: Sequence[Doc]) -> None:
        before = self._now - timedelta(seconds=self._check.upload_ttl_seconds) - self._grace
        for document in documents:
            await self._upload(document)
            finding = judge.stale(document, before)
            if finding is None:
                continue
            again = await self._shelves.document(UPLOADS, document["_id"])
            finding = None if again is None else judge.stale(again, before)
            if finding is not None:
                self._tell(finding)

    async def _upload(self, document: Doc) -> None:
        payload_id = document.get("payload_id")
        if not isinstance(payload_id, str):
            return
        findings = judge.kept_chunks(document, await self._shelves.heads(payload_id))
        again = await self._shelves.document(UPLOADS, document["_id"]) if findings else None
        if again is not None and again.get("payload_id") == payload_id:
            for finding in findings:
                self._tell(finding)

    async def _garbage(self) -> None:
        before = await self._shelves.now() - timedelta(seconds=GRACE_SECONDS) - self._grace
        overdue, oldest = 0, before
        async with aclosing(self._shelves.documents(GARBAGE)) as listed:  # type: ignore[type-var]
            async for documents in listed:
                for since in (document.get("since") for document in documents):
                    if isinstance(since, datetime) and since < before:
                        overdue, oldest = overdue + 1, min(oldest, since)
        if overdue:
            words = f"{overdue} payloads wait to be removed, since {utc_text(oldest)}: does a HUB run?"
            self._tell(Finding(FindingKind.GARBAGE_OVERDUE, "brain_garbage", words))

    async def _orphans(self) -> None:
        done = 0
        async with aclosing(self._shelves.payloads_with_chunks()) as all_of_them:  # type: ignore[type-var]
            async for count, payload_ids in all_of_them:
                known = await self._shelves.referred_to(payload_ids) if payload_ids else set()
                for payload_id in payload_ids:
                    if payload_id not in known:
                        await self._orphan(payload_id)
                done += count
                self._progress("chunks", done, done)

    async def _orphan(self, payload_id: str) -> None:
        left = await self._shelves.heads(payload_id)  # none, if the cleaner was at work
        if left:
            size = sum(size for _, size in left)
            words = f"no scan, report or upload has this payload: chunks {len(left)}, bytes {size}"
            self._tell(Finding(FindingKind.ORPHAN, payload_id, words))


async def _together(works: Sequence[Any]) -> None:
    """Await all; raise the first error, when all are over."""
    results: list[tuple[bool, Any]] = await DeferredList(
        [Deferred.fromCoroutine(work) for work in works], consumeErrors=True
    )
    for success, result in results:
        if not success:
            result.raiseException()
