"""Fr beside Orthanc: what is started in which order, when it is over, and what is said; with fake processes."""

import json
import shutil
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.ops import pacs_demo
from fr_twisted.ops.house import House
from fr_twisted.ops.orthanc import READY_WITHIN, STOP_WITHIN, OrthancPorts, configure, find_orthanc
from fr_twisted.ops.pacs_demo import PacsDemo
from fr_twisted.ops.services import StartError
from tests.fakes_process import FakeProcess
from tests.unit.test_ops_house import HouseTestCase, event

PAGE = "http://127.0.0.1:8042/app/explorer.html"


class FakeClient:
    """Orthanc's REST interface, which answers when the test says so."""

    explorer = PAGE

    def __init__(self, port: int) -> None:
        self.port = port
        self.there = True
        self.kept: list[bytes] = []

    def get(self, path: str) -> Any:
        """Answer, or refuse the connection."""
        if not self.there:
            raise ConnectionRefusedError
        return {"path": path}

    def upload(self, instance: bytes) -> str:
        """Keep it."""
        if not self.there:
            raise ConnectionRefusedError("nobody there")
        self.kept.append(instance)
        return "study-1"

    def page(self, study: str) -> str:
        """Return its address."""
        return f"{PAGE}#study?uuid={study}"


class DemoTestCase(HouseTestCase):
    """A house beside Orthanc."""

    house: PacsDemo

    def make_house(self, *arguments: Any) -> House:
        """Return it; one study is of two images."""
        self.patch(pacs_demo, "find_orthanc", lambda: "/usr/sbin/Orthanc")
        self.patch(pacs_demo, "OrthancClient", FakeClient)
        self.patch(pacs_demo, "studies", lambda count, _seed: [[b"image 1", b"image 2"]] * count)
        return PacsDemo(*arguments, in_thread=maybeDeferred)

    @property
    def client(self) -> FakeClient:
        """The fake."""
        found: Any = self.house.client
        assert isinstance(found, FakeClient)
        return found

    @property
    def peer(self) -> FakeProcess:
        """Orthanc's process."""
        return next(each for each in self.reactor.processes if "/usr/sbin/Orthanc" in each.arguments)

    def end_all(self) -> None:
        """Let everything end as SIGTERM makes it."""
        self.end("hub", "brain", "pacs")
        self.end("store")
        self.peer.end(0)


class DemoTests(DemoTestCase):
    """With ``--until-done``."""

    def test_way(self) -> None:
        """Orthanc is up before Fr; the study goes to Orthanc; it is over when Orthanc has the results."""
        self.assertIs(self.reactor.processes[0], self.peer)
        self.bring_up()
        arguments = self.process("pacs").arguments
        self.assertIn(f"--dicom-archives=ORTHANC@127.0.0.1:{self.house.ports.dicom}", arguments)
        self.assertNotIn("--generate", arguments)
        self.assertEqual(self.client.kept, [b"image 1", b"image 2"])
        self.send_and_report()
        self.assertEqual(self.process("pacs").signals, [])
        self.say(self.process("pacs"), **event("dicom.delivered"))
        self.assertEqual(self.process("pacs").signals, [SIGTERM])
        self.end_all()
        self.assertEqual(self.successResultOf(self.done), 0)
        said = self.stream.getvalue()
        self.assertIn("Orthanc has a study of 2 images", said)
        self.assertIn(f"are in {self.house.data / 'orthanc'}", said)
        self.assertNotIn("#study", said)

    def test_orthancEnds(self) -> None:
        """An Orthanc that ends meanwhile is told, with its log, and is the end."""
        self.bring_up()
        self.peer.end(None, SIGKILL)
        self.assertIn("Orthanc has ended (SIGKILL): see", self.stream.getvalue())
        self.end("hub", "brain", "pacs")
        self.end("store")
        self.assertEqual(self.successResultOf(self.done), 1)

    def test_studiesCannotBeSent(self) -> None:
        """Studies that Orthanc does not take are told, and are the end."""
        self.client.there = False
        self.bring_up()
        self.assertIn("the studies cannot be sent: nobody there", self.stream.getvalue())
        self.end_all()
        self.assertEqual(self.successResultOf(self.done), 1)

    def test_orthancDoesNotEnd(self) -> None:
        """An Orthanc that does not end is killed."""
        self.bring_up()
        self.house.interrupt()
        self.end("hub", "brain", "pacs")
        self.end("store")
        self.assertEqual(self.peer.signals, [SIGTERM])
        self.reactor.advance(STOP_WITHIN)
        self.assertEqual(self.peer.signals, [SIGTERM, SIGKILL])
        self.peer.end(None, SIGKILL)
        self.assertEqual(self.successResultOf(self.done), 130)


class StayTests(DemoTestCase):
    """With ``--stay``."""

    arguments = ["--scans=1", "--stay"]

    def test_addresses(self) -> None:
        """The address of the study is printed when the results are there, and everything goes on."""
        self.bring_up()
        self.send_and_report()
        self.assertNotIn("#study", self.stream.getvalue())
        self.say(self.process("pacs"), **event("dicom.delivered"))
        self.assertIn(f"open {PAGE}#study?uuid=study-1", self.stream.getvalue())
        self.assertNoResult(self.done)
        self.assertEqual(self.peer.signals, [])


class SlowOrthancTests(DemoTestCase):
    """An Orthanc that is not there yet."""

    def make_house(self, *arguments: Any) -> House:
        """Return a house whose Orthanc does not answer."""
        house = super().make_house(*arguments)
        assert isinstance(house, PacsDemo)
        house.client.there = False  # type: ignore[attr-defined]
        return house

    def test_waitsForIt(self) -> None:
        """It is asked until it answers; only then are the units started."""
        self.reactor.pump([0.1] * 5)
        self.assertEqual(len(self.reactor.processes), 1)
        self.client.there = True
        self.reactor.advance(0.1)
        self.assertEqual(len(self.reactor.processes), 2)

    def test_doesNotAnswer(self) -> None:
        """One that never answers ends everything, and its log is named."""
        self.reactor.pump([0.1] * round(READY_WITHIN * 10 + 1))
        self.assertIn("Orthanc does not start (it does not answer): see", self.stream.getvalue())
        self.peer.end(None, SIGTERM)
        self.assertEqual(self.successResultOf(self.done), 1)

    def test_ends(self) -> None:
        """So does one that ends."""
        self.peer.end(1)
        self.reactor.advance(0.1)
        self.assertIn("Orthanc does not start (it ended with status 1): see", self.stream.getvalue())
        self.assertEqual(self.successResultOf(self.done), 1)


class ConfigurationTests(SynchronousTestCase):
    """What is written for Orthanc."""

    def test_configuration(self) -> None:
        """It serves this machine alone, knows Fr as a modality, and routes only when it is to."""
        folder = Path(self.mktemp())
        for route in (True, False):
            path = configure(folder, OrthancPorts(1, 2, 3), "FR", route)
            settings = json.loads(path.read_text())
            self.assertFalse(settings["RemoteAccessAllowed"])
            self.assertEqual(settings["DicomModalities"], {"fr": ["FR", "127.0.0.1", 3]})
            self.assertEqual(bool(settings["LuaScripts"]), route)

    def test_notInstalled(self) -> None:
        """Where it is missing it is said how to get it."""
        self.patch(shutil, "which", lambda *_, **__: None)
        error = self.assertRaises(StartError, find_orthanc)
        self.assertIn("apt-get install orthanc", str(error))
