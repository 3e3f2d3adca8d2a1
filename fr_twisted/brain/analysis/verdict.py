"""Whether the numbers of a scan can be used: each gate gives a reason and what a technician can do about it."""

from collections.abc import Iterable

import numpy as np

from fr_twisted.brain.analysis.align import Alignment
from fr_twisted.brain.analysis.mixture import CSF, GREY, WHITE, Mixture
from fr_twisted.brain.analysis.schema import Reason, Usability, Verdict
from fr_twisted.brain.analysis.template import Template
from fr_twisted.brain.analysis.volume import Array, Mask, Volume

USABLE, WITH_CARE, NOT_USABLE = Usability

INTRACRANIAL_ML = (600.0, 2400.0)
"""Intracranial volumes of people, with a margin: adults 1000 to 2000 mL, a child of one year about 850 mL."""

CUT_RADIUS_MM = 70.0
CUT_DEPTH_MM = 2.0
"""The outermost plane of a brain that is whole, but touches the edge of the field, is at most a cap of a sphere of
70 mm, one slice and 2 mm deep."""

FACES = (("left", "right"), ("back", "front"), ("bottom", "top"))
"""The first and last plane of each axis in RAS order."""

THICK_MM = 3.0

T1_GREY = 0.98
"""Most brightness of grey matter relative to white in a T1-weighted scan."""

WHOLE_HEAD = "repeat the scan with the whole head in the field, or send the full series"
IS_T1 = "is this a T1-weighted scan of the whole head, and are its orientation and voxel size right?"


def verdict(reasons: Iterable[Reason]) -> Verdict:
    """Return the verdict: the worst of the reasons, which stand worst first."""
    order = list(Usability)
    ordered = sorted(reasons, key=lambda reason: -order.index(reason.usability))
    return Verdict(usability=ordered[0].usability if ordered else USABLE, reasons=tuple(ordered))


def hopeless(reasons: Iterable[Reason]) -> bool:
    """Return whether any reason forbids the use of the numbers."""
    return any(reason.usability is NOT_USABLE for reason in reasons)


def thick(scan: Volume) -> bool:
    """Return whether the slices are thicker than `THICK_MM`, to a thousandth: an oblique affine has rounding errors."""
    return round(max(scan.spacing), 3) > THICK_MM


def of_geometry(scan: Volume) -> list[Reason]:
    """Return what is wrong with the grid of a scan."""
    longest = max(scan.spacing)
    if not thick(scan):
        return []
    text = (
        f"slices of {longest:.3g} mm: the cortex is thinner than a voxel, volumes are less certain than at 1"
        f" mm, small"
        " lesions are missed; send a 3-D series of about 1 mm if there is one"
    )
    return [Reason(code="thick-slices", usability=WITH_CARE, text=text)]


def of_mask(head: Volume, mask: Mask) -> list[Reason]:
    """Return what is wrong with the brain that the skull strip found: cut by the field, or of an impossible size."""
    reasons = []
    cut = _cut_faces(head, mask)
    if cut:
        text = f"the field of view cuts the brain at the {' and the '.join(cut)}; {WHOLE_HEAD}"
        reasons.append(Reason(code="cut-brain", usability=NOT_USABLE, text=text))
    volume = float(np.count_nonzero(mask)) * head.voxel_ml
    low, high = INTRACRANIAL_ML
    if not low <= volume <= high:
        text = (
            f"what looks like the brain has {volume:.0f} mL, outside the {low:.0f} to {high:.0f} mL of people;"
            f" {IS_T1}"
        )
        reasons.append(Reason(code="implausible-size", usability=NOT_USABLE, text=text))
    return reasons


def _cut_faces(head: Volume, mask: Mask) -> list[str]:
    """Return the sides at which the brain ends in a plane, at the field's edge or where blank planes begin.

    Blank planes are what a cut scan is filled up with when it is brought to another grid.
    """
    found = []
    for axis, names in enumerate(FACES):
        depth = head.spacing[axis] + CUT_DEPTH_MM
        most = 2 * np.pi * CUT_RADIUS_MM * depth
        plane_mm2 = head.voxel_ml * 1000 / head.spacing[axis]
        planes = np.moveaxis(mask, axis, 0)
        for end, name in zip(_filled(head.data, axis), names, strict=True):
            area = float(np.count_nonzero(planes[end])) * plane_mm2
            if area > most:
                found.append(f"{name} ({area / 100:.0f} cm2 of brain in the outermost slice)")
    return found


def _filled(data: Array, axis: int) -> tuple[int, int]:
    """Return the first and the last plane across ``axis`` that are not all zero."""
    other = tuple(k for k in range(3) if k != axis)
    planes = np.flatnonzero(data.any(axis=other))
    return int(planes[0]), int(planes[-1])


def coverage(head: Volume, alignment: Alignment, template: Template) -> float:
    """Return which part, 0..1, of the aligned template's brain lies inside the field of view of ``head``."""
    index = np.argwhere(template.mask[::2, ::2, ::2] > 0.5) * 2
    to_index = np.linalg.inv(head.affine) @ alignment.matrix @ template.affine
    where = index @ to_index[:3, :3].T + to_index[:3, 3]
    inside = ((where >= -0.5) & (where <= np.array(head.data.shape) - 0.5)).all(1)
    return float(inside.mean())


def of_contrast(mixture: Mixture) -> list[Reason]:
    """Return whether fluid, grey and white matter are not in the order of T1 weighting, dark to bright."""
    fluid, grey, white = (float(mixture.means[k] / mixture.means[WHITE]) for k in (CSF, GREY, WHITE))
    if fluid < grey < T1_GREY * white:
        return []
    text = (
        f"the contrast is not that of a T1-weighted scan: relative to white matter, fluid has {fluid:.2f} and grey"
        f" matter {grey:.2f}; expected fluid < grey < 1; send the T1 series of the study"
    )
    return [Reason(code="contrast", usability=NOT_USABLE, text=text)]
