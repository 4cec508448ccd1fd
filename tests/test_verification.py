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
    assert sizes[-3:] == [6, 1, 1]  # the draws, and two of them alone


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
    x[41] = 5.0
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
