"""The elementwise functions: all that is known of one stands in its record, and no other table tells more of it.

What a record leaves out is taken at its worst: no bound on a derivative, a jump that may be anywhere, a result that says
nothing of the reals where it is infinite or zero, no symmetry, no meaning for a mask. An operator that needs a new function
adds its record to ``FUNCTIONS`` (docs/how-to/add-an-op.md).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from graphcheck.errors import UnknownFunction
from graphcheck.kernel.values import bounds
from graphcheck.kernel.values.bounds import FN, U, held
from graphcheck.kernel.values.elementary import erf

_POLE = 1e3  # a pole or the end of a domain must be this many times farther away than a value may err


def everywhere(*_: Any) -> Any:
    """The places of what nobody looked into."""
    return True


def nowhere(*_: Any) -> Any:
    """No places."""
    return False


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class Rounding:
    """By how much a result of exact operands may err: in ulps of the declared type (0: exact, 1: rounded correctly), and in
    float64 by ``relative`` times its size plus ``absolute``."""

    ulps: int
    relative: float
    absolute: float = 0.0

    @property
    def exact(self) -> bool:
        """Whether float64 gives the exact result of exact operands."""
        return not self.relative


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class Slope:
    """``partials`` (value, operands) gives the derivative towards each operand; ``pole`` (room of the first operand, operands)
    says where it may be far off if that operand errs by its room; ``bends``: whether it jumps, by 2 at most, at the edge."""

    partials: Callable[..., tuple[Any, ...]]
    pole: Callable[..., Any]
    bends: bool = False


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class Reach:
    """Where a result has left the range of float64, and says nothing of the reals: ``overflow`` (operands) among those that are
    infinite, ``underflow`` (operands) among those that are 0."""

    overflow: Callable[..., Any] = everywhere
    underflow: Callable[..., Any] = everywhere


@dataclasses.dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Function:
    """One elementwise function over the reals.

    Attributes:
        name: By what operators call it; a function of a type has the type behind a colon (``cast:float16``).
        arity: How many operands it takes, 0 for any number.
        value: Of float64 operands, in float64.
        bound: The value and its error of each operand and its error (:mod:`graphcheck.kernel.values.bounds`).
        rounding: By how much a result errs.
        slope: Its derivatives; None: not known, and every bound that needs one is infinite.
        edge: The place nearest to x where the function of x (of the first operand less the second) jumps or bends.
        jumps: Whether it has a jump.
        parity: f(-x) is -f(x), f(x), or 1 / f(x) with f(0) = 1.
        commutative: Whether the order of its operands is no matter.
        rational: Whether it is computed modulo primes, by its name; else it is an uninterpreted function there.
        mask: Where the result is -inf: where ``any`` or where ``all`` operands are, where one ``factor`` is beside positive
            constants; ``zero``: it is 0 there. Empty: it depends on signs.
        reach: Where a result has left the range of float64.
        noise: (value, operands, unit roundoff) The scale of a rounding in the declared type.
        folds: Whether runtimes fold it, in the declared type, where all operands are constants.
    """

    name: str
    arity: int
    value: Callable[..., Any]
    bound: bounds.Bound
    rounding: Rounding
    slope: Slope | None = None
    edge: Callable[[Any], Any] | None = None
    jumps: bool = True
    parity: Literal["", "odd", "even", "reciprocal"] = ""
    commutative: bool = False
    rational: bool = False
    mask: Literal["", "any", "all", "factor", "zero"] = ""
    reach: Reach = Reach()
    noise: Callable[[Any, Any, float], Any] = lambda value, xs, unit: np.abs(value)
    folds: bool = False

    @property
    def total(self) -> bool:
        """Whether it is defined at all finite operands."""
        return self.reach.overflow is _finite

    @property
    def steep(self) -> bool:
        """Whether operands of a thousand are too large for it."""
        with np.errstate(all="ignore"):
            return bool(np.isinf(self.value(*[np.full(1, 1e3)] * max(self.arity, 1))).any())


EXACTLY, CORRECTLY, NEARLY = Rounding(0, 0.0), Rounding(1, U), Rounding(4, FN)


def _finite(*xs: Any) -> Any:
    return functools.reduce(np.logical_and, map(np.isfinite, xs))


def _apart_from_0(a: Any, *_: Any) -> Any:
    return a != 0


# Where an infinite result is too large for float64: of finite operands; nowhere (it is undefined).
TOTAL, PARTIAL = Reach(_finite, nowhere), Reach(nowhere, nowhere)


def _zero(x: Any) -> Any:
    return np.zeros(np.shape(x))


def chosen(value: Any, *xs: Any) -> tuple[Any, ...]:
    """The first operand that is the result has all of the slope."""
    partials, taken = [], np.zeros(np.shape(value), bool)
    for x in xs:
        partials.append(((x == value) & ~taken).astype(np.float64))
        taken = taken | (x == value)
    return tuple(partials)


def _if_not_held(value: Any, xs: Any, unit: float) -> Any:
    return np.where(held(value, unit), 0.0, np.abs(value))


def _scaled(value: Any, xs: Any, unit: float) -> Any:
    """A product with a power of two, the sign included, does not round."""
    if any(x.size == 1 and abs(math.frexp(float(x[0]))[0]) == 0.5 for x in xs):
        return None
    return _if_not_held(value, xs, unit)


def _flat(bound: bounds.Bound) -> Slope:
    """Of a piecewise constant function: 0, but for the places whose error reaches a jump."""
    return Slope(lambda v, a: (np.zeros(1),), lambda r, a: bound(a, r)[1] != 0)


def _smooth(
    name: str,
    value: Callable[..., Any],
    bound: bounds.Bound,
    partials: Callable[..., tuple[Any, ...]],
    parity: Literal["", "odd", "even"] = "",
    *,
    folds: bool = False,
) -> Function:
    """A function without a pole, defined everywhere."""
    return Function(
        name=name, arity=1, value=value, bound=bound, rounding=NEARLY, slope=Slope(partials, nowhere),
        jumps=False, parity=parity, reach=TOTAL, folds=folds,
    )  # fmt: skip


def _bounded(
    name: str,
    value: Callable[..., Any],
    outside: Callable[[Any, Any], Any],
    partials: Callable[..., tuple[Any, ...]],
    pole: Callable[..., Any],
    parity: Literal["", "odd", "even"] = "",
) -> Function:
    """A monotone function on a part of the line, steep at its end."""
    return Function(
        name=name, arity=1, value=value, bound=bounds.within(bounds.monotone(value), outside), rounding=NEARLY,
        slope=Slope(partials, pole), jumps=False, parity=parity, reach=PARTIAL,
    )  # fmt: skip


def _stepped(name: str, value: Callable[..., Any], edge: Callable[[Any], Any]) -> Function:
    """A piecewise constant function."""
    bound = bounds.piecewise(value)
    return Function(
        name=name, arity=1, value=value, bound=bound, rounding=EXACTLY, slope=_flat(bound), edge=edge, reach=TOTAL
    )


def _extreme(name: str, f: Callable[..., Any], mask: Literal["any", "all"]) -> Function:
    return Function(
        name=name, arity=0, value=lambda *xs: functools.reduce(f, xs), bound=bounds.either(f), rounding=EXACTLY,
        slope=Slope(chosen, nowhere, bends=True), edge=_zero, jumps=False, commutative=True, mask=mask, reach=TOTAL,
        folds=True,
    )  # fmt: skip


def _whole(name: str, value: Callable[..., Any], rounding: Rounding) -> Function:
    """A function of integers, known at exact operands alone."""
    return Function(
        name=name, arity=2, value=value, bound=bounds.unknown(value), rounding=rounding,
        reach=Reach(lambda a, b: b != 0, nowhere), noise=_if_not_held,
    )  # fmt: skip


def _one(a: Any, ea: Any) -> Any:
    return np.ones(1)


def _beyond_1(a: Any, ea: Any) -> Any:
    return np.abs(a) - ea > 1


def _near_1(r: Any, a: Any) -> Any:
    return 1 - np.abs(a) <= _POLE * r


def _cosh(a: Any, ea: Any) -> Any:
    return np.cosh(np.abs(a) + ea)


_RECORDS = (
    Function(
        name="add", arity=2, value=np.add, bound=bounds.add, rounding=CORRECTLY,
        slope=Slope(lambda v, a, b: (np.ones(1), np.ones(1)), nowhere),
        jumps=False, commutative=True, rational=True, mask="any", reach=TOTAL, noise=_if_not_held, folds=True,
    ),
    Function(
        name="mul", arity=2, value=np.multiply, bound=bounds.mul, rounding=CORRECTLY,
        slope=Slope(lambda v, a, b: (b, a), nowhere),
        jumps=False, commutative=True, rational=True, mask="factor",
        reach=Reach(_finite, lambda a, b: (a != 0) & (b != 0)), noise=_scaled, folds=True,
    ),
    Function(
        name="recip", arity=1, value=np.reciprocal, bound=bounds.recip, rounding=CORRECTLY,
        slope=Slope(lambda v, a: (-v * v,), lambda r, a: (np.abs(a) <= _POLE * r) & np.isfinite(a)),
        jumps=False, parity="odd", rational=True, reach=Reach(_apart_from_0, nowhere), folds=True,
    ),
    Function(
        name="exp", arity=1, value=np.exp, bound=bounds.exp, rounding=NEARLY,
        slope=Slope(lambda v, a: (v,), lambda r, a: (r * _POLE >= 1) & (a > -700 - r)),
        jumps=False, parity="reciprocal", mask="zero", reach=Reach(_finite, np.isfinite), folds=True,
    ),
    Function(
        name="log", arity=1, value=np.log, bound=bounds.within(bounds.log, lambda a, ea: a + ea < 0),
        rounding=Rounding(4, FN, U), slope=Slope(lambda v, a: (1 / a,), lambda r, a: a <= _POLE * r),
        jumps=False, reach=PARTIAL, folds=True,
    ),
    Function(
        name="sqrt", arity=1, value=np.sqrt, bound=bounds.within(bounds.sqrt, lambda a, ea: a + ea < 0),
        rounding=CORRECTLY, slope=Slope(lambda v, a: (0.5 / v,), lambda r, a: a <= _POLE * r),
        jumps=False, reach=PARTIAL, folds=True,
    ),
    Function(
        name="pow", arity=2, value=np.power, bound=bounds.pow_, rounding=NEARLY,
        slope=Slope(
            lambda v, a, b: (b * v / a, np.where(a > 0, v * np.log(np.abs(a)), 0)),
            lambda r, a, b: (np.abs(a) <= _POLE * r * np.maximum(1, np.abs(b))) & (r > 0),
        ),
        jumps=False, reach=Reach(_apart_from_0, _apart_from_0),
    ),
    Function(
        name="abs", arity=1, value=np.abs, bound=bounds.magnitude, rounding=EXACTLY,
        slope=Slope(lambda v, a: (np.sign(a),), nowhere, bends=True), edge=_zero,
        jumps=False, parity="even", reach=TOTAL, folds=True,
    ),
    _extreme("max", np.maximum, "all"),
    _extreme("min", np.minimum, "any"),
    Function(
        name="pos", arity=1, value=lambda a: (a > 0).astype(np.float64), bound=bounds.step, rounding=EXACTLY,
        slope=_flat(bounds.step), edge=_zero, reach=TOTAL, folds=True,
    ),
    _stepped("floor", np.floor, np.rint),
    _stepped("ceil", np.ceil, np.rint),
    _stepped("round", np.rint, lambda x: np.floor(x) + 0.5),
    _smooth(
        "erf", erf, bounds.smooth(erf, lambda a, ea: 1.1283792 * np.exp(-np.square(np.maximum(np.abs(a) - ea, 0)))),
        lambda v, a: (2 / math.sqrt(math.pi) * np.exp(-a * a),), "odd",
    ),
    _smooth(
        "tanh", np.tanh,
        bounds.smooth(
            np.tanh,
            lambda a, ea: 1 / np.square(np.cosh(np.minimum(np.maximum(np.abs(a) - ea, 0), 300))) + FN,
        ),
        lambda v, a: (1 - v * v,), "odd", folds=True,
    ),
    _smooth("sin", np.sin, bounds.smooth(np.sin, _one), lambda v, a: (np.cos(a),), "odd"),
    _smooth("cos", np.cos, bounds.smooth(np.cos, _one), lambda v, a: (-np.sin(a),), "even"),
    _smooth("atan", np.arctan, bounds.smooth(np.arctan, _one), lambda v, a: (1 / (1 + a * a),), "odd"),
    _smooth("sinh", np.sinh, bounds.smooth(np.sinh, _cosh), lambda v, a: (np.cosh(a),), "odd"),
    _smooth("cosh", np.cosh, bounds.smooth(np.cosh, _cosh), lambda v, a: (np.sinh(a),), "even"),
    _smooth("asinh", np.arcsinh, bounds.smooth(np.arcsinh, _one), lambda v, a: (1 / np.sqrt(1 + a * a),), "odd"),
    Function(
        name="tan", arity=1, value=np.tan, bound=bounds.tan, rounding=NEARLY,
        slope=Slope(lambda v, a: (1 + v * v,), lambda r, a: np.abs(np.cos(a)) <= _POLE * r),
        jumps=False, parity="odd", reach=TOTAL,
    ),
    _bounded("asin", np.arcsin, _beyond_1, lambda v, a: (1 / np.sqrt(1 - a * a),), _near_1, "odd"),
    _bounded("acos", np.arccos, _beyond_1, lambda v, a: (-1 / np.sqrt(1 - a * a),), _near_1),
    _bounded("atanh", np.arctanh, _beyond_1, lambda v, a: (1 / (1 - a * a),), _near_1, "odd"),
    _bounded(
        "acosh", np.arccosh, lambda a, ea: a + ea < 1, lambda v, a: (1 / np.sqrt(a * a - 1),),
        lambda r, a: a - 1 <= _POLE * r,
    ),
    Function(
        name="masking", arity=1, value=lambda a: bounds.masking(a, 0.0)[0], bound=bounds.masking, rounding=EXACTLY,
        slope=_flat(bounds.masking), reach=PARTIAL,
    ),
    Function(  # a number that runtimes compute, to within another one
        name="about", arity=2, value=lambda a, b: a + 0 * b, bound=lambda a, ea, b, eb: (a, ea), rounding=EXACTLY,
        slope=Slope(lambda v, a, b: (np.ones(1), np.zeros(1)), nowhere), jumps=False, reach=TOTAL,
    ),
    _whole("mod", np.mod, Rounding(0, FN)),
    _whole("fmod", np.fmod, Rounding(0, FN)),
    _whole("intdiv", lambda a, b: np.trunc(a / b), NEARLY),
)  # fmt: skip
FUNCTIONS = {record.name: record for record in _RECORDS}


def _cast(name: str, dtype: np.dtype[Any]) -> Function:
    """Float to integer truncates (undefined outside of the type); to a narrower float rounds, a float8 saturates."""
    bound = bounds.cast(dtype)
    return Function(
        name=name, arity=1, value=bounds.converted(dtype), bound=bound, rounding=EXACTLY, slope=_flat(bound),
        edge=np.rint, reach=TOTAL,
    )  # fmt: skip


def _wrap(name: str, dtype: np.dtype[Any]) -> Function:
    """Integer to integer, modulo the size of the type."""
    ends = bounds.limits(dtype)
    if ends is None:
        raise LookupError(name)
    low, count = ends[0], ends[1] - ends[0] + 1

    def value(a: Any) -> Any:
        return np.where((a >= low) & (a < low + count), a, np.mod(a - low, count) + low)

    return Function(name=name, arity=1, value=value, bound=bounds.wrap(low, count), rounding=EXACTLY, reach=TOTAL)


def _saturate(name: str, dtype: np.dtype[Any]) -> Function:
    """The nearest number of the type; integers are rounded before."""
    ends = bounds.limits(dtype)
    if ends is None:
        return dataclasses.replace(_cast(name, dtype), slope=None, edge=None)
    return Function(
        name=name, arity=1, value=lambda a: np.clip(a, *ends), bound=lambda a, ea: (np.clip(a, *ends), ea),
        rounding=EXACTLY, reach=TOTAL,
    )  # fmt: skip


def _near(name: str, dtype: np.dtype[Any]) -> Function:
    """A number that was rounded to an integer of the type: an unknown function of that one, near to it."""
    return Function(
        name=name, arity=1, value=lambda a: a, bound=lambda a, ea: (a, ea), rounding=EXACTLY,
        slope=Slope(lambda v, a: (np.ones(1),), nowhere), jumps=False, reach=TOTAL,
    )  # fmt: skip


FAMILIES = {"cast": _cast, "wrap": _wrap, "saturate": _saturate, "near": _near}


def function(name: str) -> Function:
    """The record of a function; raises :class:`UnknownFunction` if there is none."""
    return FUNCTIONS[name] if name in FUNCTIONS else _of_type(name)


@functools.cache
def _of_type(name: str) -> Function:
    family, _, dtype = name.partition(":")
    try:
        return FAMILIES[family](name, bounds.dtype_of(dtype))
    except LookupError:
        raise UnknownFunction(name) from None
