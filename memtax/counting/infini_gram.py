"""Counts from indexes of infini-gram (Liu et al., arXiv 2401.17377) and infini-gram mini (Xu et al., arXiv 2506.12229).

`infini-gram:INDEX` is an index of the web API, `infini-gram:INDEX@ADDRESS` the same at another address, and
`infini-gram:FOLDER` an index on this disk, read by the package `infini-gram`. Windows are asked for by their tokens if the
index was made with the same tokenizer (its own answer shows that), and by their text otherwise. `infini-gram-mini:INDEX` is
an index of text, and is asked by text only; its counts are exact. Answers are cached, so nothing is asked for twice.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from memtax import http_json
from memtax.corpus.columns import decode
from memtax.counting.answer_cache import Answer, AnswerCache, digest
from memtax.counting.count_tables import INDEX_PREFIX, MINI_PREFIX
from memtax.errors import MemtaxError
from memtax.extras import explained
from memtax.progress import progress_bar

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ADDRESS = "https://api.infini-gram.io/"
MINI_ADDRESS = "https://api.infini-gram-mini.io/"
REQUESTS = 8
"""Concurrent requests; the API's documentation allows any number."""
PROBES = 3
"""Texts whose tokens are compared with those of the index."""


@dataclass(frozen=True)
class IndexCounts:
    """Counts of windows.

    Attributes:
        counts: occurrences of each window; None where the index could not be asked.
        asked_by: `tokens` or `text`.
        approximate: number of windows whose count is an approximation.
    """

    counts: list[int | None]
    asked_by: Literal["tokens", "text"]
    approximate: int

    @property
    def not_counted(self) -> int:
        """Windows without a count."""
        return sum(count is None for count in self.counts)

    def figures(self, source: str) -> dict[str, Any]:
        """What a record says about the counts."""
        return {
            "source": source,
            "asked_by": self.asked_by,
            "approximate": self.approximate,
            "not_counted": self.not_counted,
        }


def count_windows(name: str, windows: npt.NDArray[np.int32], tokenizer: "PreTrainedTokenizerBase") -> IndexCounts:
    """Count windows in an index.

    Args:
        name: `infini-gram:` and an index, as in the module's description.
        windows: shape (windows, tokens), ids of `tokenizer`.
        tokenizer: the tokenizer of the windows.

    Raises:
        MemtaxError: the index cannot be reached or read; counts that were received are kept.
    """
    distinct, back = np.unique(windows, axis=0, return_inverse=True)
    prefix = MINI_PREFIX if name.startswith(MINI_PREFIX) else INDEX_PREFIX
    place = name.removeprefix(prefix)
    folder = Path(os.path.expanduser(place))
    if folder.is_dir() and prefix == MINI_PREFIX:
        raise MemtaxError(f"{name}: an index of infini-gram mini on this disk is not read; give {prefix}INDEX for the web API")
    if folder.is_dir():
        answers: list[Answer | None] = _count_locally(folder, distinct, tokenizer)
        asked_by: Literal["tokens", "text"] = "tokens"
    else:
        index, _, address = place.partition("@")
        if not index or "/" in index:
            raise MemtaxError(f"{name}: there is no folder {folder}, and an index of the API has no '/' in its name")
        with _connect(prefix, index, address) as api:
            asked_by, answers = _count_remotely(api, distinct, tokenizer)
    every = [answers[at] for at in back.reshape(-1)]
    counts = [None if answer is None else answer[0] for answer in every]
    return IndexCounts(counts, asked_by, sum(answer is not None and answer[1] for answer in every))


def _count_locally(folder: Path, windows: npt.NDArray[np.int32], tokenizer: "PreTrainedTokenizerBase") -> list[Answer | None]:
    with explained():
        from infini_gram.engine import InfiniGramEngine
    size = len(tokenizer)
    end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else 0
    engine = InfiniGramEngine(
        index_dir=str(folder), eos_token_id=end, vocab_size=max(size, end + 1), token_dtype="u16" if size < 2**16 else "u32"
    )
    answers: list[Answer | None] = []
    with progress_bar("counting in the index", len(windows), "windows") as bar:
        for window in windows.tolist():
            found = engine.count(input_ids=window)
            if "count" not in found:
                raise MemtaxError(f"{folder}: {found.get('error', found)}")
            answers.append((int(found["count"]), bool(found.get("approx", False))))
            bar.update(1)
    if len(windows) and not any(engine.count(input_ids=[int(token)])["count"] for token in windows[:1000, 0]):
        raise MemtaxError(
            f"no first token of a window occurs in {folder}; was it made with the tokenizer {tokenizer.name_or_path}?"
        )
    return answers


@dataclass(frozen=True)
class _Api:
    index: str
    address: str
    client: Any
    has_tokens: bool
    """Whether the index consists of tokens; otherwise of text, without operators in queries."""

    def ask(self, query: dict[str, Any]) -> dict[str, Any]:
        """The answer to a count query.

        Raises:
            MemtaxError: after several attempts, or if the request itself is refused.
        """
        body = {"index": self.index, "query_type": "count", **query}
        try:
            return http_json.request(self.client, self.address, body, _read)
        except http_json.RefusedError as error:
            raise MemtaxError(f"{self.address} refused the request for {self.index}: status {error.status}") from error
        except http_json.UnansweredError as error:
            attempts = f"{http_json.ATTEMPTS} attempts"
            raise MemtaxError(f"{self.address} gave no count for the index {self.index} in {attempts}: {error}") from error


def _read(content: bytes) -> tuple[dict[str, Any] | None, str]:
    """The valid answer, or None and what is wrong with it."""
    answer, wrong = http_json.read_object(content)
    if answer is None:
        return None, wrong
    if "error" in answer:
        return None, http_json.error_of(answer)
    count = answer.get("count")
    if type(count) is not int or not 0 <= count < 2**62:
        return None, f"the answer has the count {count!r}"[:200]
    return answer, ""


@contextlib.contextmanager
def _connect(prefix: str, index: str, address: str) -> Iterator[_Api]:
    import httpx
    from huggingface_hub import constants

    address = address or (MINI_ADDRESS if prefix == MINI_PREFIX else ADDRESS)
    host = urlsplit(address).hostname
    if host is None or urlsplit(address).scheme not in ("http", "https"):
        raise MemtaxError(f"{address} is not an http address; write {prefix}{index}@http://host:port/")
    if constants.HF_HUB_OFFLINE and host not in ("127.0.0.1", "localhost", "::1"):
        raise MemtaxError(f"{prefix}{index} needs {host}, and HF_HUB_OFFLINE is set; unset it, or give counts made before")
    with httpx.Client(timeout=60.0) as client:
        yield _Api(index, address, client, prefix == INDEX_PREFIX)


def _count_remotely(
    api: _Api, windows: npt.NDArray[np.int32], tokenizer: "PreTrainedTokenizerBase"
) -> tuple[Literal["tokens", "text"], list[Answer | None]]:
    texts = decode(tokenizer, windows)
    usable = [_is_plain(text, api.has_tokens) for text in texts]
    with contextlib.closing(_cache_of(api)) as cache:
        plain = [text for text, use in zip(texts, usable, strict=True) if use]
        same = api.has_tokens and _has_tokenizer(api, cache, plain, tokenizer)
        queries: list[dict[str, Any] | None]
        if same:
            queries = [{"query_ids": window} for window in windows.tolist()]
        else:
            queries = [{"query": text} if use else None for text, use in zip(texts, usable, strict=True)]
        answers = [None if query is None else cache.get(query) for query in queries]
        missing = [(at, query) for at, query in enumerate(queries) if query is not None and answers[at] is None]
        with progress_bar("counting in the index", len(missing), "windows") as bar:

            def receive(number: int, answer: dict[str, Any]) -> None:
                at, query = missing[number]
                answers[at] = _count_of(answer)
                cache.put(query, _count_of(answer))
                bar.update(1)

            failure = http_json.ask_all(api.ask, [query for _, query in missing], REQUESTS, receive)
    if failure is not None:
        kept = sum(answer is not None for answer in answers)
        raise MemtaxError(f"{failure}; {kept:,} of {len(answers):,} counts are kept for the next attempt") from failure
    return "tokens" if same else "text", answers


def _is_plain(text: str, has_operators: bool = True) -> bool:
    """Whether a text can be asked for: AND and OR are operators of the API of tokens, and a cut character is no text."""
    operators = has_operators and (" AND " in text or " OR " in text)
    return bool(text.strip()) and "\ufffd" not in text and not operators


def _has_tokenizer(api: _Api, cache: AnswerCache, texts: list[str], tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Whether the index splits texts into the same tokens."""
    probes = texts[:: max(1, len(texts) // PROBES)][:PROBES]
    ours = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in probes]
    return bool(probes) and all(_splits_alike(api, cache, text, ids) for text, ids in zip(probes, ours, strict=True))


def _splits_alike(api: _Api, cache: AnswerCache, text: str, ids: list[int]) -> bool:
    query, split = {"query": text}, {"query": text, "token_ids": ids}
    known = cache.get(split)
    if known is None:
        answer = api.ask(query)
        known = (int(answer.get("token_ids") == ids), False)
        cache.put(query, _count_of(answer))
        cache.put(split, known)
    return bool(known[0])


def _count_of(answer: dict[str, Any]) -> Answer:
    return int(answer["count"]), bool(answer.get("approx", False))


def _cache_of(api: _Api) -> AnswerCache:
    from datasets.config import HF_DATASETS_CACHE

    return AnswerCache(Path(HF_DATASETS_CACHE) / "memtax" / "infini-gram" / f"{digest([api.address, api.index])}.sqlite")
