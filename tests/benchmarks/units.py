"""A HUB with an embedded store, as real twistd processes, for measurements of load."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.house import Unit, free_port


@dataclass
class HubAndStore:
    """Two units that run."""

    hub: Unit
    store: Unit
    port: int
    uri: str
    folder: Path

    @property
    def pid(self) -> int:
        """The HUB's process."""
        assert self.hub.process is not None
        return self.hub.process.pid


@contextmanager
def hub_and_store(**settings: object) -> Iterator[HubAndStore]:
    """Start both, yield them, and end them."""
    with tempfile.TemporaryDirectory() as name:
        folder, store_port, port = Path(name), free_port(), free_port()
        uri = f"mongodb://127.0.0.1:{store_port}/fr"
        store = Unit(folder, "store", FR_STORE_PORT=store_port)
        given = {
            "FR_MONGO_URI": uri,
            "FR_HUB_LISTEN": f"tcp:{port}:interface=127.0.0.1",
            "FR_HUB_NODES": "a=tcp:127.0.0.1:1",
        }
        hub = Unit(folder, "hub", **(given | settings))
        try:
            store.start()
            hub.start()
            yield HubAndStore(hub, store, port, uri, folder)
        finally:
            for unit in (hub, store):
                if unit.process is not None:
                    unit.stop()
