"""Figures from tensors; the only folder that imports matplotlib.

Every function returns a `matplotlib.figure.Figure`; `save` writes it.
"""

from pyro_vae.plots.calibration import posterior_contours, rank_histograms
from pyro_vae.plots.comparisons import differences, heat_map, points, ratios
from pyro_vae.plots.diagnosis import latent_units, waterfall
from pyro_vae.plots.evidence import bound_curve, pareto_k
from pyro_vae.plots.pictures import images, plane, reconstructions, scatter
from pyro_vae.plots.rows import rows
from pyro_vae.plots.saving import save
from pyro_vae.plots.training import history

__all__ = [
    "bound_curve",
    "differences",
    "heat_map",
    "history",
    "images",
    "latent_units",
    "pareto_k",
    "plane",
    "points",
    "posterior_contours",
    "rank_histograms",
    "ratios",
    "reconstructions",
    "rows",
    "save",
    "scatter",
    "waterfall",
]
