"""The finished stages of a command are kept until it has ended."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from pyro_vae.errors import InputError
from pyro_vae.storage.checkpoints import save_checkpoint
from pyro_vae.storage.files import write
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


def test_what_is_written_grows_with_the_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stage once: as much for the last as for the first."""
    written = []

    def counted(path: Path, content: bytes) -> None:
        written.append(len(content))
        write(path, content)

    def column(number: int) -> dict[str, Any]:
        return {"column": torch.full((1000,), float(number))}

    monkeypatch.setattr("pyro_vae.storage.checkpoints.write", counted)
    with Stages(tmp_path / "kept", SETTINGS) as stages:
        for number in range(20):
            stages(str(number), partial(column, number))
    _, *each = written
    assert len(each) == 20 and max(each) <= 1.05 * min(each) and min(each) > 4000


def test_an_interruption_in_the_middle_loses_one_stage(tmp_path: Path) -> None:
    """Whatever the order in which they were found, and with those that an older version kept in one file."""
    folder = tmp_path / "kept"
    folder.mkdir()
    old = {"settings": SETTINGS, "done": {"0": {"column": torch.zeros(3).double()}}, "seconds": {"0": 1.0}}
    save_checkpoint(folder / "stages.pt", old)
    numbers = torch.rand(12, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    worked: list[int] = []

    def run(*order: int, until: int) -> dict[str, Any]:
        def find(number: int) -> dict[str, torch.Tensor]:
            if number == until:
                raise KeyboardInterrupt
            worked.append(number)
            return {"column": numbers[number]}

        with Stages(folder, SETTINGS) as stages:
            for number in order:
                stages(str(number), partial(find, number))
            return dict(stages.done)

    for order, until in (((0, 2, 1, 3), 3), ((0, 2, 11, 4), 4)):
        with pytest.raises(KeyboardInterrupt):
            run(*order, until=until)
    done = run(*range(12), until=-1)
    assert worked == [2, 1, 11, 3, 4, 5, 6, 7, 8, 9, 10]
    found = [done[str(number)]["column"] for number in range(12)]
    assert torch.equal(torch.stack(found), torch.cat([torch.zeros(1, 3).double(), numbers[1:]]))
    assert not folder.exists()


def test_a_damaged_stage_is_not_gone_on_from(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    with pytest.raises(KeyboardInterrupt), Stages(folder, SETTINGS) as stages:
        stages("first", dict)
        stages("second", dict)
        raise KeyboardInterrupt
    whole = (folder / "000002.stage").read_bytes()
    (folder / "000002.stage").write_bytes(whole[:-9])
    with refused(f"{folder} cannot be read: remove it to begin anew"), Stages(folder, SETTINGS):
        pass
    (folder / "000002.stage").write_bytes(whole)
    with Stages(folder, SETTINGS) as stages:
        assert stages("second", broken) == {}
