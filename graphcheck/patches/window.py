"""From an integer map to window geometry: the coordinates that each row picks, told as origins and offsets.

No operator is looked at here. A table ``[rows, columns]`` of source indices is a convolution's im2col exactly when the
coordinates of every row, minus the row's origin, are the same offsets, and the origins are a regular grid.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphcheck import limits
from graphcheck.codes import Coded
from graphcheck.kernel.terms import strided
from graphcheck.kernel.terms.maps import Map
from graphcheck.kernel.terms.strided import Strided

_FEW = 64  # rows of a table that are looked at first


@dataclasses.dataclass(frozen=True)
class Axis:
    """What a source axis is to the window, at one size.

    ``role`` is ``batch`` (the origins cover it step by step, the offset is 0), ``channel`` (the offsets cover it, the
    origin is 0) or ``spatial``; ``origin`` is the first window's begin (negative in padding), ``count`` the number of
    windows, ``kernel``, ``stride`` and ``dilation`` as for Conv; ``end`` the padding behind, where a Conv states it.
    """

    role: str
    size: int
    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    origin: int = 0
    count: int = 1
    end: int | None = None

    @property
    def extent(self) -> int:
        """How many source elements the dilated kernel spans."""
        return (self.kernel - 1) * self.dilation + 1


@dataclasses.dataclass(frozen=True, eq=False)
class WindowMap:
    """A recognised window: its axes, and for the table's rows and columns where they lie on them.

    ``positions`` is int [axes, rows], the window's index along each axis; ``offsets`` int [axes, columns], the index
    within the kernel (spatial) or along the axis (channel); ``used`` bool [columns], False where a column is padding in
    every row, so that its offset is unknown and its weight multiplies nothing.
    """

    axes: tuple[Axis, ...]
    positions: np.ndarray
    offsets: np.ndarray
    used: np.ndarray

    @property
    def on_first_axis(self) -> bool:
        """Whether only the first axis has a kernel above 1: heads merged into the batch look so."""
        return [a for a in self.axes if a.role == "spatial" and a.kernel > 1] == [self.axes[0]]

    @property
    def is_window(self) -> bool:
        """Whether a spatial axis has a kernel above 1; without one this is a plain projection."""
        return any(axis.role == "spatial" and axis.kernel > 1 for axis in self.axes)

    @property
    def is_split(self) -> bool:
        """Whether every kernel takes each count-th element of its whole axis: a Reshape to [kernel, count], no window."""
        kernels = [axis for axis in self.axes if axis.role == "spatial" and axis.kernel > 1]
        return all((a.stride, a.origin, a.dilation, a.kernel * a.dilation) == (1, 0, a.count, a.size) for a in kernels)


class NoWindow(Exception):
    """Why a map is no window; ``reason`` is a refusal's, with its code."""

    def __init__(self, reason: str, code: str = "GC301") -> None:
        self.reason = Coded(reason, code)
        super().__init__(reason)


class _Unlinked(NoWindow):
    """Rows that share no offsets, of which more rows may tell."""


def recognised(map_: Map, width: int, shape: Sequence[int]) -> WindowMap:
    """The window of a map of rows of ``width`` elements into a tensor of ``shape``: read off its form, or off its elements."""
    read = _read(map_.form, map_.size // width, shape) if shape and map_.form is not None else None
    if read is not None:
        return _window(*read, np.ones(width, bool), shape)
    rows = map_.size // max(width, 1)
    if rows > _FEW and shape:  # most tables that are no window are none in a few rows, and coordinates of all rows are large
        few = np.array(sorted({n * 0x9E3779B1 % rows for n in range(_FEW)}))  # np.unique would import numpy.ma
        some = few[:, None] * width + np.arange(width)
        with contextlib.suppress(_Unlinked):  # which the rows between may link
            _fitted(map_.at(some), shape)
    return recognise(map_.index.reshape(-1, width), shape)


def recognise(table: np.ndarray, shape: Sequence[int]) -> WindowMap:
    """The window of a map.

    ``table`` is int [rows, columns], 1-based into a tensor of ``shape``, 0 where the map gives padding. Raises
    :class:`NoWindow` if the offsets differ between rows, if the origins are no regular grid, or if the map has zeros
    where the window lies on the tensor. A plain projection's rows need not be a grid, so they are not checked.
    """
    return _window(*_fitted(table, shape), shape)


def _fitted(table: np.ndarray, shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Offsets and origins of a map, and which columns are known; raises :class:`NoWindow` where it has none."""
    if not table.size or not shape:
        raise NoWindow("the data are empty")
    bounds = limits.current()
    bounds.check_elements(8 * table.size, "a table of windows")
    bounds.check_time()
    valid = table > 0
    offsets, origins, used = _origins_and_offsets(table, valid, shape)
    if not bool(used.all()):
        table, valid, offsets = table[:, used], valid[:, used], offsets[:, used]
    inside = np.ones(valid.shape, bool)
    for axis, size in enumerate(shape):
        if size == 1:  # there is one place, and all are there
            continue
        bounds.check_time()
        at = origins[axis][:, None] + offsets[axis][None, :]
        seen = (table - 1) // math.prod(shape[axis + 1 :]) % size  # one axis at a time: all would be much larger than the table
        if bool((valid & (at != seen)).any()):
            raise NoWindow("the offsets are not the same in every row")
        inside &= (at >= 0) & (at < size)
    if not bool((inside == valid).all()):
        raise NoWindow("the map gives zeros where the window lies on the tensor")
    return offsets, origins, used


def _read(form: Strided, rows: int, shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray] | None:
    """Offsets [axes, columns] and origins [axes, rows] of a form; None where it does not show them.

    The coordinates are linear in the digits of the output, so that the offsets are the same in every row; the guards
    must say that they are inside of ``shape``, and no more.
    """
    cut = strided.cut(form, rows)
    found = None if cut is None else strided.digits(cut.box, cut.start, cut.strides, cut.guards, shape)
    if found is None:
        return None
    box, guards, axes = found
    sizes = np.asarray(shape)[:, None]
    bounds = [(tuple(row), -offset, size - 1 - offset) for (offset, row), size in zip(axes, shape, strict=True)]
    flat = (0,) * len(box)
    if strided.normal(box, 0, flat, guards) != strided.normal(box, 0, flat, bounds):
        return None
    at = len(box)
    while math.prod(box[at:]) * rows < form.size:
        at -= 1
    box = tuple(box)
    origins = np.stack([Strided(box[:at], offset, tuple(row[:at])).index() - 1 for offset, row in axes], dtype=np.int64)
    offsets = np.stack([Strided(box[at:], 0, tuple(row[at:])).index() - 1 for _, row in axes], dtype=np.int64)
    least = offsets.min(axis=1, keepdims=True)
    offsets, origins = offsets - least, origins + least
    if guards:
        taps = [j for _, row in axes for j in range(at, len(box)) if row[j]]
        if len(set(taps)) < len(taps):
            return None  # a digit moves along two axes
        for begin, reach, size in zip(map(values, origins), map(values, offsets), shape, strict=True):
            place = begin[:, None] + reach
            if not bool(((place >= 0) & (place < size)).any(axis=1).all()):
                raise NoWindow("a row consists of padding alone")
        most = offsets.max(axis=1, keepdims=True)
        if not bool(((origins >= 0) & (origins + most < sizes)).all(axis=0).any()):
            return None  # no row has all offsets: they are to be linked through several
    return offsets, origins


def _window(offsets: np.ndarray, origins: np.ndarray, used: np.ndarray, shape: Sequence[int]) -> WindowMap:
    """The window of these offsets and origins."""
    axes, positions, steps = [], [], []
    for axis, size in enumerate(shape):
        made, position, step = _axis(int(size), origins[axis], offsets[axis])
        axes.append(made)
        positions.append(position)
        steps.append(step)
    axes = _name_unit_kernel(_name_unit_channel(axes))
    columns = np.zeros((len(shape), used.size), np.int64)
    columns[:, used] = np.stack(steps)
    window = WindowMap(tuple(axes), np.stack(positions), columns, used)
    if window.is_window:
        _check_grid(window, origins.shape[1])
    return window


def _origins_and_offsets(
    table: np.ndarray, valid: np.ndarray, shape: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Origins [axes, rows], offsets [axes, columns] relative to them (least offset 0), and which columns are known.

    A row without padding gives all offsets at once; otherwise rows and columns are linked through what they share.
    """
    (rows, columns), rank = table.shape, len(shape)

    def coordinates(row: Any, column: Any) -> np.ndarray:
        return np.stack(np.unravel_index(table[row, column] - 1, tuple(shape)))

    if not bool(valid.any(axis=1).all()):
        raise NoWindow("a row consists of padding alone")
    offsets, origins = np.zeros((rank, columns), np.int64), np.zeros((rank, rows), np.int64)
    start = int(np.argmax(valid.sum(axis=1)))
    known, reached = valid[start].copy(), np.zeros(rows, bool)
    offsets[:, known] = coordinates(start, known)
    while True:
        limits.current().check_time()
        new = ~reached & (valid & known).any(axis=1)
        if not bool(new.any()):
            break
        pick = (valid & known)[new].argmax(axis=1)
        origins[:, new] = coordinates(np.flatnonzero(new), pick) - offsets[:, pick]
        reached |= new
        more = ~known & valid[new].any(axis=0)
        if bool(more.any()):
            row = np.flatnonzero(new)[valid[new][:, more].argmax(axis=0)]
            offsets[:, more] = coordinates(row, np.flatnonzero(more)) - origins[:, row]
            known |= more
    if not bool(reached.all()):
        raise _Unlinked("the rows share no offsets")
    least = offsets[:, known].min(axis=1)
    offsets[:, known] -= least[:, None]
    return offsets, origins + least[:, None], known


def _axis(size: int, origins: np.ndarray, offsets: np.ndarray) -> tuple[Axis, np.ndarray, np.ndarray]:
    """The role of one axis, the rows' positions and the columns' kernel indices along it."""
    starts, reach = values(origins), values(offsets)
    zeros = np.zeros_like(origins)
    if reach.size == 1 and starts.size == size and starts[0] == 0:
        return Axis("batch", size, count=size), origins, offsets
    if starts.size == 1 and starts[0] == 0 and reach.size == size:
        return Axis("channel", size), zeros, offsets
    steps = np.diff(starts)
    if steps.size and not bool((steps == steps[0]).all()):
        raise NoWindow("the origins of the rows are not a regular grid")
    dilation = int(np.gcd.reduce(reach)) or 1
    kernel = int(reach[-1]) // dilation + 1
    stride = int(steps[0]) if steps.size else (kernel - 1) * dilation + 1
    axis = Axis("spatial", size, kernel, stride, dilation, int(starts[0]), starts.size)
    return axis, (origins - starts[0]) // stride, offsets // dilation


def _name_unit_channel(axes: list[Axis]) -> list[Axis]:
    """Where no axis is a channel, an axis of size 1 behind the first is one (a grey image)."""
    if any(axis.role == "channel" for axis in axes):
        return axes
    for at, axis in enumerate(axes):
        if at and axis.size == 1 and axis.role == "batch":
            return [*axes[:at], Axis("channel", 1), *axes[at + 1 :]]
    return axes


def _name_unit_kernel(axes: list[Axis]) -> list[Axis]:
    """Of an image, the axis that a kernel of one runs over (1x7 patches), which is no batch that a Reshape could merge."""
    roles = [axis.role for axis in axes]
    if sorted(roles) != ["batch", "batch", "channel", "spatial"] or roles[0] != "batch" or roles[1:3] == ["batch", "channel"]:
        return axes
    at = roles.index("batch", 1)
    return [*axes[:at], dataclasses.replace(axes[at], role="spatial"), *axes[at + 1 :]]


def distinct(index: np.ndarray) -> bool:
    """Whether no element of a non-negative index array occurs twice (by counting: np.unique hashes, and is slow)."""
    return not index.size or int(np.bincount(index.reshape(-1)).max()) <= 1


def values(index: np.ndarray) -> np.ndarray:
    """The different elements of an integer array, ascending."""
    least = int(index.min())
    return np.flatnonzero(np.bincount(index.reshape(-1) - least)) + least


def _check_grid(window: WindowMap, rows: int) -> None:
    counts = [axis.count for axis in window.axes]
    flat = np.ravel_multi_index(tuple(window.positions), counts)
    if math.prod(counts) != rows or not distinct(flat):
        raise NoWindow("the rows are not a grid of windows, each once")
    first = window.axes[0]
    patched = [axis for axis in window.axes if axis.role == "spatial" and axis.kernel > 1]
    batch = any(axis.role == "batch" and axis.size > 1 for axis in window.axes)  # elsewhere: the first axis is an image's
    if first in patched and len(patched) > 1 and len(window.axes) > 3 and not batch:
        raise NoWindow("the batch axis is mixed into the patches")
