"""The competing taxonomy of memorized sequences as guessed or recalled (Dentan et al. 2025, arXiv 2508.02573).

There are two definitions. The first is by cause: a memorized sequence that is highly duplicated is recalled, any other is
guessed; the user chooses the threshold of high duplication (the authors tried 5, 50 and 1,000). The second is the rule in the
authors' released code, which does not count duplicates: a memorized sequence is guessed if its text is a template or its
continuation overlaps its prompt, and otherwise recalled.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from memtax.errors import MemtaxError
from memtax.schema import CATEGORIES

LABELS = ("not memorized", "guess", "recall")
NOT_MEMORIZED, GUESS, RECALL = range(len(LABELS))
OVERLAP = 0.5
"""ROUGE-L or ROUGE-3 between prompt and continuation from which a continuation can be guessed (value of the released code)."""


def by_duplicates(is_memorized: Sequence[bool | None], duplicates: Sequence[int | None], *, threshold: int) -> list[int | None]:
    """Label memorized sequences with more than `threshold` duplicates as recall, and other memorized ones as guess.

    Args:
        is_memorized: verdict for each sequence.
        duplicates: occurrences of each continuation in the corpus.
        threshold: maximum duplicates of a sequence that is a guess.

    Returns:
        Indices into `LABELS`; None where a missing input could change the label.

    Raises:
        MemtaxError: the columns differ in length, or a count or the threshold is negative.
    """
    _same_length(is_memorized=is_memorized, duplicates=duplicates)
    if threshold < 0:
        raise MemtaxError(f"threshold is a number of duplicates, at least 0, got {threshold}")
    wrong = next((count for count in duplicates if count is not None and count < 0), None)
    if wrong is not None:
        raise MemtaxError(f"a count of duplicates is {wrong}; a missing count must be null, not negative")
    guessable = [None if count is None else count <= threshold for count in duplicates]
    return [_label(memorized, guess) for memorized, guess in zip(is_memorized, guessable, strict=True)]


def by_overlap(
    is_memorized: Sequence[bool | None],
    is_templating: Sequence[bool | None],
    tokens: Sequence[Sequence[int] | None],
    *,
    prompt: int | Sequence[int] = 32,
    overlap: float = OVERLAP,
) -> list[int | None]:
    """Label memorized sequences as guess if the text is a template or the continuation repeats the prompt, else as recall.

    Args:
        is_memorized: verdict for each sequence.
        is_templating: whether each text is incrementing or repeating.
        tokens: token ids of each sequence.
        prompt: tokens in the prompt, of all sequences or of each.
        overlap: ROUGE-L or ROUGE-3 (F-measure over token ids) from which a sequence is a guess.

    Returns:
        Indices into `LABELS`; None where a missing input could change the label.

    Raises:
        MemtaxError: the columns differ in length, or an argument is out of range.
    """
    _same_length(is_memorized=is_memorized, is_templating=is_templating, tokens=tokens)
    prompts = [prompt] * len(tokens) if isinstance(prompt, int) else prompt
    if min(prompts, default=1) < 1 or not 0 < overlap <= 1:
        raise MemtaxError(f"prompt ({min(prompts)}) is at least 1 token, and overlap ({overlap}) must be in (0, 1]")
    rows = zip(is_memorized, is_templating, tokens, prompts, strict=True)
    return [_label(memorized, _guessable(memorized, template, row, size, overlap)) for memorized, template, row, size in rows]


def rouge_l(reference: Sequence[int], candidate: Sequence[int]) -> float:
    """F-measure of the longest common subsequence (Lin 2004)."""
    from rapidfuzz.distance import LCSseq

    return _f_measure(LCSseq.similarity(list(reference), list(candidate)), len(reference), len(candidate))


def rouge_n(reference: Sequence[int], candidate: Sequence[int], n: int) -> float:
    """F-measure of common n-grams; each counts at most as often as in either sequence (Lin 2004)."""
    from collections import Counter

    first, second = (Counter(zip(*(text[start:] for start in range(n)), strict=False)) for text in (reference, candidate))
    return _f_measure(sum((first & second).values()), sum(first.values()), sum(second.values()))


def cross_tabulate(
    taxonomy: Sequence[int | None], labels: Sequence[int | None], names: Sequence[str] = LABELS
) -> Mapping[str, dict[str, int]]:
    """Number of sequences per category and label.

    Args:
        taxonomy: indices into `memtax.schema.CATEGORIES`.
        labels: indices into `names`.
        names: names of the labels.

    Returns:
        Category to label to count, with `unknown` for nulls, and the row and column `all`.
    """
    _same_length(taxonomy=taxonomy, labels=labels)
    rows, columns = (*CATEGORIES, "unknown", "all"), (*names, "unknown", "all")
    counts = {row: dict.fromkeys(columns, 0) for row in rows}
    for category, label in zip(taxonomy, labels, strict=True):
        row = "unknown" if category is None else CATEGORIES[category]
        column = "unknown" if label is None else names[label]
        for one in (row, "all"):
            for other in (column, "all"):
                counts[one][other] += 1
    return counts


def _guessable(
    memorized: bool | None, template: bool | None, tokens: Sequence[int] | None, prompt: int, overlap: float
) -> bool | None:
    if memorized is False or template:
        return bool(template)
    if tokens is None:
        return None
    reference, candidate = tokens[:prompt], tokens[prompt:]
    if rouge_l(reference, candidate) >= overlap or rouge_n(reference, candidate, 3) >= overlap:
        return True
    return None if template is None else False


def _label(memorized: bool | None, guessable: bool | None) -> int | None:
    if memorized is False:
        return NOT_MEMORIZED
    if memorized is None or guessable is None:
        return None
    return GUESS if guessable else RECALL


def _f_measure(common: int, first: int, second: int) -> float:
    return 2 * common / (first + second) if first + second else 0.0


def _same_length(**columns: Sequence[Any]) -> None:
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise MemtaxError(f"columns differ in length: {', '.join(f'{name} {rows}' for name, rows in lengths.items())}")
