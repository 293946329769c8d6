"""The configuration of a run, read from YAML and checked before anything starts."""

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memtax.errors import MemtaxError
from memtax.lm.special_tokens import BosIds, bos_ids, check_bos
from memtax.records import read_yaml

_KINDS: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "bool": (bool,)}
_RANGES = {
    "prompt": (1, 2**20),
    "continuation": (1, 2**20),
    "recitation_threshold": (0, 2**63 - 1),
    "seed": (0, 2**32 - 1),
}
"""Least and greatest value of each number; generators of random numbers take seeds below 2**32."""


@dataclass(frozen=True)
class RunConfig:
    """What `memtax run` needs to know. Sources are `path[:config[:split]]`, a local path or a name on the Hub.

    Attributes:
        model: folder or Hub name of the causal language model.
        corpus: what the model was trained on (or a sample of it); everything is counted over it.
        output: the run directory.
        sequences: what to measure; None measures the corpus.
        held_out: sequences that the model was not trained on, as a control; None for no control.
        counts: occurrences counted before, over a larger corpus than is at hand: a folder of `memtax count`, or a published
            table (`org/name[:config[:split]]`) with the ids of `sequences`; None counts over `corpus`.
        frequencies: token frequencies that belong to `counts`, where they are not in the same folder.
        column: column of tokens or text; None finds it.
        revision: revision of the model on the Hub.
        tokenizer: folder or Hub name; None takes the model's.
        checkpoints: the same model during training, in order of time: folders, `NAME@REVISION`, or `@REVISION` of `model`.
        models: models of other sizes, `NAME` or `NAME@REVISION`; `model` itself is one of the series.
        reference_model: a model that was not trained on the corpus, `NAME` or `NAME@REVISION`; what it completes as well is
            predictable rather than memorized.
        embedding_model: folder or Hub name of a sentence-transformers model (`all-MiniLM-L6-v2`), for semantic and textual
            matches among the sequences; None leaves these factors out.
        code_model: folder or Hub name of a classifier of code (`usvsnsp/code-vs-nl`), for `nl_score`; None leaves it out.
        code_scores: scores computed before, in place of `code_model`: a table with `sequence_id` and `nl_score`, our own or a
            published one (`usvsnsp/pile-pythia-code-vs-nl-scores::deduped`), with the ids of `sequences`.
        semantic_matches: likewise counts, in place of those among the sequences
            (`usvsnsp/semantic-duplicates::deduped_snowclones`).
        textual_matches: likewise (`usvsnsp/semantic-duplicates::deduped_templates`).
        paraphrases: output of `memtax paraphrase`, which becomes part of the dataset and the report.
        alignment: likewise the output of `memtax align`.
        influence: likewise the output of `memtax influence`.
        prompt: prompt tokens.
        continuation: continuation tokens.
        recitation_threshold: a continuation that occurs more often than this is recitation.
        dtype: number format of the model's weights.
        bos: what every model reads before each sequence: `auto` (what the tokenizer adds by itself), `always` or `never`.
        seed: of splits and resampling.
        title: how report and card call the run; None makes one of model and corpus.
        license: Hub identifier of the corpus's license, for the card.
        mask_personal_data: mask personal data in the texts of dataset and report, and leave out its tokens; `audit` does.
        region: country of telephone numbers without a country code, for `mask_personal_data`.
    """

    model: str
    corpus: str
    output: str
    sequences: str | None = None
    held_out: str | None = None
    counts: str | None = None
    frequencies: str | None = None
    column: str | None = None
    revision: str | None = None
    tokenizer: str | None = None
    checkpoints: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    reference_model: str | None = None
    embedding_model: str | None = None
    code_model: str | None = None
    code_scores: str | None = None
    semantic_matches: str | None = None
    textual_matches: str | None = None
    paraphrases: str | None = None
    alignment: str | None = None
    influence: str | None = None
    prompt: int = 32
    continuation: int = 32
    recitation_threshold: int = 5
    dtype: str = "float32"
    bos: str = "auto"
    seed: int = 1024
    title: str | None = None
    license: str | None = None
    mask_personal_data: bool = False
    region: str = "US"

    def __post_init__(self) -> None:
        for name in ("checkpoints", "models"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        for field in dataclasses.fields(self):
            declared = field.type.__name__ if isinstance(field.type, type) else str(field.type)
            _check_type(field.name, declared, getattr(self, field.name))
        for name, (least, most) in _RANGES.items():
            if getattr(self, name) < least:
                raise MemtaxError(f"{name}: {getattr(self, name)} is below {least}")
            if getattr(self, name) > most:
                raise MemtaxError(f"{name}: {getattr(self, name)} is above {most}")
        if self.frequencies is not None and self.counts is None:
            raise MemtaxError("frequencies: they replace those of counts; give counts as well, or neither")
        if self.code_scores is not None and self.code_model is not None:
            raise MemtaxError("code_scores: they replace those of code_model; give one of the two")
        check_bos(self.bos)
        if self.dtype not in ("float32", "bfloat16", "float16", "auto"):
            raise MemtaxError(f"dtype: {self.dtype!r} is not one of float32, bfloat16, float16, auto")

    @property
    def window(self) -> int:
        """Tokens of a sequence: prompt and continuation."""
        return self.prompt + self.continuation

    @property
    def opening(self) -> BosIds:
        """The ids before every row: the same for every model of the run, which reads the same tokens."""
        return bos_ids(self.model, self.revision, self.bos, self.tokenizer)

    @property
    def sequence_source(self) -> str:
        """What is measured."""
        return self.sequences or self.corpus

    def to_dict(self) -> dict[str, Any]:
        """The fields as YAML takes them."""
        return {**dataclasses.asdict(self), "checkpoints": list(self.checkpoints), "models": list(self.models)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RunConfig":
        """Check the keys and make a configuration.

        Raises:
            MemtaxError: a key is unknown (the message suggests the nearest), missing, or has a value of the wrong type.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                near = difflib.get_close_matches(str(name), known, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
                raise MemtaxError(f"unknown key {name!r} in the configuration; {hint}")
        for name in ("model", "corpus", "output"):
            if values.get(name) is None:
                raise MemtaxError(
                    f"the configuration has no {name!r}; add it, or give it on the command line if it has an option"
                )
        return cls(**{**values, **{name: values.get(name) or () for name in ("checkpoints", "models")}})

    @classmethod
    def load(cls, path: Path | str, **overrides: Any) -> "RunConfig":
        """Read a YAML file: a configuration, or the `run.yaml` of a finished run.

        Args:
            path: the file.
            overrides: values that replace the file's; None values are ignored.

        Raises:
            MemtaxError: the file is missing, is no YAML mapping, or does not fit.
        """
        try:
            values = read_yaml(path)
        except OSError as error:
            raise MemtaxError(f"the configuration {path} cannot be read: {error.strerror}") from error
        if isinstance(values, dict) and "memtax" in values and isinstance(values.get("config"), dict):
            values = values["config"]
        if not isinstance(values, dict):
            raise MemtaxError(f"{path} must hold keys and values (model: ..., corpus: ...), not {type(values).__name__}")
        return cls.from_dict({**values, **{name: value for name, value in overrides.items() if value is not None}})


def _check_type(name: str, declared: str, value: Any) -> None:
    kind, *optional = [part.strip() for part in declared.split("|")]
    if value is None and optional:
        return
    if kind.startswith("tuple"):
        if not isinstance(value, tuple) or not all(isinstance(item, str) for item in value):
            raise MemtaxError(f"{name}: {value!r} is not a list of texts")
    elif not isinstance(value, _KINDS[kind]) or (kind == "int" and isinstance(value, bool)):
        wanted = {"str": "text", "int": "a whole number", "bool": "true or false"}[kind]
        raise MemtaxError(f"{name}: {value!r} is not {wanted}")
    elif isinstance(value, str) and not value.strip():
        raise MemtaxError(f"{name}: is empty; give a value or leave the key out")
