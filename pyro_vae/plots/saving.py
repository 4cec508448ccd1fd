"""A figure as a file."""

import io
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pyro_vae.storage.files import write

#: Dots per inch.
DPI = 150


def save(figure: Figure, path: Path | str, *, scale: float = 1.0) -> None:
    """Write `figure` as a PNG into a file, atomically.

    Args:
        figure: As the functions of this room return it.
        path: Of the file.
        scale: Of its dots per inch, 150 for 1.

    >>> import tempfile
    >>> figure = Figure(figsize=(1, 1))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(figure, f"{folder}/empty.png", scale=0.5)
    ...     (Path(folder) / "empty.png").read_bytes()[1:4]
    b'PNG'
    """
    write(Path(path), png(figure, scale=scale))


def png(figure: Figure, *, scale: float = 1.0) -> bytes:
    """`figure` as a PNG.

    Args:
        figure: As the functions of this room return it.
        scale: Of its dots per inch, 150 for 1.

    >>> png(Figure(figsize=(1, 1)), scale=0.5)[1:4]
    b'PNG'
    """
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=scale * DPI, bbox_inches="tight")
    return buffer.getvalue()
