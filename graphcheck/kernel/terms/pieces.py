"""Maps in pieces: several forms of one size whose guards hold at no place together, as a Concat of tensors needs them.

A place has the source element of the one form whose guards hold there, and a padding zero where none does. Pieces come
from where several tensors are laid end to end, and from sums that run over a radix (a window over an image enlarged by
repetition). Two pieces that run on in one another are one; the others may stand for one map in several ways, so
:func:`same` says of two of them whether they are one, or leaves it to their elements.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from graphcheck.kernel.terms import guards as guards_
from graphcheck.kernel.terms import strided
from graphcheck.kernel.terms.guards import Guard
from graphcheck.kernel.terms.strided import CASES, Strided

Pieces = tuple[Strided, ...]
_PARTS = 16  # in which an array is looked for
_LOOKED_AT = 2**20  # values of the digits that guards tie to each other, but for the largest one, at which places are counted
BOXES = 1024  # of a guarded form that are copied one after the other


def joined(forms: Iterable[Strided]) -> Pieces | None:
    """The pieces, in order, those that run on in one another as one; None for too many, or where one is hard to count."""
    return _joined(tuple(forms))


@functools.lru_cache(maxsize=4096)
def _joined(forms: Pieces) -> Pieces | None:
    counts = [count(form) for form in forms]
    todo, left = [form for form, n in zip(forms, counts, strict=True) if n != 0], list[Strided]()
    if len(todo) > CASES or None in counts:
        return None
    while todo:
        form = todo.pop()
        for other in left:
            if (one := _run_on(form, other)) is not None:
                left.remove(other)
                todo.append(one)
                break
        else:
            left.append(form)
    return tuple(sorted(left, key=lambda form: (form.box, form.start, form.strides, form.guards)))


def laid(shapes: Sequence[tuple[int, ...]], axis: int) -> Pieces | None:
    """Tensors side by side along an axis: the sources are the tensors end to end."""
    outer, inner = math.prod(shapes[0][:axis]), math.prod(shapes[0][axis + 1 :])
    total, begin, at = sum(shape[axis] for shape in shapes), 0, 0
    found = []
    for shape in shapes:
        n = shape[axis]
        guard = ((0, 1, 0), begin, begin + n - 1)
        found.append(strided.normal((outer, total, inner), at - begin * inner, (n * inner, inner, 1), [guard]))
        begin, at = begin + n, at + outer * n * inner
    return joined(form for form in found if form is not None)


def recognised(index: np.ndarray, deep: int = 2) -> Pieces | None:
    """The pieces of a short flat array of 1-based source indices without zeros: few runs of one stride, or parts of equal
    length, one after the other or element by element in turn."""
    size = index.size
    if (one := strided.recognised(index)) is not None or not size:
        return None if one is None else (one,)
    if (runs := _runs(index)) is not None:
        return runs
    for parts in (n for n in range(2, _PARTS + 1) if deep and size % n == 0):
        for table, before in ((index.reshape(parts, -1), True), (index.reshape(-1, parts).T, False)):
            forms: list[Strided | None] = []
            for at, row in enumerate(table):
                found = recognised(np.ascontiguousarray(row), deep - 1)
                if found is None:
                    break
                forms += [_beside(form, parts, at, before) for form in found]
            else:
                return joined(form for form in forms if form is not None)
    return None


def _runs(index: np.ndarray) -> Pieces | None:
    """The pieces of an array of a few runs of one stride, each as long as can be from the left on."""
    found: list[Strided | None] = []
    at = 0
    while at < index.size:
        if len(found) == _PARTS:
            return None
        rest = index[at:].astype(np.int64)
        steps = np.diff(rest)
        length = rest.size if (steps == steps[:1]).all() else 1 + int(np.argmax(steps != steps[0]))
        stride = int(steps[0]) if steps.size else 0
        begin = int(rest[0]) - 1 - at * stride
        found.append(strided.normal((index.size,), begin, (stride,), [((1,), at, at + length - 1)]))
        at += length
    return joined(form for form in found if form is not None)


def _beside(form: Strided, parts: int, at: int, before: bool) -> Strided | None:
    """A form as the one of several that stands at a place, first or last of the digits."""
    box, strides = ((parts, *form.box), (0, *form.strides)) if before else ((*form.box, parts), (*form.strides, 0))
    guards = [((0, *row) if before else (*row, 0), low, high) for row, low, high in form.guards]
    return strided.normal(box, form.start, strides, [*guards, (guards_.unit(len(box), 0 if before else len(box) - 1), at, at)])


@functools.lru_cache(maxsize=4096)
def compose(inner: Pieces, outer: Pieces) -> Pieces | None:
    """First ``inner``, then ``outer``; None where that is no few forms."""
    found: list[Strided] = []
    for a, b in itertools.product(inner, outer):
        part = strided.compose(a, b)
        if part is None or len(found) + len(part) > 4 * CASES:
            return None
        found += part
    return joined(found)


def parted(pieces: Pieces, sizes: Iterable[int]) -> Iterator[Pieces | None]:
    """For each of the sources, which hold so many elements and are laid end to end, what reads it, as a map of that source."""
    ends = [guards_.bounds(form.box, form.strides, form.guards) for form in pieces]
    begin = 0
    for size in sizes:
        found: list[Strided | None] = []
        for form, (least, most) in zip(pieces, ends, strict=True):
            low, high = begin - form.start, begin + size - 1 - form.start
            if low <= least and most <= high:
                found.append(dataclasses.replace(form, start=form.start - begin))
            elif least <= high and most >= low:
                found.append(_between(form, low, high))
        yield joined(form for form in found if form is not None)
        begin += size


@functools.lru_cache(maxsize=4096)
def _between(form: Strided, low: int, high: int) -> Strided | None:
    """What reads the elements from ``low`` to ``high``, counted from its start, as a map of these."""
    return strided.normal(form.box, -low, form.strides, [*form.guards, (form.strides, low, high)])


@functools.lru_cache(maxsize=4096)
def count(form: Strided) -> int | None:
    """Places at which the guards hold; None where that takes looking at too many."""
    left, total = list(form.guards), 1
    free = set(range(len(form.box)))
    while left:
        tied, group = {j for j, c in enumerate(left[0][0]) if c}, [left.pop(0)]
        while more := [g for g in left if any(g[0][j] for j in tied)]:
            left = [g for g in left if g not in more]
            group += more
            tied |= {j for g in more for j, c in enumerate(g[0]) if c}
        free -= tied
        here = _tied(form.box, sorted(tied, key=lambda j: form.box[j]), group)
        if here is None:
            return None
        total *= here
    return total * math.prod(form.box[j] for j in free)


def _tied(box: Sequence[int], digits: Sequence[int], guards: Sequence[Guard]) -> int | None:
    """How many values of some digits guards let through: those of the last one are counted for all values of the others."""
    *few, last = digits
    shape = tuple(box[j] for j in few)
    if math.prod(shape) > _LOOKED_AT:
        return None
    values = np.indices(shape, np.int64).reshape(len(few), math.prod(shape))
    least, most = np.zeros(values.shape[1], np.int64), np.full(values.shape[1], box[last] - 1)
    for row, low, high in guards:
        rest = sum((row[j] * value for j, value in zip(few, values, strict=True) if row[j]), np.zeros_like(least))
        if (c := row[last]) == 0:
            most[(rest < low) | (rest > high)] = -1
            continue
        ends = (low - rest, high - rest) if c > 0 else (rest - high, rest - low)
        least, most = np.maximum(least, -(-ends[0] // abs(c))), np.minimum(most, ends[1] // abs(c))
    return int(np.maximum(most - least + 1, 0).sum())


def held(pieces: Pieces) -> int:
    """Places that are no padding zero, of pieces that are not hard to count."""
    return sum(count(form) or 0 for form in pieces)


def same(a: Pieces, b: Pieces) -> bool | None:
    """Whether two are one map; None where only their elements tell."""
    if any(count(form) is None for form in (*a, *b)):
        return None
    total, met, unsure = held(a), 0, False
    if total != held(b):
        return False
    for p, q in itertools.product(a, b):
        both = refined([p, q])
        if both is None:
            return None
        guards = guards_.kept(both[0].box, [guard for form in both for guard in form.guards])
        if guards is None:  # they have no place together
            continue
        common = Strided(both[0].box, 0, (0,) * len(both[0].box), tuple(guards))
        here = count(common)
        if here is None:
            return None
        apart = [y - x for x, y in zip(both[0].strides, both[1].strides, strict=True)]
        if here and guards_.bounds(common.box, apart, guards) != (p.start - q.start,) * 2:
            places = _corners(common)
            if not np.array_equal(p.at(places), q.at(places)):
                return False
            unsure = True
        met += here
    return False if met != total else None if unsure else True


def _corners(form: Strided) -> np.ndarray:
    """Those places at the ends of all digits at which the guards hold."""
    ends = itertools.product(*((0, n - 1) for n in form.box))
    places = np.asarray([np.ravel_multi_index(digits, form.box) for digits in itertools.islice(ends, 512)], np.int64)
    return np.asarray(places[form.at(places) > 0])


def refined(forms: Sequence[Strided]) -> list[Strided] | None:
    """The same maps over one box; None where there is none."""
    if len({form.box for form in forms}) == 1:
        return list(forms)
    ends = sorted({math.prod(form.box[j:]) for form in forms for j in range(len(form.box) + 1)})
    if any(b % a for a, b in itertools.pairwise(ends)):
        return None
    found = []
    for form in forms:
        for end in ends:
            cut = strided.cut(form, form.size // end) if form.size else None
            if cut is None:
                return None
            form = cut
        guards = guards_.kept(form.box, form.guards)
        if guards is None:
            return None
        found.append(Strided(form.box, form.start, form.strides, tuple(guards)))
    return found if len({form.box for form in found}) == 1 else None


def _run_on(a: Strided, b: Strided) -> Strided | None:
    """Two pieces as one: a digit has a guard of its own in both, and the one ends where the other begins."""
    both = refined([a, b])
    if both is None:
        return None
    a, b = both
    guards = [{row: (low, high) for row, low, high in form.guards} for form in (a, b)]
    apart = [row for row in guards[0] if guards[0][row] != guards[1].get(row)]
    if len(apart) != 1 or len(guards[0]) != len(guards[1]) or apart[0] not in guards[1]:
        return None
    (row,) = apart
    support = [j for j, c in enumerate(row) if c]
    if guards[0][row] > guards[1][row]:
        a, b, guards = b, a, guards[::-1]
    (low, end), (begin, high) = guards[0][row], guards[1][row]
    if len(support) != 1 or end + 1 != begin:
        return None
    at = support[0]
    steps = [form.strides[at] for form, one in ((a, low == end), (b, begin == high)) if not one]
    if not steps:
        steps = [b.start + b.strides[at] * begin - a.start - a.strides[at] * end]
    starts = [form.start + (form.strides[at] - steps[0]) * place for form, place in ((a, end), (b, begin))]
    rest = [[s for j, s in enumerate(form.strides) if j != at] for form in (a, b)]
    if len(set(steps)) > 1 or starts[0] != starts[1] or rest[0] != rest[1]:
        return None
    strides = [steps[0] if j == at else s for j, s in enumerate(a.strides)]
    kept = [(other, *ends) for other, ends in guards[0].items() if other != row]
    return strided.normal(a.box, starts[0], strides, [*kept, (row, low, high)])


def index(pieces: Pieces) -> np.ndarray:
    """The whole map as a flat array of 1-based source indices, 0 where no guard holds."""
    if len(pieces) == 1:
        return pieces[0].index()
    total: np.ndarray = np.zeros(pieces[0].size, np.int64 if any(reach(form) >= 2**31 - 1 for form in pieces) else np.int32)
    for form in pieces:
        fixed = fixed_digits(form.box, form.guards)
        if math.prod(form.box[j] for j in fixed) > BOXES:
            total += form.index()
            continue
        table = total.reshape(form.box)
        for places, start, box in boxes(form, fixed):
            table[places] = Strided(tuple(box), start, form.strides).index().reshape(box)
    return total


def reach(form: Strided) -> int:
    """No index that a form reads is larger."""
    return form.start + 1 + guards_.bounds(form.box, form.strides, ())[1]


def boxes(form: Strided, fixed: Sequence[int]) -> Iterator[tuple[tuple[slice, ...], int, list[int]]]:
    """(slices of the box, first source element, lengths) of the boxes that the guards leave, one for each choice of the
    ``fixed`` digits."""
    for values in itertools.product(*(range(form.box[j]) for j in fixed)):
        left = [range(n) for n in form.box]
        for j, value in zip(fixed, values, strict=True):
            left[j] = range(value, value + 1)
        if all(_narrow(left, fixed, guard) for guard in form.guards):
            start = form.start + sum(stride * digit.start for stride, digit in zip(form.strides, left, strict=True))
            yield tuple(slice(digit.start, digit.stop) for digit in left), start, [len(digit) for digit in left]


def fixed_digits(box: Sequence[int], guards: Sequence[Guard]) -> list[int]:
    """Digits, the smallest first, after whose choice every guard bounds one digit at most."""
    fixed: list[int] = []
    for coefficients, _, _ in guards:
        free = sorted((j for j, c in enumerate(coefficients) if c and j not in fixed), key=lambda j: box[j])
        fixed += free[:-1]
    return fixed


def _narrow(held: list[range], fixed: Sequence[int], guard: Guard) -> bool:
    """Leave of the one digit that is not ``fixed`` what a guard lets through; whether anything is left."""
    coefficients, low, high = guard
    value = sum(coefficients[j] * held[j].start for j in fixed)
    for j in (j for j, c in enumerate(coefficients) if c and j not in fixed):
        c, ends = coefficients[j], (low - value, high - value)
        least, most = (-(-ends[0] // c), ends[1] // c) if c > 0 else (-(-ends[1] // c), ends[0] // c)
        held[j] = range(max(held[j].start, least), min(held[j].stop, most + 1))
        return bool(held[j])
    return low <= value <= high
