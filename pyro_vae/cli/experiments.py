"""`pyro-vae experiments`."""

from pathlib import Path

from pyro_vae.reports.experiments import listing, read_experiments, summary_table
from pyro_vae.reports.markdown import insert
from pyro_vae.storage.files import write


def experiments(*, folder: Path = Path("experiments"), write_readme: bool = False) -> None:
    """The experiments of a folder: question, command, whether its results are there, and what they answer.

    Args:
        folder: Has a folder with `experiment.yaml` for each experiment.
        write_readme: Renew the table between <!-- summary --> and <!-- end --> in the folder's README.md,
            from the results.
    """
    found = read_experiments(folder)
    print(listing(found))
    if write_readme:
        readme = folder / "README.md"
        write(readme, insert(readme.read_text(), {"summary": summary_table(found)}).encode())
        print(f"\n{readme}")
