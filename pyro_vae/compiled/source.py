"""Whose code it is: a user's, or that of a library."""

import linecache
import sys
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import CodeType, FrameType, TracebackType

#: Packages, besides the standard library, whose functions and classes keep no state of a user's.
_LIBRARIES = frozenset(
    {
        *("IPython", "_pytest", "ipykernel", "jsonargparse", "matplotlib", "numpy", "opt_einsum", "pandas"),
        *("PIL", "pyro", "pyro_vae", "pyroapi", "pytest", "scipy", "sklearn", "sympy", "torch"),
        *("torchvision", "tqdm", "traitlets", "xarray", "zuko"),
    }
)
#: Packages whose objects look on, and on which no result depends.
_TOOLS = frozenset({"IPython", "_pytest", "ipykernel", "logging", "matplotlib", "mlflow", "tqdm", "wandb"})
_HERE = str(Path(__file__).parents[1])
_FOLDERS = {sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}


def is_library(module: object) -> bool:
    """Whether the code of a module, by its name, keeps no state of a user's in globals and classes."""
    if not isinstance(module, str):
        return True
    package = module.partition(".")[0]
    return package in _LIBRARIES or (package in sys.stdlib_module_names and package != "__main__")


def is_tool(thing: object) -> bool:
    """Whether a thing only looks on, as a logger or a bar of progress."""
    module = type(thing).__module__
    return isinstance(module, str) and module.partition(".")[0] in _TOOLS


def users_line(traceback: TracebackType | None = None) -> str:
    """The innermost line of a user's code, in the call under way or in that which has failed.

    Returns:
        As ``at script.py:12, `if x.sum() > 0:` ``; empty where there is none.
    """
    places = _calls(sys._getframe(1)) if traceback is None else reversed([*_failed(traceback)])
    for code, line in places:
        if is_users(code):
            text = linecache.getline(code.co_filename, line).strip()
            name = Path(code.co_filename).name or code.co_filename
            return f"at {name}:{line}" + (f", `{text}`" if text else "")
    return ""


def _calls(frame: FrameType | None) -> Iterator[tuple[CodeType, int]]:
    while frame is not None and not _is_entry(frame.f_code):
        yield frame.f_code, frame.f_lineno
        frame = frame.f_back


def _failed(traceback: TracebackType | None) -> Iterator[tuple[CodeType, int]]:
    while traceback is not None:
        yield traceback.tb_frame.f_code, traceback.tb_lineno
        traceback = traceback.tb_next


def _is_entry(code: CodeType) -> bool:
    """Whether a call is that by which a trace enters the programs."""
    return code.co_name == "watched" and code.co_filename.startswith(_HERE)


@cache
def is_users(code: CodeType) -> bool:
    """Whether a code lies neither in this package nor where libraries are installed."""
    file = code.co_filename
    made = file.startswith("<") and not file.startswith("<ipython")
    return not made and not file.startswith((_HERE, *_FOLDERS))
