"""Postal addresses without a word that says street: pieces with commas or line breaks between them, a postcode, a number."""

import re
from collections.abc import Iterator

_LOWER = (
    r"[a-z\u00df-\u00f6\u00f8-\u00ff\u0101\u0103\u0105\u0107\u010d\u010f\u0111\u0113\u0117\u0119\u011b\u0123\u012b\u012f\u0142"
    r"\u0144\u0148\u014d\u0151\u0159\u015b\u015f\u0161\u0163\u0165\u016b\u016f\u0171\u0173\u017a\u017c\u017e\u03ac-\u03ce\u0430-\u045f\u0491]"
)
NUMBERED = r"(?:[#\u2116(]?[^\W\d_]{0,4}[-.:/]{0,2}[0-9][\w./\u00ba\u00aa\u00b0:-]{0,12}\)?)"
_QUOTES = "'\u2018\u2019"
NAMED = (
    rf"(?:[(\u201e\"\u00ab]?(?:[dls]?[{_QUOTES}](?:s-)?)?(?!{_LOWER})[^\W\d_][\w.\u00b0/{_QUOTES}-]{{0,30}}[)\u201d\"\u00bb]?)"
)
SMALL = rf"(?:{_LOWER}{{1,5}}(?!\w)(?:\.|/{_LOWER}(?!\w))?)"
BLANK = r"[ \t\u200b]{1,3}"
BETWEEN = r"(?:[ \t]{0,2}(?:[,;|\u060c\u3001]|\\n|\r?\n)[ \t>|]{0,8}|[ ][-\u00b7\u2022/][ ])"
COMMON_WORDS = "the|an?|of|in|on|down|up|to|and|from|this|that|per|each|every|is|are|was|were|along|by|for|with|at"
_BLOCK = re.compile(
    rf"(?<![\w.-])(?:{NUMBERED}|{NAMED})"
    rf"(?:(?:{BETWEEN}|{BLANK})(?:{SMALL}(?:{BETWEEN}|{BLANK})){{0,2}}(?:{NUMBERED}|{NAMED})){{2,40}}"
)
_NAME = rf"(?!{_LOWER})[^\W\d_][\w.{_QUOTES}-]{{2,}}"
_LETTERED = (
    r"[A-Z]{1,2}[0-9][A-Z0-9]?[ ]?[0-9][A-Z]{2}|[A-Z][0-9][A-Z][ -]?[0-9][A-Z][0-9]|[A-Z][0-9]{2}[ ]?[A-Z][0-9][A-Z][0-9]"
    r"|(?:NSW|VIC|QLD|TAS|ACT|WA|SA|NT)[ ][0-9]{4}|[A-Z][0-9]{4}(?:[A-Z]{3})?|[1-9][0-9]{3}[ ]?[A-Z]{2}(?=[ ])"
)
_LONG = (
    r"(?:[A-Z]{1,3}-)?[0-9]{5,7}(?:-[0-9]{3,4})?|[0-9]{3}[ ][0-9]{2,3}|[0-9]{2}-[0-9]{3}|[0-9]{4}-[0-9]{3}"
    r"|[0-9]{3}-[0-9]{4}"
)
_SHORT = r"(?:[A-Z]{1,3}-)?(?!19|20)[0-9]{3,4}"
_CODE = re.compile(
    rf"(?<![\w.-])(?:(?P<sure>{_LETTERED})|{_LONG})(?![\w-]|[.,][0-9])"
    rf"|(?:^|(?<=[,;|\n]))[ \t>|]{{0,8}}{_SHORT}{BLANK}(?={_NAME})",
    re.MULTILINE,
)
"""Postcodes; short ones only at the start of a piece and before the name of a place."""
_HOUSE = re.compile(
    r"(?<![\w.,-])[0-9]{1,4}(?:[ ]?[A-Za-z])?(?!\w|[.,][0-9]|%)|(?<=[:.#])[0-9]{1,4}(?!\w|[.,][0-9]|%)"
    r"|[0-9]{1,4}[/-][0-9]{1,4}"
)
_OPENING = re.compile(rf"(?<![\w.-])[0-9]{{1,4}}[A-Za-z]?(?:,?[ ][\w{_QUOTES}-]{{1,20}}){{0,4}}[ ]?\Z")
"""Number and small words before the first name: 51 ter rond-point des ..."""
_SMALL_LETTERS = re.compile(
    rf"(?<![\w.])[0-9]{{1,5}}[a-z]?(?:[ ][a-z0-9.#{_QUOTES}-]{{1,20}}){{1,6}}(?:,[ ]?[a-z.{_QUOTES} -]{{2,30}}){{1,3}}"
    r"[, ]{1,2}(?:[a-z]{2}[ ][0-9]{5}(?:-[0-9]{4})?|[a-z]{1,2}[0-9][a-z0-9]?[ ]?[0-9][a-z]{2})\b"
)
"""Addresses of English without a capital letter."""


def blocks(folded: str) -> Iterator[tuple[int, int]]:
    """First character and the one after the last of everything that looks like an address by its postcode.

    Args:
        folded: a text from `fold`.
    """
    for match in _BLOCK.finditer(folded):
        opening = _OPENING.search(folded[max(0, match.start() - 64) : match.start()])
        start = match.start() - (len(opening[0]) if opening else 0)
        if _is_address(folded[start : match.end()]):
            yield start, match.end()
    yield from (match.span() for match in _SMALL_LETTERS.finditer(folded))


def _is_address(block: str) -> bool:
    """Whether a block has a postcode, and beside it a number and names."""
    names = len(re.findall(_NAME, block))
    several = re.search(BETWEEN, block) is not None
    for code in _CODE.finditer(block):
        rest = f"{block[: code.start()]}\0{block[code.end() :]}"
        if names >= (2 if several else 3) and _HOUSE.search(rest):
            return True
        if code["sure"] and names >= 3:
            return True
    return False
