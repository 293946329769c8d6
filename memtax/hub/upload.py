"""Uploading repositories: only changed files, in one commit each; the same call resumes an interrupted upload."""

import json
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from memtax.errors import MemtaxError
from memtax.progress import say

if TYPE_CHECKING:
    from huggingface_hub import HfApi

Kind = Literal["dataset", "model", "space"]

ATTEMPTS = 4
"""Attempts at a commit that the server or the connection interrupts; the client itself retries single requests before."""
WAIT = 1.0
"""Seconds before the second attempt; each further wait is twice as long."""
_STALE = (".parquet", ".safetensors", ".whl")
"""memtax's files that an older push may have left under other names; all other files in the repository are kept."""


@dataclass(frozen=True)
class Repository:
    """Intended content of a Hub repository.

    Attributes:
        repo_id: `org/name`.
        kind: dataset, model or space.
        files: path in the repository to a local file, or to the content itself.
        notes: files that were rewritten, files that stay local, and other notes for the user.
    """

    repo_id: str
    kind: Kind
    files: Mapping[str, Path | bytes]
    notes: Sequence[str] = ()

    @property
    def card(self) -> str:
        """The text of README.md."""
        found = self.files["README.md"]
        return (found if isinstance(found, bytes) else found.read_bytes()).decode("utf-8")

    @property
    def size(self) -> int:
        """Total bytes of all files."""
        return sum(map(_size, self.files.values()))

    def lines(self) -> Iterator[str]:
        """The output of a dry run: files with their sizes, notes, then the card."""
        yield f"{self.kind} {self.repo_id}: {len(self.files)} files, {self.size:,} bytes"
        for path, content in sorted(self.files.items()):
            yield f"  {_size(content):>13,}  {path}"
        yield from (f"  {note}" for note in self.notes)
        yield from (f"  | {line}".rstrip() for line in self.card.splitlines())

    def facts(self) -> dict[str, Any]:
        """The same for scripts: files with their sizes in bytes, and the card."""
        files = {path: _size(content) for path, content in sorted(self.files.items())}
        head = {"repo_id": self.repo_id, "kind": self.kind, "bytes": self.size}
        return {**head, "files": files, "notes": list(self.notes), "card": self.card}


@dataclass(frozen=True)
class Pushed:
    """Result of a push.

    Attributes:
        repository: intended content.
        url: address of the repository.
        commit: the commit that contains the files.
        changed: uploaded paths.
        deleted: removed paths.
    """

    repository: Repository
    url: str
    commit: str
    changed: Sequence[str] = field(default=())
    deleted: Sequence[str] = field(default=())

    @property
    def commit_url(self) -> str:
        """Address of the commit that contains the files."""
        return f"{self.url}/commit/{self.commit}"

    def lines(self) -> Iterator[str]:
        """The address and the numbers of uploaded files, then the notes."""
        sent = f"{len(self.changed)} of {len(self.repository.files)} files uploaded, {len(self.deleted)} deleted"
        yield f"{self.url} ({sent if self.changed or self.deleted else 'up to date'})"
        yield from (f"  {note}" for note in self.repository.notes)

    def facts(self) -> dict[str, Any]:
        """The same for scripts."""
        where = {"repo_id": self.repository.repo_id, "kind": self.repository.kind, "url": self.url, "commit": self.commit}
        return {**where, "changed": list(self.changed), "deleted": list(self.deleted), "notes": list(self.repository.notes)}


def folder_files(
    folder: Path | str, patterns: Sequence[str] = ("**/*",), exclude: Sequence[str] = ()
) -> dict[str, Path | bytes]:
    """The matching files of a folder, without hidden files, links and the notes of memtax's stages.

    Args:
        folder: a local folder.
        patterns: globs relative to it.
        exclude: file names to omit.
    """
    folder = Path(folder)
    found: dict[str, Path | bytes] = {}
    for pattern in patterns:
        for path in sorted(folder.glob(pattern)):
            name = path.relative_to(folder)
            hidden = any(part.startswith((".", "__pycache__")) for part in name.parts)
            if path.is_file() and not path.is_symlink() and not hidden and path.name not in ("stage.json", *exclude):
                found[name.as_posix()] = path
    return found


def push(repository: Repository, private: bool | None = None, token: str | None = None, message: str | None = None) -> Pushed:
    """Upload the files of a repository that are not there yet or have changed.

    Args:
        repository: intended content.
        private: whether a new repository is private; None: the account's default. True rejects an existing public one.
        token: access token; None: from the environment or from `hf auth login`.
        message: title of the commit.

    Raises:
        MemtaxError: no permission, no such namespace, no connection, or a server that keeps failing.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    disable_progress_bars()
    api = HfApi(token=token)
    wait = WAIT
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _push_once(api, repository, private, message or "Upload with memtax")
        except Exception as error:
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            if not _is_passing(error):
                raise _explained(error, repository, reason) from error
            if attempt == ATTEMPTS:
                raise MemtaxError(
                    f"{repository.repo_id} could not be pushed in {ATTEMPTS} tries ({reason}); run the command again to go on"
                ) from error
            say(f"{repository.repo_id}: {reason}; trying again in {wait:g} s")
            time.sleep(wait)
            wait *= 2
    raise AssertionError("unreachable")


def _push_once(api: "HfApi", repository: Repository, private: bool | None, message: str) -> Pushed:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    repo_id, kind = repository.repo_id, repository.kind
    sdk = "gradio" if kind == "space" else None
    url = str(api.create_repo(repo_id, repo_type=kind, private=private, exist_ok=True, space_sdk=sdk))
    there: Any = api.repo_info(repo_id, repo_type=kind)
    if private and there.private is False:
        raise MemtaxError(f"{repo_id} exists and is public; make it private on the Hub, or push without --private")
    remote = _remote_digests(api, repo_id, kind)
    changed = [path for path, content in repository.files.items() if not _is_there(content, remote.get(path))]
    stale = [path for path in remote if path.endswith(_STALE) and path not in repository.files]
    if not changed and not stale:
        return Pushed(repository, url, str(there.sha))
    operations: list[Any] = [CommitOperationAdd(path, _readable(repository.files[path])) for path in changed]
    operations += [CommitOperationDelete(path) for path in stale]
    with warnings.catch_warnings(record=True) as noted:
        warnings.filterwarnings("always", category=UserWarning)
        done = api.create_commit(repo_id, operations, commit_message=message, repo_type=kind)
    for line in dict.fromkeys(" ".join(str(each.message).split()) for each in noted if each.category is UserWarning):
        say(f"{repo_id}: {line}")  # the Hub's messages about the card
    if done.oid == there.sha:
        return Pushed(repository, url, str(done.oid))
    return Pushed(repository, url, str(done.oid), tuple(changed), tuple(stale))


def _remote_digests(api: "HfApi", repo_id: str, kind: Kind) -> dict[str, str]:
    """Path to SHA-256 (LFS) or git object id of every existing file; empty if the server has no such listing."""
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.hf_api import RepoFile

    try:
        entries = [each for each in api.list_repo_tree(repo_id, recursive=True, repo_type=kind) if isinstance(each, RepoFile)]
    except HfHubHTTPError as error:
        if error.response.status_code not in (404, 405, 501):
            raise
        return {}  # an empty repository, or a mirror without this route: the client itself skips unchanged files
    return {entry.path: entry.lfs.sha256 if entry.lfs else entry.blob_id for entry in entries}


def _is_there(content: Path | bytes, remote: str | None) -> bool:
    import hashlib

    if not remote:
        return False
    if len(remote) == 64:
        if isinstance(content, bytes):
            return hashlib.sha256(content).hexdigest() == remote
        with content.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest() == remote
    data = content if isinstance(content, bytes) else content.read_bytes()
    return hashlib.sha1(b"blob %d\0%b" % (len(data), data), usedforsecurity=False).hexdigest() == remote


_INTENTIONAL = ("OfflineModeIsEnabled", "UnsupportedProtocol", "InvalidURL", "InvalidSchema", "MissingSchema")
"""Errors of connections that stay: offline mode, and addresses that are none."""


def _is_passing(error: BaseException) -> bool:
    """Whether the same call may work later, because the connection or the server failed and not the request."""
    seen: BaseException | None = error
    while seen is not None:
        response = getattr(seen, "response", None)
        if response is not None:
            return response.status_code in (408, 409, 412, 429) or response.status_code >= 500
        by_client = type(seen).__module__.startswith(("httpx", "httpcore", "requests", "urllib3"))
        if by_client or isinstance(seen, (ConnectionError, TimeoutError)):
            return type(seen).__name__ not in _INTENTIONAL
        if isinstance(seen, json.JSONDecodeError):
            # An error page of a gateway, or half a response, which the client parsed before checking the status.
            return True
        seen = seen.__cause__
    return False


def _explained(error: Exception, repository: Repository, reason: str) -> MemtaxError:
    if isinstance(error, MemtaxError):
        return error
    what = f"{repository.kind} {repository.repo_id}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 401 or type(error).__name__ == "LocalTokenNotFoundError":
        return MemtaxError(f"{what} cannot be pushed without a valid token; run `hf auth login` or set HF_TOKEN ({reason})")
    if status in (403, 404):
        return MemtaxError(f"{what} cannot be pushed with this token; check that it may write to that namespace ({reason})")
    return MemtaxError(f"{what} cannot be pushed: {reason}")


def _readable(content: Path | bytes) -> str | bytes:
    return content if isinstance(content, bytes) else str(content)


def _size(content: Path | bytes) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size
