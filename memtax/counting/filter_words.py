"""The words of the Bloom filter that counting asks: which bits an anchor sets, and where in its window it may stand."""

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
    """Two of the low 32 bits of a 64-bit word, from low bits of a mixed hash; its top bits choose the word."""
    return (_ONE << (mixed & _FIVE)) | (_ONE << ((mixed >> _SHIFT_6) & _FIVE))


@numba.njit(nogil=True, inline="always")
def shift_mask(mixed: np.uint64, shift: int) -> np.uint64:
    """One bit in each of the two upper 16s of the word: where in its window the anchor stands, turned by its hash.

    Anchors that share a word turn theirs differently, so that one's bits are read as another's in both for a few only.
    """
    place = np.uint64(shift)
    high = _ONE << (_PLACES + (((mixed >> _SHIFT_16) + place) & _FOUR))
    return high | (_ONE << (_FOLD + (((mixed >> _SHIFT_12) + place) & _FOUR)))


@numba.njit(nogil=True, inline="always")
def shifts_of(word: np.uint64, mixed: np.uint64) -> np.uint64:
    """What both upper 16s of a word, turned back, say: bit i that the anchor may stand i tokens after its window's start."""
    first, second = word >> _PLACES, (word >> _FOLD) & _SIXTEEN
    first = (first | (first << _SHIFT_16)) >> ((mixed >> _SHIFT_16) & _FOUR)
    return first & ((second | (second << _SHIFT_16)) >> ((mixed >> _SHIFT_12) & _FOUR))
