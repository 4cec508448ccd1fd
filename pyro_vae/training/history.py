"""What is known of a training, epoch by epoch."""

import math
from dataclasses import dataclass, field
from typing import Literal, NamedTuple


class Epoch(NamedTuple):
    """What is known after one epoch; ELBOs are means in nats per datum, with weight 1 on the KL term."""

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
    #: During the epoch.
    learning_rate: float
    #: Weight of the KL term in training, at the end of the epoch.
    kl_weight: float
    #: Time of the epoch, validation included.
    seconds: float


@dataclass
class History:
    """All epochs of a training, and how it ended."""

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
