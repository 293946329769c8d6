"""The layout of the package: small files and functions, and no package that reaches into the private parts of another."""

import ast
from pathlib import Path

import memtax

PACKAGE = Path(memtax.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
MOST_LINES = {"file": 400, "function": 60}
LONGER = {
    "corpus/sequences.py:load_sequences": 72,
    "counting/kernels.py:scan": 73,
    "lm/fused.py:_kernel": 78,
    "lm/gradients.py:capture": 73,
    "lm/scores.py:score": 67,
    "membership/measure.py:infer_membership": 63,
    "pipeline/fitting.py:fit": 68,
    "predictor/predictor.py:fit": 73,
}
"""What is longer than that today, and how long; entries can only shrink or go."""


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def lengths() -> dict[str, int]:
    """Lines of every file, and of every function with its signature and docstring."""
    lines = {}
    for path in FILES:
        text, name = path.read_text(encoding="utf-8"), path.relative_to(PACKAGE).as_posix()
        lines[name] = len(text.splitlines())
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                key = f"{name}:{node.name}"
                lines[key] = max(lines.get(key, 0), node.end_lineno - node.lineno + 1)
    return lines


def test_files_and_functions_are_short():
    long = {name: count for name, count in lengths().items() if count > MOST_LINES["function" if ":" in name else "file"]}
    assert not {name: count for name, count in long.items() if count > LONGER.get(name, 0)}
    assert set(LONGER) == set(long), "an exception that is not needed any more"


def test_no_package_imports_what_is_private_to_another():
    reaching = []
    for path in FILES:
        place = path.relative_to(PACKAGE)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("memtax."):
                imported = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                imported = [alias.name for alias in node.names if alias.name.startswith("memtax.")]
            else:
                continue
            for name in imported:
                parts = name.split(".")
                if any(map(is_private, parts)) and parts[1] != place.parts[0]:
                    reaching.append(f"{place}: {name}")
    assert not reaching
