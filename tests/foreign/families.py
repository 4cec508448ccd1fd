"""Latent variables and observations from other families than the normal; hierarchies."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from scipy import special, stats

from ._common import (
    F64,
    Case,
    LinearGaussian,
    gauss,
    near,
    near_elbo,
    program,
    quad,
    quad_moments,
    randn,
    regress,
    upright,
)


def t64(a):
    return torch.as_tensor(np.asarray(a), dtype=F64)


@program
def gamma_poisson():
    """A Gamma rate for each row of counts; x.sum(1) and x.size(1) in the exact guide."""
    a, b = 2.0, 1.5
    x = torch.tensor([[0, 2, 1], [4, 3, 6], [1, 0, 0], [2, 2, 3], [5, 1, 2]], dtype=F64)
    n, s = x.shape[1], x.sum(1)
    lp = a * math.log(b) - math.lgamma(a) + special.gammaln(a + s.numpy())
    lp = t64(lp) - (a + s) * math.log(b + n) - t64(special.gammaln(x.numpy() + 1)).sum(1)

    def model(x):
        with pyro.plate("data", x.shape[0]):
            rate = pyro.sample("rate", dist.Gamma(x.new_tensor(a), x.new_tensor(b)))
            pyro.sample("x", dist.Poisson(rate.unsqueeze(1).expand(-1, x.shape[1])).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", x.shape[0]):
            pyro.sample("rate", dist.Gamma(a + x.sum(1), x.new_tensor(b + x.size(1))))

    return Case(model, guide, x, log_px=lp, elbo=lp, exact_guide=True)


@program
def beta_coins():
    """Fairness of each coin from its flips, Beta prior; alpha and beta of the guide as parameters."""
    x = torch.tensor([[1, 0, 1, 1], [0, 0, 0, 1], [1, 1, 1, 1], [0, 1, 0, 1]], dtype=F64)
    h = x.sum(1).numpy()
    lp = t64(special.betaln(2 + h, 3 + 4 - h) - special.betaln(2, 3))

    def model(x):
        with pyro.plate("coins", len(x)):
            f = pyro.sample("latent_fairness", dist.Beta(x.new_tensor(2.0), x.new_tensor(3.0)))
            pyro.sample("flips", dist.Bernoulli(f[:, None]).expand([len(x), 4]).to_event(1), obs=x)

    def guide(x):
        alpha_q = pyro.param("alpha_q", torch.tensor(2.4, dtype=F64), constraint=dist.constraints.positive)
        beta_q = pyro.param("beta_q", torch.tensor(2.8, dtype=F64), constraint=dist.constraints.positive)
        with pyro.plate("coins", len(x)):
            heads = x.sum(-1)
            pyro.sample("latent_fairness", dist.Beta(alpha_q + heads, beta_q + 4 - heads))

    # E_q log p(x, f) - log q, all by digamma
    aq, bq = 2.4 + h, 2.8 + 4 - h
    ef = special.digamma(aq) - special.digamma(aq + bq)
    eg = special.digamma(bq) - special.digamma(aq + bq)
    el = (1 + h) * ef + (2 + 4 - h) * eg - special.betaln(2, 3)
    el = el - ((aq - 1) * ef + (bq - 1) * eg - special.betaln(aq, bq))
    return Case(model, guide, x, log_px=lp, elbo=t64(el), trainable=True)


@program
def dirichlet_counts():
    """Dirichlet proportions and a Multinomial of six; exact guide Dirichlet(alpha + x)."""
    alpha = torch.tensor([0.8, 1.5, 2.0], dtype=F64)
    x = torch.tensor([[1, 2, 3], [6, 0, 0], [0, 4, 2], [2, 2, 2], [3, 0, 3]], dtype=F64)
    lp = t64(stats.dirichlet_multinomial.logpmf(x.numpy().astype(int), alpha.numpy(), 6))

    def model(x):
        with pyro.plate("data", x.shape[0]):
            theta = pyro.sample("theta", dist.Dirichlet(alpha))
            pyro.sample("x", dist.Multinomial(6, probs=theta), obs=x)

    def guide(x):
        conc = pyro.param("conc", alpha, constraint=dist.constraints.positive)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("theta", dist.Dirichlet(conc + x))

    return Case(model, guide, x, log_px=lp, elbo=lp, exact_guide=True, trainable=True)


@program
def lognormal_size_factor():
    """LogNormal size factor times a profile given to Poisson; integer data."""
    profile = torch.tensor([1.0, 3.0, 0.5], dtype=F64)

    def decode(z):
        return (0.3 + 0.6 * z).exp() * profile

    def loglik(xn, rate):
        xn = xn.to(F64)
        return (xn * rate.log() - rate - torch.lgamma(xn + 1)).sum(-1)

    x = torch.poisson(decode(randn(5, 1))).long()
    m, s = quad_moments(1, decode, loglik, x)
    feats = torch.log1p(x.sum(1, keepdim=True).to(F64))
    enc = regress(feats, 0.3 + 0.6 * m, 0.6 * s.mean(0) * 1.1)

    def model(x):
        pi = pyro.param("profile", profile, constraint=dist.constraints.positive)
        with pyro.plate("cells", x.shape[0]):
            size = pyro.sample("size", dist.LogNormal(torch.tensor(0.3, dtype=F64), 0.6))
            pyro.sample("counts", dist.Poisson(size[..., None] * pi).to_event(1), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        loc, scale = enc(torch.log1p(x.sum(1, keepdim=True).to(F64)))
        with pyro.plate("cells", x.shape[0]):
            pyro.sample("size", dist.LogNormal(loc.squeeze(1), scale.squeeze(1)))

    return Case(model, guide, x, log_px=quad(1, decode, loglik, x), trainable=True)


@program
def normal_gamma_hierarchy():
    """tau ~ Gamma, mu | tau ~ Normal, both exact in the guide; the marginal is a Student t."""
    a0, b0, k0, n = 3.0, 2.0, 0.5, 4
    x = 0.8 * randn(5, n) + randn(5, 1)
    kn, an = k0 + n, a0 + n / 2
    xb = x.mean(1)
    bn = b0 + 0.5 * ((x - xb[:, None]) ** 2).sum(1) + k0 * n * xb**2 / (2 * kn)
    lp = math.lgamma(an) - math.lgamma(a0) + a0 * math.log(b0) - an * bn.log()
    lp = lp + 0.5 * math.log(k0 / kn) - n / 2 * math.log(2 * math.pi)

    def model(x):
        with pyro.plate("data", len(x)):
            tau = pyro.sample("tau", dist.Gamma(x.new_tensor(a0), x.new_tensor(b0)))
            mu = pyro.sample("mu", dist.Normal(x.new_tensor(0.0), (k0 * tau).rsqrt()))
            pyro.sample(
                "x",
                dist.Normal(mu.unsqueeze(-1), tau.rsqrt().unsqueeze(-1)).expand([len(x), n]).to_event(1),
                obs=x,
            )

    def guide(x):
        xb = x.mean(1)
        bn = b0 + 0.5 * ((x - xb.unsqueeze(1)) ** 2).sum(1) + k0 * n * xb**2 / (2 * kn)
        with pyro.plate("data", len(x)):
            tau = pyro.sample("tau", dist.Gamma(x.new_tensor(an), bn))
            pyro.sample("mu", dist.Normal(n * xb / kn, (kn * tau).rsqrt()))

    return Case(model, guide, x, log_px=lp, elbo=lp, exact_guide=True)


@program
def inverse_gamma_variance():
    """A variance for each datum, InverseGamma; x = N(0, v.sqrt())."""
    a, b, n = 3.0, 2.0, 3
    x = randn(6, n)
    lp = t64([stats.multivariate_t.logpdf(r, np.zeros(n), np.eye(n) * b / a, df=2 * a) for r in x.numpy()])

    def model(x):
        with pyro.plate("data", x.size(0)):
            v = pyro.sample("v", dist.InverseGamma(x.new_tensor(a), x.new_tensor(b)))
            sd = v.sqrt()[:, None].expand(x.size(0), n)
            pyro.sample("x", dist.Normal(torch.zeros_like(sd), sd).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", x.size(0)):
            pyro.sample("v", dist.InverseGamma(x.new_tensor(a + n / 2), b + 0.5 * x.pow(2).sum(1)))

    return Case(model, guide, x, log_px=lp, elbo=lp, exact_guide=True)


@program
def two_level_hierarchy():
    """z2 ~ p(z2), z1 ~ p(z1 | z2), x | z1; the guide goes upwards, z1 first and then z2 given z1."""
    up, dec = upright(2, 2, 0.8), upright(2, 4)
    W, b = up.weight.detach(), up.bias.detach()
    P1 = W @ W.T + 0.25 * torch.eye(2, dtype=F64)
    lg = LinearGaussian(dec.weight, dec.bias, 0.49, m0=b, P0=P1)
    x = lg.simulate(5)
    enc = near(lg, 0.05, 1.1)
    back = LinearGaussian(W, b, 0.25)  # z2 | z1
    chol = torch.linalg.cholesky(back.cov)

    def model(x):
        pyro.module("up", up)
        pyro.module("dec", dec)
        with pyro.plate("data", x.shape[0]):
            z2 = pyro.sample("z2", dist.Normal(x.new_zeros(x.shape[0], 2), 1.0).to_event(1))
            z1 = pyro.sample("z1", dist.Normal(up(z2), 0.5).to_event(1))
            pyro.sample("x", dist.Normal(dec(z1), 0.7).to_event(1), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data", x.shape[0]):
            z1 = pyro.sample("z1", dist.Normal(*enc(x)).to_event(1))
            pyro.sample("z2", dist.MultivariateNormal(back.mean(z1), scale_tril=chol))

    # z2 is exact given z1, so only the bottom level costs anything
    return Case(model, guide, x, log_px=lg.log_px(x), elbo=near_elbo(lg, enc, x), trainable=True)


@program
def top_down_hierarchy():
    """The same hierarchy with skips, cat([z1, z2], 1); the guide goes down, z2 and then z1 given z2."""
    up, dec = upright(1, 2, 0.8), upright(3, 4, 0.8)
    W, b = up.weight.detach(), up.bias.detach()
    # joint prior of (z1, z2)
    F = torch.cat(
        [
            torch.cat([0.6 * torch.eye(2, dtype=F64), W], 1),
            torch.tensor([[0.0, 0.0, 1.0]], dtype=F64),
        ]
    )
    m0 = torch.cat([b, torch.zeros(1, dtype=F64)])
    lg = LinearGaussian(dec.weight, dec.bias, 0.49, m0=m0, P0=F @ F.T)
    x = lg.simulate(4)
    s22 = lg.cov[2, 2]
    slope = lg.cov[:2, 2] / s22
    rest = torch.linalg.cholesky(lg.cov[:2, :2] - s22 * torch.outer(slope, slope))

    def model(x):
        pyro.module("up", up)
        pyro.module("dec", dec)
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(x.new_zeros(len(x), 1), 1.0).to_event(1))
            z1 = pyro.sample("z1", dist.Normal(up(z2), 0.6).to_event(1))
            pyro.sample("x", dist.Normal(dec(torch.cat([z1, z2], 1)), 0.7).to_event(1), obs=x)

    def guide(x):
        m = lg.mean(x)
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(m[:, 2:], s22.sqrt()).to_event(1))
            loc = m[:, :2] + (z2 - m[:, 2:]) * slope
            pyro.sample("z1", dist.MultivariateNormal(loc, scale_tril=rest))

    lp = lg.log_px(x)
    return Case(model, guide, x, log_px=lp, elbo=lp, exact_guide=True, trainable=True)


@program
def logit_normal_transformed():
    """TransformedDistribution([AffineTransform, SigmoidTransform]) as prior and as guide."""

    def decode(z):
        return torch.sigmoid(0.3 + 1.2 * z)

    def loglik(xn, p):
        return (xn * p.log() + (1 - xn) * (1 - p).log()).sum(-1)

    x = torch.tensor([[1, 0, 1, 1], [0, 0, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0], [0, 1, 0, 1]], dtype=F64)
    m, s = quad_moments(1, decode, loglik, x)
    enc = regress(x, 0.3 + 1.2 * m, 1.2 * s.mean(0) * 1.05)
    T = dist.transforms

    def model(x):
        with pyro.plate("data", len(x)):
            base = dist.Normal(x.new_zeros(len(x)), 1.0)
            prior = dist.TransformedDistribution(base, [T.AffineTransform(0.3, 1.2), T.SigmoidTransform()])
            p = pyro.sample("p", prior)
            pyro.sample("x", dist.Bernoulli(p.unsqueeze(1)).expand([len(x), 4]).to_event(1), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        loc, scale = enc(x)
        with pyro.plate("data", len(x)):
            q = dist.TransformedDistribution(dist.Normal(loc[:, 0], scale[:, 0]), T.SigmoidTransform())
            pyro.sample("p", q)

    return Case(model, guide, x, log_px=quad(1, decode, loglik, x), trainable=True)


@program
def full_and_low_rank_covariances():
    """MultivariateNormal(scale_tril) prior, LowRankMultivariateNormal likelihood, joint guide."""
    tril = torch.tensor([[1.0, 0.0], [0.6, 0.7]], dtype=F64)
    W, fac = 0.8 * randn(4, 2), 0.5 * randn(4, 1)
    diag = torch.tensor([0.3, 0.5, 0.4, 0.6], dtype=F64)
    lg = LinearGaussian(W, torch.zeros(4, dtype=F64), fac @ fac.T + torch.diag(diag), P0=tril @ tril.T)
    x = lg.simulate(5)

    def model(x):
        L = pyro.param("L", tril, constraint=dist.constraints.lower_cholesky)
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.MultivariateNormal(torch.zeros(2, dtype=F64), scale_tril=L))
            mean = torch.matmul(z, W.T)
            pyro.sample("x", dist.LowRankMultivariateNormal(mean, fac, diag), obs=x)

    cov = 1.15 * lg.cov

    def guide(x):
        gain = pyro.param("gain", lg.K)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("z", dist.MultivariateNormal(x @ gain.T, covariance_matrix=cov))

    return Case(model, guide, x, log_px=lg.log_px(x), elbo=lg.elbo(x, lg.mean(x), cov), trainable=True)


@program
def von_mises_angle():
    """An angle, and its noisy cosine and sine; the posterior is von Mises again."""
    k, s = 1.5, 0.8
    ang = torch.tensor([0.3, -1.2, 2.5, 0.9, -0.4], dtype=F64)
    x = torch.stack([ang.cos(), ang.sin()], 1) + s * randn(5, 2)

    def natural(x):
        return torch.stack([k + x[:, 0] / s**2, x[:, 1] / s**2], 1)

    eta = natural(x).norm(dim=1).numpy()
    lp = np.log(special.ive(0, eta)) + eta - np.log(special.ive(0, k)) - k
    lp = t64(lp) - 0.5 * ((x**2).sum(1) + 1) / s**2 - math.log(2 * math.pi * s**2)

    def model(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("angle", dist.VonMises(x.new_tensor(0.0), x.new_tensor(k)))
            pyro.sample("x", dist.Normal(torch.stack([a.cos(), a.sin()], -1), s).to_event(1), obs=x)

    def guide(x):
        eta = natural(x)
        with pyro.plate("data", len(x)):
            pyro.sample("angle", dist.VonMises(torch.atan2(eta[:, 1], eta[:, 0]), eta.norm(dim=1)))

    # exact to 1e-8 only: torch's Bessel function is a polynomial
    return Case(model, guide, x, log_px=lp, elbo=lp, exact_guide=True)


@program
def uniform_latent():
    """Uniform(0, 1) latent on a bounded support, a curve of it, and a Beta guide."""
    t = torch.linspace(0, 1, 3, dtype=F64)
    n = 4001
    u = ((torch.arange(n, dtype=F64) + 0.5) / n)[:, None]

    def curve(u):
        return torch.sin(2.0 * (u + t))

    x = curve(torch.rand(5, 1, dtype=F64)) + 0.5 * randn(5, 3)
    ll = gauss(x[:, None], curve(u), 0.5).sum(-1)
    lp = ll.logsumexp(1) - math.log(n)
    w = ll.softmax(1)
    m = (w * u[:, 0]).sum(1)
    v = (w * (u[:, 0] - m[:, None]) ** 2).sum(1)
    size = (m * (1 - m) / v - 1) * 0.9
    shapes = regress(x, torch.stack([m * size, (1 - m) * size], 1).clamp_min(1.0).log(), 1.0)

    def model(x):
        with pyro.plate("data", x.shape[0]):
            u = pyro.sample("u", dist.Uniform(x.new_zeros(x.shape[0], 1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(torch.sin(2.0 * (u + t)), 0.5).to_event(1), obs=x)

    def guide(x):
        pyro.module("shapes", shapes.fc)
        a, b = shapes.fc(x).exp().unbind(1)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("u", dist.Beta(a.unsqueeze(1), b.unsqueeze(1)).to_event(1))

    return Case(model, guide, x, log_px=lp, trainable=True)


@program
def laplace_and_student():
    """Laplace prior on the code and StudentT noise on the data; heavy tails on a grid."""
    grid = torch.linspace(-25, 25, 50001, dtype=F64)[:, None]
    w = torch.tensor([1.0, 0.7, -0.8], dtype=F64)
    x = 0.8 * randn(5, 1) * w + 0.5 * randn(5, 3)
    lprior = t64(stats.laplace.logpdf(grid[:, 0].numpy(), 0, 0.8))
    ll = lprior + t64(stats.t.logpdf(x[:, None].numpy(), 5, (grid * w).numpy(), 0.5)).sum(-1)
    lp = ll.logsumexp(1) + math.log(50 / 50000)
    p = ll.softmax(1)
    m = (p * grid[:, 0]).sum(1)
    v = (p * (grid[:, 0] - m[:, None]) ** 2).sum(1)
    enc = regress(x, m[:, None], v.max().sqrt() * 1.1)

    def model(x):
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.Laplace(x.new_zeros(x.shape[0], 1), 0.8).to_event(1))
            pyro.sample("x", dist.StudentT(x.new_tensor(5.0), z * w, 0.5).to_event(1), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data", x.shape[0]):
            loc, scale = enc(x)
            pyro.sample("z", dist.StudentT(x.new_tensor(6.0), loc, scale).to_event(1))

    return Case(model, guide, x, log_px=lp, trainable=True)


@program
def half_normal_scale():
    """A positive scale, HalfNormal; the guide is LogNormal. x is a row of (B, 4)."""
    n = 40001
    h = (torch.arange(n, dtype=F64) + 0.5) * 12 / n
    x = randn(5, 4)
    lprior = t64(stats.halfnorm.logpdf(h.numpy(), scale=1.3))
    ll = lprior + gauss(x[:, None], torch.zeros((), dtype=F64), h[:, None]).sum(-1)
    lp = ll.logsumexp(1) + math.log(12 / n)
    p = ll.softmax(1)
    m = (p * h.log()).sum(1)
    s = (p * (h.log() - m[:, None]) ** 2).sum(1).sqrt()
    feats = x.pow(2).mean(1, keepdim=True).log()
    enc = regress(feats, m[:, None], s.max() * 1.1)

    def model(x):
        with pyro.plate("data", len(x)):
            sd = pyro.sample("sd", dist.HalfNormal(x.new_tensor(1.3)))
            pyro.sample("x", dist.Normal(x.new_zeros(4), sd.unsqueeze(-1)).to_event(1), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        loc, scale = enc(x.pow(2).mean(1, keepdim=True).log())
        with pyro.plate("data", len(x)):
            pyro.sample("sd", dist.LogNormal(loc[:, 0], scale[:, 0]))

    return Case(model, guide, x, log_px=lp, trainable=True)


@program
def mixture_likelihood():
    """MixtureSameFamily as the likelihood: two ways to emit, summed inside the distribution."""
    w = torch.tensor([1.1, -0.9], dtype=F64)
    off = torch.tensor([-0.5, 0.5], dtype=F64)
    pi = torch.tensor([0.3, 0.7], dtype=F64)

    def decode(z):
        return z * w

    def loglik(xn, m):
        return (gauss(xn[:, None], m[:, :, None] + off, 0.5) + pi.log()).logsumexp(-1).sum(-1)

    x = decode(randn(5, 1)) + off[torch.randint(0, 2, (5, 2))] + 0.5 * randn(5, 2)
    m, s = quad_moments(1, decode, loglik, x)
    enc = regress(x, m, s.max(0).values * 1.05)

    def model(x):
        mix = pyro.param("mix", pi, constraint=dist.constraints.simplex)
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.Normal(x.new_zeros(x.shape[0], 1), 1.0).to_event(1))
            parts = dist.Normal((z * w).unsqueeze(-1) + off, 0.5)
            d = dist.MixtureSameFamily(dist.Categorical(mix.expand(parts.batch_shape)), parts)
            pyro.sample("x", d.to_event(1), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("z", dist.Normal(*enc(x)).to_event(1))

    return Case(model, guide, x, log_px=quad(1, decode, loglik, x), trainable=True)


@program
def no_latents_gaussian_hmm():
    """No latent site at all: the states are summed inside dist.GaussianHMM; the guide is empty."""
    T = 4
    a, q, c, r = 0.8, 0.6, 1.0, 0.5
    one = torch.ones(1, 1, dtype=F64)
    # the first observation comes after one transition from N(0, 1)
    F = torch.zeros(T, T + 1, dtype=F64)
    for t in range(T):
        F[t, 0] = a ** (t + 1)
        for u in range(t + 1):
            F[t, u + 1] = a ** (t - u) * q
    lg = LinearGaussian(c * F, torch.zeros(T, dtype=F64), r**2)
    x = lg.simulate(5).unsqueeze(-1)

    def model(x):
        drift = pyro.param("drift", a * one)
        zero = torch.zeros(1, dtype=F64)
        init = dist.Normal(zero, 1.0).to_event(1)
        trans = dist.Normal(zero, torch.full((1,), q, dtype=F64)).to_event(1)
        obs = dist.Normal(zero, torch.full((1,), r, dtype=F64)).to_event(1)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("x", dist.GaussianHMM(init, drift, trans, c * one, obs, duration=T), obs=x)

    def guide(x):
        pass

    lp = lg.log_px(x[..., 0])
    return Case(model, guide, x, log_px=lp, elbo=lp, exact_guide=True, trainable=True)


@program
def ordinal_ratings():
    """OrderedLogistic ratings 0..3 as integer data, cut points as a parameter."""
    cuts = torch.tensor([-1.0, 0.2, 1.3], dtype=F64)
    w = torch.tensor([1.0, 1.5, -0.8], dtype=F64)

    def decode(z):
        return z * w

    def loglik(xn, eta):
        cum = torch.sigmoid(cuts - eta[..., None])
        pad = torch.cat([torch.zeros_like(cum[..., :1]), cum, torch.ones_like(cum[..., :1])], -1)
        p = pad[..., 1:] - pad[..., :-1]
        return sum(p[:, d, int(xn[d])].log() for d in range(3))

    x = torch.tensor([[0, 1, 3], [2, 3, 0], [1, 1, 1], [3, 2, 1], [0, 0, 2]])
    m, s = quad_moments(1, decode, loglik, x)
    enc = regress(x.to(F64), m, s.mean(0) * 1.05)

    def model(x):
        c = pyro.param("cuts", cuts, constraint=dist.constraints.ordered_vector)
        with pyro.plate("people", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 1, dtype=F64), 1.0).to_event(1))
            pyro.sample("x", dist.OrderedLogistic(z * w, c).to_event(1), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("people", len(x)):
            pyro.sample("z", dist.Normal(*enc(x.double())).to_event(1))

    return Case(model, guide, x, log_px=quad(1, decode, loglik, x), trainable=True)


@program
def single_precision():
    """Everything in float32, as most programs are."""
    dec = upright(2, 4)
    lg = LinearGaussian(dec.weight, dec.bias, 0.49)
    x = lg.simulate(5).float()
    enc = near(lg, 0.05, 1.1)
    lp, el = lg.log_px(x.double()), near_elbo(lg, enc, x.double())
    dec32, enc32 = dec.float(), enc.float()

    def model(x):
        pyro.module("dec", dec32)
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample(
                "z", dist.Normal(torch.zeros(x.shape[0], 2), torch.ones(x.shape[0], 2)).to_event(1)
            )
            pyro.sample("x", dist.Normal(dec32(z), 0.7).to_event(1), obs=x)

    def guide(x):
        pyro.module("enc", enc32)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("z", dist.Normal(*enc32(x)).to_event(1))

    return Case(model, guide, x, log_px=lp, elbo=el, trainable=True)
