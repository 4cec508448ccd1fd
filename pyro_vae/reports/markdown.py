"""Tables in Markdown, and their place in a text."""

from collections.abc import Mapping, Sequence


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table, the first row being its heading."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def insert(text: str, found: Mapping[str, str]) -> str:
    """`text` with each section between <!-- name --> and <!-- end --> replaced."""
    for name, section in found.items():
        start, end = f"<!-- {name} -->\n", "<!-- end -->"
        before, there, after = text.partition(start)
        if there:
            text = f"{before}{start}\n{section}\n\n{end}{after.partition(end)[2]}"
    return text
