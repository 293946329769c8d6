r"""Texts with their escapes decoded and their tags removed, so that what is written in pieces is read as one.

3704&#160;0044, 3704<b>0044</b>, 3704\u00a00044, anna%40nordwind.io, &#97;&#110;&#110;&#97;@nordwind.io
"""

import bisect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html.entities import html5

from memtax.privacy.folding import INVISIBLE, fold

_ESCAPES = re.compile(
    r"\\u(?P<unicode>[0-9A-Fa-f]{4})|\\u\{(?P<braced>[0-9A-Fa-f]{1,6})\}"
    r"|\\x(?P<byte>[0-9A-Fa-f]{2})|\\(?P<blank>[nrtfv])|\\(?P<quoted>[@._~, -])"
    r"|&#0{0,6}(?P<decimal>[0-9]{1,7});?|&#[xX]0{0,6}(?P<hexadecimal>[0-9A-Fa-f]{1,6});?|&(?P<named>[A-Za-z][A-Za-z0-9]{1,30});"
    r"|(?P<percent>(?:%[0-9A-Fa-f]{2}){1,400})"
    r"|(?P<soft>=[ \t]{0,4}\r?\n|(?<=\w)-[ \t]{0,4}\r?\n[ \t>]{0,16}(?=\w))"
    r"|(?P<inline></?(?:a|abbr|b|bdi|bdo|big|code|data|em|font|i|ins|kbd|mark|q|s|samp|small|span|strong|sub|sup|time|tt|u|var|wbr)"
    r"(?![\w-])[^<>@]{0,200}>|<!--[^<>]{0,200}-->|\x1b\[[0-9;]{0,16}[A-Za-z]|\[[0-9;]{0,16}m)"
    r"|(?P<tag></?[A-Za-z][^<>@]{0,200}>)"
    rf"|(?P<invisible>{INVISIBLE}+)",
    re.IGNORECASE,
)
_ROUNDS = 3
"""Escapes of escapes that are decoded: `%2540`, `&amp;#64;`."""


@dataclass(frozen=True)
class Decoded:
    """A decoded text, and where its characters stand in the text that it was made of.

    Attributes:
        text: the decoded text.
        starts: where in it each piece begins.
        sources: first character of each piece, and the character after its last, in the text before; a piece that is as long
            there is the same character by character.
        before: the text before, if that was decoded itself.
    """

    text: str
    starts: Sequence[int]
    sources: Sequence[tuple[int, int]]
    before: "Decoded | None" = None

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Where a part of the decoded text stands in the text that was decoded first."""
        span = self._place(start)[0], self._place(end - 1)[1]
        return span if self.before is None else self.before.span(*span)

    def _place(self, at: int) -> tuple[int, int]:
        number = bisect.bisect_right(self.starts, at) - 1
        first, last = self.sources[number]
        stop = self.starts[number + 1] if number + 1 < len(self.starts) else len(self.text)
        if last - first == stop - self.starts[number]:
            place = first + at - self.starts[number]
            return place, place + 1
        return first, last


def decode(folded: str) -> Iterator[Decoded]:
    """The text decoded once, then what that gives decoded again; nothing for texts without escapes.

    Args:
        folded: a text from `fold`.
    """
    text, before = folded, None
    for _ in range(_ROUNDS):
        pieces = list(_pieces(text))
        if all(replaced is None for _, _, replaced in pieces):
            return
        starts, sources, texts, length = [], [], [], 0
        for start, end, replaced in pieces:
            # The characters of an escape that stands for several share its place.
            for piece in [text[start:end]] if replaced is None else replaced:
                starts.append(length)
                sources.append((start, end))
                texts.append(piece)
                length += len(piece)
        decoded = fold("".join(texts))
        yield (before := Decoded(decoded, starts, sources, before))
        text = decoded


def _pieces(text: str) -> Iterator[tuple[int, int, str | None]]:
    """Parts of a text in order: first character, the one after the last, and what stands for it; None: itself."""
    at = 0
    for match in _ESCAPES.finditer(text):
        replaced = _meaning(match)
        if replaced is None:
            continue
        if match.start() > at:
            yield at, match.start(), None
        yield match.start(), match.end(), replaced
        at = match.end()
    if at < len(text):
        yield at, len(text), None


def _meaning(match: re.Match[str]) -> str | None:
    """What an escape stands for; None if it is none."""
    kind, value = str(match.lastgroup), match[str(match.lastgroup)]
    if kind in ("unicode", "braced", "byte", "hexadecimal", "decimal"):
        number = int(value, 10 if kind == "decimal" else 16)
        return chr(number) if number < 0x110000 and not 0xD800 <= number < 0xE000 else None
    if kind == "named":
        return html5.get(f"{value};")
    if kind == "percent":
        try:
            return bytes.fromhex(value.replace("%", "")).decode()
        except UnicodeDecodeError:
            return None
    return {"blank": "\n", "quoted": value, "tag": "\n"}.get(kind, "")
