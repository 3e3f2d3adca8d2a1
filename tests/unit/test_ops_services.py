"""Ordered services, the root service of a unit, listening."""

import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from typing import Any
from unittest import mock

from twisted.application.service import Application, IService, Service
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import ILogObserver, globalLogPublisher
from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from fr_twisted.config import HubSettings
from fr_twisted.ops.options import settings_options
from fr_twisted.ops.services import (
    IReady,
    ListeningService,
    OrderedMultiService,
    Ready,
    StartError,
    UnitService,
    make_unit,
)


class Child(Service):
    """Notes its start and stop; stops when told to."""

    def __init__(self, name: str, notes: list[str], stop: Any = None) -> None:
        self.name = name
        self.notes = notes
        self.stop = stop if stop is not None else succeed(None)

    def startService(self) -> None:
        """Note it."""
        super().startService()
        self.notes.append(f"start {self.name}")

    def stopService(self) -> Any:
        """Note it, and fire as the test says."""
        super().stopService()
        self.notes.append(f"stop {self.name}")
        if isinstance(self.stop, Exception):
            raise self.stop
        return self.stop


@implementer(IReady)
class SlowChild(Child):
    """Is ready when the test says so."""

    def __init__(self, name: str, notes: list[str]) -> None:
        super().__init__(name, notes)
        self.ready = Ready()

    def when_ready(self) -> Deferred[None]:
        """Fire when the test says so."""
        return self.ready.when()


class ReadyTests(SynchronousTestCase):
    """`Ready`."""

    def test_success(self) -> None:
        """Whoever asks before and whoever asks after is told; a later failure is nothing any more."""
        ready = Ready()
        early = ready.when()
        self.assertNoResult(early)
        ready.succeed()
        ready.fail(ValueError())
        self.assertIsNone(self.successResultOf(early))
        self.assertIsNone(self.successResultOf(ready.when()))

    def test_failure(self) -> None:
        """A failure is told in the same way."""
        ready = Ready()
        early = ready.when()
        ready.fail(StartError("no"))
        for deferred in (early, ready.when()):
            self.failureResultOf(deferred, StartError)


class OrderedTests(SynchronousTestCase):
    """`OrderedMultiService`."""

    def setUp(self) -> None:
        """Make a service of three children, of which the last two stop as the test says."""
        self.clock = Clock()
        self.notes: list[str] = []
        self.stops: list[Deferred[None]] = [Deferred(), Deferred()]
        self.service = OrderedMultiService(self.clock, 4.0)
        for child in (
            Child("store", self.notes),
            Child("delivery", self.notes, self.stops[0]),
            Child("listener", self.notes, self.stops[1]),
        ):
            child.setServiceParent(self.service)
        self.service.startService()
        self.notes.clear()

    def test_order(self) -> None:
        """The last added stops first, and the next one only when it has stopped."""
        done = self.service.stopService()
        self.assertEqual(self.notes, ["stop listener"])
        self.stops[1].callback(None)
        self.assertEqual(self.notes, ["stop listener", "stop delivery"])
        self.assertNoResult(done)
        self.stops[0].callback(None)
        self.assertEqual(self.notes, ["stop listener", "stop delivery", "stop store"])
        self.assertIsNone(self.successResultOf(done))
        self.assertFalse(self.service.running)

    def test_deadline(self) -> None:
        """A child that does not stop holds up neither the others nor the whole past the stop timeout."""
        done = self.service.stopService()
        self.clock.pump([0.1] * 32)
        self.assertNotIn("stop delivery", self.notes)
        self.clock.pump([0.1] * 3)
        self.assertIn("stop delivery", self.notes)
        self.clock.pump([0.1] * 5)
        self.assertIn("stop store", self.notes)
        self.successResultOf(done)
        self.assertLessEqual(self.clock.seconds(), 4.01)

    def test_lateResult(self) -> None:
        """What a child says after its time is over disturbs nobody."""
        done = self.service.stopService()
        self.clock.pump([0.5] * 10)
        self.successResultOf(done)
        self.assertEqual(self.flushLoggedErrors(CancelledError), [])

    def test_failingChild(self) -> None:
        """A child that fails to stop is logged, and the others are stopped all the same."""
        self.stops[1].errback(ValueError())
        Child("broken", self.notes, RuntimeError("x")).setServiceParent(self.service)
        done = self.service.stopService()
        self.stops[0].callback(None)
        self.successResultOf(done)
        self.assertEqual(self.notes[-1], "stop store")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)


class UnitTestCase(SynchronousTestCase):
    """A root service with everything around it under the test's eyes."""

    def setUp(self) -> None:
        """Make it."""
        self.clock = MemoryReactorClock()
        self.notes: list[str] = []
        self.states: list[str] = []
        self.stream = io.StringIO()
        settings = HubSettings(log_format="json", node="hub-1")
        self.unit = UnitService(
            "hub",
            settings,
            self.clock,
            stream=self.stream,
            notify=self.note_state,
            on_fatal=lambda: self.notes.append("fatal"),
        )
        self.application = Application("frhub")
        self.unit.setServiceParent(self.application)
        observer = self.application.getComponent(ILogObserver)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def note_state(self, state: str) -> bool:
        """Note what the service manager is told."""
        self.states.append(state)
        return True

    def start(self, *children: Service) -> None:
        """Start the application with these children, as twistd does."""
        for child in children:
            child.setServiceParent(self.unit)
        service = IService(self.application)
        service.privilegedStartService()
        service.startService()

    def events(self) -> list[str]:
        """Return the events that were logged."""
        return [json.loads(line).get("event") for line in self.stream.getvalue().splitlines()]


class UnitServiceTests(UnitTestCase):
    """`UnitService`."""

    def test_ready(self) -> None:
        """READY=1 is sent, and logged, when every child is ready and not before."""
        first, second = SlowChild("a", self.notes), SlowChild("b", self.notes)
        self.start(first, Child("c", self.notes), second)
        first.ready.succeed()
        self.assertEqual((self.states, self.events()), ([], ["unit.started"]))
        second.ready.succeed()
        self.assertEqual((self.states, self.events()), (["READY=1"], ["unit.started", "unit.ready"]))

    def test_linesNameTheUnit(self) -> None:
        """The unit's own lines carry unit, node and process id."""
        self.start()
        line = json.loads(self.stream.getvalue().splitlines()[0])
        self.assertEqual((line["unit"], line["node"], line["pid"]), ("hub", "hub-1", os.getpid()))

    def test_stop(self) -> None:
        """STOPPING=1 is sent when the stop begins; the end is logged when all children have stopped."""
        stop: Deferred[None] = Deferred()
        self.start(Child("a", self.notes, stop))
        done = self.unit.stopService()
        self.assertEqual(self.states, ["READY=1", "STOPPING=1"])
        self.assertEqual(self.events()[-1], "unit.stopping")
        stop.callback(None)
        self.successResultOf(done)
        self.assertEqual(self.events()[-1], "unit.stopped")

    def test_readyAfterStop(self) -> None:
        """A child that becomes ready while the unit stops does not announce the unit."""
        child = SlowChild("a", self.notes)
        self.start(child)
        self.successResultOf(self.unit.stopService())
        child.ready.succeed()
        self.assertNotIn("READY=1", self.states)

    def test_watchdog(self) -> None:
        """With a watchdog, WATCHDOG=1 is sent at half its limit from readiness until the stop."""
        with mock.patch.dict(os.environ, {"WATCHDOG_USEC": "2000000"}):
            self.start()
        self.clock.pump([0.5] * 4)
        self.assertEqual(self.states, ["READY=1"] + ["WATCHDOG=1"] * 3)
        self.successResultOf(self.unit.stopService())
        self.clock.pump([1.0] * 4)
        self.assertEqual(self.states[-1], "STOPPING=1")

    def test_childCannotStart(self) -> None:
        """The first child that never will be ready ends the unit, with one line that is made for people."""
        first, second = SlowChild("a", self.notes), SlowChild("b", self.notes)
        self.start(first, second)
        first.ready.fail(StartError("the port is taken: choose another"))
        second.ready.fail(StartError("and this"))
        line = json.loads(self.stream.getvalue().splitlines()[-1])
        self.assertEqual(line["msg"], "Fr-HUB cannot start: the port is taken: choose another")
        self.assertEqual((line["level"], line["event"]), ("critical", "unit.failed"))
        self.assertNotIn("failure", line)
        self.assertEqual(self.notes.count("fatal"), 1)
        self.assertEqual(self.states, ["STATUS=cannot start: the port is taken: choose another"])

    def test_failureWhileStopping(self) -> None:
        """A child that gives up because the unit stops does not make that a failure."""
        child = SlowChild("a", self.notes)
        self.start(child)
        self.successResultOf(self.unit.stopService())
        child.ready.fail(StartError("stopped before it could begin"))
        self.assertNotIn("fatal", self.notes)
        self.assertNotIn("unit.failed", self.events())

    def test_onlyTheStartedAreStopped(self) -> None:
        """When a child fails to start, those after it were not started and are not stopped."""
        broken = Child("b", self.notes)
        broken.startService = mock.Mock(side_effect=StartError("no"))  # type: ignore[method-assign]
        self.start(Child("a", self.notes), broken, Child("c", self.notes))
        self.successResultOf(self.unit.stopService())
        self.assertEqual(self.notes, ["start a", "fatal", "stop a"])

    def test_startRaises(self) -> None:
        """A child that raises in startService ends the unit; of a foreign error the place is logged too."""
        child = Child("a", self.notes)
        child.startService = mock.Mock(side_effect=OSError(28, "No space left on device"))  # type: ignore[method-assign]
        self.start(child)
        line = json.loads(self.stream.getvalue().splitlines()[-1])
        self.assertIn("No space left on device", line["msg"])
        self.assertIn("failure", line)
        self.assertIn("fatal", self.notes)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_privilegedStartRaises(self) -> None:
        """A child that raises in privilegedStartService ends the unit before anything else is started."""
        child = Child("a", self.notes)
        child.privilegedStartService = mock.Mock(side_effect=StartError("no"))  # type: ignore[method-assign]
        self.start(child)
        self.assertEqual(self.notes, ["fatal"])
        self.assertIn("unit.failed", self.events())


class FatalTests(SynchronousTestCase):
    """The end of the process when a unit cannot start."""

    def test_reactorIsStopped(self) -> None:
        """The reactor is stopped as soon as it runs, and the exit status will be 1."""
        reactor = MemoryReactorClock()
        unit = UnitService("hub", HubSettings(), reactor, stream=io.StringIO(), notify=lambda _: False)
        child = SlowChild("a", [])
        child.setServiceParent(unit)
        with mock.patch("fr_twisted.ops.services._exit_status") as status:
            unit.startService()
            child.ready.fail(StartError("no"))
        status.register.assert_called_once_with()
        status.set.assert_called_once_with(1)
        self.assertEqual([call[0] for call in reactor.whenRunningHooks], [reactor.stop])

    def test_exitStatus(self) -> None:
        """A process whose status was set ends with it, having flushed what it wrote and run other exit functions."""
        script = (
            "from fr_twisted.ops.services import _exit_status as s; import atexit, sys\n"
            "s.register(); s.register(); atexit.register(print, 'other'); s.set(3); sys.stdout.write('said ')\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False
        )
        self.assertEqual((done.returncode, done.stdout), (3, "said other\n"))


@implementer(IStreamServerEndpoint)
class FakeEndpoint:
    """Listens as the test says."""

    def __init__(self, result: Deferred[Any]) -> None:
        self.result = result

    def listen(self, protocolFactory: Any) -> Deferred[Any]:
        """Return what the test made."""
        return self.result


class ListeningTests(SynchronousTestCase):
    """`ListeningService`."""

    def service(self, result: Deferred[Any]) -> ListeningService:
        """Return a started service whose listening has this result."""
        service = ListeningService(FakeEndpoint(result), Factory(), "tcp:7801")
        self.assertTrue(verifyObject(IReady, service))
        service.startService()
        return service

    def test_bound(self) -> None:
        """It is ready when the port is bound, and closes it when it stops."""
        port = mock.Mock()
        port.getHost.return_value.port = 7801
        result: Deferred[Any] = Deferred()
        service = self.service(result)
        ready = service.when_ready()
        self.assertNoResult(ready)
        result.callback(port)
        self.successResultOf(ready)
        self.assertIs(service.port, port)
        self.successResultOf(service.stopService())
        port.stopListening.assert_called_once_with()

    def test_notBound(self) -> None:
        """A port that is taken is told with its endpoint."""
        service = self.service(
            fail(CannotListenError("127.0.0.1", 7801, OSError(98, "Address already in use")))
        )
        failure = self.failureResultOf(service.when_ready(), StartError)
        self.assertIn("cannot listen on tcp:7801: ", str(failure.value))
        self.assertIn("Address already in use", str(failure.value))
        self.successResultOf(service.stopService())

    def test_stoppedBeforeBound(self) -> None:
        """A stop while the port is being bound is no failure."""
        service = self.service(Deferred())
        self.successResultOf(service.stopService())
        self.assertNoResult(service.when_ready())


class MakeUnitTests(SynchronousTestCase):
    """`make_unit`."""

    def test_logsToTwistdsFile(self) -> None:
        """The unit writes to the file that twistd was told of."""
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        path = os.path.join(folder, "hub.log")
        options = settings_options(HubSettings, "Keeps scans.")({})
        options.parent = usage.Options()
        options.parent.update({"logfile": path, "nodaemon": False})
        options.parseOptions([])
        application = Application("frhub")
        unit = make_unit("hub", options, Clock())
        assert unit.stream is not None
        self.addCleanup(unit.stream.close)
        unit.setServiceParent(application)
        observer = application.getComponent(ILogObserver)
        observer({"log_namespace": "fr_twisted", "log_format": "hello", "log_time": 0.0})
        with open(path) as stream:
            self.assertIn("hello", stream.read())
