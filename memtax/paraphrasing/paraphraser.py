"""`memtax paraphrase`: validated paraphrases of texts by a language model; an invalid one is null, with the reason."""

import functools
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from memtax.errors import MemtaxError, RowError
from memtax.filters.base import Batch, Filter
from memtax.lm.loading import model_files
from memtax.lm.placement import settled_dtype
from memtax.paraphrasing.validation import REASONS, Validation, edits

if TYPE_CHECKING:
    from memtax.paraphrasing.answers import Answer, Generator, Job

MODES = ("greedy_Nprompts", "beam_single_prompt", "beam_Nprompts", "nucleus_Nprompts")
BATCH_SIZE = 16
"""Default number of prompts per batch."""
PROMPTS = Path(__file__).parent / "prompts"
FAMILIES = ("near_duplicate", "syntactic_rewrite", "bare")
"""Template files included in memtax; any other file of templates, separated by lines of `---`, works too."""

ROWS_PER_BATCH = 32


@dataclass(frozen=True)
class Paraphraser(Filter):
    """Paraphrases of each text: `count` entries, each a valid paraphrase or null with the reason.

    Args:
        model: folder or Hub name of a causal language model or an encoder-decoder.
        revision: branch, tag or commit on the Hub.
        mode: one of `MODES`. With `Nprompts` each paraphrase has its own prompt; `beam_single_prompt` uses the best
            beams of one prompt.
        prompts: one of `FAMILIES`, or a file of templates with `{text}` as the placeholder for the text.
        count: paraphrases per text.
        beams: width of the beam search.
        top_p: top-p of nucleus sampling.
        temperature: temperature of nucleus sampling; the reference uses .2 to .7.
        repetition_penalty: values above 1 discourage tokens that already occur.
        min_ratio: minimum ratio of new tokens to tokens of the text.
        max_ratio: maximum ratio of new tokens to tokens of the text.
        min_words: minimum number of words.
        max_edits: maximum share of edited characters and words.
        min_similarity: minimum cosine between the embeddings of text and paraphrase; None disables the check.
        similarity_model: sentence-transformers model for `min_similarity`; None uses MiniLM.
        dtype: dtype of the weights.
        batch_size: rows (prompts) per forward pass; None starts with 16. It is halved whenever memory runs out.
        device_map: `auto` spreads a model over several devices; None uses one device.
        quantization: one of `memtax.lm.placement.QUANTIZATIONS`; needs bitsandbytes.
    """

    model: str
    revision: str | None = None
    mode: str = "greedy_Nprompts"
    prompts: str = "near_duplicate"
    count: int = 3
    beams: int = 5
    top_p: float = 0.9
    temperature: float = 0.5
    repetition_penalty: float = 1.05
    min_ratio: float = 0.9
    max_ratio: float = 1.1
    min_words: int = 3
    max_edits: float = 0.9
    min_similarity: float | None = None
    similarity_model: str | None = None
    dtype: str = "float32"
    batch_size: int | None = None
    device_map: str | None = None
    quantization: str | None = None

    name: ClassVar[str] = "paraphrases"
    requires: ClassVar[tuple[str, ...]] = ("text",)
    columns: ClassVar[tuple[str, ...]] = ("paraphrases", "paraphrase_reasons", "paraphrase_edits")

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise MemtaxError(f"unknown mode {self.mode!r}; choose one of {', '.join(MODES)}")
        object.__setattr__(self, "dtype", settled_dtype(self.dtype))
        if self.count < 1 or self.beams < 1 or (self.batch_size is not None and self.batch_size < 1):
            raise MemtaxError("count, beams and batch_size must be at least 1")
        if not 0 < self.top_p <= 1 or self.temperature <= 0 or self.repetition_penalty <= 0:
            raise MemtaxError("top_p must be in (0, 1], temperature and repetition_penalty above 0")
        if self.mode.endswith("_Nprompts") and self.mode != "nucleus_Nprompts" and self.count > len(self.templates):
            raise MemtaxError(f"{self.count} paraphrases need as many prompts; {self.prompts} has {len(self.templates)}")
        _ = self.validation

    @property
    def validation(self) -> Validation:
        """The bounds."""
        return Validation(self.min_ratio, self.max_ratio, self.min_words, self.max_edits, self.min_similarity)

    @property
    def file(self) -> Path:
        """The file of templates."""
        return PROMPTS / f"{self.prompts}.txt" if self.prompts in FAMILIES else Path(self.prompts).expanduser()

    @functools.cached_property
    def templates(self) -> tuple[str, ...]:
        """The prompts, with `{text}` in each.

        Raises:
            MemtaxError: the file cannot be read, or a template lacks the placeholder.
        """
        try:
            parts = self.file.read_text(encoding="utf-8").split("\n---\n")
        except (OSError, UnicodeDecodeError) as error:
            raise MemtaxError(f"the templates {self.prompts} cannot be read; choose {', '.join(FAMILIES)} or a file") from error
        found = tuple(part.strip("\n") for part in parts if part.strip())
        if not found or any("{text}" not in part for part in found):
            raise MemtaxError(f"every template in {self.prompts} must contain {{text}}, the placeholder for the text")
        return found

    def inputs(self) -> Iterable[str]:
        """The model's weights and the templates."""
        return [*model_files(self.model), str(self.file)]

    @functools.cached_property
    def fingerprint(self) -> str:
        """Same as for every filter, but cached, because the weights may be many gigabytes."""
        return super().fingerprint

    def compute(self, batch: Batch) -> Batch:
        """Paraphrases of a batch of texts."""
        from memtax.lm.resident import Placement
        from memtax.paraphrasing.answers import Generator

        generator = Generator(self.model, self.revision, Placement(self.dtype, self.device_map, self.quantization))
        texts: list[str | None] = batch["text"]
        lengths = [generator.length(text) if text else 0 for text in texts]
        places, jobs = [], []
        for row, text in enumerate(texts):
            if not text or not text.strip():
                continue
            for number in range(1 if self.mode == "beam_single_prompt" else self.count):
                places.append(row)
                jobs.append(self._job(generator, number, text, lengths[row]))
        fitting = [number for number, job in enumerate(jobs) if generator.fits(job)]
        try:
            answers = generator.answers([jobs[number] for number in fitting], self.batch_size or BATCH_SIZE, **self._settings)
        except RowError as error:
            raise error.at(places[fitting[error.row]]) from error
        outputs: list[list[Answer]] = [[] for _ in texts]
        for number, found in zip(fitting, answers, strict=True):
            outputs[places[number]] += found
        rows = [self._row(*row) for row in zip(texts, outputs, lengths, strict=True)]
        if self.min_similarity is not None:
            self._check_meaning(texts, rows)
        return {
            "paraphrases": [[text for text, _, _ in row] for row in rows],
            "paraphrase_reasons": [[reason for _, reason, _ in row] for row in rows],
            "paraphrase_edits": [[edited for _, _, edited in row] for row in rows],
        }

    def _job(self, generator: "Generator", number: int, text: str, length: int) -> "Job":
        from memtax.paraphrasing.answers import Job

        template = self.templates[number % len(self.templates)]
        return Job(generator.prompt(template, text), *self.validation.tokens(length))

    @property
    def _settings(self) -> dict[str, Any]:
        """Arguments for the generation."""
        common = {"repetition_penalty": self.repetition_penalty}
        if self.mode == "nucleus_Nprompts":
            return {**common, "do_sample": True, "top_p": self.top_p, "top_k": 0, "temperature": self.temperature}
        if self.mode == "beam_single_prompt":
            return {**common, "do_sample": False, "num_beams": max(self.beams, self.count), "returned": self.count}
        return {**common, "do_sample": False, "num_beams": self.beams if self.mode == "beam_Nprompts" else 1}

    def _row(self, text: str | None, outputs: list["Answer"], length: int) -> list["_Place"]:
        """Paraphrase, reason and share of edits for each entry."""
        if text is None or not text.strip():
            return [(None, "no text", None)] * self.count
        found: list[_Place] = []
        for answer in outputs:
            output = _unquoted(answer.text)
            earlier = [other for other, _, _ in found if other is not None]
            reason = self.validation.reason(text, output, (length, answer.tokens), earlier)
            found.append((None if reason else output, reason, edits(text, output) if output else None))
        return found + [(None, "text too long", None)] * (self.count - len(found))

    def _check_meaning(self, texts: list[str | None], rows: list[list["_Place"]]) -> None:
        """Drop paraphrases whose embedding is too far from that of the text."""
        places = [
            (row, place) for row, found in enumerate(rows) for place, (text, _, _) in enumerate(found) if text is not None
        ]
        originals = [texts[row] or "" for row, _ in places]
        cosines = _similarities(self.similarity_model, originals, [rows[row][place][0] or "" for row, place in places])
        for (row, place), cosine in zip(places, cosines, strict=True):
            if cosine < (self.min_similarity or 0):
                rows[row] = [*rows[row][:place], (None, "other meaning", rows[row][place][2]), *rows[row][place + 1 :]]


_Place = tuple[str | None, str | None, float | None]


def _unquoted(output: str) -> str:
    """The answer without the quotes that some models put around it."""
    output = output.strip()
    for opening, closing in (('"', '"'), ("“", "”"), ("'", "'")):
        if len(output) > 1 and output.startswith(opening) and output.endswith(closing):
            return output[1:-1].strip()
    return output


def _similarities(model: str | None, first: list[str], second: list[str]) -> list[float]:
    """Cosine of the embeddings of each pair."""
    if not first:
        return []
    from memtax.lm import encoder, resident

    loaded = resident.encoder(encoder.resolve_model(model or encoder.DEFAULT_MODEL))
    left, right = (loaded.encode(texts, normalize_embeddings=True) for texts in (first, second))
    return [float(value) for value in (left * right).sum(axis=1)]


def summarize(table: pa.Table, paraphraser: Paraphraser) -> dict[str, Any]:
    """Number of valid paraphrases, and the reasons why the others failed.

    Args:
        table: the columns of the filter.
        paraphraser: the filter.
    """
    reasons = [reason for row in table.column("paraphrase_reasons").to_pylist() for reason in row]
    counts = Counter(reasons)
    return {
        "model": paraphraser.model,
        "mode": paraphraser.mode,
        "prompts": paraphraser.prompts,
        "texts": len(table),
        "asked": len(reasons),
        "valid": counts[None],
        "failed": {reason: counts[reason] for reason in REASONS if counts[reason]},
    }
