"""Runs are compared datum by datum, on the same data only."""

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats

import pyro_vae as pv
from pyro_vae.comparison import Reference, paired_difference
from pyro_vae.comparison.options import differing
from pyro_vae.comparison.seeds import Spread, difference_over_seeds
from pyro_vae.storage.identity import identity, options_in
from pyro_vae.storage.runs import Run

Make = Callable[..., Path]
RANDOM = np.random.RandomState(0)
#: log p(x) of 200 data, some of them harder than others.
VALUES = RANDOM.normal(-100, 10, 200)

DEFAULT = {
    "prior": {"class_path": "pyro_vae.StandardNormalPrior"},
    "network": {"class_path": "pyro_vae.MLP", "init_args": {"hidden_dims": [200, 200]}},
    "seed": 0,
    "particles": 10,
    "num_data": None,
}


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """A run folder in the current one, with given log p(x) of each datum."""
    monkeypatch.chdir(tmp_path)

    def made(
        name: str,
        values: Any,
        *,
        config: dict[str, Any] | None = None,
        per_datum: dict[str, Any] | None = None,
        file: str = "summary.json",
        **given: Any,
    ) -> Path:
        run = Run(name) if Path(name).exists() else Run.create(name, yaml.safe_dump(DEFAULT | (config or {})))
        values = np.asarray(values, dtype=np.float64)
        mean, particles = float(values.mean()), given.pop("particles", 10)
        of_log_evidence = ("method", "temperatures", "at_least", "certificate")
        how: dict[str, Any] = {name: given.pop(name) for name in of_log_evidence if name in given}
        content = {
            "data": "Digits",
            "split": "test",
            "log_evidence": {"estimate": mean, "particles": particles, **how},
            "units": "nats per datum",
            "protocol": "binarised at grey > 1/2",
            "data_hash": "0123456789abcdef",
            "seed": 0,
            "training": {"parameters": 1234},
            **identity(options_in(yaml.safe_load(run.config.read_text())), "f" * 16),
            **given,
        }
        labels = {
            name: content[name]
            for name in ("data_hash", "seed", "split", "format", "configuration", "parameters")
        }
        if "method" in how:
            labels["method"] = how["method"]
        arrays = {"elbo": values - 1, "log_evidence": values, "particles": particles, **labels}
        run.write_arrays("per_datum.npz", {**arrays, **(per_datum or {})})
        run.write_json(file, content)
        return run.folder

    return made


def test_the_difference_is_that_of_a_paired_t_test(make: Make) -> None:
    others = [VALUES + RANDOM.normal(shift, 1, 200) for shift in (0.5, -0.5, 0)]
    folders = [make(name, values) for name, values in zip("abcd", [VALUES, *others], strict=True)]
    found = pv.compare(folders)
    assert [run.verdict for run in found.runs] == ["reference", "higher", "lower", "within noise"]
    for run, values in zip(found.runs[1:], others, strict=True):
        interval = stats.ttest_rel(values, VALUES).confidence_interval(0.95)
        assert run.interval == pytest.approx((interval.low, interval.high), rel=1e-12)
        assert run.difference == pytest.approx((values - VALUES).mean(), rel=1e-12)
        assert run.log_evidence == pytest.approx(values.mean(), rel=1e-12)
        assert run.elbo == pytest.approx(values.mean() - 1, rel=1e-12)
        assert run.standard_error == pytest.approx(stats.sem(values), rel=1e-12)
        unpaired = stats.ttest_ind(values, VALUES).confidence_interval(0.95)
        assert np.diff(run.interval) < 0.1 * (unpaired.high - unpaired.low)
    assert (found.runs[0].difference, found.runs[0].interval) == (0, (0, 0))


def test_the_interval_covers_the_truth_in_95_of_100_repeats() -> None:
    """Data of varying hardness, a skewed difference of mean 0.3, and Monte Carlo noise in either run."""
    random, covered = np.random.RandomState(0), 0
    for _ in range(1000):
        hard = random.normal(-100, 10, 300)
        other = hard + random.gamma(2, 0.5, 300) - 0.7
        low, high = paired_difference(*(each + random.normal(0, 0.1, 300) for each in (other, hard)))[1]
        covered += low <= 0.3 <= high
    assert 925 <= covered <= 975


def seeds_of(make: Make, name: str, runs: np.ndarray, prior: str, first: int = 0) -> list[Path]:
    """Runs of one model, (S, B), from as many seeds."""
    config = {"prior": {"class_path": f"pyro_vae.{prior}"}}
    return [
        make(f"{name}{seed}", values, config={**config, "seed": first + seed})
        for seed, values in enumerate(runs)
    ]


def test_runs_that_differ_in_their_seed_only_are_one_row(make: Make) -> None:
    random = np.random.RandomState(1)
    one = VALUES + random.normal(0, 1, (3, 1)) + random.normal(0, 0.5, (3, 200))
    other = VALUES + 8 + random.normal(0, 1, (2, 1)) + random.normal(0, 0.5, (2, 200))
    folders = seeds_of(make, "a", one, "VampPrior") + seeds_of(make, "b", other, "FlowPrior", 7)
    found = pv.compare([folders[0], folders[3], *folders[1:3], folders[4]])
    a, b = found.runs
    assert (a.name, b.name, found.reference) == ("a0 +2", "b0 +1", a.name)
    assert a.members == ("a0", "a1", "a2") and a.of_members == pytest.approx(one.mean(1))
    assert a.options == {"prior": "VampPrior", "seed": "[0,1,2]"}
    assert (a.difference, a.interval, a.seeds_needed) == (0, (0, 0), None)
    assert a.log_evidence == pytest.approx(one.mean()) and a.seed_deviation == pytest.approx(
        one.mean(1).std(ddof=1)
    )
    terms = [
        ((other.mean(0) - one.mean(0)).var(ddof=1) / 200, 199),
        (one.mean(1).var(ddof=1) / 3, 2),
        (other.mean(1).var(ddof=1) / 2, 1),
    ]
    total = sum(term for term, _ in terms)
    degrees = total**2 / sum(term**2 / each for term, each in terms)
    half = stats.t.ppf(0.975, degrees) * np.sqrt(total)
    assert b.interval == pytest.approx((b.difference - half, b.difference + half))
    lines = repr(found).splitlines()
    assert "seeds" in lines[0] and re.search(r"b0 \+1 +1,234 +2 .* sd \d", lines[2])
    assert "over data and seeds" in repr(found) and "sd: standard deviation over the seeds" in repr(found)


def test_the_same_seed_twice_says_nothing_about_other_seeds(make: Make) -> None:
    found = pv.compare([make("a", VALUES), make("b", VALUES + 1), make("c", VALUES, config={"seed": 1})])
    assert [run.members for run in found.runs] == [("a", "c"), ("b",)]
    assert found.runs[1].seed_deviation is None


@pytest.mark.parametrize(("seeds", "others"), [(3, 3), (5, 2), (4, 1), (1, 6)])
def test_equal_models_are_hardly_ever_called_better_or_worse(seeds: int, others: int) -> None:
    """At most 5 % of 400 comparisons of equal models, up to chance, where a run is far from its like."""
    random, wrong, fooled = np.random.RandomState(0), 0, 0
    for _ in range(400):
        hard = random.normal(-100, 10, 300)
        runs = [
            hard + random.normal(0, 1.0, (number, 1)) + random.normal(0, 2.0, (number, 300))
            for number in (seeds, others)
        ]
        spread = Spread.of(runs)
        found = difference_over_seeds(runs[0], runs[1], spread)
        assert found.over_seeds
        wrong += not found.interval[0] <= 0 <= found.interval[1]
        low, high = paired_difference(runs[0][0], runs[1][0])[1]
        fooled += not low <= 0 <= high
    assert wrong <= 31 and fooled > 200  # 31 of 400 at 5 % have a chance of 1 %


def test_the_seeds_that_would_settle_a_difference_do() -> None:
    random = np.random.RandomState(0)
    hard = random.normal(-100, 10, 300)
    noise = random.normal(0, 0.05, (3, 300))
    one, other = (hard + shift + np.array([[-0.5], [0.0], [0.5]]) + noise for shift in (0.0, 0.4))
    found = difference_over_seeds(other, one)
    assert found.interval[0] < 0 < found.interval[1] and found.seeds_needed is not None
    needed = found.seeds_needed
    terms = 2 * 0.25 / needed
    half = stats.t.ppf(0.975, 2 * (needed - 1)) * np.sqrt(terms)
    assert half < 0.4 < stats.t.ppf(0.975, 2 * (needed - 2)) * np.sqrt(2 * 0.25 / (needed - 1)) + 0.02
    assert difference_over_seeds(hard + random.randn(3, 300), hard + 9 + random.randn(3, 1)).seeds_needed == 0
    assert difference_over_seeds(hard[None], hard[None]).seeds_needed is None


def test_tables_for_papers(make: Make) -> None:
    runs = VALUES + np.array([[0.0], [0.3]])
    folders = seeds_of(make, "a", runs, "VampPrior")
    found = pv.compare([*folders, make("b_1", VALUES + 9)])
    markdown = found.markdown().splitlines()
    assert len(markdown) == 4 and {line.count("|") for line in markdown} == {9}
    assert markdown[3].startswith("| b_1 | 1,234 | 1 |") and markdown[3].endswith("| better |")
    latex = found.latex()
    assert latex.count(r"\\") == 3 and r"b\_1 & 1,234" in latex and r"$\log p(x)$" in latex
    assert latex.startswith(r"\begin{tabular}{lrrrrrrl}") and "$-$10" in latex and "$+$8.850 [" in latex


def test_one_side_of_a_difference_is_certified_and_the_other_rests_on_estimates(make: Make) -> None:
    """Markov's bound of each run with a share of δ; of a model of several seeds the mean of theirs."""

    def sure(mean: float) -> dict[str, Any]:
        return {"at_least": {"bound": mean - np.log(20) / 200, "delta": 0.05}}

    heavy = {"pareto_k": {"above": 3, "unknown": 1}}
    mean = VALUES.mean()
    low = [
        make(f"a{seed}", VALUES + seed, config={"seed": seed}, **sure(mean + seed), **heavy)
        for seed in range(2)
    ]
    prior = {"prior": {"class_path": "pyro_vae.VampPrior"}}
    found = pv.compare([*low, make("b", VALUES + 9, config=prior, **sure(mean + 9))])
    short = np.log(3 / 0.05) / 200
    bounds = [run.belief.at_least for run in found.runs]
    assert bounds == pytest.approx([mean + 0.5 - short, mean + 9 - short])
    text = " ".join(repr(found).split())
    assert f"at least {bounds[0]:.3f} for a0 +1, {bounds[1]:.3f} for b, all with probability 0.95" in text
    assert "of a0 +1, k-hat is above 0.7 or unknown for 8 of 400 data, whose estimates are likely" in text
    assert "of b," not in text  # the higher one has its lower bound
    rows = list(csv.DictReader(io.StringIO(found.csv())))
    assert [float(row["at_least"]) for row in rows] == bounds
    gap = {"gap": 0.25, "standard_error": 0.125}
    chains: dict[str, Any] = {"method": "annealed", "temperatures": 5, "certificate": gap, **sure(mean)}
    annealed = pv.compare([make("c", VALUES, **chains), make("d", VALUES + 1, **chains)])
    assert "of c, bounds on simulated data are 0.250 ± 0.125 apart" in " ".join(repr(annealed).split())


def test_estimates_that_may_be_biased_are_not_certified(make: Make) -> None:
    """As those written before fresh draws followed a pilot."""
    found = pv.compare([make("a", VALUES), make("b", VALUES + 1)])
    assert [run.belief.at_least for run in found.runs] == [None, None]
    assert "certified" not in repr(found)


def test_equal_runs_are_within_noise(make: Make) -> None:
    references: tuple[Reference, ...] = ("first", "best")
    for reference in references:
        found = pv.compare([make("a", VALUES), make("b", VALUES)], reference=reference)
        assert found.reference == "a"
        run = found.runs[1]
        assert (run.difference, run.interval, run.verdict) == (0, (0, 0), "within noise")
        assert found.runs[0].options == found.runs[1].options == {}
        assert re.search("^b +equal options$", repr(found), re.M)


def test_a_constant_difference_is_certain(make: Make) -> None:
    values = np.arange(4.0)
    found = pv.compare([make("a", values), make("b", values + 0.5)])
    run = found.runs[1]
    assert (run.difference, run.interval, run.verdict) == (0.5, (0.5, 0.5), "higher")


def test_the_best_is_the_reference_and_the_order_is_kept(make: Make) -> None:
    folders = [make(name, VALUES + shift) for name, shift in (("b", 0), ("a", 2), ("c", 1))]
    found = pv.compare(folders, reference="best")
    assert [run.name for run in found.runs] == ["b", "a", "c"]
    assert found.reference == "a"
    assert [run.verdict for run in found.runs] == ["lower", "reference", "lower"]
    assert [run.difference for run in found.runs] == pytest.approx([-2, 0, -1])
    with pytest.raises(pv.InputError, match="reference expects first or best, got 'last'"):
        pv.compare(folders, reference="last")  # type: ignore[arg-type]


def test_the_latest_evaluation_counts(make: Make) -> None:
    make("a", VALUES)
    make("a", VALUES[:50] + 3, file="evaluation.json", data_hash="fedcba9876543210", particles=50)
    make("b", VALUES[:50], data_hash="fedcba9876543210", particles=50)
    found = pv.compare(["a", "b"])
    assert (found.num_data, found.data_hash) == (50, "fedcba9876543210")
    assert found.runs[1].difference == pytest.approx(-3)
    make("a", VALUES)  # trained on after that evaluation
    make("b", VALUES)
    assert pv.compare(["a", "b"]).num_data == 200


def test_other_particles_and_seeds_are_allowed_and_noted(make: Make) -> None:
    make("a", VALUES, particles=1000)
    assert "lower the estimate" not in repr(pv.compare(["a", make("b", VALUES, particles=1000, seed=7)]))
    found = pv.compare(["a", make("c", VALUES, particles=10, seed=7)])
    assert [run.particles for run in found.runs] == [1000, 10]
    note = "particles   10 to 1000: the fewer, the lower the estimate of log p(x) in expectation"
    assert note in repr(found)


def test_an_elbo_that_is_not_finite_costs_no_comparison(make: Make) -> None:
    elbo = np.where(VALUES > -100, VALUES, np.nan)
    found = pv.compare([make("a", VALUES), make("b", VALUES, per_datum={"elbo": elbo})])
    assert np.isnan(found.runs[1].elbo)
    assert re.search(r"^b +1,234 +nan ", repr(found), re.M)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"data": "MNIST"}, "on other data than a: expected data Digits, got MNIST: compare runs on one"),
        ({"split": "valid"}, "expected split test, got valid: use pyro-vae evaluate b --split test --num"),
        ({"units": "bits"}, "in other units than a: expected units nats per datum, got bits: compare runs"),
        (
            {"protocol": "static binarisation"},
            "b was evaluated on other data than a: expected protocol binarised at grey > 1/2, got static "
            "binarisation: compare runs on one test set in one form (--data.form), in the same units",
        ),
        (
            {"method": "annealed", "particles": 16, "temperatures": 200},
            "b was evaluated by another method than a: expected method importance, got annealed: use "
            "pyro-vae evaluate b --split test --num_data 200",
        ),
        ({"data_hash": "f"}, "expected data_hash 0123456789abcdef, got f: compare runs on one test set"),
    ],
    ids=lambda given: next(iter(given)) if isinstance(given, dict) else "",
)
def test_what_was_measured_otherwise_is_refused(make: Make, given: dict[str, Any], text: str) -> None:
    with pytest.raises(pv.InputError, match=re.escape(text)):
        pv.compare([make("a", VALUES), make("b", VALUES, **given)])


def test_annealed_results_are_compared_with_their_like(make: Make) -> None:
    annealed = {"method": "annealed", "particles": 16}
    folders = [
        make("a", VALUES, temperatures=1000, **annealed),
        make("b", VALUES + 1, temperatures=200, **annealed),
    ]
    found = pv.compare(folders)
    assert found.method == "annealed"
    assert [run.draws for run in found.runs] == ["16x1000", "16x200"]
    assert re.search(r"^b +1,234 +\S+ +\S+ ± \S+ +16x200 +\+1.000 ", repr(found), re.M)
    assert "annealed    16x200 to 16x1000: the fewer, the lower" in repr(found)
    rows = list(csv.DictReader(io.StringIO(found.csv())))
    assert [(row["particles"], row["temperatures"], row["method"]) for row in rows] == [
        ("16", "1000", "annealed"),
        ("16", "200", "annealed"),
    ]
    text = (
        "c was evaluated by another method than a: expected method annealed, got importance: use pyro-vae "
        "evaluate c --split test --num_data 200 --method annealed --chains 16 --temperatures 1000"
    )
    with pytest.raises(pv.InputError, match=re.escape(text)):
        pv.compare(["a", make("c", VALUES, method="importance")])


def test_results_without_a_method_are_of_importance_sampling(make: Make) -> None:
    """As those written before there was another; the numbers of each datum belong to one method."""
    found = pv.compare([make("a", VALUES), make("b", VALUES, method="importance")])
    assert found.method == "importance"
    assert found.runs[1].temperatures is None
    make("c", VALUES, file="evaluation.json")
    make("c", VALUES, method="annealed", temperatures=5)
    assert pv.compare(["c", make("d", VALUES, method="annealed", temperatures=5)]).method == "annealed"


def test_another_number_of_data_is_refused_with_the_way_to_the_same(make: Make) -> None:
    text = "expected num_data 200, got 50: use pyro-vae evaluate b --split test --num_data 200"
    with pytest.raises(pv.InputError, match=text):
        pv.compare([make("a", VALUES), make("b", VALUES[:50])])


def test_training_data_that_are_binarised_anew_need_the_same_seed(make: Make) -> None:
    given = {"split": "train", "protocol": "dynamic binarisation, evaluated on one fixed draw (seed 0)"}
    make("a", VALUES, **given, seed=3)
    assert pv.compare(["a", make("b", VALUES, **given, seed=3)]).split == "train"
    text = "expected binarisation seed 3, got 4: use .* --split train --num_data 200 --seed 3"
    with pytest.raises(pv.InputError, match=text):
        pv.compare(["a", make("c", VALUES, **given, seed=4)])


@pytest.mark.parametrize(
    ("values", "given", "text"),
    [
        (
            VALUES,
            {"log_evidence": None, "no_log_evidence": "an Autoencoder has no p(x)"},
            "expected log p(x) in b/summary.json, got none: an Autoencoder has no p(x); leave it out",
        ),
        (
            [1.0, np.nan, -np.inf],
            {},
            "expected finite log p(x) in b, got 2 of 3 data where it is not: train the run anew",
        ),
        ([1.0], {}, "expected b evaluated on at least 2 data, got 1: an interval needs more"),
        (VALUES, {"training": {}}, "expected the results of a run in b, got some without 'parameters': wri"),
        (
            VALUES,
            {"per_datum": {"seed": 3}},
            "b/per_datum.npz belongs to another result than summary.json: evaluate the run anew with pyro-",
        ),
        (VALUES, {"per_datum": {"log_evidence": VALUES + 1e-6}}, "per_datum.npz belongs to another result"),
        (
            VALUES,
            {"per_datum": {"elbo": VALUES[:3]}},
            "expected one number for each datum in b/per_datum.npz",
        ),
    ],
    ids=["no density", "not finite", "one datum", "no parameters", "other result", "other mean", "shapes"],
)
def test_results_that_cannot_be_used_are_refused(
    make: Make, values: Any, given: dict[str, Any], text: str
) -> None:
    with pytest.raises(pv.InputError, match=re.escape(text)):
        pv.compare([make("a", VALUES), make("b", values, **given)])


@pytest.mark.parametrize(
    ("file", "content", "text"),
    [
        (
            "summary.json",
            None,
            "expected summary.json in b, found none: finish training with pyro-vae train ",
        ),
        ("summary.json", "{", "expected JSON in b/summary.json, cannot read it (Expecting property name"),
        ("summary.json", "[]", "expected the results of a run in b/summary.json, got []: write it anew"),
        ("evaluation.json", "x", "expected JSON in b/evaluation.json, cannot read it"),
        (
            "per_datum.npz",
            None,
            "expected per_datum.npz in b, found none: evaluate the run anew with pyro-vae",
        ),
        ("per_datum.npz", "x", "expected arrays in b/per_datum.npz, got a file that is truncated or corrupt"),
        ("config.yaml", None, "expected the folder of a run (with config.yaml), got b"),
        ("config.yaml", "a: [", "expected YAML in b/config.yaml, cannot read it (while parsing"),
        ("config.yaml", "a", "expected the options of a run in b/config.yaml, got 'a': train anew"),
    ],
)
def test_damaged_folders_are_refused_in_one_line(
    make: Make, file: str, content: str | None, text: str
) -> None:
    folders = [make("a", VALUES), make("b", VALUES)]
    if content is None:
        Path("b", file).unlink()
    else:
        Path("b", file).write_text(content)
    with pytest.raises(pv.InputError, match=re.escape(text)) as error:
        pv.compare(folders)
    assert "\n" not in str(error.value)


def test_fewer_than_two_runs_are_refused(make: Make) -> None:
    make("a", VALUES)
    for folders, got in (([], "none"), (["a"], "a"), ("a", "a")):
        with pytest.raises(pv.InputError, match=f"at least two runs, got {got}: name another"):
            pv.compare(folders)
    Path("link").symlink_to("a")
    for other in ("a/../a", Path("a").absolute(), "link"):
        with pytest.raises(pv.InputError, match=r"expected different runs, got .* twice: name each once"):
            pv.compare(["a", other])


def test_options_that_differ_are_named_as_on_the_command_line() -> None:
    vamp = {"prior": {"class_path": "pyro_vae.VampPrior", "init_args": {"components": 500}}}
    tanh = {"hidden_dims": [300], "activation": {"class_path": "torch.nn.Tanh"}}
    network = {"network": {"class_path": "pyro_vae.MLP", "init_args": tanh}}
    others = {"seed": 1, "fast": True, "schedule": {"class_path": "StepLR", "init_args": {"gamma": 1e-08}}}
    assert differing([DEFAULT, DEFAULT | vamp, DEFAULT | network | others | {"particles": 99}]) == [
        {
            "prior": "StandardNormalPrior",
            "network.hidden_dims": "[200,200]",
            "network.activation": "null",
            "seed": "0",
            "fast": "null",
            "schedule": "null",
        },
        {
            "prior": "VampPrior",
            "prior.components": "500",
            "network.hidden_dims": "[200,200]",
            "network.activation": "null",
            "seed": "0",
            "fast": "null",
            "schedule": "null",
        },
        {
            "prior": "StandardNormalPrior",
            "network.hidden_dims": "[300]",
            "network.activation": "Tanh",
            "seed": "1",
            "fast": "true",
            "schedule": "StepLR",
            "schedule.gamma": "1e-08",
        },
    ]


def test_classes_of_one_name_go_by_their_paths() -> None:
    configs = [{"prior": {"class_path": f"{module}.WidePrior"}} for module in ("mine", "yours")]
    assert differing(configs) == [{"prior": "mine.WidePrior"}, {"prior": "yours.WidePrior"}]


def test_the_table_is_aligned_and_readable(make: Make) -> None:
    names = ["runs/normal", "runs/a_folder_whose_name_says_all_that_was_tried_in_it", "runs/c"]
    many = {f"option_{i}": i for i in range(20)}
    make(names[0], VALUES)
    make(names[1], VALUES + RANDOM.normal(20, 10, 200), config=many)
    make(names[2], VALUES - 1, config={"epochs": 1}, training={"parameters": 12345678})
    lines = repr(pv.compare(names)).splitlines()
    assert all(len(line) <= 110 for line in lines)
    assert lines[2] == names[1]  # on its own line
    table = [lines[0], lines[1], lines[3], lines[4]]
    ends = [re.search(r"log p\(x\)|± \S+", line) for line in table]
    assert len({found.end() for found in ends if found}) == 1
    assert lines[4].startswith("runs/c ") and " 12,345,678 " in lines[4] and lines[4].endswith("  lower")
    assert sum("option_19 19" in line for line in lines) == 1
    assert any(line.startswith("protocol ") and line.endswith("hash 0123456789abcdef") for line in lines)


def test_csv_has_every_digit_and_says_what_was_measured(make: Make) -> None:
    config = {"prior": {"class_path": "pyro_vae.VampPrior", "init_args": {"bounds": [1, 2]}}}
    found = pv.compare([make("a", VALUES), make("b, too", VALUES + 0.1 + RANDOM.randn(200), config=config)])
    rows = list(csv.DictReader(io.StringIO(found.csv())))
    assert [row["run"] for row in rows] == ["a", "b, too"]
    assert [(row["prior"], row["prior.bounds"]) for row in rows] == [
        ("StandardNormalPrior", ""),
        ("VampPrior", "[1,2]"),
    ]
    run = found.runs[1]
    numbers = [float(rows[1][name]) for name in ("log_evidence", "difference", "lower", "upper")]
    assert numbers == [run.log_evidence, run.difference, *run.interval]
    assert {"reference": "a", "data_set": "Digits", "split": "test", "num_data": "200"}.items() <= rows[
        1
    ].items()
    assert json.dumps(rows[1]).count("0123456789abcdef") == 1
