"""The time of a leapfrog step of annealing next to that of the bare gradient by PyTorch.

    python experiments/benchmarks/annealing.py

All run interleaved in one process: A B C A B C … A transition of ten leapfrog steps is timed as a whole, with
momenta, acceptance and the choice of the states, and divided by ten.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[2]))

import pyro_vae as pv
from experiments.benchmarks.results import circumstances
from experiments.markdown import markdown
from experiments.records import renew
from pyro_vae.annealing.hmc import transition
from pyro_vae.annealing.options import AnnealingOptions
from pyro_vae.annealing.path import AnnealingPath
from pyro_vae.compiled import Compile
from pyro_vae.programs import Latents
from pyro_vae.storage.files import write

HERE = Path(__file__).parent
#: Hidden layers and length of z of a model of 28×28 pixels, and how many data.
CASES = {
    "784-400-20, 1 datum": ((400,), 20, 1),
    "784-400-20, 100 data": ((400,), 20, 100),
    "784-200-200-8, 100 data": ((200, 200), 8, 100),
}
SMOKE = {"784-10-2, 3 data": ((10,), 2, 3)}
MODES: tuple[Compile, ...] = ("off", "flat", "inductor")
CHAINS, LEAPFROG_STEPS = 16, 10

Work = Callable[[], object]


def contenders(hidden_dims: tuple[int, ...], latent_dim: int, num_data: int, smoke: bool) -> dict[str, Work]:
    """What is timed, by name; each takes ten gradients at the same points."""
    torch.manual_seed(0)
    shape, network = (1, 28, 28), pv.MLP(hidden_dims, nn.Softplus)
    vae = pv.VAE(
        pv.StandardNormalPrior(latent_dim),
        pv.BernoulliLikelihood(network.decoder(latent_dim, shape), shape),
        pv.DiagonalNormalPosterior(network.encoder(shape), latent_dim),
    )
    x = torch.randint(2, (num_data, *shape)).float()
    u = torch.randn(CHAINS, num_data, latent_dim)
    loss = by_hand(vae, x)
    found: dict[str, Work] = {"PyTorch eager": partial(gradients, loss, u)}
    if not smoke:
        found["PyTorch `torch.compile`"] = partial(gradients, torch.compile(loss), u)
    for mode in MODES[:2] if smoke else MODES:
        found[f"pyro_vae, compile {mode}"] = ours(vae, x, u, mode)
    return found


def by_hand(vae: pv.VAE, x: Tensor) -> Callable[[Tensor], Tensor]:
    """−log p(x, z), summed, up to a constant, as one writes it in PyTorch."""
    decoder: Any = vae.likelihood.decoder.layers
    weights = [
        (layer.weight.detach(), layer.bias.detach()) for layer in decoder if isinstance(layer, nn.Linear)
    ]
    head: Any = vae.likelihood.logits
    weight, bias = (parameter.detach() for parameter in head.parameters())
    target = x.flatten(1)

    def loss(z: Tensor) -> Tensor:
        h = z
        for each in weights:
            h = F.softplus(F.linear(h, *each))
        logits = F.linear(h, weight, bias)
        lost = F.binary_cross_entropy_with_logits(logits, target.expand_as(logits), reduction="sum")
        return lost + z.square().sum() / 2

    return loss


def gradients(loss: Callable[[Tensor], Tensor], u: Tensor) -> None:
    """As many bare gradients as a transition takes."""
    for _ in range(LEAPFROG_STEPS):
        z = u.clone().requires_grad_()
        torch.autograd.grad(loss(z), z)


def ours(vae: pv.VAE, x: Tensor, u: Tensor, mode: Compile) -> Work:
    """A transition of annealing from the prior."""
    batch = pv.Batch(x)
    latents = Latents(vae.model, vae.guide, batch)
    path = AnnealingPath(
        latents,
        batch,
        AnnealingOptions(CHAINS, 1, "prior", "linear", LEAPFROG_STEPS, 0.65, None, mode),
        gradients=1,
    )
    beta, size = torch.full((len(x),), 0.5), torch.full((len(x),), 0.01)
    scale = torch.ones_like(u[0])
    return partial(transition, path, path.point(u), beta, size, scale, LEAPFROG_STEPS)


def race(works: dict[str, Work], rounds: int, *, per_work: int = LEAPFROG_STEPS) -> dict[str, list[float]]:
    """Milliseconds of each, in turns, divided by `per_work`; the first turn does not count."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds + 1):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            times[name].append((time.perf_counter() - start) * 1e3 / per_work)
    return {name: found[1:] for name, found in times.items()}


def table(cases: dict[str, dict[str, list[float]]]) -> str:
    """Ratios of medians to PyTorch eager, with its milliseconds."""
    medians = {
        case: {name: statistics.median(each) for name, each in rows.items()} for case, rows in cases.items()
    }
    rows = [["time per gradient", *cases]]
    for name in dict.fromkeys(name for found in medians.values() for name in found):
        first = [found["PyTorch eager"] for found in medians.values()]
        cells = [f"{found[name] / each:.2f}" for found, each in zip(medians.values(), first, strict=True)]
        if name == "PyTorch eager":
            cells = [f"1.00 ({each:.2f} ms)" for each in first]
        rows.append([name, *cells])
    return markdown(rows)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "cpu")
    parser.add_argument("--smoke", action="store_true", help="a tiny model, without compilers")
    options = parser.parse_args(arguments)
    cases = SMOKE if options.smoke else CASES
    found = {name: race(contenders(*case, options.smoke), options.rounds) for name, case in cases.items()}
    about = circumstances("cpu", None, "random bits")
    write(options.out / "annealing.json", json.dumps({"about": about, "cases": found}).encode())
    print(table(found))
    renew(HERE / "README.md", {"annealing": table(found)}, options.out, HERE / "results" / "cpu")
    return 0


if __name__ == "__main__":
    sys.exit(main())
