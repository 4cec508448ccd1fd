"""HTML is escaped, and what results show in a notebook is what they hold."""

from pathlib import Path
from typing import Any

import pytest
import torch

import pyro_vae as pv
from pyro_vae.markup import Markup, element, joined, listed, table
from tests.html import Page

HOSTILE = "</td><script>alert(1)</script>\"'&"


def rows_of(shown: Any) -> dict[str, list[str]]:
    """The cells of the table of a result by the name of their row, its heading by its first cell."""
    html = shown._repr_html_()
    Page(html)
    found: dict[str, list[str]] = {}
    name = ""
    for tag, text in Page(html.replace("></", "> </")).texts:
        if tag == "th":
            name = text
            found[name] = []
        elif tag == "td":
            found[name].append(text)
    return found


def test_text_is_escaped_and_markup_is_not() -> None:
    page = Page(element("p", HOSTILE, Markup("<b>bold</b>"), title=HOSTILE, class_="x", data_y="z"))
    assert page.elements == [("p", {"title": HOSTILE, "class": "x", "data-y": "z"}), ("b", {})]
    assert page.texts == [("p", HOSTILE), ("b", "bold")]
    assert element("img", src="x", alt=HOSTILE).endswith(">") and Page(element("img", alt=HOSTILE)).open == []
    assert joined(["<", Markup("<br>")]) == "&lt;<br>"
    assert element("input", required=True, disabled=False) == "<input required>"


def test_a_table_has_all_cells_escaped_and_numbers_to_the_right() -> None:
    rows = [[HOSTILE, "number", "word"], ["a", "1.5", HOSTILE], [HOSTILE, "-2", "b"]]
    page = Page(table(rows, HOSTILE, {HOSTILE: HOSTILE}))
    assert page.text("th", "td") == [cell for row in rows for cell in row]
    assert [page.text(tag) for tag in ("caption", "dt", "dd")] == [[HOSTILE]] * 3
    sides = [cell["style"].rpartition(" ")[2] for cell in page.all("td")]
    assert sides == ["right", "left"] * 2
    assert not page.all("script")
    assert [cell["scope"] for cell in page.all("th")] == ["col"] * 3 + ["row"] * 2
    assert Page(listed({})).text() == []


@pytest.fixture(scope="module")
def small() -> tuple[pv.VAE, torch.Tensor]:
    torch.manual_seed(0)
    data = pv.Digits()
    vae = pv.assemble(data, latent_dim=2, network=pv.MLP(hidden_dims=(4,)))
    return vae, data.test.batch()[:8]


def test_estimates_show_mean_errors_and_certificate(small: tuple[pv.VAE, torch.Tensor]) -> None:
    vae, x = small
    drawn = pv.log_evidence(vae.model, vae.guide, x, num_particles=50)
    annealed = pv.annealed_log_evidence(vae.model, vae.guide, x, num_chains=3, num_temperatures=4)
    for found in (drawn, annealed):
        rows = rows_of(found)
        assert rows["log p(x)"] == [f"{found.mean:.3f} ± {found.mean_standard_error:.3f}"]
        assert rows["at least, with probability 0.95"] == [f"{found.certificate():.3f}"]
        assert rows["Monte Carlo error"] == [f"{found.mean_monte_carlo_error:.3f}"]
        assert rows["data"] == ["8"]
    heavy = int((drawn.pareto_k > 0.7).sum() + drawn.pareto_k.isnan().sum())
    assert rows_of(drawn)["k̂ above 0.7 or unknown"] == [f"{heavy} data"]
    assert rows_of(drawn)["draws each, from the guide"] == ["50"]
    assert rows_of(annealed)["chains each, temperatures"] == ["3, 4"]
    assert rows_of(annealed)["acceptance"] == [f"{annealed.acceptance.mean():.2f}"]
    few = rows_of(annealed)["fewer than two effective chains"]
    assert few == [f"{int((annealed.effective_sample_size < 2).sum())} data"]
    auto = pv.auto_log_evidence(vae.model, vae.guide, x[:2], num_particles=500, budget=1.0)
    number = int(auto.annealed.sum())
    assert rows_of(auto)["by 500 draws from a local proposal"] == [f"{2 - number} data"]
    bound = pv.elbo(vae.model, vae.guide, x)
    means = [f"{float(part.mean()):.3f}" for part in (bound.elbo, bound.reconstruction, bound.kl)]
    assert rows_of(bound)["mean"] == [*means, "8"]


def test_a_diagnosis_and_a_calibration_show_each_term(small: tuple[pv.VAE, torch.Tensor]) -> None:
    vae, x = small
    evidence = pv.log_evidence(vae.model, vae.guide, x, num_particles=50)
    found = pv.diagnose(vae.model, vae.guide, x, evidence=evidence, num_steps=2)
    rows = rows_of(found)
    for name, value in (("distortion", found.distortion), ("amortisation gap", found.amortisation)):
        assert rows[name][0] == f"{value.mean:.3f} ± {value.standard_error:.3f}"
    assert rows["log p(x)"] == [repr(found.log_evidence), "ELBO plus both gaps"]
    assert "train-test gap" not in rows
    assert found.verdict in Page(found._repr_html_()).text("dd")
    ranks = pv.calibrate(vae.model, vae.guide, like=x, num_data=40, num_draws=9)
    shown = rows_of(ranks)
    for name, p, verdict in zip(ranks.names, ranks.p_value.tolist(), ranks.verdicts, strict=True):
        assert shown[name] == [f"{p:.2g}", verdict]
    assert Page(ranks._repr_html_()).text("caption") == [repr(ranks)]


def test_runs_and_their_comparison_are_tables(
    pyro_vae: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = ("--network.hidden_dims", "[4]", "--latent_dim", "2", "--particles", 30, "--num_data", 20)
    hostile = "<i>a&b"
    for name, seed in ((hostile, 0), ("b", 1)):
        assert pyro_vae("train", "--epochs", 1, *small, "--seed", seed, "--out", name)[0] == 0
    opened = pv.load(hostile)
    rows = rows_of(opened)
    assert rows["folder"] == [hostile] and rows["prior"] == ["StandardNormalPrior"] and rows["seed"] == ["0"]
    assert rows["data"] == [f"Digits, {opened.facts.protocol}"]
    assert opened.summary is not None
    estimate = opened.summary["log_evidence"]["estimate"]
    assert rows["log p(x)"][0].startswith(f"{estimate:.3f} ± ")
    assert rows["parameters"] == [f"{sum(each.numel() for each in opened.vae.parameters()):,}"]
    assert pyro_vae("train", "--epochs", 1, *small, "--prior", "LaplacePrior", "--out", "c")[0] == 0
    compared = pv.compare([hostile, "c"])
    page = Page(compared._repr_html_())
    assert page.text("th", "td")[: len(compared._heading)] == compared._heading
    assert rows_of(compared)[hostile][-1] == "reference"
    low, high = compared.runs[1].interval
    assert f"{compared.runs[1].difference:+.3f} [{low:+.3f}, {high:+.3f}]" in rows_of(compared)["c"]
    assert "prior LaplacePrior" in page.text("dd") and not page.all("i")


def test_an_evaluation_in_a_notebook_has_its_numbers() -> None:
    data = pv.Digits()
    vae = pv.assemble(data, latent_dim=2, network=pv.MLP(hidden_dims=(4,)))
    found = pv.evaluate(vae, data, num_data=10)
    elbo = found.content["elbo"]["test"]
    assert rows_of(found)["test"][:3] == [f"{elbo[name]:.3f}" for name in ("elbo", "reconstruction", "kl")]
    assert found.content["data_hash"] in Page(found._repr_html_()).text("dd")[-2]
