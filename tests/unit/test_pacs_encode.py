"""Generated scans as files: valid, repeatable, and silent about their truth."""

import functools
import gzip
import io
import shutil
import subprocess
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import SkipTest

import nibabel
import numpy as np
import pydicom
from highdicom import get_volume_from_series
from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.model import PayloadFormat
from fr_twisted.pacs.encode import PLANES, age_string, make_uid, natural_plane, to_dicom, to_nifti
from fr_twisted.pacs.generated import GeneratedCandidate, scan_seed
from fr_twisted.pacs.generator import GeneratedScan, Recipe, draw_recipe, generate

NOON = datetime(2026, 3, 4, 12, 30, 5, 250000, UTC)

VARYING = {"WindowCenter", "WindowWidth", "PixelData"}
"""Elements that follow from the pixels."""


@functools.cache
def small_scan(spacing: tuple[float, float, float] = (4.0, 5.0, 6.0)) -> GeneratedScan:
    """Return one scan for all tests of files."""
    return generate(9, spacing)


def other_truth(scan: GeneratedScan) -> GeneratedScan:
    """Return another head that went through the same scanner, of the same age and sex and under the same number."""
    recipe = Recipe(
        seed=scan.recipe.seed,
        base_seed=1234,
        spacing=scan.recipe.spacing,
        atrophy=1.0,
        ventricles=2.0,
        lesion_count=3,
        sex=scan.recipe.sex,
        age_years=scan.recipe.age_years,
    )
    return generate(recipe)


class NiftiTests(SynchronousTestCase):
    """NIfTI of one scan."""

    def test_roundTrip(self) -> None:
        """NIfTI holds the same voxels at the same place, and the same scan is the same bytes."""
        scan = small_scan()
        data = to_nifti(scan)
        self.assertEqual(data, to_nifti(scan))
        self.assertEqual(gzip.decompress(data), to_nifti(scan, compressed=False))
        image: Any = nibabel.Nifti1Image.from_bytes(gzip.decompress(data))
        np.testing.assert_array_equal(np.asanyarray(image.dataobj), scan.volume)
        np.testing.assert_allclose(image.affine, scan.affine)
        self.assertEqual(image.get_sform(coded=True)[1], 1)
        self.assertEqual(image.get_qform(coded=True)[1], 1)

    def test_headerSaysNothingOfTheTruth(self) -> None:
        """The header of another head in the same scanner is the same, byte for byte."""
        scan = small_scan()
        headers = [to_nifti(each, compressed=False)[:352] for each in (scan, other_truth(scan))]
        self.assertEqual(*headers)


class DicomTests(SynchronousTestCase):
    """A DICOM series of one scan."""

    def _dicom(self, plane: str | None, scan: GeneratedScan | None = None) -> list[Any]:
        files = to_dicom(scan or small_scan(), "GEN-000009", NOON, plane)
        return [pydicom.dcmread(io.BytesIO(data)) for _, data in files]

    def test_voxelsAreWhereTheyWere(self) -> None:
        """In each plane, every voxel of the series lies where the volume has it (PS3.3 equation C.7.6.2.1-1)."""
        scan = small_scan()
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

    def test_anotherReaderAgrees(self) -> None:
        """highdicom makes one volume of each series, without gaps, with the voxels at their places."""
        scan = small_scan()
        for plane in PLANES:
            volume: Any = get_volume_from_series(self._dicom(plane))
            ras = np.diag((-1.0, -1.0, 1.0, 1.0)) @ volume.affine
            self.assertEqual(volume.array.size, scan.volume.size)
            corners = [(0, 0, 0), tuple(n - 1 for n in volume.array.shape), (3, 5, 7)]
            for corner in corners:
                voxel = np.linalg.inv(scan.affine) @ ras @ [*corner, 1]
                index = tuple(np.rint(voxel[:3]).astype(int))
                np.testing.assert_allclose(voxel[:3], index, atol=1e-3)
                self.assertEqual(volume.array[corner], scan.volume[index])

    def test_filesAreWhatPydicomWrites(self) -> None:
        """Each file, read and written by pydicom, is the same bytes."""
        for plane in PLANES:
            for _, data in to_dicom(small_scan(), "GEN-000009", NOON, plane):
                out = io.BytesIO()
                pydicom.dcmwrite(out, pydicom.dcmread(io.BytesIO(data)), enforce_file_format=True)
                self.assertEqual(out.getvalue(), data)

    def test_dcmtkHasNoWarnings(self) -> None:
        """dcmtk reads a file without a warning."""
        if shutil.which("dcmdump") is None:
            raise SkipTest("needs dcmtk's dcmdump")
        with TemporaryDirectory() as folder:
            path = Path(folder, "slice.dcm")
            path.write_bytes(next(iter(to_dicom(small_scan(), "GEN-000009", NOON)))[1])
            done = subprocess.run(
                ["dcmdump", "-q", "-M", str(path)], capture_output=True, check=True, timeout=60
            )
            self.assertEqual(done.stderr, b"")
            done = subprocess.run(["dcmdump", "-M", str(path)], capture_output=True, check=True, timeout=60)
            self.assertEqual(done.stderr, b"")

    def test_slicesAreEquallySpacedAlongTheNormal(self) -> None:
        """Positions step along the normal by the spacing between slices, which are as thick: no gaps."""
        for plane, spacing in (("sagittal", 4.0), ("coronal", 5.0), ("axial", 6.0)):
            slices = self._dicom(plane)
            right, down = np.array(slices[0].ImageOrientationPatient, float).reshape(2, 3)
            steps = [
                np.array(b.ImagePositionPatient, float) - np.array(a.ImagePositionPatient, float)
                for a, b in pairwise(slices)
            ]
            along = np.abs(np.array(steps) @ np.cross(right, down))
            np.testing.assert_allclose(along, spacing, atol=1e-3)
            self.assertEqual(float(slices[0].SpacingBetweenSlices), spacing)
            self.assertEqual(float(slices[0].SliceThickness), spacing)

    def test_naturalPlane(self) -> None:
        """Thick voxels are slices; cubes are stored sagittally."""
        self.assertEqual(natural_plane(small_scan()), "axial")
        self.assertEqual(natural_plane(generate(9, (5.0, 1.4, 1.4))), "sagittal")
        self.assertEqual(natural_plane(generate(9, (4.0, 4.0, 4.0))), "sagittal")
        self.assertEqual(len(self._dicom(None)), small_scan().volume.shape[2])

    def test_oneSeries(self) -> None:
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

    def test_patient(self) -> None:
        """Sex and age of the patient are in the files."""
        recipe = small_scan().recipe
        piece = self._dicom("axial")[0]
        self.assertEqual(piece.PatientSex, recipe.sex)
        self.assertEqual(piece.PatientAge, f"{recipe.age_years:03d}Y")
        self.assertEqual([age_string(years) for years in (7, 89, 90, 95)], ["007Y", "089Y", "090Y", "090Y"])

    def test_repeatable(self) -> None:
        """The same scan, patient and time give the same bytes; another node's UIDs are its own."""
        first = list(to_dicom(small_scan(), "GEN-1", NOON))
        self.assertEqual(first, list(to_dicom(small_scan(), "GEN-1", NOON)))
        other = list(to_dicom(small_scan(), "GEN-1", NOON, origin="elsewhere"))
        self.assertFalse({uid for uid, _ in first} & {uid for uid, _ in other})

    def test_headersSayNothingOfTheTruth(self) -> None:
        """Files of another head in the same scanner differ in pixels and what follows from them alone."""
        pairs = zip(self._dicom("axial"), self._dicom("axial", other_truth(small_scan())), strict=True)
        for one, other in pairs:
            different = {element.keyword for element in one if element != other.get(element.tag)}
            self.assertEqual(different | VARYING, VARYING)
            self.assertEqual({element.tag for element in one}, {element.tag for element in other})
            self.assertIn("PixelData", different)

    def test_unknownPlane(self) -> None:
        """A plane that is none is refused."""
        self.assertRaises(ValueError, list, to_dicom(small_scan(), "GEN-1", NOON, "oblique"))

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
        """Truth is written to its folder if one is given; what travels beside the payload are the facts of any scan."""
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
            facts = prepared.item.meta["facts"]
            recipe = draw_recipe(77)
            self.assertEqual(
                (facts["patient_sex"], facts["patient_age"]), (recipe.sex, age_string(recipe.age_years))
            )
            self.assertEqual((facts["shape"], facts["spacing_mm"]), ("176 x 224 x 192", "1 x 1 x 1"))
            scanner = {"field_strength_t", "manufacturer", "sequence", "flip_angle_deg"}
            times = {"repetition_time_ms", "echo_time_ms", "inversion_time_ms"}
            self.assertEqual(
                set(facts), scanner | times | {"shape", "spacing_mm", "patient_sex", "patient_age"}
            )
            sent = {name for name, value in prepared.item.meta.items() if value is not None}
            self.assertEqual(
                sent,
                {
                    "patient_id",
                    "format",
                    "modality",
                    "priority",
                    "acquired_at",
                    "series_description",
                    "facts",
                },
            )

    def test_seriesTravelsAsOneTar(self) -> None:
        """A series is a tar of its files, repeatable, with the sex and age that its facts tell."""
        with TemporaryDirectory() as folder:
            candidate = GeneratedCandidate(78, PayloadFormat.DICOM_TAR, "pacs", NOON, Path(folder))
            prepared = candidate.prepare()
            self.assertEqual(prepared.item, candidate.prepare().item)
            self.assertGreater(prepared.item.size, 2 * 176 * 224 * 192)
            recipe = draw_recipe(78)
            content = prepared.path.read_bytes()
            piece = pydicom.dcmread(io.BytesIO(content[512:]), stop_before_pixels=True)
            self.assertEqual((piece.PatientSex, piece.PatientAge), (recipe.sex, age_string(recipe.age_years)))
