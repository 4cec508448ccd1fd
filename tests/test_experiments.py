"""Each experiment runs for one step or epoch on the embedded data."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch

import pyro_vae as pv
from pyro_vae.cli import main

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


@pytest.mark.parametrize("config", sorted(EXPERIMENTS.rglob("*.yaml")), ids=lambda path: path.parent.name)
def test_configurations_train(config: Path, tmp_path: Path) -> None:
    options = ["--data", "Digits", "--steps", "2", "--particles", "5", "--out", str(tmp_path / "run")]
    assert main(["train", "--config", str(config), *options]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["training"]["steps"] == 2


def test_burda_reference_in_plain_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script, out = EXPERIMENTS / "burda_mnist" / "reference.py", tmp_path / "reference.json"
    for kl in ("sampled", "closed"):
        options = ["--smoke", "--epochs", "1", "--particles", "5", "--kl", kl, "--out", str(out)]
        monkeypatch.setattr(sys, "argv", [str(script), *options])
        runpy.run_path(str(script), run_name="__main__")
        assert -45 < json.loads(out.read_text())["log_evidence"] < -25


def test_the_reference_measures_what_the_library_measures() -> None:
    """The two estimates of one model, copied parameter by parameter, agree within their errors."""

    plain_class = runpy.run_path(str(EXPERIMENTS / "burda_mnist" / "reference.py"))["PlainVAE"]
    data = pv.Digits()
    vae = pv.assemble(data, latent_dim=5)
    plain = plain_class(64, 5)
    # tanh-bounded log-scales: equal to the plain ones within 1e-3 where they are small
    with torch.no_grad():
        for ours, theirs in ((vae.posterior.encoder, plain.encoder), (vae.likelihood.decoder, plain.decoder)):
            for layer in (0, 2):
                theirs[layer].load_state_dict(ours.layers[layer + 1].state_dict())
        heads = (vae.posterior.loc.layers[1], vae.posterior.log_scale.layers[1])
        plain.encoder[4].weight.copy_(torch.cat([head.weight for head in heads]))
        plain.encoder[4].bias.copy_(torch.cat([head.bias for head in heads]))
        plain.decoder[4].load_state_dict(vae.likelihood.logits.layers[1].state_dict())
    x = data.test.batch()[:50]
    result = pv.log_evidence(vae.model, vae.guide, x, num_particles=2000)
    assert (
        (result.estimate - plain.log_evidence(x.flatten(1), 2000)).abs() < 6 * result.standard_error
    ).all()
    terms = pv.elbo(vae.model, vae.guide, x, num_particles=300).elbo.mean()
    for closed in (True, False):
        elbo = torch.stack([plain.elbo(x.flatten(1), closed) for _ in range(300)]).mean()
        assert abs(elbo - terms) < 0.02


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.rglob("results/*.json")), ids=lambda path: path.stem)
def test_tables_show_the_committed_results(path: Path) -> None:
    found = json.loads(path.read_text())["log_evidence"]
    estimate = found["estimate"] if isinstance(found, dict) else found
    assert f"−{abs(estimate):.2f}" in (path.parents[1] / "README.md").read_text()
