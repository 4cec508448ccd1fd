"""A run, as far as it is there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pyro_vae.comparison.options import model_in_words
from pyro_vae.data import DataFacts, Dataset
from pyro_vae.errors import InputError
from pyro_vae.pages.looking import Beside, conditions
from pyro_vae.reports import held_out
from pyro_vae.vae import JointProgram


@dataclass(frozen=True, eq=False)
class Subject:
    """A run for a page: each part, or None and in `lacking` by the part's name why it is not there."""

    folder: Path
    #: The content of its config.yaml.
    config: Mapping[str, Any]
    vae: JointProgram | None
    facts: DataFacts | None
    data: Dataset | None
    #: The columns of metrics.csv.
    metrics: Mapping[str, Sequence[float]] | None
    #: The content of evaluation.json, or else of summary.json.
    results: dict[str, Any] | None
    #: The content of per_datum.npz.
    per_datum: Mapping[str, NDArray[Any]] | None
    #: The content of diagnosis.json.
    diagnosis: dict[str, Any] | None
    lacking: Mapping[str, str]

    @property
    def name(self) -> str:
        """As it was given."""
        return str(self.folder)

    @property
    def model(self) -> str:
        """What it has in common with runs of other seeds, and not with others."""
        return model_in_words(self.config)

    def need(self, *names: str) -> Any:
        """Parts by their names; one alone, of several a tuple.

        Raises:
            InputError: with why one is not there.
        """
        for name in names:
            if getattr(self, name) is None:
                raise InputError(self.lacking[name])
        found = tuple(getattr(self, name) for name in names)
        return found[0] if len(found) == 1 else found

    def pictures(self) -> tuple[JointProgram, DataFacts]:
        """The model of pictures, and what it knows of them.

        Raises:
            InputError: where the data are no pictures, or the model is not there.
        """
        vae, facts = self.need("vae", "facts")
        if facts.columns or len(facts.data_shape) != 3:
            what = "rows of a table" if facts.columns else "vectors"
            raise InputError(f"the data are {what}, no pictures: see their marginals among the samples")
        return vae, facts

    def beside(self) -> Beside:
        """What all pictures are decoded with: what is given with the first datum that is held out.

        Raises:
            InputError: where it is not at hand, or is more than a number.
        """
        names = conditions(self.need("vae"))
        if not names:
            return {}
        data = self.need("data")
        part = getattr(data, held_out(data))
        for name in names:
            if name not in part.fields or part.fields[name].ndim != 1:
                raise InputError(f"pictures depend on {name}, which is no number of each datum")
        return {name: part.fields[name][0].item() for name in names}


def by_model(subjects: Sequence[Subject]) -> list[list[Subject]]:
    """Runs that differ in their seed only, together, in the order of the first of each."""
    groups: dict[str, list[Subject]] = {}
    for subject in subjects:
        groups.setdefault(subject.model, []).append(subject)
    return list(groups.values())
