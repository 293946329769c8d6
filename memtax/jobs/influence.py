"""`memtax influence`: influence of training examples on test examples."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from memtax.jobs.base import Job, Result, Rows, Work
from memtax.jobs.options import BatchOption, ColumnOption, ModelOptions, PlacementOptions, QuoteOption
from memtax.progress import numbered
from memtax.settings import argument, option


@dataclass(frozen=True, kw_only=True)
class Influence(ModelOptions, PlacementOptions, BatchOption, ColumnOption, QuoteOption, Job):
    """Influence of training examples on test examples: gradient match, DataInf, LiSSA, exact inverse, RepSim.

    Influence is negative if training on the example lowers the loss at the test example; RepSim is a cosine. Of conversations
    only the assistant's tokens have a loss.

    Example: `memtax influence train.jsonl unseen.jsonl --model runs/demo/models/small-gpt-neox --output influence`

    Several processes: `accelerate launch -m memtax influence ...` on GPUs, `torchrun --nproc_per_node 2 -m memtax influence
    ...` on CPUs.
    """

    needs: ClassVar[tuple[str, ...]] = ("lm", "report")

    train: str = argument("Training examples, tokens or text: path[:config[:split]].")
    test: str = argument("Test examples, likewise.")
    method: tuple[Literal["gradient_match", "datainf", "lissa", "exact", "repsim"], ...] = option(
        "gradient_match, datainf, lissa, exact or repsim; default: all.", ()
    )
    parameters: Literal["lora", "head", "embeddings+head", "all-linear"] | None = option(
        "Weights whose gradients are used; default: lora if there are adapters, otherwise embeddings+head.", None
    )
    prompt_column: str | None = option("Text before each example, excluded from the loss.", None)
    class_column: str | None = option("Classes, for accuracy and coverage of the top k.", None)
    length: int | None = option("Maximum tokens per example; default: the model's positions.", None, least=2)
    top: int = option("Training examples listed per test example.", 10, least=1)
    iterations: int = option("Iterations of LiSSA.", 10, least=1)
    scale: float | None = option("Scale of LiSSA; default: one that converges.", None)
    damping: float | None = option("Lambda of DataInf, LiSSA and exact; default: per tensor, from its gradients.", None)
    per_tensor: bool = option("Also save the matrix of every tensor.", False)

    def make(self, work: Work) -> Result:
        """See `memtax.attribution.influence_table`."""
        from memtax.attribution.influence_functions import METHODS
        from memtax.attribution.influence_table import MATRICES, InfluenceSettings, influence_table
        from memtax.corpus.sources import Source
        from memtax.lm.loading import split_revision
        from memtax.report import verb_pages

        name, revision = split_revision(self.model)
        settings = self.build(InfluenceSettings, model=name, revision=revision, methods=self.method or METHODS)
        train, test = (Source.parse(source, column=self.column) for source in (self.train, self.test))
        pairs, top, figures = influence_table(train, test, settings, work.output)
        return Result(
            title="Influence of training examples",
            tables=[
                Rows("influence", "One row per pair of training and test example, with the influence.", pairs),
                Rows("top", "One row per test example, method and rank: one of the most influential training examples.", top),
            ],
            figures=figures,
            lines=_lines(figures),
            page=verb_pages.influence,
            files=[MATRICES],
            is_private=self.show_personal_data,
        )


def _lines(figures: Mapping[str, Any]) -> list[str]:
    pair = f"{numbered(figures['train'], 'training example')} on {numbered(figures['test'], 'test example')}"
    lines = [f"{pair}, parameters {figures['parameters']}"]
    for name, values in figures["methods"].items():
        shown = ", ".join(f"{key} {value['value']:.3f}" for key, value in values.items() if value)
        if shown:
            lines.append(f"{name:<15}{shown}")
    return lines
