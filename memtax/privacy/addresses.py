"""E-mail addresses in the forms that texts give them: spelled out, spaced, broken by a line, upper case."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from memtax.privacy.folding import INVISIBLE

_AT_WORDS = (
    "\u00e4t|arobase|arroba|chiocciola|kukac|zavin\u00e1\u010d|ma\u0142pa|snabel-?a|\u0441\u043e\u0431\u0430\u043a\u0430"
)
_DOT_WORDS = "dot|punkt|point|punto|ponto|pont|te\u010dka|kropka|\u0442\u043e\u0447\u043a\u0430"
_AT = re.compile(
    rf"[(\[{{<]?@[)\]}}>]?|[(\[{{<][ ]?(?:at|a|{_AT_WORDS})[ ]?[)\]}}>]|\bat\b|(?<=[^\W_])[-_*|~]+at[-_*|~]+(?=[^\W_])"
    r"|(?<=\w)[ ][-_*|~]at[-_*|~][ ](?=\w)"
    r"|%40|&#0*64;?|&#x0*40;?|&commat;"
    r"|\\u0040|\\x40|=40",
    re.IGNORECASE,
)
_ATOM = r"(?:[^\s@<>()\[\]{}\"',;:|]|(?<=\w)'(?=\w))"
_BLANK = rf"[ \t{INVISIBLE}]"
_SPACE = rf"{_BLANK}{{0,3}}(?:\\n|\\r|\r?\n)?{_BLANK}{{0,16}}"
"""A few spaces, and a line break at most."""
_SPELLED_DOT = rf"{_SPACE}[(\[{{<][ ]?(?:{_DOT_WORDS}|\.)[ ]?[)\]}}>]{_SPACE}|\s+dot\s+|[ ]?[-_*|~]+dot[-_*|~]+[ ]?"
_LOOSE_DOT = rf"{_SPELLED_DOT}|{_BLANK}{{1,2}}\.{_BLANK}{{1,2}}|\.{_BLANK}*\r?\n{_BLANK}*|{_BLANK}*\r?\n{_BLANK}*\."
"""A dot that is spelled out or stands apart."""
_LOCAL = re.compile(rf"(?:\"[^\"\n]{{1,64}}\"|(?:{_ATOM}+(?:{_LOOSE_DOT})){{0,4}}{_ATOM}+)(?P<space>{_SPACE})\Z", re.IGNORECASE)
_LABEL = r"[^\W_](?:[\w-]*[^\W_])?"
_DOMAIN = re.compile(rf"(?P<space>{_SPACE})(?P<labels>{_LABEL}(?:(?:\.|{_LOOSE_DOT}){_LABEL})*)", re.IGNORECASE)
_WORD_BEFORE = re.compile(rf"{_ATOM}+{_BLANK}*\r?\n{_BLANK}*\Z")
_WORD_AFTER = re.compile(rf"{_BLANK}*\r?\n{_BLANK}*[\w.-]*\w")
_LETTERS_BEFORE = re.compile(rf"(?:(?<!\S){_ATOM}[ \t]){{2,64}}\Z")
_LETTERS_AFTER = re.compile(r"(?:[ \t][\w.-](?!\S)){3,128}")
_COMMON_ENDS = re.compile(r"com|org|net|edu|gov|info|io|eu|uk|de|fr|es|it|nl|ch|be|se|pl|jp|br|ca|au", re.IGNORECASE)
"""Last parts of the names of most domains that are no ends of file names."""
_LONGEST = 128
"""Characters before an at sign that are looked at."""


@dataclass(frozen=True)
class Address:
    """Something that has the form of an address.

    Attributes:
        start: its first character in the text.
        end: the character after its last.
        text: the address as it would be written, lower case.
    """

    start: int
    end: int
    text: str


def addresses(folded: str) -> Iterator[Address]:
    """Everything in a text that has the form of an e-mail address, valid or not, in order.

    Args:
        folded: a text from `fold`.
    """
    for sign in _AT.finditer(folded):
        head = folded[max(0, sign.start() - _LONGEST) : sign.start()]
        found = _spaced(folded, head, sign) if "@" in sign[0] else None
        found = found or _written(folded, head, sign)
        if found is not None:
            yield found


def _spaced(folded: str, head: str, sign: re.Match[str]) -> Address | None:
    """An address with a space after every character."""
    before, after = _LETTERS_BEFORE.search(head), _LETTERS_AFTER.match(folded, sign.end())
    if before is None or after is None:
        return None
    start = sign.start() - len(before[0])
    return Address(start, after.end(), re.sub(r"\s", "", folded[start : after.end()]).lower())


def _written(folded: str, head: str, sign: re.Match[str]) -> Address | None:
    before, after = _LOCAL.search(head), _DOMAIN.match(folded, sign.end())
    close = "@" in sign[0] and sign.end() < len(folded) and not folded[sign.end()].isspace()
    if before is None:
        return None
    if after is None:
        # Cut, or of another form: what stands close to the at sign is part of it.
        if before["space"] or not (close or sign.end() == len(folded)):
            return None
        return Address(sign.start() - len(before[0]), sign.end(), "")
    labels = re.split(rf"\.|{_LOOSE_DOT}", after["labels"], flags=re.IGNORECASE)
    if not _is_sign(folded, sign, before, after, labels):
        return None
    start, end = sign.start() - len(before[0]), after.end()
    local = re.sub(_SPELLED_DOT, ".", before[0], flags=re.IGNORECASE).replace('"', "")
    written = re.sub(r"\s|\\[nr]|" + INVISIBLE, "", local) + "@" + ".".join(label.strip() for label in labels)
    if len(labels) < 2 and (more := _WORD_AFTER.match(folded, end)):
        written += re.sub(r"\s", "", more[0])
        end = more.end()
    if more := _WORD_BEFORE.search(folded[max(0, start - _LONGEST) : start]):
        start -= len(more[0])
    return Address(start, end, written.lower())


def _is_sign(folded: str, sign: re.Match[str], before: re.Match[str], after: re.Match[str], labels: list[str]) -> bool:
    """Whether what may be an at sign is one, by what stands around it."""
    apart = bool(before["space"] or after["space"])
    if sign[0].lower() == "at":
        # The word stands in every text: it is an at sign only where a dot is spelled out too, or capitals set it off.
        spelled = re.search(_SPELLED_DOT, after["labels"], re.IGNORECASE)
        set_off = sign[0] == "AT" and not before[0].isupper() and len(labels) > 1
        return bool((spelled or set_off) and before["space"] and after["space"])
    if sign[0].strip()[0] in "-_*|~":
        # Names in code have the word as well.
        spelled = re.search(_SPELLED_DOT, after["labels"], re.IGNORECASE)
        return len(labels) > 1 and (spelled is not None or _COMMON_ENDS.fullmatch(labels[-1]) is not None)
    if apart and re.fullmatch(r"\W ?a ?\W", sign[0], re.IGNORECASE):
        return False
    return len(labels) > 1 or not apart or _cut_below(folded, before, after)


def _cut_below(folded: str, before: re.Match[str], after: re.Match[str]) -> bool:
    """Whether a line break follows the at sign, and the end of the text cuts the domain."""
    return not before["space"] and "\n" in after["space"] and not folded[after.end() :].strip(".-")
