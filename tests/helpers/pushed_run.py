"""A run directory to publish, and the children that publish it: its dataset, a predictor and tiny models.

The client reads its endpoint when it is imported, and offline mode blocks loopback too: so pushing runs in children.
"""

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa

from helpers.hub import TOKEN, HubServer
from helpers.processes import python
from helpers.word_pieces import word_pieces
from memtax.hub.folder import Config, write_dataset
from memtax.predictor.predictor import Predictor

ROWS = 600
HOME = tempfile.TemporaryDirectory()
HURRIED = "import memtax.hub.upload, memtax.cli; memtax.hub.upload.WAIT = 0.05; memtax.cli.main()"
"""The command, with short waits between its tries."""
RECORD = """\
memtax: run
config: {model: /home/someone/models/lm, corpus: org/corpus, prompt: 32, continuation: 32, license: mit, seed: 1024}
inputs: {corpus: 0123abcd}
commit: null
versions: {python: 3.11.7, memtax: 0.1.0}
finished: '2025-01-01T00:00:00Z'
"""


def table() -> pa.Table:
    rng = np.random.default_rng(0)
    duplicates = rng.integers(0, 12, ROWS)
    frequency = rng.uniform(1, 1000, ROWS)
    return pa.table(
        {
            "sequence_id": np.arange(ROWS),
            "text": [f"row <b>{i}</b> | of the table" for i in range(ROWS)],
            "sequence_duplicates": duplicates,
            "avg_frequency": frequency,
            "taxonomy": pa.array(np.where(duplicates > 5, 0, 2), pa.int64()),
            "is_memorized": rng.uniform(size=ROWS) < 1 / (1 + np.exp(2 - duplicates / 3)),
        }
    )


def make_run(folder: Path) -> Path:
    """Fill a run directory."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        GPTNeoXConfig,
        GPTNeoXForCausalLM,
        PreTrainedTokenizerFast,
    )

    rows = table()
    configs = [
        Config("features", "A row.", {"train": rows}),
        Config("num_duplicates", "A row.", {"train": rows.select(["sequence_id", "sequence_duplicates"])}),
    ]
    write_dataset(folder / "dataset", configs, "A <run>", {"model": "lm"}, "mit")
    predictor = Predictor.fit(rows, factors=("sequence_duplicates", "avg_frequency"), resamples=20)
    predictor.save_pretrained(folder / "models" / "predictor")
    config = GPTNeoXConfig(
        vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, max_position_embeddings=16
    )
    GPTNeoXForCausalLM(config).save_pretrained(folder / "models" / "lm")
    vocabulary = {token: number for number, token in enumerate(["<e>", "a", "b", "c", "d", "e", "f", "g"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<e>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<e>").save_pretrained(folder / "models" / "lm")
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 8}
    BertForSequenceClassification(BertConfig(**shape, id2label={0: "nl", 1: "code"})).save_pretrained(
        folder / "models" / "code"
    )
    word_pieces("the", "def", "x").save_pretrained(folder / "models" / "code")
    (folder / "models" / "code" / "README.md").write_text("---\npipeline_tag: text-classification\n---\n\n# Code\n")
    (folder / "models" / "lm" / "training_args.bin").write_bytes(b"pickled")
    (folder / "models" / "lm" / "checkpoint-1").mkdir()
    (folder / "models" / "lm" / "checkpoint-1" / "config.json").write_text("{}")
    (folder / "run.yaml").write_text(RECORD)
    return folder


def child(hub: HubServer, cache: Path, *arguments: str, token: str | None = TOKEN, check: bool = True):
    environment = hub.environment(cache, token)
    done = python(*arguments, env=environment, cwd=Path(__file__).parents[2])
    assert done.returncode == 0 or not check, done.stderr[-3000:]
    return done


def push(hub: HubServer, run: Path, *options: str, **more):
    """Run `memtax push`; it caches nothing, so all pushes have the same home."""
    return child(hub, Path(HOME.name), "-c", HURRIED, "push", str(run), "--repo-id", "org/name", *options, **more)
