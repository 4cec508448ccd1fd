"""The variants of each kind of case, by the names that tables show."""

from importlib.util import find_spec
from typing import NamedTuple

from experiments.benchmarks.cases import Kind

CPU, GPU = ("cpu",), ("cuda",)


class Variant(NamedTuple):
    """Where a variant is made, and where it can be.

    Attributes:
        maker: "module:function" of the folder `variants`.
        group: Whose it is; one colour of the picture.
        devices: On which it is measured.
        needs: Packages beyond those that pyro_vae depends on.
        particles: Instead of those of the case.
    """

    maker: str
    group: str
    devices: tuple[str, ...] = ("cpu", "cuda")
    needs: tuple[str, ...] = ()
    particles: int = 0


OURS, PLAIN, FLOOR = "pyro_vae", "PyTorch", "matrix products only"
JAX = ("jax", "numpyro")

#: The first is the reference of all ratios.
STEPS = {
    "PyTorch eager": Variant("plain:eager", PLAIN),
    "PyTorch torch.compile": Variant("plain:compiled", PLAIN),
    "PyTorch CUDA graph": Variant("plain:graphed", PLAIN, GPU),
    "PyTorch torch.compile, CUDA graph": Variant("plain:compiled_graphed", PLAIN, GPU),
    "pyro_vae off": Variant("own:off", OURS),
    "pyro_vae flat": Variant("own:flat", OURS),
    "pyro_vae flat, fast": Variant("own:fast", OURS, CPU),
    "pyro_vae inductor": Variant("own:inductor", OURS),
    "pyro_vae fit auto": Variant("own:fit_auto", OURS),
    "pyro_vae fit inductor": Variant("own:fit_inductor", OURS),
    "pyro_vae fit inductor, bfloat16": Variant("own:fit_bfloat16", OURS),
    "Pyro example": Variant("pyro_loops:example", "Pyro"),
    "Pyro JitTrace_ELBO": Variant("pyro_loops:jit", "Pyro"),
    "NumPyro jit": Variant("numpyro_loops:jit", "NumPyro", needs=JAX),
    "NumPyro lax.scan": Variant("numpyro_loops:scan", "NumPyro", needs=JAX),
    "Pythae": Variant("pythae_loop:trainer_steps", "Pythae", needs=("pythae",)),
    "products, torch.mm": Variant("floor:torch_mm", FLOOR),
    "products, oneDNN": Variant("floor:onednn", FLOOR, CPU),
}

EVIDENCE = {
    "PyTorch eager": Variant("plain_evidence:eager", PLAIN),
    "PyTorch torch.compile": Variant("plain_evidence:compiled", PLAIN),
    "pyro_vae log_evidence": Variant("pyro_evidence:own", OURS),
    "pyro_vae log_evidence, bfloat16": Variant("pyro_evidence:bfloat16", OURS),
    "Pyro RenyiELBO": Variant("pyro_evidence:renyi", "Pyro"),
    "NumPyro vmap": Variant("numpyro_evidence:vmapped", "NumPyro", needs=JAX),
    "products, torch.mm": Variant("floor:torch_mm", FLOOR),
    "products, oneDNN": Variant("floor:onednn", FLOOR, CPU),
}

PARTICLES = {
    f"{number:,} draws": Variant("pyro_evidence:own", OURS, particles=number)
    for number in (100, 1000, 10_000, 100_000)
}

VARIANTS: dict[Kind, dict[str, Variant]] = {
    "steps": STEPS,
    "evidence": EVIDENCE,
    "particles": PARTICLES,
}

#: Whose the variants are, in the order of their colours.
GROUPS = tuple(dict.fromkeys(variant.group for variant in STEPS.values()))

#: Of `--smoke`.
SMOKE = {
    "smoke-steps": ("PyTorch eager", "products, torch.mm"),
    "smoke-conv": ("PyTorch eager",),
    "smoke-evidence": ("PyTorch eager", "pyro_vae log_evidence"),
}


def reference(kind: Kind) -> str:
    """The variant that the others are compared with."""
    return next(iter(VARIANTS[kind]))


def missing(variant: Variant) -> str:
    """Why a variant is left out, where a package is not installed; else nothing.

    >>> missing(Variant("a:b", "c", needs=("no_such_package",)))
    'no_such_package is not installed: pip install "pyro_vae[bench]"'
    """
    absent = [name for name in variant.needs if find_spec(name) is None]
    return f'{", ".join(absent)} is not installed: pip install "pyro_vae[bench]"' if absent else ""


def chosen(kind: Kind, device: str, wanted: list[str] | None) -> list[str]:
    """Names of the variants on this device, those that contain one of the words; always the reference."""
    names = [name for name, variant in VARIANTS[kind].items() if device in variant.devices]
    if wanted is None or kind == "particles":
        return names
    kept = [name for name in names if any(word.lower() in name.lower() for word in wanted)]
    return list(dict.fromkeys([reference(kind), *kept]))
