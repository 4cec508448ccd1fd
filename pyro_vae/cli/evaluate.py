"""`pyro-vae evaluate`."""

import warnings
from pathlib import Path
from typing import Any, Literal

from pyro_vae import plots, reports
from pyro_vae.cli.common import estimator_of, stages_of, table_alone
from pyro_vae.cli.loading import TrainedRun, load
from pyro_vae.cli.pictures import save_picture
from pyro_vae.data import Dataset, Split
from pyro_vae.errors import InputError, seed_number
from pyro_vae.importance import LogEvidence
from pyro_vae.ranks import here, sharing
from pyro_vae.storage.hashing import fingerprint_of
from pyro_vae.storage.locks import locked
from pyro_vae.storage.runs import Run
from pyro_vae.storage.stages import Stages
from pyro_vae.tabular import Format, formatted
from pyro_vae.vae import JointProgram

#: Data drawn from the model on which annealing is certified, by default.
_SIMULATED = 20
#: Pictures of importance sampling.
PICTURES = ("bound_curve", "pareto_k")


def evaluate(
    run: Path,
    *,
    method: reports.Method | None = None,
    particles: int = 1000,
    until_standard_error: float | None = None,
    chains: int = 16,
    temperatures: int | None = None,
    until_gap: float | None = None,
    start: Literal["prior", "guide"] = "prior",
    simulated: int | None = None,
    budget: float = 60.0,
    num_data: int | None = None,
    split: Literal["train", "valid", "test", "all"] | None = None,
    data: Dataset | None = None,
    seed: int = 0,
    device: str = "auto",
    format: Format = "text",
) -> None:
    """ELBO and log p(x) of a trained run, into its evaluation.json, and of each datum into per_datum.npz.

    New data, as by `--data ArrayFile --data.path new.npy`, are evaluated likewise, and nothing is written:
    `score` keeps the numbers of each datum of a file.

    Draws from q(z|x) (`importance`), or from a proposal that is fitted to each datum for which q(z|x) is a
    bad one (`local`), take seconds, and a Pareto k-hat above 0.7 tells the data whose estimates are likely
    too low. Annealing takes minutes to hours, and from the prior does not rest on q(z|x); `auto` anneals,
    within a budget of seconds, only those data whose local proposals a pilot finds bad. All are lower bounds
    in expectation, and the table has one that holds with a probability of 95 %. Ctrl-C or a kill costs ten
    seconds or so: the same command goes on. Several ranks, by torchrun, share out the
    data, to the same numbers.

    Args:
        run: Folder of the run.
        method: How log p(x) is estimated; by default `local`, or `importance` where no latent can be fitted
            or particles are less than 500.
        particles: Draws per datum, but of annealing; with until_standard_error at the most.
        until_standard_error: Draw each datum as often as it takes for a Monte Carlo standard error of this,
            in nats, as a pilot finds; null for always all.
        chains: Annealed chains per datum.
        temperatures: Of the annealing, from its start to the posterior, by default 1000; with until_gap at
            the most, 10,000.
        until_gap: Find the temperatures with which the mean of log p(x) is within so many nats, as 0.1:
            pilots on 100 data foretell them, and bounds on simulated data confirm them. Half the gap takes
            about twice the time.
        start: Where annealing starts, at p(z) or at q(z|x); the guide takes fewer temperatures where it is
            good, and may miss what it misses.
        simulated: On how many data drawn from the model annealing is certified, by bounds from below and
            above (bidirectional Monte Carlo); by default 20, and 100 with until_gap; 0 for none. Each takes
            twice the time of a datum.
        budget: Seconds of annealing by the method auto, about; until_gap is instead a budget of nats.
        num_data: How many data, by a fixed choice; null for all.
        split: Which data; by default test, and all of new data.
        data: New data, a class and its options as in `train`; by default those of the training.
        seed: Of all random numbers.
        device: Where to compute; `auto` takes a GPU where there is one.
        format: Of the table on the screen: text, or markdown, latex or csv to be copied.
    """
    estimator = estimator_of(
        evaluate,
        method=method or "local",
        particles=particles,
        until_standard_error=until_standard_error,
        chains=chains,
        temperatures=temperatures,
        until_gap=until_gap,
        start=start,
        simulated=simulated,
        budget=budget,
    )
    if simulated is None and until_gap is None:
        estimator = estimator._replace(simulated=_SIMULATED)
    split = split or ("test" if data is None else "all")
    options = {"split": split, "seed": seed_number(seed)}
    opened = load(run, device=device)
    new, vae = data is not None, opened.vae
    data = opened.data() if data is None else opened.like(data)
    part = reports.part_of(data, split, num_data)
    if method is None and not vae.no_evidence:
        estimator = estimator._replace(method=reports.usual_method(vae, reports.like(vae, part), particles))
    here().check_alike({"a model": fingerprint_of(vae), "data": part.hash()})
    place = opened.run.checkpoints / ("evaluation of new data" if new else "evaluation")
    with (
        locked(opened.run.folder, shared=True),
        stages_of(place, vae, part, estimator, options) as stages,
        table_alone(format) as screen,
        sharing(),
    ):
        found = reports.evaluation(
            vae,
            data,
            split=split,
            num_data=num_data,
            seed=seed,
            estimator=estimator,
            certificate=_certificate(stages, vae, part, estimator, seed),
            checkpoint=stages.within("log_evidence"),
        )
        if not here().first:
            return
        if not new:
            _keep(opened, found)
        if format == "text":
            print(reports.table(found.content, None if new else opened.run.folder))
        else:
            print(formatted(reports.table_rows(found.content), format), end="", file=screen)
        if not new:
            _draw(opened.run, found)


def _keep(opened: TrainedRun, found: reports.Evaluation) -> None:
    """evaluation.json and per_datum.npz."""
    path = opened.run.folder / "evaluation.json"
    if path.exists():
        print(f"replacing the earlier {path}")
    opened.run.write_arrays("per_datum.npz", {**found.per_datum, **opened.identity})
    opened.run.write_json("evaluation.json", {**found.content, **opened.identity})


def _certificate(
    stages: Stages, vae: JointProgram, part: Split, estimator: reports.Estimator, seed: int
) -> dict[str, Any] | None:
    """That of annealing, where it is asked for and the model can be drawn from."""
    searched = estimator.until_gap is not None  # which has its own
    if estimator.method != "annealed" or not estimator.simulated or vae.no_evidence or searched:
        return None

    checkpoint = stages.within("certificate of annealing")
    try:
        found = stages("certificate", lambda: estimator.certificate(vae, part, seed, checkpoint=checkpoint))
        return {**found, "seconds": stages.seconds["certificate"]}
    except InputError as error:
        warnings.warn(f"no certificate on simulated data: {error}", stacklevel=2)
        return None


def _draw(run: Run, found: reports.Evaluation) -> None:
    """The pictures of importance sampling; those of an earlier evaluation do not stay."""
    for name in PICTURES:
        (run.figures / f"{name}.png").unlink(missing_ok=True)
    if isinstance(found.evidence, LogEvidence):
        curve, units = found.evidence.curve, found.content["units"]
        save_picture(run, "bound_curve", plots.bound_curve(curve.num_particles, curve.bound, units=units))
        save_picture(run, "pareto_k", plots.pareto_k(found.evidence.pareto_k))
