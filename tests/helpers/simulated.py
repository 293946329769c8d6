"""Tables whose labels are drawn from known models."""

import numpy as np
import pyarrow as pa

from memtax import schema


def declare(*names):
    """Declare columns of numbers that memtax does not know, so that they can be factors."""
    for name in names:
        schema.declare(schema.Column(name, "float64", "-", "drawn by a test", "made null", role="variant"))


declare("a", "b")
FACTORS = ("a", "b", "sequence_duplicates", "is_templating")


def table(rows=4000, seed=0, beta=(1.0, -0.7, 0.0), intercept=-1.5, shares=(0.3, 0.3, 0.4), category_rates=(None, None, None)):
    """Rows with factors a, b ~ N(0, 1) and a count; log odds = intercept + beta . (a, b, log1p(count)).

    Args:
        category_rates: for each category the share of memorized rows, drawn without the factors; None: by the model.
    """
    rng = np.random.default_rng(seed)
    category = rng.choice(3, rows, p=shares)
    a, b = rng.normal(size=(2, rows))
    count = np.where(category == 0, 6 + rng.geometric(0.01, rows), rng.integers(0, 6, rows))
    incrementing = (category == 1) | ((category == 0) & (rng.random(rows) < 0.5))
    logit = intercept + beta[0] * a + beta[1] * b + beta[2] * np.log1p(count)
    probability = 1 / (1 + np.exp(-logit))
    for code, rate in enumerate(category_rates):
        if rate is not None:
            probability[category == code] = rate
    return pa.table(
        {
            "is_memorized": rng.random(rows) < probability,
            "taxonomy": pa.array(category, pa.int64()),
            "a": a,
            "b": b,
            "sequence_duplicates": pa.array(count, pa.int64()),
            "is_incrementing": incrementing,
            "is_repeating": np.zeros(rows, bool),
        }
    )


def with_column(data, name, values):
    """The table with one column replaced or added."""
    if name in data.column_names:
        return data.set_column(data.column_names.index(name), name, pa.array(values))
    return data.append_column(name, pa.array(values))


def with_null(data, name, rows):
    """The table with nulls in some rows of a column."""
    column = data.column(name)
    values = column.to_pylist()
    for row in rows:
        values[row] = None
    return data.set_column(data.column_names.index(name), name, pa.array(values, column.type))
