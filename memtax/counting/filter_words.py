"""Words of the Bloom filter used in counting: the bits that an anchor sets, and its possible positions in its window."""

import numba
import numpy as np

_ONE = np.uint64(1)
_FIVE = np.uint64(31)
_FOUR = np.uint64(15)
_SIXTEEN = np.uint64(0xFFFF)
_PLACES = np.uint64(48)
_FOLD = np.uint64(32)
_SHIFT_6 = np.uint64(6)
_SHIFT_12 = np.uint64(12)
_SHIFT_16 = np.uint64(16)


@numba.njit(nogil=True, inline="always")
def bloom_mask(mixed: np.uint64) -> np.uint64:
    """Two of the low 32 bits of a 64-bit word, chosen by low bits of a mixed hash whose top bits choose the word."""
    return (_ONE << (mixed & _FIVE)) | (_ONE << ((mixed >> _SHIFT_6) & _FIVE))


@numba.njit(nogil=True, inline="always")
def shift_mask(mixed: np.uint64, shift: int) -> np.uint64:
    """One bit in each of the two upper 16-bit groups: the anchor's position in its window, rotated by its hash.

    Anchors that share a word rotate their bits differently, so few bits of one are mistaken for another's in both groups.
    """
    place = np.uint64(shift)
    high = _ONE << (_PLACES + (((mixed >> _SHIFT_16) + place) & _FOUR))
    return high | (_ONE << (_FOLD + (((mixed >> _SHIFT_12) + place) & _FOUR)))


@numba.njit(nogil=True, inline="always")
def shifts_of(word: np.uint64, mixed: np.uint64) -> np.uint64:
    """Positions set in both upper 16-bit groups, rotated back: bit i if the anchor may start i tokens into its window."""
    first, second = word >> _PLACES, (word >> _FOLD) & _SIXTEEN
    first = (first | (first << _SHIFT_16)) >> ((mixed >> _SHIFT_16) & _FOUR)
    return first & ((second | (second << _SHIFT_16)) >> ((mixed >> _SHIFT_12) & _FOUR))
