"""Scans that a BRAIN passes over for a while."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.brain.put_off import MOST, PATIENCE, PutOff
from fr_twisted.store.candidates import LIMIT


class PutOffTests(SynchronousTestCase):
    """`PutOff`."""

    def setUp(self) -> None:
        """Put off by 1, 2, 4 ... 30 s."""
        self.clock = Clock()
        self.put_off = PutOff(self.clock, lambda failures: min(30.0, 0.5 * 2.0**failures))

    def choices(self, in_trouble: bool = False) -> list[set[str]]:
        """Return what is passed over in one claim after the other, when none finds a scan."""
        return [set(choice) for choice in self.put_off.choices(in_trouble)]

    def test_none(self) -> None:
        """Where nothing is put off, one claim finds what is due."""
        self.assertEqual(self.choices(), [set()])
        self.assertEqual(self.choices(in_trouble=True), [set()])

    def test_othersFirst(self) -> None:
        """While others wait a scan is passed over ten times as long as when it is alone, and longer each time."""
        for pause in (1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0):
            self.put_off.failed("a")
            self.clock.advance(pause - 0.1)
            self.assertEqual(self.choices()[::2], [{"a"}, {"a"}])
            self.clock.advance(0.2)
            self.assertEqual(self.choices()[::2], [{"a"}, set()])
            self.clock.advance((PATIENCE - 1) * pause)
            self.assertEqual(self.choices()[0], set())

    def test_afterFailure(self) -> None:
        """After a failure any other scan comes first, however long ago the ones before it were tried."""
        self.put_off.failed("a")
        self.clock.advance(1000.0)
        self.put_off.failed("b")
        self.assertEqual(self.choices(in_trouble=True)[0], {"a", "b"})
        self.assertEqual(self.choices()[0], {"b"})

    def test_inTurn(self) -> None:
        """Those that alone are left are tried one after the other, not the first of them each time."""
        tried = []
        self.put_off.failed("a")
        self.put_off.failed("b")
        for _ in range(6):
            self.clock.advance(40.0)
            due = next(
                scan_id
                for choice in self.put_off.choices(in_trouble=True)
                for scan_id in ("a", "b")
                if scan_id not in choice
            )
            tried.append(due)
            self.put_off.failed(due)
        self.assertEqual(sorted(tried), ["a"] * 3 + ["b"] * 3)
        self.assertNotIn("aa", "".join(tried))
        self.assertNotIn("bb", "".join(tried))

    def test_over(self) -> None:
        """One that was done, or whose own fault it was, is put off no more, and begins anew."""
        for _ in range(9):
            self.put_off.failed("a")
        self.put_off.over("a")
        self.put_off.over("b")
        self.assertEqual(self.choices(), [set()])
        self.put_off.failed("a")
        self.clock.advance(1.1)
        self.assertEqual(self.choices()[2], set())

    def test_bound(self) -> None:
        """So many are put off at most, the last ones: fewer than a list of candidates holds."""
        for n in range(MOST + 3):
            self.put_off.failed(f"s{n}")
        self.assertEqual(self.choices(in_trouble=True)[0], {f"s{n}" for n in range(3, MOST + 3)})
        self.assertLess(MOST, LIMIT)
