"""SIGKILL, SIGTERM and SIGSTOP, at any moment and at the moments that matter."""

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress

from tests.faults.frames import Frame
from tests.faults.inject_base import Faults, command, verb
from tests.faults.plan import PlannedFault
from tests.faults.units import STOP_TIMEOUT, Unit
from tests.faults.wire import DOWN, UP, Wire

_CHUNK = "brain_chunks"
_LATE = 1.5
"""Seconds beyond FR_STOP_TIMEOUT for the start and the end of an interpreter."""


class SignalFaults(Faults):
    """Kills, stops and freezes."""

    def _kill_any(self, fault: PlannedFault) -> bool:
        return self.kill(self.unit(fault.target), fault.params["down"])

    do_hub_kill = do_brain_kill = do_pacs_kill = _kill_any

    def _kill_at(
        self,
        fault: PlannedFault,
        wires: list[Wire],
        direction: str,
        matches: Callable[[Frame], bool],
        hold: str = "frame",
    ) -> bool:
        """Kill the target while a frame is held back."""
        with self.trapped(wires, direction, matches, hold, drop=True) as held:
            return held and self.kill(self.unit(fault.target), fault.params["down"])

    def _links_to(self, name: str, first: str) -> list[Wire]:
        """Return the wires by which units of a kind dial this one."""
        return [
            wire
            for wire in self.world.wires_of(name)
            if wire.name.endswith(f">{name}") and wire.name.startswith(first)
        ]

    def _to_store(self, name: str) -> list[Wire]:
        return [self.world.wire(name, "store")]

    # -- HUB

    def do_hub_kill_mid_chunk(self, fault: PlannedFault) -> bool:
        """Half of a chunk has arrived."""
        return self._kill_at(fault, self._links_to(fault.target, "pacs"), UP, verb("DATA"), "half")

    def do_hub_kill_before_commit(self, fault: PlannedFault) -> bool:
        """The commit is held back."""
        return self._kill_at(fault, self._to_store(fault.target), UP, command("insert", "brain_scans"))

    def do_hub_kill_before_ack(self, fault: PlannedFault) -> bool:
        """The answer to the commit is held back."""
        wires = self._to_store(fault.target)
        return self._kill_at(fault, wires, UP, command("insert", "brain_scans"), "answer")

    # -- BRAIN

    def do_brain_kill_fetching(self, fault: PlannedFault) -> bool:
        """The answer with the scan's bytes is held back."""
        return self._kill_at(fault, self._to_store(fault.target), UP, command("find", _CHUNK), "answer")

    def do_brain_kill_before_done(self, fault: PlannedFault) -> bool:
        """The update to Done is held back."""
        wires = self._to_store(fault.target)
        return self._kill_at(fault, wires, UP, command("update", "brain_scans", True))

    def do_brain_kill_after_done(self, fault: PlannedFault) -> bool:
        """The answer to the update to Done is held back."""
        wires = self._to_store(fault.target)
        return self._kill_at(fault, wires, UP, command("update", "brain_scans", True), "answer")

    def do_brain_kill_analysing(self, fault: PlannedFault) -> bool:
        """A worker is at its analysis."""
        if self.world.options.full:
            return self._kill_when_claimed(fault)
        with self.at_work(fault.target) as pid:
            return bool(pid) and self.kill(self.unit(fault.target), fault.params["down"])

    def _kill_when_claimed(self, fault: PlannedFault) -> bool:
        """With an analysis of seconds: once it fetched a scan, it is at it."""
        unit = self.unit(fault.target)
        if not self._wait_fetched(unit):
            return False
        return self.kill(unit, fault.params["down"])

    def _wait_fetched(self, unit: Unit) -> bool:
        seen = unit.log.stat().st_size
        end = time.monotonic() + self.moment_seconds
        while time.monotonic() < end:
            with unit.log.open("rb") as log:
                log.seek(seen)
                if b'"scan.fetched"' in log.read():
                    time.sleep(0.5)
                    return True
            time.sleep(0.1)
        return False

    def do_worker_kill(self, fault: PlannedFault) -> bool | str:
        """The worker itself."""
        if self.world.options.full:
            return "only the stand-in analysis tells its worker"
        with self.at_work(fault.target) as pid:
            if not pid:
                return False
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                self.note("SIGKILL", f"worker {pid} of {fault.target}")
                return True
        return False

    # -- PACS

    def do_pacs_kill_sending(self, fault: PlannedFault) -> bool:
        """Half of a chunk was sent."""
        wire = self.world.wire(fault.target, self.world.layout.hub_of(fault.target))
        return self._kill_at(fault, [wire], UP, verb("DATA"), "half")

    def do_pacs_kill_before_ack(self, fault: PlannedFault) -> bool:
        """Its ACK of a report is held back."""
        return self._kill_at(fault, self._links_to(fault.target, "hub"), DOWN, verb("ACK"))

    # -- the store, and several

    def do_store_kill(self, _: PlannedFault) -> bool | str:
        """The server's process."""
        if "store" not in self.world.units:
            return "the store is not ours"
        with self.unit("store").lock:
            pid = self.unit("store").server()
            if not pid:
                return False
            os.kill(pid, signal.SIGKILL)
            self.note("SIGKILL", f"server {pid}")
        return True

    def do_store_unit_kill(self, fault: PlannedFault) -> bool | str:
        """Fr-STORE."""
        if "store" not in self.world.units:
            return "the store is not ours"
        return self.kill(self.unit("store"), fault.params["down"])

    def do_several_kill(self, fault: PlannedFault) -> bool:
        """Several units at once."""
        names = [name for name in fault.params["units"] if name in self.world.units]
        with ExitStack() as locks:
            for name in names:
                locks.enter_context(self.unit(name).lock)
            hit = [name for name in names if self.unit(name).kill()]
            self.note("SIGKILL", ", ".join(hit))
            time.sleep(fault.params["down"])
            for name in hit:
                self.unit(name).start()
        self.note("start", ", ".join(hit))
        return bool(hit)

    def do_restart_storm(self, fault: PlannedFault) -> bool:
        """One unit, killed again before it is up."""
        unit, draw = self.unit(fault.target), random.Random(fault.number)
        with unit.lock:
            hits = 0
            for _ in range(4):
                hits += self.kill(unit, 0.0)
                time.sleep(draw.uniform(0.1, 0.7))
        return hits > 0

    # -- SIGTERM

    def _term(self, fault: PlannedFault) -> bool | str:
        """End a unit in order and look at how it went."""
        if fault.target not in self.world.units:
            return "the store is not ours"
        unit = self.unit(fault.target)
        with unit.lock:
            if not self._becomes_ready(unit):
                return False
            began = time.time()
            open_before = self._greeted(fault.target)
            seconds, code = unit.terminate()
            self.note("SIGTERM", f"{unit.name}: status {code} after {seconds:.2f} s")
            if code is None or seconds > STOP_TIMEOUT + _LATE:
                self.timeline.problem(unit.name, f"SIGTERM: status {code} after {seconds:.1f} s")
            self._check_goodbyes(fault.target, open_before, began)
            self._check_given_back(unit, began)
            self.start_again(unit, fault.params["down"])
        return True

    def do_hub_term_delivering(self, fault: PlannedFault) -> bool | str:
        """Half of a report was sent."""
        wires = [w for w in self.world.wires_of(fault.target) if w.name.startswith(f"{fault.target}>pacs")]
        with self.trapped(wires, UP, verb("DATA"), "half") as held:
            return held and self._term(fault)

    do_hub_term = do_pacs_term = do_store_term = _term

    def _becomes_ready(self, unit: Unit) -> bool:
        end = time.monotonic() + self.moment_seconds
        while not unit.is_ready():
            if time.monotonic() > end:
                return False
            time.sleep(0.1)
        return True

    def _greeted(self, name: str) -> list[tuple[Wire, int]]:
        """Return the connections of a unit whose wires are at ease and on which both have said HELLO.

        Those of its present life: a peer that is frozen keeps the ones of the lives before open.
        """
        hellos: dict[int, int] = {}
        since = self.unit(name).starts[-1]
        for sighting in self.world.network.sightings:
            if sighting.verb == "HELLO" and sighting.at > since:
                hellos[sighting.connection] = hellos.get(sighting.connection, 0) + 1
        found = []
        for wire in self.world.wires_of(name):
            if wire.kind == "link" and wire.at_ease:
                found += [
                    (wire, number)
                    for number, connection in list(wire.connections.items())
                    if hellos.get(number, 0) >= 2 and connection.free.is_set()
                ]
        return found

    def _check_goodbyes(self, name: str, connections: list[tuple[Wire, int]], began: float) -> None:
        """See that every peer of a healthy connection was told BYE."""
        time.sleep(0.2)
        told = {s.connection for s in self.world.network.sightings if s.verb == "BYE"}
        for wire, number in connections:
            other = next(end for end in wire.name.split(">") if end != name)
            peer_well = other == "raw" or (
                self.unit(other).is_ready() and self.unit(other).starts[-1] < began
            )
            if number not in told and wire.at_ease and wire.troubled_at < began - 2 and peer_well:
                self.timeline.problem(name, f"SIGTERM: no BYE on {wire.name}")

    def _check_given_back(self, unit: Unit, began: float) -> None:
        """See that a BRAIN or HUB that ended in order left no lease behind, where its store was well."""
        if unit.kind not in ("brain", "hub") or not self.store_well(unit.name, began - 6):
            return
        left = self.leases_of(unit.name)
        if left:
            self.timeline.problem(unit.name, f"SIGTERM: its leases were left: {', '.join(left)}")

    # -- SIGSTOP

    def _freeze(self, fault: PlannedFault) -> bool:
        with self.unit(fault.target).frozen() as frozen:
            self.note("SIGSTOP", fault.target)
            time.sleep(fault.params["seconds"] if frozen else 0)
        self.note("SIGCONT", fault.target)
        return frozen

    do_hub_freeze = do_pacs_freeze = _freeze

    def do_brain_freeze(self, fault: PlannedFault) -> bool:
        """While a worker is at its analysis, which then ends while the BRAIN is frozen."""
        if self.world.options.full:
            return self._wait_fetched(self.unit(fault.target)) and self._freeze(fault)
        with self.at_work(fault.target) as pid:
            if not pid:
                return False
            with self.unit(fault.target).frozen() as frozen:
                self.note("SIGSTOP", fault.target)
                (self.world.signals / f"hold.{fault.target}").unlink(missing_ok=True)
                time.sleep(fault.params["seconds"])
        self.note("SIGCONT", fault.target)
        return frozen

    def do_brain_freeze_before_done(self, fault: PlannedFault) -> bool:
        """The write with the old token arrives when another BRAIN has claimed the scan."""
        matches = command("update", "brain_scans", True)
        with (
            self.trapped(self._to_store(fault.target), UP, matches) as held,
            self.unit(fault.target).frozen() as frozen,
        ):
            if not held or not frozen:
                return False
            self.note("SIGSTOP", f"{fault.target}, its update to Done held back")
            time.sleep(fault.params["seconds"])
        self.note("SIGCONT", fault.target)
        return True

    def do_store_freeze(self, fault: PlannedFault) -> bool | str:
        """The server's process."""
        if "store" not in self.world.units:
            return "the store is not ours"
        unit = self.unit("store")
        with unit.lock:
            pid = unit.server()
            with unit.frozen(pid) as frozen:
                self.note("SIGSTOP", f"server {pid}")
                time.sleep(fault.params["seconds"] if pid and frozen else 0)
            self.note("SIGCONT", f"server {pid}")
        return bool(pid)
