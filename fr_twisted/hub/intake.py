"""Keeps the scans that nodes offer: durable chunk by chunk, visible by one commit, and only then acknowledged."""

import hashlib
from collections.abc import Callable
from typing import Any, NoReturn

from pydantic import ValidationError
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from fr_twisted.hub.room import Coming, Limits, RoomService
from fr_twisted.link.interfaces import (
    Accept,
    Duplicate,
    IIntake,
    Item,
    ITransfer,
    Refuse,
    RefusedError,
    Verdict,
)
from fr_twisted.model import CHUNK_SIZE, SCAN_KIND, ScanMeta
from fr_twisted.store.interfaces import (
    ConflictError,
    IStore,
    NewScan,
    PayloadMissingError,
    StoreError,
    Upload,
)

MAX_META_DEPTH = 16
"""Levels of objects and lists in ``meta``; MongoDB's limit for a document is 100."""

MOST_WANTED = 100
"""Analyses that are remembered: there are a few, but a sender may say anything."""

_REHASH = 2
"""Chunks read at once to verify what an earlier connection left."""


def unstorable(value: Any, path: str = "meta", depth: int = 0) -> str | None:
    """Return what in ``value`` a MongoDB document cannot hold, or None.

    Its integers have 64 bits, its member names are without NUL (BSON, bsonspec.org), and names that begin with ``$``
    mean operators.
    """
    if depth > MAX_META_DEPTH:
        return f"{path}: more than {MAX_META_DEPTH} levels"
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int):
        return None if -(2**63) <= value < 2**63 else f"{path}: an integer of more than 64 bits"
    if isinstance(value, list):
        return next(filter(None, (unstorable(part, f"{path}[]", depth + 1) for part in value)), None)
    if isinstance(value, dict):
        for name, part in value.items():
            if "\0" in name or name.startswith("$") or "." in name:
                return f"{path}: a member name with NUL, '.' or a leading '$'"
            if found := unstorable(part, f"{path}.{name}"[:60], depth + 1):
                return found
    return None


@implementer(ITransfer)
class ScanTransfer:
    """A scan on its way into the store."""

    _log = Logger()

    def __init__(
        self, store: Any, upload: Upload, clock: IReactorTime, over: Callable[[], None] = lambda: None
    ) -> None:
        """Take ``over``, which is called when no more bytes will come."""
        self._store = store
        self._upload = upload
        self._clock = clock
        self._over = over
        self._since = clock.seconds()

    def write(self, offset: int, data: bytes) -> Deferred[None]:
        """Keep a chunk."""
        written: Deferred[None] = self._store.payloads().write_chunk(
            self._upload.payload_id, offset // CHUNK_SIZE, data
        )
        return written.addErrback(self._not_written)

    def finish(self) -> Deferred[None]:
        """Make the scan visible as ``To Do``."""
        self._over()
        committed: Deferred[None] = self._store.scans().commit(self._upload)
        return committed.addCallbacks(self._stored, _refuse)

    def discard(self) -> Deferred[None]:
        """Forget what was kept."""
        self._over()
        discarded: Deferred[None] = self._store.scans().discard_upload(self._upload)
        return discarded

    def cut(self) -> None:
        """The upload waits in the store to be resumed."""
        self._over()

    def _not_written(self, failure: Failure) -> Deferred[None]:
        """Other bytes than an earlier connection sent: one of the two is damaged, so begin again at 0."""
        if not failure.check(ConflictError):
            _refuse(failure)
        refusal = RefusedError("not-kept", "this part of the scan came with other bytes before", retry=True)
        return self.discard().addCallback(lambda _: Failure(refusal))

    def _stored(self, _: None) -> None:
        scan = self._upload.scan
        self._log.info(
            "keeps {scan_id} of {peer}",
            event="scan.stored",
            scan_id=scan.scan_id,
            peer=scan.source,
            bytes=scan.size,
            seconds=round(self._clock.seconds() - self._since, 3),
        )


def _refuse(failure: Failure) -> NoReturn:
    """Turn what the store says into a refusal; anything else is a defect and goes on as it is."""
    failure.trap(ConflictError, PayloadMissingError, StoreError)
    if failure.check(ConflictError):
        raise RefusedError("conflict", str(failure.value), retry=False)
    raise RefusedError("store", f"the scan could not be kept: {failure.value}", retry=True)


@implementer(IIntake)
class ScanIntake:
    """Decides about offered scans. Every node that the link lets in may send."""

    def __init__(
        self,
        store: Any,
        clock: IReactorTime,
        room: RoomService | None = None,
        wanted: set[str] | None = None,
    ) -> None:
        """Take what knows how much room the store has (None: enough), and where to put analyses that scans name."""
        IStore(store)
        self._wanted = set() if wanted is None else wanted
        self._store = store
        self._clock = clock
        self._room = room or RoomService(store, Limits(), clock, Deferred)

    def hello(self, node: str) -> str | None:
        """Welcome every node."""
        return None

    def offered(self, node: str, item: Item) -> Deferred[Verdict]:
        """Accept a scan from the first byte that is not durable yet."""
        return Deferred.fromCoroutine(self._decide(node, item))

    async def _decide(self, node: str, item: Item) -> Verdict:
        refusal, meta = self._check(item)
        if meta is None:
            return refusal
        scan = NewScan(scan_id=item.id, source=node, size=item.size, sha256=item.sha256, meta=meta)
        try:
            verdict = await self._admit(scan)
            wanted = meta.analysis if isinstance(verdict, Accept) else None
            if wanted is not None and len(self._wanted) < MOST_WANTED:
                self._wanted.add(wanted)
            return verdict
        except ConflictError as error:
            return Refuse("conflict", str(error), retry=False)
        except ValueError as error:
            return Refuse("bad-meta", f"the store cannot hold it: {error}", retry=False)
        except (StoreError, PayloadMissingError) as error:
            return Refuse("store", f"the store cannot be used now: {error}", retry=True)

    async def _admit(self, scan: NewScan) -> Verdict:
        """Begin if there is room for what the store has not got yet; else write nothing."""
        begun = 0
        if not self._room.fits(scan.size):
            kept: int | None = await self._store.scans().peek_upload(scan)
            if kept is None:
                return Duplicate()  # acknowledged, however full the store is
            begun = kept
        reason = self._room.refusal(scan.size, begun)
        if reason is not None:
            return Refuse("store-full", reason, retry=True)
        coming = self._room.expect(scan.size - begun)
        accepted = False
        try:
            verdict = await self._begin(scan, coming)
            accepted = isinstance(verdict, Accept)
            return verdict
        finally:
            if not accepted:
                coming()

    async def _begin(self, scan: NewScan, coming: Coming) -> Verdict:
        upload: Upload | None = await self._store.scans().begin_upload(scan)
        if upload is None:
            return Duplicate()
        offset = min(upload.chunks * CHUNK_SIZE, scan.size)
        coming.only(scan.size - offset)
        digest = await self._digest(upload)
        return Accept(ScanTransfer(self._store, upload, self._clock, coming), offset, digest)

    def _check(self, item: Item) -> tuple[Refuse, ScanMeta | None]:
        if item.kind != SCAN_KIND:
            return Refuse("bad-kind", f"a {item.kind}; this node takes scans", retry=False), None
        if item.size == 0:
            return Refuse("bad-item", "a scan of 0 bytes", retry=False), None
        problem = unstorable(dict(item.meta))
        meta = None
        if problem is None:
            try:
                meta = ScanMeta.model_validate(item.meta)
            except ValidationError as error:
                first = error.errors(include_url=False, include_input=False)[0]
                problem = f"meta.{'.'.join(map(str, first['loc']))}: {first['msg']}"
        return Refuse("bad-meta", problem or "", retry=False), meta

    async def _digest(self, upload: Upload) -> Any:
        """Return the digest of what is durable: read back, so that the whole scan is verified as it is kept."""
        digest = hashlib.sha256()
        for first in range(0, upload.chunks, _REHASH):
            count = min(_REHASH, upload.chunks - first)
            for chunk in await self._store.payloads().read_chunks(upload.payload_id, first, count):
                digest.update(chunk)
        return digest
