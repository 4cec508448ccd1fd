"""The plain autoencoder: the baseline that the field compares with."""

from collections.abc import Iterable
from typing import ClassVar, Literal

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from pyro_vae.errors import InputError, count
from pyro_vae.networks import head
from pyro_vae.vae.program import JointProgram


class Autoencoder(JointProgram):
    """Encoder and decoder without any distribution: minimise the error of x through a code and back.

    The error of a datum is Σ_d (x_d − x̂_d)², or the cross-entropy −Σ_d x_d log x̂_d + (1 − x_d) log(1 − x̂_d).
    Made of the same networks as a VAE and trained by the same `fit`, whose "ELBO" is then minus the mean
    error, with no KL. It has no p(x): nothing to sample from, and no log-likelihood to compare. Hinton &
    Salakhutdinov, "Reducing the Dimensionality of Data with Neural Networks" (2006).

    Args:
        encoder: Network from data to features, to which the head for the code is added.
        decoder: Network from the code to features, to which the head for x̂ is added.
        latent_dim: L, the length of the code.
        data_shape: Shape of one datum.
        loss: `squared_error`, or `cross_entropy` for values from 0 to 1.

    >>> from pyro_vae import Digits, assemble
    >>> autoencoder = assemble(Digits(), program=Autoencoder, latent_dim=2)
    >>> autoencoder.encode(Digits().test.batch()[:3]).shape
    torch.Size([3, 2])
    """

    no_evidence: ClassVar[str] = (
        "an Autoencoder has no distribution on the code, so it has no p(x), only a reconstruction error: "
        "train a VAE to estimate log p(x)"
    )

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        latent_dim: int,
        data_shape: Iterable[int],
        *,
        loss: Literal["squared_error", "cross_entropy"] = "squared_error",
    ) -> None:
        super().__init__()
        if loss not in ("squared_error", "cross_entropy"):
            raise InputError(f"loss expects 'squared_error' or 'cross_entropy', got {loss!r}")
        self.loss = loss
        self.encoder = encoder
        self.decoder = decoder
        self.code = head(encoder, (count("latent_dim", latent_dim),))
        self.output = head(decoder, data_shape)

    def error(self, x: Tensor) -> Tensor:
        """The error of each datum: (B,)."""
        output = self.output(self.decoder(self.code(self.encoder(x))))
        if self.loss == "squared_error":
            return (x - output).square().flatten(1).sum(1)
        return binary_cross_entropy_with_logits(output, x, reduction="none").flatten(1).sum(1)

    def model(self, x: Tensor) -> Tensor:
        """The error of x as a factor in the plate "data", which is no density. x is (B, *data_shape)."""
        self.register(self)
        with pyro.plate("data", x.shape[0], dim=-1):
            error = self.error(x)
            infer = {"is_auxiliary": True, "no_density": self.no_evidence}
            return pyro.sample("x", dist.Unit(-error), obs=error.new_empty(len(error), 0), infer=infer)

    def guide(self, x: Tensor) -> Tensor:
        """Nothing to draw."""
        return x

    def check(self, x: Tensor) -> None:
        """Refuse data of another shape than the networks', with missing entries, or without cross-entropy."""
        self.check_shape(x, self.output.output_shape)
        if bool(x.isnan().any()):
            raise InputError(
                f"an Autoencoder takes no missing entries, got {int(x.isnan().sum())} NaN: train a VAE, "
                "whose log p(x|z) leaves them out, or replace them"
            )
        if self.loss == "cross_entropy" and not (float(x.min()) >= 0 and float(x.max()) <= 1):
            raise InputError(
                f"the loss cross_entropy expects values from 0 to 1, got some from {float(x.min()):.4g} to "
                f"{float(x.max()):.4g}: rescale the data or choose squared_error"
            )

    def sample(self, num: int, *, mean: bool = False) -> Tensor:
        """Refused: there is no distribution to sample from.

        Raises:
            InputError: always.
        """
        raise InputError(
            "an Autoencoder has no distribution on the code, so it has nothing to sample from: train a VAE, "
            "or decode codes of your own"
        )

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """The code of each datum: (B, L)."""
        return self.code(self.encoder(x))

    def codes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The code of each datum, and zeros, since it is a point: (B, L) each."""
        code = self.encode(x)
        return code, torch.zeros_like(code)

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """x̂ at codes z: (..., *data_shape)."""
        output = self.output(self.decoder(z))
        return output if self.loss == "squared_error" else output.sigmoid()

    def reconstruct(self, x: Tensor) -> Tensor:
        """x̂ of x: (B, *data_shape)."""
        return self.decode(self.encode(x))
