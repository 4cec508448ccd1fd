"""log p of some entries given others."""

import torch
from torch import Tensor

from pyro_vae.batch import Batch, Given
from pyro_vae.errors import InputError
from pyro_vae.importance import log_evidence
from pyro_vae.imputation.results import LogConditional
from pyro_vae.programs import Program, one_at_a_time


@one_at_a_time
@torch.no_grad()
def log_conditional(
    model: Program,
    guide: Program,
    x: Tensor | Batch,
    known: Tensor,
    *,
    given: Given | None = None,
    num_particles: int = 1000,
    rows: int | None = None,
    data_plate: str | None = None,
) -> LogConditional:
    """Log p(x_a|x_b) of each datum: log p(x_a, x_b) − log p(x_b), each by `log_evidence`.

    x_b are the entries at `known`, x_a all others that are not NaN, so any two sets of entries can be had by
    NaN in the place of the rest. Both terms are low on average, by about half the squared standard error of
    each, so the difference can err either way.

    Args:
        model: Pyro program of p(x, z) that leaves NaN out, called as `model(x, **given)`.
        guide: Pyro program of q(z|x) that takes x with NaN, called likewise.
        x: Data (B, *data_shape), NaN where not observed, on the device of the programs.
        known: Whether an entry is in x_b, (*data_shape) or (B, *data_shape), bool.
        given: What lies beside x, by the programs' arguments: tensors (B, …), or constants.
        num_particles: Draws per datum and term.
        rows: Draws handled at once, as in `log_evidence`.
        data_plate: Name of the plate of the data; by default "data", or the one of their size.

    Raises:
        InputError: as `log_evidence`; where x is not of floats, or `known` not of bool, or of another shape.

    >>> from pyro_vae import Dataset, NormalLikelihood, assemble
    >>> x = torch.randn(40, 3)
    >>> vae = assemble(Dataset(x, missing=True), likelihood=NormalLikelihood)
    >>> known = torch.tensor([True, False, False])
    >>> found = log_conditional(vae.model, vae.guide, x[:5], known, num_particles=100)
    >>> found.num_entries.tolist()
    [2, 2, 2, 2, 2]
    """
    data = Batch.of(x, given)
    if not data.x.is_floating_point():
        raise InputError(f"expected x of floats, NaN where not observed, got {data.x.dtype}: use .float()")
    shapes = (data.x.shape, data.x.shape[1:])
    if not isinstance(known, Tensor) or known.dtype != torch.bool or known.shape not in shapes:
        got = f"{known.dtype} {tuple(known.shape)}" if isinstance(known, Tensor) else type(known).__name__
        raise InputError(
            f"known expects a tensor of bool of shape {tuple(shapes[1])} or {tuple(shapes[0])}, got {got}"
        )
    known = known.to(data.x.device)
    there = Batch(torch.where(known, data.x, torch.nan), data.given)
    both, alone = (
        log_evidence(model, guide, each, num_particles=num_particles, rows=rows, data_plate=data_plate)
        for each in (data, there)
    )
    entries = (~data.x.isnan() & ~known).flatten(1).sum(1)
    return LogConditional(
        both.estimate - alone.estimate,
        torch.hypot(both.standard_error, alone.standard_error),
        torch.maximum(both.pareto_k, alone.pareto_k),
        entries,
    )
