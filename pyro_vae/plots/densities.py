"""Densities over a plane, known on a grid."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from torch import Tensor

from pyro_vae.errors import InputError
from pyro_vae.plots.calibration import _BLUE, _VERMILION, _panels, _thumbnail
from pyro_vae.precision import wide

#: Shares of the mass that contours hold.
_MASSES = (0.9, 0.5)


def density_contours(
    axis: Tensor,
    exact: Tensor,
    guide: Tensor,
    *,
    names: tuple[str, str] = ("$z_1$", "$z_2$"),
    pictures: Tensor | None = None,
    titles: Sequence[str] | None = None,
) -> Figure:
    """p(z|x) and q(z|x) from their values on a square grid, a panel for each datum.

    Filled contours are p, lines are q; the contours hold 50 and 90 % of the mass on the grid. Densities of
    which there are only draws are shown by `posterior_contours`.

    Args:
        axis: Coordinates of the grid along each axis, increasing: (G,).
        exact: Log density of p at (axis[i], axis[j]), up to a constant: (B, G, G).
        guide: That of q, likewise.
        names: Of the two coordinates.
        pictures: (B, C, H, W), data to show in a corner of each panel.
        titles: Of the panels.

    Raises:
        InputError: where the densities are not square tables over the axis.

    >>> import torch
    >>> axis = torch.linspace(-4, 4, 41)
    >>> normal = -(axis[:, None].square() + axis.square()) / 2
    >>> figure = density_contours(axis, normal[None], normal[None] * 2)
    >>> len(figure.axes)
    1
    """
    wanted = (len(axis), len(axis))
    if exact.ndim != 3 or exact.shape[1:] != wanted or guide.shape != exact.shape:
        raise InputError(
            f"density_contours expects two tables of shape (B, {wanted[0]}, {wanted[1]}), got "
            f"{tuple(exact.shape)} and {tuple(guide.shape)}"
        )
    grid, (p, q) = axis.cpu().numpy(), (_masses(each) for each in (exact, guide))
    figure, panels = _panels(len(p), width=3.1, height=3.0)
    for datum, panel in enumerate(panels):
        levels = _levels(p[datum])
        colours = ["#9ecae9", "#5aa5d6"]
        panel.contourf(grid, grid, p[datum].T, [*levels, np.inf], colors=colours, alpha=0.85)
        panel.contour(grid, grid, q[datum].T, _levels(q[datum]), colors=_VERMILION, linewidths=1.4)
        _zoom(panel, grid, np.maximum(p[datum] / p[datum].max(), q[datum] / q[datum].max()))
        panel.set_title(titles[datum] if titles else f"datum {datum}", fontsize=9, parse_math=False)
        panel.tick_params(labelsize=7)
        if pictures is not None:
            _thumbnail(panel, pictures[datum])
    figure.supxlabel(names[0], fontsize=9)
    figure.supylabel(names[1], fontsize=9)
    handles = [
        Patch(color=_BLUE, alpha=0.5, label="p(z|x), exact"),
        Line2D([], [], color=_VERMILION, label="q(z|x)"),
    ]
    style = {"title": "50 and 90 % of the mass", "title_fontsize": 8, "frameon": False, "fontsize": 8}
    figure.legend(handles=handles, loc="outside upper right", ncols=2, **style)
    return figure


def _masses(log_density: Tensor) -> np.ndarray:
    """Tables that sum to 1."""
    flat = wide(log_density.detach()).flatten(1).softmax(1)
    return flat.reshape(log_density.shape).cpu().numpy()


def _levels(mass: np.ndarray) -> list[float]:
    """Heights whose superlevel sets hold the shares of the mass, rising."""
    falling = np.sort(mass, axis=None)[::-1]
    places = [min(int(np.searchsorted(falling.cumsum(), share)), mass.size - 1) for share in _MASSES]
    outer, inner = falling[places]
    return [outer, max(inner, outer * (1 + 1e-9))]


def _zoom(axes: Axes, grid: np.ndarray, height: np.ndarray) -> None:
    """Show the square around what is not negligible, with room at the top for a picture."""
    rows, columns = np.nonzero(height > 0.01)
    low = np.array([grid[rows.min()], grid[columns.min()]])
    high = np.array([grid[rows.max()], grid[columns.max()]])
    middle, half = (low + high) / 2, 0.62 * (high - low).max() + (grid[1] - grid[0])
    axes.set(xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] - half, middle[1] + half))
    axes.set_aspect("equal")
