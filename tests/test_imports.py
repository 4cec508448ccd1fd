"""What `import pyro_vae` and the command line's help leave alone, since it is slow to import."""

import subprocess
import sys
from pathlib import Path

import pytest

import pyro_vae

#: By the module, what needs it.
SLOW = {
    "torch._dynamo": "compilation",
    "torch._inductor": "compilation",
    "sympy": "compilation",
    "sklearn": "the digits, and the prior gap",
    "scipy": "calibration, agreement and comparison",
    "scipy.stats": "calibration, agreement and comparison",
    "torchvision": "data of torchvision",
    "matplotlib.pyplot": "nothing: pictures have figures of their own",
}
#: What only the command line and pictures need.
OF_COMMANDS = {"jsonargparse": "the command line", "matplotlib": "pictures"}


@pytest.mark.parametrize(
    ("code", "slow"),
    [
        (
            "import pyro_vae as pv; pv.VAE, pv.fit, pv.log_evidence, pv.diagnose",
            {**SLOW, **OF_COMMANDS},
        ),
        ("from pyro_vae.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass", SLOW),
    ],
    ids=["package", "help"],
)
def test_nothing_slow_is_imported(code: str, slow: dict[str, str]) -> None:
    code = f"import sys\n{code}\nprint('imported:', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = done.stdout.partition("imported: ")[2].split()
    assert "pyro_vae.training" in imported
    assert [name for name in slow if name in imported] == []


def test_a_start_that_is_interrupted_is_a_clean_one() -> None:
    code = """
import signal, threading, os, time
signal.signal(signal.SIGINT, signal.default_int_handler)
threading.Thread(target=lambda: (time.sleep(0.2), os.kill(os.getpid(), signal.SIGINT)), daemon=True).start()
from pyro_vae.cli import main
raise SystemExit(main(["--help"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "\npyro-vae: interrupted\n"


def test_nothing_of_the_current_folder_takes_the_place_of_a_library(tmp_path: Path) -> None:
    for name in ("torch", "json", "yaml", "pyro"):
        (tmp_path / f"{name}.py").write_text("import pathlib\npathlib.Path('imported').touch()\n")
    for command in (["-m", "pyro_vae"], ["-c", "from pyro_vae.cli import main; main()"]):
        flags = ["-P"] if command[0] == "-c" else []  # as of an installed script
        words = [sys.executable, *flags, *command, "sample", "."]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert "expected the folder of a run" in done.stderr
        assert not (tmp_path / "imported").exists()


def test_every_public_name_is_found() -> None:
    assert sorted(pyro_vae.__all__) == sorted(pyro_vae._HOME)
    assert {*pyro_vae.__all__} <= {*dir(pyro_vae)}
    assert all(getattr(pyro_vae, name) is not None for name in pyro_vae.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        getattr(pyro_vae, "nothing")  # noqa: B009
