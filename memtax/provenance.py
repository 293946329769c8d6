"""Provenance of a run: resolved configuration, package versions, commit, seeds and input fingerprints."""

import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memtax.files import Stamp, matching_files, own_files, stamp, write_text

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

PACKAGES = (
    "memtax",
    "torch",
    "transformers",
    "datasets",
    "accelerate",
    "evaluate",
    "huggingface_hub",
    "tokenizers",
    "peft",
    "numpy",
    "numba",
    "pyarrow",
    "scikit-learn",
    "scipy",
    "rapidfuzz",
    "statsmodels",
)

SETTINGS = (
    "ACCELERATE_MIXED_PRECISION",
    "ACCELERATE_USE_CPU",
    "CUDA_VISIBLE_DEVICES",
    "HF_DATASETS_CACHE",
    "HF_DATASETS_OFFLINE",
    "HF_ENDPOINT",
    "HF_EVALUATE_OFFLINE",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_HUB_DISABLE_TELEMETRY",
    "HF_HUB_DISABLE_XET",
    "HF_HUB_DOWNLOAD_TIMEOUT",
    "HF_HUB_OFFLINE",
    "MKL_NUM_THREADS",
    "NUMBA_DISABLE_JIT",
    "NUMBA_NUM_THREADS",
    "NUMBA_THREADING_LAYER",
    "OMP_NUM_THREADS",
    "TOKENIZERS_PARALLELISM",
    "TRANSFORMERS_OFFLINE",
)
"""The environment variables shown by `memtax env`; all others may contain secrets."""
SETTLED_NS = 2 * 10**9
"""Age of a file's last write from which its digest is cached; the coarsest file systems have two-second timestamps."""
_PLAIN = re.compile(
    r"|-1|[0-9]{1,6}(?:\.[0-9]{1,3})?|[0-9]{1,3}(?:,[0-9]{1,3}){0,63}|(?:(?:GPU|MIG)-[0-9a-f-]{1,64},?)+"
    r"|true|false|yes|no|on|off|none|fp8|fp16|bf16|default|tbb|omp|workqueue|safe|threadsafe|forksafe",
    re.IGNORECASE,
)
"""Numbers, devices, and words that the settings accept: switches, number formats, names of threading layers."""


def digest(*values: Any) -> str:
    """A 32-digit hexadecimal digest of JSON-serialisable values (paths as strings), stable across processes."""
    text = json.dumps(values, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _hash_array(array: "pa.Array", into: Any) -> None:
    """Feed an array's values, lengths and nulls to a hash, independent of its offset and buffer layout."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if array.null_count:
        into.update(b"nulls")
        into.update(pc.cast(pc.is_null(array), pa.uint8()).to_numpy(zero_copy_only=False))
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type):
        into.update(pc.cast(pc.fill_null(pc.list_value_length(array), 0), pa.int64()).to_numpy(zero_copy_only=False))
        _hash_array(array.flatten(), into)
    elif pa.types.is_string(array.type) or pa.types.is_large_string(array.type) or pa.types.is_binary(array.type):
        into.update(pc.cast(pc.fill_null(pc.binary_length(array), 0), pa.int64()).to_numpy(zero_copy_only=False))
        filled = array.cast(pa.large_binary())
        # Joining leaves one contiguous buffer with only the values.
        into.update(b"".join(value or b"" for value in filled.to_pylist()))
    elif pa.types.is_integer(array.type) or pa.types.is_floating(array.type) or pa.types.is_boolean(array.type):
        if pa.types.is_boolean(array.type):
            array = pc.cast(array, pa.uint8())
        into.update(memoryview(pc.fill_null(array, 0).to_numpy(zero_copy_only=False).tobytes()))
    else:
        into.update(repr(array.to_pylist()).encode("utf-8", "surrogatepass"))


def fingerprint_dataset(dataset: "datasets.Dataset | pa.Table", columns: Iterable[str]) -> str:
    """Digest of the values in `columns`, independent of how the dataset or table was loaded, chunked or cached."""
    import datasets

    if isinstance(dataset, datasets.Dataset):
        rows, features = dataset.with_format("arrow"), dataset.features
    else:
        rows, features = dataset, datasets.Features.from_arrow_schema(dataset.schema)
    hashed = hashlib.sha256(str(len(dataset)).encode())
    for name in columns:
        hashed.update(f"{name}:{features[name]}".encode())
        for start in range(0, len(dataset), 65_536):
            block = rows[start : start + 65_536] if rows is not dataset else dataset.slice(start, 65_536)
            _hash_array(block.column(name).combine_chunks(), hashed)
    return hashed.hexdigest()[:32]


def fingerprint_table(table: "pa.Table") -> str:
    """Digest of a table's values and types, for `datasets.Dataset(table, fingerprint=...)`.

    Without one, `datasets` pickles the whole table to hash it.
    """
    hashed = hashlib.sha256(f"{table.num_rows} {table.schema.remove_metadata()}".encode())
    for name in table.column_names:
        for start in range(0, table.num_rows, 65_536):
            _hash_array(table.column(name).slice(start, 65_536).combine_chunks(), hashed)
    return hashed.hexdigest()[:32]


def fingerprint_path(path: Path | str) -> str:
    """Digest of a file's bytes, of all files below a folder or matching a pattern with their names, or of any other name.

    Files of others in a folder that memtax made do not count.
    """
    matches = [] if Path(path).exists() else matching_files(path)
    path = Path(path)
    if not path.exists() and not matches:
        return digest("name", str(path))
    hashed = hashlib.sha256()
    files = matches or (own_files(path) if path.is_dir() else [path])
    for file in files:
        hashed.update((file.name if matches else str(file.relative_to(path))).encode())
        hashed.update(_file_digest(str(file.resolve()), stamp(file)))
    return hashed.hexdigest()[:32]


def _file_digest(path: str, stamped: Stamp) -> bytes:
    """SHA-256 of a file's bytes, cached per process while its stamp stays the same."""
    if time.time_ns() - max(stamped[2], stamped[3]) < SETTLED_NS:
        # A second write within the resolution of the file system's clock would leave the same stamp.
        return _read_digest.__wrapped__(path, stamped)
    return _read_digest(path, stamped)


@functools.lru_cache(maxsize=4096)
def _read_digest(path: str, stamped: Stamp) -> bytes:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").digest()


def versions() -> dict[str, str]:
    """Installed versions of Python and of the packages that may affect results."""
    return {"python": platform.python_version(), **{package: _version(package) for package in PACKAGES}}


@functools.cache
def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


@functools.cache
def git_commit() -> str | None:
    """Commit of the checkout that memtax runs from (with `+changes` if it is modified), or None outside a checkout."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True)
        changes = subprocess.run(["git", "status", "--porcelain"], cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.stdout.strip() + ("+changes" if changes.stdout.strip() else "")


def _shareable(value: str) -> str:
    """A setting without the home folder, and without user, password, query and fragment of an address."""
    scheme, sign, rest = value.partition("://")
    if sign:
        # A password may contain any character.
        value = f"{scheme}://{re.split('[?#;]', rest.rpartition('@')[2])[0]}"
    home = str(Path.home())
    return f"~{value[len(home) :]}" if len(home) > 1 and f"{value}/".startswith(f"{home}/") else value


def _setting(value: str) -> str:
    """A variable's value, if it is a plausible setting: a secret may be stored under any name."""
    if value.startswith(("/", "~", "./", "../")) or "://" in value:
        return _shareable(value)
    return value if _PLAIN.fullmatch(value) else "(not shown)"


def environment() -> dict[str, Any]:
    """Information for a bug report: versions, platform, processors, memory, accelerators and relevant settings."""
    facts: dict[str, Any] = {
        "platform": platform.platform(),
        "executable": _shareable(sys.executable),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "commit": git_commit(),
        "versions": versions(),
    }
    try:
        facts["memory_gib"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        facts["memory_gib"] = None
    facts["accelerators"], facts["torch_threads"] = [], None
    if importlib.util.find_spec("torch") is not None:
        import torch

        facts["accelerators"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        facts["torch_threads"] = torch.get_num_threads()
    facts["settings"] = {name: _setting(os.environ[name]) for name in SETTINGS if name in os.environ}
    return facts


def write_record(
    path: Path | str, command: str, config: Mapping[str, Any], inputs: Mapping[str, str], seconds: float | None = None
) -> None:
    """Write `run.yaml`: enough to replay the run and to see its inputs.

    Only this file contains times: every other file of a run has the same bytes whenever and however often it is made.

    Args:
        path: target file.
        command: the verb, for example `run`.
        config: the resolved configuration; `memtax run run.yaml` accepts the file as it is.
        inputs: name of each input to its fingerprint.
        seconds: run time, if it should be recorded.
    """
    import yaml

    record = {
        "memtax": command,
        "config": dict(config),
        "inputs": dict(inputs),
        "commit": git_commit(),
        "versions": versions(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **({} if seconds is None else {"seconds": round(seconds, 1)}),
    }
    write_text(path, yaml.safe_dump(record, sort_keys=False, allow_unicode=True))
