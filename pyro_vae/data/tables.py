"""Mixed tables: numbers, counts, truth values and categories, with entries that are missing."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from numpy.typing import NDArray
from torch import Tensor

from pyro_vae.columns import Columns, Schema, measure_in_words, words_of
from pyro_vae.data.cells import MISSING_WORDS, Cells, cells_of, write_cells
from pyro_vae.data.checks import check_seed
from pyro_vae.data.dataset import Dataset
from pyro_vae.data.encoding import find_columns, labels_of, rows_of, split_by, to_columns, without
from pyro_vae.data.fields import SPLITS
from pyro_vae.data.kinds import Numerals
from pyro_vae.data.table_folders import cells_in
from pyro_vae.errors import InputError
from pyro_vae.storage.files import write


class Table(Dataset):
    """A mixed table from CSV or Parquet: x is (D,), numbers as they are, and classes as codes from 0.

    The kind of each column is found, printed by `table.schema`, and changed by `columns`:

    | kind | entries | density |
    |---|---|---|
    | `real` | numbers | normal |
    | `heavy_tailed` | numbers, where asked for | Student's t |
    | `positive` | numbers above 0, whose logarithms are less skewed | log-normal |
    | `count` | whole numbers from 0 that vary as counts do | negative binomial (a probability) |
    | `yes_no` | no/yes, false/true, 0/1, n/y, f/t, or two words where asked for | Bernoulli (a probability) |
    | `category` | other words, and up to 20 whole numbers that vary less | categorical (a probability) |

    An empty cell, and one of `missing_words`, is missing: NaN in x, and left out of log p(x). Splits
    are those of a column named `split`, of files `train.csv`, `valid.csv` and `test.csv` in a folder, or
    80/10/10 by the seed. Classes are those of all splits; locations and scales, by which models standardise,
    those of the training data. Numbers that float32 cannot tell apart, as times in seconds, are in x less an
    `origin` of their column, and are written with it.

    Args:
        path: A `.csv`, `.tsv` or `.txt` in UTF-8 with a header, a `.parquet` (`pip install
            "pyro_vae[tables]"`), or a folder of train, valid and test. A folder of `.parquet` files, in the
            order of their names, is the table that they make one below the other, and so is a folder train,
            valid or test in a folder; of these one column is in memory at a time, beside x.
        columns: By name, a kind in place of the one found, or `leave_out`.
        seed: Of the split, 0 to 2**32 - 1.
        separator: Between cells; None finds comma, semicolon, tab or bar.
        decimal: The decimal sign, `.` or `,`.
        thousands: The sign between thousands; by default none.
        missing_words: What means missing, beside an empty cell.
        label: A column of classes that is the field `label`, too, for the colours of `scatter`.

    Raises:
        InputError: The file is missing or damaged; names are missing or there twice; a line has too few or
            too many cells; a column is empty, constant where a density is to be had, of dates or names; a
            word is none of its column's kind; nothing is observed in a row.

    >>> table = Table.from_columns(
    ...     {
    ...         "height": [1.62, 1.83, None, 1.71, 1.90, 1.77, 1.65, 1.58, 1.69, 1.80],
    ...         "smokes": ["no", "yes", "no", "no", "no", "yes", "no", "yes", "no", "no"],
    ...         "city": ["Ulm", "Bonn", "Ulm", "Kiel", "Kiel", "Ulm", "Bonn", "Kiel", "Ulm", "?"],
    ...     }
    ... )
    >>> print(table.schema)
    height  real      real numbers, mean 1.73714, standard deviation 0.1031
    smokes  yes_no    no or yes: no, yes
    city    category  categories: Bonn, Kiel, Ulm
    >>> table.sizes, table.test.batch()
    (Sizes(train=8, valid=1, test=1), tensor([[1.7700, 1.0000, 2.0000]]))
    >>> table.to_columns(table.test.batch())
    {'height': [1.77], 'smokes': ['yes'], 'city': ['Ulm']}
    """

    columns: Columns

    def __init__(
        self,
        path: Path,
        *,
        columns: dict[str, str] | None = None,
        seed: int = 0,
        separator: str | None = None,
        decimal: str = ".",
        thousands: str = "",
        missing_words: tuple[str, ...] = MISSING_WORDS,
        label: str | None = None,
    ) -> None:
        path = Path(path).expanduser()
        numerals = Numerals(decimal, thousands)

        def read() -> Mapping[str, Cells]:
            return without(cells_in(path, separator), missing_words)

        self._take(read, columns, seed, numerals, label)

    @classmethod
    def from_columns(
        cls,
        train: Any,
        valid: Any = None,
        test: Any = None,
        *,
        columns: dict[str, str] | None = None,
        seed: int = 0,
        missing_words: tuple[str, ...] = MISSING_WORDS,
        label: str | None = None,
    ) -> Self:
        """A table of columns in memory.

        Args:
            train: A mapping from names to arrays (N,), or a pandas DataFrame; all data, to be split, where
                there is neither valid nor test.
            valid: Likewise, with the same names.
            test: Likewise.
            columns: By name, a kind in place of the one found, or `leave_out`.
            seed: Of the split.
            missing_words: What means missing, beside None and NaN.
            label: A column of classes that is the field `label`, too.

        Raises:
            InputError: as for a file.

        >>> Table.from_columns({"age": range(20, 40), "weight": [50 + i / 7 for i in range(20)]}).sizes
        Sizes(train=16, valid=2, test=2)
        """
        table = cls.__new__(cls)
        parts = dict(zip(SPLITS, (train, valid, test), strict=True))

        def read() -> Mapping[str, Cells]:
            found = {name: cells_of(part, name) for name, part in parts.items() if part is not None}
            if len(found) == 1:
                found = {"all": cells_of(train)}
            names = next(iter(found.values())).names
            return without({name: cells.chosen(names) for name, cells in found.items()}, missing_words)

        Table._take(table, read, columns, seed, Numerals(), label)
        return table

    def _take(
        self,
        read: Callable[[], Mapping[str, Cells]],
        kinds: Mapping[str, str] | None,
        seed: int,
        numerals: Numerals,
        label: str | None,
        like: Columns | None = None,
    ) -> None:
        check_seed(seed)
        self._again = (read, seed, numerals)
        parts = read()
        self._split_by_seed = "all" in parts and "split" not in parts["all"].names
        parts = split_by(parts["all"], seed) if "all" in parts else parts
        if not len(parts["train"]):
            raise InputError(f"expected training data in {parts['train'].where}, got none: give rows")
        self.columns = like or find_columns(parts, kinds or {}, numerals)
        values = {name: rows_of(cells, self.columns, numerals) for name, cells in parts.items()}
        labels = labels_of(values, self.columns, label)
        valid, test = values.get("valid"), values.get("test")
        super().__init__(values["train"], valid, test, seed=seed, missing=True, **labels)

    def like(self, columns: Columns) -> "Table":
        """The same data, by the columns of another table, as of the training.

        Raises:
            InputError: where a column is not there, or a word is none of its kind and classes.
        """
        read, seed, numerals = self._again
        table = Table.__new__(Table)
        table._take(read, None, seed, numerals, None, columns)
        return table

    @property
    def schema(self) -> Schema:
        """The columns, printed in words."""
        return Schema(self.columns)

    @property
    def levels(self) -> None:
        """None: the numbers of a table are no grey levels."""

    @property
    def protocol(self) -> str:
        """By what p(x) is measured, and how the data were split."""
        lacking = sum(part.num_missing for part in (self.train, self.valid, self.test))
        total = sum(self.sizes) * len(self.columns)
        return (
            f"a table of {measure_in_words(self.columns)}"
            + (f", {lacking} of {total} entries missing" if lacking else "")
            + (f", split by seed {self.seed}" if self._split_by_seed else "")
        )

    def to_columns(self, x: Tensor) -> dict[str, list[float | int | str | None]]:
        """Rows of x in a user's words, by column, as `pandas.DataFrame` takes them; None where missing.

        Args:
            x: (N, D).
        """
        return to_columns(x, self.columns)

    def save(self, x: Tensor, path: Path | str) -> None:
        """Write rows of x (N, D) as a CSV, in a user's words."""
        rows = words_of(x.detach().cpu().numpy(), self.columns)
        write(Path(path), write_cells([each.name for each in self.columns], rows))


class SklearnTable(Table):
    """A table that comes with scikit-learn, so that nothing is downloaded, with its target as last column.

    | name | rows | columns |
    |---|---|---|
    | `wine` | 178 | 13 chemical measurements, and the cultivar (3 classes) |
    | `breast_cancer` | 569 | 30 measurements of cell nuclei, and the diagnosis (2 classes) |
    | `diabetes` | 442 | age, sex, 8 measurements, and the progression of the disease |

    Sources: Forina et al. (1988); Street, Wolberg and Mangasarian (1993); Efron, Hastie, Johnstone and
    Tibshirani (2004).

    Args:
        name: Of the table.
        columns: By name, a kind in place of the one found, or `leave_out`.
        seed: Of the split 80/10/10.

    Raises:
        InputError: where there is no table of that name.

    >>> table = SklearnTable("wine")
    >>> table.sizes, [column.name for column in table.columns if column.kind == "positive"]
    (Sizes(train=144, valid=17, test=17), ['malic_acid', 'magnesium'])
    """

    def __init__(
        self,
        name: Literal["wine", "breast_cancer", "diabetes"] = "wine",
        *,
        columns: dict[str, str] | None = None,
        seed: int = 0,
    ) -> None:
        cells = cells_of(sklearn_columns(name), f"the table {name}")
        label = {"wine": "cultivar", "breast_cancer": "diagnosis"}.get(name)
        kinds = columns or {}
        label = None if kinds.get(label or "") == "leave_out" else label
        self._take(lambda: {"all": cells}, kinds, seed, Numerals(), label)


def sklearn_columns(name: str) -> dict[str, NDArray[Any]]:
    """Columns of a table of scikit-learn by name, in their own units, the target last.

    Raises:
        InputError: where there is none of that name.
    """
    from sklearn import datasets  # slow to import

    loaders: Mapping[str, Callable[[], Any]] = {
        "wine": datasets.load_wine,
        "breast_cancer": datasets.load_breast_cancer,
        "diabetes": lambda: datasets.load_diabetes(scaled=False),
    }
    if name not in loaders:
        raise InputError(f"name expects {', '.join(loaders)}, got {name!r}: choose one of these")
    loaded = loaders[name]()
    found = dict(zip(map(str, loaded.feature_names), loaded.data.T, strict=True))
    if name == "diabetes":
        found["sex"] = found["sex"].astype(int).astype(str)  # 1 and 2, unnamed in the source
        return {**found, "progression": loaded.target}
    target = "cultivar" if name == "wine" else "diagnosis"
    return {**found, target: loaded.target_names[loaded.target]}
