"""Replacing parts of a text, or of its tokens, by what was there."""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """Where in a text something of a kind stands.

    Attributes:
        kind: what it is, such as `email`.
        start: first character.
        end: the character after the last.
    """

    kind: str
    start: int
    end: int

    @property
    def label(self) -> str:
        """What is shown instead."""
        return f"[{self.kind}, {self.end - self.start} characters]"


def union(findings: Sequence[Finding]) -> list[Finding]:
    """The findings in order and without overlap; one that overlaps an earlier in the sequence loses the shared part."""
    kept: list[Finding] = []
    for finding in findings:
        # Neither starts nor ends of what is kept ever decrease, so that those that overlap lie together.
        first = bisect.bisect_right(kept, finding.start, key=lambda each: each.end)
        last = bisect.bisect_left(kept, finding.end, key=lambda each: each.start)
        edges = [finding.start, *(edge for each in kept[first:last] for edge in (each.start, each.end)), finding.end]
        free = [Finding(finding.kind, *part) for part in zip(edges[::2], edges[1::2], strict=True) if part[0] < part[1]]
        kept[first:last] = sorted([*kept[first:last], *free], key=lambda each: each.start)
    return kept


def mask(text: str, findings: Sequence[Finding]) -> str:
    """The text with each finding replaced by its kind and length.

    Args:
        text: any text.
        findings: in the order of the text, without overlap, as `find` and `union` return them.
    """
    for finding in reversed(findings):
        text = f"{text[: finding.start]}{finding.label}{text[finding.end :]}"
    return text


def mask_text(text: str | None, known: Sequence[Finding] = (), *, open_ends: bool = False) -> str | None:
    """A text as it may be shown: what is known to be personal and everything that has the form of it is masked.

    Masked are every run of five or more digits, however it is separated, every e-mail address, credential and IPv6 address,
    whether valid or not.

    Args:
        text: any text; None stays None.
        known: parts of it that are personal data, as projected from the whole document.
        open_ends: the text was cut from one that is not to be had: what may be the rest of a number or address at either end is
            masked as well.
    """
    return None if text is None else mask(text, cover(text, known, open_ends=open_ends))


def cover(text: str, known: Sequence[Finding] = (), *, open_ends: bool = False) -> list[Finding]:
    """What of a text must not be shown, in order and without overlap.

    Args:
        text: any text.
        known: see `mask_text`; these keep their kind.
        open_ends: see `mask_text`.
    """
    from memtax.privacy.patterns import conceal

    findings = union([*known, *conceal(text, open_ends=open_ends)])
    # Punctuation that is left over between two findings hides nothing.
    return [each for each in findings if any(map(str.isalnum, text[each.start : each.end]))]


def mask_pieces(text: str, pieces: Sequence[str], findings: Sequence[Finding]) -> tuple[list[str], list[bool]]:
    """The texts of single tokens with the findings of their joint text masked.

    Args:
        text: what the tokens give together.
        pieces: the text of each token alone. Tokens that share a character, or lose a space alone, need not add up to `text`.
        findings: of `text`, in order and without overlap.

    Returns:
        For each token what may be shown of it, and whether anything of it is masked. The first token of a finding shows its
        label. Where the tokens add up to the text, so do the masked tokens to the masked text.
    """
    if not findings:
        return list(pieces), [False] * len(pieces)
    ranges = _ranges(text, pieces)
    if ranges is None:
        return ["\N{WHITE SQUARE}"] * len(pieces), [True] * len(pieces)
    shown, hidden = [], []
    labeled: set[int] = set()
    for piece, (start, end, exact) in zip(pieces, ranges, strict=True):
        # A token whose place is not certain is hidden if anything beside it is.
        slack = 0 if exact else 1
        over = [each for each in findings if each.start < end + slack and each.end > start - slack]
        hidden.append(bool(over))
        if not over:
            shown.append(piece)
            continue
        made, at = "", start
        for finding in over:
            made += text[at : max(at, finding.start)] if exact else ""
            if finding.start not in labeled:
                labeled.add(finding.start)
                made += finding.label
            at = max(at, min(end, finding.end))
        shown.append(made + (text[at:end] if exact else ""))
    return shown, hidden


def _ranges(text: str, pieces: Sequence[str]) -> list[tuple[int, int, bool]] | None:
    """Where each token stands in the text, and whether that is certain; None if most of them cannot be found."""
    if "".join(pieces) == text:
        ends, at = [], 0
        for piece in pieces:
            ends.append((at, at + len(piece), True))
            at += len(piece)
        return ends
    found: list[tuple[int, int] | None] = []
    at = 0
    for piece in pieces:
        core = piece.strip().strip("\N{REPLACEMENT CHARACTER}")
        # A token that was lost before it may have left a character of up to four bytes, or a space.
        place = text.find(core, at, at + len(core) + 4) if core else -1
        found.append((place, place + len(core)) if place >= 0 else None)
        at = at if place < 0 else place + len(core)
    if sum(each is None for each in found) > len(found) / 2:
        return None
    ranges, before = [], 0
    for number, each in enumerate(found):
        after = next((later[0] for later in found[number + 1 :] if later is not None), len(text))
        ranges.append((*each, text[each[0] : each[1]] == pieces[number]) if each else (before, max(before, after), False))
        before = each[1] if each else before
    return ranges
