"""Entries that were not observed, in data sets."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pyro_vae as pv
from pyro_vae.data import FORMS, DataFacts

from .components import refused

RANDOM = np.random.RandomState(0)
GREY = RANDOM.randint(0, 17, (40, 1, 3, 4)).astype(np.float32)
HOLES = RANDOM.rand(40, 1, 3, 4) < 0.3
WITH_HOLES = np.where(HOLES, np.nan, GREY)


def made(form: str = "Levels", **options: Any) -> pv.Dataset:
    parts = (WITH_HOLES[:20], WITH_HOLES[20:30], WITH_HOLES[30:])
    return pv.Dataset(*parts, form=FORMS[form], missing=True, **{"maximum": 16, **options})


@pytest.mark.parametrize("form", ["Levels", "Dynamic", "Static", "Threshold", "Dequantised"])
def test_a_missing_entry_is_missing_in_every_form_and_the_others_are_what_they_were(
    form: str,
) -> None:
    data = made(form)
    full = pv.Dataset(
        GREY[:20].astype(np.uint8),
        GREY[20:30].astype(np.uint8),
        GREY[30:].astype(np.uint8),
        form=FORMS[form],
        maximum=16,
    )
    for name, rows in (("train", slice(0, 20)), ("valid", slice(20, 30)), ("test", slice(30, 40))):
        holes, generators = torch.from_numpy(HOLES[rows]), [torch.Generator().manual_seed(3) for _ in "ab"]
        found, whole = (
            getattr(each, name).batch(generator=generator)
            for each, generator in zip((data, full), generators, strict=True)
        )
        assert torch.equal(found.isnan(), holes)
        assert torch.equal(found[~holes], whole[~holes])  # the same draws of the same stream
        assert getattr(data, name).num_missing == int(holes.sum())
    assert torch.equal(data.all.batch().isnan(), torch.from_numpy(HOLES))
    assert (data.levels, data.bin_width) == (full.levels, full.bin_width)
    assert data.protocol == f"{full.protocol}, {HOLES.sum()} of {HOLES.size} entries missing"


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_mask_says_the_same_as_nan(dtype: Any, tmp_path: Path) -> None:
    seen, whole = ~HOLES, np.where(HOLES, 99, GREY).astype(dtype)
    parts = {"train": slice(0, 20), "valid": slice(20, 30), "test": slice(30, 40)}
    fields = {name: {"mask": seen[rows]} for name, rows in parts.items()}
    arrays: dict[str, Any] = {name: whole[rows] for name, rows in parts.items()}
    data = pv.Dataset(**arrays, fields=fields, missing=True, maximum=16)
    for name in parts:
        assert getattr(data, name).hash() == getattr(made(), name).hash()
    assert data.given == () and data.protocol == made().protocol
    flat: dict[str, Any] = {
        f"{name}_mask": seen[rows].reshape(len(seen[rows]), -1) for name, rows in parts.items()
    }
    np.savez(tmp_path / "a.npz", **arrays, **flat)
    assert pv.ArrayFile(tmp_path / "a.npz", missing=True, maximum=16).test.hash() == made().test.hash()
    np.savez(tmp_path / "b.npz", x=whole, mask=seen)
    alone = pv.ArrayFile(tmp_path / "b.npz", missing=True, maximum=16)
    assert sum(getattr(alone, name).num_missing for name in parts) == HOLES.sum()
    grey = pv.Dataset(whole[:20] * dtype(15), fields={"train": {"mask": seen[:20]}}, missing=True)
    assert grey.levels == (256 if dtype == np.uint8 else None)
    for mask in (seen[:20, :, :2], seen[:20] * 2):
        with refused("expected the mask of train as 0 and 1 for each entry of shape"):
            pv.Dataset(whole[:20], fields={"train": {"mask": mask}}, missing=True)


def test_numbers_that_are_not_whole_have_no_levels() -> None:
    assert made().levels == 17
    assert pv.Dataset(WITH_HOLES, missing=True, maximum=15).levels is None
    assert pv.Dataset(WITH_HOLES, missing=True, maximum=16.5).levels is None
    assert pv.Dataset(WITH_HOLES / 16, missing=True).levels is None
    with refused("expected whole numbers from 0 to a whole maximum for the form Dequantised"):
        pv.Dataset(WITH_HOLES / 16, form=pv.Dequantised(), missing=True)
    with refused(r"expected grey values in \[0, 1\] for the form Dynamic, got \[0, 16\] in train"):
        pv.Dataset(WITH_HOLES, form=pv.Dynamic(), missing=True)


def test_the_option_changes_nothing_of_data_without_missing_entries() -> None:
    plain, asked = (pv.Dataset(GREY / 16, missing=missing) for missing in (False, True))
    assert plain.train.hash() == asked.train.hash()
    assert torch.equal(plain.train.batch(), asked.train.batch())
    assert asked.protocol == "as given, 0 of 480 entries missing"
    assert pv.Digits().test.hash() == "dbd4130f69d7adaa"


def test_the_hash_is_that_of_the_data_whatever_the_bits_of_nan() -> None:
    other = WITH_HOLES.copy()
    other.view(np.uint32)[HOLES] = 0x7FC00123
    assert np.isnan(other[HOLES]).all()
    assert pv.Dataset(other, missing=True).train.hash() == pv.Dataset(WITH_HOLES, missing=True).train.hash()
    other[0, 0, 0, 0] = np.nan if not HOLES[0, 0, 0, 0] else 1.0
    assert pv.Dataset(other, missing=True).train.hash() != pv.Dataset(WITH_HOLES, missing=True).train.hash()


def test_what_is_refused() -> None:
    with refused(
        r"expected finite values, got \d+ NaN or infinite in train, the first at index .*: remove or replace "
        r"them, or give missing=True \(--data.missing true\) where NaN means not observed"
    ):
        pv.Dataset(WITH_HOLES)
    infinite = WITH_HOLES.copy()
    infinite[3, 0, 1, 2] = math.inf
    with refused(
        r"expected finite values or NaN, got 1 infinite in train, the first at index \(3, 0, 1, 2\): remove"
    ):
        pv.Dataset(infinite, missing=True)
    empty = WITH_HOLES.copy()
    empty[[5, 7]] = np.nan
    with refused(
        "expected at least one observed entry in each datum, got 2 without any in valid, the first at index "
        "5: leave these data out"
    ):
        pv.Dataset(GREY, empty, missing=True)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_a_file_with_missing_entries(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"data{suffix}"
    if suffix == ".npy":
        np.save(path, WITH_HOLES)
    else:
        np.savez(path, train=WITH_HOLES[:30], test=WITH_HOLES[30:])
    data = pv.ArrayFile(path, maximum=16, missing=True)
    assert sum(part.num_missing for part in (data.train, data.valid, data.test)) == HOLES.sum()
    assert data.levels == 17 and f"{HOLES.sum()} of 480 entries missing" in data.protocol
    with refused(f"NaN or infinite in .*data{suffix}, .*missing=True"):
        pv.ArrayFile(path, maximum=16)


def test_facts_know_of_missing_entries() -> None:
    facts = DataFacts.from_plain(DataFacts.of(made()).plain())
    assert facts.missing
    assert torch.equal(facts.test(WITH_HOLES[30:], "new").batch().isnan(), torch.from_numpy(HOLES[30:]))
    plain = DataFacts.of(pv.Digits()).plain()
    assert not DataFacts.from_plain({name: each for name, each in plain.items() if name != "missing"}).missing
    with refused("got something else"):
        DataFacts.from_plain({**plain, "missing": "perhaps"})
    real = DataFacts.of(pv.Dataset(WITH_HOLES / 7, missing=True))
    assert len(real.test(np.full((2, 1, 3, 4), 1.0), "new")) == 2  # whole by chance
