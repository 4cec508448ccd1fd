"""Discrete latent variables: enumerated in the model, in the guide, or drawn."""

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import config_enumerate
from pyro.ops.indexing import Vindex
from torch import nn

from ._common import (
    ENUM,
    F64,
    Case,
    Encoder,
    LinearGaussian,
    gauss,
    log_normal,
    program,
    quad,
    quad_moments,
    randn,
    regress,
    upright,
)

DRAWN = {"loss": "Trace_ELBO", "max_plate_nesting": 1}
GUIDE_ENUM = {"loss": "TraceEnum_ELBO", "max_plate_nesting": 1, "check_by_draws": True}


def mixture_parts(K=3, D=2):
    probs = torch.softmax(0.5 * randn(K), 0)
    locs = 1.5 * randn(K, D)
    return probs, locs


@program
def gmm_enumerated():
    """A Gaussian mixture, infer={"enumerate": "parallel"} in the model, and an empty guide."""
    probs, locs = mixture_parts()
    k = torch.multinomial(probs, 5, replacement=True)
    x = locs[k] + 0.8 * randn(5, 2)
    joint = probs.log() + gauss(x[:, None], locs, 0.8).sum(-1)

    def model(x):
        weights = pyro.param("weights", probs, constraint=dist.constraints.simplex)
        mus = pyro.param("locs", locs)
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(weights), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(mus[k], 0.8).to_event(1), obs=x)

    def guide(x):
        pass

    lp = joint.logsumexp(1)
    return Case(model, guide, x, log_px=lp, elbo=lp, exact_guide=True, trainable=True, settings=ENUM)


@program
def mixture_of_codes():
    """k enumerated in the model by @config_enumerate, then z given k, then x: VaDE-like."""
    probs, mus = mixture_parts(3, 2)
    dec = upright(2, 4)
    sds = torch.tensor([0.6, 1.0, 0.8], dtype=F64)
    lgs = [
        LinearGaussian(dec.weight, dec.bias, 0.36, m0=mus[j], P0=sds[j] ** 2 * torch.eye(2, dtype=F64))
        for j in range(3)
    ]
    k = torch.tensor([0, 1, 2, 1, 0])
    x = torch.cat([lgs[j].simulate(1) for j in k.tolist()])
    per = torch.stack([lg.log_px(x) for lg in lgs], 1) + probs.log()
    resp = per.softmax(1)
    ms = torch.stack([lg.mean(x) for lg in lgs], 1)
    m = (resp[..., None] * ms).sum(1)
    var = torch.stack([lg.cov.diagonal() for lg in lgs])
    v = (resp[..., None] * (var + (ms - m[:, None]) ** 2)).sum(1)
    enc = regress(x, m, v.sqrt().max(0).values * 1.1)

    @config_enumerate
    def model(x):
        pyro.module("dec", dec)
        weights = pyro.param("weights", probs, constraint=dist.constraints.simplex)
        with pyro.plate("data", x.shape[0]):
            k = pyro.sample("k", dist.Categorical(weights))
            z = pyro.sample("z", dist.Normal(mus[k], sds[k].unsqueeze(-1)).to_event(1))
            pyro.sample("x", dist.Normal(dec(z), 0.6).to_event(1), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("z", dist.Normal(*enc(x)).to_event(1))

    return Case(model, guide, x, log_px=per.logsumexp(1), trainable=True, settings=ENUM)


def semi_supervised():
    K = 3
    dec = nn.Linear(K + 2, 4, dtype=F64)
    with torch.no_grad():
        q, _ = torch.linalg.qr(randn(4, 2))
        dec.weight.copy_(torch.cat([1.3 * randn(4, K), 1.1 * q], 1))
    lgs = [LinearGaussian(dec.weight[:, K:], dec.bias + dec.weight[:, j], 0.49) for j in range(K)]
    return K, dec, lgs


@program
def ss_vae_unlabelled():
    """y unseen: OneHotCategorical, enumerated in the guide; z drawn given (x, y); cat([y, z], -1)."""
    K, dec, lgs = semi_supervised()
    x = torch.cat([lgs[j].simulate(1) for j in (0, 1, 2, 0, 1)])
    per = torch.stack([lg.log_px(x) for lg in lgs], 1) - torch.tensor(3.0, dtype=F64).log()
    # q(y|x): the exact one flattened towards uniform; q(z|x,y): linear in [x, y]
    W = torch.cat([lgs[0].K, torch.stack([-lg.K @ lg.b for lg in lgs], 1)], 1)
    enc_z = Encoder(W, torch.full((2,), 0.08, dtype=F64), 1.1 * lgs[0].cov.diagonal().sqrt())

    # log posterior of y up to a constant is linear in x: read the slopes off the densities
    Sinv = torch.linalg.inv(lgs[0].Sx)
    slopes = torch.stack([Sinv @ lg.b for lg in lgs])
    icpt = torch.stack([-0.5 * lg.b @ Sinv @ lg.b for lg in lgs])
    head = nn.Linear(4, K, dtype=F64)
    with torch.no_grad():
        head.weight.copy_(0.8 * slopes)
        head.bias.copy_(0.8 * icpt)

    def model(x):
        pyro.module("dec", dec)
        with pyro.plate("data", x.size(0)):
            alpha = x.new_ones(x.size(0), K) / K
            y = pyro.sample("y", dist.OneHotCategorical(alpha))
            z = pyro.sample("z", dist.Normal(x.new_zeros(x.size(0), 2), 1.0).to_event(1))
            h = torch.cat([y.expand(z.shape[:-1] + (K,)), z], -1)
            pyro.sample("x", dist.Normal(dec(h), 0.7).to_event(1), obs=x)

    @config_enumerate
    def guide(x):
        pyro.module("head", head)
        pyro.module("enc_z", enc_z)
        with pyro.plate("data", x.size(0)):
            y = pyro.sample("y", dist.OneHotCategorical(logits=head(x)))
            batch = torch.broadcast_shapes(x.shape[:-1], y.shape[:-1])
            xy = torch.cat([x.expand(batch + (4,)), y.expand(batch + (K,))], -1)
            pyro.sample("z", dist.Normal(*enc_z(xy)).to_event(1))

    with torch.no_grad():
        qy = head(x).softmax(1)
    elbo = -(qy * qy.log()).sum(1) + (qy * -torch.tensor(3.0, dtype=F64).log()).sum(1)
    for j, lg in enumerate(lgs):
        m = lg.mean(x) + 0.08
        elbo = elbo + qy[:, j] * lg.elbo(x, m, 1.21 * lg.cov.diagonal())
    return Case(
        model,
        guide,
        x,
        log_px=per.logsumexp(1),
        elbo=elbo,
        continuous=False,
        trainable=True,
        settings=GUIDE_ENUM,
    )


@program
def ss_vae_labelled():
    """The labels seen, obs=ys, one-hot by F.one_hot; the guide conditions on them."""
    K, dec, lgs = semi_supervised()
    ys = torch.tensor([0, 1, 2, 0, 1])
    x = torch.cat([lgs[j].simulate(1) for j in ys.tolist()])
    W = torch.cat([lgs[0].K, torch.stack([-lg.K @ lg.b for lg in lgs], 1)], 1)
    enc = Encoder(W, torch.full((2,), 0.08, dtype=F64), 1.1 * lgs[0].cov.diagonal().sqrt())

    def model(xs, ys=None):
        pyro.module("dec", dec)
        with pyro.plate("data", xs.size(0)):
            y = pyro.sample("y", dist.Categorical(xs.new_ones(K) / K), obs=ys)
            z = pyro.sample("z", dist.Normal(xs.new_zeros(xs.size(0), 2), 1.0).to_event(1))
            onehot = nn.functional.one_hot(y, K).to(xs.dtype)
            pyro.sample("x", dist.Normal(dec(torch.cat([onehot, z], 1)), 0.7).to_event(1), obs=xs)

    def guide(xs, ys):
        pyro.module("enc", enc)
        with pyro.plate("data", xs.size(0)):
            onehot = torch.eye(K, dtype=xs.dtype)[ys]
            pyro.sample("z", dist.Normal(*enc(torch.cat([xs, onehot], 1))).to_event(1))

    log3 = torch.tensor(3.0, dtype=F64).log()
    lp, el = [], []
    for n, j in enumerate(ys.tolist()):
        xn, lg = x[n : n + 1], lgs[j]
        lp.append(lg.log_px(xn) - log3)
        el.append(lg.elbo(xn, lg.mean(xn) + 0.08, 1.21 * lg.cov.diagonal()) - log3)
    return Case(
        model,
        guide,
        x,
        {"ys": ys},
        log_px=torch.cat(lp),
        elbo=torch.cat(el),
        simulates=False,
        trainable=True,
    )


@program
def hidden_markov_model():
    """A short HMM, states enumerated under pyro.markov; T = 4, three states; an empty guide."""
    T, S = 4, 3
    init = torch.softmax(randn(S), 0)
    trans = torch.softmax(1.2 * randn(S, S), 1)
    locs = torch.tensor([-1.5, 0.0, 1.5], dtype=F64)
    x = 1.3 * randn(5, T)
    e = gauss(x[:, :, None], locs, 0.7)
    alpha = init.log() + e[:, 0]
    for t in range(1, T):
        alpha = (alpha[:, :, None] + trans.log()).logsumexp(1) + e[:, t]

    def model(x):
        probs_x = pyro.param("probs_x", trans, constraint=dist.constraints.simplex)
        emit = pyro.param("emit", locs)
        with pyro.plate("sequences", x.shape[0]):
            s = None
            for t in pyro.markov(range(x.shape[1])):
                p = init if s is None else probs_x[s]
                s = pyro.sample(f"s_{t}", dist.Categorical(p), infer={"enumerate": "parallel"})
                pyro.sample(f"x_{t}", dist.Normal(emit[s], 0.7), obs=x[:, t])

    def guide(x):
        return None

    lp = alpha.logsumexp(1)
    return Case(
        model,
        guide,
        x,
        log_px=lp,
        elbo=lp,
        exact_guide=True,
        simulates=False,
        trainable=True,
        settings=ENUM,
    )


@program
def outlier_pixels():
    """An enumerated Bernoulli inside an inner plate of pixels: each pixel may be an outlier."""
    D, p = 3, 0.2
    w = torch.tensor([1.0, 0.8, -0.9], dtype=F64)

    def decode(z):
        return z * w

    def loglik(xn, m):
        parts = torch.stack(
            [
                gauss(xn, m, 0.5) + torch.tensor(1 - p, dtype=F64).log(),
                gauss(xn, m, 1.2) + torch.tensor(p, dtype=F64).log(),
            ]
        )
        return parts.logsumexp(0).sum(-1)

    x = decode(randn(5, 1)) + torch.where(torch.rand(5, D) < p, 1.2, 0.5) * randn(5, D)
    m, s = quad_moments(1, decode, loglik, x)
    enc = regress(x, m, s.max(0).values * 1.05)

    def model(x):
        out = pyro.param("outlier", torch.tensor(p, dtype=F64), constraint=dist.constraints.unit_interval)
        with pyro.plate("data", x.shape[0], dim=-2):
            z = pyro.sample("z", dist.Normal(x.new_zeros(x.shape[0], 1), 1.0))
            with pyro.plate("pixels", D, dim=-1):
                b = pyro.sample("b", dist.Bernoulli(out), infer={"enumerate": "parallel"})
                sd = 0.5 + 0.7 * b
                pyro.sample("x", dist.Normal(z * w, sd), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data", x.shape[0], dim=-2):
            pyro.sample("z", dist.Normal(*enc(x)))

    return Case(
        model,
        guide,
        x,
        log_px=quad(1, decode, loglik, x),
        trainable=True,
        settings={"loss": "TraceEnum_ELBO", "max_plate_nesting": 2},
    )


@program
def drawn_categorical():
    """A discrete latent marked by nobody: drawn from the guide, whose probabilities are exact."""
    probs, locs = mixture_parts(3, 2)
    x = locs[torch.tensor([0, 1, 2, 2, 0])] + 0.9 * randn(5, 2)
    joint = probs.log() + gauss(x[:, None], locs, 0.9).sum(-1)

    def model(x):
        with pyro.plate("data", x.shape[0]):
            k = pyro.sample("k", dist.Categorical(probs))
            pyro.sample("x", dist.Normal(locs[k], 0.9).to_event(1), obs=x)

    def guide(x):
        logits = (probs.log() + gauss(x[:, None], locs, 0.9).sum(-1)).log_softmax(1)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("k", dist.Categorical(logits=logits))

    lp = joint.logsumexp(1)
    return Case(model, guide, x, log_px=lp, elbo=lp, exact_guide=True, continuous=False, settings=DRAWN)


@program
def drawn_bernoulli_and_normal():
    """A spike and a slab: Bernoulli s and Normal z both drawn by the guide, z given s."""
    p, w, r = 0.4, torch.tensor([1.2, -0.7, 0.9], dtype=F64), 0.6
    lg = LinearGaussian(w[:, None], torch.zeros(3, dtype=F64), r**2)
    on = torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0], dtype=F64)
    x = on[:, None] * randn(5, 1) * w + r * randn(5, 3)
    zero = torch.zeros(3, dtype=F64)
    l1 = lg.log_px(x) + torch.tensor(p, dtype=F64).log()
    l0 = log_normal(x, zero, r**2 * torch.eye(3, dtype=F64)) + torch.tensor(1 - p, dtype=F64).log()

    def model(x):
        with pyro.plate("data", len(x)):
            s = pyro.sample("s", dist.Bernoulli(torch.tensor(p, dtype=F64)))
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal((s * z).unsqueeze(-1) * w, r).to_event(1), obs=x)

    sd = lg.cov[0, 0].sqrt()
    prec = torch.linalg.inv(lg.Sx)

    def guide(x):
        odds = pyro.param("odds", torch.tensor(0.3, dtype=F64))
        stat = 0.5 * (x**2).sum(1) / r**2 - 0.5 * ((x @ prec) * x).sum(1)
        with pyro.plate("data", len(x)):
            s = pyro.sample("s", dist.Bernoulli(logits=0.8 * stat - odds))
            loc = s * (x @ lg.K[0])
            pyro.sample("z", dist.Normal(loc, torch.where(s > 0, 1.1 * sd, torch.ones_like(sd))))

    return Case(
        model,
        guide,
        x,
        log_px=torch.logaddexp(l1, l0),
        continuous=False,
        trainable=True,
        settings=DRAWN,
    )


@program
def classifier_in_the_guide():
    """Categorical enumerated in the guide only, a classifier; the exact one."""
    probs, locs = mixture_parts(4, 2)
    x = locs[torch.tensor([0, 1, 2, 3, 0])] + 0.9 * randn(5, 2)
    joint = probs.log() + gauss(x[:, None], locs, 0.9).sum(-1)
    head = nn.Linear(2, 4, dtype=F64)
    with torch.no_grad():
        head.weight.copy_(locs / 0.81)
        head.bias.copy_(probs.log() - 0.5 * (locs**2).sum(1) / 0.81)

    def model(x):
        with pyro.plate("data", x.shape[0]):
            k = pyro.sample("k", dist.Categorical(probs))
            pyro.sample("x", dist.Normal(Vindex(locs)[k, :], 0.9).to_event(1), obs=x)

    def guide(x):
        pyro.module("head", head)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("k", dist.Categorical(logits=head(x)), infer={"enumerate": "parallel"})

    lp = joint.logsumexp(1)
    return Case(
        model,
        guide,
        x,
        log_px=lp,
        elbo=lp,
        exact_guide=True,
        continuous=False,
        trainable=True,
        settings=GUIDE_ENUM,
    )


@program
def sequential_enumeration():
    """infer={"enumerate": "sequential"} in the guide, so each run takes one value."""
    p, locs = 0.35, torch.tensor([-0.7, 0.9], dtype=F64)
    x = torch.tensor([-1.1, -0.2, 0.3, 0.8, 1.9], dtype=F64)
    joint = torch.stack(
        [
            gauss(x, locs[0], 0.8) + torch.tensor(1 - p, dtype=F64).log(),
            gauss(x, locs[1], 0.8) + torch.tensor(p, dtype=F64).log(),
        ],
        1,
    )

    def model(x):
        with pyro.plate("data", len(x)):
            b = pyro.sample("b", dist.Bernoulli(torch.tensor(p, dtype=F64)))
            pyro.sample("x", dist.Normal(locs[b.long()], 0.8), obs=x)

    def guide(x):
        slope = pyro.param("slope", torch.tensor(2.0, dtype=F64))
        with pyro.plate("data", len(x)):
            pyro.sample("b", dist.Bernoulli(logits=slope * x - 0.7), infer={"enumerate": "sequential"})

    with torch.no_grad():
        logits = 2.0 * x - 0.7
        q = torch.stack([-logits, logits], 1)
        lq = nn.functional.logsigmoid(q)
    return Case(
        model,
        guide,
        x,
        log_px=joint.logsumexp(1),
        elbo=(lq.exp() * (joint - lq)).sum(1),
        continuous=False,
        trainable=True,
        settings={
            "loss": "TraceEnum_ELBO",
            "max_plate_nesting": 1,
            "check_by_draws": True,
            "refusal_ok": True,
        },
    )


@program
def factorial_mixture():
    """Two enumerated sites at once, i and j, Vindex(table)[i, j]; and a continuous z by the guide."""
    table = 1.3 * randn(2, 3, 2)
    pi, pj = torch.softmax(randn(2), 0), torch.softmax(randn(3), 0)
    w = torch.tensor([0.8, -0.6], dtype=F64)
    x = table[torch.tensor([0, 1, 1, 0]), torch.tensor([2, 0, 1, 1])] + randn(4, 1) * w + 0.7 * randn(4, 2)
    cov = torch.outer(w, w) + 0.49 * torch.eye(2, dtype=F64)
    lps, ms = [], []
    gain = w @ torch.linalg.inv(cov)
    for i in range(2):
        for j in range(3):
            lps.append(log_normal(x, table[i, j], cov) + pi[i].log() + pj[j].log())
            ms.append((x - table[i, j]) @ gain)
    lps, ms = torch.stack(lps, 1), torch.stack(ms, 1)
    r = lps.softmax(1)
    m = (r * ms).sum(1)
    v = (r * (ms - m[:, None]) ** 2).sum(1) + 1 - gain @ w
    enc = regress(x, m[:, None], v.max().sqrt() * 1.05)

    @config_enumerate(default="parallel")
    def model(x):
        with pyro.plate("data", x.shape[0]):
            i = pyro.sample("i", dist.Categorical(pi))
            j = pyro.sample("j", dist.Categorical(pj))
            z = pyro.sample("z", dist.Normal(torch.zeros(x.shape[0], dtype=x.dtype), 1.0))
            mean = Vindex(table)[i, j, :] + z[..., None] * w
            pyro.sample("x", dist.Normal(mean, 0.7).to_event(1), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        loc, scale = enc(x)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("z", dist.Normal(loc[:, 0], scale[:, 0]))

    return Case(model, guide, x, log_px=lps.logsumexp(1), trainable=True, settings=ENUM)


@program
def switching_decoder():
    """An enumerated switch picks one of two layers by torch.where, codes taken as z[..., :1]."""
    d0, d1 = upright(1, 3), upright(1, 3)
    p = torch.tensor(0.35, dtype=F64)
    lg0 = LinearGaussian(d0.weight, d0.bias, 0.36)
    lg1 = LinearGaussian(d1.weight, d1.bias, 0.36)
    x = torch.cat([lg0.simulate(3), lg1.simulate(2)])
    per = torch.stack([lg0.log_px(x) + (1 - p).log(), lg1.log_px(x) + p.log()], 1)
    r = per.softmax(1)
    ms = torch.stack([lg0.mean(x), lg1.mean(x)], 1)
    m = (r[..., None] * ms).sum(1)
    vs = torch.stack([lg0.cov[0], lg1.cov[0]])
    v = (r[..., None] * (vs + (ms - m[:, None]) ** 2)).sum(1)
    enc = regress(x, m, v.sqrt().max(0).values * 1.05)

    def model(x):
        pyro.module("d0", d0)
        pyro.module("d1", d1)
        with pyro.plate("obs", len(x)):
            b = pyro.sample("b", dist.Bernoulli(p), infer={"enumerate": "parallel"})
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 1), 1.0).to_event(1))
            mean = torch.where(b[..., None] > 0.5, d1(z[..., :1]), d0(z[..., :1]))
            pyro.sample("x", dist.Normal(mean, 0.6).to_event(1), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("obs", len(x)):
            pyro.sample("z", dist.Normal(*enc(x)).to_event(1))

    return Case(model, guide, x, log_px=per.logsumexp(1), trainable=True, settings=ENUM)
