"""`pyro-vae evaluate` and `pyro-vae diagnose`: their numbers, files and words, and how they go on."""

import json
import re
import signal
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import pyro_vae as pv
from pyro_vae.cli.loading import load
from pyro_vae.randomness import own_randomness
from pyro_vae.reports import Diagnosing, diagnosing
from pyro_vae.storage.checkpoints import load_checkpoint, save_checkpoint
from pyro_vae.storage.files import load_arrays
from pyro_vae.storage.resumable import Resumable
from tests.commands import SMALL, Run

ANNEALED = ("--method", "annealed", "--chains", 3, "--temperatures", 6, "--num_data", 20, "--simulated", 2)
#: Pictures that a training leaves.
OF_TRAINING = ["reconstructions", "samples"]
DIAGNOSE = ("--chains", 3, "--temperatures", 6, "--num_data", 20, "--num_steps", 5)


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


@pytest.fixture(autouse=True)
def files(trained: Path) -> Iterator[None]:
    """The run is left as it was found."""
    found = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    yield
    assert not (trained / "checkpoints" / "evaluation").exists()
    for path in trained.rglob("*"):
        if path.is_file() and path not in found:
            path.unlink()
    for path, content in found.items():
        path.write_bytes(content)


def test_evaluate(pyro_vae: Run, trained: Path) -> None:
    status, out, _ = pyro_vae("evaluate", trained, "--particles", 20, "--num_data", 50)
    assert status == 0
    content = json.loads((trained / "evaluation.json").read_text())
    assert content["log_evidence"]["method"] == "importance"
    assert (content["log_evidence"]["particles"], content["log_evidence"]["num_data"]) == (20, 50)
    assert {"units", "protocol", "data_hash", "elbo", "seed", "device", "versions"} < set(content)
    assert f"{content['log_evidence']['estimate']:.3f}" in out
    _, out, _ = pyro_vae("evaluate", trained, "--particles", 20, "--num_data", 50)
    assert "replacing the earlier" in out
    again = json.loads((trained / "evaluation.json").read_text())
    assert again["log_evidence"] == content["log_evidence"]


def test_the_numbers_of_each_datum_are_those_of_the_latest_result(pyro_vae: Run, trained: Path) -> None:
    pyro_vae("train", "--config", trained / "config.yaml", "--out", "again")
    path = Path("again/per_datum.npz")
    for name, options, number in (
        ("summary", (), 300),
        ("evaluation", ("--particles", 20, "--num_data", 50, "--seed", 4), 50),
    ):
        if options:
            assert pyro_vae("evaluate", "again", *options)[0] == 0
        content, arrays = json.loads(Path(f"again/{name}.json").read_text()), load_arrays(path, ())
        found = content["log_evidence"]
        for key in ("elbo", "log_evidence", "standard_error", "effective_sample_size"):
            assert arrays[key].shape == (number,) and arrays[key].dtype == np.float64
        assert arrays["elbo"].mean() == pytest.approx(content["elbo"]["test"]["elbo"], rel=1e-12)
        assert arrays["log_evidence"].mean() == pytest.approx(found["estimate"], rel=1e-12)
        assert (arrays["effective_sample_size"] <= found["particles"] * (1 + 1e-9)).all()
        expected = (content["data_hash"], found["particles"], content["seed"], content["split"])
        names = ("data_hash", "particles", "seed", "split")
        assert tuple(arrays[key].item() for key in names) == expected


def test_evaluate_uses_the_parameters_that_were_kept(pyro_vae: Run, trained: Path) -> None:
    """With all test data and the same seed it repeats the training's own numbers."""
    pyro_vae("evaluate", trained, "--particles", 10)
    evaluation, summary = (json.loads((trained / f"{n}.json").read_text()) for n in ("evaluation", "summary"))
    assert evaluation["log_evidence"] == summary["log_evidence"]


@pytest.mark.fine_pictures
def test_the_numbers_are_those_of_the_functions(pyro_vae: Run, trained: Path) -> None:
    options = ("--particles", 40, "--num_data", 20, "--seed", 3)
    status, out, err = pyro_vae("evaluate", trained, *options)
    assert (status, err) == (0, "")
    opened = load(trained)
    data, vae = opened.data(), opened.vae
    part = data.test.subset(20)
    with own_randomness(3, vae.device):
        terms = pv.elbo(vae.model, vae.guide, part.batch(), num_particles=10)
        result = pv.log_evidence(vae.model, vae.guide, part.batch(), num_particles=40)
    content, arrays = read(trained / "evaluation.json"), load_arrays(trained / "per_datum.npz", ())
    for name in ("standard_error", "effective_sample_size", "largest_share", "pareto_k"):
        assert np.array_equal(arrays[name], getattr(result, name).numpy(), equal_nan=True)
    assert np.array_equal(arrays["log_evidence"], result.estimate.numpy())
    assert np.array_equal(arrays["elbo"], terms.elbo.numpy())
    assert (arrays["method"].item(), arrays["particles"].item()) == ("importance", 40)
    assert content["log_evidence"] == {
        "estimate": result.mean,
        "standard_error": result.mean_standard_error,
        "monte_carlo_error": result.mean_monte_carlo_error,
        "at_least": {"bound": result.certificate(), "delta": 0.05},
        "method": "importance",
        "particles": 40,
        "until_standard_error": None,
        "num_data": 20,
    }
    above = int((result.pareto_k > 0.7).sum())
    assert content["pareto_k"]["above"] == above
    assert content["pareto_k"]["share_above"] == above / 20
    assert content["pareto_k"]["largest"] == float(result.pareto_k.max())
    assert content["data_hash"] == part.hash()
    for name in ("bound_curve", "pareto_k"):
        assert f"{trained / 'figures' / name}.png\n" in out
        with Image.open(trained / "figures" / f"{name}.png") as picture:
            assert np.asarray(picture).std() > 10


def test_a_local_proposal_is_the_default_from_500_draws_on(pyro_vae: Run, trained: Path) -> None:
    status, out, err = pyro_vae("evaluate", trained, "--particles", 600, "--num_data", 10)
    assert (status, err) == (0, "")
    opened = load(trained)
    x = opened.data().test.subset(10).batch()
    with own_randomness(0, opened.vae.device):
        pv.elbo(opened.vae.model, opened.vae.guide, x, num_particles=10)
        result = pv.log_evidence(opened.vae.model, opened.vae.guide, x, num_particles=600, proposal="local")
    content, arrays = read(trained / "evaluation.json"), load_arrays(trained / "per_datum.npz", ())
    assert np.array_equal(arrays["log_evidence"], result.estimate.numpy())
    assert content["log_evidence"]["method"] == arrays["method"].item() == "local"
    bound = result.certificate(0.05)
    assert content["log_evidence"]["at_least"] == {"bound": bound, "delta": 0.05}
    assert "on 10 test data, 600 draws each from local proposals (Monte Carlo error" in out
    words = "for these 10 test data, with probability 0.95 whatever the weights"
    assert f"at least       {bound:>10.3f} {words}\n" in out


def test_auto_says_what_gave_each_number(pyro_vae: Run, trained: Path) -> None:
    options = ("--method", "auto", "--budget", 1, "--particles", 50, "--num_data", 10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a budget may be too small
        status, out, _ = pyro_vae("evaluate", trained, *options)
    assert status == 0 and "50 draws each from local proposals" in out
    found, arrays = read(trained / "evaluation.json"), load_arrays(trained / "per_datum.npz", ())
    assert found["log_evidence"]["annealed"] == arrays["annealed"].sum()
    assert np.array_equal(np.isnan(arrays["pareto_k"]), arrays["annealed"] == 1)
    assert found["log_evidence"]["budget"] == 1


def test_annealing_has_its_own_numbers_and_words(pyro_vae: Run, trained: Path) -> None:
    pyro_vae("evaluate", trained, "--particles", 40)
    status, out, err = pyro_vae("evaluate", trained, *ANNEALED, "--start", "guide")
    assert (status, err) == (0, "")
    opened = load(trained)
    data, vae = opened.data(), opened.vae
    x = data.test.subset(20).batch()
    with own_randomness(0, vae.device):
        pv.elbo(vae.model, vae.guide, x, num_particles=10)
        result = pv.annealed_log_evidence(
            vae.model, vae.guide, x, num_chains=3, num_temperatures=6, start="guide"
        )
    content, arrays = read(trained / "evaluation.json"), load_arrays(trained / "per_datum.npz", ())
    assert np.array_equal(arrays["log_evidence"], result.estimate.numpy())
    assert np.array_equal(arrays["acceptance"], result.acceptance.numpy())
    assert "pareto_k" not in arrays and content["pareto_k"] is None
    with own_randomness(0, vae.device):
        gap = pv.bidirectional_gap(
            vae.model, vae.guide, 2, like=x, num_chains=3, num_temperatures=6, start="guide"
        )
    assert content["log_evidence"]["certificate"] == {
        "gap": gap.mean,
        "standard_error": gap.mean_standard_error,
        "lower": gap.lower.mean().item(),
        "upper": gap.upper.mean().item(),
        "num_data": 2,
    }
    assert f"are {gap.mean:.3f} ± {gap.mean_standard_error:.3f} nats apart" in out
    expected = {"method": "annealed", "particles": 3, "chains": 3, "temperatures": 6, "start": "guide"}
    assert expected.items() <= content["log_evidence"].items()
    assert content["log_evidence"]["acceptance"] == float(result.acceptance.mean())
    assert "on 20 test data, 3 annealed chains each, 6 temperatures from the guide (Monte Carlo" in out
    assert f"annealing      acceptance {result.acceptance.mean():.2f} (aimed at: 0.65); rises with" in out
    assert "from q(z|x), so that it may miss what that misses" in out
    # none of the earlier evaluation
    assert sorted(path.stem for path in (trained / "figures").iterdir()) == OF_TRAINING


def test_draws_stop_at_an_error(pyro_vae: Run, trained: Path) -> None:
    options = ("--until_standard_error", 0.05, "--particles", 4000, "--num_data", 30)
    with warnings.catch_warnings():
        warnings.simplefilter("always")  # some data may not get there
        status, out, _ = pyro_vae("evaluate", trained, *options)
    assert status == 0
    found, arrays = read(trained / "evaluation.json"), load_arrays(trained / "per_datum.npz", ())
    few, many = int(arrays["num_particles"].min()), int(arrays["num_particles"].max())
    assert found["log_evidence"]["until_standard_error"] == 0.05
    assert found["log_evidence"]["particles"] == many
    words = f"{many}" if few == many else f"{few} to {many}"
    assert f"{words} draws each from local proposals" in out
    assert few < 4000


class Interruption:
    """Ctrl-C at one of the times at which an estimator may keep its state."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
        self.calls, self.at, self.keep = 0, at, Resumable.keep
        monkeypatch.setattr(Resumable, "keep", lambda kept, state, **how: self(kept, state, **how))

    def __call__(self, kept: Resumable, state: Any, **how: Any) -> None:
        self.calls += 1
        if self.calls == self.at:
            signal.raise_signal(signal.SIGINT)
        self.keep(kept, state, **how)


@pytest.mark.parametrize(
    ("options", "other", "at"),
    [
        (ANNEALED, ("--start", "guide"), 155),  # past the certificate and the pilot run
        (("--method", "importance", "--particles", 6000, "--num_data", 5), ("--seed", 1), 4),
        (("--particles", 6000, "--num_data", 5), ("--seed", 1), 4),
    ],
    ids=["annealed", "importance", "local"],
)
def test_an_interrupted_evaluation_goes_on_to_the_same_numbers(
    pyro_vae: Run,
    trained: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[Any, ...],
    other: tuple[Any, ...],
    at: int,
) -> None:
    with monkeypatch.context() as patched:
        uninterrupted = Interruption(patched, 0)
        assert pyro_vae("evaluate", trained, *options)[0] == 0
    whole, arrays = read(trained / "evaluation.json"), load_arrays(trained / "per_datum.npz", ())
    (trained / "evaluation.json").unlink()
    kept = trained / "checkpoints" / "evaluation"
    with monkeypatch.context() as patched:
        interruption = Interruption(patched, at)
        status, out, err = pyro_vae("evaluate", trained, *options)
    assert (status, out, interruption.calls) == (130, "", at)
    assert err == f"\npyro-vae: interrupted; the same command goes on from {kept}\n"
    assert not (trained / "evaluation.json").exists()
    status, out, err = pyro_vae("evaluate", trained, *options, *other)
    assert (status, out, err.count("\n")) == (2, "", 1)
    expected = f"{kept} holds an interrupted command with {other[0][2:]} .*, got {other[1]}: .* remove that"
    assert re.search(expected, err)
    with monkeypatch.context() as patched:
        interruption = Interruption(patched, 0)
        status, _, err = pyro_vae("evaluate", trained, *options)
    assert (status, err) == (0, f"pyro-vae: note: going on from {kept}\n")
    assert interruption.calls == uninterrupted.calls - at > 0
    assert not kept.exists()
    again = read(trained / "evaluation.json")
    assert {**again, "seconds": 0} == {**whole, "seconds": 0}
    resumed = load_arrays(trained / "per_datum.npz", ())
    assert all(np.array_equal(arrays[name], resumed[name], equal_nan=name == "pareto_k") for name in arrays)


def test_other_parameters_do_not_go_on(pyro_vae: Run, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after more training; a removed folder begins anew."""
    pyro_vae("train", "--config", trained / "config.yaml", "--out", "run")
    with monkeypatch.context() as patched:
        Interruption(patched, 2)
        assert pyro_vae("evaluate", "run", *ANNEALED)[0] == 130
    path = Path("run/checkpoints/best.pt")
    best = load_checkpoint(path)
    best["model"]["likelihood.decoder.layers.1.weight"] += 0.1
    save_checkpoint(path, best)
    status, _, err = pyro_vae("evaluate", "run", *ANNEALED)
    assert status == 2
    assert "run/checkpoints/evaluation holds an interrupted command with parameters " in err
    for path in Path("run/checkpoints/evaluation").iterdir():
        path.unlink()
    Path("run/checkpoints/evaluation").rmdir()
    assert pyro_vae("evaluate", "run", *ANNEALED)[0] == 0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            ("evaluate", "--chains", 8),
            "--chains is an option of --method annealed, got --method local: leave it out, or choose another",
        ),
        (("evaluate", "--start", "guide"), "--start is an option of --method annealed"),
        (("evaluate", "--method", "annealed", "--particles", 9), "--particles is an option of --method imp"),
        (("evaluate", "--method", "annealed", "--until_standard_error", 1), "--until_standard_error is an o"),
        (
            ("evaluate", "--method", "annealed", "--chains", 0),
            "chains expects a positive whole number, got 0",
        ),
        (
            ("evaluate", "--until_gap", 1),
            "--until_gap is an option of --method annealed, auto, got --method local",
        ),
        (
            ("evaluate", "--method", "annealed", "--until_gap", 0),
            "until_gap expects a positive number of nats",
        ),
        (("evaluate", "--until_standard_error", 0), "until_standard_error expects a positive number of nats"),
        (
            ("evaluate", "--method", "annealing"),
            "--method: expected one of 'importance', 'local', 'anneal",
        ),
        (("evaluate", "--budget", 9), "--budget is an option of --method auto, got --method local: leave it"),
        (("evaluate", "--method", "auto", "--budget", -1), "budget expects a number of seconds, got -1"),
        (("evaluate", "--num_data", 0), "got 0"),
        (
            ("diagnose", "--particles", 9),
            "--particles is an option of --method importance, local, auto",
        ),
        (("diagnose", "--until_gap", 0.1, "--simulated", 9), "--until_gap has simulated data of its own"),
        (("diagnose", "--num_steps", 0), "num_steps expects a positive whole number, got 0"),
        (("diagnose", "--nuts", -1), "nuts expects a positive whole number, got -1"),
        (("diagnose", "--num_data", 7), "expected 8 data at least to diagnose, got 7"),
    ],
)
def test_bad_options_are_one_clear_line_and_status_2(
    pyro_vae: Run, trained: Path, options: tuple[Any, ...], text: str
) -> None:
    before = sorted(trained.rglob("*"))
    status, out, err = pyro_vae(options[0], trained, *options[1:])
    assert (status, out, err.count("\n")) == (2, "", 1), err
    assert text in err
    assert [path for path in sorted(trained.rglob("*")) if path not in before] == []


def test_options_of_the_other_method_at_their_defaults_are_no_mistake(pyro_vae: Run, trained: Path) -> None:
    assert pyro_vae("evaluate", trained, *ANNEALED, "--particles", 1000)[0] == 0
    assert pyro_vae("evaluate", trained, "--chains", 16, "--start", "prior", "--particles", 30)[0] == 0


def test_methods_are_not_compared_with_each_other(pyro_vae: Run, trained: Path) -> None:
    pyro_vae("train", "--config", trained / "config.yaml", "--seed", 1, "--out", "other")
    pyro_vae("evaluate", trained, *ANNEALED)
    pyro_vae("evaluate", "other", "--particles", 10)
    status, out, err = pyro_vae("compare", trained, "other")
    assert (status, out, err.count("\n")) == (2, "", 1)
    pyro_vae("evaluate", "other", "--particles", 10, "--num_data", 20)
    _, _, err = pyro_vae("compare", trained, "other")
    remedy = "evaluate other --split test --num_data 20 --method annealed --chains 3 --temperatures 6"
    assert (
        f"by another method than {trained}: expected method annealed, got importance: use pyro-vae {remedy}"
        in err
    )
    assert pyro_vae(*remedy.split())[0] == 0
    status, out, _ = pyro_vae("compare", trained, "other")
    assert status == 0
    assert re.search(r" +2 +\S+ +\S+ sd \S+ +3x6 +reference$", out, re.M)


def test_tables_for_documents_have_the_screen_to_themselves(pyro_vae: Run, trained: Path) -> None:
    status, out, err = pyro_vae("evaluate", trained, "--particles", 9, "--num_data", 5, "--format", "csv")
    found = read(trained / "evaluation.json")
    elbo, log_px = found["elbo"]["test"], found["log_evidence"]
    numbers = [f"{elbo[name]:.3f}" for name in ("elbo", "reconstruction", "kl")]
    estimate = f"{log_px['estimate']:.3f} ± {log_px['standard_error']:.3f}"
    row = ["test", *numbers, estimate, f"{log_px['at_least']['bound']:.3f}", "5"]
    heading = "nats per datum,ELBO,reconstruction,KL,log p(x),at least,data"
    assert (status, out.splitlines()) == (0, [heading, ",".join(row)])
    assert "bound_curve.png" in err
    status, out, err = pyro_vae("diagnose", trained, *DIAGNOSE, "--format", "latex")
    distortion = read(trained / "diagnosis.json")["distortion"]
    assert status == 0 and "waterfall.png" in err
    assert out.startswith("\\begin{tabular}{lrr}\n") and out.endswith("\\end{tabular}\n")
    numbers = [f"{distortion[name]:.3f}" for name in ("mean", "standard_error")]
    assert f"\ndistortion & {numbers[0]} & {numbers[1]} \\\\\n" in out


@pytest.mark.fine_pictures
def test_diagnose(pyro_vae: Run, trained: Path) -> None:
    status, out, err = pyro_vae("diagnose", trained, *DIAGNOSE, "--seed", 2)
    assert (status, err) == (0, "")
    opened = load(trained)
    data, vae = opened.data(), opened.vae
    x, model, guide = data.test.subset(20).batch(), vae.model, vae.guide
    with own_randomness(2, vae.device):
        train = data.train.subset(2000).batch()
    with own_randomness(2, vae.device):
        evidence = pv.annealed_log_evidence(model, guide, x, num_chains=3, num_temperatures=6, start="guide")
    with own_randomness(2, vae.device):
        direct = pv.diagnose(model, guide, x, train=train, evidence=evidence, num_steps=5)
    content = read(trained / "diagnosis.json")
    for name, found in direct.content().items():
        assert content[name] == found, name
    parts = [content[name]["mean"] for name in ("elbo", "amortisation", "approximation")]
    assert content["log_evidence"]["mean"] == pytest.approx(sum(parts), abs=1e-9)
    assert content["evidence"]["estimate"] == evidence.mean
    calibration = pv.calibrate(model, guide, like=x, seed=2)
    assert content["calibration"]["words"] == repr(calibration)
    p_values = [each["p_value"] for each in content["calibration"]["quantities"].values()]
    assert p_values == calibration.p_value.tolist()
    assert (content["data_hash"], content["seed"]) == (data.test.subset(20).hash(), 2)
    assert f"\n\n{direct.verdict}\n\n" in out
    assert out.startswith("nats per datum, means of 20 data")
    assert f"calibration         {calibration!r}\n" in out
    coverage = content["coverage"]
    assert f"coverage            {coverage['words']}\n" in out
    assert coverage["rejected"] == ("is rejected" in coverage["words"])
    assert list(coverage["points"]) == ["a draw", "the shift", "the spread"]
    pictures = ["calibration", "units", "waterfall"]
    there = {path.stem for path in (trained / "figures").iterdir()}
    assert sorted(there - {*OF_TRAINING}) == pictures
    for name in pictures:
        assert f"{trained / 'figures' / name}.png" in out.splitlines()
        with Image.open(trained / "figures" / f"{name}.png") as picture:
            assert np.asarray(picture).std() > 10


def test_chains_from_the_prior_tell_rates_and_both_bounds(pyro_vae: Run, trained: Path) -> None:
    status, out, err = pyro_vae("diagnose", trained, *DIAGNOSE, "--start", "prior", "--simulated", 9)
    assert (status, err) == (0, "")
    content = read(trained / "diagnosis.json")
    curve = content["rate_distortion"]
    assert (curve["betas"][0], curve["betas"][-1], curve["rate"][0]) == (0, 1, 0)
    total = curve["rate"][-1] + curve["distortion"][-1]
    assert total == pytest.approx(-content["log_evidence"]["mean"], abs=1e-9)
    assert f"p(z|x) has a rate of {curve['rate'][-1]:.2f} and a distortion of" in out
    assert content["certificate"]["num_data"] == 9
    assert re.search(r"^bounds +\S+ ± \S+ nats apart on 9 simulated data$", out, re.M)
    bounds = content["information_bounds"]
    assert re.search(rf"^information +I\(x; z\) of the model is at least {bounds['lower']:.3f} ± ", out, re.M)
    assert bounds["upper"] - bounds["lower"] == pytest.approx(content["certificate"]["gap"], abs=1e-6)
    assert (trained / "figures" / "rate_distortion.png").is_file()
    pyro_vae("diagnose", trained, *DIAGNOSE)
    assert not (trained / "figures" / "rate_distortion.png").exists()
    refused = pyro_vae("diagnose", trained, "--method", "importance", "--simulated", 9)
    assert refused[0] == 2 and "--simulated is an option of --method annealed" in refused[2]


def test_an_interrupted_diagnosis_goes_on_with_the_next_stage(
    pyro_vae: Run, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> dict[str, Any]:
        raise KeyboardInterrupt

    def finished(*_: object, **__: object) -> dict[str, Any]:
        raise AssertionError("a finished stage")

    options = ("diagnose", trained, *DIAGNOSE)
    assert pyro_vae(*options)[0] == 0
    whole, kept = read(trained / "diagnosis.json"), trained / "checkpoints" / "diagnosis"
    assert not kept.exists()
    with monkeypatch.context() as patched:
        Interruption(patched, 3)  # within the annealing
        assert pyro_vae(*options)[0] == 130
    for stage, before in (("nats", ["evidence"]), ("calibration", ["evidence", "nats"])):
        with monkeypatch.context() as patched:
            patched.setattr(Diagnosing, stage, stopped)
            for name in before[:-1]:
                patched.setattr(Diagnosing, name, finished)
            status, _, err = pyro_vae(*options)
        assert status == 130
        assert err.endswith(f"interrupted; the same command goes on from {kept}\n")
    status, _, err = pyro_vae(*options, "--seed", 1)
    assert (status, "with seed 0, got 1" in err) == (2, True)
    for name in ("evidence", "nats"):
        monkeypatch.setattr(Diagnosing, name, finished)
    status, _, err = pyro_vae(*options)
    assert (status, err) == (0, f"pyro-vae: note: going on from {kept}\n")
    assert {**read(trained / "diagnosis.json"), "seconds": 0} == {**whole, "seconds": 0}
    assert not kept.exists()


def test_diagnose_by_importance_sampling_beside_exact_draws(
    pyro_vae: Run, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnosing, "agreement", partial(pv.agreement, num_samples=40, warmup=40))
    options = ("--method", "importance", "--particles", 30, "--num_data", 20, "--num_steps", 2, "--nuts", 1)
    status, out, err = pyro_vae("diagnose", trained, *options, "--split", "train")
    assert (status, err) == (0, "")
    content = read(trained / "diagnosis.json")
    assert content["evidence"]["method"] == "importance"
    assert content["evidence"]["pareto_k"]["reliable_up_to"] == 0.7
    assert content["posteriors"]["num_data"] == 1
    assert "train_test_gap" not in content  # to itself
    assert re.search(r"^k-hat +\S", out, re.M)
    assert re.search(r"^posteriors +q\(z\|x\) (agrees|differs)", out, re.M)
    assert (trained / "figures" / "posteriors.png").is_file()
    pyro_vae("diagnose", trained, *DIAGNOSE)
    assert not (trained / "figures" / "posteriors.png").exists()


def test_without_simulated_data_the_rest_is_found(
    pyro_vae: Run, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise pv.InputError("expected a model that observes one site")

    monkeypatch.setattr(diagnosing, "calibrate_and_cover", refuse)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        status, out, err = pyro_vae("diagnose", trained, *DIAGNOSE)
    note = "pyro-vae: note: no calibration on simulated data: expected a model that observes one site\n"
    assert (status, err) == (0, note)
    assert "calibration         none: expected a model that observes one site\n" in out
    assert "\ncoverage " not in out
    for name in ("calibration", "coverage"):
        skipped = {"skipped": "expected a model that observes one site"}
        assert read(trained / "diagnosis.json")[name] == skipped
    assert not (trained / "figures" / "calibration.png").exists()


def test_what_has_no_evidence_is_not_diagnosed(pyro_vae: Run) -> None:
    pyro_vae("train", "--program", "Autoencoder", "--epochs", 1, *SMALL, "--out", "run")
    status, out, err = pyro_vae("diagnose", "run")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err == f"pyro-vae: error: {pv.Autoencoder.no_evidence}\n"
    assert pyro_vae("evaluate", "run")[0] == 0
    content = read(Path("run/evaluation.json"))
    assert (content["log_evidence"], content["pareto_k"]) == (None, None)


def test_overwriting_removes_what_was_found(pyro_vae: Run) -> None:
    pyro_vae("train", "--epochs", 1, *SMALL, "--out", "run")
    pyro_vae("evaluate", "run", "--particles", 30)
    pyro_vae("diagnose", "run", *DIAGNOSE)
    found = {path.name for path in Path("run").rglob("*")}
    names = {"evaluation.json", "diagnosis.json", "bound_curve.png", "pareto_k.png", "waterfall.png"}
    assert names <= found
    assert pyro_vae("train", "--epochs", 1, *SMALL, "--out", "run", "--overwrite", "true")[0] == 0
    assert not names & {path.name for path in Path("run").rglob("*")}


def test_annealing_finds_its_temperatures(pyro_vae: Run, trained: Path) -> None:
    options = ("--method", "annealed", "--until_gap", 0.5, "--start", "guide", "--chains", 8, "--num_data", 8)
    status, out, err = pyro_vae("evaluate", trained, *options, "--simulated", 4)
    assert (status, err) == (0, "")
    opened = load(trained)
    x, vae = opened.data().test.subset(8).batch(), opened.vae
    with own_randomness(0, vae.device):
        pv.elbo(vae.model, vae.guide, x, num_particles=10)
        result = pv.annealed_log_evidence(
            vae.model, vae.guide, x, num_chains=8, start="guide", until_gap=0.5, num_simulated=4
        )
    found, arrays = read(trained / "evaluation.json"), load_arrays(trained / "per_datum.npz", ())
    assert np.array_equal(arrays["log_evidence"], result.estimate.numpy())
    found, search = found["log_evidence"], result.search
    assert search is not None and search.reached and result.barrier is not None
    assert found["temperatures"] == result.num_temperatures == search.rounds[-1].num_temperatures
    assert (found["until_gap"], found["at_least"]["bound"]) == (0.5, result.certificate(0.05))
    assert found["search"]["rounds"][-1]["mean"] == pytest.approx(result.mean)
    assert found["search"]["gap"] == search.gap and found["search"]["barrier"] == result.barrier.mean()
    assert "certificate" not in found
    sizes = ", ".join(str(each.num_temperatures) for each in search.rounds)
    assert f"until gap      0.5 nats reached: {search.found}; rounds of {sizes} temperatures\n" in out
    content = pv.evaluate(
        vae, opened.data(), num_data=8, method="annealed", until_gap=0.5, start="guide", chains=8, simulated=4
    ).content
    assert content["log_evidence"]["estimate"] == found["estimate"]
    assert {**content["log_evidence"]["search"], "rounds": []} == {**found["search"], "rounds": []}


@pytest.mark.filterwarnings("always:the test data are not those")
def test_test_data_that_have_changed_are_said(pyro_vae: Run) -> None:
    """By whoever reads them again; training and validation data are those of before."""
    bits = np.random.RandomState(0).randint(0, 2, (120, 4, 4)).astype(np.uint8)

    def write(test: Any) -> None:
        np.savez("own.npz", train=bits[:80], valid=bits[80:100], test=test)

    write(bits[100:])
    data = ("--data", "ArrayFile", "--data.path", "own.npz")
    assert pyro_vae("train", *data, *SMALL, "--epochs", 1, "--batch_size", 40, "--out", "run")[0] == 0
    before = read(Path("run/summary.json"))["data_hash"]
    assert pyro_vae("evaluate", "run", "--particles", 20)[2] == ""
    write(1 - bits[100:])
    note = r"pyro-vae: note: the test data are not those of run/summary.json: their hash is \w+, not "
    for words in (("evaluate", "run", "--particles", 20), ("train", "--resume", "run", "--epochs", 2)):
        status, _, err = pyro_vae(*words)
        assert status == 0 and re.match(
            f"{note}{before}, so results of before and of now do not compare\n", err
        )
        assert err.count("\n") == 1
    assert pyro_vae("evaluate", "run", "--particles", 20)[2] == ""  # as the summary is of these now
