"""A figure as a file."""

import io
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pyro_vae.storage.files import write

#: Dots per inch.
DPI = 150


def save(figure: Figure, path: Path | str) -> None:
    """Write `figure` as a PNG into a file, a path or its name, atomically."""
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, bbox_inches="tight")
    write(Path(path), buffer.getvalue())
