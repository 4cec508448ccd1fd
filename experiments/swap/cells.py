"""What is trained: the parts, the budget, and one training with its numbers."""

import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyro
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR
from zuko.flows import NSF

import pyro_vae as pv
from pyro_vae import reports

Record = dict[str, Any]

PRIORS: dict[str, Callable[..., pv.Prior]] = {
    "standard normal": pv.StandardNormalPrior,
    "Laplace": pv.LaplacePrior,
    "Student's t": pv.StudentTPrior,
    "mixture": partial(pv.MixturePrior, components=10),
    "VampPrior": partial(pv.VampPrior, components=10),
    "flow (MAF)": pv.FlowPrior,
    "flow (NSF)": partial(pv.FlowPrior, flow=NSF),
}

POSTERIORS: dict[str, Callable[..., pv.Posterior]] = {
    "diagonal normal": pv.DiagonalNormalPosterior,
    "full normal": pv.FullNormalPosterior,
    "low-rank normal": pv.LowRankNormalPosterior,
    # one transformation, since under the VampPrior each density takes its slow inverse
    "flow (IAF)": partial(pv.FlowPosterior, transforms=1),
    "flow (NSF)": partial(pv.FlowPosterior, flow=NSF, transforms=1),
}

#: The forms of the data, by the names that they have in the results.
FORMS = {"dynamic": pv.Dynamic(), "none": pv.Levels(), "dequantised": pv.Dequantised()}

#: Each with the form of the data that it is a density for.
LIKELIHOODS: dict[str, tuple[Callable[..., pv.Likelihood], str]] = {
    "Bernoulli": (pv.BernoulliLikelihood, "dynamic"),
    "categorical": (pv.CategoricalLikelihood, "none"),
    "discretised logistic": (pv.DiscretizedLogisticLikelihood, "none"),
    "mixture of discretised logistics": (pv.DiscretizedLogisticMixtureLikelihood, "none"),
    "Poisson": (partial(pv.PoissonLikelihood, unit=1 / 16), "none"),
    "negative binomial": (partial(pv.NegativeBinomialLikelihood, unit=1 / 16), "none"),
    "continuous Bernoulli": (pv.ContinuousBernoulliLikelihood, "dequantised"),
    "normal, shared scale": (partial(pv.NormalLikelihood, scale="shared"), "dequantised"),
    "normal, scale per pixel": (partial(pv.NormalLikelihood, scale="per_pixel"), "dequantised"),
    "Laplace, shared scale": (partial(pv.LaplaceLikelihood, scale="shared"), "dequantised"),
    "Laplace, scale per pixel": (partial(pv.LaplaceLikelihood, scale="per_pixel"), "dequantised"),
}

#: What all others are compared with.
PRIOR, POSTERIOR, LIKELIHOOD = "standard normal", "diagonal normal", "Bernoulli"
LEVELS = "discretised logistic"


class Cell(NamedTuple):
    """One training."""

    part: str
    prior: str
    posterior: str
    likelihood: str
    seed: int

    def __str__(self) -> str:
        parts = [name for name in self[1:4] if name not in (PRIOR, POSTERIOR, LIKELIHOOD)]
        return f"{', '.join(parts or ['standard'])}, seed {self.seed}"


class Protocol(NamedTuple):
    """What is the same for all cells of one part."""

    epochs: int
    learning_rate: float
    particles: int = 1000
    latent_dim: int = 4
    hidden_dims: tuple[int, ...] = (200, 100)
    batch_size: int = 100

    @property
    def kl_warm_up(self) -> int:
        """Epochs over which the KL term gets its full weight."""
        return self.epochs // 2


#: Densities of grey levels start slowly: they get more and smaller steps than the grid has time for.
PROTOCOLS = {"grid": Protocol(80, 1e-2), "likelihoods": Protocol(150, 3e-3)}


def cells(seeds: int, *, smoke: bool = False) -> list[Cell]:
    """All trainings, seed by seed; for `smoke` those that use each part once."""
    grid = [
        ("grid", prior, posterior, LIKELIHOOD)
        for prior in PRIORS
        for posterior in POSTERIORS
        if not smoke or prior == PRIOR or posterior == POSTERIOR
    ]
    others = [("likelihoods", PRIOR, POSTERIOR, likelihood) for likelihood in LIKELIHOODS]
    return [Cell(*names, seed) for seed in range(seeds) for names in (*grid, *others)]


def settings(cell: Cell, protocol: Protocol) -> Record:
    """All that a cell's numbers depend on, except for the versions."""
    likelihood, binarization = LIKELIHOODS[cell.likelihood]
    makers = (PRIORS[cell.prior], POSTERIORS[cell.posterior], likelihood)
    chosen = dict(zip(("prior", "posterior", "likelihood"), map(in_words, makers), strict=True))
    budget = {**protocol._asdict(), "hidden_dims": list(protocol.hidden_dims)}
    return {**chosen, "binarization": binarization, **budget, "kl_warm_up": protocol.kl_warm_up}


def in_words(part: Callable[..., object]) -> str:
    """A class, or a `partial` of one, as written in Python."""
    if not isinstance(part, partial):
        return part.__name__
    choices = (f"{name}={getattr(value, '__name__', value)}" for name, value in part.keywords.items())
    return f"{part.func.__name__}({', '.join(choices)})"


def train(cell: Cell, protocol: Protocol) -> Record:
    """Train and evaluate one cell."""
    start = time.process_time()
    likelihood, binarization = LIKELIHOODS[cell.likelihood]
    data = pv.Digits(form=FORMS[binarization])
    pyro.set_rng_seed(cell.seed)
    vae = pv.assemble(
        data,
        latent_dim=protocol.latent_dim,
        network=pv.MLP(protocol.hidden_dims),
        prior=PRIORS[cell.prior],
        likelihood=likelihood,
        posterior=POSTERIORS[cell.posterior],
    )
    history = fit(vae, data, cell.seed, protocol)
    found = reports.evaluation(
        vae,
        data,
        split="test",
        num_data=None,
        seed=cell.seed,
        estimator=reports.Estimator(particles=protocol.particles),
    )
    return {
        "cell": list(cell),
        "settings": settings(cell, protocol),
        **numbers(vae, data, history, found),
        "cpu_seconds": round(time.process_time() - start, 2),
    }


def fit(vae: pv.VAE, data: pv.Dataset, seed: int, protocol: Protocol) -> pv.History:
    def schedule(optimiser: Optimizer) -> CosineAnnealingLR:
        return CosineAnnealingLR(optimiser, T_max=protocol.epochs)

    return pv.fit(
        vae,
        data,
        epochs=protocol.epochs,
        batch_size=protocol.batch_size,
        optimiser=partial(Adam, lr=protocol.learning_rate, fused=True),
        schedule=schedule,
        kl_warm_up=protocol.kl_warm_up,
        compile="off",  # the steps of Pyro itself, by which the results here were made
        seed=seed,
        device="cpu",
        progress=False,
    )


def numbers(vae: pv.VAE, data: pv.Dataset, history: pv.History, found: reports.Evaluation) -> Record:
    """The results of one cell, for JSON."""
    content, per_datum = found.content, found.per_datum
    log_px = content["log_evidence"]
    if not np.isfinite(per_datum["log_evidence"]).all():
        raise ArithmeticError(f"log p(x) is not finite, mean {log_px['estimate']}")
    bits = {"bits_per_dim": log_px["bits_per_dim"]} if "bits_per_dim" in log_px else {}
    kept = {
        **{name: content["elbo"]["test"][name] for name in ("elbo", "kl")},
        "log_evidence": log_px["estimate"],
        **{name: log_px[name] for name in ("standard_error", "monte_carlo_error")},
        **bits,
        "effective_sample_size": float(np.median(per_datum["effective_sample_size"])),
        "training_seconds": sum(history.column("seconds")),
        "evaluation_seconds": content["seconds"],
    }
    return {
        **{name: round(value, 5) for name, value in kept.items()},
        "best_epoch": history.best_epoch,
        "valid_elbo": [round(value, 2) for value in history.column("valid_elbo")[9::10]],
        "parameters": sum(parameter.numel() for parameter in vae.parameters()),
        "bin_width": data.bin_width,
        **{name: content[name] for name in ("units", "protocol", "data_hash", "versions")},
        "machine": f"cpu, {os.cpu_count()} cores",
        "per_datum": [round(value, 2) for value in per_datum["log_evidence"].tolist()],
    }
