"""Personal data in texts: found by form, checksum and numbering plan, and masked wherever a text is quoted."""

from memtax.privacy.detection import KINDS, PACKAGES, find, missing_packages
from memtax.privacy.masking import Finding, cover, mask, mask_pieces, mask_text
from memtax.privacy.patterns import conceal
from memtax.privacy.windows import locate, window_spans

__all__ = [
    "KINDS",
    "PACKAGES",
    "Finding",
    "conceal",
    "cover",
    "find",
    "locate",
    "mask",
    "mask_pieces",
    "mask_text",
    "missing_packages",
    "window_spans",
]
