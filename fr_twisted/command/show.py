"""``fr show``: the whole story of one scan."""

import argparse
from datetime import UTC
from typing import TYPE_CHECKING, Any

from fr_twisted.command import desk
from fr_twisted.command.columns import Screen, clean, moment, size, span
from fr_twisted.command.trouble import CommandError

if TYPE_CHECKING:
    from fr_twisted.model import BrainScan
    from fr_twisted.store.ioperators import ReportRow, ScanFile, UploadRow

SUMMARY = "show one scan: what it is, everything that happened to it, and its reports"
MORE = """\
The beginning of an id is enough where no other begins so, with or without "scan-". A report's id shows its scan.

"""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the parser of this command."""
    parser = desk.add(commands, "show", SUMMARY, work, more=MORE)
    parser.add_argument("scan", metavar="SCAN", help="the id of a scan, or its beginning")


async def work(at: desk.Desk) -> int:
    """Show the scan."""
    scan_id = await desk.one(at.given.scan, "scan", at.ask.find_scans)
    if scan_id is None:
        report_id = await desk.one(at.given.scan, "report", at.ask.find_reports)
        report = None if report_id is None else await at.ask.report(report_id)
        scan_id = None if report is None else report.scan_id
    found = None if scan_id is None else await at.ask.look(scan_id)
    if found is None:
        raise CommandError(f"there is no scan or report that begins with {clean(at.given.scan)!r}")
    if at.given.json:
        at.say_json(document(found))
    else:
        show(at.out, found)
    return 0


def document(found: "ScanFile") -> dict[str, Any]:
    """Return the story as it is told to programs."""
    return {
        "at": found.at,
        "scan": None if found.scan is None else _scan_document(found.scan),
        "history_complete": found.scan is not None and not _left_out(found, found.scan),
        "reports": found.reports,
        "report_pending": found.report_pending,
        "upload": found.upload,
    }


def _scan_document(scan: "BrainScan") -> dict[str, Any]:
    from fr_twisted.model import ScanMeta

    members = scan.model_dump(mode="json", exclude={"meta", "history"})
    # What a sender added of its own stays in the store: nobody knows what it says of the patient.
    known = scan.meta.model_dump(mode="json", include=set(ScanMeta.model_fields) - {"facts"})
    history = [entry.model_dump(mode="json") for entry in sorted(scan.history, key=lambda entry: entry.at)]
    return {**members, "meta": known, "history": history}


def show(out: Screen, found: "ScanFile") -> None:
    """Print the story for people."""
    if found.scan is None:
        assert found.upload is not None
        _show_upload(out, found, found.upload)
        return
    scan = found.scan
    out.say(f"{out.paint(scan.scan_id, 'bold')}  {out.state(scan.report_generated.value)}", "")
    out.facts(_facts(found, scan))
    out.say("")
    rows = [
        (
            entry.at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3],
            entry.event,
            entry.unit,
            entry.node,
            entry.detail or "",
        )
        for entry in sorted(scan.history, key=lambda entry: entry.at)
    ]
    out.table(("Time (UTC)", "Event", "Unit", "Node", "Detail"), rows, "<<<<<")
    out.say(*_left_out(found, scan))
    if found.reports:
        out.say("")
        _show_reports(out, found)
    if found.report_pending:
        out.say(
            "", "Its report is stored in the scan's own document: a HUB or BRAIN will put it in its place."
        )


def _left_out(found: "ScanFile", scan: "BrainScan") -> list[str]:
    """Return what the history does not hold, a line for each kind; none if it is whole."""
    from fr_twisted.store.documents import FIRST_ATTEMPTS, LONGEST_HISTORY

    lines = []
    if all(entry.event != "received" for entry in scan.history):
        lines.append(f"Earlier lines were left out: the last {LONGEST_HISTORY} are kept.")
    few = f"the first {FIRST_ATTEMPTS} and the 16th, 32nd, 64th ... are told"
    if scan.given_back > FIRST_ATTEMPTS:
        lines.append(f"It was released uncounted {scan.given_back} times; of these claims {few}.")
    lines += [
        f"{row.report_id} was put back {row.attempts} times; of these {few}."
        for row in found.reports
        if row.attempts > FIRST_ATTEMPTS
    ]
    return lines


def _facts(found: "ScanFile", scan: "BrainScan") -> list[tuple[str, str]]:
    meta, lease = scan.meta, scan.lease
    removed = f"removed on {moment(scan.payload_removed_at)} UTC" if scan.payload_removed_at else ""
    broken = f"found broken on {moment(scan.payload_broken_at)} UTC" if scan.payload_broken_at else ""
    left = 0.0 if lease is None else (lease.expires_at - found.at).total_seconds()
    ends = f"ends in {span(left)}" if left > 0 else f"ended {span(-left)} ago"
    received = f"{moment(scan.received_at)} UTC, {span((found.at - scan.received_at).total_seconds())} ago"
    return [
        ("Patient", scan.patient_id),
        ("From", scan.source),
        ("Received", received),
        ("Acquired", "" if meta.acquired_at is None else f"{moment(meta.acquired_at)} UTC"),
        ("Payload", ", ".join(filter(None, (meta.format.value, size(scan.size), removed, broken)))),
        ("SHA-256", scan.sha256),
        ("Series", meta.series_instance_uid or ""),
        ("Priority", str(scan.priority)),
        ("Analysis", _analysis(found, scan)),
        (
            "Attempts",
            str(scan.attempts) + (f", and {scan.given_back} that do not count" if scan.given_back else ""),
        ),
        ("Lease", "" if lease is None else f"{lease.owner}, {ends}"),
        ("Reason", scan.error or ""),
    ]


def _analysis(found: "ScanFile", scan: "BrainScan") -> str:
    """Return the analysis that the scan names, and whether there is a BRAIN for it while it waits."""
    name = scan.meta.analysis
    if name is None or scan.report_generated.value != "To Do":
        return name or ""
    if found.brain_seen is None:
        return f"waits for {name}; no BRAIN that runs it was ever seen"
    ago = span((found.at - found.brain_seen).total_seconds())
    return f"waits for {name}; a BRAIN that runs it was seen {ago} ago"


def _show_reports(out: Screen, found: "ScanFile") -> None:
    rows = [
        (
            row.report_id,
            f"{row.analysis} {row.analysis_version}",
            row.destination,
            row.state.value,
            str(row.attempts),
            _became(found, row),
        )
        for row in found.reports
    ]
    out.table(("Report", "Analysis", "For", "State", "Retries", ""), rows, "<<<<><")


def _became(found: "ScanFile", row: "ReportRow") -> str:
    if row.delivered_at is not None:
        return f"{moment(row.delivered_at)} UTC"
    due = "" if row.next_attempt_at is None else _due((row.next_attempt_at - found.at).total_seconds())
    return "; ".join(filter(None, (due, row.error)))


def _due(seconds: float) -> str:
    return "due" if seconds <= 0 else f"due in {span(seconds)}"


def _show_upload(out: Screen, found: "ScanFile", upload: "UploadRow") -> None:
    out.say(f"{out.paint(upload.scan_id, 'bold')}  is being received", "")
    noted = span((found.at - upload.touched_at).total_seconds())
    out.facts(
        [
            ("From", upload.source),
            ("Kept", f"{size(upload.kept)} of {size(upload.size)}; somebody was there {noted} ago"),
        ]
    )
