"""Guides of every make: automatic, local parameters, flows, auxiliary variables, modules."""

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from pyro.distributions.transforms import (
    AffineAutoregressive,
    ConditionalAffineAutoregressive,
    Spline,
    affine_coupling,
)
from pyro.infer.autoguide import AutoDiagonalNormal, AutoGuideList, AutoNormal, init_to_value
from pyro.infer.reparam import LocScaleReparam
from pyro.nn import (
    AutoRegressiveNN,
    ConditionalAutoRegressiveNN,
    PyroModule,
    PyroParam,
    PyroSample,
)
from torch import nn

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
    randn,
    upright,
)

# guides with a parameter for each datum: only the very data they were made for will do
LOCAL = {"loss": "Trace_ELBO", "max_plate_nesting": 1, "local": True}


def parts(B=5, D=4, L=2):
    dec = upright(L, D)
    lg = LinearGaussian(dec.weight, dec.bias, 0.49)
    return dec, lg, lg.simulate(B)


def plain_model(dec, L=2):
    def model(x):
        pyro.module("dec", dec)
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.Normal(x.new_zeros(x.shape[0], L), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(dec(z), 0.7).to_event(1), obs=x)

    return model


@program
def local_parameters():
    """Mean-field without amortisation: pyro.param("loc", (N, L)), one row for each datum."""
    dec, lg, x = parts()
    loc0, sd0 = lg.mean(x) + 0.1, (1.1 * lg.cov.diagonal().sqrt()).expand(5, 2).clone()

    def guide(x):
        loc = pyro.param("loc", lambda: loc0.clone())
        scale = pyro.param("scale", lambda: sd0.clone(), constraint=dist.constraints.positive)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))

    el = lg.elbo(x, loc0, sd0[0] ** 2)
    return Case(plain_model(dec), guide, x, log_px=lg.log_px(x), elbo=el, trainable=True, settings=LOCAL)


@program
def local_parameters_by_index():
    """Local parameters picked by an index given with the data: loc[ind], as in minibatches."""
    dec, lg, x = parts()
    ind = torch.tensor([3, 0, 4, 2, 1])
    loc0 = torch.zeros(5, 2, dtype=F64)
    loc0[ind] = lg.mean(x) - 0.08
    sd = 1.1 * lg.cov.diagonal().sqrt()

    def model(x, ind):
        pyro.module("dec", dec)
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.Normal(x.new_zeros(x.shape[0], 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(dec(z), 0.7).to_event(1), obs=x)

    def guide(x, ind):
        loc = pyro.param("loc", loc0)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("z", dist.Normal(loc[ind], sd).to_event(1))

    el = lg.elbo(x, lg.mean(x) - 0.08, sd**2)
    return Case(model, guide, x, {"ind": ind}, log_px=lg.log_px(x), elbo=el, trainable=True)


@program
def auto_normal():
    """AutoNormal, made for these data: its parameters have the plate's size."""
    dec, lg, x = parts()
    model = plain_model(dec)
    start = lg.mean(x) + 0.05
    sd = 1.1 * lg.cov.diagonal().sqrt().mean().item()
    guide = AutoNormal(model, init_loc_fn=init_to_value(values={"z": start}), init_scale=sd)
    pyro.clear_param_store()
    guide(x)
    guide = guide.double()
    pyro.clear_param_store()
    el = lg.elbo(x, start, torch.full((2,), sd, dtype=F64) ** 2)
    return Case(model, guide, x, log_px=lg.log_px(x), elbo=el, trainable=True, settings=LOCAL)


@program
def auto_diagonal_normal():
    """AutoDiagonalNormal: one joint vector for all data, drawn outside the plate.

    log p is right for the data together; each alone cannot be read off the guide's one site, so
    to refuse is as good.
    """
    dec, lg, x = parts(B=4)
    model = plain_model(dec)
    start = lg.mean(x) - 0.05
    sd = 1.1 * lg.cov.diagonal().sqrt().mean().item()
    guide = AutoDiagonalNormal(model, init_loc_fn=init_to_value(values={"z": start}), init_scale=sd)
    pyro.clear_param_store()
    guide(x)
    guide = guide.double()
    pyro.clear_param_store()
    el = lg.elbo(x, start, torch.full((2,), sd, dtype=F64) ** 2)
    return Case(
        model,
        guide,
        x,
        log_px=lg.log_px(x),
        elbo=el,
        trainable=True,
        settings={**LOCAL, "local": "joint", "refusal_ok": True},
    )


@program
def auto_guide_list():
    """AutoGuideList: AutoNormal on one site by poutine.block, a handwritten guide on another."""
    B = 4
    w1, w2 = torch.tensor([0.9, 0.0], dtype=F64), torch.tensor([0.0, 1.2], dtype=F64)
    lg = LinearGaussian(torch.stack([w1, w2], 1), torch.zeros(2, dtype=F64), 0.36)
    x = lg.simulate(B)

    def model(x):
        with pyro.plate("data", x.shape[0]):
            a = pyro.sample("a", dist.Normal(x.new_zeros(x.shape[0]), 1.0))
            b = pyro.sample("b", dist.Normal(x.new_zeros(x.shape[0]), 1.0))
            pyro.sample("x", dist.Normal(a[:, None] * w1 + b[:, None] * w2, 0.6).to_event(1), obs=x)

    m = lg.mean(x)
    sd = lg.cov.diagonal().sqrt()
    first = AutoNormal(
        poutine.block(model, expose=["a"]),
        init_loc_fn=init_to_value(values={"a": m[:, 0] + 0.1}),
        init_scale=1.1 * sd[0].item(),
    )

    def second(x):
        gain = pyro.param("gain", lg.K[1])
        with pyro.plate("data_b", x.shape[0]):
            return {"b": pyro.sample("b", dist.Normal(x @ gain, 1.2 * sd[1]))}

    guide = AutoGuideList(model)
    guide.append(first)
    guide.append(second)
    pyro.clear_param_store()
    guide(x)
    guide = guide.double()
    pyro.clear_param_store()
    shift = torch.tensor([0.1, 0.0], dtype=F64)
    S = torch.stack([(1.1 * sd[0]) ** 2, (1.2 * sd[1]) ** 2])
    return Case(
        model,
        guide,
        x,
        log_px=lg.log_px(x),
        elbo=lg.elbo(x, m + shift, S),
        trainable=True,
        settings=LOCAL,
    )


@program
def autoregressive_flow_guide():
    """An affine autoregressive flow on top of the encoder's normal, pyro.module("iaf", ...)."""
    dec, lg, x = parts()
    enc = near(lg, 0.0, 1.1)
    arn = AutoRegressiveNN(2, [6])
    for p in arn.parameters():
        p.data.mul_(0.3)
    flow = AffineAutoregressive(arn.double(), stable=False)

    def guide(x):
        pyro.module("enc", enc)
        pyro.module("iaf", flow)
        with pyro.plate("data", x.shape[0]):
            loc, scale = enc(x)
            pyro.sample("z", dist.TransformedDistribution(dist.Normal(loc, scale).to_event(1), [flow]))

    return Case(plain_model(dec), guide, x, log_px=lg.log_px(x), trainable=True)


@program
def conditional_flow_guide():
    """A conditional flow, condition(x), over a standard normal, then an affine layer of the data."""
    dec, lg, x = parts()
    enc = near(lg, 0.0, 1.1)
    arn = ConditionalAutoRegressiveNN(2, 4, [6])
    for p in arn.parameters():
        p.data.mul_(0.2)
    flow = ConditionalAffineAutoregressive(arn.double())

    def guide(x):
        pyro.module("enc", enc)
        pyro.module("flow", flow)
        with pyro.plate("data", len(x)):
            loc, scale = enc(x)
            base = dist.Normal(torch.zeros_like(loc), 1.0).to_event(1)
            moved = dist.transforms.AffineTransform(loc, scale, event_dim=1)
            cond = dist.ConditionalTransformedDistribution(base, [flow]).condition(x)
            pyro.sample("z", dist.TransformedDistribution(cond, [moved]))

    return Case(plain_model(dec), guide, x, log_px=lg.log_px(x), trainable=True)


@program
def coupling_flow_prior():
    """A learned prior: an affine coupling over two dimensions in the model; the guide is normal."""
    dec = upright(2, 4)
    flow = affine_coupling(2, hidden_dims=[4]).double()
    with torch.no_grad():
        for p in flow.parameters():
            p.mul_(0.5)
    # z0 = u0 and z1 = m(u0) + s(u0) u1, so p(x) is Gaussian given u0: one integral is left
    t = torch.linspace(-7, 7, 1401, dtype=F64)
    with torch.no_grad():
        at0 = flow(torch.stack([t, torch.zeros_like(t)], 1))
        at1 = flow(torch.stack([t, torch.ones_like(t)], 1))
    assert torch.equal(at0[:, 0], t)
    mu, sc = at0[:, 1], at1[:, 1] - at0[:, 1]
    A, b = dec.weight.detach(), dec.bias.detach()
    lprior = gauss(t, torch.zeros_like(t), 1.0) + torch.tensor(0.01, dtype=F64).log()
    u = randn(5, 2)
    with torch.no_grad():
        x = dec(flow(u)) + 0.7 * randn(5, 4)
    lp, ms = [], []
    eye = 0.49 * torch.eye(4, dtype=F64)
    for xn in x:
        terms, zs = [], []
        for i in range(0, 1401, 4):
            C = eye + sc[i] ** 2 * torch.outer(A[:, 1], A[:, 1])
            mean = A[:, 0] * t[i] + A[:, 1] * mu[i] + b
            terms.append(log_normal(xn[None], mean, C)[0] + lprior[i])
            gain = sc[i] ** 2 * A[:, 1] @ torch.linalg.inv(C)
            zs.append(torch.stack([t[i], mu[i] + gain @ (xn - mean)]))
        terms = torch.stack(terms)
        lp.append(terms.logsumexp(0) + torch.tensor(4.0, dtype=F64).log())
        ms.append(terms.softmax(0) @ torch.stack(zs))
    base = LinearGaussian(A, b, 0.49)
    enc = near(base, 0.0, 1.2)

    def model(x):
        pyro.module("dec", dec)
        pyro.module("flow", flow)
        with pyro.plate("data", x.shape[0]):
            u = dist.Normal(torch.zeros(x.shape[0], 2, dtype=x.dtype), 1.0).to_event(1)
            z = pyro.sample("z", dist.TransformedDistribution(u, [flow]))
            pyro.sample("x", dist.Normal(dec(z), 0.7).to_event(1), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("z", dist.Normal(*enc(x)).to_event(1))

    return Case(model, guide, x, log_px=torch.stack(lp), trainable=True)


@program
def spline_guide():
    """A rational spline, elementwise, between the encoder's normal and the code."""
    dec, lg, x = parts()
    enc = near(lg, 0.0, 1.15)
    spline = Spline(2, count_bins=4, bound=4.0)
    with torch.no_grad():
        for p in spline.parameters():
            p.zero_()
            p.add_(0.05 * torch.randn(p.shape))
    spline = spline.double()

    def guide(x):
        pyro.module("enc", enc)
        pyro.module("spline", spline)
        with pyro.plate("data", x.shape[0]):
            loc, scale = enc(x)
            noise = dist.Normal(torch.zeros_like(loc), 1.0).to_event(1)
            shift = dist.transforms.AffineTransform(loc, scale, event_dim=1)
            pyro.sample("z", dist.TransformedDistribution(noise, [spline, shift]))

    return Case(plain_model(dec), guide, x, log_px=lg.log_px(x), trainable=True)


@program
def zuko_flow_guide():
    """A zuko flow given the data, wrapped by pyro.contrib.zuko.ZukoToPyro, outputs (B, 2)."""
    # importing zuko switches the validation of all distributions off; put it back
    validate = torch.distributions.Distribution._validate_args
    import zuko
    from pyro.contrib.zuko import ZukoToPyro

    torch.distributions.Distribution.set_default_validate_args(validate)

    dec, lg, x = parts()
    enc = near(lg, 0.0, 1.1)
    maf = zuko.flows.MAF(features=2, context=4, transforms=1, hidden_features=(4,)).double()
    with torch.no_grad():
        for p in maf.parameters():
            p.mul_(0.1)

    def guide(x):
        pyro.module("enc", enc)
        pyro.module("maf", maf)
        with pyro.plate("data", len(x)):
            loc, scale = enc(x)
            base = zuko.distributions.DiagNormal(loc, scale)
            q = zuko.distributions.NormalizingFlow(maf(x).transform, base)
            pyro.sample("z", ZukoToPyro(q))

    return Case(plain_model(dec), guide, x, log_px=lg.log_px(x), trainable=True)


@program
def auxiliary_base_noise():
    """An auxiliary site draws the noise, the code is a Delta with the Jacobian in log_density."""
    dec, lg, x = parts()
    tril = torch.linalg.cholesky(1.15 * lg.cov)

    def guide(x):
        gain = pyro.param("gain", lg.K)
        with pyro.plate("data", x.shape[0]):
            eps = pyro.sample(
                "eps",
                dist.Normal(x.new_zeros(x.shape[0], 2), 1.0).to_event(1),
                infer={"is_auxiliary": True},
            )
            z = (x - dec.bias.detach()) @ gain.T + eps @ tril.T
            density = -tril.diagonal().log().sum()
            pyro.sample("z", dist.Delta(z, log_density=density.expand(x.shape[0]), event_dim=1))

    # the guide's density of (eps, z) is N(eps) / |L|, and there is no eps in the model
    el = lg.elbo(x, lg.mean(x), tril @ tril.T)
    return Case(plain_model(dec), guide, x, log_px=lg.log_px(x), elbo=el, trainable=True)


@program
def prior_as_guide():
    """The guide is the prior and looks at nothing: likelihood weighting."""
    dec = upright(1, 3, 0.3)
    lg = LinearGaussian(dec.weight, dec.bias, 2.25)
    x = lg.simulate(5)

    def model(x):
        pyro.module("dec", dec)
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.Normal(torch.zeros(x.shape[0], 1, dtype=x.dtype), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(dec(z), 1.5).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", x.shape[0]):
            pyro.sample("z", dist.Normal(torch.zeros(x.shape[0], 1, dtype=x.dtype), 1.0).to_event(1))

    m = torch.zeros(5, 1, dtype=F64)
    return Case(
        model,
        guide,
        x,
        log_px=lg.log_px(x),
        elbo=lg.elbo(x, m, torch.ones(1, dtype=F64)),
        trainable=True,
    )


@program
def mixture_guide():
    """A mixture of two normals as the guide, which has no rsample."""
    # x = |z| would have two modes; here z enters by its square
    t = torch.linspace(-8, 8, 4001, dtype=F64)
    x = torch.tensor([[0.2], [1.0], [1.9], [0.6], [3.1]], dtype=F64)
    ll = gauss(t, torch.zeros_like(t), 1.0) + gauss(x, t**2, 0.8)
    lp = ll.logsumexp(1) + torch.tensor(16 / 4000, dtype=F64).log()
    p = (ll[:, t >= 0]).softmax(1)
    tp = t[t >= 0]
    m = p @ tp
    s = ((p * (tp - m[:, None]) ** 2).sum(1)).sqrt()
    coef = torch.linalg.lstsq(torch.cat([x, torch.ones_like(x)], 1), m[:, None]).solution[:, 0]
    sd = 1.15 * s.max()

    def model(x):
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.Normal(x.new_zeros(x.shape[0], 1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z**2, 0.8).to_event(1), obs=x)

    def guide(x):
        c = pyro.param("coef", coef)
        loc = c[0] * x + c[1]
        with pyro.plate("data", x.shape[0]):
            parts = dist.Normal(torch.stack([-loc, loc], 1), sd).to_event(1)
            weights = dist.Categorical(logits=x.new_zeros(x.shape[0], 2))
            pyro.sample("z", dist.MixtureSameFamily(weights, parts))

    return Case(model, guide, x, log_px=lp, trainable=True)


@program
def pyro_module_programs():
    """Model and guide are PyroModules: PyroParam with a constraint, PyroModule[nn.Linear]."""
    dec, lg, x = parts()
    base = near(lg, 0.05, 1.1)

    class Model(PyroModule):
        def __init__(self):
            super().__init__()
            self.dec = PyroModule[nn.Linear](2, 4, dtype=F64)
            self.noise = PyroParam(torch.tensor(0.7, dtype=F64), constraint=dist.constraints.positive)

        def forward(self, x):
            with pyro.plate("data", x.shape[0]):
                z = pyro.sample("z", dist.Normal(x.new_zeros(x.shape[0], 2), 1.0).to_event(1))
                return pyro.sample("x", dist.Normal(self.dec(z), self.noise).to_event(1), obs=x)

    class Guide(PyroModule):
        def __init__(self):
            super().__init__()
            self.loc = PyroModule[nn.Linear](4, 2, dtype=F64)
            self.scale = PyroParam(base.log_scale.detach().exp(), constraint=dist.constraints.positive)

        def forward(self, x):
            with pyro.plate("data", x.shape[0]):
                return pyro.sample("z", dist.Normal(self.loc(x), self.scale).to_event(1))

    model, guide = Model(), Guide()
    model.dec.load_state_dict(dec.state_dict())
    guide.loc.load_state_dict(base.fc.state_dict())
    return Case(model, guide, x, log_px=lg.log_px(x), elbo=near_elbo(lg, base, x), trainable=True)


@program
def pyro_sample_attribute():
    """A PyroSample attribute read inside the plate is the latent of each datum."""
    w = torch.tensor([1.0, -0.6, 0.8], dtype=F64)
    lg = LinearGaussian(w[:, None], torch.zeros(3, dtype=F64), 0.49)
    x = lg.simulate(5)

    class Model(PyroModule):
        def __init__(self):
            super().__init__()
            self.w = PyroParam(w.clone())
            self.level = PyroSample(dist.Normal(torch.tensor(0.0, dtype=F64), 1.0))

        def forward(self, x):
            weights = self.w
            with pyro.plate("data", x.shape[0]):
                level = self.level
                pyro.sample("x", dist.Normal(level.unsqueeze(-1) * weights, 0.7).to_event(1), obs=x)

    sd = lg.cov[0, 0].sqrt()

    def guide(x):
        with pyro.plate("data", x.shape[0]):
            pyro.sample("level", dist.Normal(lg.mean(x)[:, 0], sd))

    lp = lg.log_px(x)
    return Case(Model(), guide, x, log_px=lp, elbo=lp, exact_guide=True, trainable=True)


@program
def decentred_by_reparam():
    """poutine.reparam with LocScaleReparam: the guide is over z_decentered."""
    loc, scale = torch.tensor(0.7, dtype=F64), torch.tensor(1.6, dtype=F64)
    w = torch.tensor([0.8, -0.5, 0.6], dtype=F64)
    lg = LinearGaussian((w * scale)[:, None], w * loc, 0.36)
    x = lg.simulate(5)
    sd = lg.cov[0, 0].sqrt()

    @poutine.reparam(config={"z": LocScaleReparam(centered=0.0)})
    def model(x):
        mu = pyro.param("mu", loc)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(mu.expand(len(x)), scale))
            pyro.sample("x", dist.Normal(z[..., None] * w, 0.6).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z_decentered", dist.Normal(lg.mean(x)[:, 0] + 0.1, 1.15 * sd))

    el = lg.elbo(x, lg.mean(x) + 0.1, (1.15 * sd).reshape(1) ** 2)
    return Case(model, guide, x, log_px=lg.log_px(x), elbo=el, trainable=True)


@program
def guide_in_other_order():
    """The guide draws b before a, under plates entered one by one, and returns a dict."""
    W = torch.tensor([[1.0, 0.5], [0.3, -0.9], [0.6, 0.7]], dtype=F64)
    lg = LinearGaussian(W, torch.zeros(3, dtype=F64), 0.49)
    x = lg.simulate(5)
    sb = lg.cov[1, 1]
    slope = lg.cov[0, 1] / sb
    sa = (lg.cov[0, 0] - slope * lg.cov[0, 1]).sqrt()

    def model(x):
        with pyro.plate("data", x.shape[0]):
            a = pyro.sample("a", dist.Normal(x.new_zeros(x.shape[0]), 1.0))
            b = pyro.sample("b", dist.Normal(x.new_zeros(x.shape[0]), 1.0))
            ab = torch.stack((a, b), dim=-1)
            pyro.sample("x", dist.Normal(ab @ W.T, 0.7).to_event(1), obs=x)

    def guide(x):
        m = lg.mean(x)
        data = pyro.plate("data", x.shape[0])
        with data:
            b = pyro.sample("b", dist.Normal(m[:, 1], sb.sqrt()))
        with data:
            a = pyro.sample("a", dist.Normal(m[:, 0] + slope * (b - m[:, 1]), sa))
        return {"a": a, "b": b}

    lp = lg.log_px(x)
    return Case(model, guide, x, log_px=lp, elbo=lp, exact_guide=True)


@program
def dropout_in_eval_mode():
    """Dropout and BatchNorm in both networks, switched off by .eval()."""
    dec, lg, x = parts()
    base = near(lg, 0.05, 1.1)
    decoder = nn.Sequential(nn.BatchNorm1d(2, eps=1e-30, affine=False), nn.Dropout(0.5), dec).double().eval()
    encoder = nn.Sequential(nn.Dropout(0.3), base.fc).eval()
    sd = base.log_scale.detach().exp()

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.Normal(x.new_zeros(x.shape[0], 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z), 0.7).to_event(1), obs=x)

    def guide(x):
        pyro.module("encoder", encoder)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("z", dist.Normal(encoder(x), sd).to_event(1))

    return Case(model, guide, x, log_px=lg.log_px(x), elbo=near_elbo(lg, base, x), trainable=True)


@program
def standardised_features():
    """x standardised by fixed numbers, and its own norm as one more feature of the guide."""
    dec, lg, x = parts()
    mean, std = lg.b, lg.Sx.diagonal().sqrt()
    K = lg.K * std
    enc = Encoder(
        torch.cat([K, torch.zeros(2, 1, dtype=F64)], 1),
        torch.zeros(2, dtype=F64),
        1.1 * lg.cov.diagonal().sqrt(),
    )
    with torch.no_grad():
        enc.fc.weight[:, -1] += 0.03

    def guide(x):
        pyro.module("enc", enc)
        h = (x - mean) / std
        feats = torch.cat([h, h.norm(dim=1, keepdim=True)], dim=1)
        with pyro.plate("data", x.size(0)):
            pyro.sample("z", dist.Normal(*enc(feats)).to_event(1))

    m = lg.mean(x) + 0.03 * ((x - mean) / std).norm(dim=1, keepdim=True)
    el = lg.elbo(x, m, 1.21 * lg.cov.diagonal())
    return Case(plain_model(dec), guide, x, log_px=lg.log_px(x), elbo=el, trainable=True)
