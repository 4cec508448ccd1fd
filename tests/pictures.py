"""Pictures as tests draw them."""

from collections.abc import Callable, Iterator
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.legend import Legend
from matplotlib.text import Text

from pyro_vae.plots import saving


def draw_coarsely(set_to: Callable[[Any, str, Any], object] = setattr) -> None:
    """From here on."""
    set_to(saving, "DPI", 40)
    set_to(saving, "FigureCanvasAgg", Coarse)


class Coarse(FigureCanvasAgg):
    """Draws what a picture shows, once and where it is, and keeps its words beside it: letters take long."""

    def print_figure(self, filename: Any, dpi: Any = None, **_: Any) -> None:  # type: ignore[override]
        self.figure.set_layout_engine("none")
        self.figure.set_dpi(dpi)
        words = []
        for artist in _shown(self.figure):
            if isinstance(artist, Axes):
                artist.axison = False
            elif isinstance(artist, Axis):
                words.append(artist.label.get_text())
            elif isinstance(artist, Text | Legend):
                words += [artist.get_text()] if isinstance(artist, Text) else []
                artist.set_visible(False)
        self.print_png(filename, metadata={"Words": "\n".join(words)})


def _shown(artist: Artist) -> Iterator[Artist]:
    """An artist and all in it, but for the marks of an axis, which are made when they are asked for."""
    yield artist
    if not isinstance(artist, Axis):
        for child in artist.get_children():
            yield from _shown(child)
