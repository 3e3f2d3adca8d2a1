"""What all injectors have: the world, the timeline, and traps that are waited for."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from tests.daemons import runs
from tests.faults.frames import Frame
from tests.faults.timeline import Timeline
from tests.faults.units import Unit
from tests.faults.wire import Trap, Wire
from tests.faults.world import DELIVERY_LEASE, LEASE, World

MOMENT_SECONDS = 14.0
"""How long the moment that a fault is meant for is waited for; with the default analysis so many times longer:"""

PATIENCE_FULL = 3

BAIT_SECONDS = 3.5
"""After which a scan is sent for it."""


class Faults:
    """The base of the injectors."""

    def __init__(self, world: World, timeline: Timeline) -> None:
        self.world, self.timeline = world, timeline
        patience = PATIENCE_FULL if world.options.full else 1
        self.moment_seconds, self.bait_seconds = patience * MOMENT_SECONDS, patience * BAIT_SECONDS

    def bait(self) -> None:
        """Send a scan from every node: a moment is waited for that needs one."""
        raise NotImplementedError

    def unit(self, name: str) -> Unit:
        """Return a unit."""
        return self.world.units[name]

    def note(self, event: str, text: str) -> None:
        """Add a line to the timeline."""
        self.timeline.note("harness", event, text)

    def start_again(self, unit: Unit, down: float) -> None:
        """Start a unit that we ended, after a while."""
        time.sleep(down)
        unit.start()
        self.note("start", unit.name)

    def kill(self, unit: Unit, down: float) -> bool:
        """SIGKILL a unit, and start it again after a while."""
        with unit.lock:
            if not unit.kill():
                return False
            self.note("SIGKILL", unit.name)
            self.start_again(unit, down)
        return True

    @contextmanager
    def at_work(self, brain: str) -> Iterator[int]:
        """Hold a worker of a BRAIN at its analysis; yields its process id, or 0 when none came."""
        hold = self.world.signals / f"hold.{brain}"
        with self.world.one_at_a_time[hold.name]:
            hold.touch()
            try:
                end = time.monotonic() + self.moment_seconds
                bait_at, pid = time.monotonic() + self.bait_seconds, 0
                while not pid and time.monotonic() < end:
                    if time.monotonic() > bait_at:
                        self.bait()
                        bait_at += self.bait_seconds
                    found = [int(path.suffix[1:]) for path in self.world.signals.glob(f"running.{brain}.*")]
                    pid = next((number for number in found if runs(number)), 0)
                    time.sleep(0.02)
                yield pid
            finally:
                hold.unlink(missing_ok=True)
                for left in self.world.signals.glob(f"running.{brain}.*"):
                    if not runs(int(left.suffix[1:])):
                        left.unlink(missing_ok=True)

    def scan_at(self, pid: int) -> str:
        """Return the scan that a worker held by `at_work` is at."""
        found = list(self.world.signals.glob(f"running.*.{pid}"))
        return found[0].read_text() if found else ""

    @contextmanager
    def trapped(
        self,
        wires: Iterable[Wire],
        direction: str,
        matches: Callable[[Frame], bool],
        hold: str = "frame",
        drop: bool = False,
    ) -> Iterator[bool]:
        """Wait until a frame is held on one of the wires, and keep it held within the block; yields whether one is.

        With ``drop`` it is lost at the end of the block, as what a killed process had said last; else it goes on.
        """
        armed = list(wires)
        trap = Trap(direction, matches, hold)
        for wire in armed:
            wire.arm(trap)
        try:
            yield self._sprung(trap)
        finally:
            for wire in armed:
                wire.disarm(trap, drop)

    def _sprung(self, trap: Trap) -> bool:
        end = time.monotonic() + self.moment_seconds
        while not trap.wait(self.bait_seconds):
            if time.monotonic() > end:
                return False
            self.bait()
        return True

    # -- whether a check means anything now

    def store_well(self, unit: str, since: float) -> bool:
        """Return whether nothing was done to the store, or to a unit's way to it, since then."""
        wire = self.world.wire(unit, "store")
        if not wire.at_ease or wire.troubled_at > since or wire.traps:
            return False
        doings = ("store", "several-kill")
        lately = [
            e for e in list(self.timeline.entries) if e.at >= since and e.event in ("fault", "fault.over")
        ]
        return not any(entry.text.startswith(doings) for entry in lately) and not self._open_store_fault()

    def _open_store_fault(self) -> bool:
        begun = over = 0
        for entry in list(self.timeline.entries):
            if entry.text.startswith(("store", "several-kill")):
                begun += entry.event == "fault"
                over += entry.event == "fault.over"
        return begun > over

    def leases_of(self, unit: str) -> list[str]:
        """Return the scans that a BRAIN, or the unsent reports that a HUB holds by the store, in its present life.

        A lease of the life before, killed, was renewed for the last time before this one began.
        """
        scans = unit.startswith("brain")
        since = self.unit(unit).starts[-1] + (LEASE if scans else DELIVERY_LEASE)
        collection = "brain_scans" if scans else "brain_reports"
        query = {"report_generated": "In Progress"} if scans else {"status": False}
        try:
            with direct_client(self.world.direct_uri) as client:
                found = list(client.get_default_database()[collection].find(query, {"lease": 1}))
        except PyMongoError:
            return []
        leases = {held["_id"]: held["lease"] for held in found if held.get("lease")}
        return [
            held
            for held, lease in leases.items()
            if lease["owner"].startswith(f"{unit}.") and lease["expires_at"].timestamp() > since
        ]


def direct_client(uri: str) -> MongoClient[dict[str, Any]]:
    """Return a client of the harness's own, past every proxy."""
    return MongoClient(
        f"{uri}?directConnection=true",
        serverSelectionTimeoutMS=20_000,
        socketTimeoutMS=20_000,
        tz_aware=True,
    )


def command(name: str, collection: str, done: bool | None = None) -> Callable[[Frame], bool]:
    """Return what matches a command to the store."""

    def matches(frame: Frame) -> bool:
        right = frame.verb == name and frame.fields.get("collection") == collection
        return right and (done is None or frame.fields.get("done") is done)

    return matches


def verb(name: str) -> Callable[[Frame], bool]:
    """Return what matches a frame of the link."""
    return lambda frame: frame.verb == name
