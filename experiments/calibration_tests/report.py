"""The table of the trials in a file."""

from collections.abc import Mapping
from typing import Any

import torch

from experiments.markdown import markdown
from pyro_vae.diagnosis.common import holm

Records = Mapping[str, Mapping[str, Any]]
#: Sets of p-values, each held at 5 % over all in it (Holm 1979).
TESTS = {
    "margins": ("margins",),
    "margins and log p(x, z)": ("margins", "log p(x, z)"),
    "`tarp`": ("tarp",),
    "`local_test` at one x": ("local_test",),
}


def rejected(record: Mapping[str, Any], parts: tuple[str, ...]) -> bool:
    """Whether the p-values of these tests together reject q."""
    return any(holm(torch.tensor([value for part in parts for value in record[part]])))


def plants(records: Records) -> list[str]:
    """Their names, in order."""
    return list(dict.fromkeys(record["plant"] for record in records.values()))


def passing(records: Records, plant: str, parts: tuple[str, ...]) -> tuple[int, int, int]:
    """Trials, those in which the margins pass, and of these the ones in which the test rejects."""
    trials = [record for record in records.values() if record["plant"] == plant]
    passed = [record for record in trials if not rejected(record, TESTS["margins"])]
    return len(trials), len(passed), sum(rejected(record, parts) for record in passed)


def sections(records: Records) -> dict[str, str]:
    """The tables by name."""
    rows = [["q(z|x)", "trials", *(f"{test} rejects" for test in TESTS), "where the margins pass"]]
    for plant in plants(records):
        trials = [record for record in records.values() if record["plant"] == plant]
        counts = [sum(rejected(record, parts) for record in trials) for parts in TESTS.values()]
        _, passed, covered = passing(records, plant, ("tarp",))
        found = passing(records, plant, ("local_test",))[2]
        where = f"`tarp` {covered} of {passed}, `local_test` {found} of {passed}"
        rows.append([plant, str(len(trials)), *map(str, counts), where])
    seconds = torch.tensor([record["seconds"] for record in records.values()]).median(0).values.tolist()
    facts = (
        "Median seconds of a trial on one core, beside other work: calibration with `tarp` "
        f"{seconds[0]:.1f}, `local_test` {seconds[1]:.1f}."
    )
    return {"trials": markdown(rows), "facts": facts}


def summary(records: Records) -> dict[str, Any]:
    """The numbers of the answer."""
    found: dict[str, Any] = {}
    for plant in plants(records):
        key = plant.replace(", ", "_").replace(" ", "_")
        for test in ("tarp", "local_test"):
            trials, passed, number = passing(records, plant, (test,))
            every = sum(rejected(record, (test,)) for record in records.values() if record["plant"] == plant)
            found |= {f"{key}_trials": trials, f"{key}_passed": passed, f"{key}_{test}": number}
            found |= {f"{key}_{test}_all": every}
    return found
