"""How far an output element moves when the roundings of a float64 evaluation are enlarged and drawn at random.

Stochastic arithmetic: several evaluations side by side, one of them plain, in the others every operation's result moved by
a random multiple of its own rounding (Vignes, "Discrete stochastic arithmetic for validating results of numerical
software", Numer. Algorithms 37, 2004; Parker, "Monte Carlo arithmetic", 1997). The draws come in pairs of opposite signs, so
that one of a pair crosses a threshold that the truth may lie behind. What the draws tell of a value is its room.

The answer is a number only where nothing on the way to the element is in doubt. The element is lost (NaN) where

- a value's room is more than :data:`DOUBT` of the largest number of its tensor (or of that it was cut from), of 1, and of
  itself: what is chaotic on the way is not saved by a Tanh or a Clip behind it;
- a jump (a comparison, Round, Cast, ArgMax), a pole or the end of a domain lies within a few rooms: a decision by rounding is
  made in the same way by every evaluation, and wrongly by all of them;
- an operator is not evaluated, or a value overflowed: but for Exp, where only sums and reciprocals read it (a Sigmoid).

A value that is no larger than its room may be an exact 0 over the reals, which no draw would meet: some take it for 0.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from graphcheck.kernel.terms.functions import Slope, function, nowhere
from graphcheck.kernel.terms.maps import Map
from graphcheck.kernel.terms.store import Terms
from graphcheck.kernel.terms.verbs import Const, Contract
from graphcheck.kernel.values.bounds import TINY, U
from graphcheck.kernel.values.domain import evaluate
from graphcheck.kernel.values.float64 import Float64, Real, exact_sum
from graphcheck.kernel.values.gather import picked
from graphcheck.parting.budget import work
from graphcheck.parting.rooms import largest
from graphcheck.parting.windows import lengths

PAIRS, ENLARGED = 8, 256.0  # pairs of draws, and what a rounding is enlarged by in them
DOUBT, BESIDE = 1e-7, 1e-6  # the largest room of a value, relatively; and where a first-order bound is there besides
_CUT = 1e3  # but no more times as large where a value was cut from a larger one, and behind Exp
FAR = 4.0  # rooms that a jump or a pole must be away,
ZERO = 0.25  # and the share of a value that makes it no larger than its room; one draw of so many takes it for 0
_EACH = 4
_TWICE, _LITTLE = 2, 1e-3  # pairs that are enough, and the share of what is: both that near by chance is one case in 10^12
_HELD = 2**25  # elements of a tensor in all draws that are made at a time
_NOTHING, _LEAST = np.zeros(1), 1 / np.finfo(np.float64).max

_GENTLE = {"abs", "add", "cos", "erf", "max", "min", "sin", "tanh"}  # err by no more than their operands


class Rows(tuple[np.ndarray, ...]):
    """The plain value, then the draws; the plain one alone where it is exact.

    ``scale`` is the largest number of the tensor, or of those that it was cut from (by Clip, Tanh, Softmax): what errs by little
    beside that one is not in doubt. ``steep``: the largest operand of an Exp, for it and for what sums and reciprocals make of it
    (a Sigmoid), since Exp errs relatively by what its operand does absolutely; ``of`` is that operand: Exp of its negative is
    the reciprocal.
    """

    scale: float
    steep: float
    of: Rows | None

    def __new__(
        cls, rows: Iterable[np.ndarray], scale: float = 1.0, steep: float = 1.0, of: Rows | None = None
    ) -> Rows:
        """The rows with what is known of them."""
        made = super().__new__(cls, rows)
        made.scale, made.steep, made.of = scale, steep, of
        return made


def moved(
    terms: Terms,
    inputs: Mapping[tuple[Any, ...], np.ndarray],
    roots: Sequence[int],
    at: int,
    seed: int,
    *,
    pairs: int = PAIRS,
    enough: float = math.inf,
    doubt: float = DOUBT,
    tick: Callable[[float], None] = lambda _: None,
) -> float:
    """The largest distance of an element of each of the ``roots`` in the draws from its plain value, as a sum; inf where it is
    in doubt, or more than ``enough``. The first pair is drawn alone, since it tells most; two are enough where they move the
    element by a thousandth of that."""
    largest = max(map(terms.size, terms.order(roots)))
    found, done = dict.fromkeys(map(terms.find, roots), 0.0), 0

    def visit(cls: int, value: Rows) -> None:
        tick(0.0 if isinstance(terms.terms[cls].verb, Const) else len(value) * work(terms.terms[cls]))

    while done < pairs:
        count = 1 if not done else min(max(1, _HELD // (2 * max(1, largest))), pairs - done)
        with np.errstate(all="ignore"):
            made = evaluate(terms, Redrawn(inputs, count, seed + done, doubt), roots, visit=visit)
        for root, rows in made.items():
            apart = [abs(float(row[at]) - float(rows[0][at])) for row in rows]
            found[root] = max(found[root], *apart) if all(map(math.isfinite, apart)) else math.inf
        if not sum(found.values()) <= enough:
            return math.inf
        done += count
        if done >= _TWICE and sum(found.values()) <= _LITTLE * enough:
            break
    return sum(found.values())


class Redrawn:
    """A domain whose values are rows: a plain evaluation, and ``pairs`` of draws with opposite roundings."""

    def __init__(
        self, inputs: Mapping[tuple[Any, ...], np.ndarray], pairs: int, seed: int, doubt: float = DOUBT
    ) -> None:
        self.pairs, self.doubt = pairs, doubt
        self.plain, self.strict = Float64(inputs, bounds=False), Float64(inputs)
        self.random = np.random.default_rng([seed, 79])

    def const(self, array: np.ndarray) -> Rows:
        """The constant."""
        return self._rounded([self.strict.const(array)])

    def leaf(self, cls: int, key: tuple[Any, ...], size: int) -> Rows:
        """The input by its key."""
        return self._rounded([self.strict.leaf(cls, key, size)])

    def move(self, sources: Sequence[Rows], map_: Map) -> Rows:
        """A gather of each row."""
        made = (self.plain.move(row, map_).raw for row in _by_row(sources))
        return Rows(made, max(s.scale for s in sources), max(s.steep for s in sources))

    def ew(self, fn: str, values: Sequence[Rows], maps: Sequence[Map | None], size: int) -> Rows:
        """Elementwise functions; lost at a jump or a pole, and where an overflow is not that of Exp."""
        if fn == "recip" and (power := values[0].of) is not None and maps[0] is None:
            return self.ew("exp", [Rows((-row for row in power), power.scale)], maps, size)
        rows = [self.plain.ew(fn, row, maps, size) for row in _by_row(values)]
        own = self.strict.ew(fn, [_exact(v[0]) for v in values], maps, size)
        endless = [
            np.isposinf(v[0]) if m is None else picked([np.isposinf(v[0])], m)
            for v, m in zip(values, maps, strict=True)
        ]
        read = functools.reduce(np.logical_or, endless)
        lost = unsure(fn, values, maps) | (read if fn not in ("add", "recip") else False)
        ends = np.isposinf(own.raw)
        lost = lost | (ends & ~read & (fn != "exp"))
        if ends.any() or read.any():
            own = Real(own.raw, np.where(ends, 0.0, np.where(read, _LEAST, own.error)))
        shrinks = [shrinking(v[0], len(v) == 1, v.scale) for v in values]
        found = self._rounded([own, *rows[1:]], lost, *cut(fn, [(v.scale, v.steep) for v in values], shrinks))
        if fn != "exp":
            return found
        return Rows(found, found.scale, found.steep, values[0] if maps[0] is None else self.move(values, maps[0]))

    def contract(self, a: Rows, b: Rows, batches: tuple[int, int], m: int, n: int, k: int, kn: bool) -> Rows:
        """Batched products; a sum of k random roundings."""
        rows = [self.plain.contract(x, y, batches, m, n, k, kn) for x, y in _by_row([a, b])]
        left = a[0].astype(np.float64, copy=False).reshape(batches[0], m, k)
        right = b[0].astype(np.float64, copy=False).reshape(batches[1], *((k, n) if kn else (n, k)))
        own = np.zeros(1)
        if not exact_sum(k, (left, right), U):
            rows_, columns = lengths(Contract(batches, m, n, k, kn), left, right)
            own = U * (rows_[:, :, None] * columns[:, None, :]).reshape(-1) + TINY
        lost = ~np.isfinite(rows[0].raw)
        return self._rounded([Real(rows[0].raw, np.broadcast_to(own, rows[0].raw.shape)), *rows[1:]], lost)

    def sum(self, a: Rows, rows: int, k: int) -> Rows:
        """Row sums."""
        found = [self.plain.sum(row[0], rows, k) for row in _by_row([a])]
        own = self.strict.sum(_exact(a[0]), rows, k)
        return self._rounded([Real(own.raw, own.error / max(k, 1)), *found[1:]], np.isposinf(own.raw))

    def rows(self, fn: str, a: Rows, rows: int, k: int, size: int) -> Rows:
        """Functions of a row; the place of an extreme is lost where another is as near."""
        found = [self.plain.rows(fn, row[0], rows, k, size) for row in _by_row([a])]
        own = self.strict.rows(fn, _exact(a[0]), rows, k, size)
        if "arg" in fn:
            unsure = self.strict.rows(fn, Real(a[0], FAR * _room(a)), rows, k, size).error > 0
            return self._rounded([own, *found[1:]], unsure)
        own = own if fn == "softmax" else Real(own.raw, np.zeros(own.raw.size))
        return self._rounded([own, *found[1:]], np.isposinf(own.raw), a.scale)

    def opaque(self, key: tuple[Any, ...], args: Sequence[Rows], size: int) -> Rows:
        """An operator that is not evaluated."""
        return Rows((np.full(size, np.nan),))

    def _rounded(self, rows: Sequence[Real], unsure: Any = False, scale: float = 1.0, steep: float = 1.0) -> Rows:
        """The rows, the first with the rounding of its operation: drawn for the others. What is in doubt is lost."""
        plain, own = rows[0].value if len(rows) > 1 or rows[0].error.any() else rows[0].raw, rows[0].error
        if len(rows) == 1 and not own.any():
            return Rows((np.where(unsure, np.nan, plain) if np.any(unsure) else plain,), scale, steep)
        own = np.where(own == 0, 0.0, np.maximum(own, U * np.abs(plain)))  # of less than half a spacing no draw would show
        made, noisy = [plain], bool(own.any())
        for number in range(self.pairs):
            noise = ENLARGED * own * self.random.standard_normal(own.shape, np.float32) if noisy else _NOTHING
            for sign, at in ((1.0, 1 + 2 * number), (-1.0, 2 + 2 * number)):
                made.append(rows[min(at, len(rows) - 1)].value + sign * noise)
        room, size = _room(made), np.abs(plain)
        scale, steep = beside(size, scale, steep)
        lost = ~(room <= steep * self.doubt * np.maximum(size, scale)) | np.isinf(room) | unsure
        if lost.any():
            made = [np.where(lost, np.nan, row) for row in made]
        nothing = (room > 0) & (room >= ZERO * size)
        if nothing.any():
            made = [row if at % _EACH != 1 else np.where(nothing & ~lost, 0.0, row) for at, row in enumerate(made)]
        return Rows(made, scale, steep)


def _by_row(values: Sequence[Rows]) -> list[list[Real]]:
    """The operands of each evaluation."""
    count = max((len(v) for v in values), default=1)
    return [
        [Real(v[min(at, len(v) - 1)], np.broadcast_to(_NOTHING, v[0].shape)) for v in values] for at in range(count)
    ]


def shrinking(plain: np.ndarray, exact: bool, scale: float) -> bool:
    """Whether a factor enlarges nothing: it is within 1, as a mask and a Sigmoid are."""
    return bool(np.abs(plain[0]) <= 1) if exact and plain.size == 1 else not exact and scale <= 1


def cut(fn: str, operands: Sequence[tuple[float, float]], shrinks: Sequence[bool]) -> tuple[float, float]:
    """The scale and the steepness that an elementwise function takes over from those of its operands (see :class:`Rows`)."""
    scales, steeps = zip(*operands, strict=True)
    scale = max(scales) if fn in _GENTLE or (fn == "mul" and any(shrinks)) else 1.0
    return scale, scales[0] if fn == "exp" else max(steeps) if fn in ("add", "recip") else 1.0


def beside(size: np.ndarray, scale: float = 1.0, steep: float = 1.0) -> tuple[float, float]:
    """The scale and the steepness of a tensor of such a size, given what it takes over."""
    most = largest(size)
    return min(max(scale, most), _CUT * most), min(steep, _CUT)


def _exact(value: np.ndarray) -> Real:
    return Real(value, np.zeros(value.shape))


def _room(rows: Sequence[np.ndarray]) -> np.ndarray:
    """The largest distance of each element from its plain value; NaN where that is not known."""
    room: np.ndarray = np.zeros(rows[0].shape)
    for row in rows[1:]:
        np.maximum(room, np.where(row == rows[0], 0.0, np.abs(row - rows[0])), out=room)
    return np.where(np.isnan(rows[0]), np.nan, room) if rows[0].dtype.kind == "f" else room


def unsure(fn: str, values: Sequence[Sequence[np.ndarray]], maps: Sequence[Map | None]) -> Any:
    """Where a jump, a pole or the end of a domain is no farther than a few rooms of the operands."""
    record = function(fn)
    poles = record.slope is not None and record.slope.pole is not nowhere
    if not record.jumps and record.slope is not None and not poles:
        return False
    rooms = [FAR * _room(v) for v in values]
    if not any(room.any() for room in rooms):
        return False
    seen = [v[0].astype(np.float64, copy=False) for v in values]
    near, seen = ([x if m is None else picked([x], m) for x, m in zip(xs, maps, strict=True)] for xs in (rooms, seen))
    if record.slope is not None and not record.jumps:
        return beside_pole(record.slope, seen, near)
    jump = record.bound(*(part for pair in zip(seen, near, strict=True) for part in pair))[1]
    return _rounded(near) & ~(jump <= 2 * sum(near))


def beside_pole(slope: Slope, seen: Sequence[np.ndarray], near: Sequence[np.ndarray]) -> Any:
    """Where a pole is no farther from the operands ``seen`` than they may be off, ``near``, if they are rounded at all."""
    found = slope.pole(near[0], *seen)
    return _rounded(near) & found if np.any(found) else False


def _rounded(near: Sequence[np.ndarray]) -> np.ndarray:
    """Where any operand is; a lost one has no room that is known."""
    return np.asarray(functools.reduce(np.logical_or, (~(room <= 0) for room in near)))
