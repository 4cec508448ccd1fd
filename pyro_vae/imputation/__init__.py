"""What was not observed, given what was: p(x_mis|x_obs), for any Pyro model and guide.

NaN in x stands for an entry that was not observed. The programs must leave it out of log p(x, z) by
themselves, as those do that `assemble` makes for data with missing entries, and programs with masks.
"""

from pyro_vae.imputation.conditional import log_conditional
from pyro_vae.imputation.imputing import impute
from pyro_vae.imputation.results import Imputation, LogConditional

__all__ = ["Imputation", "LogConditional", "impute", "log_conditional"]
