"""Splits, batches, binarisation protocols, and the embedded digits."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.datasets import load_digits

from pyro_vae.data import (
    FORMS,
    AsGiven,
    Counts,
    DataFacts,
    Dataset,
    Dequantised,
    Digits,
    Dynamic,
    Levels,
    Split,
    Static,
    Threshold,
    batches,
    splits,
)
from pyro_vae.data import noise as noise_module
from pyro_vae.errors import InputError

GREY = np.random.RandomState(7).randint(0, 256, (50, 3, 4)).astype(np.uint8)
GREY[0, 0, :2] = 0, 255


def made(**options: Any) -> Dataset:
    return Dataset(GREY[:30], GREY[30:38], GREY[38:], **options)


def test_shapes_sizes_and_scale() -> None:
    data = made()
    assert data.sizes == (30, 8, 12)
    assert data.sizes.test == 12
    assert data.data_shape == (1, 3, 4)
    assert data.name == "Dataset"
    assert data.train.values.dtype == torch.uint8
    x = data.test.batch()
    assert x.dtype == torch.float32
    assert torch.equal(x, torch.from_numpy(GREY[38:]).unsqueeze(1) / 255)


@pytest.mark.parametrize("shape", [(5, 7), (5, 2, 3, 4)])
def test_vectors_and_channels_keep_their_shape(shape: tuple[int, ...]) -> None:
    data = Dataset(np.zeros(shape))
    assert data.data_shape == shape[1:]
    assert data.train.values.dtype == torch.float32
    assert data.sizes == (5, 0, 0)
    assert data.valid.data_shape == shape[1:]


@pytest.mark.parametrize(
    ("array", "maximum"),
    [
        (np.array([[0, 200]], dtype=np.uint8), 255),
        (np.array([[0, 1]], dtype=np.uint8), 1),
        (np.array([[False, True]]), 1),
        (np.array([[-3.0, 7.0]]), 1),
        (torch.tensor([[-3.0, 7.0]], dtype=torch.bfloat16), 1),
    ],
)
def test_usual_maximum(array: Any, maximum: int) -> None:
    split = Dataset(array).train
    assert split.maximum == maximum
    assert torch.equal(split.batch(), torch.as_tensor(array).float() / maximum)


@pytest.mark.parametrize("dtype", [">f4", "f4", "f8", "u1"])
@pytest.mark.parametrize("step", [1, -1])
def test_arrays_that_torch_cannot_view(dtype: str, step: int) -> None:
    array = np.arange(6, dtype=dtype).reshape(2, 3)[:, ::step]
    array.flags.writeable = step < 0  # read-only and forwards, or writable and backwards
    assert Dataset(array, maximum=1).train.batch().tolist() == [[0, 1, 2][::step], [3, 4, 5][::step]]


def test_batch_by_index_and_slice_never_aliases() -> None:
    split = Dataset(np.arange(12.0).reshape(4, 3)).train
    assert split.batch(torch.tensor([3, 0])).tolist() == [[9, 10, 11], [0, 1, 2]]
    split.batch(slice(0, 2)).zero_()
    assert split.values.sum() == 66


def test_dynamic_frequencies_are_the_grey_levels() -> None:
    split = made(form=Dynamic()).train
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([split.batch(generator=generator) for _ in range(2000)])
    assert set(draws.unique().tolist()) == {0.0, 1.0}
    grey = split.values / 255
    sigma = (grey * (1 - grey) / 2000).sqrt()
    assert ((draws.mean(0) - grey).abs() <= 4 * sigma).all()
    assert not torch.equal(draws[0], draws[1])


def test_black_stays_black_even_for_noise_of_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    split = Dataset(np.array([[0.0, 1e-6]]), form=Dynamic()).train
    monkeypatch.setattr(torch, "rand", lambda shape, **options: torch.zeros(shape))
    assert split.batch().tolist() == [[0, 1]]


def independent_draw(array: np.ndarray[Any, Any], seed: int, stream: int) -> torch.Tensor:
    noise = np.random.RandomState([seed, stream]).random_sample(array.shape)
    return torch.from_numpy(noise < array / 255).unsqueeze(1).float()


@pytest.mark.parametrize("form", ["Dynamic", "Static"])
def test_evaluated_splits_are_one_fixed_draw(form: str) -> None:
    data = made(form=FORMS[form], seed=5)
    for split, array, stream in ((data.valid, GREY[30:38], 1), (data.test, GREY[38:], 2)):
        assert torch.equal(split.batch(), independent_draw(array, 5, stream))
        assert torch.equal(split.batch(), split.batch())
    other = Dataset(GREY[:3], None, GREY[38:], form=FORMS[form], seed=5)
    assert torch.equal(other.test.values, data.test.values)


def test_static_training_data_are_one_fixed_draw() -> None:
    train = made(form=Static(), seed=5).train
    assert torch.equal(train.batch(), independent_draw(GREY[:30], 5, 0))
    assert torch.equal(train.batch(), train.batch())


def test_draws_do_not_depend_on_the_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = made(form=Static()).train
    monkeypatch.setattr(noise_module, "_DRAWN_AT_ONCE", 25)
    assert made(form=Static()).train.hash() == whole.hash()


def test_dequantised_data_are_uniform_within_the_bins_of_their_levels() -> None:
    data = made(form=Dequantised(), seed=5)
    assert data.bin_width == 1 / 256
    train = data.train
    assert train.values.dtype == torch.uint8
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([train.batch(generator=generator) for _ in range(200)])
    assert draws.dtype == torch.float32
    noise = draws * 256 - train.values  # exact in float32, but for the rounding of draws
    assert noise.min() >= 0 and noise.max() <= 1
    assert stats.kstest(noise[:, ::5].flatten().numpy(), "uniform").pvalue > 1e-3
    assert not torch.equal(draws[0], draws[1])


def test_dequantised_evaluation_data_are_one_fixed_draw() -> None:
    data = made(form=Dequantised(), seed=5)
    for split, array, stream in ((data.valid, GREY[30:38], 1), (data.test, GREY[38:], 2)):
        noise = np.random.RandomState([5, stream]).random_sample(array.shape)
        expected = torch.from_numpy((array + noise) / 256).float().unsqueeze(1)
        assert torch.equal(split.batch(), expected)
        assert split.values.dtype == torch.float32
    other = Dataset(GREY[:3], None, GREY[38:], form=Dequantised(), seed=5)
    assert torch.equal(other.test.values, data.test.values)


def test_dequantised_batches_repeat_an_epoch() -> None:
    split = made(form=Dequantised()).train
    for part in (split.subset(4), split.to("cpu")):
        assert part.dequantise
    first, again, other = (torch.cat(list(batches(split, 8, seed=2, epoch=e))) for e in (4, 4, 5))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("data", "levels"),
    [
        (Digits(form=Levels()), 17),
        (Digits(form=Dynamic()), 2),
        (Digits(form=Threshold()), 2),
        (Digits(form=Dequantised()), None),
        (made(), 256),
        (made(form=Static()), 2),
        (Dataset(GREY > 128), 2),
        (Dataset(GREY / 255), None),
        (Dataset(GREY / 255, form=Dynamic()), 2),
        (made(maximum=16), None),  # counts, with values above what means 1
        (made(maximum=255.5), None),
        (made(maximum=300), 301),
    ],
)
def test_levels(data: Dataset, levels: int | None) -> None:
    assert data.levels == levels
    assert (data.bin_width is None) == (data.form.name != "Dequantised")
    if levels:
        k = data.test.batch() * (levels - 1)
        assert (k - k.round()).abs().max() < 1e-4 if len(k) else data.sizes.test == 0


def test_threshold_is_above_one_half() -> None:
    grey = np.array([[0.0, 0.5, 0.500001, 1.0]])
    assert Dataset(grey, form=Threshold()).train.batch().tolist() == [[0, 0, 1, 1]]
    levels = np.array([[0, 127, 128, 255]], dtype=np.uint8)
    data = Dataset(levels, levels, levels, form=Threshold())
    for split in (data.train, data.valid, data.test):
        assert split.batch().tolist() == [[0, 0, 1, 1]]


@pytest.mark.parametrize("form", ["Dynamic", "Static", "Threshold", "Levels"])
def test_bits_stay_bits_under_every_protocol(form: str) -> None:
    bits = GREY > 128
    data = Dataset(bits, bits, bits, form=FORMS[form])
    for split in (data.train, data.valid, data.test):
        assert torch.equal(split.batch(), torch.from_numpy(bits).unsqueeze(1).float())


@pytest.mark.parametrize(
    ("options", "protocol"),
    [
        (
            {"form": Dynamic(), "seed": 3},
            "dynamic binarisation, evaluated on one fixed draw (seed 3)",
        ),
        ({"form": Static(), "seed": 3}, "static binarisation, one fixed draw of all data (seed 3)"),
        ({"form": Threshold(), "seed": 3}, "binarised at grey > 1/2"),
        (
            {"form": Dequantised(), "seed": 3},
            "uniform dequantisation of 256 levels, evaluated on one fixed draw (seed 3)",
        ),
        ({"form": Levels()}, "256 levels, divided by 255"),
        ({"maximum": 16, "form": AsGiven()}, "divided by 16"),
        ({"maximum": 1}, "counts"),
    ],
)
def test_protocol(options: dict[str, Any], protocol: str) -> None:
    assert made(**options).protocol == protocol


def test_protocol_of_bits() -> None:
    assert Dataset(GREY > 128).protocol == "as given"


def test_hash_names_what_is_evaluated() -> None:
    test = made(form=Dynamic()).test
    assert test.hash() == made(form=Static()).test.hash()
    changed = [
        made(form=Dynamic(), seed=1).test,
        made(form=Threshold()).test,
        made().test,
        made(maximum=256).test,
        test.subset(11),
        made(form=Dynamic()).train,
        made().train,
        made().valid,
        made(form=Dequantised()).train,
        made(form=Dequantised()).test,
        made(form=Dequantised(), seed=1).test,
        Split(test.values.reshape(12, 12)),
        Split(test.values.float()),
        Split(test.values[:0]),
    ]
    assert len({split.hash() for split in [test, *changed]}) == len(changed) + 1


def test_digits_hash_is_the_same_on_every_machine() -> None:
    # literals: a change of the split or of a random stream makes published numbers incomparable
    data = Digits(seed=0)
    assert data.train.hash() == "482443514a59a0d3"
    assert data.test.hash() == "dbd4130f69d7adaa"
    dequantised = Digits(form=Dequantised(), seed=0)
    assert dequantised.train.hash() == "50325b58771b335f"
    assert dequantised.test.hash() == "df9ce765e895ed68"


def test_digits_are_split_without_overlap() -> None:
    data = Digits(form=Levels())
    assert data.sizes == (1297, 200, 300)
    assert data.data_shape == (1, 8, 8)
    splits = (data.train, data.valid, data.test)
    rows = torch.cat(
        [torch.column_stack([s.values.flatten(1).long(), s.labels]) for s in splits if s.labels is not None]
    )
    source = load_digits()
    expected = np.column_stack([source.data, source.target]).astype(int)
    assert sorted(rows.tolist()) == sorted(expected.tolist())
    assert data.train.batch().max() == 1
    assert torch.equal(Digits(seed=1).train.values, data.train.values)


def test_without_their_file_the_digits_are_those_that_scikit_learn_gives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = Digits()
    monkeypatch.setattr("pyro_vae.data.images.find_spec", lambda _: None)
    given = Digits()
    for one, other in ((found.train, given.train), (found.test, given.test)):
        assert torch.equal(one.values, other.values)
        assert one.labels is not None and other.labels is not None
        assert torch.equal(one.labels, other.labels)


def test_subset_is_a_fixed_choice_with_its_labels() -> None:
    split = Split(torch.arange(20.0).reshape(20, 1), {"label": torch.arange(20)})
    part = split.subset(6)
    assert part.labels is not None
    assert part.values[:, 0].tolist() == part.labels.tolist()
    assert part.labels.tolist() == np.random.RandomState(0).permutation(20)[:6].tolist()
    assert split.subset(None) is split
    assert split.subset(20) is split
    with pytest.raises(InputError, match="expected a number of data of at least 1, got 0: give more"):
        split.subset(0)


def test_subset_and_device_keep_what_the_split_is() -> None:
    split = made(form=Dynamic(), train_labels=np.arange(30)).train
    for other in (split.subset(4), split.to("cpu")):
        assert other.resample
        assert other.maximum == 255
    assert split.to("meta").batch().device.type == "meta"


def test_batches_cover_each_datum_once_in_another_order_each_epoch() -> None:
    split = Split(torch.arange(23.0).reshape(23, 1))
    epoch = [x.flatten().tolist() for x in batches(split, 5, seed=0, epoch=0)]
    assert [len(x) for x in epoch] == [5, 5, 5, 5, 3]
    order = [number for x in epoch for number in x]
    assert sorted(order) == list(range(23))
    assert order != list(range(23))
    for seed, number in ((0, 1), (1, 0)):
        other = torch.cat(list(batches(split, 23, seed=seed, epoch=number)))
        assert other.flatten().tolist() != order


def test_batches_repeat_an_epoch_and_leave_the_global_state() -> None:
    split = made(form=Dynamic()).train
    state = torch.get_rng_state()
    first, again, other = (list(batches(split, 30, seed=2, epoch=e)) for e in (4, 4, 5))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])


def test_batches_follow_the_documented_stream() -> None:
    split = made(form=Dynamic()).train
    generator = torch.Generator().manual_seed(2_654_435_761 * (1_000_003 * 2 + 4 + 1) % 2**32)
    order = torch.randperm(30, generator=generator)
    for x, index in zip(batches(split, 8, seed=2, epoch=4), order.split(8), strict=True):
        assert torch.equal(x, split.batch(index, generator))


def test_epoch_seeds_differ_and_are_no_small_integers() -> None:
    seeds = {splits._epoch_seed(seed, epoch) for seed in range(20) for epoch in range(500)}
    assert len(seeds) == 20 * 500
    assert not seeds & set(range(1000))


@pytest.mark.parametrize(
    ("split", "size", "message"),
    [
        (Split(torch.zeros(0, 2)), 1, "got an empty split: use a data set that has this split"),
        (
            Split(torch.zeros(3, 2)),
            4,
            "expected at least one full batch of 4, got 3 data: reduce the batch size",
        ),
        (Split(torch.zeros(3, 2)), 0, "expected a batch size of at least 1, got 0"),
    ],
)
def test_batches_refuse_at_the_call(split: Split, size: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        batches(split, size, seed=0, epoch=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_data_stay_on_their_device() -> None:
    data = made(form=Dynamic(), train_labels=np.arange(30))
    split = data.train.to("cuda")
    assert split.labels is not None
    assert split.labels.is_cuda
    assert split.subset(5).values.is_cuda
    assert split.hash() == data.train.hash()
    first, again = (torch.cat(list(batches(split, 8, seed=0, epoch=0))) for _ in range(2))
    assert first.is_cuda
    assert torch.equal(first, again)


def with_value(value: float) -> np.ndarray[Any, Any]:
    array = np.zeros((3, 4, 5))
    array[1, 2, 3] = array[2, 0, 0] = value
    return array


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: Dataset(with_value(np.nan)),
            r"got 2 NaN or infinite in train, the first at index \(1, 2, 3\)",
        ),
        (lambda: Dataset(GREY / 1.0, with_value(1e300)[:, :3, :4]), r"got 2 NaN or infinite in valid"),
        (lambda: Dataset(GREY[:0]), r"at least one training datum, got an array of shape \(0, 1, 3, 4\)"),
        (
            lambda: Dataset(GREY, GREY[:, 1:]),
            r"valid of data shape \(1, 3, 4\) .* like train, got \(1, 2, 4\)",
        ),
        (lambda: Dataset(GREY, None, GREY / 255), "test of .*torch.uint8 like train, got .*torch.float32"),
        (
            lambda: Dataset(GREY.astype(int) * 10**6),
            r"whole numbers up to 2\*\*24 = 16,777,216, .*, got 0 to 255000000 in train: .* other units",
        ),
        (
            lambda: Dataset(GREY.astype(np.uint64) + 2**63),
            r"up to 2\*\*24, got 92233720368547760\d\d in train",
        ),
        (lambda: Dataset(GREY.astype(str)), "of whole numbers, bool or float, got <U"),
        (lambda: Dataset(GREY * 1j), "of whole numbers, bool or float, got complex128"),
        (
            lambda: Dataset(torch.from_numpy(GREY) * 1j),
            "of whole numbers, bool or float, got torch.complex64",
        ),
        (
            lambda: Dataset(1.7e9 + GREY[:, 0].astype(float)),
            r"numbers that float32 tells apart, got column 0 of train about 1700000\d+ .*: subtract its mean",
        ),
        (
            lambda: Dataset(GREY / 2, form=Counts()),
            r"for the form Counts, got values from 0 to 127.5, some with",
        ),
        (lambda: Dataset(GREY.astype(int) - 9, form=Counts()), "Counts, got values from -9 to 246: give the"),
        (lambda: Dataset(GREY.astype(int) - 9, form=Levels()), "form Levels, got int32 from -9 to 246 with"),
        (lambda: Dataset(GREY.tolist()), "train as a NumPy array or a tensor, got list: use numpy.asarray"),
        (lambda: Dataset(GREY[0, 0]), r"train of shape .*, got \(4,\): reshape it"),
        (lambda: Dataset(GREY[:, :0]), r"train of shape .*, got \(50, 0, 4\): reshape it"),
        (
            lambda: Dataset(GREY / 1.0, form=Dynamic()),
            r"in \[0, 1\] for the form Dynamic, got \[0, 255\] in train after .* by 1: .*`maximum`",
        ),
        (
            lambda: Dataset(GREY / 255, GREY / -255, form=Static()),
            r"got \[-1, -?0\] in valid .*form AsGiven",
        ),
        (
            lambda: Dataset(GREY / 255, form=Dequantised()),
            r"whole numbers from 0 to a whole maximum for the form Dequantised, got float32 from 0 to 1 with "
            r"a maximum of 1: convert them, as by \(255 \* x\).round\(\).astype\('uint8'\), .* form AsGiven",
        ),
        (
            lambda: Dataset(GREY, form=Dequantised(), maximum=16),
            "got uint8 from 0 to 255 with a maximum of 16:",
        ),
        (lambda: Dataset(GREY, form=Dequantised(), maximum=255.5), "with a maximum of 255.5"),
        (lambda: Dataset(GREY, form=Threshold(), maximum=16), r"got \[0, 15.9375\] .* by 16"),
        (
            lambda: made(form="median"),
            r"form expects one of Dynamic\(\), Static\(\), .*, AsGiven\(\), got 'median'",
        ),
        (lambda: made(seed=-1), r"seed from 0 to 4294967295 .*, got -1"),
        (lambda: made(seed=1.5), r"seed from 0 to 4294967295 .*, got 1.5"),
        (lambda: made(seed=2**32), "got 4294967296: choose another seed"),
        (lambda: made(maximum=0), "expected a positive finite maximum, got 0"),
        (lambda: made(maximum=float("nan")), "expected a positive finite maximum, got nan"),
        (lambda: made(train_labels=np.arange(3)), "expected 30 labels, one per datum of train, got 3"),
        (lambda: Dataset(GREY, test_labels=np.arange(3)), "expected 0 labels, one per datum of test, got 3"),
        (lambda: made(train_labels=np.ones(30)), r"labels of train, got float64 \(30,\): number the classes"),
    ],
)
def test_refusals(call: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_labels_become_int64() -> None:
    data = made(test_labels=torch.arange(12, dtype=torch.int16), train_labels=np.arange(30, dtype=np.uint8))
    assert data.test.labels is not None
    assert data.test.labels.dtype == torch.int64
    assert data.train.labels is not None
    assert data.train.labels.tolist() == list(range(30))
    assert data.valid.labels is None


@pytest.mark.parametrize("divided", ["train", "valid", "test"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_splits_of_two_scales_are_said(divided: str, dtype: str) -> None:
    """One was divided by 255, or binarised, and the others were not; few numbers can be so by chance."""
    grey = np.random.RandomState(0).randint(0, 256, (100, 64)).astype(dtype)
    form = Dynamic() if dtype == "uint8" else None
    arrays = {name: grey > 127 if name == divided else grey for name in ("train", "valid", "test")}
    train, valid, test = (array.astype(dtype) for array in arrays.values())
    other = "train has values up to 1 and valid up to 255" if divided == "train" else f"and {divided} up to 1"
    with pytest.warns(UserWarning, match=other):
        assert Dataset(train, valid, test, form=form, maximum=255).raw.ends == (0, 255)
    assert Dataset(train[:50], valid[:50], test[:50], form=form, maximum=255).raw.ends == (0, 255)


def test_new_data_on_another_scale_than_bytes_are_refused() -> None:
    grey = np.random.RandomState(0).randint(0, 256, (10, 8, 8)).astype("uint8")
    facts = DataFacts.of(Dataset(grey, form=Dynamic()))
    refused = r"up to 255 as in training, got some from 0 to 1 in new.npy: give \(255 \* x\).round"
    with pytest.raises(InputError, match=refused):
        facts.test((grey > 127).astype("float32"), "new.npy")
    assert len(facts.test(grey, "new.npy")) == 10
