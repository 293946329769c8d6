"""`memtax explore` as it is served, without a browser: every event of the page, sent as the page's own script sends it."""

import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

from helpers.report_run import make_run

pytest.importorskip("gradio", reason="the extra explore is not installed")
TESTS = Path(__file__).parents[1]


class Page:
    """A session of the page at an address."""

    def __init__(self, url):
        self.url = url.rstrip("/")
        self.config = json.loads(self.read("/config"))
        self.events = {
            (one["targets"][0][1], one["api_name"] if one["api_visibility"] == "public" else None): one
            for one in self.config["dependencies"]
        }
        self.fired = set()

    def read(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read().decode()

    def fire(self, event, name, *data, selected=None):
        """Outputs of an event, or the notice that it shows."""
        number = self.events[event, name]["id"]
        self.fired.add(number)
        session = f"session{len(self.fired)}-{os.urandom(4).hex()}"
        body = {"data": data, "fn_index": number, "session_hash": session, "event_data": selected}
        self.read("/gradio_api/queue/join", body)
        messages = [
            json.loads(line.removeprefix("data: "))
            for line in self.read(f"/gradio_api/queue/data?session_hash={session}").split("\n")
            if line.startswith("data: ")
        ]
        (done,) = [message for message in messages if message["msg"] == "process_completed"]
        return done["output"]["data"] if done["success"] else done["output"]["error"]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    run = make_run(folder / "run")
    vocabulary = {token: number for number, token in enumerate(["<e>", "row", *map(str, range(1, 40))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<e>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<e>").save_pretrained(folder / "model")
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = GPTNeoXConfig(vocab_size=len(vocabulary), max_position_embeddings=80, **shape)
    GPTNeoXForCausalLM(config).save_pretrained(folder / "model")
    command = [
        sys.executable,
        "-u",
        "-m",
        "memtax",
        "explore",
        str(run),
        "--model",
        str(folder / "model"),
        "--no-browser",
        "--json",
    ]
    # A connection to anything but loopback is refused, and said on stderr.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS / "helpers" / "socketguard"), str(TESTS.parent)])}
    with (folder / "stderr").open("w") as errors:
        served = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
        try:
            line = served.stdout.readline()
            assert line, (folder / "stderr").read_text()[-2000:]
            opened = Page(json.loads(line)["address"])
            yield opened
            assert opened.fired == {one["id"] for one in opened.config["dependencies"]}, "an event was not tried"
        finally:
            served.terminate()
            assert served.stdout.read() == ""  # one document, and nothing after it
            served.wait(20)
    assert "a test tried to" not in (folder / "stderr").read_text()


EVERYTHING = ([], "all", "", "", "", 0, 1, "")


def test_rows_open_filter_and_say_what_is_wrong(page):
    total, table = page.fire("load", None, *EVERYTHING)
    whole = int(re.search(r"\*\*([\d,]+) sequences", total)[1])
    assert len(table["data"]) == min(whole, 200)
    assert table["headers"][:2] == ["sequence id", "taxonomy"]
    category = table["headers"].index("taxonomy")
    counts = {}
    for name in ("recitation", "reconstruction", "recollection"):
        total, chosen = page.fire("click", "rows", [name], *EVERYTHING[1:])
        counts[name] = int(re.search(r"\*\*([\d,]+) sequences", total)[1])
        assert {row[category] for row in chosen["data"]} == {name}
    assert sum(counts.values()) == whole
    often = page.fire("click", "rows", [], "memorized", "sequence_duplicates", "6", "", 0, 1, "")
    assert 0 < int(re.search(r"\*\*([\d,]+) sequences", often[0])[1]) <= counts["recitation"]
    assert page.fire("click", "rows", [], "all", "sequence_duplicates", "six", "", 0, 1, "") == "'six' is not a number"


def test_a_row_that_is_clicked_shows_its_tokens(page):
    _, table = page.fire("load", None, *EVERYTHING)
    chosen, *shown = page.fire("select", None, table, selected={"index": [2, 0], "value": None})
    assert chosen == table["data"][2][0]
    tokens, near, facts = page.fire("input", "details", chosen)
    assert shown == [tokens, near, facts]
    assert len(tokens) == 64
    assert tokens[0]["class_or_confidence"] is None
    assert {piece["class_or_confidence"] for piece in tokens[1:]} <= {"90% or more", "50 to 90%", "10 to 50%", "less than 10%"}
    assert "".join(piece["token"] for piece in tokens) == dict(facts["data"])["text"]
    assert {"sequence_duplicates", "is_memorized", "document"} <= {name for name, _ in facts["data"]}
    assert near["headers"] == ["rank", "neighbour_id", "cosine", "text"]
    assert page.fire("input", "details", 7) == "no sequence 7 in this run"


def test_a_text_of_ones_own(page):
    text = " ".join(f"row {number}" for number in range(1, 33))
    tokens, facts = page.fire("click", "analyse", text, 2)
    found = dict(facts["data"])
    # 64 tokens, which this model of random weights does not know by heart; the counter goes up by one.
    assert len(tokens) == 64
    assert (found["taxonomy"], found["is_incrementing"], found["is_memorized"]) == ("reconstruction", "True", "False")
    assert float(found["prompt_perplexity"]) > 1
    assert dict(page.fire("click", "analyse", text, 6)[1]["data"])["taxonomy"] == "recitation"
    assert page.fire("click", "analyse", " ", 1) == "there is no text to analyze"
