"""Properties of texts: templates, code lengths, and the taxonomy of memorization."""

from typing import Any

from memtax.errors import MemtaxError
from memtax.filters.compressibility import huffman_coding_length, shannon_coding_length
from memtax.filters.taxonomy import taxonomy
from memtax.filters.templates import TemplateFilter
from memtax.metrics.figures import counted, rate, rates_by_category
from memtax.metrics.inputs import Column, check_whole, columns, flags, token_ids, units_of, whole_texts
from memtax.schema import CATEGORIES, RECITATION_THRESHOLD
from memtax.statistics import measures


def templating(
    predictions: Column,
    references: Column | None = None,
    documents: Column | None = None,
    per_example: bool = False,
    level: float = 0.95,
) -> dict[str, Any]:
    """Shares of texts that are templates (Prashanth et al. 2024).

    Finds texts that are templates: incrementing (a counter or another progression continues) or repeating (a pattern recurs).
    Such a text can be continued without having been memorized. With labels, also how well the rules agree with them.

    Args:
        predictions (`list` of `str`): texts.
        references (`list` of `bool`, *optional*): whether each text is a template; adds precision, recall and F1.
        documents (`list` of `str` or `int`, *optional*): document of each row. Intervals are then over documents, as rows of
            one depend on each other, and null with a reason below 10 documents. Without it rows are taken as independent.
        per_example (`bool`): also return the decision on each text. Defaults to `False`.
        level (`float`): coverage of the intervals. Defaults to 0.95.

    Returns:
        `incrementing`, `repeating` (no text is both), `templated` (either): shares of the texts, in [0, 1], each with `..._low`
        and
        `..._high` (over `documents`; without them Clopper-Pearson, for independent texts). `texts`: how many there are.
        With references: `f1`, `precision`, `recall` of `templated`, in [0, 1].
        `per_example` (on request): `is_incrementing`, `is_repeating` and `template_period` (in items: words, numbers, signs;
        null if there is none).

    Raises:
        MemtaxError: columns are missing, empty, of different lengths, or hold values that the measure cannot take.

    Example:
        >>> import memtax
        >>> texts = ["row 1 row 2 row 3 row 4 row 5 row 6", "la la la la la la la la", "It was a bright cold day in April."]
        >>> results = memtax.metrics.templating(predictions=texts, per_example=True)
        >>> results["per_example"]["is_incrementing"], results["per_example"]["is_repeating"]
        ([True, False, False], [False, True, False])
        >>> round(results["templated"], 3)
        0.667
    """
    predictions, references, documents = columns(1, predictions=predictions, references=references, documents=documents)
    found = TemplateFilter()({"text": whole_texts(predictions, "predictions")})
    flagged = {name: found[name] for name in TemplateFilter.columns}
    incrementing, repeating = flagged["is_incrementing"], flagged["is_repeating"]
    templated = [one or other for one, other in zip(incrementing, repeating, strict=True)]
    units = units_of(documents)
    result: dict[str, Any] = dict(counted(units))
    for name, decided in {"incrementing": incrementing, "repeating": repeating, "templated": templated}.items():
        result |= rate(name, decided, level, units)
    result["texts"] = len(predictions)
    if references is not None:
        labels = flags(references, "references")
        result["f1"] = measures.f1_score(labels, templated)
        result["precision"] = measures.precision_score(labels, templated)
        result["recall"] = measures.recall_score(labels, templated)
    return {**result, **({"per_example": flagged} if per_example else {})}


def coding_length(
    predictions: Column,
    tokenizer: str | None = None,
    per_example: bool = False,
) -> dict[str, Any]:
    """Mean code length of sequences under the frequencies of their own symbols.

    Mean code length of a sequence's symbols under their own frequencies: of the optimal prefix code (Huffman), and of the
    Shannon code with lengths ceil(-log2 p), which the published data of the memorization taxonomy call Huffman. Sequences that
    compress well are easier to memorize.

    Args:
        predictions (`list` of `str`, or of `list` of `int`): texts, whose characters are the symbols, or token ids. None is
            empty.
        tokenizer (`str`, *optional*): folder or Hub name of a tokenizer; the texts' tokens are then the symbols.
        per_example (`bool`): also return the lengths of each sequence. Defaults to `False`.

    Returns:
        `huffman_coding_length`, `shannon_coding_length`: means over the sequences, in bits per symbol (a character or a token),
        at least 0; a sequence with entropy H has H <= Huffman < H + 1 and Huffman <= Shannon < H + 1.
        `sequences`: how many there are. `per_example` (on request): the same two names, one value per sequence.

    Raises:
        MemtaxError: columns are missing, empty, of different lengths, or hold values that the measure cannot take.

    Example:
        >>> import memtax
        >>> results = memtax.metrics.coding_length(predictions=["aab", "aaaa"], per_example=True)
        >>> results["per_example"]["huffman_coding_length"], results["huffman_coding_length"]
        ([1.0, 0.0], 0.5)
        >>> round(memtax.metrics.coding_length(predictions=[[1, 1, 2]])["shannon_coding_length"], 3)
        1.333
    """
    (predictions,) = columns(1, predictions=predictions)
    if tokenizer is not None or not any(isinstance(row, str) for row in predictions):
        predictions = token_ids(predictions, tokenizer, "predictions")
    for number, row in enumerate(predictions):
        if not row:
            raise MemtaxError(f"predictions have no symbol in row {number}; drop empty and missing sequences first")
    found: dict[str, list[Any]] = {
        "huffman_coding_length": [huffman_coding_length(row) for row in predictions],
        "shannon_coding_length": [shannon_coding_length(row) for row in predictions],
    }
    means = {name: sum(values) / len(values) for name, values in found.items()}
    return {**means, "sequences": len(predictions), **({"per_example": found} if per_example else {})}


def memorization_taxonomy(
    predictions: Column,
    sequence_duplicates: Column,
    texts: Column | None = None,
    is_incrementing: Column | None = None,
    is_repeating: Column | None = None,
    documents: Column | None = None,
    threshold: int = RECITATION_THRESHOLD,
    per_example: bool = False,
    level: float = 0.95,
) -> dict[str, Any]:
    """Share of each category of the taxonomy that is memorized (Prashanth et al. 2024).

    Sorts sequences into the taxonomy of memorization and returns the share of each category that is memorized. In this order:
    more than `threshold` duplicates in the corpus is recitation; else an incrementing or repeating text is reconstruction; else
    recollection. Every sequence has a category, memorized or not.

    Args:
        predictions (`list` of `bool`): whether each sequence is memorized.
        sequence_duplicates (`list` of `int`): occurrences of each continuation in the corpus, at least 0; null if not known.
        texts (`list` of `str`, *optional*): the texts, from which templates are found; give these or the two flags.
        is_incrementing (`list` of `bool`, *optional*): whether each text continues a progression.
        is_repeating (`list` of `bool`, *optional*): whether each text repeats a pattern.
        documents (`list` of `str` or `int`, *optional*): document of each row. Intervals are then over documents, as rows of
            one depend on each other, and null with a reason below 10 documents. Without it rows are taken as independent.
        threshold (`int`): the most duplicates of a sequence that is not recitation. Defaults to
            `memtax.schema.RECITATION_THRESHOLD`.
        per_example (`bool`): also return each sequence's category. Defaults to `False`.
        level (`float`): coverage of the intervals. Defaults to 0.95.

    Returns:
        For `all` and each category c: `{c}_sequences`, `{c}_memorized` (counts), `{c}_rate`: share of the category's sequences
        that is memorized, in [0, 1], with `..._low` and `..._high` (over `documents`, whose number is `{c}_documents`; without
        them Clopper-Pearson, for independent sequences); null without sequences.
        `unlabelled`: sequences whose category is not known because an input is null.
        `per_example` (on request): `taxonomy`, the category's name or null.

    Example:
        >>> import memtax
        >>> flags = {"is_incrementing": [0, 1, 0, 0], "is_repeating": [0, 0, 0, 0]}
        >>> results = memtax.metrics.memorization_taxonomy([1, 1, 1, 0], [60, 1, 1, 2], per_example=True, **flags)
        >>> results["per_example"]["taxonomy"]
        ['recitation', 'reconstruction', 'recollection', 'recollection']
        >>> results["recollection_rate"], results["all_memorized"]
        (0.5, 3)
    """
    given = {"texts": texts, "is_incrementing": is_incrementing, "is_repeating": is_repeating, "documents": documents}
    memorized, duplicates, *evidence = columns(2, predictions=predictions, sequence_duplicates=sequence_duplicates, **given)
    check_whole(duplicates, "sequence_duplicates")
    result, codes = _categories(flags(memorized, "predictions"), duplicates, *evidence, threshold=threshold, level=level)
    if per_example:
        result["per_example"] = {"taxonomy": [None if code is None else CATEGORIES[code] for code in codes]}
    return result


def _categories(
    memorized: list[bool],
    duplicates: list[int | None],
    texts: list[str] | None,
    incrementing: list[bool | None] | None,
    repeating: list[bool | None] | None,
    documents: list[str] | None,
    *,
    threshold: int,
    level: float,
) -> tuple[dict[str, Any], list[int | None]]:
    """Rates by category, and the category of each row."""
    if texts is not None:
        found = TemplateFilter()({"text": texts})
        incrementing, repeating = found["is_incrementing"], found["is_repeating"]
    elif incrementing is None or repeating is None:
        raise MemtaxError("memorization_taxonomy needs texts, or is_incrementing and is_repeating")
    for name, column in {"is_incrementing": incrementing, "is_repeating": repeating}.items():
        flags([value for value in column or () if value is not None], name)
    codes = list(taxonomy(duplicates, incrementing or [], repeating or [], threshold))
    return {**rates_by_category(memorized, codes, level, documents), "unlabelled": codes.count(None)}, codes
