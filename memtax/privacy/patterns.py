"""What has the form of personal data, valid or not: everything that a masked text must not show.

Masking errs on the side of too much. What is counted is decided by `memtax.privacy.detection`.
"""

import ipaddress
import re
from collections.abc import Iterator

from memtax.privacy.addresses import addresses
from memtax.privacy.escapes import decode
from memtax.privacy.folding import INVISIBLE, fold
from memtax.privacy.masking import Finding, union
from memtax.privacy.postal import cut_addresses, postal_addresses

SEPARATOR = (
    r"(?:[\s\-./\\()\[\]{}<>_,:;|!?\"'`=#$%&^\u2019\u00b7\u2022" + INVISIBLE + r"\ufffd+*~]"
    r"|\\[nrt]|</?[A-Za-z][^<>]{0,60}>|&[A-Za-z]\w{0,7};)"
)
"""What may stand between the digits of one number: spaces, line breaks, punctuation, tags.

Nothing of it can be read in two ways, for else the time that a long run takes would double with each. Escapes that have digits
of their own are decoded before, in `memtax.privacy.escapes`.
"""
NUMBER = re.compile(rf"[0-9](?:{SEPARATOR}{{0,12}}[0-9]){{4,}}")

SECRETS = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"
    r"|\bgh[pousr]_[A-Za-z0-9]{20,255}|\bgithub_pat_[A-Za-z0-9_]{20,255}|\bglpat-[A-Za-z0-9_-]{20,}"
    r"|\bhf_[A-Za-z0-9]{20,}|\bnpm_[A-Za-z0-9]{30,}|\bpypi-[A-Za-z0-9_-]{40,}"
    r"|\bsk-[A-Za-z0-9_-]{20,}|\b[srp]k_(?:live|test)_[A-Za-z0-9]{16,}|\bxox[abeoprs]-[A-Za-z0-9-]{10,}"
    r"|\bAIza[0-9A-Za-z_-]{35}|\bSG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}"
    r"|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}"
)
"""Keys and tokens by the prefixes that their issuers give them, private keys, and JSON web tokens."""
_ASSIGN = r"[\"']?\s{0,3}(?::=|=>|[:=])\s{0,3}[\"']?"
ASSIGNED = re.compile(
    r"(?:pass(?:word|wd|phrase|code)|pwd|secret|(?:api|access|account|private|secret)[ _-]?key"
    r"|(?:access|auth|refresh)[_-]?token|credentials?"
    r"|passwort|kennwort|mot de passe|contrase\u00f1a|senha|\u043f\u0430\u0440\u043e\u043b\u044c)"
    rf"(?:{_ASSIGN}|\s+is:?\s+)(?P<value>[^\s\"',;]{{6,}})"
    rf"|(?:token|auth|key|sig|signature|bearer|cookie|session(?:_?id)?){_ASSIGN}(?P<mixed>(?=[^\s\"',;]*[0-9])(?=[^\s\"',;]*[A-Za-z])[^\s\"',;()]{{12,}})"
    r"|--?(?:password|passwd|pass|pw)[ ]+[\"']?(?P<option>[^\s\"']{4,})"
    r"|\b(?:mysql|mariadb)\w*[ ][^\n]{0,80}?-p(?P<flag>[^\s\"']{4,})"
    r"|\s(?:-u|--user|--auth)[ =]+[\"']?[^\s:\"']{1,64}:(?P<user>[^\s\"']{4,})"
    r"|\b(?:bearer|basic|token)[ ](?P<header>(?=[\w.~+/=-]*[0-9A-Z])[\w.~+/=-]{16,})"
    r"|\b(?:machine\s+\S{1,200}|default)\s+login\s+\S{1,100}\s+password\s+(?P<netrc>\S{4,200})"
    r"|://[^\s/:@\"'<>]{0,100}:(?P<login>[^\s/@\"'<>]{1,200})@"
    r"|(?:hooks\.slack\.com/services|discord(?:app)?\.com/api/webhooks)/(?P<hook>[\w/-]{8,})",
    re.IGNORECASE,
)
"""What is given as a password or key, whatever it looks like."""
_RANDOM = re.compile(
    r"(?<![A-Za-z0-9])(?=[a-z0-9]*[A-Z])(?=[A-Z0-9]*[a-z])(?=(?:[A-Za-z]*[0-9]){3})[A-Za-z0-9]{24,}(?![A-Za-z0-9])"
    r"|(?<![A-Za-z0-9+/])(?=[a-z0-9+/]*[A-Z])(?=[A-Z0-9+/]*[a-z])(?=[A-Za-z+/]*[0-9])[A-Za-z0-9+/]{40}(?![A-Za-z0-9+/])"
)
"""Long strings of letters of both cases and digits."""
_MIXED = re.compile(r"(?<![A-Za-z0-9])(?=(?:[A-Za-z]*[0-9]){6})[A-Za-z0-9]{8,}(?![A-Za-z0-9])")
"""Letters with six digits or more among them: identity cards, accounts with letters."""
_HARDWARE = re.compile(
    r"(?<![\w:.-])(?:(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}|(?:[0-9A-Fa-f]{4}[.:-]){2}[0-9A-Fa-f]{4})(?![\w:-])"
)
_IPV4 = re.compile(r"(?<![\w.])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![\w]|\.[0-9])")
_AT_SIGN = r"(?:\(?@\)?|[(\[{<]?(?:at|a)[)\]}>]|%?40|&?#?x?0{0,4}(?:64|40);|&?c?o?mmat;|\\?[ux]?0{0,2}40)"
_DOMAIN_FIRST = re.compile(r"\s*@[\w-]+(?:\.[\w-]+)+")
IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])")
_IPV6_LINES = re.compile(r"(?<![\w:.])([0-9A-Fa-f:]{4,38})[ \t]{0,2}\r?\n[ \t>]{0,8}([0-9A-Fa-f:]{1,38})(?![\w:])")
_ACCOUNT = re.compile(r"\b[A-Z]{2}\s?[0-9]{2}(?:[\s\-\u200b]{0,3}[A-Z0-9]{4}){2,7}(?:[\s\-\u200b]{0,3}[A-Z0-9]{1,3})?\b")
_FORMS = (
    ("credential", _RANDOM),
    ("IP address", _IPV4),
    ("hardware address", _HARDWARE),
    ("number", NUMBER),
    ("number", _MIXED),
)
_EDGE = rf"{SEPARATOR}{{0,12}}[0-9](?:{SEPARATOR}{{0,12}}[0-9])*"
_MIXED_END = r"(?=[A-Za-z_-]*[0-9])(?=[0-9_-]*[A-Za-z])[A-Za-z0-9_-]{6,}"
_REACH = 400
"""Characters at both ends of a text in which the rest of a number or name is looked for."""
_FIRST = re.compile(
    rf"[\w.+-]*\s{{0,18}}{_AT_SIGN}?[\s{INVISIBLE}]{{0,18}}[\w-]+(?:\.[\w-]+)+|{_EDGE}(?=\D|\Z)|[\w.+-]*@[\s{INVISIBLE}]{{0,18}}[\w.-]*|[0-9A-Fa-f]{{0,4}}(?::[0-9A-Fa-f]{{1,4}}){{2,}}|(?:[\w-]{{0,16}}[\"']?\s{{0,3}}[:=]\s{{0,3}}[\"']?)?{_MIXED_END}"
)
_LAST = re.compile(
    rf"(?:{_EDGE}{SEPARATOR}{{0,12}}|[\w+-]+(?:\.[\w+-]+)+\.?@?|[\w.+-]+@[\s{INVISIBLE}]{{0,18}}[\w.-]*|(?:[0-9A-Fa-f]{{1,4}}:){{2,}}[0-9A-Fa-f]{{0,4}}"
    rf"|(?<![\w-]){_MIXED_END})\Z"
)


def conceal(text: str, *, open_ends: bool = False) -> list[Finding]:
    """Everything in a text that has the form of personal data, in order and without overlap.

    Args:
        text: any text.
        open_ends: also what may be the rest of a number or address that an end of the text cuts.
    """
    folded = fold(text)
    found = _forms(folded, open_ends)
    for decoded in decode(folded):
        found += [Finding(each.kind, *decoded.span(each.start, each.end)) for each in _forms(decoded.text, open_ends)]
    return union(found)


def _forms(folded: str, open_ends: bool) -> list[Finding]:
    found = [Finding("credential", *match.span()) for match in SECRETS.finditer(folded)]
    for match in ASSIGNED.finditer(folded):
        found.append(Finding("credential", *match.span(match.lastgroup or 0)))
    # A domain that the end cuts has the last part that it lacks.
    whole = f"{folded}.com" if open_ends and folded[-1:].isalnum() else folded
    found += [Finding("email", each.start, min(each.end, len(folded))) for each in addresses(whole)]
    found += [
        Finding("bank account", *match.span()) for match in _ACCOUNT.finditer(folded) if sum(map(str.isdigit, match[0])) > 5
    ]
    found += [Finding("IP address", *span) for span, address in ipv6_addresses(folded) if _is_ipv6(address)]
    found += [Finding("postal address", *span) for span in postal_addresses(folded)]
    for kind, pattern in _FORMS:
        found += [Finding(kind, *match.span()) for match in pattern.finditer(folded)]
    if (domain := _DOMAIN_FIRST.match(folded)) is not None:
        found.append(Finding("email", *domain.span()))
    if open_ends:
        # Longer numbers and names are found as such.
        ends = (_FIRST.match(folded, 0, _REACH), _LAST.search(folded, max(0, len(folded) - _REACH)))
        found += [Finding("cut off", *match.span()) for match in ends if match is not None]
        found += [Finding("cut off", *span) for span in cut_addresses(folded)]
    return found


def ipv6_addresses(folded: str) -> Iterator[tuple[tuple[int, int], str]]:
    """What has the form of an IPv6 address: where it is, and the address without the line break that may cut it in two."""
    for match in _IPV6_LINES.finditer(folded):
        first, rest = match.groups()
        # A word, or another address, may be what follows a whole address.
        is_rest = not _is_ipv6(rest) and (any(map(str.isdigit, rest)) or not _is_ipv6(first))
        if is_rest and (first + rest).count(":") > 3:
            yield match.span(), first + rest
    for match in IPV6.finditer(folded):
        yield match.span(), match[0]


def _is_ipv6(text: str) -> bool:
    try:
        return len(text) > 4 and bool(ipaddress.IPv6Address(text))
    except ValueError:
        return False
