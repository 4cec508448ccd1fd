"""What log_evidence says of its own estimate, when it stops, and where it goes on."""

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from torch import Tensor

import pyro_vae as pv
from pyro_vae.importance.pareto import pareto_k, tail_length
from pyro_vae.importance.running import Running, levels_of
from pyro_vae.importance.sampling import rounds_of
from pyro_vae.storage.resumable import Resumable
from tests.components import refused
from tests.test_importance import PPCA, D, L, N, Numbered

Program = Callable[[Tensor], Any]
CPU = torch.device("cpu")


class Stream:
    """Programs whose k-th draw has the k-th given log weight, whatever the chunks; x are places."""

    def __init__(self, log_w: Tensor) -> None:
        self.log_w, self.seen = log_w, torch.zeros(log_w.shape[1], dtype=torch.long)
        self.x = torch.arange(log_w.shape[1], dtype=torch.float64)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("k", Numbered(lambda shape: self.next(x.long(), shape)))

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", Numbered(torch.zeros))
            density = self.log_w[k.long(), x.long()]
            pyro.sample("x", dist.Delta(x.expand(density.shape), log_density=density), obs=x)

    def next(self, where: Tensor, shape: torch.Size) -> Tensor:
        if len(shape) == 1:  # when it is only looked at
            return torch.zeros(shape)
        numbers = self.seen[where] + torch.arange(shape[0])[:, None]
        self.seen[where] += shape[0]
        return numbers.to(self.x)


def reference_k(log_w: np.ndarray) -> float:
    """k̂ of all weights, written out from the paper's appendix C and Zhang & Stephens (2009)."""
    weights = np.sort(np.exp(log_w - log_w.max()))
    tail = math.ceil(min(0.2 * len(weights), 3 * math.sqrt(len(weights))))
    excess = weights[-tail:] - weights[-tail - 1]
    number = 30 + int(math.sqrt(tail))
    grid = 1 / excess[-1] + (1 - np.sqrt(number / (np.arange(1, number + 1) - 0.5))) / (
        3 * excess[int(tail / 4 + 0.5) - 1]
    )
    shape = np.array([np.log1p(-theta * excess).mean() for theta in grid])
    profile = tail * (np.log(-grid / shape) - shape - 1)
    posterior = np.exp(profile - profile.max())
    theta = (grid * posterior).sum() / posterior.sum()
    return float((np.log1p(-theta * excess).mean() * tail + 5) / (tail + 10))


@pytest.mark.parametrize("num_particles", [25, 26, 137, 3000])
def test_diagnosis_is_that_of_all_weights_at_once(num_particles: int) -> None:
    log_w = 2 * torch.randn(num_particles, 5, dtype=torch.float64) - 700
    for rows in (9, 64, 5000):  # chunks cut the blocks of every level
        stream = Stream(log_w)
        result = pv.log_evidence(
            stream.model, stream.guide, stream.x, num_particles=num_particles, rows=rows, compile="off"
        )
        assert stream.seen.tolist() == [num_particles] * 5
        torch.testing.assert_close(result.estimate, log_w.logsumexp(0) - math.log(num_particles))
        share = (log_w.max(0).values - log_w.logsumexp(0)).exp()
        torch.testing.assert_close(result.largest_share, share, rtol=1e-11, atol=0)
        expected = torch.tensor([reference_k(column) for column in log_w.T.numpy()], dtype=torch.float64)
        torch.testing.assert_close(result.pareto_k, expected, rtol=1e-8, atol=1e-10)
        for level, bound in zip(result.curve.num_particles, result.curve.bound, strict=True):
            full = num_particles // level
            blocks = log_w[: full * level].reshape(full, level, 5).logsumexp(1) - math.log(level)
            torch.testing.assert_close(bound, blocks.mean(0), rtol=1e-12, atol=0)


def test_levels() -> None:
    assert levels_of(1) == (1,)
    assert levels_of(10) == (1, 2, 5, 10)
    assert levels_of(1234) == (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 1234)


def test_what_is_kept_does_not_grow_with_the_number_of_draws() -> None:
    running = Running(3, levels_of(10**6), 21, CPU)

    def size() -> int:
        return sum(tensor.numel() for tensor in (*running.tensors.values(), *running.state()["pending"]))

    sizes = []
    for _ in range(300):
        running.add(torch.randn(1000, 3))
        sizes.append(size())
    assert max(sizes) < 2**16 + 3 * 1000 + 200
    assert tail_length(10**9) == 1000


def test_the_bound_starts_at_the_elbo_rises_and_ends_at_the_estimate(float64: None) -> None:
    ppca = PPCA()
    wide = lambda x: ppca.guide(x, 2.0)  # noqa: E731
    result = pv.log_evidence(ppca.model, wide, ppca.x, num_particles=20_000)
    curve = result.curve
    torch.testing.assert_close(curve.bound[-1], result.estimate)
    widened = dist.MultivariateNormal(torch.zeros(3), covariance_matrix=2 * torch.eye(3))
    gap = torch.distributions.kl_divergence(
        widened, dist.MultivariateNormal(torch.zeros(3), torch.eye(3))
    )  # KL(q‖p) does not depend on which Gaussian is widened
    torch.testing.assert_close(curve.bound[0], ppca.evidence() - gap, rtol=0, atol=0.06)
    assert (curve.mean.diff()[:9] > 0).all()
    assert (curve.mean < ppca.evidence().mean() + 0.01).all()


def test_k_is_large_where_the_guide_is_too_narrow_and_small_where_it_is_wide(float64: None) -> None:
    """q = N(0, s²) for N(0, 1): w has the tail index k = 1 − s², by the theory of regular variation."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(0 * z, 1.0), obs=x)

    def found(scale: float) -> Tensor:
        def guide(x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(x.new_zeros(()), scale))

        result = pv.log_evidence(model, guide, torch.zeros(20), num_particles=20_000)
        assert result.share_unreliable == (result.pareto_k > 0.7).double().mean()
        return result.pareto_k

    narrow, middle, wide = found(0.3), found(0.8), found(1.5)
    assert (narrow > 0.7).sum() >= 16 and (wide < 0).all()  # its standard error is 0.1
    assert narrow.mean().item() == pytest.approx(1 - 0.3**2, abs=0.12)
    assert middle.mean().item() == pytest.approx(1 - 0.8**2, abs=0.12)


def test_k_where_there_is_no_tail() -> None:
    """By definition, or on the edge of what the fit can take."""

    def k(weights: list[float] | Tensor) -> float:
        log_w = torch.as_tensor(weights, dtype=torch.float64).sort(descending=True).values
        return pareto_k(log_w, len(log_w), rounding=1e-16)

    zero = -math.inf
    assert math.isnan(k([0.0] * 24))  # too few draws
    assert k([0.0] * 25) == 0  # all equal
    assert math.isnan(k([zero] * 1000))  # nothing to fit
    assert k([0.0] * 4 + [zero] * 996) == math.inf  # four draws are all of it
    assert k([0.0] * 500 + [zero] * 500) == 0
    assert math.isnan(k([0.0] * 4 + [-1.0] * 996))  # two values, the higher one too rare to fit
    assert k([0.0] * 30 + [-1.0] * 970) < 0  # two values, hence bounded
    assert math.isfinite(
        k([0.0] * 100 + [-1.0] * 1300)
    )  # the fit's grid has a point at 0 for a hundred equal
    assert k([0.0] + [-1e4 * i for i in range(1, 1000)]) > 5  # all but one underflow
    assert k([0.0] * 20 + [-1e4] * 30 + [-2e4] * 950) > 5  # as do the lower quarter and its ties


def test_k_is_zero_for_the_exact_posterior() -> None:
    """Its weights differ by rounding only, whose tail means nothing."""
    ppca = PPCA()
    for x in (ppca.x, ppca.x * 100):
        result = pv.log_evidence(ppca.model, ppca.guide, x, num_particles=2000)
        assert result.pareto_k.tolist() == [0] * N
        assert result.share_unreliable == 0


def test_one_draw_and_few(float64: None) -> None:
    ppca = PPCA()
    result = pv.log_evidence(ppca.model, lambda x: ppca.guide(x, 2.0), ppca.x, num_particles=1)
    assert result.largest_share.tolist() == [1] * N
    assert result.pareto_k.isnan().all() and result.share_unreliable == 1
    assert result.curve.num_particles == (1,)
    assert torch.equal(result.curve.bound[0], result.estimate)


def test_mean_weights_are_the_evidence_by_a_chi_square_over_runs(float64: None) -> None:
    """200 runs of 137 draws in chunks of 30: Σ (p̂ − p)² / s² is χ² of 200 degrees, and the mean p."""
    ppca, runs = PPCA(), 200
    for datum in range(3):
        x = ppca.x[datum].expand(runs, D).contiguous()
        result = pv.log_evidence(ppca.model, lambda x: ppca.guide(x, 2.0), x, num_particles=137, rows=30)
        ratio = (result.estimate - ppca.evidence()[datum]).exp()
        normalised = ((ratio - 1) / (ratio * result.standard_error)).square().sum().item()
        assert 0.001 < scipy.stats.chi2(runs).cdf(normalised) < 0.999
        assert abs(ratio.mean() - 1) < 4 * ratio.std() / math.sqrt(runs)


def test_the_standard_error_covers_the_truth_in_95_of_100_repeats(float64: None) -> None:
    """1000 repeats: the spread of the estimates is the standard error, and they cover the truth."""
    ppca = PPCA()
    x = ppca.x[:1].expand(1000, D).contiguous()
    result = pv.log_evidence(ppca.model, lambda x: ppca.guide(x, 1.7), x, num_particles=300)
    spread, claimed = result.estimate.std(), result.standard_error.mean()
    assert claimed.item() == pytest.approx(spread.item(), rel=0.08)
    covered = ((result.estimate - ppca.evidence()[0]).abs() < 1.96 * result.standard_error).double().mean()
    assert 0.92 <= covered <= 0.98


@pytest.mark.parametrize("compile", ["off", "flat"])
def test_draws_reach_the_standard_error_asked_for(float64: None, compile: Literal["off", "flat"]) -> None:
    """Each datum with a guide of its own width, so that they take different numbers of draws."""
    ppca = PPCA()
    x = ppca.x.repeat(6, 1)

    def guide(x: Tensor) -> None:
        exact = ppca.posterior(x)
        widened = 1 + (x[:, 0] - ppca.x[:, 0].min())
        with pyro.plate("data", len(x)):
            covariance = exact.covariance_matrix * widened[:, None, None]
            pyro.sample("z", dist.MultivariateNormal(exact.mean, covariance))

    result = pv.log_evidence(
        ppca.model, guide, x, num_particles=50_000, until_standard_error=0.02, rows=9000, compile=compile
    )
    assert (result.standard_error <= 0.02).all()
    assert set(result.num_particles.tolist()) <= {1000, 2000, 4000, 8000, 16_000, 32_000, 50_000}
    assert len(result.num_particles.unique()) >= 3
    # half as many draws would not have been enough, but for the error of the error
    assert (result.standard_error > 0.01)[result.num_particles > 1000].all()
    exact = ppca.evidence().repeat(6)
    assert ((result.estimate - exact).abs() < 4 * result.standard_error).all()
    bias = result.mean - exact.mean().item()
    assert abs(bias) < 4 * result.mean_monte_carlo_error
    reached = torch.tensor(result.curve.num_particles)[:, None] <= result.num_particles
    assert torch.equal(result.curve.bound.isnan(), ~reached)
    assert "by 1000 to" in repr(result)


def test_the_draws_that_count_are_none_of_the_pilot(float64: None) -> None:
    """Two rounds of a pilot, 250 and 1000 draws, then 5000 fresh ones, whose sums, tail and curve count."""
    drawn = 3 * torch.randn(6250, 3)
    stream, log_w = Stream(drawn), drawn[1250:]
    with pytest.warns(UserWarning) as caught:
        result = pv.log_evidence(
            stream.model,
            stream.guide,
            stream.x,
            num_particles=5000,
            until_standard_error=1e-6,
            rows=128,
            compile="off",
        )
    assert [str(each.message) for each in caught] == [
        "3 of 3 data have a Monte Carlo standard error above 1e-06 after 5000 draws: allow more by "
        "num_particles, or improve the guide"
    ]
    assert caught[0].filename == __file__
    assert stream.seen.tolist() == [6250] * 3
    torch.testing.assert_close(result.estimate, log_w.logsumexp(0) - math.log(5000))
    expected = torch.tensor([reference_k(column) for column in log_w.T.numpy()])
    torch.testing.assert_close(result.pareto_k, expected, rtol=1e-8, atol=1e-10)
    blocks = log_w.reshape(25, 200, 3).logsumexp(1) - math.log(200)
    torch.testing.assert_close(result.curve.bound[result.curve.num_particles.index(200)], blocks.mean(0))


def test_a_plan_has_few_sizes_and_every_draw() -> None:
    for data, draws, rows in [
        (7, 1000, 1250),
        (23, 1000, 1250),
        (23, 64_000, 1250),
        (5, 997, 128),
        (3, 8, 2),
    ]:
        plan = rounds_of(torch.arange(data), draws, rows)
        assert torch.equal(torch.cat([where for where, _ in plan]), torch.arange(data))
        assert all(sum(chunks) == draws for _, chunks in plan)
        assert max(len(where) * max(chunks) for where, chunks in plan) <= rows
    plan = rounds_of(torch.arange(23), 1000, 1250)
    assert [(len(where), chunks) for where, chunks in plan[-3:]] == [
        (4, [250] * 4),
        (2, [500] * 2),
        (1, [1000]),
    ]


class Failing:
    """PPCA whose guide raises in a given call."""

    def __init__(self, fail_at: int | None) -> None:
        self.ppca, self.calls, self.fail_at = PPCA(), 0, fail_at
        self.x = self.ppca.x.repeat(2, 1)

    def guide(self, x: Tensor) -> None:
        self.calls += 1
        if self.calls == self.fail_at:
            raise KeyboardInterrupt
        self.ppca.guide(x, 2.5)


CALLS: list[dict[str, Any]] = [
    {"num_particles": 300, "rows": 64, "compile": "off"},
    {"num_particles": 4000, "rows": 1500, "compile": "off", "until_standard_error": 0.02},
    {"num_particles": 300, "rows": 64, "compile": "flat"},
]


@pytest.mark.parametrize("options", CALLS)
def test_an_interrupted_call_ends_with_the_same_numbers(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Resumable, "interval", 0.0)
    path = tmp_path / "evidence.pt"

    def measured(fail_at: int | None, checkpoint: Path | None) -> tuple[pv.LogEvidence, int]:
        programs = Failing(fail_at)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "14 of 14|[0-9]+ of 14 data have")
            found = pv.log_evidence(
                programs.ppca.model, programs.guide, programs.x, checkpoint=checkpoint, **options
            )
        return found, programs.calls

    torch.manual_seed(5)
    expected, calls = measured(None, None)
    state = torch.get_rng_state()
    failures = {calls // 3, calls // 2, calls - 1} if options["compile"] == "off" else {calls - 2}
    for fail_at in failures:
        torch.manual_seed(5)
        with pytest.raises(KeyboardInterrupt):
            measured(fail_at + 1, path)  # one more call, for the fingerprint
        assert path.exists()
        torch.manual_seed(99)
        result, again = measured(None, path)
        assert again < calls - 2
        for ours, theirs in ((result, expected), (result.curve, expected.curve)):
            for name, value in vars(theirs).items():
                if isinstance(value, torch.Tensor):
                    torch.testing.assert_close(vars(ours)[name], value, rtol=0, atol=0, equal_nan=True)
        assert torch.equal(torch.get_rng_state(), state)
        assert not path.exists()


def test_a_checkpoint_of_another_call_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Resumable, "interval", 0.0)
    path, programs = tmp_path / "evidence.pt", Failing(25)
    with pytest.raises(KeyboardInterrupt):
        pv.log_evidence(
            programs.ppca.model, programs.guide, programs.x, num_particles=300, rows=64, checkpoint=path
        )

    def again(**changed: Any) -> None:
        ppca = changed.pop("ppca", PPCA())
        options = {"x": programs.x, "num_particles": 300, "rows": 64, **changed}
        pv.log_evidence(ppca.model, lambda x: ppca.guide(x, 2.5), checkpoint=path, **options)

    with refused(r"evidence\.pt was made with num_particles 300, got 301: go on with the same settings and"):
        again(num_particles=301)
    with refused("was made with data [0-9a-f]{16}, got [0-9a-f]{16}: "):
        again(x=programs.x + 0.1)
    moved = PPCA()
    moved.shift = moved.shift + 0.01
    with refused("was made with other programs: go on with the same model, guide and parameters, or remove"):
        again(ppca=moved)
    assert path.exists()
    again()
    assert not path.exists()


def weighted(density: Callable[[Tensor, Tensor], Tensor]) -> tuple[Program, Program]:
    """Programs with a given log weight of z ~ U(0, 1) and x."""

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Uniform(x.new_zeros(()), 1.0))

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Uniform(x.new_zeros(()), 1.0))
            value = x.expand(z.shape)
            pyro.sample("x", dist.Delta(value, log_density=density(z, value), validate_args=False), obs=x)

    return model, guide


@pytest.mark.filterwarnings("ignore:Encountered")  # Pyro's, which names the site
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("options", [{}, {"compile": "flat"}, {"until_standard_error": 0.1}])
def test_weights_that_are_no_numbers_are_refused(bad: float, options: dict[str, Any]) -> None:
    """One draw in a hundred, for two of the data."""
    model, guide = weighted(lambda z, x: torch.where((z > 0.99) & (x >= 5), bad, 0.0))
    with refused(
        r"expected log weights that are numbers, got NaN or \+inf for 2 of 7 data drawn together, "
        r"first x\[5\] of 7: see where log_weights\(model, guide, x\[5:6\], 100\) comes from"
    ):
        pv.log_evidence(model, guide, torch.arange(7.0), num_particles=3000, rows=2000, **options)


def test_data_without_any_weight_are_minus_infinity_with_one_warning() -> None:
    model, guide = weighted(lambda z, x: torch.where(x >= 5, -math.inf, 0.0).expand(z.shape))
    with pytest.warns(UserWarning) as caught:
        result = pv.log_evidence(model, guide, torch.arange(7.0), num_particles=100, rows=50)
    assert [str(each.message) for each in caught] == [
        "log p(x) is −inf for 2 of 7 data, first x[5]: all their draws from the guide have weight 0"
    ]
    assert result.estimate.tolist() == [0, 0, 0, 0, 0, -math.inf, -math.inf]
    assert result.share_unreliable == pytest.approx(2 / 7)


def test_sixteen_bits_are_refused() -> None:
    ppca = PPCA()
    for dtype in (torch.float16, torch.bfloat16):
        for measure in (pv.log_evidence, pv.log_weights, pv.elbo):
            with refused(rf"expected float32 or float64 data, got {dtype}: use \.float\(\)"):
                measure(ppca.model, ppca.guide, ppca.x.to(dtype), num_particles=10)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(L), 1.0).to_event(1))
            pyro.sample("x", dist.Normal((z @ ppca.weight.T).half(), 1.0).to_event(1), obs=x.half())

    with refused(
        r"a log density in float32 or float64, got torch\.float16 at the site 'x': use \.float\(\) on the"
    ):
        pv.log_evidence(model, ppca.guide, ppca.x, num_particles=10)


@pytest.mark.parametrize("options", [{"compile": "flat"}, {"until_standard_error": 0.1}])
def test_sites_are_held_against_each_other_on_every_path(options: dict[str, Any]) -> None:
    ppca = PPCA()

    def nothing(x: Tensor) -> None:
        pass

    def outside(x: Tensor) -> None:
        pyro.sample("scale", dist.Normal(0.0, 1.0))
        ppca.model(x)

    def outside_guide(x: Tensor) -> None:
        pyro.sample("scale", dist.Normal(0.0, 1.0))
        ppca.guide(x)

    with refused(r"the model's latent sites \['z'\] and no others, got \[\]"):
        pv.log_evidence(ppca.model, nothing, ppca.x, num_particles=100, **options)
    with refused("every site inside a pyro.plate of the size of x, here 7, got the site 'scale' inside none"):
        pv.log_evidence(outside, outside_guide, ppca.x, num_particles=100, **options)


@pytest.mark.parametrize("error", [0, -1.0, math.nan, math.inf, True])
def test_an_error_to_reach_is_a_positive_number(error: float) -> None:
    ppca = PPCA()
    with refused(f"until_standard_error expects a positive number of nats, got {error}"):
        pv.log_evidence(ppca.model, ppca.guide, ppca.x, until_standard_error=error)
