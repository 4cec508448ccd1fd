"""ELBO and log p(x) of a model, measured."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyro_vae import markup
from pyro_vae.batch import Batch
from pyro_vae.data import Dataset, Split
from pyro_vae.importance import ELBOEstimate, elbo
from pyro_vae.randomness import own_randomness
from pyro_vae.reports.classifying import classification
from pyro_vae.reports.estimators import Estimator, Result, arrays, tails, usual_method
from pyro_vae.reports.facts import bits, circumstances, is_mass, missing, part_of, units
from pyro_vae.reports.reconstruction import errors
from pyro_vae.reports.tables import fact_rows, table, table_rows
from pyro_vae.training import History
from pyro_vae.vae import JointProgram

#: Draws per datum for a reported ELBO.
ELBO_PARTICLES = 10


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """What `evaluation` found; printed, the table of a command.

    >>> from pyro_vae import Digits, assemble, evaluate
    >>> data = Digits()
    >>> found = evaluate(assemble(data), data, num_data=20, particles=50)
    >>> found.content["units"], found.content["protocol"].partition(",")[0]
    ('nats per datum', 'dynamic binarisation')
    >>> found.per_datum["elbo"].shape, found.evidence.estimate.shape
    ((20,), torch.Size([20]))
    """

    #: Means and circumstances, for JSON.
    content: dict[str, Any]
    #: elbo, log_evidence, standard_error, effective_sample_size and largest_share, with draws pareto_k and
    #: num_particles, by annealing acceptance, by auto annealed, (B,) float64 each, in the order of the data;
    #: with the data_hash, method, particles, seed and split that say to which result they belong.
    per_datum: dict[str, Any]
    #: Log p(x) as it was estimated; None where the program has none.
    evidence: Result | None

    def __repr__(self) -> str:
        return table(self.content)

    def _repr_html_(self) -> str:
        """The split of the ELBO as a table, and all else below it."""
        rows = {name: " ".join(text.split()) for name, text in fact_rows(self.content).items()}
        if self.evidence is None:
            return markup.listed(rows)
        return markup.table(table_rows(self.content), "ELBO = reconstruction − KL", rows)


def evaluation(
    vae: JointProgram,
    data: Dataset,
    *,
    split: str,
    num_data: int | None,
    seed: int,
    estimator: Estimator | None = None,
    certificate: Mapping[str, Any] | None = None,
    checkpoint: Path | None = None,
    progress: bool | None = None,
) -> Evaluation:
    """ELBO and log p(x) of the same data of one split, with all that says what was measured.

    Args:
        vae: The model.
        data: Its data.
        split: The part to evaluate on.
        num_data: How many of it, by a fixed choice; None for all.
        seed: Of all random numbers.
        estimator: How log p(x) is estimated; by default by 1000 draws per datum from local proposals, or from
            the guide where none can be fitted.
        certificate: What `Estimator.certificate` gave, to be reported beside the estimate, with the seconds
            that it took, which count as those of the evaluation.
        checkpoint: A file from which the same call goes on where it was interrupted.
        progress: Show a progress bar; by default in a terminal and in a notebook.
    """
    part = part_of(data, split, num_data)
    vae.check_evaluated(part.given)
    start = time.perf_counter()
    result, per_datum = None, {}
    with own_randomness(seed, vae.device):
        x = vae.place(part.take())
        terms = _terms(vae, x)
        if vae.no_evidence:
            measured = errors(vae.no_evidence)
        else:
            estimator = estimator or Estimator(usual_method(vae, x, Estimator().particles))
            result = estimator(vae, x, checkpoint=checkpoint, progress=progress)
            measured = _measured(vae, data, part, x, estimator, result, certificate)
            per_datum = arrays(result)
            per_datum |= {name: measured["log_evidence"][name] for name in ("method", "particles")}
            measured |= classification(vae, part, particles=estimator.particles, seed=seed)
    content = {
        "data": data.name,
        "split": split,
        "elbo": {split: bounds(terms)},
        **measured,
        **({"given": list(part.given)} if part.given else {}),
        "protocol": data.protocol,
        "data_hash": part.hash(),
        **missing(data, part),
        "seed": seed,
        "seconds": time.perf_counter() - start + (certificate or {}).get("seconds", 0.0),
        **circumstances(vae),
    }
    labels = {name: content[name] for name in ("data_hash", "seed", "split")}
    return Evaluation(content, {"elbo": terms.elbo.cpu().double().numpy(), **per_datum, **labels}, result)


def _measured(
    vae: JointProgram,
    data: Dataset,
    part: Split,
    x: Batch,
    estimator: Estimator,
    result: Result,
    certificate: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Log p(x) and its units."""
    mass = is_mass(vae, x)
    found = {**estimator.evidence(result), **bits(data, mass, result.mean, part)}
    if certificate is not None:
        found["certificate"] = {name: each for name, each in certificate.items() if name != "seconds"}
    return {"log_evidence": found, "pareto_k": tails(result), "units": units(data, mass, vae)}


def _terms(vae: JointProgram, x: Batch) -> ELBOEstimate:
    return elbo(vae.model, vae.guide, x, num_particles=ELBO_PARTICLES)


def bounds(terms: ELBOEstimate) -> dict[str, float | int]:
    """Mean ELBO, reconstruction and KL, in nats per datum."""
    means = {name: float(part.mean()) for name, part in vars(terms).items()}
    return {**means, "num_data": len(terms.elbo)}


def summary(
    vae: JointProgram, data: Dataset, history: History, evaluated: Mapping[str, Any]
) -> dict[str, Any]:
    """All final numbers of a training: the content of `evaluation`, and the ELBO of the other splits."""
    others = [name for name in ("train", "valid") if len(getattr(data, name)) and name != evaluated["split"]]
    with own_randomness(evaluated["seed"], vae.device):
        elbos = {name: bounds(_terms(vae, vae.place(part_of(data, name, None).take()))) for name in others}
    return {
        **evaluated,
        "elbo": {**elbos, **evaluated["elbo"]},
        "training": {
            "epochs": len(history.epochs),
            "steps": history.epochs[-1].step,
            "best_epoch": history.best_epoch,
            "ended_by": history.ended_by,
            "seconds": sum(history.column("seconds")),
            "parameters": sum(parameter.numel() for parameter in vae.parameters()),
        },
    }
