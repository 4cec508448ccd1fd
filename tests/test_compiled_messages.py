"""What is said where there is no flat graph: the user's line, the cause and a remedy."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import Tensor, nn

import pyro_vae as pv
from pyro_vae.compiled.source import users_line
from tests.plain_pyro import X, guide_of, model, trains_as_plain_pyro


def branch(x: Tensor) -> float:
    return 1.0 if x.sum() > 0 else 2.0


def labels(x: Tensor) -> Tensor:
    return nn.functional.one_hot((x > 0).long())[:, 0]


def mask(x: Tensor) -> Tensor:
    return x[x > 0].sum()


def copied(x: Tensor) -> Tensor:
    return torch.tensor([x.sum(), 1.0])[0]


MESSAGES: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "branch": (branch, "(Tensor.__bool__) at {}, `return 1.0 if x.sum() > 0 else 2.0`: torch.where chooses"),
    "labels": (
        labels,
        "(torch.one_hot) at {}, `return nn.functional.one_hot((x > 0).long())[:, 0]`: give",
    ),
    "mask": (mask, "a shape depends on numbers (aten.index.Tensor) at {}, `return x[x > 0].sum()`"),
    "copied": (
        copied,
        "it copies tensors by torch.tensor at {}, `return torch.tensor([x.sum(), 1.0])[0]`",
    ),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_a_fall_back_names_the_line_and_a_remedy(name: str) -> None:
    shift, message = MESSAGES[name]
    line = f"test_compiled_messages.py:{shift.__code__.co_firstlineno + 1}"
    _, said = trains_as_plain_pyro(
        lambda: (model, guide_of(shift), lambda _: None), lambda: Trace_ELBO(max_plate_nesting=1), 5
    )
    assert len(said) == 1
    assert message.format(line) in said[0]
    assert "make_fx" not in said[0] and "/" not in said[0]


def test_one_hot_labels_of_a_given_number_are_in_the_graph() -> None:
    def shift(x: Tensor) -> Tensor:
        return nn.functional.one_hot((x > 0).long(), 3)[:, 0].float()

    eager_because, said = trains_as_plain_pyro(
        lambda: (model, guide_of(shift), lambda _: None), lambda: Trace_ELBO(max_plate_nesting=1), 6
    )
    assert not eager_because and not said


def test_an_error_within_the_trace_names_the_line() -> None:
    def shift(x: Tensor) -> Tensor:
        return x + float(repr(x.sum().item()))

    _, said = trains_as_plain_pyro(
        lambda: (model, guide_of(shift), lambda _: None), lambda: Trace_ELBO(max_plate_nesting=1), 5
    )
    assert len(said) == 1
    assert re.search(r"at test_compiled_messages.py:\d+, `return x \+ float\(repr", said[0])


def test_the_warning_is_given_at_the_users_line() -> None:
    pyro.clear_param_store()
    compiled = pv.CompiledELBO(Trace_ELBO(max_plate_nesting=1))
    guide = guide_of(branch)
    compiled.loss_and_grads(model, guide, X)  # makes the parameters
    with pytest.warns(UserWarning, match="runs as plain Pyro") as caught:
        compiled.loss_and_grads(model, guide, X)
    assert caught[0].filename == __file__


def test_the_line_of_the_caller() -> None:
    assert "`assert " in users_line()


PROGRAM = """import numpy as np
import pyro
import pyro.distributions as dist
import torch

SEEN = []


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 0.5), obs=x)


def guide(x):
    a = pyro.param("a", torch.tensor(0.3))
    LINE
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(a * x + shift, 1.0))
"""
#: A line of a guide, and what is said of it; {} is the place, with the line itself.
LINES = {
    "shift = torch.nn.functional.one_hot((x > 0).long())[:, 0] * a": "(torch.one_hot) {}: give "
    "num_classes, or use torch.eye(n)[labels]",
    "shift = a if x.mean() > 0 else 2 * a": "(Tensor.__bool__) {}: torch.where chooses without reading",
    "shift = a * torch.as_tensor(np.tanh(x.numpy()))": "(Tensor.numpy) {}: use torch's function in place of",
    "shift = a * sum(x.tolist())": "(Tensor.tolist) {}: compute with the tensor itself",
    "shift = a * x[x > 0].sum()": "(aten.index.Tensor) {}: torch.where(mask, x, 0) keeps the shape",
    "x[0] = 1.0; shift = a": "an argument changes as it runs: change a copy, as x = x.clone()",
    "SEEN.append(1); shift = a": "a list changes as it runs: keep it out of the program",
    "shift = a * np.random.rand()": "random numbers that are not torch's: draw by torch, or pyro.sample",
}


@pytest.mark.parametrize("line", LINES)
def test_fit_names_file_line_and_remedy_of_a_users_program(line: str, tmp_path: Path) -> None:
    file = tmp_path / "my_programs.py"
    file.write_text(PROGRAM.replace("LINE", line))
    programs: dict[str, Any] = {"__name__": "my_programs"}
    exec(compile(file.read_text(), str(file), "exec"), programs)
    number = PROGRAM.splitlines().index("    LINE") + 1
    with pytest.warns(UserWarning, match="runs as plain Pyro") as said:
        pv.fit(
            (programs["model"], programs["guide"]), torch.randn(12), epochs=4, batch_size=6, compile="flat"
        )
    assert len(said) == 1
    place = f"at my_programs.py:{number}, `{line}`"
    assert LINES[line].format(place) in str(said[0].message)
