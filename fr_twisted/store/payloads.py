"""Payload bytes as chunk documents in the GridFS layout, and the account of which chunks are there."""

import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pymongo.errors import DuplicateKeyError
from twisted.internet.defer import Deferred, DeferredList, DeferredSemaphore
from zope.interface import implementer

from fr_twisted.model import CHUNK_SIZE, chunk_count
from fr_twisted.store.connection import Mongo
from fr_twisted.store.indexes import CHUNKS, GARBAGE, UPLOADS, chunk_window
from fr_twisted.store.interfaces import ConflictError, IPayloads, PayloadMissingError, StoreError

T = TypeVar("T")

IN_FLIGHT = 4
"""Chunks on their way to or from the server at a time: txmongo has no back-pressure of its own."""

WINDOW = 64
"""Chunks that are counted or removed in one operation: some servers read the whole documents for that."""

MOST_TALLIES = 4096
"""Uploads whose chunks are accounted for in memory; for others they are counted in the store."""

TOUCH_SECONDS = 60.0
"""An upload that is being written to says so in its document this often."""


@dataclass
class Tally:
    """Which chunks of an upload are durable."""

    scan_id: str
    touched: float
    """When (monotonic) the upload's document was last asked for and found: the cleaner spares it for a while after."""
    connections: int = 0
    """`Mongo.connections` when it was begun: what a server said before it went down is asked for anew."""
    kept: int = 0
    """Chunks ``0 .. kept - 1`` are there and full."""
    noted: int = 0
    """The number last written to the upload's document, or on its way there,"""
    noted_at: float = -math.inf
    """and when (monotonic)."""
    ahead: set[int] = field(default_factory=set)
    short: dict[int, int] = field(default_factory=dict)

    def add(self, n: int, size: int) -> None:
        """Chunk ``n`` of ``size`` bytes is durable."""
        if size != CHUNK_SIZE:
            self.short[n] = size
        elif n >= self.kept:
            self.ahead.add(n)
            while self.kept in self.ahead:
                self.ahead.discard(self.kept)
                self.kept += 1

    def count(self, size: int) -> int:
        """Return how many chunks of a payload of ``size`` bytes are there, from the first on without a gap."""
        full, rest = divmod(size, CHUNK_SIZE)
        if self.kept < full:
            return self.kept
        return full + 1 if rest and self.short.get(full) == rest else full

    def complete(self, size: int) -> bool:
        """Tell whether all of ``size`` bytes are there."""
        return self.count(size) == chunk_count(size)


@implementer(IPayloads)
class MongoPayloads:
    """Chunks in ``brain_chunks``: ``_id`` (payload and number), ``files_id``, ``n``, ``size``, ``data``."""

    def __init__(self, mongo: Mongo) -> None:
        self._mongo = mongo
        self._permits = DeferredSemaphore(IN_FLIGHT)
        self._tallies: OrderedDict[str, Tally] = OrderedDict()

    # --- IPayloads

    def write_chunk(self, payload_id: str, n: int, data: bytes) -> Deferred[None]:
        """Keep chunk ``n``."""
        return Deferred.fromCoroutine(self.write(payload_id, n, data))

    def read_chunks(self, payload_id: str, first: int, count: int) -> Deferred[list[bytes]]:
        """Return chunks."""
        return Deferred.fromCoroutine(self._read(payload_id, first, count))

    async def write(self, payload_id: str, n: int, data: bytes) -> None:
        """Keep chunk ``n``, as `IPayloads.write_chunk` says."""
        if not 0 < len(data) <= CHUNK_SIZE:
            raise ValueError(f"a chunk has 1 to {CHUNK_SIZE} bytes, not {len(data)}")
        content = bytes(data)
        await self._permitted(lambda: self._insert(payload_id, n, content))
        tally = self._tallies.get(payload_id)
        if tally is not None:
            tally.add(n, len(content))
            self._note(payload_id, tally)

    async def _insert(self, payload_id: str, n: int, data: bytes) -> None:
        document = {
            "_id": f"{payload_id}:{n}",
            "files_id": payload_id,
            "n": n,
            "size": len(data),
            "data": data,
        }
        try:
            await self._mongo.insert("write a chunk", CHUNKS, document)
        except DuplicateKeyError:
            await self._compare(f"{payload_id}:{n}", data)

    async def _compare(self, chunk_id: str, data: bytes) -> None:
        """Return when the chunk that is there is durable and has these bytes."""
        # A write that changes nothing is acknowledged once the majority has what it found, another's insert.
        same_size = {"_id": chunk_id, "size": len(data)}
        if await self._mongo.update("confirm a chunk", CHUNKS, same_size, {"$set": {"size": len(data)}}):
            kept = await self._mongo.find_one("compare a chunk", CHUNKS, same_size, {"data": 1})
        else:
            kept = None
        if kept is None:
            await self._mongo.check_there("compare a chunk", CHUNKS, chunk_id)
        if kept is None or bytes(kept["data"]) != data:
            raise ConflictError(f"chunk {chunk_id} is kept with other bytes")

    async def _read(self, payload_id: str, first: int, count: int) -> list[bytes]:
        reads = [Deferred.fromCoroutine(self._read_one(payload_id, n)) for n in range(first, first + count)]
        results: list[tuple[bool, Any]] = await DeferredList(reads, consumeErrors=True)
        for success, result in results:
            if not success:
                result.raiseException()
        return [chunk for _, chunk in results]

    async def _read_one(self, payload_id: str, n: int) -> bytes:
        # One chunk in a reply: txmongo's time for a reply grows with the square of its size.
        query = {"_id": f"{payload_id}:{n}"}
        found = await self._permitted(
            lambda: self._mongo.find_one("read a chunk", CHUNKS, query, {"data": 1})
        )
        if found is None:
            raise PayloadMissingError(f"chunk {n} of {payload_id} is missing")
        data = found.get("data")
        if not isinstance(data, bytes):
            raise PayloadMissingError(f"chunk {n} of {payload_id} is damaged: it holds no bytes")
        return data

    async def _permitted(self, work: Callable[[], Awaitable[T]]) -> T:
        # No deadline: those before us have theirs, and a queue of our own says nothing about the store.
        await self._mongo.runner.wait("wait for the store's turn", self._permits.acquire)
        try:
            return await work()
        finally:
            self._permits.release()

    # --- for uploads, reports and the cleaner

    def opened(self, scan_id: str, payload_id: str, touched: float) -> Tally:
        """Begin the account of a payload of which nothing is there; its upload was there at ``touched``."""
        tally = Tally(scan_id, touched, self._mongo.connections, noted_at=touched)
        self._tallies[payload_id] = tally
        self._tallies.move_to_end(payload_id)
        if len(self._tallies) > MOST_TALLIES:
            self._tallies.popitem(last=False)
        return tally

    async def counted(self, scan_id: str, payload_id: str, noted: int, touched: float) -> Tally:
        """Begin the account of a payload of which the first ``noted`` chunks are known to be there."""
        tally = self.opened(scan_id, payload_id, touched)
        tally.noted = noted
        await self.count_on(tally, payload_id, noted)
        return tally

    async def count_on(self, tally: Tally, payload_id: str, noted: int) -> None:
        """Enter in ``tally`` which chunks are there, the first ``noted`` without a look."""
        tally.kept = first = noted
        while True:
            found = await self._mongo.find(
                "count chunks",
                CHUNKS,
                chunk_window(payload_id, first, WINDOW),
                limit=WINDOW,
                projection={"_id": 0, "n": 1, "size": 1},
                sort=(("n", 1),),
            )
            for chunk in found:
                tally.add(chunk["n"], chunk["size"])
            first += WINDOW
            if tally.kept < first:
                return

    def tally(self, payload_id: str) -> Tally | None:
        """Return the account of a payload that is being received."""
        return self._tallies.get(payload_id)

    def closed(self, payload_id: str) -> None:
        """End the account."""
        self._tallies.pop(payload_id, None)

    def _note(self, payload_id: str, tally: Tally) -> None:
        """Write now and then how far an upload came: it is alive, and need not be counted from the beginning."""
        now = self._mongo.monotonic()
        if tally.kept - tally.noted < WINDOW and now - tally.noted_at < TOUCH_SECONDS:
            return
        tally.noted, tally.noted_at = tally.kept, now
        self._mongo.in_background("note an upload", self.touch(payload_id, tally))

    async def touch(self, payload_id: str, tally: Tally) -> bool:
        """Write that the upload is alive; tell whether it is there.

        The account of an upload that is not there is closed: its chunks may be deleted at any time, whatever was
        written before. They may have been deleted already, and some written since, by a process that was stopped for
        long: so they are listed as garbage once more. The cleaner spares those that are a scan's by now.
        """
        change = {"$currentDate": {"touched_at": True}, "$max": {"kept": tally.kept}}
        upload = {"_id": tally.scan_id, "payload_id": payload_id}
        asked = self._mongo.monotonic()
        if not await self._mongo.update("note an upload", UPLOADS, upload, change):
            self.closed(payload_id)
            since: dict[str, Any] = {"$currentDate": {"since": True}}
            await self._mongo.update("give up a payload", GARBAGE, {"_id": payload_id}, since, upsert=True)
            return False
        tally.touched = max(tally.touched, asked)
        return True

    async def write_all(self, payload_id: str, data: bytes) -> None:
        """Keep a whole payload that is in memory.

        Raises:
            StoreError: the server has come back without some of it.
        """
        connections = self._mongo.connections
        for n in range(chunk_count(len(data))):
            await self.write(payload_id, n, data[n * CHUNK_SIZE : (n + 1) * CHUNK_SIZE])
        if connections != self._mongo.connections:
            tally = await self.counted("", payload_id, 0, -math.inf)
            self.closed(payload_id)
            if not tally.complete(len(data)):
                raise StoreError(f"chunk {tally.count(len(data))} of {payload_id} was lost by the store")

    async def remove(self, payload_id: str) -> None:
        """Delete every chunk of a payload, some at a time."""
        first = 0
        while await self._mongo.delete(
            "remove chunks", CHUNKS, chunk_window(payload_id, first, WINDOW), many=True
        ):
            first += WINDOW
        await self._mongo.delete("remove chunks", CHUNKS, {"files_id": payload_id}, many=True)
