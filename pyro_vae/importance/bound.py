"""Log weights and the ELBO."""

from collections.abc import Iterator

import torch
from torch import Tensor

from pyro_vae.errors import count
from pyro_vae.importance.results import ELBO
from pyro_vae.programs import Pair, Program


@torch.no_grad()
def log_weights(model: Program, guide: Program, x: Tensor, num_particles: int) -> Tensor:
    """Log w = log p(x, z) − log q(z|x) at K draws z ~ q(z|x): (K, B).

    Scales set by handlers (a KL weight, a subsampling plate) are left out: the weights are those of the
    density itself. Masks count.

    Args:
        model: Pyro program of p(x, z), called with x.
        guide: Pyro program of q(z|x), called with x.
        x: One batch (B, *data_shape).
        num_particles: K.

    Raises:
        InputError: where a site lies outside the plate "data", or its shape does not fit its plates;
            where model and guide differ in their latent sites; where x lies outside the support; where the
            model says that it is no density, as an `Autoencoder`.
    """
    pair = Pair(model, guide, x, density=True)
    return pair.log_weights(x, count("num_particles", num_particles), validate=True)


@torch.no_grad()
def elbo(
    model: Program, guide: Program, x: Tensor, *, num_particles: int = 1, rows: int | None = None
) -> ELBO:
    """The ELBO of each datum, split into reconstruction and KL, by `num_particles` draws.

    Kingma & Welling (2014), eq. 3, with the KL estimated by sampling, so that it holds for any pair of
    programs.

    Args:
        model: Pyro program of p(x, z), called with batches of x of any size.
        guide: Pyro program of q(z|x), called likewise.
        x: Data (B, *data_shape).
        num_particles: Draws of z per datum.
        rows: Draws handled at once; by default as many as fit a CPU's cache, 5000 at the most.

    >>> from pyro_vae import Digits, assemble
    >>> data = Digits()
    >>> vae = assemble(data)
    >>> terms = elbo(vae.model, vae.guide, data.test.batch())
    >>> bool(torch.allclose(terms.elbo, terms.reconstruction - terms.kl))
    True
    """
    count("num_particles", num_particles)
    pair = Pair(model, guide, x)
    parts = []
    for batch, chunks in chunks_of(x, num_particles, pair.rows if rows is None else rows):
        sums = torch.zeros(2, len(batch), dtype=torch.float64, device=x.device)
        for number, draws in enumerate(chunks):
            log_px, log_pz, log_qz = pair.log_probs(batch, draws, validate=number == 0)
            sums += torch.stack([log_px.double().sum(0), (log_qz - log_pz).double().sum(0)])
        parts.append(sums / num_particles)
    reconstruction, kl = torch.cat(parts, dim=1)
    return ELBO(reconstruction - kl, reconstruction, kl)


def chunks_of(x: Tensor, num_particles: int, rows: int) -> Iterator[tuple[Tensor, list[int]]]:
    """Batches of x, each with numbers of draws that add up to `num_particles`, `rows` rows at the most."""
    # up to 256 draws of a datum, beside which one run of its encoder costs nothing
    size = max(count("rows", rows) // min(num_particles, 256), 1)
    for batch in x.split(size):
        chunk = rows // len(batch)
        full, rest = divmod(num_particles, chunk)
        yield batch, [chunk] * full + [rest] * (rest > 0)
