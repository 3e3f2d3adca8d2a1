"""The notify protocol of systemd."""

import os
import socket
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.ops.notify import sd_notify, watchdog_interval


class NotifyTests(SynchronousTestCase):
    """`sd_notify`."""

    def listen(self, address: str) -> socket.socket:
        """Return a manager's socket, bound to ``address``."""
        manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(manager.close)
        manager.settimeout(2.0)
        manager.bind(address)
        return manager

    def test_path(self) -> None:
        """A state is sent as one datagram to a socket in the file system."""
        # Not mktemp: the path of such a socket is at most 107 bytes.
        folder = Path(tempfile.mkdtemp())
        self.addCleanup(folder.rmdir)
        path = folder / "n"
        self.addCleanup(path.unlink)
        manager = self.listen(str(path))
        self.assertTrue(sd_notify("READY=1\nSTATUS=x", {"NOTIFY_SOCKET": str(path)}))
        self.assertEqual(manager.recv(100), b"READY=1\nSTATUS=x")

    def test_abstract(self) -> None:
        """A leading '@' names an abstract socket."""
        name = f"fr-test-{os.getpid()}"
        manager = self.listen("\0" + name)
        self.assertTrue(sd_notify("STOPPING=1", {"NOTIFY_SOCKET": "@" + name}))
        self.assertEqual(manager.recv(100), b"STOPPING=1")

    def test_nobodyThere(self) -> None:
        """Without a manager, or with one that is gone, nothing happens."""
        self.assertFalse(sd_notify("READY=1", {}))
        self.assertFalse(sd_notify("READY=1", {"NOTIFY_SOCKET": "/nonexistent/socket"}))


class WatchdogTests(SynchronousTestCase):
    """`watchdog_interval`."""

    def test_interval(self) -> None:
        """Half of the limit, in seconds, if the watchdog is for this process."""
        self.assertEqual(watchdog_interval({"WATCHDOG_USEC": "3000000"}), 1.5)
        self.assertEqual(
            watchdog_interval({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}), 1.5
        )

    def test_none(self) -> None:
        """No limit, a limit of nothing, one for another process or nonsense: no watchdog."""
        for environ in (
            {},
            {"WATCHDOG_USEC": "0"},
            {"WATCHDOG_USEC": "x"},
            {"WATCHDOG_USEC": "5", "WATCHDOG_PID": "1"},
        ):
            self.assertIsNone(watchdog_interval(environ))
