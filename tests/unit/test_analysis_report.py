"""The whole analysis on a small head of known truth, and what its report holds."""

import io
import json
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image
from twisted.trial.unittest import SynchronousTestCase

from fr_twisted import bundle
from fr_twisted.brain.analysis import T1_VOLUMES, findings, page, pictures
from fr_twisted.brain.analysis.findings import Findings, Geometry, Quality, Volumes
from fr_twisted.brain.analysis.mixture import Mixture
from fr_twisted.brain.analysis.tissues import Tissues
from fr_twisted.brain.analysis.volume import Volume
from fr_twisted.brain.interfaces import AnalysisResult, UnusableScanError
from fr_twisted.model import PayloadFormat, ScanMeta
from tests.builders import dicom_series, dicom_tar, labelled_head, nifti_bytes

ACQUIRED = datetime(2026, 1, 2, 10, 11, 12, tzinfo=UTC)


def analyse(content: bytes, kind: PayloadFormat) -> AnalysisResult:
    """Run the analysis on ``content``."""
    with TemporaryDirectory() as folder:
        payload = Path(folder) / "payload"
        payload.write_bytes(content)
        return T1_VOLUMES(payload, "scan-1", ScanMeta(patient_id="P<1>", format=kind, acquired_at=ACQUIRED))


@cache
def from_nifti() -> AnalysisResult:
    """Return what is found in the head as packed NIfTI; run once."""
    image, affine, _ = labelled_head()
    return analyse(nifti_bytes(image, affine, packed=True), PayloadFormat.NIFTI_GZ)


@cache
def from_sagittal_dicom() -> AnalysisResult:
    """Return what is found in the head, thirty times as bright, as a sagittal DICOM series; run once."""
    image, affine, _ = labelled_head()
    stack = image.transpose(1, 2, 0)[::-1, ::-1].astype(np.int32) * 30
    moved = affine[:, [1, 2, 0, 3]].copy()
    for axis in (0, 1):
        moved[:3, 3] += moved[:3, axis] * (stack.shape[axis] - 1)
        moved[:3, axis] *= -1
    return analyse(dicom_tar(dicom_series(stack.astype(np.uint32), moved)), PayloadFormat.DICOM_TAR)


class AnalysisTests(SynchronousTestCase):
    """From file to report."""

    def test_volumesAreTrue(self) -> None:
        """Grey and white matter are within 4 % of the truth, and the whole within 3 %."""
        truth = labelled_head()[2]
        found = from_nifti().findings["volumes_ml"]
        for name in ("grey_matter", "white_matter"):
            self.assertLess(abs(found[name] / truth[name] - 1), 0.04, name)
        self.assertLess(abs(found["intracranial"] / sum(truth.values()) - 1), 0.03)

    def test_sumsAreConsistent(self) -> None:
        """Brain is grey and white matter, intracranial is brain and fluid, and the fraction is their ratio."""
        found = from_nifti().findings
        volumes = found["volumes_ml"]
        self.assertAlmostEqual(volumes["brain"], volumes["grey_matter"] + volumes["white_matter"], 2)
        self.assertAlmostEqual(volumes["intracranial"], volumes["brain"] + volumes["csf"], 2)
        self.assertAlmostEqual(
            found["brain_parenchymal_fraction"], volumes["brain"] / volumes["intracranial"], 4
        )

    def test_storageAndScaleDoNotMatter(self) -> None:
        """A sagittal DICOM series of another scale gives the same findings and the same picture, bit for bit."""
        one, other = from_nifti(), from_sagittal_dicom()
        self.assertEqual(without_geometry(one.findings), without_geometry(other.findings))
        self.assertEqual(one.files["overlay.png"], other.files["overlay.png"])
        self.assertEqual(one.findings["geometry"]["orientation"], "RAS")
        self.assertEqual(other.findings["geometry"]["shape"], [116, 94, 98])

    def test_findingsAreTheModel(self) -> None:
        """Findings are JSON of the published model, and the quality of a good scan raises no notes."""
        found = Findings.model_validate(json.loads(json.dumps(from_nifti().findings, allow_nan=False)))
        self.assertGreater(found.quality.alignment_score, 0.95)
        self.assertGreater(found.quality.coverage, 0.99)
        self.assertEqual(found.notes, [])
        self.assertIn("Decision support only", found.decision_support_only)

    def test_filesAreABundle(self) -> None:
        """The report's files can travel, and its JSON says whose they are."""
        result = from_nifti()
        self.assertEqual(bundle.unpack(bundle.pack(result.files)), dict(result.files))
        report = json.loads(result.files["report.json"])
        self.assertEqual(report["findings"], result.findings)
        self.assertEqual(
            [report[name] for name in ("scan_id", "patient_id", "analysis", "analysis_version")],
            ["scan-1", "P<1>", T1_VOLUMES.name, T1_VOLUMES.version],
        )

    def test_anotherContrastIsRefused(self) -> None:
        """A brain whose fluid is bright is refused for its contrast."""
        image, affine, _ = labelled_head()
        inverted = np.where(image > 0, 800 - image, 0).astype(np.int16)
        reason = str(
            self.assertRaises(UnusableScanError, analyse, nifti_bytes(inverted, affine), PayloadFormat.NIFTI)
        )
        self.assertIn("not that of a T1", reason)

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


def without_geometry(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return findings but for how the scan was stored."""
    return {name: value for name, value in found.items() if name != "geometry"}


def some_tissues(shape: tuple[int, int, int]) -> Tissues:
    """Return a brain in thirds along the first axis, each voxel 0.7 one tissue and 0.3 the next."""
    shares = np.zeros((3, *shape), np.float32)
    for k in range(3):
        third = slice(k * shape[0] // 3, (k + 1) * shape[0] // 3)
        shares[k, third], shares[(k + 1) % 3, third] = 0.7, 0.3
    return Tissues(
        shares, np.zeros(shape, np.float32), Mixture(np.array([0.3, 0.8, 1.0]), np.full(3, 0.0025))
    )


def some_findings(notes: bool = False) -> Findings:
    """Return findings without an analysis."""
    quality = Quality(
        alignment_score=0.88 if notes else 0.95,
        coverage=0.97 if notes else 1.0,
        grey_white_cnr=4.0,
        non_uniformity=0.2,
    )
    stored = Geometry(shape=(181, 217, 36), spacing_mm=(1, 1, 5 if notes else 1), orientation="LPS")
    volumes = Volumes(intracranial=1500, brain=1200, grey_matter=700, white_matter=500, csf=300)
    return findings.collect(volumes, quality, stored)


class FindingsTests(SynchronousTestCase):
    """Counting and notes."""

    def test_millilitres(self) -> None:
        """Whole voxels are counted in mL by the voxel's size; thick ones by their parts."""
        grid = Volume(np.zeros((9, 10, 10), np.float32), np.diag([2.0, 2.0, 2.5, 1.0]))
        found = findings.measure(some_tissues((9, 10, 10)), grid)
        self.assertEqual((found.csf, found.grey_matter, found.white_matter), (3.0, 3.0, 3.0))
        self.assertEqual((found.brain, found.intracranial), (6.0, 9.0))
        uneven = some_tissues((9, 10, 10))
        uneven.shares[:, 6:] = np.array([0.4, 0, 0.6]).reshape(3, 1, 1, 1)
        thick = Volume(grid.data, np.diag([1.0, 2.0, 5.0, 1.0]))
        found = findings.measure(uneven, thick)
        self.assertEqual((found.csf, found.grey_matter, found.white_matter), (3.3, 3.0, 2.7))

    def test_notes(self) -> None:
        """Thick slices, a poor match and a cut field are said; a good scan has no notes."""
        self.assertEqual(some_findings().notes, [])
        text = " ".join(some_findings(notes=True).notes)
        for words in ("Slices of 5 mm", "unlike the template", "3.0% of the brain"):
            self.assertIn(words, text)

    def test_methodSaysHowVoxelsAreCounted(self) -> None:
        """The method names the way of counting that was used."""
        self.assertIn(findings.BY_VOXEL, some_findings().analysis.method)
        self.assertIn(findings.BY_PART, some_findings(notes=True).analysis.method)


class PictureTests(SynchronousTestCase):
    """The overlay."""

    def picture(self, spacing: tuple[float, float, float]) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        """Return the picture of a box of brain, 120 x 150 x 120 mm, bright in its right front upper eighth."""
        shape = tuple(round(side / size) for side, size in zip((160, 190, 160), spacing, strict=True))
        head = Volume(np.zeros(shape, np.float32), np.diag([*spacing, 1.0]))
        box = tuple(
            slice(round(20 / size), n - round(20 / size)) for size, n in zip(spacing, shape, strict=True)
        )
        shares = np.zeros((3, *head.data[box].shape), np.float32)
        shares[2] = 1
        head.data[box] = 0.2
        head.data[tuple(slice(n // 2, side.stop) for n, side in zip(shape, box, strict=True))] = 1
        content = pictures.overlay(head, shares, box)
        return np.asarray(Image.open(io.BytesIO(content)).convert("L"))

    def test_radiologicalConvention(self) -> None:
        """The patient's right is on the left, the front of an axial slice and the top of a coronal one at the top."""
        image = self.picture((2.0, 2.0, 2.0))
        self.assertEqual(image.shape[1], pictures.WIDTH)
        side, gap = pictures.PANEL, pictures.GAP
        # the third column lies in the bright half of each plane
        left = gap + 2 * (side + gap)
        for row, (rows, columns) in enumerate(((0, 0), (0, 0), (0, 0))):
            panel = image[34 + row * (side + gap) :][:side, left : left + side]
            means = [[float(panel[a : a + 30, b : b + 30].mean()) for b in (100, 170)] for a in (100, 170)]
            self.assertGreater(means[rows][columns], 2 * max(means[0][1], means[1][0], means[1][1]))

    def test_aspectOfThickSlices(self) -> None:
        """Thick slices are drawn as high as thin ones."""
        thin, thick = (self.picture(spacing) > 40 for spacing in ((2.0, 2.0, 2.0), (2.0, 2.0, 5.0)))
        agreement = 2 * (thin & thick).sum() / (thin.sum() + thick.sum())
        self.assertGreater(float(agreement), 0.96)

    def test_legendKeepsItsColours(self) -> None:
        """The colours of the legend are those of the tissues, exactly."""
        palette = np.array(pictures._palette().getpalette()).reshape(-1, 3).tolist()
        for _, colour in pictures.COLOURS.values():
            self.assertIn(list(colour), palette)
        self.assertLessEqual(len(palette), 256)


class PageTests(SynchronousTestCase):
    """The report's page."""

    def html(self, **meta: Any) -> str:
        """Return a page."""
        known = ScanMeta(**{"patient_id": "P1", "format": PayloadFormat.NIFTI, **meta})
        return page.html("scan-7", known, some_findings(notes=True), b"png")

    def test_holdsWhatIsNeeded(self) -> None:
        """Ids, date, volumes, share, picture, version, notes and the words that it is decision support are there."""
        text = self.html(patient_id="P-42", acquired_at=ACQUIRED)
        for words in (
            "scan-7",
            "P-42",
            "2026-01-02 10:11 UTC",
            "1500.0",
            "46.7",
            "0.800",
            "t1-volumes 1.0",
            "cG5n",
        ):
            self.assertIn(words, text)
        self.assertIn("Decision support only", text)
        self.assertIn("Slices of 5 mm", text)

    def test_isSelfContained(self) -> None:
        """The page loads nothing and runs nothing."""
        text = self.html()
        for words in ("http:", "https:", "<script", "url(", "@import", "<link"):
            self.assertNotIn(words, text)

    def test_escapes(self) -> None:
        """What came with the scan cannot become markup or template."""
        evil = "<script>alert('x')</script> $$support ${x}"
        text = self.html(patient_id='"><img src=x>', series_description=evil)
        self.assertNotIn("<script>", text)
        self.assertNotIn("<img src=x", text)
        self.assertIn("&lt;script&gt;", text)
        self.assertIn("${x}", text)
