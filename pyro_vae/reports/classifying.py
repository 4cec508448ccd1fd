"""How well a model knows the labels of data."""

from collections.abc import Mapping
from typing import Any

import torch

from pyro_vae.classification import label_posterior, reliability
from pyro_vae.data import Split
from pyro_vae.randomness import own_randomness
from pyro_vae.vae import JointProgram, SemiSupervisedVAE

#: Importance samples of each class, at the least where so many are asked for.
_FEWEST = 10


def classification(vae: JointProgram, part: Split, *, particles: int, seed: int) -> dict[str, Any]:
    """Accuracy and calibration of q(y|x) and of p(y|x); nothing where the model or the data have no labels.

    Args:
        vae: The model.
        part: The data, of which those count whose label is known.
        particles: Importance samples per datum, shared by the classes.
        seed: Of the draws.
    """
    labels = part.labels
    if not isinstance(vae, SemiSupervisedVAE) or labels is None:
        return {}
    known = (labels >= 0).nonzero()[:, 0]
    if not len(known) or int(labels.max()) >= vae.num_classes:
        return {}
    each = max(particles // vae.num_classes, min(particles, _FEWEST))
    with own_randomness(seed, vae.device):
        batch, y = vae.place(part.take(known)), labels[known].to(vae.device)
        by_classifier = torch.cat([vae.classify(x) for x in batch.x.split(1000)])
        found = label_posterior(vae.model, vae.guide, batch, vae.num_classes, num_particles=each)
    by_model = reliability(found.probabilities, y)
    scores = {"classifier": reliability(by_classifier, y).content(), "posterior": by_model.content()}
    return {"classification": {**scores, "num_data": len(y), "particles": each}}


def classification_rows(content: Mapping[str, Any]) -> dict[str, str]:
    """Rows of a table, where there is something to say."""
    if "classification" not in content:
        return {}
    found = content["classification"]
    q, p = found["classifier"], found["posterior"]
    draws = f"p(y|x) by {found['particles']} importance samples per class"
    return {
        "accuracy": f"{_of(q, 'accuracy')} ± {q['standard_error']:.4f} by q(y|x), {_of(p, 'accuracy')} by "
        f"p(y|x) on {found['num_data']} data, {draws}",
        "calibration": f"expected calibration error {_of(q, 'expected_calibration_error')} and "
        f"{_of(p, 'expected_calibration_error')}, −log probability of the label "
        f"{_of(q, 'negative_log_likelihood')} and {_of(p, 'negative_log_likelihood')} nats",
    }


def _of(scores: Mapping[str, Any], name: str) -> str:
    return f"{scores[name]:.4f}"
