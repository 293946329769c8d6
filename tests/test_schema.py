"""The columns: declared once, types, checks."""

import ast
import re
from pathlib import Path

import pyarrow as pa
import pytest

from memtax import schema
from memtax.errors import MemtaxError


def test_every_column_has_a_type_that_arrow_and_datasets_share():
    names = list(schema.COLUMNS)
    assert schema.features(names).arrow_schema.types == schema.arrow_schema(names).types


def test_every_column_says_what_it_means():
    for column in schema.COLUMNS.values():
        assert column.unit
        assert column.meaning
        assert column.null


def test_published_names_lead_to_names_that_are_not_published_ones():
    for ours in schema.PUBLISHED.values():
        assert ours not in schema.PUBLISHED or ours == "shannon_coding_length"


def test_validate_casts_safely_and_selects():
    table = pa.table({"sequence_id": pa.array([1, 2], pa.int32()), "other": ["a", "b"]})
    checked = schema.validate(table, ["sequence_id"])
    assert checked.schema == schema.arrow_schema(["sequence_id"])
    assert checked.column("sequence_id").to_pylist() == [1, 2]


@pytest.mark.parametrize(
    ("table", "names", "message"),
    [
        ({"sequence_idd": [1]}, ["sequence_id"], "did you mean 'sequence_idd'"),
        ({"Tokens": [[1]]}, ["tokens"], "did you mean 'Tokens'"),
        ({"generation_perplexity": [1.0]}, ["continuation_perplexity"], "did you mean 'generation_perplexity'"),
        ({"sequence_id": [1.5]}, ["sequence_id"], "double, not int64"),
        ({"sequence_id": ["a"]}, ["sequence_id"], "string, not int64"),
        ({"sequence_id": [1, None]}, ["sequence_id"], "null in row 1"),
        ({"tokens": [["a"]]}, ["tokens"], "column 'tokens'"),
        ({}, ["tokens"], "no columns"),
        ({"x": [1]}, ["x"], "unknown column 'x'"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_by_name(table, names, message):
    with pytest.raises(MemtaxError, match=message):
        schema.validate(pa.table(table), names)


def test_the_recitation_threshold_is_written_once():
    root = Path(__file__).parent.parent
    repeated = []
    for path in sorted(file for folder in ("memtax", "metrics", "training") for file in (root / folder).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in (node for node in ast.walk(tree) if isinstance(node, ast.arguments)):
            named = [*zip(reversed([*node.posonlyargs, *node.args]), reversed(node.defaults), strict=False)]
            named += zip(node.kwonlyargs, node.kw_defaults, strict=True)
            values = [value for name, value in named if "threshold" in name.arg and isinstance(value, ast.Constant)]
            repeated += [path.name for value in values if value.value == schema.RECITATION_THRESHOLD]
    pages = [*(root / "docs").rglob("*.md"), *(root / "metrics").rglob("*.md"), *(root / "model_cards").glob("*.j2")]
    words = (
        rf"more than {schema.RECITATION_THRESHOLD} (times|occurrences|duplicates)|Defaults to {schema.RECITATION_THRESHOLD}\."
    )
    repeated += [path.name for path in pages if re.search(words, path.read_text(encoding="utf-8"))]
    assert not repeated
