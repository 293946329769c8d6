"""The compiled search behind `TemplateFilter` for repetitions and counters in a sequence of items.

An item is *predicted* at lag p if the item p positions earlier determines it: the two are equal, or both are values of one
counter and three successive values at that lag form an arithmetic or geometric progression (two values that differ by one if
the text has no room for a third), or the counter has just restarted. A *stretch* is a run of items that are mostly predicted
at one lag, together with the first period, which predicts the rest. It is found as the segment with the largest score: a
predicted item scores its length in characters, and any other item costs `MISMATCH` times its length, so a stretch survives
short interruptions (Kadane's algorithm, one linear pass per lag).
"""

import numpy as np

from memtax.compiled import kernel
from memtax.filters._template_items import KIND, OTHER_KIND, OTHER_VALUE, SHAPE, VALUE, WEIGHT
from memtax.filters._template_lags import candidate_lags
from memtax.filters._template_words import HEX, NUMBER, Array

MISMATCH, EXACT = 2.0, 100.0
"""Cost of an unpredicted character, in predicted ones: with the first value, at least two thirds of a stretch with positive
score are predicted, with the second practically all of it."""
SHORT_RECORD = 5
"""Number of items up to which a list record is an entry of one or two words with its number, not a numbered paragraph."""
LONGEST_RECORD = 24
"""Maximum number of items between two values of a counter whose records differ in length."""
SMALLEST = 0.1
"""A stretch counts if it scores more than this share of the text's characters."""
REGULAR, RARE, STEADY = 0.4, 0.02, 0.8
"""A stretch is regular if at most the first share of its periods contain unpredicted items, or these are at most the second
share of its items, or a counter continues through the third share of its periods; repeated calls with new arguments are not."""
PIECES = 16
"""Maximum number of parts of one text that are searched for stretches."""

COVERED, COUNTED, MAIN, ENDS, MAIN_ENDS, LISTED, RECURRING = range(7)
"""Columns that `describe` returns."""

NONE, SAME, COUNTS, RESTARTS = range(4)
"""How an item follows from the item one period earlier."""


@kernel()
def _progression(t: int, u: int, v: int) -> bool:
    """Whether three successive values, u and v different, form an arithmetic progression or grow by a constant factor."""
    return v - u == u - t or (0 < t < u and u % t == 0 and v % u == 0 and v // u == u // t)


@kernel()
def _reading(table: Array, key: int, kind: int) -> tuple[bool, int]:
    """An item's value as a counter of the given kind, if it has one."""
    if table[key, KIND] == kind:
        return True, table[key, VALUE]
    if table[key, OTHER_KIND] == kind:
        return True, table[key, OTHER_VALUE]
    return False, 0


@kernel()
def _goes_on(keys: Array, table: Array, low: int, high: int, place: int, lag: int, kind: int, value: int) -> int:
    """How a value at `place` continues the counter of its kind at the lag, given the items in [low, high) only."""
    is_value, before = _reading(table, keys[place - lag], kind)
    if not is_value:
        return NONE
    has_earlier, has_later = place - 2 * lag >= low, place + lag < high
    if has_earlier:
        is_value, earlier = _reading(table, keys[place - 2 * lag], kind)
        if is_value and _progression(earlier, before, value):
            return COUNTS
        if is_value and value <= 1 and abs(before - earlier) == 1:
            return RESTARTS
    if has_later:
        is_value, later = _reading(table, keys[place + lag], kind)
        if is_value and _progression(before, value, later):
            return COUNTS
    return COUNTS if not has_earlier and not has_later and abs(value - before) == 1 else NONE


@kernel()
def _follows(keys: Array, table: Array, low: int, high: int, place: int, lag: int) -> int:
    """How the item at `place` follows from the item `lag` positions earlier: SAME, COUNTS, RESTARTS or NONE."""
    key = keys[place]
    if key == keys[place - lag]:
        return SAME
    for column in (KIND, OTHER_KIND):
        kind = table[key, column]
        if kind != 0:
            follows = _goes_on(keys, table, low, high, place, lag, kind, table[key, column + 1])
            if follows != NONE:
                return follows
    return NONE


@kernel()
def _bound(shapes: Array, weights: Array, low: int, high: int, lag: int, mismatch: float, least: float) -> float:
    """Upper bound on the score of a stretch in [low, high) at a lag: `_best_stretch` with shape equality as prediction.

    Most lags of most texts are rejected by the total of items with equal shape, which is vectorized.
    """
    before, after, weight = shapes[low : high - lag], shapes[low + lag : high], weights[low + lag : high]
    total = 0
    for place in range(len(weight)):
        total += weight[place] if before[place] == after[place] else 0
    if total <= least:
        return total
    best = score = 0.0
    for place in range(len(weight)):
        gain = weight[place] if before[place] == after[place] else -mismatch * weight[place]
        score = max(0.0, score + gain)
        best = max(best, score)
    return best


@kernel()
def _best_stretch(
    keys: Array,
    table: Array,
    shapes: Array,
    weights: Array,
    low: int,
    high: int,
    repetitions: float,
    mismatch: float,
    least: float,
) -> tuple[int, int, int, int, int]:
    """The stretch in [low, high) with the largest score that shows its period `repetitions` times.

    A stretch must score more than `least`. Lags that cannot beat this or the best stretch so far are skipped.

    Returns:
        lag (0: there is none), start, end, predicted characters, positions at which a counter advances.
    """
    best = least
    found = (0, low, low, 0, 0)
    for lag in candidate_lags(shapes, weights, low, high, int((high - low) / repetitions)):
        if _bound(shapes, weights, low, high, lag, mismatch, best) <= best:
            continue
        score = 0.0
        start = predicted = counted = 0
        for place in range(low + lag, high):
            follows = _follows(keys, table, low, high, place, lag)
            if follows == NONE:
                score = max(0.0, score - mismatch * weights[place])
                continue
            if score == 0.0:
                start, predicted, counted = place - lag, 0, 0
            score += weights[place]
            predicted += weights[place]
            counted += follows == COUNTS
            if score > best and place + 1 - start >= repetitions * lag:
                best = score
                found = (lag, start, place + 1, predicted, counted)
    return found


@kernel()
def _counter(keys: Array, table: Array, low: int, high: int, terms: int, side: int, seen: Array) -> tuple[int, int, int]:
    """The longest run of a number that increases by one per record, whatever else the records contain.

    Only numbers count, because months and letters in prose increase by one as well.

    Values belong to one counter if they have the same kind and are next to the same item: after it (`side` -1: `invoice 7`)
    or before it (1: `7.`, `0x0a:`). For each such item, `seen`, of shape (3, keys), holds the position of the last value, and
    the first position and the number of values of the run.

    Returns:
        items per record (0: there is no run of `terms` values), start, end (assuming mean length for the last record).
    """
    last, first, length = seen
    found = (0, low, low)
    for place in range(low + (side < 0), high - (side > 0)):
        group, kind = keys[place + side], table[keys[place], KIND]
        if kind != NUMBER and kind != HEX:
            continue
        before = last[group]
        same = before >= low and place - before <= LONGEST_RECORD and table[keys[before], KIND] == kind
        if same and table[keys[place], VALUE] == table[keys[before], VALUE] + 1:
            length[group] += 1
        else:
            first[group], length[group] = place, 1
        last[group] = place
        wide = place - first[group]
        record = wide // max(1, length[group] - 1)
        if length[group] >= terms and wide + record > found[2] - found[1]:
            found = (record, first[group] - (side < 0), min(high, place + record))
    return found


@kernel()
def _recurring(keys: Array, table: Array, start: int, end: int, record: int, met: Array) -> float:
    """Share of the characters in [start + record, end) that are counter values or recur from the previous record.

    `met`, of shape (keys,), holds the last position of each item; positions from earlier texts are below `start`.
    """
    recurs = total = 0
    for place in range(start, end):
        key = keys[place]
        if place >= start + record:
            total += table[key, WEIGHT]
            if met[key] >= max(start, place - 2 * record) or table[key, KIND]:
                recurs += table[key, WEIGHT]
        met[key] = place
    return recurs / max(1, total)


@kernel()
def _sum(weights: Array, low: int, high: int) -> int:
    """Number of characters in [low, high), without white space."""
    total = 0
    for place in range(low, high):
        total += weights[place]
    return total


@kernel()
def _is_regular(keys: Array, table: Array, low: int, high: int, lag: int, start: int, end: int) -> bool:
    """Whether a stretch in [low, high) is regular, see `REGULAR`."""
    runs = np.zeros(lag, np.int64)
    longest = broken = missed = 0
    latest = -1
    for place in range(start + lag, end):
        follows = _follows(keys, table, low, high, place, lag)
        if follows == COUNTS:
            runs[place % lag] += 1
            longest = max(longest, runs[place % lag])
        elif follows != RESTARTS:
            runs[place % lag] = 0
        if follows == NONE:
            missed += 1
            broken += (place - start) // lag != latest
            latest = (place - start) // lag
    steps = (end - start) / lag - 1
    return broken <= REGULAR * steps or missed <= RARE * steps * lag or longest >= STEADY * steps


@kernel()
def _accepted(
    keys: Array,
    table: Array,
    shapes: Array,
    weights: Array,
    low: int,
    high: int,
    repetitions: float,
    purity: float,
    terms: int,
    least: float,
) -> tuple[int, int, int, bool]:
    """The best stretch in [low, high) that is pure and regular; stricter searches stop earlier at interruptions.

    Returns:
        lag (0: there is none), start, end, whether a counter advances in it.
    """
    strict = max(MISMATCH, purity / max(1 - purity, 1 / EXACT))
    for mismatch in (MISMATCH, strict, EXACT):
        lag, start, end, predicted, counted = _best_stretch(
            keys, table, shapes, weights, low, high, repetitions, mismatch, least
        )
        if lag == 0:
            break
        counts = counted >= max(2.0, 0.5 * ((end - start) / lag - 1))
        needed = 1.0 if counts and end - start < terms * lag else purity
        pure = predicted >= needed * _sum(weights, start + lag, end)
        if pure and _is_regular(keys, table, low, high, lag, start, end):
            return lag, start, end, counts
    return 0, low, low, False


@kernel()
def _stretches(
    keys: Array,
    table: Array,
    shapes: Array,
    weights: Array,
    low: int,
    high: int,
    repetitions: float,
    purity: float,
    terms: int,
    shares: Array,
) -> int:
    """Find the stretches of [low, high): the best one, then recursively the best on either side of it.

    Fills the first five of a text's `shares`, see `describe`.

    Returns:
        The period of the best stretch, 0 if there is none.
    """
    total = max(1, _sum(weights, low, high))
    pieces = np.empty((PIECES + 1, 2), np.int64)
    # One number at a time: assigning a tuple to a row takes longer to compile than all of this module.
    pieces[0, 0], pieces[0, 1] = low, high
    waiting, searched, period = 1, 0, 0
    best = close_start = close_end = low
    close = close_reaches = 0.0
    while waiting and searched < PIECES:
        searched += 1
        waiting -= 1
        first, last = pieces[waiting, 0], pieces[waiting, 1]
        lag, start, end, counts = _accepted(
            keys, table, shapes, weights, first, last, repetitions, purity, terms, SMALLEST * total
        )
        if lag == 0:
            continue
        inside = _sum(weights, start, end)
        share = inside / total
        reaches = 1.0 if end >= high - 1 else 0.0
        shares[COVERED] += share
        shares[ENDS] = max(shares[ENDS], reaches)
        if counts:
            shares[COUNTED] += share
        if period == 0:
            period, best, close_start, close_end = lag, start, start, end
        if lag == period and keys[start] in keys[best : best + lag]:
            shares[MAIN] += share
            if start - close_end < lag and close_start - end < lag:
                close_start, close_end = min(start, close_start), max(end, close_end)
                close += share
                close_reaches = max(close_reaches, reaches)
        pieces[waiting, 0], pieces[waiting, 1] = first, start
        pieces[waiting + 1, 0], pieces[waiting + 1, 1] = end, last
        waiting += 2
    shares[MAIN_ENDS] = close * close_reaches
    return period


@kernel()
def describe(keys: Array, table: Array, ends: Array, repetitions: float, purity: float, terms: int) -> tuple[Array, Array]:
    """Find the patterns in each text of a batch.

    Args:
        keys: items of all texts, shape (items,).
        table: the vocabulary, shape (keys, 7).
        ends: end of each text's items, shape (texts,).
        repetitions: number of times that a stretch must show its period.
        purity: share of a stretch's characters after its first period that must be predicted.
        terms: number of values that a counter must show if periods or records differ in content.

    Returns:
        periods: shape (texts, 2), in items: of the best stretch, and of the counter over records; 0 for none.
        shares: shape (texts, 7), columns `COVERED` to `RECURRING`: characters in stretches, in stretches with an advancing
            counter, and in the main pattern (the best stretch and its continuations after interruptions); 1.0 if a stretch
            reaches the end of the text (whose last item may be truncated); characters of the main pattern up to an
            interruption of a period, if it reaches the end; characters in the records of the counter, and how many recur.
    """
    shapes, weights = np.empty(len(keys), np.int32), np.empty(len(keys), np.int32)
    for place in range(len(keys)):
        shapes[place], weights[place] = table[keys[place], SHAPE], table[keys[place], WEIGHT]
    periods = np.zeros((len(ends), 2), np.int32)
    shares = np.zeros((len(ends), 7))
    seen = np.full((2, 3, len(table)), -1, np.int64)
    met = np.full(len(table), -1, np.int64)
    # Literals would have their own types, and their callees would be compiled again.
    low, before, after = np.int64(0), np.int64(-1), np.int64(1)
    for row in range(len(ends)):
        high = ends[row]
        periods[row, 0] = _stretches(keys, table, shapes, weights, low, high, repetitions, purity, terms, shares[row])
        record, start, end = _counter(keys, table, low, high, terms, before, seen[0])
        other = _counter(keys, table, low, high, terms, after, seen[1])
        # A number before a word or a period can number prose too, so require short entries or marked hexadecimal numbers.
        sure = other[0] <= SHORT_RECORD or table[keys[other[1]], KIND] == HEX
        if other[0] and sure and other[2] - other[1] > end - start:
            record, start, end = other
        if record:
            periods[row, 1] = record
            shares[row, LISTED] = _sum(weights, start, end) / _sum(weights, low, high)
            shares[row, RECURRING] = _recurring(keys, table, start, end, record, met)
        low = high
    return periods, shares
