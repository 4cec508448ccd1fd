"""What `import pyro_vae` and the command line's help leave alone, since it is slow to import."""

import subprocess
import sys

import pytest

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
        ("import pyro_vae", {**SLOW, **OF_COMMANDS}),
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
