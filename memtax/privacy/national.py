"""Identity numbers of persons, by the form and the check digits that their issuers define (python-stdnum)."""

import importlib
import re
from collections.abc import Iterator

_GAP = r"[ \t\n\u200b]{0,2}"


def _digits(*groups: int, between: str = rf"{_GAP}[-./]?{_GAP}") -> str:
    """A number in groups, whatever stands between them."""
    return between.join(rf"[0-9]{{{size}}}" for size in groups)


FORMS: dict[str, str] = {
    # A number without check digits, or with one alone, is taken only where it is written in its own groups.
    "us.ssn": rf"[0-9]{{3}}-{_GAP}[0-9]{{2}}-{_GAP}[0-9]{{4}}",
    "br.cpf": rf"[0-9]{{3}}\.{_GAP}[0-9]{{3}}\.{_GAP}[0-9]{{3}}-{_GAP}[0-9]{{2}}",
    "ch.ssn": rf"756\.{_GAP}[0-9]{{4}}\.{_GAP}[0-9]{{4}}\.{_GAP}[0-9]{{2}}",
    "in_.aadhaar": r"(?<![0-9] )[0-9]{4} [0-9]{4} [0-9]{4}(?! [0-9])",
    "it.codicefiscale": rf"[A-Z]{{6}}{_GAP}[0-9]{{2}}[A-Z][0-9]{{2}}{_GAP}[A-Z][0-9]{{3}}[A-Z]",
    "es.dni": rf"[0-9]{{8}}{_GAP}-?[A-Z]",
    "es.nie": rf"[XYZ]{_GAP}-?[0-9]{{7}}{_GAP}-?[A-Z]",
    "fi.hetu": r"[0-9]{6}[-+A][0-9]{3}[0-9A-Y]",
    "fr.nir": _digits(1, 2, 2, 2, 3, 3, 2),
    "se.personnummer": r"(?:[0-9]{2})?[0-9]{6}[-+][0-9]{4}",
    "dk.cpr": r"[0-9]{6}-[0-9]{4}",
    "no.fodselsnummer": rf"[0-9]{{6}}{_GAP}[0-9]{{5}}",
    "be.nn": rf"[0-9]{{2}}\.{_GAP}[0-9]{{2}}\.{_GAP}[0-9]{{2}}-{_GAP}[0-9]{{3}}[.-]{_GAP}[0-9]{{2}}",
    "cn.ric": rf"[0-9]{{6}}{_GAP}[0-9]{{8}}{_GAP}[0-9]{{3}}[0-9X]",
}
"""Module of stdnum to the written form. Numbers that one check digit alone tells from any other of their length stay out."""
_COMPILED = {name: re.compile(rf"(?<![\w.-]){form}(?![\w-])", re.IGNORECASE) for name, form in FORMS.items()}


def national_ids(folded: str) -> Iterator[tuple[int, int]]:
    """First character and the one after the last of every valid identity number.

    Args:
        folded: a text from `fold`.
    """
    for name, form in _COMPILED.items():
        module = None
        for match in form.finditer(folded):
            module = module or importlib.import_module(f"stdnum.{name}")
            written = re.sub(r"[\s\u200b]", "", match[0]).upper()
            if module.is_valid(written):
                yield match.span()
