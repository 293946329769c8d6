"""Personal data that is valid by checksum and numbering plan (extra `pii`): works offline, and downloads no model.

Addresses are checked by `email-validator`, telephone numbers by `phonenumbers`, bank accounts, payment cards and identity
numbers by `python-stdnum`. Names and postal addresses need a language model of their own and are not looked for.
"""

import importlib.util
import ipaddress
import re
from collections.abc import Iterator

from memtax.privacy.addresses import addresses
from memtax.privacy.escapes import decode
from memtax.privacy.folding import INVISIBLE, fold
from memtax.privacy.masking import Finding
from memtax.privacy.national import national_ids
from memtax.privacy.patterns import NUMBER, SECRETS, SEPARATOR, ipv6_addresses

PACKAGES = {"phonenumbers": "phonenumbers", "email_validator": "email-validator", "stdnum": "python-stdnum"}
KINDS = ("email", "telephone", "bank account", "payment card", "identity number", "IP address", "credential")
_ORDER = ("credential", "email", "bank account", "payment card", "identity number", "IP address", "telephone")

_GAP = rf"[ \t\r\n{INVISIBLE}-]{{0,4}}"
_IBAN = re.compile(rf"(?<![A-Z0-9])[A-Z]{_GAP}[A-Z]{_GAP}[0-9]{_GAP}[0-9](?:{_GAP}[A-Z0-9]){{11,30}}", re.IGNORECASE)
_GROUPED = re.compile(
    rf"(?<![A-Z0-9])[A-Z][A-Z0-9]{{0,7}}(?P<between>{SEPARATOR}{{1,12}})[A-Z0-9]{{1,8}}(?:(?P=between)[A-Z0-9]{{1,8}}){{1,40}}",
    re.IGNORECASE,
)
"""The same between all groups, whatever it is."""
_LIGHT = re.compile(rf"[ \t\r\n{INVISIBLE}.-]{{1,4}}|[ \t]{{0,4}}\r?\n[ \t]{{0,16}}")
"""What may stand between the digits of a payment card."""
_CARDS = frozenset(
    [
        *((size,) for size in range(13, 20)),
        *((4, 4, 4, last) for last in range(1, 5)),
        *((4, 4, 4, 4, last) for last in range(1, 4)),
        *((4, 6, 5), (4, 6, 4), (8, 8), (6, 10)),
    ]
)
"""Digits in each group of a card's number as cards and forms write it."""
_IPV4 = re.compile(r"(?<![\w.-])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![\w-]|\.[0-9])")
_VERSION = re.compile(r"(?:\bv|version|release|rev|firmware|build|==|>=|~=)\W{0,3}\Z", re.IGNORECASE)
_SERIAL = re.compile(r"\b(?:isbn|issn|doi|ean|upc|pmid|arxiv)\b[^\n]{0,12}\Z", re.IGNORECASE)
"""Words before a number that mark it as that of a publication."""


def missing_packages() -> list[str]:
    """The packages of the extra `pii` that are not installed."""
    return [name for module, name in PACKAGES.items() if importlib.util.find_spec(module) is None]


def find(text: str, region: str = "US") -> list[Finding]:
    """Valid personal data in a text, without overlap, in the order of the text.

    Numbers and addresses are found in upper and lower case, with any Unicode digits, spaced, and broken by lines.

    Args:
        text: any text, a whole document best: what an end of the text cuts is not valid.
        region: country whose telephone numbers are found without a country code.
    """
    folded = fold(text)
    findings = _valid(folded, region)
    for decoded in decode(folded):
        findings += [Finding(each.kind, *decoded.span(each.start, each.end)) for each in _valid(decoded.text, region)]
    # What checksums tell goes before what has a form alone.
    findings.sort(key=lambda each: _ORDER.index(each.kind))
    kept: list[Finding] = []
    taken = bytearray(len(text))
    for finding in findings:
        if not any(taken[finding.start : finding.end]):
            kept.append(finding)
            taken[finding.start : finding.end] = b"\1" * (finding.end - finding.start)
    return sorted(kept, key=lambda each: each.start)


def _valid(folded: str, region: str) -> list[Finding]:
    findings = [*_credentials(folded), *_emails(folded), *_accounts(folded), *_cards(folded)]
    findings += [Finding("identity number", *span) for span in national_ids(folded)]
    return [*findings, *_networks(folded), *_telephones(folded, region)]


def _credentials(folded: str) -> Iterator[Finding]:
    return (Finding("credential", *match.span()) for match in SECRETS.finditer(folded))


def _emails(folded: str) -> Iterator[Finding]:
    from email_validator import EmailNotValidError, validate_email

    for address in addresses(folded):
        try:
            # Reserved names (.test, .invalid) stay out: email-validator refuses them itself where they are no one's.
            validate_email(address.text.rstrip(".-"), check_deliverability=False)
        except EmailNotValidError:
            continue
        yield Finding("email", address.start, address.end)


def _accounts(folded: str) -> Iterator[Finding]:
    for form in (_IBAN, _GROUPED):
        yield from _accounts_in(form, folded)


def _accounts_in(form: re.Pattern[str], folded: str) -> Iterator[Finding]:
    from stdnum import iban

    at = 0
    while match := form.search(folded, at):
        places = _places(match)
        written = "".join(folded[place] for place in places).upper()
        if not (written[:2].isalpha() and written[2:4].isdecimal()):
            at = match.start() + 1
            continue
        # How many characters a country's numbers have is the library's to know.
        length = next((size for size in range(min(len(written), 34), 14, -1) if iban.is_valid(written[:size])), None)
        ends = places[length - 1] + 1 if length else 0
        if length and not folded[ends : ends + 1].isalnum():
            yield Finding("bank account", match.start(), ends)
            at = ends
        else:
            at = match.start() + 1


def _places(match: re.Match[str]) -> list[int]:
    """Where the letters and digits of an account stand, without those of a tag or escape between its groups."""
    between = match.groupdict().get("between")
    if between is None:
        return [match.start() + place for place, character in enumerate(match[0]) if character.isalnum()]
    places: list[int] = []
    at = match.start()
    for group in match[0].split(between):
        places += range(at, at + len(group))
        at += len(group) + len(between)
    return places


def _cards(folded: str) -> Iterator[Finding]:
    from stdnum import luhn

    for run in NUMBER.finditer(folded):
        groups = [match.span() for match in re.finditer("[0-9]+", run[0])]
        first = 0
        while first < len(groups):
            last = next(
                (last for last in _card_ends(run[0], groups, first) if _is_card(run[0], groups, first, last, luhn)), None
            )
            if last is None:
                first += 1
                continue
            start, end = run.start() + groups[first][0], run.start() + groups[last][1]
            if not (folded[start - 1 : start].isalnum() or folded[end : end + 1].isalnum() or folded[start - 1 : start] == "."):
                yield Finding("payment card", start, end)
            first = last + 1


def _card_ends(run: str, groups: list[tuple[int, int]], first: int) -> Iterator[int]:
    """The groups that a number which begins with a group may end with."""
    total = 0
    for last in range(first, len(groups)):
        total += groups[last][1] - groups[last][0]
        if last > first and not _LIGHT.fullmatch(run, groups[last - 1][1], groups[last][0]):
            return
        if total > 19:
            return
        if total >= 13:
            yield last


def _is_card(run: str, groups: list[tuple[int, int]], first: int, last: int, luhn: object) -> bool:
    chosen = groups[first : last + 1]
    digits = "".join(run[start:end] for start, end in chosen)
    sizes: list[int] = []
    joined: list[int] = []
    for number, (start, end) in enumerate(chosen):
        sizes.append(end - start)
        # A line break may cut a group in two.
        if number and "\n" in run[chosen[number - 1][1] : start]:
            joined[-1] += end - start
        else:
            joined.append(end - start)
    shaped = tuple(sizes) in _CARDS or tuple(joined) in _CARDS or set(sizes) == {1}
    return shaped and digits[0] in "23456" and len(set(digits)) > 1 and bool(luhn.is_valid(digits))  # type: ignore[attr-defined]


def _networks(folded: str) -> Iterator[Finding]:
    for match in _IPV4.finditer(folded):
        if _is_public(match[0]) and not _VERSION.search(folded, max(0, match.start() - 16), match.start()):
            yield Finding("IP address", *match.span())
    for span, address in ipv6_addresses(folded):
        if _is_public(address):
            yield Finding("IP address", *span)


def _is_public(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).is_global
    except ValueError:
        return False


def _telephones(folded: str, region: str) -> Iterator[Finding]:
    import phonenumbers

    end = 0
    for run in NUMBER.finditer(folded):
        if sum(map(str.isdigit, run[0])) < 7:
            continue
        # Only where digits are: the matcher takes seconds per megabyte. What stands before tells codes from numbers.
        start, stop = max(end, run.start() - 16), run.end() + 12
        snippet = folded[start:stop].replace(INVISIBLE, " ")
        forms = (snippet, *([re.sub(r"[\r\n]", " ", snippet)] if "\n" in snippet else ()))
        matches = {(match.start, match.end) for text in forms for match in phonenumbers.PhoneNumberMatcher(text, region)}
        # The part of a number after a line break may be valid too: the longest counts.
        for first, last in sorted(matches, key=lambda span: (span[0] - span[1], span)):
            place = start + first
            glued = folded[place - 1 : place].isalnum() or folded[place - 1 : place] in ("_", "#", "=", "/")
            if not glued and not _SERIAL.search(folded, max(0, place - 24), place):
                yield Finding("telephone", place, start + last)
        end = run.end()
