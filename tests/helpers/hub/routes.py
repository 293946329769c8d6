"""The routes of a Hub that the real clients use."""

# ruff: noqa: A001, A002 - the Hub says id

import base64
import hashlib
import json
import re
import socket
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

from helpers.hub.repositories import LFS_SUFFIXES, Blob, Commit, Repo

if TYPE_CHECKING:
    from helpers.hub.server import HubServer

TOKEN = "hf_loopback"
TYPES = {"models": "model", "datasets": "dataset", "spaces": "space"}
REPO = r"(?P<id>[\w.-]+(?:/[\w.-]+)?)"


class Handler(BaseHTTPRequestHandler):
    """One request. Routes are methods in `ROUTES`."""

    hub: "HubServer"
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, body: object = b"", headers: dict | None = None, error: str | None = None) -> None:
        if error is not None:
            headers = {**(headers or {}), "X-Error-Code": error, "X-Error-Message": error}
            body = {"error": error}
        if self.lost:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        merged = {"Content-Length": str(len(data)), "Content-Type": "application/json", **(headers or {})}
        for name, value in merged.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def handle_any(self) -> None:
        parts = urlsplit(self.path)
        path, self.query = unquote(parts.path), parse_qs(parts.query)
        with self.hub.lock:
            self.hub.requests.append((self.command, path))
            fault = next((f for f in self.hub.faults if f.times and f.method == self.command and f.path in path), None)
            if fault:
                fault.times -= 1
        length = int(self.headers.get("Content-Length") or 0)
        if fault and fault.kind == "drop":
            # Half of the body is read, then the line goes dead.
            self.rfile.read(length // 2)
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.body = self._chunked() if "chunked" in self.headers.get("Transfer-Encoding", "") else self.rfile.read(length)
        self.lost = bool(fault) and fault.kind == "lost"
        if fault and not self.lost:
            self.answer(int(fault.kind), {"error": "injected"}, {"Retry-After": "0"} if fault.kind == 429 else {})
            return
        self.user = {f"Bearer {TOKEN}": "tester", "": None}.get(self.headers.get("Authorization", ""), "stranger")
        for method, pattern, name in self.hub.routes:
            found = re.fullmatch(pattern, path)
            if found and method == ("GET" if self.command == "HEAD" else self.command):
                with self.hub.lock:
                    getattr(self, name)(**found.groupdict())
                return
        self.answer(404, error="NotFound")

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any

    def _chunked(self) -> bytes:
        pieces = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def repo(self, kind: str | None, id: str, write: bool = False) -> Repo | None:
        """The repository, or None after an answer that says why not."""
        repo = self.hub.repos.get((TYPES.get(kind or "models", "model"), id))
        if self.user == "stranger" or (write and self.user is None):
            self.answer(401, error="Invalid credentials in Authorization header")
        elif repo is None or (repo.private and self.user is None):
            # The Hub does not say whether a private repository exists.
            self.answer(401 if self.user is None else 404, error="RepoNotFound")
        elif write and id.split("/")[0] not in ("org", "tester"):
            self.answer(403, error="Forbidden: pass `create_pr=1` as a query parameter to create a Pull Request")
        else:
            return repo
        return None

    def revision(self, repo: Repo | None, revision: str | None) -> Commit | None:
        commit = repo.at(revision or "main") if repo else None
        if repo and commit is None:
            self.answer(404, error="RevisionNotFound")
        return commit

    def whoami(self) -> None:
        if self.user != "tester":
            self.answer(401, error="Invalid username or password.")
        else:
            self.answer(200, {"type": "user", "name": "tester", "orgs": [{"name": "org"}], "auth": {"type": "access_token"}})

    def validate_yaml(self) -> None:
        import yaml

        content = json.loads(self.body)["content"]
        header = re.match(r"---\n(.*?)\n---", content, re.S)
        try:
            yaml.safe_load(header[1] if header else "")
        except yaml.YAMLError as error:
            self.answer(400, {"errors": [{"message": str(error)}], "warnings": []})
        else:
            self.answer(200, {"errors": [], "warnings": []})

    def create(self) -> None:
        asked = json.loads(self.body)
        kind, owner = asked.get("type") or "model", asked.get("organization") or "tester"
        id = f"{owner}/{asked['name']}"
        url = f"{self.hub.url}/{'' if kind == 'model' else kind + 's/'}{id}"
        if self.user != "tester":
            self.answer(401, error="Invalid username or password.")
        elif owner not in ("org", "tester"):
            self.answer(403, error=f"You don't have the rights to create a {kind} under the namespace {owner}")
        elif (kind, id) in self.hub.repos:
            self.answer(409, {"url": url, "error": "You already created this repo"})
        elif kind == "space" and not asked.get("sdk"):
            self.answer(400, {"error": "sdk is required"})
        else:
            repo = self.hub.repos[kind, id] = Repo(
                kind, id, asked.get("private") is True or asked.get("visibility") == "private"
            )
            repo.commit("main", "initial commit", {".gitattributes": Blob(b"*.parquet filter=lfs\n")})
            self.answer(200, {"url": url, "name": id, "id": id})

    def delete_repo(self) -> None:
        asked = json.loads(self.body)
        id = f"{asked.get('organization') or 'tester'}/{asked['name']}"
        if self.repo(f"{asked.get('type') or 'model'}s", id, write=True):
            del self.hub.repos[asked.get("type") or "model", id]
            self.answer(200, {})

    def info(self, kind: str, id: str, revision: str | None = None) -> None:
        repo = self.repo(kind, id)
        if commit := self.revision(repo, revision):
            blobs = "blobs" in self.query
            siblings = [
                {"rfilename": path, **({"size": len(blob.data), "blobId": blob.oid} if blobs else {})}
                for path, blob in commit.files.items()
            ]
            now = "2025-01-01T00:00:00.000Z"
            facts = {"_id": repo.id, "id": repo.id, "author": repo.id.split("/")[0], "sha": commit.oid, "private": repo.private}
            facts |= {"gated": False, "disabled": False, "downloads": 0, "likes": 0, "tags": [], "siblings": siblings}
            self.answer(200, {**facts, "lastModified": now, "createdAt": now})

    def tree(self, kind: str, id: str, revision: str, folder: str | None = None) -> None:
        repo = self.repo(kind, id)
        if commit := self.revision(repo, revision):
            prefix = f"{folder.strip('/')}/" if folder and folder.strip("/") else ""
            inside = {path: blob for path, blob in commit.files.items() if path.startswith(prefix)}
            if prefix and not inside:
                self.answer(404, error="EntryNotFound")
                return
            deep = self.query.get("recursive", ["false"])[0].lower() in ("true", "1")
            folders = sorted({"/".join(path.split("/")[:depth]) for path in inside for depth in range(1, path.count("/") + 1)})
            shown = lambda path: path.startswith(prefix) and (deep or "/" not in path[len(prefix) :])  # noqa: E731
            entries = [{"type": "directory", "path": p, "oid": "0" * 40, "size": 0} for p in folders if shown(p)]
            self.answer(200, entries + [blob.info(path) for path, blob in inside.items() if shown(path)])

    def paths_info(self, kind: str, id: str, revision: str) -> None:
        repo = self.repo(kind, id)
        if commit := self.revision(repo, revision):
            text = self.body.decode()
            paths = json.loads(text)["paths"] if text.startswith("{") else parse_qs(text).get("paths", [])
            found = [commit.files[path].info(path) for path in paths if path in commit.files]
            for path in paths:
                if path not in commit.files and any(name.startswith(f"{path}/") for name in commit.files):
                    found.append({"type": "directory", "path": path, "oid": "0" * 40, "size": 0})
            self.answer(200, found)

    def refs(self, kind: str, id: str) -> None:
        if repo := self.repo(kind, id):
            branches = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": oid} for n, oid in repo.branches.items()]
            tags = [{"name": n, "ref": f"refs/tags/{n}", "targetCommit": oid} for n, oid in repo.tags.items()]
            self.answer(200, {"branches": branches, "tags": tags, "converts": []})

    def commits(self, kind: str, id: str, revision: str) -> None:
        repo = self.repo(kind, id)
        if self.revision(repo, revision):
            now = "2025-01-01T00:00:00.000Z"
            shown = [{"id": c.oid, "title": c.title, "message": "", "date": now, "authors": []} for c in repo.commits[::-1]]
            self.answer(200, shown)

    def branch(self, kind: str, id: str, name: str) -> None:
        if repo := self.repo(kind, id, write=True):
            if name in repo.branches:
                self.answer(409, {"error": "Reference already exists"})
                return
            asked = json.loads(self.body or b"{}") or {}
            if commit := self.revision(repo, asked.get("startingPoint")):
                repo.branches[name] = commit.oid
                self.answer(200, {})

    def tag(self, kind: str, id: str, revision: str) -> None:
        repo = self.repo(kind, id, write=True)
        if commit := self.revision(repo, revision):
            repo.tags[json.loads(self.body)["tag"]] = commit.oid
            self.answer(200, {})

    def preupload(self, kind: str, id: str, revision: str) -> None:
        repo = self.repo(kind, id, write=True)
        if commit := self.revision(repo, revision):
            answers = []
            for file in json.loads(self.body)["files"]:
                large = file["size"] > 10 << 20 or file["path"].endswith(LFS_SUFFIXES)
                known = commit.files.get(file["path"])
                mode = {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
                answers.append({**mode, "oid": known.etag if known else None})
            self.answer(200, {"files": answers})

    def lfs_batch(self, id: str, kind: str | None = None) -> None:
        if self.repo(kind, id, write=True):
            objects = []
            for asked in json.loads(self.body)["objects"]:
                known = asked["oid"] in self.hub.lfs
                upload = {"upload": {"href": f"{self.hub.url}/lfs/{asked['oid']}", "header": {}}}
                objects.append({**asked, **({} if known else {"actions": upload})})
            self.answer(200, {"transfer": "basic", "objects": objects})

    def lfs_put(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            self.answer(400, {"error": "the content does not have this digest"})
        else:
            self.hub.lfs[oid] = self.body
            self.answer(200)

    def commit(self, kind: str, id: str, revision: str) -> None:
        repo = self.repo(kind, id, write=True)
        head = self.revision(repo, revision)
        if head is None:
            return
        files, title = dict(head.files), ""
        for line in self.body.splitlines():
            key, value = (json.loads(line)[name] for name in ("key", "value"))
            if key == "header":
                title = value["summary"]
                if value.get("parentCommit") not in (None, head.oid):
                    self.answer(412, {"error": "A commit has happened since. Please refresh and try again."})
                    return
            elif key == "file":
                files[value["path"]] = Blob(base64.b64decode(value["content"]))
            elif key == "lfsFile":
                if value["oid"] not in self.hub.lfs:
                    self.answer(400, {"error": f"LFS object {value['oid']} was not uploaded"})
                    return
                files[value["path"]] = Blob(self.hub.lfs[value["oid"]], lfs=True)
            elif key == "deletedFile":
                files.pop(value["path"], None)
            elif key == "deletedFolder":
                files = {path: blob for path, blob in files.items() if not path.startswith(value["path"].rstrip("/") + "/")}
        made = repo.commit(revision, title, files)
        url = f"{self.hub.url}/{'' if repo.type == 'model' else repo.type + 's/'}{id}/commit/{made.oid}"
        self.answer(200, {"success": True, "commitOid": made.oid, "commitUrl": url, "hookOutput": ""})

    def resolve(self, id: str, revision: str, file: str, kind: str | None = None) -> None:
        repo = self.repo(kind, id)
        commit = self.revision(repo, revision)
        if commit is None:
            return
        blob = commit.files.get(file)
        headers = {"X-Repo-Commit": commit.oid, "Accept-Ranges": "bytes"}
        if blob is None:
            self.answer(404, headers=headers, error="EntryNotFound")
            return
        headers |= {"ETag": f'"{blob.etag}"', "Content-Type": "application/octet-stream"}
        if blob.lfs:
            headers |= {"X-Linked-Etag": f'"{blob.etag}"', "X-Linked-Size": str(len(blob.data))}
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if self.headers.get("If-None-Match") == f'"{blob.etag}"':
            self.answer(304, headers={**headers, "Content-Length": "0"})
        elif wanted and (wanted[1] or wanted[2]):
            size = len(blob.data)
            first = int(wanted[1]) if wanted[1] else max(0, size - int(wanted[2]))
            last = min(int(wanted[2]), size - 1) if wanted[1] and wanted[2] else size - 1
            if first > last:
                self.answer(416, headers={"Content-Range": f"bytes */{size}"})
            else:
                self.answer(206, blob.data[first : last + 1], {**headers, "Content-Range": f"bytes {first}-{last}/{size}"})
        elif self.command == "HEAD":
            self.send_response(200)
            for name, value in {**headers, "Content-Length": str(len(blob.data))}.items():
                self.send_header(name, value)
            self.end_headers()
        else:
            self.answer(200, blob.data, headers)


_API = rf"/api/(?P<kind>models|datasets|spaces)/{REPO}"
_PLAIN = rf"/(?:(?P<kind>datasets|spaces)/)?{REPO}"
_REV = r"(?P<revision>[^/]+(?:/pr/\d+|/convert/\w+)?)"
ROUTES = [
    ("GET", "/api/whoami-v2", "whoami"),
    ("POST", "/api/validate-yaml", "validate_yaml"),
    ("POST", "/api/repos/create", "create"),
    ("DELETE", "/api/repos/delete", "delete_repo"),
    ("GET", rf"{_API}/tree/{_REV}(?P<folder>/.*)?", "tree"),
    ("POST", rf"{_API}/paths-info/{_REV}", "paths_info"),
    ("GET", rf"{_API}/refs", "refs"),
    ("GET", rf"{_API}/commits/{_REV}", "commits"),
    ("POST", rf"{_API}/branch/(?P<name>.+)", "branch"),
    ("POST", rf"{_API}/tag/{_REV}", "tag"),
    ("POST", rf"{_API}/preupload/{_REV}", "preupload"),
    ("POST", rf"{_API}/commit/{_REV}", "commit"),
    ("GET", rf"{_API}/revision/{_REV}", "info"),
    ("GET", _API, "info"),
    ("POST", rf"{_PLAIN}\.git/info/lfs/objects/batch", "lfs_batch"),
    ("PUT", "/lfs/(?P<oid>[0-9a-f]{64})", "lfs_put"),
    ("GET", rf"{_PLAIN}/resolve/{_REV}/(?P<file>.+)", "resolve"),
]
