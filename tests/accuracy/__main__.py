"""``make accuracy``: measure how true the numbers of the analysis are, and write docs/accuracy.md.

    python -m tests.accuracy [--out FILE] [--only NAME,...] [--workers 2] [--development] [--short]

Results are kept under .fr/accuracy: a run that was interrupted goes on where it was.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.accuracy import cost, cost_section, document, runner, sources
from tests.accuracy.cases import Case, Plan
from tests.accuracy.examine import examine
from tests.accuracy.experiments import EXPERIMENTS
from tests.accuracy.runner import ROOT, Examine, Store

WORK = ROOT / ".fr" / "accuracy"
PUBLISHED = ROOT / "docs" / "accuracy.md"
COST = "cost"
NAMES = (*(experiment.name for experiment in EXPERIMENTS), COST)


def main(arguments: Sequence[str], work: Path = WORK, task: Examine = examine) -> int:
    """Run from the command line; ``task`` examines a case."""
    given = _parser().parse_args(arguments)
    plan = Plan(given.development, given.short)
    names = NAMES[:1] if plan.short else given.only
    complete = set(names) == set(NAMES)
    out = given.out or (PUBLISHED if complete and not plan.development else work / "part.md")
    chosen = [experiment for experiment in EXPERIMENTS if experiment.name in names]
    state = runner.state()
    with runner.pool(given.workers) as executor:
        wanted = [case for experiment in chosen for case in experiment.cases(plan)]
        images = work / "images"
        store = Store(work / "results", state)
        results = runner.run(wanted, store, executor, task, images, absent(wanted, images))
        sections = [experiment.report(plan, results) for experiment in chosen]
        if COST in names:
            sections.append(cost_section.section(cost.kept(plan, executor, work / "results", state)))
    text = document.render(plan, sections, complete)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    runner.tell(f"written: {out}")
    return 0


def absent(cases: Sequence[Case], images: Path) -> dict[str, str]:
    """Fetch the real images that are wanted; return those that cannot be had, and why."""
    missing = {}
    for name in dict.fromkeys(case.subject for case in cases if isinstance(case.subject, str)):
        if name in sources.PACKAGES:
            try:
                sources.fetch(name, images)
            except sources.NotFetchedError as error:
                missing[name] = str(error)
                runner.tell(f"{name}: {error}")
    return missing


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.accuracy", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, help=f"file to write [default: docs/{PUBLISHED.name} for a whole run]"
    )
    parser.add_argument("--only", type=_names, default=NAMES, metavar="NAMES", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--workers", type=int, default=2, help="processes [default: %(default)s]")
    parser.add_argument(
        "--development", action="store_true", help="with seeds for development in place of those set aside"
    )
    parser.add_argument("--short", action="store_true", help="a few coarse scans, to try the command")
    return parser


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        raise argparse.ArgumentTypeError(f"no experiment {', '.join(unknown)}; there are: {', '.join(NAMES)}")
    return names


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
