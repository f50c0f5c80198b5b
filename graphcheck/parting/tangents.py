"""One draw of the roundings, carried along a float64 evaluation by its derivatives: whether any value on the way is in doubt.

A first-order bound holds where no value on the way errs by much, which it does not look at itself: behind a steep Tanh the
derivatives are 0, however wrong its operand. What is carried here are random multiples of the roundings of every step (the
tangents, in units of :data:`~graphcheck.kernel.values.bounds.U`), in float32 and beside the evaluation, for a fraction of
what it costs. It only ever says that nothing is in doubt, by the rules of :mod:`graphcheck.parting.redrawn`; else, and where
a step is not followed (a place of an extreme, an operator without derivatives), that is to be looked into.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphcheck.kernel.terms.functions import chosen, function, nowhere
from graphcheck.kernel.terms.maps import Map
from graphcheck.kernel.terms.store import Terms
from graphcheck.kernel.terms.verbs import Const, Contract, Ew, Leaf, Move, Rows, Sum, Term
from graphcheck.kernel.values.bounds import U
from graphcheck.kernel.values.gather import picked
from graphcheck.kernel.values.windows import by_rows
from graphcheck.parting.redrawn import BESIDE, ENLARGED, ZERO, unsure
from graphcheck.parting.rooms import MASK
from graphcheck.parting.windows import Late, lengths

_NOISE = 2**20  # random numbers that are used again and again
Tangent = np.ndarray | Late | None  # None: no rounding on the way


class Tangents:
    """The draw: :meth:`follow` each class once its value is known; ``doubtful`` says that a value is, or may be."""

    def __init__(self, terms: Terms, seed: int) -> None:
        self.terms, self.doubtful = terms, False
        self.known: dict[int, Tangent] = {}
        self.random = np.random.default_rng([seed, 83])
        self.noise = self.random.standard_normal(_NOISE, np.float32)

    def follow(self, cls: int, values: Mapping[int, Any]) -> None:
        """Carry the tangents of the operands of a class to it."""
        if self.doubtful:
            self.known.clear()
            return
        term = self.terms.terms[cls]
        ids = [self.terms.find(a) for a in term.args]
        xs, ts = [values[a] for a in ids], [self.known[a] for a in ids]
        if isinstance(values[cls], Late):  # moved, and so in no more doubt than what it is made of
            free = all(t is None for t in ts)
            sources = [_or_zeros(t, x) for t, x in zip(ts, xs, strict=True)]
            self.known[cls] = None if free else Late(np.concatenate(sources), values[cls].map)
            return
        late = 1 if by_rows(term.verb) else 0  # what may be left to be read by rows
        xs = [*xs[:late], *map(np.asarray, xs[late:])]
        ts = [*ts[:late], *(np.asarray(t) if isinstance(t, Late) else t for t in ts[late:])]
        with np.errstate(all="ignore"):
            made = self._made(term, xs, ts, np.asarray(values[cls]))
            if made is not None and not self.doubtful:
                made = np.where(np.isinf(values[cls]), 0, np.asarray(made).reshape(-1))  # of Exp, in a Sigmoid
                narrow = made.astype(np.float32)  # but an Exp may err by more than float32 holds, or by less
                made = narrow if np.isfinite(narrow).all() and np.array_equal(narrow != 0, made != 0) else made
                self.doubtful = _in_doubt(made, np.asarray(values[cls]))
        self.known[cls] = made

    def _made(self, term: Term, xs: Sequence[Any], ts: Sequence[Any], value: np.ndarray) -> np.ndarray | None:
        free = all(t is None for t in ts)
        match term.verb:
            case Const() | Leaf():
                return None
            case Move(map_):
                return None if free else picked([_or_zeros(t, x) for t, x in zip(ts, xs, strict=True)], map_)
            case Ew(fn, maps):
                return self._elementwise(fn, maps, xs, ts, value)
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
                table = xs[0].reshape(rows_, k)
                at = (table if fn == "max" else -table).argmax(axis=1)
                return None if ts[0] is None else ts[0].reshape(rows_, k)[np.arange(rows_), at]
            case verb:  # the place of an extreme of exact numbers is exact
                self.doubtful = self.doubtful or not (free and isinstance(verb, Rows))
                return None

    def _product(self, verb: Contract, xs: Sequence[Any], ts: Sequence[Any]) -> np.ndarray:
        def left(x: np.ndarray) -> np.ndarray:
            return x.reshape(verb.batches[0], verb.m, verb.k).astype(np.float32, copy=False)

        def right(x: np.ndarray) -> np.ndarray:
            table = x.reshape(verb.batches[1], *((verb.k, verb.n) if verb.kn else (verb.n, verb.k)))
            return (table if verb.kn else table.swapaxes(1, 2)).astype(np.float32, copy=False)

        rows, columns = (size.astype(np.float32) for size in lengths(verb, *xs))
        total = rows[:, :, None] * columns[:, None, :]
        total *= self._drawn(total.size).reshape(total.shape)
        for one, other in ((ts[0], xs[1]), (xs[0], ts[1])):
            if isinstance(one, Late) and other is not None:
                for at, part in one.rows(verb.k, np.float32):
                    total[0, at] += part @ right(other)[0]
            elif one is not None and other is not None:
                total += left(one) @ right(other)
        return np.asarray(total)

    def _elementwise(
        self, fn: str, maps: Sequence[Map | None], xs: Sequence[np.ndarray], ts: Sequence[np.ndarray | None], value: np.ndarray
    ) -> np.ndarray | None:
        record = function(fn)
        seen = [x if m is None else picked([x], m) for x, m in zip(xs, maps, strict=True)]
        carried = [t if t is None or m is None else picked([t], m) for t, m in zip(ts, maps, strict=True)]
        if record.slope is None:
            self.doubtful = True
            return None
        if record.jumps or record.slope.pole is not nowhere:
            moved = [(x, x + ENLARGED * U * (0.0 if t is None else t)) for x, t in zip(seen, carried, strict=True)]
            self.doubtful = bool(np.any(unsure(fn, moved, [None] * len(seen))))
        partials = chosen(value, *seen) if fn in ("max", "min") else record.slope.partials(value, *seen)
        own = 0.0 if record.rounding.exact else (record.rounding.relative / U) * np.abs(value) * self._drawn(value.size)
        if fn == "recip" and carried[0] is not None:  # the square of a large one is beyond float64
            partials, carried = (-value,), [value * carried[0]]
        total = sum((t * p for t, p in zip(carried, partials, strict=True) if t is not None), own)
        return None if isinstance(total, float) else np.broadcast_to(total, value.shape)

    def _drawn(self, count: int) -> np.ndarray:
        if count >= _NOISE:
            return np.resize(self.noise, count)
        start = int(self.random.integers(_NOISE - count))
        return self.noise[start : start + count]


def _in_doubt(t: np.ndarray, x: np.ndarray) -> bool:
    """Whether a value errs by much beside its tensor, or may be an exact 0 over the reals: what is one in float64 as well
    grows on the way, if anything does."""
    size, room = np.abs(x), np.abs(t) * (ENLARGED * U)
    most = float(room.max(initial=0.0))
    if not most <= BESIDE:
        largest = float(size.max(initial=1.0, where=size < MASK))
        if not most <= BESIDE * largest and not (room <= BESIDE * np.maximum(size, largest)).all():
            return True
    return bool(((t != 0) & (x != 0) & (room >= ZERO * size)).any())


def _or_zeros(t: Any, x: np.ndarray) -> np.ndarray:
    return np.zeros(x.size, np.float32) if t is None else t
