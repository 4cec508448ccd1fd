"""The ten posteriors: programs, data and reference values."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from experiments.estimators import programs, vaes
from experiments.estimators.setting import Options, Reference
from pyro_vae.batch import Batch
from pyro_vae.randomness import own_randomness


class Posterior(NamedTuple):
    """A pair of programs, a few data, and what finds their log p(x)."""

    model: Callable[..., Any]
    guide: Callable[..., Any]
    data: Batch
    reference: Callable[[], Reference]


class Made(NamedTuple):
    """How a posterior is made."""

    #: In tables and pictures.
    label: str
    make: Callable[[Options, Path], Posterior]


def _known(draw: Callable[[int], programs.Known], how: str, options: Options, runs: Path) -> Posterior:
    with own_randomness(0, torch.device("cpu")):
        found = draw(options.num_data)
    reference = Reference(found.log_px.tolist(), how, 0.0)
    return Posterior(found.model, found.guide, Batch(found.x), lambda: reference)


def _trained(
    make: Callable[[], Any], refer: Callable[..., Reference], options: Options, runs: Path
) -> Posterior:
    vae, x = vaes.trained(make, runs / make.__name__, options)
    return Posterior(vae.model, vae.guide, Batch(x), partial(refer, vae, x, options))


def _closed(label: str, draw: Callable[[int], programs.Known], how: str = "closed form") -> Made:
    return Made(label, partial(_known, draw, how))


#: By the name of their records.
POSTERIORS = {
    "good": _closed("linear, good guide", programs.good_guide),
    "narrow": _closed("linear, narrow guide", programs.narrow_guide),
    "correlated": _closed("correlated, mean-field guide", programs.mean_field),
    "modes": _closed("two modes, guide at one", programs.two_modes, "quadrature"),
    "funnel": _closed("funnel (a scale per datum)", programs.funnel, "quadrature"),
    "enumerated": _closed("enumerated kind", programs.enumerated, "sum and closed form"),
    "counts": Made("counts, VAE", partial(_trained, vaes.counts, vaes.over_grid)),
    "table": Made("mixed table, VAE", partial(_trained, vaes.table, vaes.over_grid)),
    "digits": Made("digits, VAE", partial(_trained, vaes.digits, vaes.at_length)),
    "layered": Made("digits, two layers and flow", partial(_trained, vaes.layered, vaes.at_length)),
}
