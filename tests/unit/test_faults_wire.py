"""The proxies of the fault rounds, between sockets of the test's own."""

import socket
import threading
import time
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from tests.faults.proxy import Network
from tests.faults.wire import DOWN, UP, Trap, Wire

HELLO = b'HELLO {"proto":"fr-link/1","node":"a"}\n'
DATA = b'DATA {"id":"x","offset":0,"size":40}\n'


class WireTests(SynchronousTestCase):
    """`Wire`, with a listener that answers nothing by itself."""

    def setUp(self) -> None:
        """Listen, and put a wire before it."""
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(5)
        self.addCleanup(self.listener.close)
        self.network = Network()
        self.addCleanup(self.network.close)
        self.wire: Wire = self.network.add("pacs-1>hub-1", "link", self.listener.getsockname()[1])

    def dial(self) -> socket.socket:
        """Return a connection to the wire."""
        dialled = socket.create_connection(("127.0.0.1", self.wire.port), 5)
        self.addCleanup(dialled.close)
        return dialled

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """Return both ends of a connection through the wire."""
        dialled = self.dial()
        accepted, _ = self.listener.accept()
        accepted.settimeout(5)
        self.addCleanup(accepted.close)
        return dialled, accepted

    def nothing_comes(self, end: socket.socket, seconds: float = 0.15) -> bool:
        """Return whether nothing is to be read for a while."""
        end.settimeout(seconds)
        try:
            end.recv(1)
        except TimeoutError:
            return True
        finally:
            end.settimeout(5)
        return False

    def assertReset(self, end: socket.socket) -> None:
        """Assert that the connection was reset, not ended in order."""
        self.assertRaises(ConnectionResetError, end.recv, 100)

    def test_passes(self) -> None:
        """What is said on one side is heard on the other, an end as well; and it was seen."""
        dialled, accepted = self.pair()
        dialled.sendall(HELLO)
        self.assertEqual(accepted.recv(100), HELLO)
        accepted.sendall(HELLO)
        self.assertEqual(dialled.recv(100), HELLO)
        dialled.close()
        self.assertEqual(accepted.recv(100), b"")
        self.assertEqual(
            [(s.direction, s.verb) for s in self.network.sightings], [(UP, "HELLO"), (DOWN, "HELLO")]
        )

    def test_cut(self) -> None:
        """A cut resets what is there and what comes, until it is healed."""
        dialled, accepted = self.pair()
        self.wire.cut()
        self.assertReset(dialled)
        self.assertReset(accepted)
        self.assertRaises(ConnectionResetError, lambda: self.dial().recv(100))
        self.assertFalse(self.wire.at_ease)
        self.wire.heal()
        self.assertTrue(self.wire.at_ease)
        dialled, accepted = self.pair()
        dialled.sendall(HELLO)
        self.assertEqual(accepted.recv(100), HELLO)

    def test_halfOpen(self) -> None:
        """One direction is dead and the other lives; what was held back comes when it is healed."""
        dialled, accepted = self.pair()
        self.wire.block(UP)
        dialled.sendall(HELLO)
        accepted.sendall(HELLO)
        self.assertEqual(dialled.recv(100), HELLO)
        self.assertTrue(self.nothing_comes(accepted))
        self.wire.heal()
        self.assertEqual(accepted.recv(100), HELLO)

    def test_halfOpenAndLost(self) -> None:
        """Where what was held back is lost, the connection ends with it."""
        dialled, accepted = self.pair()
        self.wire.block(UP)
        dialled.sendall(HELLO)
        self.wire.heal(lost=True)
        self.assertReset(accepted)

    def test_silent(self) -> None:
        """A peer that accepts and says nothing."""
        self.wire.silence()
        dialled = self.dial()
        dialled.sendall(HELLO)
        self.assertTrue(self.nothing_comes(dialled))

    def test_stranger(self) -> None:
        """A port with another protocol."""
        self.wire.impersonate(b"SSH-2.0-x\r\n")
        self.assertEqual(self.dial().recv(100), b"SSH-2.0-x\r\n")

    def test_tear(self) -> None:
        """A connection is reset in the middle of a frame."""
        dialled, accepted = self.pair()
        torn = self.wire.tear(UP)
        dialled.sendall(HELLO)
        self.assertTrue(torn.wait(5))
        heard = b""
        try:
            while data := accepted.recv(100):
                heard += data
        except ConnectionResetError:
            pass
        else:
            self.fail("it ended in order")
        self.assertIn(heard, (HELLO[: len(HELLO) // 2], b""))  # a reset may overtake what came before it

    def test_slow(self) -> None:
        """A limited wire takes its time."""
        dialled, accepted = self.pair()
        self.wire.slow(80_000)
        began = time.monotonic()
        dialled.sendall(b"PING {}" + b" " * 2992 + b"\n")
        heard = 0
        while heard < 3000:
            heard += len(accepted.recv(4096))
        self.assertGreater(time.monotonic() - began, 0.25)

    def trap(self, hold: str, verb: str, direction: str = UP) -> Trap:
        """Set a trap."""
        return self.wire.arm(Trap(direction, lambda frame: frame.verb == verb, hold))

    def test_trap(self) -> None:
        """A frame is held back when it comes, and goes on when the trap is taken away; others pass before it."""
        dialled, accepted = self.pair()
        trap = self.trap("frame", "ACK", DOWN)
        accepted.sendall(HELLO + b'ACK {"id":"x"}\n' + b"PING {}\n")
        self.assertTrue(trap.wait(5))
        self.assertEqual(dialled.recv(100), HELLO)
        self.assertTrue(self.nothing_comes(dialled))
        self.assertEqual(self.network.sightings[-1].verb, "ACK")
        self.wire.disarm(trap)
        self.assertEqual(
            self.until(dialled, lambda heard: heard.endswith(b"PING {}\n")), b'ACK {"id":"x"}\nPING {}\n'
        )

    def test_trapDrops(self) -> None:
        """What a trap holds never arrives when it is to be lost, and the connection ends with it."""
        dialled, accepted = self.pair()
        trap = self.trap("frame", "OFFER")
        dialled.sendall(HELLO + b'OFFER {"id":"x"}\n')
        self.assertTrue(trap.wait(5))
        self.assertEqual(accepted.recv(100), HELLO)
        dialled.close()
        self.wire.disarm(trap, drop=True)
        self.assertReset(accepted)

    def test_trapHalf(self) -> None:
        """A chunk is held back when half of it has passed."""
        dialled, accepted = self.pair()
        trap = self.trap("half", "DATA")
        dialled.sendall(DATA + bytes(40))
        self.assertTrue(trap.wait(5))
        self.assertEqual(self.until(accepted, lambda heard: len(heard) >= len(DATA) + 20), DATA + bytes(20))
        self.assertTrue(self.nothing_comes(accepted))

    def test_trapOutlivesConnection(self) -> None:
        """A connection that ends between the frame and the rest of its moment leaves the trap set for another."""
        dialled, accepted = self.pair()
        trap = self.trap("half", "DATA")
        dialled.sendall(DATA)
        self.until(accepted, lambda heard: heard == DATA)
        dialled.close()
        self.assertEqual(accepted.recv(100), b"")
        accepted.close()
        self.assertFalse(trap.wait(0.1))
        dialled, accepted = self.pair()
        dialled.sendall(DATA + bytes(40))
        self.assertTrue(trap.wait(5))

    def until(self, end: socket.socket, enough: Callable[[bytes], bool]) -> bytes:
        """Return what is read until it is enough."""
        heard = b""
        while not enough(heard):
            data = end.recv(4096)
            self.assertTrue(data, heard)
            heard += data
        return heard

    def test_nothingIsLeft(self) -> None:
        """Closed, the network has no thread; closing it again does no harm."""
        self.pair()
        self.network.close()
        self.assertNotIn("network", [thread.name for thread in threading.enumerate()])
        self.network.close()
