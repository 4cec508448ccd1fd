"""Each notebook runs by the values of a smoke run, and keeps the outputs of a full one."""

import ast
import io
import json
import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.figure import Figure

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))

#: As JSON has it.
Json = dict[str, Any]

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@pytest.fixture(autouse=True)
def left_as_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty folder, no window, and afterwards no open figure and no setting of a notebook's."""
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    dtype = torch.get_default_dtype()
    with matplotlib.rc_context():
        yield
    plt.close("all")
    torch.set_default_dtype(dtype)


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


@each_notebook
def test_notebook_runs(path: Path) -> None:
    execute(json.loads(path.read_text(encoding="utf-8")), path.name)


@each_notebook
def test_outputs_are_kept(path: Path) -> None:
    check_kept(json.loads(path.read_text(encoding="utf-8")))
    assert path.stat().st_size < 800_000


def execute(notebook: Json, name: str = "notebook") -> Json:
    """The namespace after all code cells, those of `parameters` overwritten by their smoke values."""
    namespace: Json = {"__name__": "__main__", "display": draw}
    for number, cell in enumerate(code_cells(notebook), start=1):
        run(cell, namespace, f"{name}, code cell {number}")
        if is_parameters(cell):
            namespace |= smoke_values(cell)
    return namespace


def run(cell: Json, namespace: Json, name: str) -> None:
    """Execute a cell, and draw the figures that it shows."""
    tree = syntax(cell)
    last = tree.body[-1] if tree.body else None
    if isinstance(last, ast.Expr):
        exec(compile(ast.Module(tree.body[:-1], []), name, "exec"), namespace)
        draw(eval(compile(ast.Expression(last.value), name, "eval"), namespace))
    else:
        exec(compile(tree, name, "exec"), namespace)
    for number in plt.get_fignums():
        draw(plt.figure(number))
    plt.close("all")


def draw(*shown: object) -> None:
    """Draw what is a figure, since most errors of a picture come up only then."""
    for figure in shown:
        if isinstance(figure, Figure):
            figure.savefig(io.BytesIO(), format="png")


def smoke_values(cell: Json) -> Json:
    """What replaces the values of a `parameters` cell, names that it does not assign being refused."""
    values: Json = cell["metadata"]["smoke"]
    names = [node for node in ast.walk(syntax(cell)) if isinstance(node, ast.Name)]
    assigned = {name.id for name in names if isinstance(name.ctx, ast.Store)}
    assert values.keys() <= assigned, f"smoke values of {values.keys() - assigned}, which are not assigned"
    return values


def check_kept(notebook: Json) -> None:
    """Executed from top to bottom without an error or a warning, with a picture, and of no machine."""
    cells = code_cells(notebook)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert sum(map(is_parameters, cells)) == 1
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert "error" not in {output["output_type"] for output in outputs}
    assert "stderr" not in {output.get("name") for output in outputs}
    pictures = [output["data"].pop("image/png", None) for output in outputs if "data" in output]
    assert any(pictures)
    assert re.findall(r"/(?:tmp|home|root|Users)/[\w./-]*", json.dumps(notebook)) == []
    check_form(notebook)


def check_form(notebook: Json) -> None:
    """The format's version, a name for each cell, and no metadata beyond what a reader needs."""
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    names = [cell["id"] for cell in notebook["cells"]]
    assert len(set(names)) == len(names)
    assert notebook["metadata"].keys() == {"kernelspec", "language_info"}
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert notebook["metadata"]["language_info"] == {"name": "python"}
    assert all(cell["metadata"].keys() <= {"tags", "smoke"} for cell in notebook["cells"])


def code_cells(notebook: Json) -> list[Json]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def syntax(cell: Json) -> ast.Module:
    """Of a code cell, its magics left out."""
    lines = "".join(cell["source"]).splitlines()
    return ast.parse("\n".join("" if line.startswith("%") else line for line in lines))


def is_parameters(cell: Json) -> bool:
    return "parameters" in cell["metadata"].get("tags", [])


def notebook_of(*sources: str) -> Json:
    """A notebook whose first cell is that of the parameters, with outputs as if it had been executed."""
    figure = {"output_type": "display_data", "data": {"image/png": "iVBOR"}, "metadata": {}}
    text = {"output_type": "stream", "name": "stdout", "text": ["1\n"]}
    cells = [
        {"cell_type": "code", "id": f"cell-{count}", "execution_count": count, "metadata": {}}
        | {"source": given.splitlines(keepends=True), "outputs": [figure, text]}
        for count, given in enumerate(("%matplotlib inline\nepochs = 9", *sources), start=1)
    ]
    cells[0]["metadata"] = {"tags": ["parameters"], "smoke": {"epochs": 1}}
    metadata = {"kernelspec": {"name": "python3"}, "language_info": {"name": "python"}}
    return deepcopy({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5})


def test_cells_share_a_namespace_with_the_smoke_values() -> None:
    notebook = notebook_of("twice = 2 * epochs", "# the end\nthrice = twice + epochs\nthrice")
    check_kept(notebook)
    found = execute(notebook)
    assert (found["epochs"], found["twice"], found["thrice"]) == (1, 2, 3)


BAD_LABEL = "figure.subplots().set_title('$\\\\frac$')"


@pytest.mark.parametrize(
    ("broken", "error"),
    [
        ("1 / 0", ZeroDivisionError),
        ("import warnings\nwarnings.warn('old')", UserWarning),
        (f"from matplotlib.figure import Figure\nfigure = Figure()\n{BAD_LABEL}\nfigure", ValueError),
        (f"import matplotlib.pyplot as plt\nfigure = plt.figure()\n{BAD_LABEL}", ValueError),
        (f"import matplotlib.pyplot as plt\nfigure = plt.figure()\n{BAD_LABEL}\ndisplay(figure)", ValueError),
    ],
    ids=["error", "warning", "figure as last expression", "figure of pyplot", "figure displayed"],
)
def test_a_cell_that_fails_is_noticed(broken: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        execute(notebook_of("fine = 1", broken))
    plt.close("all")


def test_smoke_values_of_other_names_are_refused() -> None:
    notebook = notebook_of()
    notebook["cells"][0]["metadata"]["smoke"]["epoch"] = 1
    with pytest.raises(AssertionError, match="which are not assigned"):
        execute(notebook)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda cells: cells[0].update(execution_count=2),
        lambda cells: cells.reverse(),
        lambda cells: cells[1].update(execution_count=None, outputs=[]),
        lambda cells: cells[1]["outputs"][1].update(output_type="error"),
        lambda cells: cells[1]["outputs"][1].update(name="stderr"),
        lambda cells: cells[1]["outputs"][1].update(text=["saved in /home/somebody/run\n"]),
        lambda cells: cells[1].update(source=["open('/tmp/x')"]),
        lambda cells: cells[1].update(metadata={"tags": ["parameters"]}),
        lambda cells: cells[1].update(metadata={"execution": {"iopub.execute_input": "2020-01-01"}}),
        lambda cells: cells[0].update(metadata={}),
        lambda cells: cells[1].update(id="cell-1"),
        lambda cells: [cell.update(outputs=[]) for cell in cells],
    ],
)
def test_outputs_that_are_not_kept_are_noticed(spoil: Callable[[list[Json]], object]) -> None:
    notebook = notebook_of("fine = 1")
    check_kept(deepcopy(notebook))
    spoil(notebook["cells"])
    with pytest.raises(AssertionError):
        check_kept(notebook)
