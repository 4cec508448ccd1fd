"""Where the nats go."""

import math

import torch
from torch import Tensor

from pyro_vae.diagnosis.estimates import Estimate, estimate
from pyro_vae.diagnosis.local import LocalOptimum, optimise_locally
from pyro_vae.diagnosis.prior import prior_gap
from pyro_vae.diagnosis.rate import Information, mutual_information
from pyro_vae.diagnosis.results import Diagnosis, Evidence
from pyro_vae.diagnosis.units import Units, latent_units
from pyro_vae.diagnosis.verdict import Loss, collapse_in_words, generalisation, largest_loss, notes
from pyro_vae.errors import InputError
from pyro_vae.importance import elbo, log_evidence
from pyro_vae.programs import Program

#: Training data used at the most, spread evenly over those given.
MOST_TRAIN = 2000


def diagnose(
    model: Program,
    guide: Program,
    x: Tensor,
    *,
    train: Tensor | None = None,
    evidence: Evidence | None = None,
    num_steps: int = 500,
    num_particles: int = 1000,
    progress: bool = False,
) -> Diagnosis:
    """Account for every nat between the data and log p(x), and say which part of the model to swap.

    log p(x) = −distortion − I(x; z) − KL(q(z) ‖ p(z)) + amortisation gap + approximation gap, mean over the
    data. The encoder is charged with the amortisation gap (`optimise_locally`), the posterior's family with
    the approximation gap, and the prior with the `prior_gap`, what a prior fitted to other data's codes
    saves: KL(q(z) ‖ p(z)) itself holds, besides, what no prior could save. Hoffman & Johnson (2016); Cremer,
    Li & Duvenaud (2018); Burda, Grosse & Salakhutdinov (2016) for active units.

    Args:
        model: Pyro program of p(x, z), called with batches of x of any size.
        guide: Pyro program of q(z|x), called likewise.
        x: Test data (B, *data_shape), at least 8.
        train: Training data, for the train-test gap and for the prior fitted to codes; of more than
            2000, as many evenly spread ones count.
        evidence: log p(x) of these very data, any result with `estimate` and `standard_error` (B,); by
            default `log_evidence` with 5 · `num_particles`.
        num_steps: Steps of the search for each datum's best q.
        num_particles: Draws per datum of the ELBOs.
        progress: Show progress bars.

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
    _check(x, train, evidence)
    train = None if train is None else train[:: math.ceil(len(train) / MOST_TRAIN)]
    information = mutual_information(model, guide, x)
    units = latent_units(model, guide, x)
    prior = prior_gap(model, guide, x, train=train)
    local = optimise_locally(
        model, guide, x, num_steps=num_steps, num_particles=num_particles, progress=progress
    )
    if evidence is None:
        evidence = log_evidence(model, guide, x, num_particles=5 * num_particles, progress=progress)
    terms = _terms(local, information, evidence)
    terms["prior_gap"] = estimate(prior.gap, prior.standard_error)
    difference = None if train is None else _train_test_gap(model, guide, train, local)
    approximation = evidence.estimate.to(local.elbo) - local.elbo
    losses = {
        "encoder": Loss(terms["amortisation"], local.gap),
        "posterior": Loss(terms["approximation"], approximation),
        "prior": Loss(terms["prior_gap"], prior.gap),
    }
    largest, sentence = largest_loss(losses)
    collapse = _collapse(units, information)
    said = [collapse, sentence, *notes(evidence, local.whole, terms["approximation"], information)]
    verdict = "\n".join(text for text in [*said, *generalisation(difference)] if text)
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
    )


def _check(x: Tensor, train: Tensor | None, evidence: Evidence | None) -> None:
    for name, data in (("x", x), ("train", train)):
        if data is not None and (data.ndim == 0 or len(data) < 8):
            raise InputError(f"{name} expects 8 data at least, got shape {tuple(data.shape)}")
    if evidence is None:
        return
    for name in ("estimate", "standard_error"):
        shape = getattr(getattr(evidence, name, None), "shape", None)
        if shape != x.shape[:1]:
            raise InputError(
                f"evidence expects a result with {name} of shape ({len(x)},), one for each datum of x, got "
                f"{'none' if shape is None else tuple(shape)}: use log_evidence on the same data"
            )


def _terms(local: LocalOptimum, information: Information, evidence: Evidence) -> dict[str, Estimate]:
    """The means over the data, by their fields."""
    amortised, elbo_error = local.amortised, local.errors.amortised
    log_px, log_px_error = evidence.estimate.to(local.elbo), evidence.standard_error.to(local.elbo)
    marginal = amortised.kl - information.information
    return {
        "distortion": estimate(-amortised.reconstruction, local.errors.distortion),
        "rate": estimate(amortised.kl, local.errors.rate),
        "mutual_information": estimate(information.information, information.standard_error),
        "marginal_kl": estimate(marginal, local.errors.rate.hypot(information.standard_error)),
        "elbo": estimate(amortised.elbo, elbo_error),
        "amortisation": estimate(local.gap, local.errors.gap),
        "approximation": estimate(log_px - local.elbo, log_px_error.hypot(local.errors.elbo)),
        "log_evidence": estimate(log_px, log_px_error),
    }


@torch.no_grad()
def _train_test_gap(model: Program, guide: Program, train: Tensor, local: LocalOptimum) -> Estimate:
    """ELBO of training data − ELBO of the test data, which are independent of each other."""
    seen = elbo(model, guide, train, num_particles=10).elbo
    test = estimate(local.amortised.elbo, local.errors.amortised)
    error = math.hypot(float(seen.std()) / math.sqrt(len(seen)), test.standard_error)
    return Estimate(float(seen.mean()) - test.mean, error, math.nan)


def _collapse(units: Units, information: Information) -> str:
    """Posterior collapse in words, with what helps against it."""
    words = collapse_in_words(units, information)
    remedy = "Against it: kl_warm_up or FreeBitsELBO"
    partial = words.startswith("Partial")
    return f"{words} {remedy}{', or fewer latent dimensions' if partial else ''}." if words else ""
