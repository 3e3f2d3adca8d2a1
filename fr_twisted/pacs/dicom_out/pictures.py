"""For viewers that show neither measurements nor segments: the overlay as Secondary Capture, the report as a PDF."""

import io

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import EncapsulatedPDFStorage, SecondaryCaptureImageStorage

from fr_twisted.pacs.dicom_out.common import Kind, blank, finish
from fr_twisted.pacs.dicom_out.headers import SourceSeries
from fr_twisted.pacs.dicom_out.report import Report, UnreadableReportError

MAX_PIXELS = 50_000_000


def secondary_capture(report: Report, source: SourceSeries, png: bytes) -> Dataset:
    """Return the picture ``png`` as an image of the source's study.

    Raises:
        UnreadableReportError: it is no picture.
    """
    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise ValueError("too large")
            pixels = np.asarray(picture.convert("RGB"))
    except Exception:  # parsers of broken files raise anything
        raise UnreadableReportError("overlay.png is no picture") from None
    dataset = blank(report, source, Kind.SC, SecondaryCaptureImageStorage, "overlay")
    dataset.Modality = "OT"
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.DerivationDescription = "Slices with their tissues in colour. Decision support only."
    dataset.ReferencedImageSequence = [_reference(source.first)]
    # The patient's id stands on none of the pictures, nor any text of the patient's.
    dataset.BurnedInAnnotation = "NO"
    dataset.PatientOrientation = ""
    dataset.BodyPartExamined = "BRAIN"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    data = pixels.tobytes()
    dataset.PixelData = data + bytes(len(data) % 2)
    dataset["PixelData"].VR = "OB"
    return finish(dataset, report, source)


def encapsulated_pdf(report: Report, source: SourceSeries, pdf: bytes) -> Dataset:
    """Return the report's page as a document of the source's study.

    Raises:
        UnreadableReportError: it is no PDF.
    """
    if not pdf.startswith(b"%PDF-"):
        raise UnreadableReportError("report.pdf is no PDF")
    dataset = blank(report, source, Kind.PDF, EncapsulatedPDFStorage, "report")
    dataset.Modality = "DOC"
    dataset.AcquisitionDateTime = ""
    # The patient's id stands on the page.
    dataset.BurnedInAnnotation = "YES"
    dataset.DocumentTitle = "Brain MRI measurements. Decision support only."
    dataset.ConceptNameCodeSequence = []
    dataset.SourceInstanceSequence = [_reference(image) for image in source.images]
    dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
    dataset.EncapsulatedDocument = pdf + bytes(len(pdf) % 2)
    dataset.EncapsulatedDocumentLength = len(pdf)
    return finish(dataset, report, source)


def _reference(image: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    return item
