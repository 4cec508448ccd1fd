"""Draws from q(z|x) against draws from p(z|x)."""

from dataclasses import dataclass

import numpy as np
import torch
from pyro.ops.stats import effective_sample_size
from torch import Tensor

from pyro_vae.batch import Batch, Given
from pyro_vae.diagnosis.common import JOINT, holm, quantities, store_as_found, unusable
from pyro_vae.diagnosis.exact import ExactPosterior, exact_posterior
from pyro_vae.errors import InputError, seed_number
from pyro_vae.programs import Latents, Program, one_at_a_time
from pyro_vae.randomness import own_randomness


@dataclass(frozen=True, eq=False)
class Agreement:
    """q(z|x) held against exact draws, per datum and quantity, in float64 on the CPU.

    The Q quantities are the n unconstrained latent coordinates and last "log p(x, z)", their joint log
    density, which sees wrong correlations, too.

    >>> u = torch.randn(500, 1, 1)  # 500 draws for one datum of one latent
    >>> one, good = torch.ones(1, 1), torch.full((1, 1), 400.0)
    >>> exact = ExactPosterior({"z": u}, u, ("z[0]",), 2, one, good, torch.tensor([0]))
    >>> found = Agreement(
    ...     names=("z[0]", "log p(x, z)"),
    ...     difference=torch.tensor([[0.02, 0.05]]),
    ...     difference_error=torch.tensor([[0.06, 0.06]]),
    ...     scale_ratio=torch.tensor([[0.5, 0.95]]),
    ...     scale_ratio_error=torch.tensor([[0.02, 0.05]]),
    ...     distance=torch.tensor([[0.17, 0.04]]),
    ...     p_value=torch.tensor([[1e-6, 0.7]]),
    ...     exact_correlation=torch.ones(1, 1, 1),
    ...     guide_correlation=torch.ones(1, 1, 1),
    ...     exact=exact,
    ...     guide_u=u / 2,
    ... )
    >>> found.agrees, found.verdict(datum=0, quantity=0), found.verdict(datum=0, quantity=1)
    (False, 'too narrow, sd 0.50 ± 0.02 of the exact', 'equal')
    """

    #: Of the quantities, (Q,).
    names: tuple[str, ...]
    #: (E_q f − E_p f) / sd_p f, (B, Q).
    difference: Tensor
    #: Its Monte Carlo standard error, (B, Q).
    difference_error: Tensor
    #: sd_q f / sd_p f, below 1 where q is too narrow, (B, Q).
    scale_ratio: Tensor
    #: Its Monte Carlo standard error, (B, Q).
    scale_ratio_error: Tensor
    #: Kolmogorov & Smirnov's largest distance of the two distribution functions, (B, Q).
    distance: Tensor
    #: Probability of a distance at least as large between two samples of one distribution, with the effective
    #: sample size of the exact draws in place of their number, (B, Q).
    p_value: Tensor
    #: Correlations of the coordinates under p(z|x), (B, n, n).
    exact_correlation: Tensor
    #: The same under q(z|x), (B, n, n).
    guide_correlation: Tensor
    #: The exact draws.
    exact: ExactPosterior
    #: The unconstrained draws from q(z|x), as many, (S, B, n).
    guide_u: Tensor

    @property
    def rejected(self) -> Tensor:
        """Where q differs from p, by Holm's (1979) test at 5 % over all data and quantities, (B, Q)."""
        return torch.tensor(holm(self.p_value)).reshape(self.p_value.shape)

    @property
    def agrees(self) -> bool:
        """Whether q differs from p nowhere, as far as these draws can tell; False without convergence."""
        return self.exact.converged and not bool(self.rejected.any())

    def verdict(self, datum: int, quantity: int) -> str:
        """How q differs from p in one quantity on one datum, in words."""
        difference, ratio = (float(part[datum, quantity]) for part in (self.difference, self.scale_ratio))
        errors = self.difference_error[datum, quantity], self.scale_ratio_error[datum, quantity]
        if not self.rejected[datum, quantity]:
            return "equal"
        moved, scaled = abs(difference) / float(errors[0]), abs(np.log(ratio)) * ratio / float(errors[1])
        if max(moved, scaled) < 2:
            return f"of another shape (distance {float(self.distance[datum, quantity]):.2f})"
        if moved > scaled:
            return f"shifted by {difference:+.2f} ± {float(errors[0]):.2f} sd"
        return (
            f"too {'narrow' if ratio < 1 else 'wide'}, sd {ratio:.2f} ± {float(errors[1]):.2f} of the exact"
        )

    def __repr__(self) -> str:
        data = len(self.p_value)
        warning = "" if self.exact.converged else "; NUTS has not converged, look at .exact"
        how = f"{len(self.guide_u)} draws each, Holm at 5 %{warning}"
        wrong = self.rejected.nonzero().tolist()
        if not wrong and not self.exact.converged:
            return f"q(z|x) cannot be held against NUTS, which has not converged: {self.exact!r}"
        if not wrong:
            low, high = (float(end) for end in self.scale_ratio.aminmax())
            return (
                f"q(z|x) agrees with NUTS on all {data} data in all {len(self.names)} quantities (largest "
                f"difference of means {float(self.difference.abs().max()):.2f} sd, sds from {low:.2f} to "
                f"{high:.2f} of the exact; {how})"
            )
        # coordinates first, the worst of them before the others
        joint = len(self.names) - 1
        wrong.sort(key=lambda place: (place[1] == joint, -float(self.distance[tuple(place)])))
        words = "; ".join(
            f"{self.names[quantity]} on datum {datum} {self.verdict(datum, quantity)}"
            for datum, quantity in wrong[:4]
        )
        more = f"; and {len(wrong) - 4} more" * (len(wrong) > 4)
        affected = len({datum for datum, _ in wrong})
        return f"q(z|x) differs from NUTS on {affected} of {data} data: {words}{more} ({how})"


@one_at_a_time
def agreement(
    model: Program,
    guide: Program,
    x: Tensor | Batch,
    *,
    given: Given | None = None,
    exact: ExactPosterior | None = None,
    num_samples: int = 1000,
    warmup: int = 500,
    num_chains: int = 2,
    seed: int = 0,
    data_plate: str | None = None,
    progress: bool | None = None,
) -> Agreement:
    """Draws from q(z|x) against as many from p(z|x) by NUTS, on a few data.

    Errors count the correlation of the exact draws: var(ē) = 1/ESS + r²/S for the difference of means in
    sds, r being the ratio of sds; that of r is by the delta method on the second moments about the mean,
    with their own effective sample size. The Kolmogorov-Smirnov p-value is that of its limit law, at
    the smaller of the two effective sample sizes.

    Args:
        model: Pyro program of p(x, z), whose latent sites are continuous.
        guide: Pyro program of q(z|x).
        x: A few data (B, *data_shape).
        given: What lies beside x, by the programs' arguments: tensors (B, …), or constants.
        exact: What `exact_posterior` gave for the same model and data; by default it is made here.
        num_samples: As in `exact_posterior`, likewise the next three.
        warmup: Steps of each chain that are dropped.
        num_chains: Chains per datum.
        seed: Of torch's random numbers, whose global state is given back as it was.
        data_plate: Name of the plate of the data; by default "data", or the one of their size.
        progress: Show a progress bar; by default in a terminal and in a notebook.

    Raises:
        InputError: as `exact_posterior`; where `exact` is of another number of data or other sites; where
            draws from the guide are NaN.

    >>> from pyro_vae import Digits, assemble
    >>> data = Digits()
    >>> vae = assemble(data, latent_dim=2)
    >>> found = agreement(vae.model, vae.guide, data.test.batch()[:1], num_samples=50, warmup=20)
    >>> found.names, found.scale_ratio.shape
    (('z[0]', 'z[1]', 'log p(x, z)'), torch.Size([1, 3]))
    """
    data = Batch.of(x, given)
    if exact is None:
        exact = exact_posterior(
            model,
            data,
            num_samples=num_samples,
            warmup=warmup,
            num_chains=num_chains,
            seed=seed,
            data_plate=data_plate,
            progress=progress,
        )
    with own_randomness(seed_number(seed), data.device), store_as_found(), torch.no_grad():
        latents = Latents(model, guide, data, data_plate=data_plate)
        latents.pair.check(data)
        names = tuple(latents.columns())
        if exact.names != names or exact.u.shape[1] != len(data):
            raise InputError(
                f"expected exact draws of {list(names)} on {len(data)} data, got {list(exact.names)} on "
                f"{exact.u.shape[1]}: use the same model and data"
            )
        u = latents.from_guide(data, len(exact.u))
        chunk = max(latents.pair.rows // len(data), 1)
        p, q = (
            torch.cat([quantities(latents, data, part) for part in draws.split(chunk)]).cpu()
            for draws in (exact.u, u)
        )
    if q.isnan().any():
        raise unusable(q.isnan().any(0), (*names, JOINT))
    return _compared((*names, JOINT), p, q, exact, u)


def _compared(
    names: tuple[str, ...], p: Tensor, q: Tensor, exact: ExactPosterior, guide_u: Tensor
) -> Agreement:
    """From the quantities at the draws from p(z|x) and q(z|x): (S, B, Q) each."""
    from scipy import stats  # slow to import

    num, chains = len(p), exact.num_chains
    scale, ratio = p.std(0), q.std(0) / p.std(0)
    # no more than there are draws: anticorrelated draws help a mean, but no distribution function
    ess = _effective(p, chains)
    ess_squares = _effective((p - p.mean(0)).square(), chains)
    difference_error = (1 / ess + ratio.square() / num).sqrt()
    # var(log sd) = (kurtosis − 1) / (4 draws)
    ratio_error = ratio * ((_kurtosis(p) - 1) / ess_squares + (_kurtosis(q) - 1) / num).sqrt() / 2
    distance, p_value = torch.zeros_like(ratio), torch.ones_like(ratio)
    for place in np.ndindex(*ratio.shape):
        first, second = (each[(slice(None), *place)].numpy() for each in (p, q))
        distance[place] = float(stats.ks_2samp(first, second, method="asymp").statistic)
    size = torch.minimum(ess, ess_squares)
    p_value = torch.as_tensor(
        stats.kstwobign.sf((distance * (size * num / (size + num)).sqrt()).numpy()), dtype=ratio.dtype
    )
    return Agreement(
        names,
        (q.mean(0) - p.mean(0)) / scale,
        difference_error,
        ratio,
        ratio_error,
        distance,
        p_value,
        _correlation(p[..., :-1]),
        _correlation(q[..., :-1]),
        exact,
        guide_u,
    )


def _effective(values: Tensor, chains: int) -> Tensor:
    """Effective sample size of (S, B, Q), chain after chain, S at the most: (B, Q)."""
    return effective_sample_size(values.unflatten(0, (chains, -1))).clamp(max=len(values))


def _kurtosis(values: Tensor) -> Tensor:
    centred = values - values.mean(0)
    return centred.pow(4).mean(0) / centred.square().mean(0).square()


def _correlation(values: Tensor) -> Tensor:
    """Of the columns of (S, B, n): (B, n, n)."""
    standard = (values - values.mean(0)) / values.std(0)
    return torch.einsum("sbi,sbj->bij", standard, standard) / (len(values) - 1)
