"""A small head, findings made by hand, and analyses that report them at once, for the tests of report and command."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from fr_twisted.brain.analysis import bands, page, pictures
from fr_twisted.brain.analysis.anatomy import Anatomy, Label, Lesion
from fr_twisted.brain.analysis.schema import (
    AnalysisInfo,
    Asymmetries,
    Asymmetry,
    Findings,
    Geometry,
    LesionCandidate,
    LesionKind,
    Quality,
    QualityReading,
    Reading,
    Reason,
    Usability,
    Verdict,
    VolumeReading,
    Volumes,
)
from fr_twisted.brain.analysis.volume import Volume, bounding_box
from fr_twisted.brain.interfaces import AnalysisResult
from fr_twisted.model import ScanMeta

MODULE = "tests.report_builders"

METHODS = {
    "tissue": "A mixture of <Gaussians>.",
    "mirror": "A plane of symmetry.",
    "blob": "Dark & bright places.",
}

VOLUMES = {
    "intracranial": 1450.0,
    "brain": 1180.0,
    "grey_matter": 690.0,
    "white_matter": 490.0,
    "csf": 270.0,
    "ventricles": 25.0,
}


def some_head(
    places: tuple[tuple[int, int, int], ...] = (),
    spacing: tuple[float, float, float] = (2.0, 2.0, 2.0),
    labelled: bool = True,
) -> Anatomy:
    """Return an ellipsoid of nested tissues, 140 x 170 x 130 mm, with lesions of 3 x 3 x 3 voxels about ``places``.

    ``places`` are voxel indices of the head, of which the lower, left, back corner of a lesion's middle voxel counts.
    """
    shape = tuple(round(side / size) for side, size in zip((180, 210, 170), spacing, strict=True))
    axes = np.meshgrid(
        *((np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True)), indexing="ij"
    )
    radius = np.sqrt(sum((axis / half) ** 2 for axis, half in zip(axes, (70, 85, 65), strict=True)))
    labels = np.select(
        [radius < 0.2, radius < 0.7, radius < 0.9, radius < 1],
        [Label.VENTRICLE, Label.WHITE, Label.GREY, Label.FLUID],
        Label.OUTSIDE,
    ).astype(np.uint8)
    data = np.array([0.0, 0.3, 0.75, 1.0, 0.3], np.float32)[labels]
    box = bounding_box(labels > 0, 2)
    found = []
    for score, place in zip(np.linspace(0.95, 0.82, max(1, len(places))), places, strict=False):
        voxels = np.argwhere(np.ones((3, 3, 3))) + np.array(place) - 1
        data[tuple(voxels.T)] = 0.6
        found.append(some_lesion(voxels - [side.start for side in box], place, spacing, shape, float(score)))
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = [-(n - 1) / 2 * size for n, size in zip(shape, spacing, strict=True)]
    tissue = labels[box] if labelled else np.zeros_like(labels[box])
    return Anatomy(Volume(data, affine), box, tissue, tuple(found))


def some_lesion(
    voxels: np.ndarray[Any, np.dtype[np.int64]],
    place: tuple[int, int, int],
    spacing: tuple[float, ...],
    shape: tuple[int, ...],
    score: float,
) -> Lesion:
    """Return a dark one."""
    x, y, z = ((i - (n - 1) / 2) * size for i, n, size in zip(place, shape, spacing, strict=True))
    volume = len(voxels) * float(np.prod(spacing))
    return Lesion(LesionKind.HYPOINTENSE, voxels, volume, (x, y, z), (x, y, z), -40.0, score)


def some_quality(usability: Usability = Usability.USABLE) -> Quality:
    """Return readings of which the first has this usability, and one could not be measured."""

    def reading(
        value: float | None, unit: str, usual: str, of: Usability = Usability.USABLE
    ) -> QualityReading:
        return QualityReading(value=value, unit=unit, method="tissue", usability=of, usual=usual)

    return Quality(
        snr=reading(12.3, "1", "above 20", usability),
        cnr=reading(7.9, "1", "above 4"),
        ghosting=reading(None, "%", "below 1 %"),
        non_uniformity=reading(21.0, "%", "below 60 %"),
        coverage=reading(100.0, "%", "above 99 %"),
        alignment=reading(0.945, "1", "above 0.92"),
    )


def some_volumes(sex: str | None = None, age: float | None = None) -> Volumes:
    """Return volumes with the bands of such a patient."""
    return Volumes(
        **{
            name: VolumeReading(
                value=value,
                method="tissue",
                percent_of_intracranial=round(100 * value / VOLUMES["intracranial"], 2),
                band=bands.of(name, sex, age),
            )
            for name, value in VOLUMES.items()
        }
    )


def some_candidates(lesions: tuple[Lesion, ...]) -> tuple[LesionCandidate, ...]:
    """Return the published form of lesions."""
    return tuple(
        LesionCandidate(
            number=number,
            kind=lesion.kind,
            volume=Reading(value=lesion.volume_mm3, unit="mm3", method="blob"),
            centroid_patient_mm=lesion.centroid_patient_mm,
            centroid_template_mm=lesion.centroid_template_mm,
            contrast=Reading(value=lesion.contrast_percent, unit="%", method="blob"),
            score=Reading(value=round(lesion.score, 3), unit="1", method="blob"),
        )
        for number, lesion in enumerate(lesions, start=1)
    )


def some_findings(
    usability: Usability = Usability.USABLE,
    *,
    sex: str | None = "F",
    age: float | None = 45.0,
    lesions: tuple[Lesion, ...] = (),
    **changes: Any,
) -> Findings:
    """Return findings of a scan of this usability, volumes withheld where it is not usable."""
    withheld = usability is Usability.NOT_USABLE
    reasons = (Reason(code="low-snr", usability=usability, text="Noise is high: repeat <the scan>."),)
    index = Asymmetry(index=Reading(value=12.5, unit="%", method="mirror"), left_ml=13.5, right_ml=11.5)
    fraction = Reading(
        value=0.8138, unit="1", method="tissue", band=bands.of("brain_parenchymal_fraction", sex, age)
    )
    fields: dict[str, Any] = {
        "analysis": AnalysisInfo(name="hand-made", version="1.0"),
        "verdict": Verdict(usability=usability, reasons=() if usability is Usability.USABLE else reasons),
        "volumes": None if withheld else some_volumes(sex, age),
        "brain_parenchymal_fraction": None if withheld else fraction,
        "asymmetry": None if withheld else Asymmetries(grey_matter=index, ventricles=index),
        "lesions": None if withheld else some_candidates(lesions),
        "quality": some_quality(usability),
        "geometry": Geometry(shape=(181, 217, 36), spacing_mm=(1, 1, 5), orientation="LPS"),
        "methods": METHODS,
        "notes": ("Slices of 5 mm.",),
        **changes,
    }
    return Findings(**fields)


@cache
def _drawn() -> tuple[Anatomy, bytes, tuple[bytes, ...]]:
    head = some_head(((25, 30, 22),), (4.0, 4.0, 4.0))
    return head, pictures.overlay(head), pictures.lesion_pictures(head)


@dataclass(frozen=True)
class Prepared:
    """An analysis that finds the same in every scan, and writes a whole report of it."""

    usability: Usability
    name: str = "hand-made"
    version: str = "1.0"

    def __call__(self, payload: Path, scan_id: str, meta: ScanMeta) -> AnalysisResult:
        """Report."""
        assert payload.stat().st_size > 0
        head, overlay, close_ups = _drawn()
        found = some_findings(self.usability, lesions=head.lesions)
        files = page.files(scan_id, meta, found, overlay, close_ups)
        return AnalysisResult(found.model_dump(mode="json"), files)


USABLE = Prepared(Usability.USABLE)
NOT_USABLE = Prepared(Usability.NOT_USABLE)
