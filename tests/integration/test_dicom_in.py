"""DICOM in with software that is not ours: dcmtk and pynetdicom send to a Fr-PACS process."""

import os
import random
import signal
import socket
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    CTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    MRImageStorage,
)
from pynetdicom.dsutils import encode

from fr_twisted.brain.analysis import jpeg_plugin
from fr_twisted.brain.analysis.read import read
from fr_twisted.model import PayloadFormat
from fr_twisted.pacs.ledger import Ledger
from tests.builders import dicom_tar
from tests.daemons import Daemon
from tests.dicom_peers import (
    Scu,
    ask,
    commitment,
    echoscu,
    jpeg_lossless_of,
    needs_dcmtk,
    send_raw,
    storescu,
)
from tests.integration.test_pacs_unit import LOCAL, Hub, in_thread, until
from tests.pacs_builders import make_slice, write_series, write_slice

needs_jpeg = pytest.mark.skipif(
    not jpeg_plugin.is_available(JPEGLosslessSV1),
    reason="imagecodecs is not installed: pip install fr-twisted[jpeg]",
)

TINY = int(os.environ.get("FR_TEST_TINY", "1500"))
"""Instances of a series of tiny ones; ten thousand take a minute."""

UIDS = {f"1.2.3.{number}" for number in range(1, 13)}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Provide a function that starts ``twistd frpacs`` with a DICOM port and returns it and the port."""
    started: list[Daemon] = []

    async def run(hub: str, *arguments: str) -> tuple[Daemon, int]:
        options = {
            "listen": LOCAL,
            "hub": hub,
            "reports": str(tmp_path / "reports"),
            "dicom-listen": "tcp:0:interface=127.0.0.1",
            "dicom-spool": str(tmp_path / "spool"),
            "series-quiet": "0.3",
            "series-patience": "3",
        }
        words = [f"--{name}={value}" for name, value in options.items()]
        started.append(Daemon(["frpacs", *words, *arguments], tmp_path))
        bound = await in_thread(started[-1].until, "dicom.bound")
        return started[-1], bound["port"]

    yield run
    for daemon in started:
        daemon.close()


def instances(data: bytes) -> list[str]:
    """Return the SOP Instance UIDs in a scan's tar."""
    with tarfile.open(fileobj=BytesIO(data)) as tar:
        files = [BytesIO(tar.extractfile(entry).read()) for entry in tar]  # type: ignore[union-attr]
    return [str(pydicom.dcmread(file).SOPInstanceUID) for file in files]


def slices(count: int = 12, series: str = "1.2.3", **changes: Any) -> list[Dataset]:
    """Return the slices of a series."""
    return [make_slice(number, series, **changes) for number in range(1, count + 1)]


async def no_more(hub: Hub, count: int) -> None:
    """See that nothing more than ``count`` scans comes within a while."""
    with pytest.raises(AssertionError, match="in time"):
        await until(lambda: len(hub.offers) > count, 1.5)


@needs_dcmtk
async def test_dcmtk_sends(start: Callable[..., Any], tmp_path: Path) -> None:
    """echoscu is answered; what storescu sends arrives as one scan, and nothing of the patient is in the log."""
    hub = Hub()
    daemon, port = await start(await hub.start(), "--dicom-allow=MR1,ORTHANC")
    assert (await in_thread(echoscu, port)).returncode == 0
    write_series(tmp_path / "sent", 12)
    sent = await in_thread(storescu, port, tmp_path / "sent")
    assert sent.returncode == 0, sent.stderr
    await until(lambda: len(hub.intake.stored) == 1)
    found = instances(hub.intake.stored[0][1])
    assert (len(found), set(found)) == (12, UIDS)
    assert hub.offers[0].meta["patient_id"] == "P-17"
    again = await in_thread(storescu, port, tmp_path / "sent")
    assert again.returncode == 0, again.stderr
    await no_more(hub, 1)
    assert await in_thread(daemon.end) == -signal.SIGTERM
    await hub.stop()
    text = "".join(daemon.output)
    assert "Traceback" not in text
    for secret in ("Doe", "Jane", "P-17", "19500203"):
        assert secret not in text


@needs_dcmtk
async def test_strangers(start: Callable[..., Any], tmp_path: Path) -> None:
    """An AE title that is not on the list, and one that calls somebody else, get no association; the log says why."""
    options = ("--dicom-allow=MR1", "--dicom-aet=FR-IN", "--dicom-max-associations=1")
    daemon, port = await start("tcp:127.0.0.1:9", *options)
    write_series(tmp_path / "sent", 12)
    stranger = await in_thread(storescu, port, tmp_path / "sent")
    assert "Called AE Title Not Recognized" in stranger.stderr
    assert "it called 'FR'; we are FR-IN" in (await in_thread(daemon.until, "dicom.refused"))["msg"]
    for title, called, answer, why in (
        ("MR2", "FR-IN", "Calling", "'MR2' is not in FR_DICOM_ALLOW"),
        ("MR1", "OTHER", "Called", "it called 'OTHER'"),
    ):
        refused = await in_thread(echoscu, port, title, called)
        assert refused.returncode != 0
        assert f"{answer} AE Title Not Recognized" in refused.stderr
        assert why in (await in_thread(daemon.until, "dicom.refused"))["msg"]
    assert (await in_thread(echoscu, port, "MR1", "FR-IN")).returncode == 0
    holding: list[Any] = []

    def hold() -> bool:  # the thread of the echo may take a moment to end
        holding.append(Scu(port, called="FR-IN").open())
        return bool(holding[-1].is_established)

    await until(hold)
    one_more = await in_thread(echoscu, port, "MR1", "FR-IN")
    assert "Local Limit Exceeded" in one_more.stderr
    assert await in_thread(daemon.end) == -signal.SIGTERM  # in time, while an association is open
    assert list((tmp_path / "spool" / "series").iterdir()) == []


async def test_no_room(start: Callable[..., Any], tmp_path: Path) -> None:
    """Over its watermark the spool answers A700H with a comment, keeps what it has, and goes on when there is room."""
    hub = Hub()
    one = len(write_slice(tmp_path / "one", make_slice(1)).read_bytes())
    daemon, port = await start(await hub.start(), f"--spool-limit={one * 11}")
    scu = Scu(port)
    with scu.association() as association:
        answers = [association.send_c_store(each) for each in slices()]
    kept = [answer.Status for answer in answers].index(0xA700)
    assert 8 <= kept < 12
    assert [answer.Status for answer in answers[kept:]] == [0xA700] * (12 - kept)
    assert answers[-1].ErrorComment == "the spool is full"
    await until(lambda: len(hub.intake.stored) == 1)
    assert len(instances(hub.intake.stored[0][1])) == kept
    assert await in_thread(daemon.end) == -signal.SIGTERM
    await hub.stop()


@needs_dcmtk
async def test_killed_in_the_middle(start: Callable[..., Any], tmp_path: Path) -> None:
    """Killed in the middle of an association, it has what it answered for; sent again, every instance is there once."""
    hub = Hub()
    endpoint = await hub.start()
    daemon, port = await start(endpoint)
    association = await in_thread(Scu(port).open)
    for dataset in slices()[:7]:
        assert (await in_thread(association.send_c_store, dataset)).Status == 0
    assert await in_thread(daemon.end, signal.SIGKILL) == -signal.SIGKILL
    spooled = {path.stem for path in (tmp_path / "spool" / "series" / "1.2.3").iterdir()}
    assert spooled == {f"1.2.3.{number}" for number in range(1, 8)}
    again, port = await start(endpoint)
    write_series(tmp_path / "sent", 12)
    sent = await in_thread(storescu, port, tmp_path / "sent")
    assert sent.returncode == 0, sent.stderr
    await until(lambda: len(hub.intake.stored) == 1)
    found = instances(hub.intake.stored[0][1])
    assert (len(found), set(found)) == (12, UIDS)
    await no_more(hub, 1)
    assert await in_thread(again.end) == -signal.SIGTERM
    await hub.stop()


async def test_killed_before_the_hub_had_it(start: Callable[..., Any]) -> None:
    """What was answered with success while no HUB answered is sent to it by the next process, without its sender."""
    daemon, port = await start("tcp:127.0.0.1:9")
    assert await in_thread(Scu(port).send, slices()) == [0] * 12
    await in_thread(daemon.until, "series.complete")
    assert await in_thread(daemon.end, signal.SIGKILL) == -signal.SIGKILL
    hub = Hub()
    again, _ = await start(await hub.start())
    await until(lambda: len(hub.intake.stored) == 1)
    assert set(instances(hub.intake.stored[0][1])) == UIDS
    assert await in_thread(again.end) == -signal.SIGTERM
    await hub.stop()


@needs_dcmtk
async def test_mixed(start: Callable[..., Any], tmp_path: Path) -> None:
    """Of CT, a localizer and two MR series interleaved, the MR series arrive; CT is refused by dcmtk's own words."""
    hub = Hub()
    daemon, port = await start(await hub.start())
    folder = tmp_path / "sent"
    for number in range(1, 13):  # storescu sends in the order of the names
        for series in ("1.2.3", "1.2.4"):
            write_slice(folder / f"{number:02}-{series}", make_slice(number, series))
        write_slice(
            folder / f"{number:02}-loc", make_slice(number, "1.2.5", ImageType=["A", "B", "LOCALIZER"])
        )
        write_slice(
            folder / f"{number:02}-ct",
            make_slice(number, "1.2.6", SOPClassUID=str(CTImageStorage), Modality="CT"),
        )
    sent = await in_thread(lambda: storescu(port, folder, options=["-nh", "-R"]))
    assert "1.2.6" not in str(list((tmp_path / "spool" / "series").iterdir()))
    assert "CT" in sent.stderr or "1.2.840.10008.5.1.4.1.1.2" in sent.stderr
    await until(lambda: len(hub.intake.stored) == 2)
    assert sorted(len(set(instances(data))) for _, data in hub.intake.stored) == [12, 12]
    skipped = await in_thread(daemon.until, "file.skipped")
    assert "localizer" in skipped["msg"]
    await no_more(hub, 2)
    assert await in_thread(daemon.end) == -signal.SIGTERM
    await hub.stop()


@needs_dcmtk
async def test_many_tiny(start: Callable[..., Any], tmp_path: Path) -> None:
    """Very many tiny instances of one series, by dcmtk, become one scan that holds each once."""
    hub = Hub()
    daemon, port = await start(await hub.start())
    tiny = make_slice(10_000, "1.2.8", Rows=1, Columns=1, PixelData=b"\0\0")
    first = write_slice(tmp_path / "first", tiny).read_bytes()
    assert first.count(b"1.2.8.10000") == 2
    (tmp_path / "sent").mkdir()
    for number in range(10_000, 10_000 + TINY):
        (tmp_path / "sent" / str(number)).write_bytes(first.replace(b"1.2.8.10000", b"1.2.8.%d" % number))
    sent = await in_thread(lambda: storescu(port, tmp_path / "sent", options=["-nh"], quick=True))
    assert sent.returncode == 0, sent.stderr
    await until(lambda: len(hub.intake.stored) == 1, 60)
    found = await in_thread(instances, hub.intake.stored[0][1])
    assert (len(found), len(set(found))) == (TINY, TINY)
    assert await in_thread(daemon.end) == -signal.SIGTERM
    await hub.stop()


async def test_two_associations(start: Callable[..., Any]) -> None:
    """The same series on two associations at once is one scan with each instance once."""
    hub = Hub()
    daemon, port = await start(await hub.start())
    answers: list[list[int]] = []
    work = [
        threading.Thread(target=lambda part=part: answers.append(Scu(port).send(part)))
        for part in (slices()[:9], slices()[4:])
    ]
    for thread in work:
        thread.start()
    await until(lambda: len(answers) == 2)
    assert answers == [[0] * len(part) for part in answers]
    await until(lambda: len(hub.intake.stored) == 1)
    found = instances(hub.intake.stored[0][1])
    assert (len(found), set(found)) == (12, UIDS)
    await no_more(hub, 1)
    assert await in_thread(daemon.end) == -signal.SIGTERM
    await hub.stop()


async def test_hostile(start: Callable[..., Any]) -> None:
    """Garbage at every layer gets an answer or a closed connection, and the next sender is served as ever."""
    hub = Hub()
    daemon, port = await start(await hub.start())
    chance = random.Random(5)
    for data in (
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        chance.randbytes(3000),
        b"\x01\x00\xff\xff\xff\xff" + bytes(100),
        b"\x04\x00\x7f\xff\xff\xff" + bytes(5000),
    ):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(data)
    body = encode(make_slice(1), False, True) or b""
    assert len(body) > 500

    def fuzz() -> set[int]:
        statuses = set()
        with Scu(port).association() as association:
            for cut in range(1, len(body), 41):
                statuses.add(send_raw(association, "1.2.3.1", body[:cut]))
            for _ in range(60):
                broken = bytearray(body)
                for _ in range(chance.randrange(1, 20)):
                    broken[chance.randrange(len(broken))] = chance.randrange(256)
                statuses.add(send_raw(association, f"1.2.3.{chance.randrange(50, 99)}", bytes(broken)))
        return statuses

    def fuzz_messages() -> None:
        """Send PDUs that are broken in all ways, on associations that were agreed."""
        for number in range(24):
            association = Scu(port).open()
            assert association.is_established
            good = bytes([0, 0, 0, 40, 1, 3]) + chance.randbytes(38)  # a fragment of a command
            parts = [
                chance.randbytes(60),
                good,
                good[:3],
                b"\xff\xff\xff\xff\1\3",
                bytes([0, 0, 0, 2, 99, 2]),
                b"",
            ]
            garbage = parts[number % len(parts)]
            kind = b"\4" if number < 18 else chance.randbytes(1)
            connection = association.dul.socket.socket
            association.dul.socket.send(kind + b"\0" + len(garbage).to_bytes(4, "big") + garbage)
            association.abort()
            connection.close()  # which the library forgets where the peer was quicker

    await in_thread(fuzz_messages)
    statuses = await in_thread(fuzz)
    assert statuses <= {0xA900, 0xC000}, [hex(status) for status in statuses]
    wrong = slices(series="1.2.9", Modality="CT")  # says it is MR, by its class, and is not
    wrong[3].add_new("InversionTime", "LO", "no number")
    tiny = [make_slice(n, "1.2.8", Rows=1, Columns=1, PixelData=b"\0\0") for n in range(1, 101)]
    assert set(await in_thread(Scu(port).send, [*wrong, *tiny, *slices()])) == {0}
    await until(lambda: len(hub.intake.stored) == 2)
    assert sorted(len(instances(data)) for _, data in hub.intake.stored) == [12, 100]
    assert await in_thread(daemon.end) == -signal.SIGTERM
    await hub.stop()
    assert "Traceback" not in "".join(daemon.output)


async def test_compressed_and_enhanced(start: Callable[..., Any]) -> None:
    """A compressed series is kept and sent as it came, not decoded; an Enhanced MR image is a scan of its own."""
    hub = Hub()
    daemon, port = await start(await hub.start())
    sent = slices(PixelData=encapsulate([b"\xff\x4f\xff\x51 no codestream"]))
    for dataset in sent:
        dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
    assert set(await in_thread(Scu(port, syntax=JPEG2000Lossless).send, sent)) == {0}
    await until(lambda: len(hub.intake.stored) == 1)
    with tarfile.open(fileobj=BytesIO(hub.intake.stored[0][1])) as tar:
        first = pydicom.dcmread(BytesIO(tar.extractfile(tar.next()).read()))  # type: ignore[arg-type, union-attr]
    assert first.file_meta.TransferSyntaxUID == JPEG2000Lossless
    assert first.PixelData == sent[0].PixelData
    scu = Scu(port)
    scu.ae.add_requested_context(EnhancedMRImageStorage)
    frames = {"SOPClassUID": str(EnhancedMRImageStorage), "NumberOfFrames": 12, "PixelData": bytes(12 * 128)}
    assert await in_thread(scu.send, slices(1, "1.2.4", **frames)) == [0]
    await until(lambda: len(hub.intake.stored) == 2)
    assert hub.offers[1].meta["facts"]["slices"] == 12
    assert await in_thread(daemon.end) == -signal.SIGTERM
    await hub.stop()


@needs_dcmtk
@needs_jpeg
async def test_jpeg_lossless(start: Callable[..., Any], tmp_path: Path) -> None:
    """What dcmtk coded as JPEG Lossless is read by the analysis as it was; where it is not taken, senders fall back."""
    hub = Hub()
    endpoint = await hub.start()
    plain, coded = [], []
    for number, dataset in enumerate(slices(FrameOfReferenceUID="1.2.7")):
        dataset.PixelData = random.Random(number).randbytes(2 * 64).translate(bytes(range(16)) * 16)
        path = write_slice(tmp_path / f"{number}.dcm", dataset)
        await in_thread(jpeg_lossless_of, path, tmp_path / f"{number}.jpg")
        plain.append(path.read_bytes())
        coded.append(pydicom.dcmread(tmp_path / f"{number}.jpg"))
    daemon, port = await start(endpoint, f"--dicom-spool={tmp_path / 'other'}")
    assert not await in_thread(Scu(port, syntax=JPEGLosslessSV1).takes, MRImageStorage)
    both = [JPEGLosslessSV1, ExplicitVRLittleEndian]
    assert await in_thread(Scu(port, syntax=both).send, slices(1, "1.2.9")) == [0]
    assert await in_thread(daemon.end) == -signal.SIGTERM
    daemon, port = await start(endpoint, "--dicom-jpeg=yes")
    assert set(await in_thread(Scu(port, syntax=JPEGLosslessSV1).send, coded)) == {0}
    await until(lambda: len(hub.intake.stored) == 1)  # the one slice of before was too few for a scan
    (tmp_path / "sent.tar").write_bytes(dicom_tar(plain))
    (tmp_path / "came.tar").write_bytes(hub.intake.stored[-1][1])
    found, wanted = (read(tmp_path / name, PayloadFormat.DICOM_TAR) for name in ("came.tar", "sent.tar"))
    assert found.data.max() > 255
    np.testing.assert_array_equal(found.data, wanted.data)
    assert await in_thread(daemon.end) == -signal.SIGTERM
    await hub.stop()


async def test_latecomers(start: Callable[..., Any]) -> None:
    """Late instances come as a scan of all of them, which names the first one."""
    hub = Hub()
    daemon, port = await start(await hub.start())
    await in_thread(Scu(port).send, slices()[:10])
    await until(lambda: len(hub.intake.stored) == 1)
    await in_thread(Scu(port).send, slices()[10:])
    await until(lambda: len(hub.intake.stored) == 2)
    assert set(instances(hub.intake.stored[1][1])) == UIDS
    assert (hub.offers[1].meta["revision"], hub.offers[1].meta["supersedes"]) == (2, hub.offers[0].id)
    assert await in_thread(daemon.end) == -signal.SIGTERM
    await hub.stop()


async def test_again(start: Callable[..., Any], tmp_path: Path) -> None:
    """Sent again in another transfer syntax the images are no news; changed ones under their UIDs are told of."""
    hub = Hub()
    daemon, port = await start(await hub.start())
    plain, changed = slices(), slices(PixelData=bytes(128))
    assert set(await in_thread(Scu(port).send, plain)) == {0}
    await until(lambda: len(hub.intake.stored) == 1)
    for dataset in plain:
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    assert set(await in_thread(Scu(port, syntax=ImplicitVRLittleEndian).send, plain)) == {0}
    assert set(await in_thread(Scu(port).send, changed)) == {0}
    told = await in_thread(daemon.until, "dicom.differs")
    assert "came again with pixels changed" in told["msg"]
    await no_more(hub, 1)
    assert await in_thread(daemon.end) == -signal.SIGTERM
    await hub.stop()
    assert "".join(daemon.output).count("dicom.differs") == 1
    with closing(Ledger(tmp_path / "spool", read_only=True)) as ledger:
        ledger.open()
        assert ledger.all_changed() == {"1.2.3": (12, "pixels")}


async def test_commitment(start: Callable[..., Any]) -> None:
    """Commitment is given when the HUB has the series, not before: on the association of the request, or a new one."""
    hub = Hub()
    hub.intake.holding = True
    scu, other = Scu(0), Scu(0, title="MR2")
    listening = scu.listen()
    daemon, port = await start(await hub.start(), f"--dicom-peers=MR1=127.0.0.1:{listening}")
    scu.port = other.port = port
    await in_thread(scu.send, slices())
    with scu.association() as association:
        assert await in_thread(ask, association, commitment("1.7", *sorted(UIDS))) == 0
    waiting = await in_thread(other.open)
    assert await in_thread(ask, waiting, commitment("1.8", "1.2.3.1", "1.2.3.99")) == 0
    await until(lambda: bool(hub.intake.held))
    assert (scu.reports, other.reports) == ([], [])
    hub.intake.holding = False
    hub.intake.release(len(hub.intake.held))
    await until(lambda: bool(scu.reports and other.reports))
    kind, information = scu.reports[0]
    found = {str(item.ReferencedSOPInstanceUID) for item in information.ReferencedSOPSequence}
    assert (kind, str(information.TransactionUID), found) == (1, "1.7", UIDS)
    assert "FailedSOPSequence" not in information
    kind, information = other.reports[0]
    assert (kind, [i.FailureReason for i in information.FailedSOPSequence]) == (2, [0x0112])
    assert [str(i.ReferencedSOPInstanceUID) for i in information.ReferencedSOPSequence] == ["1.2.3.1"]
    await in_thread(waiting.release)
    await in_thread(scu.close)
    assert await in_thread(daemon.end) == -signal.SIGTERM
    await hub.stop()
    assert "Traceback" not in "".join(daemon.output)


async def test_commitment_survives(start: Callable[..., Any], tmp_path: Path) -> None:
    """A request that was taken is answered by the next process after SIGKILL, once its series is kept."""
    scu = Scu(0)
    peers = f"--dicom-peers=MR1=127.0.0.1:{scu.listen()}"
    daemon, scu.port = await start("tcp:127.0.0.1:9", peers)
    await in_thread(scu.send, slices())
    with scu.association() as association:
        assert await in_thread(ask, association, commitment("1.7", *sorted(UIDS))) == 0
        assert await in_thread(daemon.end, signal.SIGKILL) == -signal.SIGKILL
    hub = Hub()
    again, _ = await start(await hub.start(), peers)
    await until(lambda: bool(scu.reports))
    assert scu.reports[0][0] == 1
    assert len(hub.intake.stored) == 1
    await in_thread(scu.close)
    assert await in_thread(again.end) == -signal.SIGTERM
    await hub.stop()
    ledger = Ledger(tmp_path / "spool", read_only=True)
    ledger.open()
    assert ledger.requests() == []
    ledger.close()


async def test_what_keeps_it_from_starting(tmp_path: Path) -> None:
    """A port in use, a spool that is none and rules with a mistake end the unit with one line."""
    (tmp_path / "file").write_text("x")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        cases = [
            ((f"--dicom-listen=tcp:{taken.getsockname()[1]}:interface=127.0.0.1",), "cannot listen on"),
            (
                ("--dicom-listen=tcp:0", f"--dicom-spool={tmp_path / 'file' / 'x'}"),
                "FR_SPOOL or --dicom-spool",
            ),
            (("--dicom-listen=tcp:0", f"--series-rules={tmp_path / 'file'}"), "is no TOML"),
        ]
        for options, words in cases:
            daemon = Daemon(["frpacs", f"--listen={LOCAL}", *options], tmp_path)
            try:
                failed = await in_thread(daemon.until, "unit.failed")
                assert words in failed["msg"], failed
                assert await in_thread(daemon.wait) == 1
            finally:
                daemon.close()
