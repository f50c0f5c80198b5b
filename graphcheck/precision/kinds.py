"""The types that a copy computes in: their largest and least numbers, and what they make of a real number."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from graphcheck.kernel.values.bounds import converted, limits


@dataclasses.dataclass(frozen=True)
class Kind:
    """A floating type narrower than float32, or an integer type that a quantizer writes.

    Attributes:
        dtype: The type.
        low: The least number.
        high: The largest number.
        over: A magnitude from which on a number rounds to infinity; infinite for integers, which are cut.
        normal: The least normal number; 0 for integers.
        least: The least number above 0; 1 for integers.
        unit: The unit roundoff; 0 for integers.
    """

    dtype: np.dtype[Any]
    low: float
    high: float
    over: float
    normal: float
    least: float
    unit: float

    @property
    def name(self) -> str:
        """As ONNX has it, in lower case."""
        return str(self.dtype.name)

    @property
    def is_float(self) -> bool:
        """Whether it is a floating type."""
        return bool(self.unit)

    def rounded(self, values: np.ndarray) -> np.ndarray:
        """What the type makes of each, in float64: to nearest even, integers cut to their ends; a float keeps its exponent where
        it would be infinite, so that an overflow does not hide what comes behind it."""
        with np.errstate(all="ignore"):
            if not self.is_float:
                return np.asarray(np.clip(np.rint(values), self.low, self.high))
            near = converted(self.dtype)(values)
            far = np.isinf(near) & np.isfinite(values)
            if far.any():
                part, power = np.frexp(values)
                near = np.where(far, np.ldexp(np.rint(part / self.unit) * self.unit, power), near)
            return np.asarray(near)

    def room(self, values: np.ndarray) -> np.ndarray:
        """The farthest that rounding to nearest moves each: half the spacing at its magnitude, or half a step."""
        if not self.is_float:
            return np.full(np.shape(values), 0.5)
        power = np.frexp(np.abs(values))[1]
        return np.asarray(np.maximum(np.ldexp(self.unit, power - 1), self.least / 2))


@functools.cache
def of(dtype: np.dtype[Any]) -> Kind | None:
    """The kind of a type; None for float32 and float64, booleans and whole numbers of more than 16 bits."""
    import ml_dtypes

    ends = limits(dtype)
    if ends is not None:
        return Kind(dtype, *ends, np.inf, 0.0, 1.0, 0.0) if ends[1] < 2**16 else None
    if dtype.kind in "bOSUTc" or dtype.itemsize > 2:
        return None
    info = ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]
    high, unit = float(info.max), float(info.eps) / 2
    over = high * (1 + unit / (2 - 2 * unit)) if dtype.itemsize == 2 else np.inf  # a float8 saturates
    return Kind(dtype, -high, high, over, float(info.smallest_normal), float(info.smallest_subnormal), unit)
