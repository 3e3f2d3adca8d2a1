"""The analysis from file to report, stage by stage."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fr_twisted.brain.analysis import (
    asymmetry,
    check,
    denoise,
    findings,
    gates,
    label_maps,
    lesions,
    midline,
    page,
    pictures,
    quality,
    rim,
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
    with watch("label maps"):
        files |= label_maps.files(anatomy, found)
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
    found = measure(head, Found(air, reasons), watch)
    with watch("findings"):
        readings = found.readings()
        found.reasons += gates.reasons(readings, air)
        published = findings.collect(found.measured, found.reasons, gates.quality(readings), stored, meta)
    shown = found.measured.lesions if found.measured and published.lesions is not None else ()
    return published, Anatomy(head, found.box, found.labels, shown)


@dataclass
class Found:
    """What the stages found so far; they stop at a reason that forbids the use of the numbers."""

    air: quality.Background
    reasons: list[Reason]
    box: Box = ()
    labels: NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, 0, 0), np.uint8))
    score: float | None = None
    covered: float | None = None
    signal: quality.Signal | None = None
    measured: findings.Measured | None = None

    def readings(self) -> dict[str, float | None]:
        """Return the quality readings, as far as there are any."""
        return gates.values(self.air, self.signal, self.covered, self.score)

    def hopeless(self) -> bool:
        """Return whether a reason or a reading forbids the use of the numbers."""
        return verdict.hopeless(self.reasons + gates.reasons(self.readings(), self.air))


@dataclass(frozen=True)
class Located:
    """A brain in its head: ``mask`` of the head; ``brain`` and ``inside`` in the ``box`` around it; ``small``: 2 mm."""

    mask: Mask
    box: Box
    brain: Volume
    inside: Mask
    small: Volume
    alignment: Alignment


def measure(head: Volume, found: Found, watch: Watch = unwatched) -> Found:
    """Return what is found in a head in standard form, added to ``found``.

    Raises:
        UnusableScanError: there is no brain in it.
    """
    average = template.load()
    located = locate(head, average, watch)
    found.box, found.labels = located.box, np.zeros(located.inside.shape, np.uint8)
    found.reasons = found.reasons + verdict.of_mask(head, located.mask)
    found.score = located.alignment.score
    found.covered = verdict.coverage(head, located.alignment, average)
    if not found.hopeless():
        segment(found, located, average, watch)
    return found


def locate(head: Volume, average: template.Template, watch: Watch) -> Located:
    """Return the brain in a head and how the template lies in it; a tilted head is stripped as if it lay straight.

    Raises:
        UnusableScanError: there is no brain in it.
    """
    with watch("skull strip"):
        seen = skullstrip.glimpse(head)
        rough = seen.mask(head.data.shape)
        check.check_brain(head, rough)
    with watch("align"):
        turn, degrees = upright.tilt(_located(head, rough, average).alignment, head)
    with watch("skull strip"):
        tilted = degrees > upright.MOST_DEGREES
        mask = upright.straight_mask(head, seen, turn) if tilted else skullstrip.brain_mask(head, seen)
        check.check_brain(head, mask)
    with watch("align"):
        return _located(head, mask, average)


def _located(head: Volume, mask: Mask, average: template.Template) -> Located:
    box = bounding_box(mask, MARGIN)
    brain, inside = head.crop(box), mask[box]
    small, small_mask = brain_at_2mm(brain, inside)
    return Located(mask, box, brain, inside, small, align(small, small_mask, average))


def segment(found: Found, located: Located, average: template.Template, watch: Watch) -> None:
    """Measure the brain, and add to ``found``."""
    brain, inside = located.brain, located.inside
    with watch("align"):
        warped = warp.warp(located.small, located.alignment, average)
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
    if found.hopeless():
        return
    with watch("ventricles"):
        found.labels[ventricles.ventricles(found.labels, brain, warped, average)] = Label.VENTRICLE
    with watch("lesions"):
        spots = lesions.find(split.values, found.labels, maps, split.mixture, brain, warped.to_template)
    with watch("ventricles"):
        rim.settle(found.labels, split.values, split.mixture)
    with watch("asymmetry"):
        middle = midline.midline(located.small, warped, average)
        right = asymmetry.rightward(middle, brain, warped, average)
        found.measured = findings.measure(brain, split, found.labels, right, spots)


def priors(brain: Volume, warped: warp.Warp, average: template.Template) -> NDArray[np.float32]:
    """Return the probability of fluid, grey and white matter (3, i, j, k) by the warped template."""
    grey, white = (warped.onto(part, brain) for part in (average.grey, average.white))
    return np.stack([np.clip(1 - grey - white, 0, 1), grey, white])
