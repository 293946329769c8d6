"""A Hugging Face Hub on loopback, for tests: the routes that the real clients use, in memory, with faults on request.

    with HubServer() as hub:
        hub.add("dataset", "org/name", {"README.md": b"..."})      # or push to it with huggingface_hub
        hub.fail("PUT", "/lfs/", "drop", times=2)                   # the next two such requests are cut off
        subprocess.run([...], env=hub.environment(cache))

Repositories have commits, branches, tags, private ones among them; files have git or LFS object ids, ETags and ranges. One
token is known; it may write to `org` and `tester`.
"""

# ruff: noqa: A002 - the Hub says id and type

import os
import threading
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from pathlib import Path

from helpers.hub.repositories import LFS_SUFFIXES, Blob, Repo
from helpers.hub.routes import ROUTES, TOKEN, Handler


@dataclass
class Fault:
    method: str
    path: str
    kind: int | str
    times: int


class HubServer:
    """The server; a context manager. `repos` maps (type, id) to what it holds, `requests` lists what was asked."""

    handler = Handler
    routes = tuple(ROUTES)

    last_port = 0

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.lfs: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.faults: list[Fault] = []
        self.lock = threading.RLock()
        handler = type("BoundHandler", (self.handler,), {"hub": self})
        try:  # The address of the last server, so that processes of several tests can be forked from one.
            self.server = ThreadingHTTPServer(("127.0.0.1", HubServer.last_port), handler)
        except OSError:
            self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        HubServer.last_port = self.server.server_address[1]
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> "HubServer":
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def add(self, type: str, id: str, files: dict[str, bytes], private: bool = False) -> Repo:
        """Put a repository there, or another commit on its main branch."""
        repo = self.repos.setdefault((type, id), Repo(type, id, private))
        blobs = {path: Blob(data, path.endswith(LFS_SUFFIXES)) for path, data in files.items()}
        repo.commit("main", "add", blobs)
        return repo

    def add_folder(self, type: str, id: str, folder: Path, branch: str = "main") -> Repo:
        """Put the files of a folder there as a commit on a branch."""
        repo = self.repos.setdefault((type, id), Repo(type, id))
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
        repo.commit(branch, "add", {path: Blob(data, path.endswith(LFS_SUFFIXES)) for path, data in files.items()})
        return repo

    def fail(self, method: str, path: str, kind: int | str, times: int = 1) -> None:
        """Answer the next requests whose path contains `path` with a status, or cut them off: before anything is done
        (`drop`), or when it is done and only the answer is missing (`lost`)."""
        self.faults.append(Fault(method, path, kind, times))

    def count(self, method: str, path: str) -> int:
        """Requests so far whose path contains `path`."""
        return sum(asked == method and path in where for asked, where in self.requests)

    def environment(self, cache: object, token: str | None = TOKEN) -> dict[str, str]:
        """For a child process: this endpoint, empty caches under `cache`, and a guard against every other address."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING_FACE"))}
        guard = str(Path(__file__).resolve().parents[1] / "socketguard")
        return {
            **kept,
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(cache),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([guard, *filter(None, [os.environ.get("PYTHONPATH"), os.getcwd()])]),
            **({"HF_TOKEN": token} if token else {}),
        }
