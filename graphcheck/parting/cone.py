"""What a few elements of the outputs are made of: the same expression, with those elements alone at every step.

An element of a segmentation map depends on a patch of the image, and what leads to it is a part of each tensor. The parts are
boxes: the digits of a tensor's flat index are cut where what reads it cuts them, and each has a range. They are found from the
outputs back, and cover what is read; then each verb is made anew on its operands' parts, by the same forms with other strides
(:mod:`graphcheck.kernel.terms.strided`). What no form tells (a table of places, an operator that nobody taught) is left whole.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence

import numpy as np

from graphcheck.errors import Oversized
from graphcheck.kernel.terms import guards, pieces, strided
from graphcheck.kernel.terms.maps import Map, steps
from graphcheck.kernel.terms.store import Terms
from graphcheck.kernel.terms.strided import Strided
from graphcheck.kernel.terms.verbs import Const, Contract, Ew, Leaf, Move, Opaque, Rows, Sum, Term, Verb, reduces
from graphcheck.parting.budget import work

_TABLE = 2**24  # places that are told one by one at most
Reads = Sequence[Strided] | None  # of an operand, as forms over the part of what reads it; None: all of it, as it is
Table = np.ndarray | Map  # places of a tensor that is whole, one by one


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """A box of the elements of a flat tensor: a range for each digit of its index."""

    radices: tuple[int, ...]
    ranges: tuple[range, ...]

    @property
    def box(self) -> tuple[int, ...]:
        """How many values each digit has."""
        return tuple(map(len, self.ranges))

    @property
    def whole(self) -> bool:
        """Whether it is all of the tensor."""
        return self.box == self.radices

    def aligned(self, ends: Iterable[int]) -> Part:
        """The part, enlarged so that it may be cut at ends, too."""
        ranges = []
        for radix, some, step in zip(self.radices, self.ranges, steps(self.radices), strict=True):
            inner = max((end // step for end in ends if step < end < step * radix), default=1)
            ranges.append(range(some.start // inner * inner, -(-some.stop // inner) * inner))
        return Part(self.radices, tuple(ranges))

    def cut(self, ends: Iterable[int]) -> Part:
        """The same elements by finer digits, of a part that is aligned to these ends."""
        radices, ranges = [], []
        for radix, some, step in zip(self.radices, self.ranges, steps(self.radices), strict=True):
            inside = [1, *sorted(end // step for end in ends if step < end < step * radix), radix]
            finer = [b // a for a, b in itertools.pairwise(inside)][::-1]
            first = inside[-2]
            radices += finer
            ranges += [range(some.start // first, some.stop // first), *map(range, finer[1:])]
        return Part(tuple(radices), tuple(ranges))

    @property
    def digits(self) -> list[tuple[range, int]]:
        """The ranges, each with what a step of it is worth in the flat index."""
        return list(zip(self.ranges, steps(self.radices), strict=True))

    def within(self, form: Strided) -> Strided | None:
        """A form over all of the tensor as one over the part; None where its digits are cut in another way."""
        for at in range(1, len(self.radices)):
            cut = strided.cut(form, math.prod(self.radices[:at]))
            if cut is None:
                return None
            form = cut
        if form.box != self.radices:
            return None
        starts = [some.start for some in self.ranges]
        shifted = [(row, low - _dot(row, starts), high - _dot(row, starts)) for row, low, high in form.guards]
        return Strided(self.box, form.start + _dot(form.strides, starts), form.strides, tuple(shifted))


class Cone(Terms):
    """An expression that computes the elements ``at`` of the roots; ``ends`` are the classes of its own of each root. All of the
    terms have elements. Raises :class:`graphcheck.errors.Oversized` where it would take a large table of places, or evaluating it
    more than ``most`` work (see budget.py)."""

    def __init__(self, terms: Terms, roots: Iterable[int], at: range, most: float = math.inf) -> None:
        super().__init__(terms.rules, contents=terms.contents)
        self._terms = terms
        self._readers: dict[int, list[Reads]] = {}
        self._reads: dict[int, list[Reads | Table]] = {}
        self._parts: dict[int, Part] = {}
        self._fine: dict[int, Part] = {}  # the same, cut as the class is made
        self._made: dict[int, int] = {}
        some = [strided.Strided((len(at),), at.start, (1,))]
        ends = [terms.find(root) for root in roots]
        for end in ends:
            self._readers.setdefault(end, []).append(some)
        order = terms.order(ends)
        for cls in reversed(order):
            self._parts[cls] = self._part(cls)
            most -= work(terms.terms[cls], math.prod(self._parts[cls].box))
            if most < 0:
                raise Oversized("more work than it may take")
            self._fine[cls] = self._parts[cls].cut(_own(terms.terms[cls]))
            self._reads[cls] = reads = self._read(cls)
            for arg, read in zip(terms.terms[cls].args, reads, strict=True):
                self._readers.setdefault(terms.find(arg), []).append(None if isinstance(read, Table) else read)
        for cls in order:
            self._made[cls] = self._make(cls)
        self.ends = {end: self._read_of([end], [some], len(at)) for end in ends}

    # -- from the outputs back -----------------------------------------------------------------------------------------

    def _part(self, cls: int) -> Part:
        """What is read of a class, as a box."""
        term, readers = self._terms.terms[cls], self._readers[cls]
        forms, own = [form for read in readers for form in read or ()], _own(term)
        radices = _radices((1, term.size))
        least = Part(radices, tuple(map(range, radices)))
        if None in readers or isinstance(term.verb, Const | Leaf | Opaque):
            return least
        apart = [_weights(form) for form in forms]
        for weights in ([*own, *itertools.chain(*apart)], list(itertools.chain(*apart)), *apart):
            radices = _radices(_ends(term.size, weights, beside=own))
            found = [strided.digits(f.box, f.start, f.strides, f.guards, radices) for f in forms]
            if None not in found:
                part = _covering(radices, found, _inner(term)).aligned(own)  # type: ignore[arg-type]
                least = min(least, part, key=lambda part: math.prod(part.box))
        return least

    def _read(self, cls: int) -> list[Reads | Table]:
        """What the part of a class reads of its operands; of a table its entries."""
        term, part = self._terms.terms[cls], self._fine[cls]
        sizes = [self._terms.size(arg) for arg in term.args]
        match term.verb:
            case Move(map_):
                return self._of_map(map_, part, sizes)
            case Ew(_, maps):
                return [
                    None if map_ is None and size < term.size
                    else self._of_map(map_, part, [size])[0] if map_ is not None
                    else _form(part.digits)
                    for map_, size in zip(maps, sizes, strict=True)
                ]  # fmt: skip
            case Contract(batches, m, n, k, kn) as verb:
                outer, rows, columns = _digits(verb, part)
                whole = [(range(k), n if kn else 1)]
                left = [(some, step * m * k) for some, step in outer if batches[0] > 1]
                right = [(some, step * n * k) for some, step in outer if batches[1] > 1]
                left += [*((some, step * k) for some, step in rows), (range(k), 1)]
                right += [*whole, *columns] if kn else [*((some, step * k) for some, step in columns), *whole]
                return [_form(left), _form(right)]
            case Sum(_, k):
                return [_form([*((some, step * k) for some, step in part.digits), (range(k), 1)])]
            case Rows(fn, _, k) if reduces(fn):
                return [_form([*((some, step * k) for some, step in part.digits), (range(k), 1)])]
            case Rows():
                return [_form(part.digits)]
            case _:
                return [None for _ in sizes]

    def _of_map(self, map_: Map, part: Part, sizes: Sequence[int]) -> list[Reads | Table]:
        """What a map reads of its sources: forms of each, or the entries of its table and all of the sources."""
        forms = list(map_.pieces or ()) if part.whole else [part.within(form) for form in map_.pieces or ()]
        if forms and None not in forms:
            held = [strided.normal(f.box, f.start, f.strides, f.guards) for f in forms if f is not None]
            cut = list(pieces.parted([f for f in held if f is not None], sizes))  # type: ignore[arg-type]
            if None not in cut:
                return list(cut)
        places, count = _form(part.digits), math.prod(part.box)
        if count > _TABLE:
            raise Oversized(f"a table of {count} places")
        table = map_ if part.whole else map_.at(places[0].index() - 1 if places else np.zeros(0, int))
        return [table for _ in sizes]

    # -- and forward ---------------------------------------------------------------------------------------------------

    def _make(self, cls: int) -> int:
        term, part, reads = self._terms.terms[cls], self._fine[cls], self._reads[cls]
        args, size = [self._terms.find(arg) for arg in term.args], math.prod(part.box)
        match term.verb:
            case Move():
                return self._read_of(args, reads, size)
            case Ew(fn, _):
                seen = [self._seen(arg, read, size) for arg, read in zip(args, reads, strict=True)]
                return self._add(Ew(fn, tuple(map_ for _, map_ in seen)), [c for c, _ in seen], size, cls)
            case Contract(batches, k=k) as verb:
                many, m, n = (math.prod(len(some) for some, _ in digits) for digits in _digits(verb, part))
                both = many if batches[0] > 1 else 1, many if batches[1] > 1 else 1
                counts = both[0] * m * k, both[1] * n * k
                made = [self._read_of([a], [r], c) for a, r, c in zip(args, reads, counts, strict=True)]
                return self._add(dataclasses.replace(verb, batches=both, m=m, n=n), made, size, cls)
            case Sum(_, k):
                return self._add(Sum(size, k), [self._read_of(args, reads, size * k)], size, cls)
            case Rows(fn, _, k):
                rows = size if reduces(fn) else size // max(k, 1)
                return self._add(Rows(fn, rows, k), [self._read_of(args, reads, rows * k)], size, cls)
            case verb:
                return self._add(verb, [self._made[arg] for arg in args], size, cls)

    def _add(self, verb: Verb, args: Sequence[int], size: int, like: int | None = None) -> int:
        cls = len(self.terms)
        self.terms.append(Term(verb, tuple(args), size))
        self._parent.append(cls)
        self.neginf.append(self._terms.neginf[like] if like is not None else any(self.neginf[arg] for arg in args))
        if like in self._terms.arrays:
            self.arrays[cls] = self._terms.arrays[like]
        return cls

    def _seen(self, arg: int, read: Reads | Table, size: int) -> tuple[int, Map | None]:
        """An operand with the map that shows what is read of it."""
        if read is None:
            return self._made[arg], None
        map_ = self._map([arg], [read], size)
        whole = map_.identity and size == math.prod(self._parts[arg].box)
        return self._made[arg], None if whole else map_

    def _read_of(self, args: Sequence[int], reads: Sequence[Reads | Table], size: int) -> int:
        """What is read of operands, one after the other, as a class; the operand itself where that is all of it."""
        made = [self._made[arg] for arg in args]
        if len(args) == 1 and (seen := self._seen(args[0], reads[0], size))[1] is None:
            return seen[0]
        return self._add(Move(self._map(args, reads, size)), made, size)

    def _map(self, args: Sequence[int], reads: Sequence[Reads | Table], size: int) -> Map:
        if isinstance(table := reads[0], Map):  # of sources that are whole
            return self.maps.repeated(table.once, table.step, table.blocks)
        if isinstance(table, np.ndarray):
            return self.maps.intern(table)
        found: list[Strided] = []
        begin = 0
        for arg, read in zip(args, reads, strict=True):
            part = self._parts[arg]
            found += [dataclasses.replace(form, start=form.start + begin) for form in _placed(part, read or ())]  # type: ignore[arg-type]
            begin += math.prod(part.box)
        whole = pieces.joined(found)
        return self.maps.of(whole, lambda: pieces.index(tuple(found)) if found else np.zeros(size, np.int64))


def _placed(part: Part, forms: Iterable[Strided]) -> list[Strided]:
    """Forms that read a tensor, as they read its part."""
    if part.whole:
        return list(forms)
    factors = steps(part.box)
    start = -sum(factor * some.start for factor, some in zip(factors, part.ranges, strict=True))
    place = Strided(part.radices, start, tuple(factors))
    found = [strided.compose(place, form) for form in forms]
    assert None not in found  # or the part were another
    return [placed for one in found for placed in one or ()]


def _ends(size: int, weights: Iterable[int], beside: Sequence[int] = ()) -> list[int]:
    """1, the size, and in between the weights that divide each other, what stands ``beside`` and the size, the first first."""
    ends = [1, size]
    for weight in weights:
        if 1 < weight < size and weight not in ends and all(not max(weight, e) % min(weight, e) for e in (*ends, *beside)):
            ends.append(weight)
    return sorted(ends)


def _radices(ends: Sequence[int]) -> tuple[int, ...]:
    return tuple(b // a for a, b in itertools.pairwise(ends) if b > a)[::-1]


def _covering(radices: tuple[int, ...], cases: Sequence[strided.Case], inner: int) -> Part:
    """The box around all that is read, the digits of runs of ``inner`` elements left whole."""
    ranges = []
    for at, (radix, step) in enumerate(zip(radices, steps(radices), strict=True)):
        read = []
        for box, held, places in cases:
            offset, row = places[at]
            least, most = guards.bounds(box, row, held)
            read += [offset + least, offset + most]
        low, high = max(min(read, default=0), 0), min(max(read, default=0), radix - 1)
        ranges.append(range(radix) if step < inner else range(low, high + 1))
    return Part(radices, tuple(ranges))


def _own(term: Term) -> list[int]:
    """Where the index of a class is cut by how it is made."""
    match term.verb:
        case Contract(_, m, n):
            ends = [n, m * n]
        case Rows(fn, _, k) if not reduces(fn):
            ends = [k]
        case Move(map_):
            ends = _cuts([map_])
        case Ew(_, maps):
            ends = _cuts(maps)
        case _:
            ends = []
    return _ends(term.size, ends)[1:-1]


def _cuts(maps: Iterable[Map | None]) -> list[int]:
    forms = [form for map_ in maps if map_ is not None for form in map_.pieces or ()]
    return [math.prod(form.box[at:]) for form in forms for at in range(1, len(form.box))]


def _inner(term: Term) -> int:
    """Runs of so many elements are made together."""
    return term.verb.k if isinstance(term.verb, Rows) and not reduces(term.verb.fn) else 1


def _digits(verb: Contract, part: Part) -> tuple[list[tuple[range, int]], ...]:
    """The digits of a part of a product that count its batches, its rows and its columns, with what they are worth in these."""
    m, n = verb.m, verb.n
    return (
        [(some, step // (m * n)) for some, step in part.digits if step >= m * n],
        [(some, step // n) for some, step in part.digits if n <= step < m * n],
        [(some, step) for some, step in part.digits if step < n],
    )


def _weights(form: Strided) -> list[int]:
    """Where a form cuts the index of what it reads: where its digits, the smallest strides first, do not run over the next."""
    found, extent, group = [], 0, [0] * len(form.box)
    for j in sorted(range(len(form.box)), key=lambda j: abs(form.strides[j])):
        stride = form.strides[j]
        if abs(stride) > extent:
            found.append(abs(stride))
        group[j] = stride
        least, most = guards.bounds(form.box, group, form.guards)
        extent = most - least
    return found


def _form(digits: Sequence[tuple[range, int]]) -> list[Strided]:
    """The elements at all values of digits, of what a step is worth each; none if one of them has no value."""
    start = sum(some.start * step for some, step in digits)
    found = strided.normal([len(some) for some, _ in digits], start, [step for _, step in digits])
    return [] if found is None else [found]


def _dot(row: Sequence[int], values: Sequence[int]) -> int:
    return sum(a * b for a, b in zip(row, values, strict=True))
