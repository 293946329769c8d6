"""Conversations over the words of `helpers.special_tokens`, and their token ids and masks composed by hand."""

import json

from helpers import special_tokens as small

WORDS = [word for word in small.WORDS if word.startswith("w")]
START = "<s> "
PLAIN = (
    START + "{% for m in messages %}{{ m['role'] + ' ' + m['content'] + ' </s> ' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant {% endif %}"
)
MARKED = (
    START + "{% for m in messages %}{% if m['role'] == 'assistant' %}assistant {% generation %}{{ m['content'] + ' </s>' }}"
    "{% endgeneration %} {% else %}{{ m['role'] + ' ' + m['content'] + ' </s> ' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}assistant {% endif %}"
)
"""Two templates of the same conversation; only the second tells which tokens are the assistant's."""
UNKNOWN = small.WORDS.index("<unk>")
"""The id of the names of roles, which are no words of the tokenizer."""


def tokenizer(template=PLAIN, kind="bos"):
    made = small.tokenizer(kind)
    made.chat_template = template
    return made


def save(folder, template=PLAIN, positions=64):
    """A model and its tokenizer."""
    small.model(positions).save_pretrained(folder)
    tokenizer(template).save_pretrained(folder)
    return str(folder)


def compose(messages):
    """Ids and mask of a conversation, by hand."""
    tokens, scored = [small.BOS], [False]
    for message in messages:
        own = [small.WORDS.index(word) for word in message["content"].split()]
        tokens += [UNKNOWN, *own, small.EOS]
        scored += [False, *[message["role"] == "assistant"] * (len(own) + 1)]
    return tokens, scored


def chat(*contents, system=None):
    """Turns of the user and the assistant in alternation."""
    turns = [{"role": ("user", "assistant")[place % 2], "content": content} for place, content in enumerate(contents)]
    return [*([] if system is None else [{"role": "system", "content": system}]), *turns]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)
