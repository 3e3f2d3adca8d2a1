"""What several measurements need: processes of the load, and the memory and CPU time of a process."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Self

from tests.daemons import ROOT


def start(module: str, *arguments: object, stdin: int | None = None) -> subprocess.Popen[str]:
    """Start a process of the load; `result` waits for what it prints."""
    command = [sys.executable, "-m", f"tests.benchmarks.{module}", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=None if stdin else subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment,
    )


def result(process: subprocess.Popen[str], seconds: float = 600) -> dict[str, Any]:
    """Return what a process of the load printed.

    Raises:
        RuntimeError: it failed, or took longer.
    """
    try:
        out, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise RuntimeError(f"not over within {seconds:g} s: {process.args!r}") from None
    if process.returncode:
        raise RuntimeError(errors[-2000:])
    told: dict[str, Any] = json.loads(out.splitlines()[-1])
    if "error" in told:
        raise RuntimeError(told["error"])
    return told


def run(module: str, *arguments: object) -> dict[str, Any]:
    """Start one and wait for it."""
    return result(start(module, *arguments))


class Rss:
    """Samples the resident memory of a process; ``peak`` in bytes."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def now(self) -> int:
        """Return the resident bytes now."""
        return rss_of(self.pid)

    def _sample(self) -> None:
        while not self._stop.wait(0.02):
            self.peak = max(self.peak, self.now())

    def __enter__(self) -> Self:
        self.peak = self.now()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def rss_of(pid: int) -> int:
    """Return the resident bytes of a process."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) * 1024


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
