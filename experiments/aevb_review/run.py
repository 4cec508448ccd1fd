"""A VAE whose normal likelihood has a learned scale per pixel: what happens, and what helps.

    python experiments/aevb_review/run.py

Trained runs are kept in RUNS, and a finished measurement in OUT/measures.jsonl; a command that was
interrupted goes on with what is not there. Tables are made from that file alone.
"""

import json
import sys
from pathlib import Path
from typing import Any

from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))

import pyro_vae as pv
from experiments.aevb_review.figures import pictures
from experiments.aevb_review.measures import Sizes, measured
from experiments.aevb_review.report import sections, summary
from experiments.aevb_review.variants import VARIANTS
from experiments.command import options_of, run_script
from experiments.records import Records, config_hash, publish
from experiments.training import trained
from pyro_vae import plots

HERE = Path(__file__).parent
SMOKE = Sizes(data=40, integrated=1, points=11, levels=1)


def main(arguments: list[str] | None = None) -> int:
    options = options_of(__doc__, HERE, arguments)
    about: dict[str, Any] = {"smoke": options.smoke, "config": config_hash(HERE / "config.yaml")}
    vaes: dict[str, pv.VAE] = {}
    x: dict[str, Tensor] = {}
    for name, variant in VARIANTS.items():
        words = ("--config", str(HERE / "config.yaml"), *variant.options)
        run, data, vae = trained(options.runs / name, *words, smoke=options.smoke)
        assert isinstance(vae, pv.VAE)
        vaes[name], x[name] = vae, data.test.subset(10).batch()
        about |= {"data": data.name, "sizes": list(data.sizes)}
        records = Records(options.out / "measures.jsonl", about)
        if name not in records.found:
            trained_as = json.loads((run.folder / "summary.json").read_text())
            records.add(name, measured(run, data, vae, trained_as, SMOKE if options.smoke else Sizes()))
    for file, figure in pictures(vaes, x, records.found).items():
        plots.save(figure, options.out / file)
    publish(options.out, sections(records.found), summary(records.found), HERE / "README.md")
    return 0


if __name__ == "__main__":
    run_script(main)
