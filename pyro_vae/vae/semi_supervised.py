"""A variational autoencoder of data whose labels were seen for some only."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Literal

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn

from pyro_vae.data.fields import LABEL, UNSEEN
from pyro_vae.errors import InputError, count
from pyro_vae.likelihoods import Likelihood
from pyro_vae.networks import conditions_of
from pyro_vae.posteriors import Posterior
from pyro_vae.priors import Prior
from pyro_vae.vae.classifier import Classifier
from pyro_vae.vae.labels import label_logits, moments_of_mixture
from pyro_vae.vae.program import JointProgram
from pyro_vae.vae.vae import check_role

#: Sums a discrete site out.
_ENUMERATED = {"enumerate": "parallel"}


class SemiSupervisedVAE(JointProgram):
    """y ~ p(y), z ~ p(z), x ~ p(x|z, y), with the guide y ~ q(y|x), z ~ q(z|x, y): labels are seen for some.

    Model M2 of Kingma, Mohamed, Rezende & Welling, "Semi-supervised Learning with Deep Generative Models"
    (2014). Programs take x alone, or x with `label` (B,), of which −1 is a label that was not seen, as in
    scikit-learn. A label that was not seen is summed out, one that was seen is data:

        log p(x)    = log Σ_y p(y) ∫ p(z) p(x|z, y) dz      of x alone, and where the label is −1
        log p(x, y) = log p(y) + log ∫ p(z) p(x|z, y) dz    where the label is seen

    so that `log_evidence(vae.model, vae.guide, x)` is log p(x), and with given={"label": y} log p(x, y).

    `fit` trains it by Pyro's `TraceEnum_ELBO`, and by the loss of the classifier on the labels that are seen:

        loss = − Σ_b ELBO_b − α N/N_l Σ_{b: label seen} log q(y_b|x_b)

    N and N_l are the training data and those with a label, so that over an epoch the second term is α N times
    the mean loss of the classifier: eq. 9 of the paper, whose α is 0.1 · N.

    The site "label" is the label: latent where programs get none, else observed where it is seen. In its
    place there is then the latent site "label_unseen". Where a label is seen it stands for nothing: it is
    uniform in both programs, cancels, and gives z as many draws as there are classes.

    Args:
        prior: p(z), or p(z|y).
        likelihood: p(x|z, y), as a `GivenLikelihood` with the condition `label`.
        posterior: q(z|x, y), or q(z|x).
        classifier: q(y|x).
        labelled_share: N_l / N.
        label_prior: p(y): uniform, learned from a uniform start, or fixed, a probability for each class.
        alpha: Weight α of the classifier's loss beside the ELBO; 0 for none.

    Raises:
        InputError: where parts do not fit each other, or a number is out of its range.

    >>> from pyro_vae import Digits, assemble
    >>> data = Digits().with_labels(100)
    >>> vae = assemble(data, program=SemiSupervisedVAE)
    >>> vae.sample(2, given={"label": 3}).shape, vae.classify(data.test.batch()).shape
    (torch.Size([2, 1, 8, 8]), torch.Size([300, 10]))
    """

    optional: ClassVar[tuple[str, ...]] = (LABEL,)
    labelled_share: Tensor

    def __init__(
        self,
        prior: Prior,
        likelihood: Likelihood,
        posterior: Posterior,
        classifier: Classifier,
        labelled_share: float = 1.0,
        *,
        label_prior: Literal["uniform", "learned"] | tuple[float, ...] = "uniform",
        alpha: float = 0.1,
    ) -> None:
        super().__init__()
        check_role("prior", prior, Prior, "latent_dim")
        check_role("likelihood", likelihood, Likelihood, "decoder", "data_shape", "latent_dim")
        check_role("posterior", posterior, Posterior, "latent_dim", "encoder")
        _check_parts(prior, likelihood, posterior, classifier)
        if not 0 < labelled_share <= 1:
            raise InputError(f"labelled_share expects a share above 0 and up to 1, got {labelled_share}")
        if not 0 <= alpha < float("inf"):
            raise InputError(f"alpha expects a number that is not negative, got {alpha}: 0.1 is the paper's")
        self.prior, self.likelihood, self.posterior = prior, likelihood, posterior
        self.classifier, self.alpha = classifier, alpha
        self.register_buffer("labelled_share", torch.tensor(float(labelled_share)))
        self.label_logits = label_logits(label_prior, classifier.num_classes)

    @property
    def num_classes(self) -> int:
        """C."""
        return self.classifier.num_classes

    def model(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        """p(x, z, y): plate "data"; label ~ p(y); z ~ prior(); x ~ likelihood(z, label), observed."""
        self.register(self.label_logits, self.prior, self.likelihood)
        with pyro.plate("data", x.shape[0], dim=-1):
            y = self._label(self.label_logits(), label, observed=True)
            z = pyro.sample("z", self.prior(**_of(self.prior, y)))
            return pyro.sample("x", self.likelihood(z, **_of(self.likelihood, y)), obs=x)

    def guide(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        """q(y|x) q(z|x, y): plate "data"; label ~ classifier(x); z ~ posterior(x, label)."""
        self.register(self.classifier, self.posterior)
        with pyro.plate("data", x.shape[0], dim=-1):
            y = self._label(self.classifier(x).logits, label, observed=False)
            return pyro.sample("z", self.posterior(x, **_of(self.posterior, y)))

    def _label(self, logits: Tensor, label: Tensor | None, *, observed: bool) -> Tensor:
        """The label: drawn where it was not seen, and in the model observed where it was."""
        if label is None:
            return pyro.sample("label", dist.Categorical(logits=logits), infer=_ENUMERATED)
        seen = label >= 0
        stand_in = torch.where(seen[..., None], 0.0, logits)  # uniform where the label is seen
        drawn = pyro.sample("label_unseen", dist.Categorical(logits=stand_in), infer=_ENUMERATED)
        known = label.clamp(min=0)
        if observed:
            with poutine.mask(mask=seen):
                known = pyro.sample("label", dist.Categorical(logits=logits), obs=known)
        return torch.where(seen, known, drawn)

    def classification_loss(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        """− Σ log q(y|x) over the data whose label is seen: a scalar, in nats."""
        if label is None:
            return x.new_zeros(())
        losses = -self.classifier(x).log_prob(label.clamp(min=0))
        return torch.where(label >= 0, losses, 0.0).sum()

    def penalty(self) -> tuple[Callable[..., Tensor], float]:
        """The loss of the classifier, and its weight α N/N_l."""
        return self.classification_loss, self.alpha / float(self.labelled_share)

    def check_evaluated(self, given: Iterable[str]) -> None:
        """Refuse labels, with which log p(x, y) would be reported in the place of log p(x).

        Raises:
            InputError: where they are given.
        """
        if LABEL in given:
            raise InputError(
                "log p(x) of a SemiSupervisedVAE is that without labels, got data that give them: use "
                "data.with_labels(...) in the place of data.giving('label'); log p(x, y) is "
                "pv.log_evidence(vae.model, vae.guide, x, given={'label': y})"
            )

    @torch.no_grad()
    def check(self, x: Tensor, label: Tensor | None = None) -> None:
        """Refuse data of another shape than the networks', outside the support, or of an unknown class."""
        self.check_shape(x, self.likelihood.data_shape)
        if label is not None:
            self._check_label(label, lowest=UNSEEN)
        y = torch.zeros(1, dtype=torch.int64, device=x.device)
        z = self._draw(y)
        self.likelihood.check(self.likelihood(z, **_of(self.likelihood, y)), x)

    def _check_label(self, label: Tensor, lowest: int = 0) -> None:
        last = self.num_classes - 1
        fine = label.dtype == torch.int64 and label.ndim == 1
        if not fine or int(label.min()) < lowest or int(label.max()) > last:
            unseen = " or -1 where it was not seen" if lowest < 0 else ""
            raise InputError(
                f"expected label as whole numbers (int64) of shape (B,) from 0 to {last}{unseen}, got "
                f"{label.min():g} to {label.max():g} of {label.dtype} {tuple(label.shape)}: number the "
                "classes as in training"
            )

    def _draw(self, y: Tensor) -> Tensor:
        """A draw of z for each label: (B, L)."""
        pz = self.prior(**_of(self.prior, y))
        return pz.sample() if pz.batch_shape else pz.sample(y.shape)

    def code_prior(self, label: Tensor | None = None) -> TorchDistribution | None:
        """p(z), or p(z|y); None where it depends on the label, which is not given."""
        if label is None and LABEL in conditions_of(self.prior):
            return None
        pz: TorchDistribution = self.prior() if label is None else self.prior(**_of(self.prior, label))
        return pz

    @torch.no_grad()
    def sample(self, num: int, *, mean: bool = False, given: Mapping[str, Any] | None = None) -> Tensor:
        """`num` draws x ~ p(x|z, y), z ~ p(z); with `mean` the means of p(x|z, y): (num, *data_shape).

        Args:
            num: How many.
            mean: Give means instead of draws.
            given: {"label": y}, one for all or (num,) of them; by default y ~ p(y).

        Raises:
            InputError: where something else is given, or a label is no class.
        """
        self.check_given(given or {})
        y = self._labels(count("num", num), (given or {}).get(LABEL))
        px = self.likelihood(self._draw(y), **_of(self.likelihood, y))
        return px.mean if mean else px.sample()

    def _labels(self, num: int, label: Any) -> Tensor:
        if label is None:
            return dist.Categorical(logits=self.label_logits()).sample((num,))
        y = torch.as_tensor(label, device=self.device)
        y = y.expand(num) if y.ndim == 0 else y
        self._check_label(y)
        if len(y) != num:
            raise InputError(f"expected one label or {num} of them, got {len(y)}: give as many as draws")
        return y

    @torch.no_grad()
    def classify(self, x: Tensor) -> Tensor:
        """q(y|x) of each class: (B, C). p(y|x) itself is estimated by `label_posterior`."""
        probabilities: Tensor = self.classifier(x).probs
        return probabilities

    def encode(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        """The mean of q(z|x) = Σ_y q(y|x) q(z|x, y), or of q(z|x, y) where the label is seen: (B, L)."""
        return self.codes(x, label)[0]

    @torch.no_grad()
    def codes(self, x: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of that: (B, L) each."""
        weights = self.classify(x)
        if label is not None:
            one_hot = nn.functional.one_hot(label.clamp(min=0), self.num_classes).to(weights.dtype)
            weights = torch.where((label >= 0)[:, None], one_hot, weights)
        every = torch.arange(self.num_classes, device=x.device)[:, None].expand(-1, len(x))
        return moments_of_mixture(weights, self.posterior(x, **_of(self.posterior, every)))

    @torch.no_grad()
    def decode(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """The mean of p(x|z, y): (..., *data_shape).

        Raises:
            InputError: where no label is given.
        """
        if label is None:
            raise InputError("SemiSupervisedVAE decodes z with a label, got none: give decode(z, label=y)")
        return self.likelihood(z, **_of(self.likelihood, label)).mean

    @torch.no_grad()
    def reconstruct(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        """The mean of p(x|z, y) at a draw z ~ q(z|x, y), y ~ q(y|x) where not seen: (B, *data_shape)."""
        y = self.classifier(x).sample()
        if label is not None:
            y = torch.where(label >= 0, label, y)
        return self.decode(self.posterior(x, **_of(self.posterior, y)).sample(), y)


def _of(part: nn.Module, label: Tensor) -> dict[str, Tensor]:
    """What a part gets of the label: itself, where it names it."""
    return {LABEL: label} if conditions_of(part) else {}


def _check_parts(prior: Prior, likelihood: Likelihood, posterior: Posterior, classifier: Classifier) -> None:
    """Refuse parts of another length of z, or that depend on something else than the label."""
    dims = (prior.latent_dim, posterior.latent_dim, likelihood.latent_dim)
    if len(set(dims)) > 1:
        raise InputError(
            f"expected one latent_dim, got {dims[0]} in the prior, {dims[1]} in the posterior and {dims[2]} "
            "in the likelihood: build all with one"
        )
    others = {name for part in (prior, likelihood, posterior) for name in conditions_of(part)} - {LABEL}
    if others:
        raise InputError(
            "SemiSupervisedVAE takes the label beside x, got parts that depend on "
            f"{', '.join(sorted(others))}, too: choose parts without"
        )
    if LABEL not in {*conditions_of(prior), *conditions_of(likelihood)}:
        raise InputError(
            "expected p(x|z, y) to depend on the label, got a likelihood and a prior that do not: make it by "
            "assemble, or put it into GivenLikelihood"
        )
    if not hasattr(classifier, "num_classes"):
        raise InputError(
            f"the classifier {type(classifier).__name__} has no attribute num_classes: set it in its "
            "constructor, as Classifier does"
        )
