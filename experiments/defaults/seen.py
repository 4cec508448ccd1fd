"""What q(z|x) should see of grey levels x: themselves, 2x − 1, or 2(x − m), with m the mean of each pixel."""

import os
from collections.abc import Mapping
from statistics import mean
from typing import Any

import torch

import pyro_vae as pv
from experiments.markdown import markdown, spread

#: What is subtracted, and what divides; None for what `assemble` chooses.
WAYS: dict[str, tuple[float, float] | None] = {"x": (0.0, 1.0), "2x − 1": (0.5, 0.5), "2(x − m)": None}
#: Passes over the training data.
EPOCHS = {"Digits": 100, "FreyFaces": 60, "MNIST": 5}
SEEDS = 3


def names(smoke: bool) -> tuple[str, ...]:
    """The data sets that can be had here."""
    return tuple(EPOCHS) if "PYRO_VAE_DATA" in os.environ and not smoke else ("Digits",)


def measure(name: str, *, smoke: bool) -> dict[str, Any]:
    """ELBO and KL of up to 2000 test data, by way and seed."""
    found: dict[str, Any] = {way: {"elbo": [], "kl": []} for way in WAYS}
    data = getattr(pv, name)(form=pv.Levels())
    for way, scaling in WAYS.items():
        for seed in range(1 if smoke else SEEDS):
            torch.manual_seed(seed)
            vae = pv.assemble(data, likelihood=pv.DiscretizedLogisticLikelihood)
            if scaling is not None:
                vae.posterior.loc.fill_(scaling[0])
                vae.posterior.scale.fill_(scaling[1])
            pv.fit(vae, data, epochs=EPOCHS[name], steps=2 if smoke else None, seed=seed)
            terms = pv.elbo(vae.model, vae.guide, data.test.take(slice(0, 20 if smoke else 2000)))
            found[way]["elbo"].append(float(terms.elbo.mean()))
            found[way]["kl"].append(float(terms.kl.mean()))
    return {"ways": found}


def means(record: Mapping[str, Any]) -> dict[str, float]:
    """The mean ELBO of each way."""
    return {way: round(mean(each["elbo"]), 3) for way, each in record["ways"].items()}


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """ELBO by data set and way."""
    rows = [["levels of", "epochs", *WAYS]]
    for name, record in found.items():
        rows.append([name, str(EPOCHS[name]), *(spread(record["ways"][way]["elbo"]) for way in WAYS)])
    return markdown(rows)
