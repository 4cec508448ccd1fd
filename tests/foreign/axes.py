"""Linear decoders written with every habit about axes that people have."""

import pyro
import pyro.distributions as dist
import torch
from torch import nn

from ._common import (
    F64,
    Case,
    Encoder,
    LinearGaussian,
    affine,
    dense,
    gauss,
    linear,
    near,
    near_elbo,
    program,
    quad,
    quad_moments,
    randn,
    regress,
    upright,
)


@program
def tutorial_vae():
    """The tutorial's VAE with a linear decoder: plate "data", to_event(1), new_zeros."""
    z_dim, s = 2, 0.7
    decoder = upright(z_dim, 5)
    lg = LinearGaussian(decoder.weight, decoder.bias, s**2)
    x = lg.simulate(5)
    encoder = near(lg)

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("data", x.shape[0]):
            z_loc = x.new_zeros(torch.Size((x.shape[0], z_dim)))
            z_scale = x.new_ones(torch.Size((x.shape[0], z_dim)))
            z = pyro.sample("latent", dist.Normal(z_loc, z_scale).to_event(1))
            loc = decoder.forward(z)
            pyro.sample("obs", dist.Normal(loc, s).to_event(1), obs=x.reshape(-1, 5))

    def guide(x):
        pyro.module("encoder", encoder)
        with pyro.plate("data", x.shape[0]):
            z_loc, z_scale = encoder.forward(x)
            pyro.sample("latent", dist.Normal(z_loc, z_scale).to_event(1))

    return Case(model, guide, x, log_px=lg.log_px(x), elbo=near_elbo(lg, encoder, x), trainable=True)


@program
def columns():
    """Columns taken by position: z[:, 0:1] a level, z[:, 1:] the rest."""
    W = torch.tensor([[0.3, -0.6, 0.2, 0.4], [0.2, 0.4, 0.6, -0.4]], dtype=F64)
    s = torch.tensor([0.5, 0.8, 0.6, 0.9], dtype=F64)
    level = torch.tensor([1.0, 0.5, -0.5, 0.3], dtype=F64)
    lg = LinearGaussian(torch.cat([level[:, None], W.T], 1), torch.zeros(4, dtype=F64), s**2)
    x = lg.simulate(5)
    enc = near(lg, 0.05, 1.2)

    def model(x):
        W_ = pyro.param("W", W)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 3), 1.0).to_event(1))
            mean = z[:, 0:1] * level + z[:, 1:] @ W_
            pyro.sample("x", dist.Normal(mean, s).to_event(1), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data", len(x)):
            loc, scale = enc(x)
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))

    return Case(model, guide, x, log_px=lg.log_px(x), elbo=near_elbo(lg, enc, x), trainable=True)


@program
def single_column_index():
    """A plain index z[:, 0], z[:, 1] and stack(..., 1): intercept and slope of a line."""
    t = torch.linspace(-1, 1, 5, dtype=F64)
    A = torch.stack([torch.ones(5, dtype=F64), t], 1)
    lg = LinearGaussian(A, torch.zeros(5, dtype=F64), 0.36)
    x = lg.simulate(6)
    enc = near(lg)

    def model(x):
        with pyro.plate("data", x.size(0)):
            z = pyro.sample("z", dist.Normal(torch.zeros(x.size(0), 2, dtype=F64), 1.0).to_event(1))
            a, b = z[:, 0], z[:, 1]
            line = torch.stack([a + b * ti for ti in t], 1)
            pyro.sample("x", dist.Normal(line, 0.6).to_event(1), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data", x.size(0)):
            pyro.sample("z", dist.Normal(*enc(x)).to_event(1))

    return Case(model, guide, x, log_px=lg.log_px(x), elbo=near_elbo(lg, enc, x), trainable=True)


@program
def random_walk_cumsum():
    """z.cumsum(1): increments to path."""
    A = torch.tril(torch.ones(4, 4, dtype=F64))
    lg = LinearGaussian(A * 0.7, torch.full((4,), 0.2, dtype=F64), 0.64)
    x = lg.simulate(4)
    chol = torch.linalg.cholesky(lg.cov)

    def model(x):
        N = len(x)
        with pyro.plate("data", N):
            steps = pyro.sample("steps", dist.Normal(x.new_zeros(N, 4), x.new_ones(N, 4)).to_event(1))
            path = 0.7 * steps.cumsum(1) + 0.2
            pyro.sample("x", dist.Normal(path, 0.8).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("steps", dist.MultivariateNormal(lg.mean(x), scale_tril=chol))

    lp = lg.log_px(x)
    return Case(model, guide, x, log_px=lp, elbo=lp, exact_guide=True)


@program
def total_of_parts():
    """z.sum(1) against one number a datum, x of shape (B,)."""
    lg = LinearGaussian(torch.ones(1, 3, dtype=F64), torch.zeros(1, dtype=F64), 4.0)
    x = lg.simulate(6)[:, 0]
    enc = near(lg, 0.08, 1.0)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(3), 1).expand([len(x), 3]).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(1), 2.0), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data", len(x)):
            loc, scale = enc(x[:, None])
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))

    return Case(
        model,
        guide,
        x,
        log_px=lg.log_px(x[:, None]),
        elbo=near_elbo(lg, enc, x[:, None]),
        trainable=True,
    )


@program
def pooled_encoder():
    """The guide pools with x.mean(1); the pooled mean is sufficient, so it is exact."""
    D, s = 5, 0.9
    b = 0.5 * randn(D)
    lg = LinearGaussian(torch.ones(D, 1, dtype=F64), b, s**2)
    x = lg.simulate(5)
    v = 1 / (1 + D / s**2)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z.unsqueeze(1) + b, s).to_event(1), obs=x)

    def guide(x):
        shrink = pyro.param("shrink", torch.tensor(v * D / s**2, dtype=F64))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(shrink * (x - b).mean(1), v**0.5))

    lp = lg.log_px(x)
    return Case(model, guide, x, log_px=lp, elbo=lp, exact_guide=True, trainable=True)


@program
def view_as_table():
    """z.view(len(x), 2, 2), a transpose, and a product; x is a table (B, 2, 3)."""
    M = 0.7 * randn(2, 3)

    def decode(z, n):
        return z.view(n, 2, 2).transpose(1, 2) @ M + z.view(n, 2, 2).sum(2, keepdim=True)

    A, b = affine(lambda z: decode(z, 1), 4)
    lg = LinearGaussian(A, b, 1.0)
    x = lg.simulate(5).view(5, 2, 3)
    enc = near(lg, 0.05, 1.0)
    chol = torch.linalg.cholesky(1.1 * lg.cov)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 4), 1.0).to_event(1))
            mean = decode(z, len(x))
            pyro.sample("x", dist.Normal(mean, 1.0).to_event(2), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data", len(x)):
            loc, _ = enc(x.reshape(x.shape[0], -1))
            tril = pyro.param("tril", chol, constraint=dist.constraints.lower_cholesky)
            pyro.sample("z", dist.MultivariateNormal(loc, scale_tril=tril))

    flat = x.reshape(5, -1)
    with torch.no_grad():
        m, _ = enc(flat)
    return Case(
        model,
        guide,
        x,
        log_px=lg.log_px(flat),
        elbo=lg.elbo(flat, m, chol @ chol.T),
        trainable=True,
    )


@program
def flatten_everything():
    """Latent of two axes, z.reshape(x.shape[0], -1) into a layer; x flattened for obs=."""
    net = dense(4, 6, 0.5)
    lg = LinearGaussian(net.weight, net.bias, 0.81)
    x = lg.simulate(4).view(4, 2, 3)
    enc = near(lg, -0.05, 1.0)

    def model(x):
        pyro.module("net", net)
        with pyro.plate("images", x.shape[0]):
            z = pyro.sample("z", dist.Normal(x.new_zeros(x.shape[0], 2, 2), 1.0).to_event(2))
            out = net(z.reshape(x.shape[0], -1))
            pyro.sample("x", dist.Normal(out, 0.9).to_event(1), obs=x.flatten(1))

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("images", x.shape[0]):
            loc, scale = enc(x.flatten(1))
            pyro.sample("z", dist.Normal(loc.view(-1, 2, 2), scale.reshape(-1, 2, 2)).to_event(2))

    flat = x.flatten(1)
    return Case(model, guide, x, log_px=lg.log_px(flat), elbo=near_elbo(lg, enc, flat), trainable=True)


@program
def conv1d_over_codes():
    """z[:, :, None] into ConvTranspose1d, then Conv1d: channels first, (B, 1, T)."""
    net = nn.Sequential(nn.ConvTranspose1d(2, 3, 4), nn.Conv1d(3, 1, 3, padding=1)).double()
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(2.0)
    A, b = affine(lambda z: net(z[:, :, None]), 2)
    lg = LinearGaussian(A, b, 0.25)
    x = lg.simulate(5).view(5, 1, 4)
    enc = near(lg)

    def model(x):
        pyro.module("net", net)
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.Normal(x.new_zeros(x.shape[0], 2), 1.0).to_event(1))
            y = net(z[:, :, None])
            pyro.sample("x", dist.Normal(y, 0.5).to_event(2), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data", x.shape[0]):
            loc, scale = enc(x.squeeze(1))
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))

    flat = x.flatten(1)
    return Case(model, guide, x, log_px=lg.log_px(flat), elbo=near_elbo(lg, enc, flat), trainable=True)


@program
def conv1d_unsqueeze():
    """The code as a one-channel signal: Conv1d(z.unsqueeze(1)).squeeze(1)."""
    net = nn.Conv1d(1, 1, 2, dtype=F64)
    A, b = affine(lambda z: net(z.unsqueeze(1)).squeeze(1), 4)
    lg = LinearGaussian(A, b, 0.49)
    x = lg.simulate(5)
    enc = near(lg, 0.05, 1.1)

    def model(x):
        pyro.module("net", net)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 4), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(net(z.unsqueeze(1)).squeeze(1), 0.7).to_event(1), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(*enc(x)).to_event(1))

    return Case(model, guide, x, log_px=lg.log_px(x), elbo=near_elbo(lg, enc, x), trainable=True)


@program
def dcgan_shapes():
    """ConvTranspose2d on z.view(-1, C, 1, 1), images (B, 1, 4, 2), to_event(3)."""
    net = nn.Sequential(nn.ConvTranspose2d(3, 2, (2, 1)), nn.ConvTranspose2d(2, 1, 2, stride=2)).double()
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(2.0)
    A, b = affine(lambda z: net(z.view(-1, 3, 1, 1)), 3)
    lg = LinearGaussian(A, b, 0.25)
    x = lg.simulate(4).view(4, 1, 4, 2)
    enc = near(lg, 0.05, 1.1)

    def model(x):
        pyro.module("generator", net)
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.Normal(x.new_zeros(x.shape[0], 3), 1.0).to_event(1))
            img = net(z.view(-1, 3, 1, 1))
            assert img.shape == x.shape
            pyro.sample("x", dist.Normal(img, 0.5).to_event(3), obs=x)

    def guide(x):
        pyro.module("encoder", enc)
        with pyro.plate("data", x.shape[0]):
            loc, scale = enc(x.view(x.size(0), -1))
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))

    flat = x.flatten(1)
    return Case(model, guide, x, log_px=lg.log_px(flat), elbo=near_elbo(lg, enc, flat), trainable=True)


@program
def conv_encoder():
    """Conv2d in the guide ends in .view(-1, 2); the decoder is a layer with .view(-1, 1, 2, 2)."""
    dec = dense(2, 4, 0.8)
    lg = LinearGaussian(dec.weight, dec.bias, 0.49)
    x = lg.simulate(5).view(5, 1, 2, 2)
    # a 2 x 2 kernel over the whole image is the linear encoder
    tmp = near(lg, 0.1, 1.15)
    conv = nn.Conv2d(1, 2, 2, dtype=F64)
    with torch.no_grad():
        conv.weight.copy_(tmp.fc.weight.view(2, 1, 2, 2))
        conv.bias.copy_(tmp.fc.bias)
    sd = tmp.log_scale.detach().exp()

    def model(x):
        pyro.module("dec", dec)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), x.new_ones(2)).to_event(1))
            pyro.sample("x", dist.Normal(dec(z).view(-1, 1, 2, 2), 0.7).to_event(3), obs=x)

    def guide(x):
        pyro.module("conv", conv)
        with pyro.plate("data", len(x)):
            h = conv(x).view(-1, 2)
            pyro.sample("z", dist.Normal(h, sd).to_event(1))

    flat = x.flatten(1)
    return Case(model, guide, x, log_px=lg.log_px(flat), elbo=near_elbo(lg, tmp, flat), trainable=True)


@program
def squeeze_all():
    """A bare .squeeze() on (B, 1), which leaves a number where B = 1; x of shape (B,)."""
    net = linear(torch.tensor([[1.3]], dtype=F64), torch.tensor([0.4], dtype=F64))
    lg = LinearGaussian(net.weight, net.bias, 0.25)
    x = lg.simulate(6)[:, 0]
    sd = lg.cov[0, 0].sqrt()

    def model(x):
        pyro.module("net", net)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(net(z).squeeze(), 0.5), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            loc = lg.mean(x.unsqueeze(1)).squeeze()
            pyro.sample("z", dist.Normal(loc.reshape(-1, 1), sd).to_event(1))

    lp = lg.log_px(x[:, None])
    return Case(model, guide, x, log_px=lp, elbo=lp, exact_guide=True, trainable=True)


@program
def bmm_design():
    """torch.bmm with a design matrix given for each datum."""
    B, D, L = 5, 4, 2
    design = randn(B, D, L)
    lgs = [LinearGaussian(A, torch.zeros(D, dtype=F64), 0.49) for A in design]
    x = torch.cat([lg.simulate(1) for lg in lgs])

    def model(x, design):
        with pyro.plate("data", x.shape[0]):
            w = pyro.sample("w", dist.Normal(x.new_zeros(x.shape[0], L), 1.0).to_event(1))
            mean = torch.bmm(design, w.unsqueeze(2)).squeeze(2)
            pyro.sample("x", dist.Normal(mean, 0.7).to_event(1), obs=x)

    def guide(x, design):
        # conjugate regression, each datum with its own design
        prec = design.transpose(1, 2) @ design / 0.49 + torch.eye(L, dtype=x.dtype)
        rhs = torch.bmm(design.transpose(1, 2), x.unsqueeze(2)) / 0.49
        loc = torch.linalg.solve(prec, rhs).squeeze(2)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("w", dist.MultivariateNormal(loc, precision_matrix=prec))

    lp = torch.cat([lg.log_px(x[n : n + 1]) for n, lg in enumerate(lgs)])
    return Case(model, guide, x, {"design": design}, log_px=lp, elbo=lp, exact_guide=True)


@program
def einsum_loadings():
    """torch.einsum("bl,dl->bd") with loadings as pyro.param; positive noise by a constraint."""
    Lam = 0.35 * randn(5, 3)
    psi = torch.tensor([0.5, 0.7, 0.9, 0.6, 0.8], dtype=F64)
    lg = LinearGaussian(Lam, torch.zeros(5, dtype=F64), psi**2)
    x = lg.simulate(5)
    enc = near(lg, 0.05, 1.1)

    def model(x):
        loadings = pyro.param("loadings", Lam)
        sd = pyro.param("sd", psi, constraint=dist.constraints.positive)
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.Normal(x.new_zeros(x.shape[0], 3), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(torch.einsum("bl,dl->bd", z, loadings), sd).to_event(1), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("z", dist.Normal(*enc(x)).to_event(1))

    return Case(model, guide, x, log_px=lg.log_px(x), elbo=near_elbo(lg, enc, x), trainable=True)


@program
def column_vectors():
    """Columns as in the books: (W @ z.t()).t() in the model, x.T in the guide."""
    W = 0.8 * randn(4, 2)
    lg = LinearGaussian(W, torch.zeros(4, dtype=F64), 0.36)
    x = lg.simulate(5)
    chol = torch.linalg.cholesky(lg.cov)

    def model(x):
        W_ = pyro.param("W", W)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.MultivariateNormal(x.new_zeros(2), torch.eye(2, dtype=F64)))
            pyro.sample("x", dist.Normal((W_ @ z.t()).t(), 0.6).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal((lg.K @ x.T).T, scale_tril=chol))

    lp = lg.log_px(x)
    return Case(model, guide, x, log_px=lp, elbo=lp, exact_guide=True, trainable=True)


@program
def outer_product():
    """An outer product for each datum: z[:, :, None] * v[None, None, :], to_event(2)."""
    v = torch.tensor([1.0, -0.5, 0.8], dtype=F64)
    A, b = affine(lambda z: z[:, :, None] * v[None, None, :], 2)
    lg = LinearGaussian(A, b, 0.81)
    x = lg.simulate(5).view(5, 2, 3)
    sd = lg.cov.diagonal().sqrt()

    def model(x):
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.Normal(x.new_zeros(x.shape[0], 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z[:, :, None] * v[None, None, :], 0.9).to_event(2), obs=x)

    def guide(x):
        with pyro.plate("data", x.shape[0]):
            loc = (x * v).sum(2) / (0.81 + v @ v)
            pyro.sample("z", dist.Normal(loc, sd).to_event(1))

    lp = lg.log_px(x.flatten(1))
    return Case(model, guide, x, log_px=lp, elbo=lp, exact_guide=True)


@program
def matrix_latent():
    """A matrix for each datum, (B, 2, 2), with @ on both sides."""
    left, right = randn(2, 2), randn(2, 2)

    def decode(Z):
        return left @ Z @ right + Z.transpose(1, 2)

    A, b = affine(lambda z: decode(z.view(1, 2, 2)), 4)
    lg = LinearGaussian(A, b, 1.0)
    x = lg.simulate(4).view(4, 2, 2)
    chol = torch.linalg.cholesky(lg.cov * 1.1)

    def model(x):
        with pyro.plate("data", x.shape[0]):
            Z = pyro.sample("Z", dist.Normal(x.new_zeros(x.shape[0], 2, 2), 1.0).to_event(2))
            pyro.sample("x", dist.Normal(decode(Z), 1.0).to_event(2), obs=x)

    def guide(x):
        flat = dist.MultivariateNormal(lg.mean(x.reshape(-1, 4)), scale_tril=chol)
        shaped = dist.TransformedDistribution(flat, [dist.transforms.ReshapeTransform((4,), (2, 2))])
        with pyro.plate("data", x.shape[0]):
            pyro.sample("Z", shaped)

    flat = x.flatten(1)
    return Case(model, guide, x, log_px=lg.log_px(flat), elbo=lg.elbo(flat, lg.mean(flat), 1.1 * lg.cov))


@program
def ones_by_size():
    """z.size(0) all over: a column of ones put beside z, a bias expanded to the batch."""
    W = 0.6 * randn(3, 4)
    bias = 0.4 * randn(4)
    lg = LinearGaussian(W[:2].T, W[2] + bias, 0.49)
    x = lg.simulate(5)
    enc = near(lg)

    def model(x):
        weight = pyro.param("weight", W)
        with pyro.plate("data", x.size(0)):
            z = pyro.sample("z", dist.Normal(torch.zeros(x.size(0), 2, dtype=x.dtype), 1.0).to_event(1))
            ones = torch.ones(z.size(0), 1, dtype=z.dtype)
            mean = torch.cat([z, ones], 1).mm(weight) + bias.expand(z.size(0), -1)
            pyro.sample("x", dist.Normal(mean, 0.7).to_event(1), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data", x.size(0)):
            pyro.sample("z", dist.Normal(*enc(x)).to_event(1))

    return Case(model, guide, x, log_px=lg.log_px(x), elbo=near_elbo(lg, enc, x), trainable=True)


@program
def asserting_shapes():
    """assert z.shape == (len(x), L), and once more on the mean."""
    dec = dense(3, 4)
    lg = LinearGaussian(dec.weight, dec.bias, 0.64)
    x = lg.simulate(5)
    enc = near(lg, 0.05, 1.1)

    def model(x):
        pyro.module("dec", dec)
        N = len(x)
        with pyro.plate("data", N):
            z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([N, 3]).to_event(1))
            assert z.shape == (N, 3), f"z has shape {tuple(z.shape)}"
            mean = dec(z.to(x.dtype))
            assert mean.shape == x.shape
            pyro.sample("x", dist.Normal(mean, 0.8).to_event(1), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        assert x.dim() == 2 and x.shape[1] == 4
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(*enc(x)).to_event(1))

    return Case(model, guide, x, log_px=lg.log_px(x), elbo=near_elbo(lg, enc, x), trainable=True)


@program
def conditional_cat():
    """A conditional VAE: torch.cat([z, c], -1) with c (B, 2) given, and in the guide as well."""
    dec = dense(4, 4, 0.4)
    Az, Bc = dec.weight[:, :2].detach(), dec.weight[:, 2:].detach()
    c = randn(5, 2)
    base = LinearGaussian(Az, dec.bias, 0.49)
    x = base.simulate(5) + c @ Bc.T
    w = torch.cat([base.K, -base.K @ Bc], 1)
    enc = Encoder(w, 0.1 - base.K @ base.b, 1.15 * base.cov.diagonal().sqrt())

    def model(x, c):
        pyro.module("dec", dec)
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.Normal(x.new_zeros(x.shape[0], 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(dec(torch.cat([z, c], -1)), 0.7).to_event(1), obs=x)

    def guide(x, c):
        pyro.module("enc", enc)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("z", dist.Normal(*enc(torch.cat([x, c], -1))).to_event(1))

    centred = x - c @ Bc.T
    m = base.mean(centred) + 0.1
    elbo = base.elbo(centred, m, 1.15**2 * base.cov.diagonal())
    return Case(model, guide, x, {"c": c}, log_px=base.log_px(centred), elbo=elbo, trainable=True)


@program
def conditional_one_hot():
    """Integer labels given; one_hot, torch.cat((z, y), dim=1); the guide ignores them by name."""
    labels = torch.tensor([0, 2, 1, 2, 0])
    dec = dense(2 + 3, 4, 0.35)
    Az, By = dec.weight[:, :2].detach(), dec.weight[:, 2:].detach()
    lg = LinearGaussian(Az, dec.bias, 0.64)
    off = By.T[labels]
    x = lg.simulate(5) + off
    enc = near(lg, 0.0, 1.3)

    def model(x, labels):
        pyro.module("dec", dec)
        with pyro.plate("data", x.shape[0]):
            y = nn.functional.one_hot(labels, 3).to(x.dtype)
            z = pyro.sample("z", dist.Normal(x.new_zeros(x.shape[0], 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(dec(torch.cat((z, y), dim=1)), 0.8).to_event(1), obs=x)

    def guide(x, **kwargs):
        pyro.module("enc", enc)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("z", dist.Normal(*enc(x)).to_event(1))

    with torch.no_grad():
        m, s = enc(x)
    return Case(
        model,
        guide,
        x,
        {"labels": labels},
        log_px=lg.log_px(x - off),
        elbo=lg.elbo(x - off, m, s[0] ** 2),
        trainable=True,
    )


@program
def stacked_scalars():
    """Several scalar sites z_0, z_1, z_2 put together by torch.stack([...], 1)."""
    W = 0.4 * randn(4, 3)
    lg = LinearGaussian(
        W,
        torch.zeros(4, dtype=F64),
        0.49,
        P0=torch.diag(torch.tensor([1.0, 0.25, 2.25], dtype=F64)),
    )
    x = lg.simulate(5)
    enc = near(lg, 0.05, 1.1)
    sds = [1.0, 0.5, 1.5]

    def model(x):
        W_ = pyro.param("W", W)
        with pyro.plate("data", len(x)):
            zs = [pyro.sample(f"z_{i}", dist.Normal(x.new_tensor(0.0), sd)) for i, sd in enumerate(sds)]
            z = torch.stack(zs, 1)
            pyro.sample("x", dist.Normal(z @ W_.T, 0.7).to_event(1), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data", len(x)):
            loc, scale = enc(x)
            for i in range(3):
                pyro.sample(f"z_{i}", dist.Normal(loc[:, i], scale[:, i]))

    return Case(model, guide, x, log_px=lg.log_px(x), elbo=near_elbo(lg, enc, x), trainable=True)


@program
def batchnorm_eval():
    """BatchNorm1d behind z and in the guide, in eval mode with running statistics."""
    bn, fc = nn.BatchNorm1d(2, dtype=F64), dense(2, 4)
    with torch.no_grad():
        bn.running_mean.copy_(randn(2) * 0.3)
        bn.running_var.copy_(torch.tensor([0.8, 1.3], dtype=F64))
    net = nn.Sequential(bn, fc).eval()
    A, b = affine(net, 2)
    lg = LinearGaussian(A, b, 0.49)
    x = lg.simulate(5)
    enc = near(lg)
    whiten = nn.BatchNorm1d(4, affine=False, dtype=F64).eval()

    def model(x):
        pyro.module("net", net)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(net(z), 0.7).to_event(1), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data", len(x)):
            loc, scale = enc(whiten(x))
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))

    with torch.no_grad():
        m, s = enc(whiten(x))
    return Case(model, guide, x, log_px=lg.log_px(x), elbo=lg.elbo(x, m, s[0] ** 2), trainable=True)


@program
def permuted_before_obs():
    """Images (B, H, W, C) permuted to channels first before obs=; the noise differs by channel."""
    conv = nn.ConvTranspose2d(2, 2, 2, dtype=F64)
    sd = torch.tensor([0.5, 0.9], dtype=F64).view(2, 1, 1)
    A, b = affine(lambda z: conv(z[:, :, None, None]), 2)
    lg = LinearGaussian(A, b, (sd**2).expand(2, 2, 2).reshape(-1))
    first = lg.simulate(4).view(4, 2, 2, 2)
    x = first.permute(0, 2, 3, 1).contiguous()
    enc = near(lg)

    def model(x):
        pyro.module("conv", conv)
        x = x.permute(0, 3, 1, 2)
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.Normal(x.new_zeros(x.shape[0], 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(conv(z[:, :, None, None]), sd).to_event(3), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        h = x.permute(0, 3, 1, 2).reshape(len(x), -1)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("z", dist.Normal(*enc(h)).to_event(1))

    flat = first.flatten(1)
    return Case(
        model,
        guide,
        x,
        log_px=lg.log_px(flat),
        elbo=near_elbo(lg, enc, flat),
        simulates=False,
        trainable=True,
    )


@program
def softmax_axis1():
    """torch.softmax(z, dim=1) as mixing proportions of three profiles, L = 2 and a zero logit."""
    profiles = randn(3, 4) * 1.2

    def decode(z):
        logits = torch.cat([z, z.new_zeros(z.shape[0], 1)], dim=1)
        return torch.softmax(logits, dim=1) @ profiles

    def loglik(xn, m):
        return gauss(xn, m, 0.5).sum(-1)

    x = decode(randn(5, 2)) + 0.5 * randn(5, 4)
    m, s = quad_moments(2, decode, loglik, x)
    enc = regress(x, m, s.mean(0) * 1.2)

    def model(x):
        P = pyro.param("profiles", profiles)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            logits = torch.cat([z, z.new_zeros(z.shape[0], 1)], dim=1)
            pyro.sample("x", dist.Normal(torch.softmax(logits, dim=1) @ P, 0.5).to_event(1), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(*enc(x)).to_event(1))

    return Case(model, guide, x, log_px=quad(2, decode, loglik, x), trainable=True)


@program
def layer_norm_decoder():
    """LayerNorm over features and a tanh; nonlinear, by quadrature."""
    net = nn.Sequential(upright(2, 4, 0.5), nn.LayerNorm(4, dtype=F64), nn.Tanh(), dense(4, 3, 0.3))

    def loglik(xn, m):
        return gauss(xn, m, 1.0).sum(-1)

    with torch.no_grad():
        x = net(randn(5, 2)) + 1.0 * randn(5, 3)
    m, s = quad_moments(2, net, loglik, x)
    enc = regress(x, m, s.max(0).values * 1.1)

    def model(x):
        pyro.module("net", net)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(net(z), 1.0).to_event(1), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(*enc(x)).to_event(1))

    return Case(model, guide, x, log_px=quad(2, net, loglik, x, n=301), trainable=True)
