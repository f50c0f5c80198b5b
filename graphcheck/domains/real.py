"""Float64 with a running error bound, and with the rounding of the declared types as seeded noise (the spread).

Bounds: a sum of K products in any order errs by at most gamma_K * sum |a_k b_k|, gamma_K = K u / (1 - K u), u = 2**-53
(Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., sections 3.1 and 4.2). Elementary functions of numpy
are taken to err by at most 4 ulps; an operand's own error is carried through by a bound on the derivative.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphcheck.domains.elementary import erf
from graphcheck.domains.maps import Map

U = 2.0**-53 * (1 + 2.0**-20)  # the excess pays for the rounding of the bounds themselves
_FN = 4 * 2 * U  # relative error granted to numpy's elementary functions
_TINY = 2.0**-1074  # absolute error of a result that underflows


@dataclasses.dataclass(frozen=True, slots=True)
class Real:
    """Flat float64 values and a bound on the distance of each from the true real number (inf: unknown)."""

    value: np.ndarray
    error: np.ndarray


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

    def const(self, array: np.ndarray) -> Real:
        """The constant, exact (an integer beyond 2**53 is rounded, and its error said)."""
        value = array.astype(np.float64)
        if array.dtype.kind in "iu" and array.dtype.itemsize == 8:
            far = np.abs(value) >= 2.0**53
            return Real(value, np.where(far, U * np.abs(value), 0.0))
        return Real(value, np.zeros(value.shape))

    def leaf(self, cls: int, key: tuple[Any, ...], size: int) -> Real:
        """The input by its key."""
        value = np.asarray(self.inputs[key], np.float64).reshape(-1)
        return Real(value, np.zeros(size))

    def move(self, sources: Sequence[Real], map_: Map) -> Real:
        """A gather of values and errors."""
        zero = np.zeros(1)
        value = np.concatenate([zero, *(s.value for s in sources)])
        result = np.take(value, map_.index)
        if not self.bounds:
            return Real(result, _none(result))
        return Real(result, np.take(np.concatenate([zero, *(s.error for s in sources)]), map_.index))

    def ew(self, fn: str, values: Sequence[Real], maps: Sequence[Map | None], size: int) -> Real:
        """Elementwise functions."""
        plain = _VALUES.get(fn)
        if plain is not None and not self.bounds:
            seen = [v.value if m is None else np.take(v.value, m.index - 1) for v, m in zip(values, maps, strict=True)]
            with np.errstate(all="ignore"):
                quick = plain(*seen)
            quick = np.broadcast_to(quick, (size,)) if quick.shape != (size,) else quick
            noisy = self.unit and fn != "pos" and not _is_exact(fn, seen)
            return self._finish(quick, None, np.abs(quick) if noisy else None)
        xs = [
            (v.value, v.error) if m is None else (np.take(v.value, m.index - 1), np.take(v.error, m.index - 1))
            for v, m in zip(values, maps, strict=True)
        ]
        with np.errstate(all="ignore"):
            value, error = _ELEMENTWISE[fn.partition(":")[0]](fn, *(part for x in xs for part in x))
        value = np.broadcast_to(value, (size,)) if value.shape != (size,) else value
        noisy = fn.partition(":")[0] not in _EXACT and not _is_exact(fn, [v.value for v in values])
        return self._finish(value, error, np.abs(value) if noisy else None)

    @np.errstate(all="ignore")
    def contract(self, a: Real, b: Real, batches: tuple[int, int], m: int, n: int, k: int, kn: bool) -> Real:
        """Batched products of [m, k] and [n, k]."""

        def right(x: np.ndarray) -> np.ndarray:
            return x.reshape(batches[1], k, n) if kn else x.reshape(batches[1], n, k).swapaxes(1, 2)

        av, bv = a.value.reshape(batches[0], m, k), right(b.value)
        value = (av @ bv).reshape(-1)
        error = None
        if self.bounds:
            ae, be = a.error.reshape(av.shape), right(b.error)
            absolute = np.abs(av) @ (np.abs(bv) * _gamma(k) + be) + k * _TINY
            error = (absolute + ae @ (np.abs(bv) + be)).reshape(-1) if ae.any() else absolute.reshape(-1)
        scale = np.sqrt((av * av) @ (bv * bv)).reshape(-1) if self.unit else None
        return self._finish(value, error, scale)

    @np.errstate(all="ignore")
    def sum(self, a: Real, rows: int, k: int) -> Real:
        """Row sums."""
        table = a.value.reshape(rows, k)
        value = table.sum(axis=1)
        error = None
        if self.bounds:
            error = a.error.reshape(rows, k).sum(axis=1) + _gamma(k) * np.abs(table).sum(axis=1)
        scale = np.sqrt((table * table).sum(axis=1)) if self.unit else None
        return self._finish(value, error, scale)

    @np.errstate(all="ignore")
    def rows(self, fn: str, a: Real, rows: int, k: int, size: int) -> Real:
        """Functions of a row: softmax, max, min, argmax, argmin."""
        table, wrong = a.value.reshape(rows, k), a.error.reshape(rows, k) if self.bounds else np.zeros((rows, k))
        name, _, last = fn.partition(":")
        if name == "softmax":
            shifted = table - table.max(axis=1, keepdims=True)
            power = np.exp(shifted)
            value = power / power.sum(axis=1, keepdims=True)
            worst = np.where(np.isneginf(table), 0, wrong).max(axis=1, keepdims=True)
            # |d softmax| <= softmax * (exp(2 worst) - 1), and the rounding of exp at |shifted| and of the sum
            own = (np.where(np.isfinite(shifted), np.abs(shifted), 0) + k + 16) * U
            error = value * (np.expm1(np.minimum(2 * worst, 2)) + 4 * own) + 16 * _TINY
            error = np.where(np.isneginf(table), 0, np.where(worst > 1, 1.0, error))  # it lies in [0, 1] anyhow
            return self._finish(value.reshape(-1), error.reshape(-1), value.reshape(-1))
        if name in ("max", "min"):
            value = table.max(axis=1) if name == "max" else table.min(axis=1)
            error = np.where(np.isneginf(table), 0, wrong).max(axis=1)
            return self._finish(value, error, None)
        ordered = table if name == "argmax" else -table
        ordered = ordered[:, ::-1] if last == "1" else ordered
        value = ordered.argmax(axis=1)
        value = k - 1 - value if last == "1" else value
        order = np.sort(ordered, axis=1)
        gap = order[:, -1] - order[:, -2] if k > 1 else np.full(rows, np.inf)
        worst = wrong.max(axis=1)
        return self._finish(value.astype(np.float64), np.where((gap <= 2 * worst) & (worst > 0), float(k), 0.0), None)

    def opaque(self, key: tuple[Any, ...], args: Sequence[Real], size: int) -> Real:
        """An untaught operator: its value if a runner knows it, its error unknown."""
        self.unknown.add(str(key[0][1]) if key and isinstance(key[0], tuple) else "unknown")
        value = self.run_opaque(key, [a.value for a in args], size) if self.run_opaque else None
        if value is None:
            return Real(np.full(size, np.nan), np.full(size, np.inf))
        return Real(value.reshape(-1), np.full(size, np.inf) if self.bounds else _none(value.reshape(-1)))

    def _finish(self, value: np.ndarray, error: np.ndarray | None, scale: np.ndarray | None) -> Real:
        if self.unit and scale is not None:
            value = value + self.unit * scale * self.random.standard_normal(value.shape)
        if not self.bounds:
            return Real(value, _none(value))
        assert error is not None
        error = np.broadcast_to(error, value.shape)
        bad = np.isnan(error) | np.isnan(value)
        if bad.any():  # -inf (a mask) is exact; anything else that is NaN is unknown
            error = np.where(bad, np.where(np.isneginf(value), 0.0, np.inf), error)
        return Real(value, error)


def _is_exact(fn: str, xs: Sequence[np.ndarray]) -> bool:
    """Whether an operation does not round: a product with a power of two, the sign included."""
    return fn == "mul" and any(x.size == 1 and abs(math.frexp(float(x[0]))[0]) == 0.5 for x in xs)


def _none(value: np.ndarray) -> np.ndarray:
    return np.broadcast_to(np.zeros(1), value.shape)


def _gamma(k: int) -> float:
    return k * U / (1 - k * U)


def _add(_: str, a: Any, ea: Any, b: Any, eb: Any) -> tuple[Any, Any]:
    value = a + b
    return value, np.where(np.isneginf(value), 0, ea + eb + U * np.abs(value))


def _mul(_: str, a: Any, ea: Any, b: Any, eb: Any) -> tuple[Any, Any]:
    value = a * b
    return value, np.abs(a) * eb + np.abs(b) * ea + ea * eb + (U * np.abs(value) + _TINY)


def _recip(_: str, a: Any, ea: Any) -> tuple[Any, Any]:
    value = 1 / a
    room = np.abs(a) - ea
    return value, np.where(
        room > 0, ea * np.abs(value) / np.maximum(room, 1e-300) + (U * np.abs(value) + _TINY), np.inf
    )


def _smooth(f: Callable[..., Any], slope: Callable[[Any, Any], Any]) -> Callable[..., tuple[Any, Any]]:
    """A function with a bound on its derivative over [a - ea, a + ea]."""

    def op(_: str, a: Any, ea: Any) -> tuple[Any, Any]:
        value = f(a)
        return value, slope(a, ea) * ea + _FN * np.abs(value)

    return op


def _exp(_: str, a: Any, ea: Any) -> tuple[Any, Any]:
    value = np.exp(a)
    close = value * (np.expm1(np.minimum(ea, 1)) * (1 + _FN) + _FN) + 16 * _TINY
    return value, np.where(ea <= 1, close, np.exp(a + ea) * (1 + _FN))


def _step(_: str, a: Any, ea: Any) -> tuple[Any, Any]:
    return (a > 0).astype(np.float64), np.where(np.abs(a) <= ea, np.where(ea > 0, 1.0, 0.0), 0.0)


def _rounding(f: Callable[[Any], Any]) -> Callable[..., tuple[Any, Any]]:
    """A piecewise constant function: exact unless the error reaches a jump."""

    def op(_: str, a: Any, ea: Any) -> tuple[Any, Any]:
        low, high = f(a - ea), f(a + ea)
        return f(a), np.maximum(np.abs(high - f(a)), np.abs(low - f(a)))

    return op


def _either(f: Callable[..., Any]) -> Callable[..., tuple[Any, Any]]:
    """Max or min of any number of operands: the error is at most the largest operand's."""

    def op(_: str, *parts: Any) -> tuple[Any, Any]:
        value, error = parts[0], parts[1]
        for a, ea in zip(parts[2::2], parts[3::2], strict=True):
            value, error = f(value, a), np.maximum(error, np.where(np.isneginf(a), 0, ea))
        return value, error

    return op


def _monotone(f: Callable[..., Any]) -> Callable[..., tuple[Any, Any]]:
    """A function that is monotone in each operand: its extremes over the errors lie at their ends."""

    def op(_: str, *parts: Any) -> tuple[Any, Any]:
        values, errors = parts[0::2], parts[1::2]
        value, error = f(*values), np.zeros(1)
        for signs in itertools.product((-1, 1), repeat=len(values)):
            end = f(*(v + s * e for v, s, e in zip(values, signs, errors, strict=True)))
            error = np.maximum(error, np.abs(end - value) + _FN * np.abs(end))
        return value, error + _FN * np.abs(value) + _TINY

    return op


def _pow(fn: str, a: Any, ea: Any, b: Any, eb: Any) -> tuple[Any, Any]:
    """Monotone for a positive base; any other base must be exact, and so its integer exponent."""
    value, error = _monotone(np.power)(fn, a, ea, b, eb)
    return value, np.where((a - ea > 0) | ((ea == 0) & (eb == 0)), error, np.inf)


def _tan(fn: str, a: Any, ea: Any) -> tuple[Any, Any]:
    value, error = _monotone(np.tan)(fn, a, ea)
    return value, np.where(np.rint((a - ea) / np.pi) == np.rint((a + ea) / np.pi), error, np.inf)


def _unknown_error(f: Callable[..., Any]) -> Callable[..., tuple[Any, Any]]:
    """Exact on exact operands (integers), unknown on any other."""

    def op(_: str, *parts: Any) -> tuple[Any, Any]:
        value = f(*parts[0::2])
        exact = np.all([e == 0 for e in np.broadcast_arrays(*parts[1::2])], axis=0)
        return value, np.where(exact & ~np.isnan(value), 0.0, np.inf)

    return op


def _cast(fn: str, a: Any, ea: Any) -> tuple[Any, Any]:
    """Float to integer truncates (undefined outside of the type); to a narrower float rounds, a float8 saturates."""
    dtype = _dtype(fn)
    limits = _limits(dtype)
    if limits is not None:
        value, error = _rounding(np.trunc)(fn, a, ea)
        return value, np.where((value < limits[0]) | (value > limits[1]), np.inf, error)
    top = _top(dtype) if dtype.itemsize == 1 else np.inf

    def rounded(x: Any) -> Any:
        return np.clip(x, -top, top).astype(dtype).astype(np.float64)

    value = rounded(a)
    return value, np.maximum(np.abs(rounded(a + ea) - value), np.abs(rounded(a - ea) - value))


def _wrap(fn: str, a: Any, ea: Any) -> tuple[Any, Any]:
    """Integer to integer, modulo the size of the type."""
    limits = _limits(_dtype(fn))
    assert limits is not None
    low, count = limits[0], limits[1] - limits[0] + 1
    inside = (a - ea >= low) & (a + ea < low + count)
    value = np.where(inside, a, np.mod(a - low, count) + low)
    return value, np.where(inside, ea, np.where((ea == 0) & (np.abs(a) < 2.0**53), 0, np.inf))


def _saturate(fn: str, a: Any, ea: Any) -> tuple[Any, Any]:
    limits = _limits(_dtype(fn))
    return _cast(fn, a, ea) if limits is None else (np.clip(a, *limits), ea)


def _dtype(fn: str) -> np.dtype[Any]:
    """The type that a verb names behind its colon."""
    name = fn.partition(":")[2]
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes

        found: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
        return found


def _limits(dtype: np.dtype[Any]) -> tuple[float, float] | None:
    """The least and the largest number of an integer type, None for floats."""
    import ml_dtypes

    if dtype.kind in "iu":
        return float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)
    if dtype.name.startswith(("int", "uint")):
        info = ml_dtypes.iinfo(dtype)  # type: ignore[no-untyped-call]
        return float(info.min), float(info.max)
    return None


def _top(dtype: np.dtype[Any]) -> float:
    import ml_dtypes

    return float(ml_dtypes.finfo(dtype).max)  # type: ignore[no-untyped-call]


def _one(a: Any, ea: Any) -> Any:
    return np.ones(1)


_EXACT = frozenset({"pos", "max", "min", "abs", "round", "floor", "ceil", "cast", "wrap", "saturate", "mod", "fmod"})
_ELEMENTWISE: dict[str, Callable[..., tuple[Any, Any]]] = {
    "add": _add,
    "mul": _mul,
    "recip": _recip,
    "exp": _exp,
    "pos": _step,
    "max": _either(np.maximum),
    "min": _either(np.minimum),
    "abs": lambda _, a, ea: (np.abs(a), ea),
    "sqrt": lambda _, a, ea: (
        np.sqrt(a),
        np.where(a - ea > 0, ea / (np.sqrt(np.abs(a)) + np.sqrt(np.maximum(a - ea, 0)) + 1e-300), np.sqrt(ea))
        * (1 + 8 * U)
        + U * np.sqrt(np.abs(a)),
    ),
    "log": lambda _, a, ea: (
        np.log(a),
        np.where(a - ea > 0, ea / np.maximum(a - ea, 1e-300), np.where(ea > 0, np.inf, 0))
        + _FN * np.abs(np.log(a))
        + U,
    ),
    "erf": _smooth(erf, lambda a, ea: 1.1283792 * np.exp(-np.square(np.maximum(np.abs(a) - ea, 0)))),
    "tanh": _smooth(
        np.tanh, lambda a, ea: 1 / np.square(np.cosh(np.minimum(np.maximum(np.abs(a) - ea, 0), 300))) + _FN
    ),
    "sin": _smooth(np.sin, _one),
    "cos": _smooth(np.cos, _one),
    "atan": _smooth(np.arctan, _one),
    "asinh": _smooth(np.arcsinh, _one),
    "sinh": _smooth(np.sinh, lambda a, ea: np.cosh(np.abs(a) + ea)),
    "cosh": _smooth(np.cosh, lambda a, ea: np.cosh(np.abs(a) + ea)),
    "tan": _tan,
    "acos": _monotone(np.arccos),
    "asin": _monotone(np.arcsin),
    "acosh": _monotone(np.arccosh),
    "atanh": _monotone(np.arctanh),
    "pow": _pow,
    "mod": _unknown_error(lambda a, b: np.mod(a, b)),
    "fmod": _unknown_error(lambda a, b: np.fmod(a, b)),
    "intdiv": _unknown_error(lambda a, b: np.trunc(a / b)),
    "floor": _rounding(np.floor),
    "ceil": _rounding(np.ceil),
    "round": _rounding(np.rint),
    "cast": _cast,
    "wrap": _wrap,
    "saturate": _saturate,
}

# The same values without their errors, for runs that track none.
_VALUES: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "mul": np.multiply,
    "recip": np.reciprocal,
    "exp": np.exp,
    "sqrt": np.sqrt,
    "erf": erf,
    "tanh": np.tanh,
    "pos": lambda a: (a > 0).astype(np.float64),
}
