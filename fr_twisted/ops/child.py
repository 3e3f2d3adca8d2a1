"""One unit of the house as a child process: its JSON log lines, its readiness, its restart when it dies."""

import json
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from signal import SIGKILL, SIGTERM, Signals
from typing import Any

from twisted.application.internet import backoffPolicy
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready, ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from fr_twisted.ops.launch import command
from fr_twisted.ops.services import Ready, StartError

_LONGEST_LINE = 65536
_STEADY = 60.0


class Output(ProcessProtocol):
    """Splits what a child writes into lines, and tells its end."""

    def __init__(self, on_line: Callable[[str], None], on_end: Callable[[str], None]) -> None:
        self._on_line = on_line
        self._on_end = on_end
        self._parts: dict[int, bytes] = {}

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """Hand on whole lines; what comes without an end is cut."""
        *lines, rest = (self._parts.get(childFD, b"") + data).split(b"\n")
        self._parts[childFD] = rest[-_LONGEST_LINE:]
        for line in lines:
            self._on_line(line.decode("utf-8", "replace"))

    def processEnded(self, reason: Failure) -> None:
        """Hand on what is left, and how it ended, in words."""
        for rest in self._parts.values():
            if rest:
                self._on_line(rest.decode("utf-8", "replace"))
        error = reason.value
        if isinstance(error, ProcessTerminated):
            signal = error.signal
            self._on_end(f"status {error.exitCode}" if signal is None else Signals(signal).name)
        else:
            self._on_end("status 0")


class UnitProcess:
    """Runs ``twistd -n fr<name>`` and keeps it running until it is stopped."""

    def __init__(
        self,
        reactor: Any,
        twistd: str,
        name: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        on_line: Callable[[str, Mapping[str, Any]], None],
    ) -> None:
        """Make it.

        Args:
            reactor: processes and time.
            twistd: path of the twistd command.
            name: hub, brain, pacs or store.
            arguments: options of the unit.
            environment: of the process, ``FR_LOG_FORMAT`` included.
            on_line: called with the name and each log line, as a mapping with ``msg`` and ``level`` at least.
        """
        self.name = name
        self.restarts = 0
        self._reactor = reactor
        self._arguments = ["-n", "--pidfile=", f"fr{name}", *arguments]
        self._twistd = twistd
        self._environment = dict(environment)
        self._on_line = on_line
        self._ready = Ready()
        self._policy = backoffPolicy(0.5, 10.0, 2.0, jitter=lambda: 0.0)
        self._crashes = 0
        self._transport: Any = None
        self._timer: Any = None
        self._stopping = False
        self._gone: Deferred[None] | None = None
        self._last_words = ""
        self._ready_at: float | None = None
        self._talks = False
        self._held: deque[dict[str, Any]] = deque(maxlen=3)

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return None if self._transport is None else self._transport.pid

    def start(self) -> Deferred[None]:
        """Start it; fire when it is ready for the first time, errback with `StartError` when it ends before that."""
        self._spawn()
        return self._ready.when()

    def stop(self) -> Deferred[None]:
        """Send SIGTERM and let it be; fire when the process has ended."""
        self._stopping = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._gone = Deferred()
        if self._transport is None:
            self._gone.callback(None)
        else:
            with suppress(ProcessExitedAlready):
                self._transport.signalProcess(int(SIGTERM))
        return self._gone

    def kill(self) -> None:
        """End it with everything it started in its session, now."""
        if self._transport is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._transport.pid, SIGKILL)

    def _spawn(self) -> None:
        run = command(self._twistd, self._arguments, SIGTERM)
        self._ready_at = None
        self._talks = False
        self._transport = self._reactor.spawnProcess(
            Output(self._heard, self._ended), run[0], run, env=self._environment
        )

    def _heard(self, text: str) -> None:
        try:
            line = json.loads(text)
        except ValueError:
            line = None
        if not isinstance(line, dict):
            line = {"msg": text, "level": "warn"}
            if not self._talks:
                # twistd's own words, such as its whole help before what is wrong with a setting: the end will do.
                self._held.append(line)
                self._last_words = text.strip() or self._last_words
                return
        self._talks = True
        self._let_go()
        if text.strip():
            self._last_words = str(
                line.get("reason") if line.get("event") == "unit.failed" else line.get("msg")
            )
        self._on_line(self.name, line)
        if line.get("event") == "unit.ready":
            self._ready_at = self._reactor.seconds()
            self._ready.succeed()

    def _let_go(self) -> None:
        while self._held:
            self._on_line(self.name, self._held.popleft())

    def _ended(self, how: str) -> None:
        self._transport = None
        self._let_go()
        if self._gone is not None:
            self._gone.callback(None)
        elif not self._ready.fired:
            self._ready.fail(StartError(f"fr{self.name} does not start ({how}): {self._last_words}"))
        elif not self._stopping:
            self._restart(how)

    def _restart(self, how: str) -> None:
        if self._ready_at is not None and self._reactor.seconds() - self._ready_at > _STEADY:
            self._crashes = 0
        delay = self._policy(self._crashes)
        self._crashes += 1
        self.restarts += 1
        text = f"fr{self.name} ended unexpectedly ({how}); it is started again in {delay:.1f} s"
        self._on_line(self.name, {"msg": text, "level": "error"})
        self._timer = self._reactor.callLater(delay, self._spawn)
