"""Programs without an answer: data that are not apart, no density, or code that fails."""

import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoDelta, init_to_value
from torch import nn

from ._common import F64, Case, LinearGaussian, near, program, randn, upright

PLAIN = {"loss": "Trace_ELBO", "max_plate_nesting": 1}


def parts(B=5, D=4, L=2):
    dec = upright(L, D)
    lg = LinearGaussian(dec.weight, dec.bias, 0.49)
    return dec, lg.simulate(B), near(lg)


def vae(decode, enc, before=lambda x: x, sd=lambda x: 0.7):
    """A VAE whose decoder, or view of the data, is as told."""

    def model(x):
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.Normal(x.new_zeros(x.shape[0], 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decode(z, x), sd(x)).to_event(1), obs=before(x))

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("z", dist.Normal(*enc(x)).to_event(1))

    return model, guide


@program
def batchnorm_in_train_mode():
    """BatchNorm1d left in train mode: the mean of a datum depends on all codes."""
    dec, x, enc = parts()
    bn = nn.BatchNorm1d(2, dtype=F64).train()
    model, guide = vae(lambda z, x: dec(bn(z)), enc)
    return Case(model, guide, x, refused="BatchNorm in train mode couples the data", trainable=True)


@program
def batchnorm_train_in_guide():
    """BatchNorm1d in train mode in the guide only."""
    dec, x, enc = parts()
    bn = nn.BatchNorm1d(4, dtype=F64).train()
    model, _ = vae(lambda z, x: dec(z), enc)

    def guide(x):
        pyro.module("enc", enc)
        pyro.module("bn", bn)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("z", dist.Normal(*enc(bn(x))).to_event(1))

    return Case(model, guide, x, refused="BatchNorm in train mode couples the data", trainable=True)


@program
def codes_centred():
    """z - z.mean(0) before the decoder."""
    dec, x, enc = parts()
    model, guide = vae(lambda z, x: dec(z - z.mean(0)), enc)
    return Case(model, guide, x, refused="the codes are centred over the batch", trainable=True)


@program
def data_centred():
    """The data centred over the batch before they are observed."""
    dec, x, enc = parts()
    model, guide = vae(lambda z, x: dec(z), enc, before=lambda x: x - x.mean(0, keepdim=True))
    return Case(
        model,
        guide,
        x,
        refused="the data are centred over the batch",
        trainable=True,
        simulates=False,
    )


@program
def bayesian_regression():
    """Global weights outside the plate: one latent for all data."""
    c = randn(6, 2)
    x = c @ torch.tensor([0.8, -0.5], dtype=F64) + 0.5 * randn(6)

    def model(x, c):
        w = pyro.sample("w", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(c @ w, 0.5), obs=x)

    def guide(x, c):
        loc = pyro.param("loc", torch.tensor([0.7, -0.4], dtype=F64))
        pyro.sample("w", dist.Normal(loc, 0.3).to_event(1))

    return Case(model, guide, x, {"c": c}, refused="a global latent joins the data", trainable=True)


@program
def global_scale_and_local_codes():
    """Local codes and one noise scale for all, drawn outside the plate."""
    dec, x, enc = parts()

    def model(x):
        s = pyro.sample("s", dist.LogNormal(x.new_tensor(-0.4), 0.2))
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.Normal(x.new_zeros(x.shape[0], 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(dec(z), s).to_event(1), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        pyro.sample("s", dist.LogNormal(x.new_tensor(-0.4), 0.1))
        with pyro.plate("data", x.shape[0]):
            pyro.sample("z", dist.Normal(*enc(x)).to_event(1))

    return Case(model, guide, x, refused="a global latent joins the data", trainable=True)


@program
def attention_over_the_batch():
    """MultiheadAttention fed (B, 1, E) with time first by default: it attends over the data."""
    dec, x, enc = parts()
    attn = nn.MultiheadAttention(2, 1, dtype=F64).eval()

    def decode(z, x):
        h = z.unsqueeze(-2).reshape(-1, 1, 2)
        return dec(attn(h, h, h)[0].reshape(z.shape))

    model, guide = vae(decode, enc)
    return Case(model, guide, x, refused="attention over the data", trainable=True)


@program
def first_datum_for_all():
    """x[0] enters the mean of every datum."""
    dec, x, enc = parts()
    model, guide = vae(lambda z, x: dec(z) + 0.3 * x[0], enc)
    return Case(model, guide, x, refused="the first datum enters all the others", trainable=True)


@program
def neighbours_rolled():
    """torch.roll(x, 1, 0): each datum is predicted by the one before."""
    dec, x, enc = parts()
    model, guide = vae(lambda z, x: dec(z) + 0.3 * torch.roll(x, 1, 0), enc)
    return Case(model, guide, x, refused="each datum looks at its neighbour", trainable=True)


@program
def dropout_in_train_mode():
    """Dropout left on in the decoder: random numbers outside of any sample site."""
    dec, x, enc = parts()
    drop = nn.Dropout(0.4).train()
    model, guide = vae(lambda z, x: dec(drop(z)), enc)
    return Case(model, guide, x, refused="dropout draws outside of sample sites", trainable=True)


@program
def dequantised_inside():
    """Noise added to the data inside the model by torch.rand_like."""
    dec, x, enc = parts()
    model, guide = vae(lambda z, x: dec(z), enc, before=lambda x: x + 0.3 * torch.rand_like(x))
    return Case(
        model,
        guide,
        x,
        refused="noise drawn outside of sample sites",
        trainable=True,
        simulates=False,
    )


@program
def noise_by_number_of_data():
    """The noise scale depends on len(x)."""
    dec, x, enc = parts()
    model, guide = vae(lambda z, x: dec(z), enc, sd=lambda x: 0.3 + 1 / len(x))
    return Case(model, guide, x, refused="the density depends on the number of data", trainable=True)


@program
def guide_misses_a_site():
    """The model has z and u, the guide only z."""
    dec, x, enc = parts()

    def model(x):
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.Normal(x.new_zeros(x.shape[0], 2), 1.0).to_event(1))
            u = pyro.sample("u", dist.Normal(x.new_zeros(x.shape[0]), 1.0))
            pyro.sample("x", dist.Normal(dec(z) + u[..., None], 0.7).to_event(1), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("z", dist.Normal(*enc(x)).to_event(1))

    return Case(model, guide, x, refused="the guide has no site u", trainable=True)


@program
def guide_has_a_site_too_many():
    """An auxiliary draw in the guide that the model lacks: its weights have no mean to speak of."""
    dec, x, enc = parts()
    model, _ = vae(lambda z, x: dec(z), enc)

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data", x.shape[0]):
            u = pyro.sample(
                "u",
                dist.Normal(x.new_zeros(x.shape[0], 2), 1.0).to_event(1),
                infer={"is_auxiliary": True},
            )
            loc, scale = enc(x)
            pyro.sample("z", dist.Normal(loc + 0.2 * u, scale).to_event(1))

    return Case(model, guide, x, refused="the model has no site u", trainable=True)


@program
def point_mass_guide():
    """AutoDelta: the guide has no density, its weight is p(x, z) at a point."""
    dec, x, enc = parts()
    model, _ = vae(lambda z, x: dec(z), enc)
    with torch.no_grad():
        guide = AutoDelta(model, init_loc_fn=init_to_value(values={"z": enc(x)[0]}))
    pyro.clear_param_store()
    guide(x)
    pyro.clear_param_store()
    return Case(model, guide, x, refused="the guide is a point mass", trainable=True)


@program
def random_minibatch_inside():
    """plate("data", N, subsample_size=2) draws its own two data of those that it is given."""
    dec, x, enc = parts()

    def model(x):
        with pyro.plate("data", len(x), subsample_size=min(2, len(x))) as ind:
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(ind), 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(dec(z), 0.7).to_event(1), obs=x[ind])

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data", len(x), subsample_size=min(2, len(x))) as ind:
            pyro.sample("z", dist.Normal(*enc(x[ind])).to_event(1))

    return Case(
        model,
        guide,
        x,
        refused="the program leaves out data at random",
        trainable=True,
        simulates=False,
    )


@program
def total_observed():
    """Only the sum over the batch is observed."""
    dec, x, enc = parts()

    def model(x):
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.Normal(x.new_zeros(x.shape[0], 2), 1.0).to_event(1))
        pyro.sample("total", dist.Normal(dec(z).sum(0), 1.0).to_event(1), obs=x.sum(0))

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("z", dist.Normal(*enc(x)).to_event(1))

    return Case(
        model,
        guide,
        x,
        refused="only a sum over the data is observed",
        trainable=True,
        simulates=False,
    )


@program
def recurrent_over_the_batch():
    """nn.GRU on (B, E) with no batch axis: the data are taken for time steps."""
    dec, x, enc = parts()
    gru = nn.GRU(2, 2, dtype=F64)
    model, guide = vae(lambda z, x: dec(gru(z.reshape(-1, 2))[0]), enc)
    return Case(model, guide, x, refused="the data are steps of one sequence", trainable=True)


@program
def normalised_by_largest():
    """The guide's input is divided by the largest entry of the batch."""
    dec, x, enc = parts()
    model, _ = vae(lambda z, x: dec(z), enc)

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("z", dist.Normal(*enc(2 * x / x.abs().max())).to_event(1))

    return Case(model, guide, x, refused="the guide divides by the batch's maximum", trainable=True)


def raising(kind, why):
    return {**PLAIN, "raises": kind}, f"its own code raises {kind.__name__}: {why}"


@program
def raises_index_error():
    """z[:, 5] where there are two."""
    dec, x, enc = parts()
    model, guide = vae(lambda z, x: dec(z) + z[:, 5:6].sum() + z[:, 5][:, None], enc)
    settings, why = raising(IndexError, "no sixth column")
    return Case(model, guide, x, refused=why, settings=settings, trainable=True)


@program
def raises_assertion_error():
    """An assertion about the data that they do not meet."""
    dec, x, enc = parts()

    def decode(z, x):
        assert x.shape[-1] == 784, "expected MNIST"
        return dec(z)

    model, guide = vae(decode, enc)
    settings, why = raising(AssertionError, "expected MNIST")
    return Case(model, guide, x, refused=why, settings=settings, trainable=True)


@program
def raises_type_error():
    """The guide wants labels which are not given."""
    dec, x, enc = parts()
    model, _ = vae(lambda z, x: dec(z), enc)

    def guide(x, y):
        pyro.module("enc", enc)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("z", dist.Normal(*enc(x + y)).to_event(1))

    settings, why = raising(TypeError, "y is not given")
    return Case(model, guide, x, refused=why, settings=settings, trainable=True)


@program
def raises_key_error():
    """A key that is not in the keyword arguments."""
    dec, x, enc = parts()
    c = randn(5, 4)

    def model(x, **batch):
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("z", dist.Normal(x.new_zeros(x.shape[0], 2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(dec(z) + batch["covariate"], 0.7).to_event(1), obs=x)

    def guide(x, **batch):
        pyro.module("enc", enc)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("z", dist.Normal(*enc(x)).to_event(1))

    settings, why = raising(KeyError, "covariate")
    return Case(model, guide, x, {"covariates": c}, refused=why, settings=settings, trainable=True)


@program
def raises_attribute_error():
    """A method that tensors do not have."""
    dec, x, enc = parts()
    model, guide = vae(lambda z, x: dec(z).to_events(1), enc)
    settings, why = raising(AttributeError, "to_events")
    return Case(model, guide, x, refused=why, settings=settings, trainable=True)


@program
def raises_zero_division():
    """A division by a Python zero in the guide."""
    dec, x, enc = parts()
    model, _ = vae(lambda z, x: dec(z), enc)

    def guide(x):
        pyro.module("enc", enc)
        warmup = 0
        with pyro.plate("data", x.shape[0]):
            loc, scale = enc(x)
            pyro.sample("z", dist.Normal(loc, scale * (1 / warmup)).to_event(1))

    settings, why = raising(ZeroDivisionError, "warmup is zero")
    return Case(model, guide, x, refused=why, settings=settings, trainable=True)


@program
def raises_runtime_error():
    """A layer of the wrong width: mat1 and mat2 shapes cannot be multiplied."""
    _, x, enc = parts()
    wrong = nn.Linear(3, 4, dtype=F64)
    model, guide = vae(lambda z, x: wrong(z), enc)
    settings, why = raising(RuntimeError, "shapes cannot be multiplied")
    return Case(model, guide, x, refused=why, settings=settings, trainable=True)


@program
def raises_value_error():
    """A negative scale, caught by the distribution's own validation."""
    dec, x, enc = parts()
    model, guide = vae(lambda z, x: dec(z), enc, sd=lambda x: x.new_tensor(-0.7))
    settings, why = raising(ValueError, "a negative scale")
    return Case(model, guide, x, refused=why, settings=settings, trainable=True)


@program
def raises_its_own_exception():
    """An exception class of the program's own, with a constructor of two arguments."""
    dec, x, enc = parts()

    class BadCode(Exception):
        def __init__(self, where, value):
            super().__init__(f"{where}: {value}")

    def decode(z, x):
        raise BadCode("decoder", float(z.detach().abs().max()))

    model, guide = vae(decode, enc)
    settings, why = raising(BadCode, "decoder")
    return Case(model, guide, x, refused=why, settings=settings, trainable=True)
