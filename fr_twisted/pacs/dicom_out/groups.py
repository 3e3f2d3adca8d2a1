"""The measurement groups of a structured report: one for each structure and side, lesion candidate, and the quality."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    FindingSite,
    ImageRegion3D,
    Measurement,
    MeasurementProperties,
    MeasurementsAndQualitativeEvaluations,
    NormalRangeProperties,
    NumContentItem,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    ReferencedSegment,
    SourceSeriesForSegmentation,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom.dataset import Dataset

from fr_twisted.brain.analysis.methods import (
    INTRACRANIAL,
    LESIONS,
    TISSUES_BY_PART,
    TISSUES_BY_VOXEL,
    VENTRICLES,
)
from fr_twisted.brain.analysis.schema import (
    Asymmetry,
    Band,
    Findings,
    LesionCandidate,
    Reading,
    VolumeReading,
)
from fr_twisted.pacs.dicom_out import codes
from fr_twisted.pacs.dicom_out.codes import Structure
from fr_twisted.pacs.dicom_out.common import MANUFACTURER
from fr_twisted.pacs.dicom_out.headers import SourceSeries
from fr_twisted.pacs.dicom_out.report import Report
from fr_twisted.pacs.dicom_out.tracking import tracking

BY_VOXEL = {INTRACRANIAL, TISSUES_BY_VOXEL, VENTRICLES, LESIONS}
"""Methods that count whole voxels; the first only where the tissues in it were."""

RANGE = "Published plausibility range, no limit of health: outside it, look at the pictures. Measured: "


class Groups:
    """Makes the groups of one report.

    Args:
        report: whose they are.
        found: its findings.
        source: the series that was measured.
        seg: the segmentation of it, if there is one.
    """

    def __init__(self, report: Report, found: Findings, source: SourceSeries, seg: Dataset | None) -> None:
        self._report, self._found, self._source, self._seg = report, found, source, seg
        volumes = found.volumes
        self._by_part = volumes is not None and volumes.grey_matter.method == TISSUES_BY_PART
        self._segments = set() if seg is None else {int(s.SegmentNumber) for s in seg.SegmentSequence}

    def all(self) -> list[Any]:
        """Return the groups, that of the quality first: it is never withheld."""
        return [
            self._quality(),
            *self._structures(),
            *self._sides(),
            *(self._candidate(lesion) for lesion in self._found.lesions or ()),
        ]

    # -- quality

    def _quality(self) -> MeasurementsAndQualitativeEvaluations:
        readings = (
            (codes.READINGS[name], getattr(self._found.quality, name))
            for name in type(self._found.quality).model_fields
            if name in codes.READINGS
        )
        identifier, uid = "scan quality", self._report.uid("tracking", "quality")
        return MeasurementsAndQualitativeEvaluations(
            tracking_identifier=TrackingIdentifier(uid, identifier),
            finding_type=codes.IMAGE_QUALITY,
            algorithm_id=self._algorithm("quality"),
            measurements=[
                Measurement(name, reading.value, _unit(reading.unit))
                for name, reading in readings
                if reading.value is not None
            ],
            qualitative_evaluations=[
                QualitativeEvaluation(codes.QUALITY_ASSESSMENT, codes.RATINGS[self._found.verdict.usability])
            ],
        )

    # -- structures

    def _structures(self) -> Iterator[Any]:
        if self._found.volumes is None:
            return
        for structure in codes.STRUCTURES:
            reading: VolumeReading = getattr(self._found.volumes, structure.field)
            yield self._structure(structure, reading)

    def _structure(self, structure: Structure, reading: VolumeReading) -> Any:
        identifier, uid = tracking(self._report, self._source, structure.field)
        fields: dict[str, Any] = {
            "tracking_identifier": TrackingIdentifier(uid, identifier),
            "finding_category": codes.ANATOMICAL,
            "finding_type": structure.code,
            "finding_sites": [FindingSite(structure.code)],
            "algorithm_id": self._algorithm(reading.method),
            "measurements": list(self._measurements(structure, reading)),
        }
        if structure.segment not in self._segments:
            return MeasurementsAndQualitativeEvaluations(**fields)
        assert self._seg is not None
        assert structure.segment is not None
        return VolumetricROIMeasurementsAndQualitativeEvaluations(
            referenced_segment=ReferencedSegment(
                sop_class_uid=self._seg.SOPClassUID,
                sop_instance_uid=self._seg.SOPInstanceUID,
                segment_number=structure.segment,
                source_series=SourceSeriesForSegmentation(self._source.first.SeriesInstanceUID),
            ),
            **fields,
        )

    def _measurements(self, structure: Structure, reading: VolumeReading) -> Iterator[Measurement]:
        band = reading.band
        in_mm3 = band is not None and band.unit == reading.unit
        yield self._volume(reading.value, reading.method, _range(band, codes.MM3, 1000) if in_mm3 else None)
        if structure.code is not codes.INTRACRANIAL:
            share = _range(band, codes.PERCENT) if band is not None and band.unit == "%" else None
            value = reading.percent_of_intracranial
            yield Measurement(codes.RATIO, value, codes.PERCENT, properties=share)
        fraction = self._found.brain_parenchymal_fraction
        if structure.code is codes.BRAIN and fraction is not None:
            limits = _range(fraction.band, codes.ONE) if fraction.band is not None else None
            yield Measurement(codes.BRAIN_FRACTION, fraction.value, codes.ONE, properties=limits)
        asymmetry = self._asymmetry(structure)
        if asymmetry is not None:
            yield Measurement(codes.ASYMMETRY, asymmetry.index.value, codes.PERCENT)

    def _volume(
        self, millilitres: float, method: str, properties: MeasurementProperties | None = None
    ) -> Measurement:
        return Measurement(
            codes.VOLUME,
            round(millilitres * 1000, 3),
            codes.MM3,
            method=self._method(method),
            properties=properties,
        )

    def _method(self, name: str) -> CodedConcept:
        """Return the code of a method; the standard has one for sums of voxels, other names are our own."""
        by_voxel = name in BY_VOXEL and not (self._by_part and name == INTRACRANIAL)
        return codes.VOXEL_SUM if by_voxel else codes.ours(name, name)

    # -- sides

    def _asymmetry(self, structure: Structure) -> Asymmetry | None:
        return getattr(self._found.asymmetry, structure.field, None)

    def _sides(self) -> Iterator[MeasurementsAndQualitativeEvaluations]:
        for structure in codes.STRUCTURES:
            asymmetry = self._asymmetry(structure)
            if asymmetry is None:
                continue
            yield self._side(structure, "left", codes.LEFT, asymmetry.left_ml, asymmetry.index)
            yield self._side(structure, "right", codes.RIGHT, asymmetry.right_ml, asymmetry.index)

    def _side(
        self, structure: Structure, side: str, code: CodedConcept, millilitres: float, index: Reading
    ) -> MeasurementsAndQualitativeEvaluations:
        identifier, uid = tracking(self._report, self._source, structure.field, side)
        return MeasurementsAndQualitativeEvaluations(
            tracking_identifier=TrackingIdentifier(uid, identifier),
            finding_category=codes.ANATOMICAL,
            finding_type=structure.code,
            finding_sites=[FindingSite(structure.code, laterality=code)],
            algorithm_id=self._algorithm(index.method),
            measurements=[self._volume(millilitres, self._whole(structure).method)],
        )

    def _whole(self, structure: Structure) -> VolumeReading:
        reading: VolumeReading = getattr(self._found.volumes, structure.field)
        return reading

    # -- lesion candidates

    def _candidate(self, lesion: LesionCandidate) -> Any:
        """Return a candidate, with the place of its middle in the patient where the source has a frame of reference.

        Its tracking UID is of this report alone: which candidates of two scans are one lesion is not known.
        """
        fields: dict[str, Any] = {
            "tracking_identifier": TrackingIdentifier(
                self._report.uid("tracking", "lesion", lesion.number), f"Lesion candidate {lesion.number}"
            ),
            "finding_category": codes.ABNORMAL,
            "finding_type": codes.LESIONS[lesion.kind],
            "finding_sites": [FindingSite(codes.WHITE_MATTER)],
            "algorithm_id": self._algorithm(lesion.volume.method),
            "measurements": [
                Measurement(
                    codes.VOLUME,
                    lesion.volume.value,
                    codes.MM3,
                    method=self._method(lesion.volume.method),
                ),
                Measurement(codes.CONTRAST, lesion.contrast.value, codes.PERCENT),
                Measurement(codes.SCORE, lesion.score.value, codes.ONE),
            ],
        }
        frame = self._source.first.get("FrameOfReferenceUID")
        if not frame:
            return MeasurementsAndQualitativeEvaluations(**fields)
        x, y, z = lesion.centroid_patient_mm
        point = ImageRegion3D("POINT", np.array([[-x, -y, z]]), frame)
        return PlanarROIMeasurementsAndQualitativeEvaluations(referenced_region=point, **fields)

    # -- what they share

    def _algorithm(self, method: str) -> AlgorithmIdentification:
        """Return the analysis, and in words the method that the numbers name."""
        words = self._found.methods.get(method)
        return AlgorithmIdentification(
            name=self._report.written.analysis,
            version=self._report.written.analysis_version,
            parameters=[f"{method}: {words}"] if words else None,
            family=codes.ARTIFICIAL_INTELLIGENCE,
            manufacturer=MANUFACTURER,
        )


def _unit(ucum: str) -> CodedConcept:
    return {"%": codes.PERCENT, "1": codes.ONE, "mm3": codes.MM3}.get(ucum) or CodedConcept(
        ucum, "UCUM", ucum
    )


def _range(band: Band | None, unit: CodedConcept, times: float = 1) -> MeasurementProperties | None:
    """Return a published range as TID 312 has it, with who was measured and who says so."""
    if band is None:
        return None
    ends = [
        NumContentItem(name, round(value * times, 6), unit, relationship_type="HAS PROPERTIES")
        for name, value in ((codes.LOWER, band.low), (codes.UPPER, band.high))
    ]
    return MeasurementProperties(
        normal_range_properties=NormalRangeProperties(
            ends, description=RANGE + band.population, authority=band.source
        )
    )
