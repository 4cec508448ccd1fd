"""Time series: a site for each step, masks by length, loops in Python."""

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch

from ._common import (
    F64,
    Case,
    LinearGaussian,
    log_normal,
    near,
    near_elbo,
    program,
    randn,
    upright,
)


def walk_prior(T, a, q):
    """Covariance of z_1..z_T with z_t = a z_{t-1} + N(0, q^2), z_0 = 0."""
    M = torch.eye(T, dtype=F64)
    for t in range(1, T):
        M[t, t - 1] = -a
    F = torch.linalg.inv(M)
    return q**2 * F @ F.T


def conditionals(cov):
    """z_t | z_<t under a Gaussian: coefficients and sd for each t."""
    out = []
    for t in range(len(cov)):
        if t == 0:
            out.append((None, cov[0, 0].sqrt()))
            continue
        c = torch.linalg.solve(cov[:t, :t], cov[:t, t])
        out.append((c, (cov[t, t] - c @ cov[:t, t]).sqrt()))
    return out


@program
def state_space_loop():
    """Sites z_0..z_3 and x_0..x_3 from a for-loop; the guide is the exact smoother."""
    T, a, q, c, r = 4, 0.8, 0.9, 1.2, 0.6
    P0 = walk_prior(T, a, q)
    lg = LinearGaussian(c * torch.eye(T, dtype=F64), torch.zeros(T, dtype=F64), r**2, P0=P0)
    x = lg.simulate(5)
    cond = conditionals(lg.cov)

    def model(x):
        z = 0.0 * x[:, 0]
        with pyro.plate("data", len(x)):
            for t in range(T):
                z = pyro.sample(f"z_{t}", dist.Normal(a * z, q))
                pyro.sample(f"x_{t}", dist.Normal(c * z, r), obs=x[:, t])

    def guide(x):
        m = lg.mean(x)
        zs = []
        with pyro.plate("data", len(x)):
            for t, (coef, sd) in enumerate(cond):
                loc = m[:, t]
                if t > 0:
                    loc = loc + (torch.stack(zs, 1) - m[:, :t]) @ coef
                zs.append(pyro.sample(f"z_{t}", dist.Normal(loc, sd)))

    lp = lg.log_px(x)
    return Case(model, guide, x, log_px=lp, elbo=lp, exact_guide=True, simulates=False)


@program
def markov_range():
    """for t in pyro.markov(range(T)) with vector states and a transition network nn.Linear."""
    T, L = 3, 2
    trans, emit = upright(L, L, 0.3), upright(L, 2, 1.0)
    Ft, ft = trans.weight.detach(), trans.bias.detach()
    # joint prior of (z_0, z_1, z_2), all driven by unit noises scaled 0.7
    M = torch.eye(T * L, dtype=F64)
    m0 = torch.zeros(T * L, dtype=F64)
    prev = torch.zeros(L, dtype=F64)
    for t in range(T):
        if t:
            M[t * L : t * L + L, (t - 1) * L : t * L] = -Ft
        prev = Ft @ prev + ft
        m0[t * L : t * L + L] = prev
    Fi = torch.linalg.inv(M)
    A = torch.kron(torch.eye(T, dtype=F64), emit.weight.detach())
    lg = LinearGaussian(A, emit.bias.detach().repeat(T), 0.36, m0=m0, P0=0.49 * Fi @ Fi.T)
    x = lg.simulate(4).view(4, T, 2)
    enc = near(lg, 0.03, 1.0)

    def model(x):
        pyro.module("trans", trans)
        pyro.module("emit", emit)
        with pyro.plate("data", x.shape[0]):
            z = torch.zeros(x.shape[0], L, dtype=x.dtype)
            for t in pyro.markov(range(T)):
                z = pyro.sample(f"z_{t}", dist.Normal(trans(z), 0.7).to_event(1))
                pyro.sample(f"x_{t}", dist.Normal(emit(z), 0.6).to_event(1), obs=x[:, t, :])

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data", x.shape[0]):
            loc, scale = enc(x.flatten(1))
            for t in pyro.markov(range(T)):
                pick = slice(t * L, t * L + L)
                pyro.sample(f"z_{t}", dist.Normal(loc[:, pick], scale[:, pick]).to_event(1))

    flat = x.flatten(1)
    return Case(
        model,
        guide,
        x,
        log_px=lg.log_px(flat),
        elbo=near_elbo(lg, enc, flat),
        trainable=True,
        simulates=False,
    )


def ragged(B_lengths, T, a, q, c, r):
    P0 = walk_prior(T, a, q)
    rows, lps = [], []
    for n in B_lengths:
        lg = LinearGaussian(c * torch.eye(n, dtype=F64), torch.zeros(n, dtype=F64), r**2, P0=P0[:n, :n])
        row = torch.zeros(T, dtype=F64)
        row[:n] = lg.simulate(1)[0]
        rows.append(row)
        lps.append(log_normal(row[None, :n], torch.zeros(n, dtype=F64), lg.Sx))
    return torch.stack(rows), torch.cat(lps)


@program
def lengths_masked():
    """Padded sequences; poutine.mask by lengths on each z_t and x_t, as in the deep Markov model."""
    T, a, q, c, r = 4, 0.4, 0.8, 1.0, 0.7
    lengths = torch.tensor([4, 2, 3, 1, 4])
    x, lp = ragged(lengths.tolist(), T, a, q, c, r)

    def model(x, lengths):
        N, T_max = x.shape
        mask = torch.arange(T_max).expand(N, T_max) < lengths.unsqueeze(1)
        z = x.new_zeros(N)
        with pyro.plate("data", N):
            for t in range(T_max):
                with poutine.mask(mask=mask[:, t]):
                    z = pyro.sample(f"z_{t}", dist.Normal(a * z, q))
                    pyro.sample(f"x_{t}", dist.Normal(c * z, r), obs=x[:, t])

    # one filter step as an approximate posterior: prior N(a z, q^2) times the likelihood
    v = 1 / (1 / q**2 + c**2 / r**2)

    def guide(x, lengths):
        N, T_max = x.shape
        mask = torch.arange(T_max).expand(N, T_max) < lengths.unsqueeze(1)
        log_sd = pyro.param("log_sd", torch.tensor(v, dtype=F64).log() / 2)
        z = x.new_zeros(N)
        with pyro.plate("data", N):
            for t in range(T_max):
                with poutine.mask(mask=mask[:, t]):
                    loc = v * (a * z / q**2 + c * x[:, t] / r**2)
                    z = pyro.sample(f"z_{t}", dist.Normal(loc, log_sd.exp()))

    return Case(model, guide, x, {"lengths": lengths}, log_px=lp, trainable=True, simulates=False)


@program
def longest_in_batch():
    """The loop ends at int(lengths.max()), so a batch and a datum alone have different sites."""
    T, a, q, c, r = 4, 0.4, 1.0, 1.0, 0.8
    lengths = torch.tensor([3, 1, 2, 4])
    x, lp = ragged(lengths.tolist(), T, a, q, c, r)
    v = 1 / (1 / q**2 + c**2 / r**2)

    def model(x, lengths):
        z = torch.zeros(len(x), dtype=x.dtype)
        with pyro.plate("sequences", len(x)):
            for t in range(int(lengths.max())):
                with poutine.mask(mask=(t < lengths)):
                    z = pyro.sample(f"z_{t}", dist.Normal(a * z, q))
                    pyro.sample(f"x_{t}", dist.Normal(c * z, r), obs=x[:, t])

    def guide(x, lengths):
        z = torch.zeros(len(x), dtype=x.dtype)
        with pyro.plate("sequences", len(x)):
            for t in range(int(lengths.max())):
                with poutine.mask(mask=(t < lengths)):
                    loc = v * (a * z / q**2 + c * x[:, t] / r**2)
                    z = pyro.sample(f"z_{t}", dist.Normal(loc, v**0.5))

    return Case(model, guide, x, {"lengths": lengths}, log_px=lp, simulates=False)


@program
def mask_on_the_likelihood_only():
    """One code for a sequence; only the observations carry the mask: dist.mask(mask).to_event(1)."""
    B, T = 5, 4
    lengths = torch.tensor([2, 4, 1, 3, 4])
    w = torch.tensor([0.9, 0.7, 1.1, 0.8], dtype=F64)
    full = LinearGaussian(w[:, None], torch.zeros(T, dtype=F64), 0.49)
    raw = full.simulate(B)
    keep = torch.arange(T) < lengths[:, None]
    x = raw * keep
    lp = []
    for n in range(B):
        k = int(lengths[n])
        lp.append(log_normal(x[n : n + 1, :k], torch.zeros(k, dtype=F64), full.Sx[:k, :k]))

    def model(x, lengths):
        mask = torch.arange(T) < lengths[:, None]
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z * w, 0.7).mask(mask).to_event(1), obs=x)

    def guide(x, lengths):
        mask = (torch.arange(T) < lengths[:, None]).to(x.dtype)
        prec = 1 + (mask * w**2).sum(1) / 0.49
        loc = (mask * w * x).sum(1) / 0.49 / prec
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc[:, None], prec.rsqrt()[:, None]).to_event(1))

    lp = torch.cat(lp)
    return Case(model, guide, x, {"lengths": lengths}, log_px=lp, elbo=lp, exact_guide=True)


@program
def time_first_rows():
    """x turned to time first, then x[t] in a loop; states kept in a list and stacked at dim 0."""
    T, a, q, c, r = 3, 0.6, 1.0, 0.9, 0.7
    P0 = walk_prior(T, a, q)
    lg = LinearGaussian(c * torch.eye(T, dtype=F64), torch.zeros(T, dtype=F64), r**2, P0=P0)
    x = lg.simulate(6)
    enc = near(lg, 0.0, 1.0)

    def model(x):
        xs = x.transpose(0, 1)
        states = [torch.zeros(x.shape[0], dtype=x.dtype)]
        with pyro.plate("data", x.shape[0]):
            for t in range(T):
                states.append(pyro.sample(f"z_{t}", dist.Normal(a * states[-1], q)))
                pyro.sample(f"x_{t}", dist.Normal(c * states[-1], r), obs=xs[t])
        return torch.stack(states[1:], 0)

    def guide(x):
        pyro.module("enc", enc)
        loc, scale = enc(x)
        locs, scales = loc.t(), scale.t()
        with pyro.plate("data", x.shape[0]):
            for t in range(T):
                pyro.sample(f"z_{t}", dist.Normal(locs[t], scales[t]))

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
def global_code_and_steps():
    """A code for the whole sequence and one for each step: an inner plate of time at dim=-1."""
    T = 3
    # x_t = u + 0.8 v_t + e
    A = torch.cat([torch.ones(T, 1, dtype=F64), 0.8 * torch.eye(T, dtype=F64)], 1)
    lg = LinearGaussian(A, torch.zeros(T, dtype=F64), 0.25)
    x = lg.simulate(5)
    enc = near(lg, 0.0, 1.1)
    # v | u, x of the exact posterior, with u from its own exact marginal widened
    su = lg.cov[0, 0].sqrt()
    kv = 0.8 / (0.64 + 0.25)
    sv = (1 - 0.8 * kv) ** 0.5

    def model(x):
        with pyro.plate("data", x.shape[0], dim=-2):
            u = pyro.sample("u", dist.Normal(x.new_zeros(x.shape[0], 1), 1.0))
            with pyro.plate("time", T, dim=-1):
                v = pyro.sample("v", dist.Normal(x.new_zeros(x.shape[0], T), 1.0))
                pyro.sample("x", dist.Normal(u + 0.8 * v, 0.5), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        loc = enc(x)[0][:, :1]
        with pyro.plate("data", x.shape[0], dim=-2):
            u = pyro.sample("u", dist.Normal(loc, 1.2 * su))
            with pyro.plate("time", T, dim=-1):
                pyro.sample("v", dist.Normal(kv * (x - u), sv))

    return Case(
        model,
        guide,
        x,
        log_px=lg.log_px(x),
        trainable=True,
        settings={"loss": "Trace_ELBO", "max_plate_nesting": 2},
    )


@program
def autoregressive_likelihood():
    """The data feed the next step: x_t ~ N(w z + v x_{t-1}), sliced as x[:, t-1:t]."""
    T, w, v, r = 4, 0.9, 0.5, 0.6
    z0 = torch.ones(T, 1, dtype=F64) * w
    M = torch.eye(T, dtype=F64)
    for t in range(1, T):
        M[t, t - 1] = -v
    Mi = torch.linalg.inv(M)
    lg = LinearGaussian(Mi @ z0, torch.zeros(T, dtype=F64), r**2 * Mi @ Mi.T)
    x = lg.simulate(5)
    enc = near(lg, 0.05, 1.2)

    def model(x):
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.Normal(x.new_zeros(x.shape[0], 1), 1.0).to_event(1))
            past = torch.zeros(x.shape[0], 1, dtype=x.dtype)
            for t in range(T):
                pyro.sample(f"x_{t}", dist.Normal(w * z + v * past, r).to_event(1), obs=x[:, t : t + 1])
                past = x[:, t : t + 1]

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data", x.shape[0]):
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
def one_shot_shifted():
    """Teacher forcing in one site: F.pad(x)[:, :-1] beside the code, (B, T) at once."""
    T, w, v, r = 3, 1.1, -0.4, 0.5
    M = torch.eye(T, dtype=F64)
    for t in range(1, T):
        M[t, t - 1] = -v
    Mi = torch.linalg.inv(M)
    b = randn(T) * 0.2
    lg = LinearGaussian(Mi @ torch.full((T, 1), w, dtype=F64), Mi @ b, r**2 * Mi @ Mi.T)
    x = lg.simulate(5)
    sd = lg.cov[0, 0].sqrt()

    def model(x):
        shifted = torch.nn.functional.pad(x, (1, 0))[:, :-1]
        bias = pyro.param("bias", b)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 1, dtype=F64), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(w * z + v * shifted + bias, r).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(lg.mean(x), sd).to_event(1))

    lp = lg.log_px(x)
    return Case(model, guide, x, log_px=lp, elbo=lp, exact_guide=True, simulates=False, trainable=True)
