"""What came of a case, as it is kept in a file and put into tables."""

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict

from fr_twisted.brain.analysis.schema import Findings, Usability
from fr_twisted.pacs.generator.truth import LesionTruth, Truth

REFUSED = "refused"


class Known(BaseModel):
    """What is true of a scan.

    ``truth``: of the generator. ``non_uniformity``: 98th over 2nd percentile of the receive field inside the
    skull, less one, per cent. ``coverage``: per cent of the inside of the skull that is in the field of view.
    """

    model_config = ConfigDict(frozen=True)

    truth: Truth | None = None
    non_uniformity: float | None = None
    coverage: float | None = None

    @property
    def lesions(self) -> tuple[LesionTruth, ...]:
        """The lesions that were painted."""
        return self.truth.lesions if self.truth else ()


class Result(BaseModel):
    """Of one case.

    ``refused``: the reason of an `UnusableScanError`; then there are no ``findings``. ``dice``: of
    `tests.accuracy.compare`, where voxels are known. ``extra``: what only some subjects have. ``ideal``: Dice of
    `tests.accuracy.ideal`, where asked for. ``absent``: why the scan could not be had.
    """

    model_config = ConfigDict(frozen=True)

    known: Known
    refused: str | None = None
    findings: Findings | None = None
    dice: dict[str, float] = {}
    extra: dict[str, float] = {}
    ideal: dict[str, float] = {}
    absent: str | None = None

    @property
    def outcome(self) -> str:
        """``refused``, or the verdict."""
        return REFUSED if self.findings is None else self.findings.verdict.usability.value

    @property
    def rejected(self) -> bool:
        """Whether no number was given away: refused, or not usable."""
        return self.findings is None or self.findings.verdict.usability is Usability.NOT_USABLE

    @property
    def codes(self) -> tuple[str, ...]:
        """The codes of the verdict's reasons."""
        return tuple(reason.code for reason in self.findings.verdict.reasons) if self.findings else ()

    @property
    def reasons(self) -> str:
        """All that a technician is told."""
        if self.findings is None:
            return self.refused or ""
        return "; ".join(reason.text for reason in self.findings.verdict.reasons)

    @property
    def blocking(self) -> str:
        """What a technician is told of why there are no numbers."""
        if self.findings is None:
            return self.refused or ""
        reasons = self.findings.verdict.reasons
        return "; ".join(reason.text for reason in reasons if reason.usability is Usability.NOT_USABLE)

    def volumes(self) -> dict[str, float]:
        """Return measured volumes, mL, and brain parenchymal fraction by the names of the truth; empty if withheld."""
        found = self.findings
        if found is None or found.volumes is None or found.brain_parenchymal_fraction is None:
            return {}
        volumes = found.volumes
        return {
            "icv": volumes.intracranial.value,
            "brain": volumes.brain.value,
            "gm": volumes.grey_matter.value,
            "wm": volumes.white_matter.value,
            "csf": volumes.csf.value,
            "ventricles": volumes.ventricles.value,
            "bpf": found.brain_parenchymal_fraction.value,
        }

    def errors(self) -> dict[str, float]:
        """Return measured against true, per cent of the truth, by name; empty without either."""
        truth = self.known.truth
        if truth is None:
            return {}
        return {
            name: 100 * (value / float(getattr(truth, name)) - 1) for name, value in self.volumes().items()
        }

    def indices(self) -> dict[str, tuple[float, float]]:
        """Return true and measured left/right index, ``gm`` and ``ventricles``; empty without either."""
        truth, found = self.known.truth, self.findings
        if truth is None or found is None or found.asymmetry is None:
            return {}
        return {
            "gm": (truth.gm_sides.index, found.asymmetry.grey_matter.index.value),
            "ventricles": (truth.ventricle_sides.index, found.asymmetry.ventricles.index.value),
        }

    def reading(self, name: str) -> float | None:
        """Return the value of a quality reading."""
        if self.findings is None:
            return None
        value: float | None = getattr(self.findings.quality, name).value
        return value

    def digest(self) -> str:
        """Return a digest of all that was found, apart from how the scan was stored."""
        told: Any = self.refused
        if self.findings is not None:
            told = self.findings.model_dump(mode="json", exclude={"geometry"})
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
