"""Reports and pages. They read tables and `summary.json` of a run and compute nothing new."""

from pathlib import Path


def write(run: Path | str, *, latex: bool = False) -> Path:
    """Write `report/index.html` (one self-contained file) and `report/figures/` from the contents of a run directory.

    Args:
        run: the directory of a run or audit: `summary.json`, `dataset/`, `run.yaml`. If a part is missing, the page says so.
        latex: also write every table of the page as `report/tables/*.tex`; existing tables are updated in any case.

    Returns:
        Path of the page. The same run directory gives the same bytes.

    Raises:
        MemtaxError: the directory contains neither `summary.json` nor a dataset, or a file cannot be read.
    """
    from memtax.report.data import run_folder
    from memtax.report.page import write as write_page

    return write_page(run_folder(run), latex)


__all__ = ["write"]
