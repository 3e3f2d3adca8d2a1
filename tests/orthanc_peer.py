"""Orthanc as a process of the tests': a PACS that is not ours."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from fr_twisted.ops.orthanc import OrthancClient, OrthancPorts, configure, find_orthanc
from fr_twisted.ops.services import StartError
from tests.house import wait_for

try:
    ORTHANC: str | None = find_orthanc()
except StartError:
    ORTHANC = None

needs_orthanc = pytest.mark.skipif(
    ORTHANC is None, reason="Orthanc is not installed: apt-get install orthanc"
)


@contextmanager
def orthanc(folder: Path, ports: OrthancPorts, route: bool = False) -> Iterator[OrthancClient]:
    """Run Orthanc; it is gone afterwards."""
    client = OrthancClient(ports.http)
    log = folder / "orthanc.log"
    process = subprocess.Popen(
        [str(ORTHANC), str(configure(folder, ports, "FR", route, ["MR1"])), f"--logfile={log}"]
    )
    try:

        def answers() -> bool:
            assert process.poll() is None, log.read_text()
            with suppress(OSError):
                return bool(client.get("/system"))
            return False

        wait_for("Orthanc", answers, 20)
        yield client
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
