"""`pyro-vae diagnose`."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pyro_vae import plots, reports
from pyro_vae.cli.common import estimator_of, stages_of, table_alone
from pyro_vae.cli.loading import load
from pyro_vae.cli.pictures import save_picture
from pyro_vae.errors import InputError, count, seed_number
from pyro_vae.reports.diagnosing import calibration_of, coverage_of
from pyro_vae.storage.locks import locked
from pyro_vae.storage.runs import Run
from pyro_vae.storage.stages import Stages
from pyro_vae.tabular import Format, formatted

#: Of the annealing, without a gap that is asked for.
_TEMPERATURES = 200


def diagnose(
    run: Path,
    *,
    num_data: int | None = 100,
    split: Literal["train", "valid", "test"] = "test",
    method: reports.Method = "annealed",
    particles: int = 5000,
    chains: int = 16,
    temperatures: int | None = None,
    until_gap: float | None = None,
    start: Literal["prior", "guide"] = "guide",
    simulated: int = 0,
    num_steps: int = 500,
    nuts: int = 0,
    seed: int = 0,
    device: str = "auto",
    format: Format = "text",
) -> None:
    """Where the nats go: every nat between the data and log p(x), and which part of the model to swap.

    Distortion, mutual information, marginal KL, amortisation gap and approximation gap add up to log p(x);
    beside them stand what a better prior would save, the train-test gap, active latent units, and whether
    q(z|x) is calibrated on data drawn from the model, in its margins and jointly. A verdict in words names
    the largest loss and what to swap for it. All is kept in diagnosis.json, with pictures in figures/. Ctrl-C
    or a kill costs the stage in progress at the most: the same command goes on.

    Args:
        run: Folder of the run.
        num_data: How many data, by a fixed choice; null for all.
        split: Which data; the train-test gap is that to training data.
        method: How log p(x) is estimated.
        particles: Importance samples per datum, by that method.
        chains: Annealed chains per datum, by that method.
        temperatures: Of the annealing, by default 200; with until_gap at the most, by default 10,000.
        until_gap: Find the temperatures with which the mean of log p(x) is within so many nats, as 0.1.
        start: Where annealing starts, at p(z) or at q(z|x). From p(z) there is a rate-distortion curve, too.
        simulated: Data drawn from the model on which annealing is certified, and the mutual information
            bounded from both sides; 0 for none.
        num_steps: Steps of the search for the best q(z|x) of each datum, on which the gaps stand.
        nuts: On how many data q(z|x) is held against exact draws by NUTS; half a minute each, or more.
        seed: Of all random numbers.
        device: Where to compute; `auto` takes a GPU where there is one.
        format: Of the table of nats on the screen: text, or markdown, latex or csv to be copied.
    """
    estimator = estimator_of(
        diagnose,
        method=method,
        particles=particles,
        chains=chains,
        temperatures=temperatures,
        until_gap=until_gap,
        start=start,
        simulated=simulated,
    )
    if until_gap is not None:
        if simulated:
            raise InputError(
                "--until_gap has simulated data of its own, got --simulated too: give one of them"
            )
        estimator = estimator._replace(simulated=None)
    elif temperatures is None:
        estimator = estimator._replace(temperatures=_TEMPERATURES)
    options = {"split": split, "num_steps": count("num_steps", num_steps), "seed": seed_number(seed)}
    if nuts:
        count("nuts", nuts)
    opened = load(run, device=device)
    data, vae = opened.data(), opened.vae
    parts = reports.Diagnosing(vae, data, split=split, num_data=num_data, seed=seed)
    place = opened.run.checkpoints / "diagnosis"
    with (
        locked(opened.run.folder, shared=True),
        stages_of(place, vae, parts.part, estimator, options) as stages,
        table_alone(format) as screen,
    ):
        found = _found(stages, parts, estimator, num_steps, nuts)
        content = parts.content(found, sum(stages.seconds.values()))
        path = opened.run.folder / "diagnosis.json"
        if path.exists():
            print(f"replacing the earlier {path}")
        opened.run.write_json(path.name, {**content, **opened.identity})
        if format == "text":
            print(reports.diagnosis_table(content, found["nats"]["table"], opened.run.folder), end="\n\n")
        else:
            print(formatted(reports.diagnosis_rows(content), format), end="", file=screen)
        _draw(opened.run, found, parts, content["units"])


def _found(
    stages: Stages, parts: reports.Diagnosing, estimator: reports.Estimator, num_steps: int, nuts: int
) -> dict[str, dict[str, Any]]:
    """All stages, those that were finished before as they were kept."""
    checkpoint = stages.within("log_evidence")
    found = {"evidence": stages("evidence", lambda: parts.evidence(estimator, checkpoint))}
    if estimator.simulated:
        within = stages.within("simulated data")
        found["simulated"] = stages("simulated", lambda: parts.simulated(estimator, within))
    found["nats"] = stages("nats", lambda: parts.nats(found["evidence"], num_steps, found.get("simulated")))
    found["calibration"] = stages("calibration", parts.calibration)
    if nuts:
        found["posteriors"] = stages(f"posteriors of {nuts}", lambda: parts.posteriors(nuts))
    return found


def _draw(run: Run, found: Mapping[str, Mapping[str, Any]], parts: reports.Diagnosing, units: str) -> None:
    """The pictures; those of an earlier diagnosis do not stay beside them."""
    for name in ("calibration", "posteriors", "rate_distortion"):
        (run.figures / f"{name}.png").unlink(missing_ok=True)
    save_picture(run, "waterfall", plots.waterfall(**{**found["nats"]["waterfall"], "units": units}))
    save_picture(run, "units", plots.latent_units(**found["nats"]["units"]))
    if curve := found["evidence"]["rate_distortion"]:
        own = (found["nats"]["content"][name]["mean"] for name in ("distortion", "rate"))
        figure = plots.rate_distortion(curve["distortion"], curve["rate"], guide=tuple(own), units=units)
        save_picture(run, "rate_distortion", figure)
    if "skipped" not in found["calibration"]:
        ranks, points = calibration_of(found["calibration"]), coverage_of(found["calibration"])
        figure = plots.rank_histograms(
            ranks.ranks,
            ranks.names,
            ranks.num_draws,
            bins=ranks.bins,
            p_values=ranks.p_value.tolist(),
            verdicts=ranks.verdicts,
            coverage=points.curve(),
            points=[f"{name}: {words}" for name, words in zip(points.names, points.verdicts, strict=True)],
        )
        save_picture(run, "calibration", figure)
    if "posteriors" in found:
        exact = found["posteriors"]
        pictures = parts.x.x[: exact["num_data"]].cpu()
        try:
            figure = plots.posterior_contours(
                exact["exact"], exact["guide"], exact["names"], pictures=pictures
            )
        except InputError as error:  # one latent coordinate has no contours
            print(f"pyro-vae: note: {error}", file=sys.stderr)
        else:
            save_picture(run, "posteriors", figure)
