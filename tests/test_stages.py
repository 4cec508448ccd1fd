"""The finished stages of a command are kept until it has ended."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pyro_vae.errors import InputError
from pyro_vae.storage.stages import Stages
from tests.components import refused

SETTINGS = {"seed": 0, "split": "test"}


def broken() -> dict[str, int]:
    raise OSError("no space left")


def test_finished_stages_are_not_worked_again(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    first: dict[str, Any] = {"numbers": torch.arange(3.0), "rows": [("a", 1.5, None)], "names": {"b": True}}
    with pytest.raises(OSError, match="no space"), Stages(folder, SETTINGS) as stages:
        stages("first", lambda: first)
        stages("second", broken)
    with Stages(folder, SETTINGS) as stages:
        found = stages("first", broken)
        assert stages("second", lambda: {"number": 2}) == {"number": 2}
        assert sorted(stages.seconds) == ["first", "second"]
    assert torch.equal(found.pop("numbers"), first["numbers"])
    assert found == {"rows": [("a", 1.5, None)], "names": {"b": True}}
    assert not folder.exists()


def test_an_interruption_says_where_it_goes_on(tmp_path: Path) -> None:
    for work in (False, True):
        with pytest.raises(KeyboardInterrupt) as end, Stages(tmp_path / "kept", SETTINGS) as stages:
            if work:
                stages("first", dict)
            raise KeyboardInterrupt
        assert str(end.value) == (f"the same command goes on from {tmp_path}/kept" if work else "")
        assert (tmp_path / "kept").exists() == work


def test_other_settings_are_refused_where_there_is_something_to_lose(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    text = f"{folder} holds an interrupted command with seed 0, got 1: go on with the same options, or remove"
    for name in ("stages", "inner"):
        with pytest.raises(OSError, match="no space"), Stages(folder, SETTINGS) as stages:
            if name == "stages":
                stages("first", dict)
            else:
                torch.save({}, stages.within("inner"))
            broken()
        before = sorted(folder.iterdir())
        with refused(text), Stages(folder, {**SETTINGS, "seed": 1}):
            pass
        assert sorted(folder.iterdir()) == before
        with Stages(folder, SETTINGS):
            pass


def test_refused_input_leaves_nothing_but_what_was_there(tmp_path: Path) -> None:
    with refused("too few"), Stages(tmp_path / "kept", SETTINGS) as stages:
        stages("first", dict)
        raise InputError("too few")
    assert not (tmp_path / "kept").exists()
    with pytest.raises(KeyboardInterrupt), Stages(tmp_path / "kept", SETTINGS) as stages:
        stages("first", dict)
        raise KeyboardInterrupt
    with refused("other programs"), Stages(tmp_path / "kept", SETTINGS) as stages:
        assert stages.resumed
        raise InputError("the state of a stage was made with other programs")
    assert (tmp_path / "kept").exists()


def test_a_kill_before_anything_was_found_costs_no_other_command(tmp_path: Path) -> None:
    Stages(tmp_path / "kept", SETTINGS).__enter__()
    with Stages(tmp_path / "kept", {**SETTINGS, "seed": 1}) as stages:
        assert not stages.resumed


def test_state_of_an_unknown_command_is_not_gone_on_from(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    torch.save({}, tmp_path / "kept" / "inner.pt")
    with Stages(tmp_path / "kept", SETTINGS) as stages:
        assert not stages.resumed and not stages.within("inner").exists()


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "stages.pt").write_bytes(b"half")
    with refused(f"{tmp_path}/kept cannot be read: remove it to begin anew"), Stages(tmp_path / "kept", {}):
        pass
