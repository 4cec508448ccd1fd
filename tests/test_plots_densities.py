"""Figures of densities known on a grid."""

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

import pyro_vae as pv
from pyro_vae import plots
from pyro_vae.plots.densities import _levels, _masses


def test_contours_hold_their_share_of_a_normal() -> None:
    axis = torch.linspace(-6, 6, 241, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis)
    scale = torch.tensor([0.5, 1.5])
    log_density = -((z / scale).square().sum(1) / 2).reshape(1, 241, 241) + 7  # up to a constant
    mass = _masses(log_density)[0]
    for height, share in zip(_levels(mass), (0.9, 0.5), strict=True):
        assert mass[mass >= height].sum() == pytest.approx(share, abs=2e-3)
        assert height / mass.max() == pytest.approx(1 - share, rel=0.01)  # of a normal in two dimensions


def test_density_contours_lie_where_the_densities_are() -> None:
    axis = torch.linspace(-6, 6, 121, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis)
    table = -((z - torch.tensor([2.0, -3.0])).square().sum(1) / 0.5).reshape(1, 121, 121)
    figure = plots.density_contours(axis, table, table, pictures=torch.rand(1, 1, 8, 8), titles=["here"])
    axes = figure.axes[0]
    assert sum(axes.get_xlim()) / 2 == pytest.approx(2, abs=0.06)
    assert sum(axes.get_ylim()) / 2 == pytest.approx(-3, abs=0.06)
    assert axes.get_title() == "here"
    FigureCanvasAgg(figure).draw()
    with pytest.raises(pv.InputError, match=r"two tables of shape \(B, 121, 121\), got \(1, 121, 121\) and"):
        plots.density_contours(axis, table, table[:, 1:])
