"""Small programs that keep changing state: every step of a flat graph is that of plain Pyro."""

import functools
import itertools
import random
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import Tensor, nn

from tests.plain_pyro import Make, X, guide_of, model, trains_as_plain_pyro


class Case(NamedTuple):
    """A pair of programs, what happens before each step, and whether the last steps are those of a graph."""

    shift: Callable[[Tensor], Any]
    before: Callable[[int], Any] = lambda _: None
    flat: bool = True


CASES: dict[str, Callable[[], Case]] = {}


def case(make: Callable[[], Case]) -> Callable[[], Case]:
    CASES[make.__name__] = make
    return make


TABLE = torch.linspace(0.5, 2.5, 20)


# State in objects of Python


@case
def numpy_generator() -> Case:
    rng = np.random.default_rng(0)
    return Case(lambda x: 2.0 if rng.random() > 0.5 else 0.5, flat=False)


@case
def numpy_random_state() -> Case:
    rng = np.random.RandomState(0)
    return Case(lambda x: 2.0 if rng.rand() > 0.5 else 0.5, flat=False)


@case
def rare_numpy_generator() -> Case:
    rng = np.random.default_rng(3)
    return Case(lambda x: 2.0 if rng.integers(4) == 0 else 0.5, flat=False)


@case
def python_generator() -> Case:
    rng = random.Random(0)
    return Case(lambda x: rng.choice([2.0, 0.5]), flat=False)


@case
def torch_generator() -> Case:
    rng = torch.Generator().manual_seed(0)
    return Case(lambda x: torch.rand((), generator=rng), flat=False)


@case
def torch_generator_for_a_branch() -> Case:
    rng = torch.Generator().manual_seed(0)
    return Case(lambda x: 2.0 if torch.rand((), generator=rng) > 0.5 else 0.5, flat=False)


@case
def count() -> Case:
    numbers = itertools.count()
    return Case(lambda x: 2.0 if next(numbers) > 6 else 0.5, flat=False)


@case
def cycle() -> Case:
    numbers = itertools.cycle([0.5, 0.5, 0.5, 1.5])
    return Case(lambda x: next(numbers), flat=False)


@case
def a_list_s_iterator() -> Case:
    numbers = iter([0.5] * 5 + [1.5] * 30)
    return Case(lambda x: next(numbers), flat=False)


@case
def generator() -> Case:
    def schedule() -> Iterator[float]:
        for step in range(100):
            yield 0.5 if step < 6 else 1.5

    numbers = schedule()
    return Case(lambda x: next(numbers), flat=False)


@case
def generator_without_end() -> Case:
    def schedule() -> Iterator[float]:
        while True:
            yield from [0.5] * 5 + [1.5]

    numbers = schedule()
    return Case(lambda x: next(numbers), flat=False)


@case
def zipped_and_mapped() -> Case:
    numbers = zip(map(abs, [-0.5] * 6 + [1.5] * 30), itertools.repeat(1), strict=False)
    return Case(lambda x: next(numbers)[0], flat=False)


@case
def iterators_that_are_not_used() -> Case:
    loader: Any = torch.utils.data.DataLoader(TABLE)  # type: ignore[arg-type]
    held = [iter(loader), itertools.count(), np.random.default_rng(0), (i for i in range(3)), iter([1])]
    return Case(lambda x: 0.1 * len(held))


@case
def counter_of_runs() -> Case:
    @dataclass
    class State:
        t: int = 0

    state = State()

    def shift(x: Tensor) -> float:
        state.t += 1
        return 2.0 if state.t > 6 else 0.5

    return Case(shift, flat=False)


@case
def counter_in_a_closure() -> Case:
    t = 0

    def shift(x: Tensor) -> float:
        nonlocal t
        t += 1
        return 2.0 if t > 6 else 0.5

    return Case(shift, flat=False)


@case
def history_in_a_list() -> Case:
    seen: list[float] = []

    def shift(x: Tensor) -> float:
        seen.append(1.0)
        return 2.0 if len(seen) > 6 else 0.5

    return Case(shift, flat=False)


@case
def history_with_a_bound() -> Case:
    from collections import deque

    seen = deque([0.0, 0.0], maxlen=2)

    def shift(x: Tensor) -> Any:
        mean = sum(seen)
        seen.append(x.mean())  # type: ignore[arg-type]
        return mean + 1.0

    return Case(shift, flat=False)


@case
def cache_by_key() -> Case:
    cache: dict[int, Tensor] = {}

    def shift(x: Tensor) -> Tensor:
        if len(x) not in cache:
            cache[len(x)] = torch.randn(len(x))
        return cache[len(x)]

    return Case(shift)


@case
def last_activation_is_kept_and_used() -> Case:
    holder = nn.Module()
    holder.last = torch.zeros(())

    def shift(x: Tensor) -> Any:
        last, holder.last = holder.last, (x * 2).mean().detach() + 0.5
        return last + 1.0

    return Case(shift, flat=False)


@case
def running_mean_in_place() -> Case:
    mean = torch.zeros(())

    def shift(x: Tensor) -> Tensor:
        mean.mul_(0.9).add_(x.mean() + 0.1)
        return mean.clone() + 1.0

    return Case(shift, flat=False)


@case
def running_mean_in_a_buffer() -> Case:
    module = nn.Module()
    module.register_buffer("mean", torch.zeros(()))

    def shift(x: Tensor) -> Tensor:
        module.mean.mul_(0.9).add_(x.mean() + 0.1)
        return module.mean.clone() + 1.0

    return Case(shift)


@case
def counter_in_a_buffer() -> Case:
    module = nn.Module()
    module.register_buffer("step", torch.zeros((), dtype=torch.long))

    def shift(x: Tensor) -> Tensor:
        module.step.add_(1)
        return TABLE[module.step]

    return Case(shift, flat=False)


@case
def counter_in_a_buffer_by_gather() -> Case:
    module = nn.Module()
    module.register_buffer("step", torch.zeros(1, dtype=torch.long))

    def shift(x: Tensor) -> Tensor:
        module.step.add_(1)
        return TABLE[module.step][0]

    return Case(shift)


# What is changed from outside


@case
def attribute_of_a_dataclass() -> Case:
    @dataclass
    class Options:
        weight: float = 0.5
        more: list[float] = field(default_factory=lambda: [1.0])

    options = Options()

    def before(step: int) -> None:
        options.weight = 0.5 if step < 6 else 1.5
        options.more[0] = 1.0 if step < 9 else 2.0

    return Case(lambda x: options.weight * options.more[0], before)


@case
def class_attribute_and_property() -> Case:
    class Options:
        weight = 0.5

        @property
        def double(self) -> float:
            return 2 * self.weight

    options = Options()

    def before(step: int) -> None:
        Options.weight = 0.5 if step < 6 else 1.5

    return Case(lambda x: options.double, before)


WEIGHT = 0.5
CONTEXT: ContextVar[float] = ContextVar("weight", default=0.5)


def weight_now() -> float:
    return WEIGHT


@case
def global_of_the_module() -> Case:
    def before(step: int) -> None:
        global WEIGHT
        WEIGHT = 0.5 if step < 6 else 1.5

    return Case(lambda x: weight_now(), before)


@case
def global_by_its_name() -> Case:
    def before(step: int) -> None:
        globals()["WEIGHT"] = 0.5 if step < 6 else 1.5

    return Case(lambda x: globals()["WEIGHT"], before)


@case
def context_variable() -> Case:
    def before(step: int) -> None:
        CONTEXT.set(0.5 if step < 6 else 1.5)

    return Case(lambda x: CONTEXT.get(), before)


@case
def array_of_numpy_in_place() -> Case:
    array = np.ones(3)

    def before(step: int) -> None:
        array[1] = 1.0 if step < 6 else 2.0

    return Case(lambda x: float(array.sum()), before)


@case
def bytes_in_place() -> Case:
    array = bytearray(b"\x01\x02")

    def before(step: int) -> None:
        array[0] = 1 if step < 6 else 2

    return Case(lambda x: array[0], before)


@case
def dict_of_tensors() -> Case:
    tensors = {"a": torch.ones(()), "b": torch.zeros(())}

    def before(step: int) -> None:
        if step == 6:
            tensors["a"].fill_(2.0)
        if step == 9:
            tensors["b"] = torch.tensor(3.0)

    return Case(lambda x: tensors["a"] + tensors["b"], before)


@case
def tensor_of_another_size() -> Case:
    tensors = [torch.ones(2)]

    def before(step: int) -> None:
        if step == 6:
            tensors[0] = torch.ones(3)
        if step == 9:
            tensors[0].resize_(1)

    return Case(lambda x: tensors[0].sum(), before)


@case
def alternating_kinds_of_batches() -> Case:
    options = {"labelled": True}

    def before(step: int) -> None:
        options["labelled"] = step % 3 == 0

    return Case(lambda x: 2.0 if options["labelled"] else 0.5, before)


@case
def noise_in_place() -> Case:
    noise = torch.zeros(len(X))
    return Case(lambda x: noise.normal_() + 1, flat=False)


@case
def environment() -> Case:
    import os

    def before(step: int) -> None:
        os.environ["PYRO_VAE_TEST_WEIGHT"] = "0.5" if step < 6 else "1.5"

    return Case(lambda x: float(os.environ["PYRO_VAE_TEST_WEIGHT"]), before)


@case
def shape_that_depends_on_numbers() -> Case:
    return Case(lambda x: x[x > 0].sum(), flat=False)


@case
def early_exit_by_a_flag() -> Case:
    class Stopper:
        """Says when a loss has not fallen."""

        def __init__(self) -> None:
            self.best, self.bad = 1e9, 0

        def __call__(self, value: float) -> None:
            self.bad = 0 if value < self.best else self.bad + 1

    stopper = Stopper()
    return Case(lambda x: 0.5 + (stopper.bad > 2), lambda step: stopper(-min(step, 6)))


@case
def own_distribution() -> Case:
    class Same(dist.Normal):
        pass

    return Case(lambda x: Same(x, 1.0).log_prob(x + 1))


@case
def parameter_drawn_in_the_first_step() -> Case:
    return Case(lambda x: pyro.param("c", lambda: torch.randn(())))


@case
def network_made_in_the_first_step() -> Case:
    nets: dict[str, nn.Module] = {}

    def shift(x: Tensor) -> Tensor:
        if "net" not in nets:
            nets["net"] = nn.Linear(1, 1)
        pyro.module("net", nets["net"])
        return nets["net"](x[:, None])[:, 0]

    return Case(shift)


@case
def private_slot() -> Case:
    class Options:
        __slots__ = ("__weight",)

        def set(self, weight: float) -> None:
            self.__weight = weight

        def get(self) -> float:
            return self.__weight

    options = Options()
    return Case(lambda x: options.get(), lambda step: options.set(0.5 if step < 6 else 1.5))


@case
def cached_function() -> Case:
    @functools.cache
    def noise() -> Tensor:
        return torch.randn(())

    return Case(lambda x: noise(), lambda step: noise.cache_clear() if step == 6 else None)


@case
def cached_function_of_a_size() -> Case:
    @functools.lru_cache(maxsize=4)
    def noise(size: int) -> Tensor:
        return torch.randn(size)

    return Case(lambda x: noise(len(x)), lambda step: noise.cache_clear() if step == 6 else None)


@case
def method_of_a_generator() -> Case:
    draw = np.random.default_rng(0).random
    return Case(lambda x: 2.0 if draw() > 0.5 else 0.5, flat=False)


@case
def method_of_an_iterator() -> Case:
    draw = itertools.cycle([0.5] * 5 + [1.5]).__next__
    return Case(lambda x: draw(), flat=False)


@case
def attribute_of_a_tensor() -> Case:
    weight: Any = torch.ones(())
    weight.times = 0.5

    def before(step: int) -> None:
        weight.times = 0.5 if step < 6 else 1.5

    return Case(lambda x: weight * weight.times, before)


@case
def another_code() -> Case:
    def shift(x: Tensor) -> float:
        return 0.5

    def other(x: Tensor) -> float:
        return 1.5

    def before(step: int) -> None:
        if step == 6:
            shift.__code__ = other.__code__

    return Case(shift, before)


@case
def sign_of_zero() -> Case:
    import math

    options = {"zero": 0.0}

    def before(step: int) -> None:
        options["zero"] = 0.0 if step < 6 else -0.0

    return Case(lambda x: math.copysign(1.0, options["zero"]), before)


@case
def array_of_the_standard_library() -> Case:
    from array import array

    numbers = array("d", [0.5, 1.5])

    def before(step: int) -> None:
        numbers[0] = 0.5 if step < 6 else 1.5

    return Case(lambda x: numbers[0], before)


@case
def numbers_of_numpy() -> Case:
    options = {"weight": np.float32(0.5)}

    def before(step: int) -> None:
        options["weight"] = np.float32(0.5 if step < 6 else 1.5)

    return Case(lambda x: float(options["weight"]), before)


@case
def logger() -> Case:
    import logging

    log = logging.getLogger("tests")

    def shift(x: Tensor) -> float:
        log.debug("a run")
        return 0.5

    return Case(shift)


@case
def file() -> Case:
    import io

    numbers = io.StringIO("0.5\n" * 6 + "1.5\n" * 40)
    return Case(lambda x: float(numbers.readline()), flat=False)


@case
def weak_reference() -> Case:
    import weakref

    class Options:
        weight = 0.5

    options = Options()
    seen = weakref.ref(options)

    def before(step: int) -> None:
        options.weight = 0.5 if step < 6 else 1.5

    return Case(lambda x: seen().weight, before)


@case
def thread_s_own() -> Case:
    import threading

    own = threading.local()
    return Case(lambda x: own.weight, lambda step: setattr(own, "weight", 0.5 if step < 6 else 1.5))


@case
def packed_sequences() -> Case:
    net = nn.GRU(1, 1, batch_first=True)
    lengths = torch.tensor([3, 3, 2, 2, 1, 1])

    def shift(x: Tensor) -> Tensor:
        padded = x[:, None, None].expand(-1, 3, 1)
        packed = nn.utils.rnn.pack_padded_sequence(padded, lengths, batch_first=True, enforce_sorted=False)
        return net(packed)[1][0, :, 0]

    def before(step: int) -> None:
        if step == 6:
            lengths.copy_(torch.tensor([1, 1, 1, 2, 3, 3]))

    return Case(shift, before, flat=False)


@case
def baked_by_an_item() -> Case:
    beta = torch.tensor(0.5)

    def before(step: int) -> None:
        beta.fill_(0.5 if step < 6 else 1.5)

    return Case(lambda x: dist.Normal(0.0, beta.item()).log_prob(x), before)


def programs_of(make: Callable[[], Case]) -> Make:
    def programs() -> tuple[Callable[..., Any], Callable[..., Any], Callable[[int], Any]]:
        made = make()
        return model, guide_of(made.shift), made.before

    return programs


def trace_elbo() -> Trace_ELBO:
    return Trace_ELBO(max_plate_nesting=1)


@pytest.mark.parametrize("name", CASES)
def test_state_that_programs_hold(name: str) -> None:
    eager_because, _ = trains_as_plain_pyro(programs_of(CASES[name]), trace_elbo)
    assert bool(eager_because) != CASES[name]().flat, eager_because
