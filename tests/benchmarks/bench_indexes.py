"""How long the first HUB of a new version takes to be ready, when indexes are missing on a store that holds much.

Dropped are the two newest, those of claims by analysis. The unit makes them as it starts, and is ready when the server
has built them.
"""

import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from fr_twisted.store.indexes import SCANS
from tests.benchmarks.queues import LongQueue
from tests.benchmarks.table import Row
from tests.daemons import daemon
from tests.store_servers import EmbeddedServer, with_database

SIZES = (10_000, 100_000)

LIMIT = 1800.0
BY_ANALYSIS = "meta.analysis"
OUTAGE = "outage.begin"


def measure() -> list[Row]:
    """Measure."""
    return [row for size in SIZES for row in rows(size)]


def rows(size: int) -> list[Row]:
    """Return the seconds until a HUB is ready over so many scans, with all indexes there and without the two."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = EmbeddedServer(folder / "store")
        server.start()
        stack.callback(server.stop)
        queue = LongQueue(with_database(server.uri, "fr_indexes"), size)
        stack.callback(queue.close)
        usual, _ = ready(queue.uri, folder)
        names = [name for name in queue.db[SCANS].index_information() if BY_ANALYSIS in name]
        for name in names:
            queue.db[SCANS].drop_index(name)
        seconds, patient = ready(queue.uri, folder)
        missing = set(names) - set(queue.db[SCANS].index_information())
        if not names or missing:
            raise RuntimeError(
                f"indexes by {BY_ANALYSIS}: {len(names)} were dropped, not there: {sorted(missing)}"
            )
        what = f"the start of a HUB on {size:,} scans"
        text = f"{seconds:.1f} s" + (", after it had logged that the store cannot be used" if patient else "")
        return [
            Row(f"{what}, all indexes there", f"{usual:.1f} s"),
            Row(f"{what}, {len(names)} to be built", text),
        ]


def ready(uri: str, folder: Path) -> tuple[float, bool]:
    """Start a HUB; return the seconds until it was ready, and whether it had to say before that it cannot be."""
    environment = {"FR_MONGO_URI": uri, "FR_HUB_LISTEN": "tcp:0:interface=127.0.0.1"}
    since = time.perf_counter()
    with daemon("frhub", folder=folder, environment=environment) as hub:
        hub.until("unit.ready", LIMIT)
        seconds = time.perf_counter() - since
        said = [line.strip() for line in hub.output if OUTAGE in line]
        print(*said, sep="\n", file=sys.stderr)
        hub.end()
        return seconds, bool(said)
