"""Ask a MongoDB server, in one message, whether it takes commands: an open port does not say so."""

import struct
from typing import Any

import bson
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

HOST = "127.0.0.1"

_LIMIT = 2.0
# The MongoDB wire protocol: length, request id, the request answered, operation; then flags, section kind, a document.
_HEADER = struct.Struct("<iiii")
_FLAGS_AND_KIND = struct.Struct("<IB")
_OP_MSG = 2013
_MAX_REPLY = 1024 * 1024


class HelloProtocol(Protocol):
    """Asks a MongoDB server ``hello`` in one OP_MSG; ``answered`` fires with the reply's document."""

    def __init__(self) -> None:
        self.answered: Deferred[dict[str, Any]] = Deferred()
        self._received = b""

    def connectionMade(self) -> None:
        """Ask."""
        body = _FLAGS_AND_KIND.pack(0, 0) + bson.encode({"hello": 1, "$db": "admin"})
        assert self.transport is not None
        self.transport.write(_HEADER.pack(_HEADER.size + len(body), 1, 0, _OP_MSG) + body)

    def dataReceived(self, data: bytes) -> None:
        """Gather one reply."""
        assert self.transport is not None
        self._received += data
        if len(self._received) > _MAX_REPLY:
            self.transport.loseConnection()
            return
        if len(self._received) < _HEADER.size or len(self._received) < _HEADER.unpack_from(self._received)[0]:
            return
        self.transport.loseConnection()
        if not self.answered.called:
            try:
                self.answered.callback(
                    dict(bson.decode(self._received[_HEADER.size + _FLAGS_AND_KIND.size :]))
                )
            except Exception:
                self.answered.errback(Failure())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Errback when no reply came."""
        if not self.answered.called:
            self.answered.errback(reason)


async def ask_hello(reactor: Any, port: int) -> None:
    """Return when the server on the loopback ``port`` takes commands.

    Raises:
        Exception: it does not, within two seconds.
    """
    protocol = HelloProtocol()
    endpoint = TCP4ClientEndpoint(reactor, HOST, port, timeout=_LIMIT)
    await connectProtocol(endpoint, protocol)
    reply = await protocol.answered.addTimeout(_LIMIT, reactor)
    if reply.get("ok") != 1 or not reply.get("isWritablePrimary"):
        raise ConnectionError("the server is not ready to be written to")
