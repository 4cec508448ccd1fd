"""The table of foreign programs as a page of the documentation."""

import re

from . import PROGRAMS
from .cells import CENTRAL, REFUSED, UNFITTED, UNTRAINED
from .columns import COLUMNS

HEAD = """# Programs in other people's styles

What `pv.log_evidence` and the others give for Pyro programs that nobody wrote for this package. *right*
is held in the tests (`tests/test_foreign_programs.py`) against a closed form, an enumeration or a
quadrature that shares no code with the program; *bit-equal* is plain `SVI` against `CompiledELBO` and
`FusedAdam`, 30 steps under a learning rate that falls from step 12 on, and against `fit`. A refusal is
one line; its reason is below the table. An empty cell is not tested: after the first two columns, a
choice of programs is, and programs without parameters are not trained. `python -m tests.foreign` writes
this.

"""

REASONS = {
    "COUPLED": "the log density of a datum depends on the data beside it",
    "CHANGES": "the density is another one at each run",
    "OUTSIDE": "a site lies outside the plate of the data, as a latent that all data share",
    "SEQUENTIAL": "the plate of the data is sequential: each datum has sites of its own names",
    "SITES": "the guide samples other latent sites than the model",
    "POINT": "the guide is one point where the model has a density, so it has no weight",
    "SUBSAMPLED": "a plate draws some of its members, so the density is another one at each draw",
    "ARGUMENTS": "the programs take something that was not given",
    "RAISES": "the program itself raises",
    "RAISES_ELSEWHERE": "the guide's distribution cannot be spread over more draws",
    "MASKED": "where a latent is masked it has no density to simulate from or to split",
    "UNMARKED": "a discrete latent that is not marked for enumeration has no gradient and no rank",
    "ONLY_SUMS": "all latents are summed out, so there is no code to look at; `log_evidence` is exact",
    "NO_LATENT": "there is no latent: log p(x) is the density itself",
    "ANGLE": "an angle is no number on the line",
    "ITS_ARGUMENT": "a density depends on x, so data that the model draws were drawn under other data",
    "NOT_X": "the model observes something else than x",
    "OWN_DATA": "the guide has parameters for these very data, and knows no simulated ones",
    "OWN_DRAWS": "the guide knows the density of its own draws only",
    "UNREGISTERED": "a parameter gets a gradient and is in no store, so SVI would not train it",
    "MANY_DATA": "the guide has parameters for these very data; at least eight are asked for",
}


def page() -> str:
    """The whole page."""
    from . import cells

    names = {getattr(cells, name): name for name in REASONS}
    numbers = {name: number for number, name in enumerate(REASONS, 1)}
    rows = [["program", "style", *COLUMNS], ["---"] * (2 + len(COLUMNS))]
    for program, build in PROGRAMS.items():
        style = re.sub(r"\s+", " ", build.__doc__ or "").strip().rstrip(".").replace("|", "\\|")
        rows.append([f"`{program}`", style, *(_cell(program, column, names, numbers) for column in COLUMNS)])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    reasons = "\n".join(f"{number}. {REASONS[name]}." for name, number in numbers.items())
    return f"{HEAD}{table}\n\nRefused, because\n\n{reasons}\n"


def _cell(program: str, column: str, names: dict[str, str], numbers: dict[str, int]) -> str:
    if column not in list(COLUMNS)[:2] and program not in CENTRAL:
        return ""
    refusal = REFUSED.get(program, {}).get(column)
    if refusal is not None:
        return f"refused ({numbers[names[refusal]]})"
    if column == "CompiledELBO":
        return "" if program in UNTRAINED else "bit-equal"
    if column == "fit":
        return "" if program in UNFITTED else "bit-equal"
    return "right"
