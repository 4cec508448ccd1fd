"""What is measured: log p of the test cells, by the truth and by a model, in nats for each cell."""

import math
from typing import Any

import torch
from torch import Tensor

import pyro_vae as pv
from experiments.count_table.setting import MODELS, Options, trained
from experiments.count_table.totals import log_p_of_totals
from experiments.count_table.truth import Truth
from pyro_vae.randomness import own_randomness
from pyro_vae.reports import circumstances


def of_truth(truth: Truth, data: pv.Dataset) -> dict[str, Any]:
    """Log p(x), log p(x|e) and log p(x|n) = log p(x) − log P(n), as n is a function of x."""
    x, sizes = data.test.batch().double(), data.test.fields["exposure"].double()
    log_px = truth.log_p(x)
    return {
        "–": _rounded(log_px),
        "e": _rounded(truth.log_p_given_size(x, sizes)),
        "n": _rounded(log_px - truth.log_p_of_totals(x.sum(1))),
        "size": _rounded(sizes),
        "dispersion": _rounded(truth.dispersion),
    }


def of_model(name: str, data: pv.Dataset, options: Options, seed: int) -> dict[str, Any]:
    """Train one, and estimate by importance sampling."""
    vae = trained(name, data, options, seed)
    test = (data.giving("exposure") if MODELS[name].exposure else data).test.take()
    with own_randomness(0, vae.device):
        result = pv.log_evidence(vae.model, vae.guide, test, num_particles=options.particles)
        found = {
            "log_p": _rounded(result.estimate),
            **_given_totals(name, vae, test.x, options, result.estimate),
        }
    found |= {"monte_carlo_error": round(result.mean_monte_carlo_error, 4)}
    found |= {"above": int((~(result.pareto_k <= 0.7)).sum()), "made": circumstances(vae)}
    dispersion = _dispersion(vae)
    return found if dispersion is None else {**found, "dispersion": _rounded(dispersion)}


@torch.no_grad()
def _given_totals(name: str, vae: pv.VAE, x: Tensor, options: Options, log_px: Tensor) -> dict[str, Any]:
    """Log p(x|n) of a model of the counts, which has a law of n: P(n) = E P(n|z), z ~ p(z)."""
    if MODELS[name].exposure or name == "multinomial":
        return {}
    z = vae.prior().sample((options.draws,))
    weights = torch.full((options.draws,), -math.log(options.draws))
    log_pn = log_p_of_totals(x.sum(1), vae.decode(z).double(), _dispersion(vae), weights)
    return {"log_p_given_total": _rounded(log_px - log_pn)}


@torch.no_grad()
def _dispersion(vae: pv.VAE) -> Tensor | None:
    """θ of a negative binomial likelihood: (D,)."""
    if not isinstance(vae.likelihood, pv.NegativeBinomialLikelihood):
        return None
    exposure = {"exposure": torch.ones(1)} if vae.likelihood.conditions else {}
    law = vae.likelihood(vae.prior().sample((1,)), **exposure)
    mean, variance = law.mean[0].double(), law.variance[0].double()
    return mean.square() / (variance - mean)


def _rounded(values: Tensor) -> list[float]:
    return [round(each, 3) for each in values.double().tolist()]
