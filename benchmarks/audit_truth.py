"""Whether the verdict of `memtax audit` on membership agrees with what a model was trained on.

    python benchmarks/audit_truth.py --data pile_samples [--seeds 10] [--texts 60] [--epochs 4] [--whole]

DATA holds DOMAIN.member.jsonl and DOMAIN.nonmember.jsonl (MIMIR's samples). A small GPT-NeoX is trained on texts of the first
kind, once. For each seed, disjoint texts of the second kind are drawn: claimed members, others, and held-out texts. The model
is fine-tuned, whole or by LoRA, on the claimed members (true) or on the others (false), and audited with the claimed members
as its training set: the verdict should be "shown" where the claim is true, and "not shown" where it is false. Without --whole
only the part of the audit that the verdict reads is run: `memtax mia` with the audit's attacks.
"""

import argparse
import importlib.util
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast, TrainingArguments

import memtax
from memtax import progress
from memtax.files import asset
from memtax.jobs.audit import ATTACKS as AUDITED
from memtax.jobs.audit import PAIRED
from memtax.pipeline.audit_verdicts import membership

DOMAINS = ("wikipedia_en", "pile_cc")
ATTACKS = ("loss", "min_k_plus_plus_0.2", "reference", "ez", "wbc")
CHARACTERS, WINDOW, VOCABULARY = 320, 64, 2048


def texts(data: Path, kind: str) -> list[str]:
    """The starts of all texts of a kind."""
    files = [data / f"{domain}.{kind}.jsonl" for domain in DOMAINS]
    rows = [json.loads(line)["text"] for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    return list(dict.fromkeys(row[:CHARACTERS] for row in rows if len(row) >= CHARACTERS))


def write(path: Path, rows: Sequence[str]) -> str:
    """Write texts as JSON lines."""
    path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def script() -> Any:
    """The training script as a module."""
    specification = importlib.util.spec_from_file_location("finetune_lora", asset("training/finetune_lora.py"))
    assert specification is not None
    assert specification.loader is not None
    module = sys.modules["finetune_lora"] = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def tune(base: Path, rows: str, output: Path, full: bool, epochs: int, rate: float, seed: int) -> str:
    """Fine-tune with the training script, and return the folder."""
    module = script()
    arguments = TrainingArguments(
        str(output),
        num_train_epochs=epochs,
        learning_rate=rate,
        per_device_train_batch_size=8,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        seed=seed,
    )
    return str(module.train(module.ModelArguments(str(base), full=full), module.DataArguments(rows, max_length=256), arguments))


def make_base(folder: Path, rows: Sequence[str], epochs: int) -> Path:
    """A small model with its tokenizer, trained on texts that play no part later."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(rows, trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>").save_pretrained(folder / "random")
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=512,
        max_position_embeddings=256,
        tie_word_embeddings=False,
    )
    GPTNeoXForCausalLM(config).save_pretrained(folder / "random")
    return Path(tune(folder / "random", write(folder / "base.jsonl", rows), folder / "base", True, epochs, 2e-3, 0))


def infer(given: dict[str, str], train: str, held_out: str, output: Path, whole: bool) -> Any:
    """The audit's figures on membership."""
    if whole:
        window = {"prompt": WINDOW // 2, "continuation": WINDOW // 2}
        options = {**given, **window, "train": train, "held_out": held_out, "resamples": 200, "generate": 0}
        return memtax.audit(**options, output=output).figures["membership"]
    found = memtax.mia(
        model=given.get("adapter", given["model"]),
        members=train,
        nonmembers=held_out,
        attack=(*AUDITED, *PAIRED),
        reference_model=given.get("base", given["model"]),
        resamples=200,
        output=output,
    ).figures
    return {"measurable": True, **found}


def check(
    base: Path, pool: list[str], folder: Path, seed: int, number: int, epochs: int, whole: bool
) -> Iterator[dict[str, Any]]:
    """The four audits of a seed."""
    drawn = random.Random(seed).sample(pool, 3 * number)
    names = ("claimed", "others", "held_out")
    sets = {name: write(folder / f"{name}.jsonl", drawn[at * number : (at + 1) * number]) for at, name in enumerate(names)}
    for way, full, rate in (("full", True, 1e-3), ("lora", False, 3e-3)):
        for truth in ("claimed", "others"):
            started = time.perf_counter()
            tuned = tune(base, sets[truth], folder / f"{way}-{truth}", full, epochs, rate, seed)
            given = {"model": tuned, "base": str(base)} if full else {"model": str(base), "adapter": tuned}
            output = folder / f"audit-{way}-{truth}"
            found = infer(given, sets["claimed"], sets["held_out"], output, whole)
            verdict, _ = membership({"membership": found})
            (one,) = found["domains"].values()
            areas = {name: one["attacks"][name]["auroc"]["value"] for name in ATTACKS}
            wanted = "shown" if truth == "claimed" else "not shown"
            row = {"seed": seed, "way": way, "true": truth == "claimed", "verdict": verdict, **areas}
            yield {**row, "agrees": verdict == wanted, "seconds": time.perf_counter() - started}


def main() -> None:
    """Run the seeds and print a row for each audit, and the sums."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--texts", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--base", type=Path, help="Folder that keeps the base model.")
    parser.add_argument("--whole", action="store_true", help="Run whole audits.")
    given = parser.parse_args()
    progress.set_quiet(True)
    with tempfile.TemporaryDirectory() as temporary:
        kept = given.base or Path(temporary)
        base = kept / "base"
        if not (base / "model.safetensors").exists():
            kept.mkdir(parents=True, exist_ok=True)
            make_base(kept, texts(given.data, "member")[::2], 2)
        pool, rows = texts(given.data, "nonmember"), []
        print("| seed | trained | claim | verdict |", " | ".join(ATTACKS), "| s |")
        print("|---" * (5 + len(ATTACKS)) + "|")
        for seed in range(given.seeds):
            folder = Path(temporary) / str(seed)
            folder.mkdir()
            for row in check(base, pool, folder, seed, given.texts, given.epochs, given.whole):
                rows.append(row)
                areas = " | ".join(f"{row[name]:.3f}" for name in ATTACKS)
                claim = "true" if row["true"] else "false"
                print(f"| {seed} | {row['way']} | {claim} | {row['verdict']} | {areas} | {row['seconds']:.0f} |", flush=True)
        for way in ("full", "lora"):
            for true in (True, False):
                own = [row["agrees"] for row in rows if (row["way"], row["true"]) == (way, true)]
                print(f"\n{way}, claim {'true' if true else 'false'}: {sum(own)} of {len(own)} verdicts agree")


if __name__ == "__main__":
    main()
