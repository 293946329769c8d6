"""Whether a sequence is natural language or code, by a sequence classifier."""

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
"""Of that classifier alone: scores up to the first are code, from the second on natural language."""
EVALUATION = "evaluation.json"
"""Where a classifier's own thresholds stand, beside its weights."""

CHARACTERS_PER_TOKEN = 4
"""How far a classifier of characters reads for a token of `max_length`."""

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
        natural_language: name or number of the class that is natural language, if the configuration does not name it.
        max_length: tokens of the classifier that are read of a text; of a classifier of n-grams four characters each.
        natural_language_from: scores from here on are natural language; with `code_to`, instead of the classifier's own
            thresholds. Those stand in its `evaluation.json`, placed where false positives vanish; the published classifier's
            are .525 and .4. What is neither has none, and no verdicts.
        code_to: scores up to here are code; between the two the verdict is "uncertain".
        verdict: whether to add `text_kind` as well; null where the classifier has no thresholds.
        scores: dataset of finished scores, `path:config:split` with `sequence_id` and `nl_score` or, as in the published
            `usvsnsp/pile-pythia-code-vs-nl-scores`, `nl_scores`; they are looked up and no model is run.
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
        """Scores up to the first are code, from the second on natural language; None where nothing says so.

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
        """As for every filter, but read once."""
        return super().fingerprint

    def compute(self, batch: Batch) -> Batch:
        """Score the texts that are there.

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
        """`natural language`, `code` or `uncertain` for each score; None stays None, and is all without thresholds."""
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
    """Once per classifier and process."""
    say(
        f"text_kind is null: {name} comes without {EVALUATION}, so that no thresholds are known; set code_to and "
        "natural_language_from"
    )


def read_thresholds(model: str, revision: str | None = None) -> tuple[float, float] | None:
    """The thresholds of a classifier, from the `evaluation.json` beside its weights; None where there is none.

    Those found on hand-labeled sequences go before those found on passages labeled by rule.

    Args:
        model: folder or Hub name.
        revision: branch, tag or commit of a Hub name.

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
        raise ModelError(f"{file} holds no thresholds ({error}); train the classifier again, or give them") from error
    if found[0] >= found[1]:
        # The kinds are apart on what was evaluated: any cut between them has no false positives. The middle is taken.
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
def _ngrams(path: str, revision: str | None, files: tuple[Stamp, ...]) -> NgramClassifier | None:
    """A classifier of n-grams, read once per process and as long as its files stay the same; None where it is none."""
    verify(path)
    config, weights = (find_file(path, revision, name) for name in (NGRAM_CONFIG, NGRAM_WEIGHTS))
    if config is None:
        return None
    if weights is None:
        raise ModelError(f"{path} has {NGRAM_CONFIG} without {NGRAM_WEIGHTS}; train the classifier again")
    return NgramClassifier.from_files(config, weights)


def _load(path: str, revision: str | None, wanted: str | int | None) -> Any:
    """A classifier of n-grams, or tokenizer, model and class number."""
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
        # Padding is masked, so that any token serves; decoders look for the last token that is not it.
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(tokenizer.eos_token_id or 0)
    if model.config.get_text_config().pad_token_id is None:
        model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    number = natural_language_class(model.config.id2label, wanted)
    return tokenizer, model, number


def _scores(loaded: Any, texts: Sequence[str], max_length: int, at_once: int = 64) -> list[float]:
    """P(natural language) of each text; texts of similar length share a pass, so that little is padded."""
    if isinstance(loaded, NgramClassifier):
        return loaded.scores([text[: CHARACTERS_PER_TOKEN * max_length] for text in texts])
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
