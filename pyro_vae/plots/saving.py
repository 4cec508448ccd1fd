"""A figure as a file."""

import io
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pyro_vae.storage.files import write

#: Dots per inch.
DPI = 150


def save(figure: Figure, path: Path) -> None:
    """Write `figure` as a PNG, atomically."""
    write(path, png(figure))


def png(figure: Figure) -> bytes:
    """`figure` as a PNG."""
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, bbox_inches="tight")
    return buffer.getvalue()
