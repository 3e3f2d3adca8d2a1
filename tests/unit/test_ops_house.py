"""The house: what it counts, what it shows, how it starts, ends and judges; with fake processes."""

import io
import json
import shutil
import tempfile
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.ops import house
from fr_twisted.ops.child import UnitProcess
from fr_twisted.ops.house import House, parse
from fr_twisted.ops.preparing import find_twistd, free_ports, read_report
from fr_twisted.ops.screen import Screen
from fr_twisted.ops.services import StartError
from fr_twisted.ops.tally import Stage, Tally, volumes_of
from tests.fakes_process import FakeProcess, ProcessReactor


def event(name: str, scan_id: str = "s1", **fields: Any) -> dict[str, Any]:
    """Return a log line."""
    return {"event": name, "scan_id": scan_id, "msg": f"{name} of {scan_id}", "level": "info", **fields}


class TallyTests(SynchronousTestCase):
    """`Tally`."""

    def feed(self, tally: Tally, *events: tuple[str, dict[str, Any], float]) -> None:
        """Let the tally note these."""
        for unit, line, now in events:
            tally.note(unit, line, now)

    def test_wayOfAScan(self) -> None:
        """A scan goes through its stages; its seconds are those from the acknowledgement to the report."""
        tally = Tally(1)
        steps = [
            ("pacs", event("scan.prepared"), Stage.PREPARED),
            ("pacs", event("scan.offered"), Stage.SENDING),
            ("hub", event("scan.stored"), Stage.KEPT),
            ("pacs", event("scan.acknowledged"), Stage.KEPT),
            ("brain", event("scan.claimed"), Stage.MEASURING),
            ("brain", event("scan.analysed"), Stage.MEASURED),
            ("brain", event("scan.done"), Stage.MEASURED),
            ("pacs", event("report.written", path="/r/s1"), Stage.REPORTED),
        ]
        for now, (unit, line, stage) in enumerate(steps):
            self.assertFalse(tally.finished)
            tally.note(unit, line, float(now))
            self.assertEqual(tally.scans["s1"].stage, stage)
        self.assertTrue(tally.finished)
        self.assertEqual(tally.scans["s1"].seconds, 4.0)
        self.assertEqual(tally.problems(), [])

    def test_linesInAnyOrder(self) -> None:
        """Lines of several processes may overtake each other: a scan does not go back."""
        tally = Tally(1)
        self.feed(
            tally,
            ("pacs", event("scan.offered"), 0.0),
            ("brain", event("scan.claimed"), 1.0),
            ("pacs", event("scan.acknowledged"), 2.0),
            ("hub", event("scan.stored"), 3.0),
        )
        self.assertEqual(tally.scans["s1"].stage, Stage.MEASURING)

    def test_triedAgain(self) -> None:
        """A scan that is given back is kept again, and can be measured anew."""
        tally = Tally(1)
        self.feed(tally, ("pacs", event("scan.acknowledged"), 0.0), ("brain", event("scan.claimed"), 1.0))
        tally.note("brain", event("scan.retry", reason="its worker died"), 2.0)
        self.assertEqual(tally.scans["s1"].stage, Stage.KEPT)
        tally.note("brain", event("scan.claimed"), 3.0)
        self.assertEqual(tally.scans["s1"].stage, Stage.MEASURING)

    def test_scansOfEarlierRuns(self) -> None:
        """What HUB, BRAIN and PACS do with scans that this run did not send does not count."""
        tally = Tally(1)
        self.feed(
            tally,
            ("brain", event("scan.failed", "old"), 0.0),
            ("hub", event("scan.stored", "old"), 0.0),
            ("pacs", event("report.written", "old", path="/r/old"), 0.0),
        )
        self.assertEqual(tally.scans, {})
        self.assertFalse(tally.finished)

    def test_failed(self) -> None:
        """A scan that failed or was refused for good is an end, with its reason."""
        tally = Tally(3)
        self.feed(
            tally,
            ("pacs", event("scan.acknowledged", "a"), 0.0),
            ("brain", event("scan.failed", "a", reason="no brain in it"), 1.0),
            ("pacs", event("scan.refused", "b", code="too-large"), 1.0),
        )
        self.assertFalse(tally.finished)
        self.assertEqual(
            tally.problems(),
            ["a failed: no brain in it", "b failed: too-large", "1 of 3 scans were never offered"],
        )

    def test_duplicateWithReport(self) -> None:
        """A scan that was sent and reported before is done, without a time of its own."""
        tally = Tally(2, lambda scan_id: Path("/r") / scan_id if scan_id == "a" else None)
        for scan_id in ("a", "b"):
            tally.note("pacs", event("scan.acknowledged", scan_id, duplicate=True), 1.0)
        self.assertEqual([scan.stage for scan in tally.scans.values()], [Stage.REPORTED, Stage.KEPT])
        self.assertIsNone(tally.scans["a"].seconds)

    def test_strangeLines(self) -> None:
        """Lines without a scan, of other events or with odd values change nothing."""
        tally = Tally(1)
        self.feed(
            tally,
            ("pacs", {"msg": "x"}, 0.0),
            ("pacs", {"event": "scan.offered", "scan_id": 7}, 0.0),
            ("pacs", {"event": ["scan.offered"], "scan_id": "a"}, 0.0),
            ("pacs", event("unit.ready"), 0.0),
        )
        self.assertEqual(tally.scans, {})

    def test_progress(self) -> None:
        """The progress line counts scans by where they are."""
        tally = Tally(3)
        self.assertEqual(tally.progress(), "scans of 3: none yet")
        for scan_id in "abc":
            tally.note("pacs", event("scan.offered", scan_id), 0.0)
        tally.note("brain", event("scan.claimed", "a"), 0.0)
        self.assertEqual(tally.progress(), "scans of 3: 2 being sent, 1 being measured")

    def test_table(self) -> None:
        """The table has volumes in mL and seconds, and '-' where there is none."""
        tally = Tally(2)
        self.feed(
            tally,
            ("pacs", event("scan.acknowledged", "scan-a"), 1.0),
            ("pacs", event("report.written", "scan-a", path="/r"), 13.25),
            ("pacs", event("scan.offered", "b"), 2.0),
        )
        tally.scans["scan-a"].volumes = {"brain": 1204.44, "grey_matter": 700, "white_matter": 504.0}
        self.assertEqual(
            tally.table(),
            [
                "scan    brain mL  GM mL  WM mL  CSF mL  ventr. mL  seconds",
                "------  --------  -----  -----  ------  ---------  -------",
                "scan-a    1204.4  700.0  504.0       -          -     12.2",
                "b              -      -      -       -          -        -",
            ],
        )

    def test_volumes(self) -> None:
        """Volumes are found in the findings, with their units or as plain numbers; withheld, there are none."""
        self.assertEqual(volumes_of({"findings": {"volumes": {"brain": {"value": 1.0}}}}), {"brain": 1.0})
        self.assertEqual(volumes_of({"findings": {"volumes": {"brain": 2.0}}}), {"brain": 2.0})
        self.assertEqual(volumes_of({"findings": {"volumes": None}}), {})


class ScreenTests(SynchronousTestCase):
    """`Screen`."""

    def test_plain(self) -> None:
        """Where it is no terminal there are prefixes, and neither codes nor progress."""
        stream = io.StringIO()
        screen = Screen(stream, colour=False, terminal=False)
        screen.progress("1 of 4")
        screen.line("hub", "kept", "warn")
        screen.plain("table")
        self.assertEqual(stream.getvalue(), "hub   | kept\ntable\n")

    def test_progress(self) -> None:
        """On a terminal the progress line is taken away for a line, and put back under it."""
        stream = io.StringIO()
        screen = Screen(stream, colour=False, terminal=True)
        screen.progress("1 of 4")
        screen.line("hub", "kept")
        screen.progress("1 of 4")
        screen.progress("")
        self.assertEqual(stream.getvalue(), "1 of 4\r\x1b[Khub   | kept\n1 of 4\r\x1b[K")

    def test_colour(self) -> None:
        """Units and levels have colours."""
        stream = io.StringIO()
        Screen(stream, colour=True, terminal=True).line("brain", "no", "error")
        self.assertEqual(stream.getvalue(), "\x1b[32mbrain |\x1b[0m \x1b[31mno\x1b[0m\n")

    def test_readerIsGone(self) -> None:
        """A reader that is gone is no reason to fail."""
        stream = mock.Mock()
        stream.write.side_effect = BrokenPipeError
        Screen(stream, colour=False, terminal=False).line("hub", "kept")


class UnitTestCase(SynchronousTestCase):
    """A reactor with fake processes, and helpers to speak for them."""

    def setUp(self) -> None:
        """Make it."""
        self.reactor = ProcessReactor()

    def say(self, process: FakeProcess, **line: Any) -> None:
        """Write a JSON log line."""
        process.say(json.dumps({"msg": "", "level": "info", **line}))

    def ready(self, process: FakeProcess) -> None:
        """Say that the unit is ready."""
        self.say(process, event="unit.ready", msg="ready")


class UnitProcessTests(UnitTestCase):
    """`UnitProcess`."""

    def setUp(self) -> None:
        """Start a unit."""
        super().setUp()
        self.lines: list[tuple[str, str]] = []
        self.unit = UnitProcess(self.reactor, "/bin/twistd", "hub", ["--node=x"], {"A": "b"}, self.note)
        self.started = self.unit.start()

    def note(self, name: str, line: Any) -> None:
        """Note a line."""
        self.lines.append((name, str(line["msg"])))

    @property
    def process(self) -> FakeProcess:
        """The process that was started last."""
        return self.reactor.processes[-1]

    def test_command(self) -> None:
        """It runs twistd in the foreground, without a pid file."""
        self.assertEqual(
            self.process.arguments[-5:], ["/bin/twistd", "-n", "--pidfile=", "frhub", "--node=x"]
        )
        self.assertEqual((self.process.environment, self.unit.pid), ({"A": "b"}, 4711))

    def test_ready(self) -> None:
        """It has started when the unit says that it is ready, in however many pieces."""
        data = b'{"event": "unit.ready", "msg": "r\xc3\xa4dy", "level": "info"}\n'
        for byte in data:
            self.assertNoResult(self.started)
            self.process.protocol.childDataReceived(1, bytes([byte]))
        self.successResultOf(self.started)
        self.assertEqual(self.lines, [("hub", "rädy")])

    def test_doesNotStart(self) -> None:
        """An end before that is told with the unit's own reason."""
        self.say(self.process, event="unit.failed", msg="hub cannot start: x", reason="the port is taken")
        self.process.end(1)
        failure = self.failureResultOf(self.started, StartError)
        self.assertEqual(str(failure.value), "frhub does not start (status 1): the port is taken")
        self.reactor.advance(100)
        self.assertEqual(len(self.reactor.processes), 1)

    def test_wrongSetting(self) -> None:
        """Of twistd's help before what is wrong with a setting only the end is shown."""
        for n in range(50):
            self.process.say(f"   --option{n}=")
        self.process.say("twistd -n: FR_HUB_LISTN is no setting of Fr")
        self.process.end(1)
        failure = self.failureResultOf(self.started, StartError)
        self.assertIn("FR_HUB_LISTN is no setting of Fr", str(failure.value))
        self.assertEqual(len(self.lines), 3)

    def test_rawLines(self) -> None:
        """What is no JSON is shown as it is, also without a line's end."""
        self.ready(self.process)
        self.process.say("Traceback")
        self.process.protocol.childDataReceived(2, b"last")
        self.process.end(1)
        self.assertEqual(self.lines[1:3], [("hub", "Traceback"), ("hub", "last")])

    def test_restart(self) -> None:
        """A unit that dies is started again, slower each time it dies soon, and it is said so."""
        waits = []
        for _ in range(7):
            self.ready(self.process)
            self.process.end(None, SIGKILL)
            (timer,) = self.reactor.getDelayedCalls()
            waits.append(timer.getTime() - self.reactor.seconds())
            self.reactor.advance(waits[-1])
        self.assertEqual(waits, [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0])
        self.assertIn(("hub", "frhub ended unexpectedly (SIGKILL); it is started again in 0.5 s"), self.lines)
        self.ready(self.process)
        self.reactor.advance(61)
        self.process.end(0)
        self.reactor.advance(0.5)
        self.assertEqual((len(self.reactor.processes), self.unit.restarts), (9, 8))

    def test_stop(self) -> None:
        """It is stopped with SIGTERM, and not started again."""
        self.ready(self.process)
        done = self.unit.stop()
        self.assertEqual(self.process.signals, [SIGTERM])
        self.assertNoResult(done)
        self.process.end(None, SIGTERM)
        self.successResultOf(done)
        self.reactor.advance(100)
        self.assertEqual((len(self.reactor.processes), self.unit.pid), (1, None))

    def test_stopWhileItWaits(self) -> None:
        """A stop between a death and the restart is done at once."""
        self.ready(self.process)
        self.process.end(1)
        self.successResultOf(self.unit.stop())
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.unit.kill()

    def test_kill(self) -> None:
        """It is killed with everything in its session."""
        with mock.patch("os.killpg") as killpg:
            self.unit.kill()
        killpg.assert_called_once_with(4711, SIGKILL)


class HouseTestCase(UnitTestCase):
    """A house in a folder of its own."""

    arguments = ["--scans=1", "--until-done", "--timeout=60"]
    settings: dict[str, str] = {}

    def setUp(self) -> None:
        """Build it and let it run."""
        super().setUp()
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.stream = io.StringIO()
        options = parse([*self.arguments, f"--data-dir={self.folder}"])
        screen = Screen(self.stream, colour=False, terminal=False)
        self.house = self.make_house(self.reactor, options, screen, "/bin/twistd", self.settings)
        self.done: Deferred[int] = Deferred.fromCoroutine(self.house.run())
        self.addCleanup(self.finish)

    def make_house(self, *arguments: Any) -> House:
        """Return the house to be tried."""
        return House(*arguments)

    def finish(self) -> None:
        """End whatever a test left running."""
        with mock.patch("os.killpg"):
            while not self.done.called:
                self.house.interrupt()
                for process in self.reactor.processes:
                    if process.alive:
                        process.end(None, SIGTERM)

    def process(self, name: str) -> FakeProcess:
        """Return the last process of this unit."""
        return next(each for each in reversed(self.reactor.processes) if f"fr{name}" in each.arguments)

    def names(self) -> list[str]:
        """Return the units in the order of their start."""
        return [next(a[2:] for a in each.arguments if a in self.commands) for each in self.reactor.processes]

    commands = ("frstore", "frhub", "frbrain", "frpacs")

    def bring_up(self) -> None:
        """Let every unit become ready."""
        self.say(self.process("store"), event="store.ready", url="mongodb://127.0.0.1:5000/fr")
        self.ready(self.process("store"))
        self.ready(self.process("brain"))
        self.ready(self.process("hub"))
        self.ready(self.process("pacs"))

    def end(self, *names: str) -> None:
        """Let units end as SIGTERM makes them."""
        for name in names:
            self.process(name).end(None, SIGTERM)

    def write_report(self, scan_id: str = "s1", page: bool = True) -> str:
        """Write a report as the PACS does; return its folder."""
        folder = self.house.reports / scan_id
        folder.mkdir(parents=True)
        report = {"findings": {"volumes": {"brain": {"value": 1200.0}, "csf": {"value": 180.5}}}}
        (folder / "report.json").write_text(json.dumps(report))
        if page:
            (folder / "report.html").write_text("<html>")
        return str(folder)

    def send_and_report(self, **report: Any) -> None:
        """Let one scan go all the way."""
        path = self.write_report(**report)
        self.say(self.process("pacs"), **event("scan.acknowledged"))
        self.reactor.advance(2.0)
        self.say(self.process("pacs"), **event("report.written", path=path))
        self.say(self.process("hub"), **event("report.delivered"))


class StartTests(HouseTestCase):
    """How it starts."""

    def test_order(self) -> None:
        """The store first; HUB and BRAIN when it is ready; the PACS when both are."""
        self.assertEqual(self.names(), ["store"])
        self.say(self.process("store"), event="store.ready", url="mongodb://127.0.0.1:5000/fr")
        self.ready(self.process("store"))
        self.assertEqual(self.names(), ["store", "hub", "brain"])
        self.ready(self.process("hub"))
        self.assertEqual(len(self.names()), 3)
        self.ready(self.process("brain"))
        self.assertEqual(self.names(), ["store", "hub", "brain", "pacs"])

    def test_arguments(self) -> None:
        """The units are told of each other; the store's URI is in the environment only."""
        self.bring_up()
        hub, pacs = self.process("hub").arguments, self.process("pacs").arguments
        listen = hub[hub.index("--listen") + 1].split(":")
        self.assertEqual(pacs[pacs.index("--hub") + 1], f"tcp:127.0.0.1:{listen[1]}")
        pacs_port = pacs[pacs.index("--listen") + 1].split(":")[1]
        self.assertEqual(hub[hub.index("--nodes") + 1], f"pacs=tcp:127.0.0.1:{pacs_port}")
        self.assertEqual(pacs[pacs.index("--generate") + 1], "1")
        for name in ("hub", "brain"):
            self.assertEqual(self.process(name).environment["FR_MONGO_URI"], "mongodb://127.0.0.1:5000/fr")
            self.assertNotIn("mongodb", " ".join(self.process(name).arguments))
        self.assertEqual(self.process("store").environment["FR_LOG_FORMAT"], "json")

    def test_restartedPacsSendsTheSame(self) -> None:
        """A PACS that is started again has the seed it had."""
        self.bring_up()
        before = self.process("pacs").arguments
        self.process("pacs").end(1)
        self.reactor.advance(0.5)
        after = self.process("pacs").arguments
        self.assertEqual(len(self.reactor.processes), 5)
        self.assertEqual(after[-8:], before[-8:])

    def test_unitDoesNotStart(self) -> None:
        """When a unit cannot start, the others are ended and the reason is the last thing said."""
        self.say(self.process("store"), event="store.ready", url="mongodb://127.0.0.1:5000/fr")
        self.ready(self.process("store"))
        self.say(self.process("hub"), event="unit.failed", msg="x", reason="no rights")
        self.process("hub").end(1)
        self.assertEqual(self.process("brain").signals, [SIGTERM])
        self.end("brain", "store")
        self.assertEqual(self.successResultOf(self.done), 1)
        self.assertIn("fr    | frhub does not start (status 1): no rights\n", self.stream.getvalue())

    def test_interruptWhileStarting(self) -> None:
        """Ctrl-C while the units start ends those that were started."""
        self.house.interrupt()
        self.assertEqual(self.process("store").signals, [SIGTERM])
        self.end("store")
        self.assertEqual(self.successResultOf(self.done), 130)


class OwnStoreTests(HouseTestCase):
    """With FR_MONGO_URI set."""

    settings = {"FR_MONGO_URI": "mongodb://fr:geheim@db.example/fr", "FR_PACS_SEED": "7"}

    def test_noStoreIsStarted(self) -> None:
        """That store is used, its password is not shown; a seed of one's own counts."""
        self.assertEqual(self.names(), ["hub", "brain"])
        self.assertEqual(self.process("hub").environment["FR_MONGO_URI"], self.settings["FR_MONGO_URI"])
        self.assertNotIn("geheim", self.stream.getvalue())
        self.ready(self.process("hub"))
        self.ready(self.process("brain"))
        self.assertEqual(self.process("pacs").arguments[-1], "7")


class UntilDoneTests(HouseTestCase):
    """``--until-done``."""

    def test_success(self) -> None:
        """It ends with a table and status 0 when the report is there."""
        self.bring_up()
        self.send_and_report()
        self.end("pacs", "hub", "brain", "store")
        self.assertEqual(self.successResultOf(self.done), 0)
        text = self.stream.getvalue()
        self.assertRegex(text, r"\ns1 +1200\.0 +- +- +180\.5 +- +2\.0\n")
        self.assertIn(f"open {self.house.reports}/s1/report.html\n", text)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_hubIsWaitedFor(self) -> None:
        """It does not end before the HUB has heard that the report arrived, but for two seconds at most."""
        self.bring_up()
        path = self.write_report()
        self.say(self.process("pacs"), **event("scan.acknowledged"))
        self.say(self.process("pacs"), **event("report.written", path=path))
        self.reactor.advance(1.9)
        self.assertEqual(self.process("hub").signals, [])
        self.reactor.advance(0.2)
        self.assertEqual(self.process("hub").signals, [SIGTERM])
        self.end("pacs", "hub", "brain", "store")
        self.assertEqual(self.successResultOf(self.done), 0)

    def test_failedScan(self) -> None:
        """A scan that failed is an end too: status 1, with the reason."""
        self.bring_up()
        self.say(self.process("pacs"), **event("scan.acknowledged"))
        self.say(self.process("brain"), **event("scan.failed", reason="it is a knee"))
        self.end("pacs", "hub", "brain", "store")
        self.assertEqual(self.successResultOf(self.done), 1)
        self.assertIn("fr    | s1 failed: it is a knee\n", self.stream.getvalue())

    def test_reportIsNotWhole(self) -> None:
        """A report that was announced but is not all there is not taken for one."""
        self.bring_up()
        self.send_and_report(page=False)
        self.end("pacs", "hub", "brain", "store")
        self.assertEqual(self.successResultOf(self.done), 1)
        self.assertIn("holds no whole report", self.stream.getvalue())

    def test_timeout(self) -> None:
        """After the timeout it ends with status 1 and says where each scan is."""
        self.bring_up()
        self.say(self.process("pacs"), **event("scan.acknowledged"))
        self.reactor.advance(60)
        self.end("pacs", "hub", "brain", "store")
        self.assertEqual(self.successResultOf(self.done), 1)
        self.assertIn("not all reports are there after 60 s", self.stream.getvalue())
        self.assertIn("s1 kept\n", self.stream.getvalue())

    def test_interrupt(self) -> None:
        """Ctrl-C before the end has the status that shells give it."""
        self.bring_up()
        self.house.interrupt()
        self.end("pacs", "hub", "brain", "store")
        self.assertEqual(self.successResultOf(self.done), 130)

    def test_lines(self) -> None:
        """Log lines are shown with their unit; debug lines and those of progress are not."""
        self.bring_up()
        self.say(self.process("hub"), msg="kept it", failure="StoreError: x")
        self.say(self.process("hub"), msg="detail", level="debug")
        self.say(self.process("pacs"), **event("scan.progress"))
        text = self.stream.getvalue()
        self.assertIn("hub   | kept it\nhub   | StoreError: x\n", text)
        self.assertNotIn("detail", text)
        self.assertNotIn("scan.progress", text)


class StayTests(HouseTestCase):
    """``--stay``."""

    arguments = ["--scans=1", "--stay"]

    def test_stays(self) -> None:
        """When all is done it shows the table once and stays until Ctrl-C, then ends with status 0."""
        self.bring_up()
        self.send_and_report()
        self.say(self.process("hub"), msg="later")
        self.assertEqual(self.stream.getvalue().count("Ctrl-C ends it"), 1)
        self.reactor.advance(3600)
        self.assertNoResult(self.done)
        self.house.interrupt()
        self.end("pacs", "hub", "brain", "store")
        self.assertEqual(self.successResultOf(self.done), 0)

    def test_stopOrder(self) -> None:
        """PACS, HUB and BRAIN are told together; the store when they have ended."""
        self.bring_up()
        self.house.interrupt()
        for name in ("pacs", "hub", "brain"):
            self.assertEqual(self.process(name).signals, [SIGTERM])
        self.assertEqual(self.process("store").signals, [])
        self.end("pacs", "hub")
        self.assertEqual(self.process("store").signals, [])
        self.end("brain")
        self.assertEqual(self.process("store").signals, [SIGTERM])
        self.end("store")
        self.successResultOf(self.done)

    def test_unitThatDoesNotEnd(self) -> None:
        """A unit that does not end keeps the store waiting for 2.8 s and is killed after 4.5 s."""
        self.bring_up()
        self.house.interrupt()
        self.end("pacs", "hub")
        self.reactor.advance(2.9)
        self.assertEqual(self.process("store").signals, [SIGTERM])
        self.end("store")
        self.assertNoResult(self.done)
        with mock.patch("os.killpg") as killpg:
            self.reactor.advance(1.7)
        killpg.assert_called_once_with(4711, SIGKILL)
        self.process("brain").end(None, SIGKILL)
        self.assertEqual(self.successResultOf(self.done), 0)

    def test_secondInterrupt(self) -> None:
        """A second Ctrl-C kills what is left at once."""
        self.bring_up()
        self.house.interrupt()
        with mock.patch("os.killpg") as killpg:
            self.house.interrupt()
        self.assertEqual(killpg.call_count, 4)

    def test_restart(self) -> None:
        """A unit that dies while everything runs is started again, and it is said so."""
        self.bring_up()
        self.process("brain").end(None, SIGKILL)
        self.reactor.advance(0.5)
        self.assertEqual(self.names().count("brain"), 2)
        self.assertIn("brain | frbrain ended unexpectedly (SIGKILL)", self.stream.getvalue())


class NoScansTests(HouseTestCase):
    """``--scans 0``."""

    arguments = ["--scans=0", "--stay"]

    def test_stays(self) -> None:
        """Nothing is sent, and nothing is announced."""
        self.bring_up()
        self.assertNotIn("all scans", self.stream.getvalue())
        self.assertNoResult(self.done)


class PartsTests(SynchronousTestCase):
    """The small parts."""

    def test_parse(self) -> None:
        """The timeout follows the number of scans; that is a whole number."""
        self.assertEqual(vars(parse(["--scans=2"]))["timeout"], 360.0)
        self.assertEqual(parse([]).scans, 4)
        for bad in (["--scans=-1"], ["--scans=x"], ["--stay", "--until-done"]):
            with mock.patch("sys.stderr", io.StringIO()):
                self.assertRaises(SystemExit, parse, bad)

    def test_freePorts(self) -> None:
        """Ports are different, and unprivileged."""
        ports = free_ports(3)
        self.assertEqual(len(set(ports)), 3)
        self.assertGreater(min(ports), 1023)

    def test_twistd(self) -> None:
        """twistd is found beside our Python; without it that is said."""
        self.assertEqual(Path(find_twistd()).name, "twistd")
        with (
            mock.patch("sys.executable", "/nonexistent/python"),
            mock.patch("shutil.which", return_value=None),
        ):
            self.assertRaises(StartError, find_twistd)

    def test_readReport(self) -> None:
        """A missing, broken or odd report is none."""
        folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        self.assertIsNone(read_report(folder))
        for text in ("{", "[]"):
            (folder / "report.json").write_text(text)
            (folder / "report.html").write_text("")
            self.assertIsNone(read_report(folder))

    def test_mainRefuses(self) -> None:
        """A mistake in the settings ends it before anything is started."""
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        stream = io.StringIO()
        with mock.patch("sys.stdout", stream), mock.patch.dict("os.environ", {"FR_HUB_LISTN": "x"}):
            status = house.main([f"--data-dir={folder}/fr"])
        self.assertEqual(status, 1)
        self.assertIn("did you mean FR_HUB_LISTEN?", stream.getvalue())
