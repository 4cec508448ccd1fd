"""A joint program made of classes: what their constructors must know is filled in by name."""

import inspect
from collections.abc import Callable, Iterable
from typing import TypeVar, overload

from pyro_vae.data import DataFacts, Dataset
from pyro_vae.errors import InputError, counts
from pyro_vae.likelihoods import (
    ColumnsLikelihood,
    Likelihood,
)
from pyro_vae.networks import (
    MLP,
    Architecture,
)
from pyro_vae.posteriors import DiagonalNormalPosterior, Posterior
from pyro_vae.priors import Prior, StandardNormalPrior
from pyro_vae.vae.hierarchical import HierarchicalVAE
from pyro_vae.vae.labels import label_of
from pyro_vae.vae.parts import Parts, default_likelihood
from pyro_vae.vae.program import JointProgram
from pyro_vae.vae.semi_supervised import SemiSupervisedVAE
from pyro_vae.vae.supplying import class_of, name_of, supply
from pyro_vae.vae.vae import VAE

P = TypeVar("P", bound=JointProgram)


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
    density of x in its own units. Of grey levels from 0 to 1, more than two, q(z|x) sees 2(x − m), by a
    `StandardisedPosterior`, with m the mean of each pixel over up to 1000 training data. For others nothing
    is changed.

    >>> from functools import partial
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
                f"{name} expects an instance, such as MLP((200, 200)), got {name_of(given)}: call it"
            )
    made = class_of(program)
    if isinstance(made, type) and issubclass(made, SemiSupervisedVAE):
        condition = label_of(data, dims, condition)
    kinds = _kinds(data, (condition,) if isinstance(condition, str) else condition or ())
    conditional = VAE | HierarchicalVAE | SemiSupervisedVAE
    if kinds and not (isinstance(made, type) and issubclass(made, conditional)):
        raise InputError(
            f"condition is an option of the programs VAE and HierarchicalVAE, got {name_of(program)}: leave "
            "it out"
        )
    if sees_mask and not data.missing:
        raise InputError(
            "sees_mask shows the encoder which entries are observed, got data without missing ones: leave it "
            "out, or give the data missing=True (--data.missing true)"
        )
    likelihood = likelihood or default_likelihood(data)
    if data.columns:
        _check_fits_a_table(data, program, likelihood)
    parts = Parts(
        data, dims, network or MLP(), upper_network or MLP(), prior, likelihood, posterior, kinds, sees_mask
    )
    parts.check_used(program)
    return supply("program", program, parts.for_programs())


def _check_fits_a_table(
    data: Dataset | DataFacts, program: Callable[..., object], likelihood: Callable[..., object]
) -> None:
    """Refuse a program without a likelihood, and one density for all entries where some are categories."""
    if not {"likelihood", "likelihoods"} & inspect.signature(program).parameters.keys():
        raise InputError(f"{name_of(program)} has no likelihood for the columns of a table: use VAE")
    words = [column.name for column in data.columns if column.kind == "category"]
    made = class_of(likelihood)
    if words and made.__module__.startswith("pyro_vae.") and made is not ColumnsLikelihood:
        raise InputError(
            f"{name_of(likelihood)} is of numbers, got a table with the category {words[0]!r}: use "
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
