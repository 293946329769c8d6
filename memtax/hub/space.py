"""The page of a metric Space: inputs as JSON, the test cases as examples, and results or the module's error message."""

import json
from pathlib import Path
from typing import Any


def page(file: str, name: str) -> Any:
    """The page as a Gradio app; `.launch()` starts it.

    Args:
        file: the Space's `app.py`; the module, its card and its test cases are in the same folder.
        name: name of the module.
    """
    import evaluate
    import gradio

    from memtax.hub.cards import split

    folder = Path(file).resolve().parent
    cases = json.loads((folder / "cases.json").read_text(encoding="utf-8"))
    _, card = split((folder / "README.md").read_text(encoding="utf-8"))
    # The file itself: in a folder with another name than the module, evaluate would load app.py.
    module = evaluate.load(str(folder / f"{name}.py"))

    def compute(inputs: str, options: str) -> tuple[str, str]:
        try:
            columns, chosen = json.loads(inputs), json.loads(options or "{}")
            if not isinstance(columns, dict) or not isinstance(chosen, dict):
                raise ValueError("inputs and options must be JSON objects, from names to values")
            return json.dumps(module.compute(**columns, **chosen), indent=2), ""
        except (ValueError, TypeError) as error:
            return "", str(error)

    with gradio.Blocks(title=name, analytics_enabled=False) as demo:
        with gradio.Row():
            with gradio.Column():
                first = cases[0]
                inputs = gradio.Code(json.dumps(first["inputs"], indent=1), language="json", label="Inputs")
                options = gradio.Code(json.dumps(first["options"]), language="json", label="Options")
                button = gradio.Button("Compute", variant="primary")
            with gradio.Column():
                results = gradio.Code(language="json", label="Results", interactive=False)
                error = gradio.Textbox(label="Error", interactive=False)
        rows = [[json.dumps(case["inputs"], indent=1), json.dumps(case["options"])] for case in cases]
        gradio.Examples(rows, [inputs, options], label="Cases", example_labels=[case["name"] for case in cases])
        gradio.Markdown(card)
        button.click(compute, [inputs, options], [results, error], api_name="compute")
    return demo
