"""How far bfloat16 networks move the ELBO and log p(x) of a trained model, by the same draws."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

import pyro_vae as pv
from pyro_vae.networks import in_bfloat16


def main(epochs: int = 100, particles: int = 1000) -> None:
    """Train the default model on the digits, and print the differences in nats per datum.

    Args:
        epochs: Of the training.
        particles: Of log p(x); the ELBO takes a tenth.
    """
    torch.manual_seed(0)
    data = pv.Digits()
    vae = pv.assemble(data)
    pv.fit(vae, data, epochs=epochs, device="cpu")
    x = data.test.batch()

    def measured() -> dict[str, torch.Tensor]:
        torch.manual_seed(1)
        log_px = pv.log_evidence(vae.model, vae.guide, x, num_particles=particles, compile="off").estimate
        elbo = pv.elbo(vae.model, vae.guide, x, num_particles=max(particles // 10, 1)).elbo
        return {"ELBO": elbo, "log p(x)": log_px}

    full = measured()
    with in_bfloat16(vae):
        rounded = measured()
    for name, values in full.items():
        difference = rounded[name] - values
        mean, largest = float(difference.mean()), float(difference.abs().max())
        print(f"{name:8}  mean {mean:+.4f}  largest {largest:.4f} nats, {len(x)} data")


if __name__ == "__main__":
    main()
