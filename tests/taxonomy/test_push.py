"""`push_to_hub` and `from_pretrained` by name, against a small Hub on the loopback interface."""

import base64
import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from memtax.errors import MemtaxError
from memtax.taxonomy.predictor import Predictor
from tests.taxonomy import simulated

SHA = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """Repositories as dictionaries: create, preupload, commit, revision, resolve."""

    repositories: dict

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/api/repos/create":
            name = json.loads(body)["name"]
            owner = json.loads(body).get("organization") or "me"
            self.repositories.setdefault(f"{owner}/{name}", {})
            return self.answer({"url": f"http://{self.headers['Host']}/{owner}/{name}", "name": f"{owner}/{name}"})
        if self.path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", self.path):
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(body)["files"]
            ]
            return self.answer({"files": files})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", self.path):
            for line in filter(None, body.decode().split("\n")):
                entry = json.loads(line)
                if entry["key"] == "file":
                    self.repositories[found[1]][entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            url = f"http://{self.headers['Host']}/{found[1]}/commit/{SHA}"
            return self.answer({"commitUrl": url, "commitOid": SHA, "success": True})
        return self.answer({"error": "no such route"}, 404)

    def do_GET(self):
        if found := re.match(r"/api/models/([^/]+/[^/]+)(/revision/[^?]+)?(\?|$)", self.path):
            if found[1] not in self.repositories:
                return self.answer({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
            files = [{"rfilename": name} for name in self.repositories[found[1]]]
            return self.answer({"id": found[1], "sha": SHA, "siblings": files, "private": False, "tags": [], "downloads": 0})
        if (found := re.match(r"/([^/]+/[^/]+)/resolve/[^/]+/([^?]+)", self.path)) and found[1] in self.repositories:
            content = self.repositories[found[1]][found[2]]
            headers = {"ETag": f'"{len(content)}"', "X-Repo-Commit": SHA, "Content-Length": str(len(content))}
            return self.answer(content, 200, headers)
        return self.answer({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET

    def answer(self, content, status=200, headers=None):
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), "Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub():
    Hub.repositories = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()


def child(code, endpoint, home):
    """Run code in a process that may talk to the loopback Hub: the tests themselves are offline."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": "hf_test"}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_push_and_load_by_name(hub, tmp_path):
    predictor = Predictor.fit(simulated.table(rows=1500), factors=("a", "b"), resamples=20)
    predictor.save_pretrained(tmp_path / "local")
    code = f"""
from memtax import Predictor
from memtax.errors import MemtaxError
url = Predictor.from_pretrained({str(tmp_path / "local")!r}).push_to_hub("lab/predictor")
assert url.endswith("/lab/predictor/commit/{SHA}"), url
Predictor.from_pretrained("lab/predictor").save_pretrained({str(tmp_path / "again")!r})
try:
    Predictor.from_pretrained("lab/absent")
except MemtaxError as error:
    print(error)
"""
    done = child(code, hub, tmp_path / "home")
    assert done.returncode == 0, done.stderr
    assert "lab/absent is no folder, and no predictor on the Hub" in done.stdout
    assert set(Hub.repositories["lab/predictor"]) == {"README.md", "model.safetensors", "predictor.json"}
    for name in ("README.md", "model.safetensors", "predictor.json"):
        content = (tmp_path / "local" / name).read_bytes()
        assert Hub.repositories["lab/predictor"][name] == content
        assert (tmp_path / "again" / name).read_bytes() == content


def test_no_hub_is_one_line(tmp_path):
    predictor = Predictor.fit(simulated.table(rows=1500), factors=("a", "b"), resamples=20)
    # The tests run offline.
    with pytest.raises(MemtaxError, match="lab/predictor cannot be pushed"):
        predictor.push_to_hub("lab/predictor")
    with pytest.raises(MemtaxError, match="cannot be pushed"):
        predictor.push_to_hub("no name/at all/of this kind")
