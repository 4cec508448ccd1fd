"""A VAE whose normal likelihood has a learned scale per pixel: what happens, and what helps.

    python experiments/aevb_review/run.py

Trained runs are kept in RUNS, and a finished measurement in OUT/measures.jsonl; a command that was
interrupted goes on with what is not there. Tables are made from that file alone.
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from experiments.aevb_review.figures import pictures
from experiments.aevb_review.measures import Sizes, measured
from experiments.aevb_review.report import sections, summary
from experiments.aevb_review.variants import VARIANTS
from experiments.command import options_of, run_script
from experiments.records import Records, config_hash, publish
from experiments.training import summary_of, trained_variants
from pyro_vae import plots

HERE = Path(__file__).parent
SMOKE = Sizes(data=40, integrated=1, points=11, levels=1)


def main(arguments: list[str] | None = None) -> int:
    options = options_of(__doc__, HERE, arguments)
    about: dict[str, Any] = {"smoke": options.smoke, "config": config_hash(HERE / "config.yaml")}
    words = {name: variant.options for name, variant in VARIANTS.items()}
    made = trained_variants(options.runs, HERE / "config.yaml", words, smoke=options.smoke)
    first = next(iter(made.values()))[1]  # another form of the same images for each
    about |= {"data": first.name, "sizes": list(first.sizes)}
    records = Records(options.out / "measures.jsonl", about)
    for name, (run, data, vae) in made.items():
        if name not in records.found:
            sizes = SMOKE if options.smoke else Sizes()
            records.add(name, measured(run, data, vae, summary_of(run), sizes))
    vaes = {name: vae for name, (_, _, vae) in made.items()}
    x = {name: data.test.subset(10).batch() for name, (_, data, _) in made.items()}
    for file, figure in pictures(vaes, x, records.found).items():
        plots.save(figure, options.out / file)
    publish(options.out, sections(records.found), summary(records.found), HERE / "README.md")
    return 0


if __name__ == "__main__":
    run_script(main)
