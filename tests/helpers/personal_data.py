"""Generated personal data of several countries: made by checksum and numbering plan, with the forms that texts give it."""

import random

import phonenumbers

BANKS = {
    "DE": (18, ""),
    "ES": (20, ""),
    "BE": (12, ""),
    "AT": (16, ""),
    "GB": (14, "WEST"),
    "NL": (10, "ABNA"),
    "IE": (14, "AIBK"),
}
"""Digits of an account number after the check digits, and the letters that stand before them."""
PREFIXES = ("4", "51", "55", "34", "37", "6011")
REGIONS = ("US", "GB", "DE", "FR", "ES", "BR", "IN", "JP")
NAMES = ("anna.berg", "j_okafor", "li-wei", "maria.garcia77", "t.o'neil", "x")
DOMAINS = ("brightfield.co.uk", "mail.kontor.de", "nordwind.io", "casa-verde.com.br", "uni.ac.jp")
ARABIC, FULL_WIDTH = ({ord(str(digit)): chr(zero + digit) for digit in range(10)} for zero in (0x660, 0xFF10))


def iban(rng):
    """An account number with the check digits of ISO 13616, which python-stdnum accepts."""
    from stdnum import iban as checked

    while True:
        country = rng.choice(list(BANKS))
        digits, bank = BANKS[country]
        body = bank + "".join(rng.choice("0123456789") for _ in range(digits))
        as_number = "".join(str(int(character, 36)) for character in f"{body}{country}00")
        number = f"{country}{98 - int(as_number) % 97:02d}{body}"
        # Spain's and Belgium's accounts have check digits of their own.
        if checked.is_valid(number):
            return number


def card(rng):
    """A payment card's number with its Luhn digit."""
    prefix = rng.choice(PREFIXES)
    length = 15 if prefix in ("34", "37") else 16
    body = prefix + "".join(rng.choice("0123456789") for _ in range(length - 1 - len(prefix)))
    doubled = [int(digit) * (2 if place % 2 == 0 else 1) for place, digit in enumerate(reversed(body))]
    return body + str(-sum(value // 10 + value % 10 for value in doubled) % 10)


def telephone(rng):
    """A valid number near the region's example, with its country code."""
    while True:
        example = phonenumbers.example_number_for_type(rng.choice(REGIONS), phonenumbers.PhoneNumberType.MOBILE)
        example.national_number += rng.randrange(-4000, 4000)
        if phonenumbers.is_valid_number(example):
            return phonenumbers.format_number(example, phonenumbers.PhoneNumberFormat.INTERNATIONAL)


def email(rng):
    return f"{rng.choice(NAMES)}@{rng.choice(DOMAINS)}"


def grouped(number, separator, size=4):
    return separator.join(number[start : start + size] for start in range(0, len(number), size))


MAKERS = {"bank account": iban, "payment card": card, "telephone": telephone, "email": email}
FORMS = {
    "plain": lambda value, kind: value,
    "spaced": lambda value, kind: value if kind in ("email", "telephone") else grouped(value, " "),
    "line-broken": lambda value, kind: (
        value.replace("@", "@\n") if kind == "email" else value.replace(" ", "\n", 1) if " " in value else grouped(value, "\n")
    ),
    "upper-case": lambda value, kind: value.upper(),
    "unicode digits": lambda value, kind: value.translate(ARABIC),
    "full-width": lambda value, kind: value.translate(FULL_WIDTH),
}
SENTENCES = (
    "The quarterly review of {} was sent to the office last week.",
    "Please write to {} before noon, or ask at the counter.",
    "customer: {}; status: open; remark: none",
    "Wir bestätigen den Eingang von {} und danken Ihnen.",
)


def records(count, seed):
    """`count` of (kind, form, value as written, document that holds it once)."""
    rng = random.Random(seed)
    made = []
    for number in range(count):
        kind = list(MAKERS)[number % len(MAKERS)]
        form = list(FORMS)[number // len(MAKERS) % len(FORMS)]
        value = FORMS[form](MAKERS[kind](rng), kind)
        made.append((kind, form, value, rng.choice(SENTENCES).format(value)))
    return made
