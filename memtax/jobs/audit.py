"""`memtax audit`: what can be extracted from a fine-tuned model about its training set, how severe that is, and what to do."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from memtax import outputs
from memtax.errors import MemtaxError
from memtax.jobs.base import Job, Result, Rows, Work, write_result
from memtax.jobs.options import BatchOption, ColumnOption, ModelOptions, PlacementOptions, QuoteOption
from memtax.settings import option

ATTACKS = ("loss", "zlib", "min_k", "min_k_plus_plus")
PAIRED = ("reference", "ez", "wbc")
"""Attacks that compare the model with its base."""
CARD = "card_section.md"
PARTS = (CARD, "run", "membership", "near_verbatim", "unlearning")


@dataclass(frozen=True, kw_only=True)
class Audit(ModelOptions, PlacementOptions, BatchOption, ColumnOption, QuoteOption, Job):
    """Audit a fine-tuned model: what can be extracted, which part of it is worrying, membership risk, and what to do.

    Example: `memtax audit --model runs/demo/models/small-gpt-neox --train train.jsonl --held-out unseen.jsonl --output audit`
    """

    needs: ClassVar[tuple[str, ...]] = ("lm", "report", "stats")

    train: str | None = option("Training data of the model: path[:config[:split]].", None, source=True)
    forget: str | None = option("Instead of --train: data that the model should have forgotten.", None, source=True)
    retain: str | None = option("With --forget: data that it should have kept.", None, source=True)
    relearn_steps: int = option("With --forget: training steps on one half of it, to see if the other comes back.", 20, least=0)
    relearn_rate: float = option("Learning rate of these steps.", 1e-5, least=0)
    adapter: str | None = option("LoRA adapter on the model, to be audited instead.", None, source=True)
    base: str | None = option(
        "The model before fine-tuning, if all weights were trained; an adapter has --model.", None, source=True
    )
    held_out: str | None = option("Texts of the same kind that were not used for training.", None, source=True)
    prompt: int = option("Prompt tokens.", 32, least=1)
    continuation: int = option("Continuation tokens.", 32, least=1)
    region: str = option("Country of telephone numbers without a country code.", "US")
    resamples: int = option("Bootstrap resamples of membership inference.", 1000, least=1)
    generate: int = option("Continuations generated for near-verbatim figures: at most so many of each set.", 500, least=0)
    beam: int = option("Prefixes kept to bound the probability of drawing nearly these continuations; 0: none.", 0, least=0)
    clean: Path | None = option("Also write the training set without worrying rows and with copies thinned.", None)
    canaries: Path | None = option("Record of planted canaries; default: the model's own.", None, source=True)

    def make(self, work: Work) -> Result:
        """Run all stages over the training set, infer membership, and draw conclusions; see `memtax.pipeline.audit_figures`."""
        from memtax.files import make_private, write_text
        from memtax.membership.canaries import conclusion
        from memtax.pipeline import audit_figures as audit
        from memtax.pipeline import audit_page, audit_record
        from memtax.pipeline.audit_verdicts import verdicts
        from memtax.pipeline.calibrated import calibrated
        from memtax.pipeline.near_verbatim import near_verbatim

        self._check(work)
        make_private(work.output)
        config = self._run(work.output / "run")
        metrics = config.run().figures
        near = near_verbatim(config, work.output / "near_verbatim", self.generate, self.beam)
        membership = self._membership(work.output / "membership")
        if not work.world.is_main:
            return Result("", [], {})
        about = {name: getattr(self, name) for name in ("model", "adapter", "base", "train", "forget", "retain", "held_out")}
        about["personal_data_shown"] = self.show_personal_data
        planted = audit.planted_canaries(self.canaries, self.adapter or self.model)
        figures = audit.audit_figures(config, metrics, planted, membership, about)
        compared, figures["calibrated"] = calibrated(config.output)
        figures["near_verbatim"] = near
        figures = {**about, "verdicts": verdicts(figures), **figures}
        unlearned = self._unlearning(config, work.output / "unlearning", figures)
        if self.clean is not None:
            figures["clean"] = self._write_clean(config, figures["advice"]["drop"]["sequence_ids"])
        write_text(work.output / CARD, audit_page.card_section(figures))
        row = "One row per distinct text that can be extracted and is worrying."
        told = [conclusion(figures["canaries"])] if figures["canaries"]["measurable"] else []
        likely = "One row per training sequence: whether its continuation is more probable than those of held-out texts."
        return Result(
            title="Audit of a fine-tuned model",
            tables=[
                Rows("kinds", "One row per kind of sequence that can be extracted.", audit.kinds_table(figures["kinds"])),
                Rows("worrying", row, audit.worrying_table(figures["worrying_sequences"])),
                *([] if compared is None else [Rows("calibrated", likely, compared)]),
                *unlearned,
            ],
            figures=figures,
            lines=[audit_page.headline(figures), *told, f"card     {work.output / CARD}"],
            page=lambda folder: self._finish(folder, figures),
            files=[*PARTS, audit_record.NAME, audit_record.SIDECAR],
            is_private=True,
        )

    def _unlearning(self, config: Any, folder: Path, figures: dict[str, Any]) -> list[Rows]:
        """With --forget, measure whether it comes back, and add the figures and their verdict."""
        if self.forget is None:
            return []
        from memtax.pipeline import audit_unlearning
        from memtax.pipeline.audit_texts import listed, read_rows
        from memtax.pipeline.personal import personal_data
        from memtax.pipeline.unlearning import Unlearning, unlearning

        asked = Unlearning(self.retain, self.relearn_steps, self.relearn_rate)
        table, found = unlearning(config, asked, folder)
        back = set(found["sequence_ids"])
        rows = [row for row in read_rows(config.output, personal_data(config)) if row["sequence_id"] in back]
        figures["unlearning"] = {**found, "sequences": listed(rows)}
        figures["verdicts"].append(audit_unlearning.verdict(found))
        return [Rows("unlearning", "One row per state of the model and set of sequences: what is extracted from it.", table)]

    def _finish(self, folder: Path, figures: Any) -> Path:
        """Write the page and then, last of all files, the record of their digests."""
        from memtax.membership.canaries import find_record
        from memtax.pipeline import audit_page, audit_record
        from memtax.results import SUMMARY, read_summary

        page = audit_page.write(folder / "index.html", read_summary(folder, self.verb))
        audited = self.adapter or self.model
        models = {"model": audited, "base": self._untuned}
        data = {name: getattr(self, name) for name in ("train", "forget", "retain", "held_out")}
        data |= {"canaries": self.canaries or find_record(audited)}
        given, sources = ({name: str(each) for name, each in one.items() if each is not None} for one in (models, data))
        audit_record.write(folder, given, sources, ["dataset", SUMMARY, "run.yaml", page.name, *PARTS], figures)
        return page

    def _check(self, work: Work) -> None:
        """Refuse what cannot be done, and a folder for the cleaned training set, before hours of work rather than after."""
        from memtax.lm.served_names import is_served
        from memtax.pipeline.audit_figures import check_adapter

        if (self.train is None) == (self.forget is None) or (self.retain is not None and self.forget is None):
            raise MemtaxError("give the training data by --train, or what it should have forgotten by --forget, with --retain")
        if self.forget is not None and is_served(self.model):
            raise MemtaxError("--forget trains the model for a second look, which a served model does not allow; give weights")
        if self.adapter is not None:
            if self.base is not None:
                raise MemtaxError("give --base for a whole model or --adapter, not both: the base of an adapter is --model")
            check_adapter(self.adapter, self.model)
        if self.clean is None or not work.world.is_main:
            return
        if self.clean.resolve().is_relative_to(work.output.resolve()):
            raise MemtaxError(f"--clean {self.clean} is in the output of the audit, which quotes what it removes; give another")
        with outputs.hold_job(self.clean, "memtax audit --clean"):
            pass

    def _write_clean(self, config: Any, worrying: Sequence[int]) -> dict[str, Any]:
        """Write the cleaned training set as a dataset of its own, and count what went."""
        from memtax.hub.screening import public_name
        from memtax.pipeline.audit_clean import ROW, clean, facts
        from memtax.provenance import fingerprint_table

        started = time.time()
        table, counts = clean(config, worrying)
        shown = {"training set": public_name(self._data), "audit of": public_name(self.adapter or self.model), **facts(counts)}
        result = Result("Cleaned training set", [Rows("train", ROW, table)], counts, facts=shown, is_private=True)
        settings = {"name": "train", "title": result.title}
        assert self.clean is not None
        with outputs.hold_job(self.clean, "memtax audit --clean"):
            write_result(self.clean, "write", result, settings, {"train": fingerprint_table(table)}, time.time() - started)
        return {"output": str(self.clean), **counts}

    @property
    def _data(self) -> str:
        """What is looked for in the model."""
        found = self.forget if self.train is None else self.train
        assert found is not None
        return found

    @property
    def _untuned(self) -> str | None:
        """The model before fine-tuning, if it is known."""
        return self.model if self.adapter else self.base

    def _run(self, output: Path) -> Any:
        """The run over the training set; text that the base model completes as well counts as predictable."""
        from memtax.jobs.run import Run
        from memtax.lm.loading import split_revision

        name, revision = split_revision(self.adapter or self.model)
        return Run(
            model=name,
            revision=revision,
            corpus=self._data,
            output=output,
            held_out=self.held_out,
            column=self.column,
            tokenizer=self.tokenizer or (split_revision(self.model)[0] if self.adapter else None),
            reference_model=self._untuned,
            prompt=self.prompt,
            continuation=self.continuation,
            dtype=self.dtype,
            device_map=self.device_map,
            quantization=self.quantization,
            batch_size=self.batch_size,
            bos=self.bos,
            mask_personal_data=not self.show_personal_data,
            region=self.region,
        )

    def _membership(self, output: Path) -> dict[str, Any]:
        """AUROC of every attack and of the blind baseline, or the reason why there is none."""
        from memtax.jobs.mia import Mia
        from memtax.lm.loading import split_revision

        if self.held_out is None:
            return {"measurable": False, "reason": "no held-out texts were given to compare members with"}
        job = Mia(
            model=self.adapter or self.model,
            members=self._data,
            nonmembers=self.held_out,
            attack=(*ATTACKS, *(PAIRED if self._untuned else ())),
            reference_model=self._untuned,
            column=self.column,
            resamples=self.resamples,
            tokenizer=self.tokenizer or (split_revision(self.model)[0] if self.adapter else None),
            dtype=self.dtype,
            device_map=self.device_map,
            quantization=self.quantization,
            batch_size=self.batch_size,
            bos=self.bos,
            output=output,
        )
        figures = job.run().figures
        told = {"forced": figures.get("forced", {}), "answers": figures.get("answers", False)}
        return {"measurable": True, "domains": figures.get("domains"), **told}
