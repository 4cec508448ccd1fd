"""The posterior of a model by NUTS."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from pyro.infer import MCMC, NUTS
from pyro.ops.stats import effective_sample_size, split_gelman_rubin
from torch import Tensor
from tqdm import tqdm

from pyro_vae.batch import Batch, Given
from pyro_vae.compiled import FlatGraph, Untraceable
from pyro_vae.compiled.policy import agree
from pyro_vae.diagnosis.common import log_joint, prior_of, store_as_found
from pyro_vae.errors import InputError, count, seed_number
from pyro_vae.precision import wide
from pyro_vae.programs import Latents, Program, one_at_a_time
from pyro_vae.progress import progress_bar
from pyro_vae.randomness import own_randomness

#: Energy −log p(x, u) and its gradient, (1,) and (n,), at u (n,) and the tensors of one datum.
Energy = Callable[..., tuple[Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class ExactPosterior:
    """Draws from p(z|x) by NUTS, per datum; S = num_chains · num_samples, chain after chain.

    >>> u = torch.randn(1000, 2, 3)  # 1000 draws for 2 data of 3 latents
    >>> found = ExactPosterior(
    ...     values={"z": u},
    ...     u=u,
    ...     names=("z[0]", "z[1]", "z[2]"),
    ...     num_chains=2,
    ...     r_hat=torch.full((2, 3), 1.01),
    ...     effective_sample_size=torch.full((2, 3), 800.0),
    ...     divergences=torch.tensor([0, 12]),
    ... )
    >>> found.converged
    False
    """

    #: The draws by latent site, (S, B, *shape of the site), with the plates of the model in their places.
    values: dict[str, Tensor]
    #: The same as unconstrained numbers, (S, B, n).
    u: Tensor
    #: Names of the n numbers.
    names: tuple[str, ...]
    #: Chains per datum.
    num_chains: int
    #: Split R̂ (Gelman et al. 2013), near 1 where the chains agree, (B, n).
    r_hat: Tensor
    #: Independent draws that would give the same error of the mean, (B, n).
    effective_sample_size: Tensor
    #: Draws whose trajectory diverged, after warming up, (B,).
    divergences: Tensor

    @property
    def converged(self) -> bool:
        """Whether R̂ is below 1.05 everywhere and no trajectory diverged."""
        return bool((self.r_hat < 1.05).all() and (self.divergences == 0).all())

    def __repr__(self) -> str:
        num, data = self.u.shape[:2]
        diverged = int(self.divergences.sum())
        return (
            f"{num} draws from p(z|x) on each of {data} data by NUTS in {_plural(self.num_chains, 'chain')}: "
            f"largest R-hat {float(self.r_hat.max()):.3f}, smallest effective sample size "
            f"{float(self.effective_sample_size.min()):.0f}, {_plural(diverged, 'divergence')}"
            f"{'' if self.converged else '; not to be trusted: more warm-up or a higher target_acceptance'}"
        )


@one_at_a_time
def exact_posterior(
    model: Program,
    x: Tensor | Batch,
    *,
    given: Given | None = None,
    num_samples: int = 1000,
    warmup: int = 500,
    num_chains: int = 2,
    target_acceptance: float = 0.8,
    seed: int = 0,
    data_plate: str | None = None,
    progress: bool | None = None,
) -> ExactPosterior:
    """Draws from p(z|x), for a few data, by the No-U-Turn sampler of Pyro.

    One datum after the other, in the unconstrained coordinates of the latent sites, with a step size and a
    diagonal mass matrix adapted in the warm-up of each chain. Chains start at draws from the prior, so
    R̂ can see where they do not find each other. Parameters are held; neither their gradients nor Pyro's
    parameter store change. Hoffman & Gelman (2014), "The No-U-Turn sampler".

    Args:
        model: Pyro program of p(x, z), whose latent sites are continuous.
        x: A few data (B, *data_shape).
        given: What lies beside x, by the programs' arguments: tensors (B, …), or constants.
        num_samples: Draws per chain, four or more.
        warmup: Steps of each chain that adapt and are dropped.
        num_chains: Chains per datum, one after the other.
        target_acceptance: Acceptance that the step size is adapted to; nearer 1 where there are divergences.
        seed: Of torch's random numbers, whose global state is given back as it was.
        data_plate: Name of the plate of the data; by default "data", or the one of their size.
        progress: Show a progress bar; by default in a terminal and in a notebook.

    Raises:
        InputError: as `log_weights`; where a latent site is discrete; where no draw of the prior has a
            finite density.

    >>> from pyro_vae import Digits, assemble
    >>> data = Digits()
    >>> vae = assemble(data, latent_dim=2)
    >>> exact = exact_posterior(vae.model, data.test.batch()[:1], num_samples=20, warmup=20)
    >>> exact.values["z"].shape
    torch.Size([40, 1, 2])
    """
    if count("num_samples", num_samples) < 4:
        raise InputError(f"num_samples expects four draws or more, got {num_samples}")
    if not 0 < target_acceptance < 1:
        raise InputError(f"target_acceptance expects a number between 0 and 1, got {target_acceptance}")
    count("warmup", warmup)
    data = Batch.of(x, given)
    steps = len(data) * count("num_chains", num_chains) * (num_samples + warmup)
    with own_randomness(seed_number(seed), data.device), store_as_found():
        guide = prior_of(model)
        latents = Latents(model, guide, data, data_plate=data_plate)
        latents.pair.check(data)
        energy = _energy(latents, data)
        chains, divergences = [], []
        with progress_bar(progress, total=steps, desc="exact posteriors by NUTS", unit="steps") as bar:
            for datum in data.split(1):
                starts = _starts(latents, datum, num_chains)
                runs = [
                    _chain(energy, datum, start, num_samples, warmup, target_acceptance, bar)
                    for start in starts
                ]
                chains.append(torch.stack([draws for draws, _ in runs]))
                divergences.append(sum(number for _, number in runs))
        u = torch.stack(chains, dim=2)  # (chains, samples, B, n)
        with torch.no_grad():
            values = latents.values(data, u.flatten(0, 1))
    return ExactPosterior(
        values,
        u.flatten(0, 1),
        tuple(latents.columns()),
        num_chains,
        split_gelman_rubin(wide(u)),
        effective_sample_size(wide(u)),
        torch.tensor(divergences, device=data.device),
    )


def _chain(
    energy: Energy,
    datum: Batch,
    start: Tensor,
    num_samples: int,
    warmup: int,
    target: float,
    bar: "tqdm[Any]",
) -> tuple[Tensor, int]:
    """Draws (num_samples, n) of one chain, and how many of them diverged."""

    def potential(site: dict[str, Tensor]) -> Tensor:
        u = site["u"]
        return _Energy.apply(u, *energy(u.detach(), *datum.tensors))

    kernel = NUTS(potential_fn=potential, target_accept_prob=target)
    mcmc = MCMC(
        kernel,
        num_samples=num_samples,
        warmup_steps=warmup,
        initial_params={"u": start},
        transforms={},
        hook_fn=lambda *_: bar.update(),
        disable_progbar=True,
        disable_validation=True,
    )
    mcmc.run()
    return mcmc.get_samples()["u"], len(mcmc.diagnostics()["divergences"]["chain 0"])


class _Energy(torch.autograd.Function):
    """An energy whose gradient has been computed along with it."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, u: Tensor, energy: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(slope)
        return energy

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[no-untyped-def]
        return gradient * ctx.saved_tensors[0], None, None


def _energy(latents: Latents, data: Batch) -> Energy:
    """The energy as a flat graph, several times as fast; as it is, where there is no graph that agrees."""

    def energy(u: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            u = u.detach().requires_grad_()
            value = -log_joint(latents, data[:1].with_tensors(tensors), u[None, None]).to(u).sum()
            (slope,) = torch.autograd.grad(value, u)
        return value.detach(), slope

    one, other = (latents.from_prior(data[:1], 1)[0, 0].detach() for _ in range(2))
    try:
        graph: Any = FlatGraph(energy, (one, *data[:1].tensors))
        last = data[len(data) - 1 :].tensors
        found, expected = graph(other, *last), energy(other, *last)
    except Untraceable:
        return energy
    agreed = all(agree(new, old, 0.0) for new, old in zip(found, expected, strict=True))
    return graph if agreed else energy


@torch.no_grad()
def _starts(latents: Latents, datum: Batch, num: int) -> Tensor:
    """Draws of the prior at which x has a finite density: (num, n)."""
    u = latents.from_prior(datum, 20 * num)
    fitting = u[log_joint(latents, datum, u)[:, 0].isfinite(), 0]
    if len(fitting) < num:
        raise InputError(
            f"expected a finite log p(x, z) at {num} of {len(u)} draws from the prior to start from, got "
            f"{len(fitting)}: look for a likelihood of zero"
        )
    return fitting[:num]


def _plural(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'s' * (number != 1)}"
