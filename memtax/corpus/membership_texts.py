"""Texts that a model was or was not trained on: local files and folders, WikiMIA, MIMIR."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from memtax import schema
from memtax.corpus import formats
from memtax.corpus.conversations import SCORED, row_shape
from memtax.corpus.sources import Source, open_dataset, reading, split_name
from memtax.errors import MemtaxError
from memtax.files import visible_files
from memtax.progress import say, skipped

COLUMNS = ("sequence_id", "domain", "document", "is_member", "text", "tokens", "chunk_start", "chunk_end")
TEXT_COLUMNS = ("text", "input", "content", "snippet")
TOKEN_COLUMNS = ("tokens", "input_ids", "Tokens")
LABEL_COLUMNS = ("is_member", "label", "member", "membership")
DOCUMENT_COLUMNS = ("document", "document_id", "doc_id")
"""Columns that name a row's document, in order of preference; rows of one document are one unit of evidence."""
CHUNK_WORDS = 32
"""Words per chunk in WikiMIA_concat, where each label is a list with one entry per chunk."""

MIMIR = "iamgroot42/mimir"
_MIMIR_SPLIT = "ngram_13_0.8"

_ENDING = re.compile(rf"({'|'.join(map(re.escape, (*formats.READERS, *formats.COMPRESSED)))})+$")
_ROLE = re.compile(r"(?<![a-z])(non[-_ ]?members?|members?|train|test)(?![a-z])", re.IGNORECASE)
_NO_DOMAIN = "all"
_TEMPLATED = b"memtax.templated"

Row = dict[str, Any]


def load_membership(
    data: str | None = None,
    *,
    members: str | None = None,
    nonmembers: str | None = None,
    column: str | None = None,
    chunk_words: int | None = None,
    tokenizer: Callable[[], Any] | None = None,
) -> pa.Table:
    """Read members and non-members from one labeled source, or from two separate sources.

    Args:
        data: a folder with a file of members and one of non-members for each domain (`github.member.jsonl` and
            `github.nonmember.jsonl`, `github/train_text.jsonl` and `github/test_text.jsonl`, MIMIR's `train/` and `test/`), a
            table with a label column (WikiMIA's `input` and `label`) or with the columns `member` and `nonmember`, or a name
            on the Hub: `swj0419/WikiMIA::WikiMIA_length64`, `iamgroot42/mimir:github:ngram_13_0.8`.
        members: instead of `data`, a source of members only.
        nonmembers: with `members`, a source of non-members only.
        column: the column of text or tokens, or several text columns as `question,answer`; None looks for a usual name.
        chunk_words: cut every text into chunks of this many words; each is scored in context, after the preceding text.
        tokenizer: loads the tokenizer with the chat template, if the sources hold conversations.

    Returns:
        The `COLUMNS`. Text or tokens are null if the source has none, the document is null if no column of
        `DOCUMENT_COLUMNS` exists, and chunk boundaries are null for whole texts. Chunk rows also contain the whole text. Of
        conversations, `text` and `tokens` are the whole conversation as the chat template writes it, and `scored_tokens` says
        which tokens the assistant wrote.

    Raises:
        MemtaxError: there is no usable data, a class is missing, or all texts of a class are in the other one too.
    """
    if (data is None) == (members is None and nonmembers is None):
        raise MemtaxError("give one labeled source, or one of members and one of non-members")
    if chunk_words is not None and chunk_words < 1:
        raise MemtaxError(f"a chunk must have at least 1 word, got {chunk_words}")
    if data is not None:
        rows = list(_labeled(data, column))
    elif members is None or nonmembers is None:
        raise MemtaxError(f"only {members or nonmembers} is given; give both members and non-members")
    else:
        rows = [*_plain(members, True, _NO_DOMAIN, column), *_plain(nonmembers, False, _NO_DOMAIN, column)]
        _note_documents([members, nonmembers] if chunk_words is None else [])
    if any("shape" in row for row in rows):
        if chunk_words is not None:
            raise MemtaxError("conversations are not cut into chunks; leave --chunk-words out")
        from memtax.corpus import membership_chats

        rows = membership_chats.encode(rows, tokenizer)
    _check_kinds(rows, data or f"{members} and {nonmembers}")
    rows = [part for row in rows for part in _chunks(row, chunk_words)]
    for kind, name in ((True, "members"), (False, "non-members")):
        if not any(row["is_member"] is kind for row in rows):
            raise MemtaxError(f"{data or members} has no {name}; both members and non-members are needed")
    for number, row in enumerate(rows):
        row["sequence_id"] = number
    with reading(data or f"{members} or {nonmembers}"):
        names = (*COLUMNS, SCORED) if rows[0].get(SCORED) is not None else COLUMNS
        table = pa.Table.from_pylist(rows, schema=schema.arrow_schema(names))
    templated = SCORED in names and rows[0]["shape"].templated
    return table.replace_schema_metadata({_TEMPLATED: "yes"}) if templated else table


def _note_documents(names: Iterable[str]) -> None:
    for name in names:
        if formats.extension(Path(name)) == ".txt" and Path(name).expanduser().is_file():
            say(f"{name} is one text: a .txt file is a document; --chunk-words cuts it into passages to compare")


def is_templated(texts: pa.Table) -> bool:
    """Whether texts from `load_membership` are messages that a chat template rendered, with BOS where it writes one."""
    return _TEMPLATED in (texts.schema.metadata or {})


def _check_kinds(rows: Iterable[Row], what: str) -> None:
    """Check that each class has a text that the other lacks; chunks of one text may belong to both classes.

    Raises:
        MemtaxError: all texts of a class are in the other one too, for example because the same file was given twice.
    """
    kinds: dict[bool, set[Any]] = {True: set(), False: set()}
    for row in rows:
        place = (row["chunk_start"], row["chunk_end"])
        kinds[row["is_member"]].add((row["text"] if row["text"] is not None else tuple(row["tokens"] or ()), place))
    shared = kinds[True] & kinds[False]
    for kind, name, other in ((True, "members", "non-members"), (False, "non-members", "members")):
        if shared and shared == kinds[kind]:
            raise MemtaxError(
                f"{what}: all {len(shared):,} texts of the {name} are also among the {other}; give {other} with other texts"
            )


def load_texts(data: str, *, column: str | None = None, answers: bool = False) -> pa.Table:
    """Read texts: labeled ones as in `load_membership`, or any source with a text column.

    Args:
        data: the source.
        column: as in `load_membership`.
        answers: read each answer of conversations as a text; otherwise they are refused.

    Returns:
        `sequence_id`, `domain`, `document` (null if unknown), `text` and, if known for every row, `is_member`.

    Raises:
        MemtaxError: there is no usable data, or no row has text.
    """
    path = Path(split_name(data)[0]).expanduser()
    if split_name(data)[0] == MIMIR or (path.is_dir() and _pairs(path)):
        rows = list(_labeled(data, column))
    else:
        rows = []
        for row in _read(data, column):
            label = next((row[name] for name in LABEL_COLUMNS if name in row and row[name] in (0, 1)), None)
            if "nonmember" in row and "member" in row:
                rows += _labeled_row(row, column, data)
            else:
                rows.append({**_content(row, column, data), "is_member": label, "domain": str(row.get("domain") or _NO_DOMAIN)})
    if any("shape" in row for row in rows):
        if not answers:
            raise MemtaxError(f"{data} holds conversations, which are not read here; give its texts with --column")
        from memtax.corpus import membership_chats

        rows = membership_chats.answers(rows, data)
    if not any(row["text"] is not None for row in rows):
        reason = "holds tokens, and texts are needed" if any(row["tokens"] is not None for row in rows) else "has no text"
        raise MemtaxError(f"{data} {reason}; give its column of text with --column")
    skipped(sum(not (row["text"] or "").strip() for row in rows), f"without text, in {data}; values computed from it are null")
    names = ["sequence_id", "domain", "document", "text"]
    names += ["is_member"] if all(row["is_member"] is not None for row in rows) else []
    found = [{**row, "sequence_id": number, "is_member": bool(row["is_member"])} for number, row in enumerate(rows)]
    with reading(data):
        return pa.Table.from_pylist(found, schema=schema.arrow_schema(names))


def load_neighbours(name: str, texts: pa.Table, *, column: str | None = None) -> pa.Table:
    """Texts with perturbed versions of each, as published by Zhang et al. for the neighborhood attack.

    Args:
        name: a source with the same number of perturbed versions for every text, grouped by text:
            `zjysteven/WikiMIA_paraphrased_perturbed::WikiMIA_length64_perturbed` for `swj0419/WikiMIA::WikiMIA_length64`.
        texts: whole texts, from `load_membership`.
        column: the column of text; None looks for a usual name.

    Returns:
        The texts with a column `neighbour_texts`.

    Raises:
        MemtaxError: the number of rows is not a multiple of the number of texts, a label differs, or the texts are chunks.
    """
    if texts.column("chunk_start").null_count < len(texts):
        raise MemtaxError(f"{name} has neighbours of whole texts; leave --chunk-words out")
    found: list[str | None] = []
    labels = []
    for row in _read(name, column):
        found.append(_content(row, column, name)["text"])
        labels.append(next((row[each] for each in LABEL_COLUMNS if each in row), None))
    count, left = divmod(len(found), len(texts))
    if left or not count:
        raise MemtaxError(
            f"{name} has {len(found):,} rows, which is not a multiple of the {len(texts):,} texts; was it made from others?"
        )
    members = texts.column("is_member").to_pylist()
    for place, label in enumerate(labels):
        if label is not None and bool(label) is not members[place // count]:
            raise MemtaxError(f"row {place} of {name} has the label {label}, unlike its text; the rows are in another order")
    groups = [[text for text in found[start : start + count] if text is not None] for start in range(0, len(found), count)]
    return texts.append_column("neighbour_texts", pa.array(groups, pa.list_(pa.string())))


def _labeled(data: str, column: str | None) -> Iterator[Row]:
    path = Path(split_name(data)[0]).expanduser()
    pairs = _pairs(path) if path.is_dir() else {}
    if not pairs and split_name(data)[0] == MIMIR:
        pairs = {split_name(data)[1] or _NO_DOMAIN: _mimir(data)}
    for domain, (member, nonmember) in pairs.items():
        yield from _plain(str(member), True, domain, column)
        yield from _plain(str(nonmember), False, domain, column)
    if not pairs:
        for row in _read(data, column):
            yield from _labeled_row(row, column, data)


def _pairs(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Domain to its two files, whose paths differ only in the word for member or non-member."""
    found: dict[str, dict[bool, Path]] = {}
    for file in visible_files(folder):
        name = file.relative_to(folder).as_posix()
        role = _ROLE.search(name)
        if role:
            rest = _ENDING.sub("", name[: role.start()] + "\0" + name[role.end() :])
            parts = [part.strip("._- ") for part in re.split(r"[/\0]", rest)]
            domain = "/".join(part for part in parts if part not in ("", "text", "data")) or _NO_DOMAIN
            kind = role[0].lower().startswith(("member", "train"))
            if kind in found.setdefault(domain, {}):
                raise MemtaxError(f"{found[domain][kind]} and {file} are both of domain {domain!r}; rename one")
            found[domain][kind] = file
    return {domain: (two[True], two[False]) for domain, two in found.items() if len(two) == 2}


def _mimir(name: str) -> tuple[Path, Path]:
    """The two data files of a MIMIR domain; they are read directly because `datasets` no longer runs its loading script."""
    from huggingface_hub import hf_hub_download

    _, domain, split = split_name(name)
    if domain is None:
        raise MemtaxError(f"{name} needs a domain: {MIMIR}:github or {MIMIR}:github:{_MIMIR_SPLIT}")
    # The files of the whole Pile have more rows and no splits by n-gram overlap.
    folder, file = ("cache_100_200_10000_512", domain) if domain == "full_pile" else ("cache_100_200_1000_512", "")
    file = file or f"{domain}_{split or _MIMIR_SPLIT}"
    with reading(name):
        found = [hf_hub_download(MIMIR, f"{folder}/{kind}/{file}.jsonl", repo_type="dataset") for kind in ("train", "test")]
    return Path(found[0]), Path(found[1])


def _plain(name: str, is_member: bool, domain: str, column: str | None) -> Iterator[Row]:
    """Rows of a source that has members only or non-members only."""
    for row in _read(name, column):
        yield {**_content(row, column, name), "is_member": is_member, "domain": str(row.get("domain") or domain)}


def _labeled_row(row: Mapping[str, Any], column: str | None, what: str) -> Iterator[Row]:
    domain = str(row.get("domain") or _NO_DOMAIN)
    if "nonmember" in row and "member" in row:
        # One column per class; the shorter one ends in nulls.
        for name, kind in (("member", True), ("nonmember", False)):
            if row[name] is not None:
                yield {**_content({"text": row[name]}, None, what), "is_member": kind, "domain": domain}
        return
    label = next((row[name] for name in LABEL_COLUMNS if name in row), None)
    if label is None:
        raise MemtaxError(
            f"{what} has no label ({', '.join(LABEL_COLUMNS)}), only: {', '.join(row)}. Give members and non-members separately"
        )
    content = _content(row, column, what)
    if isinstance(label, list):
        yield from _chunks({**content, "domain": domain, "is_member": None}, CHUNK_WORDS, labels=label)
    elif label not in (0, 1):
        raise MemtaxError(f"the label {label!r} in {what} is neither 1 (member) nor 0")
    else:
        yield {**content, "is_member": bool(label), "domain": domain}


def _content(row: Mapping[str, Any], column: str | None, what: str) -> Row:
    """Text and tokens of a row, without the padding that its attention mask marks; a conversation is kept as it is."""
    names = (column,) if column else (*TOKEN_COLUMNS, *TEXT_COLUMNS)
    document = next((row[name] for name in DOCUMENT_COLUMNS if row.get(name) is not None), None)
    found: Row = {"text": None, "tokens": None, "chunk_start": None, "chunk_end": None}
    found["document"] = None if document is None else str(document)
    if (shape := row_shape(row, column, (*TOKEN_COLUMNS, *TEXT_COLUMNS))) is not None:
        return {**found, "row": row, "shape": shape, "source": what}
    for name in names:
        value = row.get(name)
        if isinstance(value, str) and found["text"] is None:
            found["text"] = value
        elif isinstance(value, list) and found["tokens"] is None:
            if not all(isinstance(token, int) for token in value):
                raise _wrong_type(f"lists of {type(value[0]).__name__}", name, what)
            mask = row.get("attention_mask") or [1] * len(value)
            found["tokens"] = [token for token, kept in zip(value, mask, strict=False) if kept]
        elif value is not None and not isinstance(value, (str, list)):
            raise _wrong_type(type(value).__name__, name, what)
    if found["text"] is None and found["tokens"] is None and not any(name in row for name in names):
        raise MemtaxError(f"{what} has no column of text or tokens ({', '.join(names)}); its columns are: {', '.join(row)}")
    return found


def _wrong_type(kind: str, column: str, what: str) -> MemtaxError:
    return MemtaxError(f"column {column!r} of {what} holds {kind}; texts are strings, and tokens lists of integers")


def _chunks(row: Row, words: int | None, labels: list[int] | None = None) -> Iterator[Row]:
    """The row, or one row per whole chunk of its text. Words are separated by single spaces, as in WikiMIA_concat."""
    if words is None or row["chunk_start"] is not None or row["text"] is None:
        yield row
        return
    pieces = row["text"].split(" ")
    start = 0
    for number in range(len(pieces) // words):
        if labels is not None and number >= len(labels):
            return
        end = start + len(" ".join(pieces[number * words : (number + 1) * words]))
        is_member = row["is_member"] if labels is None else bool(labels[number])
        yield {**row, "is_member": is_member, "chunk_start": start, "chunk_end": end}
        start = end + 1


def _read(name: str, column: str | None) -> Iterable[Mapping[str, Any]]:
    """Rows of any source."""
    source = Source.parse(name, column=column)
    dataset = open_dataset(source)
    with reading(source.label):
        yield from dataset
