"""Pushing through the real client to a Hub on loopback, and loading in fresh processes with empty caches."""

import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from huggingface_hub import DatasetCard, ModelCard

from helpers.hub import TOKEN, HubServer
from helpers.processes import python
from helpers.pushed_run import HOME, ROWS, child, push, table


@pytest.fixture(scope="module")
def pushed(run, tmp_path_factory):
    """A server to which the run and the metric Spaces were pushed, and what the command printed."""
    with HubServer() as hub:
        parts = ("--part", "dataset", "--part", "models", "--part", "metrics", "--part", "explorer")
        yield hub, push(hub, run, *parts).stdout


def test_everything_is_there_and_nothing_else(pushed, run):
    hub, printed = pushed
    ids = {repo_id for _, repo_id in hub.repos}
    assert {"org/name", "org/name-predictor", "org/name-lm", "org/name-code", "org/membership_inference"} <= ids
    assert len(ids) == 4 + 9 + 1
    assert all(f"{hub.url}/datasets/org/name" in line for line in printed.splitlines()[:1])
    files = hub.repos["dataset", "org/name"].files
    assert set(files) == {".gitattributes", "README.md", "features/train.parquet", "num_duplicates/train.parquet"}
    assert files["features/train.parquet"] == (run / "dataset" / "features" / "train.parquet").read_bytes()
    model = hub.repos["model", "org/name-lm"].files
    # Neither pickles nor checkpoints.
    assert not [path for path in model if path.endswith(".bin") or "checkpoint" in path]
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= set(model)


def test_everything_loads_in_a_fresh_process_and_equals_what_was_pushed(pushed, run, tmp_path):
    hub, _ = pushed
    np.save(tmp_path / "rows.npy", np.arange(ROWS))
    program = f"""
import sys, json
import pyarrow.parquet as pq
from datasets import load_dataset
whole = load_dataset("org/name", "features", split="train")
here = pq.read_table({str(run / "dataset" / "features" / "train.parquet")!r})
here_rows = here.column("text").to_pylist()
assert whole.data.table.cast(here.schema).equals(here)
assert whole.features["taxonomy"].int2str(2) == "recollection"
streamed = list(load_dataset("org/name", "features", split="train", streaming=True))
assert streamed == list(whole)
assert len(load_dataset("org/name", "num_duplicates", split="train[:10]")) == 10
from memtax import Predictor
there = Predictor.from_pretrained("org/name-predictor").predict(here)
assert there.equals(Predictor.from_pretrained({str(run / "models" / "predictor")!r}).predict(here))
from transformers import AutoModelForCausalLM, AutoTokenizer
loaded = AutoModelForCausalLM.from_pretrained("org/name-lm").state_dict()
local = AutoModelForCausalLM.from_pretrained({str(run / "models" / "lm")!r}).state_dict()
assert all(loaded[name].equal(local[name]) for name in local)
assert AutoTokenizer.from_pretrained("org/name-lm")("a b")["input_ids"] == [1, 2]
from transformers import pipeline
there, here = (pipeline("text-classification", name) for name in ("org/name-code", {str(run / "models" / "code")!r}))
assert there("the def x") == here("the def x") and there("x")[0]["label"] in ("nl", "code")
from memtax.report.explorer import Explorer
explorer = Explorer.load("org/name")
assert explorer.rows()[0] == {ROWS} and explorer.details(5)["text"] == here_rows[5]
import evaluate
metric = evaluate.load("org/membership_inference")
print(json.dumps(metric.compute(predictions=[0.9, 0.8, 0.7, 0.2], references=[1, 0, 1, 0])["auroc"]))
"""
    # Three pairs of four are in order.
    assert child(hub, tmp_path / "cache", "-c", program).stdout.strip().splitlines()[-1] == "0.75"


def test_cards_are_complete(pushed):
    hub, _ = pushed
    for (kind, repo_id), repo in hub.repos.items():
        text = repo.files["README.md"].decode()
        for placeholder in ("path/or/name", "{{", "TODO", "More Information", "<!-- here", "/home/someone"):
            assert placeholder not in text, (repo_id, placeholder)
        card = (DatasetCard if kind == "dataset" else ModelCard)(text)
        # huggingface_hub reads the front matter and writes the same again.
        assert (DatasetCard if kind == "dataset" else ModelCard)(str(card)).data.to_dict() == card.data.to_dict()
        if kind != "space":
            assert card.data.license == "mit"
            assert "0123abcd" in text
            assert "@article" in text
    model = ModelCard(hub.repos["model", "org/name-predictor"].files["README.md"].decode())
    assert model.data.datasets == ["org/name"]
    assert "roc_auc" in {result.metric_type for result in model.data.eval_results}
    assert all(result.metric_value >= 0 for result in model.data.eval_results)
    from memtax import schema

    text = hub.repos["dataset", "org/name"].files["README.md"].decode()
    for name in table().column_names:
        assert schema.column(name).meaning in text


def test_a_space_installs_the_very_code_from_its_own_repository(pushed, tmp_path):
    hub, _ = pushed
    files = hub.repos["space", "org/coding_length"].files
    requirement = files["requirements.txt"].decode()
    name = next(path for path in files if path.endswith(".whl"))
    assert requirement == f"memtax @ {hub.url}/spaces/org/coding_length/resolve/main/{name}\n"
    (tmp_path / "requirements.txt").write_text(requirement)
    pip = (
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--no-index",
        "--isolated",
        "--no-compile",
        "--quiet",
        "--disable-pip-version-check",
    )
    child(hub, tmp_path / "cache", *pip, "--target", str(tmp_path / "site"), "-r", str(tmp_path / "requirements.txt"))
    program = f"""
import sys
sys.path.insert(0, {str(tmp_path / "site")!r})
import evaluate, memtax
path = memtax.metric_path("coding_length")
assert path.startswith({str(tmp_path / "site")!r}), path
print(evaluate.load(path).compute(predictions=["aab"])["huffman_coding_length"])
"""
    # Two symbols, one bit each.
    assert child(hub, tmp_path / "cache", "-c", program).stdout.strip() == "1.0"
    assert "memtax/_assets/training/train_lm.py" in str(sorted((tmp_path / "site").rglob("train_lm.py")))


def test_pushing_again_changes_nothing(pushed, run, tmp_path):
    hub, _ = pushed
    before = {key: len(repo.commits) for key, repo in hub.repos.items()}
    printed = push(hub, run).stdout
    assert printed.count("(up to date)") == 4
    assert {key: len(repo.commits) for key, repo in hub.repos.items()} == before


def test_published_layout(run, tmp_path):
    import pyarrow.parquet as pq

    rng = np.random.default_rng(3)
    ours = pa.table(
        {
            "sequence_id": [1, 2, 3],
            "tokens": pa.array(rng.integers(1, 9, (3, 64)).tolist(), pa.list_(pa.int32())),
            "text": ["a", "b", "c"],
            "sequence_duplicates": [1, 7, 2],
            "is_incrementing": [False] * 3,
            "is_repeating": [False] * 3,
            "shannon_coding_length": [1.0, 2.0, 3.0],
            "semantic_matches_0_8": [0, 3, 1],
            "prompt_perplexity": pa.array([2.0, 4.0, None], pa.float64()),
            "continuation_perplexity": [3.0, 1.5, 8.0],
            "is_memorized": [True, False, True],
        }
    )
    from memtax.published.reading import from_published
    from memtax.published.writing import published_files, to_published

    # 63 scored tokens, 31 of them in the prompt and 32 after it.
    theirs = to_published(ours, in_sample=True)
    assert theirs.column("prompt_perplexity").to_pylist() == pytest.approx([2 ** (31 / 63), 4 ** (31 / 63), None])
    assert theirs.column("generation_perplexity")[0].as_py() == pytest.approx(3 ** (32 / 63))
    assert theirs.column("0_8_snowclones").to_pylist() == [1, 4, 2]
    assert theirs.column("huffman_coding_length").to_pylist() == [1.0, 2.0, 3.0]
    again = from_published(theirs, in_sample=True)
    for name in ("semantic_matches_0_8", "shannon_coding_length", "prompt_perplexity", "continuation_perplexity"):
        assert again.column(name).to_pylist() == pytest.approx(ours.column(name).to_pylist())
    files = published_files("deduped_tiny", ours, "title", "mit")
    assert set(files) == {"README.md", "data/pile_deduped_tiny.parquet", "data/memories_deduped_tiny.parquet"}
    assert pq.read_table(pa.BufferReader(files["data/memories_deduped_tiny.parquet"])).column("sequence_id").to_pylist() == [
        1,
        3,
    ]
    with HubServer() as hub:
        hub.add("dataset", "org/name", files)
        program = """
from datasets import load_dataset
from memtax.predictor.source_tables import read_table
assert len(load_dataset("org/name", split="memories_deduped_tiny")) == 2
assert read_table("org/name:default:pile_deduped_tiny").column("semantic_matches_0_8").to_pylist() == [0, 3, 1]
"""
        child(hub, tmp_path, "-c", program)
        # The run's sequences have no tokens.
        done = push(hub, run, "--published", "deduped_tiny", check=False)
        assert done.returncode == 2
        assert "no column 'tokens'" in done.stderr


def test_published_splits_are_read_back_as_they_were(tmp_path):
    import pyarrow.parquet as pq

    from memtax.errors import MemtaxError
    from memtax.filters import filter_class
    from memtax.published.layouts import CODE_SCORES, MATCHES
    from memtax.published.writing import match_splits, write_splits

    ours = pa.table(
        {
            "sequence_id": [4, 9],
            "semantic_matches_0_8": [3, None],
            "semantic_matches_0_9": [0, None],
            "textual_matches_0_8": [2, None],
            "textual_matches_0_9": [0, None],
        }
    )
    folder = tmp_path / "matches"
    for name in ("deduped", "deduped_12b"):
        write_splits(folder, MATCHES, match_splits(ours, name), "title", {"sequences": name})
    # A whole corpus is its own sample, so that its sequences count themselves; memorized ones are compared with another.
    files = {path.stem: pq.read_table(path).to_pydict() for path in (folder / "data").iterdir()}
    assert files["deduped_snowclones"] == {"index": [4, 9], "0.8_frequencies": [4, None], "0.9_frequencies": [1, None]}
    assert files["deduped_12b_snowclones"]["0.8_frequencies"] == [3, None]
    assert files["deduped_templates"] == {"index": [4, 9], "0.8_frequencies": [2, None], "0.9_frequencies": [0, None]}
    batch = {"sequence_id": [9, 4, 5], "text": ["a", "b", "c"], "prompt_text": ["a", "b", "c"]}
    for name in ("deduped", "deduped_12b"):
        for kind, split in (("semantic", "snowclones"), ("textual", "templates")):
            found = filter_class(f"{kind}_matches")(f"{folder}::{name}_{split}")(batch)
            assert found[f"{kind}_matches_0_8"] == [None, ours.column(f"{kind}_matches_0_8")[0].as_py(), None]
    with pytest.raises(
        MemtaxError, match="does not contain semantic matches; they are in the splits that end with _snowclones"
    ):
        filter_class("semantic_matches")(f"{folder}::deduped_templates")(batch)
    # Another run into the same folder changes nothing; a table of another kind does not fit in.
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    write_splits(folder, MATCHES, match_splits(ours, "deduped"), "title", {"sequences": "deduped"})
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert "taxonomy" not in (folder / "README.md").read_text().split("```")[0]
    with pytest.raises(MemtaxError, match="other columns"):
        write_splits(folder, CODE_SCORES, {"deduped": pa.table({"sequence_id": [1], "nl_scores": [0.5]})}, "title", {})


def test_dry_run_shows_all_and_asks_nothing(run, tmp_path):
    with HubServer() as hub:
        printed = push(hub, run, "--dry-run", token=None).stdout
        assert hub.requests == []
    for expected in ("dataset org/name:", "features/train.parquet", "model org/name-lm:", "pretty_name", "Provenance"):
        assert expected in printed


@pytest.mark.parametrize("kind", [503, 429, "drop"])
def test_a_broken_upload_goes_on_where_it_was(run, tmp_path, kind):
    with HubServer() as hub:
        # One file is up, the next ones and the commit fail more often than the client itself tries again.
        hub.fail("PUT", "/lfs/", kind, times=1)
        hub.fail("POST", "/commit/", kind, times=1)
        # Here the client reads the answer before it looks at its status.
        hub.fail("POST", "/validate-yaml", kind, times=1)
        push(hub, run / "dataset")
        files = hub.repos["dataset", "org/name"].files
        assert files["features/train.parquet"] == (run / "dataset" / "features" / "train.parquet").read_bytes()
        # The initial commit and ours; each large file went up once, failures aside.
        assert len(hub.repos["dataset", "org/name"].commits) == 2
        assert hub.count("PUT", "/lfs/") == 2 + 1


@pytest.mark.parametrize("kinds", [(409, 412), ("lost",)])
def test_a_commit_that_another_one_overtook_or_whose_answer_was_lost_is_made_once(run, tmp_path, kinds):
    with HubServer() as hub:
        for kind in kinds:
            hub.fail("POST", "/commit/", kind)
        done = push(hub, run / "dataset")
        assert done.stdout.count("trying again") == len(kinds)
        # The initial commit and ours; what was uploaded before the refusal is not sent again.
        assert len(hub.repos["dataset", "org/name"].commits) == 2
        assert hub.count("PUT", "/lfs/") == 2
        assert set(hub.repos["dataset", "org/name"].files) >= {"README.md", "features/train.parquet"}


def test_what_an_older_push_left_is_removed_and_the_users_own_files_stay(run, tmp_path):
    with HubServer() as hub:
        hub.add("dataset", "org/name", {"old/train.parquet": b"PAR1", "notes.md": b"mine", ".gitattributes": b""})
        push(hub, run / "dataset")
        files = hub.repos["dataset", "org/name"].files
        assert "old/train.parquet" not in files
        assert files["notes.md"] == b"mine"


def test_a_private_space_holds_memtax_itself(tmp_path):
    from packaging.requirements import Requirement

    from memtax.hub import publish

    (space,) = [one for one in publish.spaces("org", private=True) if one.repo_id == "org/templating"]
    needed = {Requirement(line).name for line in space.files["requirements.txt"].decode().splitlines()}
    # What metrics need: the core, without the extras.
    assert {"datasets", "evaluate"} <= needed
    assert not {"transformers", "torch"} & needed
    explorer = publish._installation("org/run", True, "lm")["requirements.txt"].decode().splitlines()
    assert {Requirement(line).name for line in explorer} == needed | {"accelerate", "httpx", "peft", "torch", "transformers"}
    assert not [line for line in explorer if Requirement(line).marker]
    assert not needed & {"memtax", "pytest", "pyspark"}
    assert not [name for name in space.files if name.endswith(".whl")]
    for name, content in space.files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    # As the Space starts: in its own folder, where it finds memtax with the files that belong to it.
    program = "import memtax.hub.space; print(memtax.__file__, memtax.metric_path('templating'))"
    done = python("-c", program, env={**os.environ, "PYTHONPATH": ""}, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    package, metric = done.stdout.split()
    assert Path(package).parent == tmp_path / "memtax"
    assert Path(metric).is_relative_to(tmp_path / "memtax")


def test_private(run, tmp_path):
    with HubServer() as hub:
        push(hub, run / "dataset", "--private")
        assert hub.repos["dataset", "org/name"].private
        program = "from huggingface_hub import HfApi; HfApi().repo_info('org/name', repo_type='dataset')"
        assert "RepositoryNotFoundError" in child(hub, tmp_path / "n", "-c", program, token=None, check=False).stderr
        hub.repos["dataset", "org/name"].private = False
        done = push(hub, run / "dataset", "--private", check=False)
        assert done.returncode == 2
        assert "exists and is public" in done.stderr


@pytest.mark.parametrize(
    ("options", "token", "message"),
    [
        (("--repo-id", "org/name"), None, "run `hf auth login` or set HF_TOKEN"),
        (("--repo-id", "org/name"), "hf_wrong_secret", "run `hf auth login` or set HF_TOKEN"),
        (("--repo-id", "elsewhere/name"), TOKEN, "may write to that namespace"),
        (("--repo-id", "name"), TOKEN, "has no account; write org/name"),
        (("--repo-id", "org/na me"), TOKEN, "not a valid name for the Hub"),
        (("--repo-id", "org/name", "--part", "x"), TOKEN, "--part expects one of dataset, models, metrics, explorer, got 'x'"),
    ],
)
def test_errors_are_one_line_and_tell_no_token(run, tmp_path, options, token, message):
    with HubServer() as hub:
        done = child(hub, Path(HOME.name), "-m", "memtax", "push", str(run / "dataset"), *options, token=token, check=False)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert token is None or token not in done.stderr + done.stdout


def test_a_server_that_stays_down_is_said_in_one_line(run, tmp_path):
    with HubServer() as hub:
        hub.fail("POST", "/commit/", 503, times=99)
        done = push(hub, run / "dataset", check=False)
        assert done.returncode == 2
        assert "run the command again to go on" in done.stderr.splitlines()[-1]
        hub.faults.clear()
        uploads = hub.count("PUT", "/lfs/")
        push(hub, run / "dataset")
        # Nothing is sent a second time.
        assert hub.count("PUT", "/lfs/") == uploads
        assert "features/train.parquet" in hub.repos["dataset", "org/name"].files


def test_a_folder_without_anything_to_publish(tmp_path):
    with HubServer() as hub:
        done = push(hub, tmp_path, check=False)
    assert done.returncode == 2
    assert "neither a run directory nor a folder" in done.stderr


def test_the_guard_guards(tmp_path):
    program = "import socket; socket.create_connection(('192.0.2.1', 80), 1)"
    with HubServer() as hub:
        assert "a test tried to" in child(hub, Path(HOME.name), "-c", program, check=False).stderr


def test_ranges_etags_and_revisions(tmp_path):
    with HubServer() as hub:
        hub.add("model", "org/m", {"a.bin": bytes(range(100)), "b.txt": b"one"})
        hub.add("model", "org/m", {"b.txt": b"two"})
        first, second = (commit.oid for commit in hub.repos["model", "org/m"].commits)
        program = f"""
import json
from pathlib import Path
from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import EntryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils import get_session
api = HfApi()
assert Path(hf_hub_download("org/m", "b.txt")).read_text() == "two"
assert Path(hf_hub_download("org/m", "b.txt", revision={first!r})).read_text() == "one"
part = get_session().get(hf_hub_url("org/m", "a.bin", revision={first!r}), headers={{"Range": "bytes=10-19"}})
assert part.status_code == 206 and part.content == bytes(range(10, 20))
metadata = get_hf_file_metadata(hf_hub_url("org/m", "b.txt"))
assert metadata.commit_hash == {second!r}
api.create_branch("org/m", branch="side", revision={first!r})
api.create_tag("org/m", tag="v1", revision={first!r})
assert {{ref.name for ref in api.list_repo_refs("org/m").branches}} == {{"main", "side"}}
assert [entry.path for entry in api.list_repo_tree("org/m", revision="v1")] == ["a.bin", "b.txt"]
for revision, name, error in (("nope", "b.txt", RevisionNotFoundError), ("main", "nope", EntryNotFoundError)):
    try:
        hf_hub_download("org/m", name, revision=revision)
    except error:
        continue
    raise AssertionError(name)
assert api.whoami()["name"] == "tester"
"""
        child(hub, tmp_path, "-c", program)
        assert json.loads(json.dumps(hub.requests))


def test_a_dataset_script_pushes_what_loads(tmp_path):
    from memtax.files import asset

    np.save(tmp_path / "a.npy", np.array([[1, 2], [2, 3], [3, 3]], np.uint16))
    (tmp_path / "memorized.jsonl").write_text('{"index": 2}\n')
    script = asset("dataset_scripts/num_frequencies.py")
    with HubServer() as hub:
        options = ("--memorized", str(tmp_path / "memorized.jsonl"), "--output", str(tmp_path / "out"), "--push", "org/counts")
        child(hub, tmp_path / "cache", str(script), str(tmp_path / "a.npy"), *options)
        # Row 2 is memorized: its tokens (3, 3); the others hold 1 once, 2 twice and 3 once.
        program = """
from datasets import load_dataset
for split, expected in (("memorized", {3: 2}), ("non_memorized", {1: 1, 2: 2, 3: 1})):
    rows = load_dataset("org/counts", split=split)
    assert {row["TokenID"]: row["Frequency"] for row in rows if row["Frequency"]} == expected, list(rows)
"""
        child(hub, tmp_path / "fresh", "-c", program)
