"""Walks the table of docs/bad-input.md: each row is made, the command run, and the words looked for."""

import gzip
import json
import logging
import re
import shutil
import struct
import sys
from pathlib import Path

import datasets  # noqa: F401  Its import sets the level of its logger.
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from helpers.versions import older
from memtax import cli
from memtax.corpus import guard

TABLE = Path(__file__).parents[2] / "docs" / "bad-input.md"
ROWS = re.findall(r"^\| (?!Fault|---)(.+?) \| (\w+) \| `(.+)` \|$", TABLE.read_text(encoding="utf-8"), re.M)
USER = {"role": "user", "content": "a"}
FINE = {"tokens": list(range(64))}
# Byte 27 is none: 14 of the first line, 10 before the text, and 3 of its two letters.
NOT_UTF8 = '{"text": "a"}\n{"text": "bä'.encode() + b'\xff"}\n'


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model with 32 ids and 64 positions, without a padding token."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    lm = GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=32, max_position_embeddings=64, pad_token_id=None, **shape))
    folder = tmp_path_factory.mktemp("models") / "lm"
    lm.save_pretrained(folder)
    tokenizer = Tokenizer(WordLevel({"a": 0}, unk_token="a"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="a").save_pretrained(folder)
    return folder


def megatron(folder, tokens, sequences):
    """A Megatron pair of uint16: `sequences` lengths."""
    (folder / "c.bin").write_bytes(np.arange(tokens, dtype="<u2").tobytes())
    starts = np.cumsum([0, *sequences[:-1]]) * 2
    header = b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, 8, len(sequences), 1)
    body = np.array(sequences, "<i4").tobytes() + starts.astype("<i8").tobytes() + np.array([0], "<i8").tobytes()
    (folder / "c.idx").write_bytes(header + body)
    return folder / "c.bin"


def jsonl(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def cut(path, share=0.5):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def written(path, data):
    path.write_bytes(data)
    return path


def parquet(path, rows=2000):
    pq.write_table(pa.table({"tokens": pa.array([[i % 99] * 64 for i in range(rows)], pa.list_(pa.int32()))}), path)
    return path


def gz(path):
    return written(path, gzip.compress(b"".join(json.dumps({"tokens": [i] * 64}).encode() + b"\n" for i in range(500))))


def npy(path):
    np.save(path, np.zeros((10, 64), np.int32))
    return path


def broken(model, folder, change):
    """A copy of the model, changed."""
    copy = folder / "model"
    shutil.copytree(model, copy)
    change(copy)
    return copy


TEXTS = [{"text": f"a a{i}", "label": i % 2, "paraphrases": ["a b"]} for i in range(6)]


def corrupt_page(path):
    columns = {"tokens": [[i % 31] * 64 for i in range(2000)], "text": ["a"] * 2000, "label": [i % 2 for i in range(2000)]}
    pq.write_table(pa.table(columns), path, compression="snappy", use_dictionary=False)
    data = bytearray(path.read_bytes())
    start = pq.read_metadata(path).row_group(0).column(0).data_page_offset
    for at in range(start + 200, start + 2000, 7):
        data[at] ^= 0xFF
    # All columns alike: some readers skip what they need not.
    for column in (1, 2):
        place = pq.read_metadata(path).row_group(0).column(column).data_page_offset
        for at in range(place + 20, place + 60):
            data[at] ^= 0xFF
    return written(path, bytes(data))


def bomb(path, start=b'"', unit=b"a", end=b'"\n'):
    """Sixteen MiB in a few KiB; the test lets a line have four."""
    return written(path, gzip.compress(start + unit * (1 << 24) + end))


def deep(levels):
    # Some of it closed again, and a quote that would hide the rest from who trusts it.
    return b'{"tokens": [1], "text": "[[["}\n"\n' + b'{"text": [0, [], ' * levels + b"]}" * levels + b"\n"


def not_numbers(copy):
    """NaN for the token 7 alone."""
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    weights["gpt_neox.embed_in.weight"][7] = float("nan")
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    # The tokenizer of the other tests knows one word.
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(WordLevel({f"w{number}": number for number in range(32)}, unk_token="w0"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="w0").save_pretrained(copy)


def overflowing(copy):
    """Every weight of the head is near the largest of float16, so that logits are infinite, but none is NaN."""
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    name = next(name for name in weights if name.endswith(("embed_out.weight", "lm_head.weight")))
    weights[name] = weights[name].sign() * 6e4
    save_file(weights, copy / "model.safetensors", {"format": "pt"})


def nan(folder, model, *options, kind="tokens"):
    """Rows of which the one with sequence_id 3 holds the token 7 (not as its first)."""
    tokens = [1, 2, 3, 4, 5, 6]
    rows = [[1, 1, 7, 1, 1, 1] if number == 3 else tokens[number:] + tokens[:number] for number in range(6)]
    made = [{"tokens": row, "label": number % 2} for number, row in enumerate(rows)]
    if kind == "text":
        made = [{"text": " ".join(f"w{token}" for token in row), "paraphrases": ["w4 w5"]} for row in rows]
    return [jsonl(folder / "r.jsonl", *made), *options, "--model", broken(model, folder, not_numbers)]


def without_tokenizer(copy):
    for file in copy.glob("token*"):
        file.unlink()


def pickled(copy):
    (copy / "model.safetensors").unlink()
    torch.save({}, copy / "pytorch_model.bin")


def with_code(copy):
    config = json.loads((copy / "config.json").read_text())
    config |= {"model_type": "strange", "auto_map": {"AutoConfig": "a.C", "AutoModelForCausalLM": "a.M"}}
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "a.py").write_text("raise SystemExit('code of a model ran')")


def score(folder, model, rows=({"tokens": [1] * 64},), window=(32, 32)):
    return [jsonl(folder / "r.jsonl", *rows), "--model", model, "--prompt", window[0], "--continuation", window[1]]


def config(folder, text):
    (folder / "c.yaml").write_text(text)
    return [folder / "c.yaml"]


def changed_input(folder):
    """Counted once; then the rows change under the same name."""
    rows = jsonl(folder / "rows.jsonl", FINE)
    invoke("count", [rows, "--no-windows"], folder / "out")
    jsonl(rows, FINE, FINE)
    return [rows, "--no-windows"]


CASES = {
    "column missing": lambda f, m: [jsonl(f / "r.jsonl", {"title": "a"})],
    "column misnamed": lambda f, m: [jsonl(f / "r.jsonl", FINE), "--column", "tokns"],
    "wrong dtype of tokens": lambda f, m: [jsonl(f / "r.jsonl", {"tokens": 3})],
    "wrong dtype of ids": lambda f, m: [jsonl(f / "r.jsonl", {**FINE, "sequence_id": "a"})],
    "text without a tokenizer": lambda f, m: [jsonl(f / "r.jsonl", {"text": "a"})],
    "null token": lambda f, m: [jsonl(f / "r.jsonl", {"tokens": [1, None] * 40})],
    "null row id": lambda f, m: [jsonl(f / "r.jsonl", {**FINE, "sequence_id": 1}, {**FINE, "sequence_id": None})],
    "path as a row id": lambda f, m: [jsonl(f / "r.jsonl", {**FINE, "sequence_id": "../../etc/passwd"})],
    "duplicate ids": lambda f, m: [jsonl(f / "r.jsonl", {**FINE, "sequence_id": 7}, {**FINE, "sequence_id": 7})],
    "NaN among tokens": lambda f, m: [jsonl(f / "r.jsonl", {"tokens": [1.0, float("nan")] * 40})],
    "negative id": lambda f, m: [jsonl(f / "r.jsonl", {"tokens": [1, -100] * 40})],
    "id beyond the vocabulary": lambda f, m: [jsonl(f / "r.jsonl", {"tokens": [1, 100] * 40}), "--vocabulary-size", 100],
    "id beyond 32 bits": lambda f, m: [jsonl(f / "r.jsonl", {"tokens": [1, 2**31] * 40})],
    "no rows": lambda f, m: [parquet(f / "r.parquet", rows=0)],
    "empty file": lambda f, m: [written(f / "r.jsonl", b"")],
    "only empty rows": lambda f, m: [jsonl(f / "r.jsonl", {"tokens": []}, {"tokens": []})],
    "unknown kind of file": lambda f, m: [written(f / "r.doc", b"abc")],
    "missing path": lambda f, m: [f / "nowhere"],
    "invalid UTF-8": lambda f, m: [written(f / "r.jsonl", b'{"text": "\xff\xfe"}\n'), "--tokenizer", m],
    "invalid UTF-8 under a filter": lambda f, m: ["templates", written(f / "r.jsonl", NOT_UTF8)],
    "invalid UTF-8, compressed": lambda f, m: [written(f / "r.jsonl.gz", gzip.compress(NOT_UTF8)), "-m", m],
    "half a surrogate pair": lambda f, m: [jsonl(f / "r.jsonl", *TEXTS, {"text": "a \ud800", "label": 1}), "-m", m],
    "only blank lines": lambda f, m: [written(f / "r.jsonl", b"\n \n")],
    "fractions as row ids": lambda f, m: ["templates", jsonl(f / "r.jsonl", {"text": "a", "sequence_id": 0.5})],
    "objects instead of text": lambda f, m: ["templates", jsonl(f / "r.jsonl", {"text": {"a": 1}})],
    "objects instead of text to learn from": lambda f, m: [jsonl(f / "r.jsonl", {"text": {"a": 1}}), f / "r.jsonl", "-m", m],
    "null instead of an object": lambda f, m: [written(f / "r.jsonl", b"nulls")],
    "null instead of an object, further down": lambda f, m: [
        written(f / "r.jsonl", b'{"text": "a", "label": 1}\n \tnull\n'),
        "-m",
        m,
    ],
    "null instead of an object, compressed": lambda f, m: ["templates", written(f / "r.jsonl.gz", gzip.compress(b"null\n"))],
    "null at the start of a JSON list": lambda f, m: [*[written(f / "r.json", b"[ null, {}]")] * 2, "-m", m],
    "JSON nested without end": lambda f, m: [written(f / "r.json", deep(10**5))],
    "JSON lines nested without end, compressed": lambda f, m: [written(f / "r.jsonl.gz", gzip.compress(deep(10**5))), "-m", m],
    "truncated JSONL": lambda f, m: [cut(jsonl(f / "r.jsonl", FINE), 0.6)],
    "corrupt Parquet": lambda f, m: [written(f / "r.parquet", b"PAR1" + bytes(range(256)) + b"PAR1")],
    "truncated Parquet": lambda f, m: [cut(parquet(f / "r.parquet"))],
    "corrupt page of Parquet": lambda f, m: [corrupt_page(f / "r.parquet"), "--column", "tokens", "--no-windows"],
    "corrupt page of Parquet under a filter": lambda f, m: ["templates", corrupt_page(f / "r.parquet")],
    "corrupt page of Parquet to be scored": lambda f, m: [corrupt_page(f / "r.parquet"), "--column", "tokens", "-m", m],
    "corrupt page of Parquet with labels": lambda f, m: [corrupt_page(f / "r.parquet"), "-m", m],
    "truncated gzip": lambda f, m: [cut(gz(f / "r.jsonl.gz"))],
    "truncated gzip of texts": lambda f, m: [cut(gz(f / "r.jsonl.gz")), "-m", m],
    "JSONL that decompresses to one huge line": lambda f, m: [bomb(f / "r.jsonl.gz"), "--tokenizer", m],
    "text that decompresses to an implausible size": lambda f, m: [bomb(f / "r.txt.gz"), "-m", m],
    "labeled JSONL that decompresses to one huge line": lambda f, m: [bomb(f / "r.jsonl.gz"), "-m", m],
    "JSON that decompresses without end": lambda f, m: [bomb(f / "r.json.gz", b"[", b"1,", b"1]"), "-m", m],
    "truncated bin": lambda f, m: [written(f / "r.bin", bytes(2 * 13)), "--sequence-length", 8],
    "bin of another index": lambda f, m: [megatron(f, 300, [64, 64])],
    "truncated idx": lambda f, m: [cut(megatron(f, 128, [64, 64]).with_suffix(".idx"), 0.8).with_suffix(".bin")],
    "corrupt idx": lambda f, m: [written(megatron(f, 128, [64, 64]).with_suffix(".idx"), bytes(66)).with_suffix(".bin")],
    "truncated npy": lambda f, m: [cut(npy(f / "r.npy"))],
    "model missing": lambda f, m: score(f, f / "nowhere"),
    "truncated safetensors": lambda f, m: score(f, broken(m, f, lambda copy: cut(copy / "model.safetensors"))),
    "model without a tokenizer": lambda f, m: [jsonl(f / "r.jsonl", *TEXTS), "-m", broken(m, f, without_tokenizer)],
    "weights as pickle": lambda f, m: score(f, broken(m, f, pickled)),
    "model with its own code": lambda f, m: score(f, broken(m, f, with_code)),
    "truncated weights": lambda f, m: [
        jsonl(f / "r.jsonl", *TEXTS),
        "-m",
        broken(m, f, lambda copy: cut(copy / "model.safetensors", 0.9)),
    ],
    "NaN in the weights": lambda f, m: nan(f, m, "--prompt", 2, "--continuation", 2),
    "NaN in the weights, window by window": lambda f, m: nan(f, m, "--prompt", 1, "--continuation", 1, "--stride", 2),
    "NaN in the weights of an attacked model": lambda f, m: nan(f, m, "--attack", "loss"),
    "NaN in the weights of a paraphraser": lambda f, m: nan(f, m, "--prompts", "bare", "--count", 1, kind="text"),
    "infinity in the logits of a paraphraser": lambda f, m: [
        *(jsonl(f / "r.jsonl", *TEXTS), "--model", broken(m, f, overflowing), "--dtype", "float16"),
        *("--prompts", "bare", "--count", 1),
    ],
    "NaN in gradients": lambda f, m: nan(f, m, kind="text"),
    "NaN in gradients of training examples": lambda f, m: nan(f, m, jsonl(f / "t.jsonl", {"tokens": [1, 2]})),
    "gradients beyond float16": lambda f, m: [
        *[jsonl(f / "r.jsonl", *({"tokens": [1, 2, 3, number]} for number in range(4, 8)))] * 2,
        *("--model", broken(m, f, overflowing), "--dtype", "float16"),
    ],
    "tokens of another tokenizer": lambda f, m: score(f, m, [{"tokens": [1, 32] * 32}]),
    "window longer than the model": lambda f, m: score(f, m, window=(64, 64)),
    "misspelled configuration key": lambda f, m: config(f, "modle: a\ncorpus: b\noutput: c\n"),
    "configuration key given twice": lambda f, m: config(f, "model: a\ncorpus: b\noutput: c\nprompt: 8\nprompt: 9\n"),
    "wrong type in the configuration": lambda f, m: config(f, "model: a\ncorpus: b\noutput: c\nprompt: eight\n"),
    "YAML with a tag": lambda f, m: config(f, "!!python/object/apply:os.system [exit]\n"),
    "YAML not closed": lambda f, m: config(f, "model: [a\n"),
    "unknown filter": lambda f, m: ["templats", jsonl(f / "r.jsonl", {"text": "a"})],
    "unknown parameter of a filter": lambda f, m: ["templates", jsonl(f / "r.jsonl", {"text": "a"}), "--set", "depth=3"],
    "column that a filter needs": lambda f, m: ["compressibility", jsonl(f / "r.jsonl", {"title": "a"})],
    "target missing": lambda f, m: [jsonl(f / "r.jsonl", {"a": 1.0, "taxonomy": 1}), "--factors", "a"],
    "factor missing": lambda f, m: [
        jsonl(f / "r.jsonl", {"a": 1.0, "is_memorized": True, "taxonomy": 1}),
        "--factors",
        "a:linear,b:linear",
        "--split-on",
        "a:linear,b:linear",
    ],
    "label missing": lambda f, m: [jsonl(f / "r.jsonl", {"text": "a"}), "-m", m],
    "invalid label": lambda f, m: [jsonl(f / "r.jsonl", {"text": "a", "label": 2}), "-m", m],
    "members only": lambda f, m: [jsonl(f / "r.jsonl", {"text": "a", "label": 1}), "-m", m],
    "unknown attack": lambda f, m: [jsonl(f / "r.jsonl", *TEXTS), "-m", m, "--attack", "lost"],
    "column of text missing": lambda f, m: [jsonl(f / "r.jsonl", {"title": "a"}), "-m", m],
    "conversations without a chat template": lambda f, m: score(f, m, [{"messages": [USER, {**USER, "role": "assistant"}]}]),
    "conversations without an answer": lambda f, m: [
        jsonl(f / "r.jsonl", {"messages": [USER]}, {"messages": [USER, "a"]}),
        "-m",
        m,
    ],
    "conversations against texts": lambda f, m: [
        *("--members", jsonl(f / "r.jsonl", {"messages": [USER, {**USER, "role": "assistant"}]})),
        *("--nonmembers", jsonl(f / "s.jsonl", {"text": "a"}), "-m", m),
    ],
    "paraphrases missing": lambda f, m: [jsonl(f / "r.jsonl", {"text": "a"}), "-m", m],
    "class column missing": lambda f, m: [
        jsonl(f / "r.jsonl", *TEXTS),
        f / "r.jsonl",
        "-m",
        m,
        "--class-column",
        "topic",
    ],
    "changed input under a finished output": lambda f, m: changed_input(f),
}


def invoke(verb, words, output):
    sys.argv = ["memtax", "--quiet", verb, *map(str, words), "--output", str(output)]
    cli.main()


def test_the_table_and_the_cases_are_the_same():
    assert [name for name, _, _ in ROWS] == list(CASES)


@pytest.mark.parametrize(("name", "verb", "words"), ROWS, ids=[row[0] for row in ROWS])
def test_row(name, verb, words, model, tmp_path, monkeypatch, capsys, caplog):
    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.setattr(guard, "LONGEST_LINE", 1 << 22)
    # What the command sets before `datasets` is imported; here that was long ago.
    caplog.set_level(logging.CRITICAL, "datasets")
    with pytest.raises(SystemExit) as first:
        try:
            given = CASES[name](tmp_path, model)
        except SystemExit as ended:
            # The finished first command of a case that needs two.
            if ended.code:
                raise
            given = [tmp_path / "rows.jsonl", "--no-windows"]
            jsonl(given[0], FINE, FINE)
        capsys.readouterr()
        invoke(verb, given, tmp_path / "out")
    error = capsys.readouterr().err
    assert first.value.code == 2, error
    lines = [line for line in error.splitlines() if line.startswith("memtax: ")]
    assert len(lines) == 1
    # Older versions of the library refuse such files first, in their own words.
    own = name in ("only blank lines", "conversations without an answer") and older("datasets", "5")
    assert words in lines[0] or (own and "r.jsonl::train cannot be read: " in lines[0])
    assert "Traceback" not in error
    assert not [path for path in tmp_path.rglob(".*") if path.name.endswith((".tmp", ".lock"))]
    assert not any((tmp_path / "out").rglob("*.parquet")) or "changed" in name
