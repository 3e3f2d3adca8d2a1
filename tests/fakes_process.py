"""Processes that do what the test says, and a clock that spawns them."""

from typing import Any

from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.task import Clock
from twisted.python.failure import Failure


class FakeProcess:
    """A process transport that notes the signals it is sent."""

    def __init__(self, protocol: Any, arguments: list[str], environment: dict[str, str]) -> None:
        self.protocol = protocol
        self.arguments = arguments
        self.environment = environment
        self.signals: list[int] = []
        self.pid = 4711
        self.alive = True

    def signalProcess(self, signal: int) -> None:
        """Note it."""
        if not self.alive:
            raise ProcessExitedAlready
        self.signals.append(signal)

    def say(self, line: str) -> None:
        """Write a line to standard error."""
        self.protocol.childDataReceived(2, line.encode() + b"\n")

    def end(self, code: int | None = None, signal: int | None = None) -> None:
        """End."""
        self.alive = False
        error = ProcessDone(0) if code == 0 else ProcessTerminated(code, signal)
        self.protocol.processEnded(Failure(error))


class ProcessReactor(Clock):
    """A clock that also spawns fake processes."""

    def __init__(self) -> None:
        super().__init__()
        self.processes: list[FakeProcess] = []

    def spawnProcess(
        self, protocol: Any, executable: str, args: list[str], env: dict[str, str]
    ) -> FakeProcess:
        """Make one."""
        process = FakeProcess(protocol, args, env)
        self.processes.append(process)
        return process
