"""The explorer's page (extra `explore`): filters, a list of rows, one row's tokens, and analysis of a new text."""

from typing import Any

from memtax.errors import MemtaxError
from memtax.extras import explained
from memtax.progress import numbered
from memtax.report.explorer import MOST_ROWS, SHOWN, Explorer
from memtax.report.words import label
from memtax.schema import CATEGORIES

NEAR = ("rank", "neighbour_id", "cosine", "text")
"""Columns in the list of neighbors."""
COLORS = {"90% or more": "#2166ac", "50 to 90%": "#92c5de", "10 to 50%": "#f4a582", "less than 10%": "#b2182b"}
"""Colors of tokens by probability, distinguishable by color-blind readers."""
TOKENS: dict[str, Any] = {"color_map": COLORS, "combine_adjacent": False, "show_legend": True}
CLIPPED = 160
"""Characters of a text in the list of rows."""
MEMORIZED = {"all": None, "memorized": True, "not memorized": False}


def page(explorer: Explorer) -> Any:
    """The page as a Gradio app; `.launch()` starts it.

    Raises:
        MissingExtraError: Gradio is not installed.
    """
    with explained():
        import gradio
    with gradio.Blocks(title=f"memtax: {explorer.title}", analytics_enabled=False) as demo:
        gradio.Markdown(f"# {''.join(c if c.isalnum() or c in ' .,:-_/' else ' ' for c in explorer.title)}")
        with gradio.Tab("Sequences"):
            _sequences(gradio, explorer, demo)
        with gradio.Tab("Your text"):
            _own_text(gradio, explorer)
    return demo


def _sequences(gradio: Any, explorer: Explorer, demo: Any) -> None:
    """The filters, the list of rows, and one row with its tokens, figures and neighbors."""
    headers = [name for name in SHOWN if name in explorer.features.column_names]
    # Widths in percent: names must not wrap; the text gets the remaining space.
    needed = {name: max(13, round(0.8 * len(name))) for name in headers if name != "text"}
    widths = [f"{needed.get(name, max(20, 100 - sum(needed.values())))}%" for name in headers]
    with gradio.Row():
        categories = gradio.CheckboxGroup(list(CATEGORIES), label="Categories (none: all)")
        memorized = gradio.Radio(list(MEMORIZED), value="all", label="Memorized")
        text = gradio.Textbox(label="Text contains")
    with gradio.Row():
        factor = gradio.Dropdown(["", *explorer.factors], value="", label="Factor")
        low, high = gradio.Textbox(label="at least"), gradio.Textbox(label="at most")
        least = gradio.Slider(0, 1, 0.0, label="Probability at least")
        most = gradio.Slider(0, 1, 1.0, label="Probability at most")
    button = gradio.Button("Filter", variant="primary")
    total = gradio.Markdown()
    shown_as = [label(name) for name in headers]
    rows = gradio.Dataframe(headers=shown_as, interactive=False, wrap=True, type="array", max_height=560, column_widths=widths)
    chosen = gradio.Number(label="Sequence (click a row)", precision=0)
    colored = gradio.HighlightedText(label="Tokens by probability", **TOKENS)
    with gradio.Row():
        facts = _listed(gradio, ["column", "value"], "Counts, factors and scores", [35, 65])
        near = _listed(gradio, list(NEAR), "Neighbours", [12, 20, 13, 55])

    def choose(
        categories: list[str], memorized: str, factor: str, low: str, high: str, least: float, most: float, text: str
    ) -> tuple[str, list[list[Any]]]:
        bounds: dict[str, Any] = {"factor": factor or None, "probability": (least, most), "text": text or ""}
        with _said(gradio):
            total, rows = explorer.rows(categories, MEMORIZED[memorized], low=_number(low), high=_number(high), **bounds)
        shown = f"**{numbered(total, 'sequence')}**" + (f", the first {MOST_ROWS} below" if total > MOST_ROWS else "")
        return shown, [[_clip(_cell(row.get(name))) for name in headers] for row in rows]

    def details(sequence_id: float | None) -> tuple[list[tuple[str, str | None]], list[list[Any]], list[list[Any]]]:
        with _said(gradio):
            row = explorer.details(int(sequence_id or 0))
        return _colored(row.pop("tokens_shown")), _near(row.pop("neighbours")), _facts(row)

    def select(rows: Any, event: gradio.SelectData) -> tuple[Any, ...]:
        number = int(rows[event.index[0]][0])
        return number, *details(number)

    inputs = [categories, memorized, factor, low, high, least, most, text]
    button.click(choose, inputs, [total, rows], api_name="rows")
    demo.load(choose, inputs, [total, rows], api_visibility="private")
    rows.select(select, [rows], [chosen, colored, near, facts], api_visibility="private")
    chosen.input(details, [chosen], [colored, near, facts], api_name="details")


def _own_text(gradio: Any, explorer: Explorer) -> None:
    """Analysis of a new text by the model and the predictor."""
    own = gradio.Textbox(lines=6, label="Text")
    count = gradio.Number(None, label="Occurrences of its continuation in the corpus (empty: unknown)", precision=0)
    ask = gradio.Button("Analyze", variant="primary")
    colored = gradio.HighlightedText(label="Tokens by probability", **TOKENS)
    facts = _listed(gradio, ["column", "value"], "Analysis", [35, 65])
    if explorer.model is None:
        gradio.Markdown("No model is loaded: extraction and perplexities need one (`--model`).")

    def analyse(text: str, duplicates: float | None) -> tuple[list[tuple[str, str | None]], list[list[Any]]]:
        with _said(gradio):
            row = explorer.analyse(text or "", None if duplicates is None else int(duplicates))
        return _colored(row.pop("tokens_shown", [(text, None)])), _facts(row)

    ask.click(analyse, [own, count], [colored, facts], api_name="analyse")


def _listed(gradio: Any, headers: list[str], label: str, widths: list[int]) -> Any:
    """A read-only table with column widths in percent."""
    shares = [f"{width}%" for width in widths]
    return gradio.Dataframe(headers=headers, label=label, column_widths=shares, interactive=False, wrap=True)


class _said:
    """Shows memtax errors as notices on the page."""

    def __init__(self, gradio: Any) -> None:
        self.gradio = gradio

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, MemtaxError):
            raise self.gradio.Error(str(error), print_exception=False) from error


def _number(text: str | None) -> float | None:
    """A bound as entered; None if the field is empty."""
    if not (text or "").strip():
        return None
    try:
        return float(str(text))
    except ValueError as error:
        raise MemtaxError(f"{str(text).strip()!r} is not a number") from error


def _colored(tokens: list[tuple[str, float | None]]) -> list[tuple[str, str | None]]:
    return [(text, None if value is None else _bucket(value)) for text, value in tokens]


def _bucket(probability: float) -> str:
    limits = ((0.9, "90% or more"), (0.5, "50 to 90%"), (0.1, "10 to 50%"))
    return next((name for limit, name in limits if probability >= limit), "less than 10%")


def _facts(row: dict[str, Any]) -> list[list[Any]]:
    return [[name, _cell(value)] for name, value in row.items() if not isinstance(value, (list, dict))]


def _near(rows: list[dict[str, Any]]) -> list[list[Any]]:
    return [[_cell(row.get(name)) for name in NEAR] for row in rows]


def _clip(value: Any) -> Any:
    """A cell of the list of rows, where whole texts would leave space for one or two rows; the row itself shows all of it."""
    return f"{value[:CLIPPED]}\N{HORIZONTAL ELLIPSIS}" if isinstance(value, str) and len(value) > CLIPPED else value


def _cell(value: Any) -> Any:
    if value is None:
        return "unknown"
    if isinstance(value, float) and 0 < value < 1e-4:
        return "<0.0001"
    return f"{value:.4g}" if isinstance(value, float) else str(value) if isinstance(value, bool) else value
