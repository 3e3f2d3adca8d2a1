"""The whole analysis on generated heads of known truth, 2 mm: from file to findings and files."""

import json
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from twisted.trial.unittest import SynchronousTestCase

from fr_twisted import bundle
from fr_twisted.brain.analysis import T1_VOLUMES, pipeline, skullstrip, template
from fr_twisted.brain.analysis.orient import standard_form
from fr_twisted.brain.analysis.schema import Findings, Usability
from fr_twisted.brain.analysis.volume import Volume
from fr_twisted.brain.interfaces import AnalysisResult, UnusableScanError
from fr_twisted.model import PayloadFormat, ScanMeta
from fr_twisted.pacs.generator import GeneratedScan, Lesion, Recipe, generate
from tests.builders import dicom_series, dicom_tar, nifti_bytes

RECIPE = Recipe(
    seed=11,
    spacing=(2.0, 2.0, 2.0),
    rotation=(3.0, -2.0, 4.0),
    scale=(0.92, 0.92, 0.92),
    warp=2.0,
    ventricles=1.5,
    lesions=(Lesion(6.0, -0.4),),
    texture=0.01,
    bias=0.2,
    noise=0.02,
)


@cache
def head() -> GeneratedScan:
    """Return the head."""
    return generate(RECIPE)


def analyse(content: bytes, kind: PayloadFormat = PayloadFormat.NIFTI) -> AnalysisResult:
    """Run the analysis on ``content``."""
    with TemporaryDirectory() as folder:
        payload = Path(folder) / "payload"
        payload.write_bytes(content)
        meta = ScanMeta(patient_id="P<1>", format=kind, facts={"patient_sex": "F", "patient_age": "045Y"})
        return T1_VOLUMES(payload, "scan-1", meta)


def findings(result: AnalysisResult) -> Findings:
    """Return the findings, read as the published model."""
    return Findings.model_validate(json.loads(json.dumps(result.findings, allow_nan=False)))


@cache
def from_nifti() -> AnalysisResult:
    """Return what is found in the head as packed NIfTI; run once."""
    content = nifti_bytes(head().volume, head().affine, packed=True)
    return analyse(content, PayloadFormat.NIFTI_GZ)


def turned(volume: NDArray[Any], affine: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return the same scan in sagittal storage: axes to the back, the feet, the right."""
    stack = volume.transpose(1, 2, 0)[::-1, ::-1]
    moved = affine[:, [1, 2, 0, 3]].copy()
    for axis in (0, 1):
        moved[:3, 3] += moved[:3, axis] * (stack.shape[axis] - 1)
        moved[:3, axis] *= -1
    return stack, moved


class LocateTests(SynchronousTestCase):
    """The skull strip of tilted heads."""

    def test_costlyNetOnce(self) -> None:
        """The second net runs once, however the head lies; a tilted one is turned back for it and found as well."""
        run = skullstrip._run
        for degrees in (0.0, 15.0):
            scan = generate(replace(RECIPE, rotation=(degrees, 0.0, degrees)))
            asked: list[str] = []

            def watched(name: str, *rest: Any, asked: list[str] = asked) -> Any:
                asked.append(name)
                return run(name, *rest)

            self.patch(skullstrip, "_run", watched)
            volume = standard_form(Volume(scan.volume.astype(np.float32), scan.affine))
            found = pipeline.locate(volume, template.load(), pipeline.unwatched).mask
            self.assertEqual(asked, ["bbox.onnx", "brain.onnx"])
            true = scan.labels > 0
            self.assertGreater(2 * (found & true).sum() / (found.sum() + true.sum()), 0.975)


class GoodScanTests(SynchronousTestCase):
    """A scan that can be measured."""

    def test_volumesAreTrue(self) -> None:
        """The volumes of a 2 mm scan are within 4 % of the truth, the ventricles within 6 %, and sum up."""
        truth, found = head().truth, findings(from_nifti())
        volumes = found.volumes
        assert volumes is not None
        assert found.brain_parenchymal_fraction is not None
        for name, true, allowed in (
            ("intracranial", truth.icv, 0.04),
            ("brain", truth.brain, 0.02),
            ("grey_matter", truth.gm, 0.04),
            ("white_matter", truth.wm, 0.04),
            ("ventricles", truth.ventricles, 0.06),
        ):
            self.assertLess(abs(getattr(volumes, name).value / true - 1), allowed, name)
        self.assertAlmostEqual(volumes.brain.value, volumes.grey_matter.value + volumes.white_matter.value, 1)
        self.assertAlmostEqual(volumes.intracranial.value, volumes.brain.value + volumes.csf.value, 1)
        share = volumes.brain.value / volumes.intracranial.value
        self.assertAlmostEqual(found.brain_parenchymal_fraction.value, share, 3)

    def test_sidesAndQualityAreTrue(self) -> None:
        """The grey matter's index is within 2 points of the truth, SNR within a fifth, and all is usable."""
        found = findings(from_nifti())
        self.assertEqual(found.verdict.usability, Usability.USABLE, found.verdict.reasons)
        assert found.asymmetry is not None
        self.assertLess(abs(found.asymmetry.grey_matter.index.value - head().truth.gm_sides.index), 2.0)
        self.assertLess(abs((found.quality.snr.value or 0) / 50 - 1), 0.2)
        self.assertEqual(found.quality.coverage.value, 100.0)

    def test_everyNumberHasAMethodInWords(self) -> None:
        """Every method that a number names is described, and the words about decision support stand there."""
        found = from_nifti().findings
        named = set()

        def walk(part: Any) -> None:
            if isinstance(part, dict):
                if isinstance(part.get("method"), str):
                    named.add(part["method"])
                    self.assertTrue(part["unit"])
                for value in part.values():
                    walk(value)
            elif isinstance(part, list):
                for value in part:
                    walk(value)

        walk(found)
        self.assertGreater(len(named), 4)
        self.assertEqual(named - set(found["methods"]), set())
        self.assertIn("Decision support only", found["decision_support_only"])

    def test_storageAndScaleDoNotMatter(self) -> None:
        """A sagittal DICOM series of thirty times the values gives the same findings and picture, bit for bit."""
        stack, moved = turned(head().volume.astype(np.uint32) * 30, head().affine)
        other = analyse(dicom_tar(dicom_series(stack, moved)), PayloadFormat.DICOM_TAR)
        one = from_nifti()

        def without_geometry(found: Any) -> dict[str, Any]:
            return {name: value for name, value in found.items() if name != "geometry"}

        self.assertEqual(without_geometry(one.findings), without_geometry(other.findings))
        for name in ("overlay.png", "labels.nii.gz"):
            self.assertEqual(one.files[name], other.files[name])
        self.assertEqual(one.findings["geometry"]["orientation"], "RAS")
        self.assertEqual(other.findings["geometry"]["orientation"], "PIR")

    def test_filesAreABundle(self) -> None:
        """The report's files can travel, and its JSON says whose they are."""
        result = from_nifti()
        self.assertEqual(bundle.unpack(bundle.pack(result.files)), dict(result.files))
        names = {"report.json", "report.html", "report.pdf", "overlay.png", "labels.nii.gz"}
        self.assertEqual(set(result.files) - {"lesions.nii.gz"}, names)
        report = json.loads(result.files["report.json"])
        self.assertEqual(report["findings"], result.findings)
        self.assertEqual(
            [report[name] for name in ("scan_id", "patient_id", "analysis", "analysis_version")],
            ["scan-1", "P<1>", T1_VOLUMES.name, T1_VOLUMES.version],
        )

    def test_importIsLight(self) -> None:
        """The entry point is imported without numpy or any of the libraries that do the work."""
        code = (
            "import sys; from fr_twisted.brain.analysis import T1_VOLUMES;"
            "print(sorted({'numpy', 'scipy', 'onnxruntime', 'highdicom', 'twisted', 'txmongo'} & set(sys.modules)))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
        )
        self.assertEqual(done.stdout.strip(), "[]")


class PoorScanTests(SynchronousTestCase):
    """Scans that are shown, but whose numbers are marked or withheld."""

    def assert_withheld(self, volume: NDArray[Any], code: str) -> None:
        """The scan gives a report that is not usable for this reason, with a picture and without numbers."""
        result = analyse(nifti_bytes(volume, head().affine))
        found = findings(result)
        self.assertEqual(found.verdict.usability, Usability.NOT_USABLE)
        self.assertIn(code, [reason.code for reason in found.verdict.reasons])
        numbers = (found.volumes, found.brain_parenchymal_fraction, found.asymmetry, found.lesions)
        self.assertEqual(numbers, (None,) * 4)
        self.assertIn("overlay.png", result.files)

    def test_cutHead(self) -> None:
        """A head whose vertex lies outside the field is not usable, and no volume is given."""
        self.assert_withheld(head().volume[:, :, :70], "cut-brain")

    def test_drownedInNoise(self) -> None:
        """A head with more noise than a fifth of white matter is not usable for it, and no volume is given."""
        self.assert_withheld(generate(replace(RECIPE, noise=0.22)).volume, "low-snr")

    def test_anotherContrast(self) -> None:
        """A brain whose fluid is bright is not usable for its contrast, or because it matches no T1 template."""
        brightest = int(np.percentile(head().volume, 99))
        inside = head().labels > 0
        inverted = np.where(inside, np.maximum(brightest + 100 - head().volume, 0), head().volume // 3)
        result = analyse(nifti_bytes(inverted.astype(np.int16), head().affine))
        found = findings(result)
        self.assertEqual(found.verdict.usability, Usability.NOT_USABLE)
        self.assertTrue({"contrast", "alignment"} & {reason.code for reason in found.verdict.reasons})

    def test_noisyAndThickNeedCare(self) -> None:
        """High noise in slices of 5 mm gives volumes that are marked, with both reasons."""
        scan = generate(replace(RECIPE, spacing=(1.5, 1.5, 5.0), noise=0.12))
        found = findings(analyse(nifti_bytes(scan.volume, scan.affine)))
        self.assertEqual(found.verdict.usability, Usability.WITH_CARE)
        self.assertTrue({"thick-slices", "low-snr"} <= {reason.code for reason in found.verdict.reasons})
        self.assertIsNotNone(found.volumes)

    def test_noiseIsNoBrain(self) -> None:
        """Noise alone fails, with a question that a technician can answer."""
        noise = np.random.default_rng(3).integers(0, 400, (80, 96, 80)).astype(np.int16)
        affine = np.diag([2.5, 2.5, 2.5, 1.0])
        error = self.assertRaises(UnusableScanError, analyse, nifti_bytes(noise, affine))
        self.assertIn("no brain was found", str(error))
