"""`memtax align`: gradient alignment of texts with their paraphrases."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from memtax.jobs.base import Job, Result, Rows, Work
from memtax.jobs.options import BatchOption, ColumnOption, ModelOptions, PlacementOptions
from memtax.settings import argument, option


@dataclass(frozen=True, kw_only=True)
class Align(ModelOptions, PlacementOptions, BatchOption, ColumnOption, Job):
    """Gradient alignment: similarity of the gradients at a text and at its paraphrases.

    Rows have a text and `paraphrases`, a list with null for each invalid one, as written by `memtax paraphrase`; or there is
    one row per `paraphrase`. The output table also contains the norm of the gradient at each text.

    Example: `memtax align runs/paraphrases/dataset --model runs/demo/models/small-gpt-neox --output alignment`

    Several processes: `accelerate launch -m memtax align ...` on GPUs, `torchrun --nproc_per_node 2 -m memtax align ...` on
    CPUs.
    """

    needs: ClassVar[tuple[str, ...]] = ("lm", "report")

    pairs: str = argument("Rows with a text and its paraphrases: path[:config[:split]].")
    parameters: Literal["embeddings+head", "head", "lora", "all-linear"] = option(
        "Weights whose gradients are compared.", "embeddings+head"
    )
    length: int | None = option("Maximum tokens per text; default: the model's positions.", None, least=2)

    def make(self, work: Work) -> Result:
        """See `memtax.attribution.alignment`."""
        from memtax import schema
        from memtax.attribution.alignment import BATCHES_PER_PART, ROWS_PER_BATCH, AlignmentFilter, summarize
        from memtax.attribution.alignment_pairs import load_pairs
        from memtax.corpus.sources import Source
        from memtax.lm.loading import split_revision
        from memtax.progress import skipped
        from memtax.report import verb_pages

        model, revision = split_revision(self.model)
        function = self.build(AlignmentFilter, model=model, revision=revision)
        source = Source.parse(self.pairs, column=self.column)
        rows = load_pairs(source)
        pairs = zip(rows["text"], rows["paraphrases"], strict=True)
        lost = sum(not text or all(other is None for other in paraphrases or ()) for text, paraphrases in pairs)
        skipped(lost, f"without a text or any paraphrase, in {source.label}; the alignment is null")
        added = work.stage(rows, function, "parts", ROWS_PER_BATCH, BATCHES_PER_PART)
        table = rows.data.table.replace_schema_metadata(None)
        for name in function.columns:
            table = table.append_column(name, schema.validate(added, [name], "the alignment").column(name))
        figures = summarize(rows, added, function)
        return Result(
            title="Gradient alignment",
            tables=[Rows("alignment", "One row per text: alignment of its gradient with those of its paraphrases.", table)],
            figures=figures,
            lines=_lines(figures),
            page=verb_pages.align,
        )


def _lines(figures: Mapping[str, Any]) -> list[str]:
    mean = "" if figures["mean"] is None else f", mean cosine {figures['mean']:.3f}"
    lines = [f"{figures['aligned']:,} of {figures['texts']:,} texts aligned{mean}"]
    if area := figures["membership"].get("auroc"):
        bounds = area["reason"] if area["low"] is None else f"{area['low']:.3f} to {area['high']:.3f}"
        lines.append(f"AUROC of members {area['value']:.3f} ({bounds})")
    return lines
