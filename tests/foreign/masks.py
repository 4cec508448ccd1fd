"""Missing entries, several observed sites, and labels that are sometimes there."""

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch

from ._common import (
    F64,
    Case,
    Encoder,
    LinearGaussian,
    gauss,
    log_normal,
    near,
    near_elbo,
    program,
    quad,
    quad_moments,
    randn,
    regress,
    upright,
)

NAN = float("nan")
TWO = {"loss": "Trace_ELBO", "max_plate_nesting": 2}


def holes(lg, x):
    """log p of the entries that are there, and the posterior mean and cov of z from them."""
    lp, ms, cs = [], [], []
    for row in x:
        k = ~row.isnan()
        sub = LinearGaussian(lg.A[k], lg.b[k], lg.R[k][:, k], lg.m0, lg.P0)
        lp.append(log_normal(row[None, k], sub.A @ sub.m0 + sub.b, sub.Sx))
        ms.append(sub.mean(row[None, k])[0])
        cs.append(sub.cov)
    return torch.cat(lp), torch.stack(ms), torch.stack(cs)


def with_holes(x):
    x = x.clone()
    x[0, 1] = x[2, 0] = x[2, 3] = x[3, 2] = NAN
    return x


@program
def nan_filled_and_masked():
    """NaN entries; poutine.mask(mask=~isnan(x)) in a plate of features, obs=nan_to_num(x)."""
    w = torch.tensor([[1.0], [-0.8], [0.6], [1.2]], dtype=F64)
    lg = LinearGaussian(w, torch.zeros(4, dtype=F64), 0.36)
    x = with_holes(lg.simulate(5))
    lp, m, c = holes(lg, x)

    def model(x):
        weights = pyro.param("weights", w.t())
        seen = ~torch.isnan(x)
        with pyro.plate("data", x.shape[0], dim=-2):
            z = pyro.sample("z", dist.Normal(x.new_zeros(x.shape[0], 1), 1.0))
            with pyro.plate("features", x.shape[1], dim=-1), poutine.mask(mask=seen):
                pyro.sample("x", dist.Normal(z * weights, 0.6), obs=torch.nan_to_num(x))

    def guide(x):
        seen = (~torch.isnan(x)).to(x.dtype)
        prec = 1 + (seen * w[:, 0] ** 2).sum(1, keepdim=True) / 0.36
        loc = (torch.nan_to_num(x) * w[:, 0]).sum(1, keepdim=True) / 0.36 / prec
        with pyro.plate("data", x.shape[0], dim=-2):
            pyro.sample("z", dist.Normal(loc, prec.rsqrt()))

    return Case(
        model,
        guide,
        x,
        log_px=lp,
        elbo=lp,
        exact_guide=True,
        simulates=False,
        trainable=True,
        settings=TWO,
    )


@program
def nan_left_in_place():
    """NaN entries go into obs= as they are: .mask() on the distribution, validate_args=False."""
    dec = upright(2, 4, 0.5)
    lg = LinearGaussian(dec.weight, dec.bias, 0.49)
    x = with_holes(lg.simulate(5))
    lp, _, _ = holes(lg, x)
    base = near(lg, 0.0, 1.3)

    def model(x):
        pyro.module("dec", dec)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            d = dist.Normal(dec(z), 0.7, validate_args=False).mask(~x.isnan())
            pyro.sample("x", d.to_event(1), obs=x)

    def guide(x):
        pyro.module("base", base)
        filled = torch.where(x.isnan(), dec.bias.detach(), x)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(*base(filled)).to_event(1))

    filled = torch.where(x.isnan(), dec.bias.detach(), x)
    with torch.no_grad():
        m, s = base(filled)
    el = []
    for n, row in enumerate(x):
        k = ~row.isnan()
        sub = LinearGaussian(lg.A[k], lg.b[k], lg.R[k][:, k])
        el.append(sub.elbo(row[None, k], m[n : n + 1], s[0] ** 2))
    return Case(model, guide, x, log_px=lp, elbo=torch.cat(el), simulates=False, trainable=True)


@program
def partly_observed_by_obs_mask():
    """pyro.sample(..., obs=, obs_mask=): what is missing is a latent site of the guide.

    The guide draws the missing entries from the model's own predictive given z's guide mean, so
    its weights are not constant.
    """
    w = torch.tensor([1.0, -0.8, 0.6, 1.2], dtype=F64)
    lg = LinearGaussian(w[:, None], torch.zeros(4, dtype=F64), 0.36)
    x = with_holes(lg.simulate(5))
    lp, _, _ = holes(lg, x)

    def model(x):
        seen = ~x.isnan()
        with pyro.plate("data", x.shape[0], dim=-2):
            z = pyro.sample("z", dist.Normal(x.new_zeros(x.shape[0], 1), 1.0))
            with pyro.plate("features", 4, dim=-1):
                pyro.sample("x", dist.Normal(z * w, 0.6), obs=x.nan_to_num(), obs_mask=seen)

    def guide(x):
        seen = (~x.isnan()).to(x.dtype)
        prec = 1 + (seen * w**2).sum(1, keepdim=True) / 0.36
        loc = (x.nan_to_num() * w).sum(1, keepdim=True) / 0.36 / prec
        widen = pyro.param("widen", torch.tensor(1.2, dtype=F64), constraint=dist.constraints.positive)
        with pyro.plate("data", x.shape[0], dim=-2):
            z = pyro.sample("z", dist.Normal(loc, widen * prec.rsqrt()))
            with pyro.plate("features", 4, dim=-1), poutine.mask(mask=x.isnan()):
                pyro.sample("x_unobserved", dist.Normal(z * w, 0.6))

    return Case(model, guide, x, log_px=lp, simulates=False, trainable=True, settings=TWO)


@program
def second_view_sometimes():
    """Two modalities in one tensor; the second counts only where a flag is given, by mask(flag)."""
    flag = torch.tensor([True, False, True, True, False])
    d1, d2 = upright(2, 2), upright(2, 2)
    A = torch.cat([d1.weight, d2.weight]).detach()
    b = torch.cat([d1.bias, d2.bias]).detach()
    lg = LinearGaussian(A, b, 0.64)
    x = lg.simulate(5)
    nanned = x.clone()
    nanned[~flag, 2:] = NAN
    lp, _, _ = holes(lg, nanned)
    enc_full = near(lg, 0.0, 1.1)
    enc_one = near(LinearGaussian(A[:2], b[:2], 0.64), 0.0, 1.1)

    def model(x, has_second):
        pyro.module("d1", d1)
        pyro.module("d2", d2)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("first", dist.Normal(d1(z), 0.8).to_event(1), obs=x[:, :2])
            with poutine.mask(mask=has_second):
                pyro.sample("second", dist.Normal(d2(z), 0.8).to_event(1), obs=x[:, 2:])

    def guide(x, has_second):
        pyro.module("enc_full", enc_full)
        pyro.module("enc_one", enc_one)
        (l1, s1), (l2, s2) = enc_full(x), enc_one(x[:, :2])
        pick = has_second[:, None]
        with pyro.plate("data", len(x)):
            loc, scale = torch.where(pick, l1, l2), torch.where(pick, s1, s2)
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))

    return Case(model, guide, x, {"has_second": flag}, log_px=lp, simulates=False, trainable=True)


@program
def halves():
    """x split by torch.chunk into a left and a right site, the sites with different noise."""
    left, right = upright(2, 3), upright(2, 3)
    R = torch.tensor([0.36] * 3 + [1.0] * 3, dtype=F64)
    lg = LinearGaussian(torch.cat([left.weight, right.weight]), torch.cat([left.bias, right.bias]), R)
    x = lg.simulate(5)
    enc = near(lg, 0.07, 1.1)

    def model(x):
        pyro.module("left", left)
        pyro.module("right", right)
        a, b = torch.chunk(x, 2, dim=1)
        with pyro.plate("data", x.size(0)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(x.size(0), 2), 1.0).to_event(1))
            pyro.sample("left", dist.Normal(left(z), 0.6).to_event(1), obs=a)
            pyro.sample("right", dist.Normal(right(z), 1.0).to_event(1), obs=b)

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data", x.size(0)):
            pyro.sample("z", dist.Normal(*enc(x)).to_event(1))

    return Case(
        model,
        guide,
        x,
        log_px=lg.log_px(x),
        elbo=near_elbo(lg, enc, x),
        simulates=False,
        trainable=True,
    )


@program
def images_and_labels():
    """x and y both observed: the labels are given by keyword and seen by a Categorical site."""
    ys = torch.tensor([0, 1, 1, 2, 0])
    dec, cls = upright(1, 3), upright(1, 3, 1.2)

    def decode(z):
        return torch.cat([dec(z), cls(z)], 1)

    def loglik(xy, out):
        lp = out[:, 3:].log_softmax(1)[:, int(xy[3])]
        return gauss(xy[:3], out[:, :3], 0.7).sum(-1) + lp

    with torch.no_grad():
        x = dec(randn(5, 1)) + 0.7 * randn(5, 3)
    xy = torch.cat([x, ys[:, None].to(F64)], 1)
    m, s = quad_moments(1, decode, loglik, xy)
    enc = regress(x, m, s.mean(0) * 1.1)

    def model(x, ys):
        pyro.module("dec", dec)
        pyro.module("cls", cls)
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.Normal(x.new_zeros(x.shape[0], 1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(dec(z), 0.7).to_event(1), obs=x)
            pyro.sample("y", dist.Categorical(logits=cls(z)), obs=ys)

    def guide(x, ys=None):
        pyro.module("enc", enc)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("z", dist.Normal(*enc(x)).to_event(1))

    return Case(
        model,
        guide,
        x,
        {"ys": ys},
        log_px=quad(1, decode, loglik, xy),
        simulates=False,
        trainable=True,
    )


@program
def many_keyword_inputs():
    """Inputs by keyword through **batch: a covariate, an offset and a known noise for each datum."""
    B = 5
    cov, offset = randn(B, 2), randn(B)
    noise = torch.tensor([0.5, 0.7, 0.9, 0.6, 0.8], dtype=F64)
    beta = 0.7 * randn(2, 3)
    w = torch.tensor([1.0, 0.8, -0.9], dtype=F64)
    lgs = [LinearGaussian(w[:, None], cov[n] @ beta + offset[n], noise[n] ** 2) for n in range(B)]
    x = torch.cat([lg.simulate(1) for lg in lgs])

    def model(x, **batch):
        coef = pyro.param("coef", beta)
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.Normal(torch.zeros_like(batch["offset"]), 1.0))
            mean = z[:, None] * w + batch["covariates"] @ coef + batch["offset"][:, None]
            pyro.sample("x", dist.Normal(mean, batch["noise"][:, None]).to_event(1), obs=x)

    def guide(x, *, covariates, offset, noise):
        prec = 1 + (w @ w) / noise**2
        resid = x - covariates @ beta - offset.view(-1, 1)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("z", dist.Normal((resid @ w) / noise**2 / prec, prec.rsqrt()))

    lp = torch.cat([lg.log_px(x[n : n + 1]) for n, lg in enumerate(lgs)])
    return Case(
        model,
        guide,
        x,
        {"covariates": cov, "offset": offset, "noise": noise},
        log_px=lp,
        elbo=lp,
        exact_guide=True,
        trainable=True,
    )


@program
def masked_latent():
    """A latent that exists only for flagged data: z.mask(flag) in both programs, times the flag."""
    flag = torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0], dtype=F64)
    w, s = torch.tensor([0.9, -0.6], dtype=F64), 0.7
    x = flag[:, None] * randn(5, 1) * w + s * randn(5, 2)
    eye = torch.eye(2, dtype=F64)
    lp = torch.cat(
        [
            log_normal(x[n : n + 1], torch.zeros(2, dtype=F64), flag[n] * torch.outer(w, w) + s**2 * eye)
            for n in range(5)
        ]
    )
    prec = 1 + (w @ w) / s**2

    def model(x, flag):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0).mask(flag.bool()))
            pyro.sample("x", dist.Normal((flag * z)[:, None] * w, s).to_event(1), obs=x)

    def guide(x, flag):
        gain = pyro.param("gain", w / s**2 / prec)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x @ gain, prec.rsqrt()).mask(flag.bool()))

    return Case(model, guide, x, {"flag": flag}, log_px=lp, elbo=lp, exact_guide=True, trainable=True)


@program
def prediction_masked_off():
    """A site under poutine.mask(mask=False) in the model and nothing of it in the guide's density."""
    dec = upright(1, 3)
    lg = LinearGaussian(dec.weight, dec.bias, 0.49)
    x = lg.simulate(5)
    enc = near(lg, 0.05, 1.2)

    def model(x):
        pyro.module("dec", dec)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 1), 1.0).to_event(1))
            mean = dec(z)
            pyro.sample("x", dist.Normal(mean, 0.7).to_event(1), obs=x)
            with poutine.mask(mask=False):
                pyro.sample("x_hat", dist.Normal(mean, 0.7).to_event(1))

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(*enc(x)).to_event(1))
            with poutine.mask(mask=False):
                pyro.sample("x_hat", dist.Normal(dec(z), 0.7).to_event(1))

    return Case(model, guide, x, log_px=lg.log_px(x), elbo=near_elbo(lg, enc, x), trainable=True)


@program
def deterministic_sites():
    """pyro.deterministic for the mean, for a residual, for a summary of the code."""
    dec = upright(2, 4)
    lg = LinearGaussian(dec.weight, dec.bias, 0.49)
    x = lg.simulate(5)
    enc = near(lg, 0.05, 1.2)

    def model(x):
        pyro.module("dec", dec)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            norm = pyro.deterministic("norm", z.norm(dim=1))
            mean = pyro.deterministic("mean", dec(z), event_dim=1)
            pyro.sample("x", dist.Normal(mean, 0.7).to_event(1), obs=x)
            return norm

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data", len(x)):
            loc, scale = enc(x)
            pyro.deterministic("loc", loc, event_dim=1)
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))

    return Case(model, guide, x, log_px=lg.log_px(x), elbo=near_elbo(lg, enc, x), trainable=True)


@program
def likelihood_by_factor():
    """No observed site for half of the data: pyro.factor carries its log likelihood."""
    dec = upright(2, 4)
    lg = LinearGaussian(dec.weight, dec.bias, 0.49)
    x = lg.simulate(5)
    enc = near(lg, 0.05, 1.2)

    def model(x):
        pyro.module("dec", dec)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            mean = dec(z)
            pyro.sample("x", dist.Normal(mean[:, :2], 0.7).to_event(1), obs=x[:, :2])
            rest = torch.distributions.Normal(mean[:, 2:], 0.7).log_prob(x[:, 2:]).sum(1)
            pyro.factor("rest", rest)

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(*enc(x)).to_event(1))

    return Case(
        model,
        guide,
        x,
        log_px=lg.log_px(x),
        elbo=near_elbo(lg, enc, x),
        simulates=False,
        trainable=True,
    )


@program
def conditioned_program():
    """A generative program without data, bound to them by pyro.condition(...)(len(x))."""
    dec = upright(2, 4)
    lg = LinearGaussian(dec.weight, dec.bias, 0.49)
    x = lg.simulate(5)
    enc = Encoder(lg.K, -lg.K @ lg.b, lg.cov.diagonal().sqrt() * 1.1)

    def generate(n):
        pyro.module("dec", dec)
        with pyro.plate("data", n):
            z = pyro.sample("z", dist.Normal(torch.zeros(n, 2, dtype=F64), 1.0).to_event(1))
            return pyro.sample("x", dist.Normal(dec(z), 0.7).to_event(1))

    def model(x):
        return pyro.condition(generate, data={"x": x})(len(x))

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(*enc(x)).to_event(1))

    return Case(model, guide, x, log_px=lg.log_px(x), elbo=near_elbo(lg, enc, x), trainable=True)
