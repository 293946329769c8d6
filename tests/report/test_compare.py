"""Comparison of two runs, against statsmodels and cases derived by hand."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest, norm
from statsmodels.stats.contingency_tables import mcnemar
from typer.testing import CliRunner

from memtax import schema
from memtax.cli import app
from memtax.errors import MemtaxError
from memtax.report.compare import compare
from memtax.statistics import mcnemar_exact, paired_difference

COLUMNS = ["sequence_id", "tokens", "text", "is_memorized", "taxonomy"]


def write(path, memorized, taxonomy=None, shift=0, ids=None):
    rows = [
        {
            "sequence_id": number if ids is None else ids[number],
            "tokens": [number + shift, 7],
            "text": f"<b>text</b> {number}",
            "is_memorized": value,
            "taxonomy": None if taxonomy is None else taxonomy[number],
        }
        for number, value in enumerate(memorized)
    ]
    file = path / "dataset" / "features" / "train.parquet"
    file.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, schema.arrow_schema(COLUMNS)), file)
    return path


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (0, 5), (3, 9), (40, 41), (12, 12)])
def test_mcnemar_is_statsmodels_and_scipy(gained, lost):
    expected = mcnemar([[10, gained], [lost, 20]], exact=True).pvalue
    assert mcnemar_exact(gained, lost) == pytest.approx(expected, abs=1e-12)
    if gained + lost:
        assert mcnemar_exact(gained, lost) == pytest.approx(binomtest(gained, gained + lost).pvalue, abs=1e-12)


def log_likelihood(share, difference, gained, lost, rows):
    """Of the trinomial with P(lost) = share, P(gained) = share + difference."""
    up, same = share + difference, 1 - 2 * share - difference
    counts = ((lost, share), (gained, up), (rows - gained - lost, same))
    return sum(count * np.log(max(value, 1e-300)) for count, value in counts if count)


@pytest.mark.parametrize(("gained", "lost", "rows"), [(3, 9, 40), (0, 6, 50), (25, 5, 60), (1, 1, 10)])
def test_bounds_are_where_the_score_test_turns(gained, lost, rows):
    found = paired_difference(gained, lost, rows)
    assert found.value == (gained - lost) / rows
    for bound in (found.low, found.high):
        # The nuisance parameter is found by maximising the likelihood numerically, not by Tango's closed form.
        limits = (max(0.0, -bound), (1 - bound) / 2)
        share = minimize_scalar(
            lambda value, bound=bound: -log_likelihood(value, bound, gained, lost, rows),
            bounds=limits,
            method="bounded",
            options={"xatol": 1e-12},
        ).x
        score = (gained - lost - rows * bound) / np.sqrt(rows * (2 * share + bound - bound**2))
        assert abs(score) == pytest.approx(norm.isf(0.025), abs=1e-4)


def test_interval_has_a_width_without_change_and_stays_within_bounds():
    found = paired_difference(0, 0, 100)
    # With no change the score at d is n d^2 / (d (1 - d)) = z^2, so d = z^2 / (n + z^2) = 3.8415 / 103.8415.
    assert (found.value, found.low, found.high) == pytest.approx((0, -0.036994, 0.036994), abs=1e-6)
    assert paired_difference(5, 0, 5).high == 1
    assert paired_difference(0, 5, 5).low == -1
    with pytest.raises(MemtaxError, match="no difference of 3 gained"):
        paired_difference(3, 3, 5)


@pytest.fixture
def runs(tmp_path):
    #               kept  kept   lost  lost   never  gained  no verdict
    before = write(tmp_path / "a", [True, True, True, True, False, False, None], [0, 2, 2, 2, 2, 1, 2])
    after = write(tmp_path / "b", [True, True, False, False, False, True, True], [0, 0, 2, 2, 2, 1, 2])
    return before, after


def test_hand_derived_case(runs, tmp_path):
    found = compare(*runs, tmp_path / "out")
    assert found == json.loads((tmp_path / "out" / "compare.json").read_text())
    assert (found["schema"], found["schema_version"]) == ("memtax.compare", 1)
    assert found["sequences"] == {"before": 7, "after": 7, "shared": 7, "compared": 6, "without_verdict": 1}
    everything = found["rates"]["all"]
    assert [everything[name] for name in ("gained", "lost", "kept", "never")] == [1, 2, 2, 1]
    # 4 of 6 before, 3 of 6 after; three changed rows, one up: p = 2 (1 + 3) / 8 = 1.
    assert everything["before"]["value"] == pytest.approx(4 / 6)
    assert everything["after"]["value"] == pytest.approx(3 / 6)
    assert everything["difference"]["value"] == pytest.approx(-1 / 6)
    assert everything["mcnemar_p_value"] == pytest.approx(1)
    # Recollection before: rows 1 to 4; two are lost, none gained: p = 2 / 4.
    assert found["rates"]["recollection"]["mcnemar_p_value"] == pytest.approx(0.5)
    moves = {(each["before"], each["after"]): each["sequences"] for each in found["transitions"]}
    assert moves == {
        ("recitation", "recitation"): 1,
        ("recollection", "recitation"): 1,
        ("recollection", "not memorized"): 2,
        ("not memorized", "not memorized"): 1,
        ("not memorized", "reconstruction"): 1,
    }
    assert [row["sequence_id"] for row in found["newly_memorized"]] == [5]
    assert [row["sequence_id"] for row in found["forgotten"]] == [2, 3]
    table = pq.read_table(tmp_path / "out" / "compare.parquet")
    assert table.column("change").to_pylist() == ["kept", "kept", "lost", "lost", "never", "gained", None]
    page = (tmp_path / "out" / "index.html").read_text()
    assert "&lt;b&gt;text&lt;/b&gt; 5" in page
    assert "<b>" not in page


def test_command_and_its_errors(runs, tmp_path):
    done = CliRunner().invoke(app, ["compare", *map(str, runs), "--output", str(tmp_path / "out")], catch_exceptions=False)
    assert done.exit_code == 0
    assert done.output.startswith("No difference shown: 66.7% before, 50.0% after")
    other = write(tmp_path / "tokens", [True] * 7, shift=1)
    with pytest.raises(MemtaxError, match=r"7 shared ids .* different tokens \(first: sequence_id 0\)"):
        compare(runs[0], other, tmp_path / "x")
    apart = write(tmp_path / "apart", [True] * 2, ids=[100, 101])
    with pytest.raises(MemtaxError, match="share no sequence_id"):
        compare(runs[0], apart, tmp_path / "x")
    with pytest.raises(MemtaxError, match="is no finished run"):
        compare(runs[0], tmp_path / "nothing", tmp_path / "x")
    assert not (tmp_path / "x").exists()
