"""Publishing a run's dataset, models, and metric Spaces, each with a complete card."""

import email
import io
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from memtax.checksums import verify
from memtax.errors import MemtaxError
from memtax.files import asset
from memtax.hub.cards import finish, render, split
from memtax.hub.figures import run_figures
from memtax.hub.model_index import classifier_index, extraction_index, predictor_index
from memtax.hub.models import adapter_card, is_adapter, language_model_card
from memtax.hub.screening import CANARIES, STAYS, Machine, public_url, screen
from memtax.hub.upload import Pushed, Repository, folder_files, push
from memtax.provenance import versions
from memtax.record_shapes import MEASURED
from memtax.records import read_run, read_text
from memtax.results import SUMMARY, read_summary

Layout = Callable[[Any, str, str | None], dict[str, bytes]]
"""Features (a `pyarrow.Table`), title and license to the files of a dataset repository, with its card."""
PARTS = ("dataset", "models", "metrics", "explorer")
_APP = '''"""The explorer of {dataset}."""

from memtax.report.explorer import Explorer
from memtax.report.explorer_app import page

demo = page(Explorer.load("{dataset}"))

if __name__ == "__main__":
    demo.launch()
'''
MODEL_FILES = ("*.json", "*.safetensors", "*.txt", "*.jinja", "*.model", "README.md", "figures/*.png", "figures/*.svg")
"""Excluded files of a model folder: checkpoints, optimizer states and pickles stay local."""
_SDK = "6.31.0"
"""Gradio version with which the Spaces were tested."""


def publish(
    source: Path | str,
    repo_id: str,
    parts: Sequence[str] = ("dataset", "models"),
    *,
    private: bool | None = None,
    dry_run: bool = False,
    published: Layout | None = None,
    records: bool = False,
) -> Iterator[Repository | Pushed]:
    """Push the repositories of `plan`, one after the other.

    Args:
        source: see `plan`.
        repo_id: see `plan`.
        parts: see `plan`.
        private: whether new repositories are private; None: the account's default.
        dry_run: send nothing.
        published: see `plan`.
        records: see `plan`.

    Yields:
        What was done with each repository, or in a dry run what it would contain. Both have `lines()` and `facts()`.

    Raises:
        MemtaxError: there is nothing to publish, a file contains a credential, or the Hub rejects or cannot be reached.
    """
    repositories = plan(source, repo_id, parts, published, private=bool(private), records=records)
    for repository in repositories:
        yield repository if dry_run else push(repository, private)


def plan(
    source: Path | str,
    repo_id: str,
    parts: Sequence[str] = ("dataset", "models"),
    published: Layout | None = None,
    *,
    private: bool = False,
    records: bool = False,
) -> list[Repository]:
    """The repositories under which a run, or a folder with one dataset or model, is published.

    Args:
        source: directory of a run or audit, or the folder of a dataset or model.
        repo_id: `org/name`. The dataset takes this name, models `org/name-MODEL`, metrics `org/METRIC`.
        parts: some of `PARTS`.
        published: creates the dataset files in another layout, from the table of features, title and license.
        private: whether Spaces must work without a publicly accessible wheel.
        records: whether to send the record of training rows and canaries with a model.

    Raises:
        MemtaxError: the source has nothing to publish, a name is invalid, or a file contains a credential or, if binary, a
            local path.
    """
    source = _run_folder(Path(source))
    verify(source)
    unknown = [part for part in parts if part not in PARTS]
    if unknown or not parts:
        raise MemtaxError(f"parts are some of {', '.join(PARTS)}, not {', '.join(unknown) or 'none'}")
    owner = _owner(repo_id)
    run = _record(source)
    found: list[Repository] = []
    if (source / "dataset" / "README.md").is_file():
        if "dataset" in parts:
            found.append(
                _dataset(source / "dataset", repo_id, run, source)
                if published is None
                else _published(source, repo_id, run, published)
            )
        folders = sorted(path for path in (source / "models").glob("*") if _is_model(path))
        if "models" in parts:
            found += [_model(folder, f"{repo_id}-{folder.name}", run, repo_id, records) for folder in folders]
    elif _is_model(source):
        found.append(_model(source, repo_id, run, None, records))
    elif any(source.rglob("*.parquet")) and (source / "README.md").is_file():
        found.append(_dataset(source, repo_id, run))
    elif list(parts) != ["metrics"]:
        raise MemtaxError(f"{source} is neither a run directory nor a folder of a dataset or model; give one written by memtax")
    if "explorer" in parts:
        found.append(_explorer(f"{repo_id}-explorer", repo_id, str(run.get("config", {}).get("title") or repo_id), private))
    if "metrics" in parts:
        found += spaces(owner, private)
    machine = Machine.current(source)
    return [_screened(repository, machine) for repository in found]


def _screened(repository: Repository, machine: Machine) -> Repository:
    files, notes = screen(repository.files, machine)
    return replace(repository, files=files, notes=(*notes, *repository.notes))


def _run_folder(source: Path) -> Path:
    """The run to publish: an audit publishes the run inside it."""
    return source / "run" if (source / "run" / SUMMARY).is_file() else source


def spaces(owner: str, private: bool = False) -> list[Repository]:
    """The metric Spaces of an account, each with this memtax; see `_installation`."""
    found = []
    for folder in sorted(path for path in asset("metrics").iterdir() if (path / f"{path.name}.py").is_file()):
        repo_id = f"{owner}/{folder.name}"
        card = read_text(folder / "README.md").replace(f'"memtax/{folder.name}"', f'"{repo_id}"')
        files = folder_files(folder) | {"README.md": card.encode(), **_installation(repo_id, private)}
        found.append(Repository(repo_id, "space", files))
    return found


def _explorer(repo_id: str, dataset: str, title: str, private: bool) -> Repository:
    """The Space of the explorer, which reads the dataset and its predictor from the Hub."""
    metadata: dict[str, Any] = {"title": title[:60], "emoji": "🔎", "colorFrom": "green", "colorTo": "gray", "sdk": "gradio"}
    metadata |= {
        "sdk_version": _SDK,
        "app_file": "app.py",
        "pinned": False,
        "datasets": [dataset],
        "tags": ["memorization", "memtax"],
    }
    card = render("explorer.md.j2", metadata, title=title, dataset=dataset, version=versions()["memtax"])
    files = {"README.md": card.encode(), "app.py": _APP.format(dataset=dataset).encode()}
    # Texts of one's own are tokenized and scored.
    return Repository(repo_id, "space", files | _installation(repo_id, private, "lm"))


def _installation(repo_id: str, private: bool, *extras: str) -> dict[str, bytes]:
    """`requirements.txt`, and this memtax in the same repository, as a wheel referenced by its address.

    A private Space is built without a token and could not fetch the wheel: there, memtax's source is next to `app.py`, and the
    requirements are memtax's dependencies.
    """
    from huggingface_hub import constants

    from memtax.hub.wheel import build

    wheel, content = build()
    if not private:
        wanted = f"[{','.join(extras)}]" if extras else ""
        line = f"memtax{wanted} @ {public_url(constants.ENDPOINT)}/spaces/{repo_id}/resolve/main/{wheel}\n"
        return {"requirements.txt": line.encode(), wheel: content}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    metadata = next(text for name, text in files.items() if name.endswith(".dist-info/METADATA")).decode()
    needed = email.message_from_string(metadata).get_all("Requires-Dist") or []
    kept = [each for each in needed if "extra ==" not in each or any(f"extra == '{extra}'" in each for extra in extras)]
    lines = "".join(f"{each.partition(';')[0].strip() if 'extra ==' in each else each}\n" for each in kept)
    return {"requirements.txt": lines.encode(), **{name: text for name, text in files.items() if name.startswith("memtax/")}}


def _dataset(folder: Path, repo_id: str, run: Mapping[str, Any], source: Path | None = None) -> Repository:
    """A dataset's folder; with `source`, the directory of its run, the figures of the run's page too."""
    figures, section, notes = run_figures(source) if source else ({}, "", ())
    own = read_text(folder / "README.md")
    text = finish(f"{own.rstrip()}\n\n{section}" if section else own, repo_id, run, {}, folder / "README.md")
    files = folder_files(folder, ("README.md", "**/*.parquet")) | figures | {"README.md": text.encode()}
    return Repository(repo_id, "dataset", files, (*notes, *_unmasked(run)))


def _published(source: Path, repo_id: str, run: Mapping[str, Any], layout: Layout) -> Repository:
    import pyarrow.parquet as pq

    config = run.get("config", {})
    table = pq.read_table(source / "dataset" / "features" / "train.parquet")
    files = layout(table, str(config.get("title") or repo_id.partition("/")[2]), config.get("license"))
    card = finish(files["README.md"].decode(), repo_id, run, {})
    return Repository(repo_id, "dataset", {**files, "README.md": card.encode()}, _unmasked(run))


def _unmasked(run: Mapping[str, Any]) -> tuple[str, ...]:
    """A note on texts that are sent unmasked."""
    if run.get("memtax") not in ("run", "demo") or run.get("config", {}).get("mask_personal_data") is True:
        return ()
    return ("texts are sent unmasked, with any personal data in them (a run with mask_personal_data: true masks it)",)


def _model(folder: Path, repo_id: str, run: Mapping[str, Any], dataset: str | None, records: bool = False) -> Repository:
    """A model's folder with its card; a language model or adapter without a memtax card gets one now."""
    verify(folder)
    files = folder_files(folder, MODEL_FILES, exclude=STAYS)
    kept_records = folder_files(folder, ("training_rows.json", f"{CANARIES}/*.jsonl"))
    files |= kept_records if records else {}
    notes = () if records else tuple(f"stays here: {name} (--records sends it)" for name in kept_records)
    others = folder_files(folder, STAYS[1:])
    notes += (f"stays here: {', '.join(others)}",) if others else ()
    more: dict[str, Any] = {"license": run.get("config", {}).get("license"), "datasets": [dataset] if dataset else None}
    text = read_text(folder / "README.md") if (folder / "README.md").is_file() else None
    if _is_predictor(folder):
        more |= predictor_index(folder, repo_id, dataset)
    elif is_adapter(folder):  # PEFT's own card is full of placeholders
        text = adapter_card(folder)
    elif _is_classifier(folder):
        # It was trained on its own texts, unrelated to the run's model, corpus and dataset.
        run = {**run, "config": {}, "inputs": {}} if run else {}
        more = {"license": None, **classifier_index(folder, repo_id)}
    else:
        more |= extraction_index(_measured(folder), repo_id, dataset)
    text = text or language_model_card(folder)
    card = folder / "README.md"
    metadata, _ = split(text, card)
    kept = {name: value for name, value in more.items() if value is not None and name not in metadata}
    return Repository(repo_id, "model", files | {"README.md": finish(text, repo_id, run, kept, card).encode()}, notes)


def _measured(folder: Path) -> dict[str, Any]:
    """The figures of the run that measured the language model in one of its folders; empty if there is none."""
    run = folder.parent.parent
    metrics = read_summary(run, shape=MEASURED) if (run / SUMMARY).is_file() else {}
    return metrics if (metrics.get("run") or {}).get("model") == folder.name else {}


def _record(source: Path) -> dict[str, Any]:
    """The run's record, in the source or above it; empty if it is incomplete or missing."""
    for path in (folder / "run.yaml" for folder in (source, source.parent, source.parent.parent)):
        if path.is_file():
            record = read_run(path)
            whole = {"memtax", "config", "inputs", "commit", "versions", "finished"} <= record.keys()
            return record if whole else {}
    return {}


def _is_model(folder: Path) -> bool:
    return (folder / "config.json").is_file() or _is_predictor(folder) or is_adapter(folder)


def _is_predictor(folder: Path) -> bool:
    return (folder / "predictor.json").is_file()


def _is_classifier(folder: Path) -> bool:
    return (folder / "evaluation.json").is_file() and (folder / "README.md").is_file()


def _owner(repo_id: str) -> str:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise MemtaxError(
            f"{repo_id!r} cannot be pushed: not a valid name for the Hub ({' '.join(str(error).split())})"
        ) from error
    if "/" not in repo_id:
        raise MemtaxError(f"{repo_id!r} cannot be pushed: it has no account; write org/{repo_id}")
    return repo_id.split("/")[0]
