"""How each kind of fault is injected and undone: one method a kind, in several mixins."""

import time
from collections.abc import Callable

from tests.faults.inject_network import NetworkFaults
from tests.faults.inject_signals import SignalFaults
from tests.faults.inject_store import StoreFaults
from tests.faults.kinds import KINDS
from tests.faults.load import Load
from tests.faults.plan import PlannedFault
from tests.faults.timeline import Done, Timeline
from tests.faults.world import World


class Injector(StoreFaults, SignalFaults, NetworkFaults):
    """Does the faults of one round."""

    def __init__(self, world: World, load: Load, timeline: Timeline) -> None:
        super().__init__(world, timeline)
        self.load = load

    def bait(self) -> None:
        """Send a scan from every node."""
        self.load.bait()

    def inject(self, fault: PlannedFault, began: float) -> None:
        """Do one fault at its time; never raises."""
        time.sleep(max(0.0, began + fault.at - time.monotonic()))
        done = Done(fault.kind, fault.target, time.time())
        self.timeline.note("harness", "fault", f"{fault.kind} on {fault.target} {fault.params}")
        try:
            result = self._method(fault.kind)(fault)
            done.hit = result is True
            done.skipped = result if isinstance(result, str) else ""
        except Exception as error:
            self.timeline.problem(
                "harness", f"{fault.kind} on {fault.target}: {type(error).__name__}: {error}"
            )
        done.ended = time.time()
        what = "over" if done.hit else done.skipped or "missed: its moment did not come"
        self.timeline.note("harness", "fault.over", f"{fault.kind} on {fault.target}: {what}")
        with self.timeline.lock:
            self.timeline.faults.append(done)

    def _method(self, kind: str) -> "Callable[[PlannedFault], bool | str]":
        assert kind in KINDS
        method: Callable[[PlannedFault], bool | str] = getattr(self, f"do_{kind.replace('-', '_')}")
        return method

    def do_brain_term(self, fault: PlannedFault) -> bool | str:
        """Under load; where nothing may be counted for it, in the middle of an analysis, which takes milliseconds."""
        if not self.load.plan.in_order or self.world.options.full:
            return self._term(fault)
        with self.at_work(fault.target) as pid:
            return bool(pid) and self._term(fault)

    # -- input

    def do_scan_crashes(self, fault: PlannedFault) -> bool | str:
        """A scan that crashes its worker."""
        return self._poison(fault, "crash")

    def do_scan_hangs(self, fault: PlannedFault) -> bool | str:
        """A scan that never ends."""
        return self._poison(fault, "hang")

    def do_scan_eats_memory(self, fault: PlannedFault) -> bool | str:
        """A scan that takes all memory."""
        return self._poison(fault, "hungry")

    def _poison(self, fault: PlannedFault, kind: str) -> bool | str:
        if self.world.options.full:
            return "only the stand-in analysis misbehaves on demand"
        self.load.poison(fault.target, kind)
        return True

    def do_scan_two_nodes(self, _: PlannedFault) -> bool:
        """The same scan by two nodes."""
        self.load.two_nodes()
        return True

    def do_scan_abandoned(self, fault: PlannedFault) -> bool:
        """An upload that is left half-way."""
        return self.load.abandoned(fault.params["back"])

    def do_scan_other_bytes(self, _: PlannedFault) -> bool:
        """The same id with other bytes."""
        return self.load.other_bytes()
