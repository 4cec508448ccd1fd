"""The parts of a page on a run: each takes what is there of the run, or says why it cannot."""

import base64
import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from pyro_vae import plots, reports
from pyro_vae.comparison.options import options_of
from pyro_vae.diagnosis.results import waterfall_of
from pyro_vae.errors import InputError
from pyro_vae.markup import Markup, element, joined, listed, table
from pyro_vae.pages import looking
from pyro_vae.pages.explorer import explorer, explorer_html
from pyro_vae.pages.subject import Subject

#: Pictures in a grid of samples, data reconstructed, and codes in a plane.
_SAMPLES, _RECONSTRUCTED, _CODES = 64, 30, 2000
#: Pictures along each axis of the plane, rows of interpolations and pictures in each.
_PLANE, _ROWS, _STEPS = 12, 5, 10

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def image(picture: Figure | bytes, alt: str) -> Markup:
    """A picture within the page, with what it shows in words."""
    content = picture if isinstance(picture, bytes) else plots.png(picture)
    source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    return element("figure", element("img", src=source, alt=alt), element("figcaption", alt))


def words(text: str) -> Markup:
    """A paragraph."""
    return element("p", text)


def verdict(subject: Subject, place: str) -> Markup:
    """The results in a few lines, and what the diagnosis says to do."""
    entries: dict[str, str] = {}
    if subject.results is not None:
        rows = reports.fact_rows(subject.results, subject.folder)
        entries = {name: " ".join(rows[name].split()) for name in ("log p(x)", "at least") if name in rows}
    parts = [listed(entries)] if entries else [words(subject.lacking.get("results", _no_density(subject)))]
    if subject.diagnosis is None:
        parts.append(words(f"No verdict: {subject.lacking['diagnosis']}"))
    else:
        parts.append(element("p", element("strong", str(subject.diagnosis["verdict"]))))
    return joined(parts)


def _no_density(subject: Subject) -> str:
    return f"There is no log p(x): {(subject.results or {}).get('no_log_evidence')}"


def numbers(subject: Subject, place: str) -> Markup:
    """The split of the ELBO, log p(x), its certificate and k̂, and what was measured."""
    content = subject.need("results")
    rows = {name: " ".join(text.split()) for name, text in reports.fact_rows(content, subject.folder).items()}
    if not content["log_evidence"]:
        errors = [["per datum", "error", "data"]]
        for name, part in content["elbo"].items():
            errors.append([name, f"{-part['elbo']:.3f}", str(part["num_data"])])
        return joined([words(_no_density(subject)), table(errors, "Reconstruction error", rows)])
    units = str(content["units"])
    return table(reports.table_rows(content), f"ELBO = reconstruction − KL, in {units}", rows)


def training(subject: Subject, place: str) -> Markup:
    """The curves of the training."""
    columns = subject.need("metrics")
    density = subject.vae is None or not subject.vae.no_evidence
    last = len(columns["epoch"])
    alt = f"Training and validation ELBO, distortion and KL over {last} epochs"
    if not density:
        alt = f"Reconstruction error of training and validation over {last} epochs"
    return image(plots.history(columns, density=density), alt)


def samples(subject: Subject, place: str) -> Markup:
    """Pictures from the prior; of a table or of vectors their marginals against the data."""
    vae, facts = subject.need("vae", "facts")
    if not facts.columns and len(facts.data_shape) == 3:
        figure = looking.samples(vae, facts, _SAMPLES)
        return image(figure, "Pictures decoded from draws of the prior, as means of p(x|z)")
    marginals, pairs = looking.against_data(vae, facts, subject.data)
    beside = "training data beside draws from the model" if subject.data else "draws from the model"
    parts = [image(marginals, f"Marginals: {beside}, column by column")]
    if pairs is not None:
        parts.append(image(pairs, f"Pairs of columns: {beside}"))
    return joined(parts)


def reconstructions(subject: Subject, place: str) -> Markup:
    """Held-out data over their reconstructions."""
    vae, _ = subject.pictures()
    data = subject.need("data")
    figure = looking.reconstructions(vae, data, _RECONSTRUCTED)
    split = reports.held_out(data)
    bits = ", the bits that the model saw of them" if data.levels == 2 and not data.raw.bits else ""
    return image(figure, f"Rows of {split} data{bits}, and their reconstructions")


def codes(subject: Subject, place: str) -> Markup:
    """The codes of held-out data over the two most active axes."""
    vae = subject.need("vae")
    data = subject.need("data")
    axes = looking.two_axes(vae, data)
    coloured = getattr(data, reports.held_out(data)).labels is not None
    colour = ", coloured by label" if coloured else ""
    figure = looking.scatter(vae, data, axes, _CODES)
    return image(figure, f"Codes of {reports.held_out(data)} data over {_named(axes)}{colour}")


def plane(subject: Subject, place: str) -> Markup:
    """The plane of the two most active axes, decoded."""
    vae, _ = subject.pictures()
    given = subject.beside()
    axes = looking.two_axes(vae, subject.data, given)
    figure = looking.plane(vae, subject.data, axes, _PLANE, given)
    return image(figure, f"The plane of {_named(axes)}, decoded{_with(given)}; other axes at their mean")


def explored(subject: Subject, place: str) -> Markup:
    """The same plane, over which a point is dragged."""
    vae, _ = subject.pictures()
    given = subject.beside()
    axes = looking.two_axes(vae, subject.data, given)
    content = explorer(vae, subject.data, axes, given)
    number = content["number"]
    how = (
        f"Drag the point over the plane of {_named(axes)}, at equal steps of probability; arrow keys and "
        f"sliders move it, too. The picture is blended from {number} × {number} decoded ones{_with(given)}, "
        "the other axes being at their mean."
    )
    return joined([words(how), explorer_html(content, place)])


def traversals(subject: Subject, place: str) -> Markup:
    """Rows along the most active axes."""
    vae, _ = subject.pictures()
    given = subject.beside()
    figure = looking.traversals(vae, subject.data, given=given)
    return image(figure, f"Along each of the most active axes, decoded{_with(given)}; the most active first")


def interpolations(subject: Subject, place: str) -> Markup:
    """Rows between two codes."""
    vae, _ = subject.pictures()
    given = subject.beside()
    figure = looking.interpolations(vae, subject.data, _ROWS, _STEPS, given=given)
    between = "draws from the prior" if subject.data is None else "held-out data"
    return image(figure, f"Each row goes from one code to another, of {between}{_with(given)}")


def nats(subject: Subject, place: str) -> Markup:
    """The waterfall of nats, by the diagnosis, with what each latent unit carries."""
    content = subject.need("diagnosis")
    terms = {name: found for name, found in content.items() if _is_mean(found)}
    means = {name: (found["mean"], _known(found["standard_error"])) for name, found in terms.items()}
    steps = {**waterfall_of(means), "units": content["units"]}
    parts = [image(plots.waterfall(**steps), "Every nat from the distortion to log p(x), as a waterfall")]
    parts.append(table(reports.diagnosis_rows(content), "Where the nats go"))
    units = content["latent_units"]
    activity = torch.tensor([_known(value) for value in units["activity"]])
    kl = None if units["kl"] is None else torch.tensor([_known(value) for value in units["kl"]])
    figure = plots.latent_units(units["names"], activity, kl=kl)
    alt = f"{sum(units['active'])} of {len(units['names'])} latent units active, by KL and activity"
    parts.append(image(figure, alt))
    if curve := content.get("rate_distortion"):
        own = (content["distortion"]["mean"], content["rate"]["mean"])
        figure = plots.rate_distortion(curve["distortion"], curve["rate"], guide=own, units=content["units"])
        parts.append(image(figure, "Rate and distortion of p(z|x) and of q(z|x)"))
    return joined(parts)


def _is_mean(found: Any) -> bool:
    return isinstance(found, Mapping) and {"mean", "standard_error"} <= found.keys()


def _known(value: float | None) -> float:
    """A number of JSON, in which null is one that is not finite."""
    return math.nan if value is None else float(value)


def tails(subject: Subject, place: str) -> Markup:
    """Pareto k̂ of each datum."""
    content, arrays = subject.need("results", "per_datum")
    if "pareto_k" not in arrays:
        raise InputError("no k̂: the estimate of log p(x) was not made by draws from one proposal")
    text = " ".join(reports.fact_rows(content, subject.folder).get("k-hat", "unknown").split())
    figure = plots.pareto_k(torch.from_numpy(arrays["pareto_k"]))
    return joined([image(figure, "Pareto k̂ of each datum, from the smallest"), words(f"k̂ {text}")])


def calibration(subject: Subject, place: str) -> Markup:
    """Whether q(z|x) is as wide as it should be, by the diagnosis."""
    content = subject.need("diagnosis")
    found = content["calibration"]
    if "skipped" in found:
        raise InputError(f"none: {found['skipped']}")
    rows = [["quantity", "p-value", "verdict"]]
    for name, each in found["quantities"].items():
        rows.append([name, f"{each['p_value']:.2g}", each["verdict"]])
    said = [found["words"], content["coverage"].get("words"), (content["posteriors"] or {}).get("words")]
    parts = [words(text) for text in said if text]
    for name, alt in (
        ("calibration", "Ranks of the true latents among draws from q(z|x), flat where it is calibrated"),
        ("posteriors", "Draws from q(z|x) beside exact draws by NUTS"),
    ):
        file = subject.folder / "figures" / f"{name}.png"
        if file.is_file() and (picture := _png(file)):
            parts.append(image(picture, alt))
    return joined([*parts, table(rows, "Calibration, quantity by quantity")])


def _png(file: Path) -> bytes | None:
    """A picture of a run's folder, which may come from anywhere."""
    content = file.read_bytes()
    return content if content.startswith(_SIGNATURE) else None


def configuration(subject: Subject, place: str) -> Markup:
    """All options, folded up, with the command that makes such a run again."""
    options = {name: str(value) for name, value in options_of(subject.config).items()}
    again = f"pyro-vae train --config {shlex.quote(str(subject.folder / 'config.yaml'))} --out NEW"
    return joined(
        [
            words(f"Again: {again}"),
            element("details", element("summary", f"{len(options)} options"), listed(options)),
        ]
    )


def _named(axes: tuple[int, int]) -> str:
    return f"the two most active latent axes, z[{axes[0]}] and z[{axes[1]}]"


def _with(given: looking.Beside) -> str:
    """What pictures are decoded with, in words."""
    return "".join(f", given {name} {value:g}" for name, value in given.items())
