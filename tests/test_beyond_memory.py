"""Data that stay in files: shards of arrays, and data sets of torch's, read while they are trained on."""

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

import pyro_vae as pv
from pyro_vae.data import ArrayFile, Dataset, batches, shuffle
from pyro_vae.data import shards as shards_of_files
from pyro_vae.programs import Pair
from pyro_vae.training import feed, trainer, validation
from tests.components import refused

BYTES = np.random.RandomState(0).randint(0, 256, (103, 3, 5)).astype(np.uint8)
LABELS = np.random.RandomState(1).randint(0, 4, 103)


def write(folder: Path, array: Any, cuts: Any = (10, 11, 50, 90)) -> Path:
    """An array in shards."""
    folder.mkdir(parents=True)
    for number, part in enumerate(np.split(array, cuts)):
        np.save(folder / f"part-{number:03}.npy", part)
    return folder


def small(data: Dataset, **options: Any) -> pv.VAE:
    torch.manual_seed(0)
    return small_of(data, **options)


def small_of(data: Dataset, **options: Any) -> pv.VAE:
    return pv.assemble(data, latent_dim=2, network=pv.MLP((8,)), **options)


def trained(data: Dataset, vae: pv.VAE | None = None, **options: Any) -> tuple[list[Any], dict[str, Tensor]]:
    """History without times, and parameters."""
    vae = vae or small(data)
    history = pv.fit(vae, data, **{"epochs": 3, "batch_size": 8, **options})
    return [tuple(epoch)[:-1] for epoch in history.epochs], vae.state_dict()


def same(one: Any, other: Any) -> None:
    assert one[0] == other[0]
    assert one[1].keys() == other[1].keys()
    for name, tensor in one[1].items():
        assert torch.equal(tensor, other[1][name]), name


# ------------------------------------------------------------------------------------------ shards


DTYPES = ["uint8", "bool", "int8", "int16", "uint16", "int32", ">i4", "float16", "float32", ">f4"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_shards_are_the_array_that_they_make_one_after_the_other(tmp_path: Path, dtype: str) -> None:
    array = (BYTES % 100).astype(dtype)
    files = ArrayFile(write(tmp_path / "a", array), seed=3)
    np.save(tmp_path / "a.npy", array)
    memory = ArrayFile(tmp_path / "a.npy", seed=3)
    order = np.random.RandomState(3).permutation(103)
    assert files.sizes == memory.sizes == (83, 10, 10)
    for name, rows in (("train", order[:83]), ("valid", order[83:93]), ("test", order[93:])):
        one = getattr(files, name)
        assert one.hash() == getattr(memory, name).hash() == Dataset(array[rows]).train.hash()
        assert torch.equal(
            one.values, torch.from_numpy(array[rows].astype("f4")).unsqueeze(1).to(one.values.dtype)
        )
    assert (files.form.name, files.protocol, files.maximum) == (
        memory.form.name,
        memory.protocol,
        memory.maximum,
    )


def test_rows_are_read_in_any_order_and_more_than_once(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(shards_of_files, "_ROWS_OF_MAP", 4)
    write(tmp_path / "a" / "train", BYTES)
    write(tmp_path / "a" / "test", BYTES)
    data = ArrayFile(tmp_path / "a")
    index = torch.tensor([102, 0, 0, 9, 10, 11, 49, 50, 3, 102, 90, 89])
    assert torch.equal(data.train.stored[index], torch.from_numpy(BYTES)[index].unsqueeze(1))
    assert torch.equal(data.train.stored[7:60], torch.from_numpy(BYTES)[7:60].unsqueeze(1))
    assert data.train.stored[index[:0]].shape == (0, 1, 3, 5)


def test_folders_in_a_folder_are_arrays_as_in_an_npz(tmp_path: Path) -> None:
    arrays: dict[str, Any] = {
        "x_train": BYTES,
        "y_train": LABELS,
        "x_val": BYTES[:20],
        "train_exposure": LABELS + 0.5,
    }
    arrays |= {"valid_label": LABELS[:20], "valid_exposure": LABELS[:20] + 0.5}
    np.savez(tmp_path / "a.npz", **arrays)
    for name, array in arrays.items():
        write(tmp_path / "a" / name, array, (7, 15))
    given = ("label", "exposure")
    files, memory = ArrayFile(tmp_path / "a", given=given), ArrayFile(tmp_path / "a.npz", given=given)
    assert files.sizes == (103, 20, 0)
    assert files.field_kinds == memory.field_kinds
    assert [files.train.hash(), files.valid.hash()] == [memory.train.hash(), memory.valid.hash()]


def test_labels_lie_beside_the_files_of_a_folder(tmp_path: Path) -> None:
    write(tmp_path / "a", BYTES)
    write(tmp_path / "a" / "label", LABELS)
    np.savez(tmp_path / "a.npz", x=BYTES, label=LABELS)
    files, memory = (ArrayFile(tmp_path / name, given=("label",)) for name in ("a", "a.npz"))
    for name in ("train", "valid", "test"):
        assert getattr(files, name).hash() == getattr(memory, name).hash()


# ------------------------------------------------------------------------------------------ order


def test_each_datum_is_taken_once_in_an_epoch_and_in_runs(tmp_path: Path) -> None:
    numbers = np.arange(1000, dtype=np.float32)[:, None]
    data = ArrayFile(write(tmp_path / "a", numbers, range(100, 1000, 100)), window=160)
    rows = data.train.stored
    seen = []
    for epoch in (1, 2):
        values = torch.cat(list(batches(data.train, 7, seed=5, epoch=epoch))).flatten()
        assert values.sort().values.equal(data.train.values.flatten().sort().values)
        # a window of 160 is 16 blocks of 10 neighbours: 10 of 1000, less those of valid and test
        for window in values.split(160):
            jumps = (window.sort().values.diff() > 20).sum()
            assert 2 <= jumps <= 16
        assert (values.diff().abs() > 20).sum() > 700
        seen.append(values)
    assert not seen[0].equal(seen[1])
    again = rows.order(torch.Generator().manual_seed(1))
    assert again.equal(rows.order(torch.Generator().manual_seed(1)))
    assert not again.equal(rows.order(torch.Generator().manual_seed(2)))


def test_one_window_of_all_is_the_order_in_memory(tmp_path: Path) -> None:
    data = ArrayFile(write(tmp_path / "a", BYTES), window=83)
    expected = torch.randperm(83, generator=torch.Generator().manual_seed(4))
    assert data.train.stored.order(torch.Generator().manual_seed(4)).equal(expected)


# ------------------------------------------------------------------------------------------ training


@pytest.mark.parametrize("form", ["Dynamic", "Levels"])
def test_training_on_shards_equals_training_in_memory(tmp_path: Path, form: str) -> None:
    folder = write(tmp_path / "a", BYTES)
    np.save(tmp_path / "a.npy", BYTES)
    form_of = pv.data.FORMS[form]
    likelihood = {"likelihood": pv.CategoricalLikelihood} if form == "Levels" else {}
    files = ArrayFile(folder, form=form_of)
    order = np.random.RandomState(0).permutation(103)
    memory = Dataset(BYTES[order[:83]], BYTES[order[83:93]], BYTES[order[93:]], form=form_of)
    same(*(trained(data, small(data, **likelihood)) for data in (files, memory)))


@pytest.mark.parametrize("window", [1, 20, 40, 82])
@pytest.mark.parametrize("way", ["off", "auto"])
def test_windows_equal_data_in_memory_in_the_same_order(
    tmp_path: Path, monkeypatch: Any, window: int, way: str
) -> None:
    write(tmp_path / "a", BYTES)
    write(tmp_path / "a" / "label", LABELS)
    files = ArrayFile(tmp_path / "a", form=pv.Dynamic(), given=("label",), window=window)
    options: dict[str, Any] = {"condition": "label", "prior": pv.ConditionalNormalPrior}
    in_files = trained(files, small(files, **options), compile=way)
    raw: dict[str, Any] = {name: values[:] for name, values in files.raw.by_split.items()}
    fields = {name: {"label": getattr(files, name).labels} for name in raw}
    memory = Dataset(**raw, fields=fields, given=("label",), form=pv.Dynamic())
    assert memory.train.hash() == files.train.hash()
    in_order_of_files(files, monkeypatch)
    same(in_files, trained(memory, small(memory, **options), compile=way))


def in_order_of_files(files: ArrayFile, monkeypatch: Any) -> None:
    def shuffled(split: Any, generator: Any, *, seed: int, epoch: int) -> Tensor:
        return shuffle(files.train, generator, seed=seed, epoch=epoch)

    monkeypatch.setattr(trainer, "shuffle", shuffled)


def pair_of_few(*arguments: Any) -> Any:
    """Which is measured on 4 data at once."""
    pair = Pair(*arguments)
    pair.rows = 4
    return pair


def test_weights_and_validation_of_data_in_files(tmp_path: Path, monkeypatch: Any) -> None:
    bits, weights = (BYTES > 128).astype(np.uint8), LABELS + 0.5
    parts = {"train": bits, "train_w": weights, "valid": bits[:90], "valid_w": weights[:90]}
    for name, array in parts.items():
        write(tmp_path / "a" / name, array, (30,))
    files = ArrayFile(tmp_path / "a", given=(), window=20)
    assert files.train.is_streamed
    assert files.valid.is_streamed
    fields = {"train": {"w": weights}, "valid": {"w": weights[:90]}}
    memory = Dataset(bits, bits[:90], fields=fields, given=())
    monkeypatch.setattr(validation, "_VALUES", 100)
    monkeypatch.setattr(validation, "Pair", pair_of_few)
    in_files = trained(files, weight="w")
    in_order_of_files(files, monkeypatch)
    same(in_files, trained(memory, weight="w"))


def test_programs_of_ones_own_take_data_in_files(tmp_path: Path, monkeypatch: Any) -> None:
    files = ArrayFile(write(tmp_path / "a", BYTES / np.float32(255)), window=20)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            loc = pyro.param("loc", torch.zeros(1, 3, 5))
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(3), obs=x)

    found, raw = [], {name: values[:] for name, values in files.raw.by_split.items()}
    for data in (files, Dataset(raw["train"], raw["valid"], raw["test"])):
        pyro.clear_param_store()
        in_order_of_files(files, monkeypatch)
        history = pv.fit((model, lambda x: None), data, epochs=2, batch_size=8)
        found.append((history.column("valid_elbo"), pyro.param("loc").detach().clone()))
    assert found[0][0] == found[1][0]
    assert found[0][1].equal(found[1][1])


def test_several_seeds_at_once_read_their_own_windows(tmp_path: Path) -> None:
    files = ArrayFile(write(tmp_path / "a", BYTES), form=pv.Dynamic(), window=20)
    many = pv.fit_many(lambda: small_of(files), files, seeds=[3, 4], epochs=2, batch_size=8)
    for member in many:
        torch.manual_seed(member.seed)
        alone = small_of(files)
        history = pv.fit(alone, files, seed=member.seed, epochs=2, batch_size=8)
        expected = history.column("train_elbo")
        assert member.history.column("train_elbo") == pytest.approx(expected, rel=1e-4)
        for one, other in zip(member.program.parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


class Killed(BaseException):
    """As Ctrl-C, or the end of a process, at any moment."""


@pytest.mark.parametrize("at", range(1, 13))
def test_a_training_killed_at_any_block_goes_on_bit_for_bit(
    tmp_path: Path, monkeypatch: Any, at: int, whole: Any
) -> None:
    folder, expected = whole
    files = ArrayFile(folder, form=pv.Dynamic(), window=20)
    number, read = iter(range(1, 100)), feed.ReadAhead._read

    def killed(self: Any, index: Tensor) -> Any:
        if next(number) == at:
            raise Killed
        return read(self, index)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(feed.ReadAhead, "_read", killed)
        trained(files, checkpoints=tmp_path)
    same(trained(files, checkpoints=tmp_path, resume=True), expected)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: Any) -> Any:
    folder = write(tmp_path_factory.mktemp("shards") / "a", BYTES)
    return folder, trained(ArrayFile(folder, form=pv.Dynamic(), window=20))


def test_another_window_is_another_training(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", BYTES)
    options: dict[str, Any] = {"form": pv.Dynamic()}
    trained(ArrayFile(folder, window=20, **options), epochs=1, checkpoints=tmp_path / "run")
    for window, text in ((40, "with window 20, got 40"), (None, "with window 20, got None")):
        with refused(text):
            data = ArrayFile(folder, window=window, **options)
            trained(data, epochs=2, checkpoints=tmp_path / "run", resume=True)


def test_a_budget_within_a_window_ends_the_reading(tmp_path: Path) -> None:
    files = ArrayFile(write(tmp_path / "a", BYTES), form=pv.Dynamic(), window=20)
    before = threading.active_count()
    history = pv.fit(small(files), files, batch_size=8, steps=3)
    assert history.epochs[-1].step == 3
    assert threading.active_count() == before


def test_reading_ahead_gives_all_in_order_and_raises_where_it_is_used() -> None:
    asked: list[int] = []

    def read(number: int) -> int:
        asked.append(number)
        return 1 // (3 - number)

    found = feed.ahead(read, range(9))
    assert [next(found) for _ in range(3)] == [0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(found)
    assert max(asked) <= 4


# ------------------------------------------------------------------------------------------ refusals


def spoiled(folder: Path, how: str) -> None:
    part = folder / "part-002.npy"
    if how == "truncated":
        part.write_bytes(part.read_bytes()[:-1])
    elif how == "no header":
        part.write_bytes(b"1,2,3")
    elif how == "objects":
        np.save(part, np.array([{}, None]))
    elif how == "shape":
        np.save(part, BYTES[:5, :2])
    elif how == "type":
        np.save(part, BYTES[:5].astype("f4"))
    elif how == "order":
        np.save(part, np.asfortranarray(BYTES[:5]))


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("truncated", r"^expected a whole file .*part-002.npy of 713 bytes, got 712: write it anew$"),
        ("no header", r"^expected a .npy file of numbers \(N, ...\), got .*part-002.npy, .*numpy.save"),
        ("objects", r"^expected a .npy file of numbers \(N, ...\), got .*part-002.npy, .*numpy.save"),
        ("order", r"^expected a .npy file .*part-002.npy, in Fortran's order: save each file by numpy.save"),
        (
            "shape",
            r"^expected data of shape \(3, 5\) in .*part-002.npy, as in part-000.npy, got \(2, 5\): bring",
        ),
        (
            "type",
            r"^expected numbers of type uint8 in .*part-002.npy, as in part-000.npy, got float32: bring",
        ),
    ],
)
def test_damaged_and_unequal_shards_are_refused(tmp_path: Path, how: str, text: str) -> None:
    folder = write(tmp_path / "a", BYTES)
    spoiled(folder, how)
    with refused(text) as raised:
        ArrayFile(folder)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("dtype", ["float64", "int64", "uint32", "complex64"])
def test_types_that_would_be_rounded_are_refused(tmp_path: Path, dtype: str) -> None:
    folder = write(tmp_path / "a", BYTES.astype(dtype))
    with refused(
        rf"^expected files of bytes, int32 or float32 .*got {dtype} in .*part-000.npy: save them by"
    ):
        ArrayFile(folder)


@pytest.mark.parametrize("shards", [True, False], ids=["shards", "one file"])
def test_whole_numbers_that_would_be_rounded_are_refused_in_files(tmp_path: Path, shards: bool) -> None:
    numbers = np.zeros((30, 4), np.int32)
    numbers[20, 1] = 2**24 + 1
    path = write(tmp_path / "a", numbers, cuts=(10,)) if shards else tmp_path / "a.npy"
    if not shards:
        np.save(path, numbers)
    with refused(
        r"^expected whole numbers up to 2\*\*24 = 16,777,216, .* got 0 to 16777217 in train in .*/a"
    ):
        ArrayFile(path)
    numbers[20, 1] = -(2**24)
    path = write(tmp_path / "b", numbers, cuts=(10,))
    assert float(ArrayFile(path, form=pv.AsGiven()).raw.ends[0]) == -(2**24)


def test_fields_whose_spread_would_be_lost_are_refused() -> None:
    seconds = 1.7e9 + np.arange(30.0)
    text = (
        r"^expected numbers that float32 tells apart, got column 0 of the field 'time' of train about 17000"
    )
    with refused(text):
        Dataset(BYTES[:30], fields={"train": {"time": seconds}})
    with refused(text):
        Dataset(BYTES[:30], fields={"train": {"time": seconds.astype(np.int64)}})
    kept = Dataset(BYTES[:30], fields={"train": {"time": seconds.astype(np.int64)}}, given=())
    assert int(kept.train.fields["time"][29]) == 1_700_000_029  # as no program computes with it


def test_files_that_would_be_left_out_are_refused(tmp_path: Path) -> None:
    def upper(folder: Path) -> None:
        (folder / "train" / "part-001.npy").rename(folder / "train" / "part-001.NPY")

    def packed(folder: Path) -> None:
        (folder / "train" / "part-001.npy").rename(folder / "train" / "part-001.npy.gz")

    def archive(folder: Path) -> None:
        np.savez(folder / "more.npz", BYTES)

    def deeper(folder: Path) -> None:
        write(folder / "train" / "more", BYTES)

    def only_deeper(folder: Path) -> None:
        write(folder / "test" / "more", BYTES)

    for number, (spoil, text) in enumerate(
        (
            (
                upper,
                "^expected files named .npy in .*/train, got part-001.NPY, which would be left out: rename",
            ),
            (packed, "got part-001.npy.gz, which would be left out: rename or unpack it to .npy, or move it"),
            (archive, "got more.npz, which would be left out"),
            (
                deeper,
                "^expected .npy files in .*/train itself, got .*more/part-000.npy, .* left out: move it",
            ),
            (
                only_deeper,
                "^expected .npy files in .*/test itself, got .*test/more/part-000.npy, which would",
            ),
        )
    ):
        folder = tmp_path / str(number)
        write(folder / "train", BYTES)
        write(folder / ".hidden" / "more", BYTES)
        (folder / "train" / "readme.txt").write_text("what nobody takes for data")
        assert ArrayFile(folder).sizes.train == 83
        spoil(folder)
        with refused(text):
            ArrayFile(folder)


def test_a_folder_of_empty_files_has_no_data(tmp_path: Path) -> None:
    with refused(r"^expected at least one training datum, got an array of shape \(0, 1, 3, 5\): give data"):
        write(tmp_path / "a" / "train", BYTES[:0], cuts=())
        write(tmp_path / "a" / "valid", BYTES)
        ArrayFile(tmp_path / "a")
    write(tmp_path / "b", BYTES[:0], cuts=())
    with refused(r"^expected at least 10 data to split 80/10/10, got 0 in"):
        ArrayFile(tmp_path / "b")


def test_values_that_are_not_finite_are_counted_and_placed(tmp_path: Path) -> None:
    floats = BYTES.astype(np.float32)
    floats[[20, 100], 2, 1] = np.nan, np.inf
    folder = write(tmp_path / "a", floats)
    text = (
        r"^expected finite values, got 2 NaN or infinite in train in .*a, the first at index \(20, 2, 1\): "
    )
    with refused(text):
        ArrayFile(folder)


def test_a_folder_without_arrays_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1,2")
    with refused(r"^expected .npy files in .*, or in folders in it, got none: save each file by numpy.save"):
        ArrayFile(tmp_path)


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (
            lambda folder: (folder / "part-001.npy").unlink(),
            r"^expected .*label/part-001.npy of 1 data beside .*/part-001.npy, got no such file: cut both",
        ),
        (
            lambda folder: np.save(folder / "part-003.npy", LABELS[:7]),
            r"^expected .*label/part-003.npy of 40 data beside .*/part-003.npy, got 7: cut both",
        ),
        (
            lambda folder: np.save(folder / "part-009.npy", LABELS[:7]),
            r"^expected the files of .*, got .*label/part-009.npy beside none: remove it",
        ),
    ],
)
def test_fields_in_other_files_than_their_data_are_refused(tmp_path: Path, spoil: Any, text: str) -> None:
    write(tmp_path / "a", BYTES)
    spoil(write(tmp_path / "a" / "label", LABELS))
    with refused(text):
        ArrayFile(tmp_path / "a")


def write_anew(path: Path, content: np.ndarray) -> None:
    """Another time, as many bytes."""
    np.save(path, content)
    os.utime(path, ns=(1, 1))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            lambda path: path.unlink(),
            "^expected the file .*part-003.npy, which was there when .* got FileNotF",
        ),
        (
            lambda path: path.write_bytes(path.read_bytes()[:300]),
            "^expected .*part-003.npy of 728 bytes, as when the data were opened, got 300: put it back",
        ),
        (
            lambda path: write_anew(path, BYTES[:40]),
            "^expected .*part-003.npy as when the data were opened, got one that was written since: put it",
        ),
    ],
)
def test_a_file_that_goes_during_training_is_said_in_one_line(tmp_path: Path, change: Any, text: str) -> None:
    folder = write(tmp_path / "a", BYTES)
    files = ArrayFile(folder, window=20)
    change(folder / "part-003.npy")
    with refused(text) as raised:
        list(batches(files.train, 8, seed=0, epoch=1))
    assert "\n" not in str(raised.value)
    vae = small(ArrayFile(write(tmp_path / "b", BYTES), window=20))
    with refused(text):
        pv.fit(vae, files, batch_size=8)


# ------------------------------------------------------------------------------------------ torch


class Numbered(torch.utils.data.Dataset[Any]):
    """Pictures with their labels, as users write them."""

    def __init__(self, number: int = 60) -> None:
        self.number = number

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> Any:
        return torch.from_numpy(BYTES[index]), int(LABELS[index])


class Augmented(Numbered):
    def __getitem__(self, index: int) -> Any:
        return torch.from_numpy(BYTES[index]).roll(int(torch.randint(5, ())), 1), int(LABELS[index])


class Broken(Numbered):
    def __getitem__(self, index: int) -> Any:
        if index == 37:
            raise KeyError("no such picture")
        return super().__getitem__(index)


def as_array(number: int = 60, valid: bool = True, **options: Any) -> Dataset:
    fields = {"train": {"label": LABELS[:number]}}
    if valid:
        fields["valid"] = {"label": LABELS[:20]}
    return Dataset(BYTES[:number], BYTES[:20] if valid else None, fields=fields, **options)


def test_a_data_set_is_trained_on_as_its_array() -> None:
    options: dict[str, Any] = {"form": pv.Dynamic(), "given": ("label",)}
    items = pv.TorchData(Numbered(), Numbered(20), names=("label",), **options)
    memory = as_array(**options)
    assert (items.sizes, items.protocol, items.field_kinds) == (
        memory.sizes,
        memory.protocol,
        memory.field_kinds,
    )
    assert items.valid.hash() == memory.valid.hash()
    assert items.train.hash() == "not hashed: 60 of Numbered"
    conditional: dict[str, Any] = {"condition": "label", "prior": pv.ConditionalNormalPrior}
    found = [trained(data, small(data, **conditional)) for data in (items, memory)]
    same(*found)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_keeps_its_order_and_its_batches_are_cut_anew(workers: int) -> None:
    loader = DataLoader(Numbered(), batch_size=7, num_workers=workers)
    items = pv.TorchData(loader, names=("label",), given=("label",), form=pv.Dynamic())
    feeding = feed.feed_of(items.train, 8, torch.device("cpu"), torch.Generator())
    found = [feeding.split.take(place) for place in feeding.batches(torch.randperm(60))]
    raw = [feeding.split.stored[place] for place in feeding.batches(torch.randperm(60))][-1]
    assert [len(batch) for batch in found] == [8] * 7 + [4]
    assert torch.cat([batch.given["label"] for batch in found]).equal(torch.from_numpy(LABELS[:60]))
    assert raw.equal(torch.from_numpy(BYTES[56:60]).unsqueeze(1))


def test_a_loader_trains_validates_and_estimates() -> None:
    generator = torch.Generator().manual_seed(3)
    loader = DataLoader(Augmented(), batch_size=16, shuffle=True, drop_last=True, generator=generator)
    data = pv.TorchData(loader, Numbered(20), DataLoader(Numbered(30), batch_size=4), form=pv.Dynamic())
    assert data.sizes == (48, 20, 30)
    vae = small(data)
    history = pv.fit(vae, data, epochs=3, batch_size=8)
    assert history.epochs[-1].step == 18
    valid = history.column("valid_elbo")
    assert valid[-1] > valid[0]
    memory = Dataset(BYTES[:48], BYTES[:20], BYTES[:30], form=pv.Dynamic())
    found = []
    for test in (data.test, memory.test):
        torch.manual_seed(1)
        found.append(pv.log_evidence(vae.model, vae.guide, test.take(), num_particles=10).estimate)
    assert found[0].equal(found[1])


def test_augmentation_is_drawn_anew_in_each_epoch_and_leaves_other_draws() -> None:
    items = pv.TorchData(Augmented()).items
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    order = torch.arange(60)
    first, again, other = (torch.cat([x for (x,) in items.epoch(order, 8, seed)]) for seed in (1, 1, 2))
    assert torch.rand(3).equal(expected)
    assert first.equal(again)
    assert not first.equal(other)
    rolled = (first == torch.from_numpy(BYTES[:60]).unsqueeze(1)).flatten(1).all(1)
    assert 2 < int(rolled.sum()) < 30


def test_a_training_on_items_goes_on_with_a_word_about_it(tmp_path: Path) -> None:
    data = pv.TorchData(Augmented(), Numbered(20), form=pv.Dynamic())
    expected = trained(data, epochs=3)
    trained(data, epochs=2, checkpoints=tmp_path)
    with pytest.warns(UserWarning, match="^training goes on with items that have no hash and may be others"):
        found = trained(data, epochs=3, checkpoints=tmp_path, resume=True)
    same(found, expected)  # as it happens, since all draws are torch's


def test_dictionaries_and_floats_are_items() -> None:
    class Named(Numbered):
        def __getitem__(self, index: int) -> Any:
            return {"exposure": LABELS[index] + 0.5, "x": BYTES[index].ravel() / 255.0, "id": index}

    data = pv.TorchData(Named(), names=("exposure",))
    memory = Dataset(BYTES[:60].reshape(60, 15) / 255.0, fields={"train": {"exposure": LABELS[:60] + 0.5}})
    assert (data.given, data.form.name, data.dtype) == (memory.given, memory.form.name, memory.dtype)
    one, other = (each.train.take(slice(3, 9)) for each in (data, memory))
    assert one.x.equal(other.x)
    assert one.given["exposure"].equal(other.given["exposure"])


def test_the_range_of_bits_and_bytes_is_that_of_their_type() -> None:
    class Bits(Numbered):
        def __getitem__(self, index: int) -> Any:
            return BYTES[index] > 128

    assert [pv.TorchData(Bits()).levels, pv.TorchData(Numbered()).levels] == [2, 256]
    assert pv.TorchData(Bits()).protocol == Dataset(BYTES > 128).protocol


@pytest.mark.parametrize("workers", [None, 0, 1])
def test_what_items_raise_is_one_line(workers: int | None) -> None:
    items: Any = Broken() if workers is None else DataLoader(Broken(), batch_size=5, num_workers=workers)
    data = pv.TorchData(items)
    vae = small(as_array(valid=False), likelihood=pv.CategoricalLikelihood)
    text = "^expected train to give its items, got KeyError: .*no such picture.* from Broken: mend its __ge"
    with refused(text) as raised:
        pv.fit(vae, data, batch_size=8)
    assert "\n" not in str(raised.value)
    with refused(text) as raised:
        list(data.items.epoch(torch.arange(60), 8, 0))
    assert "\n" not in str(raised.value)


class Stream(torch.utils.data.IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(BYTES)


class Growing(Numbered):
    def __getitem__(self, index: int) -> Any:
        return torch.ones(2 + (index > 40))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: pv.TorchData(Stream()),
            "^expected train as a torch data set .* got Stream: collect a stream",
        ),
        (
            lambda: pv.TorchData(DataLoader(Stream())),
            "got DataLoader of Stream: collect a stream by numpy.save",
        ),
        (lambda: pv.TorchData([]), "^expected at least one datum in train, got none: give data"),
        (
            lambda: pv.TorchData(BYTES, names=("label",)),
            "^expected x, label in each item of train, got 1 of th",
        ),
        (
            lambda: pv.TorchData([{"image": torch.ones(3), "y": 1}]),
            "^expected x in each item of train, got 0 of them among 'image', 'y': give each item as a tuple",
        ),
        (
            lambda: pv.TorchData([(Image.new("L", (2, 2)), 1)]),
            r"PIL.* from list: make tensors of its pictures, as by transform=.*PILToTensor\(\)$",
        ),
        (lambda: pv.TorchData(DataLoader(Numbered(), batch_size=None)), "one with batch_size=None: give"),
        (lambda: pv.TorchData(Growing(), Growing(50)), r"expected valid to give its items, got RuntimeError"),
        (
            lambda: list(pv.TorchData(Growing()).items.in_order()),
            "^expected train to give its items, got RuntimeError: stack expects each tensor to be equal size",
        ),
        (
            lambda: list(pv.TorchData(Growing()).items.epoch(torch.arange(60), 1, 0)),
            r"^expected x of shape \(2,\) and torch.float32 in train, as in the first item, got \(3,\) and",
        ),
        (
            lambda: pv.TorchData(DataLoader(Numbered()), names=("label",)).with_labels(8),
            "^with_labels expects training data in an order that fit knows, got a DataLoader: give its data",
        ),
    ],
)
def test_what_are_no_items_is_said_in_one_line(make: Any, text: str) -> None:
    with refused(text) as raised:
        make()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("make", [pv.TorchData, pv.Dataset])
def test_pictures_with_channels_at_the_end_are_said(make: Any) -> None:
    pictures = torch.tensor(np.random.RandomState(0).randint(0, 256, (20, 8, 6, 3)).astype(np.uint8))
    items = [(each,) for each in pictures] if make is pv.TorchData else pictures
    with pytest.warns(UserWarning, match=r"taken as pictures of 8 channels and 6 x 3 pixels: .*moveaxis"):
        make(items)
    make([(each,) for each in pictures.movedim(-1, 1)] if make is pv.TorchData else pictures.movedim(-1, 1))


def test_a_sampler_of_another_length_in_each_epoch_is_refused() -> None:
    class Shrinking(torch.utils.data.Sampler[int]):
        length = 40

        def __len__(self) -> int:
            return self.length

        def __iter__(self) -> Any:
            self.length -= 8
            return iter(range(self.length))

    data = pv.TorchData(DataLoader(Numbered(), batch_size=4, sampler=Shrinking()), form=pv.Dynamic())
    assert data.sizes.train == 32
    with refused(
        "^expected 32 training data in each epoch of a DataLoader, as in the first, got 24: give a samp"
    ):
        pv.fit(small(data), data, batch_size=8)
