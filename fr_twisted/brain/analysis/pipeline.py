"""The analysis from file to report, stage by stage."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fr_twisted.brain.analysis import (
    asymmetry,
    check,
    denoise,
    findings,
    gates,
    lesions,
    midline,
    page,
    pictures,
    quality,
    skullstrip,
    template,
    tissues,
    upright,
    ventricles,
    verdict,
    warp,
)
from fr_twisted.brain.analysis.align import Alignment, align, brain_at_2mm
from fr_twisted.brain.analysis.anatomy import Anatomy, Box, Label
from fr_twisted.brain.analysis.orient import standard_form
from fr_twisted.brain.analysis.read import read
from fr_twisted.brain.analysis.schema import Findings, Reason
from fr_twisted.brain.analysis.volume import Mask, Volume, bounding_box
from fr_twisted.brain.interfaces import AnalysisResult
from fr_twisted.model import ScanMeta

Watch = Callable[[str], AbstractContextManager[None]]
"""Entered with the name of each stage while it works, for whoever measures time and memory."""

MARGIN = 4
"""Voxels kept about the brain, for smoothing and neighbours."""

WORSE = 0.01
"""By how much the second skull strip of a tilted head may match worse than the first and still be taken."""


def unwatched(_stage: str) -> AbstractContextManager[None]:
    """Watch nothing."""
    return nullcontext()


def run(payload: Path, scan_id: str, meta: ScanMeta, watch: Watch = unwatched) -> AnalysisResult:
    """Measure one scan and draw its report.

    Raises:
        UnusableScanError: there is nothing to measure or to show; with the reason.
    """
    found, anatomy = examine(payload, meta, watch)
    with watch("pictures"):
        overlay, spots = pictures.overlay(anatomy), pictures.lesion_pictures(anatomy)
        files = page.files(scan_id, meta, found, overlay, spots)
    return AnalysisResult(found.model_dump(mode="json"), files)


def examine(payload: Path, meta: ScanMeta, watch: Watch = unwatched) -> tuple[Findings, Anatomy]:
    """Return what is found in one scan, and its anatomy to draw.

    Raises:
        UnusableScanError: with the reason.
    """
    with watch("read"):
        scan = read(payload, meta.format)
    with watch("check"):
        check.check_geometry(scan)
        stored, reasons = findings.geometry(scan), verdict.of_geometry(scan)
    with watch("orient"):
        head = standard_form(scan)
        del scan
    with watch("quality"):
        air = quality.background(head)
    found = measure(head, air, reasons, watch)
    with watch("findings"):
        readings = gates.values(air, found.signal, found.covered, found.score)
        found.reasons.extend(gates.reasons(readings, air))
        published = findings.collect(found.measured, found.reasons, gates.quality(readings), stored, meta)
    shown = found.measured.lesions if found.measured and published.lesions is not None else ()
    return published, Anatomy(head, found.box, found.labels, shown)


@dataclass
class Found:
    """What the stages found so far; they stop at a reason that forbids the use of the numbers."""

    box: Box
    labels: NDArray[np.uint8]
    reasons: list[Reason]
    score: float | None = None
    covered: float | None = None
    signal: quality.Signal | None = None
    measured: findings.Measured | None = None


def measure(head: Volume, air: quality.Background, reasons: list[Reason], watch: Watch = unwatched) -> Found:
    """Return what is found in a head in standard form.

    Raises:
        UnusableScanError: there is no brain in it.
    """
    average = template.load()
    mask, alignment = locate(head, average, watch)
    box = bounding_box(mask, MARGIN)
    brain, inside = head.crop(box), mask[box]
    found = Found(box, inside.astype(np.uint8) * 0, reasons + verdict.of_mask(head, mask))
    found.score, found.covered = alignment.score, verdict.coverage(head, alignment, average)
    if not verdict.hopeless(
        found.reasons + gates.reasons(gates.values(air, None, found.covered, found.score), air)
    ):
        segment(found, brain, inside, alignment, watch)
    return found


def locate(head: Volume, average: template.Template, watch: Watch) -> tuple[Mask, Alignment]:
    """Return the brain in a head and how the template lies in it; a tilted head is stripped again upright.

    Raises:
        UnusableScanError: there is no brain in it.
    """
    with watch("skull strip"):
        mask = skullstrip.brain_mask(head.data)
        check.check_brain(head, mask)
    with watch("align"):
        alignment = _aligned(head, mask, average)
    turn, degrees = upright.tilt(alignment, head)
    if degrees <= upright.MOST_DEGREES:
        return mask, alignment
    with watch("skull strip"):
        straight = upright.straight_mask(head, turn)
    if not straight.any():
        return mask, alignment
    with watch("align"):
        again = _aligned(head, straight, average)
    return (straight, again) if again.score > alignment.score - WORSE else (mask, alignment)


def _aligned(head: Volume, mask: Mask, average: template.Template) -> Alignment:
    box = bounding_box(mask, MARGIN)
    return align(*brain_at_2mm(head.crop(box), mask[box]), average)


def segment(found: Found, brain: Volume, inside: Mask, alignment: Alignment, watch: Watch) -> None:
    """Measure the brain, and add to ``found``.

    Args:
        found: what there is so far.
        brain: the box around it.
        inside: its mask in the box.
        alignment: of the template.
        watch: as in `run`.
    """
    average = template.load()
    with watch("align"):
        small, _ = brain_at_2mm(brain, inside)
        warped = warp.warp(small, alignment, average)
    with watch("bias and tissues"):
        clean = denoise.denoised(brain.data, denoise.noise(brain.data, inside))
        maps = priors(brain, warped, average)
        deep = warped.onto(average.deep, brain)
        split = tissues.segment(clean, inside, maps, deep, brain.spacing)
        found.labels = split.labels()
        found.reasons += verdict.of_contrast(split.mixture)
    with watch("quality"):
        white = found.labels == Label.WHITE
        found.signal = quality.signal(brain.data, split.bias, white, inside, split.mixture)
    if verdict.hopeless(found.reasons):
        return
    with watch("ventricles"):
        found.labels[ventricles.ventricles(found.labels, brain, warped, average)] = Label.VENTRICLE
    with watch("lesions"):
        spots = lesions.find(split.values, found.labels, maps, split.mixture, brain, warped.to_template)
    with watch("asymmetry"):
        middle = midline.midline(small, warped, average)
        right = asymmetry.rightward(middle, brain, warped, average)
        found.measured = findings.measure(brain, split, found.labels, right, spots)


def priors(brain: Volume, warped: warp.Warp, average: template.Template) -> NDArray[np.float32]:
    """Return the probability of fluid, grey and white matter (3, i, j, k) by the warped template."""
    grey, white = (warped.onto(part, brain) for part in (average.grey, average.white))
    return np.stack([np.clip(1 - grey - white, 0, 1), grey, white])
