"""A short form of ``make faults``: real daemons under load, and whatever the seed says done to them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.daemons import ROOT

pytestmark = pytest.mark.alone

SEED = 11
SECONDS = 45
"""After which no round is begun; the last one takes some twenty more, and then all is stopped and looked at."""

HARD_LIMIT = 240


def test_short_form(tmp_path: Path) -> None:
    """Rounds of kills, cuts, freezes and bad input lose nothing, double nothing, leave nothing stuck or behind."""
    command = [sys.executable, "-m", "tests.faults", "--rounds", "3", "--seed", str(SEED), "--scans", "40"]
    command += ["--faults", "10", "--seconds", str(SECONDS), "--folder", str(tmp_path / "faults")]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FR_") or k == "FR_TEST_MONGO_URI"}
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=HARD_LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "lost 0, doubled 0, stuck 0" in done.stdout, done.stdout
