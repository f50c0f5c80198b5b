"""Large windows of a Conv, made a few rows at a time where a contraction reads them; what movement and products carry back."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from graphcheck.kernel.terms.maps import Map
from graphcheck.kernel.terms.store import Terms
from graphcheck.kernel.terms.strided import Strided, normal
from graphcheck.kernel.terms.verbs import Contract, Move
from graphcheck.kernel.values.gather import PIECES, boxes, fixed_digits, picked, view

_LARGE, _BLOCK = 2_000_000, 1_000_000  # elements of windows that are not made whole, and of those made at a time
_GROWTH = 2  # times the elements of their source


@dataclasses.dataclass(frozen=True, slots=True)
class Late:
    """What a map of a form makes of a ``source``; numpy makes all of it where it is asked for."""

    source: np.ndarray
    map: Map

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        made = picked([self.source], self.map)
        return made if dtype is None else made.astype(dtype, copy=False)

    def rows(self, width: int) -> Iterator[tuple[slice, np.ndarray]]:
        """The windows as [rows, width], in blocks of rows, in float64."""
        form = self.map.form
        assert form is not None
        for at, part in parts(form, width):
            shape = (at.stop - at.start, width)
            made = np.zeros(shape) if part is None else picked([self.source], Map(part, None, b""))
            yield at, made.astype(np.float64, copy=False).reshape(shape)


def is_late(terms: Terms, cls: int) -> bool:
    """Whether a class is large windows of another one."""
    term = terms.terms[cls]
    if not isinstance(term.verb, Move) or len(term.args) != 1 or term.verb.map.form is None:
        return False
    return term.size > max(_LARGE, _GROWTH * terms.size(term.args[0]))


def contracts(verb: object) -> bool:
    """Whether a verb reads its first operand row by row."""
    return isinstance(verb, Contract) and verb.batches == (1, 1)


def parts(form: Strided, width: int) -> Iterator[tuple[slice, Strided | None]]:
    """(rows, their form or None for padding alone): blocks of the rows of [rows, ``width``], cut along the first digits."""
    at = 0
    while at + 1 < len(form.box) and math.prod(form.box[at:]) > _BLOCK and not math.prod(form.box[at + 1 :]) % width:
        at += 1
    at -= bool(at)
    inside = math.prod(form.box[at + 1 :])
    step = form.box[at] if inside % width else max(1, _BLOCK // inside)
    row = 0
    for outer in np.ndindex(*form.box[:at]):
        for first in range(0, form.box[at], step):
            fixed = (*outer, first)
            box = (min(step, form.box[at] - first), *form.box[at + 1 :])
            start = form.start + sum(s * v for s, v in zip(form.strides, fixed, strict=False))
            guards = []
            for coefficients, low, high in form.guards:
                known = sum(c * v for c, v in zip(coefficients, fixed, strict=False))
                guards.append((coefficients[at:], low - known, high - known))
            rows = math.prod(box) // width
            yield slice(row, row + rows), normal(box, start, form.strides[at:], guards)
            row += rows


def added(total: np.ndarray, form: Strided, values: np.ndarray) -> bool:
    """Add values at the places that a form reads them from; False, and nothing done, where that takes too many boxes."""
    guarded = [any(row) for row in zip(*(c for c, _, _ in form.guards), strict=True)] or [False] * len(form.box)
    again = tuple(j for j, stride in enumerate(form.strides) if not stride and not guarded[j])  # one element, read often
    table = values.reshape(form.box).sum(axis=again, keepdims=True)
    form = dataclasses.replace(form, box=table.shape)
    fixed = fixed_digits(form.box, form.guards)
    span = 0
    for j in sorted((j for j in range(len(form.box)) if j not in fixed), key=lambda j: abs(form.strides[j])):
        if form.box[j] == 1 or abs(form.strides[j]) > span:
            span += abs(form.strides[j]) * (form.box[j] - 1)
        else:  # two of them would meet
            fixed.append(j)
    if math.prod(form.box[j] for j in fixed) > PIECES:
        return False
    for places, start, box in boxes(form, fixed):
        view(total, start, box, form.strides, writeable=True)[...] += table[places]
    return True


def pulled(map_: Map, slope: np.ndarray, sizes: list[int]) -> list[np.ndarray]:
    """The derivatives towards the sources of a movement, given those towards its result."""
    total: np.ndarray = np.zeros(sum(sizes))
    if map_.form is None or not added(total, map_.form, slope):
        total = np.bincount(map_.index, slope, 1 + total.size)[1:]
    return list(np.split(total, np.cumsum(sizes)[:-1]))


def lengths(verb: Contract, a: Any, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The Euclidean lengths of the rows of a first operand, [batches, m], and of the columns of a second, [batches, n]."""
    table = b.reshape(verb.batches[1], *((verb.k, verb.n) if verb.kn else (verb.n, verb.k)))
    columns = np.einsum("bkn,bkn->bn" if verb.kn else "bnk,bnk->bn", table, table)
    return np.sqrt(_squares(a, verb.k)).reshape(verb.batches[0], verb.m), np.sqrt(columns)


def _squares(windows: Any, k: int) -> np.ndarray:
    """The sum of the squares of each row."""
    if not isinstance(windows, Late):
        return np.asarray(np.square(windows).reshape(-1, k).sum(axis=1))
    return np.concatenate([np.square(rows).sum(axis=1) for _, rows in windows.rows(k)])


def _through_windows(verb: Contract, slope: np.ndarray, windows: Late, b: np.ndarray, fixed: bool) -> list[np.ndarray | None]:
    """The derivatives towards the source of the windows, and towards the other operand."""
    form, up = windows.map.form, slope.reshape(verb.m, verb.n)
    assert form is not None
    table = b.reshape((verb.k, verb.n) if verb.kn else (verb.n, verb.k))
    total, to_b = np.zeros(windows.source.size), np.zeros(table.shape)
    for at, part in parts(form, verb.k):
        towards = up[at] @ (table.T if verb.kn else table)
        if part is not None and not added(total, part, towards):
            total += np.bincount(Map(part, None, b"").index, towards.reshape(-1), 1 + total.size)[1:]
    for at, rows in () if fixed else windows.rows(verb.k):
        to_b += rows.T @ up[at] if verb.kn else up[at].T @ rows
    return [total, None if fixed else to_b.reshape(-1)]


def contracted_back(verb: Contract, slope: np.ndarray, args: Sequence[Any], fixed: Sequence[bool]) -> list[np.ndarray | None]:
    """The derivatives towards both operands of products (None: a constant), given those towards their results."""
    if isinstance(args[0], Late):
        return _through_windows(verb, slope, args[0], args[1], fixed[1])
    batches, m, n, k, kn = verb.batches, verb.m, verb.n, verb.k, verb.kn
    up = slope.reshape(-1, m, n)
    a = args[0].reshape(batches[0], m, k)
    b = args[1].reshape(batches[1], *((k, n) if kn else (n, k)))
    result: list[np.ndarray | None] = [None, None]
    if not fixed[0]:
        to_a = up @ (b.swapaxes(1, 2) if kn else b)
        result[0] = (to_a.sum(axis=0) if batches[0] == 1 else to_a).reshape(-1)
    if not fixed[1]:
        to_b = a.swapaxes(1, 2) @ up if kn else up.swapaxes(1, 2) @ a
        result[1] = (to_b.sum(axis=0) if batches[1] == 1 else to_b).reshape(-1)
    return result
