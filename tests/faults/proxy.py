"""The harness's network: proxies on loopback between the units.

They run in one asyncio loop in a thread of its own; the methods of `Network` and `Wire` may be called from any thread.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from tests.faults.wire import Sighting, Wire

T = TypeVar("T")


class Network:
    """The loop, its thread, and all wires."""

    def __init__(self) -> None:
        self.wires: dict[str, Wire] = {}
        self.sightings: list[Sighting] = []
        self._numbers = 0
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda _loop, _context: None)
        self._thread = threading.Thread(target=self._loop.run_forever, name="network", daemon=True)
        self._thread.start()

    def next_number(self) -> int:
        """Return a number for a connection."""
        self._numbers += 1
        return self._numbers

    def call(self, function: Callable[..., Any], *args: Any) -> None:
        """Call it in the loop, and wait until it was."""

        async def run() -> None:
            function(*args)

        self.run(run())

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run it in the loop, and return its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    def add(self, name: str, kind: str, target: int) -> Wire:
        """Make a wire to the port ``target``; ``kind`` is link or store."""

        async def make() -> Wire:
            wire = Wire(self, name, kind, target)
            await wire.open()
            return wire

        self.wires[name] = self.run(make())
        return self.wires[name]

    def close(self) -> None:
        """End it, once."""
        if self._loop.is_closed():
            return

        async def close_all() -> None:
            for wire in self.wires.values():
                await wire.close()
            await asyncio.sleep(0.05)
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await asyncio.sleep(0.05)  # for the sockets that were aborted to be closed

        self.run(close_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()
