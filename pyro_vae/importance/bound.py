"""Log weights and the ELBO."""

from collections.abc import Iterator
from typing import TypeVar

import torch
from torch import Tensor

from pyro_vae.batch import Batch, Given
from pyro_vae.errors import count
from pyro_vae.importance.halving import Halving
from pyro_vae.importance.results import ELBOEstimate
from pyro_vae.precision import home, wide
from pyro_vae.programs import Pair, Program, one_at_a_time

Data = TypeVar("Data", Tensor, Batch)


@one_at_a_time
@torch.no_grad()
def log_weights(
    model: Program,
    guide: Program,
    x: Tensor | Batch,
    num_particles: int,
    *,
    given: Given | None = None,
    data_plate: str | None = None,
) -> Tensor:
    """Log w = log p(x, z) − log q(z|x) at K draws z ~ q(z|x): (K, B).

    Scales set by handlers (a KL weight, a subsampling plate) are left out: the weights are those of the
    density itself. Masks count. Discrete sites marked `infer={"enumerate": "parallel"}` are summed out,
    Σ_y p(x, z, y) / q(z|x, y), in the guide as in the model.

    Args:
        model: Pyro program of p(x, z), called as `model(x, **given)`.
        guide: Pyro program of q(z|x), called likewise.
        x: One batch (B, *data_shape).
        num_particles: K.
        given: What lies beside x, by the programs' arguments: tensors (B, …), or constants.
        data_plate: Name of the plate of the data; by default "data", or the one of their size.

    Raises:
        InputError: where a program cannot be run, or its arguments are others; where it couples data with one
            another, or has another density at each run; where a site lies outside the plate of the data, or
            its shape does not fit its plates; where model and guide differ in their latent sites; where x
            lies outside the support; where the model says that it is no density, as an `Autoencoder`.

    Warns:
        UserWarning: where a program must be run on repeated data, which takes longer.

    >>> from pyro_vae import Digits, assemble
    >>> data = Digits()
    >>> vae, x = assemble(data), data.test.batch()[:4]
    >>> log_w = log_weights(vae.model, vae.guide, x, 50)
    >>> log_w.shape
    torch.Size([50, 4])
    >>> bound = log_w.logsumexp(0) - torch.tensor(50.0).log()  # log 1/K Σ_k w_k
    >>> bool((bound >= log_w.mean(0)).all())
    True
    """
    batch = Batch.of(x, given)
    pair = Pair(model, guide, batch, density=True, data_plate=data_plate)
    return pair.log_weights(batch, count("num_particles", num_particles), validate=True)


@one_at_a_time
@torch.no_grad()
def elbo(
    model: Program,
    guide: Program,
    x: Tensor | Batch,
    *,
    given: Given | None = None,
    num_particles: int = 1,
    rows: int | None = None,
    data_plate: str | None = None,
) -> ELBOEstimate:
    """The ELBO of each datum, split into reconstruction and KL, by `num_particles` draws.

    Kingma & Welling (2014), eq. 3, with the KL estimated by sampling, so that it holds for any pair of
    programs. What the model enumerates is summed out, and what the guide does is taken in expectation.

    Args:
        model: Pyro program of p(x, z), called as `model(x, **given)` with batches of any size.
        guide: Pyro program of q(z|x), called likewise.
        x: Data (B, *data_shape).
        given: What lies beside x, by the programs' arguments: tensors (B, …), or constants.
        num_particles: Draws of z per datum.
        rows: Draws handled at once; by default as many as fit a CPU's cache, 5000 at the most.
        data_plate: Name of the plate of the data; by default "data", or the one of their size.

    Raises:
        InputError: as `log_weights`, but for what has no density.

    >>> from pyro_vae import Digits, assemble
    >>> data = Digits()
    >>> vae = assemble(data)
    >>> terms = elbo(vae.model, vae.guide, data.test.batch())
    >>> bool(torch.allclose(terms.elbo, terms.reconstruction - terms.kl))
    True
    """
    batch = Batch.of(x, given)
    return elbo_of(Pair(model, guide, batch, data_plate=data_plate), batch, num_particles, rows)


@torch.no_grad()
def elbo_of(
    pair: Pair, data: Batch, num_particles: int = 1, rows: int | None = None, *, validate: bool = True
) -> ELBOEstimate:
    """As `elbo`, of a pair of programs that has been looked into; with `validate` a first draw is checked."""
    count("num_particles", num_particles)
    parts, within_memory = [], Halving(bool(pair.whole))
    for batch, chunks in chunks_of(data, num_particles, pair.rows if rows is None else rows, pair.whole):
        sums = torch.zeros(2, len(batch), dtype=torch.float64, device=home(data.device))
        for number, draws in enumerate(chunks):

            def terms(part: Batch, draws: int, first: bool = validate and number == 0) -> Tensor:
                return torch.stack(pair.elbo_terms(part, draws, validate=first))

            log_px, log_pz, log_qz = within_memory(terms, batch, draws)
            sums += torch.stack([wide(log_px).sum(0), wide(log_qz - log_pz).sum(0)])
        parts.append(sums / num_particles)
    reconstruction, kl = torch.cat(parts, dim=1)
    return ELBOEstimate(reconstruction - kl, reconstruction, kl)


def chunks_of(x: Data, num_particles: int, rows: int, whole: int = 0) -> Iterator[tuple[Data, list[int]]]:
    """Batches of data, or of their places, each with numbers of draws that add up to `num_particles`.

    `rows` rows at the most, but batches of `whole` data at the least.
    """
    # up to 256 draws of a datum, beside which one run of its encoder costs nothing
    size = max(count("rows", rows) // min(num_particles, 256), 1, whole)
    for batch in x.split(size):
        chunk = max(rows // len(batch), 1)
        full, rest = divmod(num_particles, chunk)
        yield batch, [chunk] * full + [rest] * (rest > 0)
