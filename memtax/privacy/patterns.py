"""What has the form of personal data, valid or not: everything that a masked text must not show.

Masking errs on the side of too much. What is counted is decided by `memtax.privacy.detection`.
"""

import ipaddress
import re

from memtax.privacy.addresses import addresses
from memtax.privacy.folding import INVISIBLE, fold
from memtax.privacy.masking import Finding, union

SEPARATOR = r"(?:[\s\-./\\()\[\]_,:;|'\u2019\u00b7\u2022" + INVISIBLE + r"\ufffd+*~]|\\[nrt]|<br\s*/?>|&nbsp;|%20)"
"""What may stand between the digits of one number: spaces, line breaks, punctuation, and how these are escaped."""
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
ASSIGNED = re.compile(
    r"(?:password|passwd|passphrase|pwd|secret|api[_-]?key|access[_-]?key|(?:access|auth)[_-]?token)[\"']?\s{0,3}"
    r"(?::=|=>|[:=])\s{0,3}[\"']?(?P<value>[^\s\"',;]{6,})",
    re.IGNORECASE,
)
"""What is given as a password or key, whatever it looks like."""
IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])")
_ACCOUNT = re.compile(r"\b[A-Z]{2}\s?[0-9]{2}(?:[\s\-\u200b]{0,3}[A-Z0-9]{4}){2,7}(?:[\s\-\u200b]{0,3}[A-Z0-9]{1,3})?\b")
_EDGE = rf"{SEPARATOR}{{0,12}}[0-9](?:{SEPARATOR}{{0,12}}[0-9])*"
_FIRST = re.compile(rf"{_EDGE}(?=\D|\Z)|[\w.+-]*@?[\w-]+(?:\.[\w-]+)+|[\w.+-]*@\s{{0,18}}[\w.-]*")
_LAST = re.compile(rf"(?:{_EDGE}{SEPARATOR}{{0,12}}|[\w+-]+(?:\.[\w+-]*)+@?|[\w.+-]+@\s{{0,18}}[\w.-]*)\Z")


def conceal(text: str, *, open_ends: bool = False) -> list[Finding]:
    """Everything in a text that has the form of personal data, in order and without overlap.

    Args:
        text: any text.
        open_ends: also what may be the rest of a number or address that an end of the text cuts.
    """
    folded = fold(text)
    found = [Finding("credential", *match.span()) for match in SECRETS.finditer(folded)]
    found += [Finding("credential", *match.span("value")) for match in ASSIGNED.finditer(folded)]
    found += [Finding("email", each.start, each.end) for each in addresses(folded)]
    found += [
        Finding("bank account", *match.span()) for match in _ACCOUNT.finditer(folded) if sum(map(str.isdigit, match[0])) > 5
    ]
    found += [Finding("IP address", *match.span()) for match in IPV6.finditer(folded) if _is_ipv6(match[0])]
    found += [Finding("number", *match.span()) for match in NUMBER.finditer(folded)]
    if open_ends:
        found += [
            Finding("cut off", *match.span()) for match in (_FIRST.match(folded), _LAST.search(folded)) if match is not None
        ]
    return union(found)


def _is_ipv6(text: str) -> bool:
    try:
        return len(text) > 4 and bool(ipaddress.IPv6Address(text))
    except ValueError:
        return False
