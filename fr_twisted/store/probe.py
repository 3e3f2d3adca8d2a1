"""Why a database cannot be used, in one line: txmongo itself only tries again, for ever and without a word."""

from dataclasses import dataclass
from typing import Any

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.defer import Deferred, DeferredList, TimeoutError
from twisted.internet.error import ConnectionClosed, ConnectionRefusedError, DNSLookupError
from twisted.internet.error import TimeoutError as ConnectTimeoutError
from twisted.internet.interfaces import IConnector
from twisted.internet.protocol import ClientFactory
from twisted.python.failure import Failure

from fr_twisted.store.hello import HelloProtocol
from fr_twisted.store.interfaces import StoreUnusableError
from fr_twisted.store.tls import HostVerifier
from fr_twisted.store.uri import MongoAddress

Doc = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What one host said to ``hello``, or why it did not."""

    host: str
    hello: Doc | None = None
    reason: str = ""


class _HelloFactory(ClientFactory):
    """Asks one host ``hello``, over one connection."""

    noisy = False

    def __init__(self) -> None:
        self.connector: Any = None
        self.protocol_made = HelloProtocol()
        self.answered = self.protocol_made.answered

    def buildProtocol(self, addr: object) -> HelloProtocol:
        """Return the one protocol."""
        self.protocol_made.factory = self
        return self.protocol_made

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        """Tell why."""
        if not self.answered.called:
            self.answered.errback(reason)


async def ask_all(
    reactor: Any, address: MongoAddress, verifier: HostVerifier | None, seconds: float
) -> list[Answer]:
    """Ask every host of the URI ``hello``, all at once, and return their answers within ``seconds``."""
    asked = [
        Deferred.fromCoroutine(_ask(reactor, host, port, verifier, seconds)) for host, port in address.hosts
    ]
    results: list[tuple[bool, Answer]] = await DeferredList(asked, fireOnOneErrback=True)
    return [answer for _, answer in results]


async def _ask(reactor: Any, host: str, port: int, verifier: HostVerifier | None, seconds: float) -> Answer:
    factory = _HelloFactory()
    if verifier is None:
        connector = reactor.connectTCP(host, port, factory, timeout=seconds)
    else:
        connector = reactor.connectSSL(host, port, factory, verifier, timeout=seconds)
    factory.connector = connector
    name = f"{host}:{port}"
    try:
        return Answer(name, await factory.answered.addTimeout(seconds, reactor))
    except Exception as error:
        return Answer(name, reason=_explain(error, name, verifier is not None))
    finally:
        connector.disconnect()


def _explain(error: Exception, name: str, tls: bool) -> str:
    """Return one line for people: what is wrong with the host ``name``."""
    if isinstance(error, DNSLookupError):
        return f"{name}: the host's name is unknown"
    if isinstance(error, ConnectionRefusedError):
        return f"{name}: nothing listens there"
    if isinstance(error, VerificationError):
        return f"{name}: TLS failed: the server's certificate is not for this host name"
    if isinstance(error, SSL.Error):
        words = "; ".join(str(part[2]) for part in error.args[0]) if error.args else "no reason given"
        hint = " (is its CA in tlsCAFile?)" if "verify failed" in words else ""
        hint = " (tlsCertificateKeyFile is missing or refused)" if "alert" in words else hint
        return f"{name}: TLS failed: {words}{hint}"
    if isinstance(error, ConnectionClosed):
        hint = "does it speak TLS at all?" if tls else "does it want TLS (tls=true)?"
        return f"{name}: closed the connection without an answer; {hint}"
    if isinstance(error, TimeoutError | ConnectTimeoutError):
        return f"{name}: no answer in time"
    return f"{name}: {type(error).__name__}"


def check(address: MongoAddress, answers: list[Answer]) -> None:
    """Return if one of the hosts is what the URI says.

    Raises:
        StoreUnusableError: none is, with the reason of each.
    """
    spoke = [answer for answer in answers if answer.hello is not None]
    if not spoke:
        raise StoreUnusableError(
            "the store cannot be reached: " + ", ".join(answer.reason for answer in answers)
        )
    wanted = address.replica_set
    found = {answer.hello.get("setName") for answer in spoke if answer.hello is not None}
    if wanted and wanted not in found:
        said = ", ".join(sorted(name or "no replica set" for name in found))
        raise StoreUnusableError(f"{address.host_list} is not of the replica set {wanted}, but of {said}")


def describe(hello: Doc, version: str) -> str:
    """Return one line about the server, such as ``MongoDB 8.0.4, replica set rs0, change streams``."""
    if hello.get("msg") == "isdbgrid":
        return f"MongoDB {version}, sharded cluster, change streams"
    if hello.get("setName"):
        return f"MongoDB {version}, replica set {hello['setName']}, change streams"
    return f"MongoDB {version}, one server without a replica set, no change streams"
