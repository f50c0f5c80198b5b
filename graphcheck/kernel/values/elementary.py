"""Elementary functions that numpy lacks, vectorised."""

from __future__ import annotations

import functools
import math

import numpy as np

_STEP, _END, _ORDER = 1 / 256, 6.0, 6  # erf(6) is 1 in float64
_BLOCK = 2**14  # elements at a time, which a cache holds


@functools.cache
def _erf_table() -> np.ndarray:
    """Taylor coefficients of erf at multiples of the step: [points, order + 1].

    The derivatives are 2 / sqrt(pi) * exp(-x**2) times Hermite polynomials (DLMF 7.10.1); the first term left out is below
    1e-20.
    """
    x = np.arange(0, _END + 2 * _STEP, _STEP)
    rows = [np.array([math.erf(v) for v in x])]
    hermite = [np.ones_like(x), 2 * x]
    for n in range(1, _ORDER):
        hermite.append(2 * x * hermite[-1] - 2 * n * hermite[-2])
    weight = 2 / math.sqrt(math.pi) * np.exp(-x * x)
    rows += [(-1) ** k * hermite[k] * weight / math.factorial(k + 1) for k in range(_ORDER)]
    return np.stack(rows, axis=1)


def erf(x: np.ndarray) -> np.ndarray:
    """The error function, elementwise; float64, within a few ulps of 1."""
    flat, found, columns = np.ravel(x), np.empty(np.size(x)), np.ascontiguousarray(_erf_table().T)
    for part, to in ((a[i : i + _BLOCK] for a in (flat, found)) for i in range(0, flat.size, _BLOCK)):
        offset = np.minimum(np.abs(part), _END)
        at = np.nan_to_num(np.rint(offset / _STEP)).astype(np.intp)
        offset -= at * _STEP
        total = columns[_ORDER].take(at)
        for column in columns[_ORDER - 1 :: -1]:
            total *= offset
            total += column.take(at)
        np.copysign(total, part, out=to)
    return found.reshape(np.shape(x))
