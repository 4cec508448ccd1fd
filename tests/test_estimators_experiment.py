"""The experiment estimators: its own methods against closed forms, its smoke run, its committed results."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import pyro_vae as pv
from experiments.estimators import figures, programs, report, run
from experiments.estimators.estimators import ESTIMATORS
from experiments.estimators.harmonic_mean import drawn_by_nuts, harmonic_mean
from experiments.estimators.moment_matching import moment_matched
from experiments.estimators.posteriors import POSTERIORS
from experiments.estimators.report import points, reached, sections, summary
from experiments.estimators.rounds import annealed_in_rounds, equal_barriers, temperatures
from experiments.estimators.sequential import sequential
from experiments.records import finished
from pyro_vae.annealing.chains import anneal, begin
from pyro_vae.annealing.kernels import tune
from pyro_vae.annealing.options import AnnealingOptions
from pyro_vae.annealing.path import AnnealingPath
from pyro_vae.annealing.summary import estimate_of
from pyro_vae.batch import Batch
from pyro_vae.programs import Latents
from pyro_vae.randomness import own_randomness
from tests.committed import assert_committed

HERE = Path(run.__file__).parent
#: Whose errors stand in docs/which_estimator.md and docs/estimators.md.
QUOTED = {
    "good": "importance guide guide_rounds prior",
    "narrow": "importance matched",
    "correlated": "importance local prior guide",
    "modes": "importance local prior guide",
    "funnel": "importance local prior",
}
CPU = torch.device("cpu")


@pytest.fixture
def plain() -> programs.Known:
    """Two latents and three numbers, with a wide guide."""
    made = programs.Linear(torch.tensor([[1.0, 0.2], [0.0, 1.0], [0.5, -0.5]]).double(), 2.0)
    with own_randomness(0, CPU):
        return made.known(3, covariance=1.5 * made.covariance)


def path_of(known: programs.Known, data: Batch, options: AnnealingOptions) -> AnnealingPath:
    return AnnealingPath(Latents(known.model, known.guide, data), data, options, 0)


def annealing(chains: int, temperatures: int) -> AnnealingOptions:
    return AnnealingOptions(chains, temperatures, "prior", "sigmoid", 5, 0.65, None, "off")


def unbiased(estimate: Tensor, log_px: Tensor) -> None:
    """p̂ / p of many repetitions (R, B) has the mean 1."""
    ratio = (estimate - log_px).exp()
    error = ratio.std() / math.sqrt(ratio.numel())
    assert error < 0.1 and abs(float(ratio.mean()) - 1) < 3.5 * error


@pytest.mark.parametrize("draw", [programs.two_modes, programs.funnel, programs.enumerated])
def test_the_reference_values_are_those_of_many_draws_from_the_prior(
    draw: Callable[[int], programs.Known],
) -> None:
    """The prior as guide misses nothing."""
    with own_randomness(0, CPU):
        known = draw(4)
        latents = Latents(known.model, known.guide, Batch(known.x))
        u = latents.from_prior(Batch(known.x), 50_000)
        log_px = latents.log_probs(Batch(known.x), u, guide=False).log_px
    found = estimate_of(log_px.double())
    assert ((found.estimate - known.log_px).abs() < 4 * found.standard_error + 1e-3).all()
    assert (found.standard_error < 0.1).any()


def test_moments_are_matched_where_the_guide_is_narrow() -> None:
    """A normal guide moved onto a normal posterior leaves weights that are nearly equal."""
    made = programs.Linear(torch.tensor([[2.0, 1.0], [0.5, 1.0], [1.0, -0.5]]).double(), 0.5)
    with own_randomness(0, CPU):
        known = made.known(3, covariance=made.covariance / 9, shift=1.0)
        latents = Latents(known.model, known.guide, Batch(known.x))
        found = moment_matched(latents, Batch(known.x), 4000, enough=0.2)
        plain = pv.log_evidence(known.model, known.guide, known.x, num_particles=4000)
    assert (plain.pareto_k > 0.7).all() and (plain.estimate - known.log_px).abs().max() > 0.3
    assert (found.pareto_k < 0.5).all()
    torch.testing.assert_close(found.estimate, known.log_px, rtol=0, atol=0.03)
    assert found.densities > 3 * 4000


def test_fresh_draws_from_matched_moments_are_unbiased() -> None:
    """Also where 30 draws match them badly."""
    made = programs.Linear(torch.tensor([[2.0, 1.0], [0.5, 1.0], [1.0, -0.5]]).double(), 0.5)
    with own_randomness(0, CPU):
        known = made.known(1, covariance=1.2 * made.covariance, shift=0.5)
        data = Batch(known.x).repeat(300)
        found = moment_matched(Latents(known.model, known.guide, data), data, 30, enough=-math.inf)
    unbiased(found.estimate, known.log_px)


def test_sequential_monte_carlo_finds_the_closed_form(plain: programs.Known) -> None:
    options = annealing(16, 8)
    data = Batch(plain.x).repeat(100)
    with own_randomness(0, CPU):
        path = path_of(plain, data, options)
        kernels = tune(path, options)
        found = sequential(path, kernels, 16, threshold=1.0)  # resampled at each step
    unbiased(found.reshape(100, -1), plain.log_px)
    assert (found.reshape(100, -1).mean(0) - plain.log_px).abs().max() < 0.06


def test_without_resampling_it_is_annealing(plain: programs.Known) -> None:
    options = annealing(6, 5)
    with own_randomness(0, CPU):
        path = path_of(plain, Batch(plain.x), options)
        kernels = tune(path, options)
    found = []
    for one in (
        lambda: sequential(path, kernels, 6, threshold=0.0),
        lambda: estimate_of(anneal(path, kernels, begin(path.draw(6))).log_weights).estimate,
    ):
        with own_randomness(1, CPU):
            found.append(one())
    torch.testing.assert_close(*found, rtol=0, atol=1e-12)


def test_rounds_find_the_closed_form(plain: programs.Known) -> None:
    assert temperatures(64) == [8, 16, 32] and temperatures(8) == []
    options = annealing(16, 16)
    data = Batch(plain.x).repeat(60)
    with own_randomness(0, CPU):
        log_weights = annealed_in_rounds(path_of(plain, data, options), options)
    estimate = estimate_of(log_weights).estimate.reshape(60, -1)
    unbiased(estimate, plain.log_px)
    assert (estimate.mean(0) - plain.log_px).abs().max() < 0.06


def test_steps_of_equal_barriers() -> None:
    """A barrier of √β, of steps as they are, is passed at β = (t/T)²."""
    betas = torch.linspace(0, 1, 1001, dtype=torch.float64)[:, None]
    found = equal_barriers(betas, betas.sqrt().diff(dim=0), 4)[:, 0]
    torch.testing.assert_close(found, (torch.arange(5).double() / 4) ** 2, rtol=0, atol=2e-3)


def test_the_harmonic_mean_finds_the_closed_form_where_it_can(plain: programs.Known) -> None:
    """Noise of 2 leaves 1/p(x|z) a finite variance; NUTS has the posterior's moments."""
    given = torch.tensor([[-1.0, -2.0], [-3.0, -2.0]])
    expected = [-math.log((math.exp(1) + math.exp(3)) / 2), -2.0]
    assert harmonic_mean(given).tolist() == pytest.approx(expected)
    with own_randomness(0, CPU):
        path = path_of(plain, Batch(plain.x), annealing(1, 1))
        found = drawn_by_nuts(path, 300, 50)
    torch.testing.assert_close(harmonic_mean(found.log_px), plain.log_px, rtol=0, atol=0.15)
    assert found.gradients > 350


def test_a_run_keeps_what_is_finished_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one posterior, all estimators."""
    for module in (run, report, figures):
        monkeypatch.setattr(module, "POSTERIORS", {"counts": POSTERIORS["counts"]})
    options = ["--smoke", "--out", str(tmp_path / "out"), "--runs", str(tmp_path / "runs")]
    assert run.main(options) == 0
    kept = tmp_path / "out" / "estimates.jsonl"
    lines = kept.read_text().splitlines()
    assert len(lines) == 1 + len(ESTIMATORS)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "estimates.jsonl",
        "summary.json",
        "errors.png",
    }
    kept.write_text("\n".join(lines[:-1]) + "\n")
    assert run.main(options) == 0
    again = kept.read_text().splitlines()
    assert again[:-1] == lines[:-1]
    assert json.loads(again[-1])["estimates"] == json.loads(lines[-1])["estimates"]


def test_the_committed_tables_show_the_committed_results() -> None:
    records = finished(HERE / "results" / "estimates.jsonl")
    assert_committed(HERE, sections(records), summary(records))
    for posterior in POSTERIORS:
        assert records[f"{posterior} reference"]["distance"] < 0.05
        for name in ESTIMATORS:
            assert points(records, posterior, name)
    docs = HERE.parents[1] / "docs"
    page = "\n".join((docs / name).read_text() for name in ("which_estimator.md", "estimators.md"))
    for posterior, names in QUOTED.items():
        for name in names.split():
            assert f"{summary(records)['errors'][posterior][name]:.2g}" in page, (posterior, name)
    assert reached(points(records, "modes", "importance")) is None  # which never sees the other mode
