"""log p(x) by importance sampling."""

import math
import shutil
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from tqdm import tqdm

from pyro_vae.compiled import FlatFunction
from pyro_vae.errors import InputError, count
from pyro_vae.importance.bound import chunks_of
from pyro_vae.importance.results import LogEvidence
from pyro_vae.programs import Pair, Program


@torch.no_grad()
def log_evidence(
    model: Program,
    guide: Program,
    x: Tensor,
    *,
    num_particles: int = 1000,
    rows: int | None = None,
    compile: Literal["auto", "flat", "inductor", "off"] = "auto",
    progress: bool = False,
) -> LogEvidence:
    """Log p(x) of each datum by importance sampling from the guide.

    log p̂(x) = log 1/K Σ_k w_k with w_k = p(x, z_k) / q(z_k|x), z_k ~ q(z|x). Exactly K draws per datum,
    made `rows` at a time into running sums of w and w², so memory depends neither on K nor on B.
    The standard error is √(K/(K−1) · (Σw²/(Σw)² − 1/K)). It is honest only while the weights have a
    finite variance: where q misses mass, the estimate is low and the standard error cannot know.
    Rezende, Mohamed & Wierstra (2014), appendix E; Burda, Grosse & Salakhutdinov (2016).

    Args:
        model: Pyro program of p(x, z), called with batches of x of any size.
        guide: Pyro program of q(z|x), called likewise.
        x: Data (B, *data_shape), on the device of the programs.
        num_particles: K, draws per datum.
        rows: Draws handled at once; by default 1250 at the most on a CPU, a GiB of them on a GPU.
        compile: `off` runs the Pyro programs, `flat` the torch operations that they consist of, on a CPU the
            faster ones that agree up to rounding, `inductor` compiles these; `auto` takes what pays.
        progress: Show a progress bar.

    Raises:
        InputError: as `log_weights`; and where x is empty or a number is not positive.

    >>> from pyro_vae import Digits, assemble
    >>> data = Digits()
    >>> vae = assemble(data)
    >>> log_evidence(vae.model, vae.guide, data.test.batch()[:4], num_particles=10).estimate.shape
    torch.Size([4])
    """
    count("num_particles", num_particles)
    pair = Pair(model, guide, x, density=True)
    work = list(chunks_of(x, num_particles, pair.flat_rows if rows is None else rows))
    flat = _flat(compile, sum(len(chunks) for _, chunks in work))
    # float64: at log w of −2000 a float32 sum would no longer see one more weight among ten thousand
    sums = torch.full((2, len(x)), -math.inf, dtype=torch.float64, device=x.device)
    start = 0
    with tqdm(total=len(x) * num_particles, unit="draw", unit_scale=True, disable=not progress) as bar:
        for batch, chunks in work:
            part = sums[:, start : start + len(batch)]
            for number, draws in enumerate(chunks):
                if flat is None:
                    log_w = pair.log_weights(batch, draws, validate=number == 0).double()
                else:
                    if number == 0:
                        pair.check(batch)
                    log_weights = partial(pair.log_weights, num_particles=draws, validate=False)
                    log_w = flat(log_weights, batch, draws).double()
                torch.logaddexp(part, torch.stack([log_w.logsumexp(0), (2 * log_w).logsumexp(0)]), out=part)
                bar.update(draws * len(batch))
            start += len(batch)
    return _summarise(sums[0], sums[1], num_particles)


def _summarise(log_sum: Tensor, log_sum_squares: Tensor, num_particles: int) -> LogEvidence:
    """From log Σ w and log Σ w², (B,) each."""
    inverse_ess = (log_sum_squares - 2 * log_sum).exp()
    variance = (inverse_ess - 1 / num_particles).clamp(min=0)
    correction = num_particles / (num_particles - 1) if num_particles > 1 else math.nan
    return LogEvidence(
        log_sum - math.log(num_particles), (variance * correction).sqrt(), 1 / inverse_ess, num_particles
    )


def _flat(compile: str, chunks: int) -> FlatFunction | None:
    """How chunks are computed, by how many there are: a graph takes a second to build, a compiler ten."""
    if compile not in ("auto", "flat", "inductor", "off"):
        raise InputError(f"compile expects 'auto', 'flat', 'inductor' or 'off', got {compile!r}")
    if compile == "off" or (compile == "auto" and chunks < 50):
        return None
    compiler = shutil.which("g++") is not None
    inductor = compile == "inductor" or (compile == "auto" and chunks >= 2000 and compiler)
    return FlatFunction(fast=True, inductor=inductor, who="log_evidence")
