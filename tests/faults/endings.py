"""What is done and asked when a world ends: its own cleaners finish, Fr's cleaner and ``fr verify`` are run."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.daemons import ROOT
from tests.faults import reader
from tests.faults.periods import Periods
from tests.faults.problems import LEFT, OTHER, Problem

_SECONDS = 120.0
_SHOWN = 10


def wait_removed(db: Any, periods: Periods) -> list[Problem]:
    """Wait until HUBs that nothing is done to have removed what they ever will; return what they have not in time."""
    end = time.monotonic() + periods.all_over
    while left := reader.removable(db):
        if time.monotonic() > end:
            text = f"not removed within {periods.all_over:.0f} s of rest"
            return [Problem(LEFT, what, text) for what in left[:_SHOWN]]
        time.sleep(0.5)
    return []


def clean(uri: str) -> list[Problem]:
    """With no unit at work: clean as a HUB would after its grace period."""
    status, out, errors = _run([sys.executable, "-m", "tests.faults.clean", uri], Path(ROOT))
    return [] if status == 0 else [Problem(OTHER, "the cleaner", f"{out}{errors}"[-500:])]


def verify(uri: str, folder: Path) -> list[Problem]:
    """Return what ``fr verify`` finds in a store where nothing is under way; its settings come from nowhere else."""
    command = [sys.executable, "-m", "fr_twisted.command", "verify", "--grace", "0", "--json"]
    return verdict(*_run(command, folder, {"FR_MONGO_URI": uri}))


def verdict(status: int | None, out: str, errors: str) -> list[Problem]:
    """Return what came of ``fr verify --json``: each finding is a problem, and so is whatever is not its clean end."""
    try:
        told = json.loads(out)
        found = [
            Problem(OTHER, str(each["id"]), f"fr verify: {each['kind']}: {each['detail']}")
            for each in told["findings"]
        ]
        clean_end = status == 0 and told["clean"] is True
    except (ValueError, KeyError, TypeError):
        found, clean_end = [], False
    if found or clean_end:
        return found
    return [Problem(OTHER, "fr verify", f"status {status}: {out[-300:]}{errors[-500:]}")]


def _run(
    command: Sequence[str], folder: Path, settings: dict[str, str] | None = None
) -> tuple[int | None, str, str]:
    """Run a command, of Fr's settings with these alone; its status is None when it was not over in time."""
    ours = {key: value for key, value in os.environ.items() if not key.startswith("FR_")}
    environment = ours | {"PYTHONPATH": str(ROOT)} | (settings or {})
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None, "", f"not over within {_SECONDS:.0f} s"
    return done.returncode, done.stdout, done.stderr
