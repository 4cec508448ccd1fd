"""What was measured, on what, and where."""

import platform
from dataclasses import replace
from importlib.metadata import version
from typing import Any, Literal

import torch
from pyro import poutine
from torch import Tensor

from pyro_vae.batch import Batch
from pyro_vae.data import Dataset, Split
from pyro_vae.errors import InputError, warn
from pyro_vae.likelihoods import ColumnsLikelihood, bits_per_dim
from pyro_vae.randomness import own_randomness
from pyro_vae.storage.files import read_json, read_text
from pyro_vae.storage.runs import Run
from pyro_vae.vae import JointProgram


def held_out(data: Dataset) -> Literal["train", "valid", "test"]:
    """The split to report on: test, or what is nearest to it where there is none."""
    names: tuple[Literal["train", "valid", "test"], ...] = ("test", "valid", "train")
    return next(name for name in names if len(getattr(data, name)))


def part_of(data: Dataset, split: str, num_data: int | None) -> Split:
    """`num_data` data of a split, by a fixed choice, as held-out data are; refused where it has none.

    What programs get in training only, as labels, is left out.
    """
    part: Split = getattr(data, split).subset(num_data)
    part = part if part.given == data.given else replace(part, given=data.given)
    if not len(part):
        raise InputError(f"expected {split} data, got none: choose another with --split")
    return part


def note_other_data(run: Run, data: Dataset) -> None:
    """Say where the held-out data are not those of the summary.json of a run, if it has one.

    Warns:
        UserWarning: where their hash is another.
    """
    path = run.folder / "summary.json"
    try:
        summary = read_json(read_text(path))
        split, before = summary["split"], summary["data_hash"]
        there, number = getattr(data, split), int(summary["elbo"][split]["num_data"])
    except (InputError, OSError, LookupError, TypeError, ValueError, AttributeError):
        return  # none, or one that is damaged, as those say who read it for its numbers
    part: Split = replace(there.subset(number), given=data.given)
    if part.hash() != before:
        warn(
            f"the {split} data are not those of {path}: their hash is {part.hash()}, not {before}, so "
            "results of before and of now do not compare"
        )


@torch.no_grad()
def is_mass(vae: JointProgram, data: Tensor | Batch) -> bool:
    """Whether p(x) is a probability, not a density: whether all that the model observes is discrete."""
    with own_randomness(0, vae.device):
        nodes = Batch.of(data, None)[:1].call(poutine.trace(vae.model).get_trace).nodes.values()
    observed = [site for site in nodes if site["type"] == "sample" and site["is_observed"]]
    made_up = {"_deterministic", "is_auxiliary"}  # pyro.deterministic and pyro.factor
    return all(site["fn"].support.is_discrete for site in observed if not made_up & site["infer"].keys())


def units(data: Dataset, mass: bool, vae: JointProgram) -> str:
    """What a number of nats is of: a probability where `mass`, else a density of the data as they are."""
    if mass:
        return "nats per datum"
    for likelihood in vae.modules():
        if isinstance(likelihood, ColumnsLikelihood):
            return f"nats per datum, of {likelihood.density_in_words}"
    kind = " of uniformly dequantised data" if data.bin_width else ""
    if data.levels:
        kind = " at discrete values, where it can grow without limit"
    return f"nats per datum, of a density{kind}"


def bits(data: Dataset, mass: bool, log_px: float, part: Split | None = None) -> dict[str, float]:
    """Bits per dimension of grey levels, where the data are levels or dequantised levels; else nothing.

    Per observed dimension, where some of `part`, the data of log p(x), are missing.
    """
    bin_width = 1.0 if mass and (data.levels or 0) > 2 else None if mass else data.bin_width
    if not bin_width:
        return {}
    observed = data.data_shape.numel() - part.num_missing / len(part) if part else None
    found = bits_per_dim(log_px, data.data_shape, bin_width=bin_width, num_observed=observed)
    return {"bits_per_dim": found}


def missing(data: Dataset, part: Split) -> dict[str, int]:
    """How many entries of a part are missing, of how many, where the data may lack some; else nothing."""
    if not data.missing:
        return {}
    return {"missing_entries": part.num_missing, "entries": len(part) * data.data_shape.numel()}


def circumstances(vae: JointProgram) -> dict[str, Any]:
    """Device and versions."""
    return {
        "device": _device(vae.device),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("pyro_vae", "pyro-ppl", "torch", "numpy")},
        },
    }


def _device(device: torch.device) -> str:
    """A device in words, and that float32 products are rounded as TF32 or bfloat16 there where they are."""
    if device.type != "cuda":
        threads = torch.get_num_threads()
        return f"{device.type}, {threads} thread{'s' * (threads > 1)}"
    name, precision = torch.cuda.get_device_name(device), torch.get_float32_matmul_precision()
    return name if precision == "highest" else f"{name}, float32 products of {precision} precision only"
