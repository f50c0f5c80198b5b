"""Images that a projection's results are moved to, in one trial: the window map of a patch embedding, read backwards.

The result of a projection is [rows, columns]. Where movement behind it puts each element in a place of an image, the
inverse of that map is [rows, columns] of places: a window over the image exactly when a patchify of the image, with
kernel = stride, would give the rows back. So :mod:`graphcheck.patches.window` reads it, and no operator is looked at.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from graphcheck.kernel.terms import strided
from graphcheck.kernel.terms.maps import Map
from graphcheck.patches.contraction import Traced
from graphcheck.patches.ends import after, dims_over, shown
from graphcheck.patches.product import Product
from graphcheck.patches.reading import product_of, window_of
from graphcheck.patches.window import NoWindow, WindowMap


@dataclasses.dataclass(frozen=True, eq=False)
class Pixels:
    """The windows of an image in one trial.

    ``end`` holds the image, whose axes its ``dims`` run over. ``rows`` are those of the projection that it has, ascending;
    ``placed`` is the map of its elements into [rows, columns], ``bias`` what is added to them as in :class:`Shown`.
    """

    end: ir.Value
    dims: tuple[tuple[int, ...], ...]
    window: WindowMap
    rows: np.ndarray
    placed: Map
    bias: tuple[np.ndarray, Map] | None

    @property
    def counts(self) -> list[int]:
        """Windows along each axis."""
        return [axis.count for axis in self.window.axes]

    @property
    def weight(self) -> tuple[int, int, int]:
        """What makes one image more the whole than another: axes and elements of a patch; few axes in all."""
        kernels = [axis.kernel for axis in self.window.axes if axis.kernel > 1]
        return len(kernels), math.prod(kernels), -len(self.window.axes)


def images_of(traced: Traced, found: Product) -> tuple[Pixels, ...]:
    """The values behind a projection that are images of its patches, the most whole ones, in graph order."""
    result = traced.source.outputs[0]
    seen = [pixels_at(end, result, found, traced) for end in after(result, traced.trial, part=True)]
    images = [image for image in seen if image is not None]
    most = max((image.weight for image in images), default=None)
    return tuple(image for image in images if image.weight == most)


def pixels_at(end: ir.Value, result: ir.Value, found: Product, traced: Traced) -> Pixels | None:
    """The windows of ``end`` that the rows of ``result`` are; None if it has none, side by side."""
    there = shown(end, result, traced.trial, part=True)
    if there is None:
        return None
    placed = traced.trial.terms.maps.compose(rows_of(found, traced), there.index)
    return windows_at(traced, end, placed, width_of(found), there.bias)


def width_of(found: Product) -> int:
    """Columns of a projection, all groups together."""
    return found.shape[0] * int(found.kernel.shape[1])


def rows_of(found: Product, traced: Traced) -> Map:
    """Where each element of a projection's result stands in [rows, columns]."""
    maps, (groups, rows, _), n = traced.trial.terms.maps, found.shape, found.kernel.shape[1]
    placed = maps.compose(maps.transpose((rows, groups, n), (1, 0, 2)), found.place)
    assert placed is not None
    return placed


def windows_at(
    traced: Traced, end: ir.Value, placed: Map | None, width: int, bias: tuple[np.ndarray, Map] | None = None
) -> Pixels | None:
    """The windows of ``end``, whose elements stand in [rows, width] as ``placed`` says, each at another place."""
    trial, maps = traced.trial, traced.trial.terms.maps
    if placed is None or width < 2 or placed.size % width or len(trial.shape(end)) < 2:
        return None
    rows = np.arange(placed.size // width)
    back = maps.inverse(placed)
    if back is None:  # some rows are left out
        row, column = np.divmod(placed.index.astype(np.int64) - 1, width)
        rows = np.flatnonzero(np.bincount(row))
        placed = maps.intern(np.searchsorted(rows, row) * width + column + 1)
        back = maps.inverse(placed) if rows.size * width == placed.size else None
    if back is None:
        return None
    for dims in _splits(back, rows.size, trial.shape(end)):
        try:
            window = window_of(back, (1, rows.size, width), tuple(size for dim in dims for size in dim), trial)
        except NoWindow:
            continue
        axes = [axis for axis in window.axes if axis.role == "spatial"]
        tiles = all((a.stride, a.dilation, a.origin, a.count * a.kernel) == (a.kernel, 1, 0, a.size) for a in axes)
        if window.is_window and not window.on_first_axis and tiles:
            at = itertools.count()
            return Pixels(end, tuple(tuple(next(at) for _ in dim) for dim in dims), window, rows, placed, bias)
    return None


def _splits(back: Map, rows: int, shape: tuple[int, ...]) -> Iterator[list[list[int]]]:
    """The sizes of the axes that each dim of ``shape`` runs over: one each; or as rows and columns stand in it in turn."""
    yield [[size] for size in shape]
    cut = None if back.form is None else strided.cut(back.form, rows)
    found = None if cut is None or cut.guards else strided.digits(cut.box, cut.start, cut.strides, (), shape)
    if found is None:
        return
    box, _, axes = found
    first = len(box)  # of the digits of the columns
    while math.prod(box[first:]) * rows < back.size:
        first -= 1
    dims: list[list[int]] = []
    for (_, steps), size in zip(axes, shape, strict=True):
        digits = sorted((j for j in range(len(box)) if steps[j]), key=lambda j: -steps[j])
        sizes: list[int] = []
        for before, j in zip([first, *digits], digits, strict=False):
            if before < first <= j:
                sizes[-1] *= box[j]
            else:
                sizes.append(box[j])
        dims.append(sizes if math.prod(sizes) == size else [size])
    if any(len(sizes) > 1 for sizes in dims):
        yield [sizes or [1] for sizes in dims]


def on_own_axes(traced: Traced, pixels: Pixels) -> bool:
    """Whether the dims of the projection's own result are whole axes of windows, and columns."""
    found, maps = product_of(traced), traced.trial.terms.maps
    assert found is not None
    if traced.node.op_type == "ConvTranspose":  # its result is the image
        return True
    back, width = maps.inverse(rows_of(found, traced)), width_of(found)
    view = maps.compose(back, maps.picked_rows(row_at(pixels), width))
    shape = traced.trial.shape(traced.source.outputs[0])
    return back is not None and view is not None and dims_over(view, [*pixels.counts, width], shape, maps) is not None


def row_at(pixels: Pixels) -> np.ndarray:
    """int [windows], the projection's row at each window of the grid."""
    order = np.empty(pixels.rows.size, np.int64)
    order[np.ravel_multi_index(tuple(pixels.window.positions), pixels.counts)] = pixels.rows
    return order
