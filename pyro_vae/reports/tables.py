"""Results as short tables for a person."""

import math
import shlex
from collections.abc import Mapping
from typing import Any

from pyro_vae.errors import InputError
from pyro_vae.reports.classifying import classification_rows
from pyro_vae.reports.reconstruction import error_lines


def table(content: Mapping[str, Any], folder: object = None) -> str:
    """A short table of what `summary` or `evaluation` gave."""
    lines = _measured(content, folder) if content["log_evidence"] else error_lines(content)
    rows = classification_rows(content)
    rows |= {"given": ", ".join(content["given"])} if "given" in content else {}
    rows["protocol"] = f"{content['protocol']}, hash {content['data_hash']}"
    if "missing_entries" in content:
        lacking, total = content["missing_entries"], content["entries"]
        rows["missing"] = f"{lacking} of {total} entries of the {content['split']} data, left out of p(x)"
    seconds = f"{content['seconds']:.1f} s evaluation on {content['device']}"
    if "training" in content:
        training = content["training"]
        rows["training"] = (
            f"{training['epochs']} epochs, {training['steps']} steps, ended by {training['ended_by']}; "
            f"best epoch {training['best_epoch']}"
        )
        seconds = f"{training['seconds']:.1f} s training, {seconds}"
    rows |= {"time": seconds, **({} if folder is None else {"folder": str(folder)})}
    return "\n".join(lines + [f"{name:<15}{value}" for name, value in rows.items()])


def table_rows(content: Mapping[str, Any]) -> list[list[str]]:
    """The numbers of what `summary` or `evaluation` gave, for a document: a heading, and the splits.

    Raises:
        InputError: where there is no log p(x).
    """
    found = content["log_evidence"]
    if not found:
        raise InputError(f"a table expects a model with a log p(x), got none: {content['no_log_evidence']}")
    of_split = {
        "log p(x)": f"{found['estimate']:.3f} ± {found['standard_error']:.3f}",
        "at least": f"{found['at_least']['bound']:.3f}",
        **({"bits/dim": f"{found['bits_per_dim']:.4f}"} if "bits_per_dim" in found else {}),
        "data": str(found["num_data"]),
    }
    rows = [[content["units"], "ELBO", "reconstruction", "KL", *of_split]]
    for name, part in content["elbo"].items():
        same = name == content["split"]
        numbers = [f"{part[each]:.3f}" for each in ("elbo", "reconstruction", "kl")]
        rest = list(of_split.values()) if same else [""] * (len(of_split) - 1) + [str(part["num_data"])]
        rows.append([name, *numbers, *rest])
    return rows


def _measured(content: Mapping[str, Any], folder: object) -> list[str]:
    """The lines on ELBO and log p(x)."""
    lines = [f"{'nats per datum':<15}{'ELBO':>10} = {'reconstruction':>14} − {'KL':>7}"]
    for name, part in content["elbo"].items():
        numbers = f"{part['elbo']:>10.3f}   {part['reconstruction']:>14.3f}   {part['kl']:>7.3f}"
        lines.append(f"{name:<15}{numbers}   {part['num_data']} data")
    found = content["log_evidence"]
    lines.append(
        f"{'log p(x)':<15}{found['estimate']:>10.3f} ± {found['standard_error']:.3f} on {found['num_data']} "
        f"{content['split']} data, {draws_in_words(found)} "
        f"(Monte Carlo error {found['monte_carlo_error']:.3f})"
    )
    bound = content["elbo"][content["split"]]["elbo"]
    if found["estimate"] < bound:
        lines.append(f"{'':<15}below the ELBO: too few draws or temperatures to be an estimate of log p(x)")
    timed = {**found, "seconds": content["seconds"]}
    rows = _certified(found, content["split"]) | belief(timed, content["pareto_k"], folder)
    lines += [f"{name:<15}{text}" for name, text in rows.items()]
    if "bits_per_dim" in found:
        bound = "   (an upper bound, by dequantisation)" if "dequantised" in content["units"] else ""
        observed = "   per observed dimension" if content.get("missing_entries") else ""
        lines.append(f"{'bits per dim':<15}{found['bits_per_dim']:>10.4f}{observed}{bound}")
    if content["units"] != "nats per datum":
        lines.append(f"{'units':<15}{content['units']}")
    return lines


def _certified(found: Mapping[str, Any], split: str) -> dict[str, str]:
    """The lower bound that assumes nothing about tails."""
    if "at_least" not in found:
        return {}
    bound, delta = found["at_least"]["bound"], found["at_least"]["delta"]
    words = f"for these {found['num_data']} {split} data, with probability {1 - delta:g} whatever the weights"
    return {"at least": f"{bound:>10.3f} {words}"}


def draws_in_words(found: Mapping[str, Any]) -> str:
    """What an estimate of log p(x) was made of."""
    if found["method"] == "annealed":
        chains = f"{found['chains']} annealed chain{'s' * (found['chains'] != 1)}"
        return f"{chains} each, {found['temperatures']} temperatures from the {found['start']}"
    few, many = found.get("fewest_particles"), found["particles"]
    number = f"{many}" if few is None else f"{few} to {many}"
    if found["method"] == "importance":
        return f"{number} importance samples each"
    local = f"{number} draws each from local proposals"
    if not found.get("annealed"):
        return local
    chains = f"{found['chains']} annealed chains each, {found['temperatures']} temperatures from the guide"
    return f"{found['num_data'] - found['annealed']} by {local}, {found['annealed']} by {chains}"


def belief(found: Mapping[str, Any], tails: Mapping[str, Any] | None, folder: object) -> dict[str, str]:
    """What says how far an estimate can be believed, in plain words, by its name in a table."""
    if tails is not None:
        return {"k-hat": _tails_in_words(tails, found, folder)} | _search_in_words(found)
    if found["method"] == "auto":
        return _search_in_words(found)
    acceptance, from_guide = found["acceptance"], found["start"] == "guide"
    words = "one temperature has no transitions: importance sampling from its start"
    if math.isfinite(acceptance):
        words = f"acceptance {acceptance:.2f} (aimed at: 0.65); rises with --temperatures and --chains"
    start = "; from q(z|x), so that it may miss what that misses" if from_guide else ""
    more = _certificate_in_words(found.get("certificate")) | _search_in_words(found)
    return {"annealing": words + start} | more


def _search_in_words(found: Mapping[str, Any]) -> dict[str, str]:
    """Whether the gap that was asked for was reached, and by which rounds."""
    search = found.get("search")
    if search is None:
        return {}
    reached = "reached" if search["reached"] else "not reached"
    sizes = ", ".join(str(each["num_temperatures"]) for each in search["rounds"])
    words = f"{found['until_gap']:g} nats {reached}: {search['in_words']}; rounds of {sizes} temperatures"
    return {"until gap": words}


def _certificate_in_words(found: Mapping[str, Any] | None) -> dict[str, str]:
    if found is None:
        return {}
    finite = found["standard_error"] is not None and math.isfinite(found["standard_error"])
    error = f" ± {found['standard_error']:.3f}" if finite else ""
    apart = f"{found['gap']:.3f}{error} nats apart"
    words = f"on {found['num_data']} data drawn from the model, the bounds from below and above are {apart}"
    return {"certificate": words}


def _tails_in_words(tails: Mapping[str, Any], found: Mapping[str, Any], folder: object) -> str:
    limit, above, unknown = tails["reliable_up_to"], tails["above"], tails["unknown"]
    total = found["num_data"] - found.get("annealed", 0)
    if unknown == total:
        return "unknown: it takes 25 importance samples per datum, five of them above the rest"
    rest = f"; unknown for {unknown}" if unknown else ""
    data = f"{total} data" if total == found["num_data"] else f"the other {total} data"
    if above:
        return (
            f"above {limit} for {above} of {data}{rest}: their estimates are likely too low; "
            f"{remedy(found, above, folder)}"
        )
    known = f"all {data}" if not unknown else f"{total - unknown} of {data}"
    return (
        f"at most {limit} for {known}{rest} (largest {tails['largest']:.2f}): no heavy tail in the draws made"
    )


#: What a draw by another method costs, in draws from the guide: one of a local proposal with its share of the
#: fit, and an annealed chain's ten gradients at one temperature with its share of the pilot (measured on a
#: 784-400-20 network and on the digits' default).
_LOCAL, _TRANSITION = 2.4, 30
#: Chains and temperatures of the annealing that a hint proposes, and data of it at the most.
_CHAINS, _TEMPERATURES, _ANNEALED = 8, 400, 100


def remedy(found: Mapping[str, Any], above: int, folder: object) -> str:
    """What to try for data whose k̂ is too large, and what it costs, by the time that this evaluation took."""
    total, from_guide = found["num_data"], found["method"] == "importance"
    draw = found.get("seconds", 0.0) / total / found["particles"] / (1 if from_guide else _LOCAL)
    if from_guide:
        seconds = draw * total * found["particles"] * _LOCAL
        return f"try {_call('local', folder)}{_cost(seconds, total)}"
    annealed = min(above, _ANNEALED)
    seconds = draw * annealed * _CHAINS * _TEMPERATURES * _TRANSITION
    budget = max(math.ceil(seconds / 10) * 10, 10)
    more = {"budget": budget} | ({"num_data": total * annealed // above} if annealed < above else {})
    return f"try {_call('auto', folder, **more)}{_cost(budget, annealed)}"


def _call(method: str, folder: object, **options: int) -> str:
    """A command, or what is given to `evaluate` in Python."""
    if folder is None:
        return ", ".join([f'method="{method}"', *(f"{name}={value}" for name, value in options.items())])
    rest = "".join(f" --{name} {value}" for name, value in options.items())
    return f"pyro-vae evaluate {shlex.quote(str(folder))} --method {method}{rest}"


def _cost(seconds: float, number: int) -> str:
    """In words; nothing where no time was measured."""
    if not seconds:
        return ""
    if seconds < 90:
        return f" (about {max(round(seconds), 1)} s for {number} data)"
    if seconds < 5400:
        return f" (about {round(seconds / 60)} minutes for {number} data)"
    return f" (about {seconds / 3600:.1f} hours for {number} data)"
