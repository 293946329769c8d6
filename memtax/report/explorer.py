"""Data of the explorer: rows of a run by category, factors and probability; a sequence's tokens; analysis of a new text."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from memtax import schema
from memtax.checksums import verify
from memtax.errors import MemtaxError
from memtax.records import read_run, whole_number
from memtax.report.data import run_folder

if TYPE_CHECKING:
    from memtax.lm.resident import Placement

SHOWN = ("sequence_id", "taxonomy", "is_memorized", "memorized_probability", "sequence_duplicates", "text")
"""Columns in the list of rows, if present."""
MOST_ROWS = 200
_OWN_CONTROLS = ("match_length", "memorized_probability")
"""Columns needed to filter by verdict and by bounds on the probability."""


@dataclass(frozen=True)
class Explorer:
    """A run's feature table, with everything needed to analyze a new text.

    Attributes:
        features: one row per sequence.
        predictor: folder or Hub name of the predictor, or None.
        model: folder or Hub name of a causal language model for pasted texts, or None.
        frequencies: folder, file or dataset with token frequencies, or None.
        neighbours: the run's table of neighbors, or None.
        prompt: tokens in the prompt.
        continuation: tokens in the continuation.
        title: heading of the page.
        bos: tokens put before a text, one of `memtax.lm.special_tokens.BOS`.
        placement: dtype and devices of the model.
    """

    features: pa.Table
    predictor: str | None = None
    model: str | None = None
    frequencies: str | None = None
    neighbours: pa.Table | None = None
    prompt: int = 32
    continuation: int = 32
    title: str = "memtax"
    bos: str = "auto"
    placement: "Placement | None" = None
    _cache: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def load(
        cls, run: Path | str, model: str | None = None, bos: str = "auto", placement: "Placement | None" = None
    ) -> "Explorer":
        """Load a run or audit directory, or a dataset published by `memtax push`, whose predictor is `NAME-predictor`.

        Raises:
            MemtaxError: it has no table of features, or `bos` is unknown.
        """
        from memtax.lm.special_tokens import check_bos

        check_bos(bos)
        folder = run_folder(run)
        if folder.is_dir():
            return dataclasses.replace(cls._of_run(folder, model, bos), placement=placement)
        from memtax.corpus.sources import Source, open_dataset

        table = open_dataset(Source(str(run), "features")).with_format("arrow")[:]
        return cls(
            table, f"{run}-predictor", model, f"{run}:token_frequencies:train", title=str(run), bos=bos, placement=placement
        )

    @classmethod
    def _of_run(cls, run: Path, model: str | None, bos: str) -> "Explorer":
        path = run / "dataset" / "features" / "train.parquet"
        if not path.is_file():
            raise MemtaxError(f"{run} holds no dataset/features; give the directory of a finished run")
        verify(run)
        record = run / "run.yaml"
        config: Mapping[str, Any] = read_run(record).get("config", {}) if record.is_file() else {}
        predictor, frequencies = run / "models" / "predictor", run / "dataset" / "token_frequencies" / "train.parquet"
        neighbours = run / "dataset" / "neighbours" / "train.parquet"
        return cls(
            pq.read_table(path),
            str(predictor) if predictor.is_dir() else None,
            model,
            str(frequencies) if frequencies.is_file() else None,
            pq.read_table(neighbours) if neighbours.is_file() else None,
            whole_number(config, "prompt", record, 32, 1, 2**31),
            whole_number(config, "continuation", record, 32, 1, 2**31),
            str(config.get("title") or run.name),
            # Use the same settings as for the run's own rows.
            str(config.get("bos", bos)) if bos == "auto" else bos,
        )

    @property
    def factors(self) -> list[str]:
        """Numeric columns available as filters."""
        numeric = (pa.types.is_integer, pa.types.is_floating)
        return [
            column.name
            for column in self.features.schema
            if schema.described(column).role not in ("key", "label")
            and column.name not in _OWN_CONTROLS
            and any(kind(column.type) for kind in numeric)
        ]

    def rows(
        self,
        categories: Sequence[str] = (),
        memorized: bool | None = None,
        factor: str | None = None,
        low: float | None = None,
        high: float | None = None,
        probability: tuple[float, float] = (0.0, 1.0),
        text: str = "",
    ) -> tuple[int, list[dict[str, Any]]]:
        """Number of matching rows, and the first of them.

        Args:
            categories: category names; if empty, all rows match, even without a category.
            memorized: verdict to match; None matches both.
            factor: a column of `factors`, to be filtered by `low` and `high`.
            low: minimum of the factor.
            high: maximum of the factor.
            probability: bounds of `memorized_probability`; rows without one match only if the bounds are 0 and 1.
            text: substring of the text, ignoring case.

        Raises:
            MemtaxError: the category or factor is unknown.
        """
        table = self.features
        if unknown := [name for name in categories if name not in schema.CATEGORIES]:
            raise MemtaxError(f"unknown category {unknown[0]!r}; choose among {', '.join(schema.CATEGORIES)}")
        if factor is not None:
            schema.require(self.factors, [factor], "the run")
        if categories:
            table = table.filter(pc.field("taxonomy").isin([schema.CATEGORIES.index(name) for name in categories]))
        if memorized is not None:
            table = table.filter(pc.field("is_memorized") == memorized)
        if factor is not None and low is not None:
            table = table.filter(pc.field(factor) >= low)
        if factor is not None and high is not None:
            table = table.filter(pc.field(factor) <= high)
        if tuple(probability) != (0.0, 1.0) and "memorized_probability" in table.column_names:
            chosen = (pc.field("memorized_probability") >= probability[0]) & (
                pc.field("memorized_probability") <= probability[1]
            )
            table = table.filter(chosen)
        if text and "text" in table.column_names:
            table = table.filter(pc.match_substring(table.column("text"), text, ignore_case=True))
        shown = table.select([name for name in SHOWN if name in table.column_names]).slice(0, MOST_ROWS).to_pylist()
        for row in shown:
            row["taxonomy"] = _category(row.get("taxonomy"))
        return table.num_rows, shown

    def details(self, sequence_id: int) -> dict[str, Any]:
        """All data of a row: its columns, `tokens_shown` (text and probability of each token), and `neighbours` with texts.

        Raises:
            MemtaxError: there is no such row.
        """
        found = self.features.filter(pc.field("sequence_id") == int(sequence_id)).to_pylist()
        if not found:
            raise MemtaxError(f"no sequence {sequence_id} in this run")
        row = found[0]
        pieces = row.pop("token_texts", None) or [str(token) for token in row.get("tokens") or () if token is not None]
        logprobs = row.pop("token_logprobs", None) or [None] * (len(pieces) - 1)
        row["tokens_shown"] = _shown(pieces, [None, *logprobs])
        row["taxonomy"] = _category(row.get("taxonomy"))
        row["neighbours"] = self._neighbours(int(sequence_id))
        return row

    def _neighbours(self, sequence_id: int) -> list[dict[str, Any]]:
        """Rank, id, cosine and text of a sequence's neighbors."""
        if self.neighbours is None:
            return []
        found = self.neighbours.filter(pc.field("sequence_id") == sequence_id).drop_columns(["sequence_id"]).to_pylist()
        ids = pa.array([row["neighbour_id"] for row in found], pa.int64())
        near = self.features.filter(pc.field("sequence_id").isin(ids))
        names = ["sequence_id", "text"] if "text" in near.column_names else ["sequence_id"]
        texts = {row["sequence_id"]: row.get("text") for row in near.select(names).to_pylist()}
        return [{**row, "text": texts.get(row["neighbour_id"])} for row in found]

    def analyse(self, text: str, duplicates: int | None = None) -> dict[str, Any]:
        """Analyze a new text: template, code length, extraction, and, as far as known, category and predicted risk.

        Args:
            text: the text; its first tokens are the prompt if a model is loaded.
            duplicates: number of times that its continuation occurs in the corpus, which the model cannot know; None: unknown,
                and so is what depends on it.

        Raises:
            MemtaxError: the text is empty.
        """
        from memtax.filters.compressibility import CompressibilityFilter
        from memtax.filters.taxonomy import taxonomy
        from memtax.filters.templates import TemplateFilter

        if not text.strip():
            raise MemtaxError("there is no text to analyze")
        row: dict[str, Any] = {"text": text, "sequence_duplicates": duplicates}
        for each in (TemplateFilter(), CompressibilityFilter()):
            row |= {name: values[0] for name, values in each({"text": [text]}).items() if name in each.columns}
        code = taxonomy([row["sequence_duplicates"]], [row["is_incrementing"]], [row["is_repeating"]])[0]
        row["taxonomy"] = code
        if self.model is not None:
            row |= self._scores(text)
        row["memorized_probability"], missing = self._risk(row)
        if missing:
            row["missing_factors"] = ", ".join(missing)
        return {**row, "taxonomy": _category(code)}

    def _scores(self, text: str) -> dict[str, Any]:
        """Scores of the text's first tokens under the model; None for columns that need a longer text."""
        from memtax.filters.token_frequencies import TokenFrequencyFilter
        from memtax.lm import extraction
        from memtax.lm.scores import score
        from memtax.lm.special_tokens import bos_of, text_ids, without_bos

        model, tokenizer = self._loaded
        tokens = without_bos(text_ids(tokenizer, [text])[0], bos_of(model))[: self.prompt + self.continuation]
        scores = score(model, [tokens])
        found = {name: values[0] for name, values in extraction.columns(scores, self.prompt, self.continuation).items()}
        pieces = [tokenizer.decode([token]) for token in tokens]
        found |= {"tokens": tokens, "tokens_shown": _shown(pieces, [None, *scores.row(0)[0].tolist()])}
        if self.frequencies is not None:
            counted = TokenFrequencyFilter(self.frequencies)
            found |= {name: values[0] for name, values in counted({"tokens": [tokens]}).items() if name in counted.columns}
        return found

    def _risk(self, row: Mapping[str, Any]) -> tuple[float | None, list[str]]:
        """The predictor's probability, None without a predictor; and the columns that it needs and the row lacks."""
        from memtax.predictor import factors
        from memtax.predictor.predictor import Predictor

        if self.predictor is None:
            return None, []
        names = [name for name in self.features.column_names if name in row and name != "tokens"]
        table = pa.table({name: pa.array([row[name]], self.features.schema.field(name).type) for name in names})
        try:
            if "predictor" not in self._cache:
                self._cache["predictor"] = Predictor.from_pretrained(self.predictor)
            predictor: Predictor = self._cache["predictor"]
            needed = [name for factor in factors.resolve(predictor.factors, predictor.target) for name in factor.sources]
            missing = [name for name in needed if row.get(name) is None]
            return (None if missing else predictor.predict(table).to_pylist()[0]), missing
        except MemtaxError:
            return None, []

    @property
    def _loaded(self) -> tuple[Any, Any]:
        from memtax.lm import resident
        from memtax.lm.loading import load_tokenizer, split_revision

        named = split_revision(str(self.model))
        return resident.get(*named, self.placement, self.bos), load_tokenizer(*named)


def _category(code: int | None) -> str:
    return "unknown" if code is None else schema.CATEGORIES[code]


def _shown(pieces: Sequence[str], logprobs: Sequence[float | None]) -> list[tuple[str, float | None]]:
    """Token texts with their probabilities; None where no probability was measured."""
    import math

    padded = [*logprobs, *[None] * len(pieces)]
    return [(piece, None if value is None else math.exp(value)) for piece, value in zip(pieces, padded, strict=False)]
