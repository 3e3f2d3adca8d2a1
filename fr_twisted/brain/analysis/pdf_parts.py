"""What the PDF page is built of: text that any font can show, tables, bars."""

import unicodedata
from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import escape

from reportlab.lib.colors import Color, HexColor
from reportlab.lib.styles import ParagraphStyle
from reportlab.platypus import Flowable, Paragraph, Table

from fr_twisted.brain.analysis.rows import Number
from fr_twisted.brain.analysis.schema import Usability

INK = HexColor("#1a2230")
SOFT = "#586273"
WARNING = "#8a2f10"
LINE = HexColor("#dde2ea")
BAND = HexColor("#c9d1dc")
TRACK = HexColor("#f0f3f7")

COLOURS = {
    Usability.USABLE: HexColor("#1f7a4d"),
    Usability.WITH_CARE: HexColor("#d98200"),
    Usability.NOT_USABLE: HexColor("#b3261e"),
}
BACKGROUNDS = {
    Usability.USABLE: HexColor("#eaf6ef"),
    Usability.WITH_CARE: HexColor("#fff5e2"),
    Usability.NOT_USABLE: HexColor("#fdebe9"),
}
TISSUES = {
    "total": HexColor("#2c3a52"),
    "brain": HexColor("#7a8699"),
    "grey": HexColor("#f0aa28"),
    "white": HexColor("#00be8c"),
    "fluid": HexColor("#56b4e9"),
    "ventricle": HexColor("#3c64f5"),
}

ENCODING = "cp1252"
"""What the PDF's own fonts can show (WinAnsi: PDF 32000-1, annex D)."""


def safe(words: str, *, escaped: bool = True) -> str:
    """Return text that Helvetica can show, escaped for ReportLab's markup; letters it lacks lose their accents or
    become question marks.
    """
    shown = "".join(_known(letter) for letter in words)
    return escape(shown) if escaped else shown


def _known(letter: str) -> str:
    for form in (letter, unicodedata.normalize("NFKD", letter)[0]):
        try:
            form.encode(ENCODING)
        except UnicodeEncodeError:
            continue
        return form if form.isprintable() else " "
    return "?"


def text(markup: str, size: float, *, align: str = "left", leading: float | None = None) -> Paragraph:
    """Return a paragraph of ReportLab's markup; what is not ours in it went through `safe`."""
    alignment = {"left": 0, "right": 2}[align]
    style = ParagraphStyle(
        f"{size}",
        fontName="Helvetica",
        fontSize=size,
        leading=leading or size * 1.2,
        textColor=INK,
        alignment=alignment,
    )
    return Paragraph(markup, style)


def heading(words: str) -> Table:
    """Return a section's heading."""
    small = text(f'<font color="{SOFT}"><b>{safe(words.upper())}</b></font>', 6.8)
    return grid(
        [[small]], [None], [("TOPPADDING", (0, 0), (-1, -1), 4), ("BOTTOMPADDING", (0, 0), (-1, -1), 1)]
    )


def grid(
    rows: Sequence[Sequence[Any]], widths: Sequence[float | None], style: Sequence[tuple[Any, ...]] = ()
) -> Table:
    """Return a table without padding or rules, but for those in ``style`` (commands of ReportLab's `TableStyle`)."""
    table = Table([list(row) for row in rows], colWidths=list(widths), hAlign="LEFT")
    bare = [(f"{side}PADDING", (0, 0), (-1, -1), 0) for side in ("LEFT", "RIGHT", "TOP", "BOTTOM")]
    table.setStyle([*bare, ("VALIGN", (0, 0), (-1, -1), "TOP"), *style])
    return table


class Bar(Flowable):  # type: ignore[misc]
    """A published range in grey, and the value in it."""

    def __init__(self, row: Number, width: float) -> None:
        super().__init__()
        self._row = row
        self.width, self.height = width, 7.0

    def draw(self) -> None:
        """Draw it; called by ReportLab."""
        scale = self._row.scale
        if scale is None:
            return
        canvas: Any = self.canv
        self._box(canvas, TRACK, 0, self.width)
        self._box(canvas, BAND, scale.low * self.width, (scale.high - scale.low) * self.width)
        canvas.setStrokeColor(HexColor(WARNING) if self._row.outside else HexColor("#ffffff"))
        canvas.setFillColor(TISSUES[self._row.colour])
        canvas.setLineWidth(0.7)
        canvas.rect(scale.value * self.width - 1.8, -0.6, 3.6, self.height + 1.2, stroke=1, fill=1)

    def _box(self, canvas: Any, colour: Color, left: float, width: float) -> None:
        canvas.setFillColor(colour)
        canvas.rect(left, 0, width, self.height, stroke=0, fill=1)


class Dot(Flowable):  # type: ignore[misc]
    """A coloured dot on a line of text."""

    def __init__(self, colour: Color) -> None:
        super().__init__()
        self._colour = colour
        self.width, self.height = 6.0, 7.5

    def draw(self) -> None:
        """Draw it; called by ReportLab."""
        canvas: Any = self.canv
        canvas.setFillColor(self._colour)
        canvas.circle(3, 3.2, 2.1, stroke=0, fill=1)
