"""The part of the document about CPU time, memory and repeatability."""

from statistics import median

from tests.accuracy.anchors import COST
from tests.accuracy.cost import PASSES, Cost, ScanCost
from tests.accuracy.section import Figure, Section
from tests.accuracy.tables import number, table

GB = 1e9


def section(cost: Cost) -> Section:
    """Return the section."""
    scans = ", ".join(f"{len(some)} at {grid}" for grid, some in cost.scans.items())
    same = identical(cost)
    blocks = (
        f"Drawn scans with lesions ({scans}), each analysed from file to report in a fresh process with one"
        " thread and nothing beside it. Medians of CPU seconds (user and system). Peak: resident memory while"
        " the stage ran, the process and its libraries included, of a scan whose free memory was given back"
        " before each stage; in all: of those that keep it, as workers do.",
        _stages(cost),
        f"Loading the libraries takes {number(_median_import(cost), 1)} s of CPU once in the life of a worker, and"
        f" {number(_import_rss(cost) / GB, 2)} GB. Workers that did several scans one after another reached"
        f" {number(cost.worker_peak / GB, 2)} GB.",
        f"{len(_columns(cost))} of these scans through Fr-BRAIN's worker processes ({'; '.join(PASSES)}): {same} of"
        f" {len(_columns(cost))} reports (`report.json`) had the same SHA-256 in all passes.",
    )
    return Section("What it costs", blocks, tuple(figures(cost)), COST)


def _columns(cost: Cost) -> list[tuple[str, ...]]:
    return list(zip(*cost.reports.values(), strict=True))


def identical(cost: Cost) -> int:
    """Return how many scans had the same report in all passes."""
    return sum(len(set(reports)) == 1 for reports in _columns(cost))


def _median_import(cost: Cost) -> float:
    return median(scan.import_cpu for some in cost.scans.values() for scan in some)


def _import_rss(cost: Cost) -> float:
    return float(max(scan.import_rss for some in cost.scans.values() for scan in some))


def _stages(cost: Cost) -> str:
    first = next(iter(cost.scans.values()))[0]
    head = ["stage"]
    for grid in cost.scans:
        head += [f"{grid}: CPU, s", "peak, GB"]
    rows = []
    for stage in first.stage_cpu:
        cells = [stage]
        for grid, some in cost.scans.items():
            cells += _cells(some, cost.trimmed[grid], stage)
        rows.append(cells)
    total = ["**all**"]
    for some in cost.scans.values():
        total += [number(_cpu(some), 1), number(max(scan.peak for scan in some) / GB, 2)]
    return table(head, [*rows, total])


def _cells(some: list[ScanCost], trimmed: ScanCost, stage: str) -> list[str]:
    seconds = [scan.stage_cpu[stage] for scan in some if stage in scan.stage_cpu]
    peak = trimmed.stage_peak.get(stage)
    return [number(median(seconds) if seconds else None, 2), number(None if peak is None else peak / GB, 2)]


def _cpu(some: list[ScanCost]) -> float:
    return median(scan.cpu for scan in some)


def figures(cost: Cost) -> list[Figure]:
    """Return the figures that have targets."""
    grids = list(cost.scans)
    peak = max([cost.worker_peak, *(scan.peak for some in cost.scans.values() for scan in some)])
    return [
        Figure("cpu fine", _cpu(cost.scans[grids[0]])),
        Figure("cpu coarse", _cpu(cost.scans[grids[1]])),
        Figure("memory", peak / GB),
        Figure("identical", 100 * identical(cost) / len(_columns(cost))),
    ]
