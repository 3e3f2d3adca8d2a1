"""The plan of each query of a claim, a delivery and ``fr status`` with 1,000, 10,000 and 100,000 scans waiting."""

import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.benchmarks import plans
from tests.benchmarks.queues import LongQueue
from tests.benchmarks.table import Row
from tests.store_servers import EmbeddedServer, with_database

SIZES = (1_000, 10_000, 100_000)


def measure() -> list[Row]:
    """Measure: nothing here depends on how much else the machine does."""
    with ExitStack() as stack:
        server = EmbeddedServer(Path(stack.enter_context(tempfile.TemporaryDirectory())) / "store")
        server.start()
        stack.callback(server.stop)
        found = {}
        for size in SIZES:
            queue = LongQueue(with_database(server.uri, f"fr_{size}"), size)
            stack.callback(queue.close)
            found[size] = queue.plans()
        return plans.rows(found)
