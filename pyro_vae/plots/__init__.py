"""Figures from tensors; the only room of the package that imports matplotlib.

Every function returns a `matplotlib.figure.Figure`; `save` writes it.
"""

from pyro_vae.plots.calibration import posterior_contours, rank_histograms
from pyro_vae.plots.comparisons import differences, heat_map, points, ratios
from pyro_vae.plots.densities import density_contours
from pyro_vae.plots.diagnosis import latent_units, waterfall
from pyro_vae.plots.evidence import bound_curve, pareto_k
from pyro_vae.plots.pictures import images, plane, reconstructions, scatter, scatters, strips
from pyro_vae.plots.rate_distortion import rate_distortion
from pyro_vae.plots.reliability import reliability
from pyro_vae.plots.saving import png, save
from pyro_vae.plots.tables import marginals, pairs
from pyro_vae.plots.training import history

__all__ = [
    "bound_curve",
    "density_contours",
    "differences",
    "heat_map",
    "history",
    "images",
    "latent_units",
    "marginals",
    "pairs",
    "pareto_k",
    "plane",
    "png",
    "points",
    "posterior_contours",
    "rank_histograms",
    "rate_distortion",
    "ratios",
    "reconstructions",
    "reliability",
    "save",
    "scatter",
    "scatters",
    "strips",
    "waterfall",
]
