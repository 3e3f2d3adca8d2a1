"""Generated scans: repeatable, different, of exact truth, and valid files."""

import functools
import gzip
import io
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nibabel
import numpy as np
import pydicom
from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.model import PayloadFormat
from fr_twisted.pacs.encode import PLANES, make_uid, to_dicom, to_nifti
from fr_twisted.pacs.generated import GeneratedCandidate, scan_seed
from fr_twisted.pacs.generator import GREY, MAX_VALUE, WHITE, GeneratedScan, draw_recipe, generate
from fr_twisted.pacs.head import DATA_FILE, Tissue, load_head

COARSE = (4.0, 4.0, 4.0)
NOON = datetime(2026, 3, 4, 12, 30, 5, 250000, UTC)


class HeadTests(SynchronousTestCase):
    """The template head."""

    def test_dataIsSmall(self) -> None:
        """The data file is below 5 MB and has the notice beside it."""
        self.assertLess(DATA_FILE.stat().st_size, 5_000_000)
        self.assertIn("McGill University", (DATA_FILE.parent / "LICENSE.mni152.txt").read_text())

    def test_labelsAgreeWithTheMaps(self) -> None:
        """The brain of the label grid is the template's mask, holes filled, at the place that the origins say."""
        head = load_head()
        start = np.round(head.brain_origin - head.head_origin).astype(int)
        box = tuple(slice(s, s + n) for s, n in zip(start, head.t1.shape, strict=True))
        inside = head.labels[box] == Tissue.BRAIN
        self.assertTrue(np.all(inside[head.t1 > 0]))
        self.assertLess(inside.sum() - (head.t1 > 0).sum(), 2000)
        self.assertEqual(inside.sum(), (head.labels == Tissue.BRAIN).sum())

    def test_everyTissueIsThere(self) -> None:
        """The head has all tissues, and air around it."""
        found = set(np.unique(load_head().labels).tolist())
        self.assertEqual(found, {int(tissue) for tissue in Tissue})


class GenerateTests(SynchronousTestCase):
    """Volumes and truth."""

    def test_sameSeedSameScan(self) -> None:
        """A seed gives one scan, bytes and truth."""
        first, second = generate(5, COARSE), generate(5, COARSE)
        np.testing.assert_array_equal(first.volume, second.volume)
        self.assertEqual(first.truth, second.truth)

    def test_otherSeedOtherScan(self) -> None:
        """Another seed gives another head."""
        first, second = generate(5, COARSE), generate(6, COARSE)
        self.assertNotEqual(first.truth, second.truth)
        self.assertGreater(abs(first.volume.astype(float) - second.volume).mean(), 20)

    def test_truthIsOfAPerson(self) -> None:
        """Volumes are within what adults have (ICV about 1.1 to 1.8 L), and add up."""
        for seed in range(6):
            truth = generate(seed, COARSE).truth
            self.assertTrue(1100 < truth.icv < 1800, truth)
            self.assertAlmostEqual(truth.brain, truth.gm + truth.wm)
            self.assertAlmostEqual(truth.icv, truth.brain + truth.csf)
            self.assertTrue(0.75 < truth.brain / truth.icv < 0.93, truth)
            self.assertTrue(1.1 < truth.gm / truth.wm < 2.0, truth)

    def test_truthFollowsTheScale(self) -> None:
        """The intracranial truth is the template's volume times the recipe's scale, whatever pose and warp."""
        template = float((load_head().labels == Tissue.BRAIN).sum()) / 1000
        for seed in (1, 2):
            scale = np.prod(draw_recipe(seed).scale)
            self.assertLess(abs(generate(seed, (2.0, 2.0, 2.0)).truth.icv / (template * scale) - 1), 0.02)

    def test_truthDoesNotDependOnTheSpacing(self) -> None:
        """The same head measured on another grid has the same volumes, within a percent."""
        fine, thick = generate(3, (2.0, 2.0, 2.0)).truth, generate(3, (2.0, 2.0, 6.0)).truth
        for name in ("gm", "wm", "csf"):
            self.assertLess(abs(getattr(thick, name) / getattr(fine, name) - 1), 0.01, name)

    def test_volumeAndAffine(self) -> None:
        """Spacing is as asked, the grid is centred, values fit 12 bits and use them."""
        scan = generate(2, (3.0, 4.0, 5.0))
        np.testing.assert_allclose(np.diag(scan.affine)[:3], (3, 4, 5))
        centre = scan.affine @ [*((np.array(scan.volume.shape) - 1) / 2), 1]
        np.testing.assert_allclose(centre[:3], 0, atol=1e-9)
        self.assertEqual(scan.volume.dtype, np.int16)
        self.assertGreaterEqual(int(scan.volume.min()), 0)
        self.assertTrue(1000 < int(scan.volume.max()) <= MAX_VALUE)

    def test_looksLikeT1(self) -> None:
        """White matter is brighter than grey, grey than fluid, and air is dark, in the image as in the truth."""
        scan = generate(4, (2.0, 2.0, 2.0))
        values = scan.volume / (WHITE * scan.recipe.gain)
        middle = values[tuple(slice(n // 3, 2 * n // 3) for n in values.shape)]
        self.assertTrue(GREY < np.percentile(middle, 75) < 1.25)
        corner = values[:4, :4, -4:]
        self.assertLess(corner.mean(), 0.1)
        self.assertGreater(corner.mean(), 0.0)

    def test_spacingIsChecked(self) -> None:
        """A spacing that no scanner has is refused."""
        self.assertRaises(ValueError, generate, 1, (0.1, 1.0, 1.0))
        self.assertRaises(ValueError, generate, 1, (1.0, 1.0, 20.0))


@functools.cache
def small_scan() -> GeneratedScan:
    """Return one scan for all tests of files."""
    return generate(9, (4.0, 5.0, 6.0))


class EncodeTests(SynchronousTestCase):
    """NIfTI and DICOM of one scan."""

    @property
    def scan(self) -> GeneratedScan:
        """A small scan."""
        return small_scan()

    def _dicom(self, plane: str) -> list[Any]:
        files = to_dicom(self.scan, "GEN-000009", NOON, plane)
        return [pydicom.dcmread(io.BytesIO(data)) for _, data in files]

    def test_niftiRoundTrip(self) -> None:
        """NIfTI holds the same voxels at the same place, and the same scan is the same bytes."""
        data = to_nifti(self.scan)
        self.assertEqual(data, to_nifti(self.scan))
        image: Any = nibabel.Nifti1Image.from_bytes(gzip.decompress(data))
        np.testing.assert_array_equal(np.asanyarray(image.dataobj), self.scan.volume)
        np.testing.assert_allclose(image.affine, self.scan.affine)
        self.assertEqual(image.get_sform(coded=True)[1], 1)
        self.assertEqual(image.get_qform(coded=True)[1], 1)

    def test_dicomVoxelsAreWhereTheyWere(self) -> None:
        """In each plane, every voxel of the series lies where the volume has it (PS3.3 equation C.7.6.2.1-1)."""
        scan = self.scan
        inverse = np.linalg.inv(scan.affine)
        for plane in PLANES:
            slices = self._dicom(plane)
            self.assertEqual(len(slices), scan.volume.shape[PLANES[plane][0]])
            for piece in (slices[0], slices[len(slices) // 2]):
                right, down = np.array(piece.ImageOrientationPatient, float).reshape(2, 3)
                for row, column in ((0, 0), (5, 9), (piece.Rows - 1, piece.Columns - 1)):
                    lps = np.array(piece.ImagePositionPatient, float)
                    lps = lps + right * piece.PixelSpacing[1] * column + down * piece.PixelSpacing[0] * row
                    voxel = np.rint(inverse @ [-lps[0], -lps[1], lps[2], 1])[:3].astype(int)
                    self.assertEqual(scan.volume[tuple(voxel)], piece.pixel_array[row, column])

    def test_slicesAreEquallySpacedAlongTheNormal(self) -> None:
        """Positions step along the normal by the spacing between slices."""
        for plane in PLANES:
            slices = self._dicom(plane)
            right, down = np.array(slices[0].ImageOrientationPatient, float).reshape(2, 3)
            steps = [
                np.array(b.ImagePositionPatient, float) - np.array(a.ImagePositionPatient, float)
                for a, b in pairwise(slices)
            ]
            along = np.abs(np.array(steps) @ np.cross(right, down))
            np.testing.assert_allclose(along, float(slices[0].SpacingBetweenSlices), atol=1e-3)

    def test_dicomIsOneSeries(self) -> None:
        """UIDs of study, series and frame of reference are shared, those of the files are unique, all are valid."""
        slices = self._dicom("sagittal")
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "PatientID"):
            self.assertEqual(len({str(piece[keyword].value) for piece in slices}), 1, keyword)
        self.assertEqual(len({piece.SOPInstanceUID for piece in slices}), len(slices))
        for piece in slices:
            self.assertTrue(piece.SOPInstanceUID.is_valid)
            self.assertEqual(piece.SOPInstanceUID, piece.file_meta.MediaStorageSOPInstanceUID)
            self.assertEqual(piece.SpecificCharacterSet, "ISO_IR 100")
        self.assertEqual([piece.InstanceNumber for piece in slices], list(range(1, len(slices) + 1)))

    def test_dicomIsRepeatable(self) -> None:
        """The same scan, patient and time give the same bytes; another node's UIDs are its own."""
        first = list(to_dicom(self.scan, "GEN-1", NOON))
        self.assertEqual(first, list(to_dicom(self.scan, "GEN-1", NOON)))
        other = list(to_dicom(self.scan, "GEN-1", NOON, origin="elsewhere"))
        self.assertFalse({uid for uid, _ in first} & {uid for uid, _ in other})

    def test_unknownPlane(self) -> None:
        """A plane that is none is refused."""
        self.assertRaises(ValueError, list, to_dicom(self.scan, "GEN-1", NOON, "oblique"))

    def test_uidsAreShort(self) -> None:
        """UIDs have at most 64 characters and depend on every word."""
        self.assertLessEqual(len(make_uid("a", 2)), 64)
        self.assertNotEqual(make_uid("a", "b"), make_uid("ab"))


class CandidateTests(SynchronousTestCase):
    """A generated scan as it goes into the outbox."""

    def test_seedsDiffer(self) -> None:
        """Every scan of every run has its own seed."""
        seeds = {scan_seed(base, number) for base in range(3) for number in range(20)}
        self.assertEqual(len(seeds), 60)

    def test_truthStaysHere(self) -> None:
        """Truth is written to its folder if one is given, and is in neither meta nor payload."""
        with TemporaryDirectory() as folder:
            spool, truth = Path(folder, "spool"), Path(folder, "truth")
            spool.mkdir()
            truth.mkdir()
            candidate = GeneratedCandidate(77, PayloadFormat.NIFTI_GZ, "pacs", NOON, spool, truth)
            prepared = candidate.prepare()
            again = candidate.prepare()
            self.assertEqual(prepared.item, again.item)
            self.assertEqual(prepared.item.meta["patient_id"], "GEN-000077")
            self.assertEqual(prepared.path.stat().st_size, prepared.item.size)
            self.assertTrue((truth / f"{prepared.item.id}.json").is_file())
            self.assertNotIn("volumes_ml", str(prepared.item.meta))
