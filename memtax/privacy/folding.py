"""Texts with their digits, letters and punctuation in ASCII, character for character, so that positions stay the same."""

import functools
import re
import unicodedata

_UNUSUAL = re.compile(r"[^\t\n\r\x20-\x7e]")

INVISIBLE = "\u200b"
"""What every character without a width becomes."""


def fold(text: str) -> str:
    """The text with full-width, Arabic-Indic and other digits, letters and punctuation as their ASCII counterparts.

    Returns:
        A text of the same length; a character without a single counterpart stays.
    """
    return text if _UNUSUAL.search(text) is None else "".join(map(_folded, text))


@functools.lru_cache(maxsize=65_536)
def _folded(character: str) -> str:
    if _UNUSUAL.match(character) is None or character == "\N{REPLACEMENT CHARACTER}":
        return character
    digit = unicodedata.digit(character, None)
    if digit is not None:
        return str(digit)
    category = unicodedata.category(character)
    if category in ("Cf", "Mn", "Me") or (category == "Cc" and not character.isspace()):
        return INVISIBLE
    if category == "Pd" or character == "\N{MINUS SIGN}":
        return "-"
    if category == "Zs":
        return " "
    compatible = unicodedata.normalize("NFKC", character)
    return compatible if len(compatible) == 1 else character
