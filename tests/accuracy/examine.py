"""What a process of the pool does: makes the scan of a case, has it analysed, compares."""

import io
import tarfile
import tempfile
from datetime import UTC, datetime
from functools import reduce
from pathlib import Path

import numpy as np
from pydicom.uid import CTImageStorage, MRImageStorage

from fr_twisted.brain import prelude
from fr_twisted.brain.analysis import pipeline
from fr_twisted.brain.analysis.volume import Volume, ndimage
from fr_twisted.brain.interfaces import UnusableScanError
from fr_twisted.model import PayloadFormat, ScanMeta
from fr_twisted.pacs.encode import to_dicom
from fr_twisted.pacs.generator.recipe import Recipe
from tests.accuracy.cases import Case, Change, Form
from tests.accuracy.changes import CHANGES
from tests.accuracy.compare import MASK, Labels, agreement, dice, on_head, region
from tests.accuracy.ideal import ideal
from tests.accuracy.results import Result
from tests.accuracy.sources import IMAGES
from tests.accuracy.subjects import THINGS, Subject, generated
from tests.builders import dicom_series, dicom_tar, nifti_bytes

ACQUIRED = datetime(2026, 1, 2, tzinfo=UTC)
PATIENT = "accuracy"


def make(case: Case, images: Path) -> Subject:
    """Return the scan of a case; ``images``: folder of `tests.accuracy.sources.fetch`."""
    name = case.subject
    if isinstance(name, Recipe):
        subject = generated(name)
    else:
        subject = THINGS[name]() if name in THINGS else IMAGES[name](images)

    def changed(done: Subject, change: Change) -> Subject:
        return CHANGES[change.name](done, change.value)

    return reduce(changed, case.changes, subject)


def payload(subject: Subject, form: Form) -> bytes:
    """Return the bytes of a scan as they would arrive."""
    if form is Form.NIFTI:

        def edit(header: object) -> None:
            for name, value in subject.header.items():
                header[name] = value  # type: ignore[index]

        return nifti_bytes(subject.data, subject.affine, edit=edit)
    if subject.scan is None:
        kind = {"MR": MRImageStorage, "CT": CTImageStorage}[subject.modality]
        series = dicom_series(subject.data, subject.affine, Modality=subject.modality, SOPClassUID=kind)
        return dicom_tar(series)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for uid, content in to_dicom(subject.scan, PATIENT, ACQUIRED):
            entry = tarfile.TarInfo(f"{uid}.dcm")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def meta(form: Form) -> ScanMeta:
    """Return what comes with a scan: nothing of the patient."""
    kind = {Form.NIFTI: PayloadFormat.NIFTI, Form.DICOM: PayloadFormat.DICOM_TAR}[form]
    return ScanMeta(patient_id=PATIENT, format=kind)


def examine(case: Case, images: Path) -> Result:
    """Return what came of a case."""
    subject = make(case, images)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "payload"
        path.write_bytes(payload(subject, case.form))
        result = analysed(subject, path, meta(case.form))
    if case.ideal:
        result = result.model_copy(update={"ideal": ideal(case.recipe)})
    prelude.trim_memory()
    return result


def _on_grid(subject: Subject, labels: Labels, head: Volume) -> Labels:
    """Return labels of the nearest voxels on the grid of ``head``: that of the scan, but for very fine scans."""
    if labels.shape == head.data.shape:
        return labels
    index = np.linalg.inv(subject.affine) @ head.affine
    moved = ndimage.affine_transform(
        labels, index[:3, :3], index[:3, 3], output_shape=head.data.shape, order=0
    )
    return np.asarray(moved, np.uint8)


def analysed(subject: Subject, path: Path, told: ScanMeta) -> Result:
    """Return what the analysis finds in a file, against what is known of the scan in it."""
    try:
        findings, anatomy = pipeline.examine(path, told)
    except UnusableScanError as error:
        return Result(known=subject.known, refused=str(error))
    if findings.volumes is None:
        return Result(known=subject.known, findings=findings)
    found = on_head(anatomy)
    extra = {name: dice(region(found, MASK), mask) for name, mask in subject.masks.items()}
    agreed = (
        {} if subject.labels is None else agreement(found, _on_grid(subject, subject.labels, anatomy.head))
    )
    return Result(known=subject.known, findings=findings, dice=agreed, extra=extra)
