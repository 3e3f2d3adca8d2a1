"""Servers that speak the MongoDB protocol, for tests: one that is given, one in a container, or the embedded one."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pymongo
from pymongo.errors import PyMongoError

GIVEN = "FR_TEST_MONGO_URI"
START_SECONDS = 60.0
STOP_SECONDS = 15.0


def client(uri: str) -> pymongo.MongoClient[dict[str, Any]]:
    """Return a plain client, for what a test does behind the store's back. Close it."""
    direct = "&" if "?" in uri else "?"
    return pymongo.MongoClient(
        f"{uri}{direct}directConnection=true", serverSelectionTimeoutMS=2000, tz_aware=True
    )


def with_database(uri: str, name: str) -> str:
    """Return ``uri`` with the database ``name`` in its path, users still looked up where they were."""
    base, _, query = uri.partition("?")
    scheme, _, rest = base.partition("://")
    hosts, _, old = rest.partition("/")
    if "@" in hosts and "authSource=" not in query:
        query = f"{query}&authSource={old or 'admin'}".lstrip("&")
    return f"{scheme}://{hosts}/{name}" + (f"?{query}" if query else "")


def answers(uri: str) -> bool:
    """Tell whether the server answers ``hello`` now."""
    with client(uri) as pinging:
        try:
            return bool(pinging.admin.command("hello").get("isWritablePrimary"))
        except PyMongoError:
            return False


class EmbeddedServer:
    """The embedded server as a process of the test's own, run by its command line."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.options = options
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        """Return the URI, without a database."""
        return f"mongodb://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Return the id of the running process."""
        assert self._process is not None
        return self._process.pid

    def start(self, wait: bool = True) -> None:
        """Start, on the port of the last time if there was one; return when ``hello`` is answered."""
        self.folder.mkdir(exist_ok=True)
        log = self.folder.parent / f"{self.folder.name}.log"
        program = str(Path(sys.executable).parent / "secantusd-py")
        command = [
            program,
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--storage-path",
            str(self.folder),
        ]
        command += ["--sync-on-commit", "--cache-size", "256M", "--oplog-max-entries", "200"]
        command += ["--enable-test-commands", *self.options]
        if shutil.which("setpriv") and shutil.which("setsid"):
            # It ends with the tests, and a Ctrl-C for the tests does not reach it.
            command = ["setpriv", "--pdeathsig", "TERM", "setsid", *command]
        with log.open("wb") as stderr:
            self._process = subprocess.Popen(command, stdout=stderr, stderr=stderr, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + START_SECONDS
        while not (found := re.search(rb"listening on [\d.]+:(\d+)", log.read_bytes())) or (
            wait and not answers(f"mongodb://127.0.0.1:{int(found[1])}")
        ):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the embedded server did not start: {log.read_text()[-2000:]}")
            time.sleep(0.05)
        self.port = int(found[1])

    def kill(self) -> None:
        """End it at once, as a power cut of the process would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(STOP_SECONDS)
        self._process = None

    def stop(self) -> None:
        """End it cleanly, which takes about 2 s; a SIGTERM that came too early was lost, so it is sent again."""
        if self._process is None:
            return
        deadline = time.monotonic() + STOP_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(5.0)
            except subprocess.TimeoutExpired:
                continue
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(STOP_SECONDS)
        self._process = None


def docker_answers() -> bool:
    """Tell whether a Docker engine is there, at the address that its clients use."""
    address = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    scheme, _, rest = address.partition("://")
    try:
        if scheme == "unix":
            with socket.socket(socket.AF_UNIX) as engine:
                engine.settimeout(3)
                engine.connect(rest)
        else:
            host, _, port = rest.partition("/")[0].rpartition(":")
            socket.create_connection((host, int(port)), timeout=3).close()
    except (OSError, ValueError):
        return False
    return True


def which() -> str:
    """Return which server the tests will use: ``given``, ``container`` or ``embedded``."""
    if os.environ.get(GIVEN):
        return "given"
    return "container" if docker_answers() else "embedded"


@contextmanager
def container() -> Iterator[str]:
    """Run ``mongo:8`` as a replica set of one member in a container."""
    from testcontainers.core.container import DockerContainer

    command = "mongod --replSet rs0 --bind_ip_all --setParameter enableTestCommands=1"
    with DockerContainer("mongo:8").with_command(command).with_exposed_ports(27017) as running:
        uri = f"mongodb://{running.get_container_host_ip()}:{running.get_exposed_port(27017)}"
        deadline = time.monotonic() + START_SECONDS
        members = [{"_id": 0, "host": "127.0.0.1:27017"}]
        while not answers(uri):
            if time.monotonic() > deadline:
                raise RuntimeError("the container's replica set has no primary")
            try:
                with client(uri) as admin:
                    admin.admin.command("replSetInitiate", {"_id": "rs0", "members": members})
            except PyMongoError:
                time.sleep(0.5)
        yield uri


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """Run the server that `which` says, and yield its URI."""
    kind = which()
    if kind == "given":
        yield os.environ[GIVEN]
    elif kind == "container":
        with container() as uri:
            yield uri
    else:
        embedded = EmbeddedServer(folder)
        embedded.start()
        try:
            yield embedded.uri
        finally:
            embedded.stop()


@contextmanager
def database(uri: str) -> Iterator[str]:
    """Yield ``uri`` with a database of its own, dropped afterwards."""
    name = f"fr_test_{uuid4().hex[:12]}"
    try:
        yield with_database(uri, name)
    finally:
        with client(uri) as admin:
            admin.drop_database(name)


@contextmanager
def fail_point(uri: str, mode: Any, **data: Any) -> Iterator[None]:
    """Let the server fail commands as ``data`` says (``failCommands``, ``errorCode``, ...) within the block."""
    with client(uri) as admin:
        admin.admin.command("configureFailPoint", "failCommand", mode=mode, data=data)
        try:
            yield
        finally:
            admin.admin.command("configureFailPoint", "failCommand", mode="off")
