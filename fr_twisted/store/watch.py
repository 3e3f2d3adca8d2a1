"""Change streams: who waits for work is woken when it comes, not at the next poll.

txmongo has no ``watch``: a stream is an ``aggregate`` with ``$changeStream`` followed by ``getMore``, which the server
answers when something happened or its time is up. Both must be of one session, and a connection answers one command
after the other: each stream has a pool of one connection to itself.
"""

from collections.abc import Callable, Sequence
from typing import Any

from bson import Int64
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from fr_twisted.ops.outage import Outage, patient_policy
from fr_twisted.store.indexes import REPORTS, SCANS
from fr_twisted.store.interfaces import StoreError
from fr_twisted.store.pool import close_pool
from fr_twisted.store.retry import UNAUTHORIZED, Runner, ServerError

Doc = dict[str, Any]

AWAIT_SECONDS = 5.0
"""For which the server holds a ``getMore`` before it says that nothing happened."""

REPLY_SECONDS = 10.0
"""Beyond that, for the answer to arrive."""

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0

# IllegalOperation, CommandNotFound, CommandNotSupported, unknown stage, "only supported on replica sets".
UNSUPPORTED = frozenset({20, 59, 115, 40324, 40573})

SCAN_TO_DO: Sequence[Doc] = (
    {"operationType": "insert", "fullDocument.report_generated": "To Do"},
    {"operationType": "update", "updateDescription.updatedFields.report_generated": "To Do"},
)
REPORT_DUE: Sequence[Doc] = (
    {"operationType": "insert"},
    {"operationType": "update", "updateDescription.updatedFields.status": False},
    {"operationType": "update", "updateDescription.updatedFields.refused": False},
)


class Watch:
    """Wakes those who wait for changes of one collection, from `start` to `stop`.

    A stream carries no data: when it is opened, at first and after it broke, everyone is woken once, so that what
    happened in between is not missed.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime, database: str, collection: str, changes: Sequence[Doc]) -> None:
        self._clock = clock
        self._database = database
        self._collection = collection
        self._changes = changes
        self._wakes: list[Callable[[], None]] = []
        self._make_pool: Callable[[], Any] | None = None
        self._runner = Runner(clock, collection, REPLY_SECONDS)
        self._stream: Deferred[None] | None = None

    def add(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call ``wake`` after changes; return a function that ends it."""
        self._wakes.append(wake)
        self._begin()

        def remove() -> None:
            if wake in self._wakes:
                self._wakes.remove(wake)

        return remove

    def start(self, make_pool: Callable[[], Any]) -> None:
        """Open the stream, now or when someone waits."""
        self._make_pool = make_pool
        self._runner = Runner(self._clock, self._collection, REPLY_SECONDS)
        self._begin()

    def stop(self) -> Deferred[None]:
        """Close the stream and its connection."""
        self._make_pool = None
        self._runner.close()
        stream, self._stream = self._stream, None
        return succeed(None) if stream is None else stream

    def _begin(self) -> None:
        if self._wakes and self._make_pool is not None and self._stream is None:
            self._stream = Deferred.fromCoroutine(self._run(self._make_pool(), self._runner))
            self._stream.addErrback(
                lambda failure: self._log.failure(
                    "watching {collection} ended", failure, collection=self._collection
                )
            )

    async def _run(self, pool: Any, runner: Runner) -> None:
        name = f"the change stream of {self._collection}"
        outage = Outage(name, self._clock, patient_policy(FIRST_PAUSE, LONGEST_PAUSE))
        try:
            while not runner.is_closed():
                reason = "the server ended it"
                try:
                    await self._follow(pool, runner, outage)
                except StoreError as error:
                    if runner.is_closed():
                        return
                    reason = str(error)
                    if isinstance(error, ServerError) and error.code in (*UNSUPPORTED, UNAUTHORIZED):
                        self._log.info(
                            "no change streams for {collection}, polling alone: {reason}",
                            event="store.watch",
                            collection=self._collection,
                            reason=reason,
                        )
                        return
                await runner.pause(outage.failed(reason))
        except StoreError:
            if not runner.is_closed():
                raise
        finally:
            await close_pool(pool, self._clock)

    async def _follow(self, pool: Any, runner: Runner, outage: Outage) -> None:
        """Wake at every change, until the stream ends."""
        session = pool.start_session()
        aggregate = {
            "aggregate": self._collection,
            "pipeline": [
                {"$changeStream": {}},
                {"$match": {"$or": list(self._changes)}},
                {"$project": {"_id": 1}},
            ],
            "cursor": {"batchSize": 100},
        }
        cursor = await self._ask(pool, runner, session, aggregate, REPLY_SECONDS)
        self._wake_all()
        while cursor["id"]:
            get_more = {
                "getMore": Int64(cursor["id"]),
                "collection": self._collection,
                "batchSize": 100,
                "maxTimeMS": int(AWAIT_SECONDS * 1000),
            }
            cursor = await self._ask(pool, runner, session, get_more, AWAIT_SECONDS + REPLY_SECONDS)
            # Not sooner: one that is opened and breaks at once, over and over, is no success.
            outage.over()
            if cursor["nextBatch"]:
                self._wake_all()

    async def _ask(self, pool: Any, runner: Runner, session: Any, command: Doc, timeout: float) -> Doc:
        what = f"watch {self._collection}"
        reply = await runner.once(
            what, lambda: pool.command(self._database, command, session=session), timeout
        )
        cursor: Doc = reply["cursor"]
        return cursor

    def _wake_all(self) -> None:
        for wake in list(self._wakes):
            try:
                wake()
            except Exception:
                self._log.failure("waking up for {collection} failed", collection=self._collection)


def watches(clock: IReactorTime, database: str) -> tuple[Watch, Watch]:
    """Return the watch of scans that become To Do, and that of reports that become due."""
    return Watch(clock, database, SCANS, SCAN_TO_DO), Watch(clock, database, REPORTS, REPORT_DUE)
