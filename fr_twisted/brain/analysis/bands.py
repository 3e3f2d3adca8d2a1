"""Published reference values, as wide plausibility bands, and which of them fit a patient.

A band spans the lowest to the highest of what each fitting study gives for a single healthy person: the mean plus and
minus 3 standard deviations, or the median plus and minus 2 interquartile ranges (as wide, for a normal distribution).
Methods differ by several per cent, and the published groups are small: a number outside its band is a reason to look at
the pictures, and one inside it tells nothing of health. No band is given for what no source was read for: grey and
white matter, children, and ages beyond those measured.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fr_twisted.brain.analysis.schema import Band
from fr_twisted.model import ScanMeta

CAUTION = (
    "Bands are wide plausibility ranges of healthy adults as published, not limits of health. Methods differ by several"
    " per cent: a number outside its band is a reason to look at the pictures, one inside it tells nothing of health."
)


@dataclass(frozen=True)
class Study:
    """A publication, and whom it measured."""

    name: str
    source: str
    ages: tuple[int, int]
    """Years, youngest and oldest."""
    people: int
    by_sex: Mapping[str, int] = field(default_factory=dict)
    """How many of each, where it says so."""

    def counted(self, sexes: set[str | None]) -> int:
        """Return how many the figures of these sexes come from, or all where it does not say."""
        return sum(self.by_sex.get(sex or "", 0) for sex in sexes) or self.people


Spread = Callable[[float, float], tuple[float, float]]
"""Makes low and high of two figures."""


@dataclass(frozen=True)
class Group:
    """What a study says of healthy people of one sex (M or F; None: of both together)."""

    study: Study
    sex: str | None
    spread: Spread
    middle: float
    width: float

    def fits(self, sex: str | None, age_years: float | None) -> bool:
        """Return whether a patient could have been one of them; what is not known is no hindrance."""
        youngest, oldest = self.study.ages
        same = self.sex is None or sex not in ("M", "F") or sex == self.sex
        return same and (age_years is None or youngest <= age_years < oldest + 1)

    @property
    def span(self) -> tuple[float, float]:
        """Low and high."""
        return self.spread(self.middle, self.width)


def three_deviations(mean: float, deviation: float) -> tuple[float, float]:
    """Return mean plus and minus 3 standard deviations."""
    return mean - 3 * deviation, mean + 3 * deviation


def three_log_deviations(mean: float, deviation: float) -> tuple[float, float]:
    """Return the same of the logarithm, for what is far from symmetric: a log-normal with this mean and deviation.

    Its logarithm has variance ln(1 + (deviation / mean)^2) and mean ln(mean) - variance / 2 (moments of the log-normal
    distribution).
    """
    variance = math.log1p((deviation / mean) ** 2)
    middle, reach = math.log(mean) - variance / 2, 3 * math.sqrt(variance)
    return math.exp(middle - reach), math.exp(middle + reach)


def two_quartile_ranges(median: float, quartile_range: float) -> tuple[float, float]:
    """Return median plus and minus 2 interquartile ranges: 2.7 standard deviations of a normal distribution."""
    return median - 2 * quartile_range, median + 2 * quartile_range


WORDS: Mapping[Spread, str] = {
    three_deviations: "mean ± 3 standard deviations",
    three_log_deviations: "mean ± 3 standard deviations of the logarithm",
    two_quartile_ranges: "median ± 2 interquartile ranges",
}


YAMADA = Study(
    "Yamada 2023",
    "S. Yamada et al., Aging-related volume changes in the brain and cerebrospinal fluid using artificial"
    " intelligence-automated segmentation, Eur Radiol 33:7099-7112, 2023, doi:10.1007/s00330-023-09632-x (table 1)",
    ages=(21, 92),
    people=133,
    by_sex={"F": 87, "M": 46},
)
MATSUMAE = Study(
    "Matsumae 1996",
    "M. Matsumae et al., Age-related changes in intracranial compartment volumes in normal adults assessed by magnetic"
    " resonance imaging, J Neurosurg, June 1996, pages 982-991 (abstract)",
    ages=(24, 80),
    people=49,
)
AHMAD = Study(
    "Ahmad",
    "M. Z. Ahmad et al., MR volumetry of total intracranial and brain volume in normal adult population aged 40 years"
    " old and above, JBCS, jbcs.amdi.usm.my article 232 (abstract)",
    ages=(41, 77),
    people=58,
)
VAGBERG = Study(
    "Vågberg 2016",
    "M. Vågberg et al., Brain parenchymal fraction in an age-stratified healthy population, determined by MRI using"
    " manual segmentation and three automated segmentation methods, 2016, doi:10.1016/j.neurad.2016.08.002 (abstract)",
    ages=(21, 85),
    people=106,
)


FRACTION = (
    Group(VAGBERG, None, two_quartile_ranges, 0.784, 0.073),  # SPM12
    Group(
        VAGBERG, None, two_quartile_ranges, 0.819, 0.028
    ),  # VBM8: both segment T1-weighted images, as is done here
    Group(AHMAD, None, three_deviations, 0.8911, 0.0245),
)

GROUPS: Mapping[str, tuple[Group, ...]] = {
    "intracranial": (
        Group(YAMADA, "F", three_deviations, 1393.2, 91.2),
        Group(YAMADA, "M", three_deviations, 1538.2, 137.3),
        Group(MATSUMAE, "F", three_deviations, 1289, 111),
        Group(MATSUMAE, "M", three_deviations, 1469, 102),
        Group(AHMAD, "F", three_deviations, 1310.79, 90.34),
        Group(AHMAD, "M", three_deviations, 1496.12, 100.08),
    ),
    "brain": (
        Group(YAMADA, "F", three_deviations, 1067.7, 88.1),
        Group(YAMADA, "M", three_deviations, 1162.1, 129.9),
        Group(MATSUMAE, "F", three_deviations, 1143, 105),
        Group(MATSUMAE, "M", three_deviations, 1302, 112),
        Group(AHMAD, "F", three_deviations, 1164.49, 89.61),
        Group(AHMAD, "M", three_deviations, 1338.05, 91.96),
    ),
    "csf": FRACTION,
    "ventricles": (
        Group(YAMADA, "F", three_log_deviations, 22.6, 10.4),
        Group(YAMADA, "M", three_log_deviations, 30.1, 13.8),
    ),
    "brain_parenchymal_fraction": FRACTION,
}
"""Figures in mL, of the fraction 0..1; ``csf`` is what the fraction leaves of the intracranial volume."""


def of(name: str, sex: str | None, age_years: float | None) -> Band | None:
    """Return the band of one number, or None where nothing published can be cited for such a patient.

    Args:
        name: a member of `schema.Volumes`, or ``brain_parenchymal_fraction``.
        sex: M or F as in DICOM; anything else counts as not known: the band then spans both.
        age_years: None where it is not known: the band is then that of adults, and says so.
    """
    groups = [group for group in GROUPS.get(name, ()) if group.fits(sex, age_years)]
    if not groups:
        return None
    low = min(group.span[0] for group in groups)
    high = max(group.span[1] for group in groups)
    if name == "csf":
        low, high = 100 * (1 - high), 100 * (1 - low)
    unit = {"csf": "%", "brain_parenchymal_fraction": "1"}.get(name, "mL")
    steps = {"%": 10, "1": 1000, "mL": 1}[unit]  # rounded outwards, so that it never becomes narrower
    return Band(
        low=math.floor(low * steps) / steps,
        high=math.ceil(high * steps) / steps,
        unit=unit,
        population=_population(name, groups),
        source="; ".join(dict.fromkeys(group.study.source for group in groups)),
    )


def _population(name: str, groups: list[Group]) -> str:
    sexes = {group.sex for group in groups}
    who = "women" if sexes == {"F"} else "men" if sexes == {"M"} else "adults"
    studies = {group.study.name: group.study for group in groups}
    parts = [_people(study, sexes) for study in studies.values()]
    spreads = " or ".join(dict.fromkeys(WORDS[group.spread] for group in groups))
    span = "Lowest to highest of" if len(groups) > 1 else "From"
    share = "; here what the brain leaves of the intracranial volume" if name == "csf" else ""
    return f"healthy {who}: {', '.join(parts)}. {span} {spreads}{share}"


def _people(study: Study, sexes: set[str | None]) -> str:
    both = " of both sexes" if len(sexes) == 1 and None not in sexes and not study.by_sex else ""
    return f"{study.counted(sexes)}{both} of {study.ages[0]} to {study.ages[1]} years ({study.name})"


def patient(meta: ScanMeta) -> tuple[str | None, float | None]:
    """Return sex (M, F, O) and age in years of a scan's patient, as far as the scan's facts say."""
    sex = str(meta.facts.get("patient_sex") or "").strip().upper()[:1]
    return sex if sex in ("M", "F", "O") else None, age_years(meta.facts.get("patient_age"))


def age_years(age: str | int | float | None) -> float | None:
    """Return an age in years: a number of years, or a DICOM age string such as 045Y, 018M, 006W, 010D (PS3.5 6.2)."""
    if isinstance(age, str):
        found = re.fullmatch(r"\s*(\d{3})([YMWD])\s*", age)
        if found is None:
            return None
        return int(found[1]) / {"Y": 1.0, "M": 12.0, "W": 52.1775, "D": 365.2425}[found[2]]
    return float(age) if age is not None and math.isfinite(age) and 0 <= age < 130 else None
