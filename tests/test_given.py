"""What is given beside x, from the data to training and reports."""

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import pyro_vae as pv
from pyro_vae.data import DataFacts, Dataset, Split, batches
from tests.commands import Run

COUNTS = np.random.RandomState(0).poisson(2.0, (40, 3)).astype(np.float32)
EXPOSURE = np.random.RandomState(1).uniform(0.5, 2.0, 40).astype(np.float32)
LABEL = np.arange(40) % 4


def counts(**options: Any) -> Dataset:
    parts = {"train": slice(0, 30), "valid": slice(30, 35), "test": slice(35, 40)}
    fields: dict[str, dict[str, Any]] = {
        name: {"exposure": EXPOSURE[rows], "label": LABEL[rows]} for name, rows in parts.items()
    }
    return Dataset(*(COUNTS[rows] for rows in parts.values()), fields=fields, **options)


def test_fields_are_handed_to_programs_but_labels_only_where_they_are_named() -> None:
    data = counts()
    assert data.given == ("exposure",)
    batch = data.train.take(torch.tensor([3, 0]))
    assert batch.x.tolist() == COUNTS[[3, 0]].tolist()
    assert {name: each.tolist() for name, each in batch.given.items()} == {
        "exposure": EXPOSURE[[3, 0]].tolist()
    }
    both = data.giving("label", "exposure")
    assert both.test.take(slice(0, 2)).given["label"].tolist() == [3, 0]
    assert data.given == ("exposure",) and data.test.labels is not None
    assert counts(given=()).train.take().given == {}
    assert data.all.take().given["exposure"].tolist() == EXPOSURE.tolist()
    assert len(data.train.subset(7).take().given["exposure"]) == 7


def test_a_hash_is_that_of_x_and_of_what_is_given() -> None:
    alone, labelled = Dataset(COUNTS), Dataset(COUNTS, train_labels=LABEL)
    assert alone.train.hash() == labelled.train.hash() == Split(torch.as_tensor(COUNTS)).hash()
    other = {"train": {"label": LABEL[::-1].copy()}}
    hashes = {
        labelled.giving("label").train.hash(),
        Dataset(COUNTS, fields=other).giving("label").train.hash(),
    }
    assert len(hashes | {alone.train.hash()}) == 3
    assert (
        counts().giving("label", "exposure").train.hash() == counts().giving("exposure", "label").train.hash()
    )


def test_a_split_without_data_has_empty_fields() -> None:
    data = Dataset(COUNTS, None, COUNTS, fields={name: {"w": EXPOSURE} for name in ("train", "test")})
    assert data.valid.fields["w"].shape == (0,)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"fields": {"train": {"w": EXPOSURE[:3]}}},
            r"'w' for each of 40 data of train, got shape \(3,\): take",
        ),
        ({"fields": {"train": {"x": EXPOSURE}}}, "can have beside x, got 'x': rename it"),
        ({"fields": {"train": {"a b": EXPOSURE}}}, "got 'a b': rename it"),
        ({"fields": {"w": EXPOSURE}}, "for each of train, valid and test, got 'w': give fields="),
        (
            {"fields": {"train": {"w": EXPOSURE * np.nan}}},
            "finite numbers in the field 'w' of train, got NaN",
        ),
        ({"fields": {"train": {"w": EXPOSURE.astype(str)}}}, "'w' of train as numbers .*, got <U"),
        ({"fields": {"train": {"w": [1.0] * 40}}}, "as a NumPy array or a tensor, got list: use"),
        (
            {"train_labels": LABEL, "fields": {"train": {"label": LABEL}}},
            "labels of train once, got train_lab",
        ),
        ({"given": ("label",)}, "got 'label' for data with none: choose among these, or give the field"),
        ({"given": "label", "train_labels": LABEL}, r"got the text 'label': give \('label',\)"),
        (
            {"test": COUNTS, "train_labels": LABEL, "given": ("label",)},
            "the field 'label' in test, too, since programs get it, got none: give it, or leave it out",
        ),
        (
            {"test": COUNTS, "fields": {"train": {"w": EXPOSURE}, "test": {"w": LABEL}}},
            "'w' in one form, got .*float32 in train, .*int64 in test",
        ),
    ],
)
def test_fields_that_cannot_be_used(options: dict[str, Any], text: str) -> None:
    with pytest.raises(pv.InputError, match=text) as caught:
        Dataset(COUNTS, **options)
    assert "\n" not in str(caught.value)


def test_fields_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, train=COUNTS, train_label=LABEL, train_exposure=EXPOSURE)
    data = pv.ArrayFile(path)  # split by the seed
    assert data.given == ("exposure",) and data.sizes == (32, 4, 4)
    of = {tuple(row): (float(e), int(k)) for row, e, k in zip(COUNTS.tolist(), EXPOSURE, LABEL, strict=True)}
    for split in (data.train, data.valid, data.test):
        assert split.labels is not None
        beside = zip(split.fields["exposure"].tolist(), split.labels.tolist(), strict=True)
        assert all(
            each in [(float(e), int(k)) for e, k in zip(EXPOSURE, LABEL, strict=True)] for each in beside
        )
    assert len(of) > 20
    given = pv.ArrayFile(path, given=("label",))
    assert list(given.test.take().given) == ["label"]
    np.savez(path, train=COUNTS, train_label=LABEL, train_labels=LABEL)
    with pytest.raises(pv.InputError, match=r"once in .*a\.npz, got train_label and train_labels"):
        pv.ArrayFile(path)


def test_facts_keep_what_a_model_must_know_of_fields() -> None:
    facts = DataFacts.from_plain(DataFacts.of(counts().giving("label")).plain())
    assert facts.given == ("label",)
    assert facts.field_kinds["label"].classes == 4 and facts.field_kinds["exposure"] == ((), None)
    part = facts.test(COUNTS[:2], "new.npz", {"label": LABEL[:2]})
    assert part.take().given["label"].tolist() == [0, 1]
    with pytest.raises(pv.InputError, match="'label' as in training, classes 0 to 3, got classes 0 to 7"):
        facts.test(COUNTS[:2], "new.npz", {"label": np.array([7, 0])})
    old = {name: each for name, each in facts.plain().items() if name not in ("field_kinds", "given")}
    assert DataFacts.from_plain(old).given == ()


# x is the sum of what is given and a latent: with weight w in the guide, log p(x) = N(x; shift · slope, 2)


def model(x: Tensor, shift: Tensor) -> None:
    slope = pyro.param("slope", torch.tensor(0.5, dtype=x.dtype))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
        pyro.sample("x", dist.Normal(z + slope * shift, 1.0), obs=x)


def guide(x: Tensor, shift: Tensor) -> None:
    slope = pyro.param("slope", torch.tensor(0.5, dtype=x.dtype))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal((x - slope * shift) / 2, math.sqrt(0.5)))


def shifted(num: int = 200) -> pv.Batch:
    generator = torch.Generator().manual_seed(3)
    shift = torch.randn(num, generator=generator, dtype=torch.float64)
    noise = torch.randn(num, generator=generator, dtype=torch.float64)
    return pv.Batch(3 * shift + math.sqrt(2) * noise, {"shift": shift})


@pytest.mark.parametrize("compile", ["off", "flat"])
def test_a_program_of_two_inputs_is_trained_as_by_a_plain_loop(compile: Literal["off", "flat"]) -> None:
    data = shifted()
    pv.fit((model, guide), data, epochs=3, batch_size=64, compile=compile, keep="last")
    fitted = pyro.param("slope").clone()

    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    optimiser = pyro.optim.Adam({"lr": 1e-3})
    svi = pyro.infer.SVI(model, guide, optimiser, pyro.infer.Trace_ELBO())
    for epoch in (1, 2, 3):
        for index in batches(Split(torch.arange(200)[:, None]), 64, seed=0, epoch=epoch):
            rows = index[:, 0].long()
            svi.step(data.x[rows], shift=data.given["shift"][rows])
    torch.testing.assert_close(fitted, pyro.param("slope"), rtol=0, atol=0)


def test_a_fit_and_the_evidence_of_two_inputs_agree_with_the_closed_form() -> None:
    data = shifted(400)
    pv.fit((model, guide), data, epochs=400, batch_size=400, optimiser=adam_of(0.02), keep="last")
    x, shift = data.x, data.given["shift"]
    best = (x * shift).sum() / shift.square().sum()
    assert float(pyro.param("slope").detach()) == pytest.approx(float(best), abs=0.05)
    exact = dist.Normal(pyro.param("slope").detach() * shift, math.sqrt(2.0)).log_prob(x)
    found = pv.log_evidence(model, guide, x, given={"shift": shift}, num_particles=3)
    torch.testing.assert_close(found.estimate, exact)


def adam_of(rate: float) -> Any:
    return lambda parameters: torch.optim.Adam(parameters, lr=rate)


def test_constants_of_a_batch_reach_the_programs_and_the_hash() -> None:
    def scaled(x: Tensor, scale: float) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(pyro.param("m", torch.zeros(())), scale), obs=x)

    def empty(x: Tensor, scale: float) -> None:
        seen.append(scale)

    seen: list[float] = []
    pv.fit((scaled, empty), pv.Batch(torch.randn(20), {"scale": 2.0}), epochs=1, batch_size=10, compile="off")
    assert set(seen) == {2.0}
    from pyro_vae.training.data import splits_of

    hashes = [splits_of(pv.Batch(torch.ones(3), {"scale": each})).train.hash() for each in (1.0, 2.0)]
    assert hashes[0] != hashes[1]


@pytest.mark.parametrize("compile", ["off", "flat"])
def test_a_training_with_what_is_given_is_resumed_to_the_last_bit(
    tmp_path: Path, compile: Literal["off", "flat"]
) -> None:
    data = shifted()
    options: dict[str, Any] = {"batch_size": 64, "compile": compile, "keep": "last"}
    pv.fit((model, guide), data, epochs=4, **options)
    once = pyro.param("slope").clone()
    pyro.clear_param_store()
    pv.fit((model, guide), data, epochs=2, checkpoints=tmp_path, **options)
    pyro.clear_param_store()
    pv.fit((model, guide), data, epochs=4, checkpoints=tmp_path, resume=True, **options)
    assert torch.equal(once, pyro.param("slope"))
    other = pv.Batch(data.x, {"shift": -data.given["shift"]})
    with pytest.raises(pv.InputError, match="training data"):
        pv.fit((model, guide), other, epochs=5, checkpoints=tmp_path, resume=True, **options)


def test_fields_that_are_not_given_change_nothing() -> None:
    found = []
    for data in (counts(given=()), Dataset(COUNTS[:30], COUNTS[30:35], COUNTS[35:])):
        pyro.set_rng_seed(0)
        vae = pv.assemble(data, latent_dim=2, network=pv.MLP((5,)), likelihood=pv.PoissonLikelihood)
        pv.fit(vae, data, steps=30, batch_size=10, keep="last")
        found.append([parameter.detach().clone() for parameter in vae.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize(
    ("programs", "data", "text"),
    [
        (
            (model, guide),
            torch.ones(20),
            r"the guide takes \(x: .*, got x alone: missing a required argument: 'shift'; give Batch",
        ),
        (
            (model, guide),
            pv.Batch(torch.ones(20), {"shift": torch.ones(20), "label": torch.ones(20)}),
            r"x and given \['label', 'shift'\]: got an unexpected keyword argument 'label'; give Batch",
        ),
        ((model, lambda x: None), shifted(), r"the guide takes \(x\), got x and given \['shift'\]"),
    ],
)
def test_what_programs_do_not_take_or_miss_is_said_before_training(
    programs: Any, data: Any, text: str
) -> None:
    started: list[bool] = []
    with pytest.raises(pv.InputError, match=text) as caught:
        pv.fit(programs, data, epochs=1, on_start=lambda: started.append(True))
    assert "\n" not in str(caught.value) and not started


class Shifted(pv.JointProgram):
    """p(x) = N(x; m + slope · exposure, 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = torch.nn.Parameter(torch.zeros(3))

    def model(self, x: Tensor, exposure: Tensor) -> None:  # type: ignore[override]
        self.register(self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z + exposure[..., None] * self.slope, 1.0).to_event(1), obs=x)

    def guide(self, x: Tensor, exposure: Tensor) -> None:  # type: ignore[override]
        self.register(self)
        with pyro.plate("data", len(x)):
            loc = (x - exposure[..., None] * self.slope) / 2
            pyro.sample("z", dist.Normal(loc, math.sqrt(0.5)).to_event(1))


def test_a_program_of_two_inputs_is_evaluated_and_diagnosed_on_fields() -> None:
    vae, data = Shifted(), counts()
    pv.fit(vae, data, epochs=2, batch_size=10)
    found = pv.evaluate(vae, data, split="all", particles=20)
    loc = torch.as_tensor(EXPOSURE)[:, None] * vae.slope.detach()
    exact = dist.Normal(loc, math.sqrt(2.0)).to_event(1).log_prob(torch.as_tensor(COUNTS))
    np.testing.assert_allclose(found.per_datum["log_evidence"], exact.numpy(), rtol=1e-4)
    assert found.content["given"] == ["exposure"] and "given          exposure" in str(found)
    annealed = pv.evaluate(vae, data, method="annealed", chains=2, temperatures=5, simulated=6)
    assert annealed.content["log_evidence"]["certificate"]["num_data"] == 6


def test_a_run_on_a_file_of_fields_is_scored_on_another(pyro_vae: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PROGRAM)
    np.savez(
        tmp_path / "a.npz",
        train=COUNTS[:30],
        train_exposure=EXPOSURE[:30],
        test=COUNTS[30:],
        test_exposure=EXPOSURE[30:],
    )
    options = (
        "--data",
        "ArrayFile",
        "--data.path",
        "a.npz",
        "--program",
        "mine.Shifted",
        "--epochs",
        1,
        "--batch_size",
        10,
    )
    status, out, err = pyro_vae("train", *options, "--particles", 10, "--out", "run")
    assert status == 0, err
    assert "exposure" in out
    assert pyro_vae("evaluate", "run", "--particles", 10)[0] == 0
    np.savez(tmp_path / "new.npz", x=COUNTS[:5], exposure=EXPOSURE[:5])
    status, out, err = pyro_vae("score", "run", "new.npz", "--particles", 10)
    assert status == 0 and len(out.splitlines()) == 6, err
    np.save(tmp_path / "new.npy", COUNTS[:5])
    status, _, err = pyro_vae("score", "run", "new.npy")
    assert status == 2 and "expected an .npz file with exposure beside the data, got new.npy" in err


PROGRAM = """
import math, torch, pyro, pyro.distributions as dist, pyro_vae as pv

class Shifted(pv.JointProgram):
    def __init__(self):
        super().__init__()
        self.slope = torch.nn.Parameter(torch.zeros(3))

    def model(self, x, exposure):
        self.register(self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z + exposure[..., None] * self.slope, 1.0).to_event(1), obs=x)

    def guide(self, x, exposure):
        self.register(self)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((x - exposure[..., None] * self.slope) / 2, 0.7).to_event(1))
"""
