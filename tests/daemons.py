"""Real twistd processes for tests: started, listened to, ended; none is left behind."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TWISTD = str(Path(sys.executable).with_name("twistd"))
ROOT = Path(__file__).resolve().parent.parent


class Daemon:
    """One ``twistd -n`` process, and the JSON lines that it writes."""

    def __init__(
        self, arguments: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("FR_")}
        self.process = subprocess.Popen(
            [TWISTD, "-n", "--pidfile=", *arguments],
            cwd=folder,
            env={**inherited, "PYTHONPATH": str(ROOT), "FR_LOG_FORMAT": "json", **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.output: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout:
            for line in self.process.stdout:
                self._lines.put(line)
        self._lines.put(None)

    def until(self, event: str, seconds: float = 30.0) -> dict[str, Any]:
        """Return the next line with this event.

        Raises:
            AssertionError: the process ended, or the time, before it came; with what was said.
        """
        end = time.monotonic() + seconds
        while True:
            try:
                text = self._lines.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                text = None
            assert text is not None, f"no {event} came:\n{''.join(self.output)}"
            self.output.append(text)
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict) and line.get("event") == event:
                return line

    def end(self, number: int = signal.SIGTERM, seconds: float = 10.0) -> int:
        """Send a signal and return the status it ended with."""
        self.process.send_signal(number)
        return self.wait(seconds)

    def wait(self, seconds: float = 10.0) -> int:
        """Return the status it ended with, all of its lines being in ``output``."""
        status = self.process.wait(seconds)
        while (text := self._lines.get(timeout=5.0)) is not None:
            self.output.append(text)
        return status

    def close(self) -> None:
        """Kill whatever is left."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10.0)


@contextmanager
def daemon(*arguments: str, folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[Daemon]:
    """Run ``twistd -n`` with these arguments; it is gone afterwards."""
    running = Daemon(arguments, folder, environment)
    try:
        yield running
    finally:
        running.close()


def children(pid: int) -> list[int]:
    """Return the process ids of the children of ``pid``."""
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def runs(pid: int) -> bool:
    """Return whether the process is there and no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in ("Z", "X")


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Return whether ``condition`` came true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
