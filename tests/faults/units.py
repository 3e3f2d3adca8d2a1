"""The units as processes: started, killed, frozen, ended; and what they say."""

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.daemons import ROOT, TWISTD, children, runs

STOP_TIMEOUT = 4.0
"""What FR_STOP_TIMEOUT is set to."""

_STOP_MARGIN = 3.0
"""Beyond that, for the interpreter's end on a machine that is busy."""

_KILL_SECONDS = 10.0


def free_ports(count: int) -> list[int]:
    """Return ports that are free now, from below the range that the system gives to connections.

    From within it, a port of a unit that is down for a moment could be taken by anyone's connection.
    """
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    start = 10_000 + (os.getpid() * 37) % max(1, min(low, 32_768) - 11_000)
    found: list[int] = []
    port = start
    while len(found) < count:
        port += 1
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
    return found


class Unit:
    """A ``twistd`` process that is started again after its end. What is done to it is done under its ``lock``."""

    def __init__(self, folder: Path, name: str, environment: Mapping[str, str], path: str = "") -> None:
        """Take the name (``hub-1``), its settings, and a folder to put before the others on its import path."""
        self.name, self.kind = name, name.partition("-")[0]
        self.folder = folder / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = self.folder / "log.json"
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("FR_")}
        search = os.pathsep.join(filter(None, [path, str(ROOT)]))
        self._environment = inherited | dict(environment) | {"FR_LOG_FORMAT": "json", "PYTHONPATH": search}
        self.lock = threading.RLock()
        self.starts: list[float] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._read_at, self._rest = 0, b""
        self.events: list[dict[str, Any]] = []

    # -- as a process

    @property
    def pid(self) -> int:
        """Return the id of the process; 0: there is none."""
        return self._process.pid if self._process is not None else 0

    def alive(self) -> bool:
        """Return whether it runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it; when it is ready, its log says so."""
        with self.lock, self.log.open("ab") as out:
            self.starts.append(time.time())
            self._process = subprocess.Popen(
                [TWISTD, "-n", "--pidfile=", f"fr{self.kind}"],
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def ended(self) -> int | None:
        """Return the status that it ended with by itself; None: it runs, or we ended it."""
        with self.lock:
            code = None if self._process is None else self._process.poll()
            if code is not None:
                self._process = None
            return code

    def kill(self) -> bool:
        """SIGKILL; return whether there was something to kill."""
        with self.lock:
            if self._process is None or self._process.poll() is not None:
                return False
            self._process.kill()
            self._process.wait(_KILL_SECONDS)
            self._process = None
            return True

    def terminate(self) -> tuple[float, int | None]:
        """SIGTERM; return the seconds until its end and its status, None when it had to be killed."""
        with self.lock:
            if self._process is None:
                return 0.0, 0
            began = time.monotonic()
            self._process.send_signal(signal.SIGTERM)
            try:
                code: int | None = self._process.wait(STOP_TIMEOUT + _STOP_MARGIN)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(_KILL_SECONDS)
                code = None
            self._process = None
            return time.monotonic() - began, code

    @contextmanager
    def frozen(self, pid: int | None = None) -> Iterator[bool]:
        """SIGSTOP it (or its child ``pid``), and SIGCONT it at the end; yields whether it could be."""
        with self.lock:
            target = pid or self.pid
            try:
                os.kill(target, signal.SIGSTOP) if target else None
            except ProcessLookupError:
                target = 0
            try:
                yield bool(target)
            finally:
                if target and runs(target):
                    os.kill(target, signal.SIGCONT)

    def server(self) -> int:
        """Return the process id of Fr-STORE's server; 0: there is none now."""
        if not self.alive():
            return 0
        try:
            return next((pid for pid in children(self.pid) if b"secantusd" in _command_line(pid)), 0)
        except OSError:
            return 0

    # -- what it says

    def read(self) -> list[dict[str, Any]]:
        """Return the log lines since the last call; all of them are in ``events``."""
        if not self.log.exists():
            return []
        with self.log.open("rb") as file:
            file.seek(self._read_at)
            data = file.read()
        self._read_at += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        fresh = []
        for line in lines:
            if line.startswith(b"{"):
                try:
                    fresh.append(json.loads(line))
                except ValueError:
                    continue  # cut in the middle by a SIGKILL
        self.events += fresh
        return fresh

    def is_ready(self) -> bool:
        """Return whether the process that runs now has said that it is ready."""
        self.read()
        for event in reversed(self.events):
            if event.get("event") == "unit.ready":
                seen = True
                break
            if event.get("event") == "unit.started":
                return False
        else:
            return False
        born = next(event for event in reversed(self.events) if event.get("event") == "unit.started")
        return seen and self.alive() and born.get("pid") == self.pid


def _command_line(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()
