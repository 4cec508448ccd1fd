"""The VAE of squared error plus KL, at the scales that its usual losses mean, and with a learned one.

    python experiments/squared_error_vae/run.py

Trained runs are kept in RUNS, and a finished measurement in OUT/measures.jsonl; a command that was
interrupted goes on with what is not there. Tables are made from that file alone.
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from experiments.command import options_of, run_script
from experiments.records import Records, config_hash, publish
from experiments.squared_error_vae.figures import pictures
from experiments.squared_error_vae.measures import eigenvalues, measured
from experiments.squared_error_vae.report import models, sections, summary
from experiments.squared_error_vae.variants import VARIANTS
from experiments.training import summary_of, trained_variants
from pyro_vae import plots

HERE = Path(__file__).parent


def main(arguments: list[str] | None = None) -> int:
    options = options_of(__doc__, HERE, arguments)
    about: dict[str, Any] = {"smoke": options.smoke, "config": config_hash(HERE / "config.yaml")}
    words = {name: variant.options for name, variant in VARIANTS.items()}
    made = trained_variants(options.runs, HERE / "config.yaml", words, smoke=options.smoke)
    data = next(iter(made.values()))[1]  # the same for all
    about |= {"data": data.name, "sizes": list(data.sizes)}
    records = Records(options.out / "measures.jsonl", about)
    for name, (run, _, vae) in made.items():
        if name not in records.found:
            records.add(name, measured(data, vae, summary_of(run), 100 if options.smoke else None))
    if "data" not in records.found:
        x = data.train.subset(10_000).batch()
        records.add("data", {"variances": [round(each, 5) for each in eigenvalues(x, 100)]})
    shown = data.test.subset(8).batch()
    vaes = {name: vae for name, (_, _, vae) in made.items()}
    for file, figure in pictures(vaes, shown, models(records.found)).items():
        plots.save(figure, options.out / file)
    publish(options.out, sections(records.found), summary(records.found), HERE / "README.md")
    return 0


if __name__ == "__main__":
    run_script(main)
