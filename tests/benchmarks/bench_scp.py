"""Fr-PACS's Storage SCP against dcmtk's storescp: one 176-slice 23 MB MR series from dcmtk's storescu, on loopback.

Needs Debian's dcmtk. Fr-PACS syncs every instance before it answers; storescp syncs none. In turns, medians of one run.
"""

import os
import statistics
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from tests.benchmarks.bench_dicom import STORESCP, STORESCU, Peer, series
from tests.benchmarks.table import Row
from tests.daemons import Daemon, daemon

ROUNDS = 3


def send(port: int, folder: Path, tuned: bool) -> float:
    """Return the seconds that storescu takes; ``tuned``: with TCP_NODELAY, which dcmtk does not set by itself."""
    environment = os.environ | ({"TCP_NODELAY": "1"} if tuned else {})
    since = time.perf_counter()
    subprocess.run(
        [STORESCU, "-aec", "ANY", "+sd", "127.0.0.1", str(port), str(folder)],
        check=True,
        capture_output=True,
        timeout=120,
        env=environment,
    )
    return time.perf_counter() - since


def cpu_seconds(process: Daemon) -> float:
    """Return the processor time that a daemon has taken."""
    fields = Path(f"/proc/{process.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure() -> list[Row]:
    """Measure both receivers, with dcmtk as it comes and told not to wait."""
    if not Path(STORESCU).exists() or not Path(STORESCP).exists():
        return [Row("series over C-STORE to Fr-PACS", "left out: dcmtk is not installed")]
    ways = {(who, tuned): list[float]() for who in ("Fr-PACS", "storescp") for tuned in (False, True)}
    spent: list[float] = []
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        root = Path(temporary)
        options = ["--listen=tcp:0:interface=127.0.0.1", "--hub=tcp:127.0.0.1:9", "--dicom-aet=ANY"]
        options += ["--dicom-listen=tcp:0:interface=127.0.0.1", "--spool-reserve=0", "--series-quiet=600"]
        pacs = stack.enter_context(daemon("frpacs", *options, folder=root))
        port = int(pacs.until("dicom.bound")["port"])
        peers = {tuned: Peer("storescp", root / f"peer-{tuned}", tuned) for tuned in (False, True)}
        for peer in peers.values():
            stack.callback(peer.stop)
        for number in range(ROUNDS):
            for tuned, peer in peers.items():
                folder = series(root / f"series-{number}-{tuned}", 2 * number + tuned + 1)
                ways["storescp", tuned].append(send(peer.port, folder, tuned))
                before = cpu_seconds(pacs)
                ways["Fr-PACS", tuned].append(send(port, folder, tuned))
                spent.append(cpu_seconds(pacs) - before)
        size = sum(file.stat().st_size for file in folder.iterdir())
        count = len(list(folder.iterdir()))
    rows = []
    for tuned, words in ((False, "as it comes"), (True, "with TCP_NODELAY=1")):
        ours, theirs = (statistics.median(ways[who, tuned]) for who in ("Fr-PACS", "storescp"))
        measured = (
            f"{theirs / ours:.2f} of its speed ({ours:.2f} s, {theirs:.2f} s; {count / ours:.0f} instances/s)"
        )
        what = f"{count}-slice series, {size / 1e6:.0f} MB, from storescu {words}: Fr-PACS of storescp"
        rows.append(Row(what, measured))
    rows.append(
        Row(
            "Fr-PACS's processor time for one such instance",
            f"{statistics.median(spent) / count * 1e3:.1f} ms",
        )
    )
    return rows
