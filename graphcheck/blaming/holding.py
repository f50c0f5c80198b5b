"""A dumped tensor held against its exact value: which elements are beyond the bound, and which have none."""

from __future__ import annotations

import dataclasses

import numpy as np

from graphcheck.blaming.arithmetic import Format
from graphcheck.blaming.device import stored
from graphcheck.kernel.values.bounds import limits
from graphcheck.kernel.values.float64 import Real
from graphcheck.precision.program import Result
from graphcheck.precision.walks import largest

_SPREAD = 0.5  # a bound of so much of the largest magnitude, everywhere, judges nothing
_ENDS = 0.99  # of the largest number, where a device saturates in place of an infinity
_BLOCK = 2**14  # elements at a time, which a cache holds


@dataclasses.dataclass(frozen=True)
class Told:
    """Deviation and bound at an element, how many are beyond the bound and how many have none, and the largest magnitude."""

    deviation: float
    bound: float
    where: int
    beyond: int
    unknown: int
    scale: float


Held = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def quickly(result: Result, real: Real, dumped: np.ndarray, store: Format) -> Told | None:
    """What is told of a tensor whose every element has a bound and is within it; None of any other."""
    if limits(result.dtype) is not None or result.dtype.kind == "b":
        return None
    value, radius = real.value, np.broadcast_to(real.error, real.raw.shape)
    best, least, scale = (-1.0, 0.0, 0.0, 0), np.inf, 0.0
    for begin in range(0, value.size, _BLOCK):
        v, r = value[begin : begin + _BLOCK], radius[begin : begin + _BLOCK]
        size = np.abs(v)
        deviation = np.abs(dumped[begin : begin + _BLOCK] - v)
        bound = stored(size, r, store)
        most, top = float(bound.max()), float(size.max())
        if not most + top < store.over or not (deviation <= bound).all():
            return None
        least, scale = min(least, float(bound.min())), max(scale, top)
        ratio = deviation / bound
        at = int(ratio.argmax())
        if ratio[at] > best[0]:
            best = (float(ratio[at]), float(deviation[at]), float(bound[at]), begin + at)
    if not value.size or least >= _SPREAD * scale:
        return None
    return Told(best[1], best[2], best[3], 0, 0, scale)


def told(found: Held, value: np.ndarray) -> Told:
    """The largest deviation beyond the bound, or where its ratio to the bound is largest."""
    beyond, deviation, bound, unknown = found
    ratio = np.where(deviation > 0, deviation / bound, 0.0)
    size = np.where(beyond, deviation, -1.0) if beyond.any() else np.where(unknown, -1.0, ratio)
    at = int(np.argmax(np.where(np.isnan(size), np.inf, size)))
    return Told(float(deviation[at]), float(bound[at]), at, int(beyond.sum()), int(unknown.sum()), largest(value))


def held(
    result: Result, real: Real, dumped: np.ndarray, store: Format, exactly: np.ndarray | None = None
) -> Held | str:
    """Which elements are beyond the bound, their deviations (``exactly``, where float64 does not tell them) and bounds, and which
    have none; or why none is judged."""
    value, radius, kind = real.value, np.broadcast_to(real.error, real.raw.shape), result.kind
    if kind is not None and not kind.is_float:
        value = np.clip(value, kind.low, kind.high)
        bound = radius + 0.5 * (1 + 2.0**-20)
    elif result.dtype.kind in "biu" or limits(result.dtype) is not None:
        bound = radius
    else:
        bound = stored(value, radius, store)
    unknown = ~np.isfinite(bound) | np.isnan(value) | np.isposinf(value)
    if unknown.all():
        return "nothing bounds its rounding" if not np.isnan(value).all() else "its exact value is not a number, or not known"
    deviation = np.abs(dumped - value) if exactly is None else exactly
    masked = np.isneginf(value) & (dumped <= -_ENDS * store.high)
    over = (np.abs(value) + bound >= store.over) & (np.abs(dumped) >= _ENDS * store.high) & (np.sign(dumped) == np.sign(value))
    fine = unknown | masked | over
    deviation = np.where(fine, 0.0, np.where(np.isnan(deviation), np.inf, deviation))
    scale = largest(value)
    judged = ~fine
    loose = judged.any() and scale and bool((bound[judged] >= _SPREAD * scale).all()) and result.dtype.kind not in "biu"
    if loose and not (deviation > bound).any():
        return "rounding alone may make it anything: its bound is as large as its values"
    return deviation > bound, deviation, np.where(fine, np.inf, bound), unknown


def apart(x: np.ndarray, y: np.ndarray) -> float:
    """The largest finite difference."""
    blocks = range(0, x.size, _BLOCK)
    return max((largest(x[at : at + _BLOCK] - y[at : at + _BLOCK]) for at in blocks), default=0.0)
