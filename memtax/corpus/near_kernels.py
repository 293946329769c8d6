"""The compiled loops of counting near-duplicates: windows with at most e substituted tokens (Hamming distance).

Pigeonhole: of e + 1 disjoint segments of a window, one has no substitution. So every place of the corpus is hashed over one
segment's length and looked up among the segments of all windows; each proposal is verified token by token, and counts at
its first matching segment only, so that no place counts twice.

A segment that many windows share ("heavy") makes a place dear. The same text around such places comes again and again in
repetitive corpora, so heavy places are collected by the whole text that decides them, and verified once for all that are equal.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from memtax.compiled import kernel
from memtax.corpus.kernels import bloom_mask
from memtax.corpus.words import load_word, mix, prefetch, tokens_a_word

HEAVY = 16
"""Windows that share a segment from which on equal places are collected."""

_ZERO = np.uint64(0)
_STRIPE = 64
_SLOTS = 4096
_FACTOR = np.uint64(0xBF58476D1CE4E5B9)


@kernel(allocates=False)
def segment_hashes(tokens: npt.NDArray[Any], first: int, count: int, length: int, out: npt.NDArray[np.uint64]) -> None:
    """Mixed hashes of `length` tokens from each of `count` places from `first` on."""
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


@kernel(allocates=False)
def build_table(
    keys: npt.NDArray[np.uint64],
    table: npt.NDArray[np.int32],
    table_shift: np.uint64,
    bloom: npt.NDArray[np.uint64],
    bloom_shift: np.uint64,
) -> None:
    """Put distinct keys (already mixed) into an open-addressing table of their numbers, and into the filter."""
    last = table.shape[0] - 1
    for i in range(keys.shape[0]):
        slot = np.int64(keys[i] >> table_shift)
        while table[slot] >= 0:
            slot = (slot + 1) & last
        table[slot] = i
        bloom[np.int64(keys[i] >> bloom_shift)] |= bloom_mask(keys[i])


@kernel(allocates=False)
def _verify(  # noqa: C901 - a compiled loop
    tokens: npt.NDArray[Any],
    place: int,
    low: int,
    high: int,
    times: int,
    windows: npt.NDArray[Any],
    starts: npt.NDArray[np.int64],
    length: int,
    substitutions: int,
    separator: int,
    entries: npt.NDArray[np.int64],
    begin: int,
    end: int,
    found: npt.NDArray[np.int64],
) -> None:
    """Count the windows proposed by the segment at `place`, inside the sequence [low, high), `times` times."""
    width = windows.shape[1]
    segments = starts.shape[0]
    for entry in range(begin, end):
        window, segment = entries[entry] // segments, entries[entry] % segments
        first = place - starts[segment]
        if first < low or first + width > high:
            continue
        wrong = 0
        for j in range(width):
            wrong += int(windows[window, j] != tokens[first + j])
        if wrong > substitutions:
            continue
        counts = True
        if wrong > 0:
            # The segment itself must match (a hash only proposes), and none before it: those places count there.
            for earlier in range(segment + 1):
                same = True
                for j in range(starts[earlier], starts[earlier] + length):
                    same &= windows[window, j] == tokens[first + j]
                counts &= same == (earlier == segment)
        else:
            counts = segment == 0
        if counts and separator >= 0:
            for j in range(width):
                counts &= tokens[first + j] != separator
        if counts:
            found[window] += times


@kernel()
def scan_near(  # noqa: C901 - a compiled loop
    tokens: npt.NDArray[Any],
    offsets: npt.NDArray[np.int64],
    windows: npt.NDArray[Any],
    starts: npt.NDArray[np.int64],
    length: int,
    substitutions: int,
    separator: int,
    keys: npt.NDArray[np.uint64],
    bounds: npt.NDArray[np.int64],
    entries: npt.NDArray[np.int64],
    table: npt.NDArray[np.int32],
    table_shift: np.uint64,
    bloom: npt.NDArray[np.uint64],
    bloom_shift: np.uint64,
    found: npt.NDArray[np.int64],
) -> None:
    """Count, in one block, the places that differ from each window in at most `substitutions` tokens.

    Args:
        tokens: shape (tokens), uint16 or int32.
        offsets: shape (sequences + 1).
        windows: shape (n, w), distinct, of the tokens' type.
        starts: shape (e + 1), where each segment starts in a window.
        length: tokens of each segment that are hashed.
        substitutions: e.
        separator: places that hold this token do not count; -1 for none.
        keys: shape (m), the distinct hashes of segments.
        bounds: shape (m + 1), the range of each key in `entries`.
        entries: window * (e + 1) + segment, by key.
        table: see `build_table`, as the three that follow.
        table_shift: 64 less the binary logarithm of the table's size.
        bloom: the filter.
        bloom_shift: 64 less the binary logarithm of its number of words.
        found: shape (n), raised.
    """
    width = windows.shape[1]
    last = table.shape[0] - 1
    reach = starts[starts.shape[0] - 1]
    hashes, places = np.empty(_STRIPE, np.uint64), np.empty(_STRIPE, np.int64)
    # Heavy places, by the text from `reach` before to w after them: where it first came, and how often.
    seen = np.full(_SLOTS, -1, np.int64)
    seen_key, times = np.zeros(_SLOTS, np.int64), np.zeros(_SLOTS, np.int64)
    row = 0
    every = tokens.shape[0] - length + 1
    for start in range(0, every, _STRIPE):
        here = min(_STRIPE, every - start)
        segment_hashes(tokens, start, here, length, hashes)
        for i in range(here):
            prefetch(bloom, np.int64(hashes[i] >> bloom_shift))
        kept = 0
        for i in range(here):
            mask = bloom_mask(hashes[i])
            places[kept] = i
            kept += int((bloom[np.int64(hashes[i] >> bloom_shift)] & mask) == mask)
        for i in range(kept):
            prefetch(table, np.int64(hashes[places[i]] >> table_shift))
        for i in range(kept):
            h = hashes[places[i]]
            place = start + places[i]
            slot = np.int64(h >> table_shift)
            while table[slot] >= 0 and keys[table[slot]] != h:
                slot = (slot + 1) & last
            key = np.int64(table[slot])
            if key < 0:
                continue
            while offsets[row + 1] <= place:
                row += 1
            low, high = offsets[row], offsets[row + 1]
            begin, end = bounds[key], bounds[key + 1]
            if end - begin >= HEAVY and place - reach >= low and place + width <= high:
                context = _ZERO
                for j in range(place - reach, place + width):
                    context = context * _FACTOR + np.uint64(tokens[j])
                where = np.int64(mix(context) & np.uint64(_SLOTS - 1))
                before = seen[where]
                same = before >= 0
                if same:
                    for j in range(-reach, width):
                        if tokens[before + j] != tokens[place + j]:
                            same = False
                            break
                if same:
                    times[where] += 1
                    continue
                if before >= 0:
                    b, e = bounds[seen_key[where]], bounds[seen_key[where] + 1]
                    _verify(
                        tokens, before, before - reach, before + width, times[where], windows, starts, length,
                        substitutions, separator, entries, b, e, found,
                    )  # fmt: skip
                seen[where], seen_key[where], times[where] = place, key, 1
                continue
            _verify(tokens, place, low, high, 1, windows, starts, length, substitutions, separator, entries, begin, end, found)
    for at in range(_SLOTS):
        if seen[at] >= 0:
            b, e = bounds[seen_key[at]], bounds[seen_key[at] + 1]
            _verify(
                tokens, seen[at], seen[at] - reach, seen[at] + width, times[at], windows, starts, length,
                substitutions, separator, entries, b, e, found,
            )  # fmt: skip
