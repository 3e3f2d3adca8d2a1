"""``fr status``, ``scans``, ``show``, ``retry``, ``resend`` and ``verify`` on the store in memory."""

import argparse
import contextlib
import io
import json
import os
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.command import columns, desk, main
from fr_twisted.command.trouble import CommandError
from fr_twisted.config import OperatorSettings
from fr_twisted.model import CHUNK_SIZE, ScanState
from fr_twisted.store.interfaces import StoreUnusableError
from tests.fakes_store import START, MemoryStore
from tests.store_behaviour import Bench, new_report


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Return True."""
        return True


class StoreCommandTestCase(SynchronousTestCase):
    """Runs ``fr`` on a store in memory, and on no other."""

    def setUp(self) -> None:
        """Make the store."""
        self.clock = Clock()
        self.store = MemoryStore(self.clock, node="hub-a", unit="hub")
        self.bench = Bench(self.store, self.pass_time)
        self.patch(desk, "perform", self.perform)
        self.patch(desk, "person", lambda: "by alice")
        self.patch(os, "environ", {k: v for k, v in os.environ.items() if not k.startswith("FR_")})
        folder = Path(self.mktemp())
        folder.mkdir()
        here = Path.cwd()
        os.chdir(folder)
        self.addCleanup(os.chdir, here)

    def pass_time(self, seconds: float) -> Deferred[None]:
        """Let time pass."""
        self.clock.advance(seconds)
        return succeed(None)

    def perform(self, settings: OperatorSettings, given: argparse.Namespace, work: desk.Work) -> int:
        """Do the work here and now."""
        results: list[Any] = []
        Deferred.fromCoroutine(desk.at_store(self.store, settings, given, work)).addBoth(results.append)
        [result] = results
        if not isinstance(result, int):
            result.raiseException()
        return int(result)

    def do(self, coroutine: Any) -> Any:
        """Return what a coroutine returned."""
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def fr(self, *arguments: str, stream: io.StringIO | None = None) -> tuple[int, str, str]:
        """Return exit status, standard output and standard error of a command line."""
        out, err = stream or io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status = main.main(arguments)
            except SystemExit as error:
                status = int(error.code or 0)
        return status, out.getvalue(), err.getvalue()

    def lines(self, *arguments: str) -> list[str]:
        """Return what a command prints that is done."""
        status, out, err = self.fr(*arguments)
        self.assertEqual((status, err), (0, ""))
        return out.splitlines()

    def json(self, *arguments: str, status: int = 0) -> Any:
        """Return the JSON that a command prints."""
        found, out, err = self.fr(*arguments, "--json")
        self.assertEqual((found, err), (status, ""))
        return json.loads(out)

    def refused(self, *arguments: str) -> str:
        """Return the one line that is said of what cannot be done."""
        status, out, err = self.fr(*arguments)
        self.assertEqual((status, out), (2, ""), err)
        self.assertTrue(err.startswith(f"fr {arguments[0]}: "), err)
        self.assertEqual(err.count("\n"), 1, err)
        return err.removeprefix(f"fr {arguments[0]}: ").strip()

    async def fill(self) -> None:
        """Put a scan in each state, a delivered and a refused report, and an upload into the store."""
        reports = self.store.reports()
        await self.bench.report("a1")
        await reports.delivered(await self.bench.take())
        await self.bench.report("a2")
        await reports.refused(await self.bench.take(), "damaged: no bundle")
        await self.bench.keep("b")
        await self.store.scans().fail(await self.bench.claim(), "signal 11: it died")
        await self.bench.keep("c", size=3 * CHUNK_SIZE, node="ward")
        await self.bench.claim(60.0, "brain-1.3f2a")
        await self.bench.keep("d")
        upload = await self.bench.begin(self.bench.new_scan("up", size=2 * CHUNK_SIZE))
        await self.bench.write(upload, "up", 0)
        self.clock.advance(30.0)


class StatusTests(StoreCommandTestCase):
    """``fr status``."""

    def test_table(self) -> None:
        """It shows states, nodes, leases and uploads in aligned columns, without colour where there is no terminal."""
        self.do(self.fill())
        self.assertEqual(
            self.lines("status"),
            [
                "memory; 2026-01-01 00:00:30 UTC",
                "",
                "State        Scans  Oldest",
                "To Do            1    30 s",
                "In Progress      1    30 s",
                "Done             2    30 s",
                "Failed           1    30 s",
                "",
                "Last hour: 5 received, 2 analysed, 1 delivered",
                "",
                "Node    Received  Analysed  Delivered  Last scan  Reports waiting  Refused",
                "pacs-1         4         2          1   30 s ago                0        1",
                "ward           1         0          0   30 s ago                0        0",
                "",
                "In progress  Lease of      Attempt  Left",
                "scan-c       brain-1.3f2a        1  30 s",
                "",
                "Being received  From    At least      Of     Noted",
                "scan-up         pacs-1    1.0 MB  2.1 MB  30 s ago",
            ],
        )

    def test_namedAnalyses(self) -> None:
        """It shows for which analyses scans wait, and when a BRAIN that runs each was last seen."""

        async def fill() -> None:
            await self.store.scans().claim("brain-1", 60.0, "t1-volumes")
            await self.bench.keep("a", analysis="t1-volumes")
            await self.bench.keep("b", analysis="lesions")
            await self.bench.keep("c", analysis="lesions")
            await self.bench.keep("d")

        self.do(fill())
        self.clock.advance(240.0)
        lines = self.lines("status")
        at = lines.index("Waiting for analysis  Scans  Oldest  Such a BRAIN seen")
        self.assertEqual(
            lines[at + 1 :],
            [
                "lesions                   2   4 min              never",
                "t1-volumes                1   4 min          4 min ago",
            ],
        )
        shown = "\n".join(self.lines("show", "b"))
        self.assertIn("waits for lesions; no BRAIN that runs it was ever seen", shown)
        shown = "\n".join(self.lines("show", "a"))
        self.assertIn("waits for t1-volumes; a BRAIN that runs it was seen 4 min ago", shown)
        self.do(self.bench.claim(analysis="lesions"))
        facts = self.lines("show", "b")
        self.assertIn(["Analysis", "lesions"], [line.split() for line in facts])

    def test_empty(self) -> None:
        """Of an empty store it shows the states alone."""
        lines = self.lines("status")
        self.assertEqual(lines[-1], "Last hour: 0 received, 0 analysed, 0 delivered")
        self.assertEqual(
            lines[3:7],
            ["To Do            0", "In Progress      0", "Done             0", "Failed           0"],
        )

    def test_json(self) -> None:
        """It says the same to programs."""
        self.do(self.fill())
        found = self.json("status")
        counts = {row["state"]: row["count"] for row in found["states"]}
        self.assertEqual(counts, {"To Do": 1, "In Progress": 1, "Done": 2, "Failed": 1})
        self.assertEqual(round(found["states"][0]["oldest_seconds"]), 30)
        self.assertEqual(found["last_hour"], {"received": 5, "analysed": 2, "delivered": 1})
        self.assertEqual([node["node"] for node in found["nodes"]], ["pacs-1", "ward"])
        [lease] = found["leases"]
        self.assertEqual((lease["owner"], round(lease["seconds_left"])), ("brain-1.3f2a", 30))
        self.assertEqual(found["uploads"][0]["scan_id"], "scan-up")
        self.assertEqual((found["uploads_in_all"], found["server"]), (1, "memory"))

    def test_manyLeases(self) -> None:
        """Of many leases it shows some, and says how many more there are."""

        async def fill() -> None:
            for n in range(53):
                await self.bench.keep(f"{n:02}")
                await self.bench.claim()

        self.do(fill())
        self.assertEqual(self.lines("status")[-1], "and 3 more")

    def test_storeIsDown(self) -> None:
        """A store that cannot be reached is one line on standard error, and status 2."""
        self.store.down = True
        self.assertEqual(self.refused("status"), "the store cannot be reached")
        self.store.down = False
        self.store.fail_next(StoreUnusableError("wrong password"), op="open")
        self.assertEqual(self.refused("status"), "wrong password")


class SettingsTests(StoreCommandTestCase):
    """Where the store is."""

    def test_environmentAndFile(self) -> None:
        """The store is the one that the units' own variables name, those of the environment before those of .env."""
        Path(".env").write_text("FR_MONGO_URI=mongodb://a/fr\nFR_MONGO_TIMEOUT=3\nFR_HUB_NODE=h\nOTHER=1\n")
        found = desk.settings({"FR_MONGO_URI": "mongodb://b/fr"}, Path.cwd())
        self.assertEqual((found.mongo_uri, found.mongo_timeout), ("mongodb://b/fr", 3.0))
        self.assertEqual(desk.settings({}, Path.cwd()).mongo_uri, "mongodb://a/fr")

    def test_wrong(self) -> None:
        """A setting that cannot be used is named, and what it holds is not shown if it is secret."""
        for environ, words in (
            ({"FR_MONGO_URI": "postgres://u:secret@h/x"}, "FR_MONGO_URI has a value (not shown here)"),
            ({"FR_MONGO_URI": "mongodb://h/x?secret=1"}, "FR_MONGO_URI: "),
            ({"FR_MONGO_UR": "x"}, "did you mean FR_MONGO_URI?"),
            ({"FR_MONGO_TLS_CA": "/nowhere"}, "FR_MONGO_TLS_CA: /nowhere cannot be read"),
        ):
            with self.assertRaises(CommandError) as caught:
                desk.settings(environ, Path.cwd())
            self.assertIn(words, str(caught.exception))
            self.assertNotIn("secret@", str(caught.exception))
            self.assertNotIn("--", str(caught.exception))


class ScansTests(StoreCommandTestCase):
    """``fr scans``."""

    def test_table(self) -> None:
        """It lists scans, the last received first, with the reason of a failure at the end."""
        self.do(self.fill())
        self.assertEqual(
            self.lines("scans"),
            [
                "Received (UTC)       Scan     Patient     From    State        Attempts    Size  Reason",
                "2026-01-01 00:00:00  scan-d   patient-d   pacs-1  To Do               0   100 B",
                "2026-01-01 00:00:00  scan-c   patient-c   ward    In Progress         1  3.1 MB",
                "2026-01-01 00:00:00  scan-b   patient-b   pacs-1  Failed              1   100 B  signal 11: it died",
                "2026-01-01 00:00:00  scan-a2  patient-a2  pacs-1  Done                1   100 B",
                "2026-01-01 00:00:00  scan-a1  patient-a1  pacs-1  Done                1   100 B",
            ],
        )

    def test_more(self) -> None:
        """It lists no more than it may, and says so when there are more."""
        self.do(self.fill())
        lines = self.lines("scans", "--limit", "2")
        self.assertEqual(len(lines), 5)
        self.assertEqual(
            lines[-1], "There are more than these 2: see --limit, --state, --patient and --since."
        )
        self.assertEqual(len(self.lines("scans", "--limit", "5")), 6)
        found = self.json("scans", "--limit", "4")
        self.assertEqual((len(found["scans"]), found["more"]), (4, True))

    def test_conditions(self) -> None:
        """It lists those alone that are asked for."""

        async def later() -> None:
            self.clock.advance(7200.0)
            await self.bench.keep("new")

        self.do(self.fill())
        self.do(later())

        def ids(*arguments: str) -> list[str]:
            return [row["scan_id"] for row in self.json("scans", *arguments)["scans"]]

        self.assertEqual(ids("--state", "Failed"), ["scan-b"])
        self.assertEqual(ids("--state", "in progress"), ["scan-c"])
        self.assertEqual(ids("--state", "to-do"), ["scan-new", "scan-d"])
        self.assertEqual(ids("--patient", "patient-a1"), ["scan-a1"])
        self.assertEqual(ids("--since", "90min"), ["scan-new"])
        self.assertEqual(len(ids("--since", "3h")), 6)
        self.assertEqual(ids("--since", "2026-01-01T01:00"), ["scan-new"])
        self.assertEqual(ids("--since", "2026-01-01T01:00+09:00", "--state", "failed"), ["scan-b"])
        self.assertEqual(self.lines("scans", "--patient", "nobody"), ["no scans"])

    def test_badUsage(self) -> None:
        """What is no state, time or number is said so, with what may be given."""
        for arguments, words in (
            (("--state", "Finished"), "there are to-do, in-progress, done, failed"),
            (("--since", "yesterday"), "give a span such as 90min, 2h or 7d"),
            (("--limit", "0"), "is no number from 1 to 10000"),
            (("--limit", "many"), "is no number from 1 to 10000"),
        ):
            status, out, err = self.fr("scans", *arguments)
            self.assertEqual((status, out), (2, ""))
            self.assertIn(words, err)

    def test_odd(self) -> None:
        """A span before all calendars, and letters that are none, are one line."""
        self.assertIn("there was no calendar", self.refused("scans", "--since", "999999d"))
        for arguments in (("scans", "--patient", "\udcff"), ("show", "\udcff"), ("retry", "\udcff")):
            self.assertIn("no text in UTF-8", self.refused(*arguments))


class ShowTests(StoreCommandTestCase):
    """``fr show``."""

    def test_story(self) -> None:
        """It shows what a scan is, everything that happened to it and who did it, and what became of its report."""
        self.do(self.fill())
        digest = self.store.scan_docs["scan-a1"].sha256
        self.assertEqual(
            self.lines("show", "scan-a1"),
            [
                "scan-a1  Done",
                "",
                "Patient   patient-a1",
                "From      pacs-1",
                "Received  2026-01-01 00:00:00 UTC, 30 s ago",
                "Payload   nifti, 100 B",
                f"SHA-256   {digest}",
                "Priority  5",
                "Attempts  1",
                "",
                "Time (UTC)               Event      Unit  Node   Detail",
                "2026-01-01 00:00:00.000  received   hub   hub-a",
                "2026-01-01 00:00:00.005  claimed    hub   hub-a  brain-1",
                "2026-01-01 00:00:00.005  done       hub   hub-a  report-a1",
                "2026-01-01 00:00:00.010  delivered  hub   hub-a  report-a1",
                "",
                "Report     Analysis      For     State      Retries",
                "report-a1  t1-volumes 1  pacs-1  delivered        0  2026-01-01 00:00:00 UTC",
            ],
        )

    def test_beginnings(self) -> None:
        """The beginning of an id is enough, and so is a report's; where several begin so, they are named."""
        self.do(self.fill())
        for text in ("scan-b", "b", "scan-a1", "a1", "report-a1", "report-a2"):
            self.assertIn(f"scan-{text[-1] if text[-1] == 'b' else text[-2:]}", self.lines("show", text)[0])
        self.assertEqual(
            self.refused("show", "a"), "2 scans begin with 'a': scan-a1, scan-a2; give more of the id"
        )
        self.assertIn("at least 6 scans begin with 'scan-': ", self.refused("show", "scan-"))
        self.assertEqual(self.refused("show", "x"), "there is no scan or report that begins with 'x'")
        self.assertEqual(self.refused("show", ""), "there is no scan or report that begins with ''")

    def test_states(self) -> None:
        """It shows whose lease it is, why a scan failed, why a report waits, and how much of an upload there is."""
        self.do(self.fill())
        self.assertIn("Lease     brain-1.3f2a, ends in 30 s", self.lines("show", "scan-c"))
        self.assertIn("Reason    signal 11: it died", self.lines("show", "scan-b"))
        self.assertIn("refused        0  damaged: no bundle", self.lines("show", "a2")[-1])
        self.assertEqual(self.lines("show", "up")[-1], "Kept  1.0 MB of 2.1 MB; somebody was there 30 s ago")
        self.clock.advance(60.0)
        self.assertIn("Lease     brain-1.3f2a, ended 30 s ago", self.lines("show", "scan-c"))

    def test_leftOut(self) -> None:
        """It says which lines the history does not hold: old ones, uncounted claims, failed deliveries; or none."""
        self.do(self.bench.keep("a"))
        for _ in range(9):
            claim = self.do(self.bench.claim())
            self.successResultOf(self.store.scans().release(claim, "no room", False))
        shown = self.lines("show", "a")
        self.assertIn("Attempts  0, and 9 that do not count", shown)
        few = "the first 8 and the 16th, 32nd, 64th ... are told."
        self.assertEqual(shown[-1], f"It was released uncounted 9 times; of these claims {few}")
        self.assertFalse(self.json("show", "a")["history_complete"])
        scan = self.store.scan_docs["scan-a"]
        self.store.scan_docs["scan-a"] = scan.model_copy(update={"given_back": 0})
        self.assertTrue(self.json("show", "a")["history_complete"])
        cut = {"given_back": 0, "history": scan.history[1:]}
        self.store.scan_docs["scan-a"] = scan.model_copy(update=cut)
        self.assertEqual(self.lines("show", "a")[-1], "Earlier lines were left out: the last 200 are kept.")
        claim = self.do(self.bench.claim())
        self.successResultOf(self.store.scans().complete(claim, new_report()))
        for _ in range(9):
            report = self.do(self.bench.take())
            self.successResultOf(self.store.reports().put_back(report, "busy", 0))
        self.assertIn(f"report-a was put back 9 times; of these {few}", self.lines("show", "a"))

    def test_json(self) -> None:
        """It tells programs the document, the history in order, and the reports without what they found."""
        self.do(self.fill())
        found = self.json("show", "a1")
        events = [entry["event"] for entry in found["scan"]["history"]]
        self.assertEqual(events, ["received", "claimed", "done", "delivered"])
        self.assertEqual((found["scan"]["scan_id"], found["scan"]["report_generated"]), ("scan-a1", "Done"))
        self.assertEqual(found["reports"][0]["state"], "delivered")
        self.assertNotIn("findings", json.dumps(found))

    def test_noNames(self) -> None:
        """What a sender added to the facts of a scan, were it the patient's name, is not shown."""
        self.do(self.fill())
        scan = self.store.scan_docs["scan-a1"]
        meta = type(scan.meta).model_validate(
            {**scan.meta.model_dump(), "PatientName": "Doe^Jane", "facts": {"name": "Doe^Jane"}}
        )
        self.store.scan_docs["scan-a1"] = scan.model_copy(update={"meta": meta})
        for arguments in (
            ("show", "a1"),
            ("show", "a1", "--json"),
            ("scans",),
            ("scans", "--json"),
            ("status",),
        ):
            self.assertNotIn("Doe", "\n".join(self.lines(*arguments)))


class RetryTests(StoreCommandTestCase):
    """``fr retry``."""

    def test_one(self) -> None:
        """A Failed scan is To Do again, and its history says who did it."""
        self.do(self.fill())
        self.assertEqual(self.lines("retry", "b"), ["scan-b is To Do again"])
        scan = self.store.scan_docs["scan-b"]
        self.assertEqual((scan.report_generated, scan.attempts), (ScanState.TO_DO, 0))
        self.assertEqual((scan.history[-1].event, scan.history[-1].detail), ("retried", "by alice"))

    def test_refused(self) -> None:
        """What is not Failed, or not there, is refused in one line."""
        self.do(self.fill())
        self.assertEqual(
            self.refused("retry", "scan-d"), "scan-d is To Do, not Failed: there is nothing to retry"
        )
        self.assertEqual(self.refused("retry", "x"), "there is no scan that begins with 'x'")

    def test_payloadIsGone(self) -> None:
        """A scan whose payload was removed cannot be tried again, and it is said why."""
        self.do(self.fill())
        for name in ("scan-b", "scan-a1"):
            scan = self.store.scan_docs[name]
            self.store.scan_docs[name] = scan.model_copy(update={"payload_removed_at": START})
        gone = "its payload was removed on 2026-01-01T00:00:00.000+00:00, so nothing is left to analyse"
        self.assertEqual(self.refused("retry", "b"), f"scan-b is Failed, but {gone}")
        self.assertEqual(
            self.refused("retry", "a1"), f"scan-a1 is Done, not Failed: there is nothing to retry; and {gone}"
        )
        self.assertEqual(
            self.lines("retry", "--failed"),
            [f"not retried: scan-b is Failed, but {gone}", "0 scans To Do again"],
        )
        self.assertIn("Payload   nifti, 100 B, removed on 2026-01-01 00:00:00 UTC", self.lines("show", "a1"))

    def test_broken(self) -> None:
        """A scan whose bytes were found broken says so, and when."""
        self.do(self.fill())
        scan = self.store.scan_docs["scan-b"]
        self.store.scan_docs["scan-b"] = scan.model_copy(update={"payload_broken_at": START})
        self.assertIn(
            "Payload   nifti, 100 B, found broken on 2026-01-01 00:00:00 UTC", self.lines("show", "b")
        )

    def test_all(self) -> None:
        """All that are Failed are tried again, each once."""

        async def fill() -> None:
            for n in range(450):
                await self.bench.keep(f"{n:03}")
                await self.store.scans().fail(await self.bench.claim(), "x")

        self.do(fill())
        found = self.json("retry", "--failed")
        self.assertEqual(found["retried"], [f"scan-{n:03}" for n in range(450)])
        self.assertEqual(found["refused"], [])
        self.assertEqual(self.lines("retry", "--failed"), ["no scan is Failed"])

    def test_badUsage(self) -> None:
        """One scan or all of them must be said, and not both."""
        self.assertEqual(self.fr("retry")[0], 2)
        self.assertEqual(self.fr("retry", "scan-a", "--failed")[0], 2)


class ResendTests(StoreCommandTestCase):
    """``fr resend``."""

    def test_resend(self) -> None:
        """A delivered report, and a refused one, are due again, and the history of the scan says who asked."""
        self.do(self.fill())
        self.assertEqual(self.lines("resend", "report-a1"), ["report-a1 is due again for pacs-1"])
        self.assertEqual(
            self.json("resend", "a2"), {"resent": "report-a2", "scan_id": "scan-a2", "destination": "pacs-1"}
        )
        for name in ("a1", "a2"):
            report = self.store.report_docs[f"report-{name}"]
            self.assertEqual((report.status, report.refused), (False, False))
            last = self.store.scan_docs[f"scan-{name}"].history[-1]
            self.assertEqual((last.event, last.detail), ("resent", f"report-{name}, by alice"))

    def test_refused(self) -> None:
        """A report that waits, or is not there, is refused in one line."""
        self.do(self.fill())
        self.lines("resend", "a1")
        self.assertEqual(
            self.refused("resend", "a1"),
            "report-a1 was neither delivered nor refused: it waits for pacs-1 already",
        )
        self.assertEqual(self.refused("resend", "x"), "there is no report that begins with 'x'")


class VerifyTests(StoreCommandTestCase):
    """``fr verify``."""

    def test_clean(self) -> None:
        """Where all is well it says how much it looked at, and its status is 0."""
        self.do(self.fill())
        [line] = self.lines("verify")
        self.assertTrue(line.startswith("5 scans, 2 reports, 1 upload; 7 payloads, 3.1 MB hashed, in "), line)
        self.assertTrue(line.endswith(": clean"), line)

    def test_findings(self) -> None:
        """Each finding is a line, and the status is 1."""
        self.do(self.fill())
        del self.store.chunk_docs[self.store.scan_docs["scan-c"].payload_id, 1]
        payload_id = self.store.scan_docs["scan-d"].payload_id
        self.store.chunk_docs[payload_id, 0] = bytes(100)
        self.store.report_docs.pop("report-a1")
        status, out, err = self.fr("verify")
        self.assertEqual((status, err), (1, ""))
        lines = out.splitlines()
        self.assertEqual(lines[0], "done-without-report   scan-a1  Done, but there is no report of it")
        self.assertEqual(lines[1], "chunk-missing         scan-c  chunk 1: missing, of 3")
        self.assertTrue(lines[2].startswith("digest                scan-d  its bytes have the sha256 "))
        self.assertTrue(lines[3].startswith("orphan                report-a1.1  "))
        self.assertIn(": 4 findings: 1 chunk-missing, 1 digest, 1 done-without-report, 1 orphan", lines[4])

    def test_warnings(self) -> None:
        """What waits in vain is told as a warning, for which nothing is unclean."""
        self.do(self.bench.keep("a"))
        for _ in range(9):
            claim = self.do(self.bench.claim())
            self.successResultOf(self.store.scans().release(claim, "no room", False))
        self.do(self.bench.keep("b", analysis="lesions"))
        self.do(self.bench.keep("c", analysis="seen", priority=9))
        self.store.analyses_seen["seen"] = self.store.time()
        shown = self.lines("verify")
        words = "To Do, but BRAINs that could not do it gave it back 9 times: no room"
        self.assertEqual(shown[0], f"given-back            scan-a  warning: {words}")
        words = "To Do, and no BRAIN that runs lesions was ever seen"
        self.assertEqual(shown[1], f"unserved              scan-b  warning: {words}")
        self.assertTrue(shown[2].endswith(": clean; 2 warnings: 1 given-back, 1 unserved"), shown[2])
        self.successResultOf(self.store.scans().complete(self.do(self.bench.claim()), new_report()))
        self.clock.advance(86400.0)
        found = self.json("verify")
        self.assertEqual((found["clean"], found["counts"]), (True, {}))
        self.assertEqual(found["warnings"], {"report-waiting": 1, "unserved": 2})
        self.assertEqual({finding["warning"] for finding in found["findings"]}, {True})
        self.store.chunk_docs["x", 0] = b"1"
        self.assertEqual(self.json("verify", status=1)["counts"], {"orphan": 1})

    def test_json(self) -> None:
        """It is one JSON document, clean or not."""
        self.do(self.fill())
        found = self.json("verify")
        self.assertEqual((found["clean"], found["findings"], found["counts"]), (True, [], {}))
        self.assertEqual((found["checked"]["scans"], found["checked"]["payloads"]), (5, 7))
        self.store.chunk_docs["x", 0] = b"1"
        self.store.chunk_docs["y", 0] = b"2"
        found = self.json("verify", status=1)
        self.assertEqual((found["clean"], found["counts"]), (False, {"orphan": 2}))
        self.assertEqual([finding["id"] for finding in found["findings"]], ["x", "y"])

    def test_grace(self) -> None:
        """What was left behind is found once it is older than the grace."""
        self.do(self.fill())
        self.clock.advance(100.0)
        self.assertEqual(self.fr("verify")[0], 0)
        status, out, _ = self.fr("verify", "--grace", "60")
        self.assertEqual((status, out.split()[0]), (1, "stuck"))
        self.assertEqual(self.fr("verify", "--grace", "-1")[0], 2)

    def test_removedPayload(self) -> None:
        """A payload that was removed on purpose is fine, and counted."""
        self.do(self.fill())
        scan = self.store.scan_docs["scan-a1"]
        del self.store.chunk_docs[scan.payload_id, 0]
        self.store.scan_docs["scan-a1"] = scan.model_copy(update={"payload_removed_at": START})
        [line] = self.lines("verify")
        self.assertIn("6 payloads (1 removed by retention)", line)

    def test_withoutPayloads(self) -> None:
        """Without reading the payloads it finds what is missing of them, but not what is wrong in them."""
        self.do(self.fill())
        self.store.chunk_docs[self.store.scan_docs["scan-d"].payload_id, 0] = bytes(100)
        self.assertIn(" 0 B hashed", self.lines("verify", "--no-payloads")[0])
        del self.store.chunk_docs[self.store.scan_docs["scan-d"].payload_id, 0]
        self.assertEqual(self.fr("verify", "--no-payloads")[0], 1)

    def test_storeGoesDown(self) -> None:
        """A store that fails before the end is one line on standard error, and status 2: neither clean nor not."""
        self.store.fail_next(op="verify")
        status, _, err = self.fr("verify")
        self.assertEqual((status, err), (2, "fr verify: the store does not answer\n"))


class ScreenTests(StoreCommandTestCase):
    """What a terminal gets, and what it is spared."""

    def test_terminal(self) -> None:
        """On a terminal states have colours, and what is too long is cut to the line."""
        self.do(self.fill())
        self.patch(os, "environ", {"TERM": "xterm", "COLUMNS": "95"})
        _, out, _ = self.fr("scans", stream=Terminal())
        self.assertIn("\033[31mFailed", out)
        self.assertIn("  signal 11:...\n", out)
        self.patch(os, "environ", {"TERM": "xterm", "COLUMNS": "95", "NO_COLOR": "1"})
        _, out, _ = self.fr("scans", stream=Terminal())
        self.assertNotIn("\033", out)

    def test_controlCharacters(self) -> None:
        """Nothing that others wrote reaches the terminal as a command to it."""
        self.do(self.fill())
        scan = self.store.scan_docs["scan-b"]
        self.store.scan_docs["scan-b"] = scan.model_copy(
            update={"error": "a\033[2Jb\nc", "patient_id": "p\r\x07"}
        )
        for arguments in (("scans",), ("show", "b")):
            text = "\n".join(self.lines(*arguments))
            self.assertNotIn("\033", text)
            self.assertIn("a?[2Jb c", text)

    def test_words(self) -> None:
        """Ages, sizes and numbers are as people read them."""
        spans = {0: "0 s", 59.4: "59 s", 61: "1 min", 7500: "2 h 05 min", 190000: "2 d 4 h"}
        self.assertEqual({seconds: columns.span(seconds) for seconds in spans}, spans)
        sizes = {0: "0 B", 999: "999 B", 1000: "1.0 kB", 999_960: "1.0 MB", 3 * 10**15: "3000.0 TB"}
        self.assertEqual({count: columns.size(count) for count in sizes}, sizes)

    def test_help(self) -> None:
        """Each command is in the help, and its own help tells where the store is and what its status means."""
        _, whole, _ = self.fr("--help")
        for name in ("status", "scans", "show", "retry", "resend", "verify"):
            self.assertIn(f"\n    {name} ", whole)
            status, out, _ = self.fr(name, "--help")
            self.assertEqual(status, 0)
            self.assertIn("FR_MONGO_URI", out)
            self.assertIn("exit status:", out)
