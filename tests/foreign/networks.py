"""Decoders and encoders out of torch.nn, most of them nonlinear, answered by quadrature."""

import math

import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F
from scipy.special import gammaln
from torch import nn

from ._common import (
    F64,
    Case,
    LinearGaussian,
    dense,
    gauss,
    linear,
    near,
    program,
    quad,
    quad_moments,
    randn,
    regress,
    upright,
)


def one_by_one(f):
    """Rows put through alone, so that nothing in f can join them."""
    return lambda z: torch.cat([f(row[None]) for row in z])


def bernoulli(xn, logits):
    return (xn * logits - F.softplus(logits)).flatten(1).sum(-1)


@program
def gru_decoder_batch_first():
    """The code repeated along time into a GRU, batch_first=True."""
    T = 4
    gru = nn.GRU(1, 3, batch_first=True, dtype=F64)
    out = dense(3, 1, 0.6)

    def decode(z):
        h, _ = gru(z.unsqueeze(1).repeat(1, T, 1))
        return out(h).squeeze(-1)

    def loglik(xn, m):
        return gauss(xn, m, 0.4).sum(-1)

    with torch.no_grad():
        x = decode(randn(5, 1)) + 0.4 * randn(5, T)
    alone = one_by_one(decode)
    m, s = quad_moments(1, alone, loglik, x, n=401)
    enc = regress(x, m, s.max(0).values * 1.1)

    def model(x):
        pyro.module("gru", gru)
        pyro.module("out", out)
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.Normal(x.new_zeros(x.shape[0], 1), 1.0).to_event(1))
            h, _ = gru(z.unsqueeze(1).repeat(1, T, 1))
            pyro.sample("x", dist.Normal(out(h).squeeze(-1), 0.4).to_event(1), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("z", dist.Normal(*enc(x)).to_event(1))

    return Case(model, guide, x, log_px=quad(1, alone, loglik, x, n=401), trainable=True)


@program
def lstm_decoder_time_first():
    """LSTM with time first: z is the first hidden state, h0 of (1, B, H); out.transpose(0, 1)."""
    T = 4
    lstm = nn.LSTM(1, 2, dtype=F64)
    init, out = dense(2, 2, 1.2), dense(2, 1, 1.5)

    def decode(z):
        h0 = init(z).unsqueeze(0).contiguous()
        c0 = torch.zeros_like(h0)
        inputs = torch.zeros(T, z.shape[0], 1, dtype=z.dtype)
        h, _ = lstm(inputs, (h0, c0))
        return out(h).transpose(0, 1)

    def loglik(xn, m):
        return gauss(xn, m, 0.5).flatten(1).sum(-1)

    with torch.no_grad():
        x = decode(randn(4, 2)) + 0.5 * randn(4, T, 1)
    m, s = quad_moments(2, decode, loglik, x)
    enc = regress(x.flatten(1), m, s.mean(0) * 1.1)

    def model(x):
        pyro.module("lstm", lstm)
        pyro.module("init", init)
        with pyro.plate("sequences", x.shape[0]):
            z = pyro.sample("z", dist.Normal(x.new_zeros(x.shape[0], 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decode(z), 0.5).to_event(2), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("sequences", x.shape[0]):
            pyro.sample("z", dist.Normal(*enc(x.flatten(1))).to_event(1))

    return Case(model, guide, x, log_px=quad(2, decode, loglik, x), trainable=True)


@program
def gru_cell_loop():
    """GRUCell stepped by hand, its own output fed back in; the state starts from zeros(z.size(0))."""
    T = 3
    cell, out = nn.GRUCell(2, 3, dtype=F64), dense(3, 1, 1.5)

    def decode(z):
        h = torch.zeros(z.size(0), 3, dtype=z.dtype)
        y = torch.zeros(z.size(0), 1, dtype=z.dtype)
        ys = []
        for _ in range(T):
            h = cell(torch.cat([2 * z, y], dim=1), h)
            y = out(h)
            ys.append(y)
        return torch.cat(ys, dim=1)

    def loglik(xn, m):
        return gauss(xn, m, 0.4).sum(-1)

    with torch.no_grad():
        x = decode(randn(5, 1)) + 0.4 * randn(5, T)
    alone = one_by_one(decode)
    m, s = quad_moments(1, alone, loglik, x, n=301)
    enc = regress(x, m, s.mean(0) * 1.15)

    def model(x):
        pyro.module("cell", cell)
        pyro.module("out", out)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decode(z), 0.4).to_event(1), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(*enc(x)).to_event(1))

    return Case(model, guide, x, log_px=quad(1, alone, loglik, x, n=301), trainable=True)


@program
def recurrent_encoder():
    """A GRU reads the sequence in the guide; its last state h[-1] moves a linear mean."""
    T = 4
    dec = upright(2, T)
    lg = LinearGaussian(dec.weight, dec.bias, 0.49)
    x = lg.simulate(5).unsqueeze(-1)
    base = near(lg, 0.0, 1.1)
    gru = nn.GRU(1, 2, batch_first=True, dtype=F64)

    def model(x):
        pyro.module("dec", dec)
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.Normal(x.new_zeros(x.shape[0], 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(dec(z)[..., None], 0.7).to_event(2), obs=x)

    def guide(x):
        pyro.module("base", base)
        pyro.module("gru", gru)
        _, h = gru(x)
        with pyro.plate("data", x.shape[0]):
            loc, scale = base(x[:, :, 0])
            pyro.sample("z", dist.Normal(loc + 0.3 * h[-1], scale).to_event(1))

    with torch.no_grad():
        m = torch.cat([base(r[None, :, 0])[0] + 0.3 * gru(r[None])[1][-1] for r in x])
        sd = base.log_scale.exp()
    flat = x[..., 0]
    return Case(model, guide, x, log_px=lg.log_px(flat), elbo=lg.elbo(flat, m, sd**2), trainable=True)


@program
def transformer_over_time():
    """TransformerEncoderLayer in eval mode (dropout off), batch_first, code added to positions."""
    T, E = 3, 4
    layer = nn.TransformerEncoderLayer(E, 2, 6, dropout=0.1, batch_first=True, dtype=F64).eval()
    inp, out = dense(1, E, 0.8), dense(E, 1, 0.7)
    pos = 0.5 * randn(T, E)

    def decode(z):
        h = inp(z).unsqueeze(1) + pos
        return out(layer(h)).squeeze(2)

    def loglik(xn, m):
        return gauss(xn, m, 0.5).sum(-1)

    with torch.no_grad():
        x = decode(randn(4, 1)) + 0.5 * randn(4, T)
    alone = one_by_one(decode)
    m, s = quad_moments(1, alone, loglik, x, n=301)
    enc = regress(x, m, s.mean(0) * 1.15)

    def model(x):
        pyro.module("layer", layer)
        pyro.module("inp", inp)
        pyro.module("outp", out)
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.Normal(x.new_zeros(x.shape[0], 1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decode(z), 0.5).to_event(1), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("z", dist.Normal(*enc(x)).to_event(1))

    return Case(model, guide, x, log_px=quad(1, alone, loglik, x, n=301), trainable=True)


@program
def attention_time_first():
    """MultiheadAttention on (T, B, E), the default layout; attends over steps, not over data."""
    T, E = 3, 2
    attn = nn.MultiheadAttention(E, 1, dtype=F64).eval()
    up, out = dense(1, T * E, 1.0), dense(E, 1, 1.0)

    def decode(z):
        h = up(z).view(z.shape[0], T, E).transpose(0, 1)
        a, _ = attn(h, h, h, need_weights=False)
        return out(h + a).squeeze(-1).t()

    def loglik(xn, m):
        return gauss(xn, m, 0.6).sum(-1)

    with torch.no_grad():
        x = decode(randn(5, 1)) + 0.6 * randn(5, T)
    alone = one_by_one(decode)
    m, s = quad_moments(1, alone, loglik, x, n=301)
    enc = regress(x, m, s.mean(0) * 1.15)

    def model(x):
        pyro.module("attn", attn)
        pyro.module("up", up)
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.Normal(x.new_zeros(x.shape[0], 1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decode(z), 0.6).to_event(1), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("z", dist.Normal(*enc(x)).to_event(1))

    return Case(model, guide, x, log_px=quad(1, alone, loglik, x, n=301), trainable=True)


@program
def bernoulli_pixels():
    """Binary images (B, 1, 2, 3), sigmoid at the end, reshape(-1, 6) in the model."""
    hidden, last = dense(2, 4, 0.9), dense(4, 6, 1.2)

    def decode(z):
        return last(F.softplus(hidden(z)))

    with torch.no_grad():
        x = torch.bernoulli(torch.sigmoid(decode(randn(6, 2)))).view(6, 1, 2, 3)
    flat = x.flatten(1)
    m, s = quad_moments(2, decode, bernoulli, flat)
    enc = regress(flat, m, s.mean(0) * 1.05)

    def model(x):
        pyro.module("hidden", hidden)
        pyro.module("last", last)
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("latent", dist.Normal(x.new_zeros(x.shape[0], 2), 1.0).to_event(1))
            loc_img = torch.sigmoid(last(F.softplus(hidden(z))))
            pyro.sample("obs", dist.Bernoulli(loc_img).to_event(1), obs=x.reshape(-1, 6))
            return loc_img

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data", x.shape[0]):
            loc, scale = enc(x.reshape(-1, 6))
            pyro.sample("latent", dist.Normal(loc, scale).to_event(1))

    return Case(model, guide, x, log_px=quad(2, decode, bernoulli, flat), trainable=True)


@program
def two_heads():
    """A decoder with two heads by chunk(2, dim=1): mean and softplus scale."""
    net = nn.Sequential(dense(1, 4, 0.9), nn.ELU(), dense(4, 6, 0.6))

    def loglik(xn, out):
        loc, raw = out.chunk(2, dim=1)
        return gauss(xn, loc, F.softplus(raw) + 0.3).sum(-1)

    with torch.no_grad():
        loc, raw = net(randn(5, 1)).chunk(2, dim=1)
        x = loc + (F.softplus(raw) + 0.3) * randn(5, 3)
    m, s = quad_moments(1, net, loglik, x)
    enc = regress(x, m, s.mean(0) * 1.2)

    def model(x):
        pyro.module("net", net)
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.Normal(x.new_zeros(x.shape[0], 1), 1.0).to_event(1))
            loc, raw = net(z).chunk(2, dim=1)
            pyro.sample("x", dist.Normal(loc, F.softplus(raw) + 0.3).to_event(1), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("z", dist.Normal(*enc(x)).to_event(1))

    return Case(model, guide, x, log_px=quad(1, net, loglik, x), trainable=True)


@program
def token_sequence():
    """Integer tokens (B, T) as data: Categorical(logits=(B, T, V)).to_event(1)."""
    T, V = 4, 3
    net = dense(1, T * V, 1.0)

    def decode(z):
        return net(z).view(-1, T, V)

    def loglik(xn, logits):
        lp = logits.log_softmax(-1)
        return sum(lp[:, t, int(xn[t])] for t in range(T))

    with torch.no_grad():
        x = torch.distributions.Categorical(logits=decode(randn(6, 1))).sample()
    m, s = quad_moments(1, decode, loglik, x)
    emb = nn.Embedding(V, 2, dtype=F64)

    def features(x):
        return F.one_hot(x, V).to(F64).flatten(1)

    enc = regress(features(x), m, s.mean(0) * 1.05, ridge=0.1)

    def model(x):
        pyro.module("net", net)
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.Normal(torch.zeros(x.shape[0], 1, dtype=F64), 1.0).to_event(1))
            logits = net(z).view(-1, T, V)
            pyro.sample("x", dist.Categorical(logits=logits).to_event(1), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        pyro.module("emb", emb)
        h = 0.02 * emb(x).mean(1).sum(1, keepdim=True)
        loc, scale = enc(features(x))
        with pyro.plate("data", x.shape[0]):
            pyro.sample("z", dist.Normal(loc + h, scale).to_event(1))

    return Case(model, guide, x, log_px=quad(1, decode, loglik, x), trainable=True)


@program
def label_embedding():
    """nn.Embedding of given integer labels moves the prior of z; a table[label] gives the noise."""
    labels = torch.tensor([2, 0, 1, 0, 2])
    emb, dec = nn.Embedding(3, 2, dtype=F64), upright(2, 4)
    sd = torch.tensor([0.5, 0.7, 0.9], dtype=F64)
    m0 = emb.weight.detach()
    lgs = [LinearGaussian(dec.weight, dec.bias, sd[k] ** 2, m0=m0[k]) for k in range(3)]
    x = torch.cat([lgs[k].simulate(1) for k in labels])

    def model(x, labels):
        pyro.module("emb", emb)
        pyro.module("dec", dec)
        table = pyro.param("table", sd, constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(emb(labels), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(dec(z), table[labels].unsqueeze(1)).to_event(1), obs=x)

    K = torch.stack([lg.K for lg in lgs])
    k0 = torch.stack([lg.mean(torch.zeros(1, 4, dtype=F64))[0] for lg in lgs]) + 0.07
    qs = 1.1 * torch.stack([lg.cov.diagonal().sqrt() for lg in lgs])

    def guide(x, labels):
        gain = pyro.param("gain", K)
        loc = torch.einsum("bld,bd->bl", gain[labels], x) + k0[labels]
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, qs[labels]).to_event(1))

    lp, el = [], []
    for n, k in enumerate(labels.tolist()):
        xn, lg = x[n : n + 1], lgs[k]
        lp.append(lg.log_px(xn))
        el.append(lg.elbo(xn, lg.mean(xn) + 0.07, qs[k] ** 2))
    return Case(
        model,
        guide,
        x,
        {"labels": labels},
        log_px=torch.cat(lp),
        elbo=torch.cat(el),
        trainable=True,
    )


@program
def hypernetwork():
    """z makes the weights of a small regression: view(-1, 1, 2), baddbmm with covariates given."""
    B, T = 4, 5
    t = randn(B, T)
    net = dense(2, 2, 0.8)
    W, w = net.weight.detach(), net.bias.detach()
    lgs = []
    for n in range(B):
        feats = torch.stack([t[n], torch.ones(T, dtype=F64)], 1)
        lgs.append(LinearGaussian(feats @ W, feats @ w, 0.36))
    y = torch.cat([lg.simulate(1) for lg in lgs])

    def model(x, t):
        pyro.module("hyper", net)
        with pyro.plate("tasks", x.shape[0]):
            z = pyro.sample("z", dist.Normal(x.new_zeros(x.shape[0], 2), 1.0).to_event(1))
            weights = net(z).view(-1, 1, 2)
            slope, icpt = weights[:, :, 0:1], weights[:, :, 1:2]
            mean = torch.baddbmm(icpt, t.unsqueeze(2), slope).squeeze(2)
            pyro.sample("y", dist.Normal(mean, 0.6).to_event(1), obs=x)

    def guide(x, t):
        feats = torch.stack([t, torch.ones_like(t)], 2)
        A = feats @ W
        prec = torch.eye(2, dtype=F64) + A.mT @ A / 0.36
        rhs = A.mT @ (x - feats @ w).unsqueeze(2) / 0.36
        loc = torch.linalg.solve(prec, rhs).squeeze(2)
        tril = torch.linalg.cholesky(1.2 * torch.linalg.inv(prec))
        with pyro.plate("tasks", x.shape[0]):
            pyro.sample("z", dist.MultivariateNormal(loc, scale_tril=tril))

    lp = torch.cat([lg.log_px(y[n : n + 1]) for n, lg in enumerate(lgs)])
    el = torch.cat([lg.elbo(y[n : n + 1], lg.mean(y[n : n + 1]), 1.2 * lg.cov) for n, lg in enumerate(lgs)])
    return Case(model, guide, y, {"t": t}, log_px=lp, elbo=el, trainable=True)


@program
def topic_counts():
    """Word counts as in topic models: softmax(theta, -1) and a Multinomial whose total is the
    largest in the batch, which its density does not heed."""
    V = 4
    beta = linear(1.2 * randn(V, 2), 0.2 * randn(V))
    totals = torch.tensor([5, 8, 3, 6, 7])

    def decode(z):
        return beta(torch.softmax(z, -1)).log_softmax(-1)

    def loglik(xn, lp):
        coef = gammaln(xn.sum().item() + 1) - gammaln(xn.numpy() + 1).sum()
        return (xn * lp).sum(-1) + coef

    with torch.no_grad():
        lp = decode(randn(5, 2))
        x = torch.stack(
            [
                torch.distributions.Multinomial(int(t), logits=r).sample()
                for t, r in zip(totals, lp, strict=True)
            ]
        )
    m, s = quad_moments(2, decode, loglik, x)
    enc = regress(x / x.sum(1, keepdim=True), m, s.mean(0))

    def model(docs):
        pyro.module("beta", beta)
        with pyro.plate("documents", docs.shape[0]):
            logtheta_loc = docs.new_zeros((docs.shape[0], 2))
            logtheta_scale = docs.new_ones((docs.shape[0], 2))
            logtheta = pyro.sample("logtheta", dist.Normal(logtheta_loc, logtheta_scale).to_event(1))
            theta = torch.softmax(logtheta, -1)
            probs = torch.softmax(beta(theta), dim=-1)
            total_count = int(docs.sum(-1).max())
            pyro.sample("obs", dist.Multinomial(total_count, probs), obs=docs)

    def guide(docs):
        pyro.module("enc", enc)
        with pyro.plate("documents", docs.shape[0]):
            loc, scale = enc(docs / docs.sum(1, keepdim=True))
            pyro.sample("logtheta", dist.Normal(loc, scale).to_event(1))

    return Case(model, guide, x, log_px=quad(2, decode, loglik, x), simulates=False, trainable=True)


@program
def nested_modules():
    """One nn.Module with model and guide as methods, as in the tutorials; bound methods given."""
    lin = upright(2, 4)
    lg = LinearGaussian(lin.weight, lin.bias, 0.64)
    x = lg.simulate(5)

    class VAE(nn.Module):
        def __init__(self):
            super().__init__()
            self.decoder = lin
            self.encoder = near(lg)
            self.noise = math.sqrt(0.64)

        def model(self, x):
            pyro.module("decoder", self.decoder)
            with pyro.plate("data", x.shape[0]):
                z = pyro.sample("latent", dist.Normal(x.new_zeros(x.shape[0], 2), 1.0).to_event(1))
                pyro.sample("obs", dist.Normal(self.decoder(z), self.noise).to_event(1), obs=x)

        def guide(self, x):
            pyro.module("encoder", self.encoder)
            with pyro.plate("data", x.shape[0]):
                z_loc, z_scale = self.encoder(x)
                pyro.sample("latent", dist.Normal(z_loc, z_scale).to_event(1))

    vae = VAE()
    m = lg.mean(x) + 0.1
    el = lg.elbo(x, m, 1.15**2 * lg.cov.diagonal())
    return Case(vae.model, vae.guide, x, log_px=lg.log_px(x), elbo=el, trainable=True)
