"""Figures show every datum in its place."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle
from PIL import Image

from pyro_vae import plots
from tests.components import refused

pytestmark = pytest.mark.fine_pictures


def canvas(figure: Figure) -> np.ndarray:
    return np.asarray(figure.axes[0].images[0].get_array())


def test_pictures_lie_row_by_row() -> None:
    pictures = torch.arange(5.0).reshape(5, 1, 1, 1).expand(5, 1, 2, 3) / 4
    shown = canvas(plots.images(pictures, columns=2))
    assert shown.shape == (3 * 3 - 1, 2 * 4 - 1, 3)
    assert [shown[3 * (i // 2), 4 * (i % 2), 0] for i in range(5)] == [0, 0.25, 0.5, 0.75, 1]
    assert (shown[6:, 4:] == 1).all()  # the empty place
    assert (shown[2] == 1).all() and (shown[:, 3] == 1).all()  # the lines between


def test_colour_and_vectors() -> None:
    colour = torch.rand(1, 3, 2, 2)
    assert torch.equal(torch.tensor(canvas(plots.images(colour))).float(), colour[0].movedim(0, -1))
    assert canvas(plots.images(torch.rand(4, 6), columns=1)).shape == (7, 6, 3)


def test_values_outside_zero_and_one_are_stretched_together() -> None:
    shown = canvas(plots.images(torch.tensor([-1.0, 3.0]).reshape(2, 1, 1, 1), columns=2))
    assert shown[0, :, 0].tolist() == [0, 1, 1]


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (4.0, -2.0)])
def test_originals_look_the_same_whatever_is_beside_them(scale: float, shift: float) -> None:
    """Those in [0, 1] as they are; a mean beyond their range has the colour of its end."""
    originals = torch.tensor([0.0, 0.25, 0.5, 1.0]).view(1, 1, 2, 2) * scale + shift
    wide = torch.tensor([-3.0, 0.25, 0.5, 1.7]).view(1, 1, 2, 2) * scale + shift
    shown = canvas(plots.reconstructions(originals, wide, columns=1))[..., 0]
    assert shown[:2].flatten().tolist() == shown[3:].flatten().tolist() == [0.0, 0.25, 0.5, 1.0]


def test_originals_stand_over_their_reconstructions() -> None:
    originals, reconstructed = torch.zeros(3, 1, 1, 1), torch.full((3, 1, 1, 1), 0.5)
    shown = canvas(plots.reconstructions(originals, reconstructed, columns=2))
    assert shown[::2, ::2, 0].tolist() == [[0, 0], [0.5, 0.5], [0, 1], [0.5, 1]]


def test_strips_have_a_row_for_each_name() -> None:
    rows = {
        "three": torch.tensor([0.0, 0.25, 0.5]),
        "a long name that is broken": torch.tensor([0.75, 0]),
    }
    figure = plots.strips({name: row.reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2) for name, row in rows.items()})
    assert canvas(figure)[::3, ::3, 0].tolist() == [[0, 0.25, 0.5], [0.75, 0, 1]]
    axes = figure.axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["three", "a long name that\nis broken"]
    assert axes.get_yticks().tolist() == [0.5, 3.5]
    for wrong in ({}, {"a": torch.rand(1, 1, 2, 2), "b": torch.rand(1, 1, 3, 3)}):
        with refused("strips expects rows of pictures of one shape, got"):
            plots.strips(wrong)


def test_the_plane_names_its_coordinates() -> None:
    figure = plots.plane(torch.rand(6, 1, 2, 2), [-1.0, 0.0, 1.0], [0.5, -0.5], ("a", "b"))
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["-1.00", "0.00", "1.00"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0.50", "-0.50"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("a", "b")


def test_codes_are_scattered_by_class() -> None:
    codes = torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [7.0, 7.0]])
    figure = plots.scatter(codes, torch.tensor([5, 5, 5, 2]), names=("a", "b"), title="t")
    axes = figure.axes[0]
    (points,) = axes.collections
    offsets, colours = np.asarray(points.get_offsets()), points.get_facecolor()
    assert sorted(map(tuple, offsets)) == [(0, 1), (2, 3), (4, 5), (7, 7)]
    other = np.flatnonzero(offsets[:, 0] == 7)[0]
    assert len(np.unique(np.delete(colours, other, axis=0), axis=0)) == 1
    assert len(np.unique(colours, axis=0)) == 2
    assert {text.get_text(): text.get_position() for text in axes.texts} == {"5": (2, 3), "2": (7, 7)}
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == ("a", "b", "t")
    assert not plots.scatter(codes).axes[0].texts
    with refused(r"scatter expects codes \(N, 2\), got \(4, 3\): choose two axes"):
        plots.scatter(torch.zeros(4, 3))
    with refused(r"scatter expects one label per code, got \(3,\) for 4 codes"):
        plots.scatter(codes, torch.arange(3))
    with refused(r"scatter expects codes \(N, 2\), got \(4, 3\): choose two axes"):
        plots.scatters({"a": codes, "b": torch.zeros(4, 3)})


def test_scatters_stand_side_by_side_with_the_circle_of_the_normal() -> None:
    codes = {"a": torch.tensor([[0.0, 1.0], [2.0, 3.0]]), "b": torch.tensor([[40.0, 1.0], [2.0, 3.0]])}
    figure = plots.scatters(codes, torch.tensor([4, 7]), circle=True)
    for axes, (title, points) in zip(figure.axes, codes.items(), strict=True):
        assert axes.get_title() == title
        shown = np.asarray(axes.collections[0].get_offsets())
        assert sorted(shown.tolist()) == sorted(points.tolist())
        (circle,) = axes.patches
        assert isinstance(circle, Circle)
        # 1 − exp(−r²/2) of a standard normal in two dimensions lies within r
        assert 1 - math.exp(-(circle.radius**2) / 2) == pytest.approx(0.95)
    assert not plots.scatters(codes).axes[0].patches


@pytest.mark.parametrize("number", [2, 20])
def test_differences_stand_row_by_row(tmp_path: Path, number: int) -> None:
    labels = [f"runs/a$_{i}$" + 30 * "x" * i + "\nprior VampPrior, " * i for i in range(number)]
    values, verdicts = [float(i) for i in range(number)], ["reference", *["better"] * (number - 1)]
    intervals = [(value - 0.5 * (value > 0), value + 0.5 * (value > 0)) for value in values]
    figure = plots.differences(labels, values, intervals, verdicts, reference="a run" * number)
    axes = figure.axes[0]
    points = {line.get_label(): np.asarray(line.get_xdata()).tolist() for line in axes.lines[1:]}
    assert points == {"better": values[1:], "reference": [0]}
    drawn = axes.collections[0]
    assert isinstance(drawn, LineCollection)
    segments = [np.asarray(segment)[:, 0].tolist() for segment in drawn.get_segments()]
    assert segments == [list(interval) for interval in intervals[1:]]
    assert [label.get_text().split("x")[0].split("\n")[0] for label in axes.get_yticklabels()] == [
        label.split("x")[0].split("\n")[0] for label in labels
    ]
    rows = axes.get_yticks()
    assert (np.diff(rows) > 0).all() and axes.get_ylim()[0] > axes.get_ylim()[1]  # downwards
    assert axes.get_xlabel().endswith("(nats per datum, paired 95 % interval)")
    plots.save(figure, str(tmp_path / "differences.png"))
    with Image.open(tmp_path / "differences.png") as picture:
        assert picture.size[0] > 500


def test_a_heat_map_shows_each_number_in_its_place(tmp_path: Path) -> None:
    values = np.array([[1.0, 2.0, np.nan], [3.0, 4.0, 5.0]])
    texts = [[f"{value} ± 0" for value in row] for row in values]
    figure = plots.heat_map(values, ["a", "$b"], ["c", "d", "e"], texts, bold=values == 4, label="nats")
    axes = figure.axes[0]
    written = {each.get_position(): (each.get_text(), each.get_fontweight()) for each in axes.texts}
    assert written == {
        (column, row): (texts[row][column], "bold" if value == 4 else "normal")
        for (row, column), value in np.ndenumerate(values)
        if value == value
    }
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "$b"]
    plots.save(figure, tmp_path / "map.png")


def test_points_stand_row_by_row(tmp_path: Path) -> None:
    values, kinds = [[1.0, 3.0], [2.0], [5.0, 6.0, 7.0]], ["one", "other", "one"]
    figure = plots.points(["a", "b", "c"], values, kinds, xlabel="bits")
    axes = figure.axes[0]
    drawn = {line.get_label(): np.asarray(line.get_xydata()).tolist() for line in axes.lines}
    assert drawn == {"one": [[1, 0], [3, 0], [5, 2], [6, 2], [7, 2]], "other": [[2, 1]]}
    means = [np.asarray(path.vertices)[0, 0] for lines in axes.collections for path in lines.get_paths()]
    assert sorted(means) == [2, 2, 6]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # downwards
    plots.save(figure, tmp_path / "points.png")


def test_ratios_are_bars_from_one_in_the_colour_of_their_group(tmp_path: Path) -> None:
    panels = {
        "small": [(1.0, 0.9, 1.1), (0.5, 0.4, 0.6), None],
        "$large": [(1.0, 1.0, 1.0), None, (4.0, 3.0, 5.0)],
    }
    for shown in (panels, {"small": panels["small"]}, {**panels, "third": panels["small"]}):
        figure = plots.ratios(
            ["ours", "a", "b"], ["us", "them", "them"], shown, order=["us", "others", "them"], xlabel="ratio"
        )
        drawn = [axes for axes in figure.axes if axes.axison]
        assert [axes.get_title() for axes in drawn] == list(shown)
        for axes, rows in zip(drawn, shown.values(), strict=True):
            bars = [each for each in axes.patches if isinstance(each, Rectangle)]
            ends = [(each.get_x(), each.get_x() + each.get_width()) for each in bars]
            assert ends == [(1, found[0]) for found in rows if found]
            assert bars[-1].get_facecolor() == to_rgba("#D55E00")  # the third of `order`
            assert [text.get_text() for text in axes.texts] == [f"{found[0]:.2f}" for found in rows if found]
        plots.save(figure, tmp_path / "ratios.png")


@pytest.mark.parametrize("epochs", [1, 30])
@pytest.mark.parametrize("valid", [True, False])
def test_history_is_drawn_with_and_without_validation(tmp_path: Path, epochs: int, valid: bool) -> None:
    rising = [-100.0 / (1 + epoch) for epoch in range(epochs)]
    other = rising if valid else [float("nan")] * epochs
    columns = {"epoch": [float(epoch) for epoch in range(epochs)], "train_elbo": rising, "valid_elbo": other}
    figure = plots.history({**columns, "valid_reconstruction": other, "valid_kl": other})
    assert np.asarray(figure.axes[0].lines[0].get_ydata()).tolist() == rising
    plots.save(figure, tmp_path / "history.png")
    with Image.open(tmp_path / "history.png") as picture:
        assert picture.size[0] > 500


def columns(**given: list[float]) -> dict[str, list[float]]:
    elbo = [-9.0, -8.0, -7.0]
    return {
        "epoch": [1, 2, 3],
        "train_elbo": elbo,
        "valid_elbo": elbo,
        "valid_reconstruction": [-6.0, -5.0, -4.0],
        "valid_kl": [3.0, 3.0, 3.0],
        **given,
    }


@pytest.mark.parametrize("reconstruction", [[-6.0, -5.0, -4.0], [-2.0, 20.0, 44.0]])
def test_all_of_the_history_is_inside_its_axes(reconstruction: list[float]) -> None:
    """Also where a density is above 1, so that the distortion is negative."""
    figure = plots.history(columns(valid_reconstruction=reconstruction))
    for axes in figure.axes:
        low, high = axes.get_ylim()
        heights = [float(y) for line in axes.lines for y in np.asarray(line.get_ydata())]
        assert low <= min(heights) and max(heights) <= high


def test_the_history_of_an_error_speaks_of_no_density() -> None:
    (axes,) = plots.history(columns(), density=False).axes
    assert axes.get_ylabel() == "reconstruction error per datum"
    assert [list(np.asarray(line.get_ydata())) for line in axes.lines] == [[9, 8, 7]] * 2


def test_a_bound_against_its_draws_with_another_estimate() -> None:
    bound = torch.tensor([[-5.0, -9.0], [-4.0, -6.0], [-3.5, -5.5], [-3.4, math.nan]])
    figure = plots.bound_curve((1, 10, 100, 1000), bound, other=(-4.0, 0.1))
    line, means = figure.axes[0].lines[:2]
    assert np.asarray(line.get_ydata()).tolist() == [-4, -4]
    assert np.asarray(means.get_xdata()).tolist() == [1, 10, 100]  # a datum has no 1000 draws
    assert np.allclose(np.asarray(means.get_ydata()), [-7, -5, -4.5])
    (bars,) = (each for each in figure.axes[0].collections if isinstance(each, LineCollection))
    half = [(segment[1, 1] - segment[0, 1]) / 2 for segment in bars.get_segments()]
    # differences to the last point: −1.5 and −3.5; −0.5 and −0.5; none
    assert half == pytest.approx([1.96 * math.sqrt(2) / math.sqrt(2), 0, 0])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "annealed: -4.00",
        "importance sampling: -4.50 at K = 100",
    ]
    assert "lower bound on log p(x) in expectation" in figure.axes[0].get_title()


def test_a_bound_that_is_nowhere_finite_is_an_empty_picture(tmp_path: Path) -> None:
    figure = plots.bound_curve((1, 2), torch.full((2, 3), -math.inf))
    plots.save(figure, tmp_path / "bound.png")
    assert not figure.axes[0].lines


def test_every_known_k_is_a_point_on_its_side_of_the_line() -> None:
    figure = plots.pareto_k(torch.tensor([0.71, 0.2, math.nan, math.inf, 0.7, -0.5]))
    _, below, above = figure.axes[0].lines
    assert np.allclose(np.asarray(below.get_xydata()), [(1, -0.5), (2, 0.2), (3, 0.7)])
    assert np.allclose(np.asarray(above.get_xydata()), [(4, 0.71), (5, 1.0)])  # infinity at the upper edge
    assert figure.axes[0].get_title() == "k̂ above 0.7 for 2 of 6 data (33.3 %), unknown for 1"
