"""The connections to MongoDB: made, remade soon after they are lost, and closed."""

from collections.abc import Callable
from functools import partial
from typing import Any

from bson.codec_options import CodecOptions
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from txmongo.connection import ConnectionPool

from fr_twisted.store.tls import HostVerifier
from fr_twisted.store.uri import MongoAddress

Doc = dict[str, Any]

FIRST_RECONNECT = 0.05
LONGEST_RECONNECT = 2.0
"""Seconds between attempts to reconnect, at first and at most; by default txmongo waits for up to 60."""

PING_INTERVAL = 2.0
PING_TIMEOUT = 2.0
"""A server that does not answer a ping for so long (seconds) has its connections cut."""

CLOSE_LIMIT = 5.0
"""Seconds after which connections that do not close are left to the system."""

_CODEC: CodecOptions[Doc] = CodecOptions(tz_aware=True)


def make_pool(
    address: MongoAddress,
    verifier: HostVerifier | None,
    size: int,
    connect_timeout: float,
    connected: Callable[[], None] = lambda: None,
) -> Any:
    """Return a started txmongo pool whose writes are acknowledged by the majority and journalled.

    ``connected`` is called for each connection that is made.
    """
    pool = ConnectionPool(
        address.txmongo_uri(),
        pool_size=size,
        ssl_context_factory=verifier,
        ping_interval=address.ping_interval or PING_INTERVAL,
        ping_timeout=PING_TIMEOUT,
        # txmongo takes this for the limit of connecting and of the handshake too.
        retry_delay=connect_timeout,
        max_delay=LONGEST_RECONNECT,
        codec_options=_CODEC,
        w="majority",
        j=True,
    )
    for factory in pool.getprotocols():
        # As its first delay txmongo takes the limit of the handshake: seconds, where a new primary needs none.
        factory.resetDelay = partial(_connected, factory, connected)
        _reset_delay(factory)
    return pool


def _connected(factory: Any, connected: Callable[[], None]) -> None:
    connected()
    _reset_delay(factory)


def _reset_delay(factory: Any) -> None:
    type(factory).resetDelay(factory)
    factory.delay = FIRST_RECONNECT


async def close_pool(pool: Any, clock: IReactorTime) -> None:
    """Close the connections of ``pool`` and return when they are gone; txmongo itself does not wait for that."""
    connectors = [factory.connector for factory in pool.getprotocols()]
    connectors += [pinger.connector for pinger in pool._ConnectionPool__pingers.values()]
    await pool.disconnect()
    deadline = clock.seconds() + CLOSE_LIMIT
    while any(connector.state != "disconnected" for connector in connectors):
        if clock.seconds() > deadline:
            for connector in connectors:
                if connector.transport is not None:
                    connector.transport.abortConnection()
            return
        await deferLater(clock, 0.01)
