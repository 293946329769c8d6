"""What can be told about membership without the model: the baseline that every attack must beat, and why it can be told."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from memtax import statistics

FOLDS = 5
NGRAMS = (7, 13)
"""Words of the n-grams whose overlap is measured: MIMIR's."""
SEED = 1024
_YEAR = re.compile(r"(?<!\d)(1[89]\d\d|20\d\d)(?!\d)")

Values = npt.NDArray[np.float64]


def blind_scores(texts: Sequence[str], labels: Sequence[bool], folds: int = FOLDS, seed: int = SEED) -> Values | None:
    """Out-of-fold log-odds that a text is a member, by a classifier that never sees the model.

    Logistic regression on words and pairs of words, lengths, and the years that the text names (Das et al. 2024; Meeus et
    al. 2024). Equal texts (chunks of one text, too) fall into the same fold.

    Args:
        texts: the texts.
        labels: whether each is a member.
        folds: of the cross-validation; fewer where a class has fewer texts.
        seed: of the folds.

    Returns:
        (texts,) scores, or None with fewer than 2 different texts of a class.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold

    y = np.asarray(labels, np.int64)
    groups = np.unique(np.asarray(texts, object), return_inverse=True)[1]
    folds = min(folds, *(len(np.unique(groups[y == kind])) for kind in (0, 1)))
    if folds < 2:
        return None
    found = np.full(len(y), np.nan)
    for train, test in StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(y, y, groups):
        if len(np.unique(y[train])) < 2:
            return None
        features = _Features([texts[row] for row in train])
        classifier = LogisticRegression(class_weight="balanced", max_iter=1000)
        classifier.fit(features([texts[row] for row in train]), y[train])
        found[test] = classifier.decision_function(features([texts[row] for row in test]))
    return found


class _Features:
    """Words, lengths and years of texts, scaled by the training texts alone."""

    def __init__(self, texts: Sequence[str]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.preprocessing import StandardScaler

        # Single characters and signs count as words: code and formulas are made of them.
        self.words = TfidfVectorizer(
            ngram_range=(1, 2),
            token_pattern=r"\w+|[^\w\s]",
            sublinear_tf=True,
            max_features=50_000,
            min_df=2 if len(texts) > 50 else 1,
        )
        self.scaler = StandardScaler()
        try:
            self.words.fit(texts)
        except ValueError:
            # No word at all.
            self.words = None
        self.scaler.fit(_numbers(texts))

    def __call__(self, texts: Sequence[str]) -> Any:
        from scipy.sparse import csr_matrix, hstack

        numbers = csr_matrix(self.scaler.transform(_numbers(texts)))
        return numbers if self.words is None else hstack([self.words.transform(texts), numbers]).tocsr()


def _numbers(texts: Sequence[str]) -> Values:
    rows = []
    for text in texts:
        years = [int(year) for year in _YEAR.findall(text)]
        words = text.split()
        rows.append(
            [
                np.log1p(len(text)),
                np.log1p(len(words)),
                len(text) / max(len(words), 1),
                sum(not character.isalnum() for character in text) / max(len(text), 1),
                max(years, default=1990),
                float(bool(years)),
            ]
        )
    return np.asarray(rows, np.float64).reshape(len(texts), 6)


def shift(texts: Sequence[str], labels: Sequence[bool], lengths: Sequence[int], resamples: int = 1000) -> dict[str, Any]:
    """How members and non-members differ: n-gram overlap with the members, length in tokens, latest year named.

    Args:
        texts: the texts.
        labels: whether each is a member.
        lengths: tokens of each.
        resamples: for the intervals.

    Returns:
        For each measure the mean of either kind, and the AUROC of the measure alone with its interval: far from .5 it tells
        members from non-members. A measure that no text of a kind has is null.
    """
    y = np.asarray(labels, bool)
    years = [max(map(int, _YEAR.findall(text)), default=None) for text in texts]
    measures: dict[str, list[float | None]] = {
        f"overlap_of_{size}_grams": list(ngram_overlap(texts, y.tolist(), size)) for size in NGRAMS
    }
    measures["tokens"] = [float(length) for length in lengths]
    measures["latest_year"] = [None if year is None else float(year) for year in years]
    return {name: _difference(values, y, resamples) for name, values in measures.items()}


def ngram_overlap(texts: Sequence[str], labels: Sequence[bool], size: int) -> list[float | None]:
    """Share of each text's word n-grams that other member texts have; None for texts of fewer words."""
    grams = []
    for text in texts:
        words = text.lower().split()
        grams.append({hash(tuple(words[start : start + size])) for start in range(len(words) - size + 1)})
    members = Counter(gram for own, member in zip(grams, labels, strict=True) if member for gram in own)
    return [
        sum(members[gram] > member for gram in own) / len(own) if own else None
        for own, member in zip(grams, labels, strict=True)
    ]


def _difference(values: Sequence[float | None], members: npt.NDArray[np.bool_], resamples: int) -> dict[str, Any]:
    known = np.array([value is not None for value in values])
    numbers = np.array([value for value in values if value is not None], np.float64)
    labels = members[known]
    found: dict[str, Any] = {
        name: float(numbers[labels == kind].mean()) if (labels == kind).any() else None
        for name, kind in (("members", True), ("nonmembers", False))
    }
    found |= {"texts": int(known.sum()), "auroc": None}
    if labels.any() and not labels.all():
        interval = statistics.bootstrap_interval(statistics.auroc, labels, numbers, resamples=resamples, strata=labels)
        found["auroc"] = {"value": interval.value, "low": interval.low, "high": interval.high}
    return found
