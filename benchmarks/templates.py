"""The template filter beside the reference's rule: rows per second, and F1 on hand labels.

    python benchmarks/templates.py                # speed, on text made from the standard library's sources
    python benchmarks/templates.py --data FOLDER  # also precision, recall and F1 on FOLDER/memorized_labels.jsonl

The reference's rule is written down plainly in Python, from its definition (Prashanth et al. 2024, "templating"): text
split on white space and digits; incrementing if for some period every p-th item is constant or an arithmetic progression,
at least one of them progressing; repeating if the characters have a period that they show at least twice; the first and
the last item may be cut. One thing is right here that the original gets wrong: (1, 5, 2) is not a progression.
"""

import argparse
import hashlib
import json
import random
import re
import time
from itertools import pairwise
from pathlib import Path

from memtax.filters.templates import TemplateFilter

POSITIVE = {"pattern-incrementing": "is_incrementing", "pattern-repeating": "is_repeating"}


def reference_items(text: str) -> list[str | int]:
    """Numbers (decimal, or hexadecimal with 0x) and the pieces of text between them and white space."""
    items: list[str | int] = []
    for piece in re.findall(r"0[xX][0-9a-fA-F]+|\d+|[^\s\d]+", text):
        if re.fullmatch(r"0[xX][0-9a-fA-F]+", piece):
            items.append(int(piece, 16))
        else:
            items.append(int(piece) if piece.isdecimal() else piece)
    return items


def reference_incrementing(text: str) -> bool:
    """Whether for some period every item follows the one a period before, as a constant or a progression."""
    items = reference_items(text)[1:-1]  # the first and the last may be cut
    for period in range(1, len(items) // 2 + 1):
        progresses = False
        for phase in range(period):
            column = items[phase::period]
            if all(item == column[0] for item in column):
                continue
            if len(column) < 3 or not all(isinstance(item, int) for item in column):
                break
            steps = {after - before for before, after in pairwise(column)}
            if len(steps) != 1:
                break
            progresses = True
        else:
            if progresses:
                return True
    return False


def reference_repeating(text: str) -> bool:
    """Whether the characters, without a cut first and last word, have a period that they show at least twice."""
    words = text.split()
    inner = " ".join(words[1:-1]) if len(words) > 3 else text
    for start in (text, inner):
        for period in range(1, len(start) // 2 + 1):
            if start[period:] == start[:-period]:
                return True
    return False


def source_windows(rows: int, seed: int = 0) -> list[str]:
    """Windows of 250 characters from the sources of the running interpreter's standard library."""
    import os

    draw = random.Random(seed)
    files = sorted(path for path in Path(os.__file__).parent.rglob("*.py") if "site-packages" not in path.parts)
    windows: list[str] = []
    while len(windows) < rows:
        text = draw.choice(files).read_text("utf-8", "replace")
        start = draw.randrange(max(1, len(text) - 250))
        windows.append(text[start : start + 250])
    return windows


def speed(texts: list[str], rounds: int) -> None:
    """Print rows a second of both, measured in turns on the same texts."""
    ours, theirs = [], []
    template_filter = TemplateFilter()
    start = time.perf_counter()
    template_filter({"text": texts[:1]})
    first = time.perf_counter() - start
    for _ in range(rounds):
        start = time.perf_counter()
        template_filter({"text": texts})
        ours.append(len(texts) / (time.perf_counter() - start))
        start = time.perf_counter()
        for text in texts:
            reference_incrementing(text), reference_repeating(text)
        theirs.append(len(texts) / (time.perf_counter() - start))
    fast, slow = sorted(ours)[rounds // 2], sorted(theirs)[rounds // 2]
    print(f"first call {first:.2f} s (compiles once per installation, then loads from the cache)")
    print(f"{len(texts)} rows: ours {fast:,.0f} rows/s, reference {slow:,.0f} rows/s, ratio {fast / slow:.1f}")


def figures(truth: list[bool], found: list[bool]) -> str:
    """Precision, recall and F1."""
    hits = sum(a and b for a, b in zip(truth, found, strict=True))
    precision, recall = hits / max(1, sum(found)), hits / max(1, sum(truth))
    return f"precision {precision:.3f} recall {recall:.3f} F1 {2 * hits / max(1, sum(found) + sum(truth)):.3f}"


def is_develop(row: dict[str, object]) -> bool:
    """The 60% of the labels that rules were developed on, by hash of the id."""
    return int(hashlib.sha256(str(row["sequence_id"]).encode()).hexdigest()[:8], 16) % 10 < 6


def agreement(rows: list[dict[str, str]], name: str) -> None:
    """Print the agreement of both rules with the labels."""
    texts = [row["text"] for row in rows]
    incrementing = [reference_incrementing(text) for text in texts]
    repeating = [not i and reference_repeating(text) for i, text in zip(incrementing, texts, strict=True)]
    reference = {"is_incrementing": incrementing, "is_repeating": repeating}
    for who, found in (("ours", TemplateFilter()({"text": texts})), ("reference", reference)):
        either = [a or b for a, b in zip(found["is_incrementing"], found["is_repeating"], strict=True)]
        print(f"{name:8s} {who:10s} either               {figures([row['category'] in POSITIVE for row in rows], either)}")
        for category, column in POSITIVE.items():
            truth = [row["category"] == category for row in rows]
            print(f"{name:8s} {who:10s} {category:20s} {figures(truth, found[column])}")


def main() -> None:
    """Run the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with memorized_labels.jsonl (sequence_id, text, category)")
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    speed(source_windows(arguments.rows), arguments.rounds)
    if arguments.data:
        with (arguments.data / "memorized_labels.jsonl").open(encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        speed([row["text"] for row in rows], arguments.rounds)
        agreement([row for row in rows if is_develop(row)], "develop")
        agreement([row for row in rows if not is_develop(row)], "check")
        agreement(rows, "all")


if __name__ == "__main__":
    main()
