"""Draws the report on one A4 page. The same report gives the same bytes: no clock, no random id (Canvas invariant).

The fonts are the PDF's own Helvetica, which knows Western European letters only; other letters lose their accents or
become question marks. The page and the JSON beside it hold them as they are.
"""

import io

from reportlab import rl_config
from reportlab.lib.colors import Color, HexColor
from reportlab.lib.pagesizes import A4
from reportlab.lib.units import mm
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Flowable, Image, KeepInFrame, Paragraph, Spacer, Table

from fr_twisted.brain.analysis.bands import CAUTION
from fr_twisted.brain.analysis.content import SUPPORT, TITLE, Content, clean
from fr_twisted.brain.analysis.pdf_parts import (
    BACKGROUNDS,
    BAND,
    COLOURS,
    INK,
    LINE,
    SOFT,
    WARNING,
    Bar,
    Dot,
    grid,
    heading,
    safe,
    text,
)
from fr_twisted.brain.analysis.schema import Usability

rl_config.useA85 = 0  # images as they are: text of them would be a quarter larger

MARGIN = 9 * mm
WIDTH = A4[0] - 2 * MARGIN
HEIGHT = A4[1] - 2 * MARGIN - 8 * mm
"""Above the last lines."""

LEFT = 0.64 * WIDTH
RIGHT = WIDTH - LEFT - 5 * mm

LEAST_PICTURE = 62 * mm

MOST_LESIONS = 14
MOST_WORDS = 6
"""Rows, and reasons or notes, that stand on the page; more are counted, and stand in the other files."""

ELSEWHERE = "{} more in report.html and report.json"


def render(content: Content, overlay_png: bytes, lesion_pngs: tuple[bytes, ...] = ()) -> bytes:
    """Return the page.

    Args:
        content: what it says.
        overlay_png: the picture of the whole brain, which takes the room that the rest leaves.
        lesion_pngs: pictures of the first lesion candidates.
    """
    out = io.BytesIO()
    canvas = Canvas(out, pagesize=A4, invariant=1, pageCompression=1)
    canvas.setTitle(safe(f"{TITLE}, {clean(content.scan_id)}"))
    canvas.setAuthor(safe(content.analysis))
    canvas.setSubject(SUPPORT)
    above = [_title(), _verdict(content), _facts(content), _columns(content)]
    below = [*_lesions(content, lesion_pngs), *_small_print(content)]
    used = sum(part.wrapOn(canvas, WIDTH, HEIGHT)[1] for part in (*above, *below))
    picture = _picture(overlay_png, HEIGHT - used - 2 * mm)
    page = KeepInFrame(WIDTH, HEIGHT, [*above, picture, *below], mode="shrink", hAlign="LEFT")
    page.wrapOn(canvas, WIDTH, HEIGHT)
    page.drawOn(canvas, MARGIN, A4[1] - MARGIN - page.height)
    _footer(canvas, content)
    canvas.showPage()
    canvas.save()
    return out.getvalue()


def _title() -> Flowable:
    support = text(f'<font color="{WARNING}"><b>{SUPPORT}</b></font>', 10, align="right")
    return _after(grid([[text(f"<b>{TITLE}</b>", 14, leading=17), support]], [0.7 * WIDTH, 0.3 * WIDTH]), 3)


def _verdict(content: Content) -> Flowable:
    verdict = content.found.verdict
    headline, sentence = content.headline
    colour = COLOURS[verdict.usability].hexval()[2:]
    rows = [
        [
            text(
                f'<font size="11" color="#{colour}"><b>{headline}</b></font>&nbsp;&nbsp; {safe(sentence)}',
                8.5,
            )
        ]
    ]
    reasons = content.reasons
    rows += [[_bullet(words, WIDTH - 8 * mm, COLOURS[how])] for words, how in reasons[:MOST_WORDS]]
    if len(reasons) > MOST_WORDS:
        rows.append([text(ELSEWHERE.format(len(reasons) - MOST_WORDS), 8)])
    style = [
        ("BACKGROUND", (0, 0), (-1, -1), BACKGROUNDS[verdict.usability]),
        ("LINEBEFORE", (0, 0), (0, -1), 3, COLOURS[verdict.usability]),
        ("LEFTPADDING", (0, 0), (-1, -1), 8),
        ("TOPPADDING", (0, 0), (-1, 0), 2),
        ("BOTTOMPADDING", (0, 0), (-1, 0), 4),
        ("BOTTOMPADDING", (0, 1), (-1, -1), 3),
    ]
    return _after(grid(rows, [WIDTH], style), 2 * mm)


def _bullet(words: str, width: float, colour: Color) -> Flowable:
    return grid([[Dot(colour), text(safe(words), 8)]], [4 * mm, width - 4 * mm])


def _facts(content: Content) -> Flowable:
    cells = [
        text(f'<font size="6.5" color="{SOFT}">{name}</font><br/>{_short(value)}', 8)
        for name, value in content.facts
    ]
    rows = [cells[0:4], cells[4:8], [cells[8], "", cells[9], ""]]
    style = [("SPAN", (0, 2), (1, 2)), ("SPAN", (2, 2), (3, 2)), ("RIGHTPADDING", (0, 0), (-1, -1), 6)]
    shares = (0.29, 0.2, 0.25, 0.26)
    return _after(grid(rows, [share * WIDTH for share in shares], style), 1 * mm)


def _short(value: str, most: int = 90) -> str:
    return safe(value if len(value) <= most else value[: most - 1] + "…")


def _columns(content: Content) -> Flowable:
    left = [heading("Volumes"), *_volumes(content), *_sides(content)]
    right = [heading("Quality"), _quality(content), *_notes(content)]
    return _after(grid([[left, "", right]], [LEFT, 5 * mm, RIGHT]), 1 * mm)


def _volumes(content: Content) -> list[Flowable]:
    if not content.volumes:
        colour = COLOURS[Usability.NOT_USABLE].hexval()[2:]
        return [text(f'<font color="#{colour}"><b>Withheld: see above why, and what to do.</b></font>', 9)]
    head = [
        _head(name, align) for name, align in (("", "left"), ("mL", "right"), ("% of intracranial", "right"))
    ]
    rows: list[list[Flowable | str]] = [[*head, _head("Published range"), _head("Range and value")]]
    for row in content.volumes:
        outside = f' <font color="{WARNING}"><b>{row.outside}</b></font>' if row.outside else ""
        marks = f'<super size="5">{row.marks}</super>' if row.marks else ""
        band = f"{safe(row.band)}{marks}{outside}" if row.scale else "none cited"
        cells = [text(row.value, 8, align="right"), text(row.share, 8, align="right")]
        soft = text(f'<font color="{SOFT}">{band}</font>', 7)
        rows.append([text(row.name, 8), *cells, soft, Bar(row, 0.19 * LEFT)])
    shares = (0.32, 0.09, 0.15, 0.25, 0.19)
    care = content.found.verdict.usability is Usability.WITH_CARE
    words = f'<font color="{WARNING}">To be used with care: see the limits above.</font>'
    table = grid(
        rows, [share * LEFT for share in shares], [("LEFTPADDING", (3, 0), (3, -1), 9), *_rules(len(rows))]
    )
    return [*([text(words, 7)] if care else []), table]


def _sides(content: Content) -> list[Flowable]:
    if not content.sides:
        return []
    heads = (
        ("Left and right", "left"),
        ("left mL", "right"),
        ("right mL", "right"),
        ("index", "right"),
        ("", "left"),
    )
    rows: list[list[Flowable | str]] = [[_head(name, align) for name, align in heads]]
    for row in content.sides:
        numbers = [text(value, 8, align="right") for value in (row.left, row.right, row.index)]
        rows.append([text(row.name, 8), *numbers, ""])
    rows[1][-1] = text(
        f'<font color="{SOFT}">200 (left - right) / (left + right);<br/>positive: more on the left</font>',
        6,
        leading=7,
    )
    shares = (0.33, 0.12, 0.12, 0.13, 0.3)
    style = [("SPAN", (4, 1), (4, 2)), ("LEFTPADDING", (4, 0), (4, -1), 8), *_rules(len(rows))]
    return [Spacer(1, 1.5 * mm), grid(rows, [share * LEFT for share in shares], style)]


def _quality(content: Content) -> Flowable:
    rows: list[list[Flowable | str]] = [["", _head("Reading"), _head("Value"), _head("Usual")]]
    for row in content.quality:
        usual = text(f'<font color="{SOFT}">{safe(row.usual)}</font>', 7)
        dot = Dot(COLOURS[row.usability] if row.usability else BAND)
        rows.append([dot, text(row.name, 8), text(row.value, 8), usual])
    style = [("LEFTPADDING", (3, 0), (3, -1), 5), *_rules(len(rows))]
    return grid(rows, [4 * mm, 0.37 * RIGHT, 0.28 * RIGHT, 0.35 * RIGHT - 4 * mm], style)


def _notes(content: Content) -> list[Flowable]:
    notes = content.notes
    if not notes:
        return []
    shown = [_bullet(note, RIGHT, HexColor(SOFT)) for note in notes[:MOST_WORDS]]
    more = [text(ELSEWHERE.format(len(notes) - MOST_WORDS), 7)] if len(notes) > MOST_WORDS else []
    return [Spacer(1, 1 * mm), heading("Notes"), *shown, *more]


def _picture(png: bytes, room: float) -> Flowable:
    image = Image(io.BytesIO(png), lazy=0)
    ratio = image.imageHeight / image.imageWidth
    height = min(max(room, LEAST_PICTURE), WIDTH * ratio)
    image.drawWidth, image.drawHeight, image.hAlign = height / ratio, height, "CENTER"
    return image


def _lesions(content: Content, pngs: tuple[bytes, ...]) -> list[Flowable]:
    words = text(f'<font color="{SOFT}">{content.lesion_words}</font>', 7)
    if not content.spots:
        return [heading("Lesion candidates"), words]
    heads = ("No.", "Kind", "mm<super>3</super>", "Place, mm", "MNI152, mm", "Contrast, %", "Score")
    rows: list[list[Flowable | str]] = [[_head(name) for name in heads]]
    for spot in content.spots[:MOST_LESIONS]:
        values = (spot.kind, spot.volume, spot.place, spot.template, spot.contrast, spot.score)
        rows.append([text(f"<b>{spot.number}</b>", 7), *(text(value, 7) for value in values)])
    half = 0.47 * WIDTH
    shares = (0.07, 0.18, 0.09, 0.23, 0.2, 0.14, 0.09)
    table: list[Flowable] = [words, grid(rows, [share * half for share in shares], _rules(len(rows), 0.2))]
    if len(content.spots) > MOST_LESIONS:
        table.append(text(ELSEWHERE.format(len(content.spots) - MOST_LESIONS), 7))
    rest = WIDTH - half - 3 * mm
    return [heading("Lesion candidates"), grid([[table, "", _gallery(pngs, rest)]], [half, 3 * mm, rest])]


def _gallery(pngs: tuple[bytes, ...], width: float) -> Flowable:
    columns = 2 if len(pngs) <= 4 else 3
    side = width / columns
    images = []
    for png in pngs:
        image = Image(io.BytesIO(png), lazy=0)
        image.drawHeight = (side - 1 * mm) * image.imageHeight / image.imageWidth
        image.drawWidth = side - 1 * mm
        images.append(image)
    rows = [images[first : first + columns] for first in range(0, len(images), columns)]
    padded: list[list[object]] = [[*row, *[""] * (columns - len(row))] for row in rows] or [[""] * columns]
    return grid(padded, [side] * columns, [("BOTTOMPADDING", (0, 0), (-1, -1), 1 * mm)])


def _small_print(content: Content) -> list[Flowable]:
    people = " ".join(f"<b>{safe(names)}:</b> {safe(words)}." for names, words in content.populations)
    sources = " ".join(f"<b>[{n}]</b> {safe(source)}." for n, source in enumerate(content.sources, start=1))
    ranges = (
        f"{safe(CAUTION)} {people} {sources}"
        if content.sources
        else "No published range is cited for this scan."
    )
    methods = " ".join(f"<b>{safe(name)}:</b> {safe(words)}" for name, words in content.methods)
    return [
        heading("Published ranges"),
        _tiny(ranges),
        heading("Methods"),
        _tiny(f"<b>{safe(content.analysis)}.</b> {methods}"),
    ]


def _tiny(words: str) -> Paragraph:
    return text(f'<font color="{SOFT}">{words}</font>', 6, leading=7.1)


def _footer(canvas: Canvas, content: Content) -> None:
    canvas.setStrokeColor(LINE)
    canvas.line(MARGIN, MARGIN + 6 * mm, A4[0] - MARGIN, MARGIN + 6 * mm)
    canvas.setFillColor(HexColor(WARNING))
    canvas.setFont("Helvetica-Bold", 7.5)
    canvas.drawString(MARGIN, MARGIN + 2 * mm, safe(content.found.decision_support_only, escaped=False))
    canvas.setFillColor(INK)
    canvas.setFont("Helvetica", 7)
    canvas.drawRightString(A4[0] - MARGIN, MARGIN + 2 * mm, safe(clean(content.scan_id), escaped=False))


def _head(name: str, align: str = "left") -> Paragraph:
    return text(f'<font color="{SOFT}">{name}</font>', 6.5, align=align)


def _rules(rows: int, padding: float = 1.0) -> list[tuple[object, ...]]:
    return [
        ("LINEBELOW", (0, 0), (-1, rows - 1), 0.4, LINE),
        ("TOPPADDING", (0, 0), (-1, -1), padding),
        ("BOTTOMPADDING", (0, 0), (-1, -1), padding + 0.6),
        ("VALIGN", (0, 0), (-1, -1), "MIDDLE"),
    ]


def _after(part: Table, space: float = 0) -> Table:
    """Return a table with room below it."""
    part.setStyle([("BOTTOMPADDING", (0, -1), (-1, -1), 2 + space)])
    return part
