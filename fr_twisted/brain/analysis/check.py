"""Refuses what this analysis cannot measure, with the reason and what to do.

First the geometry is looked at, then the brain that the skull strip found, then its contrast and its alignment.
"""

import numpy as np

from fr_twisted.brain.analysis.align import Alignment
from fr_twisted.brain.analysis.mixture import CSF, GREY, WHITE, Mixture
from fr_twisted.brain.analysis.template import Template
from fr_twisted.brain.analysis.volume import Mask, Volume
from fr_twisted.brain.interfaces import UnusableScanError

SPACING_MM = (0.4, 6.0)
"""Voxel sides that can be used. Coarser than 6 mm the cortex, 2.5 mm thick, is only partial volume."""

FIELD_MM = (90.0, 512.0)
"""Sides of the field of view that can hold a head, or a stripped and cropped brain."""

FEWEST_PLANES = 16

INTRACRANIAL_ML = (600.0, 2400.0)
"""Intracranial volumes of people, with a margin: adults 1000 to 2000 mL, a child of one year about 850 mL."""

LEAST_SCORE = 0.87
"""Least correlation with the template; a whole T1 brain has 0.92 to 0.96, much atrophy or thick slices 0.90."""

LEAST_COVERAGE = 0.95
"""Least part of the aligned template's brain inside the field of view."""

CUT_RADIUS_MM = 70.0
CUT_DEPTH_MM = 2.0
"""The outermost plane of a brain that is whole, but touches the edge of the field, is at most a cap of a sphere of
70 mm, one slice and 2 mm deep."""

FACES = (("left", "right"), ("back", "front"), ("bottom", "top"))
"""The first and last plane of each axis in RAS order."""


def check_geometry(scan: Volume) -> None:
    """Refuse a scan whose grid or values cannot be those of a head.

    Raises:
        UnusableScanError: with the numbers.
    """
    _check_values(scan)
    shape, spacing = scan.data.shape, scan.spacing
    sides = " x ".join(f"{size:.3g}" for size in spacing)
    if min(shape) < FEWEST_PLANES:
        raise UnusableScanError(
            f"only {min(shape)} slices along one axis (shape {' x '.join(map(str, shape))}); a 3-D scan of the whole"
            f" brain has at least {FEWEST_PLANES}; send the full series"
        )
    if min(spacing) < SPACING_MM[0] or max(spacing) > SPACING_MM[1]:
        raise UnusableScanError(
            f"voxels of {sides} mm; sides of {SPACING_MM[0]:g} to {SPACING_MM[1]:g} mm can be analysed;"
            " send a 3-D T1 series, and check the units of the header if these numbers look wrong"
        )
    field = [size * count for size, count in zip(spacing, shape, strict=True)]
    if min(field) < FIELD_MM[0] or max(field) > FIELD_MM[1]:
        raise UnusableScanError(
            f"a field of view of {' x '.join(f'{side:.0f}' for side in field)} mm; a head takes {FIELD_MM[0]:.0f} to"
            f" {FIELD_MM[1]:.0f} mm along each axis; send a scan of the whole head"
        )


def _check_values(scan: Volume) -> None:
    strange = int(scan.data.size - np.count_nonzero(np.isfinite(scan.data)))
    if strange:
        raise UnusableScanError(
            f"{strange} voxels are not finite numbers (NaN or infinite); export the series again"
        )
    low, high = float(scan.data.min()), float(scan.data.max())
    if low == high:
        raise UnusableScanError(
            f"the image is empty: every voxel has the value {low:g}; export the series again"
        )


def check_brain(head: Volume, mask: Mask) -> None:
    """Refuse a scan in which no whole brain was found.

    Args:
        head: in RAS axis order.
        mask: what the skull strip found in it.

    Raises:
        UnusableScanError: no brain, of an impossible size, or cut by the edge of the field of view.
    """
    volume = float(np.count_nonzero(mask)) * head.voxel_ml
    advice = "is this a T1-weighted scan of the whole head, and are its orientation and voxel size right?"
    if volume < 10 or not _stands_out(head, mask):
        raise UnusableScanError(f"no brain was found; {advice}")
    _check_edges(head, mask)
    low, high = INTRACRANIAL_ML
    if not low <= volume <= high:
        raise UnusableScanError(
            f"what looks like the brain has {volume:.0f} mL, outside the {low:.0f} to {high:.0f} mL of people; {advice}"
        )


def _stands_out(head: Volume, mask: Mask) -> bool:
    """Return whether the brain is brighter than the rest, which is air for the most part; noise is not."""
    within = int(np.count_nonzero(mask))
    inside = float(head.data[mask].mean(dtype=np.float64))
    outside = (float(head.data.sum(dtype=np.float64)) - inside * within) / max(1.0, float(mask.size - within))
    return inside > 1.1 * outside


def _check_edges(head: Volume, mask: Mask) -> None:
    for axis, names in enumerate(FACES):
        depth = head.spacing[axis] + CUT_DEPTH_MM
        most = 2 * np.pi * CUT_RADIUS_MM * depth
        plane_mm2 = head.voxel_ml * 1000 / head.spacing[axis]
        planes = np.moveaxis(mask, axis, 0)
        for plane, name in zip((planes[0], planes[-1]), names, strict=True):
            area = float(np.count_nonzero(plane)) * plane_mm2
            if area > most:
                raise UnusableScanError(
                    f"the field of view cuts the brain at the {name} ({area / 100:.0f} cm2 of brain in the outermost"
                    " slice); repeat the scan with the whole head in the field, or send the full series"
                )


def coverage(head: Volume, alignment: Alignment, template: Template) -> float:
    """Return which part, 0..1, of the aligned template's brain lies inside the field of view of ``head``."""
    index = np.argwhere(template.mask[::2, ::2, ::2] > 0.5) * 2
    to_index = np.linalg.inv(head.affine) @ alignment.matrix @ template.affine
    where = index @ to_index[:3, :3].T + to_index[:3, 3]
    inside = ((where >= -0.5) & (where <= np.array(head.data.shape) - 0.5)).all(1)
    return float(inside.mean())


def check_alignment(alignment: Alignment, covered: float) -> None:
    """Refuse a brain that does not look like the template's, or of which a part lies outside the field.

    Raises:
        UnusableScanError: with the score and its gate.
    """
    if alignment.score < LEAST_SCORE:
        raise UnusableScanError(
            f"the brain does not match the template: correlation {alignment.score:.2f}, at least {LEAST_SCORE:g} is"
            " needed; check that this is a T1-weighted scan of a whole brain, its orientation, and motion or metal"
            " artefacts"
        )
    if covered < LEAST_COVERAGE:
        raise UnusableScanError(
            f"the field of view holds only {covered:.0%} of the brain; repeat the scan with the whole head in the field"
        )


def check_contrast(mixture: Mixture) -> None:
    """Refuse a brain without T1 contrast: fluid darker than grey matter, grey darker than white.

    Raises:
        UnusableScanError: with the three brightnesses.
    """
    fluid, grey, white = (float(mixture.means[k] / mixture.means[WHITE]) for k in (CSF, GREY, WHITE))
    if fluid < grey < 0.98 * white:
        return
    raise UnusableScanError(
        f"the contrast is not that of a T1-weighted scan: relative to white matter, fluid has {fluid:.2f} and grey"
        f" matter {grey:.2f}; expected fluid < grey < 1; send the T1 series of the study"
    )
