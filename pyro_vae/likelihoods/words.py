"""The likelihood of bags of words: how often each word of a vocabulary is in a text."""

from collections.abc import Iterable

from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn

from pyro_vae.data.forms import Counts, Form
from pyro_vae.data.raw import RawValues
from pyro_vae.distributions import BagOfWords
from pyro_vae.errors import count
from pyro_vae.likelihoods.base import Likelihood
from pyro_vae.networks import head


class MultinomialLikelihood(Likelihood):
    """p(x|z, n) = n! Π_d p_d(z)^x_d / x_d!, p = softmax(l(z)), for counts x_d of n = Σ_d x_d words in all.

    The length n of a text is known, and its law is no part of the model: log p(x) is that of the words given
    their number, as in Miao, Yu & Blunsom, "Neural Variational Inference for Text Processing" (2016), and
    Srivastava & Sutton, "Autoencoding Variational Inference for Topic Models" (2017); the perplexity per word
    is exp(−log p/n), there without the coefficient n!/Π x_d!.

    Args:
        decoder: Network from z to features, to which the head for the logits l is added.
        data_shape: Shape of one datum: (D,), the size of the vocabulary.
        length: Words in a draw; it does not enter log p(x).
        ordered: Leave n!/Π x_d! out: the probability of the words in one order, a categorical for each.

    >>> import torch
    >>> from pyro_vae import MLP
    >>> likelihood = MultinomialLikelihood(MLP().decoder(5, (1000,)), (1000,), length=60)
    >>> likelihood(torch.zeros(3, 5)).sample().sum(-1)
    tensor([60., 60., 60.])
    """

    support_in_words = "counts of words, from 0"
    remedy = (
        "put counts into the form Counts (--data.form Counts), or use PoissonLikelihood for counts that have "
        "no total, or NormalLikelihood for other numbers"
    )

    def __init__(
        self, decoder: nn.Module, data_shape: Iterable[int], *, length: int = 100, ordered: bool = False
    ) -> None:
        super().__init__()
        self.decoder = decoder
        self.logits = head(decoder, data_shape)
        self.data_shape = self.logits.output_shape
        self.length = count("length", length)
        self.ordered = ordered

    @classmethod
    def form_for(cls, raw: RawValues) -> Form:
        """`Counts`."""
        return Counts()

    def forward(self, z: Tensor) -> TorchDistribution:
        """p(x|z, n): batch shape (...), event shape `data_shape`."""
        logits = self.logits(self.decoder(z))
        return BagOfWords(logits, self.length, len(self.data_shape), ordered=self.ordered)
