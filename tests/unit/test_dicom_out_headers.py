"""What is kept of a sent series, and for how long."""

import os
import stat
from typing import Any

from pydicom.dataset import Dataset
from twisted.logger import LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.link.interfaces import Item
from fr_twisted.model import SCAN_KIND
from fr_twisted.pacs.dicom_out import seg
from fr_twisted.pacs.dicom_out.headers import DAYS, HeaderStore, SourceSeries
from fr_twisted.pacs.scans import Prepared
from tests.dicom_out_builders import SCAN, head, sagittal_slices, write_payload
from tests.pacs_builders import new_folder


class HeaderTests(SynchronousTestCase):
    """`HeaderStore`."""

    def setUp(self) -> None:
        """Make one."""
        self.root = new_folder(self)
        self.store = HeaderStore(self.root / "headers")
        self.store.make()

    def files(self) -> list[str]:
        """Return what is in the folder."""
        return sorted(path.name for path in self.store.root.iterdir())

    def test_keptAndFound(self) -> None:
        """All images come back in their order, with the patient, the study and their places, and without pixels."""
        slices = sagittal_slices(head(), OtherPatientNames="Secret^Name", PatientComments="secret")
        self.store.remember(write_payload(self.root / "payload.tar", slices))
        source = self.store.find(SCAN)
        assert source is not None
        self.assertEqual([i.SOPInstanceUID for i in source.images], [s.SOPInstanceUID for s in slices])
        for image, original in zip(source.images, slices, strict=True):
            self.assertEqual(image.ImagePositionPatient, original.ImagePositionPatient)
            self.assertEqual((image.PatientName, image.PatientID), ("Doe^Jane", "P-17"))
            for keyword in ("PixelData", "OtherPatientNames", "PatientComments"):
                self.assertNotIn(keyword, image)

    def test_forThisUserAlone(self) -> None:
        """Folder and file can be read by nobody else: they hold names."""
        self.store.remember(write_payload(self.root / "payload.tar", sagittal_slices(head())))
        self.assertEqual(stat.S_IMODE(self.store.root.stat().st_mode), 0o700)
        (path,) = self.store.root.iterdir()
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)

    def test_notOfNifti(self) -> None:
        """Of a scan that is no DICOM series nothing is kept, and nothing is found."""
        path = self.root / "scan.nii"
        path.write_bytes(b"x")
        item = Item(SCAN, SCAN_KIND, 1, "0" * 64, {"patient_id": "P-17", "format": "nifti"})
        self.store.remember(Prepared(item, path, False))
        self.assertEqual(self.files(), [])
        self.assertIsNone(self.store.find(SCAN))
        self.assertFalse(self.store.knows(SCAN))

    def test_unreadable(self) -> None:
        """Headers that cannot be read keep no scan back; that is said without quoting them."""
        events: list[LogEvent] = []
        observer: Any = events.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        prepared = write_payload(self.root / "payload.tar", sagittal_slices(head())[:8])
        prepared.path.write_bytes(b"Doe^Jane" * 1000)
        self.store.remember(prepared)
        self.assertEqual(self.files(), [])
        (said,) = (e for e in events if e.get("event") == "dicom.no-headers")
        self.assertNotIn("Doe", str(said))

    def test_oldOnesGo(self) -> None:
        """What is older than the limit is forgotten, what is younger stays."""
        for number, days in enumerate((DAYS + 1, DAYS - 1)):
            self.store.remember(
                write_payload(self.root / "p.tar", sagittal_slices(head())[:8], f"scan-{number}")
            )
            os.utime(self.store.root / f"scan-{number}.json.gz", (1e9 - days * 86400,) * 2)
        self.store.prune(1e9)
        self.assertEqual(self.files(), ["scan-1.json.gz"])

    def test_damaged(self) -> None:
        """A damaged file is an error, and no series."""
        self.store.remember(write_payload(self.root / "payload.tar", sagittal_slices(head())[:8]))
        (path,) = self.store.root.iterdir()
        path.write_bytes(b"none")
        self.assertRaises((OSError, ValueError), self.store.find, SCAN)


class PlaneTests(SynchronousTestCase):
    """Where the planes of a series lie."""

    def test_order(self) -> None:
        """Planes are put in order along their normal, whatever order the images come in."""
        slices = sagittal_slices(head())
        _, affine, shape = seg.planes(SourceSeries(SCAN, tuple(slices)))
        order, turned, _ = seg.planes(SourceSeries(SCAN, tuple(reversed(slices))))
        self.assertEqual(affine.tolist(), turned.tolist())
        self.assertEqual(shape, (45, 42, 52))
        self.assertEqual(sorted(order.tolist()), list(range(45)))

    def test_multiFrame(self) -> None:
        """The frames of one enhanced image lie where their functional groups say."""
        slices = sagittal_slices(head())
        image, shared = Dataset(), Dataset()
        image.NumberOfFrames, image.Rows, image.Columns = len(slices), slices[0].Rows, slices[0].Columns
        shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [Dataset()], [Dataset()]
        shared.PlaneOrientationSequence[0].ImageOrientationPatient = slices[0].ImageOrientationPatient
        shared.PixelMeasuresSequence[0].PixelSpacing = slices[0].PixelSpacing
        image.SharedFunctionalGroupsSequence, image.PerFrameFunctionalGroupsSequence = [shared], []
        for one in slices:
            frame = Dataset()
            frame.PlanePositionSequence = [Dataset()]
            frame.PlanePositionSequence[0].ImagePositionPatient = one.ImagePositionPatient
            image.PerFrameFunctionalGroupsSequence.append(frame)
        found = seg.planes(SourceSeries(SCAN, (image,)))
        wanted = seg.planes(SourceSeries(SCAN, tuple(slices)))
        self.assertEqual([part.tolist() for part in found[:2]], [part.tolist() for part in wanted[:2]])

    def test_noPlaces(self) -> None:
        """Images without places, at uneven distances or at angles are told, not guessed."""
        slices = sagittal_slices(head())
        for images, words in (
            (sagittal_slices(head(), ImagePositionPatient=None), "do not tell where they lie"),
            (slices[:3] + slices[5:], "not evenly spaced"),
            (
                slices[:5] + sagittal_slices(head(), ImageOrientationPatient=[1, 0, 0, 0, 1, 0])[5:],
                "parallel",
            ),
        ):
            with self.assertRaisesRegex(seg.GeometryError, words):
                seg.planes(SourceSeries(SCAN, tuple(images)))
