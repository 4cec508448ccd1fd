"""Data sets read from files: the named ones, array files, and folders of pictures."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from scipy.io import savemat

from pyro_vae.data import (
    MNIST,
    ArrayFile,
    AsGiven,
    FashionMNIST,
    FreyFaces,
    ImageFolder,
    Levels,
    Omniglot,
    StaticMNIST,
    Threshold,
)
from pyro_vae.errors import InputError

real_data = pytest.mark.skipif("PYRO_VAE_DATA" not in os.environ, reason="PYRO_VAE_DATA is not set")

RANDOM = np.random.RandomState(3)


@pytest.fixture
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYRO_VAE_DATA", raising=False)


@pytest.fixture
def line() -> Iterator[Any]:
    """Return a checker: the call must raise an InputError of one line that matches."""

    def check(call: Any, match: str) -> None:
        with pytest.raises(InputError, match=match) as caught:
            call()
        assert "\n" not in str(caught.value)

    yield check


def saved(path: Path, *array: Any, **arrays: Any) -> Path:
    if path.suffix == ".npy":
        np.save(path, array[0])
    else:
        np.savez(path, *array, **arrays)
    return path


# idx files: MNIST, FashionMNIST


def write_idx(file: Path, array: np.ndarray[Any, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes()
    file.write_bytes(header + array.astype(np.uint8).tobytes())


def write_mnist(root: Path, name: str = "MNIST", num_train: int = 10_003) -> Path:
    raw = root / name / "raw"
    number = np.arange(num_train)
    images = np.stack([number // 256, number % 256, 0 * number, 0 * number + 9], 1).reshape(-1, 2, 2)
    write_idx(raw / "train-images-idx3-ubyte", images)
    write_idx(raw / "train-labels-idx1-ubyte", number % 10)
    write_idx(raw / "t10k-images-idx3-ubyte", images[:4] + 1)
    write_idx(raw / "t10k-labels-idx1-ubyte", number[:4] + 5)
    return raw


@pytest.mark.parametrize("kind", [MNIST, FashionMNIST])
def test_idx_sets_validate_on_the_last_10000(kind: type[MNIST], tmp_path: Path) -> None:
    write_mnist(tmp_path, kind.__name__)
    data = kind(root=tmp_path, form=Levels())
    assert data.name == kind.__name__
    assert data.sizes == (3, 10_000, 4)
    assert data.data_shape == (1, 2, 2)
    for split, start in ((data.train, 0), (data.valid, 3)):
        values = split.values.long()
        number = 256 * values[:, 0, 0, 0] + values[:, 0, 0, 1]
        assert torch.equal(number, torch.arange(start, start + len(split)))
        assert split.labels is not None
        assert torch.equal(split.labels, number % 10)
    assert data.test.values[1].flatten().tolist() == [1, 2, 1, 10]
    assert data.test.labels is not None
    assert data.test.labels.tolist() == [5, 6, 7, 8]
    assert data.train.batch()[0, 0, 1, 1] == pytest.approx(9 / 255)


def test_idx_set_is_dynamic_unless_told(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    data = MNIST(root=tmp_path, seed=4)
    assert data.train.resample
    assert data.protocol == "dynamic binarisation, evaluated on one fixed draw (seed 4)"


def test_root_from_variable_and_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: Any) -> None:
    write_mnist(tmp_path / "sets")
    monkeypatch.setenv("PYRO_VAE_DATA", str(tmp_path / "sets"))
    assert MNIST().sizes == (3, 10_000, 4)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert MNIST(root=Path("~/sets")).sizes == (3, 10_000, 4)
    monkeypatch.setenv("PYRO_VAE_DATA", "~/sets")
    assert MNIST().sizes == (3, 10_000, 4)
    line(lambda: MNIST(root=tmp_path), "expected the file .*MNIST/raw/train-images-idx3-ubyte, found none")


@pytest.mark.usefixtures("no_variable")
@pytest.mark.parametrize("kind", [MNIST, FashionMNIST, StaticMNIST, FreyFaces, Omniglot])
def test_no_root(kind: Any, line: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    message = "got neither root nor PYRO_VAE_DATA: give `--data.root FOLDER` or set .* PYRO_VAE_DATA"
    line(kind, message)
    monkeypatch.setenv("PYRO_VAE_DATA", "")
    line(kind, message)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (MNIST, "MNIST/raw/train-images-idx3-ubyte, found none: .* or give `--data.download true`"),
        (FashionMNIST, "FashionMNIST/raw/train-images-idx3-ubyte, found none: .*`--data.download true`"),
        (
            StaticMNIST,
            "binarized_mnist_train.amat, found none: get it from http://www.cs.toronto.edu/~larocheh",
        ),
        (FreyFaces, "frey_faces/frey_rawface.mat, found none: get frey_rawface.mat from https://cs.nyu.edu"),
        (Omniglot, "omniglot/chardata.mat, found none: get it from https://github.com/yburda/iwae"),
    ],
)
def test_missing_file_says_where_to_get_it(kind: Any, message: str, tmp_path: Path, line: Any) -> None:
    line(lambda: kind(root=tmp_path), message)


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
@pytest.mark.parametrize(
    "content", [b"", b"abc", b"\0\0\x08\x03\0\0\0\x02\0\0\0\x02\0\0\0\x02abc", bytes(40)]
)
def test_damaged_idx_file_is_named(name: str, content: bytes, tmp_path: Path, line: Any) -> None:
    raw = write_mnist(tmp_path)
    (raw / name).write_bytes(content)
    line(
        lambda: MNIST(root=tmp_path),
        f"expected a readable file, got .*{name} .*: delete it and give `--data.d",
    )


def test_idx_files_that_do_not_match(tmp_path: Path, line: Any) -> None:
    raw = write_mnist(tmp_path)
    write_idx(raw / "t10k-labels-idx1-ubyte", np.zeros(3))
    line(
        lambda: MNIST(root=tmp_path),
        "got 4 images in .*t10k-images.* and 3 labels in .*t10k-labels.*: delete both",
    )
    write_mnist(tmp_path, num_train=10_000)
    line(lambda: MNIST(root=tmp_path), "more than 10,000 training images.*, got 10000 in .*train-images")


def test_download_goes_through_torchvision_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def download(root: str, *, download: bool) -> None:
        calls.append((root, download))
        write_mnist(Path(root))

    monkeypatch.setattr(torchvision.datasets, "MNIST", download)
    for _ in range(2):
        assert MNIST(root=tmp_path, download=True).sizes == (3, 10_000, 4)
    assert calls == [(str(tmp_path), True)]


def test_failed_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: Any) -> None:
    def download(root: str, *, download: bool) -> None:
        raise RuntimeError("Error downloading:\nno network\n")

    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", download)
    message = (
        "download FashionMNIST into .*, got RuntimeError: Error downloading: no network: .*FashionMNIST/raw$"
    )
    line(lambda: FashionMNIST(root=tmp_path, download=True), message)


@real_data
def test_real_mnist() -> None:
    data = MNIST(form=Levels())
    assert data.sizes == (50_000, 10_000, 10_000)
    assert data.data_shape == (1, 28, 28)
    # the known mean of the 60,000 training images, from which loaders take 0.1307
    mean = (5 * data.train.batch().mean() + data.valid.batch().mean()) / 6
    assert mean == pytest.approx(0.1307, abs=5e-5)
    assert data.test.labels is not None
    assert data.test.labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


# Larochelle's binarised MNIST


def made_bits() -> dict[str, np.ndarray[Any, Any]]:
    return {name: RANDOM.randint(0, 2, (n, 784)) for name, n in (("train", 5), ("valid", 3), ("test", 2))}


def write_amat(root: Path, bits: dict[str, np.ndarray[Any, Any]]) -> Path:
    folder = root / "binarized_mnist"
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in bits.items():
        np.savetxt(folder / f"binarized_mnist_{name}.amat", array, fmt="%d")
    return folder


def write_packed(root: Path, arrays: dict[str, np.ndarray[Any, Any]]) -> Path:
    folder = root / "binarized_mnist"
    folder.mkdir(parents=True, exist_ok=True)
    return saved(folder / "binarized_mnist_packed.npz", **arrays)


def test_amat_equals_packed(tmp_path: Path) -> None:
    bits = made_bits()
    write_amat(tmp_path / "amat", bits)
    write_packed(
        tmp_path / "packed", {name: np.packbits(a.astype(np.uint8), axis=1) for name, a in bits.items()}
    )
    text, packed = (StaticMNIST(root=tmp_path / kind) for kind in ("amat", "packed"))
    assert text.sizes == packed.sizes == (5, 3, 2)
    for name, array in bits.items():
        for data in (text, packed):
            assert getattr(data, name).values.dtype == torch.uint8
            assert getattr(data, name).batch().reshape(-1, 784).tolist() == array.tolist()
        assert getattr(text, name).hash() == getattr(packed, name).hash()


def test_static_mnist_says_its_protocol(tmp_path: Path) -> None:
    write_amat(tmp_path, made_bits())
    data = StaticMNIST(root=tmp_path)
    assert data.form.name == "AsGiven"
    assert data.protocol == "Larochelle's fixed binarisation"
    assert data.data_shape == (1, 28, 28)
    assert not data.train.resample


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "got 0 characters, 0 of them"),
        ("0 1 1\n", "got 3 characters, 0 of them"),
        ("0 " * 783 + "2\n", "got 784 characters, 1 of them no single 0 or 1"),
        ("0 " * 783 + "-\n", "got 784 characters, 1 of them no single 0 or 1"),
        ("0 " * 782 + "10\n", "got 784 characters, 1 of them no single 0 or 1"),
    ],
)
def test_damaged_amat(text: str, message: str, tmp_path: Path, line: Any) -> None:
    file = write_amat(tmp_path, made_bits()) / "binarized_mnist_valid.amat"
    file.write_text(text)
    line(
        lambda: StaticMNIST(root=tmp_path),
        f"784 zeros and ones in .*valid.amat, {message}.*: get it again from http",
    )


def test_damaged_packed_bits(tmp_path: Path, line: Any) -> None:
    packed = np.zeros((2, 98), dtype=np.uint8)
    file = write_packed(tmp_path, {"train": packed, "test": packed})
    line(
        lambda: StaticMNIST(root=tmp_path), "arrays named train, valid, test in .*packed.npz, got train, test"
    )
    write_packed(tmp_path, {"train": packed, "test": packed, "valid": packed[:, 1:]})
    line(lambda: StaticMNIST(root=tmp_path), r"uint8 of shape \(N, 98\) in .*packed.npz, got uint8 \(2, 97\)")
    file.write_bytes(file.read_bytes()[:300])
    line(
        lambda: StaticMNIST(root=tmp_path), "expected a readable file, got .*packed.npz .*: replace the file"
    )


@real_data
def test_real_static_mnist() -> None:
    data = StaticMNIST()
    assert data.sizes == (50_000, 10_000, 10_000)
    means = [split.batch().mean().item() for split in (data.train, data.valid, data.test)]
    assert means == pytest.approx([0.1306, 0.1311, 0.1325], abs=5e-5)


# Frey faces


def test_frey_faces_are_cut_in_video_order(tmp_path: Path) -> None:
    number = np.arange(1965)
    frames = np.zeros((1965, 28, 20), dtype=np.uint8)
    frames[:, 0, 1], frames[:, 1, 0] = number // 256, number % 256
    for kind in ("npz", "mat"):
        (tmp_path / kind / "frey_faces").mkdir(parents=True)
    np.savez(tmp_path / "npz/frey_faces/freyfaces.npz", images=frames)
    savemat(tmp_path / "mat/frey_faces/frey_rawface.mat", {"ff": frames.reshape(1965, 560).T})
    for kind in ("npz", "mat"):
        data = FreyFaces(root=tmp_path / kind)
        assert data.sizes == (1565, 200, 200)
        assert data.data_shape == (1, 28, 20)
        values = torch.cat([data.train.values, data.valid.values, data.test.values]).long()
        assert (256 * values[:, 0, 0, 1] + values[:, 0, 1, 0]).tolist() == number.tolist()
        assert data.protocol == "256 levels, divided by 255"


def test_damaged_frey_faces(tmp_path: Path, line: Any) -> None:
    file = tmp_path / "frey_faces" / "freyfaces.npz"
    file.parent.mkdir()
    np.savez(file, images=np.zeros((1964, 28, 20), dtype=np.uint8))
    line(
        lambda: FreyFaces(root=tmp_path), r"1965 frames .*, got uint8 \(1964, 28, 20\): get frey_rawface.mat"
    )
    np.savez(file, faces=np.zeros(3))
    line(lambda: FreyFaces(root=tmp_path), "arrays named images in .*freyfaces.npz, got faces")
    file.unlink()
    file.with_name("frey_rawface.mat").write_bytes(b"MATLAB, perhaps" * 20)
    line(lambda: FreyFaces(root=tmp_path), "expected a readable file, got .*frey_rawface.mat")


@real_data
def test_real_frey_faces() -> None:
    data = FreyFaces()
    values = torch.cat([data.train.values, data.valid.values, data.test.values])
    assert values.shape == (1965, 1, 28, 20)
    assert [values.min(), values.max()] == [8, 238]
    steps = (values[1:].float() - values[:-1].float()).abs().mean()
    pairs = (values.float() - values[torch.randperm(1965)].float()).abs().mean()
    assert steps < 0.5 * pairs  # neighbours in the video are near copies


# Omniglot


def write_omniglot(root: Path, **arrays: np.ndarray[Any, Any]) -> Path:
    file = root / "omniglot" / "chardata.mat"
    file.parent.mkdir(exist_ok=True)
    savemat(file, arrays)
    return file


def test_omniglot_is_upright_and_split(tmp_path: Path) -> None:
    pictures = RANDOM.uniform(size=(25, 28, 28))
    pictures[:, 0, 0] = np.arange(25) / 25  # names the picture
    columns = np.stack([picture.flatten(order="F") for picture in pictures], axis=1)
    write_omniglot(tmp_path, data=columns[:, :21], testdata=columns[:, 21:])
    data = Omniglot(root=tmp_path, form=AsGiven())
    assert data.sizes == (19, 2, 4)
    assert torch.equal(data.test.batch()[:, 0], torch.from_numpy(pictures[21:]).float())
    train = torch.cat([data.train.batch(), data.valid.batch()])[:, 0]
    order = (train[:, 0, 0] * 25).round().long()
    assert order.tolist() == np.random.RandomState(0).permutation(21).tolist()
    assert torch.equal(train, torch.from_numpy(pictures).float()[order])


def test_omniglot_validates_on_1345(tmp_path: Path) -> None:
    write_omniglot(tmp_path, data=np.zeros((784, 13_460), np.float32), testdata=np.zeros((784, 2)))
    assert Omniglot(root=tmp_path).sizes == (12_115, 1345, 2)


def test_damaged_omniglot(tmp_path: Path, line: Any) -> None:
    columns = np.zeros((784, 20))
    file = write_omniglot(tmp_path, data=columns)
    line(
        lambda: Omniglot(root=tmp_path),
        "arrays named data, testdata in .*chardata.mat, got data: get it from",
    )
    write_omniglot(tmp_path, data=columns.T, testdata=columns)
    line(lambda: Omniglot(root=tmp_path), r"columns \(784, N\) of floats in .*mat, got float64 \(20, 784\)")
    write_omniglot(tmp_path, data=columns, testdata=columns)
    file.write_bytes(file.read_bytes()[:5000])
    line(
        lambda: Omniglot(root=tmp_path), "expected a readable file, got .*chardata.mat .*: get it from https"
    )


# array files

ARRAY = RANDOM.randint(0, 256, (40, 3, 5)).astype(np.uint8)
ARRAY[:, 0, 0] = np.arange(40)  # names the datum


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_one_array_is_split_by_the_seed(name: str, tmp_path: Path) -> None:
    data = ArrayFile(saved(tmp_path / name, ARRAY), seed=6)
    assert data.sizes == (32, 4, 4)
    values = torch.cat([data.train.values, data.valid.values, data.test.values])[:, 0]
    assert torch.equal(values, torch.from_numpy(ARRAY[np.random.RandomState(6).permutation(40)]))
    assert data.protocol == "256 levels, divided by 255, split by seed 6"


def test_train_alone_is_split_with_its_labels(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npz", train=ARRAY, train_labels=np.arange(40))
    data = ArrayFile(path, form=Levels())
    assert data.sizes == (32, 4, 4)
    for split in (data.train, data.valid, data.test):
        assert split.labels is not None
        assert split.values[:, 0, 0, 0].tolist() == split.labels.tolist()


def test_file_with_splits_keeps_them(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npz", train=ARRAY[:30], test=ARRAY[30:], test_labels=np.arange(10))
    data = ArrayFile(path, form=Threshold())
    assert data.sizes == (30, 0, 10)
    assert torch.equal(data.train.values[:, 0], torch.from_numpy(ARRAY[:30] > 127).byte())
    assert data.test.labels is not None
    assert data.test.labels.tolist() == list(range(10))
    assert data.protocol == "binarised at grey > 1/2"


@pytest.mark.parametrize("names", [("images", "labels"), ("X", "y"), ("counts", "targets")])
def test_data_with_labels_beside_them_are_split_together(names: tuple[str, str], tmp_path: Path) -> None:
    arrays = dict(zip(names, (ARRAY, np.arange(40)), strict=True))
    data = ArrayFile(saved(tmp_path / "a.npz", **arrays, weight=ARRAY[:, 0, 0] / 2))
    assert data.sizes == (32, 4, 4)
    for split in (data.train, data.valid, data.test):
        assert split.labels is not None
        assert torch.equal(split.values[:, 0], torch.from_numpy(ARRAY)[split.labels])
        assert torch.equal(split.fields["weight"], split.values[:, 0, 0, 0] / 2)


def test_the_names_of_keras_are_understood(tmp_path: Path) -> None:
    parts = {"x_train": ARRAY[:30], "y_train": np.arange(30), "x_test": ARRAY[30:], "y_test": np.arange(10)}
    data = ArrayFile(saved(tmp_path / "mnist.npz", **parts))
    assert data.sizes == (30, 0, 10)
    assert data.test.labels is not None and data.test.labels.tolist() == list(range(10))
    assert torch.equal(data.test.values[:, 0], torch.from_numpy(ARRAY[30:]))


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int16", ">i4", "int32", "uint32", "int64", "uint64"])
def test_whole_numbers_of_every_width_are_the_same_counts(dtype: str, tmp_path: Path) -> None:
    counts = RANDOM.randint(0, 100, (40, 5))
    for data in (
        ArrayFile(saved(tmp_path / "a.npy", counts.astype(dtype)), seed=1),
        ArrayFile(saved(tmp_path / "a.npz", counts.astype(dtype)), seed=1),
    ):
        assert data.protocol == "counts, split by seed 1" and data.levels is None
        expected = torch.from_numpy(counts[np.random.RandomState(1).permutation(40)]).float()
        assert torch.equal(torch.cat([s.batch() for s in (data.train, data.valid, data.test)]), expected)
        levels = data.in_form(Levels())
        assert levels.levels == counts.max() + 1
        assert torch.equal(levels.train.batch(), expected[:32] / counts.max())


def test_array_file_of_sixteen_levels(tmp_path: Path) -> None:
    data = ArrayFile(saved(tmp_path / "a.npy", ARRAY % 17), maximum=16)
    assert data.train.batch().max() == 1
    assert data.protocol.startswith("17 levels, divided by 16")


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_damaged_array_file_is_named(suffix: str, tmp_path: Path, line: Any) -> None:
    path = saved(tmp_path / f"a.{suffix}", ARRAY)
    whole = path.read_bytes()
    for content in (b"", b"no array", whole[:20], whole[:200], whole[: len(whole) // 2]):
        path.write_bytes(content)
        line(
            lambda: ArrayFile(path), f"expected a readable file, got .*a.{suffix} .*numpy.save or numpy.savez"
        )


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_pickled_arrays_are_refused(name: str, tmp_path: Path, line: Any) -> None:
    path = saved(tmp_path / name, np.array([{"a": 1}, None], dtype=object))
    line(
        lambda: ArrayFile(path),
        "Object arrays cannot be loaded.*: save plain arrays .*pickled objects are refused",
    )


def test_array_file_refusals(tmp_path: Path, line: Any) -> None:
    line(lambda: ArrayFile(tmp_path / "a.csv"), "expected a .npy or .npz file, got .*a.csv: .*ImageFolder")
    line(lambda: ArrayFile(tmp_path / "a.npz"), "expected the file .*a.npz, found none: check the path")
    path = tmp_path / "b.npz"
    line(
        lambda: ArrayFile(saved(path, a=ARRAY, b=ARRAY)),
        "expected one array, images with labels, or train .*b.npz, got a, b: rename",
    )
    line(
        lambda: ArrayFile(saved(path, train=ARRAY, val=ARRAY)),
        "with any of valid, test and fields such as train_label in .*, got train, val: rename",
    )
    line(lambda: ArrayFile(saved(path)), "b.npz, got no array")
    line(lambda: ArrayFile(saved(path, ARRAY[:9])), "at least 10 data to split 80/10/10, got 9 in .*b.npz")
    line(lambda: ArrayFile(saved(path, np.float64(3))), r"expected train in .*b.npz of shape .*, got \(\)")
    line(
        lambda: ArrayFile(saved(path, ARRAY.astype(str))),
        "expected train in .*b.npz of whole numbers, bool or float, got <U3",
    )
    line(lambda: ArrayFile(saved(path, ARRAY), seed=-3), "expected a seed .*, got -3")
    nan = np.where(ARRAY == 5, np.nan, 1.0)
    line(
        lambda: ArrayFile(saved(path, train=ARRAY / 1.0, test=nan)),
        r"NaN or infinite in test in .*b.npz, .*\(",
    )
    last = np.zeros((12, 32, 32, 3), dtype=np.uint8)
    line(
        lambda: ArrayFile(saved(path, last)),
        r"got \(12, 32, 32, 3\), which looks like \(N, H, W, C\): use numpy.mov",
    )
    lone = {"train": ARRAY, "test": ARRAY, "valid_labels": np.arange(3)}
    line(
        lambda: ArrayFile(saved(path, **lone)), "expected 0 labels, one per datum of valid in .*b.npz, got 3"
    )


# folders of pictures


def write_pictures(folder: Path, number: int = 20) -> Path:
    for i in range(number):
        file = folder / ("cats" if i % 2 else "dogs") / f"{i:02}.{'PNG' if i % 4 else 'bmp'}"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 8), (10 * i, 0, 255)).save(file)
    return folder


def test_image_folder(tmp_path: Path) -> None:
    write_pictures(tmp_path)
    (tmp_path / "dogs" / ".hidden.png").write_bytes(b"no picture")
    (tmp_path / "notes.txt").write_text("no picture")
    data = ImageFolder(tmp_path, size=(6, 4), seed=2)
    assert data.sizes == (16, 2, 2)
    assert data.data_shape == (3, 6, 4)
    assert data.classes == ["cats", "dogs"]
    values = torch.cat([s.values for s in (data.train, data.valid, data.test)])
    number = values[:, 0, 0, 0] // 10
    in_path_order = [*range(1, 20, 2), *range(0, 20, 2)]
    assert number.tolist() == [in_path_order[i] for i in np.random.RandomState(2).permutation(20)]
    labels = torch.cat([s.labels for s in (data.train, data.valid, data.test) if s.labels is not None])
    assert labels.tolist() == [int(i % 2 == 0) for i in number]
    assert (values[:, 1] == 0).all()
    assert (values[:, 2] == 255).all()
    assert data.protocol == "256 levels, divided by 255, split by seed 2"


def test_image_folder_without_sub_folders_has_no_labels(tmp_path: Path) -> None:
    for i in range(10):
        Image.new("L", (4, 4), i).save(tmp_path / f"{i}.png")
    data = ImageFolder(tmp_path, size=(4, 4), channels=1)
    assert data.data_shape == (1, 4, 4)
    assert data.train.labels is None
    assert data.classes == []


def values_of(picture: Image.Image, tmp_path: Path, name: str = "a.png", **options: Any) -> torch.Tensor:
    for i in range(10):
        (tmp_path / str(i)).mkdir(exist_ok=True)
        picture.save(tmp_path / str(i) / name)
    return ImageFolder(tmp_path, **options).test.values[0]


def test_pictures_are_cropped_about_the_centre_and_antialiased(tmp_path: Path) -> None:
    board = np.zeros((8, 24), dtype=np.uint8)
    board[:, 8:16] = 255 * (np.indices((8, 8)).sum(0) % 2)  # a fine board in the middle, black beside it
    values = values_of(Image.fromarray(board), tmp_path, size=(2, 2), channels=1)
    assert ((values > 110) & (values < 145)).all()  # without antialiasing 0 or 255; without the crop a third


def test_size_is_height_then_width(tmp_path: Path) -> None:
    ramp = np.arange(15, dtype=np.uint8).reshape(3, 5)
    values = values_of(Image.fromarray(ramp), tmp_path, size=(3, 5), channels=1)
    assert values[0].tolist() == ramp.tolist()


def test_palette_with_transparency_is_shown_on_white(tmp_path: Path) -> None:
    picture = Image.new("P", (4, 4), 0)
    picture.putpalette([200, 0, 0, 0, 0, 9])
    picture.putpixel((0, 0), 1)
    picture.info["transparency"] = b"\x00\xff"
    values = values_of(picture, tmp_path, size=(4, 4))
    assert values[:, 0, 0].tolist() == [0, 0, 9]
    assert (values.flatten(1)[:, 1:] == 255).all()


def test_pictures_are_turned_as_the_camera_says(tmp_path: Path) -> None:
    picture = Image.new("L", (8, 8))
    picture.paste(255, (0, 0, 8, 4))  # the upper half
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to view
    for i in range(10):
        picture.save(tmp_path / f"{i}.png", exif=exif)
    values = ImageFolder(tmp_path, size=(8, 8), channels=1).test.values[0, 0]
    assert (values[:, 4:] == 255).all()
    assert (values[:, :4] == 0).all()


@pytest.mark.parametrize("content", [b"", b"no picture", None])
def test_damaged_picture_is_named(content: bytes | None, tmp_path: Path, line: Any) -> None:
    file = write_pictures(tmp_path) / "cats" / "07.PNG"
    file.write_bytes(file.read_bytes()[:45] if content is None else content)
    line(
        lambda: ImageFolder(tmp_path),
        "expected a readable file, got .*cats/07.PNG .*: replace or remove this",
    )


def test_image_folder_refusals(tmp_path: Path, line: Any) -> None:
    line(lambda: ImageFolder(tmp_path / "none"), "expected a folder of pictures, got .*none, which is none")
    line(lambda: ImageFolder(tmp_path), r"expected pictures \(.png, .*\) under .*, got none")
    write_pictures(tmp_path, 9)
    line(lambda: ImageFolder(tmp_path), "expected at least 10 data to split 80/10/10, got 9 in")
    line(lambda: ImageFolder(tmp_path, size=(0, 3)), r"at least 1 pixel, got size \(0, 3\)")
    channels: Any = 2
    line(lambda: ImageFolder(tmp_path, channels=channels), "1 channel .* or 3 .*, got 2")
    Image.fromarray(np.full((4, 4), 40_000, dtype=np.uint16)).save(tmp_path / "deep.png")
    line(lambda: ImageFolder(tmp_path), "8 bits per channel in .*deep.png, got mode I;16: convert")
