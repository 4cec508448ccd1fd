"""The time of several seeds trained at once over that of one, as whole commands and as training alone.

    python experiments/benchmarks/seeds.py

Each round runs `pyro-vae train` and `pyro-vae train --seeds 8` one after the other, each a process of its own
into an empty folder, and ratios are taken within a round. Seconds are those on the clock, and those of all
cores (user and system), which other work on the machine disturbs less.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from experiments.benchmarks.results import circumstances
from experiments.markdown import markdown
from experiments.records import renew
from pyro_vae.storage.files import write

HERE = Path(__file__).parent
SMOKE = ("--epochs", "1", "--network.hidden_dims", "[8]", "--particles", "10", "--num_data", "20")

#: Seconds of a command, by what they are of.
Seconds = dict[str, float]


def seconds_of(arguments: list[str], threads: int) -> Seconds:
    """What a command takes."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pyro_vae", "train", *arguments, "--out", f"{folder}/run"]
        before, start = _of_cores(), time.perf_counter()
        subprocess.run(command, env=environment, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        whole, cores = time.perf_counter() - start, _of_cores() - before
        summaries = [json.loads(path.read_text()) for path in Path(folder).glob("run/**/summary.json")]
    # the seconds of an epoch are those of all that are trained at once
    training = summaries[0]["training"]["seconds"]
    # of several evaluated at once, the seconds of all processes
    evaluation = sum(each["seconds"] for each in summaries)
    return {"whole": whole, "whole, all cores": cores, "training": training, "evaluation": evaluation}


def _of_cores() -> float:
    """Seconds of all cores in processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def table(rounds: list[dict[str, Seconds]], seeds: int) -> str:
    """Medians of both, and of the ratios within a round."""
    rows = [["seconds", "one seed", f"{seeds} seeds", "ratio"]]
    for name in rounds[0]["one"]:
        one, many = ([each[which][name] for each in rounds] for which in ("one", "many"))
        ratios = [many / one for one, many in zip(one, many, strict=True)]
        medians = [f"{statistics.median(each):.1f}" for each in (one, many)]
        rows.append([name, *medians, f"{statistics.median(ratios):.2f}"])
    return markdown(rows)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "cpu")
    parser.add_argument("--smoke", action="store_true", help="a tiny model, one epoch")
    options = parser.parse_args(arguments)
    common = list(SMOKE) if options.smoke else []
    rounds = [
        {
            "one": seconds_of(common, options.threads),
            "many": seconds_of([*common, "--seeds", str(options.seeds)], options.threads),
        }
        for _ in range(options.rounds)
    ]
    about = {**circumstances("cpu", options.threads, "Digits"), "seeds": options.seeds}
    write(options.out / "seeds.json", json.dumps({"about": about, "rounds": rounds}).encode())
    found = table(rounds, options.seeds)
    print(found)
    renew(HERE / "README.md", {"seeds": found}, options.out, HERE / "results" / "cpu")
    return 0


if __name__ == "__main__":
    sys.exit(main())
