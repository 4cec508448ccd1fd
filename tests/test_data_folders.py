"""Folders of pictures as people have them: split already, linked, hidden, deep."""

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pyro_vae.data import ImageFolder, Split
from pyro_vae.errors import InputError


@pytest.fixture
def line() -> Iterator[Any]:
    """Return a checker: the call must raise an InputError of exactly this line."""

    def check(call: Any, text: str) -> None:
        with pytest.raises(InputError) as caught:
            call()
        assert str(caught.value) == text

    yield check


def put(folder: Path, *greys: int, start: int = 0) -> Path:
    """Pictures of one grey level each."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, grey in enumerate(greys):
        Image.new("L", (2, 2), grey).save(folder / f"{start + number:03}.png")
    return folder


def read(folder: Path, **options: Any) -> ImageFolder:
    return ImageFolder(folder, size=(2, 2), channels=1, **options)


def greys(split: Split) -> list[int]:
    return sorted(split.values[:, 0, 0, 0].tolist())


def of_class(data: ImageFolder, split: Split) -> dict[str, list[int]]:
    assert split.labels is not None
    levels: Tensor = split.values[:, 0, 0, 0]
    return {
        name: levels[split.labels == number].tolist()
        for number, name in enumerate(data.classes)
        if bool((split.labels == number).any())
    }


@pytest.mark.parametrize(
    "names",
    [
        ("train", "val", "test"),
        ("train", "valid", "test"),
        ("Train", "Validation", "TEST"),
        ("training", "val", "testing"),
    ],
)
def test_folders_named_as_splits_are_the_splits(tmp_path: Path, names: tuple[str, str, str]) -> None:
    for number, name in enumerate(names):
        put(tmp_path / name / "cats", *range(50 * number, 50 * number + 12))
        put(tmp_path / name / "dogs", *range(50 * number + 20, 50 * number + 33))
    data = read(tmp_path)
    assert data.classes == ["cats", "dogs"]
    for number, split in enumerate((data.train, data.valid, data.test)):
        start = 50 * number
        assert of_class(data, split) == {
            "cats": list(range(start, start + 12)),
            "dogs": list(range(start + 20, start + 33)),
        }
    assert data.protocol == "256 levels, divided by 255"


def test_splits_may_hold_their_pictures_directly(tmp_path: Path) -> None:
    for number, name in enumerate(("train", "val", "test")):
        put(tmp_path / name, *range(50 * number, 50 * number + 3))
    data = read(tmp_path)
    assert data.sizes == (3, 3, 3)
    assert data.classes == []
    assert data.train.labels is data.test.labels is None
    assert greys(data.test) == [100, 101, 102]


def test_a_test_split_without_classes_has_no_labels(tmp_path: Path) -> None:
    put(tmp_path / "train" / "cats", 0, 1)
    put(tmp_path / "train" / "dogs", 2, 3)
    put(tmp_path / "val" / "dogs", 4)
    put(tmp_path / "test", 5, 6)
    data = read(tmp_path)
    assert data.classes == ["cats", "dogs"]
    assert of_class(data, data.valid) == {"dogs": [4]}
    assert data.test.labels is None


def test_a_missing_validation_split_is_cut_from_train_by_the_seed(tmp_path: Path) -> None:
    put(tmp_path / "train" / "cats", *range(0, 15))
    put(tmp_path / "train" / "dogs", *range(15, 30))
    put(tmp_path / "test" / "cats", 200, 201)
    data = read(tmp_path, seed=4)
    assert data.sizes == (27, 3, 2)
    order = np.random.RandomState(4).permutation(30)
    assert data.train.values[:, 0, 0, 0].tolist() == order[:27].tolist()
    assert data.valid.values[:, 0, 0, 0].tolist() == order[27:].tolist()
    assert data.valid.labels is not None
    assert data.valid.labels.tolist() == [int(i >= 15) for i in order[27:]]
    assert greys(data.test) == [200, 201]
    assert data.protocol == "256 levels, divided by 255, valid cut from train by seed 4"


def test_a_missing_test_split_is_empty(tmp_path: Path) -> None:
    put(tmp_path / "train", 0, 1, 2)
    put(tmp_path / "val", 3)
    assert read(tmp_path).sizes == (3, 1, 0)


def test_train_alone_is_split_by_the_seed_as_its_own_folder(tmp_path: Path) -> None:
    put(tmp_path / "a" / "train" / "cats", *range(20))
    put(tmp_path / "a" / "train" / "dogs", *range(20, 40))
    whole, inside = read(tmp_path / "a", seed=3), read(tmp_path / "a" / "train", seed=3)
    assert whole.sizes == (32, 4, 4)
    assert whole.classes == ["cats", "dogs"]
    assert whole.test.hash() == inside.test.hash()
    assert whole.protocol == "256 levels, divided by 255, split by seed 3"


def test_a_class_may_be_named_train(tmp_path: Path) -> None:
    for name in ("bus", "train"):
        put(tmp_path / "a" / name, *range(10))
        put(tmp_path / "b" / "train" / name, *range(10))
        put(tmp_path / "b" / "test" / name, *range(10, 12))
    assert read(tmp_path / "a").classes == ["bus", "train"]
    split = read(tmp_path / "b")
    assert split.classes == ["bus", "train"]
    assert split.sizes == (18, 2, 4)


@pytest.mark.parametrize(
    ("folders", "text"),
    [
        (
            ("train/a", "test/a", "unlabeled"),
            "expected nothing beside the folders of splits test, train in PATH, got unlabeled: move it out",
        ),
        (
            ("train/a", "extra"),
            "expected nothing beside the folders of splits train in PATH, got extra: move it out",
        ),
        (
            ("train/a", "val/a", "."),
            "expected nothing beside the folders of splits train, val in PATH, got pictures: move them out",
        ),
        (
            ("cats", "dogs", "test"),
            "expected a folder train with the classes beside test in PATH, got cats, dogs: move them into it",
        ),
        (
            ("test/a", "val/a"),
            "expected a folder train beside test, val in PATH, got none: give the training pictures",
        ),
        (
            ("train/a", "val/a", "Valid/a"),
            "expected one folder for each split in PATH, got Valid, val: merge them",
        ),
        (
            ("data/train/a", "data/test/a"),
            "expected the folders of splits directly in PATH, got test, train in PATH/data: give"
            " that folder as path, or rename them",
        ),
        (
            ("cats/train", "cats/test", "dogs/train", "dogs/test"),
            "expected the folders of splits directly in PATH, got test, train in PATH/cats: put the"
            " classes into train and test, or rename them",
        ),
    ],
)
def test_folders_that_could_be_split_in_two_ways_are_refused(
    tmp_path: Path, line: Any, folders: tuple[str, ...], text: str
) -> None:
    for number, folder in enumerate(folders):
        put(tmp_path / folder, *range(12), start=100 * number)
    line(lambda: read(tmp_path), text.replace("PATH", str(tmp_path)))


def test_too_few_to_cut_a_validation_split(tmp_path: Path, line: Any) -> None:
    put(tmp_path / "train", *range(9))
    put(tmp_path / "test", 20)
    line(
        lambda: read(tmp_path),
        f"expected at least 10 data to cut a tenth for valid, got 9 in {tmp_path}/train: give more, or a"
        " folder valid",
    )


@pytest.mark.parametrize("hidden", [".git", ".cache", "__MACOSX", "@eaDir", "cats/.ipynb_checkpoints"])
def test_hidden_folders_are_left_out(tmp_path: Path, hidden: str) -> None:
    put(tmp_path / "cats", *range(10))
    put(tmp_path / hidden, 99)
    put(tmp_path / hidden / "train", 98)
    (tmp_path / ".DS_Store").write_bytes(b"no picture")
    (tmp_path / "cats" / "._000.png").write_bytes(b"no picture")
    data = read(tmp_path)
    assert data.classes == ["cats"]
    assert data.sizes == (8, 1, 1)


def test_a_hidden_folder_may_be_the_path(tmp_path: Path) -> None:
    assert read(put(tmp_path / ".cache" / "mine", *range(10))).sizes == (8, 1, 1)


def test_links_to_folders_are_followed_and_circles_end(tmp_path: Path) -> None:
    put(tmp_path / "store" / "first" / "cats", *range(12))
    put(tmp_path / "store" / "second", 100, 101)
    here = tmp_path / "here"
    here.mkdir()
    (here / "train").symlink_to(tmp_path / "store" / "first")
    (here / "test").symlink_to(tmp_path / "store" / "second")
    (tmp_path / "store" / "first" / "cats" / "up").symlink_to(tmp_path / "store" / "first")
    assert read(here).sizes == (11, 1, 2)


def test_one_file_in_two_places_is_refused(tmp_path: Path, line: Any) -> None:
    put(tmp_path / "train", *range(12))
    put(tmp_path / "test", 99)
    (tmp_path / "test" / "again.png").symlink_to(tmp_path / "train" / "003.png")
    line(
        lambda: read(tmp_path),
        f"expected each picture once, got {tmp_path}/train/003.png again as {tmp_path}/test/again.png:"
        " remove one of them",
    )


def test_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    put(tmp_path, *range(12))
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(InputError, match=r"expected a readable file, got .*gone.png .*: replace or remove"):
        read(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    put(tmp_path / "cats", *range(12))
    put(tmp_path / "dogs", *range(12)).chmod(0)
    try:
        with pytest.raises(InputError, match=r"expected a readable file, got .*dogs .*: allow reading it"):
            read(tmp_path)
    finally:
        (tmp_path / "dogs").chmod(0o700)


# more than 8 bits


def png16(path: Path, channels: int) -> None:
    """A PNG of 16 bits per channel, as scanners and simulations write it, which Pillow cannot."""
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    row = b"\0" + np.full(2 * channels, 40_000, dtype=">u2").tobytes()

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", 2, 2, 16, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(row * 2)), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def tiff16(path: Path, channels: int) -> None:
    """A TIFF of 16 bits per channel, uncompressed."""
    pixels = np.full(4 * channels, 40_000, dtype="<u2").tobytes()
    bits = struct.pack(f"<{channels}H", *[16] * channels)
    start = 8 + 2 + 12 * 9 + 4
    where_bits = start if channels > 2 else 16
    entries = [
        (256, 3, 1, 2),
        (257, 3, 1, 2),
        (258, 3, channels, where_bits),
        (259, 3, 1, 1),
        (262, 3, 1, 2 if channels == 3 else 1),
        (273, 4, 1, start + len(bits)),
        (277, 3, 1, channels),
        (278, 3, 1, 2),
        (279, 4, 1, len(pixels)),
    ]
    directory = struct.pack("<H", 9) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8) + directory + bytes(4) + bits + pixels)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_of_16_bits_is_refused(tmp_path: Path, line: Any, channels: int) -> None:
    put(tmp_path, *range(12))
    png16(tmp_path / "deep.png", channels)
    got = "mode I;16" if channels == 1 else "16 bits"
    line(
        lambda: read(tmp_path),
        f"expected 8 bits per channel in {tmp_path}/deep.png, got {got}: convert it to 8 bits",
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_tiff_of_16_bits_is_refused(tmp_path: Path, line: Any, channels: int) -> None:
    put(tmp_path, *range(12))
    tiff16(tmp_path / "deep.tif", channels)
    got = "mode I;16" if channels == 1 else "16 bits"
    line(
        lambda: read(tmp_path),
        f"expected 8 bits per channel in {tmp_path}/deep.tif, got {got}: convert it to 8 bits",
    )


def test_tiff_of_8_bits_and_one_is_read(tmp_path: Path) -> None:
    for number in range(9):
        Image.new("RGB", (2, 2), (number, 0, 0)).save(tmp_path / f"{number}.tif")
    Image.new("1", (2, 2), 1).save(tmp_path / "bits.tif")
    values = ImageFolder(tmp_path, size=(2, 2)).train.values
    assert values.dtype == torch.uint8
