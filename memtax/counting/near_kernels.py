"""The compiled loops of counting near-duplicates: windows with at most e substituted tokens (Hamming distance).

By the pigeonhole principle, one of e + 1 disjoint segments of a window has no substitution. So every corpus position is
hashed over one segment's length and looked up among the segments of all windows; each proposal is verified token by token and
counts only at its first matching segment, so no position counts twice.

A segment that many windows share ("heavy") makes a position expensive. Repetitive corpora contain the same text around such
positions again and again, so heavy positions are grouped by all the text that decides them, and verified once per group.
"""

from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from memtax.compiled import kernel
from memtax.counting.kernels import FREE, probe
from memtax.counting.token_words import equal_text, load_word, mix, prefetch, tokens_a_word, whole_hash

HEAVY = 16
"""Number of windows sharing a segment from which equal positions are grouped."""

_ZERO = np.uint64(0)
_ONE = np.uint64(1)
_LOW_6 = np.uint64(63)
_SHIFT_6 = np.uint64(6)
_SHIFT_12 = np.uint64(12)
_TAG = np.uint64(0xFFFFFFFF00000000)
_INDEX = np.uint64(0xFFFFFFFF)
_STRIPE = 64
_SLOTS = 4096
_FACTOR = np.uint64(0xBF58476D1CE4E5B9)


class Segments(NamedTuple):
    """The segments of the windows, by hash; `m` of them are distinct."""

    windows: npt.NDArray[Any]
    """Shape (n, w), distinct, in the tokens' dtype."""
    starts: npt.NDArray[np.int64]
    """Shape (e + 1), start of each segment in a window."""
    length: int
    """Number of tokens hashed per segment."""
    substitutions: int
    """e."""
    separator: int
    """Positions that contain this token do not count; -1 for none."""
    keys: npt.NDArray[np.uint64]
    """Shape (m), the hashes."""
    bounds: npt.NDArray[np.int64]
    """Shape (m + 1), the range of each key in `entries`."""
    entries: npt.NDArray[np.int64]
    """window * 2^entry_bits + segment, by key."""
    entry_bits: int
    """Number of bits for the segment number."""
    table: npt.NDArray[np.uint64]
    """From `build_table`, like the next three."""
    table_shift: np.uint64
    """64 minus the binary logarithm of the table's size."""
    bloom: npt.NDArray[np.uint64]
    """The filter."""
    bloom_shift: np.uint64
    """64 minus the binary logarithm of the filter's number of words."""


class Room(NamedTuple):
    """Buffers that `scan_near` refills in every round."""

    places: npt.NDArray[np.int64]
    """Positions of the segments that passed the filter."""
    asked: npt.NDArray[np.uint64]
    """Their hashes, later replaced by the numbers of their keys."""
    firsts: npt.NDArray[np.int64]
    """Start positions of the proposed windows."""
    proposed: npt.NDArray[np.int64]
    """Their entries."""
    seen: npt.NDArray[np.int64]
    """Heavy positions, by the text that decides them: first occurrence, key, number of occurrences."""


@kernel(allocates=False)
def segment_hashes(tokens: npt.NDArray[Any], first: int, count: int, length: int, out: npt.NDArray[np.uint64]) -> None:
    """Mixed hashes of `length` tokens at `count` consecutive positions, starting at `first`."""
    in_word = tokens_a_word(tokens)
    words = length // in_word
    for i in range(count):
        out[i] = _ZERO
    for j in range(words):
        for i in range(count):
            h = out[i] * _FACTOR + load_word(tokens, np.int64(first + i + j * in_word))
            out[i] = h ^ (h >> np.uint64(29))
    for j in range(words * in_word, length):
        for i in range(count):
            out[i] = out[i] * _FACTOR + np.uint64(tokens[first + i + j])
    for i in range(count):
        out[i] = mix(out[i] * _FACTOR)


@kernel(allocates=False)
def window_segments(
    flat: npt.NDArray[Any], width: int, start: int, length: int, hashes: npt.NDArray[np.uint64], out: npt.NDArray[np.uint64]
) -> None:
    """Hash the segment at `start` of every window into `hashes` (n); `flat` holds windows of `width` tokens, `out` one hash."""
    for i in range(hashes.shape[0]):
        segment_hashes(flat, i * width + start, 1, length, out)
        hashes[i] = out[0]


@numba.njit(nogil=True, inline="always")
def _bloom_mask(mixed: np.uint64) -> np.uint64:
    """Three bits of a 64-bit filter word, chosen by low bits of a mixed hash whose top bits choose the word."""
    low = (_ONE << (mixed & _LOW_6)) | (_ONE << ((mixed >> _SHIFT_6) & _LOW_6))
    return low | (_ONE << ((mixed >> _SHIFT_12) & _LOW_6))


@kernel(allocates=False)
def build_table(
    keys: npt.NDArray[np.uint64],
    table: npt.NDArray[np.uint64],
    table_shift: np.uint64,
    bloom: npt.NDArray[np.uint64],
    bloom_shift: np.uint64,
) -> None:
    """Insert distinct mixed keys into the table (key number in the low half, high half of the key) and into the filter."""
    last = table.shape[0] - 1
    for i in range(keys.shape[0]):
        slot = np.int64(keys[i] >> table_shift)
        while table[slot] != FREE:
            slot = (slot + 1) & last
        table[slot] = (keys[i] & _TAG) | np.uint64(i)
        bloom[np.int64(keys[i] >> bloom_shift)] |= _bloom_mask(keys[i])


@numba.njit(nogil=True, inline="always")
def _differs(tokens: npt.NDArray[Any], first: int, windows: npt.NDArray[Any], window: int, start: int, length: int) -> int:
    """Number of tokens, among `length` from `start` on, in which the window at `first` differs from the numbered one."""
    wrong = 0
    for j in range(start, start + length):
        wrong += int(windows[window, j] != tokens[first + j])
    return wrong


@kernel(allocates=False)
def _counts(tokens: npt.NDArray[Any], first: int, index: Segments, window: int, segment: int) -> bool:
    """Whether the position `first` counts for a window proposed by the given segment."""
    windows, starts, length = index.windows, index.starts, index.length
    width = windows.shape[1]
    wrong = _differs(tokens, first, windows, window, 0, width)
    if wrong > index.substitutions:
        return False
    if wrong == 0 and segment > 0:
        return False
    if wrong > 0:
        # The segment itself must match (a hash only proposes), and no earlier one: the position counts there.
        if _differs(tokens, first, windows, window, starts[segment], length) > 0:
            return False
        for earlier in range(segment):
            if _differs(tokens, first, windows, window, starts[earlier], length) == 0:
                return False
    if index.separator >= 0:
        for j in range(width):
            if tokens[first + j] == index.separator:
                return False
    return True


@kernel(allocates=False)
def _verify(
    tokens: npt.NDArray[Any],
    place: int,
    low: int,
    high: int,
    times: int,
    index: Segments,
    key: int,
    found: npt.NDArray[np.int64],
) -> None:
    """Count the windows proposed by the segment at `place`, inside the sequence [low, high), with weight `times`."""
    width = index.windows.shape[1]
    for entry in range(index.bounds[key], index.bounds[key + 1]):
        window = index.entries[entry] >> index.entry_bits
        segment = index.entries[entry] & ((1 << index.entry_bits) - 1)
        first = place - index.starts[segment]
        if first < low or first + width > high:
            continue
        if _counts(tokens, first, index, window, segment):
            found[window] += times


@kernel()
def scan_near(tokens: npt.NDArray[Any], offsets: npt.NDArray[np.int64], index: Segments, found: npt.NDArray[np.int64]) -> None:
    """Count, in one block, the positions that differ from each window in at most `substitutions` tokens.

    Args:
        tokens: shape (tokens), uint16 or int32.
        offsets: shape (sequences + 1).
        index: the segments of the windows.
        found: shape (n), incremented.
    """
    bloom, bloom_shift, length = index.bloom, index.bloom_shift, index.length
    width = index.windows.shape[1]
    reach = index.starts[index.starts.shape[0] - 1]
    hashes = np.empty(_STRIPE, np.uint64)
    one = 2 * _STRIPE + 1
    places, asked = np.empty(one, np.int64), np.empty(one, np.uint64)
    seen = np.full((_SLOTS, 3), -1, np.int64)
    room = Room(places, asked, np.empty(2 * _STRIPE * HEAVY, np.int64), np.empty(2 * _STRIPE * HEAVY, np.int64), seen)
    row, kept = 0, 0
    every = tokens.shape[0] - length + 1
    for start in range(0, every, _STRIPE):
        here = min(_STRIPE, every - start)
        segment_hashes(tokens, start, here, length, hashes)
        for i in range(here):
            prefetch(bloom, np.int64(hashes[i] >> bloom_shift))
        for i in range(here):
            mask = _bloom_mask(hashes[i])
            places[kept], asked[kept] = start + i, hashes[i]
            kept += int((bloom[np.int64(hashes[i] >> bloom_shift)] & mask) == mask)
        if kept >= _STRIPE or start + here == every:
            row = _look_up(tokens, offsets, row, kept, index, room, found)
            kept = 0
    for at in range(_SLOTS):
        place = seen[at, 0]
        if place >= 0:
            _verify(tokens, place, place - reach, place + width, seen[at, 2], index, seen[at, 1], found)


@kernel(allocates=False)
def _look_up(  # noqa: C901 - one round after the other
    tokens: npt.NDArray[Any],
    offsets: npt.NDArray[np.int64],
    row: int,
    kept: int,
    index: Segments,
    room: Room,
    found: npt.NDArray[np.int64],
) -> int:
    """Look up the segments at `room.places`, in rounds that prefetch for the next; returns the row of the last position."""
    places, asked, table, table_shift, bounds = room.places, room.asked, index.table, index.table_shift, index.bounds
    width = index.windows.shape[1]
    last = table.shape[0] - 1
    for i in range(kept):
        prefetch(table, np.int64(asked[i] >> table_shift))
    hits = 0
    for i in range(kept):
        slot = probe(table, np.int64(asked[i] >> table_shift), asked[i])
        if table[slot] != FREE:
            places[hits], asked[hits] = places[i], asked[i]
            prefetch(index.keys, np.int64(table[slot] & _INDEX))
            prefetch(bounds, np.int64(table[slot] & _INDEX))
            hits += 1
    # From here on `asked` holds key numbers.
    matched = 0
    for i in range(hits):
        slot = probe(table, np.int64(asked[i] >> table_shift), asked[i])
        while table[slot] != FREE and index.keys[np.int64(table[slot] & _INDEX)] != asked[i]:
            slot = probe(table, (slot + 1) & last, asked[i])
        if table[slot] != FREE:
            places[matched], asked[matched] = places[i], table[slot] & _INDEX
            prefetch(index.entries, bounds[np.int64(asked[matched])])
            matched += 1
    tried = 0
    for i in range(matched):
        place, key = places[i], np.int64(asked[i])
        while offsets[row + 1] <= place:
            row += 1
        low, high = offsets[row], offsets[row + 1]
        if bounds[key + 1] - bounds[key] >= HEAVY:
            _heavy(tokens, place, low, high, key, index, room.seen, found)
            continue
        for entry in range(bounds[key], bounds[key + 1]):
            first = place - index.starts[index.entries[entry] & ((1 << index.entry_bits) - 1)]
            if first >= low and first + width <= high:
                room.firsts[tried], room.proposed[tried] = first, index.entries[entry]
                prefetch(index.windows, index.entries[entry] >> index.entry_bits)
                tried += 1
    for i in range(tried):
        window, segment = room.proposed[i] >> index.entry_bits, room.proposed[i] & ((1 << index.entry_bits) - 1)
        if _counts(tokens, room.firsts[i], index, window, segment):
            found[window] += 1
    return row


@kernel(allocates=False)
def _heavy(
    tokens: npt.NDArray[Any],
    place: int,
    low: int,
    high: int,
    key: int,
    index: Segments,
    seen: npt.NDArray[np.int64],
    found: npt.NDArray[np.int64],
) -> None:
    """Add a heavy position to `seen`; an entry evicted from its slot is verified, weighted by its occurrences."""
    width = index.windows.shape[1]
    reach = index.starts[index.starts.shape[0] - 1]
    times = 1
    if place - reach >= low and place + width <= high:
        context = whole_hash(tokens, place - reach, reach + width, _FACTOR)
        where = np.int64(mix(context) & np.uint64(_SLOTS - 1))
        before, its_key, before_times = seen[where, 0], seen[where, 1], seen[where, 2]
        if before >= 0 and equal_text(tokens, before - reach, tokens, place - reach, reach + width):
            seen[where, 2] += 1
            return
        seen[where, 0], seen[where, 1], seen[where, 2] = place, key, 1
        if before < 0:
            return
        place, key, times, low, high = before, its_key, before_times, before - reach, before + width
    _verify(tokens, place, low, high, times, index, key, found)
