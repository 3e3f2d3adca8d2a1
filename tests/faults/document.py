"""docs/reliability.md: its figures are written from the results of runs, never by hand.

The results that are published are kept beside it, in docs/reliability: a run's file is copied there from `.fr/faults`
under a name without its time, and ``python -m tests.faults --document`` writes the page. A test compares them.
"""

from collections.abc import Sequence
from pathlib import Path

from tests.faults.kinds import KINDS, NOT_FULL
from tests.faults.tally import OfKind, Tally

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"

PUBLISHED = PAGE.with_suffix("")

_BEGIN, _END = "<!-- {}: begin, written by python -m tests.faults --document -->", "<!-- {}: end -->"
RESULTS, LIST, SUMMARY = "results", "faults", "summary"


def replaced(text: str, name: str, content: str) -> str:
    """Return the page with another content between the marks of this name.

    Raises:
        ValueError: the marks are not there.
    """
    begin, end = _BEGIN.format(name), _END.format(name)
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"no marks of {name} in the page")
    return f"{before}{begin}\n\n{content.strip()}\n\n{end}{after}"


def fault_list() -> str:
    """Return the table of the kinds of faults."""
    rows = ["| kind | what | how and when |", "| --- | --- | --- |"]
    rows += [f"| `{kind.name}` | {kind.group} | {kind.how} |" for kind in KINDS.values()]
    return "\n".join(rows)


def results(tallies: Sequence[Tally]) -> str:
    """Return the results of runs: the sums of small and of full ones, and the counts by kind."""
    small, full = [t for t in tallies if not t.full], [t for t in tallies if t.full]
    sums = [*_sums("small scans, stand-in analysis", small), *_sums("whole heads, default analysis", full)]
    parts = ["\n".join([*_HEAD, *sums])]
    parts.append(_reproduce(tallies))
    parts.append(_by_kind(small, full))
    return "\n\n".join(parts)


def summary(tallies: Sequence[Tally]) -> str:
    """Return in words what came of the runs, and which rounds were bad."""
    small, full = [t for t in tallies if not t.full], [t for t in tallies if t.full]
    counts = [
        f"{sum(t.injected for t in some):,} faults over {sum(t.scans for t in some):,} {what}"
        for some, what in ((small, "small scans"), (full, "whole heads"))
        if some
    ]
    wrong = {kind: sum(t.problems.get(kind, 0) for t in tallies) for kind in _WRONG}
    outcome = "; ".join(f"{_IN_WORDS[kind]}: {wrong[kind] or 'none'}" for kind in _GRAVE)
    bad = [seed for t in tallies for seed in t.bad]
    rounds = sum(t.rounds for t in tallies)
    text = f"Of {' and '.join(counts)}, in {rounds:,} rounds, {outcome}. "
    if bad:
        text += f"Rounds in which anything at all was wrong: {len(bad)}, with the seeds {_listed(bad)}. "
    else:
        text += "There was no round in which anything at all was wrong. "
    kinds = sum(t.in_order for t in tallies), sum(t.short for t in tallies)
    return (
        text
        + "In {:,} rounds units were only ended in order; {:,} were in worlds with short periods.".format(
            *kinds
        )
    )


_IN_WORDS = {
    "lost": "scans or reports that were lost",
    "doubled": "doubled",
    "stuck": "stuck",
    "bytes": "with wrong bytes",
    "orphan": "chunks that belong to nothing",
}
_GRAVE = tuple(_IN_WORDS)


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, sorted(seeds)))


_HEAD = (
    "| runs | rounds | faults | scans | acknowledged | lost | doubled | stuck | wrong bytes | orphans | left over |"
    " other |"
    " delivered | poison `Failed` | others `Failed` | late finishers refused | longest rest |",
    "| --- |" + " ---: |" * 16,
)


def _sums(name: str, tallies: Sequence[Tally]) -> list[str]:
    if not tallies:
        return [f"| {name} | 0 |" + " |" * 15]
    wrong = [sum(t.problems.get(kind, 0) for t in tallies) for kind in _WRONG]
    numbers = [
        sum(t.rounds for t in tallies),
        sum(t.injected for t in tallies),
        sum(t.scans for t in tallies),
        sum(t.acknowledged for t in tallies),
        *wrong,
        sum(t.done for t in tallies),
        sum(t.failed for t in tallies),
        sum(t.worn_out for t in tallies),
        sum(t.late for t in tallies),
    ]
    longest = max(t.longest_rest for t in tallies)
    return [f"| {name} | " + " | ".join(f"{n:,}" for n in numbers) + f" | {longest:.0f} s |"]


_WRONG = ("lost", "doubled", "stuck", "bytes", "orphan", "left", "other")


def _reproduce(tallies: Sequence[Tally]) -> str:
    rows = [
        "| again by | rounds | bad | begun (UTC) | code | took | machine |",
        "| --- | ---: | ---: | --- | --- | ---: | --- |",
    ]
    rows += [
        f"| `{t.command}` | {t.rounds} | {len(t.bad)} | {t.began} | {t.code or 'older'} | {t.seconds / 60:.0f} min |"
        f" {t.machine} |"
        for t in tallies
    ]
    return "\n".join(rows)


def _by_kind(small: Sequence[Tally], full: Sequence[Tally]) -> str:
    rows = [
        "| kind | injected | moment missed | longest | injected, whole heads | longest, whole heads |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name in KINDS:
        one, other = _added(name, small), _added(name, full)
        whole = f"{other.injected}" if name not in NOT_FULL or other.injected else "not drawn"
        rows.append(
            f"| `{name}` | {one.injected}{_why(one)} | {one.missed} | {one.longest:.1f} s | {whole} |"
            f" {f'{other.longest:.1f} s' if other.injected else ''} |"
        )
    return "\n".join(rows)


def _why(kind: OfKind) -> str:
    return f" ({kind.skipped})" if kind.skipped and not kind.injected else ""


def _added(name: str, tallies: Sequence[Tally]) -> OfKind:
    total = OfKind()
    for kind in (t.kinds[name] for t in tallies if name in t.kinds):
        total.injected += kind.injected
        total.missed += kind.missed
        total.skipped = kind.skipped or total.skipped
        total.longest = max(total.longest, kind.longest)
    return total


def published(folder: Path = PUBLISHED) -> list[Tally]:
    """Return the results that are published, the oldest run first."""
    return sorted((Tally.read(path) for path in folder.glob("run-*.json")), key=lambda t: (t.began, t.seed))


def written(text: str, tallies: Sequence[Tally]) -> str:
    """Return the page with what is written by us: the faults that there are, and what came of the runs."""
    text = replaced(text, LIST, fault_list())
    if tallies:
        text = replaced(replaced(text, SUMMARY, summary(tallies)), RESULTS, results(tallies))
    return text


def write(folder: Path = PUBLISHED, page: Path = PAGE) -> int:
    """Write the page from the results in ``folder``; return how many runs they are of."""
    tallies = published(folder)
    page.write_text(written(page.read_text(encoding="utf-8"), tallies), encoding="utf-8")
    return len(tallies)
