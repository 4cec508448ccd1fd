"""Numbers that programs read from tensors which they hold: a flat graph is for these numbers only."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import Tensor, nn

from tests.plain_pyro import guide_of, model, trains_as_plain_pyro

TABLE = torch.linspace(0.5, 2.5, 20)


def late(tensor: Tensor) -> Callable[[int], None]:
    """Changes a tensor in place, after the graph has been checked."""

    def before(step: int) -> None:
        if step == 5:
            tensor.add_(1)

    return before


ONE, TWO = torch.tensor(1.0), torch.tensor(2)
READS: dict[str, tuple[Callable[[Tensor, Any], Any], Tensor]] = {
    "index": (lambda x, n: TABLE[n], TWO),
    "index of a view": (lambda x, n: TABLE[n[0]], torch.tensor([2, 3])),
    "slice": (lambda x, n: TABLE[: n + 1].sum(), TWO),
    "slice from": (lambda x, n: TABLE[n:].sum(), TWO),
    "full": (lambda x, b: torch.full((len(x),), b), ONE),
    "alpha": (lambda x, b: torch.add(x, x, alpha=b), ONE),
    "arange": (lambda x, n: torch.arange(n).sum(), TWO),
    "range": (lambda x, n: sum(TABLE[i] for i in range(n)), TWO),
    "split": (lambda x, n: torch.tensor_split(TABLE, n)[0].sum(), TWO),
    "split at": (lambda x, n: torch.tensor_split(TABLE, n)[1].sum(), torch.tensor([2, 4])),
    "narrow": (lambda x, n: TABLE.narrow(0, n, 2).sum(), TWO),
    "linspace": (lambda x, b: torch.linspace(0, b, len(x)), ONE),
    "power": (lambda x, b: 1.1**b, ONE),
    "item": (lambda x, b: b.item() * 0.5, ONE),
    "int item": (lambda x, n: TABLE[n.item()], TWO),
    "float": (lambda x, b: float(b) * 0.5, ONE),
    "bool": (lambda x, b: 1.0 if b > 2 else 2.0, ONE),
    "if": (lambda x, n: 1.0 if n % 2 else 2.0, TWO),
    "where": (lambda x, b: torch.where(x > 0, float(b), 0.5), ONE),
    "equal": (lambda x, b: float(torch.equal(b, torch.tensor(1.0))), ONE),
    "max": (lambda x, b: max(b, torch.tensor(2.0)), ONE),
    "clamp": (lambda x, b: x.clamp(max=b.item()), ONE),
    "repeat": (lambda x, n: TABLE[:1].repeat(n).sum(), TWO),
    "expand": (lambda x, n: TABLE[:1].expand(n).sum(), TWO),
    "zeros": (lambda x, n: torch.ones(n, 2).sum(), TWO),
    "roll": (lambda x, n: TABLE.roll(n)[0], TWO),
    "select": (lambda x, n: TABLE.select(0, n), TWO),
    "topk": (lambda x, n: TABLE.topk(n).values.sum(), TWO),
    "tolist": (lambda x, n: TABLE[n.tolist()].sum(), torch.tensor([2, 3])),
    "unpacked": (lambda x, n: sum(float(k) for k in n), torch.tensor([2, 3])),
    "numpy": (lambda x, b: float(b.numpy()), ONE),
    "format": (lambda x, b: float(f"{b}"), ONE),
    "new tensor": (lambda x, b: torch.tensor([b, 1.0]).sum(), ONE),
    "numpy of many": (lambda x, n: torch.from_numpy(n.numpy()).sum() * 0.1, TWO),
    "mask": (lambda x, n: TABLE[torch.arange(20) < n].sum(), TWO),
    "loop": (lambda x, n: [w := TABLE[0]] and [w := w + 0.1 for _ in range(int(n))][-1], TWO),
    "one_hot": (lambda x, n: nn.functional.one_hot(n, 30)[4] * 0.3, TWO),
}


@pytest.mark.parametrize("name", READS)
def test_numbers_in_tensors_that_programs_hold(name: str) -> None:
    read, start = READS[name]

    def programs() -> tuple[Callable[..., Any], Callable[..., Any], Callable[[int], Any]]:
        held = start.clone()
        return model, guide_of(lambda x: read(x, held)), late(held)

    eager_because, _ = trains_as_plain_pyro(programs, lambda: Trace_ELBO(max_plate_nesting=1), 9)
    assert not eager_because
