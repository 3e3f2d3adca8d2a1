"""What all injectors have: the world, the timeline, and traps that are waited for."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from tests.faults.frames import Frame
from tests.faults.proxy import Trap, Wire
from tests.faults.timeline import Timeline
from tests.faults.units import Unit
from tests.faults.world import World

MOMENT_SECONDS = 14.0
"""How long the moment that a fault is meant for is waited for."""


class Faults:
    """The base of the injectors."""

    def __init__(self, world: World, timeline: Timeline) -> None:
        self.world, self.timeline = world, timeline

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
    def trapped(
        self, wires: Iterable[Wire], direction: str, matches: Callable[[Frame], bool], hold: str = "frame"
    ) -> Iterator[bool]:
        """Wait until a frame is held on one of the wires, and keep it held within the block; yields whether one is."""
        armed = list(wires)
        trap = Trap(direction, matches, hold)
        for wire in armed:
            wire.arm(trap)
        try:
            yield trap.wait(MOMENT_SECONDS)
        finally:
            for wire in armed:
                wire.disarm(trap)


def command(name: str, collection: str, done: bool | None = None) -> Callable[[Frame], bool]:
    """Return what matches a command to the store."""

    def matches(frame: Frame) -> bool:
        right = frame.verb == name and frame.fields.get("collection") == collection
        return right and (done is None or frame.fields.get("done") is done)

    return matches


def verb(name: str) -> Callable[[Frame], bool]:
    """Return what matches a frame of the link."""
    return lambda frame: frame.verb == name
