"""Models trained on random subsets of the texts with `training/finetune_lora.py`, in one or several processes.

Under `accelerate launch` or `torchrun` each process trains whole models in a child process without the distributed
environment; inside that environment, the Trainer would distribute one model over all processes.
"""

import functools
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt

from memtax.checksums import RECORD
from memtax.engine import World
from memtax.engine.once import invalidate, is_whole, once
from memtax.errors import MemtaxError
from memtax.files import asset, write_text
from memtax.lm.special_tokens import bos_ids, check_bos
from memtax.progress import is_quiet, progress_bar, set_quiet, silence_libraries
from memtax.provenance import digest
from memtax.records import read_json_lines

TEXTS = "texts.jsonl"
_DISTRIBUTED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Training:
    """Training settings of the reference models.

    Args:
        model: folder or Hub name of the initial model.
        models: number of models to train.
        share: share of the texts that each model is trained on.
        full: train all weights instead of an adapter.
        epochs: passes over the texts.
        learning_rate: learning rate of AdamW.
        batch_size: texts per step.
        max_length: maximum tokens per training example; longer texts are split.
        seed: random seed of subsets and training.
        bos: one of `memtax.lm.special_tokens.BOS`.
    """

    model: str
    models: int = 8
    share: float = 0.5
    full: bool = False
    epochs: float = 3
    learning_rate: float = 1e-3
    batch_size: int = 16
    max_length: int = 256
    lora_rank: int = 16
    seed: int = 1024
    bos: str = "auto"

    def __post_init__(self) -> None:
        check_bos(self.bos)
        if self.models < 4:
            raise MemtaxError(f"{self.models} models are too few to separate memorization from chance; train at least 4")
        if not 0 < self.share < 1:
            raise MemtaxError(f"share must be between 0 and 1, got {self.share}")


def subsets(rows: int, training: Training) -> npt.NDArray[np.bool_]:
    """Which model is trained on which text: (models, rows).

    Models come in pairs with opposite random orders, so that with a share of one half, each text is in exactly half of the
    models (Carlini et al. 2022).
    """
    rng = np.random.default_rng(training.seed)
    size = round(training.share * rows)
    found = np.zeros((training.models, rows), bool)
    for number in range(0, training.models, 2):
        order = rng.permutation(rows)
        found[number, order[:size]] = True
        if number + 1 < training.models:
            found[number + 1, order[::-1][:size]] = True
    return found


def train_models(texts: Sequence[str | None], training: Training, output: Path) -> list[Path]:
    """Train the models that are not finished yet, and return the folders of all.

    Args:
        texts: training texts, from which `subsets` draws.
        training: training settings.
        output: where `models/` and `texts.jsonl` are written.

    Raises:
        MemtaxError: a model cannot be trained.
        StaleOutputError: `output` holds models of other texts or settings.
    """
    world = World.current()
    if world.is_main:
        write_text(output / TEXTS, "".join(json.dumps({"text": text or ""}) + "\n" for text in texts))
    world.wait()
    plan = _plan(training, output)
    if world.is_main:
        for folder, _, identity in plan:
            if folder.exists() and not is_whole(folder, identity):
                invalidate(folder, identity)
    world.wait()
    if world.size == 1:
        train_share(training, output, 0, 1)
    else:
        _train_in_child(training, output, world)
        # A barrier would time out after half an hour. If another process fails, the launcher ends this one too.
        while not all((folder / RECORD).exists() for folder, _, _ in plan):
            time.sleep(0.2)
    return [folder for folder, _, _ in plan]


def train_share(training: Training, output: Path, rank: int, size: int) -> None:
    """Train every `size`-th model, starting at `rank`."""
    mine = _plan(training, output)[rank::size]
    with progress_bar("training", len(mine), "models", unit_scale=False) as bar:
        for number, (folder, used, identity) in zip(range(rank, training.models, size), mine, strict=True):
            train = functools.partial(_train, rows=output / TEXTS, used=used, training=training, number=number)
            once(folder, identity, train)
            bar.update(1)


def _plan(training: Training, output: Path) -> list[tuple[Path, list[int], dict[str, object]]]:
    """Folder, rows and identity of each model."""
    content = [row["text"] for row in read_json_lines(output / TEXTS, {"text": str})]
    included = subsets(len(content), training)
    bos = list(bos_ids(training.model, None, training.bos))
    found: list[tuple[Path, list[int], dict[str, object]]] = []
    for number in range(training.models):
        used = np.flatnonzero(included[number]).tolist()
        identity = {"training": asdict(training), "bos": bos, "model": number, "rows": digest(used), "texts": digest(content)}
        found.append((output / "models" / f"{number:03d}", used, identity))
    return found


def _train_in_child(training: Training, output: Path, world: World) -> None:
    import torch

    given = json.dumps([asdict(training), str(output), world.rank, world.size, is_quiet()])
    kept = {
        name: value for name, value in os.environ.items() if name not in _DISTRIBUTED and not name.startswith("TORCHELASTIC")
    }
    # The child shows this process's progress bar; only the main process has one.
    kept["MEMTAX_RANK"] = str(world.rank)
    local = int(os.environ.get("LOCAL_RANK", "0"))
    devices = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    devices = devices or [str(number) for number in range(torch.cuda.device_count())]
    kept["CUDA_VISIBLE_DEVICES"] = devices[local % len(devices)] if devices else ""
    code = "import sys; from memtax.membership.reference_models import child; child(sys.stdin.read())"
    # Its output goes to standard error: standard output is for results.
    done = subprocess.run([sys.executable, "-c", code], input=given, text=True, env=kept, stdout=2, check=False)
    if done.returncode:
        raise MemtaxError(f"training of reference models failed in process {world.rank}; see its output above")


def child(given: str) -> None:
    """Train one process's share of the models; see `_train_in_child`."""
    values, output, rank, size, quiet = json.loads(given)
    set_quiet(quiet)
    silence_libraries()
    try:
        train_share(Training(**values), Path(output), rank, size)
    except MemtaxError as error:
        print(f"memtax: {error}", file=sys.stderr)  # noqa: T201 - the parent's error refers to this line
        raise SystemExit(2) from error


def _train(folder: Path, rows: Path, used: Sequence[int], training: Training, number: int) -> None:
    """Train one model into an empty folder, with the script that users run."""
    import torch
    from transformers import TrainingArguments

    script = _script()
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=training.epochs,
        learning_rate=training.learning_rate,
        per_device_train_batch_size=training.batch_size,
        seed=training.seed + number,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=False,
    )
    # With several GPUs, the Trainer would multiply the batch size by their number.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    write_text(folder / "rows.json", json.dumps(list(used)))
    script.train(
        script.ModelArguments(training.model, full=training.full, lora_rank=training.lora_rank, bos=training.bos),
        script.DataArguments(str(rows), column="text", rows_file=str(folder / "rows.json"), max_length=training.max_length),
        arguments,
    )


def _script() -> ModuleType:
    """`training/finetune_lora.py` as a module."""
    name = "memtax_finetune_lora"
    if name not in sys.modules:
        specification = importlib.util.spec_from_file_location(name, asset("training/finetune_lora.py"))
        assert specification is not None
        assert specification.loader is not None
        module = importlib.util.module_from_spec(specification)
        # Dataclasses look up their module while being defined.
        sys.modules[name] = module
        specification.loader.exec_module(module)
    return sys.modules[name]
