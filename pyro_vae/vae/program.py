"""What every joint program has: parameters registered with Pyro, and what can be looked at."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, ClassVar, cast, overload

import pyro
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn

from pyro_vae.batch import Batch
from pyro_vae.errors import InputError, count
from pyro_vae.networks.conditions import conditions_of


class JointProgram(nn.Module, ABC):
    """A module with a Pyro `model` and `guide` over one batch of data.

    Contract for the author of the next one: both programs take x of shape (B, *data_shape), and by name what
    is given beside it, as `model(x, label)`; they call `register` with the components they use, open the
    plate "data" of size B at axis −1, and the model observes x. `fit` and `log_evidence` take any other model
    and guide as well; what this class adds is that the parameters are those of the module, whatever is in
    Pyro's store, that data are held against the model before training (`check`), and what the commands look
    at: `sample`, `encode`, `decode`, `reconstruct` and `code_prior`.

    >>> import pyro.distributions as dist
    >>> from pyro_vae import Dataset, fit, log_evidence
    >>> class Factors(JointProgram):
    ...     def __init__(self) -> None:
    ...         super().__init__()
    ...         self.decoder, self.encoder = nn.Linear(2, 4), nn.Linear(4, 2)
    ...     def model(self, x):
    ...         self.register(self.decoder)
    ...         with pyro.plate("data", len(x), dim=-1):
    ...             z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    ...             return pyro.sample("x", dist.Normal(self.decoder(z), 0.5).to_event(1), obs=x)
    ...     def guide(self, x):
    ...         self.register(self.encoder)
    ...         with pyro.plate("data", len(x), dim=-1):
    ...             return pyro.sample("z", dist.Normal(self.encoder(x), 0.5).to_event(1))
    >>> program, x = Factors(), torch.randn(40, 4)
    >>> fit(program, Dataset(x), epochs=2, batch_size=20).epochs[-1].step
    4
    >>> log_evidence(program.model, program.guide, x).estimate.shape
    torch.Size([40])
    >>> program.sample(3)
    Traceback (most recent call last):
    pyro_vae.errors.InputError: Factors has no sample: define the method sample in its class
    """

    #: Why there is no log p(x) to estimate; empty where there is one.
    no_evidence: ClassVar[str] = ""
    #: Names of what the programs take beside x where it is known, as labels that were seen for some data.
    optional: ClassVar[tuple[str, ...]] = ()

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

    @property
    def parts(self) -> tuple[nn.Module, ...]:
        """The components, which may depend on what is given; none unless overridden."""
        return ()

    @property
    def conditions(self) -> tuple[str, ...]:
        """Names of what the programs take beside x: all that a part depends on, unless overridden."""
        return tuple({name: None for part in self.parts for name in conditions_of(part)})

    def check_given(self, given: Iterable[str]) -> None:
        """Refuse other names than those in `conditions`, and those in `optional`, which may be there or not.

        Raises:
            InputError: with the names that are missing or that nothing depends on.
        """
        names, got = self.conditions, tuple(given)
        if set(names) <= set(got) <= {*names, *self.optional}:
            return
        where_known = tuple(f"{name} where it is known" for name in self.optional)
        wanted, found = (", ".join(each) or "nothing" for each in ((*names, *where_known), got))
        remedy = (
            f"give {wanted} by name, as by data.giving({', '.join(map(repr, names))}) of a Dataset, or "
            f"given={{{names[0]!r}: y}}"
            if names
            else "leave it out, or give assemble a condition, or program=SemiSupervisedVAE for labels of some"
        )
        raise InputError(f"{type(self).__name__} depends on {wanted} beside x, got {found}: {remedy}")

    def check_conditions(self, given: Mapping[str, Any]) -> None:
        """Refuse, by InputError, what is given and does not fit a part."""
        for part in self.parts:
            if conditions_of(part):
                cast("Any", part).check_conditions(**given_to(part, given))

    def given_for_all(self, num: int, given: Mapping[str, Any]) -> dict[str, Tensor]:
        """What is given as tensors (num, …): one value for all, or one for each.

        Raises:
            InputError: where something is missing, or does not fit.
        """
        self.check_given(given)
        found = {}
        for name, value in given.items():
            tensor = torch.as_tensor(value, device=self.device)
            found[name] = tensor.expand(num) if tensor.ndim == 0 else tensor
            if len(found[name]) != num:
                raise InputError(
                    f"expected given[{name!r}] as one value or {num} of them, got shape {tuple(tensor.shape)}"
                )
        self.check_conditions(found)
        return found

    def check_evaluated(self, given: Iterable[str]) -> None:
        """Refuse, by InputError, data given with which the ELBO is not one of log p(x); accepts all else."""

    def penalty(self) -> tuple[Callable[..., Tensor], float] | None:
        """A loss that training has beside the ELBO, called as the programs, and its weight; None for none.

        With one, the ELBO is that by `TraceEnum_ELBO`, which sums out what is marked for it.
        """
        return None

    @abstractmethod
    def model(self, x: Tensor) -> Tensor:
        """The Pyro program of p(x, z), with x observed."""

    @abstractmethod
    def guide(self, x: Tensor) -> Tensor:
        """The Pyro program of q(z|x)."""

    def check(self, x: Tensor) -> None:
        """Refuse data that this program has no density for, by InputError; accepts all unless overridden.

        What is given beside x is there by name for one that takes it, as `check(x, label)`.
        """

    @staticmethod
    def check_shape(x: Tensor, data_shape: Iterable[int]) -> None:
        """Refuse data x whose shape is not (B, *data_shape)."""
        if x.shape[1:] != torch.Size(data_shape):
            raise InputError(
                f"the model expects data of shape {tuple(data_shape)}, got {tuple(x.shape[1:])}: "
                "build its networks for the shape of the data"
            )

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the parameters; data are cast to it."""
        return next(self.parameters()).dtype

    @overload
    def place(self, x: Tensor) -> Tensor: ...

    @overload
    def place(self, x: Batch) -> Batch: ...

    def place(self, x: Tensor | Batch) -> Tensor | Batch:
        """Data on the device and in the type of the parameters; of a batch, whole numbers given stay so."""
        if isinstance(x, Batch):
            return x.to(self.device, self.dtype)
        return x.to(device=self.device, dtype=self.dtype)

    def code_prior(self) -> TorchDistribution | None:
        """p(z) of the codes that `encode` gives and `decode` takes; None where there is none."""
        return None

    def sample(self, num: int, *, mean: bool = False) -> Tensor:
        """`num` draws of x from the model; with `mean` the means of p(x|z): (num, *data_shape)."""
        raise self._missing("sample")

    def encode(self, x: Tensor) -> Tensor:
        """A code of each datum: (B, L)."""
        raise self._missing("encode")

    def codes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(z|x) in each latent axis: (B, L) each."""
        raise self._missing("codes")

    def decode(self, z: Tensor) -> Tensor:
        """The mean datum of each code: (..., *data_shape)."""
        raise self._missing("decode")

    def reconstruct(self, x: Tensor) -> Tensor:
        """Data x through a code and back: (B, *data_shape)."""
        raise self._missing("reconstruct")

    @torch.no_grad()
    def latent_plane(
        self, axes: tuple[int, int] = (0, 1), *, num: int = 20, codes: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """A num × num grid of z over two latent axes, at equal steps of probability under the prior.

        The coordinates are the prior's inverse CDF at (i + ½) / num where it is normal or Laplace, else the
        quantiles of 10,000 draws, or those of `codes` where they are given; the other axes stay at the mean
        (Kingma & Welling 2014, figure 4).

        Args:
            axes: The two latent axes, counted from 0.
            num: Steps along each.
            codes: (N, L), whose distribution takes the place of the prior's.

        Returns:
            z (num², L), row by row with the top row at the largest second coordinate; the first
            coordinates, from left to right; the second ones, from top to bottom.

        Raises:
            InputError: where `axes` are not two different latent axes, or `num` is not positive.
        """
        levels = (torch.arange(count("num", num), device=self.device, dtype=self.dtype) + 0.5) / num
        mean, quantiles = self._quantiles(levels, codes)
        check_latent_axes(axes, len(mean))
        across, down = quantiles[:, axes[0]], quantiles[:, axes[1]].flip(0)
        z = mean.repeat(num, num, 1)
        z[..., axes[0]], z[..., axes[1]] = across, down[:, None]
        return z.flatten(0, 1), across, down

    def _quantiles(self, levels: Tensor, codes: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean of the codes (L,), and their quantiles (len(levels), L)."""
        if codes is None:
            pz = self.code_prior()
            if pz is None:
                raise InputError(f"{type(self).__name__} has no p(z): give codes, as codes=vae.encode(x)")
            base = getattr(pz, "base_dist", None)
            if isinstance(base, torch.distributions.Normal | torch.distributions.Laplace):
                return base.mean, base.icdf(levels[:, None])
            codes = pz.sample((10_000,))
        return codes.mean(0), codes.quantile(levels, dim=0)

    def _missing(self, what: str) -> InputError:
        return InputError(f"{type(self).__name__} has no {what}: define the method {what} in its class")


def moments(qz: TorchDistribution, draws: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of a distribution; those of draws (1000, B, L) where it has none."""
    try:
        return qz.mean, qz.stddev
    except NotImplementedError:
        drawn = draws()
        return drawn.mean(0), drawn.std(0)


def check_latent_axes(axes: tuple[int, int], latent_dim: int) -> None:
    """Refuse what are not two different latent axes."""
    if latent_dim < 2:
        raise InputError("a latent plane needs two latent axes, the model has one")
    if len(set(axes)) < 2 or not all(0 <= axis < latent_dim for axis in axes):
        raise InputError(f"axes expects two different numbers from 0 to {latent_dim - 1}, got {list(axes)}")


def given_to(part: nn.Module, given: Mapping[str, Any]) -> dict[str, Any]:
    """What a part gets of what is given: all that it names.

    Raises:
        InputError: where it names more.
    """
    names = conditions_of(part)
    missing = [name for name in names if name not in given]
    if missing:
        raise InputError(
            f"{type(part).__name__} depends on {', '.join(missing)}, which is not given: give it by name, as "
            f"given={{{missing[0]!r}: y}}"
        )
    return {name: given[name] for name in names}
