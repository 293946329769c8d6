"""llama-cpp-python's own server with a GGUF made here: `pip install 'memtax[served-tests]'`, a build of some ten minutes."""

import json
import socket
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest

from memtax.errors import MemtaxError
from memtax.jobs.mia import Mia
from memtax.lm import resident, served

pytest.importorskip("llama_cpp.server.app", reason="llama-cpp-python[server] is not installed")
gguf_model = pytest.importorskip("helpers.gguf_model", reason="gguf is not installed")

ROUNDING = 0.02
"""Nats: llama.cpp keeps attention's keys and values in 16 bits."""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gguf")
    path = gguf_model.save(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(path), "--logits_all", "true", "--n_ctx", "256"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--n_threads", "1", "--model_alias", "tiny"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=5).read()
                break
            except OSError:
                time.sleep(0.5)
        yield f"openai:http://127.0.0.1:{port}/v1#tiny", str(folder)
    finally:
        process.terminate()
        process.wait(30)
        resident.release()


def test_membership_is_that_of_the_weights_in_transformers_within_rounding(server, tmp_path):
    name, folder = server
    (tmp_path / "texts").mkdir()
    words = " ".join(gguf_model.TEXTS).split()
    rng = np.random.default_rng(0)
    for kind in ("member", "nonmember"):
        texts = [" ".join(rng.choice(words, 12)) for _ in range(8)]
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (tmp_path / "texts" / f"all.{kind}.jsonl").write_text(lines)
    options = {"data": str(tmp_path / "texts"), "attack": ("loss", "min_k", "lowercase"), "resamples": 20}
    ours = Mia(model=name, tokenizer=folder, output=tmp_path / "served", **options).run().table("scores")
    theirs = Mia(model=folder, output=tmp_path / "plain", **options).run().table("scores")
    for column in ours.column_names:
        if column.startswith("attack_"):
            np.testing.assert_allclose(ours.column(column).to_numpy(), theirs.column(column).to_numpy(), atol=ROUNDING)


def test_a_bos_that_the_server_adds_is_accounted_for(server):
    name, folder = server
    assert served.connect(name, folder, (0,)).form == "echo of text"
    with pytest.raises(MemtaxError, match="--bos always"):
        served.connect(name, folder, ())
