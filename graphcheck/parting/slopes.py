"""How far one output element of a float64 evaluation can be from the true number, to first order in the roundings.

The running bounds of :mod:`graphcheck.kernel.values.float64` assume the worst at every step and grow by orders of magnitude a
layer. Here each step's own rounding is carried to the one element that matters by the actual derivatives (reverse
mode), so that only the roundings take their worst signs, not the steps between: |error| <= sum over the steps of
|d element / d step| * rounding of the step (Bauer, "Computational graphs and rounding error", SIAM J. Numer. Anal. 11,
1974; Linnainmaa, BIT 16, 1976).

It is a bound to first order, under one assumption that is not proved: no value on the way errs by more than
:data:`~graphcheck.parting.rooms.NEAR` of the largest number of its tensor (numbers above 1e8 and masks of -inf aside),
of 1, or of itself. What follows from it for an element (:mod:`graphcheck.parting.rooms`) is used wherever it is less.
Under it, what the derivatives leave out (products of two roundings) is small against what they tell, which
:data:`MARGIN` stands for; a kink (Relu, Max, Abs) that close adds the largest it can do; a jump or a pole that close
makes the bound infinite.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from graphcheck import processes
from graphcheck.kernel.terms.functions import chosen, function, nowhere
from graphcheck.kernel.terms.maps import Map
from graphcheck.kernel.terms.store import Terms
from graphcheck.kernel.terms.verbs import Const, Contract, Ew, Leaf, Move, Opaque, Rows, Sum, Verb
from graphcheck.kernel.values.bounds import TINY, U
from graphcheck.kernel.values.domain import apply
from graphcheck.kernel.values.float64 import Float64, Real, gamma
from graphcheck.kernel.values.gather import picked
from graphcheck.kernel.values.windows import block, blocks, by_rows, is_large
from graphcheck.parting.budget import work
from graphcheck.parting.rooms import DEPTHS, Rooms
from graphcheck.parting.tangents import BLOCK, Tangents
from graphcheck.parting.windows import Late, add, contracted_back, lengths, pulled

Kept = np.ndarray | Late
Place = tuple[int, Map | None]  # a class, and how it is seen
MARGIN = 2.0
_FREED = 1_000_000  # elements let go of between two returns of memory to the system
_HELD = 4_000_000  # elements kept at a time; all others are computed again on the way back, but for
_COSTLY, _PRODUCTS = 512, 4_000_000  # sums of so many products, of which so many elements are kept
_AHEAD, _LARGE = 2, 2**20  # classes that the evaluation is ahead of the tangents, one behind so many elements
_NOTHING, _NARROW = np.zeros(1), {"pos": np.bool_}  # what holds all that a function gives, of large tensors


def derivatives(
    terms: Terms, inputs: Mapping[tuple[Any, ...], np.ndarray], root: int, index: int
) -> dict[tuple[Any, ...], np.ndarray]:
    """The derivatives of element ``index`` of a class towards every leaf, by its key; NaN where none is known."""
    found = Tape(terms, inputs, [root]).back(root, index)
    return {verb.key: slope for cls, slope, _ in found if isinstance(verb := terms.terms[cls].verb, Leaf)}


class Tape:
    """A float64 evaluation of ``roots`` that can be walked back: kept at a few places, computed again in between; nothing is kept
    if it is to go ``forth`` alone."""

    def __init__(
        self,
        terms: Terms,
        inputs: Mapping[tuple[Any, ...], np.ndarray],
        roots: Sequence[int],
        tick: Callable[[float], None] = lambda _: None,
        tangents: Tangents | None = None,
        *,
        forth: bool = False,
    ) -> None:
        self.terms, self.tick, self.kinks, self.tangents = terms, tick, 0.0, tangents
        self.domain = Float64(inputs, bounds=False)
        self.exact: set[int] = set()
        kept = {terms.find(r) for r in roots}
        order = terms.order(roots)
        for cls in order:
            self._note_exact(cls)
        self.harmless = _saturating(terms, order, kept)
        last = {arg: cls for cls in order for arg in self._args(cls)}  # whose use of a value is its last
        self.parts = self._parts(order, last)
        self.starts: list[dict[int, Kept]] = []
        values: dict[int, Kept] = {}
        behind: deque[tuple[Callable[[], Any], list[int]]] = deque()  # what is waited for, and of no use from then on
        room, freed = 0 if forth else _PRODUCTS, 0

        def settle(ahead: int) -> None:
            nonlocal freed
            while len(behind) > ahead:
                wait, done = behind.popleft()
                wait()
                for arg in done:
                    values.pop(arg, None)
                    if tangents is not None:
                        tangents.forget(arg)
                        freed += terms.size(arg)
                if freed > _FREED:
                    freed = 0
                    processes.return_memory()

        if tangents is not None:
            processes.return_memory()
        with _aside(tangents is not None) as aside:
            for part in self.parts:
                settle(0)
                start = {} if forth else dict(values)
                self.starts.append(start)
                for cls in part:
                    value = values[cls] = self._apply(cls, values)
                    if isinstance(value, np.ndarray) and _is_costly(terms.terms[cls].verb) and value.size <= room:
                        start[cls] = value
                        room -= value.size
                    behind.append((
                        aside(self._follow, cls, values),
                        [arg for arg in self._args(cls) if last[arg] == cls and arg not in kept],
                    ))
                    settle(1 if value.size > _LARGE else _AHEAD)
            settle(0)
        self.ends = {cls: _dense(values[cls]) for cls in kept}

    def _follow(self, cls: int, values: Mapping[int, Kept]) -> None:
        if self.tangents is not None:
            self.tangents.follow(cls, values, self.harmless)

    def _parts(self, order: Sequence[int], last: Mapping[int, int]) -> list[list[int]]:
        """The order in pieces of a few million elements, cut where few values are alive."""
        parts: list[list[int]] = [[]]
        held = alive = 0
        for cls in order:
            if held > _HELD and (alive < held / 16 or held > 4 * _HELD):
                parts.append([])
                held = 0
            parts[-1].append(cls)
            counted = [
                arg for arg in set(self._args(cls)) if last[arg] == cls and not self._is_constant(arg)
            ]
            if not self._is_constant(cls):
                held += 0 if is_large(self.terms, cls) else self.terms.size(cls)
                alive += self.terms.size(cls) - sum(map(self.terms.size, counted))
        return parts

    def value(self, root: int) -> np.ndarray:
        """The float64 values of a root."""
        return self.ends[self.terms.find(root)]

    def moved(self, index: int, *roots: int) -> float:
        """How far the draw that the tangents carry moves an element of each root, as a sum; inf where a value on the way to
        it may be in doubt, or none were carried."""
        return math.inf if self.tangents is None else sum(self.tangents.moved(self.terms.find(root), index) for root in roots)

    def bound(self, root: int, index: int, less: int | None = None) -> float:
        """How far element ``index`` of a root, or of its difference from the root ``less``, may be from the true number, to
        first order. What both roots are made of is rounded once, and in a difference by its derivatives alone."""
        self.kinks = total = 0.0
        for _, slope, share in self.back(root, index, less):
            total += share
            if not math.isfinite(total + self.kinks + float(slope.sum())):
                return math.inf
        return MARGIN * (total + self.kinks)

    def back(self, root: int, index: int, less: int | None = None) -> Iterator[tuple[int, np.ndarray, float]]:
        """(class, derivatives towards it, what its own rounding adds) for every class below an element, from there down."""
        slopes: dict[int, np.ndarray] = {}
        for sign, end in ((1.0, root), (-1.0, less)):
            if end is not None:
                slopes.setdefault(self.terms.find(end), np.zeros(self.terms.size(end)))[index] += sign
        with _aside(self.tangents is not None) as aside:
            yield from self._walked(slopes, aside)

    def _walked(
        self, slopes: dict[int, np.ndarray], aside: Callable[..., Callable[[], Any]]
    ) -> Iterator[tuple[int, np.ndarray, float]]:
        for part, start in zip(reversed(self.parts), reversed(self.starts), strict=True):
            slopes = {cls: slope for cls, slope in slopes.items() if slope.any()}
            if slopes.keys().isdisjoint(part):
                continue
            values = dict(start)
            for cls in part:
                if cls not in values:
                    values[cls] = self._apply(cls, values)
            self.rooms = Rooms(self.terms, self.exact, values)
            for cls in reversed(part):
                slope = slopes.pop(cls, None)
                if slope is None or not slope.any():  # nothing depends on it
                    continue
                self.tick(2 * work(self.terms.terms[cls]))  # both operands' derivatives
                ids = self._args(cls)
                args = [self._operand(cls, place, values[a]) for place, a in enumerate(ids)]
                with np.errstate(all="ignore"):
                    value = _dense(values[cls])
                    share = aside(self._share, cls, slope, args, value)
                    parts = self._pull(cls, slope, args, value)
                    yield cls, slope, share()
                if isinstance(args[0] if args else None, Late):  # the windows were summed back into their source
                    ids[:1], sizes = self._args(ids[0]), [self.terms.size(a) for a in self._args(ids[0])]
                    parts[:1] = np.split(np.asarray(parts[0]), np.cumsum(sizes)[:-1])
                for arg, towards in zip(ids, parts, strict=False):
                    if towards is not None:
                        slopes[arg] = slopes[arg] + towards if arg in slopes else towards

    def _is_constant(self, cls: int) -> bool:
        return isinstance(self.terms.terms[cls].verb, Const)

    def _args(self, cls: int) -> list[int]:
        return [self.terms.find(a) for a in self.terms.terms[cls].args]

    def _operand(self, cls: int, place: int, value: Kept) -> Any:
        """What a class reads: large windows as they are where it reads them row by row, else all values in float64."""
        verb = self.terms.terms[cls].verb
        late = not place and isinstance(value, Late) and by_rows(verb, value.map)
        return value if late and (isinstance(verb, Contract) or len(self._args(self._args(cls)[0])) == 1) else _dense(value)

    def _apply(self, cls: int, values: Mapping[int, Kept]) -> Kept:
        term, ids = self.terms.terms[cls], self._args(cls)
        self.tick(work(term))
        below = [values[a] for a in ids]
        if is_large(self.terms, cls) and isinstance(term.verb, Move) and not any(isinstance(v, Late) for v in below):
            return Late(np.concatenate(below) if len(below) > 1 else np.asarray(below[0]), term.verb.map)
        if isinstance(term.verb, Move) and len(below) == 1 and isinstance(below[0], Late):
            return below[0].through(term.verb.map)
        with np.errstate(all="ignore"):
            verb, windows = term.verb, below[0] if below else None
            if isinstance(verb, Contract) and isinstance(windows, Late) and by_rows(verb, windows.map):
                other, made = _dense(below[1]).reshape(verb.batches[1], -1), np.empty((verb.batches[0] * verb.m, verb.n))
                for at, rows in windows.rows(verb.k):
                    batches, some = block(verb, at)
                    both = _real(rows), _real(other[batches])
                    found = self.domain.contract(*both, some.batches, some.m, verb.n, verb.k, verb.kn)
                    made[at] = found.raw.reshape(-1, verb.n)
                return made.reshape(-1)
            if isinstance(verb, Rows) and isinstance(windows, Late) and by_rows(verb, windows.map):
                made_ = (self.domain.rows(verb.fn, _real(x), len(x), verb.k, len(x)) for _, x in windows.rows(verb.k))
                return np.concatenate([found.raw for found in made_])
            before = self.domain.broken
            args = [_real(np.asarray(values[a])) for a in ids]
            cuts = _cuts(term.verb, term.size) if isinstance(term.verb, Ew) and term.size > _LARGE else None
            value = apply(self.terms, self.domain, cls, args).raw if cuts is None else self._in_blocks(cls, args, cuts)
            self.domain.broken = before if cls in self.harmless else self.domain.broken
            return value

    def _in_blocks(self, cls: int, args: Sequence[Real], cuts: Iterable[tuple[slice, list[Map | None]]]) -> np.ndarray:
        """An elementwise function, so that nothing on the way is as large as its result, nor what is seen through a map."""
        term = self.terms.terms[cls]
        assert isinstance(term.verb, Ew)
        made = np.empty(term.size, _NARROW.get(term.verb.fn, np.float64))
        for at, maps in cuts:
            seen = [a if m is not None or a.raw.size == 1 else a.part(at) for a, m in zip(args, maps, strict=True)]
            made[at] = self.domain.ew(term.verb.fn, seen, maps, at.stop - at.start).raw
        return made

    def _share(self, cls: int, slope: np.ndarray, args: Sequence[Any], value: np.ndarray) -> float:
        """The sum of |derivative| * rounding over the elements of one step."""
        term = self.terms.terms[cls]
        match term.verb:
            case Contract(m=m, n=n, k=k):  # sum |a_k b_k| <= |a| |b|, in Euclidean norms
                rows, columns = lengths(term.verb, args[0], args[1])
                size = np.abs(slope)
                both = (size.reshape(-1, m, n) @ columns[:, :, None])[..., 0]
                return float(gamma(k) * (rows * both).sum() + k * TINY * size.sum())
            case Ew(fn) if not (rounding := function(fn).rounding).exact:
                total = 0.0
                for at in range(0, slope.size, BLOCK):
                    size = np.abs(slope[at : at + BLOCK])
                    told = size @ np.abs(value[at : at + BLOCK])
                    total += float(rounding.relative * told + (16 * TINY + rounding.absolute) * size.sum())
                if math.isfinite(total):
                    return total
                room = rounding.relative * np.abs(value) + U
            case Sum(rows, k):
                room = gamma(k) * np.abs(args[0]).reshape(rows, k).sum(axis=1)
            case Rows("softmax", rows, k):
                table = args[0].reshape(rows, k)
                far = np.abs(table - table.max(axis=1, keepdims=True)).reshape(-1)
                room = 4 * U * value * (np.where(np.isfinite(far), far, 0) + k + 16) + 16 * TINY
            case Const() if term.size and value.dtype.kind in "iu" and value.dtype.itemsize == 8:
                room = np.where(np.abs(value) >= 2.0**53, U * np.abs(value), 0.0)
            case Opaque():
                return math.inf if slope.any() else 0.0
            case _:
                return 0.0
        total = float(np.dot(np.abs(slope), room))
        if not math.isfinite(total):  # a mask of -inf is exact, and what nothing depends on is no matter
            total = float(np.sum(np.abs(slope) * room, where=(slope != 0) & ~np.isneginf(value)))
        return total

    def _note_exact(self, cls: int) -> None:
        """Note values that are not rounded at all on the way from inputs and constants."""
        term = self.terms.terms[cls]
        match term.verb:
            case Ew(fn):
                exact = function(fn).rounding.exact
            case Rows(fn):
                exact = fn != "softmax"
            case verb:
                exact = isinstance(verb, (Const, Leaf, Move))
        if exact and self.exact.issuperset(self._args(cls)):
            self.exact.add(cls)

    def _near(
        self, places: Sequence[Place], told: Callable[..., tuple[np.ndarray, np.ndarray]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """What is ``told`` of rooms (where something is near, and by how much): of those that are assumed, and where something
        is near then, of those that follow."""
        found = told(*(self.rooms.assumed(*place) for place in places))
        return told(*(self.rooms.of(*place) for place in places)) if np.any(found[0]) else found

    def _beside_pole(self, pole: Callable[..., Any], place: Place, seen: Sequence[np.ndarray], size: int) -> np.ndarray:
        """Where a pole is near the first of the operands ``seen``: as by :meth:`_near`, block by block."""
        found = np.zeros(size, bool)
        for start in range(0, size, BLOCK):
            at = slice(start, min(start + BLOCK, size))
            found[at] = pole(self.rooms.assumed(*place, at), *(x if x.size == 1 else x[at] for x in seen))
        for depth in DEPTHS:
            near = np.flatnonzero(found)
            if near.size:
                found[near] = pole(self.rooms.of(*place, near, depth), *(x if x.size == 1 else x[near] for x in seen))
        return found

    def _kink(self, slope: np.ndarray, near: np.ndarray, room: np.ndarray) -> None:
        """Where a kink is near, the derivative may be wrong for as far as the value may err."""
        self.kinks += 2 * float(np.sum(np.abs(slope) * room, where=np.broadcast_to(near, slope.shape)))

    def _pull(
        self, cls: int, slope: np.ndarray, args: Sequence[Any], value: np.ndarray
    ) -> list[np.ndarray | None]:
        """The derivatives towards a verb's operands (None: a constant), given those towards its result."""
        term, ids = self.terms.terms[cls], self._args(cls)
        fixed = [self._is_constant(a) for a in ids]
        match term.verb:
            case Move(map_):
                return list(pulled(map_, slope, [a.size for a in args]))
            case Ew():
                return self._elementwise(cls, slope, ids, args, value)
            case Contract() as verb:
                return contracted_back(verb, slope, args, fixed)
            case Sum(_, k):
                return [np.repeat(slope, k)]
            case Rows() as verb:
                return [self._rows(verb, slope, ids[0], args[0], value)]
            case _:
                return [np.full(a.size, np.nan) for a in args]

    def _rows(self, verb: Rows, slope: np.ndarray, cls: int, x: Any, value: np.ndarray) -> np.ndarray:
        if isinstance(x, Late):  # back into what the windows are made of
            total, (source,) = np.zeros(x.source.size), self._args(cls)
            for at, part in blocks(x.map, verb.k):
                some = dataclasses.replace(verb, rows=at.stop - at.start)
                add(total, part, self._extreme(some, slope[at], (source, part), picked([x.source], part), _again(part, some)))
            return total
        moved = self.terms.terms[cls].verb
        again = _again(moved.map, verb) if isinstance(moved, Move) else np.zeros((verb.rows, verb.k), bool)
        return self._extreme(verb, slope, (cls, None), x, again) if verb.fn != "softmax" else self._softmax(verb, slope, value)

    def _softmax(self, verb: Rows, slope: np.ndarray, value: np.ndarray) -> np.ndarray:
        p, up = (x.reshape(verb.rows, verb.k) for x in (value, slope))
        return np.asarray(p * (up - (up * p).sum(axis=1, keepdims=True))).reshape(-1)

    def _extreme(self, verb: Rows, slope: np.ndarray, place: Place, x: np.ndarray, again: np.ndarray) -> np.ndarray:
        """Towards the largest of each row, or its place; ``again`` are no rivals of others in it."""
        fn, rows, k = verb.fn, verb.rows, verb.k
        table = x.reshape(rows, k)
        signed = -table if "min" in fn else table
        first = signed.argmax(axis=1)

        def rivals(room: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            rooms = np.broadcast_to(room, x.shape).reshape(rows, k)
            found = ~(signed + rooms < (signed - rooms).max(axis=1, keepdims=True))  # may be the largest, or are unknown
            found &= ~again
            room = rooms.max(axis=1, initial=0.0, where=found)
            return (room > 0) & (found.sum(axis=1) > 1), room

        near, room = self._near([place], rivals)
        if "arg" in fn:
            return np.repeat(np.where((slope != 0) & near, np.nan, 0.0), k)
        self._kink(slope, near, room)
        found = np.zeros((rows, k))
        found[np.arange(rows), first] = slope
        return found.reshape(-1)

    def _elementwise(
        self, cls: int, slope: np.ndarray, ids: Sequence[int], args: Sequence[np.ndarray], value: np.ndarray
    ) -> list[np.ndarray | None]:
        verb = self.terms.terms[cls].verb
        assert isinstance(verb, Ew)
        fn, maps = verb.fn, verb.maps
        record = function(fn)
        rule, edge = record.slope, record.edge
        seen = [a if map_ is None else picked([a], map_) for a, map_ in zip(args, maps, strict=True)]
        places = list(zip(ids, maps, strict=True))
        if fn in ("max", "min"):
            partials = self._extremes(fn, slope, seen, places, value)
        elif fn == "mul":
            partials = self._product(slope, ids, maps, seen)
        elif rule is None or (rule.bends and edge is None):
            partials = [np.full(s.shape, np.nan) for s in seen]
        else:
            partials = list(rule.partials(value, *seen))
            if rule.pole is not nowhere:
                unsafe = self._beside_pole(rule.pole, places[0], seen, slope.size)
                partials = [np.where(unsafe, np.nan, p) for p in partials] if unsafe.any() else partials
            if rule.bends and edge is not None:
                far = np.abs(seen[0] - edge(seen[0]))
                self._kink(slope, *self._near(places[:1], lambda room: ((room > 0) & (far <= room), room)))
        result: list[np.ndarray | None] = []
        for c, partial, arg, map_ in zip(ids, partials, args, maps, strict=True):
            if self._is_constant(c):
                result.append(None)
                continue
            flow = slope * partial
            if not math.isfinite(float(np.add.reduce(flow, axis=None))):  # what nothing depends on is no matter
                flow = np.where(slope == 0, 0.0, flow)
            if map_ is not None:
                (flow,) = pulled(map_, np.broadcast_to(flow, (map_.size,)), [arg.size])
            elif arg.size == 1:
                flow = flow.sum(keepdims=True)
            result.append(flow)
        return result

    def _extremes(
        self, fn: str, slope: np.ndarray, seen: Sequence[np.ndarray], places: Sequence[Place], value: np.ndarray
    ) -> list[np.ndarray]:
        """Max or min: the first operand that is the result; one that is as large but for rounding may be it instead."""
        sign = 1.0 if fn == "max" else -1.0

        def rivals(*rooms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            surely = np.maximum.reduce(np.broadcast_arrays(*(sign * s - r for s, r in zip(seen, rooms, strict=True))))
            found, room = np.zeros(value.shape, np.int64), np.zeros(value.shape)
            for s, r in zip(seen, rooms, strict=True):
                rival = ~(sign * s + r < surely)
                found += rival
                room = np.where(rival, np.maximum(room, r), room)
            return (room > 0) & (found > 1), room

        self._kink(slope, *self._near(places, rivals))
        return list(chosen(value, *seen))

    def _product(
        self,
        slope: np.ndarray,
        ids: Sequence[int],
        maps: Sequence[Map | None],
        seen: Sequence[np.ndarray],
    ) -> list[np.ndarray]:
        """x * y; at x * pos(x), which has a kink and no jump, nothing flows through the step."""
        partials = [seen[1], seen[0]]
        for step, x in ((0, 1), (1, 0)):
            term = self.terms.terms[ids[step]]
            if isinstance(term.verb, Ew) and term.verb.fn == "pos":
                relu = self._args(ids[step]) == [ids[x]] and term.verb.maps == (None,) and maps[0] is maps[1]
                if relu:
                    far = np.abs(seen[x])
                    place = [(ids[x], maps[x])]
                    self._kink(slope, *self._near(place, lambda room, far=far: ((room > 0) & (far <= room), room)))
                    partials[step] = np.zeros(1)
                elif ids[x] not in self.exact:  # where the factor is 0 only by rounding, the step matters all the same
                    partials[step] = np.where(seen[x] == 0, 1e-300, seen[x])
        return partials


def _again(map_: Map, verb: Rows) -> np.ndarray:
    """Where a row has the element beside it once more, as windows at an edge do: it is no rival of itself."""
    found = np.zeros((verb.rows, verb.k), bool)
    if map_.form is None:
        table = map_.index.reshape(found.shape)
        found[:, 1:] = table[:, 1:] == table[:, :-1]
    return found


def _cuts(verb: Ew, size: int) -> Iterator[tuple[slice, list[Map | None]]] | None:
    """Blocks of an elementwise function, with the maps of each; None where operands are seen through several."""
    maps = {m for m in verb.maps if m is not None}
    if len(maps) > 1 or any(m.pieces is None for m in maps):
        return None
    plain: Iterable[tuple[slice, Map | None]] = ((slice(s, min(s + BLOCK, size)), None) for s in range(0, size, BLOCK))
    cuts = next((blocks(m, 1) for m in maps), plain)
    return ((at, [m and part for m in verb.maps]) for at, part in cuts)


def _is_costly(verb: Verb) -> bool:
    """Whether a value is better kept than computed again."""
    return isinstance(verb, Contract) and verb.k >= _COSTLY


def _dense(value: Kept) -> np.ndarray:
    """All values in float64."""
    return np.asarray(value).astype(np.float64, copy=False)


def _saturating(terms: Terms, order: Sequence[int], kept: set[int]) -> set[int]:
    """The Exp of Sigmoids, 1 / (1 + Exp) and 1 / (1 + 1 / Exp): beyond the range of float64 these are 0 or 1 all the same."""
    readers: dict[int, list[int]] = {cls: [] for cls in order}
    for cls in order:
        for arg in terms.terms[cls].args:
            readers[terms.find(arg)].append(cls)

    def fine(cls: int, added: bool) -> bool:
        """Whether 1 is added to all that reads a class, or its reciprocal, and then the reciprocal taken."""
        return cls not in kept and bool(readers[cls]) and all(read(reader, cls, added) for reader in readers[cls])

    def read(reader: int, cls: int, added: bool) -> bool:
        term = terms.terms[reader]
        match term.verb:
            case Ew("recip"):
                return added or fine(reader, False)
            case Ew("add"):
                others = [terms.scalar(a) for a in term.args if terms.find(a) != cls]
                return not added and others == [1.0] and fine(reader, True)
        return isinstance(term.verb, Move) and len(term.args) == 1 and fine(reader, added)

    rest = [cls for cls in order if isinstance(verb := terms.terms[cls].verb, Ew) and verb.fn == "exp" and fine(cls, False)]
    found: set[int] = set()
    while rest:  # up to the sum
        found.add(cls := rest.pop())
        verb = terms.terms[cls].verb
        rest += [] if isinstance(verb, Ew) and verb.fn == "add" else readers[cls]
    return found


@contextlib.contextmanager
def _aside(large: bool) -> Iterator[Callable[..., Callable[[], Any]]]:
    """What begins a piece of work on another core, and gives what waits for its result; done at once if it is not ``large``."""

    def at_once(work: Callable[..., Any], *args: Any) -> Callable[[], Any]:
        found = work(*args)
        return lambda: found

    if not large:
        yield at_once
        return
    with ThreadPoolExecutor(1) as pool:
        yield lambda work, *args: pool.submit(contextvars.copy_context().run, work, *args).result


def _real(value: np.ndarray) -> Real:
    return Real(value, np.broadcast_to(_NOTHING, value.shape))
