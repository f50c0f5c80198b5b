"""Float64 with a running error bound, and with the rounding of the declared types as seeded noise (the spread).

Bounds: a sum of K products in any order errs by at most gamma_K * sum |a_k b_k|, gamma_K = K u / (1 - K u), u = 2**-53
(Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., sections 3.1 and 4.2). Elementary functions of numpy
are taken to err by at most 4 ulps; an operand's own error is carried through by a bound on the derivative. Sums and
products that do not round at all (of integers, halves, one-hot rows) have no error, and no noise.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphcheck.kernel.terms.functions import Reach, function, nowhere
from graphcheck.kernel.terms.maps import Map
from graphcheck.kernel.terms.store import NAN
from graphcheck.kernel.values.bounds import TINY, U, in_blocks, quantum
from graphcheck.kernel.values.gather import picked

_SLACK = 1 + 2.0**-45  # pays for the rounding of the bounds' own sums


@dataclasses.dataclass(frozen=True, slots=True)
class Real:
    """Flat values and a bound on the distance of each from the true real number (inf: unknown).

    ``raw`` holds constants, moved or not, in their own dtype: half the memory of a large model's weights.
    """

    raw: np.ndarray
    error: np.ndarray

    @property
    def value(self) -> np.ndarray:
        """The values in float64."""
        return self.raw if self.raw.dtype == np.float64 else self.raw.astype(np.float64)

    def part(self, at: slice) -> Real:
        """Some of the elements."""
        return Real(self.raw[at], self.error[at])


OpaqueRunner = Callable[[tuple[Any, ...], Sequence[np.ndarray], int], np.ndarray | None]


class Float64:
    """Evaluation in float64. ``inputs`` gives the leaves by key; ``unit`` > 0 adds noise of that unit roundoff.

    With ``bounds=False`` no error is tracked (all zero): a plain reference run, as the spread needs it.
    """

    def __init__(
        self,
        inputs: Mapping[tuple[Any, ...], np.ndarray],
        *,
        bounds: bool = True,
        unit: float = 0.0,
        seed: int = 0,
        run_opaque: OpaqueRunner | None = None,
    ) -> None:
        self.inputs, self.bounds, self.unit, self.run_opaque = inputs, bounds, unit, run_opaque
        self.random = np.random.default_rng(seed)
        self.unknown: set[str] = set()
        self.broken = False  # a value overflowed or underflowed: what follows from it says nothing about the reals

    def const(self, array: np.ndarray) -> Real:
        """The constant, exact (an integer beyond 2**53 is rounded, and its error said)."""
        if array.dtype.kind in "iu" and array.dtype.itemsize == 8:
            value = array.astype(np.float64)
            far = np.abs(value) >= 2.0**53
            return Real(value, np.where(far, U * np.abs(value), 0.0))
        return Real(array, _none(array.shape))

    def leaf(self, cls: int, key: tuple[Any, ...], size: int) -> Real:
        """The input by its key."""
        if key == NAN or self.inputs[key].dtype.kind in "OSUT":
            return Real(np.full(size, np.nan), np.full(size, np.inf))
        value = np.asarray(self.inputs[key], np.float64).reshape(-1)
        return Real(value, _none(value.shape))

    def move(self, sources: Sequence[Real], map_: Map) -> Real:
        """A gather of values and errors."""
        result = picked([s.raw if len(sources) == 1 else s.value for s in sources], map_)
        if not self.bounds:
            return Real(result, _none(result.shape))
        return Real(result, picked([s.error for s in sources], map_))

    def ew(self, fn: str, values: Sequence[Real], maps: Sequence[Map | None], size: int) -> Real:
        """Elementwise functions."""
        record = function(fn)
        seen, error = [v.value if m is None else picked([v.value], m) for v, m in zip(values, maps, strict=True)], None
        with np.errstate(all="ignore"):
            if self.bounds:
                errors = [v.error if m is None else picked([v.error], m) for v, m in zip(values, maps, strict=True)]
                value, error = in_blocks(record.bound, *(part for both in zip(seen, errors, strict=True) for part in both))
            else:
                value = record.value(*seen)
        self._watch(record.reach, value, seen)
        value = np.broadcast_to(value, (size,)) if value.shape != (size,) else value
        noisy = self.unit and record.rounding.ulps
        return self._finish(value, error, record.noise(value, seen, self.unit) if noisy else None)

    @np.errstate(all="ignore")
    def contract(self, a: Real, b: Real, batches: tuple[int, int], m: int, n: int, k: int, kn: bool) -> Real:
        """Batched products of [m, k] and [n, k]."""

        def right(x: np.ndarray) -> np.ndarray:
            return x.reshape(batches[1], k, n) if kn else x.reshape(batches[1], n, k).swapaxes(1, 2)

        av, bv = a.value.reshape(batches[0], m, k), right(b.value)
        value = (av @ bv).reshape(-1)
        if not math.isfinite(float(np.add.reduce(value))):
            self.broken |= not np.isfinite(value).all()
        error = None
        if self.bounds:
            ae, be = a.error.reshape(av.shape), right(b.error)
            exact = exact_sum(k, (av, bv), U)
            rounding = 0.0 if exact else np.abs(bv) * gamma(k)
            absolute = np.abs(av) @ (rounding + be) + (0 if exact else k * TINY)
            error = (absolute + ae @ (np.abs(bv) + be)).reshape(-1) if ae.any() else absolute.reshape(-1)
        rounds = self.unit and not exact_sum(k, (av, bv), self.unit)
        scale = np.sqrt((av * av) @ (bv * bv)).reshape(-1) if rounds else None
        return self._finish(value, error, scale)

    @np.errstate(all="ignore")
    def sum(self, a: Real, rows: int, k: int) -> Real:
        """Row sums."""
        table = a.value.reshape(rows, k)
        value = table.sum(axis=1)
        error = None
        if self.bounds:
            rounding = 0.0 if exact_sum(k, (table,), U) else gamma(k) * np.abs(table).sum(axis=1)
            error = a.error.reshape(rows, k).sum(axis=1) + rounding
        rounds = self.unit and not exact_sum(k, (table,), self.unit)
        scale = np.sqrt((table * table).sum(axis=1)) if rounds else None
        return self._finish(value, error, scale)

    @np.errstate(all="ignore")
    def rows(self, fn: str, a: Real, rows: int, k: int, size: int) -> Real:
        """Functions of a row: softmax, max, min, argmax, argmin."""
        if not k:  # no element to choose
            return Real(np.full(size, np.nan), np.full(size, np.inf))
        table, wrong = a.value.reshape(rows, k), a.error.reshape(rows, k) if self.bounds else np.broadcast_to(0.0, (rows, k))
        name, _, last = fn.partition(":")
        if name == "softmax":
            shifted = table - table.max(axis=1, keepdims=True)
            power = np.exp(shifted)
            value = power / power.sum(axis=1, keepdims=True)
            if not self.bounds:
                return self._finish(value.reshape(-1), None, value.reshape(-1))
            worst = wrong.max(axis=1, keepdims=True)
            # |d softmax| <= softmax * (exp(2 worst) - 1), and the rounding of exp at |shifted| and of the sum
            own = (np.where(np.isfinite(shifted), np.abs(shifted), 0) + k + 16) * U
            error = value * (np.expm1(np.minimum(2 * worst, 2)) + 4 * own) + 16 * TINY
            error = np.where(np.isneginf(table), 0, np.where(worst > 1, 1.0, error))  # it lies in [0, 1] anyhow
            return self._finish(value.reshape(-1), error.reshape(-1), value.reshape(-1))
        if name in ("max", "min"):
            value = table.max(axis=1) if name == "max" else table.min(axis=1)
            error = wrong.max(axis=1)
            return self._finish(value, error, None)
        ordered = table if name == "argmax" else -table
        ordered = ordered[:, ::-1] if last == "1" else ordered
        value = ordered.argmax(axis=1)
        value = k - 1 - value if last == "1" else value
        order = np.sort(ordered, axis=1)
        gap = order[:, -1] - order[:, -2] if k > 1 else np.full(rows, np.inf)
        worst = wrong.max(axis=1)
        sure = (gap > 2 * worst) | ((worst == 0) & ~np.isnan(gap))
        return self._finish(value.astype(np.float64), np.where(sure, 0.0, float(k)), None)

    def opaque(self, key: tuple[Any, ...], args: Sequence[Real], size: int) -> Real:
        """An untaught operator: its value if a runner knows it, its error unknown."""
        self.unknown.add(str(key[0][1]) if key and isinstance(key[0], tuple) else "unknown")
        value = self.run_opaque(key, [a.value for a in args], size) if self.run_opaque else None
        if value is None:
            return Real(np.full(size, np.nan), np.full(size, np.inf))
        return Real(value.reshape(-1), np.full(size, np.inf) if self.bounds else _none((value.size,)))

    def _watch(self, reach: Reach, value: np.ndarray, operands: Sequence[np.ndarray]) -> None:
        """Note an overflow and an underflow to zero."""
        if not math.isfinite(float(np.add.reduce(value, axis=None))):
            self.broken |= bool((np.isinf(value) & reach.overflow(*operands)).any())
        if reach.underflow is not nowhere and not self.broken:
            zero = value == 0
            self.broken = bool(zero.any() and (zero & reach.underflow(*operands)).any())

    def _finish(self, value: np.ndarray, error: np.ndarray | None, scale: np.ndarray | None) -> Real:
        if self.unit and scale is not None:
            value = value + self.unit * np.where(np.isinf(scale), 0.0, scale) * self.random.standard_normal(value.shape)
        if not self.bounds:
            return Real(value, _none(value.shape))
        assert error is not None
        error = np.broadcast_to(error * _SLACK, value.shape)
        bad = np.isnan(error) | (np.isnan(value) & (error != 0))
        if bad.any():  # -inf (a mask) is exact; anything else that is NaN is unknown
            error = np.where(bad, np.where(np.isneginf(value), 0.0, np.inf), error)
        return Real(value, error)


def exact_sum(k: int, operands: Sequence[np.ndarray], unit: float) -> bool:
    """Whether sums of ``k`` products of the operands' elements round in no order: all are multiples of one power of 2, few
    enough for a type of this unit roundoff."""
    flat = [x.ravel(order="K") for x in operands]
    for few in (64, 2**14, None):  # most are told by a few elements, which padding must not hide
        seen = [x if few is None else x[:: x.size // few | 1] for x in flat]
        most = k * math.prod(float(np.abs(x).max(initial=0.0)) for x in seen)
        if most != 0 and not math.log2(most * unit) + 1e-9 < sum(map(quantum, seen)):
            return False
    return True


_none = functools.lru_cache(4096)(functools.partial(np.broadcast_to, np.zeros(1)))  # no errors, for values of a shape


def gamma(k: int) -> float:
    """The relative error of a sum of ``k`` products in any order."""
    return k * U / (1 - k * U)
