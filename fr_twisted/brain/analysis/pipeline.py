"""The analysis from file to report, stage by stage."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fr_twisted.brain.analysis import check, findings, page, pictures, skullstrip, template, tissues
from fr_twisted.brain.analysis.align import Alignment, align, brain_at_2mm
from fr_twisted.brain.analysis.findings import Findings
from fr_twisted.brain.analysis.orient import standard_form
from fr_twisted.brain.analysis.read import read
from fr_twisted.brain.analysis.volume import Volume, bounding_box, transfer
from fr_twisted.brain.interfaces import AnalysisResult
from fr_twisted.model import ScanMeta

Box = tuple[slice, ...]

MARGIN = 4
"""Voxels kept about the brain, for smoothing and neighbours."""


def run(payload: Path, scan_id: str, meta: ScanMeta) -> AnalysisResult:
    """Measure one scan.

    Raises:
        UnusableScanError: with the reason.
    """
    scan = read(payload, meta.format)
    check.check_geometry(scan)
    stored = findings.geometry(scan)
    head = standard_form(scan)
    del scan
    found, shares, box = measure(head, stored)
    picture = pictures.overlay(head, shares, box)
    return AnalysisResult(found.model_dump(mode="json"), page.files(scan_id, meta, found, picture))


def measure(head: Volume, stored: findings.Geometry) -> tuple[Findings, NDArray[np.float32], Box]:
    """Return what is found in a head in standard form, and the tissues' parts (3, i, j, k) in the box around the
    brain.

    Raises:
        UnusableScanError: it is no whole T1-weighted brain.
    """
    mask = skullstrip.brain_mask(head.data)
    check.check_brain(head, mask)
    box = bounding_box(mask, MARGIN)
    brain, inside = head.crop(box), mask[box]
    average = template.load()
    alignment = align(*brain_at_2mm(brain, inside), average)
    segmented = tissues.segment(brain.data, inside, priors(brain, alignment, average), brain.spacing)
    check.check_contrast(segmented.mixture)
    covered = check.coverage(head, alignment, average)
    check.check_alignment(alignment, covered)
    quality = findings.assess(segmented, inside, alignment, covered)
    found = findings.collect(findings.measure(segmented, brain), quality, stored)
    return found, segmented.shares, box


def priors(brain: Volume, alignment: Alignment, average: template.Template) -> NDArray[np.float32]:
    """Return the probability of fluid, grey and white matter (3, i, j, k) by the aligned template."""
    back = np.asarray(np.linalg.inv(alignment.matrix), np.float64)
    grey, white = (transfer(average.volume(part), brain, back) for part in (average.grey, average.white))
    return np.stack([np.clip(1 - grey - white, 0, 1), grey, white])
