"""Bounds on the errors of elementwise functions of float64 values: (value, error) of each operand in, one pair out.

Which function has which bound stands in :mod:`graphcheck.kernel.terms.functions`. A rounding errs by at most U, numpy's
elementary functions are taken to err by at most 4 ulps, and an operand's own error is carried through by a bound on the
derivative, or by the ends of its interval where the function is monotone.
A NaN with error 0 is certainly undefined: an operand lies outside of a function's domain by more than it errs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

Bound = Callable[..., tuple[Any, Any]]
U = 2.0**-53 * (1 + 2.0**-20)  # the excess pays for the rounding of the bounds themselves
FN = 4 * 2 * U  # relative error granted to numpy's elementary functions
TINY = 2.0**-1074  # absolute error of a result that underflows
_BLOCK = 2**15  # elements
UNITS = {"bfloat16": 2.0**-8, "float16": 2.0**-11, "float32": 2.0**-24, "float64": 2.0**-53}  # unit roundoffs

FLOAT8 = ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz")
LEAST = {2.0**-8: 2.0**-133, 2.0**-11: 2.0**-24, 2.0**-24: 2.0**-149, 2.0**-53: TINY}  # their least spacings


def held(x: np.ndarray, unit: float) -> np.ndarray:
    """Whether a float type of this unit roundoff holds a number (its range aside)."""
    with np.errstate(over="ignore"):
        if unit == UNITS["float32"] and (found := np.asarray(x == np.asarray(x).astype(np.float32))).all():
            return found  # at a third of the cost
    digits = np.frexp(x)[0] / unit
    return np.asarray(digits == np.rint(digits))


def in_blocks(bound: Bound, *operands: Any) -> tuple[Any, Any]:
    """A bound of many elements, a block at a time, which a cache holds."""
    if (size := max(map(np.size, operands))) <= _BLOCK:
        return bound(*operands)
    made = np.empty((2, size))
    for part in (slice(at, at + _BLOCK) for at in range(0, size, _BLOCK)):
        made[0, part], made[1, part] = bound(*(x[part] if np.size(x) == size else x for x in operands))
    return made[0], made[1]


def quantum(x: np.ndarray) -> float:
    """The largest power of 2 that divides every element, as its exponent; -inf where one is not finite."""
    if not np.isfinite(x).all():
        return -np.inf
    mantissa, exponent = np.frexp(x[x != 0])
    digits = (mantissa * 2.0**53).astype(np.int64)
    lowest = np.frexp((digits & -digits).astype(np.float64))[1] - 1
    return float((exponent - 53 + lowest).min(initial=1000))


def is_power(x: Any) -> Any:
    """Whether a number is a power of two, the sign aside."""
    return np.abs(np.frexp(x)[0]) == 0.5


def _undefined(a: Any, ea: Any) -> Any:
    return np.isnan(a) & (ea == 0)


def _but(undefined: Any, value: Any, error: Any) -> tuple[Any, Any]:
    """A result, but for the places where there is none."""
    return np.where(undefined, np.nan, value), np.where(undefined, 0.0, error)


def within(f: Bound, outside: Callable[[Any, Any], Any]) -> Bound:
    """A function with the operands for which it certainly has no value."""

    def op(a: Any, ea: Any) -> tuple[Any, Any]:
        return _but(outside(a, ea) | _undefined(a, ea), *f(a, ea))

    return op


def add(a: Any, ea: Any, b: Any, eb: Any) -> tuple[Any, Any]:
    """a + b."""
    value = a + b
    seen = value - a
    lost = np.abs((a - (value - seen)) + (b - seen))  # exactly what rounding took away (Knuth's TwoSum)
    masked = np.isneginf(a) & (ea == 0) | np.isneginf(b) & (
        eb == 0
    )  # a mask absorbs; a sum too large for float64 does not
    error = np.where(np.isneginf(value), np.where(masked, 0, np.inf), ea + eb + lost)
    return _but(_undefined(a, ea) | _undefined(b, eb), value, error)


def mul(a: Any, ea: Any, b: Any, eb: Any) -> tuple[Any, Any]:
    """a b."""
    value = a * b
    exact = held(a, UNITS["float32"]) & held(b, UNITS["float32"])  # 48 digits at most
    exact = exact if exact.all() else exact | is_power(a) | is_power(b)
    rounding = np.where(exact & (np.abs(value) > 1e-290), 0.0, U * np.abs(value) + TINY)
    rounding = np.where((a == 0) | (b == 0), 0.0, rounding)
    absent_a, absent_b = _undefined(a, ea), _undefined(b, eb)  # 0 times nothing may be a selection: unknown
    absent = absent_a & ((np.abs(b) > eb) | absent_b) | absent_b & (np.abs(a) > ea)
    return _but(absent, value, np.abs(a) * eb + np.abs(b) * ea + ea * eb + rounding)


def recip(a: Any, ea: Any) -> tuple[Any, Any]:
    """1 / a."""
    value = 1 / a
    room = np.abs(a) - ea
    rounding = np.where(is_power(a) & (np.abs(value) > 1e-290), 0.0, U * np.abs(value) + TINY)
    error = np.where(room > 0, ea * np.abs(value) / np.maximum(room, 1e-300) + rounding, np.inf)
    return _but((a == 0) & (ea == 0) | _undefined(a, ea), value, error)


def smooth(f: Callable[..., Any], slope: Callable[[Any, Any], Any]) -> Bound:
    """A function with a bound on its derivative over [a - ea, a + ea]."""

    def op(a: Any, ea: Any) -> tuple[Any, Any]:
        value = f(a)
        return value, slope(a, ea) * ea + FN * np.abs(value)

    return op


def exp(a: Any, ea: Any) -> tuple[Any, Any]:
    """Exp(a)."""
    value = np.exp(a)
    close = value * (np.expm1(np.minimum(ea, 1)) * (1 + FN) + FN) + 16 * TINY
    return value, np.where(ea <= 1, close, np.exp(a + ea) * (1 + FN) + 16 * TINY)


def step(a: Any, ea: Any) -> tuple[Any, Any]:
    """1 where a > 0, else 0."""
    sure = (np.abs(a) > ea) | (ea == 0) & ~np.isnan(a)
    return (a > 0).astype(np.float64), np.where(sure, 0.0, 1.0)


def magnitude(a: Any, ea: Any) -> tuple[Any, Any]:
    """|a|."""
    return np.abs(a), ea


def piecewise(f: Callable[[Any], Any]) -> Bound:
    """A piecewise constant function: exact unless the error reaches a jump."""

    def op(a: Any, ea: Any) -> tuple[Any, Any]:
        low, high = f(a - ea), f(a + ea)
        return f(a), np.maximum(np.abs(high - f(a)), np.abs(low - f(a)))

    return op


def masking(a: Any, ea: Any) -> tuple[Any, Any]:
    """0 where the operand is 1, -inf where it is 0: exact unless the error reaches between them."""
    return np.where(a > 0.5, 0.0, -np.inf), np.where(np.abs(a - 0.5) <= ea, np.inf, 0.0)


def either(f: Callable[..., Any]) -> Bound:
    """Max or min of any number of operands: the error is at most the largest operand's."""

    def op(*parts: Any) -> tuple[Any, Any]:
        value, error = parts[0], parts[1]
        for a, ea in zip(parts[2::2], parts[3::2], strict=True):
            value, error = f(value, a), np.maximum(error, ea)
        return value, error

    return op


def monotone(f: Callable[..., Any]) -> Bound:
    """A function that is monotone in each operand: its extremes over the errors lie at their ends."""

    def op(*parts: Any) -> tuple[Any, Any]:
        values, errors = parts[0::2], parts[1::2]
        value, error = f(*values), np.zeros(1)
        for signs in itertools.product((-1, 1), repeat=len(values)):
            end = f(*(v + s * e for v, s, e in zip(values, signs, errors, strict=True)))
            error = np.maximum(error, np.abs(end - value) + FN * np.abs(end))
        return value, error + FN * np.abs(value) + TINY

    return op


def pow_(a: Any, ea: Any, b: Any, eb: Any) -> tuple[Any, Any]:
    """Monotone for a positive base; any other base must be exact, and so its integer exponent."""
    value, error = monotone(np.power)(a, ea, b, eb)
    absent = (a + ea < 0) & (eb == 0) & np.isfinite(b) & (b != np.rint(b))
    return _but(absent, value, np.where((a - ea > 0) | ((ea == 0) & (eb == 0)), error, np.inf))


def tan(a: Any, ea: Any) -> tuple[Any, Any]:
    """Monotone between its poles."""
    value, error = monotone(np.tan)(a, ea)
    return value, np.where(np.rint((a - ea) / np.pi) == np.rint((a + ea) / np.pi), error, np.inf)


def unknown(f: Callable[..., Any]) -> Bound:
    """Exact on exact operands (integers), unknown on any other."""

    def op(*parts: Any) -> tuple[Any, Any]:
        value = f(*parts[0::2])
        exact = np.all([e == 0 for e in np.broadcast_arrays(*parts[1::2])], axis=0)
        return value, np.where(exact & ~np.isnan(value), 0.0, np.inf)

    return op


def sqrt(a: Any, ea: Any) -> tuple[Any, Any]:
    """Sqrt(a)."""
    near = np.sqrt(np.abs(a)) + np.sqrt(np.maximum(a - ea, 0)) + 1e-300
    error = np.where(a - ea > 0, ea / near, np.sqrt(ea)) * (1 + 8 * U)
    return np.sqrt(a), error + U * np.sqrt(np.abs(a))


def log(a: Any, ea: Any) -> tuple[Any, Any]:
    """Log(a)."""
    value = np.log(a)
    error = np.where(a - ea > 0, ea / np.maximum(a - ea, 1e-300), np.where(ea > 0, np.inf, 0))
    return value, error + FN * np.abs(value) + U


# -- functions of a type -------------------------------------------------------------------------------------------


def converted(dtype: np.dtype[Any]) -> Callable[[Any], Any]:
    """The conversion of real numbers to a type: to integers by truncation, to narrower floats by rounding; a float8 saturates."""
    if limits(dtype) is not None:
        return np.trunc
    top = _top(dtype) if dtype.itemsize == 1 else np.inf
    near = _to_odd if dtype.name not in UNITS or dtype.name == "bfloat16" else np.asarray
    return lambda x: near(np.clip(x, -top, top)).astype(dtype).astype(np.float64)


def _to_odd(x: np.ndarray) -> np.ndarray:
    """float32 by rounding to odd: ml_dtypes rounds float64 to float32 first, and only so is the second rounding the only one
    (Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums", IEEE Trans. Comput. 57, 2008)."""
    near = np.asarray(x, np.float32)
    wide = near.astype(np.float64)
    even = (wide != x) & np.isfinite(x) & (near.view(np.int32) % 2 == 0)
    return np.where(even, np.nextafter(near, np.where(x > wide, np.inf, -np.inf).astype(np.float32)), near)


def cast(dtype: np.dtype[Any]) -> Bound:
    """A conversion: undefined outside of the range of an integer type."""
    bound, ends = piecewise(converted(dtype)), limits(dtype)

    def op(a: Any, ea: Any) -> tuple[Any, Any]:
        value, error = bound(a, ea)
        return value, error if ends is None else np.where((value < ends[0]) | (value > ends[1]), np.inf, error)

    return op


def wrap(low: float, count: float) -> Bound:
    """Integer to integer, modulo the size of the type, whose least number is ``low``."""

    def op(a: Any, ea: Any) -> tuple[Any, Any]:
        inside = (a - ea >= low) & (a + ea < low + count)
        value = np.where(inside, a, np.mod(a - low, count) + low)
        return value, np.where(inside, ea, np.where((ea == 0) & (np.abs(a) < 2.0**53), 0, np.inf))

    return op


def dtype_of(name: str) -> np.dtype[Any]:
    """The type of a name; raises :class:`LookupError` if there is none such."""
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes

        found = getattr(ml_dtypes, name, None)
        if not isinstance(found, type):
            raise LookupError(name) from None
        return np.dtype(found)


def ends(dtype: np.dtype[Any]) -> tuple[int, int] | None:
    """The least and the largest number of an integer type, to the last digit; None for other types."""
    import ml_dtypes

    if dtype.kind in "iu" or dtype.name.startswith(("int", "uint")):
        info = np.iinfo(dtype) if dtype.kind in "iu" else ml_dtypes.iinfo(dtype)  # type: ignore[no-untyped-call]
        return int(info.min), int(info.max)
    return None


def limits(dtype: np.dtype[Any]) -> tuple[float, float] | None:
    """The same in float64."""
    return None if (found := ends(dtype)) is None else (float(found[0]), float(found[1]))


def span(dtype: np.dtype[Any]) -> tuple[float, float]:
    """The least and the largest number of a type."""
    return limits(dtype) or (-_top(dtype), _top(dtype))


def least_of(dtype: np.dtype[Any]) -> float:
    """The least number of a floating type above 0."""
    import ml_dtypes

    return float(ml_dtypes.finfo(dtype).smallest_subnormal)  # type: ignore[no-untyped-call]


def _top(dtype: np.dtype[Any]) -> float:
    import ml_dtypes

    return float(ml_dtypes.finfo(dtype).max)  # type: ignore[no-untyped-call]
