"""The rows of a report's tables, as words: how numbers, places and ranges are written."""

from dataclasses import dataclass

from fr_twisted.brain.analysis.schema import Asymmetry, Band, LesionCandidate, QualityReading, Usability


@dataclass(frozen=True)
class Scale:
    """A number beside its published band, as places 0..1 along a bar."""

    low: float
    high: float
    value: float


@dataclass(frozen=True)
class Number:
    """A row of the volumes table."""

    name: str
    colour: str
    value: str
    share: str
    band: str
    """Low to high with unit; empty without a band."""
    marks: str
    """Numbers of the citations, such as 1,2."""
    outside: str
    """Below or above its band; empty: within, or there is none."""
    scale: Scale | None


@dataclass(frozen=True)
class Side:
    """A row of the asymmetry table."""

    name: str
    left: str
    right: str
    index: str


@dataclass(frozen=True)
class Check:
    """A row of the quality table."""

    name: str
    value: str
    usual: str
    usability: Usability | None
    """None: it could not be measured, and that limits nothing."""


@dataclass(frozen=True)
class Spot:
    """A row of the lesion table."""

    number: str
    kind: str
    volume: str
    place: str
    template: str
    contrast: str
    score: str


def sources_of(band: Band) -> list[str]:
    """Return the citations of a band."""
    return band.source.split("; ")


def range_of(band: Band) -> str:
    """Return a band's ends and unit."""
    unit = "" if band.unit == "1" else f" {band.unit}"
    return f"{band.low:g} to {band.high:g}{unit}"


def side_of(name: str, pair: Asymmetry) -> Side:
    """Return the row of a structure."""
    index = pair.index.value
    return Side(name, f"{pair.left_ml:.1f}", f"{pair.right_ml:.1f}", f"{index:+.1f} {pair.index.unit}")


def spot_of(lesion: LesionCandidate) -> Spot:
    """Return the row of a lesion candidate; places as letters and mm, such as L 24 A 13 S 40."""
    return Spot(
        number=str(lesion.number),
        kind=lesion.kind.value,
        volume=f"{lesion.volume.value:.0f}",
        place=" ".join(
            f"{letters[place < 0]} {abs(round(place))}"
            for letters, place in zip(("RL", "AP", "SI"), lesion.centroid_patient_mm, strict=True)
        ),
        template=", ".join(str(round(place)) for place in lesion.centroid_template_mm),
        contrast=f"{lesion.contrast.value:+.0f}",
        score=f"{lesion.score.value:.2f}",
    )


def check_of(name: str, reading: QualityReading) -> Check:
    """Return the row of a quality reading."""
    if reading.value is None:
        value = "not measured"
    elif reading.unit == "%":
        value = f"{reading.value:.1f} %"
    else:
        value = f"{reading.value:.3g}"
    unknown = reading.value is None and reading.usability is Usability.USABLE
    return Check(name, value, reading.usual, None if unknown else reading.usability)
