"""Screening of uploads: files are searched for paths and names of the machine and for credentials before they are sent."""

import getpass
import io
import json
import os
import re
import socket
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memtax import credentials
from memtax.errors import MemtaxError
from memtax.files import destination

STAYS = ("training_rows.json", "training.json", "trainer_state.json", "checksums.json", "memorization_state.json")
"""Records of a training: which rows were used, its settings and its progress."""
CANARIES = "canaries"
"""The folder of planted and held-out canaries, beside a trained model."""
_TEXT = (".json", ".jsonl", ".txt", ".md", ".svg", ".jinja", ".py", ".html", ".yaml", ".yml", ".csv", ".tsv", ".css", ".js")
_DATA = (".parquet", ".jsonl", ".json", ".arrow", ".txt", ".csv", ".tsv", ".gz", ".bz2", ".xz", ".zst", ".bin")
_VOCABULARY = ("tokenizer.json", "vocab.json", "merges.txt", "vocab.txt", "added_tokens.json")
"""Files of token strings: replacing any of them would break the tokenizer."""
_COMMON = frozenset(
    {
        "root",
        "user",
        "users",
        "admin",
        "administrator",
        "runner",
        "ubuntu",
        "debian",
        "node",
        "nobody",
        "jupyter",
        "home",
        "localhost",
        "memtax",
        "work",
        "data",
        "model",
    }
)
"""Names of users and hosts that name nobody, and that texts hold by chance."""
_PATH_KEY = re.compile(r"name_or_path$|path|file$|folder|directory|^dataset$|^source$|^output$|^tokenizer$|^corpus$|^model$")
_CREDENTIAL = re.compile(
    rb"\bhf_[A-Za-z0-9]{30,}\b|\bgh[pousr]_[A-Za-z0-9]{36,}\b|\bgithub_pat_\w{40,}|\bglpat-[\w-]{20,}|\bsk-[A-Za-z0-9_-]{32,}"
    rb"|\bxox[abprs]-[A-Za-z0-9-]{20,}|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|-----BEGIN [A-Z ]*PRIVATE KEY-----"
    rb"|://[^\s/:@\"'<>]{1,100}:[^\s/@\"'<>]{1,200}@"
)
_BLOCK = 1 << 24
_HEADER = 100_000_000
"""Most bytes of the header that safetensors itself reads."""


@dataclass(frozen=True)
class Machine:
    """Paths and names that identify this machine.

    Attributes:
        folders: absolute paths, the longest first.
        parents: the folders above the sources, which relative paths may begin with.
        names: of the user and the host, without those that name nobody.
        secrets: values of environment variables and the stored token of the Hub.
    """

    folders: tuple[str, ...]
    parents: tuple[str, ...]
    names: tuple[str, ...]
    secrets: tuple[str, ...]

    @classmethod
    def current(cls, *sources: Path) -> "Machine":
        """This machine, with the folders that the sources lie in."""
        places = [Path.home(), Path(tempfile.gettempdir()), Path.cwd()]
        places += [place for source in sources for place in (Path(os.path.abspath(source)), source.resolve())]
        folders = {str(folder) for place in places for folder in (place, *place.parents) if len(folder.parts) > 2}
        folders |= {str(place) for place in places[:2] if len(place.parts) > 1}
        names = {socket.gethostname(), socket.gethostname().partition(".")[0], *_users()}
        telling = {name for name in names if len(name) > 3 and name.lower() not in _COMMON}
        secrets = {*credentials.secrets()} | ({token} if (token := _stored_token()) else set())
        parents = {str(folder) for source in sources for folder in Path(os.path.abspath(source)).parents}
        kinds = (folders, parents, telling, secrets)
        return cls(*(tuple(sorted(values, key=lambda value: (-len(value), value))) for values in kinds))

    @property
    def words(self) -> tuple[str, ...]:
        """Strings to search for in bytes that are not rewritten; a home such as `/root` is in many texts by chance."""
        return tuple(folder for folder in self.folders if folder.count("/") > 1) + self.names

    def rewrite(self, text: str) -> str:
        """The text with paths below the folders as their last part, and `user` or `host` instead of names."""
        if self.folders:
            roots = "|".join(map(re.escape, self.folders))
            pattern = rf"(?<![\w./])(?:file://)?(?:{roots})(?![\w-])(?:/[^\s\"'<>`|:,;()\[\]{{}}*\\]*)?"
            text = re.sub(pattern, lambda match: _last(match[0]), text)
        parts = {
            part for parent in self.parents for part in Path(parent).parts if len(part) > 3 and part.lower() not in _COMMON
        }
        if parts:
            below = rf"(?<![\w./-])(?:\.{{1,2}}/)*(?:{'|'.join(map(re.escape, sorted(parts)))})/[^\s\"'<>`|:,;()\[\]{{}}*\\]+"
            text = re.sub(below, lambda match: _last(match[0]) if self._is_local(match[0]) else match[0], text)
        for name in self.names:
            text = re.sub(rf"(?<![\w]){re.escape(name)}(?![\w])", "host" if name in socket.gethostname() else "user", text)
        return text

    def _is_local(self, path: str) -> bool:
        """Whether a relative path leads from a folder above the sources to something that is there."""
        return any(os.path.exists(os.path.join(parent, path)) for parent in self.parents)


def _users() -> set[str]:
    names = {os.environ.get(name, "") for name in ("USER", "LOGNAME", "USERNAME")} | {Path.home().name}
    try:
        return names | {getpass.getuser()}
    except (OSError, KeyError):
        return names


def _stored_token() -> str | None:
    from huggingface_hub import get_token

    return get_token()


def _last(path: str) -> str:
    tail = path.rstrip("/").rpartition("/")[2]
    return destination(tail).name or "folder"


def public_url(address: str) -> str:
    """An address without user, password and query."""
    return re.sub(r"(://)[^/\s]*@", r"\1", address).partition("?")[0]


def public_name(value: Any) -> Any:
    """How an input is called in what others see: a local path by its last part, a Hub name as it is, lists by entry."""
    if isinstance(value, (list, tuple)):
        return [public_name(entry) for entry in value]
    if not isinstance(value, str):
        return value
    scheme, _, place = value.partition(":")
    if scheme in ("infini-gram", "infini-gram-mini") and place.startswith(("/", ".", "~")):
        return f"{scheme}:{public_name(place)}"
    if "://" in value:
        return public_url(value).rstrip("/").rpartition("/")[2] if value.startswith("file:") else public_url(value)
    whole = os.path.exists(value)
    path, colon, rest = (value, "", "") if whole else value.partition(":")
    local = whole or path.startswith(("/", "~", ".", "\\")) or path.count("/") > 1 or os.path.exists(path)
    local |= "/" in path and path.endswith(_DATA)
    return (path.rstrip("/").rpartition("/")[2] or path) + colon + rest if local else value


def public_config(config: Any) -> Any:
    """A configuration as a page shows it: local paths by their last part; anything but a mapping as it is."""
    return {name: public_name(value) for name, value in config.items()} if isinstance(config, dict) else config


def screen(files: Mapping[str, Path | bytes], machine: Machine) -> tuple[dict[str, Path | bytes], list[str]]:
    """Files as they may leave the machine.

    Text and the metadata of Parquet files are rewritten: paths become their last part. The values of tables and the strings
    of a vocabulary are the user's data: they stay, and a note counts those that name the machine or hold a credential.

    Args:
        files: path in the repository to a local file, or to the content itself.
        machine: paths and names that must not be published.

    Returns:
        The files, and notes for the user.

    Raises:
        MemtaxError: a file holds a credential, or a binary file a path or name of this machine.
    """
    screened: dict[str, Path | bytes] = {}
    notes: list[str] = []
    for name, content in files.items():
        if name.endswith(".whl"):
            screened[name] = content
        elif name.endswith(".parquet"):
            screened[name], found = _screen_table(name, content, machine)
            notes += found
        elif Path(name).name in _VOCABULARY:
            screened[name] = content
            if _holds(content, machine.words) or _holds_credential(content, machine):
                notes.append(f"{name}: token strings hold a path or name of this machine; they are sent as they are")
        elif name.endswith(_TEXT):
            screened[name] = _screen_text(name, content, machine)
            if screened[name] is not content:
                notes.append(f"{name}: rewritten, without paths and names of this machine")
        else:
            # Numbers of a model look like anything by chance: of its weights, the header alone can tell.
            searched = _header(content) if name.endswith(".safetensors") else content
            _refuse_credential(name, _holds_credential(searched, machine))
            word = _holds(searched, machine.words)
            if word is not None:
                raise MemtaxError(
                    f"{name} holds {word!r}, which names this machine; write the file without it, then push again"
                )
            screened[name] = content
    return screened, notes


def _screen_text(name: str, content: Path | bytes, machine: Machine) -> Path | bytes:
    data = content if isinstance(content, bytes) else content.read_bytes()
    _refuse_credential(name, _holds_credential(data, machine))
    text = data.decode("utf-8", "surrogateescape")
    if name.endswith(".json"):
        try:
            value = json.loads(text)
            public = _public_json(value, machine)
            if public != value:
                text = json.dumps(public, indent=2, ensure_ascii=False) + "\n"
        except (ValueError, RecursionError):
            pass
    if not name.endswith(".py") or _holds(data, machine.words):
        text = machine.rewrite(text)
    rewritten = text.encode("utf-8", "surrogateescape")
    return content if rewritten == data else rewritten


def _public_json(value: Any, machine: Machine, key: str = "") -> Any:
    if isinstance(value, dict):
        return {machine.rewrite(name): _public_json(entry, machine, name) for name, entry in value.items()}
    if isinstance(value, list):
        return [_public_json(entry, machine, key) for entry in value]
    if isinstance(value, str) and (_PATH_KEY.search(key) or value.startswith(machine.folders)):
        # Paths of another machine too: a record may have been made elsewhere.
        return public_name(value) if value.startswith(("/", "~/", "file:")) or os.path.exists(value) else value
    return value


def _screen_table(name: str, content: Path | bytes, machine: Machine) -> tuple[Path | bytes, list[str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = pq.ParquetFile(io.BytesIO(content) if isinstance(content, bytes) else content)
    schema = file.schema_arrow
    told = 0
    columns = [field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)]
    for batch in file.iter_batches(columns=columns) if columns else ():
        told += sum(_count(batch.column(column), machine) for column in columns)
    notes = [f"{name}: {told:,} values hold a path or name of this machine or a credential; they are sent as they are"] * (
        told > 0
    )
    public = _public_schema(schema, machine)
    if public.equals(schema, check_metadata=True):
        return content, notes
    sink = pa.BufferOutputStream()
    pq.write_table(file.read().cast(public), sink, compression="zstd", row_group_size=65_536)
    return sink.getvalue().to_pybytes(), [*notes, f"{name}: rewritten, its metadata without paths and names of this machine"]


def _public_schema(schema: Any, machine: Machine) -> Any:
    def public(metadata: Mapping[bytes, bytes] | None) -> dict[bytes, bytes] | None:
        for value in (metadata or {}).values():
            _refuse_credential("the metadata of a Parquet file", _holds_credential(value, machine))
        return {
            key: machine.rewrite(value.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
            for key, value in (metadata or {}).items()
        } or None

    import pyarrow as pa

    return pa.schema([field.with_metadata(public(field.metadata)) for field in schema], metadata=public(schema.metadata))


def _count(column: Any, machine: Machine) -> int:
    import pyarrow.compute as pc

    patterns = [re.escape(word) for word in (*machine.words, *machine.secrets)] + [_CREDENTIAL.pattern.decode()]
    return int(pc.sum(pc.match_substring_regex(column, "|".join(patterns))).as_py() or 0)


def _holds(content: Path | bytes, words: Iterable[str]) -> str | None:
    """The first word that the content holds."""
    wanted = [(word, word.encode()) for word in words]
    for block in _blocks(content, max((len(data) for _, data in wanted), default=1)):
        for word, data in wanted:
            if data in block:
                return word
    return None


def _holds_credential(content: Path | bytes, machine: Machine) -> bool:
    secrets = [secret.encode() for secret in machine.secrets]
    return any(_CREDENTIAL.search(block) or any(secret in block for secret in secrets) for block in _blocks(content, 200))


def _header(content: Path | bytes) -> bytes:
    """Names, types and metadata at the start of a file of weights: eight bytes that give their length, then JSON."""
    handle = io.BytesIO(content) if isinstance(content, bytes) else content.open("rb")
    with handle:
        return handle.read(min(int.from_bytes(handle.read(8), "little"), _HEADER))


def _blocks(content: Path | bytes, overlap: int) -> Iterable[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    with content.open("rb") as handle:
        tail = b""
        while block := handle.read(_BLOCK):
            yield tail + block
            tail = block[-overlap:]


def _refuse_credential(name: str, found: bool) -> None:
    if found:
        raise MemtaxError(f"{name} holds a credential (a token, key or password); remove it, revoke it, then push again")
