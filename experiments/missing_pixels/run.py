"""VAEs trained on images of which half of the pixels are missing: log p(x) and imputation.

    python experiments/missing_pixels/run.py

Trained models are kept in RUNS, finished measurements in OUT/models.jsonl; a command that was interrupted
goes on with those that are not there. Tables are made from that file alone.
"""

import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import pyro_vae as pv
from experiments.command import options_of, run_script
from experiments.missing_pixels.figures import picture
from experiments.missing_pixels.measuring import Annealing, annealed, measured, of_means
from experiments.missing_pixels.report import SEEDS, sections, summary
from experiments.missing_pixels.setting import MODELS, SMOKE, Data, Options, data_of, trained
from experiments.records import Records, publish
from pyro_vae import plots
from pyro_vae.reports import circumstances

HERE = Path(__file__).parent


def main(arguments: list[str] | None = None) -> int:
    options = options_of(__doc__, HERE, arguments)
    setting = SMOKE if options.smoke else Options()
    data = data_of(pv.Digits(form=pv.Static()) if options.smoke else pv.StaticMNIST(), setting.sizes)
    about = {"hash": data.incomplete.test.hash(), **setting._asdict()}
    about = {name: _listed(each) for name, each in about.items()}
    records = Records(options.out / "models.jsonl", about)
    if "means" not in records.found:
        records.add("means", of_means(data))
    for seed in SEEDS:
        for name in MODELS:
            if f"{name} {seed}" not in records.found:
                records.add(f"{name} {seed}", _of_model(name, seed, data, setting, options.runs))
    vaes = {name: partial(trained, name, SEEDS[0], data, setting, options.runs) for name in MODELS}
    checks = checked(options.out, about, vaes, data, Annealing(3, 5) if options.smoke else Annealing())
    if not (options.out / "filled.png").exists():
        figure = picture({name: make() for name, make in vaes.items()}, data, setting.draws)
        plots.save(figure, options.out / "filled.png")
    found = records.found | {f"annealed {name}": record for name, record in checks.items()}
    publish(options.out, sections(found), summary(found), HERE / "README.md")
    return 0


def checked(
    folder: Path,
    about: Mapping[str, Any],
    vaes: Mapping[str, Callable[[], pv.VAE]],
    data: Data,
    annealing: Annealing,
) -> Mapping[str, Any]:
    """The models of the first seed by annealing, in a file of its own."""
    records = Records(folder / "annealed.jsonl", {**about, **annealing._asdict()})
    for name, make in vaes.items():
        if name not in records.found:
            start = time.process_time()
            found = annealed(make(), data, annealing)
            records.add(name, {**found, "seconds": round(time.process_time() - start, 1)})
            print(f"annealed {name}: {records.found[name]['seconds']} s", flush=True)
    return records.found


def _of_model(name: str, seed: int, data: Data, setting: Options, runs: Path) -> dict[str, Any]:
    """Train and measure one model; seconds are of the CPU."""
    start = time.process_time()
    vae = trained(name, seed, data, setting, runs)
    between = time.process_time()
    found = measured(vae, data, setting)
    seconds = {"training": between - start, "measuring": time.process_time() - between}
    print(f"{name} {seed}: {seconds}", flush=True)
    return {**found, "seconds": {key: round(value, 1) for key, value in seconds.items()}, **_made(vae)}


def _made(vae: pv.VAE) -> dict[str, Any]:
    return {"parameters": sum(each.numel() for each in vae.parameters()), "made": circumstances(vae)}


def _listed(value: Any) -> Any:
    """As JSON gives it back."""
    return list(value) if isinstance(value, tuple) else value


if __name__ == "__main__":
    run_script(main)
