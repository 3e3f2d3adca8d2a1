"""A MongoDB URI, read for txmongo: what txmongo would ignore without a word is translated, or refused by name.

txmongo 26 acts on ``replicaSet``, ``authSource``, ``authMechanism`` (SCRAM-SHA-1 and MONGODB-X509 only),
``readPreference`` and the write concern; it logs in only when the URI's path names a database (txmongo #287). What each
option means: https://www.mongodb.com/docs/manual/reference/connection-string-options/ .
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, quote_plus

DEFAULT_DATABASE = "fr"
DEFAULT_PORT = 27017
FORM = "mongodb://[user:password@]host[:port][,host[:port]...]/[database][?options]"

MECHANISMS = ("SCRAM-SHA-1", "MONGODB-X509")


class MongoUriError(ValueError):
    """The URI cannot be used; the message says which part and what is accepted, and holds no secret."""


@dataclass(frozen=True)
class MongoAddress:
    """Where the database is and how to speak to it. Times are in seconds; None: the caller's default."""

    hosts: tuple[tuple[str, int], ...]
    database: str = DEFAULT_DATABASE
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    auth_source: str | None = None
    auth_mechanism: str | None = None
    replica_set: str | None = None
    tls: bool = False
    tls_ca: str | None = None
    tls_cert: str | None = None
    pool_size: int | None = None
    connect_timeout: float | None = None
    open_timeout: float | None = None
    timeout: float | None = None
    ping_interval: float | None = None

    @property
    def host_list(self) -> str:
        """Return ``host:port,host:port``."""
        return ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)

    @property
    def is_local(self) -> bool:
        """Tell whether every host is this machine."""
        return all(host in ("127.0.0.1", "::1", "localhost") for host, _ in self.hosts)

    @property
    def redacted(self) -> str:
        """Return the address for messages: no password, no options."""
        user = f"{self.username}@" if self.username else ""
        return f"mongodb://{user}{self.host_list}/{self.database}"

    def txmongo_uri(self) -> str:
        """Return the URI to give to txmongo, whose database and authSource make it log in."""
        options = {"replicaSet": self.replica_set}
        credentials = ""
        if self.username:
            # txmongo logs in only with a password that is not empty, which X.509 does not use.
            password = self.password or "x509"
            credentials = f"{quote_plus(self.username)}:{quote_plus(password)}@"
            options["authMechanism"] = self.auth_mechanism
            options["authSource"] = self.auth_source
        query = "&".join(f"{key}={quote_plus(value)}" for key, value in options.items() if value)
        return f"mongodb://{credentials}{self.host_list}/{self.database}" + (f"?{query}" if query else "")


def parse(uri: str, tls_ca: str | None = None, tls_cert: str | None = None) -> MongoAddress:
    """Return the address that ``uri`` names; files given apart are used where it names none, and mean TLS.

    Raises:
        MongoUriError: it is malformed, or has an option that could not be honoured.
    """
    if uri.startswith("mongodb+srv://"):
        raise MongoUriError("mongodb+srv:// is not supported: write the hosts out, " + FORM)
    if not uri.startswith("mongodb://"):
        raise MongoUriError("this is no MongoDB URI; accepted is " + FORM)
    base, _, query = uri.partition("?")
    apart = {"tlsCAFile": tls_ca, "tlsCertificateKeyFile": tls_cert}
    given = parse_qsl(query.replace(";", "&"), keep_blank_values=True)
    names = {name.lower() for name, _ in given}
    given += [(name, path) for name, path in apart.items() if path and name.lower() not in names]
    return _credentials(_options(_base(base), given))


def _base(base: str) -> MongoAddress:
    # Late: pymongo is the store's dependency alone, and takes a moment to import.
    from pymongo.errors import PyMongoError
    from pymongo.uri_parser import parse_uri

    rest = base.removeprefix("mongodb://")
    try:
        parsed = parse_uri(base if "/" in rest else base + "/", default_port=DEFAULT_PORT)
    except (PyMongoError, ValueError):
        # Its messages quote parts of the URI, of which a password with an unescaped @ may be one.
        message = "malformed MongoDB URI; accepted is " + FORM + ", user and password percent-encoded"
        raise MongoUriError(message) from None
    hosts = tuple((str(host), port) for host, port in parsed["nodelist"] if port is not None)
    if len(hosts) != len(parsed["nodelist"]):
        raise MongoUriError("a Unix socket is not supported: give host:port")
    return MongoAddress(
        hosts=hosts,
        database=parsed["database"] or DEFAULT_DATABASE,
        username=parsed["username"],
        password=parsed["password"],
        auth_source=parsed["database"],
    )


def _options(address: MongoAddress, given: Sequence[tuple[str, str]]) -> MongoAddress:
    seen: set[str] = set()
    for name, value in given:
        lower = name.lower()
        if lower in seen:
            raise MongoUriError(f"{name} is given twice in the MongoDB URI")
        seen.add(lower)
        reader = _READERS.get(lower)
        if reader is None:
            raise MongoUriError(
                f"{name} in the MongoDB URI: {_REASONS.get(lower, 'not supported; take it out')}"
            )
        changes = reader(name, value)
        address = replace(address, **changes)
    if (address.tls_ca or address.tls_cert) and dict(given).get("tls", dict(given).get("ssl")) == "false":
        raise MongoUriError("tls=false contradicts the TLS files that are given")
    return address


def _credentials(address: MongoAddress) -> MongoAddress:
    if address.auth_mechanism == "MONGODB-X509":
        if not (address.tls and address.tls_cert):
            raise MongoUriError("authMechanism=MONGODB-X509 needs tls=true and tlsCertificateKeyFile")
        if not address.username:
            raise MongoUriError(
                "authMechanism=MONGODB-X509 needs the user: the certificate's subject, percent-encoded"
            )
        return replace(address, auth_source="$external")
    if address.username and not address.password:
        raise MongoUriError(f"the MongoDB URI names the user {address.username} but no password")
    if address.auth_mechanism and not address.username:
        raise MongoUriError("the MongoDB URI has authMechanism but no user")
    return replace(address, auth_source=address.auth_source or "admin")


Reader = Callable[[str, str], dict[str, Any]]


def _text(field_name: str) -> Reader:
    def read(name: str, value: str) -> dict[str, Any]:
        if not value:
            raise MongoUriError(f"{name} in the MongoDB URI is empty")
        return {field_name: value}

    return read


def _file(field_name: str) -> Reader:
    def read(name: str, value: str) -> dict[str, Any]:
        return {"tls": True, **_text(field_name)(name, value)}

    return read


def _milliseconds(field_name: str) -> Reader:
    def read(name: str, value: str) -> dict[str, Any]:
        return {field_name: _number(name, value, 1, 3_600_000) / 1000}

    return read


def _count(field_name: str, most: int) -> Reader:
    def read(name: str, value: str) -> dict[str, Any]:
        return {field_name: _number(name, value, 1, most)}

    return read


def _number(name: str, value: str, least: int, most: int) -> int:
    if not (value.isascii() and value.isdigit() and least <= int(value) <= most):
        raise MongoUriError(
            f"{name}={value} in the MongoDB URI: a whole number from {least} to {most} is accepted"
        )
    return int(value)


def _tls(name: str, value: str) -> dict[str, Any]:
    if value not in ("true", "false"):
        raise MongoUriError(f"{name}={value} in the MongoDB URI: true or false is accepted")
    return {"tls": value == "true"}


def _mechanism(name: str, value: str) -> dict[str, Any]:
    if value == "DEFAULT":
        return {}
    if value not in MECHANISMS:
        accepted = " or ".join(MECHANISMS)
        raise MongoUriError(f"{name}={value} in the MongoDB URI: txmongo speaks {accepted} only")
    return {"auth_mechanism": value}


def _only(*accepted: str, why: str) -> Reader:
    """Accept an option whose value says what is done anyway."""

    def read(name: str, value: str) -> dict[str, Any]:
        if value not in accepted:
            raise MongoUriError(
                f"{name}={value} in the MongoDB URI: {why}; write {accepted[0]} or leave it out"
            )
        return {}

    return read


_JOURNAL = _only("true", why="every write is journalled before it is acknowledged")
_RETRY = _only("true", why="what is safe to repeat is always repeated")
_VERIFY = _only("false", why="certificates are always verified")

_READERS: dict[str, Reader] = {
    "replicaset": _text("replica_set"),
    "authsource": _text("auth_source"),
    "authmechanism": _mechanism,
    "tls": _tls,
    "ssl": _tls,
    "tlscafile": _file("tls_ca"),
    "tlscertificatekeyfile": _file("tls_cert"),
    "tlsinsecure": _VERIFY,
    "tlsallowinvalidcertificates": _VERIFY,
    "tlsallowinvalidhostnames": _VERIFY,
    "maxpoolsize": _count("pool_size", 64),
    "connecttimeoutms": _milliseconds("connect_timeout"),
    "serverselectiontimeoutms": _milliseconds("open_timeout"),
    "sockettimeoutms": _milliseconds("timeout"),
    "timeoutms": _milliseconds("timeout"),
    "heartbeatfrequencyms": _milliseconds("ping_interval"),
    "w": _only("majority", why="every write is acknowledged by the majority"),
    "j": _JOURNAL,
    "journal": _JOURNAL,
    "readconcernlevel": _only("majority", why="what could be rolled back is never read"),
    "readpreference": _only("primary", why="reads go to the primary"),
    "retrywrites": _RETRY,
    "retryreads": _RETRY,
    # A name for the server's logs changes nothing here, and the URIs that hosting services hand out carry one.
    "appname": lambda _name, _value: {},
}

_REASONS = {
    "tlscertificatekeyfilepassword": "an encrypted key is not supported; give a key file without a password",
    "directconnection": "not supported: writes go to the primary, wherever it is; take it out",
    "loadbalanced": "not supported; name the hosts of the replica set or of mongos",
    "wtimeoutms": "not needed: every operation has a deadline (timeoutMS)",
    "wtimeout": "not needed: every operation has a deadline (timeoutMS)",
    "compressors": "not supported: txmongo does not compress; take it out",
}
