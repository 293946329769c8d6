import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import datasets.config
import numpy as np
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants

import memtax
from helpers.small import WORDS, word_tokenizer
from memtax import http_json
from memtax.counting import infini_gram
from memtax.counting.infini_gram import count_windows
from memtax.errors import MemtaxError


def occurrences(corpus, query):
    """How often a list of tokens occurs in a list of documents, by looking at every position."""
    return sum(text[at : at + len(query)] == query for text in corpus for at in range(len(text) - len(query) + 1))


class Index(ThreadingHTTPServer):
    """What the documentation of the API says about count queries, with faults before the right answer."""

    daemon_threads = True

    def __init__(self, corpus, tokenizer, faults=()):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.corpus, self.tokenizer, self.faults = corpus, tokenizer, list(faults)
        self.asked, self.lock = Counter(), threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def answer(self, query):
        ids = query["query_ids"] if "query_ids" in query else self.tokenizer(query["query"])["input_ids"]
        return {"count": occurrences(self.corpus, ids), "approx": False, "token_ids": ids, "latency": 0.1}

    @property
    def name(self):
        return f"infini-gram:v4_test@http://127.0.0.1:{self.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_POST(self):
        server = self.server
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            fault = server.faults.pop(0) if server.faults else None
        if fault == "cut":
            self.connection.close()
            return
        assert query["query_type"] == "count"
        answer = server.answer(query)
        if query["index"] not in ("v4_test", "v2_test"):
            answer = {"error": "no such index"}
        status, body = 200, json.dumps(answer)
        if isinstance(fault, int):
            status, body = fault, "later"
        elif fault is not None:
            body = fault
        else:
            with server.lock:
                server.asked[json.dumps(query.get("query_ids", query.get("query")))] += 1
        self.send_response(status)
        if status == 429:
            self.send_header("Retry-After", "0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())


class MiniIndex(Index):
    """What the documentation of infini-gram mini says: strings are counted, wherever they start."""

    def __init__(self, texts, faults=()):
        super().__init__(texts, None, faults)

    @property
    def name(self):
        return super().name.replace("infini-gram:v4_test", "infini-gram-mini:v2_test")

    def answer(self, query):
        assert set(query) == {"index", "query_type", "query"}
        return {"count": occurrences(self.corpus, query["query"]), "latency": 500.5}


@pytest.fixture(autouse=True)
def _quick(monkeypatch, tmp_path):
    monkeypatch.setattr(http_json, "FIRST_DELAY", 0.001)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def corpus():
    rng = np.random.default_rng(3)
    texts = rng.integers(1, len(WORDS), (30, 40)).tolist()
    return [text[:20] + texts[0][:20] if number % 3 == 0 else text for number, text in enumerate(texts)]


@pytest.fixture
def windows(corpus):
    return np.array([text[at : at + 3] for text in corpus for at in (0, 20)] + [[1, 1, 1]], np.int32)


def expected(corpus, windows):
    return [occurrences(corpus, window) for window in windows.tolist()]


def test_counts_are_those_of_brute_force_whatever_fails_on_the_way(corpus, windows):
    faults = [429, 500, "not JSON", "[]", '{"count": true}', None, None, None]
    faults += ['{"error": "internal"}', '{"count": -1}', '{"count": "7"}', "cut", 503]
    server = Index(corpus, word_tokenizer(), faults)
    found = count_windows(server.name, windows, word_tokenizer())
    assert found.counts == expected(corpus, windows)
    assert (found.asked_by, found.approximate, found.not_counted) == ("tokens", 0, 0)
    queries = {text: times for text, times in server.asked.items() if text.startswith("[")}
    assert set(queries.values()) == {1}
    assert len(queries) == len({tuple(window) for window in windows.tolist()})


def test_what_was_received_before_a_failure_is_not_asked_for_again(corpus, windows, monkeypatch):
    server = Index(corpus, word_tokenizer())
    monkeypatch.setattr(infini_gram, "REQUESTS", 1)
    real, calls = infini_gram._Api.ask, []

    def ask(api, query):
        calls.append(query)
        if len(calls) == 12:
            raise MemtaxError("the index is gone")
        return real(api, query)

    monkeypatch.setattr(infini_gram._Api, "ask", ask)
    with pytest.raises(MemtaxError, match=r"the index is gone; \d+ of \d+ counts are kept"):
        count_windows(server.name, windows, word_tokenizer())
    assert count_windows(server.name, windows, word_tokenizer()).counts == expected(corpus, windows)
    assert {times for text, times in server.asked.items() if text.startswith("[")} == {1}


def test_an_index_of_another_tokenizer_is_asked_by_text(corpus, windows):
    # The index has the same words under other numbers.
    other = word_tokenizer([WORDS[0], *reversed(WORDS[1:])])
    renumbered = [other.convert_tokens_to_ids(word_tokenizer().convert_ids_to_tokens(text)) for text in corpus]
    server = Index(renumbered, other)
    found = count_windows(server.name, windows, word_tokenizer())
    assert found.asked_by == "text"
    assert found.counts == expected(corpus, windows)


def test_infini_gram_mini_counts_strings_whatever_fails_on_the_way_and_is_asked_for_nothing_twice(windows, corpus):
    tokenizer = word_tokenizer()
    texts = [f"and {tokenizer.decode(text)} OR not" for text in corpus]
    server = MiniIndex(texts, [429, 500, "not JSON", "cut", '{"error": "busy"}', '{"count": -1}', 503])
    found = count_windows(server.name, windows, tokenizer)
    # Overlapping occurrences at any character: w1 occurs in w12.
    assert found.counts == [occurrences(texts, tokenizer.decode(window)) for window in windows]
    assert any(ours > theirs for ours, theirs in zip(found.counts, expected(corpus, windows), strict=True))
    assert found.figures(server.name) == {"source": server.name, "asked_by": "text", "approximate": 0, "not_counted": 0}
    assert count_windows(server.name, windows, tokenizer) == found
    assert set(server.asked.values()) == {1}
    assert len(server.asked) == len({tuple(window) for window in windows.tolist()})


def test_infini_gram_mini_reads_no_operators_and_no_folder(tmp_path, monkeypatch):
    assert infini_gram._is_plain("a AND b", has_operators=False)
    assert not infini_gram._is_plain("half \ufffd", has_operators=False)
    one = np.ones((1, 3), np.int32)
    with pytest.raises(MemtaxError, match="an index of infini-gram mini on this disk is not read"):
        count_windows(f"infini-gram-mini:{tmp_path}", one, word_tokenizer())
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(MemtaxError, match=r"infini-gram-mini:v2_x needs api\.infini-gram-mini\.io, and HF_HUB_OFFLINE is set"):
        count_windows("infini-gram-mini:v2_x", one, word_tokenizer())


def test_texts_that_the_api_would_take_for_operators_are_not_asked_for():
    assert [infini_gram._is_plain(text) for text in ("a and b", "a AND b", "a OR b", "half \ufffd", " ")] == [True] + [
        False
    ] * 4


def test_refusals_are_one_line(corpus, windows, monkeypatch):
    server, tokenizer = Index(corpus, word_tokenizer()), word_tokenizer()
    with pytest.raises(MemtaxError, match="gave no count for the index v4_other in 6 attempts: no such index"):
        count_windows(server.name.replace("v4_test", "v4_other"), windows, tokenizer)
    server.faults[:] = [404]
    with pytest.raises(MemtaxError, match="refused the request for v4_test: status 404"):
        count_windows(server.name, windows, tokenizer)
    with pytest.raises(MemtaxError, match="is not an http address"):
        count_windows("infini-gram:v4_test@nowhere", windows, tokenizer)
    with pytest.raises(MemtaxError, match="there is no folder"):
        count_windows("infini-gram:no/such/folder", windows, tokenizer)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(MemtaxError, match=r"infini-gram:v4_x needs api\.infini-gram\.io, and HF_HUB_OFFLINE is set"):
        count_windows("infini-gram:v4_x", windows, tokenizer)


def write_index(folder, corpus):
    """An index of version 4: tokens with a separator before each document, sorted suffixes, and document offsets."""
    folder.mkdir()
    tokens, starts = bytearray(), []
    for text in corpus:
        starts.append(len(tokens))
        tokens += b"\xff\xff" + np.array(text, "<u2").tobytes()
    data = bytes(tokens)
    order = sorted(range(0, len(data), 2), key=lambda at: data[at:])
    width = -(-int(np.ceil(np.log2(len(data)))) // 8)
    (folder / "tokenized.0").write_bytes(data)
    (folder / "table.0").write_bytes(b"".join(at.to_bytes(width, "little") for at in order))
    (folder / "offset.0").write_bytes(np.array(starts, "<u8").tobytes())
    return folder


def test_an_index_on_this_disk_counts_like_brute_force(corpus, windows, tmp_path):
    pytest.importorskip("infini_gram.engine")
    folder = write_index(tmp_path / "index", corpus)
    found = count_windows(f"infini-gram:{folder}", windows, word_tokenizer())
    assert found.counts == expected(corpus, windows)
    with pytest.raises(MemtaxError, match="no first token of a window occurs"):
        count_windows(f"infini-gram:{folder}", np.full((2, 3), 0, np.int32), word_tokenizer())


def test_the_command_writes_a_table_that_filters_and_runs_read(corpus, tmp_path):
    server = Index(corpus, word_tokenizer())
    word_tokenizer().save_pretrained(tmp_path / "tokenizer")
    datasets.Dataset.from_dict({"sequence_id": range(7, 37), "tokens": corpus}).to_parquet(tmp_path / "rows.parquet")
    done = memtax.count(
        corpus=[server.name],
        sequences=[str(tmp_path / "rows.parquet")],
        window=["20:24"],
        tokenizer=str(tmp_path / "tokenizer"),
        output=tmp_path / "counts",
    )
    table = pq.read_table(tmp_path / "counts" / "dataset" / "num_duplicates" / "train.parquet")
    assert table["sequence_id"].to_pylist() == list(range(7, 37))
    assert table["sequence_duplicates"].to_pylist() == [occurrences(corpus, text[20:24]) for text in corpus]
    assert done.figures["num_duplicates" if "num_duplicates" in done.figures else "asked_by"]
    from memtax.filters import DuplicateFilter

    assert DuplicateFilter(str(tmp_path / "counts"))({"sequence_id": [7, 6]})["sequence_duplicates"] == [11, None]
    with pytest.raises(MemtaxError, match="an index is counted alone"):
        memtax.count(corpus=[server.name], output=tmp_path / "other")


def test_a_run_asks_for_all_its_sequences_and_counts_tokens_over_its_corpus(corpus, tmp_path):
    from memtax.pipeline.config import RunConfig
    from memtax.pipeline.stages import _write_counts

    server = Index(corpus, word_tokenizer())
    word_tokenizer().save_pretrained(tmp_path / "tokenizer")
    rows = datasets.Dataset.from_dict({"sequence_id": range(30), "tokens": [text[18:26] for text in corpus]})
    datasets.Dataset.from_dict({"tokens": corpus[:5]}).to_parquet(tmp_path / "sample.parquet")
    config = RunConfig(
        model="none",
        corpus=str(tmp_path / "sample.parquet"),
        output=tmp_path / "run",
        tokenizer=str(tmp_path / "tokenizer"),
        counts=server.name,
        prompt=4,
        continuation=4,
    )
    (tmp_path / "made").mkdir()
    _write_counts(config, rows, tmp_path / "made")
    table = pq.read_table(tmp_path / "made" / "num_duplicates.parquet")
    assert table["sequence_duplicates"].to_pylist() == [occurrences(corpus, text[22:26]) for text in corpus]
    tokens = Counter(token for text in corpus[:5] for token in text)
    frequencies = pq.read_table(tmp_path / "made" / "token_frequencies.parquet").to_pylist()
    assert {row["token_id"]: row["token_frequency"] for row in frequencies if row["token_frequency"]} == dict(tokens)
    totals = json.loads((tmp_path / "made" / "totals.json").read_text())
    assert totals == {
        "tokens": 200,
        "sequences": None,
        "source": server.name,
        "asked_by": "tokens",
        "approximate": 0,
        "not_counted": 0,
    }


def test_no_query_begins_before_the_answers_of_earlier_ones_are_received():
    """A killed process loses at most the queries under way, however slow receiving is."""
    begun, received, ahead = [], [], []

    def receive(number, answer):
        received.append(number)
        ahead.append(len(begun) - len(received))

    assert http_json.ask_all(begun.append, range(50), 4, receive) is None
    assert sorted(received) == list(range(50))
    assert max(ahead) < 4
