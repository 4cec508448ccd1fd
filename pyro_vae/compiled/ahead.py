"""Graphs compiled ahead of time to a library without Python in it, which is kept for later processes."""

import hashlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor, fx

from pyro_vae.compiled.machine import cache_folder, processor

#: Name of the library in its folder.
_LIBRARY = "graph.so"

#: Runs a compiled graph on its inputs, all of them tensors.
Run = Callable[[list[Tensor]], list[Tensor]]


@torch.no_grad()
def compiled_ahead(module: fx.GraphModule, inputs: Sequence[Tensor]) -> Run:
    """The graph as one compiled function, for inputs of these shapes and types, on a CPU.

    Unlike `passes.compiled`, it has no Python between its kernels. It draws the random numbers that the graph
    does, changes in place the inputs that the graph changes, and agrees up to rounding. The library is kept
    in a folder of the user's, by all that it depends on: the graph, shapes, types, versions, processor and
    threads; there a later process finds it.

    Raises:
        Exception: of the compiler, where it fails.
    """
    folder = kept_in() / key_of(module, inputs)
    with suppress(Exception):  # none is kept, or one that is broken
        return _loaded(folder)
    _compile(module, inputs, folder)
    return _loaded(folder)


def kept_in() -> Path:
    """Where libraries are kept: beside what inductor keeps, if that is said, else with the user's caches."""
    if named := os.environ.get("TORCHINDUCTOR_CACHE_DIR"):
        return Path(named) / "pyro_vae"
    return cache_folder() / "graphs"


def key_of(module: fx.GraphModule, inputs: Sequence[Tensor]) -> str:
    """A hash of all that a library depends on."""
    layout = [(tuple(each.shape), each.stride(), each.dtype, str(each.device)) for each in inputs]
    versions = torch.__version__, torch.version.git_version
    threads = torch.get_num_threads()  # how many, is in the code
    modes = torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision()
    made_for = processor("model name", "cpu family", "model", "flags")  # a library uses all instructions
    parts = (module.code, layout, versions, threads, modes, torch.get_default_dtype(), made_for)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def _loaded(folder: Path) -> Run:
    run: Run = torch._C._aoti.AOTIModelContainerRunnerCpu(str(folder / _LIBRARY), 1).run
    return run


def _compile(module: fx.GraphModule, inputs: Sequence[Tensor], folder: Path) -> None:
    """Put the library into its folder, whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=folder.parent) as made, warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning, UserWarning):  # of what torch itself calls
            warnings.simplefilter("ignore", category)
        from torch import _inductor  # which takes, with Dynamo, as long to import as torch itself

        options = {"fallback_random": True, "aot_inductor.output_path": str(Path(made) / "new" / _LIBRARY)}
        _inductor.aot_compile(module, tuple(inputs), options=options)
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # another process has just put the same there
            os.replace(Path(made) / "new", folder)
