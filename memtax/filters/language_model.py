"""Perplexities and extraction of sequences under a language model."""

import functools
from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from memtax.engine.world import spare_threads
from memtax.errors import MemtaxError, ModelError
from memtax.filters.base import Batch, Columns, Filter, list_array
from memtax.lm import extraction
from memtax.lm.decoding import Decoding
from memtax.lm.loading import model_files
from memtax.lm.matching import PASSAGE
from memtax.lm.placement import QUANTIZATIONS, TENSOR, settled_dtype
from memtax.lm.served_names import OF_ARGMAX, is_served
from memtax.lm.special_tokens import BosIds, bos_ids, check_bos, without_bos
from memtax.provenance import digest

if TYPE_CHECKING:
    from memtax.lm.scores import TokenScores

GENERATED = ("memorization_score", "continuation_edit_distance", "longest_common_block", "block_recall")
"""Columns from the continuation that greedy decoding generates."""
RECALL, NEAR = ("near_verbatim_recall",), ("near_logprob", "near_logprob_most")
_DRAWN = ("decoding_logprob", "extraction_queries")
_PER_TOKEN = ("logprobs", "means", "variances", "ranks")


@dataclass(frozen=True)
class LanguageModelFilter(Filter):
    """Perplexities and extraction of each sequence under a causal language model, from one forward pass.

    The first `prompt` tokens are the prompt and the next `continuation` tokens are what the model should reproduce; 32 and 32
    are the lengths in Pythia's evaluation (Biderman et al. 2023) and in Prashanth et al. 2024.

    Args:
        model: folder or Hub name of the model, or the name of a served one (`memtax.lm.served_names`).
        revision: branch, tag or commit on the Hub.
        prompt: tokens in the prompt.
        continuation: tokens in the continuation.
        dtype: dtype of the weights while scoring, one of `memtax.lm.placement.DTYPES`.
        token_logprobs: whether to add the log-probability of every token as well.
        windows: further (prompt, continuation) lengths, from the same pass; their columns end in `_PROMPT_CONTINUATION`.
        generated: add `memorization_score`, `continuation_edit_distance`, `longest_common_block` and `block_recall`, which need
            free-running greedy decoding after the first mismatch; and `near_verbatim_recall` of 100 tokens or more.
        reference_eos: never choose end-of-sequence, as in Pythia's own evaluation (`min_length=64`). By default it is treated
            like any token.
        exact_only: add only `is_memorized` and `match_length`, in a fraction of the time.
        temperature: with `top_k` and `top_p`, defines a sampling scheme; adds `decoding_logprob` under it.
        top_k: sample only from the k most likely tokens.
        top_p: sample only from the most likely tokens that hold this share of the probability.
        probability: add `extraction_queries`, the number of samples needed to see the continuation with this probability.
        edits: add `near_logprob` and `near_logprob_most`, bounds on the probability of drawing a continuation at most so many
            edits away (`memtax.lm.near_probability`).
        beam: prefixes kept for these bounds: more make them narrower.
        moments: add `token_means` and `token_variances` (for Min-K%++).
        ranks: add `token_ranks`.
        attention: add `attention_entropy` and `attention_gini`.
        near_ties: add `near_ties` if the dtype has 16 bits.
        answers: the column `prompt_tokens` says how many tokens each prompt has, instead of `prompt`.
        batch_size: sequences per forward pass; None finds the largest that fits.
        device_map: `auto` spreads a model over several devices; None uses one device.
        quantization: one of `memtax.lm.placement.QUANTIZATIONS`; needs bitsandbytes.
        bos: tokens put before each sequence: one of `memtax.lm.special_tokens.BOS`, or token ids. They have no score and are
            not part of the prompt, even if the tokens start with them.
        tokenizer: tokenizer that makes words of tokens, and that of a served model; None takes the model's.
    """

    model: str
    revision: str | None = None
    prompt: int = 32
    continuation: int = 32
    _: KW_ONLY
    dtype: str = "float32"
    token_logprobs: bool = False
    windows: tuple[tuple[int, int], ...] = ()
    generated: bool = False
    reference_eos: bool = False
    exact_only: bool = False
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    probability: float | None = None
    edits: int | None = None
    beam: int = 20
    moments: bool = False
    ranks: bool = False
    attention: bool = False
    near_ties: bool = False
    answers: bool = False
    batch_size: int | None = None
    device_map: str | None = None
    quantization: str | None = None
    bos: str | tuple[int, ...] = "auto"
    tokenizer: str | None = None

    name: ClassVar[str] = "scores"
    # The tokens themselves are in the input.
    neutral: ClassVar[tuple[str, ...]] = ("tokenizer",)
    requires: ClassVar[tuple[str, ...]] = ("tokens",)
    columns: ClassVar[tuple[str, ...]] = extraction.COLUMNS
    needs: ClassVar[tuple[str, ...]] = ("lm",)
    version: ClassVar[int] = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "windows", tuple((int(prompt), int(length)) for prompt, length in self.windows))
        for prompt, continuation in self.all_windows:
            for name, value in (("prompt", prompt), ("continuation", continuation)):
                if value < 1:
                    raise MemtaxError(f"{name} must be at least 1 token, got {value}")
        if len(set(self.all_windows)) < len(self.all_windows):
            raise MemtaxError(f"a pair of prompt and continuation is given twice: {self.all_windows}")
        object.__setattr__(self, "dtype", settled_dtype(self.dtype))
        if self.quantization not in (None, *QUANTIZATIONS):
            raise MemtaxError(f"unknown quantization {self.quantization!r}; choose one of {', '.join(QUANTIZATIONS)}")
        check_bos(self.bos)
        if self.batch_size is not None and self.batch_size < 1:
            raise MemtaxError(f"batch_size={self.batch_size} must be at least 1, or None to find what fits")
        if self.probability is not None:
            extraction.queries(0.0, self.probability)
        if self.beam < 1 or (self.edits or 0) < 0:
            raise MemtaxError(f"edits={self.edits} must be at least 0, and beam={self.beam} at least 1")
        self._check_together()
        # The class lists the columns that are always added; these depend on the parameters.
        self._with_parameters(columns=self._columns())

    def _check_together(self) -> None:
        if self.reference_eos and is_served(self.model):
            raise MemtaxError("reference_eos needs the model's second choice, which a served model does not give; leave it out")
        if self.exact_only and self._needs_more:
            raise MemtaxError("exact_only computes only is_memorized and match_length; leave out options that need more")
        if self.attention and self.device_map == TENSOR:
            raise MemtaxError("attention needs all heads in one process; leave it out, or use device_map auto")
        if self.answers and self.windows:
            raise MemtaxError(
                "the prompt of an answer is the conversation before it, and one length of its continuation is measured; give "
                "one --continuation and leave --prompt out"
            )
        if self.answers:
            self._with_parameters(requires=(*type(self).requires, "prompt_tokens"))

    @property
    def all_windows(self) -> tuple[extraction.Window, ...]:
        """Prompt and continuation lengths; the first pair's columns have no suffix."""
        return ((self.prompt, self.continuation), *self.windows)

    @property
    def decoding(self) -> Decoding | None:
        """The sampling scheme, if one is requested."""
        scheme = Decoding(self.temperature, self.top_k, self.top_p)
        return None if scheme == Decoding() else scheme

    @property
    def _needs_more(self) -> bool:
        """Whether the parameters request values that the short pass of `exact_only` cannot compute."""
        asked = (self.token_logprobs, self.generated, self.moments, self.ranks, self.attention)
        return any(asked) or any(one is not None for one in (self.decoding, self.probability, self.edits))

    def _columns(self) -> tuple[str, ...]:
        if self.exact_only:
            names = ("is_memorized", "match_length")
            return (*names, *(name + extraction.suffix(window) for window in self.windows for name in names))
        optional = (
            (self.generated, GENERATED),
            # Fewer tokens are hardly as many words.
            (self.generated and self.continuation >= PASSAGE, RECALL),
            (self.edits is not None, NEAR),
            (self.decoding is not None, ("decoding_logprob",)),
            (self.probability is not None, ("extraction_queries",)),
            (self.token_logprobs, ("token_logprobs",)),
            (self.moments, ("token_means", "token_variances")),
            (self.ranks, ("token_ranks",)),
            (self.attention, ("attention_entropy", "attention_gini")),
            (self.near_ties and self.dtype in ("bfloat16", "float16"), ("near_ties",)),
        )
        added = [name for asked, names in optional if asked for name in names]
        return (*extraction.window_columns(self.all_windows), *added)

    @property
    def opening(self) -> BosIds:
        """Token ids put before every row."""
        return bos_ids(self.model, self.revision, self.bos, self.tokenizer if is_served(self.model) else None)

    def inputs(self) -> Iterable[str]:
        """The model's configuration and weights: other files of a checkpoint folder do not affect scores."""
        return model_files(self.model)

    @functools.cached_property
    def weights(self) -> str:
        """Digest of the weights, cached so that all batches share it."""
        from memtax.lm import resident

        return resident.weights_digest(self.model)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Same as for every filter, with the BOS in use; cached, because the weights may be many gigabytes."""
        _ = self.weights
        return digest(super().fingerprint, self.opening)

    def compute(self, batch: Batch) -> Columns:
        """Score a batch of token sequences."""
        from memtax.lm import resident
        from memtax.lm.scores import score

        spare_threads()
        opening = self.opening
        placement = resident.Placement(self.dtype, self.device_map, self.quantization)
        model = resident.scorer(
            self.model,
            self.revision,
            placement,
            opening,
            expected=self.weights,
            tokenizer=self.tokenizer,
            requests=self.batch_size,
        )
        suppressed = _end_of_sequence(model) if self.reference_eos else None
        sequences = [without_bos(tokens, opening) for tokens in batch["tokens"]]
        most = self.batch_size and self.batch_size * max(map(len, sequences), default=1)
        prompts = batch["prompt_tokens"] if self.answers else [self.prompt] * len(sequences)
        if self.exact_only and not is_served(self.model):
            return self._exact(model, sequences, prompts, suppressed, most)
        scores = score(
            model,
            sequences,
            moments=self.moments,
            ranks=self.ranks,
            decoding=self.decoding,
            suppressed=suppressed,
            attention=self.attention,
            batch_tokens=most,
        )
        found: dict[str, Any] = extraction.of_windows(scores, self.all_windows, prompts)
        found |= self._beyond(scores, prompts)
        if is_served(self.model):
            return self._of_server(found, scores)
        if self.generated:
            found |= self._generated(model, sequences, prompts, scores, suppressed, most)
        if self.edits is not None:
            found |= self._near(model, sequences, prompts, self.edits, found["decoding_logprob"].to_pylist())
        return {name: found[name] for name in self.columns}

    def _of_server(self, found: Columns, scores: "TokenScores") -> Columns:
        """The columns with null for what a server does not give."""
        missing = [None] * len(scores)
        unknown = missing if scores.unknown is None else scores.unknown.tolist()
        columns: dict[str, Any] = {}
        for name in self.columns:
            values: Any = found.get(name, missing)
            if name.startswith(OF_ARGMAX):
                values = [None if lacks else value for value, lacks in zip(values.to_pylist(), unknown, strict=True)]
            columns[name] = missing if self.decoding is not None and name in _DRAWN else values
        return columns

    def _generated(
        self,
        model: Any,
        sequences: list[Any],
        prompts: list[int],
        scores: "TokenScores",
        suppressed: int | None,
        most: int | None,
    ) -> Batch:
        """Comparisons of the true continuation with that of free-running greedy decoding."""
        from memtax.lm.generation import greedy_continuations
        from memtax.lm.matching import block_recall, edit_distance, longest_common_block

        options = {"suppressed": suppressed, "batch_tokens": most}
        generated = greedy_continuations(model, sequences, scores, prompts, self.continuation, **options)
        pairs = [
            None if given is None else (given, sequence[prompt : prompt + self.continuation])
            for given, sequence, prompt in zip(generated, sequences, prompts, strict=True)
        ]
        shares = [pair and sum(a == b for a, b in zip(*pair, strict=True)) / self.continuation for pair in pairs]
        distances = [pair and edit_distance(*pair) for pair in pairs]
        blocks = [pair and longest_common_block(*pair) for pair in pairs]
        recalls = [pair and block_recall(*pair) for pair in pairs]
        lists: tuple[list[Any], ...] = (shares, distances, blocks, recalls)
        found: Batch = dict(zip(GENERATED, lists, strict=True))
        return found | ({RECALL[0]: self._recalls(pairs)} if RECALL[0] in self.columns else {})

    def _recalls(self, pairs: list[Any]) -> list[float | None]:
        """Near-verbatim recall of each pair of generated and true tokens, in words; None of texts shorter than a passage."""
        from memtax.lm.loading import load_tokenizer
        from memtax.lm.matching import near_verbatim_recall

        try:
            tokenizer = load_tokenizer(self.tokenizer or self.model, None if self.tokenizer else self.revision)
        except MemtaxError:
            # Rows of token ids need none.
            return [None] * len(pairs)
        texts = [pair and [tokenizer.decode(list(tokens)).split() for tokens in pair] for pair in pairs]
        return [near_verbatim_recall(text[1], text[0]).recall if text and len(text[1]) >= PASSAGE else None for text in texts]

    def _near(self, model: Any, sequences: list[Any], prompts: list[int], edits: int, drawn: list[float | None]) -> Batch:
        """Bounds on the probability of nearly the continuation, never below that of the continuation itself."""
        from memtax.lm.near_probability import near_logprobs

        if edits == 0:
            return dict.fromkeys(NEAR, drawn)
        options: dict[str, Any] = {"width": self.beam, "decoding": self.decoding}
        bounds = near_logprobs(model, sequences, prompts, self.continuation, edits, **options)
        pairs = [
            (None, None) if both is None or own is None else (max(both.low, own), max(both.high, own))
            for both, own in zip(bounds, drawn, strict=True)
        ]
        return {name: [pair[place] for pair in pairs] for place, name in enumerate(NEAR)}

    def _exact(self, model: Any, sequences: list[Any], prompts: list[int], suppressed: int | None, most: int | None) -> Batch:
        from memtax.lm.generation import match_lengths

        found: Batch = {}
        for number, (prompt, continuation) in enumerate(self.all_windows):
            given = prompt if number else prompts
            lengths = match_lengths(model, sequences, given, continuation, suppressed=suppressed, batch_tokens=most)
            ending = extraction.suffix((prompt, continuation)) if number else ""
            found["is_memorized" + ending] = [None if length is None else length == continuation for length in lengths]
            found["match_length" + ending] = lengths
        return found

    def _beyond(self, scores: "TokenScores", prompts: list[int]) -> dict[str, Any]:
        """The optional columns that the forward pass provides."""
        found: dict[str, Any] = {}
        drawn = scores.logprobs if scores.decoded is None else scores.decoded
        logprobs = extraction.span_logprob(drawn, scores.offsets, prompts, self.continuation)
        found["decoding_logprob"] = logprobs
        if self.probability is not None:
            found["extraction_queries"] = [extraction.queries(value, self.probability) for value in logprobs.to_pylist()]
        for name in _PER_TOKEN:
            array = getattr(scores, name)
            if f"token_{name}" in self.columns and array is not None:
                found[f"token_{name}"] = list_array(scores.lengths, array)
        if self.attention and not is_served(self.model):
            empty = scores.lengths == 0
            for name in ("entropy", "gini"):
                rows = scores.attention[name] if scores.attention else np.empty((len(scores), 0), np.float32)
                values = rows[~empty].reshape(-1)
                found[f"attention_{name}"] = list_array(np.where(empty, 0, rows.shape[1]), values, empty)
        if "near_ties" in self.columns and scores.near is not None:
            shares = [piece.mean() if len(piece) else None for piece in scores.split(scores.near)]
            found["near_ties"] = [None if share is None else float(share) for share in shares]
        return found


def _end_of_sequence(model: Any) -> int:
    """The token id that Pythia's evaluation suppresses.

    Raises:
        ModelError: the model's configuration defines none, or several.
    """
    found = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    found = model.config.get_text_config().eos_token_id if found is None else found
    if isinstance(found, list) and len(found) == 1:
        found = found[0]
    if not isinstance(found, int):
        raise ModelError(f"reference_eos needs one end-of-sequence token, but the model's configuration has {found}")
    return found
