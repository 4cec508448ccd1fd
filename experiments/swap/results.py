"""The finished cells, in one file."""

import json
from collections.abc import Iterable
from pathlib import Path

import pyro_vae as pv
from experiments.swap.cells import Cell, Protocol, Record, settings
from pyro_vae.storage.files import write


class Results:
    """The finished cells, one line of JSON each, written anew and atomically with each of them.

    Args:
        path: The file; where it exists, its cells are finished already.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.records = {Cell(*record["cell"]): record for record in map(json.loads, lines)}

    def todo(self, wanted: Iterable[tuple[Cell, Protocol]]) -> list[tuple[Cell, Protocol]]:
        """Those of `wanted` that are not finished.

        Raises:
            InputError: where one was made with other settings.
        """
        missing = []
        for cell, protocol in wanted:
            if cell not in self.records:
                missing.append((cell, protocol))
                continue
            made, given = self.records[cell]["settings"], settings(cell, protocol)
            for name in given:
                if made.get(name) != given[name]:
                    raise pv.InputError(
                        f"{self.path} was made with {name} {made.get(name)}, got {given[name]}: choose "
                        "another folder with --out"
                    )
        return missing

    def add(self, record: Record) -> None:
        self.records[Cell(*record["cell"])] = record
        lines = [
            json.dumps(self.records[cell], allow_nan=False, separators=(",", ":"))
            for cell in sorted(self.records)
        ]
        write(self.path, "".join(f"{line}\n" for line in lines).encode())

    def of(self, part: str, prior: str, posterior: str, likelihood: str) -> list[Record]:
        """The cells with these parts, in the order of the seeds; none where one of the seeds is missing."""
        seeds = {cell.seed for cell in self.records if cell.part == part}
        wanted = [Cell(part, prior, posterior, likelihood, seed) for seed in sorted(seeds)]
        return [self.records[cell] for cell in wanted if all(each in self.records for each in wanted)]
