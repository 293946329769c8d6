"""How well the texts alone predict membership (the baseline that every attack must beat), and how members differ."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from memtax import statistics

FOLDS = 5
INNER_FOLDS = 3
"""Folds of the training rows used to choose a classifier."""
PERMUTATIONS = 200
NGRAMS = (7, 13)
"""N-gram sizes, in words, for the overlap with members; as in MIMIR."""
SEED = 1024
NUMBERS = (
    "length in characters",
    "length in words",
    "length of words",
    "share of signs",
    "latest year",
    "naming of a year",
    "length in tokens",
)
"""Single lengths and years that may separate members from non-members, in the order of `_numbers`, followed by the tokens."""
_BUCKETS = 512
"""Number of hashed word features in the permutation test."""
_YEAR = re.compile(r"(?<!\d)(1[89]\d\d|20\d\d)(?!\d)")

Values = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]
Split = tuple[Codes, Codes]


def blind_scores(
    texts: Sequence[str],
    labels: Sequence[bool],
    folds: int = FOLDS,
    seed: int = SEED,
    *,
    units: npt.ArrayLike | None = None,
    lengths: Sequence[int] | None = None,
) -> Values | None:
    """Out-of-fold log-odds that a text is a member, from a classifier that never sees the model.

    Each fold chooses one of several logistic regressions: one on words, word pairs, lengths and mentioned years (Das et al.
    2024; Meeus et al. 2024), or one on a single length or year, whichever ranks best in a cross-validation on the fold's
    training rows alone. All rows of a unit are in the same fold. Vocabulary and scales come from all texts, without labels.

    Args:
        texts: the texts.
        labels: whether each is a member.
        folds: number of cross-validation folds; fewer if a class has fewer units.
        seed: random seed of the folds.
        units: (texts,) unit of each text, from `unit_codes`: its document, or the text that a chunk was cut from. None: rows
            with equal text form a unit.
        lengths: token count of each text, used as another single feature.

    Returns:
        (texts,) scores, or None if a class has fewer than 2 units.
    """
    y = np.asarray(labels, np.int64)
    groups = _units(texts, units)
    splits = _splits(y, groups, folds, seed)
    if splits is None:
        return None
    features = Features(texts, lengths)
    scores = np.full(len(y), np.nan)
    for train, test in splits:
        fitted = fit_and_choose(features, y[train], groups[train], train, test, seed)
        if fitted is None:
            return None
        scores[test] = fitted
    return scores


def fit_and_choose(features: "Features", y: Codes, groups: Codes, train: Codes, test: Codes, seed: int) -> Values | None:
    """Scores of the test rows from the candidate that ranks the training rows best out of fold.

    Args:
        features: features of all rows.
        y: (train,) labels of the training rows; labels of the test rows are not passed.
        groups: (train,) units of the training rows.
        train: indices of the training rows.
        test: indices of the test rows.
        seed: random seed of the inner folds.

    Returns:
        (test,) log-odds; None if all training rows have the same class.
    """
    if len(np.unique(y)) < 2:
        return None
    candidates = features.candidates()
    best = candidates[0]
    if inner := _splits(y, groups, INNER_FOLDS, seed):
        held = np.concatenate([part for _, part in inner])
        areas = []
        for columns in candidates:
            parts = [_log_odds(columns[train[fit]], y[fit], columns[train[part]]) for fit, part in inner]
            ranked = [part for part in parts if part is not None]
            areas.append(statistics.auroc(y[held], np.concatenate(ranked)) if len(ranked) == len(parts) else 0.5)
        best = candidates[int(np.argmax(areas))]
    return _log_odds(best[train], y, best[test])


def _log_odds(fitted: Any, y: Codes, tested: Any) -> Values | None:
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(y)) < 2:
        return None
    classifier = LogisticRegression(class_weight="balanced", solver="liblinear", random_state=SEED, max_iter=1000)
    scores: Values = classifier.fit(fitted, y).decision_function(tested)
    return scores


def blind_p_value(
    texts: Sequence[str],
    labels: Sequence[bool],
    *,
    units: npt.ArrayLike | None = None,
    strata: npt.ArrayLike | None = None,
    lengths: Sequence[int] | None = None,
    permutations: int = PERMUTATIONS,
    seed: int = SEED,
) -> float | None:
    """P-value of "the texts alone do not separate the classes", from permutations of the labels of whole units.

    The statistic is the larger of two out-of-fold AUROCs: of a ridge regression on hashed words, lengths and years, and of
    the best single length or year in either direction. The regression's predictions are linear in the labels, so all
    permutations are fit at once; folds depend on units and not on labels. Under random assignment of units it is uniform.

    Args:
        texts: the texts.
        labels: whether each is a member.
        units: as in `blind_scores`. Units with members and non-members have their rows permuted within the unit.
        strata: (texts,) domain of each text; labels are permuted within domains. None: one domain.
        lengths: token count of each text.
        permutations: number of permutations.
        seed: random seed of folds and permutations.

    Returns:
        (1 + permutations at least as extreme) / (1 + permutations); None if a class has fewer than 2 units.
    """
    from sklearn.model_selection import GroupKFold

    y, groups = np.asarray(labels, bool), _units(texts, units)
    fewest = min(len(np.unique(groups[y == kind])) for kind in (True, False)) if len(y) else 0
    if fewest < 2:
        return None
    domains = np.zeros(len(y), np.int64) if strata is None else np.unique(np.asarray(strata), return_inverse=True)[1].ravel()
    shuffled = np.column_stack([y, *permuted(y, groups, domains, permutations, seed)]).astype(np.float64)
    hashed, numbers = Features(texts, lengths).hashed()
    scores = np.zeros(shuffled.shape)
    splitter = GroupKFold(min(FOLDS, len(np.unique(groups))), shuffle=True, random_state=seed)
    for train, test in splitter.split(y, groups=groups):
        center = hashed[train].mean(axis=0)
        fitted = hashed[train] - center
        targets = shuffled[train] - shuffled[train].mean(axis=0)
        weights = np.linalg.solve(fitted.T @ fitted + np.eye(fitted.shape[1]), fitted.T @ targets)
        scores[test] = (hashed[test] - center) @ weights
    areas = _areas(shuffled, scores)
    for column in numbers.T:
        alone = _areas(shuffled, column[:, None])
        areas = np.maximum(areas, np.maximum(alone, 1 - alone))
    return float((areas[1:] >= areas[0] - 1e-12).sum() + 1) / (permutations + 1)


def permuted(
    y: npt.NDArray[np.bool_], groups: Codes, domains: Codes, permutations: int, seed: int
) -> Iterator[npt.NDArray[np.bool_]]:
    """Labels (rows,), permuted between whole units of a domain; units of both classes are permuted internally."""
    rng = np.random.default_rng(seed)
    pairs = np.unique(np.column_stack([domains, groups]), axis=0, return_inverse=True)[1].ravel()
    members, sizes = np.bincount(pairs, y), np.bincount(pairs)
    domain = np.zeros(len(sizes), np.int64)
    domain[pairs] = domains
    pure = (members == 0) | (members == sizes)
    mixed = [np.flatnonzero(pairs == unit) for unit in np.flatnonzero(~pure)]
    pools = [np.flatnonzero(pure & (domain == code)) for code in np.unique(domain)]
    for _ in range(permutations):
        of_units = members > 0
        for pool in pools:
            of_units[pool] = rng.permutation(of_units[pool])
        found = of_units[pairs]
        for rows in mixed:
            found[rows] = rng.permutation(y[rows])
        yield found


def _areas(labels: Values, scores: Values) -> Values:
    """AUROC of scores (rows, columns or 1) for each column of labels (rows, columns); .5 if a class is missing."""
    from scipy.stats import rankdata

    positives = labels.sum(axis=0)
    pairs = positives * (len(labels) - positives)
    above = (rankdata(scores, axis=0) * labels).sum(axis=0) - positives * (positives + 1) / 2
    areas: Values = np.where(pairs > 0, above / np.maximum(pairs, 1), 0.5)
    return areas


def _units(texts: Sequence[str], units: npt.ArrayLike | None) -> Codes:
    return statistics.unit_codes(texts=list(texts)) if units is None else np.asarray(units, np.int64)


def _splits(y: Codes, groups: Codes, folds: int, seed: int) -> list[Split] | None:
    """Folds of whole units with similar shares of members; None if a class has fewer than 2 units."""
    from sklearn.model_selection import StratifiedGroupKFold

    folds = min(folds, *(len(np.unique(groups[y == kind])) for kind in (0, 1)))
    if folds < 2:
        return None
    return list(StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(y, y, groups))


class Features:
    """Word, length and year features; vocabulary and scales come from all texts, never from labels.

    Args:
        texts: the texts.
        lengths: token count of each text, if known.
    """

    def __init__(self, texts: Sequence[str], lengths: Sequence[int] | None = None) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.preprocessing import StandardScaler

        numbers = _numbers(texts)
        if lengths is not None:
            numbers = np.column_stack([numbers, np.log1p(np.asarray(lengths, np.float64))])
        self.numbers = StandardScaler().fit_transform(numbers)
        # Single characters and symbols count as words because code and formulas consist of them.
        words = TfidfVectorizer(
            ngram_range=(1, 2),
            token_pattern=r"\w+|[^\w\s]",
            sublinear_tf=True,
            max_features=50_000,
            min_df=2 if len(texts) > 50 else 1,
        )
        try:
            self.words = words.fit_transform(texts)
        except ValueError:
            # The texts contain no words.
            self.words = None

    def candidates(self) -> list[Any]:
        """Feature matrices (texts, features): all features together, then each number with nonzero variance alone."""
        from scipy.sparse import csr_matrix, hstack

        together = self.numbers if self.words is None else hstack([self.words, csr_matrix(self.numbers)]).tocsr()
        return [together, *(self.numbers[:, [place]] for place in range(self.numbers.shape[1]) if self.numbers[:, place].any())]

    def hashed(self) -> tuple[Values, Values]:
        """Signed hashed word counts with the numbers (texts, features), and the numbers alone."""
        from scipy.sparse import csr_matrix

        if self.words is None:
            return self.numbers, self.numbers
        rng = np.random.default_rng(SEED)
        columns = self.words.shape[1]
        signs, buckets = rng.choice([-1.0, 1.0], columns), rng.integers(0, _BUCKETS, columns)
        into = csr_matrix((signs, (np.arange(columns), buckets)), shape=(columns, _BUCKETS))
        return np.hstack([(self.words @ into).toarray(), self.numbers]), self.numbers


def strongest_number(
    texts: Sequence[str], labels: Sequence[bool], lengths: Sequence[int] | None = None
) -> tuple[str, Values] | None:
    """The single length or year that separates members best over all texts, oriented so that larger means member.

    A classifier that must choose among features on part of the texts may do worse than one feature alone, so an attack has
    to beat both. Choosing on all texts favors the baseline, never the attack.

    Args:
        texts: the texts.
        labels: whether each is a member.
        lengths: token count of each text.

    Returns:
        Its name and (texts,) values; None if there is only one class or no number varies.
    """
    y = np.asarray(labels, np.int64)
    if not 0 < y.sum() < len(y):
        return None
    numbers = _numbers(texts)
    if lengths is not None:
        numbers = np.column_stack([numbers, np.asarray(lengths, np.float64)])
    areas = [statistics.auroc(y, column) for column in numbers.T]
    best = int(np.argmax(np.abs(np.array(areas) - 0.5)))
    if areas[best] == 0.5:
        return None
    return NUMBERS[best], numbers[:, best] * (1 if areas[best] > 0.5 else -1)


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


def shift(
    texts: Sequence[str], labels: Sequence[bool], lengths: Sequence[int], units: npt.ArrayLike | None = None
) -> dict[str, Any]:
    """How members and non-members differ in n-gram overlap with members, token length and latest year mentioned.

    Args:
        texts: the texts.
        labels: whether each is a member.
        lengths: token count of each text.
        units: (texts,) unit of each text, for the intervals and to define which texts are distinct. None: each row.

    Returns:
        For each measure the mean of each class, and the AUROC of the measure alone with its interval (null if a class has
        fewer than 10 units); an AUROC far from .5 separates members from non-members. A measure missing for a class is null.
    """
    y = np.asarray(labels, bool)
    codes = np.arange(len(y)) if units is None else np.asarray(units)
    years = [max(map(int, _YEAR.findall(text)), default=None) for text in texts]
    measures: dict[str, list[float | None]] = {
        f"overlap_of_{size}_grams": ngram_overlap(texts, y.tolist(), size, codes) for size in NGRAMS
    }
    measures["tokens"] = [float(length) for length in lengths]
    measures["latest_year"] = [None if year is None else float(year) for year in years]
    return {name: _difference(values, y, codes) for name, values in measures.items()}


def ngram_overlap(
    texts: Sequence[str], labels: Sequence[bool], size: int, units: npt.ArrayLike | None = None
) -> list[float | None]:
    """Share of each text's word n-grams that also occur in members of other units; None for texts of fewer words."""
    codes = (np.arange(len(texts)) if units is None else np.asarray(units)).tolist()
    grams = []
    for text in texts:
        words = text.lower().split()
        grams.append({hash(tuple(words[start : start + size])) for start in range(len(words) - size + 1)})
    # For each n-gram: the first unit that contains it, and whether a second unit does.
    holders: dict[int, set[int]] = defaultdict(set)
    for own, member, code in zip(grams, labels, codes, strict=True):
        for gram in own if member else ():
            if len(holders[gram]) < 2:
                holders[gram].add(code)
    empty: set[int] = set()
    return [
        sum(bool(holders.get(gram, empty) - {code}) for gram in own) / len(own) if own else None
        for own, code in zip(grams, codes, strict=True)
    ]


def _difference(values: Sequence[float | None], members: npt.NDArray[np.bool_], units: npt.NDArray[Any]) -> dict[str, Any]:
    known = np.array([value is not None for value in values], bool)
    numbers = np.array([value for value in values if value is not None], np.float64)
    labels = members[known]
    found: dict[str, Any] = {
        name: float(numbers[labels == kind].mean()) if (labels == kind).any() else None
        for name, kind in (("members", True), ("nonmembers", False))
    }
    found |= {"texts": int(known.sum()), "auroc": None}
    if labels.any() and not labels.all():
        interval = statistics.auroc_interval(labels, numbers, units[known])
        value = statistics.auroc(labels, numbers) if interval is None else interval.value
        bounds = (None, None) if interval is None else (interval.low, interval.high)
        found["auroc"] = dict(zip(("value", "low", "high"), (value, *bounds), strict=True))
    return found
