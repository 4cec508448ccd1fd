"""What the experiments share: records, trained runs, grids, and the table of all."""

import json
import math
import re
from pathlib import Path

import pytest
import torch

import pyro_vae as pv
from experiments.__main__ import main
from experiments.command import options_of, run_script
from experiments.grid import grid_log_evidence
from experiments.listing import read_experiments, summary_table
from experiments.markdown import insert, markdown
from experiments.records import Records, config_hash
from experiments.training import trained
from tests.commands import Run
from tests.components import refused

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


@pytest.fixture
def listed(capsys: pytest.CaptureFixture[str]) -> Run:
    """`python -m experiments`: its status, and what it prints."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            run_script(lambda: main([str(each) for each in arguments]))
        printed = capsys.readouterr()
        return int(str(ended.value.code)), printed.out, printed.err

    return run


def linear_vae() -> tuple[pv.VAE, torch.distributions.Distribution]:
    """x = W z + b + 0.3 ε with z in the plane, and its p(x)."""
    decoder = pv.Network(torch.nn.Identity(), (2,), (2,))
    likelihood = pv.NormalLikelihood(decoder, (4,), scale=0.3)
    encoder = pv.Network(torch.nn.Identity(), (4,), (4,))
    vae = pv.VAE(pv.StandardNormalPrior(2), likelihood, pv.DiagonalNormalPosterior(encoder, 2)).double()
    line = likelihood.loc.layers[1]
    variance = likelihood.fixed_scale**2  # 0.3 in float32
    covariance = line.weight @ line.weight.T + variance * torch.eye(4).double()
    return vae, torch.distributions.MultivariateNormal(line.bias, covariance)


def test_the_grid_is_the_closed_form() -> None:
    vae, px = linear_vae()
    x = vae.sample(20)
    found = grid_log_evidence(vae, x, limit=8.0, points=401)
    torch.testing.assert_close(found.estimate, px.log_prob(x).detach(), rtol=0, atol=1e-9)
    assert (found.coarse - found.estimate).abs().max() < 1e-9
    rough = grid_log_evidence(vae, x, limit=8.0, points=17)  # a step of 1 over a posterior of 0.3
    assert (rough.coarse - rough.estimate).abs().max() > 0.01


def test_the_grid_is_the_same_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    vae, _ = linear_vae()
    x = vae.sample(3)
    whole = grid_log_evidence(vae, x, points=41)
    monkeypatch.setattr("experiments.grid._AT_ONCE", 100)
    torch.testing.assert_close(grid_log_evidence(vae, x, points=41), whole)


def test_grids_that_cannot_be_are_refused() -> None:
    vae, _ = linear_vae()
    x = vae.sample(2)
    with refused("points expects an odd number from 3, got 100"):
        grid_log_evidence(vae, x, points=100)
    with refused("expected two latent dimensions, got \\(5,\\)"):
        grid_log_evidence(pv.assemble(pv.Digits(), latent_dim=5), x)


def test_records_are_kept_and_others_refused(tmp_path: Path) -> None:
    path = tmp_path / "found.jsonl"
    records = Records(path, {"data": "Digits"})
    records.add("a", {"elbo": -1.5})
    records.add("b", {"elbo": -2.5})
    again = Records(path, {"data": "Digits"})
    assert again.found == records.found and list(again.found) == ["a", "b"]
    with refused("measured on {'data': 'Digits'}, got {'data': 'MNIST'}: choose another folder with --out"):
        Records(path, {"data": "MNIST"})
    with pytest.raises(ValueError, match="not JSON compliant"):
        records.add("c", {"elbo": math.nan})
    assert Records(path, {"data": "Digits"}).found == again.found


def test_runs_are_trained_once_and_go_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run, data, _ = trained(folder, "--latent_dim", "2", smoke=True)
    summary = run.folder / "summary.json"
    assert json.loads(summary.read_text())["training"]["steps"] == 2 and data.name == "Digits"
    before = summary.read_bytes()
    trained(folder, "--latent_dim", "2", smoke=True)
    assert summary.read_bytes() == before
    summary.unlink()  # as where it was killed before the end
    trained(folder, "--latent_dim", "2", smoke=True)
    found, expected = (json.loads(text)["log_evidence"] for text in (summary.read_bytes(), before))
    assert found == expected
    with refused("holds a run with other options: choose another folder with --runs"):
        trained(folder, "--latent_dim", "3", smoke=True)
    assert summary.exists()


def small(folder: Path, answer: str, results: str = "[numbers.json, table.csv, picture.png]") -> None:
    (folder / "one" / "results").mkdir(parents=True)
    text = f"question: Why?\ncommand: |\n  first\n  second\nresults: {results}\nanswer: >-\n  {answer}\n"
    (folder / "one" / "experiment.yaml").write_text(text)
    (folder / "one" / "results" / "numbers.json").write_text('{"log_evidence": {"mean": -1.2345}}')
    (folder / "one" / "results" / "table.csv").write_text("run,kl,prior\nruns/a,2.5,flow\n")


def test_answers_are_made_of_the_results(tmp_path: Path, listed: Run) -> None:
    small(
        tmp_path,
        "{numbers[log_evidence][mean]:.2f} nats, KL {table[runs/a][kl]:.1f}, {table[runs/a][prior]}-1",
    )
    (tmp_path / "README.md").write_text("before\n<!-- summary -->\n<!-- end -->\nafter\n")
    (found,) = read_experiments(tmp_path)
    assert (found.status, found.answer, found.missing) == ("missing: picture.png", "", ("picture.png",))
    (tmp_path / "one" / "results" / "picture.png").touch()
    (found,) = read_experiments(tmp_path)
    assert (found.status, found.answer) == ("complete", "−1.23 nats, KL 2.5, flow-1")
    status, out, err = listed("--folder", tmp_path, "--write-readme")
    assert (status, err) == (0, "")
    lines = ["one  (complete)", "    Why?", "    −1.23 nats, KL 2.5, flow-1", "    $ first", "    $ second"]
    assert out.splitlines()[:5] == lines
    row = "| [`one`](one/README.md) | Why? | −1.23 nats, KL 2.5, flow-1 | complete |"
    heading = "| experiment | question | answer | status |\n|---|---|---|---|"
    expected = f"before\n<!-- summary -->\n\n{heading}\n{row}\n\n<!-- end -->\nafter\n"
    assert (tmp_path / "README.md").read_text() == expected


@pytest.mark.parametrize(
    ("answer", "results", "text"),
    [
        (
            "{numbers[kl]:.2f}",
            "[numbers.json]",
            "the answer names what is not in the results: KeyError('kl')",
        ),
        (
            "{other[kl]:.2f}",
            "[numbers.json]",
            "the answer names what is not in the results: KeyError('other')",
        ),
        (
            "{numbers[log_evidence]:.2f}",
            "[numbers.json]",
            "the answer names what is not in the results: TypeError",
        ),
        ("one\nmore: field", "[]", "expects the fields answer, command, question, results, got question, "),
    ],
)
def test_faulty_experiments_are_refused(
    tmp_path: Path, listed: Run, answer: str, results: str, text: str
) -> None:
    small(tmp_path, answer, results)
    status, out, err = listed("--folder", tmp_path)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert text in err


def test_damaged_results_are_refused(tmp_path: Path, listed: Run) -> None:
    small(tmp_path, "{numbers[kl]}", "[numbers.json]")
    (tmp_path / "one" / "results" / "numbers.json").write_text('{"kl": ')
    status, out, err = listed("--folder", tmp_path)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "numbers.json is no JSON: " in err


def test_the_experiments_are_those_beside_the_command(listed: Run, tmp_path: Path) -> None:
    status, out, err = listed()
    assert (status, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines() if line[:1].strip()] == sorted(
        path.parent.name for path in EXPERIMENTS.glob("*/experiment.yaml")
    )
    status, _, err = listed("--folder", tmp_path)
    assert status == 2 and "expected a folder of experiments (each with experiment.yaml), got" in err


def test_the_table_of_all_experiments_is_that_of_their_results() -> None:
    found = read_experiments(EXPERIMENTS)
    assert {each.name for each in found} == {path.parent.name for path in EXPERIMENTS.glob("*/README.md")}
    assert [each.status for each in found] == ["complete"] * len(found)
    readme = (EXPERIMENTS / "README.md").read_text()
    assert insert(readme, {"summary": summary_table(found)}) == readme
    assert summary_table(found) in readme


@pytest.mark.parametrize("experiment", read_experiments(EXPERIMENTS), ids=lambda each: each.name)
def test_every_experiment_shows_its_command_and_pictures(experiment: object) -> None:
    assert isinstance(experiment, tuple)
    name, _, command, *_ = experiment
    readme = (EXPERIMENTS / name / "README.md").read_text()
    for line in command.splitlines():
        assert f"    {line}\n" in readme, line
    results = EXPERIMENTS / name / "results"
    shown = set(re.findall(r"\]\(results/(\S+\.png)\)", readme))
    assert shown == {str(path.relative_to(results)) for path in results.rglob("*.png")}


def test_tables_in_markdown() -> None:
    assert markdown([("a", "b"), ("1", "2")]) == "| a | b |\n|---|---|\n| 1 | 2 |"
    assert insert("<!-- t -->\nold\n<!-- end -->x", {"t": "new"}) == "<!-- t -->\n\nnew\n\n<!-- end -->x"
    assert markdown([("q(z|x)",)]) == "| q(z\\|x) |\n|---|"
    for text in ("no place", "<!-- t -->\nno end"):
        with refused("expected <!-- t --> and <!-- end --> after it, got a text without: add them"):
            insert(text, {"t": "new"})


def test_a_smoke_run_keeps_to_itself() -> None:
    here = Path("experiments/mine")
    real, smoke = options_of("Doc.", here, []), options_of("Doc.", here, ["--smoke"])
    assert (real.runs, real.out) == (Path("runs/mine"), here / "results")
    assert (smoke.runs, smoke.out) == (Path("runs/mine-smoke"), Path("runs/mine-smoke/results"))
    named = options_of("Doc.", here, ["--smoke", "--out", "a", "--runs", "b"])
    assert (named.runs, named.out) == (Path("b"), Path("a"))


@pytest.mark.parametrize(
    ("raised", "status", "line"),
    [(pv.InputError("two\nlines"), 2, "error: two lines"), (KeyboardInterrupt(), 130, "interrupted; ")],
)
def test_scripts_end_with_one_line(
    raised: BaseException, status: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> int:
        raise raised

    with pytest.raises(SystemExit) as end:
        run_script(main)
    assert end.value.code == status
    assert capsys.readouterr().err.strip().startswith(line)


def test_records_are_about_their_configuration(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("epochs: 30  # a comment\nseed: 0\n")
    before = config_hash(path)
    path.write_text("seed: 0\nepochs: 30\n")
    assert config_hash(path) == before
    path.write_text("seed: 0\nepochs: 60\n")
    assert config_hash(path) != before
