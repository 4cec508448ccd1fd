"""The experiment autoencoder_vs_vae: its numbers on known answers, its smoke run, its committed results."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm
from torch import Tensor, nn

import pyro_vae as pv
from experiments.autoencoder_vs_vae import figures, metrics
from experiments.autoencoder_vs_vae.judge import Judge, train_classifier
from experiments.autoencoder_vs_vae.measuring import STEPS, as_vae, lines, of_codes, pairs_of_classes, sources
from experiments.autoencoder_vs_vae.report import off_centre, sections, spread, summary
from experiments.autoencoder_vs_vae.run import HERE, main, rounded
from experiments.grid import grid_log_evidence
from experiments.listing import read_experiments
from experiments.markdown import insert
from pyro_vae.data import Split


def cloud(radii: int = 300, angles: int = 60) -> Tensor:
    """Codes that lie as N(0, I) does: its quantiles of the radius at equal angles, (N, 2) of float64."""
    levels = (torch.arange(radii, dtype=torch.float64) + 0.5) / radii
    radius = (-2 * torch.log1p(-levels)).sqrt()
    angle = torch.arange(angles, dtype=torch.float64) * (2 * math.pi / angles)
    return torch.stack([radius[:, None] * angle.cos(), radius[:, None] * angle.sin()], dim=-1).flatten(0, 1)


def test_a_point_lies_as_far_from_the_normal_as_its_closed_form_says() -> None:
    # in the direction θ, of one value p: E (p − N(0, 1))² = p² + 1
    found = metrics.sliced_distance(torch.tensor([[3.0, 4.0]]))
    assert found == pytest.approx(math.sqrt(25 / 2 + 1), rel=1e-12)


@pytest.mark.parametrize(("scale", "shift"), [(1.0, (0.0, 0.0)), (1.7, (0.0, 0.0)), (0.4, (2.0, -1.0))])
def test_sliced_distance_of_moved_and_stretched_normals(scale: float, shift: tuple[float, float]) -> None:
    """Between N(m, s²) and N(0, 1) it is m² + (s − 1)²; the mean of (θᵀm)² over directions is ‖m‖²/2."""
    codes = scale * cloud() + torch.tensor(shift)
    expected = math.sqrt(sum(each**2 for each in shift) / 2 + (scale - 1) ** 2)
    assert metrics.sliced_distance(codes) == pytest.approx(expected, abs=0.01)


def test_sliced_distance_of_an_ellipse() -> None:
    """In the direction θ the deviation is √(a² cos² + b² sin²)."""
    a, b = 2.0, 0.5
    expected = (
        quad(lambda t: (math.hypot(a * math.cos(t), b * math.sin(t)) - 1) ** 2, 0, math.pi)[0] / math.pi
    )
    found = metrics.sliced_distance(cloud() * torch.tensor([a, b]))
    assert found == pytest.approx(math.sqrt(expected), abs=0.01)


def test_sliced_distance_is_the_integral_over_quantiles() -> None:
    codes = torch.tensor([[0.3, 0.0], [-1.0, 0.0], [2.0, 0.0]])
    steps = [-1.0, 0.3, 2.0]
    parts = [
        quad(lambda u, p=p: (p - norm.ppf(u)) ** 2, i / 3, (i + 1) / 3, limit=200)[0]
        for i, p in enumerate(steps)
    ]
    assert metrics.sliced_distance(codes, directions=1) == pytest.approx(math.sqrt(sum(parts)), rel=1e-6)
    with pytest.raises(pv.InputError, match=r"expects codes \(N, 2\), got \(5, 3\)"):
        metrics.sliced_distance(torch.zeros(5, 3))


def test_divergence_of_the_matched_normal() -> None:
    corners = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])  # mean 0, covariance I
    assert metrics.normal_divergence(corners) == pytest.approx(0, abs=1e-12)
    codes = corners * torch.tensor([2.0, 0.3]) + torch.tensor([1.0, -3.0])
    expected = sum(m**2 / 2 + (s**2 - 1) / 2 - math.log(s) for m, s in ((1.0, 2.0), (-3.0, 0.3)))
    assert metrics.normal_divergence(codes) == pytest.approx(expected, rel=1e-6)
    assert metrics.normal_divergence(metrics.whitened(codes)) == pytest.approx(0, abs=1e-9)


def test_whitening_leaves_only_the_shape() -> None:
    codes = cloud(60, 24)
    moved = codes @ torch.tensor([[3.0, 1.0], [0.0, 0.2]], dtype=torch.float64) + 7
    assert metrics.sliced_distance(metrics.whitened(moved)) < 0.06 < metrics.sliced_distance(moved)


def test_variance_within_classes() -> None:
    codes = torch.tensor([[-1.0, 0], [-1, 2], [1, 0], [1, 2]])
    labels = torch.tensor([0, 0, 1, 1])
    # along the first axis none is within classes, along the second all
    assert metrics.within_share(codes, labels) == pytest.approx(0.5)
    turned = codes @ torch.tensor([[5.0, 1.0], [-2.0, 0.3]])
    assert metrics.within_share(turned, labels) == pytest.approx(0.5)
    assert metrics.within_share(codes, torch.zeros(4)) == pytest.approx(1)


def test_neighbours_vote() -> None:
    codes = torch.tensor([[0.0, 0], [0, 1], [0, 2], [9, 0], [9, 1], [9, 2]])
    labels = torch.tensor([0, 0, 1, 1, 1, 1])
    test = torch.tensor([[0.0, 1], [9, 1], [0, 2], [9, 9]])
    found = metrics.neighbour_accuracy(codes, labels, test, torch.tensor([0, 1, 1, 0]), neighbours=3)
    assert found == 0.5


def test_holes_are_where_no_code_is() -> None:
    held_out = cloud(100, 50) + 0.001
    assert metrics.hole_share(held_out, cloud(), held_out, level=0.9) == pytest.approx(0.1, abs=0.001)
    assert metrics.hole_share(cloud(10, 10) / 10 + 50, cloud(), held_out) == 1
    assert metrics.hole_share(cloud()[:50], cloud(), held_out) == 0


def test_kinds_of_digits() -> None:
    assert metrics.effective_classes(torch.tensor([4, 4, 7, 7, 1, 1])) == pytest.approx(3)
    assert metrics.effective_classes(torch.tensor([5])) == 1
    shares = np.array([0.75, 0.25])
    assert metrics.effective_classes(torch.tensor([0, 0, 0, 9])) == pytest.approx(
        math.exp(-(shares * np.log(shares)).sum())
    )
    assert metrics.effective_classes(torch.tensor([])) == 0


def test_pixels_to_the_nearest_image() -> None:
    images = torch.tensor([[1.0, 1, 0, 0], [0, 0, 0, 1]])
    pictures = torch.tensor([[1.0, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]])
    assert metrics.nearest_pixels(pictures, images) == pytest.approx((0 + 2 + 1) / 3)


def test_sources_have_the_moments_of_the_codes() -> None:
    corners = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    codes = corners @ torch.tensor([[2.0, 1.0], [0.0, 0.5]]) + 3
    found = sources(codes, 200_000)
    for draws, like in ((found["standard"], corners), (found["fitted"], codes)):
        for ours, theirs in zip(metrics.moments(draws), metrics.moments(like), strict=True):
            assert torch.allclose(ours, theirs, atol=0.05)


def test_lines_are_straight_and_pairs_differ() -> None:
    codes = torch.tensor([[0.0, 0], [10, 20], [-5, 5]])
    found = lines(codes, torch.tensor([[0, 1], [2, 0]]))
    assert found.shape == (STEPS, 2, 2)
    assert torch.allclose(found[3, 0], torch.tensor([3.0, 6.0]))
    assert torch.allclose(found[-1], codes[[1, 0]]) and torch.allclose(found[0], codes[[0, 2]])
    labels = torch.tensor([0, 0, 1, 2])
    pairs = pairs_of_classes(labels, 30)
    assert pairs.shape == (30, 2) and (labels[pairs[:, 0]] != labels[pairs[:, 1]]).all()
    assert torch.equal(pairs, pairs_of_classes(labels, 30))


class Corner(nn.Module):
    """Sure of class 3 where the first pixel is 1; else all classes alike."""

    def forward(self, x: Tensor) -> Tensor:
        return 100 * x.flatten(1)[:, :1] * nn.functional.one_hot(torch.tensor(3), 10)


def test_the_judge_is_confident_only_above_its_threshold() -> None:
    images = Split(torch.tensor([[[[1.0, 0.0]]], [[[0.0, 0.0]]]]))
    judge = Judge(Corner(), images)
    means = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]).reshape(4, 1, 1, 2)
    found = judge.of_means(means, torch.tensor([3, 4, 0, 0]))
    assert found == {
        "confident": 0.5,
        "confident_sharp": 0.5,
        "classes": 1.0,
        "pixels": 0.25,
        "accuracy": 0.75,  # where all are alike it says the first
    }
    grey = judge.of_means(torch.tensor([0.3, 0.0]).expand(4000, 1, 1, 2))
    assert grey["confident"] == pytest.approx(0.3, abs=0.05) and grey["confident_sharp"] == 0


def test_the_classifier_learns_digits_and_repeats() -> None:
    data = pv.Digits()
    networks = [train_classifier(data.train, epochs=15) for _ in range(2)]
    for ours, theirs in zip(*(network.parameters() for network in networks), strict=True):
        assert torch.equal(ours, theirs)
    found = Judge(networks[0], pv.Digits(form=pv.Threshold()).train).verdict(data.test.batch())
    assert data.test.labels is not None
    assert float(found.digit.eq(data.test.labels).double().mean()) > 0.8


def test_the_grid_has_the_same_by_a_product_and_pixel_by_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    data = pv.Digits()
    vae = pv.assemble(data, latent_dim=2)
    x = data.test.batch()[:7]
    fast = grid_log_evidence(vae, x, points=41)
    monkeypatch.setattr("experiments.grid._by_product", lambda _: False)
    slow = grid_log_evidence(vae, x, points=41)
    for ours, theirs in zip(fast, slow, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4)


def test_an_autoencoder_with_a_fitted_normal_has_a_density() -> None:
    """Its pixels as the decoder has them at m + A u; log p(x) is the mean over draws of z ~ N(m, S)."""
    data = pv.Digits()
    plain = pv.assemble(data, program=pv.Autoencoder, latent_dim=2)
    codes = cloud(60, 24) @ torch.tensor([[4.0, 1.0], [0.0, 2.0]], dtype=torch.float64) - 5
    vae = as_vae(plain, codes)
    mean, covariance = (each.float() for each in metrics.moments(codes))
    u = torch.randn(50_000, 2)
    z = mean + u @ torch.linalg.cholesky(covariance).T
    assert torch.allclose(vae.decode(u[:100]), plain.output(plain.decoder(z[:100])).sigmoid(), atol=1e-6)
    x = data.test.batch()[:3]
    means = plain.output(plain.decoder(z)).sigmoid()[:, None]
    log_px = (x * means.log() + (1 - x) * (-means).log1p()).flatten(2).sum(2)
    sampled = log_px.double().logsumexp(0) - math.log(len(z))
    assert torch.allclose(grid_log_evidence(vae, x, points=201).estimate, sampled, atol=0.02)


def test_smoke_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    out, options = tmp_path / "out", ["--smoke", "--runs", str(tmp_path / "runs")]
    assert main([*options, "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == {"models.jsonl", "summary.json", *figures.FILES}
    kept = out / "models.jsonl"
    lines = kept.read_text().splitlines()
    assert [json.loads(line)["name"] for line in lines] == ["images", "autoencoder 0", "VAE 0"]
    kept.write_text("\n".join(lines[:-1]) + "\n")
    assert main([*options, "--out", str(out)]) == 0
    before, after = json.loads(lines[-1]), json.loads(kept.read_text().splitlines()[-1])
    assert after.pop("seconds") and before.pop("seconds") and after == before
    kept.write_text(lines[0].replace('"draws": 100', '"draws": 99') + "\n")
    with pytest.raises(pv.InputError, match="choose another folder with --out"):
        main([*options, "--out", str(out)])


def test_numbers_are_rounded_and_spread_over_seeds() -> None:
    assert rounded({"a": [0.12345678], "b": 3, "c": [0.12345678] * 21}) == {
        "a": [0.123457],
        "b": 3,
        "c": [0.123] * 21,
    }
    records = [{"a": {"b": each}} for each in (-1.0, 0.0, -2.0)]
    assert spread(records, "a.b", digits=1) == "−1.0 ± 1.0"
    assert spread(records[:1], "a.b", factor=100) == "−100.00"
    assert spread(records, "a.c") == ""


def test_the_mean_is_off_centre_in_units_of_the_longest_deviation() -> None:
    codes = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]]) * torch.tensor([4.0, 0.5])
    records = [{"codes": of_codes(codes + torch.tensor(shift))} for shift in ([0.0, 0.0], [-1.2, 1.6])]
    assert off_centre(records, "codes") == pytest.approx([0, 2 / 4])


def test_the_facts_name_the_image_that_the_grid_resolves_worst() -> None:
    text = (HERE / "results" / "models.jsonl").read_text()
    records = {record["name"]: record for record in map(json.loads, text.splitlines())}
    records["VAE 1"]["evidence"]["coarse_furthest"] = 0.75
    records["autoencoder 0"]["evidence"]["coarse_furthest"] = 62.3
    expected = "on a single image by at most 62.3 (62.3 and 39.1 by seed) and 0.75."
    assert expected in sections(records)["facts"]


def test_readme_and_summary_show_the_committed_results() -> None:
    text = (HERE / "results" / "models.jsonl").read_text()
    records = {record["name"]: record for record in map(json.loads, text.splitlines())}
    assert len(records) == 5
    assert json.loads((HERE / "results" / "summary.json").read_text()) == summary(records)
    readme = (HERE / "README.md").read_text()
    found = sections(records)
    assert insert(readme, found) == readme
    assert all(f"<!-- {name} -->\n\n{section}\n" in readme for name, section in found.items())
    for name in figures.FILES:
        assert f"results/{name}" in readme and (HERE / "results" / name).stat().st_size < 300_000
    own = next(each for each in read_experiments(HERE.parent) if each.name == "autoencoder_vs_vae")
    assert own.status == "complete" and own.answer
