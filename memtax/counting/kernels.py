"""The compiled loops of exact window counting.

An occurrence of a window of w tokens contains, whatever its offset, k whole chunks of c tokens that start at a multiple of c:
the *anchor*. So the pass hashes chunks at multiples of c only and queries a Bloom filter that holds, for each requested
window, its c possible anchors: one look-up per c tokens, and no rolling hash. A filter word also encodes, twice, which of
those c positions its anchors have in their windows. Where an anchor passes, the windows at the encoded positions, which are
rarely false, are hashed as a whole and looked up in a table. A hash only proposes: a count is raised after all w tokens were
compared, so collisions cost time and never change a count.

Every read of a large table is prefetched some rounds before it is needed (`prefetch`): with 10^7 windows no read hits a
cache, and the memory serves many requests in the time of one.

With w = 32 tokens: c = 8, k = 3, one look-up per 8 tokens.
"""

from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from memtax.compiled import kernel
from memtax.counting.filter_words import bloom_mask, shift_mask, shifts_of
from memtax.counting.places import Where, keep
from memtax.counting.token_words import (
    SPREAD,
    equal_text,
    load_word,
    mix,
    ones,
    prefetch,
    tokens_a_word,
    trailing_zeros,
    whole_hash,
)

MULTIPLIER = 0x9E6C63D0876A9A47
"""M, an odd number with well-mixed bits. Any value gives the same counts."""

LARGEST_ANCHOR = 7
"""Maximum chunks per anchor: more would not make it more selective."""

_ZERO = np.uint64(0)
_ONE = np.uint64(1)
_TAG = np.uint64(0xFFFFFFFF00000000)
_INDEX = np.uint64(0xFFFFFFFF)
FREE = np.uint64(0xFFFFFFFFFFFFFFFF)
"""An empty slot in a table."""
_FOLD = np.uint64(32)
_STRIPE = 64
"""Anchors per round. Their filter words are prefetched together, while the tokens under them are counted."""


class Room(NamedTuple):
    """Buffers for one round of `scan`, each slightly larger than a round because gathering writes ahead."""

    places: npt.NDArray[np.int64]
    """Start positions of the anchors that passed the filter."""
    words: npt.NDArray[np.uint64]
    """Filter words of those anchors."""
    anchors: npt.NDArray[np.uint64]
    """Their hashes."""
    firsts: npt.NDArray[np.int64]
    """Start positions of the windows to try."""
    hashes: npt.NDArray[np.uint64]
    """Their hashes, later replaced by their table entries."""
    late_firsts: npt.NDArray[np.int64]
    """Start positions of windows whose slot in the table is taken by another window."""
    late_hashes: npt.NDArray[np.uint64]
    """Their hashes."""


@kernel(allocates=False)
def anchor_hashes(  # noqa: C901 - each loop is one vector operation
    tokens: npt.NDArray[Any],
    first: int,
    count: int,
    step: int,
    chunk: int,
    chunks: int,
    multiplier: np.uint64,
    parts: npt.NDArray[np.uint64],
    out: npt.NDArray[np.uint64],
) -> None:
    """Mixed hashes of `count` anchors, the i-th of which starts at token `first + i * step`.

    Every loop runs over independent anchors, so all loops compile to vector code.

    Args:
        tokens: the block.
        first: start of the first anchor.
        count: number of anchors.
        step: tokens between anchors: 1 or c.
        chunk: c, tokens per chunk.
        chunks: k, chunks per anchor.
        multiplier: M.
        parts: buffer for count + (k - 1) * c / step chunk hashes.
        out: shape (count), filled.
    """
    in_word = tokens_a_word(tokens)
    stride = chunk // step
    every = count + (chunks - 1) * stride
    if chunk >= in_word:
        for i in range(every):
            parts[i] = load_word(tokens, np.int64(first + i * step)) * SPREAD
        for j in range(1, chunk // in_word):
            factor = SPREAD * np.uint64(2 * j + 1)
            for i in range(every):
                word = load_word(tokens, np.int64(first + i * step + j * in_word))
                parts[i] = (parts[i] ^ (parts[i] >> _FOLD)) + word * factor
    else:
        for i in range(every):
            parts[i] = _ZERO
        for j in range(chunk):
            for i in range(every):
                parts[i] = parts[i] * SPREAD + np.uint64(tokens[first + i * step + j])
    for i in range(count):
        out[i] = parts[i]
    for j in range(1, chunks):
        for i in range(count):
            out[i] = out[i] * multiplier + parts[i + j * stride]
    for i in range(count):
        out[i] = mix(out[i])


@numba.njit(nogil=True, inline="always")
def probe(table: npt.NDArray[np.uint64], slot: int, h: np.uint64) -> int:
    """The first slot at or after `slot` that is free or has the tag of h (its high half)."""
    last = table.shape[0] - 1
    while table[slot] != FREE and (table[slot] ^ h) & _TAG:
        slot = (slot + 1) & last
    return slot


@numba.njit(nogil=True, inline="always")
def equal_slot(
    tokens: npt.NDArray[Any],
    first: int,
    h: np.uint64,
    windows: npt.NDArray[Any],
    width: int,
    table: npt.NDArray[np.uint64],
    slot: int,
) -> int:
    """The slot, at or after a probed one, of the window equal to `tokens[first:first + w]`, or the free slot for it.

    `windows` is flat; windows are compared word by word and then token by token.
    """
    last = table.shape[0] - 1
    while table[slot] != FREE:
        if equal_text(windows, np.int64(table[slot] & _INDEX) * width, tokens, first, width):
            break
        slot = probe(table, (slot + 1) & last, h)
    return slot


@kernel()
def build(
    windows: npt.NDArray[Any],
    multiplier: np.uint64,
    chunk: int,
    chunks: int,
    owners: npt.NDArray[np.int32],
    table: npt.NDArray[np.uint64],
    table_shift: np.uint64,
    bloom: npt.NDArray[np.uint64],
    bloom_shift: np.uint64,
) -> None:
    """Index the requested windows.

    Args:
        windows: shape (n, w), the windows, in the corpus's dtype.
        multiplier: M.
        chunk: c, tokens per chunk.
        chunks: k, chunks per anchor.
        owners: shape (n), filled with the first window that has the same tokens: equal windows share one count.
        table: power-of-two size above n, all ones; each entry, at the hash's slot or the next free one, gets the window
            number in its low half and the high half of the hash in its high half.
        table_shift: 64 minus the binary logarithm of the table's size.
        bloom: power-of-two number of 64-bit words, all 0; each anchor sets two bits in the lower half of one word, and two
            in the upper half for its position in the window.
        bloom_shift: 64 minus the binary logarithm of the number of words.
    """
    n, width = windows.shape
    flat = windows.reshape(-1)
    parts = np.empty(chunk * chunks, np.uint64)
    hashes, anchors = np.empty(_STRIPE, np.uint64), np.empty(_STRIPE * chunk, np.uint64)
    for start in range(0, n, _STRIPE):
        here = min(n, start + _STRIPE) - start
        for i in range(here):
            first = (start + i) * width
            hashes[i] = mix(whole_hash(flat, first, width, multiplier))
            prefetch(table, np.int64(hashes[i] >> table_shift))
            anchor_hashes(flat, first, chunk, 1, chunk, chunks, multiplier, parts, anchors[i * chunk : (i + 1) * chunk])
            for at in range(i * chunk, (i + 1) * chunk):
                prefetch(bloom, np.int64(anchors[at] >> bloom_shift))
        for i in range(here):
            h = hashes[i]
            slot = probe(table, np.int64(h >> table_shift), h)
            slot = equal_slot(flat, (start + i) * width, h, flat, width, table, slot)
            if table[slot] == FREE:
                table[slot] = (h & _TAG) | np.uint64(start + i)
                for shift in range(chunk):
                    anchor = anchors[i * chunk + shift]
                    bloom[np.int64(anchor >> bloom_shift)] |= bloom_mask(anchor) | shift_mask(anchor, shift)
            owners[start + i] = np.int32(table[slot] & _INDEX)


@kernel()
def count_tokens(
    tokens: npt.NDArray[Any],
    offsets: npt.NDArray[np.int64],
    groups: npt.NDArray[np.uint8],
    frequencies: npt.NDArray[np.int64],
) -> None:
    """Increment `frequencies[group of the row, token]` for every token; shape (groups, vocabulary)."""
    for row in range(offsets.shape[0] - 1):
        group = groups[row]
        for p in range(offsets[row], offsets[row + 1]):
            frequencies[group, tokens[p]] += 1


@kernel()
def scan(
    tokens: npt.NDArray[Any],
    offsets: npt.NDArray[np.int64],
    frequencies: npt.NDArray[np.int64],
    windows: npt.NDArray[Any],
    multiplier: np.uint64,
    chunk: int,
    chunks: int,
    table: npt.NDArray[np.uint64],
    table_shift: np.uint64,
    bloom: npt.NDArray[np.uint64],
    bloom_shift: np.uint64,
    targets: npt.NDArray[np.int64],
    found: npt.NDArray[np.int64],
    where: Where,
) -> None:
    """Count one block: every token, and every occurrence of an indexed window inside a sequence.

    Args:
        tokens: shape (tokens), uint16 or int32, each id below the size of `frequencies`.
        offsets: shape (sequences + 1), from 0 to the number of tokens.
        frequencies: shape (vocabulary), incremented for each token; of size 0 if tokens are counted elsewhere.
        windows: shape (n, w), in the tokens' dtype; none if n is 0.
        multiplier: M.
        chunk: c, tokens per chunk.
        chunks: k, chunks per anchor.
        table: from `build`, like the next three.
        table_shift: see `build`.
        bloom: see `build`.
        bloom_shift: see `build`.
        targets: shape (n), index in `found` at which each window counts; of size 0 if it is the window's own number.
        found: incremented at the owner of each window found.
        where: position of the block in the corpus, and the first occurrences of each owner, numbered as in `found`.
    """
    n, width = windows.shape
    flat = windows.reshape(-1)
    total = tokens.shape[0]
    counted = row = kept = 0
    if n > 0:
        parts, anchors = np.empty(_STRIPE + chunks, np.uint64), np.empty(_STRIPE, np.uint64)
        one, all_of_them = 2 * _STRIPE + 1, 2 * _STRIPE * chunk + 2
        room = Room(
            np.empty(one, np.int64),
            np.empty(one, np.uint64),
            np.empty(one, np.uint64),
            np.empty(all_of_them, np.int64),
            np.empty(all_of_them, np.uint64),
            np.empty(all_of_them, np.int64),
            np.empty(all_of_them, np.uint64),
        )
        every = total // chunk - chunks + 1
        for start in range(0, every, _STRIPE):
            here = min(_STRIPE, every - start)
            anchor_hashes(tokens, start * chunk, here, chunk, chunk, chunks, multiplier, parts, anchors)
            for i in range(here):
                prefetch(bloom, np.int64(anchors[i] >> bloom_shift))
            if frequencies.shape[0]:
                for p in range(start * chunk, (start + here) * chunk):
                    frequencies[tokens[p]] += 1
                counted = (start + here) * chunk
            # Candidates are gathered without branches, so no memory read waits for another, until they fill a round.
            for i in range(here):
                mask = bloom_mask(anchors[i])
                word = bloom[np.int64(anchors[i] >> bloom_shift)]
                room.places[kept], room.words[kept], room.anchors[kept] = (start + i) * chunk, word, anchors[i]
                kept += int((word & mask) == mask)
            if kept >= _STRIPE or start + here == every:
                tried, row = _to_try(offsets, row, kept, width, chunk, room)
                _look_up(tokens, offsets, tried, flat, width, multiplier, table, table_shift, targets, found, where, room)
                kept = 0
    if frequencies.shape[0]:
        for p in range(counted, total):
            frequencies[tokens[p]] += 1


@kernel(allocates=False)
def _to_try(offsets: npt.NDArray[np.int64], row: int, kept: int, width: int, chunk: int, room: Room) -> tuple[int, int]:
    """Fill `room.firsts` with the windows, inside a sequence, that may surround the anchors that passed the filter.

    Returns their number and the row of the last anchor (initially a row at or before the first anchor).
    """
    tried = 0
    for i in range(kept):
        place = room.places[i]
        while offsets[row + 1] <= place:
            row += 1
        # Windows whose first anchor is this one start between `low` and `high` of the anchor's sequence.
        low, high = offsets[row], offsets[row + 1] - width
        least, most = max(0, place - high), min(chunk - 1, place - low)
        if most >= least:
            bits = (shifts_of(room.words[i], room.anchors[i]) >> np.uint64(least)) & (
                (_ONE << np.uint64(most - least + 1)) - _ONE
            )
            # Nearly always one or two, which are written without a branch.
            after = tried + ones(bits)
            for _ in range(2):
                room.firsts[tried] = place - least - trailing_zeros(bits)
                bits &= bits - _ONE
                tried += 1
            while bits:
                room.firsts[tried] = place - least - trailing_zeros(bits)
                bits &= bits - _ONE
                tried += 1
            tried = after
    return tried, row


@kernel(allocates=False)
def _look_up(
    tokens: npt.NDArray[Any],
    offsets: npt.NDArray[np.int64],
    tried: int,
    windows: npt.NDArray[Any],
    width: int,
    multiplier: np.uint64,
    table: npt.NDArray[np.uint64],
    table_shift: np.uint64,
    targets: npt.NDArray[np.int64],
    found: npt.NDArray[np.int64],
    where: Where,
    room: Room,
) -> None:
    """Look up the windows that start at `room.firsts` and count those found. Arguments as in `scan`.

    Each round over them prefetches the memory that the next round reads, and gathers candidates without branches. Kept
    entries are written before the position being read, so one array serves both.
    """
    firsts, hashes = room.firsts, room.hashes
    for i in range(tried):
        hashes[i] = mix(whole_hash(tokens, firsts[i], width, multiplier))
        prefetch(table, np.int64(hashes[i] >> table_shift))
    proposed = late = 0
    for i in range(tried):
        h, first = hashes[i], firsts[i]
        entry = table[np.int64(h >> table_shift)]
        taken = int(entry != FREE)
        same = taken & int((entry ^ h) & _TAG == _ZERO)
        firsts[proposed], hashes[proposed] = first, entry
        proposed += same
        room.late_firsts[late], room.late_hashes[late] = first, h
        late += taken - same
    for i in range(late):
        h = room.late_hashes[i]
        entry = table[probe(table, np.int64(h >> table_shift), h)]
        firsts[proposed], hashes[proposed] = room.late_firsts[i], entry
        proposed += int(entry != FREE)
    for i in range(proposed):
        number = np.int64(hashes[i] & _INDEX)
        prefetch(windows, number * width)
        prefetch(found, targets[number] if targets.shape[0] else number)
    for i in range(proposed):
        number = np.int64(hashes[i] & _INDEX)
        if not equal_text(windows, number * width, tokens, firsts[i], width):
            # A collision: search again from the hash's slot, comparing all windows that have its tag.
            h = mix(whole_hash(tokens, firsts[i], width, multiplier))
            slot = probe(table, np.int64(h >> table_shift), h)
            slot = equal_slot(tokens, firsts[i], h, windows, width, table, slot)
            if table[slot] == FREE:
                continue
            number = np.int64(table[slot] & _INDEX)
        target = targets[number] if targets.shape[0] else number
        found[target] += 1
        if where.places.order.shape[0]:
            keep(where, target, firsts[i], offsets)
