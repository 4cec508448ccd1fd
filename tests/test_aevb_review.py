"""The review of Auto-Encoding Variational Bayes: closed forms, and one command."""

import json
import math
from pathlib import Path

import pytest
import torch

import pyro_vae as pv
from experiments.aevb_review import run as review
from experiments.aevb_review.measures import (
    changing,
    constant_density,
    group_of,
    levels_of,
    pixel_densities,
    uniform_density,
    unusual,
)
from experiments.aevb_review.report import sections, summary
from experiments.aevb_review.variants import VARIANTS
from experiments.aevb_review.zoom import zoomed_log_evidence
from experiments.records import finished
from tests.committed import assert_committed

HERE = Path(review.__file__).parent


def normal_vae(**choices: object) -> pv.VAE:
    """A linear decoder of two latent dimensions for four pixels, in float64."""
    torch.manual_seed(0)
    network = pv.MLP(())
    likelihood = pv.NormalLikelihood(network.decoder(2, (4,)), (4,), **choices)  # type: ignore[arg-type]
    posterior = pv.DiagonalNormalPosterior(network.encoder((4,)), 2)
    return pv.VAE(prior=pv.StandardNormalPrior(2), likelihood=likelihood, posterior=posterior).double()


@pytest.mark.parametrize("low", [-3.0, -6.0, -20.0])
def test_a_constant_pixel_takes_the_smallest_scale_and_gains_its_logarithm(low: float) -> None:
    vae = normal_vae(scale="per_pixel", log_scale_bounds=(low, 3.0))
    x = torch.full((5, 4), 0.25, dtype=torch.float64)
    found = []
    for raw in (0.0, -10.0, -1e4):  # of the head, before its bounds
        with torch.no_grad():
            for head, value in ((vae.likelihood.loc, 0.25), (vae.likelihood.log_scale, raw)):
                head.layers[1].weight.zero_()
                head.layers[1].bias.fill_(value)
        density, log_scale = pixel_densities(vae, x, torch.randn(5, 2, dtype=torch.float64))
        assert density.flatten().tolist() == pytest.approx([constant_density(float(log_scale[0, 0]))] * 20)
        found.append(float(density[0, 0]))
    assert found[0] < found[1] <= found[2]
    assert found[2] == pytest.approx(constant_density(low), abs=1e-12)
    # log(1/s) more than at s = 1
    assert found[2] - constant_density(0.0) == pytest.approx(-low, abs=1e-12)


def test_dequantised_pixels_give_no_more_than_their_bin() -> None:
    width = 1 / 256
    u = (torch.arange(2_000, dtype=torch.float64) + 0.5) / 2_000 * width
    scales = torch.linspace(0.5, 2, 601, dtype=torch.float64) * width / math.sqrt(12)
    density = torch.distributions.Normal(width / 2, scales).log_prob(u[:, None]).mean(0)
    assert float(density.max()) == pytest.approx(uniform_density(width), abs=1e-5)
    assert float(scales[density.argmax()]) == pytest.approx(width / math.sqrt(12), rel=3e-3)
    assert uniform_density(width) < math.log(256)


def test_densities_of_the_pixels_add_up_and_scales_are_those_of_the_model() -> None:
    vae = normal_vae(scale="per_pixel")
    x, z = torch.randn(7, 4, dtype=torch.float64), torch.randn(7, 2, dtype=torch.float64)
    density, log_scale = pixel_densities(vae, x, z)
    px = vae.likelihood(z)
    assert torch.allclose(density.sum(1), px.log_prob(x), atol=1e-12)
    assert torch.allclose(log_scale.exp(), px.stddev, atol=1e-12)


def test_pixels_are_grouped_by_how_often_they_change() -> None:
    training = torch.zeros(2000, 5, dtype=torch.long)
    for pixel, number in enumerate((0, 2, 3, 200, 700)):
        training[:number, pixel] = 9
    assert changing(training).tolist() == [0, 0.001, 0.0015, 0.1, 0.35]
    assert group_of(changing(training)).tolist() == [0, 1, 2, 3, 4]
    levels = torch.tensor([[0, 0, 9, 9, 9], [1, 0, 0, 0, 0], [1, 9, 9, 9, 9]])
    assert unusual(levels, training).tolist() == [0, 1, 2]


@pytest.mark.parametrize("form", [pv.Levels(), pv.Dequantised()])
def test_levels_are_those_that_are_stored(form: pv.Form) -> None:
    stored = torch.arange(256, dtype=torch.uint8).reshape(64, 4)
    data = pv.Dataset(stored, test=stored, form=form)
    for split in (data.train, data.test):
        assert torch.equal(levels_of(data, split.batch()), stored.long())
    if form.name == "Dequantised":
        for u in (0.0, 0.9999):
            assert torch.equal(levels_of(data, (stored.float() + u) / 256), stored.long())


@pytest.mark.parametrize("scale", [1.0, 0.01, 1e-4])
def test_the_integral_is_that_of_a_linear_model(scale: float) -> None:
    """log p(x) = log N(x; b, W Wᵀ + s² I), also where p(z|x) is far narrower than the first squares."""
    vae = normal_vae(scale=scale)
    x = vae.likelihood(torch.randn(3, 2, dtype=torch.float64)).sample()
    layer = vae.likelihood.loc.layers[1]
    covariance = layer.weight @ layer.weight.T + scale**2 * torch.eye(4)
    exact = torch.distributions.MultivariateNormal(layer.bias, covariance).log_prob(x)
    found = zoomed_log_evidence(vae, x, levels=12)
    assert found.estimate.tolist() == pytest.approx(exact.tolist(), abs=1e-6)
    assert found.change.abs().max() < 1e-3


def test_the_integral_refuses_what_has_no_plane() -> None:
    data = pv.Digits()
    with pytest.raises(pv.InputError, match="expected two latent dimensions, got \\(3,\\)"):
        zoomed_log_evidence(pv.assemble(data, latent_dim=3), data.test.batch()[:2])
    with pytest.raises(pv.InputError, match="points expects a number from 2, got 1"):
        zoomed_log_evidence(normal_vae(), torch.zeros(1, 4), points=1)


def test_one_command_makes_everything_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--smoke", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
    assert review.main(options) == 0
    kept = tmp_path / "out" / "measures.jsonl"
    lines = kept.read_text().splitlines()
    records = {record["name"]: record for record in map(json.loads, lines)}
    assert set(records) == set(VARIANTS)
    for record in records.values():
        density = record["density"]
        assert sum(density["pixels"]) == 64
        assert sum(density["nats"]) == pytest.approx(density["unusual"]["mean"], abs=0.01)
        assert sum(density["by_pixel"][1]) == pytest.approx(density["unusual"]["mean"], abs=0.4)
    pictures = {"curves.png", "scales.png", "reconstructions.png", "around.png", "plane.png"}
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert made == {*pictures, "plane_unbounded.png", "measures.jsonl", "summary.json"}

    kept.write_text("\n".join(lines[1:]) + "\n")
    monkeypatch.setattr(review, "pictures", lambda *_: {})
    assert review.main(options) == 0
    again = {record["name"]: record for record in map(json.loads, kept.read_text().splitlines())}
    assert again == records


def test_the_committed_tables_show_the_committed_results() -> None:
    records = finished(HERE / "results" / "measures.jsonl")
    assert set(records) == set(VARIANTS)
    assert_committed(HERE, sections(records), summary(records))
    # what is written in the text of the README
    assert pv.bits_per_dim(784 * math.log(256), (784,), bin_width=1 / 256) == pytest.approx(0, abs=1e-12)
