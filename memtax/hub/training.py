"""Pushing what a training script made: our card and files, not the Trainer's."""

from pathlib import Path
from typing import Any

from memtax.checksums import CHECKPOINT as CHECKSUMS
from memtax.checksums import seal
from memtax.errors import MemtaxError
from memtax.hub.models import is_adapter, write_card
from memtax.progress import say

_SEALED = ("*.json", "*.jsonl", "*.safetensors", "*.txt", "*.jinja", "*.model", "*.parquet")


def take_push(arguments: Any) -> str | None:
    """Take `--push_to_hub` over from the Trainer, which would send pickled arguments and a card of its own.

    Args:
        arguments: `transformers.TrainingArguments`; its `push_to_hub` is off afterwards.

    Returns:
        The repository to push to when training is done, None if none was asked for.

    Raises:
        MemtaxError: the repository is not named.
    """
    if not arguments.push_to_hub:
        return None
    arguments.push_to_hub = False
    name = arguments.hub_model_id
    if not name or name.count("/") != 1:
        raise MemtaxError(f"--push_to_hub needs the repository to push to: give --hub_model_id org/name, not {name!r}")
    return str(name)


def tidy(output: Path) -> None:
    """Give a finished language model or adapter and its checkpoints our cards, and drop the pickles that the Trainer left."""
    drop_pickles(output)
    for folder in _folders(output):
        if (folder / "config.json").is_file() or is_adapter(folder):
            write_card(folder)


def seal_model(output: Path, script: str, identity: Any) -> None:
    """Record the files of a finished model, so that whoever loads it notices one that changed; the card may be edited.

    Args:
        output: the folder.
        script: that made it, for messages.
        identity: JSON values of what it was made from.
    """
    names = {path.name for pattern in _SEALED for path in output.glob(pattern)}
    seal(output, f"the same training/{script}.py command", identity, sorted(names))


def drop_pickles(output: Path) -> None:
    """The Trainer pickles its arguments beside the weights; nothing here ever needs to unpickle them."""
    for folder in _folders(output):
        (folder / "training_args.bin").unlink(missing_ok=True)


def _folders(output: Path) -> list[Path]:
    """The output and its finished checkpoints."""
    return [output, *(record.parent for record in output.glob(f"checkpoint-*/{CHECKSUMS}"))]


def push_trained(output: Any, repo_id: str | None, private: bool | None) -> None:
    """Publish a finished model folder, if `take_push` named a repository."""
    if repo_id is not None:
        from memtax.hub.publish import publish

        for pushed in publish(output, repo_id, private=private):
            for line in pushed.lines():
                say(line)
