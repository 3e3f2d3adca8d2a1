"""The supervised embedded server, with a process and a clock of the test's own."""

import os
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any, cast
from unittest import mock

import bson
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import EventLoggingObserver, MemoryReactorClock, StringTransport
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from fr_twisted.config import StoreSettings
from fr_twisted.ops import launch
from fr_twisted.ops.services import IReady, StartError
from fr_twisted.store import embedded
from fr_twisted.store.embedded import EmbeddedStoreService, find_executable, server_arguments
from fr_twisted.store.hello import HelloProtocol, ask_hello
from tests.fakes_process import FakeProcess, ProcessReactor


class ServiceTestCase(SynchronousTestCase):
    """A service whose server says and answers what the test wants."""

    def setUp(self) -> None:
        """Make it."""
        self.reactor = ProcessReactor()
        self.folder = Path(tempfile.mkdtemp()) / "store"
        self.addCleanup(shutil.rmtree, self.folder.parent)
        self.asked: list[tuple[int, Deferred[None]]] = []
        self.make()

    def make(self, **settings: Any) -> None:
        """Make a service with these settings."""
        self.service = EmbeddedStoreService(
            self.reactor,
            StoreSettings(dir=self.folder, **{"port": 0, **settings}),
            lambda: "/bin/server",
            self.ask,
        )

    async def ask(self, reactor: Any, port: int) -> None:
        """Answer hello as the test says."""
        deferred: Deferred[None] = Deferred()
        self.asked.append((port, deferred))
        await deferred

    def answer(self, yes: bool = True) -> None:
        """Answer the last hello."""
        deferred = self.asked[-1][1]
        if yes:
            deferred.callback(None)
        else:
            deferred.errback(ConnectionRefusedError())

    @property
    def process(self) -> FakeProcess:
        """The process that was spawned last."""
        return self.reactor.processes[-1]

    def bring_up(self, port: int = 5000) -> None:
        """Let the server become ready on ``port``."""
        self.process.say(f"2026 INFO secantus.server: secantus listening on 127.0.0.1:{port}")
        self.answer()


class StartTests(ServiceTestCase):
    """Until the server is ready."""

    def test_readyWhenItAnswers(self) -> None:
        """An open port is not enough: it is ready with the first answer to hello, asked again and again."""
        self.assertTrue(verifyObject(IReady, self.service))
        self.service.startService()
        ready = self.service.when_ready()
        self.reactor.advance(1)
        self.assertEqual(self.asked, [])
        self.process.say("listening on 127.0.0.1:5000")
        self.answer(False)
        self.reactor.advance(0.1)
        self.assertEqual([port for port, _ in self.asked], [5000, 5000])
        self.assertNoResult(ready)
        self.answer()
        self.successResultOf(ready)
        self.assertEqual(self.service.url, "mongodb://127.0.0.1:5000/fr")

    def test_commandLine(self) -> None:
        """The server runs tied to us, keeps what it acknowledged, and sees neither our settings nor others' files."""
        with mock.patch.dict(os.environ, {"FR_MONGO_URI": "secret", "PATH": "/bin"}):
            self.service.startService()
        folder = self.folder.absolute()
        line = self.process.arguments
        self.assertEqual(line[: line.index("/bin/server")], launch.command("/bin/server", [], SIGKILL)[:-1])
        self.assertIn("--sync-on-commit", line)
        self.assertEqual(line[line.index("--config") + 1], str(folder / "server.toml"))
        self.assertEqual(line[line.index("--host") + 1], "127.0.0.1")
        self.assertEqual(self.process.environment["PATH"], "/bin")
        self.assertNotIn("FR_MONGO_URI", self.process.environment)

    def test_settings(self) -> None:
        """Cache, change streams and test commands reach the server."""
        folder = Path("/data")
        plain = server_arguments(StoreSettings(), folder, 27017)
        self.assertEqual(plain[plain.index("--cache-size") + 1], "256M")
        self.assertEqual(plain[plain.index("--port") + 1], "27017")
        self.assertIn("--oplog-max-entries", plain)
        self.assertFalse({"--standalone", "--enable-test-commands"} & set(plain))
        other = server_arguments(StoreSettings(change_streams=False, test_commands=True), folder, 0)
        self.assertTrue({"--standalone", "--enable-test-commands"} <= set(other))
        self.assertNotIn("--oplog-max-entries", other)

    def test_folderIsPrivate(self) -> None:
        """The data folder is made, for us alone."""
        self.service.startService()
        self.assertEqual(stat.S_IMODE(self.folder.stat().st_mode), 0o700)

    def test_folderCannotBeMade(self) -> None:
        """A folder that cannot be is told in one line."""
        self.folder.write_text("a file")
        error = self.assertRaises(StartError, self.service.startService)
        self.assertIn(f"the data folder {self.folder.absolute()} cannot be used: File exists", str(error))

    def test_notInstalled(self) -> None:
        """Without the server it is said how to get it."""
        self.patch(sys, "executable", "/nonexistent/python")
        with mock.patch.dict(os.environ, {"PATH": "/nonexistent"}):
            error = self.assertRaises(StartError, find_executable)
        self.assertIn("pip install 'fr-twisted[embedded]'", str(error))

    def test_found(self) -> None:
        """The command beside our Python is preferred."""
        self.assertEqual(Path(find_executable()).name, embedded.EXECUTABLE)

    def test_doesNotStart(self) -> None:
        """A server that ends before it was ever ready fails the unit with its last word."""
        self.service.startService()
        self.process.say("Traceback (most recent call last):")
        self.process.say("wt.WiredTigerError: WT_PANIC")
        self.process.say("")
        self.process.end(1)
        failure = self.failureResultOf(self.service.when_ready(), StartError)
        self.assertIn("does not start in", str(failure.value))
        self.assertTrue(str(failure.value).endswith("WT_PANIC"))
        self.assertEqual(len(self.reactor.processes), 1)

    def test_hangs(self) -> None:
        """A server that says nothing for a minute is killed, and that is a failure to start."""
        self.service.startService()
        self.reactor.advance(61)
        self.assertEqual(self.process.signals, [SIGKILL])
        self.process.end(None, SIGKILL)
        self.failureResultOf(self.service.when_ready(), StartError)

    def test_killedAtTheStart(self) -> None:
        """A server that is killed from outside before it was ready is started again, a few times."""
        self.service.startService()
        ready = self.service.when_ready()
        for count in range(1, 4):
            self.process.end(None, SIGKILL)
            self.assertNoResult(ready)
            self.reactor.advance(10)
            self.assertEqual(len(self.reactor.processes), count + 1)
        self.process.end(None, SIGKILL)
        self.failureResultOf(ready, StartError)

    def test_killedOnce(self) -> None:
        """The next one may be ready as if nothing had been."""
        self.service.startService()
        self.process.end(None, SIGKILL)
        self.reactor.advance(1)
        self.bring_up()
        self.successResultOf(self.service.when_ready())

    def test_lockedFolder(self) -> None:
        """A folder that is locked is tried again for 5 s: then it is refused in one line."""
        self.service.startService()
        ready = self.service.when_ready()
        for _ in range(10):
            self.process.say("_wiredtiger.WiredTigerError: Device or resource busy")
            self.process.end(1)
            self.assertNoResult(ready)
            self.reactor.advance(0.5)
        self.assertEqual(len(self.reactor.processes), 11)
        self.process.say("_wiredtiger.WiredTigerError: Device or resource busy")
        self.process.end(1)
        failure = self.failureResultOf(ready, StartError)
        self.assertIn(
            f"the data folder {self.folder.absolute()} is in use by another server", str(failure.value)
        )

    def test_lockGivenUp(self) -> None:
        """A lock that is given up in time is no failure."""
        self.service.startService()
        self.process.say("Device or resource busy")
        self.process.end(1)
        self.reactor.advance(0.5)
        self.bring_up()
        self.successResultOf(self.service.when_ready())

    def test_portTaken(self) -> None:
        """A port that stays taken is told, with the setting to change."""
        self.make(port=27017)
        self.service.startService()
        for _ in range(11):
            self.process.say("OSError: [Errno 98] Address already in use")
            self.process.end(1)
            self.reactor.advance(0.5)
        failure = self.failureResultOf(self.service.when_ready(), StartError)
        self.assertIn("port 27017 on 127.0.0.1 is in use by another program", str(failure.value))
        self.assertIn("FR_STORE_PORT", str(failure.value))


class CrashTests(ServiceTestCase):
    """After the server was ready."""

    def setUp(self) -> None:
        """Let it be ready."""
        super().setUp()
        self.service.startService()
        self.bring_up()

    def test_samePortAgain(self) -> None:
        """After a crash it is started again at once, on the port that it had."""
        self.process.end(None, SIGKILL)
        self.reactor.advance(0.1)
        self.assertEqual(len(self.reactor.processes), 2)
        line = self.process.arguments
        self.assertEqual(line[line.index("--port") + 1], "5000")

    def test_backoff(self) -> None:
        """A server that keeps crashing is started ever more slowly, 10 s apart at most, and never given up."""
        waits = []
        for _ in range(12):
            self.process.end(1)
            (restart,) = self.reactor.getDelayedCalls()
            waits.append(round(restart.getTime() - self.reactor.seconds(), 1))
            self.reactor.advance(waits[-1])
            self.bring_up()
        self.assertEqual(waits[:4], [0.1, 0.2, 0.4, 0.8])
        self.assertEqual(waits[-3:], [10.0, 10.0, 10.0])

    def test_backoffIsForgotten(self) -> None:
        """After a minute without a crash the next one counts as the first."""
        for _ in range(6):
            self.process.end(1)
            self.reactor.advance(11)
            self.bring_up()
        self.reactor.advance(61)
        count = len(self.reactor.processes)
        self.process.end(1)
        self.reactor.advance(0.11)
        self.assertEqual(len(self.reactor.processes), count + 1)

    def test_unexpectedCleanEnd(self) -> None:
        """An end with status 0 that nobody asked for is a crash too."""
        self.process.end(0)
        self.reactor.advance(0.1)
        self.assertEqual(len(self.reactor.processes), 2)

    def test_panic(self) -> None:
        """A server that lives on but has given up its files, as on a full disk, is killed once and started again."""
        self.events = EventLoggingObserver.createWithCleanup(cast(Any, self), globalLogPublisher)
        self.process.say("evict: pwrite: failed to write 458752 bytes: No space left on device")
        self.process.say("the process must exit and restart: WT_PANIC: WiredTiger library panic")
        self.process.say("_wiredtiger.WiredTigerError: WT_PANIC: WiredTiger library panic")
        self.assertEqual(self.process.signals, [SIGKILL])
        self.process.end(None, SIGKILL)
        self.reactor.advance(0.1)
        self.assertEqual(len(self.reactor.processes), 2)
        [told] = [event for event in self.events if event.get("event") == "store.panic"]
        self.assertIn("no space left", told["reason"])
        self.assertIn(str(self.folder.absolute()), told["reason"])

    def test_panicAtTheStart(self) -> None:
        """So is one that breaks down again while it starts; with nothing of a full disk, its own words are told."""
        self.events = EventLoggingObserver.createWithCleanup(cast(Any, self), globalLogPublisher)
        self.process.end(1)
        self.reactor.advance(0.1)
        self.process.say("file.wt: WT_PANIC: WiredTiger library panic")
        self.assertEqual(self.process.signals, [SIGKILL])
        [told] = [event for event in self.events if event.get("event") == "store.panic"]
        self.assertEqual(told["reason"], "file.wt: WT_PANIC: WiredTiger library panic")

    def test_lateLines(self) -> None:
        """Lines without an end are cut, and what is no text does no harm."""
        self.process.protocol.childDataReceived(1, b"\xff" * 200_000)
        self.process.protocol.childDataReceived(1, b"\n")
        self.assertLessEqual(max(len(line) for line in self.process.protocol.last_lines), 500)


class StopTests(ServiceTestCase):
    """The end."""

    def test_clean(self) -> None:
        """SIGTERM; the service has stopped when the server has; nothing is left to do."""
        self.service.startService()
        self.bring_up()
        done = self.service.stopService()
        self.assertEqual(self.process.signals, [SIGTERM])
        self.assertNoResult(done)
        self.process.end(0)
        self.successResultOf(done)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_lostSigterm(self) -> None:
        """A server that still answers hello has lost the SIGTERM, and gets another."""
        self.service.startService()
        self.bring_up()
        self.service.stopService()
        self.reactor.advance(0.05)
        self.answer()
        self.assertEqual(self.process.signals, [SIGTERM, SIGTERM])
        self.reactor.advance(0.4)
        self.answer(False)
        self.assertEqual(self.process.signals, [SIGTERM, SIGTERM])

    def test_killed(self) -> None:
        """A server that does not end is killed before the stop timeout is over."""
        self.service.startService()
        self.bring_up()
        done = self.service.stopService()
        self.reactor.pump([0.1] * 36)
        self.assertEqual(self.process.signals[-1], SIGKILL)
        self.process.end(None, SIGKILL)
        self.successResultOf(done)

    def test_beforeReady(self) -> None:
        """A stop while it starts ends it as well, and a late answer changes nothing."""
        self.service.startService()
        self.process.say("listening on 127.0.0.1:5000")
        done = self.service.stopService()
        self.assertEqual(self.process.signals, [SIGTERM])
        self.answer()
        self.process.end(None, SIGTERM)
        self.successResultOf(done)
        self.assertNoResult(self.service.when_ready())
        self.assertEqual(len(self.reactor.processes), 1)

    def test_whileCrashed(self) -> None:
        """A stop between a crash and the restart is done at once, and nothing is started any more."""
        self.service.startService()
        self.bring_up()
        self.process.end(1)
        self.successResultOf(self.service.stopService())
        self.reactor.advance(100)
        self.assertEqual(len(self.reactor.processes), 1)

    def test_endedAlready(self) -> None:
        """A signal to a process that has just ended does no harm."""
        self.service.startService()
        self.process.alive = False
        self.service.stopService()
        self.assertEqual(self.process.signals, [])


class HelloTests(SynchronousTestCase):
    """`HelloProtocol` and `ask_hello`."""

    def reply(self, document: dict[str, Any]) -> bytes:
        """Return an OP_MSG with this document."""
        body = struct.pack("<IB", 0, 0) + bson.encode(document)
        return struct.pack("<iiii", 16 + len(body), 9, 1, 2013) + body

    def connect(self) -> tuple[HelloProtocol, StringTransport]:
        """Return a connected protocol."""
        protocol, transport = HelloProtocol(), StringTransport()
        protocol.makeConnection(transport)
        return protocol, transport

    def test_question(self) -> None:
        """The question is one OP_MSG with hello for the database admin."""
        _, transport = self.connect()
        data = transport.value()
        self.assertEqual(struct.unpack_from("<iiii", data), (len(data), 1, 0, 2013))
        self.assertEqual(data[16:21], b"\0\0\0\0\0")
        self.assertEqual(bson.decode(data[21:]), {"hello": 1, "$db": "admin"})

    def test_answerInPieces(self) -> None:
        """The reply is read however it is split."""
        protocol, transport = self.connect()
        for byte in self.reply({"ok": 1.0, "isWritablePrimary": True}):
            self.assertNoResult(protocol.answered)
            protocol.dataReceived(bytes([byte]))
        self.assertEqual(self.successResultOf(protocol.answered), {"ok": 1.0, "isWritablePrimary": True})
        self.assertTrue(transport.disconnecting)

    def test_garbage(self) -> None:
        """A reply that is no BSON, one without end and a closed connection are failures."""
        protocol, _ = self.connect()
        protocol.dataReceived(struct.pack("<iiii", 30, 1, 1, 2013) + b"x" * 14)
        self.failureResultOf(protocol.answered)
        protocol, transport = self.connect()
        protocol.dataReceived(b"\x7f" * 2_000_000)
        self.assertTrue(transport.disconnecting)
        protocol.connectionLost(Failure(ConnectionDone()))
        self.failureResultOf(protocol.answered, ConnectionDone)

    def ask(self, document: dict[str, Any]) -> Deferred[None]:
        """Return what `ask_hello` makes of this reply."""
        reactor = MemoryReactorClock()
        asked = Deferred.fromCoroutine(ask_hello(reactor, 5000))
        host, port, factory, *_ = reactor.tcpClients[0]
        self.assertEqual((host, port), ("127.0.0.1", 5000))
        protocol: Any = factory.buildProtocol(mock.Mock())
        protocol.makeConnection(StringTransport())
        protocol.dataReceived(self.reply(document))
        return asked

    def test_ask(self) -> None:
        """A server that can be written to is ready; one that cannot is not."""
        self.successResultOf(self.ask({"ok": 1, "isWritablePrimary": True}))
        self.failureResultOf(self.ask({"ok": 1, "isWritablePrimary": False}), ConnectionError)
        self.failureResultOf(self.ask({"ok": 0}), ConnectionError)

    def test_silence(self) -> None:
        """A server that accepts and says nothing is given up after two seconds."""
        reactor = MemoryReactorClock()
        asked = Deferred.fromCoroutine(ask_hello(reactor, 5000))
        protocol: Any = reactor.tcpClients[0][2].buildProtocol(mock.Mock())
        protocol.makeConnection(StringTransport())
        reactor.advance(2.1)
        self.failureResultOf(asked)


class LaunchTests(SynchronousTestCase):
    """`fr_twisted.ops.launch`."""

    def run_launcher(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run it to its end."""
        line = [sys.executable, "-I", "-S", launch.__file__, *arguments]
        return subprocess.run(line, capture_output=True, text=True, timeout=30, check=False)

    def test_becomesTheCommand(self) -> None:
        """It becomes the command, in a session of its own."""
        script = "import os; print(os.getsid(0) == os.getpid())"
        done = self.run_launcher("15", str(os.getpid()), sys.executable, "-c", script)
        self.assertEqual((done.stdout, done.returncode), ("True\n", 0), done.stderr)

    def test_parentIsGone(self) -> None:
        """When its parent is another than the one that asked for it, it runs nothing."""
        done = self.run_launcher("15", "1", sys.executable, "-c", "print('ran')")
        self.assertEqual((done.stdout, done.returncode), ("", 1))

    def test_main(self) -> None:
        """The signal is set before the parent is looked at."""
        with mock.patch("os.execv") as execv, mock.patch("os.setsid"), mock.patch("ctypes.CDLL") as library:
            launch.main(["9", str(os.getppid()), "/bin/true", "x"])
        library.return_value.prctl.assert_called_once_with(launch.PR_SET_PDEATHSIG, 9, 0, 0, 0)
        execv.assert_called_once_with("/bin/true", ["/bin/true", "x"])


class TapTests(SynchronousTestCase):
    """`fr_twisted.store.tap`."""

    def test_unit(self) -> None:
        """The unit is a root service with the server in it."""
        from fr_twisted.store import tap

        options = tap.Options({}, Path("/nonexistent"))
        options.parseOptions(["--port", "0"])
        unit: Any = tap.makeService(options)
        self.assertEqual([type(child) for child in unit], [EmbeddedStoreService])
