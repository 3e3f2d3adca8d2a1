"""DICOM objects of a report, read back with highdicom: their numbers, places, references and modules."""

import copy
import io
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import highdicom
import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes as known
from pydicom.uid import EnhancedMRImageStorage
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from fr_twisted.brain.analysis.anatomy import Label
from fr_twisted.brain.analysis.schema import Usability
from fr_twisted.bundle import LABELS_NII, LESIONS_NII, OVERLAY_PNG, REPORT_PDF
from fr_twisted.pacs.dicom_out import codes, objects, seg
from fr_twisted.pacs.dicom_out.common import Kind
from fr_twisted.pacs.dicom_out.headers import SourceSeries
from tests.dicom_out_builders import SERIES, Case, make_case


@cache
def case(usability: Usability = Usability.USABLE) -> Case:
    """Return a case."""
    with TemporaryDirectory() as folder:
        return make_case(Path(folder), usability)


@cache
def made(usability: Usability = Usability.USABLE) -> dict[Kind, bytes]:
    """Return its objects."""
    one = case(usability)
    return objects.make(one.report, one.source).files


def parsed(kind: Kind, usability: Usability = Usability.USABLE) -> Dataset:
    """Return one of them, as a stranger reads it."""
    return pydicom.dcmread(io.BytesIO(made(usability)[kind]))


def report_of(usability: Usability = Usability.USABLE) -> Any:
    """Return the measurement report."""
    return highdicom.sr.srread(io.BytesIO(made(usability)[Kind.SR])).content


def value(group: Any, name: Any) -> Any:
    """Return the one measurement of this name."""
    (found,) = group.get_measurements(name=name)
    return found.value


def group_of(report: Any, code: Any, side: Any = None) -> Any:
    """Return the measurement group of a structure."""
    groups = report.get_volumetric_roi_measurement_groups() + report.get_image_measurement_groups()
    (found,) = [
        group
        for group in groups
        if group.finding_type == code and [site.laterality for site in group.finding_sites] == [side]
    ]
    return found


def item(**elements: Any) -> Dataset:
    """Return a data set of these elements."""
    made_item = Dataset()
    for keyword, element in elements.items():
        setattr(made_item, keyword, element)
    return made_item


def enhanced(source: SourceSeries) -> Dataset:
    """Return the images of a series as one Enhanced MR image."""
    first = source.first
    image = copy.deepcopy(first)
    image.SOPClassUID, image.SOPInstanceUID = EnhancedMRImageStorage, "1.2.3.77"
    image.NumberOfFrames = len(source.images)
    measures = item(PixelSpacing=first.PixelSpacing, SliceThickness=first.SliceThickness)
    orientation = item(ImageOrientationPatient=first.ImageOrientationPatient)
    image.SharedFunctionalGroupsSequence = [
        item(PixelMeasuresSequence=[measures], PlaneOrientationSequence=[orientation])
    ]
    image.PerFrameFunctionalGroupsSequence = [
        item(
            PlanePositionSequence=[item(ImagePositionPatient=each.ImagePositionPatient)],
            FrameContentSequence=[item(StackID="1", InStackPositionNumber=number)],
        )
        for number, each in enumerate(source.images, start=1)
    ]
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(image, keyword)
    return image


class ReportTests(SynchronousTestCase):
    """The structured report."""

    def test_numbersEqualTheReports(self) -> None:
        """Each structure has the report's volume in mm3, and its share of the intracranial volume."""
        report, volumes = report_of(), case().found.volumes
        assert volumes is not None
        for structure in codes.STRUCTURES:
            reading = getattr(volumes, structure.field)
            group = group_of(report, structure.code)
            (volume,) = group.get_measurements(name=codes.VOLUME)
            self.assertAlmostEqual(float(volume.value), reading.value * 1000, places=3)
            self.assertEqual(volume.unit, codes.MM3)
            if structure.field != "intracranial":
                self.assertAlmostEqual(float(value(group, codes.RATIO)), reading.percent_of_intracranial)
        fraction = case().found.brain_parenchymal_fraction
        assert fraction is not None
        self.assertAlmostEqual(
            float(value(group_of(report, codes.BRAIN), codes.BRAIN_FRACTION)), fraction.value
        )

    def test_sides(self) -> None:
        """Left and right have groups of their own, and the index stands with the whole."""
        report, asymmetry = report_of(), case().found.asymmetry
        assert asymmetry is not None
        for code, found in (
            (codes.GREY_MATTER, asymmetry.grey_matter),
            (codes.VENTRICLES, asymmetry.ventricles),
        ):
            for side, millilitres in ((codes.LEFT, found.left_ml), (codes.RIGHT, found.right_ml)):
                self.assertEqual(float(value(group_of(report, code, side), codes.VOLUME)), millilitres * 1000)
            self.assertEqual(float(value(group_of(report, code), codes.ASYMMETRY)), found.index.value)

    def test_publishedRanges(self) -> None:
        """A band is a normal range with who was measured and who says so, and says that it is no limit of health."""
        volumes = case().found.volumes
        assert volumes is not None
        assert volumes.brain.band is not None
        assert volumes.csf.band is not None
        for code, name, band, times in (
            (codes.BRAIN, codes.VOLUME, volumes.brain.band, 1000),
            (codes.CSF, codes.RATIO, volumes.csf.band, 1),
        ):
            (measured,) = group_of(report_of(), code).get_measurements(name=name)
            told = {item.name.value: item for item in measured[0].ContentSequence}
            self.assertEqual(float(told[codes.LOWER.value].value), band.low * times)
            self.assertEqual(float(told[codes.UPPER.value].value), band.high * times)
            self.assertEqual(told["121408"].value, band.source)
            self.assertIn(band.population, told["121407"].value)
            self.assertIn("no limit of health", told["121407"].value)

    def test_lesionCandidates(self) -> None:
        """Each candidate has its volume, contrast, score, and the place of its middle in DICOM's millimetres."""
        groups = report_of().get_planar_roi_measurement_groups()
        candidates = case().found.lesions
        assert candidates
        self.assertEqual(len(groups), len(candidates))
        for group, lesion in zip(groups, candidates, strict=True):
            self.assertEqual(group.tracking_identifier, f"Lesion candidate {lesion.number}")
            self.assertEqual(float(value(group, codes.VOLUME)), lesion.volume.value)
            self.assertEqual(float(value(group, codes.SCORE)), lesion.score.value)
            self.assertEqual(float(value(group, codes.CONTRAST)), lesion.contrast.value)
            x, y, z = lesion.centroid_patient_mm
            np.testing.assert_allclose(group.roi.value, [[-x, -y, z]], atol=1e-4)
            self.assertEqual(group.roi.frame_of_reference_uid, case().source.first.FrameOfReferenceUID)

    def test_segmentsOfStructures(self) -> None:
        """Structures with a segment refer to the one of their code in the segmentation, and to the source series."""
        made_seg = parsed(Kind.SEG)
        kinds = {
            s.SegmentNumber: s.SegmentedPropertyTypeCodeSequence[0].CodeValue
            for s in made_seg.SegmentSequence
        }
        groups = report_of().get_volumetric_roi_measurement_groups()
        self.assertEqual(len(groups), 4)
        for group in groups:
            image, series = group.referenced_segment
            self.assertEqual(image.referenced_sop_instance_uid, made_seg.SOPInstanceUID)
            self.assertEqual(kinds[image.referenced_segment_numbers[0]], group.finding_type.value)
            self.assertEqual(series.value, SERIES)

    def test_evidence(self) -> None:
        """All source images and the segmentation are named as evidence."""
        dataset = parsed(Kind.SR)
        sequences = ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence")
        named = {
            sop.ReferencedSOPInstanceUID
            for name in sequences
            for study in dataset.get(name) or ()
            for series in study.ReferencedSeriesSequence
            for sop in series.ReferencedSOPSequence
        }
        sources = {image.SOPInstanceUID for image in case().source.images}
        self.assertEqual(named, sources | {parsed(Kind.SEG).SOPInstanceUID})

    def test_library(self) -> None:
        """The image library names every source image in order, described or not: all are sources of every group."""
        with TemporaryDirectory() as folder:
            thin = make_case(Path(folder), SliceThickness=None)
            undescribed = objects.make(thin.report, thin.source).files[Kind.SR]
        for data, described in ((made()[Kind.SR], 3), (undescribed, 0)):
            content = highdicom.sr.srread(io.BytesIO(data)).content[0].ContentSequence
            names = [item.name for item in content]
            place = names.index(known.DCM.ImageLibrary)
            self.assertEqual(names[place + 1], known.DCM.ImagingMeasurements)
            [group] = content[place].ContentSequence
            self.assertEqual(
                [entry.referenced_sop_instance_uid for entry in group.ContentSequence],
                [image.SOPInstanceUID for image in case().source.images],
            )
            self.assertEqual(sum("ContentSequence" in entry for entry in group.ContentSequence), described)

    def test_observer(self) -> None:
        """A device observed, the analysis and its version are named, nobody verified, and the rating is coded."""
        dataset, report = parsed(Kind.SR), report_of()
        self.assertEqual((dataset.CompletionFlag, dataset.VerificationFlag), ("COMPLETE", "UNVERIFIED"))
        (context,) = report.get_observer_contexts()
        identity = context.observer_identifying_attributes
        self.assertEqual(
            (identity.name, identity.model_name, identity.serial_number), ("Fr-BRAIN", "hand-made", "1.0")
        )
        (equipment,) = dataset.ContributingEquipmentSequence
        self.assertEqual(equipment.ManufacturerModelName, "hand-made")
        quality = group_of_quality(report)
        (rating,) = quality.get_qualitative_evaluations(name=codes.QUALITY_ASSESSMENT)
        self.assertEqual(rating.value, codes.RATINGS[Usability.USABLE])
        self.assertEqual(float(value(quality, codes.READINGS["snr"])), 12.3)

    def test_words(self) -> None:
        """The report says that it is decision support only, the verdict, its reasons and the notes."""
        for usability in Usability:
            elements = parsed(Kind.SR, usability).iterall()
            said = [str(element.value) for element in elements if element.keyword == "TextValue"]
            found = case(usability).found
            reasons = [f"{r.code} ({r.usability}): {r.text}" for r in found.verdict.reasons]
            for text in (found.decision_support_only, f"Verdict: {usability}.", *reasons, *found.notes):
                self.assertIn(text, said)

    def test_withheld(self) -> None:
        """Of a scan that is not usable there are verdict, quality, picture and page, and no volumes or segments."""
        self.assertEqual(set(made(Usability.NOT_USABLE)), {Kind.SR, Kind.SC, Kind.PDF})
        report = report_of(Usability.NOT_USABLE)
        self.assertEqual(report.get_volumetric_roi_measurement_groups(), [])
        (group,) = report.get_image_measurement_groups()
        (rating,) = group.get_qualitative_evaluations(name=codes.QUALITY_ASSESSMENT)
        self.assertEqual(rating.value, codes.RATINGS[Usability.NOT_USABLE])
        self.assertEqual(group.get_measurements(name=codes.VOLUME), [])


def group_of_quality(report: Any) -> Any:
    """Return the group of the scan's quality."""
    (found,) = [g for g in report.get_image_measurement_groups() if g.finding_type == codes.IMAGE_QUALITY]
    return found


class SegmentationTests(SynchronousTestCase):
    """The segmentation."""

    def test_voxelsInTheirPlaces(self) -> None:
        """Read back on the source images, each segment has exactly the voxels that were labelled."""
        read = highdicom.seg.segread(io.BytesIO(made()[Kind.SEG]))
        uids = [image.SOPInstanceUID for image in case().source.images]
        pixels = read.get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True)
        anatomy = case().anatomy
        labels = np.zeros(anatomy.head.data.shape, np.uint8)
        labels[anatomy.box] = anatomy.labels
        lesions = np.zeros(labels.shape, bool)
        for lesion in anatomy.lesions:
            lesions[tuple((lesion.voxels + [side.start for side in anatomy.box]).T)] = True
        fluid = (labels == Label.FLUID) | (labels == Label.VENTRICLE)
        wanted = (fluid, labels == Label.GREY, labels == Label.WHITE, labels == Label.VENTRICLE, lesions)
        self.assertEqual(pixels.shape[-1], len(wanted))
        for number, mask in enumerate(wanted):
            # slices run from right to left, rows to the feet, columns to the back
            placed = np.flip(mask, (0, 1, 2)).transpose(0, 2, 1)
            np.testing.assert_array_equal(pixels[..., number] > 0, placed)

    def test_segments(self) -> None:
        """Segments have the codes of what they are, the algorithm, and the tracking UIDs of the report's groups."""
        dataset = parsed(Kind.SEG)
        report: Any = report_of()
        self.assertEqual(dataset.SegmentationType, "BINARY")
        self.assertEqual(dataset.FrameOfReferenceUID, case().source.first.FrameOfReferenceUID)
        tracked = {
            g.finding_type.value: g.tracking_uid for g in report.get_volumetric_roi_measurement_groups()
        }
        for segment in dataset.SegmentSequence:
            kind = segment.SegmentedPropertyTypeCodeSequence[0].CodeValue
            self.assertEqual(segment.SegmentationAlgorithmIdentificationSequence[0].AlgorithmVersion, "1.0")
            if segment.SegmentNumber != codes.LESION_SEGMENT:
                self.assertEqual(segment.TrackingUID, tracked[kind])

    def test_finerSource(self) -> None:
        """On a source that is finer than the analysis, each pixel has the label of the nearest voxel."""
        labels = case().report.label_map(LABELS_NII)
        assert labels is not None
        affine = labels.affine @ np.diag((0.5, 0.5, 0.5, 1.0))
        affine[:3, 3] -= labels.affine[:3, :3] @ (0.25, 0.25, 0.25)
        shape = tuple(2 * side for side in labels.values.shape)
        doubled = labels.values.repeat(2, 0).repeat(2, 1).repeat(2, 2)
        np.testing.assert_array_equal(seg.on_planes(labels, affine, shape), doubled)

    def test_noLabelMap(self) -> None:
        """Without a label map there is no segmentation, and structures are measured without segments."""
        one = case()
        files = {n: d for n, d in one.report.files.items() if n not in (LABELS_NII, LESIONS_NII)}
        found = objects.make(
            type(one.report)(one.report.written, one.report.findings, files), one.source
        ).files
        self.assertNotIn(Kind.SEG, found)
        report: Any = highdicom.sr.srread(io.BytesIO(found[Kind.SR])).content
        self.assertEqual(report.get_volumetric_roi_measurement_groups(), [])
        self.assertGreater(float(value(group_of(report, codes.WHITE_MATTER), codes.VOLUME)), 0)


class PictureTests(SynchronousTestCase):
    """Secondary Capture and Encapsulated PDF."""

    def test_picture(self) -> None:
        """The picture's pixels are those of the overlay."""
        dataset = parsed(Kind.SC)
        with Image.open(io.BytesIO(case().report.files[OVERLAY_PNG])) as picture:
            np.testing.assert_array_equal(dataset.pixel_array, np.asarray(picture.convert("RGB")))
        self.assertEqual((dataset.BurnedInAnnotation, dataset.PhotometricInterpretation), ("NO", "RGB"))

    def test_document(self) -> None:
        """The document is the report's PDF, byte for byte."""
        dataset = parsed(Kind.PDF)
        data = dataset.EncapsulatedDocument[: dataset.EncapsulatedDocumentLength]
        self.assertEqual(data, case().report.files[REPORT_PDF])
        self.assertEqual(dataset.BurnedInAnnotation, "YES")
        self.assertIn("Decision support only", dataset.DocumentTitle)


class CommonTests(SynchronousTestCase):
    """What all objects have in common."""

    def test_patientAndStudy(self) -> None:
        """Every object is of the source's patient and study, in a series of its own with a number that shows whose."""
        first = case().source.first
        series = set()
        for number, kind in enumerate((Kind.SEG, Kind.SR, Kind.SC, Kind.PDF), start=301):
            dataset = parsed(kind)
            for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PatientAge"):
                self.assertEqual(dataset.get(keyword), first.get(keyword), keyword)
            for keyword in ("StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "AccessionNumber"):
                self.assertEqual(dataset.get(keyword), first.get(keyword), keyword)
            self.assertEqual(dataset.SeriesNumber, number)
            self.assertEqual((dataset.ContentDate, dataset.Manufacturer), ("20260102", "Fr"))
            series.add(dataset.SeriesInstanceUID)
        self.assertEqual(len(series | {SERIES}), 5)

    def test_sameBytes(self) -> None:
        """The same report and headers give the same bytes."""
        one = case()
        self.assertEqual(objects.make(one.report, one.source).files, made())

    def test_otherTexts(self) -> None:
        """A name that Latin-1 has not is written as UTF-8, an odd sex and missing attributes do no harm."""
        with TemporaryDirectory() as folder:
            one = make_case(
                Path(folder),
                SpecificCharacterSet="ISO_IR 192",
                PatientName="Ωmega^Řehoř",
                PatientSex="X",
                PatientBirthDate=None,
                AccessionNumber=None,
                StudyID=None,
                ReferringPhysicianName=None,
                SliceThickness=None,
            )
            found = objects.make(one.report, one.source).files
        self.assertEqual(set(found), set(Kind))
        for data in found.values():
            dataset = pydicom.dcmread(io.BytesIO(data))
            self.assertEqual(str(dataset.PatientName), "Ωmega^Řehoř")
            self.assertEqual((dataset.SpecificCharacterSet, dataset.PatientSex), ("ISO_IR 192", "X"))
            self.assertEqual((dataset.PatientBirthDate, dataset.AccessionNumber), ("", ""))

    def test_malformedDates(self) -> None:
        """Dates and times that are none cost no object, are said as the source has them, and logged by name alone."""
        odd: dict[str, Any] = {"PatientBirthDate": "01/02/1950", "StudyTime": "noon", "StudyDate": "2026-01"}
        with TemporaryDirectory() as folder, capturedLogs() as said:
            one = make_case(Path(folder), **odd)
            found = objects.make(one.report, one.source)
        self.assertEqual((set(found.files), found.missing), (set(Kind), {}))
        for data in found.files.values():
            dataset = pydicom.dcmread(io.BytesIO(data))
            self.assertEqual({name: dataset.get(name) for name in odd}, odd)
        [event] = [event for event in said if event.get("event") == "dicom.malformed"]
        self.assertEqual(set(event["what"].split(", ")), set(odd))
        self.assertNotIn("1950", str(formatEvent(event)))

    def test_missing(self) -> None:
        """What cannot be made is named with the reason."""
        for keyword, reason in (
            ("FrameOfReferenceUID", "its images name no frame of reference"),
            ("ImagePositionPatient", "its images do not tell where they lie"),
        ):
            nothing: dict[str, Any] = {keyword: None}
            with TemporaryDirectory() as folder:
                one = make_case(Path(folder), **nothing)
                found = objects.make(one.report, one.source)
            self.assertEqual((set(found.files), found.missing), (set(Kind) - {Kind.SEG}, {Kind.SEG: reason}))

    def test_framesOfReference(self) -> None:
        """Of a series in two frames of reference there is no segmentation, and the reason is told."""
        images = [copy.deepcopy(image) for image in case().source.images]
        images[0].FrameOfReferenceUID = "1.2.3"
        found = objects.make(case().report, SourceSeries(case().source.scan_id, tuple(images)))
        self.assertEqual(set(found.files), set(Kind) - {Kind.SEG})
        self.assertEqual(found.missing, {Kind.SEG: "its images do not share one frame of reference"})

    def test_multiFrame(self) -> None:
        """Of one enhanced image all objects are made, and the image library names it."""
        image = enhanced(case().source)
        found = objects.make(case().report, SourceSeries(case().source.scan_id, (image,)))
        self.assertEqual((set(found.files), found.missing), (set(Kind), {}))
        content = highdicom.sr.srread(io.BytesIO(found.files[Kind.SR])).content[0].ContentSequence
        (library,) = [item for item in content if item.name == known.DCM.ImageLibrary]
        (entry,) = library.ContentSequence[0].ContentSequence
        self.assertEqual(entry.referenced_sop_instance_uid, image.SOPInstanceUID)
        segments = highdicom.seg.segread(io.BytesIO(found.files[Kind.SEG]))
        plain = highdicom.seg.segread(io.BytesIO(made()[Kind.SEG]))
        self.assertEqual(segments.pixel_array.sum(), plain.pixel_array.sum())

    def test_stableTracking(self) -> None:
        """A structure has one tracking UID in every scan of a patient, a lesion candidate one in its report."""
        with TemporaryDirectory() as folder:
            one = make_case(Path(folder))
            other_written = type(one.report.written)(
                **{**vars(one.report.written), "report_id": "report-other", "scan_id": "scan-other"}
            )
            other = type(one.report)(other_written, one.report.findings, one.report.files)
            found = objects.make(other, one.source).files
        again = highdicom.sr.srread(io.BytesIO(found[Kind.SR])).content
        for name in ("get_volumetric_roi_measurement_groups", "get_planar_roi_measurement_groups"):
            pairs = zip(getattr(report_of(), name)(), getattr(again, name)(), strict=True)
            same = {a.tracking_uid == b.tracking_uid for a, b in pairs}
            self.assertEqual(same, {name == "get_volumetric_roi_measurement_groups"})
        uids = {
            pydicom.dcmread(io.BytesIO(data)).SOPInstanceUID for data in (*found.values(), *made().values())
        }
        self.assertEqual(len(uids), 8)

    def test_damagedFiles(self) -> None:
        """A picture, page or label map that is none is left out, and the rest is made."""
        one = case()
        files = {**one.report.files, OVERLAY_PNG: b"none", REPORT_PDF: b"none", LABELS_NII: b"none"}
        found = objects.make(type(one.report)(one.report.written, one.report.findings, files), one.source)
        self.assertEqual(set(found.files), {Kind.SR})
        self.assertEqual(set(found.missing), {Kind.SEG, Kind.SC, Kind.PDF})
        self.assertIn("labels.nii.gz is no label map", found.missing[Kind.SEG])
