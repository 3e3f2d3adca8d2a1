"""Unit tests under pytest: `mktemp` of trial's TestCase makes its folders where the test runs."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _run_in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
