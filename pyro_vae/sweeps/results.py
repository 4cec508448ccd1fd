"""What came out of a study: a table of its trials, and Optuna's pictures of it."""

import csv
import io
import statistics
import warnings
from collections.abc import Iterator
from typing import Any

import optuna
from matplotlib.figure import Figure
from optuna.trial import FrozenTrial, TrialState

from pyro_vae.sweeps.reading import StudyFile
from pyro_vae.sweeps.worker import options_tried, tried_in_words

#: Rows of the table on the screen.
_ROWS = 10

#: What a trial's value is.
IN_WORDS = {"elbo": "ELBO", "log_evidence": "log p(x)"}


def best_first(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """Trials that were trained to their end, the best on the validation data first."""
    complete = [each for each in trials if each.state is TrialState.COMPLETE]
    return sorted(complete, key=lambda each: (-(each.value or 0.0), each.number))


def table(file: StudyFile, trials: list[FrozenTrial]) -> str:
    """The best trials, and how the others ended."""
    best = best_first(trials)
    counts = {state: sum(each.state is state for each in trials) for state in TrialState}
    of_seeds = f", mean of {len(file.seeds)} seeds" if len(file.seeds) > 1 else ""
    head = f"{'trial':>7}  {f'valid {IN_WORDS[file.select_by]}':>16}"
    lines = [f"{head}{'  sd of seeds' if of_seeds else ''}  options"]
    for each in best[:_ROWS]:
        spread = statistics.stdev(each.user_attrs["values"]) if of_seeds else 0.0
        seeds = f"  {spread:11.3f}" if of_seeds else ""
        lines.append(f"{each.number:>7}  {each.value:16.3f}{seeds}  {tried_in_words(file, each)}")
    ends = [f"{counts[state]} {state.name.lower()}" for state in TrialState if counts[state]]
    lines.append(f"{len(trials)} trials: {', '.join(ends)}; nats per datum of the validation data{of_seeds}")
    failed = [each for each in trials if each.state is TrialState.FAIL]
    lines += [f"trial {each.number} failed: {each.user_attrs.get('reason', '')}" for each in failed[:_ROWS]]
    return "\n".join(lines)


def as_csv(file: StudyFile, trials: list[FrozenTrial]) -> str:
    """One line per trial, with every digit."""
    options = list(dict.fromkeys(each.option for each in file.space.dimensions))
    seeds = [f"seed {seed}" for seed in file.seeds]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["trial", "state", "value", *seeds, *options, "epochs_seen", "started", "ended", "reason"]
    )
    for each in trials:
        tried = options_tried(file, each.params)
        values = each.user_attrs.get("values") or [""] * len(seeds)
        value = each.value if each.state is TrialState.COMPLETE else ""
        end = [each.last_step, each.datetime_start, each.datetime_complete, each.user_attrs.get("reason", "")]
        chosen = [tried.get(option, "") for option in options]
        writer.writerow([each.number, each.state.name.lower(), value, *values, *chosen, *end])
    return text.getvalue()


def pictures(file: StudyFile, study: optuna.Study) -> Iterator[tuple[str, Figure]]:
    """Optuna's pictures, by name: how the best value rose, which options mattered, and the learning curves.

    There are those for which there are trials enough.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from optuna.visualization import matplotlib as drawn

    value = {"target_name": f"valid {IN_WORDS[file.select_by]}"}
    kinds: dict[str, tuple[Any, dict[str, str]]] = {
        "optimisation_history": (drawn.plot_optimization_history, value),
        "parameter_importances": (drawn.plot_param_importances, value),
        "learning_curves": (drawn.plot_intermediate_values, {}),
    }
    for name, (draw, options) in kinds.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                axes = draw(study, **options)
            except (ValueError, RuntimeError, ZeroDivisionError):  # too few trials, or all of one value
                continue
        if name == "learning_curves":
            axes.set(title="", xlabel="epoch", ylabel="valid ELBO of the first seed")
        yield name, axes.figure
        pyplot.close(axes.figure)
