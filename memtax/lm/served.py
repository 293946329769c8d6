"""A model behind an OpenAI-compatible server (vLLM, SGLang, llama-cpp-python), used like a loaded model for scoring.

The server is asked for one completion of one token per sequence; its answer holds the log-probabilities of the prompt. The
tokens are sent as ids, or as text if the server takes text only. Before the first sequence a self-check finds out which
form of answer the server has, and refuses a server whose log-probabilities are not those of the tokens sent.
"""

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from memtax import credentials, http_json
from memtax.errors import ModelError, RowError
from memtax.lm.loading import load_tokenizer
from memtax.lm.served_answers import Answer, UnusableError, choice_of, read_echo, read_prompt_logprobs
from memtax.lm.served_names import Served, parse
from memtax.lm.special_tokens import BosIds, bos_of, position_limit, set_bos, with_bos

KEY = "OPENAI_API_KEY"
"""Environment variable that holds the server's key."""
REQUESTS = 16
"""Concurrent requests, unless `--batch-size` says otherwise."""
TIMEOUT = 600.0
"""Seconds that a busy server may take for one request."""

Form = Literal["prompt_logprobs", "echo", "echo of text"]
FORMS: tuple[Form, ...] = ("prompt_logprobs", "echo", "echo of text")
"""Forms of asking and answering, in order of preference."""


@dataclass(eq=False)
class ServedModel(Served):
    """A served model that passed the self-check.

    Attributes:
        name: name as in `memtax.lm.served_names`.
        tokenizer: the tokenizer of the sequences.
        form: how the server is asked.
        limit: maximum tokens of a prompt; None if neither the server nor the configuration beside the tokenizer says.
        requests: concurrent requests.
    """

    name: str
    tokenizer: Any
    form: Form = "echo"
    limit: int | None = None
    requests: int = REQUESTS
    client: Any = field(default=None, repr=False)

    @property
    def config(self) -> Any:
        """A configuration that holds the number of positions."""
        from transformers import PretrainedConfig

        return PretrainedConfig(max_position_embeddings=self.limit)

    @property
    def vocabulary(self) -> int:
        """Number of ids of the tokenizer."""
        return len(self.tokenizer)

    @property
    def sends_text(self) -> bool:
        """Whether the server is asked by text."""
        return self.form == "echo of text"

    def text_of(self, ids: Sequence[int]) -> str | None:
        """The text that a tokenizer turns into these ids; None if there is none, as for half of a character."""
        text = str(self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))
        return text if list(self.tokenizer(text, add_special_tokens=False)["input_ids"]) == list(ids) else None

    def ask(self, ids: Sequence[int], generate: int = 1, seed: int | None = None) -> Answer | None:
        """Log-probabilities of a sequence, with BOS before it; None if it cannot be asked for by text.

        Args:
            ids: tokens, without BOS unless they start with it.
            generate: tokens to generate: the most likely ones without a seed, sampled ones with it.
            seed: seed of sampling.

        Raises:
            UnusableError: the answer does not hold the values of these tokens.
            RefusedError: the server refused the request.
            UnansweredError: the server gave no valid answer.
        """
        bos = bos_of(self)
        sent = list(with_bos(ids, bos))
        prompt: Any = self.text_of(sent[len(bos) :]) if self.sends_text else sent
        if prompt is None:
            return None
        body = {"model": parse(self.name).model, "prompt": prompt, "max_tokens": generate, "temperature": 0.0, "logprobs": 1}
        if seed is not None:
            body |= {"temperature": 1.0, "top_p": 1.0, "seed": seed}
        if self.form == "prompt_logprobs":
            body |= {"prompt_logprobs": 1, "return_tokens_as_token_ids": True}
        else:
            body |= {"echo": True} | ({} if self.sends_text else {"return_tokens_as_token_ids": True})
        choice = http_json.request(self.client, f"{parse(self.name).address}/completions", body, choice_of)
        if self.form == "prompt_logprobs":
            return read_prompt_logprobs(choice, sent)
        return read_echo(choice, sent, len(bos), self.tokenizer)

    def score(self, sequences: Sequence[Sequence[int]]) -> dict[str, Any]:
        """Values of the tokens after the first of every sequence, asked for once per distinct sequence.

        Returns:
            Fields of `memtax.lm.scores.TokenScores`.

        Raises:
            RowError: the server refuses a sequence, or its answer does not hold the sequence's values.
            ModelError: the server gave no valid answer.
        """
        keys = [tuple(int(token) for token in sequence) for sequence in sequences]
        rows = {key: row for row, key in reversed(list(enumerate(keys))) if len(key) > 1}
        found: dict[tuple[int, ...], Answer | None] = {}
        queries = list(rows)

        def ask(key: tuple[int, ...]) -> Answer | None:
            try:
                return self.ask(key)
            except (UnusableError, http_json.RefusedError) as error:
                what = "refuses" if isinstance(error, http_json.RefusedError) else "gives no log-probabilities for"
                raise RowError(f"{self.name} {what} {{row}}: {error}", rows[key]) from error

        def receive(number: int, answer: Answer | None) -> None:
            found[queries[number]] = answer

        failure = http_json.ask_all(ask, queries, self.requests, receive)
        if isinstance(failure, http_json.UnansweredError):
            raise ModelError(f"{self.name} gave no answer in {http_json.ATTEMPTS} attempts: {failure}") from failure
        if failure is not None:
            raise failure
        return _fields([found.get(key) for key in keys], keys, bos_of(self))


def _fields(answers: Sequence[Answer | None], keys: Sequence[tuple[int, ...]], opening: BosIds) -> dict[str, Any]:
    pieces: dict[str, list[npt.NDArray[Any]]] = {"logprobs": [], "best": [], "ranks": []}
    for answer, key in zip(answers, keys, strict=True):
        skipped = (len(with_bos(key, opening)) - len(key)) + 1
        for name, values in pieces.items():
            given = getattr(answer, name, None) if answer is not None else []
            values.append(np.array([] if given is None else given[skipped:], np.float64))
    lengths = [len(values) for values in pieces["logprobs"]]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    flat = {name: np.concatenate(values) if values else np.empty(0) for name, values in pieces.items()}
    unknown = np.array([bool(np.isnan(values).any()) for values in pieces["best"]], bool)
    ranked = len(flat["ranks"]) == len(flat["logprobs"])
    return {
        "logprobs": flat["logprobs"].astype(np.float32),
        # The first of equal logits: which of them is first is not known.
        "match": flat["logprobs"] >= flat["best"],
        "offsets": offsets,
        "ranks": flat["ranks"].astype(np.int32) if ranked else None,
        "unknown": unknown if unknown.any() else None,
    }


def connect(name: str, tokenizer: str | None, bos: BosIds) -> ServedModel:
    """A served model after its self-check.

    Args:
        name: as in `memtax.lm.served_names`.
        tokenizer: folder or Hub name of the tokenizer; None takes the model's name at the server.
        bos: ids put before every row.

    Raises:
        ModelError: the server cannot be reached, or fails the self-check.
    """
    import httpx

    from memtax.lm.served_check import choose_form

    served = parse(name)
    login = credentials.login_of(served.address)
    key = os.environ.get(KEY)
    headers = {"Authorization": f"Bearer {key}"} if key and login is None else {}
    client = httpx.Client(timeout=httpx.Timeout(TIMEOUT, connect=30.0), headers=headers, auth=login)
    model = ServedModel(name, load_tokenizer(tokenizer or name), client=client)
    set_bos(model, bos)
    model.limit = _limit(model) or _positions(tokenizer or served.model)
    choose_form(model)
    return model


def check_key(name: str, error: http_json.RefusedError) -> None:
    """Raise a `ModelError` if the server refused the key."""
    if error.status in (401, 403):
        raise ModelError(f"{name} refuses the key (status {error.status}); put it into {KEY}") from error


def _limit(model: ServedModel) -> int | None:
    """Maximum tokens of a prompt, as far as the server's list of models says; one place is for the generated token."""
    served = parse(model.name)
    read: Callable[[bytes], tuple[dict[str, Any] | None, str]] = functools.partial(_listed, wanted=served.model)
    try:
        found = http_json.request(model.client, f"{served.address}/models", None, read)
    except http_json.UnansweredError as error:
        raise ModelError(f"{model.name} gave no answer in {http_json.ATTEMPTS} attempts: {error}") from error
    except http_json.RefusedError as error:
        check_key(model.name, error)
        return None
    most = found.get("max_model_len")
    return most - 1 if type(most) is int and most > 1 else None


def _positions(name: str) -> int | None:
    """Positions in the configuration beside a tokenizer, which is usually the model's; None if there is none."""
    from transformers import AutoConfig

    try:
        return position_limit(AutoConfig.from_pretrained(name, trust_remote_code=False))
    except Exception:  # a tokenizer alone has no configuration
        return None


def _listed(content: bytes, wanted: str) -> tuple[dict[str, Any] | None, str]:
    import json

    try:
        models = json.loads(content)["data"]
        return next((model for model in models if model.get("id") == wanted), {}), ""
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}, ""
