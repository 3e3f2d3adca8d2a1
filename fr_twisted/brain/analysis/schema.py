"""The published form of ``findings``: what one analysis says of one scan. Models only; docs/report.md describes them.

Every number carries its unit and the name of its method; ``methods`` says in words what each name stands for.
Places are in millimetres, RAS: x to the patient's right, y to the front, z to the top.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

SCHEMA = "fr-findings/2"

DECISION_SUPPORT = (
    "Decision support only. Not a diagnosis: to be read by a physician together with the images."
)

Millimetres = tuple[FiniteFloat, FiniteFloat, FiniteFloat]
MethodName = Annotated[str, Field(description="a key of `Findings.methods`")]


class Usability(StrEnum):
    """What may be done with the numbers of a scan."""

    USABLE = "usable"
    WITH_CARE = "usable with care"
    NOT_USABLE = "not usable"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AnalysisInfo(_Model):
    """Which analysis found this."""

    name: str
    version: str


class Geometry(_Model):
    """The scan as it was stored."""

    shape: tuple[int, int, int]
    spacing_mm: Millimetres
    orientation: str = Field(description="where each axis points: R/L, A/P, S/I; RAS, LPS, ...")


class Reason(_Model):
    """One thing that limits the use of the numbers, and what a technician can do about it."""

    code: str = Field(description="short and stable, such as low-snr or cut-brain")
    usability: Usability = Field(description="how far it limits them; never usable")
    text: str


class Verdict(_Model):
    """Whether the numbers can be used: the worst of its reasons; usable without any."""

    usability: Usability
    reasons: tuple[Reason, ...] = ()


class Band(_Model):
    """A published range, as wide plausibility: outside it, look at the pictures; it tells nothing of health."""

    low: FiniteFloat
    high: FiniteFloat
    unit: str = Field(description="mL, 1, or % of the intracranial volume")
    population: str = Field(description="who was measured, how many, and what low and high are")
    source: str = Field(description="citation with DOI, PMID or year")


class Reading(_Model):
    """One number."""

    value: FiniteFloat
    unit: str = Field(description="UCUM: mL, mm3, %, 1")
    method: MethodName
    band: Band | None = None


class VolumeReading(Reading):
    """A volume, in mL."""

    unit: Literal["mL"] = "mL"
    percent_of_intracranial: FiniteFloat


class Volumes(_Model):
    """brain = grey + white matter; intracranial = brain + csf; csf holds the ventricles."""

    intracranial: VolumeReading
    brain: VolumeReading
    grey_matter: VolumeReading
    white_matter: VolumeReading
    csf: VolumeReading
    ventricles: VolumeReading = Field(description="lateral, third and fourth ventricle")


class Asymmetry(_Model):
    """Left against right of one structure: 200 (left - right) / (left + right); positive: more on the left."""

    index: Reading
    left_ml: FiniteFloat
    right_ml: FiniteFloat


class Asymmetries(_Model):
    """The structures that are compared."""

    grey_matter: Asymmetry
    ventricles: Asymmetry


class LesionKind(StrEnum):
    """Against the white matter around."""

    HYPOINTENSE = "hypointense"
    HYPERINTENSE = "hyperintense"


class LesionCandidate(_Model):
    """A place in the brain that a physician should look at; whether it is a lesion is not for this analysis to say."""

    number: int = Field(ge=1, description="the same in tables and pictures; the largest score first")
    kind: LesionKind
    volume: Reading = Field(description="mm3")
    centroid_patient_mm: Millimetres
    centroid_template_mm: Millimetres = Field(description="MNI152 2009a")
    contrast: Reading = Field(description="% of the intensity of the white matter around; negative: darker")
    score: Reading = Field(
        description="0..1, how much it looks like a lesion; candidates below a gate are not listed"
    )


class QualityReading(_Model):
    """A quality figure and what it means for the use of the numbers; no value: it could not be measured here."""

    value: FiniteFloat | None
    unit: str
    method: MethodName
    usability: Usability
    usual: str = Field(description="what is usual, for people: above 0.92")


class Quality(_Model):
    """How good the scan is."""

    snr: QualityReading = Field(description="white matter over noise")
    cnr: QualityReading = Field(description="difference of white and grey matter over noise")
    ghosting: QualityReading = Field(
        description="% of white matter, in the air where a ghost would lie, worst axis"
    )
    non_uniformity: QualityReading = Field(
        description="% range of coil brightness in the brain, before correction"
    )
    coverage: QualityReading = Field(description="% of the template's brain inside the field of view")
    alignment: QualityReading = Field(description="correlation with the aligned template")


class Findings(_Model):
    """All that one analysis found in one scan."""

    schema_name: Literal["fr-findings/2"] = Field(default="fr-findings/2", alias="schema")
    analysis: AnalysisInfo
    verdict: Verdict
    volumes: Volumes | None = Field(description="none: withheld, the scan is not usable")
    brain_parenchymal_fraction: Reading | None = Field(description="brain over intracranial volume, 0..1")
    asymmetry: Asymmetries | None
    lesions: tuple[LesionCandidate, ...] | None = Field(
        description="none: withheld or not looked for; empty: none found"
    )
    quality: Quality
    geometry: Geometry
    methods: dict[str, str] = Field(description="what the names of methods stand for, in words")
    notes: tuple[str, ...] = Field(description="what to keep in mind with this scan, for people")
    decision_support_only: str = DECISION_SUPPORT

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True)
