"""A small loopback Hub that serves folders as dataset and model repositories, for reading only.

Repositories are ROOT/datasets/ORG/NAME and ROOT/models/ORG/NAME; a revision is a folder too, ROOT/models/ORG/NAME@REVISION.
"""

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    root: Path

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        found = re.fullmatch(r"/api/(datasets|models)/([^/]+/[^/]+)/paths-info/(.+)", unquote(urlsplit(self.path).path))
        folder = self.folder(*found.groups()) if found else None
        if folder is None:
            return self.answer(404, {"error": "not found"})
        fields = json.loads(body) if body.startswith(b"{") else {}
        return self.answer(200, [entry for entry in self.tree(folder) if entry["path"] in fields.get("paths", [])])

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        if found := re.fullmatch(r"/api/(datasets|models)/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            return self.info(*found.groups())
        if found := re.fullmatch(r"/api/(datasets|models)/([^/]+/[^/]+)/tree/([^/]+)(?:/(.*))?", path):
            kind, name, revision, below = found.groups()
            folder = self.folder(kind, name, revision)
            if folder is None:
                return self.answer(404, {"error": "not found"}, {"X-Error-Code": "RepoNotFound"})
            recursive = "recursive=true" in urlsplit(self.path).query.lower()
            return self.answer(200, self.tree(folder, below or "", recursive))
        if found := re.fullmatch(r"/(?:(datasets)/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self.file(found[1] or "models", found[2], found[3], found[4])
        return self.answer(404, {"error": "not found"})

    def folder(self, kind, name, revision):
        for candidate in (f"{name}@{revision}", name):
            folder = self.root / kind / candidate
            if folder.is_dir() and (revision in (None, "main", commit(folder)) or candidate != name):
                return folder
        # A commit may be that of another revision.
        others = sorted((self.root / kind).glob(f"{name}@*"))
        return next((folder for folder in others if commit(folder) == revision), None)

    def tree(self, folder, below="", recursive=True):
        start = folder / below
        found = sorted(start.rglob("*") if recursive else start.glob("*")) if start.is_dir() else []
        return [
            {"type": "file", "path": str(path.relative_to(folder)), "size": path.stat().st_size, "oid": digest(path)}
            if path.is_file()
            else {"type": "directory", "path": str(path.relative_to(folder)), "size": 0, "oid": "0" * 40}
            for path in found
        ]

    def info(self, kind, name, revision):
        folder = self.folder(kind, name, revision)
        if folder is None:
            known = (self.root / kind / name).is_dir()
            code = "RevisionNotFound" if known else "RepoNotFound"
            return self.answer(404, {"error": "not found"}, {"X-Error-Code": code})
        siblings = [{"rfilename": entry["path"]} for entry in self.tree(folder) if entry["type"] == "file"]
        facts = {"id": name, "sha": commit(folder), "siblings": siblings, "private": False, "gated": False, "disabled": False}
        return self.answer(200, {**facts, "tags": [], "downloads": 0, "likes": 0, "lastModified": "2024-01-01T00:00:00.000Z"})

    def file(self, kind, name, revision, path):
        folder = self.folder(kind, name, revision)
        file = folder / path if folder else None
        if file is None or not file.is_file():
            code = "EntryNotFound" if folder else "RepoNotFound"
            return self.answer(404, {"error": "not found"}, {"X-Error-Code": code})
        data = file.read_bytes()
        headers = {"ETag": f'"{digest(file)}"', "X-Repo-Commit": commit(folder), "Accept-Ranges": "bytes"}
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, stop = int(wanted[1]), int(wanted[2] or len(data) - 1) + 1
            headers["Content-Range"] = f"bytes {start}-{min(stop, len(data)) - 1}/{len(data)}"
            return self.answer(206, data[start:stop], headers)
        return self.answer(200, data, headers)

    def answer(self, status, body, headers=None):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def digest(path):
    return hashlib.sha1(path.read_bytes()).hexdigest()


def commit(folder):
    names = "".join(f"{path.relative_to(folder)}{digest(path)}" for path in sorted(folder.rglob("*")) if path.is_file())
    return hashlib.sha1(f"{folder}{names}".encode()).hexdigest()


def serve(root):
    """Start serving in a thread; returns the server and its address."""
    handler = type("Rooted", (Handler,), {"root": Path(root)})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_port}"
