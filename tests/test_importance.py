"""log p(x) against closed forms, for components and for programs that the package has never seen."""

import math
import shutil
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Any, Literal

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor, nn

import pyro_vae as pv
from pyro_vae.compiled import FlatFunction
from pyro_vae.importance import BoundCurve
from pyro_vae.programs import Pair
from tests.components import refused

N, D, L = 7, 5, 3
Program = Callable[[Tensor], Any]


class PPCA:
    """x = W z + b + σ ε with z ~ N(0, I): everything in closed form (Tipping & Bishop 1999)."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(3)
        self.weight = torch.randn(D, L, generator=generator)
        self.shift = torch.randn(D, generator=generator)
        self.sigma = 0.6
        self.x = torch.randn(N, D, generator=generator) * 2

    def evidence(self) -> Tensor:
        covariance = self.weight @ self.weight.T + self.sigma**2 * torch.eye(D)
        return dist.MultivariateNormal(self.shift, covariance).log_prob(self.x)

    def posterior(self, x: Tensor) -> Any:
        precision = self.weight.T @ self.weight / self.sigma**2 + torch.eye(L)
        mean = torch.linalg.solve(precision, self.weight.T @ (x - self.shift).T / self.sigma**2).T
        return dist.MultivariateNormal(mean, precision_matrix=precision)

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(L), 1.0).to_event(1))
            mean = z @ self.weight.T + self.shift
            pyro.sample("x", dist.Normal(mean, self.sigma).to_event(1), obs=x)

    def guide(self, x: Tensor, widened: float = 1.0) -> None:
        exact = self.posterior(x)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(exact.mean, exact.covariance_matrix * widened))


@pytest.mark.parametrize("rows", [2, 7, 20, 5000])
def test_with_the_exact_posterior_every_weight_is_the_evidence(float64: None, rows: int) -> None:
    ppca = PPCA()
    weights = pv.log_weights(ppca.model, ppca.guide, ppca.x, 11)
    torch.testing.assert_close(weights, ppca.evidence().expand(11, N), rtol=0, atol=1e-10)
    result = pv.log_evidence(ppca.model, ppca.guide, ppca.x, num_particles=11, rows=rows)
    torch.testing.assert_close(result.estimate, ppca.evidence(), rtol=0, atol=1e-10)
    assert result.standard_error.max() < 1e-6
    torch.testing.assert_close(result.effective_sample_size, torch.full((N,), 11.0))
    terms = pv.elbo(ppca.model, ppca.guide, ppca.x, num_particles=3, rows=rows)
    torch.testing.assert_close(terms.elbo, ppca.evidence(), rtol=0, atol=1e-10)


def test_elbo_parts_are_reconstruction_and_kl_in_closed_form(float64: None) -> None:
    ppca = PPCA()
    terms = pv.elbo(ppca.model, ppca.guide, ppca.x, num_particles=20_000)
    qz, pz = ppca.posterior(ppca.x), dist.MultivariateNormal(torch.zeros(L), torch.eye(L))
    kl = torch.distributions.kl_divergence(qz, pz)
    torch.testing.assert_close(terms.kl, kl, rtol=0, atol=0.06)
    torch.testing.assert_close(terms.reconstruction, ppca.evidence() + kl, rtol=0, atol=0.06)


def test_a_wide_guide_estimates_within_four_standard_errors(float64: None) -> None:
    ppca = PPCA()
    result = pv.log_evidence(ppca.model, lambda x: ppca.guide(x, 2.0), ppca.x, num_particles=4000, rows=900)
    assert ((result.estimate - ppca.evidence()).abs() < 4 * result.standard_error).all()
    assert (result.standard_error < 0.05).all()


def test_a_trained_linear_vae_estimates_within_four_standard_errors(float64: None) -> None:
    """The network's own weights give the closed form of its evidence."""
    x = torch.randn(400, 2) @ torch.randn(2, 4) + 0.3 * torch.randn(400, 4)
    linear = pv.MLP(())
    vae = pv.VAE(
        pv.StandardNormalPrior(2),
        pv.NormalLikelihood(linear.decoder(2, (4,)), (4,)),
        pv.DiagonalNormalPosterior(linear.encoder((4,)), 2),
    )
    adam = lambda parameters: torch.optim.Adam(parameters, lr=0.02)  # noqa: E731
    pv.fit(vae, pv.Dataset(x), epochs=60, batch_size=50, optimiser=adam)
    x = x.float().double()  # as the data set stores them
    head, scale = vae.likelihood.loc.layers[1], vae.likelihood(torch.zeros(2)).stddev.mean()
    covariance = head.weight @ head.weight.T + scale**2 * torch.eye(4)
    exact = dist.MultivariateNormal(head.bias, covariance).log_prob(x).detach()
    result = pv.log_evidence(vae.model, vae.guide, x, num_particles=2000)
    assert result.standard_error.median() < 0.05
    assert ((result.estimate - exact).abs() < 4 * result.standard_error).double().mean() > 0.99
    error = result.mean_monte_carlo_error
    assert abs(result.mean - exact.mean().item()) < 4 * error
    assert pv.elbo(vae.model, vae.guide, x, num_particles=50).elbo.mean() < exact.mean()


def test_weights_are_unbiased_for_the_evidence(float64: None) -> None:
    ppca = PPCA()
    ratio = (pv.log_weights(ppca.model, lambda x: ppca.guide(x, 2.0), ppca.x, 20_000) - ppca.evidence()).exp()
    assert ((ratio.mean(0) - 1).abs() < 4 * ratio.std(0) / math.sqrt(20_000)).all()


@pytest.mark.parametrize("num_particles", [1, 4, 13])
@pytest.mark.parametrize("rows", [1, 5, 6, 28, 100])
def test_exactly_as_many_draws_as_asked_and_never_more_rows_at_once(num_particles: int, rows: int) -> None:
    ppca = PPCA()
    sizes = []

    class Noted(dist.Normal):
        """Notes how many draws are made, not where the density of one is asked for."""

        def rsample(self, *args: Any) -> Tensor:
            sizes.append(self.batch_shape.numel() // L)
            return super().rsample(*args)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", Noted(x.new_zeros(L), 1.0).to_event(1))

    result = pv.log_evidence(ppca.model, guide, ppca.x, num_particles=num_particles, rows=rows, compile="off")
    assert sizes.pop(0) == 6  # two draws of three data, held against each alone
    assert sum(sizes) == N * num_particles
    assert max(sizes) <= rows
    assert result.estimate.shape == (N,)
    assert result.num_particles.tolist() == [num_particles] * N


@pytest.mark.parametrize(
    "compile",
    [
        "flat",
        pytest.param(
            "inductor",
            marks=pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler"),
        ),
    ],
)
def test_a_flat_graph_gives_the_same_estimate_up_to_rounding(
    compile: Literal["flat", "inductor"], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []

    class Recorded(FlatFunction):
        def __call__(self, function: Callable[..., Tensor], args: Sequence[Tensor], key: Hashable) -> Tensor:
            result = super().__call__(function, args, key)
            runs.append((self.eager, self.fast, self.inductor))
            return result

    monkeypatch.setattr("pyro_vae.importance.weights.FlatFunction", Recorded)
    torch.manual_seed(0)
    data = pv.Digits()
    vae = pv.assemble(data, network=pv.MLP((300,), nn.Softplus))
    x = data.test.batch(slice(0, 13))

    def measured(compile: Literal["flat", "inductor", "off"]) -> tuple[pv.LogEvidence, Tensor]:
        torch.manual_seed(1)
        result = pv.log_evidence(vae.model, vae.guide, x, num_particles=300, rows=500, compile=compile)
        return result, torch.get_rng_state()

    (off, off_state), (flat, flat_state) = measured("off"), measured(compile)
    assert torch.equal(off_state, flat_state)
    assert set(runs) == {(False, True, compile == "inductor")}
    for part in ("estimate", "standard_error", "effective_sample_size"):
        torch.testing.assert_close(getattr(flat, part), getattr(off, part), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("compile", ["off", "flat"])
def test_data_outside_the_support_are_refused_in_every_batch(compile: Literal["flat", "off"]) -> None:
    data = pv.Digits()
    vae, x = pv.assemble(data), data.test.batch(slice(0, 60))
    x[57, 0, 0, 0] = 0.5
    with refused("cannot be evaluated on these data"):
        pv.log_evidence(vae.model, vae.guide, x, num_particles=10, rows=50, compile=compile)


def test_a_program_that_is_no_flat_graph_is_measured_as_it_is() -> None:
    ppca = PPCA()

    def model(x: Tensor) -> None:
        assert torch.isfinite(x).all()
        ppca.model(x)

    torch.manual_seed(1)
    expected = pv.log_evidence(model, ppca.guide, ppca.x, num_particles=30, rows=60, compile="off")
    torch.manual_seed(1)
    with pytest.warns(
        UserWarning, match="log_evidence runs as plain Pyro, not as a flat graph: it decides by"
    ):
        result = pv.log_evidence(model, ppca.guide, ppca.x, num_particles=30, rows=60, compile="flat")
    assert torch.equal(result.estimate, expected.estimate)


class Numbered(dist.TorchDistribution):
    """Draws by a function of the shape, of density one."""

    arg_constraints: dict[str, object] = {}  # noqa: RUF012
    support = dist.constraints.real

    def __init__(self, draw: Callable[[torch.Size], Tensor], batch_shape: torch.Size = torch.Size()) -> None:  # noqa: B008
        self.draw = draw
        super().__init__(batch_shape)

    def expand(self, batch_shape: Any, _instance: object = None) -> "Numbered":
        return Numbered(self.draw, torch.Size(batch_shape))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return self.draw(torch.Size((*sample_shape, *self.batch_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        return value.new_zeros(torch.broadcast_shapes(value.shape, self.batch_shape))


def test_chunks_do_not_change_the_estimate(float64: None) -> None:
    """A model whose weights are a fixed function of the draw's number: the same set, however it is cut."""
    count = 0

    def following(shape: torch.Size) -> Tensor:
        nonlocal count
        if len(shape) == 1:  # when it is only looked at
            return torch.zeros(shape)
        numbers = (torch.arange(count, count + shape[0])[:, None] % 12).expand(shape)
        count += shape[0]
        return numbers.double()

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("k", Numbered(following))

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", Numbered(torch.zeros))
            pyro.sample("x", dist.Delta(x.expand(k.shape), log_density=k * x * 0.1), obs=x)

    data = torch.arange(6.0)
    numbers = torch.arange(12)[:, None] * data * 0.1
    for rows in (5, 36, 5000):  # one, three and six data at once
        count = 0
        result = pv.log_evidence(model, guide, data, num_particles=12, rows=rows)
        torch.testing.assert_close(result.estimate, numbers.logsumexp(0) - math.log(12), rtol=0, atol=1e-12)
        weights = numbers.exp()
        effective = weights.sum(0) ** 2 / weights.square().sum(0)
        torch.testing.assert_close(result.effective_sample_size, effective, rtol=1e-12, atol=0)
        relative = weights.std(0) / weights.mean(0) / math.sqrt(12)
        torch.testing.assert_close(result.standard_error, relative, rtol=1e-10, atol=1e-8)


def test_one_particle_has_no_standard_error(float64: None) -> None:
    ppca = PPCA()
    result = pv.log_evidence(ppca.model, ppca.guide, ppca.x, num_particles=1)
    assert result.standard_error.isnan().all()
    torch.testing.assert_close(result.estimate, ppca.evidence(), rtol=0, atol=1e-10)


def test_a_discrete_latent_against_its_sum(float64: None) -> None:
    probabilities = torch.tensor([0.2, 0.5, 0.3])
    means = torch.tensor([-1.0, 0.5, 3.0])
    x = torch.tensor([-2.0, 0.0, 4.0])

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(probabilities))
            pyro.sample("x", dist.Normal(means[k], 0.8), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Categorical(torch.ones(3)))

    exact = (probabilities.log() + dist.Normal(means, 0.8).log_prob(x[:, None])).logsumexp(-1)
    result = pv.log_evidence(model, guide, x, num_particles=20_000)
    assert ((result.estimate - exact).abs() < 4 * result.standard_error).all()


def two_sites(x: Tensor) -> None:
    """Two latents, and pixels in a plate of their own left of the data."""
    with pyro.plate("data", len(x), dim=-1):
        mean = pyro.sample("mean", dist.Normal(x.new_zeros(()), 2.0))
        shift = pyro.sample("shift", dist.Normal(mean, 1.0))
        with pyro.plate("pixels", x.shape[1], dim=-2):
            pyro.sample("x", dist.Normal(shift, 0.5), obs=x.T)


def two_sites_guide(x: Tensor) -> None:
    """The exact posterior of `shift`, then of `mean` given `shift`."""
    precision = x.shape[1] / 0.25 + 1 / 5
    with pyro.plate("data", len(x), dim=-1):
        shift = pyro.sample("shift", dist.Normal(x.sum(1) / 0.25 / precision, precision**-0.5))
        pyro.sample("mean", dist.Normal(shift * 0.8, 0.8**0.5))


def test_two_sites_and_a_plate_of_pixels(float64: None) -> None:
    x = torch.randn(6, 4)
    covariance = 5 * torch.ones(4, 4) + 0.25 * torch.eye(4)
    exact = dist.MultivariateNormal(torch.zeros(4), covariance).log_prob(x)
    weights = pv.log_weights(two_sites, two_sites_guide, x, 9)
    torch.testing.assert_close(weights, exact.expand(9, 6), rtol=0, atol=1e-10)


def test_scales_are_left_out_and_masks_count(float64: None) -> None:
    ppca = PPCA()
    scaled = pv.log_weights(poutine.scale(ppca.model, 0.1), poutine.scale(ppca.guide, 7.0), ppca.x, 3)
    torch.testing.assert_close(scaled, ppca.evidence().expand(3, N), rtol=0, atol=1e-10)

    def masked(program: Program) -> Program:
        def run(x: Tensor) -> None:
            with poutine.mask(mask=x[:, 0] > 0):
                program(x)

        return run

    half = ppca.x[:, 0] > 0
    assert 0 < half.sum() < N
    weights = pv.log_weights(masked(ppca.model), masked(ppca.guide), ppca.x, 3)
    torch.testing.assert_close(weights, (ppca.evidence() * half).expand(3, N), rtol=0, atol=1e-10)


def test_summary_of_a_data_set(float64: None) -> None:
    result = pv.LogEvidence(
        estimate=torch.tensor([-1.0, -2.0, -6.0]),
        standard_error=torch.tensor([0.3, 0.0, 0.4]),
        effective_sample_size=torch.ones(3),
        largest_share=torch.ones(3),
        pareto_k=torch.tensor([0.69, math.nan, 0.71]),
        num_particles=torch.full((3,), 10),
        curve=BoundCurve((1, 10), torch.tensor([[-3.0, -4.0, -8.0], [-1.0, -2.0, -6.0]])),
    )
    assert result.mean == -3
    assert result.mean_standard_error == pytest.approx(math.sqrt(7 / 3))
    assert result.mean_monte_carlo_error == pytest.approx(0.5 / 3)
    assert result.mean_data_error == pytest.approx(math.sqrt(7 / 3 - 0.25 / 9))
    assert replace(result, standard_error=torch.full((3,), 9.0)).mean_data_error == 0
    assert math.isnan(replace(result, standard_error=torch.full((3,), math.nan)).mean_data_error)
    assert repr(result) == (
        "log p(x) = -3.000 ± 1.528 nats, mean of 3 data by 10 importance samples each (Monte Carlo error "
        "0.167); a lower bound in expectation, with Pareto k̂ above 0.7 or unknown for 2 of the data"
    )
    assert result.share_unreliable == pytest.approx(2 / 3)
    stopped = replace(result, num_particles=torch.tensor([10, 20, 40]))
    assert "by 10 to 40 importance samples (" in repr(stopped)
    assert result.curve.mean.tolist() == [-5, -3]
    assert repr(result.curve) == (
        "lower bound on log p(x), which rises with the number of draws in expectation: -5.000 at 1, "
        "-3.000 at 10 (nats, mean of 3 data)"
    )


def test_draws_at_once_fit_the_numbers_of_the_likelihood() -> None:
    """256 levels are 256 numbers per pixel: 784 of them leave room for 20 draws, where bits have 5000."""
    seen: list[int] = []

    class Listening(pv.VAE):
        def guide(self, x: Tensor) -> Tensor:  # type: ignore[override]
            z = super().guide(x)
            seen.append(z.numel())
            return z

    shape, network = (1, 28, 28), pv.MLP((4,))
    x = torch.randint(2, (5000, *shape)).float()
    for likelihood, most in [
        (pv.CategoricalLikelihood(network.decoder(1, shape), shape, 256), 20),
        (pv.BernoulliLikelihood(network.decoder(1, shape), shape), 5000),
    ]:
        model = Listening(
            pv.StandardNormalPrior(1), likelihood, pv.DiagonalNormalPosterior(network.encoder(shape), 1)
        )
        seen.clear()
        pv.elbo(model.model, model.guide, x[: 2 * most] if most < 5000 else x)
        assert max(seen) == most


def test_refusals() -> None:
    ppca = PPCA()

    def outside(x: Tensor) -> None:
        pyro.sample("scale", dist.Normal(0.0, 1.0))
        ppca.model(x)

    def outside_guide(x: Tensor) -> None:
        pyro.sample("scale", dist.Normal(0.0, 1.0))
        ppca.guide(x)

    def nothing(x: Tensor) -> None:
        pass

    with refused("every site inside a pyro.plate of the size of x, here 7, got the site 'scale' inside none"):
        pv.log_weights(outside, outside_guide, ppca.x, 2)
    with refused(r"the model's latent sites \['z'\] and no others, got \[\]"):
        pv.log_weights(ppca.model, nothing, ppca.x, 2)
    with refused("num_particles expects a positive whole number, got 0"):
        pv.log_evidence(ppca.model, ppca.guide, ppca.x, num_particles=0)
    with refused("rows expects a positive whole number, got 0"):
        pv.log_evidence(ppca.model, ppca.guide, ppca.x, rows=0)
    with refused(r"data of shape \(B, \*data_shape\) with B at least 1, got \(0, 5\)"):
        pv.log_evidence(ppca.model, ppca.guide, ppca.x[:0])


def test_shapes_that_would_broadcast_to_plausible_numbers_are_refused() -> None:
    """A forgotten to_event, where L = 1 or K = B; a subsampled plate; each gave a finite, wrong number."""
    x = torch.randn(5)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_zeros(len(x), 1), 1.0).to_event(1))

    def no_event_in_z(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(1), 1.0))
            pyro.sample("x", dist.Normal(z[..., 0], 1.0), obs=x)

    def no_event_in_x(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, None])

    def subsampled(x: Tensor) -> None:
        with pyro.plate("data", len(x), subsample_size=1) as index:
            z = pyro.sample("z", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z[..., 0], 1.0), obs=x[index])

    def subsampled_guide(x: Tensor) -> None:
        with pyro.plate("data", len(x), subsample_size=1):
            pyro.sample("z", dist.Normal(x.new_zeros(1, 1), 1.0).to_event(1))

    def shifted_guide(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-2):
            pyro.sample("z", dist.Normal(x.new_zeros(1, 1, 1), 1.0).to_event(1))

    def event_in_x(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z[..., 0], 1.0), obs=x)

    broken: list[tuple[Program, Program]] = [
        (no_event_in_z, guide),
        (no_event_in_x, guide),
        (subsampled, subsampled_guide),
        (event_in_x, shifted_guide),
    ]
    for model, its_guide in broken:
        for particles in (1, 5):
            with pytest.raises(pv.InputError) as caught:
                pv.log_evidence(model, its_guide, x, num_particles=particles)
            assert "\n" not in str(caught.value)


def test_every_datum_is_held_against_the_support() -> None:
    vae = pv.assemble(pv.Digits(), latent_dim=2)
    x = torch.zeros(6, 1, 8, 8)
    x[4, 0, 3, 3] = 0.3
    with refused("the model cannot be evaluated on these data: .*within the support .*Bernoulli"):
        pv.log_evidence(vae.model, vae.guide, x, num_particles=2)
    with refused("within the support"):
        pv.elbo(vae.model, vae.guide, x, rows=2)


@pytest.mark.parametrize("level", [-2000.0, -90.0, 700.0])
def test_many_equal_weights_far_from_zero_lose_nothing(level: float) -> None:
    """3000 chunks of one particle each, in float32: the sum still sees every one of them."""

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Delta(x.new_zeros(())))

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Delta(x.new_zeros(())))
            pyro.sample("x", dist.Delta(x.expand(k.shape), log_density=x.new_full(k.shape, level)), obs=x)

    result = pv.log_evidence(model, guide, torch.zeros(1), num_particles=3000, rows=1)
    assert result.estimate.item() == pytest.approx(level, abs=1e-9)
    assert result.effective_sample_size.item() == pytest.approx(3000, rel=1e-9)


def test_deterministic_sites_have_no_density(float64: None) -> None:
    ppca = PPCA()

    def model(x: Tensor) -> None:
        pyro.deterministic("noted", torch.ones(()))
        ppca.model(x)

    weights = pv.log_weights(model, ppca.guide, ppca.x, 3)
    torch.testing.assert_close(weights, ppca.evidence().expand(3, N), rtol=0, atol=1e-10)


def test_the_data_plate_may_lie_left_of_another(float64: None) -> None:
    x = torch.randn(6, 4)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-2):
            shift = pyro.sample("shift", dist.Normal(x.new_zeros(()), 5**0.5))
            with pyro.plate("pixels", x.shape[1], dim=-1):
                pyro.sample("x", dist.Normal(shift, 0.5), obs=x)

    def guide(x: Tensor) -> None:
        precision = x.shape[1] / 0.25 + 1 / 5
        with pyro.plate("data", len(x), dim=-2):
            mean = x.sum(1, keepdim=True) / 0.25 / precision
            pyro.sample("shift", dist.Normal(mean, precision**-0.5))

    covariance = 5 * torch.ones(4, 4) + 0.25 * torch.eye(4)
    exact = dist.MultivariateNormal(torch.zeros(4), covariance).log_prob(x)
    torch.testing.assert_close(pv.log_weights(model, guide, x, 9), exact.expand(9, 6), rtol=0, atol=1e-10)


@pytest.mark.parametrize("limit", [1, 7, 100])
def test_what_does_not_fit_into_memory_is_halved(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """Each draw is computed once, and the estimate is one of as many draws."""
    x = torch.randn(5, generator=torch.Generator().manual_seed(0))
    rows = []

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([len(x)]))
            if z.numel() > limit + 2 * len(x) * 3:  # what is looked at is small
                raise MemoryError
            rows.append(z.numel())
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))

    exact = dist.Normal(0.0, 2.0**0.5).log_prob(x).double()
    with pytest.warns(UserWarning, match=r"draws at once do not fit into memory: going on with"):
        result = pv.log_evidence(model, guide, x, num_particles=500, rows=1000, compile="off")
    assert torch.allclose(result.estimate, exact, atol=1e-4)
    assert (result.num_particles == 500).all()
    with pytest.warns(UserWarning, match=r"draws at once do not fit into memory: going on with"):
        terms = pv.elbo(model, guide, x, num_particles=500)
    assert torch.allclose(terms.elbo, exact, atol=1e-4)


def test_one_draw_that_does_not_fit_into_memory_is_refused() -> None:
    from pyro_vae.importance.halving import Halving

    def work(batch: pv.Batch, draws: int) -> Tensor:
        raise MemoryError

    with pytest.warns(UserWarning, match=r"do not fit"), refused("out of memory with one draw at a time"):
        Halving()(work, pv.Batch(torch.zeros(3)), 4)


@pytest.mark.parametrize(
    ("network", "numbers"),
    [
        (pv.MLP((8,)), 64),
        (pv.MLP((300,)), 300),
        (pv.Convolutional((16, 40), 50), 16 * 16),
        (pv.MLP((8, 2000)), 2000),
    ],
)
def test_draws_at_once_are_counted_by_the_widest_layer(network: pv.Architecture, numbers: int) -> None:
    """Of 8×8 pixels and 8 latents; weights, of which there are more, do not grow with the draws."""
    data = pv.Digits()
    vae = pv.assemble(data, network=network)
    pair = Pair(vae.model, vae.guide, pv.Batch(data.test.batch()[:4]), density=True)
    assert pair.verified.numbers == numbers
