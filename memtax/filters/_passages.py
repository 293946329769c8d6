"""Training passages of code and natural language, cut like the sequences that the classifier will read.

The kind of a document does not determine the kind of a short passage: source files start with a license, and papers contain
tables. Passages therefore start anywhere, have any length, and are labeled by their own share of prose; ambiguous ones are
skipped.
"""

import random
import re
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from memtax.corpus.sources import Source, open_dataset
from memtax.errors import MemtaxError

NATURAL_LANGUAGE, CODE = 0, 1
LABELS = ("natural language", "code")
"""Class names by label, as in a trained model's configuration."""

Documents = Mapping[str, Sequence[str]]
"""Name of a source to its texts; all sources are sampled equally often."""

TEXT_COLUMNS = ("text", "content", "code")
CODE_DOMAINS = ("github", "github-code", "the-stack")
LEFT_OUT = ("dm_mathematics",)
"""Domains that are neither kind: synthetic exercises made of formulas and words."""

SHORTEST, LONGEST = 60, 340
"""Passage length in characters: 64 language model tokens are about 150 characters of code and 300 of prose."""
MOSTLY_PROSE, HARDLY_PROSE = 0.7, 0.3
BUFFER = 10_000
"""Documents in the shuffle buffer of a stream."""
RUN = 5
"""Number of consecutive words that count as prose, if one of them is a function word."""

_EDGE = "()[]{}\"'\u201c\u201d\u2018\u2019*_.,;:!?"
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019\-][^\W\d_]+)*")
_MARKER = re.compile(r"[^\w\s]+|\d{1,4}[.,;:)]?")
_FUNCTION_WORDS = frozenset(
    re.findall(
        r"\w+",
        "the of and to a in is for or not that with as be by on this are at from it an was which you if will have has may can "
        "all any his he they their but i we my so",
    )
)
_CODE_ENDINGS = re.findall(r"\w+", "py h hpp c cpp cu cuh pyx pxd f90 r js css html svg json yaml xml toml cmake sh csv")
_FILES = {"code": tuple(f".{ending}" for ending in _CODE_ENDINGS), "prose": (".rst", ".md")}
_PROSE_NAMES = ("LICENSE", "COPYING", "NOTICE", "METADATA")


@dataclass(frozen=True)
class Passages:
    """Texts, their labels (0 natural language, 1 code), and how many were relabeled or skipped as ambiguous.

    `documents` contains the number of the document that each text was cut from.
    """

    texts: list[str]
    labels: list[int]
    relabeled: int
    left_out: int
    documents: list[int]


def prose_share(text: str) -> float:
    """Share of a text's characters (without white space and comment marks) in word sequences that include a function word.

    Returns:
        From 0 to 1; 0 for a text without words.
    """
    words = [word for word in text.split() if not _MARKER.fullmatch(word)]
    total = sum(map(len, words))
    prose = 0
    run: list[str] = []
    for word in [*words, "1"]:
        if _WORD.fullmatch(word.strip(_EDGE)):
            run.append(word)
            continue
        if len(run) >= RUN and any(each.strip(_EDGE).lower() in _FUNCTION_WORDS for each in run):
            prose += sum(map(len, run))
        run = []
    return prose / total if total else 0.0


def label_of(text: str, kind: int) -> int | None:
    """The label of a passage from a document of the given kind; None if it is ambiguous.

    Prose inside code (comments, licenses) is natural language. A passage from a prose document is natural language too, even
    a list of names or another language, unless it contains no prose and at most half of its visible characters are letters
    (tables, markup, formulas).
    """
    share = prose_share(text)
    if kind == CODE:
        return NATURAL_LANGUAGE if share >= MOSTLY_PROSE else CODE if share <= HARDLY_PROSE else None
    visible = [character for character in text if not character.isspace()]
    return CODE if share == 0 and sum(map(str.isalpha, visible)) <= len(visible) / 2 else NATURAL_LANGUAGE


def draw(code: Documents, prose: Documents, rows: int, seed: int, relabel: bool = True) -> Passages:
    """Draw equally many passages of code and natural language, from each source of a kind equally often.

    Args:
        code: sources of code.
        prose: sources of natural language.
        rows: number of passages.
        seed: random seed.
        relabel: whether to label passages with `label_of`; otherwise each gets its document's kind, as in the reference.

    Raises:
        MemtaxError: a kind has no documents.
    """
    for name, sources in (("code", code), ("natural language", prose)):
        if not any(any(text.strip() for text in texts) for texts in sources.values()):
            raise MemtaxError(f"there is no document of {name} to train on; give a source of each kind")
    generator = random.Random(seed)  # noqa: S311 - for sampling, not for secrets
    kinds = [[texts for _, texts in sorted(sources.items()) if len(texts)] for sources in (prose, code)]
    texts: list[str] = []
    labels: list[int] = []
    documents: list[int] = []
    numbers: dict[tuple[int, int, int], int] = {}
    wanted = [rows - rows // 2, rows // 2]
    relabeled = left_out = 0
    for _ in range(200 * rows + 1000):
        if len(texts) == rows:
            return Passages(texts, labels, relabeled, left_out, documents)
        kind = generator.randrange(2)
        source = generator.choice(range(len(kinds[kind])))
        place = generator.choice(range(len(kinds[kind][source])))
        text = _cut(kinds[kind][source][place], generator)
        label = label_of(text, kind) if relabel else kind
        if not text.strip() or label is None:
            left_out += 1
        elif wanted[label]:
            wanted[label] -= 1
            relabeled += label != kind
            texts.append(text)
            labels.append(label)
            documents.append(numbers.setdefault((kind, source, place), len(numbers)))
    missing = LABELS[wanted.index(max(wanted))]
    raise MemtaxError(f"hardly any passage of the documents is {missing}; add sources of it, or turn relabelling off")


def _cut(text: str, generator: random.Random) -> str:
    """A passage from a random position of a text."""
    length = generator.randint(SHORTEST, LONGEST)
    start = generator.randrange(max(1, len(text) - length))
    return text[start : start + length]


def read_domains(folder: Path | str) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Code and prose documents from a folder of JSON lines named by domain, such as MIMIR's `github.member.jsonl`.

    Files with labels, and files in hidden folders, are skipped.

    Returns:
        Sources of code and sources of natural language, by domain.

    Raises:
        MemtaxError: the folder does not exist or lacks a kind.
    """
    folder = Path(folder)
    code: dict[str, list[str]] = {}
    prose: dict[str, list[str]] = {}
    for path in sorted(folder.rglob("*.jsonl")):
        domain = path.name.split(".")[0]
        if "label" in path.name or domain in LEFT_OUT:
            continue
        (code if domain in CODE_DOMAINS else prose).setdefault(domain, []).extend(read_texts(str(path)))
    if not code or not prose:
        raise MemtaxError(
            f"{folder} must contain JSON lines named by domain, code ({', '.join(CODE_DOMAINS)}) and prose (any other name); "
            f"found: {', '.join([*code, *prose]) or 'none'}"
        )
    return code, prose


def read_texts(source: str, limit: int | None = None, seed: int = 0, buffer: int = BUFFER) -> list[str]:
    """Texts of a dataset at a local path, or streamed from the Hub.

    Args:
        source: the dataset.
        limit: maximum number of texts, sampled at random (from a stream: shuffled shards and a buffer); None takes all.
        seed: random seed of the sample.
        buffer: size of the shuffle buffer, in documents.

    Raises:
        MemtaxError: the dataset cannot be read, or has no column of text.
    """
    parsed = Source.parse(source)
    local = Path(parsed.path).expanduser().exists()
    rows: Any = open_dataset(parsed if local else Source.parse(source, streaming=True))
    names = list(rows.column_names or next(iter(rows)))
    column = next((name for name in TEXT_COLUMNS if name in names), None)
    if column is None:
        raise MemtaxError(f"{source} has no column of text ({', '.join(TEXT_COLUMNS)}); its columns are: {', '.join(names)}")
    rows = rows.select_columns([column])
    if limit is not None:
        rows = rows.shuffle(seed=seed) if local else rows.shuffle(seed=seed, buffer_size=buffer)
    return list(islice((row[column] for row in rows if row[column]), limit))


def text_at_hand(seed: int, per_kind: int = 40) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Code and prose available in every installation: the standard library, and files of installed packages.

    Args:
        seed: random seed for sampling files.
        per_kind: maximum number of files per extension; ten times as many for the standard library.

    Returns:
        Sources of code (by file extension) and of natural language (licenses, descriptions, documentation).
    """
    generator = random.Random(seed)  # noqa: S311
    paths = {name: Path(sysconfig.get_paths()[name]) for name in ("stdlib", "purelib")}
    library = [path for path in paths["stdlib"].rglob("*.py") if "site-packages" not in path.parts]
    groups: dict[tuple[str, str], list[Path]] = {}
    for path in paths["purelib"].rglob("*"):
        if path.name.upper().startswith(_PROSE_NAMES):
            groups.setdefault(("prose", "licenses and descriptions"), []).append(path)
        for kind, endings in _FILES.items():
            if path.suffix.lower() in endings:
                groups.setdefault((kind, path.suffix.lower()), []).append(path)
    found: dict[str, dict[str, list[str]]] = {"code": {}, "prose": {}}
    found["code"]["standard library"] = _sample(library, 10 * per_kind, generator)
    topics = paths["stdlib"] / "pydoc_data" / "topics.py"
    if topics.is_file():
        found["prose"]["language reference"] = _sample([topics], 1, generator)
    for (kind, name), files in sorted(groups.items()):
        found[kind][name] = _sample(files, per_kind * (4 if kind == "prose" else 1), generator)
    # Files with rare extensions would be sampled over and over, so they share one source.
    rare = [name for name, texts in found["code"].items() if len(texts) < per_kind]
    found["code"]["other"] = [text for name in rare for text in found["code"].pop(name)]
    return found["code"], found["prose"]


def _sample(files: Iterable[Path], most: int, generator: random.Random) -> list[str]:
    """Texts of a sample of the files, at most 200,000 characters each."""
    files = sorted(files)
    generator.shuffle(files)
    return list(islice(_readable(files), most))


def _readable(files: Iterable[Path]) -> Iterator[str]:
    for file in files:
        try:
            text = file.read_text(encoding="utf-8")[:200_000]
        except (OSError, UnicodeDecodeError):
            continue
        if len(text) > SHORTEST:
            yield text
