"""Densities of other libraries, in the same units: nats per row, per unit of each column."""

import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity

import pyro_vae as pv
from pyro_vae.columns import CONTINUOUS, WORDS

Rows = NDArray[np.float64]
#: Log density of each row, by the function that a method has fitted.
LogDensity = Callable[[Rows], NDArray[np.float64]]


class Standard:
    """Numbers standardised, positive ones in logarithms, as the model sees them, with the Jacobian."""

    def __init__(self, table: pv.Table) -> None:
        self.columns = [column for column in table.columns if column.kind in CONTINUOUS]
        self.places = [table.columns.index(column) for column in self.columns]
        self.positive = np.array([column.kind == "positive" for column in self.columns])
        self.location = np.array([column.location for column in self.columns])
        self.scale = np.array([column.scale for column in self.columns])

    def __call__(self, x: Rows) -> Rows:
        """Rows (N, D) as numbers (N, d)."""
        numbers = x[:, self.places]
        seen = np.where(self.positive, np.log(np.where(self.positive, numbers, 1)), numbers)
        return np.asarray((seen - self.location) / self.scale)

    def log_jacobian(self, x: Rows) -> Rows:
        """Log |du/dx| of each row: −Σ log s, and −log x of positive numbers."""
        numbers = np.where(self.positive, x[:, self.places], 1)
        return np.asarray(-np.log(self.scale).sum() - np.log(numbers).sum(1))


def mixtures(most: int) -> dict[str, Callable[[], Any]]:
    """Gaussian mixtures of up to so many components, each with several floors of the variance."""
    numbers = [number for number in (1, 2, 3, 4, 6, 8, 12, 16, 24) if number <= most]
    return {
        f"{number} {kind} {floor:g}": partial(
            GaussianMixture,
            number,
            covariance_type=kind,
            reg_covar=floor,
            random_state=0,
            max_iter=500,
            n_init=2,
        )
        for number in numbers
        for kind in ("full", "tied", "diag")
        for floor in (1e-6, 1e-3, 1e-2, 1e-1)
    }


def normals() -> dict[str, Callable[[], Any]]:
    """One normal of full covariance."""
    return {"1": partial(GaussianMixture, 1, reg_covar=1e-6)}


def kernels() -> dict[str, Callable[[], Any]]:
    """Kernel densities of several bandwidths."""
    return {f"{width:.2f}": partial(KernelDensity, bandwidth=width) for width in np.geomspace(0.1, 1.6, 13)}


def chosen(
    candidates: Mapping[str, Callable[[], Any]], table: pv.Table
) -> tuple[str, float, NDArray[np.float64]]:
    """The candidate that is best on validation data: its name, log density there, and of each test row."""
    see, parts = Standard(table), rows_of(table)
    best: tuple[str, float, Any] | None = None
    for name, make in candidates.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of fits that did not converge, which validation judges
            fitted = _fit(make, see(parts["train"]))
        if fitted is None:
            continue
        found = float(np.mean(fitted.score_samples(see(parts["valid"]))))
        if best is None or found > best[1]:
            best = name, found, fitted
    assert best is not None
    test = parts["test"]
    log_p = best[2].score_samples(see(test)) + see.log_jacobian(test)
    return best[0], best[1], np.asarray(log_p)


def _fit(make: Callable[[], Any], numbers: Rows) -> Any:
    try:
        return make().fit(numbers)
    except ValueError:  # a covariance that is not positive definite, or fewer rows than components
        return None


def rows_of(table: pv.Table) -> dict[str, Rows]:
    """Rows x of each split in float64."""
    return {name: getattr(table, name).batch().double().numpy() for name in ("train", "valid", "test")}


def copula(table: pv.Table) -> NDArray[np.float64]:
    """A Gaussian copula with marginals by kernels, fitted by the library copulas: log density of test rows.

    Its own `probability_density` is that of the normal scores, log N(z; 0, R), and no density of the columns:
    Σ_d log f_d(x_d) − log φ(z_d) is missing, and is added here.
    """
    import pandas
    from copulas.multivariate import GaussianMultivariate
    from copulas.univariate import GaussianKDE

    see, parts = Standard(table), rows_of(table)
    names = [str(place) for place in see.places]
    frames = {split: pandas.DataFrame(see(rows), columns=names) for split, rows in parts.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = GaussianMultivariate(distribution=GaussianKDE)
        model.fit(frames["train"])
        test = frames["test"]
        scores = model._transform_to_normal(test)
        log_p = stats.multivariate_normal.logpdf(scores, cov=model.correlation, allow_singular=True)
        for place, name in enumerate(names):
            density = model.univariates[place].probability_density(test[name].to_numpy())
            log_p = log_p + np.log(np.maximum(density, 1e-300)) - stats.norm.logpdf(scores[:, place])
    return np.asarray(log_p + see.log_jacobian(parts["test"]))


def by_words(table: pv.Table, most: int) -> tuple[str, NDArray[np.float64]]:
    """p(words) · p(numbers | first word with enough rows): joint frequencies, and a mixture for each class.

    Frequencies have one count more for each combination (Laplace). The numbers depend on the column of words
    with the fewest classes.
    """
    places = [place for place, column in enumerate(table.columns) if column.kind in WORDS]
    parts, total = rows_of(table), int(np.prod([len(table.columns[place].classes) for place in places]))
    keys = {split: [tuple(row) for row in rows[:, places].astype(int)] for split, rows in parts.items()}
    counts = _counts(keys["train"])
    log_words = np.array(
        [np.log((counts.get(key, 0) + 1) / (len(keys["train"]) + total)) for key in keys["test"]]
    )
    given = min((len(table.columns[place].classes), place) for place in places)[1]
    log_p = np.zeros(len(parts["test"]))
    names = []
    for code in range(len(table.columns[given].classes)):
        inside = {split: rows[rows[:, given] == code] for split, rows in parts.items()}
        name, found = _of_class(table, inside, most)
        log_p[parts["test"][:, given] == code] = found
        names.append(name)
    return "; ".join(names), log_words + log_p


def _of_class(table: pv.Table, rows: Mapping[str, Rows], most: int) -> tuple[str, NDArray[np.float64]]:
    see = Standard(table)
    fits = {name: _fit(make, see(rows["train"])) for name, make in mixtures(most).items() if "full" in name}
    known = {name: fit for name, fit in fits.items() if fit is not None}
    on_valid = {name: float(np.mean(fit.score_samples(see(rows["valid"])))) for name, fit in known.items()}
    best = max(on_valid, key=on_valid.__getitem__)
    return best, np.asarray(known[best].score_samples(see(rows["test"])) + see.log_jacobian(rows["test"]))


def _counts(keys: Iterable[tuple[int, ...]]) -> dict[tuple[int, ...], int]:
    found: dict[tuple[int, ...], int] = {}
    for key in keys:
        found[key] = found.get(key, 0) + 1
    return found
