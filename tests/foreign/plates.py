"""Plates under other names, other shapes and other customs, and what goes with them."""

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch

from ._common import (
    F64,
    Case,
    LinearGaussian,
    gauss,
    near,
    near_elbo,
    program,
    randn,
    upright,
)

TWO = {"loss": "Trace_ELBO", "max_plate_nesting": 2}


def factor_analysis(B=5, D=4, L=2, var=0.49):
    dec = upright(L, D)
    lg = LinearGaussian(dec.weight, dec.bias, var)
    return dec, lg, lg.simulate(B)


@program
def plate_named_batch():
    """A plate called "batch" in the model and "obs" in the guide."""
    dec, lg, x = factor_analysis()
    enc = near(lg)

    def model(x):
        pyro.module("dec", dec)
        with pyro.plate("batch", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(dec(z), 0.7).to_event(1), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("obs", len(x)):
            pyro.sample("z", dist.Normal(*enc(x)).to_event(1))

    return Case(model, guide, x, log_px=lg.log_px(x), elbo=near_elbo(lg, enc, x), trainable=True)


@program
def plate_named_cells():
    """A plate called "cells", the plate object kept and entered two times."""
    dec, lg, x = factor_analysis()
    enc = near(lg)

    def model(counts):
        pyro.module("dec", dec)
        cells = pyro.plate("cells", counts.shape[0])
        with cells:
            z = pyro.sample("z", dist.Normal(counts.new_zeros(counts.shape[0], 2), 1.0).to_event(1))
        mean = dec(z)
        with cells:
            pyro.sample("counts", dist.Normal(mean, 0.7).to_event(1), obs=counts)

    def guide(counts):
        pyro.module("enc", enc)
        loc, scale = enc(counts)
        with pyro.plate("cells", counts.shape[0]):
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))

    return Case(model, guide, x, log_px=lg.log_px(x), elbo=near_elbo(lg, enc, x), trainable=True)


@program
def plate_without_size():
    """pyro.plate("data") with no size at all, in the model and the guide."""
    dec, lg, x = factor_analysis()
    enc = near(lg)

    def model(x):
        pyro.module("dec", dec)
        with pyro.plate("data"):
            z = pyro.sample(
                "z", dist.Normal(x.new_zeros(x.shape[0], 2), x.new_ones(x.shape[0], 2)).to_event(1)
            )
            pyro.sample("x", dist.Normal(dec(z), 0.7).to_event(1), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data"):
            pyro.sample("z", dist.Normal(*enc(x)).to_event(1))

    return Case(model, guide, x, log_px=lg.log_px(x), elbo=near_elbo(lg, enc, x), trainable=True)


@program
def plate_minibatch_subsample():
    """plate("minibatch", N, subsample=x): the data themselves as the subsample, scale one."""
    dec, lg, x = factor_analysis()
    enc = near(lg)

    def model(x):
        pyro.module("dec", dec)
        with pyro.plate("minibatch", len(x), subsample=x) as batch:
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(dec(z), 0.7).to_event(1), obs=batch)

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("minibatch", len(x), subsample=x) as batch:
            pyro.sample("z", dist.Normal(*enc(batch)).to_event(1))

    return Case(model, guide, x, log_px=lg.log_px(x), elbo=near_elbo(lg, enc, x), trainable=True)


@program
def plate_subsample_size():
    """plate("data", N, subsample_size=N) as ind, and x[ind]."""
    dec, lg, x = factor_analysis()
    enc = near(lg)

    def model(x):
        pyro.module("dec", dec)
        with pyro.plate("data", len(x), subsample_size=len(x)) as ind:
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(ind), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(dec(z), 0.7).to_event(1), obs=x.index_select(0, ind))

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data", len(x), subsample_size=len(x)) as ind:
            pyro.sample("z", dist.Normal(*enc(x[ind])).to_event(1))

    return Case(model, guide, x, log_px=lg.log_px(x), elbo=near_elbo(lg, enc, x), trainable=True)


@program
def plate_of_a_larger_set():
    """plate("data", 1000, subsample=x): every term scaled to the size of the whole set.

    log p(x_n) is that of the unscaled program; to refuse it is as good.
    """
    dec, lg, x = factor_analysis()
    enc = near(lg)

    def model(x):
        pyro.module("dec", dec)
        with pyro.plate("data", 1000, subsample=x):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(dec(z), 0.7).to_event(1), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data", 1000, subsample=x):
            pyro.sample("z", dist.Normal(*enc(x)).to_event(1))

    return Case(
        model,
        guide,
        x,
        log_px=lg.log_px(x),
        elbo=near_elbo(lg, enc, x),
        trainable=True,
        settings={
            "loss": "Trace_ELBO",
            "max_plate_nesting": 1,
            "unscaled": True,
            "refusal_ok": True,
        },
    )


@program
def plate_as_decorator():
    """The plate as a decorator around inner functions."""
    dec, lg, x = factor_analysis()
    enc = near(lg)

    def model(x):
        pyro.module("dec", dec)

        @pyro.plate("data", len(x))
        def generate():
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            return pyro.sample("x", dist.Normal(dec(z), 0.7).to_event(1), obs=x)

        return generate()

    def guide(x):
        pyro.module("enc", enc)

        @pyro.plate("data", len(x))
        def infer(loc, scale):
            return pyro.sample("z", dist.Normal(loc, scale).to_event(1))

        return infer(*enc(x))

    return Case(model, guide, x, log_px=lg.log_px(x), elbo=near_elbo(lg, enc, x), trainable=True)


@program
def broadcast_handler():
    """@poutine.broadcast over programs that never expand: scalar distributions widen in the plate."""
    s = 0.8
    lg = LinearGaussian(torch.tensor([[1.1]], dtype=F64), torch.tensor([0.3], dtype=F64), s**2)
    x = lg.simulate(6)[:, 0]
    zero = torch.tensor(0.0, dtype=F64)

    @poutine.broadcast
    def model(x):
        with pyro.plate("data", x.size(0)):
            z = pyro.sample("z", dist.Normal(zero, 1.0))
            pyro.sample("x", dist.Normal(1.1 * z + 0.3, s), obs=x)

    @poutine.broadcast
    def guide(x):
        gain = pyro.param("gain", lg.K[0, 0].clone())
        with pyro.plate("data", x.size(0)):
            pyro.sample("z", dist.Normal(gain * (x - 0.3) + 0.1, 1.2 * lg.cov[0, 0].sqrt()))

    m = lg.mean(x[:, None]) + 0.1
    return Case(
        model,
        guide,
        x,
        log_px=lg.log_px(x[:, None]),
        elbo=lg.elbo(x[:, None], m, 1.44 * lg.cov),
        trainable=True,
    )


@program
def annealing_factor():
    """poutine.scale with an annealing factor, a keyword that is 1 unless told."""
    dec, lg, x = factor_analysis()
    enc = near(lg)

    def model(x, annealing_factor=1.0):
        pyro.module("dec", dec)
        with pyro.plate("data", len(x)):
            with poutine.scale(None, annealing_factor):
                z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(dec(z), 0.7).to_event(1), obs=x)

    def guide(x, annealing_factor=1.0):
        pyro.module("enc", enc)
        with pyro.plate("data", len(x)), poutine.scale(None, annealing_factor):
            pyro.sample("z", dist.Normal(*enc(x)).to_event(1))

    return Case(model, guide, x, log_px=lg.log_px(x), elbo=near_elbo(lg, enc, x), trainable=True)


@program
def pixels_plate_right():
    """Data at dim=-2, an inner plate of pixels at dim=-1; z has a dimension of one between."""
    dec, lg, x = factor_analysis()
    enc = near(lg)

    def model(x):
        pyro.module("dec", dec)
        N, D = x.shape
        with pyro.plate("data", N, dim=-2):
            z = pyro.sample("z", dist.Normal(x.new_zeros(N, 1, 2), 1.0).to_event(1))
            mean = dec(z).squeeze(-2)
            with pyro.plate("pixels", D, dim=-1):
                pyro.sample("x", dist.Normal(mean, 0.7), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        loc, scale = enc(x)
        with pyro.plate("data", len(x), dim=-2):
            pyro.sample("z", dist.Normal(loc.unsqueeze(1), scale.unsqueeze(1)).to_event(1))

    return Case(
        model,
        guide,
        x,
        log_px=lg.log_px(x),
        elbo=near_elbo(lg, enc, x),
        trainable=True,
        settings=TWO,
    )


@program
def pixels_plate_left():
    """Data at dim=-1, pixels to the left at dim=-2, so the data enter as obs=x.t()."""
    dec, lg, x = factor_analysis()
    enc = near(lg)

    def model(x):
        pyro.module("dec", dec)
        N, D = x.shape
        data = pyro.plate("data", N, dim=-1)
        pixels = pyro.plate("pixels", D, dim=-2)
        with data:
            z = pyro.sample("z", dist.Normal(x.new_zeros(N, 2), 1.0).to_event(1))
        mean = dec(z).transpose(-1, -2)
        with data, pixels:
            pyro.sample("x", dist.Normal(mean, 0.7), obs=x.t())

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(*enc(x)).to_event(1))

    return Case(
        model,
        guide,
        x,
        log_px=lg.log_px(x),
        elbo=near_elbo(lg, enc, x),
        simulates=False,
        trainable=True,
        settings=TWO,
    )


@program
def latent_dims_plate():
    """No to_event: the dimensions of z and of x are plates, "data" at -2 in all."""
    dec, lg, x = factor_analysis()
    enc = near(lg)

    def model(x):
        pyro.module("dec", dec)
        with pyro.plate("data", x.shape[0], dim=-2):
            with pyro.plate("latent_dim", 2, dim=-1):
                z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            with pyro.plate("features", x.shape[1], dim=-1):
                pyro.sample("x", dist.Normal(dec(z), 0.7), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        loc, scale = enc(x)
        with pyro.plate("data", x.shape[0], dim=-2), pyro.plate("latent_dim", 2, dim=-1):
            pyro.sample("z", dist.Normal(loc, scale))

    return Case(
        model,
        guide,
        x,
        log_px=lg.log_px(x),
        elbo=near_elbo(lg, enc, x),
        trainable=True,
        settings=TWO,
    )


@program
def plate_stack():
    """pyro.plate_stack("image", (N, H, W)): only pixels, all latent and local."""
    B, H, W = 4, 2, 2
    sd0 = torch.tensor([[1.0, 0.6], [1.4, 0.8]], dtype=F64)
    x = sd0 * randn(B, H, W) + 0.5 * randn(B, H, W)

    def model(x):
        with pyro.plate_stack("image", x.shape):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), sd0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    v = 1 / (1 / sd0**2 + 4)

    def guide(x):
        gain = pyro.param("gain", 4 * v)
        with pyro.plate_stack("image", x.shape):
            pyro.sample("z", dist.Normal(gain * x, v.sqrt()))

    lp = gauss(x, torch.zeros_like(x), (sd0**2 + 0.25).sqrt()).sum((1, 2))
    return Case(
        model,
        guide,
        x,
        log_px=lp,
        elbo=lp,
        exact_guide=True,
        trainable=True,
        settings={"loss": "Trace_ELBO", "max_plate_nesting": 3},
    )


@program
def sequential_time_plate():
    """for t in pyro.plate("time", T): a site for each step inside the data plate."""
    T = 3
    w = torch.tensor([1.0, 0.7, 1.3], dtype=F64)
    lg = LinearGaussian(torch.diag(w), torch.zeros(T, dtype=F64), 0.64)
    x = lg.simulate(5)
    enc = near(lg)

    def model(x):
        with pyro.plate("data", len(x)):
            for t in pyro.plate("time", T):
                z = pyro.sample(f"z_{t}", dist.Normal(x.new_zeros(len(x)), 1.0))
                pyro.sample(f"x_{t}", dist.Normal(w[t] * z, 0.8), obs=x[:, t])

    def guide(x):
        pyro.module("enc", enc)
        loc, scale = enc(x)
        with pyro.plate("data", len(x)):
            for t in pyro.plate("time", T):
                pyro.sample(f"z_{t}", dist.Normal(loc[:, t], scale[:, t]))

    return Case(
        model,
        guide,
        x,
        log_px=lg.log_px(x),
        elbo=near_elbo(lg, enc, x),
        trainable=True,
        simulates=False,
    )


@program
def sequential_data_plate():
    """for i in pyro.plate("data", len(x)): each datum has its own sites, as in the first tutorial."""
    lg = LinearGaussian(torch.tensor([[1.0], [0.5]], dtype=F64), torch.zeros(2, dtype=F64), 0.49)
    x = lg.simulate(4)

    def model(x):
        for i in pyro.plate("data", len(x)):
            z = pyro.sample(f"z_{i}", dist.Normal(x.new_tensor(0.0), 1.0))
            mean = torch.stack([z, 0.5 * z], -1)
            pyro.sample(f"x_{i}", dist.Normal(mean, 0.7).to_event(1), obs=x[i])

    def guide(x):
        gain = pyro.param("gain", lg.K[0])
        for i in pyro.plate("data", len(x)):
            pyro.sample(f"z_{i}", dist.Normal(x[i] @ gain, lg.cov[0, 0].sqrt()))

    lp = lg.log_px(x)
    return Case(
        model,
        guide,
        x,
        log_px=lp,
        elbo=lp,
        exact_guide=True,
        trainable=True,
        settings={"loss": "Trace_ELBO", "max_plate_nesting": 0, "refusal_ok": True},
        simulates=False,
    )


@program
def no_plate_at_all():
    """Batch shapes alone keep the data apart: no plate in the model or the guide."""
    dec, lg, x = factor_analysis()
    enc = near(lg)

    def model(x):
        pyro.module("dec", dec)
        z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(dec(z), 0.7).to_event(1), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        pyro.sample("z", dist.Normal(*enc(x)).to_event(1))

    return Case(
        model,
        guide,
        x,
        log_px=lg.log_px(x),
        elbo=near_elbo(lg, enc, x),
        trainable=True,
        settings={"loss": "Trace_ELBO", "max_plate_nesting": 1, "refusal_ok": True},
    )


@program
def groups_within_data():
    """A random effect for each of three groups inside a datum: an inner plate with latents."""
    B, G, R = 4, 3, 2
    # x_{g,r} = u + v_g + e
    one = torch.ones(G * R, 1, dtype=F64)
    Z = torch.kron(torch.eye(G, dtype=F64), torch.ones(R, 1, dtype=F64))
    lg = LinearGaussian(torch.cat([one, 0.7 * Z], 1), torch.zeros(G * R, dtype=F64), 0.36)
    flat = lg.simulate(B)
    x = flat.view(B, G, R)
    # the exact posterior, by u first and then v_g given u
    su = lg.cov[0, 0]
    slope = lg.cov[1:, 0] / su
    rest = lg.cov[1:, 1:] - torch.outer(lg.cov[1:, 0], lg.cov[1:, 0]) / su
    assert (rest - torch.diag(rest.diagonal())).abs().max() < 1e-10

    def model(x):
        data = pyro.plate("data", x.shape[0], dim=-2)
        with data:
            u = pyro.sample("u", dist.Normal(x.new_zeros(x.shape[0], 1), 1.0))
            with pyro.plate("groups", G, dim=-1):
                v = pyro.sample("v", dist.Normal(x.new_zeros(x.shape[0], G), 1.0))
                mean = (u + 0.7 * v).unsqueeze(-1)
                pyro.sample("x", dist.Normal(mean, 0.6).expand([*mean.shape[:-1], R]).to_event(1), obs=x)

    def guide(x):
        m = lg.mean(x.reshape(len(x), -1))
        with pyro.plate("data", x.shape[0], dim=-2):
            u = pyro.sample("u", dist.Normal(m[:, :1], su.sqrt()))
            with pyro.plate("groups", G, dim=-1):
                pyro.sample("v", dist.Normal(m[:, 1:] + slope * (u - m[:, :1]), rest.diagonal().sqrt()))

    lp = lg.log_px(flat)
    return Case(model, guide, x, log_px=lp, elbo=lp, exact_guide=True, settings=TWO)


@program
def data_plate_among_equals():
    """Two plates of one size side by side, B pixels and B data: the data plate is told by name."""
    B = 4
    dec = upright(2, B)
    lg = LinearGaussian(dec.weight, dec.bias, 0.64)
    x = lg.simulate(B)
    enc = near(lg)

    def model(x):
        pyro.module("dec", dec)
        with pyro.plate("rows", x.shape[0], dim=-2):
            z = pyro.sample("z", dist.Normal(x.new_zeros(x.shape[0], 1, 2), 1.0).to_event(1))
            with pyro.plate("cols", x.shape[1], dim=-1):
                pyro.sample("x", dist.Normal(dec(z).squeeze(-2), 0.8), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        loc, scale = enc(x)
        with pyro.plate("rows", x.shape[0], dim=-2):
            pyro.sample("z", dist.Normal(loc[:, None], scale[:, None]).to_event(1))

    return Case(
        model,
        guide,
        x,
        log_px=lg.log_px(x),
        elbo=near_elbo(lg, enc, x),
        data_plate="rows",
        trainable=True,
        settings=TWO,
    )


@program
def other_plates_first():
    """A plate of global size declared before the data plate, used only for fixed sites' shapes."""
    dec, lg, x = factor_analysis(B=5, D=5)
    enc = near(lg)

    def model(x):
        pyro.module("dec", dec)
        features = pyro.plate("features", 5, dim=-2)
        data = pyro.plate("data", x.shape[0], dim=-1)
        with data:
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), x.new_ones(2)).to_event(1))
        with features, data:
            pyro.sample("x", dist.Normal(dec(z).transpose(-1, -2), 0.7), obs=x.transpose(0, 1))

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data", x.shape[0], dim=-1):
            pyro.sample("z", dist.Normal(*enc(x)).to_event(1))

    return Case(
        model,
        guide,
        x,
        log_px=lg.log_px(x),
        elbo=near_elbo(lg, enc, x),
        data_plate="data",
        simulates=False,
        trainable=True,
        settings=TWO,
    )


@program
def average_over_the_data():
    """poutine.scale(1 / len(x)) around both programs, which log p(x) leaves out: an average as the loss."""
    dec, lg, x = factor_analysis()
    enc = near(lg)

    def model(x):
        with poutine.scale(scale=1 / len(x)), pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(dec(z), 0.7).to_event(1), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        with poutine.scale(scale=1 / len(x)), pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(*enc(x)).to_event(1))

    return Case(model, guide, x, log_px=lg.log_px(x), elbo=near_elbo(lg, enc, x), trainable=True)


@program
def batch_in_the_event():
    """to_event(2) and no plate: the whole batch is one event."""
    dec, lg, x = factor_analysis()
    enc = near(lg)

    def model(x):
        pyro.module("dec", dec)
        z = pyro.sample("z", dist.Normal(x.new_zeros(x.shape[0], 2), 1.0).to_event(2))
        pyro.sample("x", dist.Normal(dec(z), 0.7).to_event(2), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        pyro.sample("z", dist.Normal(*enc(x)).to_event(2))

    return Case(
        model,
        guide,
        x,
        log_px=lg.log_px(x),
        elbo=near_elbo(lg, enc, x),
        trainable=True,
        settings={"loss": "Trace_ELBO", "max_plate_nesting": 0},
    )


@program
def centred_in_the_event():
    """The same, with codes that are centred over the batch."""
    dec, lg, x = factor_analysis()
    enc = near(lg)

    def model(x):
        z = pyro.sample("z", dist.Normal(x.new_zeros(x.shape[0], 2), 1.0).to_event(2))
        pyro.sample("x", dist.Normal(dec(z - z.mean(0)), 0.7).to_event(2), obs=x)

    def guide(x):
        pyro.sample("z", dist.Normal(*enc(x)).to_event(2))

    return Case(model, guide, x, refused="the codes are centred over the batch")
