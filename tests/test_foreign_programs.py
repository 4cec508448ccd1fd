"""Pyro programs in other people's styles: each number is the right one, or refused as `cells` says."""

from pathlib import Path

import pytest

import pyro_vae as pv
from tests.foreign import PROGRAMS
from tests.foreign.cells import CENTRAL, REFUSED, UNFITTED, UNTRAINED
from tests.foreign.columns import COLUMNS, run
from tests.foreign.page import page

EVERY, CENTRAL_ONLY = list(COLUMNS)[:2], list(COLUMNS)[2:]


def cells() -> list[tuple[str, str]]:
    """All that are tested."""
    every = [(name, column) for name in PROGRAMS for column in EVERY]
    central = [(name, column) for name in CENTRAL for column in CENTRAL_ONLY]
    left_out = {"CompiledELBO": UNTRAINED, "fit": UNFITTED}
    return every + [cell for cell in central if cell[0] not in left_out.get(cell[1], ())]


@pytest.mark.parametrize(("name", "column"), cells())
def test_a_foreign_program_gets_the_right_number_or_a_clear_refusal(name: str, column: str) -> None:
    refusal = REFUSED.get(name, {}).get(column)
    if refusal is None:
        run(PROGRAMS[name], column)
        return
    with pytest.raises(pv.InputError, match=refusal) as caught:
        run(PROGRAMS[name], column)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None or isinstance(caught.value.__cause__, Exception)


def test_what_cannot_be_right_is_refused_by_every_estimate_of_log_p() -> None:
    impossible = {name for name, build in PROGRAMS.items() if build().refused}
    assert impossible and all("log_evidence" in REFUSED[name] for name in impossible)


def test_the_page_of_foreign_programs_is_that_of_the_registry() -> None:
    path = Path(__file__).parents[1] / "docs" / "foreign_programs.md"
    assert path.read_text() == page(), "python -m tests.foreign > docs/foreign_programs.md"
