"""The gates of the quality readings: from which value on the numbers need care, and from which they are withheld.

Where they stand is judgement, with generated scans for development at hand: none was fitted, and none was published.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from fr_twisted.brain.analysis import methods
from fr_twisted.brain.analysis.quality import Background, Signal
from fr_twisted.brain.analysis.schema import Quality, QualityReading, Reason, Usability


@dataclass(frozen=True)
class Gate:
    """Of one reading. Beyond ``care`` or ``refuse`` means below for ``high`` (more is better), else above."""

    name: str
    code: str
    unit: str
    digits: int
    high: bool
    care: float
    refuse: float
    usual: str
    what: str
    """What a reader is told beyond it; ``{value}`` is put in."""

    def judge(self, value: float | None) -> Usability:
        """Return what a value means; one that could not be measured means nothing."""
        if value is None:
            return Usability.USABLE
        sign = 1 if self.high else -1
        if sign * value < sign * self.refuse:
            return Usability.NOT_USABLE
        return Usability.WITH_CARE if sign * value < sign * self.care else Usability.USABLE

    def reading(self, value: float | None) -> QualityReading:
        """Return the published form of a value."""
        return QualityReading(
            value=None if value is None else round(value, self.digits),
            unit=self.unit,
            method=methods.QUALITY,
            usability=self.judge(value),
            usual=self.usual,
        )

    def reasons(self, value: float | None) -> list[Reason]:
        """Return the reason that a value gives, or none."""
        usability = self.judge(value)
        if value is None or usability is Usability.USABLE:
            return []
        shown = f"{value:.{self.digits}f}{' %' if self.unit == '%' else ''}"
        return [Reason(code=self.code, usability=usability, text=self.what.format(value=shown))]


_MOTION = "repeat the scan if the patient moved"

GATES = (
    Gate("snr", "low-snr", "1", 1, True, 14, 6, "above 20",
         "noise is high: white matter has {value} times its deviation; " + _MOTION + " or average more"),
    Gate("cnr", "low-cnr", "1", 2, True, 2.6, 1.0, "above 4",
         "grey and white matter differ by only {value} times the noise; send a T1-weighted scan of higher contrast"),
    Gate("ghosting", "ghosting", "%", 2, False, 1.0, 5.0, "below 1 %",
         "ghosts in the air reach {value} of white matter, as from motion or flow; " + _MOTION),
    Gate("non_uniformity", "non-uniform", "%", 0, False, 60, 150, "below 50 %",
         "coil brightness varies by {value} over the brain, which is corrected for only in part; switch on"
         " the scanner's"
         " intensity correction"),
    Gate("coverage", "coverage", "%", 1, True, 99, 95, "100 %",
         "only {value} of the brain lies inside the field of view; repeat the scan with the whole head in the field"),
    Gate("alignment", "alignment", "1", 3, True, 0.90, 0.87, "above 0.92",
         "the brain matches the template poorly, with a correlation of {value}; check that this is a"
         " T1-weighted scan of a"
         " whole brain, its orientation, and motion or metal artefacts"),
)  # fmt: skip
"""In the order of `Quality`."""


MEASURED_AXES = 2
"""Along so many there must be air: ghosts lie along the phase axis, and no header says which one that is."""


def values(
    air: Background, signal: Signal | None, covered: float | None, score: float | None
) -> dict[str, float | None]:
    """Return the readings' values by name; None for what was not or could not be measured."""
    ghosts = [value for value in air.ghost if value is not None]
    scale = signal.white if signal else 0.0
    return {
        "snr": signal.snr if signal else None,
        "cnr": signal.cnr if signal else None,
        "ghosting": 100 * max(0.0, *ghosts) / scale if len(ghosts) >= MEASURED_AXES and scale > 0 else None,
        "non_uniformity": 100 * signal.non_uniformity if signal else None,
        "coverage": None if covered is None else 100 * covered,
        "alignment": score,
    }


def quality(found: Mapping[str, float | None]) -> Quality:
    """Return the published form of all readings."""
    return Quality.model_validate({gate.name: gate.reading(found[gate.name]) for gate in GATES})


def reasons(found: Mapping[str, float | None], air: Background) -> list[Reason]:
    """Return what the readings say against the use of the numbers."""
    result = [reason for gate in GATES for reason in gate.reasons(found[gate.name])]
    if sum(ghost is not None for ghost in air.ghost) < MEASURED_AXES:
        why = (
            "is exactly zero (a mask was applied)"
            if air.zeroed
            else "is missing along two axes or three: the field is filled with tissue"
        )
        text = f"the air about the head {why}, so that ghosts cannot be seen; send the scan as acquired if there is one"
        result.append(Reason(code="no-air", usability=Usability.WITH_CARE, text=text))
    return result
