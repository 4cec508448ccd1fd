"""The experiments: question, command, whether the results are there, and what they answer.

python -m experiments
python -m experiments --write-readme
"""

import argparse
from pathlib import Path

from experiments.command import run_script
from experiments.listing import listing, read_experiments, summary_table
from experiments.markdown import insert
from pyro_vae.storage.files import write


def main(arguments: list[str] | None = None) -> int:
    """List the experiments of a folder; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m experiments", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--folder", type=Path, default=Path(__file__).parent, help="where the experiments are"
    )
    text = "renew the table between <!-- summary --> and <!-- end --> in the folder's README.md"
    parser.add_argument("--write-readme", action="store_true", help=text)
    options = parser.parse_args(arguments)
    found = read_experiments(options.folder)
    print(listing(found))
    if options.write_readme:
        readme = options.folder / "README.md"
        write(readme, insert(readme.read_text(), {"summary": summary_table(found)}).encode())
        print(f"\n{readme}")
    return 0


if __name__ == "__main__":
    run_script(main)
