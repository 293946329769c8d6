"""`memtax score`: one forward pass over any sequences, or over every window of long texts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from memtax.errors import MemtaxError
from memtax.extras import require
from memtax.jobs.base import Job, Result, Rows, Work
from memtax.jobs.options import BatchOption, ColumnOption, ModelOptions, PlacementOptions
from memtax.settings import argument, option

if TYPE_CHECKING:
    from memtax.filters.language_model import LanguageModelFilter


@dataclass(frozen=True, kw_only=True)
class Score(ModelOptions, PlacementOptions, BatchOption, ColumnOption, Job):
    """Score sequences with one forward pass: perplexities, extraction, and optional values.

    Every pair of prompt and continuation length is measured in the same pass. Of conversations every answer is a sequence:
    its prompt is the conversation before it, and its continuation the answer's first tokens. With `--stride`, long texts
    such as books are read window by window, and the page has a heat map.

    Example: `memtax score runs/demo/dataset:features --model runs/demo/models/small-gpt-neox --prompt 16,32 --output scores`

    A served model: `--model openai:http://localhost:8000/v1#NAME`, its key in OPENAI_API_KEY.

    Several processes: `accelerate launch -m memtax score ...` on GPUs, `torchrun --nproc_per_node 2 -m memtax score ...`
    on CPUs.
    """

    needs: ClassVar[tuple[str, ...]] = ("lm",)
    tensor: ClassVar[bool] = True

    sequences: str = argument("Rows of tokens or text: path[:config[:split]].")
    prompt: tuple[int, ...] = option("Prompt tokens.", (32,))
    continuation: tuple[int, ...] = option("Continuation tokens.", (32,))
    reference_model: str | None = option("A model that was not trained on the sequences.", None, source=True)
    exact_only: bool = option("Only find which sequences are memorized, in a fraction of the time.", False)
    generate: bool = option(
        "Add memorization_score and near-verbatim measures of the continuation that greedy decoding generates.", False
    )
    reference_eos: bool = option("Never choose end-of-sequence, as in Pythia's evaluation.", False)
    temperature: float = option("Temperature of the sampling scheme for (n, p)-extraction.", 1.0)
    top_k: int | None = option("Number of tokens that the sampling scheme draws from.", None)
    top_p: float | None = option("Probability mass that the sampling scheme draws from.", None)
    probability: float | None = option("Add extraction_queries, the samples needed to reach this probability.", None)
    edits: int | None = option(
        "Add bounds on the probability of drawing a continuation at most so many edits away.", None, least=0
    )
    beam: int = option("With --edits: prefixes kept at each token.", 20, least=1)
    token_logprobs: bool = option("Add the log-probability of every token.", False)
    moments: bool = option("Add mean and variance of the log-probabilities at every token.", False)
    ranks: bool = option("Add the rank of every token.", False)
    attention: bool = option("Add entropy and Gini coefficient of the attention.", False)
    stride: int | None = option("Rows are long texts: score a window every this many tokens.", None, least=1)
    matched: str | None = option(
        "With --stride: texts of the same kind that the model was not trained on, to compare with.", None, source=True
    )
    length: int | None = option("Tokens to read per row; default: as many as the windows cover.", None, least=1)

    def make(self, work: Work) -> Result:
        """See `memtax.filters.language_model` and, for windows, `memtax.pipeline.sliding`."""
        from memtax.corpus.sources import Source

        windows = [(prompt, continuation) for continuation in self.continuation for prompt in self.prompt]
        if not windows:
            raise MemtaxError("score needs at least one prompt and one continuation length")
        scores = self._filter(
            self.model, windows[0], windows=tuple(windows[1:]), generated=self.generate, near_ties=self.stride is None
        )
        reference = None
        if self.reference_model is not None:
            plain: dict[str, Any] = dict.fromkeys(("token_logprobs", "moments", "ranks", "attention", "near_ties"), False)
            plain |= {"temperature": 1.0, "top_k": None, "top_p": None, "probability": None, "exact_only": True}
            reference = self._filter(self.reference_model, windows[0], **plain)
        source = Source.parse(self.sequences, column=self.column)
        if self.stride is None:
            if self.matched is not None:
                raise MemtaxError("--matched compares windows of long texts; give --stride as well")
            return self._sequences(work, source, scores, reference)
        if reference or self.length or self.exact_only or len(windows) > 1:
            raise MemtaxError("--stride takes one prompt and one continuation length, and no reference, exact-only or length")
        require("memtax score --stride", "report")
        return self._windows(work, source, scores, self.stride)

    def _filter(self, model: str, window: tuple[int, int], **given: Any) -> "LanguageModelFilter":
        from memtax.filters.language_model import LanguageModelFilter
        from memtax.lm.loading import split_revision

        name, revision = split_revision(model)
        prompt, continuation = window
        return self.build(LanguageModelFilter, model=name, revision=revision, prompt=prompt, continuation=continuation, **given)

    def _sequences(self, work: Work, source: Any, scores: Any, reference: Any) -> Result:
        from memtax.pipeline.scoring import score_sequences

        table, figures, opening = score_sequences(
            source, scores, work.stage, reference=reference, tokenizer=self.tokenizer, length=self.length
        )
        return Result(
            title="Scores of sequences",
            tables=[Rows("scores", "One row per sequence: perplexities and extraction under the model.", table)],
            figures={**figures, "bos": list(opening)},
            lines=_lines(figures),
        )

    def _windows(self, work: Work, source: Any, scores: Any, stride: int) -> Result:
        from memtax.corpus.sources import Source
        from memtax.pipeline.sliding import score_windows
        from memtax.report import verb_pages, words

        matched = None if self.matched is None else Source.parse(self.matched, column=self.column)
        options: dict[str, Any] = {"stride": stride, "tokenizer": self.tokenizer, "matched": matched}
        table, figures = score_windows(source, scores, work.stage, **options)
        return Result(
            title="Scores of windows",
            tables=[Rows("windows", "One row per window of a text: its perplexities and extraction.", table)],
            figures=figures,
            lines=[*_lines(figures), *words.say_census(figures.get("census"))],
            page=verb_pages.windows,
        )


def _lines(figures: Mapping[str, Any]) -> list[str]:
    """One line per window or threshold, and the comparison with the reference."""
    lines = []
    for row in figures.get("thresholds", ()):
        share, coverage = (
            f"{row[name]['value']:.2%} ({row[name]['low']:.2%} to {row[name]['high']:.2%})" for name in ("share", "coverage")
        )
        lines.append(f"p_z >= {row['threshold']}: {share} of the windows, {coverage} of the tokens")
    for row in figures.get("extraction", ()):
        share = "" if row["rate"] is None else f", {row['rate']:.2%} ({_interval(row)})"
        what = f"prompt {row['prompt']}, continuation {row['continuation']}"
        if row["prompt"] is None:
            what = f"answers after their conversation, first {row['continuation']} tokens"
        if row["sequences"]:
            lines.append(f"{what}: {row['memorized']:,} of {row['sequences']:,} memorized{share}")
        else:
            lines.append(f"{what}: not measured, because no row has enough tokens; give longer rows or shorter lengths")
    if (ties := figures.get("near_ties")) and ties["share"] is not None:
        share = f"{ties['share']:.2%}"
        lines.append(f"near-ties in {ties['dtype']}: {share} of the tokens, where another batch or card may decide otherwise")
    if beyond := figures.get("reference"):
        lines.append(f"of {beyond['model_memorized']:,} memorized, the reference model completes {beyond['predictable']:,}")
    return lines


def _interval(row: Mapping[str, Any]) -> str:
    if row["low"] is None:
        return f"interval withheld: {row['reason']}"
    return f"{row['low']:.2%} to {row['high']:.2%}, over {row['units']:,} {row['unit']}s"
