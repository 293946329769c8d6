"""`memtax mia`: membership inference from texts to figures, each next to a baseline without the model."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

from memtax.errors import MemtaxError
from memtax.jobs.base import Job, Result, Rows, Work
from memtax.jobs.options import BatchOption, ColumnOption, ModelOptions, PlacementOptions
from memtax.settings import argument, option


@dataclass(frozen=True, kw_only=True)
class Mia(ModelOptions, PlacementOptions, BatchOption, ColumnOption, Job):
    """Membership inference: how well scores separate members from non-members, compared with a blind baseline.

    DATA is a folder with one file per domain and class (github.member.jsonl, github.nonmember.jsonl), a table with
    a label column, `swj0419/WikiMIA::WikiMIA_length64` or `iamgroot42/mimir:github:ngram_13_0.8`. Published neighbors for
    WikiMIA: `--neighbour-texts zjysteven/WikiMIA_paraphrased_perturbed::WikiMIA_length64_perturbed`.

    Example: `memtax mia runs/demo/dataset:membership --model runs/demo/models/small-gpt-neox --output runs/mia`

    A served model: `--model openai:http://localhost:8000/v1#NAME`, its key in OPENAI_API_KEY.

    Several processes: `accelerate launch -m memtax mia ...` on GPUs, `torchrun --nproc_per_node 2 -m memtax mia ...` on CPUs.
    """

    needs: ClassVar[tuple[str, ...]] = ("lm", "report")
    tensor: ClassVar[bool] = True

    data: str | None = argument("Members and non-members: a folder, a table, or a Hub name.", None)
    members: str | None = option("Instead of DATA: a source of members.", None, source=True)
    nonmembers: str | None = option("With --members: a source of non-members.", None, source=True)
    attack: tuple[str, ...] = option("An attack; default: all that the inputs allow.", ())
    reference_model: str | None = option(
        "A model that was not trained on the texts; default: an adapter's base.", None, source=True
    )
    neighbour_model: str | None = option("A masked language model, for neighbour.", None, source=True)
    neighbours: int = option("Neighbours per text.", 10, least=1)
    neighbour_texts: str | None = option("Instead: perturbed texts, equally many per text, in order.", None, source=True)
    frequencies: str | None = option("Table of token counts, for dc_pdd.", None, source=True)
    columns: Path | None = option("Output of memtax align, or Parquet with sequence_id and score columns.", None, source=True)
    references: Path | None = option("Output of memtax counterfactual, for lira and rmia.", None, source=True)
    lira_variances: Literal["pooled", "per_text", "shrunk"] = option(
        "Variances of lira: pooled over all texts, per_text (needs many models), or shrunk between the two.", "pooled"
    )
    rmia_a: float = option("Constant a of offline rmia; 1: the mean of the models without the text.", 1.0, least=0, most=1)
    shots: int = option("Non-members in the prefix of recall.", 8, least=1)
    chunk_words: int | None = option("Score chunks of this many words, each in context.", None, least=1)
    resamples: int = option("Bootstrap resamples of the intervals.", 1000, least=1)

    def make(self, work: Work) -> Result:
        """See `memtax.membership.measure`."""
        from memtax.corpus.conversations import SCORED
        from memtax.lm.loading import split_revision
        from memtax.membership.attacks import choose
        from memtax.membership.evidence import AttackFilter
        from memtax.membership.late import StrongSettings
        from memtax.membership.measure import (
            default_reference,
            infer_membership,
            possible_attacks,
            unsuited,
            without_unavailable,
        )
        from memtax.report import verb_pages
        from memtax.results import read_table

        self._check()
        given = {"columns": self.columns, "references": self.references}
        tables: dict[str, Any] = {name: read_table(path) for name, path in given.items() if path is not None}
        model, revision = split_revision(self.model)
        parameters: dict[str, Any] = {
            "reference_model": default_reference(self.model, self.reference_model, self.attack),
            "neighbour_model": self.neighbour_model,
            "frequencies": self.frequencies,
            "given_neighbours": self.neighbour_texts is not None,
        }
        # Attack names are checked before the texts are read.
        given_attacks, left_out = without_unavailable(self.attack, model)
        early = tuple(each.name for each in choose(given_attacks) if not each.late and "prefixed" not in each.needs)
        scorer = self.build(AttackFilter, model=model, revision=revision, attacks=early, **parameters)
        texts, bos = self._read(model, revision)
        scorer = replace(scorer, bos=bos)
        attacks = given_attacks
        if not attacks:
            possible = possible_attacks(parameters, tables, texts, chunks=self.chunk_words is not None)
            attacks, left_out = without_unavailable(possible, model)
            left_out |= unsuited(texts)
        found = infer_membership(
            texts,
            scorer,
            work.stage,
            attacks=attacks,
            shots=self.shots,
            resamples=self.resamples,
            strong=StrongSettings(self.lira_variances, self.rmia_a),
            **tables,
        )
        return Result(
            title="Membership inference",
            tables=[
                Rows("scores", "One row per text: its score under each attack; larger: more likely a member.", found.table),
                Rows("metrics", "One row per domain, attack and metric, with its interval.", found.metrics()),
            ]
            if work.world.is_main
            else [],
            figures={**found.figures, "answers": SCORED in texts.column_names, **({"left_out": left_out} if left_out else {})},
            lines=[*found.lines(), *(f"left out: {name}: {reason}" for name, reason in left_out.items())],
            page=verb_pages.mia,
        )

    def _check(self) -> None:
        if self.neighbour_texts is not None and self.neighbour_model:
            raise MemtaxError(
                "neighbours come from a model or from texts: give --neighbour-model or --neighbour-texts, not both"
            )

    def _read(self, model: str, revision: str | None) -> tuple[Any, Any]:
        """The texts, and the BOS put before them: for messages, `auto` follows the chat template."""
        from memtax.corpus.conversations import template_opening
        from memtax.corpus.membership_texts import is_templated, load_membership, load_neighbours
        from memtax.lm.loading import load_tokenizer

        sources = {"members": self.members, "nonmembers": self.nonmembers}
        reader = partial(load_tokenizer, self.tokenizer or model, None if self.tokenizer else revision)
        texts = load_membership(self.data, **sources, column=self.column, chunk_words=self.chunk_words, tokenizer=reader)
        bos = template_opening(reader()) if self.bos == "auto" and is_templated(texts) else self.bos
        if self.neighbour_texts is not None:
            texts = load_neighbours(self.neighbour_texts, texts, column=self.column)
        return texts, bos
