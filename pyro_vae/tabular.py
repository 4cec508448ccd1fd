"""Tables of words and numbers, for documents."""

import csv
import io
import re
from collections.abc import Sequence
from typing import Literal

#: How a table is printed: `text` for a person.
Format = Literal["text", "markdown", "latex", "csv"]

#: A heading, and rows of as many cells.
Rows = Sequence[Sequence[str]]


def formatted(rows: Rows, format: Format) -> str:
    """A table in Markdown, in LaTeX for the package booktabs, or as CSV; the first row is the heading.

    The first column is of names, the others are of numbers but where one has a word.

    >>> print(formatted([["nats", "log p(x)"], ["a_1", "-3.2"]], "markdown"), end="")
    | nats | log p(x) |
    | --- | ---: |
    | a_1 | -3.2 |
    """
    if format == "csv":
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        return text.getvalue()
    return _markdown(rows) if format == "markdown" else _latex(rows)


def _markdown(rows: Rows) -> str:
    heading, *others = ([cell.replace("|", "\\|") for cell in row] for row in rows)
    rule = ["---" if left else "---:" for left in left_columns(rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (heading, rule, *others)) + "\n"


def _latex(rows: Rows) -> str:
    heading, *others = (" & ".join(map(_escaped, row)) + r" \\" for row in rows)
    columns = "".join("l" if left else "r" for left in left_columns(rows))
    body = "\n".join([r"\toprule", heading, r"\midrule", *others, r"\bottomrule"])
    return f"\\begin{{tabular}}{{{columns}}}\n{body}\n\\end{{tabular}}\n"


def left_columns(rows: Rows) -> list[bool]:
    """Which columns are of words."""
    columns = list(zip(*rows[1:], strict=True))
    return [not n or any(re.match(r"[^\W\d]", cell) for cell in column) for n, column in enumerate(columns)]


def _escaped(cell: str) -> str:
    """A cell with the signs of LaTeX escaped, and numbers in its mathematics."""
    for sign in "&%$#_{}":
        cell = cell.replace(sign, f"\\{sign}")
    cell = cell.replace("±", r"$\pm$").replace("log p(x)", r"$\log p(x)$")
    return re.sub(
        r"(?<![\w$-])([+\u2212-])(?=\d)", lambda found: "$-$" if found[1] in "-\u2212" else "$+$", cell
    )
