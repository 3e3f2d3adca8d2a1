"""frstore as it is run: readiness, crashes, ends, and who may use the data folder."""

import contextlib
import os
import signal
import socket
import struct
import time
from pathlib import Path
from typing import Any

import bson

from fr_twisted.store.embedded import find_executable
from tests.daemons import children, daemon, eventually, runs


def ask(port: int, **command: Any) -> dict[str, Any]:
    """Send one command to the server and return its reply."""
    body = struct.pack("<IB", 0, 0) + bson.encode({**command, "$db": "fr"})
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(struct.pack("<iiii", 16 + len(body), 1, 0, 2013) + body)
        data = b""
        while len(data) < 4 or len(data) < struct.unpack_from("<i", data)[0]:
            piece = connection.recv(65536)
            assert piece, "the server closed the connection"
            data += piece
    return dict(bson.decode(data[21:]))


def count(port: int) -> int:
    """Return how many documents the test's collection holds."""
    return int(ask(port, count="things")["n"])


def servers(folder: Path) -> list[bytes]:
    """Return the command lines of servers that run with their data in ``folder``."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            lines.append(path.read_bytes())
    return [line for line in lines if find_executable().encode() in line and str(folder).encode() in line]


def test_ready_means_usable(tmp_path: Path) -> None:
    """When the unit is ready, the first command works; change streams are there; SIGTERM ends all of it soon."""
    with daemon("frstore", "--port=0", "--dir=data", folder=tmp_path) as store:
        ready = store.until("store.ready")
        assert ask(ready["port"], insert="things", documents=[{"_id": 1}])["ok"] == 1
        assert ready["url"] == f"mongodb://127.0.0.1:{ready['port']}/fr"
        assert ask(ready["port"], hello=1)["setName"]
        store.until("unit.ready")
        (server,) = children(store.process.pid)
        began = time.monotonic()
        assert store.end() == -signal.SIGTERM
        assert time.monotonic() - began < 4.5
        assert not runs(server)
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700


def test_settings(tmp_path: Path) -> None:
    """A fixed port is used; without change streams the server stands alone; test commands are off unless wanted."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        "FR_STORE_PORT": str(port),
        "FR_STORE_CHANGE_STREAMS": "no",
        "FR_STORE_TEST_COMMANDS": "yes",
    }
    with daemon("frstore", folder=tmp_path, environment=environment) as store:
        assert store.until("store.ready")["port"] == port
        assert "setName" not in ask(port, hello=1)
        reply = ask(port, configureFailPoint="failCommand", mode="off", **{"$db": "admin"})
        assert reply.get("code") != 59, "CommandNotFound"


def test_crash_loses_nothing(tmp_path: Path) -> None:
    """A server that is killed is started again on its port, with all that it acknowledged."""
    with daemon("frstore", "--port=0", folder=tmp_path) as store:
        ready = store.until("store.ready")
        for number in range(3):
            assert ask(ready["port"], insert="things", documents=[{"_id": number}])["ok"] == 1
            os.kill(ready["pid"], signal.SIGKILL)
            assert store.until("store.crashed")["signal"] == signal.SIGKILL
            again = store.until("store.ready")
            assert again["port"] == ready["port"]
            ready = again
        assert count(ready["port"]) == 3
        assert store.process.poll() is None


def test_dies_with_its_parent(tmp_path: Path) -> None:
    """When the unit is killed, the server ends too, and the folder can be used at once by another."""
    with daemon("frstore", "--port=0", folder=tmp_path) as store:
        ready = store.until("store.ready")
        ask(ready["port"], insert="things", documents=[{"_id": 1}])
        store.end(signal.SIGKILL)
        assert eventually(lambda: not runs(ready["pid"]))
    with daemon("frstore", "--port=0", folder=tmp_path) as store:
        assert count(store.until("store.ready")["port"]) == 1


def test_folder_in_use(tmp_path: Path) -> None:
    """A second unit on the same folder ends with status 1 and one line; the first does not notice."""
    with daemon("frstore", "--port=0", folder=tmp_path) as first:
        port = first.until("store.ready")["port"]
        with daemon("frstore", "--port=0", folder=tmp_path) as second:
            failed = second.until("unit.failed", 30)
            assert failed["reason"] == f"the data folder {tmp_path / '.fr/store'} is in use by another server"
            assert second.wait() == 1
            assert "Traceback" not in "".join(second.output)
        assert ask(port, ping=1)["ok"] == 1


def test_port_in_use(tmp_path: Path) -> None:
    """A port of another program is told, with the setting to change."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with daemon("frstore", f"--port={port}", folder=tmp_path) as store:
            assert f"port {port} on 127.0.0.1 is in use" in store.until("unit.failed", 30)["reason"]
            assert store.wait() == 1


def test_stop_while_starting(tmp_path: Path) -> None:
    """SIGTERM at whatever moment of the start ends everything."""
    for delay in (0.0, 0.1, 0.25, 0.4):
        with daemon("frstore", "--port=0", folder=tmp_path) as store:
            store.until("unit.started")
            time.sleep(delay)
            began = time.monotonic()
            assert store.end() == -signal.SIGTERM
            assert time.monotonic() - began < 4.5
            # A launcher whose parent was gone before it could tie itself to it ends by itself.
            assert eventually(lambda: servers(tmp_path) == [], 5), servers(tmp_path)


def test_bad_setting(tmp_path: Path) -> None:
    """A setting that cannot be used stops the unit, after which nothing runs."""
    with daemon("frstore", "--port=seven", folder=tmp_path) as store:
        assert store.wait() == 1
        assert '--port is "seven" on the command line, which cannot be used' in "".join(store.output)
    assert not (tmp_path / ".fr").exists()
