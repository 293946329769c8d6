"""What every catalogued filter must do, by walking the catalogue."""

import dataclasses
import pickle
import re
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pytest

from helpers import catalogue
from memtax import schema
from memtax.engine import run
from memtax.errors import MemtaxError
from memtax.filters import CATALOGUE, filter_class
from memtax.provenance import fingerprint_path


@pytest.fixture(scope="module")
def rows() -> datasets.Dataset:
    return catalogue.rows()


@pytest.fixture(scope="module")
def built(tmp_path_factory, rows) -> dict:
    return catalogue.build(tmp_path_factory.mktemp("inputs"), rows)


@pytest.fixture(params=list(CATALOGUE))
def each(request, built):
    return built[request.param]


def test_the_name_is_the_catalogue_name_and_columns_are_declared(each):
    assert CATALOGUE[each.name].endswith(f":{type(each).__name__}")
    assert set(each.features) == set(each.columns) <= set(schema.COLUMNS)
    assert set(each.requires) <= set(schema.COLUMNS)
    assert isinstance(each.version, int)


def test_the_class_explains_itself(each):
    assert each.__doc__
    assert not each.__doc__.startswith(type(each).__name__ + "(")
    for field in dataclasses.fields(each):
        assert field.name in each.__doc__, field.name


def test_it_has_a_test_file_of_its_own(each):
    module = Path(CATALOGUE[each.name].split(":")[0].replace(".", "/")).name
    assert (Path(__file__).parent / f"test_{module}.py").exists()


def test_it_is_frozen(each):
    with pytest.raises(dataclasses.FrozenInstanceError):
        each.anything = 1


def test_batches_of_any_size_give_the_same(each, rows):
    whole = each(rows[:])
    for size in (1, 7):
        parts = [each(rows[start : start + size]) for start in range(0, len(rows), size)]
        joined = {name: [value for part in parts for value in part[name]] for name in each.columns}
        for name in each.columns:
            if schema.COLUMNS[name].dtype in ("float32", "list<float32>"):
                np.testing.assert_allclose(joined[name], whole[name], rtol=1e-5, atol=1e-5)
            else:
                assert joined[name] == whole[name], name


def test_an_empty_batch_gives_empty_columns(each):
    assert each({name: [] for name in each.requires}) == {name: [] for name in each.columns}


def test_map_apply_and_engine_agree(each, rows, tmp_path):
    direct = each(rows[:])
    mapped = rows.map(each, batched=True, batch_size=len(rows), features=datasets.Features({**rows.features, **each.features}))
    applied = each.apply(rows, batch_size=len(rows))
    engine = run(rows, each, tmp_path / "out", rows_per_batch=len(rows))
    expected = pa.table({name: direct[name] for name in each.columns}, schema=schema.arrow_schema(each.columns))
    for name in each.columns:
        for table in (mapped.with_format("arrow")[:], applied.with_format("arrow")[:], engine):
            assert table.column(name).combine_chunks() == expected.column(name).combine_chunks()


def test_a_missing_column_is_named(each):
    with pytest.raises(MemtaxError, match=re.escape(repr(each.requires[0]))):
        each({"other": [1]})


def test_it_travels_light_and_keeps_its_fingerprint(each):
    sent = pickle.dumps(each)
    assert len(sent) < 2000
    received = pickle.loads(sent)
    assert received == each
    assert received.fingerprint == each.fingerprint


def test_the_version_is_part_of_the_fingerprint(each):
    newer = type("Newer", (type(each),), {"version": each.version + 1})
    fields = {field.name: getattr(each, field.name) for field in dataclasses.fields(each)}
    assert newer(**fields).fingerprint != each.fingerprint


def test_input_files_enter_by_their_content(built, tmp_path):
    import shutil

    one = built["duplicates"]
    shutil.copytree(one.counts, tmp_path / "moved")
    moved = dataclasses.replace(one, counts=str(tmp_path / "moved"))
    assert moved.fingerprint == one.fingerprint
    file = next((tmp_path / "moved").glob("num_duplicates*"))
    file.write_bytes(file.read_bytes() + b" ")
    assert moved.fingerprint != one.fingerprint
    assert fingerprint_path(one.counts) != fingerprint_path(tmp_path / "moved")


def test_an_unknown_filter_is_refused_with_a_suggestion():
    with pytest.raises(MemtaxError, match="did you mean 'templates'"):
        filter_class("template")
