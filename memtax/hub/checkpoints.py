"""A Trainer that verifies checkpoints and resumes to the same bytes as an uninterrupted training run."""

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from transformers import PreTrainedModel, Trainer, TrainerCallback

from memtax import checksums, outputs
from memtax.errors import MemtaxError
from memtax.files import read_json, write_json
from memtax.progress import say
from memtax.shapes import REAL, TEXT

CHECKSUMS = checksums.CHECKPOINT
"""Sizes and digests of a checkpoint's files; a checkpoint without this file is unfinished."""
RECORD = "training.json"
"""Origin of the output folder: digests of data and model, and the settings."""
_LATER: tuple[str, ...] = ("README.md", "training_args.bin", CHECKSUMS)
"""Checkpoint files that are written, replaced or dropped after it is finished."""
_PROGRESS: tuple[str, ...] = ("_tr_loss", "_total_loss_scalar", "_globalstep_last_logged", "_initial_global_step")
"""Trainer state about the loss since its last log, which is missing from its checkpoints."""
_IDENTITY = {"data": TEXT, "model": TEXT, "settings": dict}
_CHECKPOINT = {"identity?": _IDENTITY, "progress?": {"*": REAL}, "files": {"*": list}}
"""Formats of `RECORD` and `CHECKSUMS`."""
_NO_MATTER: tuple[str, ...] = (
    "output_dir",
    "resume_from_checkpoint",
    "overwrite_output_dir",
    "do_train",
    "do_eval",
    "do_predict",
    "report_to",
)
_NO_MATTER += ("run_name", "project", "disable_tqdm", "local_rank", "push_to_hub", "debug", "use_liger_kernel", "torch_compile")
_NO_MATTER += (
    "remove_unused_columns",
    "label_names",
    "deepspeed",
    "ignore_data_skip",
    "restore_callback_states_from_checkpoint",
)
_NO_MATTER_PREFIX: tuple[str, ...] = (
    "save_",
    "logging_",
    "log_",
    "hub_",
    "push_to_hub_",
    "eval_",
    "ddp_",
    "torch_compile_",
    "trackio_",
    "include_",
)
_NO_MATTER_PREFIX += ("dataloader_num_", "dataloader_pin_", "dataloader_persistent", "dataloader_prefetch", "enable_jit_")


def digest_rows(rows: Iterable[Mapping[str, Any]]) -> str:
    """Digest of rows of integers (columns of token ids and labels), in order."""
    hashed = xxhash.xxh3_128()
    for row in rows:
        for name in sorted(row):
            values = np.atleast_1d(np.asarray(row[name], np.int64))
            hashed.update(f"{name}:{len(values)};".encode())
            hashed.update(values.tobytes())
    return hashed.hexdigest()


def digest_weights(model: torch.nn.Module) -> str:
    """Digest of a model's parameters and buffers, with their names."""
    hashed = xxhash.xxh3_128()
    for name, tensor in model.state_dict().items():
        hashed.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        hashed.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return hashed.hexdigest()


def make_output(arguments: Any) -> Path:
    """Create the output folder of `transformers.TrainingArguments` if needed, and lock it for this process.

    Raises:
        MemtaxError: it cannot be created, contains files that are not memtax's, or is locked by another run.
    """
    output = Path(str(arguments.output_dir))
    try:
        outputs.hold_late(output, " ".join(sys.argv)[:300])
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MemtaxError(f"--output_dir {output} cannot be made: {error.strerror or error}") from error
    return output


class ResumableTrainer(Trainer):
    """The Trainer, with verified checkpoints that contain everything needed to resume.

    Args:
        data: digest of the training rows.
        settings: everything else that the result depends on, besides the `TrainingArguments`.
        args: as of `transformers.Trainer`.
        kwargs: as of `transformers.Trainer`.
    """

    def __init__(self, *args: Any, data: str, settings: Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._data = data
        self._settings = settings
        self.identity: dict[str, Any] = {}
        # The last callback, so that files added to a checkpoint by others are covered too.
        self.add_callback(_Checksums(self))

    def resume(self) -> None:
        """Train, from the last complete checkpoint if `--resume_from_checkpoint` requests it.

        Raises:
            MemtaxError: the output folder or the given checkpoint is of other data, another model or other settings, or the
                given checkpoint is damaged.
        """
        output = make_output(self.args)
        assert self.model is not None
        # Converted through JSON, because it is compared with values read from JSON.
        self.identity = json.loads(
            json.dumps(
                {
                    "data": self._data,
                    "model": digest_weights(self.model),
                    "settings": {**_settings(self.args), **self._settings},
                },
                default=str,
            )
        )
        trained = [*output.glob("*.safetensors"), *output.glob(f"checkpoint-*/{CHECKSUMS}")]
        if trained and (output / RECORD).is_file():
            self._compare(read_json(output / RECORD, _IDENTITY), output)
        point = resume_point(self.args)
        if point is not None and (Path(point) / CHECKSUMS).is_file():
            self._compare(read_json(Path(point) / CHECKSUMS, _CHECKPOINT).get("identity", {}), Path(point))
        if self.is_world_process_zero():
            write_json(output / RECORD, self.identity)
        self.train(resume_from_checkpoint=point)

    def _compare(self, found: Mapping[str, Any], where: Path) -> None:
        what = {"data": "with other data", "model": "from another model"}
        reasons = [reason for name, reason in what.items() if found.get(name) != self.identity[name]]
        before, now = found.get("settings"), self.identity["settings"]
        before = before if isinstance(before, dict) else {}
        changed = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
        shown = [f"{name} {before.get(name)!r} there, {now.get(name)!r} here" for name in changed[:3]]
        reasons += [f"with other settings ({'; '.join(shown)}{'; ...' if changed[3:] else ''})"] if changed else []
        if reasons:
            raise MemtaxError(
                f"{where} was trained {' and '.join(reasons)}; choose another --output_dir, or remove that one to start over"
            )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Load the weights with `from_pretrained`, which knows the names of a model's tensors in files.

        The Trainer's own method skips tensors that are saved under another name, such as the head of a GPT-NeoX.
        """
        loaded_into = self.model if model is None else model
        if self.is_fsdp_enabled or self.is_deepspeed_enabled or not isinstance(loaded_into, PreTrainedModel):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        saved = type(loaded_into).from_pretrained(resume_from_checkpoint, dtype=loaded_into.dtype, use_safetensors=True)
        loaded_into.load_state_dict(saved.state_dict())

    control: Any

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing if the checkpoint was that of the last step, because a callback stopped there."""
        if not self.control.should_training_stop:
            super()._run_epoch(*args, **kwargs)
        elif self.control.should_save:
            self._save_checkpoint(self.model, None)
            self.control = self.callback_handler.on_save(self.args, self.state, self.control)


class _Checksums(TrainerCallback):
    """Finishes every checkpoint with digests of its files, and restores the state of the loss."""

    def __init__(self, trainer: ResumableTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Restore what the Trainer itself resets."""
        progress = _progress(args, state) if state.global_step else None
        if progress is not None:
            loss = torch.tensor(progress["_tr_loss"], device=args.device)
            for name, value in {**progress, "_tr_loss": loss}.items():
                setattr(self.trainer, name, value)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the digests, which mark the checkpoint as finished."""
        # Wait for the other processes, which write their random states.
        self.trainer.accelerator.wait_for_everyone()
        if not state.is_world_process_zero:
            return
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        progress = {name: _plain(getattr(self.trainer, name)) for name in _PROGRESS if hasattr(self.trainer, name)}
        files = {name: _digest(path) for name, path in _files(folder).items()}
        write_json(folder / CHECKSUMS, {"identity": self.trainer.identity, "progress": progress, "files": files})


def _progress(args: Any, state: Any) -> dict[str, Any] | None:
    path = checkpoint_folder(args, state.global_step) / CHECKSUMS
    progress = read_json(path, _CHECKPOINT).get("progress", {}) if path.is_file() else {}
    return progress if set(progress) == set(_PROGRESS) else None


def checkpoint_folder(args: Any, step: int) -> Path:
    """The folder of the checkpoint that a training run resumed from: the given one, or that step's in the output."""
    named = Path(str(args.resume_from_checkpoint or ""))
    return named if named.name == f"checkpoint-{step}" else Path(args.output_dir) / f"checkpoint-{step}"


def resume_point(arguments: Any) -> str | None:
    """The checkpoint to resume from; with `--resume_from_checkpoint True` the last complete one, if any.

    Args:
        arguments: `transformers.TrainingArguments`.

    Raises:
        MemtaxError: the given checkpoint does not exist or is damaged.
    """
    asked = arguments.resume_from_checkpoint
    if asked is None or str(asked).lower() in ("false", ""):
        return None
    if str(asked).lower() != "true":
        fault = _fault(Path(str(asked)))
        if fault is not None:
            raise MemtaxError(f"--resume_from_checkpoint {asked} cannot be used ({fault}); give another, or True for the last")
        return str(asked)
    numbered = [
        (int(number), path)
        for path in Path(arguments.output_dir).glob("checkpoint-*")
        if (number := path.name.rpartition("-")[2]).isdecimal() and path.is_dir()
    ]
    faults: list[str] = []
    for _, path in sorted(numbered, reverse=True):
        fault = _fault(path)
        if fault is None:
            if faults:
                say(f"{'; '.join(faults)}: resuming from {path.name}")
            return str(path)
        faults.append(f"{path.name} cannot be used ({fault})")
    if faults:
        say(f"{'; '.join(faults)}: training from the start")
    return None


def _fault(folder: Path) -> str | None:
    """Why a checkpoint cannot be used; None if it is complete."""
    if not (folder / "trainer_state.json").is_file() or not (folder / CHECKSUMS).is_file():
        return "it was not finished" if folder.is_dir() else "there is no such folder"
    try:
        expected = read_json(folder / CHECKSUMS, _CHECKPOINT)["files"]
        found = _files(folder)
        damaged = [name for name, value in expected.items() if name not in found or _digest(found[name]) != value]
    except (MemtaxError, OSError):
        return f"{CHECKSUMS} is damaged"
    return f"{', '.join(damaged)} damaged" if damaged else None


def _files(folder: Path) -> dict[str, Path]:
    names = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: path for name, path in names.items() if path.name not in _LATER and not path.name.startswith(".")}


def _digest(path: Path) -> list[Any]:
    """Size in bytes and xxh3 of a file."""
    hashed = xxhash.xxh3_128()
    with path.open("rb") as handle:
        while block := handle.read(1 << 20):
            hashed.update(block)
    return [path.stat().st_size, hashed.hexdigest()]


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, torch.Tensor) else value


def _settings(arguments: Any) -> dict[str, Any]:
    """The `TrainingArguments` that the weights depend on."""
    values = {**arguments.to_dict(), "world_size": arguments.world_size}
    return {
        name: value
        for name, value in sorted(values.items())
        if name not in _NO_MATTER and not name.startswith(_NO_MATTER_PREFIX)
    }
