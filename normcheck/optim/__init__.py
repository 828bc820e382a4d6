"""Weight decay as a learning rate: what weight decay does to weights that a norm follows, done without weight decay.

The weights before a norm are scale invariant: their length has no effect on the output, only on the size of their
steps, so that their direction moves with the effective step size η/‖w‖². Source of everything here: Hoffer, Banner,
Golan, Soudry, *Norm matters*, NeurIPS 2018 (arXiv 1803.01814): eq. 1-4, by the numbers of the authors' poster, and
norm scheduling. docs/optim.md has the formulas, what each form does with momentum, and what was measured.
"""

from normcheck.optim.correction import CorrectedLearningRate, UnstableCorrectionWarning
from normcheck.optim.directions import channel_norms, directions, displacement_error
from normcheck.optim.invariance import Departure, ScaleInvariance, scale_invariance
from normcheck.optim.recording import NormRecorder, RecordedNorms
from normcheck.optim.scheduling import NormScheduler

__all__ = [
    "CorrectedLearningRate",
    "Departure",
    "NormRecorder",
    "NormScheduler",
    "RecordedNorms",
    "ScaleInvariance",
    "UnstableCorrectionWarning",
    "channel_norms",
    "directions",
    "displacement_error",
    "scale_invariance",
]
