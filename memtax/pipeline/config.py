"""The configuration of a run, validated before anything starts."""

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from memtax.errors import MemtaxError
from memtax.lm.placement import settled_dtype
from memtax.lm.special_tokens import BosIds
from memtax.schema import RECITATION_THRESHOLD
from memtax.settings import Bos, Dtype, check_values, from_values, option, to_values


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Configuration of `memtax run`. Sources are `path[:config[:split]]`, a local path or a name on the Hub."""

    model: str = option("Folder or Hub name of the causal language model.", short="-m")
    corpus: str = option("Training data of the model (or a sample of it); everything is counted over it.")
    output: Path = option("Run directory.", short="-o")
    sequences: str | None = option("Sequences to measure; None measures the corpus.", None)
    held_out: str | None = option(
        "Sequences that the model was not trained on, as a control; None for no control.",
        None,
    )
    counts: str | None = option(
        "Occurrences counted earlier, over a larger corpus than is available: a folder of `memtax count`, a "
        "published table (`org/name[:config[:split]]`) with the ids of `sequences`, or a public index "
        "(`infini-gram:INDEX`, `infini-gram-mini:INDEX`), or a column of the sequences (`column:duplicates`); None counts over "
        "`corpus`.",
        None,
    )
    frequencies: str | None = option(
        "Token frequencies that belong to `counts`, if they are not in the same folder.",
        None,
    )
    column: str | None = option("Column of tokens or text; None finds it.", None)
    revision: str | None = option("Revision of the model on the Hub.", None)
    tokenizer: str | None = option("Folder or Hub name; None takes the model's.", None)
    checkpoints: tuple[str, ...] = option(
        "Checkpoints of the same model, in order of time: folders, `NAME@REVISION`, or `@REVISION` of `model`.",
        (),
    )
    models: tuple[str, ...] = option(
        "Models of other sizes, `NAME` or `NAME@REVISION`; `model` itself is part of the series.",
        (),
    )
    reference_model: str | None = option(
        "A model that was not trained on the corpus, `NAME` or `NAME@REVISION`; what it completes as well is "
        "predictable rather than memorized.",
        None,
    )
    embedding_model: str | None = option(
        "Folder or Hub name of a sentence-transformers model (`all-MiniLM-L6-v2`), for semantic and textual "
        "matches among the sequences; None leaves these factors out.",
        None,
    )
    code_model: str | None = option(
        "Folder or Hub name of a classifier of code (`usvsnsp/code-vs-nl`), for `nl_score`; None leaves it out.",
        None,
    )
    code_scores: str | None = option(
        "Scores computed earlier, instead of `code_model`: a table with `sequence_id` and `nl_score`, from memtax "
        "or published (`usvsnsp/pile-pythia-code-vs-nl-scores::deduped`), with the ids of `sequences`.",
        None,
    )
    semantic_matches: str | None = option(
        "Counts computed earlier, instead of those among the sequences (`usvsnsp/semantic-duplicates::deduped_snowclones`).",
        None,
    )
    textual_matches: str | None = option("As `semantic_matches` (`usvsnsp/semantic-duplicates::deduped_templates`).", None)
    paraphrases: str | None = option(
        "Output of `memtax paraphrase`, to be added to the dataset and the report.",
        None,
    )
    alignment: str | None = option("Output of `memtax align`, to be added as well.", None)
    influence: str | None = option("Output of `memtax influence`, to be added as well.", None)
    filters: tuple[str, ...] = option(
        "Further filters of the catalogue, in execution order, before the models; their factors join those of the predictor.",
        (),
    )
    set: tuple[str, ...] = option("A parameter of the filters named in `filters`, as NAME=VALUE.", ())
    places: int = option(
        "Locate up to this many occurrences of each continuation in the corpus, for report and dataset.", 0, least=0
    )
    prompt: int = option("Prompt tokens.", 32, least=1, most=2**20)
    continuation: int = option("Continuation tokens.", 32, least=1, most=2**20)
    recitation_threshold: int = option(
        "A continuation with more occurrences than this is recitation.",
        RECITATION_THRESHOLD,
        least=0,
        most=2**63 - 1,
    )
    dtype: Dtype = option(
        "Number format of the model's weights: `auto` is bfloat16 on a GPU, float32 on a CPU; `saved` as in the files.", "auto"
    )
    device_map: str | None = option(
        "auto spreads a large model over all devices; tensor (score, mia) splits every layer over the processes of torchrun.",
        None,
    )
    quantization: Literal["8bit", "4bit"] | None = option("Load the weights in 8 or 4 bits (needs bitsandbytes).", None)
    batch_size: int | None = option("Rows per forward pass; default: as many as fit.", None, least=1)
    bos: Bos = option(
        "Tokens put before each sequence for every model: `auto` (what the tokenizer adds by itself), `always` or `never`.",
        "auto",
    )
    seed: int = option("Random seed of splits and resampling.", 1024, least=0, most=2**32 - 1)
    title: str | None = option("Name of the run in report and card; None combines model and corpus.", None)
    license: str | None = option("Hub identifier of the corpus's license, for the card.", None)
    mask_personal_data: bool = option(
        "Mask personal data in the texts of dataset and report, and leave out its tokens; `audit` always does.",
        False,
    )
    region: str = option("Country of telephone numbers without a country code, for `mask_personal_data`.", "US")

    def __post_init__(self) -> None:
        names = [field.name for field in dataclasses.fields(self)]
        for name, value in check_values(type(self), {name: getattr(self, name) for name in names}, "the configuration").items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "dtype", settled_dtype(self.dtype))
        if self.frequencies is not None and self.counts is None:
            raise MemtaxError("frequencies replaces the token frequencies of counts; give counts as well, or neither")
        if self.code_scores is not None and self.code_model is not None:
            raise MemtaxError("code_scores replaces the scores of code_model; give one of the two")
        if self.places and self.counts is not None:
            raise MemtaxError("places are found while the corpus is counted; leave out places, or counts")
        if self.set and not self.filters:
            raise MemtaxError(f"set: {self.set[0]} belongs to a filter, but `filters` is empty; name the filter there")

    @property
    def given(self) -> dict[str, str]:
        """Key to source of the factors that are looked up instead of computed."""
        names = ("code_scores", "semantic_matches", "textual_matches")
        return {name: source for name in names if (source := getattr(self, name)) is not None}

    @property
    def window(self) -> int:
        """Number of tokens in a sequence: prompt and continuation."""
        return self.prompt + self.continuation

    @functools.cached_property
    def opening(self) -> BosIds:
        """The ids put before every row, the same for all models of the run."""
        from memtax.corpus.sources import Source
        from memtax.lm.chats import source_bos

        source = Source.parse(self.sequence_source, column=self.column)
        return source_bos(source, self.model, self.revision, self.bos, self.tokenizer)

    @functools.cached_property
    def answers(self) -> bool:
        """Whether the sequences are answers of conversations."""
        from memtax.corpus.answers import holds_conversations
        from memtax.corpus.sources import Source

        return holds_conversations(Source.parse(self.sequence_source, column=self.column))

    @property
    def sequence_source(self) -> str:
        """Source of the measured sequences."""
        return self.sequences or self.corpus

    def to_dict(self) -> dict[str, Any]:
        """The fields as YAML values."""
        return to_values(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Validate the keys and create a configuration.

        Raises:
            MemtaxError: a key is unknown (the message suggests the closest), missing, or has a value of the wrong type.
        """
        return from_values(cls, values)
