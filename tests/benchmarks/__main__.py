"""``make bench``: run all measurements, or those named (``make bench ARGS="link dicom"``), and print one table."""

import importlib
import os
import platform
import sys
from datetime import UTC, datetime

from tests.benchmarks.table import Row, render

LOAD = ("nodes", "queue", "memory", "hostile")
"""What ``load`` stands for: minutes each."""

NAMES = ("link", "hub", "latency", "dicom", "scp", "pool", "indexes", "plans", *LOAD)


def main(names: list[str]) -> int:
    """Print the table; return 1 when a figure was not reached."""
    names = [each for name in names for each in (LOAD if name == "load" else (name,))]
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        print(
            f"no measurement {', '.join(unknown)}; there are: {', '.join(NAMES)}, and load for {', '.join(LOAD)}",
            file=sys.stderr,
        )
        return 2
    rows: list[Row] = []
    for name in names or NAMES:
        print(f"measuring: {name} ...", file=sys.stderr, flush=True)
        rows += importlib.import_module(f"tests.benchmarks.bench_{name}").measure()
    print(
        f"\n{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, Python {platform.python_version()}, embedded store\n"
    )
    print(render(rows))
    return int(any(row.reached is False for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
