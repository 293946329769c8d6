"""Training scripts that are killed and started again end in the bytes of an undisturbed training.

`MEMTAX_TRAINING_KILLS=20` kills each script that many times; by default a kill is what it leaves: no later checkpoints, and a
last one that is cut.
"""

import importlib.util
import json
import os
import random
import re
import shutil
import signal
import sys
import time

import pyarrow.parquet as pq
import pytest
import torch
from transformers import BertConfig, BertModel, GPTNeoXConfig, GPTNeoXForCausalLM

from helpers.processes import start
from helpers.small import WORDS, random_texts, word_tokenizer
from helpers.versions import older
from helpers.word_pieces import word_pieces
from memtax.checksums import verify
from memtax.errors import MemtaxError
from memtax.files import asset
from memtax.hub.checkpoints import CHECKSUMS

KILLS = int(os.environ.get("MEMTAX_TRAINING_KILLS", "0"))
COMMON = ("--use_cpu", "True", "--report_to", "none", "--disable_tqdm", "True", "--seed", "3")
STEPS = ("--save_strategy", "steps", "--save_steps", "3", "--logging_steps", "2", "--per_device_train_batch_size", "8")
RESUME = ("--resume_from_checkpoint", "True")
SCRIPTS = ("train_lm", "finetune_lora", "train_code_vs_nl")


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A model, an encoder, and texts."""
    folder = tmp_path_factory.mktemp("given")
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "eos_token_id": 0}
    GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=len(WORDS), max_position_embeddings=64, **shape)).save_pretrained(folder / "lm")
    word_tokenizer().save_pretrained(folder / "lm")
    for name, seed in (("texts", 0), ("others", 1)):
        lines = "".join(json.dumps({"text": text}) + "\n" for text in random_texts(48 + seed, 24))
        (folder / f"{name}.jsonl").write_text(lines)
    shape |= {"num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 7}
    BertModel(BertConfig(**{name: value for name, value in shape.items() if name != "eos_token_id"})).save_pretrained(
        folder / "bert"
    )
    word_pieces("the", "int").save_pretrained(folder / "bert")
    for name, more in (("texts", 0), ("others", 1)):
        (folder / f"{name}.domains").mkdir()
        code, prose = "int main(void) { return a[i] * b[i]; }\n", "the house on the hill, the village. "
        for domain, text in (("github", code), ("pile_cc", prose)):
            # The classifier's words are few: other documents have others of them.
            lines = "".join(json.dumps({"text": f"{n} {'int the ' * more}{text}" * 12}) + "\n" for n in range(30 + more))
            (folder / f"{name}.domains" / f"{domain}.member.jsonl").write_text(lines)
    return folder


def command(name, given, output):
    """The words of each script on the tiny setup; 18 optimizer steps, checkpoints at 3, 6, ... (6 to an epoch)."""
    script = [sys.executable, str(asset(f"training/{name}.py")), "--output_dir", str(output), *COMMON, *STEPS]
    texts = str(given / "texts.jsonl")
    if name == "train_code_vs_nl":
        base = ("--base", str(given / "bert"), "--max_length", "24", "--bf16", "False", "--evaluation_rows", "20")
        return [*script, "--data", str(given / "texts.domains"), *base, "--max_steps", "18"]
    if name == "train_lm":
        shape = ("--hidden_size", "32", "--num_layers", "2", "--context_length", "24", "--prompt", "8", "--continuation", "8")
        return [*script, "--dataset", texts, "--tokenizer", str(given / "lm"), *shape, "--num_train_epochs", "3"]
    adapter = ("--lora_dropout", "0.1", "--lora_targets", "query_key_value", "dense", "dense_h_to_4h", "--canaries", "2")
    return [*script, "--dataset", texts, "--model_name_or_path", str(given / "lm"), *adapter, "--num_train_epochs", "3"]


def run(words, until=None, kill=signal.SIGKILL):
    """Run to the end, or kill once `until()` holds."""
    child = start(*words[1:])
    while until is not None and child.is_running() and not until():
        time.sleep(0.002)
    if until is not None and child.is_running():
        child.kill(kill)
    done = child.wait()
    return done.stdout + done.stderr, done.returncode


def contents(folder):
    """Relative name to bytes, but for what is pickled; of optimizers, their tensors."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    found = {}
    for name, path in files.items():
        if path.suffix in (".pt", ".pth"):
            found[name] = repr(torch.load(path, weights_only=False, map_location="cpu"))
        elif path.name == "trainer_state.json" and older("transformers", "5.21"):
            # The mean loss of these versions is that of the steps after the resumption.
            found[name] = re.sub(rb'"train_(loss|runtime)": [^,}]*', b"", path.read_bytes())
        elif path.name == ".memtax-checksums.json" and older("transformers", "5.21"):
            continue  # of that file too
        elif path.name not in (CHECKSUMS, "README.md"):
            found[name] = path.read_bytes()
    return found


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_a_kill_leaves_is_resumed_to_the_same_bytes(name, given, tmp_path, capsys):
    specification = importlib.util.spec_from_file_location(f"resumed_{name}", asset(f"training/{name}.py"))
    script = sys.modules[specification.name] = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)
    torch.set_printoptions(profile="full")
    # All but the classifier, which has as many checkpoints in one.
    length = ("--max_steps", "12") if name == "train_code_vs_nl" else ("--num_train_epochs", "2")
    script.main([*command(name, given, tmp_path / "whole")[2:], *length])
    expected = contents(tmp_path / "whole")
    output = tmp_path / "cut"
    shutil.copytree(tmp_path / "whole", output)
    for path in output.glob("checkpoint-*"):
        if int(path.name.rpartition("-")[2]) > 9:
            shutil.rmtree(path)
    # What is left is the last step of an epoch, before what its end measures.
    optimizer = output / "checkpoint-9" / "optimizer.pt"
    optimizer.write_bytes(optimizer.read_bytes()[:-20])
    words = [*command(name, given, output)[2:], *length, *RESUME]
    capsys.readouterr()
    script.main(words)
    printed = "".join(capsys.readouterr())
    assert "checkpoint-9 cannot be used (optimizer.pt damaged): resuming from checkpoint-6" in printed
    found = contents(output)
    assert found.keys() == expected.keys()
    assert [file for file in expected if found[file] != expected[file]] == []
    other = [word.replace(f"{given}/texts.", f"{given}/others.") for word in words]
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
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_killed_training_ends_in_the_bytes_of_an_undisturbed_one(name, given, tmp_path):
    torch.set_printoptions(profile="full")
    rng = random.Random(name)
    began = time.monotonic()
    printed, status = run(command(name, given, tmp_path / "whole"))
    took = time.monotonic() - began
    assert status == 0, printed
    expected = contents(tmp_path / "whole")
    output = tmp_path / "killed"
    words = [*command(name, given, output), *RESUME]
    final = sorted(path for path in expected if "/" not in path)
    for _ in range(KILLS):
        shutil.rmtree(output, ignore_errors=True)
        # While a checkpoint is written, while the final files are, or at any moment.
        folder = rng.choice([f"checkpoint-{3 * rng.randint(1, 6)}/", ""])
        wanted = folder + rng.choice([CHECKSUMS, "optimizer.pt", "trainer_state.json"] if folder else final)
        at, delay = (rng.random() * took, 0) if rng.random() < 0.3 else (1e9, rng.random() * 0.05)
        began = time.monotonic()

        def reached(path=output / wanted, at=at, delay=delay, began=began):
            return time.monotonic() - began > at or (path.exists() and (time.sleep(delay) or True))

        run(words, reached, rng.choice([signal.SIGKILL, signal.SIGTERM]))
        printed, status = run(words)
        assert status == 0, printed
        found = contents(output)
        assert found.keys() == expected.keys(), wanted
        different = [file for file in expected if found[file] != expected[file]]
        assert not different, (different, wanted, at)
    if name == "train_lm":
        steps = pq.read_table(output / "memorization.parquet").group_by("step")
        assert steps.aggregate([("sequence_id", "count_distinct")])["sequence_id_count_distinct"].to_pylist() == [48] * 3
    # A damaged last checkpoint: the one before is used, and says so.
    before, last = sorted(int(path.name.partition("-")[2]) for path in output.glob("checkpoint-*"))[-2:]
    (output / f"checkpoint-{last}" / "optimizer.pt").write_bytes(b"cut")
    printed, status = run(words)
    assert f"checkpoint-{last} cannot be used (optimizer.pt damaged): resuming from checkpoint-{before}" in printed
    assert not [file for file, value in contents(output).items() if value != expected[file]]
    # Other data under the same name.
    printed, status = run([word.replace(f"{given}/texts.", f"{given}/others.") for word in words])
    assert (status, "was trained with other data" in printed, "Traceback" in printed) == (2, True, False)
