"""ELBO and log p(x) of a trained model, from Python: what `pyro-vae evaluate` prints."""

from pathlib import Path
from typing import Literal, Protocol

from pyro_vae.annealing import usual_temperatures
from pyro_vae.data import Dataset
from pyro_vae.errors import InputError, count, draws, seed_number
from pyro_vae.reports.estimators import Estimator, Method, like, usual_method
from pyro_vae.reports.facts import held_out, part_of
from pyro_vae.reports.measuring import Evaluation, evaluation
from pyro_vae.vae import JointProgram


class HasRun(Protocol):
    """A trained run that was opened, as by `load`."""

    @property
    def vae(self) -> JointProgram:
        """The model."""

    def data(self) -> Dataset:
        """The data of the training."""


def evaluate(
    run: HasRun | JointProgram,
    data: Dataset | None = None,
    *,
    split: Literal["train", "valid", "test", "all"] | None = None,
    num_data: int | None = None,
    method: Method | None = None,
    particles: int = 1000,
    until_standard_error: float | None = None,
    chains: int = 16,
    temperatures: int | None = None,
    until_gap: float | None = None,
    start: Literal["prior", "guide"] = "prior",
    simulated: int | None = None,
    budget: float = 60.0,
    seed: int = 0,
    checkpoint: Path | None = None,
    progress: bool | None = None,
) -> Evaluation:
    """ELBO and log p(x), in nats per datum, with errors and all that says what was measured.

    The numbers are those of `pyro-vae evaluate` with the same options; printed, the result is its table.

    Args:
        run: A run opened by `load`, or a model.
        data: The data; by default those of the run's training.
        split: Which of them; by default test, or validation or training data where there are none.
        num_data: How many data, by a fixed choice; None for all.
        method: How log p(x) is estimated: by `log_evidence` from the guide (`importance`) or from a proposal
            fitted to each datum (`local`, the default from 500 particles on, where one can be fitted), by
            `annealed_log_evidence` (`annealed`), or by `auto_log_evidence` (`auto`), which anneals those data
            for which no proposal is good.
        particles: Draws per datum, but of annealing; with until_standard_error at the most.
        until_standard_error: Draw each datum as often as it takes for a Monte Carlo error of this, in nats.
        chains: Annealed chains per datum.
        temperatures: Of the annealing, by default 1000; with until_gap at the most, 10,000.
        until_gap: Find the temperatures with which the mean of log p(x) is within so many nats.
        start: Where annealing starts, at p(z) or at q(z|x).
        simulated: On how many data drawn from the model annealing is certified; by default none, and with
            until_gap 100.
        budget: Seconds of annealing by the method auto, about; until_gap is instead a budget of nats.
        seed: Of all random numbers.
        checkpoint: A file from which the same call goes on where it was interrupted.
        progress: Show a progress bar; by default in a terminal and in a notebook.

    Returns:
        `content`, means and circumstances as in evaluation.json; `per_datum`, arrays as in per_datum.npz; and
        `evidence`, the estimate of log p(x) itself.

    Raises:
        InputError: where a number is not positive, the split is empty, or the data do not fit the model.

    >>> from pyro_vae import Digits, assemble
    >>> data = Digits()
    >>> found = evaluate(assemble(data), data, num_data=20, particles=50)
    >>> found.content["split"], len(found.per_datum["log_evidence"])
    ('test', 20)
    """
    if temperatures is None:
        temperatures = usual_temperatures(until_gap)
    for name, value in (("particles", particles), ("chains", chains), ("temperatures", temperatures)):
        draws(name, value)
    if simulated:
        count("simulated", simulated)
    vae = run if isinstance(run, JointProgram) else run.vae
    if data is None:
        if isinstance(run, JointProgram):
            raise InputError("expected the data to evaluate a model on, got none: give a Dataset")
        data = run.data()
    split = split or held_out(data)
    if method is None:
        part = part_of(data, split, num_data)
        method = "importance" if vae.no_evidence else usual_method(vae, like(vae, part), particles)
    estimator = Estimator(
        method, particles, until_standard_error, chains, temperatures, start, simulated, budget, until_gap
    )
    certificate = None
    if method == "annealed" and simulated and until_gap is None and not vae.no_evidence:
        part = part_of(data, split, num_data)
        certificate = estimator.certificate(vae, part, seed_number(seed), progress=progress)
    return evaluation(
        vae,
        data,
        split=split,
        num_data=num_data,
        seed=seed_number(seed),
        estimator=estimator,
        certificate=certificate,
        checkpoint=checkpoint,
        progress=progress,
    )
