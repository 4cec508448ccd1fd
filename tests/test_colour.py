"""The experiment on coloured pictures: its drawings, and the whole in small."""

import json
from pathlib import Path

import numpy as np

from experiments.colour import run as experiment
from experiments.colour.drawing import NOISE, draw
from experiments.colour.report import sections, summary
from experiments.records import finished
from pyro_vae import bits_per_dim
from tests.committed import assert_committed

HERE = Path(experiment.__file__).parent


def test_drawings_are_shapes_over_a_background_with_noise() -> None:
    x = draw(300, 20, seed=1).astype(float)
    corners = x[:, :, 0, [0, -1]]  # of the upper edge, where no shape comes
    noise = corners[..., 0] - corners[..., 1]
    assert abs(noise.std() / (np.sqrt(2) * NOISE) - 1) < 0.1
    rows = x.std(-1).mean((0, 1))  # along a row only a shape varies, besides noise
    assert rows[0] < 1.1 * NOISE and rows[10] > 2 * NOISE
    assert np.array_equal(draw(4, seed=2), draw(4, seed=2))
    assert not np.array_equal(draw(4, seed=2), draw(4, seed=3))


def test_one_command_makes_everything_and_goes_on(tmp_path: Path) -> None:
    options = ["--smoke", "--out", str(tmp_path)]
    assert experiment.main(options) == 0
    kept = tmp_path / "models.jsonl"
    lines = kept.read_text().splitlines()
    names = {json.loads(line)["name"] for line in lines}
    assert names == {f"colour, {name} 0" for name in experiment.NETWORKS}
    drawn = {experiment.picture_of(name) for name in experiment.NETWORKS}
    assert {path.name for path in tmp_path.iterdir()} == {
        "models.jsonl",
        "summary.json",
        "curves.png",
        *drawn,
    }
    kept.write_text("\n".join(lines[:-1]) + "\n")
    assert experiment.main(options) == 0
    first, again = (json.loads(each[-1]) for each in (lines, kept.read_text().splitlines()))
    assert (again["name"], again["elbo"]) == (first["name"], first["elbo"])


def test_the_committed_tables_show_the_committed_results() -> None:
    records = finished(HERE / "results" / "models.jsonl")
    assert_committed(HERE, sections(records), summary(records))
    floor = np.log2(NOISE * np.sqrt(2 * np.pi * np.e))  # the entropy of the noise alone
    drawn = [record["elbo"] for name, record in records.items() if name.startswith("colour")]
    assert len(drawn) == 9 and all(bits_per_dim(elbo, (3, 16, 16)) > floor for elbo in drawn)
