"""One draw of the roundings, carried along a float64 evaluation by its derivatives: whether any value on the way is in doubt.

A first-order bound holds where no value on the way errs by much, which it does not look at itself: behind a steep Tanh the
derivatives are 0, however wrong its operand. What is carried here are random multiples of the roundings of every step (the
tangents, in units of :data:`~graphcheck.kernel.values.bounds.U`), in float32 and beside the evaluation, for a fraction of
what it costs. It only ever says that nothing on the way to an element is in doubt, by the rules of
:mod:`graphcheck.parting.redrawn`; else, and where a step is not followed (a place of an extreme, an operator without
derivatives), the tangent is NaN, and so is all that depends on it: that is to be looked into.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from graphcheck.kernel.terms.functions import chosen, function, nowhere
from graphcheck.kernel.terms.maps import Map
from graphcheck.kernel.terms.store import Terms
from graphcheck.kernel.terms.verbs import Const, Contract, Ew, Leaf, Move, Rows, Sum, Term, Verb
from graphcheck.kernel.values.bounds import U
from graphcheck.kernel.values.gather import picked
from graphcheck.kernel.values.windows import block, by_rows
from graphcheck.parting.redrawn import DOUBT, ENLARGED, FAR, ZERO, beside, beside_pole, cut, shrinking, unsure
from graphcheck.parting.windows import Late, lengths, wide

_NOISE = 2**20  # random numbers that are used again and again
BLOCK = 2**16  # elements that stay in the cache
_NOTHING, _LEAST, _SMALL = np.zeros(1), np.finfo(np.float32).tiny, 1e-30  # beside which a tangent below float32 is nothing
Tangent = np.ndarray | Late | None  # None: no rounding on the way


class Tangents:
    """The draw: :meth:`follow` each class once its value is known; then :meth:`doubt` its elements."""

    def __init__(self, terms: Terms, seed: int) -> None:
        self.terms, self.lost = terms, False  # once all of a tensor is in doubt
        self.known: dict[int, Tangent] = {}
        self.logarithms: set[int] = set()  # classes whose tangent is that of a logarithm
        self.told: dict[int, tuple[float, float]] = {}  # the scale and the steepness of a class
        self.rooms: dict[int, Any] = {}  # how far elements err that may be an exact 0, whose tangents are NaN; 0 for the others
        self.random = np.random.default_rng([seed, 83])
        self.noise = self.random.standard_normal(_NOISE, np.float32)

    def moved(self, cls: int, at: int) -> float:
        """How far the draw, enlarged, moves an element; inf where a value on the way to it is, or may be, in doubt."""
        found = None if self.lost else self.known[cls]
        moved = math.nan if self.lost else 0.0 if found is None else ENLARGED * U * abs(float(np.asarray(found)[at]))
        return moved if math.isfinite(moved) else math.inf

    def forget(self, cls: int) -> None:
        """Let go of what is known of a class that nothing reads any more."""
        self.known.pop(cls, None)
        self.rooms.pop(cls, None)

    def follow(self, cls: int, values: Mapping[int, Any], inner: Container[int] = ()) -> None:
        """Carry the tangents of the operands of a class to it. To the ``inner`` ones, within Sigmoids, that of the logarithm of
        Exp is carried instead, which is finite however large that is; the Sigmoid then has all the roundings."""
        if self.lost:
            self.known.clear()
            self.rooms.clear()
            return
        term = self.terms.terms[cls]
        ids = [self.terms.find(a) for a in term.args]
        xs, ts = [values[a] for a in ids], list[Any](self.known[a] for a in ids)
        within = not self.logarithms.isdisjoint(ids)
        if cls in inner or (within and isinstance(term.verb, Move)):
            self.logarithms.add(cls)
        if cls in inner and isinstance(term.verb, Ew):
            self.known[cls], self.told[cls] = _of_logarithm(term.verb, ts), self._cut(term, xs, ts, ids)
            return
        if isinstance(term.verb, Move):  # in no more doubt than what it is made of
            free, map_ = all(t is None for t in ts), term.verb.map
            whole = not isinstance(values[cls], Late)
            if len(ts) == 1 and isinstance(ts[0], Late):
                self.known[cls] = ts[0].through(map_)
            else:
                sources = [] if free else [np.asarray(_or_zeros(t, x)) for t, x in zip(ts, xs, strict=True)]
                self.known[cls] = None if free else picked(sources, map_) if whole else Late(np.concatenate(sources), map_)
            self.told[cls] = self._cut(term, xs, ts, ids)
            if not self.rooms.keys().isdisjoint(ids):
                rooms: list[Any] = [np.asarray(_or_zeros(self.rooms.get(a), x)) for a, x in zip(ids, xs, strict=True)]
                self.rooms[cls] = picked(rooms, map_) if whole else Late(np.concatenate(rooms), map_)
            return
        late = int(bool(xs) and isinstance(xs[0], Late) and by_rows(term.verb, xs[0].map))  # what may be left to be read by rows
        steps = isinstance(term.verb, Ew)  # which are read in blocks
        xs = [*xs[:late], *map(np.asarray if steps else wide, xs[late:])]
        ts = [*ts[:late], *(np.asarray(t) if isinstance(t, Late) else t for t in ts[late:])]
        value: np.ndarray = np.asarray(values[cls])
        rooms = [self.rooms.get(a) for a in ids]
        with np.errstate(all="ignore"):
            known = any(r is not None for r in rooms)
            room = self._room(term.verb, [*xs[:late], *map(wide, xs[late:])], rooms, late) if known else None
            if room is not None:
                ts = list(map(_without, ts, rooms))
            scale, steep = self.told[cls] = beside(value, *self._cut(term, xs, ts, ids))
            made: np.ndarray | None = None
            self.lost = bool(value.size)
            for at, size, part in self._parts(term, xs, ts, value, within):
                if part is not None:
                    made = np.zeros(value.size, np.float32) if made is None else made
                    made, most = _noted(made, at, part, size.least)
                    found = _lose(made[at], most, size, scale, steep)
                    if found is not None:
                        self.rooms.setdefault(cls, np.zeros(value.size, np.float32))[at] = found
                self.lost = self.lost and made is not None and bool(np.isnan(made[at]).all())
            if room is not None:
                made = self._absorbed(cls, np.zeros(value.size, np.float32) if made is None else made, room, value)
        self.known[cls] = made

    def _room(self, verb: Verb, xs: Sequence[Any], rooms: Sequence[Any], late: int) -> np.ndarray | None:
        """How far a sum or a product may err by elements of its operands that may be 0, none of them made up for by another; None
        for another verb, whose results they leave in doubt."""
        rooms = [*rooms[:late], *(r if r is None else np.asarray(r) for r in rooms[late:])]
        match verb:
            case Contract():
                sizes = [_size(x) for x in xs]
                both = (rooms[0], sizes[1]), (sizes[0], rooms[1]), (rooms[0], rooms[1])
                return _products(verb, np.zeros((max(verb.batches), verb.m, verb.n), np.float32), both)
            case Sum(rows_, k):
                return np.asarray(rooms[0].reshape(rows_, k).sum(axis=1))
            case Ew("add" | "mul" as fn, maps):
                seen, each = (
                    [x if m is None else picked([x], m) for x, m in zip(some, maps, strict=True)]
                    for some in (list(map(np.abs, xs)), [_or_zeros(r, x) for r, x in zip(rooms, xs, strict=True)])
                )
                if fn == "add":
                    return np.asarray(sum(each))
                beyond = math.prod(x + r for x, r in zip(seen, each, strict=True)) - math.prod(seen)
                return np.where(sum(each) > 0, np.maximum(beyond, _LEAST), 0)
        return None

    def _absorbed(self, cls: int, made: np.ndarray, room: np.ndarray, value: np.ndarray) -> np.ndarray:
        """The tangents of a result that may err by a room besides: where that is next to nothing beside it, a rounding of that
        size; else, and in a product of elements alone, it may be 0 as well."""
        room = np.broadcast_to(room.reshape(-1), value.shape)
        verb = self.terms.terms[cls].verb
        may = room > (0 if isinstance(verb, Ew) and verb.fn == "mul" else DOUBT * np.abs(value))
        known = self.rooms.get(cls)
        if may.any():
            self.rooms[cls] = np.maximum(np.where(may, room, 0).astype(np.float32), 0 if known is None else known)
        return np.where(may, np.nan, made + room / (ENLARGED * U)).astype(made.dtype, copy=False)

    def _parts(
        self, term: Term, xs: Sequence[Any], ts: Sequence[Any], value: np.ndarray, sigmoid: bool
    ) -> Iterator[tuple[slice, _Sizes, np.ndarray | None]]:
        """What follows from the operands, in blocks, with the sizes of the values; functions of elements are made so, too."""
        verb, made = term.verb, None
        if isinstance(verb, Ew):
            maps = [None if _only_added(verb, t) else m for m, t in zip(verb.maps, ts, strict=True)]
            xs, ts = ([_through(x, m) for x, m in zip(some, maps, strict=True)] for some in (xs, ts))
        elif (whole := self._made(term, xs, ts, value)) is not None:
            made = np.broadcast_to(np.asarray(whole).reshape(-1), value.shape)
        for start in range(0, value.size, BLOCK):
            at = slice(start, min(start + BLOCK, value.size))
            size = _Sizes(wide(value[at]))
            if isinstance(verb, Ew):
                seen, carried = ([x if x is None or x.size != value.size else x[at] for x in some] for some in (xs, ts))
                seen = [x if x is None else wide(x) for x in seen]
                yield at, size, self._elementwise(verb.fn, seen, carried, wide(value[at]), size, sigmoid)
            else:
                yield at, size, None if made is None else made[at]

    def _cut(self, term: Term, xs: Sequence[Any], ts: Sequence[Tangent], ids: Sequence[int]) -> tuple[float, float]:
        """The scale and the steepness that a class takes over from its operands, as in :mod:`graphcheck.parting.redrawn`."""
        told = [self.told[a] for a in ids]
        match term.verb:
            case Move():
                return max(scale for scale, _ in told), max(steep for _, steep in told)
            case Ew(fn):
                known = zip(xs, ts, told, strict=True)
                return cut(fn, told, [shrinking(x, t is None, scale) for x, t, (scale, _) in known])
            case Rows():
                return told[0][0], 1.0
        return 1.0, 1.0

    def _made(self, term: Term, xs: Sequence[Any], ts: Sequence[Any], value: np.ndarray) -> np.ndarray | None:
        free = all(t is None for t in ts)
        match term.verb:
            case Const() | Leaf():
                return None
            case Contract():
                return self._product(term.verb, xs, ts)
            case Sum(rows_, k):
                own = np.abs(xs[0]).reshape(rows_, k).sum(axis=1) * self._drawn(rows_)
                return np.asarray(own if ts[0] is None else own + ts[0].reshape(rows_, k).sum(axis=1))
            case Rows("softmax", rows_, k):
                table, p = xs[0].reshape(rows_, k), value.reshape(rows_, k)
                own = p * (np.abs(table - table.max(axis=1, keepdims=True)) + 16) * self._drawn(value.size).reshape(p.shape)
                t = np.zeros(1) if ts[0] is None else ts[0].reshape(rows_, k)
                return np.asarray(own + p * (t - (p * t).sum(axis=-1, keepdims=True)))
            case Rows("max" | "min" as fn, rows_, k):
                if ts[0] is None:
                    return None
                if isinstance(xs[0], Late):
                    blocks = zip(xs[0].rows(k), ts[0].rows(k, np.float32), strict=True)
                    return np.concatenate([_of_extreme(fn, x, t) for (_, x), (_, t) in blocks])
                return _of_extreme(fn, xs[0].reshape(rows_, k), ts[0].reshape(rows_, k))
            case verb:  # the place of an extreme of exact numbers is exact
                return None if free and isinstance(verb, Rows) else np.full(value.size, np.nan)

    def _product(self, verb: Contract, xs: Sequence[Any], ts: Sequence[Any]) -> np.ndarray:
        rows, columns = (size.astype(np.float32) for size in lengths(verb, xs[0], xs[1], np.float32))
        total = rows[:, :, None] * columns[:, None, :]
        flat = total.reshape(-1)
        if flat.size < _NOISE:
            flat *= self._drawn(flat.size)
        else:  # what would be drawn, without a copy of all of it
            for at in range(0, flat.size, _NOISE):
                flat[at : at + _NOISE] *= self.noise[: flat.size - at]
        return _products(verb, total, ((ts[0], xs[1]), (xs[0], ts[1])))

    def _elementwise(
        self, fn: str, seen: Sequence[Any], carried: Sequence[Any], value: np.ndarray, size: _Sizes, sigmoid: bool
    ) -> np.ndarray | None:
        record = function(fn)
        if record.slope is None:
            return np.full(value.size, np.nan)
        lost: Any = False
        if record.slope.pole is not nowhere and not sigmoid and any(t is not None for t in carried):
            lost = beside_pole(record.slope, seen, [_NOTHING if t is None else np.abs(FAR * ENLARGED * U * t) for t in carried])
        if record.jumps:
            moved = [(x, x + ENLARGED * U * (0.0 if t is None else t)) for x, t in zip(seen, carried, strict=True)]
            lost = unsure(fn, moved, [None] * len(seen))
        relative = sum(function(step).rounding.relative for step in (("exp", "add", fn) if sigmoid else (fn,)))
        own: Any = 0.0 if record.rounding.exact else (relative / U) * size.each * self._drawn(value.size)
        if fn == "recip":  # the square of a large one is beyond float64
            flows = [(value * carried[0], value - 1 if sigmoid else -value)] if carried[0] is not None else []
        else:
            partials = chosen(value, *seen) if fn in ("max", "min") else record.slope.partials(value, *seen)
            flows = [(t, p) for t, p in zip(carried, partials, strict=True) if t is not None]
        total = own
        for t, p in flows:
            total = total + (t if fn == "add" else t * (_narrow(p)[0] if size.narrow else p))
        if isinstance(total, float) and not np.any(lost):
            return None
        total = np.broadcast_to(total, value.shape)
        if not math.isfinite(size.most):
            total = np.where(np.isinf(size.each), sum(np.where(np.isnan(t), t, 0) for t in carried if t is not None), total)
        return np.where(lost, np.nan, total) if np.any(lost) else total

    def _drawn(self, count: int) -> np.ndarray:
        if count >= _NOISE:
            return np.resize(self.noise, count)
        start = int(self.random.integers(_NOISE - count))
        return self.noise[start : start + count]


def _products(verb: Contract, total: np.ndarray, pairs: Iterable[tuple[Any, Any]]) -> np.ndarray:
    """The products of pairs of operands (None: nothing) added to a total, [batches, m, n] in float32."""

    def left(x: np.ndarray) -> np.ndarray:
        return x.reshape(verb.batches[0], verb.m, verb.k).astype(np.float32, copy=False)

    def right(x: np.ndarray) -> np.ndarray:
        table = x.reshape(verb.batches[1], *((verb.k, verb.n) if verb.kn else (verb.n, verb.k)))
        return (table if verb.kn else table.swapaxes(1, 2)).astype(np.float32, copy=False)

    for one, other in pairs:
        if isinstance(one, Late) and other is not None:
            table, flat = right(other), total.reshape(-1, verb.n)
            for at, part in one.rows(verb.k, np.float32):
                batches, some = block(verb, at)
                flat[at] += (part.reshape(-1, some.m, verb.k) @ table[batches]).reshape(-1, verb.n)
        elif one is not None and other is not None:
            total += left(one) @ right(other)
    return total


def _of_extreme(fn: str, table: np.ndarray, t: np.ndarray) -> np.ndarray:
    """The tangent of the largest of each row; in doubt where that of any is, which may be the largest."""
    at = (table if fn == "max" else -table).argmax(axis=1)
    return np.where(np.isnan(t).any(axis=1), np.nan, t[np.arange(len(t)), at])


def _of_logarithm(verb: Ew, ts: Sequence[Tangent]) -> np.ndarray | None:
    """The tangent of log Exp(x) within a Sigmoid: that of x, negative for the reciprocal, kept where 1 is added."""
    for t, map_ in zip(ts, verb.maps, strict=True):
        if t is not None:
            found: np.ndarray = np.asarray(t) if map_ is None else picked([np.asarray(t)], map_)
            return -found if verb.fn == "recip" else found
    return None


def _through(x: np.ndarray | None, map_: Map | None) -> np.ndarray | None:
    return x if x is None or map_ is None else picked([x], map_)


def _only_added(verb: Ew, t: Any) -> bool:
    """Whether nothing of an operand counts: it is exact, and the derivatives of a sum do not depend on it."""
    return t is None and verb.fn == "add"


class _Sizes:
    """The sizes of some values, with the ``least`` and the ``most`` of them; ``narrow`` in float32, where that holds them."""

    def __init__(self, value: np.ndarray) -> None:
        _, size = _narrow(value)
        self.narrow = size is not None
        self.each = np.abs(value) if size is None else size
        self.least, self.most = (float(self.each.min()), float(self.each.max())) if value.size else (0.0, 0.0)


def _narrow(x: Any) -> tuple[Any, np.ndarray | None]:
    """(numbers in float32, their sizes), where all of them, and what they are multiplied with, stay far from its ends; else
    (the numbers, None)."""
    found = np.asarray(x).astype(np.float32, copy=False)
    size = np.abs(found)
    return (found, size) if size.size and float(size.min()) > _SMALL and float(size.max()) < 1 / _SMALL else (x, None)


def _noted(made: np.ndarray, at: slice, part: np.ndarray, least: float) -> tuple[np.ndarray, float]:
    """(tangents with a part noted, the largest of it), in float64 from where a part needs that: an Exp may err by more than
    float32 holds, or by less, if it is as small itself (``least``)."""
    made[at] = part
    most = float(np.abs(made[at]).max())
    if made.dtype == part.dtype or (least > _SMALL and most < math.inf):
        return made, most
    if np.isinf(made[at]).any() or ((made[at] == 0) & (part != 0)).any():
        made = made.astype(np.float64)
        made[at] = part
    return made, float(np.abs(made[at]).max())


def _lose(t: np.ndarray, most: float, sizes: _Sizes, scale: float, steep: float) -> np.ndarray | None:
    """Make the tangents NaN, ``most`` at most, of values of such a ``size`` that err by much beside their tensor, or may be an
    exact 0 over the reals: what is one in float64 as well grows on the way, if anything does. How far those of the second kind
    err is given, if there are any."""
    doubt, unit, size = steep * DOUBT, ENLARGED * U, sizes.each
    if not most * unit <= doubt * scale:
        t[~(np.abs(t) * unit <= doubt * np.maximum(size, scale))] = np.nan
    if not most * unit < ZERO * sizes.least:
        room = np.abs(t) * unit
        if not float((room / size).max()) < ZERO:
            nothing = (room >= ZERO * size) & (room != 0) & (size != 0)
            t[nothing] = np.nan
            return np.where(nothing, np.maximum(room, size), 0) if nothing.any() else None
    return None


def _without(t: Any, room: Any) -> Any:
    """Tangents, 0 where a value may be 0."""
    if room is None:
        return t
    if isinstance(t, Late):
        return Late(_without(t.source, room.source), t.map)
    return np.where(np.asarray(room) > 0, 0, t)


def _size(x: Any) -> Any:
    return Late(np.abs(x.source), x.map) if isinstance(x, Late) else np.abs(x)


def _or_zeros(t: Any, x: np.ndarray) -> np.ndarray:
    return np.zeros(x.size, np.float32) if t is None else t
