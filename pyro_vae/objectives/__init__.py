"""What is maximised: bounds on log p(x) as Pyro ELBOs, and the weight of their KL term.

Pyro's own `Trace_ELBO` and `TraceMeanField_ELBO` serve as they are; the bounds here are ELBOs of the same
kind, for `pyro.infer.SVI` with any model and guide that have a plate "data".
"""

from pyro_vae.objectives.bound import PLUMBING, UNUSABLE, Bound, make_objective, objective_in_words
from pyro_vae.objectives.elbo import ELBORecorder, KLWeight, check_mean_field
from pyro_vae.objectives.free_bits import FreeBitsELBO
from pyro_vae.objectives.importance_weighted import ImportanceWeightedELBO
from pyro_vae.objectives.penalised import PenalisedELBO, penalised, recorder_of

__all__ = [
    "PLUMBING",
    "UNUSABLE",
    "Bound",
    "ELBORecorder",
    "FreeBitsELBO",
    "ImportanceWeightedELBO",
    "KLWeight",
    "PenalisedELBO",
    "check_mean_field",
    "make_objective",
    "objective_in_words",
    "penalised",
    "recorder_of",
]
