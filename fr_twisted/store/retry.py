"""Running one operation to its end: a deadline, repeats where the cause passes, and our own errors outside.

txmongo has no deadline of its own and repeats nothing. Every operation of this package may be repeated: reads change
nothing, and writes carry ids and tokens by which a second application is recognised.
"""

import math
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from bson.errors import BSONError, InvalidDocument
from pymongo.errors import (
    AutoReconnect,
    DuplicateKeyError,
    ExecutionTimeout,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
    WriteConcernError,
)
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from fr_twisted.store.interfaces import StoreError, StoreFullError

T = TypeVar("T")

FIRST_PAUSE = 0.05
"""Seconds before the first repeat; doubled for each further one."""

LONGEST_PAUSE = 1.0

UNAUTHORIZED = 13
AUTHENTICATION_FAILED = 18
TOO_LARGE = frozenset({10334, 17419})  # BSONObjectTooLarge; the document after an update is larger than 16 MB
UNSATISFIABLE_WRITE_CONCERN = 100

# OutOfDiskSpace; AtlasError, as a cloud's quota is told. Neither passes in the seconds of one operation: it is told at
# once, and whoever asked tries again later.
FULL = frozenset({14031, 8000})

# "Retryable errors" of https://github.com/mongodb/specifications/blob/master/source/retryable-writes/retryable-writes.md,
# and WriteConflict (112), LockTimeout (24), CursorNotFound (43), StaleConfig (13388), WriteConcernFailed (64); mongos:
# FailedToSatisfyReadPreference (133), StaleShardVersion (63), StaleEpoch (150), and the time limit between its servers
# (202); of a server under load QueryPlanKilled (175), TemporarilyUnavailable (365), IngressRequestRateLimitExceeded
# (462).
PASSING = frozenset(
    {6, 7, 24, 43, 63, 64, 89, 91, 112, 133, 134, 150, 175, 189, 202, 262, 365, 462, 9001}
    | {10058, 10107, 11600, 11602, 13388, 13435, 13436}
)
_PASSING_LABELS = frozenset({"RetryableWriteError", "RetryableError"})


class ServerError(StoreError):
    """The server answered with an error; ``code`` is its number."""

    def __init__(self, message: str, code: int | None) -> None:
        super().__init__(message)
        self.code = code


class KeptOutError(StoreError):
    """A document cannot be inserted though there is none of its id: another's unique index is in the way."""


def passes(error: BaseException) -> bool:
    """Tell whether the cause of ``error`` may pass, so that the operation should be repeated."""
    if isinstance(error, AutoReconnect | NotPrimaryError | ExecutionTimeout):
        return True
    if isinstance(error, DuplicateKeyError):
        return False
    if isinstance(error, WriteConcernError):
        return error.code != UNSATISFIABLE_WRITE_CONCERN
    if isinstance(error, OperationFailure):
        labels = (error.details or {}).get("errorLabels", ())
        return error.code in PASSING or not _PASSING_LABELS.isdisjoint(labels)
    return False


def translate(what: str, error: BaseException) -> BaseException:
    """Return the error to raise for ``error``, which ended the operation called ``what``.

    Messages of pymongo quote the command, and with it what people wrote about a patient: only the server's own words
    are kept, shortened.
    """
    if isinstance(error, DuplicateKeyError | StoreError):
        return error
    if isinstance(error, OperationFailure):
        if error.code in TOO_LARGE:
            return ValueError(f"{what}: too large for one document of the store (16 MB)")
        words = str((error.details or {}).get("errmsg") or type(error).__name__)[:200]
        if error.code in FULL:
            return StoreFullError(f"{what}: the store is full: {words} (code {error.code})")
        return ServerError(f"{what}: the store refused: {words} (code {error.code})", error.code)
    if isinstance(error, NotPrimaryError):
        return StoreError(f"{what}: the store has no primary that could be written to")
    if isinstance(error, AutoReconnect):
        return StoreError(f"{what}: the connection to the store was lost")
    if isinstance(error, BSONError | InvalidDocument | OverflowError | UnicodeError | RecursionError):
        return ValueError(f"{what}: it holds a value that the store cannot keep ({type(error).__name__})")
    if isinstance(error, PyMongoError):
        return StoreError(f"{what}: the store failed ({type(error).__name__})")
    return error


class Runner:
    """Runs operations, each with a deadline, until closed."""

    def __init__(self, clock: IReactorTime, where: str, timeout: float) -> None:
        self._clock = clock
        self._where = where
        self._timeout = timeout
        self._running: set[Deferred[Any]] = set()
        self._closed = False

    def is_closed(self) -> bool:
        """Tell whether `close` was called."""
        return self._closed

    def close(self) -> None:
        """End every operation under way with a `StoreError`, and refuse new ones."""
        self._closed = True
        for deferred in list(self._running):
            deferred.cancel()

    async def run(self, what: str, attempt: Callable[[], Awaitable[T]], timeout: float | None = None) -> T:
        """Await ``attempt()``, again and again while it fails for causes that pass, until the deadline.

        Raises:
            StoreError: no success within ``timeout`` seconds, or closed.
            ServerError: the server refused it.
            DuplicateKeyError: as it is; callers make something of it.
            ValueError: what should be written cannot be.
        """
        limit = self._timeout if timeout is None else timeout
        deadline = self._clock.seconds() + limit
        pause = FIRST_PAUSE
        while True:
            try:
                return await self._bounded(attempt, deadline, what, limit)
            except Exception as error:
                if not passes(error) or self._closed:
                    raise translate(what, error) from None
                wait = pause * random.uniform(0.5, 1.0)
                if self._clock.seconds() + wait >= deadline:
                    raise translate(what, error) from None
            await self._bounded(partial(deferLater, self._clock, wait), deadline, what, limit)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def once(self, what: str, attempt: Callable[[], Awaitable[T]], timeout: float) -> T:
        """Await ``attempt()`` without repeating it; raise what `run` raises."""
        try:
            return await self._bounded(attempt, self._clock.seconds() + timeout, what, timeout)
        except Exception as error:
            raise translate(what, error) from None

    async def wait(self, what: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """Await ``attempt()``, which asks nothing of the store, for as long as it takes; raise what `run` raises."""
        return await self._bounded(attempt, math.inf, what, math.inf)

    async def pause(self, seconds: float) -> None:
        """Wait; cut short with a `StoreError` by `close`."""
        await self._bounded(
            partial(deferLater, self._clock, seconds), self._clock.seconds() + seconds + 1, "wait", seconds
        )

    async def _bounded(
        self, attempt: Callable[[], Awaitable[T]], deadline: float, what: str, limit: float
    ) -> T:
        if self._closed:
            raise StoreError(f"{what}: the store is closed")
        deferred = Deferred.fromCoroutine(_await(attempt))
        self._running.add(deferred)
        if deadline < math.inf:
            deferred.addTimeout(max(0.0, deadline - self._clock.seconds()), self._clock)
        try:
            return await deferred
        except TimeoutError:
            raise StoreError(f"{what}: no answer from {self._where} within {limit:g} s") from None
        except CancelledError:
            if self._closed:
                raise StoreError(f"{what}: the store was closed") from None
            raise
        finally:
            self._running.discard(deferred)


async def _await(attempt: Callable[[], Awaitable[T]]) -> T:
    return await attempt()
