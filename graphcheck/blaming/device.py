"""Values in float64 with what a device's rounding may do to each: at the worst, or as it is likely to.

``worst`` holds in every order of a sum, with or without fused multiply-add: K products in any order err by at most K u sum
|a_k b_k| (Jeannerod and Rump, SIAM J. Matrix Anal. Appl. 34, 2013), a sum of two is charged with the size of its parts, so that a
product may be distributed over it, and an elementary function may err by several units and by what rounding its argument does.
A variance may be taken as the mean of the squares less the square of the mean, and a convolution by Winograd's tiles (Lavin and
Gray, CVPR 2016). ``likely`` takes the error of a sum as that of a random walk, by the norms of its operands: no bound, but enough
to call a tensor clean at the price of one evaluation.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphcheck.blaming.arithmetic import Arithmetic, Format
from graphcheck.kernel.terms.functions import function
from graphcheck.kernel.terms.maps import Map
from graphcheck.kernel.values.float64 import Float64, Real
from graphcheck.kernel.values.gather import picked

Key = tuple[Any, ...]
_NOTHING = np.zeros(1)
_WALK = 3.0  # deviations of a random walk
_TINY = 2.0**-126  # the least normal number of float32
OWN = 2.0**-52  # what float64 errs by itself
_UNIT = 2.0**-24  # of float32, which tiles are added in
_TILES = 64  # roundings of Winograd's convolution by tiles of 4x4, beside those of the sum
_DEEP = 690.0  # exp of less is 0


@dataclasses.dataclass(frozen=True, slots=True)
class Marked(Real):
    """A value of which is known how it was made: ``grown`` (a number plus an exponential), ``summed`` (a sum), ``centred``
    (less a sum, ``level`` being the size of what was taken from what) or ``squared`` (of a centred one)."""

    mark: str = ""
    level: np.ndarray = dataclasses.field(default_factory=lambda: _NOTHING)


class Device(Float64):
    """Float64 with the roundings of a device at each verb; ``fused``: of a region whose inner results are not known, where
    roundings to the stored format come at other places than the model's; ``numbers``: of a node that reads a constant number of
    the model, since any other is the operator's own, and is not stored; ``own``: float64's part."""

    def __init__(
        self,
        known: Mapping[Key, Real],
        arithmetic: Arithmetic,
        *,
        worst: bool,
        fused: bool,
        numbers: bool,
        tiled: bool,
        own: float = OWN,
    ) -> None:
        super().__init__({})
        self.known, self.worst = known, worst
        self.store, self.inside = arithmetic.store, arithmetic.inside
        self.unit_inside = self.inside.unit + own
        self.unit_added = max(self.unit_inside, self.store.unit) if fused else self.unit_inside
        self.operand = self.store.operand + (self.store.unit if fused else 0.0)  # a folded weight is rounded again
        self.rereads = self.store.unit > 2.0**-24  # constants of a wider type are rounded to the stored format
        self.numbers, self.tiled = numbers, tiled

    # -- what is there already ---------------------------------------------------------------------------------------

    def const(self, array: np.ndarray) -> Real:
        """A constant, which a narrower format rounds."""
        found = super().const(array)
        inner = array.size == 1 and not self.numbers
        if not self.rereads or inner or array.dtype.kind != "f" or array.dtype.itemsize <= 2:
            return found
        return Real(found.raw, reading(found.value, self.store))

    def leaf(self, cls: int, key: Key, size: int) -> Real:
        """What is known of a tensor."""
        return self.known[key]

    def move(self, sources: Sequence[Real], map_: Map) -> Real:
        """A gather; marks stay."""
        found = super().move(sources, map_)
        (first, *rest) = sources
        if rest or not isinstance(first, Marked) or first.mark == "squared":
            return found
        return Marked(found.raw, found.error, first.mark, picked([first.level], map_) if first.level.size > 1 else _NOTHING)

    # -- what rounds -------------------------------------------------------------------------------------------------

    def ew(self, fn: str, values: Sequence[Real], maps: Sequence[Map | None], size: int) -> Real:
        """An elementwise function, and what a device may make of it."""
        if fn not in ("add", "mul"):
            found = super().ew(fn, values, maps, size)
            if function(fn).rounding.ulps:
                seen = [v.value if m is None else picked([v.value], m) for v, m in zip(values, maps, strict=True)]
                floor = 4 * self.unit_inside if isinstance(values[0], Marked) and values[0].mark == "grown" else 0.0
                with np.errstate(all="ignore"):
                    found = self._more(found.value, found.error + self._allowed(fn, found.value, seen) + floor)
            if fn == "pow" and values[1].raw.size == 1 and float(values[1].raw[0]) == 2.0:
                return self._squared(found, values[0], maps[0])
            return Marked(found.raw, found.error, "grown") if fn == "exp" else found
        a, b = (v.value if m is None else picked([v.value], m) for v, m in zip(values, maps, strict=True))
        ea, eb = (v.error if m is None else picked([v.error], m) for v, m in zip(values, maps, strict=True))
        with np.errstate(all="ignore"):
            if fn == "add":
                value, error = a + b, ea + eb + self.unit_added * (np.abs(a) + np.abs(b) + ea + eb)
            else:
                value = a * b
                error = np.abs(a) * eb + np.abs(b) * ea + ea * eb + 2 * self.unit_inside * np.abs(value)
                error = np.where(((a == 0) & (ea == 0)) | ((b == 0) & (eb == 0)), 0.0, error)  # of a selection
        value = np.broadcast_to(value, (size,)) if value.shape != (size,) else value
        return self._marked(fn, self._more(value, error), values, maps, (a, b))

    def _marked(
        self, fn: str, made: Real, values: Sequence[Real], maps: Sequence[Map | None], seen: tuple[np.ndarray, np.ndarray]
    ) -> Real:
        """What a sum or a product is known as."""
        marks = [v.mark if isinstance(v, Marked) else "" for v in values]
        if fn == "mul" and values[0] is values[1]:
            return self._squared(made, values[0], maps[0])
        if fn == "mul" and marks.count("") == 1 and "summed" in marks:
            return Marked(made.raw, made.error, "summed")
        if fn == "mul" and "centred" in marks and marks.count("") == 1 and values[marks.index("")].raw.size == 1:
            one = values[marks.index("centred")]
            assert isinstance(one, Marked)
            return Marked(made.raw, made.error, "centred", one.level * abs(float(values[marks.index("")].raw[0])))
        if fn == "add" and "grown" in marks:
            return Marked(made.raw, made.error, "grown")
        if fn == "add" and "summed" in marks:
            return Marked(made.raw, made.error, "centred", np.broadcast_to(np.abs(seen[0]) + np.abs(seen[1]), made.raw.shape))
        return made

    def _squared(self, made: Real, of: Real, map_: Map | None) -> Real:
        """A square of what a mean was taken from."""
        if not isinstance(of, Marked) or of.mark != "centred":
            return made
        level = of.level if map_ is None or of.level.size == 1 else picked([of.level], map_)
        return Marked(made.raw, made.error, "squared", np.square(level))

    def _allowed(self, fn: str, value: np.ndarray, seen: Sequence[np.ndarray]) -> np.ndarray:
        """What a device's own function may err by."""
        u, size = self.unit_inside, np.abs(value)
        if fn in ("recip", "sqrt"):
            return np.asarray(4 * u * size)
        if fn in ("erf", "tanh", "log"):
            return np.asarray((16 if fn == "erf" else 8) * u * (size + 1.0))  # Abramowitz and Stegun's polynomial of an erf
        x = np.abs(seen[0])
        if fn == "exp":
            return np.asarray((8 + 2 * np.minimum(x, _DEEP)) * u * size)
        if fn == "pow":
            power = np.abs(seen[1] * np.log(np.where(x > 0, x, 1.0)))
            return np.asarray((8 + 2 * np.minimum(power, _DEEP)) * u * size)
        if fn in ("sin", "cos", "tan", "sinh", "cosh"):
            return np.asarray((8 + x) * u * np.maximum(size, 1.0))
        return np.asarray(8 * u * (size + 1.0))

    @np.errstate(all="ignore")
    def contract(self, a: Real, b: Real, batches: tuple[int, int], m: int, n: int, k: int, kn: bool) -> Real:
        """Batched products."""

        def right(x: np.ndarray) -> np.ndarray:
            return x.reshape(batches[1], k, n) if kn else x.reshape(batches[1], n, k).swapaxes(1, 2)

        av, bv = a.value.reshape(batches[0], m, k), right(b.value)
        ae, be = a.error, b.error
        value = (av @ bv).reshape(-1)
        if self.worst:
            parts = np.abs(av) @ np.abs(bv)
            error = (k * self.unit_inside + 2 * self.operand) * parts
            if self.tiled:  # the tiles of Winograd's convolution add and take off what lies beside a window
                error += (k + _TILES) * _UNIT * parts.max(axis=(1, 2), keepdims=True, initial=0.0)
            if be.any():
                error = error + np.abs(av) @ right(be)
            if ae.any():
                error = error + ae.reshape(av.shape) @ (np.abs(bv) + right(be))
            error = np.where(parts >= self.inside.over, np.inf, error)
        else:
            apart = min(1.0, _WALK / math.sqrt(max(k, 1)))  # errors of the operands, some up and some down
            walk = _WALK * math.sqrt(k) * self.unit_inside + 2 * apart * self.operand
            rows, columns = _norm(av, 2), _norm(bv, 1)
            error = (walk * rows) * columns
            if be.any():
                error = error + (apart * rows) * _norm(right(be), 1)
            if ae.any():
                error = error + (apart * _norm(ae.reshape(av.shape), 2)) * columns
        return self._more(value, error.reshape(-1))

    @np.errstate(all="ignore")
    def sum(self, a: Real, rows: int, k: int) -> Real:
        """Row sums."""
        table, error = np.abs(a.value).reshape(rows, k), a.error.reshape(rows, k).sum(axis=1)
        value = a.value.reshape(rows, k).sum(axis=1)
        grown = table if not isinstance(a, Marked) or a.mark != "squared" else table + 2 * _full(a.level, (rows, k))
        total = grown.sum(axis=1)
        own = (k if self.worst else min(k, _WALK * math.sqrt(k))) * self.unit_inside * total
        own = np.where(total >= self.inside.over, np.inf, own)
        made = self._more(value, error + own)
        return Marked(made.raw, made.error, "summed")

    @np.errstate(all="ignore")
    def rows(self, fn: str, a: Real, rows: int, k: int, size: int) -> Real:
        """Functions of a row; a softmax by its least and its largest numerators, so that a mask disturbs no other element."""
        if fn.partition(":")[0] != "softmax" or not k:
            return super().rows(fn, a, rows, k, size)
        table, wrong = a.value.reshape(rows, k), a.error.reshape(rows, k)
        shifted = table - table.max(axis=1, keepdims=True)
        power = np.exp(shifted)
        value = power / power.sum(axis=1, keepdims=True)
        wrong = np.where(np.isneginf(table), 0.0, wrong)
        low, high = np.exp(shifted - wrong), np.exp(np.minimum(shifted + wrong, _DEEP))
        least, most = low.sum(axis=1, keepdims=True), high.sum(axis=1, keepdims=True)
        top = high / (high + np.maximum(least - low, 0.0))
        bottom = low / (low + np.maximum(most - high, 0.0))
        far = np.where(np.isfinite(shifted), np.minimum(np.abs(shifted), _DEEP), 0.0)
        count = k if self.worst else min(k, _WALK * math.sqrt(k))
        own = 4 * self.unit_inside * (far + count + 16) * top
        error = np.minimum(np.maximum(top - value, value - bottom), 1.0) + own
        return self._more(value.reshape(-1), error.reshape(-1))

    def opaque(self, key: Key, args: Sequence[Real], size: int) -> Real:
        """An operator that nobody has taught: unknown."""
        return Real(np.full(size, np.nan), np.full(size, np.inf))

    def _more(self, value: np.ndarray, error: Any) -> Real:
        """A value with its error: a mask is exact, what may leave the range of the sums is unknown."""
        error = np.broadcast_to(error, value.shape)
        if not math.isfinite(float(np.add.reduce(error, axis=None))):
            error = np.where(np.isneginf(value), 0.0, np.where(np.isnan(error), np.inf, error))
        if not float(np.maximum.reduce(value, initial=0.0)) < self.inside.over / 2:
            error = np.where(value + error >= self.inside.over, np.inf, error)
        return Real(value, error)


def reading(values: np.ndarray, store: Format) -> np.ndarray:
    """How far a tensor may be from what was dumped of it: rounded then, or flushed to 0."""
    size = np.abs(values)
    error = size * (2 * store.unit if store.unit > 2.0**-10 else store.unit)
    if not math.isfinite(float(np.add.reduce(error))):
        error = np.where(np.isfinite(error), error, 0.0)
    small = size < store.normal
    return np.asarray(np.where(small, size, error)) if small.any() else np.asarray(error)


def stored(values: np.ndarray, radius: np.ndarray, store: Format) -> np.ndarray:
    """The radius of a result once it is rounded to a format, whichever way, or flushed to 0."""
    size = np.abs(values) + radius
    bound = np.minimum(size, store.normal)
    size *= 2 * store.unit
    bound += size
    bound += radius
    bound += 16 * store.unit * store.normal + _TINY  # some of the least numbers, and what exp of very little is cut to
    bound *= 1 + 2.0**-20
    return np.asarray(bound)


def _norm(x: np.ndarray, axis: int) -> np.ndarray:
    """Of rows (axis 2) as [b, m, 1], of columns (axis 1) as [b, 1, n]."""
    return np.asarray(np.sqrt(np.einsum("bij,bij->bi" if axis == 2 else "bij,bij->bj", x, x))[..., None]).reshape(
        (x.shape[0], x.shape[1], 1) if axis == 2 else (x.shape[0], 1, x.shape[2])
    )


def _full(level: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    return np.broadcast_to(level, (shape[0] * shape[1],)).reshape(shape)
