"""Large windows of a Conv, made a few rows at a time where a contraction reads them; what movement and products carry back."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from graphcheck.kernel.terms.maps import Map
from graphcheck.kernel.terms.pieces import BOXES, boxes, fixed_digits
from graphcheck.kernel.terms.strided import Strided
from graphcheck.kernel.terms.verbs import Contract
from graphcheck.kernel.values.gather import picked, view
from graphcheck.kernel.values.windows import block, blocks

_LESS = 4  # times as many elements that are worth more than to find the places of some


@dataclasses.dataclass(frozen=True, slots=True)
class Late:
    """What a map makes of a ``source``, or of several laid end to end; numpy makes all of it where it is asked for."""

    source: np.ndarray
    map: Map

    @property
    def size(self) -> int:
        """Elements of all of it."""
        return self.map.size

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        made = picked([self.source], self.map)
        return made if dtype is None else made.astype(dtype, copy=False)

    def through(self, map_: Map) -> np.ndarray:
        """What another map makes of it; of all of it only where that is not much less."""
        if map_.size > self.size // _LESS:
            return picked([np.asarray(self)], map_)
        index = map_.index
        return picked([self.source], Map(None, np.where(index > 0, self.map.at(np.maximum(index, 1) - 1), 0), b""))

    def rows(self, width: int, dtype: Any = np.float64) -> Iterator[tuple[slice, np.ndarray]]:
        """The windows as [rows, width], in blocks of rows, in float64 or another type; often column by column in memory."""
        source = self.source.astype(dtype, copy=False)
        for at, part, across in cut(self.map, width):
            made = picked([source], across or part)
            yield at, made.reshape(width, -1).T if across else made.reshape(-1, width)


def wide(value: Any) -> np.ndarray:
    """All values; those of steps, which are kept as booleans, in float64."""
    found = np.asarray(value)
    return found.astype(np.float64) if found.dtype == np.bool_ else found


def cut(map_: Map, width: int) -> Iterable[tuple[slice, Map, Map | None]]:
    """Blocks of rows with their maps, and those turned; of forms they are kept, since each evaluation reads them anew."""
    return _cut(map_, width) if map_.pieces is not None else ((at, part, None) for at, part in blocks(map_, width))


@functools.lru_cache(128)
def _cut(map_: Map, width: int) -> tuple[tuple[slice, Map, Map | None], ...]:
    return tuple((at, part, turned(part, width)) for at, part in blocks(map_, width))


def turned(map_: Map, width: int) -> Map | None:
    """The map of [width, rows] to that of [rows, width]; None where it does not run on longer along the rows: neighbours in an
    image are so in many windows, and in one of them but for a few columns."""
    found = []
    for form in map_.pieces or ():
        ends = [at for at in range(1, len(form.box)) if math.prod(form.box[at:]) == width]
        if not ends or form.box[ends[0] - 1] <= form.box[-1]:
            return None
        at = ends[0]
        guards = tuple(((*row[at:], *row[:at]), low, high) for row, low, high in form.guards)
        box, strides = (*form.box[at:], *form.box[:at]), (*form.strides[at:], *form.strides[:at])
        found.append(Strided(box, form.start, strides, guards))
    return Map(tuple(found), None, b"") if found else None


def added(total: np.ndarray, form: Strided, values: np.ndarray) -> bool:
    """Add values at the places that a form reads them from; False, and nothing done, where that takes too many boxes."""
    guarded = [any(row) for row in zip(*(c for c, _, _ in form.guards), strict=True)] or [False] * len(form.box)
    again = tuple(j for j, stride in enumerate(form.strides) if not stride and not guarded[j])  # one element, read often
    table = values.reshape(form.box)
    table = table.sum(axis=again, keepdims=True) if again else table
    form = dataclasses.replace(form, box=table.shape)
    fixed = fixed_digits(form.box, form.guards)
    span = 0
    for j in sorted((j for j in range(len(form.box)) if j not in fixed), key=lambda j: abs(form.strides[j])):
        if form.box[j] == 1 or abs(form.strides[j]) > span:
            span += abs(form.strides[j]) * (form.box[j] - 1)
        else:  # two of them would meet
            fixed.append(j)
    if math.prod(form.box[j] for j in fixed) > BOXES:
        return False
    for places, start, box in boxes(form, fixed):
        view(total, start, box, form.strides, writeable=True)[...] += table[places]
    return True


def add(total: np.ndarray, map_: Map, values: np.ndarray) -> None:
    """Add values at the places that a map reads them from."""
    values = values.reshape(-1)
    for form in map_.pieces or ():
        if not added(total, form, values):
            _counted(total, form.index(), values)
    if map_.pieces is None:
        _counted(total, map_.index, values)


def _counted(total: np.ndarray, index: np.ndarray, values: np.ndarray) -> None:
    """Add values at 1-based places, one by one; what is at 0 is left out."""
    read = index > 0
    index, values = (index, values) if read.all() else (index[read], values[read])
    if index.size:
        first = int(index.min())
        found = np.bincount(index - first, values)
        total[first - 1 : first - 1 + found.size] += found


def pulled(map_: Map, slope: np.ndarray, sizes: list[int]) -> list[np.ndarray]:
    """The derivatives towards the sources of a movement, given those towards its result."""
    total: np.ndarray = np.zeros(sum(sizes))
    add(total, map_, slope)
    return list(np.split(total, np.cumsum(sizes)[:-1]))


def lengths(verb: Contract, a: Any, b: np.ndarray, dtype: Any = np.float64) -> tuple[np.ndarray, np.ndarray]:
    """The Euclidean lengths of the rows of a first operand, [batches, m], and of the columns of a second, [batches, n]; windows
    are read in a type."""
    table = b.reshape(verb.batches[1], *((verb.k, verb.n) if verb.kn else (verb.n, verb.k)))
    columns = np.einsum("bkn,bkn->bn" if verb.kn else "bnk,bnk->bn", table, table)
    return np.sqrt(_squares(a, verb.k, dtype)).reshape(verb.batches[0], verb.m), np.sqrt(columns)


def _squares(windows: Any, k: int, dtype: Any) -> np.ndarray:
    """The sum of the squares of each row."""
    if not isinstance(windows, Late):
        return _squared(windows.reshape(-1, k))
    return np.concatenate([_squared(rows) for _, rows in windows.rows(k, dtype)])


def _squared(table: np.ndarray) -> np.ndarray:
    return np.asarray(np.einsum("mk,mk->m", table, table))


def _through_windows(verb: Contract, slope: np.ndarray, windows: Late, b: np.ndarray, fixed: bool) -> list[np.ndarray | None]:
    """The derivatives towards the source of the windows, and towards the other operand."""
    up = slope.reshape(-1, verb.n)
    table = b.reshape(verb.batches[1], *((verb.k, verb.n) if verb.kn else (verb.n, verb.k)))
    total, to_b = np.zeros(windows.source.size), np.zeros(table.shape)
    for at, part, across in cut(windows.map, verb.k):
        batches, some = block(verb, at)
        back = table[batches].swapaxes(1, 2) if verb.kn else table[batches]
        ahead = up[at].reshape(-1, some.m, verb.n)
        if across is None:
            add(total, part, ahead @ back)
        else:
            add(total, across, (back.swapaxes(1, 2) @ ahead.swapaxes(1, 2)).swapaxes(0, 1))
    for at, rows in () if fixed else windows.rows(verb.k):
        batches, some = block(verb, at)
        a, to_a = rows.reshape(-1, some.m, verb.k), up[at].reshape(-1, some.m, verb.n)
        to_b[batches] += a.swapaxes(1, 2) @ to_a if verb.kn else to_a.swapaxes(1, 2) @ a
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
