"""Names by other habits are understood on the command line, and hinted at in Python."""

import inspect
import re
from pathlib import Path

import pytest
import torch

import pyro_vae as pv
from pyro_vae.cli.configuration import options_of, text_of
from pyro_vae.cli.messages import subclasses
from pyro_vae.cli.parser import PARTS, SKIPPED, train_parser, with_defaults
from pyro_vae.data import Form
from pyro_vae.errors import InputError
from pyro_vae.spellings import FORMS, as_ours

#: Words that Americans spell otherwise, with their spelling.
AMERICAN = (
    ("iser", "izer"),
    ("ised", "ized"),
    ("isation", "ization"),
    ("labelled", "labeled"),
    ("grey", "gray"),
)


def american(name: str) -> str:
    for ours, theirs in AMERICAN:
        name = re.sub(ours, theirs, name)
    return name


def options(*words: str) -> dict[str, object]:
    return options_of(text_of(train_parser().parse_args(with_defaults([*words]))))


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (("--lr", "0.01"), ("--optimiser.lr", "0.01")),
        (("--learning_rate=0.01",), ("--optimiser.lr=0.01",)),
        (
            ("--optimizer", "AdamW", "--optimizer.lr", "0.01"),
            ("--optimiser", "AdamW", "--optimiser.lr", "0.01"),
        ),
        (("--optimizer=SGD", "--lr=0.1"), ("--optimiser=SGD", "--optimiser.lr=0.1")),
        (("--data.form", "Standardized"), ("--data.form", "Standardised")),
        (("--data.form=Dequantized",), ("--data.form=Dequantised",)),
        (
            ("--program", "SemiSupervisedVAE", "--num_labeled", "50"),
            ("--program", "SemiSupervisedVAE", "--num_labelled", "50"),
        ),
    ],
    ids=lambda words: words[0],
)
def test_other_habits_are_the_same_options(theirs: tuple[str, ...], ours: tuple[str, ...]) -> None:
    assert options(*theirs) == options(*ours) != options()


def test_in_a_file_of_options(tmp_path: Path) -> None:
    file = tmp_path / "options.yaml"
    file.write_text("optimizer:\n  class_path: AdamW\n  init_args:\n    lr: 0.01\nnum_labeled: 50\n")
    assert options(f"--config={file}") == options("--optimiser=AdamW", "--lr=0.01", "--num_labelled=50")


def test_every_option_and_form_that_is_spelt_the_british_way_is_known() -> None:
    known = [option for action in train_parser()._actions for option in action.option_strings]
    for name, base, _, _ in PARTS:
        for each in subclasses(base):
            if each.__module__.startswith("pyro_vae."):
                own = inspect.signature(each).parameters.keys() - set(SKIPPED.get(name, ()))
                known += [f"--{name}.{parameter}" for parameter in own]
    spelt = {option for option in known if american(option) != option and "optimiser" not in option}
    assert {as_ours(american(option)) for option in spelt} == spelt >= {"--num_labelled"}
    forms = {each.__name__ for each in subclasses(Form) if american(each.__name__) != each.__name__}
    assert forms == {*FORMS.values()}


def test_in_python_a_line_says_what_it_is_called_here() -> None:
    data = pv.Dataset(torch.rand(20, 4).round())
    vae = pv.assemble(data, latent_dim=2)
    with pytest.raises(TypeError, match=r"fit\(\) got an unexpected .* 'optimizer': it is spelt optimiser"):
        pv.fit(vae, data, optimizer=torch.optim.Adam)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"'lr': give it to an optimiser, as optimiser=functools\.partial"):
        pv.fit(vae, data, lr=1e-3)  # type: ignore[call-arg]
    with pytest.raises(InputError, match="got 'optimizer': it is spelt optimiser"):
        pv.fit_many(lambda: vae, data, optimizer=torch.optim.Adam)
    with pytest.raises(AttributeError, match=r"no attribute 'Dequantized': did you mean Dequantised\?"):
        pv.Dequantized  # noqa: B018
