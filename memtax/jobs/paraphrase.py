"""`memtax paraphrase`: validated paraphrases of texts by a language model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from memtax.jobs.base import Job, Result, Rows, Work
from memtax.jobs.options import DTYPE, BatchOption, ColumnOption, PlacementOptions
from memtax.progress import agree, numbered
from memtax.settings import Dtype, argument, option

Mode = Literal["greedy_Nprompts", "beam_single_prompt", "beam_Nprompts", "nucleus_Nprompts"]


@dataclass(frozen=True, kw_only=True)
class Paraphrase(PlacementOptions, BatchOption, ColumnOption, Job):
    """Paraphrase texts with a language model; an invalid paraphrase is null, with the reason.

    Of conversations every answer is a text.

    Example: `memtax paraphrase train.jsonl --column text --model Qwen/Qwen2.5-1.5B-Instruct --output runs/paraphrases`
    """

    needs: ClassVar[tuple[str, ...]] = ("lm",)

    data: str = argument("Texts: a folder of domains, or path[:config[:split]].")
    model: str = option("Folder or Hub name of the paraphraser, NAME@REVISION for a revision.", short="-m", source=True)
    mode: Mode = option("How answers are generated.", "greedy_Nprompts")
    prompts: str = option("near_duplicate, syntactic_rewrite, bare, or a file of templates.", "near_duplicate")
    count: int = option("Paraphrases per text.", 3, least=1)
    beams: int = option("Width of the beam search.", 5, least=1)
    top_p: float = option("Probability mass of nucleus sampling.", 0.9, most=1)
    temperature: float = option("Temperature of nucleus sampling.", 0.5)
    repetition_penalty: float = option("Values above 1 discourage repetition.", 1.05)
    min_ratio: float = option("Minimum number of tokens, relative to the text's.", 0.9)
    max_ratio: float = option("Maximum number of tokens, relative to the text's.", 1.1)
    min_words: int = option("Fewest words.", 3)
    max_edits: float = option("Maximum share of edited characters and words.", 0.9)
    min_similarity: float | None = option("Minimum cosine similarity of the embeddings.", None)
    similarity_model: str | None = option("A sentence-transformers model; default: MiniLM.", None)
    dtype: Dtype = option(DTYPE, "auto")

    def make(self, work: Work) -> Result:
        """See `memtax.paraphrasing.paraphraser`."""
        import datasets

        from memtax.corpus.membership_texts import load_texts
        from memtax.lm.loading import split_revision
        from memtax.paraphrasing.paraphraser import ROWS_PER_BATCH, Paraphraser, summarize
        from memtax.provenance import fingerprint_table

        model, revision = split_revision(self.model)
        paraphraser = self.build(Paraphraser, model=model, revision=revision)
        texts = load_texts(self.data, column=self.column, answers=True)
        asked = texts.select(["sequence_id", "text"])
        rows = datasets.Dataset(asked, fingerprint=fingerprint_table(asked))
        added = work.stage(rows, paraphraser, "parts", ROWS_PER_BATCH, 1)
        table = texts
        for name in paraphraser.columns:
            table = table.append_column(name, added.column(name))
        figures = summarize(table, paraphraser)
        return Result(
            title="Paraphrases",
            tables=[Rows("paraphrases", "One row per text: its paraphrases, and why missing ones failed.", table)],
            figures=figures,
            lines=_lines(figures),
        )


def _lines(figures: Mapping[str, Any]) -> list[str]:
    asked, texts = numbered(figures["asked"], "paraphrase"), numbered(figures["texts"], "text")
    lines = [f"{figures['valid']:,} of {asked} of {texts} {agree(figures['valid'], 'is')} valid"]
    return lines + [f"  {reason:<18}{count:,}" for reason, count in figures["failed"].items()]
