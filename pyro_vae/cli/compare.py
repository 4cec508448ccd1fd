"""`pyro-vae compare`."""

from pathlib import Path

from matplotlib.figure import Figure

from pyro_vae import comparison, plots
from pyro_vae.cli.common import table_alone
from pyro_vae.errors import InputError
from pyro_vae.storage.files import write
from pyro_vae.tabular import Format


def compare(runs: list[Path], *, reference: comparison.Reference, format: Format, out: Path) -> None:
    """Differences between runs in log p(x), on the same test data, with 95 % intervals.

    One table: the options in which the runs differ, parameters, ELBO, log p(x), and the difference in
    log p(x) to the first run (or the best), datum by datum, so that the interval is a narrow one. It is
    within noise where the interval contains 0. Runs that differ in their seed only are one row, whose
    interval holds the spread over seeds, too; without such runs, an interval is of these trained parameters,
    and says higher or lower, not better or worse. Intervals are per pair, not simultaneous. Of each run the
    latest evaluation counts. Lower bounds that are certain are given for all runs together, and what the
    estimates of the lower ones rest on. The table is kept as comparison.csv, its picture as comparison.png.

    Args:
        runs: Folders of the runs, or of several seeds, as `train --seeds` makes it.
        reference: The model to compare with.
        format: Of the table on the screen: text, or markdown, latex or csv to be copied.
        out: Folder to write into.
    """
    found = comparison.compare(runs, reference=reference)
    if out.exists() and not out.is_dir():
        raise InputError(f"expected a folder to write into, got the file {out}: choose another with --out")
    with table_alone(format) as screen:
        if format == "text":
            print(f"{found}\n")
        else:
            print(getattr(found, format)(), end="", file=screen)
        for name in ("comparison.csv", "comparison.png"):
            if (out / name).exists():
                print(f"replacing the earlier {out / name}")
        write(out / "comparison.csv", found.csv().encode())
        plots.save(_picture(found), out / "comparison.png")
        print(out / "comparison.csv", out / "comparison.png", sep="\n")


def _picture(found: comparison.Comparison) -> Figure:
    runs = found.runs
    base = next(run.log_evidence for run in runs if run.verdict == "reference")
    return plots.differences(
        [f"{run.name}\n{comparison.options_in_words(run.options)}" for run in runs],
        [run.difference for run in runs],
        [run.interval for run in runs],
        [run.verdict for run in runs],
        members=[[value - base for value in run.of_members] for run in runs],
        reference=found.reference,
        units=found.units,
    )
