"""What Fr-BRAIN leaves in the folder of temporary files: nothing when it ends, and what a killed one left goes."""

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemons import daemon


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Provide a folder whose path is short enough for sockets in it."""
    with tempfile.TemporaryDirectory(prefix="fr-") as folder:
        yield Path(folder)


def left(folder: Path) -> list[str]:
    """Return what is in the folder, but for the lock of the base folder, which stays."""
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() or path.is_socket()]


def test_nothing_is_left(database_uri: str, temporary: Path, tmp_path: Path) -> None:
    """The fork server's socket goes with the work folder: at SIGTERM, and that of a killed BRAIN at the next start."""
    environment = {
        "TMPDIR": str(temporary),
        "FR_MONGO_URI": database_uri,
        "FR_BRAIN_SLOTS": "1",
        "FR_BRAIN_ANALYSIS": "tests.analyses_for_tests:QUICK",
    }
    lock = [f"fr-brain-{os.getuid()}/.fr-lock"]
    with daemon("frbrain", folder=tmp_path, environment=environment) as killed:
        killed.until("unit.ready")
        assert any("listener-" in path for path in left(temporary))
        killed.end(signal.SIGKILL)
    with daemon("frbrain", folder=tmp_path, environment=environment) as ended:
        ended.until("unit.ready")
        assert len([path for path in left(temporary) if "listener-" in path]) == 1
        ended.end(signal.SIGTERM)
    assert left(temporary) == lock
