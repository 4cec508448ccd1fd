"""The law of a bag of words, given how many words are in it."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Size, Tensor
from torch.distributions import constraints

from pyro_vae.precision import wide


class BagOfWords(TorchDistribution):
    """P(x | n) = n! Π_d p_d^x_d / x_d!, of counts x with n = Σ_d x_d, whatever n is; p = softmax(logits).

    Other than `torch.distributions.Multinomial`, which has one n for all, the number of words is that of the
    value, so that texts of any lengths have their log probability; draws have `length` words.

    Args:
        logits: (..., *event), one for each word.
        length: Words in a draw.
        event_dim: Number of axes of the words.
        ordered: Leave the coefficient out: the probability of the words in one order.

    >>> law = BagOfWords(torch.zeros(2), length=3)
    >>> law.log_prob(torch.tensor([[1.0, 1.0], [2.0, 0.0]])).exp()
    tensor([0.5000, 0.2500])
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        logits: Tensor,
        length: int,
        event_dim: int = 1,
        *,
        ordered: bool = False,
        validate_args: bool | None = None,
    ) -> None:
        self.logits, self.length, self.ordered = logits, length, ordered
        split = logits.ndim - event_dim
        super().__init__(logits.shape[:split], logits.shape[split:], validate_args=validate_args)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "BagOfWords":
        """The same with its batch axes expanded."""
        new = self._get_checked_instance(BagOfWords, _instance)
        logits = self.logits.expand(*batch_shape, *self.event_shape)
        BagOfWords.__init__(
            new, logits, self.length, len(self.event_shape), ordered=self.ordered, validate_args=False
        )
        new._validate_args = self._validate_args
        return new

    @constraints.dependent_property(is_discrete=True)
    def support(self) -> Any:
        """Whole numbers from 0."""
        return constraints.independent(constraints.nonnegative_integer, len(self.event_shape))

    @property
    def _log_p(self) -> Tensor:
        """Log p of each word: (..., D)."""
        return self.logits.flatten(len(self.batch_shape)).log_softmax(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log P(x | n), its large terms summed in float64."""
        if self._validate_args:
            self._validate_sample(value)
        x = wide(value.flatten(value.ndim - len(self.event_shape)))
        log_prob = (x * wide(self._log_p)).sum(-1)
        if not self.ordered:
            log_prob = log_prob + torch.lgamma(x.sum(-1) + 1) - torch.lgamma(x + 1).sum(-1)
        return log_prob.to(value)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Counts of `length` words, in the type of the logits."""
        with torch.no_grad():
            p = self._log_p.exp()
            flat = p.expand(*sample_shape, *p.shape).reshape(-1, p.shape[-1])
            words = torch.multinomial(flat, self.length, replacement=True)
            x = torch.zeros_like(flat).scatter_add_(1, words, torch.ones_like(words, dtype=flat.dtype))
        return x.reshape(*Size(sample_shape), *self.batch_shape, *self.event_shape)

    @property
    def mean(self) -> Tensor:
        """E[x] of `length` words."""
        return self.length * self._log_p.exp().reshape(*self.batch_shape, *self.event_shape)

    @property
    def variance(self) -> Tensor:
        """Var[x] of `length` words."""
        p = self._log_p.exp().reshape(*self.batch_shape, *self.event_shape)
        return self.length * p * (1 - p)
