"""What a report says, as rows of words and numbers; `page` and `pdf` only lay it out, so that both say the same."""

import unicodedata
from dataclasses import dataclass
from functools import cached_property

from fr_twisted.brain.analysis import bands
from fr_twisted.brain.analysis.rows import (
    Check,
    Number,
    Scale,
    Side,
    Spot,
    check_of,
    range_of,
    side_of,
    sources_of,
    spot_of,
)
from fr_twisted.brain.analysis.schema import Band, Findings, Reading, Usability, VolumeReading
from fr_twisted.model import ScanMeta

TITLE = "Brain volumes from T1-weighted MRI"
SUPPORT = "Decision support only"

MOST_CHARACTERS = 240
"""Of a text that came with the scan."""

VOLUMES = (
    ("intracranial", "Intracranial", "total"),
    ("brain", "Brain (grey + white matter)", "brain"),
    ("grey_matter", "Grey matter", "grey"),
    ("white_matter", "White matter", "white"),
    ("csf", "Cerebrospinal fluid", "fluid"),
    ("ventricles", "Ventricles (part of the fluid)", "ventricle"),
)
"""Member of `Volumes`, its name for people, and the name of its colour."""

FRACTION = "Brain parenchymal fraction"

QUALITY = (
    ("snr", "Signal to noise"),
    ("cnr", "Contrast to noise"),
    ("ghosting", "Ghosting"),
    ("non_uniformity", "Non-uniformity"),
    ("coverage", "Brain in view"),
    ("alignment", "Template match"),
)

HEADLINES = {
    Usability.USABLE: ("Usable", "Nothing was found that limits the use of the numbers."),
    Usability.WITH_CARE: ("Usable with care", "The numbers may be used with these limits in mind."),
    Usability.NOT_USABLE: ("Not usable", "The volumes are withheld, for they could not be trusted."),
}


@dataclass(frozen=True)
class Content:
    """All that the report of one scan says."""

    scan_id: str
    meta: ScanMeta
    found: Findings

    @property
    def headline(self) -> tuple[str, str]:
        """The verdict in a word or three, and a sentence."""
        return HEADLINES[self.found.verdict.usability]

    @property
    def reasons(self) -> list[tuple[str, Usability]]:
        """What limits the use of the numbers, in whole sentences, and how far."""
        return [(_sentence(reason.text), reason.usability) for reason in self.found.verdict.reasons]

    @cached_property
    def facts(self) -> list[tuple[str, str]]:
        """What is known of the scan, by name; texts that came with it are cleaned, not escaped."""
        meta, stored = self.meta, self.found.geometry
        pairs = [
            ("Scan", self.scan_id),
            ("Patient id", meta.patient_id),
            ("Sex, age", _person(meta)),
            ("Acquired", meta.acquired_at.strftime("%Y-%m-%d %H:%M %Z") if meta.acquired_at else None),
            ("Series", meta.series_description),
            ("Scanner", _scanner(meta)),
            ("Image", " x ".join(map(str, stored.shape)) + f" voxels, stored {stored.orientation}"),
            ("Voxel", " x ".join(f"{size:.3g}" for size in stored.spacing_mm) + " mm"),
            ("Study UID", meta.study_instance_uid),
            ("Series UID", meta.series_instance_uid),
        ]
        return [(name, clean(value or "") or "not stated") for name, value in pairs]

    @cached_property
    def volumes(self) -> list[Number]:
        """The volumes and the parenchymal fraction; empty where they are withheld."""
        measured = self.found.volumes
        if measured is None:
            return []
        rows = []
        for member, name, colour in VOLUMES:
            volume: VolumeReading = getattr(measured, member)
            share = f"{volume.percent_of_intracranial:.1f}"
            compared = (
                volume.percent_of_intracranial if volume.band and volume.band.unit == "%" else volume.value
            )
            rows.append(self._number(name, colour, volume, f"{volume.value:.1f}", share, compared))
        fraction = self.found.brain_parenchymal_fraction
        if fraction is not None:
            compared = fraction.value * (100 if fraction.band and fraction.band.unit == "%" else 1)
            rows.append(self._number(FRACTION, "brain", fraction, f"{fraction.value:.3f}", "", compared))
        return rows

    def _number(
        self, name: str, colour: str, reading: Reading, value: str, share: str, compared: float
    ) -> Number:
        band = reading.band
        if band is None:
            return Number(name, colour, value, share, "", "", "", None)
        end = max(band.high, compared) * 1.15
        outside = "below" if compared < band.low else "above" if compared > band.high else ""
        marks = ",".join(map(str, sorted(self.sources.index(source) + 1 for source in sources_of(band))))
        scale = Scale(max(0.0, band.low / end), band.high / end, max(0.0, compared / end))
        return Number(name, colour, value, share, range_of(band), marks, outside, scale)

    @cached_property
    def _bands(self) -> list[tuple[str, Band]]:
        measured = self.found.volumes
        named = (
            [(name, getattr(measured, member)) for member, name, _ in VOLUMES] if measured is not None else []
        )
        named.append((FRACTION, self.found.brain_parenchymal_fraction))
        return [(name.split(" (")[0], reading.band) for name, reading in named if reading and reading.band]

    @cached_property
    def sources(self) -> list[str]:
        """The publications that the bands cite, in the order of their numbers."""
        return list(dict.fromkeys(source for _, band in self._bands for source in sources_of(band)))

    @cached_property
    def populations(self) -> list[tuple[str, str]]:
        """For which numbers the bands were measured in whom, and what low and high are."""
        names: dict[str, list[str]] = {}
        for name, band in self._bands:
            names.setdefault(band.population, []).append(name)
        return [(", ".join(these), population) for population, these in names.items()]

    @cached_property
    def sides(self) -> list[Side]:
        """Left against right; empty where it was not measured."""
        pairs = self.found.asymmetry
        if pairs is None:
            return []
        return [side_of("Grey matter", pairs.grey_matter), side_of("Ventricles", pairs.ventricles)]

    @cached_property
    def spots(self) -> list[Spot]:
        """The lesion candidates."""
        return [spot_of(lesion) for lesion in self.found.lesions or ()]

    @property
    def lesion_words(self) -> str:
        """One sentence on the lesion candidates."""
        lesions = self.found.lesions
        if lesions is None:
            return "Not looked for, or withheld: this scan is not usable."
        if not lesions:
            return "Looked for; no candidate was found."
        return "Places to look at; whether they are lesions is for the reader to say."

    @cached_property
    def quality(self) -> list[Check]:
        """The quality readings."""
        return [check_of(name, getattr(self.found.quality, member)) for member, name in QUALITY]

    @property
    def notes(self) -> list[str]:
        """What to keep in mind."""
        return [_sentence(note) for note in self.found.notes]

    @property
    def methods(self) -> list[tuple[str, str]]:
        """What the names of methods stand for."""
        return list(self.found.methods.items())

    @property
    def analysis(self) -> str:
        """Name and version."""
        return f"{self.found.analysis.name} {self.found.analysis.version}"


def clean(text: str) -> str:
    """Return ``text`` on one line and not too long, without control, formatting (such as of direction) and lone
    surrogate characters.
    """
    kept = (
        " " if c.isspace() else c
        for c in text
        if c.isspace() or unicodedata.category(c) not in ("Cc", "Cf", "Cs")
    )
    line = " ".join("".join(kept).split())
    return line if len(line) <= MOST_CHARACTERS else line[: MOST_CHARACTERS - 1] + "…"


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:] + ("" if words.endswith((".", "!", "?")) else ".")


def _person(meta: ScanMeta) -> str | None:
    sex, age = bands.patient(meta)
    words = {"F": "female", "M": "male", "O": "other"}.get(sex or "", "sex not stated")
    if age is None:
        return f"{words}, age not stated" if sex else None
    years = f"{age:.0f} years" if age >= 2 else f"{age * 12:.0f} months"
    return f"{words}, {years}"


def _scanner(meta: ScanMeta) -> str | None:
    facts = meta.facts
    names = [str(facts[name]) for name in ("manufacturer", "model") if facts.get(name)]
    field = facts.get("field_strength_t")
    return ", ".join([" ".join(names)] * bool(names) + [f"{field} T"] * (field is not None)) or None
