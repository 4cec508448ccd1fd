"""Sphinx: `python docs/build.py`, or `sphinx-build -W -c docs . docs/_build`."""

import pyro_vae

project = "pyro_vae"
author = "the pyro_vae team"
release = pyro_vae.__version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
# the whole repository is the source, so that pages, notebooks and experiments link to each other as they lie
root_doc = "docs/index"
include_patterns = ["docs/**", "notebooks/*.ipynb", "experiments/README.md", "experiments/*/README.md"]
exclude_patterns = ["docs/_build", "**/.ipynb_checkpoints"]
nb_execution_mode = "off"
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "pyro_vae"
autosummary_generate = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"
