"""Memory and time of training on data in files, of more than the memory.

    python experiments/benchmarks/beyond_memory.py

Memory: a process of its own trains on a folder of sparse files, which take no room on the disk, and says
the most memory that it has had resident. Time: the epochs of a convolutional model on data in memory and on
the same data in files, of eight windows, in turns A B A B; the first epoch of each training, in which graphs
are made, does not count.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from experiments.benchmarks.results import circumstances
from experiments.markdown import markdown
from experiments.records import renew
from pyro_vae.storage.files import write

HERE = Path(__file__).parent
SHAPE = (3, 32, 32)
ROW = 3 * 32 * 32
#: Bytes of a file, about.
SHARD = 2**30


def sparse(folder: Path, num_bytes: int) -> None:
    """Files of zeros (N, 3, 32, 32): all but a thousandth are training data, which is validation data."""
    for name, part in (("train", num_bytes * 999 // 1000), ("valid", num_bytes // 1000)):
        (folder / name).mkdir(parents=True)
        left = max(1, part // ROW)
        for number in range(-(-left // (SHARD // ROW))):
            rows = min(left - number * (SHARD // ROW), SHARD // ROW)
            header = {"descr": "|u1", "fortran_order": False, "shape": (rows, *SHAPE)}
            with (folder / name / f"{number:04}.npy").open("wb") as file:
                np.lib.format.write_array_header_1_0(file, header)
                file.truncate(file.tell() + rows * ROW)


def resident() -> int:
    """The most bytes that this process has had resident."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
    return int(line.split()[1]) * 1024


def train_on(folder: Path, steps: int) -> dict[str, Any]:
    """What a training on a folder takes, in this process."""
    import torch

    import pyro_vae as pv

    found: dict[str, Any] = {"resident after imports": resident()}
    start = time.perf_counter()
    data = pv.ArrayFile(folder)
    found |= {"seconds to open": time.perf_counter() - start, "data": list(data.sizes)}
    torch.manual_seed(0)
    vae = pv.assemble(data, latent_dim=8, network=pv.Convolutional((8, 16)))
    start = time.perf_counter()
    history = pv.fit(vae, data, batch_size=100, steps=steps)
    found |= {"seconds of fit": time.perf_counter() - start, "seconds of epoch": history.epochs[0].seconds}
    return {**found, "resident at most": resident()}


def memory(num_bytes: int, steps: int, threads: int) -> dict[str, Any]:
    """What `train_on` says, in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with tempfile.TemporaryDirectory() as folder:
        sparse(Path(folder), num_bytes)
        command = [sys.executable, __file__, "--child", folder, "--steps", str(steps)]
        ended = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        of_files = sum(path.stat().st_size for path in Path(folder).rglob("*.npy"))
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return {"bytes of files": of_files, **found}


def times(number: int, rounds: int, epochs: int) -> list[dict[str, float]]:
    """Median seconds of an epoch from memory and from files, by round."""
    import torch

    import pyro_vae as pv

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    pictures = np.random.RandomState(0).randint(0, 2, (number, 1, 28, 28)).astype(np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "train").mkdir()
        for place, part in enumerate(np.array_split(pictures, 10)):
            np.save(Path(folder) / "train" / f"{place}.npy", part)
        contenders = {
            "memory": pv.Dataset(pictures),
            "files": pv.ArrayFile(Path(folder), window=max(1, number // 8)),
        }
        found: list[dict[str, float]] = []
        for _ in range(rounds):
            found.append({})
            for name, data in contenders.items():
                torch.manual_seed(0)
                vae = pv.assemble(data, latent_dim=8, network=pv.Convolutional((16, 32)))
                history = pv.fit(vae, data, batch_size=100, epochs=epochs + 1)
                found[-1][name] = statistics.median(epoch.seconds for epoch in history.epochs[1:])
    return found


def table(used: dict[str, Any], rounds: list[dict[str, float]]) -> str:
    """Both, in one table."""
    ratios = [each["files"] / each["memory"] for each in rounds]
    medians = {name: statistics.median(each[name] for each in rounds) for name in ("memory", "files")}
    gigabytes = {name: f"{used[name] / 1e9:.2f} GB" for name in used if "resident" in name or "bytes" in name}
    rows = [
        ["measured", "value"],
        *([name, value] for name, value in gigabytes.items()),
        *([name, f"{used[name]:.0f}"] for name in used if "seconds" in name),
        *([f"seconds of an epoch, data in {name}", f"{value:.2f}"] for name, value in medians.items()),
        ["files over memory: median of the rounds (lowest, highest)", _of_ratios(ratios)],
    ]
    return markdown(rows)


def _of_ratios(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}, {max(ratios):.2f})"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=20)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--number", type=int, default=8000, help="of pictures that are timed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "cpu")
    parser.add_argument("--smoke", action="store_true", help="few data, few steps")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        print(json.dumps(train_on(options.child, options.steps)))
        return 0
    if options.smoke:
        options.gigabytes, options.steps, options.number, options.rounds = 0.002, 3, 200, 1
    used = memory(int(options.gigabytes * 1e9), options.steps, options.threads)
    rounds = times(options.number, options.rounds, epochs=1 if options.smoke else 3)
    about = circumstances("cpu", options.threads, "zeros in sparse files; random bits")
    content = {"about": about, "memory": used, "rounds": rounds}
    write(options.out / "beyond_memory.json", json.dumps(content).encode())
    found = table(used, rounds)
    print(found)
    renew(HERE / "README.md", {"beyond memory": found}, options.out, HERE / "results" / "cpu")
    return 0


if __name__ == "__main__":
    sys.exit(main())
