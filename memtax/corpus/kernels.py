"""The compiled loops of counting: a rolling hash, a Bloom filter, an open-addressing table, and the comparison that decides.

The hash of a window t[0..w) is sum t[j] * M^(w-1-j) mod 2^64. Low bits of such a sum depend on low bits of the tokens only, so
positions in the filter and the table are the top bits after multiplying with a second odd constant (Fibonacci hashing).
A hash only proposes: a count is raised after all w tokens were compared, so collisions cost time and never change a count.
"""

import numba
import numpy as np
import numpy.typing as npt

MULTIPLIER = 0x9E6C63D0876A9A47
"""M, an odd number with well mixed bits. Any value gives the same counts."""

_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_ZERO = np.uint64(0)
_ONE = np.uint64(1)
_LOW = np.uint64(63)
_CHUNK = 512


@numba.njit(cache=True, nogil=True)
def bloom_mask(mixed: np.uint64) -> np.uint64:
    """Three bits of a 64-bit word, from bits of the spread hash below those that choose the word."""
    a = _ONE << ((mixed >> np.uint64(22)) & _LOW)
    b = _ONE << ((mixed >> np.uint64(28)) & _LOW)
    c = _ONE << ((mixed >> np.uint64(34)) & _LOW)
    return a | b | c


@numba.njit(cache=True, nogil=True)
def find_slot(
    tokens: npt.NDArray[np.int32],
    first: int,
    h: np.uint64,
    windows: npt.NDArray[np.int32],
    hashes: npt.NDArray[np.uint64],
    table: npt.NDArray[np.int32],
    slot: int,
) -> int:
    """The slot of the window equal to `tokens[first:first + w]`, whose hash is h, or the free slot where it would go."""
    width = windows.shape[1]
    mask = table.shape[0] - 1
    while table[slot] >= 0:
        other = table[slot]
        if hashes[other] == h:
            j = 0
            while j < width and windows[other, j] == tokens[first + j]:
                j += 1
            if j == width:
                break
        slot = (slot + 1) & mask
    return slot


@numba.njit(cache=True, nogil=True)
def build(
    windows: npt.NDArray[np.int32],
    multiplier: np.uint64,
    hashes: npt.NDArray[np.uint64],
    owners: npt.NDArray[np.int32],
    table: npt.NDArray[np.int32],
    table_shift: np.uint64,
    bloom: npt.NDArray[np.uint64],
    bloom_shift: np.uint64,
) -> None:
    """Index the windows asked for.

    Args:
        windows: shape (n, w), the windows.
        multiplier: M.
        hashes: shape (n), filled with their hashes.
        owners: shape (n), filled with the first window that has the same tokens: equal windows share one count.
        table: power-of-two size above n, all -1; filled with window numbers at their hash's slot or the next free one.
        table_shift: 64 less the binary logarithm of the table's size.
        bloom: power-of-two number of 64-bit words, all 0; each hash sets three bits of one word, so a look-up reads one.
        bloom_shift: 64 less the binary logarithm of the number of words.
    """
    n, width = windows.shape
    flat = windows.reshape(-1)
    for i in range(n):
        h = _ZERO
        for j in range(width):
            h = h * multiplier + np.uint64(windows[i, j])
        hashes[i] = h
        mixed = h * _SPREAD
        slot = find_slot(flat, i * width, h, windows, hashes, table, np.int64(mixed >> table_shift))
        if table[slot] < 0:
            table[slot] = i
            bloom[np.int64(mixed >> bloom_shift)] |= bloom_mask(mixed)
        owners[i] = table[slot]


@numba.njit(cache=True, nogil=True)
def scan(
    tokens: npt.NDArray[np.int32],
    offsets: npt.NDArray[np.int64],
    frequencies: npt.NDArray[np.int64],
    windows: npt.NDArray[np.int32],
    multiplier: np.uint64,
    power: np.uint64,
    hashes: npt.NDArray[np.uint64],
    table: npt.NDArray[np.int32],
    table_shift: np.uint64,
    bloom: npt.NDArray[np.uint64],
    bloom_shift: np.uint64,
    found: npt.NDArray[np.int64],
) -> None:
    """Count one block: every token, and every place where an indexed window stands inside a sequence.

    Args:
        tokens: shape (tokens), uint16 or int32, each id below the size of `frequencies`.
        offsets: shape (sequences + 1).
        frequencies: shape (vocabulary), raised by one for each token.
        windows: shape (n, w); none if n is 0.
        multiplier: M.
        power: M^w mod 2^64.
        hashes: from `build`, as the four that follow.
        table: see `build`.
        table_shift: see `build`.
        bloom: see `build`.
        bloom_shift: see `build`.
        found: shape (n), raised by one at the owner of each window found.
    """
    n, width = windows.shape
    places = np.empty(_CHUNK, np.int64)
    proposed = np.empty(_CHUNK, np.uint64)
    for row in range(offsets.shape[0] - 1):
        start, stop = offsets[row], offsets[row + 1]
        # Tokens first, then windows: the sequence is in the first-level cache the second time.
        for p in range(start, stop):
            frequencies[tokens[p]] += 1
        if n == 0 or stop - start < width:
            continue
        h = _ZERO
        for p in range(start, start + width - 1):
            h = h * multiplier + np.uint64(tokens[p])
        leaving = _ZERO
        for chunk in range(start, stop - width + 1, _CHUNK):
            # Candidates are gathered without a branch, so that neither the hash nor the filter's memory reads ever wait.
            kept = np.int64(0)
            for first in range(chunk, min(chunk + _CHUNK, stop - width + 1)):
                # What leaves was multiplied by M once more than M^(w-1) by the time it is taken out.
                h = h * multiplier + (np.uint64(tokens[first + width - 1]) - power * leaving)
                leaving = np.uint64(tokens[first])
                mixed = h * _SPREAD
                mask = bloom_mask(mixed)
                places[kept] = first
                proposed[kept] = h
                kept += np.int64((bloom[np.int64(mixed >> bloom_shift)] & mask) == mask)
            for i in range(kept):
                h_i = proposed[i]
                slot = find_slot(tokens, places[i], h_i, windows, hashes, table, np.int64((h_i * _SPREAD) >> table_shift))
                if table[slot] >= 0:
                    found[table[slot]] += 1
