"""Conversations as token ids: what the tokenizer's chat template makes of a row, and which tokens the assistant wrote.

Three shapes are recognized by their columns: `messages` (or `conversations`) with `role` and `content` or ShareGPT's `from` and
`value`; and `prompt` with `completion`, both strings or both lists of messages. Training libraries differ in which tokens get a
loss; here it is always the assistant's (of `completion`, if there is one), as with TRL's `assistant_only_loss`:

- A chat template with `{% generation %}` marks them itself (`return_assistant_tokens_mask`).
- With any other template, an answer begins where the conversation before it, rendered with the generation prompt, and the whole
  one diverge (TRL's rule for completions), and ends where the conversation up to it ends. Both conversations must be rendered
  as within the whole, or the row is refused.
- The completion of two strings begins where the tokens of the prompt alone and of both together diverge, as in TRL.

Rows without an answer to score (none, an empty one, tool calls, images) are left out and counted; a template that refuses a
row, or does not tell which tokens are the assistant's, is an error.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa

from memtax.corpus.columns import CANDIDATES
from memtax.errors import MemtaxError

MESSAGES = ("messages", "conversations")
PAIR = ("prompt", "completion")
SCORED = "scored_tokens"
PROMPT = "prompt_tokens"
ROLES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant"}
"""Names of roles in ShareGPT's files, and those of chat templates."""
TOOLS = "tools or tool calls, which memtax does not render"
_TOOLS = ("tool", "function", "function_call", "function_response", "observation", "ipython")
_NO_TOOLS: tuple[Any, ...] = (None, "", "[]", "{}", "null", [], {})
_READ = ("role", "content", "from", "value", "tool_calls", "function_call")
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
_PROBE = [{"role": "user", "content": "a"}]
_WAY_OUT = "leave such rows out"


class UnreadableRowError(MemtaxError):
    """A row without an answer that can be scored.

    Args:
        place: what lacks it, for the message.
        reason: what it has instead, which follows `place`.
    """

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"{place} has {reason}; {_WAY_OUT}")
        self.reason = f"with {reason}"


class Encoded(NamedTuple):
    """A conversation as tokens.

    Attributes:
        tokens: ids of the whole conversation, as the chat template writes it, BOS included.
        scored: whether the assistant wrote each token.
    """

    tokens: list[int]
    scored: list[bool]

    def answers(self) -> list[tuple[int, int]]:
        """Start and end of every run of scored tokens."""
        edges = [place for place, (a, b) in enumerate(zip([False, *self.scored], [*self.scored, False], strict=True)) if a != b]
        return list(zip(edges[::2], edges[1::2], strict=True))


@dataclass(frozen=True)
class Shape:
    """Where the rows of a source keep their conversations.

    Attributes:
        columns: `messages` or its like; or `prompt` and `completion`.
        templated: whether they are messages, which a chat template renders; otherwise two strings.
    """

    columns: tuple[str, ...]
    templated: bool


def find_shape(schema: pa.Schema, column: str | None = None, usual: Sequence[str] = CANDIDATES) -> Shape | None:
    """The shape of a source's conversations; None if it has none, or a usual column of tokens or text, which is read instead.

    Args:
        schema: the source's columns.
        column: the column asked for: one of messages, or `prompt,completion`.
        usual: columns that are read rather than a conversation if none is asked for.
    """
    if column is None and any(name in schema.names for name in usual):
        return None
    asked = tuple(column.split(",")) if column else None
    for name in MESSAGES if asked is None else asked[:1]:
        if (asked is None or len(asked) == 1) and name in schema.names and _holds_messages(schema.field(name).type):
            return Shape((name,), True)
    if asked not in (None, PAIR, PAIR[:1], PAIR[1:]) or not set(PAIR) <= set(schema.names):
        return None
    if asked is not None and len(asked) == 1 and not _holds_messages(schema.field(asked[0]).type):
        # A column of text that was named is read as such.
        return None
    kinds = [_holds_messages(schema.field(name).type) for name in PAIR]
    if all(kinds) or all(_holds_text(schema.field(name).type) for name in PAIR):
        return Shape(PAIR, all(kinds))
    return None


def row_shape(row: Mapping[str, Any], column: str | None = None, usual: Sequence[str] = CANDIDATES) -> Shape | None:
    """`find_shape` for a row of a source whose columns have no declared types."""
    names = {*(column.split(",") if column else ()), *usual, *MESSAGES, *PAIR} & row.keys()
    return find_shape(pa.schema({name: _type_of(row[name]) for name in names}), column, usual)


def _type_of(value: Any) -> pa.DataType:
    if isinstance(value, list):
        keys = {key for turn in value if isinstance(turn, dict) for key in turn}
        return pa.list_(pa.struct({str(key): pa.string() for key in keys}) if keys else pa.int64())
    return pa.string() if isinstance(value, str) else pa.null()


def _holds_messages(dtype: pa.DataType) -> bool:
    if not (pa.types.is_list(dtype) or pa.types.is_large_list(dtype)):
        return False
    # `datasets` keeps turns of different keys, such as those with tool calls, as JSON.
    if getattr(dtype.value_type, "extension_name", None) == "arrow.json":
        return True
    if not pa.types.is_struct(dtype.value_type):
        return False
    names = {dtype.value_type.field(place).name for place in range(dtype.value_type.num_fields)}
    return {"role", "content"} <= names or {"from", "value"} <= names


def _holds_text(dtype: pa.DataType) -> bool:
    return pa.types.is_string(dtype) or pa.types.is_large_string(dtype)


def encode_rows(tokenizer: Any, rows: Sequence[Mapping[str, Any]], shape: Shape, what: str, first: int = 0) -> list[Encoded]:
    """Rows of a source as tokens.

    Args:
        tokenizer: a `transformers` tokenizer, with a chat template for messages.
        rows: the rows.
        shape: from `find_shape`.
        what: the source, for messages of errors.
        first: number of the first row.

    Raises:
        UnreadableRowError: a row has no answer, an empty one, a tool call or content other than text.
        MemtaxError: the tokenizer has no chat template, it refuses a row, or which tokens are the assistant's cannot be told.
    """
    named = [(f"row {first + place} of {what}", row) for place, row in enumerate(rows)]
    if not shape.templated:
        first_column, second_column = PAIR
        return [
            _of_strings(
                tokenizer, _string(row[first_column], first_column, at), _string(row[second_column], second_column, at), at
            )
            for at, row in named
        ]
    marked = _GENERATION.search(chat_template(tokenizer)) is not None
    if not getattr(tokenizer, "is_fast", False):
        raise MemtaxError(f"conversations need a fast tokenizer, which reports the places of its tokens; {what} has messages")
    return [
        (_of_marks if marked else _of_prefixes)(tokenizer, *read_messages(row, shape, where), where) for where, row in named
    ]


def read_messages(row: Mapping[str, Any], shape: Shape, where: str) -> tuple[list[dict[str, Any]], int]:
    """The checked messages of a row with `role` and `content`, and how many of them belong to the prompt column.

    Raises:
        MemtaxError: as `encode_rows`.
    """
    parts = [_messages(row[name], where) for name in shape.columns]
    messages = [message for part in parts for message in part]
    before = len(parts[0]) if len(parts) > 1 else 0
    if row.get("tools") not in _NO_TOOLS:
        raise UnreadableRowError(where, TOOLS)
    if not any(message["role"] == "assistant" for message in messages[before:]):
        inside = f"{shape.columns[-1]} of " if before else ""
        raise UnreadableRowError(f"{inside}{where}", "no assistant turn")
    return messages, before


def _messages(turns: Any, where: str) -> list[dict[str, Any]]:
    found = []
    for number, turn in enumerate(turns or (), 1):
        place = f"turn {number} of {where}"
        turn = turn if isinstance(turn, Mapping) else {}
        role = turn.get("role") or turn.get("from")
        if not isinstance(role, str):
            raise UnreadableRowError(place, "no role")
        role = ROLES.get(role.lower(), role)
        if role in _TOOLS or any(turn.get(name) not in _NO_TOOLS for name in ("tool_calls", "function_call")):
            raise UnreadableRowError(place, TOOLS)
        content = _text(turn.get("content") if turn.get("content") is not None else turn.get("value"), place)
        if role == "assistant" and not content.strip():
            raise UnreadableRowError(place, "an empty answer")
        # What else a template may write, such as an answer's `reasoning_content`.
        others = {name: value for name, value in turn.items() if value is not None and name not in _READ}
        found.append({**others, "role": role, "content": content})
    return found


def _text(content: Any, place: str) -> str:
    """The text of a turn; the texts of its parts are joined, as templates of multimodal models do."""
    texts = []
    for part in content if isinstance(content, list) else [content or ""]:
        text = part.get("text") if isinstance(part, dict) and part.get("type") in (None, "text") else part
        if not isinstance(text, str):
            raise UnreadableRowError(place, "content other than text")
        texts.append(text)
    return "".join(texts)


def _string(value: Any, name: str, where: str) -> str:
    if not isinstance(value, str) or (name == PAIR[1] and not value.strip()):
        raise UnreadableRowError(where, f"{'an empty' if isinstance(value, str) else 'no'} {name}")
    return value


def _of_strings(tokenizer: Any, prompt: str, completion: str, where: str) -> Encoded:
    before, tokens = _ids(tokenizer, [prompt, prompt + completion])
    start = _common(before, tokens)
    if start == len(tokens):
        raise UnreadableRowError(where, "a completion that adds no token to its prompt")
    return Encoded(tokens, [place >= start for place in range(len(tokens))])


def _of_marks(tokenizer: Any, messages: list[dict[str, Any]], before: int, where: str) -> Encoded:
    """The assistant's tokens as the template marks them."""
    options = {"return_assistant_tokens_mask": True, "return_dict": True}
    found = _render(tokenizer, messages, where, tokenize=True, **options)
    tokens, mask = list(found["input_ids"]), list(map(bool, found["assistant_masks"]))
    if before:
        prompt = _render(tokenizer, messages[:before], where, tokenize=True, return_dict=True, add_generation_prompt=True)
        start = _common(list(prompt["input_ids"]), tokens)
        mask = [scored and place >= start for place, scored in enumerate(mask)]
    if not any(mask):
        raise MemtaxError(f"the chat template marks no token of {where} as the assistant's; {_advice(tokenizer)}")
    return Encoded(tokens, mask)


def _of_prefixes(tokenizer: Any, messages: list[dict[str, Any]], before: int, where: str) -> Encoded:
    """The assistant's tokens as what the conversation before each answer and the one up to it enclose."""
    whole, spans = _render(tokenizer, messages, where), []
    for place in range(before, len(messages)):
        if messages[place]["role"] == "assistant":
            asked = _render(tokenizer, messages[:place], where, add_generation_prompt=True) if place else ""
            # Some templates end every rendering with end-of-sequence.
            until = _render(tokenizer, messages[: place + 1], where)
            until = until if until == whole else until.removesuffix(getattr(tokenizer, "eos_token", None) or "")
            start, last = _common(asked, whole), messages[place - 1]["content"].strip() if place else ""
            if start < asked.rfind(last) + len(last) or not whole.startswith(until) or start >= len(until):
                raise MemtaxError(
                    f"which tokens of turn {place + 1} of {where} are the assistant's cannot be told: the chat template "
                    f"renders the conversation up to it in another way than within the whole; {_advice(tokenizer)}"
                )
            spans.append((start, len(until)))
    found = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True, truncation=False, verbose=False)
    # A token at the edge counts if it holds a character of the answer, as in `return_assistant_tokens_mask`.
    places = found["offset_mapping"]
    scored = [any(start < stop and end > begin for begin, stop in spans) for start, end in places]
    return Encoded(list(found["input_ids"]), scored)


def _advice(tokenizer: Any) -> str:
    return (
        f"give the tokenizer of {_name(tokenizer)} a template with {{% generation %}} ... {{% endgeneration %}} around answers "
        "(trl.chat_template_utils.get_training_chat_template has those of many models), or leave such rows out"
    )


def _common(first: Sequence[Any], second: Sequence[Any]) -> int:
    """Number of leading tokens, or characters, that two rows share."""
    return next(
        (place for place, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )


def _ids(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    found = tokenizer(texts, add_special_tokens=False, return_attention_mask=False, truncation=False, verbose=False)
    return [list(ids) for ids in found["input_ids"]]


def _name(tokenizer: Any) -> str:
    return str(getattr(tokenizer, "name_or_path", "") or "the model")


def chat_template(tokenizer: Any) -> str:
    """The tokenizer's chat template.

    Raises:
        MemtaxError: it has none.
    """
    try:
        return str(tokenizer.get_chat_template())
    except (ValueError, AttributeError) as error:
        raise MemtaxError(
            f"the tokenizer of {_name(tokenizer)} has no chat template, which conversations need; give by --tokenizer the "
            "one that the model was fine-tuned with, or name a column of text with --column"
        ) from error


def _render(tokenizer: Any, messages: list[dict[str, Any]], where: str, tokenize: bool = False, **options: Any) -> Any:
    from jinja2 import TemplateError

    try:
        return tokenizer.apply_chat_template(messages, tokenize=tokenize, **options)
    except (TemplateError, TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
        system = any(message["role"] == "system" for message in messages)
        hint = "move the text of its system turn into the first user turn, or " if system else ""
        reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
        raise MemtaxError(f"the chat template of {_name(tokenizer)} refuses {where} ({reason}); {hint}{_WAY_OUT}") from error


def template_opening(tokenizer: Any) -> tuple[int, ...]:
    """BOS if the chat template writes it at the start of a conversation; otherwise nothing.

    Raises:
        MemtaxError: there is no chat template.
    """
    chat_template(tokenizer)
    token = getattr(tokenizer, "bos_token_id", None)
    text = _render(tokenizer, _PROBE, "a conversation with one user turn", add_generation_prompt=True)
    return (int(token),) if token is not None and _ids(tokenizer, [text])[0][:1] == [token] else ()
