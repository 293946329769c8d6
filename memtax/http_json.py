"""Requests to a server that answers with JSON: repeated politely when it fails, and several at a time."""

import itertools
import json
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, TypeVar

from memtax.errors import MemtaxError

if TYPE_CHECKING:
    import httpx

Q = TypeVar("Q")
A = TypeVar("A")

ATTEMPTS = 6
FIRST_DELAY = 0.5
"""Seconds before the second attempt; doubled for each further one."""
_LONGEST_DELAY = 60.0


class RefusedError(MemtaxError):
    """The server understood the request and refused it; asking again would not help.

    Args:
        status: the HTTP status.
        text: what the server said, on one line.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"status {status}" + (f": {text}" if text else ""))
        self.status, self.text = status, text


class UnansweredError(MemtaxError):
    """No attempt had a valid answer."""


def request(client: "httpx.Client", address: str, body: Any, read: Callable[[bytes], tuple[A | None, str]]) -> A:
    """Post JSON and read the answer; connection faults, statuses 429 and 5xx, and invalid answers are tried again.

    Args:
        client: the connection.
        address: the address; asked with GET if `body` is None.
        body: the content.
        read: the valid answer in the bytes, or None and what is wrong with them.

    Raises:
        RefusedError: another status than 200.
        UnansweredError: after `ATTEMPTS` attempts, with the last reason.
    """
    import httpx

    delay, reason = FIRST_DELAY, ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 - spreads requests, protects nothing
            delay = min(2 * delay, _LONGEST_DELAY)
        try:
            response = client.get(address) if body is None else client.post(address, json=body)
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            continue
        if response.status_code == 429 or response.status_code >= 500:
            reason = f"status {response.status_code}"
            wait = response.headers.get("Retry-After", "")
            delay = max(delay, min(float(wait), _LONGEST_DELAY)) if wait.isdigit() else delay
            continue
        if response.status_code != 200:
            raise RefusedError(response.status_code, " ".join(response.text.split())[:200])
        answer, reason = read(response.content)
        if answer is not None:
            return answer
    raise UnansweredError(reason)


def ask_all(ask: Callable[[Q], A], queries: Sequence[Q], workers: int, receive: Callable[[int, A], None]) -> MemtaxError | None:
    """Ask several queries at a time.

    Args:
        ask: called in a thread for each query.
        queries: what to ask.
        workers: concurrent calls.
        receive: called in this thread with the query's number and its answer, in any order.

    Returns:
        The first failure: the queries not yet begun are then left out, and answers under way are still received.
    """
    failure: MemtaxError | None = None
    waiting = iter(enumerate(queries))
    under_way: dict[Future[A], int] = {}
    with ThreadPoolExecutor(workers) as pool:
        try:
            while True:
                # A query begins only when an answer has been received, so that a kill loses no more than those under way.
                for number, query in itertools.islice(waiting, workers - len(under_way) if failure is None else 0):
                    under_way[pool.submit(ask, query)] = number
                if not under_way:
                    return failure
                for done in wait(under_way, return_when=FIRST_COMPLETED).done:
                    number, error = under_way.pop(done), done.exception()
                    if error is None:
                        receive(number, done.result())
                    elif not isinstance(error, MemtaxError):
                        raise error
                    else:
                        failure = failure or error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def read_object(content: bytes) -> tuple[dict[str, Any] | None, str]:
    """The JSON object of an answer, or None and what is wrong with it."""
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        return None, "the answer is not JSON"
    return (answer, "") if isinstance(answer, dict) else (None, "the answer is not an object")


def error_of(answer: dict[str, Any]) -> str:
    """The server's own words about a failure, on one line."""
    return " ".join(str(answer["error"]).split())[:200]
