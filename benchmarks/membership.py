"""What all attacks that read one forward pass cost, against that forward pass alone.

    python benchmarks/membership.py [--texts 128] [--tokens 64] [--rounds 5]

A GPT-NeoX of Pythia-70m's shape with random weights, in float32. The bare forward is the model's own, batch after batch, with
all its logits. Beside it: loss, zlib, Min-K%, Min-K%++ (10 shares k each) and DC-PDD through the filter that `memtax mia`
runs. The two take turns; the table has the median round.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from memtax import schema
from memtax.membership.evidence import AttackFilter

VOCABULARY = 50_304
ATTACKS = ("loss", "zlib", "min_k", "min_k_plus_plus", "dc_pdd")
BATCH = 64


def build(folder: Path) -> None:
    """A model of Pythia-70m's shape."""
    config = GPTNeoXConfig(
        vocab_size=VOCABULARY,
        hidden_size=512,
        num_hidden_layers=6,
        num_attention_heads=8,
        intermediate_size=2048,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
    )
    GPTNeoXForCausalLM(config).save_pretrained(folder / "model")
    counts = {"token_id": np.arange(VOCABULARY), "token_frequency": np.arange(VOCABULARY)[::-1].copy()}
    table = pa.table(counts).cast(schema.arrow_schema(counts))
    (folder / "counts").mkdir()
    pq.write_table(table, folder / "counts" / "token_frequencies.parquet")


def seconds(work: object) -> float:
    """Time of one call."""
    start = time.perf_counter()
    work()  # type: ignore[operator]
    return time.perf_counter() - start


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--texts", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    rows = np.random.default_rng(0).integers(0, VOCABULARY, (arguments.texts, arguments.tokens))
    with tempfile.TemporaryDirectory() as name:
        build(Path(name))
        attacks = AttackFilter(f"{name}/model", ATTACKS, frequencies=f"{name}/counts")
        model = GPTNeoXForCausalLM.from_pretrained(f"{name}/model").eval()
        batch = {"tokens": rows.tolist(), "text": ["a text of some length " * 12] * len(rows), "domain": ["all"] * len(rows)}
        batch |= {"chunk_start": [None] * len(rows), "chunk_end": [None] * len(rows)}

        @torch.inference_mode()
        def bare() -> None:
            for start in range(0, len(rows), BATCH):
                model(input_ids=torch.from_numpy(rows[start : start + BATCH])).logits  # noqa: B018

        def all_attacks() -> None:
            attacks(batch)

        bare(), all_attacks()
        times = [(seconds(bare), seconds(all_attacks)) for _ in range(arguments.rounds)]
    first, second = (statistics.median(column) for column in zip(*times, strict=True))
    print(f"| {arguments.texts} texts of {arguments.tokens} tokens | seconds | times the bare forward |")
    print("|---|---|---|")
    print(f"| bare forward | {first:.2f} | 1 |")
    print(f"| {', '.join(ATTACKS)} | {second:.2f} | {statistics.median(b / a for a, b in times):.2f} |")


if __name__ == "__main__":
    main()
