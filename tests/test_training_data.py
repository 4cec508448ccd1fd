"""What `fit` takes as data, and the one line said about anything else."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import pyro_vae as pv
from tests.components import refused

X = (torch.arange(120.0).reshape(30, 4) % 7 > 3).float()


def small() -> pv.VAE:
    torch.manual_seed(0)
    return pv.assemble(pv.Dataset(X), latent_dim=2, network=pv.MLP((4,)))


def fitted(data: Any) -> list[float]:
    vae = small()
    pv.fit(vae, data, epochs=2, batch_size=10)
    return [float(parameter.detach().sum()) for parameter in vae.parameters()]


@pytest.mark.parametrize(
    "array",
    [X.numpy(), X.double().numpy(), X.numpy().astype(int), X.numpy() > 0.5, X.flip(0).numpy()[::-1]],
    ids=["float32", "float64", "int64", "bool", "reversed"],
)
def test_arrays_are_taken_as_tensors(array: Any) -> None:
    assert fitted(array) == fitted(X)


def test_a_read_only_array_is_never_written_to(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", X.numpy())

    def model(x: Tensor) -> None:
        x.mul_(1.0)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(pyro.param("loc", torch.zeros(4)), 1.0).to_event(1), obs=x)

    pv.fit((model, lambda x: None), np.load(tmp_path / "a.npy", mmap_mode="r"), epochs=1, batch_size=30)


class Pairs(torch.utils.data.Dataset[Any]):
    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index >= len(X):
            raise IndexError
        return X[index], index


class Alone(Pairs):
    def __getitem__(self, index: int) -> Any:
        return super().__getitem__(index)[0]


class Arrays(Pairs):
    def __getitem__(self, index: int) -> Any:
        return np.asarray(super().__getitem__(index)[0]), 0


class Stream(torch.utils.data.IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(X)


class Frame:
    """As pandas has them."""

    def to_numpy(self) -> Any:
        return X.numpy()


REMEDIES: dict[str, tuple[Any, str]] = {
    "DataLoader of pairs": (
        DataLoader(Pairs(), batch_size=5),
        "torch.stack([x for x, *_ in data.dataset])",
    ),
    "DataLoader of tensors": (DataLoader(Alone(), batch_size=5), "torch.stack(list(data.dataset))"),
    "DataLoader of a stream": (DataLoader(Stream(), batch_size=5), "torch.stack(list(data.dataset))"),
    "TensorDataset": (TensorDataset(X, X), "data.tensors[0]"),
    "DataLoader of a TensorDataset": (DataLoader(TensorDataset(X)), "data.dataset.tensors[0]"),
    "data set of pairs": (Pairs(), "torch.stack([x for x, *_ in data])"),
    "data set of arrays": (Arrays(), "torch.stack([torch.as_tensor(x) for x, *_ in data])"),
    "list of numbers": (X.tolist(), "torch.as_tensor(data)"),
    "list of tensors": (list(X), "torch.stack(data)"),
    "list of arrays": (list(X.numpy()), "numpy.stack(data)"),
    "frame": (Frame(), "data.to_numpy()"),
    "split": (pv.Dataset(X).train, "data.values"),
}


#: Those that can be read item by item.
AS_ITEMS = [
    "DataLoader of pairs",
    "DataLoader of tensors",
    "TensorDataset",
    "DataLoader of a TensorDataset",
    "data set of pairs",
    "data set of arrays",
]


@pytest.mark.parametrize("case", REMEDIES)
def test_a_remedy_is_named_that_works(case: str) -> None:
    data, remedy = REMEDIES[case]
    text = (
        "fit expects data as a Dataset, or as a tensor or an array (N, *data_shape), got "
        f"{type(data).__name__}: give {remedy}"
    )
    items = case in AS_ITEMS
    text += ", or TorchData(data)" if items else ""
    with refused(f"^{re.escape(text)}$"):
        pv.fit(small(), data)
    assert fitted(eval(remedy, {"torch": torch, "numpy": np, "data": data})) == fitted(X)
    if items:
        assert fitted(pv.TorchData(getattr(data, "dataset", data))) == fitted(X)
        assert pv.TorchData(data).sizes == (30, 0, 0)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("a/x.npy", "got str: give ArrayFile('a/x.npy')"),
        (Path("a/x.npz"), "got PosixPath: give ArrayFile('a/x.npz')"),
        (Path("/"), "got PosixPath: give ImageFolder('/')"),
        ("digits", "got str: give ArrayFile('digits') for a file .npy or .npz, or ImageFolder('digits')"),
        ((X, X), "got tuple: give Dataset(*data) for train, valid and test"),
        ({"x": X}, "got dict: give one of its arrays"),
        ([], "got list: give data"),
        (None, "got NoneType: give data"),
        (pv.Digits, "got type: give an instance, as Digits()"),
        (nn.Linear(2, 2), "got Linear: give data"),
        (np.array(["a", "b"]), "got ndarray of <U1: give numbers"),
        (np.array([X.numpy(), None], dtype=object), "got ndarray of object: give numbers"),
    ],
)
def test_what_else_is_no_data_is_said_in_one_line(data: Any, text: str) -> None:
    whole = f"fit expects data as a Dataset, or as a tensor or an array (N, *data_shape), {text}"
    with refused(f"^{re.escape(whole)}$"):
        pv.fit(small(), data)


def normed() -> pv.VAE:
    vae = small()
    vae.posterior.encoder.layers.append(nn.BatchNorm1d(4))
    return vae


@pytest.mark.parametrize(("number", "size", "works"), [(30, 29, 28), (21, 5, 6), (21, 20, 19), (3, 2, 3)])
def test_a_last_batch_of_one_for_batch_norm_is_refused_before_training(
    number: int, size: int, works: int
) -> None:
    with refused(
        f"^BatchNorm1d needs two data or more, but the last of the batches of {size} from {number} has one: "
        f"give batch_size={works}$"
    ):
        pv.fit(normed(), X[:number], batch_size=size)
    history = pv.fit(normed(), X[:number], batch_size=works, epochs=2)
    assert history.epochs[-1].step == 2 * -(-number // works)


def test_a_single_datum_for_batch_norm_is_refused() -> None:
    with refused("from 1 has one: give more data$"):
        pv.fit(normed(), X[:1], batch_size=1)


def test_a_last_batch_of_one_that_is_never_reached_is_no_matter() -> None:
    pv.fit(normed(), X[:21], batch_size=20, steps=1)
    pv.fit(small(), X[:21], batch_size=20, epochs=1)


def test_data_far_from_unit_scale_are_warned_of_once_before_training() -> None:
    torch.manual_seed(0)
    x = 2e4 * torch.randn(2500, 4) + 1e5
    vae = pv.assemble(pv.Dataset(x), latent_dim=2, network=pv.MLP((4,)), likelihood=pv.NormalLikelihood)
    with pytest.warns(UserWarning) as met:
        pv.fit(vae, pv.Dataset(x, x[:1200], x[:1200]), batch_size=2500, steps=1)
    low, high = (f"{float(end):.6g}" for end in (x.min(), x.max()))
    assert [str(one.message) for one in met] == [
        f"NormalLikelihood starts about 0 with a scale of 1, got values from {low} to {high}, which it "
        "learns slowly or not at all: standardise them, with data.in_form(pv.Standardised()) or --data.form "
        "Standardised; nats stay in the data's units"
    ]
    pv.fit(vae, (x - x.mean(0)) / x.std(0), batch_size=2500, steps=1)


def test_data_of_which_a_part_lies_close_together_are_not_warned_of() -> None:
    x = torch.randn(2500, 4)
    x[:1000] = 0.5
    vae = pv.assemble(pv.Dataset(x), latent_dim=2, network=pv.MLP((4,)), likelihood=pv.NormalLikelihood)
    pv.fit(vae, x, batch_size=2500, steps=1)


def test_counts_far_from_one_are_warned_of_before_training() -> None:
    x = torch.tensor([[1e6, 2e6], [3e6, 1.5e6], [2e6, 2e6]])
    vae = pv.assemble(pv.Dataset(x), latent_dim=2, network=pv.MLP((4,)), likelihood=pv.PoissonLikelihood)
    text = (
        r"^training begins at an ELBO of -\d.*e\+\d+ nats per datum, on values from 1e\+06 to 3e\+06: bring "
        r"the data to about unit scale, as by \(x - x.mean\(0\)\) / x.std\(0\), or choose a likelihood for "
        r"their range$"
    )
    with pytest.warns(UserWarning, match=text):
        pv.fit(vae, x, batch_size=3, steps=1)
