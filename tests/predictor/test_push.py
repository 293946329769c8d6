"""`push_to_hub` and `from_pretrained` by name, against a small Hub on the loopback interface."""

import pytest

from helpers import simulated
from helpers.hub import HubServer
from helpers.processes import python
from memtax.errors import MemtaxError
from memtax.predictor.predictor import Predictor


@pytest.fixture
def hub():
    with HubServer() as server:
        yield server


def child(code, hub, home):
    """Run code in a process that may talk to the loopback Hub: the tests themselves are offline."""
    return python("-c", code, env=hub.environment(home))


def test_push_and_load_by_name(hub, tmp_path):
    predictor = Predictor.fit(simulated.table(rows=1500), factors=("a", "b"), resamples=20)
    predictor.save_pretrained(tmp_path / "local")
    code = f"""
from memtax import Predictor
from memtax.errors import MemtaxError
url = Predictor.from_pretrained({str(tmp_path / "local")!r}).push_to_hub("org/predictor")
assert "/org/predictor/commit/" in url, url
Predictor.from_pretrained("org/predictor").save_pretrained({str(tmp_path / "again")!r})
try:
    Predictor.from_pretrained("org/absent")
except MemtaxError as error:
    print(error)
"""
    done = child(code, hub, tmp_path / "home")
    assert done.returncode == 0, done.stderr
    assert "org/absent is neither a folder nor a predictor on the Hub" in done.stdout
    files = hub.repos["model", "org/predictor"].files
    assert set(files) == {".gitattributes", "README.md", "model.safetensors", "predictor.json"}
    for name in ("model.safetensors", "predictor.json"):
        content = (tmp_path / "local" / name).read_bytes()
        assert files[name] == content
        assert (tmp_path / "again" / name).read_bytes() == content
    assert b"path/or/name" not in files["README.md"]


def test_no_hub_is_one_line(tmp_path):
    predictor = Predictor.fit(simulated.table(rows=1500), factors=("a", "b"), resamples=20)
    # The tests run offline.
    with pytest.raises(MemtaxError, match="org/predictor cannot be pushed"):
        predictor.push_to_hub("org/predictor")
    with pytest.raises(MemtaxError, match="cannot be pushed"):
        predictor.push_to_hub("no name/at all/of this kind")
