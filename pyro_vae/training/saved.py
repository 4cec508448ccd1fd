"""What is in last.pt and best.pt."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from pyro_vae.storage.checkpoints import (
    are_random_states,
    are_tensors,
    is_number,
    is_text_keyed,
    load_checkpoint,
)
from pyro_vae.training.history import Epoch, History

#: What is in both.
_SHARED = {
    "model": are_tensors,
    "settings": is_text_keyed,
    "about": is_text_keyed,
    "description": is_text_keyed,
}


def load_best(path: Path) -> dict[str, Any]:
    """The parameters of the best epoch.

    Raises:
        InputError: where the file is missing, damaged or something else.
    """
    return load_checkpoint(path, {**_SHARED, "epoch": is_number, "valid_elbo": _is_float})


def load_last(path: Path) -> dict[str, Any]:
    """All that a training goes on from.

    Raises:
        InputError: where the file is missing, damaged or something else.
    """
    return load_checkpoint(
        path,
        {
            **_SHARED,
            "best": lambda value: value is None or are_tensors(value),
            "optimiser": is_text_keyed,
            "schedule": is_text_keyed,
            "random_state": are_random_states,
            "step": is_number,
            "epochs": _are_epochs,
            "best_epoch": is_number,
            "ended_by": lambda value: value in ("budget", "patience", "callback", ""),
        },
        _is_consistent,
    )


def history_of(state: Mapping[str, Any]) -> History:
    """The epochs of what `load_last` gave."""
    return History([Epoch(*row) for row in state["epochs"]], state["best_epoch"], state["ended_by"])


def _is_float(value: object) -> bool:
    return isinstance(value, float)


def _are_epochs(rows: list[list[Any]]) -> bool:
    """Rows of numbers, counted from 1, each with more steps than the one before."""
    epochs = [Epoch(*row) for row in rows]
    whole = [(epoch.epoch, epoch.step) for epoch in epochs]
    return (
        all(is_number(each) for pair in whole for each in pair)
        and all(isinstance(each, int | float) for row in rows for each in row)
        and [number for number, _ in whole] == list(range(1, len(rows) + 1))
        and all(earlier < later for (_, earlier), (_, later) in pairwise([(0, 0), *whole]))
    )


def _is_consistent(state: Mapping[str, Any]) -> bool:
    epochs = state["epochs"]
    return (
        len(epochs) > 0
        and state["step"] == epochs[-1][1]
        and state["best_epoch"] <= len(epochs)
        and (state["best"] is None) == (state["best_epoch"] == 0)
    )
