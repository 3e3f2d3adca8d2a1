"""`fr_twisted.link.room` and `fr_twisted.link.door`: what one peer may take, and what is left for the others."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.link.door import LONGER_PATIENCE, PATIENCE, QUIET, Door
from fr_twisted.link.room import Permit, Room


class RoomTests(SynchronousTestCase):
    """`Room`."""

    def setUp(self) -> None:
        """Make room for 16 chunks: 8 for those who have shown nothing, 4 of them for one address."""
        self.room = Room(16)

    def ask(self, address: str, proven: bool, times: int = 1) -> "list[Deferred[Permit]]":
        """Ask for permits."""
        return [self.room.acquire(address, proven) for _ in range(times)]

    def granted(self, asked: "list[Deferred[Permit]]") -> list[Permit]:
        """Return those that were granted."""
        return [self.successResultOf(each) for each in asked if each.called]

    def test_provenMayHaveAll(self) -> None:
        """Connections that complete their chunks may use everything; the next waits for the first that is returned."""
        asked = self.ask("a", True, 17)
        permits = self.granted(asked)
        self.assertEqual((len(permits), self.room.tokens), (16, 0))
        self.room.release(permits[0])
        self.successResultOf(asked[16])

    def test_unprovenShareHalf(self) -> None:
        """However many show nothing, from however many addresses, half of the room is left for those who do send."""
        asked = [self.room.acquire(f"10.0.0.{n}", False) for n in range(1000)]
        self.assertEqual(len(self.granted(asked)), 8)
        self.assertEqual(len(self.granted(self.ask("honest", True, 8))), 8)

    def test_newcomer(self) -> None:
        """A newcomer from elsewhere need not wait for a thousand of one address."""
        self.assertEqual(len(self.granted(self.ask("hostile", False, 1000))), 4)
        self.assertEqual(len(self.granted(self.ask("new", False))), 1)

    def test_leastFirst(self) -> None:
        """When room is returned, the address that holds least comes first; those that hold as much take turns."""
        held = self.granted(self.ask("a", True, 16))
        order: list[str] = []
        for name in ("a", "a", "b", "c", "b"):
            self.room.acquire(name, True).addCallback(lambda permit: order.append(permit.address))
        for permit in held[:5]:
            self.room.release(permit)
        self.assertEqual(order, ["b", "c", "b", "a", "a"])

    def test_newcomersAmongMany(self) -> None:
        """However many proven connections wait all the time, a newcomer is not passed over."""
        held = self.granted(self.ask("a", True, 16))
        newcomers = self.ask("a", False, 4)
        for permit in held[:8]:
            self.ask("a", True)
            self.room.release(permit)
        self.assertEqual(len(self.granted(newcomers)), 4)

    def test_keptSlowly(self) -> None:
        """Newcomers whose chunks have come do not hold up other newcomers, however long the store takes."""
        asked = self.ask("a", False, 100)
        for n in range(12):
            self.room.prove(self.successResultOf(asked[n]))
        self.assertEqual([each.called for each in asked[:17]], [True] * 16 + [False])
        self.assertEqual(self.room.tokens, 0)

    def test_wanted(self) -> None:
        """Room is wanted when somebody waits who would get it."""
        mine, other = self.granted(self.ask("a", True)) + self.granted(self.ask("b", False))
        self.assertFalse(self.room.wanted(mine))
        first, *_ = self.granted(self.ask("hostile", False, 100))
        self.assertEqual([self.room.wanted(each) for each in (mine, other, first)], [False, False, True])
        for n in range(9):
            self.ask(f"10.0.0.{n}", False)
        self.assertEqual([self.room.wanted(each) for each in (mine, other)], [False, True])
        for _ in range(20):
            self.ask("c", True)
        self.assertTrue(self.room.wanted(mine))

    def test_waitNoMore(self) -> None:
        """Who went away while waiting gets nothing."""
        held = self.granted(self.ask("a", True, 16))
        gone, next_one = self.ask("a", True, 2)
        gone.addErrback(lambda _: None)
        gone.cancel()
        self.room.release(held[0])
        self.successResultOf(next_one)
        self.assertEqual(self.room.tokens, 0)

    def test_smallest(self) -> None:
        """Room for one chunk serves everyone, one after another."""
        room = Room(1)
        first, second = room.acquire("a", False), room.acquire("b", False)
        self.assertNoResult(second)
        room.release(self.successResultOf(first))
        self.successResultOf(second)


class Guest:
    """A connection."""

    def __init__(
        self, address: str, since: float = 0.0, said_hello: bool = False, sent: bool = False
    ) -> None:
        self.address, self.since, self.said_hello, self.sent = address, since, said_hello, sent
        self.dropped = False

    def greeted(self) -> bool:
        """Tell it."""
        return self.said_hello

    def proven(self) -> bool:
        """Tell it."""
        return self.sent

    def drop(self) -> None:
        """Note it."""
        self.dropped = True


class DoorTests(SynchronousTestCase):
    """`Door`."""

    def setUp(self) -> None:
        """Make a door for ten."""
        self.clock = Clock()
        self.door = Door(10, self.clock)

    def come(self, address: str, **facts: Any) -> tuple[Guest, str | None]:
        """Let one come."""
        guest = Guest(address, self.clock.seconds(), **facts)
        self.door.enter(guest)
        reason = self.door.refusal(guest)
        if reason is not None:
            self.door.leave(guest)
        return guest, reason

    def test_oneAddress(self) -> None:
        """One address gets half of the places, and another the rest."""
        reasons = [self.come("a", said_hello=True)[1] for _ in range(6)]
        self.assertEqual(reasons[:5], [None] * 5)
        self.assertIn("5 connections of this address", str(reasons[5]))
        self.assertEqual([self.come("b", said_hello=True)[1] for _ in range(5)], [None] * 5)
        self.assertIn("10 connections", str(self.come("c")[1]))

    def test_placeIsReturned(self) -> None:
        """Who left, even twice, leaves a place."""
        guests = [self.come("a", said_hello=True)[0] for _ in range(5)]
        self.door.leave(guests[0])
        self.door.leave(guests[0])
        self.assertIsNone(self.come("a")[1])
        self.assertIsNotNone(self.come("a")[1])

    def test_whoSaysNothingMakesWay(self) -> None:
        """When all places are taken, the oldest that has not said HELLO goes, but not one that came just now."""
        silent = [self.come(f"10.0.0.{n}")[0] for n in range(10)]
        self.assertIsNotNone(self.come("new")[1])
        self.clock.advance(PATIENCE)
        self.assertIsNone(self.come("new")[1])
        self.assertEqual([guest.dropped for guest in silent], [True] + [False] * 9)

    def test_whoSentNothingMakesWay(self) -> None:
        """Then one goes that said HELLO and sent nothing for a while: of the same address where that has too many."""
        other = self.come("b", said_hello=True)[0]
        idle = [self.come("a", said_hello=True)[0] for _ in range(5)]
        self.clock.advance(LONGER_PATIENCE - 0.1)
        self.assertIsNotNone(self.come("a")[1])
        self.clock.advance(0.1)
        self.assertIsNone(self.come("a")[1])
        self.assertEqual([guest.dropped for guest in (other, *idle)], [False, True] + [False] * 4)

    def test_whoSendsStays(self) -> None:
        """Who sent a chunk is never ended for another."""
        guests = [self.come(f"10.0.0.{n}", said_hello=True, sent=True)[0] for n in range(10)]
        self.clock.advance(3600)
        self.assertIsNotNone(self.come("new")[1])
        self.assertFalse(any(guest.dropped for guest in guests))

    def test_unknownAddress(self) -> None:
        """Connections without an address, as of a UNIX socket, are limited in all alone."""
        self.assertEqual([self.come("", said_hello=True)[1] for _ in range(10)], [None] * 10)

    def test_quiet(self) -> None:
        """A crowd that is turned away fills no log: one line at first, one with their number every ten seconds."""
        lines: list[int] = []
        self.patch(self.door, "_log", _Log(lines))
        for _ in range(8):
            self.come("a", said_hello=True, sent=True)
        self.clock.advance(QUIET)
        self.come("a")
        self.assertEqual(lines, [1, 3])


class _Log:
    """Notes the counts that are told."""

    def __init__(self, lines: list[int]) -> None:
        self._lines = lines

    def warn(self, text: str, *, count: int, **fields: object) -> None:
        """Note it."""
        self._lines.append(count)
