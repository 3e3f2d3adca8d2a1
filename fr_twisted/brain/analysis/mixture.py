"""The intensities of a brain as components: fluid, cortical grey, white and deep grey matter, and voxels of two of
them.

Deep grey matter (thalamus, basal ganglia) is a tissue of its own here since it is brighter than cortex: half way to
white matter, it would be split between the two.

A voxel drawn from two neighbours of the tissue map (probabilities p) is pure in tissue a with p_a^2 and holds a and
b with 2 p_a p_b. A pure tissue is a Gaussian. In a mixed voxel the share of b is uniform over 0..1, so that its
intensity has mean (m_a + m_b) / 2 and variance (v_a + v_b) / 2 + (m_b - m_a)^2 / 12, and is taken as a Gaussian too
(after D.H. Laidlaw et al., IEEE TMI 17, 1998, and D.W. Shattuck et al., NeuroImage 13, 2001). The bias field is
fitted along with it, as in K. Van Leemput et al., IEEE TMI 18, 1999, and J. Ashburner and K. Friston, NeuroImage
26, 2005.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fr_twisted.brain.analysis.bias import BiasField

CSF, GREY, WHITE, DEEP = 0, 1, 2, 3

PURE = 4

PAIRS = ((CSF, GREY), (GREY, WHITE), (CSF, WHITE), (DEEP, WHITE), (CSF, DEEP))
"""The mixed components, from `PURE` on."""

MOST_ROUNDS = 40
LEAST_DEVIATION = 0.02
"""Of a tissue, in units of the white mean: keeps the components apart on scans without noise."""

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Mixture:
    """The pure tissues: ``means`` and ``variances`` (4,) of fluid, grey, white and deep grey matter."""

    means: Vector
    variances: Vector

    def components(self) -> tuple[Vector, Vector]:
        """Return means and variances of all components (9,)."""
        m, v = self.means, self.variances
        mixed_means = [(m[a] + m[b]) / 2 for a, b in PAIRS]
        mixed_variances = [(v[a] + v[b]) / 2 + (m[b] - m[a]) ** 2 / 12 for a, b in PAIRS]
        return np.r_[m, mixed_means], np.r_[v, mixed_variances]


def component_priors(priors: Vector) -> Vector:
    """Return the prior of each component (9, n) of voxels whose tissue map says ``priors`` (4, n)."""
    return np.concatenate([priors**2, np.stack([2 * priors[a] * priors[b] for a, b in PAIRS])])


def fit(logs: Vector, priors: Vector, field: BiasField) -> Mixture:
    """Return the mixture that explains a sample of voxels, by expectation-maximisation; fits ``field`` as well.

    Args:
        logs: natural logarithm of intensity (n,).
        priors: probability of fluid, grey, white, deep grey (4, n).
        field: the bias over the points of the sample.
    """
    prior = component_priors(priors)
    mixture = _moments(np.exp(logs), priors**2)
    for count in range(MOST_ROUNDS):
        values = np.exp(logs - field.at_points())
        share = prior * _densities(values, mixture)
        share /= share.sum(0) + 1e-30
        before, mixture = mixture, _moments(values, share[:PURE])
        if count >= 3:
            field.fit(*_bias_target(logs, share, mixture))
        moved = np.abs(mixture.means - before.means).max() / mixture.means[WHITE]
        if count > 8 and moved < 2e-4:
            break
    return mixture


def _densities(values: Vector, mixture: Mixture) -> Vector:
    """Return the density of each component (9, n), but for a common factor."""
    means, variances = (column[:, None] for column in mixture.components())
    return np.asarray(np.exp(-0.5 * (values - means) ** 2 / variances) / np.sqrt(variances))


def _moments(values: Vector, share: Vector) -> Mixture:
    """Return the Gaussians of ``values`` (n,) of which each tissue has a ``share`` (4, n)."""
    total = share.sum(1) + 1e-9
    means = (share * values).sum(1) / total
    variances = (share * (values - means[:, None]) ** 2).sum(1) / total
    return Mixture(means, np.maximum(variances, (LEAST_DEVIATION * means[WHITE]) ** 2))


def _bias_target(logs: Vector, share: Vector, mixture: Mixture) -> tuple[Vector, Vector]:
    """Return what the brain's tissue leaves unexplained of each log intensity, and the precision of that (n,), (n,).

    The deviation of a logarithm is that of the value over its mean: hence mean^2 / variance. Components with fluid
    are left out, for fluid is too dark for its logarithm to be trusted.
    """
    tissue = [GREY, WHITE, DEEP, PURE + PAIRS.index((GREY, WHITE)), PURE + PAIRS.index((DEEP, WHITE))]
    means, variances = (column[tissue, None] for column in mixture.components())
    precision = means**2 / variances * share[tissue]
    weight = precision.sum(0)
    expected = (precision * np.log(means)).sum(0) / (weight + 1e-9)
    return logs - expected, weight
