"""Classification of sequences as natural language or code, with a sequence classifier."""

import functools
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from memtax.checksums import verify
from memtax.counting.count_tables import location, stamp
from memtax.engine.world import spare_threads
from memtax.errors import MemtaxError, ModelError, RowError
from memtax.files import Stamp, visible_files
from memtax.files import stamp as file_stamp
from memtax.filters.base import Batch, Filter
from memtax.filters.code_ngrams import CONFIG as NGRAM_CONFIG
from memtax.filters.code_ngrams import WEIGHTS as NGRAM_WEIGHTS
from memtax.filters.code_ngrams import NgramClassifier
from memtax.lm.folders import find_file
from memtax.lm.loading import load_tokenizer, model_files
from memtax.progress import say
from memtax.published.lookup import look_up
from memtax.records import read_json
from memtax.shapes import SHARE

VERDICTS = ("code", "uncertain", "natural language")

PUBLISHED = ("usvsnsp/code-vs-nl", "usvsnsp/pile-pythia-code-vs-nl-scores")
"""The classifier of Prashanth et al. 2024, and its scores."""
PUBLISHED_THRESHOLDS = (0.4, 0.525)
"""Thresholds of that classifier only: scores up to the first are code, from the second on natural language."""
EVALUATION = "evaluation.json"
"""File with a classifier's own thresholds, stored next to its weights."""

CHARACTERS_PER_TOKEN = 4
"""Characters that a character-based classifier reads per token of `max_length`."""

_PROSE = re.compile(r"natural|prose|english|text|(^|[^a-z])nl([^a-z]|$)")
_CODE = re.compile(r"code|program|source")


@dataclass(frozen=True)
class CodeFilter(Filter):
    """Adds `nl_score`, the probability that the text is natural language; None if there is no text.

    The class that is natural language is identified by the label names in the classifier's configuration. With generic names
    (`LABEL_0`, `LABEL_1`), 0 is natural language and 1 is code, as in the published labels.

    Attributes:
        model: folder or Hub name of a sequence classifier with two classes; the default is that of Prashanth et al. 2024.
            `training/train_code_vs_nl.py` trains others.
        revision: branch, tag or commit on the Hub.
        natural_language: name or number of the class that is natural language, if the configuration does not identify it.
        max_length: classifier tokens read from each text; an n-gram classifier reads four characters per token.
        natural_language_from: scores of at least this are natural language; replaces, together with `code_to`, the
            classifier's own thresholds. These are in its `evaluation.json`, chosen so that there are no false positives; the
            published classifier uses .525 and .4. Without any thresholds there are no verdicts.
        code_to: scores of at most this are code; between the two the verdict is "uncertain".
        verdict: whether to add `text_kind` as well; null if the classifier has no thresholds.
        scores: dataset of precomputed scores, `path:config:split`, with `sequence_id` and `nl_score` or, as in the published
            `usvsnsp/pile-pythia-code-vs-nl-scores`, `nl_scores`; scores are looked up and no model is run.
    """

    name: ClassVar[str] = "code_vs_nl"
    requires: ClassVar[tuple[str, ...]] = ("text",)
    columns: ClassVar[tuple[str, ...]] = ("nl_score",)

    version: ClassVar[int] = 2

    model: str = PUBLISHED[0]
    revision: str | None = None
    natural_language: str | int | None = None
    max_length: int = 128
    natural_language_from: float | None = None
    code_to: float | None = None
    verdict: bool = False
    scores: str | None = None

    def __post_init__(self) -> None:
        if self.max_length < 8:
            raise MemtaxError(f"max_length is {self.max_length}; a classifier must read at least 8 tokens")
        if (self.code_to is None) != (self.natural_language_from is None):
            raise MemtaxError("thresholds come in pairs: give code_to and natural_language_from, or neither")
        if self.code_to is not None and self.natural_language_from is not None:
            _check_thresholds((self.code_to, self.natural_language_from), "the filter")
        if self.scores is not None:
            self._with_parameters(requires=("sequence_id",))
        if self.verdict:
            self._with_parameters(columns=(*type(self).columns, "text_kind"))

    def inputs(self) -> Iterable[str]:
        """The classifier's configuration, weights and evaluation, or its name; or the table of scores."""
        if self.scores is not None:
            return (location(self.scores),)
        evaluation = Path(self.model) / EVALUATION
        return [*model_files(self.model), *([str(evaluation)] if evaluation.is_file() else [])]

    @functools.cached_property
    def thresholds(self) -> tuple[float, float] | None:
        """Scores up to the first are code, from the second on natural language; None if no thresholds are known.

        Raises:
            ModelError: the classifier's `evaluation.json` is damaged.
        """
        if self.code_to is not None and self.natural_language_from is not None:
            return self.code_to, self.natural_language_from
        name = self.model if self.scores is None else self.scores.partition(":")[0]
        if name in PUBLISHED:
            return PUBLISHED_THRESHOLDS
        return None if self.scores is not None else read_thresholds(self.model, self.revision)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Same as for every filter, but cached."""
        return super().fingerprint

    def compute(self, batch: Batch) -> Batch:
        """Score all texts that are not missing.

        Raises:
            ModelError: the classifier cannot be loaded, or its classes cannot be identified.
        """
        if self.scores is not None:
            found = look_up(self.scores, ("nl_score",), batch["sequence_id"], stamp(self.scores))
            if found is None:
                raise MemtaxError(f"{self.scores} has no columns sequence_id and nl_score (or nl_scores)")
            return {**found, **({"text_kind": self.verdicts(found["nl_score"])} if self.verdict else {})}
        rows = [row for row, text in enumerate(batch["text"]) if text]
        scores: list[float | None] = [None] * len(batch["text"])
        if rows:
            loaded = _load(self.model, self.revision, self.natural_language)
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
        """`natural language`, `code` or `uncertain` for each score; None for a missing score or without thresholds."""
        scores = list(scores)
        if self.thresholds is None:
            if any(score is not None for score in scores):
                _warn_without_thresholds(self.scores or self.model)
            return [None] * len(scores)
        code_to, natural_language_from = self.thresholds
        return [
            None if score is None else VERDICTS[int(score > code_to) + int(score >= natural_language_from)] for score in scores
        ]


@functools.lru_cache(maxsize=8)
def _warn_without_thresholds(name: str) -> None:
    """Warn once per classifier and process."""
    say(
        f"text_kind is null: {name} comes without {EVALUATION}, so its thresholds are unknown; set code_to and "
        "natural_language_from"
    )


def read_thresholds(model: str, revision: str | None = None) -> tuple[float, float] | None:
    """The thresholds of a classifier, from the `evaluation.json` next to its weights; None if there is none.

    Thresholds from hand-labeled sequences take precedence over those from passages labeled by rule.

    Args:
        model: folder or Hub name.
        revision: branch, tag or commit on the Hub.

    Returns:
        Scores up to the first are code, from the second on natural language.

    Raises:
        ModelError: the file is damaged.
    """
    file = find_file(model, revision, EVALUATION)
    if file is None:
        return None
    try:
        sets = read_json(file, {"*": {"code_to": SHARE, "natural_language_from": SHARE}})
        figures = sets.get("hand-labelled sequences") or sets["held-out passages"]
        found = figures["code_to"], figures["natural_language_from"]
    except (OSError, KeyError, MemtaxError) as error:
        raise ModelError(f"{file} has no thresholds ({error}); train the classifier again, or set them") from error
    if found[0] >= found[1]:
        # The classes do not overlap in the evaluation, so any cut between them has no false positives: take the middle.
        middle = (found[0] + found[1]) / 2
        found = math.nextafter(middle, 0), middle
    _check_thresholds(found, str(file))
    return found


def _check_thresholds(thresholds: tuple[float, float], what: str) -> None:
    code_to, natural_language_from = thresholds
    if not 0 <= code_to < natural_language_from <= 1:
        raise MemtaxError(
            f"the thresholds of {what} give no verdict: code_to ({code_to}) must be below natural_language_from "
            f"({natural_language_from}), both in [0, 1]"
        )


def natural_language_class(id2label: dict[int, str], wanted: str | int | None = None) -> int:
    """Number of the class that is natural language.

    Args:
        id2label: class names, from a model's configuration.
        wanted: name or number of the class, if known.

    Raises:
        ModelError: there are not two classes, `wanted` is not one of them, or the names match both or neither.
    """
    names = {int(number): str(name) for number, name in id2label.items()}
    listed = ", ".join(f"{number}: {name!r}" for number, name in sorted(names.items()))
    if sorted(names) != [0, 1]:
        raise ModelError(f"a classifier of code and natural language has two classes; this one has {len(names)} ({listed})")
    if wanted is not None:
        found = [number for number, name in names.items() if wanted in (number, name, str(number))]
        if not found:
            raise ModelError(f"the classifier has no class {wanted!r}; it has {listed}")
        return found[0]
    if all(re.fullmatch(r"LABEL_\d", name) for name in names.values()):
        return 0
    prose, code = ({n for n, name in names.items() if kind.search(name.lower())} for kind in (_PROSE, _CODE))
    # "source text" and "natural text" may both match one pattern; a class that only one pattern matches decides.
    for candidates in (prose - code, {0, 1} - code, prose):
        if len(candidates) == 1:
            return candidates.pop()
    raise ModelError(f"which class is natural language? The classifier has {listed}; name it with natural_language=...")


@functools.lru_cache(maxsize=1)
def _ngrams(path: str, revision: str | None, files: tuple[Stamp, ...]) -> NgramClassifier | None:
    """An n-gram classifier, cached per process while its files stay unchanged; None if it is another kind."""
    verify(path)
    config, weights = (find_file(path, revision, name) for name in (NGRAM_CONFIG, NGRAM_WEIGHTS))
    if config is None:
        return None
    if weights is None:
        raise ModelError(f"{path} has {NGRAM_CONFIG} without {NGRAM_WEIGHTS}; train the classifier again")
    return NgramClassifier.from_files(config, weights)


def _load(path: str, revision: str | None, wanted: str | int | None) -> Any:
    """An n-gram classifier, or tokenizer, model and class number."""
    from memtax.lm import resident

    files = visible_files(path) if Path(path).is_dir() else []
    if (ngrams := _ngrams(path, revision, tuple(map(file_stamp, files)))) is not None:
        return ngrams
    model = resident.classifier(path, revision)
    try:
        tokenizer = load_tokenizer(path, revision, own="classifier")
    except ModelError as error:
        raise ModelError(f"the classifier {path} cannot be loaded ({error})") from error
    if tokenizer.pad_token_id is None:
        # Padding is masked, so any token can be used; decoders look for the last token that differs from it.
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(tokenizer.eos_token_id or 0)
    if model.config.get_text_config().pad_token_id is None:
        model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    number = natural_language_class(model.config.id2label, wanted)
    return tokenizer, model, number


def _scores(loaded: Any, texts: Sequence[str], max_length: int, at_once: int = 64) -> list[float]:
    """P(natural language) of each text; texts of similar length are batched together to reduce padding."""
    if isinstance(loaded, NgramClassifier):
        return loaded.scores([text[: CHARACTERS_PER_TOKEN * max_length] for text in texts])
    import torch

    spare_threads()
    tokenizer, model, number = loaded
    longest = min(max_length, getattr(model.config, "max_position_embeddings", max_length))
    # The text is truncated before tokenization, since only its beginning is read.
    encoded = tokenizer([text[: 40 * longest] for text in texts], truncation=True, max_length=longest)
    order = sorted(range(len(texts)), key=lambda row: len(encoded["input_ids"][row]))
    scores = [0.0] * len(texts)
    with torch.inference_mode():
        for start in range(0, len(order), at_once):
            rows = order[start : start + at_once]
            batch = tokenizer.pad({name: [encoded[name][row] for row in rows] for name in encoded}, return_tensors="pt")
            # One NaN among a text's logits makes its scores NaN.
            found = model(**batch.to(model.device)).logits.float().softmax(dim=-1)[:, number].tolist()
            for row, score in zip(rows, found, strict=True):
                if math.isnan(score):
                    raise RowError("the classifier's logits for {row} are not numbers (NaN); check its weights", row)
                scores[row] = score
    return scores
