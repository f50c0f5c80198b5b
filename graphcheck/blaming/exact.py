"""Values in rational numbers, for what float64 leaves in doubt: integers beyond 2**53, and tensors of float64 itself."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from graphcheck.errors import Undecided
from graphcheck.kernel.terms.maps import Map
from graphcheck.kernel.values.bounds import dtype_of, ends
from graphcheck.kernel.values.gather import picked

Key = tuple[Any, ...]
_MOST = 2_000_000  # products of one step: some seconds


def _quotient(a: Any, b: Any) -> int:
    return math.trunc(Fraction(a, b))


_RATIONAL: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "mul": operator.mul,
    "recip": lambda a: Fraction(1) / a,
    "abs": abs,
    "max": max,
    "min": min,
    "pos": lambda a: int(a > 0),
    "floor": math.floor,
    "ceil": math.ceil,
    "round": round,
    "mod": operator.mod,
    "fmod": lambda a, b: a - b * _quotient(a, b),
    "intdiv": _quotient,
}


class Exact:
    """The verbs on arrays [n] of numbers of Python, ``known`` giving the leaves.

    Raises :class:`Undecided` for what is no rational function, has no value, or costs too much.
    """

    def __init__(self, known: Mapping[Key, np.ndarray]) -> None:
        self.known, self.work = known, 0

    def _paid(self, count: int) -> None:
        self.work += count
        if self.work > _MOST:
            raise Undecided("too many products to compute them exactly")

    def const(self, array: np.ndarray) -> np.ndarray:
        """The numbers of an array."""
        self._paid(array.size)
        return numbers(array)

    def leaf(self, cls: int, key: Key, size: int) -> np.ndarray:
        """What is known of a tensor."""
        return self.const(self.known[key])

    def move(self, sources: Sequence[np.ndarray], map_: Map) -> np.ndarray:
        """A gather."""
        self._paid(map_.size)
        return picked(sources, map_)

    def ew(self, fn: str, values: Sequence[np.ndarray], maps: Sequence[Map | None], size: int) -> np.ndarray:
        """A rational function, or what makes an integer fit its type."""
        self._paid(size)
        seen = [v if m is None else picked([v], m) for v, m in zip(values, maps, strict=True)]
        f = _RATIONAL.get(fn) or _fitting(fn)
        try:
            return np.broadcast_to(np.frompyfunc(f, len(seen), 1)(*seen), (size,))
        except ZeroDivisionError:
            raise Undecided("a division by zero") from None

    def contract(
        self, a: np.ndarray, b: np.ndarray, batches: tuple[int, int], m: int, n: int, k: int, kn: bool
    ) -> np.ndarray:
        """Batched products."""
        self._paid(max(batches) * m * n * k)
        right = b.reshape(batches[1], k, n) if kn else b.reshape(batches[1], n, k).swapaxes(1, 2)
        return np.asarray(a.reshape(batches[0], m, k) @ right).reshape(-1)

    def sum(self, a: np.ndarray, rows: int, k: int) -> np.ndarray:
        """Row sums."""
        return np.asarray(a.reshape(rows, k).sum(axis=1))

    def rows(self, fn: str, a: np.ndarray, rows: int, k: int, size: int) -> np.ndarray:
        """The largest and the least of a row."""
        if fn not in ("max", "min") or not k:
            raise Undecided(f"{fn} is not computed exactly")
        return np.asarray((np.maximum if fn == "max" else np.minimum).reduce(a.reshape(rows, k), axis=1))

    def opaque(self, key: Key, args: Sequence[np.ndarray], size: int) -> np.ndarray:
        """An operator that nobody has taught."""
        raise Undecided("an unknown function")


def numbers(array: np.ndarray) -> np.ndarray:
    """An array [n] of integers or fractions; raises :class:`Undecided` where an element is not finite."""
    flat = np.asarray(array).reshape(-1)
    if flat.dtype.kind in "biu" or ends(flat.dtype) is not None:
        return flat.astype(np.int64 if flat.dtype.kind != "u" else np.uint64).astype(object)
    wide = flat.astype(np.float64)
    if not np.isfinite(wide).all():
        raise Undecided("a number that is not finite")
    return np.asarray(np.frompyfunc(Fraction, 1, 1)(wide.astype(object)), object)


def apart(x: np.ndarray, y: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """How far numbers are apart, in float64; those of an integer type around its end."""
    off = x - y
    if (found := ends(dtype)) is not None:
        low, high = found
        off = (off - low) % (high - low + 1) + low
    return np.asarray(np.abs(off), np.float64)


def _fitting(fn: str) -> Callable[[Any], Any]:
    """A function of a type: the integer modulo its size, the number cut to an integer, the nearest one that it holds."""
    family, _, name = fn.partition(":")
    found = ends(dtype_of(name)) if family in ("wrap", "cast", "saturate") else None
    if found is None:
        raise Undecided(f"{fn} is not computed exactly")
    low, high = found

    def cut(a: Any) -> int:
        whole = math.trunc(a)
        if not low <= whole <= high:
            raise Undecided(f"a number beyond the range of {name}")
        return int(whole)

    if family == "cast":
        return cut
    return (lambda a: (a - low) % (high - low + 1) + low) if family == "wrap" else (lambda a: min(max(a, low), high))
