"""The experiments, in the order of the document."""

from tests.accuracy.experiments import asymmetry, changes, generated, lesions, not_brains, quality, real
from tests.accuracy.section import Experiment

EXPERIMENTS: tuple[Experiment, ...] = (
    generated.EXPERIMENT,
    real.EXPERIMENT,
    changes.EXPERIMENT,
    not_brains.EXPERIMENT,
    lesions.EXPERIMENT,
    asymmetry.EXPERIMENT,
    quality.EXPERIMENT,
)
