"""One table from a model, a dataset and names of `evaluate` modules, with one forward pass."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from memtax.errors import MemtaxError
from memtax.extras import explained
from memtax.files import metric_path
from memtax.lm.special_tokens import bos_before, bos_ids, bos_of, check_bos, text_ids, tokenizer_bos, without_bos

if TYPE_CHECKING:
    import datasets

LABELS = ("is_member", "label", "member")
"""Columns with membership labels; the first that exists is used."""


@explained()
def evaluate_model(
    model: Any,
    dataset: "datasets.Dataset | str",
    metrics: Sequence[str],
    *,
    tokenizer: Any = None,
    prompt: int = 32,
    continuation: int = 32,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    bos: str = "auto",
) -> pa.Table:
    """Compute `evaluate` modules for a model on the sequences of a dataset.

    Similar to `evaluate.evaluator`: each module gets the inputs that it needs, computed with the model once or taken from the
    dataset (`sequence_duplicates`, `is_member`, `memorized_probability`, `paraphrase_cosines`).

    Args:
        model: folder or Hub name (NAME@REVISION), or a loaded model.
        dataset: rows with `tokens` or texts, or their location: PATH or NAME[:CONFIG[:SPLIT]].
        metrics: names of memtax's modules.
        tokenizer: folder, Hub name or tokenizer; required for texts, or if a module needs texts that are missing. Default:
            the model's, if `model` is a name.
        prompt: tokens in the prompt.
        continuation: tokens in the continuation; modules about extraction skip rows that do not reach its end.
        options: name of a module to further arguments of its `compute`.
        bos: tokens put before each row, one of `memtax.lm.special_tokens.BOS`, from the tokenizer if there is one.

    Returns:
        One row per figure: `metric`, `measure`, `value`, `low` and `high` if there is an interval, `reason` if a figure or an
        interval is withheld, and `rows`, the number of sequences behind the figure.

    Raises:
        MemtaxError: a name is unknown, or an input of a module is neither in the dataset nor available from the model.

    Example:
        >>> import datasets
        >>> from transformers import GPTNeoXConfig, GPTNeoXForCausalLM
        >>> from memtax import evaluate_model
        >>> sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        >>> model = GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=32, **sizes))
        >>> rows = datasets.Dataset.from_dict({"tokens": [list(range(8)), list(range(8, 16))]})
        >>> table = evaluate_model(model, rows, ["k_extractability"], prompt=4, continuation=4)
        >>> table.column_names
        ['metric', 'measure', 'value', 'low', 'high', 'reason', 'rows']
    """
    import evaluate

    paths = {name: metric_path(name) for name in metrics}
    if (unread := [name for name in options or {} if name not in paths]) or not paths:
        raise MemtaxError(f"options are for {', '.join(unread)}, metrics are {', '.join(paths) or 'none'}; use the same names")
    evidence = _Evidence(model, dataset, tokenizer, prompt, continuation, bos)
    found: list[dict[str, Any]] = []
    for name, path in paths.items():
        inputs = _INPUTS[name](evidence)
        rows = len(next(iter(inputs.values())))
        results = evaluate.load(path).compute(**inputs, **(options or {}).get(name, {}))
        found += [{"metric": name, **figure, "rows": rows} for figure in _figures(results)]
    kinds = {"metric": pa.string(), "measure": pa.string(), **dict.fromkeys(("value", "low", "high"), pa.float64())}
    return pa.Table.from_pylist(found, schema=pa.schema({**kinds, "reason": pa.string(), "rows": pa.int64()}))


def _figures(results: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The numbers returned by a module, each with its interval, or the reason why something is withheld."""
    for measure, value in results.items():
        beside = measure.endswith(("_low", "_high", "_reason")) and measure.rpartition("_")[0] in results
        if not beside and not isinstance(value, (list, dict)):
            more = {kind: results.get(f"{measure}_{kind}") for kind in ("low", "high", "reason")}
            yield {"measure": measure, "value": value, **more}


class _Evidence:
    """Inputs of the modules, each computed on first use."""

    def __init__(self, model: Any, dataset: Any, tokenizer: Any, prompt: int, continuation: int, bos: str) -> None:
        from memtax.corpus.sources import Source, open_dataset
        from memtax.lm import resident
        from memtax.lm.loading import load_tokenizer, split_revision

        if prompt < 1 or continuation < 1:
            raise MemtaxError(f"prompt={prompt} and continuation={continuation} must be at least 1 token each")
        named = split_revision(str(model)) if isinstance(model, (str, Path)) else None
        if tokenizer is None and named:
            self._tokenizer: Callable[[], Any] = functools.partial(load_tokenizer, *named)
        elif isinstance(tokenizer, (str, Path)):
            self._tokenizer = functools.partial(load_tokenizer, tokenizer)
        else:
            self._tokenizer = lambda: tokenizer
        if tokenizer is not None:
            self.bos = tokenizer_bos(self.tokenizer, bos)
        elif named:
            self.bos = bos_ids(*named, bos)
        else:
            # A loaded model without its tokenizer keeps its BOS setting.
            check_bos(bos)
            if bos == "always" and not bos_of(model):
                raise MemtaxError("bos='always' needs the tokenizer that defines the token; give tokenizer=NAME")
            self.bos = () if bos == "never" else bos_of(model)
        self.model = resident.get(*named, bos=self.bos) if named else model
        self.dataset = open_dataset(Source.parse(dataset)) if isinstance(dataset, str) else dataset
        self.prompt, self.end = prompt, prompt + continuation

    @functools.cached_property
    def tokenizer(self) -> Any:
        found = self._tokenizer()
        if found is None:
            raise MemtaxError("a tokenizer is needed to convert between texts and tokens; give tokenizer=NAME")
        return found

    @functools.cached_property
    def tokens(self) -> list[list[int]]:
        for name in ("tokens", "input_ids"):
            if name in self.dataset.column_names:
                return [list(without_bos(row or (), self.bos)) for row in self.dataset[name][:]]
        return [list(without_bos(row, self.bos)) for row in text_ids(self.tokenizer, self.column("text"))]

    @functools.cached_property
    def texts(self) -> list[str]:
        if "text" in self.dataset.column_names:
            return [text or "" for text in self.column("text")]
        return [self.tokenizer.decode(row) for row in self.tokens]

    @functools.cached_property
    def scores(self) -> Any:
        from memtax.lm.scores import score

        with bos_before(self.model, self.bos):
            return score(self.model, self.tokens, moments=True)

    @functools.cached_property
    def whole(self) -> list[int]:
        """Rows that reach the end of the continuation."""
        rows = [row for row, tokens in enumerate(self.tokens) if len(tokens) >= self.end]
        if not rows:
            raise MemtaxError(f"no row has {self.end} tokens; choose a shorter prompt or continuation")
        return rows

    @property
    def memorized(self) -> list[bool]:
        """Whether greedy decoding yields the continuation, for the rows of `whole`."""
        matches = self.scores.split(self.scores.match)
        return [bool(matches[row][self.prompt - 1 : self.end - 1].all()) for row in self.whole]

    @property
    def labels(self) -> list[Any]:
        name = next((name for name in LABELS if name in self.dataset.column_names), LABELS[0])
        return self.column(name)

    def column(self, name: str) -> list[Any]:
        from memtax import schema

        schema.require(self.dataset.column_names, [name], "the dataset")
        return list(self.dataset[name][:])

    def lists(self, array: Any) -> list[list[float]]:
        return [piece.tolist() for piece in self.scores.split(array)]

    def of_whole(self, column: Sequence[Any]) -> list[Any]:
        return [column[row] for row in self.whole]


def _extraction(evidence: _Evidence) -> dict[str, Any]:
    from memtax.lm.generation import generate

    rows = evidence.of_whole(evidence.tokens)
    counts = [evidence.end - evidence.prompt] * len(rows)
    with bos_before(evidence.model, evidence.bos):
        generated = generate(evidence.model, [row[: evidence.prompt] for row in rows], counts)
    return {"predictions": generated, "references": [row[evidence.prompt : evidence.end] for row in rows]}


def _probabilistic(evidence: _Evidence) -> dict[str, Any]:
    rows = evidence.of_whole(evidence.lists(evidence.scores.logprobs))
    return {"predictions": [[min(value, 0.0) for value in row[evidence.prompt - 1 : evidence.end - 1]] for row in rows]}


def _membership(evidence: _Evidence) -> dict[str, Any]:
    labels, means = evidence.labels, [sum(row) / len(row) if row else None for row in evidence.lists(evidence.scores.logprobs)]
    rows = [row for row, value in enumerate(means) if value is not None]
    return {"predictions": [means[row] for row in rows], "references": [labels[row] for row in rows]}


def _membership_scores(evidence: _Evidence) -> dict[str, Any]:
    scores = evidence.scores
    inputs = {"predictions": [[min(value, 0.0) for value in row] for row in evidence.lists(scores.logprobs)]}
    inputs |= {"means": evidence.lists(scores.means), "variances": evidence.lists(scores.variances)}
    return {**inputs, "references": evidence.labels, "texts": evidence.texts}


def _taxonomy(evidence: _Evidence) -> dict[str, Any]:
    duplicates = evidence.of_whole(evidence.column("sequence_duplicates"))
    return {
        "predictions": evidence.memorized,
        "sequence_duplicates": duplicates,
        "texts": evidence.of_whole(evidence.texts),
    }


def _calibration(evidence: _Evidence) -> dict[str, Any]:
    probabilities = evidence.of_whole(evidence.column("memorized_probability"))
    known = [(value, label) for value, label in zip(probabilities, evidence.memorized, strict=True) if value is not None]
    return {"predictions": [value for value, _ in known], "references": [label for _, label in known]}


_INPUTS: dict[str, Callable[[_Evidence], dict[str, Any]]] = {
    "k_extractability": _extraction,
    "probabilistic_extraction": _probabilistic,
    "membership_inference": _membership,
    "membership_scores": _membership_scores,
    "memorization_taxonomy": _taxonomy,
    "templating": lambda evidence: {"predictions": evidence.texts},
    "coding_length": lambda evidence: {"predictions": [text for text in evidence.texts if text]},
    "calibration_error": _calibration,
    "gradient_alignment": lambda evidence: {"predictions": evidence.column("paraphrase_cosines")},
}
