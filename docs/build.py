"""Build the site into docs/_build/html, a warning being an error; it takes `pip install -e ".[docs]"`."""

import sys
from pathlib import Path

from sphinx.cmd.build import main

DOCS = Path(__file__).resolve().parent

if __name__ == "__main__":
    built = DOCS / "_build"  # with what Sphinx and myst-nb keep beside the pages
    options = ["-W", "--keep-going", "-q", "-b", "html", "-c", str(DOCS), "-d", str(built / "doctrees")]
    sys.exit(main([*options, str(DOCS.parent), str(built / "html"), *sys.argv[1:]]))
