"""The store over MongoDB. Importing this module installs the reactor, as txmongo does: load it late."""

from contextlib import suppress
from datetime import UTC, datetime
from typing import Self
from uuid import uuid4

from pymongo.errors import DuplicateKeyError
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from fr_twisted.config import BrainSettings, HubSettings, OperatorSettings
from fr_twisted.store.chronicle import Chronicle
from fr_twisted.store.connection import Doc, Mongo
from fr_twisted.store.documents import Scribe
from fr_twisted.store.garbage import GRACE_SECONDS, Garbage
from fr_twisted.store.index_check import check_indexes
from fr_twisted.store.indexes import GARBAGE, SCANS, create_commands
from fr_twisted.store.interfaces import IStore, Room, StoreError, StoreUnusableError
from fr_twisted.store.operators import MongoOperators
from fr_twisted.store.payloads import MongoPayloads
from fr_twisted.store.pool import make_pool
from fr_twisted.store.probe import ask_all, check, describe
from fr_twisted.store.reports import MongoReports
from fr_twisted.store.retry import (
    AUTHENTICATION_FAILED,
    UNAUTHORIZED,
    UNSATISFIABLE_WRITE_CONCERN,
    ServerError,
)
from fr_twisted.store.room import ask_room, tells_free
from fr_twisted.store.scans import MongoScans
from fr_twisted.store.tls import HostVerifier
from fr_twisted.store.uri import parse
from fr_twisted.store.watch import watches

CONNECT_TIMEOUT = 5.0
"""Seconds for one connection and its handshake, unless the URI has connectTimeoutMS."""

OPEN_TIMEOUT = 15.0
"""Seconds for each step of `MongoStore.open`, unless the URI has serverSelectionTimeoutMS."""

INDEX_CONFLICTS = frozenset({85, 86})


@implementer(IStore)
class MongoStore:
    """Scans, reports and their bytes in one MongoDB database, named in the URI (``fr`` if it names none).

    The URI's own options (maxPoolSize, timeoutMS, tlsCAFile, ...) are preferred to the arguments.
    """

    _log = Logger()

    def __init__(
        self,
        uri: str,
        *,
        clock: IReactorTime,
        node: str,
        unit: str,
        tls_ca: str | None = None,
        tls_cert: str | None = None,
        timeout: float = 10.0,
        pool_size: int = 4,
        grace_seconds: float = GRACE_SECONDS,
        visiting: bool = False,
    ) -> None:
        """Prepare; nothing is connected before `open`.

        Args:
            uri: see `fr_twisted.store.uri`.
            clock: the reactor.
            node: this installation's name, and
            unit: this daemon's, for the history of scans.
            tls_ca: file of CA certificates (PEM); TLS is used if given.
            tls_cert: file of our certificate and key (PEM).
            timeout: seconds for each operation, repeats included.
            pool_size: connections.
            grace_seconds: how long chunks outlive the decision to remove them.
            visiting: make nothing in the database by `open`, and refuse one that no unit has opened yet.

        Raises:
            MongoUriError: the URI cannot be used.
        """
        self.address = parse(uri, tls_ca, tls_cert)
        self._pool_size = self.address.pool_size or pool_size
        self._connect_timeout = self.address.connect_timeout or CONNECT_TIMEOUT
        self._visiting = visiting
        self._open_timeout = self.address.open_timeout or OPEN_TIMEOUT
        self._tells_free = True
        self._watches = work, due = watches(clock, self.address.database)
        self._mongo = Mongo(self.address, clock, self.address.timeout or timeout)
        self._payloads = MongoPayloads(self._mongo)
        garbage = Garbage(self._mongo, self._payloads, grace_seconds)
        scribe = Scribe(unit, node)
        chronicle = Chronicle(self._mongo, scribe)
        self._scans = MongoScans(self._mongo, scribe, self._payloads, garbage, chronicle, work)
        self._reports = MongoReports(self._mongo, chronicle, due)
        self._operators = MongoOperators(self._mongo, scribe, self._payloads, chronicle)

    @classmethod
    def from_settings(cls, settings: HubSettings | BrainSettings, *, clock: IReactorTime, unit: str) -> Self:
        """Return the store that a unit's settings name."""
        return cls._of(settings, clock, settings.node, unit)

    @classmethod
    def for_person(cls, settings: OperatorSettings, *, clock: IReactorTime, node: str) -> Self:
        """Return the store for a person's command on the machine ``node``, which makes nothing by opening it."""
        return cls._of(settings, clock, node, "fr", visiting=True)

    @classmethod
    def _of(
        cls,
        settings: HubSettings | BrainSettings | OperatorSettings,
        clock: IReactorTime,
        node: str,
        unit: str,
        visiting: bool = False,
    ) -> Self:
        return cls(
            settings.mongo_uri,
            clock=clock,
            node=node,
            unit=unit,
            tls_ca=str(settings.mongo_tls_ca) if settings.mongo_tls_ca else None,
            tls_cert=str(settings.mongo_tls_cert) if settings.mongo_tls_cert else None,
            timeout=settings.mongo_timeout,
            visiting=visiting,
        )

    def payloads(self) -> MongoPayloads:
        """Return the payloads."""
        return self._payloads

    def scans(self) -> MongoScans:
        """Return the scans."""
        return self._scans

    def reports(self) -> MongoReports:
        """Return the reports."""
        return self._reports

    def operators(self) -> MongoOperators:
        """Return what people may ask."""
        return self._operators

    def now(self) -> Deferred[datetime]:
        """Fire with the store's clock."""
        return Deferred.fromCoroutine(self._mongo.now(max_age=0))

    def room(self, used: bool) -> Deferred[Room]:
        """Fire with the room there is."""
        if not (used or self._tells_free):
            return succeed(Room())
        return Deferred.fromCoroutine(ask_room(self._mongo))

    # --- open

    def open(self) -> Deferred[str]:
        """Connect, prove that the store can be used, create the indexes; fire with one line about the server."""
        return Deferred.fromCoroutine(self._open())

    async def _open(self) -> str:
        try:
            line = await self._opened()
        except BaseException:
            await self._close()
            raise
        self._log.info(
            "the store is {server}", event="store.opened", server=line, address=self.address.redacted
        )
        return line

    async def _opened(self) -> str:
        from twisted.internet import reactor  # the one that txmongo uses

        address = self.address
        verifier = HostVerifier(address.tls_ca, address.tls_cert) if address.tls else None
        check(address, await ask_all(reactor, address, verifier, self._connect_timeout))
        self._mongo.start(verifier, self._pool_size, self._connect_timeout)
        hello = await self._usable("speak to the store", {"hello": 1})
        if address.username:
            await self._check_login(address.username)
        build_info = await self._usable("ask the store's version", {"buildInfo": 1})
        self._tells_free = tells_free(build_info)
        self._mongo.read_clock(hello)
        self._mongo.majority_reads = bool(hello.get("setName") or hello.get("msg"))
        if self._visiting:
            await self._check_unit_was_here()
            return describe(hello, build_info.get("version", "?"))
        await self._check_indexes()
        for command in create_commands():
            await self._usable(f"create the indexes of {command['createIndexes']}", command, address.database)
        await self._check_writes()
        for watch in self._watches:
            watch.start(lambda: make_pool(address, verifier, 1, self._connect_timeout))
        return describe(hello, build_info.get("version", "?"))

    async def _usable(self, what: str, command: Doc, database: str = "admin") -> Doc:
        try:
            return await self._mongo.command(what, command, database=database, timeout=self._open_timeout)
        except StoreError as error:
            raise self._unusable(error) from None

    async def _check_indexes(self) -> None:
        try:
            await check_indexes(self._mongo, self._open_timeout)
        except StoreUnusableError:
            raise
        except StoreError as error:
            raise self._unusable(error) from None

    async def _check_login(self, username: str) -> None:
        """Return if the login worked: txmongo drops the reason when it does not."""
        try:
            status = await self._mongo.command("check the login", {"connectionStatus": 1}, database="admin")
            if status["authInfo"]["authenticatedUsers"]:
                return
        except ServerError as error:
            if error.code not in (UNAUTHORIZED, AUTHENTICATION_FAILED):
                raise self._unusable(error) from None
        except StoreError as error:
            raise self._unusable(error) from None
        source = self.address.auth_source
        asked = {"hello": 1, "saslSupportedMechs": f"{source}.{username}"}
        mechanisms = (await self._usable("check the login", asked)).get("saslSupportedMechs")
        reason = f"wrong password, or no such user in authSource={source}"
        if mechanisms and "SCRAM-SHA-1" not in mechanisms and source != "$external":
            reason = (
                f"no such user in authSource={source}, or one without the SCRAM-SHA-1 credentials that txmongo needs "
                '(set its password anew with mechanisms: ["SCRAM-SHA-1"])'
            )
        where = self.address.host_list
        raise StoreUnusableError(f"the store refuses the login of {username} at {where}: {reason}")

    async def _check_unit_was_here(self) -> None:
        there = {"listCollections": 1, "nameOnly": True, "filter": {"name": SCANS}}
        found = await self._usable("look for scans", there, self.address.database)
        if not found["cursor"]["firstBatch"]:
            raise StoreUnusableError(
                f"the database {self.address.database} at {self.address.host_list} is not a store of Fr: "
                "no HUB or BRAIN has opened it yet (is FR_MONGO_URI the one that they have?)"
            )

    async def _check_writes(self) -> None:
        probe = {"_id": f"write-check.{uuid4().hex}"}
        try:
            # Its answer may be lost, and our own repeat of it find it there.
            with suppress(DuplicateKeyError):
                # Should we be killed before we delete it, a HUB does: it is listed as a payload without chunks.
                listed = {**probe, "since": datetime.now(UTC)}
                await self._mongo.insert("write to the store", GARBAGE, listed, timeout=self._open_timeout)
            await self._mongo.delete("write to the store", GARBAGE, probe, timeout=self._open_timeout)
        except StoreError as error:
            raise self._unusable(error) from None

    def _unusable(self, error: StoreError) -> StoreUnusableError:
        code = error.code if isinstance(error, ServerError) else None
        where = f"the database {self.address.database} at {self.address.host_list}"
        if code in (UNAUTHORIZED, AUTHENTICATION_FAILED):
            if self.address.username:
                return StoreUnusableError(
                    f"the store's user {self.address.username} may not use {where}: it needs the role readWrite on it"
                )
            return StoreUnusableError(f"{where} wants a user and a password: put them into the URI")
        if code == UNSATISFIABLE_WRITE_CONCERN:
            return StoreUnusableError(f"{where} cannot confirm a write by the majority of its members")
        if code in INDEX_CONFLICTS:
            return StoreUnusableError(f"an index of {where} was made differently, drop it: {error}")
        return StoreUnusableError(f"{where} cannot be used: {error}")

    # --- close

    def close(self) -> Deferred[None]:
        """Close every connection; fires when they are gone."""
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        await gatherResults([watch.stop() for watch in self._watches])
        await self._mongo.close()
