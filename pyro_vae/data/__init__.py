"""Data sets: tensors, a split in three, and a binarisation protocol.

A data set is a `Dataset`, whose `train`, `valid` and `test` are each a `Split`: N data in memory or mapped
from a file, stored as bytes, bits or floats, indexed per batch, on any device. `batches` yields one epoch of
a split.

Mixed tables, from CSV, Parquet or columns in memory, are a `Table`.

The likelihood of a binary model is that of bits, so grey pictures are binarised first, and results under
different protocols must not be compared. `Dataset.protocol` says in words, and `Split.hash` in 16 digits,
what was evaluated:

* `dynamic`: training data drawn anew at every use, with the grey levels as probabilities; validation and test
  drawn once, by the seed;
* `static`: all drawn once, by the seed;
* `threshold`: 1 where grey > 1/2;
* `none`: grey levels, or whatever the values are, as given;
* `dequantised`: grey levels plus uniform noise within their bin, for densities of continuous data: training
  data drawn anew at every use, validation and test drawn once, by the seed.

>>> data = Digits(binarization="static")
>>> data.protocol, data.test.hash()
('static binarisation, one fixed draw of all data (seed 0)', 'dbd4130f69d7adaa')
"""

from pyro_vae.columns import Column, Columns, Schema
from pyro_vae.data.cells import MISSING_WORDS
from pyro_vae.data.dataset import Binarization, Dataset
from pyro_vae.data.facts import DataFacts
from pyro_vae.data.files import ArrayFile
from pyro_vae.data.folders import ImageFolder
from pyro_vae.data.images import MNIST, Digits, FashionMNIST, FreyFaces, Omniglot, StaticMNIST
from pyro_vae.data.reading import array_in, arrays_in
from pyro_vae.data.splits import Sizes, Split, batches, shuffle
from pyro_vae.data.table_files import filled_cells, is_table, rows_in
from pyro_vae.data.tables import SklearnTable, Table

__all__ = [
    "MISSING_WORDS",
    "MNIST",
    "ArrayFile",
    "Binarization",
    "Column",
    "Columns",
    "DataFacts",
    "Dataset",
    "Digits",
    "FashionMNIST",
    "FreyFaces",
    "ImageFolder",
    "Omniglot",
    "Schema",
    "Sizes",
    "SklearnTable",
    "Split",
    "StaticMNIST",
    "Table",
    "array_in",
    "arrays_in",
    "batches",
    "filled_cells",
    "is_table",
    "rows_in",
    "shuffle",
]
