"""Nothing but the matrix products of a step or an estimate: what no implementation can go below."""

from collections.abc import Callable

import torch
from torch import Tensor

from experiments.benchmarks.cases import Product, evidence_products, step_products
from experiments.benchmarks.contender import Contender, LeftOut, Task
from experiments.benchmarks.variants.plain import device_memory, wait

#: Rows that importance sampling handles at once.
ROWS = 5000


def torch_mm(task: Task) -> Contender:
    """By torch.mm: MKL or OpenBLAS on a CPU, cuBLAS on a GPU."""

    def prepare(m: int, k: int, n: int) -> Callable[[], Tensor]:
        a, b, out = (torch.rand(*shape, device=task.device) for shape in ((m, k), (n, k), (m, n)))
        return lambda: torch.mm(a, b.t(), out=out)

    return _contender(task, prepare)


def onednn(task: Task) -> Contender:
    """By oneDNN, which on AMD's CPUs can be twice as fast as MKL."""
    if not torch.backends.mkldnn.is_available():
        raise LeftOut("this build of torch has no oneDNN")

    def prepare(m: int, k: int, n: int) -> Callable[[], Tensor]:
        a, b = torch.rand(m, k), torch.rand(n, k)
        return lambda: torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")

    return _contender(task, prepare)


def _contender(task: Task, prepare: Callable[[int, int, int], Callable[[], Tensor]]) -> Contender:
    products, repeats = _products(task)
    calls = [prepare(*each) for each in products]

    @torch.no_grad()
    def run(number: int) -> None:
        for _ in range(number * repeats):
            for call in calls:
                call()
        wait(task.device)

    return Contender(run, device_memory=device_memory(task.device))


def _products(task: Task) -> tuple[list[Product], int]:
    """The products, and how often they are done in one unit of work."""
    case = task.case
    if case.kind == "steps":
        return step_products(case.network, case.batch), 1
    rows = min(ROWS, case.particles)
    return evidence_products(case.network, rows), case.batch * case.particles // rows
