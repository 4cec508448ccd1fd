"""What a tracker does: three methods."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pyro_vae.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Tracker(ABC):
    """Takes down what happens in one training, for somebody who watches it or looks at it later.

    A class of your own derives from this one and has three methods; `pyro-vae train --track my_module.Mine`
    and `fit(..., track=Mine())` use it. An error in one of them ends the tracking with a warning, and never
    the training. Of several ranks only the first one tracks.

    >>> from pyro_vae import Digits, assemble, fit
    >>> class Printed(Tracker):
    ...     def start(self, config):
    ...         print("batches of", config["batch_size"])
    ...     def log(self, step, scalars, figures):
    ...         print(step, sorted(scalars)[:2])
    ...     def end(self):
    ...         print("the end")
    >>> data = Digits()
    >>> _ = fit(assemble(data), data, epochs=1, track=Printed())
    batches of 100
    13 ['epoch', 'kl_weight']
    the end
    """

    #: A command that shows what is tracked, with {folder} for the folder of the run, or of several.
    watched_by: ClassVar[str] = ""
    #: Whether it must have a folder.
    needs_folder: ClassVar[bool] = False

    #: Where it may keep files of this training, as the id by which it goes on; set before `start`, not
    #: made. None where the training keeps no files.
    folder: Path | None = None

    @abstractmethod
    def start(self, config: Mapping[str, Any]) -> None:
        """Begin, or go on with a training that was stopped, of which there are files in `folder` then.

        Args:
            config: What the training depends on, by option: numbers, words, lists.
        """

    @abstractmethod
    def log(self, step: int, scalars: Mapping[str, float], figures: Mapping[str, "Figure"]) -> None:
        """Take something down, after each epoch, and in the end once more.

        Args:
            step: Steps taken so far.
            scalars: Numbers by name: the fields of `Epoch`, and in the end ELBO and log p(x) of the test
                data.
            figures: Pictures by name, of matplotlib; none but in the end.
        """

    @abstractmethod
    def end(self) -> None:
        """Close what is open, also where the training is interrupted."""


class NoTracker(Tracker):
    """Tracks nothing."""

    def start(self, config: Mapping[str, Any]) -> None:
        """Nothing."""

    def log(self, step: int, scalars: Mapping[str, float], figures: Mapping[str, "Figure"]) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""


def is_installed(module: str) -> bool:
    """Whether a library is there; a folder of its name, as wandb makes one, is none."""
    spec = find_spec(module)
    return spec is not None and spec.origin is not None


def require(module: str) -> None:
    """Refuse a tracker whose library is not installed.

    Raises:
        InputError: with how to install it.
    """
    if not is_installed(module):
        raise InputError(
            f"tracking by {module} needs {module}, which is not installed: install it by "
            f'pip install -e ".[{module}]", or track by csv'
        )
