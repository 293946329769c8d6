"""What people look at. Reads tables and `summary.json` of a run only; computes nothing new."""

from pathlib import Path


def write(run: Path | str, *, latex: bool = False) -> Path:
    """Write `report/index.html` (one self-contained file) and `report/figures/` from what the run directory holds.

    Args:
        run: the directory of a run or audit: `summary.json`, `dataset/`, `run.yaml`. A part that is missing is left out,
            and the page says so.
        latex: also write every table of the page as `report/tables/*.tex`; tables that are there already are written again
            in any case.

    Returns:
        Path of the page. The same run directory gives the same bytes.

    Raises:
        MemtaxError: the directory holds neither `summary.json` nor a dataset, or one of its files cannot be read.
    """
    from memtax.report.data import run_folder
    from memtax.report.page import write as write_page

    return write_page(run_folder(run), latex)


__all__ = ["write"]
