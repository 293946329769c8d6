"""`memtax counterfactual`: how much likelier a text is under models trained with it than under models trained without it."""

from dataclasses import dataclass
from typing import ClassVar

from memtax.jobs.base import Job, Result, Rows, Work
from memtax.jobs.options import ColumnOption
from memtax.settings import Bos, argument, option


@dataclass(frozen=True, kw_only=True)
class Counterfactual(ColumnOption, Job):
    """Counterfactual memorization: how much likelier a text is under models trained with it than under others.

    `memtax mia --references` uses the scores for the attacks lira and rmia. Finished models are not trained again.

    Example: `memtax counterfactual train.jsonl --model EleutherAI/pythia-70m --models 16 --output runs/counterfactual`

    Several processes train models side by side: `accelerate launch -m memtax counterfactual ...` on GPUs, `torchrun
    --nproc_per_node 2 -m memtax counterfactual ...` on CPUs.
    """

    needs: ClassVar[tuple[str, ...]] = ("lm",)

    data: str = argument("Texts: a folder of domains, or path[:config[:split]].")
    model: str = option("Folder or Hub name of the initial model.", short="-m", source=True)
    models: int = option("Models to train, each on a random part of the texts.", 8, least=4)
    share: float = option("Share of the texts that each model is trained on.", 0.5)
    full: bool = option("Train all weights instead of a LoRA adapter.", False)
    epochs: float = option("Passes over the texts.", 3)
    learning_rate: float = option("Learning rate of AdamW.", 1e-3)
    batch_size: int = option("Texts per training step.", 16, least=1)
    max_length: int = option("Maximum tokens per training example; longer texts are split.", 256, least=2)
    lora_rank: int = option("Rank of the adapter.", 16, least=1)
    seed: int = option("Random seed of subsets and training.", 1024, least=0, most=2**32 - 1)
    bos: Bos = option(
        "Beginning-of-sequence token before each row, never scored: auto (if the tokenizer adds it), always or never.", "auto"
    )

    def make(self, work: Work) -> Result:
        """See `memtax.membership.in_minus_out`."""
        from memtax.corpus.membership_texts import load_texts
        from memtax.membership.in_minus_out import counterfactual, describe, with_texts
        from memtax.membership.reference_models import TEXTS, Training

        texts = load_texts(self.data, column=self.column)
        scores, figures = counterfactual(texts, self.build(Training), work.output)
        row = "One row per text: how much likelier it is under models trained with it, and its score under each model."
        return Result(
            title="Counterfactual memorization",
            tables=[Rows("counterfactual", row, with_texts(scores, texts))],
            figures=figures,
            lines=describe(figures),
            files=[TEXTS],
        )
