"""The measurement of accuracy: what is drawn, what is kept, how results become tables; no real analysis runs here."""

import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.brain.analysis.anatomy import Label as Found
from fr_twisted.brain.analysis.anatomy import Lesion as FoundLesion
from fr_twisted.brain.analysis.schema import Geometry, LesionKind, Reason, Usability, Verdict
from fr_twisted.pacs.generator import LesionKind as TrueKind
from fr_twisted.pacs.generator import LesionTruth, Sides, Truth, draw_recipe, generate
from fr_twisted.pacs.generator.truth import Label
from tests.accuracy import __main__ as command
from tests.accuracy import cost_section, document, ideal, lesion_design, runner, sources, subjects, tables
from tests.accuracy.cases import Case, Change, Form, Plan, Table, plain
from tests.accuracy.changes import CHANGES
from tests.accuracy.compare import agreement
from tests.accuracy.cost import Cost, ScanCost
from tests.accuracy.examine import make, payload
from tests.accuracy.experiments import EXPERIMENTS, changes, generated, lesions, not_brains
from tests.accuracy.results import Known, Result
from tests.accuracy.section import Figure, Section
from tests.accuracy.seeds import FIRST_SET_ASIDE
from tests.accuracy.subjects import Subject
from tests.accuracy.subjects import generated as generated_subject
from tests.accuracy.targets import AIM, FLOOR, MISSED, TARGETS, UNMEASURED
from tests.report_builders import VOLUMES, some_candidates, some_findings

TRUTH = Truth(
    gm=700.0,
    wm=500.0,
    csf=250.0,
    ventricles=20.0,
    gm_sides=Sides(350.0, 350.0),
    ventricle_sides=Sides(11.0, 9.0),
)
NOWHERE = Path("nowhere")


def some_result(usability: Usability = Usability.USABLE, **fields: Any) -> Result:
    """Return a result with the findings of `some_findings` and `TRUTH`."""
    return Result(known=Known(truth=TRUTH), findings=some_findings(usability, sex=None), **fields)


def refusal(reason: str) -> Result:
    """Return the result of a scan that was refused."""
    return Result(known=Known(), refused=reason)


def stand_in(case: Case, _: Path) -> Result:
    """Examine nothing; stands in for the analysis in a process of the pool."""
    return some_result(dice={"gm": 0.5 + case.recipe.noise})


def some_subject() -> Subject:
    """Return a small scan of 2 mm whose brain fills the middle."""
    labels = np.zeros((12, 14, 16), np.uint8)
    labels[3:9, 3:11, 4:12] = Label.WHITE
    data = np.random.default_rng(1).integers(0, 100, labels.shape).astype(np.int16) + 900 * (labels > 0)
    return Subject(data.astype(np.int16), np.diag([2.0, 2.0, 2.0, 1.0]), labels, Known(coverage=100.0))


class SeedTests(SynchronousTestCase):
    """Which heads are looked at."""

    def test_developmentNeverSeesSetAside(self) -> None:
        """A run for development, or a short one, draws no seed that is set aside; a real run draws no other."""
        for plan, real in ((Plan(), True), (Plan(development=True), False), (Plan(short=True), False)):
            found = [seed for table in Table for seed in plan.seeds(table, 3)]
            self.assertEqual({seed >= FIRST_SET_ASIDE for seed in found}, {real})
            self.assertEqual(len(set(found)), 3 * len(Table))

    def test_everyHeadIsOfThePlan(self) -> None:
        """No case of any experiment draws a head from anywhere but the plan's seeds."""
        plan = Plan(development=True)
        known = {seed for table in Table for seed in plan.seeds(table, 100)}
        drawn = [c for e in EXPERIMENTS for c in e.cases(plan) if not isinstance(c.subject, str)]
        self.assertGreater(len(drawn), 150)
        self.assertLessEqual({case.recipe.seed for case in drawn}, known)

    def test_keyIsOfTheScan(self) -> None:
        """A scan has one key whatever it is called; any other number, change, form or state has another."""
        case = Case("a", "head", draw_recipe(1))
        self.assertEqual(case.key("s"), replace(case, label="b", head="c").key("s"))
        others = [
            replace(case, subject=replace(case.recipe, noise=0.5)),
            replace(case, changes=(Change("8 bits"),)),
            replace(case, form=Form.DICOM),
        ]
        self.assertEqual(len({case.key("s"), case.key("t"), *(other.key("s") for other in others)}), 5)


class RunnerTests(SynchronousTestCase):
    """Keeping results."""

    def setUp(self) -> None:
        """Be quiet."""
        self.patch(runner, "tell", lambda _: None)

    def test_runGoesOnWhereItWas(self) -> None:
        """After a failure only what is not kept yet is examined; a scan that two cases share is examined once."""
        done: list[str] = []

        def examine(case: Case, images: Path) -> Result:
            done.append(case.label)
            if case.label == "third" and len(done) < 4:
                raise RuntimeError("the power went")
            return stand_in(case, images)

        recipe = draw_recipe(1)
        every = [Case("first", "", recipe), Case("again", "", recipe)]
        every += [Case(name, "", replace(recipe, noise=n)) for name, n in (("second", 0.1), ("third", 0.2))]
        with TemporaryDirectory() as folder, ThreadPoolExecutor(1) as executor:
            store = runner.Store(Path(folder), "state")
            with self.assertRaises(RuntimeError):
                runner.run(every, store, executor, examine, NOWHERE)
            results = runner.run(every, store, executor, examine, NOWHERE)
            self.assertEqual(done, ["first", "second", "third", "third"])
            self.assertEqual(results.of(every[1]), results.of(every[0]))
            self.assertEqual(results.of(every[3]).dice["gm"], 0.7)

    def test_absentImageIsNotExamined(self) -> None:
        """An image that cannot be had is told with the reason and is tried again the next time."""
        case = Case("Colin27", "real", "colin27")
        with TemporaryDirectory() as folder, ThreadPoolExecutor(1) as executor:
            store = runner.Store(Path(folder), "state")
            found = runner.run([case], store, executor, stand_in, NOWHERE, {"colin27": "no network"}).of(case)
            self.assertEqual(found.absent, "no network")
            self.assertIsNone(store.get(case))

    def test_stateFollowsTheSources(self) -> None:
        """Results belong to one state of the analysis: any changed file makes another."""
        with TemporaryDirectory() as name:
            root = Path(name)
            for source in runner.SOURCES:
                place = root / source / "x.py" if "." not in source else root / source
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_text("1")
            before = runner.state(root)
            self.assertEqual(runner.state(root), before)
            (root / runner.SOURCES[0] / "x.py").write_text("2")
            self.assertNotEqual(runner.state(root), before)

    def test_sourcesAreThere(self) -> None:
        """What results depend on is where it is looked for."""
        self.assertEqual([name for name in runner.SOURCES if not (runner.ROOT / name).exists()], [])


class ResultTests(SynchronousTestCase):
    """Measured against true."""

    def test_errors(self) -> None:
        """Errors are in per cent of the truth; withheld numbers have none."""
        found = some_result().errors()
        self.assertAlmostEqual(found["gm"], 100 * (VOLUMES["grey_matter"] / 700 - 1))
        self.assertAlmostEqual(found["ventricles"], 25.0)
        self.assertEqual(some_result(Usability.NOT_USABLE).errors(), {})
        self.assertEqual(some_result().indices()["ventricles"], (TRUTH.ventricle_sides.index, 12.5))

    def test_survivesItsFile(self) -> None:
        """A result read from its file is the result, findings and truth included."""
        result = some_result(dice={"gm": 0.9})
        again = Result.model_validate_json(result.model_dump_json())
        self.assertEqual(again, result)
        self.assertEqual(again.digest(), result.digest())

    def test_digestIgnoresStorage(self) -> None:
        """Findings count as identical when only the geometry as stored differs."""
        result = some_result()
        assert result.findings is not None
        ras = Geometry(shape=(1, 2, 3), spacing_mm=(1, 1, 1), orientation="RAS")
        moved = result.model_copy(update={"findings": result.findings.model_copy(update={"geometry": ras})})
        other = result.model_copy(update={"findings": result.findings.model_copy(update={"notes": ()})})
        self.assertEqual(moved.digest(), result.digest())
        self.assertNotEqual(other.digest(), result.digest())

    def test_agreement(self) -> None:
        """Dice of regions; labels of analysis and generator have the same numbers."""
        self.assertEqual(
            {label.name: int(label) for label in Found}, {label.name: int(label) for label in Label}
        )
        true = np.array([[[0, 1, 4, 2, 2, 3, 3, 3]]], np.uint8)
        found = np.array([[[1, 1, 1, 2, 3, 3, 3, 3]]], np.uint8)
        expected = {"skull": 14 / 15, "brain": 1.0, "gm": 2 / 3, "wm": 6 / 7, "csf": 4 / 5, "ventricles": 0.0}
        for name, value in agreement(found, true).items():
            self.assertAlmostEqual(value, expected[name], msg=name)
        self.assertNotIn("ventricles", agreement(found, found))
        with self.assertRaises(ValueError):
            agreement(found, true[:, :, :4])


class ChangeTests(SynchronousTestCase):
    """What is done to scans."""

    def test_otherStorageIsTheSameScan(self) -> None:
        """Axes stored otherwise hold the same value at each place; scaling keeps ratios; labels stay."""
        subject = some_subject()
        turned = CHANGES["orientation"](subject, "ASL")
        where = np.linalg.inv(turned.affine) @ subject.affine @ np.array([1, 2, 3, 1])
        self.assertEqual(turned.data[tuple(np.round(where[:3]).astype(int))], subject.data[1, 2, 3])
        self.assertEqual(turned.data.shape, (14, 16, 12))
        self.assertTrue(np.array_equal(CHANGES["times, float"](subject, 30).data, subject.data * 30.0))
        self.assertEqual(CHANGES["8 bits"](subject, 0).data.dtype, np.uint8)
        assert turned.labels is subject.labels

    def test_cutIsKnown(self) -> None:
        """A cut takes the asked depth of brain away, keeps the rest in its place and tells the coverage."""
        subject = some_subject()
        top = CHANGES["cut top"](subject, 4.0)
        self.assertEqual(top.data.shape[2], 10)
        self.assertEqual(top.known.coverage, 75.0)
        bottom = CHANGES["cut bottom"](subject, 4.0)
        self.assertEqual(bottom.data.shape[2], 10)
        self.assertEqual(bottom.affine[2, 3], 12.0)
        self.assertTrue(np.array_equal(bottom.data, subject.data[:, :, 6:]))

    def test_everythingCanBeWritten(self) -> None:
        """Each thing that is no brain becomes a file of its kind."""
        self.patch(subjects, "FIELD_OF_VIEW", (44, 56, 48))
        for trap in not_brains.traps(Plan(short=True)):
            if trap.case.form is Form.NIFTI and isinstance(trap.case.subject, str):
                self.assertGreater(len(payload(make(trap.case, NOWHERE), Form.NIFTI)), 348)
        head = generated_subject(plain(1, (6.0, 6.0, 6.0)))
        for name, value in (
            ("CT", 0),
            ("T2 contrast", 0),
            ("no brain", 0),
            ("time points", 2),
            ("unit code", 1),
        ):
            changed = CHANGES[name](head, value)
            self.assertIsNone(changed.labels, name)
            self.assertGreater(len(payload(changed, Form.DICOM if name == "CT" else Form.NIFTI)), 348)

    def test_idealThresholds(self) -> None:
        """Ideal thresholds are all but right where voxels meet the labels' own, and worse in a blurred scan."""
        head = replace(plain(1), scale=(1.0, 1.0, 1.0), warp=0.0, contrast_spread=0.0, blur=0.1, atrophy=0.0)
        fine, blurred = ideal.ideal(head), ideal.ideal(replace(head, blur=1.5))
        self.assertGreater(min(fine.values()), 0.99)
        self.assertLess(max(blurred["gm"], blurred["wm"]), 0.95)

    def test_contrastsAreWhatTheySay(self) -> None:
        """In the T2-like head fluid is brighter than white matter; in the CT-like one bone is far above the brain."""
        head = generated_subject(plain(1, (4.0, 4.0, 4.0)))
        assert head.labels is not None
        t2 = CHANGES["T2 contrast"](head, 0).data
        self.assertGreater(
            t2[head.labels == Label.VENTRICLE].mean(), 2 * t2[head.labels == Label.WHITE].mean()
        )
        ct = CHANGES["CT"](head, 0).data
        self.assertLess(abs(ct[head.labels == Label.WHITE].mean() - 30), 5)
        self.assertGreater((ct > 800).sum(), 100)


class LesionTests(SynchronousTestCase):
    """Lesions by design, and which candidates are theirs."""

    def test_dealIsEven(self) -> None:
        """Every radius comes with every contrast as often as any other, or once more."""
        dealt = lesion_design.deal(18, 6, 2)
        self.assertEqual({(len(deep), len(near)) for deep, near in dealt}, {(6, 2)})
        for part in (0, 1):
            counts = Counter((each.radius, each.contrast) for hand in dealt for each in hand[part])
            self.assertEqual(max(counts.values()) - min(counts.values()), 1)
        self.assertEqual(dealt, lesion_design.deal(18, 6, 2))

    def test_placesAreWhatTheySay(self) -> None:
        """Deep lesions have white matter around in the scan's own truth; those near the cortex have not."""
        deep, near = lesion_design.deal(2, 4, 2)[0]
        made = lesion_design.with_lesions(plain(3), deep, near)
        found = generate(replace(made, spacing=(2.0, 2.0, 2.0))).truth.lesions
        self.assertEqual(len(found), 6)
        self.assertGreaterEqual(sum(each.ring >= lesion_design.DEEP_RING for each in found), 4)
        self.assertGreaterEqual(sum(each.ring < lesion_design.DEEP_RING for each in found), 2)

    def test_match(self) -> None:
        """The nearest pair is taken first, one candidate for one lesion, of the same kind and near enough."""
        painted = [self.painted(0.0), self.painted(4.0), self.painted(30.0), self.painted(60.0)]
        found = some_candidates(
            (self.found(3.0), self.found(30.0, LesionKind.HYPERINTENSE), self.found(66.0), self.found(1.0))
        )
        ours, stray = lesions.match(painted, found)
        self.assertEqual([each.found.number if each.found else None for each in ours], [4, 1, None, None])
        self.assertEqual([each.number for each in stray], [2, 3])
        self.assertEqual(ours[0].error_mm, 1.0)
        self.assertEqual(ours[0].ratio, 2.0)

    def test_figures(self) -> None:
        """Sensitivity counts deep lesions of the counted size and contrast, false candidates those of clean scans."""
        dark, faint = self.painted(0.0), replace(self.painted(50.0), contrast=-0.12)
        near = replace(self.painted(90.0), ring=0.5)
        hit = [replace(dark, radius=3.0), self.painted(120.0), faint, near]
        truth = replace(TRUTH, lesions=tuple(hit))
        findings = some_findings(lesions=(self.found(0.0),))
        result = Result(known=Known(truth=truth), findings=findings)
        clean = [some_result(), Result(known=Known(truth=TRUTH), findings=findings)]
        found = {figure.key: figure.value for figure in lesions.section([result], clean, [], []).figures}
        self.assertEqual(found["dark found"], 50.0)
        self.assertEqual(found["dark false"], 0.5)
        self.assertIsNone(found["bright found"])
        self.assertEqual(found["bright false"], 0.0)

    def painted(self, x: float) -> LesionTruth:
        """Return a lesion at ``x`` mm."""
        return LesionTruth(TrueKind.HYPOINTENSE, 3.0, -0.3, 100.0, (x, 0.0, 0.0), 0.95)

    def found(self, x: float, kind: LesionKind = LesionKind.HYPOINTENSE) -> FoundLesion:
        """Return a candidate at ``x`` mm."""
        voxels = np.zeros((1, 3), np.int64)
        return FoundLesion(kind, voxels, 200.0, (x, 0.0, 0.0), (0.0, 0.0, 0.0), -30.0, 0.9)


class TableTests(SynchronousTestCase):
    """From results to tables."""

    def test_numbers(self) -> None:
        """Numbers have fixed digits, no minus zero, and a dash for none; quantiles interpolate."""
        self.assertEqual(tables.number(-0.04), "0.0")
        self.assertEqual(tables.number(1.25, 1, True), "+1.2")
        self.assertEqual(tables.number(None), tables.NONE)
        self.assertEqual(tables.quantile([3.0, 1.0, 2.0, 4.0], 0.5), 2.5)
        self.assertEqual(tables.largest([1.0, -3.0]), 3.0)
        self.assertEqual(tables.spread([1.0, 3.0]), "+2.0 ± 1.4")
        self.assertEqual(tables.outcomes(["b", "a", "b"]), "2 b, 1 a")
        self.assertEqual(tables.table(("a", "b"), [("1", "x|y")]), "| a | b |\n| --- | --- |\n| 1 | x\\|y |")

    def test_judge(self) -> None:
        """A value reaches the aim, only the floor, or neither; at the bound it is reached."""
        dice, bias = TARGETS["dice 3 % noise gm"], TARGETS["bias gm"]
        self.assertEqual(
            [dice.judge(v) for v in (0.985, 0.98, 0.974, None)], [AIM, FLOOR, MISSED, UNMEASURED]
        )
        self.assertEqual([bias.judge(v) for v in (1.0, 3.0, 3.1)], [AIM, FLOOR, MISSED])
        self.assertEqual(TARGETS["sd gm"].judge(0.1), FLOOR)
        turned = TARGETS["dice 15° rotations gm"]
        self.assertEqual([turned.judge(v, aim=0.96) for v in (0.97, 0.955)], [AIM, FLOOR])
        self.assertEqual(turned.judge(0.94, aim=0.93), MISSED)

    def test_generatedFigures(self) -> None:
        """Bias and deviation are over the scans that have numbers; a thick scan that is usable is not flagged."""
        fine = [some_result(), some_result(), some_result(Usability.NOT_USABLE)]
        thick = [some_result(), some_result(Usability.WITH_CARE)]
        section = generated.section({"1 mm": fine, "1x1x5 mm": thick})
        found = {figure.key: figure.value for figure in section.figures}
        self.assertAlmostEqual(found["bias ventricles"] or 0, 25.0)
        self.assertAlmostEqual(found["sd ventricles"] or 0, 0.0)
        self.assertAlmostEqual(found["thick wm"] or 0, 2.0)
        self.assertEqual(found["thick flagged"], 50.0)
        self.assertIn("2 usable, 1 not usable", section.render())

    def test_rightReason(self) -> None:
        """A trap is caught only when numbers are withheld, and only for a reason that fits."""
        trap = not_brains.Trap(Case("x", "", "sphere"))
        right = Reason(code="x", usability=Usability.NOT_USABLE, text="no brain was found; look")
        care = Reason(code="x", usability=Usability.WITH_CARE, text="no brain was found; look")
        found = some_findings(Usability.NOT_USABLE)
        verdicts = [
            Verdict(usability=Usability.NOT_USABLE, reasons=reasons)
            for reasons in ((right,), found.verdict.reasons, (*found.verdict.reasons, care))
        ]
        results = [
            Result(known=Known(), findings=found.model_copy(update={"verdict": each})) for each in verdicts
        ]
        self.assertEqual([trap.caught(result) for result in results], [True, False, False])
        self.assertTrue(trap.caught(refusal("no brain was found")))
        self.assertFalse(trap.caught(refusal("the file is cut short")))
        self.assertFalse(trap.caught(some_result()))

    def test_changedStorageShows(self) -> None:
        """Findings that differ from those of the same voxels stored otherwise are counted as such."""
        dice = {"skull": 0.99, "gm": 0.98, "wm": 0.97}
        labels = (changes.PLAIN, "9 % noise", "1x1x5 mm", *changes.ROTATIONS, *changes.OWN_IDEAL)
        changed = {label: [some_result(dice=dice)] for label in labels}
        traps = [
            (trap, refusal("voxels of 1 mm; check the units"))
            for trap in changes.rejected("h", draw_recipe(1))
        ]
        other = some_result(Usability.WITH_CARE)
        section = changes.section(changed, {"LPS": [some_result()], "ASL": [other]}, traps, changed)
        text = section.render()
        self.assertIn("| LPS | yes |", text)
        self.assertIn("| ASL | **1 of 1 differ** |", text)
        found = {(figure.key, figure.note): figure for figure in section.figures}
        self.assertEqual(found["not brains", "cut heads"].value, 0.0)
        self.assertEqual(found["not brains", "wrong headers"].value, 50.0)
        self.assertAlmostEqual(
            found["dice 15° rotations gm", "label head, one tissue a voxel"].aim or 0, 0.978
        )

    def test_everySectionRenders(self) -> None:
        """Each experiment makes its part from results of any kind: measured, withheld, refused."""
        plan = Plan(development=True)
        for result in (some_result(dice={"gm": 0.9}), some_result(Usability.NOT_USABLE), refusal("no brain")):
            with TemporaryDirectory() as name:
                store = runner.Store(Path(name), "s")
                for experiment in EXPERIMENTS:
                    every = {store.path(case): result for case in self.cases(experiment.name, plan)}
                    text = experiment.report(plan, runner.Results(every, store)).render()
                    self.assertTrue(text.startswith("## "))
                    self.assertNotIn("None", text)

    cached: dict[str, Any] = {}

    def cases(self, name: str, plan: Plan) -> Any:
        """Return the cases of an experiment, made once: lesions take a second to place."""
        if name not in self.cached:
            self.cached[name] = next(each for each in EXPERIMENTS if each.name == name).cases(plan)
        return self.cached[name]


class DocumentTests(SynchronousTestCase):
    """The document and the command."""

    def setUp(self) -> None:
        """Be quiet."""
        self.patch(runner, "tell", lambda _: None)

    def test_costs(self) -> None:
        """Medians over scans, the largest peak, and reports that differ between passes are counted."""

        def scan(cpu: float) -> ScanCost:
            return ScanCost(
                import_cpu=1.0,
                import_rss=10**8,
                cpu=cpu,
                peak=int(cpu * 1e8),
                stage_cpu={"read": cpu / 2},
                stage_peak={"read": 10**8},
            )

        scans = {"1 mm": [scan(7.0), scan(8.0), scan(6.0)], "2 mm": [scan(3.0)]}
        reports = {"1 worker": ["a", "b"], "2 workers": ["a", "c"]}
        trimmed = {
            grid: some[0].model_copy(update={"stage_peak": {"read": 10**7}}) for grid, some in scans.items()
        }
        cost = Cost(scans=scans, trimmed=trimmed, reports=reports, worker_peak=9 * 10**8)
        section = cost_section.section(cost)
        found = {figure.key: figure.value for figure in section.figures}
        self.assertEqual(found, {"cpu fine": 7.0, "cpu coarse": 3.0, "memory": 0.9, "identical": 50.0})
        self.assertIn("| read | 3.50 | 0.01 | 1.50 | 0.01 |", section.render())

    def test_render(self) -> None:
        """The summary follows the order of the targets; a part, and development seeds, say that they are such."""
        figures = (Figure("memory", 0.5), Figure("bias gm", 0.4))
        sections = [Section("Some part", ("Words.",), figures)]
        text = document.render(Plan(development=True), sections, False)
        self.assertLess(text.index("volume bias"), text.index("peak memory"))
        self.assertIn("Development seeds", text)
        self.assertIn("Only a part", text)
        real = document.render(Plan(), sections, True)
        self.assertNotIn("Development seeds:", real)
        self.assertIn(f"{FIRST_SET_ASIDE:,}", real)

    def test_processor(self) -> None:
        """The processor is named as the kernel names it."""
        with TemporaryDirectory() as name:
            path = Path(name) / "cpuinfo"
            path.write_text("processor : 0\nmodel name\t: Some CPU @ 2 GHz\n")
            self.assertRegex(document.processor(path), r"^\d+ cores of Some CPU @ 2 GHz$")

    def test_fetch(self) -> None:
        """A package that cannot be had, or is not what was expected, is named with the reason."""
        with TemporaryDirectory() as name:
            broken = subprocess.CalledProcessError(1, "apt-get")
            with patch.object(sources, "_run", side_effect=broken):
                with self.assertRaisesRegex(sources.NotFetchedError, "mricron-data.*could not be downloaded"):
                    sources.fetch("colin27", Path(name))
                self.assertIn("nilearn", command.absent([Case("", "", "mni152")], Path(name))["mni152"])

            def other(_package: object, _work: Path, folder: Path) -> None:
                (folder / "ch2.nii.gz").write_bytes(b"other")

            with (
                patch.object(sources, "_fetch_debian", other),
                self.assertRaisesRegex(sources.NotFetchedError, "ch2.nii.gz .* not the file"),
            ):
                sources.fetch("colin27", Path(name))

    def test_command(self) -> None:
        """The command runs cases in processes of its own and writes the document; the published one stays as it is."""
        with TemporaryDirectory() as name:
            work = Path(name)
            self.assertEqual(command.main(["--short", "--workers", "1"], work, stand_in), 0)
            text = (work / "part.md").read_text(encoding="utf-8")
            self.assertEqual(len(list((work / "results").iterdir())), 2)
        self.assertIn("| ventricles | +25.0 ± 0.0 (25.0) |", text)
        self.assertIn("Development seeds", text)
