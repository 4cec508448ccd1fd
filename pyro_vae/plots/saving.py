"""A figure as a file."""

import io
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pyro_vae.storage.files import write

#: Dots per inch.
DPI = 150


def save(figure: Figure, path: Path | str, *, scale: float = 1.0) -> None:
    """Write `figure` as a PNG into a file, atomically; `scale` is that of its dots per inch."""
    write(Path(path), png(figure, scale=scale))


def png(figure: Figure, *, scale: float = 1.0) -> bytes:
    """`figure` as a PNG; `scale` is that of its dots per inch."""
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=scale * DPI, bbox_inches="tight")
    return buffer.getvalue()
