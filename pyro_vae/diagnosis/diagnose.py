"""Where the nats go."""

import math

import torch
from torch import Tensor

from pyro_vae.annealing import InformationBounds
from pyro_vae.batch import Batch, Given
from pyro_vae.diagnosis.local import LocalOptimum, optimise_locally
from pyro_vae.diagnosis.means import Mean, mean_of
from pyro_vae.diagnosis.prior import prior_gap
from pyro_vae.diagnosis.rate import Information, mutual_information
from pyro_vae.diagnosis.results import Diagnosis, Evidence
from pyro_vae.diagnosis.units import Units, latent_units
from pyro_vae.diagnosis.verdict import (
    Loss,
    beside_x,
    collapse_in_words,
    generalisation,
    largest_loss,
    notes,
)
from pyro_vae.errors import InputError
from pyro_vae.importance import elbo, log_evidence
from pyro_vae.programs import Program, one_at_a_time

#: Training data used at the most, spread evenly over those given.
MOST_TRAIN = 2000


@one_at_a_time
def diagnose(
    model: Program,
    guide: Program,
    x: Tensor | Batch,
    *,
    given: Given | None = None,
    train: Tensor | Batch | None = None,
    evidence: Evidence | None = None,
    bounds: InformationBounds | None = None,
    num_steps: int = 500,
    num_particles: int = 1000,
    data_plate: str | None = None,
    progress: bool | None = None,
) -> Diagnosis:
    """Account for every nat between the data and log p(x), and say which part of the model to swap.

    log p(x) = −distortion − I(x; z) − KL(q(z) ‖ p(z)) + amortisation gap + approximation gap, mean over the
    data. The encoder is charged with the amortisation gap (`optimise_locally`), the posterior's family with
    the approximation gap, and the prior with the `prior_gap`, what a prior fitted to other data's codes
    saves: KL(q(z) ‖ p(z)) itself holds, besides, what no prior could save. Hoffman & Johnson (2016); Cremer,
    Li & Duvenaud (2018); Burda, Grosse & Salakhutdinov (2016) for active units.

    Args:
        model: Pyro program of p(x, z), called as `model(x, **given)` with batches of any size.
        guide: Pyro program of q(z|x), called likewise.
        x: Test data (B, *data_shape), at least 8.
        given: What lies beside x, by the programs' arguments: tensors (B, …), or constants.
        train: Training data, for the train-test gap and for the prior fitted to codes; of more than
            2000, as many evenly spread ones count. A `Batch` where something lies beside them.
        evidence: log p(x) of these very data, any result with `estimate` and `standard_error` (B,); by
            default `log_evidence` with 5 · `num_particles`.
        bounds: The `.information` of a `bidirectional_gap` on data drawn from the model. Where I(x; z) of
            these data is near its limit, the logarithm of their number, and the lower bound lies between it
            and the rate, that bound splits the rate: the model's own data have no such limit. It holds for
            these data as far as they look like those.
        num_steps: Steps of the search for each datum's best q.
        num_particles: Draws per datum of the ELBOs.
        data_plate: Name of the plate of the data; by default "data", or the one of their size.
        progress: Show progress bars; by default in a terminal and in a notebook.

    Raises:
        InputError: as `log_weights`; where there are fewer than 8 data, where a latent site is discrete or
            masked, or where the evidence is of another number of data.

    >>> from pyro_vae import Digits, assemble
    >>> data = Digits()
    >>> vae = assemble(data, latent_dim=2)
    >>> found = diagnose(vae.model, vae.guide, data.test.batch()[:20], num_steps=20, num_particles=50)
    >>> found.units.names
    ('z[0]', 'z[1]')
    """
    data, others = Batch.of(x, given), None if train is None else Batch.of(train, None)
    _check(data, others, evidence)
    others = None if others is None else others[:: math.ceil(len(others) / MOST_TRAIN)]
    information = mutual_information(model, guide, data, data_plate=data_plate)
    units = latent_units(model, guide, data, data_plate=data_plate)
    prior = prior_gap(model, guide, data, train=others, data_plate=data_plate)
    local = optimise_locally(
        model,
        guide,
        data,
        num_steps=num_steps,
        num_particles=num_particles,
        data_plate=data_plate,
        progress=progress,
    )
    if evidence is None:
        evidence = log_evidence(
            model, guide, data, num_particles=5 * num_particles, data_plate=data_plate, progress=progress
        )
    terms = _terms(local, information, evidence, bounds)
    terms["prior_gap"] = mean_of(prior.gap, prior.standard_error)
    difference = None if others is None else _train_test_gap(model, guide, others, local, data_plate)
    approximation = evidence.estimate.to(local.elbo) - local.elbo
    losses = {
        "encoder": Loss(terms["amortisation"], local.gap),
        "posterior": Loss(terms["approximation"], approximation),
        "prior": Loss(terms["prior_gap"], prior.gap),
    }
    largest, sentence = largest_loss(losses)
    collapse = _collapse(units, information)
    # a full collapse comes first, since it explains the rest
    first = [sentence, collapse] if collapse.startswith("Partial") else [collapse, sentence]
    said = [
        *first,
        *notes(evidence, local.whole, terms["approximation"], information, bounds, terms["rate"].mean),
    ]
    verdict = "\n".join(text for text in [*said, *generalisation(difference), *beside_x(data)] if text)
    return Diagnosis(
        **terms,
        train_test_gap=difference,
        local=local,
        information=information,
        prior=prior,
        units=units,
        evidence=evidence,
        collapse=collapse,
        largest=largest,
        verdict=verdict,
        bounds=bounds,
    )


def _check(data: Batch, train: Batch | None, evidence: Evidence | None) -> None:
    for name, each in (("x", data), ("train", train)):
        if each is not None and len(each) < 8:
            raise InputError(f"{name} expects 8 data at least, got shape {tuple(each.x.shape)}")
    if evidence is None:
        return
    for name in ("estimate", "standard_error"):
        shape = getattr(getattr(evidence, name, None), "shape", None)
        if shape != data.x.shape[:1]:
            raise InputError(
                f"evidence expects a result with {name} of shape ({len(data)},), one for each datum of x, "
                f"got {'none' if shape is None else tuple(shape)}: use log_evidence on the same data"
            )


def _terms(
    local: LocalOptimum, information: Information, evidence: Evidence, bounds: InformationBounds | None
) -> dict[str, Mean]:
    """The means over the data, by their fields."""
    amortised, elbo_error = local.amortised, local.errors.amortised
    log_px, log_px_error = evidence.estimate.to(local.elbo), evidence.standard_error.to(local.elbo)
    rate = mean_of(amortised.kl, local.errors.rate)
    return {
        "distortion": mean_of(-amortised.reconstruction, local.errors.distortion),
        "rate": rate,
        **_split(rate, local, information, bounds),
        "elbo": mean_of(amortised.elbo, elbo_error),
        "amortisation": mean_of(local.gap, local.errors.gap),
        "approximation": mean_of(log_px - local.elbo, log_px_error.hypot(local.errors.elbo)),
        "log_evidence": mean_of(log_px, log_px_error),
    }


def _split(
    rate: Mean, local: LocalOptimum, information: Information, bounds: InformationBounds | None
) -> dict[str, Mean]:
    """The rate's two parts, by the mutual information of the data or the lower bound of the model's."""
    if bounds is None or not information.exceeded_by(bounds, rate.mean):
        marginal = local.amortised.kl - information.information
        errors = local.errors.rate.hypot(information.standard_error)
        mutual = mean_of(information.information, information.standard_error)
        return {"mutual_information": mutual, "marginal_kl": mean_of(marginal, errors)}
    error = bounds.standard_errors[0]
    mutual = Mean(bounds.mean_lower, error, error)  # over other data of the model, which are the draws
    rest = [math.hypot(getattr(rate, name), error) for name in ("standard_error", "monte_carlo_error")]
    return {"mutual_information": mutual, "marginal_kl": Mean(rate.mean - mutual.mean, *rest)}


@torch.no_grad()
def _train_test_gap(
    model: Program, guide: Program, train: Batch, local: LocalOptimum, data_plate: str | None
) -> Mean:
    """ELBO of training data − ELBO of the test data, which are independent of each other."""
    seen = elbo(model, guide, train, num_particles=10, data_plate=data_plate).elbo
    test = mean_of(local.amortised.elbo, local.errors.amortised)
    error = math.hypot(float(seen.std()) / math.sqrt(len(seen)), test.standard_error)
    return Mean(float(seen.mean()) - test.mean, error, math.nan)


def _collapse(units: Units, information: Information) -> str:
    """Posterior collapse in words, with what helps against it."""
    words = collapse_in_words(units, information)
    remedy = "Against it: kl_warm_up or FreeBitsELBO"
    partial = words.startswith("Partial")
    return f"{words} {remedy}{', or fewer latent dimensions' if partial else ''}." if words else ""
