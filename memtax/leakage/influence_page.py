"""The report of `memtax influence`: one HTML file with the most influential training examples of each test example."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

SHOWN = 200
"""Test examples on the page; the tables hold all."""
EXCERPT = 400
"""Characters of a text that are shown."""

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069\ufeff]")
"""Controls that HTML forbids and marks that reorder the text around them."""

_TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Influence</title>
<style>
:root { color-scheme: light dark; --page: #fbfbfa; --ink: #1c1e21; --quiet: #5a6068; --line: #d9dce0; --link: #005a9c; }
@media (prefers-color-scheme: dark) {
  :root { --page: #15171a; --ink: #e8e9eb; --quiet: #a7adb5; --line: #3a3f46; --link: #7cc0f5; }
}
body { font: 16px/1.55 system-ui, sans-serif; max-width: 70rem; margin: 0 auto; padding: 1.5rem 1.25rem; }
body { background: var(--page); color: var(--ink); overflow-wrap: anywhere; }
a { color: var(--link); }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
.skip { position: absolute; left: -99rem; }
.skip:focus { position: static; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; min-width: 38rem; margin: .5rem 0 1rem; font-size: .88rem; }
caption { text-align: left; color: var(--quiet); }
th, td { text-align: left; vertical-align: top; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line); }
tbody th { font-weight: normal; }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; font-size: 13px; }
section { border-top: 1px solid var(--line); margin-top: 1.5rem; }
@page { margin: 14mm; }
</style>
</head>
<body>
<a class="skip" href="#content">Skip to the content</a>
<header>
<h1>Influence</h1>
<p>{{ summary.train }} training examples on {{ summary.test }} test examples; model {{ summary.model }}, parameters
{{ summary.parameters }}. An influence is negative where training on the example lowers the loss at the test example; RepSim
is a cosine.</p>
</header>
<main id="content">
{% if figures %}
<div class="scroll" tabindex="0" role="region" aria-label="Methods">
<table>
<caption>How often the most influential training examples are of the test example's class</caption>
<thead><tr><th scope="col">Method</th><th scope="col">Class of the most influential example is right</th>
<th scope="col">Share of the top k in the class</th></tr></thead>
<tbody>
{% for row in figures %}
<tr><th scope="row">{{ row.method }}</th><td>{{ row.accuracy }}</td><td>{{ row.coverage }}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
{% endif %}
{% for test in tests %}
<section>
<h2>Test example {{ test.id }}</h2>
{% if test.text %}<pre>{{ test.text | excerpt }}</pre>{% endif %}
{% for method, rows in test.methods.items() %}
<div class="scroll" tabindex="0" role="region" aria-label="Test example {{ test.id }}, {{ method }}">
<table>
<caption>Most influential training examples by {{ method }}</caption>
<thead><tr><th scope="col">Rank</th><th scope="col">Training example</th><th scope="col">Influence</th>
<th scope="col">Text</th></tr></thead>
<tbody>
{% for row in rows %}
<tr><th scope="row">{{ row.rank }}</th><td class="number">{{ row.train_id }}</td>
<td class="number">{{ "%.4g" | format(row.influence) }}</td><td><pre>{{ (row.train_text or "") | excerpt }}</pre></td></tr>
{% endfor %}
</tbody>
</table>
</div>
{% endfor %}
</section>
{% endfor %}
{% if left_out %}<p>{{ left_out }} more test examples are in top.parquet.</p>{% endif %}
</main>
<footer><p>Every pair is in influence.parquet, every figure in summary.json. Long texts are cut; top.parquet has them
whole.</p></footer>
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
    environment.filters["excerpt"] = lambda text: text if len(text) <= EXCERPT else f"{text[:EXCERPT]} [...]"
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
