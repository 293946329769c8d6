"""Pushing the output of a training script, with memtax's card and files instead of the Trainer's."""

from pathlib import Path
from typing import Any

from memtax.checksums import CHECKPOINT as CHECKSUMS
from memtax.checksums import seal
from memtax.errors import MemtaxError
from memtax.hub.models import is_adapter, write_card
from memtax.progress import say

_SEALED = ("*.json", "*.jsonl", "*.safetensors", "*.txt", "*.jinja", "*.model", "*.parquet")


def take_push(arguments: Any) -> str | None:
    """Take over `--push_to_hub` from the Trainer, which would send pickled arguments and its own card.

    Args:
        arguments: `transformers.TrainingArguments`; its `push_to_hub` is off afterwards.

    Returns:
        The repository to push to after training, None if none was requested.

    Raises:
        MemtaxError: the repository is not given.
    """
    if not arguments.push_to_hub:
        return None
    arguments.push_to_hub = False
    name = arguments.hub_model_id
    if not name or name.count("/") != 1:
        raise MemtaxError(f"--push_to_hub needs the repository to push to: give --hub_model_id org/name, not {name!r}")
    return str(name)


def tidy(output: Path) -> None:
    """Write memtax's cards for a finished language model or adapter and its checkpoints, and delete the Trainer's pickles."""
    drop_pickles(output)
    for folder in _folders(output):
        if (folder / "config.json").is_file() or is_adapter(folder):
            write_card(folder)


def seal_model(output: Path, script: str, identity: Any) -> None:
    """Record the files of a finished model, so that changes are noticed when it is loaded; the card may be edited.

    Args:
        output: the folder.
        script: name of the script that wrote it, for messages.
        identity: JSON values that describe its inputs.
    """
    names = {path.name for pattern in _SEALED for path in output.glob(pattern)}
    seal(output, f"the same training/{script}.py command", identity, sorted(names))


def drop_pickles(output: Path) -> None:
    """Delete the Trainer's pickled arguments; nothing here ever unpickles them."""
    for folder in _folders(output):
        (folder / "training_args.bin").unlink(missing_ok=True)


def _folders(output: Path) -> list[Path]:
    """The output and its finished checkpoints."""
    return [output, *(record.parent for record in output.glob(f"checkpoint-*/{CHECKSUMS}"))]


def push_trained(output: Any, repo_id: str | None, private: bool | None) -> None:
    """Publish a finished model folder, if `take_push` returned a repository."""
    if repo_id is not None:
        from memtax.hub.publish import publish

        for pushed in publish(output, repo_id, private=private):
            for line in pushed.lines():
                say(line)
