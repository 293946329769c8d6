"""Where in a sequence of items something repeats or counts on: the compiled search behind `TemplateFilter`.

An item is *predicted* at lag p if the item p places before it says what it is: it is the same, or both are values of one
counter and three successive values at that lag form an arithmetic or geometric progression (two values that differ by one
where the text has room for no third), or the counter has just started again. A *stretch* is a run of items that is mostly
predicted at one lag, together with the first period that predicts the rest. It is found as the segment of largest score,
where a predicted item scores its length in characters and another one costs `MISMATCH` times its length, so a stretch
survives short interruptions (Kadane's algorithm, one linear pass a lag).
"""

import numpy as np

from memtax.compiled import kernel
from memtax.filters._template_items import KIND, OTHER_KIND, OTHER_VALUE, SHAPE, VALUE, WEIGHT
from memtax.filters._template_words import HEX, NUMBER, Array

MISMATCH, EXACT = 2.0, 100.0
"""What an unpredicted character costs, in predicted ones: with the first, a stretch that pays for itself is at least two thirds
predicted, with the second practically all of it is."""
ALL_LAGS = 128
"""Lags up to here are always tried; beyond them only those that items vote for, so that time stays linear in the items."""
VOTED_LAGS = 32
SHORT_RECORD = 5
"""Items of a list's record that is an entry of one or two words with its number, not a numbered paragraph."""
LONGEST_RECORD = 24
"""Items between two values of a counter whose records differ in length."""
SMALLEST = 0.1
"""A stretch counts if it scores more than this share of the text's characters."""
REGULAR, RARE, STEADY = 0.4, 0.02, 0.8
"""A stretch is regular if at most the first share of its periods, or the second of its items, hold what is not predicted, or if
one counter goes on through the third of its periods: a line of code written again and again with another argument is not."""
PIECES = 16
"""Parts of one text that are searched for stretches."""

COVERED, COUNTED, MAIN, ENDS, MAIN_ENDS, LISTED, RECURRING = range(7)
"""Columns of what `describe` finds."""

NONE, SAME, COUNTS, RESTARTS = range(4)
"""How an item follows from the one a period before."""


@kernel()
def _progression(t: int, u: int, v: int) -> bool:
    """Whether three values in a row, u and v different, form an arithmetic progression or go up by a factor."""
    return v - u == u - t or (0 < t < u and u % t == 0 and v % u == 0 and v // u == u // t)


@kernel()
def _reading(table: Array, key: int, kind: int) -> tuple[bool, int]:
    """An item's value as a counter of the kind, if it has one."""
    if table[key, KIND] == kind:
        return True, table[key, VALUE]
    if table[key, OTHER_KIND] == kind:
        return True, table[key, OTHER_VALUE]
    return False, 0


@kernel()
def _goes_on(keys: Array, table: Array, low: int, high: int, place: int, lag: int, kind: int, value: int) -> int:
    """How a value at `place` goes on the counter of its kind at the lag, looking at items in [low, high) only."""
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
    """How the item at `place` follows from the one `lag` before it: SAME, COUNTS, RESTARTS or NONE."""
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
def _lags(shapes: Array, weights: Array, low: int, high: int, longest: int) -> Array:
    """The lags to try, ascending: all short ones, and of the longer ones those at which most characters recur.

    An item votes, with its length, for the distance to the last item of its shape, and to the last place with the same
    four shapes in a row (counters of one kind share a shape).
    """
    short = min(longest, ALL_LAGS)
    if longest == short:
        return np.arange(1, short + 1)
    votes = np.zeros(longest + 1, np.int64)
    size = 1
    while size < 2 * (high - low):
        size *= 2
    last = np.full((2, size), -1, np.int64)
    for place in range(low + 3, high):
        run = 0
        for back in range(4):
            run = (run * 1000003 + shapes[place - back] + 11) & 0xFFFFFFFFFFFF
        for which in range(2):
            code = run if which else np.int64(shapes[place]) * 40503
            slot = (code ^ (code >> 17)) & (size - 1)
            distance = place - last[which, slot]
            if last[which, slot] >= 0 and ALL_LAGS < distance <= longest:
                votes[distance] += weights[place]
            last[which, slot] = place
    voted = np.argsort(votes)[-VOTED_LAGS:]
    voted = np.sort(voted[votes[voted] > 0])
    return np.concatenate((np.arange(1, short + 1), voted))


@kernel()
def _bound(shapes: Array, weights: Array, low: int, high: int, lag: int, mismatch: float, least: float) -> float:
    """No stretch in [low, high) scores more at a lag: as `_best_stretch` scores, but predicted is what has the same shape.

    Most lags of most texts are done with after the sum of what has the same shape, which is computed in vectors.
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

    A stretch must score more than `least`. Lags at which none could, or none better than the best found, are passed over.

    Returns:
        lag (0: there is none), first place, end, predicted characters, places where a counter counts on.
    """
    best = least
    found = (0, low, low, 0, 0)
    for lag in _lags(shapes, weights, low, high, int((high - low) / repetitions)):
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
    """The widest run of a number that goes up by one from record to record, whatever else the records hold.

    Numbers only: the months and letters of prose go up by one as well.

    Values belong to one counter if they are of one kind and stand beside the same item: after it (`side` -1: `invoice 7`),
    or before it (1: `7.`, `0x0a:`). `seen`, of shape (3, keys), holds for each such item the place of the last value, and the
    first place and the values of the run.

    Returns:
        items per record (0: there is no run of `terms` values), first place, end (the last record taken to be of mean length).
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
    """Share of the characters in [start + record, end) that are counters' values or recur from the record before.

    `met`, of shape (keys,), holds the place where each item was met last; those of earlier texts are below `start`.
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
    """Characters of the items in [low, high), white space not counted."""
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
    """The best stretch in [low, high) that is pure and regular; the stricter a search, the sooner it stops at interruptions.

    Returns:
        lag (0: there is none), first place, end, whether a counter goes on in it.
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
    """Find the stretches of [low, high): the best one, then the best in what it leaves on either side, and so on.

    Fills in the first five of a text's `shares`, see `describe`.

    Returns:
        The period of the best stretch, 0 if there is none.
    """
    total = max(1, _sum(weights, low, high))
    pieces = np.empty((PIECES + 1, 2), np.int64)
    pieces[0] = low, high
    waiting, searched, period = 1, 0, 0
    best = close_start = close_end = low
    close = close_reaches = 0.0
    while waiting and searched < PIECES:
        searched += 1
        waiting -= 1
        first, last = pieces[waiting]
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
        pieces[waiting] = first, start
        pieces[waiting + 1] = end, last
        waiting += 2
    shares[MAIN_ENDS] = close * close_reaches
    return period


@kernel()
def describe(keys: Array, table: Array, ends: Array, repetitions: float, purity: float, terms: int) -> tuple[Array, Array]:
    """What each text of a batch consists of.

    Args:
        keys: items of all texts, shape (items,).
        table: the vocabulary, shape (keys, 7).
        ends: where each text's items end, shape (texts,).
        repetitions: how often a stretch must show its period.
        purity: share of a stretch's characters after its first period that must be predicted.
        terms: values that a counter over periods or records of different content must show.

    Returns:
        periods: items, shape (texts, 2): of the best stretch, and of the counter over records; 0 for none.
        shares: shape (texts, 7), columns `COVERED` to `RECURRING`: characters in stretches, in stretches in which a counter
            goes on, and in the main pattern (the best stretch, and what goes on like it after an interruption); 1.0 if a
            stretch reaches the end of the text (whose last item may be cut); characters of what the main pattern holds without
            interruptions of a period or more, if that reaches the end; in the records of the counter, and how many recur.
    """
    shapes, weights = np.empty(len(keys), np.int32), np.empty(len(keys), np.int32)
    for place in range(len(keys)):
        shapes[place], weights[place] = table[keys[place], SHAPE], table[keys[place], WEIGHT]
    periods = np.zeros((len(ends), 2), np.int32)
    shares = np.zeros((len(ends), 7))
    seen = np.full((2, 3, len(table)), -1, np.int64)
    met = np.full(len(table), -1, np.int64)
    # Literals would be types of their own, and everything called with them compiled once more.
    low, before, after = np.int64(0), np.int64(-1), np.int64(1)
    for row in range(len(ends)):
        high = ends[row]
        periods[row, 0] = _stretches(keys, table, shapes, weights, low, high, repetitions, purity, terms, shares[row])
        record, start, end = _counter(keys, table, low, high, terms, before, seen[0])
        other = _counter(keys, table, low, high, terms, after, seen[1])
        # A number before a word or a full stop numbers anything, prose too: short entries, or a marked hexadecimal number.
        sure = other[0] <= SHORT_RECORD or table[keys[other[1]], KIND] == HEX
        if other[0] and sure and other[2] - other[1] > end - start:
            record, start, end = other
        if record:
            periods[row, 1] = record
            shares[row, LISTED] = _sum(weights, start, end) / _sum(weights, low, high)
            shares[row, RECURRING] = _recurring(keys, table, start, end, record, met)
        low = high
    return periods, shares
