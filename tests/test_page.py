"""The page on a run: whole, without anything from elsewhere, escaped, and with what it says true."""

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pyro_vae as pv
from pyro_vae import plots
from pyro_vae.cli import main
from pyro_vae.cli.report import subject_of
from pyro_vae.pages import looking
from pyro_vae.pages.explorer import explorer
from pyro_vae.pages.page import SECTIONS
from pyro_vae.plots import saving
from tests.commands import SMALL, Run
from tests.html import Page
from tests.pictures import Coarse

SCRIPT = Path(pv.__file__).parent / "pages" / "explorer.js"
#: Browsers that run without a screen.
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NODE = shutil.which("node")


def checked(path: Path) -> Page:
    """A page that loads nothing, and that can be read aloud and used by keys."""
    text = path.read_text()
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>") and page.all("html") == [{"lang": "en"}]
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.elements:
        for name in ("src", "href", "action", "data", "poster", "srcset", "background"):
            if name in attributes:
                inside = {"img": "data:image/png;base64,", "a": "#"}[tag]
                assert attributes[name].startswith(inside)
        assert not any(name.startswith("on") for name in attributes)
        for name in ("aria-labelledby", "for"):
            assert name not in attributes or attributes[name] in ids
    for link in page.all("a"):
        assert link["href"].removeprefix("#") in ids
    for picture in page.all("img"):
        assert len(picture["alt"]) > 15
        content = base64.b64decode(picture["src"].partition(",")[2], validate=True)
        assert content.startswith(b"\x89PNG")
    assert all(canvas["aria-label"] for canvas in page.all("canvas"))
    labelled = {label["for"] for label in page.all("label")}
    assert all(control["id"] in labelled for control in page.all("input"))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert not re.search(r"https?:|url\(|@import|//cdn", text)
    policy = next(each["content"] for each in page.all("meta") if "http-equiv" in each)
    assert policy.startswith("default-src 'none'; img-src data:;")
    (own,) = re.findall("<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
    assert policy.endswith(f"script-src 'sha256-{digest}'")
    assert any(each.get("name") == "viewport" for each in page.all("meta"))
    assert all(words in text for words in ("@media print", "prefers-color-scheme: dark", "max-width: 40rem"))
    return page


@pytest.fixture(autouse=True)
def blank_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made, and drawn only where a test is marked `fine_pictures`."""
    if request.node.get_closest_marker("fine_pictures") is None:
        monkeypatch.setattr(plots, "png", lambda _: b"\x89PNG\r\n\x1a\n")


@pytest.fixture(scope="module")
def diagnosed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run with all results."""
    folder = tmp_path_factory.mktemp("page") / "run"
    small = ("--network.hidden_dims", "[8]", "--latent_dim", "3", "--particles", "30", "--num_data", "20")
    assert main(["train", "--epochs", "2", *small, "--out", str(folder)]) == 0
    options = ["--num_data", "8", "--num_steps", "2", "--method", "importance", "--particles", "30"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saving, "FigureCanvasAgg", Coarse)
        assert main(["diagnose", str(folder), *options]) == 0
    return folder


@pytest.fixture
def copied(diagnosed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(diagnosed, tmp_path / "copied"))


@pytest.mark.fine_pictures
def test_a_page_has_all_of_a_run(pyro_vae: Run, diagnosed: Path) -> None:
    status, out, err = pyro_vae("report", diagnosed)
    assert (status, out.strip(), err) == (0, str(diagnosed / "report.html"), "")
    page = checked(diagnosed / "report.html")
    assert page.absent == []
    assert page.text("h2") == [section.title for section in SECTIONS]
    assert len(page.all("img")) == 11 and len(page.all("canvas")) == 2
    summary = json.loads((diagnosed / "summary.json").read_text())
    diagnosis = json.loads((diagnosed / "diagnosis.json").read_text())
    cells = page.text("td")
    for name in ("train", "valid", "test"):
        part = summary["elbo"][name]
        numbers = [f"{part[each]:.3f}" for each in ("elbo", "reconstruction", "kl")]
        row = page.text("th", "td")[page.text("th", "td").index(name) :]
        assert row[1:4] == numbers
    found = summary["log_evidence"]
    assert f"{found['estimate']:.3f} ± {found['standard_error']:.3f}" in cells
    assert any(text.startswith(f"{found['at_least']['bound']:.3f} for these 20") for text in page.text("dd"))
    assert diagnosis["verdict"] in page.text("strong")
    assert f"{diagnosis['amortisation']['mean']:.3f}" in cells
    assert diagnosis["calibration"]["words"] in page.text("p")
    options = dict(zip(page.text("dt"), page.text("dd"), strict=True))
    assert (options["latent_dim"], options["prior"]) == ("3", "pyro_vae.StandardNormalPrior")


HOSTILE = "<script>alert(1)<b onload=x>\"'&"


def test_every_text_is_escaped(pyro_vae: Run, copied: Path) -> None:
    folder = copied.rename(copied.parent / HOSTILE)
    diagnosis = json.loads((folder / "diagnosis.json").read_text())
    hostile = "</script><script>alert(2)</script><img src=x onerror=alert(3)>"
    diagnosis["verdict"] = diagnosis["calibration"]["words"] = hostile
    diagnosis["calibration"]["quantities"][hostile] = {"p_value": 0.5, "verdict": hostile}
    (folder / "diagnosis.json").write_text(json.dumps(diagnosis))
    with (folder / "config.yaml").open("a") as file:
        file.write(f'unheard: "{hostile}"\n"{hostile}": 3\n')
    assert pyro_vae("report", folder)[0] == 0
    page = checked(folder / "report.html")
    assert [each.get("type") for each in page.all("script")] == [None]
    assert not page.all("b") and all("onerror" not in attributes for _, attributes in page.elements)
    assert page.text("h1", "title").count(f"Report on {folder}") == 2
    assert hostile in page.text("strong") and hostile in page.text("td") and hostile in page.text("dd")


def test_a_hostile_name_costs_no_part(pyro_vae: Run, copied: Path) -> None:
    folder = copied.rename(copied.parent / HOSTILE)
    assert pyro_vae("report", folder)[0] == 0
    assert checked(folder / "report.html").absent == []


def test_a_remedy_is_a_command_for_the_run(pyro_vae: Run, copied: Path) -> None:
    summary = json.loads((copied / "summary.json").read_text())
    summary["pareto_k"] |= {"above": 3, "unknown": 0}
    (copied / "summary.json").write_text(json.dumps(summary))
    assert pyro_vae("report", copied)[0] == 0
    made = html.unescape((copied / "report.html").read_text())
    assert made.count(f"try pyro-vae evaluate {copied} --method") == 2 and 'method="' not in made


@pytest.mark.parametrize(
    ("missing", "lost", "why"),
    [
        ("metrics.csv", ["Training"], "metrics.csv"),
        ("summary.json", ["Numbers", "Pareto k̂"], "pyro-vae evaluate .* makes them"),
        ("per_datum.npz", ["Pareto k̂"], "per_datum.npz"),
        ("diagnosis.json", ["Where the nats go", "Calibration"], "pyro-vae diagnose .*on one core about"),
        ("checkpoints", ["Samples", "Reconstructions", "Codes", "Latent explorer", "Traversals"], "last.pt"),
    ],
)
@pytest.mark.parametrize("damaged", [False, True])
def test_what_is_missing_says_why(
    pyro_vae: Run, copied: Path, missing: str, lost: list[str], why: str, damaged: bool
) -> None:
    path = copied / missing
    if damaged and path.is_dir():
        for file in path.iterdir():
            file.write_bytes(b"no checkpoint")
    elif damaged:
        path.write_text("[1, 2")
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    assert pyro_vae("report", copied)[0] == 0
    page = checked(copied / "report.html")
    assert len(page.absent) >= len(lost)
    assert len(page.all("section")) == len(SECTIONS) and page.all("img")
    if not damaged:
        assert re.search(why, " ".join(page.absent))
    made = (copied / "report.html").read_text()
    for title in lost:
        name = "-".join(word for word in title.lower().split() if word.isascii())
        section = made.split(f'<section id="{name}"')[1].split("</section>")[0]
        assert 'class="absent"' in section and "<img" not in section


@pytest.mark.filterwarnings("always")
def test_damaged_results_cost_their_part_alone(pyro_vae: Run, copied: Path) -> None:
    diagnosis = json.loads((copied / "diagnosis.json").read_text())
    (copied / "diagnosis.json").write_text(json.dumps({**diagnosis, "latent_units": 3, "calibration": 4}))
    status, _, err = pyro_vae("report", copied)
    assert status == 0 and "has no part 'Where the nats go': TypeError" in err
    assert len(checked(copied / "report.html").absent) == 2


def test_results_of_other_parameters_are_not_shown(pyro_vae: Run, copied: Path) -> None:
    for name in ("summary.json", "diagnosis.json"):
        content = json.loads((copied / name).read_text())
        (copied / name).write_text(json.dumps({**content, "parameters": "0123456789abcdef"}))
    assert pyro_vae("report", copied)[0] == 0
    page = checked(copied / "report.html")
    assert "diagnosis.json is of other parameters" in page.whole
    assert "no results of these parameters" in page.whole


def test_without_its_data_a_run_has_all_that_needs_none(pyro_vae: Run, tmp_path: Path) -> None:
    bits = (np.random.RandomState(0).rand(60, 4, 4) > 0.5).astype(np.uint8)
    np.save("own.npy", bits)
    own = ("--data", "ArrayFile", "--data.path", "own.npy", "--batch_size", 20, "--epochs", 1)
    assert pyro_vae("train", *own, *SMALL, "--out", "run")[0] == 0
    Path("own.npy").unlink()
    assert pyro_vae("report", "run")[0] == 0
    page = checked(Path("run/report.html"))
    lost = [text for text in page.absent if "own.npy" in text]
    assert len(lost) == 2  # reconstructions and codes
    assert "draws from the prior" in page.whole and len(page.all("canvas")) == 2
    assert pyro_vae("traverse", "run", "--num", 2)[0] == 0


@pytest.mark.parametrize(
    "options",
    [
        ("--program", "Autoencoder"),
        ("--condition", "label"),
        ("--latent_dim", "1"),
    ],
    ids=" ".join,
)
def test_every_program_has_a_page(pyro_vae: Run, options: tuple[str, ...]) -> None:
    assert pyro_vae("train", "--epochs", 1, *SMALL, *options, "--out", "run")[0] == 0
    status, _, err = pyro_vae("report", "run")
    assert (status, "has no part" in err) == (0, False), err
    page = checked(Path("run/report.html"))
    planes = 0 if options[-1] == "1" else 2
    assert len(page.all("canvas")) == planes
    if options[0] == "--condition":
        assert re.search(r"given label \d", page.whole)
    if options[-1] == "Autoencoder":
        assert "There is no log p(x)" in page.whole


@pytest.mark.parametrize("kind", ["table", "vectors", "counts"])
def test_data_that_are_no_pictures_have_their_marginals(pyro_vae: Run, kind: str) -> None:
    random = np.random.RandomState(0)
    if kind == "table":
        lines = [f"{random.randn():.3f},{'ab'[n % 2]}" for n in range(120)]
        Path("own.csv").write_text("\n".join(["<i>height</i>,sex", *lines]))
        data: tuple[str, ...] = ("--data", "Table", "--data.path", "own.csv")
    else:
        values = random.poisson(3, (120, 3)) if kind == "counts" else random.randn(120, 3).astype(np.float32)
        np.save("own.npy", values)
        likelihood = "PoissonLikelihood" if kind == "counts" else "NormalLikelihood"
        data = ("--data", "ArrayFile", "--data.path", "own.npy", "--likelihood", likelihood)
    assert pyro_vae("train", *data, "--epochs", 1, "--batch_size", 20, *SMALL, "--out", "run")[0] == 0
    status, _, err = pyro_vae("report", "run")
    assert (status, err) == (0, ""), err
    page = checked(Path("run/report.html"))
    alts = [picture["alt"] for picture in page.all("img")]
    assert "Marginals: training data beside draws from the model, column by column" in alts
    assert "Pairs of columns: training data beside draws from the model" in alts
    assert sum("no pictures: see their marginals" in text for text in page.absent) == 5


def test_runs_stand_side_by_side_by_model(pyro_vae: Run, diagnosed: Path) -> None:
    for name, *options in (("a", "--seed", 0), ("wide", "--latent_dim", 3), ("b", "--seed", 1)):
        assert pyro_vae("train", "--epochs", 1, *SMALL, *options, "--out", name)[0] == 0
    assert pyro_vae("report", "a", "wide", "b")[0] == 0
    page = checked(Path("report.html"))
    assert page.text("h2")[0] == "Comparison"
    compared = pv.compare(["a", "wide", "b"])
    assert [run.name for run in compared.runs] == ["a +1", "wide"]
    cells = page.text("th", "td")
    for run in compared.runs:
        assert run.name in cells and run.verdict in cells
    headings = page.text("h3")
    assert headings[:3] == ["a (seed 0)", "b (seed 1)", "wide (seed 0)"]
    example = "a (seed 0, as an example of 2 seeds)"
    assert headings.count(example) == sum(section.once for section in SECTIONS)
    for name, seed in (("a", 0), ("b", 1)):
        shutil.copytree(name, f"seeds/seed-{seed}")
    assert pyro_vae("report", "seeds")[1].strip() == "seeds/report.html"
    assert checked(Path("seeds/report.html")).text("h3")[:2] == [
        "seeds/seed-0 (seed 0)",
        "seeds/seed-1 (seed 1)",
    ]
    assert pyro_vae("report", "a", diagnosed)[0] == 0
    (reason,) = [text for text in checked(Path("report.html")).absent if "on other data than a" in text]
    assert "expected num_data 300, got 20: use pyro-vae evaluate" in reason


def test_what_is_no_run_is_refused(pyro_vae: Run, diagnosed: Path) -> None:
    for words, said in (
        (("report", "nowhere"), "expected the folder of a run"),
        (("report",), "required: RUN, the folder of a run"),
        (("report", diagnosed, "--out", "page.pdf"), "--out expects a .html file, got page.pdf"),
        (("report", diagnosed, "--seed", -1), "seed expects a whole number from 0"),
    ):
        status, _, err = pyro_vae(*words)
        assert (status, err.count("\n")) == (2, 1) and said in err


# the explorer


def content_of(folder: Path, axes: tuple[int, int] = (0, 1)) -> dict[str, Any]:
    subject = subject_of(folder, "cpu")
    return explorer(subject.need("vae"), subject.data, axes, {})


def pixels_of(content: dict[str, Any]) -> np.ndarray:
    number, sides = content["number"], (content["height"], content["width"], content["channels"])
    found = np.frombuffer(base64.b64decode(content["pixels"]), np.uint8)
    return found.reshape(number, number, *sides).astype(float)


def test_the_grid_holds_the_decoded_pictures(diagnosed: Path) -> None:
    content = content_of(diagnosed, (2, 0))
    vae = pv.load(diagnosed).vae
    assert (content["number"], content["axes"]) == (15, ["z[2]", "z[0]"])
    normal = torch.distributions.Normal(0.0, 1.0)
    across = normal.icdf((torch.arange(15) + 0.5) / 15)
    np.testing.assert_allclose(content["across"], across, atol=1e-4)
    np.testing.assert_allclose(content["down"], across.flip(0), atol=1e-4)
    z = torch.zeros(1, 3)
    z[0, 2], z[0, 0] = across[11], across.flip(0)[3]
    expected = 255 * vae.decode(z)[0, 0].numpy()
    np.testing.assert_allclose(pixels_of(content)[3, 11, :, :, 0], expected, atol=0.5 + 1e-3)
    data = pv.Digits().test.subset(300)
    codes = vae.encode(data.batch())
    (x, y, label), last = content["points"][7], 14.0
    assert label == int(data.labels[7])
    held = codes[7, 2].clamp(across[0], across[-1])
    assert np.interp(x, np.arange(15), across) == pytest.approx(float(held), abs=0.02)
    held = codes[7, 0].clamp(across[0], across[-1])
    assert np.interp(last - y, np.arange(15), across) == pytest.approx(float(held), abs=0.02)


@pytest.mark.parametrize(("shape", "number", "sides"), [((3, 128, 64), 6, (64, 32)), ((2, 6, 6), 15, (6, 6))])
def test_large_pictures_are_made_smaller(
    shape: tuple[int, int, int], number: int, sides: tuple[int, int]
) -> None:
    data = pv.Dataset(np.random.RandomState(0).rand(20, *shape).astype(np.float32))
    vae = pv.assemble(data, latent_dim=2, likelihood=pv.NormalLikelihood, network=pv.MLP(hidden_dims=(3,)))
    content = explorer(vae, data, (0, 1), {})
    assert content["number"] == number and (content["height"], content["width"]) == sides
    assert pixels_of(content).shape[-1] == (3 if shape[0] == 3 else 1)
    assert len(content["pixels"]) < 500_000


#: A page with one explorer, as far as the script looks at it.
DOCUMENT = """
const content = CONTENT;
class Element {
  constructor() { this.heard = {}; this.style = {}; this.width = 300; this.height = 300; }
  addEventListener(name, call) { this.heard[name] = call; }
  setAttribute() {}
  setPointerCapture() {}
  getBoundingClientRect() { return { left: 0, top: 0, width: 300, height: 300 }; }
  getContext() {
    const self = this;
    return {
      clearRect() {}, beginPath() {}, arc() {}, fill() {}, stroke() {},
      createImageData: (w, h) => ({ data: new Uint8ClampedArray(4 * w * h) }),
      putImageData(image) { self.shown = [...image.data]; },
    };
  }
}
const plane = new Element(), decoded = new Element(), output = new Element();
const sliders = [new Element(), new Element()];
const root = {
  querySelector: (words) => words.startsWith("script") ? { textContent: JSON.stringify(content) }
    : { "canvas.plane": plane, "canvas.decoded": decoded, output }[words],
  querySelectorAll: () => sliders,
};
const document = { querySelectorAll: () => [root] };
"""


def by_node(content: dict[str, Any], code: str) -> Any:
    """What the code prints as JSON, after the script of the page."""
    words = DOCUMENT.replace("CONTENT", json.dumps(content)) + SCRIPT.read_text().replace('"use strict";', "")
    done = subprocess.run([str(NODE), "-e", words + code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def bilinear(content: dict[str, Any], x: float, y: float) -> np.ndarray:
    """The picture at a point, by an independent way: hat functions of all pictures."""
    steps = np.arange(content["number"])
    across, down = (np.clip(1 - abs(steps - place), 0, None) for place in (x, y))
    return np.einsum("i,j,ijhwc->hwc", down, across, pixels_of(content))


@pytest.mark.skipif(NODE is None, reason="node is not installed")
def test_the_script_blends_neighbours_bilinearly(diagnosed: Path) -> None:
    content = content_of(diagnosed)
    places = [(0, 0), (14, 14), (3.25, 9.5), (13.999, 0.001), (7, 2.75)]
    code = f"console.log(JSON.stringify({json.dumps(places)}.map(([x, y]) => [...blend("
    code += "{ ...content, bytes: bytesOf(content.pixels) }, x, y)])));"
    for (x, y), found in zip(places, by_node(content, code), strict=True):
        picture = np.array(found).reshape(content["height"], content["width"], 4)
        np.testing.assert_allclose(picture[..., :1], bilinear(content, x, y), atol=0.51)
        assert (picture[..., 3] == 255).all() and (picture[..., 0] == picture[..., 2]).all()


@pytest.mark.skipif(NODE is None, reason="node is not installed")
def test_dragging_keys_and_sliders_change_the_picture(diagnosed: Path) -> None:
    content = content_of(diagnosed)
    code = """
const seen = [];
const see = () => seen.push([decoded.shown, output.textContent, sliders.map((each) => Number(each.value))]);
see();
plane.heard.pointermove({ clientX: 10, clientY: 290 }); see();           // not dragged
plane.heard.pointerdown({ clientX: 150, clientY: 150, pointerId: 1 }); see();
plane.heard.pointermove({ clientX: 10, clientY: 290, pointerId: 1 }); see();
plane.heard.pointerup({}); plane.heard.pointermove({ clientX: 150, clientY: 150 }); see();
let prevented = 0;
const press = (key) => plane.heard.keydown({ key, preventDefault() { prevented++; } });
press("ArrowUp"); press("ArrowRight"); press("ArrowLeft"); press("ArrowLeft"); press("Tab"); see();
sliders[0].value = "14"; sliders[0].heard.input(); see();
sliders[1].value = "14"; sliders[1].heard.input(); see();
console.log(JSON.stringify([seen, prevented]));
"""
    seen, prevented = by_node(content, code)
    points = [(7, 7), (7, 7), (7, 7), (0, 14), (0, 14), (0, 13.75), (14, 13.75), (14, 0)]
    assert prevented == 4
    for (picture, words, sliders), (x, y) in zip(seen, points, strict=True):
        shown = np.array(picture).reshape(content["height"], content["width"], 4)[..., :1]
        np.testing.assert_allclose(shown, bilinear(content, x, y), atol=0.51)
        assert sliders == [x, 14 - y]
        across = np.interp(x, np.arange(15), content["across"])
        assert words.startswith(f"z[0] = {across:.2f}, z[1] = ")
    assert seen[2][0] != seen[3][0] != seen[6][0] != seen[7][0]


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
def test_dragging_in_a_browser_changes_the_picture(pyro_vae: Run, copied: Path) -> None:
    assert pyro_vae("report", copied)[0] == 0
    path = copied / "report.html"
    drag = """<script>
const plane = document.querySelector("canvas.plane"), decoded = document.querySelector("canvas.decoded");
const bytes = () => decoded.getContext("2d").getImageData(0, 0, decoded.width, decoded.height).data.join();
const before = bytes(), box = plane.getBoundingClientRect();
plane.setPointerCapture = () => {};
for (const [type, place] of [["pointerdown", 0.5], ["pointermove", 0.1]]) plane.dispatchEvent(
  new PointerEvent(type, { clientX: box.left + place * box.width, clientY: box.top + place * box.height }));
document.title = before === bytes() ? "the same" : "another picture";
</script></body>"""
    text = re.sub('<meta http-equiv="Content-Security-Policy"[^>]*>', "", path.read_text())
    path.write_text(text.replace("</body>", drag))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    done = subprocess.run([str(BROWSER), *flags, path.as_uri()], capture_output=True, text=True, check=True)
    assert "<title>another picture</title>" in done.stdout


# pictures by default


def test_the_most_active_axes_come_first(diagnosed: Path) -> None:
    vae, data = pv.load(diagnosed).vae, pv.Digits()
    scales = torch.tensor([0.1, 3.0, 1.0])
    vae.encode = lambda x: scales * torch.randn(len(x), 3)  # type: ignore[method-assign]
    assert looking.active_axes(vae, data) == [1, 2, 0]
    assert looking.active_axes(vae, None) == [1, 2, 0]
    assert looking.two_axes(vae, data) == (1, 2)


def test_traverse_and_scatter_take_the_most_active_axes(
    pyro_vae: Run, diagnosed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vae = pv.load(diagnosed).vae
    codes = vae.encode(pv.Digits().test.batch())
    first, second = codes.var(0).argsort(descending=True)[:2].tolist()
    for verb in ("traverse", "scatter"):
        assert pyro_vae(verb, diagnosed, "--num", 5, "--out", "usual.png")[0] == 0
        axes = ("--axes", f"[{first},{second}]", "--out", "named.png")
        assert pyro_vae(verb, diagnosed, "--num", 5, *axes)[0] == 0
        assert Path("usual.png").read_bytes() == Path("named.png").read_bytes()


def test_reconstructions_stand_below_grey_levels_and_bits(diagnosed: Path) -> None:
    vae, data = pv.load(diagnosed).vae, pv.Digits()
    figure = looking.reconstructions(vae, data, 10)
    shown = figure.axes[0].images[0].get_array()
    assert shown is not None and shown.shape[:2] == (3 * 9 - 1, 10 * 9 - 1)
    part = data.in_form(pv.Levels()).test.subset(10)
    np.testing.assert_allclose(shown[:8, 9:17, 0], part.batch()[1, 0], atol=1e-6)
    bits = data.test.subset(10).batch()[1, 0]
    np.testing.assert_array_equal(shown[9:17, 9:17, 0], bits)
    levels = looking.reconstructions(vae, data.in_form(pv.Levels()), 10).axes[0].images[0].get_array()
    assert levels is not None and levels.shape[0] == 2 * 9 - 1


@pytest.mark.filterwarnings("always")
def test_a_picture_that_fails_costs_no_run(pyro_vae: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("no ink")

    monkeypatch.setattr(looking, "samples", fails)
    status, _, err = pyro_vae("train", "--epochs", 1, *SMALL, "--out", "run")
    assert status == 0 and err.count("no picture of samples: RuntimeError: no ink") == 1
    assert [path.name for path in Path("run/figures").iterdir()] == ["reconstructions.png"]
    assert Path("run/summary.json").is_file()
