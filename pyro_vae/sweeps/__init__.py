"""Sweeps: many trainings over chosen options, by Optuna, shared by any number of workers. Knows no model.

`reading` makes a `StudyFile` of study.yaml, whose `space` says which options are tried where; `databases`
opens what the workers share; `queue` hands out trials, each to one worker, and takes back those of workers
that are dead; `worker` trains what it is given; `results` is what came out. How an option is checked, and a
configuration trained, is given to them.
"""
