"""Training scripts that read from and push to a Hub on loopback."""

import io
import json
import random
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.hubserver import TOKEN, Blob, HubServer

ROOT = Path(__file__).parents[2]


def parquet(**columns):
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def child(hub, cache, *arguments, status=0):
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], env=hub.environment(cache, TOKEN), capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == status, done.stdout[-2000:] + done.stderr[-4000:]
    return done


@pytest.fixture(scope="module")
def hub():
    draw = random.Random(0)
    words = [
        "the",
        "and",
        "of",
        "she",
        "went",
        "home",
        "because",
        "it",
        "was",
        "late",
        "that",
        "evening",
        "we",
        "all",
        "agreed",
    ]
    prose = [" ".join(draw.choice(words) for _ in range(300)) + "." for _ in range(40)]
    code = ["\n".join(f"def f{n}_{row}(x):\n    return x[{n}] + {row};" for n in range(40)) for row in range(40)]
    with HubServer() as server:
        # Both were published with loading scripts; the rows are in the converted branch.
        for name, column, texts in (("bookcorpus/bookcorpus", "text", prose), ("codeparrot/github-code", "code", code)):
            script = name.split("/")[1] + ".py"
            repo = server.add("dataset", name, {script: b"raise SystemExit('a loading script must not run')"})
            data = {"default/train/0000.parquet": Blob(parquet(**{column: texts}), True)}
            repo.commit("refs/convert/parquet", "convert", data)
        yield server


def test_the_published_preset_streams_both_sources_and_pushes_with_our_card(hub, tmp_path):
    output = tmp_path / "out" / "code-vs-nl"
    options = ("--preset", "published", "--max_steps", 2, "--per_device_train_batch_size", 8, "--evaluation_rows", 20)
    options += ("--output_dir", output, "--report_to", "none", "--push_to_hub", "--hub_model_id", "org/code-vs-nl")
    child(hub, tmp_path / "cache", "training/train_code_vs_nl.py", *options)
    pushed = hub.repos["model", "org/code-vs-nl"].files
    assert {"config.json", "model.safetensors", "README.md", "tokenizer.json"} <= set(pushed)
    assert not [name for name in pushed if name.endswith((".bin", ".pt", ".pkl"))]
    card = pushed["README.md"].decode()
    assert "path/or/name" not in card
    assert "org/code-vs-nl" in card
    program = f"""
from transformers import pipeline
there, here = (pipeline("text-classification", name) for name in ("org/code-vs-nl", {str(output)!r}))
text = "def f(x): return x"
assert there(text) == here(text) and there(text)[0]["label"] in ("nl", "code")
"""
    child(hub, tmp_path / "fresh", "-c", program)


def test_an_adapter_is_pushed_with_a_card_without_placeholders(hub, tmp_path):
    program = f"""
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast
words = {{word: number for number, word in enumerate(["<pad>", "<unk>", *"abcdefghij"])}}
tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<pad>")
fast.save_pretrained({str(tmp_path / "lm")!r})
config = GPTNeoXConfig(vocab_size=12, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
GPTNeoXForCausalLM(config).save_pretrained({str(tmp_path / "lm")!r})
"""
    child(hub, tmp_path / "cache", "-c", program)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": "a b c d e f g h"}) + "\n" for _ in range(8)))
    options = ("--model_name_or_path", tmp_path / "lm", "--dataset", tmp_path / "rows.jsonl", "--max_steps", 2)
    options += ("--output_dir", tmp_path / "lora", "--report_to", "none", "--push_to_hub", "--hub_model_id")
    refused = child(hub, tmp_path / "cache", "training/finetune_lora.py", *options, "lora", status=2)
    assert "--hub_model_id org/name" in refused.stderr.splitlines()[-1]
    child(hub, tmp_path / "cache", "training/finetune_lora.py", *options, "org/lora")
    pushed = hub.repos["model", "org/lora"].files
    assert {"adapter_config.json", "adapter_model.safetensors", "README.md"} <= set(pushed)
    card = pushed["README.md"].decode()
    assert "More Information Needed" not in card
    assert 'from_pretrained("org/lora")' in card
