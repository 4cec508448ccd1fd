"""Forms: how raw values become x, so that they are what a likelihood is a density of."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch

from pyro_vae.data.noise import bits_above, drawn_bits, with_noise
from pyro_vae.data.raw import RawValues
from pyro_vae.data.splits import Split
from pyro_vae.data.stored import Values, extremes
from pyro_vae.errors import InputError


class Form(ABC):
    """How raw values become x.

    Contract for the author of the next one: `evaluated` gives a split as it is evaluated, with `Split.batch`
    as x; `kept` gives the same, or for training data one that is drawn anew at every use. `check` refuses, by
    InputError, values that cannot take the form. `protocol` says in words what was done; results whose words
    differ are not compared. It has no options: what it depends on is in `RawValues`.

    >>> import numpy as np
    >>> from pyro_vae import Dataset
    >>> class InThousands(Form):
    ...     def evaluated(self, raw, values, stream):
    ...         return Split(values, maximum=1000.0)
    ...     def maximum(self, raw):
    ...         return 1000.0
    ...     def protocol(self, raw):
    ...         return "in thousands"
    >>> data = Dataset(np.array([[3000, 400], [7000, 0]]), form=InThousands())
    >>> data.train.batch(), data.protocol
    (tensor([[3.0000, 0.4000],
            [7.0000, 0.0000]]), 'in thousands')
    """

    #: Whether the model takes the values standardised, by the training data's means and deviations.
    standardises: bool = False

    def check(self, raw: RawValues) -> None:  # noqa: B027
        """Refuse values that cannot take the form; accepts all unless overridden."""

    def kept(self, raw: RawValues, values: Values, stream: int) -> Split:
        """The split number `stream`, 0, 1, 2 for train, valid, test, as it is used."""
        return self.evaluated(raw, values, stream)

    @abstractmethod
    def evaluated(self, raw: RawValues, values: Values, stream: int) -> Split:
        """The split number `stream` as it is evaluated: always the same."""

    @abstractmethod
    def protocol(self, raw: RawValues) -> str:
        """In words."""

    def levels(self, raw: RawValues) -> int | None:
        """Number of levels k/(levels − 1) that x has; None for real numbers and for counts."""
        return None

    def bin_width(self, raw: RawValues) -> float | None:
        """Distance of neighbouring levels where uniform noise lies between them; else None."""
        return None

    def maximum(self, raw: RawValues) -> float:
        """The value that means 1."""
        return raw.maximum

    def units(self, maximum: float) -> tuple[float, float]:
        """A and b of value = a · x + b, by which x is put into the units of the raw values."""
        return maximum, 0.0

    @property
    def name(self) -> str:
        """Name of the class."""
        return type(self).__name__

    def __repr__(self) -> str:
        return f"{self.name}()"


class AsGiven(Form):
    """x = value, divided by the data's `maximum` where one is named.

    >>> import numpy as np
    >>> from pyro_vae import Dataset
    >>> data = Dataset(np.array([[3, 400], [7, 0]]), form=AsGiven())
    >>> data.train.batch()
    tensor([[  3., 400.],
            [  7.,   0.]])
    """

    def evaluated(self, raw: RawValues, values: Values, stream: int) -> Split:
        """The values."""
        return Split(values, maximum=self.maximum(raw), missing=raw.missing)

    def maximum(self, raw: RawValues) -> float:
        """That which is named, else 1."""
        return float(raw.named_maximum or 1.0)

    def levels(self, raw: RawValues) -> int | None:
        """2 of bits that are stored as such, else None."""
        return 2 if raw.whole and raw.bits and raw.maximum == 1 else None

    def protocol(self, raw: RawValues) -> str:
        """As given, or divided."""
        scale = self.maximum(raw)
        return "as given" if scale == 1 else f"divided by {scale:.9g}"


class Standardised(AsGiven):
    """x = value, and the model takes (x − m)/s: with m and s those of the training data.

    The density of x is that of (x − m)/s times 1/s for each entry, the Jacobian, so that nats, draws and
    means stay in the units of the data, and results can be compared with those of `AsGiven`. m and s are of
    each entry of a vector and of each channel of a picture, over what is observed; s is 1 where an entry does
    not vary. `assemble` puts `StandardisedLikelihood` and `StandardisedPosterior` around the parts.

    >>> import numpy as np
    >>> from pyro_vae import Dataset, NormalLikelihood, assemble
    >>> data = Dataset(np.array([[52_000.0, 1.6], [31_000.0, 1.8]]), form=Standardised())
    >>> vae = assemble(data, latent_dim=1, likelihood=NormalLikelihood)
    >>> vae.likelihood.loc, vae.likelihood.scale
    (tensor([4.1500e+04, 1.7000e+00]), tensor([1.0500e+04, 1.0000e-01]))
    """

    standardises = True

    def levels(self, raw: RawValues) -> int | None:
        """None, since the model is one of real numbers."""
        return None


class Counts(Form):
    """x = value, which is a whole number from 0, as 3 words or 57 molecules.

    >>> import numpy as np
    >>> from pyro_vae import Dataset
    >>> Dataset(np.array([[3, 400], [7, 0]])).form
    Counts()
    """

    def check(self, raw: RawValues) -> None:
        """Refuse what is negative or no whole number."""
        low, high = raw.ends
        if low < 0 or not raw.all_whole:
            raise InputError(
                f"expected whole numbers from 0 for the form Counts, got values from {low:g} to {high:g}"
                f"{'' if raw.all_whole else ', some with fractions'}: give the counts as they were "
                "counted, or use the form AsGiven"
            )

    def evaluated(self, raw: RawValues, values: Values, stream: int) -> Split:
        """The values."""
        return Split(values, maximum=1.0, missing=raw.missing)

    def maximum(self, raw: RawValues) -> float:
        """1."""
        return 1.0

    def protocol(self, raw: RawValues) -> str:
        """Counts."""
        return "counts"


class Levels(Form):
    """x = k/maximum, for levels k = 0 … maximum of whole numbers: 255 of bytes, 16 of `Digits`.

    >>> from pyro_vae import Digits
    >>> Digits(form=Levels()).levels
    17
    """

    def check(self, raw: RawValues) -> None:
        """Refuse what are no whole numbers from 0 to a whole maximum."""
        _check_levels(raw, self.name)

    def evaluated(self, raw: RawValues, values: Values, stream: int) -> Split:
        """The values, to be divided."""
        return Split(values, maximum=raw.maximum, missing=raw.missing)

    def levels(self, raw: RawValues) -> int | None:
        """Maximum + 1."""
        return raw.levels

    def protocol(self, raw: RawValues) -> str:
        """The number of levels."""
        return f"{raw.levels} levels, divided by {raw.maximum:.9g}"


class Dequantised(Form):
    """x = (k + u)/(maximum + 1), u uniform in [0, 1), for levels k = 0 … maximum of whole numbers.

    Training data are drawn anew at every use, others once by the seed. A density of such data is a bound on
    the mass of the levels: Theis, van den Oord & Bethge, "A note on the evaluation of generative models"
    (2016).

    >>> from pyro_vae import Digits
    >>> Digits(form=Dequantised()).bin_width == 1 / 17
    True
    """

    def check(self, raw: RawValues) -> None:
        """Refuse what are no whole numbers from 0 to a whole maximum."""
        _check_levels(raw, self.name)

    def kept(self, raw: RawValues, values: Values, stream: int) -> Split:
        """Training data with noise of every use."""
        if stream == 0:
            return Split(values, maximum=raw.maximum, dequantise=True, missing=raw.missing)
        return self.evaluated(raw, values, stream)

    def evaluated(self, raw: RawValues, values: Values, stream: int) -> Split:
        """The one fixed draw of the noise."""
        drawn = with_noise(
            values,
            [raw.seed, stream],
            torch.float32,
            lambda stored, noise: (stored + noise) / (raw.maximum + 1),
        )
        return Split(drawn, missing=raw.missing)

    def bin_width(self, raw: RawValues) -> float | None:
        """1/(maximum + 1)."""
        return 1 / (raw.maximum + 1)

    def units(self, maximum: float) -> tuple[float, float]:
        """As u is 1/2 on average."""
        return maximum + 1, -0.5

    def protocol(self, raw: RawValues) -> str:
        """The number of levels, and the seed."""
        return f"uniform dequantisation of {raw.levels} levels, evaluated on one fixed draw (seed {raw.seed})"


class Binarised(Form):
    """Bits of grey levels in [0, 1]: of values divided by their maximum."""

    def check(self, raw: RawValues) -> None:
        """Refuse values outside [0, maximum], which are no probabilities to binarise with."""
        for name, values in raw.by_split.items():
            low, high = (end / raw.maximum for end in extremes(values)) if len(values) else (0.0, 0.0)
            if low < 0 or high > 1:
                raise InputError(
                    f"expected grey values in [0, 1] for the form {self.name}, got [{low:g}, {high:g}]"
                    f" in {name} after division by {raw.maximum:g}: rescale the values, give the `maximum`"
                    " that means 1, or use the form AsGiven or Counts"
                )

    def levels(self, raw: RawValues) -> int | None:
        """2."""
        return 2


class Dynamic(Binarised):
    """x_d = 1 with the probability of its grey level: training data drawn anew at every use.

    Validation and test data are drawn once, by the seed: Burda, Grosse & Salakhutdinov, "Importance weighted
    autoencoders" (2016).

    >>> from pyro_vae import Digits
    >>> Digits(form=Dynamic()).protocol
    'dynamic binarisation, evaluated on one fixed draw (seed 0)'
    """

    def kept(self, raw: RawValues, values: Values, stream: int) -> Split:
        """Training data with bits of every use."""
        if stream == 0:
            return Split(values, maximum=raw.maximum, resample=True, missing=raw.missing)
        return self.evaluated(raw, values, stream)

    def evaluated(self, raw: RawValues, values: Values, stream: int) -> Split:
        """The one fixed draw of the bits."""
        return Split(drawn_bits(raw, values, stream), missing=raw.missing)

    def protocol(self, raw: RawValues) -> str:
        """With the seed."""
        return f"dynamic binarisation, evaluated on one fixed draw (seed {raw.seed})"


class Static(Binarised):
    """x_d = 1 with the probability of its grey level: all data drawn once, by the seed.

    Salakhutdinov & Murray, "On the quantitative analysis of deep belief networks" (2008).

    >>> from pyro_vae import Digits
    >>> Digits(form=Static()).protocol
    'static binarisation, one fixed draw of all data (seed 0)'
    """

    def evaluated(self, raw: RawValues, values: Values, stream: int) -> Split:
        """The one fixed draw of the bits."""
        return Split(drawn_bits(raw, values, stream), missing=raw.missing)

    def protocol(self, raw: RawValues) -> str:
        """With the seed."""
        return f"static binarisation, one fixed draw of all data (seed {raw.seed})"


class Threshold(Binarised):
    """x_d = 1 where grey > 1/2.

    >>> from pyro_vae import Digits
    >>> Digits(form=Threshold()).protocol
    'binarised at grey > 1/2'
    """

    def evaluated(self, raw: RawValues, values: Values, stream: int) -> Split:
        """The bits."""
        return Split(bits_above(raw, values), missing=raw.missing)

    def protocol(self, raw: RawValues) -> str:
        """The threshold."""
        return "binarised at grey > 1/2"


#: By name, as they are kept beside a trained model.
FORMS: Mapping[str, Form] = {
    form.name: form
    for form in (
        Dynamic(),
        Static(),
        Threshold(),
        Levels(),
        Dequantised(),
        Standardised(),
        Counts(),
        AsGiven(),
    )
}


def usual_form(raw: RawValues) -> Form:
    """Bytes are levels, other whole numbers counts, bits and floats as given.

    Whole numbers that are floats for the sake of NaN are levels where a maximum is named.

    >>> usual_form(RawValues({"train": torch.tensor([[0, 3], [200, 1]], dtype=torch.uint8)}))
    Levels()
    """
    if raw.dtype.is_floating_point:
        return Levels() if raw.named_maximum and raw.levels and not raw.bits else AsGiven()
    if raw.bits or raw.ends[0] < 0:
        return AsGiven()
    return Levels() if raw.dtype == torch.uint8 and raw.levels else Counts()


def form_named(name: str) -> Form:
    """The form of this name, among those of this package and those of a user's that have been imported.

    Raises:
        KeyError: where there is none.
    """
    if name in FORMS:
        return FORMS[name]
    waiting: list[Any] = [Form]
    while waiting:
        kinds = waiting.pop().__subclasses__()
        for kind in kinds:
            if kind.__name__ == name:
                form: Form = kind()
                return form
        waiting += kinds
    raise KeyError(name)


def _check_levels(raw: RawValues, form: str) -> None:
    if raw.levels is None or raw.levels < 2:
        dtype, (low, high) = str(raw.dtype).removeprefix("torch."), raw.ends
        raise InputError(
            f"expected whole numbers from 0 to a whole maximum for the form {form}, got {dtype} from {low:g} "
            f"to {high:g} with a maximum of {raw.maximum:g}: convert them, as by "
            f"({255 if high <= 1 else 1} * x).round().astype('uint8'), and give the `maximum` that means "
            "1, or use the form AsGiven"
        )
