"""Guards: linear inequalities over the digits of a box, outside of which a form has a padding zero; said as simply as can be."""

from __future__ import annotations

import math
from collections.abc import Sequence

Ends = tuple[int, int]  # of a guard
Guard = tuple[tuple[int, ...], int, int]  # coefficients, low, high


def kept(box: Sequence[int], guards: Sequence[Guard]) -> list[Guard] | None:
    """Guards in lowest terms and in order, none of them twice, and none said by the others; None where they never hold."""
    known: dict[tuple[int, ...], tuple[int, int]] = {}
    for guard in guards:
        lowest = tight(box, *guard)
        if lowest is None:
            return None
        row, low, high = lowest
        ends = known.get(row, (low, high))
        if any(row):
            known[row] = max(low, ends[0]), min(high, ends[1])
            if known[row][0] > known[row][1]:
                return None
    found = [(row, *ends) for row, ends in sorted(known.items())]
    for guard in sorted(found, key=lambda g: -sum(map(bool, g[0]))):
        others = [g for g in found if g != guard]
        simpler = _simpler(box, guard, others)
        if simpler is not None:
            return kept(box, others + simpler)
    return found


def _simpler(box: Sequence[int], guard: Guard, others: Sequence[Guard]) -> list[Guard] | None:
    """What says the same as a guard where the ``others`` hold, of fewer digits; None where nothing was found."""
    row, low, high = guard
    support = [j for j, c in enumerate(row) if c]
    if len(support) > 1 and low == high and low in (ends := extent(box, row)):  # each digit is at its end
        top = low == ends[1]
        at = {j: box[j] - 1 if (row[j] > 0) == top else 0 for j in support}
        return [(unit(len(box), j), at[j], at[j]) for j in support]
    single = fixed(others)
    if known := [j for j in support if j in single]:
        shift = sum(row[j] * single[j] for j in known)
        return [(tuple(0 if j in known else c for j, c in enumerate(row)), low - shift, high - shift)]
    least, most = bounds(box, row, others)
    if low <= least and most <= high:
        return []
    low, high = max(low, least), min(high, most)
    for radix in sorted({abs(c) for c in row if abs(c) > 1}, reverse=True):
        upper = tuple(c // radix if c % radix == 0 else 0 for c in row)
        lower = tuple(c if c % radix else 0 for c in row)
        least, most = bounds(box, lower, others)
        ends = -(-(low - most) // radix), (high - least) // radix
        if ends == (-(-(low - least) // radix), (high - most) // radix):  # whatever the lower digits are
            return [(upper, *ends)]
        if ends[0] == ends[1] and any(lower):  # the upper digits say one value
            return [(upper, *ends), (lower, low - ends[0] * radix, high - ends[0] * radix)]
    return None


def tight(box: Sequence[int], coefficients: Sequence[int], low: int, high: int) -> Guard | None:
    """A guard in lowest terms, its first coefficient positive; all zero where it always holds, None where never."""
    coefficients = [0 if n == 1 else c for c, n in zip(coefficients, box, strict=True)]
    least, most = extent(box, coefficients)
    if low > most or high < least:
        return None
    if low <= least and high >= most:
        return (0,) * len(box), 0, 0
    divisor = math.gcd(*coefficients)
    divisor = -divisor if next(c for c in coefficients if c) < 0 else divisor
    if divisor < 0:
        low, high, least, most = -high, -low, -most, -least
    unit = abs(divisor)
    low, high = -(-max(low, least) // unit), min(high, most) // unit
    return (tuple(c // divisor for c in coefficients), low, high) if low <= high else None


def fixed(guards: Sequence[Guard]) -> dict[int, int]:
    """The digits that a guard of their own leaves one value."""
    single = [g for g in guards if g[1] == g[2] and sum(map(bool, g[0])) == 1]
    return {next(j for j, c in enumerate(row) if c): low for row, low, _ in single}


def bounds(box: Sequence[int], coefficients: Sequence[int], guards: Sequence[Guard]) -> tuple[int, int]:
    """Bounds of a linear form over the elements of the box for which the guards hold."""
    left = list(coefficients)
    least = most = 0
    for weights, low, high in guards:
        support = [j for j, w in enumerate(weights) if w]
        times = {left[j] // weights[j] if left[j] % weights[j] == 0 else 0 for j in support}
        if len(times) == 1 and (factor := times.pop()):
            ends = sorted((factor * low, factor * high))
            least, most = least + ends[0], most + ends[1]
            for j in support:
                left[j] = 0
    rest = extent(box, left)
    return least + rest[0], most + rest[1]


def extent(box: Sequence[int], coefficients: Sequence[int]) -> tuple[int, int]:
    """The least and the largest value of a sum over the box."""
    ends = [c * (n - 1) for c, n in zip(coefficients, box, strict=True)]
    return sum(e for e in ends if e < 0), sum(e for e in ends if e > 0)


def unit(rank: int, at: int) -> tuple[int, ...]:
    """The coefficients that look at one digit."""
    return tuple(int(j == at) for j in range(rank))
