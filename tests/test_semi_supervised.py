"""Labels that were seen for some data only: the data, the model M2, its numbers and the commands."""

import json
import math
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO, TraceEnum_ELBO
from torch import Tensor

import pyro_vae as pv
from experiments.records import finished
from experiments.semi_supervised import run as experiment
from experiments.semi_supervised.report import sections, summary
from pyro_vae.data import DataFacts
from pyro_vae.objectives import PenalisedELBO, penalised
from tests.commands import Run
from tests.committed import assert_committed

DIGITS = pv.Digits().with_labels(50)
SMALL = pv.MLP((6,))
Batch = pv.Batch


def digits_vae(**options: Any) -> pv.SemiSupervisedVAE:
    return pv.assemble(DIGITS, program=pv.SemiSupervisedVAE, latent_dim=2, network=SMALL, **options)


def clusters(num_labels: int | None = 12) -> pv.Dataset:
    """Three classes in four dimensions, each normal with one factor."""
    random = np.random.RandomState(0)
    label = np.arange(420) % 3
    means, direction = 3 * random.randn(3, 4), random.randn(4)
    x = means[label] + random.randn(420, 1) * direction + 0.5 * random.randn(420, 4)
    data = pv.Dataset(
        x[:300],
        x[300:360],
        x[360:],
        train_labels=label[:300],
        valid_labels=label[300:360],
        test_labels=label[360:],
    )
    return data.with_labels(num_labels)


def linear_gaussian(data: pv.Dataset, **options: Any) -> pv.SemiSupervisedVAE:
    return pv.assemble(
        data,
        program=partial(pv.SemiSupervisedVAE, **options),
        latent_dim=1,
        network=pv.MLP(()),
        likelihood=partial(pv.NormalLikelihood, scale=0.5),
        posterior=pv.FullNormalPosterior,
    )


@torch.no_grad()
def exact_joint(vae: pv.SemiSupervisedVAE, x: Tensor) -> Tensor:
    """Log p(x, y) of a linear-Gaussian model, in closed form: (B, C)."""
    found = []
    for y, log_py in enumerate(vae.label_logits().log_softmax(0)):
        zero, label = torch.zeros(1, 1, dtype=x.dtype), torch.tensor([y])
        loc = vae.likelihood(zero, label=label).mean[0]
        slope = vae.likelihood(zero + 1, label=label).mean[0] - loc
        cov = torch.outer(slope, slope) + 0.25 * torch.eye(len(loc), dtype=x.dtype)
        found.append(dist.MultivariateNormal(loc, cov).log_prob(x) + log_py)
    return torch.stack(found, 1)


@torch.no_grad()
def quadrature_joint(vae: pv.SemiSupervisedVAE, x: Tensor, points: int = 2001) -> Tensor:
    """Log p(x, y) with one latent dimension, by the trapezoidal rule: (B, C)."""
    z = torch.linspace(-9, 9, points)
    step, found = z[1] - z[0], []
    for y, log_py in enumerate(vae.label_logits().log_softmax(0)):
        label = torch.full((points,), y)
        px = vae.likelihood(z[:, None], label=label)
        prior = vae.prior(label=label) if vae.prior.conditions else vae.prior()
        log_pz = prior.log_prob(z[:, None])
        each = [(px.log_prob(one) + log_pz).logsumexp(0) + step.log() + log_py for one in x]
        found.append(torch.stack(each))
    return torch.stack(found, 1)


def labels_of(data: pv.Dataset) -> Tensor:
    """Those of the training data."""
    assert data.train.labels is not None
    return data.train.labels


def test_labels_are_kept_balanced_by_the_seed_and_fewer_are_some_of_more() -> None:
    whole = pv.Digits()
    few, more = whole.with_labels(53, seed=1), whole.with_labels(100, seed=1)
    every, labels = labels_of(whole), labels_of(few)
    kept = labels >= 0
    assert sorted(labels[kept].bincount().tolist()) == [5] * 7 + [6] * 3
    assert torch.equal(labels[kept], every[kept])
    assert torch.equal(labels, labels_of(whole.with_labels(53, seed=1)))
    assert not torch.equal(labels, labels_of(whole.with_labels(53, seed=2)))
    assert ((labels_of(more) >= 0) | ~kept).all()
    assert torch.equal(labels_of(whole.with_labels()), every)
    for split in ("valid", "test"):
        assert torch.equal(getattr(few, split).labels, getattr(whole, split).labels)
    assert (few.train.given, few.valid.given, few.test.given, few.given) == (("label",), (), (), ())
    assert few.test.hash() == whole.test.hash() and few.train.hash() != whole.train.hash()
    assert few.all.take(slice(0, 2)).given == {}
    assert whole.giving("label").with_labels(50).test.given == ()


def test_labels_of_ones_own_are_unseen_where_they_are_minus_one(tmp_path: Path) -> None:
    x, label = np.eye(6, dtype=np.float32), np.array([0, -1, 2, -1, 1, 2])
    np.savez(tmp_path / "a.npz", train=x, train_label=label, test=x[:2], test_label=label[[0, 2]])
    data = pv.ArrayFile(tmp_path / "a.npz").with_labels()
    assert data.field_kinds["label"].classes == 3
    assert data.train.take().given["label"].tolist() == label.tolist()
    fewer = data.with_labels(3).train.labels
    assert fewer is not None and sorted(fewer.tolist()) == [-1, -1, -1, 0, 1, 2] and fewer[0] == 0
    facts = DataFacts.from_plain(DataFacts.of(data).plain())
    assert (facts.given, facts.given_in_training) == ((), ("label",))


@pytest.mark.parametrize("compile", ["off", "flat"])
@pytest.mark.parametrize("learned", [False, True])
def test_a_step_is_that_of_a_loop_over_data_and_labels(
    float64: None, compile: Literal["off", "flat"], learned: bool
) -> None:
    """One step of gradient descent by `fit`, and the same loss written out, number by number."""
    data = clusters()
    rows = [0, 1, 2, 30, 31, 32, 33]
    labels = torch.tensor([2, -1, -1, 0, -1, 1, -1])
    x = data.train.batch()[rows].double()
    program = partial(pv.SemiSupervisedVAE, alpha=0.3, label_prior="learned" if learned else (0.5, 0.2, 0.3))
    prior = pv.ConditionalNormalPrior if learned else pv.StandardNormalPrior
    vae = pv.assemble(
        data, program=program, network=SMALL, latent_dim=2, likelihood=pv.NormalLikelihood, prior=prior
    )
    nudge(vae)
    torch.manual_seed(5)
    noise = torch.normal(torch.zeros(3, len(x), 2), torch.ones(3, len(x), 2))  # as z is drawn
    elbo, penalty = loop(vae, x, labels, noise)
    (-elbo + 0.3 * 300 / 12 * penalty).backward()
    expected_elbo = float(elbo.detach()) / 7
    expected = {name: p.detach() - 1e-3 * p.grad for name, p in vae.named_parameters() if p.grad is not None}
    assert set(expected) == {name for name, p in vae.named_parameters()}
    vae.zero_grad()
    sgd = partial(torch.optim.SGD, lr=1e-3)
    batch = Batch(x, {"label": labels})
    history = pv.fit(vae, batch, steps=1, batch_size=7, optimiser=sgd, compile=compile, seed=5, keep="last")
    assert history.epochs[0].train_elbo == pytest.approx(expected_elbo, rel=1e-12)  # without the penalty
    for name, parameter in vae.named_parameters():
        torch.testing.assert_close(parameter.detach(), expected[name], rtol=1e-11, atol=1e-13)


def nudge(vae: pv.SemiSupervisedVAE, scale: float = 0.3) -> None:
    """Move parameters off their start, where some gradients are 0."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.add_(scale * torch.randn_like(parameter))


def loop(vae: pv.SemiSupervisedVAE, x: Tensor, labels: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """The ELBO and the loss of the classifier, summed over data, one datum and one label at a time."""
    log_py = vae.label_logits() - vae.label_logits().logsumexp(0)
    elbo, penalty = torch.zeros(()), torch.zeros(())
    for b, label in enumerate(labels.tolist()):
        one = x[b : b + 1]
        logits = vae.classifier.logits(vae.classifier.encoder(one))[0]
        q = logits.exp() / logits.exp().sum()
        for draw in range(3):
            y = draw if label < 0 else label
            given = {"label": torch.tensor([y])}
            qz = vae.posterior(one, **given).base_dist
            z = qz.loc + qz.scale * noise[draw, b]
            log_qz = normal(z, qz.loc, qz.scale)
            pz = vae.prior(**(given if vae.prior.conditions else {})).base_dist
            px = vae.likelihood(z, **given).base_dist
            joint = log_py[y] + normal(z, pz.loc, pz.scale) + normal(one, px.loc, px.scale)
            term = q[y] * (joint - log_qz - q[y].log()) if label < 0 else (joint - log_qz) / 3
            elbo = elbo + term
        if label >= 0:
            penalty = penalty - q[label].log()
    return elbo, penalty


def normal(value: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    return (-((value - loc) ** 2) / (2 * scale**2) - torch.log(scale * math.sqrt(2 * math.pi))).sum()


@pytest.mark.parametrize("prior", [pv.ConditionalNormalPrior, pv.StandardNormalPrior])
def test_evidence_with_and_without_labels_is_that_of_quadrature(float64: None, prior: type[pv.Prior]) -> None:
    data = clusters()
    x = (data.test.batch()[:5] > 0).double()
    label = torch.tensor([0, -1, 2, 1, -1])
    vae = pv.assemble(
        data,
        program=partial(pv.SemiSupervisedVAE, label_prior="learned"),
        latent_dim=1,
        network=SMALL,
        prior=prior,
    )
    nudge(vae)
    joint = quadrature_joint(vae, x)
    alone = pv.log_evidence(vae.model, vae.guide, x, num_particles=3000)
    assert_near(alone.estimate, joint.logsumexp(1), alone.standard_error)
    mixed = pv.log_evidence(vae.model, vae.guide, x, given={"label": label}, num_particles=3000)
    exact = torch.where(label >= 0, joint.gather(1, label.clamp(min=0)[:, None])[:, 0], joint.logsumexp(1))
    assert_near(mixed.estimate, exact, mixed.standard_error)
    found = pv.label_posterior(vae.model, vae.guide, x, 3, num_particles=2000)
    assert_near(found.log_joint, joint, found.standard_error)
    torch.testing.assert_close(found.probabilities, joint.softmax(1), atol=0.03, rtol=0)
    bound = pv.elbo(vae.model, vae.guide, x, num_particles=2000, given={"label": label}).elbo
    assert (bound < exact).all()


def assert_near(found: Tensor, exact: Tensor, error: Tensor) -> None:
    assert ((found - exact).abs() <= 5 * error + 1e-3).all()


@pytest.fixture(scope="module")
def trained() -> tuple[pv.SemiSupervisedVAE, pv.Dataset]:
    """A linear-Gaussian model, near the best, of twelve labels."""
    pyro.set_rng_seed(0)
    data = clusters()
    vae = linear_gaussian(data, label_prior="learned", alpha=1.0)
    adam = partial(torch.optim.Adam, lr=1e-2)
    pv.fit(vae, data, epochs=40, batch_size=50, optimiser=adam, keep="last", compile="off")
    return vae.double(), data


def test_a_trained_model_knows_the_classes_and_its_evidence_is_exact(
    trained: tuple[pv.SemiSupervisedVAE, pv.Dataset],
) -> None:
    vae, data = trained
    x, label = data.test.batch().double(), data.test.labels
    assert label is not None
    joint = exact_joint(vae, x)
    found = pv.log_evidence(vae.model, vae.guide, x, num_particles=500)
    assert_near(found.estimate, joint.logsumexp(1), found.standard_error)
    posterior = pv.label_posterior(vae.model, vae.guide, x, 3, num_particles=500)
    torch.testing.assert_close(posterior.probabilities, joint.softmax(1), atol=0.02, rtol=0)
    for probabilities in (vae.classify(x), posterior.probabilities):
        assert pv.reliability(probabilities, label).accuracy > 0.95
    with torch.no_grad():
        same = dist.MultivariateNormal(torch.zeros(4), torch.eye(4)).log_prob(data.test.batch()).mean()
    assert float(joint.logsumexp(1).mean()) > float(same) + 2


def test_annealing_simulated_data_and_the_account_of_nats_agree_with_the_closed_form(
    trained: tuple[pv.SemiSupervisedVAE, pv.Dataset],
) -> None:
    vae, data = trained
    x, label = data.test.batch().double()[:8], torch.tensor([0, 1, -1, 0, 1, 2, -1, 1])
    joint = exact_joint(vae, x)
    exact = torch.where(label >= 0, joint.gather(1, label.clamp(min=0)[:, None])[:, 0], joint.logsumexp(1))
    options: dict[str, Any] = {"num_chains": 8, "num_temperatures": 5, "start": "guide"}
    found = pv.annealed_log_evidence(vae.model, vae.guide, x, given={"label": label}, **options)
    assert ((found.estimate - exact).abs() <= 5 * found.standard_error + 0.05).all()
    like = Batch(x, {"label": label.clamp(min=0)})
    slower = {**options, "num_temperatures": 30}
    assert abs(pv.bidirectional_gap(vae.model, vae.guide, 8, like=like, **slower).mean) < 0.3
    with pytest.raises(pv.InputError, match="densities that do not depend on the model's argument"):
        pv.bidirectional_gap(vae.model, vae.guide, 8, like=Batch(x, {"label": label}), num_temperatures=1)
    nats = pv.diagnose(vae.model, vae.guide, x, num_steps=3, num_particles=200)
    assert nats.log_evidence.mean == pytest.approx(float(joint.logsumexp(1).mean()), abs=0.1)


def test_particles_sum_out_labels_alike() -> None:
    """With many draws at once the loss is the mean of that of one draw."""
    vae, batch = digits_vae(), DIGITS.train.take(slice(0, 40))
    losses = [
        penalised(Trace_ELBO, *vae.penalty())(
            num_particles=num, max_plate_nesting=1, vectorize_particles=num > 1
        ).loss(vae.model, vae.guide, batch.x, **batch.given)
        for num in (1, 300)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_the_objective_is_the_elbo_by_enumeration_and_the_loss_of_the_classifier() -> None:
    vae = digits_vae()
    for chosen in (Trace_ELBO, TraceEnum_ELBO, partial(TraceEnum_ELBO)):
        made = penalised(chosen, *vae.penalty())(max_plate_nesting=1)
        assert isinstance(made, PenalisedELBO) and made.weight == pytest.approx(0.1 * 1297 / 50)
    assert type(penalised(Trace_ELBO, *no_penalty().penalty())()) is TraceEnum_ELBO
    batch = DIGITS.train.take(slice(0, 100))
    svi = SVI(vae.model, vae.guide, pv.FusedAdam({"lr": 1e-2}), made)
    losses = [svi.step(batch.x, **batch.given) for _ in range(30)]
    assert losses[-1] < losses[0]


def no_penalty() -> pv.SemiSupervisedVAE:
    program = partial(pv.SemiSupervisedVAE, alpha=0.0)
    return pv.assemble(DIGITS, program=program, latent_dim=2, network=SMALL)


def test_draws_codes_and_reconstructions() -> None:
    vae, x = digits_vae(), DIGITS.test.batch()[:5]
    assert vae.sample(4).shape == vae.sample(4, given={"label": torch.tensor([1, 2, 3, 4])}).shape
    nudge(vae)
    with torch.no_grad():
        threes = vae.likelihood(torch.zeros(3000, 2), label=torch.full((3000,), 3))
        assert torch.allclose(
            vae.sample(3000, mean=True, given={"label": 3}).mean(0), threes.mean[0], atol=0.2
        )
    label = torch.tensor([3, -1, 0, -1, 9])
    assert vae.reconstruct(x).shape == vae.reconstruct(x, label).shape == x.shape
    mean, scale = vae.codes(x, label)
    for b in range(5):
        y = label[b] if label[b] >= 0 else vae.classifier(x[b : b + 1]).sample((20_000,))[:, 0]
        y = y.expand(20_000) if y.ndim == 0 else y
        draws = vae.posterior(x[b : b + 1].expand(20_000, -1, -1, -1), label=y).sample()
        torch.testing.assert_close(mean[b], draws.mean(0), atol=0.1, rtol=0.05)
        torch.testing.assert_close(scale[b], draws.std(0), atol=0.1, rtol=0.05)
    assert torch.equal(vae.encode(x), vae.codes(x)[0])
    assert vae.decode(torch.zeros(2, 5, 2), label.clamp(min=0)).shape == (2, 5, 1, 8, 8)


def test_a_convolutional_network_and_a_flow_see_enumerated_labels() -> None:
    network = pv.Convolutional((3, 4), hidden_dim=10)
    for posterior in (pv.DiagonalNormalPosterior, pv.FlowPosterior):
        vae = pv.assemble(
            DIGITS, program=pv.SemiSupervisedVAE, network=network, latent_dim=2, posterior=posterior
        )
        pv.fit(vae, DIGITS, steps=2, batch_size=20, compile="off")
        assert pv.log_evidence(vae.model, vae.guide, DIGITS.test.batch()[:2], num_particles=3).mean < -20


def test_a_training_is_resumed_to_the_last_bit(tmp_path: Path) -> None:
    options: dict[str, Any] = {"batch_size": 433, "keep": "last"}

    def begun() -> pv.SemiSupervisedVAE:
        torch.manual_seed(0)
        return digits_vae()

    once, twice = begun(), begun()
    pv.fit(once, DIGITS, epochs=2, **options)
    pv.fit(twice, DIGITS, epochs=1, checkpoints=tmp_path, **options)
    history = pv.fit(twice, DIGITS, epochs=2, checkpoints=tmp_path, resume=True, **options)
    assert all(map(torch.equal, once.state_dict().values(), twice.state_dict().values()))
    # validation data come without labels: log p(x) is bounded
    valid = DIGITS.valid.batch()
    terms = pv.elbo(twice.model, twice.guide, valid, num_particles=200)
    assert history.epochs[-1].valid_elbo == pytest.approx(float(terms.elbo.mean()), abs=0.1)
    other = pv.Digits().with_labels(50, seed=3)
    with pytest.raises(pv.InputError, match="training data"):
        pv.fit(twice, other, epochs=3, checkpoints=tmp_path, resume=True, **options)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: pv.Digits().with_labels(5),
            "a label of each of 10 classes at least, got 5 labels: keep more",
        ),
        (
            lambda: pv.Digits().with_labels(1297),
            r"expected 1\d\d training labels of class \d, as many of each, got 1\d\d: keep fewer than 1297",
        ),
        (lambda: pv.Dataset(np.ones((4, 2))).with_labels(2), "training data with labels, got none: use data"),
        (
            lambda: pv.assemble(pv.Digits(), program=pv.SemiSupervisedVAE),
            r"got Digits of which programs get none: say how many they get, as data.with_labels\(100\)",
        ),
        (
            lambda: pv.assemble(pv.Digits().giving("label"), program=pv.SemiSupervisedVAE),
            r"in training only, got Digits that gives them of all data: use data.with_labels\(\)",
        ),
        (
            lambda: pv.assemble(pv.Dataset(np.ones((4, 2))), program=pv.SemiSupervisedVAE),
            "needs data with labels for some, got Dataset without: give train_labels, -1 where",
        ),
        (lambda: digits_vae(condition="age"), "got condition 'age': leave it out"),
        (lambda: digits_vae(prior=pv.VampPrior), "VampPrior takes a q.* of x alone, got one that depends"),
        (
            lambda: pv.assemble(DIGITS, program=pv.SemiSupervisedVAE, latent_dim=(2, 1)),
            r"has one layer of z, got latent_dim \[2, 1\]: give one number",
        ),
        (
            lambda: pv.assemble(DIGITS, program=partial(pv.SemiSupervisedVAE, label_prior=(0.5, 0.5))),
            r"label_prior expects 10 positive probabilities that sum to 1, got \[0.5, 0.5\]: give one for",
        ),
        (
            lambda: pv.assemble(DIGITS, program=partial(pv.SemiSupervisedVAE, alpha=-1.0)),
            "alpha expects a number that is not negative, got -1.0: 0.1 is the paper's",
        ),
        (
            lambda: pv.fit(digits_vae(), DIGITS, epochs=1, objective=pv.ImportanceWeightedELBO),
            "with labels summed out, got the objective ImportanceWeightedELBO: leave it out, or choose Trace",
        ),
        (
            lambda: pv.fit(digits_vae(), DIGITS.giving("label"), epochs=1),
            r"that without labels, got data that give them: use data.with_labels\(...\)",
        ),
        (
            lambda: pv.evaluate(digits_vae(), DIGITS.giving("label"), num_data=10, particles=5),
            r"log p\(x, y\) is pv.log_evidence\(vae.model, vae.guide, x, given=\{'label': y\}\)",
        ),
        (
            lambda: pv.fit(digits_vae(), Batch(torch.ones(3, 1, 8, 8), {"label": torch.tensor([0, 10, -1])})),
            r"from 0 to 9 or -1 where it was not seen, got -1 to 10 of torch.int64 \(3,\): number",
        ),
        (lambda: digits_vae().sample(2, given={"label": -1}), "from 0 to 9, got -1 to -1"),
        (
            lambda: digits_vae().sample(2, given={"age": 1}),
            "depends on label where it is known beside x, got age",
        ),
        (
            lambda: digits_vae().decode(torch.zeros(1, 2)),
            r"decodes z with a label, got none: give decode\(z, label",
        ),
        (
            lambda: pv.fit(
                pv.assemble(pv.Digits(), condition="label"), pv.Digits().with_labels(50).giving("label")
            ),
            "got -1 to 9 of torch.int64: number the classes as in training, or choose SemiSupervisedVAE",
        ),
        (
            lambda: pv.fit(pv.assemble(pv.Digits()), DIGITS, epochs=1),
            "VAE depends on nothing beside x, got label: leave it out, .*, or program=SemiSupervisedVAE",
        ),
        (
            lambda: pv.SemiSupervisedVAE(
                pv.StandardNormalPrior(2),
                pv.BernoulliLikelihood(SMALL.decoder(2, (4,)), (4,)),
                pv.DiagonalNormalPosterior(SMALL.encoder((4,)), 2),
                pv.Classifier(SMALL.encoder((4,)), 3),
            ),
            "has no attribute latent_dim: set self.latent_dim in its constructor",
        ),
        (
            lambda: pv.label_posterior(
                *programs(), Batch(torch.ones(2, 1, 8, 8), {"label": torch.zeros(2)}), 10
            ),
            "expected data without label, got some with: leave it out",
        ),
        (
            lambda: pv.reliability(torch.ones(2, 2), torch.tensor([0, 1])),
            "rows of probabilities that sum to 1",
        ),
        (
            lambda: pv.reliability(torch.ones(2, 2) / 2, torch.tensor([0, -1])),
            r"labels \(int64\) from 0 to 1, got -1 to 0 of torch.int64: leave out data whose label",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(call: Any, text: str) -> None:
    with pytest.raises(pv.InputError, match=text) as caught:
        call()
    assert "\n" not in str(caught.value)


def programs() -> tuple[Any, Any]:
    vae = digits_vae()
    return vae.model, vae.guide


def test_reliability_of_known_answers() -> None:
    p = torch.tensor([[0.8, 0.2]] * 4 + [[0.4, 0.6], [0.0, 1.0]], dtype=torch.float64)
    found = pv.reliability(p, torch.tensor([0, 0, 0, 1, 0, 1]), bins=10)
    assert found.counts.tolist() == [0] * 5 + [1, 0, 4, 0, 1]
    assert found.accuracy == pytest.approx(4 / 6)
    gaps = 4 / 6 * abs(0.75 - 0.8) + 1 / 6 * 0.6
    assert found.expected_calibration_error == pytest.approx(gaps, abs=1e-6)
    assert found.maximum_calibration_error == pytest.approx(0.6, abs=1e-6)
    log = -(3 * math.log(0.8) + math.log(0.2) + math.log(0.4)) / 6
    assert found.negative_log_likelihood == pytest.approx(log, abs=1e-6)
    brier = (3 * 2 * 0.04 + 2 * 0.64 + 2 * 0.36) / 6
    assert found.brier_score == pytest.approx(brier, abs=1e-6)
    assert found.content()["bins"]["accuracies"][:6] == [None] * 5 + [0.0]


def test_a_conditional_vae_is_a_bayes_classifier_by_the_prior_of_its_label() -> None:
    """p(y|x) ∝ p(y) p(x|y), where programs have p(x|y)."""

    def model(x: Tensor, label: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(2.0 * label, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor, label: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((x + 2.0 * label) / 2, math.sqrt(0.5)))

    x, prior = torch.tensor([-0.5, 0.7, 2.0]), torch.tensor([0.7, 0.3])
    exact = dist.Normal(torch.tensor([0.0, 2.0]), math.sqrt(2)).log_prob(x[:, None]) + prior.log()
    found = pv.label_posterior(model, guide, x, 2, num_particles=3, label_prior=prior.tolist())
    torch.testing.assert_close(found.log_joint.float(), exact, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.probabilities.float(), exact.softmax(1), atol=1e-5, rtol=0)
    assert "p(y|x) of 3 data over 2 classes by 3 importance samples" in repr(found)


def test_the_commands(pyro_vae: Run, tmp_path: Path) -> None:
    small = ("--latent_dim", 2, "--network.hidden_dims", "[10]", "--particles", 20, "--num_data", 20)
    options = ("--program", "SemiSupervisedVAE", "--program.alpha", 0.5, *small, "--batch_size", 433)
    status, out, err = pyro_vae("train", *options, "--num_labelled", 50, "--epochs", 1, "--out", "run")
    assert status == 0, err
    assert "by q(y|x)" in out and "expected calibration error" in out and "given" not in out
    opened = pv.load(tmp_path / "run")
    vae = opened.vae
    assert isinstance(vae, pv.SemiSupervisedVAE) and vae.alpha == 0.5
    assert float(vae.labelled_share) == pytest.approx(50 / 1297)
    assert opened.data().given_in_training == ("label",)
    found = pv.evaluate(opened, num_data=20, particles=20)
    assert opened.summary is not None
    assert found.content["classification"] == opened.summary["classification"]
    for command in ("reconstruct", "scatter"):
        assert pyro_vae(command, "run", "--num", 10)[0] == 0
    assert pyro_vae("sample", "run", "--given.label", 3, "--num", 4, "--out", "three.png")[0] == 0
    status, _, err = pyro_vae("sample", "run", "--given.label", 30)
    assert status == 2 and "from 0 to 9, got 30 to 30" in err
    for command, words in (
        ("traverse", "with what the model depends on, label"),
        ("export", "depends on label"),
    ):
        status, _, err = pyro_vae(command, "run")
        assert status == 2 and words in err
    assert pyro_vae("traverse", "run", "--num", 2, "--given.label", 3)[0] == 0
    np.savez("new.npz", x=pv.Digits().test.values[:5].numpy())
    for command in ("score", "encode"):
        status, out, err = pyro_vae(command, "run", "new.npz")
        assert status == 0 and len(out.splitlines()) == 6, err
    status, _, err = pyro_vae("train", *options, "--out", "other")
    assert status == 2 and "(--num_labelled 100)" in err
    assert not (tmp_path / "other").exists()


def test_the_experiment_goes_on_where_it_stopped(tmp_path: Path) -> None:
    out, options = tmp_path / "out", ["--smoke", "--runs", str(tmp_path / "runs")]
    assert experiment.main([*options, "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == {"models.jsonl", "summary.json", "reliability.png"}
    kept = out / "models.jsonl"
    lines = kept.read_text().splitlines()
    kept.write_text(lines[0] + "\n")
    assert experiment.main([*options, "--out", str(out)]) == 0
    before, after = (json.loads(each) for each in (lines[1], kept.read_text().splitlines()[1]))
    for record in (before, after):
        record["seconds"] = record["training_seconds"] = 0
    assert before == after


@pytest.mark.skipif(not (experiment.HERE / "results").exists(), reason="the experiment is not finished")
def test_the_experiment_shows_its_committed_results() -> None:
    records = finished(experiment.HERE / "results" / "models.jsonl")
    assert_committed(experiment.HERE, sections(records), summary(records))
