"""What the core of the installation does without the extras, and what it says about them."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import memtax
from memtax import extras
from memtax.errors import MissingExtraError

CORE = """
import json, sys

blocked = set(json.loads(sys.argv[1]))

class Without:  # in place of the finders, so that find_spec returns None as for a package that is not installed
    def __init__(self, finders):
        self.finders = finders

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            return None
        return next((found for each in self.finders if (found := each.find_spec(name, path, target))), None)

    def find_distributions(self, *given, **named):
        for each in self.finders:
            if hasattr(each, "find_distributions"):
                yield from each.find_distributions(*given, **named)

    def invalidate_caches(self):
        pass

sys.meta_path[:] = [Without(list(sys.meta_path))]
import memtax
from memtax import cli
assert not {"datasets", "numpy", "pyarrow"} & set(sys.modules), "importing memtax must be quick"
sys.argv[:] = ["memtax", "--help"]
try:
    cli.main()
except SystemExit as ended:
    assert not ended.code
assert not {"datasets", "numpy", "pyarrow"} & set(sys.modules), "help must be quick"

import datasets
from memtax.filters import TemplateFilter
from memtax.statistics import clopper_pearson
rows = datasets.Dataset.from_dict({"text": ["item 1, item 2, item 3, item 4, item 5,", "x"], "input_ids": [[1, 2, 1, 2]] * 2})
mapped = rows.map(TemplateFilter(), batched=True)
assert mapped["is_incrementing"][0]
assert clopper_pearson(1, 2).value == 0.5
rows.to_parquet("rows.parquet")
counts = memtax.count(corpus=("rows.parquet",), column="input_ids", window=("0:2",), output="counts")
assert counts.table("num_duplicates").column("sequence_duplicates").to_pylist() == [4, 4]
memtax.write(mapped, "mapped")
assert memtax.metrics.k_extractability([[1, 2]], [[1, 2]])["k_extractable"] == 1
assert memtax.metrics.templating(rows["text"])["templated"] == 0.5
assert "torch" not in sys.modules
if "torch" in blocked:  # what `fit` records
    from memtax.lm.loading import settled_dtype
    assert settled_dtype("auto") == "float32"
# It lists the accelerators.
assert memtax.env().figures["versions"]["memtax"] == memtax.__version__
"""


# The Hub's client of some versions brings httpx.
EXTRA = [module for modules in extras.EXTRAS.values() for module in modules if module != "httpx"]


@pytest.mark.parametrize("blocked", [[], EXTRA])
def test_the_core_needs_no_extra_and_never_imports_torch(blocked, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", CORE, json.dumps(blocked)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_missing_extra_is_one_line_with_its_command(monkeypatch):
    monkeypatch.setitem(extras.EXTRAS, "lm", ("no_such_module_of_lm",))
    monkeypatch.setitem(extras._OF_MODULE, "no_such_module_of_lm", "lm")
    line = r"needs no_such_module_of_lm, which is not installed; pip install 'memtax\[lm\]'$"
    with pytest.raises(MissingExtraError, match=f"^memtax score {line}"):
        memtax.score(sequences="x", model="y", output="z")
    with pytest.raises(MissingExtraError, match=f"^this {line}"), extras.explained():
        import no_such_module_of_lm  # noqa: F401
    # A module that no extra installs keeps its own error.
    with pytest.raises(ModuleNotFoundError) as caught, extras.explained():
        import no_such_module  # noqa: F401
    assert not isinstance(caught.value, MissingExtraError)


def test_every_extra_is_declared():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert len(project["dependencies"]) <= 12
    assert set(extras.EXTRAS) <= set(project["optional-dependencies"])
    (everything,) = project["optional-dependencies"]["all"]
    assert set(everything.removeprefix("memtax[").removesuffix("]").split(",")) == set(extras.EXTRAS)


def test_what_is_imported_is_installed_by_the_core_or_belongs_to_an_extra():
    import ast
    from importlib import metadata

    from packaging.requirements import Requirement

    def closure(names):
        known, todo = set(), list(names)
        while todo:
            if (name := todo.pop().lower().replace("_", "-")) in known:
                continue
            known.add(name)
            wanted = map(Requirement, metadata.requires(name) or ())
            todo += [each.name for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""})]
        return known

    modules = set()
    for path in Path(memtax.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {each.name.partition(".")[0] for each in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                modules.add(node.module.partition(".")[0])
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    core = closure(Requirement(line).name for line in project["dependencies"])
    of_module = {
        module: {each.lower().replace("_", "-") for each in names}
        for module, names in metadata.packages_distributions().items()
    }
    third = modules - set(sys.stdlib_module_names) - {"memtax"} - set(extras._OF_MODULE)
    # It comes with PyTorch where there is a GPU that it compiles for.
    missing = {
        name for name in third - {"triton"} if not core & {each.lower().replace("_", "-") for each in of_module.get(name, ())}
    }
    assert not missing


def test_a_missing_parameter_of_a_filter_is_named_with_what_gives_it():
    from memtax.errors import MemtaxError
    from memtax.filters import make_filters

    with pytest.raises(MemtaxError, match=r"needs 'counts'; give it with --counts VALUE$"):
        make_filters(["duplicates"], {})
