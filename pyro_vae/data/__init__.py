"""Data sets: tensors, a split in three, and the form in which they are x.

A data set is a `Dataset`, whose `train`, `valid` and `test` are each a `Split`: N data in memory or mapped
from a file, stored as whole numbers or floats, indexed per batch, on any device. `batches` yields one epoch
of a split.

Mixed tables, from CSV, Parquet or columns in memory, are a `Table`.

Which form x must have, its likelihood says: that of a binary model is one of bits, so grey pictures are
binarised first. Results under different forms must not be compared. `Dataset.protocol` says in words, and
`Split.hash` in 16 digits, what was evaluated. The forms are classes: `Dynamic`, `Static`, `Threshold`,
`Levels`, `Dequantised`, `Standardised`, `Counts`, `AsGiven`.

>>> data = Digits(form=Static())
>>> data.protocol, data.test.hash()
('static binarisation, one fixed draw of all data (seed 0)', 'dbd4130f69d7adaa')
"""

from pyro_vae.columns import Column, Columns, Schema
from pyro_vae.data.cells import MISSING_WORDS
from pyro_vae.data.dataset import Dataset
from pyro_vae.data.facts import DataFacts
from pyro_vae.data.files import ArrayFile
from pyro_vae.data.folders import ImageFolder
from pyro_vae.data.forms import (
    FORMS,
    AsGiven,
    Counts,
    Dequantised,
    Dynamic,
    Form,
    Levels,
    Standardised,
    Static,
    Threshold,
)
from pyro_vae.data.images import MNIST, Digits, FashionMNIST, FreyFaces, Omniglot, StaticMNIST
from pyro_vae.data.raw import RawValues
from pyro_vae.data.reading import array_in, arrays_in
from pyro_vae.data.splits import Sizes, Split, batches, shuffle
from pyro_vae.data.table_files import filled_cells, is_table, rows_in
from pyro_vae.data.tables import SklearnTable, Table
from pyro_vae.data.torch_data import TorchData

__all__ = [
    "FORMS",
    "MISSING_WORDS",
    "MNIST",
    "ArrayFile",
    "AsGiven",
    "Column",
    "Columns",
    "Counts",
    "DataFacts",
    "Dataset",
    "Dequantised",
    "Digits",
    "Dynamic",
    "FashionMNIST",
    "Form",
    "FreyFaces",
    "ImageFolder",
    "Levels",
    "Omniglot",
    "RawValues",
    "Schema",
    "Sizes",
    "SklearnTable",
    "Split",
    "Standardised",
    "Static",
    "StaticMNIST",
    "Table",
    "Threshold",
    "TorchData",
    "array_in",
    "arrays_in",
    "batches",
    "filled_cells",
    "is_table",
    "rows_in",
    "shuffle",
]
