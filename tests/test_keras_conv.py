"""The convolutional Keras VAE: its loss, and the experiment in small."""

import json
from pathlib import Path

import pytest
import torch
from torch.distributions import Bernoulli

import pyro_vae as pv
from experiments.keras_conv import run as experiment
from experiments.keras_conv.run import grey_loss, summary, table
from experiments.markdown import insert

HERE = Path(experiment.__file__).parent


def test_it_runs_and_goes_on(tmp_path: Path) -> None:
    options = ["--smoke", "--out", str(tmp_path / "out"), "--runs", str(tmp_path / "runs")]
    assert experiment.main(options) == 0
    (line,) = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    found = json.loads(line)
    # 3×3 convolutions and dense layers on 8×8 pictures, which become 2×2
    assert found["parameters"] == {
        "posterior": 320 + 18_496 + (64 * 4 + 1) * 16 + 34 + 34,
        "likelihood": 3 * 64 * 4 + 36_928 + 18_464 + 289,
    }
    assert found["grid"]["num_data"] == 5
    pictures = {f"Digits_{name}.png" for name in experiment.PICTURES.values()}
    names = {"results.jsonl", "summary.json", *pictures}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    assert experiment.main(options) == 0
    assert (tmp_path / "out" / "results.jsonl").read_text().splitlines() == [line]


def test_the_loss_on_grey_pixels_bounds_that_of_their_binarisations(float64: None) -> None:
    """At one z, the cross-entropy is the mean over the 16 binarisations of four pixels."""
    decoder = pv.Network(torch.nn.Identity(), (2,), (2,))
    encoder = pv.Network(torch.nn.Identity(), (4,), (4,))
    vae = pv.VAE(
        pv.StandardNormalPrior(2),
        pv.BernoulliLikelihood(decoder, (4,)),
        pv.DiagonalNormalPosterior(encoder, 2),
    )
    grey = torch.rand(1, 4)
    found = grey_loss(vae, grey)
    torch.manual_seed(0)
    with torch.no_grad():
        qz = vae.posterior(grey)
        bits = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 4)
        log_px = vae.likelihood(qz.rsample()).log_prob(bits)
    weights = Bernoulli(grey).log_prob(bits).sum(-1).exp()
    loc, scale = qz.base_dist.loc, qz.base_dist.scale
    kl = 0.5 * (loc**2 + scale**2 - 1 - 2 * scale.log()).sum()
    assert found == pytest.approx(float(kl - (weights * log_px).sum()), abs=1e-10)


def test_features_that_are_always_zero_are_counted() -> None:
    vae = pv.assemble(pv.Digits(), latent_dim=2, network=pv.Convolutional((3,), 4, torch.nn.ReLU))
    dense = vae.posterior.encoder.layers[-2]
    with torch.no_grad():
        dense.bias.copy_(torch.tensor([100.0, -100.0, 100.0, -100.0]))
    assert experiment.dead_units(vae, pv.Digits().test.batch()) == 2


def test_readme_shows_the_committed_results() -> None:
    lines = (HERE / "results" / "results.jsonl").read_text().splitlines()
    found = {each["name"]: each for each in map(json.loads, lines)}
    readme = (HERE / "README.md").read_text()
    assert insert(readme, {"results": table(found)}) == readme
    assert table(found) in readme
    assert json.loads((HERE / "results" / "summary.json").read_text()) == summary(found["MNIST"])
    assert found["MNIST"]["parameters"] == {"posterior": 69_076, "likelihood": 65_089}
