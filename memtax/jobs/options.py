"""Options shared by several verbs, declared once so that names, defaults and help are the same everywhere."""

from dataclasses import dataclass
from typing import Literal

from memtax.settings import Bos, Dtype, option

DTYPE = "Number format of the weights; auto: bfloat16 on a GPU, float32 on a CPU; saved: as in the files."


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """A causal language model and how it runs."""

    model: str = option("Folder or Hub name of the model, NAME@REVISION for a revision.", short="-m", source=True)
    tokenizer: str | None = option("Folder or Hub name of the tokenizer; default: the model's.", None)
    bos: Bos = option(
        "Beginning-of-sequence token before each row, never scored: auto (if the tokenizer adds it), always or never.", "auto"
    )
    dtype: Dtype = option(DTYPE, "auto")


@dataclass(frozen=True, kw_only=True)
class PlacementOptions:
    """Devices and quantization of a model."""

    device_map: str | None = option(
        "auto spreads a large model over all devices; tensor (score, mia) splits every layer over the processes of torchrun.",
        None,
    )
    quantization: Literal["8bit", "4bit"] | None = option("Load the weights in 8 or 4 bits (needs bitsandbytes).", None)


@dataclass(frozen=True, kw_only=True)
class BatchOption:
    """Rows per forward pass."""

    batch_size: int | None = option("Rows per forward pass; default: as many as fit.", None, least=1)


@dataclass(frozen=True, kw_only=True)
class ColumnOption:
    """Column that contains the rows' content."""

    column: str | None = option("Column of tokens or text; default: found by its type.", None)


@dataclass(frozen=True, kw_only=True)
class QuoteOption:
    """Whether texts are quoted with personal data."""

    show_personal_data: bool = option("Quote texts unmasked, with personal data; only the owner can read the output.", False)
