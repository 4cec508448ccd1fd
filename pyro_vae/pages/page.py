"""One page on one run or several: no file beside it, and nothing loaded from elsewhere."""

import base64
import hashlib
import warnings
from collections.abc import Callable, Sequence
from importlib.resources import files
from string import Template
from typing import NamedTuple

from pyro_vae.comparison import compare
from pyro_vae.errors import InputError, one_line, out_of_memory
from pyro_vae.markup import Markup, element, joined
from pyro_vae.pages import looking, parts
from pyro_vae.pages.subject import Subject, by_model
from pyro_vae.randomness import own_randomness

#: Makes a part of a run, for a place with this name.
Maker = Callable[[Subject, str], Markup]


class Section(NamedTuple):
    """A part that each run has on a page."""

    title: str
    make: Maker
    #: Whether it is of one run of a model, not of all its seeds.
    once: bool = False


SECTIONS = (
    Section("Verdict", parts.verdict),
    Section("Numbers", parts.numbers),
    Section("Training", parts.training),
    Section("Samples", parts.samples, once=True),
    Section("Reconstructions", parts.reconstructions, once=True),
    Section("Codes", parts.codes, once=True),
    Section("Latent plane", parts.plane, once=True),
    Section("Latent explorer", parts.explored, once=True),
    Section("Traversals", parts.traversals, once=True),
    Section("Interpolations", parts.interpolations, once=True),
    Section("Where the nats go", parts.nats),
    Section("Pareto k̂", parts.tails),
    Section("Calibration", parts.calibration),
    Section("Configuration", parts.configuration),
)


def page(subjects: Sequence[Subject], *, seed: int = 0) -> str:
    """The page, as HTML.

    Args:
        subjects: The runs; those that differ in their seed only stand together.
        seed: Of all draws.
    """
    ordered = by_model(subjects)
    sections = [_section(section, ordered, seed) for section in SECTIONS]
    titles = [section.title for section in SECTIONS]
    if len(subjects) > 1:
        sections.insert(0, _around("Comparison", element("div", _comparison(subjects))))
        titles.insert(0, "Comparison")
    links = [element("a", title, href=f"#{_id(title)}") for title in titles]
    names = ", ".join(subject.name for subject in subjects)
    body = [element("h1", f"Report on {names}"), element("nav", *links, aria_label="Sections"), *sections]
    script = _file("explorer.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return Template(_file("page.html")).substitute(
        title=element("title", f"Report on {names}"),
        policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
        style=_file("page.css"),
        body=joined(body),
        script=script,
    )


def _file(name: str) -> str:
    return files("pyro_vae.pages").joinpath(name).read_text(encoding="utf-8")


def _id(title: str) -> str:
    """A title as the id of its section."""
    return "-".join(word for word in title.lower().split() if word.isascii())


def _around(title: str, *inner: Markup) -> Markup:
    name = f"{_id(title)}-title"
    return element("section", element("h2", title, id=name), *inner, id=_id(title), aria_labelledby=name)


def _section(section: Section, models: Sequence[Sequence[Subject]], seed: int) -> Markup:
    """A part of all runs, side by side."""
    cells: list[Markup] = []
    several = sum(map(len, models)) > 1
    for group in models:
        for subject in group[:1] if section.once else group:
            others = f", as an example of {len(group)} seeds" if section.once and len(group) > 1 else ""
            heading = f"{subject.name} (seed {subject.config.get('seed')}{others})"
            place = f"{_id(section.title)}-{len(cells)}"
            made = _made(section, subject, place, seed)
            cells.append(element("div", *([element("h3", heading)] if several else []), made, class_="run"))
    return _around(section.title, element("div", *cells, class_="runs"))


def _made(section: Section, subject: Subject, place: str, seed: int) -> Markup:
    """A part of a run, or why it is not there: an error of one part costs no other."""
    try:
        if subject.vae is None:
            return section.make(subject, place)
        with own_randomness(seed, subject.vae.device):
            return section.make(subject, place)
    except InputError as error:
        return _absent(one_line(error))
    except Exception as error:  # of a user's own class, or of results that are damaged
        if out_of_memory(error):
            return _absent("out of memory")
        said = f"{type(error).__name__}: {one_line(error)}"
        warnings.warn(f"{subject.name} has no part {section.title!r}: {said}", stacklevel=2)
        return _absent(said)


def _absent(why: str) -> Markup:
    return element("p", f"Not here: {why}", class_="absent")


def _comparison(subjects: Sequence[Subject]) -> Markup:
    """Differences in log p(x), or why the runs cannot be compared."""
    try:
        found = compare([subject.folder for subject in subjects])
    except InputError as error:
        return _absent(one_line(error))
    differences = "Differences in log p(x) to the reference, with paired 95 % intervals"
    return joined([found.html(), parts.image(looking.differences(found), differences)])
