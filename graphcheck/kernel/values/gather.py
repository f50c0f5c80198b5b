"""Values moved by a map: through strided views where the map has a form, so that no table of its indices is made."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.lib.stride_tricks import as_strided

from graphcheck.kernel.terms.maps import Map
from graphcheck.kernel.terms.strided import Guard, Strided

PIECES = 1024  # of a guarded box that are copied one after the other
_MANY = 100_000  # elements that are copied through views, however many more there are


def picked(parts: Sequence[np.ndarray], map_: Map) -> np.ndarray:
    """[..., size]: elements of arrays [..., n], laid end to end, by a map; 0 where it is 0."""
    if len(parts) > 1:
        parts = [np.concatenate(parts, axis=-1)]
    table, form = parts[0], map_.form
    if form is not None and map_.size >= min(table.shape[-1], _MANY) and (found := _viewed(table, form)) is not None:
        return found
    index = map_.index
    if map_.has_zero and map_.size >= table.shape[-1]:
        zero = np.zeros((*table.shape[:-1], 1), table.dtype)
        return np.take(np.concatenate([zero, table], axis=-1), index, axis=-1)
    picks = np.take(table, np.maximum(index, 1) - 1, axis=-1)
    if map_.has_zero:
        picks[..., index == 0] = 0
    return np.asarray(picks)


def _viewed(table: np.ndarray, form: Strided) -> np.ndarray | None:
    """The elements by strided views; None where the guards leave no few boxes of them."""
    lead = table.shape[:-1]
    if not form.guards:
        return view(table, form.start, form.box, form.strides).reshape(*lead, -1)
    fixed = fixed_digits(form.box, form.guards)
    if math.prod(form.box[j] for j in fixed) > PIECES:
        return None
    out = np.zeros((*lead, *form.box), table.dtype)
    for places, start, box in boxes(form, fixed):
        out[(slice(None),) * len(lead) + places] = view(table, start, box, form.strides)
    return out.reshape(*lead, -1)


def boxes(form: Strided, fixed: Sequence[int]) -> Iterator[tuple[tuple[slice, ...], int, list[int]]]:
    """(slices of the box, first source element, lengths) of the boxes that the guards leave, one for each choice of the
    ``fixed`` digits."""
    for values in itertools.product(*(range(form.box[j]) for j in fixed)):
        held = [range(n) for n in form.box]
        for j, value in zip(fixed, values, strict=True):
            held[j] = range(value, value + 1)
        if all(_narrow(held, fixed, guard) for guard in form.guards):
            start = form.start + sum(stride * digit.start for stride, digit in zip(form.strides, held, strict=True))
            yield tuple(slice(digit.start, digit.stop) for digit in held), start, [len(digit) for digit in held]


def view(
    table: np.ndarray, start: int, box: Sequence[int], strides: Sequence[int], *, writeable: bool = False
) -> np.ndarray:
    """[..., *box] of [..., n], without a copy."""
    step = table.strides[-1]
    steps = (*table.strides[:-1], *(s * step for s in strides))
    return as_strided(table[..., start:], (*table.shape[:-1], *box), steps, writeable=writeable)


def fixed_digits(box: Sequence[int], guards: Sequence[Guard]) -> list[int]:
    """Digits, the smallest first, after whose choice every guard bounds one digit at most."""
    fixed: list[int] = []
    for coefficients, _, _ in guards:
        free = sorted((j for j, c in enumerate(coefficients) if c and j not in fixed), key=lambda j: box[j])
        fixed += free[:-1]
    return fixed


def _narrow(held: list[range], fixed: Sequence[int], guard: Guard) -> bool:
    """Leave of the one digit that is not ``fixed`` what a guard lets through; whether anything is left."""
    coefficients, low, high = guard
    value = sum(coefficients[j] * held[j].start for j in fixed)
    for j in (j for j, c in enumerate(coefficients) if c and j not in fixed):
        c, ends = coefficients[j], (low - value, high - value)
        least, most = (-(-ends[0] // c), ends[1] // c) if c > 0 else (-(-ends[1] // c), ends[0] // c)
        held[j] = range(max(held[j].start, least), min(held[j].stop, most + 1))
        return bool(held[j])
    return low <= value <= high
