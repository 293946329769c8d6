"""Training scripts that are killed and started again end in the bytes of an undisturbed training.

`MEMTAX_TRAINING_KILLS=20` kills each script that many times; by default a kill is what it leaves: no later checkpoints, and a
last one that is cut.
"""

import importlib.util
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from helpers.small import WORDS, random_texts, word_tokenizer
from memtax.checksums import verify
from memtax.errors import MemtaxError
from memtax.files import asset
from memtax.hub.checkpoints import CHECKSUMS

KILLS = int(os.environ.get("MEMTAX_TRAINING_KILLS", "0"))
COMMON = ("--use_cpu", "True", "--report_to", "none", "--disable_tqdm", "True", "--seed", "3")
STEPS = ("--save_strategy", "steps", "--save_steps", "3", "--logging_steps", "2", "--per_device_train_batch_size", "8")
RESUME = ("--resume_from_checkpoint", "True")


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A model and texts."""
    folder = tmp_path_factory.mktemp("given")
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "eos_token_id": 0}
    GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=len(WORDS), max_position_embeddings=64, **shape)).save_pretrained(folder / "lm")
    word_tokenizer().save_pretrained(folder / "lm")
    for name, seed in (("texts", 0), ("others", 1)):
        lines = "".join(json.dumps({"text": text}) + "\n" for text in random_texts(48 + seed, 24))
        (folder / f"{name}.jsonl").write_text(lines)
    return folder


def command(name, given, output):
    """The words of each script on the tiny setup; 18 optimizer steps, checkpoints at 3, 6, ... (6 to an epoch)."""
    script = [sys.executable, str(asset(f"training/{name}.py")), "--output_dir", str(output), *COMMON, *STEPS]
    texts = str(given / "texts.jsonl")
    if name == "train_lm":
        shape = ("--hidden_size", "32", "--num_layers", "2", "--context_length", "24", "--prompt", "8", "--continuation", "8")
        return [*script, "--dataset", texts, "--tokenizer", str(given / "lm"), *shape, "--num_train_epochs", "3"]
    adapter = ("--lora_dropout", "0.1", "--lora_targets", "query_key_value", "dense", "dense_h_to_4h", "--canaries", "2")
    return [*script, "--dataset", texts, "--model_name_or_path", str(given / "lm"), *adapter, "--num_train_epochs", "3"]


def run(words, until=None, kill=signal.SIGKILL):
    """Run to the end, or kill once `until()` holds."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    while until is not None and child.poll() is None and not until():
        time.sleep(0.002)
    if until is not None and child.poll() is None:
        child.send_signal(kill)
    return child.communicate()[0], child.returncode


def contents(folder):
    """Relative name to bytes, but for what is pickled; of optimizers, their tensors."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    found = {}
    for name, path in files.items():
        if path.suffix in (".pt", ".pth"):
            found[name] = repr(torch.load(path, weights_only=False, map_location="cpu"))
        elif path.name not in (CHECKSUMS, "README.md"):
            found[name] = path.read_bytes()
    return found


@pytest.mark.parametrize("name", ["train_lm", "finetune_lora"])
def test_what_a_kill_leaves_is_resumed_to_the_same_bytes(name, given, tmp_path, capsys):
    specification = importlib.util.spec_from_file_location(f"resumed_{name}", asset(f"training/{name}.py"))
    script = sys.modules[specification.name] = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)
    torch.set_printoptions(profile="full")
    script.main([*command(name, given, tmp_path / "whole")[2:], "--num_train_epochs", "2"])
    expected = contents(tmp_path / "whole")
    output = tmp_path / "cut"
    shutil.copytree(tmp_path / "whole", output)
    for path in output.glob("checkpoint-*"):
        if int(path.name.rpartition("-")[2]) > 6:
            shutil.rmtree(path)
    optimizer = output / "checkpoint-6" / "optimizer.pt"
    optimizer.write_bytes(optimizer.read_bytes()[:-20])
    words = [*command(name, given, output)[2:], "--num_train_epochs", "2", *RESUME]
    capsys.readouterr()
    script.main(words)
    printed = "".join(capsys.readouterr())
    assert "checkpoint-6 cannot be used (optimizer.pt damaged): resuming from checkpoint-3" in printed
    found = contents(output)
    assert found.keys() == expected.keys()
    assert [file for file in expected if found[file] != expected[file]] == []
    other = [str(given / "others.jsonl") if word.endswith("texts.jsonl") else word for word in words]
    verify(output)
    weights = next(output.glob("*.safetensors"))
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(MemtaxError, match="does not match its checksum; run the same training/"):
        verify(output)
    weights.write_bytes(whole)
    with pytest.raises(SystemExit):
        script.main(other)
    assert "was trained with other data" in capsys.readouterr().err


@pytest.mark.skipif(not KILLS, reason="MEMTAX_TRAINING_KILLS is not set")
@pytest.mark.parametrize("name", ["train_lm", "finetune_lora"])
def test_a_killed_training_ends_in_the_bytes_of_an_undisturbed_one(name, given, tmp_path):
    torch.set_printoptions(profile="full")
    rng = random.Random(name)
    printed, status = run(command(name, given, tmp_path / "whole"))
    assert status == 0, printed
    expected = contents(tmp_path / "whole")
    output = tmp_path / "killed"
    for kill in range(KILLS):
        shutil.rmtree(output, ignore_errors=True)
        step = 3 * rng.randint(2, 6)
        wanted = rng.choice([CHECKSUMS, "optimizer.pt", "trainer_state.json"])
        delay = rng.random() * 0.05 if kill else 0
        words = [*command(name, given, output), *RESUME]

        def reached(path=output / f"checkpoint-{step}" / wanted, delay=delay):
            return path.exists() and (time.sleep(delay) or True)

        run(words, reached, rng.choice([signal.SIGKILL, signal.SIGTERM]))
        printed, status = run(words)
        assert status == 0, printed
        found = contents(output)
        assert found.keys() == expected.keys()
        different = [file for file in expected if found[file] != expected[file]]
        assert not different, (different, step, wanted)
    if name == "train_lm":
        table = pq.read_table(output / "memorization.parquet")
        assert (
            table.group_by("step").aggregate([("sequence_id", "count_distinct")])["sequence_id_count_distinct"].to_pylist()
            == [48] * 3
        )
        return
    # A damaged last checkpoint: the one before is used, and says so.
    (output / "checkpoint-21" / "optimizer.pt").write_bytes(b"cut")
    printed, status = run(words)
    assert "checkpoint-21 cannot be used (optimizer.pt damaged): resuming from checkpoint-18" in printed
    assert not [file for file, value in contents(output).items() if value != expected[file]]
    # Other data under the same name.
    other = [str(given / "others.jsonl") if word.endswith("texts.jsonl") else word for word in words]
    printed, status = run(other)
    assert (status, "was trained with other data" in printed, "Traceback" in printed) == (2, True, False)
