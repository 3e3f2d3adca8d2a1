"""One analysis in a process of its own: CPU and memory by stage.

    python -m tests.accuracy.cost_process PAYLOAD FORMAT [trimmed]

Free memory stays with the process, as it does in a worker; ``trimmed`` gives it back before each stage, so that the
peak of a stage is what that stage needs.
"""

import json
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fr_twisted.brain import prelude  # its import sets the environment of numeric libraries
from fr_twisted.brain.interfaces import UnusableScanError
from fr_twisted.model import PayloadFormat, ScanMeta

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")


class Meter:
    """Measures CPU seconds (user and system) and the peak of resident memory by stage; stages of one name add up."""

    def __init__(self, trim: bool) -> None:
        """``trim``: give free memory back before each stage."""
        self._trim = trim
        self.cpu: dict[str, float] = {}
        self.peak: dict[str, int] = {}

    @contextmanager
    def watch(self, stage: str) -> Iterator[None]:
        """Measure one stage."""
        if self._trim:
            prelude.trim_memory()
        CLEAR.write_text("5")  # proc(5): the high-water mark begins anew
        since = time.process_time()
        try:
            yield
        finally:
            self.cpu[stage] = self.cpu.get(stage, 0.0) + time.process_time() - since
            self.peak[stage] = max(self.peak.get(stage, 0), resident("VmHWM"))


def resident(name: str) -> int:
    """Return a figure of proc(5)'s status file, bytes."""
    fields = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return int(fields[name].split()[0]) * 1024


def main(arguments: list[str]) -> int:
    """Print what one analysis costs, as JSON."""
    payload, kind = Path(arguments[0]), PayloadFormat(arguments[1])
    since = time.process_time()
    from fr_twisted.brain.analysis import pipeline

    loaded = time.process_time()
    bare = resident("VmRSS")
    meter = Meter(trim="trimmed" in arguments)
    try:
        pipeline.run(payload, "scan-accuracy", ScanMeta(patient_id="accuracy", format=kind), meter.watch)
    except UnusableScanError as error:
        print(f"refused: {error}", file=sys.stderr)
        return 1
    told = {
        "import_cpu": loaded - since,
        "import_rss": bare,
        "cpu": time.process_time() - loaded,
        "peak": max(*meter.peak.values(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024),
        "stage_cpu": meter.cpu,
        "stage_peak": meter.peak,
    }
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
