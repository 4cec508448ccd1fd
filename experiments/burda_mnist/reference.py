"""The same model and training in plain PyTorch, without Pyro and without pyro_vae's model or training.

Only the data come from `pyro_vae.data`, so that both are measured on the same binarised test images.

    python experiments/burda_mnist/reference.py --out reference.json
"""

import argparse
import json
import math
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from pyro_vae.data import MNIST, Dataset, Digits


class PlainVAE(nn.Module):
    """D-200-200-L-200-200-D tanh."""

    def __init__(self, data_dim: int, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.encoder = nn.Sequential(
            nn.Linear(data_dim, 200),
            nn.Tanh(),
            nn.Linear(200, 200),
            nn.Tanh(),
            nn.Linear(200, 2 * latent_dim),
        )
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, 200), nn.Tanh(), nn.Linear(200, 200), nn.Tanh(), nn.Linear(200, data_dim)
        )

    def elbo(self, x: Tensor, closed_kl: bool) -> Tensor:
        mean, log_scale = self.encoder(x).chunk(2, dim=-1)
        noise = torch.randn_like(mean)
        z = mean + log_scale.exp() * noise
        if closed_kl:
            kl = 0.5 * (mean**2 + (2 * log_scale).exp() - 1 - 2 * log_scale).sum(-1)
        else:
            kl = 0.5 * (z**2 - noise**2 - 2 * log_scale).sum(-1)
        return -F.binary_cross_entropy_with_logits(self.decoder(z), x, reduction="none").sum(-1) - kl

    @torch.no_grad()
    def log_evidence(self, x: Tensor, particles: int) -> Tensor:
        mean, log_scale = self.encoder(x).chunk(2, dim=-1)
        noise = torch.randn(particles, *mean.shape)
        z = mean + log_scale.exp() * noise
        log_pz = -0.5 * (z**2 + math.log(2 * math.pi)).sum(-1)
        log_qz = (-0.5 * (noise**2 + math.log(2 * math.pi)) - log_scale).sum(-1)
        logits = self.decoder(z)
        log_px = -F.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none").sum(-1)
        return (log_px + log_pz - log_qz).logsumexp(0) - math.log(particles)


def train(model: PlainVAE, data: Dataset, epochs: int, batch_size: int, closed_kl: bool) -> None:
    grey = data.train.values.flatten(1)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=epochs, eta_min=1e-4)
    for _ in tqdm(range(epochs), unit="epoch", disable=None):
        for index in torch.randperm(len(grey)).split(batch_size):
            probabilities = grey[index].float() / data.train.maximum
            x = (torch.rand_like(probabilities) < probabilities).float()
            loss = -model.elbo(x, closed_kl).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        schedule.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--particles", type=int, default=1000)
    parser.add_argument("--num_data", type=int, default=1000)
    parser.add_argument("--kl", choices=("sampled", "closed"), default="sampled", help="KL in training.")
    parser.add_argument("--smoke", action="store_true", help="Digits instead of MNIST.")
    options = parser.parse_args()
    data: Dataset = Digits() if options.smoke else MNIST()
    torch.manual_seed(options.seed)
    model = PlainVAE(data.data_shape.numel(), latent_dim=50)
    start = time.perf_counter()
    train(model, data, options.epochs, batch_size=100, closed_kl=options.kl == "closed")
    seconds = time.perf_counter() - start
    test = data.test.subset(options.num_data)
    parts = [model.log_evidence(x, options.particles) for x in test.batch().flatten(1).split(5)]
    estimate = torch.cat(parts).double()
    content = {
        "log_evidence": float(estimate.mean()),
        "standard_error": float(estimate.std() / math.sqrt(len(estimate))),
        "units": "nats per datum",
        "particles": options.particles,
        "num_data": len(test),
        "data_hash": test.hash(),
        "epochs": options.epochs,
        "kl": options.kl,
        "seed": options.seed,
        "seconds": seconds,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(content, indent=2) + "\n")
    print(f"log p(x) = {content['log_evidence']:.3f} ± {content['standard_error']:.3f} nats per datum")


if __name__ == "__main__":
    main()
