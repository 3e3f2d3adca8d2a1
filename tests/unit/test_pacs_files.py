"""What Fr-PACS finds on a disk: walks, NIfTI and DICOM files, series, payloads."""

import gzip
import hashlib
import io
import json
import os
import tarfile
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pydicom
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import CTImageStorage, EnhancedMRImageStorage
from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.model import PayloadFormat, make_scan_id
from fr_twisted.pacs import dicom, facts, nifti
from fr_twisted.pacs.files import ChangedError, NotUsableError, Skipped, Stamp, take_stamp, walk
from fr_twisted.pacs.scans import Drop, Payload, Prepared, classify, prepare
from tests.pacs_builders import make_slice, new_folder, write_nifti, write_series, write_slice


class FolderCase(SynchronousTestCase):
    """Has an empty folder for each test."""

    def setUp(self) -> None:
        """Make the folder."""
        self.root = new_folder(self) / "root"
        self.root.mkdir()

    def look(self, patient_id: str | None = None) -> tuple[list[Drop], dict[str, str]]:
        """Return the scans below the folder, and the reason of each file that is none, by base name."""
        stamps = [item for item in walk(self.root) if isinstance(item, Stamp)]
        drops, skipped = classify(stamps, patient_id)
        return drops, {item.path.name: item.reason for item in skipped}


class WalkTests(FolderCase):
    """What a walk yields."""

    def names(self, watched: bool = False) -> dict[str, str | None]:
        """Return relative paths, and the reason of what is skipped."""
        return {
            str(item.path.relative_to(self.root)): item.reason if isinstance(item, Skipped) else None
            for item in walk(self.root, watched)
        }

    def test_nestedFilesInOrder(self) -> None:
        """Files at any depth are found, by name; hidden ones are not."""
        for name in ("b/two", "a", "b/c/one", ".hidden", ".part/x"):
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).touch()
        self.assertEqual(list(self.names()), ["a", "b/c/one", "b/two"])

    def test_sentAndRefusedOfAWatchedFolder(self) -> None:
        """What was moved away is not found again; folders of that name further down are ordinary."""
        for name in ("sent/a", "refused/b", "x/sent/c"):
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).touch()
        self.assertEqual(list(self.names(watched=True)), ["x/sent/c"])
        self.assertEqual(len(self.names()), 3)

    def test_linksDoNotLeadOut(self) -> None:
        """A link to a file is followed within the folder only; a link to a folder never."""
        outside = self.root.parent / f"{self.root.name}-outside"
        outside.mkdir()
        (outside / "secret").touch()
        (self.root / "real").touch()
        (self.root / "in").symlink_to("real")
        (self.root / "out").symlink_to(outside / "secret")
        (self.root / "folder").symlink_to(outside)
        (self.root / "loop").symlink_to(self.root)
        (self.root / "dead").symlink_to("nothing")
        found = self.names()
        self.assertIsNone(found["real"])
        self.assertIsNone(found["in"])
        self.assertIn("leads out", found["out"] or "")
        self.assertIn("link to a folder", found["folder"] or "")
        self.assertIn("link to a folder", found["loop"] or "")
        self.assertIn("not there", found["dead"] or "")

    def test_pipesAreNotOpened(self) -> None:
        """A named pipe, which would block whoever opens it, is skipped."""
        os.mkfifo(self.root / "pipe")
        self.assertEqual(self.names(), {"pipe": "not a regular file"})

    def test_aSingleFile(self) -> None:
        """A file is walked to itself; one that is not there raises."""
        file = self.root / "one"
        file.touch()
        self.assertEqual(list(walk(file)), [take_stamp(file)])
        self.assertRaises(FileNotFoundError, list, walk(self.root / "none"))

    def test_stampNoticesChanges(self) -> None:
        """A stamp holds while size and time are the same."""
        file = self.root / "one"
        file.write_text("a")
        stamp = take_stamp(file)
        stamp.check()
        os.utime(file, ns=(1, 1))
        self.assertRaises(ChangedError, stamp.check)
        file.unlink()
        self.assertRaises(ChangedError, stamp.check)


class NiftiTests(FolderCase):
    """NIfTI files."""

    def inspect(self, name: str = "a.nii.gz", **options: Any) -> Any:
        """Write a file and return its facts."""
        return nifti.inspect(take_stamp(write_nifti(self.root / name, **options)), None)

    def refused(self, path: Path) -> str:
        """Return why a file is not usable."""
        error = self.assertRaises(NotUsableError, nifti.inspect, take_stamp(path), None)
        return str(error)

    def test_facts(self) -> None:
        """Format, shape and spacing are told; not when it was acquired, for a file's time is a copy's."""
        path = write_nifti(self.root / "a.nii")
        meta = nifti.inspect(take_stamp(path), "P-1")
        self.assertEqual((meta.patient_id, meta.format), ("P-1", PayloadFormat.NIFTI))
        self.assertEqual(meta.facts, {"shape": "10 x 11 x 12", "spacing_mm": "1 x 1.5 x 2"})
        self.assertIsNone(meta.acquired_at)
        self.assertEqual(self.inspect().format, PayloadFormat.NIFTI_GZ)

    def test_patientOfTheName(self) -> None:
        """The patient is BIDS's subject, else the cleaned stem."""
        cases = {
            "sub-01_ses-2_T1w.nii.gz": "sub-01",
            "ses-2_sub-AB.nii": "sub-AB",
            "Jane's brain (2).nii.gz": "Jane_s_brain_2",
            "....nii": "unnamed",
            "é.nii": "unnamed",
            "a" * 90 + ".nii.gz": "a" * 64,
        }
        for name, patient in cases.items():
            self.assertEqual(nifti.patient_of_name(Path(name)), patient, name)

    def test_sidecar(self) -> None:
        """A BIDS sidecar tells time, description and facts, in the units of DICOM; nonsense in it is passed over."""
        path = write_nifti(self.root / "sub-7_T1w.nii.gz")
        sidecar = {
            "AcquisitionDateTime": "2025-05-06T07:08:09+02:00",
            "SeriesDescription": "T1 mprage",
            "MagneticFieldStrength": 3,
            "RepetitionTime": 2.3,
            "EchoTime": 0.00298,
            "FlipAngle": "nine",
            "Manufacturer": ["a"],
            "PatientName": "Doe",
        }
        (self.root / "sub-7_T1w.json").write_text(json.dumps(sidecar))
        meta = nifti.inspect(take_stamp(path), None)
        self.assertEqual(meta.patient_id, "sub-7")
        self.assertEqual(meta.acquired_at, datetime(2025, 5, 6, 5, 8, 9, tzinfo=UTC))
        self.assertEqual(meta.series_description, "T1 mprage")
        self.assertEqual(meta.facts["field_strength_t"], 3)
        self.assertEqual(meta.facts["repetition_time_ms"], 2300)
        self.assertEqual(meta.facts["echo_time_ms"], 2.98)
        self.assertNotIn("flip_angle_deg", meta.facts)
        self.assertNotIn("Doe", meta.model_dump_json())

    def test_brokenSidecar(self) -> None:
        """A sidecar that is no JSON object is as none."""
        for text in ("{", "[1]", "\0", "NaN"):
            (self.root / "a.json").write_text(text)
            self.assertIn("shape", self.inspect("a.nii.gz").facts)

    def test_truncated(self) -> None:
        """A file that ends early is not sent, compressed or not."""
        plain, packed = write_nifti(self.root / "a.nii"), write_nifti(self.root / "b.nii.gz")
        for path in (plain, packed):
            path.write_bytes(path.read_bytes()[:-100])
            self.assertIn("truncated", self.refused(path))

    def test_damaged(self) -> None:
        """A compressed file whose checksum is wrong is not sent."""
        path = write_nifti(self.root / "b.nii.gz")
        data = bytearray(path.read_bytes())
        data[-6] ^= 1
        path.write_bytes(data)
        self.assertIn("damaged", self.refused(path))

    def test_moreThanTheHeaderSays(self) -> None:
        """A file that decompresses to far more than its header says is not read to its end."""
        path = write_nifti(self.root / "b.nii.gz")
        path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + bytes(3 << 20)))
        self.assertIn("more than its header", self.refused(path))

    def test_notNifti(self) -> None:
        """Other content under the name of a NIfTI file is refused."""
        for name in ("a.nii", "a.nii.gz"):
            for data in (b"", b"hello", bytes(400), gzip.compress(b"x" * 500)):
                path = self.root / name
                path.write_bytes(data)
                self.refused(path)

    def test_shapes(self) -> None:
        """One volume of at least eight slices is wanted; a fourth axis of length one does no harm."""
        self.assertIn("3-D", self.refused(write_nifti(self.root / "a.nii", (9, 9, 9, 3))))
        self.assertIn("3-D", self.refused(write_nifti(self.root / "b.nii", (9, 9))))
        self.assertIn("localizer", self.refused(write_nifti(self.root / "c.nii", (9, 9, 3))))
        self.assertEqual(self.inspect("d.nii", shape=(9, 9, 9, 1)).facts["shape"], "9 x 9 x 9")


class SeriesTests(FolderCase):
    """DICOM files in a folder, grouped."""

    def test_keywords(self) -> None:
        """Every tag that is read exists."""
        for keyword in dicom.TAGS:
            self.assertIsNotNone(pydicom.datadict.tag_for_keyword(keyword), keyword)

    def test_oneSeries(self) -> None:
        """A series is one scan, its slices in order, its facts those of the header, no name among them."""
        write_series(self.root / "deep" / "er")
        drops, skipped = self.look()
        self.assertEqual(skipped, {})
        (drop,) = drops
        self.assertEqual(drop.entries, tuple(f"1.2.3.{n}.dcm" for n in range(1, 9)))
        self.assertEqual([stamp.path.name for stamp in drop.files][:2], ["IM0007", "IM0006"])
        meta = drop.meta
        self.assertEqual((meta.patient_id, meta.format), ("P-17", PayloadFormat.DICOM_TAR))
        self.assertEqual((meta.study_instance_uid, meta.series_instance_uid), ("1.2", "1.2.3"))
        self.assertEqual(meta.series_description, "T1 test")
        self.assertEqual(meta.facts["slices"], 8)
        self.assertEqual(meta.facts["spacing_mm"], "1 x 1 x 1.2")
        self.assertEqual(meta.facts["patient_age"], "076Y")
        for secret in ("Doe", "Jane", "19500203", "1950-02-03"):
            self.assertNotIn(secret, meta.model_dump_json())

    def test_interleavedSeries(self) -> None:
        """Two series whose files alternate in one folder are two scans."""
        write_series(self.root, 9, "1.2.3", prefix="A")
        write_series(self.root, 8, "1.2.4", prefix="A1")
        drops, skipped = self.look()
        self.assertEqual(sorted(len(drop.files) for drop in drops), [8, 9])
        self.assertEqual(skipped, {})

    def test_mixedWithOtherModalities(self) -> None:
        """CT images, reports and presentation states are skipped by name; the MR series beside them is sent."""
        write_series(self.root)
        write_slice(self.root / "ct", make_slice(1, "1.5", Modality="CT", SOPClassUID=str(CTImageStorage)))
        write_slice(
            self.root / "sr",
            make_slice(1, "1.2.3", Modality="SR", SOPClassUID="1.2.840.10008.5.1.4.1.1.88.33"),
        )
        write_slice(self.root / "sc", make_slice(2, "1.2.3", SOPClassUID="1.2.840.10008.5.1.4.1.1.7"))
        write_slice(self.root / "odd", make_slice(2, "1.2.3", Modality="Doe^Jane"))
        drops, skipped = self.look()
        self.assertEqual([len(drop.files) for drop in drops], [8])
        self.assertEqual(skipped["ct"], "not an MR image (modality CT)")
        self.assertEqual(skipped["sr"], "not an MR image (modality SR)")
        self.assertIn("sc", skipped)
        self.assertEqual(skipped["odd"], "not an MR image (modality unknown)")

    def test_notDicom(self) -> None:
        """Other files are reported; DICOMDIR and the sidecars of NIfTI files are not."""
        write_series(self.root)
        write_nifti(self.root / "a.nii.gz")
        for name in ("readme.txt", "empty", "DICOMDIR", "a.json", "b.json"):
            (self.root / name).write_bytes(b"" if name == "empty" else b"text")
        drops, skipped = self.look()
        self.assertEqual(len(drops), 2)
        self.assertEqual(skipped, dict.fromkeys(("readme.txt", "empty", "b.json"), "neither NIfTI nor DICOM"))
        nifti_drop = next(drop for drop in drops if drop.meta.format is PayloadFormat.NIFTI_GZ)
        self.assertEqual([stamp.path.name for stamp in nifti_drop.others], ["a.json"])

    def test_withoutUids(self) -> None:
        """Files that name no series or no valid instance are skipped."""
        write_series(self.root)
        write_slice(self.root / "x", make_slice(9, SeriesInstanceUID=None))
        write_slice(self.root / "y", make_slice(9, SOPInstanceUID="../../etc"))
        drops, skipped = self.look()
        self.assertEqual(len(drops[0].files), 8)
        self.assertEqual(set(skipped), {"x", "y"})

    def test_truncatedPixels(self) -> None:
        """A file without all of its pixels keeps its whole series back, and says so."""
        paths = write_series(self.root)
        paths[3].write_bytes(paths[3].read_bytes()[:-1])
        drops, skipped = self.look()
        self.assertEqual(drops, [])
        self.assertIn("truncated: ", skipped[paths[3].name])
        self.assertIn(f"{paths[3].name} is damaged", skipped[paths[0].name])

    def test_truncatedAnywhere(self) -> None:
        """Cut at any byte, a file is never sent, and never an exception."""
        whole = write_slice(self.root / "x", make_slice(1)).read_bytes()
        for length in [*range(0, len(whole), 7), len(whole) - 1]:
            (self.root / "x").write_bytes(whole[:length])
            drops, skipped = self.look()
            self.assertEqual((drops, list(skipped)), ([], ["x"]), length)
            self.assertNotIn("its series has", skipped["x"], length)
        (self.root / "x").write_bytes(whole)
        self.assertIn("its series has 1 slices", self.look()[1]["x"])

    @given(st.data())
    @settings(max_examples=150, deadline=None)
    def test_garbageIsSkipped(self, data: st.DataObject) -> None:
        """Bytes changed at random end in a slice or a reason, never in another exception."""
        whole = bytearray(write_slice(self.root / "x", make_slice(1)).read_bytes())
        for _ in range(data.draw(st.integers(1, 12))):
            whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
        (self.root / "x").write_bytes(whole)
        drops, skipped = self.look()
        self.flushWarnings()  # of pydicom, about what it finds
        self.assertEqual((drops, len(skipped)), ([], 1))

    def test_tooShortAndLocalizers(self) -> None:
        """A series of fewer than eight slices, and a localizer, are skipped."""
        write_series(self.root / "short", 7, "1.2.5")
        write_series(
            self.root / "loc", 9, "1.2.6", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], prefix="L"
        )
        drops, skipped = self.look()
        self.assertEqual(drops, [])
        self.assertEqual(skipped["IM0001"], "its series has 7 slices; fewer than 8 are not sent")
        self.assertEqual(skipped["L0001"], "a localizer")

    def test_twoPatientsInOneSeries(self) -> None:
        """A series that names two patients is nobody's."""
        write_series(self.root, 8)
        write_slice(self.root / "z", make_slice(9, PatientID="P-18"))
        drops, skipped = self.look()
        self.assertEqual(drops, [])
        self.assertEqual(set(skipped.values()), {"its series names more than one patient"})

    def test_copies(self) -> None:
        """A second copy of a slice travels once, and belongs to the scan."""
        paths = write_series(self.root)
        (self.root / "z-copy").write_bytes(paths[0].read_bytes())
        (drop,), skipped = self.look()
        self.assertEqual((len(drop.files), [s.path.name for s in drop.others], skipped), (8, ["z-copy"], {}))

    def test_enhanced(self) -> None:
        """One file of many frames is a series."""
        frames: dict[str, Any] = {
            "NumberOfFrames": 8,
            "PixelData": bytes(8 * 8 * 8 * 2),
            "SOPClassUID": str(EnhancedMRImageStorage),
        }
        write_slice(self.root / "e", make_slice(1, **frames))
        (drop,), _ = self.look()
        self.assertEqual((len(drop.files), drop.meta.facts["slices"]), (1, 8))

    def test_orderWithoutNumbers(self) -> None:
        """Without instance numbers the positions along the normal give the order."""
        for number in range(1, 9):
            changes: dict[str, Any] = {"InstanceNumber": None, "ImagePositionPatient": [0, 0, -number]}
            write_slice(self.root / f"{number}", make_slice(number, **changes))
        (drop,), _ = self.look()
        self.assertEqual([stamp.path.name for stamp in drop.files], list("87654321"))

    def test_patients(self) -> None:
        """The file's own patient comes first, then the setting, then one named after the study."""
        write_series(self.root)
        self.assertEqual(self.look("S-1")[0][0].meta.patient_id, "P-17")
        write_series(self.root, PatientID="")
        self.assertEqual(self.look("S-1")[0][0].meta.patient_id, "S-1")
        nobody = self.look()[0][0].meta.patient_id
        self.assertRegex(nobody, r"^ANON-[0-9a-f]{12}$")
        self.assertEqual(nobody, self.look()[0][0].meta.patient_id)

    def test_oddValues(self) -> None:
        """A value that is none of its kind is left out of the facts."""
        paths = write_series(self.root)
        for path in paths:
            path.write_bytes(path.read_bytes().replace(b"2300", b"23x0"))
        (drop,), skipped = self.look()
        self.assertEqual(skipped, {})
        self.assertNotIn("repetition_time_ms", drop.meta.facts)
        self.assertIn("echo_time_ms", drop.meta.facts)

    def test_agesAreBlurred(self) -> None:
        """An age above 89 is told as 90."""
        write_series(self.root, PatientAge="103Y")
        self.assertEqual(self.look()[0][0].meta.facts["patient_age"], "090Y")

    def test_acquisitionTimes(self) -> None:
        """The most exact time wins, with the zone that the file names."""
        offset = timezone(timedelta(hours=-5))
        cases: list[tuple[dict[str, Any], datetime]] = [
            ({"TimezoneOffsetFromUTC": "-0500"}, datetime(2026, 1, 2, 10, 30, 0, 500000, offset)),
            ({"AcquisitionDateTime": "20260103121314+0000"}, datetime(2026, 1, 3, 12, 13, 14, tzinfo=UTC)),
            (
                {"AcquisitionTime": None, "TimezoneOffsetFromUTC": "+0000"},
                datetime(2026, 1, 2, 10, 11, 12, tzinfo=UTC),
            ),
        ]
        for changes, expected in cases:
            write_series(self.root, **changes)
            self.assertEqual(self.look()[0][0].meta.acquired_at, expected, changes)
        write_series(self.root, StudyDate="", AcquisitionDate="")
        self.assertIsNone(self.look()[0][0].meta.acquired_at)


class FactsTests(SynchronousTestCase):
    """Values that travel."""

    @given(st.one_of(st.text(), st.integers(), st.floats(), st.booleans(), st.none(), st.lists(st.text())))
    @settings(deadline=None)
    def test_plainIsBounded(self, value: Any) -> None:
        """Whatever a header holds, a fact is short, on one line and JSON."""
        found = facts.plain(value)
        json.dumps(found, allow_nan=False)
        if isinstance(found, str):
            self.assertTrue(0 < len(found) <= 64)
            self.assertNotIn("\n", found)

    @given(st.text(max_size=30))
    @settings(deadline=None)
    def test_timesNeverRaise(self, value: str) -> None:
        """Times that are none are None."""
        facts.dicom_zone(value)
        for moment in (
            facts.dicom_moment(value, None),
            facts.dicom_date_time(value, value, UTC),
            facts.iso_moment(value),
        ):
            self.assertTrue(moment is None or moment.tzinfo is not None)


class PrepareTests(FolderCase):
    """Payloads."""

    def drop(self) -> Drop:
        """Return the one scan in the folder."""
        (drop,), _ = self.look()
        return drop

    def test_niftiTravelsAsItLies(self) -> None:
        """The payload is the file itself, whose digest gives the scan's id."""
        path = write_nifti(self.root / "sub-1.nii.gz")
        prepared = prepare(self.drop(), "pacs", self.root)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        self.assertEqual((prepared.path, prepared.spooled), (path, False))
        self.assertEqual((prepared.item.sha256, prepared.item.size), (digest, path.stat().st_size))
        self.assertEqual(prepared.item.id, make_scan_id("pacs", "sub-1", digest))
        self.assertEqual(prepared.item.meta["format"], "nifti-gz")
        prepared.discard()
        self.assertTrue(path.exists())

    def test_tarIsDeterministic(self) -> None:
        """A series is a tar with names made of UIDs and no times, the same wherever and whenever it is made."""
        write_series(self.root / "Doe^Jane")
        spool = self.root.parent / f"{self.root.name}-spool"
        spool.mkdir()
        first = prepare(self.drop(), "pacs", spool)
        data = first.path.read_bytes()
        self.assertEqual(hashlib.sha256(data).hexdigest(), first.item.sha256)
        self.assertEqual((len(data), first.spooled), (first.item.size, True))
        (self.root / "Doe^Jane").rename(self.root / "elsewhere")
        for path in (self.root / "elsewhere").iterdir():
            os.utime(path)
        self.assertEqual(prepare(self.drop(), "pacs", spool).item, first.item)
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            entries = tar.getmembers()
            self.assertEqual([entry.name for entry in entries], [f"1.2.3.{n}.dcm" for n in range(1, 9)])
            self.assertEqual({(e.mtime, e.uid, e.uname, e.mode) for e in entries}, {(0, 0, "", 0o644)})
            content = tar.extractfile(entries[0])
            assert content is not None
            self.assertEqual(pydicom.dcmread(content).InstanceNumber, 1)
        self.assertEqual(first.path.stat().st_mode & 0o777, 0o600)
        first.discard()
        self.assertFalse(first.path.exists())

    def test_changedSinceItWasLookedAt(self) -> None:
        """A file that changed or went after the look is noticed, and leaves nothing in the spool folder."""
        paths = write_series(self.root / "s")
        spool = self.root.parent / f"{self.root.name}-spool"
        spool.mkdir()
        drop = self.drop()
        paths[0].write_bytes(paths[0].read_bytes() + b"x")
        self.assertRaises(ChangedError, prepare, drop, "pacs", spool)
        paths[0].unlink()
        self.assertRaises(ChangedError, prepare, drop, "pacs", spool)
        self.assertEqual(list(spool.iterdir()), [])

    def test_payloadReads(self) -> None:
        """A payload gives the asked bytes, and says when there are none."""
        path = write_nifti(self.root / "a.nii")
        prepared = prepare(self.drop(), "pacs", self.root)
        payload = Payload(prepared, [take_stamp(path)])
        self.assertEqual(payload.read(5, 100), path.read_bytes()[5:105])
        self.assertRaises(ChangedError, payload.read, prepared.item.size - 1, 2)
        payload.close()
        payload.close()
        self.assertRaises(ChangedError, payload.read, 0, 1)

    def test_payloadOfAChangedFile(self) -> None:
        """A payload whose file is not what it was is not opened."""
        path = write_nifti(self.root / "a.nii")
        stamp = take_stamp(path)
        prepared = prepare(self.drop(), "pacs", self.root)
        os.utime(path, ns=(5, 5))
        self.assertRaises(ChangedError, Payload, prepared, [stamp])
        path.unlink()
        self.assertRaises(ChangedError, Payload, Prepared(prepared.item, path, False))
