"""Whether a sequence is natural language or code, by a sequence classifier."""

import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from memtax.corpus.tables import location, stamp
from memtax.engine.world import spare_threads
from memtax.errors import MemtaxError, ModelError, RowError
from memtax.filters._published import look_up
from memtax.filters.base import Batch, Filter
from memtax.lm.loading import model_files, process_device

VERDICTS = ("code", "uncertain", "natural language")

_PROSE = re.compile(r"natural|prose|english|text|(^|[^a-z])nl([^a-z]|$)")
_CODE = re.compile(r"code|program|source")


@dataclass(frozen=True)
class CodeFilter(Filter):
    """Adds `nl_score`, the probability that the text is natural language; None where there is no text.

    Which output of the classifier is natural language is read from the label names in its configuration. If they say
    nothing (`LABEL_0`, `LABEL_1`), 0 is natural language and 1 is code, as in the published labels.

    Attributes:
        model: folder or Hub name of a sequence classifier with two classes; the default is that of Prashanth et al. 2024,
            `training/train_code_vs_nl.py` trains others.
        revision: branch, tag or commit of a Hub name.
        natural_language: name or number of the class that is natural language, if the configuration does not tell.
        max_length: tokens of the classifier that are read of a text.
        natural_language_from: scores from here on are natural language (reference: no code labelled so is above).
        code_to: scores up to here are code; between the two the verdict is "uncertain".
        verdict: whether to add `text_kind` as well.
        scores: dataset of finished scores, `path:config:split` with `sequence_id` and `nl_score` or, as in the published
            `usvsnsp/pile-pythia-code-vs-nl-scores`, `nl_scores`; they are looked up and no model is run.
    """

    name: ClassVar[str] = "code_vs_nl"
    requires: ClassVar[tuple[str, ...]] = ("text",)
    columns: ClassVar[tuple[str, ...]] = ("nl_score",)

    model: str = "usvsnsp/code-vs-nl"
    revision: str | None = None
    natural_language: str | int | None = None
    max_length: int = 128
    natural_language_from: float = 0.525
    code_to: float = 0.4
    verdict: bool = False
    scores: str | None = None

    def __post_init__(self) -> None:
        if self.max_length < 8:
            raise MemtaxError(f"max_length is {self.max_length}; a classifier must read at least 8 tokens")
        if not 0 <= self.code_to < self.natural_language_from <= 1:
            raise MemtaxError(
                f"code_to ({self.code_to}) must be below natural_language_from ({self.natural_language_from}), both in [0, 1]"
            )
        if self.scores is not None:
            object.__setattr__(self, "requires", ("sequence_id",))
        if self.verdict:
            object.__setattr__(self, "columns", (*type(self).columns, "text_kind"))

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.__post_init__()

    def inputs(self) -> Iterable[str]:
        """The classifier's configuration and weights, or its name; or the table of scores."""
        return model_files(self.model) if self.scores is None else (location(self.scores),)

    @functools.cached_property
    def fingerprint(self) -> str:
        """As for every filter, but read once."""
        return super().fingerprint

    def compute(self, batch: Batch) -> Batch:
        """Score the texts that are there.

        Raises:
            ModelError: the classifier cannot be loaded, or its classes cannot be told apart.
        """
        if self.scores is not None:
            found = look_up(self.scores, ("nl_score",), batch["sequence_id"], stamp(self.scores))
            if found is None:
                raise MemtaxError(f"{self.scores} has no columns sequence_id and nl_score (or nl_scores)")
            return {**found, **({"text_kind": self.verdicts(found["nl_score"])} if self.verdict else {})}
        rows = [row for row, text in enumerate(batch["text"]) if text]
        scores: list[float | None] = [None] * len(batch["text"])
        if rows:
            loaded = _load(self.model, self.revision, self.natural_language, self.fingerprint)
            try:
                values = _scores(loaded, [batch["text"][row] for row in rows], self.max_length)
            except RowError as error:
                raise error.at(rows[error.row]) from error
            for row, score in zip(rows, values, strict=True):
                scores[row] = score
        added: Batch = {"nl_score": scores}
        if self.verdict:
            added["text_kind"] = self.verdicts(scores)
        return added

    def verdicts(self, scores: Iterable[float | None]) -> list[str | None]:
        """`natural language`, `code` or `uncertain` for each score; None stays None."""
        return [
            None if score is None else VERDICTS[int(score > self.code_to) + int(score >= self.natural_language_from)]
            for score in scores
        ]


def natural_language_class(id2label: dict[int, str], wanted: str | int | None = None) -> int:
    """Number of the class that is natural language.

    Args:
        id2label: class names, from a model's configuration.
        wanted: its name or number, if it is known.

    Raises:
        ModelError: there are not two classes, `wanted` is none of them, or the names fit both or neither.
    """
    names = {int(number): str(name) for number, name in id2label.items()}
    listed = ", ".join(f"{number}: {name!r}" for number, name in sorted(names.items()))
    if sorted(names) != [0, 1]:
        raise ModelError(f"a classifier of code and natural language has two classes, this one has {len(names)} ({listed})")
    if wanted is not None:
        found = [number for number, name in names.items() if wanted in (number, name, str(number))]
        if not found:
            raise ModelError(f"the classifier has no class {wanted!r}; it has {listed}")
        return found[0]
    if all(re.fullmatch(r"LABEL_\d", name) for name in names.values()):
        return 0
    prose, code = ({n for n, name in names.items() if kind.search(name.lower())} for kind in (_PROSE, _CODE))
    # "source text" against "natural text": what only one of them matches decides.
    for candidates in (prose - code, {0, 1} - code, prose):
        if len(candidates) == 1:
            return candidates.pop()
    raise ModelError(f"which class is natural language? The classifier has {listed}; name it with natural_language=...")


@functools.lru_cache(maxsize=1)
def _load(path: str, revision: str | None, wanted: str | int | None, fingerprint: str) -> tuple[Any, Any, int]:
    """Tokenizer, model and class number, once a process and as long as the files stay the same."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=False)
        model, report = AutoModelForSequenceClassification.from_pretrained(
            path,
            revision=revision,
            dtype="float32",
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as error:  # missing files, damaged ones, no connection: each raises a type of its own
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ModelError(
            f"the classifier {path} cannot be loaded ({reason}); give a folder that training/train_code_vs_nl.py wrote"
        ) from error
    if report["missing_keys"]:
        raise ModelError(f"{path} has no trained classifier: {sorted(report['missing_keys'])[0]} is missing")
    if tokenizer.pad_token_id is None:
        # Padding is masked, so that any token serves; decoders look for the last token that is not it.
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(tokenizer.eos_token_id or 0)
    if model.config.get_text_config().pad_token_id is None:
        model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    number = natural_language_class(model.config.id2label, wanted)
    return tokenizer, model.eval().to(process_device()), number


def _scores(loaded: tuple[Any, Any, int], texts: Sequence[str], max_length: int, at_once: int = 64) -> list[float]:
    """P(natural language) of each text; texts of similar length share a pass, so that little is padded."""
    import torch

    spare_threads()
    tokenizer, model, number = loaded
    longest = min(max_length, getattr(model.config, "max_position_embeddings", max_length))
    # A text is read from its beginning; what lies far beyond the limit need not be tokenized.
    encoded = tokenizer([text[: 40 * longest] for text in texts], truncation=True, max_length=longest)
    order = sorted(range(len(texts)), key=lambda row: len(encoded["input_ids"][row]))
    scores = [0.0] * len(texts)
    with torch.inference_mode():
        for start in range(0, len(order), at_once):
            rows = order[start : start + at_once]
            batch = tokenizer.pad({name: [encoded[name][row] for row in rows] for name in encoded}, return_tensors="pt")
            logits = model(**batch.to(model.device)).logits.float()
            if len(bad := logits.isnan().any(-1).nonzero()):
                raise RowError("the classifier's logits for {row} are not numbers (NaN); check its weights", rows[int(bad[0])])
            for row, score in zip(rows, logits.softmax(dim=-1)[:, number].tolist(), strict=True):
                scores[row] = score
    return scores
