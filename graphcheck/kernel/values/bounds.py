"""Elementwise functions of float64 values with bounds on their errors: (value, error) of each operand in, one pair out.

A rounding errs by at most U, numpy's elementary functions are taken to err by at most 4 ulps, and an operand's own
error is carried through by a bound on the derivative, or by the ends of its interval where the function is monotone.
A NaN with error 0 is certainly undefined: an operand lies outside of a function's domain by more than it errs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from graphcheck.kernel.values.elementary import erf

U = 2.0**-53 * (1 + 2.0**-20)  # the excess pays for the rounding of the bounds themselves
FN = 4 * 2 * U  # relative error granted to numpy's elementary functions
TINY = 2.0**-1074  # absolute error of a result that underflows
UNITS = {"bfloat16": 2.0**-8, "float16": 2.0**-11, "float32": 2.0**-24, "float64": 2.0**-53}  # unit roundoffs

LEAST = {2.0**-8: 2.0**-133, 2.0**-11: 2.0**-24, 2.0**-24: 2.0**-149, 2.0**-53: TINY}  # their least spacings


def held(x: np.ndarray, unit: float) -> np.ndarray:
    """Whether a float type of this unit roundoff holds a number (its range aside)."""
    digits = np.frexp(x)[0] / unit
    return np.asarray(digits == np.rint(digits))


def quantum(x: np.ndarray) -> float:
    """The largest power of 2 that divides every element, as its exponent; -inf where one is not finite."""
    if not np.isfinite(x).all():
        return -np.inf
    mantissa, exponent = np.frexp(x[x != 0])
    digits = (mantissa * 2.0**53).astype(np.int64)
    lowest = np.frexp((digits & -digits).astype(np.float64))[1] - 1
    return float((exponent - 53 + lowest).min(initial=1000))


def _power(x: Any) -> Any:
    return np.abs(np.frexp(x)[0]) == 0.5


def _undefined(a: Any, ea: Any) -> Any:
    return np.isnan(a) & (ea == 0)


def _but(undefined: Any, value: Any, error: Any) -> tuple[Any, Any]:
    """A result, but for the places where there is none."""
    return np.where(undefined, np.nan, value), np.where(undefined, 0.0, error)


def _within(f: Callable[..., tuple[Any, Any]], outside: Callable[[Any, Any], Any]) -> Callable[..., tuple[Any, Any]]:
    """A function with the operands for which it certainly has no value."""

    def op(fn: str, a: Any, ea: Any) -> tuple[Any, Any]:
        return _but(outside(a, ea) | _undefined(a, ea), *f(fn, a, ea))

    return op


def _add(_: str, a: Any, ea: Any, b: Any, eb: Any) -> tuple[Any, Any]:
    value = a + b
    seen = value - a
    lost = np.abs((a - (value - seen)) + (b - seen))  # exactly what rounding took away (Knuth's TwoSum)
    masked = np.isneginf(a) & (ea == 0) | np.isneginf(b) & (
        eb == 0
    )  # a mask absorbs; a sum too large for float64 does not
    error = np.where(np.isneginf(value), np.where(masked, 0, np.inf), ea + eb + lost)
    return _but(_undefined(a, ea) | _undefined(b, eb), value, error)


def _mul(_: str, a: Any, ea: Any, b: Any, eb: Any) -> tuple[Any, Any]:
    value = a * b
    exact = held(a, UNITS["float32"]) & held(b, UNITS["float32"]) | _power(a) | _power(b)  # 48 digits at most
    rounding = np.where(exact & (np.abs(value) > 1e-290), 0.0, U * np.abs(value) + TINY)
    rounding = np.where((a == 0) | (b == 0), 0.0, rounding)
    absent_a, absent_b = _undefined(a, ea), _undefined(b, eb)  # 0 times nothing may be a selection: unknown
    absent = absent_a & ((np.abs(b) > eb) | absent_b) | absent_b & (np.abs(a) > ea)
    return _but(absent, value, np.abs(a) * eb + np.abs(b) * ea + ea * eb + rounding)


def _recip(_: str, a: Any, ea: Any) -> tuple[Any, Any]:
    value = 1 / a
    room = np.abs(a) - ea
    rounding = np.where(_power(a) & (np.abs(value) > 1e-290), 0.0, U * np.abs(value) + TINY)
    error = np.where(room > 0, ea * np.abs(value) / np.maximum(room, 1e-300) + rounding, np.inf)
    return _but((a == 0) & (ea == 0) | _undefined(a, ea), value, error)


def _smooth(f: Callable[..., Any], slope: Callable[[Any, Any], Any]) -> Callable[..., tuple[Any, Any]]:
    """A function with a bound on its derivative over [a - ea, a + ea]."""

    def op(_: str, a: Any, ea: Any) -> tuple[Any, Any]:
        value = f(a)
        return value, slope(a, ea) * ea + FN * np.abs(value)

    return op


def _exp(_: str, a: Any, ea: Any) -> tuple[Any, Any]:
    value = np.exp(a)
    close = value * (np.expm1(np.minimum(ea, 1)) * (1 + FN) + FN) + 16 * TINY
    return value, np.where(ea <= 1, close, np.exp(a + ea) * (1 + FN) + 16 * TINY)


def _step(_: str, a: Any, ea: Any) -> tuple[Any, Any]:
    sure = (np.abs(a) > ea) | (ea == 0) & ~np.isnan(a)
    return (a > 0).astype(np.float64), np.where(sure, 0.0, 1.0)


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
            value, error = f(value, a), np.maximum(error, ea)
        return value, error

    return op


def _monotone(f: Callable[..., Any]) -> Callable[..., tuple[Any, Any]]:
    """A function that is monotone in each operand: its extremes over the errors lie at their ends."""

    def op(_: str, *parts: Any) -> tuple[Any, Any]:
        values, errors = parts[0::2], parts[1::2]
        value, error = f(*values), np.zeros(1)
        for signs in itertools.product((-1, 1), repeat=len(values)):
            end = f(*(v + s * e for v, s, e in zip(values, signs, errors, strict=True)))
            error = np.maximum(error, np.abs(end - value) + FN * np.abs(end))
        return value, error + FN * np.abs(value) + TINY

    return op


def _pow(fn: str, a: Any, ea: Any, b: Any, eb: Any) -> tuple[Any, Any]:
    """Monotone for a positive base; any other base must be exact, and so its integer exponent."""
    value, error = _monotone(np.power)(fn, a, ea, b, eb)
    absent = (a + ea < 0) & (eb == 0) & np.isfinite(b) & (b != np.rint(b))
    return _but(absent, value, np.where((a - ea > 0) | ((ea == 0) & (eb == 0)), error, np.inf))


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


def _sqrt(_: str, a: Any, ea: Any) -> tuple[Any, Any]:
    near = np.sqrt(np.abs(a)) + np.sqrt(np.maximum(a - ea, 0)) + 1e-300
    error = np.where(a - ea > 0, ea / near, np.sqrt(ea)) * (1 + 8 * U)
    return np.sqrt(a), error + U * np.sqrt(np.abs(a))


def _log(_: str, a: Any, ea: Any) -> tuple[Any, Any]:
    value = np.log(a)
    error = np.where(a - ea > 0, ea / np.maximum(a - ea, 1e-300), np.where(ea > 0, np.inf, 0))
    return value, error + FN * np.abs(value) + U


def _one(a: Any, ea: Any) -> Any:
    return np.ones(1)


EXACT = frozenset({"pos", "max", "min", "abs", "round", "floor", "ceil", "cast", "wrap", "saturate", "mod", "fmod"})
ELEMENTWISE: dict[str, Callable[..., tuple[Any, Any]]] = {
    "add": _add,
    "mul": _mul,
    "recip": _recip,
    "exp": _exp,
    "pos": _step,
    "max": _either(np.maximum),
    "min": _either(np.minimum),
    "abs": lambda _, a, ea: (np.abs(a), ea),
    "sqrt": _within(_sqrt, lambda a, ea: a + ea < 0),
    "log": _within(_log, lambda a, ea: a + ea < 0),
    "erf": _smooth(erf, lambda a, ea: 1.1283792 * np.exp(-np.square(np.maximum(np.abs(a) - ea, 0)))),
    "tanh": _smooth(np.tanh, lambda a, ea: 1 / np.square(np.cosh(np.minimum(np.maximum(np.abs(a) - ea, 0), 300))) + FN),
    "sin": _smooth(np.sin, _one),
    "cos": _smooth(np.cos, _one),
    "atan": _smooth(np.arctan, _one),
    "asinh": _smooth(np.arcsinh, _one),
    "sinh": _smooth(np.sinh, lambda a, ea: np.cosh(np.abs(a) + ea)),
    "cosh": _smooth(np.cosh, lambda a, ea: np.cosh(np.abs(a) + ea)),
    "tan": _tan,
    "acos": _within(_monotone(np.arccos), lambda a, ea: np.abs(a) - ea > 1),
    "asin": _within(_monotone(np.arcsin), lambda a, ea: np.abs(a) - ea > 1),
    "acosh": _within(_monotone(np.arccosh), lambda a, ea: a + ea < 1),
    "atanh": _within(_monotone(np.arctanh), lambda a, ea: np.abs(a) - ea > 1),
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
VALUES: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "mul": np.multiply,
    "recip": np.reciprocal,
    "exp": np.exp,
    "sqrt": np.sqrt,
    "erf": erf,
    "tanh": np.tanh,
    "pos": lambda a: (a > 0).astype(np.float64),
}
