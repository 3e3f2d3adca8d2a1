"""Faults of the network, done by the proxies."""

import time
from collections.abc import Callable

from tests.faults.inject_base import Faults
from tests.faults.plan import PlannedFault
from tests.faults.wire import Wire

_STRANGERS = {
    "up": b"HTTP/1.1 400 Bad Request\r\nServer: nginx\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "down": b"SSH-2.0-OpenSSH_9.6\r\n",
}

MEGABIT = 1_000_000


class NetworkFaults(Faults):
    """What can happen to a wire."""

    def _for_a_while(self, fault: PlannedFault, begin: Callable[[Wire], None], lost: bool = False) -> bool:
        wire = self.world.network.wires[fault.target]
        begin(wire)
        time.sleep(fault.params["seconds"])
        wire.heal(lost)
        return True

    def do_net_cut(self, fault: PlannedFault) -> bool:
        """Reset everything."""
        return self._for_a_while(fault, lambda wire: wire.cut())

    def do_net_half_open(self, fault: PlannedFault) -> bool:
        """One direction is dead."""
        begin: Callable[[Wire], None] = lambda wire: wire.block(fault.params["direction"])  # noqa: E731
        return self._for_a_while(fault, begin, fault.params["lost"])

    def do_net_delay(self, fault: PlannedFault) -> bool:
        """Everything is late."""
        return self._for_a_while(fault, lambda wire: wire.delay(0.05, 0.25))

    def do_net_slow(self, fault: PlannedFault) -> bool:
        """1 Mbit/s."""
        return self._for_a_while(fault, lambda wire: wire.slow(MEGABIT))

    def do_net_silent(self, fault: PlannedFault) -> bool:
        """Accepts, and says nothing."""
        return self._for_a_while(fault, lambda wire: wire.silence())

    def do_net_stranger(self, fault: PlannedFault) -> bool:
        """Another protocol."""
        greeting = _STRANGERS[fault.params["direction"]]
        return self._for_a_while(fault, lambda wire: wire.impersonate(greeting))

    def do_net_reset(self, fault: PlannedFault) -> bool:
        """In the middle of a frame."""
        wire = self.world.network.wires[fault.target]
        torn = wire.tear(fault.params["direction"])
        hit = torn.wait(self.moment_seconds)
        wire.heal()
        return hit
