"""Strips a tilted head once more as if it had lain straight, for the nets do worse on tilted heads."""

import numpy as np

from fr_twisted.brain.analysis.align import Alignment
from fr_twisted.brain.analysis.skullstrip import brain_mask
from fr_twisted.brain.analysis.volume import Affine, Mask, Volume, transfer

MOST_DEGREES = 9.0
"""A head turned further against the template is stripped again; of six, the mask gained up to .004 of Dice."""


def tilt(alignment: Alignment, head: Volume) -> tuple[Affine, float]:
    """Return the rotation (3, 3) from the head's axes to the template's pose, and its angle, degrees.

    The rotation nearest to the alignment's linear part, by its singular value decomposition, against that nearest to
    the head's own axes: a scan taken obliquely may show the brain straight on its grid.
    """
    turn = _rotation(alignment.matrix) @ _rotation(head.affine).T
    cosine = (float(np.trace(turn)) - 1) / 2
    return turn, float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def _rotation(matrix: Affine) -> Affine:
    left, _, right = np.linalg.svd(matrix[:3, :3])
    return np.asarray(left @ right, np.float64)


def straight_mask(head: Volume, turn: Affine) -> Mask:
    """Return the brain's mask on the grid of ``head``, found on a grid that is turned by ``turn`` about its centre."""
    centre = head.affine[:3, :3] @ ((np.array(head.data.shape) - 1) / 2) + head.affine[:3, 3]
    about = np.eye(4)
    about[:3, :3] = turn
    about[:3, 3] = centre - turn @ centre
    straight = Volume(np.empty(head.data.shape, np.float32), about @ head.affine)
    identity = np.eye(4)
    straight = straight.with_data(transfer(head, straight, identity))
    mask = straight.with_data(brain_mask(straight.data).astype(np.float32))
    return np.asarray((transfer(mask, head, identity) > 0.5) & (head.data > 0))
