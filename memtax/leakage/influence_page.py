"""The report of `memtax influence`: one HTML file with the most influential training examples of each test example."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

SHOWN = 200
"""Test examples on the page; the tables hold all."""

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069\ufeff]")
"""Controls that HTML forbids and marks that reorder the text around them."""

_TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<title>Influence</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1rem; }
th, td { text-align: left; vertical-align: top; padding: .2rem .6rem; border-bottom: 1px solid #ddd; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; font-size: 13px; }
section { border-top: 2px solid #888; margin-top: 1.5rem; }
</style>
</head>
<body>
<h1>Influence</h1>
<p>{{ summary.train }} training examples on {{ summary.test }} test examples; model {{ summary.model }}, parameters
{{ summary.parameters }}. An influence is negative where training on the example lowers the loss at the test example; RepSim
is a cosine.</p>
{% if figures %}
<table>
<tr><th>Method</th><th>Class of the most influential example is right</th><th>Share of the top k in the class</th></tr>
{% for row in figures %}
<tr><td>{{ row.method }}</td><td>{{ row.accuracy }}</td><td>{{ row.coverage }}</td></tr>
{% endfor %}
</table>
{% endif %}
{% for test in tests %}
<section>
<h2>Test example {{ test.id }}</h2>
{% if test.text %}<pre>{{ test.text }}</pre>{% endif %}
{% for method, rows in test.methods.items() %}
<h3>{{ method }}</h3>
<table>
<tr><th>Rank</th><th>Training example</th><th>Influence</th><th>Text</th></tr>
{% for row in rows %}
<tr><td class="number">{{ row.rank }}</td><td class="number">{{ row.train_id }}</td>
<td class="number">{{ "%.4g" | format(row.influence) }}</td><td><pre>{{ row.train_text or "" }}</pre></td></tr>
{% endfor %}
</table>
{% endfor %}
</section>
{% endfor %}
{% if left_out %}<p>{{ left_out }} more test examples are in top.parquet.</p>{% endif %}
</body>
</html>
"""


def render(rows: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> str:
    """The page.

    Args:
        rows: those of `top.parquet`. Their texts are anyone's: they are escaped.
        summary: what `summary.json` holds.
    """
    import jinja2

    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        finalize=lambda value: _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", value) if type(value) is str else value,
    )
    tests: dict[int, dict[str, Any]] = {}
    for row in rows:
        test = tests.setdefault(row["test_id"], {"id": row["test_id"], "text": row["test_text"], "methods": {}})
        test["methods"].setdefault(row["method"], []).append(row)
    figures = [
        {"method": method, "accuracy": _interval(found["accuracy"]), "coverage": _interval(found["coverage"])}
        for method, found in summary["methods"].items()
        if found
    ]
    shown = list(tests.values())[:SHOWN]
    return environment.from_string(_TEMPLATE).render(
        summary=summary, figures=figures, tests=shown, left_out=len(tests) - len(shown)
    )


def _interval(found: Mapping[str, Any] | None) -> str:
    return "not known" if found is None else f"{found['value']:.1%} ({found['low']:.1%} to {found['high']:.1%})"
