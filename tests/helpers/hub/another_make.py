"""A Hub of another make: what the real one may do, and `HubServer` does not.

Listings come in pages with `Link` headers. Large files are put to and read from a storage host on another port, which refuses
requests that carry the Hub's token, and an upload is verified. Small files are answered by a redirect within the Hub. ETags are
weak or without quotes. There is no `paths-info`, and `preupload` tells no object ids. Repositories may have moved.
"""

# ruff: noqa: A002 - the Hub says id

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, urlsplit

from helpers.hub.routes import ROUTES, Handler
from helpers.hub.server import HubServer

ENTRIES_A_PAGE = 2


class Storage(BaseHTTPRequestHandler):
    """Objects by digest, as behind signed addresses."""

    protocol_version = "HTTP/1.1"
    hub: "OtherHub"

    def log_message(self, *_: object) -> None:
        pass

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.hub.storage_requests.append(("PUT", self.path))
        if self.signed():
            self.hub.lfs[self.path.split("?")[0].strip("/")] = data
            self.answer(200, b"", {"ETag": '"part"'})

    def do_GET(self) -> None:
        self.hub.storage_requests.append((self.command, self.path))
        if not self.signed():
            return
        data, wanted = self.hub.lfs[self.path.split("?")[0].strip("/")], self.headers.get("Range")
        if wanted is None:
            self.answer(200, data, {"ETag": '"storage-has-its-own"'})
        else:
            first, last = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted).groups()
            last = min(int(last or len(data)), len(data) - 1)
            headers = {"Content-Range": f"bytes {first}-{last}/{len(data)}", "ETag": '"storage-has-its-own"'}
            self.answer(206, data[int(first) : last + 1], headers)

    do_HEAD = do_GET

    def signed(self) -> bool:
        """As a store of objects does: an address is signed, and a token beside the signature is an error."""
        if "authorization" not in self.headers and "signature=" in self.path:
            return True
        self.answer(400, b"<Error><Code>InvalidArgument</Code></Error>", {})
        return False

    def answer(self, status: int, data: bytes, headers: dict) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


class OtherHandler(Handler):
    hub: "OtherHub"

    def handle_any(self) -> None:
        old = next((name for name in self.hub.moved if f"/{name}" in self.path), None)
        if old is None:
            super().handle_any()
            return
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.lost = False
        self.answer(307, b"", {"Location": self.path.replace(old, self.hub.moved[old], 1)})

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any

    def tree(self, kind: str, id: str, revision: str, folder: str | None = None) -> None:
        whole = Handler.answer

        def page(status: int, body: object = b"", headers: dict | None = None, error: str | None = None) -> None:
            if status == 200:
                start = int(self.query.get("cursor", ["0"])[0])
                headers, end = {}, start + ENTRIES_A_PAGE
                if end < len(body):
                    path = quote(urlsplit(self.path).path)
                    deep = self.query.get("recursive", ["false"])[0]
                    headers["Link"] = f'<{self.hub.url}{path}?recursive={deep}&cursor={end}>; rel="next"'
                self.hub.pages += 1
                body = body[start:end]
            whole(self, status, body, headers, error)

        self.answer = page
        try:
            super().tree(kind, id, revision, folder)
        finally:
            del self.answer

    def paths_info(self, kind: str, id: str, revision: str) -> None:
        self.answer(404, error="NotFound")

    def preupload(self, kind: str, id: str, revision: str) -> None:
        whole = Handler.answer
        self.answer = lambda status, body=b"", **more: whole(
            self, status, {"files": [{**file, "oid": None} for file in body["files"]]} if status == 200 else body, **more
        )
        try:
            super().preupload(kind, id, revision)
        finally:
            del self.answer

    def lfs_batch(self, id: str, kind: str | None = None) -> None:
        if self.repo(kind, id, write=True):
            objects = []
            for asked in json.loads(self.body)["objects"]:
                put = {"href": f"{self.hub.storage_url}/{asked['oid']}?signature=x", "header": {}}
                check = {"href": f"{self.hub.url}/api/verify/{asked['oid']}", "header": {}}
                known = asked["oid"] in self.hub.lfs
                objects.append({**asked, **({} if known else {"actions": {"upload": put, "verify": check}})})
            self.answer(200, {"transfer": "basic", "objects": objects})

    def verify(self, oid: str) -> None:
        asked = json.loads(self.body)
        right = asked == {"oid": oid, "size": len(self.hub.lfs.get(oid, b""))}
        self.hub.verified.append(oid)
        self.answer(200 if right else 422, {})

    def resolve(self, id: str, revision: str, file: str, kind: str | None = None) -> None:
        repo = self.repo(kind, id)
        commit = self.revision(repo, revision) if repo else None
        if commit is None:
            return
        headers, blob = {"X-Repo-Commit": commit.oid}, commit.files.get(file)
        if blob is None:
            self.answer(404, headers=headers, error="EntryNotFound")
        elif blob.lfs:
            self.hub.lfs[blob.sha256] = blob.data
            headers |= {
                "X-Linked-Etag": f'"{blob.sha256}"',
                "X-Linked-Size": str(len(blob.data)),
                "ETag": 'W/"of-the-redirect"',
            }
            self.answer(302, b"", {**headers, "Location": f"{self.hub.storage_url}/{blob.sha256}?signature=y"})
        else:
            place = f"/api/resolve-cache/{repo.type}s/{repo.id}/{commit.oid}/{quote(file)}"
            self.answer(307, b"", {**headers, "ETag": f'W/"{blob.oid}"', "Location": place})

    def cached(self, kind: str, id: str, revision: str, file: str) -> None:
        repo = self.repo(kind, id)
        commit = self.revision(repo, revision) if repo else None
        if commit is not None:
            blob = commit.files[file]
            self.answer(200, blob.data, {"X-Repo-Commit": commit.oid, "ETag": f'W/"{blob.oid}"', "Content-Type": "text/plain"})


class OtherHub(HubServer):
    """As `HubServer`; `moved` maps old names to new ones."""

    handler = OtherHandler
    routes = (
        ("POST", "/api/verify/(?P<oid>[0-9a-f]{64})", "verify"),
        (
            "GET",
            r"/api/resolve-cache/(?P<kind>models|datasets|spaces)/(?P<id>[\w.-]+/[\w.-]+)/(?P<revision>[0-9a-f]{40})/(?P<file>.+)",
            "cached",
        ),
        *ROUTES,
    )

    def __init__(self) -> None:
        super().__init__()
        self.moved: dict[str, str] = {}
        self.storage_requests: list[tuple[str, str]] = []
        self.verified: list[str] = []
        self.pages = 0
        self.storage = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundStorage", (Storage,), {"hub": self}))
        self.storage.daemon_threads = True
        # Another host than the Hub's: the client must not send its token there.
        self.storage_url = f"http://127.0.0.1:{self.storage.server_address[1]}"

    def __enter__(self) -> "OtherHub":
        threading.Thread(target=self.storage.serve_forever, daemon=True).start()
        super().__enter__()
        return self

    def __exit__(self, *reason: object) -> None:
        super().__exit__(*reason)
        self.storage.shutdown()
        self.storage.server_close()
