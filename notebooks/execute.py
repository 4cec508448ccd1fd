"""Execute notebooks from top to bottom and keep their outputs, without what differs each time.

python notebooks/execute.py                              # all of them
python notebooks/execute.py notebooks/01_first_vae.ipynb
"""

import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from tqdm import tqdm

HERE = Path(__file__).parent


def execute(path: Path) -> None:
    """One notebook, in place."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=None, record_timing=False, coalesce_streams=True).execute()
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = nbformat.NotebookNode(kernelspec=kernel, language_info={"name": "python"})
    nbformat.write(notebook, path)


def main() -> None:
    """Those of the command line, or all."""
    os.environ["TQDM_DISABLE"] = "1"  # of the kernels: bars are not kept
    paths = [Path(name) for name in sys.argv[1:]] or sorted(HERE.glob("*.ipynb"))
    for path in tqdm(paths, disable=None):
        execute(path)


if __name__ == "__main__":
    main()
