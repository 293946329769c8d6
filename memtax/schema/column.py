"""The declaration of a column."""

from dataclasses import dataclass
from typing import Literal

Role = Literal["key", "text", "factor", "variant", "score", "outcome", "label", "figure", "input"]
"""Role of a column in a model of memorization.

- `key` identifies a row; `text` holds tokens or texts;
- `factor` belongs to a list of factors; `variant` is a factor in no list, read when it is named;
- `score` is measured by a model on the tokens that are to be predicted, `outcome` says whether they were memorized: neither
  may be a factor;
- `label` is a category; `figure` is a number of another table; `input` is a column of the user's that nobody declared.
"""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: in our tables.
        dtype: Arrow type, `class` for the taxonomy.
        unit: of the values.
        meaning: in a few words.
        null: meaning of null; `never`: nulls are not allowed.
        role: see `Role`.
        scale: `log` for counts and perplexities, which have heavy tails: models read log(1 + x) of them.
        label: name for people, where it is not the name with spaces.
        before_training: whether it is known before any model exists.
        published_factor: place among the fourteen factors of the published predictor (Prashanth et al. 2024), from 1; 0: none.
        published: names in the published datasets. Some need a conversion too: see `memtax.published.layouts`.
        sources: columns that it is derived from, where it is not in the table itself.

    Example:
        >>> from memtax import schema
        >>> schema.column("nl_score").unit
        'probability'
    """

    name: str
    dtype: str
    unit: str
    meaning: str
    null: str = "never"
    role: Role = "figure"
    scale: Literal["linear", "log"] = "linear"
    label: str = ""
    before_training: bool = False
    published_factor: int = 0
    published: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
