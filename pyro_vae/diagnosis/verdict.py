"""The largest loss in words, and what to swap for it."""

import math
from typing import NamedTuple

from torch import Tensor

from pyro_vae.annealing import InformationBounds
from pyro_vae.batch import Batch, is_per_datum
from pyro_vae.diagnosis.means import Mean
from pyro_vae.diagnosis.rate import Information
from pyro_vae.diagnosis.units import Units, some
from pyro_vae.importance.results import RELIABLE_K

#: Loss below which a part is not worth a swap, in nats per datum.
SMALL = 0.1

#: Share of data with Pareto k-hat above 0.7 from which log p(x) is in doubt.
DOUBT = 0.1

#: What each part's loss is called, and what to do about it.
REMEDIES = {
    "encoder": ("amortisation gap", "a larger encoder (--network) or longer training"),
    "posterior": ("approximation gap", "FullNormalPosterior or FlowPosterior"),
    "prior": ("prior gap", "VampPrior, MixturePrior or FlowPrior"),
}


class Loss(NamedTuple):
    """What a part of the model loses."""

    found: Mean
    #: (B,).
    per_datum: Tensor


def collapse_in_words(units: Units, information: Information) -> str:
    """Posterior collapse by name; empty where every unit is active.

    Full where no unit is active and the mutual information is zero within three standard errors or 0.05
    nats; partial where some units are inactive.
    """
    error = float(information.standard_error.square().sum().sqrt()) / len(information.information)
    silent = information.mean < max(0.05, 3 * error if math.isfinite(error) else 0)
    if units.num_active == 0 and silent:
        return "Posterior collapse: no latent unit is active, and the codes do not tell the data apart."
    if not units.inactive:
        return ""
    number, total = len(units.inactive), len(units.names)
    return f"Partial posterior collapse: {number} of {total} latent units inactive ({some(units.inactive)})."


def largest_loss(losses: dict[str, Loss]) -> tuple[str, str]:
    """The part that loses most, by name and in a sentence.

    Two parts are within noise where the mean of their paired difference is below two standard errors.
    """
    ordered = sorted(losses, key=lambda part: -losses[part].found.mean)
    worth = [part for part in ordered if _matters(losses[part].found)]
    if not worth:
        return "none", (
            f"No loss stands out: each is below {SMALL} nats or within its error. What remains lies in the "
            "likelihood p(x|z) and its decoder, or cannot be told from these data."
        )
    first, *others = worth
    equal = [part for part in others if _within_noise(losses[first], losses[part])]
    if not equal:
        name, remedy = REMEDIES[first]
        size = f"the {name} of {losses[first].found.mean:.2f} nats"
        return first, f"Largest loss: the {first}, {size}. To swap: {remedy}."
    parts = [first, *equal]
    sizes = " and ".join(f"the {REMEDIES[part][0]} of {losses[part].found.mean:.2f}" for part in parts)
    remedies = "; ".join(f"for the {part} {REMEDIES[part][1]}" for part in parts)
    return " or ".join(parts), (
        f"Largest loss: the {' or the '.join(parts)}, {sizes} nats, which these data cannot tell apart. To "
        f"swap: {remedies}."
    )


def notes(
    evidence: object,
    whole: bool,
    approximation: Mean,
    information: Information,
    bounds: InformationBounds | None = None,
    rate: float = math.inf,
) -> list[str]:
    """What the numbers cannot say."""
    found = []
    pareto_k = getattr(evidence, "pareto_k", None)
    # NaN counts, since nothing vouches for it
    share = float((~(pareto_k <= RELIABLE_K)).double().mean()) if isinstance(pareto_k, Tensor) else 0.0
    below = approximation.mean < -2 * _error(approximation.monte_carlo_error)
    if share > DOUBT or below:
        why = (
            f"Pareto k-hat is above {RELIABLE_K} or unknown for {share:.0%} of the data"
            if share > DOUBT
            else "it is below an ELBO"
        )
        found.append(
            f"log p(x) is in doubt ({why}): it is then too low, and the approximation gap too small; "
            "take annealing."
        )
    if not whole:
        found.append(
            "Only a part of the posterior's family was searched, so the amortisation gap is a lower bound, "
            "and the approximation gap an upper bound."
        )
    if bounds is not None and information.exceeded_by(bounds, rate):
        found.append(
            f"The mutual information is the lower bound of the model's, {bounds.mean_lower:.2f} to "
            f"{bounds.mean_upper:.2f} nats by annealing on {len(bounds.lower)} simulated data: that of these "
            f"data is near its limit, {information.limit:.2f}. It is theirs as far as they look like the "
            "model's."
        )
    elif information.saturated:
        found.append(
            "The mutual information is near its limit, the logarithm of the number of data, so the marginal "
            "KL is too large, and more data would move nats from it: trust the prior gap."
            + ("" if bounds is None else f" {bounds!r}, which is not between it and the rate.")
        )
    return found


def beside_x(data: Batch) -> list[str]:
    """What the terms mean where something is given with each datum."""
    names = ", ".join(name for name, value in data.given.items() if is_per_datum(value))
    if not names:
        return []
    return [
        f"Given is {names}: log p(x) is that of x given {names}, and the mutual information that of z with "
        f"both. Where the prior depends on {names}, the marginal KL is the mean of log q(z) − log p(z given "
        f"{names}), which may be negative, and a better prior of this kind may save more than the prior gap."
    ]


def generalisation(gap: Mean | None) -> list[str]:
    """What a large train-test gap asks for."""
    if gap is None or not _matters(gap) or gap.mean < 1:
        return []
    return [
        f"The ELBO of the training data is {gap.mean:.2f} nats higher: more data, a smaller network, or an "
        "earlier stop."
    ]


def _matters(found: Mean) -> bool:
    """Whether a loss is worth a swap, and more than noise."""
    return found.mean > max(SMALL, 2 * max(_error(found.standard_error), _error(found.monte_carlo_error)))


def _within_noise(one: Loss, other: Loss) -> bool:
    difference = one.per_datum - other.per_datum
    spread = float(difference.std()) / math.sqrt(len(difference)) if len(difference) > 1 else 0.0
    return abs(float(difference.mean())) < 2 * spread


def _error(value: float) -> float:
    """A standard error, 0 where it is not known."""
    return value if math.isfinite(value) else 0.0
