"""Movement maps without arrays: the quasi-affine normal form of a map over a box, composed and inverted symbolically.

A form reads the flat index of an output element as the digits ``e`` of a box (row-major) and gives the flat index of the
source element, ``start + sum(strides * e)``, or a padding zero unless every guard holds: ``low <= sum(coefficients * e)
<= high``. Transposes, broadcasts, slices, flips, windows of any kernel, stride, dilation and padding are such forms, and
composition stays inside them wherever the digits of the one fall into digits of the other.

Normal form (:func:`normal`): digits of one value are dropped; guards are divided by their greatest common divisor, made
tight, said of fewer digits where the others allow it, and dropped where they always hold; a digit that a guard leaves one
value has no stride; neighbouring digits that run on in one another are one. Without guards it is
unique: the last digit ends where the differences first change, and so on to the left. With guards, two forms may stand
for one map; :class:`graphcheck.kernel.terms.maps.Maps` compares such by their elements.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np

from graphcheck.kernel.terms import guards as guards_
from graphcheck.kernel.terms.guards import Ends, Guard

Case = tuple[Sequence[int], list[Guard], list[tuple[int, Sequence[int]]]]  # box, guards, (offset, coefficients) of digits
CASES = 64  # that a sum is read in, and pieces of a map
_ROUNDS = 9  # after which a form is taken as it is
_CHOICES = 16  # ways to read strides as digits that are tried


@dataclasses.dataclass(frozen=True, slots=True)
class Strided:
    """``box`` and ``strides`` have an entry for each digit; ``start`` and ``strides`` count source elements from 0."""

    box: tuple[int, ...]
    start: int
    strides: tuple[int, ...]
    guards: tuple[Guard, ...] = ()

    @property
    def size(self) -> int:
        """Output elements."""
        return math.prod(self.box)

    def at(self, places: np.ndarray) -> np.ndarray:
        """1-based source indices (0: a padding zero) of flat output places, counted from 0."""
        digits, rest = [], np.asarray(places, np.int64)
        for count in reversed(self.box):
            rest, digit = np.divmod(rest, count)
            digits.append(digit)
        return self._of(digits[::-1], rest.shape)

    def index(self) -> np.ndarray:
        """The whole map as a flat array of 1-based source indices, 0 where a guard fails."""
        rank, sums = len(self.box), (self.strides, *(coefficients for coefficients, _, _ in self.guards))
        most = abs(self.start) + max(sum(abs(c) * n for c, n in zip(row, self.box, strict=True)) for row in sums)
        dtype = np.int32 if most < 2**31 - 1 else np.int64  # half the memory, where no sum on the way is larger
        digits = [np.arange(n, dtype=dtype).reshape((1,) * i + (n,) + (1,) * (rank - 1 - i)) for i, n in enumerate(self.box)]
        return self._of(digits, self.box).reshape(-1)

    def _of(self, digits: Sequence[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
        total = np.full(shape, self.start + 1, digits[0].dtype if digits else np.int64)
        for stride, digit in zip(self.strides, digits, strict=True):
            if stride:
                total += stride * digit
        for coefficients, low, high in self.guards:
            value = sum(c * digit for c, digit in zip(coefficients, digits, strict=True) if c)
            total *= (value >= low) & (value <= high)
        return total


def normal(box: Sequence[int], start: int, strides: Sequence[int], guards: Sequence[Guard] = ()) -> Strided | None:
    """The normal form; None for a box without elements, and for guards that never hold together with the box."""
    if 0 in box:
        return None
    found: Strided | None = None
    for _ in range(_ROUNDS):
        held = guards_.kept(box, guards)
        if held is None:
            return None
        strides = list(strides)
        for j, value in guards_.fixed(held).items():
            start, strides[j] = start + strides[j] * value, 0
        before, found = found, _merged(box, start, strides, held)
        if found == before:
            break
        box, start, strides, guards = found.box, found.start, found.strides, found.guards
    return found


def _merged(box: Sequence[int], start: int, strides: Sequence[int], guards: Sequence[Guard]) -> Strided:
    """Without digits of one value, and neighbouring digits that run on in one another as one.

    A digit may have a guard of its own: what it lets through of the left one are whole runs of the right one.
    """
    alone = [next((j for j, c in enumerate(row) if c), 0) if sum(map(bool, row)) == 1 else None for row, _, _ in guards]
    own = {j: (low, high) for j, (_, low, high) in zip(alone, guards, strict=True) if j is not None}
    tied = [guard for j, guard in zip(alone, guards, strict=True) if j is None]
    digits: list[tuple[int, list[int], Ends | None]] = []  # (count, stride and coefficients, own guard), from the left
    for j, count in enumerate(box):
        if count == 1:
            continue
        column, ends = [row[j] for row in (strides, *(c for c, _, _ in tied))], own.get(j)
        if digits:
            wide, left, outer = digits[-1]
            one = outer is not None and outer[0] == outer[1] and not any(column[1:])
            if one or (ends is None and left == [count * v for v in column]):
                digits.pop()
                if one and outer is not None:
                    start -= outer[0] * count * column[0]
                    low, high = ends or (0, count - 1)
                    ends = outer[0] * count + low, outer[0] * count + high
                elif outer is not None:
                    ends = outer[0] * count, (outer[1] + 1) * count - 1
                count *= wide
        digits.append((count, column, ends))
    columns = [column for _, column, _ in digits]
    merged = [(tuple(c[i + 1] for c in columns), low, high) for i, (_, low, high) in enumerate(tied)]
    merged += [(guards_.unit(len(digits), j), *ends) for j, (_, _, ends) in enumerate(digits) if ends is not None]
    return Strided(tuple(n for n, _, _ in digits), start, tuple(c[0] for c in columns), tuple(sorted(merged)))


def identity(size: int) -> Strided | None:
    """Every element as it is."""
    return Strided((size,), 0, (1,), ()) if size > 1 else normal((size,), 0, (1,))


def compose(inner: Strided, outer: Strided) -> list[Strided] | None:
    """First ``inner``, then ``outer``, which reads its result: forms whose guards never hold together; None where none were
    found."""
    found = cases(outer.box, outer.start, outer.strides, outer.guards, inner.box)
    if found is None:
        return None
    forms = []
    for box, held, places in found:  # of each digit of inner: (offset, coefficients over the box)
        guards = list(held)
        start = inner.start + sum(s * offset for s, (offset, _) in zip(inner.strides, places, strict=True))
        strides = _weighted(inner.strides, places, len(box))
        for weights, low, high in inner.guards:
            shift = sum(w * offset for w, (offset, _) in zip(weights, places, strict=True))
            guards.append((tuple(_weighted(weights, places, len(box))), low - shift, high - shift))
        forms.append(normal(box, start, strides, guards))
    return [form for form in forms if form is not None]


def _weighted(weights: Sequence[int], places: Sequence[tuple[int, Sequence[int]]], rank: int) -> list[int]:
    """The coefficients of a weighted sum of linear forms."""
    return [sum(w * row[j] for w, (_, row) in zip(weights, places, strict=True)) for j in range(rank)]


def digits(
    box: Sequence[int], start: int, strides: Sequence[int], guards: Sequence[Guard], radices: Sequence[int]
) -> Case | None:
    """The digits of :func:`cases` where they are the same linear forms over the whole box."""
    found = cases(box, start, strides, guards, radices)
    return found[0] if found is not None and len(found) == 1 else None


def cases(
    box: Sequence[int], start: int, strides: Sequence[int], guards: Sequence[Guard], radices: Sequence[int]
) -> list[Case] | None:
    """The digits of ``start + sum(strides * e)`` over ``radices``, each a linear form over the box, which may be split.

    The sum is read from the last digit on: modulo its radix, strides and start leave a linear form, and it is the digit if
    it stays within the radix wherever the guards hold. Where it does not, digits of the box that run over the radix are
    split there; where it still does not, there is a case, with a guard, for each multiple of the radix that it may run
    over. The first digit takes what is left. None for more than a few cases.
    """
    todo: list[tuple[Case, int, Sequence[int]]] = [((box, list(guards), []), start, strides)]
    for radix in reversed(radices[1:]):
        found: list[tuple[Case, int, Sequence[int]]] = []
        for (box, held, places), begin, rest in todo:
            digit = _digit(box, begin, rest, held, radix)
            if digit is None:
                for j in reversed(range(len(box))):
                    count = radix // math.gcd(rest[j], radix)
                    if box[j] > count > 1 and box[j] % count == 0:
                        box, rest, held, places = _split(box, rest, held, places, j, count)
                digit = _digit(box, begin, rest, held, radix)
            one = [(digit, list(held))] if digit is not None else _over(box, begin, rest, held, radix)
            for (offset, row), now in one:
                above = [(r - d) // radix for r, d in zip(rest, row, strict=True)]
                found.append(((box, now, [*places, (offset, row)]), (begin - offset) // radix, above))
        todo = found
        if not 0 < len(todo) <= CASES:
            return [] if not todo and radices else None
    return [(box, held, [*places, (begin, rest)][::-1] if radices else places) for (box, held, places), begin, rest in todo]


def _over(
    box: Sequence[int], start: int, strides: Sequence[int], guards: Sequence[Guard], radix: int
) -> list[tuple[tuple[int, list[int]], list[Guard]]]:
    """The sum modulo ``radix`` for each multiple of it that a linear form of the same rest runs over, with its guards."""
    row = [min(s % radix, s % radix - radix, key=abs) if s % radix else 0 for s in strides]
    least, most = guards_.bounds(box, row, guards)
    start %= radix
    found = []
    for times in range((start + least) // radix, min((start + most) // radix, (start + least) // radix + CASES) + 1):
        offset = start - times * radix
        if guards_.tight(box, row, -offset, radix - 1 - offset) is not None:
            found.append(((offset, row), [*guards, (tuple(row), -offset, radix - 1 - offset)]))
    return found


def _split(
    box: Sequence[int],
    strides: Sequence[int],
    guards: Sequence[Guard],
    places: Sequence[tuple[int, Sequence[int]]],
    at: int,
    count: int,
) -> tuple[Sequence[int], Sequence[int], list[Guard], list[tuple[int, Sequence[int]]]]:
    """A digit as two, the right one of ``count`` values, in all that is told of the digits."""

    def both(row: Sequence[int]) -> tuple[int, ...]:
        return (*row[:at], row[at] * count, *row[at:])

    return (
        (*box[:at], box[at] // count, count, *box[at + 1 :]),
        both(strides),
        [(both(c), low, high) for c, low, high in guards],
        [(offset, both(row)) for offset, row in places],
    )


def _digit(
    box: Sequence[int], start: int, strides: Sequence[int], guards: Sequence[Guard], radix: int
) -> tuple[int, list[int]] | None:
    """A linear form that is the sum modulo ``radix`` and stays within it; None where none was found."""
    ways = []
    for stride, count in zip(strides, box, strict=True):
        up = stride % radix
        both = sorted({up, up - radix if up else 0}, key=abs)
        ways.append([c for c in both if abs(c) * (count - 1) < radix] or both[:1])
    for chosen in itertools.islice(itertools.product(*ways), _CHOICES):
        least, most = guards_.bounds(box, chosen, guards)
        offset = start % radix + -(-(-least - start % radix) // radix) * radix  # the least that keeps it from below 0
        if most + offset < radix:
            return offset, list(chosen)
    return None


def inverse(given: Strided) -> Strided | None:
    """The form that undoes a permutation; None if it is none."""
    order = sorted(range(len(given.box)), key=lambda j: -abs(given.strides[j]))
    weights = [math.prod(given.box[j + 1 :]) for j in range(len(given.box))]
    back = [j for j in order if given.strides[j] < 0]
    span = 1
    for j in reversed(order):
        if abs(given.strides[j]) != span:
            return None
        span *= given.box[j]
    if given.guards or given.start != sum(-given.strides[j] * (given.box[j] - 1) for j in back):
        return None
    signs = [-1 if j in back else 1 for j in order]
    start = sum(weights[j] * (given.box[j] - 1) for j in back)
    return normal([given.box[j] for j in order], start, [s * weights[j] for s, j in zip(signs, order, strict=True)])


def recognised(index: np.ndarray) -> Strided | None:
    """The form of a flat array of 1-based source indices without zeros, if it has one."""
    if not index.size:
        return None
    box: list[int] = []
    strides: list[int] = []
    seen = index
    while seen.size > 1:
        stride = int(seen[1]) - int(seen[0])
        count = _run(seen, stride)
        if seen.size % count:
            return None
        box.insert(0, count)
        strides.insert(0, stride)
        seen = seen[::count]
    found = normal(box, int(index[0]) - 1, strides)
    return found if found is not None and np.array_equal(found.index(), index) else None


def _run(seen: np.ndarray, stride: int) -> int:
    """How many elements from the first one on are ``stride`` apart; looked for in longer and longer pieces."""
    start, step = 0, 64
    while start + 1 < seen.size:
        part = seen[start : start + step + 1].astype(np.int64)
        other = np.flatnonzero(np.diff(part) != stride)
        if other.size:
            return start + int(other[0]) + 1
        start, step = start + step, step * 4
    return int(seen.size)


def cut(given: Strided, count: int) -> Strided | None:
    """The form with a digit that ends where the first of ``count`` rows does, no normal form; None where none can."""
    width, at, inside = given.size // count, len(given.box), 1
    while at and inside * given.box[at - 1] <= width:
        at -= 1
        inside *= given.box[at]
    if inside == width:
        return given
    if width % inside or given.box[at - 1] % (width // inside):
        return None
    box, strides, guards, _ = _split(given.box, given.strides, given.guards, [], at - 1, width // inside)
    return Strided(tuple(box), given.start, tuple(strides), tuple(guards))


def rows(given: Strided, count: int) -> tuple[Strided, Strided] | None:
    """The form of the first of ``count`` rows, and that of the rows' starts less the first; None where a digit lies across
    the edge of a row, or a guard looks at the row."""
    whole = cut(given, count)
    if whole is None:
        return None
    at, box, strides = len(whole.box), whole.box, whole.strides
    while math.prod(box[at:]) * count < given.size:
        at -= 1
    if any(any(c[:at]) for c, _, _ in whole.guards):
        return None
    first = normal(box[at:], given.start, strides[at:], [(c[at:], low, high) for c, low, high in whole.guards])
    starts = normal(box[:at], 0, strides[:at])
    return None if first is None or starts is None else (first, starts)
