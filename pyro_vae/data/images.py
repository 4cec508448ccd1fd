"""Data sets with a name: the digits that come with scikit-learn, and the benchmarks of the literature."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_vae.data.dataset import Dataset
from pyro_vae.data.fields import LABEL, SPLITS
from pyro_vae.data.forms import Dynamic, Form, Levels
from pyro_vae.data.reading import (
    Parts,
    cut,
    existing,
    flat,
    load_array_file,
    load_mat,
    named,
    reading,
    shuffled,
)
from pyro_vae.errors import InputError

_LAROCHELLE = "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist"
_BURDA = "https://github.com/yburda/iwae/raw/master/datasets/OMNIGLOT/chardata.mat"
_ROWEIS = "https://cs.nyu.edu/~roweis/data/frey_rawface.mat"


def _folder(root: Path | None) -> Path:
    given = root or os.environ.get("PYRO_VAE_DATA")
    if not given:
        raise InputError(
            "expected a folder with the data, got neither root nor PYRO_VAE_DATA: give `--data.root FOLDER`"
            " or set the environment variable PYRO_VAE_DATA"
        )
    return Path(given).expanduser()


class Digits(Dataset):
    """Handwritten digits (1, 8, 8), levels 0 to 16, with labels: 1297 / 200 / 300.

    They come with scikit-learn, so nothing is downloaded. They are permuted by `RandomState(0)` before the
    split, whatever `seed` is. Source: Alpaydin and Kaynak (1998), the test part of "Optical Recognition of
    Handwritten Digits", UCI.

    Args:
        form: How grey values become x; by default `Dynamic`.
        seed: Seed of the fixed draws.
        given: Fields that programs get beside x: `label`, or by default none.

    >>> Digits().sizes
    Sizes(train=1297, valid=200, test=300)
    """

    def __init__(
        self,
        *,
        form: Form | None = None,
        seed: int = 0,
        given: tuple[str, ...] | None = None,
    ) -> None:
        images, labels = _digits()
        parts = cut(*shuffled(images, {LABEL: labels}, seed=0), num_valid=200, num_test=300)
        super().__init__(**parts, form=form or Dynamic(), seed=seed, maximum=16, given=given)


def _digits() -> tuple[Tensor, Tensor]:
    """Images (1797, 8, 8), 0..16, and labels (1797,), which is what `sklearn.datasets.load_digits` gives.

    They are read from its file where it is there, since to import scikit-learn takes a second.
    """
    package = find_spec("sklearn")
    folder = Path(package.origin).parent if package and package.origin else Path()
    file = folder / "datasets" / "data" / "digits.csv.gz"
    if file.exists():
        rows = np.loadtxt(file, dtype=np.int64, delimiter=",")
        images, labels = rows[:, :-1].reshape(-1, 8, 8), rows[:, -1]
    else:
        from sklearn.datasets import load_digits  # slow to import

        digits = load_digits()
        images, labels = digits.images, digits.target
    return torch.from_numpy(images.astype(np.uint8)), torch.from_numpy(labels)


class MNIST(Dataset):
    """Handwritten digits (1, 28, 28), bytes, with labels: 50,000 / 10,000 / 10,000.

    Read from the four idx files in `root/MNIST/raw`; the validation data are the last 10,000 training images.
    Source: LeCun, Bottou, Bengio and Haffner (1998).

    Args:
        root: Folder that holds `MNIST/raw`; by default the environment variable PYRO_VAE_DATA.
        download: Download files that are missing, through torchvision.
        form: How grey values become x; by default `Dynamic`.
        seed: Seed of the fixed draws.
        given: Fields that programs get beside x: `label`, or by default none.

    Raises:
        InputError: No root; a file is missing or damaged; the download failed.

    >>> import tempfile
    >>> def idx(array):  # the format of the four files
    ...     head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    ...     return head + array.tobytes()
    >>> with tempfile.TemporaryDirectory() as root:
    ...     raw = Path(root) / "MNIST" / "raw"
    ...     raw.mkdir(parents=True)
    ...     for part, num in (("train", 10_050), ("t10k", 20)):
    ...         _ = (raw / f"{part}-images-idx3-ubyte").write_bytes(idx(np.zeros((num, 28, 28), np.uint8)))
    ...         _ = (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.zeros(num, np.uint8)))
    ...     data = MNIST(root=Path(root))
    >>> data.sizes, data.data_shape
    (Sizes(train=50, valid=10000, test=20), torch.Size([1, 28, 28]))
    """

    folder: ClassVar[str] = "MNIST"

    def __init__(
        self,
        *,
        root: Path | None = None,
        download: bool = False,
        form: Form | None = None,
        seed: int = 0,
        given: tuple[str, ...] | None = None,
    ) -> None:
        parts = _idx_parts(self.folder, _folder(root), download)
        super().__init__(**parts, form=form or Dynamic(), seed=seed, maximum=255, given=given)


class FashionMNIST(MNIST):
    """Articles of clothing (1, 28, 28), bytes, with labels: 50,000 / 10,000 / 10,000.

    Read from the four idx files in `root/FashionMNIST/raw`; the validation data are the last 10,000 training
    images. Source: Xiao, Rasul and Vollgraf (2017).

    Args:
        root: Folder that holds `FashionMNIST/raw`; by default the environment variable PYRO_VAE_DATA.
        download: Download files that are missing, through torchvision.
        form: How grey values become x; by default `Dynamic`.
        seed: Seed of the fixed draws.
        given: Fields that programs get beside x: `label`, or by default none.

    Raises:
        InputError: No root; a file is missing or damaged; the download failed.
    """

    folder: ClassVar[str] = "FashionMNIST"


def _idx_parts(name: str, root: Path, download: bool) -> Parts:
    raw = root / name / "raw"
    files = [
        raw / f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
    ]
    if download and not all(file.is_file() for file in files):
        _download(name, root)
    images, labels = _read_idx(files[0], files[1])
    test_images, test_labels = _read_idx(files[2], files[3])
    if len(images) <= 10_000:
        raise InputError(
            f"expected more than 10,000 training images, of which the last 10,000 validate, got {len(images)}"
            f" in {files[0]}: download the whole file"
        )
    parts = cut(images, {LABEL: labels}, num_valid=10_000, num_test=0)
    parts["test"], parts["fields"]["test"] = test_images, {LABEL: test_labels}
    return parts


def _download(name: str, root: Path) -> None:
    import torchvision  # slow to import

    try:
        getattr(torchvision.datasets, name)(str(root), download=True)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"expected to download {name} into {root}, got {flat(error)}: try again, or copy its four idx"
            f" files to {root / name / 'raw'}"
        ) from error


def _read_idx(image_file: Path, label_file: Path) -> tuple[Tensor, Tensor]:
    from torchvision.datasets.mnist import read_image_file, read_label_file  # slow to import

    for file in (image_file, label_file):
        existing(file, "copy it there unpacked, or give `--data.download true`")
    with reading(image_file, "delete it and give `--data.download true`"):
        images: Tensor = read_image_file(str(image_file))
    with reading(label_file, "delete it and give `--data.download true`"):
        labels: Tensor = read_label_file(str(label_file))
    if len(images) != len(labels):
        raise InputError(
            f"expected one label per image, got {len(images)} images in {image_file} and {len(labels)} labels"
            f" in {label_file}: delete both and give `--data.download true`"
        )
    return images, labels


class StaticMNIST(Dataset):
    """Larochelle's fixed binarisation of MNIST (1, 28, 28), bits, no labels: 50,000 / 10,000 / 10,000.

    Read from `root/binarized_mnist`: either `binarized_mnist_packed.npz` (arrays train, valid, test of bytes
    (N, 98), eight pixels each, most significant first) or the three original files
    `binarized_mnist_{train,valid,test}.amat`. The test data are sorted by class. Sources: Salakhutdinov and
    Murray (2008); Larochelle and Murray (2011).

    Args:
        root: Folder that holds `binarized_mnist`; by default the environment variable PYRO_VAE_DATA.

    Raises:
        InputError: No root; a file is missing or damaged.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as root:
    ...     folder = Path(root) / "binarized_mnist"
    ...     folder.mkdir()
    ...     bits = {name: np.zeros((5, 98), np.uint8) for name in ("train", "valid", "test")}
    ...     np.savez(folder / "binarized_mnist_packed.npz", **bits)
    ...     data = StaticMNIST(root=Path(root))
    >>> data.sizes, data.protocol
    (Sizes(train=5, valid=5, test=5), "Larochelle's fixed binarisation")
    """

    def __init__(self, *, root: Path | None = None) -> None:
        folder = _folder(root) / "binarized_mnist"
        packed = folder / "binarized_mnist_packed.npz"
        splits = _unpack(packed) if packed.is_file() else _read_amats(folder)
        super().__init__(*splits, maximum=1)

    @property
    def protocol(self) -> str:
        """How the data were binarised: once, by Larochelle; and the form where it is none of bits."""
        fixed = "Larochelle's fixed binarisation"
        return fixed if self.levels == 2 else f"{fixed}, {super().protocol}"


def _unpack(path: Path) -> list[Tensor]:
    remedy = "replace the file"
    packed = named(load_array_file(path, remedy), SPLITS, path, remedy)
    for array in packed:
        if array.dtype != np.uint8 or array.shape[1:] != (98,):
            raise InputError(
                f"expected uint8 of shape (N, 98) in {path}, got {array.dtype} {array.shape}: {remedy}"
            )
    return [torch.from_numpy(np.unpackbits(array, axis=1)).reshape(-1, 1, 28, 28) for array in packed]


def _read_amats(folder: Path) -> list[Tensor]:
    paths = [folder / f"binarized_mnist_{name}.amat" for name in SPLITS]
    for path in paths:
        existing(path, f"get it from {_LAROCHELLE}/{path.name}")
    return [_read_amat(path) for path in paths]


def _read_amat(path: Path) -> Tensor:
    again = f"get it again from {_LAROCHELLE}/{path.name}"
    with reading(path, again):
        text = np.fromfile(path, dtype=np.uint8)
    inked = text > ord(" ")
    bits = text[inked] - ord("0")  # bytes below "0" wrap to large ones
    others = int((bits > 1).sum() + (inked[1:] & inked[:-1]).sum())
    if len(bits) == 0 or len(bits) % 784 or others:
        raise InputError(
            f"expected rows of 784 zeros and ones in {path}, got {len(bits)} characters, {others} of them no"
            f" single 0 or 1: {again}"
        )
    return torch.from_numpy(bits).reshape(-1, 1, 28, 28)


class FreyFaces(Dataset):
    """1965 video frames of one face (1, 28, 20), bytes, no labels: 1565 / 200 / 200.

    The splits are contiguous blocks in video order: neighbouring frames are near copies, so a random split
    would put copies of the training data into the test. Read from `root/frey_faces`: `freyfaces.npz` (array
    images, (1965, 28, 20)) or the original `frey_rawface.mat`. Source: Roweis, Saul and Hinton (2001).

    Args:
        root: Folder that holds `frey_faces`; by default the environment variable PYRO_VAE_DATA.
        form: How grey values become x; by default `Levels`.
        seed: Seed of the fixed draws.

    Raises:
        InputError: No root; the file is missing or damaged.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as root:
    ...     folder = Path(root) / "frey_faces"
    ...     folder.mkdir()
    ...     np.savez(folder / "freyfaces.npz", images=np.zeros((1965, 28, 20), np.uint8))
    ...     data = FreyFaces(root=Path(root))
    >>> data.sizes, data.data_shape
    (Sizes(train=1565, valid=200, test=200), torch.Size([1, 28, 20]))
    """

    def __init__(self, *, root: Path | None = None, form: Form | None = None, seed: int = 0) -> None:
        frames = _read_frey(_folder(root) / "frey_faces")
        super().__init__(**cut(frames, {}, 200, 200), form=form or Levels(), seed=seed, maximum=255)


def _read_frey(folder: Path) -> Tensor:
    packed, original = folder / "freyfaces.npz", folder / "frey_rawface.mat"
    remedy = f"get frey_rawface.mat from {_ROWEIS} and put it into {folder}"
    if packed.is_file():
        (images,) = named(load_array_file(packed, remedy), ("images",), packed, remedy)
    else:
        images = load_mat(existing(original, remedy), ("ff",), remedy)[0].T  # columns (560, 1965) -> rows
    if images.dtype != np.uint8 or images.shape not in ((1965, 28, 20), (1965, 560)):
        raise InputError(
            f"expected 1965 frames of 28 by 20 bytes in {folder}, got {images.dtype} {images.shape}: {remedy}"
        )
    return torch.from_numpy(images.reshape(-1, 28, 20))


class Omniglot(Dataset):
    """Handwritten characters of 50 alphabets (1, 28, 28), grey levels, no labels: 23,000 / 1345 / 8070.

    Read from `root/omniglot/chardata.mat`, the 28 by 28 version of Burda, Grosse and Salakhutdinov (2016).
    Validation data are 1345 of the training images by a fixed permutation (a tenth of them where there are
    fewer than 13,450). Source: Lake, Salakhutdinov and Tenenbaum (2015).

    Args:
        root: Folder that holds `omniglot`; by default the environment variable PYRO_VAE_DATA.
        form: How grey values become x; by default `Dynamic`.
        seed: Seed of the fixed draws.

    Raises:
        InputError: No root; the file is missing or damaged.

    >>> import tempfile
    >>> from scipy.io import savemat
    >>> with tempfile.TemporaryDirectory() as root:
    ...     folder = Path(root) / "omniglot"
    ...     folder.mkdir()
    ...     savemat(folder / "chardata.mat", {"data": np.zeros((784, 40)), "testdata": np.zeros((784, 10))})
    ...     data = Omniglot(root=Path(root))
    >>> data.sizes, data.data_shape
    (Sizes(train=36, valid=4, test=10), torch.Size([1, 28, 28]))
    """

    def __init__(self, *, root: Path | None = None, form: Form | None = None, seed: int = 0) -> None:
        path = _folder(root) / "omniglot" / "chardata.mat"
        remedy = f"get it from {_BURDA}"
        columns = load_mat(existing(path, remedy), ("data", "testdata"), remedy)
        for array in columns:
            if array.ndim != 2 or array.shape[0] != 784 or array.dtype.kind != "f":
                raise InputError(
                    f"expected images as columns (784, N) of floats in {path}, got {array.dtype}"
                    f" {array.shape}: {remedy}"
                )
        images, test = (_upright(array) for array in columns)
        parts = cut(*shuffled(images, {}, seed=0), num_valid=min(1345, len(images) // 10), num_test=0)
        parts["test"] = test
        super().__init__(**parts, form=form or Dynamic(), seed=seed, maximum=1)


def _upright(columns: NDArray[Any]) -> Tensor:
    # (784, N), each column a picture in MATLAB's column-major order -> (N, 28, 28)
    return torch.from_numpy(columns.astype(np.float32)).T.reshape(-1, 28, 28).transpose(1, 2).contiguous()
