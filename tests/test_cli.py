"""The command line as a person uses it: what it writes, what it says, and how it refuses."""

import csv
import inspect
import json
import math
import re
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from pydoc import locate as import_object
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import pyro_vae as pv
from pyro_vae.cli.messages import subclasses
from pyro_vae.cli.parser import PARTS, SKIPPED
from tests.commands import SMALL, Run


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.fine_pictures
def test_train_leaves_a_run_folder(pyro_vae: Run) -> None:
    status, out, _ = pyro_vae("train", "--epochs", 3, *SMALL)
    run = Path("runs/Digits-1")
    assert status == 0
    found = sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file())
    pictures = ["figures/reconstructions.png", "figures/samples.png", "history.png"]
    expected = ["checkpoints/best.pt", "checkpoints/last.pt", "config.yaml", *pictures, "metrics.csv"]
    assert found == [*expected, "per_datum.npz", "summary.json"]
    rows = read_csv(run / "metrics.csv")
    assert [row["step"] for row in rows] == ["13", "26", "39"]
    summary = json.loads((run / "summary.json").read_text())
    assert summary["units"] == "nats per datum"
    assert summary["data_hash"] == "dbd4130f69d7adaa"
    assert summary["log_evidence"]["particles"] == 10
    assert summary["log_evidence"]["num_data"] == 300
    assert summary["training"]["parameters"] == 65 * 8 + 2 * 9 * 2 + 3 * 8 + 9 * 64
    for name, number in (("train", 1297), ("valid", 200), ("test", 300)):
        part = summary["elbo"][name]
        assert part["num_data"] == number
        assert part["elbo"] == pytest.approx(part["reconstruction"] - part["kl"], abs=1e-4)
        row = next(line for line in out.splitlines() if line.startswith(name))
        assert [float(word) for word in row.split()[1:4]] == pytest.approx(
            [part["elbo"], part["reconstruction"], part["kl"]], abs=6e-4
        )
    assert f"log p(x) {summary['log_evidence']['estimate']:16.3f} ± " in out
    assert out.splitlines()[-1].split() == ["folder", "runs/Digits-1"]
    assert pyro_vae("train", "--epochs", 1, *SMALL)[1].splitlines()[-1].endswith("runs/Digits-2")


def test_the_configuration_reproduces_the_run(pyro_vae: Run, trained: Path) -> None:
    status, _, _ = pyro_vae("train", "--config", trained / "config.yaml", "--out", "again")
    assert status == 0
    first, again = (torch.load(run / "checkpoints" / "last.pt") for run in (trained, Path("again")))
    assert all(torch.equal(first["model"][name], again["model"][name]) for name in first["model"])
    assert (trained / "config.yaml").read_text() == Path("again/config.yaml").read_text()


@pytest.mark.parametrize(
    ("part", "name"),
    [
        (part, each.__name__)
        for part, base, _, _ in PARTS
        for each in subclasses(base)
        if each.__module__.startswith("pyro_vae") and each.__name__ != "Trace_MMD"  # needs a kernel object
    ],
)
def test_a_chosen_class_has_its_own_defaults(pyro_vae: Run, part: str, name: str) -> None:
    """Not those of the default class, which has options of the same names."""
    chosen = next(each for _, base, _, _ in PARTS for each in subclasses(base) if each.__name__ == name)
    signature = [
        parameter
        for name, parameter in inspect.signature(chosen).parameters.items()
        if name not in SKIPPED.get(part, ()) and parameter.kind is not parameter.VAR_KEYWORD
    ]
    required = [p.name for p in signature if p.default is p.empty]
    options = [word for option in required for word in (f"--{part}.{option}", "x")]
    status, out, _ = pyro_vae("train", f"--{part}", name, *options, "--print_config")
    assert status == 0
    given = yaml.safe_load(out)[part].get("init_args", {})
    for parameter in signature:
        if parameter.default is not parameter.empty:
            default = list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
            value = given.get(parameter.name)
            if isinstance(default, type):
                value = import_object(value["class_path"] if isinstance(value, dict) else value)
            assert value == default


def test_a_chosen_optimiser_has_its_own_defaults(pyro_vae: Run) -> None:
    for options, name, decay, fused in [
        ((), "Adam", 0, True),
        (("--optimiser.lr", "0.1"), "Adam", 0, True),
        (("--optimiser", "AdamW"), "AdamW", 0.01, None),
    ]:
        given = yaml.safe_load(pyro_vae("train", *options, "--print_config")[1])["optimiser"]
        assert given["class_path"] == f"torch.optim.{name}"
        assert given["init_args"]["weight_decay"] == decay
        assert given["init_args"].get("fused") == fused


def test_a_file_and_options_together(pyro_vae: Run) -> None:
    Path("some.yaml").write_text("data:\n  class_path: ArrayFile\n  init_args:\n    path: x.npy\nseed: 7\n")
    for options, seed in ((("--config", "some.yaml"), 0), (("--config=some.yaml", "--data.seed", 3), 3)):
        given = yaml.safe_load(pyro_vae("train", *options, "--print_config")[1])
        assert given["data"]["init_args"]["form"] is None
        assert given["data"]["init_args"]["seed"] == seed
        assert given["seed"] == 7
        assert given["prior"]["class_path"] == "pyro_vae.StandardNormalPrior"


def test_a_class_has_its_own_defaults_wherever_it_is_named(pyro_vae: Run) -> None:
    Path("vamp.yaml").write_text("prior:\n  class_path: MixturePrior\n  init_args:\n    components: 20\n")
    Path("bare.yaml").write_text("data:\n  init_args:\n    seed: 9\nprior: null\n")
    cases: list[tuple[tuple[Any, ...], str, dict[str, Any]]] = [
        (("--data.seed", 3, "--data", "MNIST"), "data", {"form": None, "seed": 3}),
        (("--prior.components", 7, "--prior=VampPrior"), "prior", {"components": 7}),
        (("--config", "vamp.yaml", "--prior", "VampPrior"), "prior", {"components": 500}),
        (("--prior", "VampPrior", "--config", "vamp.yaml"), "prior", {"components": 500}),
        (("--config", "vamp.yaml", "--prior.components", 3), "prior", {"components": 3}),
        (("--config", "bare.yaml"), "data", {"form": None, "seed": 9}),
        (("--config", "bare.yaml"), "likelihood", {}),
    ]
    for options, part, expected in cases:
        status, out, err = pyro_vae("train", *options, "--print_config")
        assert status == 0, err
        given = yaml.safe_load(out)[part].get("init_args", {})
        assert {name: given[name] for name in expected} == expected


def test_print_config_is_the_configuration(pyro_vae: Run) -> None:
    status, out, _ = pyro_vae("train", "--prior", "MixturePrior", "--prior.components", 3, "--print_config")
    assert status == 0
    assert yaml.safe_load(out)["prior"]["init_args"]["components"] == 3


@pytest.mark.fine_pictures
def test_compare(pyro_vae: Run, trained: Path) -> None:
    pyro_vae("train", "--config", trained / "config.yaml", "--out", "same")
    pyro_vae("train", "--config", trained / "config.yaml", "--seed", 1, "--epochs", 20, "--out", "longer")
    options = ("--prior", "MixturePrior", "--prior.components", 3)
    pyro_vae("train", *SMALL, "--epochs", 3, *options, "--out", "mixture")
    pyro_vae("evaluate", trained, "--particles", 10)
    status, out, err = pyro_vae("compare", trained, "same", "longer", "mixture")
    assert (status, err) == (0, "")
    assert re.search(
        r"^same +\S+ +\S+ +\S+ ± \S+ +10 +\+0.000 \[\+0.000, \+0.000\]  within noise$", out, re.M
    )
    assert re.search(r"^longer .*\]  higher$", out, re.M)
    assert re.search(r"^longer +prior StandardNormalPrior, epochs 20, seed 1$", out, re.M)
    assert re.search(r"^mixture +prior MixturePrior, prior.components 3, ", out, re.M)
    assert "mean of the same 300 test data of Digits" in " ".join(out.split())
    assert out.splitlines()[-2:] == ["comparison.csv", "comparison.png"]
    rows = read_csv(Path("comparison.csv"))
    assert [row["verdict"] for row in rows[:3]] == ["reference", "within noise", "higher"]
    assert [row["prior.components"] for row in rows] == ["", "", "", "3"]
    summary = json.loads(Path("longer/summary.json").read_text())
    assert float(rows[2]["log_evidence"]) == pytest.approx(summary["log_evidence"]["estimate"])
    assert float(rows[2]["standard_error"]) == pytest.approx(summary["log_evidence"]["standard_error"])
    assert float(rows[2]["elbo"]) == pytest.approx(summary["elbo"]["test"]["elbo"])
    with Image.open("comparison.png") as picture:
        assert np.asarray(picture).std() > 10
    pyro_vae("train", "--config", trained / "config.yaml", "--seed", 1, "--out", "again")
    for form, start in (
        ("markdown", "| nats per datum | parameters | seeds |"),
        ("latex", r"\begin{tabular}"),
    ):
        status, out, err = pyro_vae(
            "compare", trained, "again", "mixture", "--format", form, "--out", "seeds"
        )
        assert status == 0 and out.startswith(start), err
    assert [row["seeds"] for row in read_csv(Path("seeds/comparison.csv"))] == ["2", "1"]


def test_compare_to_the_best_in_another_folder(pyro_vae: Run, trained: Path) -> None:
    pyro_vae("train", "--config", trained / "config.yaml", "--epochs", 20, "--out", "longer")
    pyro_vae("evaluate", trained, "--particles", 20)
    for said in (False, True):
        status, out, _ = pyro_vae("compare", trained, "longer", "--reference", "best", "--out", "some/where")
        assert status == 0
        assert ("replacing the earlier some/where/comparison.csv" in out) == said
    assert [row["verdict"] for row in read_csv(Path("some/where/comparison.csv"))] == ["lower", "reference"]
    assert "10 to 20: the fewer, the lower the estimate" in out
    assert Path("some/where/comparison.png").is_file()


def test_runs_on_other_data_are_not_compared(pyro_vae: Run, trained: Path) -> None:
    """Nor are those without numbers of each datum; the remedies work."""
    pyro_vae("train", "--config", trained / "config.yaml", "--data.seed", 3, "--out", "other")
    pyro_vae("train", "--config", trained / "config.yaml", "--num_data", 50, "--out", "fewer")
    pyro_vae("evaluate", trained, "--particles", 10)
    for run, text in (
        (
            "other",
            r"other was evaluated on other data than .*digits: expected protocol .*\(seed 0\), "
            r"got .*\(seed 3\): compare runs on one test set in one form",
        ),
        (
            "fewer",
            "expected num_data 300, got 50: use (pyro-vae) (evaluate fewer --split test --num_data 300)",
        ),
    ):
        status, out, err = pyro_vae("compare", trained, run)
        assert (status, out, err.count("\n")) == (2, "", 1)
        found = re.search(text, err)
        assert found, err
        assert not Path("comparison.csv").exists()
    assert pyro_vae(*found[2].split(), "--particles", 10)[0] == 0
    Path("fewer/per_datum.npz").unlink()
    _, _, err = pyro_vae("compare", trained, "fewer")
    assert err.endswith("found none: evaluate the run anew with pyro-vae evaluate fewer\n")
    assert pyro_vae("evaluate", "fewer", "--particles", 10)[0] == 0
    assert pyro_vae("compare", trained, "fewer")[0] == 0


def test_training_data_binarised_anew_are_other_data(pyro_vae: Run, trained: Path) -> None:
    """The hash is that of the grey levels, the bits are drawn by the seed of the evaluation."""
    pyro_vae("train", "--config", trained / "config.yaml", "--out", "same")
    options = ("--particles", 5, "--num_data", 50, "--split", "train")
    pyro_vae("evaluate", trained, *options)
    pyro_vae("evaluate", "same", *options, "--seed", 2)
    status, _, err = pyro_vae("compare", trained, "same")
    assert status == 2
    remedy = "pyro-vae evaluate same --split train --num_data 50 --seed 0"
    assert f"expected binarisation seed 0, got 2: use {remedy}" in err
    assert pyro_vae(*remedy.split()[1:], "--particles", 5)[0] == 0
    assert "+0.000 [+0.000, +0.000]  within noise" in pyro_vae("compare", trained, "same")[1]


@pytest.mark.fine_pictures
@pytest.mark.parametrize(
    ("verb", "name"),
    [
        ("sample", "samples"),
        ("reconstruct", "reconstructions"),
        ("traverse", "plane"),
        ("scatter", "scatter"),
    ],
)
def test_pictures(pyro_vae: Run, trained: Path, verb: str, name: str) -> None:
    status, out, _ = pyro_vae(verb, trained, "--num", 4)
    assert status == 0
    assert Path(out.strip()) == trained / "figures" / f"{name}.png"
    with Image.open(out.strip()) as picture:
        assert np.asarray(picture).std() > 10


@pytest.mark.parametrize(
    "options",
    [
        ("--prior", "MixturePrior", "--prior.components", "3"),
        ("--prior", "VampPrior", "--prior.components", "20"),
        ("--network", "Convolutional", "--network.channels", "[3]", "--network.hidden_dim", "5"),
        ("--likelihood", "NormalLikelihood", "--likelihood.scale", "per_pixel"),
        ("--likelihood", "NormalLikelihood", "--likelihood.scale", "0.5", "--data.form", "Levels"),
        (
            *("--likelihood", "ContinuousBernoulliLikelihood"),
            *("--network", "Convolutional", "--network.channels", "[3]"),
        ),
        ("--likelihood", "LaplaceLikelihood", "--data.form", "Standardised"),
        ("--likelihood", "CategoricalLikelihood"),
        ("--likelihood", "DiscretizedLogisticLikelihood"),
        (
            *("--likelihood", "DiscretizedLogisticMixtureLikelihood", "--likelihood.components", "3"),
            *("--network", "Convolutional", "--network.channels", "[3]"),
        ),
        ("--likelihood", "PoissonLikelihood"),
        (
            "--likelihood",
            "NegativeBinomialLikelihood",
            "--likelihood.unit",
            "0.0625",
            "--data.form",
            "Levels",
        ),
        ("--data.form", "Static", "--data.seed", "3"),
        ("--optimiser", "RMSprop", "--optimiser.lr", "0.01"),
        ("--schedule", "CosineAnnealingLR", "--schedule.T_max", "1"),
        ("--network.activation", "ReLU", "--clip_norm", "1.0", "--patience", "2", "--num_particles", "2"),
    ],
    ids=lambda options: " ".join(options[:2]),
)
def test_every_part_is_one_option(pyro_vae: Run, options: tuple[str, ...]) -> None:
    status, _, err = pyro_vae("train", *SMALL[2:], "--epochs", 1, "--out", "run", *options)
    assert (status, err.count("error")) == (0, 0)
    assert pyro_vae("evaluate", "run", "--particles", 5, "--num_data", 10)[0] == 0
    assert pyro_vae("traverse", "run", "--num", 2)[0] == 0


@pytest.mark.parametrize(
    ("likelihood", "form", "units", "bin_width"),
    [
        ("BernoulliLikelihood", "Dynamic", "nats per datum", None),
        ("CategoricalLikelihood", "Levels", "nats per datum", 1),
        (
            "NormalLikelihood",
            "Levels",
            "nats per datum, of a density at discrete values, where it can grow without limit",
            None,
        ),
        (
            "ContinuousBernoulliLikelihood",
            "Dequantised",
            "nats per datum, of a density of uniformly dequantised data",
            1 / 17,
        ),
    ],
)
def test_a_report_says_what_its_nats_are_of_and_gives_bits_where_there_are_levels(
    pyro_vae: Run, likelihood: str, form: str, units: str, bin_width: float | None
) -> None:
    options = ("--likelihood", likelihood, "--data.form", form, "--epochs", 1, *SMALL)
    status, out, _ = pyro_vae("train", *options, "--out", "run")
    assert status == 0
    summary = json.loads(Path("run/summary.json").read_text())
    assert summary["units"] == units
    assert (f"units          {units}\n" in out) == ("density" in units)
    found = summary["log_evidence"]
    if bin_width is None:
        assert "bits_per_dim" not in found and "bits" not in out
    else:
        bits = -(found["estimate"] + 64 * math.log(bin_width)) / 64 / math.log(2)
        assert found["bits_per_dim"] == pytest.approx(bits)
        assert 1 < bits < math.log2(17) + 0.5
        bound = "   (an upper bound, by dequantisation)" if form == "Dequantised" else ""
        assert f"bits per dim   {bits:10.4f}{bound}\n" in out


OWN = """
import pyro.distributions as dist
import torch
import pyro_vae as pv

class WidePrior(pv.Prior):
    '''N(0, width²).

    Args:
        width: Standard deviation.
    '''
    def __init__(self, latent_dim: int, *, width: float = 2.0) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.register_buffer("scale", torch.full((latent_dim,), width))

    def forward(self):
        return dist.Normal(torch.zeros_like(self.scale), self.scale).to_event(1)
"""


def test_a_users_own_class_in_the_current_folder(pyro_vae: Run) -> None:
    Path("own_part.py").write_text(OWN)
    options = ("--prior", "own_part.WidePrior", "--prior.width", 3, "--epochs", 1, *SMALL)
    assert pyro_vae("train", *options, "--out", "run")[0] == 0
    assert yaml.safe_load(Path("run/config.yaml").read_text())["prior"]["class_path"] == "own_part.WidePrior"
    assert torch.load("run/checkpoints/last.pt")["model"]["prior.scale"].tolist() == [3, 3]
    assert pyro_vae("sample", "run")[0] == 0


def test_data_without_a_test_split_are_reported_on_what_there_is(pyro_vae: Run) -> None:
    np.savez("own.npz", train=BITS[:100], valid=BITS[100:])
    options = ("--data", "ArrayFile", "--data.path", "own.npz", "--epochs", 1, *SMALL)
    status, out, _ = pyro_vae("train", *options, "--out", "run")
    assert status == 0
    assert "on 100 valid data" in out
    status, _, err = pyro_vae("evaluate", "run")
    assert (status, err.count("\n")) == (2, 1)
    assert "expected test data, got none: choose another with --split" in err


def test_help_reads_well(pyro_vae: Run) -> None:
    status, out, _ = pyro_vae("--help")
    assert status == 0
    assert all(verb in out for verb in ("train", "evaluate", "sample", "reconstruct", "traverse", "compare"))
    status, out, _ = pyro_vae("train", "--help")
    assert status == 0
    for words in (
        "--prior",
        "pyro_vae.VampPrior",
        "--epochs",
        "Passes over the training data",
        "--resume RUN",
    ):
        assert words in out.replace("--resume runs/mnist", "--resume RUN")
    status, out, _ = pyro_vae("train", "--prior.help", "VampPrior")
    assert status == 0
    assert "--prior.components" in out and "number of pseudo-inputs" in out
    assert "examples" not in out and "latent_dim" not in out
    assert out.startswith("usage: pyro-vae [")  # also where the process is another program


@pytest.mark.parametrize(
    ("option", "name", "words"),
    [
        ("--data.help", "ArrayFile", ("`train_label`", "`x_train`, `y_train`", "mapped from the file")),
        ("--prior.help", "VampPrior", ("Tomczak",)),
        ("--track.help", "WandbTracker", ("WANDB_MODE=offline", "--track.project")),
    ],
)
def test_the_help_of_a_class_is_its_whole_docstring(
    pyro_vae: Run, option: str, name: str, words: tuple[str, ...]
) -> None:
    status, out, _ = pyro_vae("train", option, name)
    assert status == 0
    assert all(word in out for word in words)
    text = inspect.cleandoc(getattr(pv, name).__doc__).partition("\n\nArgs:")[0]
    assert text in out
    assert out.count(text.splitlines()[0].rstrip(".:")) == 1


def array(path: str, values: Any) -> tuple[str, ...]:
    np.save(path, values)
    return ("--data", "ArrayFile", "--data.path", path)


def dated(path: str) -> tuple[str, ...]:
    """A file of options in which YAML reads a date."""
    Path(path).write_text("seed: 2020-01-01\n")
    return ("train", "--config", path)


def own(text: str) -> tuple[str, ...]:
    """The prior WidePrior of own_broken.py in the current folder, new to Python."""
    sys.modules.pop("own_broken", None)
    Path("own_broken.py").write_text(text)
    return ("train", "--prior", "own_broken.WidePrior")


BITS = np.random.RandomState(0).randint(0, 2, (200, 1, 4, 4)).astype(np.uint8)

REFUSED: dict[str, tuple[Callable[[], tuple[Any, ...]], str]] = {
    "unknown command": (lambda: ("trian",), r"invalid choice: 'trian' .*\(did you mean train"),
    "no command": (lambda: (), "train,evaluate,diagnose,score,encode"),
    "unknown option": (lambda: ("train", "--epoch", 3), r"--epoch 3 \(did you mean --epochs"),
    "unknown component": (
        lambda: ("train", "--prior", "VampPrio"),
        r"--prior: expected a class or its import path, got VampPrio \(did you mean VampPrior or",
    ),
    "component of another kind": (
        lambda: ("train", "--prior", "torch.nn.Linear"),
        "not .* a subclass of Prior",
    ),
    "module that is not there": (lambda: ("train", "--prior", "nowhere.Prior"), "No module named 'nowhere'"),
    "unknown option of a component": (
        lambda: ("train", "--prior", "MixturePrior", "--prior.component", 3),
        r"MixturePrior: there is no option component \(did you mean components\?\)",
    ),
    "part without a value": (lambda: ("train", "--prior"), "--prior expects a value, got none"),
    "file without a name": (lambda: ("train", "--seed", 1, "--config"), "--config expects a value, got none"),
    "date for a number": (lambda: dated("dated.yaml"), "--seed: expected int, got 2020-01-01"),
    "option of no component": (
        lambda: ("train", "--prior.components", 3),
        "StandardNormalPrior: there is no option components; name the class",
    ),
    "option that is filled in": (
        lambda: ("train", "--prior", "MixturePrior", "--prior.latent_dim", 3),
        "no option latent_dim, since it is filled in",
    ),
    "option that is missing": (
        lambda: ("train", "--schedule", "StepLR"),
        r"--schedule: StepLR lacks an option \(see .help\): step_size",
    ),
    "no list": (
        lambda: ("train", "--network.hidden_dims", 5),
        r"--network.hidden_dims: expected a list as \[1,2\], got 5",
    ),
    "own class that does not parse": (
        lambda: own("def broken(:"),
        r"own_broken.py, line 1: invalid syntax",
    ),
    "own class of the wrong shape": (
        lambda: own(OWN.replace(".to_event(1)", "")),
        "the model cannot be evaluated on these data: Shape mismatch inside plate",
    ),
    "own class that forgets an attribute": (
        lambda: own(OWN.replace("self.latent_dim =", "other =")),
        "the prior WidePrior has no attribute latent_dim: set self.latent_dim",
    ),
    "bad seed": (lambda: ("train", "--seed", 2**40), "seed expects a whole number from 0 to"),
    "bad number of particles": (
        lambda: ("train", "--particles", 0),
        "particles expects a positive whole number",
    ),
    "bad number of test data": (
        lambda: ("train", "--num_data", 0),
        "num_data expects a positive whole number",
    ),
    "wrong type": (lambda: ("train", "--epochs", "many"), "--epochs: expected int, got many"),
    "wrong choice": (
        lambda: ("train", "--data.form", "soft"),
        "--data.form: .*soft: choose among AsGiven, .*Dynamic.*, or give an import path",
    ),
    "bad number": (lambda: ("train", "--epochs", 0), "epochs expects a positive whole number, got 0"),
    "bad weight": (
        lambda: ("train", "--kl_weight", "much"),
        "--kl_weight: expected float or a function as my_module.weight, got much",
    ),
    "cycle without a warm-up": (
        lambda: ("train", "--kl_cycle", 4),
        "kl_cycle begins the warm-up anew every 4 epochs, got no kl_warm_up: give it, as half of the cycle",
    ),
    "schedule that is too short": (
        lambda: ("train", "--schedule", "OneCycleLR", "--schedule.max_lr", 0.1, "--schedule.total_steps", 5),
        "OneCycleLR ends after 5 of the 1300 steps of this training: give total_steps=1300, or leave it out",
    ),
    "bad scale": (
        lambda: ("train", "--likelihood", "NormalLikelihood", "--likelihood.scale", -1),
        "scale expects a number from 1e-6, 'shared' or 'per_pixel', got -1",
    ),
    "configuration that is not there": (
        lambda: ("train", "--config", "no.yaml"),
        "--config expects a YAML file, cannot read 'no.yaml'",
    ),
    "data folder that is not there": (
        lambda: ("train", "--data", "MNIST", "--data.root", "nowhere"),
        "expected the file nowhere/MNIST/raw/train-images-idx3-ubyte, found none: .*--data.download true",
    ),
    "data file that is not there": (
        lambda: ("train", "--data", "ArrayFile", "--data.path", "x.npy"),
        "x.npy",
    ),
    "NaN in the data": (
        lambda: ("train", *array("nan.npy", np.where(BITS > 0, np.nan, 0))),
        r"NaN",
    ),
    "grey pixels under Bernoulli": (
        lambda: ("train", "--data.form", "Levels"),
        r"got 0\.\d+ among values from 0 to 1: binarise the data .*, or use .* ContinuousBernoulliLikelihood",
    ),
    "bits under the continuous Bernoulli": (
        lambda: ("train", "--likelihood", "ContinuousBernoulliLikelihood", "--data.form", "Dynamic"),
        "expects grey levels between 0 and 1, got only 0 and 1: use the form Dequantised .*, or "
        "use BernoulliLikelihood",
    ),
    "real numbers under the continuous Bernoulli": (
        lambda: ("train", *array("real.npy", BITS - 0.5), "--likelihood", "ContinuousBernoulliLikelihood"),
        r"expects grey levels in \[0, 1\], got -0.5 among .*: scale the data .*, or use NormalLikelihood",
    ),
    "real numbers under a likelihood of levels": (
        lambda: ("train", *array("real.npy", BITS / 2), "--likelihood", "CategoricalLikelihood"),
        "expected whole numbers from 0 to a whole maximum for the form Levels, got float32 from 0 to 0.5 "
        ".*, or use the form AsGiven, or another likelihood than CategoricalLikelihood",
    ),
    "real numbers as they are under a likelihood of levels": (
        lambda: (
            *("train", *array("real.npy", BITS / 2), "--likelihood", "CategoricalLikelihood"),
            *("--data.form", "AsGiven"),
        ),
        "a likelihood of levels needs data with levels, got ArrayFile as given.*: put whole numbers into the",
    ),
    "dequantised data under a likelihood of levels": (
        lambda: (
            *("train", "--likelihood", "DiscretizedLogisticLikelihood"),
            *("--data.form", "Dequantised"),
        ),
        "needs data with levels, got Digits uniform dequantisation of 17 levels, .*: put whole numbers into",
    ),
    "dequantised data under a likelihood of counts": (
        lambda: ("train", "--likelihood", "PoissonLikelihood", "--data.form", "Dequantised"),
        r"expects counts in units of 1, from 0, got 0\.\d+ .*: put counts into the form Counts .* Normal",
    ),
    "grey levels under a likelihood of counts": (
        lambda: ("train", "--likelihood", "NegativeBinomialLikelihood", "--data.form", "Levels"),
        r"expects counts in units of 1, from 0, got 0\.\d+ .*: put counts into the form Counts .* Normal",
    ),
    "real numbers to dequantise": (
        lambda: ("train", *array("real.npy", BITS / 2), "--data.form", "Dequantised"),
        "expected whole numbers from 0 to a whole maximum for the form Dequantised, got float32 from 0 to 0",
    ),
    "levels as an option": (
        lambda: ("train", "--likelihood", "CategoricalLikelihood", "--likelihood.levels", 17),
        "no option levels, since it is filled in",
    ),
    "bad unit": (
        lambda: ("train", "--likelihood", "PoissonLikelihood", "--likelihood.unit", 0),
        "unit expects a positive number, got 0",
    ),
    "no data": (lambda: ("train", *array("none.npy", BITS[:0])), r"expected .*, got"),
    "fewer data than a batch": (
        lambda: ("train", *array("few.npy", BITS[:40])),
        "expected at least one full batch of 100, got 32 data: reduce the batch size",
    ),
    "vectors in a convolutional network": (
        lambda: ("train", *array("flat.npy", BITS.reshape(200, 16)), "--network", "Convolutional"),
        r"expects pictures of shape \(C, H, W\), got data of shape \(16,\)",
    ),
    "output that cannot be written": (
        lambda: ("train", "--out", str(Path(__file__) / "run")),
        "cannot write the output folder",
    ),
    "run that is not one": (
        lambda: ("evaluate", "."),
        r"expected the folder of a run \(with config.yaml\), got",
    ),
    "run that is not there": (lambda: ("sample", "nowhere"), "expected the folder of a run"),
    "comparison of nothing": (
        lambda: ("compare",),
        "the following arguments are required: RUN RUN, the folders of runs",
    ),
    "comparison of one": (
        lambda: ("compare", "runs/a"),
        "expected the folders of at least two runs, got runs/a: name another to compare with",
    ),
    "comparison of a run with itself": (
        lambda: ("compare", "runs/a", "runs/../runs/a"),
        "expected different runs, got runs/../runs/a twice: name each once",
    ),
    "comparison with what is no run": (lambda: ("compare", ".", "nowhere"), "expected the folder of a run"),
    "comparison with another reference": (
        lambda: ("compare", "a", "b", "--reference", "bets"),
        "--reference: expected one of 'first', 'best', got bets",
    ),
    "unknown option of the comparison": (
        lambda: ("compare", "a", "b", "--referense", "best"),
        r"--referense best \(did you mean --reference\?\)",
    ),
    "resume of no run": (lambda: ("train", "--resume", "nowhere"), "expected the folder of a run"),
    "device that is not there": (
        lambda: ("train", "--device", "cuda:99"),
        "expected a device such as auto, cpu",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_one_clear_line_and_status_2(pyro_vae: Run, case: str) -> None:
    make, text = REFUSED[case]
    status, out, err = pyro_vae(*make())
    assert (status, out) == (2, "")
    assert err.startswith("pyro-vae: error: ")
    assert err.count("\n") == 1 and err.endswith("\n")
    assert re.search(text, err), err
    assert not Path("runs").exists()


def test_bad_input_for_a_trained_run(pyro_vae: Run, trained: Path) -> None:
    config = (trained / "config.yaml").read_text()
    for options, text in [
        (("train", "--out", trained), "exists: choose another with --out, or give --overwrite true"),
        (("train", "--resume", trained, "--seed", 9), "got --seed too: only --epochs, --steps, --patience, "),
        (("evaluate", trained, "--particles", 0), "particles expects a positive whole number, got 0"),
        (("evaluate", trained, "--num_data", 0), "got 0"),
        (
            ("evaluate", trained, "--split", "tests"),
            "--split: expected one of 'train', 'valid', 'test', 'all', null, got tests",
        ),
        (("sample", trained, "--num", 0), "num expects a positive whole number, got 0"),
        (
            ("traverse", trained, "--axes", "[0,2]"),
            r"axes expects two different numbers from 0 to 1, got \[0, 2\]",
        ),
        (("traverse", trained, "--axes", "[1,1]"), "axes expects two different numbers"),
    ]:
        status, _, err = pyro_vae(*options)
        assert (status, err.count("\n")) == (2, 1), err
        assert re.search(text, err), err
    assert (trained / "config.yaml").read_text() == config


def test_other_data_under_the_same_name_are_refused(pyro_vae: Run) -> None:
    options = array("own.npy", BITS)
    pyro_vae("train", *options, "--batch_size", 50, "--epochs", 1, *SMALL, "--out", "run")
    np.save("own.npy", BITS[::-1])
    for command in (("evaluate", "run"), ("train", "--resume", "run")):
        status, _, err = pyro_vae(*command)
        assert (status, err.count("\n")) == (2, 1)
        assert re.search("made with training data [0-9a-f]{16}, got [0-9a-f]{16}", err)


def test_a_run_whose_name_has_an_equals_sign_is_resumed(pyro_vae: Run) -> None:
    pyro_vae("train", "--epochs", 1, *SMALL, "--out", "runs/lr=0.1")
    for option in (("--resume", "runs/lr=0.1"), ("--resume=runs/lr=0.1",)):
        assert pyro_vae("train", *option)[0] == 0


def test_a_configuration_without_a_part_has_its_default(pyro_vae: Run) -> None:
    """As one that was written before there was this part."""
    pyro_vae("train", "--epochs", 1, *SMALL, "--out", "run")
    before = json.loads(Path("run/summary.json").read_text())
    config = yaml.safe_load(Path("run/config.yaml").read_text())
    for part in ("program", "objective", "likelihood", "upper_network"):
        config.pop(part, None)
    Path("run/config.yaml").write_text(yaml.safe_dump(config))
    assert pyro_vae("evaluate", "run", "--particles", 10)[0] == 0
    assert pyro_vae("train", "--resume", "run")[0] == 0
    assert json.loads(Path("run/summary.json").read_text())["elbo"] == before["elbo"]


def test_null_in_a_file_of_options_is_kept(pyro_vae: Run) -> None:
    Path("all.yaml").write_text("num_data: null\npatience: null\nprior: null\n")
    status, out, _ = pyro_vae("train", "--config", "all.yaml", "--print_config")
    given = yaml.safe_load(out)
    assert status == 0
    assert given["num_data"] is None
    assert given["prior"]["class_path"].endswith("StandardNormalPrior")


def test_where_the_mean_field_objective_samples_is_a_note(pyro_vae: Run) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        options = ("--objective", "TraceMeanField_ELBO", "--prior", "MixturePrior", "--epochs", 1)
        status, _, err = pyro_vae("train", *options, *SMALL, "--out", "run")
    assert status == 0
    assert "pyro-vae: note: TraceMeanField_ELBO: no analytic KL from independent Normal to Diag" in err
    assert "UserWarning" not in err


def test_folders_with_spaces_are_quoted_in_commands(pyro_vae: Run) -> None:
    pyro_vae("train", "--epochs", 1, *SMALL, "--out", "a run")
    pyro_vae("train", "--epochs", 1, *SMALL, "--seed", 1, "--num_data", 40, "--out", "b run")
    status, _, err = pyro_vae("compare", "a run", "b run")
    assert status == 2
    assert "pyro-vae evaluate 'b run' --split test --num_data 300" in err
    Path("b run/summary.json").write_text("{}")
    status, _, err = pyro_vae("compare", "a run", "b run")
    assert status == 2
    assert "write it anew with pyro-vae train --resume 'b run', and then pyro-vae evaluate 'b run'" in err
    Path("file").write_text("")
    status, out, err = pyro_vae("compare", "a run", "b run", "--out", "file")
    assert (status, out) == (2, "")


def test_a_run_is_used_from_another_folder(pyro_vae: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pyro_vae("train", *array("own.npy", BITS), "--batch_size", 50, "--epochs", 1, *SMALL, "--out", "a/run")
    monkeypatch.chdir("a")
    assert pyro_vae("evaluate", "run", "--particles", 5)[0] == 0


def test_a_missing_best_checkpoint_is_not_replaced_by_the_last(pyro_vae: Run) -> None:
    pyro_vae("train", "--epochs", 1, *SMALL, "--out", "run")
    Path("run/checkpoints/best.pt").unlink()
    status, _, err = pyro_vae("evaluate", "run")
    assert (status, err.count("\n")) == (2, 1)
    assert "expected a checkpoint at run/checkpoints/best.pt, found none" in err
    assert pyro_vae("train", "--resume", "run")[0] == 0
    assert pyro_vae("evaluate", "run", "--particles", 5)[0] == 0


def test_test_data_of_elbo_and_log_evidence_are_the_same(pyro_vae: Run) -> None:
    pyro_vae("train", "--epochs", 1, *SMALL, "--num_data", 40, "--out", "run")
    summary = json.loads(Path("run/summary.json").read_text())
    assert summary["elbo"]["test"]["num_data"] == summary["log_evidence"]["num_data"] == 40
    pyro_vae("evaluate", "run", "--particles", 10, "--num_data", 40)
    evaluation = json.loads(Path("run/evaluation.json").read_text())
    assert evaluation["data_hash"] == summary["data_hash"]
    assert evaluation["elbo"]["test"] == summary["elbo"]["test"]


def test_overwrite_replaces_a_run_only_when_the_new_one_can_start(pyro_vae: Run) -> None:
    pyro_vae("train", "--epochs", 2, *SMALL, "--out", "run")
    before = Path("run/summary.json").read_text()
    assert pyro_vae("train", "--data.form", "Levels", "--out", "run", "--overwrite", "true")[0] == 2
    assert pyro_vae("train", "--batch_size", "9999", "--out", "run", "--overwrite", "true")[0] == 2
    assert Path("run/summary.json").read_text() == before
    assert pyro_vae("train", "--epochs", 1, *SMALL, "--out", "run", "--overwrite", "true")[0] == 0
    assert len(read_csv(Path("run/metrics.csv"))) == 1


def test_damaged_checkpoints_are_named(pyro_vae: Run) -> None:
    pyro_vae("train", "--epochs", 1, *SMALL, "--out", "run")
    best = Path("run/checkpoints/best.pt")
    content = best.read_bytes()
    best.write_bytes(content[:2000])
    status, _, err = pyro_vae("evaluate", "run")
    assert status == 2
    assert "the checkpoint run/checkpoints/best.pt is truncated or corrupt" in err
    best.write_bytes(content)
    config = Path("run/config.yaml")
    config.write_text(config.read_text().replace("latent_dim: 2", "latent_dim: 3"))
    status, _, err = pyro_vae("evaluate", "run")
    assert status == 2
    expected = "best.pt was made with --latent_dim 2, and run/config.yaml says 3: put it back, or train anew"
    assert expected in err


# a process started in the background inherits that Ctrl-C is ignored
START = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from pyro_vae.cli import main
raise SystemExit(main())
"""


def interrupted(folder: Path, sent: signal.Signals, *options: object) -> tuple[int, str]:
    """Start a long run, send it the signal after its third epoch; its status and standard error."""
    arguments = [sys.executable, "-c", START, "train", *map(str, options), "--out", str(folder)]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
        try:
            deadline = time.monotonic() + 600  # of a machine that is busy
            while process.poll() is None and time.monotonic() < deadline:
                if (folder / "metrics.csv").exists() and len(read_csv(folder / "metrics.csv")) >= 3:
                    process.send_signal(sent)
                    break
                time.sleep(0.01)
            _, err = process.communicate(timeout=600)
        finally:
            process.kill()
    return process.returncode, err


def test_a_killed_run_resumes_to_the_same_bits(tmp_path: Path, pyro_vae: Run) -> None:
    options = ("--epochs", 40, "--patience", 30, *SMALL)
    status, _ = interrupted(tmp_path / "killed", signal.SIGKILL, *options)
    assert status == -signal.SIGKILL
    epochs = len(torch.load(tmp_path / "killed/checkpoints/last.pt")["epochs"])
    assert 2 <= epochs < 40
    assert pyro_vae("train", *options, "--out", "whole")[0] == 0
    status, _, err = pyro_vae("train", "--resume", "killed")
    assert status == 0, err
    for name in ("last.pt", "best.pt"):
        whole, killed = (
            torch.load(tmp_path / run / "checkpoints" / name)["model"] for run in ("whole", "killed")
        )
        assert all(torch.equal(whole[key], killed[key]) for key in whole)
    rows = [
        [{**row, "seconds": ""} for row in read_csv(tmp_path / run / "metrics.csv")]
        for run in ("whole", "killed")
    ]
    assert len(rows[0]) == 40
    assert rows[0] == rows[1]
    summaries = [json.loads((tmp_path / run / "summary.json").read_text()) for run in ("whole", "killed")]
    assert summaries[0]["log_evidence"] == summaries[1]["log_evidence"]
    assert summaries[0]["elbo"] == summaries[1]["elbo"]


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path: Path, pyro_vae: Run) -> None:
    status, err = interrupted(tmp_path / "run", signal.SIGINT, "--epochs", 3000, *SMALL)
    assert status == 130
    assert err.endswith(f"interrupted; go on with: pyro-vae train --resume {tmp_path}/run\n")
    assert "Traceback" not in err
    assert len(torch.load(tmp_path / "run/checkpoints/last.pt")["epochs"]) >= 2
