"""HTML in which every text is escaped."""

from collections.abc import Mapping, Sequence
from html import escape

from pyro_vae.tabular import Rows, left_columns


class Markup(str):
    """HTML; every other string is text, and is escaped where it becomes a part of HTML."""


#: Elements without content.
_VOID = ("img", "input", "br")


def element(name: str, *inner: str, **attributes: str | bool) -> Markup:
    """An element, its content and its attributes: text is escaped, and `Markup` is not.

    Args:
        name: Of the element.
        inner: What it holds, one after the other.
        attributes: By name, with `_` for `-` and none at the end, as `class_="wide"` and `aria_label="z"`; of
            a truth value the name alone, or nothing.

    >>> element("p", "a < b ", element("b", "c"), class_="note", hidden=True)
    '<p class="note" hidden>a &lt; b <b>c</b></p>'
    """
    words = [name]
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is not False:
            words.append(key if value is True else f'{key}="{escape(str(value))}"')
    opened = f"<{' '.join(words)}>"
    return Markup(opened if name in _VOID else f"{opened}{joined(inner)}</{name}>")


def joined(parts: Sequence[str]) -> Markup:
    """Parts of HTML, one after the other."""
    return Markup("".join(part if isinstance(part, Markup) else escape(part) for part in parts))


def table(rows: Rows, caption: str, notes: Mapping[str, str] | None = None) -> Markup:
    """A table whose first row is the heading, and whose first column are names; below it a list of notes.

    >>> table([["nats", "log p(x)"], ["<a>", "-3.2"]], "")  # doctest: +ELLIPSIS
    '<table><thead><tr><th scope="col">nats</th>...<th scope="row">&lt;a&gt;</th><td ...>-3.2</td></tr>...'
    """
    heading, *others = rows
    left = left_columns(rows)
    head = [element("th", cell, scope="col") for cell in heading]
    lines = []
    for name, *cells in others:
        aligned = [
            element("td", cell, style="text-align: left" if words else "text-align: right")
            for cell, words in zip(cells, left[1:], strict=True)
        ]
        lines.append(element("tr", element("th", name, scope="row"), *aligned))
    parts = [element("caption", caption)] if caption else []
    parts += [element("thead", element("tr", *head)), element("tbody", *lines)]
    return joined([element("table", *parts), *([listed(notes)] if notes else [])])


def listed(entries: Mapping[str, str]) -> Markup:
    """Names and what they stand for.

    >>> listed({"k-hat": "at most 0.7"})
    '<dl><dt>k-hat</dt><dd>at most 0.7</dd></dl>'
    """
    pairs = ((element("dt", name), element("dd", text)) for name, text in entries.items())
    return element("dl", *(each for pair in pairs for each in pair))
