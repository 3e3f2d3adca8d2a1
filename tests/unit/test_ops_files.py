"""`fr_twisted.ops.files`: no more connections than there may be open files."""

import resource

from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.ops.files import SPARE, connections_allowed


class ConnectionsAllowedTests(SynchronousTestCase):
    """`connections_allowed`."""

    def limits(self, soft: int, hard: int) -> list[tuple[int, int]]:
        """Let the system have these limits; return those that are set."""
        made: list[tuple[int, int]] = []
        self.patch(resource, "getrlimit", lambda _: (soft, hard))
        self.patch(resource, "setrlimit", lambda _, limits: made.append(limits))
        return made

    def test_enough(self) -> None:
        """A limit that is high enough is left alone."""
        made = self.limits(20_000, 20_000)
        self.assertEqual((connections_allowed(1024), made), (1024, []))

    def test_raised(self) -> None:
        """A soft limit is raised to what is needed, as a shell's usual 1024 is."""
        made = self.limits(1024, 4096)
        self.assertEqual((connections_allowed(1024), made), (1024, [(1024 + SPARE, 4096)]))

    def test_notEnough(self) -> None:
        """Where the hard limit is too low, so many fewer connections are taken."""
        made = self.limits(512, 1024)
        self.assertEqual((connections_allowed(1024), made), (1024 - SPARE, [(1024, 1024)]))

    def test_noLimit(self) -> None:
        """Without a limit nothing is changed."""
        made = self.limits(resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        self.assertEqual((connections_allowed(5000), made), (5000, []))
