"""Personal data in text, by checksum and numbering plan (extra `pii`): works offline, and downloads no model.

Addresses are checked by `email-validator`, telephone numbers by `phonenumbers`, bank accounts and payment cards by
`python-stdnum`. Names and postal addresses need a language model of their own and are not looked for.
"""

import importlib.util
import re
from dataclasses import dataclass

PACKAGES = {"phonenumbers": "phonenumbers", "email_validator": "email-validator", "stdnum": "python-stdnum"}
KINDS = ("email", "telephone", "bank account", "payment card")

_EMAIL = re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")
_CARD = re.compile(r"(?<![\d.])\d(?:[ -]?\d){12,18}(?![\d.])")


@dataclass(frozen=True)
class Finding:
    """Where in a text something of a kind stands.

    Attributes:
        kind: what it is, such as an e-mail address.
        start: first character.
        end: the character after the last.
    """

    kind: str
    start: int
    end: int


def missing_packages() -> list[str]:
    """The packages of the extra `pii` that are not installed."""
    return [name for module, name in PACKAGES.items() if importlib.util.find_spec(module) is None]


def find(text: str, region: str = "US") -> list[Finding]:
    """Personal data in a text, without overlap, in the order of the text.

    Args:
        text: any text.
        region: country whose telephone numbers are found without a country code.
    """
    found = [*_emails(text), *_numbers(text), *_telephones(text, region)]
    kept: list[Finding] = []
    for one in sorted(found, key=lambda each: (KINDS.index(each.kind) == KINDS.index("telephone"), each.start)):
        if all(one.end <= other.start or one.start >= other.end for other in kept):
            kept.append(one)
    return sorted(kept, key=lambda each: each.start)


def mask(text: str, findings: list[Finding]) -> str:
    """The text with each finding replaced by its kind and length."""
    for one in reversed(findings):
        text = f"{text[: one.start]}[{one.kind}, {one.end - one.start} characters]{text[one.end :]}"
    return text


def _emails(text: str) -> list[Finding]:
    from email_validator import EmailNotValidError, validate_email

    found = []
    for match in _EMAIL.finditer(text):
        address = match[0].rstrip(".-")
        try:
            # Reserved names (example.com, .test) stay out: email-validator refuses them itself where they are no one's.
            validate_email(address, check_deliverability=False)
        except EmailNotValidError:
            continue
        found.append(Finding("email", match.start(), match.start() + len(address)))
    return found


def _numbers(text: str) -> list[Finding]:
    from stdnum import iban, luhn

    found = [Finding("bank account", *match.span()) for match in _IBAN.finditer(text) if iban.is_valid(match[0])]
    for match in _CARD.finditer(text):
        digits = re.sub(r"\D", "", match[0])
        if digits[0] in "3456" and len(set(digits)) > 1 and luhn.is_valid(digits):
            found.append(Finding("payment card", *match.span()))
    return found


def _telephones(text: str, region: str) -> list[Finding]:
    import phonenumbers

    return [Finding("telephone", match.start, match.end) for match in phonenumbers.PhoneNumberMatcher(text, region)]
