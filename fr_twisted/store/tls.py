"""TLS to the database: certificates from files, the name of each host verified.

txmongo takes one context factory for a whole pool and connects to the hosts of the URI, to those that the replica set
names, and (to watch over them) to bare IP addresses of both. `HostVerifier` finds the name that belongs to each, by the
connector that txmongo's factories keep.
"""

import re
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from OpenSSL import SSL, crypto
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import (
    Certificate,
    PrivateCertificate,
    optionsForClientTLS,
    platformTrust,
    trustRootFromCertificates,
)
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from fr_twisted.store.interfaces import StoreUnusableError

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\r?\n?", re.DOTALL)


@implementer(IOpenSSLClientConnectionCreator)
class HostVerifier:
    """Makes TLS connections that are accepted only from a server with a certificate for its host."""

    def __init__(self, ca_file: str | None, cert_file: str | None) -> None:
        """Load the files: CA certificates (None: the system's), and our certificate with its key and chain.

        Raises:
            StoreUnusableError: a file is missing, unreadable or not PEM.
        """
        self._trust_root = trustRootFromCertificates(_authorities(ca_file)) if ca_file else platformTrust()
        self._certificate: PrivateCertificate | None = None
        self._chain: list[crypto.X509] = []
        if cert_file:
            self._certificate, self._chain = _own(cert_file)
        self._hosts: WeakKeyDictionary[Any, str] = WeakKeyDictionary()

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Return a connection that verifies the host for which ``tlsProtocol`` was made."""
        wrapped: Any = tlsProtocol.wrappedProtocol
        connector = wrapped.factory.connector
        host = self._name_of(connector.host, connector.port)
        self._hosts[tlsProtocol] = host
        extra = {"extraCertChain": self._chain} if self._chain else None
        options = optionsForClientTLS(
            host, self._trust_root, self._certificate, extraCertificateOptions=extra
        )
        connection: SSL.Connection = options.clientConnectionForTLS(tlsProtocol)
        return connection

    def _name_of(self, host: str, port: int) -> str:
        """Return the name under which a bare address was connected to before."""
        if isIPAddress(host) or isIPv6Address(host):
            for protocol, name in self._hosts.items():
                peer = protocol.transport and protocol.transport.getPeer()
                if peer and (peer.host, peer.port) == (host, port):
                    return name
        return host


def _read(path: str, what: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise StoreUnusableError(f"{what} {path} cannot be read: {error.strerror}") from None


def _authorities(path: str) -> list[Certificate]:
    blocks = _PEM.findall(_read(path, "the CA file of the store"))
    if not blocks:
        raise StoreUnusableError(f"the CA file of the store {path} holds no certificate in PEM form")
    try:
        return [Certificate.loadPEM(block) for block in blocks]
    except (crypto.Error, ValueError):
        raise StoreUnusableError(f"the CA file of the store {path} holds a damaged certificate") from None


def _own(path: str) -> tuple[PrivateCertificate, list[crypto.X509]]:
    data = _read(path, "the certificate file of the store")
    try:
        chain = [crypto.load_certificate(crypto.FILETYPE_PEM, block) for block in _PEM.findall(data)[1:]]
        return PrivateCertificate.loadPEM(data), chain
    except (crypto.Error, ValueError, TypeError):
        message = f"the certificate file of the store {path} must hold a certificate and its key, not encrypted, as PEM"
        raise StoreUnusableError(message) from None
