"""Which family of proposals is fitted."""

from pyro_vae.batch import Batch, Program
from pyro_vae.compiled import Compile
from pyro_vae.errors import InputError
from pyro_vae.programs import Latents, Pair
from pyro_vae.proposals.family import Family
from pyro_vae.proposals.normal import FittedNormal
from pyro_vae.proposals.of_guide import OfGuide
from pyro_vae.proposals.options import LocalProposal

#: Latent numbers of a datum up to which all their correlations are fitted unasked.
MOST = 64


def can_be_fitted(model: Program, guide: Program, batch: Batch) -> bool:
    """Whether there is a family of proposals for these programs; random numbers go on as if unused."""
    try:
        family_of(model, guide, batch, LocalProposal(), compile="off", data_plate=None)
    except InputError:
        return False
    return True


def family_of(
    model: Program,
    guide: Program,
    batch: Batch,
    options: LocalProposal,
    *,
    compile: Compile,
    data_plate: str | None,
) -> Family:
    """The family that the options name.

    Raises:
        InputError: as `Pair`; where no latent is continuous; of the normal by its name, as `Latents`.
    """
    if options.family == "normal":
        latents = Latents(model, guide, batch, data_plate=data_plate)
        return FittedNormal(latents, batch, options, compile)
    if options.family == "auto":
        try:
            latents = Latents(model, guide, batch, data_plate=data_plate)
            if latents.is_real and 0 < latents.size <= MOST:
                return FittedNormal(latents, batch, options, compile)
        except InputError:  # of what the guide's own family takes, as a discrete latent or a mask
            pass
    pair = Pair(model, guide, batch, density=True, data_plate=data_plate)
    if pair.summed:  # which sums at latents from elsewhere are held by
        pair = Latents(model, guide, batch, data_plate=data_plate, masked=True).pair
    return OfGuide(pair, batch, options)
