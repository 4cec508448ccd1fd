"""The parts of a joint program, made of classes and of what is known of the data."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from pyro_vae.data import DataFacts, Dataset
from pyro_vae.data.fields import LABEL
from pyro_vae.data.stored import blocks
from pyro_vae.errors import InputError
from pyro_vae.likelihoods import (
    BernoulliLikelihood,
    ColumnsLikelihood,
    Likelihood,
    NormalLikelihood,
    ObservedLikelihood,
)
from pyro_vae.networks import (
    Architecture,
    ColumnsEncoder,
    Conditions,
    Network,
    ObservedEncoder,
    mean_of_observed,
)
from pyro_vae.posteriors import DiagonalNormalPosterior, Posterior
from pyro_vae.priors import Prior, StandardNormalPrior
from pyro_vae.vae.classifier import Classifier
from pyro_vae.vae.conditional import GivenLikelihood, GivenPosterior, shape_with
from pyro_vae.vae.labels import labelled_share
from pyro_vae.vae.standardised import (
    StandardisedEncoder,
    StandardisedLikelihood,
    StandardisedPosterior,
    moments_of_observed,
)
from pyro_vae.vae.supplying import class_of, name_of, supply

T = TypeVar("T")


class NeedsDataError(InputError):
    """A model cannot be made of facts about data alone."""


class Parts:
    """The parts of a program, each made when it is first asked for."""

    def __init__(
        self,
        data: Dataset | DataFacts,
        dims: tuple[int, ...],
        network: Architecture,
        upper_network: Architecture,
        prior: Callable[..., Prior],
        likelihood: Callable[..., Likelihood],
        posterior: Callable[..., Posterior],
        kinds: Mapping[str, int | tuple[int, ...]],
        sees_mask: bool,
    ) -> None:
        self.data, self.sees_mask = data, sees_mask
        self.conditions = Conditions(kinds) if kinds else None
        self.dims = dims
        self.shapes = [tuple(data.data_shape), *((dim,) for dim in dims)]
        self.networks = [network, *[upper_network] * (len(dims) - 1)]
        self._prior, self._likelihood, self._posterior = prior, likelihood, posterior

    def check_used(self, program: Callable[..., object]) -> None:
        """Refuse a choice of a part that the program does not ask for."""
        asked = inspect.signature(program).parameters
        for name, chosen, default in (
            ("prior", self._prior, StandardNormalPrior),
            ("likelihood", self._likelihood, default_likelihood(self.data)),
            ("posterior", self._posterior, DiagonalNormalPosterior),
        ):
            if class_of(chosen) is not default and not {name, f"{name}s"} & asked.keys():
                raise InputError(
                    f"{name_of(program)} has no {name}, got {name_of(chosen)}: leave it out, or choose "
                    "another program"
                )

    def for_programs(self) -> dict[str, Callable[[], object]]:
        """What a program's constructor can ask for, in the order in which it is made."""
        return {
            "posterior": lambda: self._only("posterior", self.posteriors),
            "posteriors": lambda: self.posteriors,
            "likelihood": lambda: self._only("likelihood", self.likelihoods),
            "likelihoods": lambda: self.likelihoods,
            "prior": lambda: self.prior,
            "encoder": lambda: self._only("encoder", [self._encoder(layer) for layer in self._layers]),
            "decoder": lambda: self._only("decoder", [self._decoder(layer) for layer in self._layers]),
            "latent_dim": lambda: self._only("latent_dim", self.dims),
            "data_shape": lambda: self.data.data_shape,
            "classifier": self._classifier,
            "labelled_share": lambda: labelled_share(self.data),
        }

    @cached_property
    def posteriors(self) -> list[Posterior]:
        """Of all layers: q(z_1|x), q(z_2|z_1) and so on."""
        first, *others = self._of_standardised
        return [StandardisedPosterior(first, *self._seen_scaling) if self._seen_scaling else first, *others]

    @cached_property
    def _of_standardised(self) -> list[Posterior]:
        """The posteriors, the first of them one of data that are standardised where they are to be."""
        if self.conditions is not None:
            shape = shape_with(self.conditions, self.shapes[0])
            facts = {
                **self._for_layer(0),
                "data_shape": lambda: shape,
                "encoder": lambda: self._encoder_of_data(shape),
            }
            inner = supply("posterior", self._posterior, facts)
            first: Posterior = GivenPosterior(inner, self.shapes[0], self.conditions)
        else:
            first = supply("posterior", self._posterior, self._for_layer(0))
        above = [supply("posterior", self._posterior, self._for_layer(layer)) for layer in self._layers[1:]]
        return [first, *above]

    @cached_property
    def likelihoods(self) -> list[Likelihood]:
        """Of all layers: p(x|z_1), p(z_1|z_2) and so on."""
        first = self._of_x()
        between = partial(NormalLikelihood, scale="per_pixel")
        above = [supply("likelihood", between, self._for_layer(layer)) for layer in self._layers[1:]]
        return [self._of_data(first) if isinstance(first, Likelihood) else first, *above]

    def _of_x(self) -> Likelihood:
        """p(x|z_1), which depends on what is given where there are conditions."""
        if self.conditions is None:
            return supply("likelihood", self._likelihood, self._for_layer(0))
        size = self.dims[0] + self.conditions.size
        facts = {
            **self._for_layer(0),
            "latent_dim": lambda: size,
            "decoder": lambda: self.networks[0].decoder(size, self.shapes[0]),
        }
        inner = supply("likelihood", self._likelihood, facts)
        return GivenLikelihood(inner, self.dims[0], self.conditions)

    def _of_data(self, likelihood: Likelihood) -> Likelihood:
        """A likelihood, made one of the data as they are: in their own units, and with entries missing."""
        if self._scaling:
            likelihood = StandardisedLikelihood(likelihood, *self._scaling)
        if self.data.missing and not likelihood.takes_missing:
            likelihood = ObservedLikelihood(likelihood)
        return likelihood

    @property
    def _seen_scaling(self) -> tuple[Tensor, Tensor] | None:
        """The same of what the encoder sees: a table's scales its columns itself, grey levels lose a mean.

        What all data share adds the same to every feature, and z says little of x at the start.
        """
        if self.data.columns:
            return None
        return self._grey_scaling if _is_grey(self.data) else self._scaling

    @cached_property
    def _grey_scaling(self) -> tuple[Tensor, Tensor]:
        """The mean of each pixel, of a thousand training data, and half of the range."""
        loc = torch.zeros(self.shapes[0])  # to be replaced
        if not isinstance(self.data, DataFacts):
            train = self.data.train
            loc = mean_of_observed(blocks(train.subset(1000).stored)) / train.maximum
        return loc, torch.tensor(0.5)

    @cached_property
    def _scaling(self) -> tuple[Tensor, Tensor] | None:
        """Mean and deviation by which the data are standardised; None where they are not."""
        shape = self.shapes[0]
        if not self.data.form.standardises:
            return None
        if isinstance(self.data, DataFacts):  # to be replaced
            shape = shape if len(shape) == 1 else (shape[0], 1, 1)
            return torch.zeros(shape), torch.ones(shape)
        train = self.data.train
        loc, scale = moments_of_observed(blocks(train.stored), shape)
        return loc / train.maximum, scale / train.maximum

    @cached_property
    def prior(self) -> Prior:
        """p(z) of the uppermost layer."""
        return supply(
            "prior",
            self._prior,
            {
                "latent_dim": lambda: self.dims[-1],
                "data_shape": lambda: self.data.data_shape,
                "posterior": lambda: self._of_standardised[-1],
                "examples": self._examples,
                "conditions": self._conditions,
            },
        )

    def _for_layer(self, layer: int) -> dict[str, Callable[[], object]]:
        """What the likelihood and the posterior of a layer can ask for, counted from 0 at the data."""
        return {
            "latent_dim": lambda: self.dims[layer],
            "data_shape": lambda: self.shapes[layer],
            "levels": lambda: _levels(self.data),
            "columns": lambda: self.data.columns,
            "encoder": lambda: self._encoder(layer),
            "decoder": lambda: self._decoder(layer),
        }

    @property
    def _layers(self) -> range:
        return range(len(self.dims))

    def _encoder(self, layer: int) -> Network | ObservedEncoder | ColumnsEncoder:
        shape = self.shapes[layer]
        return self.networks[layer].encoder(shape) if layer else self._encoder_of_data(shape)

    def _encoder_of_data(self, shape: tuple[int, ...]) -> Network | ObservedEncoder | ColumnsEncoder:
        """An encoder of the data, or of the data and what is given beside them: then `shape` is larger."""
        if self.data.columns:
            return self._encoder_beside(shape, math.prod(shape) - math.prod(self.shapes[0]))
        if not self.data.missing:
            return self.networks[0].encoder(shape)
        seen = ObservedEncoder.doubled(shape) if self.sees_mask else shape
        fill = torch.zeros(shape)
        fill.view(-1)[: self._fill.numel()] = self._fill.flatten()  # what is given comes last
        return ObservedEncoder(self.networks[0].encoder(seen), shape, fill=fill)

    def _encoder_beside(self, shape: tuple[int, ...], beside: int) -> Network | ColumnsEncoder:
        """The encoder of data of one shape, of which the last numbers are what is given beside x."""
        columns = self.data.columns
        if not columns:
            return self.networks[0].encoder(shape)
        seen = ColumnsEncoder.seen_shape(columns, self.sees_mask, beside)
        network = self.networks[0].encoder(seen)
        return ColumnsEncoder(network, columns, sees_mask=self.sees_mask, beside=beside)

    @cached_property
    def _fill(self) -> Tensor:
        """What an encoder sees in the place of a missing entry: the mean, standardised as the others are."""
        if self.data.columns:
            return torch.tensor([column.typical for column in self.data.columns])
        if isinstance(self.data, DataFacts) or self._scaling:
            return torch.zeros(self.data.data_shape)  # to be replaced
        train = self.data.train
        mean = mean_of_observed(blocks(train.stored)) / train.maximum
        loc, scale = self._seen_scaling or (0.0, 1.0)
        return (mean - loc) / scale

    def _classifier(self) -> Classifier:
        encoder: nn.Module = self._encoder(0)
        if self._seen_scaling:
            encoder = StandardisedEncoder(encoder, *self._seen_scaling)
        return Classifier(encoder, self.data.field_kinds[LABEL].classes or 0)

    def _decoder(self, layer: int) -> Network:
        return self.networks[layer].decoder(self.dims[layer], self.shapes[layer])

    def _conditions(self) -> Conditions:
        if self.conditions is None:
            raise InputError(
                f"{name_of(self._prior)} depends on what is given beside x, got no condition: give one, as "
                "condition='label'"
            )
        return self.conditions

    @torch.no_grad()
    def _examples(self) -> Tensor:
        """Training data as the uppermost posterior sees them: draws from those below it."""
        dtype = next(self.posteriors[-1].parameters()).dtype
        if isinstance(self.data, DataFacts):
            if not class_of(self._prior).__module__.startswith("pyro_vae."):
                raise NeedsDataError(
                    f"{name_of(self._prior)} starts from training data, got facts about them: give the data"
                )
            return torch.zeros((), dtype=dtype).expand(
                self.data.sizes.train, *self.shapes[-2]
            )  # to be replaced
        examples = []
        for x in self.data.train.batch().to(dtype).split(1000):
            if self._seen_scaling:
                loc, scale = self._seen_scaling
                x = (x - loc.to(x)) / scale.to(x)
            if self.data.missing:
                x = torch.where(x.isnan(), self._fill.to(x), x)
            for posterior in self._of_standardised[:-1]:
                x = posterior(x).sample()
            examples.append(x)
        return torch.cat(examples)

    def _only(self, name: str, of_layers: Sequence[T]) -> T:
        """The one of a program of one layer."""
        if len(of_layers) > 1:
            raise InputError(
                f"a program that asks for one {name} has one stochastic layer, got latent_dim "
                f"{list(self.dims)}: give one number, or choose the program HierarchicalVAE"
            )
        return of_layers[0]


def _levels(data: Dataset | DataFacts) -> int:
    """The number of grey levels, refused where there is none."""
    if data.levels is None:
        raise InputError(
            f"a likelihood of levels needs data with levels, got {data.name} {data.protocol}: put whole "
            "numbers into the form Levels (data.in_form(pv.Levels()), --data.form Levels), or use a "
            "continuous likelihood as NormalLikelihood"
        )
    return data.levels


def _is_grey(data: Dataset | DataFacts) -> bool:
    """Whether x is more than two levels from 0 to 1, or these with noise between them."""
    return (data.levels or 0) > 2 or data.bin_width is not None


def default_likelihood(data: Dataset | DataFacts) -> type[Likelihood]:
    """The likelihood of data for which none is named."""
    return ColumnsLikelihood if data.columns else BernoulliLikelihood
