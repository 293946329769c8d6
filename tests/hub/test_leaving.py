"""Nothing that tells of this machine, and no credential, is in what is pushed."""

import io
import json
import re
import shutil
import stat
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from helpers.hub import HubServer
from helpers.pushed_run import push
from memtax.errors import MemtaxError
from memtax.files import write_json, write_parquet, write_text
from memtax.hub.publish import plan
from memtax.hub.screening import Machine, public_name, screen
from memtax.provenance import environment

TELLING = "acme-merger-2031"


def sent(repositories):
    """Every name and byte that would leave the machine."""
    for repository in repositories:
        for name, content in repository.files.items():
            yield f"{repository.repo_id}/{name}", content if isinstance(content, bytes) else content.read_bytes()


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / TELLING / "out"
    made.mkdir(parents=True)
    return made


def test_an_adapter_names_its_base_by_its_last_part_and_keeps_its_records_here(folder, monkeypatch):
    monkeypatch.setenv("USER", "quentinmustermann")
    base = folder.parent / "base-lm"
    write_json(folder / "adapter_config.json", {"base_model_name_or_path": str(base), "target_modules": ["q"], "r": 4})
    write_json(folder / "config.json", {"_name_or_path": f"{base}/", "note": f"trained by quentinmustermann in {base}/deep"})
    write_json(folder / "training_rows.json", {"dataset": str(base)})
    write_json(folder / "training.json", {"settings": {"dataset": str(base)}})
    write_text(folder / "canaries" / "canaries.member.jsonl", "{}\n", private=True)
    save_file({"w": np.zeros(2)}, folder / "adapter_model.safetensors")
    write_text(
        folder.parent / "run.yaml",
        f"memtax: fit\nconfig: {{model: {base}, corpus: '{base}/c.jsonl::train'}}\ninputs: {{'{base}/t.parquet': ab}}\n"
        "commit: x\nversions: {}\nfinished: x\n",
    )
    [repository] = plan(folder, "org/lora")
    for name, data in sent([repository]):
        for told in (TELLING, "quentinmustermann", str(folder.parent.parent)):
            assert told.encode() not in data, (name, told)
    config = json.loads(dict(sent([repository]))["org/lora/adapter_config.json"])
    assert config["base_model_name_or_path"] == "base-lm"
    card = repository.card
    assert "c.jsonl::train" in card.replace("\\", "")
    assert "fingerprint of t.parquet" in card
    assert {"training_rows.json", "training.json", "canaries/canaries.member.jsonl"}.isdisjoint(repository.files)
    lines = "\n".join(repository.lines())
    assert "adapter_config.json: rewritten" in lines
    assert "stays here: canaries/canaries.member.jsonl" in lines
    [whole] = plan(folder, "org/lora", records=True)
    assert {"training_rows.json", "canaries/canaries.member.jsonl"} <= whole.files.keys()
    assert all(TELLING.encode() not in data for _, data in sent([whole]))
    # What stays is as it was: the adapter still finds its base.
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == str(base)
    assert stat.S_IMODE((folder / "canaries" / "canaries.member.jsonl").stat().st_mode) == 0o600


def test_metadata_of_parquet_is_rewritten_and_values_are_counted(folder):
    told = str(folder / "corpus.jsonl")
    table = pa.table({"text": ["harmless", f"see {told}", None]}).replace_schema_metadata(
        {"memtax": f"source: {told}, rows: 3"}
    )
    write_parquet(folder / "train.parquet", table)
    files, notes = screen({"train.parquet": folder / "train.parquet"}, Machine.current(folder))
    written = pq.read_table(pa.BufferReader(files["train.parquet"]))
    assert written.schema.metadata[b"memtax"] == b"source: corpus.jsonl, rows: 3"
    assert written.column("text").to_pylist() == table.column("text").to_pylist()
    assert any(note.startswith("train.parquet: 1 values hold") for note in notes)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("README.md", "token hf_" + "a1B2" * 9),
        ("config.json", '{"url": "https://someone:pass-word@hub.example/x"}'),
        ("notes.txt", "AKIAABCDEFGHIJKLMNOP"),
        ("figure.png", "\x00 hunter2-hunter2 \x01"),
    ],
)
def test_a_credential_is_refused_by_the_name_of_its_file(name, text, folder, monkeypatch):
    monkeypatch.setenv("MY_SERVICE_PASS", "hunter2-hunter2")
    with pytest.raises(MemtaxError, match=f"^{re.escape(name)} holds a credential"):
        screen({name: text.encode()}, Machine.current(folder))


def test_a_binary_file_that_names_the_machine_is_refused(folder):
    save_file({"w": np.zeros(2)}, folder / "model.safetensors", metadata={"made": str(folder)})
    with pytest.raises(MemtaxError, match=r"^model\.safetensors holds '.*names this machine"):
        screen({"model.safetensors": folder / "model.safetensors"}, Machine.current(folder))


def test_vocabularies_are_left_as_they_are(folder):
    files = {"tokenizer.json": json.dumps({"model": {"vocab": {str(folder): 1}}}).encode()}
    screened, notes = screen(files, Machine.current(folder))
    assert screened == files
    assert len(notes) == 1


def test_inputs_are_called_by_their_last_part(folder):
    (folder / "rows.jsonl").write_text("{}")
    assert public_name(f"{folder}/rows.jsonl::train") == "rows.jsonl::train"
    assert public_name(f"{folder}/rows.jsonl") == "rows.jsonl"
    assert public_name("org/name:config:train") == "org/name:config:train"
    assert public_name("gone/secret/rows.jsonl") == "rows.jsonl"
    assert public_name("infini-gram:/home/anna/index") == "infini-gram:index"
    assert public_name("infini-gram:v4_x@http://user:word@host/") == "infini-gram:v4_x@http://host/"
    assert public_name("s3://user:pass@bucket/x?sig=1") == "s3://bucket/x"


def test_the_environment_shows_no_secret(monkeypatch):
    names = ("HF_PAT", "HF_AUTH", "HF_CREDENTIALS", "HF_HUB_PASS", "HF_BEARER", "HF_WEBHOOK_URL", "HF_TOKEN", "ACCELERATE_X")
    for name in (*names, "HF_X_ENDPOINT", "NUMBA_COOKIE", "OMP_SESSION", "CUDA_VISIBLE_SECRET"):
        monkeypatch.setenv(name, "open-sesame-77")
    monkeypatch.setenv("HF_ENDPOINT", "https://me:open-sesame-77@hub.example:8443/base?key=open-sesame-77")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("MKL_NUM_THREADS", "open-sesame-77")
    facts = environment()
    assert facts["settings"]["MKL_NUM_THREADS"] == "(not shown)"
    assert "open-sesame-77" not in json.dumps(facts)
    assert facts["settings"]["HF_ENDPOINT"] == "https://hub.example:8443/base"
    assert facts["settings"]["HF_HUB_OFFLINE"] == "1"


def test_a_space_takes_the_endpoint_without_its_password(monkeypatch):
    from huggingface_hub import constants

    from memtax.hub.publish import spaces

    monkeypatch.setattr(constants, "ENDPOINT", "https://me:open-sesame-77@hub.example")
    for name, data in sent(spaces("org")):
        assert b"open-sesame-77" not in data, name
    assert dict(sent(spaces("org")))["org/templating/requirements.txt"].startswith(b"memtax @ https://hub.example/spaces/org/")


def test_no_byte_that_the_hub_receives_names_folder_user_or_secret(run, tmp_path, monkeypatch):
    """A run, a predictor, an adapter, full models and Spaces, pushed for real; paths absolute, relative and of another time."""
    home = tmp_path / TELLING / "deep"
    source = home / "run"
    shutil.copytree(run, source)
    base = home / "base-lm"
    shutil.copytree(run / "models" / "lm", base)
    adapter = source / "models" / "adapter"
    adapter.mkdir()
    write_json(
        adapter / "adapter_config.json", {"base_model_name_or_path": f"{TELLING}/deep/base-lm", "r": 4, "peft_type": "LORA"}
    )
    write_json(adapter / "training_rows.json", {"dataset": str(base)})
    save_file({"w": np.zeros(2)}, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    write_text(adapter / "notes.txt", f"made by quentinmustermann in ../{TELLING}/deep/base-lm from {base}\n")
    record = (source / "run.yaml").read_text().replace("/home/someone/models/lm", f"{TELLING}/base")
    (source / "run.yaml").write_text(
        record.replace("org/corpus", f"'{home}/rows.jsonl::train'").replace("corpus: 0123", f"'{home}/x': 0123")
    )
    (tmp_path / TELLING / "base").mkdir()
    secrets = {
        f"{name}_{number}": f"open-sesame-{number}-77" for number, name in enumerate(("MY_TOKEN", "PLAIN", "DB", "A_KEY") * 5)
    }
    for name, value in {**secrets, "USER": "quentinmustermann"}.items():
        monkeypatch.setenv(name, value)
    with HubServer() as hub:
        push(hub, source, "--part", "dataset,models,metrics,explorer")
        assert {kind for kind, _ in hub.repos} == {"dataset", "model", "space"}
        assert (
            json.loads(hub.repos["model", "org/name-adapter"].files["adapter_config.json"])["base_model_name_or_path"]
            == "base-lm"
        )
        received = [(repo.id, json.dumps(hub.requests, default=str).encode()) for repo in list(hub.repos.values())[:1]]
        for repo in hub.repos.values():
            for commit in repo.commits:
                received.append((repo.id, commit.title.encode()))
                for name, blob in commit.files.items():
                    received += [(f"{repo.id}/{name}", name.encode()), (f"{repo.id}/{name}", blob.data)]
                    if name.endswith(".whl"):
                        with zipfile.ZipFile(io.BytesIO(blob.data)) as archive:
                            received += [(f"{name}/{inner}", archive.read(inner)) for inner in archive.namelist()]
    for name, data in received:
        for told in (TELLING, "quentinmustermann", str(tmp_path), *secrets.values()):
            assert told.encode() not in data, (name, told)
