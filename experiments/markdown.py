"""Tables in Markdown, and their place in a text."""

import statistics
from collections.abc import Mapping, Sequence

from pyro_vae.errors import InputError

BAR = "\\|"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table, the first row being its heading; a bar within a cell is escaped."""
    lines = [f"| {' | '.join(cell.replace('|', BAR) for cell in row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def three_digits(value: float, *, sign: bool = False) -> str:
    """Three digits after the point, with the sign of mathematics.

    >>> three_digits(-0.0214), three_digits(0.5, sign=True)
    ('−0.021', '+0.500')
    """
    return f"{value:{'+' if sign else ''}.3f}".replace("-", "−")


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Mean ± standard deviation, as over seeds; of one value itself, and a dash of none.

    >>> spread([-1.0, -2.0, -3.0]), spread([0.5], 3), spread([])
    ('−2.00 ± 1.00', '0.500', '–')
    """
    if not values:
        return "–"
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{deviation}".replace("-", "−")


def insert(text: str, found: Mapping[str, str]) -> str:
    """`text` with each section between <!-- name --> and <!-- end --> replaced.

    Raises:
        InputError: where a section has no place, or its place no end.
    """
    for name, section in found.items():
        start, end = f"<!-- {name} -->\n", "<!-- end -->"
        before, there, after = text.partition(start)
        _, ends, rest = after.partition(end)
        if not there or not ends:
            raise InputError(f"expected {start.strip()} and {end} after it, got a text without: add them")
        text = f"{before}{start}\n{section}\n\n{end}{rest}"
    return text
