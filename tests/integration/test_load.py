"""The load measurements of ``make bench`` in their short form, with bounds that leave room for a busy machine."""

import statistics

import pytest

from tests.benchmarks import bench_hostile, bench_memory, bench_nodes, bench_queue

pytestmark = pytest.mark.alone


def test_many_nodes() -> None:
    """Fifty nodes at once: every acknowledged scan is in the store, no node starves, and the rate is that of two."""
    few, many, acknowledged, kept = bench_nodes.measured(2, 50, 1, 6.0)
    assert kept == acknowledged > 0
    assert min(many.fairness) > 0.2
    assert many.rates[0] > 0.5 * few.rates[0]


def test_long_queue() -> None:
    """With 6,000 scans and reports waiting, claims and deliveries are not much slower than with 500."""
    rates, _ = bench_queue.measured((500, 6_000), 2, 250)
    for what in ("claims", "deliveries"):
        assert rates[what][6_000] > 0.5 * rates[what][500], rates


def test_memory_is_flat() -> None:
    """Over some hundred scans HUB and BRAIN grow by less than half a megabyte per hundred scans."""
    for name, samples in bench_memory.measured(300).items():
        assert bench_memory.growth(samples, warm=0.4) < 5e6, (name, samples)


def test_hostile_connections() -> None:
    """Beside 300 idle, slow and hostile connections honest nodes keep more than half of their throughput."""
    found = bench_hostile.measured(2, 5.0, 300, "127.0.0.9")
    assert statistics.median(found["beset"]) > 0.5 * statistics.median(found["alone"]), found
    assert found["rss"] < 200e6
