"""The numbers of a run, as dictionaries for JSON and as tables for a person."""

from pyro_vae.reports.diagnosing import Diagnosing, diagnosis_rows, diagnosis_table
from pyro_vae.reports.estimators import Estimator, Method, like, usual_method
from pyro_vae.reports.evaluating import evaluate
from pyro_vae.reports.facts import bits, circumstances, held_out, is_mass, note_other_data, part_of, units
from pyro_vae.reports.measuring import ELBO_PARTICLES, Evaluation, evaluation, summary
from pyro_vae.reports.tables import fact_rows, table, table_rows

__all__ = [
    "ELBO_PARTICLES",
    "Diagnosing",
    "Estimator",
    "Evaluation",
    "Method",
    "bits",
    "circumstances",
    "diagnosis_rows",
    "diagnosis_table",
    "evaluate",
    "evaluation",
    "fact_rows",
    "held_out",
    "is_mass",
    "like",
    "note_other_data",
    "part_of",
    "summary",
    "table",
    "table_rows",
    "units",
    "usual_method",
]
