"""A whole house of Fr for many rounds: store, HUBs, BRAINs and nodes, with a proxy on every way between them."""

import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.periods import Periods
from tests.faults.plan import Layout
from tests.faults.proxy import Network
from tests.faults.standin import FOLDER
from tests.faults.units import STOP_TIMEOUT, Unit, free_ports
from tests.faults.wire import Wire

START_SECONDS = 90.0
GIVEN = "FR_TEST_MONGO_URI"
_SMALL_DISK = "1536m"

MONGO_TIMEOUT, LEASE, SILENCE, DELIVERY_LEASE = 3, 4, 5, 6
"""Seconds: the patience of units, so short that recovery takes seconds."""

SHORT_LIMIT, LONG_LIMIT = 2, 7
"""Seconds that an analysis may take: long on the BRAIN whose clock is moved, for a lease must be renewed meanwhile."""


@dataclass(frozen=True)
class Options:
    """How a world is built."""

    layout: Layout
    full: bool = False
    """The default analysis and its limits, not the stand-in."""
    small_disk: bool = False
    """The store's folder is a file system of its own that can be filled."""
    periods: Periods | None = None
    """None: Fr's own."""


class World:
    """Everything that runs. `start`, then rounds, then `stop`."""

    def __init__(self, folder: Path, options: Options) -> None:
        self.folder, self.options, self.layout = folder.absolute(), options, options.layout
        self.folder.mkdir(parents=True)
        # Not below the folder: sockets in it would have paths that are too long.
        self.temporary = Path(tempfile.mkdtemp(prefix="fr-faults-"))
        self.signals = self.folder / "signals"
        self.store_folder = self.folder / "store-data"
        for path in (self.signals, self.store_folder):
            path.mkdir()
        self.began = time.time()
        self.shared_before = set(os.listdir("/dev/shm"))
        self.given_uri = os.environ.get(GIVEN)
        self.network = Network()
        self.units: dict[str, Unit] = {}
        self.one_at_a_time: defaultdict[str, threading.RLock] = defaultdict(threading.RLock)
        """Locks for what two faults must not do at once."""
        self.full_at = 0.0
        """When the store's disk was last full."""
        self._mounted = False
        self._ports = self._give_ports()
        self.direct_uri = self._direct_uri()

    # -- building

    def _give_ports(self) -> dict[str, int]:
        names = ["store", *self.layout.names("hub"), *self.layout.names("pacs")]
        return dict(zip(names, free_ports(len(names)), strict=True))

    def _direct_uri(self) -> str:
        if self.given_uri is None:
            return f"mongodb://127.0.0.1:{self._ports['store']}/fr"
        base = self.given_uri.partition("?")[0].rstrip("/")
        host = base.rpartition("/")[2] if base.count("/") == 2 else base.split("/")[2]
        return f"mongodb://{host}/fr_faults_{os.getpid()}_{int(self.began)}"

    def _store_port(self) -> int:
        return int(self.direct_uri.split("/")[2].rpartition(":")[2])

    def build(self) -> None:
        """Make the wires and the units' settings."""
        for dialler, listener in self.layout.wires():
            kind = "store" if listener == "store" else "link"
            target = self._store_port() if kind == "store" else self._ports[listener]
            self.network.add(f"{dialler}>{listener}", kind, target)
        for hub in self.layout.names("hub"):
            self.network.add(f"raw>{hub}", "link", self._ports[hub])
        common = {"TMPDIR": str(self.temporary), "FR_STOP_TIMEOUT": str(STOP_TIMEOUT)}
        if self.given_uri is None:
            self._add("store", common | self._of_store())
        periods, path = self.options.periods, self._path()
        of_units = periods.environment() if periods else {}
        of_hubs = of_units | (periods.of_hub() if periods else {})
        for name in self.layout.names("hub"):
            self._add(name, common | self._of_hub(name) | of_hubs, path)
        for name in self.layout.names("brain"):
            self._add(name, common | self._of_brain(name) | of_units, path)
        for name in self.layout.names("pacs"):
            self._add(name, common | self._of_node(name))

    def _add(self, name: str, environment: dict[str, str], path: str = "") -> None:
        self.units[name] = Unit(self.folder / "units", name, environment, path)

    def _of_store(self) -> dict[str, str]:
        return {
            "FR_STORE_PORT": str(self._ports["store"]),
            "FR_STORE_DIR": str(self.store_folder),
            "FR_STORE_TEST_COMMANDS": "yes",
            "FR_STORE_CACHE": "128M",
        }

    def _through(self, name: str) -> str:
        database = self.direct_uri.rpartition("/")[2]
        return f"mongodb://127.0.0.1:{self.wire(name, 'store').port}/{database}"

    def _of_hub(self, name: str) -> dict[str, str]:
        nodes = [f"{node}=tcp:127.0.0.1:{self.wire(name, node).port}" for node in self.layout.names("pacs")]
        return {
            "FR_HUB_NODE": name,
            "FR_MONGO_URI": self._through(name),
            "FR_MONGO_TIMEOUT": str(MONGO_TIMEOUT),
            "FR_HUB_LISTEN": f"tcp:{self._ports[name]}:interface=127.0.0.1",
            "FR_HUB_NODES": " ".join(nodes),
            "FR_LINK_SILENCE": str(SILENCE),
            "FR_DELIVERY_LEASE": str(DELIVERY_LEASE),
        }

    def _of_brain(self, name: str) -> dict[str, str]:
        settings = {
            "FR_BRAIN_NODE": name,
            "FR_MONGO_URI": self._through(name),
            "FR_MONGO_TIMEOUT": str(MONGO_TIMEOUT),
            "FR_LEASE": str(LEASE),
            FOLDER: str(self.signals),
        }
        if name == self.layout.names("brain")[-1]:
            settings["FR_TEST_FAULTS_CLOCK"] = str(self.clock_file(name))
        if self.options.full:
            return settings | {"FR_BRAIN_SLOTS": "1", "FR_BRAIN_TIME_LIMIT": "300"}
        limit = LONG_LIMIT if name == self.layout.names("brain")[-1] else SHORT_LIMIT
        return settings | {
            "FR_BRAIN_ANALYSIS": "tests.faults.standin:ANALYSIS",
            "FR_BRAIN_SLOTS": "2",
            "FR_BRAIN_TIME_LIMIT": str(limit),
            "FR_BRAIN_MEMORY_LIMIT": "256M",
        }

    def _of_node(self, name: str) -> dict[str, str]:
        self.watched(name).mkdir(parents=True, exist_ok=True)
        hub = self.layout.hub_of(name)
        return {
            "FR_PACS_NODE": name,
            "FR_PACS_HUB": f"tcp:127.0.0.1:{self.wire(name, hub).port}",
            "FR_PACS_LISTEN": f"tcp:{self._ports[name]}:interface=127.0.0.1",
            "FR_PACS_WATCH": str(self.watched(name)),
            "FR_PACS_REPORTS": str(self.reports(name)),
            "FR_LINK_SILENCE": str(SILENCE),
        }

    def _path(self) -> str:
        """Return a folder that lets the environment of HUBs and BRAINs move a clock and shorten periods."""
        folder = self.folder / "site"
        folder.mkdir(exist_ok=True)
        shutil.copy(Path(__file__).with_name("sitecustomize_units.py"), folder / "sitecustomize.py")
        return str(folder)

    # -- places and ways

    def clock_file(self, brain: str) -> Path:
        """Return the file that shifts a BRAIN's clock."""
        return self.signals / f"clock.{brain}"

    def watched(self, node: str) -> Path:
        """Return a node's watched folder."""
        return self.folder / "nodes" / node / "incoming"

    def reports(self, node: str) -> Path:
        """Return a node's reports folder."""
        return self.folder / "nodes" / node / "reports"

    def wire(self, dialler: str, listener: str) -> Wire:
        """Return the way from one unit to another."""
        return self.network.wires[f"{dialler}>{listener}"]

    def wires_of(self, unit: str) -> list[Wire]:
        """Return all ways that a unit is at one end of."""
        return [wire for name, wire in self.network.wires.items() if unit in name.split(">")]

    def hub_port(self, hub: str) -> int:
        """Return the port of the harness's own wire to a HUB."""
        return self.wire("raw", hub).port

    # -- life

    def start(self) -> None:
        """Start everything, and wait until it is ready."""
        if self.options.small_disk and self.given_uri is None:
            self._mount()
        self.build()
        if "store" in self.units:
            self.units["store"].start()
            self.wait_ready(["store"])
        for name, unit in self.units.items():
            if name != "store":
                unit.start()
        self.wait_ready(self.units)

    def wait_ready(self, names: Iterable[str], seconds: float = START_SECONDS) -> None:
        """Wait until these units are ready.

        Raises:
            TimeoutError: one was not in time.
        """
        end = time.monotonic() + seconds
        waiting = list(names)
        while waiting := [name for name in waiting if not self.units[name].is_ready()]:
            if time.monotonic() > end:
                raise TimeoutError(f"not ready within {seconds:.0f} s: {', '.join(waiting)}")
            time.sleep(0.05)

    def stop(self, before_store: Callable[[], Any] | None = None) -> dict[str, tuple[float, int | None]]:
        """SIGTERM to all, the store last; return how long each took and its status.

        ``before_store`` is called when only the store is up.
        """
        names = [name for name in self.units if name != "store"]
        with ThreadPoolExecutor(len(names)) as threads:
            ends = dict(
                zip(names, threads.map(lambda name: self.units[name].terminate(), names), strict=True)
            )
        if before_store is not None:
            before_store()
        if "store" in self.units:
            ends["store"] = self.units["store"].terminate()
        return ends

    def kill_all(self) -> None:
        """End whatever is left, and let the disk go."""
        for unit in self.units.values():
            unit.kill()
        self.network.close()
        self.unmount()
        shutil.rmtree(self.temporary, ignore_errors=True)

    def processes(self) -> dict[int, str]:
        """Return every process, by id, that has our folder of temporary files: a unit or born of one."""
        mark = f"TMPDIR={self.temporary}".encode()
        found = {}
        for path in Path("/proc").iterdir():
            if path.name.isdecimal():
                try:
                    if mark in (path / "environ").read_bytes().split(b"\0"):
                        line = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                        found[int(path.name)] = line.strip()
                except OSError:
                    continue
        return found

    # -- a disk that can be filled

    def _mount(self) -> None:
        options = f"size={_SMALL_DISK},mode=0700"
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "fr-faults", str(self.store_folder)], check=True
        )
        self._mounted = True

    def unmount(self) -> None:
        """Give the store's file system back."""
        if self._mounted:
            subprocess.run(["umount", "-l", str(self.store_folder)], check=False)
            self._mounted = False

    @property
    def can_fill(self) -> bool:
        """Return whether the store's disk can be filled."""
        return self._mounted


def can_mount(folder: Path) -> bool:
    """Return whether a file system can be mounted here."""
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f"probe-{os.getpid()}"
    probe.mkdir()
    try:
        mounting = ["mount", "-t", "tmpfs", "-o", "size=1m", "fr-faults", str(probe)]
        if subprocess.run(mounting, capture_output=True, check=False).returncode:
            return False
        return subprocess.run(["umount", str(probe)], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False
    finally:
        probe.rmdir()
