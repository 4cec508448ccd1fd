"""Columns of a table: their kinds, and what is kept of each beside a model."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from pyro_vae.errors import InputError

#: What the entries of a column are.
Kind = Literal["real", "heavy_tailed", "positive", "count", "yes_no", "category"]

KINDS: tuple[Kind, ...] = get_args(Kind)

#: Kinds whose entries have a density, per unit of the column; all others have probabilities.
CONTINUOUS: tuple[Kind, ...] = ("real", "heavy_tailed", "positive")

#: Kinds whose entries are words, which x has as codes 0, 1, …
WORDS: tuple[Kind, ...] = ("yes_no", "category")

_IN_WORDS: Mapping[str, str] = {
    "real": "real numbers",
    "heavy_tailed": "real numbers with heavy tails",
    "positive": "positive numbers",
    "count": "counts",
    "yes_no": "no or yes",
    "category": "categories",
}


@dataclass(frozen=True)
class Column:
    """A column of a table, as a model must know it.

    Attributes:
        name: As in the header.
        kind: `real`, `heavy_tailed` (real, for Student's t), `positive` (for a log-normal), `count`, `yes_no`
            or `category`.
        classes: The words that the codes 0, 1, … stand for, of the kinds yes_no (no first) and category.
        location: Mean over the training data: of x; of log x where positive; of log(1 + x) of counts.
        scale: Standard deviation over the training data of the same, 1 where that is 0.
        typical: An entry to see in the place of a missing one: the mean, the median of positive numbers, the
            most frequent class.
        origin: What was subtracted from the numbers of the file before they became float32: 0, or where
            float32 would lose digits of their differences (as of times in seconds), a number among them.

    >>> column = Column("height", "real", location=1.7, scale=0.1)
    >>> column.word(np.float32(1.83)), Column("sex", "category", ("f", "m")).word(1.0)
    ('1.83', 'm')
    """

    name: str
    kind: Kind
    classes: tuple[str, ...] = ()
    location: float = 0.0
    scale: float = 1.0
    typical: float = 0.0
    origin: float = 0.0

    @property
    def in_words(self) -> str:
        """Kind and numbers of the column, for a person."""
        words = _IN_WORDS[self.kind]
        if self.kind in WORDS:
            return f"{words}: {_shortened(self.classes)}"
        if self.kind == "positive":
            median, spread = math.exp(self.location), f"standard deviation of the logarithm {self.scale:.4g}"
            return f"{words}, median {median:.4g}, {spread}"
        if self.kind == "count":
            return f"{words}, mean {self.typical:.4g}"
        return f"{words}, mean {self.location + self.origin:.6g}, standard deviation {self.scale:.4g}"

    def word(self, value: float) -> str:
        """An entry of x as in the file: a number with the digits of float32, or the word of its class."""
        if math.isnan(value):
            return ""
        if self.kind in WORDS:
            return self.classes[round(float(value))]
        shortest = Decimal(str(np.float32(value))) + Decimal(repr(self.origin))
        if shortest.is_finite() and shortest == shortest.to_integral_value() and abs(shortest) < 10**15:
            return str(int(shortest))
        return str(shortest.normalize())

    def plain(self) -> dict[str, Any]:
        """The same as numbers, words and lists."""
        return {**asdict(self), "classes": list(self.classes)}

    @classmethod
    def from_plain(cls, content: Any) -> Self:
        """What `plain` gave.

        Raises:
            ValueError: where `content` is something else.
        """
        found = cls(**{**content, "classes": tuple(content["classes"])})
        numbers = [getattr(found, name) for name in ("location", "scale", "typical", "origin")]
        fine = (
            isinstance(found.name, str)
            and found.kind in KINDS
            and all(isinstance(each, str) for each in found.classes)
            and (found.kind in WORDS) == bool(found.classes)
            and (found.kind != "yes_no" or len(found.classes) == 2)
            and all(isinstance(each, int | float) and math.isfinite(each) for each in numbers)
            and found.scale > 0
        )
        if not fine:
            raise ValueError("no column")
        return found


#: The columns of a table, in its order; none of other data.
Columns = tuple[Column, ...]


class Schema(tuple[Column, ...]):
    """The columns of a table; printed, a line for each in words.

    >>> print(Schema([Column("age", "count", typical=41.3), Column("smokes", "yes_no", ("no", "yes"))]))
    age     count   counts, mean 41.3
    smokes  yes_no  no or yes: no, yes
    """

    def __repr__(self) -> str:
        names, kinds = ([getattr(each, name) for each in self] for name in ("name", "kind"))
        wide = [max(map(len, words), default=0) for words in (names, kinds)]
        return "\n".join(
            f"{each.name:<{wide[0]}}  {each.kind:<{wide[1]}}  {each.in_words}"
            + (f", less {each.origin:.10g} in x" if each.origin else "")
            for each in self
        )

    __str__ = __repr__


def columns_from(content: Iterable[Any]) -> Columns:
    """Columns from what `Column.plain` gave."""
    return tuple(Column.from_plain(each) for each in content)


def measure_in_words(columns: Columns) -> str:
    """By what p(x) is measured, in words that differ wherever two numbers must not be compared.

    >>> measure_in_words((Column("age", "count"), Column("height", "real")))
    '2 columns, 1 continuous (measure f0b539ef)'
    """
    dense = sum(each.kind in CONTINUOUS for each in columns)
    each_by = [(each.name, each.kind in CONTINUOUS, each.classes) for each in columns]
    digest = hashlib.sha256(json.dumps(each_by).encode()).hexdigest()[:8]
    return f"{len(columns)} columns, {dense} continuous (measure {digest})"


def words_of(rows: NDArray[Any], columns: Columns) -> list[list[str]]:
    """Rows of x as cells of a file.

    Args:
        rows: (N, D), NaN where missing, which becomes an empty cell.
        columns: Of the table.

    >>> words_of(np.array([[1.5, 1.0]]), (Column("a", "real"), Column("b", "yes_no", ("no", "yes"))))
    [['1.5', 'yes']]
    """
    return [[column.word(value) for column, value in zip(columns, row, strict=True)] for row in rows.tolist()]


def found_column(
    name: str, kind: Kind, values: NDArray[Any], classes: Sequence[str], origin: float
) -> Column:
    """A column with the numbers of its training data.

    Args:
        name: Of the column.
        kind: Of its entries.
        values: (N,) float64, less the origin, NaN where missing.
        classes: Words of the codes.
        origin: That was subtracted.

    Raises:
        InputError: where there is no number, or only one in a column that has a density.
    """
    seen = values[~np.isnan(values)]
    if not len(seen):
        raise InputError(
            f"expected an entry in the column {name!r} of the training data, got none: leave it out, as by "
            f"columns={{{name!r}: 'leave_out'}}"
        )
    if kind in CONTINUOUS and seen.min() == seen.max():
        raise InputError(
            f"expected numbers that vary in the column {name!r} of the training data, got "
            f"{float(seen[0]) + origin:.7g} only, which has no density: leave it out, as by "
            f"columns={{{name!r}: 'leave_out'}}"
        )
    if kind in WORDS:
        often = int(np.bincount(seen.astype(np.int64)).argmax())
        share = float(seen.mean()) if kind == "yes_no" else 0.0
        return Column(name, kind, tuple(classes), share, 1.0, float(often))
    seen_by = {"positive": np.log, "count": np.log1p}.get(kind, np.asarray)(seen)
    location, scale = float(seen_by.mean()), float(seen_by.std())
    typical = math.exp(location) if kind == "positive" else float(seen.mean())
    return Column(name, kind, (), location, scale or 1.0, typical, origin)


def same_columns(wanted: Columns, got: Columns) -> None:
    """Refuse columns of other names, kinds or classes.

    Raises:
        InputError: with the first that differs.
    """
    names = [[each.name for each in columns] for columns in (wanted, got)]
    if names[0] != names[1]:
        raise InputError(f"expected the columns {_shortened(names[0])}, got {_shortened(names[1])}")
    for one, other in zip(wanted, got, strict=True):
        if (one.kind, one.classes, one.origin) != (other.kind, other.classes, other.origin):
            raise InputError(f"expected the column {one.name!r} of {one.in_words}, got {other.in_words}")


def _shortened(words: Sequence[str]) -> str:
    return ", ".join(words[:8]) + (f", … ({len(words)})" if len(words) > 8 else "")
