"""What the DICOM port answers, without a network: every status, and what is told the reactor."""

import errno
import os
import random
import socket
import time
from io import BytesIO
from types import SimpleNamespace
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, JPEGBaseline8Bit, MRImageStorage
from pynetdicom.dsutils import encode
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.config import PacsSettings
from fr_twisted.pacs import scp, scp_guard
from fr_twisted.pacs.commitment_data import COMMITMENT_INSTANCE
from fr_twisted.pacs.event_report import address_of
from fr_twisted.pacs.incoming import NotTakenError, examine, part10_head
from fr_twisted.pacs.instances import Added, FullError
from tests.pacs_builders import make_slice

SYNTAX = str(ExplicitVRLittleEndian)


def body(**changes: Any) -> bytes:
    """Return the data set of a slice as it travels."""
    return encode(make_slice(1, **changes), False, True) or b""


class ExamineTests(SynchronousTestCase):
    """`examine`."""

    def look(self, data: bytes, sop: str = "1.2.3.1", kind: str = MRImageStorage) -> Any:
        """Examine it."""
        return examine(part10_head(kind, sop, SYNTAX), data, kind, sop)

    def refused(self, data: bytes, **more: Any) -> tuple[int, str]:
        """Return status and comment."""
        error = self.assertRaises(NotTakenError, self.look, data, **more)
        return error.status, str(error)

    def test_whatItIs(self) -> None:
        """Series, UIDs and the counts that the header gives are found; the count of the series comes first."""
        found = self.look(body(ImagesInAcquisition=176, AcquisitionNumber=2))
        self.assertEqual(
            (found.series, found.sop, found.expected, found.acquisition), ("1.2.3", "1.2.3.1", 176, 2)
        )
        found = self.look(
            body(ImagesInAcquisition=176, NumberOfSeriesRelatedInstances=180, AcquisitionNumber=2)
        )
        self.assertEqual((found.expected, found.acquisition), (180, None))
        self.assertIsNone(self.look(body()).expected)

    def test_notWhatItsSenderSays(self) -> None:
        """An instance whose UIDs are others than those of the C-STORE is refused."""
        self.assertEqual(self.refused(body(), sop="1.2.3.2")[0], 0xA900)
        self.assertEqual(self.refused(body(), kind=EnhancedMRImageStorage)[0], 0xA900)

    def test_cutShort(self) -> None:
        """An instance that is cut short anywhere is refused: as unreadable, without pixels, or with too few."""
        whole = body()
        for cut in range(len(whole)):
            self.assertIn(self.refused(whole[:cut])[0], (0xC000, 0xA900), cut)
        self.assertEqual(self.refused(whole[:-1]), (0xC000, "truncated: 127 of 128 bytes of pixels"))

    def test_badUids(self) -> None:
        """A series without a valid UID cannot be kept."""
        for uid in ("", "../1", "1.2/3", None):
            self.assertEqual(self.refused(body(SeriesInstanceUID=uid))[0], 0xC000)

    def test_oddValues(self) -> None:
        """What is odd about an image, but tells it apart, is judged with its series."""
        for changes in ({"Modality": "CT"}, {"Rows": None}, {"InstanceNumber": None}, {"PatientID": None}):
            self.assertEqual(self.look(body(**changes)).series, "1.2.3")

    def test_garbage(self) -> None:
        """Broken bytes are refused or examined, and nothing else comes of them."""
        chance, whole = random.Random(3), body()
        outcomes = set()
        for _ in range(400):
            broken = bytearray(whole)
            for _ in range(chance.randrange(1, 12)):
                broken[chance.randrange(len(broken))] = chance.randrange(256)
            try:
                outcomes.add(self.look(bytes(broken)).series == "1.2.3")
            except NotTakenError as error:
                outcomes.add(error.status)
        self.assertEqual({True, 0xA900} - outcomes, set())
        self.flushWarnings()  # pydicom's, of what it reads all the same

    def test_sameBytes(self) -> None:
        """The same instance has the same head whoever sends it, and when."""
        self.assertEqual(
            part10_head(MRImageStorage, "1.2.3.1", SYNTAX), part10_head(MRImageStorage, "1.2.3.1", SYNTAX)
        )


class Spool:
    """Does what a test wants of a spool."""

    def __init__(self) -> None:
        self.outcome: Added | Exception = Added(True, 1)

    def add(self, *_: Any) -> Added:
        """Return or raise it."""
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


class StatusTests(SynchronousTestCase):
    """`StorageScp`: statuses."""

    def setUp(self) -> None:
        """Make a port that is not open."""
        self.spool = Spool()
        self.told: list[tuple[Any, ...]] = []
        self.kept: list[Any] = []
        settings = scp.ScpSettings("127.0.0.1", 0, "FR", ("MR1",))
        spool: Any = self.spool
        commitments: Any = SimpleNamespace(requested=self.requested)
        words = ("arrived", "changed", "closed", "disconnected")
        told: Any = SimpleNamespace(**{word: word for word in words})
        self.scp = scp.StorageScp(settings, spool, told, commitments, lambda *said: self.told.append(said))

    def requested(self, association: Any, peer: str, information: Any) -> tuple[int, str]:
        """Keep a request, or break."""
        if information == "broken":
            raise RuntimeError
        self.kept.append((peer, information))
        return 0, ""

    def store(self, data: bytes | None = None, sop: str = "1.2.3.1") -> tuple[int, str]:
        """Return status and comment of a C-STORE."""
        request = SimpleNamespace(
            AffectedSOPClassUID=MRImageStorage,
            AffectedSOPInstanceUID=sop,
            DataSet=BytesIO(body() if data is None else data),
        )
        event: Any = SimpleNamespace(
            request=request,
            context=SimpleNamespace(transfer_syntax=SYNTAX),
            assoc=SimpleNamespace(fr_number=7),
        )
        answer = self.scp._store(event)
        return (answer, "") if isinstance(answer, int) else (answer.Status, answer.get("ErrorComment", ""))

    def test_stored(self) -> None:
        """What is stored is answered 0000H, and the reactor is told; a duplicate too, and that it is another image."""
        self.assertEqual(self.store(), (0, ""))
        self.spool.outcome = Added(False, 1, ("pixels",))
        self.assertEqual(self.store(), (0, ""))
        self.assertEqual(self.told.pop(1), ("changed", "1.2.3", "1.2.3.1", ("pixels",)))
        self.assertEqual(
            [(what, number, arrival.new) for what, number, arrival in self.told],
            [("arrived", 7, True), ("arrived", 7, False)],
        )

    def test_notStored(self) -> None:
        """No room is A700H, a failed write and a defect are C001H, with a comment; nobody is told of an arrival."""
        for outcome, expected in (
            (FullError("the spool is full"), (0xA700, "the spool is full")),
            (
                OSError(errno.EIO, os.strerror(errno.EIO)),
                (0xC001, "it could not be written: Input/output error"),
            ),
            (KeyError("Doe^Jane"), (0xC001, "it could not be stored: KeyError")),
        ):
            self.spool.outcome = outcome
            self.assertEqual(self.store(), expected)
        self.flushLoggedErrors(KeyError)
        self.assertEqual(self.told, [])

    def test_notTaken(self) -> None:
        """What cannot be understood is refused before it reaches the spool."""
        self.spool.outcome = AssertionError("it must not come here")
        self.assertEqual(self.store(b"\0" * 50)[0], 0xC000)
        self.assertEqual(self.store(sop="../../etc")[0], 0xC000)
        self.assertEqual(self.store(sop="1.2.3.4")[0], 0xA900)

    def action(self, information: Any, instance: str = COMMITMENT_INSTANCE, kind: int = 1) -> int:
        """Return the status of an N-ACTION."""
        event: Any = SimpleNamespace(
            request=SimpleNamespace(RequestedSOPInstanceUID=instance),
            action_type=kind,
            action_information=information,
            assoc=SimpleNamespace(requestor=SimpleNamespace(ae_title="MR1")),
        )
        answer, _ = self.scp._action(event)
        return int(answer.Status)

    def test_notAsked(self) -> None:
        """A report on a commitment that nobody asked for is refused each time, and told once."""

        def heard(*_: object) -> None:
            raise scp.NotAskedError

        self.scp.heard = heard
        with capturedLogs() as said:
            for transaction in ("1.7", "1.7", "1.8", "1.7"):
                information: Any = Dataset()
                information.TransactionUID = transaction
                event: Any = SimpleNamespace(
                    event_type=1,
                    event_information=information,
                    assoc=SimpleNamespace(requestor=SimpleNamespace(ae_title="ARCHIVE")),
                )
                self.assertEqual(self.scp._hear(event)[0].Status, 0x0110)
        self.assertEqual([event["event"] for event in said], ["commit.unknown"] * 2)

    def test_actions(self) -> None:
        """A request for commitment is kept; other actions, other instances and what breaks are told apart."""
        self.assertEqual(self.action("a request"), 0)
        self.assertEqual(self.action("x", kind=2), 0x0123)
        self.assertEqual(self.action("x", instance="1.2"), 0x0112)
        self.assertEqual(self.action("broken"), 0x0110)
        self.flushLoggedErrors(RuntimeError)
        self.assertEqual(self.kept, [("MR1", "a request")])

    def test_reports(self) -> None:
        """Reports on what we asked for ourselves are handed on; with nobody to hear them, or trouble, that is said."""
        event: Any = SimpleNamespace(
            event_type=1,
            event_information="all is kept",
            assoc=SimpleNamespace(requestor=SimpleNamespace(ae_title="PACS")),
        )
        self.assertEqual(self.scp._hear(event)[0].Status, 0x0110)
        heard: list[Any] = []
        self.scp.heard = lambda *said: heard.append(said)
        self.assertEqual(self.scp._hear(event)[0].Status, 0)
        self.assertEqual(heard, [("PACS", 1, "all is kept")])
        event.event_type = "x"
        self.assertEqual(self.scp._hear(event)[0].Status, 0x0110)
        self.flushLoggedErrors(ValueError)

    def test_whatIsOffered(self) -> None:
        """The two MR classes with the transfer syntaxes that the analysis decodes, commitment and verification."""
        from fr_twisted.brain.analysis.read_dicom_pixels import decoder_of

        offered = {str(c.abstract_syntax): c.transfer_syntax for c in self.scp._ae.supported_contexts}
        self.assertEqual(
            set(offered),
            {MRImageStorage, EnhancedMRImageStorage, "1.2.840.10008.1.20.1", "1.2.840.10008.1.1"},
        )
        for syntax in offered[MRImageStorage]:
            bits = 8 if syntax == JPEGBaseline8Bit else 16
            self.assertTrue(not syntax.is_encapsulated or decoder_of(syntax, bits), syntax)

    def test_jpegIsOffered(self) -> None:
        """JPEG Extended and Lossless are taken where that is set, and by both classes; else they are not."""
        nothing: Any = None
        settings = scp.ScpSettings("127.0.0.1", 0, "FR", jpeg=True)
        both = (self.scp, scp.StorageScp(settings, nothing, nothing, nothing, self.fail))
        for port, wanted in zip(both, (set(), set(scp.JPEG_SYNTAXES)), strict=True):
            offered = {str(c.abstract_syntax): c.transfer_syntax for c in port._ae.supported_contexts}
            for kind in scp.STORED:
                self.assertEqual(set(offered[kind]) & set(scp.JPEG_SYNTAXES), wanted)

    def test_tooLongPdu(self) -> None:
        """A PDU that is longer than was agreed is not read, whatever length it states."""
        connection = SimpleNamespace(
            setsockopt=lambda *_: None, settimeout=self.assertTrue, recv_into=self.fail
        )
        association: Any = SimpleNamespace(
            dul=SimpleNamespace(socket=SimpleNamespace(socket=connection, recv=None)),
            dimse=SimpleNamespace(message=None, receive_primitive=None),
        )
        scp_guard.guard(association, 16384)
        self.assertRaises(OSError, association.dul.socket.recv, 2**31)
        data = bytearray(b"abc")
        connection.recv_into = lambda view: (
            view.__setitem__(slice(0, 1), data[:1]) or bool(data.pop(0)) if data else 0
        )
        self.assertEqual(association.dul.socket.recv(3), b"abc")
        self.assertEqual(association.dul.socket.recv(3), b"")

    def test_stalledPdu(self) -> None:
        """A peer that stops in the middle of a PDU, or trickles it, is given up."""
        self.patch(scp_guard, "STALL", 0.05)
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        link = SimpleNamespace(
            socket=SimpleNamespace(
                setsockopt=lambda *_: None, settimeout=ours.settimeout, recv_into=ours.recv_into
            )
        )
        association: Any = SimpleNamespace(
            dul=SimpleNamespace(socket=link), dimse=SimpleNamespace(message=None, receive_primitive=None)
        )
        scp_guard.guard(association, 16384)
        theirs.sendall(b"abc")
        self.assertRaises(OSError, association.dul.socket.recv, 6)

        def trickle(_view: memoryview) -> int:
            time.sleep(0.03)
            return 1

        link.socket.recv_into = trickle
        self.assertRaises(OSError, association.dul.socket.recv, 1000)

    def test_noMessage(self) -> None:
        """What breaks the library's reading of a message is an invalid PDU to its state machine, and no dead thread."""
        events: list[str] = []
        association: Any = SimpleNamespace(
            dul=SimpleNamespace(
                socket=SimpleNamespace(
                    socket=SimpleNamespace(setsockopt=lambda *_: None, settimeout=self.assertTrue)
                ),
                event_queue=SimpleNamespace(put=events.append),
            ),
            dimse=SimpleNamespace(message=None, receive_primitive=lambda primitive: primitive.no_such_thing),
        )
        scp_guard.guard(association, 16384)
        association.dimse.receive_primitive(object())
        self.assertEqual(events, ["Evt19"])


class SettingsTests(SynchronousTestCase):
    """The settings of DICOM in."""

    def test_texts(self) -> None:
        """AE titles, peers and the endpoint are read from texts."""
        settings = PacsSettings.model_validate(
            {
                "dicom_allow": "MR 1, PACS",
                "dicom_peers": "MR 1=10.0.0.5:104,PACS=p.example:4242",
                "dicom_listen": "tcp:104",
            }
        )
        self.assertEqual(settings.dicom_allow, ("MR 1", "PACS"))
        self.assertEqual(address_of(settings.dicom_peers, "MR 1"), ("10.0.0.5", 104))
        self.assertIsNone(address_of(settings.dicom_peers, "OTHER"))

    def test_mistakes(self) -> None:
        """What is none of these is refused."""
        for name, text in (
            ("dicom_allow", "A" * 17),
            ("dicom_allow", "A\\B"),
            ("dicom_aet", " "),
            ("dicom_peers", "MR1"),
            ("dicom_peers", "MR1=host"),
            ("dicom_peers", "MR1=h:1,MR1=h:2"),
            ("dicom_listen", "104"),
            ("dicom_listen", "unix:/tmp/x"),
            ("dicom_listen", "tcp:70000"),
            ("dicom_max_pdu", "1K"),
        ):
            self.assertRaises(ValueError, PacsSettings.model_validate, {name: text})
