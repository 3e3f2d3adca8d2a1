"""The four units of Fr as real processes that a test starts, kills and looks at from outside."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pymongo import MongoClient

from tests.daemons import ROOT, TWISTD

PATIENCE = 120.0
"""Seconds that a wait for anything may take."""


def free_port() -> int:
    """Return a port that the system has just given out and taken back."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_for(what: str, condition: Callable[[], Any], seconds: float = PATIENCE, step: float = 0.05) -> Any:
    """Return the first true value of ``condition``; fail naming ``what`` when it does not come."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(step)
    raise AssertionError(f"waited {seconds:g} s in vain: {what}")


class Unit:
    """A ``twistd`` process that may be started again after its end; its JSON lines of all its lives are in ``log``."""

    def __init__(self, folder: Path, name: str, **settings: object) -> None:
        self.name = name
        self.folder = folder / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = self.folder / "log.json"
        self.settings = {key: str(value) for key, value in settings.items()}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "Unit":
        """Start it, and wait until it says that it is ready."""
        before = len(self.events("unit.ready"))
        environment = {key: value for key, value in os.environ.items() if not key.startswith("FR_")}
        environment |= self.settings | {"FR_LOG_FORMAT": "json", "PYTHONPATH": str(ROOT)}
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [TWISTD, "-n", "--pidfile=", f"fr{self.name}"],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        wait_for(f"{self.name} ready: {self.log}", lambda: self._is_ready(before), 60)
        return self

    def _is_ready(self, before: int) -> bool:
        assert self.process is not None
        code = self.process.poll()
        assert code is None, f"{self.name} ended with {code}: {self.log.read_text()[-2000:]}"
        return len(self.events("unit.ready")) > before

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> int:
        """SIGTERM; return its exit status. One that does not end in 20 s is killed, and that is a failure."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                raise
        return self.process.returncode

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield what it logged."""
        if self.log.exists():
            for line in self.log.read_text(errors="replace").splitlines():
                if line.startswith("{") and line.endswith("}"):
                    yield json.loads(line)

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return its log lines with this event."""
        return [line for line in self.lines() if line.get("event") == name]


class House:
    """Store, HUB, BRAIN and PACS in one folder, on free ports; with ``mongo_uri`` without a store of its own."""

    def __init__(self, folder: Path, mongo_uri: str | None = None, **more: object) -> None:
        store_port, hub_port, pacs_port = free_port(), free_port(), free_port()
        self.uri = mongo_uri or f"mongodb://127.0.0.1:{store_port}/fr"
        self.store = None if mongo_uri else Unit(folder, "store", FR_STORE_PORT=store_port)
        self.reports = folder / "reports"
        self.watched = folder / "incoming"
        self.watched.mkdir()
        mongo = {"FR_MONGO_URI": self.uri}
        settings: dict[str, object] = {
            "FR_HUB_LISTEN": f"tcp:{hub_port}:interface=127.0.0.1",
            "FR_HUB_NODES": f"pacs=tcp:127.0.0.1:{pacs_port}",
            "FR_PACS_HUB": f"tcp:127.0.0.1:{hub_port}",
            "FR_PACS_LISTEN": f"tcp:{pacs_port}:interface=127.0.0.1",
            "FR_PACS_REPORTS": self.reports,
            "FR_PACS_WATCH": self.watched,
        }
        settings |= more
        self.hub = Unit(folder, "hub", **mongo, **settings)
        self.brain = Unit(folder, "brain", **mongo, **settings)
        self.pacs = Unit(folder, "pacs", **settings)
        self._client: MongoClient[dict[str, Any]] | None = None

    def start(self) -> "House":
        """Start everything."""
        for unit in (self.store, self.hub, self.brain, self.pacs):
            if unit is not None:
                unit.start()
        return self

    @property
    def db(self) -> Any:
        """The database, read by a client that is not ours."""
        if self._client is None:
            self._client = MongoClient(self.uri, serverSelectionTimeoutMS=10_000)
        return self._client.get_default_database()

    def stop(self) -> None:
        """End everything, by force what does not end by itself."""
        if self._client is not None:
            self._client.close()
        for unit in (self.pacs, self.hub, self.brain, self.store):
            if unit is not None and unit.process is not None:
                try:
                    unit.stop()
                except subprocess.TimeoutExpired:
                    continue
