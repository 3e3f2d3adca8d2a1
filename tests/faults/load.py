"""What is sent in a round: files put into the nodes' folders, and what the harness's own client sends; both noted."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.faults import rawlink
from tests.faults.plan import Plan, PlannedScan
from tests.faults.scans import LARGE, SMALL, Expected, expect, nifti
from tests.faults.world import World

CHUNK_SIZE = 1024 * 1024

MakeScan = Callable[[str, bool], bytes]
"""From a seed, and whether it is to be large, to a file's bytes."""


def small_scan(seed: str, large: bool) -> bytes:
    """Return a small file of random voxels."""
    return nifti(seed, LARGE if large else SMALL)


@dataclass
class Sent:
    """What was given to Fr, by scan id; filled from several threads."""

    scans: dict[str, Expected] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    unanswered: list[str] = field(default_factory=list)
    """Scans of the harness's own client of which no last word came."""

    def add(self, expected: Expected) -> None:
        """Note a scan; the first of an id counts."""
        with self.lock:
            self.scans.setdefault(expected.scan_id, expected)


class Load:
    """Sends one round's scans."""

    def __init__(self, world: World, plan: Plan, make: MakeScan = small_scan) -> None:
        self.world, self.plan, self.make = world, plan, make
        self.sent = Sent()
        self._extra = 0

    def run(self, began: float) -> None:
        """Put every planned scan into its folder at its time."""
        for scan in sorted(self.plan.scans, key=lambda scan: scan.at):
            time.sleep(max(0.0, began + scan.at - time.monotonic()))
            self.drop(scan)

    def drop(self, scan: PlannedScan) -> Expected:
        """Put a file into a node's folder, whole from the first moment that it can be seen."""
        label = f"{self.plan.seed}:{scan.number}"
        patient = f"sub-{scan.kind}{self.plan.seed}x{scan.number}"
        return self.put(scan.node, patient, self.make(label, scan.large), scan.kind != "quick")

    def put(self, node: str, patient: str, data: bytes, poison: bool = False) -> Expected:
        """Put these bytes into a node's folder."""
        folder = self.world.watched(node)
        path = folder / f"{patient}_T1w.{'nii.gz' if data[:2] == bytes((31, 139)) else 'nii'}"
        expected = expect(node, patient, data, poison=poison, path=path)
        self.sent.add(expected)
        part = folder / f".{path.name}"
        part.write_bytes(data)
        part.rename(path)
        return expected

    def number(self) -> int:
        """Return a number for a scan that was not planned as one."""
        with self.sent.lock:
            self._extra += 1
            return 10_000 + self._extra

    def bait(self) -> None:
        """Put one more scan into every node's folder."""
        for node in self.world.layout.names("pacs"):
            self.drop(PlannedScan(self.number(), 0.0, node))

    # -- faults of the input

    def poison(self, node: str, kind: str) -> None:
        """Send a scan that makes its analysis misbehave."""
        self.drop(PlannedScan(self.number(), 0.0, node, kind))

    def two_nodes(self) -> None:
        """Send the same scan of the same patient from two nodes: two scans, and each node gets its report."""
        number = self.number()
        data = self.make(f"{self.plan.seed}:{number}", False)
        first, second = self.world.layout.names("pacs")[:2]
        for node in (first, second):
            self.put(node, f"sub-both{self.plan.seed}x{number}", data)

    def other_bytes(self) -> bool:
        """Send an id half, then whole with other bytes, then with the first bytes again: only what was ACKed counts."""
        number = self.number()
        node, hub = "pacs-1", self.world.layout.names("hub")[-1]
        port, patient = self.world.hub_port(hub), f"sub-raw{self.plan.seed}x{number}"
        meta = {"patient_id": patient, "format": "nifti"}
        first = nifti(f"{self.plan.seed}:{number}:a", LARGE)
        second = nifti(f"{self.plan.seed}:{number}:b", SMALL)
        expected = replace(expect(node, patient, second), scan_id=f"raw-{self.plan.seed}-{number}")
        with suppress(rawlink.LinkLostError):
            rawlink.RawLink(port, node).send(expected.scan_id, first, meta, stop_after=2 * CHUNK_SIZE)
        answer = rawlink.deliver(port, node, expected.scan_id, second, meta)
        if answer is None or answer.verb != "ACK":
            self.sent.unanswered.append(f"{expected.scan_id}: {answer}")
            return False
        self.sent.add(expected)
        again = rawlink.deliver(port, node, expected.scan_id, second, meta)
        if again is None or not again.duplicate:
            self.sent.unanswered.append(f"{expected.scan_id} sent once more: {again}")
        refused = rawlink.deliver(port, node, expected.scan_id, first, meta)
        if refused is None or refused.verb != "NACK" or refused.retry:
            self.sent.unanswered.append(f"{expected.scan_id} with other bytes: {refused}")
        return True

    def abandoned(self, back_after: float | None) -> bool:
        """Send two of an upload's three chunks, and no more; or, so many seconds later, all of it."""
        number = self.number()
        port, node = self.world.hub_port(self.world.layout.names("hub")[-1]), "pacs-1"
        patient = f"sub-left{self.plan.seed}x{number}"
        meta = {"patient_id": patient, "format": "nifti"}
        data = nifti(f"{self.plan.seed}:{number}", LARGE)
        expected = replace(expect(node, patient, data), scan_id=f"raw-{self.plan.seed}-{number}")
        try:
            rawlink.RawLink(port, node).send(expected.scan_id, data, meta, stop_after=2 * CHUNK_SIZE)
        except rawlink.HungUpError:
            pass
        except rawlink.LinkLostError:
            return False
        if back_after is not None:
            time.sleep(back_after)
            answer = rawlink.deliver(port, node, expected.scan_id, data, meta)
            if answer is None or answer.verb != "ACK":
                self.sent.unanswered.append(f"{expected.scan_id}, left and sent on: {answer}")
                return False
            self.sent.add(expected)
        return True

    def in_folders(self) -> list[Path]:
        """Return the files that still wait in the nodes' folders."""
        return [
            path
            for node in self.world.layout.names("pacs")
            for path in self.world.watched(node).iterdir()
            if path.is_file()
        ]
