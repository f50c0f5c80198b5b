"""How far two arrays that should be equal are apart, in every measure that people ask for; pure numpy, no verdict.

Deviations are over the elements where both sides are finite. Where both are NaN, or the same infinity, they agree;
where only one is, no tolerance passes. Relative deviations are relative to A, the reference.

What is told element by element is told a part after the other: of a whole output it would be ten times its memory.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np

Array = np.ndarray[Any, Any]
_TOP_K, _MOST_RANKED = (
    (1, 5),
    1_000_000,
)  # larger outputs than that are no rows of scores, but for those of rank 1 and 2
_PART = 1 << 16  # elements
_BITS: dict[int, Any] = {2: np.int16, 4: np.int32, 8: np.int64}
_LARGEST = float(np.finfo(np.float64).max)  # stands for what float64 cannot hold, since JSON has no infinity


def compare_arrays(a: Array, b: Array) -> dict[str, Any]:
    """The numbers of one output pair as plain data, ready for JSON (null where a measure has no meaning).

    ``max_abs``, ``mean_abs``, ``p50_abs``, ``p99_abs``; ``max_rel`` (elements of A that are not 0); ``max_ulp``
    elementwise and ``scale_ulp``, the largest deviation in ulps of the largest magnitude, both in the coarser of two
    float dtypes; ``min_atol`` at rtol 0 and ``min_rtol`` at atol 0, the smallest that would pass; ``cosine``; ``nan_*``
    and ``inf_*`` counts and whether they coincide; ``unequal`` elements; ``top_k`` agreement of rows; ``histogram`` of
    deviations by decade, [[lower edge, count], ...]. Arrays of unequal shapes give only those, and null elsewhere.
    """
    result: dict[str, Any] = dict.fromkeys(
        "max_abs max_rel max_ulp scale_ulp mean_abs p50_abs p99_abs cosine min_atol min_rtol unequal top_k".split()  # noqa: SIM905
    )
    result |= {"dtype": _name(a.dtype), "dtype_b": _name(b.dtype), "shape": list(a.shape), "shape_b": list(b.shape)}
    result |= {
        "nan_a": 0,
        "nan_b": 0,
        "inf_a": 0,
        "inf_b": 0,
        "nan_coincide": True,
        "inf_coincide": True,
        "histogram": [],
    }
    if a.shape != b.shape:
        return result
    if a.dtype.kind in "OSUT" or b.dtype.kind in "OSUT":
        return result | {"unequal": int(np.count_nonzero(a != b))}
    dtype = coarser(a.dtype, b.dtype)
    x, y = _wide(a).reshape(-1), _wide(b).reshape(-1)
    finite = _special_values(x, y, result)
    result["unequal"] = int(np.count_nonzero((x != y) & ~(np.isnan(x) & np.isnan(y))))
    with np.errstate(over="ignore"):
        deviation = _deviation(a.reshape(-1), b.reshape(-1), x, y)
    some = slice(None) if finite.all() else finite  # all of them are no copy
    x, y, deviation = x[some], y[some], deviation[some]
    if x.size:
        result |= _deviations(x, deviation)
        result["cosine"] = _cosine(x, y)
        if dtype is not None:
            pairs = parts(a.reshape(-1)[some], b.reshape(-1)[some])
            result["max_ulp"] = max(float(ulps(one, other, dtype).max()) for one, other in pairs)
            scale = max(_magnitude(x), _magnitude(y))
            result["scale_ulp"] = min(float(result["max_abs"] / spacing(scale, dtype)), _LARGEST)
    if not (result["nan_coincide"] and result["inf_coincide"]):
        result["min_atol"] = result["min_rtol"] = None
    elif not x.size:
        result["min_atol"] = result["min_rtol"] = 0.0
    result["top_k"] = _top_k(a, b)
    return result


def parts(*arrays: Array) -> Iterator[list[Array]]:
    """Arrays of one length, a part of each at a time."""
    for at in range(0, len(arrays[0]), _PART):
        yield [array[at : at + _PART] for array in arrays]


def _magnitude(x: Array) -> float:
    return float(max(x.max(), -x.min()))


def vacuous(name: str, a: Array, b: Array) -> list[str]:
    """Why agreement on this output would mean little: no elements, all zero, all NaN, or all the same value."""
    if a.size == 0 and b.size == 0:
        return [f"output {name!r} has no elements: there was nothing to compare"]
    warnings = []
    for side, array in (("A", a), ("B", b)):
        if array.size == 0 or array.dtype.kind in "OSUT":
            continue
        wide = _wide(array)
        if np.isnan(wide).all():
            warnings.append(f"output {name!r} of {side} is NaN everywhere: equal NaNs show nothing")
        elif not wide.any():
            warnings.append(f"output {name!r} of {side} is zero everywhere: the comparison is vacuous")
        elif array.size > 1 and (wide == wide.flat[0]).all():
            warnings.append(
                f"output {name!r} of {side} is {wide.flat[0]:.6g} everywhere: the comparison is near vacuous"
            )
    return warnings


def coarser(a: np.dtype[Any], b: np.dtype[Any]) -> np.dtype[Any] | None:
    """The float dtype of fewer digits; None if neither is a float of 2 bytes or more."""
    floats = [dtype for dtype in (a, b) if is_float(dtype)]
    return max(floats, key=lambda dtype: float(_finfo(dtype).eps), default=None)


def ulps(a: Array, b: Array, dtype: np.dtype[Any]) -> Array:
    """Elementwise distance in representable numbers of ``dtype`` (float64 array); -0 and 0 are the same number."""
    with np.errstate(over="ignore"):
        x, y = (_ordered(array.astype(dtype)) for array in (a, b))
    # As unsigned differences, which cannot overflow: two finite float64 may lie 2^63 and more apart.
    distance = np.where(x > y, x, y).view(np.uint64) - np.where(x > y, y, x).view(np.uint64)
    return distance.astype(np.float64)


def spacing(magnitude: float, dtype: np.dtype[Any]) -> float:
    """The distance from ``magnitude`` to the next larger number of ``dtype``; of 0, the smallest subnormal."""
    info = _finfo(dtype)
    smallest = float(info.smallest_subnormal)
    if magnitude == 0:
        return smallest
    return max(float(np.ldexp(float(info.eps), int(np.frexp(magnitude)[1]) - 1)), smallest)


def _name(dtype: np.dtype[Any]) -> str:
    return {"float32": "float", "float64": "double", "object": "string"}.get(dtype.name, dtype.name)


def _finfo(dtype: np.dtype[Any]) -> Any:
    return ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether a type is a float of 2, 4 or 8 bytes."""
    return dtype.itemsize in _BITS and (dtype.kind == "f" or dtype.name == "bfloat16")


def _wide(array: Array) -> Array:
    """In float64 (complex128 for complex numbers, viewed as pairs of floats)."""
    if array.dtype.kind == "c":
        return np.ascontiguousarray(array.astype(np.complex128)).view(np.float64)
    return array.astype(np.float64)


def _special_values(x: Array, y: Array, result: dict[str, Any]) -> Array:
    """Fills in the counts of NaN and infinities; returns the mask of elements where both are finite."""
    nan_x, nan_y, inf_x, inf_y = np.isnan(x), np.isnan(y), np.isinf(x), np.isinf(y)
    result |= {
        "nan_a": int(nan_x.sum()),
        "nan_b": int(nan_y.sum()),
        "inf_a": int(inf_x.sum()),
        "inf_b": int(inf_y.sum()),
    }
    result["nan_coincide"] = bool((nan_x == nan_y).all())
    infinite = inf_x | inf_y
    result["inf_coincide"] = bool((x[infinite] == y[infinite]).all())
    return np.asarray(~(nan_x | nan_y | infinite))


def _deviation(a: Array, b: Array, x: Array, y: Array) -> Array:
    """|a - b| in float64; of integers exact before rounding, since float64 cannot tell large int64 apart."""
    if a.dtype.kind in "iu" and a.dtype == b.dtype:
        larger, smaller = np.where(a > b, a, b), np.where(a > b, b, a)
        return (larger.astype(np.uint64) - smaller.astype(np.uint64)).astype(np.float64)
    with np.errstate(invalid="ignore"):
        found = x - y
    np.abs(found, out=found)
    return np.asarray(np.minimum(found, _LARGEST, out=found))


def _deviations(x: Array, deviation: Array) -> dict[str, Any]:
    p50, p99 = (_quantile(deviation, share) for share in (0.5, 0.99))
    max_abs, max_rel, hopeless = float(deviation.max()), -1.0, False
    for size, moved in parts(x, deviation):
        nonzero = size != 0
        with np.errstate(over="ignore"):
            relative = np.minimum(moved[nonzero] / np.abs(size[nonzero]), _LARGEST)
        max_rel = float(relative.max(initial=max_rel))
        hopeless |= bool((moved[~nonzero] > 0).any())  # no relative tolerance lets a number pass for 0
    return {
        "max_abs": max_abs,
        "max_rel": max_rel if max_rel >= 0 else None,
        "mean_abs": float((deviation / deviation.size).sum()),
        "p50_abs": p50,
        "p99_abs": p99,
        "min_atol": max_abs,
        "min_rtol": None if hopeless else max(max_rel, 0.0),
        "histogram": _histogram(deviation),
    }


def _quantile(x: Array, share: float) -> float:
    """As numpy's, by lines between neighbours, but that would import numpy.ma."""
    below, rest = divmod(share * (x.size - 1), 1)
    places = [int(below), min(int(below) + 1, x.size - 1)]
    low, high = np.partition(x, places)[places].tolist()
    return float(low + rest * (high - low))


def _histogram(deviation: Array) -> list[list[float]]:
    """[[lower edge, count], ...] over decades, with the exact zeros first, under edge 0."""
    found: collections.Counter[int] = collections.Counter()
    for (part,) in parts(deviation):
        decades, counts = np.unique(np.floor(np.log10(part[part > 0])).astype(int), return_counts=True)
        found.update(dict(zip(decades.tolist(), counts.tolist(), strict=True)))
    zeros = deviation.size - found.total()
    rows: list[list[float]] = [[0.0, zeros]] if zeros else []
    return rows + [[float(f"1e{decade}"), count] for decade, count in sorted(found.items())]


def _cosine(x: Array, y: Array) -> float | None:
    scales = [_magnitude(side) for side in (x, y)]
    if 0 in scales:
        return None
    sums = np.zeros(3)
    for each in parts(x, y):
        u, v = (part / scale for part, scale in zip(each, scales, strict=True))  # so that no square overflows
        sums += u @ v, u @ u, v @ v
    return float(np.clip(sums[0] / np.sqrt(sums[1] * sums[2]), -1, 1))


def _ordered(array: Array) -> Array:
    """Floats as int64 in the same order, neighbours one apart (two's complement of sign and magnitude)."""
    kind = _BITS[array.dtype.itemsize]
    bits = np.ascontiguousarray(array).view(kind).astype(np.int64)
    lowest = int(np.iinfo(kind).min)
    return np.asarray(np.where(bits < 0, lowest - bits, bits))


def _top_k(a: Array, b: Array) -> dict[str, float] | None:
    """Fraction of rows (last axis) whose k largest are the same set."""
    if a.ndim == 0 or (a.ndim > 2 and a.size > _MOST_RANKED) or a.size == 0 or a.shape[-1] < 2 or a.dtype.kind in "bc":
        return None
    width, agreed = a.shape[-1], dict.fromkeys((k for k in _TOP_K if k < a.shape[-1]), 0)
    rows, step = [side.reshape(-1, width) for side in (a, b)], max(1, _PART // width)
    for at in range(0, len(rows[0]), step):
        x, y = (_wide(side[at : at + step]) for side in rows)
        for k in agreed:
            agreed[k] += int((_largest(x, k) == _largest(y, k)).all(axis=1).sum())
    return {str(k): count / len(rows[0]) for k, count in agreed.items()}


def _largest(rows: Array, k: int) -> Array:
    """Whether an element is one of the k largest of its row, NaN behind all numbers; of equal ones the first. Sorting whole
    rows for it takes ten times as long."""
    rows = -rows
    edge = np.partition(rows, k - 1, axis=1)[:, k - 1 : k]
    before, at = rows < edge, rows == edge
    if (lost := np.isnan(edge)).any():
        before, at = before | lost & ~np.isnan(rows), at | lost & np.isnan(rows)
    return np.asarray(before | at & (np.cumsum(at, axis=1, dtype=np.int32) <= k - before.sum(axis=1, keepdims=True)))
