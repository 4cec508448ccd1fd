"""What the foreign programs share: the record of one program and the algebra of its answers.

Nothing here runs a Pyro program.  The answers come from scipy, from linear algebra and from
quadrature on a grid, so they share no code with what is being tested.
"""

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from torch import Tensor, nn

F64 = torch.float64


@dataclass(frozen=True, eq=False)
class Case:
    """One program, its data and what is known about log p(x).

    Call ``pyro.clear_param_store()`` before using one: different programs name their
    modules "encoder" and "decoder", as people do.
    """

    model: Callable
    guide: Callable
    x: Tensor
    given: dict[str, Tensor] = field(default_factory=dict)
    log_px: Tensor | None = None  # (B,) exact log p(x_n | given_n)
    elbo: Tensor | None = None  # (B,) exact ELBO of the model and the guide
    exact_guide: bool = False  # the guide is the exact posterior
    data_plate: str | None = None  # only where the plate's name must be told
    continuous: bool = True  # no discrete latents but those marked for enumeration
    simulates: bool = True  # one site observes all of the argument, perhaps reshaped
    refused: str = ""  # why no answer can be right
    trainable: bool = False  # SVI finds parameters to train
    # "loss": the Pyro ELBO a user would take; "max_plate_nesting": what they would pass it;
    # "raises": the exception type that the program's own code raises;
    # "refusal_ok": log_px is right, but an honest refusal would be right as well;
    # "local": the guide has parameters for these B data only ("joint": in one site for all);
    # "unscaled": log_px is that of the program without the plate's subsampling scale;
    # "check_by_draws": discrete sites are enumerated in the guide, and can be drawn as well
    settings: dict = field(default_factory=lambda: {"loss": "Trace_ELBO", "max_plate_nesting": 1})


ENUM = {"loss": "TraceEnum_ELBO", "max_plate_nesting": 1}
PROGRAMS: dict[str, Callable[[], Case]] = {}


def program(build: Callable[[], Case]) -> Callable[[], Case]:
    """Register a builder under its own name; random numbers outside stay as they were."""

    def seeded() -> Case:
        with fresh_seed(build.__name__):
            return build()

    seeded.__name__ = build.__name__
    seeded.__doc__ = build.__doc__
    assert build.__name__ not in PROGRAMS, build.__name__
    PROGRAMS[build.__name__] = seeded
    return seeded


@contextlib.contextmanager
def fresh_seed(name: str):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(sum(ord(c) * (i + 1) for i, c in enumerate(name)))
        yield


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=F64)


def affine(f: Callable[[Tensor], Tensor], n: int) -> tuple[Tensor, Tensor]:
    """The matrix (D, n) and offset (D,) of a map that is affine, from one row at a time."""
    with torch.no_grad():
        b = f(torch.zeros(1, n, dtype=F64)).reshape(-1)
        cols = [f(e.reshape(1, n)).reshape(-1) - b for e in torch.eye(n, dtype=F64)]
        A = torch.stack(cols, 1)
        # it must be affine indeed, or the answer is worth nothing
        v = torch.linspace(-1.3, 2.1, n, dtype=F64)
        assert torch.allclose(f(v.reshape(1, n)).reshape(-1), A @ v + b, atol=1e-10)
    return A.detach(), b.detach()


def log_normal(x: Tensor, mean: Tensor, cov: Tensor) -> Tensor:
    """log N(x_n; mean_n, cov), by scipy, one row at a time."""
    x2, m2 = np.atleast_2d(x.numpy()), np.atleast_2d(mean.detach().numpy())
    m2 = np.broadcast_to(m2, x2.shape)
    C = cov.detach().numpy()
    rows = [multivariate_normal.logpdf(a, m, C) for a, m in zip(x2, m2, strict=True)]
    return torch.tensor(rows, dtype=F64)


class LinearGaussian:
    """z ~ N(m0, P0), x | z ~ N(A z + b, R); b may differ by datum."""

    def __init__(self, A, b, R, m0=None, P0=None):
        D, L = A.shape
        self.A, self.b = A.detach(), b.detach()
        R = torch.as_tensor(R, dtype=F64)
        if R.dim() == 0:
            R = R.expand(D)
        self.R = torch.diag(R) if R.dim() == 1 else R
        self.m0 = torch.zeros(L, dtype=F64) if m0 is None else m0.detach()
        self.P0 = torch.eye(L, dtype=F64) if P0 is None else P0.detach()
        Sx = self.A @ self.P0 @ self.A.T + self.R
        self.Sx = (Sx + Sx.T) / 2
        self.K = torch.linalg.solve(self.Sx, self.A @ self.P0).T
        cov = self.P0 - self.K @ self.A @ self.P0
        self.cov = (cov + cov.T) / 2

    def log_px(self, x):
        return log_normal(x, self.A @ self.m0 + self.b, self.Sx)

    def mean(self, x):
        return self.m0 + (x - self.b - self.A @ self.m0) @ self.K.T

    def simulate(self, B):
        return self.A @ self.m0 + self.b + randn(B, len(self.Sx)) @ torch.linalg.cholesky(self.Sx).T

    def elbo(self, x, m, S):
        """The ELBO at q(z_n) = N(m_n, S)."""
        m = m.detach()
        S = S.detach()
        S = torch.diag(S) if S.dim() == 1 else S
        L = len(self.m0)
        out = log_normal(x - self.b - m @ self.A.T, torch.zeros(x.shape[1], dtype=F64), self.R)
        out = out - 0.5 * torch.trace(torch.linalg.solve(self.R, self.A @ S @ self.A.T))
        out = out + log_normal(m, self.m0, self.P0)
        out = out - 0.5 * torch.trace(torch.linalg.solve(self.P0, S))
        return out + 0.5 * (L * math.log(2 * math.pi * math.e) + torch.logdet(S))


class Encoder(nn.Module):
    """A linear recognition network: loc and scale of each latent dimension."""

    def __init__(self, W: Tensor, w: Tensor, scale: Tensor):
        super().__init__()
        self.fc = linear(W, w)
        self.log_scale = nn.Parameter(scale.detach().log())

    def forward(self, v):
        loc = self.fc(v)
        return loc, self.log_scale.exp().expand_as(loc)


def linear(W: Tensor, w: Tensor) -> nn.Linear:
    out = nn.Linear(W.shape[1], W.shape[0], dtype=F64)
    with torch.no_grad():
        out.weight.copy_(W)
        out.bias.copy_(w)
    return out


def dense(n_in: int, n_out: int, size: float = 0.6) -> nn.Linear:
    return linear(size * randn(n_out, n_in), 0.3 * randn(n_out))


def upright(n_in: int, n_out: int, size: float = 0.9) -> nn.Linear:
    """A layer with orthogonal columns, so that posteriors are nearly diagonal."""
    q, _ = torch.linalg.qr(randn(n_out, n_in))
    return linear(size * n_out**0.5 / 1.5 * q, 0.3 * randn(n_out))


def near(lg: LinearGaussian, shift: float = 0.1, widen: float = 1.15) -> Encoder:
    """An encoder close to the exact posterior of a model whose b is one for all."""
    w = lg.m0 - lg.K @ (lg.b + lg.A @ lg.m0)
    return Encoder(lg.K, w + shift, widen * lg.cov.diagonal().sqrt())


def near_elbo(lg: LinearGaussian, enc: Encoder, x: Tensor) -> Tensor:
    with torch.no_grad():
        m, s = enc(x)
    return lg.elbo(x, m, s[0] ** 2)


def grid(L: int, half: float = 7.5, n: int | None = None) -> tuple[Tensor, float]:
    """Points (n^L, L) of an even grid, and the log of the volume each stands for."""
    n = n or {1: 1501, 2: 181, 3: 61}[L]
    t = torch.linspace(-half, half, n, dtype=F64)
    pts = torch.cartesian_prod(*[t] * L).reshape(-1, L)
    return pts, L * math.log(2 * half / (n - 1))


def log_std_normal(z: Tensor) -> Tensor:
    return -0.5 * (z**2).sum(-1) - 0.5 * z.shape[-1] * math.log(2 * math.pi)


def gauss(x: Tensor, mean: Tensor, sd) -> Tensor:
    """Elementwise log N(x; mean, sd)."""
    sd = torch.as_tensor(sd, dtype=F64)
    return -0.5 * ((x - mean) / sd) ** 2 - sd.log() - 0.5 * math.log(2 * math.pi)


def quad(L: int, decode: Callable[[Tensor], Tensor], loglik: Callable, x: Tensor, **kw) -> Tensor:
    """log of the integral over z ~ N(0, I) of exp loglik(x_n, decode(z)).

    ``decode`` takes rows that cannot meet; ``loglik(x_n, out)`` gives one number a row.
    """
    z, dv = grid(L, **kw)
    with torch.no_grad():
        out = decode(z)
        lp = log_std_normal(z) + dv
        return torch.tensor([logsumexp((lp + loglik(xn, out)).numpy()) for xn in x], dtype=F64)


def quad_moments(L, decode, loglik, x, **kw):
    """Posterior means and sds (B, L), to build a guide that is near."""
    z, _ = grid(L, **kw)
    ms, ss = [], []
    with torch.no_grad():
        out = decode(z)
        lp = log_std_normal(z)
        for xn in x:
            w = torch.softmax(lp + loglik(xn, out), 0)[:, None]
            m = (w * z).sum(0)
            ms.append(m)
            ss.append(((w * (z - m) ** 2).sum(0)).sqrt())
    return torch.stack(ms), torch.stack(ss)


def regress(x_flat: Tensor, target: Tensor, scale, ridge: float = 0.02) -> Encoder:
    """A linear encoder that meets (nearly) the target means at the data."""
    B, D = x_flat.shape
    X = torch.cat([x_flat, torch.ones(B, 1, dtype=F64)], 1)
    W = torch.linalg.solve(X.T @ X + ridge * torch.eye(D + 1, dtype=F64), X.T @ target).T
    return Encoder(W[:, :D], W[:, D], torch.as_tensor(scale, dtype=F64).expand(target.shape[1]))
