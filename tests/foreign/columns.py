"""What is asked of every program: the columns of the table."""

import contextlib
import warnings
from collections.abc import Callable, Iterator

import pyro
import pyro.infer
import torch
from torch import Tensor

import pyro_vae as pv

from ._common import Case

#: Draws per datum.
DRAWS = 2000
#: Steps of training, and the one from which the learning rate falls.
STEPS, LATE = 20, 12


def _options(case: Case) -> dict:
    return {"given": case.given or None, "data_plate": case.data_plate}


def elbo(case: Case) -> None:
    """`pv.elbo` against the closed form, and against log p(x) where the guide is exact."""
    found = pv.elbo(case.model, case.guide, case.x, num_particles=DRAWS, **_options(case)).elbo
    assert found.isfinite().all()
    if case.elbo is not None:
        torch.testing.assert_close(found, case.elbo.to(found), rtol=0, atol=0.15)
    if case.exact_guide:
        torch.testing.assert_close(found, case.log_px.to(found), rtol=0, atol=1e-5)
    elif case.log_px is not None:
        assert (found < case.log_px + 0.05).all()


def log_evidence(case: Case) -> None:
    """`pv.log_evidence` against the exact log p(x)."""
    found = pv.log_evidence(case.model, case.guide, case.x, num_particles=DRAWS, **_options(case))
    error = 4.5 * found.standard_error.nan_to_num(0) + 1e-5
    assert ((found.estimate - case.log_px).abs() < error).all(), (found.estimate, case.log_px)
    assert error.max() < 0.4


def annealed(case: Case) -> None:
    """`pv.annealed_log_evidence` against the exact log p(x), by a few temperatures from the prior."""
    found = pv.annealed_log_evidence(
        case.model,
        case.guide,
        case.x,
        num_chains=32,
        num_temperatures=8,
        leapfrog_steps=2,
        compile="off",
        **_options(case),
    )
    error = 6 * found.standard_error + 1e-5  # which itself is of 32 chains, with heavy tails
    assert ((found.estimate - case.log_px).abs() < error).all(), (found.estimate, case.log_px)
    assert error.median() < 5


def diagnose(case: Case) -> None:
    """`pv.diagnose`: its ELBO and log p(x) against theirs, and the sum that holds exactly."""
    data = pv.Batch(case.x, case.given).repeat(-(-8 // len(case.x)))
    found = pv.diagnose(
        case.model, case.guide, data, num_steps=3, num_particles=100, data_plate=case.data_plate
    )
    parts = found.distortion.mean + found.mutual_information.mean + found.marginal_kl.mean
    assert abs(found.elbo.mean + parts) < 1e-6
    exact = case.log_px.repeat(len(data) // len(case.x))
    error = 4.5 * found.evidence.standard_error.nan_to_num(0) + 1e-5
    assert ((found.evidence.estimate - exact).abs() < error).all()
    if case.elbo is not None:
        amortised, spread = found.local.amortised.elbo, found.local.errors.amortised
        close = (amortised - case.elbo.repeat(len(data) // len(case.x))).abs() < 5 * spread + 1e-5
        assert close.all()


def calibrate(case: Case) -> None:
    """`pv.calibrate`: uniform ranks where the guide is exact; ranks in any case."""
    found = pv.calibrate(case.model, case.guide, like=case.x, num_data=100, num_draws=19, **_options(case))
    assert found.ranks.min() >= 0 and found.ranks.max() <= 19
    if case.exact_guide:
        assert found.p_value.min() > 1e-3


def compiled(case: Case, again: Case) -> None:
    """`CompiledELBO` and `FusedAdam` against plain SVI, to the last bit, under a schedule that starts late.

    Args:
        case: For plain SVI.
        again: The same programs, made anew.
    """
    plain, fast = _trained(case, compiled=False), _trained(again, compiled=True)
    assert plain[0] == fast[0]
    assert plain[1].keys() == fast[1].keys()
    assert all(torch.equal(plain[1][name], fast[1][name]) for name in plain[1])


def _trained(case: Case, *, compiled: bool) -> tuple[list[float], dict[str, Tensor]]:
    """Losses and parameters of some steps."""
    with fresh_store():
        torch.manual_seed(1)
        kind = getattr(pyro.infer, case.settings["loss"])
        loss = kind(max_plate_nesting=case.settings.get("max_plate_nesting", 1))
        rate = lambda step: 1.0 if step < LATE else 0.9 ** (step - LATE)  # noqa: E731
        if compiled:
            schedule = lambda adam: torch.optim.lr_scheduler.LambdaLR(adam, rate)  # noqa: E731
            optimiser = pv.FusedAdam({"lr": 0.01, "fused": False}, schedule=schedule)
            loss = pv.CompiledELBO(loss)
        else:
            options = {"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.01}, "lr_lambda": rate}
            optimiser = pyro.optim.LambdaLR(options)
        svi = pyro.infer.SVI(case.model, case.guide, optimiser, loss)
        losses = []
        for _ in range(STEPS):
            losses.append(svi.step(case.x, **case.given))
            optimiser.step()
        return losses, _parameters()


def fit(case: Case, again: Case) -> None:
    """`pv.fit` by flat graphs against plain SVI: the same parameters to the last bit.

    Args:
        case: For plain SVI.
        again: The same programs, made anew.
    """
    epochs, kind = 6, getattr(pyro.infer, case.settings["loss"])
    with fresh_store():
        torch.manual_seed(1)
        svi = pyro.infer.SVI(case.model, case.guide, pyro.optim.Adam({"lr": 0.01}), kind())
        losses = torch.tensor([svi.step(case.x) for _ in range(epochs)], dtype=torch.float64)
        plain = _parameters()
    with fresh_store():
        history = pv.fit(
            program=(again.model, again.guide),
            data=again.x,
            epochs=epochs,
            batch_size=len(again.x),
            optimiser=lambda parameters: torch.optim.Adam(parameters, lr=0.01),
            objective=kind,
            compile="flat",
            keep="last",
            seed=1,
            progress=False,
        )
        fitted = _parameters()
    elbos = torch.tensor(history.column("train_elbo"), dtype=torch.float64)
    torch.testing.assert_close(-elbos * len(case.x), losses, rtol=1e-12, atol=1e-12)
    assert plain.keys() == fitted.keys()
    assert all(torch.equal(plain[name], fitted[name]) for name in plain)


def _parameters() -> dict[str, Tensor]:
    store = pyro.get_param_store()
    return {name: store[name].detach().clone() for name in store}


@contextlib.contextmanager
def fresh_store() -> Iterator[None]:
    """An empty parameter store, and the one before given back."""
    with pyro.get_param_store().scope():
        yield


#: By name; the first two for every program, the others for those of `CENTRAL`.
COLUMNS: dict[str, Callable[..., None]] = {
    "elbo": elbo,
    "log_evidence": log_evidence,
    "annealed": annealed,
    "diagnose": diagnose,
    "calibrate": calibrate,
    "CompiledELBO": compiled,
    "fit": fit,
}


def run(build: Callable[[], Case], column: str) -> None:
    """One cell; the note that a slower way is taken, and Pyro's own warnings, are left aside."""
    with fresh_store(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = [build() for _ in range(2 if column in ("CompiledELBO", "fit") else 1)]
        torch.manual_seed(0)
        COLUMNS[column](*cases)
