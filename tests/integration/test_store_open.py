"""Opening the store: one line about the server, or one line about what is wrong; never a hang, nothing left behind."""

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from twisted.internet import reactor

from fr_twisted.store.interfaces import StoreError, StoreUnusableError
from fr_twisted.store.mongo import MongoStore
from tests.certificates import Authority
from tests.store_servers import EmbeddedServer, client

pytestmark = pytest.mark.usefixtures("clean_reactor")


def make(uri: str, **more: str) -> MongoStore:
    """Return a store that is not open."""
    return MongoStore(uri, clock=reactor, node="node", unit="test", **more)  # type: ignore[arg-type]


async def unusable(uri: str, **more: str) -> str:
    """Open a store that cannot be used; return the one line that says why."""
    store = make(uri, **more)
    with pytest.raises(StoreUnusableError) as caught:
        await store.open()
    line = str(caught.value)
    assert "\n" not in line
    assert "s3cret" not in line
    return line


async def usable(uri: str, **more: str) -> str:
    """Open and close a store; return the line about the server."""
    store = make(uri, **more)
    line = await store.open()
    assert (await store.scans().count_by_state())["Done"] == 0
    await store.close()
    return line


# --- any server


async def test_line_about_the_server(database_uri: str) -> None:
    """The line names the version, the replica set and whether there are change streams."""
    line = await usable(database_uri)
    assert re.fullmatch(r"MongoDB [\d.]+, (replica set \w+, |.*, no )change streams", line)


async def test_opened_twice(database_uri: str) -> None:
    """A store that was closed may be opened again; between, every operation fails at once."""
    store = make(database_uri)
    with pytest.raises(StoreError, match="not open"):
        await store.scans().get("scan-a")
    await store.open()
    await store.close()
    with pytest.raises(StoreError, match="closed"):
        await store.scans().get("scan-a")
    await store.open()
    assert await store.scans().get("scan-a") is None
    await store.close()


async def test_closed_while_used(database_uri: str) -> None:
    """Closing ends operations under way with a StoreError, and with it their deadlines."""
    store = make(database_uri)
    await store.open()
    held = [store.scans().get("scan-a") for _ in range(20)]
    await store.close()
    assert all(operation.called for operation in held)
    for operation in held:
        with pytest.raises(StoreError, match="closed"):
            await operation


async def test_wrong_replica_set(database_uri: str) -> None:
    """The name of another replica set is refused with the one there is."""
    joint = "&" if "?" in database_uri else "?"
    line = await unusable(f"{database_uri}{joint}replicaSet=elsewhere")
    assert "is not of the replica set elsewhere" in line


# --- no server


async def test_nothing_listens() -> None:
    """A port without a server is named."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = await unusable(f"mongodb://u:s3cret@127.0.0.1:{port}/fr")
    assert line == f"the store cannot be reached: 127.0.0.1:{port}: nothing listens there"


async def test_unknown_host() -> None:
    """A host without an address is named."""
    assert "no-such-host.invalid:27017: the host's name is unknown" in await unusable(
        "mongodb://no-such-host.invalid"
    )


async def test_silent_server() -> None:
    """A server that accepts and says nothing is given up after the time that the URI allows."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        line = await unusable(f"mongodb://127.0.0.1:{port}/?connectTimeoutMS=300")
        assert line == f"the store cannot be reached: 127.0.0.1:{port}: no answer in time"


async def test_missing_files(tmp_path: Path) -> None:
    """Files of certificates that are missing or are none are named."""
    missing, rubbish = tmp_path / "missing.pem", tmp_path / "rubbish.pem"
    rubbish.write_text("no certificate")
    assert str(missing) in await unusable("mongodb://127.0.0.1:1", tls_ca=str(missing))
    assert str(rubbish) in await unusable("mongodb://127.0.0.1:1", tls_ca=str(rubbish))
    assert str(rubbish) in await unusable("mongodb://127.0.0.1:1", tls_cert=str(rubbish))


# --- users


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """Run a server that wants a login, with users of different rights."""
    server = EmbeddedServer(tmp_path_factory.mktemp("guarded") / "data")
    server.start()
    both = ["SCRAM-SHA-1", "SCRAM-SHA-256"]
    with client(server.uri) as admin:
        for name, role, database, mechanisms in (
            ("writer", "readWrite", "fr", both),
            ("reader", "read", "fr", both),
            ("stranger", "readWrite", "elsewhere", both),
            ("modern", "readWrite", "fr", ["SCRAM-SHA-256"]),
        ):
            roles = [{"role": role, "db": database}]
            admin.admin.command("createUser", name, pwd="s3cret/@:", roles=roles, mechanisms=mechanisms)
    server.stop()
    server.options = ("--auth",)
    server.start(wait=False)
    yield server
    server.kill()


def login(server: EmbeddedServer, user: str, password: str = "s3cret%2F%40%3A") -> str:
    """Return the URI with a login."""
    return f"mongodb://{user}:{password}@127.0.0.1:{server.port}"


async def test_login(guarded: EmbeddedServer) -> None:
    """A user with the right to write opens the store, with or without a database in the path."""
    assert "MongoDB" in await usable(login(guarded, "writer"))
    assert "MongoDB" in await usable(login(guarded, "writer") + "/fr?authSource=admin")


async def test_wrong_password(guarded: EmbeddedServer) -> None:
    """A wrong password and an unknown user are told as such, with the name and without the password."""
    for user, reason in (("writer", "wrong password"), ("nobody", "no such user in authSource=admin")):
        line = await unusable(login(guarded, user, "s3cret-but-wrong"))
        assert f"refuses the login of {user} at 127.0.0.1:{guarded.port}: " in line
        assert reason in line


async def test_no_login(guarded: EmbeddedServer) -> None:
    """A server that wants a login, and gets none, is told as such."""
    assert "wants a user and a password" in await unusable(guarded.uri)


async def test_missing_rights(guarded: EmbeddedServer) -> None:
    """A user who may not write into the database is told which role is missing."""
    for user in ("reader", "stranger"):
        line = await unusable(login(guarded, user))
        assert f"user {user} may not use the database fr" in line
        assert "readWrite" in line


async def test_user_without_scram_sha_1(guarded: EmbeddedServer) -> None:
    """A user whom txmongo cannot log in for want of SCRAM-SHA-1 credentials is told so."""
    assert "without the SCRAM-SHA-1 credentials that txmongo needs" in await unusable(
        login(guarded, "modern")
    )


# --- TLS


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """Run a server with TLS, one for another host, and one that wants a certificate of the client."""
    folder = tmp_path_factory.mktemp("encrypted")
    authority, stranger = Authority(folder, "ours"), Authority(folder, "theirs")
    here, there = authority.sign("localhost", "127.0.0.1"), authority.sign("db.example")
    names = {"plain": (), "here": _tls(here), "there": _tls(there)}
    names["mutual"] = (*_tls(here), "--tls-ca-file", str(authority.file), "--tls-require-client-cert")
    servers = {name: EmbeddedServer(folder / name, *options) for name, options in names.items()}
    for server in servers.values():
        server.start(wait=False)
    yield SimpleNamespace(
        ca=str(authority.file),
        other_ca=str(stranger.file),
        me=str(authority.sign("client.example").both),
        stranger=str(stranger.sign("stranger.example").both),
        port=SimpleNamespace(**{name: server.port for name, server in servers.items()}),
    )
    for server in servers.values():
        server.kill()


def _tls(files: object) -> tuple[str, ...]:
    return ("--tls-cert-file", str(files.certificate), "--tls-key-file", str(files.key))  # type: ignore[attr-defined]


async def test_tls(encrypted: SimpleNamespace) -> None:
    """A server with a certificate of the CA for its host is used, by URI options or by files given apart."""
    for host in ("localhost", "127.0.0.1"):
        uri = f"mongodb://{host}:{encrypted.port.here}"
        assert "MongoDB" in await usable(f"{uri}/?tls=true&tlsCAFile={encrypted.ca}")
        assert "MongoDB" in await usable(uri, tls_ca=encrypted.ca)


async def test_tls_unknown_authority(encrypted: SimpleNamespace) -> None:
    """A certificate of another CA, or of none that the system knows, is refused with the option to look at."""
    uri = f"mongodb://localhost:{encrypted.port.here}/?tls=true"
    for line in (await unusable(uri), await unusable(uri, tls_ca=encrypted.other_ca)):
        assert "certificate verify failed" in line
        assert "tlsCAFile" in line


async def test_tls_other_host(encrypted: SimpleNamespace) -> None:
    """A certificate for another host is refused."""
    for host in ("localhost", "127.0.0.1"):
        line = await unusable(f"mongodb://{host}:{encrypted.port.there}", tls_ca=encrypted.ca)
        assert (
            f"{host}:{encrypted.port.there}: TLS failed: the server's certificate is not for this host"
            in line
        )


async def test_tls_client_certificate(encrypted: SimpleNamespace) -> None:
    """A server that wants our certificate gets it; without one, or with a stranger's, it is told."""
    uri = f"mongodb://localhost:{encrypted.port.mutual}/?tlsCAFile={encrypted.ca}"
    assert "MongoDB" in await usable(f"{uri}&tlsCertificateKeyFile={encrypted.me}")
    assert "tlsCertificateKeyFile is missing or refused" in await unusable(uri)
    assert "tlsCertificateKeyFile is missing or refused" in await unusable(uri, tls_cert=encrypted.stranger)


async def test_tls_on_one_side(encrypted: SimpleNamespace) -> None:
    """TLS on one side alone is told as a guess."""
    plain = f"mongodb://localhost:{encrypted.port.plain}"
    assert "does it speak TLS at all?" in await unusable(plain, tls_ca=encrypted.ca)
    assert "does it want TLS (tls=true)?" in await unusable(f"mongodb://localhost:{encrypted.port.here}")
