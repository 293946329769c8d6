"""`filters:` of a run: a filter of the catalogue reaches predictor, report and card."""

import dataclasses
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import ClassVar

import pyarrow.parquet as pq
import pytest

from memtax import filters, schema
from memtax.errors import MemtaxError
from memtax.filters import Batch, CompressibilityFilter, Filter, TemplateFilter
from memtax.filters.compressibility import huffman_coding_length
from memtax.pipeline.further_filters import further_factors, with_further
from memtax.report.words import label


@dataclass(frozen=True)
class SpacesFilter(Filter):
    """Share of spaces in the text."""

    name: ClassVar[str] = "spaces"
    requires: ClassVar[tuple[str, ...]] = ("text",)
    columns: ClassVar[tuple[str, ...]] = ("spaces", "words_of_text")
    per: int = 1

    def compute(self, batch: Batch) -> Batch:
        counts = [text.count(" ") // self.per for text in batch["text"]]
        return {"spaces": counts, "words_of_text": [text.split(" ") for text in batch["text"]]}


COLUMNS = (
    schema.Column("spaces", "int64", "characters", "spaces in the text", role="variant", label="blanks", before_training=True),
    schema.Column("words_of_text", "list<string>", "text", "the text's words", role="text"),
)


@pytest.fixture
def catalogue(monkeypatch):
    """The catalogue with one more filter."""
    module = ModuleType("spaces_module")
    module.SpacesFilter = SpacesFilter
    monkeypatch.setitem(sys.modules, "spaces_module", module)
    monkeypatch.setitem(filters.CATALOGUE, "spaces", "spaces_module:SpacesFilter")
    for column in COLUMNS:
        monkeypatch.setitem(schema.COLUMNS, column.name, column)


def test_a_parameter_of_a_filter_reaches_predictor_report_and_card(finished):
    table = pq.read_table(finished.output / "dataset" / "features" / "train.parquet")
    name = "huffman_token_coding_length"
    assert table.column(name).to_pylist() == [huffman_coding_length(tokens) for tokens in table.column("tokens").to_pylist()]
    # The filter's other columns are in every run, as a factor or not.
    assert finished.figures["predictor"]["factors"][-1] == name
    assert "shannon_coding_length" not in finished.figures["predictor"]["factors"]
    assert name in {row["factor"] for row in finished.figures["correlations"]}
    for fit in finished.figures["fits"]["checkpoints"]:
        assert "reason" in fit or name in {row["factor"] for row in fit["coefficients"]}
    assert "huffman token coding length" in finished.page.read_text()
    assert f"`{name}`" in (finished.output / "dataset" / "README.md").read_text()
    assert name.replace("_", "\\_") in (finished.output / "models" / "predictor" / "README.md").read_text()


def test_columns_that_can_be_factors_are_factors(catalogue, config):
    config = dataclasses.replace(config, filters=("spaces", "templates"), set=("per=2",))
    own = [TemplateFilter(), CompressibilityFilter()]
    filters = with_further(config, own)
    assert [*map(repr, filters)] == [*map(repr, own), "SpacesFilter(per=2)"]
    assert further_factors(filters, own) == ("spaces",)
    assert label("spaces") == "blanks"


def test_columns_that_the_run_has_are_not_added_again(catalogue, config, monkeypatch):
    config = dataclasses.replace(config, filters=("spaces",), set=())
    for column in ("text", "template_period", "taxonomy", "is_memorized"):
        monkeypatch.setattr(SpacesFilter, "columns", (column,))
        with pytest.raises(MemtaxError, match=f"filters: spaces adds the column '{column}', which the run has already"):
            with_further(config, [TemplateFilter()])
    monkeypatch.setattr(SpacesFilter, "requires", ("is_memorized",))
    with pytest.raises(MemtaxError, match=r"the table of spaces \(before the models\) has no column 'is_memorized'"):
        with_further(config, [TemplateFilter()])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"filters": ("spces",)}, "unknown filter 'spces'; did you mean 'spaces'"),
        ({"filters": ("spaces",), "set": ("par=2",)}, "no filter among spaces has a parameter 'par'; they have: per"),
        ({"filters": ("spaces",), "set": ("per",)}, "--set expects NAME=VALUE, got 'per'"),
        ({"set": ("per=2",)}, "per=2 belongs to a filter, but `filters` is empty"),
        ({"filters": ("scores",)}, "scores is applied by the run itself; give its model with the key `model`"),
        ({"filters": ("duplicates",), "set": ("counts=x",)}, "filters read the counts of the run; give the key `counts`"),
    ],
)
def test_faults_are_named_before_anything_is_computed(catalogue, config, tmp_path, given, message):
    with pytest.raises(MemtaxError, match=message):
        dataclasses.replace(config, output=tmp_path / "run", **{"filters": (), "set": (), **given}).run()
    assert not (tmp_path / "run" / "sequences").exists()
