"""`pyro-vae export`."""

import io
import warnings
from pathlib import Path

import pyro
import torch
from torch import Tensor, nn

from pyro_vae.cli.loading import load
from pyro_vae.errors import InputError, one_line
from pyro_vae.storage.files import write, write_arrays
from pyro_vae.vae import JointProgram

#: Rounding, relative and absolute, by which an exported network may differ.
_ROUNDING = 1e-4


class Encoder(nn.Module):
    """x (B, *data_shape) to the mean and the standard deviation of q(z|x), (B, L) each."""

    def __init__(self, vae: JointProgram) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation."""
        return self.vae.codes(x)


class Decoder(nn.Module):
    """z (B, L) to the mean of p(x|z), (B, *data_shape)."""

    def __init__(self, vae: JointProgram) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, z: Tensor) -> Tensor:
        """The mean."""
        return self.vae.decode(z)


def export(run: Path, *, out: Path | None = None) -> None:
    """Encoder and decoder as programs of `torch.export`, which need neither this package nor Pyro.

    encoder.pt2 takes x (B, *data_shape) to the mean and the standard deviation of q(z|x), decoder.pt2 takes z
    (B, L) to the mean of p(x|z), for any number B of data. Both are held against the model on three data,
    which lie beside them in test.npz with what comes out: x, mean, scale, z and decoded. Loaded by
    `torch.export.load("encoder.pt2").module()`. A flow has its mean by draws, and is refused.

    Args:
        run: Folder of the run.
        out: Folder of the three files; by default export in the run's folder.
    """
    if out is not None and out.suffix in (".pt2", ".pt", ".pth", ".npz", ".onnx"):
        raise InputError(
            f"--out expects the folder of encoder.pt2, decoder.pt2 and test.npz, got {out}: "
            f"give {out.with_suffix('')}"
        )
    opened = load(run)
    names = (*opened.vae.conditions, *opened.vae.optional)
    if names:
        raise InputError(
            f"expected a model of x alone, got one that depends on {', '.join(names)}: its "
            "parts are to be had by pyro_vae.load(RUN).vae"
        )
    vae, folder = opened.vae, out or opened.run.folder / "export"
    torch.manual_seed(0)
    x = vae.place(torch.rand(3, *opened.facts.data_shape) < 0.5)
    with torch.no_grad():
        mean, scale = Encoder(vae)(x)
        decoded = vae.decode(mean)
    programs = {
        "encoder": _exported(Encoder(vae), x, "encoder"),
        "decoder": _exported(Decoder(vae), mean, "decoder"),
    }
    _check("encoder", programs["encoder"], x, (mean, scale))
    _check("decoder", programs["decoder"], mean, (decoded,))
    for name, content in programs.items():
        write(folder / f"{name}.pt2", content)
    arrays = {"x": x, "mean": mean, "scale": scale, "z": mean, "decoded": decoded}
    write_arrays(folder / "test.npz", {name: array.cpu().numpy() for name, array in arrays.items()})
    for name in ("encoder.pt2", "decoder.pt2", "test.npz"):
        print(folder / name)


def _exported(module: nn.Module, example: Tensor, what: str) -> bytes:
    """A module as a program with a free number of data, as the bytes of its file."""
    size = torch.export.Dim("B")
    try:
        # validation reads numbers that are not known yet
        with pyro.validation_enabled(False), torch.no_grad():
            program = torch.export.export(module.eval(), (example,), dynamic_shapes=({0: size},))
        buffer = io.BytesIO()
        torch.export.save(program, buffer)
    except Exception as error:  # torch has many words for a program that it cannot follow
        raise InputError(f"the {what} cannot be exported: {one_line(error)[:200]}") from error
    return buffer.getvalue()


def _check(what: str, content: bytes, x: Tensor, expected: tuple[Tensor, ...]) -> None:
    """Hold an exported program against the model: on the data, and on another number of them."""
    with warnings.catch_warnings():  # torch 2.11 reads its own file through memory that is not writable
        warnings.filterwarnings("ignore", "The given buffer is not writable")
        program = torch.export.load(io.BytesIO(content)).module()
    for rows in (slice(None), slice(0, 2)):
        found = program(x[rows])
        found = found if isinstance(found, tuple) else (found,)
        for new, old in zip(found, expected, strict=True):
            if not torch.allclose(new, old[rows], rtol=_ROUNDING, atol=_ROUNDING):
                raise InputError(
                    f"the exported {what} gives others numbers than the model, so it is not written"
                )
