"""log p(x) by importance sampling."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_vae.batch import Batch, Given
from pyro_vae.compiled import Compile
from pyro_vae.errors import InputError, count, draws
from pyro_vae.importance.estimation import Estimation, Proposal, Proposed, identity_of, local_of
from pyro_vae.importance.results import LogEvidence, warn_of_zeros
from pyro_vae.programs import Program, one_at_a_time, say
from pyro_vae.progress import progress_bar
from pyro_vae.storage.resumable import Resumable


@one_at_a_time
@torch.no_grad()
def log_evidence(
    model: Program,
    guide: Program,
    x: Tensor | Batch,
    *,
    given: Given | None = None,
    num_particles: int = 1000,
    until_standard_error: float | None = None,
    proposal: Proposal = "guide",
    rows: int | None = None,
    compile: Compile = "auto",
    data_plate: str | None = None,
    checkpoint: str | Path | None = None,
    progress: bool | None = None,
) -> LogEvidence:
    """Log p(x) of each datum by importance sampling from the guide or a fitted proposal, with its diagnosis.

    log p̂(x) = log 1/K Σ_k w_k with w_k = p(x, z_k) / r(z_k), z_k ~ r(z). r is q(z|x); with
    `proposal="local"` it is fitted to each datum, as `LocalProposal` says, which costs as much as
    some 1500 draws and gives what a hundred times as many from q(z|x) may not. Exactly K draws of each,
    made `rows` at a time into running sums of w and w² and the at most 1000 largest weights, so memory
    does not depend on K. The standard error is √(K/(K−1) · (Σw²/(Σw)² − 1/K)). It is honest only while the
    weights have a finite variance, which their tail has for k below 0.5; up to 0.7 it is too small, above it
    says nothing. k̂ is fitted to the draws made: of a region that r never visits neither can know. The draws
    are independent of the fit and of the pilot, so that E p̂(x) = p(x): `certificate` of the result is a
    lower bound on the mean log p(x) that assumes nothing about tails. Rezende,
    Mohamed & Wierstra (2014), appendix E; Burda, Grosse & Salakhutdinov (2016); k̂ by Vehtari, Simpson,
    Gelman, Yao & Gabry (2024), Pareto smoothed importance sampling.

    Args:
        model: Pyro program of p(x, z), called as `model(x, **given)` with batches of any size.
        guide: Pyro program of q(z|x), called likewise.
        x: Data (B, *data_shape), on the device of the programs.
        given: What lies beside x, by the programs' arguments: tensors (B, …), or constants.
        num_particles: K, draws per datum; with `until_standard_error` at the most.
        until_standard_error: Draw each datum as often as it takes for a Monte Carlo standard error of at most
            this, in nats: 1000, 2000, 4000, … draws, so that data that are easy cost little. A pilot with
            draws of its own chooses how many, and those that count are fresh, so that the choice makes no
            estimate lower or higher. A warning says how many data do not get there.
        proposal: `guide` draws from q(z|x), `local` from a proposal fitted to each datum, by the defaults of
            `LocalProposal`, or one of these with other options.
        rows: Draws handled at once; by default 1250 at the most on a CPU, a GiB of them on a GPU.
        compile: `off` runs the Pyro programs, `flat` the torch operations that they consist of, on a CPU the
            faster ones that agree up to rounding, `inductor` compiles these; `auto` takes what pays.
        data_plate: Name of the plate of the data; by default "data", or the one of their size.
        checkpoint: A file in which the state is kept every ten seconds and on Ctrl-C. The same call goes on
            from it, to the very numbers of a call that was never interrupted; at the end it is removed.
        progress: Show a progress bar; by default in a terminal and in a notebook.

    Raises:
        InputError: as `log_weights`; where no latent can be fitted; where x is empty or of 16 bits, a number
            is not positive, or a weight is NaN or infinite; and where `checkpoint` is of other data, settings
            or parameters.

    >>> from pyro_vae import Digits, assemble
    >>> data = Digits()
    >>> vae = assemble(data)
    >>> result = log_evidence(vae.model, vae.guide, data.test.batch()[:4], num_particles=50)
    >>> result.estimate.shape, result.pareto_k.shape, result.curve.num_particles
    (torch.Size([4]), torch.Size([4]), (1, 2, 5, 10, 20, 50))
    >>> x = data.test.batch()[:4]
    >>> log_evidence(vae.model, vae.guide, x, num_particles=50, proposal="local").certificate() < 0
    True
    """
    most = draws("num_particles", num_particles)
    until = None if until_standard_error is None else _positive(until_standard_error)
    local, data = local_of(proposal), Batch.of(x, given)
    proposed = Proposed.of(model, guide, data, local, compile=compile, data_plate=data_plate)
    rows = proposed.pair.flat_rows if rows is None else count("rows", rows)
    work = Estimation(proposed, data, most, rows=rows, until=until)
    settings: dict[str, Any] = {}
    if checkpoint is not None:
        asked = {"num_particles": most, "until_standard_error": until, "rows": rows, "compile": compile}
        settings = {**asked, "proposal": str(local or "guide"), **identity_of(proposed.pair, data)}
    with (
        Resumable(checkpoint, settings, data.device) as kept,
        progress_bar(progress, desc="log p(x)", unit="draws", unit_scale=True) as bar,
    ):
        result = work.run(kept, bar)
    _warn(result, until, most)
    return result


def _positive(error: float) -> float:
    if isinstance(error, bool) or not isinstance(error, int | float) or not 0 < error < math.inf:
        raise InputError(f"until_standard_error expects a positive number of nats, got {error}")
    return float(error)


def _warn(result: LogEvidence, until: float | None, most: int) -> None:
    """Say what the result lacks."""
    warn_of_zeros(result.estimate, f"draws from the {result.proposal}")
    if until is None:
        return
    total, missed = len(result.estimate), ~(result.standard_error <= until)
    at_most = result.num_particles == most
    if number := int((missed & at_most).sum()):
        say(
            f"{number} of {total} data have a Monte Carlo standard error above {until:g} after {most} draws: "
            "allow more by num_particles, or improve the guide"
        )
    if number := int((missed & ~at_most).sum()):
        say(
            f"{number} of {total} data have a Monte Carlo standard error above {until:g}, which is larger "
            "than the pilot foretold: ask for a smaller until_standard_error, or use proposal='local'"
        )
