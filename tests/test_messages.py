"""What the parser says, in a user's words: each of its texts, as jsonargparse makes it."""

import re

import pytest

from pyro_vae.cli.entry import main
from pyro_vae.cli.messages import WORDS, Refusal, hint
from pyro_vae.priors import Prior

#: By the place of a pattern in `WORDS`: words typed, and what is said.
CASES: dict[int, tuple[tuple[str, ...], str]] = {
    0: (("train", "--epochs", "many"), "--epochs: expected int, got many"),
    1: (("evaluate", "a", "--split", "all"), "--split: expected one of 'train', 'valid', 'test', got all"),
    2: (("train", "--num_data", "all"), "--num_data: expected int, null, got all"),
    3: (("train", "--latent_dim", "x"), "--latent_dim: expected int or a list as [1,2], got x"),
    4: (("train", "--patience", "x"), "--patience: expected int, null, got x"),
    5: (("train", "--network.hidden_dims", "5"), "--network.hidden_dims: expected a list as [1,2], got 5"),
    6: (("train", "--overwrite", "perhaps"), "--overwrite: expected bool, got perhaps"),
    7: (("train", "--prior", "Quite"), "--prior: expected a class or its import path, got Quite"),
    8: (("train", "--prior.foo", "1"), "--prior: StandardNormalPrior: there is no option foo"),
    9: (("scatter",), "the following arguments are required: RUN, the folder of a run"),
    10: (("compare",), "the following arguments are required: RUN RUN, the folders of runs"),
}


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main([*words])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("pyro-vae: error: ")


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
        (("train", "--resume"), "argument --resume: expected one argument"),
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
