"""Bags of words: texts of any length, each given its number of words."""

import math
from itertools import product

import numpy as np
import pyro
import pytest
import torch
from scipy import stats

import pyro_vae as pv
from tests.commands import Run
from tests.components import refused

LOGITS = torch.tensor([[0.3, -1.0, 0.5], [2.0, 0.0, 0.1]])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("length", [0, 1, 4])
def test_the_probabilities_of_all_bags_of_a_length_sum_to_one(length: int) -> None:
    bags = torch.tensor([bag for bag in product(range(length + 1), repeat=3) if sum(bag) == length]).double()
    law = pv.BagOfWords(LOGITS.double()[:, None], 9)
    log_prob = law.log_prob(bags)
    assert log_prob.shape == (2, len(bags))
    assert torch.allclose(log_prob.logsumexp(1), torch.zeros(2).double(), atol=1e-12)
    for row, logits in zip(log_prob, LOGITS.double(), strict=True):
        p = logits.softmax(-1).numpy()
        exact = stats.multinomial(length, p / p.sum()).logpmf(bags.numpy())
        assert row.numpy() == pytest.approx(exact, abs=1e-9)


def test_words_in_their_order_have_no_coefficient() -> None:
    x = torch.tensor([2.0, 0.0, 1.0])
    bag, words = (pv.BagOfWords(LOGITS, 3, ordered=ordered).log_prob(x) for ordered in (False, True))
    assert torch.allclose(words, LOGITS.log_softmax(-1)[:, [0, 0, 2]].sum(-1))
    assert torch.allclose(bag - words, torch.tensor(math.log(3.0)))


def test_draws_have_their_length_and_moments() -> None:
    law = pv.BagOfWords(LOGITS, 50)
    drawn = law.sample((4000,))
    assert drawn.shape == (4000, 2, 3) and bool((drawn.sum(-1) == 50).all())
    assert torch.allclose(drawn.mean(0), law.mean, atol=0.25)
    assert torch.allclose(drawn.var(0), law.variance, rtol=0.1, atol=0.1)
    assert law.expand((5, 2)).sample().shape == (5, 2, 3)


def test_texts_have_their_exact_evidence() -> None:
    """Under a decoder that is linear in z the evidence is an integral in one dimension."""
    random = np.random.RandomState(0)
    texts = np.stack([random.multinomial(random.randint(5, 30), [0.5, 0.3, 0.2]) for _ in range(50)])
    data = pv.Dataset(texts[:40], test=texts[40:]).for_likelihood(pv.MultinomialLikelihood)
    assert data.form.name == "Counts"
    torch.manual_seed(0)
    vae = pv.assemble(data, latent_dim=1, network=pv.MLP(()), likelihood=pv.MultinomialLikelihood).double()
    x = data.test.batch().double()

    def guide(x: torch.Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", vae.prior())

    found = pv.log_evidence(vae.model, guide, x, num_particles=5000)
    grid = torch.linspace(-8, 8, 4001).double()[:, None]
    with torch.no_grad():
        terms = vae.likelihood(grid[:, None]).log_prob(x) + vae.prior().log_prob(grid)[:, None]
    exact = terms.logsumexp(0) + math.log(16 / 4000)
    assert bool(((found.estimate - exact).abs() < 5 * found.standard_error + 1e-6).all())


def test_the_command_line_learns_texts(pyro_vae: Run) -> None:
    random = np.random.RandomState(0)
    np.save("texts.npy", random.poisson(1.0, (100, 8)))
    data = ("--data", "ArrayFile", "--data.path", "texts.npy", "--likelihood", "MultinomialLikelihood")
    status, _, err = pyro_vae(
        "train", *data, "--epochs", 2, "--particles", 5, "--batch_size", 8, "--out", "run"
    )
    assert status == 0, err
    for command in (
        ("evaluate", "run", "--particles", 5),
        ("diagnose", "run", "--num_data", 8),
        ("sample", "run"),
    ):
        status, _, err = pyro_vae(*command)
        assert status == 0, (command, err)


def test_refusals() -> None:
    data = pv.Dataset(np.array([[0.5, 1.0], [2.0, 1.0]]))
    vae = pv.assemble(data, likelihood=pv.MultinomialLikelihood)
    with refused(
        "MultinomialLikelihood expects counts of words, from 0, got 0.5 among .*: put counts into the form"
    ):
        vae.check(data.train.batch())
    with refused("length expects a positive whole number, got 0"):
        pv.MultinomialLikelihood(pv.MLP().decoder(2, (3,)), (3,), length=0)
    holes = pv.Dataset(np.array([[1.0, np.nan], [2.0, 1.0]]), missing=True)
    with refused("MultinomialLikelihood takes no missing entries"):
        pv.assemble(holes, likelihood=pv.MultinomialLikelihood).check(holes.train.batch())
