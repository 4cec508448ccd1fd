"""The joint programs: p(x, z) and q(z|x) as a Pyro model and guide.

This is the only place with site names.
"""

from pyro_vae.vae.assembly import assemble
from pyro_vae.vae.autoencoder import Autoencoder
from pyro_vae.vae.classifier import Classifier
from pyro_vae.vae.hierarchical import HierarchicalVAE
from pyro_vae.vae.parts import NeedsDataError
from pyro_vae.vae.program import JointProgram, check_latent_axes
from pyro_vae.vae.semi_supervised import SemiSupervisedVAE
from pyro_vae.vae.standardised import StandardisedLikelihood, StandardisedPosterior
from pyro_vae.vae.supplying import FACTS
from pyro_vae.vae.vae import VAE

__all__ = [
    "FACTS",
    "VAE",
    "Autoencoder",
    "Classifier",
    "HierarchicalVAE",
    "JointProgram",
    "NeedsDataError",
    "SemiSupervisedVAE",
    "StandardisedLikelihood",
    "StandardisedPosterior",
    "assemble",
    "check_latent_axes",
]
