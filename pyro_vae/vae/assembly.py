"""A joint program made of classes: what their constructors must know is filled in by name."""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from typing import TypeVar, overload

import torch
from torch import Tensor, nn

from pyro_vae.data import DataFacts, Dataset
from pyro_vae.data.fields import LABEL
from pyro_vae.data.stored import blocks
from pyro_vae.errors import InputError, counts
from pyro_vae.likelihoods import (
    BernoulliLikelihood,
    ColumnsLikelihood,
    Likelihood,
    NormalLikelihood,
    ObservedLikelihood,
)
from pyro_vae.networks import (
    MLP,
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
from pyro_vae.vae.hierarchical import HierarchicalVAE
from pyro_vae.vae.labels import label_of, labelled_share
from pyro_vae.vae.program import JointProgram
from pyro_vae.vae.semi_supervised import SemiSupervisedVAE
from pyro_vae.vae.standardised import (
    StandardisedEncoder,
    StandardisedLikelihood,
    StandardisedPosterior,
    moments_of_observed,
)
from pyro_vae.vae.vae import VAE


class NeedsDataError(InputError):
    """A model cannot be made of facts about data alone."""


T = TypeVar("T")
P = TypeVar("P", bound=JointProgram)

#: Parameters that `assemble` fills in, by the part, and that are no choice of the user.
FACTS: dict[str, frozenset[str]] = {
    "posterior": frozenset({"latent_dim", "data_shape", "encoder"}),
    "likelihood": frozenset({"latent_dim", "data_shape", "decoder", "levels", "columns"}),
    "prior": frozenset({"latent_dim", "data_shape", "posterior", "examples", "conditions"}),
    "program": frozenset(
        {"latent_dim", "data_shape", "encoder", "decoder"}
        | {"posterior", "posteriors", "likelihood", "likelihoods", "prior"}
        | {"classifier", "labelled_share"}
    ),
}


@overload
def assemble(
    data: Dataset | DataFacts,
    *,
    latent_dim: int | tuple[int, ...] = ...,
    network: Architecture | None = ...,
    upper_network: Architecture | None = ...,
    prior: Callable[..., Prior] = ...,
    likelihood: Callable[..., Likelihood] = ...,
    posterior: Callable[..., Posterior] = ...,
    condition: str | tuple[str, ...] | None = ...,
    sees_mask: bool = ...,
) -> VAE: ...


@overload
def assemble(
    data: Dataset | DataFacts,
    *,
    program: Callable[..., P],
    latent_dim: int | tuple[int, ...] = ...,
    network: Architecture | None = ...,
    upper_network: Architecture | None = ...,
    prior: Callable[..., Prior] = ...,
    likelihood: Callable[..., Likelihood] = ...,
    posterior: Callable[..., Posterior] = ...,
    condition: str | tuple[str, ...] | None = ...,
    sees_mask: bool = ...,
) -> P: ...


def assemble(
    data: Dataset | DataFacts,
    *,
    program: Callable[..., JointProgram] = VAE,
    latent_dim: int | tuple[int, ...] = 8,
    network: Architecture | None = None,
    upper_network: Architecture | None = None,
    prior: Callable[..., Prior] = StandardNormalPrior,
    likelihood: Callable[..., Likelihood] | None = None,
    posterior: Callable[..., Posterior] = DiagonalNormalPosterior,
    condition: str | tuple[str, ...] | None = None,
    sees_mask: bool = False,
) -> JointProgram:
    """A joint program for `data`, each part given as its class or as a `partial` with its own choices.

    What a constructor must know is filled in by the name of the parameter: `latent_dim`, `data_shape`,
    `levels` (the number of grey levels), `columns` (of a table), `encoder`, `decoder`, `posterior`,
    `examples` (training data), and for programs `prior`, `likelihood`, `posterior`, `likelihoods` and
    `posteriors` (one for each layer).

    Args:
        data: Gives the shape, the levels and the examples; facts give the first two, for a model whose
            parameters are loaded afterwards.
        program: Makes the joint program: `VAE`, `HierarchicalVAE`, `Autoencoder`, or one of your own.
        latent_dim: L, the length of z; several for stochastic layers, from the data upwards.
        network: Kind of encoder and decoder between x and z_1; None for `MLP()`.
        upper_network: Kind of those between the layers of z; None for `MLP()`.
        prior: Makes p(z).
        likelihood: Makes p(x|z); None for `ColumnsLikelihood` where the data are a table, else for
            `BernoulliLikelihood`. Between layers it is a `NormalLikelihood` with scale per_pixel.
        posterior: Makes q(z|x), for each layer.
        condition: Names of fields of the data on which p(x|z) and q(z|x) depend, too, so that it is p(x|y)
            that is trained: classes one-hot, numbers as they are. The prior stays that of all, unless it is
            a `ConditionalNormalPrior`. The data then have to hand these fields over: `data.giving("label")`.
        sees_mask: Whether the encoder of x has as further channels which entries are observed. It sees the
            mean of the observed training data in the place of what is missing in any case.

    Raises:
        NeedsDataError: where a prior of your own asks for examples, and there are only facts.
        InputError: where a part asks for the number of levels, and the data have none; where several
            `latent_dim` are given to a program of one layer; where a network is a class and not an instance;
            where `sees_mask` is asked for, and the data have no missing entries.

    For data made with `missing=True`, p(x|z) and the encoder are put into `ObservedLikelihood` and
    `ObservedEncoder`, so that log p(x) is that of the observed entries. For data in the form `Standardised`,
    p(x|z) and q(z|x) are put into `StandardisedLikelihood` and `StandardisedPosterior`, so that log p(x) is a
    density of x in its own units. For others nothing is changed.

    >>> from pyro_vae import Digits, VampPrior
    >>> vae = assemble(Digits(), latent_dim=2, prior=partial(VampPrior, components=50))
    >>> vae.prior.pseudo_inputs.shape
    torch.Size([50, 1, 8, 8])
    """
    dims = counts("latent_dim", latent_dim if isinstance(latent_dim, Iterable) else (latent_dim,))
    if not dims:
        raise InputError("latent_dim expects a number or several, got none: give one for each layer of z")
    if upper_network is not None and len(dims) == 1:
        raise InputError(
            "upper_network is that between the layers of z, got one layer: give several latent_dim to "
            "HierarchicalVAE, or leave it out"
        )
    for name, given in (("network", network), ("upper_network", upper_network)):
        if given is not None and not isinstance(given, Architecture):
            raise InputError(
                f"{name} expects an instance, such as MLP((200, 200)), got {_name(given)}: call it"
            )
    made = _class(program)
    if isinstance(made, type) and issubclass(made, SemiSupervisedVAE):
        condition = label_of(data, dims, condition)
    kinds = _kinds(data, (condition,) if isinstance(condition, str) else condition or ())
    conditional = VAE | HierarchicalVAE | SemiSupervisedVAE
    if kinds and not (isinstance(made, type) and issubclass(made, conditional)):
        raise InputError(
            f"condition is an option of the programs VAE and HierarchicalVAE, got {_name(program)}: leave it "
            "out"
        )
    if sees_mask and not data.missing:
        raise InputError(
            "sees_mask shows the encoder which entries are observed, got data without missing ones: leave it "
            "out, or give the data missing=True (--data.missing true)"
        )
    likelihood = likelihood or default_likelihood(data)
    if data.columns:
        _check_fits_a_table(data, program, likelihood)
    parts = _Parts(
        data, dims, network or MLP(), upper_network or MLP(), prior, likelihood, posterior, kinds, sees_mask
    )
    parts.check_used(program)
    return _supply("program", program, parts.for_programs())


class _Parts:
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
            if _class(chosen) is not default and not {name, f"{name}s"} & asked.keys():
                raise InputError(
                    f"{_name(program)} has no {name}, got {_name(chosen)}: leave it out, or choose another "
                    "program"
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
            inner = _supply("posterior", self._posterior, facts)
            first: Posterior = GivenPosterior(inner, self.shapes[0], self.conditions)
        else:
            first = _supply("posterior", self._posterior, self._for_layer(0))
        above = [_supply("posterior", self._posterior, self._for_layer(layer)) for layer in self._layers[1:]]
        return [first, *above]

    @cached_property
    def likelihoods(self) -> list[Likelihood]:
        """Of all layers: p(x|z_1), p(z_1|z_2) and so on."""
        first = self._of_x()
        between = partial(NormalLikelihood, scale="per_pixel")
        above = [_supply("likelihood", between, self._for_layer(layer)) for layer in self._layers[1:]]
        return [self._of_data(first) if isinstance(first, Likelihood) else first, *above]

    def _of_x(self) -> Likelihood:
        """p(x|z_1), which depends on what is given where there are conditions."""
        if self.conditions is None:
            return _supply("likelihood", self._likelihood, self._for_layer(0))
        size = self.dims[0] + self.conditions.size
        facts = {
            **self._for_layer(0),
            "latent_dim": lambda: size,
            "decoder": lambda: self.networks[0].decoder(size, self.shapes[0]),
        }
        inner = _supply("likelihood", self._likelihood, facts)
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
        """The same of what the encoder sees: a table's encoder scales its columns itself."""
        return None if self.data.columns else self._scaling

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
        return _supply(
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
        """What an encoder sees in the place of a missing entry: the mean, which is 0 of standardised data."""
        if self.data.columns:
            return torch.tensor([column.typical for column in self.data.columns])
        if isinstance(self.data, DataFacts) or self._scaling:
            return torch.zeros(self.data.data_shape)  # to be replaced
        train = self.data.train
        return mean_of_observed(blocks(train.stored)) / train.maximum

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
                f"{_name(self._prior)} depends on what is given beside x, got no condition: give one, as "
                "condition='label'"
            )
        return self.conditions

    @torch.no_grad()
    def _examples(self) -> Tensor:
        """Training data as the uppermost posterior sees them: draws from those below it."""
        dtype = next(self.posteriors[-1].parameters()).dtype
        if isinstance(self.data, DataFacts):
            if not _class(self._prior).__module__.startswith("pyro_vae."):
                raise NeedsDataError(
                    f"{_name(self._prior)} starts from training data, got facts about them: give the data"
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


def default_likelihood(data: Dataset | DataFacts) -> type[Likelihood]:
    """The likelihood of data for which none is named."""
    return ColumnsLikelihood if data.columns else BernoulliLikelihood


def _check_fits_a_table(
    data: Dataset | DataFacts, program: Callable[..., object], likelihood: Callable[..., object]
) -> None:
    """Refuse a program without a likelihood, and one density for all entries where some are categories."""
    if not {"likelihood", "likelihoods"} & inspect.signature(program).parameters.keys():
        raise InputError(f"{_name(program)} has no likelihood for the columns of a table: use VAE")
    words = [column.name for column in data.columns if column.kind == "category"]
    made = _class(likelihood)
    if words and made.__module__.startswith("pyro_vae.") and made is not ColumnsLikelihood:
        raise InputError(
            f"{_name(likelihood)} is of numbers, got a table with the category {words[0]!r}: use "
            "ColumnsLikelihood, which has a density for each kind of column"
        )


def _kinds(data: Dataset | DataFacts, names: Iterable[str]) -> dict[str, int | tuple[int, ...]]:
    """The number of classes, or the shape of the numbers, of fields of the data."""
    kinds, found = data.field_kinds, dict[str, int | tuple[int, ...]]()
    for name in names:
        if name not in kinds:
            raise InputError(
                f"condition expects names of fields of the data, got {name!r} for {data.name} with "
                f"{', '.join(kinds) or 'none'}: choose among these, or give the data the field"
            )
        shape, classes = kinds[name]
        found[name] = shape if classes is None else classes
    return found


def _levels(data: Dataset | DataFacts) -> int:
    """The number of grey levels, refused where there is none."""
    if data.levels is None:
        raise InputError(
            f"a likelihood of levels needs data with levels, got {data.name} {data.protocol}: put whole "
            "numbers into the form Levels (data.in_form(pv.Levels()), --data.form Levels), or use a "
            "continuous likelihood as NormalLikelihood"
        )
    return data.levels


def _supply(role: str, component: Callable[..., T], facts: Mapping[str, Callable[[], object]]) -> T:
    """Call `component` with those facts that its signature names and that are not bound already.

    Raises:
        InputError: where it needs a parameter that is no fact for a part of this role.
    """
    bound = component.keywords if isinstance(component, partial) else {}
    asked = {
        name: parameter
        for name, parameter in inspect.signature(component).parameters.items()
        if name not in bound and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    known = {name: make for name, make in facts.items() if name in FACTS[role]}
    missing = [name for name, given in asked.items() if given.default is given.empty and name not in known]
    if missing:
        raise InputError(
            f"the {role} {_name(component)} needs {', '.join(missing)}, which is not filled in: give it a "
            f"default or a value (filled in are {', '.join(sorted(known))})"
        )
    return component(**{name: make() for name, make in known.items() if name in asked})


def _class(component: Callable[..., object]) -> Callable[..., object]:
    """What is called in the end, where `component` may be a `partial` of it."""
    return component.func if isinstance(component, partial) else component


def _name(component: Callable[..., object]) -> str:
    made = _class(component)
    return getattr(made, "__name__", repr(made))
