"""Results at archives that are not ours: dcmtk's storescp keeps them, its tools read them without complaint."""

import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import highdicom
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage, SegmentationStorage
from pynetdicom import AE, build_role, evt
from pynetdicom.sop_class import StorageCommitmentPushModel  # type: ignore[attr-defined]
from twisted.internet import reactor as global_reactor
from twisted.internet.endpoints import TCP4ClientEndpoint

from fr_twisted import bundle
from fr_twisted.brain.analysis import label_maps, page, pictures
from fr_twisted.link.sender import ReconnectingSenderFactory, SenderService
from fr_twisted.model import PayloadFormat, ScanMeta, make_report_id
from fr_twisted.pacs.dicom_out import codes, objects, scu
from fr_twisted.pacs.dicom_out.scu import CLASSES, SYNTAXES, Fate, Sender
from fr_twisted.setting_dicom import Archive
from tests.daemons import Daemon
from tests.dicom_out_builders import head, make_case, sagittal_slices
from tests.fakes_link import MemoryOutbox, make_item
from tests.integration.test_pacs_unit import LOCAL, Hub, in_thread, until
from tests.pacs_builders import write_slice
from tests.report_builders import some_findings

reactor: Any = global_reactor

# By its path: pynetdicom has programs of the same names.
DCMTK = {
    name: shutil.which(name, path="/usr/bin:/usr/local/bin") for name in ("storescp", "dsrdump", "dcm2json")
}
needs_dcmtk = pytest.mark.skipif(
    not all(DCMTK.values()),
    reason="dcmtk is not installed (apt-get install dcmtk): storescp, dsrdump, dcm2json",
)


def free_port() -> int:
    """Return a port that nobody has: storescp cannot say which one it was given."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def storescp(port: int, folder: Path) -> Iterator[list[str]]:
    """Run dcmtk's archive; give the lines that it wrote, once it has ended."""
    folder.mkdir()
    said: list[str] = []
    process = subprocess.Popen(
        [str(DCMTK["storescp"]), "-v", "-aet", "ARCHIVE", "-od", str(folder), str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        _wait_for(port)
        yield said
    finally:
        process.terminate()
        said += process.communicate(timeout=10)[0].splitlines()


def _wait_for(port: int) -> None:
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("it does not listen")


def read_without_complaint(path: Path) -> None:
    """Have dcmtk read a file; every word that it says about it is a failure."""
    is_report = pydicom.dcmread(path, stop_before_pixels=True).Modality == "SR"
    for tool in ("dcm2json", "dsrdump") if is_report else ("dcm2json",):
        done = subprocess.run([str(DCMTK[tool]), str(path)], capture_output=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, b""), (tool, path.name, done.stderr)
        assert done.stdout


def report_bundle(scan_id: str) -> bytes:
    """Return a report as a BRAIN writes it."""
    anatomy, meta = head(), ScanMeta(patient_id="P-17", format=PayloadFormat.DICOM_TAR)
    found = some_findings(lesions=anatomy.lesions)
    files = page.files(scan_id, meta, found, pictures.overlay(anatomy)) | label_maps.files(anatomy, found)
    return bundle.pack(files)


async def deliver(port: int, scan_id: str, data: bytes) -> None:
    """Play the HUB that delivers a report."""
    meta = {
        "scan_id": scan_id,
        "patient_id": "P-17",
        "analysis": "hand-made",
        "analysis_version": "1.0",
        "created_at": "2026-01-01T00:00:00Z",
    }
    item = make_item(data, make_report_id(scan_id, "hand-made", "1.0"), "report", **meta)
    outbox = MemoryOutbox((item, data))
    service = SenderService(
        TCP4ClientEndpoint(reactor, "127.0.0.1", port), ReconnectingSenderFactory("hub", outbox, reactor)
    )
    service.startService()
    await until(lambda: bool(outbox.outcomes()))
    await service.stopService()
    assert outbox.outcomes()[0][0] == "acknowledged"


@needs_dcmtk
async def test_killed_while_the_archive_is_down(tmp_path: Path) -> None:
    """A report whose archive is down survives SIGKILL; when both are up again the archive has all of it, readable."""
    hub, archive = Hub(), free_port()
    for number, dataset in enumerate(sagittal_slices(head())):
        write_slice(tmp_path / "study" / f"IM{number:03d}", dataset)
    options = [
        "frpacs",
        "--listen",
        LOCAL,
        "--reports",
        str(tmp_path / "reports"),
        "--hub",
        await hub.start(),
    ]
    options += ["--dicom-archives", f"ARCHIVE@127.0.0.1:{archive}", "--dicom-state", str(tmp_path / "state")]
    first = Daemon([*options, "--send", str(tmp_path / "study")], tmp_path)
    second = None
    try:
        port = (await in_thread(first.until, "port.bound"))["port"]
        await until(lambda: len(hub.intake.stored) == 1)
        scan_id = hub.offers[0].id
        data = await in_thread(report_bundle, scan_id)
        await deliver(port, scan_id, data)
        waits = await in_thread(first.until, "dicom.deferred")
        assert "cannot be reached" in waits["reason"]
        assert await in_thread(first.end, signal.SIGKILL) == -signal.SIGKILL
        with storescp(archive, tmp_path / "archive") as said:
            second = Daemon(options, tmp_path)
            there = await in_thread(second.until, "dicom.delivered")
            assert (there["count"], there["scan_id"]) == (4, scan_id)
            assert await in_thread(second.end) == -signal.SIGTERM
    finally:
        for daemon in filter(None, (first, second)):
            daemon.close()
        await hub.stop()
    assert not [line for line in said if line.startswith(("W:", "E:", "F:"))], said
    check_archive(tmp_path / "archive")
    assert list((tmp_path / "state" / "out").glob("*.dcm")) == []
    text = "".join(first.output + second.output)
    for secret in ("Doe", "Jane", "P-17", "19500203", "Traceback"):
        assert secret not in text


def check_archive(folder: Path) -> None:
    """See that the archive holds the report as it was measured, in the study that the scan came from."""
    files = sorted(folder.iterdir())
    assert len(files) == 4
    found = {}
    for path in files:
        read_without_complaint(path)
        dataset = pydicom.dcmread(path)
        found[dataset.Modality] = path
        assert dataset.StudyInstanceUID == "1.2.826.0.1.3680043.9.9"
        assert (dataset.PatientName, dataset.PatientID) == ("Doe^Jane", "P-17")
    assert set(found) == {"SEG", "SR", "OT", "DOC"}
    volumes = some_findings(lesions=head().lesions).volumes
    assert volumes is not None
    report: Any = highdicom.sr.srread(found["SR"]).content
    (white,) = [
        group
        for group in report.get_volumetric_roi_measurement_groups()
        if group.finding_type == codes.WHITE_MATTER
    ]
    (volume,) = white.get_measurements(name=codes.VOLUME)
    assert float(volume.value) == volumes.white_matter.value * 1000
    segments = highdicom.seg.segread(found["SEG"])
    assert [s.SegmentLabel for s in segments.SegmentSequence][-1] == "Lesion candidates"
    assert white.referenced_segment[0].referenced_sop_instance_uid == segments.SOPInstanceUID


async def test_archive_calls_back(peer: Callable[..., "Peer"], tmp_path: Path) -> None:
    """An archive that reports on an association of its own is heard, by an AE title that need not be allowed."""
    hub, archive = Hub(), peer(commitment=True)
    for number, dataset in enumerate(sagittal_slices(head())[:8]):
        write_slice(tmp_path / "study" / f"IM{number:03d}", dataset)
    options = {
        "listen": LOCAL,
        "reports": str(tmp_path / "reports"),
        "hub": await hub.start(),
        "dicom-archives": str(archive.archive),
        "dicom-commitment": "yes",
        "dicom-state": str(tmp_path / "state"),
        "dicom-listen": "tcp:0:interface=127.0.0.1",
        "dicom-spool": str(tmp_path / "spool"),
        "dicom-allow": "MR1",
        "send": str(tmp_path / "study"),
    }
    daemon = Daemon(["frpacs", *(f"--{name}={value}" for name, value in options.items())], tmp_path)
    try:
        port = (await in_thread(daemon.until, "port.bound"))["port"]
        archive.call_back = (await in_thread(daemon.until, "dicom.bound"))["port"]
        await until(lambda: len(hub.intake.stored) == 1)
        scan_id = hub.offers[0].id
        await deliver(port, scan_id, await in_thread(report_bundle, scan_id))
        there = await in_thread(daemon.until, "dicom.delivered")
        assert "commits to keeping them" in there["detail"]
        assert archive.reported.wait(10)
        assert archive.answers == [0x0000]
        assert await in_thread(daemon.end) == -signal.SIGTERM
    finally:
        daemon.close()
        await hub.stop()


class Peer:
    """An archive that answers as a test says: pynetdicom's, on loopback."""

    def __init__(self, *, classes: Any = tuple(CLASSES), commitment: bool = False) -> None:
        self.status: Callable[[Any], int] = lambda _: 0x0000
        self.kept: list[str] = []
        self.reported = threading.Event()
        self.call_back: int | None = None
        """The port to report to on an association of our own; None: on that of the request."""
        self.answers: list[int] = []
        ae = AE(ae_title="PEER")
        ae.require_called_aet = True
        for kind in classes:
            ae.add_supported_context(kind, SYNTAXES)
        if commitment:
            ae.add_supported_context(StorageCommitmentPushModel, SYNTAXES, scu_role=True, scp_role=True)
        handlers: Any = [(evt.EVT_C_STORE, self._store), (evt.EVT_N_ACTION, self._action)]
        self._server = cast(Any, ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers))
        self.archive = Archive("PEER", "127.0.0.1", self._server.socket.getsockname()[1])

    def _store(self, event: Any) -> int:
        status = self.status(event)
        if status == 0x0000:
            self.kept.append(str(event.request.AffectedSOPInstanceUID))
        return status

    def _action(self, event: Any) -> Any:
        request = event.action_information
        threading.Thread(target=self._report, args=(event.assoc, request), daemon=True).start()
        return 0x0000, None

    def _report(self, association: Any, request: Dataset) -> None:
        answer = Dataset()
        answer.TransactionUID = request.TransactionUID
        answer.ReferencedSOPSequence = list(request.ReferencedSOPSequence)
        time.sleep(0.1)  # the answer to the request comes first
        if self.call_back is not None:
            ae = AE(ae_title="PEER")
            ae.add_requested_context(StorageCommitmentPushModel)
            role = build_role(StorageCommitmentPushModel, scp_role=True)
            association = ae.associate("127.0.0.1", self.call_back, ae_title="FR", ext_neg=[role])
            assert association.is_established
        status, _ = association.send_n_event_report(
            answer, 1, StorageCommitmentPushModel, scu.COMMITMENT_INSTANCE
        )
        self.answers.append(int(status.Status))
        if self.call_back is not None:
            association.release()
        self.reported.set()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()


@pytest.fixture
def peer() -> Iterator[Callable[..., Peer]]:
    """Provide a function that starts an archive; all are gone afterwards."""
    peers: list[Peer] = []

    def start(**options: Any) -> Peer:
        peers.append(Peer(**options))
        return peers[-1]

    yield start
    for one in peers:
        one.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The objects of one report, by SOP instance UID."""
    case = make_case(tmp_path_factory.mktemp("case"))
    return {
        case.report.uid(kind, "instance"): data
        for kind, data in objects.make(case.report, case.source).files.items()
    }


def test_statuses(peer: Callable[..., Peer], made: dict[str, bytes]) -> None:
    """Each object is judged by the status that came for it, and one that is refused does not end the association."""
    archive = peer()
    answers = {
        SegmentationStorage: 0x0122,
        Comprehensive3DSRStorage: 0xB000,
    }
    archive.status = lambda event: answers.get(event.request.AffectedSOPClassUID, 0x0000)
    sent = Sender(archive.archive, "FR").send(made)
    fates = [sent.answers[uid].fate for uid in made]
    assert fates == [Fate.REFUSED, Fate.DELIVERED, Fate.DELIVERED, Fate.DELIVERED]
    assert [sent.answers[uid].status for uid in made] == [0x0122, 0xB000, 0, 0]
    assert sent.trouble is None


def test_class_that_is_not_accepted(peer: Callable[..., Peer], made: dict[str, bytes]) -> None:
    """An archive that does not accept a class gets the others, and the refusal names the class."""
    archive = peer(classes=[kind for kind in CLASSES if kind != Comprehensive3DSRStorage])
    sent = Sender(archive.archive, "FR").send(made)
    refused = [answer.text for answer in sent.answers.values() if answer.fate is Fate.REFUSED]
    assert refused == ["it takes no Comprehensive 3D SR objects"]
    assert len(archive.kept) == 3


def test_wrong_title(peer: Callable[..., Peer], made: dict[str, bytes]) -> None:
    """An archive that is called by another title rejects the association, and the reason says so."""
    archive = peer().archive
    sent = Sender(Archive("OTHER", archive.host, archive.port), "FR").send(made)
    assert sent.answers == {}
    assert sent.trouble == "it rejected the association: it is not the AE title that is called there"


# pynetdicom drops a socket that could not connect without closing it; Python closes it at once.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_nobody_there(made: dict[str, bytes]) -> None:
    """Where nobody listens, that is said."""
    sent = Sender(Archive("PEER", "127.0.0.1", free_port()), "FR").send(made)
    assert sent.trouble == "it cannot be reached, or ended the association at once"


def test_ends_in_between(peer: Callable[..., Peer], made: dict[str, bytes]) -> None:
    """An association that the archive ends while an object is on its way leaves that and the rest undelivered."""
    archive = peer()

    def status(event: Any) -> int:
        if archive.kept:
            event.assoc.abort()
        return 0x0000

    archive.status = status
    sent = Sender(archive.archive, "FR").send(made)
    assert len(sent.answers) == 1
    assert sent.trouble == "the association ended before the answer"


def test_abort(peer: Callable[..., Peer], made: dict[str, bytes]) -> None:
    """Another thread can end an association whose archive does not answer; after that there is no other."""
    archive, asked, over = peer(), threading.Event(), threading.Event()

    def status(_: Any) -> int:
        asked.set()
        over.wait(10)
        return 0x0000

    archive.status = status
    sender = Sender(archive.archive, "FR")
    results: list[scu.Sent] = []
    thread = threading.Thread(target=lambda: results.append(sender.send(made)))
    thread.start()
    assert asked.wait(10)
    began = time.monotonic()
    sender.abort()
    thread.join(10)
    over.set()
    assert time.monotonic() - began < 5
    assert results[0].answers == {}
    assert sender.send(made).trouble == "this node stops"


def test_commitment(peer: Callable[..., Peer], made: dict[str, bytes]) -> None:
    """An archive that commits on the same association is heard, with all objects and our transaction."""
    archive = peer(commitment=True)
    sent = Sender(archive.archive, "FR").send(made, "2.25.17")
    assert archive.reported.wait(10)
    assert sent.commitment is not None
    assert (sent.commitment.transaction, sent.commitment.failed) == ("2.25.17", {})
    assert sent.commitment.kept == frozenset(made)


def test_no_commitment(peer: Callable[..., Peer], made: dict[str, bytes]) -> None:
    """An archive that does no commitment has the objects, and is known to have promised nothing."""
    sent = Sender(peer().archive, "FR").send(made, "2.25.17")
    assert sent.commitment is not None
    assert not sent.commitment.asked
    assert {answer.fate for answer in sent.answers.values()} == {Fate.DELIVERED}
