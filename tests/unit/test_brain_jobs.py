"""Tests of what runs in worker processes, run here in this one."""

import json
import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.brain import catalog, jobs
from fr_twisted.brain.catalog import AnalysisUnavailableError
from fr_twisted.brain.jobs import Job, JobFailure, JobRefusal, JobResult
from fr_twisted.bundle import unpack
from fr_twisted.model import PayloadFormat, ScanMeta
from tests import analyses_for_tests

META = ScanMeta(patient_id="P1", format=PayloadFormat.NIFTI)


class CatalogTests(SynchronousTestCase):
    """Finding and loading analyses."""

    def entry_points(self, *points: EntryPoint) -> None:
        """Have these installed."""
        catalog.load.cache_clear()
        self.addCleanup(catalog.load.cache_clear)
        self.patch(catalog, "entry_points", lambda group: [p for p in points if p.group == group])

    def test_ownAnalysisDeclared(self) -> None:
        """The installed package declares the default analysis."""
        catalog.check("t1-volumes")
        self.assertEqual(catalog.installed()["t1-volumes"].module, "fr_twisted.brain.analysis")

    def test_byEntryPoint(self) -> None:
        """An analysis of another package is found by its name."""
        self.entry_points(EntryPoint("mine", "tests.analyses_for_tests:QUICK", "fr_twisted.analyses"))
        catalog.check("mine")
        self.assertIs(catalog.load("mine"), analyses_for_tests.QUICK)

    def test_byPath(self) -> None:
        """An analysis that no package declares is loaded as module:attribute."""
        self.assertIs(catalog.load("tests.analyses_for_tests:QUICK"), analyses_for_tests.QUICK)

    def test_unknown(self) -> None:
        """An unknown name is answered with the names that are installed."""
        point = EntryPoint("mine", "tests.analyses_for_tests:QUICK", "fr_twisted.analyses")
        self.entry_points(point, EntryPoint("also", "x:y", "fr_twisted.analyses"))
        for use in (catalog.check, catalog.load):
            with self.assertRaisesRegex(
                AnalysisUnavailableError, "'t2' is installed; installed: also, mine$"
            ):
                use("t2")

    def test_noneInstalled(self) -> None:
        """Where nothing is installed the message says what to install."""
        self.entry_points()
        with self.assertRaisesRegex(AnalysisUnavailableError, r"install fr-twisted\[brain\]"):
            catalog.check("t1-volumes")

    def test_ambiguous(self) -> None:
        """Two different analyses of one name are refused; the same one found twice is not."""
        one = EntryPoint("mine", "tests.analyses_for_tests:QUICK", "fr_twisted.analyses")
        self.entry_points(one, one)
        catalog.check("mine")
        self.entry_points(one, EntryPoint("mine", "other:thing", "fr_twisted.analyses"))
        with self.assertRaisesRegex(AnalysisUnavailableError, "two packages bring"):
            catalog.check("mine")

    def test_cannotBeLoaded(self) -> None:
        """What cannot be imported, is not there, or is no analysis is named with the reason."""
        for name, reason in (
            ("no_such_module:X", "No module named 'no_such_module'"),
            ("tests.analyses_for_tests:NO_SUCH", "NO_SUCH"),
            ("tests.analyses_for_tests:NOT_AN_ANALYSIS", "no analysis"),
        ):
            with self.assertRaisesRegex(AnalysisUnavailableError, reason):
                catalog.load(name)


class RunTests(SynchronousTestCase):
    """`jobs.run`."""

    def run_one(self, name: str) -> jobs.Outcome:
        """Run a stand-in analysis."""
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / "payload.nii").write_bytes(b"voxels")
        return jobs.run(Job(f"tests.analyses_for_tests:{name}", folder / "payload.nii", "scan-1", META))

    def test_result(self) -> None:
        """A result has the findings, the bundle in a file, who made it and what it took."""
        result = self.run_one("QUICK")
        assert isinstance(result, JobResult)
        self.assertEqual((result.analysis, result.analysis_version), ("quick", "1"))
        self.assertEqual(result.findings["bytes"], 6)
        self.assertEqual(unpack(result.bundle.read_bytes())["report.json"], b"scan-1")
        self.assertGreaterEqual(result.seconds, 0)
        self.assertGreaterEqual(result.cpu_seconds, 0)
        self.assertGreater(result.peak_rss, 1_000_000)

    def test_refusal(self) -> None:
        """A refusal carries the reason as it stands."""
        self.assertEqual(self.run_one("REFUSING"), JobRefusal(analyses_for_tests.REFUSAL))

    def test_oddRefusal(self) -> None:
        """Characters that neither a log nor the store can hold, as file names and headers have them, are replaced."""
        self.patch(analyses_for_tests, "REFUSAL", "no brain in \udcfc\0.nii, für wahr")
        self.assertEqual(self.run_one("REFUSING"), JobRefusal("no brain in ??.nii, für wahr"))

    def test_failure(self) -> None:
        """What the analysis raises is told by type and place; its text, which may quote a header, stands apart."""
        outcome = self.run_one("RAISING")
        assert isinstance(outcome, JobFailure)
        self.assertRegex(outcome.reason, r"^ValueError in analyses_for_tests.py:\d+ _raise$")
        self.assertEqual(outcome.detail, "something of the patient's")
        self.assertFalse(outcome.out_of_memory)

    def test_exit(self) -> None:
        """An analysis that calls sys.exit does not end the process."""
        outcome = self.run_one("EXITING")
        assert isinstance(outcome, JobFailure)
        self.assertIn("SystemExit", outcome.reason)

    def test_badFindings(self) -> None:
        """Findings that are no plain JSON, infinite numbers among them, are a failure of the analysis."""
        for name in ("INFINITE", "MISNAMING"):
            outcome = self.run_one(name)
            assert isinstance(outcome, JobFailure), outcome

    def test_bundleTooLarge(self) -> None:
        """Files that no link would carry are a failure of the analysis."""
        self.patch(jobs, "MAX_BUNDLE", 100)
        outcome = self.run_one("QUICK")
        assert isinstance(outcome, JobFailure)
        self.assertIn("more than 100", outcome.detail)

    def test_memory(self) -> None:
        """Want of memory is recognised, as Python, C++ and onnxruntime tell of it."""
        for error in (
            MemoryError(),
            RuntimeError("std::bad_alloc"),
            RuntimeError("bfc_arena.cc:360 Failed to allocate memory for requested buffer of size 95551488"),
        ):
            self.assertTrue(jobs._failure(error).out_of_memory, error)
        self.assertFalse(jobs._failure(RuntimeError("other")).out_of_memory)

    def test_boundedReasons(self) -> None:
        """A reason is one line of bounded length, whatever the analysis says."""
        self.assertEqual(len(jobs._failure(ValueError("x\ny" * 5000)).detail), 2000)
        self.assertNotIn("\n", jobs._failure(ValueError("x\ny" * 5000)).detail)


class PreludeTests(SynchronousTestCase):
    """What the fork server imports first."""

    def environment(self, **given: str) -> dict[str, str]:
        """Return the environment of a fresh process after the import of the prelude."""
        code = "import fr_twisted.brain.prelude as p, os, json; p.trim_memory(); print(json.dumps(dict(os.environ)))"
        clean = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
        done = subprocess.run(
            [sys.executable, "-c", code], env=clean | given, capture_output=True, check=True, timeout=60
        )
        environment: dict[str, str] = json.loads(done.stdout)
        return environment

    def test_oneThread(self) -> None:
        """Numeric libraries are told to use one thread, unless the operator says otherwise."""
        found = self.environment(OPENBLAS_NUM_THREADS="3")
        self.assertEqual(found["OMP_NUM_THREADS"], "1")
        self.assertEqual(found["MKL_NUM_THREADS"], "1")
        self.assertEqual(found["OPENBLAS_NUM_THREADS"], "3")

    def test_jobsImportNoTwisted(self) -> None:
        """Neither Twisted nor a numeric library comes with the import of the workers' code."""
        code = "import sys, fr_twisted.brain.jobs, fr_twisted.brain.worker; print(*sys.modules)"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, check=True, timeout=60, text=True
        )
        loaded = set(done.stdout.split())
        self.assertEqual(loaded & {"twisted", "numpy", "zope.interface", "onnxruntime"}, set())
