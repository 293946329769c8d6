"""What belongs to a postal address and stands beside the part that has a form: a name, a plot or flat, places."""

import re
from collections.abc import Iterable, Iterator

from memtax.privacy.blocks import BETWEEN, BLANK, COMMON_WORDS, NAMED, NUMBERED, SMALL

_NEXT = rf"(?![ \t]*;){BETWEEN}"
_WORD = rf"(?:{NUMBERED}|{NAMED})"
_PIECE = rf"{_WORD}(?:{BLANK}(?:{SMALL}{BLANK}){{0,2}}{_WORD}){{0,3}}"
_WITH_NUMBER = rf"(?=[^,;|\n\u060c]{{0,40}}[0-9])(?:{SMALL}{BLANK}){{0,2}}{_PIECE}"
_BEFORE = re.compile(
    rf"(?<![\w.-])(?:{_PIECE}(?:{_NEXT}|{BLANK}))?(?:{_WITH_NUMBER}{_NEXT}){{0,4}}(?:{SMALL}{BLANK})?(?:{_PIECE}(?:{BLANK}|{_NEXT}|[-/]))?\Z"
)
_UNIT = rf"{BLANK}(?!(?:{COMMON_WORDS})\b){SMALL}{BLANK}[0-9]{{1,3}}(?!\w)\.?"
_AFTER = re.compile(
    rf"\.?(?:{BLANK}{NAMED}){{0,2}}(?:{_UNIT})?(?:{_NEXT}{_WITH_NUMBER}){{0,4}}(?:{_NEXT}(?:{SMALL}{BLANK})?{_PIECE}){{0,2}}(?!\w)"
)
_SMALL_WORD = rf"(?!(?:{COMMON_WORDS})\b)[^\W\d_][\w.'-]{{2,30}}"
_SMALL_BEFORE = re.compile(rf"(?<![\w.-])(?:{_SMALL_WORD}[ ]){{0,2}}{_SMALL_WORD}{_NEXT}\Z")
_SMALL_AFTER = re.compile(rf"{_NEXT}{_SMALL_WORD}(?:[ ]{_SMALL_WORD})?(?!\w)(?:{_NEXT}[0-9]{{4,6}}(?!\w))?")
_APART = re.compile(rf"(?:{BETWEEN}|{BLANK})?")
_REACH = 96
"""Characters before an address that are looked at."""


def grown(folded: str, spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Parts of addresses, joined where only a separator is between them, with the pieces beside them.

    Args:
        folded: a text from `fold`.
        spans: first character and the one after the last of each part; they may overlap.
    """
    joined: list[list[int]] = []
    for start, end in sorted(spans):
        if joined and (start <= joined[-1][1] or _APART.fullmatch(folded, joined[-1][1], start)):
            joined[-1][1] = max(joined[-1][1], end)
        else:
            joined.append([start, end])
    for start, end in joined:
        small = folded[start:end].islower()
        before = (_SMALL_BEFORE if small else _BEFORE).search(folded[max(0, start - _REACH) : start])
        after = (_SMALL_AFTER if small else _AFTER).match(folded, end)
        yield start - (len(before[0]) if before else 0), after.end() if after else end
