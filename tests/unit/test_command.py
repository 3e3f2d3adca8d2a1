"""``fr``: inputs of every kind, choices, exit statuses, and one clear line where something is wrong."""

import contextlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from fr_twisted import __version__, bundle
from fr_twisted.brain import jobs
from fr_twisted.brain.analysis import read_tar
from fr_twisted.command import analyse, main, pick, place
from fr_twisted.command.trouble import CommandError
from fr_twisted.model import PayloadFormat
from fr_twisted.pacs.files import Stamp, walk
from fr_twisted.pacs.scans import classify
from tests import analyses_for_tests, report_builders
from tests.pacs_builders import new_folder, write_nifti, write_series

STANDIN = f"{report_builders.MODULE}:USABLE"
NOT_USABLE = f"{report_builders.MODULE}:NOT_USABLE"


class CommandTestCase(SynchronousTestCase):
    """Runs the command here; the analysis too, unless a test says otherwise."""

    def setUp(self) -> None:
        """Make a folder, and note what is analysed."""
        self.root = new_folder(self)
        self.out = self.root / "out"
        self.jobs: list[jobs.Job] = []
        self.payloads: list[bytes] = []
        self.patch(analyse, "perform", self.perform)

    def perform(self, job: jobs.Job, memory: int, seconds: float) -> jobs.Outcome:
        """Do a job."""
        self.jobs.append(job)
        self.payloads.append(job.payload.read_bytes())
        return jobs.run(job)

    def fr(self, *arguments: Any) -> tuple[int, str, str]:
        """Return exit status, standard output and standard error of a command line."""
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(
            io.StringIO()
        ) as err:
            try:
                status = main.main([str(argument) for argument in arguments])
            except SystemExit as error:
                status = int(error.code or 0)
        return status, out.getvalue(), err.getvalue()

    def analyse(self, path: Path, *options: Any, analysis: str = STANDIN) -> tuple[int, str, str]:
        """Analyse."""
        return self.fr("analyse", path, "--out", self.out, "--analysis", analysis, *options)

    def refused(self, path: Path, *options: Any, analysis: str = STANDIN) -> str:
        """Return the one thing that is said of what cannot be used."""
        status, out, err = self.analyse(path, *options, analysis=analysis)
        self.assertEqual((status, out), (2, ""), err)
        self.assertTrue(err.startswith("fr analyse: "), err)
        self.assertNotIn("Traceback", err)
        return err.removeprefix("fr analyse: ").strip()


class InputTests(CommandTestCase):
    """What PATH may be."""

    def test_nifti(self) -> None:
        """A NIfTI file, packed or not, is measured as it lies, and its files are in the folder."""
        for name, kind in (
            ("sub-01_T1w.nii", PayloadFormat.NIFTI),
            ("sub-01_T1w.nii.gz", PayloadFormat.NIFTI_GZ),
        ):
            path = write_nifti(self.root / name)
            status, _, err = self.analyse(path)
            self.assertEqual((status, err), (0, ""))
            self.assertEqual(self.jobs[-1].meta.format, kind)
            self.assertEqual(self.jobs[-1].meta.patient_id, "sub-01")
            self.assertEqual(self.payloads[-1], path.read_bytes())
            self.assertTrue(self.jobs[-1].payload.name.endswith("".join(path.suffixes)))
            names = {file.name for file in self.out.iterdir()}
            self.assertEqual(names, {"report.json", "report.html", "report.pdf", "overlay.png"})
            for file in self.out.iterdir():
                file.unlink()

    def test_folder(self) -> None:
        """The one series in a folder, at any depth and beside other files, is packed and measured."""
        write_series(self.root / "in" / "a" / "b")
        (self.root / "in" / "notes.txt").write_text("hello")
        status, out, err = self.analyse(self.root / "in")
        self.assertEqual((status, err), (0, ""))
        job = self.jobs[-1]
        self.assertEqual((job.meta.patient_id, job.meta.series_instance_uid), ("P-17", "1.2.3"))
        with tarfile.open(fileobj=io.BytesIO(self.payloads[-1])) as tar:
            self.assertEqual(len(tar.getnames()), 8)
        report = json.loads((self.out / "report.json").read_bytes())
        self.assertEqual((report["scan_id"], report["series_instance_uid"]), (job.scan_id, "1.2.3"))
        self.assertIn("P-17 | female, 76 years | T1 test", out)

    def test_tar(self) -> None:
        """A tar of a series gives the same scan as the folder, whatever its entries are called."""
        files = write_series(self.root / "in")
        with tarfile.open(self.root / "series.tar", "w") as tar:
            for number, file in enumerate(files):
                tar.add(file, f"../../{number}/etc/passwd")
            tar.addfile(tarfile.TarInfo("empty"))
        self.assertEqual(self.analyse(self.root / "series.tar")[0], 0)
        self.assertEqual(self.analyse(self.root / "in")[0], 0)
        self.assertEqual(self.jobs[0].scan_id, self.jobs[1].scan_id)
        self.assertEqual(self.payloads[0], self.payloads[1])
        self.assertEqual({file.name for file in self.root.iterdir()}, {"in", "out", "series.tar"})

    def test_sameScanAgain(self) -> None:
        """The same scan gives the same report, byte for byte, and may be written over itself."""
        path = write_nifti(self.root / "sub-01.nii")
        runs = []
        for _ in range(2):
            self.assertEqual(self.analyse(path)[0], 0)
            runs.append({file.name: file.read_bytes() for file in self.out.iterdir()})
        self.assertEqual(runs[0], runs[1])

    def test_limitsAreThoseOfTheAnalysis(self) -> None:
        """A tar may hold as much as the analysis takes of a series, and no more."""
        with tarfile.open(self.root / "series.tar", "w") as tar:
            for file in write_series(self.root / "in"):
                tar.add(file)
        for name, most in (("MAX_FILES", 7), ("MAX_BYTES", 4000)):
            before = getattr(read_tar, name)
            self.patch(read_tar, name, most)
            self.assertIn("send one MR series", self.refused(self.root / "series.tar"))
            self.patch(read_tar, name, before)


class SeriesTests(CommandTestCase):
    """Which of several series is measured."""

    def setUp(self) -> None:
        """Make a study."""
        super().setUp()
        self.study = self.root / "study"
        write_series(self.study / "t1", series="1.2.1", SeriesDescription="T1 MPRAGE sag")
        write_series(self.study / "t2", series="1.2.2", SeriesDescription="T2 FLAIR 3D")
        write_series(self.study / "other", series="1.2.3", SeriesDescription="ax")

    def test_theOneThatLooksT1(self) -> None:
        """One of them alone looks T1-weighted: it is measured, and the choice is said."""
        status, _, err = self.analyse(self.study)
        self.assertEqual(status, 0)
        self.assertEqual(self.jobs[-1].meta.series_instance_uid, "1.2.1")
        self.assertIn("3 scans; measuring the one that looks T1-weighted", err)
        self.assertIn("--series 1.2.1  T1 MPRAGE sag  (8 slices, 1 x 1 x 1.2 mm)", err)

    def test_chosen(self) -> None:
        """--series chooses."""
        status, _, err = self.analyse(self.study, "--series", "1.2.3")
        self.assertEqual((status, err), (0, ""))
        self.assertEqual(self.jobs[-1].meta.series_instance_uid, "1.2.3")

    def test_choiceIsAskedFor(self) -> None:
        """Two that look alike, or none: all are listed, with how to choose."""
        write_series(self.study / "more", series="1.2.4", SeriesDescription="T1 BRAVO")
        said = self.refused(self.study)
        self.assertIn("4 scans, and 2 of them look T1-weighted; choose one", said)
        for number in range(1, 5):
            self.assertIn(f"--series 1.2.{number}  ", said)
        for folder in ("t1", "more"):
            for file in (self.study / folder).iterdir():
                file.unlink()
        self.assertIn("2 scans, and none of them looks T1-weighted", self.refused(self.study))

    def test_noSuchSeries(self) -> None:
        """A series that is not there is said, with those that are."""
        said = self.refused(self.study, "--series", "1.9")
        self.assertIn("no whole series 1.9; there is:\n", said)
        self.assertIn("--series 1.2.2", said)

    def test_words(self) -> None:
        """What is called T1 after any maker's fashion is told from what is not."""
        folder = self.root / "words"
        for words, expected in (
            *(
                (name, True)
                for name in (
                    "MPRAGE",
                    "t1_mprage_sag_p2",
                    "3D T1 TFE",
                    "Sag FSPGR BRAVO",
                    "AX T1 POST",
                    "mp2rage",
                )
            ),
            *(
                (name, False)
                for name in ("T2 SPACE", "t1 flair", "DWI", "localizer T1", "TOF 3D", "PD", "T1 map", "SWI")
            ),
        ):
            write_series(folder, SeriesDescription=words)
            drops, _ = classify((item for item in walk(folder) if isinstance(item, Stamp)), None)
            self.assertEqual(pick.looks_t1(drops[0]), expected, words)

    def test_niftiByName(self) -> None:
        """Of several NIfTI files, the one whose name says T1 is taken."""
        for name in ("sub-01_T1w.nii.gz", "sub-01_T2w.nii.gz"):
            write_nifti(self.root / "bids" / name)
        self.assertEqual(self.analyse(self.root / "bids")[0], 0)
        self.assertIn("sub-01_T1w.nii.gz", self.analyse(self.root / "bids")[2])


class ResultTests(CommandTestCase):
    """What is printed, and how it ends."""

    def setUp(self) -> None:
        """Make a scan."""
        super().setUp()
        self.scan = write_nifti(self.root / "sub-01_T1w.nii")

    def test_table(self) -> None:
        """A short report for people: verdict, volumes with ranges, lesions, quality, where the report is."""
        status, out, _ = self.analyse(self.scan, "--age", 45, "--sex", "f")
        self.assertEqual(status, 0)
        for words in (
            *(
                "Usable.",
                "Intracranial",
                "1450.0",
                "100.0",
                "956 to 1667 mL",
                "0.814",
                "+12.5 %",
                "1 hypointense",
            ),
            *(
                "Signal to noise",
                "12.3",
                "above 20",
                "female, 45 years",
                f"Report: {self.out / 'report.html'}",
            ),
            *("report.pdf", "Decision support only"),
        ):
            self.assertIn(words, out)
        self.assertEqual(max(map(len, out.splitlines())) < 130, True)

    def test_json(self) -> None:
        """With --json, standard output is the findings and nothing else."""
        status, out, err = self.analyse(self.scan, "--json")
        self.assertEqual((status, err), (0, ""))
        self.assertEqual(json.loads(out), json.loads((self.out / "report.json").read_bytes())["findings"])

    def test_notUsable(self) -> None:
        """A scan that is not usable has its report, its reasons, and exit status 3."""
        status, out, _ = self.analyse(self.scan, analysis=NOT_USABLE)
        self.assertEqual(status, 3)
        self.assertIn("Not usable.", out)
        self.assertIn("- Noise is high: repeat <the scan>.", out)
        self.assertNotIn("1450", out)
        self.assertIn("Not usable", (self.out / "report.html").read_text())
        self.assertEqual(self.analyse(self.scan, "--json", analysis=NOT_USABLE)[0], 3)

    def test_patientFromTheCommandLine(self) -> None:
        """--age and --sex stand in the facts as DICOM has them, over those of the scan."""
        for age, sex, expected in ((45, "F", ("045Y", "F")), (1.5, "m", ("018M", "M"))):
            self.assertEqual(self.analyse(self.scan, "--age", age, "--sex", sex)[0], 0)
            facts = self.jobs[-1].meta.facts
            self.assertEqual((facts["patient_age"], facts["patient_sex"]), expected)

    def test_otherAnalyses(self) -> None:
        """An analysis with findings of its own is run, and its files are written."""
        status, out, _ = self.analyse(self.scan, analysis=f"{analyses_for_tests.MODULE}:QUICK")
        self.assertEqual(status, 0)
        self.assertIn("measured by quick 1", out)
        self.assertEqual({file.name for file in self.out.iterdir()}, {"report.json", "overlay.png"})

    def test_refusedByTheAnalysis(self) -> None:
        """What the analysis refuses is said in its words, with exit status 2."""
        said = self.refused(self.scan, analysis=f"{analyses_for_tests.MODULE}:REFUSING")
        self.assertEqual(said, f"the scan cannot be measured: {analyses_for_tests.REFUSAL}")

    def test_broken(self) -> None:
        """An analysis that breaks is exit status 1 and a line, not a traceback."""
        for name, words in (
            ("RAISING", "something of the patient's"),
            ("MISNAMING", "escape"),
            ("INFINITE", "JSON"),
        ):
            status, out, err = self.analyse(self.scan, analysis=f"{analyses_for_tests.MODULE}:{name}")
            self.assertEqual((status, out), (1, ""))
            self.assertIn("the analysis broke", err)
            self.assertIn(words, err)
            self.assertEqual(err.count("\n"), 1)


class FolderTests(CommandTestCase):
    """Where the report goes."""

    def setUp(self) -> None:
        """Make a scan."""
        super().setUp()
        self.scan = write_nifti(self.root / "sub-01_T1w.nii")

    def test_isMade(self) -> None:
        """A folder that is not there is made, with those above it; other files in it are left alone."""
        self.out = self.root / "a" / "b"
        self.out.mkdir(parents=True)
        (self.out / "mine.txt").write_text("mine")
        self.assertEqual(self.analyse(self.scan)[0], 0)
        self.assertEqual((self.out / "mine.txt").read_text(), "mine")
        self.out = self.root / "c" / "d"
        self.assertEqual(self.analyse(self.scan)[0], 0)

    def test_nothingOfOthersIsOverwritten(self) -> None:
        """Another scan's report, and any file of such a name, is refused before anything is measured."""
        self.assertEqual(self.analyse(self.scan)[0], 0)
        other = write_nifti(self.root / "sub-02_T1w.nii", fill=8)
        before = {file: file.read_bytes() for file in self.out.iterdir()}
        self.assertIn("is not of this scan's report; name another folder", self.refused(other))
        self.assertEqual({file: file.read_bytes() for file in self.out.iterdir()}, before)
        for name, content in (("report.html", "<p>"), ("report.json", "[1]"), ("report.json", "{")):
            self.out = new_folder(self)
            (self.out / name).write_text(content)
            self.assertIn(name, self.refused(self.scan))
            self.assertEqual((self.out / name).read_text(), content)
        self.assertEqual(len(self.jobs), 1)

    def test_fileOfAnotherAnalysisIsNotOverwritten(self) -> None:
        """A file that only this analysis writes is refused as well, once it is known."""
        self.out.mkdir()
        (self.out / "table.csv").write_text("mine")
        packed = bundle.pack({"report.json": b"{}", "table.csv": b"theirs"})
        self.assertRaises(CommandError, place.write, self.out, packed, "scan-1")
        self.assertEqual((self.out / "table.csv").read_text(), "mine")

    def test_filesOfAnEarlierReportGo(self) -> None:
        """A label map of an earlier report of the scan does not stay beside a report that has none."""
        self.out.mkdir()
        report = json.dumps({"scan_id": "scan-1"}).encode()
        with_map = {"report.json": report, "report.html": b"1", "labels.nii.gz": b"1"}
        place.write(self.out, bundle.pack(with_map), "scan-1")
        (self.out / "mine.txt").write_text("mine")
        place.write(self.out, bundle.pack({"report.json": report, "report.html": b"2"}), "scan-1")
        self.assertEqual(
            sorted(path.name for path in self.out.iterdir()), ["mine.txt", "report.html", "report.json"]
        )

    def test_cannotBeMade(self) -> None:
        """A file where the folder should be is said."""
        self.out = self.scan
        self.assertIn("is a file; name a folder", self.refused(self.scan))
        self.out = self.scan / "below"
        self.assertIn("cannot be made", self.refused(self.scan))

    def test_linkIsNotFollowed(self) -> None:
        """A link by the name of a report's file counts as a file of others."""
        self.out.mkdir()
        (self.out / "report.json").symlink_to(self.root / "elsewhere")
        self.assertIn("report.json", self.refused(self.scan))
        self.assertFalse((self.root / "elsewhere").exists())


class TroubleTests(CommandTestCase):
    """Inputs that cannot be used."""

    def test_unusableInputs(self) -> None:
        """Each is said to be what it is."""
        (self.root / "text.txt").write_text("hello")
        (self.root / "empty").mkdir()
        (self.root / "scan.tar.gz").write_bytes(b"\x1f\x8b" + bytes(20))
        write_nifti(self.root / "flat.nii", (40, 40, 3))
        whole = write_nifti(self.root / "cut.nii").read_bytes()
        (self.root / "cut.nii").write_bytes(whole[:-100])
        write_series(self.root / "few", count=4)
        write_series(self.root / "ct", Modality="CT", SOPClassUID="1.2.840.10008.5.1.4.1.1.2")
        self.cut_tar()
        for name, words in (
            ("nowhere", "there is no file or folder"),
            ("text.txt", "is neither NIfTI (.nii, .nii.gz) nor DICOM, nor a tar"),
            ("empty", "it holds neither NIfTI (.nii, .nii.gz) nor DICOM files"),
            ("scan.tar.gz", "is a compressed archive; unpack it"),
            ("cut.tar", "is cut short or damaged"),
            ("short.tar", "is cut short or damaged"),
            ("flat.nii", "flat.nii: fewer than 8 slices"),
            ("cut.nii", "cut.nii: truncated"),
            ("few", "and 3 more: its series has 4 slices"),
            ("ct", "and 7 more: not an MR image (modality CT)"),
        ):
            said = self.refused(self.root / name)
            self.assertIn(words, said)
            self.assertEqual(said.count("\n"), 0, said)
        self.assertEqual(self.jobs, [])

    def cut_tar(self) -> None:
        """Write a tar that ends within a file, and one that ends after some."""
        with tarfile.open(self.root / "cut.tar", "w") as tar:
            for file in write_series(self.root / "series"):
                tar.add(file)
        data = (self.root / "cut.tar").read_bytes()
        (self.root / "cut.tar").write_bytes(data[: len(data) // 2])
        (self.root / "short.tar").write_bytes(data[: data.index(b"IM0001") // 512 * 512])

    def test_usage(self) -> None:
        """Wrong options end with status 2 and say what is accepted."""
        scan = write_nifti(self.root / "sub-01.nii")
        for options, words in (
            (("--age", "old"), "'old' is no age in years"),
            (("--age", "150"), "'150' is no age in years"),
            (("--sex", "X"), "invalid choice"),
            (("--colour",), "unrecognized arguments"),
        ):
            status, _, err = self.analyse(scan, *options)
            self.assertEqual(status, 2)
            self.assertIn(words, err)
        self.assertEqual(self.fr("analyse", scan)[0], 2)
        self.assertEqual(self.fr()[0], 2)

    def test_noSuchAnalysis(self) -> None:
        """An analysis that is not installed is said, with those that are."""
        self.assertIn(
            "no analysis named 'nothing' is installed; installed:",
            self.refused(self.root, analysis="nothing"),
        )

    def test_interrupted(self) -> None:
        """Ctrl-C ends it without a traceback."""

        def interrupt(*_: object) -> jobs.Outcome:
            raise KeyboardInterrupt

        self.patch(analyse, "perform", interrupt)
        status, _, err = self.analyse(write_nifti(self.root / "sub-01.nii"))
        self.assertEqual((status, err), (130, "fr analyse: interrupted\n"))


class HelpTests(CommandTestCase):
    """Help and version."""

    def test_help(self) -> None:
        """The command and its subcommand explain themselves, and what they end with."""
        self.assertIn("analyse", self.fr("--help")[1])
        status, out, _ = self.fr("analyse", "--help")
        self.assertEqual(status, 0)
        for words in (
            "--out DIR",
            "--json",
            "--series UID",
            "--age YEARS",
            "--sex",
            "--analysis NAME",
            "exit status",
        ):
            self.assertIn(words, out)

    def test_version(self) -> None:
        """--version prints it."""
        self.assertEqual(self.fr("--version")[:2], (0, f"fr-twisted {__version__}\n"))

    def test_startIsLight(self) -> None:
        """Help comes without numpy, pydicom or Twisted; nothing of it ever imports the reactor."""
        code = (
            "import sys; from fr_twisted.command import main; main.parser();"
            "print(sorted({'numpy', 'pydicom', 'nibabel', 'twisted', 'pydantic'} & set(sys.modules)));"
            "from fr_twisted.command import pick, place, table; from fr_twisted.brain import worker, fetch;"
            "import fr_twisted.config; print('twisted.internet.reactor' in sys.modules)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
        )
        self.assertEqual(done.stdout.split(), ["[]", "False"])

    def test_nobodyReads(self) -> None:
        """Where whoever read its output has gone, it says nothing and ends as shells have it, not as for findings."""
        environment = {**os.environ, "PYTHONUNBUFFERED": ""}
        code = (
            "import sys; from fr_twisted.command import desk, main;"
            "desk.run = lambda given, work: print(given.command) or 0; sys.exit(main.main(sys.argv[1:]))"
        )
        for arguments in (["verify", "--json"], ["verify", "--help"], ["--help"]):
            reads, writes = os.pipe()
            os.close(reads)
            done = subprocess.run(
                [sys.executable, "-c", code, *arguments],
                stdout=writes,
                stderr=subprocess.PIPE,
                env=environment,
                timeout=60,
                check=False,
            )
            os.close(writes)
            self.assertEqual((done.returncode, done.stderr), (141, b""), arguments)


class WorkerTests(CommandTestCase):
    """The analysis runs in a process of its own, within limits."""

    perform_for_real: Callable[..., jobs.Outcome] = staticmethod(analyse.perform)

    def setUp(self) -> None:
        """Let the process be real."""
        super().setUp()
        self.patch(analyse, "perform", self.perform_for_real)
        self.scan = write_nifti(self.root / "sub-01_T1w.nii")

    def test_oneThreadAndNoReactor(self) -> None:
        """The process has one thread for numeric libraries, and no reactor."""
        status, out, err = self.analyse(self.scan, "--json", analysis=f"{analyses_for_tests.MODULE}:QUICK")
        self.assertEqual((status, err), (0, ""))
        found = json.loads(out)
        self.assertEqual((found["threads"], found["twisted"]), ("1", False))

    def test_crash(self) -> None:
        """A crash of native code is a line of what happened."""
        status, out, err = self.analyse(self.scan, analysis=f"{analyses_for_tests.MODULE}:CRASHING")
        self.assertEqual((status, out), (1, ""))
        self.assertIn("the analysis ended without a result: its process was killed by SIGSEGV", err)
        self.assertNotIn("Traceback", err)

    def test_tooLong(self) -> None:
        """An analysis that takes too long is ended, and that is said."""

        def impatient(job: jobs.Job, memory: int, _: float) -> jobs.Outcome:
            return self.perform_for_real(job, memory, 0.5)

        self.patch(analyse, "perform", impatient)
        status, _, err = self.analyse(self.scan, analysis=f"{analyses_for_tests.MODULE}:HANGING")
        self.assertEqual(status, 1)
        self.assertIn("it took more than 0 s", err.replace("0.5 s", "0 s"))
