"""Sites that a model marks to be summed out, under an objective that would draw them."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyro.infer import ELBO, Trace_ELBO
from pyro.poutine.messenger import Messenger

from pyro_vae.errors import InputError


class Sampled(Messenger):
    """Counts what a step samples: a latent site in guide and model twice, one in the model alone once."""

    #: As SVI's trace of parameters, it changes nothing for the programs, which graphs ask (`compiled.steps`).
    param_only = True

    def __init__(self) -> None:
        super().__init__()
        self.latent: Counter[str] = Counter()
        self.observed: Counter[str] = Counter()
        self.marked: set[str] = set()

    def _pyro_post_sample(self, msg: Any) -> None:
        (self.observed if msg["is_observed"] else self.latent)[msg["name"]] += 1
        if not msg["is_observed"] and msg["infer"].get("enumerate") is not None:
            self.marked.add(msg["name"])

    @contextmanager
    def once(self, objective: ELBO) -> Iterator[None]:
        """Around a first evaluation of an objective; nothing around later ones.

        Raises:
            InputError: where a site that the model marks, and the guide lacks, is drawn from its prior.
        """
        if self.observed:
            yield
            return
        with self:
            yield
        self._check(objective)

    def _check(self, objective: ELBO) -> None:
        """Refuse a marked site that the guide lacks where the objective draws it from its prior."""
        runs = max(self.observed.values(), default=0)
        alone = sorted(name for name in self.marked if self.latent[name] <= runs)
        if alone and isinstance(objective, Trace_ELBO):
            raise InputError(
                f"expected an objective that sums out {alone[0]!r}, which the model marks to be enumerated "
                f"and the guide lacks, got {type(objective).__name__}, which draws it from its prior: give "
                "objective=pyro.infer.TraceEnum_ELBO"
            )
