"""The codes of what is measured (SNOMED CT, DICOM, LOINC, RadLex), and names of our own where there is none.

Structures are those of CID 7140 (brain structures for volumetric measurement) and CID 7151. Grey and white matter of
the report include cerebellum and brain stem, so they are not the cerebral ones of CID 7140.
"""

from dataclasses import dataclass

from highdicom.sr import CodedConcept

from fr_twisted.brain.analysis.schema import LesionKind, Usability

OURS = "99FR"
"""Coding Scheme Designator of our own names (PS3.16 8.2: private ones begin with 99)."""


def _sct(value: str, meaning: str) -> CodedConcept:
    return CodedConcept(value, "SCT", meaning)


def _dcm(value: str, meaning: str) -> CodedConcept:
    return CodedConcept(value, "DCM", meaning)


def ours(value: str, meaning: str) -> CodedConcept:
    """Return a code of our own; a code value has at most 16 characters."""
    return CodedConcept(value[:16], OURS, meaning[:64])


@dataclass(frozen=True)
class Structure:
    """Something whose volume is reported: its field in the findings, its code, its segment if it has one."""

    field: str
    code: CodedConcept
    segment: int | None = None

    @property
    def words(self) -> str:
        """For people."""
        return self.field.replace("_", " ")


INTRACRANIAL = _sct("128319008", "Intracranial structure")
BRAIN = _sct("12738006", "Brain")
GREY_MATTER = _sct("389081007", "Gray matter")
WHITE_MATTER = _sct("389080008", "White matter")
CSF = _sct("65216001", "Cerebrospinal fluid")
VENTRICLES = _sct("35764002", "Brain ventricle")

STRUCTURES = (
    Structure("intracranial", INTRACRANIAL),
    Structure("brain", BRAIN),
    Structure("grey_matter", GREY_MATTER, 2),
    Structure("white_matter", WHITE_MATTER, 3),
    Structure("csf", CSF, 1),
    Structure("ventricles", VENTRICLES, 4),
)
LESION_SEGMENT = 5

LEFT = _sct("7771000", "Left")
RIGHT = _sct("24028007", "Right")

ANATOMICAL = _sct("91723000", "Anatomical Structure")
SUBSTANCE = _sct("91720002", "Body Substance")
ABNORMAL = _sct("49755003", "Morphologically Abnormal Structure")

LESION = _sct("52988006", "Lesion")
LESIONS = {
    LesionKind.HYPOINTENSE: _dcm("110701", "White Matter T1 Hypointensity"),
    LesionKind.HYPERINTENSE: ours("wm-t1-hyper", "White Matter T1 Hyperintensity"),
}

VOLUME = _sct("118565006", "Volume")
RATIO = _dcm("113288", "Volume Ratio")
VOXEL_SUM = _dcm("126030", "Sum of segmented voxel method for volume")
BRAIN_FRACTION = ours("brain-fraction", "Brain parenchymal fraction")
ASYMMETRY = ours("asymmetry-index", "200 (left - right) / (left + right)")
CONTRAST = ours("contrast", "Contrast against the white matter around")
SCORE = ours("score", "How much it looks like a lesion, 0 to 1")

MM3 = CodedConcept("mm3", "UCUM", "cubic millimeter")
PERCENT = CodedConcept("%", "UCUM", "percent")
ONE = CodedConcept("1", "UCUM", "no units")

LOWER = _sct("385524004", "Normal Range Lower Limit")
UPPER = _sct("371933006", "Normal Range Upper Limit")

IMAGE_QUALITY = ours("image-quality", "Image quality")
QUALITY_ASSESSMENT = _dcm("111050", "Quality Assessment")
RATINGS = {
    Usability.USABLE: CodedConcept("RID12", "RADLEX", "Diagnostic quality"),
    Usability.WITH_CARE: CodedConcept("RID13", "RADLEX", "Limited quality"),
    Usability.NOT_USABLE: CodedConcept("RID14", "RADLEX", "Non-diagnostic quality"),
}
"""CID 7036: of the image, for this measurement."""

READINGS = {
    "snr": _dcm("111787", "Signal to Noise Ratio"),
    "cnr": ours("cnr", "Contrast to noise ratio of white and grey matter"),
    "ghosting": ours("ghosting", "Ghosts in the air over white matter"),
    "non_uniformity": ours("non-uniformity", "Range of coil brightness in the brain"),
    "coverage": ours("coverage", "Part of the brain inside the field of view"),
    "alignment": ours("alignment", "Correlation with the aligned template"),
}

QUALITATIVE = CodedConcept("C0034375", "UMLS", "Qualitative Evaluations")
COMMENT = _dcm("121106", "Comment")
BRAIN_MRI = CodedConcept("24590-2", "LN", "Brain MRI")
SOURCE = _sct("260753009", "Source")
PROCESSING = _dcm("109102", "Processing Equipment")
ARTIFICIAL_INTELLIGENCE = _dcm("123110", "Artificial Intelligence")
