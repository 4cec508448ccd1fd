"""The joint programs: p(x, z) and q(z|x) as a Pyro model and guide.

This is the only place with site names.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import TypeVar

import pyro
import torch
from torch import Tensor, nn

from pyro_vae.data import Dataset
from pyro_vae.errors import InputError, count
from pyro_vae.likelihoods import BernoulliLikelihood, Likelihood
from pyro_vae.networks import MLP, Architecture, declared_shape
from pyro_vae.posteriors import DiagonalNormalPosterior, Posterior
from pyro_vae.priors import Prior, StandardNormalPrior

T = TypeVar("T")


class JointProgram(nn.Module, ABC):
    """A module with a Pyro `model` and `guide` over one batch of data.

    Contract for the author of the next one: both programs take x of shape (B, *data_shape), call
    `register` with the components they use, open the plate "data" of size B at axis −1, and the model
    observes x. Whatever has this form can be trained by `fit` and measured by `log_evidence`.
    """

    def register(self, *components: nn.Module) -> None:
        """Make the parameters of `components`, submodules of this one, parameters of the Pyro program.

        As `pyro.module`, except that the module's own tensors win over entries that another model left
        in the parameter store. With `pyro.module` a second model in one process meets the first one's
        entries under the same names, SVI moves those, and the second model silently does not train.
        Frozen parameters are left out.
        """
        store = pyro.get_param_store()
        names = {id(parameter): name for name, parameter in self.named_parameters()}
        for parameter in (p for component in components for p in component.parameters()):
            if not parameter.requires_grad:
                continue
            name = f"{type(self).__name__}$$${names[id(parameter)]}"
            if name in store and store[name] is not parameter:
                with suppress(KeyError):  # raised, the entry being gone, for a tensor held under two names
                    del store[name]
            pyro.param(name, parameter)

    @abstractmethod
    def model(self, x: Tensor) -> Tensor:
        """The Pyro program of p(x, z), with x observed."""

    @abstractmethod
    def guide(self, x: Tensor) -> Tensor:
        """The Pyro program of q(z|x)."""

    def check(self, x: Tensor) -> None:
        """Refuse data that this program has no density for, by InputError; accepts all unless overridden."""

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the parameters; data are cast to it."""
        return next(self.parameters()).dtype

    def place(self, x: Tensor) -> Tensor:
        """Data x on the device and in the type of the parameters."""
        return x.to(device=self.device, dtype=self.dtype)


class VAE(JointProgram):
    """Variational autoencoder: z ~ p(z), x ~ p(x|z), with z ~ q(z|x) as the guide.

    Kingma & Welling (2014); Rezende, Mohamed & Wierstra (2014).

    Args:
        prior: p(z).
        likelihood: p(x|z).
        posterior: q(z|x).

    Raises:
        InputError: where the three do not agree on the length of z.

    >>> data_shape = (1, 8, 8)
    >>> network = MLP()
    >>> vae = VAE(
    ...     StandardNormalPrior(5),
    ...     BernoulliLikelihood(network.decoder(5, data_shape), data_shape),
    ...     DiagonalNormalPosterior(network.encoder(data_shape), 5),
    ... )
    >>> vae.sample(3).shape
    torch.Size([3, 1, 8, 8])
    """

    def __init__(self, prior: Prior, likelihood: Likelihood, posterior: Posterior) -> None:
        super().__init__()
        _check_role("prior", prior, Prior, "latent_dim")
        _check_role("likelihood", likelihood, Likelihood, "decoder", "data_shape")
        _check_role("posterior", posterior, Posterior, "latent_dim", "encoder")
        decoded = declared_shape(likelihood.decoder, "input_shape")
        if not (prior.latent_dim,) == (posterior.latent_dim,) == decoded:
            raise InputError(
                f"expected one latent_dim, got {prior.latent_dim} in the prior, {posterior.latent_dim} in "
                f"the posterior and {decoded} as the input of the likelihood's decoder: build all with one"
            )
        self.prior = prior
        self.likelihood = likelihood
        self.posterior = posterior

    def model(self, x: Tensor) -> Tensor:
        """p(x, z): plate "data"; z ~ prior(); x ~ likelihood(z), observed. x is (B, *data_shape)."""
        self.register(self.prior, self.likelihood)
        with pyro.plate("data", x.shape[0], dim=-1):
            z = pyro.sample("z", self.prior())
            return pyro.sample("x", self.likelihood(z), obs=x)

    def guide(self, x: Tensor) -> Tensor:
        """q(z|x): plate "data"; z ~ posterior(x)."""
        self.register(self.posterior)
        with pyro.plate("data", x.shape[0], dim=-1):
            return pyro.sample("z", self.posterior(x))

    @torch.no_grad()
    def check(self, x: Tensor) -> None:
        """Refuse data of another shape than the networks' or outside the likelihood's support."""
        if x.shape[1:] != torch.Size(self.likelihood.data_shape):
            raise InputError(
                f"the model expects data of shape {self.likelihood.data_shape}, got {tuple(x.shape[1:])}: "
                "build its networks for the shape of the data"
            )
        self.likelihood.check(self.likelihood(self.prior().sample((1,))), x)

    @torch.no_grad()
    def sample(self, num: int, *, mean: bool = False) -> Tensor:
        """`num` draws x ~ p(x|z), z ~ p(z); with `mean` the means of p(x|z): (num, *data_shape)."""
        count("num", num)
        px = self.likelihood(self.prior().sample((num,)))
        return px.mean if mean else px.sample()

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """The mean of q(z|x): (B, L). The distribution itself is `posterior(x)`."""
        return self.posterior(x).mean

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """The mean of p(x|z): (..., *data_shape). The distribution itself is `likelihood(z)`."""
        return self.likelihood(z).mean

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """The mean of p(x|z) at one draw z ~ q(z|x): (B, *data_shape)."""
        return self.decode(self.posterior(x).sample())

    @torch.no_grad()
    def latent_plane(self, axes: tuple[int, int] = (0, 1), *, num: int = 20) -> tuple[Tensor, Tensor, Tensor]:
        """A num × num grid of z over two latent axes, at equal steps of probability under the prior.

        The coordinates are the prior's inverse CDF at (i + ½) / num where the prior is normal, else the
        quantiles of 10,000 draws; the other axes stay at its mean (Kingma & Welling 2014, figure 4).

        Returns:
            z (num², L), row by row with the top row at the largest second coordinate; the first
            coordinates, from left to right; the second ones, from top to bottom.

        Raises:
            InputError: where `axes` are not two different latent axes, or `num` is not positive.
        """
        if self.prior.latent_dim < 2:
            raise InputError("a latent plane needs two latent axes, the model has one")
        if len(set(axes)) < 2 or not all(0 <= axis < self.prior.latent_dim for axis in axes):
            raise InputError(
                f"axes expects two different numbers from 0 to {self.prior.latent_dim - 1}, got {list(axes)}"
            )
        count("num", num)
        pz = self.prior()
        levels = (torch.arange(num, device=self.device, dtype=self.dtype) + 0.5) / num
        base = getattr(pz, "base_dist", None)
        if isinstance(base, torch.distributions.Normal):
            mean, quantiles = base.mean, base.icdf(levels[:, None])
        else:
            draws = pz.sample((10_000,))
            mean, quantiles = draws.mean(0), draws.quantile(levels, dim=0)
        across, down = quantiles[:, axes[0]], quantiles[:, axes[1]].flip(0)
        z = mean.repeat(num, num, 1)
        z[..., axes[0]], z[..., axes[1]] = across, down[:, None]
        return z.flatten(0, 1), across, down


def _check_role(role: str, component: object, base: type, *attributes: str) -> None:
    """Refuse a component of another kind, or one without what its contract asks for."""
    if not isinstance(component, base):
        raise InputError(f"the {role} expects a {base.__name__}, got {type(component).__name__}")
    for attribute in attributes:
        if not hasattr(component, attribute):
            raise InputError(
                f"the {role} {type(component).__name__} has no attribute {attribute}: "
                f"set self.{attribute} in its constructor"
            )


def assemble(
    data: Dataset,
    *,
    latent_dim: int = 8,
    network: Architecture | None = None,
    prior: Callable[..., Prior] = StandardNormalPrior,
    likelihood: Callable[..., Likelihood] = BernoulliLikelihood,
    posterior: Callable[..., Posterior] = DiagonalNormalPosterior,
) -> VAE:
    """A VAE for `data`, each part given as its class or as a `partial` of it with its own choices.

    What a constructor must know is filled in by the name of the parameter: `latent_dim`, `data_shape`,
    `levels` (the number of grey levels), `encoder`, `decoder`, `posterior`, and `examples` (the training
    data).

    Args:
        data: Gives the shape, the levels and the examples.
        latent_dim: L, the length of z.
        network: Kind of encoder and decoder; None for `MLP()`.
        prior: Makes p(z).
        likelihood: Makes p(x|z).
        posterior: Makes q(z|x).

    Raises:
        InputError: where a part asks for the number of levels, and the data have none.

    >>> from pyro_vae import Digits, VampPrior
    >>> vae = assemble(Digits(), latent_dim=2, prior=partial(VampPrior, components=50))
    >>> vae.prior.pseudo_inputs.shape
    torch.Size([50, 1, 8, 8])
    """
    network = network or MLP()
    sizes = {"latent_dim": lambda: latent_dim, "data_shape": lambda: data.data_shape}
    encoder = {"encoder": lambda: network.encoder(data.data_shape)}
    decoder = {
        "decoder": lambda: network.decoder(latent_dim, data.data_shape),
        "levels": lambda: _levels(data),
    }
    qz = _supply(posterior, {**sizes, **encoder})
    px = _supply(likelihood, {**sizes, **decoder})
    pz = _supply(prior, {**sizes, "posterior": lambda: qz, "examples": lambda: data.train.batch()})
    return VAE(pz, px, qz)


def _levels(data: Dataset) -> int:
    """The number of grey levels, refused where there is none."""
    if data.levels is None:
        raise InputError(
            f"a likelihood of levels needs data with levels, got {data.name} {data.protocol}: use "
            "binarization none on data of bytes, or a continuous likelihood as ContinuousBernoulliLikelihood"
        )
    return data.levels


def _supply(component: Callable[..., T], facts: Mapping[str, Callable[[], object]]) -> T:
    """Call `component` with those facts that its signature names and that are not bound already."""
    bound = component.keywords if isinstance(component, partial) else {}
    names = [name for name in inspect.signature(component).parameters if name not in bound]
    return component(**{name: facts[name]() for name in names if name in facts})


#: Parameters of components that `assemble` fills in, and that are no choice of the user.
FACTS = frozenset({"latent_dim", "data_shape", "levels", "encoder", "decoder", "posterior", "examples"})
