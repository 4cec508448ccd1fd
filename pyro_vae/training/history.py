"""What is known of a training, epoch by epoch."""

import math
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from pyro_vae.markup import table


class Epoch(NamedTuple):
    """What is known after one epoch; ELBOs are means in nats per datum, with weight 1 on the KL term.

    >>> epoch = Epoch(1, 13, -43.0, -31.5, -27.0, 4.5, 1e-3, 1.0, 0.2)
    >>> epoch.valid_elbo == epoch.valid_reconstruction - epoch.valid_kl
    True
    """

    #: Counted from 1.
    epoch: int
    #: Steps taken so far.
    step: int
    #: Mean over the epoch's batches, each measured before its step.
    train_elbo: float
    #: On the validation split by one fixed set of draws; NaN where there is no such split.
    valid_elbo: float
    #: E_q[log p(x|z)] on the validation split.
    valid_reconstruction: float
    #: KL(q(z|x) ‖ p(z)) on the validation split.
    valid_kl: float
    #: In the last step of the epoch.
    learning_rate: float
    #: Weight of the KL term in training, at the end of the epoch.
    kl_weight: float
    #: Time of the epoch, validation included.
    seconds: float


#: What the table of a history shows, and its heads.
_SHOWN = {
    "epoch": "epoch",
    "step": "steps",
    "train_elbo": "train ELBO",
    "valid_elbo": "valid ELBO",
    "valid_reconstruction": "reconstruction",
    "valid_kl": "KL",
    "learning_rate": "learning rate",
}


@dataclass(repr=False)
class History:
    """All epochs of a training, and how it ended.

    In a notebook it is shown as a table of the first epoch, the best and the last.

    >>> History([Epoch(1, 13, -43.0, -31.5, -31.0, 0.5, 1e-3, 1.0, 0.2)], best_epoch=1, ended_by="budget")
    History(1 epoch, 13 steps, best epoch 1 with a validation ELBO of -31.500, ended by budget)
    """

    #: In their order.
    epochs: list[Epoch] = field(default_factory=list)
    #: The epoch with the highest validation ELBO, counted from 1; 0 where there is none.
    best_epoch: int = 0
    #: Why training ended: the budget was used up, `patience` ran out, or a callback said so.
    ended_by: Literal["budget", "patience", "callback", ""] = ""

    @property
    def best_valid_elbo(self) -> float:
        """The highest validation ELBO; −∞ where there is none."""
        return self.epochs[self.best_epoch - 1].valid_elbo if self.best_epoch else -math.inf

    def column(self, name: str) -> list[float]:
        """One field of every epoch, as `history.column("valid_elbo")`."""
        return [getattr(epoch, name) for epoch in self.epochs]

    def __repr__(self) -> str:
        return f"History({', '.join(self._facts())})"

    def _facts(self) -> list[str]:
        """What is known of it in one line."""
        if not self.epochs:
            return ["no epochs"]
        last, number = self.epochs[-1], len(self.epochs)
        facts = [f"{number} epoch{'s' * (number > 1)}", f"{last.step} step{'s' * (last.step > 1)}"]
        if self.best_epoch:
            facts.append(f"best epoch {self.best_epoch} with a validation ELBO of {self.best_valid_elbo:.3f}")
        else:
            facts.append(f"last training ELBO {last.train_elbo:.3f}")
        return [*facts, f"ended by {self.ended_by}"] if self.ended_by else facts

    def _repr_html_(self) -> str:
        """The first epoch, the best and the last, as a table."""
        rows = [["", *_SHOWN.values()], *map(self._cells, self._shown())]
        return table(rows, ", ".join(self._facts()))

    def _shown(self) -> list[int]:
        """The epochs that the table shows."""
        return sorted({1, self.best_epoch, len(self.epochs)} - {0}) if self.epochs else []

    def _cells(self, number: int) -> list[str]:
        """One row of the table."""
        places = {"best": self.best_epoch, "first": 1, "last": len(self.epochs)}
        *others, last = [name for name, place in places.items() if place == number]
        name = f"{', '.join(others)} and {last}" if others else last
        epoch = self.epochs[number - 1]
        values = (getattr(epoch, name) for name in _SHOWN)
        return [name, *(f"{value:,}" if isinstance(value, int) else f"{value:.5g}" for value in values)]
