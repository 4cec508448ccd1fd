"""What is found out about programs before their numbers count, and what is left as it was."""

import math
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from pyro.infer.autoguide.effect import AutoNormalMessenger
from torch import Tensor, nn

import pyro_vae as pv
from pyro_vae.programs import Pair
from tests.components import refused

Program = Callable[..., Any]


def exact(x: Tensor) -> Tensor:
    """Log p(x) of `line`: x ~ N(0, 2² + ½²)."""
    log_px: Tensor = dist.Normal(torch.zeros_like(x), math.sqrt(4.25)).log_prob(x)
    return log_px


def line(mean: Callable[[Tensor], Tensor]) -> Program:
    """z ~ N(0, 1) in a vector of one, x ~ N(2 z, ½²)."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(mean(z), 0.5), obs=x)

    return model


def exact_guide(x: Tensor) -> None:
    """The posterior of `line`."""
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal((2 * x / 4.25)[:, None], math.sqrt(1 / 17)).to_event(1))


def test_axes_from_the_left_and_from_the_right_give_the_same_numbers(float64: None) -> None:
    x = torch.randn(6)
    expected = exact(x)
    right = pv.log_evidence(line(lambda z: 2 * z[..., 0]), exact_guide, x, num_particles=20)
    torch.testing.assert_close(right.estimate, expected, rtol=0, atol=1e-9)
    with pytest.warns(
        UserWarning, match="model: run on repeated data, .* the site 'x' of the model has"
    ) as said:
        left = pv.log_evidence(line(lambda z: 2 * z[:, 0]), exact_guide, x, num_particles=20)
    assert len(said) == 1 and said[0].filename == __file__
    torch.testing.assert_close(left.estimate, expected, rtol=0, atol=1e-9)


def test_the_note_is_said_once_by_what_asks_many_times() -> None:
    with pytest.warns(UserWarning) as said:
        pv.diagnose(line(lambda z: 2 * z[:, 0]), exact_guide, torch.randn(9), num_steps=2, num_particles=20)
    assert len([each for each in said if "repeated data" in str(each.message)]) == 1


def test_an_encoder_is_run_once_where_only_the_model_needs_repeated_data() -> None:
    """The guide is called with the data as they are, once it has been looked at."""
    sizes = []

    def guide(x: Tensor) -> None:
        sizes.append(len(x))
        exact_guide(x)

    with pytest.warns(UserWarning, match="repeated data"):
        pv.log_weights(line(lambda z: 2 * z[:, 0]), guide, torch.randn(6), 50)
    assert sizes[-5:] == [6, 1, 1, 3, 3]  # the draws, two of them alone, and one of them in two parts


@pytest.mark.parametrize("shift", [1e-3, 1e-5])
def test_a_small_coupling_is_seen_beside_large_densities(shift: float, float64: None) -> None:
    """A thousandth of a nat at −10⁴."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
            loc = z[..., None] + shift * x.mean(0)
            pyro.sample("x", dist.Normal(loc, 0.01).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.mean(-1), 1.0))

    with refused("depends on no other, got .* beside other data and .* alone at the site 'x' of the model"):
        pv.log_evidence(model, guide, torch.randn(5, 20))


def test_what_differs_for_other_numbers_of_draws_or_data_is_seen_where_they_come(float64: None) -> None:
    """`squeeze` means something else for one draw, and for one datum."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
            several = z + 1.0 if len(x) > 3 and z.ndim == 2 else z
            pyro.sample("x", dist.Normal(several, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 1.0))

    pv.log_weights(model, guide, torch.randn(3), 10)
    with refused("depends on no other, got .* at the site 'x' of the model"):
        pv.log_weights(model, guide, torch.randn(4), 10)


def test_data_that_lead_a_batch_elsewhere_are_seen() -> None:
    """Large data change the mean of all that are beside them; those that are looked at are small."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z + 0.1 * (x.max() > 3), 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 1.0))

    x = torch.linspace(-1.0, 1.0, 80)
    x[21] = 5.0
    with refused("depends on no other, got .* at the site 'x' of the model"):
        pv.elbo(model, guide, x, rows=20)


def test_statistics_of_batch_norm_stay_whether_it_is_refused_or_not(float64: None) -> None:
    norm = nn.BatchNorm1d(1).double()

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(norm(z)[:, 0], 0.5), obs=x)

    before = {name: value.clone() for name, value in norm.state_dict().items()}
    x = torch.randn(6)
    with refused(r"at the site 'x' of the model: put modules in evaluation mode by .eval\(\)"):
        pv.log_evidence(model, exact_guide, x)
    norm.eval()
    with pytest.warns(UserWarning, match="repeated data"):
        assert pv.log_evidence(model, exact_guide, x, num_particles=5).estimate.isfinite().all()
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())


def test_random_numbers_and_validation_are_as_they_were() -> None:
    state, x = torch.get_rng_state(), torch.randn(4)
    torch.set_rng_state(state)
    Pair(line(lambda z: 2 * z[..., 0]), exact_guide, pv.Batch(x))
    assert torch.equal(torch.get_rng_state(), state)
    with pyro.validation_enabled(False), pytest.raises(pv.InputError):
        pv.log_evidence(line(lambda z: z[..., 7]), exact_guide, x)


def test_threads_wait_for_each_other() -> None:
    x = torch.randn(40)
    found: list[float] = []

    def measured() -> None:
        for _ in range(3):
            model = line(lambda z: 2 * z[..., 0])
            found.append(pv.log_evidence(model, exact_guide, x, num_particles=50).mean)

    threads = [threading.Thread(target=measured) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == pytest.approx([float(exact(x).mean())] * 12, abs=1e-4)


def test_the_wrong_arguments_are_named() -> None:
    def model(x: Tensor, label: Tensor) -> None:
        line(lambda z: 2 * z[..., 0] + label)(x)

    x, label = torch.randn(3), torch.zeros(3)
    with refused(r"the guide takes \(x.*, label.*\), got x alone: missing a required argument: 'label'"):
        pv.log_evidence(model, lambda x, label: exact_guide(x), x)
    with refused(r"the guide takes \(x\), got x and given \['label'\]: got an unexpected keyword argument"):
        pv.log_evidence(model, lambda x: exact_guide(x), x, given={"label": label})
    with refused(r"given\['label'\] for each of 3 data, got shape \(2,\)"):
        pv.elbo(model, model, x, given={"label": label[:2]})
    with refused(r"given expects a dictionary .* got a Tensor: .* given=\{'y': y\}"):
        pv.elbo(model, model, x, given=label)  # type: ignore[arg-type]
    with refused("expected x as one tensor .* got a tuple: .* give what lies beside x by name"):
        pv.elbo(model, model, (x, label))  # type: ignore[arg-type]


def test_what_is_given_goes_with_its_datum_or_is_the_same_for_all(float64: None) -> None:
    x, label = torch.randn(40), torch.randn(40)

    def model(x: Tensor, label: Tensor, width: float, kind: str) -> None:
        assert kind == "known"
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(label + 2 * z[..., 0], width), obs=x)

    def guide(x: Tensor, label: Tensor, **_: object) -> None:
        exact_guide(x - label)

    given = {"label": label, "width": 0.5, "kind": "known"}
    for compile in ("off", "flat"):
        found = pv.log_evidence(model, guide, x, given=given, num_particles=30, rows=70, compile=compile)
        torch.testing.assert_close(found.estimate, exact(x - label), rtol=0, atol=1e-6)
    annealed = pv.annealed_log_evidence(
        model, guide, x, given=given, num_chains=3, num_temperatures=3, start="guide", rows=20, compile="flat"
    )
    torch.testing.assert_close(annealed.estimate, exact(x - label), rtol=0, atol=1e-6)
    drawn = pv.bidirectional_gap(
        model, guide, 50, like=x, given=given, num_chains=2, num_temperatures=3, start="guide"
    )
    expected = exact(drawn.x - torch.cat([label, label[:10]]))
    torch.testing.assert_close(drawn.lower, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(drawn.upper, expected, rtol=0, atol=1e-6)


def test_densities_that_depend_on_their_argument_by_little_are_refused() -> None:
    """x centred by its own mean: 4 of 1400 nats, which a relative tolerance of a hundredth let pass."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
            loc = (z / 30)[..., None].expand(*z.shape, 1000)
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x - x.mean(-1, keepdim=True))

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))

    def noisy(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
            loc = (z / 30)[..., None] + 1e-3 * x.mean(-1, keepdim=True)
            pyro.sample("x", dist.Normal(loc, 1.0).expand((*z.shape, 1000)).to_event(1), obs=x)

    like = torch.randn(3, 1000)
    with refused("a model that observes its argument as it is, got one that changes it at the site 'x'"):
        pv.calibrate(model, guide, like=like)
    with refused("densities that do not depend on the model's argument, got one at the site 'x'"):
        pv.calibrate(noisy, guide, like=like)


def test_an_autoguide_that_was_never_run_stays_so() -> None:
    guide = AutoNormal(line(lambda z: 2 * z[..., 0]))
    with refused("expected a trained guide, got AutoNormal that has not been run yet"):
        pv.log_evidence(line(lambda z: 2 * z[..., 0]), guide, torch.randn(5))
    assert guide.prototype_trace is None


def test_what_a_program_raises_has_its_place_and_its_cause() -> None:
    class Odd(Exception):
        def __init__(self, one: int, two: int) -> None:
            super().__init__(one, two)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
        raise Odd(1, 2)  # here

    with refused(
        r"the model cannot be .*: Odd: \(1, 2\) \(in test_verification.py, line \d+: raise Odd"
    ) as caught:
        pv.elbo(model, exact_guide, torch.randn(3))
    assert isinstance(caught.value.__cause__, Odd)

    def interrupted(x: Tensor) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pv.elbo(interrupted, exact_guide, torch.randn(3))


def test_the_slower_way_has_no_note_where_it_is_not_taken() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pv.elbo(line(lambda z: 2 * z[..., 0]), exact_guide, torch.randn(3))


def refuses(model: Program, guide: Program, x: Tensor, text: str, **options: Any) -> None:
    with refused(text):
        pv.log_evidence(model, guide, x, num_particles=20, **options)


def test_sites_that_only_one_of_two_runs_has_are_compared(float64: None) -> None:
    def together(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)
            if (x > 0).all():
                pyro.sample("more", dist.Normal(z, 1.0), obs=x)

    def alone(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)
            if z.ndim == 1:
                pyro.sample("more", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 3 * 2, math.sqrt(1 / 3)))

    x = torch.tensor([1.0, -1.0, 2.0])
    refuses(together, guide, x, "got 0 beside other data and .* alone at the site 'more' of the model")
    joint = dist.MultivariateNormal(torch.zeros(2), torch.eye(2) + 1).log_prob(torch.stack([x, x], -1))
    with pytest.warns(UserWarning, match="model: run on repeated data, .* it has other sites"):
        found = pv.log_evidence(alone, guide, x, num_particles=20)
    torch.testing.assert_close(found.estimate, joint, rtol=0, atol=1e-9)


def test_a_density_of_zero_is_another_one_than_any_number(float64: None) -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)
            pyro.factor("near", torch.where(z**2 > (z**2).mean(-1, keepdim=True), -math.inf, 0.0))

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 1.0))

    refuses(model, guide, torch.randn(6), "depends on no other, got .* at the site 'near' of the model")


@pytest.mark.parametrize("rows", [None, 60])
def test_a_hole_filled_by_the_mean_of_the_batch_is_seen(rows: int | None, float64: None) -> None:
    """Those that are looked at first have none."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
            whole = torch.where(x.isnan(), x.nanmean(0), x)
            pyro.sample("x", dist.Normal(z[..., None], 1.0).expand((*z.shape, 3)).to_event(1), obs=whole)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.nanmean(-1), 1.0))

    x = torch.randn(8, 3)
    x[4, 0] = math.nan
    refuses(model, guide, x, "depends on no other, got .* at the site 'x' of the model", rows=rows)


def test_latent_sites_that_only_some_data_have_are_refused_by_annealing(float64: None) -> None:
    def model(x: Tensor, seen: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
            w = pyro.sample("w", dist.Normal(0.0, 1.0).mask(seen)) if seen.any() else 0.0
            pyro.sample("x", dist.Normal(z + w * seen, 1.0), obs=x)

    def guide(x: Tensor, seen: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 1.0))
            if seen.any():
                pyro.sample("w", dist.Normal(x / 2, 1.0).mask(seen))

    x, seen = torch.randn(5), torch.tensor([False, False, True, False, False])
    with refused(r"the same latent sites for all data, got \['w', 'z'\] for some and \['z'\] for others"):
        pv.annealed_log_evidence(model, guide, x, given={"seen": seen}, num_chains=4, num_temperatures=4)


def test_a_latent_that_the_model_computes_is_no_coordinate(float64: None) -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
            double = pyro.sample("double", dist.Delta(2 * z))
            pyro.sample("x", dist.Normal(double, 0.5), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(2 * x / 4.25, math.sqrt(1 / 17)))
            pyro.sample("double", dist.Delta(2 * z))

    x = torch.randn(4)
    found = pv.annealed_log_evidence(model, guide, x, num_chains=4, num_temperatures=4, start="guide")
    torch.testing.assert_close(found.estimate, exact(x), rtol=0, atol=1e-9)


def test_a_call_inside_a_handler_and_a_guide_that_runs_the_model_are_refused() -> None:
    x, model = torch.randn(4), line(lambda z: 2 * z[..., 0])
    with pyro.plate("outer", 3, dim=-5), refused("a call outside of Pyro's handlers, got one in plate"):
        pv.log_evidence(model, exact_guide, x)
    messenger = AutoNormalMessenger(model)
    refuses(model, messenger, x, "expected a guide that is a program of its own, got AutoNormalMessenger")

    def both(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_zeros(len(x), 1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    refuses(model, both, x, r"a guide that draws the latent sites only, got one that observes \['x'\]")


def test_refused_programs_leave_no_parameters(float64: None) -> None:
    def guide(x: Tensor) -> None:
        loc = pyro.param("one for each", lambda: torch.zeros(len(x), 1))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))

    pyro.clear_param_store()
    with pytest.raises(pv.InputError):
        pv.elbo(line(lambda z: 2 * z[..., 0]), guide, torch.randn(7))
    assert "one for each" not in pyro.get_param_store()


def test_batch_norm_in_training_is_refused_where_it_cannot_run_on_one_datum() -> None:
    """It would pass for a guide that is made for all data, and each batch give another ELBO."""
    norm = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True), x.new_ones(3)).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        pyro.module("norm", norm)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(norm(x), 1.0).to_event(1))

    x = torch.randn(7, 3)
    for estimate in (pv.elbo, pv.log_evidence):
        with pytest.raises(pv.InputError, match=r"by \.eval\(\)"):
            estimate(model, guide, x)
    norm.eval()
    assert bool(pv.elbo(model, guide, x).elbo.isfinite().all())
