"""What the parser says, in a user's words: each of its texts, as jsonargparse makes it."""

import re
from pathlib import Path

import pytest

from pyro_vae.cli.entry import main
from pyro_vae.cli.messages import WORDS, Refusal, hint
from pyro_vae.priors import Prior

#: By the place of a pattern in `WORDS`: words typed, and what is said.
CASES: dict[int, tuple[tuple[str, ...], str]] = {
    0: (("train", "--epochs", "many"), "--epochs: expected int, got many"),
    1: (("diagnose", "a", "--split", "all"), "--split: expected one of 'train', 'valid', 'test', got all"),
    2: (("train", "--num_data", "all"), "--num_data: expected int, null, got all"),
    3: (
        ("train", "--kl_weight", "x"),
        "--kl_weight: expected float or a function as my_module.w",
    ),
    4: (("train", "--latent_dim", "x"), "--latent_dim: expected int or a list as [1,2], got x"),
    5: (("train", "--patience", "x"), "--patience: expected int, null, got x"),
    6: (("train", "--network.hidden_dims", "5"), "--network.hidden_dims: expected a list as [1,2], got 5"),
    7: (("train", "--overwrite", "perhaps"), "--overwrite: expected bool, got perhaps"),
    8: (("train", "--prior", "Quite"), "--prior: expected a class or its import path, got Quite"),
    9: (("train", "--prior.foo", "1"), "--prior: StandardNormalPrior: there is no option foo"),
    10: (
        ("train", "--config", "own.yaml"),
        "--config: --prior: Prior: own.Prior is no class of pyro_vae, ",
    ),
    11: (("train", "--config", "os.yaml"), "--config: --prior: Prior: os.Prior is not part of a model"),
    12: (("scatter",), "the following arguments are required: RUN, the folder of a run"),
    13: (("encode", "run"), "the following arguments are required: FILE, of data"),
    14: (("compare",), "the following arguments are required: RUN RUN, the folders of runs"),
    15: (("report",), "the following arguments are required: RUN, the folder of a run"),
}


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main([*words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("pyro-vae: error: ")


@pytest.fixture(autouse=True)
def configurations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that name a class outside of this package."""
    monkeypatch.chdir(tmp_path)
    for name in ("own", "os"):
        Path(f"{name}.yaml").write_text(f"prior: {name}.Prior")


@pytest.mark.parametrize("number", range(len(WORDS)))
def test_every_pattern_meets_what_the_parser_says(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    words, expected = CASES[number]
    assert said(capsys, *words).startswith(expected)


@pytest.mark.parametrize("number", range(len(WORDS)))
def test_no_pattern_is_without_a_use(
    number: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words, expected = CASES[number]
    monkeypatch.setattr("pyro_vae.cli.messages.WORDS", WORDS[:number] + WORDS[number + 1 :])
    assert not said(capsys, *words).startswith(expected)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("train", "--schedule", "StepLR"), "--schedule: StepLR lacks an option (see .help): step_size"),
        (
            ("train", "--prior", "torch.nn.Linear"),
            "--prior: Import path torch.nn.Linear does not correspond to a subclass of Prior",
        ),
        (("train", "--prior", "./x.y"), "--prior: Unexpected import path format: ./x.y"),
        (("train", "--resume"), "--resume expects the folder of a run, got none"),
        (
            ("train", "--prior", "MixturePrior", "--prior.component", "3"),
            "--prior: MixturePrior: there is no option component (did you mean components?)",
        ),
        (
            ("train", "--likelihood.foo", "3"),
            "--likelihood: BernoulliLikelihood: there is no option foo; name the class that has it, as "
            "--likelihood CLASS",
        ),
    ],
)
def test_a_refusal_names_the_option_and_the_innermost_cause(
    words: tuple[str, ...], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(capsys, *words) == expected


def test_a_message_without_an_option_stays_as_it_is() -> None:
    refusal = Refusal.of("two\n  lines", ValueError("another"))
    assert (refusal.option, refusal.chosen, str(refusal)) == ("", "", "two lines")
    assert hint(refusal, ["--epochs"], {"prior": Prior}) == ""


def test_close_classes_are_those_of_the_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert re.search(r"\(did you mean VampPrior or \w+\?\)$", said(capsys, "train", "--prior", "VampPrio"))
    assert "choose among" in said(capsys, "train", "--prior", "zzz")
