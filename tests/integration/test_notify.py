"""The notify protocol, with daemons as the service manager runs them."""

import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemons import Daemon, daemon


class Manager:
    """What a service manager hears."""

    def __init__(self, folder: str) -> None:
        self.path = f"{folder}/notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)

    def next(self, seconds: float = 30.0) -> str:
        """Return the next state that is told."""
        self._socket.settimeout(seconds)
        return self._socket.recv(4096).decode()

    def close(self) -> None:
        """Hear no more."""
        self._socket.close()


@pytest.fixture
def manager() -> Iterator[Manager]:
    """A manager; not under tmp_path, which may be too long for a socket."""
    with tempfile.TemporaryDirectory() as folder:
        manager = Manager(folder)
        yield manager
        manager.close()


def can_connect(port: int) -> bool:
    """Return whether somebody listens there."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


def follow(unit: Daemon, manager: Manager, port: int) -> None:
    """See READY=1 with the port open, and STOPPING=1 at the end."""
    assert manager.next() == "READY=1"
    assert can_connect(port)
    unit.end()
    assert manager.next(5) == "STOPPING=1"


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_frstore(tmp_path: Path, manager: Manager) -> None:
    """READY=1 when the server answers, WATCHDOG=1 while it runs, STOPPING=1 at the end."""
    port = free_port()
    environment = {"NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "400000"}
    with daemon("frstore", f"--port={port}", folder=tmp_path, environment=environment) as store:
        assert manager.next() == "READY=1"
        assert can_connect(port)
        assert [manager.next(5) for _ in range(3)] == ["WATCHDOG=1"] * 3
        store.end()
        while (state := manager.next(5)) == "WATCHDOG=1":
            pass
        assert state == "STOPPING=1"


def test_frstore_cannot_start(tmp_path: Path, manager: Manager) -> None:
    """A unit that cannot start never says READY=1; its status says why."""
    (tmp_path / "data").write_text("a file")
    environment = {"NOTIFY_SOCKET": manager.path}
    with daemon("frstore", "--port=0", "--dir=data", folder=tmp_path, environment=environment) as store:
        assert manager.next().startswith("STATUS=cannot start: the data folder")
        assert store.wait() == 1


def test_frhub_and_frpacs(tmp_path: Path, manager: Manager) -> None:
    """The HUB is ready when its store can be used and its port is bound; the PACS when its port is."""
    with daemon("frstore", "--port=0", folder=tmp_path) as store:
        environment = {"NOTIFY_SOCKET": manager.path, "FR_MONGO_URI": store.until("store.ready")["url"]}
        port = free_port()
        listen = f"--listen=tcp:{port}:interface=127.0.0.1"
        with daemon("frhub", listen, folder=tmp_path, environment=environment) as hub:
            follow(hub, manager, port)
        with daemon("frpacs", listen, folder=tmp_path, environment=environment) as pacs:
            follow(pacs, manager, port)


def test_frbrain(tmp_path: Path, manager: Manager) -> None:
    """A BRAIN is ready when its store can be used."""
    with daemon("frstore", "--port=0", folder=tmp_path) as store:
        environment = {"NOTIFY_SOCKET": manager.path, "FR_MONGO_URI": store.until("store.ready")["url"]}
        with daemon("frbrain", "--slots=1", folder=tmp_path, environment=environment) as brain:
            assert manager.next(60) == "READY=1"
            brain.end(seconds=20)
            assert manager.next(5) == "STOPPING=1"
