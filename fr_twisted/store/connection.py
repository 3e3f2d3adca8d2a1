"""The few kinds of operations that the store is made of."""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from fr_twisted.ops.steady import steady_seconds
from fr_twisted.store.interfaces import StoreError
from fr_twisted.store.pool import close_pool, make_pool
from fr_twisted.store.retry import KeptOutError, Runner
from fr_twisted.store.tls import HostVerifier
from fr_twisted.store.uri import MongoAddress

Doc = dict[str, Any]

CLOCK_AGE = 5.0
"""Seconds for which one reading of the store's clock is carried on by the monotonic clock of this machine."""


class DoubtfulError(StoreError):
    """Something has to be looked at once more before it is written."""


class Mongo:
    """One database, through one pool. Every operation has a deadline and raises what `Runner.run` says."""

    _log = Logger()

    def __init__(
        self,
        address: MongoAddress,
        clock: IReactorTime,
        timeout: float,
        monotonic: Callable[[], float] = steady_seconds,
    ) -> None:
        self.address = address
        self.clock = clock
        self.monotonic = monotonic
        self._timeout = timeout
        self.runner = Runner(clock, address.redacted, timeout)
        self.majority_reads = True
        self.connections = 0
        """How many were made so far: where that has changed, the server may have gone down and come back."""
        self._pool: Any = None
        self._background: set[Deferred[Any]] = set()
        self._read_at: tuple[datetime, float] | None = None

    # --- life

    def start(self, verifier: HostVerifier | None, pool_size: int, connect_timeout: float) -> None:
        """Begin to connect, for the first time or after `close`."""
        self.runner = Runner(self.clock, self.address.redacted, self._timeout)
        self._pool = make_pool(self.address, verifier, pool_size, connect_timeout, self._count_connection)

    def _count_connection(self) -> None:
        self.connections += 1

    async def close(self) -> None:
        """End what is under way and close the connections."""
        self.runner.close()
        if self._background:
            await DeferredList(list(self._background))
        pool, self._pool = self._pool, None
        if pool is not None:
            await close_pool(pool, self.clock)

    def in_background(self, what: str, work: Coroutine[Deferred[Any], Any, Any]) -> None:
        """Run ``work``, whose failure harms nothing."""
        deferred = Deferred.fromCoroutine(work)
        self._background.add(deferred)

        def done(_: object) -> None:
            self._background.discard(deferred)

        deferred.addErrback(
            lambda failure: self._log.debug(
                "{what} did not work: {reason}",
                event="store.background",
                what=what,
                reason=failure.getErrorMessage(),
            )
        ).addBoth(done)

    # --- the store's clock

    async def now(self, max_age: float = CLOCK_AGE) -> datetime:
        """Return the time of the store's clock, to the millisecond, read from it at most ``max_age`` seconds ago."""
        if self._read_at is None or self.monotonic() - self._read_at[1] > max_age:
            self.read_clock(await self.command("read the clock", {"hello": 1}, database="admin"))
        return self.estimated_now()

    def read_clock(self, hello: Mapping[str, Any]) -> None:
        """Take the time out of a reply to ``hello``."""
        local_time = hello.get("localTime")
        if not isinstance(local_time, datetime):
            raise StoreError("the store does not tell its time")
        self._read_at = (local_time.astimezone(UTC), self.monotonic())

    def estimated_now(self) -> datetime:
        """Return the time of the store's clock as last read and carried on since: no round trip.

        Raises:
            StoreError: it was never read.
        """
        if self._read_at is None:
            raise StoreError("the store's clock was not read yet")
        read, when = self._read_at
        now = read + timedelta(seconds=self.monotonic() - when)
        return now.replace(microsecond=now.microsecond // 1000 * 1000)

    # --- operations

    async def command(
        self,
        what: str,
        command: Mapping[str, Any],
        *,
        database: str | None = None,
        timeout: float | None = None,
        session: Any = None,
    ) -> Doc:
        """Run a database command and return the reply; one of a ``session`` is not repeated when it fails."""
        # txmongo writes into the document it is given.
        name = database or self.address.database

        def attempt() -> Any:
            return self._connected().command(name, dict(command), session=session)

        if session is None:
            return await self.runner.run(what, attempt, timeout)
        return await self.runner.once(what, attempt, self._timeout if timeout is None else timeout)

    def session(self) -> Any:
        """Return a session of its own, for commands that belong together."""
        return self._connected().start_session()

    async def find(
        self,
        what: str,
        collection: str,
        query: Mapping[str, Any],
        *,
        limit: int,
        projection: Mapping[str, int] | None = None,
        sort: Sequence[tuple[str, int]] = (),
        timeout: float | None = None,
    ) -> list[Doc]:
        """Return at most ``limit`` documents, in one reply; only what the majority has, so that none is rolled back."""
        command = find_command(collection, query, limit=limit, projection=projection, sort=sort)
        if self.majority_reads:
            command["readConcern"] = {"level": "majority"}
        reply = await self.command(what, command, timeout=timeout)
        documents: list[Doc] = reply["cursor"]["firstBatch"]
        return documents

    async def find_one(
        self,
        what: str,
        collection: str,
        query: Mapping[str, Any],
        projection: Mapping[str, int] | None = None,
    ) -> Doc | None:
        """Return the document, or None."""
        found = await self.find(what, collection, query, limit=1, projection=projection)
        return found[0] if found else None

    async def insert(
        self,
        what: str,
        collection: str,
        document: Doc,
        timeout: float | None = None,
        *,
        unless: Callable[[], bool] = lambda: False,
    ) -> None:
        """Insert; a DuplicateKeyError may come of our own repeat.

        Raises:
            DoubtfulError: ``unless``, asked before each attempt, was true: what the document rests on may be gone.
        """

        def attempt() -> Any:
            if unless():
                raise DoubtfulError(f"{what}: the store may have come back without what it had acknowledged")
            return self._collection(collection).insert_one(document)

        await self.runner.run(what, attempt, timeout)

    async def check_there(self, what: str, collection: str, document_id: str) -> None:
        """Return if the document is there that an insert met.

        Raises:
            KeptOutError: there is none of that id.
        """
        if await self.find_one(what, collection, {"_id": document_id}, {"_id": 1}) is None:
            raise KeptOutError(
                f"{document_id} is kept out of {collection} by a unique index that is not ours: drop it"
            )

    async def update(
        self,
        what: str,
        collection: str,
        query: Mapping[str, Any],
        change: Mapping[str, Any],
        *,
        upsert: bool = False,
    ) -> bool:
        """Update one document; tell whether there was one. The change must be one that may be applied twice."""

        def attempt() -> Any:
            return self._collection(collection).update_one(dict(query), dict(change), upsert)

        result = await self.runner.run(what, attempt)
        return bool(result.raw_result["n"])

    async def compare_and_set(
        self,
        what: str,
        collection: str,
        query: Mapping[str, Any],
        change: Mapping[str, Any],
        mark: str | None = None,
    ) -> bool:
        """Apply ``change`` to the document ``query`` (with its ``_id``) if it still is so; tell whether it was applied.

        A lost answer makes the repeat find nothing to change: the id of this change, left in the document, tells that
        the first attempt was applied. A caller may give that id, ``mark``, to find the change as ``op`` later on.
        """
        mark = mark or uuid4().hex
        marked = {**change, "$set": {**change.get("$set", {}), "op": mark}}
        attempts = 0

        def attempt() -> Any:
            nonlocal attempts
            attempts += 1
            return self._collection(collection).update_one(dict(query), marked)

        result = await self.runner.run(what, attempt)
        if result.raw_result["n"]:
            return True
        if attempts == 1:
            return False
        applied = {"_id": query["_id"], "op": mark}
        return await self.find_one(what, collection, applied, {"_id": 1}) is not None

    async def delete(
        self,
        what: str,
        collection: str,
        query: Mapping[str, Any],
        *,
        many: bool = False,
        timeout: float | None = None,
    ) -> int:
        """Delete one document, or all that match; return how many."""

        def attempt() -> Any:
            target = self._collection(collection)
            return target.delete_many(dict(query)) if many else target.delete_one(dict(query))

        return int((await self.runner.run(what, attempt, timeout)).deleted_count)

    def _collection(self, name: str) -> Any:
        return self._connected()[self.address.database][name]

    def _connected(self) -> Any:
        if self._pool is None:
            raise StoreError("the store is not open")
        return self._pool


def find_command(
    collection: str,
    query: Mapping[str, Any],
    *,
    limit: int,
    projection: Mapping[str, int] | None = None,
    sort: Sequence[tuple[str, int]] = (),
) -> Doc:
    """Return a ``find`` command that is answered whole in one reply."""
    command: Doc = {
        "find": collection,
        "filter": dict(query),
        "limit": limit,
        "singleBatch": True,
        "batchSize": limit,
    }
    if projection:
        command["projection"] = dict(projection)
    if sort:
        command["sort"] = dict(sort)
    return command
