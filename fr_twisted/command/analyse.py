"""``fr analyse``: measures one scan on disk and writes its report. No daemon, no store, no reactor."""

import argparse
import json
import sys
import tempfile
import threading
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fr_twisted.command.trouble import BROKEN, CommandError

if TYPE_CHECKING:
    from fr_twisted.brain.jobs import Job, JobResult, Outcome
    from fr_twisted.model import ScanMeta

NODE = "fr"
"""The node that scan ids are made for."""

NOT_USABLE = 3
"""Exit status: the report says that the scan is not usable."""

HELP = "measure one scan: a NIfTI file, a folder of DICOM files, or a tar of them"
EPILOG = """\
Any folder may be named: the DICOM series in it, at any depth, are told apart by their headers. Where there are several,
the one that looks T1-weighted is measured; if that is not one alone, they are listed, to be chosen from with --series.

exit status:
  0  the report is written; usable, or usable with care
  1  something broke
  2  bad usage, or a scan that cannot be read or measured: the reason is on standard error
  3  the report is written; it says that the scan is not usable, and why
"""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the parser of this command."""
    parser = commands.add_parser(
        "analyse",
        help=HELP,
        description=HELP[0].upper()
        + HELP[1:]
        + "; write report.html, report.pdf, report.json and overlay.png.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("path", metavar="PATH", type=Path, help="the scan: .nii, .nii.gz, a folder, or .tar")
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        required=True,
        help="folder for the report; made if it is not there",
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON, and nothing else")
    parser.add_argument(
        "--series", metavar="UID", help="the Series Instance UID to measure, where there are several"
    )
    parser.add_argument(
        "--age", metavar="YEARS", type=_age, help="the patient's age, for the published ranges"
    )
    parser.add_argument(
        "--sex", choices=("F", "M"), type=str.upper, help="the patient's sex, for the published ranges"
    )
    parser.add_argument(
        "--analysis", metavar="NAME", help="an installed analysis, or module:attribute [default: t1-volumes]"
    )
    parser.set_defaults(run=run)


def _age(text: str) -> float:
    try:
        years = float(text)
    except ValueError:
        years = -1.0
    if not 0 <= years <= 120:
        raise argparse.ArgumentTypeError(f"{text!r} is no age in years, 0 to 120")
    return years


def run(given: argparse.Namespace) -> int:
    """Measure the scan and return the exit status.

    Raises:
        CommandError: it cannot be done.
    """
    try:
        from fr_twisted.brain import (  # noqa: F401 - its import sets the environment of numeric libraries
            catalog,
            prelude,
        )
        from fr_twisted.brain.fetch import payload_name
        from fr_twisted.brain.jobs import Job
        from fr_twisted.command import pick, place
        from fr_twisted.config import BrainSettings
        from fr_twisted.pacs.scans import prepare
    except ImportError as error:
        raise CommandError(f"{error.name} is not installed: pip install 'fr-twisted[brain]'") from None
    settings = BrainSettings()
    name = given.analysis or settings.analysis
    try:
        catalog.check(name)
    except catalog.AnalysisUnavailableError as error:
        raise CommandError(f"--analysis: {error}") from None
    with tempfile.TemporaryDirectory(prefix="fr-analyse-") as made:
        work = Path(made)
        drop = pick.pick(given.path, given.series, work, note=lambda words: print(words, file=sys.stderr))
        try:
            prepared = prepare(drop, NODE, work)
        except Exception as error:  # of the system, or a file that changed meanwhile
            raise CommandError(f"{given.path} cannot be read: {error}") from None
        place.check(given.out, prepared.item.id)
        # under a name and in a folder of ours: the analysis' files are written beside it
        payload = work / payload_name(drop.meta.format)
        payload.symlink_to(prepared.path.resolve())
        job = Job(name, payload, prepared.item.id, _meta(drop.meta, given.sex, given.age))
        result = _result(perform(job, settings.memory_limit, settings.time_limit))
        files = place.write(given.out, result.bundle.read_bytes(), prepared.item.id)
    return _tell(given, job, result, files)


def _meta(meta: "ScanMeta", sex: str | None, age: float | None) -> "ScanMeta":
    """Return what is known of the scan, with what the person said of the patient."""
    facts: dict[str, Any] = dict(meta.facts)
    if sex is not None:
        facts["patient_sex"] = sex
    if age is not None:
        facts["patient_age"] = f"{int(age):03d}Y" if age >= 2 else f"{int(age * 12):03d}M"
    return meta.model_copy(update={"facts": facts})


def perform(job: "Job", memory: int, seconds: float) -> "Outcome":
    """Have the job done by a worker process as Fr-BRAIN's are, within the same limits: a crash ends that alone.

    Args:
        job: what to do.
        memory: bytes that the process may take.
        seconds: how long it may take.

    Raises:
        CommandError: the process could not be started, died, or took too long.
    """
    from fr_twisted.brain.jobs import Limits
    from fr_twisted.brain.worker import WorkerDiedError, WorkerProcess, WorkerStartError

    with closing(WorkerProcess(job.analysis, Limits(memory=memory, nice=0))) as worker:
        late = threading.Event()

        def end() -> None:
            late.set()
            worker.kill()

        alarm = threading.Timer(seconds, end)
        try:
            worker.start()
            alarm.start()
            return worker.call(job)
        except WorkerStartError as error:
            raise CommandError(str(error)) from None
        except WorkerDiedError as error:
            why = f"it took more than {seconds:.0f} s" if late.is_set() else str(error)
            raise CommandError(f"the analysis ended without a result: {why}", BROKEN) from None
        finally:
            alarm.cancel()


def _result(outcome: "Outcome") -> "JobResult":
    from fr_twisted.brain.jobs import JobFailure, JobRefusal

    if isinstance(outcome, JobRefusal):
        raise CommandError(f"the scan cannot be measured: {outcome.reason}")
    if isinstance(outcome, JobFailure):
        why = "it ran out of memory" if outcome.out_of_memory else f"{outcome.reason}: {outcome.detail}"
        raise CommandError(f"the analysis broke: {why}", BROKEN)
    return outcome


def _tell(given: argparse.Namespace, job: "Job", result: "JobResult", files: list[str]) -> int:
    """Print the findings and return the exit status."""
    from fr_twisted.command import table

    if given.json:
        print(json.dumps(result.findings, indent=2, allow_nan=False))
    else:
        print("\n".join(table.lines(job.scan_id, job.meta, result, given.out, files)))
    verdict = result.findings.get("verdict")
    usability = verdict.get("usability") if isinstance(verdict, dict) else None
    return NOT_USABLE if usability == "not usable" else 0
