"""The numbers that a run ends with, as a dictionary for JSON and as a table for a person."""

import platform
import time
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np
import torch
from pyro import poutine
from torch import Tensor

from pyro_vae.data import Dataset, Split
from pyro_vae.errors import InputError
from pyro_vae.importance import ELBO, LogEvidence, elbo, log_evidence
from pyro_vae.likelihoods import bits_per_dim
from pyro_vae.training import History, own_randomness
from pyro_vae.vae import JointProgram

#: Draws per datum for a reported ELBO.
ELBO_PARTICLES = 10


class Evaluation(NamedTuple):
    """What `evaluation` found."""

    #: Means and circumstances, for JSON.
    content: dict[str, Any]
    #: elbo, log_evidence, standard_error and effective_sample_size, (B,) float64 each, in the order of the
    #: data, with the data_hash, particles, seed and split that say to which result they belong.
    per_datum: dict[str, Any]


def bounds(terms: ELBO) -> dict[str, float | int]:
    """Mean ELBO, reconstruction and KL, in nats per datum."""
    means = {name: float(part.mean()) for name, part in terms._asdict().items()}
    return {**means, "num_data": len(terms.elbo)}


def evidence(result: LogEvidence) -> dict[str, float | int | str]:
    """Mean log p(x) by importance sampling, in nats per datum, with its errors."""
    return {
        "estimate": result.mean,
        "standard_error": result.mean_standard_error,
        "monte_carlo_error": result.mean_monte_carlo_error,
        "method": "importance",
        "particles": int(result.num_particles.max()),
        "num_data": len(result.estimate),
    }


@torch.no_grad()
def is_mass(vae: JointProgram, x: Tensor) -> bool:
    """Whether p(x) is a probability, not a density: whether all that the model observes is discrete."""
    with own_randomness(0, vae.device):
        nodes = poutine.trace(vae.model).get_trace(x[:1]).nodes.values()
    observed = [site for site in nodes if site["type"] == "sample" and site["is_observed"]]
    made_up = {"_deterministic", "is_auxiliary"}  # pyro.deterministic and pyro.factor
    return all(site["fn"].support.is_discrete for site in observed if not made_up & site["infer"].keys())


def units(data: Dataset, mass: bool) -> str:
    """What a number of nats is of: a probability where `mass`, else a density of the data as they are."""
    if mass:
        return "nats per datum"
    kind = " of uniformly dequantised data" if data.bin_width else ""
    if data.levels:
        kind = " at discrete values, where it can grow without limit"
    return f"nats per datum, of a density{kind}"


def bits(data: Dataset, mass: bool, log_px: float) -> dict[str, float]:
    """Bits per dimension of grey levels, where the data are levels or dequantised levels; else nothing."""
    bin_width = 1.0 if mass and (data.levels or 0) > 2 else None if mass else data.bin_width
    return {"bits_per_dim": bits_per_dim(log_px, data.data_shape, bin_width=bin_width)} if bin_width else {}


def per_datum(terms: ELBO, result: LogEvidence) -> dict[str, np.ndarray]:
    """ELBO, log p(x), its standard error and effective sample size of each datum, (B,) float64 each."""
    arrays = {
        "elbo": terms.elbo,
        "log_evidence": result.estimate,
        "standard_error": result.standard_error,
        "effective_sample_size": result.effective_sample_size,
    }
    return {name: array.double().cpu().numpy() for name, array in arrays.items()}


def _terms(vae: JointProgram, x: Tensor) -> ELBO:
    return elbo(vae.model, vae.guide, x, num_particles=ELBO_PARTICLES)


def held_out(data: Dataset) -> str:
    """The split to report on: test, or what is nearest to it where there is none."""
    return next(name for name in ("test", "valid", "train") if len(getattr(data, name)))


def evaluation(
    vae: JointProgram,
    data: Dataset,
    *,
    split: str,
    particles: int,
    num_data: int | None,
    seed: int,
    progress: bool = False,
) -> Evaluation:
    """ELBO and log p(x) of the same data of one split, with all that says what was measured."""
    part: Split = getattr(data, split).subset(num_data)
    if not len(part):
        raise InputError(f"expected {split} data, got none: choose another with --split")
    start = time.perf_counter()
    with own_randomness(seed, vae.device):
        x = vae.place(part.batch())
        terms = _terms(vae, x)
        if vae.no_evidence:
            measured: dict[str, Any] = {"log_evidence": None, "no_log_evidence": vae.no_evidence}
            measured["units"] = "reconstruction error per datum, negated"
            arrays = {"elbo": terms.elbo.cpu().numpy()}
        else:
            result = log_evidence(vae.model, vae.guide, x, num_particles=particles, progress=progress)
            mass = is_mass(vae, x)
            measured = {"log_evidence": {**evidence(result), **bits(data, mass, result.mean)}}
            measured["units"] = units(data, mass)
            arrays = per_datum(terms, result)
    content = {
        "data": data.name,
        "split": split,
        "elbo": {split: bounds(terms)},
        **measured,
        "protocol": data.protocol,
        "data_hash": part.hash(),
        "seed": seed,
        "seconds": time.perf_counter() - start,
        **circumstances(vae),
    }
    belongs = {name: content[name] for name in ("data_hash", "seed", "split")}
    return Evaluation(content, {**arrays, "particles": particles, **belongs})


def summary(
    vae: JointProgram, data: Dataset, history: History, evaluated: Mapping[str, Any]
) -> dict[str, Any]:
    """All final numbers of a training: the content of `evaluation`, and the ELBO of the other splits."""
    others = [name for name in ("train", "valid") if len(getattr(data, name)) and name != evaluated["split"]]
    with own_randomness(evaluated["seed"], vae.device):
        elbos = {name: bounds(_terms(vae, vae.place(getattr(data, name).batch()))) for name in others}
    return {
        **evaluated,
        "elbo": {**elbos, **evaluated["elbo"]},
        "training": {
            "epochs": len(history.epochs),
            "steps": history.epochs[-1].step,
            "best_epoch": history.best_epoch,
            "ended_by": history.ended_by,
            "seconds": sum(history.column("seconds")),
            "parameters": sum(parameter.numel() for parameter in vae.parameters()),
        },
    }


def circumstances(vae: JointProgram) -> dict[str, Any]:
    """Device and versions."""
    on_gpu = vae.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(vae.device)
        if on_gpu
        else f"cpu, {torch.get_num_threads()} threads",
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("pyro_vae", "pyro-ppl", "torch", "numpy")},
        },
    }


def table(content: Mapping[str, Any], folder: object) -> str:
    """A short table of what `summary` or `evaluation` gave."""
    lines = _measured(content) if content["log_evidence"] else _errors(content)
    rows = {"protocol": f"{content['protocol']}, hash {content['data_hash']}"}
    seconds = f"{content['seconds']:.1f} s evaluation on {content['device']}"
    if "training" in content:
        training = content["training"]
        rows["training"] = (
            f"{training['epochs']} epochs, {training['steps']} steps, ended by {training['ended_by']}; "
            f"best epoch {training['best_epoch']}"
        )
        seconds = f"{training['seconds']:.1f} s training, {seconds}"
    rows |= {"time": seconds, "folder": str(folder)}
    return "\n".join(lines + [f"{name:<15}{value}" for name, value in rows.items()])


def _measured(content: Mapping[str, Any]) -> list[str]:
    """The lines on ELBO and log p(x)."""
    lines = [f"{'nats per datum':<15}{'ELBO':>10} = {'reconstruction':>14} − {'KL':>7}"]
    for name, part in content["elbo"].items():
        numbers = f"{part['elbo']:>10.3f}   {part['reconstruction']:>14.3f}   {part['kl']:>7.3f}"
        lines.append(f"{name:<15}{numbers}   {part['num_data']} data")
    found = content["log_evidence"]
    lines.append(
        f"{'log p(x)':<15}{found['estimate']:>10.3f} ± {found['standard_error']:.3f} on {found['num_data']} "
        f"{content['split']} data, {found['particles']} importance samples each "
        f"(Monte Carlo error {found['monte_carlo_error']:.3f})"
    )
    if "bits_per_dim" in found:
        bound = "   (an upper bound, by dequantisation)" if "dequantised" in content["units"] else ""
        lines.append(f"{'bits per dim':<15}{found['bits_per_dim']:>10.4f}{bound}")
    if content["units"] != "nats per datum":
        lines.append(f"{'units':<15}{content['units']}")
    return lines


def _errors(content: Mapping[str, Any]) -> list[str]:
    """The lines on a program that has no log p(x)."""
    lines = [f"{'per datum':<15}{'error':>10}"]
    for name, part in content["elbo"].items():
        lines.append(f"{name:<15}{-part['elbo']:>10.3f}   {part['num_data']} data")
    return [*lines, f"{'log p(x)':<15}none: {content['no_log_evidence']}"]
