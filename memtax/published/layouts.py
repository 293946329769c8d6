"""The published datasets as data: Hub names, splits, columns, and how their values differ from memtax's.

Sources: Biderman et al. 2023 (what Pythia memorized), Prashanth et al. 2024 (factors and code). Only `reading` and `writing`
convert values.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from memtax import schema
from memtax.errors import MemtaxError

TOKENS, PROMPT = 64, 32
"""Token length of the published sequences and of their prompts."""
HALVES = {"prompt_perplexity": (TOKENS - 1) / (PROMPT - 1), "continuation_perplexity": (TOKENS - 1) / (TOKENS - PROMPT)}
"""Exponents: published half-sequence perplexities divide by all 63 scored tokens, and their own token count is needed."""
SCHEMES = ("duped", "deduped", "standard")
"""Names of the Pile's versions in the published splits."""
SIZE = re.compile(r"\d+(\.\d+)?[MB]", re.IGNORECASE)
"""Columns in the random samples: the score of the model with that size."""


@dataclass(frozen=True)
class Layout:
    """Layout of a published dataset.

    Attributes:
        names: pattern for its names on the Hub.
        splits: names of its splits, for messages.
        columns: its columns, in order, to memtax's columns.
        required: columns that are required for reading.
        row: description of a row.
        notes: notes for the reader.
        dropped: columns that are neither read nor written.
        one_split_kind: split suffix to the columns of those splits, if splits differ.
    """

    names: str
    splits: str
    columns: Mapping[str, str]
    required: tuple[str, ...] = ()
    row: str = ""
    notes: str = ""
    dropped: tuple[str, ...] = ()
    one_split_kind: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def _published(*ours: str) -> dict[str, str]:
    """Published column names, from the schema, to memtax's."""
    return {schema.COLUMNS[name].published[-1] if schema.COLUMNS[name].published else name: name for name in ours}


def _matches(kind: str) -> dict[str, str]:
    return {"index": "sequence_id", **{f"0.{level}_frequencies": f"{kind}_matches_0_{level}" for level in (8, 9)}}


MEMORIZED = Layout(
    r"EleutherAI/pythia-memorized-evals",
    "{duped,deduped}.{70m..12b}, such as deduped.1.4b",
    {"index": "sequence_id", "tokens": "tokens"},
    ("index", "tokens"),
    "One row per memorized sequence.",
)
RANDOM = Layout(
    r"EleutherAI/pile-(duped|deduped)-pythia-random-sampled",
    "train",
    {"Index": "sequence_id", "Tokens": "tokens"},
    ("Index", "Tokens"),
    "One row per sequence, with the share of tokens that each model generates.",
)
TEST = Layout(
    r"usvsnsp/pile-test-sampled",
    "train",
    {"sequence_id": "sequence_id", "tokens": "tokens"},
    ("sequence_id", "tokens"),
    "One row per sequence.",
)
DUPLICATES = Layout(
    r"usvsnsp/(generation|duped|deduped)-num-duplicates",
    "duped, deduped",
    {"sequence_id": "sequence_id", "counts": "sequence_duplicates"},
    ("sequence_id", "counts"),
    "One row per sequence: how often its continuation occurs in the corpus.",
    "In the layout of `usvsnsp/generation-num-duplicates`: one split per version of the corpus. Counts are exact, over the "
    "whole corpus, at any offset inside a sequence; a continuation that does not occur has the count 0.\n",
)
FREQUENCIES = Layout(
    r"usvsnsp/(duped|deduped)-num-frequencies",
    "memorized, non_memorized",
    {"TokenID": "token_id", "Frequency": "token_frequency"},
    ("TokenID", "Frequency"),
    "One row per token of the vocabulary.",
    "In the layout of `usvsnsp/deduped-num-frequencies`: the frequency in the corpus is the sum of both splits.\n",
)
CODE_SCORES = Layout(
    r"usvsnsp/pile-pythia-code-vs-nl-scores",
    "standard, deduped",
    {"sequence_id": "sequence_id", "nl_scores": "nl_score"},
    ("sequence_id", "nl_scores"),
    "One row per sequence: the probability that it is natural language.",
    "In the layout of `usvsnsp/pile-pythia-code-vs-nl-scores`: one split per version of the corpus.\n",
)
MATCHES = Layout(
    r"usvsnsp/semantic-duplicates",
    "{scheme}_snowclones, {scheme}_templates, {scheme}_{model}_...",
    _matches("semantic"),
    tuple(_matches("semantic")),
    "One row per sequence: how many sequences of the sample are similar.",
    """\
In the layout of `usvsnsp/semantic-duplicates`: the splits `_snowclones` contain semantic matches, and those of a whole corpus
(`deduped_snowclones`) count the sequence itself. The splits `_templates` contain textual matches: semantic matches whose
prompts are at a Levenshtein distance between 0 and 20 characters.
""",
    one_split_kind={"snowclones": _matches("semantic"), "templates": _matches("textual")},
)
FILTERS = Layout(
    r"usvsnsp/semantic-filters",
    "{pile,memories}_{duped,deduped}_{model}",
    {
        "sequence_id": "sequence_id",
        "tokens": "tokens",
        "text": "text",
        "sequence_duplicates": "sequence_duplicates",
        **{name: name for name in (f"{kind}_frequency" for kind in ("max", "avg", "min", "median", "p25", "p75"))},
        "is_incrementing": "is_incrementing",
        "is_repeating": "is_repeating",
        **_published("shannon_coding_length", "semantic_matches_0_8", "semantic_matches_0_9"),
        **_published("textual_matches_0_8", "textual_matches_0_9", "nl_score"),
        **_published("prompt_perplexity", "continuation_perplexity", "sequence_perplexity", "memorization_score"),
    },
    ("sequence_id", "tokens", "text"),
    "One row per sequence: its tokens, text, factors and scores.",
    """\
In the layout of `usvsnsp/semantic-filters`: prompt and generation perplexities divide by the scored tokens of the whole
sequence, `huffman_coding_length` is the mean length of a Shannon code, and the snowclones of `pile_` splits count the sequence
itself. Failures are null, not -1; percentiles are interpolated. `memtax.schema.PUBLISHED` has the names.
""",
    dropped=("frequencies",),
)
LAYOUTS: Mapping[str, Layout] = {
    "memorized": MEMORIZED,
    "random": RANDOM,
    "test": TEST,
    "duplicates": DUPLICATES,
    "frequencies": FREQUENCIES,
    "code_scores": CODE_SCORES,
    "matches": MATCHES,
    "filters": FILTERS,
}
"""Kind to layout."""


def check_name(name: str, example: str) -> None:
    """Reject a name that cannot be (part of) a split name.

    Raises:
        MemtaxError: it contains characters other than letters, digits, points and underscores.
    """
    if not name.replace("_", "").replace(".", "").isalnum():
        raise MemtaxError(f"the published splits are named like {example}, not {name!r}")


def counts_itself(split: str) -> bool:
    """Whether semantic matches in a split count the sequence itself: samples or corpora compared with themselves."""
    scheme, _, kind = split.partition("_")
    return scheme == "pile" or (scheme in SCHEMES and kind == "snowclones")
