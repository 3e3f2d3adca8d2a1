"""Fr-PACS as a process: a HUB that the test plays takes its scans and delivers a report."""

import hashlib
import json
import signal
import socket
import tarfile
from collections.abc import Awaitable, Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from fr_twisted import bundle
from fr_twisted.link.interfaces import Refuse
from fr_twisted.link.receiver_factory import ReceiverFactory
from fr_twisted.link.sender import ReconnectingSenderFactory, SenderService
from fr_twisted.model import make_report_id
from tests.daemons import Daemon
from tests.fakes_link import MemoryIntake, MemoryOutbox, make_item
from tests.pacs_builders import write_nifti, write_series

reactor: Any = global_reactor
LOCAL = "tcp:0:interface=127.0.0.1"


class Hub:
    """Plays the HUB: keeps scans in memory, delivers reports."""

    def __init__(self) -> None:
        self.intake = MemoryIntake()
        self.offers: list[Any] = []
        self._port: Any = None
        self.receivers = ReceiverFactory("hub", self.intake, reactor)
        offered = self.intake.offered

        def note(node: str, item: Any) -> Any:
            self.offers.append(item)
            return offered(node, item)

        self.intake.offered = note  # type: ignore[method-assign]

    async def start(self) -> str:
        """Listen; return the endpoint for Fr-PACS."""
        self._port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(self.receivers)
        return f"tcp:127.0.0.1:{self._port.getHost().port}"

    async def stop(self) -> None:
        """Close the port and the connections."""
        await self._port.stopListening()
        await self.receivers.drain(1.0)

    async def deliver(self, port: int, scan_id: str, data: bytes) -> MemoryOutbox:
        """Send a report to Fr-PACS; return the outbox with its outcome."""
        meta = {
            "scan_id": scan_id,
            "patient_id": "P-17",
            "analysis": "a",
            "analysis_version": "1",
            "created_at": "2026-01-01T00:00:00Z",
        }
        outbox = MemoryOutbox((make_item(data, make_report_id(scan_id, "a", "1"), "report", **meta), data))
        factory = ReconnectingSenderFactory("hub", outbox, reactor)
        service = SenderService(TCP4ClientEndpoint(reactor, "127.0.0.1", port), factory)
        service.startService()
        await until(lambda: bool(outbox.outcomes()))
        await service.stopService()
        return outbox


async def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait until it holds."""
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        await deferLater(reactor, 0.02)
    raise AssertionError("it did not come to that in time")


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Provide a function that starts ``twistd frpacs``; all are gone afterwards."""
    started: list[Daemon] = []

    def start(*arguments: str) -> Daemon:
        options = ["--listen", LOCAL, "--reports", str(tmp_path / "reports"), *arguments]
        started.append(Daemon(["frpacs", *options], tmp_path))
        return started[-1]

    yield start
    for daemon in started:
        daemon.close()


def in_thread(function: Callable[..., Any], *args: Any) -> Awaitable[Any]:
    """Run what blocks, while the reactor goes on."""
    running: Deferred[Any] = deferToThread(function, *args)
    return running


async def test_the_road_there_and_back(pacs: Callable[..., Daemon], tmp_path: Path) -> None:
    """What is dropped into the watched folder arrives as it was, and is in sent/ then; a report comes back."""
    hub = Hub()
    watched = tmp_path / "watched"
    watched.mkdir()
    payload = write_nifti(watched / "sub-1.nii.gz", (64, 64, 300)).read_bytes()
    write_series(watched / "study", 12)
    (watched / "notes.txt").write_text("not a scan")
    daemon = pacs("--hub", await hub.start(), "--watch", str(watched))
    port = (await in_thread(daemon.until, "port.bound"))["port"]
    await in_thread(daemon.until, "unit.ready")
    await until(lambda: len(hub.intake.stored) == 2)
    received = {hashlib.sha256(data).hexdigest(): data for _, data in hub.intake.stored}
    assert hashlib.sha256(payload).hexdigest() in received
    metas = {item.meta["format"]: item for item in hub.offers}
    with tarfile.open(fileobj=BytesIO(received[metas["dicom-tar"].sha256])) as tar:
        slices = [pydicom.dcmread(BytesIO(tar.extractfile(entry).read())) for entry in tar]  # type: ignore[union-attr]
    assert [piece.InstanceNumber for piece in slices] == list(range(1, 13))
    assert metas["nifti-gz"].meta["patient_id"] == "sub-1"
    await until(
        lambda: (watched / "sent" / "study").is_dir() and (watched / "sent" / "sub-1.nii.gz").exists()
    )
    assert sorted(path.name for path in watched.iterdir()) == ["notes.txt", "sent"]

    scan_id = metas["nifti-gz"].id
    data = bundle.pack({"report.json": json.dumps({"scan_id": scan_id}).encode(), "report.html": b"fine"})
    first = await hub.deliver(port, scan_id, data)
    assert (tmp_path / "reports" / scan_id / "report.html").read_bytes() == b"fine"
    second = await hub.deliver(port, scan_id, data)
    assert [first.outcomes()[0][0], second.outcomes()[0][0]] == ["acknowledged", "acknowledged"]
    assert [path.name for path in (tmp_path / "reports").glob("scan-*")] == [scan_id]
    written = await in_thread(daemon.until, "report.written")
    assert written["scan_id"] == scan_id
    assert 0 < written["seconds"] < 30
    status = await in_thread(daemon.end)
    assert status == -signal.SIGTERM
    await hub.stop()
    text = "".join(daemon.output)
    assert "Traceback" not in text
    for secret in ("Doe", "Jane", "P-17", "19500203"):
        assert secret not in text
    assert (tmp_path / "reports" / "index.html").exists()


async def test_generated_scans(pacs: Callable[..., Daemon], tmp_path: Path) -> None:
    """A generated NIfTI and series arrive, their truth stays here; with a seed they are the same scans again."""
    hub = Hub()
    options = (
        "--hub",
        await hub.start(),
        "--generate",
        "2",
        "--seed",
        "7",
        "--spool",
        str(tmp_path / "spool"),
        "--truth",
        str(tmp_path / "truth"),
    )
    daemon = pacs(*options)
    await until(lambda: len(hub.intake.stored) == 2)
    truth = json.loads((tmp_path / "truth" / f"{hub.offers[0].id}.json").read_text())
    assert 900 < truth["volumes_ml"]["brain"] < 1800
    assert "volumes" not in json.dumps([item.meta for item in hub.offers])
    assert await in_thread(daemon.end) == -signal.SIGTERM
    assert [path.name for path in (tmp_path / "spool").iterdir()] == [".fr-lock"]
    assert [item.meta["format"] for item in hub.offers] == ["nifti-gz", "dicom-tar"]
    assert all(item.meta["patient_id"].startswith("GEN-") for item in hub.offers)
    again = pacs(*options)
    await until(lambda: len(hub.offers) == 4)
    assert [item.id for item in hub.offers[2:]] == [item.id for item in hub.offers[:2]]
    assert await in_thread(again.end) == -signal.SIGTERM
    await hub.stop()


async def test_refused_for_good(pacs: Callable[..., Daemon], tmp_path: Path) -> None:
    """A scan that the HUB refuses for good is in refused/ with the HUB's reason."""
    hub = Hub()
    hub.intake.refuse = Refuse("no-room", "this node takes no such scans", retry=False)
    watched = tmp_path / "watched"
    write_nifti(watched / "sub-1.nii.gz")
    daemon = pacs("--hub", await hub.start(), "--watch", str(watched))
    beside = watched / "refused" / "sub-1.nii.gz.reason.txt"
    await until(lambda: beside.exists() and (watched / "refused" / "sub-1.nii.gz").exists())
    assert "this node takes no such scans" in beside.read_text()
    assert await in_thread(daemon.end) == -signal.SIGTERM
    await hub.stop()


async def test_killed_leaves_no_payload(pacs: Callable[..., Daemon], tmp_path: Path) -> None:
    """What a killed Fr-PACS had prepared is removed by the next one, patients' images being in it."""
    hub = Hub()
    hub.intake.holding = True
    options = (
        "--hub",
        await hub.start(),
        "--generate",
        "1",
        "--seed",
        "7",
        "--spool",
        str(tmp_path / "spool"),
    )
    killed = pacs(*options)
    await until(lambda: bool(hub.intake.held))
    [left] = (tmp_path / "spool").glob("fr-pacs-*")
    assert sum(file.stat().st_size for file in left.rglob("*") if file.is_file()) > 1_000_000
    assert await in_thread(killed.end, signal.SIGKILL) == -signal.SIGKILL
    hub.intake.release(len(hub.intake.held))
    again = pacs("--hub", options[1], "--spool", str(tmp_path / "spool"))
    await in_thread(again.until, "unit.ready")
    assert not left.exists()
    assert await in_thread(again.end) == -signal.SIGTERM
    await hub.stop()


async def test_what_keeps_it_from_starting(pacs: Callable[..., Daemon], tmp_path: Path) -> None:
    """A port in use, a path that is not there and a folder that cannot be one end the unit with one line."""
    (tmp_path / "file").write_text("x")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        cases = [
            (("--listen", f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"), "cannot listen on"),
            (("--send", "/nowhere/at/all"), "there is no /nowhere/at/all"),
            (("--watch", "/nowhere/at/all"), "/nowhere/at/all is no folder"),
            (("--reports", str(tmp_path / "file" / "x")), "cannot be written"),
        ]
        for options, words in cases:
            daemon = pacs(*options)
            failed = await in_thread(daemon.until, "unit.failed")
            assert words in failed["msg"], failed
            assert await in_thread(daemon.wait) == 1
            assert sum('"unit.failed"' in line for line in daemon.output) == 1
