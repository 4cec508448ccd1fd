"""Array files larger than the memory: mapped, not read, with the same results to the last bit."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pyro_vae as pv
from pyro_vae.data import FORMS, ArrayFile, Dataset, batches
from pyro_vae.errors import InputError

BYTES = np.random.RandomState(0).randint(0, 256, (50, 3, 5)).astype(np.uint8)
FLOATS = BYTES.astype(np.float32) / 255

#: Loads files of 300 MB each where 200 MB may be allocated, and uses them.
SMALL_MEMORY = """
import resource, sys
import torch
from pyro_vae.data import ArrayFile, batches

torch.set_num_threads(1)
used = int(next(line for line in open("/proc/self/status") if line.startswith("VmData")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (used + 200 * 2**20, used + 200 * 2**20))
for path in sys.argv[1:]:
    data = ArrayFile(path)
    assert sum(data.sizes) == 100_000
    for _, x in zip(range(3), batches(data.train, 100, seed=0, epoch=1)):
        x.sum()
    data.train.hash()
"""


def write_large(path: Path, dtype: str, width: int) -> None:
    """Zeros that take no room on the disk."""
    header = {"descr": dtype, "fortran_order": False, "shape": (100_000, width)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + 100_000 * width * np.dtype(dtype).itemsize)


@pytest.mark.skipif(sys.platform != "linux", reason="limits what Linux counts")
def test_files_larger_than_the_memory_are_used(tmp_path: Path) -> None:
    write_large(tmp_path / "bytes.npy", "|u1", 3000)
    write_large(tmp_path / "floats.npy", "<f4", 750)
    paths = [str(tmp_path / name) for name in ("bytes.npy", "floats.npy")]
    arguments = [sys.executable, "-c", SMALL_MEMORY, *paths]
    ended = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-1000:]


def same(a: Dataset, b: Dataset) -> None:
    assert a.sizes == b.sizes
    assert a.protocol == b.protocol
    for name in ("train", "valid", "test"):
        one, other = getattr(a, name), getattr(b, name)
        assert one.hash() == other.hash()
        assert torch.equal(one.values, other.values)
        assert torch.equal(one.subset(3).values, other.subset(3).values)
        assert str(one.labels) == str(other.labels)
    for x, y in zip(batches(a.train, 7, seed=1, epoch=2), batches(b.train, 7, seed=1, epoch=2), strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize("form", ["Levels", "Dynamic", "Static", "Threshold", "Dequantised", "AsGiven"])
@pytest.mark.parametrize("array", [BYTES, FLOATS], ids=["bytes", "floats"])
def test_mapped_data_equal_data_in_memory(tmp_path: Path, array: Any, form: str) -> None:
    if form in ("Levels", "Dequantised") and array is FLOATS:
        return
    parts = {"train": array[:30], "valid": array[30:40], "test": array[40:], "train_labels": np.arange(30)}
    np.savez(tmp_path / "a.npz", **parts)
    np.savez_compressed(tmp_path / "b.npz", **parts)
    mapped = ArrayFile(tmp_path / "a.npz", form=FORMS[form], seed=2)
    packed = ArrayFile(tmp_path / "b.npz", form=FORMS[form], seed=2)
    memory = Dataset(**parts, form=FORMS[form], seed=2)
    same(mapped, memory)
    same(packed, memory)
    np.save(tmp_path / "a.npy", array)
    order = np.random.RandomState(2).permutation(50)
    cut = Dataset(array[order[:40]], array[order[40:45]], array[order[45:]], form=FORMS[form], seed=2)
    alone = ArrayFile(tmp_path / "a.npy", form=FORMS[form], seed=2)
    assert alone.test.hash() == cut.test.hash()
    assert torch.equal(alone.train.values, cut.train.values)


@pytest.mark.parametrize("mode", ["r", "c", "r+"])
def test_a_memory_map_of_ones_own_is_a_data_set(tmp_path: Path, mode: Any) -> None:
    np.save(tmp_path / "a.npy", BYTES)
    same(Dataset(np.load(tmp_path / "a.npy", mmap_mode=mode)), Dataset(BYTES))


@pytest.mark.parametrize(
    "array",
    [
        np.asfortranarray(BYTES),
        BYTES[::-1],
        FLOATS.astype(">f4"),
        FLOATS.astype(np.float64),
        FLOATS.astype(np.float16),
        BYTES > 99,
    ],
    ids=["Fortran", "reversed", "big-endian", "float64", "float16", "bool"],
)
def test_what_cannot_be_mapped_as_it_is_is_read(tmp_path: Path, array: Any) -> None:
    np.savez(tmp_path / "a.npz", train=array, test=array[:4])
    same(ArrayFile(tmp_path / "a.npz"), Dataset(array, test=array[:4]))


def test_the_file_is_never_written_to(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", train=FLOATS, test=FLOATS)
    before = (tmp_path / "a.npz").read_bytes()
    data = ArrayFile(tmp_path / "a.npz")
    assert data.train.values.max() == 1  # a copy
    data.train.values.zero_()
    data.train.batch(slice(0, 5)).zero_()
    data.train.to("cpu").batch().zero_()
    assert (tmp_path / "a.npz").read_bytes() == before
    same(data, Dataset(FLOATS, test=FLOATS))


def test_damage_within_an_npz_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, train=BYTES, test=BYTES)
    content = bytearray(path.read_bytes())
    content[300] ^= 255
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"expected a readable file, got .*a.npz \(BadZipFile: Bad CRC-32"):
        ArrayFile(path)


def test_training_on_mapped_data_equals_training_in_memory(tmp_path: Path) -> None:
    bits = (np.random.RandomState(1).rand(200, 1, 4, 4) > 0.5).astype(np.uint8)
    np.savez(tmp_path / "a.npz", train=bits, valid=bits[:20])
    histories = []
    for data in (ArrayFile(tmp_path / "a.npz"), Dataset(bits, bits[:20])):
        torch.manual_seed(0)
        vae = pv.assemble(data, latent_dim=2, network=pv.MLP((8,)))
        histories.append(pv.fit(vae, data, epochs=2).column("valid_elbo"))
    assert histories[0] == histories[1]
