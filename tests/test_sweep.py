"""A study is trained once, whoever trains it, whatever dies.

What it must survive, each a test here: workers that start at once, are killed, interrupted, suspended, on
other machines, or short of memory; a database that others use; a file that is wrong, or was changed; a
configuration that cannot be trained, or is measured on something else; a folder that is gone.
"""

import csv
import json
import multiprocessing
import os
import pwd
import shlex
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
import yaml
from optuna.trial import FrozenTrial, TrialState

from pyro_vae.cli import main
from pyro_vae.errors import InputError, NonFiniteLossError
from pyro_vae.progress import progress_bar
from pyro_vae.sweeps.databases import open_storage
from pyro_vae.sweeps.queue import Queue
from pyro_vae.sweeps.reading import read_study
from pyro_vae.sweeps.worker import AfterEpoch, UnusableError, work
from pyro_vae.training import Epoch, History
from tests.commands import Run
from tests.pictures import draw_coarsely

TRAIN = {"epochs": 1, "network.hidden_dims": [8], "latent_dim": 2, "particles": 10, "num_data": 20}
PRIORS = {
    "prior": ["StandardNormalPrior", "MixturePrior"],
    "prior.components": {"for": "MixturePrior", "in": [2, 3]},
}
GRID = {"study": "priors", "sampler": "grid", "train": TRAIN, "search": PRIORS}
RANDOM = {
    "study": "rates",
    "sampler": "random",
    "trials": 3,
    "search": {"optimiser.lr": {"log": [1e-4, 0.1]}},
}


def written(content: Mapping[str, Any], path: str = "study.yaml") -> Path:
    Path(path).write_text(yaml.safe_dump(dict(content), sort_keys=False))
    return Path(path)


@contextmanager
def database(url: str) -> Iterator[optuna.storages.RDBStorage]:
    storage = optuna.storages.RDBStorage(url)
    yield storage
    storage.remove_session()
    storage.engine.dispose()


def trials_of(folder: str, url: str | None = None) -> list[FrozenTrial]:
    """What the database knows."""
    with database(url or f"sqlite:///{folder}/study.db") as storage:
        return optuna.load_study(study_name=Path(folder).name, storage=storage).get_trials(deepcopy=False)


def states_of(folder: str, url: str | None = None) -> list[str]:
    return [each.state.name for each in trials_of(folder, url)]


def rows_of(folder: str) -> list[dict[str, str]]:
    with (Path(folder) / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def histories(*values: Sequence[float]) -> list[History]:
    """Histories of the given validation ELBOs."""
    return [
        History([Epoch(n + 1, n + 1, 0, value, 0, 0, 0, 1, 0) for n, value in enumerate(each)], len(each))
        for each in values
    ]


class Told:
    """Stands for a training: the value is that of a function of the options, over some epochs."""

    def __init__(self, epochs: int = 1) -> None:
        self.epochs, self.options, self.folders = epochs, list[dict[str, Any]](), list[str]()

    def __call__(
        self, options: Mapping[str, Any], seeds: Sequence[int], folder: Path, after_epoch: AfterEpoch
    ) -> list[float]:
        self.options.append({**options})
        self.folders.append(folder.name)
        for epoch in range(1, self.epochs + 1):
            for number, seed in enumerate(seeds):
                (history,) = histories([self.value(options, seed)] * epoch)
                after_epoch(number, history)
        return [self.value(options, seed) for seed in seeds]

    def value(self, options: Mapping[str, Any], seed: int) -> float:
        return -((options["optimiser.lr"] - 0.01) ** 2) - seed


def queue_of(content: Mapping[str, Any], folder: str = "sweep") -> Queue:
    Path(folder).mkdir(exist_ok=True)
    file = read_study(written(content, f"{folder}.yaml"))
    return Queue(open_storage(file.storage, Path(folder)), file, Path(folder))


def worked(queue: Queue, train: Any) -> list[FrozenTrial]:
    """All trials of a study, as one worker has left them."""
    with progress_bar(False) as bar:
        work(queue, train, bar, poll=0.01)
    return queue.trials()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- real workers ---------------------------------------------------------------------------------------

WORKERS = multiprocessing.get_context("forkserver")
WORKERS.set_forkserver_preload(
    ["pyro_vae.cli.entry", "pyro_vae.cli.sweep", "optuna.storages", "torch._dynamo"]
)


def _work(folder: str, words: list[str]) -> None:
    os.chdir(folder)
    os.environ["TQDM_DISABLE"] = "1"
    draw_coarsely()
    with open(f"log-{os.getpid()}", "w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        raise SystemExit(main(words))


def worker(folder: Path, *words: str, target: Any = _work) -> BaseProcess:
    """A process of its own that runs a command."""
    process = WORKERS.Process(target=target, args=(str(folder), [*words]))
    process.start()
    return process


def log_of(process: BaseProcess, folder: Path) -> str:
    return (folder / f"log-{process.pid}").read_text()


def epochs_of(run: Path) -> int:
    metrics = run / "metrics.csv"
    return len(metrics.read_text().splitlines()) - 1 if metrics.exists() else 0


def until(happened: Any, *processes: BaseProcess) -> None:
    """Wait for something, so long as the processes live, on a machine that may be busy."""
    end = time.monotonic() + 300
    while not happened():
        assert time.monotonic() < end and all(each.is_alive() for each in processes)
        time.sleep(0.01)


def _hang(folder: str, words: list[str]) -> None:
    """As `_work`, but it stands still after two epochs of a training."""
    from pyro_vae.training.loop import Loop

    run_epoch = Loop.run_epoch

    def hangs(self: Loop) -> Any:
        if len(self.trainer.history.epochs) == 2:
            time.sleep(300)
        return run_epoch(self)

    Loop.run_epoch = hangs  # type: ignore[method-assign]
    _work(folder, words)


def numbers_of(run: Path) -> list[list[float]]:
    """metrics.csv, without the seconds."""
    with (run / "metrics.csv").open() as file:
        return [[float(cell) for cell in row[:-1]] for row in [*csv.reader(file)][1:]]


def test_a_killed_workers_trial_is_gone_on_with_by_another(here: Path, pyro_vae: Run) -> None:
    """Two workers, one killed in mid-trial: all trials once, the one of the dead from its checkpoints."""
    written({**GRID, "train": {**TRAIN, "epochs": 4}, "seeds": [0, 1], "top": 1})
    runs = [Path(f"sweeps/priors/trial-000/seed-{seed}") for seed in (0, 1)]
    killed = worker(here, "sweep", "study.yaml", target=_hang)
    until(lambda: epochs_of(runs[0]) == 2 and (runs[1] / "checkpoints" / "last.pt").exists(), killed)
    other = worker(here, "sweep", "study.yaml")
    until(lambda: states_of("sweeps/priors") == ["RUNNING", "COMPLETE", "COMPLETE"], killed, other)
    killed.kill()
    killed.join()
    kept = [torch.load(run / "checkpoints" / "last.pt")["epochs"] for run in runs]
    assert [len(each) for each in kept] == [2, 1]  # it died between the two
    other.join()
    assert (killed.exitcode, other.exitcode) == (-signal.SIGKILL, 0), log_of(other, here)
    found = trials_of("sweeps/priors")
    assert [each.state.name for each in found] == ["COMPLETE"] * 3
    assert {each.user_attrs["worker"].split()[1] for each in found} == {str(other.pid)}
    assert "deaths" in found[0].user_attrs and "deaths" not in found[1].user_attrs
    states = [torch.load(run / "checkpoints" / "last.pt") for run in runs]
    for before, state in zip(kept, states, strict=True):
        assert state["epochs"][: len(before)] == before  # their seconds, too
    options = ["--epochs=4", "--network.hidden_dims=[8]", "--latent_dim=2", "--particles=10", "--num_data=20"]
    for seed, run in enumerate(runs):
        assert pyro_vae("train", *options, "--seed", seed, "--out", f"alone-{seed}")[0] == 0
        assert numbers_of(run) == [pytest.approx(row, abs=1e-4) for row in numbers_of(Path(f"alone-{seed}"))]
    best = [max(row[3] for row in state["epochs"]) for state in states]
    assert found[0].user_attrs["values"] == best and found[0].value == sum(best) / 2
    means = [
        sum(row[3] for row in rows) / 2 for rows in zip(*(each["epochs"] for each in states), strict=True)
    ]
    assert [*found[0].intermediate_values.values()] == pytest.approx(means, rel=1e-12)


def _create(folder: str, ready: Any) -> None:
    os.chdir(folder)
    file = read_study(Path("study.yaml"))
    ready.wait()
    Path("sweep").mkdir(exist_ok=True)
    Queue(open_storage(None, Path("sweep")), file, Path("sweep"))


def test_workers_that_start_at_once_make_one_study(here: Path) -> None:
    written({**RANDOM, "study": "sweep", "trials": 5})
    ready = WORKERS.Barrier(3)
    processes = [WORKERS.Process(target=_create, args=(str(here), ready)) for _ in range(3)]
    for each in processes:
        each.start()
    for each in processes:
        each.join()
    assert [each.exitcode for each in processes] == [0, 0, 0]
    queue = Queue(open_storage(None, Path("sweep")), read_study(Path("study.yaml")), Path("sweep"))
    told = Told()
    assert [each.number for each in worked(queue, told)] == [*range(5)]
    assert told.folders == [f"trial-{number:03}" for number in range(5)]


BIN = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), Path("/none"))
POSTGRES = shutil.which("pg_ctl") or (str(BIN / "pg_ctl") if (BIN / "pg_ctl").exists() else None)


@pytest.fixture
def postgresql(tmp_path: Path) -> Iterator[str]:
    """URL of a database of a server of its own."""
    if POSTGRES is None:
        pytest.skip("PostgreSQL is not installed")
    programs, root = Path(POSTGRES).resolve().parent, os.geteuid() == 0
    names = {each.pw_name for each in pwd.getpwall()}
    user = next((name for name in ("postgres", "nobody") if name in names), None) if root else None
    if root and user is None:
        pytest.skip("PostgreSQL does not run as root, and there is no user postgres or nobody")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(_temporary_folder()))
        if user:
            shutil.chown(folder, user)

        def call(program: str, *words: str) -> None:
            subprocess.run(
                [programs / program, *words], user=user, cwd=folder, check=True, stdout=subprocess.DEVNULL
            )

        call("initdb", "-D", f"{folder}/data", "-U", "owner", "-A", "trust", "--no-sync")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        server = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        call("pg_ctl", "-D", f"{folder}/data", "-o", server, "-l", f"{folder}/log", "-w", "start")
        stack.callback(call, "pg_ctl", "-D", f"{folder}/data", "-m", "immediate", "-w", "stop")
        yield f"postgresql+psycopg://owner:secret@127.0.0.1:{port}/postgres"


def _temporary_folder() -> Any:
    import tempfile

    return tempfile.TemporaryDirectory(prefix="pg-", dir="/tmp" if Path("/tmp").is_dir() else None)


def test_two_workers_share_a_study_in_postgresql(here: Path, pyro_vae: Run, postgresql: str) -> None:
    """Each with a folder of its own, as on two machines."""
    pytest.importorskip("psycopg")
    written({**GRID, "storage": postgresql, "top": 1})
    workers = [worker(here, "sweep", "study.yaml", "--out", name) for name in ("one", "two")]
    for each in workers:
        each.join()
    logs = [log_of(each, here) for each in workers]
    assert [each.exitcode for each in workers] == [0, 0], logs
    found = trials_of("priors", postgresql)
    assert [each.state.name for each in found] == ["COMPLETE"] * 3
    for trial in found:
        folders = [name for name in ("one", "two") if Path(f"{name}/trial-{trial.number:03}/seed-0").exists()]
        assert folders == [Path(trial.user_attrs["folder"]).name]
    assert "secret" not in "".join(logs)
    assert sum("copy them" in log for log in logs) == 1  # where the best trial's folder is not
    status, _, err = pyro_vae(
        "sweep", "study.yaml", "--storage", postgresql.replace("127.0.0.1:", "127.0.0.1:1")
    )
    assert status == 2 and "cannot use the database postgresql+psycopg://owner:***@127" in err
    # the database has a study of this name that was begun by something else
    with database(postgresql) as storage:
        optuna.create_study(study_name="rates", storage=storage).add_trial(optuna.create_trial(value=1))
    status, _, err = pyro_vae("sweep", written({**RANDOM, "train": TRAIN}), "--storage", postgresql)
    assert status == 2 and err.endswith("has another study rates: give this one another name\n")


# --- the command ----------------------------------------------------------------------------------------


def test_a_grid_of_classes_ends_by_itself(here: Path, pyro_vae: Run) -> None:
    """Each trial is the run of the command that --dry_run shows, and nothing is trained twice."""
    written({**GRID, "seeds": [3, 4], "top": 2})
    status, out, err = pyro_vae("sweep", "study.yaml", "--dry_run", "true")
    commands = [shlex.split(line) for line in out.splitlines() if line.startswith("pyro-vae train")]
    assert status == 0 and not Path("sweeps").exists(), err
    tried = [[word for word in line if "prior" in word] for line in commands[::2]]
    assert tried == [
        ["--prior=StandardNormalPrior", "--out=sweeps/priors/trial-000/seed-3"],
        ["--prior=MixturePrior", "--prior.components=2", "--out=sweeps/priors/trial-001/seed-3"],
        ["--prior=MixturePrior", "--prior.components=3", "--out=sweeps/priors/trial-002/seed-3"],
    ]
    status, out, err = pyro_vae("sweep", "study.yaml")
    assert (status, err) == (0, "")
    best, second, other = sorted(rows_of("sweeps/priors"), key=lambda row: -float(row["value"]))
    values = [float(best[f"seed {seed}"]) for seed in (3, 4)]
    assert float(best["value"]) == pytest.approx(sum(values) / 2, rel=1e-12) and values[0] != values[1]
    assert "3 trials: 3 complete; nats per datum of the validation data, mean of 2 seeds" in out
    assert "the best 2 by validation data, on test data, by which nothing was chosen" in out
    for name in ("comparison.csv", "comparison.png", "optimisation_history.png", "learning_curves.png"):
        assert Path("sweeps/priors", name).stat().st_size > 100
    for row in (best, second, other):  # test data are for the best only
        run = Path(f"sweeps/priors/trial-{int(row['trial']):03}/seed-4")
        assert (run / "summary.json").exists() == (row is not other)
    with Path("sweeps/priors/comparison.csv").open() as file:
        compared = [*csv.DictReader(file)]
    assert (compared[0]["seeds"], compared[0]["verdict"]) == ("2", "reference")
    assert compared[0]["run"] == f"sweeps/priors/trial-{int(best['trial']):03}/seed-3 +1"
    (command,) = (line for line in commands if line[-1].endswith(f"{int(best['trial']):03}/seed-3"))
    assert pyro_vae(*command[1:-1], "--out", "alone")[0] == 0
    alone, run = (Path(each) for each in ("alone", command[-1].removeprefix("--out=")))
    for name in ("last.pt", "best.pt"):
        one, other_one = (torch.load(each / "checkpoints" / name)["model"] for each in (alone, run))
        assert all(torch.allclose(one[key], other_one[key], atol=1e-4) for key in one)
    summaries = [json.loads((each / "summary.json").read_text()) for each in (alone, run)]
    estimates = [each["log_evidence"]["estimate"] for each in summaries]
    assert estimates[0] == pytest.approx(estimates[1], abs=1e-3)
    before = {path: path.stat().st_mtime_ns for path in Path("sweeps").rglob("*.pt")}
    assert pyro_vae("sweep", "study.yaml")[0] == 0
    assert before == {path: path.stat().st_mtime_ns for path in Path("sweeps").rglob("*.pt")}


def test_more_trials_are_added_and_nothing_else_may_change(here: Path, pyro_vae: Run) -> None:
    study = {**RANDOM, "train": TRAIN, "trials": 2, "top": 1}
    assert pyro_vae("sweep", written(study))[0] == 0
    before = [each.params for each in trials_of("sweeps/rates")]
    for change, text in (
        (
            {"search": {"optimiser.lr": {"log": [1e-3, 0.1]}}},
            r"was begun with search.optimiser.lr: {'log': [0.0001",
        ),
        ({"train": {**TRAIN, "epochs": 2}}, "was begun with train.epochs: 1, got 2: put it back, or give"),
        ({"seeds": [1]}, "was begun with seeds: [0], got [1]"),
        ({"trials": 1}, "the study rates has 2 trials, got trials: 1: give at least 2"),
        ({"train": {**TRAIN, "data.seed": 4}}, "was begun with train.data.seed: None, got 4"),
    ):
        status, out, err = pyro_vae("sweep", written({**study, **change}, "changed.yaml"))
        assert (status, out, err.count("\n")) == (2, "", 1) and text in err
    assert states_of("sweeps/rates") == ["COMPLETE"] * 2
    assert pyro_vae("sweep", written({**study, "trials": 4}))[0] == 0
    found = trials_of("sweeps/rates")
    assert len(found) == 4 and [each.params for each in found[:2]] == before
    Path("sweeps/rates/study.db").unlink()
    status, _, err = pyro_vae("sweep", "study.yaml")
    assert status == 2 and "is of a study that the database does not know" in err


def test_ctrl_c_leaves_the_trial_to_be_gone_on_with(
    here: Path, pyro_vae: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyro_vae.training.loop import Loop

    study, run_epoch = {**RANDOM, "train": {**TRAIN, "epochs": 3}, "trials": 1}, Loop.run_epoch

    def interrupted(self: Loop) -> Any:
        if len(self.trainer.history.epochs) == 2:
            raise KeyboardInterrupt
        return run_epoch(self)

    monkeypatch.setattr(Loop, "run_epoch", interrupted)
    status, _, err = pyro_vae("sweep", written(study))
    assert (status, err) == (130, "\npyro-vae: interrupted; the same command goes on with the study\n")
    assert states_of("sweeps/rates") == ["WAITING"]
    first = torch.load("sweeps/rates/trial-000/seed-0/checkpoints/last.pt")["epochs"]
    monkeypatch.setattr(Loop, "run_epoch", run_epoch)
    command = shlex.split(pyro_vae("sweep", "study.yaml", "--dry_run", "true")[1].splitlines()[0])
    assert pyro_vae("sweep", "study.yaml")[0] == 0
    assert states_of("sweeps/rates") == ["COMPLETE"]
    last = torch.load("sweeps/rates/trial-000/seed-0/checkpoints/last.pt")
    assert last["epochs"][:2] == first
    assert pyro_vae(*command[1:-1], "--out", "alone")[0] == 0
    alone = torch.load("alone/checkpoints/last.pt")["model"]
    assert all(torch.equal(alone[name], last["model"][name]) for name in alone)


OWN = """
from pyro_vae import InputError, StandardNormalPrior
class Odd(StandardNormalPrior):
    def __init__(self, latent_dim):
        if latent_dim % 2 == 0:
            raise InputError(f"{latent_dim} is even")
        super().__init__(latent_dim)
"""


def test_a_class_of_ones_own_that_refuses_some_options(here: Path, pyro_vae: Run) -> None:
    Path("own.py").write_text(OWN)
    train = {**TRAIN, "prior": "own.Odd"}
    del train["latent_dim"]
    written({**GRID, "train": train, "search": {"latent_dim": {"int": [1, 3]}}, "top": 1})
    status, _, err = pyro_vae("sweep", "study.yaml")
    assert status == 2 and "--trust own" in err
    status, out, err = pyro_vae("sweep", "study.yaml", "--trust", "own")
    assert (status, err) == (0, "")
    assert [row["state"] for row in rows_of("sweeps/priors")] == ["complete", "fail", "complete"]
    assert "trial 1 failed: 2 is even" in out


def test_by_log_evidence(here: Path, pyro_vae: Run) -> None:
    """Of the validation data: that of `pyro-vae evaluate --split valid`."""
    assert (
        pyro_vae("sweep", written({**RANDOM, "train": TRAIN, "trials": 1, "select_by": "log_evidence"}))[0]
        == 0
    )
    (trial,) = trials_of("sweeps/rates")
    run = "sweeps/rates/trial-000/seed-0"
    options = ("--split", "valid", "--num_data", 20, "--particles", 10, "--method", "importance")
    assert pyro_vae("evaluate", run, *options)[0] == 0
    content = json.loads(Path(run, "evaluation.json").read_text())
    assert trial.value == content["log_evidence"]["estimate"]


BAD: list[tuple[dict[str, Any], str]] = [
    ({"sampler": "tpes"}, "sampler expects grid, random, tpe, or one as"),
    ({"sampler": {"tpe": {"n_startup": 3}}}, "sampler tpe has no option n_startup: see Optuna's TPESampler"),
    (
        {"pruner": {"median": {"n_startup_trials": -1}}},
        "pruner median: Number of startup trials cannot be neg",
    ),
    ({"trails": 3}, "there is no 'trails' in a study (did you mean trials?)"),
    ({"study": "../up"}, "study expects a name of letters, digits"),
    ({"trials": 0}, "trials expects a positive whole number, got 0"),
    ({"seeds": [1, 1]}, "seeds expects how many, or different whole numbers"),
    ({"seeds": 0}, "seeds expects a positive whole number, got 0"),
    ({"seeds": True}, "seeds expects how many, or different whole numbers as [0, 1], got True"),
    ({"train": {**TRAIN, "seeds": 2}}, "train.seeds is not for a study: write seeds beside train and search"),
    ({"search": {"seeds": [2, 3]}}, "search.seeds is not for a study: write seeds beside train and search"),
    (
        {
            "sampler": "grid",
            "trials": None,
            "search": {"latent_dim": {"int": [1, 10**5]}, "kl_weight": {"float": [0, 1], "step": 1e-5}},
        },
        "expected a grid of at most 100,000 trials, got more: leave out values, or use sampler: random",
    ),
    (
        {"sampler": "grid", "trials": None, "search": {"latent_dim": {"int": [1, 10**5 + 1]}}},
        "expected a grid of at most 100,000 trials, got more",
    ),
    ({"select_by": "test"}, "select_by expects elbo or log_evidence, got 'test'"),
    ({"search": {}}, "search expects options of pyro-vae train, got {}"),
    ({"search": {"latent_dim": [2, "x"]}}, "--latent_dim: expected int or a list as [1,2], got x"),
    ({"search": {"latent_dim": 2}}, "an option with one value belongs in train"),
    ({"search": {"latent_dims": [2]}}, "--latent_dims=2 (did you mean --latent_dim"),
    ({"search": {"optimiser.lr": {"log": [0.1, 0.01]}}}, "expected the lower end first, got [0.1, 0.01]"),
    ({"search": {"optimiser.lr": {"log": [0, 0.01]}}}, "a log scale expects numbers above 0"),
    ({"search": {"optimiser.lr": {"log": ["a", 1]}}}, "log expects two numbers as [1, 9], got ['a', 1]"),
    ({"search": {"latent_dim": {"int": [2, 4.5]}}}, "int expects two whole numbers as [1, 9], got [2, 4.5]"),
    ({"search": {"latent_dim": {"int": [2, 4], "step": 9}}}, "step expects a number from 0 to 2"),
    ({"search": {"latent_dim": {"float": [2.0, 4.0]}}}, "--latent_dim: expected int or a list"),
    ({"search": {"latent_dim": [2, 2]}}, "2 stands there twice"),
    ({"search": {"seed": [1, 2]}}, "search.seed is not for a study: seeds says which are trained"),
    (
        {"train": TRAIN, "search": {"epochs": [1, 2]}},
        "epochs stands in train and in search: leave it out of one",
    ),
    ({"train": {**TRAIN, "out": "x"}}, "train.out is not for a study: each trial has a folder in that of"),
    (
        {"train": {"prior": {"components": 3}}},
        "train.prior expects a value, got a mapping: write prior.components",
    ),
    ({"search": {"prior": ["VampPriro"]}}, "got VampPriro (did you mean VampPrior"),
    (
        {"search": {**PRIORS, "prior.components": [2]}},
        "--prior: StandardNormalPrior: there is no option components; name the class that has it",
    ),
    (
        {"search": {**PRIORS, "prior.components": {"for": "VampPrior", "in": [2]}}},
        "search.prior.components is for VampPrior, and prior is MixturePrior or StandardNormalPrior: name",
    ),
    (
        {"search": {**PRIORS, "prior.component": {"for": "MixturePrior", "in": [2]}}},
        "MixturePrior: there is no option component (did you mean components?)",
    ),
    ({"search": {"prior": ["MixturePrior"], "prior.components": [0, 2]}}, "components expects a positive"),
    (
        {"search": {"likelihood": ["BernoulliLikelihood", "NormalLikelihood"]}},
        "data' beside 'nats per datum' and protocol 'uniform dequantisation of 17 levels, evaluated on one "
        "fixed draw (seed 0)' beside 'dynamic binarisation, evaluated on one fixed draw (seed 0)', of which "
        "one is a density and the other a probability, of data in another form: make a study of each",
    ),
    (
        {"search": {"data.seed": [0, 1]}},
        "got one with protocol 'dynamic binarisation, evaluated on one fixed draw (seed 1)' beside",
    ),
    (
        {"sampler": "grid", "trials": None, "search": {"optimiser.lr": {"log": [1e-4, 1e-2]}}},
        "a grid needs values that can be counted, got a range for optimiser.lr: list them",
    ),
    ({**GRID, "trials": 4}, "this grid has 3 trials, got trials: 4: leave trials out"),
    ({"storage": "post:gres"}, "storage expects the URL of a database as postgresql+psycopg://"),
    ({"storage": "sqlite:////nowhere/at/all.db"}, "cannot use the database sqlite:////nowhere/at/all.db"),
    ({"train": {**TRAIN, "data": "MNIST", "data.root": "nowhere"}}, "nowhere"),
]


@pytest.mark.parametrize(("change", "text"), BAD, ids=range(len(BAD)))
def test_a_wrong_file_is_one_line(here: Path, pyro_vae: Run, change: dict[str, Any], text: str) -> None:
    train = {name: value for name, value in TRAIN.items() if name not in change.get("search", {})}
    status, out, err = pyro_vae("sweep", written({**RANDOM, "train": train, **change}))
    assert (status, out, err.count("\n")) == (2, "", 1), (out, err)
    assert text in err and err.startswith("pyro-vae: error: "), err
    assert not list(Path().glob("sweeps/*/*"))


def test_seeds_are_which_or_how_many(here: Path) -> None:
    for said, seeds in ((3, (0, 1, 2)), ([3], (3,)), ([4, 2], (4, 2))):
        file = read_study(written({**RANDOM, "seeds": said}))
        assert (file.seeds, file.definition["seeds"]) == (seeds, [*seeds])
    Path("options.yaml").write_text("seeds: 2\n")
    with pytest.raises(
        InputError, match=r"options\.yaml: seeds is not for a study there: write seeds beside"
    ):
        read_study(written({**RANDOM, "train": {**TRAIN, "config": "options.yaml"}}))


def test_no_file_and_no_optuna(here: Path, pyro_vae: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "study.yaml: expected a file" in pyro_vae("sweep", "study.yaml")[2]
    Path("study.yaml").write_text("- 1\n")
    assert (
        "study.yaml: expected study, sampler, trials, train and search, got [1]"
        in pyro_vae("sweep", "study.yaml")[2]
    )
    monkeypatch.setitem(__import__("sys").modules, "pyro_vae.sweeps.reading", None)
    assert 'pip install -e ".[sweep]"' in pyro_vae("sweep", "study.yaml")[2]


# --- trials, handed out and taken back ------------------------------------------------------------------


def test_each_trial_is_handed_out_once(here: Path) -> None:
    content = {**RANDOM, "trials": 8}
    queues = [queue_of(content) for _ in range(3)]
    told = [Told() for _ in queues]
    threads = [threading.Thread(target=worked, args=pair) for pair in zip(queues, told, strict=True)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(name for each in told for name in each.folders) == [f"trial-{n:03}" for n in range(8)]
    assert [each.state for each in queues[0].trials()] == [TrialState.COMPLETE] * 8
    rates = {each.params["optimiser.lr"] for each in queues[0].trials()}
    assert len(rates) == 8  # no two workers draw the same


def test_one_worker_is_reproducible(here: Path) -> None:
    content = {**RANDOM, "sampler": {"tpe": {"n_startup_trials": 2}}, "trials": 4, "seed": 5}
    found = [[each.params for each in worked(queue_of(content, name), Told())] for name in ("one", "two")]
    assert found[0] == found[1]
    for change in ({"seed": 6}, {"sampler": "random"}):
        other = [each.params for each in worked(queue_of({**content, **change}, "three"), Told())]
        same = [a == b for a, b in zip(found[0], other, strict=True)]
        assert same == ([False] * 4 if "seed" in change else [True] * 2 + [False] * 2)
        shutil.rmtree("three")


def test_the_pruner_prunes_by_the_mean_of_all_seeds(here: Path) -> None:
    class Curves(Told):
        def value(self, options: Mapping[str, Any], seed: int) -> float:
            return 100 * seed - (2 * seed + 1) * float(options["latent_dim"])

    content = {
        **RANDOM,
        "sampler": "grid",
        "trials": None,
        "seeds": [0, 1],
        "search": {"latent_dim": [3, 2, 9, 1]},
        "pruner": {"median": {"n_startup_trials": 2}},
    }
    found = worked(queue_of(content), Curves(epochs=3))
    assert [each.state.name for each in found] == ["COMPLETE", "COMPLETE", "PRUNED", "COMPLETE"]
    assert found[2].intermediate_values == {1: 32.0} and found[1].intermediate_values.keys() == {1, 2, 3}
    assert found[1].value == 46.0 and found[1].user_attrs["values"] == [-2.0, 94.0]


def test_a_seed_that_has_ended_counts_as_at_its_last_epoch(here: Path) -> None:
    """Also where an earlier worker was killed between the seeds' epochs, and told the pruner of some."""
    queue = queue_of({**RANDOM, "trials": 1, "seeds": [0, 1]})

    def told(ended: str, *curves: Sequence[float]) -> dict[int, float]:
        def train(_: Any, __: Any, ___: Any, after_epoch: AfterEpoch) -> list[float]:
            for number, history in enumerate(histories(*curves)):
                history.ended_by = ended if number == 0 else ""  # type: ignore[assignment]
                after_epoch(number, history)
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            worked(queue, train)
        return queue.trials()[0].intermediate_values

    assert told("", [1], []) == {}
    assert told("", [1, 2], [3]) == {1: 2}
    assert told("", [1, 2], [3, 4]) == {1: 2, 2: 3}
    assert told("patience", [1, 2], [3, 4, 6, 8]) == {1: 2, 2: 3, 3: 4, 4: 5}


def test_seeds_that_cannot_be_batched_are_trained_all_the_same(here: Path, pyro_vae: Run) -> None:
    """And one whose loss is not finite is a failed trial."""
    train = {**TRAIN, "compile": "off"}
    written(
        {
            **RANDOM,
            "train": train,
            "seeds": [0, 1],
            "search": {"optimiser.lr": [1e-3, 1e30]},
            "top": 1,
            "sampler": "grid",
            "trials": None,
        }
    )
    status, out, err = pyro_vae("sweep", "study.yaml")
    assert err == (
        "pyro-vae: note: the seeds of a trial take their steps in turn, not batched: compile is 'off'\n"
    )
    assert status == 0 and states_of("sweeps/rates") == ["COMPLETE", "FAIL"]
    assert "(the loss is nan" in out


def test_options_that_cannot_be_trained_fail_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    errors: list[Exception] = [
        UnusableError("too small"),
        NonFiniteLossError("the loss is nan"),
        MemoryError("all gone"),
    ]

    class Failing(Told):
        def value(self, options: Mapping[str, Any], seed: int) -> float:
            number = len(self.options) - 1
            if number < len(errors):
                raise errors[number]
            return float("nan") if number == 3 else 1.0

    found = worked(queue_of({**RANDOM, "trials": 5}), Failing())
    assert [each.state.name for each in found] == ["FAIL"] * 4 + ["COMPLETE"]
    reasons = [each.user_attrs["reason"] for each in found[:4]]
    assert reasons[:3] == ["too small", "the loss is nan", "MemoryError: all gone"]
    assert reasons[3].startswith("expected a finite value") and "too small" in capsys.readouterr().out


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), InputError("no data")])
def test_what_is_not_the_fault_of_the_options_leaves_the_trial(here: Path, error: Exception) -> None:
    class Stopped(Told):
        def value(self, options: Mapping[str, Any], seed: int) -> float:
            raise error

    queue, told = queue_of({**RANDOM, "trials": 2}), Told()
    with pytest.raises(type(error)):
        worked(queue, Stopped())
    assert [each.state.name for each in queue.trials()] == ["WAITING"] * 2
    tried = queue.trials()[0].params
    assert [each.state.name for each in worked(queue, told)] == ["COMPLETE"] * 2
    assert told.options[0]["optimiser.lr"] == tried["optimiser.lr"]


def running_of_the_dead(queue: Queue, number: int = 0) -> None:
    """A trial as a killed worker leaves it."""
    with ExitStack() as stack:
        assert queue._take(stack) == number


def test_a_trial_that_kills_its_workers_fails(here: Path) -> None:
    """As where the system ends what takes too much memory; one that gets on does not count as that."""
    queue = queue_of({**RANDOM, "trials": 1})
    trial_id = queue._id_of(0)
    for epoch in (1, 2):
        running_of_the_dead(queue)
        queue.storage.set_trial_intermediate_value(trial_id, epoch, 0.0)
        queue.take_back()
        assert queue.trials()[0].state is TrialState.WAITING
    for state in (TrialState.WAITING, TrialState.FAIL):
        running_of_the_dead(queue)
        queue.take_back()
        assert queue.trials()[0].state is state
    assert "its worker died 3 times in the same epoch" in queue.trials()[0].user_attrs["reason"]


def test_a_worker_elsewhere_is_dead_where_its_pulse_stands_still(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one that was only suspended leaves the trial to the other, and goes on with the next."""
    monkeypatch.setattr(Queue, "grace", 0.3)
    monkeypatch.setattr(Queue, "beat", 0.05)
    queues = [queue_of({**RANDOM, "trials": 2}) for _ in range(2)]
    for number, each in enumerate(queues):
        each._one_machine, each._place = False, f"machine {number}"
        monkeypatch.setattr(each, "place_of", lambda trial, n=number: Path(f"machine-{n}/trial-{trial:03}"))
    one, other = queues
    with one.claimed() as claim:
        assert claim is not None
        for _ in range(10):  # it lives
            other.take_back()
            time.sleep(0.06)
        assert one.trials()[0].state is TrialState.RUNNING
    other.take_back()
    time.sleep(0.35)
    other.take_back()  # no pulse since
    assert one.trials()[0].state is TrialState.WAITING
    told = Told()

    class Suspended(Told):
        def value(self, options: Mapping[str, Any], seed: int) -> float:
            one.storage.set_trial_state_values(one._id_of(0), TrialState.WAITING)
            assert len(worked(other, told)) == 2
            return 1.0

    suspended = Suspended()
    found = worked(one, suspended)
    assert (len(suspended.options), len(told.options)) == (1, 2)
    assert {each.user_attrs["worker"] for each in found} == {other.worker}
    assert found[0].value == told.value(told.options[0], 0)


def test_a_run_folder_half_made_is_made_anew(
    here: Path, pyro_vae: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker ended after it had made the folder, and before it wrote what the run is."""

    def half(folder: Path, *_: Any, **__: Any) -> None:
        (folder / "checkpoints").mkdir()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pyro_vae.cli.train.Run.create", half)
        assert pyro_vae("sweep", written({**RANDOM, "train": TRAIN, "trials": 1}))[0] == 130
    assert Path("sweeps/rates/trial-000/seed-0/checkpoints").exists()
    assert pyro_vae("sweep", "study.yaml")[0] == 0
    assert states_of("sweeps/rates") == ["COMPLETE"]
