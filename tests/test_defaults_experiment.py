"""The experiment on defaults: in small, and what is committed of it."""

import json
from pathlib import Path

from experiments.defaults import run as experiment
from experiments.defaults import seen
from experiments.defaults.report import sections, summary
from experiments.records import finished
from tests.committed import assert_committed

HERE = Path(experiment.__file__).parent


def test_one_command_makes_everything_and_goes_on(tmp_path: Path) -> None:
    options = ["--smoke", "--out", str(tmp_path / "out"), "--runs", str(tmp_path / "runs")]
    assert experiment.main(options) == 0
    kept = tmp_path / "out" / "parts.jsonl"
    lines = kept.read_text().splitlines()
    names = [names[0] for names in experiment.PARTS.values()]
    assert [json.loads(line)["name"] for line in lines] == names
    assert all(len(json.loads(line)["kl"]) == 2 for line in lines)
    kept.write_text("\n".join(lines[:-1]) + "\n")
    assert experiment.main(options) == 0
    first, again = (json.loads(each[-1]) for each in (lines, kept.read_text().splitlines()))
    assert (again["name"], again["elbo"]) == (first["name"], first["elbo"])
    (sight,) = finished(tmp_path / "out" / "seen.jsonl").values()
    elbos = [each["elbo"][0] for each in sight["ways"].values()]
    assert list(sight["ways"]) == list(seen.WAYS) and len({*elbos}) == 3


def test_the_committed_tables_show_the_committed_results() -> None:
    records, sights = (finished(HERE / "results" / f"{name}.jsonl") for name in ("parts", "seen"))
    assert_committed(HERE, sections(records, sights), summary(records, sights))
    assert list(sights) == list(seen.EPOCHS)
    assert list(records) == [name for names in experiment.PARTS.values() for name in names]
    assert all(len(record["kl"]) == experiment.SEEDS for record in records.values())
