"""What programs hold, given back after runs that do not count."""

from collections.abc import Sequence

import pyro

from pyro_vae.compiled.guards import Guards, is_unknown
from pyro_vae.compiled.record import State
from pyro_vae.compiled.views import PLAIN, attributes


class Untouched:
    """What can be reached from some programs, as it was when this was made.

    Args:
        roots: The programs, and whatever else a run depends on.
    """

    def __init__(self, roots: Sequence[object]) -> None:
        stored = [parameter for _, parameter in pyro.get_param_store().named_parameters()]
        self._guards = Guards([*roots, *stored])
        self._state = State(self._guards.buffers)
        held = [attributes(thing) for thing in self._guards.things]
        self._numbers = [(each, _numbers_of(each)) for each in held]

    def give_back(self) -> str:
        """Give back buffers, torch's random numbers, and numbers and words that are attributes.

        Returns:
            What else is not as it was; empty where nothing is known.
        """
        self._state.restore()
        for held, numbers in self._numbers:
            for name, number in numbers.items():
                if held.get(name) is not number:
                    held[name] = number
        return self._guards.overwritten()


def _numbers_of(held: dict[str, object]) -> dict[str, object]:
    """Those that are not found out in a first run."""
    return {name: value for name, value in held.items() if isinstance(value, PLAIN) and not is_unknown(value)}
