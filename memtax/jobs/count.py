"""`memtax count`: exact counts of every token and every requested window in a corpus, in one pass."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from memtax.errors import MemtaxError
from memtax.extras import require
from memtax.jobs.base import Job, Result, Rows, Work
from memtax.settings import argument, option


@dataclass(frozen=True, kw_only=True)
class Count(Job):
    """Count every token and every requested window of a corpus, exactly, in one pass.

    Writes the tables `num_duplicates` and `token_frequencies`, and `places` with `--places`.
    Run the same command again to resume an interrupted one.

    Example: `memtax count runs/demo/dataset:features --window 32:64 --output counts`
    """

    corpus: tuple[str, ...] = argument(
        "Corpus: .bin, .npy, Parquet, Arrow, JSONL, folders, globs, Hub names; infini-gram:INDEX, infini-gram-mini:INDEX; with "
        "Spark, s3a:// too."
    )
    sequences: tuple[str, ...] = option("Source of the windows; default: the corpus itself.", (), source=True)
    window: tuple[str, ...] = option("Tokens START:STOP of each sequence.", ("32:64",))
    no_windows: bool = option("Count tokens only.", False)
    column: str | None = option("Column of tokens or text; default: found by its type.", None)
    tokenizer: str | None = option("Folder or Hub name of the tokenizer, for text.", None, source=True)
    vocabulary_size: int | None = option("Ids at or above it are rejected.", None, least=1)
    sequence_length: int | None = option("Tokens per sequence in files without a header (Pythia: 2049).", None, least=1)
    token_dtype: Literal["uint16", "uint32", "int32"] = option("Integer type in files without a header.", "uint16")
    document_separator: int | None = option("Token that ends documents; windows must not contain it.", None)
    substitutions: int | None = option("Also count positions with up to this many tokens replaced.", None)
    places: int = option("Locate up to this many occurrences of each window: source, sequence, offset, document.", 0, least=0)
    memorized: str | None = option("Dataset of memorized ids; splits the token frequencies.", None, source=True)
    streaming: bool = option("Read datasets on the fly, without a copy on disk.", False)
    threads: int | None = option("Counting threads; default: all cores.", None, least=1)
    shard_tokens: int = option("Tokens per shard, the unit of work and of resuming.", 2**23, least=1)
    engine: Literal["local", "spark"] = option("Where the corpus is counted.", "local")
    master: str | None = option("Spark master, such as spark://host:7077 or local[4].", None)

    def make(self, work: Work) -> Result:
        """See `memtax.counting.count_job`."""
        from memtax.corpus.opening import Reading
        from memtax.counting.count_job import CountJob, describe
        from memtax.counting.count_tables import is_index
        from memtax.counting.spans import Span
        from memtax.lm.loading import load_tokenizer

        if self.engine == "spark":
            require("--engine spark", "spark")
        tokenizer = load_tokenizer(self.tokenizer, None) if self.tokenizer else None
        if any(map(is_index, self.corpus)):
            return self._ask_index(tokenizer)
        job = CountJob(
            corpus=self.corpus,
            sequences=() if self.no_windows else self.sequences or None,
            spans=tuple(Span.parse(each) for each in self.window),
            reading=Reading(
                self.column, self.streaming, self.sequence_length, self.token_dtype, tokenizer, self.vocabulary_size
            ),
            separator=self.document_separator,
            substitutions=self.substitutions,
            memorized=self.memorized,
            threads=self.threads,
            shard_tokens=self.shard_tokens,
            engine=self.engine,
            master=self.master,
            places=self.places,
        )
        folder = work.output / "parts"
        totals = job.run(folder)
        files = sorted(folder.glob("*.parquet"), key=lambda path: path.name != "num_duplicates.parquet")
        return Result(
            title="Counts",
            tables=[Rows(path.stem, _row(path), [path]) for path in files],
            figures=totals,
            lines=[describe(totals, job.spans)],
        )

    def _ask_index(self, tokenizer: Any) -> Result:
        """See `memtax.counting.infini_gram`."""
        import pyarrow as pa

        from memtax.corpus.opening import Reading, open_sources
        from memtax.counting.infini_gram import count_windows
        from memtax.counting.spans import Span, cut_windows

        if self.places:
            raise MemtaxError("an index gives counts only; leave out --places, or count the corpus itself")
        if len(self.corpus) > 1 or len(self.window) > 1 or not self.sequences or tokenizer is None:
            raise MemtaxError("an index is counted alone: give --sequences, --tokenizer and at most one --window")
        name, span = self.corpus[0], Span.parse(self.window[0])
        reading = Reading(self.column, self.streaming, self.sequence_length, self.token_dtype, tokenizer, self.vocabulary_size)
        (cut,) = cut_windows(open_sources(self.sequences, reading), [span], ", ".join(self.sequences), reading.vocabulary_size)
        found = count_windows(name, cut.windows, tokenizer)
        figures = {"windows": len(cut.ids), "sequences_too_short": cut.skipped, **found.figures(name)}
        table = pa.table({"sequence_id": cut.ids, "sequence_duplicates": pa.array(found.counts, pa.int64())})
        row = f"One row per sequence: how often its window occurs in {name}, asked by {found.asked_by}."
        line = f"{len(cut.ids):,} windows {span.start}:{span.stop}, asked by {found.asked_by}"
        line += f"; {found.not_counted:,} not counted (AND, OR or half a character in the text)" if found.not_counted else ""
        return Result(title="Counts", tables=[Rows("num_duplicates", row, table)], figures=figures, lines=[line])


def _row(path: Path) -> str:
    if path.stem.startswith("num_duplicates"):
        return "One row per sequence: how often its window occurs in the corpus."
    if path.stem.startswith("places"):
        return "One row per sequence and one of the first places in the corpus where its window occurs."
    return "One row per token of the vocabulary: how often it occurs in the corpus."
