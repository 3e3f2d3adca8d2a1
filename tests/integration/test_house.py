"""The whole house, as `make demo` and `make all` run it."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemons import ROOT, eventually, runs


class RunningHouse:
    """A house in a folder of its own; what it writes goes to a file."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        self.output = folder / "output.txt"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("FR_")}
        with self.output.open("w") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fr_twisted.ops.house", "--data-dir=fr", *arguments],
                cwd=folder,
                env={**environment, "PYTHONPATH": str(ROOT), "FR_BRAIN_SLOTS": "1"},
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def text(self) -> str:
        """Return what it has written so far."""
        return self.output.read_text()

    def says(self, words: str, seconds: float) -> None:
        """Wait until it says this."""
        assert eventually(
            lambda: words in self.text() or self.process.poll() is not None, seconds
        ), self.text()
        assert words in self.text(), self.text()

    def pids(self) -> dict[str, int]:
        """Return the process ids of the units, by name, the last start counting."""
        found = re.findall(r"^(\w+) +\| Fr-\w+ starts, node \w+, pid (\d+)$", self.text(), re.MULTILINE)
        return {name: int(pid) for name, pid in found}

    def left(self) -> list[str]:
        """Return the command lines of processes of this house that still run: their folder or ports give them away."""
        lines = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                here = os.readlink(folder / "cwd") == str(self.folder) and runs(int(folder.name))
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if here or str(self.folder) in line:
                lines.append(line)
        return lines


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in which no process is left when the test ends."""
    yield tmp_path
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(path / "cwd") == str(tmp_path):
                os.kill(int(path.name), signal.SIGKILL)
        except OSError:
            continue


def test_demo(folder: Path) -> None:
    """A generated scan goes out and comes back as a report; the table says so; nothing is left running."""
    house = RunningHouse(folder, "--scans=1", "--until-done", "--timeout=120")
    assert house.process.wait(150) == 0, house.text()
    row = re.search(r"^(scan-\w+)" + r" +(\d+\.\d)" * 5 + r" +\d+\.\d$", house.text(), re.MULTILINE)
    assert row is not None, house.text()
    brain, grey, white = (float(row[n]) for n in (2, 3, 4))
    assert 800 < brain < 2000
    assert abs(grey + white - brain) < 1
    page = folder / "fr" / "reports" / row[1] / "report.html"
    assert f"open {page}" in house.text()
    assert page.read_text().lstrip().lower().startswith("<!doctype html")
    assert house.left() == []


def test_stays_and_ends(folder: Path) -> None:
    """It stays up; a unit that is killed is started again; Ctrl-C ends everything within five seconds."""
    house = RunningHouse(folder, "--scans=0", "--stay")
    house.says("all units are up", 60)
    hub = house.pids()["hub"]
    os.kill(hub, signal.SIGKILL)
    house.says("frhub ended unexpectedly (SIGKILL)", 10)
    assert eventually(lambda: house.pids()["hub"] != hub and house.text().count("Fr-HUB is ready") == 2, 30)
    began = time.monotonic()
    house.process.send_signal(signal.SIGINT)
    assert house.process.wait(10) == 0, house.text()
    assert time.monotonic() - began < 5
    assert house.left() == []


def test_killed(folder: Path) -> None:
    """When the house itself is killed its units end too."""
    house = RunningHouse(folder, "--scans=0", "--stay")
    house.says("all units are up", 60)
    house.process.kill()
    house.process.wait(10)
    assert eventually(lambda: house.left() == [], 15), house.left()
