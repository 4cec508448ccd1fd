"""Runs side by side: what differs between them, and by how many nats, datum by datum. Knows no model.

The difference of two runs in log p(x) is taken on the same data, so that what makes a datum hard for
both cancels: the interval is far narrower than the errors of the two means suggest.
"""

from pyro_vae.comparison.options import options_in_words
from pyro_vae.comparison.paired import Reference, compare, paired_difference
from pyro_vae.comparison.table import ComparedRun, Comparison, Verdict

__all__ = [
    "ComparedRun",
    "Comparison",
    "Reference",
    "Verdict",
    "compare",
    "options_in_words",
    "paired_difference",
]
