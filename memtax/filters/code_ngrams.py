"""A classifier of code and natural language from character n-grams: fast, small, and without a pretrained encoder.

Logistic regression on hashed n-grams with tf-idf weights. Its accuracy depends far more on how training passages are labeled
(see `memtax.filters._passages`) than on the model.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from memtax.errors import ModelError
from memtax.files import atomic_path, read_json, write_json

CONFIG = "ngram_config.json"
WEIGHTS = "model.safetensors"
KIND = "character n-grams"

SHORTEST, LONGEST = 1, 4
"""Characters per n-gram."""
BUCKETS = 2**17
"""Number of hash buckets, each with a weight and an inverse document frequency: 1 MiB."""
STRENGTH = 10.0
"""Inverse of the L2 penalty."""

Values = npt.NDArray[np.float64]


class NgramClassifier:
    """P(natural language) of texts.

    Attributes:
        weights: (buckets), weights for the log-odds of natural language.
        bias: bias of the log-odds.
        idf: (buckets), inverse document frequencies from training.
    """

    def __init__(self, weights: Values, bias: float, idf: Values) -> None:
        self.weights, self.bias, self.idf = weights, bias, idf

    @classmethod
    def fit(cls, texts: Sequence[str], labels: Sequence[int]) -> "NgramClassifier":
        """Train on texts with labels 0 (natural language) and 1 (code). Training is deterministic."""
        from sklearn.linear_model import LogisticRegression

        counts = _counts(texts)
        occurring = np.bincount(counts.indices, minlength=BUCKETS)
        idf = np.log((1 + len(texts)) / (1 + occurring)) + 1
        model = LogisticRegression(C=STRENGTH, max_iter=1000, tol=1e-6)
        model.fit(_normalize(counts, idf), 1 - np.asarray(labels))
        # Converted to the dtype of the saved file, so that scores are equal before and after saving.
        weights, idf = (values.astype(np.float32).astype(np.float64) for values in (model.coef_[0], idf))
        return cls(weights, float(model.intercept_[0]), idf)

    def scores(self, texts: Sequence[str]) -> list[float]:
        """P(natural language) of each text, between 0 and 1."""
        if not len(texts):
            return []
        odds = _normalize(_counts(texts), self.idf) @ self.weights + self.bias
        found: list[float] = (0.5 * (1 + np.tanh(odds / 2))).tolist()
        return found

    def save_pretrained(self, folder: Path | str) -> None:
        """Write `model.safetensors` and `ngram_config.json`; no pickle."""
        from safetensors.numpy import save_file

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {"weights": self.weights.astype(np.float32), "idf": self.idf.astype(np.float32)}
        with atomic_path(folder / WEIGHTS) as temporary:
            save_file({**tensors, "bias": np.array([self.bias], np.float64)}, temporary)
        write_json(folder / CONFIG, {"kind": KIND, "characters": [SHORTEST, LONGEST], "buckets": BUCKETS})

    @classmethod
    def from_files(cls, config: Path | str, weights: Path | str) -> "NgramClassifier":
        """Read a classifier written by `save_pretrained`.

        Raises:
            ModelError: the files are damaged, or of another kind.
        """
        from safetensors.numpy import load_file

        try:
            facts = read_json(config)
            tensors = load_file(weights)
            read = tensors["weights"].astype(np.float64), float(tensors["bias"][0]), tensors["idf"].astype(np.float64)
        except Exception as error:  # JSON, safetensors and the file system each raise their own types
            raise ModelError(f"the classifier in {Path(config).parent} cannot be read: {error!r}") from error
        made = {"kind": KIND, "characters": [SHORTEST, LONGEST], "buckets": BUCKETS}
        if facts != made or read[0].shape != (BUCKETS,) or read[2].shape != (BUCKETS,):
            raise ModelError(f"{config} describes a classifier of another kind or version ({facts}); train it again")
        if not all(np.isfinite(values).all() for values in read):
            raise ModelError(f"the weights in {weights} are not finite; train the classifier again")
        return cls(*read)


def _counts(texts: Sequence[str]) -> Any:
    """(texts, buckets) sparse counts of n-grams; a run of white space, such as indentation, becomes one space."""
    from sklearn.feature_extraction.text import HashingVectorizer

    vectorizer = HashingVectorizer(
        analyzer="char", ngram_range=(SHORTEST, LONGEST), n_features=BUCKETS, alternate_sign=False, norm=None, lowercase=False
    )
    # Hashing encodes the text, which fails for lone surrogates.
    clean = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
    return vectorizer.transform(clean)


def _normalize(counts: Any, idf: Values) -> Any:
    """Sublinear tf-idf with rows normalized to unit length."""
    from sklearn.preprocessing import normalize

    weighted = counts.copy()
    weighted.data = (1 + np.log(weighted.data)) * idf[weighted.indices]
    return normalize(weighted, copy=False)
