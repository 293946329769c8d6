"""Whole verbs, in this process: `score` at scale, a model of 7B parameters through several of them, and the demo."""

import contextlib
import functools
import gc
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scoring
import torch

import memtax
from memtax.jobs import function
from on_gpu.plan import Size
from on_gpu.speed import Line


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Progress of the verbs goes nowhere: standard output carries the results."""
    with open(os.devnull, "w") as nothing, contextlib.redirect_stderr(nothing):
        yield


def timed(work: Callable[[], Any], device: str) -> tuple[float, Any]:
    """Seconds, and what was returned."""
    if device == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    with quiet():
        found = work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started, found


def token_table(path: Path, tokens: np.ndarray) -> str:
    """Rows of tokens as a Parquet file."""
    column = pa.FixedSizeListArray.from_arrays(pa.array(tokens.ravel()), tokens.shape[1]).cast(pa.list_(pa.int32()))
    pq.write_table(pa.table({"sequence_id": np.arange(len(tokens)), "tokens": column}), path)
    return str(path)


def tokenizer(folder: Path, size: int) -> None:
    """A tokenizer of whole words, w0 and on, as many as the model has token ids."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({f"w{number}": number for number in range(size)}, unk_token="w0"))
    words.pre_tokenizer = WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w1", pad_token="w1", unk_token="w0").save_pretrained(folder)


def score_verb(size: Size, shape: str) -> Iterator[Line]:
    """`memtax score` over many rows, without start-up, against the bare pass over the same rows."""
    batch, device = size.pick(1024, 8), size.device
    rows = size.pick({"70m": 200_000, "410m": 60_000}[shape], 64)
    model = scoring.build(size.pick(shape, "tiny"), device, torch.bfloat16)
    tokens = np.random.default_rng(0).integers(0, model.config.vocab_size, (rows, 64), dtype=np.int32)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        model.save_pretrained(folder / "model")
        few = token_table(folder / "few.parquet", tokens[: size.pick(2048, 16)])
        many = token_table(folder / "many.parquet", tokens)
        bare = min(timed(functools.partial(scoring.bare, model, tokens, batch), device)[0] for _ in range(2))
        del model
        settings = {"model": str(folder / "model"), "dtype": "bfloat16"}
        start, _ = timed(lambda: memtax.score(sequences=few, output=folder / "warm", **settings), device)
        again, _ = timed(lambda: memtax.score(sequences=few, output=folder / "again", **settings), device)
        whole, _ = timed(lambda: memtax.score(sequences=many, output=folder / "whole", **settings), device)
    yield f"memtax score, {rows:,} rows, over the bare pass", f"{whole / bare:.2f}", {"70m": "1.3", "410m": "1.2"}[shape]
    yield "seconds: bare pass, memtax score", f"{bare:.1f}, {whole:.1f}", ""
    yield "seconds for a few rows: first, once warm (fixed cost)", f"{start:.1f}, {again:.1f}", ""
    yield "beside the pass, per row", f"{(whole - again - bare) / rows * 1e6:.0f} us", ""


def build_large(size: Size, folder: Path) -> int:
    """A Llama of the 7B shape with random bfloat16 weights, a tokenizer and a LoRA adapter; its number of parameters."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"hidden_size": 4096, "intermediate_size": 11_008, "num_hidden_layers": 32, "num_attention_heads": 32}
    tiny = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    vocabulary = size.pick(32_000, 512)
    config = LlamaConfig(
        vocab_size=vocabulary,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=1,
        **size.pick(shape, tiny),
    )
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(size.device):
            model = LlamaForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(before)
    count = model.num_parameters()
    model.save_pretrained(folder / "model")
    tokenizer(folder / "model", vocabulary)
    lora = LoraConfig(task_type="CAUSAL_LM", r=8, target_modules=["q_proj", "v_proj"], init_lora_weights="gaussian")
    adapted = get_peft_model(model, lora)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.01)
    adapted.peft_config["default"].base_model_name_or_path = str(folder / "model")
    adapted.save_pretrained(folder / "adapter")
    return int(count)


def write_lines(path: Path, rows: list[dict[str, Any]]) -> str:
    """JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def large(size: Size) -> Iterator[Line]:
    """`score`, `mia`, `align` and `audit --adapter` with one copy of the weights."""
    device, rng = size.device, np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        made, count = timed(lambda: build_large(size, folder), device)
        gc.collect()  # PEFT's wrappers form cycles, which would keep a second copy of the weights on the card.
        if device == "cuda":
            torch.cuda.empty_cache()
        yield f"model of {count / 1e9:.1f}B parameters in bfloat16, built and saved", f"{made:.0f} s", ""

        def texts(rows: int, words: int = 64) -> list[str]:
            return [" ".join(f"w{word}" for word in row) for row in rng.integers(2, size.pick(32_000, 512), (rows, words))]

        rows = size.pick(2048, 8)
        tokens = token_table(folder / "rows.parquet", rng.integers(2, size.pick(32_000, 512), (rows, 64), dtype=np.int32))
        labels = write_lines(
            folder / "mia.jsonl", [{"text": text, "label": number % 2} for number, text in enumerate(texts(size.pick(128, 8)))]
        )
        pairs = write_lines(
            folder / "pairs.jsonl", [{"text": text, "paraphrases": texts(3)} for text in texts(size.pick(16, 2))]
        )
        train = write_lines(folder / "train.jsonl", [{"text": text} for text in texts(size.pick(256, 8))])
        held = write_lines(folder / "held.jsonl", [{"text": text} for text in texts(size.pick(64, 8))])
        model = {"model": str(folder / "model"), "dtype": "bfloat16"}
        verbs: dict[str, Callable[[], Any]] = {
            f"score, {rows:,} rows of 64": lambda: memtax.score(sequences=tokens, output=folder / "score", **model),
            "mia": lambda: memtax.mia(
                data=labels, attack=("loss", "min_k_plus_plus"), resamples=20, output=folder / "mia", **model
            ),
            "align": lambda: memtax.align(pairs=pairs, output=folder / "align", **model),
            "audit --adapter": lambda: memtax.audit(
                train=train,
                held_out=held,
                adapter=str(folder / "adapter"),
                prompt=16,
                continuation=16,
                resamples=20,
                output=folder / "audit",
                **model,
            ),
        }
        failed = []
        for name, work in verbs.items():
            if device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            try:
                seconds, _ = timed(work, device)
            except Exception as error:  # the other verbs still run
                failed.append(name)
                yield name, f"failed: {type(error).__name__}: {error}"[:200], "runs"
                continue
            peak = f", peak {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if device == "cuda" else ""
            yield name, f"{seconds:.1f} s{peak}", "runs"
        if failed:
            raise SystemExit(f"failed: {', '.join(failed)}")


def demo(size: Size) -> Iterator[Line]:
    """`memtax demo`; without the downloaded encoder if it is not installed."""
    if size.smoke:
        yield "memtax demo", "left out of the check", ""
        return
    with tempfile.TemporaryDirectory() as place:
        seconds, _ = timed(lambda: function("demo")(output=Path(place) / "demo"), size.device)
    yield "memtax demo", f"{seconds:.0f} s", ""
