"""From a document to the windows that were cut from it: where each stands, and what of the document's findings is in it."""

from collections.abc import Iterable, Sequence

from memtax.privacy.masking import Finding

_REACH = 64
"""Characters after the end of the window before in which a window is looked for."""


def locate(document: str, windows: Iterable[str]) -> list[tuple[int, int] | None]:
    """Where consecutive windows stand in the document that they were cut from.

    A window may begin or end within a character, which decodes to the replacement character, and may have lost the space that
    it begins with.

    Args:
        document: the whole text.
        windows: texts of the windows in the document's order.

    Returns:
        First character of each window, and the character after its last, as if all of its characters were the document's; None
        where the window is not found.
    """
    places: list[tuple[int, int] | None] = []
    at = 0
    for window in windows:
        core = window.strip("\N{REPLACEMENT CHARACTER}").lstrip()
        place = document.find(core, at, at + len(core) + _REACH) if core else -1
        if place < 0:
            places.append(None)
            at += len(window)
            continue
        start = place - window.index(core)
        places.append((start, start + len(window)))
        at = place + len(core)
    return places


def window_spans(findings: Sequence[Finding], place: tuple[int, int]) -> list[Finding]:
    """What of a document's findings stands in a window, in the window's own characters.

    Args:
        findings: of the document, in its order.
        place: of the window, as `locate` returns it.
    """
    start, end = place
    return [
        Finding(each.kind, max(each.start, start) - start, min(each.end, end) - start)
        for each in findings
        if each.start < end and each.end > start
    ]
