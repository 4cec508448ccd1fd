"""The likelihood of mixed tables and its encoder, held against loops, closed forms and integrals."""

import math
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

import pyro_vae as pv
from pyro_vae.columns import Columns
from pyro_vae.networks import Network

from .components import refused

NAN = float("nan")

COLUMNS: Columns = (
    pv.Column("city", "category", ("Bonn", "Kiel", "Ulm"), typical=1.0),
    pv.Column("height", "real", location=170.0, scale=9.0, typical=170.0),
    pv.Column("visits", "count", location=1.0, scale=0.7, typical=2.3),
    pv.Column("smokes", "yes_no", ("no", "yes"), location=0.3),
    pv.Column("income", "positive", location=10.0, scale=0.8, typical=math.exp(10.0)),
    pv.Column("error", "heavy_tailed", location=0.1, scale=2.0, typical=0.1),
    pv.Column("sex", "category", ("f", "m"), typical=0.0),
    pv.Column("weight", "real", location=70.0, scale=12.0, typical=70.0),
)
D = len(COLUMNS)
SMALL = pv.MLP((7, 6))


def likelihood(columns: Columns = COLUMNS, **densities: pv.ColumnDensity) -> pv.ColumnsLikelihood:
    """One whose parameters are not those of the start."""
    decoder = SMALL.decoder(3, (len(columns),))
    made: Any = pv.ColumnsLikelihood(decoder, (len(columns),), columns, densities=densities)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            size = 0.03 if name.endswith(".raw") else 0.3  # of a number that is ten times it
            parameter.add_(size * torch.randn_like(parameter))
    return made


def rows(num: int = 6) -> Tensor:
    """Rows of the columns."""
    return torch.stack(
        [
            torch.randint(3, (num,)),
            170 + 9 * torch.randn(num),
            torch.randint(9, (num,)),
            torch.randint(2, (num,)),
            (10 + torch.randn(num)).exp(),
            4 * torch.randn(num),
            torch.randint(2, (num,)),
            70 + 12 * torch.randn(num),
        ],
        -1,
    ).to(torch.get_default_dtype())


def group_of(made: pv.ColumnsLikelihood, name: str) -> tuple[Any, int]:
    """The density of a column, and its place there."""
    place = [column.name for column in made.columns].index(name)
    for number, group in enumerate(made.groups):
        places = getattr(made, f"places_{number}").tolist()
        if place in places:
            return group, places.index(place)
    raise AssertionError(name)


def expected(made: pv.ColumnsLikelihood, name: str, z: Tensor, x: float) -> float:
    """Log p of one entry by scipy, from the numbers of the network."""
    group, i = group_of(made, name)
    features = made.decoder(z).detach()
    column = next(each for each in COLUMNS if each.name == name)

    def of(head: Any) -> float:
        return float(head(features)[i].detach())

    if column.kind in ("real", "heavy_tailed", "positive"):
        log_scale = 6 * math.tanh(float(group.log_scale()[i].detach()) / 6)
        loc, scale = column.location + column.scale * of(group.loc), column.scale * math.exp(log_scale)
        if column.kind == "real":
            return float(stats.norm.logpdf(x, loc, scale))
        if column.kind == "positive":
            return float(stats.lognorm.logpdf(x, scale, scale=math.exp(loc)))
        df = 2 + math.exp(6 * math.tanh(float(group.log_df()[i].detach()) / 6))
        return float(stats.t.logpdf(x, df, loc, scale))
    if column.kind == "count":
        mean = column.typical * math.exp(12 * math.tanh(of(group.log_ratio) / 12))
        theta = math.exp(6 * math.tanh(float(group.log_dispersion()[i].detach()) / 6))
        return float(stats.nbinom.logpmf(x, theta, theta / (theta + mean)))
    if column.kind == "yes_no":
        logit = math.log(column.location / (1 - column.location)) + of(group.logits)
        return float(stats.bernoulli.logpmf(x, 1 / (1 + math.exp(-logit))))
    start = {"city": 0, "sex": 3}[name]
    logits = group.logits(features).detach()[start : start + len(column.classes)]
    return float(logits.log_softmax(0)[int(x)])


def test_log_p_is_the_sum_over_columns_by_scipy(float64: None) -> None:
    made, x = likelihood(), rows()
    x[torch.rand(x.shape) < 0.3] = NAN
    z = torch.randn(2, 6, 3)
    found = made(z).log_prob(x)
    assert found.shape == (2, 6) and made(z).base_dist.log_prob(x).shape == (2, 6, D)
    for k in range(2):
        for b in range(6):
            total = sum(
                expected(made, column.name, z[k, b], float(entry))
                for column, entry in zip(COLUMNS, x[b], strict=True)
                if not entry.isnan()
            )
            assert float(found[k, b].detach()) == pytest.approx(total, abs=1e-9)


def test_leading_axes_equal_a_loop_and_missing_entries_have_no_gradient(float64: None) -> None:
    made, x, z = likelihood(), rows(), torch.randn(2, 6, 3)
    together = made(z).log_prob(x)
    loop = torch.stack([torch.stack([made(g).log_prob(v) for g, v in zip(row, x, strict=True)]) for row in z])
    torch.testing.assert_close(together, loop, rtol=1e-12, atol=1e-12)
    value = torch.full((D,), NAN).requires_grad_()
    log_p = made(z[0, 0]).log_prob(value)
    assert float(log_p.detach()) == 0
    log_p.backward()
    assert all(float(p.grad.abs().sum()) == 0 for p in made.parameters() if p.grad is not None)
    made(z).log_prob(x).sum().backward()
    assert all(float(p.grad.abs().sum()) > 0 for p in made.parameters() if p.grad is not None)


def test_the_jacobian_is_that_of_a_change_of_variables(float64: None) -> None:
    """Another unit adds log |dx'/dx| for each entry, and the network never sees it."""
    made = likelihood()
    factor, shift = 100.0, 7.0
    changed = []
    for column in COLUMNS:
        if column.kind in ("real", "heavy_tailed"):
            numbers = {"location": factor * column.location + shift, "scale": factor * column.scale}
        elif column.kind == "positive":
            numbers = {"location": column.location + math.log(factor)}
        else:
            numbers = {}
        changed.append(pv.Column(**{**vars(column), **numbers}))
    other = likelihood(tuple(changed))
    buffers = {
        name: value for name, value in other.state_dict().items() if "location" in name or "scale" in name
    }
    parameters = {**made.state_dict(), **{k: v for k, v in buffers.items() if "log_scale" not in k}}
    other.load_state_dict(parameters)
    x, z = rows(), torch.randn(6, 3)
    moved = x.clone()
    for place, column in enumerate(COLUMNS):
        if column.kind in ("real", "heavy_tailed"):
            moved[:, place] = factor * x[:, place] + shift
        elif column.kind == "positive":
            moved[:, place] = factor * x[:, place]
    torch.testing.assert_close(
        other(z).log_prob(moved), made(z).log_prob(x) - 4 * math.log(factor), rtol=1e-10, atol=1e-10
    )


def one(column: pv.Column, density: pv.ColumnDensity | None = None) -> Any:
    """The law of one column at one z."""
    made = likelihood((column,), **({column.name: density} if density else {})).requires_grad_(False)
    return made(torch.randn(3))


GRID = torch.linspace(-17, 17, 400_001, dtype=torch.float64).sinh()

DENSITIES: dict[str, tuple[pv.Column, pv.ColumnDensity | None]] = {
    "normal": (COLUMNS[1], None),
    "normal per datum": (COLUMNS[1], pv.NormalColumns(scale="per_datum")),
    "Student's t": (COLUMNS[5], None),
    "Student's t of 3": (COLUMNS[1], pv.StudentTColumns(df=3.0)),
    "log-normal": (COLUMNS[4], None),
}
MASSES: dict[str, tuple[pv.Column, pv.ColumnDensity | None, int]] = {
    "negative binomial": (COLUMNS[2], None, 3000),
    "Poisson": (COLUMNS[2], pv.PoissonColumns(), 200),
    "Bernoulli": (COLUMNS[3], None, 2),
    "categorical": (COLUMNS[0], None, 3),
    "categorical of yes_no": (COLUMNS[3], pv.CategoricalColumns(), 2),
}


@pytest.mark.parametrize("name", DENSITIES)
def test_a_density_integrates_to_one_with_its_moments(name: str, float64: None) -> None:
    column, density = DENSITIES[name]
    px = one(column, density)
    centre, scale = float(px.mean), float(px.variance.sqrt())
    points = centre + scale * GRID
    if column.kind == "positive":
        points = (10 + 0.8 * torch.linspace(-14, 14, 400_001)).exp()
    p = px.log_prob(points[:, None]).exp().detach()
    assert float(torch.trapezoid(p, points)) == pytest.approx(1, abs=1e-6)
    assert float(torch.trapezoid(p * points, points)) == pytest.approx(centre, rel=1e-3)
    assert not px.support.is_discrete
    cdf = torch.cumulative_trapezoid(p, points)

    def below(draws: Any) -> Any:
        return cdf[torch.searchsorted(points[1:], torch.as_tensor(draws)).clamp(max=len(cdf) - 1)].numpy()

    assert stats.kstest(px.sample((4000,))[:, 0].numpy(), below).pvalue > 1e-3
    assert px.base_dist.has_rsample


@pytest.mark.parametrize("name", MASSES)
def test_a_mass_sums_to_one_with_its_moments(name: str, float64: None) -> None:
    column, density, number = MASSES[name]
    px = one(column, density)
    values = torch.arange(float(number))
    p = px.log_prob(values[:, None]).exp().detach()
    assert float(p.sum()) == pytest.approx(1, abs=1e-9)
    mean = float((p * values).sum())
    assert float(px.mean) == pytest.approx(mean, abs=1e-6)
    assert float(px.variance) == pytest.approx(float((p * (values - mean) ** 2).sum()), rel=1e-5)
    assert px.support.is_discrete and not px.base_dist.has_rsample
    draws = px.sample((4000,))[:, 0].long()
    counts, often = torch.bincount(draws, minlength=number)[:number], p > 10 / 4000
    pooled = [torch.cat([each[often], each[~often].sum()[None]]) for each in (counts, p * 4000)]
    some = pooled[1] > 0
    assert (
        stats.chisquare(
            pooled[0][some], pooled[1][some] * pooled[0][some].sum() / pooled[1][some].sum()
        ).pvalue
        > 1e-3
    )


def test_the_whole_is_a_density_where_one_column_has_one() -> None:
    assert not likelihood()(torch.zeros(3)).support.is_discrete
    words = tuple(column for column in COLUMNS if column.kind in ("count", "yes_no", "category"))
    assert likelihood(words)(torch.zeros(3)).support.is_discrete
    assert likelihood().density_in_words == (
        "a density of 4 of 8 columns in their own units, times a probability of the others"
    )
    assert likelihood(COLUMNS[1:2]).density_in_words == "a density of 1 column in its own unit"


def test_extreme_networks_stay_finite() -> None:
    made, x = likelihood(), rows()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(1e4)
    log_p = made(torch.randn(6, 3)).log_prob(x)
    log_p.sum().backward()
    assert bool(log_p.isfinite().all())
    assert all(bool(p.grad.isfinite().all()) for p in made.parameters() if p.grad is not None)


def test_numbers_of_the_training_data_are_in_the_state_dict_and_follow_the_type() -> None:
    state = likelihood().state_dict()
    assert {name.rpartition(".")[2] for name in state} >= {"location", "scale", "typical"}
    made = likelihood().double()
    px = made(torch.randn(6, 3, dtype=torch.float64))
    assert px.sample().dtype == torch.float64
    assert px.log_prob(rows().double()).dtype == torch.float64
    numbers = likelihood(tuple(column for column in COLUMNS if column.kind == "real"))(torch.zeros(3))
    assert numbers.rsample().requires_grad and not numbers.sample().requires_grad
    expanded = likelihood()(torch.zeros(3)).expand((5,))
    assert expanded.log_prob(rows(5)).shape == (5,) and expanded.sample((2,)).shape == (2, 5, D)


def test_a_column_takes_another_density_by_its_name_or_kind() -> None:
    made = likelihood(height=pv.StudentTColumns(df=4.0), count=pv.PoissonColumns())
    assert type(group_of(made, "height")[0]) is pv.StudentTColumns
    assert type(group_of(made, "weight")[0]) is pv.NormalColumns
    assert type(group_of(made, "visits")[0]) is pv.PoissonColumns
    with refused("densities expects names of columns or kinds, got 'hieght': choose among city, height"):
        likelihood(hieght=pv.StudentTColumns())
    with refused("PoissonColumns is a density of count columns, got 'height' of kind real: choose another"):
        likelihood(height=pv.PoissonColumns())
    with refused("densities expects a density for 'height', as StudentTColumns.., got <class"):
        likelihood(height=pv.StudentTColumns)  # type: ignore[arg-type]
    with refused("df expects a positive number, or None for one to be learned, got -1"):
        pv.StudentTColumns(df=-1.0)
    with refused("expected a column for each entry of data of shape .8,., got 2: use a Table"):
        pv.ColumnsLikelihood(SMALL.decoder(3, (D,)), (D,), COLUMNS[:2])


class UniformColumns(pv.ColumnDensity):
    """Uniform within three standard deviations of the training data: of somebody else."""

    takes = ("real",)
    support_in_words = "numbers within three standard deviations"

    def set_up(self, decoder: nn.Module, columns: Columns) -> None:
        self._keep(columns, "location", "scale")
        self.shift = nn.Parameter(torch.zeros(len(columns)))

    def forward(self, features: Tensor) -> Any:
        low = self.location - 3 * self.scale + 0 * self.shift
        return dist.Uniform(low, low + 6 * self.scale).expand((*features.shape[:-1], self.location.numel()))


def test_a_density_of_ones_own() -> None:
    made = likelihood(height=UniformColumns())
    x = rows(2)
    x[0, 1], x[1, 1] = 170.0, NAN
    entries = made(torch.zeros(2, 3)).base_dist.log_prob(x)[:, 1]
    assert entries.tolist() == [pytest.approx(-math.log(54)), 0]
    with refused(
        "ColumnsLikelihood expects numbers within three .* in the column 'height', got 300 in row 0"
    ):
        x[0, 1] = 300.0
        made.check(made(torch.zeros(1, 3)), x)


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (0, 3.0, "codes of its classes in the column 'city', got 3 in row 2"),
        (0, 0.5, "codes of its classes in the column 'city', got 0.5"),
        (2, -1.0, "counts from 0 in the column 'visits', got -1"),
        (3, 2.0, "0 or 1 in the column 'smokes', got 2"),
        (4, 0.0, "positive numbers in the column 'income', got 0"),
        (6, 2.0, "codes of its classes in the column 'sex', got 2"),
    ],
)
def test_an_entry_outside_of_its_column_is_named(place: int, value: float, words: str) -> None:
    made, x = likelihood(), rows()
    made.check(made(torch.zeros(1, 3)), x)
    x[2, place] = value
    with refused(f"ColumnsLikelihood expects {words}"):
        made.check(made(torch.zeros(1, 3)), x)


def seen_by(columns: Columns, **options: Any) -> pv.ColumnsEncoder:
    """An encoder that shows what its network sees."""
    shape = pv.ColumnsEncoder.seen_shape(columns, **options)
    return pv.ColumnsEncoder(Network(nn.Identity(), shape, shape), columns, **options)


def test_an_encoder_sees_each_column_as_its_kind_asks_for() -> None:
    encoder = seen_by(COLUMNS, sees_mask=True)
    x = rows(3)
    x[0, 0], x[1, :5] = 2.0, NAN
    seen = encoder(x)
    numbers = torch.stack(
        [
            (x[:, 1] - 170) / 9,
            (x[:, 2].log1p() - 1) / 0.7,
            x[:, 3],
            (x[:, 4].log() - 10) / 0.8,
            (x[:, 5] - 0.1) / 2,
            (x[:, 7] - 70) / 12,
        ],
        -1,
    )
    torch.testing.assert_close(seen[:, :6], numbers.nan_to_num(0.0))
    vectors: Any = encoder.vectors
    assert vectors is not None and vectors.shape == (5, 3)
    torch.testing.assert_close(seen[0, 6:9], vectors[2])
    torch.testing.assert_close(seen[2, 9:12], vectors[3 + int(x[2, 6])])
    assert seen[1, 6:9].tolist() == [0, 0, 0]
    assert torch.equal(seen[:, 12:], (~x.isnan()).float())
    assert encoder(x.expand(4, 3, D)).shape == (4, 3, 20)
    beside = seen_by(COLUMNS, beside=2)
    assert torch.equal(beside(torch.cat([x, torch.ones(3, 2)], 1))[:, -2:], torch.ones(3, 2))
    with refused(r"expected an encoder of shape \(12,\) for these columns, got \(8,\)"):
        pv.ColumnsEncoder(SMALL.encoder((8,)), COLUMNS)
    with refused(r"the network expects inputs of shape \(8,\), got a tensor of shape \(3, 7\)"):
        seen_by(COLUMNS)(torch.zeros(3, 7))


def table_of(x: Tensor, names: str = "abcdef", **options: Any) -> pv.Table:
    """Three parts of real columns."""
    third = len(x) // 3
    parts = [
        {name: part[:, i].numpy() for i, name in zip(range(x.shape[1]), names, strict=False)}
        for part in x.split([len(x) - 2 * third, third, third])
    ]
    return pv.Table.from_columns(*parts, **options)


class Linear(pv.Architecture):
    """No layers: z and x themselves."""

    def encoder(self, data_shape: Any) -> Network:
        return Network(nn.Identity(), tuple(data_shape), tuple(data_shape))

    def decoder(self, latent_dim: int, data_shape: Any) -> Network:
        return Network(nn.Identity(), (latent_dim,), (latent_dim,))


def linear(x: Tensor) -> tuple[pv.VAE, pv.Table, Tensor, Tensor]:
    """A linear Gaussian model of a table in units of its own, with the exact mean and covariance of x."""
    table = table_of(x)
    vae = pv.assemble(table, latent_dim=2, network=Linear(), posterior=pv.FullNormalPosterior).double()
    group: Any = vae.likelihood.groups[0]
    weight = torch.tensor([[1.2, 0.3], [-0.6, 0.8], [0.5, -0.9]], dtype=torch.float64)
    with torch.no_grad():
        group.loc.layers[1].weight.copy_(weight)
        group.loc.layers[1].bias.copy_(torch.tensor([0.1, -0.2, 0.3]))
        group.log_scale.raw.fill_(-0.05)
    scale, location = group.scale, group.location
    noise = math.exp(2 * 6 * math.tanh(-0.5 / 6))
    covariance = weight @ weight.T + noise * torch.eye(3, dtype=torch.float64)
    mean = location + scale * torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64)
    return vae, table, mean, scale[:, None] * covariance * scale


def some_numbers() -> Tensor:
    generator = torch.Generator().manual_seed(3)
    z = torch.randn(90, 3, generator=generator, dtype=torch.float64)
    mixing = torch.tensor([[1.0, 0.5, 0.0], [0.0, 1.0, -0.7], [0.0, 0.0, 1.0]], dtype=torch.float64)
    return torch.tensor([1000.0, -3.0, 0.02]) + z @ mixing * torch.tensor([50.0, 2.0, 0.001])


def test_log_p_of_a_linear_gaussian_table_is_exact_whatever_is_missing() -> None:
    vae, table, mean, covariance = linear(some_numbers())
    x = table.test.batch()[:12].double()
    x[:4, 0], x[2:6, 1], x[4:8, 2] = NAN, NAN, NAN
    exact = []
    for row in x:
        seen = ~row.isnan()
        law = dist.MultivariateNormal(mean[seen], covariance[seen][:, seen])
        exact.append(float(law.log_prob(row[seen])))
    found = pv.log_evidence(vae.model, lambda x: vae_prior_guide(vae, x), x, num_particles=40_000)
    assert np.allclose(found.estimate.numpy(), exact, atol=0.1)


def vae_prior_guide(vae: pv.VAE, x: Tensor) -> None:
    import pyro

    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(torch.zeros(2, dtype=x.dtype), 1.0).expand((len(x), 2)).to_event(1))


def test_imputation_of_a_linear_gaussian_table_is_the_conditional_mean() -> None:
    vae, table, mean, covariance = linear(some_numbers())
    x = table.test.batch()[:6].double()
    x[:, 2] = NAN
    guide = lambda x: vae_prior_guide(vae, x)  # noqa: E731
    found = pv.impute(vae.model, guide, x, num_particles=40_000)
    gain = covariance[2:, :2] @ torch.linalg.inv(covariance[:2, :2])
    exact = mean[2] + (x[:, :2] - mean[:2]) @ gain[0]
    left = float((covariance[2, 2] - gain[0] @ covariance[:2, 2]).sqrt())
    assert float(((found.mean[:, 2] - exact) / left).abs().max()) < 0.1
    assert np.allclose(found.standard_deviation[:, 2].numpy(), left, rtol=0.1)


def test_a_table_without_dependence_is_fitted_to_its_closed_form() -> None:
    """Columns that depend on nothing: log p(x) is the sum of the marginals' maximum likelihood."""
    generator = np.random.RandomState(0)
    a, b = generator.normal(50.0, 4.0, 300), generator.randint(0, 2, 300)
    table = pv.Table.from_columns({"a": a, "b": np.where(b == 1, "yes", "no")})
    vae = pv.assemble(table, latent_dim=1, network=pv.MLP((4,)))
    pv.fit(
        vae, table, epochs=40, batch_size=40, optimiser=lambda p: torch.optim.Adam(p, lr=2e-2), keep="last"
    )
    x = table.train.batch()
    share = float(x[:, 1].mean())
    best = (
        stats.norm.logpdf(x[:, 0].numpy(), float(x[:, 0].mean()), float(x[:, 0].std(correction=0))).mean()
        + share * math.log(share)
        + (1 - share) * math.log(1 - share)
    )
    found = pv.log_evidence(vae.model, vae.guide, x, num_particles=200).estimate.mean()
    assert float(found) == pytest.approx(best, abs=0.05)
