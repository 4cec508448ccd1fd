"""A model and a guide as functions of tensors: unconstrained latents, simulated data, refusals."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

import pyro_vae as pv
from pyro_vae.compiled import FlatGraph
from pyro_vae.programs import Latents, simulate
from tests.components import refused
from tests.test_importance import PPCA

Program = Callable[[Tensor], Any]


def line_guide(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))


def line(x: Tensor, mean: Callable[[Tensor], Tensor] = lambda z: z) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
        pyro.sample("x", dist.Normal(mean(z), 1.0), obs=x)


def test_latents_are_unconstrained_numbers_and_back(float64: None) -> None:
    """Values, and densities with their Jacobian, of sites on either side of the data's plate."""
    x = torch.randn(3, 4)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-2):
            scale = pyro.sample("scale", dist.Gamma(2.0, 1.0))
            with pyro.plate("pixels", x.shape[1], dim=-1):
                share = pyro.sample("share", dist.Dirichlet(torch.ones(3)))
                pyro.sample("x", dist.Normal(share[..., 0], scale), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-2):
            pyro.sample("scale", dist.LogNormal(0.0, 1.0))
            with pyro.plate("pixels", x.shape[1], dim=-1):
                pyro.sample("share", dist.Dirichlet(2 * torch.ones(3)))

    batch = pv.Batch(x)
    latents = Latents(model, guide, batch)
    assert latents.size == 1 + 4 * 2 and latents.names == ["scale", "share"]
    u = torch.randn(5, 3, 9)
    values = latents.values(batch, u)
    assert values["scale"].shape == (5, 3, 1) and values["share"].shape == (5, 3, 4, 3)
    torch.testing.assert_close(values["scale"][..., 0], u[..., 0].exp())
    found = latents.log_probs(batch, u)
    simplex = torch.distributions.StickBreakingTransform()
    raw = u[..., 1:].reshape(5, 3, 4, 2)
    jacobian = simplex.log_abs_det_jacobian(raw, simplex(raw)).sum(-1) + u[..., 0]
    torch.testing.assert_close(found.log_det, jacobian)
    prior = dist.Gamma(2.0, 1.0).log_prob(values["scale"][..., 0]) + 4 * torch.tensor(2.0).log()
    torch.testing.assert_close(found.log_pz, prior)
    torch.testing.assert_close(latents.log_guide(batch, values), found.log_qz)
    trace = latents.model_at(batch, u)[0]
    torch.testing.assert_close(latents.pack(trace, latents.pair.layout("model", 5, 3)), u)


def test_sites_of_two_precisions_keep_their_own() -> None:
    seen = []

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(torch.zeros(()), 1.0))
            b = pyro.sample("b", dist.Normal(torch.zeros((), dtype=torch.float64), 1.0))
            seen.append((a.dtype, b.dtype))
            pyro.sample("x", dist.Normal(a + b, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("a", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("b", dist.Normal(torch.zeros((), dtype=torch.float64), 1.0))

    pv.annealed_log_evidence(model, guide, torch.randn(3), num_chains=2, num_temperatures=2)
    assert set(seen) == {(torch.float32, torch.float64)}


def test_a_deterministic_site_does_not_stand_in_the_way_of_simulation(float64: None) -> None:
    ppca = PPCA()

    def model(x: Tensor) -> None:
        pyro.deterministic("noted", torch.ones(()))
        ppca.model(x)

    batch = pv.Batch(ppca.x)
    drawn = simulate(Latents(model, ppca.guide, batch), batch, 50)
    assert drawn.batch.x.shape == (50, 5) and drawn.u.shape == (50, 3)


def test_data_drawn_under_another_argument_are_refused() -> None:
    """An autoregressive likelihood, and a prior that looks at x."""

    def autoregressive(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            before = nn.functional.pad(x[..., :-1], (1, 0))
            pyro.sample("x", dist.Normal(z[..., None] + before, 1.0).to_event(1), obs=x)

    def looking(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.mean(-1), 1.0))
            pyro.sample("x", dist.Normal(z[..., None].expand(*z.shape, 3), 1.0).to_event(1), obs=x)

    for model, site in ((autoregressive, "x"), (looking, "z")):
        with refused(
            f"densities that do not depend on the model's argument, got one at the site '{site}' of the model"
        ):
            pv.bidirectional_gap(model, line_guide, 5, like=torch.full((1, 3), 5.0))


def test_densities_that_change_from_run_to_run_are_refused() -> None:
    drop = nn.Dropout(0.5)
    x = torch.randn(4)

    def dropped(x: Tensor) -> None:
        line(x, lambda z: drop(z + 3))

    def subsampled(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            with pyro.plate("pixels", 4, subsample_size=2, dim=-2):
                pyro.sample("x", dist.Normal(z, 1.0), obs=x.expand(2, -1))

    for estimate in (pv.log_evidence, pv.annealed_log_evidence):
        with refused(
            "one density at given latents, got another one at each run at the site 'x' of the model.*.eval"
        ):
            estimate(dropped, line_guide, x)
        with refused("expected plates without subsampling, got 2 of 4 in the plate 'pixels'"):
            estimate(subsampled, line_guide, x)
    drop.eval()
    assert pv.log_evidence(dropped, line_guide, x, num_particles=5).estimate.isfinite().all()


@pytest.mark.parametrize("estimate", [pv.log_evidence, pv.annealed_log_evidence])
def test_a_guide_of_one_point_has_no_weights(estimate: Any) -> None:
    def point(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Delta(x.new_zeros(len(x))))

    with refused("expected a guide with a density at the site 'z', got a Delta"):
        estimate(line, point, torch.randn(4))


def test_latents_that_have_no_density_over_the_reals_are_refused() -> None:
    x = torch.randn(4)

    def angle(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.VonMises(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def nothing(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    for model, guide, text in (
        (angle, angle_guide, "got an angle at the site 'z'"),
        (nothing, lambda x: None, "expected a model with a latent site, got none"),
    ):
        with refused(text):
            pv.annealed_log_evidence(model, guide, x, num_chains=2, num_temperatures=2)


def test_masked_latents_are_refused_where_they_have_no_density() -> None:
    def masked(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0).mask(x > 0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    with refused("expected latent sites without a mask, got one at the site 'z'"):
        pv.calibrate(masked, line_guide, like=torch.randn(4))


def angle_guide(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.VonMises(x.new_zeros(()), 1.0))


def test_a_factor_in_the_guide_counts_as_in_the_elbo(float64: None) -> None:
    x = torch.randn(4)

    def factored(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.factor("more", torch.full_like(x, 0.7), has_rsample=True)

    torch.manual_seed(1)
    plain = pv.elbo(line, line_guide, x, num_particles=7)
    torch.manual_seed(1)
    found = pv.elbo(line, factored, x, num_particles=7)
    torch.testing.assert_close(found.elbo, plain.elbo - 0.7)


def test_what_settles_is_computed_once_and_handed_out_as_a_copy() -> None:
    held = torch.tensor([1.0, 2.0])
    graph = FlatGraph(lambda x: (held * 4, x * held), (torch.ones(2),), settled=True)
    first, second = graph(torch.ones(2))
    assert first is not None and second is not None
    assert first.tolist() == [4, 8] and second.tolist() == [1, 2]
    first.zero_()
    again, _ = graph(torch.ones(2))
    assert again is not None and again.tolist() == [4, 8]
    held.fill_(3.0)
    graph.settle()
    settled, product = graph(torch.ones(2))
    assert settled is not None and product is not None
    assert settled.tolist() == [12, 12] and product.tolist() == [3, 3]
