"""Stages that also use the card: semantic matches, the code classifier, paraphrases."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import scoring
import torch

from memtax.filters.code_vs_nl import CodeFilter
from memtax.filters.embedding_pairs import count_matches
from memtax.paraphrasing.paraphraser import Paraphraser
from on_gpu.plan import Size
from on_gpu.speed import Line
from on_gpu.verbs import timed, tokenizer


def unit(rows: int, seed: int) -> np.ndarray:
    """Unit vectors of 384 numbers; a tenth of them near others."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(rows, 384)).astype(np.float32)
    near = rows // 10
    vectors[:near] = vectors[near : 2 * near] + 0.3 * vectors[:near]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def semantic_matches(size: Size) -> Iterator[Line]:
    """Counts of vectors above both thresholds: exact, against float32 products and comparisons alone."""
    rows = size.pick(150_000, 500)
    vectors, device = unit(rows, 0), size.device
    count_matches(vectors[:64], device=device)
    ours, counts = timed(lambda: count_matches(vectors, device=device), device)

    def products() -> np.ndarray:
        sample = torch.from_numpy(vectors).to(device)
        found = []
        for start in range(0, rows, 8192):
            cosines = sample[start : start + 8192] @ sample.T
            found.append(torch.stack([(cosines >= limit).sum(1) for limit in (0.8, 0.9)], 1))
        return torch.cat(found).cpu().numpy() - 1

    products()
    plain, others = timed(products, device)
    yield f"{rows:,} vectors with each other: float32 products over memtax", f"{plain / ours:.2f}", ""
    yield "seconds: memtax, float32 products", f"{ours:.2f}, {plain:.2f}", ""
    yield "counts that differ from those of float32", f"{int((counts != others).sum()):,} of {counts.size:,}", ""


def code_classifier(size: Size) -> Iterator[Line]:
    """`code_vs_nl` with a classifier of MiniLM's shape, against its bare forward pass."""
    from transformers import BertConfig, BertForSequenceClassification

    shape = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
    shape = size.pick(shape, {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32})
    vocabulary, rows, device = size.pick(30_000, 500), size.pick(20_000, 32), size.device
    with tempfile.TemporaryDirectory() as place:
        config = BertConfig(vocab_size=vocabulary, id2label={0: "natural language", 1: "code"}, pad_token_id=1, **shape)
        model = BertForSequenceClassification(config).eval()
        model.save_pretrained(place)
        tokenizer(Path(place), vocabulary)
        rng = np.random.default_rng(0)
        texts = [" ".join(f"w{word}" for word in row) for row in rng.integers(2, vocabulary, (rows, 64))]
        function = CodeFilter(model=place)
        function.compute({"text": texts[:8]})
        ours, _ = timed(lambda: [function.compute({"text": texts[at : at + 1000]}) for at in range(0, rows, 1000)], device)
        model.to(device)
        ids = torch.from_numpy(rng.integers(2, vocabulary, (rows, 64)))

        @torch.inference_mode()
        def bare() -> None:
            for part in ids.split(64):
                model(input_ids=part.to(device)).logits.softmax(-1).cpu()

        bare()
        plain, _ = timed(bare, device)
    yield f"{rows:,} texts of 64 tokens, over the bare pass in batches of 64", f"{ours / plain:.2f}", ""
    yield "texts per second", f"{rows / ours:,.0f}", ""


def paraphrases(size: Size) -> Iterator[Line]:
    """Greedy paraphrases by a causal model, against `generate` on the same prompts in the same batches."""
    rows, batch, device = size.pick(64, 4), size.pick(64, 4), size.device
    model = scoring.build(size.pick("410m", "tiny"), device, torch.bfloat16)
    vocabulary = model.config.vocab_size
    with tempfile.TemporaryDirectory() as place:
        model.generation_config.eos_token_id = 1
        model.save_pretrained(place)
        tokenizer(Path(place), vocabulary)
        rng = np.random.default_rng(0)
        texts = [" ".join(f"w{word}" for word in row) for row in rng.integers(2, vocabulary, (rows, 32))]
        function = Paraphraser(model=place, mode="greedy_Nprompts", count=1, dtype="bfloat16", batch_size=batch)
        function.compute({"text": texts[:2]})
        ours, found = timed(lambda: function.compute({"text": texts}), device)
        ids = torch.from_numpy(rng.integers(2, vocabulary, (batch, 64))).to(device)
        started = time.perf_counter()
        for _ in range(0, rows, batch):
            model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, min_new_tokens=35, max_new_tokens=35)
        scoring.wait(model)
        plain = time.perf_counter() - started
    made = sum(reason is not None for row in found["paraphrase_reasons"] for reason in row)
    yield f"{rows} texts of 32 words, over generate of as many tokens", f"{ours / plain:.2f}", ""
    yield "texts per second, and paraphrases with a reason", f"{rows / ours:.1f}, {made}", ""
