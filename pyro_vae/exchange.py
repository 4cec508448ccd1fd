"""Posterior draws and what is known of them, for other tools: ArviZ."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyro_vae.batch import Batch, Given, is_per_datum
from pyro_vae.errors import InputError, count, draws
from pyro_vae.importance.summary import summary_of_weights
from pyro_vae.precision import wide
from pyro_vae.programs import Drawn, Pair, Program, one_at_a_time, rows_of, sites

if TYPE_CHECKING:
    from xarray import DataTree


@one_at_a_time
@torch.no_grad()
def to_datatree(
    model: Program,
    guide: Program,
    x: Tensor | Batch,
    *,
    given: Given | None = None,
    num_particles: int = 1000,
    num_draws: int = 200,
    data_plate: str | None = None,
) -> "DataTree":
    """Draws from p(z|x) of each datum, with their likelihoods and predictions, as ArviZ has them.

    Of K draws z_k ~ q(z|x) with weights w_k = p(x, z_k)/q(z_k|x), M are drawn anew in proportion to w_k
    (Rubin 1988, sampling importance resampling): draws from p(z|x) as far as k̂ says. The groups are
    `posterior`, `log_likelihood` (log p(x|z), in nats, of each draw and datum), `posterior_predictive` (x
    ~ p(x|z); of several sites, each flattened), `observed_data`, `constant_data` (what was given) and
    `evidence_data` (log p(x), effective sample size and k̂ of each datum). Axes are chain (one), draw,
    datum, and those of the variable. Needs the extra `arviz`.

    Args:
        model: Pyro program of p(x, z), called as `model(x, **given)` with batches of any size.
        guide: Pyro program of q(z|x), called as the model.
        x: Data (B, *data_shape).
        given: What lies beside x, by the programs' arguments: tensors (B, …), or constants.
        num_particles: K, draws from the guide per datum.
        num_draws: M, draws that are kept.
        data_plate: Name of the plate of the data; by default "data", or the one of their size.

    Raises:
        InputError: as `log_weights`; where a latent is summed out, a weight is not finite, or arviz-base is
            not installed.

    >>> from pyro_vae import Digits, assemble
    >>> vae, x = assemble(Digits()), Digits().test.batch()[:3]
    >>> tree = to_datatree(vae.model, vae.guide, x, num_particles=50, num_draws=20)
    >>> tree["posterior"]["z"].dims, tree["posterior_predictive"]["x"].shape
    (('chain', 'draw', 'datum', 'z_dim_0'), (1, 20, 3, 1, 8, 8))
    """
    from_dict = _arviz()
    draws("num_particles", num_particles)
    count("num_draws", num_draws)
    data = Batch.of(x, given)
    pair = Pair(model, guide, data, density=True, data_plate=data_plate)
    if pair.summed:
        raise InputError(
            f"expected latents that the guide draws, got {', '.join(sorted(pair.summed))} summed out: leave "
            "out the mark for enumeration, and draw it in the guide"
        )
    size = max(1, pair.whole, pair.rows // num_particles)
    parts = [_drawn(pair, batch, num_particles, num_draws) for batch in data.split(size)]
    groups = {
        group: {name: _joined(parts, group, name) for name in found} for group, found in parts[0].items()
    }
    beside = {name: value for name, value in data.given.items() if is_per_datum(value)}
    whole = groups["posterior_predictive"].keys() == {"x"}  # else sites have a part of x each
    groups["observed_data"] = {"x" if whole else "data": data.x}
    groups |= {"constant_data": beside} if beside else {}
    plain = {group: {name: _numpy(value) for name, value in of.items()} for group, of in groups.items()}
    return from_dict(plain, dims=_dims(plain), check_conventions=False)


def _arviz() -> Any:
    try:
        from arviz_base import from_dict
    except ImportError as error:
        raise InputError(
            'expected arviz-base, which is not installed: pip install -e ".[arviz]", or pip install '
            "arviz-base"
        ) from error
    return from_dict


def _drawn(pair: Pair, batch: Batch, num_particles: int, num_draws: int) -> Mapping[str, dict[str, Tensor]]:
    """By group and name, of a few data: (M, B, …) of draws, (B,) of the evidence."""
    drawn = pair.draw(batch, num_particles, validate=True)
    log_w = pair.log_weights_of(drawn)
    evidence = dict(summary_of_weights(log_w, torch.finfo(log_w.dtype).eps))
    chosen = wide(log_w).softmax(0).T.multinomial(num_draws, replacement=True).T.to(batch.device)  # (M, B)
    data = torch.arange(len(batch), device=batch.device)
    names = sites(drawn.model, observed=True)
    latents = {name: drawn.guide.nodes[name]["value"] for name in sites(drawn.guide, observed=False)}
    log_px = pair.total(drawn.model, drawn.model_layout, names)
    predicted = {name: rows_of(pair, drawn, name, drawn.model.nodes[name]["fn"].sample()) for name in names}
    if len(names) == 1 and predicted[names[0]][0].numel() == batch.x.numel():
        predicted = {"x": predicted[names[0]].reshape(-1, *batch.x.shape)}
    return {
        "posterior": {name: _kept(pair, drawn, name, value)[chosen, data] for name, value in latents.items()},
        "log_likelihood": {"x": log_px[chosen, data]},
        "posterior_predictive": {name: value[chosen, data] for name, value in predicted.items()},
        "evidence_data": evidence,
    }


def _kept(pair: Pair, drawn: Drawn, name: str, value: Tensor) -> Tensor:
    """A latent's value, with draws and data first: (K, B, …)."""
    return drawn.guide_layout.leading(value, pair.place(drawn.guide, name))


def _joined(parts: list[Mapping[str, dict[str, Tensor]]], group: str, name: str) -> Tensor:
    """Of all data, with an axis for the one chain where there are draws."""
    found = [part[group][name] for part in parts]
    return torch.cat(found) if group == "evidence_data" else torch.cat(found, 1)[None]


def _numpy(value: Any) -> Any:
    return value.detach().cpu().numpy()


def _dims(groups: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """The names of the axes of each variable, after those of the draws."""
    found: dict[str, list[str]] = {}
    for group, of in groups.items():
        leading = 1 if "data" in group else 3
        for name, value in of.items():
            found[name] = ["datum", *(f"{name}_dim_{axis}" for axis in range(value.ndim - leading))]
    return found
