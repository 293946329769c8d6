"""Evidence about each text for membership attacks, with one forward pass per kind of text."""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from memtax.corpus.conversations import SCORED
from memtax.errors import MemtaxError, RowError
from memtax.filters.base import Batch, Filter
from memtax.lm import resident
from memtax.lm.loading import load_tokenizer, model_files
from memtax.lm.placement import QUANTIZATIONS, settled_dtype
from memtax.lm.served_names import Served
from memtax.lm.special_tokens import BosIds, bos_ids, check_bos, text_ids, text_positions, without_bos
from memtax.membership.attacks import Attack, choose
from memtax.membership.token_values import Tokens, Values, token_values
from memtax.provenance import digest


@dataclass(frozen=True)
class AttackFilter(Filter):
    """Membership scores of each text under a causal language model.

    The model runs once over the texts for all attacks that read token log-probabilities; each attack that compares with
    another text (lower case, neighbors, a prefix) or another model adds a pass.

    Args:
        model: folder or Hub name of the model, or the name of a served one (`memtax.lm.served_names`).
        attacks: names in `memtax.membership.attacks.ATTACKS` that need no finished table.
        revision: branch, tag or commit on the Hub.
        tokenizer: folder or Hub name; None takes the model's. Not needed if the input has only tokens.
        reference_model: for `reference`, `ez` and `wbc`, with the revision after `@`.
        neighbour_model: a masked language model, for `neighbour`.
        neighbours: number of neighbors per text.
        given_neighbours: whether the column `neighbour_texts` provides the neighbors instead of a model.
        prefixes: for `recall`, the non-member tokens put before the texts of each domain.
        frequencies: for `dc_pdd`, the table of token counts.
        dtype: number format of the weights during scoring.
        batch_size: rows per forward pass; None finds the largest that fits.
        device_map: `auto` spreads a model over several devices; None uses one device.
        quantization: one of `memtax.lm.placement.QUANTIZATIONS`; needs bitsandbytes.
        bos: one of `memtax.lm.special_tokens.BOS`, applied with each model's own tokenizer, or token ids.
        answers: only tokens of the column `scored_tokens` count, the assistant's of a conversation.
    """

    model: str
    attacks: tuple[str, ...] = ("loss",)
    revision: str | None = None
    tokenizer: str | None = None
    reference_model: str | None = None
    neighbour_model: str | None = None
    neighbours: int = 10
    given_neighbours: bool = False
    prefixes: tuple[tuple[str, tuple[int, ...]], ...] = ()
    frequencies: str | None = None
    dtype: str = "float32"
    batch_size: int | None = None
    device_map: str | None = None
    quantization: str | None = None
    bos: str | tuple[int, ...] = "auto"
    answers: bool = False

    name: ClassVar[str] = "attacks"
    requires: ClassVar[tuple[str, ...]] = ("text", "tokens", "chunk_start", "chunk_end", "domain")
    columns: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "attacks", tuple(self.attacks))
        object.__setattr__(self, "prefixes", tuple((domain, tuple(tokens)) for domain, tokens in self.prefixes))
        object.__setattr__(self, "dtype", settled_dtype(self.dtype))
        if self.quantization not in (None, *QUANTIZATIONS):
            raise MemtaxError(f"unknown quantization {self.quantization!r}; choose one of {', '.join(QUANTIZATIONS)}")
        if self.batch_size is not None and self.batch_size < 1:
            raise MemtaxError(f"batch_size={self.batch_size} must be at least 1, or None to find what fits")
        check_bos(self.bos)
        if self.neighbours < 1:
            raise MemtaxError(f"neighbours must be at least 1, not {self.neighbours}")
        for attack in self.chosen:
            if attack.late:
                raise MemtaxError(f"attack {attack.name!r} reads finished tables; memtax mia computes it afterwards")
            for need, names in PARAMETERS.items():
                if need in attack.needs and not any(getattr(self, name) for name in names):
                    raise MemtaxError(f"attack {attack.name!r} needs {names[0]}, which is not given")
        self._with_parameters(columns=tuple(column for attack in self.chosen for column in attack.columns))
        further = (("neighbour_texts", self.given_neighbours), (SCORED, self.answers))
        self._with_parameters(requires=(*type(self).requires, *(name for name, is_read in further if is_read)))

    @property
    def chosen(self) -> list[Attack]:
        """The attacks."""
        return choose(self.attacks)

    @property
    def opening(self) -> BosIds:
        """Token ids put before every row."""
        return bos_ids(self.model, self.revision, self.bos, self.tokenizer)

    @property
    def reference_opening(self) -> BosIds:
        """Token ids put before every row for the reference model."""
        from memtax.lm.loading import split_revision

        return bos_ids(*split_revision(self.reference_model), self.bos) if self.reference_model else ()

    def inputs(self) -> Iterable[str]:
        """Files of all models and tables that the filter reads."""
        from memtax.counting.count_tables import location
        from memtax.lm.loading import split_revision

        found = model_files(self.model)
        for other in (self.reference_model, self.neighbour_model):
            found += model_files(split_revision(other)[0]) if other else []
        return [*found, location(self.frequencies)] if self.frequencies else found

    @functools.cached_property
    def weights(self) -> str:
        """Digest of the weights, cached so that all batches share it."""
        return resident.weights_digest(self.model)

    @functools.cached_property
    def fingerprint(self) -> str:
        """As for every filter, with the BOS in use; cached, because the weights may be many gigabytes."""
        _ = self.weights
        return digest(super().fingerprint, self.opening, self.reference_opening)

    def compute(self, batch: Batch) -> Batch:
        """Scores of a batch of texts."""
        needed = {need for attack in self.chosen for need in attack.needs}
        evidence = Gatherer(self, batch, needed).gather()
        rows = [{column: score for attack in self.chosen for column, score in attack.scores(row).items()} for row in evidence]
        return {column: [row[column] for row in rows] for column in self.columns}


PARAMETERS = {
    "rates": ("reference_model",),
    "deltas": ("reference_model",),
    "neighbours": ("neighbour_model", "given_neighbours"),
    "prefixed": ("prefixes",),
    "frequencies": ("frequencies",),
}
"""Kinds of evidence and the parameters of which at least one must be set."""


class Gatherer:
    """Collects the evidence for one batch."""

    def __init__(self, parameters: AttackFilter, batch: Batch, needed: set[str]) -> None:
        self.parameters, self.batch, self.needed = parameters, batch, needed
        opening = parameters.opening
        self.texts: list[str | None] = batch["text"]
        self.whole = [start is None for start in batch["chunk_start"]]
        self.tokens = [list(without_bos(tokens or (), opening)) for tokens in batch["tokens"]]

    def gather(self) -> list[dict[str, Any]]:
        """One dictionary per row with keys from `EVIDENCE`; evidence that a row lacks is omitted."""
        options = {"moments": "moments" in self.needed, "errors": "errors" in self.needed}
        passed = token_values(self.model, self.tokens, batch_size=self.parameters.batch_size, **options)
        found: list[dict[str, Any]] = [{} for _ in self.tokens]
        steps: dict[str, Callable[..., None]] = {
            "reference": self._reference,
            "lowercase": self._lowercase,
            "neighbours": self._neighbours,
            "prefixed": self._prefixed,
        }
        for row, values in enumerate(passed):
            # A server cannot be asked for every text.
            kept = self._kept(row) if len(values[0]) else slice(None)
            found[row]["logprobs"] = values[0][kept]
            if "moments" in self.needed:
                found[row]["moments"] = (values[1][kept], values[2][kept])
            if "errors" in self.needed and not np.isnan(values[-1]).any():
                found[row]["errors"] = values[-1][kept].astype(np.bool_)
            if self.parameters.answers:
                found[row]["text"] = self._tokenizer.decode(np.asarray(self.tokens[row])[1:][kept].tolist())
            elif (text := self.texts[row]) is not None:
                found[row]["text"] = text[self.batch["chunk_start"][row] : self.batch["chunk_end"][row]]
            if "frequencies" in self.needed:
                found[row]["frequencies"] = self._frequencies(row, kept)
        for name in self._steps() & steps.keys():
            steps[name](found)
        for attack in self.parameters.chosen:
            if attack.gather is not None:
                attack.gather(self, found)
        return found

    def _steps(self) -> set[str]:
        """Names of the further passes; both kinds of evidence about the reference model come from one."""
        return {"reference" if need in ("rates", "deltas") else need for need in self.needed}

    def _kept(self, row: int) -> Any:
        """Which of the tokens after the first count: the assistant's, those of the chunk, or all."""
        if self.parameters.answers:
            # The opening, which is dropped from the tokens, is never the assistant's.
            scored = np.array(self.batch[SCORED][row], np.bool_)
            return scored[len(scored) - len(self.tokens[row]) :][1:]
        return slice(None) if self.whole[row] else self._chunk(row)

    def _chunk(self, row: int) -> npt.NDArray[np.bool_]:
        """Which scored tokens of a text end inside its chunk."""
        ends = _token_ends(self._tokenizer, self.texts[row] or "")[1:]
        return (ends > self.batch["chunk_start"][row]) & (ends <= self.batch["chunk_end"][row])

    @property
    def model(self) -> Any:
        """The attacked model; fetched for every pass because the reference model may be the same without its adapter."""
        asked = self.parameters
        more = {"expected": asked.weights, "tokenizer": asked.tokenizer}
        return self._get(asked.model, asked.revision, asked.opening, role=resident.MODEL, **more)

    def _get(self, path: str, revision: str | None, bos: BosIds, **more: Any) -> Any:
        asked = self.parameters
        placement = resident.Placement(asked.dtype, asked.device_map, asked.quantization)
        return resident.scorer(path, revision, placement, bos, requests=asked.batch_size, **more)

    @property
    def _tokenizer(self) -> Any:
        return load_tokenizer(self.parameters.tokenizer or self.parameters.model, self.parameters.revision)

    def _likelihoods(self, sequences: Sequence[Tokens], rows: Sequence[int]) -> list[float | None]:
        """LL of each sequence; `rows` are the rows that the sequences belong to."""
        with _of_rows(rows):
            found = token_values(self.model, sequences, batch_size=self.parameters.batch_size)
        return [float(values[0].mean()) if len(values[0]) else None for values in found]

    def _readable(self) -> list[int]:
        """Rows that contain whole texts."""
        return [row for row, text in enumerate(self.texts) if text is not None and self.whole[row]]

    def _lowercase(self, found: list[dict[str, Any]]) -> None:
        rows = self._readable()
        lower = text_ids(self._tokenizer, [(self.texts[row] or "").lower() for row in rows])
        for row, value in zip(rows, self._likelihoods(lower, rows), strict=True):
            found[row]["lowercase"] = value

    def _neighbours(self, found: list[dict[str, Any]]) -> None:
        from memtax.membership.masked_neighbors import neighbours

        rows = self._readable()
        if self.parameters.given_neighbours:
            near = [list(self.batch["neighbour_texts"][row] or ()) for row in rows]
        else:
            texts = [self.texts[row] or "" for row in rows]
            near = neighbours(texts, str(self.parameters.neighbour_model), self.parameters.neighbours)
        flat = text_ids(self._tokenizer, [text for texts in near for text in texts])
        owners = [row for row, texts in zip(rows, near, strict=True) for _ in texts]
        values = iter(self._likelihoods(flat, owners))
        for row, texts in zip(rows, near, strict=True):
            likelihoods = [next(values) for _ in texts]
            found[row]["neighbours"] = [value for value in likelihoods if value is not None]

    def _prefixed(self, found: list[dict[str, Any]]) -> None:
        """Score texts after a prefix, cut to half of the model's positions; texts are cut to the rest."""
        limit = text_positions(self.model)
        prefixes = {domain: list(tokens) for domain, tokens in self.parameters.prefixes}
        rows, joined, lengths = [], [], []
        for row, tokens in enumerate(self.tokens):
            prefix = prefixes.get(self.batch["domain"][row], [])
            prefix = prefix[-(limit // 2) :] if limit else prefix
            kept = tokens[: limit - len(prefix)] if limit else tokens
            if prefix and self.whole[row] and len(kept) > 1:
                rows.append(row)
                joined.append(prefix + kept)
                lengths.append(len(kept) - 1)
        with _of_rows(rows):
            found_after = token_values(self.model, joined, batch_size=self.parameters.batch_size)
        for row, values, count in zip(rows, found_after, lengths, strict=True):
            alone = found[row]["logprobs"][:count]
            found[row]["prefixed"] = (float(values[0][-count:].mean()), float(alone.mean()))

    def _frequencies(self, row: int, kept: Any) -> tuple[npt.NDArray[np.bool_], Values]:
        """First occurrences among the scored tokens, and their corpus probabilities with add-one smoothing."""
        probabilities = _corpus_probabilities(
            str(self.parameters.frequencies), _vocabulary(self.model), _stamp(self.parameters)
        )
        tokens = np.asarray(self.tokens[row], np.int64)
        first = np.zeros(len(tokens), np.bool_)
        first[np.unique(tokens, return_index=True)[1]] = True
        # The first token has no context and thus no score, unless it only marks the start of the text.
        return first[1:][kept], probabilities[tokens[1:]][kept]

    def _reference(self, found: list[dict[str, Any]]) -> None:
        """`rates`, and `deltas` if the reference model reads the same tokens."""
        from memtax.lm.loading import split_revision

        name, revision = split_revision(str(self.parameters.reference_model))
        model = self._get(name, revision, self.parameters.reference_opening, role=resident.REFERENCE)
        same = any(text is None for text in self.texts) or same_tokenization(self._tokenizer, load_tokenizer(name, revision))
        if self.parameters.answers and not same:
            raise MemtaxError(
                f"the reference model {name} has another tokenizer, which conversations do not allow; leave it out"
            )
        texts = [text or "" for text in self.texts]
        theirs = self.tokens if same else text_ids(load_tokenizer(name, revision), texts)
        passed = token_values(model, theirs, batch_size=self.parameters.batch_size)
        for row, (values,) in enumerate(passed):
            if self.whole[row]:
                ours = found[row]["logprobs"]
                if self.parameters.answers and len(values):
                    values = values[self._kept(row)]
                sizes = (len(ours), len(values)) if same else (len(texts[row].encode("utf-8", "surrogatepass")),) * 2
                rates = [
                    float(v.sum()) / size if len(v) and size else None for v, size in zip((ours, values), sizes, strict=True)
                ]
                found[row]["rates"] = tuple(rates)
                if same:
                    # A token that both models exclude has no difference.
                    with np.errstate(invalid="ignore"):
                        found[row]["deltas"] = ours - values


@contextlib.contextmanager
def _of_rows(rows: Sequence[int]) -> Iterator[None]:
    """Attribute errors in sequences to the rows that they were made from."""
    try:
        yield
    except RowError as error:
        raise error.at(rows[error.row]) from error


def same_tokenization(first: Any, second: Any) -> bool:
    """Whether two tokenizers map every text to the same ids, because their vocabulary and processing steps are equal."""
    if first.get_vocab() != second.get_vocab():
        return False
    backends = [getattr(tokenizer, "backend_tokenizer", None) for tokenizer in (first, second)]
    if None in backends:
        return type(first) is type(second)
    import json

    steps = [json.loads(backend.to_str()) for backend in backends if backend is not None]
    return all(steps[0].get(part) == steps[1].get(part) for part in ("model", "normalizer", "pre_tokenizer"))


def _token_ends(tokenizer: Any, text: str) -> npt.NDArray[np.int64]:
    """End offset of each token in the text, in characters."""
    if not tokenizer.is_fast:
        raise MemtaxError("chunks inside a text need a fast tokenizer, which reports the offsets of its tokens")
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, truncation=False, verbose=False)
    return np.array([end for _, end in found["offset_mapping"]], np.int64)


def _vocabulary(model: Any) -> int:
    if isinstance(model, Served):
        return model.vocabulary
    return int(model.get_input_embeddings().weight.shape[0])


def _stamp(parameters: AttackFilter) -> tuple[tuple[str, int, int], ...]:
    from memtax.counting.count_tables import stamp

    return stamp(str(parameters.frequencies))


@functools.lru_cache(maxsize=2)
def _corpus_probabilities(name: str, vocabulary: int, stamp: tuple[tuple[str, int, int], ...]) -> Values:
    """(count + 1) / (N + V) for each token id."""
    from memtax.counting.count_tables import read_frequencies

    table = read_frequencies(name)
    size = max(vocabulary, int(table.ids.max(initial=-1)) + 1)
    counts, _ = table.look_up(np.arange(vocabulary))
    return (counts + 1) / (table.total + size)
