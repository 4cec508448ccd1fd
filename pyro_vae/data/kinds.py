"""From the words of a column to numbers: its kind is found or given, and held against each word."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pyro_vae.columns import CONTINUOUS, KINDS, WORDS, Column, Kind
from pyro_vae.errors import InputError

#: Words for no and yes, in this order.
_PAIRS = (("no", "yes"), ("false", "true"), ("0", "1"), ("n", "y"), ("f", "t"))
_LONG_PAIRS = 3  # of which one word alone is enough

_DATE = re.compile(r"\d{4}-\d{1,2}-\d{1,2}([ T].*)?|\d{1,2}[./]\d{1,2}[./]\d{2,4}( .*)?")
_IDENTIFIER = re.compile(r"(^|[^a-z])(id|index|key|number|nr|no)$")
_WITH_COMMA = re.compile(r"[+-]?(\d{1,3}(,\d{3})+(\.\d*)?|\d*,\d+)")

_COMMA = "say what its comma means, as by thousands=',' or decimal=',' (--data.thousands, --data.decimal)"

#: From which on float32 has not every whole number.
LARGEST_COUNT = 2**24
_LARGEST_INTEGER = 2**53
_LARGEST_FLOAT32 = 3e38

#: Different words up to which a column is one of categories whatever the number of rows.
_ALWAYS_CLASSES = 20


@dataclass(frozen=True)
class Numerals:
    """How numbers are written: the decimal sign, and the sign between thousands, or ""."""

    decimal: str = "."
    thousands: str = ""

    def __post_init__(self) -> None:
        if self.decimal not in (".", ",") or self.thousands not in ("", ",", ".", "'", " "):
            raise InputError(
                f"expected '.' or ',' as the decimal sign and '', ',', '.', \"'\" or ' ' between thousands, "
                f"got {self.decimal!r} and {self.thousands!r}"
            )
        if self.decimal == self.thousands:
            raise InputError(f"expected two signs, got {self.decimal!r} as decimal and between thousands")

    @property
    def pattern(self) -> re.Pattern[str]:
        """What a number looks like."""
        point, comma = re.escape(self.decimal), re.escape(self.thousands)
        digits = rf"(?:[0-9]{{1,3}}(?:{comma}[0-9]{{3}})+|[0-9]+)" if comma else "[0-9]+"
        return re.compile(rf"[+-]?(?:{digits}(?:{point}[0-9]*)?|{point}[0-9]+)(?:[eE][+-]?[0-9]+)?")

    def values(self, words: Sequence[str]) -> dict[str, float]:
        """Words that are numbers, with their values."""
        pattern, found = self.pattern, {}
        for word in words:
            if pattern.fullmatch(word):
                plain = word.replace(self.thousands, "") if self.thousands else word
                found[word] = float(plain.replace(self.decimal, "."))
        return found


def find_kind(name: str, words: Sequence[str], numerals: Numerals, *, some_missing: bool = False) -> Kind:
    """The kind of a column, from its words, those for missing entries left out.

    Two words as no and yes are yes_no. Whole numbers from 0 are counts if they vary at least half as much as
    those of a Poisson, or else, where there are at most 20, categories. Other numbers are positive where all
    are and their logarithms are less skewed, else real. Other words are categories. Where some are missing,
    `3.0` is a whole number, too, since pandas writes them so.

    Raises:
        InputError: where the words are dates, numbers written in another way or mixed with words, or nearly
            all different.
    """
    distinct = list(dict.fromkeys(words))
    if _pair_of(distinct, numerals) is not None:
        return "yes_no"
    numbers = numerals.values(distinct)
    if len(numbers) == len(distinct):
        whole = "e" not in "".join(distinct).lower() and all(
            numerals.decimal not in (word.removesuffix(f"{numerals.decimal}0") if some_missing else word)
            for word in distinct
        )
        return _kind_of_numbers(np.array([numbers[word] for word in words]), len(distinct), whole)
    _refuse_no_classes(name, distinct, numbers, len(words))
    return "category"


def is_identifier(name: str, words: Sequence[str], numerals: Numerals) -> bool:
    """Whether numbers seem to name rows: all are whole and different, and without a gap, or the name says so.

    >>> is_identifier("patient_id", [str(17 * number) for number in range(50)], Numerals())
    True
    >>> is_identifier("income", [str(1000 + 17 * number) for number in range(50)], Numerals())
    False
    """
    if len(words) <= _ALWAYS_CLASSES or len({*words}) < len(words):
        return False
    values = list(numerals.values(words).values())
    if len({*values}) < len(words):
        return False
    without_gap = max(values) - min(values) == len(values) - 1
    named = bool(_IDENTIFIER.search(name.lower()))
    return (without_gap or named) and all(value.is_integer() for value in values)


def _kind_of_numbers(values: NDArray[np.float64], distinct: int, written_whole: bool) -> Kind:
    if not np.isfinite(values).all():
        return "real"  # of which the infinite one is refused, with its line
    if written_whole and values.min() >= 0 and values.max() < LARGEST_COUNT:
        if values.var() >= values.mean() / 2 or values.min() == values.max():
            return "count"
        return "category" if distinct <= _ALWAYS_CLASSES else "real"
    if values.min() > 0 and len(values) >= _ALWAYS_CLASSES:
        skew, skew_of_log = (abs(_skewness(each)) for each in (values, np.log(values)))
        if skew > 1 and skew_of_log < skew:
            return "positive"
    return "real"


def _skewness(values: NDArray[np.float64]) -> float:
    z = values - values.mean()
    scale = z.std()
    return float((z / scale if scale else z).__pow__(3).mean())


def _refuse_no_classes(
    name: str, distinct: Sequence[str], numbers: Sequence[str] | dict[str, float], total: int
) -> None:
    """Refuse words that are no categories."""
    other = next(word for word in distinct if word not in numbers)
    out = f"leave it out, by columns={{{name!r}: 'leave_out'}} or --data.columns.{name} leave_out"
    dates = sum(bool(_DATE.fullmatch(word)) for word in distinct)
    if 2 * dates > len(distinct):
        raise InputError(
            f"expected numbers or categories in the column {name!r}, got dates as {distinct[0]!r}: write "
            f"them as numbers, as of days, or {out}"
        )
    if _WITH_COMMA.fullmatch(other):
        raise InputError(
            f"expected numbers with a decimal point in the column {name!r}, got {other!r}: {_COMMA}"
        )
    if len(numbers) > max(_ALWAYS_CLASSES, len(distinct) / 2):
        raise InputError(
            f"expected numbers in the column {name!r}, got {other!r}, too: name it among the missing_words "
            f"where it means that, or make the column a category, as by columns={{{name!r}: 'category'}}"
        )
    if len(distinct) > max(_ALWAYS_CLASSES, total / 2):
        raise InputError(
            f"expected categories in the column {name!r}, got {len(distinct)} different words in {total} "
            f"rows, as of names: {out}"
        )


def _pair_of(distinct: Sequence[str], numerals: Numerals) -> tuple[str, str] | None:
    """The words for no and yes, as they are written, where all words are among them."""
    lower = {word.lower(): word for word in reversed(distinct)}
    for number, (no, yes) in enumerate(_PAIRS):
        if lower.keys() <= {no, yes} and lower and (len(lower) == 2 or number < _LONG_PAIRS):
            return lower.get(no, _like(no, lower.get(yes, ""))), lower.get(yes, _like(yes, lower.get(no, "")))
    numbers = numerals.values(distinct)
    both = len(numbers) == len(distinct) > 0 and {*numbers.values()} <= {0.0, 1.0}
    return ("0", "1") if both else None


def _like(word: str, other: str) -> str:
    """A word with the capitals of the other."""
    return word.upper() if other.isupper() else word.capitalize() if other.istitle() else word


def classes_of(name: str, kind: Kind, words: Sequence[str], numerals: Numerals) -> tuple[str, ...]:
    """The words that the codes 0, 1, … stand for.

    Raises:
        InputError: where there are not two of them for yes_no.
    """
    if kind not in WORDS:
        return ()
    distinct = list(dict.fromkeys(words))
    pair = _pair_of(distinct, numerals) if kind == "yes_no" else None
    if pair is not None:
        return pair
    numbers = numerals.values(distinct)
    ordered = sorted(distinct, key=numbers.__getitem__) if len(numbers) == len(distinct) else sorted(distinct)
    if kind == "yes_no" and len(ordered) != 2:
        raise InputError(
            f"expected two words in the column {name!r} of yes_no, got {len(ordered)}: make it a category"
        )
    return tuple(ordered)


def encoded(
    column: Column, words: Sequence[str], place: Callable[[int], str], numerals: Numerals
) -> NDArray[np.float64]:
    """The entries of a column as float64 (N,), the origin not yet subtracted, NaN where a word is empty.

    Args:
        column: Name, kind and classes.
        words: "" where missing.
        place: Where the row of a number stands, for messages.
        numerals: How numbers are written.

    Raises:
        InputError: where a word is no number or class of the column, with its line.
    """
    codes: dict[str, float] = {"": math.nan}
    for word, row in {word: row for row, word in reversed([*enumerate(words)])}.items():
        if word:
            codes[word] = _code(column, word, place(row), numerals)
    return np.array([codes[word] for word in words], np.float64)


def _code(column: Column, word: str, place: str, numerals: Numerals) -> float:
    where = f"in the column {column.name!r}, {place}"
    numbers = numerals.values([word])
    if column.kind in WORDS:
        return _code_of_class(column, word, numbers.get(word), where)
    if word not in numbers:
        remedy = "name it among the missing_words, or correct it"
        if _WITH_COMMA.fullmatch(word):
            remedy = _COMMA
        raise InputError(f"expected a number {where}, got {word!r}: {remedy}")
    return _checked(column, word, numbers[word], where)


def _code_of_class(column: Column, word: str, number: float | None, where: str) -> float:
    if word in column.classes:
        return float(column.classes.index(word))
    if column.kind == "yes_no":
        lower = [each.lower() for each in column.classes]
        if word.lower() in lower:
            return float(lower.index(word.lower()))
        if lower == ["0", "1"] and number in (0.0, 1.0):
            return float(number)
    few = ", ".join(column.classes[:8]) + (", …" if len(column.classes) > 8 else "")
    raise InputError(
        f"expected one of {few} {where}, got {word!r}, which is none of the training data's: correct it, or "
        "leave the cell empty, as missing"
    )


def _checked(column: Column, word: str, value: float, where: str) -> float:
    """A number, refused where it is none of the column's kind."""
    name = f"columns={{{column.name!r}: 'real'}}"
    if abs(value) > _LARGEST_FLOAT32:
        raise InputError(f"expected numbers up to 3e38 {where}, got {word}: give it in a larger unit")
    if value == round(value) and abs(value) > _LARGEST_INTEGER and not any(sign in word for sign in ".eE"):
        raise InputError(
            f"expected whole numbers up to 2**53 {where}, got {word}, as of a name: leave the column out, as "
            f"by columns={{{column.name!r}: 'leave_out'}}"
        )
    if column.kind == "count" and (value < 0 or value != round(value) or value >= LARGEST_COUNT):
        raise InputError(
            f"expected a count from 0 to {LARGEST_COUNT - 1} {where}, got {word}: correct it, or train with "
            f"{name}"
        )
    if column.kind == "positive" and value <= 0:
        raise InputError(f"expected a positive number {where}, got {word}: correct it, or train with {name}")
    return value


def origin_of(column: Column, values: NDArray[np.float64]) -> float:
    """0, or what to subtract so that float32 has the differences of the numbers to 1e-4 of their spread.

    Args:
        column: Of a kind of numbers.
        values: (N,) of the training data, NaN where missing.

    Raises:
        InputError: where positive numbers, which have no origin to choose, are so close to each other.
    """
    seen = values[~np.isnan(values)]
    if column.kind not in CONTINUOUS or not len(seen):
        return 0.0
    low, middle, high = np.quantile(seen, [0.25, 0.5, 0.75])
    spread = min(float(seen.std()), float(high - low) / 1.35 or math.inf)
    error = np.abs(seen.astype(np.float32).astype(np.float64) - seen)
    if bool((error <= 1e-4 * np.maximum(spread, np.abs(seen - middle))).all()):
        return 0.0
    if column.kind == "positive":
        raise InputError(
            f"expected positive numbers that float32 tells apart in the column {column.name!r}, got a spread "
            f"of {spread:.3g} about {middle:.10g}: use columns={{{column.name!r}: 'real'}}"
        )
    digits = 1 - math.ceil(math.log10(max(spread, 1e-300)))
    return float(round(float(middle), digits))


def kind_named(name: str, word: str) -> str:
    """A kind as a user names it, or `leave_out`.

    Raises:
        InputError: where there is none of that name.
    """
    if word not in (*KINDS, "leave_out"):
        raise InputError(
            f"columns expects {', '.join(KINDS)} or leave_out for {name!r}, got {word!r}: choose one of these"
        )
    return word
